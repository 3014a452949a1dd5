/* Products with E4M3 weights, for AVX-512. */
#include "kernel/generic/matmul_planar.h"
#include "kernel/kernel_internal.h"
#include "kernel/x86/matmul_avx512.h"

#if defined(__x86_64__)

#include "kernel/ops_vec_avx512.h"

enum {
    UNIT = 32,   /* columns taken apart together */
    N_BLOCK = 2, /* blocks under way, one token */
};

/* UNIT weights. NaN stays NaN. */
static FM_ALWAYS_INLINE void take_unit(__m512 v[2], const uint8_t *p, const int n)
{
    (void)n;
    const __m512i code = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
    const __m512i mag_ones = _mm512_or_si512(code, _mm512_set1_epi16((int16_t)0xff80));
    /* Sign to bit 15, exponent from bit 10 on. */
    __m512i half = _mm512_and_si512(_mm512_slli_epi16(code, 7), _mm512_set1_epi16((int16_t)0xbf80));
    const __mmask32 is_nan = _mm512_cmpeq_epi16_mask(mag_ones, _mm512_set1_epi16(-1));
    half = _mm512_mask_mov_epi16(half, is_nan, _mm512_set1_epi16(0x7e00));
    const __m512 up = _mm512_set1_ps(256.0f);
    v[0] = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(half)), up);
    v[1] = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1)), up);
}

#include "kernel/x86/matmul_e4m3.inc"
#include "kernel/x86/matmul_e4m3_tokens.inc"

void fm_matmul_e4m3_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                           float *const *y, int64_t n_tok)
{
    product_e4m3(w, row0, row1, act, y, n_tok);
}

#endif
