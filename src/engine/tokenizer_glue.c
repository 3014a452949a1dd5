/* Tokenizers from files: a GGUF file's metadata, a tokenizer.json, or a Hugging Face directory. */
#include "engine/tokenizer_glue.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json_parse.h"
#include "base/read_file.h"

#define KEY "tokenizer.ggml."

/* ---- GGUF -------------------------------------------------------------------------------- */

static fm_status token_of(void *user, int32_t id, fm_text_span *out, fm_error *err)
{
    fm_str s;
    FM_TRY(fm_meta_array_str(user, KEY "tokens", (uint64_t)id, &s, err));
    *out = (fm_text_span){s.data, s.len};
    return FM_OK;
}

static fm_status type_of(void *user, int32_t id, int32_t *out, fm_error *err)
{
    int64_t type;
    FM_TRY(fm_meta_array_int(user, KEY "token_type", (uint64_t)id, &type, err));
    if (type < FM_TOKEN_NORMAL || type > FM_TOKEN_BYTE)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: " KEY "token_type of token %d is %" PRId64 ", expected 1 to 6",
                       fm_checkpoint_file(user, 0), id, type);
    *out = (int32_t)type;
    return FM_OK;
}

static fm_status merge_of(void *user, int64_t i, fm_text_span *left, fm_text_span *right,
                          fm_error *err)
{
    fm_str s;
    FM_TRY(fm_meta_array_str(user, KEY "merges", (uint64_t)i, &s, err));
    *left = (fm_text_span){s.data, s.len};
    *right = (fm_text_span){0};
    return FM_OK;
}

/* Elements of an array that must be of strings (or, `ints`, of integers). */
static fm_status count_of(const fm_checkpoint *c, const char *key, bool ints, uint64_t *count,
                          fm_error *err)
{
    fm_meta_kind kind;
    FM_TRY(fm_meta_array(c, key, &kind, count, err));
    const bool ok = ints ? kind == FM_META_INT || kind == FM_META_UINT : kind == FM_META_STRING;
    if (!ok)
        return fm_fail(err, FM_E_FORMAT, "%s: metadata key %s is no array of %s",
                       fm_checkpoint_file(c, 0), key, ints ? "integers" : "strings");
    if (*count > INT32_MAX / 4)
        return fm_fail(err, FM_E_FORMAT, "%s: metadata key %s has %" PRIu64 " elements",
                       fm_checkpoint_file(c, 0), key, *count);
    return FM_OK;
}

/* A string without zero bytes inside, since names end at one here. */
static fm_status name_of(const fm_checkpoint *c, const char *key, const char **out, fm_error *err)
{
    fm_str s;
    FM_TRY(fm_meta_str(c, key, &s, err));
    if (strlen(s.data) != s.len)
        return fm_fail(err, FM_E_FORMAT, "%s: metadata key %s contains a zero byte",
                       fm_checkpoint_file(c, 0), key);
    *out = s.data;
    return FM_OK;
}

static fm_status end_id(const fm_checkpoint *c, const char *key, uint64_t n_token, int32_t *out,
                        fm_error *err)
{
    uint32_t id;
    FM_TRY(fm_meta_u32(c, key, &id, err));
    if (id >= n_token)
        return fm_fail(err, FM_E_FORMAT, "%s: %s is %u, but there are %" PRIu64 " tokens",
                       fm_checkpoint_file(c, 0), key, id, n_token);
    *out = (int32_t)id;
    return FM_OK;
}

fm_status fm_tokenizer_from_checkpoint(fm_tokenizer **out, const fm_checkpoint *c,
                                       fm_error *passed_over, fm_error *err)
{
    *out = NULL;
    if (passed_over) *passed_over = (fm_error){0};
    if (fm_checkpoint_directory(c))
        return fm_tokenizer_from_directory(out, fm_checkpoint_directory(c), err);
    fm_tokenizer_source src = {
        .origin = fm_checkpoint_file(c, 0),
        .user = (void *)c, /* only read; the callbacks take a plain pointer */
        .token = token_of,
        .merge = merge_of,
    };
    uint64_t n_token, n_type, n_merge = 0;
    FM_TRY(name_of(c, KEY "model", &src.model, err));
    FM_TRY(name_of(c, KEY "pre", &src.pre, err));
    FM_TRY(count_of(c, KEY "tokens", false, &n_token, err));
    if (fm_meta_has(c, KEY "merges")) FM_TRY(count_of(c, KEY "merges", false, &n_merge, err));
    if (fm_meta_has(c, KEY "token_type")) {
        FM_TRY(count_of(c, KEY "token_type", true, &n_type, err));
        if (n_type != n_token)
            return fm_fail(err, FM_E_FORMAT,
                           "%s: " KEY "token_type has %" PRIu64 " elements for %" PRIu64 " tokens",
                           src.origin, n_type, n_token);
        src.token_type = type_of;
    }
    src.n_token = (int32_t)n_token;
    src.n_merge = (int64_t)n_merge;

    /* Some converters write the highest number where a model has no such token. Without the end of a turn or of a message
     * a model can be used; without the end of a text it would not stop. */
    static const char *const end_keys[] = {KEY "eos_token_id", KEY "eot_token_id",
                                           KEY "eom_token_id"};
    int32_t end_ids[sizeof end_keys / sizeof end_keys[0]];
    for (size_t i = 0; i < sizeof end_keys / sizeof end_keys[0]; i++) {
        if (!fm_meta_has(c, end_keys[i])) continue;
        const fm_status st =
            end_id(c, end_keys[i], n_token, &end_ids[src.n_end_id], i == 0 ? err : passed_over);
        if (i == 0) FM_TRY(st);
        src.n_end_id += st == FM_OK;
    }
    src.end_ids = end_ids;
    return fm_tokenizer_create(out, &src, err);
}

