/* What stands behind `is`. */
#include "chat/jinja_value.h"

#include <string.h>

typedef struct {
    const char *name;
    const char *params;
    size_t n_required;
    bool (*test)(fmj_run *r, fmj_value v, const fmj_value *arg);
} test_row;

static bool remainder_is(fmj_run *r, fmj_value v, int64_t by, int64_t rest)
{
    return fmj_equal(r, fmj_arith(r, '%', v, fmj_int(by)), fmj_int(rest));
}

static bool is_odd(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return remainder_is(r, v, 2, 1);
}

static bool is_even(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return remainder_is(r, v, 2, 0);
}

static bool is_divisible(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return fmj_equal(r, fmj_arith(r, '%', v, arg[0]), fmj_int(0));
}

static bool is_defined(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind != FMJ_UNDEFINED;
}

static bool is_undefined(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return !is_defined(r, v, arg);
}

static bool is_filter(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_STR && fmj_filter_find(v.str->s, v.str->n) >= 0;
}

static bool is_test(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_STR && fmj_test_find(v.str->s, v.str->n) >= 0;
}

static bool is_none(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_NONE;
}

static bool is_boolean(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_BOOL;
}

static bool is_true(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_BOOL && v.b;
}

static bool is_false(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_BOOL && !v.b;
}

static bool is_integer(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_INT;
}

static bool is_float(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_FLOAT;
}

static bool is_number(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return fmj_is_number(v);
}

static bool has_case(fmj_run *r, fmj_value v, const char *method)
{
    const fmj_args none = {0};
    return fmj_str_method(r, fmj_to_str(r, v), method, &none).b;
}

static bool is_lower(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return has_case(r, v, "islower");
}

static bool is_upper(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    return has_case(r, v, "isupper");
}

static bool is_string(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_STR;
}

static bool is_mapping(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_DICT;
}

/* With a length and elements; jinja2's Undefined has both. */
static bool is_sequence(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_STR || v.kind == FMJ_LIST || v.kind == FMJ_TUPLE || v.kind == FMJ_DICT ||
           v.kind == FMJ_RANGE || v.kind == FMJ_UNDEFINED;
}

static bool is_iterable(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return fmj_is_iterable(v) || v.kind == FMJ_LOOP;
}

static bool is_callable(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_MACRO || v.kind == FMJ_BUILTIN || v.kind == FMJ_METHOD ||
           v.kind == FMJ_LOOP || v.kind == FMJ_JOINER || v.kind == FMJ_UNDEFINED;
}

/* Identity: of objects, and of equal values where Python shares them. */
static bool is_same(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    if (v.kind != arg[0].kind) return false;
    if (v.kind == FMJ_LIST || v.kind == FMJ_TUPLE) return v.list == arg[0].list;
    if (v.kind == FMJ_DICT) return v.dict == arg[0].dict;
    if (v.kind == FMJ_UNDEFINED) return v.undefined == arg[0].undefined;
    return fmj_equal(r, v, arg[0]);
}

static bool is_escaped(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)r;
    (void)arg;
    return v.kind == FMJ_STR && v.str->is_markup;
}

static bool is_in(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return fmj_contains(r, arg[0], v);
}

static bool is_equal(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return fmj_equal(r, v, arg[0]);
}

static bool is_different(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return !fmj_equal(r, v, arg[0]);
}

static bool is_less(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return fmj_ordered(r, v, arg[0], "<");
}

static bool is_less_or_equal(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return fmj_ordered(r, v, arg[0], "<=");
}

static bool is_greater(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return fmj_ordered(r, v, arg[0], ">");
}

static bool is_greater_or_equal(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return fmj_ordered(r, v, arg[0], ">=");
}

static const test_row tests[] = {
    {"odd", "", 0, is_odd},
    {"even", "", 0, is_even},
    {"divisibleby", "num", 1, is_divisible},
    {"defined", "", 0, is_defined},
    {"undefined", "", 0, is_undefined},
    {"filter", "", 0, is_filter},
    {"test", "", 0, is_test},
    {"none", "", 0, is_none},
    {"boolean", "", 0, is_boolean},
    {"false", "", 0, is_false},
    {"true", "", 0, is_true},
    {"integer", "", 0, is_integer},
    {"float", "", 0, is_float},
    {"lower", "", 0, is_lower},
    {"upper", "", 0, is_upper},
    {"string", "", 0, is_string},
    {"mapping", "", 0, is_mapping},
    {"number", "", 0, is_number},
    {"sequence", "", 0, is_sequence},
    {"iterable", "", 0, is_iterable},
    {"callable", "", 0, is_callable},
    {"sameas", "other", 1, is_same},
    {"escaped", "", 0, is_escaped},
    {"in", "seq", 1, is_in},
    {"==", "other", 1, is_equal},
    {"eq", "other", 1, is_equal},
    {"equalto", "other", 1, is_equal},
    {"!=", "other", 1, is_different},
    {"ne", "other", 1, is_different},
    {">", "other", 1, is_greater},
    {"gt", "other", 1, is_greater},
    {"greaterthan", "other", 1, is_greater},
    {">=", "other", 1, is_greater_or_equal},
    {"ge", "other", 1, is_greater_or_equal},
    {"<", "other", 1, is_less},
    {"lt", "other", 1, is_less},
    {"lessthan", "other", 1, is_less},
    {"<=", "other", 1, is_less_or_equal},
    {"le", "other", 1, is_less_or_equal},
};

int fmj_test_find(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        if (strlen(tests[i].name) == n && memcmp(tests[i].name, name, n) == 0) return (int)i;
    return -1;
}

bool fmj_test_call(fmj_run *r, int test, fmj_value v, const fmj_args *args)
{
    fmj_value arg[FMJ_PARAMS_MAX];
    fmj_bind(r, tests[test].name, tests[test].params, tests[test].n_required, args, arg);
    return tests[test].test(r, v, arg);
}
