/* Compiling and rendering as a whole: limits, errors, variables of the request. */
#include "chat/jinja_syntax.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { TEMPLATE_BYTES_MAX = 16 << 20, TEMPLATE_MEMORY_MAX = 1 << 30 };

/* ---- errors and limits --------------------------------------------------------------------------- */

static _Noreturn void jump(fmj_run *r, fm_status code, const char *text)
{
    r->status = fm_fail(r->err, code, "%s, line %d: %s", r->t->origin, (int)r->line, text);
    longjmp(r->on_error, 1);
}

void fmj_raise(fmj_run *r, const char *fmt, ...)
{
    char text[sizeof((fm_error *)NULL)->msg];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    jump(r, FM_E_ARG, text);
}

void fmj_fail(fmj_run *r, fm_status code, const char *fmt, ...)
{
    char text[sizeof((fm_error *)NULL)->msg];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    jump(r, code, text);
}

void fmj_step(fmj_run *r, uint64_t n)
{
    const uint64_t max = r->in && r->in->max_steps ? r->in->max_steps : FM_JINJA_MAX_STEPS;
    r->steps += n;
    if (r->steps > max)
        fmj_fail(r, FM_E_LIMIT, "%s more than %llu steps",
                 r->in ? "the template ran for" : "compiling the template takes",
                 (unsigned long long)max);
}

void fmj_enter(fmj_run *r)
{
    if (++r->depth > FMJ_RUN_DEPTH_MAX)
        fmj_fail(r, FM_E_LIMIT, "calls, loops and values nest deeper than %d levels",
                 FMJ_RUN_DEPTH_MAX);
}

void fmj_leave(fmj_run *r)
{
    r->depth--;
}

void *fmj_alloc(fmj_run *r, size_t n)
{
    void *p = fmj_arena_get(&r->arena, n);
    if (!p)
        fmj_fail(r, r->arena.limit - r->arena.used < n ? FM_E_LIMIT : FM_E_NOMEM,
                 "no memory for %zu bytes (the template may use %llu MiB and has %llu)", n,
                 (unsigned long long)(r->arena.limit >> 20),
                 (unsigned long long)(r->arena.used >> 20));
    return p;
}

void *fmj_alloc_array(fmj_run *r, size_t n, size_t size)
{
    if (n > SIZE_MAX / size) fmj_fail(r, FM_E_LIMIT, "no memory for %zu values", n);
    return fmj_alloc(r, n * size);
}

/* ---- compiling ----------------------------------------------------------------------------------- */

static fm_status check_utf8(const char *source, size_t n, const char *origin, fm_error *err)
{
    int32_t line = 1;
    for (size_t at = 0; at < n;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t len =
            utf8proc_iterate((const utf8proc_uint8_t *)source + at, (utf8proc_ssize_t)(n - at), &c);
        if (len <= 0)
            return fm_fail(err, FM_E_FORMAT, "%s, line %d: byte 0x%02x is not UTF-8", origin,
                           (int)line, (unsigned char)source[at]);
        line += source[at] == '\n';
        at += (size_t)len;
    }
    return FM_OK;
}

fm_status fm_jinja_compile(fm_jinja **out, const char *source, size_t n, const char *origin,
                           fm_error *err)
{
    *out = NULL;
    if (n > TEMPLATE_BYTES_MAX)
        return fm_fail(err, FM_E_LIMIT, "%s: %zu bytes; a chat template may have %d", origin, n,
                       TEMPLATE_BYTES_MAX);
    FM_TRY(check_utf8(source, n, origin, err));
    fm_jinja *t = calloc(1, sizeof *t);
    fmj_run *r = calloc(1, sizeof *r);
    const size_t n_origin = strlen(origin) + 1;
    if (t) t->origin = malloc(n_origin);
    if (!t || !r || !t->origin) {
        free(r);
        fm_jinja_free(t);
        return fm_fail(err, FM_E_NOMEM, "%s: no memory for a chat template", origin);
    }
    memcpy(t->origin, origin, n_origin);
    r->t = t;
    r->err = err;
    r->arena.limit = TEMPLATE_MEMORY_MAX;
    if (setjmp(r->on_error) == 0) {
        fmj_parse(r, &t->body, source, n);
        fmj_resolve(r, t);
    }
    t->arena = r->arena;
    const fm_status st = r->status;
    free(r);
    if (st != FM_OK) {
        fm_jinja_free(t);
        return st;
    }
    *out = t;
    return FM_OK;
}

