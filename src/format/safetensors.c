/* Reads safetensors headers; every number is checked before it is used. */
#include "format/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"

/* The reference implementation accepts headers up to this size. */
enum { HEADER_MAX = 100 * 1000 * 1000 };

static const struct {
    const char *name;
    fm_dtype dtype;
    uint32_t bits;
} dtypes[] = {
    {"F32", FM_DT_F32, 32},      {"F16", FM_DT_F16, 16},     {"BF16", FM_DT_BF16, 16},
    {"F8_E4M3", FM_DT_E4M3, 8},  {"F8_E8M0", FM_DT_E8M0, 8}, {"U8", FM_DT_U8, 8},
    {"I32", FM_DT_I32, 32},      {"U32", FM_DT_U32, 32},     {"F64", FM_DT_OTHER, 64},
    {"I64", FM_DT_OTHER, 64},    {"U64", FM_DT_OTHER, 64},   {"I16", FM_DT_OTHER, 16},
    {"U16", FM_DT_OTHER, 16},    {"I8", FM_DT_OTHER, 8},     {"BOOL", FM_DT_OTHER, 8},
    {"F8_E5M2", FM_DT_OTHER, 8}, {"F4", FM_DT_OTHER, 4},
};

static const char *raw_name(const void *owner, uint32_t i)
{
    return ((const fm_raw_set *)owner)->tensors[i].name;
}

const fm_raw_tensor *fm_raw_set_find(const fm_raw_set *s, const char *name)
{
    const uint32_t i = fm_name_index_find(&s->index, raw_name, s, name);
    return i == UINT32_MAX ? NULL : &s->tensors[i];
}

void fm_raw_set_deinit(fm_raw_set *s)
{
    free(s->tensors);
    fm_name_index_deinit(&s->index);
    fm_string_arena_deinit(&s->names);
    *s = (fm_raw_set){0};
}

static fm_status append(fm_raw_set *s, fm_raw_tensor t, const char *path, fm_error *err)
{
    const size_t len = strlen(t.name);
    char *name = fm_string_arena_take(&s->names, len + 1);
    if (s->n == s->cap) {
        const uint32_t cap = s->cap ? 2 * s->cap : 256;
        fm_raw_tensor *grown = realloc(s->tensors, cap * sizeof *grown);
        if (grown) {
            s->tensors = grown;
            s->cap = cap;
        }
    }
    if (!name || s->n == s->cap)
        return fm_fail(err, FM_E_NOMEM, "%s: no memory for %u tensors", path, s->n + 1);
    memcpy(name, t.name, len + 1);
    t.name = name;
    s->tensors[s->n++] = t;
    if (fm_name_index_add(&s->index, raw_name, s)) return FM_OK;
    s->n--;
    return fm_fail(err, FM_E_NOMEM, "%s: no memory for %u tensors", path, s->n + 1);
}

/* A JSON integer that is not negative. */
static bool get_u64(const json_t *v, uint64_t *out)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static fm_status read_tensor(fm_raw_set *s, int32_t file, const char *path, const char *name,
                             const json_t *v, uint64_t data_start, uint64_t file_bytes,
                             fm_error *err)
{
    fm_raw_tensor t = {.name = name, .at = {.file = (uint16_t)file}};
    const char *dtype = json_string_value(json_object_get(v, "dtype"));
    const json_t *shape = json_object_get(v, "shape"),
                 *offsets = json_object_get(v, "data_offsets");
    uint64_t begin, end, bits = 0, stop;
    if (!dtype || !json_is_array(shape) || json_array_size(offsets) != 2 ||
        !get_u64(json_array_get(offsets, 0), &begin) || !get_u64(json_array_get(offsets, 1), &end))
        return fm_fail(err, FM_E_FORMAT,
                       "%s: tensor %.200s: expected dtype, shape and two data_offsets", path, name);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(dtypes[i].name, dtype) != 0) continue;
        t.dtype = dtypes[i].dtype;
        t.dtype_name = dtypes[i].name;
        bits = dtypes[i].bits;
    }
    if (bits == 0)
        return fm_fail(err, FM_E_UNSUPPORTED, "%s: tensor %.200s has the unknown dtype \"%.40s\"",
                       path, name, dtype);
    if (json_array_size(shape) > FM_RAW_DIMS)
        return fm_fail(err, FM_E_UNSUPPORTED, "%s: tensor %.200s has %zu dimensions, at most %d",
                       path, name, json_array_size(shape), FM_RAW_DIMS);
    t.n_dim = (int32_t)json_array_size(shape);
    for (int32_t i = 0; i < t.n_dim; i++) {
        uint64_t d;
        if (!get_u64(json_array_get(shape, (size_t)i), &d) || d > INT32_MAX ||
            !fm_mul_u64(bits, d, &bits))
            return fm_fail(err, FM_E_FORMAT, "%s: tensor %.200s: bad dimension %d of its shape",
                           path, name, i);
        t.dim[i] = (int64_t)d;
    }
    if (end < begin || !fm_add_u64(data_start, end, &stop) || stop > file_bytes)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: tensor %.200s: data_offsets %" PRIu64 " to %" PRIu64
                       ", but the file has %" PRIu64 " bytes of data (truncated?)",
                       path, name, begin, end, file_bytes - data_start);
    if (end - begin != bits / 8 || bits % 8 != 0)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: tensor %.200s: %" PRIu64 " bytes, but its shape in %s takes %" PRIu64,
                       path, name, end - begin, dtype, bits / 8);
    t.at.offset = data_start + begin;
    t.at.bytes = end - begin;
    if (fm_raw_set_find(s, name))
        return fm_fail(err, FM_E_FORMAT, "%s: tensor %.200s is there twice", path, name);
    return append(s, t, path, err);
}

