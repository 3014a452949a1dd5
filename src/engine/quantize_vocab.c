/* The tokenizer of a Hugging Face directory as GGUF metadata: vocabulary, merges and kinds of tokens from tokenizer.json,
 * special ids from the configurations, the chat template. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json_parse.h"
#include "engine/quantize_internal.h"
#include "os/file.h"

enum { FILE_MAX = 256 << 20, VOCAB_MAX = 1 << 24 };
enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 };

static fm_status read_text(char **data, size_t *n, const char *directory, const char *name,
                           fm_error *err)
{
    *data = NULL;
    *n = 0;
    const size_t room = strlen(directory) + strlen(name) + 2;
    char *path = malloc(room);
    if (!path) return fm_fail(err, FM_E_NOMEM, "%s: no memory", directory);
    snprintf(path, room, "%s/%s", directory, name);
    fm_file_facts facts;
    int fd = -1;
    uint64_t bytes = 0;
    fm_status st = FM_OK;
    if (!fm_file_facts_of(&facts, path)) {
        if (errno != ENOENT) st = fm_fail_errno(err, errno, "%s", path);
    } else {
        st = fm_file_open(&fd, &bytes, path, err);
        if (st == FM_OK && bytes > FILE_MAX)
            st = fm_fail(err, FM_E_LIMIT, "%s: %" PRIu64 " bytes, expected at most %d", path, bytes,
                         FILE_MAX);
        if (st == FM_OK) *data = malloc((size_t)bytes + 1);
        if (st == FM_OK && !*data) st = fm_fail(err, FM_E_NOMEM, "%s: no memory", path);
        if (st == FM_OK) st = fm_file_read_at(fd, path, *data, (size_t)bytes, 0, err);
        if (*data) (*data)[bytes] = 0;
        *n = (size_t)bytes;
    }
    fm_file_close(fd);
    free(path);
    if (st != FM_OK) {
        free(*data);
        *data = NULL;
    }
    return st;
}

fm_status fm_quantize_load_json(json_t **root, const char *directory, const char *name,
                                fm_error *err)
{
    char *text;
    size_t n;
    *root = NULL;
    FM_TRY(read_text(&text, &n, directory, name, err));
    if (!text) return FM_OK;
    json_error_t why;
    *root = fm_json_parse(text, n, JSON_ALLOW_NUL, &why);
    free(text);
    if (*root) return FM_OK;
    return fm_fail(err, FM_E_FORMAT, "%s/%s: line %d: %s", directory, name, why.line, why.text);
}

/* ---- vocabulary -------------------------------------------------------------------------- */

typedef struct {
    const char **token; /* [n], NULL: no token has this id; borrowed from the JSON */
    int32_t *kind;      /* [n] */
    char (*filler)[24]; /* [n] */
    int64_t n;
    const json_t *merges;
    char *joined; /* a merge that is stored as a pair */
    size_t joined_bytes;
} vocabulary;

static fm_status put_token(vocabulary *v, const char *directory, const char *token,
                           const json_t *id, int32_t kind, fm_error *err)
{
    const json_int_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (i < 0 || i >= v->n)
        return fm_fail(err, FM_E_FORMAT,
                       "%s/tokenizer.json: token \"%.60s\" has the id %lld, the embedding %" PRId64
                       " rows",
                       directory, token, (long long)i, v->n);
    v->token[i] = token;
    v->kind[i] = kind;
    return FM_OK;
}

/* Merges are texts, "left right", or pairs of texts, for the longest of which `joined` gets room. */
static fm_status take_merges(vocabulary *v, const char *directory, const json_t *merges,
                             fm_error *err)
{
    size_t i;
    json_t *m;
    v->merges = merges;
    v->joined_bytes = 1;
    json_array_foreach(merges, i, m)
    {
        if (json_is_string(m)) continue;
        const json_t *a = json_array_get(m, 0), *b = json_array_get(m, 1);
        if (json_array_size(m) != 2 || !json_is_string(a) || !json_is_string(b))
            return fm_fail(err, FM_E_FORMAT,
                           "%s/tokenizer.json: merge number %zu is neither a text nor two",
                           directory, i);
        const size_t n = json_string_length(a) + json_string_length(b) + 2;
        if (n > v->joined_bytes) v->joined_bytes = n;
    }
    v->joined = malloc(v->joined_bytes);
    return v->joined ? FM_OK : fm_fail(err, FM_E_NOMEM, "%s: no memory for merges", directory);
}

static fm_status fill(vocabulary *v, const char *directory, const json_t *root, fm_error *err)
{
    const json_t *model = json_object_get(root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    json_t *vocab = json_object_get(model, "vocab"), *id, *added;
    if (!json_is_object(vocab) || (type && strcmp(type, "BPE") != 0))
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s/tokenizer.json: model.type \"%.40s\" is not written, only BPE",
                       directory, type ? type : "(none)");
    FM_TRY(take_merges(v, directory, json_object_get(model, "merges"), err));
    const char *token;
    json_object_foreach(vocab, token, id) FM_TRY(put_token(v, directory, token, id, NORMAL, err));
    size_t i;
    json_array_foreach(json_object_get(root, "added_tokens"), i, added)
    {
        token = json_string_value(json_object_get(added, "content"));
        if (!token)
            return fm_fail(err, FM_E_FORMAT, "%s/tokenizer.json: an added token without content",
                           directory);
        FM_TRY(put_token(v, directory, token, json_object_get(added, "id"),
                         json_is_true(json_object_get(added, "special")) ? CONTROL : USER_DEFINED,
                         err));
    }
    return FM_OK;
}

