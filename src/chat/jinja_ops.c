/* Operators with Python's semantics: truth, equality, order, arithmetic, membership, iteration. */
#include "chat/jinja_value.h"

#include <math.h>
#include <string.h>

static bool is_int(fmj_value v)
{
    return v.kind == FMJ_INT || v.kind == FMJ_BOOL;
}

static int64_t as_int(fmj_value v)
{
    return v.kind == FMJ_BOOL ? v.b : v.i;
}

bool fmj_truth(fmj_run *r, fmj_value v)
{
    switch (v.kind) {
    case FMJ_MISSING:
    case FMJ_UNDEFINED:
    case FMJ_NONE:
        return false;
    case FMJ_BOOL:
        return v.b;
    case FMJ_INT:
        return v.i != 0;
    case FMJ_FLOAT:
        return v.f != 0;
    case FMJ_STR:
    case FMJ_LIST:
    case FMJ_TUPLE:
    case FMJ_DICT:
    case FMJ_RANGE:
    case FMJ_VIEW:
    case FMJ_LOOP:
        return fmj_len(r, v) != 0;
    default:
        return true;
    }
}

static bool equal_lists(fmj_run *r, const fmj_list *a, const fmj_list *b)
{
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++)
        if (!fmj_equal(r, a->items[i], b->items[i])) return false;
    return true;
}

static bool equal_dicts(fmj_run *r, const fmj_dict *a, const fmj_dict *b)
{
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        const fmj_value *v = fmj_dict_get(r, b, a->keys[i]);
        if (!v || !fmj_equal(r, a->values[i], *v)) return false;
    }
    return true;
}

/* Exact comparison of an int with a float: <0, 0, >0. f is not NaN. */
static int compare_int_float(int64_t i, double f)
{
    if (f >= 9223372036854775808.0) return -1;
    if (f < -9223372036854775808.0) return 1;
    const int64_t whole = (int64_t)f;
    if (i != whole) return i < whole ? -1 : 1;
    const double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

/* False: not ordered (NaN). */
static bool compare_numbers(fmj_value a, fmj_value b, int *out)
{
    if (is_int(a) && is_int(b)) {
        *out = as_int(a) < as_int(b) ? -1 : as_int(a) > as_int(b);
        return true;
    }
    if (isnan(fmj_as_double(a)) || isnan(fmj_as_double(b))) return false;
    if (is_int(a)) {
        *out = compare_int_float(as_int(a), b.f);
    } else if (is_int(b)) {
        *out = -compare_int_float(as_int(b), a.f);
    } else {
        *out = a.f < b.f ? -1 : a.f > b.f;
    }
    return true;
}

static bool equal_same_kind(fmj_run *r, fmj_value a, fmj_value b)
{
    switch (a.kind) {
    case FMJ_MISSING:
    case FMJ_UNDEFINED:
    case FMJ_NONE:
        return true;
    case FMJ_STR:
        fmj_step(r, a.str->n / 256);
        return fmj_str_equal(a.str, b.str);
    case FMJ_LIST:
    case FMJ_TUPLE:
        return equal_lists(r, a.list, b.list);
    case FMJ_DICT:
        return equal_dicts(r, a.dict, b.dict);
    case FMJ_RANGE:
        return equal_lists(r, fmj_items(r, a), fmj_items(r, b));
    case FMJ_VIEW:
        return a.view == b.view || (a.view->part != 'v' && a.view->part == b.view->part &&
                                    equal_dicts(r, a.view->dict, b.view->dict));
    case FMJ_NAMESPACE:
        return a.dict == b.dict;
    case FMJ_METHOD:
        return a.method->name == b.method->name && fmj_equal(r, a.method->self, b.method->self);
    default:
        return a.macro == b.macro; /* the same object */
    }
}

bool fmj_equal(fmj_run *r, fmj_value a, fmj_value b)
{
    fmj_step(r, 1);
    int order;
    if (fmj_is_number(a) && fmj_is_number(b)) return compare_numbers(a, b, &order) && order == 0;
    if (a.kind != b.kind) return false;
    fmj_enter(r);
    const bool is_equal = equal_same_kind(r, a, b);
    fmj_leave(r);
    return is_equal;
}

static int compare_text(const fmj_str *a, const fmj_str *b)
{
    /* The order of UTF-8 bytes is that of the characters. */
    const int order = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);
    return order != 0 ? order : a->n < b->n ? -1 : a->n > b->n;
}

