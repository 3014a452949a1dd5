/* The formats with blocks of 256 for AVX2: what a panel of a format looks like, for the kernels of one token and of
 * several. A lane is a row; a panel of 16 rows is two halves.
 *
 * All formats have the same shape: a head (scales, minima) and 16 groups of 16 columns whose weights are small unsigned
 * integers. A format supplies one function for the head of 8 blocks and one that takes 4 columns of 8 rows out.
 */
#pragma once

#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

/* How minima meet the sums of v: per 16 columns, or per 32. */
typedef enum { MIN_NONE, MIN_16, MIN_32 } min_form;

/* Properties of a format that the compiler resolves. */
typedef struct {
    int block_bytes;
    int n_unit; /* units (4 columns) that share a scale: 4 or 8            */
    int n_pair; /* units whose pair sums with the high plane fit 16 bits   */
    int offset; /* subtracted from every q; 0 for formats with a minimum   */
    int n_part; /* float steps per block                                   */
    min_form min;
} shape_256;

/* Of 8 blocks, one per lane. */
typedef struct {
    __m256i sc
        [16]; /* scale of every group of n_unit units, the same i16 twice                        */
    __m256i
        mn[16]; /* MIN_16: the same i16 twice; MIN_32: i16 pairs of minima 0 and 2, 1 and 3, 4 and
                       6, 5 and 7                                                                      */
    __m256 d, m;
} head_256;

typedef void head_fn(head_256 *, const uint8_t *, int); /* panel, half */
typedef __m256i unit_fn(const uint8_t *, int, int); /* panel + 32 * half; columns 16 k + 4 u ... */

/* Byte i of every lane to both halves of the lane, as i16; signed bytes resp. bytes below 128. */
static FM_ALWAYS_INLINE __m256i byte_twice(__m256i v, int i)
{
    const __m256i spread = _mm256_set1_epi32((int)(0x80008000u | (uint32_t)i * 0x00010001u));
    const __m256i lane = _mm256_set_epi32(0x000c000c, 0x00080008, 0x00040004, 0, 0x000c000c,
                                          0x00080008, 0x00040004, 0);
    return _mm256_shuffle_epi8(v, _mm256_add_epi8(spread, lane));
}

static FM_ALWAYS_INLINE __m256i signed_byte_twice(__m256i v, int i)
{
    const __m256i spread = _mm256_set1_epi32((int)(0x00800080u | (uint32_t)i * 0x01000100u));
    const __m256i lane = _mm256_set_epi32(0x0c000c00, 0x08000800, 0x04000400, 0, 0x0c000c00,
                                          0x08000800, 0x04000400, 0);
    return _mm256_srai_epi16(_mm256_shuffle_epi8(v, _mm256_add_epi8(spread, lane)), 8);
}

/* 6-bit scales and minima of Q4_K and Q5_K; p at the 12 bytes. One serves 32 columns. */
static FM_ALWAYS_INLINE void head_6bit(head_256 *h, const uint8_t *p)
{
    const __m256i a = load_256(p), b = load_256(p + 64), c = load_256(p + 128);
    const __m256i m6 = _mm256_set1_epi32(0x3f3f3f3f), top = _mm256_set1_epi32(0x30303030);
    const __m256i sc0 = _mm256_and_si256(a, m6), mn0 = _mm256_and_si256(b, m6);
    const __m256i sc1 =
        _mm256_or_si256(low_nibbles(c), _mm256_and_si256(_mm256_srli_epi32(a, 2), top));
    const __m256i mn1 =
        _mm256_or_si256(high_nibbles(c), _mm256_and_si256(_mm256_srli_epi32(b, 2), top));
    FM_UNROLL
    for (int i = 0; i < 4; i++) {
        h->sc[i] = byte_twice(sc0, i);
        h->sc[4 + i] = byte_twice(sc1, i);
    }
    h->mn[0] = even_bytes(mn0), h->mn[1] = odd_bytes(mn0);
    h->mn[2] = even_bytes(mn1), h->mn[3] = odd_bytes(mn1);
}

static FM_ALWAYS_INLINE void head_q4_k(head_256 *h, const uint8_t *p, int half)
{
    h->d = load_half(p + 16 * half);
    h->m = load_half(p + 2 * 16 + 16 * half);
    head_6bit(h, p + 4 * 16 + 32 * half);
}

/* Nibble k / 2 % 2 of units 8 (k / 4) + 4 (k % 2) + u of qs. */
static FM_ALWAYS_INLINE __m256i unit_q4_k(const uint8_t *p, int k, int u)
{
    const uint8_t *const qs = p + 16 * 16 + (size_t)(8 * (k >> 2) + 4 * (k & 1)) * 64;
    return low_nibbles(_mm256_srli_epi32(load_256(qs + 64 * u), 4 * (k >> 1 & 1)));
}

