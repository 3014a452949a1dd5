/* Template text to tokens. Follows jinja2's lexer rule by rule, white space control included, with
 * trim_blocks and lstrip_blocks on and one newline at the end of the template dropped. */
#include "chat/jinja_syntax.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct {
    fmj_run *r;
    fmj_tokens *out;
    const char *s;
    size_t n, at;
    int32_t line;
    bool is_line_start; /* what was read last ended a line */
    char open[FMJ_PARSE_DEPTH_MAX];
    int n_open; /* brackets that are open */
} lexer;

static fmj_token *add(lexer *l, fmj_token_kind kind)
{
    fmj_tokens *t = l->out;
    l->r->line = l->line;
    if (t->n == t->cap) {
        const size_t cap = t->cap ? 2 * t->cap : 256;
        fmj_token *v = fmj_alloc_array(l->r, cap, sizeof *v);
        if (t->n > 0) memcpy(v, t->v, t->n * sizeof *v);
        t->v = v;
        t->cap = cap;
    }
    t->v[t->n] = (fmj_token){.kind = kind, .line = l->line};
    return &t->v[t->n++];
}

/* Moves on and counts lines. */
static void advance(lexer *l, size_t to)
{
    for (; l->at < to; l->at++) l->line += l->s[l->at] == '\n';
}

static bool has(const lexer *l, size_t at, const char *text)
{
    const size_t n = strlen(text);
    return n <= l->n - at && memcmp(l->s + at, text, n) == 0;
}

static int32_t code_at(const lexer *l, size_t at, size_t *len)
{
    utf8proc_int32_t c = -1;
    const utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)l->s + at, (utf8proc_ssize_t)(l->n - at), &c);
    *len = n > 0 ? (size_t)n : 1;
    return c;
}

static size_t skip_space(const lexer *l, size_t at)
{
    while (at < l->n) {
        size_t len;
        if (!fmj_is_space(code_at(l, at, &len))) break;
        at += len;
    }
    return at;
}

static void add_data(lexer *l, size_t from, size_t to)
{
    if (to > from)
        add(l, TOK_DATA)->value = fmj_str_value(fmj_str_over(l->r, l->s + from, to - from, true));
}

/* Where text [from, to) ends when the tag behind it has this sign in its opening. */
static size_t strip_before(const lexer *l, size_t from, size_t to, char sign, bool is_variable)
{
    if (sign == '-') {
        while (to > from) {
            size_t at = to - 1, len;
            while (at > from && ((unsigned char)l->s[at] & 0xC0) == 0x80) at--;
            if (!fmj_is_space(code_at(l, at, &len))) break;
            to = at;
        }
        return to;
    }
    if (sign == '+' || is_variable) return to;
    size_t start = to;
    while (start > from && l->s[start - 1] != '\n') start--;
    if (start == from && !l->is_line_start) return to;
    return skip_space(l, start) >= to ? start : to;
}

/* ---- strings and numbers ------------------------------------------------------------------------ */

static _Noreturn void fail(lexer *l, const char *what)
{
    l->r->line = l->line;
    fmj_fail(l->r, FM_E_FORMAT, "%s", what);
}

static size_t put_code(lexer *l, char *out, int32_t code)
{
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        fail(l, "an escape in a string is no character");
    return (size_t)utf8proc_encode_char(code, (utf8proc_uint8_t *)out);
}

/* `n` hexadecimal digits at `at`. */
static int32_t hex_code(lexer *l, size_t at, size_t end, int n)
{
    int32_t code = 0;
    for (int i = 0; i < n; i++) {
        const char c = at + (size_t)i < end ? l->s[at + (size_t)i] : 0;
        const char *digit = c ? strchr("0123456789abcdef", c | 0x20) : NULL;
        if (!digit || (c < '0')) fail(l, "a \\x or \\u escape in a string lacks digits");
        if (code > 0x10FFFF) fail(l, "an escape in a string is no character");
        code = 16 * code + (int32_t)(digit - "0123456789abcdef");
    }
    return code;
}

