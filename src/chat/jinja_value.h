/* Values of a running template and what can be done with them.
 *
 * Values are immutable but for namespaces, cyclers, joiners and iterators, as in the sandbox. All of
 * them live in the arena of the rendering. An operation that fails does not return: it fills the
 * error and jumps to fm_jinja_render(), which frees the arena; nothing in between owns anything else.
 */
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "chat/jinja.h"

/* ---- arena (jinja_arena.c) ------------------------------------------------------------------- */

typedef struct fmj_chunk fmj_chunk;

typedef struct {
    fmj_chunk *chunks;
    char *at;
    size_t left;
    uint64_t used, limit; /* bytes taken from the system, and how many may be */
} fmj_arena;

/* Aligned for anything; NULL over the limit or without memory. Not cleared. */
void *fmj_arena_get(fmj_arena *a, size_t n);
void fmj_arena_free(fmj_arena *a);

/* ---- values ------------------------------------------------------------------------------------ */

typedef enum {
    FMJ_MISSING, /* not a value: no such variable, argument not given */
    FMJ_UNDEFINED,
    FMJ_NONE,
    FMJ_BOOL,
    FMJ_INT,
    FMJ_FLOAT,
    FMJ_STR,
    FMJ_LIST,
    FMJ_TUPLE,
    FMJ_DICT,
    FMJ_RANGE,
    FMJ_VIEW,     /* keys, values or items of a dict */
    FMJ_ITERATOR, /* what lazy filters give; items are computed at once, handed out once */
    FMJ_NAMESPACE,
    FMJ_MACRO,
    FMJ_BUILTIN,
    FMJ_METHOD, /* method of a value, not called yet */
    FMJ_LOOP,
    FMJ_CYCLER,
    FMJ_JOINER,
} fmj_kind;

typedef struct fmj_str fmj_str;
typedef struct fmj_list fmj_list;
typedef struct fmj_dict fmj_dict;
typedef struct fmj_undefined fmj_undefined;
typedef struct fmj_range fmj_range;
typedef struct fmj_view fmj_view;
typedef struct fmj_iterator fmj_iterator;
typedef struct fmj_macro fmj_macro;
typedef struct fmj_builtin fmj_builtin;
typedef struct fmj_method fmj_method;
typedef struct fmj_loop fmj_loop;
typedef struct fmj_cycler fmj_cycler;
typedef struct fmj_run fmj_run;

typedef struct {
    fmj_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        const fmj_str *str;
        const fmj_list *list; /* LIST, TUPLE */
        fmj_dict *dict;       /* DICT, NAMESPACE */
        const fmj_undefined *undefined;
        const fmj_range *range;
        const fmj_view *view;
        fmj_iterator *iterator;
        const fmj_macro *macro;
        const fmj_builtin *builtin;
        const fmj_method *method;
        fmj_loop *loop;
        fmj_cycler *cycler; /* CYCLER, JOINER */
    };
} fmj_value;

/* Valid UTF-8. Parts of a string share its bytes. */
struct fmj_str {
    const char *s;
    const uint8_t *trust; /* [n]; NULL: is_trusted holds for all bytes */
    size_t n;
    size_t n_char;
    bool is_trusted;
    bool is_markup; /* made by safe or escape: text that meets it is escaped */
};

struct fmj_list {
    fmj_value *items;
    size_t n;
    bool is_group; /* of groupby: a pair with the attributes grouper and list */
};

/* Insertion order; `index` is an open hash table over it once there are more than a few. */
struct fmj_dict {
    fmj_value *keys, *values;
    size_t n, cap;
    uint32_t *index; /* [n_index] position + 1, 0: free */
    size_t n_index;
};

struct fmj_undefined {
    const char *hint; /* the whole message, or NULL */
    fmj_value owner;  /* whose attribute or element it would be; MISSING: a variable */
    fmj_value name;
};

struct fmj_range {
    int64_t start, stop, step;
    size_t n;
};

/* Element i, i in [0, n). It fits where start and step fit, but i * step alone may not. */
static inline int64_t fmj_range_at(const fmj_range *range, size_t i)
{
    return (int64_t)((uint64_t)range->start + (uint64_t)i * (uint64_t)range->step);
}

struct fmj_view {
    const fmj_dict *dict;
    char part; /* 'k', 'v', 'i' */
};

struct fmj_iterator {
    const fmj_list *list;
    size_t at;
};

struct fmj_method {
    fmj_value self;
    const char *name;
};

struct fmj_cycler {
    fmj_value *items; /* joiner: the separator */
    size_t n, at;
};