static bool compare(fmj_run *r, fmj_value a, fmj_value b, const char *op, int *out)
{
    fmj_step(r, 1);
    if (a.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, a.undefined);
    if (b.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, b.undefined);
    if (fmj_is_number(a) && fmj_is_number(b)) return compare_numbers(a, b, out);
    if (a.kind == FMJ_STR && b.kind == FMJ_STR) {
        fmj_step(r, a.str->n / 256);
        *out = compare_text(a.str, b.str);
        return true;
    }
    if ((a.kind == FMJ_LIST && b.kind == FMJ_LIST) ||
        (a.kind == FMJ_TUPLE && b.kind == FMJ_TUPLE)) {
        for (size_t i = 0; i < a.list->n && i < b.list->n; i++) {
            if (fmj_equal(r, a.list->items[i], b.list->items[i])) continue;
            fmj_enter(r);
            const bool is_ordered = compare(r, a.list->items[i], b.list->items[i], op, out);
            fmj_leave(r);
            return is_ordered;
        }
        *out = a.list->n < b.list->n ? -1 : a.list->n > b.list->n;
        return true;
    }
    fmj_raise(r, "'%s' not supported between instances of '%s' and '%s'", op, fmj_type_name(a),
              fmj_type_name(b));
}

int fmj_compare(fmj_run *r, fmj_value a, fmj_value b, const char *op)
{
    int order = 0;
    return compare(r, a, b, op, &order) ? order : 0;
}

bool fmj_ordered(fmj_run *r, fmj_value a, fmj_value b, const char *op)
{
    int order = 0;
    if (!compare(r, a, b, op, &order)) return false;
    if (order == 0) return op[1] == '=';
    return op[0] == '<' ? order < 0 : order > 0;
}

/* ---- arithmetic ---------------------------------------------------------------------------------- */

static _Noreturn void too_large(fmj_run *r)
{
    fmj_fail(r, FM_E_LIMIT, "an integer goes beyond 64 bits");
}

static int64_t multiply(fmj_run *r, int64_t a, int64_t b)
{
    const uint64_t ua = a < 0 ? 0 - (uint64_t)a : (uint64_t)a;
    const uint64_t ub = b < 0 ? 0 - (uint64_t)b : (uint64_t)b;
    if (ua != 0 && ub > (uint64_t)INT64_MAX / ua) too_large(r);
    return (a < 0) == (b < 0) ? (int64_t)(ua * ub) : -(int64_t)(ua * ub);
}

static int64_t power(fmj_run *r, int64_t a, int64_t b)
{
    int64_t out = 1;
    if (a == 1 || b == 0) return 1;
    if (a == 0) return 0;
    if (a == -1) return b % 2 == 0 ? 1 : -1;
    for (; b > 0; b--) out = multiply(r, out, a);
    return out;
}

