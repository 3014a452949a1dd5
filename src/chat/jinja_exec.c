/* Statements: frames, loops, macros. */
#include "chat/jinja_syntax.h"

#include <string.h>

/* ---- frames -------------------------------------------------------------------------------------- */

void fmj_frame_load(fmj_run *r, fmj_frame *f, const fmj_scope *scope)
{
    fmj_step(r, (uint64_t)scope->n / 4);
    for (int32_t i = 0; i < scope->n; i++) {
        const fmj_load *l = &scope->loads[i];
        const fmj_frame *from = f;
        switch (l->kind) {
        case LOAD_PARAMETER:
            break;
        case LOAD_UNDEFINED:
            f->slots[i] = FMJ_V_MISSING;
            break;
        case LOAD_RESOLVE:
            f->slots[i] = r->context[l->name];
            break;
        case LOAD_ALIAS:
            for (int32_t k = 0; k < l->hops; k++) from = from->up;
            f->slots[i] = from->slots[l->slot];
            break;
        }
    }
}

fmj_frame *fmj_frame_enter(fmj_run *r, const fmj_scope *scope, fmj_frame *up)
{
    fmj_frame *f = fmj_alloc(r, sizeof *f);
    f->up = up;
    f->slots = fmj_alloc_array(r, (size_t)scope->n + 1, sizeof *f->slots);
    for (int32_t i = 0; i < scope->n; i++) f->slots[i] = FMJ_V_MISSING;
    fmj_frame_load(r, f, scope);
    return f;
}

static fmj_frame *frame_at(fmj_run *r, int32_t hops)
{
    fmj_frame *f = r->frame;
    for (; hops > 0; hops--) f = f->up;
    return f;
}

static void assign_attribute(fmj_run *r, const fmj_node *ref, fmj_value v)
{
    const fmj_value ns = fmj_eval(r, ref->a);
    r->line = ref->line;
    if (ns.kind != FMJ_NAMESPACE) fmj_raise(r, "cannot assign attribute on non-namespace object");
    const fmj_str *name = ref->value.str;
    if (name->s[0] == '_')
        fmj_raise(r,
                  "Chat templates cannot store underscore-prefixed attributes on a namespace, but "
                  "got '%.*s'. Please rename the attribute.",
                  (int)name->n, name->s);
    fmj_dict_set(r, ns.dict, ref->value, v);
}

void fmj_assign(fmj_run *r, const fmj_node *target, fmj_value v)
{
    if (target->kind == NODE_NAME) {
        frame_at(r, target->hops)->slots[target->slot] = v;
        return;
    }
    if (target->kind == NODE_NSREF) {
        assign_attribute(r, target, v);
        return;
    }
    r->line = target->line;
    if (!fmj_is_iterable(v)) fmj_raise(r, "cannot unpack non-iterable %s object", fmj_type_name(v));
    const fmj_list *items = fmj_items(r, v);
    const size_t n = target->list.n;
    if (items->n > n) fmj_raise(r, "too many values to unpack (expected %zu)", n);
    if (items->n < n)
        fmj_raise(r, "not enough values to unpack (expected %zu, got %zu)", n, items->n);
    fmj_enter(r);
    for (size_t i = 0; i < n; i++) fmj_assign(r, target->list.v[i], items->items[i]);
    fmj_leave(r);
}

/* Statements in a frame of their own, with their output as a string; *flow is how they ended. */
static fmj_value capture(fmj_run *r, const fmj_nodes *body, fmj_frame *frame, fmj_flow *flow)
{
    fmj_frame *outer = r->frame;
    fmj_buf *out = r->out;
    fmj_buf b = {0};
    r->frame = frame;
    r->out = &b;
    *flow = fmj_exec(r, body);
    r->out = out;
    r->frame = outer;
    return fmj_buf_value(r, &b);
}

/* ---- loops --------------------------------------------------------------------------------------- */

static size_t source_size(const fmj_source *s)
{
    return s->range ? s->range->n : s->items->n;
}

