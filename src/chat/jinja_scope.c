/* Gives every name its place before anything runs.
 *
 * jinja2 decides at compile time which frame a name belongs to, and when it is looked up: a name that
 * a frame assigns anywhere is the frame's own from the start, filled from the frame around it (or
 * from the request, or missing). Loop bodies, macros, call, filter, set and with blocks have frames;
 * the branches of `if` share the one they stand in. This follows jinja2/idtracking.py, since
 * published templates depend on the corners of it.
 */
#include "chat/jinja_syntax.h"

#include <string.h>

typedef struct {
    bool is_known;  /* the frame has a variable of this name */
    bool is_stored; /* and assigns it                        */
    fmj_load load;
} symbol;

typedef struct frame_builder {
    struct frame_builder *up;
    fmj_run *r;
    fm_jinja *t;
    fmj_dict *slots; /* name to slot; the keys stand in the order of the slots */
    symbol *symbols; /* [n], of the branch that is being read                  */
    int32_t n, cap;
} frame_builder;

/* What the statements around a place allow. */
typedef struct {
    bool is_soft;   /* in a branch: an unknown filter fails only when it is reached */
    bool can_break; /* in a loop */
    bool is_in_for; /* `loop` may not be assigned */
} place;

/* ---- symbols ------------------------------------------------------------------------------------- */

/* The slot of the name in this frame; -1: none. */
static int32_t known_slot(const frame_builder *b, const fmj_str *name)
{
    const fmj_value *slot = fmj_dict_get(b->r, b->slots, fmj_str_value(name));
    return slot ? (int32_t)slot->i : -1;
}

static int32_t slot_of(frame_builder *b, const fmj_str *name)
{
    const int32_t known = known_slot(b, name);
    if (known >= 0) return known;
    if (b->n == b->cap) {
        const int32_t cap = b->cap ? 2 * b->cap : 16;
        symbol *symbols = fmj_alloc_array(b->r, (size_t)cap, sizeof *symbols);
        if (b->n > 0) memcpy(symbols, b->symbols, (size_t)b->n * sizeof *symbols);
        b->symbols = symbols;
        b->cap = cap;
    }
    fmj_dict_set(b->r, b->slots, fmj_str_value(name), fmj_int(b->n));
    b->symbols[b->n] = (symbol){0};
    return b->n++;
}

/* The nearest frame from b outwards that knows the name; false: none. */
static bool find(const frame_builder *b, const fmj_str *name, int32_t *hops, int32_t *slot)
{
    *hops = 0;
    for (; b; b = b->up, ++*hops) {
        fmj_step(b->r, 1);
        *slot = known_slot(b, name);
        if (*slot >= 0 && b->symbols[*slot].is_known) return true;
    }
    return false;
}

/* The number of a name that is looked up in the request. */
static int32_t context_name(frame_builder *b, const fmj_str *name)
{
    fmj_dict *names = b->t->names;
    const fmj_value *known = fmj_dict_get(b->r, names, fmj_str_value(name));
    if (known) return (int32_t)known->i;
    const int32_t number = (int32_t)names->n;
    fmj_dict_set(b->r, names, fmj_str_value(name), fmj_int(number));
    return number;
}

static fmj_load outer_or(frame_builder *b, const fmj_str *name, fmj_load_kind otherwise)
{
    fmj_load load = {.kind = otherwise};
    if (find(b->up, name, &load.hops, &load.slot)) {
        load.kind = LOAD_ALIAS;
        load.hops++;
    } else if (otherwise == LOAD_RESOLVE) {
        load.name = context_name(b, name);
    }
    return load;
}

static int32_t declare(frame_builder *b, const fmj_str *name)
{
    const int32_t i = slot_of(b, name);
    b->symbols[i] = (symbol){.is_known = true, .is_stored = true, .load = {.kind = LOAD_PARAMETER}};
    return i;
}

static void store(frame_builder *b, const fmj_str *name)
{
    const int32_t i = slot_of(b, name);
    b->symbols[i].is_stored = true;
    if (b->symbols[i].is_known) return;
    const fmj_load load = outer_or(b, name, LOAD_UNDEFINED);
    b->symbols[i].is_known = true;
    b->symbols[i].load = load;
}

static void load(frame_builder *b, const fmj_str *name)
{
    int32_t hops, slot;
    if (find(b, name, &hops, &slot)) return;
    const int32_t i = slot_of(b, name);
    b->symbols[i].is_known = true;
    b->symbols[i].load = (fmj_load){.kind = LOAD_RESOLVE, .name = context_name(b, name)};
}

/* ---- first pass over a frame: its own names, in reading order ------------------------------------- */

static void note_body(frame_builder *b, const fmj_nodes *body);

static void note_expr(frame_builder *b, const fmj_node *n);