/* Arguments of a call. */
typedef struct {
    const fmj_value *pos;
    size_t n_pos;
    const fmj_str *const *names; /* [n_kw] */
    const fmj_value *kw;
    size_t n_kw;
} fmj_args;

typedef struct {
    char *s;
    uint8_t *trust;
    size_t n, cap;
} fmj_buf;

struct fmj_frame;

struct fmj_run {
    const fm_jinja *t;
    const fm_jinja_input *in;
    fmj_arena arena;
    jmp_buf on_error;
    fm_error *err;
    fm_status status;
    int32_t line; /* of the template, being evaluated */
    int32_t depth;
    uint64_t steps;
    struct fmj_frame *frame;
    fmj_buf *out;
    fmj_value *context; /* [names of the template] variables of the request, or MISSING */
};

/* ---- errors and limits (jinja_run.c): none of the failing ones returns ------------------------- */

_Noreturn void fmj_raise(fmj_run *r, const char *fmt, ...) FM_PRINTF(2, 3);
_Noreturn void fmj_fail(fmj_run *r, fm_status code, const char *fmt, ...) FM_PRINTF(3, 4);
/* Raises what using this undefined value raises. */
_Noreturn void fmj_raise_undefined(fmj_run *r, const fmj_undefined *u);
/* Counts work: one step is about one node of the tree or 64 bytes of text. */
void fmj_step(fmj_run *r, uint64_t n);
/* Counts the search for a name among n, one after another. */
static inline void fmj_step_names(fmj_run *r, size_t n, const fmj_str *name)
{
    fmj_step(r, n / 8 + n * (name->n / 256));
}
/* Every recursion goes through these. */
void fmj_enter(fmj_run *r);
void fmj_leave(fmj_run *r);
void *fmj_alloc(fmj_run *r, size_t n);
void *fmj_alloc_array(fmj_run *r, size_t n, size_t size);

/* ---- making values (jinja_value.c) ------------------------------------------------------------- */

#define FMJ_V_NONE ((fmj_value){.kind = FMJ_NONE})
#define FMJ_V_MISSING ((fmj_value){.kind = FMJ_MISSING})
static inline fmj_value fmj_bool(bool b)
{
    return (fmj_value){.kind = FMJ_BOOL, .b = b};
}
static inline fmj_value fmj_int(int64_t i)
{
    return (fmj_value){.kind = FMJ_INT, .i = i};
}
static inline fmj_value fmj_float(double f)
{
    return (fmj_value){.kind = FMJ_FLOAT, .f = f};
}
static inline fmj_value fmj_str_value(const fmj_str *s)
{
    return (fmj_value){.kind = FMJ_STR, .str = s};
}

/* A string over bytes that outlive the rendering or lie in its arena. */
const fmj_str *fmj_str_over(fmj_run *r, const char *s, size_t n, bool is_trusted);
fmj_value fmj_text(fmj_run *r, const char *literal); /* untrusted, not copied */
/* Bytes [at, at + n) of s, at character boundaries; no copy. Keeps is_markup. */
const fmj_str *fmj_str_part(fmj_run *r, const fmj_str *s, size_t at, size_t n);
bool fmj_str_is(const fmj_str *s, const char *literal);
bool fmj_str_equal(const fmj_str *a, const fmj_str *b);
/* Byte offset of character i, i in [0, n_char]. */
size_t fmj_str_offset(fmj_run *r, const fmj_str *s, size_t i);
static inline bool fmj_str_is_ascii(const fmj_str *s)
{
    return s->n_char == s->n;
}

fmj_value fmj_list_of(fmj_run *r, fmj_kind kind, fmj_value *items, size_t n);
fmj_value fmj_pair(fmj_run *r, fmj_value a, fmj_value b); /* a tuple */
fmj_value fmj_iterator_of(fmj_run *r, fmj_value *items, size_t n);
fmj_value fmj_undefined_name(fmj_run *r, const fmj_str *name);
fmj_value fmj_undefined_of(fmj_run *r, fmj_value owner, fmj_value name);
fmj_value fmj_undefined_hint(fmj_run *r, const char *hint);
fmj_value fmj_method_of(fmj_run *r, fmj_value self, const char *name);

fmj_dict *fmj_dict_new(fmj_run *r, size_t n_expected);
/* Raises for keys that cannot be hashed. */
void fmj_dict_set(fmj_run *r, fmj_dict *d, fmj_value key, fmj_value value);
/* NULL: not there. */
const fmj_value *fmj_dict_get(fmj_run *r, const fmj_dict *d, fmj_value key);

/* A growing array of values. */
typedef struct {
    fmj_value *v;
    size_t n, cap;
} fmj_vec;
void fmj_vec_add(fmj_run *r, fmj_vec *vec, fmj_value v);

