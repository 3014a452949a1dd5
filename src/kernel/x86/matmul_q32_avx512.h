/* How the formats with blocks of 32 are taken apart by AVX-512, 16 rows at a time, and the float step of a block. A lane
 * is a row. For the files of the sets avx512 and amx; formats of several planes hold some of the same codes. */
#pragma once

#include "kernel/x86/matmul_avx512.h"

#if defined(__x86_64__)

typedef struct {
    __m512i w[8]; /* unit u: columns 4u .. 4u+3, unsigned */
    __m512 d, m;
} block_512;

typedef void block_fn(block_512 *, const uint8_t *);

typedef struct {
    int block_bytes;
    int has_offset; /* 128, in the unsigned weights */
    int down;       /* they are 2^down times as large */
    int has_min;
} shape_32;

/* The float step of quant.h: acc plus what a block with the integer sum s, scale d and minimum m adds for one token, whose
 * block of activations has scale dx and scaled sum dsum. */
static FM_ALWAYS_INLINE __m512 add_block_32(__m512 acc, __m512i s, __m512 d, __m512 m, float dx,
                                            float dsum, const shape_32 shape)
{
    if (shape.down != 0) s = _mm512_srai_epi32(s, (unsigned)shape.down);
    const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(dx));
    __m512 term = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(s));
    if (shape.has_min) term = _mm512_add_ps(term, _mm512_mul_ps(m, _mm512_set1_ps(dsum)));
    return _mm512_add_ps(acc, term);
}

/* 16 bytes of nibbles per row: low nibbles are columns 0..15, high ones 16..31; each times 2^up,
 * up <= 4. */
static FM_ALWAYS_INLINE void unpack_nibbles(__m512i *w, const uint8_t *qs, const int up)
{
    const __m512i mask = _mm512_set1_epi8((char)(0x0f << up));
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m512i v = load_512(qs + 64 * u);
        w[u] = _mm512_and_si512(up ? _mm512_slli_epi32(v, (unsigned)up) : v, mask);
        w[4 + u] = _mm512_and_si512(up < 4 ? _mm512_srli_epi32(v, (unsigned)(4 - up)) : v, mask);
    }
}

/* Adds 16 * 2^up to column c where bit c of the row's dword in qh is set. */
static FM_ALWAYS_INLINE void add_fifth_bits(__m512i *w, const uint8_t *qh, const int up)
{
    const __m512i bits = load_512(qh), sixteen = _mm512_set1_epi8((char)(16 << up));
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        /* Byte u / 2 of the dword to all four bytes, then one bit of each. */
        const __m512i spread = _mm512_set1_epi32((u / 2) * 0x01010101);
        const __m512i lane = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
        const __m512i byte = _mm512_shuffle_epi8(bits, _mm512_add_epi8(spread, lane));
        const __m512i bit = _mm512_set1_epi32(u & 1 ? (int)0x80402010u : 0x08040201);
        w[u] =
            _mm512_or_si512(w[u], _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(byte, bit), sixteen));
    }
}

static FM_ALWAYS_INLINE void unpack_q4_0(block_512 *b, const uint8_t *p)
{
    b->d = load_half(p);
    unpack_nibbles(b->w, p + 2 * 16, 4);
}

static FM_ALWAYS_INLINE void unpack_q4_1(block_512 *b, const uint8_t *p)
{
    b->d = load_half(p);
    b->m = load_half(p + 2 * 16);
    unpack_nibbles(b->w, p + 4 * 16, 0);
}

static FM_ALWAYS_INLINE void unpack_q5_0(block_512 *b, const uint8_t *p)
{
    b->d = load_half(p);
    unpack_nibbles(b->w, p + 6 * 16, 3);
    add_fifth_bits(b->w, p + 2 * 16, 3);
}

static FM_ALWAYS_INLINE void unpack_q5_1(block_512 *b, const uint8_t *p)
{
    b->d = load_half(p);
    b->m = load_half(p + 2 * 16);
    unpack_nibbles(b->w, p + 8 * 16, 0);
    add_fifth_bits(b->w, p + 4 * 16, 0);
}

static FM_ALWAYS_INLINE void unpack_q8_0(block_512 *b, const uint8_t *p)
{
    b->d = load_half(p);
    FM_UNROLL
    for (int u = 0; u < 8; u++)
        b->w[u] = _mm512_xor_si512(load_512(p + 2 * 16 + 64 * u), _mm512_set1_epi8(-128));
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

/* Nibbles to the doubled values of E2M1 plus 16, times 8. */
static FM_ALWAYS_INLINE void unpack_e2m1(__m512i *w, const uint8_t *qs)
{
    const __m512i value =
        _mm512_slli_epi32(_mm512_broadcast_i32x4(_mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16,
                                                               15, 14, 13, 12, 10, 8, 4)),
                          3);
    unpack_nibbles(w, qs, 0);
    FM_UNROLL
    for (int u = 0; u < 8; u++) w[u] = _mm512_shuffle_epi8(value, w[u]);
}

static FM_ALWAYS_INLINE void unpack_mxfp4(block_512 *b, const uint8_t *p)
{
    b->d = e8m0_half(p);
    unpack_e2m1(b->w, p + 1 * 16);
}

/* The book's values plus 128. */
static FM_ALWAYS_INLINE void unpack_iq4_nl(block_512 *b, const uint8_t *p)
{
    const __m512i value =
        _mm512_xor_si512(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fm_book_iq4)),
                         _mm512_set1_epi8(-128));
    b->d = load_half(p);
    unpack_nibbles(b->w, p + 2 * 16, 0);
    FM_UNROLL
    for (int u = 0; u < 8; u++) b->w[u] = _mm512_shuffle_epi8(value, b->w[u]);
}

static const shape_32 shape_q4_0 = {18, 1, 4, 0};
static const shape_32 shape_q4_1 = {20, 0, 0, 1};
static const shape_32 shape_q5_0 = {22, 1, 3, 0};
static const shape_32 shape_q5_1 = {24, 0, 0, 1};
static const shape_32 shape_q8_0 = {34, 1, 0, 0};
static const shape_32 shape_mxfp4 = {17, 1, 3, 0};
static const shape_32 shape_iq4_nl = {18, 1, 0, 0};

#endif
