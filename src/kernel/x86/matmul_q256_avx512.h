/* How the formats with blocks of 256 are taken apart by AVX-512, 16 rows at a time: heads (scales) and groups of columns;
 * and the float step of a block. A lane is a row. For the files of the sets avx512 and amx.
 *
 * All formats have the same shape: a head, and groups of 16 or 32 columns whose weights are small unsigned integers
 * with one scale. A format supplies two functions, one that reads the head of 16 blocks and one that takes a group
 * apart.
 */
#pragma once

#include "kernel/x86/matmul_avx512.h"

#if defined(__x86_64__)

typedef struct {
    __m512i sc[16]; /* scale of group k: i32, or i16 twice with SCALE_WEIGHTS */
    __m512i mn[16]; /* minima, in the form that shape_256.min names           */
    __m512 d, m;
} head_512;

typedef void head_fn(head_512 *, const uint8_t *);
typedef void group_fn(__m512i *, const uint8_t *, int);

/* Where the scale of a group comes in. */
typedef enum {
    SCALE_SUM,     /* the group's sum times sc                                              */
    SCALE_WEIGHTS, /* weight times scale fits a byte: before the sum, which then runs on;
                      for one token that is more work, so as SCALE_SUM                      */
} scale_place;

typedef enum {
    MIN_NONE,
    MIN_16, /* i32 per 16 columns                                                           */
    MIN_32, /* i16 pair (32 m, m) per 32 columns, for the pair of sums (hi, lo)             */
} min_form;

/* Properties of a format that the compiler resolves. */
typedef struct {
    int block_bytes;
    int n_group, n_unit; /* groups per block; units (4 columns) per group                    */
    int offset_32;       /* 32nds of the offset of the unsigned weights: the sum of the high
                            plane starts at so many times -(sum v), and the shift between the
                            planes multiplies by 32                                          */
    int down;            /* unsigned weights are 2^down times as large                       */
    int n_part;          /* float steps per block                                            */
    min_form min;
    scale_place scale;
    int rolled; /* one token: a loop over the groups, measured faster from memory           */
    fm_read_order order;
} shape_256;

/* What the minima take away: sum_k mn_k sum v, for one token. */
static FM_ALWAYS_INLINE __m512i sum_minima(const head_512 *h, const fm_act_i13_256 *x,
                                           const min_form min)
{
    __m512i low = _mm512_setzero_si512();
    if (min == MIN_32) {
        FM_UNROLL
        for (int k = 0; k < 8; k++)
            low = _mm512_dpwssd_epi32(low, h->mn[k], repeat_32(x->sum32[k]));
    } else {
        FM_UNROLL
        for (int k = 0; k < 16; k++)
            low =
                _mm512_sub_epi32(low, _mm512_mullo_epi32(h->mn[k], _mm512_set1_epi32(x->nsum[k])));
    }
    return low;
}

/* The float step of quant.h: acc [16] += what a block (or part of one) with these integer sums adds for one token. */
static FM_ALWAYS_INLINE void add_block_256(float *acc, __m512i sum, const head_512 *h,
                                           const fm_act_i13_256 *x, const shape_256 shape)
{
    const __m512 dx = _mm512_set1_ps(x->d);
    if (shape.down != 0) sum = _mm512_srai_epi32(sum, (unsigned)shape.down);
    __m512 term = _mm512_mul_ps(_mm512_mul_ps(h->d, dx), _mm512_cvtepi32_ps(sum));
    if (shape.min != MIN_NONE) {
        const __m512i low = sum_minima(h, x, shape.min);
        term = _mm512_sub_ps(term, _mm512_mul_ps(_mm512_mul_ps(h->m, dx), _mm512_cvtepi32_ps(low)));
    }
    _mm512_storeu_ps(acc, _mm512_add_ps(_mm512_loadu_ps(acc), term));
}

/* Bytes of every 32-bit lane rearranged: byte j of the result is byte (pattern >> 8 j) & 0xff of
 * the lane, or 0 where that has bit 7. */
