/* Filters on sequences and mappings. */
#include "chat/jinja_value.h"

#include <string.h>

static bool is_given(fmj_value v)
{
    return v.kind != FMJ_MISSING && v.kind != FMJ_NONE;
}

static bool flag(fmj_run *r, fmj_value v, bool fallback)
{
    return v.kind == FMJ_MISSING ? fallback : fmj_truth(r, v);
}

static fmj_value list_value(fmj_run *r, const fmj_vec *v)
{
    return fmj_list_of(r, FMJ_LIST, v->v, v->n);
}

/* ---- attributes by path -------------------------------------------------------------------------- */

/* "a.0.b" of v; `fallback` (MISSING or None: none) stands for what is undefined on the way. */
static fmj_value get_path(fmj_run *r, fmj_value v, fmj_value path, fmj_value fallback)
{
    if (path.kind == FMJ_NONE || path.kind == FMJ_MISSING) return v;
    if (path.kind != FMJ_STR) {
        v = fmj_getitem(r, v, path);
        return is_given(fallback) && v.kind == FMJ_UNDEFINED ? fallback : v;
    }
    const fmj_str *p = path.str;
    for (size_t from = 0; from <= p->n;) {
        const char *dot = from < p->n ? memchr(p->s + from, '.', p->n - from) : NULL;
        const size_t to = dot ? (size_t)(dot - p->s) : p->n;
        int64_t number = 0;
        bool is_number = to > from;
        for (size_t i = from; i < to; i++) {
            const char c = p->s[i];
            is_number = is_number && c >= '0' && c <= '9' && number < INT64_MAX / 100;
            if (is_number) number = 10 * number + (c - '0');
        }
        const fmj_value key =
            is_number ? fmj_int(number) : fmj_str_value(fmj_str_part(r, p, from, to - from));
        v = fmj_getitem(r, v, key);
        if (is_given(fallback) && v.kind == FMJ_UNDEFINED) v = fallback;
        from = to + 1;
    }
    return v;
}

static fmj_value fold(fmj_run *r, fmj_value v, bool case_sensitive)
{
    if (case_sensitive || v.kind != FMJ_STR) return v;
    return fmj_str_value(fmj_str_case(r, v.str, FMJ_LOWER));
}

/* ---- sorting ------------------------------------------------------------------------------------- */

/* Stable; keys [n] move with items [n]. */
static void sort_by_keys(fmj_run *r, fmj_value *items, fmj_value *keys, size_t n, bool is_reverse)
{
    fmj_value *spare_items = fmj_alloc_array(r, n + 1, sizeof *spare_items);
    fmj_value *spare_keys = fmj_alloc_array(r, n + 1, sizeof *spare_keys);
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t from = 0; from < n; from += 2 * width) {
            const size_t mid = from + width < n ? from + width : n;
            const size_t end = from + 2 * width < n ? from + 2 * width : n;
            size_t a = from, b = mid;
            for (size_t w = from; w < end; w++) {
                bool takes_b = b < end;
                if (a < mid && b < end)
                    takes_b = is_reverse ? fmj_compare(r, keys[a], keys[b], "<") < 0
                                         : fmj_compare(r, keys[b], keys[a], "<") < 0;
                const size_t source = takes_b ? b++ : a++;
                spare_items[w] = items[source];
                spare_keys[w] = keys[source];
            }
        }
        memcpy(items, spare_items, n * sizeof *items);
        memcpy(keys, spare_keys, n * sizeof *keys);
    }
}

static fmj_value *copy_items(fmj_run *r, const fmj_list *l)
{
    fmj_value *items = fmj_alloc_array(r, l->n + 1, sizeof *items);
    fmj_step(r, l->n / 4);
    if (l->n > 0) memcpy(items, l->items, l->n * sizeof *items);
    return items;
}

