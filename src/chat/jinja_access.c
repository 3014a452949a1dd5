/* Attributes, elements and slices, as the sandbox gives them: obj.name looks for a method first and
 * for an element then, obj[key] the other way round, and what would change a list or a dict is
 * refused when it is called. */
#include "chat/jinja_syntax.h"

#include <stdio.h>
#include <string.h>

/* ---- methods by name ----------------------------------------------------------------------------- */

static const char *const str_methods[] = {
    "capitalize",   "casefold",    "center",    "count",      "encode",       "endswith",
    "expandtabs",   "find",        "format",    "format_map", "index",        "isalnum",
    "isalpha",      "isascii",     "isdecimal", "isdigit",    "isidentifier", "islower",
    "isnumeric",    "isprintable", "isspace",   "istitle",    "isupper",      "join",
    "ljust",        "lower",       "lstrip",    "maketrans",  "partition",    "removeprefix",
    "removesuffix", "replace",     "rfind",     "rindex",     "rjust",        "rpartition",
    "rsplit",       "rstrip",      "split",     "splitlines", "startswith",   "strip",
    "swapcase",     "title",       "translate", "upper",      "zfill",        NULL};
/* Those behind "|" change their object. */
static const char *const list_methods[] = {"copy",    "count",  "index",  "|",   "append",
                                           "clear",   "extend", "insert", "pop", "remove",
                                           "reverse", "sort",   NULL};
static const char *const tuple_methods[] = {"count", "index", NULL};
static const char *const dict_methods[] = {"copy",       "fromkeys", "get",   "items", "keys",
                                           "values",     "|",        "clear", "pop",   "popitem",
                                           "setdefault", "update",   NULL};
static const char *const int_methods[] = {
    "as_integer_ratio", "bit_count", "bit_length", "conjugate", "from_bytes", "to_bytes", NULL};
static const char *const float_methods[] = {"as_integer_ratio", "conjugate", "fromhex", "hex",
                                            "is_integer",       NULL};
static const char *const range_methods[] = {"count", "index", NULL};
static const char *const keys_methods[] = {"isdisjoint", NULL};
static const char *const cycler_methods[] = {"next", "reset", NULL};
static const char *const builtin_methods[] = {"fromkeys", NULL};
static const char *const no_methods[] = {NULL};

static const char *const *methods_of(fmj_value v)
{
    switch (v.kind) {
    case FMJ_STR:
        return str_methods;
    case FMJ_LIST:
        return list_methods;
    case FMJ_TUPLE:
        return tuple_methods;
    case FMJ_DICT:
        return dict_methods;
    case FMJ_INT:
    case FMJ_BOOL:
        return int_methods;
    case FMJ_FLOAT:
        return float_methods;
    case FMJ_RANGE:
        return range_methods;
    case FMJ_VIEW:
        return v.view->part == 'v' ? no_methods : keys_methods;
    case FMJ_CYCLER:
        return cycler_methods;
    case FMJ_BUILTIN:
        return strcmp(v.builtin->name, "dict") == 0 ? builtin_methods : no_methods;
    default:
        return no_methods;
    }
}

/* The method's name in static storage; *is_unsafe: it changes the object. */
static const char *find_method(fmj_value v, const fmj_str *name, bool *is_unsafe)
{
    *is_unsafe = false;
    for (const char *const *m = methods_of(v); *m; m++) {
        if ((*m)[0] == '|') {
            *is_unsafe = true;
        } else if (fmj_str_is(name, *m)) {
            return *m;
        }
    }
    return NULL;
}

static fmj_value refuse_unsafe(fmj_run *r, const fmj_str *name, const char *type)
{
    char *hint = fmj_alloc(r, name->n + 100);
    snprintf(hint, name->n + 100, "access to attribute '%.*s' of '%s' object is unsafe.",
             (int)name->n, name->s, type);
    return fmj_undefined_hint(r, hint);
}

static fmj_value macro_attribute(fmj_run *r, const fmj_macro *m, const fmj_str *name)
{
    const fmj_node *n = m->node;
    if (fmj_str_is(name, "name")) return fmj_text(r, m->name);
    if (fmj_str_is(name, "catch_kwargs")) return fmj_bool(n->kwargs_slot >= 0);
    if (fmj_str_is(name, "catch_varargs")) return fmj_bool(n->varargs_slot >= 0);
    if (fmj_str_is(name, "caller")) return fmj_bool(n->caller_slot >= 0);
    if (!fmj_str_is(name, "arguments")) return FMJ_V_MISSING;
    fmj_value *items = fmj_alloc_array(r, n->list.n + 1, sizeof *items);
    for (size_t i = 0; i < n->list.n; i++) items[i] = n->list.v[i]->value;
    return fmj_list_of(r, FMJ_TUPLE, items, n->list.n);
}

