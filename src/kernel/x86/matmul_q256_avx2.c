/* Panel kernels of the formats with blocks of 256 for several tokens, for AVX2. A lane is a row; the two halves of a
 * panel are computed one after the other.
 *
 * All formats have the same shape: a head (scales), and groups of 16 columns whose weights are
 * small unsigned integers with one scale. A format supplies two functions, one that reads the head
 * of 8 blocks and one that takes a group apart; half_256 does the sums: 16-bit pair sums
 * (matmul_avx2.h says how many fit), which vpmaddwd multiplies by the scale, 32 times the scale for
 * the high plane, and joins to 32 bits.
 *
 * Ranges: the sum of a block (of half a block in Q6_K) fits 32 bits, see quant.h. With unsigned
 * weights partial results may not fit, but they are computed modulo 2^32, so the sum is right all
 * the same. A scale is at most 128, so 32 times it fits 16 bits.
 */
#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

typedef struct {
    __m256i sc[16]; /* scale of group k, the same i16 twice                             */
    __m256i mn[16]; /* MIN_32: i16 pairs (32 m, m); MIN_16: i32; offset: scales as i32  */
    __m256 d, m;
} head_256;

typedef void head_fn(head_256 *, const uint8_t *, int); /* panel, half */
typedef void group_fn(__m256i *, const uint8_t *, int); /* panel + 32 * half, group */

/* How minima meet the sums of v: per 16 columns, or per 32 as pairs with the sums of hi and lo. */
typedef enum { MIN_NONE, MIN_16, MIN_32 } min_form;

/* Properties of a format that the compiler resolves. */
typedef struct {
    int block_bytes;
    int n_pair; /* units whose pair sums with the high plane fit 16 bits: 2 or 4, or 1 for
                     signed weights, whose sign moves to the activation            */
    int offset; /* subtracted from every q; 0 for formats with a minimum         */
    int n_part; /* float steps per block                                         */
    min_form min;
} shape_256;

/* Pair sums of a group and 16 columns of one plane: of units 0 and 1 in the first, 2 and 3 in the
 * second. */
static FM_ALWAYS_INLINE void pair_sums(__m256i p[2], const __m256i *w, const int8_t *plane)
{
    FM_UNROLL
    for (int i = 0; i < 2; i++)
        p[i] = _mm256_add_epi16(_mm256_maddubs_epi16(w[2 * i], repeat_32(plane + 8 * i)),
                                _mm256_maddubs_epi16(w[2 * i + 1], repeat_32(plane + 8 * i + 4)));
}

/* The same for signed weights, pair sums of every unit. */
static FM_ALWAYS_INLINE void signed_pair_sums(__m256i p[4], const __m256i *w, const int8_t *plane)
{
    FM_UNROLL
    for (int u = 0; u < 4; u++)
        p[u] = _mm256_maddubs_epi16(_mm256_abs_epi8(w[u]),
                                    _mm256_sign_epi8(repeat_32(plane + 4 * u), w[u]));
}

/* Group k of a block for nt tokens. */
static FM_ALWAYS_INLINE void add_group(__m256i *sum, const head_256 *h, const uint8_t *half_panel,
                                       const fm_act_i13_256 *const *x, const int nt,
                                       const shape_256 shape, group_fn *group, int k)
{
    __m256i w[4];
    group(w, half_panel, k);
    const __m256i sc = h->sc[k], sc_hi = _mm256_slli_epi16(sc, FM_ACT_256_SHIFT);
    FM_UNROLL
    for (int t = 0; t < nt; t++) {
        __m256i hi[4], lo[4];
        if (shape.n_pair == 1) {
            signed_pair_sums(hi, w, x[t]->hi + 16 * k);
            signed_pair_sums(lo, w, x[t]->lo + 16 * k);
            __m256i s = _mm256_madd_epi16(
                _mm256_add_epi16(_mm256_add_epi16(lo[0], lo[1]), _mm256_add_epi16(lo[2], lo[3])),
                sc);
            FM_UNROLL
            for (int u = 0; u < 4; u++) s = _mm256_add_epi32(s, _mm256_madd_epi16(hi[u], sc_hi));
            sum[t] = _mm256_add_epi32(sum[t], s);
            continue;
        }
        pair_sums(hi, w, x[t]->hi + 16 * k);
        pair_sums(lo, w, x[t]->lo + 16 * k);
        __m256i s = _mm256_madd_epi16(_mm256_add_epi16(lo[0], lo[1]), sc);
        if (shape.n_pair == 4) {
            s = _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_add_epi16(hi[0], hi[1]), sc_hi));
        } else {
            s = _mm256_add_epi32(s, _mm256_madd_epi16(hi[0], sc_hi));
            s = _mm256_add_epi32(s, _mm256_madd_epi16(hi[1], sc_hi));
        }
        sum[t] = _mm256_add_epi32(sum[t], s);
    }
}