static void note_list(frame_builder *b, const fmj_nodes *list)
{
    for (size_t i = 0; i < list->n; i++) note_expr(b, list->v[i]);
}

static void note_expr(frame_builder *b, const fmj_node *n)
{
    if (!n) return;
    if (n->kind == NODE_NAME) {
        if (n->is_store) {
            store(b, n->value.str);
        } else {
            load(b, n->value.str);
        }
        return;
    }
    note_expr(b, n->a);
    note_expr(b, n->b);
    note_expr(b, n->c);
    note_list(b, &n->list);
    note_list(b, &n->kw);
    note_expr(b, n->dyn_args);
    note_expr(b, n->dyn_kwargs);
}

/* Every name of a target is a parameter of the frame. */
static void declare_target(frame_builder *b, const fmj_node *n)
{
    if (n->kind == NODE_NAME) declare(b, n->value.str);
    for (size_t i = 0; i < n->list.n; i++) declare_target(b, n->list.v[i]);
}

/* Puts the symbols of a branch over those of `b`. */
static void merge(frame_builder *b, const symbol *branch, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        if (branch[i].is_known) {
            b->symbols[i].is_known = true;
            b->symbols[i].load = branch[i].load;
        }
        b->symbols[i].is_stored = b->symbols[i].is_stored || branch[i].is_stored;
    }
}

static symbol *copy_symbols(frame_builder *b)
{
    symbol *s = fmj_alloc_array(b->r, (size_t)b->cap + 1, sizeof *s);
    if (b->n > 0) memcpy(s, b->symbols, (size_t)b->n * sizeof *s);
    return s;
}

/* The state of before a branch, with room for the names that the branch has brought. */
static void restore(frame_builder *b, const symbol *before, int32_t n_before)
{
    symbol *s = fmj_alloc_array(b->r, (size_t)b->cap + 1, sizeof *s);
    memset(s, 0, ((size_t)b->cap + 1) * sizeof *s);
    if (n_before > 0) memcpy(s, before, (size_t)n_before * sizeof *s);
    b->symbols = s;
}

/* Branches [first, ...) of an `if`: jinja2 reads the first as the body, those behind it one after
 * another as a branch of their own, and `else` as the third. */
static void note_if(frame_builder *b, const fmj_node *n, size_t first, size_t end, bool with_else)
{
    const bool has_else = with_else && !n->list.v[n->list.n - 1];
    const size_t last = has_else ? n->list.n - 1 : n->list.n;
    symbol *branch[3];
    int32_t n_branch[3];
    note_expr(b, n->list.v[first]);
    const symbol *before = copy_symbols(b);
    const int32_t n_before = b->n;
    for (int k = 0; k < 3; k++) {
        if (k == 0) note_body(b, &n->bodies[first]);
        for (size_t i = first + 1; k == 1 && i < (end < last ? end : last); i++)
            note_if(b, n, i, i + 1, false);
        if (k == 2 && has_else) note_body(b, &n->bodies[last]);
        branch[k] = copy_symbols(b);
        n_branch[k] = b->n;
        restore(b, before, n_before);
    }
    for (int k = 0; k < 3; k++) merge(b, branch[k], n_branch[k]);
    for (int32_t i = 0; i < b->n; i++) {
        bool is_new = i >= n_before || !before[i].is_stored;
        is_new = is_new && b->symbols[i].is_stored;
        if (is_new) b->symbols[i].load = outer_or(b, b->slots->keys[i].str, LOAD_RESOLVE);
    }
}

static void note_statement(frame_builder *b, const fmj_node *n)
{
    b->r->line = n->line;
    switch (n->kind) {
    case NODE_IF:
        note_if(b, n, 0, n->list.n, true);
        break;
    case NODE_FOR:
        note_expr(b, n->b);
        break;
    case NODE_SET:
        note_expr(b, n->b);
        note_expr(b, n->a);
        break;
    case NODE_MACRO:
        store(b, n->a->value.str);
        break;
    case NODE_WITH:
        note_list(b, &n->kw);
        break;
    case NODE_FILTER_BLOCK:
        note_expr(b, n->b);
        break;
    case NODE_DATA:
    case NODE_BREAK:
    case NODE_CONTINUE:
        break;
    default: /* PRINT, SET_BLOCK (its target), CALL_BLOCK (its call) */
        note_expr(b, n->a);
        if (n->kind == NODE_PRINT) note_list(b, &n->list);
        break;
    }
}

static void note_body(frame_builder *b, const fmj_nodes *body)
{
    for (size_t i = 0; i < body->n; i++) note_statement(b, body->v[i]);
}

/* ---- is a name read in a body before it is assigned there? ---------------------------------------- */

typedef struct {
    fmj_run *r;
    const char *name;
    bool is_found, is_assigned;
} search;

static void search_body(search *s, const fmj_nodes *body);