void fm_jinja_free(fm_jinja *t)
{
    if (!t) return;
    fmj_arena_free(&t->arena);
    free(t->origin);
    free(t);
}

/* ---- rendering ----------------------------------------------------------------------------------- */

static fmj_value find_variable(fmj_run *r, const fmj_str *name)
{
    const fm_jinja_input *in = r->in;
    char key[128];
    if (name->n < sizeof key) {
        memcpy(key, name->s, name->n);
        key[name->n] = 0;
        const json_t *j = in->request ? json_object_get(in->request, key) : NULL;
        if (j) return fmj_from_json(r, j);
        for (size_t i = 0; i < in->n_literal; i++) {
            if (strcmp(in->literals[i].name, key) != 0) continue;
            const char *text = in->literals[i].text;
            return fmj_str_value(fmj_str_over(r, text, strlen(text), true));
        }
        if (in->has_chat_defaults && (!strcmp(key, "tools") || !strcmp(key, "documents")))
            return FMJ_V_NONE;
        if (in->has_chat_defaults && !strcmp(key, "add_generation_prompt")) return fmj_bool(false);
    }
    for (const fmj_builtin *b = fmj_globals; b->name; b++)
        if (fmj_str_is(name, b->name)) return (fmj_value){.kind = FMJ_BUILTIN, .builtin = b};
    return FMJ_V_MISSING;
}

static void run(fmj_run *r, fmj_buf *out)
{
    const fmj_dict *names = r->t->names;
    r->context = fmj_alloc_array(r, names->n + 1, sizeof *r->context);
    for (size_t i = 0; i < names->n; i++) r->context[i] = find_variable(r, names->keys[i].str);
    r->out = out;
    r->frame = fmj_frame_enter(r, r->t->scope, NULL);
    fmj_exec(r, &r->t->body);
}

bool fm_jinja_knows(const fm_jinja *t, const char *name)
{
    for (size_t i = 0; i < t->names->n; i++)
        if (fmj_str_is(t->names->keys[i].str, name)) return true;
    return false;
}

fm_status fm_jinja_render(const fm_jinja *t, const fm_jinja_input *in, fm_chat_text *out,
                          fm_error *err)
{
    *out = (fm_chat_text){0};
    fmj_run *r = calloc(1, sizeof *r);
    fmj_buf *text = calloc(1, sizeof *text);
    if (r && text) {
        r->t = t;
        r->in = in;
        r->err = err;
        r->line = 1;
        r->arena.limit = in->max_memory ? in->max_memory : FM_JINJA_MAX_MEMORY;
        if (setjmp(r->on_error) == 0) run(r, text);
    }
    fm_status st = r ? r->status : FM_OK;
    if (r && text && st == FM_OK) {
        out->text = malloc(text->n + 1);
        out->trusted = malloc(text->n + 1);
        out->n = text->n;
        if (out->text && out->trusted) {
            if (text->n > 0) memcpy(out->text, text->s, text->n);
            if (text->n > 0) memcpy(out->trusted, text->trust, text->n);
            out->text[text->n] = 0;
        }
    }
    if (st == FM_OK && (!out->text || !out->trusted)) {
        fm_chat_text_free(out);
        st = fm_fail(err, FM_E_NOMEM, "%s: no memory for the rendered text", t->origin);
    }
    if (r) fmj_arena_free(&r->arena);
    free(text);
    free(r);
    return st;
}

void fm_chat_text_free(fm_chat_text *out)
{
    free(out->text);
    free(out->trusted);
    *out = (fm_chat_text){0};
}
