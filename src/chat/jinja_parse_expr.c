/* Expressions: jinja2's grammar, precedence from low to high: inline if, or, and, not, comparisons
 * and `in`, + -, ~, * / // %, **, unary - +, postfix, filters and tests. */
#include "chat/jinja_syntax.h"

#include <string.h>

static fmj_node *parse_unary(fmj_parser *p, bool with_filter);

/* ---- nodes --------------------------------------------------------------------------------------- */

fmj_node *fmj_node_new(fmj_run *r, fmj_node_kind kind, int32_t line)
{
    fmj_node *n = fmj_alloc(r, sizeof *n);
    memset(n, 0, sizeof *n);
    n->kind = kind;
    n->line = line;
    n->height = 1;
    n->index = -1;
    n->slot = n->loop_slot = n->caller_slot = n->kwargs_slot = n->varargs_slot = -1;
    return n;
}

void fmj_node_adopt(fmj_run *r, fmj_node *node, const fmj_node *child)
{
    if (!child || node->height > child->height) return;
    node->height = child->height + 1;
    if (node->height > FMJ_HEIGHT_MAX) {
        r->line = node->line;
        fmj_fail(r, FM_E_LIMIT, "more than %d operations inside each other", FMJ_HEIGHT_MAX);
    }
}

void fmj_nodes_add(fmj_run *r, fmj_nodes *list, fmj_node *n)
{
    if (list->n == list->cap) {
        const size_t cap = list->cap ? 2 * list->cap : 4;
        fmj_node **v = fmj_alloc_array(r, cap, sizeof *v);
        if (list->n > 0) memcpy(v, list->v, list->n * sizeof(fmj_node *));
        list->v = v;
        list->cap = cap;
    }
    list->v[list->n++] = n;
}

static fmj_node *make(fmj_parser *p, fmj_node_kind kind, int32_t line, fmj_node *a, fmj_node *b)
{
    fmj_node *n = fmj_node_new(p->r, kind, line);
    n->a = a;
    n->b = b;
    fmj_node_adopt(p->r, n, a);
    fmj_node_adopt(p->r, n, b);
    return n;
}

static void adopt_into(fmj_parser *p, fmj_node *n, fmj_nodes *list, fmj_node *child)
{
    fmj_nodes_add(p->r, list, child);
    fmj_node_adopt(p->r, n, child);
}

/* ---- calls --------------------------------------------------------------------------------------- */

static void ensure(fmj_parser *p, bool ok, int32_t line)
{
    if (!ok) fmj_syntax(p, line, "invalid syntax for function call expression");
}

static void add_keyword(fmj_parser *p, fmj_node *n, const fmj_str *name, fmj_node *value)
{
    const size_t have = n->kw.n;
    fmj_step_names(p->r, have, name);
    for (size_t i = 0; i < have; i++)
        if (fmj_str_equal(n->kw_names[i], name))
            fmj_syntax(p, value->line, "keyword argument repeated: %.*s", (int)name->n, name->s);
    if (have % 8 == 0) {
        const fmj_str **names = fmj_alloc_array(p->r, have + 8, sizeof *names);
        if (have > 0) memcpy(names, n->kw_names, have * sizeof *names);
        n->kw_names = names;
    }
    n->kw_names[have] = name;
    adopt_into(p, n, &n->kw, value);
}

/* "(...)" into n->list, n->kw, n->dyn_*. */
static void parse_call_args(fmj_parser *p, fmj_node *n)
{
    const int32_t line = fmj_token_now(p)->line;
    fmj_token_expect_op(p, "(");
    bool needs_comma = false;
    while (!fmj_token_is_op(fmj_token_now(p), ")")) {
        if (needs_comma) {
            fmj_token_expect_op(p, ",");
            if (fmj_token_is_op(fmj_token_now(p), ")")) break;
        }
        needs_comma = true;
        if (fmj_token_skip_op(p, "*")) {
            ensure(p, !n->dyn_args && !n->dyn_kwargs, line);
            n->dyn_args = fmj_parse_expression(p, true);
            fmj_node_adopt(p->r, n, n->dyn_args);
        } else if (fmj_token_skip_op(p, "**")) {
            ensure(p, !n->dyn_kwargs, line);
            n->dyn_kwargs = fmj_parse_expression(p, true);
            fmj_node_adopt(p->r, n, n->dyn_kwargs);
        } else if (fmj_token_now(p)->kind == TOK_NAME &&
                   fmj_token_is_op(&p->tokens.v[p->at + 1], "=")) {
            ensure(p, !n->dyn_kwargs, line);
            const fmj_str *name = fmj_token_next(p)->value.str;
            fmj_token_next(p);
            add_keyword(p, n, name, fmj_parse_expression(p, true));
        } else {
            ensure(p, !n->dyn_args && !n->dyn_kwargs && n->kw.n == 0, line);
            adopt_into(p, n, &n->list, fmj_parse_expression(p, true));
        }
    }
    fmj_token_expect_op(p, ")");
}

