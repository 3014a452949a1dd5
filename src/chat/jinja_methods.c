/* The methods of str. */
#include "chat/jinja_value.h"

#include <string.h>

typedef struct {
    fmj_run *r;
    const fmj_str *s;
    const char *name;
    const fmj_args *args;
    fmj_value arg[FMJ_PARAMS_MAX];
} call;

static fmj_value value_of(const fmj_str *s)
{
    return fmj_str_value(s);
}

/* Methods of C: arguments by place alone. */
static void positional(call *c, const char *params, size_t n_required)
{
    if (c->args->n_kw > 0) fmj_raise(c->r, "str.%s() takes no keyword arguments", c->name);
    fmj_bind(c->r, c->name, params, n_required, c->args, c->arg);
}

static const fmj_str *text_arg(const call *c, size_t i)
{
    if (c->arg[i].kind != FMJ_STR)
        fmj_raise(c->r, "%s() argument %zu must be str, not %s", c->name, i + 1,
                  fmj_type_name(c->arg[i]));
    return c->arg[i].str;
}

static int64_t int_arg(const call *c, size_t i, int64_t fallback)
{
    return c->arg[i].kind == FMJ_MISSING ? fallback : fmj_as_index(c->r, c->arg[i]);
}

/* Character positions of arguments 1 and 2 as bytes. False: an empty range. */
static bool span(const call *c, size_t *from, size_t *to)
{
    const int64_t n = (int64_t)c->s->n_char;
    int64_t a = c->arg[1].kind == FMJ_NONE ? 0 : int_arg(c, 1, 0);
    int64_t b = c->arg[2].kind == FMJ_NONE ? n : int_arg(c, 2, n);
    if (a < 0) a = a < -n ? 0 : a + n;
    if (b < 0) b = b < -n ? 0 : b + n;
    if (b > n) b = n;
    if (a > b) return false;
    *from = fmj_str_offset(c->r, c->s, (size_t)a);
    *to = fmj_str_offset(c->r, c->s, (size_t)b);
    return true;
}

static int64_t chars_before(fmj_run *r, const fmj_str *s, size_t at)
{
    int64_t n = 0;
    if (fmj_str_is_ascii(s)) return (int64_t)at;
    fmj_step(r, at / 64);
    for (size_t i = 0; i < at; i++) n += ((unsigned char)s->s[i] & 0xC0) != 0x80;
    return n;
}

/* ---- searching ----------------------------------------------------------------------------------- */

static fmj_value search(call *c)
{
    size_t from, to, at = SIZE_MAX;
    positional(c, "sub,start,end", 1);
    const fmj_str *sub = text_arg(c, 0);
    const bool is_reverse = c->name[0] == 'r';
    if (span(c, &from, &to))
        at =
            is_reverse ? fmj_rfind(c->r, c->s, sub, from, to) : fmj_find(c->r, c->s, sub, from, to);
    if (at != SIZE_MAX) return fmj_int(chars_before(c->r, c->s, at));
    if (strcmp(c->name + is_reverse, "index") == 0) fmj_raise(c->r, "substring not found");
    return fmj_int(-1);
}

static fmj_value count(call *c)
{
    size_t from, to;
    int64_t n = 0;
    positional(c, "sub,start,end", 1);
    const fmj_str *sub = text_arg(c, 0);
    if (!span(c, &from, &to)) return fmj_int(0);
    if (sub->n == 0) {
        const fmj_str *part = fmj_str_part(c->r, c->s, from, to - from);
        return fmj_int((int64_t)part->n_char + 1);
    }
    for (; (from = fmj_find(c->r, c->s, sub, from, to)) != SIZE_MAX; from += sub->n) n++;
    return fmj_int(n);
}

