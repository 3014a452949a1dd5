/* Text that grows, each byte with its origin. */
#include "chat/jinja_value.h"

#include <string.h>
#include <utf8proc.h>

static void check_length(fmj_run *r, const fmj_buf *b, uint64_t n)
{
    const uint64_t max = r->in && r->in->max_output ? r->in->max_output : FM_JINJA_MAX_OUTPUT;
    if (n > max || b->n > max - n)
        fmj_fail(r, FM_E_LIMIT, "a text is longer than %llu bytes", (unsigned long long)max);
}

static void grow(fmj_run *r, fmj_buf *b, size_t n)
{
    check_length(r, b, n);
    const size_t cap = 2 * b->cap > b->n + n + 64 ? 2 * b->cap : b->n + n + 64;
    char *s = fmj_alloc(r, cap);
    uint8_t *trust = fmj_alloc(r, cap);
    if (b->n > 0) {
        memcpy(s, b->s, b->n);
        memcpy(trust, b->trust, b->n);
    }
    b->s = s;
    b->trust = trust;
    b->cap = cap;
}

void fmj_buf_add(fmj_run *r, fmj_buf *b, const char *s, size_t n, bool is_trusted)
{
    if (n == 0) return;
    if (n > b->cap - b->n) grow(r, b, n);
    fmj_step(r, n / 64);
    memcpy(b->s + b->n, s, n);
    memset(b->trust + b->n, is_trusted, n);
    b->n += n;
}

void fmj_buf_text(fmj_run *r, fmj_buf *b, const char *literal)
{
    fmj_buf_add(r, b, literal, strlen(literal), false);
}

void fmj_buf_part(fmj_run *r, fmj_buf *b, const fmj_str *s, size_t at, size_t n)
{
    fmj_buf_add(r, b, s->s + at, n, s->is_trusted);
    if (s->trust && n > 0) memcpy(b->trust + b->n - n, s->trust + at, n);
}

void fmj_buf_str(fmj_run *r, fmj_buf *b, const fmj_str *s)
{
    fmj_buf_part(r, b, s, 0, s->n);
}

void fmj_buf_char(fmj_run *r, fmj_buf *b, int32_t code, const fmj_str *like, size_t at)
{
    char s[4];
    const size_t n = (size_t)utf8proc_encode_char(code, (utf8proc_uint8_t *)s);
    fmj_buf_add(r, b, s, n, like->trust ? like->trust[at] : like->is_trusted);
}

void fmj_buf_fill(fmj_run *r, fmj_buf *b, const fmj_str *fill, int64_t n)
{
    if (n <= 0 || fill->n == 0) return;
    check_length(r, b, (uint64_t)n > UINT64_MAX / fill->n ? UINT64_MAX : (uint64_t)n * fill->n);
    for (int64_t i = 0; i < n; i++) {
        fmj_step(r, 1);
        fmj_buf_str(r, b, fill);
    }
}

const fmj_str *fmj_buf_take(fmj_run *r, fmj_buf *b)
{
    fmj_str *s = fmj_alloc(r, sizeof *s);
    *s = *fmj_str_over(r, b->n > 0 ? b->s : "", b->n, false);
    if (b->n > 0) {
        /* The common case needs no map. */
        const uint8_t *end = memchr(b->trust, !b->trust[0], b->n);
        s->is_trusted = b->trust[0];
        s->trust = end ? b->trust : NULL;
    }
    return s;
}

fmj_value fmj_buf_value(fmj_run *r, fmj_buf *b)
{
    return fmj_str_value(fmj_buf_take(r, b));
}
