/* Filters by name, and those that work on text and numbers. */
#include "chat/jinja_value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- finding ------------------------------------------------------------------------------------- */

enum { SECOND_TABLE = 1000 };

static const fmj_filter *filter_at(int i)
{
    return i < SECOND_TABLE ? &fmj_filters_text[i] : &fmj_filters_seq[i - SECOND_TABLE];
}

int fmj_filter_find(const char *name, size_t n)
{
    for (int i = 0; fmj_filters_text[i].name; i++)
        if (strlen(fmj_filters_text[i].name) == n && !memcmp(fmj_filters_text[i].name, name, n))
            return i;
    for (int i = 0; fmj_filters_seq[i].name; i++)
        if (strlen(fmj_filters_seq[i].name) == n && !memcmp(fmj_filters_seq[i].name, name, n))
            return SECOND_TABLE + i;
    return -1;
}

fmj_value fmj_filter_call(fmj_run *r, int filter, fmj_value v, const fmj_args *args)
{
    const fmj_filter *f = filter_at(filter);
    if (f->raw) return f->raw(r, v, args);
    fmj_value arg[FMJ_PARAMS_MAX];
    fmj_bind(r, f->name, f->params, f->n_required, args, arg);
    return f->bound(r, v, arg);
}

static int find_by_name(fmj_run *r, const char *what, fmj_value name,
                        int (*find)(const char *name, size_t n))
{
    const int i = name.kind == FMJ_STR ? find(name.str->s, name.str->n) : -1;
    if (i >= 0) return i;
    fmj_buf b = {0};
    fmj_buf_repr(r, &b, name);
    fmj_raise(r, "No %s named %.*s.", what, b.n > 100 ? 100 : (int)b.n, b.s);
}

fmj_value fmj_filter_by_name(fmj_run *r, fmj_value name, fmj_value v, const fmj_args *args)
{
    return fmj_filter_call(r, find_by_name(r, "filter", name, fmj_filter_find), v, args);
}

bool fmj_test_by_name(fmj_run *r, fmj_value name, fmj_value v, const fmj_args *args)
{
    return fmj_test_call(r, find_by_name(r, "test", name, fmj_test_find), v, args);
}

/* ---- arguments ----------------------------------------------------------------------------------- */

static bool flag(fmj_run *r, fmj_value v, bool fallback)
{
    return v.kind == FMJ_MISSING ? fallback : fmj_truth(r, v);
}

static int64_t number(fmj_run *r, fmj_value v, int64_t fallback)
{
    return v.kind == FMJ_MISSING ? fallback : fmj_as_index(r, v);
}

static fmj_value value_of(const fmj_str *s)
{
    return fmj_str_value(s);
}

static fmj_value plain(fmj_run *r, const fmj_str *s, bool is_markup)
{
    if (s->is_markup == is_markup) return value_of(s);
    fmj_str *copy = fmj_alloc(r, sizeof *copy);
    *copy = *s;
    copy->is_markup = is_markup;
    return value_of(copy);
}

/* ---- text ---------------------------------------------------------------------------------------- */

static fmj_value do_upper(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return value_of(fmj_str_case(r, fmj_to_str(r, v), FMJ_UPPER));
}

static fmj_value do_lower(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return value_of(fmj_str_case(r, fmj_to_str(r, v), FMJ_LOWER));
}

static fmj_value do_capitalize(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return value_of(fmj_capitalize(r, fmj_to_str(r, v)));
}

/* Unlike str.title(): words begin behind white space, hyphens and opening brackets. */
static fmj_value do_title(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    const fmj_str *s = fmj_to_str(r, v);
    fmj_buf b = {0};
    fmj_step(r, s->n / 8);
    size_t at = 0, len;
    while (at < s->n) {
        const size_t from = at;
        while (at < s->n) {
            const int32_t c = fmj_char_at(s, at, &len);
            if (fmj_is_space(c) || (c < 0x80 && c > 0 && strchr("-({[<", c))) break;
            at += len;
        }
        if (at > from) {
            fmj_char_at(s, from, &len);
            fmj_buf_str(r, &b, fmj_str_case(r, fmj_str_part(r, s, from, len), FMJ_UPPER));
            fmj_buf_str(
                r, &b, fmj_str_case(r, fmj_str_part(r, s, from + len, at - from - len), FMJ_LOWER));
        }
        if (at < s->n) {
            fmj_char_at(s, at, &len);
            fmj_buf_part(r, &b, s, at, len);
            at += len;
        }
    }
    return fmj_buf_value(r, &b);
}

