/* Products with the formats of code books for AVX2: a vector is a group of 32 columns, 4 rows meet 2 tokens. An entry is one
 * load. Rows lie in memory as on disk; a lane is a column, since an index names 8 or 4 neighbouring weights of a row.
 *
 * Words have their scale in them: vpmaddubsw makes them, an unsigned scale beside 0 takes one of two signed bytes.
 * Activations are words too, put together from their planes once per call. One token multiplies the words at once; for
 * several tokens they are kept.
 *
 * Ranges: a weight times its scale is at most 31 * 43 (IQ2) and fits a word; two of their products with 13 bits, and all
 * sums, fit 32 bits, see quant.h.
 */
#include "kernel/book_entries.h"
#include "kernel/kernel_internal.h"
#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

enum {
    N_VECTOR = 8,    /* vectors of columns in a block                           */
    TILE_ROWS = 4,   /* rows that meet TILE_TOKENS tokens in registers          */
    TILE_TOKENS = 2,
    MAX_TOK = 16,    /* tokens for which a block is taken apart once            */
    MAX_BLOCKS = 64, /* blocks of activations that are kept as words at a time  */
    ONE_BLOCKS = 8,  /* blocks of a row whose sums are added up together        */
    AHEAD_BYTES = 1024
};

/* 256 columns as words: of those of a vector the ones with even numbers, then those with odd ones. */
typedef struct {
    __m256i w[N_VECTOR][2];
} words;

/* ---- what belongs to a whole block: scales, and signs or what else is added to entries -------- */

/* Of one block. */
typedef struct {
    /* Bytes: byte k of the first lane for the first 16 columns of group k (of 32), of the second lane for the others. */
    __m256i scale;
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
    const __m128i word =
        _mm_packus_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    h->sign = eighth_sign(sign);
    h->scale = scale_32(_mm_packus_epi16(word, word));
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
    const __m128i word = _mm_loadl_epi64((const __m128i *)(p + 48));
    const __m256i twice =
        _mm256_broadcastsi128_si256(_mm_slli_epi16(_mm_unpacklo_epi16(word, word), 1));
    const __m256i right = joined(_mm_set1_epi32(0x02008000), _mm_set1_epi32(0x00401000));
    const __m256i s = _mm256_and_si256(_mm256_mulhi_epu16(twice, right), _mm256_set1_epi16(7));
    h->scale = odd_scale(_mm256_packus_epi16(s, s));
    return (uint16_t)(p[49] >> 4 | (p[51] & 0xf0) | (uint32_t)(p[53] & 0xf0) << 4 |
                      (uint32_t)(p[55] & 0xf0) << 8);
}

/* ---- the formats: type, bytes of a block, factor of d (quant_block_iq.h), sign ------------- */

#define FM_BOOK_FORMATS(X)                                                                         \
    X(iq1_s, IQ1_S, 50, 0.125f, DELTA_OF_GROUP)                                                    \
    X(iq1_m, IQ1_M, 56, 0.125f, DELTA_OF_INDEX)                                                    \
    X(iq2_xxs, IQ2_XXS, 66, 0.125f, SIGN_BITS)                                                     \
    X(iq2_xs, IQ2_XS, 74, 0.125f, SIGN_BITS)                                                       \
    X(iq2_s, IQ2_S, 82, 0.125f, SIGN_BITS)                                                         \
    X(iq3_xxs, IQ3_XXS, 98, 0.5f, SIGN_BITS)                                                       \
    X(iq3_s, IQ3_S, 110, 1.0f, SIGN_BITS)

/* What a block is taken apart into. */
typedef struct {
    book_head head;
    __m256i index[4]; /* u16, see index_at; not where a block has them as bytes */
} book_taken;

