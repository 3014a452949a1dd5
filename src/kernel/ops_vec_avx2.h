/* The vector vocabulary of the shared operations (ops_*.inc) for AVX2 with FMA and F16C: 8 lanes
 * of f32. The names are explained in ops_vec_avx512.h.
 */
#pragma once

#include "base/attr.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VEC_INLINE static FM_ALWAYS_INLINE

/* Lanes, and the register tiles that keep 12, 8 and 8 sums in 16 registers. */
enum { VL = 8, GEMM_ROWS = 6, GEMM_VECS = 2, SCORE_HEADS = 2, VALUE_HEADS = 4, VALUE_VECS = 2 };
enum { STEP_VECS = 4 };

typedef __m256 vec;
typedef __m128 vec4;

VEC_INLINE void vprefetch(const void *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T1);
}

VEC_INLINE __m256i lane_mask(int64_t n)
{
    static const int32_t ones_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(const void *)(ones_zeros + 8 - n));
}

VEC_INLINE vec vset(float x)
{
    return _mm256_set1_ps(x);
}
VEC_INLINE vec vload(const float *p)
{
    return _mm256_loadu_ps(p);
}
VEC_INLINE void vstore(float *p, vec x)
{
    _mm256_storeu_ps(p, x);
}

VEC_INLINE vec vload_n(const float *p, int64_t n)
{
    return _mm256_maskload_ps(p, lane_mask(n));
}
VEC_INLINE void vstore_n(float *p, vec x, int64_t n)
{
    _mm256_maskstore_ps(p, lane_mask(n), x);
}

VEC_INLINE vec vload_half(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
VEC_INLINE vec vload_half_n(const uint16_t *p, int64_t n)
{
    uint16_t half[8] = {0};
    memcpy(half, p, (size_t)n * sizeof half[0]);
    return vload_half(half);
}
VEC_INLINE void vstore_half_n(uint16_t *p, vec x, int64_t n)
{
    uint16_t half[8];
    _mm_storeu_si128((__m128i *)(void *)half,
                     _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    memcpy(p, half, (size_t)n * sizeof half[0]);
}

VEC_INLINE vec vadd(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}
VEC_INLINE vec vsub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}
VEC_INLINE vec vmul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}
VEC_INLINE vec vdiv(vec a, vec b)
{
    return _mm256_div_ps(a, b);
}
VEC_INLINE vec vmin(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}
VEC_INLINE vec vmax(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}
VEC_INLINE vec vfma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
VEC_INLINE vec vfnma(vec a, vec b, vec c)
{
    return _mm256_fnmadd_ps(a, b, c);
}
VEC_INLINE vec vround(vec a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* In two factors, so that each has a normal exponent; only the second product can round. */
VEC_INLINE vec vscale(vec a, vec n)
{
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i e0 = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i e1 = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return vmul(vmul(a, _mm256_castsi256_ps(e0)), _mm256_castsi256_ps(e1));
}

VEC_INLINE vec4 vsum4(vec a, vec b, vec c, vec d)
{
    const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}
VEC_INLINE void vstore4(float *p, vec4 x)
{
    _mm_storeu_ps(p, x);
}
VEC_INLINE float vfirst(vec4 x)
{
    return _mm_cvtss_f32(x);
}
VEC_INLINE float vmax_lane(vec a)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

VEC_INLINE void vload_columns4(vec out[4], const float *p, int64_t stride)
{
    __m256 row[4]; /* row[r], 128-bit lane j: columns of row 4 j + r */
    for (int r = 0; r < 4; r++) {
        const float *at = p + r * stride;
        row[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)),
                                      _mm_loadu_ps(at + 4 * stride), 1);
    }
    const __m256 lo01 = _mm256_unpacklo_ps(row[0], row[1]);
    const __m256 hi01 = _mm256_unpackhi_ps(row[0], row[1]);
    const __m256 lo23 = _mm256_unpacklo_ps(row[2], row[3]);
    const __m256 hi23 = _mm256_unpackhi_ps(row[2], row[3]);
    out[0] = _mm256_shuffle_ps(lo01, lo23, 0x44);
    out[1] = _mm256_shuffle_ps(lo01, lo23, 0xee);
    out[2] = _mm256_shuffle_ps(hi01, hi23, 0x44);
    out[3] = _mm256_shuffle_ps(hi01, hi23, 0xee);
}
