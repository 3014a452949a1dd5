/* The neon set's matmul and quantize: entry points and quantization of activations. */
#include "kernel/kernel_internal.h"

#include "kernel/arm/matmul_neon.h"
#include "kernel/generic/matmul_columns.h"
#include "kernel/generic/matmul_planar.h"

#if defined(__aarch64__)

#include <float.h>

/* ---- products ----------------------------------------------------------------------------- */

void fm_product_neon(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                     float *const *y, int64_t n_tok, fm_matmul_fn tiles)
{
    const fm_type_traits *const type = w->type;
    if (w->layout == FM_LAYOUT_COLUMNS) {
        fm_matmul_columns(w, row0, row1, act, y, n_tok);
        return;
    }
    if (type->act == FM_ACT_F32) {
        fm_matmul_float_neon(w, row0, row1, act, y, n_tok);
        return;
    }
    const int64_t panels = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panels ? row1 : panels;
    if (row0 < split && fm_panel_one_neon(type)) {
        tiles(w, row0, split, act, y, n_tok);
        row0 = split;
    }
    if (row0 >= row1) return;
    if (type->n_plane)
        fm_rows_planar(w, row0, row1, act, y, n_tok);
    else
        fm_rows_kernels[type->id](w, row0, row1, act, y, n_tok);
}

static void matmul(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                   float *const *y, int64_t n_tok)
{
    fm_product_neon(w, row0, row1, act, y, n_tok, fm_matmul_tiles_neon);
}

/* ---- quantization of activations: fm_quantize_generic has the reasons --------------------- */

static FM_ALWAYS_INLINE float block_scale(const float *x, int n, int top, float *inverse)
{
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < n; i += 4)
        largest = vmaxq_u32(
            largest, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), vdupq_n_u32(0x7fffffff)));
    const uint32_t amax = vmaxvq_u32(largest);
    *inverse = 0.0f;
    if (amax >= 0x7f800000u) return fm_f32_from_bits(0x7fc00000u);
    const float d = fm_f32_from_bits(amax) / (float)top;
    if (d < FLT_MIN) return 0.0f;
    *inverse = 1.0f / d;
    return d;
}

typedef struct {
    int32_t v, hi;
} sums_16;

/* 16 integers that fit bytes. */
static FM_ALWAYS_INLINE int8x16_t narrow(const int32x4_t v[4])
{
    const int16x8_t a = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1]));
    const int16x8_t b = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
    return vcombine_s8(vmovn_s16(a), vmovn_s16(b));
}

/* Rounds 16 columns, to nearest and even, to v = hi 2^shift + lo and returns the sums of v and hi. */
static FM_ALWAYS_INLINE sums_16 round_16(int8_t *hi, int8_t *lo, const float *x, float inverse,
                                         const int shift)
{
    int32x4_t v[4], h[4], l[4];
    FM_UNROLL
    for (int i = 0; i < 4; i++) {
        v[i] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inverse));
        h[i] = vrshlq_s32(v[i], vdupq_n_s32(-shift)); /* to the right */
        l[i] = vsubq_s32(v[i], shift_left(h[i], shift));
    }
    vst1q_s8(hi, narrow(h));
    vst1q_s8(lo, narrow(l));
    const int32x4_t sum = vaddq_s32(vaddq_s32(v[0], v[1]), vaddq_s32(v[2], v[3]));
    const int32x4_t sum_hi = vaddq_s32(vaddq_s32(h[0], h[1]), vaddq_s32(h[2], h[3]));
    return (sums_16){vaddvq_s32(sum), vaddvq_s32(sum_hi)};
}

static void quantize_32(fm_act_i15_32 *dst, const float *x)
{
    float inverse;
    const float d = block_scale(x, 32, FM_ACT_32_TOP, &inverse);
    int32_t sum = 0;
    if (inverse == 0.0f)
        memset(dst, 0, sizeof *dst);
    else
        for (int i = 0; i < 32; i += 16)
            sum += round_16(dst->hi + i, dst->lo + i, x + i, inverse, FM_ACT_32_SHIFT).v;
    dst->d = d;
    dst->dsum = d * (float)sum;
    dst->nsum = -sum;
}

static void quantize_256(fm_act_i13_256 *dst, const float *x)
{
    float inverse;
    const float d = block_scale(x, 256, FM_ACT_256_TOP, &inverse);
    if (inverse == 0.0f) {
        memset(dst, 0, sizeof *dst);
        dst->d = d;
        return;
    }
    dst->d = d;
    memset(dst->pad, 0, sizeof dst->pad);
    for (int j = 0; j < 8; j++) {
        sums_16 s[2];
        for (int i = 0; i < 2; i++) {
            const int c = 32 * j + 16 * i;
            s[i] = round_16(dst->hi + c, dst->lo + c, x + c, inverse, FM_ACT_256_SHIFT);
            dst->nsum[2 * j + i] = -s[i].v;
        }
        const int32_t hi = s[0].hi + s[1].hi;
        dst->sum32[j][0] = (int16_t)hi;
        dst->sum32[j][1] = (int16_t)(s[0].v + s[1].v - hi * (1 << FM_ACT_256_SHIFT));
    }
}

static void quantize(fm_act form, void *dst, const float *x, int64_t n)
{
    switch (form) {
    case FM_ACT_I15_32:
        for (int64_t b = 0; b < n / 32; b++) quantize_32((fm_act_i15_32 *)dst + b, x + 32 * b);
        break;
    case FM_ACT_I13_256:
        for (int64_t b = 0; b < n / 256; b++) quantize_256((fm_act_i13_256 *)dst + b, x + 256 * b);
        break;
    default:
        memcpy(dst, x, (size_t)n * sizeof *x);
    }
}

void fm_matmul_neon(fm_kernels *k)
{
    k->act_form = fm_act_form_of_type;
    k->quantize = quantize;
    k->matmul = matmul;
}

#endif
