/* How the formats with blocks of 256 are taken apart by AVX-512, 16 rows at a time: scales, minima and groups of columns;
 * and the float step of a block. A lane is a row. For the files of the sets avx512 and amx.
 *
 * All formats have the same shape: groups of 16 or 32 columns whose weights are small unsigned integers with one scale
 * and, in some, a minimum. A format supplies functions that take the scale, the minimum and the weights of a group out
 * of 16 blocks. With many tokens they are called where their results are used (but for words) and do what costs nothing beside the
 * products on Zen 4: vectors that are stored until they are needed do cost, and rotations, shifts by a count in a register
 * of another size and three operands' logic need the units that multiply.
 */
#pragma once

#include "kernel/x86/matmul_avx512.h"

#if defined(__x86_64__)

/* Of group k of the blocks at p: weights of columns 4u to 4u + 3, for many tokens or few (plus_bits()); its scale, i32, or
 * i16 twice with SCALE_WEIGHTS; its minimum, in the form that shape_256.min names. */
typedef __m512i unit_fn(const uint8_t *p, int k, int u, const int many);
typedef __m512i scale_fn(const uint8_t *p, int k);
typedef __m512i minimum_fn(const uint8_t *p, int k);

/* Formats of code books: looks the entries of the 32 columns from 32 i on up, of the blocks at p, and puts their codes and
 * signs at dst, CODES_BYTES of them. unit() reads those instead of the blocks; its k counts the groups of these columns. */
enum { N_CODES = 8, CODES_BYTES = 5 * 64 };
typedef void codes_fn(uint8_t *dst, const uint8_t *p, int i);

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
    int d_at, m_at;      /* where a row's halves d and, with minima, m are in its block; d: or D_IN_NIBBLES */
    int n_group, n_unit; /* groups per block; units (4 columns) per group                    */
    int offset_32;       /* 32nds of the offset of the unsigned weights: the sum of the high
                            plane starts at so many times -(sum v), and the shift between the
                            planes multiplies by 32                                          */
    int down;            /* unsigned weights are 2^down times as large                       */
    int odd_up;          /* for few tokens those of odd groups are 2^odd_up times as large */
    int n_part;          /* float steps per block                                            */
    float factor;        /* of d, a power of two; 0 is 1                                     */
    min_form min;
    scale_place scale;
    int rolled;       /* one token: a loop over the groups, measured faster from memory */
    int scales_first; /* with up to so many tokens scales and minima are taken out of a block before its groups
                         instead of each where it is used, which few products do not hide */
    int in_step;      /* from so many tokens on a unit is taken apart when its turn comes: a whole group is more
                         than the processor can look ahead to behind many products */
    fm_read_order order;
} shape_256;

/* The minima of a block's groups, 8 or 16 vectors; none of formats without. */
static FM_ALWAYS_INLINE void read_minima(__m512i *mn, const uint8_t *p, const min_form min,
                                         minimum_fn *minimum)
{
    if (min == MIN_NONE) return;
    FM_UNROLL
    for (int k = 0; k < 8; k++) mn[k] = minimum(p, k);
    if (min == MIN_32) return;
    FM_UNROLL
    for (int k = 8; k < 16; k++) mn[k] = minimum(p, k);
}

/* What the minimum mn of group k takes away from the sums of nt tokens: low[t] += mn sum v. */
static FM_ALWAYS_INLINE void add_minimum(__m512i *low, __m512i mn, const fm_act_i13_256 *const *x,
                                         const int nt, const min_form min, int k)
{
    FM_UNROLL
    for (int t = 0; t < nt; t++) {
        if (min == MIN_32)
            low[t] = _mm512_dpwssd_epi32(low[t], mn, repeat_32(x[t]->sum32[k]));
        else
            low[t] =
                _mm512_sub_epi32(low[t], _mm512_mullo_epi32(mn, _mm512_set1_epi32(x[t]->nsum[k])));
    }
}

/* What the minima take away: low[t] = sum_k mn_k sum v, for nt tokens; 0 in formats without. mn: read_minima(), or NULL:
 * they are taken out of the blocks at p one by one. */
static FM_ALWAYS_INLINE void sum_minima(__m512i *low, const __m512i *mn, const uint8_t *p,
                                        const fm_act_i13_256 *const *x, const int nt,
                                        const min_form min, minimum_fn *minimum)
{
    FM_UNROLL
    for (int t = 0; t < nt; t++) low[t] = _mm512_setzero_si512();
    if (min == MIN_NONE) return;
    FM_UNROLL
    for (int k = 0; k < 8; k++) add_minimum(low, mn ? mn[k] : minimum(p, k), x, nt, min, k);
    if (min == MIN_32) return;
    FM_UNROLL
    for (int k = 8; k < 16; k++) add_minimum(low, mn ? mn[k] : minimum(p, k), x, nt, min, k);
}