/* A list of the attributes named in "a,b.c". */
static fmj_value sort_key(fmj_run *r, fmj_value v, fmj_value attribute, bool case_sensitive)
{
    fmj_vec keys = {0};
    if (attribute.kind != FMJ_STR) {
        fmj_vec_add(r, &keys, fold(r, get_path(r, v, attribute, FMJ_V_NONE), case_sensitive));
        return list_value(r, &keys);
    }
    const fmj_str *s = attribute.str;
    for (size_t from = 0; from <= s->n;) {
        const char *comma = from < s->n ? memchr(s->s + from, ',', s->n - from) : NULL;
        const size_t to = comma ? (size_t)(comma - s->s) : s->n;
        const fmj_value path = fmj_str_value(fmj_str_part(r, s, from, to - from));
        fmj_vec_add(r, &keys, fold(r, get_path(r, v, path, FMJ_V_NONE), case_sensitive));
        from = to + 1;
    }
    return list_value(r, &keys);
}

static fmj_value do_sort(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const fmj_list *l = fmj_items(r, v);
    fmj_value *items = copy_items(r, l);
    fmj_value *keys = fmj_alloc_array(r, l->n + 1, sizeof *keys);
    const bool case_sensitive = flag(r, arg[1], false);
    for (size_t i = 0; i < l->n; i++) keys[i] = sort_key(r, items[i], arg[2], case_sensitive);
    sort_by_keys(r, items, keys, l->n, flag(r, arg[0], false));
    return fmj_list_of(r, FMJ_LIST, items, l->n);
}

static fmj_value do_dictsort(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const bool case_sensitive = flag(r, arg[0], false);
    const bool by_value = arg[1].kind == FMJ_STR && fmj_str_is(arg[1].str, "value");
    if (arg[1].kind != FMJ_MISSING && !by_value &&
        !(arg[1].kind == FMJ_STR && fmj_str_is(arg[1].str, "key")))
        fmj_raise(r, "You can only sort by either \"key\" or \"value\"");
    if (v.kind == FMJ_UNDEFINED) fmj_raise_undefined(r, v.undefined);
    if (v.kind != FMJ_DICT) fmj_raise(r, "'%s' object has no attribute 'items'", fmj_type_name(v));
    const size_t n = v.dict->n;
    fmj_value *items = fmj_alloc_array(r, n + 1, sizeof *items);
    fmj_value *keys = fmj_alloc_array(r, n + 1, sizeof *keys);
    for (size_t i = 0; i < n; i++) {
        items[i] = fmj_pair(r, v.dict->keys[i], v.dict->values[i]);
        keys[i] = fold(r, by_value ? v.dict->values[i] : v.dict->keys[i], case_sensitive);
    }
    sort_by_keys(r, items, keys, n, flag(r, arg[2], false));
    return fmj_list_of(r, FMJ_LIST, items, n);
}

static fmj_value extreme(fmj_run *r, fmj_value v, const fmj_value *arg, bool wants_max)
{
    const fmj_list *l = fmj_items(r, v);
    if (l->n == 0) return fmj_undefined_hint(r, "No aggregated item, sequence was empty.");
    const bool case_sensitive = flag(r, arg[0], false);
    size_t best = 0;
    fmj_value best_key = fold(r, get_path(r, l->items[0], arg[1], FMJ_V_NONE), case_sensitive);
    for (size_t i = 1; i < l->n; i++) {
        const fmj_value key = fold(r, get_path(r, l->items[i], arg[1], FMJ_V_NONE), case_sensitive);
        if (!fmj_ordered(r, key, best_key, wants_max ? ">" : "<")) continue;
        best = i;
        best_key = key;
    }
    return l->items[best];
}

static fmj_value do_min(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return extreme(r, v, arg, false);
}

static fmj_value do_max(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    return extreme(r, v, arg, true);
}

static fmj_value do_unique(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const fmj_list *l = fmj_items(r, v);
    fmj_dict *seen = fmj_dict_new(r, 0);
    fmj_vec out = {0};
    for (size_t i = 0; i < l->n; i++) {
        const fmj_value key =
            fold(r, get_path(r, l->items[i], arg[1], FMJ_V_NONE), flag(r, arg[0], false));
        if (fmj_dict_get(r, seen, key)) continue;
        fmj_dict_set(r, seen, key, FMJ_V_NONE);
        fmj_vec_add(r, &out, l->items[i]);
    }
    return fmj_iterator_of(r, out.v, out.n);
}