static void activation_words(words *dst, const fm_act_i13_256 *x)
{
    FM_UNROLL
    for (int k = 0; k < 8; k++) {
        const __m256i hi = load_256(x->hi + 32 * k), lo = load_256(x->lo + 32 * k);
        const __m256i hi_even = _mm256_srai_epi16(_mm256_slli_epi16(hi, 8), 8 - FM_ACT_256_SHIFT);
        const __m256i hi_odd = _mm256_slli_epi16(_mm256_srai_epi16(hi, 8), FM_ACT_256_SHIFT);
        const __m256i lo_even = _mm256_srai_epi16(_mm256_slli_epi16(lo, 8), 8);
        dst->w[k][0] = _mm256_add_epi16(hi_even, lo_even);
        dst->w[k][1] = _mm256_add_epi16(hi_odd, _mm256_srai_epi16(lo, 8));
    }
}

/* ---- indices and entries ------------------------------------------------------------------ */

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

/* 32 indices from low and high bytes. */
static FM_ALWAYS_INLINE void put_indices(__m256i index[2], __m256i low, __m256i high)
{
    index[0] = _mm256_unpacklo_epi8(low, high);
    index[1] = _mm256_unpackhi_epi8(low, high);
}

/* Index i of those that put_indices put. */
static FM_ALWAYS_INLINE size_t index_at(const book_taken *h, int i)
{
    const int place = (i & ~31) | (i >> 3 & 1) << 4 | (i >> 4 & 1) << 3 | (i & 7);
    return fm_quant_le16((const uint8_t *)h->index + 2 * place);
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

static FM_ALWAYS_INLINE __m256i entries_of_8(const uint64_t *book, const book_taken *h, int k)
{
    return joined(two_of_8(book, index_at(h, 4 * k), index_at(h, 4 * k + 1)),
                  two_of_8(book, index_at(h, 4 * k + 2), index_at(h, 4 * k + 3)));
}

/* Two functions for each format: take_<type>() puts the indices of the block at p, use_<type>() gives the entries of group k. */
typedef void take_fn(book_taken *h, const uint8_t *p);
typedef __m256i use_fn(const book_taken *h, const uint8_t *p, int k);

static FM_ALWAYS_INLINE void take_bytes(book_taken *h, const uint8_t *p)
{
    (void)h, (void)p;
}
#define take_iq2_xxs take_bytes
#define take_iq3_xxs take_bytes

static FM_ALWAYS_INLINE __m256i use_iq2_xxs(const book_taken *h, const uint8_t *p, int k)
{
    (void)h;
    const uint8_t *const q = p + 2 + 8 * k;
    return joined(two_of_8(fm_book_entries.iq2_xxs, q[0], q[1]),
                  two_of_8(fm_book_entries.iq2_xxs, q[2], q[3]));
}

static FM_ALWAYS_INLINE void take_iq2_xs(book_taken *h, const uint8_t *p)
{
    /* Where put_indices puts them. */
    const __m256i a = load_256(p + 2), b = load_256(p + 34), low = _mm256_set1_epi16(511);
    h->index[0] = _mm256_and_si256(_mm256_permute2x128_si256(a, b, 0x20), low);
    h->index[1] = _mm256_and_si256(_mm256_permute2x128_si256(a, b, 0x31), low);
}

static FM_ALWAYS_INLINE __m256i use_iq2_xs(const book_taken *h, const uint8_t *p, int k)
{
    (void)p;
    return entries_of_8(fm_book_entries.iq2_xs, h, k);
}

static FM_ALWAYS_INLINE void take_iq2_s(book_taken *h, const uint8_t *p)
{
    /* Byte i / 4 of qh to place i, then its bit pair i % 4. */
    const __m256i from = _mm256_set_epi64x(0x0707070706060606, 0x0505050504040404,
                                           0x0303030302020202, 0x0101010100000000);
    const __m128i qh = _mm_loadl_epi64((const __m128i *)(p + 66));
    __m256i v = _mm256_shuffle_epi8(_mm256_broadcastq_epi64(qh), from);
    v = _mm256_blend_epi16(v, _mm256_srli_epi16(v, 4), 0xaa);
    v = _mm256_blendv_epi8(v, _mm256_srli_epi16(v, 2), _mm256_set1_epi16((int16_t)0xff00));
    put_indices(h->index, load_256(p + 2), _mm256_and_si256(v, _mm256_set1_epi8(3)));
}

static FM_ALWAYS_INLINE __m256i use_iq2_s(const book_taken *h, const uint8_t *p, int k)
{
    (void)p;
    return entries_of_8(fm_book_entries.iq2_s, h, k);
}

static FM_ALWAYS_INLINE __m256i use_iq3_xxs(const book_taken *h, const uint8_t *p, int k)
{
    (void)h;
    const uint8_t *const q = p + 2 + 8 * k;
    return joined(four_of_4(fm_book_entries.iq3_xxs, q[0], q[1], q[2], q[3]),
                  four_of_4(fm_book_entries.iq3_xxs, q[4], q[5], q[6], q[7]));
}

static FM_ALWAYS_INLINE void take_iq3_s(book_taken *h, const uint8_t *p)
{
    FM_UNROLL
    for (int i = 0; i < 2; i++) {
        const __m256i v = _mm256_and_si256(spread_8(repeat_32(p + 66 + 4 * i)), bit_of_8());
        put_indices(h->index + 2 * i, load_256(p + 2 + 32 * i),
                    _mm256_min_epu8(v, _mm256_set1_epi8(1)));
    }
}

static FM_ALWAYS_INLINE __m256i use_iq3_s(const book_taken *h, const uint8_t *p, int k)
{
    (void)p;
    const int i = 8 * k;
    return joined(four_of_4(fm_book_entries.iq3_s, index_at(h, i), index_at(h, i + 1),
                            index_at(h, i + 2), index_at(h, i + 3)),
                  four_of_4(fm_book_entries.iq3_s, index_at(h, i + 4), index_at(h, i + 5),
                            index_at(h, i + 6), index_at(h, i + 7)));
}

static FM_ALWAYS_INLINE void take_iq1_s(book_taken *h, const uint8_t *p)
{
    /* Word k to the places of its four indices; of each, bits 3 j to 3 j + 2. */
    const __m128i qh = _mm_loadu_si128((const __m128i *)(p + 34));
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
}

static FM_ALWAYS_INLINE __m256i use_iq1_s(const book_taken *h, const uint8_t *p, int k)
{
    (void)p;
    return entries_of_8(fm_book_entries.iq1, h, k);
}
#define use_iq1_m use_iq1_s

static FM_ALWAYS_INLINE void take_iq1_m(book_taken *h, const uint8_t *p)
{
    const __m256i nibble = nibbles_in_order(_mm_loadu_si128((const __m128i *)(p + 32)));
    put_indices(h->index, load_256(p), _mm256_and_si256(nibble, _mm256_set1_epi8(7)));
}

/* ---- blocks ------------------------------------------------------------------------------- */

static FM_ALWAYS_INLINE void take_blocks(book_taken *h, uint16_t *half, const uint8_t *const *block,
                                         int n, book_head_fn *head, take_fn *take)
{
    for (int i = 0; i < n; i++) {
        half[i] = head(&h[i].head, block[i]);
        take(&h[i], block[i]);
    }
}

/* The weights of group k, negative where the column's bit is set. */
static FM_ALWAYS_INLINE __m256i with_signs(__m256i w, const book_head *h, int k)
{
    const __m256i v = spread_8(repeat_32((const uint8_t *)&h->sign + 4 * k));
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(v, bit_of_8()), bit_of_8());
    return _mm256_sub_epi8(_mm256_xor_si256(w, set), set);
}