/* ---- files ------------------------------------------------------------------------------- */

static fm_status open_gguf(fm_tokenizer **out, const char *path, fm_error *err)
{
    fm_checkpoint *c;
    FM_TRY(fm_checkpoint_open(&c, path, err));
    const fm_status st = fm_tokenizer_from_checkpoint(out, c, NULL, err);
    fm_checkpoint_close(c);
    return st;
}

static fm_status open_json(fm_tokenizer **out, const char *path, fm_error *err)
{
    char *data;
    size_t n;
    FM_TRY(fm_read_file(&data, &n, path, FM_TOKENIZER_FILE_MAX, err));
    const fm_status st = fm_tokenizer_from_json(out, data, n, path, err);
    free(data);
    return st;
}

/* ---- directories ------------------------------------------------------------------------- */

/* DIR/NAME; *data NULL when there is no such file. */
static fm_status read_beside(const char *directory, const char *name, char **path, char **data,
                             size_t *n, fm_error *err)
{
    *data = NULL;
    *path = fm_path_join(directory, name);
    if (!*path) return fm_fail(err, FM_E_NOMEM, "%s: no memory", directory);
    return fm_read_file_if_any(data, n, *path, FM_TOKENIZER_FILE_MAX, err);
}

static void add_end_ids(fm_tokenizer *tok, const json_t *v)
{
    if (json_is_array(v)) {
        size_t i;
        json_t *item;
        json_array_foreach(v, i, item) add_end_ids(tok, item);
    } else if (json_is_integer(v) && json_integer_value(v) >= 0 &&
               json_integer_value(v) <= INT32_MAX) {
        const int32_t id = (int32_t)json_integer_value(v);
        fm_tokenizer_add_ends(tok, &id, 1);
    }
}

/* eos_token_id of one of the directory's JSON files, if it is there. */
static fm_status add_ends_of(fm_tokenizer *tok, const char *directory, const char *name,
                             fm_error *err)
{
    char *path, *data;
    size_t n;
    fm_status st = read_beside(directory, name, &path, &data, &n, err);
    if (st == FM_OK && data) {
        json_error_t why;
        json_t *root = fm_json_parse(data, n, 0, &why);
        if (!root) {
            st = fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", path, why.line, why.text);
        } else {
            add_end_ids(tok, json_object_get(root, "eos_token_id"));
            add_end_ids(tok, json_object_get(json_object_get(root, "text_config"), "eos_token_id"));
        }
        json_decref(root);
    }
    free(path);
    free(data);
    return st;
}

static fm_status from_tiktoken(fm_tokenizer **out, const char *directory, fm_error *err)
{
    char *path, *data, *config_path = NULL, *config = NULL;
    size_t n, n_config;
    fm_status st = read_beside(directory, "tiktoken.model", &path, &data, &n, err);
    if (st == FM_OK && !data)
        st = fm_fail(err, FM_E_IO, "%s: has neither tokenizer.json nor tiktoken.model", directory);
    if (st == FM_OK)
        st = read_beside(directory, "tokenizer_config.json", &config_path, &config, &n_config, err);
    if (st == FM_OK && !config)
        st = fm_fail(err, FM_E_IO, "%s: is missing; it names the special tokens of %s", config_path,
                     path);
    if (st == FM_OK)
        st = fm_tokenizer_from_tiktoken(out, data, n, config, n_config, "kimi-k2", path, err);
    free(path);
    free(data);
    free(config_path);
    free(config);
    return st;
}

fm_status fm_tokenizer_from_directory(fm_tokenizer **out, const char *directory, fm_error *err)
{
    *out = NULL;
    char *path, *data;
    size_t n;
    fm_status st = read_beside(directory, "tokenizer.json", &path, &data, &n, err);
    if (st == FM_OK)
        st = data ? fm_tokenizer_from_json(out, data, n, path, err)
                  : from_tiktoken(out, directory, err);
    free(path);
    free(data);
    static const char *const with_ends[] = {"generation_config.json", "config.json"};
    for (int i = 0; i < 2 && st == FM_OK; i++) st = add_ends_of(*out, directory, with_ends[i], err);
    if (st != FM_OK) {
        fm_tokenizer_close(*out);
        *out = NULL;
    }
    return st;
}

