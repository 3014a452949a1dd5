/* The vector vocabulary of the shared operations (ops_*.inc) for AVX-512: 16 lanes of f32.
 * ops_vec_avx2.h gives the same names 8 lanes, ops_vec_neon.h 4; what the names mean is said here.
 */
#pragma once

#include "base/attr.h"

#include <immintrin.h>
#include <stdint.h>

#define VEC_INLINE static FM_ALWAYS_INLINE

/* Lanes, and the register tiles that keep 24, 16 and 16 sums in 32 registers. */
enum { VL = 16, GEMM_ROWS = 6, GEMM_VECS = 4, SCORE_HEADS = 4, VALUE_HEADS = 4, VALUE_VECS = 4 };
enum { STEP_VECS = 8 };

typedef __m512 vec;
typedef __m128 vec4; /* four values: a vector of every set */

/* Asks for the line at p, into the second cache. */
VEC_INLINE void vprefetch(const void *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T1);
}

VEC_INLINE __mmask16 lane_mask(int64_t n)
{
    return (__mmask16)((1u << n) - 1u);
}

VEC_INLINE vec vset(float x)
{
    return _mm512_set1_ps(x);
}
VEC_INLINE vec vload(const float *p)
{
    return _mm512_loadu_ps(p);
}
VEC_INLINE void vstore(float *p, vec x)
{
    _mm512_storeu_ps(p, x);
}

/* The first n lanes, 0 <= n <= VL; the rest reads as zero and is not touched in memory. */
VEC_INLINE vec vload_n(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps(lane_mask(n), p);
}
VEC_INLINE void vstore_n(float *p, vec x, int64_t n)
{
    _mm512_mask_storeu_ps(p, lane_mask(n), x);
}

/* f16 in memory. */
VEC_INLINE vec vload_half(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
VEC_INLINE vec vload_half_n(const uint16_t *p, int64_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lane_mask(n), p));
}
VEC_INLINE void vstore_half_n(uint16_t *p, vec x, int64_t n)
{
    const __m256i half = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_mask_storeu_epi16(p, lane_mask(n), half);
}

VEC_INLINE vec vadd(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
VEC_INLINE vec vsub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
VEC_INLINE vec vmul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
VEC_INLINE vec vdiv(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}
VEC_INLINE vec vmin(vec a, vec b) /* b where either is NaN */
{
    return _mm512_min_ps(a, b);
}
VEC_INLINE vec vmax(vec a, vec b) /* b where either is NaN */
{
    return _mm512_max_ps(a, b);
}
VEC_INLINE vec vfma(vec a, vec b, vec c) /* a b + c */
{
    return _mm512_fmadd_ps(a, b, c);
}
VEC_INLINE vec vfnma(vec a, vec b, vec c) /* c - a b */
{
    return _mm512_fnmadd_ps(a, b, c);
}
VEC_INLINE vec vround(vec a) /* to the nearest integer, ties to even */
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
VEC_INLINE vec vscale(vec a, vec n) /* a 2^n for integers n, |n| <= 252, rounded once */
{
    return _mm512_scalef_ps(a, n);
}

/* Lane sums [sum a, sum b, sum c, sum d]; every one goes the same way: halves, halves, pairs. */
VEC_INLINE vec4 vsum4(vec a, vec b, vec c, vec d)
{
    const __m256 a8 = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m256 b8 = _mm256_add_ps(_mm512_castps512_ps256(b), _mm512_extractf32x8_ps(b, 1));
    const __m256 c8 = _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps(c, 1));
    const __m256 d8 = _mm256_add_ps(_mm512_castps512_ps256(d), _mm512_extractf32x8_ps(d, 1));
    const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a8, b8), _mm256_hadd_ps(c8, d8));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}
VEC_INLINE void vstore4(float *p, vec4 x) /* all four */
{
    _mm_storeu_ps(p, x);
}
VEC_INLINE float vfirst(vec4 x) /* the first of them */
{
    return _mm_cvtss_f32(x);
}
VEC_INLINE float vmax_lane(vec a)
{
    return _mm512_reduce_max_ps(a);
}

/* out[c][i] = p[i * stride + c] for c < 4, i < VL: four columns of VL rows. */
VEC_INLINE void vload_columns4(vec out[4], const float *p, int64_t stride)
{
    __m512 row[4]; /* row[r], 128-bit lane j: columns of row 4 j + r */
    for (int r = 0; r < 4; r++) {
        const float *at = p + r * stride;
        row[r] = _mm512_castps128_ps512(_mm_loadu_ps(at));
        row[r] = _mm512_insertf32x4(row[r], _mm_loadu_ps(at + 4 * stride), 1);
        row[r] = _mm512_insertf32x4(row[r], _mm_loadu_ps(at + 8 * stride), 2);
        row[r] = _mm512_insertf32x4(row[r], _mm_loadu_ps(at + 12 * stride), 3);
    }
    const __m512 lo01 = _mm512_unpacklo_ps(row[0], row[1]);
    const __m512 hi01 = _mm512_unpackhi_ps(row[0], row[1]);
    const __m512 lo23 = _mm512_unpacklo_ps(row[2], row[3]);
    const __m512 hi23 = _mm512_unpackhi_ps(row[2], row[3]);
    out[0] = _mm512_shuffle_ps(lo01, lo23, 0x44);
    out[1] = _mm512_shuffle_ps(lo01, lo23, 0xee);
    out[2] = _mm512_shuffle_ps(hi01, hi23, 0x44);
    out[3] = _mm512_shuffle_ps(hi01, hi23, 0xee);
}
