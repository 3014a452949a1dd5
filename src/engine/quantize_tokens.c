/* Vocabulary, merges and kinds of tokens of a Hugging Face directory, as GGUF files have them. tokenizer.json has them in this
 * form; those of tiktoken.model are spelled in the byte alphabet, and its merges follow from its ranks. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "engine/quantize_internal.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"

static fm_status no_memory(const char *directory, fm_error *err)
{
    return fm_fail(err, FM_E_NOMEM, "%s: no memory for the vocabulary", directory);
}

static fm_status make_room(fm_vocabulary *v, const char *directory, fm_error *err)
{
    const size_t n = (size_t)v->n;
    v->token = calloc(n, sizeof *v->token);
    v->kind = calloc(n, sizeof *v->kind);
    v->filler = calloc(n, sizeof *v->filler);
    return v->token && v->kind && v->filler ? FM_OK : no_memory(directory, err);
}

static fm_status put_token(fm_vocabulary *v, const char *directory, const char *file,
                           const char *token, int64_t id, int32_t kind, fm_error *err)
{
    if (id < 0 || id >= v->n)
        return fm_fail(err, FM_E_FORMAT,
                       "%s/%s: token \"%.60s\" has the id %" PRId64 ", the embedding %" PRId64
                       " rows",
                       directory, file, token, id, v->n);
    v->token[id] = token;
    v->kind[id] = kind;
    return FM_OK;
}

/* ---- tokenizer.json ---------------------------------------------------------------------- */

static int64_t id_of(const json_t *id)
{
    return json_is_integer(id) ? json_integer_value(id) : -1;
}

