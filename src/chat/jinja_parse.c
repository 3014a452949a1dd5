/* Statements: tokens to a tree. */
#include "chat/jinja_syntax.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- tokens -------------------------------------------------------------------------------------- */

void fmj_syntax(fmj_parser *p, int32_t line, const char *fmt, ...)
{
    char text[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    p->r->line = line;
    fmj_fail(p->r, FM_E_FORMAT, "%s", text);
}

void fmj_parser_enter(fmj_parser *p)
{
    if (++p->depth <= FMJ_PARSE_DEPTH_MAX) return;
    p->r->line = fmj_token_now(p)->line;
    fmj_fail(p->r, FM_E_LIMIT, "statements and expressions nest deeper than %d levels",
             FMJ_PARSE_DEPTH_MAX);
}

const fmj_token *fmj_token_next(fmj_parser *p)
{
    const fmj_token *t = &p->tokens.v[p->at];
    if (t->kind != TOK_EOF) p->at++;
    return t;
}

bool fmj_token_is_op(const fmj_token *t, const char *op)
{
    return t->kind == TOK_OPERATOR && strcmp(t->op, op) == 0;
}

bool fmj_token_is_name(const fmj_token *t, const char *name)
{
    return t->kind == TOK_NAME && fmj_str_is(t->value.str, name);
}

bool fmj_token_skip_op(fmj_parser *p, const char *op)
{
    if (!fmj_token_is_op(fmj_token_now(p), op)) return false;
    p->at++;
    return true;
}

bool fmj_token_skip_name(fmj_parser *p, const char *name)
{
    if (!fmj_token_is_name(fmj_token_now(p), name)) return false;
    p->at++;
    return true;
}

static const char *kind_text(fmj_token_kind kind)
{
    switch (kind) {
    case TOK_EOF:
        return "end of template";
    case TOK_DATA:
        return "template data / text";
    case TOK_VARIABLE_BEGIN:
        return "begin of print statement";
    case TOK_VARIABLE_END:
        return "end of print statement";
    case TOK_BLOCK_BEGIN:
        return "begin of statement block";
    case TOK_BLOCK_END:
        return "end of statement block";
    case TOK_NAME:
        return "name";
    case TOK_STRING:
        return "string";
    case TOK_NUMBER:
        return "number";
    case TOK_OPERATOR:
        return "operator";
    }
    return "";
}

const char *fmj_token_text(fmj_parser *p, const fmj_token *t)
{
    if (t->kind == TOK_OPERATOR) return t->op;
    if (t->kind != TOK_NAME) return kind_text(t->kind);
    const size_t n = t->value.str->n < 60 ? t->value.str->n : 60;
    char *text = fmj_alloc(p->r, n + 1);
    memcpy(text, t->value.str->s, n);
    text[n] = 0;
    return text;
}

void fmj_token_expect_op(fmj_parser *p, const char *op)
{
    const fmj_token *t = fmj_token_now(p);
    if (fmj_token_skip_op(p, op)) return;
    if (t->kind == TOK_EOF)
        fmj_syntax(p, t->line, "unexpected end of template, expected '%s'.", op);
    fmj_syntax(p, t->line, "expected token '%s', got '%s'", op, fmj_token_text(p, t));
}

const fmj_token *fmj_token_expect(fmj_parser *p, fmj_token_kind kind)
{
    const fmj_token *t = fmj_token_now(p);
    if (t->kind == kind) return fmj_token_next(p);
    if (t->kind == TOK_EOF)
        fmj_syntax(p, t->line, "unexpected end of template, expected '%s'.", kind_text(kind));
    fmj_syntax(p, t->line, "expected token '%s', got '%s'", kind_text(kind), fmj_token_text(p, t));
}

static void expect_name(fmj_parser *p, const char *name)
{
    const fmj_token *t = fmj_token_now(p);
    if (!fmj_token_skip_name(p, name))
        fmj_syntax(p, t->line, "expected token '%s', got '%s'", name, fmj_token_text(p, t));
}

/* ---- targets ------------------------------------------------------------------------------------- */

static void check_target(fmj_parser *p, fmj_node *n)
{
    switch (n->kind) {
    case NODE_NAME:
        n->is_store = true;
        return;
    case NODE_NSREF:
        return;
    case NODE_TUPLE:
        for (size_t i = 0; i < n->list.n; i++) check_target(p, n->list.v[i]);
        return;
    default:
        fmj_syntax(p, n->line, "can't assign to '%s'",
                   n->kind == NODE_CONST  ? "const"
                   : n->kind == NODE_LIST ? "list"
                                          : "expression");
    }
}

fmj_node *fmj_parse_target(fmj_parser *p, bool with_namespace, const char *end_name)
{
    fmj_node *n = fmj_parse_tuple(p, (fmj_tuple_rules){.is_simple = true,
                                                       .with_namespace = with_namespace,
                                                       .end_name = end_name});
    check_target(p, n);
    return n;
}

fmj_node *fmj_parse_name_target(fmj_parser *p)
{
    const fmj_token *t = fmj_token_expect(p, TOK_NAME);
    static const char *const constants[] = {"true", "True", "false", "False", "none", "None"};
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++)
        if (fmj_token_is_name(t, constants[i]))
            fmj_syntax(p, t->line, "can't assign to '%s'", constants[i]);
    fmj_node *n = fmj_node_new(p->r, NODE_NAME, t->line);
    n->value = t->value;
    n->is_store = true;
    return n;
}

