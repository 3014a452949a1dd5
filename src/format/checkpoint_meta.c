/* Typed access to metadata. Values were validated when they were parsed; here only kinds and ranges
 * are compared with what the caller expects. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "format/checkpoint.h"
#include "format/checkpoint_internal.h"
#include "format/gguf_types.h"

static const char *entry_key(const void *owner, uint32_t i)
{
    return ((const fm_meta_set *)owner)->entries[i].key;
}

const fm_meta_entry *fm_meta_set_find(const fm_meta_set *m, const char *key)
{
    const uint32_t i = fm_name_index_find(&m->index, entry_key, m, key);
    return i == UINT32_MAX ? NULL : &m->entries[i];
}

void fm_meta_set_deinit(fm_meta_set *m)
{
    for (uint32_t i = 0; i < m->n_entry; i++) {
        free(m->entries[i].data);
        free(m->entries[i].start);
    }
    free(m->entries);
    fm_name_index_deinit(&m->index);
    fm_string_arena_deinit(&m->strings);
    *m = (fm_meta_set){0};
}

/* What a value is, for messages: "array of string". */
static const char *kind_prefix(const fm_meta_entry *e)
{
    return e->type == FM_GGUF_ARRAY ? "array of " : "";
}

static fm_status wrong_kind(const char *path, const fm_meta_entry *e, const char *expected,
                            fm_error *err)
{
    return fm_fail(err, FM_E_FORMAT, "%s: metadata key %s is of type %s%s, expected %s", path,
                   e->key, kind_prefix(e),
                   fm_gguf_value_name(e->type == FM_GGUF_ARRAY ? e->elem_type : e->type), expected);
}

static fm_status missing(const fm_checkpoint *c, const char *key, fm_error *err)
{
    return fm_fail(err, FM_E_FORMAT, "%s: metadata key %s is missing", c->paths[0], key);
}

static bool is_unsigned(uint32_t type)
{
    return type == FM_GGUF_U8 || type == FM_GGUF_U16 || type == FM_GGUF_U32 || type == FM_GGUF_U64;
}

static bool is_signed(uint32_t type)
{
    return type == FM_GGUF_I8 || type == FM_GGUF_I16 || type == FM_GGUF_I32 || type == FM_GGUF_I64;
}

static fm_status uint_value(const fm_meta_entry *e, const char *path, uint64_t max, uint64_t *out,
                            fm_error *err)
{
    if (is_signed(e->type)) {
        if (e->value.i < 0 || (uint64_t)e->value.i > max)
            return fm_fail(err, FM_E_FORMAT,
                           "%s: metadata key %s is %" PRId64 ", expected 0 to %" PRIu64, path,
                           e->key, e->value.i, max);
        *out = (uint64_t)e->value.i;
        return FM_OK;
    }
    if (!is_unsigned(e->type)) return wrong_kind(path, e, "an integer", err);
    if (e->value.u > max)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: metadata key %s is %" PRIu64 ", expected 0 to %" PRIu64, path, e->key,
                       e->value.u, max);
    *out = e->value.u;
    return FM_OK;
}

fm_status fm_meta_set_uint(const fm_meta_set *m, const char *path, const char *key, uint64_t max,
                           uint64_t *out, bool *present, fm_error *err)
{
    const fm_meta_entry *e = fm_meta_set_find(m, key);
    *present = e != NULL;
    return e ? uint_value(e, path, max, out, err) : FM_OK;
}

uint32_t fm_meta_count(const fm_checkpoint *c)
{
    return c->meta.n_entry;
}

const char *fm_meta_key(const fm_checkpoint *c, uint32_t i)
{
    return i < c->meta.n_entry ? c->meta.entries[i].key : NULL;
}

bool fm_meta_has(const fm_checkpoint *c, const char *key)
{
    return fm_meta_set_find(&c->meta, key) != NULL;
}

fm_status fm_meta_u32(const fm_checkpoint *c, const char *key, uint32_t *out, fm_error *err)
{
    const fm_meta_entry *e = fm_meta_set_find(&c->meta, key);
    if (!e) return missing(c, key, err);
    uint64_t v = 0;
    FM_TRY(uint_value(e, c->paths[0], UINT32_MAX, &v, err));
    *out = (uint32_t)v;
    return FM_OK;
}

fm_status fm_meta_u32_or(const fm_checkpoint *c, const char *key, uint32_t *out, uint32_t fallback,
                         fm_error *err)
{
    if (fm_meta_has(c, key)) return fm_meta_u32(c, key, out, err);
    *out = fallback;
    return FM_OK;
}

fm_status fm_meta_f32(const fm_checkpoint *c, const char *key, float *out, fm_error *err)
{
    const fm_meta_entry *e = fm_meta_set_find(&c->meta, key);
    if (!e) return missing(c, key, err);
    if (e->type != FM_GGUF_F32 && e->type != FM_GGUF_F64)
        return wrong_kind(c->paths[0], e, "a floating-point number", err);
    if (!isfinite(e->value.f) || fabs(e->value.f) > (double)FLT_MAX)
        return fm_fail(err, FM_E_FORMAT, "%s: metadata key %s is %g, expected a finite f32",
                       c->paths[0], key, e->value.f);
    *out = (float)e->value.f;
    return FM_OK;
}

fm_status fm_meta_bool_or(const fm_checkpoint *c, const char *key, bool *out, bool fallback,
                          fm_error *err)
{
    const fm_meta_entry *e = fm_meta_set_find(&c->meta, key);
    *out = fallback;
    if (!e) return FM_OK;
    if (e->type != FM_GGUF_BOOL) return wrong_kind(c->paths[0], e, "bool", err);
    *out = e->value.u != 0;
    return FM_OK;
}