/* What the float step of a block needs of it but minima. */
typedef struct {
    __m512 d, m; /* m: of formats with minima */
} halves_512;

/* IQ1_M: the upper nibbles of four words from byte 48 on. */
enum { D_IN_NIBBLES = -1 };

static FM_ALWAYS_INLINE __m512 half_in_nibbles(const uint8_t *p)
{
    const __m512i a = load_512(p + 48 * FM_PANEL_ROWS), b = load_512(p + 48 * FM_PANEL_ROWS + 64);
    const __m512i low = or_masked(_mm512_and_si512(_mm512_srli_epi32(a, 12), _mm512_set1_epi32(15)),
                                  _mm512_srli_epi32(a, 24), _mm512_set1_epi32(0xf0));
    const __m512i half =
        or_masked(or_masked(low, _mm512_srli_epi32(b, 4), _mm512_set1_epi32(0xf00)),
                  _mm512_srli_epi32(b, 16), _mm512_set1_epi32(0xf000));
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(half));
}

static FM_ALWAYS_INLINE halves_512 read_halves(const uint8_t *p, const shape_256 shape)
{
    halves_512 h = {.m = _mm512_setzero_ps()};
    h.d =
        shape.d_at == D_IN_NIBBLES ? half_in_nibbles(p) : load_half(p + shape.d_at * FM_PANEL_ROWS);
    if (shape.factor != 0.0f) h.d = _mm512_mul_ps(h.d, _mm512_set1_ps(shape.factor));
    if (shape.min != MIN_NONE) h.m = load_half(p + shape.m_at * FM_PANEL_ROWS);
    return h;
}

/* The float step of quant.h: acc [16] += what blocks (or part of them) with these halves and integer sums add for one
 * token, whose block of activations has scale dx. low: sum_minima(). */
static FM_ALWAYS_INLINE void add_block_256(float *acc, __m512i sum, __m512i low, halves_512 h,
                                           float dx, const shape_256 shape)
{
    const __m512 scale = _mm512_set1_ps(dx);
    if (shape.down != 0) sum = _mm512_srai_epi32(sum, (unsigned)shape.down);
    __m512 term = _mm512_mul_ps(_mm512_mul_ps(h.d, scale), _mm512_cvtepi32_ps(sum));
    if (shape.min != MIN_NONE)
        term =
            _mm512_sub_ps(term, _mm512_mul_ps(_mm512_mul_ps(h.m, scale), _mm512_cvtepi32_ps(low)));
    _mm512_storeu_ps(acc, _mm512_add_ps(_mm512_loadu_ps(acc), term));
}

/* a + (b & mask), which have no bits in common. */
static FM_ALWAYS_INLINE __m512i plus_masked(__m512i a, __m512i b, __m512i mask)
{
    return _mm512_add_epi32(a, _mm512_and_si512(b, mask));
}

static FM_ALWAYS_INLINE __m512i right(__m512i v, int n)
{
    return _mm512_srlv_epi32(v, _mm512_set1_epi32(n));
}

