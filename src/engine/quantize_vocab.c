/* The tokenizer of a Hugging Face directory as GGUF metadata: vocabulary and merges (quantize_tokens.c), special ids from the
 * configurations, the chat template. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json_parse.h"
#include "base/read_file.h"
#include "chat/template_files.h"
#include "engine/quantize_internal.h"
#include "text/tokenizer.h"

enum { VOCAB_MAX = 1 << 24 };

fm_status fm_quantize_read_text(char **data, size_t *n, const char *directory, const char *name,
                                fm_error *err)
{
    char *path = fm_path_join(directory, name);
    if (!path) return fm_fail(err, FM_E_NOMEM, "%s: no memory", directory);
    const fm_status st = fm_read_file_if_any(data, n, path, FM_TOKENIZER_FILE_MAX, err);
    free(path);
    return st;
}

fm_status fm_quantize_load_json(json_t **root, const char *directory, const char *name,
                                fm_error *err)
{
    char *text;
    size_t n;
    *root = NULL;
    FM_TRY(fm_quantize_read_text(&text, &n, directory, name, err));
    if (!text) return FM_OK;
    json_error_t why;
    *root = fm_json_parse(text, n, JSON_ALLOW_NUL, &why);
    free(text);
    if (*root) return FM_OK;
    return fm_fail(err, FM_E_FORMAT, "%s/%s: line %d: %s", directory, name, why.line, why.text);
}

/* ---- ids and template -------------------------------------------------------------------- */

/* A token's text: a string, or an object with `content`. */
static int64_t id_of_text(const fm_vocabulary *v, const json_t *token)
{
    const char *text = json_string_value(token);
    if (!text) text = json_string_value(json_object_get(token, "content"));
    for (int64_t i = 0; i < v->n && text; i++)
        if (v->token[i] && strcmp(v->token[i], text) == 0) return i;
    return -1;
}

static int64_t first_id(const json_t *v)
{
    if (json_is_array(v)) v = json_array_get(v, 0);
    return json_is_integer(v) ? json_integer_value(v) : -1;
}

static void put_id(fm_gguf_writer *w, const fm_vocabulary *v, const char *key, const json_t *config,
                   const json_t *generation, const json_t *tokenizer, const char *name)
{
    char id_name[40], text_name[40], full[80];
    snprintf(id_name, sizeof id_name, "%s_id", name);
    snprintf(text_name, sizeof text_name, "%s", name);
    int64_t id = id_of_text(v, json_object_get(tokenizer, text_name));
    if (id < 0) id = first_id(json_object_get(generation, id_name));
    if (id < 0) id = first_id(json_object_get(config, id_name));
    if (id < 0) id = first_id(json_object_get(json_object_get(config, "text_config"), id_name));
    if (id < 0 || id >= v->n) return;
    snprintf(full, sizeof full, "tokenizer.ggml.%s", key);
    fm_gguf_put_u32(w, full, (uint32_t)id);
}

/* Ids that end a generation, in the order in which they are found. */
typedef struct {
    int32_t id[64];
    int n;
} end_list;

static void add_end(end_list *l, const fm_vocabulary *v, int64_t id)
{
    if (id < 0 || id >= v->n || l->n == (int)(sizeof l->id / sizeof l->id[0])) return;
    for (int i = 0; i < l->n; i++)
        if (l->id[i] == id) return;
    l->id[l->n++] = (int32_t)id;
}

static void add_ends(end_list *l, const fm_vocabulary *v, const json_t *config)
{
    const json_t *ids = json_object_get(config, "eos_token_id");
    if (json_is_integer(ids)) add_end(l, v, json_integer_value(ids));
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (json_is_integer(id)) add_end(l, v, json_integer_value(id));
    }
}

/* The format has a key each for the ends of a text, a turn and a message. Readers stop at any of the three, so they take
 * what the configurations name, whichever it is. Returns how many found no key. */
