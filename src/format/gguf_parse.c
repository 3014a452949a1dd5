/* Parser of one GGUF file: magic, metadata, tensor directory. All that a count or length claims is
 * held against the bytes that remain before memory is taken for it, and tables grow with what was
 * really read, so a damaged file cannot ask for more memory than a small multiple of its bytes (a
 * tensor of 33 bytes in the file takes about 300, a metadata entry of 14 about 200). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "format/checkpoint_internal.h"
#include "format/gguf_types.h"
#include "quant/quant.h"

/* Smallest encodings, to hold counts against the rest of the file: a key of one byte with a value
 * of one byte; a name of one byte with one dimension. */
enum { MIN_ENTRY_BYTES = 8 + 1 + 4 + 1, MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8 };

static fm_status no_memory(const fm_gguf_reader *r, fm_error *err)
{
    return fm_fail(err, FM_E_NOMEM, "%s: no memory for %s", r->path, r->object);
}

/* Room for one more element in a growing table; *cap elements before, doubled when full. */
static bool grow(void **table, uint32_t *cap, uint32_t n, size_t elem_bytes)
{
    if (n < *cap) return true;
    if (*cap > UINT32_MAX / 4) return false;
    const uint32_t bigger = *cap ? *cap * 2 : 64;
    size_t bytes;
    if (!fm_mul_size(bigger, elem_bytes, &bytes)) return false;
    void *p = realloc(*table, bytes);
    if (!p) return false;
    *table = p;
    *cap = bigger;
    return true;
}

/* ---- strings ----------------------------------------------------------------------------- */

static fm_status read_length(fm_gguf_reader *r, uint64_t *len, uint64_t max, const char *what,
                             fm_error *err)
{
    FM_TRY(fm_gguf_u64(r, len, what, err));
    if (*len > fm_gguf_remaining(r))
        return fm_gguf_fail(r, err,
                            "%s says %" PRIu64 " bytes, but only %" PRIu64
                            " are left in the file (download incomplete?)",
                            what, *len, fm_gguf_remaining(r));
    if (*len > max)
        return fm_gguf_fail(r, err, "%s says %" PRIu64 " bytes; at most %" PRIu64 " are accepted",
                            what, *len, max);
    return FM_OK;
}

/* A key or tensor name: 1..FM_GGUF_NAME_MAX bytes without NUL, kept in `arena`. */
static fm_status read_name(fm_gguf_reader *r, fm_string_arena *arena, const char **out,
                           const char *what, fm_error *err)
{
    uint64_t len;
    FM_TRY(read_length(r, &len, FM_GGUF_NAME_MAX, what, err));
    if (len == 0) return fm_gguf_fail(r, err, "%s is empty", what);
    char *s = fm_string_arena_take(arena, (size_t)len + 1);
    if (!s) return no_memory(r, err);
    FM_TRY(fm_gguf_bytes(r, s, (size_t)len, what, err));
    s[len] = 0;
    if (strlen(s) != len) return fm_gguf_fail(r, err, "%s contains a zero byte", what);
    *out = s;
    return FM_OK;
}

/* ---- metadata ---------------------------------------------------------------------------- */

/* One scalar of `type` from its bytes; false for a bool that is neither 0 nor 1. */
static bool decode_scalar(fm_meta_entry *e, uint32_t type, const unsigned char *b)
{
    union {
        uint32_t u;
        float f;
    } f32;
    union {
        uint64_t u;
        double f;
    } f64;
    switch (type) {
    case FM_GGUF_U8:
        e->value.u = b[0];
        break;
    case FM_GGUF_I8:
        e->value.i = (int8_t)b[0];
        break;
    case FM_GGUF_U16:
        e->value.u = fm_le16(b);
        break;
    case FM_GGUF_I16:
        e->value.i = (int16_t)fm_le16(b);
        break;
    case FM_GGUF_U32:
        e->value.u = fm_le32(b);
        break;
    case FM_GGUF_I32:
        e->value.i = (int32_t)fm_le32(b);
        break;
    case FM_GGUF_U64:
        e->value.u = fm_le64(b);
        break;
    case FM_GGUF_I64:
        e->value.i = (int64_t)fm_le64(b);
        break;
    case FM_GGUF_BOOL:
        e->value.u = b[0];
        return b[0] <= 1;
    case FM_GGUF_F32:
        f32.u = fm_le32(b);
        e->value.f = (double)f32.f;
        break;
    default:
        f64.u = fm_le64(b);
        e->value.f = f64.f;
        break;
    }
    return true;
}