static fmj_value do_groupby(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const fmj_list *l = fmj_items(r, v);
    fmj_value *items = copy_items(r, l);
    fmj_value *keys = fmj_alloc_array(r, l->n + 1, sizeof *keys);
    const bool case_sensitive = flag(r, arg[2], false);
    for (size_t i = 0; i < l->n; i++)
        keys[i] = fold(r, get_path(r, items[i], arg[0], arg[1]), case_sensitive);
    sort_by_keys(r, items, keys, l->n, false);
    fmj_vec out = {0};
    for (size_t from = 0, to; from < l->n; from = to) {
        for (to = from + 1; to < l->n && fmj_equal(r, keys[from], keys[to]);) to++;
        const fmj_value grouper =
            case_sensitive ? keys[from] : get_path(r, items[from], arg[0], arg[1]);
        fmj_value group = fmj_pair(r, grouper, fmj_list_of(r, FMJ_LIST, items + from, to - from));
        ((fmj_list *)group.list)->is_group = true;
        fmj_vec_add(r, &out, group);
    }
    return list_value(r, &out);
}

/* ---- picking ------------------------------------------------------------------------------------- */

static fmj_value do_first(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    if (v.kind == FMJ_ITERATOR && v.iterator->at < v.iterator->list->n)
        return v.iterator->list->items[v.iterator->at++];
    const fmj_list *l = fmj_items(r, v);
    if (l->n == 0) return fmj_undefined_hint(r, "No first item, sequence was empty.");
    return l->items[0];
}

static fmj_value do_last(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    if (v.kind == FMJ_ITERATOR || !fmj_is_iterable(v))
        fmj_raise(r, "'%s' object is not reversible", fmj_type_name(v));
    const fmj_list *l = fmj_items(r, v);
    if (l->n == 0) return fmj_undefined_hint(r, "No last item, sequence was empty.");
    return l->items[l->n - 1];
}

static fmj_value do_reverse(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    if (!fmj_is_iterable(v)) fmj_raise(r, "argument must be iterable");
    const fmj_list *l = fmj_items(r, v);
    if (v.kind == FMJ_STR) {
        fmj_buf b = {0};
        for (size_t i = l->n; i-- > 0;) fmj_buf_str(r, &b, l->items[i].str);
        return fmj_buf_value(r, &b);
    }
    fmj_value *items = fmj_alloc_array(r, l->n + 1, sizeof *items);
    fmj_step(r, l->n / 4);
    for (size_t i = 0; i < l->n; i++) items[i] = l->items[l->n - 1 - i];
    return v.kind == FMJ_ITERATOR ? fmj_list_of(r, FMJ_LIST, items, l->n)
                                  : fmj_iterator_of(r, items, l->n);
}

static fmj_value do_length(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    const int64_t n = fmj_len(r, v);
    if (n < 0) fmj_raise(r, "object of type '%s' has no len()", fmj_type_name(v));
    return fmj_int(n);
}

static fmj_value do_list(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    const fmj_list *l = fmj_items(r, v);
    return fmj_list_of(r, FMJ_LIST, l->items, l->n);
}

static fmj_value do_items(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    (void)arg;
    if (v.kind == FMJ_UNDEFINED) return fmj_iterator_of(r, NULL, 0);
    if (v.kind != FMJ_DICT) fmj_raise(r, "Can only get item pairs from a mapping.");
    fmj_value *items = fmj_alloc_array(r, v.dict->n + 1, sizeof *items);
    for (size_t i = 0; i < v.dict->n; i++)
        items[i] = fmj_pair(r, v.dict->keys[i], v.dict->values[i]);
    return fmj_iterator_of(r, items, v.dict->n);
}

static fmj_value do_attr(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    if (arg[0].kind != FMJ_STR)
        fmj_raise(r, "attribute name must be string, not '%s'", fmj_type_name(arg[0]));
    const fmj_value found = fmj_attribute(r, v, arg[0].str);
    return found.kind == FMJ_MISSING ? fmj_undefined_of(r, v, arg[0]) : found;
}

