/* Matrix products and activation quantization in plain C: the set "generic". Written for reading;
 * the vector sets must reproduce its quantized results bit for bit. */
#include "kernel/kernel_internal.h"

#include "kernel/generic/matmul_columns.h"
#include "kernel/generic/matmul_planar.h"
#include "kernel/generic/matmul_rows.h"
#include "kernel/quantize_acts.h"

fm_act fm_act_form_of_type(const fm_type_traits *t)
{
    return (fm_act)t->act;
}

/* fm_act_scale() of n activations. */
static float block_scale(const float *x, int n, int top, int coarse, float *inverse)
{
    uint32_t largest = 0;
    for (int i = 0; i < n; i++) {
        const uint32_t mag = fm_f32_bits(x[i]) & 0x7fffffffu;
        largest = mag > largest ? mag : largest;
    }
    return fm_act_scale(largest, top, coarse, inverse);
}

/* Adding 1.5 * 2^23 leaves no fraction bits, so the addition itself rounds to the nearest integer,
 * ties to even. The product is at most 16256 (1 + 2^-22), so no clamp is needed. */
static int32_t round_to_even(float x, float inverse, int coarse)
{
    return (int32_t)(fm_f32_bits(x * inverse + 12582912.0f) - 0x4b400000u) * (1 << coarse);
}

/* Splits v into hi * 2^shift + lo. (A right shift of a negative number is arithmetic on every
 * compiler this builds with.) */
static void split(int8_t *hi, int8_t *lo, int32_t v, int shift)
{
    const int32_t h = (v + (1 << (shift - 1))) >> shift;
    *hi = (int8_t)h;
    *lo = (int8_t)(v - h * (1 << shift));
}

static void quantize_32(fm_act_i15_32 *dst, const float *x, int coarse)
{
    float inverse;
    dst->d = block_scale(x, 32, FM_ACT_32_TOP, coarse, &inverse);
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) {
        const int32_t v = inverse == 0.0f ? 0 : round_to_even(x[i], inverse, coarse);
        split(&dst->hi[i], &dst->lo[i], v, FM_ACT_32_SHIFT);
        sum += v;
    }
    dst->dsum = dst->d * (float)sum;
    dst->nsum = -sum;
}

static void quantize_256(fm_act_i13_256 *dst, const float *x, int coarse)
{
    float inverse;
    dst->d = block_scale(x, 256, FM_ACT_256_TOP, coarse, &inverse);
    memset(dst->pad, 0, sizeof dst->pad);
    for (int j = 0; j < 8; j++) {
        int32_t sum[2] = {0, 0}, sum_hi = 0, sum_lo = 0;
        for (int i = 32 * j; i < 32 * j + 32; i++) {
            const int32_t v = inverse == 0.0f ? 0 : round_to_even(x[i], inverse, coarse);
            split(&dst->hi[i], &dst->lo[i], v, FM_ACT_256_SHIFT);
            sum[i / 16 % 2] += v;
            sum_hi += dst->hi[i];
            sum_lo += dst->lo[i];
        }
        dst->sum32[j][0] = (int16_t)sum_hi;
        dst->sum32[j][1] = (int16_t)sum_lo;
        dst->nsum[2 * j] = -sum[0];
        dst->nsum[2 * j + 1] = -sum[1];
    }
}

void fm_quantize_generic(fm_act form, void *dst, const float *x, int64_t n)
{
    fm_quantize_row(form, dst, x, n, 2, quantize_32, quantize_256);
}

static void quantize_int8(fm_act form, void *dst, const float *x, int64_t n)
{
    fm_quantize_row(form, dst, x, n, 1, quantize_32, quantize_256);
}

/* One row with f32, f16 or bf16 weights: 16 running sums, column c in sum c % 16. */
static void float_row(const fm_matrix *w, int64_t row, const void *const *act, float *const *y,
                      int64_t n_tok)
{
    const fm_type_traits *const type = w->type;
    const uint8_t *const src = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes;
    for (int64_t t0 = 0; t0 < n_tok; t0 += FM_ROW_TOKENS) {
        const int nt = (int)(n_tok - t0 < FM_ROW_TOKENS ? n_tok - t0 : FM_ROW_TOKENS);
        float lane[FM_ROW_TOKENS][16] = {{0}};
        for (int64_t c0 = 0; c0 < w->n_in; c0 += 256) {
            const int n = (int)(w->n_in - c0 < 256 ? w->n_in - c0 : 256);
            float weight[256] = {0};
            type->decode(weight, src + (uint64_t)c0 * type->block_bytes, n);
            for (int t = 0; t < nt; t++) {
                const float *const x = (const float *)act[t0 + t] + c0;
                int c = 0;
                for (; c + 16 <= n; c += 16)
                    for (int i = 0; i < 16; i++) lane[t][i] += weight[c + i] * x[c + i];
                for (; c < n; c++) lane[t][c % 16] += weight[c] * x[c];
            }
        }
        for (int t = 0; t < nt; t++) {
            float *const s = lane[t];
            for (int half = 8; half > 0; half /= 2)
                for (int i = 0; i < half; i++) s[i] += s[i + half];
            y[t0 + t][row] = s[0];
        }
    }
}

static void matmul(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                   float *const *y, int64_t n_tok)
{
    if (w->layout == FM_LAYOUT_COLUMNS) {
        fm_matmul_columns(w, row0, row1, act, y, n_tok);
        return;
    }
    if (w->type->n_plane) {
        fm_rows_planar(w, row0, row1, act, y, n_tok);
        return;
    }
    if (w->type->act == FM_ACT_F32) {
        for (int64_t row = row0; row < row1; row++) float_row(w, row, act, y, n_tok);
        return;
    }
    fm_rows_kernels[w->type->id](w, row0, row1, act, y, n_tok);
}

void fm_matmul_generic(fm_kernels *k)
{
    k->act_form = fm_act_form_of_type;
    k->quantize = fm_quantize_generic;
    k->matmul = matmul;
}

void fm_int8_generic(fm_kernels *k)
{
    k->quantize = quantize_int8;
}