static int64_t floor_div(fmj_run *r, int64_t a, int64_t b)
{
    if (b == 0) fmj_raise(r, "integer division or modulo by zero");
    if (a == INT64_MIN && b == -1) too_large(r);
    const int64_t q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static int64_t floor_mod(fmj_run *r, int64_t a, int64_t b)
{
    if (b == 0) fmj_raise(r, "integer modulo by zero");
    if (b == -1) return 0;
    const int64_t m = a % b;
    return m != 0 && (m < 0) != (b < 0) ? m + b : m;
}

static fmj_value int_arith(fmj_run *r, char op, int64_t a, int64_t b)
{
    switch (op) {
    case '+':
        if ((b > 0 && a > INT64_MAX - b) || (b < 0 && a < INT64_MIN - b)) too_large(r);
        return fmj_int(a + b);
    case '-':
        if ((b < 0 && a > INT64_MAX + b) || (b > 0 && a < INT64_MIN + b)) too_large(r);
        return fmj_int(a - b);
    case '*':
        return fmj_int(multiply(r, a, b));
    case 'i':
        return fmj_int(floor_div(r, a, b));
    case '%':
        return fmj_int(floor_mod(r, a, b));
    case '/':
        if (b == 0) fmj_raise(r, "division by zero");
        return fmj_float((double)a / (double)b);
    default:
        if (b >= 0) return fmj_int(power(r, a, b));
        if (a == 0) fmj_raise(r, "0.0 cannot be raised to a negative power");
        return fmj_float(pow((double)a, (double)b));
    }
}

/* Python's float floor division and modulo. */
static double float_mod(double a, double b, double *div)
{
    double mod = fmod(a, b);
    double q = (a - mod) / b;
    if (mod != 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            q -= 1;
        }
    } else {
        mod = copysign(0, b);
    }
    if (q != 0) {
        *div = floor(q);
        if (q - *div > 0.5) *div += 1;
    } else {
        *div = copysign(0, a / b);
    }
    return mod;
}

static fmj_value float_arith(fmj_run *r, char op, double a, double b)
{
    double div = 0, mod = 0;
    switch (op) {
    case '+':
        return fmj_float(a + b);
    case '-':
        return fmj_float(a - b);
    case '*':
        return fmj_float(a * b);
    case '/':
        if (b == 0) fmj_raise(r, "float division by zero");
        return fmj_float(a / b);
    case 'i':
    case '%':
        if (b == 0) fmj_raise(r, op == '%' ? "float modulo" : "float floor division by zero");
        mod = float_mod(a, b, &div);
        return fmj_float(op == '%' ? mod : div);
    default:
        if (a == 0 && b < 0) fmj_raise(r, "0.0 cannot be raised to a negative power");
        if (a < 0 && floor(b) != b && isfinite(b))
            fmj_fail(r, FM_E_UNSUPPORTED, "complex numbers are not supported");
        mod = pow(a, b);
        if (isinf(mod) && isfinite(a) && isfinite(b))
            fmj_raise(r, "(34, 'Numerical result out of range')");
        return fmj_float(mod);
    }
}

static fmj_value repeat(fmj_run *r, fmj_value v, int64_t times)
{
    if (times < 0) times = 0;
    if (v.kind == FMJ_STR) {
        fmj_buf b = {0};
        fmj_buf_fill(r, &b, v.str, v.str->n > 0 ? times : 0);
        fmj_str *s = (fmj_str *)fmj_buf_take(r, &b);
        s->is_markup = v.str->is_markup;
        return fmj_str_value(s);
    }
    const size_t n = v.list->n;
    if (n > 0 && (uint64_t)times > SIZE_MAX / n) fmj_fail(r, FM_E_LIMIT, "a list is too long");
    fmj_step(r, n * (uint64_t)times);
    fmj_value *items = fmj_alloc_array(r, n * (size_t)times + 1, sizeof *items);
    for (size_t i = 0; n > 0 && i < (size_t)times; i++)
        memcpy(items + i * n, v.list->items, n * sizeof *items);
    return fmj_list_of(r, v.kind, items, n * (size_t)times);
}

static fmj_value join_text(fmj_run *r, const fmj_str *a, const fmj_str *b)
{
    const bool is_markup = a->is_markup || b->is_markup;
    if (is_markup) {
        a = fmj_escape(r, a);
        b = fmj_escape(r, b);
    }
    fmj_buf out = {0};
    fmj_buf_str(r, &out, a);
    fmj_buf_str(r, &out, b);
    fmj_str *s = (fmj_str *)fmj_buf_take(r, &out);
    s->is_markup = is_markup;
    return fmj_str_value(s);
}

