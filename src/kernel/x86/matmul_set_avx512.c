/* The avx512 set's matmul and quantize: entry points, products with f32, f16 and bf16 weights, and
 * quantization of activations. The panel kernels are in matmul_q32_avx512.c and
 * matmul_q256_avx512.c, those of many tokens as words in matmul_q256_words_avx512.c and, with fewer multiplications,
 * matmul_q32_halved_avx512.c. */
#include "kernel/kernel_internal.h"

#include "kernel/generic/matmul_columns.h"
#include "kernel/quantize_acts.h"
#include "kernel/x86/matmul_avx512.h"
#include "quant/planar.h"

#if defined(__x86_64__)

/* ---- float weights ----------------------------------------------------------------------- */

typedef __m512 load_fn(const uint8_t *, int64_t, __mmask16);

/* 16 weights from element i on; elements outside mask are not read and give 0. */
static FM_ALWAYS_INLINE __m512 load_f32(const uint8_t *p, int64_t i, __mmask16 mask)
{
    return _mm512_maskz_loadu_ps(mask, p + 4 * i);
}

static FM_ALWAYS_INLINE __m512 load_f16(const uint8_t *p, int64_t i, __mmask16 mask)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p + 2 * i));
}

static FM_ALWAYS_INLINE __m512 load_bf16(const uint8_t *p, int64_t i, __mmask16 mask)
{
    const __m512i v = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p + 2 * i));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}

/* nr rows for nt tokens, each pair with a sum of its own. */
static FM_ALWAYS_INLINE void float_tile(const fm_matrix *w, int64_t row, const void *const *act,
                                        float *const *y, const int nr, const int nt, load_fn *load)
{
    const uint8_t *const src = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes;
    __m512 acc[4][4];
    FM_UNROLL
    for (int r = 0; r < nr; r++) {
        FM_UNROLL
        for (int t = 0; t < nt; t++) acc[r][t] = _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < w->n_in; i += 16) {
        const int64_t left = w->n_in - i;
        const __mmask16 mask = left < 16 ? (__mmask16)((1u << left) - 1) : (__mmask16)0xffff;
        __m512 x[4];
        FM_UNROLL
        for (int t = 0; t < nt; t++) x[t] = _mm512_maskz_loadu_ps(mask, (const float *)act[t] + i);
        FM_UNROLL
        for (int r = 0; r < nr; r++) {
            const __m512 v = load(src + (uint64_t)r * w->row_bytes, i, mask);
            FM_UNROLL
            for (int t = 0; t < nt; t++) acc[r][t] = _mm512_fmadd_ps(v, x[t], acc[r][t]);
        }
    }
    FM_UNROLL
    for (int r = 0; r < nr; r++) {
        FM_UNROLL
        for (int t = 0; t < nt; t++) y[t][row + r] = add_lanes(&acc[r][t]);
    }
}

/* One row for one token. */
static FM_ALWAYS_INLINE float float_row(const fm_matrix *w, int64_t row, const float *x,
                                        load_fn *load, const size_t elem)
{
    const uint8_t *const src = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes;
    const int64_t whole = w->n_in / 16 * 16;
    const __mmask16 rest = (__mmask16)((1u << (w->n_in - whole)) - 1);
    __m512 acc = _mm512_setzero_ps();
    for (int64_t i = 0; i < whole; i += 16) {
        if ((size_t)i * elem % 64 == 0) fm_prefetch_row_of_one(src + (size_t)i * elem);
        acc = _mm512_fmadd_ps(load(src, i, 0xffff), _mm512_loadu_ps(x + i), acc);
    }
    if (rest)
        acc = _mm512_fmadd_ps(load(src, whole, rest), _mm512_maskz_loadu_ps(rest, x + whole), acc);
    return add_lanes(&acc);
}

static FM_ALWAYS_INLINE void float_rows(const fm_matrix *w, int64_t row0, int64_t row1,
                                        const void *const *act, float *const *y, int64_t n_tok,
                                        load_fn *load, const size_t elem)
{
    int64_t row = row0;
    if (n_tok == 1) {
        for (; row < row1; row++) y[0][row] = float_row(w, row, act[0], load, elem);
        return;
    }
    for (; row + 4 <= row1; row += 4) {
        int64_t t = 0;
        for (; t + 4 <= n_tok; t += 4) float_tile(w, row, act + t, y + t, 4, 4, load);
        for (; t < n_tok; t++) float_tile(w, row, act + t, y + t, 4, 1, load);
    }
    for (; row < row1; row++)
        for (int64_t t = 0; t < n_tok; t++) float_tile(w, row, act + t, y + t, 1, 1, load);
}

