/* Eight lanes of f32 by the compiler's vector extension, for the encoders. Without AVX the compiler splits them; the
 * results are the same bits, since there is no fused multiply-add and sums over lanes have one order. */
#pragma once

#include <stdint.h>
#include <string.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

#include "base/attr.h"

typedef float fm_v8 __attribute__((vector_size(32)));
typedef int32_t fm_v8i __attribute__((vector_size(32)));

static FM_ALWAYS_INLINE fm_v8 v_load(const float *p)
{
    fm_v8 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static FM_ALWAYS_INLINE fm_v8 v_set(float x)
{
    return (fm_v8){x, x, x, x, x, x, x, x};
}

static FM_ALWAYS_INLINE fm_v8 v_pick(fm_v8i mask, fm_v8 yes, fm_v8 no)
{
    return (fm_v8)(((fm_v8i)yes & mask) | ((fm_v8i)no & ~mask));
}

/* To the nearest integer, ties to even; |x| < 2^22. */
static FM_ALWAYS_INLINE fm_v8 v_round(fm_v8 x)
{
    const fm_v8 magic = v_set(12582912.0f);
    return (x + magic) - magic;
}

static FM_ALWAYS_INLINE fm_v8 v_clamp(fm_v8 x, float lo, float hi)
{
    const fm_v8 l = v_set(lo), h = v_set(hi);
#ifdef __AVX__
    return (fm_v8)_mm256_min_ps(_mm256_max_ps((__m256)x, (__m256)l), (__m256)h);
#else
    const fm_v8 above = v_pick((fm_v8i)(x < l), l, x);
    return v_pick((fm_v8i)(above > h), h, above);
#endif
}

static FM_ALWAYS_INLINE float v_sum(fm_v8 x)
{
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}
