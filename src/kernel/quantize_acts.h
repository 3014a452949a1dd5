/* What the sets share of the quantization of activations: the scale, the blocks of a row, and for sets that round 16
 * columns at a time the blocks themselves. A set supplies what needs its vectors. */
#pragma once

#include <float.h>
#include <string.h>

#include "quant/quant_block.h"

/* Scale of a block whose largest magnitude has the bits `largest`, for integers up to top, and its inverse, by which
 * activations become numbers of multiples of 2^coarse. Magnitudes are compared as integers, which orders them correctly and
 * puts Inf and NaN on top. Returns the scale that the block stores; *inverse is 0 where all integers are. */
static FM_ALWAYS_INLINE float fm_act_scale(uint32_t largest, int top, const int coarse,
                                           float *inverse)
{
    *inverse = 0.0f;
    if (largest >= 0x7f800000u) return fm_f32_from_bits(0x7fc00000u);
    const float d = fm_f32_from_bits(largest) / (float)top;
    if (d < FLT_MIN) return 0.0f; /* the inverse would overflow */
    *inverse = 1.0f / d / (float)(1 << coarse);
    return d;
}

/* Integers are multiples of 2^coarse: 0, or the shift between the planes, and then the lower plane is empty. */
typedef void fm_quantize_32_fn(fm_act_i15_32 *dst, const float *x, const int coarse);
typedef void fm_quantize_256_fn(fm_act_i13_256 *dst, const float *x, const int coarse);

/* fm_kernels.quantize by the blocks of a set, with n_plane planes. */
static FM_ALWAYS_INLINE void fm_quantize_row(fm_act form, void *dst, const float *x, int64_t n,
                                             const int n_plane, fm_quantize_32_fn *block_32,
                                             fm_quantize_256_fn *block_256)
{
    const int coarse_32 = n_plane == 1 ? FM_ACT_32_SHIFT : 0;
    const int coarse_256 = n_plane == 1 ? FM_ACT_256_SHIFT : 0;
    switch (form) {
    case FM_ACT_I15_32:
        for (int64_t b = 0; b < n / 32; b++)
            block_32((fm_act_i15_32 *)dst + b, x + 32 * b, coarse_32);
        break;
    case FM_ACT_I13_256:
        for (int64_t b = 0; b < n / 256; b++)
            block_256((fm_act_i13_256 *)dst + b, x + 256 * b, coarse_256);
        break;
    default: memcpy(dst, x, (size_t)n * sizeof *x);
    }
}

/* ---- by 16 columns ------------------------------------------------------------------------ */

typedef struct {
    int32_t v, hi;
} fm_sums_16;

/* Bits of the largest magnitude of n values, a multiple of 32. */
typedef uint32_t fm_largest_fn(const float *x, int n);
/* Rounds 16 columns, to the nearest or even multiple of 2^coarse, to v = hi 2^shift + lo and returns the sums of v and
 * hi. */
typedef fm_sums_16 fm_round_16_fn(int8_t *hi, int8_t *lo, const float *x, float inverse,
                                  const int coarse, const int shift);

static FM_ALWAYS_INLINE void fm_quantize_32_by_16(fm_act_i15_32 *dst, const float *x,
                                                  const int coarse, fm_largest_fn *largest,
                                                  fm_round_16_fn *round)
{
    float inverse;
    const float d = fm_act_scale(largest(x, 32), FM_ACT_32_TOP, coarse, &inverse);
    int32_t sum = 0;
    if (inverse == 0.0f)
        memset(dst, 0, sizeof *dst);
    else
        for (int i = 0; i < 32; i += 16)
            sum += round(dst->hi + i, dst->lo + i, x + i, inverse, coarse, FM_ACT_32_SHIFT).v;
    dst->d = d;
    dst->dsum = d * (float)sum;
    dst->nsum = -sum;
}

static FM_ALWAYS_INLINE void fm_quantize_256_by_16(fm_act_i13_256 *dst, const float *x,
                                                   const int coarse, fm_largest_fn *largest,
                                                   fm_round_16_fn *round)
{
    float inverse;
    const float d = fm_act_scale(largest(x, 256), FM_ACT_256_TOP, coarse, &inverse);
    if (inverse == 0.0f) {
        memset(dst, 0, sizeof *dst);
        dst->d = d;
        return;
    }
    dst->d = d;
    memset(dst->pad, 0, sizeof dst->pad);
    for (int j = 0; j < 8; j++) {
        fm_sums_16 s[2];
        for (int i = 0; i < 2; i++) {
            const int c = 32 * j + 16 * i;
            s[i] = round(dst->hi + c, dst->lo + c, x + c, inverse, coarse, FM_ACT_256_SHIFT);
            dst->nsum[2 * j + i] = -s[i].v;
        }
        const int32_t hi = s[0].hi + s[1].hi;
        dst->sum32[j][0] = (int16_t)hi;
        dst->sum32[j][1] = (int16_t)(s[0].v + s[1].v - hi * (1 << FM_ACT_256_SHIFT));
    }
}