fm_status fm_safetensors_parse(fm_raw_set *s, int32_t file, const char *path, const char *json,
                               size_t n, uint64_t data_start, uint64_t file_bytes, fm_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(root)) {
        json_decref(root);
        return fm_fail(err, FM_E_FORMAT, "%s: header: %s (at byte %d)", path,
                       root ? "expected an object" : why.text, root ? 0 : why.position);
    }
    const char *name;
    json_t *v;
    fm_status st = FM_OK;
    json_object_foreach(root, name, v)
    {
        if (st != FM_OK) break;
        if (strcmp(name, "__metadata__") == 0) continue;
        st = read_tensor(s, file, path, name, v, data_start, file_bytes, err);
    }
    json_decref(root);
    return st;
}

/* After a read that gave less than the file had when it was opened. */
static fm_status fail_read(FILE *f, const char *path, fm_error *err)
{
    if (ferror(f)) return fm_fail_errno(err, errno, "%s", path);
    return fm_fail(err, FM_E_IO, "%s: the file became shorter while it was read", path);
}

fm_status fm_safetensors_read(fm_raw_set *s, int32_t file, const char *path, fm_file_mark *mark,
                              fm_error *err)
{
    FILE *f = fopen(path, "rb");
    if (!f) return fm_fail_errno(err, errno, "%s", path);
    struct stat st;
    unsigned char head[8];
    uint64_t len = 0;
    char *json = NULL;
    fm_status status = FM_OK;
    if (fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode)) {
        status = fm_fail(err, FM_E_FORMAT, "%s: is not a regular file", path);
        goto done;
    }
    status = fm_file_mark_of(mark, fileno(f), path, err);
    if (status != FM_OK) goto done;
    const uint64_t file_bytes = mark->bytes;
    const size_t n_head = fread(head, 1, 8, f);
    if (n_head != 8 && (ferror(f) || file_bytes >= 8)) {
        status = fail_read(f, path, err);
        goto done;
    }
    if (n_head != 8 || file_bytes < 8) {
        status =
            fm_fail(err, FM_E_FORMAT, "%s: %" PRIu64 " bytes are too short for a safetensors file",
                    path, file_bytes);
        goto done;
    }
    if (memcmp(head, "version ", 8) == 0 && file_bytes < FM_LFS_POINTER_MAX) {
        status = fm_fail(err, FM_E_FORMAT,
                         "%s: not the weights but a Git LFS pointer to them (%" PRIu64
                         " bytes); `git lfs pull` fetches the file itself",
                         path, file_bytes);
        goto done;
    }
    for (int i = 0; i < 8; i++) len |= (uint64_t)head[i] << (8 * i);
    if (len > HEADER_MAX || len > file_bytes - 8) {
        status = fm_fail(err, FM_E_FORMAT,
                         "%s: the header claims %" PRIu64 " bytes, the file has %" PRIu64
                         " (at most %d are accepted)",
                         path, len, file_bytes, HEADER_MAX);
        goto done;
    }
    json = malloc((size_t)len + 1);
    if (!json) {
        status =
            fm_fail(err, FM_E_NOMEM, "%s: no memory for a header of %" PRIu64 " bytes", path, len);
    } else if (fread(json, 1, (size_t)len, f) != len) {
        status = fail_read(f, path, err);
    } else {
        status = fm_safetensors_parse(s, file, path, json, (size_t)len, 8 + len, file_bytes, err);
    }
done:
    free(json);
    fclose(f);
    return status;
}