static FM_ALWAYS_INLINE void weight_words(__m256i w[2], const book_taken *h, const uint8_t *block,
                                          int k, const book_sign sign, use_fn *use)
{
    __m256i q = use(h, block, k);
    if (sign == SIGN_BITS)
        q = with_signs(q, &h->head, k);
    else if (sign == DELTA_OF_GROUP)
        q = _mm256_add_epi8(q, _mm256_shuffle_epi8(h->head.sign, _mm256_set1_epi8((char)k)));
    else
        q = _mm256_add_epi8(q, spread_8(repeat_32((const uint8_t *)&h->head.sign + 4 * k)));
    const __m256i take = _mm256_set1_epi16((int16_t)(0x8000 | k));
    const __m256i scale = _mm256_shuffle_epi8(h->head.scale, take);
    w[0] = _mm256_maddubs_epi16(scale, q);
    w[1] = _mm256_maddubs_epi16(_mm256_slli_epi16(scale, 8), q);
}

static FM_ALWAYS_INLINE __m256i dot_block(const book_taken *h, const uint8_t *block, const words *x,
                                          const book_sign sign, use_fn *use)
{
    __m256i s[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    FM_UNROLL
    for (int k = 0; k < N_VECTOR; k++) {
        __m256i q[2];
        weight_words(q, h, block, k, sign, use);
        s[0] = add_words(s[0], q[0], x->w[k][0]);
        s[1] = add_words(s[1], q[1], x->w[k][1]);
    }
    return _mm256_add_epi32(s[0], s[1]);
}

static void tile(float *acc, const words *w, const words *const *x, __m128 d, const float *dx)
{
    __m256i sum[TILE_TOKENS * TILE_ROWS];
    FM_UNROLL
    for (int i = 0; i < TILE_TOKENS * TILE_ROWS; i++) sum[i] = _mm256_setzero_si256();
    for (int k = 0; k < N_VECTOR; k++) {
        FM_UNROLL
        for (int odd = 0; odd < 2; odd++) {
            const __m256i v0 = x[0]->w[k][odd], v1 = x[1]->w[k][odd];
            FM_UNROLL
            for (int r = 0; r < TILE_ROWS; r++) {
                const __m256i q = w[r].w[k][odd];
                sum[r] = add_words(sum[r], q, v0);
                sum[4 + r] = add_words(sum[4 + r], q, v1);
            }
        }
    }
    const __m256 scale = _mm256_mul_ps(_mm256_set_m128(d, d),
                                       _mm256_set_m128(_mm_set1_ps(dx[1]), _mm_set1_ps(dx[0])));
    const __m256 term = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(add_lanes_of_8(sum)));
    _mm256_store_ps(acc, _mm256_add_ps(_mm256_load_ps(acc), term));
}

