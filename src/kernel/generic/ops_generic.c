/* Operations that are not matrix products, in plain C: norms, gates, rotation, softmax, and the
 * table of all of them. Written for reading; the vector sets are compared with these. Attention
 * and the linear-attention operations have files of their own.
 *
 * Sums run in f64, so that these serve as the reference for the f32 lanes of the other sets.
 */
#include "kernel/ops_internal.h"
#include "kernel/kernel_internal.h"

#include "quant/f16.h"

#include <math.h>

static double sum_of_squares(const float *x, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}

static void rmsnorm(float *y, const float *x, const float *w, float eps, int64_t n)
{
    const float scale = (float)(1.0 / sqrt(sum_of_squares(x, n) / (double)n + eps));
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale * w[i];
}

static void l2norm(float *x, float eps, float scale, int64_t n)
{
    const float factor = (float)(scale / sqrt(sum_of_squares(x, n) + eps));
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

static void silu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void clamped_swiglu(float *y, const float *gate, const float *up, float alpha, float limit,
                           int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float g = gate[i] > limit ? limit : gate[i];
        const float u = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];
        y[i] = g / (1.0f + expf(-alpha * g)) * (u + 1.0f);
    }
}

static void sigmoid_mul(float *y, const float *g, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] *= 1.0f / (1.0f + expf(-g[i]));
}

static void axpy(float *y, float a, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

static void rope_half(float *x, const float *cos_t, const float *sin_t, int64_t n_rot)
{
    const int64_t half = n_rot / 2;
    for (int64_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cos_t[i] - b * sin_t[i];
        x[i + half] = b * cos_t[i] + a * sin_t[i];
    }
}

static void softmax(float *x, int64_t n)
{
    float max = -INFINITY;
    for (int64_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sum += x[i];
    }
    const float factor = (float)(1.0 / sum);
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

static void to_f16(uint16_t *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dst[i] = fm_f32_to_f16(src[i]);
}

static void from_f16(float *dst, const uint16_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dst[i] = fm_f16_to_f32(src[i]);
}

static void gemm(float *y, const float *a, int64_t a_stride, const float *b, int64_t n_row,
                 int64_t n_k, int64_t n)
{
    for (int64_t r = 0; r < n_row; r++, y += n, a += a_stride) {
        for (int64_t c = 0; c < n; c++) y[c] = 0.0f;
        for (int64_t k = 0; k < n_k; k++)
            for (int64_t c = 0; c < n; c++) y[c] += a[k] * b[k * n + c];
    }
}

static void transpose(float *to, const float *x, int64_t x_stride, int64_t n, int64_t n_c)
{
    for (int64_t c = 0; c < n_c; c++)
        for (int64_t t = 0; t < FM_ATTN_BLOCK; t++)
            to[c * FM_ATTN_BLOCK + t] = t < n ? x[t * x_stride + c] : 0.0f;
}

void fm_ops_generic(fm_kernels *k)
{
    k->rmsnorm = rmsnorm;
    k->l2norm = l2norm;
    k->silu_mul = silu_mul;
    k->clamped_swiglu = clamped_swiglu;
    k->sigmoid_mul = sigmoid_mul;
    k->axpy = axpy;
    k->rope_half = rope_half;
    k->softmax = softmax;
    k->to_f16 = to_f16;
    k->from_f16 = from_f16;
    k->gemm = gemm;
    k->transpose = transpose;
    k->attend = fm_attend_generic;
    k->attend_rows = fm_attend_rows_generic;
    k->index_scores = fm_index_scores_generic;
    k->conv_silu = fm_conv_silu_generic;
    k->delta_step = fm_delta_step_generic;
    k->delta_chunk = fm_delta_chunk_generic;
}
