/* Calls: binding of arguments, functions that every template has, methods of values other than
 * strings. */
#include "chat/jinja_syntax.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

size_t fmj_bind(fmj_run *r, const char *what, const char *params, size_t n_required,
                const fmj_args *args, fmj_value out[FMJ_PARAMS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < FMJ_PARAMS_MAX; i++) out[i] = FMJ_V_MISSING;
    bool used[64] = {0};
    for (const char *p = params; *p;) {
        const char *end = strchr(p, ',');
        const size_t len = end ? (size_t)(end - p) : strlen(p);
        if (n < args->n_pos) out[n] = args->pos[n];
        for (size_t i = 0; i < args->n_kw && i < sizeof used; i++) {
            if (args->names[i]->n != len || memcmp(args->names[i]->s, p, len) != 0) continue;
            if (n < args->n_pos)
                fmj_raise(r, "%s() got multiple values for argument '%.*s'", what, (int)len, p);
            out[n] = args->kw[i];
            used[i] = true;
        }
        if (n < n_required && out[n].kind == FMJ_MISSING)
            fmj_raise(r, "%s() missing required argument: '%.*s'", what, (int)len, p);
        n++;
        p = end ? end + 1 : p + len;
    }
    if (args->n_pos > n)
        fmj_raise(r, "%s() takes at most %zu arguments (%zu given)", what, n, args->n_pos);
    for (size_t i = 0; i < args->n_kw; i++)
        if (i >= sizeof used || !used[i])
            fmj_raise(r, "%s() got an unexpected keyword argument '%.*s'", what,
                      (int)args->names[i]->n, args->names[i]->s);
    return n;
}

/* ---- globals ------------------------------------------------------------------------------------- */

static void no_keywords(fmj_run *r, const char *what, const fmj_args *args)
{
    if (args->n_kw > 0) fmj_raise(r, "%s() takes no keyword arguments", what);
}

static fmj_value call_range(fmj_run *r, const fmj_args *args)
{
    enum { RANGE_MAX = 100000 };
    fmj_range *range = fmj_alloc(r, sizeof *range);
    no_keywords(r, "range", args);
    if (args->n_pos == 0 || args->n_pos > 3)
        fmj_raise(r, "range expected 1 to 3 arguments, got %zu", args->n_pos);
    int64_t v[3] = {0, 0, 1};
    for (size_t i = 0; i < args->n_pos; i++) v[i] = fmj_as_index(r, args->pos[i]);
    if (args->n_pos == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0) fmj_raise(r, "range() arg 3 must not be zero");
    *range = (fmj_range){.start = v[0], .stop = v[1], .step = v[2]};
    uint64_t span = 0, step = v[2] > 0 ? (uint64_t)v[2] : 0 - (uint64_t)v[2];
    if (v[2] > 0 && v[1] > v[0]) span = (uint64_t)v[1] - (uint64_t)v[0];
    if (v[2] < 0 && v[1] < v[0]) span = (uint64_t)v[0] - (uint64_t)v[1];
    const uint64_t n = span / step + (span % step != 0);
    if (n > RANGE_MAX)
        fmj_raise(r, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                  RANGE_MAX);
    range->n = (size_t)n;
    return (fmj_value){.kind = FMJ_RANGE, .range = range};
}

/* dict(mapping or pairs, **more) into d. */
static void fill_dict(fmj_run *r, fmj_dict *d, const fmj_args *args)
{
    if (args->n_pos > 1) fmj_raise(r, "dict expected at most 1 argument, got %zu", args->n_pos);
    if (args->n_pos == 1 && args->pos[0].kind == FMJ_DICT) {
        const fmj_dict *from = args->pos[0].dict;
        for (size_t i = 0; i < from->n; i++) fmj_dict_set(r, d, from->keys[i], from->values[i]);
    } else if (args->n_pos == 1) {
        const fmj_list *pairs = fmj_items(r, args->pos[0]);
        for (size_t i = 0; i < pairs->n; i++) {
            if (!fmj_is_iterable(pairs->items[i]))
                fmj_raise(r, "cannot convert dictionary update sequence element #%zu to a sequence",
                          i);
            const fmj_list *pair = fmj_items(r, pairs->items[i]);
            if (pair->n != 2)
                fmj_raise(r,
                          "dictionary update sequence element #%zu has length %zu; 2 is required",
                          i, pair->n);
            fmj_dict_set(r, d, pair->items[0], pair->items[1]);
        }
    }
    for (size_t i = 0; i < args->n_kw; i++)
        fmj_dict_set(r, d, fmj_str_value(args->names[i]), args->kw[i]);
}

