/* Formats of code books in panels, for AVX-512 with VNNI and VBMI: what one token of IQ1 and everything else have in common.
 * A lane is a row.
 */
#pragma once

#include "kernel/x86/matmul_q256_panel_avx512.h"

#if defined(__x86_64__)

/* Panels of IQ1 with one token, fm_panel_fn; the first makes their table. */
void fm_matmul_book_init_iq1_vbmi(void);
void fm_panel_iq1_s_one_vbmi(float *out, const uint8_t *panel, int64_t n_block,
                             const void *const *act);
void fm_panel_iq1_m_one_vbmi(float *out, const uint8_t *panel, int64_t n_block,
                             const void *const *act);

/* ---- bits and bytes of lanes --------------------------------------------------------------- */

/* Bytes 0 to 3 of every lane: the eight bits of v's lane from bit a, b, c, d on. Where fewer are left others follow. */
static FM_ALWAYS_INLINE __m512i bits_from(__m512i v, int a, int b, int c, int d)
{
    const uint64_t one = (uint64_t)(a & 63) | (uint64_t)(b & 63) << 8 | (uint64_t)(c & 63) << 16 |
                         (uint64_t)(d & 63) << 24;
    const uint64_t two = (uint64_t)((a + 32) & 63) | (uint64_t)((b + 32) & 63) << 8 |
                         (uint64_t)((c + 32) & 63) << 16 | (uint64_t)((d + 32) & 63) << 24;
    return _mm512_multishift_epi64_epi8(_mm512_set1_epi64((int64_t)(one | two << 32)), v);
}

/* The bits of mask from a, the others from b. */
static FM_ALWAYS_INLINE __m512i select_bits(uint32_t mask, __m512i a, __m512i b)
{
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32((int)mask), a, b, 0xca);
}

/* Vector u of a field that begins at byte `at` of a block. */
static FM_ALWAYS_INLINE __m512i panel_field(const uint8_t *p, int at, int u)
{
    return load_512(p + at * FM_PANEL_ROWS + 64 * u);
}

/* A word for 32 columns. */
static FM_ALWAYS_INLINE __m512i word_of_lane(const uint8_t *p, int at, int i)
{
    return _mm512_srlv_epi32(panel_field(p, at, i / 2), _mm512_set1_epi32(16 * (i % 2)));
}

/* Of 32 columns of IQ1, whose word this is: the high bits of indices as the lowest bits of bytes; others lie above them. */
static FM_ALWAYS_INLINE __m512i high_iq1_s(__m512i word)
{
    return bits_from(word, 0, 3, 6, 9);
}

static FM_ALWAYS_INLINE __m512i high_iq1_m(__m512i word)
{
    return bits_from(word, 0, 4, 8, 12);
}

/* ---- scales and shapes --------------------------------------------------------------------- */

/* 2 s + 1 for the `bits` of v from bit `at` on. */
static FM_ALWAYS_INLINE __m512i odd_scale(__m512i v, int at, int bits)
{
    const __m512i s = _mm512_and_si512(_mm512_srlv_epi32(v, _mm512_set1_epi32(at)),
                                       _mm512_set1_epi32((1 << bits) - 1));
    return _mm512_or_si512(_mm512_add_epi32(s, s), _mm512_set1_epi32(1));
}

static FM_ALWAYS_INLINE __m512i scale_iq1_s(const uint8_t *p, int k)
{
    return odd_scale(panel_field(p, 34, k / 2), 16 * (k % 2) + 12, 3);
}

static FM_ALWAYS_INLINE __m512i scale_iq1_m(const uint8_t *p, int k)
{
    return odd_scale(panel_field(p, 48, k / 8), 16 * (k / 4 % 2) + 3 * (k % 4), 3);
}

enum { WEIGHT_OFFSET = 64 }; /* of unsigned weights: at most 43 are in a book */

#define SHAPE(bytes, groups, of_d, d, reads)                                                       \
    {                                                                                              \
        .block_bytes = bytes, .d_at = d, .n_group = groups, .n_unit = 64 / groups,                 \
        .offset_32 = WEIGHT_OFFSET / 32, .n_part = 1, .in_step = 9, .factor = of_d, .order = reads \
    }
static const shape_256 shape_iq1_s = SHAPE(50, 8, 0.125f, 0, FM_READ_BY_FIELDS);
static const shape_256 shape_iq1_m = SHAPE(56, 16, 0.125f, D_IN_NIBBLES, FM_READ_BY_FIELDS);

#endif