static int put_ends(fm_gguf_writer *w, const fm_vocabulary *v, const json_t *config,
                    const json_t *generation, const json_t *tokenizer)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    end_list l = {0};
    add_end(&l, v, id_of_text(v, json_object_get(tokenizer, "eos_token")));
    add_ends(&l, v, generation);
    add_ends(&l, v, config);
    add_ends(&l, v, json_object_get(config, "text_config"));
    for (int i = 0; i < l.n && i < 3; i++) fm_gguf_put_u32(w, keys[i], (uint32_t)l.id[i]);
    return l.n > 3 ? l.n - 3 : 0;
}

/* As the engine finds them in the directory: the default one, and the others by their names. */
static fm_status put_templates(fm_gguf_writer *w, const char *directory, fm_error *err)
{
    fm_chat_templates t;
    const fm_status st = fm_chat_templates_read(&t, directory, err);
    for (size_t i = 0; i < t.n && st == FM_OK; i++) {
        const fm_chat_template *one = &t.list[i];
        const bool is_default = strcmp(one->name, "default") == 0;
        char key[200];
        if (!*one->name ||
            snprintf(key, sizeof key, "tokenizer.chat_template%s%s", is_default ? "" : ".",
                     is_default ? "" : one->name) >= (int)sizeof key)
            continue; /* no key can name it */
        fm_gguf_put_text(w, key, one->source, one->n);
    }
    fm_chat_templates_free(&t);
    return st;
}

static const char *token_at(void *user, size_t i)
{
    const fm_vocabulary *v = user;
    if (v->token[i]) return v->token[i];
    snprintf(v->filler[i], sizeof v->filler[i], "[PAD%zu]", i);
    return v->filler[i];
}

static fm_status put_all(fm_gguf_writer *w, fm_vocabulary *v, const char *directory,
                         int *n_more_ends, fm_error *err)
{
    json_t *tokenizer = NULL, *generation = NULL, *config = NULL;
    fm_status st = fm_quantize_load_json(&tokenizer, directory, "tokenizer_config.json", err);
    if (st == FM_OK)
        st = fm_quantize_load_json(&generation, directory, "generation_config.json", err);
    if (st == FM_OK) st = fm_quantize_load_json(&config, directory, "config.json", err);
    if (st == FM_OK) {
        fm_gguf_put_str(w, "tokenizer.ggml.model", "gpt2");
        fm_gguf_put_str_array(w, "tokenizer.ggml.tokens", (size_t)v->n, token_at, v);
        fm_gguf_put_i32_array(w, "tokenizer.ggml.token_type", v->kind, (size_t)v->n);
        fm_gguf_put_str_array(w, "tokenizer.ggml.merges", v->n_merge, fm_vocabulary_merge, v);
        put_id(w, v, "bos_token_id", config, generation, tokenizer, "bos_token");
        *n_more_ends = put_ends(w, v, config, generation, tokenizer);
        put_id(w, v, "padding_token_id", config, generation, tokenizer, "pad_token");
        const json_t *bos = json_object_get(tokenizer, "add_bos_token");
        fm_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", json_is_true(bos));
        st = put_templates(w, directory, err);
    }
    json_decref(tokenizer);
    json_decref(generation);
    json_decref(config);
    return st;
}

fm_status fm_quantize_put_vocab(fm_gguf_writer *w, const char *directory, int64_t n_vocab,
                                const char *pre, fm_vocab_facts *facts, fm_error *err)
{
    *facts = (fm_vocab_facts){0};
    if (n_vocab < 1 || n_vocab > VOCAB_MAX)
        return fm_fail(err, FM_E_FORMAT, "%s: an embedding of %" PRId64 " rows", directory,
                       n_vocab);
    fm_vocabulary v = {.n = n_vocab};
    fm_status st = fm_vocabulary_read(&v, directory, err);
    facts->found = v.token != NULL;
    facts->n_without_merge = v.n_without_merge;
    if (st == FM_OK && facts->found)
        st = fm_quantize_find_pre(&facts->pre, &v, directory, pre, &facts->doubt, err);
    if (st == FM_OK && facts->found) {
        fm_gguf_put_str(w, "tokenizer.ggml.pre", facts->pre);
        st = put_all(w, &v, directory, &facts->n_more_ends, err);
    }
    fm_vocabulary_free(&v);
    return st;
}
