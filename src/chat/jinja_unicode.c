/* Characters: case and classes as Python's str has them. */
#include "chat/jinja_value.h"

#include <utf8proc.h>

typedef struct {
    int32_t code;
    int32_t n;
    int32_t to[3];
} case_row;

#include "chat/unicode_case_table.inc"

#define ROWS(table) table, sizeof table / sizeof table[0]

static const case_row *find_row(const case_row *rows, size_t n, int32_t code)
{
    size_t low = 0;
    while (low < n) {
        const size_t mid = (low + n) / 2;
        if (rows[mid].code == code) return &rows[mid];
        if (rows[mid].code < code) {
            low = mid + 1;
        } else {
            n = mid;
        }
    }
    return NULL;
}

static bool in_ranges(const int32_t (*ranges)[2], size_t n, int32_t code)
{
    for (size_t i = 0; i < n; i++)
        if (code >= ranges[i][0] && code <= ranges[i][1]) return true;
    return false;
}

int32_t fmj_char_at(const fmj_str *s, size_t at, size_t *len)
{
    const unsigned char first = (unsigned char)s->s[at];
    *len = 1;
    if (first < 0x80) return first;
    utf8proc_int32_t c = 0xFFFD;
    const utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s->s + at, (utf8proc_ssize_t)(s->n - at), &c);
    if (n > 0) *len = (size_t)n;
    return n > 0 ? c : 0xFFFD;
}

int fmj_map_case(int32_t code, fmj_case to, int32_t out[3])
{
    if (code < 0x80) {
        const bool is_upper = code >= 'A' && code <= 'Z', is_lower = code >= 'a' && code <= 'z';
        const bool wants_upper = to == FMJ_UPPER || to == FMJ_TITLE;
        out[0] = wants_upper ? code - (is_lower ? 32 : 0) : code + (is_upper ? 32 : 0);
        return 1;
    }
    const case_row *row = to == FMJ_UPPER   ? find_row(ROWS(upper_rows), code)
                          : to == FMJ_TITLE ? find_row(ROWS(title_rows), code)
                          : to == FMJ_LOWER ? find_row(ROWS(lower_rows), code)
                                            : find_row(ROWS(fold_rows), code);
    if (!row && to == FMJ_FOLD) row = find_row(ROWS(lower_rows), code);
    if (row) {
        for (int i = 0; i < row->n; i++) out[i] = row->to[i];
        return row->n;
    }
    out[0] = to == FMJ_UPPER   ? utf8proc_toupper(code)
             : to == FMJ_TITLE ? utf8proc_totitle(code)
                               : utf8proc_tolower(code);
    return 1;
}

static utf8proc_category_t category(int32_t code)
{
    return utf8proc_category(code);
}

bool fmj_is_space(int32_t c)
{
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool fmj_is_printable(int32_t c)
{
    if (c < 0x7f) return c >= 0x20;
    switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

bool fmj_is_upper(int32_t c)
{
    return c < 0x80 ? c >= 'A' && c <= 'Z' : utf8proc_isupper(c);
}

bool fmj_is_lower(int32_t c)
{
    return c < 0x80 ? c >= 'a' && c <= 'z' : utf8proc_islower(c);
}

bool fmj_is_cased(int32_t c)
{
    return fmj_is_upper(c) || fmj_is_lower(c) || category(c) == UTF8PROC_CATEGORY_LT;
}

bool fmj_is_alpha(int32_t c)
{
    switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return true;
    default:
        return false;
    }
}

bool fmj_is_decimal(int32_t c)
{
    return c < 0x80 ? c >= '0' && c <= '9' : category(c) == UTF8PROC_CATEGORY_ND;
}

bool fmj_is_digit(int32_t c)
{
    return fmj_is_decimal(c) || in_ranges(ROWS(digit_ranges), c);
}

bool fmj_is_numeric(int32_t c)
{
    return fmj_is_digit(c) || in_ranges(ROWS(numeric_ranges), c);
}

/* ---- whole strings ------------------------------------------------------------------------------- */

static bool is_ignored_by_case(int32_t c)
{
    switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x2019 || c == 0x2018;
    }
}

