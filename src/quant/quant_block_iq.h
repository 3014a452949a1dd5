/* The IQ formats as blocks of small integers: the second half of quant_block.h.
 *
 * Their scales count in halves, and their weights in parts that differ by format; both are brought
 * to integers by a power of two that goes to the block's scale, which is exact:
 *   IQ4_NL    d * book[q]
 *   IQ4_XS    d * sc * book[q],                  sc in -32 .. 31
 *   IQ3_S     d * sc * (+-code),                 sc odd, 1 .. 31;  codes 1, 3, .. 15
 *   IQ3_XXS   (d / 2) * sc * (+-code / 2),       sc odd, 1 .. 31;  halves 2, 6, .. 26, 31
 *   IQ2       (d / 8) * sc * (+-code),           sc odd, 1 .. 31;  codes 8, 25, 43
 *   IQ1       (d / 8) * sc * (8 * code +- 1),    sc odd, 1 .. 15;  codes -1, 0, 1
 * Products of these with a half-precision d are exact in f32, so any order of them gives the value
 * that other readers get.
 */
#pragma once

#include "quant/code_books.h"
#include "quant/quant_block.h"

#define FM_IQ2_VALUES {8, 25, 43, 43} /* no entry of a book has the fourth code */
#define FM_IQ1_VALUES {-8, 0, 8, 16}  /* 8 times the code, without the eighth */
#define FM_IQ3_XXS_HALVES {2, 6, 10, 14, 18, 22, 26, 31}
#define FM_IQ3_S_VALUES {1, 3, 5, 7, 9, 11, 13, 15}

/* Seven stored signs and the eighth, which makes their number even; bit c is column c. */
static FM_ALWAYS_INLINE uint32_t fm_iq_signs(uint32_t seven)
{
    uint32_t parity = seven & 127;
    parity ^= parity >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return (seven & 127) | (parity & 1) << 7;
}

/* n columns of one entry, `bits` per code. */
static FM_ALWAYS_INLINE void fm_iq_signed(int8_t *q, uint32_t entry, const int8_t *value,
                                          uint32_t signs, int n, int bits)
{
    for (int c = 0; c < n; c++) {
        const int8_t v = value[entry >> (bits * c) & ((1u << bits) - 1)];
        q[c] = signs >> c & 1 ? (int8_t)-v : v;
    }
}

static FM_ALWAYS_INLINE void fm_iq1_octet(int8_t *q, uint32_t entry, int delta)
{
    for (int c = 0; c < 8; c++) q[c] = (int8_t)(8 * ((int)(entry >> (2 * c) & 3) - 1) + delta);
}

/* d | qs[16].  Columns j and 16 + j are the nibbles of qs[j]. */
static FM_ALWAYS_INLINE void fm_block_iq4_nl(fm_quant_block *b, const uint8_t *p)
{
    b->d = fm_f16_to_f32(fm_quant_le16(p));
    b->m = 0.0f;
    for (int j = 0; j < 16; j++) {
        b->q[j] = fm_book_iq4[p[2 + j] & 15];
        b->q[16 + j] = fm_book_iq4[p[2 + j] >> 4];
    }
}

static FM_ALWAYS_INLINE void fm_block_iq_head(fm_quant_block *b, float d)
{
    b->d = d;
    b->m = 0.0f;
    memset(b->mn, 0, sizeof b->mn);
}

/* d | scales_h u16 | scales_l[4] | qs[128].  Group k of 32 columns: nibble k of scales_l, bit pair
 * k of scales_h; columns j and 16 + j are the nibbles of qs[16 k + j]. */
static FM_ALWAYS_INLINE void fm_block_iq4_xs(fm_quant_block *b, const uint8_t *p)
{
    const uint32_t high = fm_quant_le16(p + 2);
    fm_block_iq_head(b, fm_f16_to_f32(fm_quant_le16(p)));
    for (int k = 0; k < 8; k++) {
        const int low = p[4 + k / 2] >> (4 * (k & 1)) & 15;
        const uint8_t *const qs = p + 8 + 16 * k;
        b->sc[2 * k] = b->sc[2 * k + 1] = (int16_t)((low | (int)(high >> (2 * k) & 3) << 4) - 32);
        for (int j = 0; j < 16; j++) {
            b->q[32 * k + j] = fm_book_iq4[qs[j] & 15];
            b->q[32 * k + 16 + j] = fm_book_iq4[qs[j] >> 4];
        }
    }
}

/* d | qs[64] | qh[8] | signs[32] | scales[4].  Index l (4 columns) is qs[l] and bit l of qh;
 * scales[k / 2] has the nibbles of groups of 32. */
static FM_ALWAYS_INLINE void fm_block_iq3_s(fm_quant_block *b, const uint8_t *p)
{
    static const int8_t value[8] = FM_IQ3_S_VALUES;
    fm_block_iq_head(b, fm_f16_to_f32(fm_quant_le16(p)));
    for (int k = 0; k < 8; k++)
        b->sc[2 * k] = b->sc[2 * k + 1] =
            (int16_t)(2 * (p[106 + k / 2] >> (4 * (k & 1)) & 15) + 1);
    for (int l = 0; l < 64; l++) {
        const uint32_t index = p[2 + l] | (uint32_t)(p[66 + l / 8] >> (l % 8) & 1) << 8;
        fm_iq_signed(b->q + 4 * l, fm_book_iq3_s[index], value,
                     (uint32_t)p[74 + l / 2] >> (4 * (l & 1)), 4, 4);
    }
}

/* d | qs[64] | u32 aux[8].  aux of a group of 32 columns: four times seven signs, each for 8
 * columns, and 4 bits of scale. */