/* Attributes that are no methods. */
static fmj_value plain_attribute(fmj_run *r, fmj_value v, const fmj_str *name)
{
    if (v.kind == FMJ_INT || v.kind == FMJ_BOOL) {
        if (fmj_str_is(name, "real") || fmj_str_is(name, "numerator")) return fmj_plus(r, v);
        if (fmj_str_is(name, "imag")) return fmj_int(0);
        if (fmj_str_is(name, "denominator")) return fmj_int(1);
    }
    if (v.kind == FMJ_FLOAT) {
        if (fmj_str_is(name, "real")) return v;
        if (fmj_str_is(name, "imag")) return fmj_float(0);
    }
    if (v.kind == FMJ_RANGE) {
        if (fmj_str_is(name, "start")) return fmj_int(v.range->start);
        if (fmj_str_is(name, "stop")) return fmj_int(v.range->stop);
        if (fmj_str_is(name, "step")) return fmj_int(v.range->step);
    }
    if (v.kind == FMJ_LOOP) return fmj_loop_attribute(r, v.loop, name);
    if (v.kind == FMJ_TUPLE && v.list->is_group) {
        if (fmj_str_is(name, "grouper")) return v.list->items[0];
        if (fmj_str_is(name, "list")) return v.list->items[1];
    }
    if (v.kind == FMJ_CYCLER && fmj_str_is(name, "current")) return v.cycler->items[v.cycler->at];
    if (v.kind == FMJ_CYCLER && fmj_str_is(name, "pos")) return fmj_int((int64_t)v.cycler->at);
    if (v.kind == FMJ_JOINER && fmj_str_is(name, "sep")) return v.cycler->items[0];
    if (v.kind == FMJ_MACRO) return macro_attribute(r, v.macro, name);
    return FMJ_V_MISSING;
}

fmj_value fmj_attribute(fmj_run *r, fmj_value v, const fmj_str *name)
{
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (v.kind == FMJ_NAMESPACE) {
        const fmj_value *found = fmj_dict_get(r, v.dict, fmj_str_value(name));
        return found ? *found : FMJ_V_MISSING;
    }
    bool is_unsafe;
    const char *method = find_method(v, name, &is_unsafe);
    if (method && is_unsafe) return refuse_unsafe(r, name, fmj_type_name(v));
    if (method) return fmj_method_of(r, v, method);
    const fmj_value plain = plain_attribute(r, v, name);
    if (plain.kind != FMJ_MISSING) return plain;
    if (name->n > 4 && memcmp(name->s, "__", 2) == 0 &&
        (fmj_str_is(name, "__class__") || fmj_str_is(name, "__init__") ||
         fmj_str_is(name, "__dict__") || fmj_str_is(name, "__doc__")))
        return refuse_unsafe(r, name, fmj_type_name(v));
    return FMJ_V_MISSING;
}

/* ---- elements ------------------------------------------------------------------------------------ */

/* Element i of a sequence of n, counted from the end when negative; false: none. */
static bool element_index(size_t n, int64_t i, size_t *out)
{
    if (i < 0) i += (int64_t)n;
    if (i < 0 || (uint64_t)i >= n) return false;
    *out = (size_t)i;
    return true;
}

/* obj[key] of Python; MISSING where it raises a TypeError or LookupError. */
static fmj_value element(fmj_run *r, fmj_value v, fmj_value key)
{
    if (v.kind == FMJ_DICT) {
        /* A key that cannot be hashed is a TypeError, so just as absent. */
        const bool is_hashable = key.kind != FMJ_LIST && key.kind != FMJ_DICT;
        const fmj_value *found = is_hashable ? fmj_dict_get(r, v.dict, key) : NULL;
        return found ? *found : FMJ_V_MISSING;
    }
    if (key.kind != FMJ_INT && key.kind != FMJ_BOOL) return FMJ_V_MISSING;
    const int64_t i = key.kind == FMJ_BOOL ? key.b : key.i;
    size_t at;
    switch (v.kind) {
    case FMJ_LIST:
    case FMJ_TUPLE:
        return element_index(v.list->n, i, &at) ? v.list->items[at] : FMJ_V_MISSING;
    case FMJ_RANGE:
        return element_index(v.range->n, i, &at) ? fmj_int(fmj_range_at(v.range, at))
                                                 : FMJ_V_MISSING;
    case FMJ_STR:
        if (!element_index(v.str->n_char, i, &at)) return FMJ_V_MISSING;
        {
            size_t len;
            const size_t from = fmj_str_offset(r, v.str, at);
            fmj_char_at(v.str, from, &len);
            return fmj_str_value(fmj_str_part(r, v.str, from, len));
        }
    default:
        return FMJ_V_MISSING;
    }
}

fmj_value fmj_getattr(fmj_run *r, fmj_value v, const fmj_str *name)
{
    const fmj_value attribute = fmj_attribute(r, v, name);
    if (attribute.kind != FMJ_MISSING) return attribute;
    const fmj_value found = element(r, v, fmj_str_value(name));
    if (found.kind != FMJ_MISSING) return found;
    return fmj_undefined_of(r, v, fmj_str_value(name));
}

fmj_value fmj_getitem(fmj_run *r, fmj_value v, fmj_value key)
{
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    const fmj_value found = element(r, v, key);
    if (found.kind != FMJ_MISSING) return found;
    if (key.kind == FMJ_STR) {
        const fmj_value attribute = fmj_attribute(r, v, key.str);
        if (attribute.kind != FMJ_MISSING) return attribute;
    }
    return fmj_undefined_of(r, v, key);
}