static fmj_node *parse_call(fmj_parser *p, fmj_node *callee)
{
    fmj_node *n = make(p, NODE_CALL, fmj_token_now(p)->line, callee, NULL);
    parse_call_args(p, n);
    return n;
}

/* "name" or "name.name" */
static const fmj_str *parse_dotted(fmj_parser *p)
{
    const fmj_str *name = fmj_token_expect(p, TOK_NAME)->value.str;
    while (fmj_token_skip_op(p, ".")) {
        fmj_buf b = {0};
        fmj_buf_str(p->r, &b, name);
        fmj_buf_text(p->r, &b, ".");
        fmj_buf_str(p->r, &b, fmj_token_expect(p, TOK_NAME)->value.str);
        name = fmj_buf_take(p->r, &b);
    }
    return name;
}

fmj_node *fmj_parse_filters(fmj_parser *p, fmj_node *node, bool is_inline)
{
    while (is_inline || fmj_token_is_op(fmj_token_now(p), "|")) {
        if (!is_inline) fmj_token_next(p);
        is_inline = false;
        fmj_node *n = make(p, NODE_FILTER, fmj_token_now(p)->line, node, NULL);
        const fmj_str *name = parse_dotted(p);
        n->value = fmj_str_value(name);
        n->index = fmj_filter_find(name->s, name->n);
        if (fmj_token_is_op(fmj_token_now(p), "(")) parse_call_args(p, n);
        node = n;
    }
    return node;
}

/* ---- primary expressions ------------------------------------------------------------------------- */

static fmj_node *constant(fmj_parser *p, int32_t line, fmj_value v)
{
    fmj_node *n = fmj_node_new(p->r, NODE_CONST, line);
    n->value = v;
    return n;
}

static fmj_node *parse_string(fmj_parser *p)
{
    const fmj_token *t = fmj_token_next(p);
    if (fmj_token_now(p)->kind != TOK_STRING) return constant(p, t->line, t->value);
    fmj_buf b = {0};
    fmj_buf_str(p->r, &b, t->value.str);
    while (fmj_token_now(p)->kind == TOK_STRING)
        fmj_buf_str(p->r, &b, fmj_token_next(p)->value.str);
    return constant(p, t->line, fmj_buf_value(p->r, &b));
}

static fmj_node *parse_list(fmj_parser *p)
{
    fmj_node *n = fmj_node_new(p->r, NODE_LIST, fmj_token_now(p)->line);
    fmj_token_expect_op(p, "[");
    while (!fmj_token_is_op(fmj_token_now(p), "]")) {
        if (n->list.n > 0) fmj_token_expect_op(p, ",");
        if (fmj_token_is_op(fmj_token_now(p), "]")) break;
        adopt_into(p, n, &n->list, fmj_parse_expression(p, true));
    }
    fmj_token_expect_op(p, "]");
    return n;
}

static fmj_node *parse_dict(fmj_parser *p)
{
    fmj_node *n = fmj_node_new(p->r, NODE_DICT, fmj_token_now(p)->line);
    fmj_token_expect_op(p, "{");
    while (!fmj_token_is_op(fmj_token_now(p), "}")) {
        if (n->list.n > 0) fmj_token_expect_op(p, ",");
        if (fmj_token_is_op(fmj_token_now(p), "}")) break;
        adopt_into(p, n, &n->list, fmj_parse_expression(p, true));
        fmj_token_expect_op(p, ":");
        adopt_into(p, n, &n->list, fmj_parse_expression(p, true));
    }
    fmj_token_expect_op(p, "}");
    return n;
}

