/* One block of a quantized type as small integers: value of column c is
 *
 *   blocks of 32    d * q[c] + m
 *   blocks of 256   d * sc[c / 16] * q[c] - m * mn[c / 16]
 *
 * with the type's offset already taken from q, and m = mn = 0 for types without a minimum. This is
 * the one place where the bit layouts of the formats are spelled out: the decoders (quant_decode.c)
 * and the plain matmul kernels (kernel/generic/matmul_rows.h) read blocks through it; the vector
 * kernels take the same fields apart 16 rows at a time.
 *
 * Layouts: the GGUF block formats; ids and sizes in quant.c. Checked against an independent
 * transcription and the gguf Python package by tests/unit/test_quant.c.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#include "base/attr.h"
#include "quant/f16.h"

typedef struct {
    float d, m;
    int8_t q[256];
    int16_t sc[16], mn[16];
} fm_quant_block;

/* Twice the values of the 4-bit float format E2M1; the scale is halved to match. */
#define FM_E2M1_DOUBLED {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

/* Half of 2^(e - 127), so 2^(e - 128), exact for every byte: e = 1 and 0 are denormals, and 255
 * (a NaN in the E8M0 definition, which no encoder writes) continues the sequence with 2^127. */
static FM_ALWAYS_INLINE float fm_e8m0_half(uint8_t e)
{
    return fm_f32_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

static FM_ALWAYS_INLINE void fm_block_q4_0(fm_quant_block *b, const uint8_t *p)
{
    b->d = fm_f16_to_f32(fm_quant_le16(p));
    b->m = 0.0f;
    for (int j = 0; j < 16; j++) {
        b->q[j] = (int8_t)((p[2 + j] & 15) - 8);
        b->q[16 + j] = (int8_t)((p[2 + j] >> 4) - 8);
    }
}

static FM_ALWAYS_INLINE void fm_block_q4_1(fm_quant_block *b, const uint8_t *p)
{
    b->d = fm_f16_to_f32(fm_quant_le16(p));
    b->m = fm_f16_to_f32(fm_quant_le16(p + 2));
    for (int j = 0; j < 16; j++) {
        b->q[j] = (int8_t)(p[4 + j] & 15);
        b->q[16 + j] = (int8_t)(p[4 + j] >> 4);
    }
}

static FM_ALWAYS_INLINE void fm_block_q5_0(fm_quant_block *b, const uint8_t *p)
{
    const uint32_t high = fm_quant_le32(p + 2);
    b->d = fm_f16_to_f32(fm_quant_le16(p));
    b->m = 0.0f;
    for (int j = 0; j < 16; j++) {
        b->q[j] = (int8_t)(((p[6 + j] & 15) | (high >> j & 1) << 4) - 16);
        b->q[16 + j] = (int8_t)(((p[6 + j] >> 4) | (high >> (16 + j) & 1) << 4) - 16);
    }
}

static FM_ALWAYS_INLINE void fm_block_q5_1(fm_quant_block *b, const uint8_t *p)
{
    const uint32_t high = fm_quant_le32(p + 4);
    b->d = fm_f16_to_f32(fm_quant_le16(p));
    b->m = fm_f16_to_f32(fm_quant_le16(p + 2));
    for (int j = 0; j < 16; j++) {
        b->q[j] = (int8_t)((p[8 + j] & 15) | (high >> j & 1) << 4);
        b->q[16 + j] = (int8_t)((p[8 + j] >> 4) | (high >> (16 + j) & 1) << 4);
    }
}

static FM_ALWAYS_INLINE void fm_block_q8_0(fm_quant_block *b, const uint8_t *p)
{
    b->d = fm_f16_to_f32(fm_quant_le16(p));
    b->m = 0.0f;
    memcpy(b->q, p + 2, 32);
}

static FM_ALWAYS_INLINE void fm_block_mxfp4(fm_quant_block *b, const uint8_t *p)
{
    static const int8_t value[16] = FM_E2M1_DOUBLED;
    b->d = fm_e8m0_half(p[0]);
    b->m = 0.0f;
    for (int j = 0; j < 16; j++) {
        b->q[j] = value[p[1 + j] & 15];
        b->q[16 + j] = value[p[1 + j] >> 4];
    }
}

/* scales[16] | qs[64] | d | dmin.  Column 128 h + 32 j + l is bits 2j, 2j+1 of qs[32 h + l]. */
static FM_ALWAYS_INLINE void fm_block_q2_k(fm_quant_block *b, const uint8_t *p)
{
    b->d = fm_f16_to_f32(fm_quant_le16(p + 80));
    b->m = fm_f16_to_f32(fm_quant_le16(p + 82));
    for (int k = 0; k < 16; k++) {
        b->sc[k] = p[k] & 15;
        b->mn[k] = p[k] >> 4;
    }
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 32; l++)
                b->q[128 * h + 32 * j + l] = (int8_t)(p[16 + 32 * h + l] >> (2 * j) & 3);
}