/* ---- slices -------------------------------------------------------------------------------------- */

/* One end of a slice of n elements, within [low, high]. */
static int64_t slice_bound(fmj_run *r, fmj_value v, int64_t n, int64_t fallback, int64_t low,
                           int64_t high)
{
    if (v.kind == FMJ_NONE) return fallback;
    if (v.kind != FMJ_INT && v.kind != FMJ_BOOL)
        fmj_raise(r, "slice indices must be integers or None or have an __index__ method");
    int64_t i = v.kind == FMJ_BOOL ? v.b : v.i;
    if (i < 0) i += n;
    return i < low ? low : i > high ? high : i;
}

typedef struct {
    int64_t start, stop, step;
    size_t n;
} slice;

static slice make_slice(fmj_run *r, size_t length, fmj_value start, fmj_value stop, fmj_value step)
{
    int64_t k = 1;
    if (step.kind != FMJ_NONE) {
        if (step.kind != FMJ_INT && step.kind != FMJ_BOOL)
            fmj_raise(r, "slice indices must be integers or None or have an __index__ method");
        k = step.kind == FMJ_BOOL ? step.b : step.i;
    }
    if (k == 0) fmj_raise(r, "slice step cannot be zero");
    if (k < -INT64_MAX / 4) k = -INT64_MAX / 4;
    if (k > INT64_MAX / 4) k = INT64_MAX / 4;
    const int64_t n = (int64_t)length;
    /* Bounds run over [0, n] going up and [-1, n - 1] going down. */
    const int64_t low = k > 0 ? 0 : -1, high = k > 0 ? n : n - 1;
    const int64_t from = slice_bound(r, start, n, k > 0 ? 0 : n - 1, low, high);
    const int64_t to = slice_bound(r, stop, n, k > 0 ? n : -1, low, high);
    slice s = {.start = from, .stop = to, .step = k};
    if (k > 0 && to > from) s.n = (size_t)((to - from + k - 1) / k);
    if (k < 0 && to < from) s.n = (size_t)((from - to - k - 1) / -k);
    return s;
}

static fmj_value slice_text(fmj_run *r, const fmj_str *s, slice p)
{
    if (p.step == 1 || p.n == 0) {
        const size_t from = fmj_str_offset(r, s, p.n > 0 ? (size_t)p.start : 0);
        const size_t to = fmj_str_offset(r, s, p.n > 0 ? (size_t)p.start + p.n : 0);
        return fmj_str_value(fmj_str_part(r, s, from, to - from));
    }
    const fmj_list *chars = fmj_items(r, fmj_str_value(s));
    fmj_buf b = {0};
    for (size_t i = 0; i < p.n; i++)
        fmj_buf_str(r, &b, chars->items[p.start + (int64_t)i * p.step].str);
    return fmj_buf_value(r, &b);
}

/* Element i, i in [-1, n]; those outside the range need not be integers of 64 bits. */
static int64_t element_at(fmj_run *r, const fmj_range *range, int64_t i)
{
    const fmj_value step = fmj_int(range->step);
    if (i < 0) return fmj_arith(r, '-', fmj_int(range->start), step).i;
    if (i == 0 || i < (int64_t)range->n) return fmj_int(fmj_range_at(range, (size_t)i)).i;
    return fmj_arith(r, '+', fmj_int(fmj_range_at(range, (size_t)i - 1)), step).i;
}

/* A range again, as Python gives it. */
static fmj_value slice_range(fmj_run *r, const fmj_range *range, slice p)
{
    fmj_range *part = fmj_alloc(r, sizeof *part);
    part->start = element_at(r, range, p.start);
    part->stop = element_at(r, range, p.stop);
    part->step = fmj_arith(r, '*', fmj_int(range->step), fmj_int(p.step)).i;
    part->n = p.n;
    return (fmj_value){.kind = FMJ_RANGE, .range = part};
}

fmj_value fmj_slice(fmj_run *r, fmj_value v, fmj_value start, fmj_value stop, fmj_value step)
{
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (v.kind == FMJ_STR)
        return slice_text(r, v.str, make_slice(r, v.str->n_char, start, stop, step));
    if (v.kind == FMJ_RANGE)
        return slice_range(r, v.range, make_slice(r, v.range->n, start, stop, step));
    if (v.kind == FMJ_DICT) fmj_raise(r, "unhashable type: 'slice'");
    if (v.kind != FMJ_LIST && v.kind != FMJ_TUPLE)
        fmj_raise(r, "'%s' object is not subscriptable", fmj_type_name(v));
    const slice p = make_slice(r, v.list->n, start, stop, step);
    fmj_step(r, p.n / 4);
    if (p.step == 1) return fmj_list_of(r, v.kind, p.n > 0 ? v.list->items + p.start : NULL, p.n);
    fmj_value *items = fmj_alloc_array(r, p.n + 1, sizeof *items);
    for (size_t i = 0; i < p.n; i++) items[i] = v.list->items[p.start + (int64_t)i * p.step];
    return fmj_list_of(r, v.kind, items, p.n);
}
