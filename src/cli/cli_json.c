/* JSON out, value by value. */
#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static void write_escaped(FILE *out, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)bytes[i];
        switch (c) {
        case '"':
            fputs("\\\"", out);
            break;
        case '\\':
            fputs("\\\\", out);
            break;
        case '\n':
            fputs("\\n", out);
            break;
        case '\r':
            fputs("\\r", out);
            break;
        case '\t':
            fputs("\\t", out);
            break;
        default:
            if (c < 0x20 || c == 0x7f) {
                fprintf(out, "\\u%04x", c);
            } else {
                fputc(c, out);
            }
        }
    }
}

static void write_string(FILE *out, const char *text, size_t n)
{
    enum { PIECE = 256 };
    char valid[3 * (PIECE + 3)];
    fm_utf8_stream stream = {0};
    fputc('"', out);
    for (size_t at = 0; at < n && !ferror(out); at += PIECE) {
        const size_t piece = n - at < PIECE ? n - at : PIECE;
        write_escaped(out, valid, fm_utf8_push(&stream, valid, text + at, piece, false));
    }
    write_escaped(out, valid, fm_utf8_push(&stream, valid, "", 0, true));
    fputc('"', out);
}

static void write_lead(fm_json_out *j, const char *key)
{
    if (j->needs_comma) fputs(", ", j->out);
    if (key) {
        write_string(j->out, key, strlen(key));
        fputs(": ", j->out);
    }
    j->needs_comma = true;
}

void fm_json_open(fm_json_out *j, const char *key, char bracket)
{
    write_lead(j, key);
    fputc(bracket, j->out);
    j->depth++;
    j->needs_comma = false;
}

void fm_json_close(fm_json_out *j, char bracket)
{
    fputc(bracket, j->out);
    j->needs_comma = true;
    if (--j->depth == 0) fputc('\n', j->out);
}

void fm_json_text(fm_json_out *j, const char *key, const char *text, size_t n)
{
    write_lead(j, key);
    write_string(j->out, text, n);
}

void fm_json_string(fm_json_out *j, const char *key, const char *text)
{
    fm_json_text(j, key, text, strlen(text));
}

void fm_json_u64(fm_json_out *j, const char *key, uint64_t value)
{
    write_lead(j, key);
    fprintf(j->out, "%" PRIu64, value);
}

void fm_json_count(fm_json_out *j, const char *key, int64_t n)
{
    fm_json_u64(j, key, n > 0 ? (uint64_t)n : 0);
}

void fm_json_bool(fm_json_out *j, const char *key, bool value)
{
    fm_json_literal(j, key, value ? "true" : "false");
}

void fm_json_literal(fm_json_out *j, const char *key, const char *literal)
{
    write_lead(j, key);
    fputs(literal, j->out);
}

void fm_json_real(fm_json_out *j, const char *key, double value)
{
    write_lead(j, key);
    if (isfinite(value)) {
        fprintf(j->out, "%.6g", value);
    } else {
        fputs("null", j->out);
    }
}