static fm_status read_scalar_array(fm_gguf_reader *r, fm_meta_entry *e, fm_error *err)
{
    uint64_t bytes;
    const uint32_t elem_bytes = fm_gguf_value_bytes(e->elem_type);
    if (!fm_mul_u64(e->count, elem_bytes, &bytes) || bytes > fm_gguf_remaining(r))
        return fm_gguf_fail(r, err,
                            "the array says %" PRIu64 " elements of type %s, but only %" PRIu64
                            " bytes are left in the file (download incomplete?)",
                            e->count, fm_gguf_value_name(e->elem_type), fm_gguf_remaining(r));
    if (bytes > FM_GGUF_HEADER_MAX)
        return fm_gguf_fail(r, err,
                            "the array says %" PRIu64 " bytes; at most %" PRIu64 " are accepted",
                            bytes, FM_GGUF_HEADER_MAX);
    if (bytes == 0) return FM_OK;
    e->data = malloc((size_t)bytes);
    if (!e->data) return no_memory(r, err);
    e->heap_bytes = bytes;
    FM_TRY(fm_gguf_bytes(r, e->data, (size_t)bytes, "the array", err));
    if (e->elem_type == FM_GGUF_BOOL)
        for (uint64_t i = 0; i < e->count; i++)
            if (e->data[i] > 1)
                return fm_gguf_fail(r, err,
                                    "element %" PRIu64 " of type bool is %u, expected 0 or 1", i,
                                    e->data[i]);
    return FM_OK;
}

/* The strings one after another, each with a NUL, and where each starts. */
static fm_status read_string_array(fm_gguf_reader *r, fm_meta_entry *e, fm_error *err)
{
    if (e->count > fm_gguf_remaining(r) / 8)
        return fm_gguf_fail(r, err,
                            "the array says %" PRIu64 " strings, but only %" PRIu64
                            " bytes are left in the file (download incomplete?)",
                            e->count, fm_gguf_remaining(r));
    if (e->count > FM_GGUF_HEADER_MAX / 8)
        return fm_gguf_fail(r, err,
                            "the array says %" PRIu64 " strings; at most %" PRIu64 " are accepted",
                            e->count, FM_GGUF_HEADER_MAX / 8);
    uint32_t cap_start = 0;
    size_t used = 0, cap_data = 0;
    for (uint64_t i = 0; i <= e->count; i++) {
        if (!grow((void **)&e->start, &cap_start, (uint32_t)i, sizeof *e->start))
            return no_memory(r, err);
        e->start[i] = (uint32_t)used;
        if (i == e->count) break;
        uint64_t len;
        FM_TRY(read_length(r, &len, FM_GGUF_HEADER_MAX, "a string of the array", err));
        const size_t need = used + (size_t)len + 1;
        if (need > FM_GGUF_HEADER_MAX)
            return fm_gguf_fail(r, err, "the strings of the array exceed %" PRIu64 " bytes",
                                FM_GGUF_HEADER_MAX);
        if (need > cap_data) {
            cap_data = need + need / 2 + 256;
            unsigned char *p = realloc(e->data, cap_data);
            if (!p) return no_memory(r, err);
            e->data = p;
        }
        FM_TRY(fm_gguf_bytes(r, e->data + used, (size_t)len, "a string of the array", err));
        e->data[need - 1] = 0;
        used = need;
    }
    /* Give back what growing left over; a refusal only keeps the larger block. */
    if (used > 0) {
        unsigned char *p = realloc(e->data, used);
        if (p) e->data = p;
    }
    uint32_t *s = realloc(e->start, ((size_t)e->count + 1) * sizeof *s);
    if (s) e->start = s;
    e->heap_bytes = used + (e->count + 1) * sizeof *s;
    return FM_OK;
}

