/* Expressions to values. */
#include "chat/jinja_syntax.h"

#include <stdio.h>
#include <string.h>

static const fmj_frame *frame_at(const fmj_run *r, int32_t hops)
{
    const fmj_frame *f = r->frame;
    for (; hops > 0; hops--) f = f->up;
    return f;
}

static fmj_value eval_name(fmj_run *r, const fmj_node *n)
{
    const fmj_value v = frame_at(r, n->hops)->slots[n->slot];
    return v.kind == FMJ_MISSING ? fmj_undefined_name(r, n->value.str) : v;
}

static fmj_value *eval_list(fmj_run *r, const fmj_nodes *list)
{
    fmj_value *v = fmj_alloc_array(r, list->n + 1, sizeof *v);
    for (size_t i = 0; i < list->n; i++) v[i] = fmj_eval(r, list->v[i]);
    return v;
}

static fmj_value eval_dict(fmj_run *r, const fmj_node *n)
{
    fmj_dict *d = fmj_dict_new(r, n->list.n / 2);
    for (size_t i = 0; i + 1 < n->list.n; i += 2) {
        const fmj_value key = fmj_eval(r, n->list.v[i]);
        fmj_dict_set(r, d, key, fmj_eval(r, n->list.v[i + 1]));
    }
    return (fmj_value){.kind = FMJ_DICT, .dict = d};
}

static fmj_value eval_or_none(fmj_run *r, const fmj_node *n)
{
    return n ? fmj_eval(r, n) : FMJ_V_NONE;
}

static fmj_value eval_item(fmj_run *r, const fmj_node *n)
{
    const fmj_value obj = fmj_eval(r, n->a);
    const fmj_node *key = n->b;
    if (key->kind != NODE_SLICE) {
        const fmj_value k = fmj_eval(r, key);
        r->line = n->line;
        return fmj_getitem(r, obj, k);
    }
    const fmj_value start = eval_or_none(r, key->a);
    const fmj_value stop = eval_or_none(r, key->b);
    const fmj_value step = eval_or_none(r, key->c);
    r->line = n->line;
    return fmj_slice(r, obj, start, stop, step);
}

/* ---- calls --------------------------------------------------------------------------------------- */

typedef struct {
    const fmj_str **names;
    fmj_value *values;
    size_t n;
} keywords;

static void add_keyword(fmj_run *r, keywords *k, const fmj_str *name, fmj_value value)
{
    fmj_step_names(r, k->n, name);
    for (size_t i = 0; i < k->n; i++)
        if (fmj_str_equal(k->names[i], name))
            fmj_raise(r, "got multiple values for keyword argument '%.*s'", (int)name->n, name->s);
    k->names[k->n] = name;
    k->values[k->n++] = value;
}

void fmj_eval_args(fmj_run *r, const fmj_node *n, fmj_args *out, const fmj_value *caller)
{
    fmj_vec pos = {0};
    for (size_t i = 0; i < n->list.n; i++) fmj_vec_add(r, &pos, fmj_eval(r, n->list.v[i]));
    fmj_value *kw = eval_list(r, &n->kw);
    if (n->dyn_args) {
        const fmj_list *more = fmj_items(r, fmj_eval(r, n->dyn_args));
        for (size_t i = 0; i < more->n; i++) fmj_vec_add(r, &pos, more->items[i]);
    }
    *out =
        (fmj_args){.pos = pos.v, .n_pos = pos.n, .names = n->kw_names, .kw = kw, .n_kw = n->kw.n};
    if (!n->dyn_kwargs && !caller) return;

    fmj_value more = FMJ_V_MISSING;
    if (n->dyn_kwargs) more = fmj_eval(r, n->dyn_kwargs);
    if (n->dyn_kwargs && more.kind != FMJ_DICT)
        fmj_raise(r, "argument after ** must be a mapping, not %s", fmj_type_name(more));
    const size_t n_more = n->dyn_kwargs ? more.dict->n : 0;
    keywords all = {.names = fmj_alloc_array(r, n->kw.n + n_more + 1, sizeof *all.names),
                    .values = fmj_alloc_array(r, n->kw.n + n_more + 1, sizeof *all.values)};
    for (size_t i = 0; i < n->kw.n; i++) add_keyword(r, &all, n->kw_names[i], kw[i]);
    if (caller) add_keyword(r, &all, fmj_str_over(r, "caller", 6, true), *caller);
    for (size_t i = 0; i < n_more; i++) {
        if (more.dict->keys[i].kind != FMJ_STR) fmj_raise(r, "keywords must be strings");
        add_keyword(r, &all, more.dict->keys[i].str, more.dict->values[i]);
    }
    out->names = all.names;
    out->kw = all.values;
    out->n_kw = all.n;
}

static fmj_value eval_call(fmj_run *r, const fmj_node *n)
{
    const fmj_value f = fmj_eval(r, n->a);
    fmj_args args;
    fmj_eval_args(r, n, &args, NULL);
    r->line = n->line;
    return fmj_call(r, f, &args);
}