static const char *token_at(void *user, size_t i)
{
    const vocabulary *v = user;
    if (v->token[i]) return v->token[i];
    snprintf(v->filler[i], sizeof v->filler[i], "[PAD%zu]", i);
    return v->filler[i];
}

static const char *merge_at(void *user, size_t i)
{
    vocabulary *v = user;
    const json_t *m = json_array_get(v->merges, i);
    if (json_is_string(m)) return json_string_value(m);
    const char *a = json_string_value(json_array_get(m, 0)),
               *b = json_string_value(json_array_get(m, 1));
    snprintf(v->joined, v->joined_bytes, "%s %s", a, b);
    return v->joined;
}

/* ---- ids and template -------------------------------------------------------------------- */

/* A token's text: a string, or an object with `content`. */
static int64_t id_of_text(const vocabulary *v, const json_t *token)
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

static void put_id(fm_gguf_writer *w, const vocabulary *v, const char *key, const json_t *config,
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

static fm_status put_template(fm_gguf_writer *w, const char *directory, const json_t *tokenizer,
                              fm_error *err)
{
    char *text;
    size_t n;
    FM_TRY(read_text(&text, &n, directory, "chat_template.jinja", err));
    const json_t *t = json_object_get(tokenizer, "chat_template");
    if (text)
        fm_gguf_put_text(w, "tokenizer.chat_template", text, n);
    else if (json_is_string(t))
        fm_gguf_put_text(w, "tokenizer.chat_template", json_string_value(t), json_string_length(t));
    free(text);
    /* Several templates: the default one, and the others by their names. */
    size_t i;
    json_t *one;
    json_array_foreach(t, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        const json_t *body = json_object_get(one, "template");
        char key[120];
        if (!name || !json_is_string(body)) continue;
        const bool is_default = strcmp(name, "default") == 0;
        if (is_default && text) continue;
        snprintf(key, sizeof key, "tokenizer.chat_template%s%.80s", is_default ? "" : ".",
                 is_default ? "" : name);
        fm_gguf_put_text(w, key, json_string_value(body), json_string_length(body));
    }
    return FM_OK;
}

static fm_status put_all(fm_gguf_writer *w, vocabulary *v, const char *directory,
                         const json_t *root, fm_error *err)
{
    json_t *tokenizer = NULL, *generation = NULL, *config = NULL;
    fm_status st = fill(v, directory, root, err);
    if (st == FM_OK)
        st = fm_quantize_load_json(&tokenizer, directory, "tokenizer_config.json", err);
    if (st == FM_OK)
        st = fm_quantize_load_json(&generation, directory, "generation_config.json", err);
    if (st == FM_OK) st = fm_quantize_load_json(&config, directory, "config.json", err);
    if (st == FM_OK) {
        for (int64_t i = 0; i < v->n; i++)
            if (!v->token[i]) v->kind[i] = UNUSED;
        fm_gguf_put_str(w, "tokenizer.ggml.model", "gpt2");
        fm_gguf_put_str_array(w, "tokenizer.ggml.tokens", (size_t)v->n, token_at, v);
        fm_gguf_put_i32_array(w, "tokenizer.ggml.token_type", v->kind, (size_t)v->n);
        fm_gguf_put_str_array(w, "tokenizer.ggml.merges", json_array_size(v->merges), merge_at, v);
        put_id(w, v, "bos_token_id", config, generation, tokenizer, "bos_token");
        put_id(w, v, "eos_token_id", config, generation, tokenizer, "eos_token");
        put_id(w, v, "padding_token_id", config, generation, tokenizer, "pad_token");
        const json_t *bos = json_object_get(tokenizer, "add_bos_token");
        fm_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", json_is_true(bos));
        st = put_template(w, directory, tokenizer, err);
    }
    json_decref(tokenizer);
    json_decref(generation);
    json_decref(config);
    return st;
}

fm_status fm_quantize_put_vocab(fm_gguf_writer *w, const char *directory, int64_t n_vocab,
                                bool *found, fm_error *err)
{
    json_t *root;
    FM_TRY(fm_quantize_load_json(&root, directory, "tokenizer.json", err));
    *found = root != NULL;
    if (!root) return FM_OK;
    vocabulary v = {.n = n_vocab};
    fm_status st = FM_OK;
    if (n_vocab < 1 || n_vocab > VOCAB_MAX) {
        st = fm_fail(err, FM_E_FORMAT, "%s: an embedding of %" PRId64 " rows", directory, n_vocab);
    } else {
        v.token = calloc((size_t)n_vocab, sizeof *v.token);
        v.kind = calloc((size_t)n_vocab, sizeof *v.kind);
        v.filler = calloc((size_t)n_vocab, sizeof *v.filler);
        st = v.token && v.kind && v.filler
                 ? put_all(w, &v, directory, root, err)
                 : fm_fail(err, FM_E_NOMEM, "%s: no memory for the vocabulary", directory);
    }
    free(v.token);
    free(v.kind);
    free(v.filler);
    free(v.joined);
    json_decref(root);
    return st;
}