static void search_node(search *s, const fmj_node *n)
{
    if (!n || s->is_found || s->is_assigned) return;
    fmj_step(s->r, 1); /* a body is searched once for every frame around it */
    if (n->kind == NODE_NAME) {
        if (!fmj_str_is(n->value.str, s->name)) return;
        if (n->is_store) {
            s->is_assigned = true;
        } else {
            s->is_found = true;
        }
        return;
    }
    if (n->kind != NODE_MACRO) search_node(s, n->a); /* a macro's own name does not count */
    search_node(s, n->b);
    for (size_t i = 0; i < n->list.n; i++) search_node(s, n->list.v[i]);
    for (size_t i = 0; i < n->kw.n; i++) search_node(s, n->kw.v[i]);
    search_node(s, n->dyn_args);
    search_node(s, n->dyn_kwargs);
    search_body(s, &n->body);
    for (size_t i = 0; n->kind == NODE_IF && i < n->list.n; i++) search_body(s, &n->bodies[i]);
    search_body(s, &n->else_);
    search_node(s, n->c);
}

static void search_body(search *s, const fmj_nodes *body)
{
    for (size_t i = 0; i < body->n; i++) search_node(s, body->v[i]);
}

static bool reads(fmj_run *r, const fmj_nodes *body, const char *name)
{
    search s = {.r = r, .name = name};
    search_body(&s, body);
    return s.is_found;
}

/* ---- second pass: places, and the frames inside --------------------------------------------------- */

static void place_body(frame_builder *b, fmj_nodes *body, place at);

static _Noreturn void refuse(frame_builder *b, const fmj_node *n, const char *what)
{
    b->r->line = n->line;
    fmj_fail(b->r, FM_E_FORMAT, "%s", what);
}

static void place_expr(frame_builder *b, fmj_node *n, place at)
{
    if (!n) return;
    if (n->kind == NODE_NAME) {
        if (n->is_store && at.is_in_for && fmj_str_is(n->value.str, "loop"))
            refuse(b, n, "Can't assign to special loop variable in for-loop target");
        /* Names of filter arguments of set blocks are the only ones that no pass has noted. */
        load(b, n->value.str);
        find(b, n->value.str, &n->hops, &n->slot);
        return;
    }
    if (n->kind == NODE_IF_EXPR) at.is_soft = true;
    if ((n->kind == NODE_FILTER || n->kind == NODE_TEST) && n->index < 0 && !at.is_soft) {
        b->r->line = n->line;
        fmj_fail(b->r, FM_E_FORMAT, "No %s named '%.*s'.",
                 n->kind == NODE_FILTER ? "filter" : "test", (int)n->value.str->n, n->value.str->s);
    }
    place_expr(b, n->a, at);
    place_expr(b, n->b, at);
    place_expr(b, n->c, at);
    for (size_t i = 0; i < n->list.n; i++) place_expr(b, n->list.v[i], at);
    for (size_t i = 0; i < n->kw.n; i++) place_expr(b, n->kw.v[i], at);
    place_expr(b, n->dyn_args, at);
    place_expr(b, n->dyn_kwargs, at);
}

static fmj_scope *finish(frame_builder *b)
{
    fmj_scope *s = fmj_alloc(b->r, sizeof *s);
    s->n = b->n;
    s->loads = fmj_alloc_array(b->r, (size_t)b->n + 1, sizeof *s->loads);
    for (int32_t i = 0; i < b->n; i++) s->loads[i] = b->symbols[i].load;
    return s;
}

static frame_builder inner(frame_builder *b)
{
    return (frame_builder){.up = b, .r = b->r, .t = b->t, .slots = fmj_dict_new(b->r, 0)};
}

static const fmj_str *word(frame_builder *b, const char *s)
{
    return fmj_str_over(b->r, s, strlen(s), true);
}

static void place_for(frame_builder *b, fmj_node *n, place at)
{
    at.is_in_for = true;
    place_expr(b, n->b, at);
    n->has_loop = n->is_recursive || reads(b->r, &n->body, "loop");

    frame_builder body = inner(b);
    declare_target(&body, n->a); /* first, so that they have the same slots in the test's frame */
    if (n->has_loop) n->loop_slot = declare(&body, word(b, "loop"));
    note_body(&body, &n->body);
    const place in_body = {.can_break = true, .is_in_for = true};
    place_expr(&body, n->a, in_body);
    place_body(&body, &n->body, in_body);
    n->scope = finish(&body);

    if (n->c) {
        frame_builder test = inner(b);
        declare_target(&test, n->a);
        note_expr(&test, n->c);
        place_expr(&test, n->c, (place){.is_in_for = true});
        n->test_scope = finish(&test);
    }
    if (n->else_.n > 0) {
        frame_builder other = inner(b);
        note_body(&other, &n->else_);
        place_body(&other, &n->else_,
                   (place){.can_break = at.can_break && !n->is_recursive, .is_in_for = true});
        n->else_scope = finish(&other);
    }
}