static bool matches_end(fmj_run *r, const fmj_str *s, const fmj_str *part, size_t from, size_t to,
                        bool at_start)
{
    fmj_step(r, 1);
    if (part->n > to - from) return false;
    fmj_step(r, part->n / 256);
    return memcmp(s->s + (at_start ? from : to - part->n), part->s, part->n) == 0;
}

static fmj_value starts_or_ends(call *c)
{
    size_t from, to;
    const bool at_start = c->name[0] == 's';
    positional(c, "prefix,start,end", 1);
    const fmj_value what = c->arg[0];
    if (what.kind != FMJ_STR && what.kind != FMJ_TUPLE)
        fmj_raise(c->r, "%s first arg must be str or a tuple of str, not %s", c->name,
                  fmj_type_name(what));
    if (!span(c, &from, &to)) return fmj_bool(false);
    if (what.kind == FMJ_STR)
        return fmj_bool(matches_end(c->r, c->s, what.str, from, to, at_start));
    for (size_t i = 0; i < what.list->n; i++) {
        const fmj_value v = what.list->items[i];
        if (v.kind != FMJ_STR)
            fmj_raise(c->r, "tuple for %s must only contain str, not %s", c->name,
                      fmj_type_name(v));
        if (matches_end(c->r, c->s, v.str, from, to, at_start)) return fmj_bool(true);
    }
    return fmj_bool(false);
}

/* ---- splitting ----------------------------------------------------------------------------------- */

static void add_part(call *c, fmj_vec *out, size_t from, size_t to)
{
    fmj_vec_add(c->r, out, value_of(fmj_str_part(c->r, c->s, from, to - from)));
}

static void reverse(fmj_vec *v)
{
    for (size_t i = 0; i < v->n / 2; i++) {
        const fmj_value t = v->v[i];
        v->v[i] = v->v[v->n - 1 - i];
        v->v[v->n - 1 - i] = t;
    }
}

/* Start of the character that ends at `at`. */
static size_t back(const fmj_str *s, size_t at)
{
    do at--;
    while (at > 0 && ((unsigned char)s->s[at] & 0xC0) == 0x80);
    return at;
}

static bool space_at(const fmj_str *s, size_t at, size_t *len)
{
    return fmj_is_space(fmj_char_at(s, at, len));
}

static void split_space(call *c, fmj_vec *out, int64_t max)
{
    const fmj_str *s = c->s;
    size_t at = 0, len;
    fmj_step(c->r, s->n / 16);
    for (;;) {
        while (at < s->n && space_at(s, at, &len)) at += len;
        if (at == s->n) return;
        const size_t from = at;
        if (max-- == 0) {
            add_part(c, out, from, s->n);
            return;
        }
        while (at < s->n && !space_at(s, at, &len)) at += len;
        add_part(c, out, from, at);
    }
}

static void rsplit_space(call *c, fmj_vec *out, int64_t max)
{
    const fmj_str *s = c->s;
    size_t at = s->n, len;
    fmj_step(c->r, s->n / 16);
    for (;;) {
        while (at > 0 && space_at(s, back(s, at), &len)) at = back(s, at);
        if (at == 0) break;
        const size_t to = at;
        if (max-- == 0) {
            add_part(c, out, 0, to);
            break;
        }
        while (at > 0 && !space_at(s, back(s, at), &len)) at = back(s, at);
        add_part(c, out, at, to);
    }
    reverse(out);
}

