/* A checkpoint of one GGUF file or of a set of shards: finds the files, joins their directories and
 * answers questions about tensors. Parsing is in gguf_parse.c, metadata in checkpoint_meta.c. */
#include "format/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/checkpoint_internal.h"
#include "format/gguf_types.h"

/* ---- string arena ------------------------------------------------------------------------ */

char *fm_string_arena_take(fm_string_arena *a, size_t bytes)
{
    const size_t chunk_bytes = 32 * 1024;
    fm_string_chunk *c = a->head;
    if (!c || c->size - c->used < bytes) {
        const size_t size = bytes > chunk_bytes / 4 ? bytes : chunk_bytes;
        fm_string_chunk *fresh = malloc(sizeof *fresh + size);
        if (!fresh) return NULL;
        fresh->used = 0;
        fresh->size = size;
        a->heap_bytes += sizeof *fresh + size;
        if (c && size == bytes) { /* a long string of its own: keep filling the current chunk */
            fresh->next = c->next;
            c->next = fresh;
        } else {
            fresh->next = c;
            a->head = fresh;
        }
        c = fresh;
    }
    char *s = c->data + c->used;
    c->used += bytes;
    return s;
}

void fm_string_arena_deinit(fm_string_arena *a)
{
    for (fm_string_chunk *c = a->head; c;) {
        fm_string_chunk *next = c->next;
        free(c);
        c = next;
    }
    *a = (fm_string_arena){0};
}

/* ---- shards ------------------------------------------------------------------------------ */

/* The five decimal digits at s, or -1. */
static int32_t five_digits(const char *s)
{
    int32_t v = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9') return -1;
        v = v * 10 + (s[i] - '0');
    }
    return v;
}

enum { SHARD_TAIL_BYTES = sizeof "-00001-of-00001.gguf" - 1 };

/* Splits NAME-00002-of-00004.gguf: length of NAME, shard 1-based, number of shards. False: the name
 * has another form. */
static bool split_shard_name(const char *path, size_t *prefix, int32_t *shard, int32_t *count)
{
    const size_t n = strlen(path), tail = SHARD_TAIL_BYTES;
    if (n <= tail) return false;
    const char *t = path + n - tail;
    if (t[0] != '-' || memcmp(t + 6, "-of-", 4) != 0 || strcmp(t + 15, ".gguf") != 0) return false;
    *shard = five_digits(t + 1);
    *count = five_digits(t + 10);
    *prefix = n - tail;
    return *shard >= 1 && *count >= *shard;
}

/* Fills c->paths and c->n_file from the name that was given. */
static fm_status find_files(fm_checkpoint *c, const char *path, fm_error *err)
{
    size_t prefix = 0;
    int32_t shard = 1, count = 1;
    const bool named_shard = split_shard_name(path, &prefix, &shard, &count);
    if (count > FM_GGUF_SHARD_MAX)
        return fm_fail(err, FM_E_FORMAT, "%s: %d shards; at most %d are accepted", path, count,
                       FM_GGUF_SHARD_MAX);
    /* Before memory for the whole set: the named file must exist at all. */
    struct stat st;
    if (stat(path, &st) != 0) return fm_fail_errno(err, errno, "%s", path);
    c->paths = calloc((size_t)count, sizeof *c->paths);
    c->marks = calloc((size_t)count, sizeof *c->marks);
    if (!c->paths || !c->marks)
        return fm_fail(err, FM_E_NOMEM, "%s: no memory for the list of files", path);
    c->n_file = count;
    for (int32_t i = 0; i < count; i++) {
        const size_t room = strlen(path) + 1;
        char *p = malloc(room);
        if (!p) return fm_fail(err, FM_E_NOMEM, "%s: no memory for the list of files", path);
        c->paths[i] = p;
        memcpy(p, path, room);
        if (!named_shard) continue;
        char digits[16];
        snprintf(digits, sizeof digits, "%05d", i + 1);
        memcpy(p + prefix + 1, digits, 5);
        if (stat(p, &st) != 0) {
            const int why = errno;
            return why == ENOENT
                       ? fm_fail(err, FM_E_IO, "%s: shard %d of %d is missing (%s names the set)",
                                 p, i + 1, count, path)
                       : fm_fail_errno(err, why, "%s", p);
        }
    }
    return FM_OK;
}

/* split.no, split.count and split.tensors.count of one shard. */
static fm_status check_split(const fm_checkpoint *c, const fm_meta_set *m, int32_t file,
                             uint64_t *n_tensor_all, fm_error *err)
{
    const char *path = c->paths[file];
    uint64_t count = 1, no = 0, total = 0;
    bool has_count, has_no, has_total;
    FM_TRY(fm_meta_set_uint(m, path, "split.count", UINT16_MAX, &count, &has_count, err));
    FM_TRY(fm_meta_set_uint(m, path, "split.no", UINT16_MAX, &no, &has_no, err));
    FM_TRY(fm_meta_set_uint(m, path, "split.tensors.count", INT32_MAX, &total, &has_total, err));
    if (c->n_file > 1 && (!has_count || !has_no))
        return fm_fail(err, FM_E_FORMAT, "%s: named as shard %d of %d, but has no %s", path,
                       file + 1, c->n_file, has_count ? "split.no" : "split.count");
    /* Some writers leave 0 in files that were never split. */
    if (has_count && count != (uint64_t)c->n_file && !(count == 0 && c->n_file == 1))
        return fm_fail(err, FM_E_FORMAT,
                       "%s: split.count is %" PRIu64
                       ", but the name stands for %d file%s (expected "
                       "NAME-00001-of-%05u.gguf and its shards)",
                       path, count, c->n_file, c->n_file == 1 ? "" : "s", (unsigned)count);
    if (has_no && no != (uint64_t)file)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: split.no is %" PRIu64 ", expected %d (shards renamed?)", path, no,
                       file);
    if (has_total && file > 0 && *n_tensor_all != UINT64_MAX && total != *n_tensor_all)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: split.tensors.count is %" PRIu64 ", but %" PRIu64
                       " in the first shard (shards of different checkpoints?)",
                       path, total, *n_tensor_all);
    if (has_total && *n_tensor_all == UINT64_MAX) *n_tensor_all = total;
    return FM_OK;
}