/* The next item that passes the loop's test; MISSING at the end. */
static fmj_value next_item(fmj_run *r, fmj_source *s)
{
    while (s->at < source_size(s)) {
        fmj_value v;
        if (s->range) {
            v = fmj_int(fmj_range_at(s->range, s->at));
        } else {
            v = s->items->items[s->at];
        }
        s->at++;
        if (!s->node) return v;
        fmj_frame *outer = r->frame;
        r->frame = s->test_frame;
        fmj_frame_load(r, s->test_frame, s->node->test_scope);
        fmj_assign(r, s->node->a, v); /* the same slots as in the body's frame */
        const bool passes = fmj_truth(r, fmj_eval(r, s->node->c));
        r->frame = outer;
        if (passes) return v;
    }
    return FMJ_V_MISSING;
}

static int64_t loop_length(fmj_run *r, fmj_loop *l)
{
    if (l->length >= 0) return l->length;
    if (!l->source.node) {
        l->length = (int64_t)source_size(&l->source);
        return l->length;
    }
    fmj_vec rest = {0};
    for (fmj_value v = next_item(r, &l->source); v.kind != FMJ_MISSING;
         v = next_item(r, &l->source))
        fmj_vec_add(r, &rest, v);
    l->source = (fmj_source){.items = fmj_list_of(r, FMJ_LIST, rest.v, rest.n).list};
    l->length = (int64_t)rest.n + l->index0 + 1 + (l->after.kind != FMJ_MISSING);
    return l->length;
}

static fmj_value peek(fmj_run *r, fmj_loop *l)
{
    if (l->after.kind == FMJ_MISSING) l->after = next_item(r, &l->source);
    return l->after;
}

fmj_value fmj_loop_attribute(fmj_run *r, fmj_loop *l, const fmj_str *name)
{
    if (fmj_str_is(name, "index")) return fmj_int(l->index0 + 1);
    if (fmj_str_is(name, "index0")) return fmj_int(l->index0);
    if (fmj_str_is(name, "first")) return fmj_bool(l->index0 == 0);
    if (fmj_str_is(name, "last")) return fmj_bool(peek(r, l).kind == FMJ_MISSING);
    if (fmj_str_is(name, "length")) return fmj_int(loop_length(r, l));
    if (fmj_str_is(name, "revindex")) return fmj_int(loop_length(r, l) - l->index0);
    if (fmj_str_is(name, "revindex0")) return fmj_int(loop_length(r, l) - l->index0 - 1);
    if (fmj_str_is(name, "depth")) return fmj_int(l->depth0 + 1);
    if (fmj_str_is(name, "depth0")) return fmj_int(l->depth0);
    if (fmj_str_is(name, "previtem"))
        return l->index0 == 0 ? fmj_undefined_hint(r, "there is no previous item") : l->before;
    if (fmj_str_is(name, "nextitem"))
        return peek(r, l).kind == FMJ_MISSING ? fmj_undefined_hint(r, "there is no next item")
                                              : l->after;
    const fmj_value self = {.kind = FMJ_LOOP, .loop = l};
    if (fmj_str_is(name, "cycle")) return fmj_method_of(r, self, "cycle");
    if (fmj_str_is(name, "changed")) return fmj_method_of(r, self, "changed");
    return FMJ_V_MISSING;
}

static fmj_flow loop_turns(fmj_run *r, const fmj_node *n, fmj_loop *l, fmj_frame *frame,
                           bool *is_complete)
{
    for (;;) {
        const fmj_value v = l->after.kind != FMJ_MISSING ? l->after : next_item(r, &l->source);
        if (v.kind == FMJ_MISSING) return FMJ_NEXT;
        fmj_step(r, 1);
        l->after = FMJ_V_MISSING;
        l->index0++;
        l->before = l->current;
        l->current = v;
        r->frame = frame;
        if (n->has_loop) frame->slots[n->loop_slot] = (fmj_value){.kind = FMJ_LOOP, .loop = l};
        fmj_assign(r, n->a, v);
        fmj_frame_load(r, frame, n->scope);
        const fmj_flow flow = fmj_exec(r, &n->body);
        if (flow == FMJ_BREAK) return FMJ_NEXT;
        if (flow == FMJ_NEXT) *is_complete = true;
    }
}