/* Bit (or bits, by mask) `from` of every byte, moved to `to`. */
static FM_ALWAYS_INLINE __m256i move_bits(__m256i v, int from, int to, int mask)
{
    if (from > to) v = _mm256_srli_epi32(v, from - to);
    if (from < to) v = _mm256_slli_epi32(v, to - from);
    return _mm256_and_si256(v, _mm256_set1_epi8((char)(mask << to)));
}

/* The fifth bit is bit k / 2 of the bytes of qh. */
static FM_ALWAYS_INLINE __m256i unit_q5_k(const uint8_t *p, int k, int u)
{
    const uint8_t *const qh = p + 16 * 16 + (size_t)(4 * (k & 1)) * 64;
    const uint8_t *const qs = p + 48 * 16 + (size_t)(8 * (k >> 2) + 4 * (k & 1)) * 64;
    return _mm256_or_si256(move_bits(load_256(qs + 64 * u), 4 * (k >> 1 & 1), 0, 15),
                           move_bits(load_256(qh + 64 * u), k >> 1, 4, 1));
}

static FM_ALWAYS_INLINE void head_q6_k(head_256 *h, const uint8_t *p, int half)
{
    h->d = load_half(p + 208 * 16 + 16 * half);
    h->m = _mm256_setzero_ps();
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        const __m256i sc = load_256(p + 192 * 16 + 64 * j + 32 * half);
        FM_UNROLL
        for (int i = 0; i < 4; i++) h->sc[4 * j + i] = signed_byte_twice(sc, i);
    }
}

/* Group k is columns 32 c + 16 g of half n, k = 8 n + 2 c + g: nibble c / 2 of ql, pair c of qh. */
static FM_ALWAYS_INLINE __m256i unit_q6_k(const uint8_t *p, int k, int u)
{
    const int n = k >> 3, c = k >> 1 & 3, g = k & 1;
    const uint8_t *const ql = p + (size_t)(16 * n + 8 * (c & 1) + 4 * g) * 64;
    const uint8_t *const qh = p + 128 * 16 + (size_t)(8 * n + 4 * g) * 64;
    return _mm256_or_si256(move_bits(load_256(ql + 64 * u), 4 * (c >> 1), 0, 15),
                           move_bits(load_256(qh + 64 * u), 2 * c, 4, 3));
}

static FM_ALWAYS_INLINE void head_q3_k(head_256 *h, const uint8_t *p, int half)
{
    const uint8_t *const s = p + 96 * 16 + 32 * half;
    const __m256i a = load_256(s), b = load_256(s + 64), c = load_256(s + 128);
    const __m256i top = _mm256_set1_epi32(0x30303030);
    __m256i sc[4]; /* bytes: 6-bit scales of groups 4j .. 4j+3, less 32 */
    sc[0] = _mm256_or_si256(low_nibbles(a), _mm256_and_si256(_mm256_slli_epi32(c, 4), top));
    sc[1] = _mm256_or_si256(low_nibbles(b), _mm256_and_si256(_mm256_slli_epi32(c, 2), top));
    sc[2] = _mm256_or_si256(high_nibbles(a), _mm256_and_si256(c, top));
    sc[3] = _mm256_or_si256(high_nibbles(b), _mm256_and_si256(_mm256_srli_epi32(c, 2), top));
    h->d = load_half(p + 108 * 16 + 16 * half);
    h->m = _mm256_setzero_ps();
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        sc[j] = _mm256_sub_epi8(sc[j], _mm256_set1_epi8(32));
        FM_UNROLL
        for (int i = 0; i < 4; i++) h->sc[4 * j + i] = signed_byte_twice(sc[j], i);
    }
}

/* Group k = 8 n + 2 j + g: bit pair j of units 8 n + 4 g + u of qs, bit 4 n + j of hmask. */
static FM_ALWAYS_INLINE __m256i unit_q3_k(const uint8_t *p, int k, int u)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const hm = p + (size_t)g * 4 * 64;
    const uint8_t *const qs = p + 32 * 16 + (size_t)(8 * n + 4 * g) * 64;
    return _mm256_or_si256(move_bits(load_256(qs + 64 * u), 2 * j, 0, 3),
                           move_bits(load_256(hm + 64 * u), 4 * n + j, 2, 1));
}