/* One escape whose backslash stands at `at`; returns where it ends. */
static size_t unescape(lexer *l, size_t at, size_t end, char *out, size_t *w)
{
    static const char simple[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    const char c = l->s[at + 1];
    if (c == '\n') return at + 2;
    for (size_t i = 0; simple[i]; i += 2) {
        if (simple[i] == c) {
            out[(*w)++] = simple[i + 1];
            return at + 2;
        }
    }
    if (c >= '0' && c <= '7') {
        int32_t code = 0;
        size_t k = at + 1;
        for (; k < end && k < at + 4 && l->s[k] >= '0' && l->s[k] <= '7'; k++)
            code = 8 * code + (l->s[k] - '0');
        *w += put_code(l, out + *w, code);
        return k;
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        const int n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        *w += put_code(l, out + *w, hex_code(l, at + 2, end, n));
        return at + 2 + (size_t)n;
    }
    if (c == 'N') fail(l, "\\N escapes in strings are not supported");
    out[(*w)++] = '\\';
    out[(*w)++] = c;
    return at + 2;
}

static bool lex_string(lexer *l)
{
    const char quote = l->s[l->at];
    size_t end = l->at + 1;
    bool is_plain = true;
    for (; end < l->n && l->s[end] != quote; end++) {
        if (l->s[end] != '\\') continue;
        is_plain = false;
        if (++end == l->n) return false;
    }
    if (end >= l->n) return false;
    const size_t from = l->at + 1;
    const char *text = l->s + from;
    size_t n = end - from;
    if (!is_plain) {
        char *out = fmj_alloc(l->r, n + 1);
        size_t w = 0;
        for (size_t i = from; i < end;) {
            if (l->s[i] == '\\') {
                i = unescape(l, i, end, out, &w);
            } else {
                out[w++] = l->s[i++];
            }
        }
        text = out;
        n = w;
    }
    add(l, TOK_STRING)->value = fmj_str_value(fmj_str_over(l->r, text, n, true));
    advance(l, end + 1);
    return true;
}

static bool is_digit(const lexer *l, size_t at, int base)
{
    if (at >= l->n) return false;
    const char c = l->s[at];
    if (base == 16 && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))) return true;
    return c >= '0' && c < '0' + (base < 10 ? base : 10);
}

/* End of (\d+_)*\d+ at `at`, or `at`. */
static size_t digits(const lexer *l, size_t at)
{
    if (!is_digit(l, at, 10)) return at;
    while (is_digit(l, at, 10) || (at < l->n && l->s[at] == '_' && is_digit(l, at + 1, 10))) at++;
    return at;
}

/* End of a float at the current place, or 0. */
static size_t float_end(const lexer *l)
{
    if (l->at > 0 && l->s[l->at - 1] == '.') return 0;
    size_t at = digits(l, l->at), end = 0;
    if (at == l->at) return 0;
    if (at < l->n && l->s[at] == '.' && is_digit(l, at + 1, 10)) end = at = digits(l, at + 1);
    if (at < l->n && (l->s[at] | 0x20) == 'e') {
        size_t e = at + 1;
        if (e < l->n && (l->s[e] == '+' || l->s[e] == '-')) e++;
        if (is_digit(l, e, 10)) end = digits(l, e);
    }
    return end;
}

static size_t int_end(const lexer *l, int *base)
{
    const size_t at = l->at;
    const char c = at + 1 < l->n ? (char)(l->s[at + 1] | 0x20) : 0;
    *base = l->s[at] != '0' ? 10 : c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
    if (*base != 10) {
        size_t k = at + 2;
        while (is_digit(l, k, *base) || (k < l->n && l->s[k] == '_' && is_digit(l, k + 1, *base)))
            k++;
        if (k > at + 2) return k;
        *base = 10;
    }
    if (l->s[at] != '0') return digits(l, at);
    size_t k = at + 1;
    while (k < l->n && (l->s[k] == '0' || (l->s[k] == '_' && k + 1 < l->n && l->s[k + 1] == '0')))
        k++;
    return k;
}