static fmj_node *parse_name(fmj_parser *p, bool with_namespace)
{
    const fmj_token *t = fmj_token_next(p);
    const fmj_str *s = t->value.str;
    if (fmj_str_is(s, "true") || fmj_str_is(s, "True")) return constant(p, t->line, fmj_bool(true));
    if (fmj_str_is(s, "false") || fmj_str_is(s, "False"))
        return constant(p, t->line, fmj_bool(false));
    if (fmj_str_is(s, "none") || fmj_str_is(s, "None")) return constant(p, t->line, FMJ_V_NONE);
    fmj_node *n = fmj_node_new(p->r, NODE_NAME, t->line);
    n->value = t->value;
    if (with_namespace && fmj_token_skip_op(p, ".")) {
        fmj_node *ref = make(p, NODE_NSREF, t->line, n, NULL);
        ref->value = fmj_token_expect(p, TOK_NAME)->value;
        return ref;
    }
    return n;
}

static fmj_node *parse_primary(fmj_parser *p, bool with_namespace)
{
    const fmj_token *t = fmj_token_now(p);
    if (t->kind == TOK_NAME) return parse_name(p, with_namespace);
    if (t->kind == TOK_STRING) return parse_string(p);
    if (t->kind == TOK_NUMBER) {
        fmj_token_next(p);
        return constant(p, t->line, t->value);
    }
    if (fmj_token_is_op(t, "(")) {
        fmj_token_next(p);
        fmj_node *n = fmj_parse_tuple(p, (fmj_tuple_rules){.is_parenthesized = true});
        fmj_token_expect_op(p, ")");
        return n;
    }
    if (fmj_token_is_op(t, "[")) return parse_list(p);
    if (fmj_token_is_op(t, "{")) return parse_dict(p);
    fmj_syntax(p, t->line, "unexpected '%s'", fmj_token_text(p, t));
}

fmj_node *fmj_parse_tuple(fmj_parser *p, fmj_tuple_rules rules)
{
    fmj_node *n = fmj_node_new(p->r, NODE_TUPLE, fmj_token_now(p)->line);
    bool is_tuple = false;
    for (;;) {
        if (n->list.n > 0) fmj_token_expect_op(p, ",");
        const fmj_token *t = fmj_token_now(p);
        if (t->kind == TOK_VARIABLE_END || t->kind == TOK_BLOCK_END || fmj_token_is_op(t, ")") ||
            (rules.end_name && fmj_token_is_name(t, rules.end_name)))
            break;
        adopt_into(p, n, &n->list,
                   rules.is_simple ? parse_primary(p, rules.with_namespace)
                                   : fmj_parse_expression(p, !rules.no_condition));
        if (!fmj_token_is_op(fmj_token_now(p), ",")) break;
        is_tuple = true;
    }
    if (is_tuple) return n;
    if (n->list.n > 0) return n->list.v[0];
    if (!rules.is_parenthesized)
        fmj_syntax(p, fmj_token_now(p)->line, "Expected an expression, got '%s'",
                   fmj_token_text(p, fmj_token_now(p)));
    return n;
}

/* ---- postfix ------------------------------------------------------------------------------------- */

static bool ends_slice_part(const fmj_token *t)
{
    return fmj_token_is_op(t, "]") || fmj_token_is_op(t, ",");
}

/* An index, or a slice. */
static fmj_node *parse_subscribed(fmj_parser *p)
{
    const int32_t line = fmj_token_now(p)->line;
    fmj_node *part[3] = {0};
    if (!fmj_token_is_op(fmj_token_now(p), ":")) {
        part[0] = fmj_parse_expression(p, true);
        if (!fmj_token_is_op(fmj_token_now(p), ":")) return part[0];
    }
    fmj_token_next(p);
    const fmj_token *t = fmj_token_now(p);
    if (!fmj_token_is_op(t, ":") && !ends_slice_part(t)) part[1] = fmj_parse_expression(p, true);
    if (fmj_token_skip_op(p, ":") && !ends_slice_part(fmj_token_now(p)))
        part[2] = fmj_parse_expression(p, true);
    fmj_node *n = make(p, NODE_SLICE, line, part[0], part[1]);
    n->c = part[2];
    fmj_node_adopt(p->r, n, n->c);
    return n;
}