/* One loop over `iterable`, standing in frame `up`. Returns how its else branch ended. */
static fmj_flow run_loop(fmj_run *r, const fmj_node *n, fmj_value iterable, fmj_frame *up,
                         int64_t depth0)
{
    fmj_frame *outer = r->frame;
    fmj_loop *l = fmj_alloc(r, sizeof *l);
    const bool is_range = iterable.kind == FMJ_RANGE; /* long ones are not made into lists */
    *l = (fmj_loop){.source = {.items = is_range ? NULL : fmj_items(r, iterable),
                               .range = is_range ? iterable.range : NULL},
                    .index0 = -1,
                    .depth0 = depth0,
                    .length = -1,
                    .node = n,
                    .up = up};
    if (n->c) {
        l->source.node = n;
        l->source.test_frame = fmj_frame_enter(r, n->test_scope, up);
    }
    /* jinja2 asks for `else` whether a turn came to the end of the body. */
    bool is_complete = false;
    fmj_frame *frame = fmj_frame_enter(r, n->scope, up);
    loop_turns(r, n, l, frame, &is_complete);
    fmj_flow flow = FMJ_NEXT;
    if (!is_complete && n->else_.n > 0) {
        r->frame = fmj_frame_enter(r, n->else_scope, up);
        flow = fmj_exec(r, &n->else_);
    }
    r->frame = outer;
    return flow;
}

static fmj_value recursive_loop(fmj_run *r, const fmj_node *n, fmj_value iterable, fmj_frame *up,
                                int64_t depth0)
{
    fmj_buf *out = r->out;
    fmj_buf b = {0};
    r->out = &b;
    run_loop(r, n, iterable, up, depth0);
    r->out = out;
    return fmj_buf_value(r, &b);
}

fmj_value fmj_loop_call(fmj_run *r, fmj_loop *l, const fmj_args *args)
{
    fmj_value arg[FMJ_PARAMS_MAX];
    fmj_bind(r, "loop", "iterable", 1, args, arg);
    if (!l->node->is_recursive)
        fmj_raise(r, "The loop must have the 'recursive' marker to be called recursively.");
    fmj_enter(r);
    const fmj_value v = recursive_loop(r, l->node, arg[0], l->up, l->depth0 + 1);
    fmj_leave(r);
    return v;
}

static fmj_flow exec_for(fmj_run *r, const fmj_node *n)
{
    const fmj_value iterable = fmj_eval(r, n->b);
    r->line = n->line;
    if (!n->is_recursive) return run_loop(r, n, iterable, r->frame, 0);
    fmj_buf_put(r, r->out, recursive_loop(r, n, iterable, r->frame, 0));
    return FMJ_NEXT;
}

/* ---- macros -------------------------------------------------------------------------------------- */

static fmj_value keyword(fmj_run *r, const fmj_args *args, const fmj_str *name, bool *used)
{
    fmj_step_names(r, args->n_kw, name);
    for (size_t i = 0; i < args->n_kw; i++) {
        if (!fmj_str_equal(args->names[i], name)) continue;
        used[i] = true;
        return args->kw[i];
    }
    return FMJ_V_MISSING;
}

static fmj_value rest_of_keywords(fmj_run *r, const fmj_args *args, const bool *used)
{
    fmj_dict *d = fmj_dict_new(r, args->n_kw);
    for (size_t i = 0; i < args->n_kw; i++)
        if (!used[i]) fmj_dict_set(r, d, fmj_str_value(args->names[i]), args->kw[i]);
    return (fmj_value){.kind = FMJ_DICT, .dict = d};
}

static void check_arguments(fmj_run *r, const fmj_macro *m, const fmj_args *args, const bool *used)
{
    const fmj_node *n = m->node;
    for (size_t i = 0; i < args->n_kw && n->kwargs_slot < 0; i++) {
        if (used[i]) continue;
        if (fmj_str_is(args->names[i], "caller"))
            fmj_raise(r,
                      "macro '%s' was invoked with two values for the special caller argument. "
                      "This is most likely a bug.",
                      m->name);
        fmj_raise(r, "macro '%s' takes no keyword argument '%.*s'", m->name, (int)args->names[i]->n,
                  args->names[i]->s);
    }
    if (args->n_pos > n->list.n && n->varargs_slot < 0)
        fmj_raise(r, "macro '%s' takes not more than %zu argument(s)", m->name, n->list.n);
}

