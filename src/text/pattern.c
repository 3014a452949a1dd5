/* From Oniguruma to PCRE2. The differences that matter for the patterns of tokenizers:
 *
 *   \s \S      Unicode White_Space; PCRE2's \s also has U+180E. Written out as ranges.
 *   \d         \p{Nd} in both, written so.
 *   \p{Han}    a script; in PCRE2 a bare name would mean script extensions: \p{sc:Han}.
 *   [A&&B]     intersection of classes; PCRE2 has none: (?:(?=[A])[B]).
 *   [A[BC]]    union of classes; the inner brackets are dropped.
 *   ^ $        at lines in both, since the PCRE2 pattern is compiled with MULTILINE.
 *   \v \h \uHHHH  vertical tab, hexadecimal digit, code point.
 *
 * Everything that is not known to mean the same in both is refused by name. */
#include "text/pattern.h"

#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

/* White_Space, and all the rest, as items of a class. */
#define SPACE_ITEMS                                                                                \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define NOT_SPACE_ITEMS                                                                            \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{"     \
    "1fff}"                                                                                        \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"                 \
    "\\x{3001}-\\x{d7ff}\\x{e000}-\\x{10ffff}"

enum { CLASS_DEPTH_MAX = 8, PATTERN_BYTES_MAX = 64 * 1024 };

typedef struct {
    char *s;
    size_t n, cap;
    bool failed;
} text_buf;

static void put_bytes(text_buf *b, const char *s, size_t n)
{
    if (b->failed || !s) return;
    if (b->cap - b->n <= n) {
        const size_t cap = b->cap * 2 + n + 64;
        char *p = realloc(b->s, cap);
        if (!p) {
            b->failed = true;
            return;
        }
        b->s = p;
        b->cap = cap;
    }
    memcpy(b->s + b->n, s, n);
    b->n += n;
    b->s[b->n] = 0;
}

static void put(text_buf *b, const char *s)
{
    put_bytes(b, s, strlen(s));
}

typedef struct {
    const char *p, *end, *begin;
    fm_error *err;
} cursor;

static fm_status refuse(const cursor *c, const char *what)
{
    return fm_fail(c->err, FM_E_UNSUPPORTED, "pattern, at byte %zu: %s", (size_t)(c->p - c->begin),
                   what);
}

static bool is_digit(char ch)
{
    return ch >= '0' && ch <= '9';
}

static bool is_alnum(char ch)
{
    return is_digit(ch) || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
}