static FM_ALWAYS_INLINE __m512i pick_bytes(__m512i v, uint32_t pattern)
{
    const __m512i lane =
        _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c));
    return _mm512_shuffle_epi8(v, _mm512_add_epi8(_mm512_set1_epi32((int)pattern), lane));
}

/* Byte i of every lane as u32, as i32, and as the same u16 twice. */
static FM_ALWAYS_INLINE __m512i byte_u32(__m512i v, int i)
{
    return pick_bytes(v, 0x80808000u + (uint32_t)i);
}

static FM_ALWAYS_INLINE __m512i byte_i32(__m512i v, int i)
{
    return _mm512_srai_epi32(pick_bytes(v, 0x00808080u + ((uint32_t)i << 24)), 24);
}

static FM_ALWAYS_INLINE __m512i byte_twice_u16(__m512i v, int i)
{
    return pick_bytes(v, 0x80008000u + (uint32_t)i * 0x00010001u);
}

/* Byte i of every lane as the pair of u16 (32 byte, byte). */
static FM_ALWAYS_INLINE __m512i byte_pair_32(__m512i v, int i)
{
    return _mm512_sllv_epi16(byte_twice_u16(v, i), _mm512_set1_epi32(FM_ACT_256_SHIFT));
}

/* 6-bit scales and minima of Q4_K and Q5_K; p at the 12 bytes. Group k has 32 columns. */
static FM_ALWAYS_INLINE void head_6bit(head_512 *h, const uint8_t *p)
{
    const __m512i a = load_512(p), b = load_512(p + 64), c = load_512(p + 128);
    const __m512i m6 = _mm512_set1_epi32(0x3f3f3f3f), m4 = _mm512_set1_epi32(0x0f0f0f0f);
    const __m512i top = _mm512_set1_epi32(0x30303030);
    const __m512i sc0 = _mm512_and_si512(a, m6), mn0 = _mm512_and_si512(b, m6);
    const __m512i sc1 = or_masked(_mm512_and_si512(c, m4), _mm512_srli_epi32(a, 2), top);
    const __m512i mn1 =
        or_masked(_mm512_and_si512(_mm512_srli_epi32(c, 4), m4), _mm512_srli_epi32(b, 2), top);
    FM_UNROLL
    for (int i = 0; i < 4; i++) {
        h->sc[i] = byte_u32(sc0, i);
        h->sc[4 + i] = byte_u32(sc1, i);
        h->mn[i] = byte_pair_32(mn0, i);
        h->mn[4 + i] = byte_pair_32(mn1, i);
    }
}

static FM_ALWAYS_INLINE void head_q4_k(head_512 *h, const uint8_t *p)
{
    h->d = load_half(p);
    h->m = load_half(p + 2 * 16);
    head_6bit(h, p + 4 * 16);
}

/* Columns of group k: nibble k % 2 of units 8 (k / 2) + u of qs. */
static FM_ALWAYS_INLINE void group_q4_k(__m512i *w, const uint8_t *p, int k)
{
    const uint8_t *const qs = p + 16 * 16 + (size_t)(k / 2) * 8 * 64;
    const __m128i shift = _mm_cvtsi32_si128(4 * (k & 1));
    FM_UNROLL
    for (int u = 0; u < 8; u++)
        w[u] = _mm512_and_si512(_mm512_srl_epi32(load_512(qs + 64 * u), shift),
                                _mm512_set1_epi32(0x0f0f0f0f));
}

/* The fifth bit is bit k of the bytes of qh; rotating by k - 4 puts it on bit 4. */
static FM_ALWAYS_INLINE void group_q5_k(__m512i *w, const uint8_t *p, int k)
{
    const uint8_t *const qh = p + 16 * 16, *const qs = p + 48 * 16 + (size_t)(k / 2) * 8 * 64;
    const __m128i shift = _mm_cvtsi32_si128(4 * (k & 1));
    const __m512i turn = _mm512_set1_epi32(k - 4);
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        const __m512i low = _mm512_and_si512(_mm512_srl_epi32(load_512(qs + 64 * u), shift),
                                             _mm512_set1_epi32(0x0f0f0f0f));
        w[u] = or_masked(low, _mm512_rorv_epi32(load_512(qh + 64 * u), turn),
                         _mm512_set1_epi32(0x10101010));
    }
}

