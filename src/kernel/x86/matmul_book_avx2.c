/* Products with the formats of code books for AVX2: a vector is a group of 32 columns, 4 rows meet 2 tokens. An entry is one
 * load.
 */
#include "kernel/x86/matmul_book.h"
#include "kernel/book_entries.h"
#include "kernel/kernel_internal.h"

#if defined(__x86_64__)

enum { N_VECTOR = 8, TILE_ROWS = 4, TILE_TOKENS = 2 };

typedef struct {
    __m256i w[N_VECTOR][2];
} words;

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

/* ---- parts of matmul_book.inc -------------------------------------------------------------- */

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
        s[0] = settled(_mm256_add_epi32(s[0], _mm256_madd_epi16(q[0], x->w[k][0])));
        s[1] = settled(_mm256_add_epi32(s[1], _mm256_madd_epi16(q[1], x->w[k][1])));
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
                sum[r] = settled(_mm256_add_epi32(sum[r], _mm256_madd_epi16(q, v0)));
                sum[4 + r] = settled(_mm256_add_epi32(sum[4 + r], _mm256_madd_epi16(q, v1)));
            }
        }
    }
    const __m256 scale = _mm256_mul_ps(_mm256_set_m128(d, d),
                                       _mm256_set_m128(_mm_set1_ps(dx[1]), _mm_set1_ps(dx[0])));
    const __m256 term = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(add_lanes_of_8(sum)));
    _mm256_store_ps(acc, _mm256_add_ps(_mm256_load_ps(acc), term));
}

#define ONE_TOKEN_FORMATS(X)                                                                       \
    FM_BOOK_FORMATS_IQ1(X)                                                                         \
    FM_BOOK_FORMATS_IQ23(X)
#include "kernel/x86/matmul_book.inc"

bool fm_matmul_book_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok)
{
    return matmul_book(w, row0, row1, act, y, n_tok);
}

#endif
