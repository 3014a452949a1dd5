/* JSON in and out, and the clock. */
#include "chat/jinja_value.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- in ------------------------------------------------------------------------------------------ */

static fmj_value text_of(fmj_run *r, const char *s, size_t n)
{
    return fmj_str_value(fmj_str_over(r, s, n, false));
}

static fmj_value object_of(fmj_run *r, const json_t *j)
{
    fmj_dict *d = fmj_dict_new(r, json_object_size(j));
    void *it = json_object_iter((json_t *)j);
    for (; it; it = json_object_iter_next((json_t *)j, it)) {
        const fmj_value value = fmj_from_json(r, json_object_iter_value(it));
        const char *key = json_object_iter_key(it);
        fmj_dict_set(r, d, text_of(r, key, strlen(key)), value);
    }
    return (fmj_value){.kind = FMJ_DICT, .dict = d};
}

fmj_value fmj_from_json(fmj_run *r, const json_t *j)
{
    fmj_value v = FMJ_V_NONE;
    fmj_enter(r);
    fmj_step(r, 1);
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        v = object_of(r, j);
        break;
    case JSON_ARRAY: {
        const size_t n = json_array_size(j);
        fmj_value *items = fmj_alloc_array(r, n + 1, sizeof *items);
        for (size_t i = 0; i < n; i++) items[i] = fmj_from_json(r, json_array_get(j, i));
        v = fmj_list_of(r, FMJ_LIST, items, n);
        break;
    }
    case JSON_STRING:
        v = text_of(r, json_string_value(j), json_string_length(j));
        break;
    case JSON_INTEGER:
        v = fmj_int(json_integer_value(j));
        break;
    case JSON_REAL:
        v = fmj_float(json_real_value(j));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = fmj_bool(json_is_true(j));
        break;
    case JSON_NULL:
        break;
    }
    fmj_leave(r);
    return v;
}

/* ---- out ----------------------------------------------------------------------------------------- */

typedef struct {
    fmj_run *r;
    fmj_buf *b;
    bool ascii, sort_keys;
    const fmj_str *indent; /* NULL: one line */
    const fmj_str *between, *colon;
    int depth;
} writer;

static void put_escape(writer *w, uint32_t code)
{
    char text[16];
    snprintf(text, sizeof text, "\\u%04" PRIx32, code);
    fmj_buf_text(w->r, w->b, text);
}