/* low plus the bits of mask in v once bit `from` of every byte is in the place of bit `to`; low has none of them. */
static FM_ALWAYS_INLINE __m512i plus_bits(__m512i low, __m512i v, int from, int to, __m512i mask,
                                          const int many)
{
    if (!many) return or_masked(low, _mm512_rorv_epi32(v, _mm512_set1_epi32(from - to)), mask);
    const __m512i moved = _mm512_sllv_epi32(right(v, from > to ? from - to : 0),
                                            _mm512_set1_epi32(to > from ? to - from : 0));
    return plus_masked(low, moved, mask);
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

/* Byte k % 4 of the result is field k of 8 fields of 6 bits: the first four are those of low, the others have their low
 * bits in nibbles and the high ones where low has room. */
static FM_ALWAYS_INLINE __m512i six_bits(__m512i low, __m512i nibbles, int k)
{
    if (k < 4) return _mm512_and_si512(low, _mm512_set1_epi32(0x3f3f3f3f));
    return plus_masked(_mm512_and_si512(nibbles, _mm512_set1_epi32(0x0f0f0f0f)),
                       _mm512_srli_epi32(low, 2), _mm512_set1_epi32(0x30303030));
}

/* Q4_K and Q5_K. */
static FM_ALWAYS_INLINE __m512i scale_6bit(const uint8_t *p, int k)
{
    const uint8_t *const s = p + 4 * 16;
    return byte_u32(six_bits(load_512(s), load_512(s + 128), k), k % 4);
}

static FM_ALWAYS_INLINE __m512i minimum_6bit(const uint8_t *p, int k)
{
    const uint8_t *const s = p + 4 * 16;
    return byte_pair_32(six_bits(load_512(s + 64), _mm512_srli_epi32(load_512(s + 128), 4), k),
                        k % 4);
}

/* Unit 8 (k / 2) + u of qs: u of groups k and k ^ 1, whose nibbles share bytes. */
static FM_ALWAYS_INLINE __m512i nibbles_q4_k(const uint8_t *p, int k, int u)
{
    return load_512(p + 16 * 16 + (size_t)(k / 2) * 8 * 64 + 64 * u);
}

static FM_ALWAYS_INLINE __m512i unit_q4_k(const uint8_t *p, int k, int u, const int many)
{
    (void)many;
    return _mm512_and_si512(right(nibbles_q4_k(p, k, u), 4 * (k & 1)),
                            _mm512_set1_epi32(0x0f0f0f0f));
}

/* With few tokens upper nibbles stay where they are, and the sums are moved instead: shape_256.odd_up. */
static FM_ALWAYS_INLINE __m512i unit_q4_k_in_place(const uint8_t *p, int k, int u, const int many)
{
    if (many) return unit_q4_k(p, k, u, many);
    const __m512i mask =
        _mm512_sllv_epi32(_mm512_set1_epi32(0x0f0f0f0f), _mm512_set1_epi32(4 * (k & 1)));
    return _mm512_and_si512(nibbles_q4_k(p, k, u), mask);
}

/* The fifth bit is bit k of the bytes of qh. */
static FM_ALWAYS_INLINE __m512i unit_q5_k(const uint8_t *p, int k, int u, const int many)
{
    const __m512i qh = load_512(p + 16 * 16 + 64 * u), low = unit_q4_k(p + 32 * 16, k, u, many);
    return plus_bits(low, qh, k, 4, _mm512_set1_epi32(0x10101010), many);
}

static FM_ALWAYS_INLINE __m512i scale_q6_k(const uint8_t *p, int k)
{
    return byte_i32(load_512(p + 192 * 16 + 64 * (k / 4)), k % 4);
}

/* Group k is columns 32 c + 16 g of half n, k = 8 n + 2 c + g: nibble c / 2 of ql, pair c of qh. */
static FM_ALWAYS_INLINE __m512i unit_q6_k(const uint8_t *p, int k, int u, const int many)
{
    const int n = k >> 3, c = k >> 1 & 3, g = k & 1;
    const uint8_t *const ql = p + (size_t)(16 * n + 8 * (c & 1) + 4 * g) * 64;
    const uint8_t *const qh = p + 128 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m512i low =
        _mm512_and_si512(right(load_512(ql + 64 * u), 4 * (c >> 1)), _mm512_set1_epi32(0x0f0f0f0f));
    return plus_bits(low, load_512(qh + 64 * u), 2 * c, 4, _mm512_set1_epi32(0x30303030), many);
}

/* 6 bits less 32: low nibbles of two dwords, then their high ones; bits 4 and 5 are pairs of the third. */
static FM_ALWAYS_INLINE __m512i scale_q3_k(const uint8_t *p, int k)
{
    const uint8_t *const s = p + 96 * 16;
    const int j = k / 4;
    const __m512i low = _mm512_and_si512(right(load_512(s + 64 * (j & 1)), 4 * (j >> 1)),
                                         _mm512_set1_epi32(0x0f0f0f0f));
    const __m512i six =
        plus_bits(low, load_512(s + 128), 2 * j, 4, _mm512_set1_epi32(0x30303030), 1);
    return byte_i32(_mm512_sub_epi8(six, _mm512_set1_epi8(32)), k % 4);
}

/* Group k = 8 n + 2 j + g: bit pair j of units 8 n + 4 g + u of qs, bit 4 n + j of hmask. They are
 * moved to bits 3, 4 and 5, so that the offset 4 becomes 32. */
static FM_ALWAYS_INLINE __m512i unit_q3_k(const uint8_t *p, int k, int u, const int many)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const hm = p + (size_t)g * 4 * 64;
    const uint8_t *const qs = p + 32 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m512i low = plus_bits(_mm512_setzero_si512(), load_512(qs + 64 * u), 2 * j, 3,
                                  _mm512_set1_epi32(0x18181818), many);
    return plus_bits(low, load_512(hm + 64 * u), 4 * n + j, 5, _mm512_set1_epi32(0x20202020), many);
}