static void rows_f32(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                     float *const *y, int64_t n_tok)
{
    float_rows(w, row0, row1, act, y, n_tok, load_f32, 4);
}

static void rows_f16(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                     float *const *y, int64_t n_tok)
{
    float_rows(w, row0, row1, act, y, n_tok, load_f16, 2);
}

static void rows_bf16(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                      float *const *y, int64_t n_tok)
{
    float_rows(w, row0, row1, act, y, n_tok, load_bf16, 2);
}

/* By type id. */
static const fm_matmul_fn float_kernels[FM_KERNEL_TYPES] = {
    [FM_TYPE_F32] = rows_f32, [FM_TYPE_F16] = rows_f16, [FM_TYPE_BF16] = rows_bf16};

/* Products with E4M3 weights, by what the processor has; formats of code books have panels where it has VBMI. */
static fm_matmul_fn matmul_e4m3 = fm_matmul_e4m3_avx512;
static bool has_book_panels;

/* Which products of many tokens go by words: none, those with blocks of 256, or all and with fewer multiplications, for
 * processors with one unit that multiplies 512 bits. */
typedef enum { NO_WORDS, HALVED_WORDS, WORDS } word_rule;

/* A product with activations of n_plane planes; words need both. */
static FM_ALWAYS_INLINE void product(const fm_matrix *w, int64_t row0, int64_t row1,
                                     const void *const *act, float *const *y, int64_t n_tok,
                                     const int n_plane, const word_rule words)
{
    if (w->layout == FM_LAYOUT_COLUMNS) {
        fm_matmul_columns(w, row0, row1, act, y, n_tok);
        return;
    }
    if (w->type->n_plane) {
        const bool is_e4m3 = w->type->code == FM_CODE_E4M3;
        if (is_e4m3)
            matmul_e4m3(w, row0, row1, act, y, n_tok);
        else
            fm_matmul_planar_avx512(w, row0, row1, act, y, n_tok, n_plane, words == HALVED_WORDS);
        return;
    }
    switch (w->type->act) {
    case FM_ACT_I15_32:
        if (words == HALVED_WORDS) row0 = fm_words_32_avx512(w, row0, row1, act, y, n_tok);
        if (row0 < row1)
            fm_matmul_quantized(w, row0, row1, act, y, n_tok, fm_panels_32_avx512[n_plane - 1]);
        break;
    case FM_ACT_I13_256:
        if (w->type->is_book && has_book_panels)
            fm_matmul_book_vbmi(w, row0, row1, act, y, n_tok, n_plane, words == HALVED_WORDS);
        else if (w->type->is_book)
            fm_matmul_book_avx2(w, row0, row1, act, y, n_tok);
        else {
            if (words != NO_WORDS)
                row0 = fm_words_256_avx512(w, row0, row1, act, y, n_tok, words == HALVED_WORDS);
            if (row0 < row1)
                fm_matmul_quantized(w, row0, row1, act, y, n_tok, fm_panels_256_avx512[n_plane - 1]);
        }
        break;
    default: float_kernels[w->type->id](w, row0, row1, act, y, n_tok);
    }
}

void fm_product_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t n_tok)
{
    product(w, row0, row1, act, y, n_tok, 2, NO_WORDS);
}

void fm_product_words_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                             float *const *y, int64_t n_tok)
{
    product(w, row0, row1, act, y, n_tok, 2, WORDS);
}

void fm_product_halved_avx512(const fm_matrix *w, int64_t row0, int64_t row1,
                              const void *const *act, float *const *y, int64_t n_tok)
{
    product(w, row0, row1, act, y, n_tok, 2, HALVED_WORDS);
}

void fm_product_avx512_int8(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                            float *const *y, int64_t n_tok)
{
    product(w, row0, row1, act, y, n_tok, 1, NO_WORDS);
}

/* ---- quantization of activations: fm_quantize_generic has the reasons --------------------- */

/* 16 columns as integers, multiples of 2^coarse; cvtps rounds to nearest even. */
static FM_ALWAYS_INLINE __m512i round_16(const float *x, __m512 inverse, const int coarse)
{
    const __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inverse));
    return _mm512_slli_epi32(v, (unsigned)coarse);
}

static FM_ALWAYS_INLINE float block_scale(const float *x, int n, int top, const int coarse,
                                          float *inverse)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i largest = _mm512_setzero_si512();
    for (int i = 0; i < n; i += 16)
        largest = _mm512_max_epu32(largest, _mm512_and_si512(load_512(x + i), magnitude));
    return fm_act_scale(_mm512_reduce_max_epu32(largest), top, coarse, inverse);
}