static FM_ALWAYS_INLINE void fm_block_iq3_xxs(fm_quant_block *b, const uint8_t *p)
{
    static const int8_t value[8] = FM_IQ3_XXS_HALVES;
    fm_block_iq_head(b, 0.5f * fm_f16_to_f32(fm_quant_le16(p)));
    for (int k = 0; k < 8; k++) {
        const uint32_t aux = fm_quant_le32(p + 66 + 4 * k);
        b->sc[2 * k] = b->sc[2 * k + 1] = (int16_t)(2 * (aux >> 28) + 1);
        for (int l = 0; l < 8; l++)
            fm_iq_signed(b->q + 32 * k + 4 * l, fm_book_iq3_xxs[p[2 + 8 * k + l]], value,
                         fm_iq_signs(aux >> (7 * (l / 2))) >> (4 * (l & 1)), 4, 4);
    }
}

/* d | per group of 32 columns: four indices, u32 of four times seven signs and 4 bits of scale. */
static FM_ALWAYS_INLINE void fm_block_iq2_xxs(fm_quant_block *b, const uint8_t *p)
{
    static const int8_t value[4] = FM_IQ2_VALUES;
    fm_block_iq_head(b, 0.125f * fm_f16_to_f32(fm_quant_le16(p)));
    for (int k = 0; k < 8; k++) {
        const uint8_t *const qs = p + 2 + 8 * k;
        const uint32_t aux = fm_quant_le32(qs + 4);
        b->sc[2 * k] = b->sc[2 * k + 1] = (int16_t)(2 * (aux >> 28) + 1);
        for (int l = 0; l < 4; l++)
            fm_iq_signed(b->q + 32 * k + 8 * l, fm_book_iq2_xxs[qs[l]], value,
                         fm_iq_signs(aux >> (7 * l)), 8, 2);
    }
}

/* d | u16 qs[32] | scales[8].  qs[l], 8 columns: 9 bits of index, seven signs; scales[k / 2] has
 * the nibbles of groups of 16. */
static FM_ALWAYS_INLINE void fm_block_iq2_xs(fm_quant_block *b, const uint8_t *p)
{
    static const int8_t value[4] = FM_IQ2_VALUES;
    fm_block_iq_head(b, 0.125f * fm_f16_to_f32(fm_quant_le16(p)));
    for (int k = 0; k < 16; k++)
        b->sc[k] = (int16_t)(2 * (p[66 + k / 2] >> (4 * (k & 1)) & 15) + 1);
    for (int l = 0; l < 32; l++) {
        const uint32_t q = fm_quant_le16(p + 2 + 2 * l);
        fm_iq_signed(b->q + 8 * l, fm_book_iq2_xs[q & 511], value, fm_iq_signs(q >> 9), 8, 2);
    }
}

/* d | qs[32] | signs[32] | qh[8] | scales[8].  Index l (8 columns) is qs[l] and bit pair l % 4 of
 * qh[l / 4]; scales[k / 2] has the nibbles of groups of 16. */
static FM_ALWAYS_INLINE void fm_block_iq2_s(fm_quant_block *b, const uint8_t *p)
{
    static const int8_t value[4] = FM_IQ2_VALUES;
    fm_block_iq_head(b, 0.125f * fm_f16_to_f32(fm_quant_le16(p)));
    for (int k = 0; k < 16; k++)
        b->sc[k] = (int16_t)(2 * (p[74 + k / 2] >> (4 * (k & 1)) & 15) + 1);
    for (int l = 0; l < 32; l++) {
        const uint32_t index = p[2 + l] | (uint32_t)(p[66 + l / 4] >> (2 * (l % 4)) & 3) << 8;
        fm_iq_signed(b->q + 8 * l, fm_book_iq2_s[index], value, p[34 + l], 8, 2);
    }
}

/* d | qs[32] | u16 qh[8].  qh of a group of 32 columns: four times 3 high bits of an index, 3 bits
 * of scale, and the sign of the eighth that all columns get. */
static FM_ALWAYS_INLINE void fm_block_iq1_s(fm_quant_block *b, const uint8_t *p)
{
    fm_block_iq_head(b, 0.125f * fm_f16_to_f32(fm_quant_le16(p)));
    for (int k = 0; k < 8; k++) {
        const uint32_t h = fm_quant_le16(p + 34 + 2 * k);
        b->sc[2 * k] = b->sc[2 * k + 1] = (int16_t)(2 * (h >> 12 & 7) + 1);
        for (int l = 0; l < 4; l++)
            fm_iq1_octet(b->q + 32 * k + 8 * l,
                         fm_book_iq1[p[2 + 4 * k + l] | (h >> (3 * l) & 7) << 8],
                         h >> 15 ? -1 : 1);
    }
}

/* qs[32] | qh[16] | u16 scales[4].  Nibble l of qh, 8 columns: 3 high bits of the index and the
 * sign of the eighth. scales[j]: four times 3 bits, each for 16 columns, and a nibble of d. */
static FM_ALWAYS_INLINE void fm_block_iq1_m(fm_quant_block *b, const uint8_t *p)
{
    uint32_t half = 0;
    for (int j = 0; j < 4; j++) {
        const uint32_t s = fm_quant_le16(p + 48 + 2 * j);
        half |= (s >> 12) << (4 * j);
        for (int i = 0; i < 4; i++) b->sc[4 * j + i] = (int16_t)(2 * (s >> (3 * i) & 7) + 1);
    }
    fm_block_iq_head(b, 0.125f * fm_f16_to_f32((uint16_t)half));
    for (int l = 0; l < 32; l++) {
        const uint32_t h = (uint32_t)p[32 + l / 2] >> (4 * (l & 1));
        fm_iq1_octet(b->q + 8 * l, fm_book_iq1[p[l] | (h & 7) << 8], h & 8 ? -1 : 1);
    }
}