static fmj_value call_dict(fmj_run *r, const fmj_args *args)
{
    fmj_dict *d = fmj_dict_new(r, args->n_kw);
    fill_dict(r, d, args);
    return (fmj_value){.kind = FMJ_DICT, .dict = d};
}

static fmj_value call_namespace(fmj_run *r, const fmj_args *args)
{
    fmj_dict *d = fmj_dict_new(r, args->n_kw);
    fill_dict(r, d, args);
    for (size_t i = 0; i < d->n; i++) {
        const fmj_value k = d->keys[i];
        if (k.kind == FMJ_STR && k.str->n > 0 && k.str->s[0] == '_')
            fmj_raise(r,
                      "Chat templates cannot store underscore-prefixed attributes on a namespace, "
                      "but got '%.*s'. Please rename the attribute.",
                      (int)k.str->n, k.str->s);
    }
    return (fmj_value){.kind = FMJ_NAMESPACE, .dict = d};
}

static fmj_value call_raise(fmj_run *r, const fmj_args *args)
{
    fmj_value arg[FMJ_PARAMS_MAX];
    fmj_bind(r, "raise_exception", "message", 1, args, arg);
    const fmj_str *s = fmj_to_str(r, arg[0]);
    fmj_raise(r, "%.*s", s->n > 900 ? 900 : (int)s->n, s->s);
}

static fmj_value call_strftime(fmj_run *r, const fmj_args *args)
{
    fmj_value arg[FMJ_PARAMS_MAX];
    fmj_bind(r, "strftime_now", "format", 1, args, arg);
    if (arg[0].kind != FMJ_STR)
        fmj_raise(r, "strftime() argument 1 must be str, not %s", fmj_type_name(arg[0]));
    return fmj_strftime_now(r, arg[0].str);
}

static fmj_value call_cycler(fmj_run *r, const fmj_args *args)
{
    no_keywords(r, "cycler", args);
    if (args->n_pos == 0) fmj_raise(r, "at least one item has to be provided");
    fmj_cycler *c = fmj_alloc(r, sizeof *c);
    *c =
        (fmj_cycler){.items = fmj_alloc_array(r, args->n_pos, sizeof(fmj_value)), .n = args->n_pos};
    memcpy(c->items, args->pos, args->n_pos * sizeof *c->items);
    return (fmj_value){.kind = FMJ_CYCLER, .cycler = c};
}

static fmj_value call_joiner(fmj_run *r, const fmj_args *args)
{
    fmj_value arg[FMJ_PARAMS_MAX];
    fmj_bind(r, "joiner", "sep", 0, args, arg);
    fmj_cycler *c = fmj_alloc(r, sizeof *c);
    *c = (fmj_cycler){.items = fmj_alloc_array(r, 1, sizeof(fmj_value))};
    c->items[0] = arg[0].kind == FMJ_MISSING ? fmj_text(r, ", ") : arg[0];
    return (fmj_value){.kind = FMJ_JOINER, .cycler = c};
}

static fmj_value call_lipsum(fmj_run *r, const fmj_args *args)
{
    (void)args;
    fmj_fail(r, FM_E_UNSUPPORTED, "lipsum() is random text and has no place in a chat template");
}

const fmj_builtin fmj_globals[] = {
    {"range", call_range},
    {"dict", call_dict},
    {"namespace", call_namespace},
    {"raise_exception", call_raise},
    {"strftime_now", call_strftime},
    {"cycler", call_cycler},
    {"joiner", call_joiner},
    {"lipsum", call_lipsum},
    {NULL, NULL},
};

/* ---- methods ------------------------------------------------------------------------------------- */