static fmj_value do_trim(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return value_of(fmj_strip(r, fmj_to_str(r, v), arg[0], true, true));
}

static fmj_value do_string(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return value_of(fmj_to_str(r, v));
}

static fmj_value do_replace(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const fmj_str *s = plain(r, fmj_to_str(r, v), false).str;
    const int64_t count = arg[2].kind == FMJ_NONE ? -1 : number(r, arg[2], -1);
    return value_of(fmj_replace(r, s, fmj_to_str(r, arg[0]), fmj_to_str(r, arg[1]), count));
}

static fmj_value do_center(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const fmj_str *space = fmj_text(r, " ").str;
    return value_of(fmj_pad(r, fmj_to_str(r, v), number(r, arg[0], 80), space, 'c'));
}

static fmj_value do_indent(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (v.kind != FMJ_STR)
        fmj_raise(r, "unsupported operand type(s) for +=: '%s' and 'str'", fmj_type_name(v));
    fmj_buf indent = {0}, b = {0}, whole = {0};
    if (arg[0].kind == FMJ_STR) {
        fmj_buf_str(r, &indent, arg[0].str);
    } else {
        fmj_buf_fill(r, &indent, fmj_text(r, " ").str, number(r, arg[0], 4));
    }
    const fmj_str *margin = fmj_buf_take(r, &indent);
    const bool first = flag(r, arg[1], false), blank = flag(r, arg[2], false);
    fmj_buf_str(r, &whole, v.str);
    fmj_buf_text(r, &whole, "\n");
    const fmj_list *lines = fmj_splitlines(r, fmj_buf_take(r, &whole), false).list;
    for (size_t i = 0; i < lines->n; i++) {
        const fmj_str *line = lines->items[i].str;
        if (i > 0) fmj_buf_text(r, &b, "\n");
        if (i == 0 ? first : blank || line->n > 0) fmj_buf_str(r, &b, margin);
        fmj_buf_str(r, &b, line);
    }
    return fmj_buf_value(r, &b);
}

static fmj_value do_truncate(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const int64_t length = number(r, arg[0], 255);
    const bool kill = flag(r, arg[1], false);
    const fmj_str *end =
        arg[2].kind == FMJ_MISSING ? fmj_text(r, "...").str : fmj_to_str(r, arg[2]);
    const int64_t leeway =
        arg[3].kind == FMJ_NONE || arg[3].kind == FMJ_MISSING ? 5 : fmj_as_index(r, arg[3]);
    const int64_t n_end = (int64_t)end->n_char;
    if (length < n_end)
        fmj_raise(r, "expected length >= %lld, got %lld", (long long)n_end, (long long)length);
    if (leeway < 0) fmj_raise(r, "expected leeway >= 0, got %lld", (long long)leeway);
    const int64_t have = fmj_len(r, v);
    if (have < 0) fmj_raise(r, "object of type '%s' has no len()", fmj_type_name(v));
    if (have <= length || have - length <= leeway) return v;
    if (v.kind != FMJ_STR) fmj_raise(r, "truncate expects a string, not '%s'", fmj_type_name(v));
    size_t to = fmj_str_offset(r, v.str, (size_t)(length - n_end));
    fmj_step(r, to / 64);
    if (!kill) {
        for (size_t i = to; i > 0; i--) {
            if (v.str->s[i - 1] != ' ') continue;
            to = i - 1;
            break;
        }
    }
    fmj_buf b = {0};
    fmj_buf_part(r, &b, v.str, 0, to);
    fmj_buf_str(r, &b, end);
    return fmj_buf_value(r, &b);
}

static fmj_value do_wordcount(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    const fmj_str *s = fmj_to_str(r, v);
    int64_t n = 0;
    bool is_inside = false;
    fmj_step(r, s->n / 16);
    for (size_t at = 0, len; at < s->n; at += len) {
        const int32_t c = fmj_char_at(s, at, &len);
        const bool is_word = c == '_' || fmj_is_alpha(c) || fmj_is_numeric(c);
        n += is_word && !is_inside;
        is_inside = is_word;
    }
    return fmj_int(n);
}

static fmj_value do_format(fmj_run *r, fmj_value v, const fmj_args *args)
{
    if (args->n_pos > 0 && args->n_kw > 0)
        fmj_raise(r, "can't handle positional and keyword arguments at the same time");
    fmj_value values = fmj_list_of(r, FMJ_TUPLE, (fmj_value *)args->pos, args->n_pos);
    if (args->n_kw > 0) {
        fmj_dict *d = fmj_dict_new(r, args->n_kw);
        for (size_t i = 0; i < args->n_kw; i++)
            fmj_dict_set(r, d, value_of(args->names[i]), args->kw[i]);
        values = (fmj_value){.kind = FMJ_DICT, .dict = d};
    }
    return fmj_percent(r, fmj_to_str(r, v), values);
}

