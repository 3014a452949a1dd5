/* Rows of a tensor of the source as f32: from wherever they lie (one place, a place per expert, several planes, groups of
 * rows in another order), with what the source says must be done to them. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "engine/quantize_internal.h"
#include "os/file.h"

fm_status fm_row_source_init(fm_row_source *s, const fm_checkpoint *c, const fm_quantize_tensor *t,
                             fm_error *err)
{
    const fm_tensor_info *from = t->from->source ? t->from->source : t->from;
    *s = (fm_row_source){.t = t,
                         .from = from,
                         .type = fm_type_get(from->type),
                         .columns = t->dim[0],
                         .rows = t->dim[1],
                         .from_columns = from->dim[0]};
    for (int k = 0; k < fm_type_n_plane(s->type); k++) {
        s->row_bytes[k] = fm_plane_row_bytes(s->type, k, s->from_columns);
        if (s->row_bytes[k] == 0)
            return fm_fail(err, FM_E_FORMAT,
                           "%s: tensor %s has rows of %lld columns in blocks of %d",
                           fm_checkpoint_file(c, from->file), t->name, (long long)s->from_columns,
                           s->type->block_elems);
    }
    return FM_OK;
}

uint64_t fm_row_source_bytes(const fm_row_source *s, int64_t n)
{
    uint64_t sum = 0;
    /* Rows that lie across the matrix: all of it. */
    if (s->from->by_columns) n = s->from->dim[1];
    for (int k = 0; k < FM_MAX_PLANES; k++) sum += s->row_bytes[k];
    if (s->t->is_transposed) /* all of a head, and it turned, and one row */
        return (uint64_t)s->columns * sum +
               (uint64_t)(s->columns + 1) * (uint64_t)s->from_columns * sizeof(float);
    return sum * (uint64_t)n;
}

/* Head `t` of the destination in the source. */
static int64_t stored_head(const fm_quantize_tensor *q, int64_t t)
{
    return t % q->n_key * (q->n_value / q->n_key) + t / q->n_key;
}

static int64_t moved(const fm_quantize_tensor *q, int64_t at)
{
    if (at < q->first) return at;
    const int64_t v = at - q->first;
    return q->first + stored_head(q, v / q->unit) * q->unit + v % q->unit;
}

/* Of a bias the order is that of its values. */
static bool orders_columns(const fm_row_source *s)
{
    const size_t n = strlen(s->from->name);
    return n > 5 && strcmp(s->from->name + n - 5, ".bias") == 0 && s->from->order.n_part > 0;
}

/* Where row `row` of a matrix lies in the tensor that holds its bytes. */
static int64_t stored(const fm_row_source *s, int64_t row)
{
    const fm_quantize_tensor *q = s->t;
    if (q->axis == FM_HEADS_IN_ROWS) row = moved(q, row);
    row += q->row0 + q->from->row0;
    return s->from->order.n_part > 0 && !orders_columns(s) ? fm_stored_row(&s->from->order, row, 1)
                                                           : row;
}

static fm_status read_at(const fm_checkpoint *c, fm_row_files *files, int k, fm_extent at,
                         uint64_t skip, void *dst, uint64_t n, fm_error *err)
{
    if (files->fd[k] < 0 || files->file[k] != at.file) {
        fm_file_close(files->fd[k]);
        const char *const path = fm_checkpoint_file(c, at.file);
        FM_TRY(fm_file_open(&files->fd[k], NULL, path, err));
        files->file[k] = at.file;
        FM_TRY(fm_file_check_mark(files->fd[k], path, fm_checkpoint_file_mark(c, at.file), err));
    }
    return fm_file_read_at(files->fd[k], fm_checkpoint_file(c, at.file), dst, (size_t)n,
                           at.offset + skip, err);
}

