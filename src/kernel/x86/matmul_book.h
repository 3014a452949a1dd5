/* The formats with code books (IQ1, IQ2, IQ3) for AVX2 and AVX-512: what belongs to a whole block of a row.
 *
 * Their rows lie in memory as on disk. A lane is a column, unlike in panels: an index names 8 or 4 neighbouring weights,
 * which a row keeps together. How indices are found and looked up is each set's own affair; the scales, and the signs or what
 * else is added to the entries, are taken out here.
 */
#pragma once

#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

/* Of one block. */
typedef struct {
    __m256i
        scale; /* bytes: byte k of the first lane for the first 16 columns of group k (of 32), of the second lane for
                      the others */
    __m256i sign; /* see book_sign */
} book_head;

/* What head.sign holds: bits of columns, bytes that are added to the columns of a group (in both lanes), or of an index. */
typedef enum { SIGN_BITS, DELTA_OF_GROUP, DELTA_OF_INDEX } book_sign;

typedef uint16_t book_head_fn(book_head *, const uint8_t *p); /* returns the half d */

/* ---- bits -------------------------------------------------------------------------------- */

static FM_ALWAYS_INLINE __m256i joined(__m128i low, __m128i high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

/* Bytes of seven signs get the eighth, which makes their number even. */
static FM_ALWAYS_INLINE __m256i eighth_sign(__m256i s)
{
    const __m256i odd = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    /* A shuffle looks at the low nibble of a byte below 128. */
    const __m256i parity =
        _mm256_xor_si256(_mm256_shuffle_epi8(odd, s), _mm256_shuffle_epi8(odd, high_nibbles(s)));
    return _mm256_or_si256(s, parity);
}

/* 2 s + 1 of bytes below 128. */
static FM_ALWAYS_INLINE __m256i odd_scale(__m256i s)
{
    return _mm256_or_si256(_mm256_add_epi8(s, s), _mm256_set1_epi8(1));
}

/* Nibbles, the lower one of a byte first, to bytes. */
static FM_ALWAYS_INLINE __m256i nibbles_in_order(__m128i v)
{
    const __m256i w = _mm256_cvtepu8_epi16(v);
    return low_nibbles(_mm256_or_si256(w, _mm256_slli_epi16(w, 4)));
}

/* Scales of 32 columns, one per byte, for book_head. */
static FM_ALWAYS_INLINE __m256i scale_32(__m128i s)
{
    return odd_scale(_mm256_broadcastq_epi64(s));
}

/* What a dword of IQ2_XXS and IQ3_XXS says of 32 columns: four times seven signs, a scale. */
static FM_ALWAYS_INLINE void signs_and_scale(book_head *h, __m256i aux)
{
    __m256i sign = _mm256_and_si256(aux, _mm256_set1_epi32(0x7f));
    FM_UNROLL
    for (int i = 1; i < 4; i++)
        sign = _mm256_or_si256(
            sign, _mm256_and_si256(_mm256_slli_epi32(aux, i), _mm256_set1_epi32(0x7f << (8 * i))));
    const __m256i s = _mm256_srli_epi32(aux, 28);
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    h->sign = eighth_sign(sign);
    h->scale = scale_32(_mm_packus_epi16(words, words));
}

/* The nibbles of 8 bytes as scales of 16 columns. */
static FM_ALWAYS_INLINE __m256i scale_nibbles(const uint8_t *p)
{
    const __m128i v = _mm_loadl_epi64((const __m128i *)p);
    return odd_scale(
        low_nibbles(_mm256_inserti128_si256(_mm256_castsi128_si256(v), _mm_srli_epi16(v, 4), 1)));
}

/* ---- sums ------------------------------------------------------------------------------- */

/* Lane i is the sum of the lanes of s[i]. */
static FM_ALWAYS_INLINE __m256i add_lanes_of_8(const __m256i s[8])
{
    __m256i pair[4], four[2];
    FM_UNROLL
    for (int i = 0; i < 4; i++)
        pair[i] = _mm256_add_epi32(_mm256_unpacklo_epi32(s[2 * i], s[2 * i + 1]),
                                   _mm256_unpackhi_epi32(s[2 * i], s[2 * i + 1]));
    FM_UNROLL
    for (int i = 0; i < 2; i++)
        four[i] = _mm256_add_epi32(_mm256_unpacklo_epi64(pair[2 * i], pair[2 * i + 1]),
                                   _mm256_unpackhi_epi64(pair[2 * i], pair[2 * i + 1]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(four[0], four[1], 0x20),
                            _mm256_permute2x128_si256(four[0], four[1], 0x31));
}

/* ---- blocks: quant_block_iq.h describes them ------------------------------------------------ */

static FM_ALWAYS_INLINE uint16_t head_iq2_xxs(book_head *h, const uint8_t *p)
{
    const __m256 a = _mm256_loadu_ps((const float *)(const void *)(p + 2));
    const __m256 b = _mm256_loadu_ps((const float *)(const void *)(p + 34));
    const __m256i odd = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
    signs_and_scale(h, _mm256_permute4x64_epi64(odd, 0xd8));
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE uint16_t head_iq2_xs(book_head *h, const uint8_t *p)
{
    const __m256i a = load_256(p + 2), b = load_256(p + 34);
    h->sign = eighth_sign(_mm256_permute4x64_epi64(
        _mm256_packus_epi16(_mm256_srli_epi16(a, 9), _mm256_srli_epi16(b, 9)), 0xd8));
    h->scale = scale_nibbles(p + 66);
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE uint16_t head_iq2_s(book_head *h, const uint8_t *p)
{
    h->sign = load_256(p + 34);
    h->scale = scale_nibbles(p + 74);
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE uint16_t head_iq3_xxs(book_head *h, const uint8_t *p)
{
    signs_and_scale(h, load_256(p + 66));
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE uint16_t head_iq3_s(book_head *h, const uint8_t *p)
{
    h->sign = load_256(p + 74);
    h->scale = scale_32(
        _mm256_castsi256_si128(nibbles_in_order(_mm256_castsi256_si128(repeat_32(p + 106)))));
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE uint16_t head_iq1_s(book_head *h, const uint8_t *p)
{
    const __m128i qh = _mm_loadu_si128((const __m128i *)(p + 34));
    const __m128i scale = _mm_and_si128(_mm_srli_epi16(qh, 12), _mm_set1_epi16(7));
    const __m128i delta = _mm_or_si128(_mm_srai_epi16(qh, 15), _mm_set1_epi16(1));
    h->scale = scale_32(_mm_packus_epi16(scale, scale));
    h->sign = _mm256_broadcastsi128_si256(_mm_packs_epi16(delta, delta));
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE uint16_t head_iq1_m(book_head *h, const uint8_t *p)
{
    const __m256i nibble = nibbles_in_order(_mm_loadu_si128((const __m128i *)(p + 32)));
    const __m256i negative = _mm256_srli_epi16(_mm256_and_si256(nibble, _mm256_set1_epi8(8)), 2);
    h->sign = _mm256_sub_epi8(_mm256_set1_epi8(1), negative);
    /* Of word k / 2 the three bits from 6 (k % 2) on; 3 more for the second 16 columns. */
    const __m128i words = _mm_loadl_epi64((const __m128i *)(p + 48));
    const __m256i twice =
        _mm256_broadcastsi128_si256(_mm_slli_epi16(_mm_unpacklo_epi16(words, words), 1));
    const __m256i right = joined(_mm_set1_epi32(0x02008000), _mm_set1_epi32(0x00401000));
    const __m256i s = _mm256_and_si256(_mm256_mulhi_epu16(twice, right), _mm256_set1_epi16(7));
    h->scale = odd_scale(_mm256_packus_epi16(s, s));
    return (uint16_t)(p[49] >> 4 | (p[51] & 0xf0) | (uint32_t)(p[53] & 0xf0) << 4 |
                      (uint32_t)(p[55] & 0xf0) << 8);
}

/* ---- the formats: type, bytes of a block, factor of d (quant_block_iq.h), sign ------------- */

#define FM_BOOK_FORMATS_IQ1(X)                                                                     \
    X(iq1_s, IQ1_S, 50, 0.125f, DELTA_OF_GROUP)                                                    \
    X(iq1_m, IQ1_M, 56, 0.125f, DELTA_OF_INDEX)
#define FM_BOOK_FORMATS_IQ23(X)                                                                    \
    X(iq2_xxs, IQ2_XXS, 66, 0.125f, SIGN_BITS)                                                     \
    X(iq2_xs, IQ2_XS, 74, 0.125f, SIGN_BITS)                                                       \
    X(iq2_s, IQ2_S, 82, 0.125f, SIGN_BITS)                                                         \
    X(iq3_xxs, IQ3_XXS, 98, 0.5f, SIGN_BITS)                                                       \
    X(iq3_s, IQ3_S, 110, 1.0f, SIGN_BITS)

#endif
