/* How the formats with blocks of 32 are taken apart by AVX-512, 16 rows at a time, and the float step of a block. A lane
 * is a row. For the files of the sets avx512 and amx; formats of several planes hold some of the same codes. */
#pragma once

#include "kernel/x86/matmul_avx512.h"

#if defined(__x86_64__)

/* Of a block: weights of unit u, columns 4u to 4u + 3, unsigned; its scale d and minimum m. */
typedef __m512i unit_32_fn(const uint8_t *p, int u);
typedef void scales_32_fn(__m512 *d, __m512 *m, const uint8_t *p);

typedef struct {
    int block_bytes;
    int offset; /* of the unsigned weights: a power of two or 0 */
    int has_min;
} shape_32;

/* The float step of quant.h: acc plus what a block with the integer sum s, scale d and minimum m adds for one token, whose
 * block of activations has scale dx and scaled sum dsum. */
static FM_ALWAYS_INLINE __m512 add_block_32(__m512 acc, __m512i s, __m512 d, __m512 m, float dx,
                                            float dsum, const shape_32 shape)
{
    const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(dx));
    __m512 term = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(s));
    if (shape.has_min) term = _mm512_add_ps(term, _mm512_mul_ps(m, _mm512_set1_ps(dsum)));
    return _mm512_add_ps(acc, term);
}

/* s[t] = sum (w - offset) v for nt tokens with activations x [nt], over the 8 units of the block at p; offset: a
 * constant, 0 or a power of two; 128 costs nothing. From three tokens on a unit is taken apart when its turn comes: a whole
 * block leaves too few registers for the sums, and on Zen 4 a vector that is stored takes the time of 1.6 products. */
static FM_ALWAYS_INLINE void dot_block_32(__m512i *s, const uint8_t *p, unit_32_fn *unit,
                                          const int offset, const fm_act_i15_32 *const *x,
                                          const int nt, const int n_plane)
{
    const int8_t *hi[8], *lo[8];
    FM_UNROLL
    for (int t = 0; t < nt; t++) {
        hi[t] = x[t]->hi;
        lo[t] = x[t]->lo;
        s[t] =
            offset == 1 << FM_ACT_32_SHIFT ? _mm512_set1_epi32(x[t]->nsum) : _mm512_setzero_si512();
    }
    if (nt <= 2) {
        __m512i w[8];
        FM_UNROLL
        for (int u = 0; u < 8; u++) w[u] = unit(p, u);
        dot_planes(s, w, 8, hi, lo, nt, n_plane, FM_ACT_32_SHIFT, SUM_AS_COMPILED);
    } else {
        __m512i other[8];
        clear_sums(other, nt);
        FM_UNROLL
        for (int u = 0; u < 8; u++) {
            p = from_here(p);
            add_unit_apart(s, other, unit(p, u), hi, lo, u, nt, n_plane);
        }
        join_sums(s, other, nt, n_plane, FM_ACT_32_SHIFT);
    }
    if (offset == 0 || offset == 1 << FM_ACT_32_SHIFT) return;
    FM_UNROLL
    for (int t = 0; t < nt; t++)
        s[t] = _mm512_add_epi32(s[t], _mm512_slli_epi32(_mm512_set1_epi32(x[t]->nsum),
                                                        (unsigned)__builtin_ctz((unsigned)offset)));
}

/* Unit u of 16 bytes of nibbles per row: low nibbles are columns 0..15, high ones 16..31. */
static FM_ALWAYS_INLINE __m512i nibble_unit(const uint8_t *qs, const int u)
{
    const __m512i v = load_512(qs + 64 * (u % 4));
    return _mm512_and_si512(u < 4 ? v : _mm512_srli_epi32(v, 4), _mm512_set1_epi8(0x0f));
}