static fm_status read_rows(const fm_row_source *s, const fm_checkpoint *c, fm_row_files *files,
                           int64_t matrix, int64_t row, int64_t n, uint8_t *buf,
                           const void *(*plane)[FM_MAX_PLANES], fm_error *err)
{
    const fm_tensor_info *const f = s->from;
    const int n_plane = fm_type_n_plane(s->type);
    /* Rows of the whole source matrix; of a view they are those of what it is a view of. */
    const int64_t matrix_rows = f->dim[1];
    if (s->t->head_rows > 0) {
        row += matrix * s->t->head_rows;
        matrix = 0;
    }
    if (f->by_columns) { /* one plane: the matrix is read whole, rows are picked out of it */
        const fm_extent at = f->each ? f->each[matrix] : (fm_extent){f->offset, f->bytes, f->file};
        const uint64_t bytes = (uint64_t)matrix_rows * s->row_bytes[0];
        FM_TRY(read_at(c, files, 0, at, f->each ? 0 : (uint64_t)matrix * bytes, buf, bytes, err));
        for (int64_t i = 0; i < n; i++)
            plane[i][0] = buf + (uint64_t)stored(s, row + i) * s->type->block_bytes;
        return FM_OK;
    }
    bool in_one_piece = true;
    for (int64_t i = 1; i < n && in_one_piece; i++)
        in_one_piece = stored(s, row + i) == stored(s, row) + i;
    for (int k = 0; k < n_plane; k++) {
        const int64_t share = k > 0 && s->type->rows_per_scale > 1 ? s->type->rows_per_scale : 1;
        const uint64_t bytes = s->row_bytes[k];
        fm_extent at = k > 0 ? f->aux[k - 1] : (fm_extent){f->offset, f->bytes, f->file};
        uint64_t base = 0;
        if (f->each)
            at = f->each[matrix * n_plane + k];
        else
            base = (uint64_t)matrix * (uint64_t)fm_plane_rows(s->type, k, matrix_rows) * bytes;
        const int64_t first = stored(s, row) / share;
        if (in_one_piece) {
            const int64_t count = (stored(s, row) + n - 1) / share - first + 1;
            FM_TRY(read_at(c, files, k, at, base + (uint64_t)first * bytes, buf,
                           (uint64_t)count * bytes, err));
            for (int64_t i = 0; i < n; i++)
                plane[i][k] = buf + (uint64_t)((stored(s, row) + i) / share - first) * bytes;
        } else {
            for (int64_t i = 0; i < n; i++) {
                plane[i][k] = buf + (uint64_t)i * bytes;
                FM_TRY(read_at(c, files, k, at,
                               base + (uint64_t)(stored(s, row + i) / share) * bytes,
                               buf + (uint64_t)i * bytes, bytes, err));
            }
        }
        buf += (uint64_t)n * bytes;
    }
    return FM_OK;
}

fm_status fm_row_source_read(const fm_row_source *s, const fm_checkpoint *c, fm_row_files *files,
                             int64_t matrix, int64_t row, int64_t n, uint8_t *buf,
                             const void *(*plane)[FM_MAX_PLANES], fm_error *err)
{
    if (!s->t->is_transposed) return read_rows(s, c, files, matrix, row, n, buf, plane, err);
    float *const turned = (float *)(void *)buf; /* [from_columns][columns] */
    float *const one = turned + s->columns * s->from_columns;
    FM_TRY(read_rows(s, c, files, matrix, 0, s->columns, (uint8_t *)(one + s->from_columns), plane,
                     err));
    for (int64_t i = 0; i < s->columns; i++) {
        fm_decode_planes(s->type, one, plane[i], s->from_columns);
        for (int64_t k = 0; k < s->from_columns; k++) turned[k * s->columns + i] = one[k];
    }
    for (int64_t i = 0; i < n; i++) plane[i][0] = turned + (row + i) * s->columns;
    return FM_OK;
}

int64_t fm_row_source_column(const fm_row_source *s, int64_t at)
{
    return s->t->axis == FM_HEADS_IN_COLUMNS ? moved(s->t, at) : at;
}

void fm_row_source_decode(const fm_row_source *s, float *dst, const void *const *plane,
                          float *scratch)
{
    const fm_quantize_tensor *q = s->t;
    const int64_t n = s->columns;
    const bool moves = q->axis == FM_HEADS_IN_COLUMNS, orders = orders_columns(s);
    if (q->is_transposed) {
        memcpy(dst, plane[0], (size_t)n * sizeof *dst);
        return;
    }
    float *const to = moves || orders || q->column0 > 0 || n != s->from_columns ? scratch : dst;
    if (s->from->by_columns) {
        const uint64_t step = (uint64_t)s->from->dim[1] * s->type->block_bytes;
        for (int64_t i = 0; i < n; i++)
            s->type->decode(to + i, (const uint8_t *)plane[0] + (uint64_t)i * step, 1);
    } else {
        fm_decode_planes(s->type, to, plane, s->from_columns);
    }
    const fm_tensor_fix fix = q->from->fix;
    for (int64_t i = 0; i < n && fix == FM_FIX_ADD_ONE; i++) to[i] = 1.0f + to[i];
    for (int64_t i = 0; i < n && fix == FM_FIX_NEG_EXP; i++) to[i] = (float)-exp((double)to[i]);
    if (to == dst) return;
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = q->column0 + (moves ? moved(q, i) : i);
        dst[i] = to[orders ? fm_stored_row(&s->from->order, at, 1) : at];
    }
}
