/* The matmul and quantize of the sets avx2 and avxvnni: entry points and quantization of activations. */
#include "kernel/kernel_internal.h"

#include "kernel/generic/matmul_columns.h"
#include "kernel/quantize_acts.h"
#include "kernel/x86/matmul_avx2.h"
#include "quant/planar.h"

#if defined(__x86_64__)

/* ---- products -------------------------------------------------------------------------------------- */

/* A product with activations of n_plane planes. */
static FM_ALWAYS_INLINE void product(const fm_matrix *w, int64_t row0, int64_t row1,
                                     const void *const *act, float *const *y, int64_t n_tok,
                                     const int n_plane)
{
    if (w->layout == FM_LAYOUT_COLUMNS) {
        fm_matmul_columns(w, row0, row1, act, y, n_tok);
        return;
    }
    if (w->type->n_plane) {
        const bool is_e4m3 = w->type->code == FM_CODE_E4M3;
        if (is_e4m3)
            fm_matmul_e4m3_avx2(w, row0, row1, act, y, n_tok);
        else
            FM_SET(fm_matmul_planar)(w, row0, row1, act, y, n_tok, n_plane);
        return;
    }
    switch (w->type->act) {
    case FM_ACT_I15_32:
        FM_SET(fm_matmul_32)(w, row0, row1, act, y, n_tok, n_plane);
        break;
    case FM_ACT_I13_256:
        if (w->type->is_book)
            FM_SET(fm_matmul_book)(w, row0, row1, act, y, n_tok);
        else
            FM_SET(fm_matmul_256)(w, row0, row1, act, y, n_tok, n_plane);
        break;
    default: fm_matmul_float_avx2(w, row0, row1, act, y, n_tok);
    }
}

static void matmul(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                   float *const *y, int64_t n_tok)
{
    product(w, row0, row1, act, y, n_tok, 2);
}

static void matmul_int8(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                        float *const *y, int64_t n_tok)
{
    product(w, row0, row1, act, y, n_tok, 1);
}

/* ---- quantization of activations: fm_quantize_generic has the reasons --------------------- */

static FM_ALWAYS_INLINE uint32_t largest_bits(const float *x, int n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 8)
        largest = _mm256_max_epu32(largest, _mm256_and_si256(load_256(x + i), magnitude));
    const __m128i upper = _mm256_extracti128_si256(largest, 1);
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(largest), upper);
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

static FM_ALWAYS_INLINE int32_t add_lanes_i32(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

/* 16 integers that fit bytes. */
static FM_ALWAYS_INLINE void store_bytes(int8_t *dst, __m256i a, __m256i b)
{
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    _mm_storeu_si128((__m128i *)dst, _mm_packs_epi16(_mm256_castsi256_si128(packed),
                                                     _mm256_extracti128_si256(packed, 1)));
}

/* fm_round_16_fn; cvtps rounds to nearest even. */
static FM_ALWAYS_INLINE fm_sums_16 round_16(int8_t *hi, int8_t *lo, const float *x, float inverse,
                                            const int coarse, const int shift)
{
    const __m256 scale = _mm256_set1_ps(inverse);
    const __m256i half = _mm256_set1_epi32(1 << (shift - 1));
    const __m256i a =
        _mm256_slli_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale)), coarse);
    const __m256i b =
        _mm256_slli_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), scale)), coarse);
    const __m256i ah = _mm256_srai_epi32(_mm256_add_epi32(a, half), shift);
    const __m256i bh = _mm256_srai_epi32(_mm256_add_epi32(b, half), shift);
    store_bytes(hi, ah, bh);
    store_bytes(lo, _mm256_sub_epi32(a, _mm256_slli_epi32(ah, shift)),
                _mm256_sub_epi32(b, _mm256_slli_epi32(bh, shift)));
    return (fm_sums_16){add_lanes_i32(_mm256_add_epi32(a, b)),
                        add_lanes_i32(_mm256_add_epi32(ah, bh))};
}

static FM_ALWAYS_INLINE void quantize_32(fm_act_i15_32 *dst, const float *x, const int coarse)
{
    fm_quantize_32_by_16(dst, x, coarse, largest_bits, round_16);
}

static FM_ALWAYS_INLINE void quantize_256(fm_act_i13_256 *dst, const float *x, const int coarse)
{
    fm_quantize_256_by_16(dst, x, coarse, largest_bits, round_16);
}

void FM_SET(fm_quantize)(fm_act form, void *dst, const float *x, int64_t n)
{
    fm_quantize_row(form, dst, x, n, 2, quantize_32, quantize_256);
}

static void quantize_int8(fm_act form, void *dst, const float *x, int64_t n)
{
    fm_quantize_row(form, dst, x, n, 1, quantize_32, quantize_256);
}

void FM_SET(fm_matmul)(fm_kernels *k)
{
    k->act_form = fm_act_form_of_type;
    k->quantize = FM_SET(fm_quantize);
    k->matmul = matmul;
    fm_book_entries_init();
}

void FM_SET(fm_int8)(fm_kernels *k)
{
    k->quantize = quantize_int8;
    k->matmul = matmul_int8;
}

#endif