/* w plus 16 in column c where bit c of the row's dword in qh is set. */
static FM_ALWAYS_INLINE __m512i plus_fifth_bit(__m512i w, const uint8_t *qh, const int u)
{
    /* Byte u / 2 of the dword to all four bytes, then one bit of each. */
    const __m512i spread = _mm512_set1_epi32((u / 2) * 0x01010101);
    const __m512i lane = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    const __m512i byte = _mm512_shuffle_epi8(load_512(qh), _mm512_add_epi8(spread, lane));
    const __m512i bit = _mm512_set1_epi32(u & 1 ? (int)0x80402010u : 0x08040201);
    return _mm512_or_si512(
        w, _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(byte, bit), _mm512_set1_epi8(16)));
}

static FM_ALWAYS_INLINE __m512i unit_q4_0(const uint8_t *p, int u)
{
    return nibble_unit(p + 2 * 16, u);
}

static FM_ALWAYS_INLINE __m512i unit_q4_1(const uint8_t *p, int u)
{
    return nibble_unit(p + 4 * 16, u);
}

static FM_ALWAYS_INLINE __m512i unit_q5_0(const uint8_t *p, int u)
{
    return plus_fifth_bit(nibble_unit(p + 6 * 16, u), p + 2 * 16, u);
}

static FM_ALWAYS_INLINE __m512i unit_q5_1(const uint8_t *p, int u)
{
    return plus_fifth_bit(nibble_unit(p + 8 * 16, u), p + 4 * 16, u);
}

static FM_ALWAYS_INLINE __m512i unit_q8_0(const uint8_t *p, int u)
{
    return _mm512_xor_si512(load_512(p + 2 * 16 + 64 * u), _mm512_set1_epi8(-128));
}

/* Nibbles to the doubled values of E2M1 plus 16. */
static FM_ALWAYS_INLINE __m512i unit_e2m1(const uint8_t *qs, int u)
{
    const __m512i value = _mm512_broadcast_i32x4(
        _mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4));
    return _mm512_shuffle_epi8(value, nibble_unit(qs, u));
}

static FM_ALWAYS_INLINE __m512i unit_mxfp4(const uint8_t *p, int u)
{
    return unit_e2m1(p + 1 * 16, u);
}

/* The book's values plus 128. */
static FM_ALWAYS_INLINE __m512i unit_iq4_nl(const uint8_t *p, int u)
{
    const __m512i value =
        _mm512_xor_si512(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fm_book_iq4)),
                         _mm512_set1_epi8(-128));
    return _mm512_shuffle_epi8(value, nibble_unit(p + 2 * 16, u));
}

/* One half per row, and of formats with a minimum another one behind them. */
static FM_ALWAYS_INLINE void scales_d(__m512 *d, __m512 *m, const uint8_t *p)
{
    *d = load_half(p);
    *m = _mm512_setzero_ps();
}

static FM_ALWAYS_INLINE void scales_dm(__m512 *d, __m512 *m, const uint8_t *p)
{
    *d = load_half(p);
    *m = load_half(p + 2 * 16);
}

/* fm_e8m0_half for 16 exponents. */
static FM_ALWAYS_INLINE __m512 e8m0_half(const uint8_t *p)
{
    const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    const __mmask16 is_small = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, is_small, small));
}

static FM_ALWAYS_INLINE void scales_e8m0(__m512 *d, __m512 *m, const uint8_t *p)
{
    *d = e8m0_half(p);
    *m = _mm512_setzero_ps();
}

#define scales_q4_0 scales_d
#define scales_q4_1 scales_dm
#define scales_q5_0 scales_d
#define scales_q5_1 scales_dm
#define scales_q8_0 scales_d
#define scales_mxfp4 scales_e8m0
#define scales_iq4_nl scales_d

static const shape_32 shape_q4_0 = {18, 8, 0};
static const shape_32 shape_q4_1 = {20, 0, 1};
static const shape_32 shape_q5_0 = {22, 16, 0};
static const shape_32 shape_q5_1 = {24, 0, 1};
static const shape_32 shape_q8_0 = {34, 128, 0};
static const shape_32 shape_mxfp4 = {17, 16, 0};
static const shape_32 shape_iq4_nl = {18, 128, 0};

#endif
