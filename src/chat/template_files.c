/* Chat templates of a Hugging Face directory. */
#include "chat/chat_form.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_parse.h"

enum { FILE_BYTES_MAX = 16 << 20, PATH_MAX_BYTES = 4096 };

/* A whole file as *data [n] and a NUL, malloc'd; *data NULL when there is no such file. */
static fm_status read_file(char **data, size_t *n, const char *path, fm_error *err)
{
    *data = NULL;
    FILE *f = fopen(path, "rb");
    if (!f && errno == ENOENT) return FM_OK;
    if (!f) return fm_fail_errno(err, errno, "%s", path);
    size_t cap = 64 * 1024, used = 0;
    char *text = NULL;
    fm_status st = FM_OK;
    for (;;) {
        char *grown = realloc(text, cap + 1);
        if (!grown) {
            st = fm_fail(err, FM_E_NOMEM, "%s: no memory for %zu bytes", path, cap);
            break;
        }
        text = grown;
        errno = 0;
        used += fread(text + used, 1, cap - used, f);
        if (ferror(f)) {
            st = fm_fail_errno(err, errno, "%s: reading", path);
            break;
        }
        if (used < cap) break;
        if (cap >= FILE_BYTES_MAX) {
            st = fm_fail(err, FM_E_LIMIT, "%s: has more than %d bytes", path, FILE_BYTES_MAX);
            break;
        }
        cap *= 2;
    }
    fclose(f);
    if (st != FM_OK) {
        free(text);
        return st;
    }
    text[used] = 0;
    *data = text;
    *n = used;
    return FM_OK;
}

static fm_status join_path(char out[PATH_MAX_BYTES], const char *dir, const char *name,
                           fm_error *err)
{
    const int n = snprintf(out, PATH_MAX_BYTES, "%s/%s", dir, name);
    if (n < 0 || n >= PATH_MAX_BYTES)
        return fm_fail(err, FM_E_ARG, "%s: the path is too long", dir);
    return FM_OK;
}

/* A template in a file of its own. */
static fm_status add_plain(fm_chat_form *form, const char *variant, const char *dir,
                           const char *name, fm_error *err)
{
    char path[PATH_MAX_BYTES];
    char *source;
    size_t n;
    FM_TRY(join_path(path, dir, name, err));
    FM_TRY(read_file(&source, &n, path, err));
    if (!source) return FM_OK;
    const fm_status st = fm_chat_form_add(form, variant, source, n, path, err);
    free(source);
    return st;
}

/* A JSON object; NULL when there is no such file. */
static fm_status read_json(json_t **out, const char *path, fm_error *err)
{
    char *text;
    size_t n;
    *out = NULL;
    FM_TRY(read_file(&text, &n, path, err));
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
static fm_status add_value(fm_chat_form *form, const json_t *v, const char *path, fm_error *err)
{
    if (json_is_null(v)) return FM_OK;
    if (json_is_string(v))
        return fm_chat_form_add(form, NULL, json_string_value(v), json_string_length(v), path, err);
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
        FM_TRY(fm_chat_form_add(form, name, json_string_value(source), json_string_length(source),
                                path, err));
    }
    return FM_OK;
}

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

static fm_status read_config(fm_chat_form *form, const char *dir, fm_error *err)
{
    char path[PATH_MAX_BYTES];
    json_t *config;
    FM_TRY(join_path(path, dir, "tokenizer_config.json", err));
    FM_TRY(read_json(&config, path, err));
    if (!config) return FM_OK;
    const json_t *value = json_object_get(config, "chat_template");
    fm_status st = add_tokens(form, config, err);
    if (st == FM_OK && value && !fm_chat_form_has_template(form))
        st = add_value(form, value, path, err);
    json_decref(config);
    return st;
}

fm_status fm_chat_form_read_dir(fm_chat_form *form, const char *dir, fm_error *err)
{
    char path[PATH_MAX_BYTES];
    FM_TRY(add_plain(form, NULL, dir, "chat_template.jinja", err));
    if (!fm_chat_form_has_template(form)) {
        json_t *file;
        FM_TRY(join_path(path, dir, "chat_template.json", err));
        FM_TRY(read_json(&file, path, err));
        const json_t *value = json_object_get(file, "chat_template");
        const fm_status st = value ? add_value(form, value, path, err) : FM_OK;
        json_decref(file);
        if (st != FM_OK) return st;
    }
    FM_TRY(read_config(form, dir, err));
    return add_plain(form, "tool_use", dir, "additional_chat_templates/tool_use.jinja", err);
}
