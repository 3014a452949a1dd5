/* Products with f32, f16 and bf16 weights, for AVX2. Every product has 16 sums of its own, the same lanes in the same order
 * as in the avx512 set, whatever the numbers of rows and tokens.
 *
 * Several tokens: 4 rows meet 3 tokens in registers, one half of the lanes after the other, and a stretch of columns is as
 * long as lets its weights, made f32 once, and its activations stay in the first cache. So activations come from further
 * away once for 4 rows, and sums wait in memory between stretches.
 */
#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

/* 8 weights from element i on. */
typedef __m256 load_fn(const uint8_t *, int64_t);

static FM_ALWAYS_INLINE __m256 load_f32(const uint8_t *p, int64_t i)
{
    return _mm256_loadu_ps((const float *)(const void *)(p + 4 * i));
}

static FM_ALWAYS_INLINE __m256 load_f16(const uint8_t *p, int64_t i)
{
    return load_half(p + 2 * i);
}

static FM_ALWAYS_INLINE __m256 load_bf16(const uint8_t *p, int64_t i)
{
    const __m128i v = _mm_loadu_si128((const __m128i *)(p + 2 * i));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* 16 weights from src on, of which n are there: the others are 0. */
static FM_ALWAYS_INLINE void load_last(__m256 v[2], const uint8_t *src, size_t n, load_fn *load,
                                       const size_t elem)
{
    uint8_t weights[64] = {0};
    memcpy(weights, src, n * elem);
    v[0] = load(weights, 0);
    v[1] = load(weights, 8);
}

/* ---- few tokens -------------------------------------------------------------------------- */

/* nr rows for one token. elem: bytes per weight. */
static FM_ALWAYS_INLINE void rows_of_token(const fm_matrix *w, int64_t row, const float *x,
                                           float *y, const int nr, load_fn *load, const size_t elem)
{
    const uint8_t *const src = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes;
    const int64_t whole = w->n_in / 16 * 16;
    const size_t left = (size_t)(w->n_in - whole);
    __m256 acc[4][2];
    FM_UNROLL
    for (int r = 0; r < nr; r++) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (int64_t i = 0; i < whole; i += 16) {
        const __m256 x0 = _mm256_loadu_ps(x + i), x1 = _mm256_loadu_ps(x + i + 8);
        FM_UNROLL
        for (int r = 0; r < nr; r++) {
            const uint8_t *const p = src + (uint64_t)r * w->row_bytes;
            if (nr == 1 && (size_t)i * elem % 64 == 0) fm_prefetch_row_of_one(p + (size_t)i * elem);
            acc[r][0] = _mm256_fmadd_ps(load(p, i), x0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(load(p, i + 8), x1, acc[r][1]);
        }
    }
    float last[16] = {0}; /* the last columns, filled up with zeros */
    if (left > 0) memcpy(last, x + whole, left * sizeof *x);
    FM_UNROLL
    for (int r = 0; r < nr; r++) {
        if (left > 0) {
            __m256 v[2];
            load_last(v, src + (uint64_t)r * w->row_bytes + (size_t)whole * elem, left, load, elem);
            acc[r][0] = _mm256_fmadd_ps(v[0], _mm256_loadu_ps(last), acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(v[1], _mm256_loadu_ps(last + 8), acc[r][1]);
        }
        y[row + r] = add_lanes(acc[r]);
    }
}

/* ---- several tokens ------------------------------------------------------------------------ */

enum {
    MAX_TOK = 64, /* tokens whose sums are kept     */
    N_ROW = 4,    /* rows at a time                 */
    N_COL = 512   /* columns at a time              */
};

/* Weights of N_ROW rows, the last columns filled up to 16 with zeros. */
typedef struct {
    float w[N_ROW][N_COL];
} row_block;

typedef float lane_sums[N_ROW][16];

/* n columns, a multiple of 16, for nt tokens. */
static FM_ALWAYS_INLINE void tile(lane_sums *sum, const row_block *w, const float *const *x,
                                  int64_t n, const int nt)
{
    for (int half = 0; half < 16; half += 8) {
        __m256 acc[N_ROW][3];
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            FM_UNROLL
            for (int r = 0; r < N_ROW; r++) acc[r][t] = _mm256_load_ps(sum[t][r] + half);
        }
        for (int64_t i = half; i < n; i += 16) {
            __m256 v[3];
            FM_UNROLL
            for (int t = 0; t < nt; t++) v[t] = _mm256_loadu_ps(x[t] + i);
            FM_UNROLL
            for (int r = 0; r < N_ROW; r++) {
                const __m256 a = _mm256_load_ps(w->w[r] + i);
                FM_UNROLL
                for (int t = 0; t < nt; t++) acc[r][t] = _mm256_fmadd_ps(a, v[t], acc[r][t]);
            }
        }
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            FM_UNROLL
            for (int r = 0; r < N_ROW; r++) _mm256_store_ps(sum[t][r] + half, acc[r][t]);
        }
    }
}

/* Columns [c0, c1) of N_ROW rows from row on, as f32. */
static FM_ALWAYS_INLINE void take_rows(row_block *dst, const fm_matrix *w, int64_t row, int64_t c0,
                                       int64_t c1, load_fn *load, const size_t elem)
{
    const int64_t whole = (c1 - c0) / 16 * 16;
    const size_t left = (size_t)(c1 - c0 - whole);
    FM_UNROLL
    for (int r = 0; r < N_ROW; r++) {
        const uint8_t *const src =
            (const uint8_t *)w->data + (uint64_t)(row + r) * w->row_bytes + (size_t)c0 * elem;
        for (int64_t i = 0; i < whole; i += 8) _mm256_store_ps(dst->w[r] + i, load(src, i));
        if (left == 0) continue;
        __m256 v[2];
        load_last(v, src + (size_t)whole * elem, left, load, elem);
        _mm256_store_ps(dst->w[r] + whole, v[0]);
        _mm256_store_ps(dst->w[r] + whole + 8, v[1]);
    }
}

/* N_ROW rows for up to MAX_TOK tokens. */
static FM_ALWAYS_INLINE void rows_of_tokens(const fm_matrix *w, int64_t row, const void *const *act,
                                            float *const *y, int64_t n_tok, load_fn *load,
                                            const size_t elem)
{
    _Alignas(64) lane_sums sum[MAX_TOK];
    _Alignas(64) row_block block;
    memset(sum, 0, (size_t)n_tok * sizeof *sum);
    for (int64_t c0 = 0; c0 < w->n_in; c0 += N_COL) {
        const int64_t c1 = c0 + N_COL < w->n_in ? c0 + N_COL : w->n_in;
        const int64_t n = (c1 - c0 + 15) / 16 * 16;
        take_rows(&block, w, row, c0, c1, load, elem);
        for (int64_t t = 0; t < n_tok; t += 3) {
            const int64_t nt = n_tok - t < 3 ? n_tok - t : 3;
            float last[3][N_COL]; /* the last columns, filled up with zeros */
            const float *x[3];
            for (int64_t i = 0; i < nt; i++) {
                x[i] = (const float *)act[t + i] + c0;
                if (n == c1 - c0) continue;
                memcpy(last[i], x[i], (size_t)(c1 - c0) * sizeof(float));
                memset(last[i] + (c1 - c0), 0, (size_t)(n - (c1 - c0)) * sizeof(float));
                x[i] = last[i];
            }
            if (nt == 3)
                tile(sum + t, &block, x, n, 3);
            else if (nt == 2)
                tile(sum + t, &block, x, n, 2);
            else
                tile(sum + t, &block, x, n, 1);
        }
    }
    for (int64_t t = 0; t < n_tok; t++)
        for (int r = 0; r < N_ROW; r++) {
            const __m256 lanes[2] = {_mm256_load_ps(sum[t][r]), _mm256_load_ps(sum[t][r] + 8)};
            y[t][row + r] = add_lanes(lanes);
        }
}

static FM_ALWAYS_INLINE void float_rows(const fm_matrix *w, int64_t row0, int64_t row1,
                                        const void *const *act, float *const *y, int64_t n_tok,
                                        load_fn *load, const size_t elem)
{
    int64_t row = row0;
    const bool side_by_side = n_tok >= 3 || !(fm_follows_streams || fm_asks_twice);
    for (; side_by_side && row + N_ROW <= row1; row += N_ROW) {
        if (n_tok < 3) {
            for (int64_t t = 0; t < n_tok; t++)
                rows_of_token(w, row, act[t], y[t], N_ROW, load, elem);
            continue;
        }
        for (int64_t t = 0; t < n_tok; t += MAX_TOK)
            rows_of_tokens(w, row, act + t, y + t, n_tok - t < MAX_TOK ? n_tok - t : MAX_TOK, load,
                           elem);
    }
    for (; row < row1; row++)
        for (int64_t t = 0; t < n_tok; t++) rows_of_token(w, row, act[t], y[t], 1, load, elem);
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

void fm_matmul_float_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                          float *const *y, int64_t n_tok)
{
    /* By type id. */
    static const fm_matmul_fn kernels[FM_KERNEL_TYPES] = {
        [FM_TYPE_F32] = rows_f32, [FM_TYPE_F16] = rows_f16, [FM_TYPE_BF16] = rows_bf16};
    kernels[w->type->id](w, row0, row1, act, y, n_tok);
}

#endif
