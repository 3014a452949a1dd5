/* See chat_form.h. */
#include "chat/chat_form.h"

#include <stdlib.h>
#include <string.h>

#include "chat/chatml.h"
#include "chat/jinja.h"

enum { TOKENS_MAX = 16 };

typedef struct {
    fm_jinja *jinja; /* NULL: none, or `error` says why not */
    fm_error error;
} variant;

struct fm_chat_form {
    variant base, tool_use;
    fm_jinja_literal tokens[TOKENS_MAX]; /* name and text in one block each, owned */
    size_t n_token;
};

fm_chat_form *fm_chat_form_new(void)
{
    return calloc(1, sizeof(fm_chat_form));
}

void fm_chat_form_free(fm_chat_form *form)
{
    if (!form) return;
    fm_jinja_free(form->base.jinja);
    fm_jinja_free(form->tool_use.jinja);
    for (size_t i = 0; i < form->n_token; i++) free((char *)form->tokens[i].name);
    free(form);
}

static bool is_there(const variant *v)
{
    return v->jinja || v->error.code != FM_OK;
}

fm_status fm_chat_form_add(fm_chat_form *form, const char *name, const char *source, size_t n,
                           const char *origin, fm_error *err)
{
    variant *v = NULL;
    if (!name || strcmp(name, "default") == 0) v = &form->base;
    if (name && strcmp(name, "tool_use") == 0) v = &form->tool_use;
    if (!v) return FM_OK;
    fm_jinja_free(v->jinja);
    *v = (variant){0};
    if (fm_jinja_compile(&v->jinja, source, n, origin, &v->error) != FM_E_NOMEM) return FM_OK;
    if (err) *err = v->error;
    return FM_E_NOMEM;
}

fm_status fm_chat_form_set_token(fm_chat_form *form, const char *name, const char *text, size_t n,
                                 fm_error *err)
{
    const size_t n_name = strlen(name) + 1;
    if (form->n_token == TOKENS_MAX)
        return fm_fail(err, FM_E_LIMIT, "chat: more than %d special tokens", TOKENS_MAX);
    char *block = n < SIZE_MAX - n_name ? malloc(n_name + n + 1) : NULL;
    if (!block) return fm_fail(err, FM_E_NOMEM, "chat: no memory for the token %s", name);
    memcpy(block, name, n_name);
    if (n > 0) memcpy(block + n_name, text, n);
    block[n_name + n] = 0;
    form->tokens[form->n_token++] = (fm_jinja_literal){.name = block, .text = block + n_name};
    return FM_OK;
}

bool fm_chat_form_has_template(const fm_chat_form *form)
{
    return is_there(&form->base) || is_there(&form->tool_use);
}

/* The template of a request, which may be absent or an error. */
static const variant *variant_for(const fm_chat_form *form, bool has_tools)
{
    const bool use_tools = is_there(&form->tool_use) && (has_tools || !is_there(&form->base));
    return use_tools ? &form->tool_use : &form->base;
}

fm_status fm_chat_form_check(const fm_chat_form *form, fm_error *err)
{
    const variant *v = variant_for(form, false);
    if (v->error.code != FM_OK && err) *err = v->error;
    return v->error.code;
}

/* ---- without a template -------------------------------------------------------------------------- */

static fm_status read_messages(const json_t *request, fm_message *out, size_t n, fm_error *err)
{
    const json_t *tools = json_object_get(request, "tools");
    if (tools && !json_is_null(tools) && json_array_size(tools) > 0)
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "chat: the model has no chat template, so it cannot be told of tools");
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(json_object_get(request, "messages"), i);
        out[i].role = json_string_value(json_object_get(m, "role"));
        out[i].content = json_string_value(json_object_get(m, "content"));
        if (!out[i].role || !out[i].content)
            return fm_fail(err, FM_E_ARG,
                           "chat: message %zu: the model has no chat template, so role and content "
                           "must be texts",
                           i + 1);
    }
    return FM_OK;
}

static fm_status from_segments(fm_chat_text *out, const fm_chat_segment *segments, size_t n,
                               fm_error *err)
{
    for (size_t i = 0; i < n; i++) out->n += segments[i].n;
    out->text = fm_chat_segments_join(segments, n);
    out->trusted = malloc(out->n + 1);
    if (!out->text || !out->trusted) {
        fm_chat_text_free(out);
        return fm_fail(err, FM_E_NOMEM, "chat: no memory for the rendered text");
    }
    size_t at = 0;
    for (size_t i = 0; i < n; at += segments[i++].n)
        memset(out->trusted + at, segments[i].is_control, segments[i].n);
    return FM_OK;
}

static fm_status render_chatml(const json_t *request, fm_chat_text *out, fm_error *err)
{
    const json_t *messages = json_object_get(request, "messages");
    if (!json_is_array(messages)) return fm_fail(err, FM_E_ARG, "chat: messages must be a list");
    const size_t n = json_array_size(messages);
    fm_message *list = calloc(n + 1, sizeof *list);
    if (!list) return fm_fail(err, FM_E_NOMEM, "chat: no memory for %zu messages", n);
    fm_chat_segment *segments = NULL;
    size_t n_segments = 0;
    fm_status st = read_messages(request, list, n, err);
    if (st == FM_OK)
        st = fm_chatml_render(&segments, &n_segments, list, n,
                              json_is_true(json_object_get(request, "add_generation_prompt")), err);
    if (st == FM_OK) st = from_segments(out, segments, n_segments, err);
    fm_chat_segments_free(segments, n_segments);
    free(list);
    return st;
}

bool fm_chat_form_knows(const fm_chat_form *form, const char *name)
{
    if (!fm_chat_form_has_template(form)) return false;
    const variant *v = variant_for(form, false);
    return v->jinja && fm_jinja_knows(v->jinja, name);
}

/* ---- rendering ----------------------------------------------------------------------------------- */

fm_status fm_chat_form_render(const fm_chat_form *form, const json_t *request, int64_t now,
                              fm_chat_text *out, fm_error *err)
{
    *out = (fm_chat_text){0};
    if (!fm_chat_form_has_template(form)) return render_chatml(request, out, err);
    const json_t *tools = json_object_get(request, "tools");
    const variant *v = variant_for(form, tools && !json_is_null(tools));
    if (!v->jinja) {
        if (err) *err = v->error;
        return v->error.code;
    }
    const fm_jinja_input in = {
        .request = request,
        .literals = form->tokens,
        .n_literal = form->n_token,
        .has_chat_defaults = true,
        .now = now,
    };
    return fm_jinja_render(v->jinja, &in, out, err);
}

fm_status fm_template_render(fm_chat_text *out, const char *source, size_t n_source,
                             const char *origin, const char *request, size_t n,
                             const fm_chat_options *opt, fm_error *err)
{
    *out = (fm_chat_text){0};
    json_t *variables = NULL;
    fm_chat_form *form = fm_chat_form_new();
    fm_status st = form ? FM_OK : fm_fail(err, FM_E_NOMEM, "chat: no memory for a template");
    if (st == FM_OK) st = fm_chat_form_add(form, NULL, source, n_source, origin, err);
    if (st == FM_OK) st = fm_chat_request_parse(&variables, request, n, opt, err);
    if (st == FM_OK) st = fm_chat_form_render(form, variables, opt ? opt->now : -1, out, err);
    json_decref(variables);
    fm_chat_form_free(form);
    return st;
}
