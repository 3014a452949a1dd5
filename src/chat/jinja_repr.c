/* str() and repr() as Python writes them. */
#include "chat/jinja_syntax.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *fmj_type_name(fmj_value v)
{
    switch (v.kind) {
    case FMJ_MISSING:
    case FMJ_UNDEFINED:
        return "Undefined";
    case FMJ_NONE:
        return "NoneType";
    case FMJ_BOOL:
        return "bool";
    case FMJ_INT:
        return "int";
    case FMJ_FLOAT:
        return "float";
    case FMJ_STR:
        return v.str->is_markup ? "Markup" : "str";
    case FMJ_LIST:
        return "list";
    case FMJ_TUPLE:
        return "tuple";
    case FMJ_DICT:
        return "dict";
    case FMJ_RANGE:
        return "range";
    case FMJ_VIEW:
        return v.view->part == 'k'   ? "dict_keys"
               : v.view->part == 'v' ? "dict_values"
                                     : "dict_items";
    case FMJ_ITERATOR:
        return "generator";
    case FMJ_NAMESPACE:
        return "namespace";
    case FMJ_MACRO:
        return "Macro";
    case FMJ_BUILTIN:
        return "function";
    case FMJ_METHOD:
        return "builtin_function_or_method";
    case FMJ_LOOP:
        return "LoopContext";
    case FMJ_CYCLER:
        return "Cycler";
    case FMJ_JOINER:
        return "Joiner";
    }
    return "object";
}

/* ---- numbers ------------------------------------------------------------------------------------- */

int fmj_float_text(char out[FMJ_NUMBER], double f)
{
    if (isnan(f)) return snprintf(out, FMJ_NUMBER, "nan");
    if (isinf(f)) return snprintf(out, FMJ_NUMBER, f < 0 ? "-inf" : "inf");
    char digits[40];
    int precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, f);
    while (strtod(digits, NULL) != f && ++precision < 17);
    const int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        /* Python writes at least two digits of the exponent, as C does. */
        return snprintf(out, FMJ_NUMBER, "%s", digits);
    }
    const int decimals = precision - exponent > 1 ? precision - exponent : 1;
    return snprintf(out, FMJ_NUMBER, "%.*f", decimals, f);
}

static void put_number(fmj_run *r, fmj_buf *b, fmj_value v)
{
    char text[FMJ_NUMBER];
    int n;
    if (v.kind == FMJ_FLOAT) {
        n = fmj_float_text(text, v.f);
    } else if (v.kind == FMJ_BOOL) {
        n = snprintf(text, sizeof text, v.b ? "True" : "False");
    } else {
        n = snprintf(text, sizeof text, "%" PRId64, v.i);
    }
    fmj_buf_add(r, b, text, (size_t)n, false);
}

/* ---- text ---------------------------------------------------------------------------------------- */

static void put_quoted(fmj_run *r, fmj_buf *b, const fmj_str *s)
{
    const bool has_single = memchr(s->s, '\'', s->n) != NULL;
    const bool has_double = memchr(s->s, '"', s->n) != NULL;
    const char quote = has_single && !has_double ? '"' : '\'';
    fmj_buf_add(r, b, &quote, 1, false);
    for (size_t at = 0, len; at < s->n; at += len) {
        const int32_t c = fmj_char_at(s, at, &len);
        char escape[16];
        if (c == quote || c == '\\') {
            snprintf(escape, sizeof escape, "\\%c", (char)c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            snprintf(escape, sizeof escape, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        } else if (fmj_is_printable(c)) {
            fmj_buf_part(r, b, s, at, len);
            continue;
        } else {
            snprintf(escape, sizeof escape,
                     c < 0x100     ? "\\x%02" PRIx32
                     : c < 0x10000 ? "\\u%04" PRIx32
                                   : "\\U%08" PRIx32,
                     (uint32_t)c);
        }
        fmj_buf_text(r, b, escape);
    }
    fmj_buf_add(r, b, &quote, 1, false);
}

static void put_items(fmj_run *r, fmj_buf *b, const char *open, const fmj_list *l,
                      const char *close)
{
    fmj_buf_text(r, b, open);
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0) fmj_buf_text(r, b, ", ");
        fmj_buf_repr(r, b, l->items[i]);
    }
    fmj_buf_text(r, b, close);
}

static void put_dict(fmj_run *r, fmj_buf *b, const fmj_dict *d)
{
    fmj_buf_text(r, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0) fmj_buf_text(r, b, ", ");
        fmj_buf_repr(r, b, d->keys[i]);
        fmj_buf_text(r, b, ": ");
        fmj_buf_repr(r, b, d->values[i]);
    }
    fmj_buf_text(r, b, "}");
}