static fmj_value do_join(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const fmj_str *sep = arg[0].kind == FMJ_MISSING ? fmj_text(r, "").str : fmj_to_str(r, arg[0]);
    const fmj_list *l = fmj_items(r, v);
    fmj_buf b = {0};
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0) fmj_buf_str(r, &b, sep);
        fmj_buf_put(r, &b, get_path(r, l->items[i], arg[1], FMJ_V_NONE));
    }
    return fmj_buf_value(r, &b);
}

static fmj_value do_sum(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const fmj_list *l = fmj_items(r, v);
    fmj_value sum = arg[1].kind == FMJ_MISSING ? fmj_int(0) : arg[1];
    if (sum.kind == FMJ_STR) fmj_raise(r, "sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; i < l->n; i++)
        sum = fmj_arith(r, '+', sum, get_path(r, l->items[i], arg[0], FMJ_V_NONE));
    return sum;
}

/* ---- cutting ------------------------------------------------------------------------------------- */

static fmj_value do_batch(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const fmj_list *l = fmj_items(r, v);
    const bool is_number = fmj_is_number(arg[0]);
    fmj_vec out = {0}, part = {0};
    for (size_t i = 0; i < l->n; i++) {
        if (is_number && fmj_equal(r, fmj_int((int64_t)part.n), arg[0])) {
            fmj_vec_add(r, &out, list_value(r, &part));
            part = (fmj_vec){0};
        }
        fmj_vec_add(r, &part, l->items[i]);
    }
    if (part.n > 0) {
        const int64_t size = is_given(arg[1]) ? fmj_as_index(r, arg[0]) : 0;
        while ((int64_t)part.n < size) {
            fmj_step(r, 1);
            fmj_vec_add(r, &part, arg[1]);
        }
        fmj_vec_add(r, &out, list_value(r, &part));
    }
    return fmj_iterator_of(r, out.v, out.n);
}

static fmj_value do_slice(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    const fmj_list *l = fmj_items(r, v);
    const int64_t slices = fmj_as_index(r, arg[0]);
    if (slices == 0) fmj_raise(r, "integer division or modulo by zero");
    fmj_vec out = {0};
    size_t at = 0;
    for (int64_t i = 0; i < slices; i++) {
        const int64_t each = (int64_t)l->n / slices, extra = (int64_t)l->n % slices;
        const size_t n = (size_t)(each + (i < extra));
        fmj_vec part = {0};
        fmj_step(r, 1);
        for (size_t k = 0; k < n; k++) fmj_vec_add(r, &part, l->items[at + k]);
        at += n;
        if (is_given(arg[1]) && i >= extra) fmj_vec_add(r, &part, arg[1]);
        fmj_vec_add(r, &out, list_value(r, &part));
    }
    return fmj_iterator_of(r, out.v, out.n);
}

/* ---- map, select, reject ------------------------------------------------------------------------- */

static fmj_args without_first(const fmj_args *args, size_t n)
{
    fmj_args rest = *args;
    rest.pos += n;
    rest.n_pos -= n;
    return rest;
}

static fmj_value do_map(fmj_run *r, fmj_value v, const fmj_args *args)
{
    if (!fmj_truth(r, v)) return fmj_iterator_of(r, NULL, 0);
    fmj_value attribute = FMJ_V_MISSING, fallback = FMJ_V_NONE;
    for (size_t i = 0; args->n_pos == 0 && i < args->n_kw; i++)
        if (fmj_str_is(args->names[i], "attribute")) attribute = args->kw[i];
    for (size_t i = 0; attribute.kind != FMJ_MISSING && i < args->n_kw; i++) {
        if (fmj_str_is(args->names[i], "default")) {
            fallback = args->kw[i];
        } else if (!fmj_str_is(args->names[i], "attribute")) {
            fmj_raise(r, "Unexpected keyword argument '%.*s'", (int)args->names[i]->n,
                      args->names[i]->s);
        }
    }
    if (attribute.kind == FMJ_MISSING && args->n_pos == 0)
        fmj_raise(r, "map requires a filter argument");
    const fmj_list *l = fmj_items(r, v);
    fmj_value *out = fmj_alloc_array(r, l->n + 1, sizeof *out);
    const fmj_args rest = args->n_pos > 0 ? without_first(args, 1) : (fmj_args){0};
    for (size_t i = 0; i < l->n; i++) {
        fmj_step(r, 1);
        out[i] = attribute.kind != FMJ_MISSING
                     ? get_path(r, l->items[i], attribute, fallback)
                     : fmj_filter_by_name(r, args->pos[0], l->items[i], &rest);
    }
    return fmj_iterator_of(r, out, l->n);
}

static fmj_value pick(fmj_run *r, fmj_value v, const fmj_args *args, bool wanted, bool by_attribute)
{
    if (!fmj_truth(r, v)) return fmj_iterator_of(r, NULL, 0);
    if (by_attribute && args->n_pos == 0) fmj_raise(r, "Missing parameter for attribute name");
    const size_t first = by_attribute;
    const fmj_list *l = fmj_items(r, v);
    fmj_vec out = {0};
    const bool has_test = args->n_pos > first;
    const fmj_args rest = has_test ? without_first(args, first + 1) : (fmj_args){0};
    for (size_t i = 0; i < l->n; i++) {
        const fmj_value item =
            by_attribute ? get_path(r, l->items[i], args->pos[0], FMJ_V_NONE) : l->items[i];
        fmj_step(r, 1);
        const bool passes =
            has_test ? fmj_test_by_name(r, args->pos[first], item, &rest) : fmj_truth(r, item);
        if (passes == wanted) fmj_vec_add(r, &out, l->items[i]);
    }
    return fmj_iterator_of(r, out.v, out.n);
}

static fmj_value do_select(fmj_run *r, fmj_value v, const fmj_args *args)
{
    return pick(r, v, args, true, false);
}

static fmj_value do_reject(fmj_run *r, fmj_value v, const fmj_args *args)
{
    return pick(r, v, args, false, false);
}

static fmj_value do_selectattr(fmj_run *r, fmj_value v, const fmj_args *args)
{
    return pick(r, v, args, true, true);
}

static fmj_value do_rejectattr(fmj_run *r, fmj_value v, const fmj_args *args)
{
    return pick(r, v, args, false, true);
}

const fmj_filter fmj_filters_seq[] = {
    {"attr", "name", 1, do_attr, NULL},
    {"batch", "linecount,fill_with", 1, do_batch, NULL},
    {"count", "", 0, do_length, NULL},
    {"dictsort", "case_sensitive,by,reverse", 0, do_dictsort, NULL},
    {"first", "", 0, do_first, NULL},
    {"groupby", "attribute,default,case_sensitive", 1, do_groupby, NULL},
    {"items", "", 0, do_items, NULL},
    {"join", "d,attribute", 0, do_join, NULL},
    {"last", "", 0, do_last, NULL},
    {"length", "", 0, do_length, NULL},
    {"list", "", 0, do_list, NULL},
    {"map", NULL, 0, NULL, do_map},
    {"max", "case_sensitive,attribute", 0, do_max, NULL},
    {"min", "case_sensitive,attribute", 0, do_min, NULL},
    {"reject", NULL, 0, NULL, do_reject},
    {"rejectattr", NULL, 0, NULL, do_rejectattr},
    {"reverse", "", 0, do_reverse, NULL},
    {"select", NULL, 0, NULL, do_select},
    {"selectattr", NULL, 0, NULL, do_selectattr},
    {"slice", "slices,fill_with", 1, do_slice, NULL},
    {"sort", "reverse,case_sensitive,attribute", 0, do_sort, NULL},
    {"sum", "attribute,start", 0, do_sum, NULL},
    {"unique", "case_sensitive,attribute", 0, do_unique, NULL},
    {NULL, NULL, 0, NULL, NULL},
};
