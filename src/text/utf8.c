/* UTF-8 decoding, and the stream that turns bytes of tokens into whole characters for a terminal or
 * a client. Broken bytes become U+FFFD, one per maximal part of a character that was begun (the
 * practice the Unicode standard recommends, and what Python's errors="replace" does). */
#include "text/utf8.h"

#include <string.h>

#include "flashmoe.h"

/* Length of the character that begins with `lead`, 0 if none can. */
static size_t length_of(unsigned char lead)
{
    if (lead < 0x80) return 1;
    if (lead < 0xC2) return 0;
    if (lead < 0xE0) return 2;
    if (lead < 0xF0) return 3;
    return lead < 0xF5 ? 4 : 0;
}

/* Whether `b` may stand at position `at` (1..3) after `lead`. Only the second byte depends on the
 * lead: it rules out overlong forms, surrogates and code points above U+10FFFF. */
static bool continues(unsigned char lead, size_t at, unsigned char b)
{
    unsigned char low = 0x80, high = 0xBF;
    if (at == 1) {
        if (lead == 0xE0) low = 0xA0;
        if (lead == 0xED) high = 0x9F;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;
    }
    return b >= low && b <= high;
}

bool fm_utf8_has_byte(unsigned char byte)
{
    return byte < 0xC0 || length_of(byte) != 0;
}

size_t fm_utf8_decode(uint32_t *code, const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    if (n == 0) return 0;
    const size_t len = length_of(u[0]);
    if (len == 0 || len > n) return 0;
    if (len == 1) {
        *code = u[0];
        return 1;
    }
    uint32_t c = u[0] & (0xFFu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if (!continues(u[0], i, u[i])) return 0;
        c = c << 6 | (u[i] & 0x3Fu);
    }
    *code = c;
    return len;
}

size_t fm_utf8_encode(char p[4], uint32_t code)
{
    if (code < 0x80) {
        p[0] = (char)code;
        return 1;
    }
    const size_t len = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--) {
        p[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    p[0] = (char)((0xF00u >> len) | code);
    return len;
}

size_t fm_utf8_valid_prefix(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t code;
        const size_t len = (unsigned char)p[i] < 0x80 ? 1 : fm_utf8_decode(&code, p + i, n - i);
        if (len == 0) break;
        i += len;
    }
    return i;
}

static size_t put_replacement(char *out)
{
    memcpy(out, "\xEF\xBF\xBD", 3);
    return 3;
}

size_t fm_utf8_push(fm_utf8_stream *s, char *out, const char *bytes, size_t n, bool flush)
{
    size_t w = 0;
    for (size_t i = 0; i < n;) {
        const unsigned char b = (unsigned char)bytes[i];
        if (s->n_pending == 0) {
            i++;
            if (b < 0x80) {
                out[w++] = (char)b;
            } else if (length_of(b) == 0) {
                w += put_replacement(out + w);
            } else {
                s->pending[s->n_pending++] = b;
            }
        } else if (continues(s->pending[0], s->n_pending, b)) {
            i++;
            s->pending[s->n_pending++] = b;
            if (s->n_pending == length_of(s->pending[0])) {
                memcpy(out + w, s->pending, s->n_pending);
                w += s->n_pending;
                s->n_pending = 0;
            }
        } else { /* the character that was begun is broken; look at b again as a first byte */
            w += put_replacement(out + w);
            s->n_pending = 0;
        }
    }
    if (flush && s->n_pending > 0) {
        w += put_replacement(out + w);
        s->n_pending = 0;
    }
    return w;
}

bool fm_utf8_is_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0d) || code == 0x20 || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}