static fmj_value do_escape(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return value_of(fmj_escape(r, fmj_to_str(r, v)));
}

static fmj_value do_forceescape(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return value_of(fmj_escape(r, plain(r, fmj_to_str(r, v), false).str));
}

static fmj_value do_safe(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return plain(r, fmj_to_str(r, v), true);
}

static void put_quoted(fmj_run *r, fmj_buf *b, fmj_value v, bool for_query)
{
    const fmj_str *s = fmj_to_str(r, v);
    for (size_t i = 0; i < s->n; i++) {
        const unsigned char c = (unsigned char)s->s[i];
        const bool is_word = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (is_word || (c >= '0' && c <= '9') || (c && strchr("_.-~", c)) ||
            (c == '/' && !for_query)) {
            fmj_buf_part(r, b, s, i, 1);
        } else if (c == ' ' && for_query) {
            fmj_buf_text(r, b, "+");
        } else {
            char text[8];
            snprintf(text, sizeof text, "%%%02X", c);
            fmj_buf_text(r, b, text);
        }
    }
}

static fmj_value do_urlencode(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    fmj_buf b = {0};
    if (v.kind == FMJ_STR || !fmj_is_iterable(v)) {
        put_quoted(r, &b, v, false);
        return fmj_buf_value(r, &b);
    }
    const bool is_dict = v.kind == FMJ_DICT;
    const fmj_list *l = fmj_items(r, v);
    for (size_t i = 0; i < l->n; i++) {
        fmj_value key = l->items[i], value = is_dict ? v.dict->values[i] : FMJ_V_NONE;
        if (!is_dict) {
            const fmj_list *pair = fmj_items(r, key);
            if (pair->n != 2) fmj_raise(r, "urlencode expects pairs, got %zu values", pair->n);
            key = pair->items[0];
            value = pair->items[1];
        }
        if (i > 0) fmj_buf_text(r, &b, "&");
        put_quoted(r, &b, key, true);
        fmj_buf_text(r, &b, "=");
        put_quoted(r, &b, value, true);
    }
    return fmj_buf_value(r, &b);
}

static fmj_value do_xmlattr(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (v.kind != FMJ_DICT) fmj_raise(r, "'%s' object has no attribute 'items'", fmj_type_name(v));
    const bool autospace = flag(r, arg[0], true);
    fmj_buf b = {0};
    for (size_t i = 0; i < v.dict->n; i++) {
        const fmj_value value = v.dict->values[i];
        if (value.kind == FMJ_NONE || value.kind == FMJ_UNDEFINED) continue;
        if (v.dict->keys[i].kind != FMJ_STR) fmj_raise(r, "expected string or bytes-like object");
        const fmj_str *key = v.dict->keys[i].str;
        for (size_t at = 0, len; at < key->n; at += len) {
            const int32_t c = fmj_char_at(key, at, &len);
            if (fmj_is_space(c) || c == '/' || c == '>' || c == '=')
                fmj_raise(r, "Invalid character in attribute name: '%.*s'",
                          key->n > 100 ? 100 : (int)key->n, key->s);
        }
        if (b.n > 0 || autospace) fmj_buf_text(r, &b, " ");
        fmj_buf_str(r, &b, fmj_escape(r, key));
        fmj_buf_text(r, &b, "=\"");
        fmj_buf_str(r, &b, fmj_escape(r, fmj_to_str(r, value)));
        fmj_buf_text(r, &b, "\"");
    }
    return fmj_buf_value(r, &b);
}

static fmj_value not_supported(fmj_run *r, fmj_value v, const fmj_args *args)
{
    (void)v;
    (void)args;
    fmj_fail(r, FM_E_UNSUPPORTED,
             "the filters pprint, random, striptags, urlize and wordwrap are not supported");
}

/* ---- numbers ------------------------------------------------------------------------------------- */

/* s without white space around it and without underscores between digits, terminated; false: it
 * cannot be a number. */
static bool number_text(fmj_run *r, const fmj_str *s, char *out, size_t room)
{
    s = fmj_strip(r, s, FMJ_V_NONE, true, true);
    size_t w = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->s[i] == '_') {
            const bool is_between = i > 0 && i + 1 < s->n && s->s[i - 1] != '_' &&
                                    strchr("+-.", s->s[i - 1]) == NULL &&
                                    strchr("_.", s->s[i + 1]) == NULL;
            if (!is_between) return false;
            continue;
        }
        if (w + 1 >= room || s->s[i] == 0) return false;
        out[w++] = s->s[i];
    }
    out[w] = 0;
    return w > 0;
}