static fm_status read_value(fm_gguf_reader *r, fm_meta_set *m, fm_meta_entry *e, fm_error *err)
{
    FM_TRY(fm_gguf_u32(r, &e->type, "the value type", err));
    if (e->type >= FM_GGUF_N_VALUE_TYPE)
        return fm_gguf_fail(r, err, "unknown value type %u (0 to %d are defined)", e->type,
                            FM_GGUF_N_VALUE_TYPE - 1);
    if (e->type == FM_GGUF_STRING) {
        uint64_t len;
        FM_TRY(read_length(r, &len, FM_GGUF_HEADER_MAX, "the string", err));
        char *s = fm_string_arena_take(&m->strings, (size_t)len + 1);
        if (!s) return no_memory(r, err);
        FM_TRY(fm_gguf_bytes(r, s, (size_t)len, "the string", err));
        s[len] = 0;
        e->value.s = (fm_str){s, (size_t)len};
        return FM_OK;
    }
    if (e->type == FM_GGUF_ARRAY) {
        FM_TRY(fm_gguf_u32(r, &e->elem_type, "the element type", err));
        FM_TRY(fm_gguf_u64(r, &e->count, "the array length", err));
        if (e->elem_type == FM_GGUF_ARRAY)
            return fm_gguf_fail(r, err, "an array of arrays; the engine knows none that is needed");
        if (e->elem_type >= FM_GGUF_N_VALUE_TYPE)
            return fm_gguf_fail(r, err, "unknown element type %u (0 to %d are defined)",
                                e->elem_type, FM_GGUF_N_VALUE_TYPE - 1);
        return e->elem_type == FM_GGUF_STRING ? read_string_array(r, e, err)
                                              : read_scalar_array(r, e, err);
    }
    unsigned char b[8];
    FM_TRY(fm_gguf_bytes(r, b, fm_gguf_value_bytes(e->type), "the value", err));
    if (!decode_scalar(e, e->type, b))
        return fm_gguf_fail(r, err, "a value of type bool is %u, expected 0 or 1", b[0]);
    return FM_OK;
}

static const char *entry_key(const void *owner, uint32_t i)
{
    return ((const fm_meta_set *)owner)->entries[i].key;
}

static fm_status read_metadata(fm_gguf_reader *r, fm_meta_set *m, uint64_t n_entry, fm_error *err)
{
    for (uint64_t i = 0; i < n_entry; i++) {
        snprintf(r->object, sizeof r->object, "metadata entry %" PRIu64 " of %" PRIu64, i + 1,
                 n_entry);
        if (!grow((void **)&m->entries, &m->cap_entry, m->n_entry, sizeof *m->entries))
            return no_memory(r, err);
        const char *key = "";
        FM_TRY(read_name(r, &m->strings, &key, "the key", err));
        char shown[FM_QUOTE_BYTES];
        snprintf(r->object, sizeof r->object, "metadata entry %" PRIu64 " of %" PRIu64 " (%s)",
                 i + 1, n_entry, fm_gguf_quote(shown, key, strlen(key)));
        if (fm_name_index_find(&m->index, entry_key, m, key) != UINT32_MAX)
            return fm_gguf_fail(r, err, "the key appears twice");
        fm_meta_entry *e = &m->entries[m->n_entry++];
        *e = (fm_meta_entry){.key = key};
        if (!fm_name_index_add(&m->index, entry_key, m)) return no_memory(r, err);
        FM_TRY(read_value(r, m, e, err));
    }
    return FM_OK;
}

