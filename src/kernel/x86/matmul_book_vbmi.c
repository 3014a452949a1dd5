/* Products with the formats of code books for AVX-512 with VNNI and VBMI: a vector is two groups of 32 columns, 4 rows meet
 * 4 tokens.
 *
 * vpermi2b looks 64 indices up among 128 bytes at once, so books are kept as the codes of quant/code_books.h, low and high
 * bytes apart: 0.5 to 4 KB, and no load for each index. A pair of such bytes is an entry: vpmultishiftqb spreads its
 * codes to bytes, vpermb makes them weights. 64 indices are two blocks of entries of 8 columns, or one with entries of 4.
 * Signs are masks.
 */
#include "kernel/x86/matmul_book.h"
#include "kernel/kernel_internal.h"

#if defined(__x86_64__)

enum { N_VECTOR = 4, TILE_ROWS = 4, TILE_TOKENS = 4 };

typedef struct {
    __m512i w[N_VECTOR][2];
} words;

/* What a block is taken apart into. */
typedef struct {
    book_head head;
    __m512i entry[2]; /* u16, in the order of the columns; of 8 columns: only the first 32 */
} book_taken;

/* Low bytes of entries, then high ones. */
static struct {
    _Alignas(64) uint8_t iq2_xxs[2][256], iq3_xxs[2][256], iq2_xs[2][512], iq3_s[2][512];
    uint8_t iq2_s[2][1024], iq1[2][2048];
} books;

static void split(uint8_t *low, uint8_t *high, const uint16_t *book, int n)
{
    for (int i = 0; i < n; i++) {
        low[i] = (uint8_t)book[i];
        high[i] = (uint8_t)(book[i] >> 8);
    }
}

void fm_matmul_book_init_vbmi(void)
{
    split(books.iq2_xxs[0], books.iq2_xxs[1], fm_book_iq2_xxs, 256);
    split(books.iq3_xxs[0], books.iq3_xxs[1], fm_book_iq3_xxs, 256);
    split(books.iq2_xs[0], books.iq2_xs[1], fm_book_iq2_xs, 512);
    split(books.iq3_s[0], books.iq3_s[1], fm_book_iq3_s, 512);
    split(books.iq2_s[0], books.iq2_s[1], fm_book_iq2_s, 1024);
    split(books.iq1[0], books.iq1[1], fm_book_iq1, 2048);
}

static void activation_words(words *dst, const fm_act_i13_256 *x)
{
    FM_UNROLL
    for (int k = 0; k < N_VECTOR; k++) {
        const __m512i hi = _mm512_loadu_si512(x->hi + 64 * k);
        const __m512i lo = _mm512_loadu_si512(x->lo + 64 * k);
        const __m512i hi_even = _mm512_srai_epi16(_mm512_slli_epi16(hi, 8), 8 - FM_ACT_256_SHIFT);
        const __m512i hi_odd = _mm512_slli_epi16(_mm512_srai_epi16(hi, 8), FM_ACT_256_SHIFT);
        const __m512i lo_even = _mm512_srai_epi16(_mm512_slli_epi16(lo, 8), 8);
        dst->w[k][0] = _mm512_add_epi16(hi_even, lo_even);
        dst->w[k][1] = _mm512_add_epi16(hi_odd, _mm512_srai_epi16(lo, 8));
    }
}

/* ---- indices ------------------------------------------------------------------------------- */

/* Bytes of a book of 128, 256 ... 2048 by 64 indices: their low 8 bits, and masks of bits 8, 9 and 10. */
static FM_ALWAYS_INLINE __m512i look_up(const uint8_t *book, const int n, __m512i index,
                                        const __mmask64 *bit)
{
    __m512i v[16];
    FM_UNROLL
    for (int i = 0; i < n / 128; i++)
        v[i] = _mm512_permutex2var_epi8(_mm512_load_si512(book + 128 * i), index,
                                        _mm512_load_si512(book + 128 * i + 64));
    FM_UNROLL
    for (int m = n / 256, k = 7; m > 0; m /= 2, k++) {
        const __mmask64 set = k == 7 ? _mm512_movepi8_mask(index) : bit[k - 8];
        FM_UNROLL
        for (int i = 0; i < m; i++) v[i] = _mm512_mask_blend_epi8(set, v[2 * i], v[2 * i + 1]);
    }
    return v[0];
}