static bool parse_float(fmj_run *r, const fmj_str *s, double *out)
{
    char text[400], *end;
    if (!number_text(r, s, text, sizeof text)) return false;
    if (strpbrk(text, "xXpP(")) return false; /* C's, not Python's */
    *out = strtod(text, &end);
    return *end == 0 && end != text && (unsigned char)text[0] > ' ';
}

static bool parse_int(fmj_run *r, const fmj_str *s, int64_t base, int64_t *out)
{
    char text[100], *end;
    if (!number_text(r, s, text, sizeof text)) return false;
    if (base != 0 && (base < 2 || base > 36))
        fmj_raise(r, "int() base must be >= 2 and <= 36, or 0");
    const char *p = text;
    const bool is_negative = *p == '-';
    if (*p == '-' || *p == '+') p++;
    const char mark = p[0] == '0' ? (char)(p[1] | 0x20) : 0;
    const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked && (base == 0 || base == marked)) {
        p += 2;
        base = marked;
    } else if (base == 0) {
        base = 10;
        if (p[0] == '0' && strspn(p, "0") != strlen(p)) return false;
    }
    const char c = *p;
    if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))) return false;
    errno = 0;
    const long long v = strtoll(p, &end, (int)base);
    if (*end != 0 || end == p) return false;
    if (errno == ERANGE) fmj_fail(r, FM_E_LIMIT, "an integer goes beyond 64 bits");
    *out = is_negative ? -v : v;
    return true;
}

static fmj_value truncate_float(fmj_run *r, double f, fmj_value fallback)
{
    if (!isfinite(f)) return fallback;
    if (fabs(f) >= 9.2e18) fmj_fail(r, FM_E_LIMIT, "an integer goes beyond 64 bits");
    return fmj_int((int64_t)f);
}

static fmj_value do_int(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const fmj_value fallback = arg[0].kind == FMJ_MISSING ? fmj_int(0) : arg[0];
    int64_t i;
    double f;
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (v.kind == FMJ_FLOAT) {
        if (isinf(v.f)) fmj_raise(r, "cannot convert float infinity to integer");
        return truncate_float(r, v.f, fallback);
    }
    if (fmj_is_number(v)) return fmj_plus(r, v);
    if (v.kind != FMJ_STR) return fallback;
    if (parse_int(r, v.str, number(r, arg[1], 10), &i)) return fmj_int(i);
    return parse_float(r, v.str, &f) ? truncate_float(r, f, fallback) : fallback;
}

static fmj_value do_float(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    double f;
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (fmj_is_number(v)) return fmj_float(fmj_as_double(v));
    if (v.kind == FMJ_STR && parse_float(r, v.str, &f)) return fmj_float(f);
    return arg[0].kind == FMJ_MISSING ? fmj_float(0) : arg[0];
}

static fmj_value do_abs(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    if (v.kind == FMJ_FLOAT) return fmj_float(fabs(v.f));
    if (!fmj_is_number(v)) fmj_raise(r, "bad operand type for abs(): '%s'", fmj_type_name(v));
    const fmj_value i = fmj_plus(r, v);
    return i.i < 0 ? fmj_negate(r, i) : i;
}

/* round(v, digits) of Python. */
static fmj_value round_value(fmj_run *r, fmj_value v, int64_t digits)
{
    if (v.kind != FMJ_FLOAT) {
        if (digits >= 0) return fmj_plus(r, v);
        if (digits < -18) return fmj_int(0);
        int64_t unit = 1;
        for (int64_t i = 0; i > digits; i--) unit *= 10;
        const int64_t i = fmj_plus(r, v).i;
        int64_t q = i / unit;
        const int64_t rest = i % unit < 0 ? -(i % unit) : i % unit;
        const bool is_up = rest > unit / 2 || (rest == unit / 2 && q % 2 != 0);
        if (is_up) q += i < 0 ? -1 : 1;
        return fmj_arith(r, '*', fmj_int(q), fmj_int(unit));
    }
    if (!isfinite(v.f) || digits > 323) return v;
    if (digits < 0) {
        if (digits < -308) return fmj_float(copysign(0, v.f));
        const double unit = pow(10, (double)-digits);
        return fmj_float(nearbyint(v.f / unit) * unit);
    }
    char text[700];
    snprintf(text, sizeof text, "%.*f", (int)digits, v.f);
    return fmj_float(strtod(text, NULL));
}

