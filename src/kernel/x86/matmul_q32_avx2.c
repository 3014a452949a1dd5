/* Products with GGUF's formats of blocks of 32, for AVX2. */
#include "kernel/x86/matmul_q32_avx2.h"

#if defined(__x86_64__)

static FM_ALWAYS_INLINE __m256i unit_q4_0(const uint8_t *p, int half, int u)
{
    return unit_nibbles(p + 2 * 16, half, u);
}

static FM_ALWAYS_INLINE __m256i unit_q4_1(const uint8_t *p, int half, int u)
{
    return unit_nibbles(p + 4 * 16, half, u);
}

/* 16 in the bytes of columns 4u .. 4u + 3 whose bit is set in the row's dword in qh. */
static FM_ALWAYS_INLINE __m256i fifth_bits(const uint8_t *qh, int half, int u)
{
    /* Byte u / 2 of the dword to all four bytes, then one bit of each. */
    const __m256i from = _mm256_add_epi8(_mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0,
                                                          0x0c0c0c0c, 0x08080808, 0x04040404, 0),
                                         _mm256_set1_epi8((char)(u / 2)));
    const __m256i bit = _mm256_set1_epi32(u & 1 ? (int)0x80402010u : 0x08040201);
    const __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(load_256(qh + 32 * half), from), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), _mm256_set1_epi8(16));
}

static FM_ALWAYS_INLINE __m256i unit_q5_0(const uint8_t *p, int half, int u)
{
    return _mm256_or_si256(unit_nibbles(p + 6 * 16, half, u), fifth_bits(p + 2 * 16, half, u));
}

static FM_ALWAYS_INLINE __m256i unit_q5_1(const uint8_t *p, int half, int u)
{
    return _mm256_or_si256(unit_nibbles(p + 8 * 16, half, u), fifth_bits(p + 4 * 16, half, u));
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

static FM_ALWAYS_INLINE __m256 scale_half(const panel_32 *p, const uint8_t *block, int64_t b,
                                          int half)
{
    (void)p, (void)b;
    return load_half(block + 16 * half);
}

static FM_ALWAYS_INLINE __m256 min_half(const panel_32 *p, const uint8_t *block, int64_t b,
                                        int half)
{
    (void)p, (void)b;
    return load_half(block + 2 * 16 + 16 * half);
}

static FM_ALWAYS_INLINE __m256 scale_e8m0(const panel_32 *p, const uint8_t *block, int64_t b,
                                          int half)
{
    (void)p, (void)b;
    return e8m0_half(block + 8 * half);
}

static const shape_32 shape_q4_0 = {18, 8, 8, 0};
static const shape_32 shape_q4_1 = {20, 8, 0, 1};
static const shape_32 shape_q5_0 = {22, 4, 16, 0};
static const shape_32 shape_q5_1 = {24, 4, 0, 1};
static const shape_32 shape_q8_0 = {34, 0, 128, 0};
static const shape_32 shape_mxfp4 = {17, 4, FM_E2M1_OFFSET, 0};
static const shape_32 shape_iq4_nl = {18, 0, 128, 0};

BOTH(q4_0, scale_half, min_half)
BOTH(q4_1, scale_half, min_half)
BOTH(q5_0, scale_half, min_half)
BOTH(q5_1, scale_half, min_half)
WORDS(q8_0, scale_half, min_half)
BOTH(mxfp4, scale_e8m0, min_half)
WORDS(iq4_nl, scale_half, min_half)

/* By planes of activations and type id. Weights of 8 bits are words in either case. */
static const format_32 formats[2][FM_KERNEL_TYPES] = {
    {
        [FM_TYPE_Q4_0] = ENTRY_INT8(q4_0),
        [FM_TYPE_Q4_1] = ENTRY_INT8(q4_1),
        [FM_TYPE_Q5_0] = ENTRY_INT8(q5_0),
        [FM_TYPE_Q5_1] = ENTRY_INT8(q5_1),
        [FM_TYPE_Q8_0] = ENTRY(q8_0, plain),
        [FM_TYPE_MXFP4] = ENTRY_INT8(mxfp4),
        [FM_TYPE_IQ4_NL] = ENTRY(iq4_nl, plain),
    },
    {
        [FM_TYPE_Q4_0] = ENTRY(q4_0, plain),
        [FM_TYPE_Q4_1] = ENTRY(q4_1, min),
        [FM_TYPE_Q5_0] = ENTRY(q5_0, plain),
        [FM_TYPE_Q5_1] = ENTRY(q5_1, min),
        [FM_TYPE_Q8_0] = ENTRY(q8_0, plain),
        [FM_TYPE_MXFP4] = ENTRY(mxfp4, plain),
        [FM_TYPE_IQ4_NL] = ENTRY(iq4_nl, plain),
    },
};

void FM_SET(fm_matmul_32)(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                          float *const *y, int64_t n_tok, int n_plane)
{
    const format_32 *const f = &formats[n_plane - 1][w->type->id];
    const int64_t panel_end = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_end ? row1 : panel_end;
    if (row0 < split && f->one) {
        panels_32(w, row0, split, act, y, n_tok, f);
        row0 = split;
    }
    if (row0 < row1) fm_rows_kernels[w->type->id](w, row0, row1, act, y, n_tok);
}

#endif