/* ---- tensors ----------------------------------------------------------------------------- */

static const char *tensor_name(const void *owner, uint32_t i)
{
    return ((const fm_checkpoint *)owner)->tensors[i].name;
}

/* Dimensions, type and size; offset still as in the file. */
static fm_status read_geometry(fm_gguf_reader *r, fm_tensor_info *t, fm_error *err)
{
    const uint64_t dim_limit = UINT64_C(1) << 48;
    uint32_t n_dim;
    FM_TRY(fm_gguf_u32(r, &n_dim, "the number of dimensions", err));
    if (n_dim < 1 || n_dim > FM_MAX_DIMS)
        return fm_gguf_fail(r, err, "%u dimensions, expected 1 to %d", n_dim, FM_MAX_DIMS);
    t->n_dim = (int32_t)n_dim;
    uint64_t rows = 1;
    for (uint32_t d = 0; d < FM_MAX_DIMS; d++) {
        uint64_t dim = 1;
        if (d < n_dim) FM_TRY(fm_gguf_u64(r, &dim, "a dimension", err));
        if (dim == 0 || dim >= dim_limit)
            return fm_gguf_fail(r, err, "dimension %u is %" PRIu64 ", expected 1 to 2^48 - 1", d,
                                dim);
        t->dim[d] = (int64_t)dim;
        if (d > 0 && !fm_mul_u64(rows, dim, &rows))
            return fm_gguf_fail(r, err, "the product of the dimensions overflows");
    }
    FM_TRY(fm_gguf_u32(r, &t->type, "the type", err));
    uint32_t block_elems, block_bytes;
    if (!fm_type_geometry(t->type, &block_elems, &block_bytes))
        return fm_gguf_fail(r, err,
                            "unknown tensor type %u (written by a newer program, or a type "
                            "that was withdrawn from the format)",
                            t->type);
    if (t->dim[0] % block_elems != 0)
        return fm_gguf_fail(r, err, "rows of %" PRId64 " elements, but %s comes in blocks of %u",
                            t->dim[0], fm_type_name(t->type), block_elems);
    const uint64_t row_bytes = (uint64_t)t->dim[0] / block_elems * block_bytes;
    uint64_t elems;
    if (!fm_mul_u64(rows, row_bytes, &t->bytes) || !fm_mul_u64(rows, (uint64_t)t->dim[0], &elems) ||
        t->bytes > INT64_MAX || elems > INT64_MAX)
        return fm_gguf_fail(r, err, "the product of the dimensions overflows");
    return FM_OK;
}

static fm_status read_directory(fm_gguf_reader *r, fm_checkpoint *c, int32_t file,
                                uint64_t n_tensor, uint64_t alignment, fm_error *err)
{
    for (uint64_t i = 0; i < n_tensor; i++) {
        snprintf(r->object, sizeof r->object, "tensor %" PRIu64 " of %" PRIu64, i + 1, n_tensor);
        if (!grow((void **)&c->tensors, &c->cap_tensor, c->n_tensor, sizeof *c->tensors))
            return no_memory(r, err);
        fm_tensor_info t = {.name = "", .file = (uint16_t)file};
        FM_TRY(read_name(r, &c->names, &t.name, "the name", err));
        char shown[FM_QUOTE_BYTES];
        snprintf(r->object, sizeof r->object, "tensor %" PRIu64 " of %" PRIu64 " (%s)", i + 1,
                 n_tensor, fm_gguf_quote(shown, t.name, strlen(t.name)));
        const uint32_t twin = fm_name_index_find(&c->index, tensor_name, c, t.name);
        if (twin != UINT32_MAX)
            return fm_gguf_fail(r, err, "the name appears twice (first in %s)",
                                c->paths[c->tensors[twin].file]);
        FM_TRY(read_geometry(r, &t, err));
        FM_TRY(fm_gguf_u64(r, &t.offset, "the offset", err));
        if (t.offset % alignment != 0)
            return fm_gguf_fail(r, err,
                                "offset %" PRIu64 " is not a multiple of the alignment %" PRIu64,
                                t.offset, alignment);
        c->tensors[c->n_tensor++] = t;
        if (!fm_name_index_add(&c->index, tensor_name, c)) return no_memory(r, err);
    }
    return FM_OK;
}

