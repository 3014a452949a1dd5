/* The avx2 set's matmul and quantize: entry points and quantization of activations. */
#include "kernel/kernel_internal.h"

#include "kernel/generic/matmul_columns.h"
#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

#include <float.h>

/* ---- products -------------------------------------------------------------------------------------- */

static void matmul(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                   float *const *y, int64_t n_tok)
{
    if (w->layout == FM_LAYOUT_COLUMNS) {
        fm_matmul_columns(w, row0, row1, act, y, n_tok);
        return;
    }
    if (w->type->n_plane) {
        fm_matmul_planar_avx2(w, row0, row1, act, y, n_tok);
        return;
    }
    switch (w->type->act) {
    case FM_ACT_I15_32:
        fm_matmul_32_avx2(w, row0, row1, act, y, n_tok);
        break;
    case FM_ACT_I13_256:
        if (!fm_matmul_book_avx2(w, row0, row1, act, y, n_tok))
            fm_matmul_256_avx2(w, row0, row1, act, y, n_tok);
        break;
    default: fm_matmul_float_avx2(w, row0, row1, act, y, n_tok);
    }
}

/* ---- quantization of activations: fm_quantize_generic has the reasons --------------------- */

static FM_ALWAYS_INLINE float block_scale(const float *x, int n, int top, float *inverse)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 8)
        largest = _mm256_max_epu32(largest, _mm256_and_si256(load_256(x + i), magnitude));
    const __m128i upper = _mm256_extracti128_si256(largest, 1);
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(largest), upper);
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    const uint32_t amax = (uint32_t)_mm_cvtsi128_si32(m);
    *inverse = 0.0f;
    if (amax >= 0x7f800000u) return fm_f32_from_bits(0x7fc00000u);
    const float d = fm_f32_from_bits(amax) / (float)top;
    if (d < FLT_MIN) return 0.0f;
    *inverse = 1.0f / d;
    return d;
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

typedef struct {
    int32_t v, hi;
} sums_16;

/* Rounds 16 columns to v = hi 2^shift + lo and returns the sums of v and hi; cvtps rounds to
 * nearest even. */
static FM_ALWAYS_INLINE sums_16 round_16(int8_t *hi, int8_t *lo, const float *x, float inverse,
                                         const int shift)
{
    const __m256 scale = _mm256_set1_ps(inverse);
    const __m256i half = _mm256_set1_epi32(1 << (shift - 1));
    const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale));
    const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), scale));
    const __m256i ah = _mm256_srai_epi32(_mm256_add_epi32(a, half), shift);
    const __m256i bh = _mm256_srai_epi32(_mm256_add_epi32(b, half), shift);
    store_bytes(hi, ah, bh);
    store_bytes(lo, _mm256_sub_epi32(a, _mm256_slli_epi32(ah, shift)),
                _mm256_sub_epi32(b, _mm256_slli_epi32(bh, shift)));
    return (sums_16){add_lanes_i32(_mm256_add_epi32(a, b)),
                     add_lanes_i32(_mm256_add_epi32(ah, bh))};
}

static void quantize_32(fm_act_i15_32 *dst, const float *x)
{
    float inverse;
    const float d = block_scale(x, 32, FM_ACT_32_TOP, &inverse);
    int32_t sum = 0;
    if (inverse == 0.0f)
        memset(dst, 0, sizeof *dst);
    else
        for (int i = 0; i < 32; i += 16)
            sum += round_16(dst->hi + i, dst->lo + i, x + i, inverse, FM_ACT_32_SHIFT).v;
    dst->d = d;
    dst->dsum = d * (float)sum;
    dst->nsum = -sum;
}

static void quantize_256(fm_act_i13_256 *dst, const float *x)
{
    float inverse;
    const float d = block_scale(x, 256, FM_ACT_256_TOP, &inverse);
    if (inverse == 0.0f) {
        memset(dst, 0, sizeof *dst);
        dst->d = d;
        return;
    }
    dst->d = d;
    memset(dst->pad, 0, sizeof dst->pad);
    for (int j = 0; j < 8; j++) {
        sums_16 s[2];
        for (int i = 0; i < 2; i++) {
            const int c = 32 * j + 16 * i;
            s[i] = round_16(dst->hi + c, dst->lo + c, x + c, inverse, FM_ACT_256_SHIFT);
            dst->nsum[2 * j + i] = -s[i].v;
        }
        const int32_t hi = s[0].hi + s[1].hi;
        dst->sum32[j][0] = (int16_t)hi;
        dst->sum32[j][1] = (int16_t)(s[0].v + s[1].v - hi * (1 << FM_ACT_256_SHIFT));
    }
}

void fm_quantize_avx2(fm_act form, void *dst, const float *x, int64_t n)
{
    switch (form) {
    case FM_ACT_I15_32:
        for (int64_t b = 0; b < n / 32; b++) quantize_32((fm_act_i15_32 *)dst + b, x + 32 * b);
        break;
    case FM_ACT_I13_256:
        for (int64_t b = 0; b < n / 256; b++) quantize_256((fm_act_i13_256 *)dst + b, x + 256 * b);
        break;
    default: memcpy(dst, x, (size_t)n * sizeof *x);
    }
}

void fm_matmul_avx2(fm_kernels *k)
{
    k->act_form = fm_act_form_of_type;
    k->quantize = fm_quantize_avx2;
    k->matmul = matmul;
    fm_matmul_book_init_avx2();
}

#endif
