/* See eval_logits.h; docs/formats.md has the layout byte by byte. */
#include "cli/eval_logits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/hash.h"

static const char MAGIC[8] = {'F', 'M', 'L', 'O', 'G', 'I', 'T', 'S'};
enum { VERSION = 1, HEAD = 256, HASH = 8 };

/* Places in the header. */
enum {
    AT_VERSION = 8,
    AT_VOCAB = 12,
    AT_CTX = 16,
    AT_STEP = 20,
    AT_FIRST = 24,
    AT_ROW = 28,
    AT_WINDOW = 32,
    AT_IDENTITY = 40,
    AT_BOS = 48,
    AT_USED = 52,
    AT_ARCHITECTURE = 56,
    AT_NAME = 120,
    AT_ACTIVATIONS = 248,
};

/* False when a product overflows. */
static bool file_bytes(const fm_eval_shape *s, uint64_t *bytes)
{
    uint64_t window, windows, ids; /* a window: its rows and their hash */
    return fm_mul_u64((uint64_t)s->n_row * (uint64_t)s->n_vocab, sizeof(float), &window) &&
           fm_add_u64(window, HASH, &window) &&
           fm_mul_u64((uint64_t)s->n_window, window, &windows) &&
           fm_mul_u64((uint64_t)s->n_id, sizeof(int32_t), &ids) &&
           fm_add_u64(windows, HEAD + HASH, bytes) && fm_add_u64(*bytes, ids, bytes);
}

uint64_t fm_logits_file_bytes(const fm_eval_shape *s)
{
    uint64_t bytes;
    return file_bytes(s, &bytes) ? bytes : UINT64_MAX;
}

/* ---- writing ----------------------------------------------------------------------------- */

static fm_status write_bytes(fm_logits_file *f, const void *data, size_t n, fm_error *err)
{
    f->hash = fm_fnv1a(f->hash, data, n);
    if (fwrite(data, 1, n, f->file) == n) return FM_OK;
    return fm_fail_errno(err, errno, "%s: writing the logits", f->path);
}

static fm_status write_hash(fm_logits_file *f, fm_error *err)
{
    unsigned char bytes[HASH];
    fm_put_le(bytes, f->hash, HASH);
    const fm_status st = write_bytes(f, bytes, HASH, err);
    f->hash = FM_FNV1A_INIT;
    return st;
}

static fm_status write_head(fm_logits_file *f, const int32_t *ids, fm_error *err)
{
    const fm_eval_shape *s = &f->shape;
    unsigned char head[HEAD] = {0};
    memcpy(head, MAGIC, sizeof MAGIC);
    fm_put_le(head + AT_VERSION, VERSION, 4);
    fm_put_le(head + AT_VOCAB, (uint64_t)s->n_vocab, 4);
    fm_put_le(head + AT_CTX, (uint64_t)s->n_ctx, 4);
    fm_put_le(head + AT_STEP, (uint64_t)s->step, 4);
    fm_put_le(head + AT_FIRST, (uint64_t)s->first, 4);
    fm_put_le(head + AT_ROW, (uint64_t)s->n_row, 4);
    fm_put_le(head + AT_WINDOW, (uint64_t)s->n_window, 8);
    fm_put_le(head + AT_IDENTITY, s->identity, 8);
    fm_put_le(head + AT_BOS, (uint64_t)(int64_t)s->bos_id, 4);
    fm_put_le(head + AT_USED, (uint64_t)s->n_expert_used, 4);
    memcpy(head + AT_ARCHITECTURE, s->architecture, AT_NAME - AT_ARCHITECTURE);
    memcpy(head + AT_NAME, s->name, AT_ACTIVATIONS - AT_NAME);
    fm_put_le(head + AT_ACTIVATIONS, (uint64_t)s->activations, 4);
    FM_TRY(write_bytes(f, head, sizeof head, err));
    for (int64_t i = 0; i < s->n_id; i++) {
        unsigned char id[4];
        fm_put_le(id, (uint64_t)ids[i], 4);
        FM_TRY(write_bytes(f, id, sizeof id, err));
    }
    return write_hash(f, err);
}

/* A disk that is too small is noticed before hours of work. */
static fm_status check_room(const fm_logits_file *f, fm_error *err)
{
    struct statvfs disk;
    const uint64_t bytes = fm_logits_file_bytes(&f->shape);
    if (fstatvfs(fileno(f->file), &disk) != 0) return FM_OK;
    const uint64_t block = disk.f_frsize ? disk.f_frsize : disk.f_bsize;
    if (bytes / block < disk.f_bavail) return FM_OK;
    return fm_fail(err, FM_E_IO, "%s: takes %" PRIu64 " MB, its disk has %" PRIu64 " MB free",
                   f->path, bytes / 1000000 + 1, (uint64_t)disk.f_bavail * block / 1000000);
}

