/* Importance files: see importance.h. */
#include "engine/importance.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "format/checkpoint.h"
#include "os/file.h"
#include "quant/quant.h"

enum { CHUNK_BYTES = 1 << 20 };

struct fm_importance {
    fm_checkpoint *c;
    char *path;
    int fd;
    fm_file_mark mark; /* of when it was hashed */
    uint64_t hash;
};

static fm_status check_values(const fm_importance *im, const char *name, const float *v, size_t n,
                              fm_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!(v[i] >= 0) || !isfinite(v[i]))
            return fm_fail(err, FM_E_FORMAT,
                           "%s: tensor %s holds %g, expected finite numbers of at least 0",
                           im->path, name, (double)v[i]);
    return FM_OK;
}

static fm_status scan_tensor(fm_importance *im, const fm_tensor_info *t, float *chunk,
                             fm_error *err)
{
    if (t->type != FM_TYPE_F32)
        return fm_fail(err, FM_E_FORMAT, "%s: tensor %s is of type %s, expected F32", im->path,
                       t->name, fm_type_name(t->type));
    im->hash = fm_fnv1a(im->hash, t->name, strlen(t->name) + 1);
    for (uint64_t done = 0; done < t->bytes;) {
        const size_t n = t->bytes - done < CHUNK_BYTES ? (size_t)(t->bytes - done) : CHUNK_BYTES;
        FM_TRY(fm_file_read_at(im->fd, im->path, chunk, n, t->offset + done, err));
        FM_TRY(check_values(im, t->name, chunk, n / sizeof *chunk, err));
        im->hash = fm_fnv1a(im->hash, chunk, n);
        done += n;
    }
    return FM_OK;
}

static fm_status scan(fm_importance *im, fm_error *err)
{
    FM_TRY(fm_file_open(&im->fd, NULL, fm_checkpoint_file(im->c, 0), err));
    FM_TRY(fm_file_mark_of(&im->mark, im->fd, im->path, err));
    float *chunk = malloc(CHUNK_BYTES);
    if (!chunk) return fm_fail(err, FM_E_NOMEM, "%s: no memory", im->path);
    fm_status st = FM_OK;
    im->hash = FM_FNV1A_INIT;
    for (int64_t i = 0; i < fm_checkpoint_n_tensor(im->c) && st == FM_OK; i++)
        st = scan_tensor(im, fm_checkpoint_tensor(im->c, i), chunk, err);
    free(chunk);
    return st;
}

fm_status fm_importance_open(fm_importance **out, const char *path, fm_error *err)
{
    *out = NULL;
    fm_importance *im = calloc(1, sizeof *im);
    if (!im) return fm_fail(err, FM_E_NOMEM, "%s: no memory", path);
    im->fd = -1;
    im->path = strdup(path);
    fm_status st = im->path ? fm_checkpoint_open(&im->c, path, err)
                            : fm_fail(err, FM_E_NOMEM, "%s: no memory", path);
    fm_str type = {0};
    if (st == FM_OK) st = fm_meta_str_or(im->c, "general.type", &type, "", err);
    if (st == FM_OK && (type.len != 7 || memcmp(type.data, "imatrix", 7) != 0))
        st = fm_fail(err, FM_E_FORMAT, "%s: general.type is \"%.40s\", expected \"imatrix\"", path,
                     type.data);
    if (st == FM_OK && (fm_checkpoint_n_file(im->c) != 1 || fm_checkpoint_directory(im->c)))
        st = fm_fail(err, FM_E_FORMAT, "%s: an importance file is one GGUF file", path);
    if (st == FM_OK) st = scan(im, err);
    if (st != FM_OK) {
        fm_importance_close(im);
        return st;
    }
    *out = im;
    return FM_OK;
}

void fm_importance_close(fm_importance *im)
{
    if (!im) return;
    fm_file_close(im->fd);
    fm_checkpoint_close(im->c);
    free(im->path);
    free(im);
}

fm_status fm_importance_check(const fm_importance *im, fm_error *err)
{
    return fm_file_check_mark(im->fd, im->path, im->mark, err);
}

uint64_t fm_importance_memory(const fm_importance *im)
{
    return fm_checkpoint_memory(im->c);
}

uint64_t fm_importance_hash(const fm_importance *im)
{
    return im->hash;
}

static const fm_tensor_info *tensor_of(const fm_importance *im, const char *name, const char *what)
{
    char full[512];
    if (snprintf(full, sizeof full, "%s.%s", name, what) >= (int)sizeof full) return NULL;
    return fm_checkpoint_find(im->c, full);
}

fm_status fm_importance_find(const fm_importance *im, const char *name, int64_t columns,
                             int64_t n_matrix, fm_importance_place *out, fm_error *err)
{
    const fm_tensor_info *a = tensor_of(im, name, "in_sum2"), *b = tensor_of(im, name, "counts");
    *out = (fm_importance_place){0};
    if (!a) return FM_OK;
    if (!b)
        return fm_fail(err, FM_E_FORMAT, "%s: %s.in_sum2 is there, %s.counts is not", im->path,
                       name, name);
    const int64_t n_sum = a->dim[1] * a->dim[2] * a->dim[3],
                  n_count = b->dim[0] * b->dim[1] * b->dim[2] * b->dim[3];
    if (a->dim[0] != columns || (n_sum != n_matrix && n_sum != 1) || n_count != n_sum)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: %s has %" PRId64 " columns and %" PRId64 " matrices with %" PRId64
                       " counts, the model's tensor %" PRId64 " columns and %" PRId64 " matrices",
                       im->path, name, a->dim[0], n_sum, n_count, columns, n_matrix);
    *out = (fm_importance_place){columns, n_sum, a->offset, b->offset};
    return FM_OK;
}

fm_status fm_importance_read(const fm_importance *im, const fm_importance_place *at, int64_t m,
                             float *sums, float *count, fm_error *err)
{
    const uint64_t number = at->n_matrix == 1 ? 0 : (uint64_t)m,
                   bytes = (uint64_t)at->columns * sizeof *sums;
    FM_TRY(fm_file_read_at(im->fd, im->path, sums, (size_t)bytes, at->sums + number * bytes, err));
    FM_TRY(fm_file_read_at(im->fd, im->path, count, sizeof *count,
                           at->counts + number * sizeof *count, err));
    /* Once more: a file that has changed since must not bring in what was not checked. */
    FM_TRY(check_values(im, "(sums)", sums, (size_t)at->columns, err));
    return check_values(im, "(counts)", count, 1, err);
}