/* The hint of a parameter that was not given. */
static fmj_value parameter_missing(fmj_run *r, const fmj_str *name)
{
    fmj_buf b = {0};
    fmj_buf_text(r, &b, "parameter '");
    fmj_buf_str(r, &b, name);
    fmj_buf_add(r, &b, "' was not provided", sizeof "' was not provided", false);
    return fmj_undefined_hint(r, b.s);
}

static void fill_special(fmj_run *r, const fmj_macro *m, const fmj_args *args, bool *used,
                         bool found_caller, fmj_frame *f)
{
    const fmj_node *n = m->node;
    if (n->caller_slot >= 0 && !found_caller) {
        const fmj_value caller = keyword(r, args, fmj_str_over(r, "caller", 6, true), used);
        const bool is_given = caller.kind != FMJ_MISSING && caller.kind != FMJ_NONE;
        f->slots[n->caller_slot] = is_given ? caller : fmj_undefined_hint(r, "No caller defined");
    }
    if (n->kwargs_slot >= 0) f->slots[n->kwargs_slot] = rest_of_keywords(r, args, used);
    check_arguments(r, m, args, used);
    if (n->varargs_slot >= 0) {
        const size_t n_own = args->n_pos < n->list.n ? args->n_pos : n->list.n;
        f->slots[n->varargs_slot] =
            fmj_list_of(r, FMJ_TUPLE, (fmj_value *)args->pos + n_own, args->n_pos - n_own);
    }
}

fmj_value fmj_macro_call(fmj_run *r, const fmj_macro *m, const fmj_args *args)
{
    const fmj_node *n = m->node;
    bool *used = fmj_alloc(r, args->n_kw + 1);
    memset(used, 0, args->n_kw + 1);
    fmj_enter(r);
    fmj_frame *f = fmj_frame_enter(r, n->scope, m->frame);
    bool found_caller = args->n_pos >= n->list.n && n->has_explicit_caller;
    for (size_t i = 0; i < n->list.n; i++) {
        const fmj_node *p = n->list.v[i];
        if (i >= args->n_pos && fmj_str_is(p->value.str, "caller")) found_caller = true;
        f->slots[p->slot] = i < args->n_pos ? args->pos[i] : keyword(r, args, p->value.str, used);
    }
    fill_special(r, m, args, used, found_caller, f);
    fmj_frame *outer = r->frame;
    r->frame = f;
    for (size_t i = 0; i < n->list.n; i++) {
        const fmj_node *p = n->list.v[i];
        if (f->slots[p->slot].kind != FMJ_MISSING) continue;
        const size_t first_default = n->list.n - n->kw.n;
        f->slots[p->slot] = i >= first_default ? fmj_eval(r, n->kw.v[i - first_default])
                                               : parameter_missing(r, p->value.str);
    }
    r->frame = outer;
    fmj_flow flow;
    const fmj_value v = capture(r, &n->body, f, &flow);
    fmj_leave(r);
    return v;
}

static fmj_value make_macro(fmj_run *r, const fmj_node *n)
{
    fmj_macro *m = fmj_alloc(r, sizeof *m);
    *m = (fmj_macro){.node = n, .frame = r->frame, .name = "caller"};
    if (n->kind == NODE_MACRO) {
        const fmj_str *s = n->a->value.str;
        char *name = fmj_alloc(r, s->n + 1);
        memcpy(name, s->s, s->n);
        name[s->n] = 0;
        m->name = name;
    }
    return (fmj_value){.kind = FMJ_MACRO, .macro = m};
}

