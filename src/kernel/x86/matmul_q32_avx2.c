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

FORMAT(q4_0, scale_half, min_half)
FORMAT(q4_1, scale_half, min_half)
FORMAT(q5_0, scale_half, min_half)
FORMAT(q5_1, scale_half, min_half)
FORMAT(q8_0, scale_half, min_half)
FORMAT(mxfp4, scale_e8m0, min_half)
FORMAT(iq4_nl, scale_half, min_half)

/* By type id. */
static const format_32 formats[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q4_0] = {q4_0_one, 3, unpack_q4_0, TILES_OF(plain)},
    [FM_TYPE_Q4_1] = {q4_1_one, 3, unpack_q4_1, TILES_OF(min)},
    [FM_TYPE_Q5_0] = {q5_0_one, 3, unpack_q5_0, TILES_OF(plain)},
    [FM_TYPE_Q5_1] = {q5_1_one, 3, unpack_q5_1, TILES_OF(min)},
    [FM_TYPE_Q8_0] = {q8_0_one, 3, unpack_q8_0, TILES_OF(plain)},
    [FM_TYPE_MXFP4] = {mxfp4_one, 3, unpack_mxfp4, TILES_OF(plain)},
    [FM_TYPE_IQ4_NL] = {iq4_nl_one, 3, unpack_iq4_nl, TILES_OF(plain)},
};

void fm_matmul_32_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t n_tok)
{
    const format_32 *const f = &formats[w->type->id];
    const int64_t panel_end = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_end ? row1 : panel_end;
    if (row0 < split && f->one) {
        panels_32(w, row0, split, act, y, n_tok, f);
        row0 = split;
    }
    if (row0 < row1) fm_rows_kernels[w->type->id](w, row0, row1, act, y, n_tok);
}

#endif
