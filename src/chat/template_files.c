/* Chat templates of a Hugging Face directory: see template_files.h and chat_form.h. */
#include "chat/template_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_parse.h"
#include "base/read_file.h"
#include "chat/chat_form.h"

enum { FILE_BYTES_MAX = 16 << 20 };

static fm_status no_memory(const char *dir, fm_error *err)
{
    return fm_fail(err, FM_E_NOMEM, "%s: no memory for the chat templates", dir);
}

/* ---- the list ------------------------------------------------------------------------------------ */

static void free_one(fm_chat_template *t)
{
    free(t->name);
    free(t->source);
    free(t->origin);
}

void fm_chat_templates_free(fm_chat_templates *t)
{
    for (size_t i = 0; i < t->n; i++) free_one(&t->list[i]);
    free(t->list);
    *t = (fm_chat_templates){0};
}

/* Adds a copy, or puts it in the place of the one that has the name. */
static fm_status put(fm_chat_templates *t, const char *name, const char *source, size_t n,
                     const char *origin, fm_error *err)
{
    fm_chat_template one = {strdup(name), malloc(n + 1), n, strdup(origin)};
    size_t at = 0;
    while (at < t->n && strcmp(t->list[at].name, name) != 0) at++;
    fm_chat_template *grown = at == t->n ? realloc(t->list, (t->n + 1) * sizeof *t->list) : t->list;
    if (grown) t->list = grown;
    if (!grown || !one.name || !one.source || !one.origin) {
        free_one(&one);
        return no_memory(origin, err);
    }
    memcpy(one.source, source, n);
    one.source[n] = 0;
    if (at < t->n)
        free_one(&t->list[at]);
    else
        t->n++;
    t->list[at] = one;
    return FM_OK;
}

/* Whether there is one that answers requests. */
static bool has_form(const fm_chat_templates *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->list[i].name, "default") == 0 || strcmp(t->list[i].name, "tool_use") == 0)
            return true;
    return false;
}

/* ---- files --------------------------------------------------------------------------------------- */

/* A template in a file of its own. */
static fm_status put_file(fm_chat_templates *t, const char *name, const char *dir, const char *file,
                          fm_error *err)
{
    char *source = NULL, *path = fm_path_join(dir, file);
    size_t n;
    if (!path) return no_memory(dir, err);
    fm_status st = fm_read_file_if_any(&source, &n, path, FILE_BYTES_MAX, err);
    if (st == FM_OK && source) st = put(t, name, source, n, path, err);
    free(source);
    free(path);
    return st;
}

/* A JSON object; NULL when there is no such file. */
static fm_status read_json(json_t **out, const char *path, fm_error *err)
{
    char *text;
    size_t n;
    *out = NULL;
    FM_TRY(fm_read_file_if_any(&text, &n, path, FILE_BYTES_MAX, err));
    if (!text) return FM_OK;
    json_error_t why;
    *out = fm_json_parse(text, n, 0, &why);
    free(text);
    if (!*out)
        return fm_fail(err, FM_E_FORMAT, "%s: line %d, column %d: %s", path, why.line, why.column,
                       why.text);
    if (json_is_object(*out)) return FM_OK;
    json_decref(*out);
    *out = NULL;
    return fm_fail(err, FM_E_FORMAT, "%s: expected a JSON object", path);
}

/* The value of a key chat_template: a text, or a list of {name, template}. */
static fm_status put_value(fm_chat_templates *t, const json_t *v, const char *path, fm_error *err)
{
    if (!v || json_is_null(v)) return FM_OK;
    if (json_is_string(v))
        return put(t, "default", json_string_value(v), json_string_length(v), path, err);
    if (!json_is_array(v))
        return fm_fail(err, FM_E_FORMAT, "%s: chat_template is neither a text nor a list", path);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *row = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(row, "name"));
        const json_t *source = json_object_get(row, "template");
        if (!name || !json_is_string(source))
            return fm_fail(err, FM_E_FORMAT,
                           "%s: chat_template[%zu]: expected an object with name and template",
                           path, i);
        FM_TRY(put(t, name, json_string_value(source), json_string_length(source), path, err));
    }
    return FM_OK;
}

/* `chat_template` of a JSON file, whose document is the caller's to json_decref. */
static fm_status put_json(fm_chat_templates *t, const char *dir, const char *file, json_t **root,
                          fm_error *err)
{
    *root = NULL;
    char *path = fm_path_join(dir, file);
    if (!path) return no_memory(dir, err);
    fm_status st = read_json(root, path, err);
    if (st == FM_OK && !has_form(t))
        st = put_value(t, json_object_get(*root, "chat_template"), path, err);
    free(path);
    return st;
}

static fm_status read_templates(fm_chat_templates *t, const char *dir, json_t **config,
                                fm_error *err)
{
    json_t *alone = NULL;
    fm_status st = put_file(t, "default", dir, "chat_template.jinja", err);
    if (st == FM_OK && !has_form(t)) st = put_json(t, dir, "chat_template.json", &alone, err);
    json_decref(alone);
    if (st == FM_OK) st = put_json(t, dir, "tokenizer_config.json", config, err);
    if (st == FM_OK)
        st = put_file(t, "tool_use", dir, "additional_chat_templates/tool_use.jinja", err);
    return st;
}

fm_status fm_chat_templates_read(fm_chat_templates *out, const char *dir, fm_error *err)
{
    json_t *config = NULL;
    *out = (fm_chat_templates){0};
    const fm_status st = read_templates(out, dir, &config, err);
    json_decref(config);
    return st;
}

/* ---- a form -------------------------------------------------------------------------------------- */

/* "bos_token": a text, or an added token with its content. */
static fm_status add_tokens(fm_chat_form *form, const json_t *config, fm_error *err)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const json_t *v = json_object_get(config, names[i]);
        if (json_is_object(v)) v = json_object_get(v, "content");
        if (json_is_string(v))
            FM_TRY(fm_chat_form_set_token(form, names[i], json_string_value(v),
                                          json_string_length(v), err));
    }
    return FM_OK;
}

fm_status fm_chat_form_read_dir(fm_chat_form *form, const char *dir, fm_error *err)
{
    fm_chat_templates t = {0};
    json_t *config = NULL;
    fm_status st = read_templates(&t, dir, &config, err);
    if (st == FM_OK) st = add_tokens(form, config, err);
    for (size_t i = 0; i < t.n && st == FM_OK; i++)
        st = fm_chat_form_add(form, t.list[i].name, t.list[i].source, t.list[i].n, t.list[i].origin,
                              err);
    json_decref(config);
    fm_chat_templates_free(&t);
    return st;
}