static FM_ALWAYS_INLINE void head_q6_k(head_512 *h, const uint8_t *p)
{
    h->d = load_half(p + 208 * 16);
    h->m = _mm512_setzero_ps();
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        const __m512i s = load_512(p + 192 * 16 + 64 * j);
        FM_UNROLL
        for (int i = 0; i < 4; i++) h->sc[4 * j + i] = byte_i32(s, i);
    }
}

/* Group k is columns 32 c + 16 g of half n, k = 8 n + 2 c + g: nibble c / 2 of ql, pair c of qh. */
static FM_ALWAYS_INLINE void group_q6_k(__m512i *w, const uint8_t *p, int k)
{
    const int n = k >> 3, c = k >> 1 & 3, g = k & 1;
    const uint8_t *const ql = p + (size_t)(16 * n + 8 * (c & 1) + 4 * g) * 64;
    const uint8_t *const qh = p + 128 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m128i shift = _mm_cvtsi32_si128(4 * (c >> 1));
    const __m512i turn = _mm512_set1_epi32(2 * c - 4);
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m512i low = _mm512_and_si512(_mm512_srl_epi32(load_512(ql + 64 * u), shift),
                                             _mm512_set1_epi32(0x0f0f0f0f));
        w[u] = or_masked(low, _mm512_rorv_epi32(load_512(qh + 64 * u), turn),
                         _mm512_set1_epi32(0x30303030));
    }
}

static FM_ALWAYS_INLINE void head_q3_k(head_512 *h, const uint8_t *p)
{
    const uint8_t *const s = p + 96 * 16;
    const __m512i a = load_512(s), b = load_512(s + 64), c = load_512(s + 128);
    const __m512i m4 = _mm512_set1_epi32(0x0f0f0f0f), top = _mm512_set1_epi32(0x30303030);
    __m512i six[4]; /* bytes: 6-bit scales of groups 4j .. 4j+3 */
    six[0] = or_masked(_mm512_and_si512(a, m4), _mm512_slli_epi32(c, 4), top);
    six[1] = or_masked(_mm512_and_si512(b, m4), _mm512_slli_epi32(c, 2), top);
    six[2] = or_masked(_mm512_and_si512(_mm512_srli_epi32(a, 4), m4), c, top);
    six[3] = or_masked(_mm512_and_si512(_mm512_srli_epi32(b, 4), m4), _mm512_srli_epi32(c, 2), top);
    h->d = load_half(p + 108 * 16);
    h->m = _mm512_setzero_ps();
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        const __m512i v = _mm512_sub_epi8(six[j], _mm512_set1_epi8(32));
        FM_UNROLL
        for (int i = 0; i < 4; i++) h->sc[4 * j + i] = byte_i32(v, i);
    }
}

/* Group k = 8 n + 2 j + g: bit pair j of units 8 n + 4 g + u of qs, bit 4 n + j of hmask. They are
 * turned to bits 3, 4 and 5, so that the offset 4 becomes 32. */
static FM_ALWAYS_INLINE void group_q3_k(__m512i *w, const uint8_t *p, int k)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const hm = p + (size_t)g * 4 * 64;
    const uint8_t *const qs = p + 32 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m512i turn_low = _mm512_set1_epi32(2 * j - 3);
    const __m512i turn_high = _mm512_set1_epi32(4 * n + j - 5);
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m512i low = _mm512_and_si512(_mm512_rorv_epi32(load_512(qs + 64 * u), turn_low),
                                             _mm512_set1_epi32(0x18181818));
        w[u] = or_masked(low, _mm512_rorv_epi32(load_512(hm + 64 * u), turn_high),
                         _mm512_set1_epi32(0x20202020));
    }
}