fm_status fm_meta_str(const fm_checkpoint *c, const char *key, fm_str *out, fm_error *err)
{
    const fm_meta_entry *e = fm_meta_set_find(&c->meta, key);
    if (!e) return missing(c, key, err);
    if (e->type != FM_GGUF_STRING) return wrong_kind(c->paths[0], e, "string", err);
    *out = e->value.s;
    return FM_OK;
}

fm_status fm_meta_str_or(const fm_checkpoint *c, const char *key, fm_str *out, const char *fallback,
                         fm_error *err)
{
    if (fm_meta_has(c, key)) return fm_meta_str(c, key, out, err);
    *out = (fm_str){fallback, fallback ? strlen(fallback) : 0};
    return FM_OK;
}

/* The array `key`, with its elements still there. NULL: FM_E_FORMAT, *err is filled. */
static const fm_meta_entry *find_array(const fm_checkpoint *c, const char *key, fm_error *err)
{
    const fm_meta_entry *e = fm_meta_set_find(&c->meta, key);
    if (!e) {
        missing(c, key, err);
    } else if (e->type != FM_GGUF_ARRAY) {
        wrong_kind(c->paths[0], e, "an array", err);
    } else if (e->dropped) {
        fm_fail(err, FM_E_FORMAT, "%s: metadata array %s was dropped after the tokenizer was made",
                c->paths[0], key);
    } else {
        return e;
    }
    return NULL;
}

static fm_status out_of_range(const fm_checkpoint *c, const fm_meta_entry *e, uint64_t i,
                              fm_error *err)
{
    return fm_fail(err, FM_E_FORMAT,
                   "%s: metadata array %s has %" PRIu64 " elements, element %" PRIu64
                   " was asked for",
                   c->paths[0], e->key, e->count, i);
}

fm_status fm_meta_array(const fm_checkpoint *c, const char *key, fm_meta_kind *elem,
                        uint64_t *count, fm_error *err)
{
    const fm_meta_entry *e = find_array(c, key, err);
    if (!e) return FM_E_FORMAT;
    const uint32_t t = e->elem_type;
    *elem = t == FM_GGUF_STRING                    ? FM_META_STRING
            : t == FM_GGUF_F32 || t == FM_GGUF_F64 ? FM_META_FLOAT
            : is_signed(t)                         ? FM_META_INT
                                                   : FM_META_UINT;
    *count = e->count;
    return FM_OK;
}

fm_status fm_meta_array_str(const fm_checkpoint *c, const char *key, uint64_t i, fm_str *out,
                            fm_error *err)
{
    const fm_meta_entry *e = find_array(c, key, err);
    if (!e) return FM_E_FORMAT;
    if (e->elem_type != FM_GGUF_STRING)
        return wrong_kind(c->paths[0], e, "an array of strings", err);
    if (i >= e->count) return out_of_range(c, e, i, err);
    *out =
        (fm_str){(const char *)e->data + e->start[i], (size_t)(e->start[i + 1] - e->start[i]) - 1};
    return FM_OK;
}

fm_status fm_meta_array_int(const fm_checkpoint *c, const char *key, uint64_t i, int64_t *out,
                            fm_error *err)
{
    const fm_meta_entry *e = find_array(c, key, err);
    if (!e) return FM_E_FORMAT;
    if (e->elem_type == FM_GGUF_STRING || e->elem_type == FM_GGUF_F32 ||
        e->elem_type == FM_GGUF_F64)
        return wrong_kind(c->paths[0], e, "an array of integers", err);
    if (i >= e->count) return out_of_range(c, e, i, err);
    const unsigned char *p = e->data + i * fm_gguf_value_bytes(e->elem_type);
    switch (e->elem_type) {
    case FM_GGUF_I8:
        *out = (int8_t)p[0];
        break;
    case FM_GGUF_U16:
        *out = (int64_t)fm_le16(p);
        break;
    case FM_GGUF_I16:
        *out = (int16_t)fm_le16(p);
        break;
    case FM_GGUF_U32:
        *out = (int64_t)fm_le32(p);
        break;
    case FM_GGUF_I32:
        *out = (int32_t)fm_le32(p);
        break;
    case FM_GGUF_I64:
        *out = (int64_t)fm_le64(p);
        break;
    case FM_GGUF_U64:
        if (fm_le64(p) > INT64_MAX)
            return fm_fail(err, FM_E_FORMAT,
                           "%s: element %" PRIu64 " of metadata array %s is %" PRIu64
                           ", expected at most %" PRId64,
                           c->paths[0], i, key, fm_le64(p), INT64_MAX);
        *out = (int64_t)fm_le64(p);
        break;
    default:
        *out = p[0];
        break; /* u8, bool */
    }
    return FM_OK;
}

void fm_checkpoint_drop_tokenizer(fm_checkpoint *c)
{
    static const char prefix[] = "tokenizer.ggml.";
    for (uint32_t i = 0; i < c->meta.n_entry; i++) {
        fm_meta_entry *e = &c->meta.entries[i];
        if (e->type != FM_GGUF_ARRAY || strncmp(e->key, prefix, sizeof prefix - 1) != 0) continue;
        free(e->data);
        free(e->start);
        e->data = NULL;
        e->start = NULL;
        e->count = 0;
        e->heap_bytes = 0;
        e->dropped = true;
    }
}
