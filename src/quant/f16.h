/* Half and bfloat16 numbers to and from f32: exact in both directions' roundings, on any machine.
 * Conversions of many values are a kernel's business (fm_kernels.to_f16, fm_type_traits.decode). */
#pragma once

#include <stdint.h>
#include <string.h>

static inline float fm_f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t fm_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* Every half is an f32, so this is exact. A signalling NaN becomes quiet, as in hardware. */
static inline float fm_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t mag = (uint32_t)(h & 0x7fffu) << 13;
    if (mag >= 0x7c00u << 13) {
        const uint32_t quiet = mag > 0x7c00u << 13 ? 0x00400000u : 0;
        return fm_f32_from_bits(sign | 0x7f800000u | mag | quiet);
    }
    /* The half's exponent now stands in the f32 field with bias 15: times 2^(127 - 15) corrects
     * it, and turns the halves' subnormals (exponent field 0) into normal f32. */
    const float f = fm_f32_from_bits(mag) * 0x1p112f;
    return fm_f32_from_bits(fm_f32_bits(f) | sign);
}

/* Round to nearest, ties to even; overflow gives infinity, a NaN stays one and becomes quiet. */
static inline uint16_t fm_f32_to_f16(float x)
{
    const uint32_t u = fm_f32_bits(x);
    const uint32_t sign = (u >> 16) & 0x8000u;
    const uint32_t mag = u & 0x7fffffffu;
    if (mag > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((mag >> 13) & 0x1ffu));
    if (mag >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* from 65520 on */
    if (mag < 0x38800000u) {
        /* Below 2^-14 the result is a multiple of 2^-24. Adding 0.5 leaves exactly that
         * resolution in the f32 sum, and the addition rounds to even. */
        const uint32_t r = fm_f32_bits(fm_f32_from_bits(mag) + 0.5f) - 0x3f000000u;
        return (uint16_t)(sign | r);
    }
    const uint32_t odd = (mag >> 13) & 1;
    return (uint16_t)(sign | ((mag - 0x38000000u + 0xfffu + odd) >> 13));
}

static inline float fm_bf16_to_f32(uint16_t h)
{
    return fm_f32_from_bits((uint32_t)h << 16);
}

/* Little-endian loads from anywhere. */
static inline uint16_t fm_quant_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t fm_quant_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