static void lex_number(lexer *l)
{
    char text[512];
    size_t w = 0, end = float_end(l);
    int base = 10;
    const bool is_float = end > 0;
    if (!is_float) end = int_end(l, &base);
    for (size_t i = l->at + (base == 10 ? 0 : 2); i < end; i++) {
        if (l->s[i] == '_') continue;
        if (w + 1 == sizeof text) fail(l, "a number has more than 500 digits");
        text[w++] = l->s[i];
    }
    text[w] = 0;
    errno = 0;
    fmj_value v;
    if (is_float) {
        v = fmj_float(strtod(text, NULL));
    } else {
        v = fmj_int(strtoll(text, NULL, base));
        if (errno == ERANGE) fail(l, "an integer is beyond 64 bits");
    }
    add(l, TOK_NUMBER)->value = v;
    advance(l, end);
}

/* ---- inside of tags ------------------------------------------------------------------------------ */

static size_t name_end(const lexer *l)
{
    size_t at = l->at;
    while (at < l->n) {
        size_t len;
        const int32_t c = code_at(l, at, &len);
        const bool is_word = c == '_' || (c < 0x80 ? ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                                                         (c >= '0' && c <= '9')
                                                   : fmj_is_alpha(c) || fmj_is_decimal(c));
        if (!is_word) break;
        at += len;
    }
    return at;
}

