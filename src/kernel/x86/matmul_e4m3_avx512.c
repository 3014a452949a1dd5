/* Products with E4M3 weights, for AVX-512. */
#include "kernel/generic/matmul_planar.h"
#include "kernel/x86/matmul_avx512.h"

#if defined(__x86_64__)

#include "kernel/ops_vec_avx512.h"

enum {
    N_BLOCK = 2, /* blocks under way, one token                                    */
    N_TOKEN = 3, /* tokens at a time: registers for their sums in a block and in all */
    PART = 512,  /* columns of rows made f32 at a time, so that they stay in the first cache */
};

/* 32 weights. NaN stays NaN. */
static FM_ALWAYS_INLINE void take_unit(__m512 v[2], const uint8_t *p)
{
    const __m512i code = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
    const __m512i mag_ones = _mm512_or_si512(code, _mm512_set1_epi16((int16_t)0xff80));
    /* Sign to bit 15, exponent from bit 10 on. */
    __m512i half = _mm512_and_si512(_mm512_slli_epi16(code, 7), _mm512_set1_epi16((int16_t)0xbf80));
    const __mmask32 is_nan = _mm512_cmpeq_epi16_mask(mag_ones, _mm512_set1_epi16(-1));
    half = _mm512_mask_mov_epi16(half, is_nan, _mm512_set1_epi16(0x7e00));
    const __m512 up = _mm512_set1_ps(256.0f);
    v[0] = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(half)), up);
    v[1] = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1)), up);
}

#include "kernel/x86/matmul_e4m3.inc"

/* ---- several tokens ------------------------------------------------------------------------ */

/* Some blocks of nr rows, taken apart. */
typedef struct {
    _Alignas(64) float value[N_ROW][PART];
    float d[N_ROW][PART / SMALL_BLOCK];
    int64_t n_block;
} row_part;

/* Blocks [b, b + p->n_block) of nr rows. */
static FM_ALWAYS_INLINE void take_part(row_part *p, const fm_matrix *w, int64_t row, int64_t b,
                                       const row_scales *scale, const int nr, const int columns)
{
    for (int r = 0; r < nr; r++) {
        const uint8_t *const src =
            (const uint8_t *)w->data + (uint64_t)(row + r) * w->row_bytes + b * columns;
        for (int64_t i = 0; i < p->n_block; i++)
            _mm_store_ss(&p->d[r][i], _mm512_castps512_ps128(block_scale(&scale[r], b + i)));
        for (int64_t c = 0; c < p->n_block * columns; c += UNIT) {
            __m512 v[2];
            take_unit(v, src + c);
            _mm512_store_ps(p->value[r] + c, v[0]);
            _mm512_store_ps(p->value[r] + c + VL, v[1]);
        }
    }
}

/* sum [nt][N_ROW]: lanes of the rows' products with nt tokens, to which those of a part are added. */
static FM_ALWAYS_INLINE void add_tile(__m512 (*sum)[N_ROW], const row_part *p,
                                      const float *const *x, const int nr, const int nt,
                                      const int columns)
{
    __m512 acc[N_ROW][N_TOKEN];
    FM_UNROLL
    for (int r = 0; r < nr; r++) {
        FM_UNROLL
        for (int t = 0; t < nt; t++) acc[r][t] = sum[t][r];
    }
    FM_NO_UNROLL
    for (int64_t b = 0; b < p->n_block; b++) {
        __m512 s[N_ROW][N_TOKEN];
        FM_UNROLL
        for (int r = 0; r < nr; r++) {
            FM_UNROLL
            for (int t = 0; t < nt; t++) s[r][t] = _mm512_setzero_ps();
        }
        FM_NO_UNROLL
        for (int64_t c = b * columns; c < (b + 1) * columns; c += VL) {
            __m512 v[N_TOKEN];
            FM_UNROLL
            for (int t = 0; t < nt; t++) v[t] = _mm512_loadu_ps(x[t] + c);
            FM_UNROLL
            for (int r = 0; r < nr; r++) {
                __m512 q = _mm512_load_ps(p->value[r] + c);
                __asm__("" : "+v"(q)); /* loaded once, not by the sum of each token */
                FM_UNROLL
                for (int t = 0; t < nt; t++) s[r][t] = _mm512_fmadd_ps(q, v[t], s[r][t]);
            }
        }
        FM_UNROLL
        for (int r = 0; r < nr; r++) {
            const __m512 d = _mm512_set1_ps(p->d[r][b]);
            FM_UNROLL
            for (int t = 0; t < nt; t++) acc[r][t] = _mm512_fmadd_ps(d, s[r][t], acc[r][t]);
        }
    }
    FM_UNROLL
    for (int r = 0; r < nr; r++) {
        FM_UNROLL
        for (int t = 0; t < nt; t++) sum[t][r] = acc[r][t];
    }
}

static FM_ALWAYS_INLINE void rows_of_tokens(const fm_matrix *w, int64_t row, const void *const *act,
                                            float *const *y, int64_t n_tok, const int nr,
                                            const int columns)
{
    __m512 sum[MAX_TOK][N_ROW];
    row_part part;
    row_scales scale[N_ROW];
    const int64_t n_block = w->n_in / columns, step = PART / columns;
    for (int r = 0; r < nr; r++) scale[r] = scales_of_row(w, row + r);
    memset(sum, 0, (size_t)n_tok * sizeof *sum);
    for (int64_t b = 0; b < n_block; b += step) {
        part.n_block = n_block - b < step ? n_block - b : step;
        take_part(&part, w, row, b, scale, nr, columns);
        for (int64_t t = 0, nt; t < n_tok; t += nt) {
            nt = n_tok - t < N_TOKEN ? 1 : N_TOKEN;
            const float *x[N_TOKEN];
            for (int64_t i = 0; i < nt; i++) x[i] = (const float *)act[t + i] + b * columns;
            if (nt == 1)
                add_tile(sum + t, &part, x, nr, 1, columns);
            else
                add_tile(sum + t, &part, x, nr, N_TOKEN, columns);
        }
    }
    for (int64_t t = 0; t < n_tok; t++)
        for (int r = 0; r < nr; r++) y[t][row + r] = add_lanes(&sum[t][r]);
}

void fm_matmul_e4m3_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                           float *const *y, int64_t n_tok)
{
    product_e4m3(w, row0, row1, act, y, n_tok);
}

#endif
