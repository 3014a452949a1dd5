/* The formats of code books (IQ1, IQ2, IQ3) for the neon and i8mm products: a block of a row as signed bytes with a scale for
 * every 16 columns. Their rows lie in memory as on disk; 16 of them at a time are brought into the order of panels, so
 * that the tiles of the other formats multiply them.
 */
#pragma once

#if defined(__aarch64__)

#include "kernel/arm/matmul_neon.h"
#include "kernel/book_entries.h"
#include "quant/quant_block_iq.h"

/* Of one row. */
typedef struct {
    int8_t q[256];
    uint8_t sc[16];
    float d;
} book_row;

/* A block of a row, quant_block_iq.h describes them. */
typedef void book_row_fn(book_row *r, const uint8_t *p);

/* 16 columns: two entries of 8, negative where the bit of a column is set. */
static FM_ALWAYS_INLINE void put_signed(int8_t *q, uint64_t a, uint64_t b, uint32_t sign_a,
                                        uint32_t sign_b)
{
    static const uint8_t bit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t w = vcombine_u8(vcreate_u8(a), vcreate_u8(b));
    const uint8x16_t sign = vcombine_u8(vdup_n_u8((uint8_t)sign_a), vdup_n_u8((uint8_t)sign_b));
    const uint8x16_t set = vtstq_u8(sign, vld1q_u8(bit));
    vst1q_s8(q, vreinterpretq_s8_u8(vsubq_u8(veorq_u8(w, set), set)));
}

/* 16 columns of IQ1: two entries and what is added to each. */
static FM_ALWAYS_INLINE void put_shifted(int8_t *q, uint64_t a, uint64_t b, int delta_a,
                                         int delta_b)
{
    const int8x16_t w = vreinterpretq_s8_u8(vcombine_u8(vcreate_u8(a), vcreate_u8(b)));
    vst1q_s8(q, vaddq_s8(w, vcombine_s8(vdup_n_s8((int8_t)delta_a), vdup_n_s8((int8_t)delta_b))));
}

/* Two entries of 4 columns. */
static FM_ALWAYS_INLINE uint64_t two_of_4(uint32_t a, uint32_t b)
{
    return a | (uint64_t)b << 32;
}

static FM_ALWAYS_INLINE void row_iq2_xxs(book_row *r, const uint8_t *p)
{
    const uint64_t *const book = fm_book_entries.iq2_xxs;
    r->d = 0.125f * fm_f16_to_f32(fm_quant_le16(p));
    for (int k = 0; k < 8; k++) {
        const uint8_t *const qs = p + 2 + 8 * k;
        const uint32_t aux = fm_quant_le32(qs + 4);
        r->sc[2 * k] = r->sc[2 * k + 1] = (uint8_t)(2 * (aux >> 28) + 1);
        for (int l = 0; l < 4; l += 2)
            put_signed(r->q + 32 * k + 8 * l, book[qs[l]], book[qs[l + 1]],
                       fm_iq_signs(aux >> (7 * l)), fm_iq_signs(aux >> (7 * l + 7)));
    }
}

/* Scales of 16 columns, the low nibble of a byte first. */
static FM_ALWAYS_INLINE void put_scale_nibbles(book_row *r, const uint8_t *p)
{
    for (int k = 0; k < 16; k++) r->sc[k] = (uint8_t)(2 * (p[k / 2] >> (4 * (k & 1)) & 15) + 1);
}

static FM_ALWAYS_INLINE void row_iq2_xs(book_row *r, const uint8_t *p)
{
    const uint64_t *const book = fm_book_entries.iq2_xs;
    r->d = 0.125f * fm_f16_to_f32(fm_quant_le16(p));
    put_scale_nibbles(r, p + 66);
    for (int l = 0; l < 32; l += 2) {
        const uint32_t a = fm_quant_le16(p + 2 + 2 * l), b = fm_quant_le16(p + 4 + 2 * l);
        put_signed(r->q + 8 * l, book[a & 511], book[b & 511], fm_iq_signs(a >> 9),
                   fm_iq_signs(b >> 9));
    }
}

static FM_ALWAYS_INLINE void row_iq2_s(book_row *r, const uint8_t *p)
{
    const uint64_t *const book = fm_book_entries.iq2_s;
    r->d = 0.125f * fm_f16_to_f32(fm_quant_le16(p));
    put_scale_nibbles(r, p + 74);
    for (int l = 0; l < 32; l += 2) {
        const uint32_t high = p[66 + l / 4] >> (2 * (l % 4));
        put_signed(r->q + 8 * l, book[p[2 + l] | (high & 3) << 8],
                   book[p[3 + l] | (high >> 2 & 3) << 8], p[34 + l], p[35 + l]);
    }
}

static FM_ALWAYS_INLINE void row_iq3_xxs(book_row *r, const uint8_t *p)
{
    const uint32_t *const book = fm_book_entries.iq3_xxs;
    r->d = 0.5f * fm_f16_to_f32(fm_quant_le16(p));
    for (int k = 0; k < 8; k++) {
        const uint8_t *const qs = p + 2 + 8 * k;
        const uint32_t aux = fm_quant_le32(p + 66 + 4 * k);
        r->sc[2 * k] = r->sc[2 * k + 1] = (uint8_t)(2 * (aux >> 28) + 1);
        for (int l = 0; l < 4; l += 2)
            put_signed(r->q + 32 * k + 8 * l, two_of_4(book[qs[2 * l]], book[qs[2 * l + 1]]),
                       two_of_4(book[qs[2 * l + 2]], book[qs[2 * l + 3]]),
                       fm_iq_signs(aux >> (7 * l)), fm_iq_signs(aux >> (7 * l + 7)));
    }
}

