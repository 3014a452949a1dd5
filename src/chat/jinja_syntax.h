/* Tokens, the tree that a template is compiled to, and the frames its names live in. */
#pragma once

#include "chat/jinja_value.h"

/* ---- tokens (jinja_lex.c) ---------------------------------------------------------------------- */

typedef enum {
    TOK_EOF,
    TOK_DATA,
    TOK_VARIABLE_BEGIN,
    TOK_VARIABLE_END,
    TOK_BLOCK_BEGIN,
    TOK_BLOCK_END,
    TOK_NAME,
    TOK_STRING,
    TOK_NUMBER,
    TOK_OPERATOR, /* value: its spelling */
} fmj_token_kind;

typedef struct {
    fmj_token_kind kind;
    int32_t line;
    char op[3];      /* OPERATOR */
    fmj_value value; /* DATA, NAME, STRING: a string; NUMBER: int or float */
} fmj_token;

typedef struct {
    fmj_token *v; /* ends with EOF */
    size_t n, cap;
} fmj_tokens;

void fmj_lex(fmj_run *r, fmj_tokens *out, const char *source, size_t n);

/* ---- tree -------------------------------------------------------------------------------------- */

typedef enum {
    /* expressions */
    NODE_CONST,
    NODE_NAME,
    NODE_TUPLE,
    NODE_LIST,
    NODE_DICT,    /* list: keys and values in turn            */
    NODE_GETATTR, /* a.name                                  */
    NODE_GETITEM, /* a[b]                                    */
    NODE_SLICE,   /* only as b of GETITEM: a:b:c              */
    NODE_CALL,    /* a(list, kw)                              */
    NODE_FILTER,  /* a | name(list, kw); a NULL: of a block   */
    NODE_TEST,
    NODE_AND,
    NODE_OR,
    NODE_NOT,
    NODE_COMPARE, /* a, list of operands, ops                */
    NODE_ARITH,   /* a op b                                  */
    NODE_NEG,
    NODE_POS,
    NODE_CONCAT,  /* list                                     */
    NODE_IF_EXPR, /* a if b else c                           */
    NODE_NSREF,   /* only as a target: name.attr              */
    /* statements */
    NODE_DATA,
    NODE_PRINT,     /* list                                     */
    NODE_IF,        /* list: tests (NULL: else); bodies         */
    NODE_FOR,       /* target a, iter b, test c, body, else_    */
    NODE_SET,       /* a = b                                    */
    NODE_SET_BLOCK, /* a, filter b, body                     */
    NODE_MACRO,
    NODE_CALL_BLOCK,   /* call a (NULL: generation), macro     */
    NODE_FILTER_BLOCK, /* filter b, body                     */
    NODE_WITH,         /* list: targets, kw_values: values; body   */
    NODE_BREAK,
    NODE_CONTINUE,
} fmj_node_kind;

typedef struct fmj_node fmj_node;
typedef struct fmj_scope fmj_scope;

typedef struct {
    fmj_node **v;
    size_t n, cap;
} fmj_nodes;

struct fmj_node {
    fmj_node_kind kind;
    int32_t line;
    int32_t height;  /* of the tree below, 1 for a leaf */
    int32_t index;   /* FILTER, TEST: in the table, -1: unknown */
    fmj_value value; /* CONST, DATA; the name of NAME, GETATTR, FILTER, TEST, NSREF's attribute */
    fmj_node *a, *b, *c;
    fmj_nodes list;
    fmj_node *dyn_args, *dyn_kwargs; /* CALL, FILTER, TEST: *a, **b */
    const fmj_str **kw_names;        /* [kw.n] */
    fmj_nodes kw;
    const char **ops; /* COMPARE: [list.n]; ARITH: [1] */
    bool is_store;    /* NAME: a target */
    /* NAME, NSREF, MACRO (its own name): where the value lies */
    int32_t hops, slot;
    /* statements */
    fmj_nodes body, else_;
    fmj_nodes *bodies; /* IF: [list.n] */
    bool is_recursive; /* FOR */
    bool has_loop;     /* FOR: the body looks at `loop` */
    int32_t loop_slot;
    /* MACRO, CALL_BLOCK: list: parameters (NAME), kw: defaults of the last of them */
    int32_t caller_slot, kwargs_slot, varargs_slot; /* -1: not looked at */
    bool has_explicit_caller;
    fmj_scope *scope, *test_scope, *else_scope;
};

/* ---- frames ------------------------------------------------------------------------------------ */

typedef enum {
    LOAD_PARAMETER, /* given by the statement   */
    LOAD_UNDEFINED, /* missing until it is set  */
    LOAD_RESOLVE,   /* from the request         */
    LOAD_ALIAS,     /* a frame further out      */
} fmj_load_kind;

typedef struct {
    fmj_load_kind kind;
    int32_t name;       /* RESOLVE: number of the name in the template */
    int32_t hops, slot; /* ALIAS */
} fmj_load;

/* One frame's variables: slot i is filled by loads[i] when the frame is entered. */
struct fmj_scope {
    int32_t n;
    fmj_load *loads;
};

