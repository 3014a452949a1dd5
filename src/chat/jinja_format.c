/* "..." % values and str.format(): Python's two ways to put values into text. */
#include "chat/jinja_value.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How one value is written. */
typedef struct {
    const fmj_str *fill;      /* one character; NULL: a blank          */
    char align;               /* '<', '>', '=', '^'; 0: by type        */
    char sign;                /* '+', ' ' or 0                         */
    char grouping;            /* ',', '_' or 0                         */
    bool is_alternate;        /* '#'                                   */
    int32_t width, precision; /* precision -1: not given              */
    char type;                /* 0: none                               */
} spec;

enum { WIDTH_MAX = 1 << 20, PRECISION_MAX = 1000, DIGITS = 1400 };

static bool is_one_of(const char *set, char c)
{
    return c != 0 && strchr(set, c) != NULL;
}

/* ---- numbers ------------------------------------------------------------------------------------- */

/* Puts separators between groups of digits at the start of `digits`. */
static void group_digits(char *digits, size_t room, char separator, int every)
{
    const size_t n = strspn(digits, "0123456789abcdefABCDEF");
    size_t more = n > 0 ? (n - 1) / (size_t)every : 0;
    const size_t length = strlen(digits);
    if (length + more + 1 > room) return;
    memmove(digits + n + more, digits + n, length - n + 1);
    for (size_t i = n; i-- > 0;) {
        digits[i + more] = digits[i];
        const size_t from_end = n - i;
        if (more > 0 && from_end % (size_t)every == 0) digits[i + --more] = separator;
    }
}

static void int_digits(fmj_run *r, char *out, size_t room, uint64_t u, char type)
{
    switch (type) {
    case 'b': {
        char reversed[65];
        size_t n = 0;
        do reversed[n++] = (char)('0' + (u & 1));
        while (u >>= 1);
        for (size_t i = 0; i < n; i++) out[i] = reversed[n - 1 - i];
        out[n] = 0;
        break;
    }
    case 'o':
        snprintf(out, room, "%" PRIo64, u);
        break;
    case 'x':
        snprintf(out, room, "%" PRIx64, u);
        break;
    case 'X':
        snprintf(out, room, "%" PRIX64, u);
        break;
    case 0:
    case 'd':
    case 'n':
        snprintf(out, room, "%" PRIu64, u);
        break;
    default:
        fmj_raise(r, "Unknown format code '%c' for object of type 'int'", type);
    }
}

static void float_digits(fmj_run *r, char *out, size_t room, double f, const spec *s)
{
    const int precision = s->precision < 0 ? 6 : s->precision;
    f = fabs(f);
    if (!isfinite(f)) {
        const bool is_upper = s->type == 'F' || s->type == 'E' || s->type == 'G';
        snprintf(out, room, "%s", isnan(f) ? (is_upper ? "NAN" : "nan") : is_upper ? "INF" : "inf");
        if (s->type == '%') strcat(out, "%");
        return;
    }
    const char *alternate = s->is_alternate ? "#" : "";
    char format[16];
    switch (s->type) {
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        snprintf(format, sizeof format, "%%%s.*%c", alternate, s->type);
        snprintf(out, room, format, precision, f);
        break;
    case 'n':
        snprintf(out, room, "%.*g", precision, f);
        break;
    case '%':
        snprintf(out, room - 1, "%.*f", precision, f * 100);
        strcat(out, "%");
        break;
    case 0:
        if (s->precision < 0) {
            fmj_float_text(out, f);
            break;
        }
        /* As g, but with a decimal point and a digit behind it. */
        snprintf(out, room, "%.*g", precision > 0 ? precision : 1, f);
        if (!strpbrk(out, ".e")) {
            if ((int)strlen(out) >= precision && precision > 0) {
                snprintf(out, room, "%.*e", precision - 1, f);
                break;
            }
            strcat(out, ".0");
        }
        break;
    default:
        fmj_raise(r, "Unknown format code '%c' for object of type 'float'", s->type);
    }
}