static fmj_value join_lists(fmj_run *r, fmj_value a, fmj_value b)
{
    const size_t n = a.list->n + b.list->n;
    fmj_step(r, n / 4);
    fmj_value *items = fmj_alloc_array(r, n + 1, sizeof *items);
    if (a.list->n > 0) memcpy(items, a.list->items, a.list->n * sizeof *items);
    if (b.list->n > 0) memcpy(items + a.list->n, b.list->items, b.list->n * sizeof *items);
    return fmj_list_of(r, a.kind, items, n);
}

fmj_value fmj_arith(fmj_run *r, char op, fmj_value a, fmj_value b)
{
    const bool is_seq_a = a.kind == FMJ_STR || a.kind == FMJ_LIST || a.kind == FMJ_TUPLE;
    const bool is_seq_b = b.kind == FMJ_STR || b.kind == FMJ_LIST || b.kind == FMJ_TUPLE;
    if (op == '%' && a.kind == FMJ_STR) return fmj_percent(r, a.str, b);
    if (a.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, a.undefined);
    if (b.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, b.undefined);
    if (is_int(a) && is_int(b)) return int_arith(r, op, as_int(a), as_int(b));
    if (fmj_is_number(a) && fmj_is_number(b))
        return float_arith(r, op, fmj_as_double(a), fmj_as_double(b));
    if (op == '+' && a.kind == FMJ_STR && b.kind == FMJ_STR) return join_text(r, a.str, b.str);
    if (op == '+' && is_seq_a && a.kind == b.kind) return join_lists(r, a, b);
    if (op == '*' && is_seq_a && is_int(b)) return repeat(r, a, as_int(b));
    if (op == '*' && is_int(a) && is_seq_b) return repeat(r, b, as_int(a));
    if (op == '+' && is_seq_a)
        fmj_raise(r, "can only concatenate %s (not \"%s\") to %s", fmj_type_name(a),
                  fmj_type_name(b), fmj_type_name(a));
    if (op == '-' && a.kind == FMJ_VIEW)
        fmj_fail(r, FM_E_UNSUPPORTED, "differences of dict views are not supported");
    const char sign[] = {op, 0};
    fmj_raise(r, "unsupported operand type(s) for %s: '%s' and '%s'",
              op == 'i'   ? "//"
              : op == 'p' ? "** or pow()"
                          : sign,
              fmj_type_name(a), fmj_type_name(b));
}

fmj_value fmj_negate(fmj_run *r, fmj_value v)
{
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (v.kind == FMJ_FLOAT) return fmj_float(-v.f);
    if (!is_int(v)) fmj_raise(r, "bad operand type for unary -: '%s'", fmj_type_name(v));
    if (as_int(v) == INT64_MIN) too_large(r);
    return fmj_int(-as_int(v));
}

fmj_value fmj_plus(fmj_run *r, fmj_value v)
{
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (v.kind == FMJ_FLOAT) return v;
    if (!is_int(v)) fmj_raise(r, "bad operand type for unary +: '%s'", fmj_type_name(v));
    return fmj_int(as_int(v));
}

int64_t fmj_as_index(fmj_run *r, fmj_value v)
{
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (!is_int(v))
        fmj_raise(r, "'%s' object cannot be interpreted as an integer", fmj_type_name(v));
    return as_int(v);
}

/* ---- containers ---------------------------------------------------------------------------------- */

bool fmj_contains(fmj_run *r, fmj_value container, fmj_value item)
{
    if (container.kind == FMJ_STR) {
        if (item.kind != FMJ_STR)
            fmj_raise(r, "'in <string>' requires string as left operand, not %s",
                      fmj_type_name(item));
        return fmj_find(r, container.str, item.str, 0, container.str->n) != SIZE_MAX;
    }
    if (container.kind == FMJ_DICT || (container.kind == FMJ_VIEW && container.view->part == 'k')) {
        const fmj_dict *d = container.kind == FMJ_DICT ? container.dict : container.view->dict;
        return fmj_dict_get(r, d, item) != NULL;
    }
    if (!fmj_is_iterable(container))
        fmj_raise(r, "argument of type '%s' is not iterable", fmj_type_name(container));
    if (container.kind == FMJ_ITERATOR) {
        fmj_iterator *it = container.iterator;
        while (it->at < it->list->n)
            if (fmj_equal(r, it->list->items[it->at++], item)) return true;
        return false;
    }
    const fmj_list *l = fmj_items(r, container);
    for (size_t i = 0; i < l->n; i++)
        if (fmj_equal(r, l->items[i], item)) return true;
    return false;
}