/* Stores hi and lo of 16 integers v = hi 2^shift + lo and returns the vector of hi. */
static FM_ALWAYS_INLINE __m512i split(int8_t *hi, int8_t *lo, __m512i v, const int shift)
{
    const __m512i half = _mm512_set1_epi32(1 << (shift - 1));
    const __m512i h = _mm512_srai_epi32(_mm512_add_epi32(v, half), (unsigned)shift);
    const __m512i l = _mm512_sub_epi32(v, _mm512_slli_epi32(h, (unsigned)shift));
    _mm_storeu_si128((__m128i *)hi, _mm512_cvtepi32_epi8(h));
    _mm_storeu_si128((__m128i *)lo, _mm512_cvtepi32_epi8(l));
    return h;
}

static FM_ALWAYS_INLINE void quantize_32(fm_act_i15_32 *dst, const float *x, const int coarse)
{
    float inverse;
    const float d = block_scale(x, 32, FM_ACT_32_TOP, coarse, &inverse);
    int32_t sum = 0;
    if (inverse == 0.0f) {
        memset(dst, 0, sizeof *dst);
    } else {
        const __m512 scale = _mm512_set1_ps(inverse);
        const __m512i a = round_16(x, scale, coarse), b = round_16(x + 16, scale, coarse);
        sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
        split(dst->hi, dst->lo, a, FM_ACT_32_SHIFT);
        split(dst->hi + 16, dst->lo + 16, b, FM_ACT_32_SHIFT);
    }
    dst->d = d;
    dst->dsum = d * (float)sum;
    dst->nsum = -sum;
}

static FM_ALWAYS_INLINE void quantize_256(fm_act_i13_256 *dst, const float *x, const int coarse)
{
    float inverse;
    const float d = block_scale(x, 256, FM_ACT_256_TOP, coarse, &inverse);
    if (inverse == 0.0f) {
        memset(dst, 0, sizeof *dst);
        dst->d = d;
        return;
    }
    const __m512 scale = _mm512_set1_ps(inverse);
    dst->d = d;
    memset(dst->pad, 0, sizeof dst->pad);
    for (int j = 0; j < 8; j++) {
        const __m512i a = round_16(x + 32 * j, scale, coarse);
        const __m512i b = round_16(x + 32 * j + 16, scale, coarse);
        const __m512i hi = _mm512_add_epi32(
            split(dst->hi + 32 * j, dst->lo + 32 * j, a, FM_ACT_256_SHIFT),
            split(dst->hi + 32 * j + 16, dst->lo + 32 * j + 16, b, FM_ACT_256_SHIFT));
        const int32_t sum_a = _mm512_reduce_add_epi32(a), sum_b = _mm512_reduce_add_epi32(b);
        const int32_t sum_hi = _mm512_reduce_add_epi32(hi);
        dst->nsum[2 * j] = -sum_a;
        dst->nsum[2 * j + 1] = -sum_b;
        dst->sum32[j][0] = (int16_t)sum_hi;
        dst->sum32[j][1] = (int16_t)(sum_a + sum_b - sum_hi * (1 << FM_ACT_256_SHIFT));
    }
}

void fm_quantize_avx512(fm_act form, void *dst, const float *x, int64_t n)
{
    fm_quantize_row(form, dst, x, n, 2, quantize_32, quantize_256);
}

static void quantize_int8(fm_act form, void *dst, const float *x, int64_t n)
{
    fm_quantize_row(form, dst, x, n, 1, quantize_32, quantize_256);
}

void fm_matmul_avx512(fm_kernels *k, bool has_vbmi, bool one_multiplier)
{
    if (has_vbmi) {
        fm_matmul_book_init_vbmi();
        has_book_panels = true;
        fm_matmul_e4m3_init_vbmi();
        matmul_e4m3 = fm_matmul_e4m3_vbmi;
    }
    k->act_form = fm_act_form_of_type;
    k->book_layout = has_vbmi ? FM_LAYOUT_PANELS : FM_LAYOUT_ROWS;
    k->quantize = fm_quantize_avx512;
    k->matmul = one_multiplier ? fm_product_halved_avx512 : fm_product_words_avx512;
}

void fm_int8_avx512(fm_kernels *k)
{
    k->quantize = quantize_int8;
    k->matmul = fm_product_avx512_int8;
}

#endif