/* ---- statements ---------------------------------------------------------------------------------- */

static void parse_until(fmj_parser *p, fmj_nodes *body, const char *const *ends, const char *tag);

/* The rest of an opening tag and the statements up to one of `ends`, whose name is the current
 * token afterwards. */
static void parse_body(fmj_parser *p, fmj_nodes *body, const char *const *ends, const char *tag)
{
    fmj_token_skip_op(p, ":");
    fmj_token_expect(p, TOK_BLOCK_END);
    parse_until(p, body, ends, tag);
}

static void parse_whole_body(fmj_parser *p, fmj_nodes *body, const char *end, const char *tag)
{
    const char *const ends[] = {end, NULL};
    parse_body(p, body, ends, tag);
    fmj_token_next(p);
}

static fmj_node *parse_if(fmj_parser *p, int32_t line)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    fmj_node *n = fmj_node_new(p->r, NODE_IF, line);
    size_t cap = 0;
    for (bool is_else = false, is_end = false; !is_end;) {
        if (n->list.n == cap) {
            cap += 8;
            fmj_nodes *grown = fmj_alloc_array(p->r, cap, sizeof *grown);
            if (n->list.n > 0) memcpy(grown, n->bodies, n->list.n * sizeof *grown);
            n->bodies = grown;
        }
        fmj_nodes *body = &n->bodies[n->list.n];
        *body = (fmj_nodes){0};
        fmj_node *test =
            is_else ? NULL : fmj_parse_tuple(p, (fmj_tuple_rules){.no_condition = true});
        fmj_nodes_add(p->r, &n->list, test);
        parse_body(p, body, is_else ? ends + 2 : ends, "if");
        const fmj_token *t = fmj_token_next(p);
        is_else = fmj_token_is_name(t, "else");
        is_end = fmj_token_is_name(t, "endif");
    }
    return n;
}

static fmj_node *parse_for(fmj_parser *p, int32_t line)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    fmj_node *n = fmj_node_new(p->r, NODE_FOR, line);
    n->a = fmj_parse_target(p, false, "in");
    expect_name(p, "in");
    n->b = fmj_parse_tuple(p, (fmj_tuple_rules){.no_condition = true, .end_name = "recursive"});
    if (fmj_token_skip_name(p, "if")) n->c = fmj_parse_expression(p, true);
    n->is_recursive = fmj_token_skip_name(p, "recursive");
    parse_body(p, &n->body, ends, "for");
    if (fmj_token_is_name(fmj_token_next(p), "else"))
        parse_whole_body(p, &n->else_, "endfor", "for");
    return n;
}

