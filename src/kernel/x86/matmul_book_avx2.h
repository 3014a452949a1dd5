/* The formats with code books (IQ1, IQ2, IQ3) for AVX2: how 32 columns of a row are taken out of a block.
 *
 * Their rows lie in memory as on disk. A lane is a column, unlike in panels: an index names 8 or 4 neighbouring weights,
 * which a row keeps together. The books are kept as bytes, so that an entry is one load; they are made from the
 * lists of quant/code_books.h when the kernel tables are built.
 *
 * A format supplies two functions. Its head takes apart what belongs to the whole block: whole indices where the block has
 * their bits in two places, signs as bytes of 8, scales. The other gives the weights of a group of 32 columns as signed
 * bytes, without the scale.
 */
#pragma once

#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

/* Entries of 8 and of 4 columns: weights without sign as in quant_block_iq.h; IQ1: 8 times the code. */
typedef struct {
    uint64_t iq2_xxs[256], iq2_xs[512], iq2_s[1024], iq1[2048];
    uint32_t iq3_xxs[256 + 3], iq3_s[512 + 3]; /* an entry is read as 16 bytes */
} book_tables;

/* Of one block. */
typedef struct {
    __m256i scale; /* bytes: byte k of the first lane for the first 16 columns of group k, of the
                      second lane for the others */
    __m256i
        sign; /* a bit per column; IQ1_S: bytes 1 or -1, one per group; IQ1_M: one per index    */
    __m256i index[4]; /* u16, see index_at                                                       */
} book_head;

typedef uint16_t book_head_fn(book_head *, const uint8_t *); /* returns the half d */
/* Group k of the block at p. */
typedef __m256i book_group_fn(const book_tables *, const book_head *, const uint8_t *p, int k);

/* ---- bits -------------------------------------------------------------------------------- */

/* Bytes 0 to 3 of every lane, each to 8 bytes: the first two in the first lane. */
static FM_ALWAYS_INLINE __m256i spread_8(__m256i v)
{
    const __m256i from =
        _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    return _mm256_shuffle_epi8(v, from);
}

/* Bit c in byte c of 8. */
static FM_ALWAYS_INLINE __m256i bit_of_8(void)
{
    return _mm256_set1_epi64x((long long)0x8040201008040201u);
}

/* The weights of group k, negative where the column's bit is set. */
static FM_ALWAYS_INLINE __m256i with_signs(__m256i w, const book_head *h, int k)
{
    const __m256i v = spread_8(repeat_32((const uint8_t *)&h->sign + 4 * k));
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(v, bit_of_8()), bit_of_8());
    return _mm256_sub_epi8(_mm256_xor_si256(w, set), set);
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

/* ---- indices and entries ------------------------------------------------------------------ */

/* 32 indices from low and high bytes. */
static FM_ALWAYS_INLINE void put_indices(__m256i index[2], __m256i low, __m256i high)
{
    index[0] = _mm256_unpacklo_epi8(low, high);
    index[1] = _mm256_unpackhi_epi8(low, high);
}

/* Index i of those that put_indices put. */
static FM_ALWAYS_INLINE size_t index_at(const book_head *h, int i)
{
    const int place = (i & ~31) | (i >> 3 & 1) << 4 | (i >> 4 & 1) << 3 | (i & 7);
    return fm_quant_le16((const uint8_t *)h->index + 2 * place);
}

static FM_ALWAYS_INLINE __m256i joined(__m128i low, __m128i high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

/* vmovhps and vpunpckldq take one load each, which vpinsrq and vpinsrd do not. */
static FM_ALWAYS_INLINE __m128i two_of_8(const uint64_t *book, size_t a, size_t b)
{
    const __m128 low = _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(book + a)));
    return _mm_castps_si128(_mm_loadh_pi(low, (const __m64 *)(book + b)));
}

/* Reads 12 bytes behind an entry. Not _mm_loadu_si32, which GCC has, and right, since 11.3. */
static FM_ALWAYS_INLINE __m128i two_of_4(const uint32_t *book, size_t a, size_t b)
{
    return _mm_unpacklo_epi32(_mm_cvtsi32_si128((int)book[a]),
                              _mm_loadu_si128((const __m128i *)(book + b)));
}