static FM_ALWAYS_INLINE void head_q2_k(head_256 *h, const uint8_t *p, int half)
{
    h->d = load_half(p + 80 * 16 + 16 * half);
    h->m = load_half(p + 82 * 16 + 16 * half);
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        const __m256i s = load_256(p + 64 * j + 32 * half);
        const __m256i sc = low_nibbles(s), mn = high_nibbles(s);
        FM_UNROLL
        for (int i = 0; i < 4; i++) {
            h->sc[4 * j + i] = byte_twice(sc, i);
            h->mn[4 * j + i] = byte_twice(mn, i);
        }
    }
}

static FM_ALWAYS_INLINE __m256i unit_q2_k(const uint8_t *p, int k, int u)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const qs = p + 16 * 16 + (size_t)(8 * n + 4 * g) * 64;
    return move_bits(load_256(qs + 64 * u), 2 * j, 0, 3);
}

static FM_ALWAYS_INLINE void head_iq4_xs(head_256 *h, const uint8_t *p, int half)
{
    const __m256i low = load_256(p + 4 * 16 + 32 * half);
    const __m256i high = _mm256_slli_epi32(
        _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 2 * 16 + 16 * half))), 4);
    h->d = load_half(p + 16 * half);
    h->m = _mm256_setzero_ps();
    FM_UNROLL
    for (int k = 0; k < 8; k++) {
        const __m256i nibble =
            _mm256_and_si256(_mm256_srli_epi32(low, 4 * k), _mm256_set1_epi32(15));
        const __m256i pair =
            _mm256_and_si256(_mm256_srli_epi32(high, 2 * k), _mm256_set1_epi32(0x30));
        const __m256i sc = _mm256_sub_epi32(_mm256_or_si256(nibble, pair), _mm256_set1_epi32(32));
        const __m256i narrow = _mm256_packs_epi32(sc, sc);
        h->sc[k] = _mm256_unpacklo_epi16(narrow, narrow);
    }
}

/* Nibble k % 2 of units 4 (k / 2) + u of qs; 128 more than the value of the book. */
static FM_ALWAYS_INLINE __m256i unit_iq4_xs(const uint8_t *p, int k, int u)
{
    const uint8_t *const qs = p + 8 * 16 + (size_t)(k >> 1) * 4 * 64;
    return _mm256_shuffle_epi8(book_iq4_unsigned(),
                               move_bits(load_256(qs + 64 * u), 4 * (k & 1), 0, 15));
}

static const shape_256 shape_q2_k = {84, 4, 4, 0, 1, MIN_16};
static const shape_256 shape_q3_k = {110, 4, 4, 4, 1, MIN_NONE};
static const shape_256 shape_q4_k = {144, 8, 8, 0, 1, MIN_32};
static const shape_256 shape_q5_k = {176, 8, 4, 0, 1, MIN_32};
static const shape_256 shape_q6_k = {210, 4, 2, 32, 2, MIN_NONE};
static const shape_256 shape_iq4_xs = {136, 8, 0, 128, 2, MIN_NONE}; /* n_pair 0: none fits */

/* Of a block of activations: what minima and offsets meet, and the scale. */
typedef struct {
    int32_t nsum[16]; /* -(sum v) over 16 columns, as two i16 that add up to it             */
    int32_t sum_hi[4],
        sum_lo[4]; /* MIN_32: sums of hi and lo over 32 columns, in pairs like the minima */
    float d;
} act_sums;

/* v of columns 4u and 4u + 2, 4u + 1 and 4u + 3, as words. */
typedef struct {
    act_sums sums;
    int32_t even[64], odd[64];
} act_words;

static FM_ALWAYS_INLINE void prepare_sums(act_sums *p, const fm_act_i13_256 *x, const min_form min)
{
    p->d = x->d;
    if (min == MIN_32) {
        const __m256i order = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 2, 3, 10, 11, 6, 7, 14, 15));
        const __m256i v =
            _mm256_permute4x64_epi64(_mm256_shuffle_epi8(load_256(x->sum32), order), 0xd8);
        _mm256_storeu_si256((__m256i *)p->sum_hi, v); /* and sum_lo */
    } else {
        FM_UNROLL
        for (int i = 0; i < 2; i++) {
            const __m256i s = load_256(x->nsum + 8 * i);
            const __m256i a = _mm256_srai_epi32(s, 1), b = _mm256_sub_epi32(s, a);
            _mm256_storeu_si256((__m256i *)(p->nsum + 8 * i),
                                _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa));
        }
    }
}