/* Sign or prefix, then digits, in the width. */
static void put_padded(fmj_run *r, fmj_buf *b, const spec *s, const char *prefix,
                       const char *digits)
{
    const fmj_str *fill = s->fill ? s->fill : fmj_text(r, " ").str;
    const int64_t pad = s->width - (int64_t)(strlen(prefix) + strlen(digits));
    const char align = s->align ? s->align : '>';
    const int64_t left = pad <= 0 ? 0 : align == '>' ? pad : align == '^' ? pad / 2 : 0;
    if (align != '=') fmj_buf_fill(r, b, fill, left);
    fmj_buf_text(r, b, prefix);
    if (align == '=' && pad > 0) fmj_buf_fill(r, b, fill, pad);
    fmj_buf_text(r, b, digits);
    if (align != '=' && pad > left) fmj_buf_fill(r, b, fill, pad - left);
}

static void put_number(fmj_run *r, fmj_buf *b, fmj_value v, const spec *s)
{
    char digits[DIGITS], prefix[8];
    const bool is_float = v.kind == FMJ_FLOAT || is_one_of("eEfFgG%", s->type);
    bool is_negative;
    size_t n = 0;
    if (is_float) {
        const double f = fmj_as_double(v);
        is_negative = signbit(f) && !isnan(f);
        float_digits(r, digits, sizeof digits, f, s);
    } else {
        const int64_t i = v.kind == FMJ_BOOL ? v.b : v.i;
        is_negative = i < 0;
        int_digits(r, digits, sizeof digits, is_negative ? 0 - (uint64_t)i : (uint64_t)i, s->type);
    }
    if (is_negative || s->sign) prefix[n++] = is_negative ? '-' : s->sign;
    if (!is_float && s->is_alternate && is_one_of("xXob", s->type)) {
        prefix[n++] = '0';
        prefix[n++] = s->type;
    }
    prefix[n] = 0;
    if (s->grouping) {
        const bool is_binary = !is_float && is_one_of("xXob", s->type);
        group_digits(digits, sizeof digits, s->grouping, is_binary ? 4 : 3);
    }
    put_padded(r, b, s, prefix, digits);
}

static void put_text(fmj_run *r, fmj_buf *b, const fmj_str *text, const spec *s)
{
    if (s->precision >= 0 && (size_t)s->precision < text->n_char)
        text = fmj_str_part(r, text, 0, fmj_str_offset(r, text, (size_t)s->precision));
    const fmj_str *fill = s->fill ? s->fill : fmj_text(r, " ").str;
    const int64_t pad = s->width - (int64_t)text->n_char;
    const int64_t left = pad <= 0 ? 0 : s->align == '>' ? pad : s->align == '^' ? pad / 2 : 0;
    fmj_buf_fill(r, b, fill, left);
    fmj_buf_str(r, b, text);
    if (pad > left) fmj_buf_fill(r, b, fill, pad - left);
}

/* Decimal digits at *at; -1: none. */
static int32_t read_count(fmj_run *r, const fmj_str *s, size_t *at, int32_t max, const char *what)
{
    if (*at >= s->n || s->s[*at] < '0' || s->s[*at] > '9') return -1;
    int32_t n = 0;
    for (; *at < s->n && s->s[*at] >= '0' && s->s[*at] <= '9'; ++*at) {
        n = 10 * n + (s->s[*at] - '0');
        if (n > max) fmj_fail(r, FM_E_LIMIT, "a %s above %d in a format", what, (int)max);
    }
    return n;
}

/* ---- % ------------------------------------------------------------------------------------------- */

typedef struct {
    fmj_run *r;
    const fmj_str *f;
    size_t at;
    fmj_value values;
    size_t n_used;
    bool is_mapping_used;
} percent;

static fmj_value next_value(percent *p)
{
    if (p->values.kind == FMJ_TUPLE) {
        if (p->n_used >= p->values.list->n)
            fmj_raise(p->r, "not enough arguments for format string");
        return p->values.list->items[p->n_used++];
    }
    if (p->n_used++ > 0) fmj_raise(p->r, "not enough arguments for format string");
    return p->values;
}

static char peek(percent *p)
{
    if (p->at >= p->f->n) fmj_raise(p->r, "incomplete format");
    return p->f->s[p->at];
}

