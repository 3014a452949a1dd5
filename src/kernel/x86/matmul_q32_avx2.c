/* Panel kernels of the formats with blocks of 32, for AVX2. A lane is a row; the two halves of a
 * panel are computed together for one token, one after the other for more.
 *
 * Weights are brought to unsigned bytes q + offset, and the sum starts at -offset * (sum v). Q8_0
 * and IQ4_NL are the exception: weights stay signed, and their sign moves to the activation. The largest
 * sum is 32 * 128 * 16256 = 6.7e7, per block, so the row length does not matter.
 */
#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

typedef struct {
    __m256i w[8]; /* unit u: columns 4u .. 4u+3 */
    __m256 d, m;
} block_256;

typedef void block_fn(block_256 *, const uint8_t *, int); /* panel, half */

/* For one token: unit u of a half as unsigned bytes (panel, half, u), and the scales (panel, half). */
typedef __m256i unit_fn(const uint8_t *, int, int);
typedef __m256 scale_fn(const uint8_t *, int);

typedef struct {
    int block_bytes;
    int n_pair; /* units whose pair sums with the high plane fit 16 bits: 1 (signed), 4 or 8; 0: none */
    int offset; /* in the unsigned weights */
    int has_min;
} shape_32;

static FM_ALWAYS_INLINE __m256i pairs(__m256i w, const int8_t *q, const int is_signed)
{
    const __m256i x = repeat_32(q);
    /* |-128| is 128 as an unsigned byte, and planes are at least -127, so this is exact: two
     * products of 128 * 127 are 32512. */
    if (is_signed) return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_maddubs_epi16(w, x);
}

/* s + factor * (sum of w and one plane); n_pair units share a 16-bit sum. */
static FM_ALWAYS_INLINE __m256i add_plane(__m256i s, const __m256i *w, const int8_t *plane,
                                          const int n_pair, const int is_signed, const int factor)
{
    FM_UNROLL
    for (int u = 0; u < 8; u += n_pair) {
        __m256i p = pairs(w[u], plane + 4 * u, is_signed);
        FM_UNROLL
        for (int i = 1; i < n_pair; i++)
            p = _mm256_add_epi16(p, pairs(w[u + i], plane + 4 * (u + i), is_signed));
        s = _mm256_add_epi32(s, _mm256_madd_epi16(p, _mm256_set1_epi16((int16_t)factor)));
    }
    return s;
}

static FM_ALWAYS_INLINE void half_32(float *out, const uint8_t *panel, int64_t n_block,
                                     const void *const *act, const int nt, const shape_32 shape,
                                     block_fn *unpack, int half)
{
    const int is_signed = shape.n_pair == 1;
    __m256 acc[4];
    FM_UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm256_setzero_ps();
    for (int64_t b = 0; b < n_block; b++, panel += (size_t)shape.block_bytes * FM_PANEL_ROWS) {
        block_256 wb;
        unpack(&wb, panel, half);
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            const fm_act_i15_32 *const x = (const fm_act_i15_32 *)act[t] + b;
            __m256i s = _mm256_set1_epi32(shape.offset * x->nsum);
            s = add_plane(s, wb.w, x->hi, shape.n_pair, is_signed, 1 << FM_ACT_32_SHIFT);
            s = add_plane(s, wb.w, x->lo, is_signed ? 1 : 8, is_signed, 1);
            const __m256 scale = _mm256_mul_ps(wb.d, _mm256_set1_ps(x->d));
            __m256 term = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(s));
            if (shape.has_min)
                term = _mm256_add_ps(term, _mm256_mul_ps(wb.m, _mm256_set1_ps(x->dsum)));
            acc[t] = _mm256_add_ps(acc[t], term);
        }
    }
    FM_UNROLL
    for (int t = 0; t < nt; t++) _mm256_storeu_ps(out + t * FM_PANEL_ROWS + 8 * half, acc[t]);
}

/* fm_e8m0_half for 8 exponents. */
static FM_ALWAYS_INLINE __m256 e8m0_half(const uint8_t *p)
{
    const __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
}

/* Doubled values of E2M1 plus 12, so that all are unsigned, by nibble. */
static FM_ALWAYS_INLINE __m256i book_e2m1_unsigned(void)
{
    return _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
}

/* ---- one token --------------------------------------------------------------------------- */

