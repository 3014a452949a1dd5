/* Between the files of the avx512 matmul: the panel kernels by type id, and helpers. */
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernel/x86/matmul_panels.h"

/* Entries of the types whose activations come in blocks of 32 resp. 256; the others are NULL. */
extern const fm_panel_kernels fm_panels_32_avx512[FM_KERNEL_TYPES];
extern const fm_panel_kernels fm_panels_256_avx512[FM_KERNEL_TYPES];

static FM_ALWAYS_INLINE __m512i load_512(const void *p)
{
    return _mm512_loadu_si512(p);
}

/* Four bytes in every lane: four activations against four columns of each row. */
static FM_ALWAYS_INLINE __m512i repeat_32(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

/* 16 halves, one per row. */
static FM_ALWAYS_INLINE __m512 load_half(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* a | (b & mask) */
static FM_ALWAYS_INLINE __m512i or_masked(__m512i a, __m512i b, __m512i mask)
{
    return _mm512_ternarylogic_epi32(a, b, mask, 0xf8);
}
#endif