static fmj_node *parse_subscript(fmj_parser *p, fmj_node *node)
{
    const fmj_token *t = fmj_token_next(p);
    if (fmj_token_is_op(t, ".")) {
        const fmj_token *name = fmj_token_next(p);
        if (name->kind == TOK_NAME) {
            fmj_node *n = make(p, NODE_GETATTR, t->line, node, NULL);
            n->value = name->value;
            return n;
        }
        if (name->kind != TOK_NUMBER || name->value.kind != FMJ_INT)
            fmj_syntax(p, name->line, "expected name or number");
        return make(p, NODE_GETITEM, t->line, node, constant(p, name->line, name->value));
    }
    fmj_node *tuple = fmj_node_new(p->r, NODE_TUPLE, t->line);
    while (!fmj_token_is_op(fmj_token_now(p), "]")) {
        if (tuple->list.n > 0) fmj_token_expect_op(p, ",");
        adopt_into(p, tuple, &tuple->list, parse_subscribed(p));
    }
    fmj_token_expect_op(p, "]");
    if (tuple->list.n != 1) {
        for (size_t i = 0; i < tuple->list.n; i++)
            if (tuple->list.v[i]->kind == NODE_SLICE)
                fmj_syntax(p, t->line, "slices of several dimensions are not supported");
    }
    return make(p, NODE_GETITEM, t->line, node, tuple->list.n == 1 ? tuple->list.v[0] : tuple);
}

static fmj_node *parse_postfix(fmj_parser *p, fmj_node *node)
{
    for (;;) {
        const fmj_token *t = fmj_token_now(p);
        if (fmj_token_is_op(t, ".") || fmj_token_is_op(t, "[")) {
            node = parse_subscript(p, node);
        } else if (fmj_token_is_op(t, "(")) {
            node = parse_call(p, node);
        } else {
            return node;
        }
    }
}

static fmj_node *parse_test(fmj_parser *p, fmj_node *node)
{
    const fmj_token *is = fmj_token_next(p);
    const bool is_negated = fmj_token_skip_name(p, "not");
    fmj_node *n = make(p, NODE_TEST, is->line, node, NULL);
    const fmj_str *name = parse_dotted(p);
    n->value = fmj_str_value(name);
    n->index = fmj_test_find(name->s, name->n);
    const fmj_token *t = fmj_token_now(p);
    const bool starts_arg = t->kind == TOK_STRING || t->kind == TOK_NUMBER ||
                            fmj_token_is_op(t, "[") || fmj_token_is_op(t, "{") ||
                            (t->kind == TOK_NAME && !fmj_token_is_name(t, "else") &&
                             !fmj_token_is_name(t, "or") && !fmj_token_is_name(t, "and"));
    if (fmj_token_is_op(t, "(")) {
        parse_call_args(p, n);
    } else if (starts_arg) {
        if (fmj_token_is_name(t, "is"))
            fmj_syntax(p, t->line, "You cannot chain multiple tests with is");
        adopt_into(p, n, &n->list, parse_postfix(p, parse_primary(p, false)));
    }
    return is_negated ? make(p, NODE_NOT, is->line, n, NULL) : n;
}

static fmj_node *parse_filter_expr(fmj_parser *p, fmj_node *node)
{
    for (;;) {
        const fmj_token *t = fmj_token_now(p);
        if (fmj_token_is_op(t, "|")) {
            node = fmj_parse_filters(p, node, false);
        } else if (fmj_token_is_name(t, "is")) {
            node = parse_test(p, node);
        } else if (fmj_token_is_op(t, "(")) {
            node = parse_call(p, node);
        } else {
            return node;
        }
    }
}

/* ---- operators ----------------------------------------------------------------------------------- */

static fmj_node *parse_unary(fmj_parser *p, bool with_filter)
{
    fmj_parser_enter(p);
    const fmj_token *t = fmj_token_now(p);
    fmj_node *n;
    if (fmj_token_skip_op(p, "-")) {
        n = make(p, NODE_NEG, t->line, parse_unary(p, false), NULL);
    } else if (fmj_token_skip_op(p, "+")) {
        n = make(p, NODE_POS, t->line, parse_unary(p, false), NULL);
    } else {
        n = parse_primary(p, false);
    }
    n = parse_postfix(p, n);
    if (with_filter) n = parse_filter_expr(p, n);
    p->depth--;
    return n;
}

static fmj_node *make_arith(fmj_parser *p, int32_t line, fmj_node *a, fmj_node *b, const char *op)
{
    fmj_node *n = make(p, NODE_ARITH, line, a, b);
    n->ops = fmj_alloc_array(p->r, 1, sizeof *n->ops);
    n->ops[0] = op;
    return n;
}

static fmj_node *parse_pow(fmj_parser *p)
{
    fmj_node *left = parse_unary(p, true);
    while (fmj_token_is_op(fmj_token_now(p), "**")) {
        const int32_t line = fmj_token_next(p)->line;
        left = make_arith(p, line, left, parse_unary(p, true), "p");
    }
    return left;
}