static fmj_value do_round(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const bool is_common =
        arg[1].kind == FMJ_MISSING || (arg[1].kind == FMJ_STR && fmj_str_is(arg[1].str, "common"));
    const bool is_ceil = arg[1].kind == FMJ_STR && fmj_str_is(arg[1].str, "ceil");
    const bool is_floor = arg[1].kind == FMJ_STR && fmj_str_is(arg[1].str, "floor");
    if (!is_common && !is_ceil && !is_floor) fmj_raise(r, "method must be common, ceil or floor");
    if (!fmj_is_number(v)) {
        if (v.kind == FMJ_UNDEFINED && !is_common) fmj_raise_undefined(r, v.undefined);
        fmj_raise(r, "type %s doesn't define __round__ method", fmj_type_name(v));
    }
    const int64_t digits = number(r, arg[0], 0);
    if (is_common) return round_value(r, v, digits);
    const double unit = pow(10, (double)digits);
    const double scaled = fmj_as_double(v) * unit;
    if (!isfinite(scaled)) fmj_raise(r, "cannot convert float infinity to integer");
    return fmj_float((is_ceil ? ceil(scaled) : floor(scaled)) / unit);
}

static fmj_value do_filesizeformat(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    static const char *const units[2][8] = {
        {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"},
        {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}};
    double bytes = 0;
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (fmj_is_number(v)) {
        bytes = fmj_as_double(v);
    } else if (v.kind != FMJ_STR || !parse_float(r, v.str, &bytes)) {
        fmj_raise(r, "could not convert to float: '%s'", fmj_type_name(v));
    }
    const bool binary = flag(r, arg[0], false);
    const double base = binary ? 1024 : 1000;
    char text[FMJ_NUMBER + 16];
    if (bytes == 1) return fmj_text(r, "1 Byte");
    if (bytes < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
    } else {
        double unit = base * base;
        int i = 0;
        for (; i < 7 && !(bytes < unit); i++) unit *= base;
        snprintf(text, sizeof text, "%.1f %s", base * bytes / unit, units[binary][i]);
    }
    fmj_buf b = {0};
    fmj_buf_text(r, &b, text);
    return fmj_buf_value(r, &b);
}

static fmj_value do_default(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const bool is_absent = v.kind == FMJ_UNDEFINED || (flag(r, arg[1], false) && !fmj_truth(r, v));
    if (!is_absent) return v;
    return arg[0].kind == FMJ_MISSING ? fmj_text(r, "") : arg[0];
}

const fmj_filter fmj_filters_text[] = {
    {"abs", "", 0, do_abs, NULL},
    {"capitalize", "", 0, do_capitalize, NULL},
    {"center", "width", 0, do_center, NULL},
    {"d", "default_value,boolean", 0, do_default, NULL},
    {"default", "default_value,boolean", 0, do_default, NULL},
    {"e", "", 0, do_escape, NULL},
    {"escape", "", 0, do_escape, NULL},
    {"filesizeformat", "binary", 0, do_filesizeformat, NULL},
    {"float", "default", 0, do_float, NULL},
    {"forceescape", "", 0, do_forceescape, NULL},
    {"format", NULL, 0, NULL, do_format},
    {"indent", "width,first,blank", 0, do_indent, NULL},
    {"int", "default,base", 0, do_int, NULL},
    {"lower", "", 0, do_lower, NULL},
    {"pprint", NULL, 0, NULL, not_supported},
    {"random", NULL, 0, NULL, not_supported},
    {"replace", "old,new,count", 2, do_replace, NULL},
    {"round", "precision,method", 0, do_round, NULL},
    {"safe", "", 0, do_safe, NULL},
    {"string", "", 0, do_string, NULL},
    {"striptags", NULL, 0, NULL, not_supported},
    {"title", "", 0, do_title, NULL},
    {"tojson", "ensure_ascii,indent,separators,sort_keys", 0, fmj_tojson, NULL},
    {"trim", "chars", 0, do_trim, NULL},
    {"truncate", "length,killwords,end,leeway", 0, do_truncate, NULL},
    {"upper", "", 0, do_upper, NULL},
    {"urlencode", "", 0, do_urlencode, NULL},
    {"urlize", NULL, 0, NULL, not_supported},
    {"wordcount", "", 0, do_wordcount, NULL},
    {"wordwrap", NULL, 0, NULL, not_supported},
    {"xmlattr", "autospace", 0, do_xmlattr, NULL},
    {NULL, NULL, 0, NULL, NULL},
};