fm_status fm_logits_create(fm_logits_file *f, const char *path, const fm_eval_shape *shape,
                           const int32_t *ids, fm_error *err)
{
    *f = (fm_logits_file){.shape = *shape, .hash = FM_FNV1A_INIT};
    const size_t n = strlen(path) + 32;
    f->path = strdup(path);
    char *temp = malloc(n);
    if (!f->path || !temp) {
        free(temp);
        fm_logits_destroy(f);
        return fm_fail(err, FM_E_NOMEM, "%s: no memory for its name", path);
    }
    snprintf(temp, n, "%s.%ld.tmp", path, (long)getpid());
    f->file = fopen(temp, "wb");
    if (!f->file) {
        const int os_errno = errno;
        free(temp);
        fm_logits_destroy(f);
        return fm_fail_errno(err, os_errno, "%s", path);
    }
    f->temp_path = temp;
    fm_status st = check_room(f, err);
    if (st == FM_OK) st = write_head(f, ids, err);
    if (st != FM_OK) fm_logits_destroy(f);
    return st;
}

fm_status fm_logits_write_row(fm_logits_file *f, const float *row, fm_error *err)
{
    FM_TRY(write_bytes(f, row, (size_t)f->shape.n_vocab * sizeof *row, err));
    return ++f->n_done % f->shape.n_row == 0 ? write_hash(f, err) : FM_OK;
}

fm_status fm_logits_commit(fm_logits_file *f, fm_error *err)
{
    const int64_t n_row = f->shape.n_window * f->shape.n_row;
    if (f->n_done != n_row)
        return fm_fail(err, FM_E_ARG, "%s: %" PRId64 " of %" PRId64 " rows", f->path, f->n_done,
                       n_row);
    const bool flushed = fflush(f->file) == 0 && fsync(fileno(f->file)) == 0;
    const int flush_errno = errno;
    const bool closed = fclose(f->file) == 0;
    f->file = NULL;
    if (!flushed || !closed)
        return fm_fail_errno(err, flushed ? errno : flush_errno, "%s: writing the logits", f->path);
    if (rename(f->temp_path, f->path) != 0) return fm_fail_errno(err, errno, "%s", f->path);
    free(f->temp_path);
    f->temp_path = NULL;
    return FM_OK;
}

/* ---- reading ----------------------------------------------------------------------------- */

static fm_status read_bytes(fm_logits_file *f, void *data, size_t n, fm_error *err)
{
    errno = 0;
    if (fread(data, 1, n, f->file) != n) {
        if (ferror(f->file)) return fm_fail_errno(err, errno, "%s: reading the logits", f->path);
        return fm_fail(err, FM_E_FORMAT, "%s: became shorter while it was read", f->path);
    }
    f->hash = fm_fnv1a(f->hash, data, n);
    return FM_OK;
}

static fm_status read_hash(fm_logits_file *f, const char *part, int64_t number, fm_error *err)
{
    unsigned char bytes[HASH];
    const uint64_t hash = f->hash;
    FM_TRY(read_bytes(f, bytes, HASH, err));
    f->hash = FM_FNV1A_INIT;
    if (fm_get_le(bytes, HASH) == hash) return FM_OK;
    return fm_fail(err, FM_E_FORMAT,
                   "%s: %s %" PRId64 " is damaged (checksum %016" PRIx64
                   ", its bytes give %016" PRIx64 ")",
                   f->path, part, number, fm_get_le(bytes, HASH), hash);
}

static fm_status damaged(const fm_logits_file *f, const char *what, uint64_t found, fm_error *err)
{
    return fm_fail(err, FM_E_FORMAT, "%s: damaged header: %s is %" PRIu64, f->path, what, found);
}