static fmj_value make_view(fmj_run *r, const fmj_dict *d, char part)
{
    fmj_view *view = fmj_alloc(r, sizeof *view);
    *view = (fmj_view){.dict = d, .part = part};
    return (fmj_value){.kind = FMJ_VIEW, .view = view};
}

static fmj_value from_keys(fmj_run *r, const fmj_args *args)
{
    fmj_value arg[FMJ_PARAMS_MAX];
    fmj_bind(r, "fromkeys", "iterable,value", 1, args, arg);
    const fmj_list *keys = fmj_items(r, arg[0]);
    fmj_dict *d = fmj_dict_new(r, keys->n);
    for (size_t i = 0; i < keys->n; i++)
        fmj_dict_set(r, d, keys->items[i], arg[1].kind == FMJ_MISSING ? FMJ_V_NONE : arg[1]);
    return (fmj_value){.kind = FMJ_DICT, .dict = d};
}

static fmj_value dict_method(fmj_run *r, const fmj_method *m, const fmj_args *args)
{
    fmj_value arg[FMJ_PARAMS_MAX];
    const fmj_dict *d = m->self.dict;
    if (strcmp(m->name, "get") == 0) {
        no_keywords(r, "dict.get", args);
        fmj_bind(r, "get", "key,default", 1, args, arg);
        const fmj_value *found = fmj_dict_get(r, d, arg[0]);
        if (found) return *found;
        return arg[1].kind == FMJ_MISSING ? FMJ_V_NONE : arg[1];
    }
    if (strcmp(m->name, "fromkeys") == 0) return from_keys(r, args);
    fmj_bind(r, m->name, "", 0, args, arg);
    if (strcmp(m->name, "copy") != 0) return make_view(r, d, m->name[0]);
    fmj_dict *copy = fmj_dict_new(r, d->n);
    for (size_t i = 0; i < d->n; i++) fmj_dict_set(r, copy, d->keys[i], d->values[i]);
    return (fmj_value){.kind = FMJ_DICT, .dict = copy};
}

/* count, index, copy of lists, tuples and ranges. */
static fmj_value sequence_method(fmj_run *r, const fmj_method *m, const fmj_args *args)
{
    fmj_value arg[FMJ_PARAMS_MAX];
    no_keywords(r, m->name, args);
    const fmj_list *l = fmj_items(r, m->self);
    if (strcmp(m->name, "copy") == 0) {
        fmj_bind(r, "copy", "", 0, args, arg);
        return fmj_list_of(r, FMJ_LIST, l->items, l->n);
    }
    if (strcmp(m->name, "count") == 0) {
        fmj_bind(r, "count", "value", 1, args, arg);
        int64_t n = 0;
        for (size_t i = 0; i < l->n; i++) n += fmj_equal(r, l->items[i], arg[0]);
        return fmj_int(n);
    }
    fmj_bind(r, "index", "value,start,stop", 1, args, arg);
    int64_t from = arg[1].kind == FMJ_MISSING ? 0 : fmj_as_index(r, arg[1]);
    int64_t to = arg[2].kind == FMJ_MISSING ? (int64_t)l->n : fmj_as_index(r, arg[2]);
    const int64_t n = (int64_t)l->n;
    if (from < 0) from = from < -n ? 0 : from + n;
    if (to < 0) to = to < -n ? 0 : to + n;
    for (int64_t i = from; i < to && i < n; i++)
        if (fmj_equal(r, l->items[i], arg[0])) return fmj_int(i);
    fmj_buf b = {0};
    fmj_buf_repr(r, &b, arg[0]);
    fmj_raise(r, "%.*s is not in %s", b.n > 200 ? 200 : (int)b.n, b.s, fmj_type_name(m->self));
}

