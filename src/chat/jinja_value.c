/* Strings, lists, dicts: made and looked into. */
#include "chat/jinja_value.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"

static size_t count_chars(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

const fmj_str *fmj_str_over(fmj_run *r, const char *s, size_t n, bool is_trusted)
{
    fmj_str *str = fmj_alloc(r, sizeof *str);
    fmj_step(r, n / 64);
    *str = (fmj_str){.s = s, .n = n, .n_char = count_chars(s, n), .is_trusted = is_trusted};
    return str;
}

fmj_value fmj_text(fmj_run *r, const char *literal)
{
    return fmj_str_value(fmj_str_over(r, literal, strlen(literal), false));
}

const fmj_str *fmj_str_part(fmj_run *r, const fmj_str *s, size_t at, size_t n)
{
    if (n == s->n) return s;
    fmj_str *part = fmj_alloc(r, sizeof *part);
    *part = *s;
    part->s += at;
    part->n = n;
    part->n_char = s->n_char == s->n ? n : count_chars(part->s, n);
    if (s->trust) part->trust += at;
    fmj_step(r, n / 64);
    return part;
}

bool fmj_str_is(const fmj_str *s, const char *literal)
{
    return strlen(literal) == s->n && memcmp(s->s, literal, s->n) == 0;
}

bool fmj_str_equal(const fmj_str *a, const fmj_str *b)
{
    return a->n == b->n && memcmp(a->s, b->s, a->n) == 0;
}

size_t fmj_str_offset(fmj_run *r, const fmj_str *s, size_t i)
{
    if (fmj_str_is_ascii(s)) return i;
    if (i >= s->n_char) return s->n;
    size_t at = 0;
    for (size_t seen = 0; at < s->n; at++) {
        const bool is_start = ((unsigned char)s->s[at] & 0xC0) != 0x80;
        if (is_start && seen++ == i) break;
    }
    fmj_step(r, at / 64);
    return at;
}

/* ---- sequences ----------------------------------------------------------------------------------- */

fmj_value fmj_list_of(fmj_run *r, fmj_kind kind, fmj_value *items, size_t n)
{
    fmj_list *l = fmj_alloc(r, sizeof *l);
    *l = (fmj_list){.items = items, .n = n};
    return (fmj_value){.kind = kind, .list = l};
}

fmj_value fmj_pair(fmj_run *r, fmj_value a, fmj_value b)
{
    fmj_value *items = fmj_alloc_array(r, 2, sizeof *items);
    items[0] = a;
    items[1] = b;
    return fmj_list_of(r, FMJ_TUPLE, items, 2);
}

fmj_value fmj_iterator_of(fmj_run *r, fmj_value *items, size_t n)
{
    fmj_iterator *it = fmj_alloc(r, sizeof *it);
    *it = (fmj_iterator){.list = fmj_list_of(r, FMJ_LIST, items, n).list};
    return (fmj_value){.kind = FMJ_ITERATOR, .iterator = it};
}

void fmj_vec_add(fmj_run *r, fmj_vec *vec, fmj_value v)
{
    if (vec->n == vec->cap) {
        const size_t cap = vec->cap ? 2 * vec->cap : 8;
        fmj_value *grown = fmj_alloc_array(r, cap, sizeof *grown);
        if (vec->n > 0) memcpy(grown, vec->v, vec->n * sizeof *grown);
        vec->v = grown;
        vec->cap = cap;
    }
    vec->v[vec->n++] = v;
}

/* ---- undefined ----------------------------------------------------------------------------------- */

static fmj_value make_undefined(fmj_run *r, fmj_undefined u)
{
    fmj_undefined *p = fmj_alloc(r, sizeof *p);
    *p = u;
    return (fmj_value){.kind = FMJ_UNDEFINED, .undefined = p};
}

fmj_value fmj_undefined_name(fmj_run *r, const fmj_str *name)
{
    return make_undefined(r, (fmj_undefined){.name = fmj_str_value(name)});
}

fmj_value fmj_undefined_of(fmj_run *r, fmj_value owner, fmj_value name)
{
    return make_undefined(r, (fmj_undefined){.owner = owner, .name = name});
}

fmj_value fmj_undefined_hint(fmj_run *r, const char *hint)
{
    return make_undefined(r, (fmj_undefined){.hint = hint});
}

void fmj_raise_undefined(fmj_run *r, const fmj_undefined *u)
{
    if (u->hint) fmj_raise(r, "%s", u->hint);
    fmj_buf b = {0};
    fmj_buf_repr(r, &b, u->name);
    const int n = b.n > 200 ? 200 : (int)b.n;
    if (u->owner.kind == FMJ_MISSING) fmj_raise(r, "%.*s is undefined", n, b.s);
    const char *type = fmj_type_name(u->owner);
    const char *object = u->owner.kind == FMJ_NONE ? "" : " object";
    if (u->owner.kind == FMJ_NONE) type = "None";
    if (u->name.kind != FMJ_STR) fmj_raise(r, "%s%s has no element %.*s", type, object, n, b.s);
    fmj_raise(r, "'%s%s' has no attribute %.*s", type, object, n, b.s);
}

/* ---- dicts --------------------------------------------------------------------------------------- */

enum { SMALL_DICT = 8 };

static uint64_t hash_value(fmj_run *r, fmj_value v)
{
    switch (v.kind) {
    case FMJ_STR:
        fmj_step(r, v.str->n / 64);
        return fm_fnv1a(FM_FNV1A_INIT, v.str->s, v.str->n);
    case FMJ_NONE:
    case FMJ_UNDEFINED:
        return v.kind;
    case FMJ_BOOL:
    case FMJ_INT:
    case FMJ_FLOAT: {
        const double d = fmj_as_double(v); /* 1, 1.0 and True are one key */
        const double whole = floor(d);
        const uint64_t u = whole == d && fabs(d) < 1e15 ? (uint64_t)(int64_t)d : (uint64_t)v.i;
        return u * 0x9e3779b97f4a7c15u;
    }
    case FMJ_TUPLE: {
        uint64_t h = 7;
        fmj_enter(r);
        fmj_step(r, v.list->n); /* one tuple may be the items of another many times over */
        for (size_t i = 0; i < v.list->n; i++) h = h * 31 + hash_value(r, v.list->items[i]);
        fmj_leave(r);
        return h;
    }
    case FMJ_RANGE:
        return v.range->n;
    case FMJ_MISSING:
    case FMJ_LIST:
    case FMJ_DICT:
    case FMJ_VIEW:
        fmj_raise(r, "unhashable type: '%s'", fmj_type_name(v));
    case FMJ_ITERATOR:
    case FMJ_NAMESPACE:
    case FMJ_MACRO:
    case FMJ_BUILTIN:
    case FMJ_METHOD:
    case FMJ_LOOP:
    case FMJ_CYCLER:
    case FMJ_JOINER:
        break;
    }
    return 1;
}

fmj_dict *fmj_dict_new(fmj_run *r, size_t n_expected)
{
    fmj_dict *d = fmj_alloc(r, sizeof *d);
    *d = (fmj_dict){.cap = n_expected > 0 ? n_expected : 4};
    d->keys = fmj_alloc_array(r, d->cap, sizeof *d->keys);
    d->values = fmj_alloc_array(r, d->cap, sizeof *d->values);
    return d;
}

/* The place of the key in the index: that of its entry, or a free one. */
static size_t index_place(fmj_run *r, const fmj_dict *d, fmj_value key, uint64_t hash)
{
    const size_t mask = d->n_index - 1;
    size_t at = (size_t)(hash ^ (hash >> 32)) & mask;
    while (d->index[at] != 0 && !fmj_equal(r, d->keys[d->index[at] - 1], key)) {
        fmj_step(r, 1); /* keys may be chosen to collide */
        at = (at + 1) & mask;
    }
    return at;
}

static size_t find_entry(fmj_run *r, const fmj_dict *d, fmj_value key)
{
    if (d->index) {
        const size_t at = index_place(r, d, key, hash_value(r, key));
        return d->index[at] != 0 ? d->index[at] - 1 : SIZE_MAX;
    }
    if (key.kind != FMJ_STR) hash_value(r, key); /* raises for what cannot be a key */
    if (key.kind == FMJ_STR) fmj_step(r, key.str->n / 64);
    for (size_t i = 0; i < d->n; i++) {
        const fmj_value k = d->keys[i];
        if (k.kind == FMJ_STR && key.kind == FMJ_STR) {
            if (fmj_str_equal(k.str, key.str)) return i;
        } else if (fmj_equal(r, k, key)) {
            return i;
        }
    }
    return SIZE_MAX;
}

static void build_index(fmj_run *r, fmj_dict *d)
{
    size_t n = 32;
    while (n < 4 * d->cap) n *= 2;
    d->index = fmj_alloc_array(r, n, sizeof *d->index);
    memset(d->index, 0, n * sizeof *d->index);
    d->n_index = n;
    for (size_t i = 0; i < d->n; i++)
        d->index[index_place(r, d, d->keys[i], hash_value(r, d->keys[i]))] = (uint32_t)i + 1;
}

void fmj_dict_set(fmj_run *r, fmj_dict *d, fmj_value key, fmj_value value)
{
    fmj_step(r, 1);
    const size_t found = find_entry(r, d, key);
    if (found != SIZE_MAX) {
        d->values[found] = value;
        return;
    }
    if (d->n == d->cap) {
        const size_t cap = 2 * d->cap;
        fmj_value *keys = fmj_alloc_array(r, cap, sizeof *keys);
        fmj_value *values = fmj_alloc_array(r, cap, sizeof *values);
        memcpy(keys, d->keys, d->n * sizeof *keys);
        memcpy(values, d->values, d->n * sizeof *values);
        d->keys = keys;
        d->values = values;
        d->cap = cap;
        d->index = NULL;
    }
    d->keys[d->n] = key;
    d->values[d->n] = value;
    d->n++;
    if (d->n > UINT32_MAX / 8) fmj_fail(r, FM_E_LIMIT, "a dict has more than %zu keys", d->n);
    if (d->index) {
        d->index[index_place(r, d, key, hash_value(r, key))] = (uint32_t)d->n;
    } else if (d->n > SMALL_DICT) {
        build_index(r, d);
    }
}

const fmj_value *fmj_dict_get(fmj_run *r, const fmj_dict *d, fmj_value key)
{
    const size_t i = find_entry(r, d, key);
    return i == SIZE_MAX ? NULL : &d->values[i];
}

fmj_value fmj_method_of(fmj_run *r, fmj_value self, const char *name)
{
    fmj_method *m = fmj_alloc(r, sizeof *m);
    *m = (fmj_method){.self = self, .name = name};
    return (fmj_value){.kind = FMJ_METHOD, .method = m};
}