static fmj_node *parse_set(fmj_parser *p, int32_t line)
{
    fmj_node *target = fmj_parse_target(p, true, NULL);
    fmj_node *n;
    if (fmj_token_skip_op(p, "=")) {
        n = fmj_node_new(p->r, NODE_SET, line);
        n->a = target;
        n->b = fmj_parse_tuple(p, (fmj_tuple_rules){0});
        return n;
    }
    n = fmj_node_new(p->r, NODE_SET_BLOCK, line);
    n->a = target;
    n->b = fmj_parse_filters(p, NULL, false);
    parse_whole_body(p, &n->body, "endset", "set");
    return n;
}

static void parse_signature(fmj_parser *p, fmj_node *n)
{
    fmj_token_expect_op(p, "(");
    while (!fmj_token_is_op(fmj_token_now(p), ")")) {
        if (n->list.n > 0) fmj_token_expect_op(p, ",");
        fmj_node *arg = fmj_parse_name_target(p);
        fmj_step_names(p->r, n->list.n, arg->value.str);
        for (size_t i = 0; i < n->list.n; i++)
            if (fmj_str_equal(n->list.v[i]->value.str, arg->value.str))
                fmj_syntax(p, arg->line, "duplicate argument '%.*s'", (int)arg->value.str->n,
                           arg->value.str->s);
        if (fmj_token_skip_op(p, "=")) {
            fmj_nodes_add(p->r, &n->kw, fmj_parse_expression(p, true));
        } else if (n->kw.n > 0) {
            fmj_syntax(p, arg->line, "non-default argument follows default argument");
        }
        fmj_nodes_add(p->r, &n->list, arg);
    }
    fmj_token_expect_op(p, ")");
}

static fmj_node *parse_macro(fmj_parser *p, int32_t line)
{
    fmj_node *n = fmj_node_new(p->r, NODE_MACRO, line);
    n->a = fmj_parse_name_target(p);
    parse_signature(p, n);
    parse_whole_body(p, &n->body, "endmacro", "macro");
    return n;
}

static fmj_node *parse_call_block(fmj_parser *p, int32_t line)
{
    fmj_node *n = fmj_node_new(p->r, NODE_CALL_BLOCK, line);
    if (fmj_token_is_op(fmj_token_now(p), "(")) parse_signature(p, n);
    n->a = fmj_parse_expression(p, true);
    if (n->a->kind != NODE_CALL) fmj_syntax(p, line, "expected call");
    parse_whole_body(p, &n->body, "endcall", "call");
    return n;
}

static fmj_node *parse_with(fmj_parser *p, int32_t line)
{
    fmj_node *n = fmj_node_new(p->r, NODE_WITH, line);
    while (fmj_token_now(p)->kind != TOK_BLOCK_END) {
        if (n->list.n > 0) fmj_token_expect_op(p, ",");
        fmj_nodes_add(p->r, &n->list, fmj_parse_target(p, false, NULL));
        fmj_token_expect_op(p, "=");
        fmj_nodes_add(p->r, &n->kw, fmj_parse_expression(p, true));
    }
    parse_whole_body(p, &n->body, "endwith", "with");
    return n;
}

static fmj_node *parse_print(fmj_parser *p, int32_t line)
{
    fmj_node *n = fmj_node_new(p->r, NODE_PRINT, line);
    while (fmj_token_now(p)->kind != TOK_BLOCK_END) {
        if (n->list.n > 0) fmj_token_expect_op(p, ",");
        fmj_nodes_add(p->r, &n->list, fmj_parse_expression(p, true));
    }
    return n;
}