/* ---- the token that texts start with ----------------------------------------------------- */

/* By the document of the tokenizer_config.json `path`. */
static fm_status bos_of_config(const json_t *root, const char *path, const fm_tokenizer *tok,
                               int32_t *id, fm_error *err)
{
    const json_t *add = json_object_get(root, "add_bos_token");
    const json_t *bos = json_object_get(root, "bos_token");
    if (!json_is_object(root))
        return fm_fail(err, FM_E_FORMAT, "%s: is %s, expected a JSON object", path,
                       fm_json_kind(root));
    if (add && !json_is_boolean(add) && !json_is_null(add))
        return fm_fail(err, FM_E_FORMAT, "%s: add_bos_token is %s, neither true nor false", path,
                       fm_json_kind(add));
    if (!json_is_true(add) || !bos || json_is_null(bos)) return FM_OK;
    const bool is_object = json_is_object(bos);
    if (is_object) bos = json_object_get(bos, "content");
    if (!json_is_string(bos))
        return fm_fail(
            err, FM_E_FORMAT,
            "%s: bos_token%s is %s, expected a text, or an object with one as its content", path,
            is_object ? ".content" : "", bos ? fm_json_kind(bos) : "missing");
    *id = fm_token_find(tok, json_string_value(bos));
    if (*id >= 0) return FM_OK;
    return fm_fail(err, FM_E_FORMAT,
                   "%s: bos_token is \"%.60s\", which is none of the tokenizer's %d tokens, and "
                   "add_bos_token asks for it",
                   path, json_string_value(bos), fm_tokenizer_n_vocab(tok));
}

fm_status fm_tokenizer_bos_of_directory(const char *directory, const fm_tokenizer *tok, int32_t *id,
                                        fm_error *err)
{
    *id = -1;
    char *path, *data;
    size_t n;
    fm_status st = read_beside(directory, "tokenizer_config.json", &path, &data, &n, err);
    if (st == FM_OK && data) {
        json_error_t why;
        json_t *root = fm_json_parse(data, n, 0, &why);
        st = root ? bos_of_config(root, path, tok, id, err)
                  : fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", path, why.line, why.text);
        json_decref(root);
    }
    free(path);
    free(data);
    return st;
}

fm_status fm_tokenizer_bos(const fm_checkpoint *c, const fm_tokenizer *tok, int32_t *id,
                           fm_error *err)
{
    *id = -1;
    if (fm_checkpoint_directory(c))
        return fm_tokenizer_bos_of_directory(fm_checkpoint_directory(c), tok, id, err);
    bool wanted;
    uint32_t bos;
    FM_TRY(fm_meta_bool_or(c, KEY "add_bos_token", &wanted, false, err));
    if (!wanted || !fm_meta_has(c, KEY "bos_token_id")) return FM_OK;
    FM_TRY(fm_meta_u32(c, KEY "bos_token_id", &bos, err));
    if (bos >= (uint32_t)fm_tokenizer_n_vocab(tok))
        return fm_fail(err, FM_E_FORMAT,
                       "%s: " KEY "bos_token_id is %u, but there are %d tokens, and add_bos_token "
                       "asks for it",
                       fm_checkpoint_file(c, 0), bos, fm_tokenizer_n_vocab(tok));
    *id = (int32_t)bos;
    return FM_OK;
}

fm_status fm_tokenizer_open(fm_tokenizer **out, const char *path, fm_error *err)
{
    *out = NULL;
    if (!path) return fm_fail(err, FM_E_ARG, "no path of a tokenizer was given");
    struct stat sb;
    if (stat(path, &sb) != 0) return fm_fail_errno(err, errno, "%s", path);
    if (S_ISDIR(sb.st_mode)) return fm_tokenizer_from_directory(out, path, err);
    /* The checkpoint reader has the messages for devices. */
    if (!S_ISREG(sb.st_mode)) return open_gguf(out, path, err);
    FILE *f = fopen(path, "rb");
    if (!f) return fm_fail_errno(err, errno, "%s", path);
    unsigned char head[64];
    const size_t n = fread(head, 1, sizeof head, f);
    size_t i = 0;
    while (i < n && (head[i] == ' ' || head[i] == '\n' || head[i] == '\r' || head[i] == '\t')) i++;
    fm_status st;
    if (i < n && head[i] == '{') {
        st = open_json(out, path, err);
    } else if (n >= 4 && memcmp(head, "GGUF", 4) == 0) {
        st = open_gguf(out, path, err);
    } else if (n >= 2 && head[0] == 0x1f && head[1] == 0x8b) {
        st = fm_fail(err, FM_E_UNSUPPORTED, "%s: is compressed with gzip; unpack it first", path);
    } else {
        st = fm_fail(err, FM_E_FORMAT, "%s: neither a GGUF file nor a tokenizer.json", path);
    }
    fclose(f);
    return st;
}