typedef struct fmj_frame {
    struct fmj_frame *up;
    fmj_value *slots;
} fmj_frame;

struct fm_jinja {
    fmj_arena arena;
    char *origin;
    fmj_nodes body;
    fmj_scope *scope;
    fmj_dict *names; /* that are looked up in the request, with their numbers */
};

enum {
    FMJ_PARSE_DEPTH_MAX = 100, /* statements and parentheses inside each other      */
    FMJ_HEIGHT_MAX = 400,      /* of an expression's tree                           */
    FMJ_RUN_DEPTH_MAX = 1600,  /* nodes being evaluated inside each other           */
};

/* jinja_parse.c, jinja_parse_expr.c */
typedef struct {
    fmj_run *r;
    fmj_tokens tokens;
    size_t at;
    int32_t depth;
} fmj_parser;

void fmj_parse(fmj_run *r, fmj_nodes *body, const char *source, size_t n);
fmj_node *fmj_parse_expression(fmj_parser *p, bool with_condition);
typedef struct {
    bool is_simple, no_condition, is_parenthesized, with_namespace;
    const char *end_name; /* a name that ends it too */
} fmj_tuple_rules;
fmj_node *fmj_parse_tuple(fmj_parser *p, fmj_tuple_rules rules);
fmj_node *fmj_parse_filters(fmj_parser *p, fmj_node *node, bool is_inline);
fmj_node *fmj_parse_target(fmj_parser *p, bool with_namespace, const char *end_name);
fmj_node *fmj_parse_name_target(fmj_parser *p);

/* Token helpers. */
static inline const fmj_token *fmj_token_now(const fmj_parser *p)
{
    return &p->tokens.v[p->at];
}
const fmj_token *fmj_token_next(fmj_parser *p); /* returns the one before it moves on */
bool fmj_token_is_op(const fmj_token *t, const char *op);
bool fmj_token_is_name(const fmj_token *t, const char *name);
bool fmj_token_skip_op(fmj_parser *p, const char *op);
bool fmj_token_skip_name(fmj_parser *p, const char *name);
void fmj_token_expect_op(fmj_parser *p, const char *op);
const fmj_token *fmj_token_expect(fmj_parser *p, fmj_token_kind kind);
/* What the token is, for a message. */
const char *fmj_token_text(fmj_parser *p, const fmj_token *t);
_Noreturn void fmj_syntax(fmj_parser *p, int32_t line, const char *fmt, ...) FM_PRINTF(3, 4);

fmj_node *fmj_node_new(fmj_run *r, fmj_node_kind kind, int32_t line);
void fmj_nodes_add(fmj_run *r, fmj_nodes *list, fmj_node *n);
/* Sets node's height from a child and refuses trees that are too high. */
void fmj_node_adopt(fmj_run *r, fmj_node *node, const fmj_node *child);
void fmj_parser_enter(fmj_parser *p);

/* jinja_scope.c: gives every name its place, as jinja2's idtracking does. */
void fmj_resolve(fmj_run *r, fm_jinja *t);

/* jinja_eval.c, jinja_exec.c */
fmj_value fmj_eval(fmj_run *r, const fmj_node *n);
typedef enum { FMJ_NEXT, FMJ_BREAK, FMJ_CONTINUE } fmj_flow;
fmj_flow fmj_exec(fmj_run *r, const fmj_nodes *body);
fmj_value fmj_apply_filter(fmj_run *r, const fmj_node *n, fmj_value v);
fmj_frame *fmj_frame_enter(fmj_run *r, const fmj_scope *scope, fmj_frame *up);
/* Fills the slots again, for the next turn of a loop. */
void fmj_frame_load(fmj_run *r, fmj_frame *f, const fmj_scope *scope);
void fmj_assign(fmj_run *r, const fmj_node *target, fmj_value v);
/* Arguments of a CALL, FILTER or TEST. */
void fmj_eval_args(fmj_run *r, const fmj_node *n, fmj_args *out, const fmj_value *caller);

struct fmj_macro {
    const fmj_node *node;
    fmj_frame *frame; /* it was made in */
    const char *name;
};
fmj_value fmj_macro_call(fmj_run *r, const fmj_macro *m, const fmj_args *args);

/* Where a loop's items come from: a list or a range, through the test of the loop. */
typedef struct {
    const fmj_list *items;
    const fmj_range *range; /* NULL: items */
    size_t at;
    const fmj_node *node; /* for the test; NULL: none */
    fmj_frame *test_frame;
} fmj_source;

struct fmj_loop {
    fmj_source source;
    int64_t index0, depth0;
    int64_t length;                                 /* -1: not known yet */
    fmj_value current, before, after, last_changed; /* MISSING: none */
    const fmj_node *node;
    fmj_frame *up; /* the frame around the loop */
};
/* Attribute of a loop; MISSING: none. */
fmj_value fmj_loop_attribute(fmj_run *r, fmj_loop *l, const fmj_str *name);
fmj_value fmj_loop_call(fmj_run *r, fmj_loop *l, const fmj_args *args); /* loop(items) */
