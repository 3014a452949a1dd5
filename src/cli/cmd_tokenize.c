/* flashmoe tokenize: text to ids and back, with the tokenizer of a model or a tokenizer.json. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static void print_ids_json(const fm_tokenizer *tok, const int32_t *ids, size_t n_ids)
{
    fm_json_out j = {.out = stdout};
    fm_json_open(&j, NULL, '{');
    fm_json_open(&j, "ids", '[');
    for (size_t i = 0; i < n_ids && !ferror(stdout); i++) fm_json_u64(&j, NULL, (uint64_t)ids[i]);
    fm_json_close(&j, ']');
    fm_json_open(&j, "tokens", '[');
    for (size_t i = 0; i < n_ids && !ferror(stdout); i++) {
        size_t n = 0;
        const char *bytes = fm_token_bytes(tok, ids[i], &n);
        fm_json_text(&j, NULL, bytes ? bytes : "", bytes ? n : 0);
    }
    fm_json_close(&j, ']');
    fm_json_close(&j, '}');
}

/* One token a line: its id, a tab, its bytes with everything unprintable escaped. */
static void print_ids(const fm_tokenizer *tok, const int32_t *ids, size_t n_ids)
{
    for (size_t i = 0; i < n_ids && !ferror(stdout); i++) {
        size_t n = 0;
        const char *bytes = fm_token_bytes(tok, ids[i], &n);
        printf("%d\t\"", (int)ids[i]);
        for (size_t k = 0; bytes && k < n; k++) {
            const unsigned char c = (unsigned char)bytes[k];
            if (c == '\n') {
                fputs("\\n", stdout);
            } else if (c == '"' || c == '\\') {
                printf("\\%c", c);
            } else if (c < 0x20 || c >= 0x7f) {
                printf("\\x%02x", c);
            } else {
                putchar(c);
            }
        }
        fputs("\"\n", stdout);
    }
}

/* Bytes of all tokens as text; broken characters become U+FFFD. malloc'd, owned by the caller. */
static fm_status decode(char **text, size_t *n_text, const fm_tokenizer *tok, const int32_t *ids,
                        size_t n_ids, fm_error *err)
{
    size_t n_bytes = 0;
    for (size_t i = 0; i < n_ids; i++) {
        size_t n = 0;
        if (fm_token_bytes(tok, ids[i], &n)) n_bytes += n;
    }
    char *out = malloc(3 * (n_bytes + 3));
    if (!out) return fm_fail(err, FM_E_NOMEM, "no memory for the text of %zu ids", n_ids);
    fm_utf8_stream stream = {0};
    size_t at = 0;
    for (size_t i = 0; i < n_ids; i++) {
        size_t n = 0;
        const char *bytes = fm_token_bytes(tok, ids[i], &n);
        if (bytes) at += fm_utf8_push(&stream, out + at, bytes, n, false);
    }
    at += fm_utf8_push(&stream, out + at, "", 0, true);
    *text = out;
    *n_text = at;
    return FM_OK;
}

static fm_status decode_ids(const fm_tokenizer *tok, const fm_cli_options *o, fm_error *err)
{
    int32_t *ids;
    size_t n_ids, n_text = 0;
    char *text = NULL;
    FM_TRY(fm_cli_parse_ids(&ids, &n_ids, o->decode_ids, "--decode", err));
    fm_status st = fm_cli_check_ids(ids, n_ids, fm_tokenizer_n_vocab(tok), "--decode", err);
    if (st == FM_OK) st = decode(&text, &n_text, tok, ids, n_ids, err);
    free(ids);
    if (st != FM_OK) return st;
    if (o->is_json) {
        fm_json_out j = {.out = stdout};
        fm_json_open(&j, NULL, '{');
        fm_json_text(&j, "text", text, n_text);
        fm_json_close(&j, '}');
    } else {
        fwrite(text, 1, n_text, stdout);
    }
    free(text);
    return FM_OK;
}

static fm_status encode_text(const fm_tokenizer *tok, const fm_cli_options *o, const char *text,
                             size_t n, fm_error *err)
{
    int32_t *ids;
    size_t n_ids;
    FM_TRY(fm_tokenize(tok, &ids, &n_ids, text, n, o->no_special ? 0 : FM_TOKENIZE_SPECIAL, err));
    fm_status st = FM_OK;
    if (fm_cli_is_interrupted()) {
        st = fm_fail(err, FM_E_CANCELLED, "interrupted");
    } else if (o->is_json) {
        print_ids_json(tok, ids, n_ids);
    } else {
        print_ids(tok, ids, n_ids);
    }
    free(ids);
    return st;
}

int fm_cmd_tokenize(const fm_cli_options *o)
{
    const int n_source = !!o->prompt + !!o->prompt_file + !!o->decode_ids;
    if (n_source != 1) return fm_cli_usage_error(o, "give one of -p TEXT, -f FILE, --decode IDS");
    if (o->decode_ids && o->no_special) {
        return fm_cli_usage_error(o, "--no-special has no meaning with --decode");
    }
    fm_error err = {0};
    fm_tokenizer *tok = NULL;
    char *text = NULL;
    size_t n = o->prompt ? strlen(o->prompt) : 0;
    fm_status st = fm_tokenizer_open(&tok, o->model, &err);
    if (st == FM_OK && fm_cli_is_interrupted()) st = fm_fail(&err, FM_E_CANCELLED, "interrupted");
    if (st == FM_OK && o->prompt_file) st = fm_cli_read_file(&text, &n, o->prompt_file, &err);
    if (st == FM_OK && o->decode_ids) {
        st = decode_ids(tok, o, &err);
    } else if (st == FM_OK) {
        st = encode_text(tok, o, text ? text : o->prompt, n, &err);
    }
    free(text);
    fm_tokenizer_close(tok);
    return st == FM_OK ? FM_EXIT_OK : fm_cli_fail(&err);
}