static FM_ALWAYS_INLINE void head_q2_k(head_512 *h, const uint8_t *p)
{
    const __m512i m4 = _mm512_set1_epi32(0x0f0f0f0f);
    h->d = load_half(p + 80 * 16);
    h->m = load_half(p + 82 * 16);
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        const __m512i s = load_512(p + 64 * j);
        const __m512i sc = _mm512_and_si512(s, m4);
        const __m512i mn = _mm512_and_si512(_mm512_srli_epi32(s, 4), m4);
        FM_UNROLL
        for (int i = 0; i < 4; i++) {
            h->sc[4 * j + i] = byte_twice_u16(sc, i);
            h->mn[4 * j + i] = byte_u32(mn, i);
        }
    }
}

/* Two weights of at most 3 lie in each 16-bit word; a product with a scale of at most 15 stays
 * below 256, so a 16-bit multiplication handles both bytes. */
static FM_ALWAYS_INLINE void group_q2_k(__m512i *w, const uint8_t *p, int k)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const qs = p + 16 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m128i shift = _mm_cvtsi32_si128(2 * j);
    FM_UNROLL
    for (int u = 0; u < 4; u++)
        w[u] = _mm512_and_si512(_mm512_srl_epi32(load_512(qs + 64 * u), shift),
                                _mm512_set1_epi32(0x03030303));
}

static FM_ALWAYS_INLINE void head_iq4_xs(head_512 *h, const uint8_t *p)
{
    const __m512i low = load_512(p + 4 * 16);
    const __m512i high = _mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p + 2 * 16))), 4);
    h->d = load_half(p);
    h->m = _mm512_setzero_ps();
    FM_UNROLL
    for (int k = 0; k < 8; k++) {
        const __m512i nibble =
            _mm512_and_si512(_mm512_srli_epi32(low, 4 * (unsigned)k), _mm512_set1_epi32(15));
        const __m512i six =
            or_masked(nibble, _mm512_srli_epi32(high, 2 * (unsigned)k), _mm512_set1_epi32(0x30));
        h->sc[k] = _mm512_sub_epi32(six, _mm512_set1_epi32(32));
    }
}

/* The book's values plus 128. */
static FM_ALWAYS_INLINE void group_iq4_xs(__m512i *w, const uint8_t *p, int k)
{
    const __m512i value =
        _mm512_xor_si512(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fm_book_iq4)),
                         _mm512_set1_epi8(-128));
    const __m512i m4 = _mm512_set1_epi32(0x0f0f0f0f);
    const uint8_t *const qs = p + 8 * 16 + (size_t)k * 4 * 64;
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m512i v = load_512(qs + 64 * u);
        w[u] = _mm512_shuffle_epi8(value, _mm512_and_si512(v, m4));
        w[4 + u] = _mm512_shuffle_epi8(value, _mm512_and_si512(_mm512_srli_epi32(v, 4), m4));
    }
}

static const shape_256 shape_q2_k = {84, 16, 4, 0, 0, 1, MIN_16, SCALE_WEIGHTS, 0, FM_READ_BY_FIELDS};
static const shape_256 shape_q3_k = {110, 16, 4, 1, 3, 1, MIN_NONE, SCALE_SUM, 0, FM_READ_BY_FIELDS};
static const shape_256 shape_q4_k = {144, 8, 8, 0, 0, 1, MIN_32, SCALE_SUM, 0, FM_READ_IN_ORDER};
static const shape_256 shape_q5_k = {176, 8, 8, 0, 0, 1, MIN_32, SCALE_SUM, 0, FM_READ_BY_FIELDS};
static const shape_256 shape_q6_k = {210, 16, 4, 1, 0, 2, MIN_NONE, SCALE_SUM, 1, FM_READ_BY_FIELDS};
static const shape_256 shape_iq4_xs = {136, 8, 8, 4, 0, 2, MIN_NONE, SCALE_SUM, 0, FM_READ_IN_ORDER};

#endif