/* What a format supplies: for one token, and for several. */
typedef void one_fn(const fm_matrix *w, int64_t row0, int64_t row1, int64_t b0, int64_t b1,
                    const words *x, const float *dx, float *y);
typedef struct {
    one_fn *one;
    /* TILE_ROWS blocks and their halves d; asks for those that lie `ahead` bytes behind them. */
    void (*unpack)(words *dst, uint16_t *half, const uint8_t *const *block, size_t ahead);
    float factor; /* of d: quant_block_iq.h */
} format_book;

/* ---- one token ----------------------------------------------------------------------------- */

/* Blocks [b0, b1) of rows [row0, row1), whose activations are x and dx; added to y unless b0 is 0. */
static FM_ALWAYS_INLINE void one_token(const fm_matrix *w, int64_t row0, int64_t row1, int64_t b0,
                                       int64_t b1, const words *x, const float *dx, float *y,
                                       const int block_bytes, const float factor,
                                       const book_sign sign, book_head_fn *head, take_fn *take,
                                       use_fn *use)
{
    for (int64_t row = row0; row < row1; row++) {
        const uint8_t *p = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes +
                           (uint64_t)b0 * (uint64_t)block_bytes;
        float acc = b0 == 0 ? 0.0f : y[row];
        for (int64_t b = 0; b < b1 - b0; b += ONE_BLOCKS) {
            const int n = b1 - b0 - b < ONE_BLOCKS ? (int)(b1 - b0 - b) : ONE_BLOCKS;
            uint16_t half[ONE_BLOCKS] = {0};
            __m256i sum[ONE_BLOCKS];
            float term[ONE_BLOCKS];
            const uint8_t *block[ONE_BLOCKS];
            book_taken h[ONE_BLOCKS];
            for (int i = 0; i < n; i++, p += block_bytes) {
                _mm_prefetch((const char *)p + AHEAD_BYTES, _MM_HINT_T0);
                block[i] = p;
            }
            /* First: these chains of operations are long, and groups that wait for them would fill the processor's
             * queues. */
            take_blocks(h, half, block, n, head, take);
            fm_in_memory(h);
            for (int i = n; i < ONE_BLOCKS; i++) sum[i] = _mm256_setzero_si256();
            for (int i = 0; i < n; i++) sum[i] = dot_block(&h[i], block[i], x + b + i, sign, use);
            const __m256 d = _mm256_mul_ps(_mm256_set1_ps(factor), load_half((uint8_t *)half));
            const __m256 total = _mm256_cvtepi32_ps(add_lanes_of_8(sum));
            _mm256_storeu_ps(term, _mm256_mul_ps(_mm256_mul_ps(d, _mm256_loadu_ps(dx + b)), total));
            for (int i = 0; i < n; i++) acc = acc + term[i];
        }
        y[row] = acc;
    }
}