static FM_ALWAYS_INLINE void row_iq3_s(book_row *r, const uint8_t *p)
{
    const uint32_t *const book = fm_book_entries.iq3_s;
    r->d = fm_f16_to_f32(fm_quant_le16(p));
    for (int k = 0; k < 8; k++) {
        const uint8_t *const qs = p + 2 + 8 * k, *const sign = p + 74 + 4 * k;
        const uint32_t high = (uint32_t)p[66 + k] << 8;
        r->sc[2 * k] = r->sc[2 * k + 1] = (uint8_t)(2 * (p[106 + k / 2] >> (4 * (k & 1)) & 15) + 1);
        uint32_t e[8];
        for (int l = 0; l < 8; l++) e[l] = book[qs[l] | (high >> l & 256)];
        for (int l = 0; l < 4; l += 2)
            put_signed(r->q + 32 * k + 8 * l, two_of_4(e[2 * l], e[2 * l + 1]),
                       two_of_4(e[2 * l + 2], e[2 * l + 3]), sign[l], sign[l + 1]);
    }
}

static FM_ALWAYS_INLINE void row_iq1_s(book_row *r, const uint8_t *p)
{
    const uint64_t *const book = fm_book_entries.iq1;
    r->d = 0.125f * fm_f16_to_f32(fm_quant_le16(p));
    for (int k = 0; k < 8; k++) {
        const uint32_t h = fm_quant_le16(p + 34 + 2 * k);
        const int delta = h >> 15 ? -1 : 1;
        r->sc[2 * k] = r->sc[2 * k + 1] = (uint8_t)(2 * (h >> 12 & 7) + 1);
        for (int l = 0; l < 4; l += 2)
            put_shifted(r->q + 32 * k + 8 * l, book[p[2 + 4 * k + l] | (h >> (3 * l) & 7) << 8],
                        book[p[3 + 4 * k + l] | (h >> (3 * l + 3) & 7) << 8], delta, delta);
    }
}

static FM_ALWAYS_INLINE void row_iq1_m(book_row *r, const uint8_t *p)
{
    const uint64_t *const book = fm_book_entries.iq1;
    uint32_t half = 0;
    for (int j = 0; j < 4; j++) {
        const uint32_t s = fm_quant_le16(p + 48 + 2 * j);
        half |= (s >> 12) << (4 * j);
        for (int i = 0; i < 4; i++) r->sc[4 * j + i] = (uint8_t)(2 * (s >> (3 * i) & 7) + 1);
    }
    r->d = 0.125f * fm_f16_to_f32((uint16_t)half);
    for (int l = 0; l < 32; l += 2) {
        const uint32_t h = p[32 + l / 2];
        put_shifted(r->q + 8 * l, book[p[l] | (h & 7) << 8], book[p[l + 1] | (h >> 4 & 7) << 8],
                    h & 8 ? -1 : 1, h & 128 ? -1 : 1);
    }
}

/* Dwords of four rows: u[i] is dword i of each of them. */
static FM_ALWAYS_INLINE void transpose_quad(uint8x16_t u[4], const uint8_t *a, const uint8_t *b,
                                            const uint8_t *c, const uint8_t *d)
{
    const uint32x4_t a0 = vreinterpretq_u32_u8(vld1q_u8(a)), b0 = vreinterpretq_u32_u8(vld1q_u8(b));
    const uint32x4_t c0 = vreinterpretq_u32_u8(vld1q_u8(c)), d0 = vreinterpretq_u32_u8(vld1q_u8(d));
    const uint64x2_t ab0 = vreinterpretq_u64_u32(vtrn1q_u32(a0, b0));
    const uint64x2_t ab1 = vreinterpretq_u64_u32(vtrn2q_u32(a0, b0));
    const uint64x2_t cd0 = vreinterpretq_u64_u32(vtrn1q_u32(c0, d0));
    const uint64x2_t cd1 = vreinterpretq_u64_u32(vtrn2q_u32(c0, d0));
    u[0] = vreinterpretq_u8_u64(vtrn1q_u64(ab0, cd0));
    u[1] = vreinterpretq_u8_u64(vtrn1q_u64(ab1, cd1));
    u[2] = vreinterpretq_u8_u64(vtrn2q_u64(ab0, cd0));
    u[3] = vreinterpretq_u8_u64(vtrn2q_u64(ab1, cd1));
}

/* name, type id, bytes of a block */
#define FM_FORMATS_BOOK(X)                                                                         \
    X(iq2_xxs, FM_TYPE_IQ2_XXS, 66)                                                                \
    X(iq2_xs, FM_TYPE_IQ2_XS, 74)                                                                  \
    X(iq2_s, FM_TYPE_IQ2_S, 82)                                                                    \
    X(iq3_xxs, FM_TYPE_IQ3_XXS, 98)                                                                \
    X(iq3_s, FM_TYPE_IQ3_S, 110)                                                                   \
    X(iq1_s, FM_TYPE_IQ1_S, 50)                                                                    \
    X(iq1_m, FM_TYPE_IQ1_M, 56)

#endif