/* Makes offsets absolute and holds every extent against the file. */
static fm_status place_tensors(const fm_gguf_reader *r, fm_checkpoint *c, uint32_t first,
                               uint64_t alignment, fm_error *err)
{
    /* pos <= file size < 2^63, so rounding up cannot wrap. */
    const uint64_t data = fm_round_up(r->pos, alignment);
    for (uint32_t i = first; i < c->n_tensor; i++) {
        fm_tensor_info *t = &c->tensors[i];
        uint64_t begin, end;
        char shown[FM_QUOTE_BYTES];
        fm_gguf_quote(shown, t->name, strlen(t->name));
        if (!fm_add_u64(data, t->offset, &begin) || !fm_add_u64(begin, t->bytes, &end))
            return fm_fail(err, FM_E_FORMAT,
                           "%s: tensor %s: offset %" PRIu64 " and %" PRIu64 " bytes overflow",
                           r->path, shown, t->offset, t->bytes);
        if (end > r->file_bytes)
            return fm_fail(err, FM_E_FORMAT,
                           "%s: the file ends at byte %" PRIu64
                           ", but tensor %s needs bytes %" PRIu64 " up to %" PRIu64
                           " (download incomplete?)",
                           r->path, r->file_bytes, shown, begin, end);
        t->offset = begin;
    }
    return FM_OK;
}