static FM_ALWAYS_INLINE __m512i scale_q2_k(const uint8_t *p, int k)
{
    const __m512i s = load_512(p + 64 * (k / 4));
    return byte_twice_u16(_mm512_and_si512(s, _mm512_set1_epi32(0x0f0f0f0f)), k % 4);
}

static FM_ALWAYS_INLINE __m512i minimum_q2_k(const uint8_t *p, int k)
{
    const __m512i s = _mm512_srli_epi32(load_512(p + 64 * (k / 4)), 4);
    return byte_u32(_mm512_and_si512(s, _mm512_set1_epi32(0x0f0f0f0f)), k % 4);
}

/* Two weights of at most 3 lie in each 16-bit word; a product with a scale of at most 15 stays
 * below 256, so a 16-bit multiplication handles both bytes. */
static FM_ALWAYS_INLINE __m512i unit_q2_k(const uint8_t *p, int k, int u, const int many)
{
    (void)many;
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const qs = p + 16 * 16 + (size_t)(8 * n + 4 * g) * 64;
    return _mm512_and_si512(right(load_512(qs + 64 * u), 2 * j), _mm512_set1_epi32(0x03030303));
}

/* 6 bits less 32: nibble k of a dword, pair k of a word. */
static FM_ALWAYS_INLINE __m512i scale_iq4_xs(const uint8_t *p, int k)
{
    const __m512i high = _mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p + 2 * 16))), 4);
    const __m512i nibble =
        _mm512_and_si512(right(load_512(p + 4 * 16), 4 * k), _mm512_set1_epi32(15));
    const __m512i six = plus_masked(nibble, right(high, 2 * k), _mm512_set1_epi32(0x30));
    return _mm512_sub_epi32(six, _mm512_set1_epi32(32));
}

/* The book's values plus 128. */
static FM_ALWAYS_INLINE __m512i unit_iq4_xs(const uint8_t *p, int k, int u, const int many)
{
    (void)many;
    const __m512i value =
        _mm512_xor_si512(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fm_book_iq4)),
                         _mm512_set1_epi8(-128));
    const __m512i v = load_512(p + 8 * 16 + (size_t)k * 4 * 64 + 64 * (u % 4));
    return _mm512_shuffle_epi8(value, _mm512_and_si512(u < 4 ? v : _mm512_srli_epi32(v, 4),
                                                       _mm512_set1_epi32(0x0f0f0f0f)));
}

static const shape_256 shape_q2_k = {.block_bytes = 84,
                                     .d_at = 80,
                                     .m_at = 82,
                                     .n_group = 16,
                                     .n_unit = 4,
                                     .n_part = 1,
                                     .min = MIN_16,
                                     .scale = SCALE_WEIGHTS,
                                     .scales_first = 2,
                                     .in_step = 2,
                                     .order = FM_READ_BY_FIELDS};
static const shape_256 shape_q3_k = {.block_bytes = 110,
                                     .d_at = 108,
                                     .n_group = 16,
                                     .n_unit = 4,
                                     .offset_32 = 1,
                                     .down = 3,
                                     .n_part = 1,
                                     .scales_first = 8,
                                     .in_step = 9,
                                     .order = FM_READ_BY_FIELDS};
static const shape_256 shape_q4_k = {.block_bytes = 144,
                                     .d_at = 0,
                                     .m_at = 2,
                                     .n_group = 8,
                                     .n_unit = 8,
                                     .odd_up = 4,
                                     .n_part = 1,
                                     .min = MIN_32,
                                     .scales_first = 2,
                                     .in_step = 5,
                                     .order = FM_READ_IN_ORDER};
static const shape_256 shape_q5_k = {.block_bytes = 176,
                                     .d_at = 0,
                                     .m_at = 2,
                                     .n_group = 8,
                                     .n_unit = 8,
                                     .n_part = 1,
                                     .min = MIN_32,
                                     .scales_first = 2,
                                     .in_step = 3,
                                     .order = FM_READ_BY_FIELDS};
static const shape_256 shape_q6_k = {.block_bytes = 210,
                                     .d_at = 208,
                                     .n_group = 16,
                                     .n_unit = 4,
                                     .offset_32 = 1,
                                     .n_part = 2,
                                     .rolled = 1,
                                     .scales_first = 2,
                                     .in_step = 5,
                                     .order = FM_READ_BY_FIELDS};
static const shape_256 shape_iq4_xs = {.block_bytes = 136,
                                       .d_at = 0,
                                       .n_group = 8,
                                       .n_unit = 8,
                                       .offset_32 = 4,
                                       .n_part = 2,
                                       .scales_first = 2,
                                       .in_step = 3,
                                       .order = FM_READ_IN_ORDER};

#endif
