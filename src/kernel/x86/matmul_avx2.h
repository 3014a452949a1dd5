/* Between the files of the matmul of the sets avx2 and avxvnni: the products by form, and helpers. A panel of 16
 * rows is two halves of 8 lanes: unit u of the first half lies at 64 u, of the second at 64 u + 32.
 *
 * vpmaddubsw adds two products of an unsigned weight and a signed activation into 16 bits with
 * saturation. Weights of n bits give at most 2 * (2^n - 1) * 127 with the high plane, so how many
 * such pairs a 16-bit sum can take without saturating is: 4 bits 8, 5 bits 4, 6 bits 2 (and 24, for
 * MXFP4, 5). The low plane is at most 64 in blocks of 32, so there it is 8 pairs for up to 5 bits and 4 for
 * 6 bits, and at most 16 in blocks of 256: 16 pairs for up to 6 bits. vpmaddwd joins the pairs to 32 bits, and its second
 * factor brings in the 2^s of the high plane. */
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernel/matmul_panels.h"

/* Files that compute products of several tokens as words are compiled a second time, for the set avxvnni, where
 * multiplying and adding is one instruction (Makefile: VNNI_OBJ). What they export is called after the set. */
#if defined(FM_SET_AVXVNNI) && !defined(__AVXVNNI__)
#error "the set avxvnni wants -mavxvnni"
#endif
#if defined(FM_SET_AVXVNNI)
#define FM_SET(name) name##_avxvnni
#else
#define FM_SET(name) name##_avx2
#endif

/* Products with types whose activations come in blocks of 32 resp. 256, n_plane planes of them that are not empty. */
void FM_SET(fm_matmul_32)(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                          float *const *y, int64_t n_tok, int n_plane);
void FM_SET(fm_matmul_256)(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                           float *const *y, int64_t n_tok, int n_plane);

/* Products with f32, f16 and bf16 weights. */
void fm_matmul_float_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                          float *const *y, int64_t n_tok);

/* Kernels of one token (fm_panel_fn) for the formats with blocks of 256; int8: for activations of 8 bits. */
typedef void fm_one_token_fn(float *out, const uint8_t *panel, int64_t n_block,
                             const void *const *act);
fm_one_token_fn fm_panel_q2_k_one_avx2, fm_panel_q2_k_one_int8_avx2;
fm_one_token_fn fm_panel_q3_k_one_avx2, fm_panel_q3_k_one_int8_avx2;
fm_one_token_fn fm_panel_q4_k_one_avx2, fm_panel_q4_k_one_int8_avx2;
fm_one_token_fn fm_panel_q5_k_one_avx2, fm_panel_q5_k_one_int8_avx2;
fm_one_token_fn fm_panel_q6_k_one_avx2, fm_panel_q6_k_one_int8_avx2;
fm_one_token_fn fm_panel_iq4_xs_one_avx2;

/* Products with formats of several planes but E4M3: matmul_planar_avx2.c. */
void FM_SET(fm_matmul_planar)(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                              float *const *y, int64_t n_tok, int n_plane);

/* The sum of 16 lanes, 8 in each vector, as kernel.h says: lane i plus lane i + 8, then + 4, + 2, + 1. */
static FM_ALWAYS_INLINE float add_lanes(const __m256 *lanes)
{
    const __m256 a = _mm256_add_ps(lanes[0], lanes[1]);
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

static FM_ALWAYS_INLINE __m256i load_256(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Four bytes in every lane: four activations against four columns of each row. */
static FM_ALWAYS_INLINE __m256i repeat_32(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

/* 8 halves, one per row. */
static FM_ALWAYS_INLINE __m256 load_half(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

/* The bytes of the low resp. high nibbles of every byte. */
static FM_ALWAYS_INLINE __m256i low_nibbles(__m256i v)
{
    return _mm256_and_si256(v, _mm256_set1_epi32(0x0f0f0f0f));
}

static FM_ALWAYS_INLINE __m256i high_nibbles(__m256i v)
{
    return low_nibbles(_mm256_srli_epi32(v, 4));
}

/* The sum so far, here and now: without this compilers add up in another order, for which they keep all terms, on the
 * stack. */
static FM_ALWAYS_INLINE __m256i settled(__m256i sum)
{
    __asm__("" : "+x"(sum));
    return sum;
}

/* sum plus the products of words, pairs of which meet in a lane. */
static FM_ALWAYS_INLINE __m256i add_words(__m256i sum, __m256i a, __m256i b)
{
#if defined(FM_SET_AVXVNNI)
    return settled(_mm256_dpwssd_avx_epi32(sum, a, b));
#else
    return settled(_mm256_add_epi32(sum, _mm256_madd_epi16(a, b)));
#endif
}

/* Bytes 0 and 2 resp. 1 and 3 of every lane, unsigned, as its two words. */
static FM_ALWAYS_INLINE __m256i even_bytes(__m256i v)
{
    return _mm256_and_si256(v, _mm256_set1_epi32(0x00ff00ff));
}

static FM_ALWAYS_INLINE __m256i odd_bytes(__m256i v)
{
    return _mm256_srli_epi16(v, 8);
}

/* The values of IQ4_NL and IQ4_XS plus 128, by nibble. */
static FM_ALWAYS_INLINE __m256i book_iq4_unsigned(void)
{
    const __m128i book = _mm_loadu_si128((const __m128i *)fm_book_iq4);
    return _mm256_broadcastsi128_si256(_mm_xor_si128(book, _mm_set1_epi8((char)0x80)));
}
#endif
