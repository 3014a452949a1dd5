/* GGUF v3 writer: see gguf_write.h. Little-endian by explicit stores. */
#include "format/gguf_write.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "format/checkpoint_internal.h"
#include "format/gguf_types.h"

enum { ALIGNMENT = 32 };
enum { KV_U32 = 4, KV_I32 = 5, KV_F32 = 6, KV_BOOL = 7, KV_STR = 8, KV_ARRAY = 9 };

typedef struct {
    unsigned char *data;
    size_t n, cap;
    bool failed;
} bytes;

typedef struct {
    uint64_t offset, size;
    bool owns; /* has bytes of its own in the file */
} entry;

struct fm_gguf_writer {
    FILE *file;
    char *path;
    bytes kv, dir;
    uint64_t n_kv, n_tensor, cap_tensor;
    entry *tensor;
    uint64_t data_end; /* bytes of the data section so far planned */
    uint64_t current;  /* tensor being written                     */
    uint64_t in_current, at;
};

static void put(bytes *b, const void *p, size_t n)
{
    if (b->failed) return;
    if (b->cap - b->n < n) {
        const size_t cap = (b->cap + n) * 2 + 256;
        unsigned char *grown = realloc(b->data, cap);
        if (!grown) {
            b->failed = true;
            return;
        }
        b->data = grown;
        b->cap = cap;
    }
    memcpy(b->data + b->n, p, n);
    b->n += n;
}

static void put_u32(bytes *b, uint32_t v)
{
    const unsigned char p[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16),
                                (unsigned char)(v >> 24)};
    put(b, p, 4);
}

static void put_u64(bytes *b, uint64_t v)
{
    put_u32(b, (uint32_t)v);
    put_u32(b, (uint32_t)(v >> 32));
}

