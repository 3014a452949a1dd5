/* What strings can do without a method call: searched, stripped, replaced, padded. */
#include "chat/jinja_value.h"

#include <string.h>

size_t fmj_find(fmj_run *r, const fmj_str *s, const fmj_str *sub, size_t from, size_t to)
{
    if (from > to || sub->n > to - from) return SIZE_MAX;
    if (sub->n == 0) return from;
    fmj_step(r, (to - from) / 64 + 1);
    for (size_t at = from; at + sub->n <= to;) {
        const char *p = memchr(s->s + at, sub->s[0], to - sub->n + 1 - at);
        if (!p) break;
        at = (size_t)(p - s->s);
        if (sub->n > 64) fmj_step(r, sub->n / 256 + 1);
        if (memcmp(p, sub->s, sub->n) == 0) return at;
        at++;
    }
    return SIZE_MAX;
}

size_t fmj_rfind(fmj_run *r, const fmj_str *s, const fmj_str *sub, size_t from, size_t to)
{
    if (from > to || sub->n > to - from) return SIZE_MAX;
    if (sub->n == 0) return to;
    fmj_step(r, (to - from) / 64 + 1);
    for (size_t at = to - sub->n + 1; at-- > from;) {
        if (s->s[at] != sub->s[0]) continue;
        if (sub->n > 64) fmj_step(r, sub->n / 256 + 1);
        if (memcmp(s->s + at, sub->s, sub->n) == 0) return at;
    }
    return SIZE_MAX;
}

static bool is_stripped(fmj_run *r, int32_t c, const fmj_str *chars)
{
    fmj_step(r, 1);
    if (!chars) return fmj_is_space(c);
    size_t at = 0, len;
    while (at < chars->n && fmj_char_at(chars, at, &len) != c) at += len;
    fmj_step(r, at / 16);
    return at < chars->n;
}

const fmj_str *fmj_strip(fmj_run *r, const fmj_str *s, fmj_value v, bool left, bool right)
{
    const fmj_str *chars = NULL;
    if (v.kind == FMJ_STR) {
        chars = v.str;
    } else if (v.kind != FMJ_NONE && v.kind != FMJ_MISSING) {
        fmj_raise(r, "strip arg must be None or str");
    }
    size_t from = 0, to = s->n, len;
    while (left && from < to && is_stripped(r, fmj_char_at(s, from, &len), chars)) from += len;
    while (right && to > from) {
        size_t at = to;
        do at--;
        while (at > from && ((unsigned char)s->s[at] & 0xC0) == 0x80);
        if (!is_stripped(r, fmj_char_at(s, at, &len), chars)) break;
        to = at;
    }
    return fmj_str_part(r, s, from, to - from);
}

const fmj_str *fmj_replace(fmj_run *r, const fmj_str *s, const fmj_str *old, const fmj_str *new,
                           int64_t count)
{
    fmj_buf b = {0};
    size_t at = 0;
    if (count < 0) count = INT64_MAX;
    if (s->is_markup) {
        old = fmj_escape(r, old);
        new = fmj_escape(r, new);
    }
    for (; count > 0; count--) {
        fmj_step(r, 1);
        if (old->n == 0) {
            /* Before every character and at the end. */
            size_t len = 0;
            fmj_buf_str(r, &b, new);
            if (at == s->n) break;
            fmj_char_at(s, at, &len);
            fmj_buf_part(r, &b, s, at, len);
            at += len;
            continue;
        }
        const size_t found = fmj_find(r, s, old, at, s->n);
        if (found == SIZE_MAX) break;
        fmj_buf_part(r, &b, s, at, found - at);
        fmj_buf_str(r, &b, new);
        at = found + old->n;
    }
    fmj_buf_part(r, &b, s, at, s->n - at);
    fmj_str *out = (fmj_str *)fmj_buf_take(r, &b);
    out->is_markup = s->is_markup;
    return out;
}

/* Length of the line break at `at`, 0: none. */
static size_t line_break(const fmj_str *s, size_t at)
{
    size_t len;
    const int32_t c = fmj_char_at(s, at, &len);
    if (c == '\r') return at + 1 < s->n && s->s[at + 1] == '\n' ? 2 : 1;
    const bool is_break = (c >= '\n' && c <= '\f') || (c >= 0x1c && c <= 0x1e) || c == 0x85 ||
                          c == 0x2028 || c == 0x2029;
    return is_break ? len : 0;
}

fmj_value fmj_splitlines(fmj_run *r, const fmj_str *s, bool keep_ends)
{
    fmj_vec lines = {0};
    size_t from = 0;
    fmj_step(r, s->n / 16);
    for (size_t at = 0, len; at < s->n;) {
        const size_t n = line_break(s, at);
        if (n == 0) {
            fmj_char_at(s, at, &len);
            at += len;
            continue;
        }
        const size_t end = keep_ends ? at + n : at;
        fmj_vec_add(r, &lines, fmj_str_value(fmj_str_part(r, s, from, end - from)));
        at += n;
        from = at;
    }
    if (from < s->n) fmj_vec_add(r, &lines, fmj_str_value(fmj_str_part(r, s, from, s->n - from)));
    return fmj_list_of(r, FMJ_LIST, lines.v, lines.n);
}

const fmj_str *fmj_pad(fmj_run *r, const fmj_str *s, int64_t width, const fmj_str *fill, char where)
{
    if (fill->n_char != 1) fmj_raise(r, "The fill character must be exactly one character long");
    if (width <= (int64_t)s->n_char) return s;
    const int64_t pad = width - (int64_t)s->n_char;
    int64_t left = where == 'l' ? 0 : where == 'r' ? pad : pad / 2 + (pad & width & 1);
    fmj_buf b = {0};
    fmj_buf_fill(r, &b, fill, left);
    fmj_buf_str(r, &b, s);
    fmj_buf_fill(r, &b, fill, pad - left);
    fmj_str *out = (fmj_str *)fmj_buf_take(r, &b);
    out->is_markup = s->is_markup;
    return out;
}
