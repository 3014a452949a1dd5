/* Products with E4M3 weights, for AVX2. */
#include "kernel/generic/matmul_planar.h"
#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

#include "kernel/ops_vec_avx2.h"

enum { N_BLOCK = 2 /* blocks under way, one token */, N_TOKEN = 3 /* tokens at a time */ };

/* 16 weights. NaN stays NaN. */
static FM_ALWAYS_INLINE void take_unit(__m256 v[2], const uint8_t *p)
{
    const __m256i code = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
    const __m256i mag_ones = _mm256_or_si256(code, _mm256_set1_epi16((int16_t)0xff80));
    /* Sign to bit 15, exponent from bit 10 on. */
    __m256i half = _mm256_and_si256(_mm256_slli_epi16(code, 7), _mm256_set1_epi16((int16_t)0xbf80));
    const __m256i is_nan = _mm256_cmpeq_epi16(mag_ones, _mm256_set1_epi16(-1));
    half = _mm256_or_si256(half, _mm256_and_si256(is_nan, _mm256_set1_epi16(0x7e00)));
    const __m256 up = _mm256_set1_ps(256.0f);
    v[0] = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(half)), up);
    v[1] = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(half, 1)), up);
}

#include "kernel/x86/matmul_e4m3.inc"

void fm_matmul_e4m3_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok)
{
    product_e4m3(w, row0, row1, act, y, n_tok);
}

#endif