static void put_str(bytes *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

static void key(fm_gguf_writer *w, const char *name, uint32_t type)
{
    put_str(&w->kv, name);
    put_u32(&w->kv, type);
    w->n_kv++;
}

fm_status fm_gguf_writer_new(fm_gguf_writer **out, const char *path, fm_error *err)
{
    *out = NULL;
    fm_gguf_writer *w = calloc(1, sizeof *w);
    char *copy = strdup(path);
    if (!w || !copy) {
        free(w);
        free(copy);
        return fm_fail(err, FM_E_NOMEM, "%s: no memory", path);
    }
    w->path = copy;
    *out = w;
    return FM_OK;
}

fm_status fm_gguf_writer_open(fm_gguf_writer **out, const char *path, fm_error *err)
{
    FM_TRY(fm_gguf_writer_new(out, path, err));
    fm_gguf_writer *w = *out;
    w->file = fopen(path, "wb");
    if (!w->file) {
        const fm_status st = fm_fail_errno(err, errno, "%s", path);
        *out = NULL;
        free(w->path);
        free(w);
        return st;
    }
    setvbuf(w->file, NULL, _IOFBF, 1 << 20);
    return FM_OK;
}

void fm_gguf_put_u32(fm_gguf_writer *w, const char *name, uint32_t v)
{
    key(w, name, KV_U32);
    put_u32(&w->kv, v);
}

void fm_gguf_put_f32(fm_gguf_writer *w, const char *name, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    key(w, name, KV_F32);
    put_u32(&w->kv, bits);
}

void fm_gguf_put_bool(fm_gguf_writer *w, const char *name, bool v)
{
    const unsigned char byte = v;
    key(w, name, KV_BOOL);
    put(&w->kv, &byte, 1);
}

void fm_gguf_put_str(fm_gguf_writer *w, const char *name, const char *v)
{
    key(w, name, KV_STR);
    put_str(&w->kv, v);
}

void fm_gguf_put_text(fm_gguf_writer *w, const char *name, const char *v, size_t n)
{
    key(w, name, KV_STR);
    put_u64(&w->kv, n);
    put(&w->kv, v, n);
}

static void put_scalar(bytes *b, const fm_meta_entry *e, uint32_t type)
{
    unsigned char p[8];
    uint64_t u = e->value.u; /* signed kinds share the bits */
    if (type == FM_GGUF_F32) {
        const float f = (float)e->value.f;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        u = bits;
    } else if (type == FM_GGUF_F64) {
        memcpy(&u, &e->value.f, 8);
    }
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(u >> (8 * i));
    put(b, p, fm_gguf_value_bytes(type));
}

void fm_gguf_put_meta(fm_gguf_writer *w, const fm_checkpoint *c, uint32_t i)
{
    const fm_meta_entry *e = &c->meta.entries[i];
    uint32_t type = e->type;
    if (c->directory && type == FM_GGUF_U64 && e->value.u <= UINT32_MAX) type = FM_GGUF_U32;
    if (c->directory && type == FM_GGUF_F64) type = FM_GGUF_F32;
    key(w, e->key, type);
    if (type == FM_GGUF_STRING) {
        put_u64(&w->kv, e->value.s.len);
        put(&w->kv, e->value.s.data, e->value.s.len);
        return;
    }
    if (type != FM_GGUF_ARRAY) {
        put_scalar(&w->kv, e, type);
        return;
    }
    put_u32(&w->kv, e->elem_type);
    put_u64(&w->kv, e->count);
    if (e->elem_type != FM_GGUF_STRING) {
        put(&w->kv, e->data, (size_t)e->count * fm_gguf_value_bytes(e->elem_type));
        return;
    }
    for (uint64_t k = 0; k < e->count; k++) {
        const uint32_t n = e->start[k + 1] - e->start[k] - 1;
        put_u64(&w->kv, n);
        put(&w->kv, e->data + e->start[k], n);
    }
}

void fm_gguf_put_i32_array(fm_gguf_writer *w, const char *name, const int32_t *v, size_t n)
{
    key(w, name, KV_ARRAY);
    put_u32(&w->kv, KV_I32);
    put_u64(&w->kv, n);
    for (size_t i = 0; i < n; i++) put_u32(&w->kv, (uint32_t)v[i]);
}

void fm_gguf_put_str_array(fm_gguf_writer *w, const char *name, size_t n,
                           const char *(*get)(void *user, size_t i), void *user)
{
    key(w, name, KV_ARRAY);
    put_u32(&w->kv, KV_STR);
    put_u64(&w->kv, n);
    for (size_t i = 0; i < n; i++) put_str(&w->kv, get(user, i));
}

int fm_gguf_add_tensor(fm_gguf_writer *w, const char *name, uint32_t type, int n_dim,
                       const int64_t *dim, uint64_t size, int same_as)
{
    if (w->n_tensor == w->cap_tensor) {
        const uint64_t cap = w->cap_tensor * 2 + 64;
        entry *grown = realloc(w->tensor, cap * sizeof *grown);
        if (!grown) {
            w->dir.failed = true;
            return (int)w->n_tensor;
        }
        w->tensor = grown;
        w->cap_tensor = cap;
    }
    entry *t = &w->tensor[w->n_tensor];
    t->owns = same_as < 0;
    t->size = size;
    t->offset = t->owns ? w->data_end : w->tensor[same_as].offset;
    if (t->owns) w->data_end = fm_round_up(w->data_end + size, ALIGNMENT);
    put_str(&w->dir, name);
    put_u32(&w->dir, (uint32_t)n_dim);
    for (int i = 0; i < n_dim; i++) put_u64(&w->dir, (uint64_t)dim[i]);
    put_u32(&w->dir, type);
    put_u64(&w->dir, t->offset);
    return (int)w->n_tensor++;
}

static fm_status write_bytes(fm_gguf_writer *w, const void *data, size_t n, fm_error *err)
{
    if (n && fwrite(data, 1, n, w->file) != n)
        return fm_fail_errno(err, errno, "%s: writing %zu bytes at %" PRIu64, w->path, n, w->at);
    w->at += n;
    return FM_OK;
}

static fm_status pad(fm_gguf_writer *w, fm_error *err)
{
    static const unsigned char zero[ALIGNMENT];
    return write_bytes(w, zero, (size_t)(fm_round_up(w->at, ALIGNMENT) - w->at), err);
}

fm_status fm_gguf_header(const fm_gguf_writer *w, unsigned char **out, size_t *n, fm_error *err)
{
    static const unsigned char zero[ALIGNMENT];
    bytes head = {0};
    put(&head, "GGUF", 4);
    put_u32(&head, 3);
    put_u64(&head, w->n_tensor);
    put_u64(&head, w->n_kv);
    put(&head, w->kv.data, w->kv.n);
    put(&head, w->dir.data, w->dir.n);
    put(&head, zero, (size_t)(fm_round_up(head.n, ALIGNMENT) - head.n));
    *out = head.data;
    *n = head.n;
    if (!head.failed && !w->kv.failed && !w->dir.failed) return FM_OK;
    free(head.data);
    *out = NULL;
    return fm_fail(err, FM_E_NOMEM, "%s: no memory for the header", w->path);
}

uint64_t fm_gguf_tensor_offset(const fm_gguf_writer *w, int tensor)
{
    return w->tensor[tensor].offset;
}

uint64_t fm_gguf_data_bytes(const fm_gguf_writer *w)
{
    return w->data_end;
}

fm_status fm_gguf_begin_data(fm_gguf_writer *w, fm_error *err)
{
    unsigned char *head;
    size_t n;
    FM_TRY(fm_gguf_header(w, &head, &n, err));
    const fm_status st = write_bytes(w, head, n, err);
    free(head);
    return st;
}

/* Moves on to the next tensor that has bytes of its own. */
static void skip_shared(fm_gguf_writer *w)
{
    while (w->current < w->n_tensor && !w->tensor[w->current].owns) w->current++;
}

fm_status fm_gguf_write(fm_gguf_writer *w, const void *data, size_t n, fm_error *err)
{
    skip_shared(w);
    if (w->current == w->n_tensor || w->tensor[w->current].size - w->in_current < n)
        return fm_fail(err, FM_E_ARG, "%s: more bytes than the tensor directory promises", w->path);
    FM_TRY(write_bytes(w, data, n, err));
    w->in_current += n;
    if (w->in_current == w->tensor[w->current].size) {
        FM_TRY(pad(w, err));
        w->current++;
        w->in_current = 0;
    }
    return FM_OK;
}

fm_status fm_gguf_writer_close(fm_gguf_writer *w, fm_error *err)
{
    if (!w) return FM_OK;
    fm_status st = FM_OK;
    skip_shared(w);
    if (w->file && w->current < w->n_tensor)
        st = fm_fail(err, FM_E_ARG, "%s: tensor %" PRIu64 " of %" PRIu64 " got no bytes", w->path,
                     w->current, w->n_tensor);
    if (w->file && st == FM_OK && (fflush(w->file) != 0 || fsync(fileno(w->file)) != 0))
        st = fm_fail_errno(err, errno, "%s", w->path);
    if (w->file && fclose(w->file) != 0 && st == FM_OK)
        st = fm_fail_errno(err, errno, "%s", w->path);
    free(w->kv.data);
    free(w->dir.data);
    free(w->tensor);
    free(w->path);
    free(w);
    return st;
}

uint64_t fm_gguf_written(const fm_gguf_writer *w)
{
    return w->at;
}