/* Sum of mn times sums of v for one token, over groups [k0, k1) of 16 columns. */
static FM_ALWAYS_INLINE __m256i sum_minima(const head_256 *h, const fm_act_i13_256 *x,
                                           const min_form min, const int k0, const int k1)
{
    __m256i low = _mm256_setzero_si256();
    if (min == MIN_32) {
        FM_UNROLL
        for (int k = k0 / 2; k < k1 / 2; k++)
            low = _mm256_add_epi32(low, _mm256_madd_epi16(h->mn[k], repeat_32(x->sum32[k])));
    } else {
        FM_UNROLL
        for (int k = k0; k < k1; k++)
            low =
                _mm256_sub_epi32(low, _mm256_mullo_epi32(h->mn[k], _mm256_set1_epi32(x->nsum[k])));
    }
    return low;
}

/* Integer sums of one block for nt tokens and 8 rows, then the float step of quant.h. */
static FM_ALWAYS_INLINE void half_256(float *out, const uint8_t *panel, int64_t n_block,
                                      const void *const *act, const int nt, const shape_256 shape,
                                      head_fn *head, group_fn *group, int half)
{
    const int n_group = 16 / shape.n_part, bytes = shape.block_bytes * FM_PANEL_ROWS;
    __m256 acc[4];
    FM_UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm256_setzero_ps();
    for (int64_t b = 0; b < n_block; b++, panel += bytes) {
        const fm_act_i13_256 *x[4];
        head_256 h;
        FM_UNROLL
        for (int t = 0; t < nt; t++) x[t] = (const fm_act_i13_256 *)act[t] + b;
        head(&h, panel, half);
        FM_UNROLL
        for (int part = 0; part < shape.n_part; part++) {
            const int k0 = n_group * part, k1 = k0 + n_group;
            __m256i sum[4];
            FM_UNROLL
            for (int t = 0; t < nt; t++) sum[t] = _mm256_setzero_si256();
            for (int k = k0; k < k1; k++)
                add_group(sum, &h, panel + 32 * half, x, nt, shape, group, k);
            FM_UNROLL
            for (int t = 0; t < nt; t++) {
                const __m256 dx = _mm256_set1_ps(x[t]->d);
                const __m256i low = sum_minima(&h, x[t], shape.min, k0, k1);
                if (shape.offset != 0)
                    sum[t] = _mm256_sub_epi32(
                        sum[t], _mm256_mullo_epi32(low, _mm256_set1_epi32(shape.offset)));
                __m256 term = _mm256_mul_ps(_mm256_mul_ps(h.d, dx), _mm256_cvtepi32_ps(sum[t]));
                if (shape.min != MIN_NONE)
                    term = _mm256_sub_ps(
                        term, _mm256_mul_ps(_mm256_mul_ps(h.m, dx), _mm256_cvtepi32_ps(low)));
                acc[t] = _mm256_add_ps(acc[t], term);
            }
        }
    }
    FM_UNROLL
    for (int t = 0; t < nt; t++) _mm256_storeu_ps(out + t * FM_PANEL_ROWS + 8 * half, acc[t]);
}

/* Byte i of every lane, sign-extended to the same i16 in both halves of the lane. */
static FM_ALWAYS_INLINE __m256i byte_twice(__m256i v, int i)
{
    const __m256i spread = _mm256_set1_epi32((int)(0x00800080u | (uint32_t)i * 0x01000100u));
    const __m256i lane = _mm256_set_epi32(0x0c000c00, 0x08000800, 0x04000400, 0, 0x0c000c00,
                                          0x08000800, 0x04000400, 0);
    return _mm256_srai_epi16(_mm256_shuffle_epi8(v, _mm256_add_epi8(spread, lane)), 8);
}

/* Four vectors of 4 scales, bytes, groups 4j .. 4j+3; minima or second use in mn. */
static FM_ALWAYS_INLINE void expand_head(head_256 *h, const __m256i *sc, const __m256i *mn)
{
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        FM_UNROLL
        for (int i = 0; i < 4; i++) {
            h->sc[4 * j + i] = byte_twice(sc[j], i);
            h->mn[4 * j + i] = _mm256_srai_epi32(byte_twice(mn[j], i), 16);
        }
    }
}

/* Byte i of every lane, not above 127, as the pair of i16 (32 byte, byte). */
static FM_ALWAYS_INLINE __m256i byte_pair_32(__m256i v, int i)
{
    return _mm256_mullo_epi16(byte_twice(v, i),
                              _mm256_set1_epi32(0x00010000 | 1 << FM_ACT_256_SHIFT));
}