static FM_ALWAYS_INLINE __m128i four_of_4(const uint32_t *book, size_t a, size_t b, size_t c,
                                          size_t d)
{
    return _mm_unpacklo_epi64(two_of_4(book, a, b), two_of_4(book, c, d));
}

static FM_ALWAYS_INLINE __m256i entries_of_8(const uint64_t *book, const book_head *h, int k)
{
    return joined(two_of_8(book, index_at(h, 4 * k), index_at(h, 4 * k + 1)),
                  two_of_8(book, index_at(h, 4 * k + 2), index_at(h, 4 * k + 3)));
}

/* ---- the formats: quant_block_iq.h describes the blocks ------------------------------------ */

static FM_ALWAYS_INLINE uint16_t head_iq2_xxs(book_head *h, const uint8_t *p)
{
    const __m256 a = _mm256_loadu_ps((const float *)(const void *)(p + 2));
    const __m256 b = _mm256_loadu_ps((const float *)(const void *)(p + 34));
    const __m256i odd = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
    signs_and_scale(h, _mm256_permute4x64_epi64(odd, 0xd8));
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE __m256i group_iq2_xxs(const book_tables *t, const book_head *h,
                                              const uint8_t *p, int k)
{
    const uint8_t *const q = p + 2 + 8 * k;
    return with_signs(joined(two_of_8(t->iq2_xxs, q[0], q[1]), two_of_8(t->iq2_xxs, q[2], q[3])), h,
                      k);
}

static FM_ALWAYS_INLINE uint16_t head_iq2_xs(book_head *h, const uint8_t *p)
{
    const __m256i a = load_256(p + 2), b = load_256(p + 34);
    h->sign = eighth_sign(_mm256_permute4x64_epi64(
        _mm256_packus_epi16(_mm256_srli_epi16(a, 9), _mm256_srli_epi16(b, 9)), 0xd8));
    /* Where put_indices puts them. */
    const __m256i low = _mm256_set1_epi16(511);
    h->index[0] = _mm256_and_si256(_mm256_permute2x128_si256(a, b, 0x20), low);
    h->index[1] = _mm256_and_si256(_mm256_permute2x128_si256(a, b, 0x31), low);
    h->scale = scale_nibbles(p + 66);
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE __m256i group_iq2_xs(const book_tables *t, const book_head *h,
                                             const uint8_t *p FM_UNUSED, int k)
{
    return with_signs(entries_of_8(t->iq2_xs, h, k), h, k);
}

static FM_ALWAYS_INLINE uint16_t head_iq2_s(book_head *h, const uint8_t *p)
{
    /* Byte i / 4 of qh to place i, then its bit pair i % 4. */
    const __m256i from = _mm256_set_epi64x(0x0707070706060606, 0x0505050504040404,
                                           0x0303030302020202, 0x0101010100000000);
    const __m128i qh = _mm_loadl_epi64((const __m128i *)(p + 66));
    __m256i v = _mm256_shuffle_epi8(_mm256_broadcastq_epi64(qh), from);
    v = _mm256_blend_epi16(v, _mm256_srli_epi16(v, 4), 0xaa);
    v = _mm256_blendv_epi8(v, _mm256_srli_epi16(v, 2), _mm256_set1_epi16((int16_t)0xff00));
    put_indices(h->index, load_256(p + 2), _mm256_and_si256(v, _mm256_set1_epi8(3)));
    h->sign = load_256(p + 34);
    h->scale = scale_nibbles(p + 74);
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE __m256i group_iq2_s(const book_tables *t, const book_head *h,
                                            const uint8_t *p FM_UNUSED, int k)
{
    return with_signs(entries_of_8(t->iq2_s, h, k), h, k);
}

static FM_ALWAYS_INLINE uint16_t head_iq3_xxs(book_head *h, const uint8_t *p)
{
    signs_and_scale(h, load_256(p + 66));
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE __m256i group_iq3_xxs(const book_tables *t, const book_head *h,
                                              const uint8_t *p, int k)
{
    const uint8_t *const q = p + 2 + 8 * k;
    return with_signs(joined(four_of_4(t->iq3_xxs, q[0], q[1], q[2], q[3]),
                             four_of_4(t->iq3_xxs, q[4], q[5], q[6], q[7])),
                      h, k);
}

static FM_ALWAYS_INLINE uint16_t head_iq3_s(book_head *h, const uint8_t *p)
{
    FM_UNROLL
    for (int i = 0; i < 2; i++) {
        const __m256i v = _mm256_and_si256(spread_8(repeat_32(p + 66 + 4 * i)), bit_of_8());
        put_indices(h->index + 2 * i, load_256(p + 2 + 32 * i),
                    _mm256_min_epu8(v, _mm256_set1_epi8(1)));
    }
    h->sign = load_256(p + 74);
    h->scale = scale_32(
        _mm256_castsi256_si128(nibbles_in_order(_mm256_castsi256_si128(repeat_32(p + 106)))));
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE __m256i group_iq3_s(const book_tables *t, const book_head *h,
                                            const uint8_t *p FM_UNUSED, int k)
{
    const int i = 8 * k;
    return with_signs(joined(four_of_4(t->iq3_s, index_at(h, i), index_at(h, i + 1),
                                       index_at(h, i + 2), index_at(h, i + 3)),
                             four_of_4(t->iq3_s, index_at(h, i + 4), index_at(h, i + 5),
                                       index_at(h, i + 6), index_at(h, i + 7))),
                      h, k);
}

static FM_ALWAYS_INLINE uint16_t head_iq1_s(book_head *h, const uint8_t *p)
{
    const __m128i qh = _mm_loadu_si128((const __m128i *)(p + 34));
    /* Word k to the places of its four indices; of each, bits 3 j to 3 j + 2. */
    const __m256i twice = _mm256_slli_epi16(_mm256_broadcastsi128_si256(qh), 1);
    const __m256i from = _mm256_set_epi64x(0x0706070607060706, 0x0504050405040504,
                                           0x0302030203020302, 0x0100010001000100);
    const __m256i right = _mm256_set1_epi64x(0x0040020010008000 /* by 1, 4, 7, 10 */);
    const __m256i seven = _mm256_set1_epi16(7);
    const __m256i a =
        _mm256_and_si256(_mm256_mulhi_epu16(_mm256_shuffle_epi8(twice, from), right), seven);
    const __m256i b = _mm256_and_si256(
        _mm256_mulhi_epu16(_mm256_shuffle_epi8(twice, _mm256_add_epi8(from, _mm256_set1_epi8(8))),
                           right),
        seven);
    put_indices(h->index, load_256(p + 2),
                _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xd8));
    const __m128i scale = _mm_and_si128(_mm_srli_epi16(qh, 12), _mm_set1_epi16(7));
    const __m128i delta = _mm_or_si128(_mm_srai_epi16(qh, 15), _mm_set1_epi16(1));
    h->scale = scale_32(_mm_packus_epi16(scale, scale));
    h->sign = _mm256_broadcastsi128_si256(_mm_packs_epi16(delta, delta));
    return fm_quant_le16(p);
}

static FM_ALWAYS_INLINE __m256i group_iq1_s(const book_tables *t, const book_head *h,
                                            const uint8_t *p FM_UNUSED, int k)
{
    return _mm256_add_epi8(entries_of_8(t->iq1, h, k),
                           _mm256_shuffle_epi8(h->sign, _mm256_set1_epi8((char)k)));
}

static FM_ALWAYS_INLINE uint16_t head_iq1_m(book_head *h, const uint8_t *p)
{
    const __m256i nibble = nibbles_in_order(_mm_loadu_si128((const __m128i *)(p + 32)));
    put_indices(h->index, load_256(p), _mm256_and_si256(nibble, _mm256_set1_epi8(7)));
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

static FM_ALWAYS_INLINE __m256i group_iq1_m(const book_tables *t, const book_head *h,
                                            const uint8_t *p FM_UNUSED, int k)
{
    return _mm256_add_epi8(entries_of_8(t->iq1, h, k),
                           spread_8(repeat_32((const uint8_t *)&h->sign + 4 * k)));
}

#endif
