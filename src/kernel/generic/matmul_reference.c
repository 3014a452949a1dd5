/* The set "reference": every weight is decoded to f32 and multiplied with the f32 activation,
 * sums in f64. Slow, and the answer to how much the quantization of activations costs. */
#include "kernel/kernel_internal.h"

#include "kernel/generic/matmul_planar.h"
#include "kernel/generic/matmul_rows.h"

static fm_act act_form_f32(const fm_type_traits *t FM_UNUSED)
{
    return FM_ACT_F32;
}

static void by_columns(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t n_tok)
{
    const uint32_t elem = w->type->block_bytes;
    for (int64_t row = row0; row < row1; row++)
        for (int64_t t = 0; t < n_tok; t++) {
            const uint8_t *src = (const uint8_t *)w->data + (uint64_t)row * elem;
            double acc = 0;
            for (int64_t c = 0; c < w->n_in; c++, src += w->row_bytes) {
                float weight;
                w->type->decode(&weight, src, 1);
                acc += (double)weight * ((const float *)act[t])[c];
            }
            y[t][row] = (float)acc;
        }
}

/* Columns at a time: types of one element are decoded 256 at a time too. */
static int64_t columns_at_a_time(const fm_type_traits *t)
{
    return t->n_plane ? 32 : t->block_elems == 1 ? 256 : t->block_elems;
}

/* Columns [c0, c0 + n) of a row, n at most columns_at_a_time(). */
static void decode(float *dst, const fm_matrix *w, int64_t row, int64_t c0, int64_t n)
{
    uint8_t buf[256];
    if (w->type->n_plane)
        fm_planar_decode_block(w, row, c0 / 32, dst);
    else
        w->type->decode(dst, fm_matrix_block(w, row, c0 / w->type->block_elems, buf), n);
}

void fm_matrix_row(float *dst, const fm_matrix *w, int64_t row)
{
    const int64_t step = columns_at_a_time(w->type);
    for (int64_t c = 0; c < w->n_in; c += step)
        decode(dst + c, w, row, c, w->n_in - c < step ? w->n_in - c : step);
}

static void matmul(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                   float *const *y, int64_t n_tok)
{
    if (w->layout == FM_LAYOUT_COLUMNS) {
        by_columns(w, row0, row1, act, y, n_tok);
        return;
    }
    const int64_t step = columns_at_a_time(w->type);
    for (int64_t row = row0; row < row1; row++) {
        for (int64_t t0 = 0; t0 < n_tok; t0 += FM_ROW_TOKENS) {
            const int nt = (int)(n_tok - t0 < FM_ROW_TOKENS ? n_tok - t0 : FM_ROW_TOKENS);
            double acc[FM_ROW_TOKENS] = {0};
            for (int64_t c0 = 0; c0 < w->n_in; c0 += step) {
                const int64_t n = w->n_in - c0 < step ? w->n_in - c0 : step;
                float weight[256];
                decode(weight, w, row, c0, n);
                for (int t = 0; t < nt; t++) {
                    const float *const x = (const float *)act[t0 + t] + c0;
                    for (int64_t c = 0; c < n; c++) acc[t] += (double)weight[c] * x[c];
                }
            }
            for (int t = 0; t < nt; t++) y[t0 + t][row] = (float)acc[t];
        }
    }
}

void fm_matmul_reference(fm_kernels *k)
{
    k->act_form = act_form_f32;
    k->quantize = fm_quantize_generic;
    k->matmul = matmul;
}