int64_t fmj_len(fmj_run *r, fmj_value v)
{
    (void)r;
    switch (v.kind) {
    case FMJ_UNDEFINED:
        return 0;
    case FMJ_STR:
        return (int64_t)v.str->n_char;
    case FMJ_LIST:
    case FMJ_TUPLE:
        return (int64_t)v.list->n;
    case FMJ_DICT:
        return (int64_t)v.dict->n;
    case FMJ_RANGE:
        return (int64_t)v.range->n;
    case FMJ_VIEW:
        return (int64_t)v.view->dict->n;
    case FMJ_LOOP: {
        const fmj_str name = {.s = "length", .n = 6, .n_char = 6};
        return fmj_getattr(r, v, &name).i;
    }
    default:
        return -1;
    }
}

bool fmj_is_iterable(fmj_value v)
{
    switch (v.kind) {
    case FMJ_UNDEFINED:
    case FMJ_STR:
    case FMJ_LIST:
    case FMJ_TUPLE:
    case FMJ_DICT:
    case FMJ_RANGE:
    case FMJ_VIEW:
    case FMJ_ITERATOR:
        return true;
    default:
        return false;
    }
}

static const fmj_list *make_list(fmj_run *r, fmj_value *items, size_t n)
{
    return fmj_list_of(r, FMJ_LIST, items, n).list;
}

static const fmj_list *characters(fmj_run *r, const fmj_str *s)
{
    fmj_str *plain = fmj_alloc(r, sizeof *plain);
    *plain = *s;
    plain->is_markup = false; /* also of Markup */
    fmj_value *items = fmj_alloc_array(r, s->n_char + 1, sizeof *items);
    size_t n = 0;
    for (size_t at = 0, len; at < s->n; at += len) {
        fmj_step(r, 1);
        fmj_char_at(s, at, &len);
        items[n++] = fmj_str_value(fmj_str_part(r, plain, at, len));
    }
    return make_list(r, items, n);
}

static const fmj_list *view_items(fmj_run *r, const fmj_dict *d, char part)
{
    if (part == 'k') return make_list(r, d->keys, d->n);
    if (part == 'v') return make_list(r, d->values, d->n);
    fmj_value *items = fmj_alloc_array(r, d->n + 1, sizeof *items);
    fmj_step(r, d->n);
    for (size_t i = 0; i < d->n; i++) items[i] = fmj_pair(r, d->keys[i], d->values[i]);
    return make_list(r, items, d->n);
}

const fmj_list *fmj_items(fmj_run *r, fmj_value v)
{
    switch (v.kind) {
    case FMJ_UNDEFINED:
        return make_list(r, NULL, 0);
    case FMJ_STR:
        return characters(r, v.str);
    case FMJ_LIST:
    case FMJ_TUPLE:
        return v.list;
    case FMJ_DICT:
        return view_items(r, v.dict, 'k');
    case FMJ_VIEW:
        return view_items(r, v.view->dict, v.view->part);
    case FMJ_RANGE: {
        fmj_value *items = fmj_alloc_array(r, v.range->n + 1, sizeof *items);
        fmj_step(r, v.range->n);
        for (size_t i = 0; i < v.range->n; i++) items[i] = fmj_int(fmj_range_at(v.range, i));
        return make_list(r, items, v.range->n);
    }
    case FMJ_ITERATOR: {
        fmj_iterator *it = v.iterator;
        const size_t at = it->at;
        it->at = it->list->n;
        return make_list(r, at < it->list->n ? it->list->items + at : NULL, it->list->n - at);
    }
    default:
        fmj_raise(r, "'%s' object is not iterable", fmj_type_name(v));
    }
}