/* v of columns 4u and 4u + 2, 4u + 1 and 4u + 3, as words. */
static FM_ALWAYS_INLINE void words_of(int32_t even[8], int32_t odd[8], const fm_act_i15_32 *x)
{
    const __m256i hi = load_256(x->hi), lo = load_256(x->lo);
    const __m256i hi_even = _mm256_srai_epi16(_mm256_slli_epi16(hi, 8), 8 - FM_ACT_32_SHIFT);
    const __m256i hi_odd = _mm256_slli_epi16(_mm256_srai_epi16(hi, 8), FM_ACT_32_SHIFT);
    const __m256i lo_even = _mm256_srai_epi16(_mm256_slli_epi16(lo, 8), 8);
    _mm256_storeu_si256((__m256i *)even, _mm256_add_epi16(hi_even, lo_even));
    _mm256_storeu_si256((__m256i *)odd, _mm256_add_epi16(hi_odd, _mm256_srai_epi16(lo, 8)));
    in_memory(even);
    in_memory(odd);
}

/* Sum of w v of a block for both halves; unsigned weights with products of planes. */
static FM_ALWAYS_INLINE void sum_planes(__m256i s[2], const uint8_t *panel, const fm_act_i15_32 *x,
                                        const shape_32 shape, unit_fn *unit)
{
    __m256i hi[2], lo[2], high[2];
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        const __m256i x_hi = repeat_32(x->hi + 4 * u), x_lo = repeat_32(x->lo + 4 * u);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            const __m256i w = unit(panel, half, u);
            const __m256i p = _mm256_maddubs_epi16(w, x_hi), q = _mm256_maddubs_epi16(w, x_lo);
            hi[half] = u % shape.n_pair == 0 ? p : settled(_mm256_add_epi16(hi[half], p));
            lo[half] = u == 0 ? q : settled(_mm256_add_epi16(lo[half], q));
            if (u % shape.n_pair != shape.n_pair - 1) continue;
            const __m256i sum =
                _mm256_madd_epi16(hi[half], _mm256_set1_epi16(1 << FM_ACT_32_SHIFT));
            high[half] = u < shape.n_pair ? sum : settled(_mm256_add_epi32(high[half], sum));
        }
    }
    FM_UNROLL
    for (int half = 0; half < 2; half++)
        s[half] = _mm256_add_epi32(high[half], _mm256_madd_epi16(lo[half], _mm256_set1_epi16(1)));
}

/* The same with weights above what a pair of products leaves room for (n_pair 0): words times words. */
static FM_ALWAYS_INLINE void sum_words(__m256i s[2], const uint8_t *panel, const fm_act_i15_32 *x,
                                       unit_fn *unit)
{
    int32_t even[8], odd[8];
    words_of(even, odd, x);
    s[0] = s[1] = _mm256_setzero_si256();
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        const __m256i x_even = repeat_32(even + u), x_odd = repeat_32(odd + u);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            const __m256i w = unit(panel, half, u);
            s[half] = settled(_mm256_add_epi32(s[half], _mm256_madd_epi16(even_bytes(w), x_even)));
            s[half] = settled(_mm256_add_epi32(s[half], _mm256_madd_epi16(odd_bytes(w), x_odd)));
        }
    }
}

/* One token: both halves together, so that an activation is spread over the lanes once for 16 rows. */
static FM_ALWAYS_INLINE void one_32(float *out, const uint8_t *panel, int64_t n_block,
                                    const void *const *act, const shape_32 shape, unit_fn *unit,
                                    scale_fn *scale)
{
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    const fm_act_i15_32 *x = act[0];
    __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t b = 0; b < n_block; b++, panel += bytes, x++) {
        __m256i s[2];
        FM_UNROLL
        for (int i = 0; i < bytes / 64; i++)
            _mm_prefetch((const char *)(panel + FM_PANEL_AHEAD_BYTES + 64 * i), _MM_HINT_T1);
        if (shape.n_pair == 0)
            sum_words(s, panel, x, unit);
        else
            sum_planes(s, panel, x, shape, unit);
        const __m256i start = _mm256_set1_epi32(shape.offset * x->nsum);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            if (shape.offset != 0) s[half] = _mm256_add_epi32(s[half], start);
            const __m256 d = scale(panel, half);
            __m256 term =
                _mm256_mul_ps(_mm256_mul_ps(d, _mm256_set1_ps(x->d)), _mm256_cvtepi32_ps(s[half]));
            if (shape.has_min)
                term = _mm256_add_ps(term, _mm256_mul_ps(load_half(panel + 2 * 16 + 16 * half),
                                                         _mm256_set1_ps(x->dsum)));
            acc[half] = _mm256_add_ps(acc[half], term);
        }
    }
    _mm256_storeu_ps(out, acc[0]);
    _mm256_storeu_ps(out + 8, acc[1]);
}