static FM_ALWAYS_INLINE void prepare_words(act_words *p, const fm_act_i13_256 *x)
{
    FM_UNROLL
    for (int i = 0; i < 8; i++) {
        const __m256i hi = load_256(x->hi + 32 * i), lo = load_256(x->lo + 32 * i);
        const __m256i even =
            _mm256_add_epi16(_mm256_srai_epi16(_mm256_slli_epi16(hi, 8), 8 - FM_ACT_256_SHIFT),
                             _mm256_srai_epi16(_mm256_slli_epi16(lo, 8), 8));
        const __m256i odd =
            _mm256_add_epi16(_mm256_slli_epi16(_mm256_srai_epi16(hi, 8), FM_ACT_256_SHIFT),
                             _mm256_srai_epi16(lo, 8));
        _mm256_storeu_si256((__m256i *)(p->even + 8 * i), even);
        _mm256_storeu_si256((__m256i *)(p->odd + 8 * i), odd);
    }
}

/* Keeps the compiler from holding weights of one group in registers, and then on the stack, until another group uses
 * their other bits: loading them again from the first cache costs less. */
static FM_ALWAYS_INLINE const uint8_t *forget(const uint8_t *p)
{
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

/* Asks for part k of 16 of what lies ahead, a block and 1 KiB where that is done once, as for several tokens: a block's
 * fields are not read in the order in which they lie, so what its first group needs may be its end. */
static FM_ALWAYS_INLINE void ask_ahead(const uint8_t *panel, const int bytes, const int k,
                                       const bool one)
{
    enum { MORE_LINES = 16 };
    const int n_line = (bytes + 63) / 64;
    const bool twice = one && fm_asks_twice;
    fm_prefetch_lines(panel, twice ? FM_PANEL_AHEAD_BYTES : 64 * (n_line + MORE_LINES),
                      n_line * k / 16, n_line * (k + 1) / 16, twice);
}

/* Sum of minima times sums of v, whose lower plane is empty where n_plane is 1. */
static FM_ALWAYS_INLINE __m256i sum_minima(const head_256 *h, const act_sums *x, const min_form min,
                                           const int n_plane)
{
    __m256i hi = _mm256_setzero_si256(), lo = hi;
    if (min == MIN_32) {
        FM_UNROLL
        for (int i = 0; i < 4; i++) {
            hi = settled(
                _mm256_add_epi32(hi, _mm256_madd_epi16(h->mn[i], repeat_32(x->sum_hi + i))));
            if (n_plane == 1) continue;
            lo = settled(
                _mm256_add_epi32(lo, _mm256_madd_epi16(h->mn[i], repeat_32(x->sum_lo + i))));
        }
        return _mm256_add_epi32(_mm256_slli_epi32(hi, FM_ACT_256_SHIFT), lo);
    }
    FM_UNROLL
    for (int k = 0; k < 16; k++)
        lo = settled(_mm256_sub_epi32(lo, _mm256_madd_epi16(h->mn[k], repeat_32(x->nsum + k))));
    return lo;
}

/* The float step of quant.h for half a panel: acc [8] plus what a block (or part of it) with this head and integer sum adds
 * for one token. */
static FM_ALWAYS_INLINE __m256 add_block(__m256 acc, const head_256 *h, __m256i sum,
                                         const act_sums *x, const min_form min, const int n_plane)
{
    const __m256 dx = _mm256_set1_ps(x->d);
    __m256 term = _mm256_mul_ps(_mm256_mul_ps(h->d, dx), _mm256_cvtepi32_ps(sum));
    if (min != MIN_NONE) {
        const __m256i low = sum_minima(h, x, min, n_plane);
        term = _mm256_sub_ps(term, _mm256_mul_ps(_mm256_mul_ps(h->m, dx), _mm256_cvtepi32_ps(low)));
    }
    return _mm256_add_ps(acc, term);
}

/* ---- several tokens ------------------------------------------------------------------------ */

enum {
    MAX_TOK = 32,     /* tokens for which weights are taken apart once           */
    MAX_BLOCKS = 256, /* blocks of activations that are kept prepared at a time */
    TILE_TOKENS = 6,  /* that meet 16 rows in registers: as words                */
    BYTES_TOKENS = 4  /* and as bytes                                            */
};

/* A block of 16 rows taken apart to words with their scale in them. */
typedef struct {
    __m256i w[64][2][2]; /* unit; columns 4u and 4u + 2, 4u + 1 and 4u + 3; half */
    head_256 h[2];
} block_words;

/* What a format supplies: weights as words and activations as act_words, or as bytes, which take no more room. */
typedef struct {
    fm_panel_fn one; /* for one token */
    int least;       /* tokens for which this is faster than one token after the other */
    fm_apart_256 several;
} format_256;

/* By type id; without IQ4_XS, whose weights are too large for products of bytes. */
extern const format_256 fm_formats_256_int8_avx2[FM_KERNEL_TYPES];

#endif