static fmj_value number_method(fmj_run *r, const fmj_method *m, const fmj_args *args)
{
    const fmj_value v = m->self;
    fmj_value arg[FMJ_PARAMS_MAX];
    fmj_bind(r, m->name, "", 0, args, arg);
    if (strcmp(m->name, "is_integer") == 0) return fmj_bool(isfinite(v.f) && floor(v.f) == v.f);
    if (strcmp(m->name, "conjugate") == 0) return fmj_plus(r, v);
    if (v.kind != FMJ_FLOAT && strncmp(m->name, "bit_", 4) == 0) {
        const int64_t i = v.kind == FMJ_BOOL ? v.b : v.i;
        int64_t n = 0;
        for (uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i; u; u >>= 1)
            n += m->name[4] == 'l' || (u & 1);
        return fmj_int(n);
    }
    fmj_fail(r, FM_E_UNSUPPORTED, "the method %s of %s is not supported", m->name,
             fmj_type_name(v));
}

static fmj_value loop_method(fmj_run *r, const fmj_method *m, const fmj_args *args)
{
    fmj_loop *l = m->self.loop;
    no_keywords(r, m->name, args);
    if (strcmp(m->name, "cycle") == 0) {
        if (args->n_pos == 0) fmj_raise(r, "no items for cycling given");
        return args->pos[(uint64_t)l->index0 % args->n_pos];
    }
    fmj_value *copy = fmj_alloc_array(r, args->n_pos + 1, sizeof *copy);
    if (args->n_pos > 0) memcpy(copy, args->pos, args->n_pos * sizeof *copy);
    const fmj_value now = fmj_list_of(r, FMJ_TUPLE, copy, args->n_pos);
    if (l->last_changed.kind != FMJ_MISSING && fmj_equal(r, l->last_changed, now))
        return fmj_bool(false);
    l->last_changed = now;
    return fmj_bool(true);
}

static fmj_value cycler_method(fmj_run *r, const fmj_method *m, const fmj_args *args)
{
    fmj_cycler *c = m->self.cycler;
    fmj_value arg[FMJ_PARAMS_MAX];
    fmj_bind(r, m->name, "", 0, args, arg);
    const fmj_value now = c->items[c->at];
    if (strcmp(m->name, "reset") == 0) {
        c->at = 0;
        return FMJ_V_NONE;
    }
    c->at = (c->at + 1) % c->n;
    return now;
}

static fmj_value is_disjoint(fmj_run *r, const fmj_method *m, const fmj_args *args)
{
    fmj_value arg[FMJ_PARAMS_MAX];
    fmj_bind(r, "isdisjoint", "other", 1, args, arg);
    const fmj_list *l = fmj_items(r, arg[0]);
    for (size_t i = 0; i < l->n; i++)
        if (fmj_contains(r, m->self, l->items[i])) return fmj_bool(false);
    return fmj_bool(true);
}

fmj_value fmj_call_method(fmj_run *r, const fmj_method *m, const fmj_args *args)
{
    switch (m->self.kind) {
    case FMJ_STR:
        return fmj_str_method(r, m->self.str, m->name, args);
    case FMJ_DICT:
        return dict_method(r, m, args);
    case FMJ_LIST:
    case FMJ_TUPLE:
    case FMJ_RANGE:
        return sequence_method(r, m, args);
    case FMJ_LOOP:
        return loop_method(r, m, args);
    case FMJ_CYCLER:
        return cycler_method(r, m, args);
    case FMJ_VIEW:
        return is_disjoint(r, m, args);
    case FMJ_BUILTIN:
        return from_keys(r, args);
    default:
        return number_method(r, m, args);
    }
}

fmj_value fmj_call(fmj_run *r, fmj_value f, const fmj_args *args)
{
    fmj_step(r, 1);
    switch (f.kind) {
    case FMJ_UNDEFINED:
        fmj_raise_undefined(r, f.undefined);
    case FMJ_MACRO:
        return fmj_macro_call(r, f.macro, args);
    case FMJ_BUILTIN:
        return f.builtin->call(r, args);
    case FMJ_METHOD:
        return fmj_call_method(r, f.method, args);
    case FMJ_LOOP:
        return fmj_loop_call(r, f.loop, args);
    case FMJ_JOINER: {
        const bool is_first = f.cycler->at == 0;
        f.cycler->at = 1;
        return is_first ? fmj_text(r, "") : f.cycler->items[0];
    }
    default:
        fmj_raise(r, "'%s' object is not callable", fmj_type_name(f));
    }
}