/* "(key)" */
static fmj_value value_by_key(percent *p)
{
    const size_t from = ++p->at;
    int depth = 1;
    for (; depth > 0; p->at++) {
        if (p->at >= p->f->n) fmj_raise(p->r, "incomplete format key");
        depth += p->f->s[p->at] == '(' ? 1 : p->f->s[p->at] == ')' ? -1 : 0;
    }
    if (p->values.kind != FMJ_DICT) fmj_raise(p->r, "format requires a mapping");
    const fmj_str *key = fmj_str_part(p->r, p->f, from, p->at - 1 - from);
    const fmj_value *v = fmj_dict_get(p->r, p->values.dict, fmj_str_value(key));
    if (!v) fmj_raise(p->r, "'%.*s'", (int)(key->n > 100 ? 100 : key->n), key->s);
    p->is_mapping_used = true;
    return *v;
}

static int32_t star_or_count(percent *p, int32_t max, const char *what)
{
    if (p->at < p->f->n && p->f->s[p->at] == '*') {
        p->at++;
        const fmj_value v = next_value(p);
        if (v.kind != FMJ_INT && v.kind != FMJ_BOOL) fmj_raise(p->r, "* wants int");
        const int64_t i = fmj_plus(p->r, v).i;
        if (i > max || i < -max) fmj_fail(p->r, FM_E_LIMIT, "a %s above %d", what, (int)max);
        return (int32_t)i;
    }
    return read_count(p->r, p->f, &p->at, max, what);
}

static void put_percent_number(percent *p, fmj_buf *b, fmj_value v, spec *s, bool is_zero,
                               char type)
{
    fmj_run *r = p->r;
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    const bool is_int = is_one_of("diuoxX", type);
    if (!fmj_is_number(v)) {
        if (is_int)
            fmj_raise(r, "%%%c format: %s is required, not %s", type,
                      is_one_of("oxX", type) ? "an integer" : "a real number", fmj_type_name(v));
        fmj_raise(r, "must be real number, not %s", fmj_type_name(v));
    }
    if (is_int && v.kind == FMJ_FLOAT) {
        if (is_one_of("oxX", type))
            fmj_raise(r, "%%%c format: an integer is required, not float", type);
        if (!isfinite(v.f)) fmj_raise(r, "cannot convert float to integer");
        if (fabs(v.f) >= 9.2e18) fmj_fail(r, FM_E_LIMIT, "an integer goes beyond 64 bits");
        v = fmj_int((int64_t)v.f);
    }
    s->type = is_int && is_one_of("iu", type) ? 'd' : type;
    if (is_zero && s->align != '<') {
        s->fill = fmj_text(r, "0").str;
        s->align = '=';
    }
    if (!is_int) {
        put_number(r, b, v, s);
        return;
    }
    /* The precision of an integer is its least number of digits. */
    const int64_t i = v.kind == FMJ_BOOL ? v.b : v.i;
    char text[DIGITS], whole[DIGITS + 8], prefix[8] = "";
    int_digits(r, text, sizeof text, i < 0 ? 0 - (uint64_t)i : (uint64_t)i, s->type);
    const size_t n = strlen(text);
    const size_t zeros = s->precision > 0 && (size_t)s->precision > n ? s->precision - n : 0;
    memset(whole, '0', zeros);
    memcpy(whole + zeros, text, n + 1);
    size_t n_prefix = 0;
    if (i < 0 || s->sign) prefix[n_prefix++] = i < 0 ? '-' : s->sign;
    if (s->is_alternate && is_one_of("oxX", s->type)) {
        prefix[n_prefix++] = '0';
        prefix[n_prefix] = s->type;
    }
    put_padded(r, b, s, prefix, whole);
}