static fm_status parse_files(fm_checkpoint *c, fm_error *err)
{
    uint64_t n_tensor_all = UINT64_MAX;
    for (int32_t i = 0; i < c->n_file; i++) {
        fm_meta_set other = {0};
        fm_meta_set *m = i == 0 ? &c->meta : &other;
        fm_status st = fm_gguf_parse(c, m, i, err);
        if (st == FM_OK) st = check_split(c, m, i, &n_tensor_all, err);
        fm_meta_set_deinit(&other);
        if (st != FM_OK) return st;
    }
    if (n_tensor_all != UINT64_MAX && n_tensor_all != c->n_tensor && c->n_file > 1)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: split.tensors.count is %" PRIu64 ", but the %d shards have %u tensors",
                       c->paths[0], n_tensor_all, c->n_file, c->n_tensor);
    return FM_OK;
}

/* ---- public ------------------------------------------------------------------------------ */

fm_status fm_checkpoint_open(fm_checkpoint **out, const char *path, fm_error *err)
{
    *out = NULL;
    if (!path) return fm_fail(err, FM_E_ARG, "no path of a checkpoint was given");
    fm_checkpoint *c = calloc(1, sizeof *c);
    if (!c) return fm_fail(err, FM_E_NOMEM, "%s: no memory for the checkpoint", path);
    struct stat sb;
    fm_status st;
    if (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)) {
        st = fm_hf_open(c, path, err);
    } else {
        st = find_files(c, path, err);
        if (st == FM_OK) st = parse_files(c, err);
    }
    if (st != FM_OK) {
        fm_checkpoint_close(c);
        return st;
    }
    *out = c;
    return FM_OK;
}

void fm_checkpoint_close(fm_checkpoint *c)
{
    if (!c) return;
    for (int32_t i = 0; i < c->n_file && c->paths; i++) free(c->paths[i]);
    free(c->paths);
    free(c->marks);
    free(c->tensors);
    free(c->directory);
    free(c->each);
    free(c->sources);
    fm_name_index_deinit(&c->index);
    fm_string_arena_deinit(&c->names);
    fm_meta_set_deinit(&c->meta);
    free(c);
}

int32_t fm_checkpoint_n_file(const fm_checkpoint *c)
{
    return c->n_file;
}

const char *fm_checkpoint_file(const fm_checkpoint *c, int32_t file)
{
    return file >= 0 && file < c->n_file ? c->paths[file] : NULL;
}

uint64_t fm_checkpoint_file_bytes(const fm_checkpoint *c, int32_t file)
{
    return fm_checkpoint_file_mark(c, file).bytes;
}

fm_file_mark fm_checkpoint_file_mark(const fm_checkpoint *c, int32_t file)
{
    return file >= 0 && file < c->n_file ? c->marks[file] : (fm_file_mark){0};
}

uint64_t fm_checkpoint_memory(const fm_checkpoint *c)
{
    uint64_t n = sizeof *c + c->names.heap_bytes + c->meta.strings.heap_bytes;
    n += (uint64_t)c->cap_tensor * sizeof *c->tensors;
    n += (uint64_t)c->meta.cap_entry * sizeof *c->meta.entries;
    n += ((uint64_t)c->index.n_slot + c->meta.index.n_slot) * sizeof *c->index.slots;
    for (uint32_t i = 0; i < c->meta.n_entry; i++) n += c->meta.entries[i].heap_bytes;
    for (int32_t i = 0; i < c->n_file; i++)
        n += strlen(c->paths[i]) + 1 + sizeof *c->paths + sizeof *c->marks;
    return n + c->hf_bytes;
}

const char *fm_checkpoint_directory(const fm_checkpoint *c)
{
    return c->directory;
}

void fm_checkpoint_unused(const fm_checkpoint *c, fm_unused_tensors *out)
{
    *out = c->unused;
}

uint64_t fm_tensor_bytes(const fm_tensor_info *t)
{
    return t->bytes + t->aux[0].bytes + t->aux[1].bytes;
}

int64_t fm_stored_row(const fm_row_order *o, int64_t r, int64_t unit)
{
    int64_t group_rows = 0, before = 0;
    for (int i = 0; i < o->n_part; i++) group_rows += o->rows[i] / unit;
    for (int i = 0; i < o->n_part; i++) {
        const int64_t rows = o->rows[i] / unit;
        if (r < rows * o->n_group) return r / rows * group_rows + before + r % rows;
        r -= rows * o->n_group;
        before += rows;
    }
    return r;
}

int64_t fm_checkpoint_n_tensor(const fm_checkpoint *c)
{
    return c->n_tensor;
}

const fm_tensor_info *fm_checkpoint_tensor(const fm_checkpoint *c, int64_t i)
{
    return i >= 0 && i < c->n_tensor ? &c->tensors[i] : NULL;
}

static const char *tensor_name(const void *owner, uint32_t i)
{
    return ((const fm_checkpoint *)owner)->tensors[i].name;
}

const fm_tensor_info *fm_checkpoint_find(const fm_checkpoint *c, const char *name)
{
    const uint32_t i = fm_name_index_find(&c->index, tensor_name, c, name);
    return i == UINT32_MAX ? NULL : &c->tensors[i];
}