static void one_token_rows(const fm_matrix *w, int64_t row0, int64_t row1, const void *act,
                           float *y, one_fn *one)
{
    const int64_t n_block = w->n_in / 256;
    words x[MAX_BLOCKS];
    float dx[MAX_BLOCKS] = {0};
    for (int64_t b0 = 0; b0 < n_block; b0 += MAX_BLOCKS) {
        const int64_t b1 = b0 + MAX_BLOCKS < n_block ? b0 + MAX_BLOCKS : n_block;
        for (int64_t b = b0; b < b1; b++) {
            const fm_act_i13_256 *const a = (const fm_act_i13_256 *)act + b;
            activation_words(&x[b - b0], a);
            dx[b - b0] = a->d;
        }
        one(w, row0, row1, b0, b1, x, dx, y);
    }
}

/* ---- several tokens ------------------------------------------------------------------------ */

static FM_ALWAYS_INLINE void unpack_blocks(words *dst, uint16_t *half, const uint8_t *const *block,
                                           size_t ahead, const int block_bytes,
                                           const book_sign sign, book_head_fn *head, take_fn *take,
                                           use_fn *use)
{
    book_taken h[TILE_ROWS];
    for (int r = 0; r < TILE_ROWS; r++) {
        FM_UNROLL
        for (int i = 0; i < block_bytes; i += 64)
            _mm_prefetch((const char *)block[r] + ahead + i, _MM_HINT_T0);
    }
    take_blocks(h, half, block, TILE_ROWS, head, take);
    fm_in_memory(h);
    for (int r = 0; r < TILE_ROWS; r++) {
        FM_UNROLL
        for (int k = 0; k < N_VECTOR; k++) weight_words(dst[r].w[k], &h[r], block[r], k, sign, use);
    }
}

/* Rows for up to MAX_TOK tokens. As many columns at a time as there is room for their activations;
 * between them the sums wait in y. */
