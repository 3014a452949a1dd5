/* Products with E4M3 weights, for AVX2. */
#include "kernel/generic/matmul_planar.h"
#include "kernel/kernel_internal.h"
#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

#include "kernel/ops_vec_avx2.h"

enum {
    UNIT = 16,   /* columns taken apart together */
    N_BLOCK = 2, /* blocks under way, one token */
    N_TOKEN = 3, /* tokens at a time */
};

/* UNIT weights. NaN stays NaN. */
static FM_ALWAYS_INLINE void take_unit(__m256 v[2], const uint8_t *p, const int n)
{
    (void)n;
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

/* Several tokens, a block at a time, whose sums wait in memory: there are registers for those of one block. */
typedef float lane_sums[N_ROW][16];

/* One block of nr rows, as f32, for nt tokens; one vector of the lanes after the other, for which there are
 * registers. */
VEC_INLINE void add_tile(lane_sums *sum, float (*block)[BLOCK], const vec *d, const float *const *x,
                         const int nr, const int nt, const int columns)
{
    for (int lane = 0; lane < 16; lane += VL) {
        vec s[N_ROW][N_TOKEN];
        FM_UNROLL
        for (int r = 0; r < nr; r++) {
            FM_UNROLL
            for (int t = 0; t < nt; t++) s[r][t] = vset(0.0f);
        }
        for (int c = lane; c < columns; c += 16) {
            vec v[N_TOKEN];
            FM_UNROLL
            for (int t = 0; t < nt; t++) v[t] = vload(x[t] + c);
            FM_UNROLL
            for (int r = 0; r < nr; r++) {
                const vec q = vload(block[r] + c);
                FM_UNROLL
                for (int t = 0; t < nt; t++) s[r][t] = vfma(q, v[t], s[r][t]);
            }
        }
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            FM_UNROLL
            for (int r = 0; r < nr; r++)
                vstore(sum[t][r] + lane, vfma(d[r], s[r][t], vload(sum[t][r] + lane)));
        }
    }
}

/* nr rows for up to MAX_TOK tokens. */
VEC_INLINE void rows_of_tokens(const fm_matrix *w, int64_t row, const void *const *act,
                               float *const *y, int64_t n_tok, const int nr, const int columns)
{
    _Alignas(64) lane_sums sum[MAX_TOK];
    _Alignas(64) float block[N_ROW][BLOCK];
    row_scales scale[N_ROW];
    for (int r = 0; r < nr; r++) scale[r] = scales_of_row(w, row + r);
    memset(sum, 0, (size_t)n_tok * sizeof *sum);
    for (int64_t b = 0; b < w->n_in / columns; b++) {
        vec d[N_ROW];
        FM_UNROLL
        for (int r = 0; r < nr; r++) {
            const uint8_t *const src =
                (const uint8_t *)w->data + (uint64_t)(row + r) * w->row_bytes + b * columns;
            d[r] = vset(block_scale(&scale[r], b));
            for (int c = 0; c < columns; c += UNIT) {
                vec v[2];
                take_unit(v, src + c, UNIT);
                vstore(block[r] + c, v[0]);
                vstore(block[r] + c + VL, v[1]);
            }
        }
        for (int64_t t = 0, nt; t < n_tok; t += nt) {
            nt = n_tok - t < N_TOKEN ? 1 : N_TOKEN;
            const float *x[N_TOKEN];
            for (int64_t i = 0; i < nt; i++) x[i] = (const float *)act[t + i] + b * columns;
            if (nt == 1)
                add_tile(sum + t, block, d, x, nr, 1, columns);
            else
                add_tile(sum + t, block, d, x, nr, N_TOKEN, columns);
        }
    }
    for (int64_t t = 0; t < n_tok; t++) {
        for (int r = 0; r < nr; r++) {
            vec lanes[N_VEC];
            for (int i = 0; i < N_VEC; i++) lanes[i] = vload(sum[t][r] + i * VL);
            y[t][row + r] = add_lanes(lanes);
        }
    }
}

void fm_matmul_e4m3_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok)
{
    product_e4m3(w, row0, row1, act, y, n_tok);
}

#endif