static void put_conversion(percent *p, fmj_buf *b)
{
    fmj_run *r = p->r;
    spec s = {.precision = -1};
    bool is_zero = false, is_left = false, has_key = false;
    fmj_value v = FMJ_V_MISSING;
    if (peek(p) == '(') {
        v = value_by_key(p);
        has_key = true;
    }
    for (;; p->at++) {
        const char c = peek(p);
        if (c == '-') {
            is_left = true;
        } else if (c == '+') {
            s.sign = '+';
        } else if (c == ' ') {
            s.sign = s.sign ? s.sign : ' ';
        } else if (c == '#') {
            s.is_alternate = true;
        } else if (c == '0') {
            is_zero = true;
        } else {
            break;
        }
    }
    s.width = star_or_count(p, WIDTH_MAX, "width");
    if (s.width < -1) {
        is_left = true;
        s.width = -s.width;
    }
    if (s.width < 0) s.width = 0;
    if (peek(p) == '.') {
        p->at++;
        s.precision = star_or_count(p, PRECISION_MAX, "precision");
        if (s.precision < 0) s.precision = 0;
    }
    while (is_one_of("hlL", peek(p))) p->at++;
    const char type = peek(p);
    p->at++;
    s.align = is_left ? '<' : '>';
    if (type == '%') {
        fmj_buf_text(r, b, "%");
        return;
    }
    if (!is_one_of("diuoxXeEfFgGcrsa", type))
        fmj_raise(r, "unsupported format character '%c' (0x%x) at index %zu", type,
                  (unsigned)(unsigned char)type, p->at - 1);
    if (!has_key) v = next_value(p);
    if (type == 's') {
        const fmj_str *text = fmj_to_str(r, v);
        put_text(r, b, p->f->is_markup ? fmj_escape(r, text) : text, &s);
    } else if (type == 'r' || type == 'a') {
        fmj_buf text = {0};
        fmj_buf_repr(r, &text, v);
        put_text(r, b, fmj_buf_take(r, &text), &s);
    } else if (type == 'c') {
        if (v.kind == FMJ_STR && v.str->n_char == 1) {
            put_text(r, b, v.str, &s);
            return;
        }
        if (v.kind != FMJ_INT) fmj_raise(r, "%%c requires int or char");
        if (v.i < 0 || v.i > 0x10FFFF || (v.i >= 0xD800 && v.i < 0xE000))
            fmj_raise(r, "%%c arg not in range(0x110000)");
        fmj_buf text = {0};
        fmj_buf_char(r, &text, (int32_t)v.i, p->f, 0);
        put_text(r, b, fmj_buf_take(r, &text), &s);
    } else {
        put_percent_number(p, b, v, &s, is_zero, type);
    }
}

fmj_value fmj_percent(fmj_run *r, const fmj_str *format, fmj_value values)
{
    percent p = {.r = r, .f = format, .values = values};
    fmj_buf b = {0};
    fmj_step(r, format->n / 16);
    while (p.at < format->n) {
        const char *mark = memchr(format->s + p.at, '%', format->n - p.at);
        const size_t end = mark ? (size_t)(mark - format->s) : format->n;
        fmj_buf_part(r, &b, format, p.at, end - p.at);
        p.at = end;
        if (!mark) break;
        p.at++;
        put_conversion(&p, &b);
    }
    const bool is_tuple = values.kind == FMJ_TUPLE;
    const bool may_be_left = values.kind == FMJ_DICT || values.kind == FMJ_LIST ||
                             values.kind == FMJ_RANGE || values.kind == FMJ_UNDEFINED;
    if (is_tuple ? p.n_used < values.list->n : !may_be_left && p.n_used == 0)
        fmj_raise(r, "not all arguments converted during string formatting");
    fmj_str *out = (fmj_str *)fmj_buf_take(r, &b);
    out->is_markup = format->is_markup;
    return fmj_str_value(out);
}

/* ---- str.format() -------------------------------------------------------------------------------- */

typedef struct {
    const fmj_args *args;
    int64_t next; /* automatic number, -1: fields are numbered by hand */
    bool has_numbered;
} fields;