static void exec_call_block(fmj_run *r, const fmj_node *n)
{
    const fmj_value caller = make_macro(r, n);
    fmj_args args = {0};
    if (!n->a) { /* generation */
        fmj_buf_put(r, r->out, fmj_macro_call(r, caller.macro, &args));
        return;
    }
    const fmj_value f = fmj_eval(r, n->a->a);
    fmj_eval_args(r, n->a, &args, &caller);
    r->line = n->a->line;
    fmj_buf_put(r, r->out, fmj_call(r, f, &args));
}

/* ---- statements ---------------------------------------------------------------------------------- */

static fmj_flow exec_if(fmj_run *r, const fmj_node *n)
{
    for (size_t i = 0; i < n->list.n; i++) {
        const fmj_node *test = n->list.v[i];
        if (!test || fmj_truth(r, fmj_eval(r, test))) return fmj_exec(r, &n->bodies[i]);
    }
    return FMJ_NEXT;
}

/* Set and filter blocks. */
static fmj_flow exec_capture(fmj_run *r, const fmj_node *n)
{
    fmj_frame *frame = fmj_frame_enter(r, n->scope, r->frame);
    fmj_flow flow;
    fmj_value v = capture(r, &n->body, frame, &flow);
    if (flow != FMJ_NEXT) return flow;
    if (n->b) {
        fmj_frame *outer = r->frame;
        r->frame = frame;
        v = fmj_apply_filter(r, n->b, v);
        r->frame = outer;
    }
    if (n->kind == NODE_SET_BLOCK) {
        fmj_assign(r, n->a, v);
    } else if (v.kind != FMJ_STR) {
        fmj_raise(r, "a filter block gives '%s', expected str", fmj_type_name(v));
    } else {
        fmj_buf_put(r, r->out, v);
    }
    return FMJ_NEXT;
}

static fmj_flow exec_with(fmj_run *r, const fmj_node *n)
{
    fmj_frame *outer = r->frame;
    fmj_frame *frame = fmj_frame_enter(r, n->scope, outer);
    for (size_t i = 0; i < n->list.n; i++) {
        r->frame = outer;
        const fmj_value v = fmj_eval(r, n->kw.v[i]);
        r->frame = frame;
        fmj_assign(r, n->list.v[i], v);
    }
    r->frame = frame;
    const fmj_flow flow = fmj_exec(r, &n->body);
    r->frame = outer;
    return flow;
}

static fmj_flow exec_node(fmj_run *r, const fmj_node *n)
{
    switch (n->kind) {
    case NODE_DATA:
        fmj_buf_str(r, r->out, n->value.str);
        return FMJ_NEXT;
    case NODE_PRINT:
        for (size_t i = 0; i < n->list.n; i++) {
            const fmj_value v = fmj_eval(r, n->list.v[i]);
            r->line = n->line;
            fmj_buf_put(r, r->out, v);
        }
        return FMJ_NEXT;
    case NODE_IF:
        return exec_if(r, n);
    case NODE_FOR:
        return exec_for(r, n);
    case NODE_SET:
        fmj_assign(r, n->a, fmj_eval(r, n->b));
        return FMJ_NEXT;
    case NODE_SET_BLOCK:
    case NODE_FILTER_BLOCK:
        return exec_capture(r, n);
    case NODE_MACRO:
        fmj_assign(r, n->a, make_macro(r, n));
        return FMJ_NEXT;
    case NODE_CALL_BLOCK:
        exec_call_block(r, n);
        return FMJ_NEXT;
    case NODE_WITH:
        return exec_with(r, n);
    case NODE_BREAK:
        return FMJ_BREAK;
    case NODE_CONTINUE:
        return FMJ_CONTINUE;
    default:
        fmj_fail(r, FM_E_FORMAT, "this is no statement");
    }
}

fmj_flow fmj_exec(fmj_run *r, const fmj_nodes *body)
{
    fmj_enter(r);
    fmj_flow flow = FMJ_NEXT;
    for (size_t i = 0; i < body->n && flow == FMJ_NEXT; i++) {
        fmj_step(r, 1);
        r->line = body->v[i]->line;
        flow = exec_node(r, body->v[i]);
    }
    fmj_leave(r);
    return flow;
}
