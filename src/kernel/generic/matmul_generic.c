/* Matrix products and activation quantization in plain C: the set "generic". Written for reading;
 * the vector sets must reproduce its quantized results bit for bit. */
#include "kernel/kernel_internal.h"

#include <float.h>

#include "kernel/generic/matmul_rows.h"

fm_act fm_act_form_of_type(const fm_type_traits *t)
{
    return (fm_act)t->act;
}

/* Scale of n activations and its inverse. Magnitudes are compared as integers, which orders them
 * correctly and puts Inf and NaN on top. Returns the scale that the block stores. */
static float block_scale(const float *x, int n, float *inverse)
{
    uint32_t top = 0;
    for (int i = 0; i < n; i++) {
        const uint32_t mag = fm_f32_bits(x[i]) & 0x7fffffffu;
        top = mag > top ? mag : top;
    }
    *inverse = 0.0f;
    if (top >= 0x7f800000u) return fm_f32_from_bits(0x7fc00000u);
    const float d = fm_f32_from_bits(top) / 127.0f;
    if (d < FLT_MIN) return 0.0f; /* the inverse would overflow */
    *inverse = 1.0f / d;
    return d;
}

/* Adding 1.5 * 2^23 leaves no fraction bits, so the addition itself rounds to the nearest integer,
 * ties to even. |x * inverse| is at most 127 (1 + 2^-22), so no clamp is needed. */
static int8_t round_i8(float x, float inverse)
{
    return (int8_t)(int32_t)(fm_f32_bits(x * inverse + 12582912.0f) - 0x4b400000u);
}

static void quantize_32(fm_act_q8_32 *dst, const float *x)
{
    float inverse;
    dst->d = block_scale(x, 32, &inverse);
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) {
        dst->q[i] = inverse == 0.0f ? 0 : round_i8(x[i], inverse);
        sum += dst->q[i];
    }
    dst->isum = sum;
}

static void quantize_256(fm_act_q8_256 *dst, const float *x)
{
    float inverse;
    dst->d = block_scale(x, 256, &inverse);
    memset(dst->pad, 0, sizeof dst->pad);
    for (int j = 0; j < 16; j++) {
        int sum = 0;
        for (int i = 16 * j; i < 16 * j + 16; i++) {
            dst->q[i] = inverse == 0.0f ? 0 : round_i8(x[i], inverse);
            sum += dst->q[i];
        }
        dst->isum[j] = (int16_t)sum;
    }
}

void fm_quantize_generic(fm_act form, void *dst, const float *x, int64_t n)
{
    switch (form) {
    case FM_ACT_Q8_32:
        for (int64_t b = 0; b < n / 32; b++) quantize_32((fm_act_q8_32 *)dst + b, x + 32 * b);
        break;
    case FM_ACT_Q8_256:
        for (int64_t b = 0; b < n / 256; b++) quantize_256((fm_act_q8_256 *)dst + b, x + 256 * b);
        break;
    default: memcpy(dst, x, (size_t)n * sizeof *x);
    }
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