/* [[fill]align][sign][#][0][width][grouping][.precision][type] */
static spec parse_spec(fmj_run *r, const fmj_str *text)
{
    spec s = {.precision = -1};
    size_t at = 0, len = 0;
    if (text->n > 0) fmj_char_at(text, 0, &len);
    if (text->n > len && is_one_of("<>=^", text->s[len])) {
        s.fill = fmj_str_part(r, text, 0, len);
        s.align = text->s[len];
        at = len + 1;
    } else if (text->n > 0 && is_one_of("<>=^", text->s[0])) {
        s.align = text->s[at++];
    }
    if (at < text->n && is_one_of("+- ", text->s[at])) {
        s.sign = text->s[at] == '-' ? 0 : text->s[at];
        at++;
    }
    if (at < text->n && text->s[at] == '#') {
        s.is_alternate = true;
        at++;
    }
    if (at < text->n && text->s[at] == '0') {
        if (!s.fill && !s.align) {
            s.fill = fmj_text(r, "0").str;
            s.align = '=';
        }
        at++;
    }
    s.width = read_count(r, text, &at, WIDTH_MAX, "width");
    if (s.width < 0) s.width = 0;
    if (at < text->n && (text->s[at] == ',' || text->s[at] == '_')) s.grouping = text->s[at++];
    if (at < text->n && text->s[at] == '.') {
        at++;
        s.precision = read_count(r, text, &at, PRECISION_MAX, "precision");
        if (s.precision < 0) fmj_raise(r, "Format specifier missing precision");
    }
    if (at < text->n) s.type = text->s[at++];
    if (at < text->n) fmj_raise(r, "Invalid format specifier");
    return s;
}

static void put_formatted(fmj_run *r, fmj_buf *b, fmj_value v, const fmj_str *text)
{
    if (text->n == 0) {
        fmj_buf_put(r, b, v);
        return;
    }
    if (v.kind != FMJ_STR && !fmj_is_number(v))
        fmj_raise(r, "unsupported format string passed to %s.__format__", fmj_type_name(v));
    const spec s = parse_spec(r, text);
    if (v.kind == FMJ_STR || (v.kind == FMJ_BOOL && s.type == 's')) {
        if (s.type && s.type != 's')
            fmj_raise(r, "Unknown format code '%c' for object of type 'str'", s.type);
        if (s.sign) fmj_raise(r, "Sign not allowed in string format specifier");
        if (s.align == '=' && s.fill && !fmj_str_is(s.fill, "0"))
            fmj_raise(r, "'=' alignment not allowed in string format specifier");
        put_text(r, b, fmj_to_str(r, v), &s);
        return;
    }
    if (v.kind != FMJ_FLOAT && s.precision >= 0 && !is_one_of("eEfFgG%", s.type))
        fmj_raise(r, "Precision not allowed in integer format specifier");
    if (v.kind == FMJ_BOOL && !s.type && s.width == 0 && !s.sign) {
        fmj_buf_put(r, b, v);
        return;
    }
    if (v.kind == FMJ_INT && s.type == 'c')
        fmj_fail(r, FM_E_UNSUPPORTED, "the format code 'c' is not supported");
    put_number(r, b, v, &s);
}

static fmj_value field_root(fmj_run *r, fields *f, const fmj_str *name)
{
    const bool is_auto = name->n == 0;
    bool is_number = !is_auto;
    int64_t i = 0;
    for (size_t k = 0; k < name->n; k++) {
        is_number = is_number && name->s[k] >= '0' && name->s[k] <= '9' && i < INT32_MAX;
        if (is_number) i = 10 * i + (name->s[k] - '0');
    }
    if (is_auto || is_number) {
        if (is_auto ? f->has_numbered : f->next > 0)
            fmj_raise(r, "cannot switch between manual and automatic field numbering");
        f->has_numbered = is_number;
        if (is_auto) i = f->next++;
        if ((uint64_t)i >= f->args->n_pos)
            fmj_raise(r, "Replacement index %lld out of range for positional args tuple",
                      (long long)i);
        return f->args->pos[i];
    }
    fmj_step_names(r, f->args->n_kw, name);
    for (size_t k = 0; k < f->args->n_kw; k++)
        if (fmj_str_equal(f->args->names[k], name)) return f->args->kw[k];
    fmj_raise(r, "'%.*s'", (int)(name->n > 100 ? 100 : name->n), name->s);
}

