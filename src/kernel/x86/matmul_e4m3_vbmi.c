/* Products with E4M3 weights, for AVX-512 with VBMI: the upper half of a weight as f32, which is all of it, is looked up, 64
 * bytes at a time. */
#include "kernel/generic/matmul_planar.h"
#include "kernel/kernel_internal.h"
#include "kernel/x86/matmul_avx512.h"
#include "quant/f16.h"

#if defined(__x86_64__)

#include "kernel/ops_vec_avx512.h"

enum {
    UNIT = 64,   /* columns taken apart together */
    N_BLOCK = 2, /* blocks under way, one token */
};

/* By code: bits 24 to 31, of positive weights and of negative ones; bits 16 to 23, by the lower 7 bits of the code. */
static struct {
    _Alignas(64) uint8_t high[256], low[128];
} values;

void fm_matmul_e4m3_init_vbmi(void)
{
    for (int code = 0; code < 256; code++) {
        const uint32_t bits = fm_f32_bits(fm_e4m3_to_f32((uint8_t)code));
        values.high[code] = (uint8_t)(bits >> 24);
        values.low[code & 127] = (uint8_t)(bits >> 16);
    }
}

static FM_ALWAYS_INLINE __m512i look_up(const uint8_t table[128], __m512i code)
{
    return _mm512_permutex2var_epi8(_mm512_load_si512(table), code, _mm512_load_si512(table + 64));
}

/* n weights, 32 or 64. */
static FM_ALWAYS_INLINE void take_unit(__m512 *v, const uint8_t *p, const int n)
{
    const __m512i code =
        n == 64 ? load_512(p)
                : _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)p));
    const __m512i high = _mm512_mask_blend_epi8(
        _mm512_movepi8_mask(code), look_up(values.high, code), look_up(values.high + 128, code));
    const __m512i low = look_up(values.low, code);
    /* Bytes 2 and 3 of lane i: bytes i of low and of high. */
    const __m512i first =
        _mm512_set_epi32(0x4f0f0000, 0x4e0e0000, 0x4d0d0000, 0x4c0c0000, 0x4b0b0000, 0x4a0a0000,
                         0x49090000, 0x48080000, 0x47070000, 0x46060000, 0x45050000, 0x44040000,
                         0x43030000, 0x42020000, 0x41010000, 0x40000000);
    FM_UNROLL
    for (int i = 0; i < n / VL; i++) {
        const __m512i from = _mm512_add_epi8(first, _mm512_set1_epi32(0x01010000 * (i * VL)));
        v[i] = _mm512_castsi512_ps(
            _mm512_maskz_permutex2var_epi8(0xccccccccccccccccu, low, from, high));
    }
}

#include "kernel/x86/matmul_e4m3.inc"
#include "kernel/x86/matmul_e4m3_tokens.inc"

void fm_matmul_e4m3_vbmi(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok)
{
    product_e4m3(w, row0, row1, act, y, n_tok);
}

#endif