static bool lex_operator(lexer *l)
{
    static const char *const ops[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                      "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                      ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    const char *op = NULL;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0] && !op; i++)
        if (has(l, l->at, ops[i])) op = ops[i];
    if (!op) return false;
    static const char pairs[] = "(){}[]";
    const char *bracket = strchr(pairs, op[0]);
    if (bracket && (bracket - pairs) % 2 == 0) {
        if (l->n_open == FMJ_PARSE_DEPTH_MAX) {
            l->r->line = l->line;
            fmj_fail(l->r, FM_E_LIMIT, "more than %d brackets inside each other",
                     FMJ_PARSE_DEPTH_MAX);
        }
        l->open[l->n_open++] = bracket[1];
    } else if (bracket) {
        l->r->line = l->line;
        if (l->n_open == 0) fmj_fail(l->r, FM_E_FORMAT, "unexpected '%s'", op);
        const char expected = l->open[--l->n_open];
        if (expected != op[0])
            fmj_fail(l->r, FM_E_FORMAT, "unexpected '%s', expected '%c'", op, expected);
    }
    memcpy(add(l, TOK_OPERATOR)->op, op, strlen(op) + 1);
    advance(l, l->at + strlen(op));
    return true;
}

/* The end of a tag at the current place; returns where it ends, or 0. */
static size_t tag_end(const lexer *l, const char *close, bool is_block)
{
    const char sign = l->s[l->at];
    const bool is_signed = sign == '-' || (sign == '+' && is_block);
    const size_t at = l->at + is_signed;
    if (!has(l, at, close)) return 0;
    const size_t end = at + 2;
    if (is_signed) return sign == '-' ? skip_space(l, end) : end;
    return is_block && end < l->n && l->s[end] == '\n' ? end + 1 : end;
}

static void lex_tag(lexer *l, bool is_block)
{
    const char *close = is_block ? "%}" : "}}";
    l->n_open = 0;
    for (;;) {
        size_t len;
        if (l->at >= l->n) {
            return; /* the parser meets the end of the template */
        }
        if (l->n_open == 0) {
            const size_t end = tag_end(l, close, is_block);
            if (end > 0) {
                add(l, is_block ? TOK_BLOCK_END : TOK_VARIABLE_END);
                advance(l, end);
                l->is_line_start = l->s[end - 1] == '\n';
                return;
            }
        }
        const size_t space = skip_space(l, l->at);
        if (space > l->at) {
            advance(l, space);
            continue;
        }
        const char c = l->s[l->at];
        if (c >= '0' && c <= '9') {
            lex_number(l);
            continue;
        }
        const size_t end = name_end(l);
        if (end > l->at) {
            add(l, TOK_NAME)->value =
                fmj_str_value(fmj_str_over(l->r, l->s + l->at, end - l->at, true));
            advance(l, end);
            continue;
        }
        if ((c == '\'' || c == '"') && lex_string(l)) continue;
        if (lex_operator(l)) continue;
        code_at(l, l->at, &len);
        l->r->line = l->line;
        fmj_fail(l->r, FM_E_FORMAT, "unexpected char '%.*s'", (int)len, l->s + l->at);
    }
}

/* ---- between tags -------------------------------------------------------------------------------- */

/* "{%- raw -%}" at `at`: where it ends, or 0. `word` is "raw" or "endraw". */
static size_t raw_tag(const lexer *l, size_t at, const char *word, bool is_end)
{
    at += 2;
    if (at < l->n && (l->s[at] == '-' || l->s[at] == '+')) at++;
    at = skip_space(l, at);
    if (!has(l, at, word)) return 0;
    at = skip_space(l, at + strlen(word));
    if (at >= l->n) return 0;
    lexer probe = *l;
    probe.at = at;
    if (l->s[at] == '+' && !is_end) return 0;
    const size_t end = tag_end(&probe, "%}", true);
    /* The opening tag does not take the newline behind it. */
    return !is_end && end > 0 && l->s[at] != '-' ? at + 2 : end;
}

static char sign_at(const lexer *l, size_t at)
{
    const char c = at < l->n ? l->s[at] : 0;
    return c == '-' || c == '+' ? c : 0;
}

static void lex_raw(lexer *l, size_t body)
{
    advance(l, body);
    for (size_t at = body; at + 1 < l->n; at++) {
        if (!has(l, at, "{%")) continue;
        const size_t end = raw_tag(l, at, "endraw", true);
        if (end == 0) continue;
        l->is_line_start = body > 0 && l->s[body - 1] == '\n';
        add_data(l, body, strip_before(l, body, at, sign_at(l, at + 2), false));
        advance(l, end);
        l->is_line_start = l->s[end - 1] == '\n';
        return;
    }
    fail(l, "Missing end of raw directive");
}

static void lex_comment(lexer *l, size_t body)
{
    const int32_t line = l->line;
    for (size_t at = body; at + 1 < l->n; at++) {
        if (!has(l, at, "#}")) continue;
        const char sign = at > body ? l->s[at - 1] : 0;
        size_t end = at + 2;
        if (sign == '-') {
            end = skip_space(l, end);
        } else if (sign != '+' && end < l->n && l->s[end] == '\n') {
            end++;
        }
        advance(l, end);
        l->is_line_start = l->s[end - 1] == '\n';
        return;
    }
    l->line = line;
    fail(l, "Missing end of comment tag");
}

static void lex_root(lexer *l)
{
    while (l->at < l->n) {
        size_t tag = l->at;
        while (tag < l->n && !(l->s[tag] == '{' && tag + 1 < l->n && strchr("%{#", l->s[tag + 1]) &&
                               l->s[tag + 1]))
            tag++;
        if (tag == l->n) {
            add_data(l, l->at, tag);
            advance(l, tag);
            break;
        }
        const char kind = l->s[tag + 1];
        const char sign = sign_at(l, tag + 2);
        add_data(l, l->at, strip_before(l, l->at, tag, sign, kind == '{'));
        advance(l, tag);
        const size_t body = tag + 2 + (sign != 0);
        const size_t raw = kind == '%' ? raw_tag(l, tag, "raw", false) : 0;
        if (raw > 0) {
            lex_raw(l, raw);
        } else if (kind == '#') {
            lex_comment(l, body);
        } else {
            add(l, kind == '%' ? TOK_BLOCK_BEGIN : TOK_VARIABLE_BEGIN);
            advance(l, body);
            lex_tag(l, kind == '%');
        }
    }
}

void fmj_lex(fmj_run *r, fmj_tokens *out, const char *source, size_t n)
{
    /* All kinds of newlines become \n, and the last one goes. */
    char *s = fmj_alloc(r, n + 1);
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n') continue;
        s[w++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (w > 0 && s[w - 1] == '\n') w--;
    s[w] = 0;
    lexer l = {.r = r, .out = out, .s = s, .n = w, .line = 1, .is_line_start = true};
    lex_root(&l);
    add(&l, TOK_EOF);
}