/* 6-bit scales and minima of Q4_K and Q5_K; p at the 12 bytes. One serves 32 columns: two groups
 * and a sum of 32. */
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
        h->sc[2 * i] = h->sc[2 * i + 1] = byte_twice(sc0, i);
        h->sc[8 + 2 * i] = h->sc[9 + 2 * i] = byte_twice(sc1, i);
        h->mn[i] = byte_pair_32(mn0, i);
        h->mn[4 + i] = byte_pair_32(mn1, i);
    }
}

static FM_ALWAYS_INLINE void head_q4_k(head_256 *h, const uint8_t *p, int half)
{
    h->d = load_half(p + 16 * half);
    h->m = load_half(p + 2 * 16 + 16 * half);
    head_6bit(h, p + 4 * 16 + 32 * half);
}

/* Columns 16 k ..: nibble k / 2 % 2 of units 8 (k / 4) + 4 (k % 2) + u of qs. */
static FM_ALWAYS_INLINE void group_q4_k(__m256i *w, const uint8_t *p, int k)
{
    const uint8_t *const qs = p + 16 * 16 + (size_t)(8 * (k >> 2) + 4 * (k & 1)) * 64;
    const __m128i shift = _mm_cvtsi32_si128(4 * (k >> 1 & 1));
    FM_UNROLL
    for (int u = 0; u < 4; u++) w[u] = low_nibbles(_mm256_srl_epi32(load_256(qs + 64 * u), shift));
}

/* The fifth bit is bit k / 2 of the bytes of qh. */
static FM_ALWAYS_INLINE void group_q5_k(__m256i *w, const uint8_t *p, int k)
{
    const uint8_t *const qh = p + 16 * 16 + (size_t)(4 * (k & 1)) * 64;
    const uint8_t *const qs = p + 48 * 16 + (size_t)(8 * (k >> 2) + 4 * (k & 1)) * 64;
    const __m128i shift = _mm_cvtsi32_si128(4 * (k >> 1 & 1));
    const __m128i shift_high = _mm_cvtsi32_si128(k >> 1);
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m256i bit = _mm256_and_si256(_mm256_srl_epi32(load_256(qh + 64 * u), shift_high),
                                             _mm256_set1_epi32(0x01010101));
        w[u] = _mm256_or_si256(low_nibbles(_mm256_srl_epi32(load_256(qs + 64 * u), shift)),
                               _mm256_slli_epi32(bit, 4));
    }
}

static FM_ALWAYS_INLINE void head_q6_k(head_256 *h, const uint8_t *p, int half)
{
    __m256i sc[4];
    h->d = load_half(p + 208 * 16 + 16 * half);
    h->m = _mm256_setzero_ps();
    FM_UNROLL
    for (int j = 0; j < 4; j++) sc[j] = load_256(p + 192 * 16 + 64 * j + 32 * half);
    expand_head(h, sc, sc);
}

/* Group k is columns 32 c + 16 g of half n, k = 8 n + 2 c + g: nibble c / 2 of ql, pair c of qh. */
static FM_ALWAYS_INLINE void group_q6_k(__m256i *w, const uint8_t *p, int k)
{
    const int n = k >> 3, c = k >> 1 & 3, g = k & 1;
    const uint8_t *const ql = p + (size_t)(16 * n + 8 * (c & 1) + 4 * g) * 64;
    const uint8_t *const qh = p + 128 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m128i shift = _mm_cvtsi32_si128(4 * (c >> 1)), shift_high = _mm_cvtsi32_si128(2 * c);
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m256i high = _mm256_and_si256(_mm256_srl_epi32(load_256(qh + 64 * u), shift_high),
                                              _mm256_set1_epi32(0x03030303));
        w[u] = _mm256_or_si256(low_nibbles(_mm256_srl_epi32(load_256(ql + 64 * u), shift)),
                               _mm256_slli_epi32(high, 4));
    }
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
    FM_UNROLL
    for (int j = 0; j < 4; j++) sc[j] = _mm256_sub_epi8(sc[j], _mm256_set1_epi8(32));
    h->d = load_half(p + 108 * 16 + 16 * half);
    h->m = _mm256_setzero_ps();
    expand_head(h, sc, sc);
}