static void put_string(writer *w, const fmj_str *s)
{
    static const char plain[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    fmj_buf_text(w->r, w->b, "\"");
    for (size_t at = 0, len; at < s->n; at += len) {
        const size_t from = at;
        while (at < s->n && (unsigned char)s->s[at] >= 0x20 && s->s[at] != '"' &&
               s->s[at] != '\\' && (!w->ascii || (unsigned char)s->s[at] < 0x80))
            at++;
        fmj_buf_part(w->r, w->b, s, from, at - from);
        if (at == s->n) break;
        const int32_t c = fmj_char_at(s, at, &len);
        const char *known = c < 0x80 && c > 0 ? strchr(plain, c) : NULL;
        if (known && (known - plain) % 2 == 0) {
            const char escape[] = {'\\', known[1], 0};
            fmj_buf_text(w->r, w->b, escape);
        } else if (c < 0x10000) {
            put_escape(w, (uint32_t)c);
        } else {
            put_escape(w, 0xD800 + (((uint32_t)c - 0x10000) >> 10));
            put_escape(w, 0xDC00 + (((uint32_t)c - 0x10000) & 0x3FF));
        }
    }
    fmj_buf_text(w->r, w->b, "\"");
}

static void put_line(writer *w)
{
    if (!w->indent) return;
    fmj_buf_text(w->r, w->b, "\n");
    fmj_buf_fill(w->r, w->b, w->indent, w->depth);
}

static void put_float(writer *w, double f)
{
    char text[FMJ_NUMBER];
    fmj_float_text(text, f);
    fmj_buf_text(w->r, w->b, isnan(f) ? "NaN" : isinf(f) ? f < 0 ? "-Infinity" : "Infinity" : text);
}

static void put_value(writer *w, fmj_value v);

static void put_key(writer *w, fmj_value key)
{
    if (key.kind == FMJ_STR) {
        put_string(w, key.str);
        return;
    }
    if (key.kind != FMJ_NONE && !fmj_is_number(key))
        fmj_raise(w->r, "keys must be str, int, float, bool or None, not %s", fmj_type_name(key));
    fmj_buf_text(w->r, w->b, "\"");
    put_value(w, key);
    fmj_buf_text(w->r, w->b, "\"");
}

static void sorted_order(writer *w, const fmj_dict *d, size_t *order)
{
    for (size_t i = 0; i < d->n; i++) {
        size_t at = i;
        for (; at > 0 && fmj_compare(w->r, d->keys[i], d->keys[order[at - 1]], "<") < 0; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static void put_object(writer *w, const fmj_dict *d)
{
    size_t *order = NULL;
    if (w->sort_keys) {
        order = fmj_alloc_array(w->r, d->n + 1, sizeof *order);
        sorted_order(w, d, order);
    }
    fmj_buf_text(w->r, w->b, "{");
    w->depth++;
    for (size_t i = 0; i < d->n; i++) {
        const size_t k = order ? order[i] : i;
        if (i > 0) fmj_buf_str(w->r, w->b, w->between);
        put_line(w);
        put_key(w, d->keys[k]);
        fmj_buf_str(w->r, w->b, w->colon);
        put_value(w, d->values[k]);
    }
    w->depth--;
    if (d->n > 0) put_line(w);
    fmj_buf_text(w->r, w->b, "}");
}

static void put_array(writer *w, const fmj_list *l)
{
    fmj_buf_text(w->r, w->b, "[");
    w->depth++;
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0) fmj_buf_str(w->r, w->b, w->between);
        put_line(w);
        put_value(w, l->items[i]);
    }
    w->depth--;
    if (l->n > 0) put_line(w);
    fmj_buf_text(w->r, w->b, "]");
}

static void put_value(writer *w, fmj_value v)
{
    char text[32];
    fmj_enter(w->r);
    fmj_step(w->r, 1);
    switch (v.kind) {
    case FMJ_NONE:
        fmj_buf_text(w->r, w->b, "null");
        break;
    case FMJ_BOOL:
        fmj_buf_text(w->r, w->b, v.b ? "true" : "false");
        break;
    case FMJ_INT:
        snprintf(text, sizeof text, "%" PRId64, v.i);
        fmj_buf_text(w->r, w->b, text);
        break;
    case FMJ_FLOAT:
        put_float(w, v.f);
        break;
    case FMJ_STR:
        put_string(w, v.str);
        break;
    case FMJ_LIST:
    case FMJ_TUPLE:
        put_array(w, v.list);
        break;
    case FMJ_DICT:
        put_object(w, v.dict);
        break;
    default:
        fmj_raise(w->r, "Object of type %s is not JSON serializable", fmj_type_name(v));
    }
    fmj_leave(w->r);
}

/* arg: ensure_ascii, indent, separators, sort_keys. */
fmj_value fmj_tojson(fmj_run *r, fmj_value v, const fmj_value *arg)
{
    fmj_buf b = {0}, indent = {0};
    writer w = {.r = r, .b = &b};
    w.ascii = arg[0].kind != FMJ_MISSING && fmj_truth(r, arg[0]);
    w.sort_keys = arg[3].kind != FMJ_MISSING && fmj_truth(r, arg[3]);
    if (arg[1].kind != FMJ_MISSING && arg[1].kind != FMJ_NONE) {
        if (arg[1].kind == FMJ_STR) {
            fmj_buf_str(r, &indent, arg[1].str);
        } else {
            fmj_buf_fill(r, &indent, fmj_text(r, " ").str, fmj_as_index(r, arg[1]));
        }
        w.indent = fmj_buf_take(r, &indent);
    }
    w.between = fmj_text(r, w.indent ? "," : ", ").str;
    w.colon = fmj_text(r, ": ").str;
    if (arg[2].kind != FMJ_MISSING && arg[2].kind != FMJ_NONE) {
        const fmj_list *pair = fmj_items(r, arg[2]);
        if (pair->n != 2 || pair->items[0].kind != FMJ_STR || pair->items[1].kind != FMJ_STR)
            fmj_raise(r, "separators must be a pair of strings");
        w.between = pair->items[0].str;
        w.colon = pair->items[1].str;
    }
    put_value(&w, v);
    return fmj_buf_value(r, &b);
}

/* ---- time ---------------------------------------------------------------------------------------- */

fmj_value fmj_strftime_now(fmj_run *r, const fmj_str *format)
{
    struct timespec now = {0};
    struct tm tm;
    fmj_buf b = {0};
    if (r->in->now >= 0) {
        now.tv_sec = (time_t)r->in->now;
    } else {
        clock_gettime(CLOCK_REALTIME, &now);
    }
    if (!localtime_r(&now.tv_sec, &tm)) fmj_raise(r, "the time is out of range");
    for (size_t at = 0, len; at < format->n; at += len) {
        const int32_t c = fmj_char_at(format, at, &len);
        if (c != '%' || at + 1 == format->n) {
            fmj_buf_part(r, &b, format, at, len);
            continue;
        }
        fmj_step(r, 1);
        size_t n_mark = at + 2 < format->n && strchr("-_0^#EO", format->s[at + 1]) ? 3 : 2;
        char mark[8], text[200];
        const char kind = format->s[at + n_mark - 1];
        len = n_mark;
        /* A time without a zone, as datetime.now() is: %z and %Z are empty. */
        if (kind == 'z' || kind == 'Z') continue;
        if (kind == 'f') {
            snprintf(text, sizeof text, "%06ld", now.tv_nsec / 1000);
        } else if ((unsigned char)kind >= 0x80) {
            fmj_raise(r, "a format of strftime_now has no code behind %%");
        } else {
            memcpy(mark, format->s + at, n_mark);
            mark[n_mark] = 0;
            text[strftime(text, sizeof text, mark, &tm)] = 0;
        }
        fmj_buf_text(r, &b, text);
    }
    return fmj_buf_value(r, &b);
}
