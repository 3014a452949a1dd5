/* Products with the formats of several planes, for AVX2: as matmul_q32_avx2.c, but codes, scales and biases come from places
 * of their own. */
#include "kernel/x86/matmul_q32_avx2.h"

#if defined(__x86_64__)

#include "kernel/generic/matmul_planar.h"

/* 8 scales or biases of a half, in the plane at p. */
static FM_ALWAYS_INLINE __m256 load_scale(const panel_32 *p, const uint8_t *plane, int64_t b,
                                          int half)
{
    const int64_t at = (b >> p->group_log2) * FM_PANEL_ROWS + 8 * half;
    if (p->scale_type == FM_SCALE_F32)
        return _mm256_loadu_ps((const float *)(const void *)(plane + 4 * at));
    if (p->scale_type == FM_SCALE_F16) return load_half(plane + 2 * at);
    const __m128i v = _mm_loadu_si128((const __m128i *)(plane + 2 * at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

static FM_ALWAYS_INLINE __m256 scale_plane(const panel_32 *p, const uint8_t *block, int64_t b,
                                           int half)
{
    (void)block;
    return load_scale(p, p->scale, b, half);
}

static FM_ALWAYS_INLINE __m256 bias_plane(const panel_32 *p, const uint8_t *block, int64_t b,
                                          int half)
{
    (void)block;
    return load_scale(p, p->bias, b, half);
}

/* E2M1: groups are of 32. */
static FM_ALWAYS_INLINE __m256 scale_exponent(const panel_32 *p, const uint8_t *block, int64_t b,
                                              int half)
{
    (void)block;
    return e8m0_half(p->scale + b * FM_PANEL_ROWS + 8 * half);
}

/* Unit u of 8: planar.h has the order of the codes. */

/* v with bit `from` of every byte in the place of bit `to`; bits that come from other bytes are to be masked off. */
static FM_ALWAYS_INLINE __m256i move_bits(__m256i v, const int from, const int to)
{
    return from >= to ? _mm256_srli_epi32(v, from - to) : _mm256_slli_epi32(v, to - from);
}

/* Two bits, at bits `to` and `to` + 1. */
static FM_ALWAYS_INLINE __m256i pair_of_bits(const uint8_t *p, int half, const int u, const int to)
{
    return _mm256_and_si256(move_bits(load_256(p + 64 * (u / 4) + 32 * half), 2 * (u % 4), to),
                            _mm256_set1_epi8((char)(3 << to)));
}

/* One bit, at bit `to`. */
static FM_ALWAYS_INLINE __m256i single_bit(const uint8_t *p, int half, const int u, const int to)
{
    return _mm256_and_si256(move_bits(load_256(p + 32 * half), u, to),
                            _mm256_set1_epi8((char)(1 << to)));
}

static FM_ALWAYS_INLINE __m256i unit_u2(const uint8_t *p, int half, int u)
{
    return pair_of_bits(p, half, u, 0);
}

static FM_ALWAYS_INLINE __m256i unit_u3(const uint8_t *p, int half, int u)
{
    return _mm256_or_si256(pair_of_bits(p, half, u, 0), single_bit(p + 2 * 64, half, u, 2));
}

static FM_ALWAYS_INLINE __m256i unit_u4(const uint8_t *p, int half, int u)
{
    return unit_nibbles(p, half, u);
}

static FM_ALWAYS_INLINE __m256i unit_u5(const uint8_t *p, int half, int u)
{
    return _mm256_or_si256(unit_nibbles(p + 64, half, u), single_bit(p, half, u, 4));
}

static FM_ALWAYS_INLINE __m256i unit_u6(const uint8_t *p, int half, int u)
{
    return _mm256_or_si256(unit_nibbles(p, half, u), pair_of_bits(p + 4 * 64, half, u, 4));
}

static FM_ALWAYS_INLINE __m256i unit_u8(const uint8_t *p, int half, int u)
{
    return load_256(p + 64 * u + 32 * half);
}

static FM_ALWAYS_INLINE __m256i unit_i4(const uint8_t *p, int half, int u)
{
    return unit_nibbles(p, half, u);
}

static FM_ALWAYS_INLINE __m256i unit_e2m1(const uint8_t *p, int half, int u)
{
    return _mm256_shuffle_epi8(book_e2m1_unsigned(), unit_nibbles(p, half, u));
}

static const shape_32 shape_u2 = {8, 8, 0, 1};
static const shape_32 shape_u3 = {12, 8, 0, 1};
static const shape_32 shape_u4 = {16, 8, 0, 1};
static const shape_32 shape_u5 = {20, 4, 0, 1};
static const shape_32 shape_u6 = {24, 2, 0, 1};
static const shape_32 shape_u8 = {32, 0, 0, 1};
static const shape_32 shape_i4 = {16, 8, 8, 0};
static const shape_32 shape_e2m1 = {16, 4, FM_E2M1_OFFSET, 0};

BOTH(u2, scale_plane, bias_plane)
BOTH(u3, scale_plane, bias_plane)
BOTH(u4, scale_plane, bias_plane)
BOTH(u5, scale_plane, bias_plane)
BOTH(u6, scale_plane, bias_plane)
WORDS(u8, scale_plane, bias_plane)
BOTH(i4, scale_plane, bias_plane)
BOTH(e2m1, scale_exponent, bias_plane)

/* By planes of activations and code. Weights of 8 bits are words in either case. */
static const format_32 formats[2][FM_CODE_E2M1 + 1] = {
    {
        [FM_CODE_U2] = ENTRY_INT8(u2),
        [FM_CODE_U3] = ENTRY_INT8(u3),
        [FM_CODE_U4] = ENTRY_INT8(u4),
        [FM_CODE_U5] = ENTRY_INT8(u5),
        [FM_CODE_U6] = ENTRY_INT8(u6),
        [FM_CODE_U8] = ENTRY(u8, min),
        [FM_CODE_I4] = ENTRY_INT8(i4),
        [FM_CODE_E2M1] = ENTRY_INT8(e2m1),
    },
    {
        [FM_CODE_U2] = ENTRY(u2, min),
        [FM_CODE_U3] = ENTRY(u3, min),
        [FM_CODE_U4] = ENTRY(u4, min),
        [FM_CODE_U5] = ENTRY(u5, min),
        [FM_CODE_U6] = ENTRY(u6, min),
        [FM_CODE_U8] = ENTRY(u8, min),
        [FM_CODE_I4] = ENTRY(i4, plain),
        [FM_CODE_E2M1] = ENTRY(e2m1, plain),
    },
};

void FM_SET(fm_matmul_planar)(const fm_matrix *w, int64_t row0, int64_t row1,
                              const void *const *act, float *const *y, int64_t n_tok, int n_plane)
{
    const int64_t panel_end = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_end ? row1 : panel_end;
    if (row0 < split) {
        panels_32(w, row0, split, act, y, n_tok, &formats[n_plane - 1][w->type->code]);
        row0 = split;
    }
    fm_rows_planar(w, row0, row1, act, y, n_tok);
}

#endif
