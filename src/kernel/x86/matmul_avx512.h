/* Between the files of the avx512 and amx products: the panel kernels by type id, and helpers. */
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernel/matmul_panels.h"

/* Entries of the types whose activations come in blocks of 32 resp. 256; the others are NULL. [0]: for activations of one
 * plane, whose few tokens go the way of two; [1]: of two. */
extern const fm_panel_kernels fm_panels_32_avx512[2][FM_KERNEL_TYPES];
extern const fm_panel_kernels fm_panels_256_avx512[2][FM_KERNEL_TYPES];

/* An entry, of functions called type_tokens_planes. */
#define FM_PANEL_KERNELS(type, n_plane)                                                            \
    {                                                                                              \
        {type##_1_2, type##_2_2, type##_4_##n_plane, type##_8_##n_plane},                          \
        {                                                                                          \
            type##_3_2, type##_5_##n_plane, type##_6_##n_plane, type##_7_##n_plane                 \
        }                                                                                          \
    }

/* Rows [row0, ...) of panels of a type with blocks of 256, where words are faster than bytes for so many tokens on a processor
 * with one unit that multiplies 512 bits, or two; activations of two planes. Returns the first row that is left to compute.
 * matmul_q256_words_avx512.c. */
int64_t fm_words_256_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                            float *const *y, int64_t n_tok, bool one_multiplier);

/* The same for types with blocks of 32 on a processor with one such unit: matmul_q32_halved_avx512.c. */
int64_t fm_words_32_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                           float *const *y, int64_t n_tok);

/* Products with formats of code books, n_plane planes of activations, for processors with VBMI: in panels; rows as the set
 * avx2. one_multiplier: on a processor with one unit that multiplies 512 bits. matmul_book_vbmi.c. */
void fm_matmul_book_vbmi(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok, int n_plane, bool one_multiplier);

/* Products with formats of several planes but E4M3, n_plane planes of activations; one_multiplier: on a processor with one
 * unit that multiplies 512 bits. matmul_planar_avx512.c. */
void fm_matmul_planar_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                             float *const *y, int64_t n_tok, int n_plane, bool one_multiplier);

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

/* p, but what is read there is read after what stands before. */
static FM_ALWAYS_INLINE const uint8_t *from_here(const uint8_t *p)
{
    __asm__ volatile("" : "+r"(p));
    return p;
}

/* What the compiler may do with a sum of products. SUM_AS_COMPILED: anything. SUM_WHOLE: product and spread activation are
 * one instruction, of which GCC makes two; with half as many in all the processor looks further ahead. SUM_IN_ORDER: one
 * instruction, in the order of the source; the compiler's order has too few sums under way. One token waits for memory,
 * and which of the first two reads it in the better order was measured: for blocks of 32 it is the first. */
typedef enum { SUM_AS_COMPILED, SUM_WHOLE, SUM_IN_ORDER } sum_form;

/* sum plus the products of the four columns of each row in w with the four activations at p. */
static FM_ALWAYS_INLINE __m512i add_unit(__m512i sum, __m512i w, const int8_t *p,
                                         const sum_form form)
{
    typedef const int8_t four_bytes[4];
#if defined(FM_ADDRESS_SANITIZER)
    return _mm512_dpbusd_epi32(sum, w, repeat_32(p));
#endif
    switch (form) {
    case SUM_AS_COMPILED:
        sum = _mm512_dpbusd_epi32(sum, w, repeat_32(p));
        break;
    case SUM_WHOLE:
        __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(four_bytes *)p));
        break;
    case SUM_IN_ORDER:
        __asm__ volatile("vpdpbusd %2%{1to16%}, %1, %0"
                         : "+v"(sum)
                         : "v"(w), "m"(*(four_bytes *)p));
        break;
    }
    return sum;
}