static fmj_node *parse_product(fmj_parser *p)
{
    static const char *const ops[][2] = {{"*", "*"}, {"/", "/"}, {"//", "i"}, {"%", "%"}};
    fmj_node *left = parse_pow(p);
    for (;;) {
        const char *op = NULL;
        const fmj_token *t = fmj_token_now(p);
        for (size_t i = 0; i < sizeof ops / sizeof ops[0] && !op; i++)
            if (fmj_token_is_op(t, ops[i][0])) op = ops[i][1];
        if (!op) return left;
        fmj_token_next(p);
        left = make_arith(p, t->line, left, parse_pow(p), op);
    }
}

static fmj_node *parse_concat(fmj_parser *p)
{
    fmj_node *first = parse_product(p);
    if (!fmj_token_is_op(fmj_token_now(p), "~")) return first;
    fmj_node *n = fmj_node_new(p->r, NODE_CONCAT, first->line);
    adopt_into(p, n, &n->list, first);
    while (fmj_token_skip_op(p, "~")) adopt_into(p, n, &n->list, parse_product(p));
    return n;
}

static fmj_node *parse_sum(fmj_parser *p)
{
    fmj_node *left = parse_concat(p);
    for (;;) {
        const fmj_token *t = fmj_token_now(p);
        const bool is_plus = fmj_token_is_op(t, "+");
        if (!is_plus && !fmj_token_is_op(t, "-")) return left;
        fmj_token_next(p);
        left = make_arith(p, t->line, left, parse_concat(p), is_plus ? "+" : "-");
    }
}

/* The comparison at the current token, which it skips; NULL: none. */
static const char *parse_comparison(fmj_parser *p)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "<", ">"};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (fmj_token_skip_op(p, ops[i])) return ops[i];
    if (fmj_token_skip_name(p, "in")) return "in";
    if (fmj_token_is_name(fmj_token_now(p), "not") &&
        fmj_token_is_name(&p->tokens.v[p->at + 1], "in")) {
        p->at += 2;
        return "not in";
    }
    return NULL;
}

static fmj_node *parse_compare(fmj_parser *p)
{
    enum { OPS_MAX = 64 };
    const int32_t line = fmj_token_now(p)->line;
    fmj_node *first = parse_sum(p);
    const char *op = parse_comparison(p);
    if (!op) return first;
    fmj_node *n = make(p, NODE_COMPARE, line, first, NULL);
    n->ops = fmj_alloc_array(p->r, OPS_MAX, sizeof *n->ops);
    for (; op; op = parse_comparison(p)) {
        if (n->list.n == OPS_MAX)
            fmj_fail(p->r, FM_E_LIMIT, "more than %d comparisons in a row", OPS_MAX);
        n->ops[n->list.n] = op;
        adopt_into(p, n, &n->list, parse_sum(p));
    }
    return n;
}

static fmj_node *parse_not(fmj_parser *p)
{
    const fmj_token *t = fmj_token_now(p);
    if (!fmj_token_skip_name(p, "not")) return parse_compare(p);
    fmj_parser_enter(p);
    fmj_node *n = make(p, NODE_NOT, t->line, parse_not(p), NULL);
    p->depth--;
    return n;
}

static fmj_node *parse_and(fmj_parser *p)
{
    fmj_node *left = parse_not(p);
    while (fmj_token_is_name(fmj_token_now(p), "and")) {
        const int32_t line = fmj_token_next(p)->line;
        left = make(p, NODE_AND, line, left, parse_not(p));
    }
    return left;
}

static fmj_node *parse_or(fmj_parser *p)
{
    fmj_node *left = parse_and(p);
    while (fmj_token_is_name(fmj_token_now(p), "or")) {
        const int32_t line = fmj_token_next(p)->line;
        left = make(p, NODE_OR, line, left, parse_and(p));
    }
    return left;
}

fmj_node *fmj_parse_expression(fmj_parser *p, bool with_condition)
{
    fmj_parser_enter(p);
    fmj_node *n = parse_or(p);
    while (with_condition && fmj_token_is_name(fmj_token_now(p), "if")) {
        const int32_t line = fmj_token_next(p)->line;
        fmj_node *test = parse_or(p);
        fmj_node *choice = make(p, NODE_IF_EXPR, line, n, test);
        if (fmj_token_skip_name(p, "else")) {
            choice->c = fmj_parse_expression(p, true);
            fmj_node_adopt(p->r, choice, choice->c);
        }
        n = choice;
    }
    p->depth--;
    return n;
}
