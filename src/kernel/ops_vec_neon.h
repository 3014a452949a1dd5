/* The vector vocabulary of the shared operations (ops_*.inc) for 64-bit ARM: 4 lanes of f32. The
 * names are explained in ops_vec_avx512.h.
 *
 * Lanes lie in memory in the order of their numbers on little endian only; kernel.c offers the set
 * nowhere else.
 */
#pragma once

#include "base/attr.h"

#include <arm_neon.h>
#include <stdint.h>

#define VEC_INLINE static FM_ALWAYS_INLINE

/* Lanes, and the register tiles that keep 20, 16 and 16 sums in 32 registers. Factors are multiplied from
 * a lane, which compilers load for all rows of a tile first: with 6 rows some sums would go to memory. */
enum { VL = 4, GEMM_ROWS = 5, GEMM_VECS = 4, SCORE_HEADS = 4, VALUE_HEADS = 4, VALUE_VECS = 4 };
enum { STEP_VECS = 8 };

typedef float32x4_t vec;
typedef float32x4_t vec4;

VEC_INLINE void vprefetch(const void *p)
{
    __builtin_prefetch(p, 0, 2);
}

VEC_INLINE vec vset(float x)
{
    return vdupq_n_f32(x);
}
VEC_INLINE vec vload(const float *p)
{
    return vld1q_f32(p);
}
VEC_INLINE void vstore(float *p, vec x)
{
    vst1q_f32(p, x);
}

/* There are no masked loads and stores: all lanes at once where the vector is full, which it is in
 * all but the last turn of a loop, or by way of a buffer. */
VEC_INLINE vec vload_n(const float *p, int64_t n)
{
    if (n == VL) return vload(p);
    float lanes[VL] = {0};
    for (int64_t i = 0; i < n; i++) lanes[i] = p[i];
    return vload(lanes);
}
VEC_INLINE void vstore_n(float *p, vec x, int64_t n)
{
    if (n == VL) {
        vstore(p, x);
        return;
    }
    float lanes[VL];
    vstore(lanes, x);
    for (int64_t i = 0; i < n; i++) p[i] = lanes[i];
}

VEC_INLINE vec vload_half(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
VEC_INLINE vec vload_half_n(const uint16_t *p, int64_t n)
{
    if (n == VL) return vload_half(p);
    uint16_t half[VL] = {0};
    for (int64_t i = 0; i < n; i++) half[i] = p[i];
    return vload_half(half);
}
VEC_INLINE void vstore_half_n(uint16_t *p, vec x, int64_t n)
{
    const uint16x4_t all = vreinterpret_u16_f16(vcvt_f16_f32(x)); /* to nearest even, the default */
    if (n == VL) {
        vst1_u16(p, all);
        return;
    }
    uint16_t half[VL];
    vst1_u16(half, all);
    for (int64_t i = 0; i < n; i++) p[i] = half[i];
}

VEC_INLINE vec vadd(vec a, vec b)
{
    return vaddq_f32(a, b);
}
VEC_INLINE vec vsub(vec a, vec b)
{
    return vsubq_f32(a, b);
}
VEC_INLINE vec vmul(vec a, vec b)
{
    return vmulq_f32(a, b);
}
VEC_INLINE vec vdiv(vec a, vec b)
{
    return vdivq_f32(a, b);
}
/* By comparison: the instructions for minimum and maximum give NaN where either is, and callers that
 * put a bound first or a NaN last count on b, as the other sets give it. */
VEC_INLINE vec vmin(vec a, vec b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
VEC_INLINE vec vmax(vec a, vec b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
VEC_INLINE vec vfma(vec a, vec b, vec c)
{
    return vfmaq_f32(c, a, b);
}
VEC_INLINE vec vfnma(vec a, vec b, vec c)
{
    return vfmsq_f32(c, a, b);
}
VEC_INLINE vec vround(vec a)
{
    return vrndnq_f32(a);
}

/* In two factors, so that each has a normal exponent; only the second product can round. Of a NaN
 * n becomes 0, and a stays NaN. */
VEC_INLINE vec vscale(vec a, vec n)
{
    const int32x4_t whole = vcvtnq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    const int32x4_t bias = vdupq_n_s32(127);
    const int32x4_t e0 = vshlq_n_s32(vaddq_s32(half, bias), 23);
    const int32x4_t e1 = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
    return vmul(vmul(a, vreinterpretq_f32_s32(e0)), vreinterpretq_f32_s32(e1));
}

VEC_INLINE void vstore4(float *p, vec4 x)
{
    vst1q_f32(p, x);
}
VEC_INLINE float vfirst(vec4 x)
{
    return vgetq_lane_f32(x, 0);
}

VEC_INLINE vec4 vsum4(vec a, vec b, vec c, vec d)
{
    return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
}
VEC_INLINE float vmax_lane(vec a)
{
    const vec m = vmax(a, vextq_f32(a, a, 2));
    return vgetq_lane_f32(vmax(m, vextq_f32(m, m, 1)), 0);
}

VEC_INLINE void vload_columns4(vec out[4], const float *p, int64_t stride)
{
    const vec row0 = vload(p), row1 = vload(p + stride);
    const vec row2 = vload(p + 2 * stride), row3 = vload(p + 3 * stride);
    const float64x2_t lo01 = vreinterpretq_f64_f32(vtrn1q_f32(row0, row1)); /* columns 0 and 2 */
    const float64x2_t hi01 = vreinterpretq_f64_f32(vtrn2q_f32(row0, row1)); /* columns 1 and 3 */
    const float64x2_t lo23 = vreinterpretq_f64_f32(vtrn1q_f32(row2, row3));
    const float64x2_t hi23 = vreinterpretq_f64_f32(vtrn2q_f32(row2, row3));
    out[0] = vreinterpretq_f32_f64(vtrn1q_f64(lo01, lo23));
    out[1] = vreinterpretq_f32_f64(vtrn1q_f64(hi01, hi23));
    out[2] = vreinterpretq_f32_f64(vtrn2q_f64(lo01, lo23));
    out[3] = vreinterpretq_f32_f64(vtrn2q_f64(hi01, hi23));
}
