/* Tokenizers from files: a GGUF file's metadata or a tokenizer.json. */
#include "engine/tokenizer_glue.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A tokenizer.json of the largest vocabularies has 20 MB. */
enum { JSON_BYTES_MAX = 256 * 1024 * 1024 };

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

fm_status fm_tokenizer_from_checkpoint(fm_tokenizer **out, const fm_checkpoint *c, fm_error *err)
{
    *out = NULL;
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

    static const char *const end_keys[] = {KEY "eos_token_id", KEY "eot_token_id",
                                           KEY "eom_token_id"};
    int32_t end_ids[sizeof end_keys / sizeof end_keys[0]];
    for (size_t i = 0; i < sizeof end_keys / sizeof end_keys[0]; i++) {
        uint32_t id;
        if (!fm_meta_has(c, end_keys[i])) continue;
        FM_TRY(fm_meta_u32(c, end_keys[i], &id, err));
        if (id >= n_token)
            return fm_fail(err, FM_E_FORMAT, "%s: %s is %u, but there are %" PRIu64 " tokens",
                           src.origin, end_keys[i], id, n_token);
        end_ids[src.n_end_id++] = (int32_t)id;
    }
    src.end_ids = end_ids;
    return fm_tokenizer_create(out, &src, err);
}

/* ---- files ------------------------------------------------------------------------------- */

static fm_status open_gguf(fm_tokenizer **out, const char *path, fm_error *err)
{
    fm_checkpoint *c;
    FM_TRY(fm_checkpoint_open(&c, path, err));
    const fm_status st = fm_tokenizer_from_checkpoint(out, c, err);
    fm_checkpoint_close(c);
    return st;
}

/* Reads all of f, of which `size` bytes were seen. *data is malloc'd. */
static fm_status read_all(FILE *f, const char *path, size_t size, char **data, fm_error *err)
{
    *data = malloc(size + 1);
    if (!*data) return fm_fail(err, FM_E_NOMEM, "%s: no memory for %zu bytes", path, size);
    errno = 0;
    if (fread(*data, 1, size, f) == size) return FM_OK;
    free(*data);
    *data = NULL;
    if (ferror(f)) return fm_fail_errno(err, errno, "%s: reading", path);
    return fm_fail(err, FM_E_FORMAT, "%s: the file became shorter while it was read", path);
}

static fm_status open_json(fm_tokenizer **out, FILE *f, const char *path, uint64_t size,
                           fm_error *err)
{
    if (size > JSON_BYTES_MAX)
        return fm_fail(err, FM_E_LIMIT, "%s: %" PRIu64 " bytes; a tokenizer.json may have %d", path,
                       size, JSON_BYTES_MAX);
    char *data;
    FM_TRY(read_all(f, path, (size_t)size, &data, err));
    const fm_status st = fm_tokenizer_from_json(out, data, (size_t)size, path, err);
    free(data);
    return st;
}

fm_status fm_tokenizer_open(fm_tokenizer **out, const char *path, fm_error *err)
{
    *out = NULL;
    if (!path) return fm_fail(err, FM_E_ARG, "no path of a tokenizer was given");
    struct stat sb;
    if (stat(path, &sb) != 0) return fm_fail_errno(err, errno, "%s", path);
    /* The checkpoint reader has the messages for directories and devices. */
    if (!S_ISREG(sb.st_mode)) return open_gguf(out, path, err);
    FILE *f = fopen(path, "rb");
    if (!f) return fm_fail_errno(err, errno, "%s", path);
    unsigned char head[64];
    const size_t n = fread(head, 1, sizeof head, f);
    size_t i = 0;
    while (i < n && (head[i] == ' ' || head[i] == '\n' || head[i] == '\r' || head[i] == '\t')) i++;
    fm_status st;
    if (i < n && head[i] == '{') {
        rewind(f);
        st = open_json(out, f, path, (uint64_t)sb.st_size, err);
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