static fmj_node *parse_statement(fmj_parser *p, const char *const *ends, const char *open_tag)
{
    const fmj_token *t = fmj_token_now(p);
    if (t->kind != TOK_NAME) fmj_syntax(p, t->line, "tag name expected");
    p->at++;
    if (fmj_token_is_name(t, "if")) return parse_if(p, t->line);
    if (fmj_token_is_name(t, "for")) return parse_for(p, t->line);
    if (fmj_token_is_name(t, "set")) return parse_set(p, t->line);
    if (fmj_token_is_name(t, "macro")) return parse_macro(p, t->line);
    if (fmj_token_is_name(t, "call")) return parse_call_block(p, t->line);
    if (fmj_token_is_name(t, "with")) return parse_with(p, t->line);
    if (fmj_token_is_name(t, "print")) return parse_print(p, t->line);
    if (fmj_token_is_name(t, "break")) return fmj_node_new(p->r, NODE_BREAK, t->line);
    if (fmj_token_is_name(t, "continue")) return fmj_node_new(p->r, NODE_CONTINUE, t->line);
    if (fmj_token_is_name(t, "filter")) {
        fmj_node *n = fmj_node_new(p->r, NODE_FILTER_BLOCK, t->line);
        n->b = fmj_parse_filters(p, NULL, true);
        parse_whole_body(p, &n->body, "endfilter", "filter");
        return n;
    }
    if (fmj_token_is_name(t, "generation")) {
        fmj_node *n = fmj_node_new(p->r, NODE_CALL_BLOCK, t->line);
        parse_whole_body(p, &n->body, "endgeneration", "generation");
        return n;
    }
    static const char *const others[] = {"extends", "include", "import",
                                         "from",    "block",   "autoescape"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (!fmj_token_is_name(t, others[i])) continue;
        p->r->line = t->line;
        fmj_fail(p->r, FM_E_UNSUPPORTED, "the statement '%s' has no meaning in a chat template",
                 others[i]);
    }
    fmj_syntax(p, t->line, "Encountered unknown tag '%s'.%s%s%s%s%s", fmj_token_text(p, t),
               ends ? " Jinja was looking for '" : "", ends ? ends[0] : "", ends ? "'" : "",
               ends ? ", which closes " : "", ends ? open_tag : "");
}

static bool is_one_of(const fmj_token *t, const char *const *names)
{
    for (; names && *names; names++)
        if (fmj_token_is_name(t, *names)) return true;
    return false;
}

static fmj_node *output_of(fmj_parser *p, fmj_node_kind kind, const fmj_token *t)
{
    fmj_node *n = fmj_node_new(p->r, kind, t->line);
    if (kind == NODE_DATA) n->value = t->value;
    return n;
}

static void parse_until(fmj_parser *p, fmj_nodes *body, const char *const *ends, const char *tag)
{
    fmj_parser_enter(p);
    for (;;) {
        const fmj_token *t = fmj_token_next(p);
        p->r->line = t->line;
        if (t->kind == TOK_DATA) {
            fmj_nodes_add(p->r, body, output_of(p, NODE_DATA, t));
        } else if (t->kind == TOK_VARIABLE_BEGIN) {
            fmj_node *n = output_of(p, NODE_PRINT, t);
            fmj_nodes_add(p->r, &n->list, fmj_parse_tuple(p, (fmj_tuple_rules){0}));
            fmj_token_expect(p, TOK_VARIABLE_END);
            fmj_nodes_add(p->r, body, n);
        } else if (t->kind == TOK_BLOCK_BEGIN) {
            if (is_one_of(fmj_token_now(p), ends)) break;
            fmj_nodes_add(p->r, body, parse_statement(p, ends, tag));
            fmj_token_expect(p, TOK_BLOCK_END);
        } else if (ends) {
            fmj_syntax(p, t->line,
                       "Unexpected end of template. Jinja was looking for '%s', which closes '%s'",
                       ends[0], tag);
        } else {
            break;
        }
    }
    p->depth--;
}

void fmj_parse(fmj_run *r, fmj_nodes *body, const char *source, size_t n)
{
    fmj_parser p = {.r = r};
    fmj_lex(r, &p.tokens, source, n);
    parse_until(&p, body, NULL, NULL);
}