static fmj_value split(call *c)
{
    fmj_vec out = {0};
    fmj_bind(c->r, c->name, "sep,maxsplit", 0, c->args, c->arg);
    int64_t max = int_arg(c, 1, -1);
    if (max < 0) max = INT64_MAX;
    const bool is_reverse = c->name[0] == 'r';
    if (c->arg[0].kind == FMJ_MISSING || c->arg[0].kind == FMJ_NONE) {
        if (is_reverse) {
            rsplit_space(c, &out, max);
        } else {
            split_space(c, &out, max);
        }
        return fmj_list_of(c->r, FMJ_LIST, out.v, out.n);
    }
    const fmj_str *sep = text_arg(c, 0);
    if (sep->n == 0) fmj_raise(c->r, "empty separator");
    size_t from = 0, to = c->s->n;
    for (; max > 0; max--) {
        const size_t at =
            is_reverse ? fmj_rfind(c->r, c->s, sep, 0, to) : fmj_find(c->r, c->s, sep, from, to);
        if (at == SIZE_MAX) break;
        if (is_reverse) {
            add_part(c, &out, at + sep->n, to);
            to = at;
        } else {
            add_part(c, &out, from, at);
            from = at + sep->n;
        }
    }
    add_part(c, &out, from, to);
    if (is_reverse) reverse(&out);
    return fmj_list_of(c->r, FMJ_LIST, out.v, out.n);
}

static fmj_value partition(call *c)
{
    fmj_vec out = {0};
    positional(c, "sep", 1);
    const fmj_str *sep = text_arg(c, 0);
    if (sep->n == 0) fmj_raise(c->r, "empty separator");
    const bool is_reverse = c->name[0] == 'r';
    const size_t at =
        is_reverse ? fmj_rfind(c->r, c->s, sep, 0, c->s->n) : fmj_find(c->r, c->s, sep, 0, c->s->n);
    if (at == SIZE_MAX) {
        const fmj_value empty = fmj_text(c->r, "");
        fmj_vec_add(c->r, &out, is_reverse ? empty : value_of(c->s));
        fmj_vec_add(c->r, &out, empty);
        fmj_vec_add(c->r, &out, is_reverse ? value_of(c->s) : empty);
    } else {
        add_part(c, &out, 0, at);
        fmj_vec_add(c->r, &out, value_of(sep));
        add_part(c, &out, at + sep->n, c->s->n);
    }
    return fmj_list_of(c->r, FMJ_TUPLE, out.v, out.n);
}

static fmj_value join(call *c)
{
    fmj_buf b = {0};
    positional(c, "iterable", 1);
    if (!fmj_is_iterable(c->arg[0])) fmj_raise(c->r, "can only join an iterable");
    const fmj_list *l = fmj_items(c->r, c->arg[0]);
    for (size_t i = 0; i < l->n; i++) {
        if (l->items[i].kind != FMJ_STR)
            fmj_raise(c->r, "sequence item %zu: expected str instance, %s found", i,
                      fmj_type_name(l->items[i]));
        if (i > 0) fmj_buf_str(c->r, &b, c->s);
        fmj_buf_str(c->r, &b, l->items[i].str);
    }
    return fmj_buf_value(c->r, &b);
}

/* ---- changing ------------------------------------------------------------------------------------ */

static fmj_value pad(call *c)
{
    positional(c, "width,fillchar", 1);
    const int64_t width = int_arg(c, 0, 0);
    const fmj_str *fill = c->arg[1].kind == FMJ_MISSING ? fmj_text(c->r, " ").str : text_arg(c, 1);
    return value_of(fmj_pad(c->r, c->s, width, fill, c->name[0]));
}

static fmj_value zfill(call *c)
{
    positional(c, "width", 1);
    const int64_t missing = int_arg(c, 0, 0) - (int64_t)c->s->n_char;
    if (missing <= 0) return value_of(c->s);
    const bool is_signed = c->s->n > 0 && (c->s->s[0] == '+' || c->s->s[0] == '-');
    fmj_buf b = {0};
    fmj_buf_part(c->r, &b, c->s, 0, is_signed);
    fmj_buf_fill(c->r, &b, fmj_text(c->r, "0").str, missing);
    fmj_buf_part(c->r, &b, c->s, is_signed, c->s->n - is_signed);
    return fmj_buf_value(c->r, &b);
}