/* A capital sigma at `at` that ends a word becomes the final form. */
static bool is_final_sigma(const fmj_str *s, size_t at, size_t len)
{
    bool has_before = false, has_after = false;
    for (size_t i = at; i > 0;) {
        do i--;
        while (i > 0 && ((unsigned char)s->s[i] & 0xC0) == 0x80);
        size_t n;
        const int32_t c = fmj_char_at(s, i, &n);
        if (is_ignored_by_case(c)) continue;
        has_before = fmj_is_cased(c);
        break;
    }
    for (size_t i = at + len, n; i < s->n; i += n) {
        const int32_t c = fmj_char_at(s, i, &n);
        if (is_ignored_by_case(c)) continue;
        has_after = fmj_is_cased(c);
        break;
    }
    return has_before && !has_after;
}

/* The character at `at`, mapped; returns its length in s. */
static size_t put_mapped(fmj_run *r, fmj_buf *b, const fmj_str *s, size_t at, fmj_case to)
{
    enum { CAPITAL_SIGMA = 0x3a3, FINAL_SIGMA = 0x3c2 };
    size_t len;
    int32_t out[3];
    const int32_t c = fmj_char_at(s, at, &len);
    int n = fmj_map_case(c, to, out);
    if (c == CAPITAL_SIGMA && to == FMJ_LOWER && is_final_sigma(s, at, len)) out[0] = FINAL_SIGMA;
    for (int i = 0; i < n; i++) fmj_buf_char(r, b, out[i], s, at);
    return len;
}

static const fmj_str *take_like(fmj_run *r, fmj_buf *b, const fmj_str *like)
{
    fmj_str *out = (fmj_str *)fmj_buf_take(r, b);
    out->is_markup = like->is_markup;
    return out;
}

const fmj_str *fmj_str_case(fmj_run *r, const fmj_str *s, fmj_case to)
{
    fmj_buf b = {0};
    fmj_step(r, s->n / 8);
    for (size_t at = 0; at < s->n;) at += put_mapped(r, &b, s, at, to);
    return take_like(r, &b, s);
}

const fmj_str *fmj_capitalize(fmj_run *r, const fmj_str *s)
{
    fmj_buf b = {0};
    fmj_step(r, s->n / 8);
    for (size_t at = 0; at < s->n;) at += put_mapped(r, &b, s, at, at == 0 ? FMJ_TITLE : FMJ_LOWER);
    return take_like(r, &b, s);
}

const fmj_str *fmj_swapcase(fmj_run *r, const fmj_str *s)
{
    fmj_buf b = {0};
    fmj_step(r, s->n / 8);
    for (size_t at = 0, len; at < s->n;) {
        const int32_t c = fmj_char_at(s, at, &len);
        if (fmj_is_upper(c)) {
            at += put_mapped(r, &b, s, at, FMJ_LOWER);
        } else if (fmj_is_lower(c)) {
            at += put_mapped(r, &b, s, at, FMJ_UPPER);
        } else {
            fmj_buf_part(r, &b, s, at, len);
            at += len;
        }
    }
    return take_like(r, &b, s);
}

const fmj_str *fmj_title(fmj_run *r, const fmj_str *s)
{
    fmj_buf b = {0};
    bool is_inside = false;
    fmj_step(r, s->n / 8);
    for (size_t at = 0, len; at < s->n;) {
        const int32_t c = fmj_char_at(s, at, &len);
        at += put_mapped(r, &b, s, at, is_inside ? FMJ_LOWER : FMJ_TITLE);
        is_inside = fmj_is_cased(c);
    }
    return take_like(r, &b, s);
}