/* ---- text (jinja_buf.c) ------------------------------------------------------------------------ */

void fmj_buf_add(fmj_run *r, fmj_buf *b, const char *s, size_t n, bool is_trusted);
void fmj_buf_text(fmj_run *r, fmj_buf *b, const char *literal); /* untrusted */
void fmj_buf_str(fmj_run *r, fmj_buf *b, const fmj_str *s);
/* Bytes [at, at + n) of s. */
void fmj_buf_part(fmj_run *r, fmj_buf *b, const fmj_str *s, size_t at, size_t n);
/* As bytes [at] of `like` came. */
void fmj_buf_char(fmj_run *r, fmj_buf *b, int32_t code, const fmj_str *like, size_t at);
void fmj_buf_fill(fmj_run *r, fmj_buf *b, const fmj_str *fill, int64_t n);
const fmj_str *fmj_buf_take(fmj_run *r, fmj_buf *b);
fmj_value fmj_buf_value(fmj_run *r, fmj_buf *b);

/* ---- str() and repr() (jinja_repr.c) ----------------------------------------------------------- */

/* str(v) */
const fmj_str *fmj_to_str(fmj_run *r, fmj_value v);
void fmj_buf_put(fmj_run *r, fmj_buf *b, fmj_value v);  /* str()  */
void fmj_buf_repr(fmj_run *r, fmj_buf *b, fmj_value v); /* repr() */
/* "str", "NoneType" */
const char *fmj_type_name(fmj_value v);
/* The shortest text that gives the float back, as Python writes it. Returns its length. */
enum { FMJ_NUMBER = 400 };
int fmj_float_text(char out[FMJ_NUMBER], double f);
/* &, <, >, ", ' become entities. */
const fmj_str *fmj_escape(fmj_run *r, const fmj_str *s);

/* ---- operators (jinja_ops.c) ------------------------------------------------------------------- */

bool fmj_truth(fmj_run *r, fmj_value v);
bool fmj_equal(fmj_run *r, fmj_value a, fmj_value b);
/* <0, 0, >0; raises for types without an order. `op` for the message: "<". */
int fmj_compare(fmj_run *r, fmj_value a, fmj_value b, const char *op);
/* a < b etc. where NaN is possible; op one of "<", "<=", ">", ">=" */
bool fmj_ordered(fmj_run *r, fmj_value a, fmj_value b, const char *op);
bool fmj_contains(fmj_run *r, fmj_value container, fmj_value item);
fmj_value fmj_arith(fmj_run *r, char op, fmj_value a, fmj_value b); /* + - * / i % p: i is // */
fmj_value fmj_negate(fmj_run *r, fmj_value v);
fmj_value fmj_plus(fmj_run *r, fmj_value v);
static inline bool fmj_is_number(fmj_value v)
{
    return v.kind == FMJ_INT || v.kind == FMJ_FLOAT || v.kind == FMJ_BOOL;
}
static inline double fmj_as_double(fmj_value v)
{
    return v.kind == FMJ_FLOAT ? v.f : v.kind == FMJ_BOOL ? (double)v.b : (double)v.i;
}
/* int or bool; raises else */
int64_t fmj_as_index(fmj_run *r, fmj_value v);
/* False when there is none: -1 from fmj_len(). */
int64_t fmj_len(fmj_run *r, fmj_value v); /* -1: no length */
/* All items of an iterable; an iterator is used up. Raises when v cannot be iterated. */
const fmj_list *fmj_items(fmj_run *r, fmj_value v);
bool fmj_is_iterable(fmj_value v);

/* ---- attributes and elements (jinja_access.c) -------------------------------------------------- */

fmj_value fmj_getattr(fmj_run *r, fmj_value obj, const fmj_str *name); /* obj.name   */
fmj_value fmj_getitem(fmj_run *r, fmj_value obj, fmj_value key);       /* obj[key]   */
/* Python's attributes alone, without the elements; MISSING: none. */
fmj_value fmj_attribute(fmj_run *r, fmj_value obj, const fmj_str *name);
fmj_value fmj_slice(fmj_run *r, fmj_value obj, fmj_value start, fmj_value stop, fmj_value step);

/* ---- calls (jinja_call.c, jinja_methods.c, jinja_strings.c, jinja_format.c) -------------------- */

struct fmj_builtin {
    const char *name;
    fmj_value (*call)(fmj_run *r, const fmj_args *args);
};
extern const fmj_builtin fmj_globals[]; /* ends with name == NULL */

