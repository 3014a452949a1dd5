/* Products of several tokens with the formats of blocks of 256, for AVX2 and AVX-VNNI. A lane is a row.
 *
 * A block of a panel is taken apart once for up to 32 tokens, to words that have their scale in
 * them, q - offset times sc: 8 KB, which stay in the first cache. Activations are words too, put
 * together from their planes once per stretch of panels. So a product is vpmaddwd and an addition,
 * or vpdpwssd, for 8 rows and 2 columns, of any format, and 16 rows meet 6 tokens in registers.
 *
 * Ranges: a weight times its scale is at most 63 * 31 (Q5_K) resp. 128 * 32 (Q6_K) and fits a
 * word, before its offset is subtracted too: 63 * 128 in Q6_K, 255 * 32 in IQ4_XS. Sums of terms
 * fit 32 bits in any order, see quant.h.
 */
#include "kernel/x86/matmul_q256_avx2.h"

#if defined(__x86_64__)

static FM_ALWAYS_INLINE void unpack_256(block_words *dst, const uint8_t *panel,
                                        const shape_256 shape, head_fn *head, unit_fn *unit)
{
    const int n_group = 64 / shape.n_unit, bytes = shape.block_bytes * FM_PANEL_ROWS;
    head(&dst->h[0], panel, 0);
    head(&dst->h[1], panel, 1);
    FM_UNROLL
    for (int g = 0; g < n_group; g++) {
        panel = forget(panel);
        FM_UNROLL
        for (int k = g * shape.n_unit / 4; k < (g + 1) * shape.n_unit / 4; k++)
            ask_ahead(panel, bytes, k, false);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            /* A scale beside 0 takes one of two bytes. */
            const __m256i sc = dst->h[half].sc[g];
            const __m256i sc_even = even_bytes(sc), sc_odd = _mm256_slli_epi16(sc, 8);
            const __m256i low = _mm256_mullo_epi16(sc, _mm256_set1_epi16((int16_t)shape.offset));
            FM_UNROLL
            for (int i = 0; i < shape.n_unit; i++) {
                const int u = g * shape.n_unit + i;
                const __m256i w = unit(panel + 32 * half, u / 4, u % 4);
                __m256i even = _mm256_maddubs_epi16(w, sc_even);
                __m256i odd = _mm256_maddubs_epi16(w, sc_odd);
                if (shape.offset != 0) {
                    even = _mm256_sub_epi16(even, low);
                    odd = _mm256_sub_epi16(odd, low);
                }
                dst->w[u][0][half] = even;
                dst->w[u][1][half] = odd;
            }
        }
    }
}

/* x [nt], acc [nt][16]. */
static FM_ALWAYS_INLINE void tile_256(float (*acc)[FM_PANEL_ROWS], const block_words *w,
                                      const act_words *x, const int nt, const int n_part,
                                      const min_form min)
{
    const int n_unit = 64 / n_part;
    for (int part = 0; part < n_part; part++) {
        __m256i sum[TILE_TOKENS][2];
        FM_UNROLL
        for (int t = 0; t < nt; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
        for (int u = n_unit * part; u < n_unit * (part + 1); u++) {
            FM_UNROLL
            for (int odd = 0; odd < 2; odd++) {
                const __m256i w0 = w->w[u][odd][0], w1 = w->w[u][odd][1];
                FM_UNROLL
                for (int t = 0; t < nt; t++) {
                    const __m256i v = repeat_32(odd ? x[t].odd + u : x[t].even + u);
                    sum[t][0] = add_words(sum[t][0], w0, v);
                    sum[t][1] = add_words(sum[t][1], w1, v);
                }
            }
        }
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            FM_UNROLL
            for (int half = 0; half < 2; half++) {
                float *const dst = acc[t] + 8 * half;
                _mm256_store_ps(dst, add_block(_mm256_load_ps(dst), &w->h[half], sum[t][half],
                                               &x[t].sums, min, 2));
            }
        }
    }
}

#define TILE(form, nt, n_part, min)                                                                \
    static void tile_##form##_##nt(float(*acc)[FM_PANEL_ROWS], const void *w, const void *x)       \
    {                                                                                              \
        tile_256(acc, w, x, nt, n_part, min);                                                      \
    }