/* Entries of indices 0 to 31, then of 32 to 63. */
static FM_ALWAYS_INLINE void put_entries(__m512i *first, __m512i *second, const uint8_t *book,
                                         const int n, __m512i index, const __mmask64 *bit)
{
    const __m512i low = look_up(book, n, index, bit), high = look_up(book + n, n, index, bit);
    /* Bytes i and 64 + i. */
    const __m512i pair = _mm512_set_epi64(
        0x5f1f5e1e5d1d5c1c, 0x5b1b5a1a59195818, 0x5717561655155414, 0x5313521251115010,
        0x4f0f4e0e4d0d4c0c, 0x4b0b4a0a49094808, 0x4707460645054404, 0x4303420241014000);
    *first = _mm512_permutex2var_epi8(low, pair, high);
    *second = _mm512_permutex2var_epi8(low, _mm512_add_epi8(pair, _mm512_set1_epi8(32)), high);
}

static FM_ALWAYS_INLINE uint64_t load_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static FM_ALWAYS_INLINE __m512i two_of_32(__m256i first, __m256i second)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

/* Two functions for each format: take_<type>() puts the entries of the blocks at p and q, use_<type>() gives the weights,
 * without signs, of columns 64 k and more. */
typedef void take_fn(book_taken *a, book_taken *b, const uint8_t *p, const uint8_t *q);
typedef __m512i use_fn(const book_taken *h, int k);

static FM_ALWAYS_INLINE void take_iq2_xxs(book_taken *a, book_taken *b, const uint8_t *p,
                                          const uint8_t *q)
{
    /* The first dword of every 8 bytes. */
    const __m256i i = _mm512_cvtepi64_epi32(_mm512_loadu_si512(p + 2));
    const __m256i j = _mm512_cvtepi64_epi32(_mm512_loadu_si512(q + 2));
    put_entries(&a->entry[0], &b->entry[0], books.iq2_xxs[0], 256, two_of_32(i, j), NULL);
}

static FM_ALWAYS_INLINE void take_iq2_xs(book_taken *a, book_taken *b, const uint8_t *p,
                                         const uint8_t *q)
{
    const __m512i i = _mm512_loadu_si512(p + 2), j = _mm512_loadu_si512(q + 2);
    const __m512i ninth = _mm512_set1_epi16(256);
    const __mmask64 bit[] = {_mm512_test_epi16_mask(i, ninth) |
                             (__mmask64)_mm512_test_epi16_mask(j, ninth) << 32};
    put_entries(&a->entry[0], &b->entry[0], books.iq2_xs[0], 512,
                two_of_32(_mm512_cvtepi16_epi8(i), _mm512_cvtepi16_epi8(j)), bit);
}

static FM_ALWAYS_INLINE void take_iq2_s(book_taken *a, book_taken *b, const uint8_t *p,
                                        const uint8_t *q)
{
    __mmask64 bit[2];
    FM_UNROLL
    for (int k = 0; k < 2; k++)
        bit[k] = _pext_u64(load_u64(p + 66), 0x5555555555555555u << k) |
                 _pext_u64(load_u64(q + 66), 0x5555555555555555u << k) << 32;
    put_entries(&a->entry[0], &b->entry[0], books.iq2_s[0], 1024,
                two_of_32(load_256(p + 2), load_256(q + 2)), bit);
}

/* IQ1: 32 low bytes at qs, three high bits of each index at qh, where `of` says of 16 of them in 8 bytes. */
static FM_ALWAYS_INLINE void take_iq1(book_taken *a, book_taken *b, const uint8_t *p,
                                      const uint8_t *q, const int qs, const int qh,
                                      const uint64_t of)
{
    __mmask64 bit[3];
    FM_UNROLL
    for (int k = 0; k < 3; k++)
        bit[k] = _pext_u64(load_u64(p + qh), of << k) |
                 _pext_u64(load_u64(p + qh + 8), of << k) << 16 |
                 _pext_u64(load_u64(q + qh), of << k) << 32 |
                 _pext_u64(load_u64(q + qh + 8), of << k) << 48;
    put_entries(&a->entry[0], &b->entry[0], books.iq1[0], 2048,
                two_of_32(load_256(p + qs), load_256(q + qs)), bit);
}

static FM_ALWAYS_INLINE void take_iq1_s(book_taken *a, book_taken *b, const uint8_t *p,
                                        const uint8_t *q)
{
    take_iq1(a, b, p, q, 2, 34, 0x0249024902490249u); /* four times three bits of a word */
}

static FM_ALWAYS_INLINE void take_iq1_m(book_taken *a, book_taken *b, const uint8_t *p,
                                        const uint8_t *q)
{
    take_iq1(a, b, p, q, 0, 32, 0x1111111111111111u); /* of nibbles */
}