/* Unit u of 8 in 16 bytes of nibbles per row. */
static FM_ALWAYS_INLINE __m256i unit_nibbles(const uint8_t *qs, int half, int u)
{
    const __m256i v = load_256(qs + 64 * (u % 4) + 32 * half);
    return u < 4 ? low_nibbles(v) : high_nibbles(v);
}

static FM_ALWAYS_INLINE __m256i unit_q4_0(const uint8_t *p, int half, int u)
{
    return unit_nibbles(p + 2 * 16, half, u);
}

static FM_ALWAYS_INLINE __m256i unit_q4_1(const uint8_t *p, int half, int u)
{
    return unit_nibbles(p + 4 * 16, half, u);
}

static FM_ALWAYS_INLINE __m256i unit_q8_0(const uint8_t *p, int half, int u)
{
    return _mm256_xor_si256(load_256(p + 2 * 16 + 64 * u + 32 * half),
                            _mm256_set1_epi8((char)0x80));
}

static FM_ALWAYS_INLINE __m256i unit_iq4_nl(const uint8_t *p, int half, int u)
{
    return _mm256_shuffle_epi8(book_iq4_unsigned(), unit_nibbles(p + 2 * 16, half, u));
}

static FM_ALWAYS_INLINE __m256i unit_mxfp4(const uint8_t *p, int half, int u)
{
    return _mm256_shuffle_epi8(book_e2m1_unsigned(), unit_nibbles(p + 16, half, u));
}

static FM_ALWAYS_INLINE __m256 scale_half(const uint8_t *p, int half)
{
    return load_half(p + 16 * half);
}

static FM_ALWAYS_INLINE __m256 scale_e8m0(const uint8_t *p, int half)
{
    return e8m0_half(p + 8 * half);
}

/* ---- several tokens ------------------------------------------------------------------------ */

/* 16 bytes of nibbles per row: low nibbles are columns 0..15, high ones 16..31. */
static FM_ALWAYS_INLINE void unpack_nibbles(__m256i *w, const uint8_t *qs, int half)
{
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m256i v = load_256(qs + 64 * u + 32 * half);
        w[u] = low_nibbles(v);
        w[4 + u] = high_nibbles(v);
    }
}

/* Sets bit 4 of column c where bit c of the row's dword in qh is set. */
static FM_ALWAYS_INLINE void add_fifth_bits(__m256i *w, const uint8_t *qh, int half)
{
    const __m256i bits = load_256(qh + 32 * half);
    const __m256i lane = _mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c,
                                          0x08080808, 0x04040404, 0);
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        /* Byte u / 2 of the dword to all four bytes, then one bit of each. */
        const __m256i from = _mm256_add_epi8(lane, _mm256_set1_epi8((char)(u / 2)));
        const __m256i bit = _mm256_set1_epi32(u & 1 ? (int)0x80402010u : 0x08040201);
        const __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(bits, from), bit);
        w[u] = _mm256_or_si256(w[u],
                               _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), _mm256_set1_epi8(16)));
    }
}

static FM_ALWAYS_INLINE void unpack_q4_0(block_256 *b, const uint8_t *p, int half)
{
    b->d = load_half(p + 16 * half);
    unpack_nibbles(b->w, p + 2 * 16, half);
}

static FM_ALWAYS_INLINE void unpack_q4_1(block_256 *b, const uint8_t *p, int half)
{
    b->d = load_half(p + 16 * half);
    b->m = load_half(p + 2 * 16 + 16 * half);
    unpack_nibbles(b->w, p + 4 * 16, half);
}

static FM_ALWAYS_INLINE void unpack_q5_0(block_256 *b, const uint8_t *p, int half)
{
    b->d = load_half(p + 16 * half);
    unpack_nibbles(b->w, p + 6 * 16, half);
    add_fifth_bits(b->w, p + 2 * 16, half);
}

static FM_ALWAYS_INLINE void unpack_q5_1(block_256 *b, const uint8_t *p, int half)
{
    b->d = load_half(p + 16 * half);
    b->m = load_half(p + 2 * 16 + 16 * half);
    unpack_nibbles(b->w, p + 8 * 16, half);
    add_fifth_bits(b->w, p + 4 * 16, half);
}