fmj_value fmj_call(fmj_run *r, fmj_value f, const fmj_args *args);
/* Puts arguments in the places of `params` ("a,b,c"; the first n_required must be there);
 * out[] is MISSING for those not given. `what` is the callee for messages. Returns their number. */
enum { FMJ_PARAMS_MAX = 8 };
size_t fmj_bind(fmj_run *r, const char *what, const char *params, size_t n_required,
                const fmj_args *args, fmj_value out[FMJ_PARAMS_MAX]);
fmj_value fmj_str_method(fmj_run *r, const fmj_str *self, const char *name, const fmj_args *args);
fmj_value fmj_call_method(fmj_run *r, const fmj_method *m, const fmj_args *args);
fmj_value fmj_percent(fmj_run *r, const fmj_str *format, fmj_value values);    /* format % values */
fmj_value fmj_format(fmj_run *r, const fmj_str *format, const fmj_args *args); /* .format() */

/* ---- text functions shared by methods and filters (jinja_strings.c) ---------------------------- */

const fmj_str *fmj_strip(fmj_run *r, const fmj_str *s, fmj_value chars, bool left, bool right);
const fmj_str *fmj_replace(fmj_run *r, const fmj_str *s, const fmj_str *old, const fmj_str *new,
                           int64_t count);
/* SIZE_MAX: not found. Positions in bytes. */
size_t fmj_find(fmj_run *r, const fmj_str *s, const fmj_str *sub, size_t from, size_t to);
size_t fmj_rfind(fmj_run *r, const fmj_str *s, const fmj_str *sub, size_t from, size_t to);
fmj_value fmj_splitlines(fmj_run *r, const fmj_str *s, bool keep_ends);
/* Pads to `width` characters; where is 'l' (text left), 'r' or 'c' (str.center). */
const fmj_str *fmj_pad(fmj_run *r, const fmj_str *s, int64_t width, const fmj_str *fill,
                       char where);

/* ---- Unicode (jinja_unicode.c) ----------------------------------------------------------------- */

typedef enum { FMJ_UPPER, FMJ_LOWER, FMJ_TITLE, FMJ_FOLD } fmj_case;
/* Python's full mapping of one character to up to 3; returns their number. */
int fmj_map_case(int32_t code, fmj_case to, int32_t out[3]);
const fmj_str *fmj_str_case(fmj_run *r, const fmj_str *s, fmj_case to);
const fmj_str *fmj_capitalize(fmj_run *r, const fmj_str *s);
const fmj_str *fmj_swapcase(fmj_run *r, const fmj_str *s);
const fmj_str *fmj_title(fmj_run *r, const fmj_str *s); /* str.title() */
bool fmj_is_space(int32_t code);
bool fmj_is_printable(int32_t code);
bool fmj_is_upper(int32_t code);
bool fmj_is_lower(int32_t code);
bool fmj_is_alpha(int32_t code);
bool fmj_is_decimal(int32_t code);
bool fmj_is_digit(int32_t code);
bool fmj_is_numeric(int32_t code);
bool fmj_is_cased(int32_t code);
/* The character at s[at] and its length in bytes. */
int32_t fmj_char_at(const fmj_str *s, size_t at, size_t *len);

/* ---- filters and tests ------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    const char *params; /* NULL: takes its arguments raw */
    size_t n_required;
    fmj_value (*bound)(fmj_run *r, fmj_value v, const fmj_value *arg);
    fmj_value (*raw)(fmj_run *r, fmj_value v, const fmj_args *args);
} fmj_filter;

/* Index into a table of all of them, -1: none. */
int fmj_filter_find(const char *name, size_t n);
fmj_value fmj_filter_call(fmj_run *r, int filter, fmj_value v, const fmj_args *args);
int fmj_test_find(const char *name, size_t n);
bool fmj_test_call(fmj_run *r, int test, fmj_value v, const fmj_args *args);

/* By name, which need not be a string; raises for unknown ones. */
fmj_value fmj_filter_by_name(fmj_run *r, fmj_value name, fmj_value v, const fmj_args *args);
bool fmj_test_by_name(fmj_run *r, fmj_value name, fmj_value v, const fmj_args *args);

extern const fmj_filter fmj_filters_text[], fmj_filters_seq[]; /* end with name == NULL */

/* ---- JSON and time ----------------------------------------------------------------------------- */

/* A value of the request; strings are not copied. */
fmj_value fmj_from_json(fmj_run *r, const json_t *j);
/* json.dumps with the arguments of transformers' tojson. */
fmj_value fmj_tojson(fmj_run *r, fmj_value v, const fmj_value *arg);
fmj_value fmj_strftime_now(fmj_run *r, const fmj_str *format);