static fm_status parse_head(fm_logits_file *f, const unsigned char *head, fm_error *err)
{
    if (memcmp(head, MAGIC, sizeof MAGIC) != 0)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: no file of reference logits: its magic is %02x %02x %02x %02x %02x "
                       "%02x %02x %02x, expected 46 4d 4c 4f 47 49 54 53 (\"FMLOGITS\"); "
                       "--save-logits makes one",
                       f->path, head[0], head[1], head[2], head[3], head[4], head[5], head[6],
                       head[7]);
    const uint64_t version = fm_get_le(head + AT_VERSION, 4);
    if (version != VERSION)
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: version %" PRIu64 " of reference logits, this program reads %d",
                       f->path, version, VERSION);
    fm_eval_shape *s = &f->shape;
    const uint64_t vocab = fm_get_le(head + AT_VOCAB, 4), ctx = fm_get_le(head + AT_CTX, 4),
                   step = fm_get_le(head + AT_STEP, 4), first = fm_get_le(head + AT_FIRST, 4),
                   row = fm_get_le(head + AT_ROW, 4), window = fm_get_le(head + AT_WINDOW, 8);
    const uint64_t activations = fm_get_le(head + AT_ACTIVATIONS, 4);
    if (vocab < 1 || vocab > INT32_MAX) return damaged(f, "the vocabulary", vocab, err);
    if (ctx < 2 || ctx > INT32_MAX) return damaged(f, "the window", ctx, err);
    if (step < 1 || step > ctx) return damaged(f, "the stride", step, err);
    if (row < 1 || row >= ctx) return damaged(f, "the number of rows", row, err);
    if (first + row + 1 != ctx) return damaged(f, "the first row", first, err);
    if (window < 1 || window > INT64_MAX / ctx)
        return damaged(f, "the number of windows", window, err);
    if (activations > FM_ACTIVATIONS_INT8)
        return damaged(f, "the rounding of activations", activations, err);
    s->n_vocab = (int32_t)vocab;
    s->n_ctx = (int32_t)ctx;
    s->step = (int32_t)step;
    s->first = (int32_t)first;
    s->n_row = (int32_t)row;
    s->n_window = (int64_t)window;
    s->n_id = (s->n_window - 1) * s->step + s->n_ctx;
    s->identity = fm_get_le(head + AT_IDENTITY, 8);
    s->bos_id = (int32_t)(uint32_t)fm_get_le(head + AT_BOS, 4);
    s->n_expert_used = (int32_t)(uint32_t)fm_get_le(head + AT_USED, 4);
    s->activations = (int32_t)activations;
    memcpy(s->architecture, head + AT_ARCHITECTURE, sizeof s->architecture);
    memcpy(s->name, head + AT_NAME, sizeof s->name);
    s->architecture[sizeof s->architecture - 1] = s->name[sizeof s->name - 1] = '\0';
    return FM_OK;
}

static fm_status check_size(const fm_logits_file *f, fm_error *err)
{
    struct stat info;
    uint64_t bytes;
    if (fstat(fileno(f->file), &info) != 0) return fm_fail_errno(err, errno, "%s", f->path);
    if (!file_bytes(&f->shape, &bytes)) return damaged(f, "the size", UINT64_MAX, err);
    if ((uint64_t)info.st_size == bytes) return FM_OK;
    return fm_fail(err, FM_E_FORMAT,
                   "%s: has %" PRIu64 " bytes, its header promises %" PRIu64 " (was it cut off?)",
                   f->path, (uint64_t)info.st_size, bytes);
}

static fm_status read_head(fm_logits_file *f, int32_t **ids, fm_error *err)
{
    unsigned char head[HEAD] = {0};
    struct stat info;
    if (fstat(fileno(f->file), &info) != 0) return fm_fail_errno(err, errno, "%s", f->path);
    if (!S_ISREG(info.st_mode))
        return fm_fail(err, FM_E_ARG, "%s: reference logits must be a regular file", f->path);
    if (info.st_size < HEAD) {
        const size_t n = fread(head, 1, sizeof head, f->file);
        if (n >= sizeof MAGIC && memcmp(head, MAGIC, sizeof MAGIC) == 0)
            return fm_fail(err, FM_E_FORMAT, "%s: ends inside its header", f->path);
        return parse_head(f, head, err); /* which says what it starts with */
    }
    FM_TRY(read_bytes(f, head, sizeof head, err));
    FM_TRY(parse_head(f, head, err));
    FM_TRY(check_size(f, err));
    *ids = malloc((size_t)f->shape.n_id * sizeof **ids);
    if (!*ids) return fm_fail(err, FM_E_NOMEM, "%s: no memory for its ids", f->path);
    for (int64_t i = 0; i < f->shape.n_id; i++) {
        unsigned char id[4];
        FM_TRY(read_bytes(f, id, sizeof id, err));
        (*ids)[i] = (int32_t)(uint32_t)fm_get_le(id, 4);
    }
    return read_hash(f, "header", 1, err);
}

fm_status fm_logits_open(fm_logits_file *f, const char *path, int32_t **ids, fm_error *err)
{
    *f = (fm_logits_file){.hash = FM_FNV1A_INIT};
    *ids = NULL;
    f->path = strdup(path);
    if (!f->path) return fm_fail(err, FM_E_NOMEM, "%s: no memory for its name", path);
    f->file = fopen(path, "rb");
    fm_status st = f->file ? read_head(f, ids, err) : fm_fail_errno(err, errno, "%s", path);
    if (st != FM_OK) {
        free(*ids);
        *ids = NULL;
        fm_logits_destroy(f);
    }
    return st;
}

fm_status fm_logits_read_row(fm_logits_file *f, float *row, fm_error *err)
{
    FM_TRY(read_bytes(f, row, (size_t)f->shape.n_vocab * sizeof *row, err));
    if (++f->n_done % f->shape.n_row != 0) return FM_OK;
    return read_hash(f, "window", f->n_done / f->shape.n_row, err);
}

void fm_logits_destroy(fm_logits_file *f)
{
    if (f->file) fclose(f->file);
    if (f->temp_path) unlink(f->temp_path);
    free(f->temp_path);
    free(f->path);
    *f = (fm_logits_file){0};
}