#define TILES(form, n_part, min)                                                                   \
    TILE(form, 1, n_part, min)                                                                     \
    TILE(form, 2, n_part, min)                                                                     \
    TILE(form, 3, n_part, min)                                                                     \
    TILE(form, 4, n_part, min)                                                                     \
    TILE(form, 5, n_part, min)                                                                     \
    TILE(form, 6, n_part, min)
TILES(plain, 1, MIN_NONE)
TILES(halves, 2, MIN_NONE)
TILES(min_16, 1, MIN_16)
TILES(min_32, 1, MIN_32)

#define FORMAT(type, head)                                                                         \
    static void unpack_##type(void *dst, const uint8_t *panel)                                     \
    {                                                                                              \
        unpack_256(dst, panel, shape_##type, head, unit_##type);                                   \
    }                                                                                              \
    static void prepare_##type(void *dst, const fm_act_i13_256 *x)                                 \
    {                                                                                              \
        prepare_sums(&((act_words *)dst)->sums, x, shape_##type.min);                              \
        prepare_words(dst, x);                                                                     \
    }
FORMAT(q2_k, head_q2_k)
FORMAT(q3_k, head_q3_k)
FORMAT(q4_k, head_q4_k)
FORMAT(q5_k, head_q4_k)
FORMAT(q6_k, head_q6_k)
FORMAT(iq4_xs, head_iq4_xs)

#define TILES_OF(form)                                                                             \
    {                                                                                              \
        tile_##form##_1, tile_##form##_2, tile_##form##_3, tile_##form##_4, tile_##form##_5,       \
            tile_##form##_6                                                                        \
    }

#define ENTRY(type, form)                                                                          \
    {                                                                                              \
        fm_panel_##type##_one_avx2, 3,                                                             \
        {                                                                                          \
            MAX_TOK, MAX_BLOCKS, TILE_TOKENS, sizeof(act_words), prepare_##type, unpack_##type,    \
                TILES_OF(form)                                                                     \
        }                                                                                          \
    }
/* By type id. */
static const format_256 formats[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q2_K] = ENTRY(q2_k, min_16), [FM_TYPE_Q3_K] = ENTRY(q3_k, plain),
    [FM_TYPE_Q4_K] = ENTRY(q4_k, min_32), [FM_TYPE_Q5_K] = ENTRY(q5_k, min_32),
    [FM_TYPE_Q6_K] = ENTRY(q6_k, halves), [FM_TYPE_IQ4_XS] = ENTRY(iq4_xs, halves),
};

static void few_tokens(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t nt, const void *format)
{
    _Alignas(32) uint8_t x[MAX_BLOCKS * sizeof(act_words)];
    block_words weights;
    fm_matmul_apart_256(w, row0, row1, act, y, nt, format, x, &weights);
}

/* Panels [row0, row1), every one for one token after the other: it comes from memory once. */
static void panels_by_token(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                            float *const *y, int64_t n_tok, fm_panel_fn one)
{
    const uint64_t panel_bytes = w->row_bytes * FM_PANEL_ROWS;
    const int64_t n_block = w->n_in / w->type->block_elems;
    const uint8_t *panel = (const uint8_t *)w->data + (uint64_t)row0 * w->row_bytes;
    for (int64_t row = row0; row < row1; row += FM_PANEL_ROWS, panel += panel_bytes)
        for (int64_t t = 0; t < n_tok; t++) one(y[t] + row, panel, n_block, act + t);
}

void FM_SET(fm_matmul_256)(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                           float *const *y, int64_t n_tok, int n_plane)
{
    const format_256 *f = &formats[w->type->id];
    const int64_t panel_end = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_end ? row1 : panel_end;
    if (n_plane == 1 && fm_formats_256_int8_avx2[w->type->id].one)
        f = &fm_formats_256_int8_avx2[w->type->id];
    if (row0 < split && f->one) {
        if (n_tok < f->least)
            panels_by_token(w, row0, split, act, y, n_tok, f->one);
        else
            fm_matmul_by_stretch(w, row0, split, act, y, n_tok, MAX_TOK, few_tokens, &f->several);
        row0 = split;
    }
    if (row0 < row1) fm_rows_kernels[w->type->id](w, row0, row1, act, y, n_tok);
}

#endif