/* hmask[32] | qs[64] | scales[12] | d.  As Q2_K, with bit 4 h + j of hmask[l] as third bit; the
 * low four bits of the 16 scales are nibbles of bytes 0..7, the high two lie in bytes 8..11. */
static FM_ALWAYS_INLINE void fm_block_q3_k(fm_quant_block *b, const uint8_t *p)
{
    const uint8_t *const s = p + 96;
    b->d = fm_f16_to_f32(fm_quant_le16(p + 108));
    b->m = 0.0f;
    for (int k = 0; k < 16; k++) {
        const int low = k < 8 ? s[k] & 15 : s[k - 8] >> 4;
        const int high = s[8 + k % 4] >> (2 * (k / 4)) & 3;
        b->sc[k] = (int16_t)((low | high << 4) - 32);
        b->mn[k] = 0;
    }
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 32; l++) {
                const int low = p[32 + 32 * h + l] >> (2 * j) & 3;
                const int high = p[l] >> (4 * h + j) & 1;
                b->q[128 * h + 32 * j + l] = (int8_t)(low + 4 * high - 4);
            }
}

/* Eight 6-bit scales and eight 6-bit minima in 12 bytes, for Q4_K and Q5_K; one pair serves 32
 * columns, so two entries of sc and mn. */
static FM_ALWAYS_INLINE void fm_block_scales_6bit(fm_quant_block *b, const uint8_t *s)
{
    for (int k = 0; k < 4; k++) {
        const int sc0 = s[k] & 63, mn0 = s[k + 4] & 63;
        const int sc1 = (s[k + 8] & 15) | (s[k] >> 6) << 4;
        const int mn1 = (s[k + 8] >> 4) | (s[k + 4] >> 6) << 4;
        b->sc[2 * k] = b->sc[2 * k + 1] = (int16_t)sc0;
        b->mn[2 * k] = b->mn[2 * k + 1] = (int16_t)mn0;
        b->sc[2 * k + 8] = b->sc[2 * k + 9] = (int16_t)sc1;
        b->mn[2 * k + 8] = b->mn[2 * k + 9] = (int16_t)mn1;
    }
}

/* d | dmin | scales[12] | qs[128].  Columns 64 j + l and 64 j + 32 + l are the nibbles of
 * qs[32 j + l]. */
static FM_ALWAYS_INLINE void fm_block_q4_k(fm_quant_block *b, const uint8_t *p)
{
    b->d = fm_f16_to_f32(fm_quant_le16(p));
    b->m = fm_f16_to_f32(fm_quant_le16(p + 2));
    fm_block_scales_6bit(b, p + 4);
    for (int j = 0; j < 4; j++)
        for (int l = 0; l < 32; l++) {
            b->q[64 * j + l] = (int8_t)(p[16 + 32 * j + l] & 15);
            b->q[64 * j + 32 + l] = (int8_t)(p[16 + 32 * j + l] >> 4);
        }
}

/* d | dmin | scales[12] | qh[32] | qs[128].  As Q4_K, with bit k of qh[l] as fifth bit of column
 * 32 k + l. */
static FM_ALWAYS_INLINE void fm_block_q5_k(fm_quant_block *b, const uint8_t *p)
{
    b->d = fm_f16_to_f32(fm_quant_le16(p));
    b->m = fm_f16_to_f32(fm_quant_le16(p + 2));
    fm_block_scales_6bit(b, p + 4);
    for (int j = 0; j < 4; j++)
        for (int l = 0; l < 32; l++) {
            const int high = p[16 + l] >> (2 * j);
            b->q[64 * j + l] = (int8_t)((p[48 + 32 * j + l] & 15) | (high & 1) << 4);
            b->q[64 * j + 32 + l] = (int8_t)(p[48 + 32 * j + l] >> 4 | (high >> 1 & 1) << 4);
        }
}

/* ql[128] | qh[64] | i8 scales[16] | d.  In half h: columns l, 32 + l, 64 + l, 96 + l take the
 * nibbles of ql[64 h + l], ql[64 h + 32 + l] (low, low, high, high) and the bit pairs 0, 1, 2, 3
 * of qh[32 h + l]. */
static FM_ALWAYS_INLINE void fm_block_q6_k(fm_quant_block *b, const uint8_t *p)
{
    b->d = fm_f16_to_f32(fm_quant_le16(p + 208));
    b->m = 0.0f;
    for (int k = 0; k < 16; k++) {
        b->sc[k] = (int8_t)p[192 + k];
        b->mn[k] = 0;
    }
    for (int h = 0; h < 2; h++)
        for (int l = 0; l < 32; l++) {
            const int a = p[64 * h + l], c = p[64 * h + 32 + l], high = p[128 + 32 * h + l];
            int8_t *const q = b->q + 128 * h + l;
            q[0] = (int8_t)(((a & 15) | (high & 3) << 4) - 32);
            q[32] = (int8_t)(((c & 15) | (high >> 2 & 3) << 4) - 32);
            q[64] = (int8_t)((a >> 4 | (high >> 4 & 3) << 4) - 32);
            q[96] = (int8_t)((c >> 4 | (high >> 6 & 3) << 4) - 32);
        }
}