static FM_ALWAYS_INLINE void unpack_q8_0(block_256 *b, const uint8_t *p, int half)
{
    b->d = load_half(p + 16 * half);
    FM_UNROLL
    for (int u = 0; u < 8; u++) b->w[u] = load_256(p + 2 * 16 + 64 * u + 32 * half);
}

static FM_ALWAYS_INLINE void unpack_mxfp4(block_256 *b, const uint8_t *p, int half)
{
    const __m256i value = book_e2m1_unsigned();
    b->d = e8m0_half(p + 8 * half);
    unpack_nibbles(b->w, p + 1 * 16, half);
    FM_UNROLL
    for (int u = 0; u < 8; u++) b->w[u] = _mm256_shuffle_epi8(value, b->w[u]);
}

static FM_ALWAYS_INLINE void unpack_iq4_nl(block_256 *b, const uint8_t *p, int half)
{
    const __m256i value =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)fm_book_iq4));
    b->d = load_half(p + 16 * half);
    unpack_nibbles(b->w, p + 2 * 16, half);
    FM_UNROLL
    for (int u = 0; u < 8; u++) b->w[u] = _mm256_shuffle_epi8(value, b->w[u]);
}

static const shape_32 shape_q4_0 = {18, 8, 8, 0};
static const shape_32 shape_q4_1 = {20, 8, 0, 1};
static const shape_32 shape_q5_0 = {22, 4, 16, 0};
static const shape_32 shape_q5_1 = {24, 4, 0, 1};
static const shape_32 shape_q8_0 = {34, 1, 0, 0};
static const shape_32 shape_mxfp4 = {17, 4, 12, 0};
static const shape_32 shape_iq4_nl = {18, 1, 0, 0};
/* One token: the weights are unsigned, with 128 added. */
static const shape_32 shape_q8_0_one = {34, 0, 128, 0};
static const shape_32 shape_iq4_nl_one = {18, 0, 128, 0};

#define KERNEL(type, nt)                                                                           \
    static void type##_##nt(float *out, const uint8_t *panel, int64_t n_block,                     \
                            const void *const *act)                                                \
    {                                                                                              \
        half_32(out, panel, n_block, act, nt, shape_##type, unpack_##type, 0);                     \
        half_32(out, panel, n_block, act, nt, shape_##type, unpack_##type, 1);                     \
    }
#define ONE(type, shape, unit, scale)                                                              \
    static void type##_one(float *out, const uint8_t *panel, int64_t n_block,                      \
                           const void *const *act)                                                 \
    {                                                                                              \
        one_32(out, panel, n_block, act, shape, unit, scale);                                      \
    }
ONE(q4_0, shape_q4_0, unit_q4_0, scale_half)
ONE(q4_1, shape_q4_1, unit_q4_1, scale_half)
ONE(q8_0, shape_q8_0_one, unit_q8_0, scale_half)
ONE(mxfp4, shape_mxfp4, unit_mxfp4, scale_e8m0)
ONE(iq4_nl, shape_iq4_nl_one, unit_iq4_nl, scale_half)

#define KERNELS(type) KERNEL(type, 2) KERNEL(type, 4)
KERNELS(q4_0)
KERNELS(q4_1)
KERNELS(q5_0)
KERNEL(q5_0, 1)
KERNELS(q5_1)
KERNEL(q5_1, 1)
KERNELS(q8_0)
KERNELS(mxfp4)
KERNELS(iq4_nl)

const fm_panel_kernels fm_panels_32_avx2[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q4_0] = {{q4_0_one, q4_0_2, q4_0_4, NULL}},
    [FM_TYPE_Q4_1] = {{q4_1_one, q4_1_2, q4_1_4, NULL}},
    [FM_TYPE_Q5_0] = {{q5_0_1, q5_0_2, q5_0_4, NULL}},
    [FM_TYPE_Q5_1] = {{q5_1_1, q5_1_2, q5_1_4, NULL}},
    [FM_TYPE_Q8_0] = {{q8_0_one, q8_0_2, q8_0_4, NULL}},
    [FM_TYPE_MXFP4] = {{mxfp4_one, mxfp4_2, mxfp4_4, NULL}},
    [FM_TYPE_IQ4_NL] = {{iq4_nl_one, iq4_nl_2, iq4_nl_4, NULL}},
};

#endif
