/* f16 <-> f32 in integer arithmetic, the same bits as the conversion instructions of the vector
 * sets: round to nearest even, subnormals kept, NaN made quiet with the top of its payload.
 */
#pragma once

#include <stdint.h>
#include <string.h>

static inline float fm_half_to_f32(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, mag = half & 0x7fffu;
    uint32_t bits = mag << 13;
    if (mag >= 0x7c00u) {
        bits |= mag > 0x7c00u ? 0x7fc00000u : 0x7f800000u;
    } else {
        /* The exponent field now means 2^-112 of what it should; a multiplication by a power of
         * two is exact and treats normal and subnormal halves alike. */
        float f;
        memcpy(&f, &bits, sizeof f);
        f *= 0x1p112f;
        memcpy(&bits, &f, sizeof bits);
    }
    bits |= sign;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static inline uint16_t fm_f32_to_half(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    const uint32_t mag = bits & 0x7fffffffu;
    if (mag > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (mag >> 13 & 0x3ffu));
    if (mag >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* >= 65520 rounds to infinity */
    if (mag < 0x38800000u) {                                   /* < 2^-14: subnormal half */
        /* 0.5 has units of 2^-24, exactly those of a subnormal half: the addition rounds. */
        float f;
        memcpy(&f, &mag, sizeof f);
        f += 0.5f;
        uint32_t sum;
        memcpy(&sum, &f, sizeof sum);
        return (uint16_t)(sign | (sum - 0x3f000000u));
    }
    const uint32_t odd = mag >> 13 & 1u;
    return (uint16_t)(sign | ((mag - 0x38000000u + 0xfffu + odd) >> 13));
}