/* Group k = 8 n + 2 j + g: bit pair j of units 8 n + 4 g + u of qs, bit 4 n + j of hmask. */
static FM_ALWAYS_INLINE void group_q3_k(__m256i *w, const uint8_t *p, int k)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const hm = p + (size_t)g * 4 * 64;
    const uint8_t *const qs = p + 32 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m128i shift = _mm_cvtsi32_si128(2 * j), shift_high = _mm_cvtsi32_si128(4 * n + j);
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m256i low = _mm256_and_si256(_mm256_srl_epi32(load_256(qs + 64 * u), shift),
                                             _mm256_set1_epi32(0x03030303));
        const __m256i bit = _mm256_and_si256(_mm256_srl_epi32(load_256(hm + 64 * u), shift_high),
                                             _mm256_set1_epi32(0x01010101));
        w[u] = _mm256_or_si256(low, _mm256_slli_epi32(bit, 2));
    }
}

static FM_ALWAYS_INLINE void head_q2_k(head_256 *h, const uint8_t *p, int half)
{
    __m256i sc[4], mn[4];
    h->d = load_half(p + 80 * 16 + 16 * half);
    h->m = load_half(p + 82 * 16 + 16 * half);
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        const __m256i s = load_256(p + 64 * j + 32 * half);
        sc[j] = low_nibbles(s);
        mn[j] = high_nibbles(s);
    }
    expand_head(h, sc, mn);
}

static FM_ALWAYS_INLINE void group_q2_k(__m256i *w, const uint8_t *p, int k)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const qs = p + 16 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m128i shift = _mm_cvtsi32_si128(2 * j);
    FM_UNROLL
    for (int u = 0; u < 4; u++)
        w[u] = _mm256_and_si256(_mm256_srl_epi32(load_256(qs + 64 * u), shift),
                                _mm256_set1_epi32(0x03030303));
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
        h->sc[2 * k] = h->sc[2 * k + 1] = _mm256_unpacklo_epi16(narrow, narrow);
    }
}

/* Columns 16 k ..: nibble k % 2 of units 4 (k / 2) + u of qs. */
static FM_ALWAYS_INLINE void group_iq4_xs(__m256i *w, const uint8_t *p, int k)
{
    const __m256i value =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)fm_book_iq4));
    const uint8_t *const qs = p + 8 * 16 + (size_t)(k >> 1) * 4 * 64;
    const __m128i shift = _mm_cvtsi32_si128(4 * (k & 1));
    FM_UNROLL
    for (int u = 0; u < 4; u++)
        w[u] =
            _mm256_shuffle_epi8(value, low_nibbles(_mm256_srl_epi32(load_256(qs + 64 * u), shift)));
}

static const shape_256 shape_q2_k = {84, 4, 0, 1, MIN_16};
static const shape_256 shape_q3_k = {110, 4, 4, 1, MIN_NONE};
static const shape_256 shape_q4_k = {144, 4, 0, 1, MIN_32};
static const shape_256 shape_q5_k = {176, 4, 0, 1, MIN_32};
static const shape_256 shape_q6_k = {210, 2, 32, 2, MIN_NONE};
static const shape_256 shape_iq4_xs = {136, 1, 0, 2, MIN_NONE};

#define KERNEL(type, nt, head, group)                                                              \
    static void type##_##nt(float *out, const uint8_t *panel, int64_t n_block,                     \
                            const void *const *act)                                                \
    {                                                                                              \
        half_256(out, panel, n_block, act, nt, shape_##type, head, group, 0);                      \
        half_256(out, panel, n_block, act, nt, shape_##type, head, group, 1);                      \
    }
#define KERNELS(type, head, group)                                                                 \
    KERNEL(type, 2, head, group)                                                                   \
    KERNEL(type, 4, head, group)
KERNELS(q2_k, head_q2_k, group_q2_k)
KERNELS(q3_k, head_q3_k, group_q3_k)
KERNELS(q4_k, head_q4_k, group_q4_k)
KERNELS(q5_k, head_q4_k, group_q5_k)
KERNELS(q6_k, head_q6_k, group_q6_k)
KERNELS(iq4_xs, head_iq4_xs, group_iq4_xs)

const fm_panel_kernels fm_panels_256_avx2[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q2_K] = {{fm_panel_q2_k_one_avx2, q2_k_2, q2_k_4, NULL}},
    [FM_TYPE_Q3_K] = {{fm_panel_q3_k_one_avx2, q3_k_2, q3_k_4, NULL}},
    [FM_TYPE_Q4_K] = {{fm_panel_q4_k_one_avx2, q4_k_2, q4_k_4, NULL}},
    [FM_TYPE_Q5_K] = {{fm_panel_q5_k_one_avx2, q5_k_2, q5_k_4, NULL}},
    [FM_TYPE_Q6_K] = {{fm_panel_q6_k_one_avx2, q6_k_2, q6_k_4, NULL}},
    [FM_TYPE_IQ4_XS] = {{fm_panel_iq4_xs_one_avx2, iq4_xs_2, iq4_xs_4, NULL}},
};

#endif