static fmj_value expand_tabs(call *c)
{
    fmj_bind(c->r, c->name, "tabsize", 0, c->args, c->arg);
    const int64_t size = int_arg(c, 0, 8);
    const fmj_str *space = fmj_text(c->r, " ").str;
    fmj_buf b = {0};
    int64_t column = 0;
    fmj_step(c->r, c->s->n / 16);
    for (size_t at = 0, len; at < c->s->n; at += len) {
        const int32_t code = fmj_char_at(c->s, at, &len);
        if (code == '\t') {
            const int64_t n = size > 0 ? size - column % size : 0;
            fmj_buf_fill(c->r, &b, space, n);
            column += n;
            continue;
        }
        column = code == '\n' || code == '\r' ? 0 : column + 1;
        fmj_buf_part(c->r, &b, c->s, at, len);
    }
    return fmj_buf_value(c->r, &b);
}

static fmj_value replace(call *c)
{
    positional(c, "old,new,count", 2);
    const fmj_str *old = text_arg(c, 0), *new = text_arg(c, 1);
    return value_of(fmj_replace(c->r, c->s, old, new, int_arg(c, 2, -1)));
}

static fmj_value strip(call *c)
{
    positional(c, "chars", 0);
    return value_of(fmj_strip(c->r, c->s, c->arg[0], c->name[0] != 'r', c->name[0] != 'l'));
}

static fmj_value remove_affix(call *c)
{
    positional(c, "affix", 1);
    const fmj_str *affix = text_arg(c, 0);
    const bool is_prefix = c->name[6] == 'p';
    if (!matches_end(c->r, c->s, affix, 0, c->s->n, is_prefix)) return value_of(c->s);
    return value_of(fmj_str_part(c->r, c->s, is_prefix ? affix->n : 0, c->s->n - affix->n));
}

static fmj_value recase(call *c)
{
    positional(c, "", 0);
    switch (c->name[0]) {
    case 'u':
        return value_of(fmj_str_case(c->r, c->s, FMJ_UPPER));
    case 'l':
        return value_of(fmj_str_case(c->r, c->s, FMJ_LOWER));
    case 't':
        return value_of(fmj_title(c->r, c->s));
    case 's':
        return value_of(fmj_swapcase(c->r, c->s));
    default:
        return value_of(c->name[2] == 's' ? fmj_str_case(c->r, c->s, FMJ_FOLD)
                                          : fmj_capitalize(c->r, c->s));
    }
}

/* ---- asking -------------------------------------------------------------------------------------- */

static bool is_identifier(const fmj_str *s)
{
    for (size_t at = 0, len; at < s->n; at += len) {
        const int32_t code = fmj_char_at(s, at, &len);
        if (code == '_' || fmj_is_alpha(code)) continue;
        if (at == 0 || !fmj_is_decimal(code)) return false;
    }
    return s->n > 0;
}

static bool is_title(const fmj_str *s)
{
    bool is_inside = false, has_cased = false;
    for (size_t at = 0, len; at < s->n; at += len) {
        const int32_t code = fmj_char_at(s, at, &len);
        const bool is_start = fmj_is_cased(code) && !fmj_is_lower(code);
        if (is_start && is_inside) return false;
        if (fmj_is_lower(code) && !is_inside) return false;
        is_inside = fmj_is_cased(code);
        has_cased = has_cased || is_inside;
    }
    return has_cased;
}

/* isupper and islower: at least one cased character, and none of the other case. */
static bool has_case(const fmj_str *s, bool upper)
{
    bool has = false;
    for (size_t at = 0, len; at < s->n; at += len) {
        const int32_t code = fmj_char_at(s, at, &len);
        if (!fmj_is_cased(code)) continue;
        if (!(upper ? fmj_is_upper(code) : fmj_is_lower(code))) return false;
        has = true;
    }
    return has;
}

static bool is_alnum(int32_t code)
{
    return fmj_is_alpha(code) || fmj_is_numeric(code);
}

static bool is_ascii(int32_t code)
{
    return code < 0x80;
}