fmj_value fmj_apply_filter(fmj_run *r, const fmj_node *n, fmj_value v)
{
    if (n->a) v = n->a->kind == NODE_FILTER ? fmj_apply_filter(r, n->a, v) : fmj_eval(r, n->a);
    fmj_args args;
    r->line = n->line;
    if (n->index < 0)
        fmj_raise(r, "No filter named '%.*s' found.", (int)n->value.str->n, n->value.str->s);
    fmj_eval_args(r, n, &args, NULL);
    r->line = n->line;
    return fmj_filter_call(r, n->index, v, &args);
}

static fmj_value eval_test(fmj_run *r, const fmj_node *n)
{
    const fmj_value v = fmj_eval(r, n->a);
    fmj_args args;
    r->line = n->line;
    if (n->index < 0)
        fmj_raise(r, "No test named '%.*s' found.", (int)n->value.str->n, n->value.str->s);
    fmj_eval_args(r, n, &args, NULL);
    r->line = n->line;
    return fmj_bool(fmj_test_call(r, n->index, v, &args));
}

/* ---- operators ----------------------------------------------------------------------------------- */

static bool compare(fmj_run *r, const char *op, fmj_value a, fmj_value b)
{
    switch (op[0]) {
    case '=':
        return fmj_equal(r, a, b);
    case '!':
        return !fmj_equal(r, a, b);
    case 'i':
        return fmj_contains(r, b, a);
    case 'n':
        return !fmj_contains(r, b, a);
    default:
        return fmj_ordered(r, a, b, op);
    }
}

static fmj_value eval_compare(fmj_run *r, const fmj_node *n)
{
    fmj_value left = fmj_eval(r, n->a);
    for (size_t i = 0; i < n->list.n; i++) {
        const fmj_value right = fmj_eval(r, n->list.v[i]);
        r->line = n->line;
        if (!compare(r, n->ops[i], left, right)) return fmj_bool(false);
        left = right;
    }
    return fmj_bool(true);
}

static fmj_value eval_concat(fmj_run *r, const fmj_node *n)
{
    fmj_buf b = {0};
    const fmj_value *parts = eval_list(r, &n->list);
    for (size_t i = 0; i < n->list.n; i++) fmj_buf_put(r, &b, parts[i]);
    return fmj_buf_value(r, &b);
}

static fmj_value eval_choice(fmj_run *r, const fmj_node *n)
{
    if (fmj_truth(r, fmj_eval(r, n->b))) return fmj_eval(r, n->a);
    if (n->c) return fmj_eval(r, n->c);
    enum { HINT_MAX = 120 };
    char *hint = fmj_alloc(r, HINT_MAX);
    snprintf(hint, HINT_MAX,
             "the inline if-expression on line %d evaluated to false and no else section was "
             "defined.",
             (int)n->line);
    return fmj_undefined_hint(r, hint);
}

static fmj_value eval_arith(fmj_run *r, const fmj_node *n)
{
    const fmj_value a = fmj_eval(r, n->a);
    const fmj_value b = fmj_eval(r, n->b);
    r->line = n->line;
    return fmj_arith(r, n->ops[0][0], a, b);
}

static fmj_value eval_logic(fmj_run *r, const fmj_node *n)
{
    const fmj_value left = fmj_eval(r, n->a);
    const bool is_decided = fmj_truth(r, left) == (n->kind == NODE_OR);
    return is_decided ? left : fmj_eval(r, n->b);
}

static fmj_value eval_node(fmj_run *r, const fmj_node *n)
{
    fmj_value v;
    switch (n->kind) {
    case NODE_CONST:
        return n->value;
    case NODE_NAME:
        return eval_name(r, n);
    case NODE_TUPLE:
        return fmj_list_of(r, FMJ_TUPLE, eval_list(r, &n->list), n->list.n);
    case NODE_LIST:
        return fmj_list_of(r, FMJ_LIST, eval_list(r, &n->list), n->list.n);
    case NODE_DICT:
        return eval_dict(r, n);
    case NODE_GETATTR:
        v = fmj_eval(r, n->a);
        r->line = n->line;
        return fmj_getattr(r, v, n->value.str);
    case NODE_GETITEM:
        return eval_item(r, n);
    case NODE_CALL:
        return eval_call(r, n);
    case NODE_FILTER:
        return fmj_apply_filter(r, n, FMJ_V_NONE);
    case NODE_TEST:
        return eval_test(r, n);
    case NODE_AND:
    case NODE_OR:
        return eval_logic(r, n);
    case NODE_NOT:
        return fmj_bool(!fmj_truth(r, fmj_eval(r, n->a)));
    case NODE_COMPARE:
        return eval_compare(r, n);
    case NODE_ARITH:
        return eval_arith(r, n);
    case NODE_NEG:
        v = fmj_eval(r, n->a);
        r->line = n->line;
        return fmj_negate(r, v);
    case NODE_POS:
        v = fmj_eval(r, n->a);
        r->line = n->line;
        return fmj_plus(r, v);
    case NODE_CONCAT:
        return eval_concat(r, n);
    case NODE_IF_EXPR:
        return eval_choice(r, n);
    default:
        fmj_fail(r, FM_E_FORMAT, "this is no expression");
    }
}

fmj_value fmj_eval(fmj_run *r, const fmj_node *n)
{
    fmj_enter(r);
    fmj_step(r, 1);
    r->line = n->line;
    const fmj_value v = eval_node(r, n);
    fmj_leave(r);
    return v;
}