static bool is_hex(char ch)
{
    return is_digit(ch) || (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F');
}

/* One character of the pattern as a literal. */
static fm_status put_literal(cursor *c, text_buf *out)
{
    uint32_t code;
    const size_t n = fm_utf8_decode(&code, c->p, (size_t)(c->end - c->p));
    if (n == 0 || code == 0) return refuse(c, "broken UTF-8 or a zero byte");
    if (code > 0x20 && code < 0x7f && !is_alnum(*c->p)) put(out, "\\");
    put_bytes(out, c->p, n);
    c->p += n;
    return FM_OK;
}

/* \p{Name}, \P{Name}, \p{^Name}; c->p is at the p. */
static fm_status put_property(cursor *c, text_buf *out)
{
    bool negated = *c->p == 'P';
    const char *q = c->p + 1;
    if (q >= c->end || *q != '{') return refuse(c, "\\p without {name}");
    q++;
    if (q < c->end && *q == '^') {
        negated = !negated;
        q++;
    }
    const char *name = q;
    while (q < c->end && is_alnum(*q)) q++;
    const size_t n = (size_t)(q - name);
    if (q >= c->end || *q != '}' || n == 0 || n > 40)
        return refuse(c, "a property name that is not letters and digits");
    put(out, negated ? "\\P{" : "\\p{");
    /* One or two letters: a general category; longer: a script. */
    if (n > 2) put(out, "sc:");
    put_bytes(out, name, n);
    put(out, "}");
    c->p = q + 1;
    return FM_OK;
}

/* \xHH, \x{H...}, \uHHHH; c->p is at the x or u. */
static fm_status put_hex(cursor *c, text_buf *out)
{
    const bool u = *c->p == 'u';
    const char *q = c->p + 1;
    const bool brace = !u && q < c->end && *q == '{';
    if (brace) q++;
    const char *digits = q;
    const size_t most = brace ? 8 : u ? 4 : 2;
    while (q < c->end && is_hex(*q) && (size_t)(q - digits) < most) q++;
    const size_t n = (size_t)(q - digits);
    const bool closed = !brace || (q < c->end && *q == '}');
    if (n == 0 || !closed || (u && n != 4)) return refuse(c, "a broken \\x or \\u");
    /* Two digits above 7f are a byte of a character in Oniguruma. */
    if (!u && !brace && n == 2 && digits[0] >= '8') return refuse(c, "\\xHH above 7f");
    put(out, "\\x{");
    put_bytes(out, digits, n);
    put(out, "}");
    c->p = brace ? q + 1 : q;
    return FM_OK;
}

/* A backslash sequence; c->p is behind the backslash. *is_set: it stands for a set of characters
 * and cannot end a range. */
static fm_status put_escape(cursor *c, text_buf *out, bool in_class, bool *is_set)
{
    *is_set = true;
    if (c->p >= c->end) return refuse(c, "a backslash at the end");
    const char e = *c->p;
    switch (e) {
    case 's':
        put(out, in_class ? SPACE_ITEMS : "[" SPACE_ITEMS "]");
        break;
    case 'S':
        put(out, in_class ? NOT_SPACE_ITEMS : "[^" SPACE_ITEMS "]");
        break;
    case 'd':
        put(out, "\\p{Nd}");
        break;
    case 'D':
        put(out, "\\P{Nd}");
        break;
    case 'h':
        put(out, in_class ? "0-9a-fA-F" : "[0-9a-fA-F]");
        break;
    case 'p':
    case 'P':
        return put_property(c, out);
    case 'A':
    case 'z':
        if (in_class) return refuse(c, "\\A or \\z in a class");
        put_bytes(out, c->p - 1, 2);
        break;
    default:
        *is_set = false;
        if (e == 'x' || e == 'u') return put_hex(c, out);
        if (e == 'v') {
            put(out, "\\x{b}");
        } else if (strchr("rntfae", e) && e != 0) {
            put_bytes(out, c->p - 1, 2);
        } else if (is_alnum(e)) {
            char what[64] = "the escape \\? is not known here";
            what[12] = e;
            return refuse(c, what);
        } else {
            return put_literal(c, out);
        }
    }
    c->p++;
    return FM_OK;
}

/* ---- classes ----------------------------------------------------------------------------- */

/* One side of &&: items for between brackets, or one whole class in brackets. */
typedef struct {
    text_buf text;
    bool whole;
} operand;

static fm_status put_class(cursor *c, text_buf *out, int depth);

/* A nested class inside an operand; c->p is at its bracket. */
static fm_status put_nested(cursor *c, operand *o, int depth)
{
    if (c->end - c->p > 1 && c->p[1] == ':') return refuse(c, "a POSIX class such as [:alpha:]");
    text_buf inner = {0};
    fm_status st = put_class(c, &inner, depth + 1);
    if (st == FM_OK && inner.failed) {
        o->text.failed = true;
    } else if (st == FM_OK && !o->whole && inner.s[0] == '[' && inner.s[1] != '^') {
        put_bytes(&o->text, inner.s + 1, inner.n - 2); /* a union: the items of both */
    } else if (st == FM_OK && o->text.n == 0 && !o->whole) {
        put_bytes(&o->text, inner.s, inner.n);
        o->whole = true;
    } else if (st == FM_OK) {
        st = refuse(c, "a union of classes of this form");
    }
    free(inner.s);
    return st;
}

/* The items up to ] or &&. */
static fm_status put_items(cursor *c, operand *o, int depth)
{
    /* 0: nothing that could begin a range, 1: one character, 2: its range was begun */
    int range = 0;
    while (c->p < c->end && *c->p != ']') {
        if (c->end - c->p > 1 && c->p[0] == '&' && c->p[1] == '&') break;
        if (*c->p == '[') {
            if (range == 2) return refuse(c, "a range that ends with a class");
            FM_TRY(put_nested(c, o, depth));
            range = 0;
            continue;
        }
        if (o->whole) return refuse(c, "a union of classes of this form");
        if (*c->p == '-' && range == 1 && c->end - c->p > 1 && c->p[1] != ']' &&
            !(c->p[1] == '&' && c->end - c->p > 2 && c->p[2] == '&')) {
            put(&o->text, "-");
            c->p++;
            range = 2;
            continue;
        }
        bool is_set = false;
        if (*c->p == '\\') {
            c->p++;
            FM_TRY(put_escape(c, &o->text, true, &is_set));
        } else {
            FM_TRY(put_literal(c, &o->text));
        }
        if (is_set && range == 2) return refuse(c, "a range that ends with a set");
        range = is_set || range == 2 ? 0 : 1;
    }
    return FM_OK;
}

static void put_operand(text_buf *out, const operand *o)
{
    if (!o->whole) put(out, "[");
    put_bytes(out, o->text.s, o->text.n);
    if (!o->whole) put(out, "]");
}

/* A class in brackets; c->p is at the [ and behind the ] afterwards. */
static fm_status put_class(cursor *c, text_buf *out, int depth)
{
    if (depth > CLASS_DEPTH_MAX) return refuse(c, "classes nested too deeply");
    operand left = {0}, side = {0};
    bool negated = false, intersected = false;
    fm_status st = FM_OK;
    c->p++;
    if (c->p < c->end && *c->p == '^') {
        negated = true;
        c->p++;
    }
    for (;;) {
        side = (operand){0};
        st = put_items(c, &side, depth);
        if (st == FM_OK && side.text.n == 0)
            st = side.text.failed ? fm_fail(c->err, FM_E_NOMEM, "no memory for a pattern")
                                  : refuse(c, "an empty class, or one side of && is empty");
        if (st == FM_OK && c->p >= c->end) st = refuse(c, "a class without its ]");
        if (st != FM_OK) goto done;
        if (*c->p == ']') break;
        c->p += 2; /* && */
        intersected = true;
        put(&left.text, "(?=");
        put_operand(&left.text, &side);
        put(&left.text, ")");
        free(side.text.s);
    }
    c->p++;
    if (!intersected && !side.whole) {
        put(out, negated ? "[^" : "[");
        put_bytes(out, side.text.s, side.text.n);
        put(out, "]");
    } else {
        put(out, negated ? "(?:(?!" : "(?:");
        if (intersected) put_bytes(out, left.text.s, left.text.n);
        put_operand(out, &side);
        put(out, negated ? ")(?s:.))" : ")");
    }
    if (left.text.failed || side.text.failed) out->failed = true;

done:
    free(left.text.s);
    free(side.text.s);
    return st;
}

/* ---- groups and quantifiers -------------------------------------------------------------- */

/* c->p is at a ( ; copies it with its ?-part. */
static fm_status put_group(cursor *c, text_buf *out)
{
    static const char *const known[] = {
        "(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:", "(?i)"};
    const size_t left = (size_t)(c->end - c->p);
    if (left < 2 || (c->p[1] != '?' && c->p[1] != '*')) {
        put(out, "(?:"); /* captures are not used by anybody */
        c->p++;
        return FM_OK;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const size_t n = strlen(known[i]);
        if (n > left || memcmp(c->p, known[i], n) != 0) continue;
        /* (?i) alone reaches over the next | in one library only, except in front of everything. */
        if (known[i][n - 1] == ')' && c->p != c->begin) break;
        put(out, known[i]);
        c->p += n;
        return FM_OK;
    }
    return refuse(c, "this kind of group is not known here");
}

/* {n}, {n,} or {n,m}, at c->p. */
static fm_status put_interval(cursor *c, text_buf *out)
{
    const char *q = c->p + 1;
    const char *digits = q;
    while (q < c->end && is_digit(*q)) q++;
    bool ok = q > digits;
    const bool exact = q < c->end && *q == '}';
    if (q < c->end && *q == ',') {
        q++;
        while (q < c->end && is_digit(*q)) q++;
    }
    ok = ok && q < c->end && *q == '}';
    if (!ok) return refuse(c, "a { that is no {n}, {n,} or {n,m}");
    q++;
    if (q < c->end && (*q == '+' || (exact && *q == '?')))
        return refuse(c, "{n}+ and {n}? mean different things in different libraries");
    put_bytes(out, c->p, (size_t)(q - c->p));
    c->p = q;
    return FM_OK;
}

fm_status fm_pattern_translate(char **out, const char *pattern, size_t n, fm_error *err)
{
    *out = NULL;
    cursor c = {.p = pattern, .end = pattern + n, .begin = pattern, .err = err};
    text_buf b = {0};
    fm_status st = FM_OK;
    if (n > PATTERN_BYTES_MAX) {
        st = refuse(&c, "it is longer than 65536 bytes");
        goto fail;
    }
    put(&b, "");
    while (c.p < c.end && st == FM_OK) {
        bool is_set;
        switch (*c.p) {
        case '\\':
            c.p++;
            st = put_escape(&c, &b, false, &is_set);
            break;
        case '[':
            st = put_class(&c, &b, 0);
            break;
        case '(':
            st = put_group(&c, &b);
            break;
        case '{':
            st = put_interval(&c, &b);
            break;
        case ')':
        case '|':
        case '.':
        case '^':
        case '$':
        case '*':
        case '+':
        case '?':
            put_bytes(&b, c.p++, 1);
            break;
        default:
            st = put_literal(&c, &b);
            break;
        }
    }
    if (st == FM_OK && b.failed) st = fm_fail(err, FM_E_NOMEM, "no memory for a pattern");
    if (st != FM_OK) goto fail;
    *out = b.s;
    return FM_OK;

fail:
    free(b.s);
    return st;
}