/* "name.attr[key]" */
static fmj_value field_value(fmj_run *r, fields *f, const fmj_str *path)
{
    size_t at = 0;
    while (at < path->n && path->s[at] != '.' && path->s[at] != '[') at++;
    fmj_value v = field_root(r, f, fmj_str_part(r, path, 0, at));
    while (at < path->n) {
        const bool is_item = path->s[at++] == '[';
        const size_t from = at;
        while (at < path->n &&
               (is_item ? path->s[at] != ']' : path->s[at] != '.' && path->s[at] != '['))
            at++;
        const fmj_str *key = fmj_str_part(r, path, from, at - from);
        if (key->n == 0) fmj_raise(r, "Empty attribute in format string");
        if (is_item) {
            if (at == path->n) fmj_raise(r, "Missing ']' in format string");
            at++;
            int64_t i = 0;
            bool is_number = true;
            for (size_t k = 0; k < key->n; k++) {
                is_number = is_number && key->s[k] >= '0' && key->s[k] <= '9' && i < INT32_MAX;
                if (is_number) i = 10 * i + (key->s[k] - '0');
            }
            v = fmj_getitem(r, v, is_number ? fmj_int(i) : fmj_str_value(key));
        } else {
            v = fmj_getattr(r, v, key);
        }
    }
    return v;
}

static const fmj_str *expand(fmj_run *r, const fmj_str *s, fields *f, int depth);

/* One field; text[from, to) stands between its braces. */
static void put_field(fmj_run *r, fmj_buf *b, const fmj_str *s, size_t from, size_t to, fields *f,
                      int depth)
{
    size_t end = from;
    int brackets = 0;
    for (; end < to; end++) {
        if (s->s[end] == '[') brackets++;
        if (s->s[end] == ']' && brackets > 0) brackets--;
        if (brackets == 0 && (s->s[end] == ':' || s->s[end] == '!')) break;
    }
    fmj_value v = field_value(r, f, fmj_str_part(r, s, from, end - from));
    if (end < to && s->s[end] == '!') {
        const char c = end + 1 < to ? s->s[end + 1] : 0;
        end += 2;
        if (c == 's') {
            v = fmj_str_value(fmj_to_str(r, v));
        } else if (c == 'r' || c == 'a') {
            fmj_buf text = {0};
            fmj_buf_repr(r, &text, v);
            v = fmj_buf_value(r, &text);
        } else {
            fmj_raise(r, "Unknown conversion specifier in format string");
        }
        if (end < to && s->s[end] != ':') fmj_raise(r, "expected ':' after conversion specifier");
    }
    const size_t spec_at = end < to ? end + 1 : to;
    const fmj_str *text = fmj_str_part(r, s, spec_at, to - spec_at);
    put_formatted(r, b, v, expand(r, text, f, depth + 1));
}

static const fmj_str *expand(fmj_run *r, const fmj_str *s, fields *f, int depth)
{
    if (depth > 2) fmj_raise(r, "Max string recursion exceeded");
    fmj_step(r, s->n / 16);
    fmj_buf b = {0};
    for (size_t at = 0; at < s->n;) {
        const char c = s->s[at];
        const bool is_double = at + 1 < s->n && s->s[at + 1] == c;
        if (c != '{' && c != '}') {
            size_t end = at;
            while (end < s->n && s->s[end] != '{' && s->s[end] != '}') end++;
            fmj_buf_part(r, &b, s, at, end - at);
            at = end;
        } else if (is_double) {
            fmj_buf_part(r, &b, s, at, 1);
            at += 2;
        } else if (c == '}') {
            fmj_raise(r, "Single '}' encountered in format string");
        } else {
            size_t end = at + 1;
            for (int open = 1; open > 0; end++) {
                if (end >= s->n) fmj_raise(r, "expected '}' before end of string");
                open += s->s[end] == '{' ? 1 : s->s[end] == '}' ? -1 : 0;
            }
            put_field(r, &b, s, at + 1, end - 1, f, depth);
            at = end;
        }
    }
    return fmj_buf_take(r, &b);
}

fmj_value fmj_format(fmj_run *r, const fmj_str *format, const fmj_args *args)
{
    fields f = {.args = args};
    return fmj_str_value(expand(r, format, &f, 0));
}