/* add_unit() with unit u of a plane of nt tokens. */
static FM_ALWAYS_INLINE void add_unit_of_all(__m512i *s, __m512i w, const int8_t *const *plane,
                                             int u, const int nt, const sum_form form)
{
    FM_UNROLL
    for (int t = 0; t < nt; t++) s[t] = add_unit(s[t], w, plane[t] + 4 * u, form);
}

/* Adds unit u of nt tokens: of both planes to sums of their own, of one plane to one or the other in turn. So 2 nt sums are
 * under way at once; where two units multiply, each for five cycles, it takes ten to keep them busy. */
static FM_ALWAYS_INLINE void add_unit_apart(__m512i *s, __m512i *other, __m512i w,
                                            const int8_t *const *hi, const int8_t *const *lo, int u,
                                            const int nt, const int n_plane)
{
    add_unit_of_all(n_plane == 1 && u % 2 == 1 ? other : s, w, hi, u, nt, SUM_IN_ORDER);
    if (n_plane == 2) add_unit_of_all(other, w, lo, u, nt, SUM_IN_ORDER);
}

static FM_ALWAYS_INLINE void clear_sums(__m512i *s, const int nt)
{
    FM_UNROLL
    for (int t = 0; t < nt; t++) s[t] = _mm512_setzero_si512();
}

/* The sums of add_unit_apart(), joined in s: the high plane times 2^shift. */
static FM_ALWAYS_INLINE void join_sums(__m512i *s, const __m512i *other, const int nt,
                                       const int n_plane, const int shift)
{
    FM_UNROLL
    for (int t = 0; t < nt; t++) {
        if (n_plane == 1) s[t] = _mm512_add_epi32(s[t], other[t]);
        s[t] = _mm512_slli_epi32(s[t], (unsigned)shift);
        if (n_plane == 2) s[t] = _mm512_add_epi32(s[t], other[t]);
    }
}

/* 16 halves, one per row. */
static FM_ALWAYS_INLINE __m512 load_half(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* The sum of 16 lanes as kernel.h says: lane i plus lane i + 8, then + 4, + 2, + 1. */
static FM_ALWAYS_INLINE float add_lanes(const __m512 *lanes)
{
    const __m256 a =
        _mm256_add_ps(_mm512_castps512_ps256(*lanes), _mm512_extractf32x8_ps(*lanes, 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* a | (b & mask) */
static FM_ALWAYS_INLINE __m512i or_masked(__m512i a, __m512i b, __m512i mask)
{
    return _mm512_ternarylogic_epi32(a, b, mask, 0xf8);
}

/* s[t] <- (s[t] + sum w hi) 2^shift + sum w lo, over n_unit units for nt tokens; from three on lo is left out, being 0,
 * where n_plane is 1. The weights stay in registers for both planes; tokens are the inner loop, so that nt sums are under
 * way at once, and where that is too few the planes are summed apart. one: the form where nt is 1. */
static FM_ALWAYS_INLINE void dot_planes(__m512i *s, const __m512i *w, const int n_unit,
                                        const int8_t *const *hi, const int8_t *const *lo,
                                        const int nt, const int n_plane, const int shift,
                                        const sum_form one)
{
    const sum_form form = nt == 1 ? one : SUM_IN_ORDER;
    if (nt <= 2) {
        __m512i low[2];
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            low[t] = _mm512_setzero_si512();
            FM_UNROLL
            for (int u = 0; u < n_unit; u++) {
                s[t] = add_unit(s[t], w[u], hi[t] + 4 * u, form);
                low[t] = add_unit(low[t], w[u], lo[t] + 4 * u, form);
            }
            s[t] = _mm512_add_epi32(_mm512_slli_epi32(s[t], (unsigned)shift), low[t]);
        }
        return;
    }
    __m512i other[8];
    clear_sums(other, nt);
    FM_UNROLL
    for (int u = 0; u < n_unit; u++) add_unit_apart(s, other, w[u], hi, lo, u, nt, n_plane);
    join_sums(s, other, nt, n_plane, shift);
}
#endif