static void put_range(fmj_run *r, fmj_buf *b, const fmj_range *range)
{
    char text[80];
    snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64, range->start, range->stop);
    fmj_buf_text(r, b, text);
    if (range->step != 1) {
        snprintf(text, sizeof text, ", %" PRId64, range->step);
        fmj_buf_text(r, b, text);
    }
    fmj_buf_text(r, b, ")");
}

static void put_object(fmj_run *r, fmj_buf *b, fmj_value v)
{
    char text[200];
    switch (v.kind) {
    case FMJ_MACRO:
        snprintf(text, sizeof text, "<Macro '%.150s'>", v.macro->name);
        break;
    case FMJ_BUILTIN:
        snprintf(text, sizeof text, "<function %s>", v.builtin->name);
        break;
    case FMJ_METHOD:
        snprintf(text, sizeof text, "<built-in method %s of %s object>", v.method->name,
                 fmj_type_name(v.method->self));
        break;
    case FMJ_LOOP: {
        const fmj_str length = {.s = "length", .n = 6, .n_char = 6};
        snprintf(text, sizeof text, "<LoopContext %" PRId64 "/%" PRId64 ">", v.loop->index0 + 1,
                 fmj_loop_attribute(r, v.loop, &length).i);
        break;
    }
    default:
        snprintf(text, sizeof text, "<%s object>", fmj_type_name(v));
        break;
    }
    fmj_buf_text(r, b, text);
}

void fmj_buf_repr(fmj_run *r, fmj_buf *b, fmj_value v)
{
    fmj_enter(r);
    fmj_step(r, 1);
    switch (v.kind) {
    case FMJ_MISSING:
    case FMJ_UNDEFINED:
        fmj_buf_text(r, b, "Undefined");
        break;
    case FMJ_NONE:
        fmj_buf_text(r, b, "None");
        break;
    case FMJ_BOOL:
    case FMJ_INT:
    case FMJ_FLOAT:
        put_number(r, b, v);
        break;
    case FMJ_STR:
        if (v.str->is_markup) fmj_buf_text(r, b, "Markup(");
        put_quoted(r, b, v.str);
        if (v.str->is_markup) fmj_buf_text(r, b, ")");
        break;
    case FMJ_LIST:
        put_items(r, b, "[", v.list, "]");
        break;
    case FMJ_TUPLE:
        put_items(r, b, "(", v.list, v.list->n == 1 ? ",)" : ")");
        break;
    case FMJ_DICT:
        put_dict(r, b, v.dict);
        break;
    case FMJ_NAMESPACE:
        fmj_buf_text(r, b, "<Namespace ");
        put_dict(r, b, v.dict);
        fmj_buf_text(r, b, ">");
        break;
    case FMJ_RANGE:
        put_range(r, b, v.range);
        break;
    case FMJ_VIEW:
        fmj_buf_text(r, b, fmj_type_name(v));
        put_items(r, b, "([", fmj_items(r, v), "])");
        break;
    default:
        put_object(r, b, v);
        break;
    }
    fmj_leave(r);
}

void fmj_buf_put(fmj_run *r, fmj_buf *b, fmj_value v)
{
    if (v.kind == FMJ_STR) {
        fmj_buf_str(r, b, v.str);
    } else if (v.kind != FMJ_UNDEFINED && v.kind != FMJ_MISSING) {
        fmj_buf_repr(r, b, v);
    }
}

const fmj_str *fmj_to_str(fmj_run *r, fmj_value v)
{
    if (v.kind == FMJ_STR) return v.str;
    fmj_buf b = {0};
    fmj_buf_put(r, &b, v);
    return fmj_buf_take(r, &b);
}

const fmj_str *fmj_escape(fmj_run *r, const fmj_str *s)
{
    static const char *const entities[][2] = {
        {"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&#34;"}, {"'", "&#39;"}};
    if (s->is_markup) return s;
    fmj_buf b = {0};
    for (size_t i = 0; i < s->n; i++) {
        const char *entity = NULL;
        for (size_t k = 0; k < sizeof entities / sizeof entities[0]; k++)
            if (s->s[i] == entities[k][0][0]) entity = entities[k][1];
        if (entity) {
            fmj_buf_text(r, &b, entity);
        } else {
            fmj_buf_part(r, &b, s, i, 1);
        }
    }
    fmj_str *out = (fmj_str *)fmj_buf_take(r, &b);
    out->is_markup = true;
    return out;
}