/* Merges are texts, "left right", or pairs of texts, for the longest of which `joined` gets room. */
static fm_status take_merges(fm_vocabulary *v, const char *directory, const json_t *merges,
                             fm_error *err)
{
    size_t i;
    json_t *m;
    v->merges = merges;
    v->n_merge = json_array_size(merges);
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

static fm_status from_json(fm_vocabulary *v, const char *directory, fm_error *err)
{
    static const char file[] = "tokenizer.json";
    const json_t *model = json_object_get(v->root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    json_t *vocab = json_object_get(model, "vocab"), *id, *added;
    if (!json_is_object(vocab) || (type && strcmp(type, "BPE") != 0))
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s/%s: model.type \"%.40s\" is not written, only BPE", directory, file,
                       type ? type : "(none)");
    FM_TRY(make_room(v, directory, err));
    FM_TRY(take_merges(v, directory, json_object_get(model, "merges"), err));
    const char *token;
    json_object_foreach(vocab, token, id)
        FM_TRY(put_token(v, directory, file, token, id_of(id), FM_TOKEN_NORMAL, err));
    size_t i;
    json_array_foreach(json_object_get(v->root, "added_tokens"), i, added)
    {
        token = json_string_value(json_object_get(added, "content"));
        if (!token)
            return fm_fail(err, FM_E_FORMAT, "%s/%s: an added token without content", directory,
                           file);
        FM_TRY(put_token(v, directory, file, token, id_of(json_object_get(added, "id")),
                         json_is_true(json_object_get(added, "special")) ? FM_TOKEN_CONTROL
                                                                         : FM_TOKEN_USER_DEFINED,
                         err));
    }
    return FM_OK;
}

/* ---- tiktoken.model ---------------------------------------------------------------------- */

/* Ranks in the byte alphabet, each with a zero behind. */
static fm_status spell(fm_vocabulary *v, const char *directory, fm_error *err)
{
    const fm_tiktoken *t = &v->tiktoken;
    size_t longest = 0;
    /* A byte becomes at most two, U+0143 being the largest of the alphabet. */
    v->spelled = malloc(2 * (size_t)t->start[t->n_rank] + (size_t)t->n_rank);
    if (!v->spelled) return no_memory(directory, err);
    char *to = v->spelled;
    for (int32_t r = 0; r < t->n_rank; r++) {
        const char *const token = to;
        for (uint32_t i = t->start[r]; i < t->start[r + 1]; i++) {
            const uint32_t code = fm_byte_alphabet((unsigned char)t->bytes[i]);
            if (code >= 0x80) *to++ = (char)(0xC0 | code >> 6);
            *to++ = (char)(code >= 0x80 ? 0x80 | (code & 0x3F) : code);
        }
        if ((size_t)(to - token) > longest) longest = (size_t)(to - token);
        *to++ = 0;
        FM_TRY(put_token(v, directory, "tiktoken.model", token, r, FM_TOKEN_NORMAL, err));
    }
    v->joined_bytes = longest + 2; /* what a merge makes is a token */
    v->joined = malloc(v->joined_bytes);
    return v->joined ? FM_OK : no_memory(directory, err);
}

static fm_status from_tiktoken(fm_vocabulary *v, const char *directory, const char *text, size_t n,
                               fm_error *err)
{
    char *config, origin[1024];
    size_t n_config;
    snprintf(origin, sizeof origin, "%.1000s/tiktoken.model", directory);
    FM_TRY(fm_quantize_read_text(&config, &n_config, directory, "tokenizer_config.json", err));
    if (!config)
        return fm_fail(err, FM_E_IO,
                       "%s/tokenizer_config.json: is missing; it names the special "
                       "tokens of %s",
                       directory, origin);
    const fm_tiktoken *t = &v->tiktoken;
    const fm_status st = fm_tiktoken_read(&v->tiktoken, text, n, config, n_config, origin, err);
    free(config);
    FM_TRY(st);
    FM_TRY(make_room(v, directory, err));
    FM_TRY(spell(v, directory, err));
    for (int i = 0; i < FM_TIKTOKEN_SPECIALS; i++) {
        if (!t->is_named[i] && t->n_rank + i >= v->n)
            continue; /* reserved, and the model has none */
        FM_TRY(put_token(v, directory, "tokenizer_config.json", t->special[i], t->n_rank + i,
                         t->user_defined[i] ? FM_TOKEN_USER_DEFINED : FM_TOKEN_CONTROL, err));
    }
    int32_t n_merge;
    FM_TRY(fm_tiktoken_merges(t, &v->pairs, &n_merge, &v->n_without_merge, err));
    v->n_merge = (size_t)n_merge;
    return FM_OK;
}

/* ---- either ------------------------------------------------------------------------------ */

const char *fm_vocabulary_merge(void *vocabulary, size_t i)
{
    fm_vocabulary *v = vocabulary;
    const char *a, *b;
    if (v->pairs) {
        a = v->token[v->pairs[i].left];
        b = v->token[v->pairs[i].right];
    } else {
        const json_t *m = json_array_get(v->merges, i);
        if (json_is_string(m)) return json_string_value(m);
        a = json_string_value(json_array_get(m, 0));
        b = json_string_value(json_array_get(m, 1));
    }
    snprintf(v->joined, v->joined_bytes, "%s %s", a, b);
    return v->joined;
}

fm_status fm_vocabulary_read(fm_vocabulary *v, const char *directory, fm_error *err)
{
    FM_TRY(fm_quantize_load_json(&v->root, directory, "tokenizer.json", err));
    if (v->root) {
        FM_TRY(from_json(v, directory, err));
    } else {
        char *text;
        size_t n;
        FM_TRY(fm_quantize_read_text(&text, &n, directory, "tiktoken.model", err));
        if (!text) return FM_OK;
        const fm_status st = from_tiktoken(v, directory, text, n, err);
        free(text);
        FM_TRY(st);
    }
    for (int64_t i = 0; i < v->n; i++)
        if (!v->token[i]) v->kind[i] = FM_TOKEN_UNUSED;
    return FM_OK;
}

void fm_vocabulary_free(fm_vocabulary *v)
{
    free(v->token);
    free(v->kind);
    free(v->filler);
    free(v->spelled);
    free(v->pairs);
    free(v->joined);
    fm_tiktoken_free(&v->tiktoken);
    json_decref(v->root);
    *v = (fm_vocabulary){0};
}