static FM_ALWAYS_INLINE void take_iq3_xxs(book_taken *a, book_taken *b, const uint8_t *p,
                                          const uint8_t *q)
{
    put_entries(&a->entry[0], &a->entry[1], books.iq3_xxs[0], 256, _mm512_loadu_si512(p + 2), NULL);
    put_entries(&b->entry[0], &b->entry[1], books.iq3_xxs[0], 256, _mm512_loadu_si512(q + 2), NULL);
}

static FM_ALWAYS_INLINE void take_iq3_s(book_taken *a, book_taken *b, const uint8_t *p,
                                        const uint8_t *q)
{
    const __mmask64 i = load_u64(p + 66), j = load_u64(q + 66);
    put_entries(&a->entry[0], &a->entry[1], books.iq3_s[0], 512, _mm512_loadu_si512(p + 2), &i);
    put_entries(&b->entry[0], &b->entry[1], books.iq3_s[0], 512, _mm512_loadu_si512(q + 2), &j);
}

/* ---- weights ------------------------------------------------------------------------------- */

/* Bytes of 8 places, one to a lane of 8 bytes. */
static FM_ALWAYS_INLINE __m512i of_places(const int step)
{
    const uint64_t one = 0x0706050403020100u;
    return _mm512_set1_epi64((int64_t)(one * (uint64_t)step));
}

/* Codes of 2 bits, 8 to an entry; value: by two bits. */
static FM_ALWAYS_INLINE __m512i columns_of_8(const book_taken *h, int k, const int8_t *value)
{
    /* Word 8 k + i to lane i of 8 bytes; what comes along is shifted out or not looked at. */
    const __m512i from =
        _mm512_add_epi16(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi64(8 * k));
    const __m512i entry = _mm512_permutexvar_epi16(from, h->entry[0]);
    const __m512i table = _mm512_set1_epi32((int)fm_quant_le32((const uint8_t *)value));
    return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(of_places(2), entry), table);
}

/* Codes of 3 bits in 4, 4 to an entry; value: by three bits. */
static FM_ALWAYS_INLINE __m512i columns_of_4(const book_taken *h, int k, const int8_t *value)
{
    /* Two words to a lane of 8 bytes. */
    const __m512i from =
        _mm512_add_epi32(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi64(8 * (k % 2)));
    const __m512i entry = _mm512_permutexvar_epi32(from, h->entry[k / 2]);
    const __m512i table = _mm512_set1_epi64((int64_t)load_u64((const uint8_t *)value));
    return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(of_places(4), entry), table);
}

static FM_ALWAYS_INLINE __m512i use_iq2(const book_taken *h, int k)
{
    static const int8_t value[] = FM_IQ2_VALUES;
    return columns_of_8(h, k, value);
}
#define use_iq2_xxs use_iq2
#define use_iq2_xs use_iq2
#define use_iq2_s use_iq2

static FM_ALWAYS_INLINE __m512i use_iq1_s(const book_taken *h, int k)
{
    static const int8_t value[] = FM_IQ1_VALUES;
    return columns_of_8(h, k, value);
}
#define use_iq1_m use_iq1_s

static FM_ALWAYS_INLINE __m512i use_iq3_xxs(const book_taken *h, int k)
{
    static const int8_t value[] = FM_IQ3_XXS_HALVES;
    return columns_of_4(h, k, value);
}

static FM_ALWAYS_INLINE __m512i use_iq3_s(const book_taken *h, int k)
{
    static const int8_t value[] = FM_IQ3_S_VALUES;
    return columns_of_4(h, k, value);
}

/* ---- parts of matmul_book.inc -------------------------------------------------------------- */

static FM_ALWAYS_INLINE void take_blocks(book_taken *h, uint16_t *half, const uint8_t *const *block,
                                         int n, book_head_fn *head, take_fn *take)
{
    for (int i = 0; i < n; i += 2) {
        book_taken none; /* beside the last of an odd number */
        const bool two = i + 1 < n;
        half[i] = head(&h[i].head, block[i]);
        if (two) half[i + 1] = head(&h[i + 1].head, block[i + 1]);
        take(&h[i], two ? &h[i + 1] : &none, block[i], block[two ? i + 1 : i]);
    }
}

/* Bytes a in the lanes of group 2 k, b in those of the next one. */
static FM_ALWAYS_INLINE __m512i of_groups(int64_t a, int64_t b)
{
    return _mm512_set_epi64(b, b, b, b, a, a, a, a);
}