static fmj_value classify(call *c)
{
    static const struct {
        const char *name;
        bool (*is)(int32_t code);
        bool when_empty;
    } classes[] = {
        {"isalnum", is_alnum, false},
        {"isalpha", fmj_is_alpha, false},
        {"isascii", is_ascii, true},
        {"isdecimal", fmj_is_decimal, false},
        {"isdigit", fmj_is_digit, false},
        {"isnumeric", fmj_is_numeric, false},
        {"isprintable", fmj_is_printable, true},
        {"isspace", fmj_is_space, false},
    };
    positional(c, "", 0);
    fmj_step(c->r, c->s->n / 16);
    if (strcmp(c->name, "isidentifier") == 0) return fmj_bool(is_identifier(c->s));
    if (strcmp(c->name, "istitle") == 0) return fmj_bool(is_title(c->s));
    if (strcmp(c->name, "isupper") == 0) return fmj_bool(has_case(c->s, true));
    if (strcmp(c->name, "islower") == 0) return fmj_bool(has_case(c->s, false));
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        if (strcmp(c->name, classes[i].name) != 0) continue;
        for (size_t at = 0, len; at < c->s->n; at += len)
            if (!classes[i].is(fmj_char_at(c->s, at, &len))) return fmj_bool(false);
        return fmj_bool(c->s->n > 0 || classes[i].when_empty);
    }
    return fmj_bool(false);
}

static fmj_value split_lines(call *c)
{
    fmj_bind(c->r, c->name, "keepends", 0, c->args, c->arg);
    return fmj_splitlines(c->r, c->s, c->arg[0].kind != FMJ_MISSING && fmj_truth(c->r, c->arg[0]));
}

fmj_value fmj_str_method(fmj_run *r, const fmj_str *self, const char *name, const fmj_args *args)
{
    static const struct {
        const char *name;
        fmj_value (*run)(call *c);
    } methods[] = {
        {"capitalize", recase},
        {"casefold", recase},
        {"center", pad},
        {"count", count},
        {"endswith", starts_or_ends},
        {"expandtabs", expand_tabs},
        {"find", search},
        {"index", search},
        {"join", join},
        {"ljust", pad},
        {"lower", recase},
        {"lstrip", strip},
        {"partition", partition},
        {"removeprefix", remove_affix},
        {"removesuffix", remove_affix},
        {"replace", replace},
        {"rfind", search},
        {"rindex", search},
        {"rjust", pad},
        {"rpartition", partition},
        {"rsplit", split},
        {"rstrip", strip},
        {"split", split},
        {"splitlines", split_lines},
        {"startswith", starts_or_ends},
        {"strip", strip},
        {"swapcase", recase},
        {"title", recase},
        {"upper", recase},
        {"zfill", zfill},
    };
    call c = {.r = r, .s = self, .name = name, .args = args};
    if (strcmp(name, "format") == 0) return fmj_format(r, self, args);
    if (strcmp(name, "format_map") == 0) {
        positional(&c, "mapping", 1);
        if (c.arg[0].kind != FMJ_DICT)
            fmj_fail(r, FM_E_UNSUPPORTED, "format_map() of a %s is not supported",
                     fmj_type_name(c.arg[0]));
        const fmj_dict *d = c.arg[0].dict;
        const fmj_str **names = fmj_alloc_array(r, d->n + 1, sizeof *names);
        fmj_args kw = {.names = names, .kw = d->values, .n_kw = d->n};
        for (size_t i = 0; i < d->n; i++) names[i] = fmj_to_str(r, d->keys[i]);
        return fmj_format(r, self, &kw);
    }
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (strcmp(name, methods[i].name) == 0) return methods[i].run(&c);
    if (name[0] == 'i' && name[1] == 's') return classify(&c);
    fmj_fail(r, FM_E_UNSUPPORTED, "the string method %s is not supported", name);
}
