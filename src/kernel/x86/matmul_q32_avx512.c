/* Panel kernels of the formats with blocks of 32, for AVX-512 with VNNI. A lane is a row.
 *
 * vpdpbusd multiplies unsigned weights with signed activations, so formats with an offset bring
 * their weights to unsigned bytes (q + offset) 2^down with offset * 2^down = 128. Then the sum of
 * the high plane starts at -(sum v), which the shift between the planes multiplies by 128, and the
 * whole is shifted back by down, exactly. The largest sum is 32 * 255 * 16256 = 1.3e8, per block,
 * so the row length does not matter.
 */
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

static FM_ALWAYS_INLINE void panel_32(float *out, const uint8_t *panel, int64_t n_block,
                                      const void *const *act, const int nt, const shape_32 shape,
                                      block_fn *unpack)
{
    __m512 acc[8];
    FM_UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_block; b++, panel += (size_t)shape.block_bytes * FM_PANEL_ROWS) {
        block_512 wb;
        fm_prefetch_panel(panel, shape.block_bytes * FM_PANEL_ROWS, 0, 1);
        unpack(&wb, panel);
        const fm_act_i15_32 *x[8];
        const int8_t *hi[8], *lo[8];
        __m512i s[8];
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            x[t] = (const fm_act_i15_32 *)act[t] + b;
            hi[t] = x[t]->hi;
            lo[t] = x[t]->lo;
            s[t] = shape.has_offset ? _mm512_set1_epi32(x[t]->nsum) : _mm512_setzero_si512();
        }
        dot_planes(s, wb.w, 8, hi, lo, nt, FM_ACT_32_SHIFT);
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            if (shape.down != 0) s[t] = _mm512_srai_epi32(s[t], (unsigned)shape.down);
            const __m512 scale = _mm512_mul_ps(wb.d, _mm512_set1_ps(x[t]->d));
            __m512 term = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(s[t]));
            if (shape.has_min)
                term = _mm512_add_ps(term, _mm512_mul_ps(wb.m, _mm512_set1_ps(x[t]->dsum)));
            acc[t] = _mm512_add_ps(acc[t], term);
        }
    }
    FM_UNROLL
    for (int t = 0; t < nt; t++) _mm512_storeu_ps(out + t * FM_PANEL_ROWS, acc[t]);
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

static FM_ALWAYS_INLINE void unpack_mxfp4(block_512 *b, const uint8_t *p)
{
    /* Doubled values plus 16, times 8. */
    const __m512i value =
        _mm512_slli_epi32(_mm512_broadcast_i32x4(_mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16,
                                                               15, 14, 13, 12, 10, 8, 4)),
                          3);
    b->d = e8m0_half(p);
    unpack_nibbles(b->w, p + 1 * 16, 0);
    FM_UNROLL
    for (int u = 0; u < 8; u++) b->w[u] = _mm512_shuffle_epi8(value, b->w[u]);
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

#define KERNEL(type, nt)                                                                           \
    static void type##_##nt(float *out, const uint8_t *panel, int64_t n_block,                     \
                            const void *const *act)                                                \
    {                                                                                              \
        panel_32(out, panel, n_block, act, nt, shape_##type, unpack_##type);                       \
    }
#define KERNELS(type)                                                                              \
    KERNEL(type, 1)                                                                                \
    KERNEL(type, 2) KERNEL(type, 3) KERNEL(type, 4) KERNEL(type, 5) KERNEL(type, 6)                \
        KERNEL(type, 7) KERNEL(type, 8)
KERNELS(q4_0)
KERNELS(q4_1)
KERNELS(q5_0)
KERNELS(q5_1)
KERNELS(q8_0)
KERNELS(mxfp4)
KERNELS(iq4_nl)

const fm_panel_kernels fm_panels_32_avx512[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q4_0] = {{q4_0_1, q4_0_2, q4_0_4, q4_0_8}, {q4_0_3, q4_0_5, q4_0_6, q4_0_7}},
    [FM_TYPE_Q4_1] = {{q4_1_1, q4_1_2, q4_1_4, q4_1_8}, {q4_1_3, q4_1_5, q4_1_6, q4_1_7}},
    [FM_TYPE_Q5_0] = {{q5_0_1, q5_0_2, q5_0_4, q5_0_8}, {q5_0_3, q5_0_5, q5_0_6, q5_0_7}},
    [FM_TYPE_Q5_1] = {{q5_1_1, q5_1_2, q5_1_4, q5_1_8}, {q5_1_3, q5_1_5, q5_1_6, q5_1_7}},
    [FM_TYPE_Q8_0] = {{q8_0_1, q8_0_2, q8_0_4, q8_0_8}, {q8_0_3, q8_0_5, q8_0_6, q8_0_7}},
    [FM_TYPE_MXFP4] = {{mxfp4_1, mxfp4_2, mxfp4_4, mxfp4_8}, {mxfp4_3, mxfp4_5, mxfp4_6, mxfp4_7}},
    [FM_TYPE_IQ4_NL] = {{iq4_nl_1, iq4_nl_2, iq4_nl_4, iq4_nl_8},
                        {iq4_nl_3, iq4_nl_5, iq4_nl_6, iq4_nl_7}},
};

#endif
