/* Importance files: see importance.h. They are small beside a model (one number per column of each matrix), so they are
 * held whole. */
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

#define BYTES_MAX (UINT64_C(1) << 30)

struct fm_importance {
    fm_checkpoint *c;
    char *path;
    float **values; /* [n_tensor] */
    uint64_t bytes, hash;
};

static fm_status load(fm_importance *im, fm_error *err)
{
    const int64_t n = fm_checkpoint_n_tensor(im->c);
    im->values = calloc((size_t)n + 1, sizeof *im->values);
    if (!im->values) return fm_fail(err, FM_E_NOMEM, "%s: no memory", im->path);
    int fd;
    FM_TRY(fm_file_open(&fd, NULL, fm_checkpoint_file(im->c, 0), err));
    fm_status st = FM_OK;
    im->hash = FM_FNV1A_INIT;
    for (int64_t i = 0; i < n && st == FM_OK; i++) {
        const fm_tensor_info *t = fm_checkpoint_tensor(im->c, i);
        if (t->type != FM_TYPE_F32) {
            st = fm_fail(err, FM_E_FORMAT, "%s: tensor %s is of type %s, expected F32", im->path,
                         t->name, fm_type_name(t->type));
            break;
        }
        im->bytes += t->bytes;
        im->values[i] = im->bytes <= BYTES_MAX ? malloc((size_t)t->bytes + 1) : NULL;
        if (!im->values[i]) {
            st = fm_fail(err, im->bytes > BYTES_MAX ? FM_E_LIMIT : FM_E_NOMEM,
                         "%s: its tensors take more than there is room for", im->path);
            break;
        }
        st = fm_file_read_at(fd, im->path, im->values[i], (size_t)t->bytes, t->offset, err);
        const uint64_t n_value = t->bytes / sizeof(float);
        for (uint64_t k = 0; k < n_value && st == FM_OK; k++)
            if (!(im->values[i][k] >= 0) || !isfinite(im->values[i][k]))
                st = fm_fail(err, FM_E_FORMAT,
                             "%s: tensor %s holds %g, expected finite numbers of at least 0",
                             im->path, t->name, (double)im->values[i][k]);
        im->hash = fm_fnv1a(im->hash, t->name, strlen(t->name) + 1);
        if (st == FM_OK) im->hash = fm_fnv1a(im->hash, im->values[i], (size_t)t->bytes);
    }
    fm_file_close(fd);
    return st;
}

fm_status fm_importance_open(fm_importance **out, const char *path, fm_error *err)
{
    *out = NULL;
    fm_importance *im = calloc(1, sizeof *im);
    if (!im) return fm_fail(err, FM_E_NOMEM, "%s: no memory", path);
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
    if (st == FM_OK) st = load(im, err);
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
    const int64_t n = im->c && im->values ? fm_checkpoint_n_tensor(im->c) : 0;
    for (int64_t i = 0; i < n; i++) free(im->values[i]);
    free(im->values);
    fm_checkpoint_close(im->c);
    free(im->path);
    free(im);
}

uint64_t fm_importance_memory(const fm_importance *im)
{
    return im->bytes + fm_checkpoint_memory(im->c);
}

uint64_t fm_importance_hash(const fm_importance *im)
{
    return im->hash;
}

static int64_t index_of(const fm_importance *im, const char *name, const char *what)
{
    char full[512];
    if (snprintf(full, sizeof full, "%s.%s", name, what) >= (int)sizeof full) return -1;
    const fm_tensor_info *t = fm_checkpoint_find(im->c, full);
    return t ? t - fm_checkpoint_tensor(im->c, 0) : -1;
}

fm_status fm_importance_find(const fm_importance *im, const char *name, int64_t columns,
                             int64_t n_matrix, const float **sums, const float **counts,
                             int64_t *n_found, bool *found, fm_error *err)
{
    const int64_t s = index_of(im, name, "in_sum2"), k = index_of(im, name, "counts");
    *found = s >= 0;
    if (s < 0) return FM_OK;
    if (k < 0)
        return fm_fail(err, FM_E_FORMAT, "%s: %s.in_sum2 is there, %s.counts is not", im->path,
                       name, name);
    const fm_tensor_info *a = fm_checkpoint_tensor(im->c, s), *b = fm_checkpoint_tensor(im->c, k);
    const int64_t n_sum = a->dim[1] * a->dim[2] * a->dim[3],
                  n_count = b->dim[0] * b->dim[1] * b->dim[2] * b->dim[3];
    if (a->dim[0] != columns || (n_sum != n_matrix && n_sum != 1) || n_count != n_sum)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: %s has %" PRId64 " columns and %" PRId64 " matrices with %" PRId64
                       " counts, the model's tensor %" PRId64 " columns and %" PRId64 " matrices",
                       im->path, name, a->dim[0], n_sum, n_count, columns, n_matrix);
    *sums = im->values[s];
    *counts = im->values[k];
    *n_found = n_sum;
    return FM_OK;
}