static void few_tokens(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t nt, const void *format)
{
    const format_book *const f = format;
    const int64_t n_block = w->n_in / 256, step = MAX_BLOCKS / nt;
    const size_t bytes = w->type->block_bytes;
    words x[MAX_BLOCKS], taken[TILE_ROWS];
    float dx[MAX_BLOCKS];
    for (int64_t b0 = 0; b0 < n_block; b0 += step) {
        const int64_t b1 = b0 + step < n_block ? b0 + step : n_block;
        for (int64_t b = b0; b < b1; b++) {
            for (int64_t t = 0; t < nt; t++) {
                const fm_act_i13_256 *const a = (const fm_act_i13_256 *)act[t] + b;
                activation_words(&x[(b - b0) * nt + t], a);
                dx[(b - b0) * nt + t] = a->d;
            }
        }
        for (int64_t row = row0; row < row1; row += TILE_ROWS) {
            const int n = row1 - row < TILE_ROWS ? (int)(row1 - row) : TILE_ROWS;
            _Alignas(64) float acc[MAX_TOK][TILE_ROWS] = {{0}};
            for (int64_t t = 0; t < nt && b0 > 0; t++)
                memcpy(acc[t], y[t] + row, (size_t)n * sizeof(float));
            for (int64_t b = b0; b < b1; b++) {
                const uint8_t *block[TILE_ROWS];
                uint16_t half[TILE_ROWS];
                for (int r = 0; r < TILE_ROWS; r++)
                    block[r] = (const uint8_t *)w->data +
                               (uint64_t)(row + (r < n ? r : 0)) * w->row_bytes +
                               (uint64_t)b * bytes;
                f->unpack(taken, half, block, TILE_ROWS * w->row_bytes);
                const __m128 d = _mm_mul_ps(_mm_set1_ps(f->factor),
                                            _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)half)));
                for (int64_t t = 0; t < nt; t += TILE_TOKENS) {
                    /* Behind the last token it is the same one again. */
                    const words *xt[TILE_TOKENS];
                    float dt[TILE_TOKENS];
                    for (int64_t i = 0; i < TILE_TOKENS; i++) {
                        const int64_t at = (b - b0) * nt + (t + i < nt ? t + i : nt - 1);
                        xt[i] = &x[at];
                        dt[i] = dx[at];
                    }
                    tile(acc[t], taken, xt, d, dt);
                }
            }
            for (int64_t t = 0; t < nt; t++) memcpy(y[t] + row, acc[t], (size_t)n * sizeof(float));
        }
    }
}

/* ---- the formats --------------------------------------------------------------------------- */

#define KERNELS(type, name, block_bytes, factor, sign)                                             \
    static void one_##type(const fm_matrix *w, int64_t row0, int64_t row1, int64_t b0, int64_t b1, \
                           const words *x, const float *dx, float *y)                              \
    {                                                                                              \
        one_token(w, row0, row1, b0, b1, x, dx, y, block_bytes, factor, sign, head_##type,         \
                  take_##type, use_##type);                                                        \
    }                                                                                              \
    static void unpack_##type(words *dst, uint16_t *half, const uint8_t *const *block,             \
                              size_t ahead)                                                        \
    {                                                                                              \
        unpack_blocks(dst, half, block, ahead, block_bytes, sign, head_##type, take_##type,        \
                      use_##type);                                                                 \
    }
FM_BOOK_FORMATS(KERNELS)

/* By type id. */
#define ENTRY(type, name, block_bytes, factor, sign)                                               \
    [FM_TYPE_##name] = {one_##type, unpack_##type, factor},
static const format_book formats[FM_KERNEL_TYPES] = {FM_BOOK_FORMATS(ENTRY)};

void FM_SET(fm_matmul_book)(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                            float *const *y, int64_t n_tok)
{
    const format_book *const f = &formats[w->type->id];
    const int64_t panel_rows = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_rows ? row1 : panel_rows;
    if (row0 < split) {
        fm_rows_kernels[w->type->id](w, row0, split, act, y, n_tok);
        row0 = split;
    }
    if (row0 >= row1) return;
    if (n_tok == 1)
        one_token_rows(w, row0, row1, act[0], y[0], f->one);
    else
        fm_matmul_by_stretch(w, row0, row1, act, y, n_tok, MAX_TOK, few_tokens, f);
}

#endif