static FM_ALWAYS_INLINE void weight_words(__m512i w[2], const book_taken *h, const uint8_t *block,
                                          const int k, const book_sign sign, use_fn *use)
{
    (void)block;
    const int64_t all = 0x0101010101010101;
    const uint64_t s = load_u64((const uint8_t *)&h->head.sign + 8 * k); /* of 64 columns */
    __m512i q = use(h, k);
    if (sign == SIGN_BITS)
        q = _mm512_mask_sub_epi8(q, (__mmask64)s, _mm512_setzero_si512(), q);
    else if (sign == DELTA_OF_GROUP)
        q = _mm512_add_epi8(q, _mm512_shuffle_epi8(_mm512_broadcast_i64x4(h->head.sign),
                                                   of_groups(2 * k * all, (2 * k + 1) * all)));
    else
        q = _mm512_add_epi8(q,
                            _mm512_shuffle_epi8(_mm512_set1_epi64((int64_t)s),
                                                _mm512_set_epi64(7 * all, 6 * all, 5 * all, 4 * all,
                                                                 3 * all, 2 * all, all, 0)));
    /* A byte of scale, a byte of 0. */
    const int64_t word = 0x0001000100010001, zero = (int64_t)0x8000800080008000u;
    const __m512i take = of_groups(zero | 2 * k * word, zero | (2 * k + 1) * word);
    const __m512i scale = _mm512_shuffle_epi8(_mm512_broadcast_i64x4(h->head.scale), take);
    w[0] = _mm512_maddubs_epi16(scale, q);
    w[1] = _mm512_maddubs_epi16(_mm512_slli_epi16(scale, 8), q);
}

static FM_ALWAYS_INLINE __m256i dot_block(const book_taken *h, const uint8_t *block, const words *x,
                                          const book_sign sign, use_fn *use)
{
    __m512i s[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    FM_UNROLL
    for (int k = 0; k < N_VECTOR; k++) {
        __m512i q[2];
        weight_words(q, h, block, k, sign, use);
        s[0] = _mm512_dpwssd_epi32(s[0], q[0], x->w[k][0]);
        s[1] = _mm512_dpwssd_epi32(s[1], q[1], x->w[k][1]);
    }
    const __m512i sum = _mm512_add_epi32(s[0], s[1]);
    return _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
}

/* Lane i is the sum of the lanes of s[i]. */
static FM_ALWAYS_INLINE __m512i add_lanes_of_16(const __m512i s[16])
{
    __m512i four[4], eight[2];
    FM_UNROLL
    for (int i = 0; i < 4; i++) {
        const __m512i *const v = s + 4 * i;
        const __m512i a =
            _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
        const __m512i b =
            _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
        four[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    }
    FM_UNROLL
    for (int i = 0; i < 2; i++)
        eight[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(four[2 * i], four[2 * i + 1], 0x44),
                                    _mm512_shuffle_i32x4(four[2 * i], four[2 * i + 1], 0xee));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(eight[0], eight[1], 0x88),
                            _mm512_shuffle_i32x4(eight[0], eight[1], 0xdd));
}

static void tile(float *acc, const words *w, const words *const *x, __m128 d, const float *dx)
{
    __m512i sum[TILE_TOKENS * TILE_ROWS];
    FM_UNROLL
    for (int i = 0; i < TILE_TOKENS * TILE_ROWS; i++) sum[i] = _mm512_setzero_si512();
    FM_NO_UNROLL
    for (int k = 0; k < N_VECTOR; k++) {
        FM_UNROLL
        for (int odd = 0; odd < 2; odd++) {
            __m512i v[TILE_TOKENS];
            FM_UNROLL
            for (int t = 0; t < TILE_TOKENS; t++) v[t] = x[t]->w[k][odd];
            FM_UNROLL
            for (int r = 0; r < TILE_ROWS; r++) {
                const __m512i q = w[r].w[k][odd];
                FM_UNROLL
                for (int t = 0; t < TILE_TOKENS; t++)
                    sum[TILE_ROWS * t + r] = _mm512_dpwssd_epi32(sum[TILE_ROWS * t + r], q, v[t]);
            }
        }
    }
    const __m512i lane = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    const __m512 each = _mm512_permutexvar_ps(lane, _mm512_castps128_ps512(_mm_loadu_ps(dx)));
    const __m512 scale = _mm512_mul_ps(_mm512_broadcast_f32x4(d), each);
    const __m512 term = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(add_lanes_of_16(sum)));
    _mm512_store_ps(acc, _mm512_add_ps(_mm512_load_ps(acc), term));
}

/* One token does not pay for a book of 2,048: 32 vpermi2b take longer than 64 loads. */
#define ONE_TOKEN_FORMATS FM_BOOK_FORMATS_IQ23
#include "kernel/x86/matmul_book.inc"

bool fm_matmul_book_vbmi(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok)
{
    return matmul_book(w, row0, row1, act, y, n_tok) ||
           fm_matmul_book_avx2(w, row0, row1, act, y, n_tok);
}

#endif