static bool has_parameter(const fmj_node *n, const char *name, bool *has_default)
{
    for (size_t i = 0; i < n->list.n; i++) {
        if (!fmj_str_is(n->list.v[i]->value.str, name)) continue;
        *has_default = i + n->kw.n >= n->list.n;
        return true;
    }
    return false;
}

/* The frame of a macro or of the body of a call block. */
static void place_macro(frame_builder *b, fmj_node *n, bool is_in_for)
{
    frame_builder f = inner(b);
    bool has_default = false;
    for (size_t i = 0; i < n->list.n; i++) declare(&f, n->list.v[i]->value.str);
    note_list(&f, &n->kw);
    note_body(&f, &n->body);
    if (reads(b->r, &n->body, "caller")) {
        n->has_explicit_caller = has_parameter(n, "caller", &has_default);
        if (n->has_explicit_caller && !has_default)
            refuse(b, n,
                   "When defining macros or call blocks the special \"caller\" argument must be "
                   "omitted or be given a default.");
        n->caller_slot = declare(&f, word(b, "caller"));
    }
    if (!has_parameter(n, "kwargs", &has_default) && reads(b->r, &n->body, "kwargs"))
        n->kwargs_slot = declare(&f, word(b, "kwargs"));
    if (!has_parameter(n, "varargs", &has_default) && reads(b->r, &n->body, "varargs"))
        n->varargs_slot = declare(&f, word(b, "varargs"));
    const place at = {.is_in_for = is_in_for};
    for (size_t i = 0; i < n->list.n; i++) {
        place_expr(&f, n->list.v[i], (place){0});
    }
    for (size_t i = 0; i < n->kw.n; i++) place_expr(&f, n->kw.v[i], at);
    place_body(&f, &n->body, at);
    n->scope = finish(&f);
}

static void place_block(frame_builder *b, fmj_node *n, place at)
{
    frame_builder f = inner(b);
    if (n->kind == NODE_WITH)
        for (size_t i = 0; i < n->list.n; i++) declare_target(&f, n->list.v[i]);
    note_body(&f, &n->body);
    if (n->kind == NODE_FILTER_BLOCK) note_expr(&f, n->b);
    at.is_soft = false;
    if (n->kind == NODE_WITH)
        for (size_t i = 0; i < n->list.n; i++) place_expr(&f, n->list.v[i], at);
    place_body(&f, &n->body, at);
    if (n->kind != NODE_WITH && n->b) place_expr(&f, n->b, at);
    n->scope = finish(&f);
}

static void place_statement(frame_builder *b, fmj_node *n, place at)
{
    place soft = at;
    b->r->line = n->line;
    switch (n->kind) {
    case NODE_IF:
        soft.is_soft = true;
        for (size_t i = 0; i < n->list.n; i++) {
            place_expr(b, n->list.v[i], soft);
            place_body(b, &n->bodies[i], soft);
        }
        break;
    case NODE_FOR:
        place_for(b, n, at);
        break;
    case NODE_SET:
        place_expr(b, n->b, at);
        place_expr(b, n->a, at);
        break;
    case NODE_MACRO:
        place_expr(b, n->a, at);
        place_macro(b, n, at.is_in_for);
        break;
    case NODE_CALL_BLOCK:
        place_expr(b, n->a, at);
        place_macro(b, n, at.is_in_for);
        break;
    case NODE_SET_BLOCK:
        place_expr(b, n->a, at);
        place_block(b, n, at);
        break;
    case NODE_FILTER_BLOCK:
        place_block(b, n, at);
        break;
    case NODE_WITH:
        for (size_t i = 0; i < n->kw.n; i++) place_expr(b, n->kw.v[i], at);
        place_block(b, n, at);
        break;
    case NODE_PRINT:
        for (size_t i = 0; i < n->list.n; i++) place_expr(b, n->list.v[i], at);
        break;
    case NODE_BREAK:
    case NODE_CONTINUE:
        if (!at.can_break)
            refuse(b, n, n->kind == NODE_BREAK ? "'break' outside loop" : "'continue' not in loop");
        break;
    default:
        break;
    }
}

static void place_body(frame_builder *b, fmj_nodes *body, place at)
{
    for (size_t i = 0; i < body->n; i++) place_statement(b, body->v[i], at);
}

void fmj_resolve(fmj_run *r, fm_jinja *t)
{
    frame_builder b = {.r = r, .t = t, .slots = fmj_dict_new(r, 0)};
    t->names = fmj_dict_new(r, 0);
    note_body(&b, &t->body);
    place_body(&b, &t->body, (place){0});
    t->scope = finish(&b);
}