static int by_offset(const void *a, const void *b)
{
    const fm_tensor_info *x = *(const fm_tensor_info *const *)a;
    const fm_tensor_info *y = *(const fm_tensor_info *const *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Tensors may share one extent as a whole (tied weights); anything else that overlaps is damage. */
static fm_status check_overlap(const fm_gguf_reader *r, const fm_checkpoint *c, uint32_t first,
                               fm_error *err)
{
    const uint32_t n = c->n_tensor - first;
    if (n < 2) return FM_OK;
    const fm_tensor_info **order = malloc(n * sizeof *order);
    if (!order) return fm_fail(err, FM_E_NOMEM, "%s: no memory to check %u tensors", r->path, n);
    for (uint32_t i = 0; i < n; i++) order[i] = &c->tensors[first + i];
    qsort(order, n, sizeof *order, by_offset);
    fm_status st = FM_OK;
    for (uint32_t i = 1; i < n && st == FM_OK; i++) {
        const fm_tensor_info *a = order[i - 1], *b = order[i];
        const bool same = a->offset == b->offset && a->bytes == b->bytes;
        char shown_a[FM_QUOTE_BYTES], shown_b[FM_QUOTE_BYTES];
        if (!same && a->offset + a->bytes > b->offset)
            st = fm_fail(err, FM_E_FORMAT,
                         "%s: tensor %s (bytes %" PRIu64 " to %" PRIu64
                         ") overlaps tensor %s (bytes %" PRIu64 " to %" PRIu64 ")",
                         r->path, fm_gguf_quote(shown_a, a->name, strlen(a->name)), a->offset,
                         a->offset + a->bytes, fm_gguf_quote(shown_b, b->name, strlen(b->name)),
                         b->offset, b->offset + b->bytes);
    }
    free(order);
    return st;
}

/* ---- the file ---------------------------------------------------------------------------- */

static fm_status read_alignment(const fm_gguf_reader *r, const fm_meta_set *m, uint64_t *out,
                                fm_error *err)
{
    bool present;
    *out = 32;
    FM_TRY(fm_meta_set_uint(m, r->path, "general.alignment", UINT32_MAX, out, &present, err));
    if (*out < 8 || *out > 1 << 20 || (*out & (*out - 1)) != 0)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: general.alignment is %" PRIu64
                       ", expected a power of two from 8 to 1048576",
                       r->path, *out);
    return FM_OK;
}

static fm_status read_preamble(fm_gguf_reader *r, uint64_t *n_tensor, uint64_t *n_entry,
                               fm_error *err)
{
    unsigned char magic[4];
    if (r->file_bytes < sizeof magic)
        return fm_fail(err, FM_E_FORMAT, "%s: not a GGUF file (it has %" PRIu64 " bytes)", r->path,
                       r->file_bytes);
    FM_TRY(fm_gguf_bytes(r, magic, sizeof magic, "the magic", err));
    if (memcmp(magic, FM_GGUF_UNFINISHED, 4) == 0)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: not a whole model: flashmoe quantize has not finished it; the same "
                       "command again goes on where it stopped",
                       r->path);
    if (memcmp(magic, "vers", 4) == 0 && r->file_bytes < FM_LFS_POINTER_MAX)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: not the model but a Git LFS pointer to it (%" PRIu64
                       " bytes); `git lfs pull` fetches the file itself",
                       r->path, r->file_bytes);
    if (memcmp(magic, "GGUF", 4) != 0)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: not a GGUF file (starts with %02x %02x %02x %02x, expected \"GGUF\")",
                       r->path, magic[0], magic[1], magic[2], magic[3]);
    uint32_t version;
    FM_TRY(fm_gguf_u32(r, &version, "the version", err));
    if (version == UINT32_C(3) << 24)
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: a big-endian GGUF file; only little-endian ones are read", r->path);
    if (version != 3)
        return fm_fail(err, version >= 1 && version <= 100 ? FM_E_UNSUPPORTED : FM_E_FORMAT,
                       "%s: GGUF version %u; only version 3 is read", r->path, version);
    FM_TRY(fm_gguf_u64(r, n_tensor, "the number of tensors", err));
    FM_TRY(fm_gguf_u64(r, n_entry, "the number of metadata entries", err));
    const uint64_t left = fm_gguf_remaining(r);
    if (*n_entry > left / MIN_ENTRY_BYTES)
        return fm_gguf_fail(r, err,
                            "%" PRIu64 " metadata entries do not fit into the remaining %" PRIu64
                            " bytes of the file (download incomplete?)",
                            *n_entry, left);
    if (*n_tensor > (left - *n_entry * MIN_ENTRY_BYTES) / MIN_TENSOR_BYTES)
        return fm_gguf_fail(r, err,
                            "%" PRIu64 " tensors do not fit into the remaining %" PRIu64
                            " bytes of the file (download incomplete?)",
                            *n_tensor, left);
    return FM_OK;
}

fm_status fm_gguf_parse(fm_checkpoint *c, fm_meta_set *meta, int32_t file, fm_error *err)
{
    fm_gguf_reader r;
    uint64_t n_tensor = 0, n_entry = 0, alignment = 32;
    const uint32_t first = c->n_tensor;
    fm_status st = fm_gguf_reader_open(&r, c->paths[file], err);
    if (st == FM_OK) st = read_preamble(&r, &n_tensor, &n_entry, err);
    if (st == FM_OK) st = read_metadata(&r, meta, n_entry, err);
    if (st == FM_OK) st = read_alignment(&r, meta, &alignment, err);
    if (st == FM_OK) st = read_directory(&r, c, file, n_tensor, alignment, err);
    if (st == FM_OK) st = place_tensors(&r, c, first, alignment, err);
    if (st == FM_OK) st = check_overlap(&r, c, first, err);
    if (st == FM_OK) c->marks[file] = r.mark;
    fm_gguf_reader_close(&r);
    return st;
}
