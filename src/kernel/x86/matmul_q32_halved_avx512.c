/* Products of many tokens with blocks of 32, of one plane or several, with fewer multiplications: matmul_halved_avx512.h
 * has the arithmetic. A lane is a row. Weights are taken apart to words once for up to 64 tokens. */
#include "kernel/x86/matmul_halved_avx512.h"

#if defined(__x86_64__)

enum {
    MAX_TOK = 64,       /* tokens for which weights are taken apart once          */
    MAX_BLOCKS = 4096,  /* blocks of activations that are kept as words at a time */
    BLOCKS_AT_ONCE = 8, /* of weights                                             */
    TILE_TOKENS = 8     /* that meet 16 rows in registers                         */
};

/* A block of activations. */
typedef struct {
    int32_t even[8], odd[8]; /* X of columns 4u and 4u + 2, 4u + 1 and 4u + 3 */
    uint32_t start;          /* of the sum                                    */
    float d, dsum;
} act_words;

static void prepare(act_words *dst, const fm_act_i15_32 *x, int offset)
{
    const __m256i hi = _mm256_loadu_si256((const __m256i *)x->hi);
    const __m256i lo = _mm256_loadu_si256((const __m256i *)x->lo);
    const __m256i top = _mm256_set1_epi16(FM_ACT_32_TOP);
    const __m256i hi_even = _mm256_srai_epi16(_mm256_slli_epi16(hi, 8), 8 - FM_ACT_32_SHIFT);
    const __m256i hi_odd = _mm256_slli_epi16(_mm256_srai_epi16(hi, 8), FM_ACT_32_SHIFT);
    const __m256i lo_even = _mm256_srai_epi16(_mm256_slli_epi16(lo, 8), 8);
    const __m256i even = _mm256_add_epi16(_mm256_add_epi16(hi_even, lo_even), top);
    const __m256i odd = _mm256_add_epi16(_mm256_add_epi16(hi_odd, _mm256_srai_epi16(lo, 8)), top);
    _mm256_storeu_si256((__m256i *)dst->even, even);
    _mm256_storeu_si256((__m256i *)dst->odd, odd);
    /* The upper lanes are no units. */
    const __m512i own = add_own_acts(_mm512_setzero_si512(), _mm512_zextsi256_si512(even),
                                     _mm512_zextsi256_si512(odd), offset);
    dst->start = halved_start(8, FM_ACT_32_TOP, offset, sum_of_8(_mm512_castsi512_si256(own)));
    dst->d = x->d;
    dst->dsum = x->dsum;
}

/* n blocks of weights for nt tokens, added to acc [nt][16]; block b of token t is x[stride * b + t]. */
static FM_ALWAYS_INLINE void tile(float (*acc)[FM_PANEL_ROWS], const halved_block_32 *w, int n,
                                  const act_words *x, int64_t stride, const int nt,
                                  const int has_min)
{
    const shape_32 shape = {.has_min = has_min};
    __m512 sum[TILE_TOKENS];
    FM_UNROLL
    for (int t = 0; t < nt; t++) sum[t] = _mm512_load_ps(acc[t]);
    for (int b = 0; b < n; b++, w++, x += stride) {
        __m512i s[TILE_TOKENS];
        FM_UNROLL
        for (int t = 0; t < nt; t++)
            s[t] = _mm512_add_epi32(w->less, _mm512_set1_epi32((int32_t)x[t].start));
        FM_UNROLL
        for (int u = 0; u < 8; u++) {
            const __m512i w0 = w->w[u][0], w1 = w->w[u][1];
            FM_UNROLL
            for (int t = 0; t < nt; t++)
                s[t] = add_unit_of_words(s[t], w0, w1, &x[t].even[u], &x[t].odd[u], u);
        }
        FM_UNROLL
        for (int t = 0; t < nt; t++)
            sum[t] = add_block_32(sum[t], s[t], w->d, w->m, x[t].d, x[t].dsum, shape);
    }
    FM_UNROLL
    for (int t = 0; t < nt; t++) _mm512_store_ps(acc[t], sum[t]);
}

typedef void tile_fn(float (*acc)[FM_PANEL_ROWS], const halved_block_32 *w, int n,
                     const act_words *x, int64_t stride);

#define TILE(form, has_min, nt)                                                                    \
    static void tile_##form##_##nt(float(*acc)[FM_PANEL_ROWS], const halved_block_32 *w, int n,    \
                                   const act_words *x, int64_t stride)                             \
    {                                                                                              \
        tile(acc, w, n, x, stride, nt, has_min);                                                   \
    }
#define TILES(form, has_min)                                                                       \
    TILE(form, has_min, 1)                                                                         \
    TILE(form, has_min, 2)                                                                         \
    TILE(form, has_min, 3)                                                                         \
    TILE(form, has_min, 4)                                                                         \
    TILE(form, has_min, 5) TILE(form, has_min, 6) TILE(form, has_min, 7) TILE(form, has_min, 8)
TILES(plain, 0)
TILES(min, 1)

/* [1]: of formats with a minimum; for 1, 2, ... tokens. */
static tile_fn *const tiles[2][TILE_TOKENS] = {
    {tile_plain_1, tile_plain_2, tile_plain_3, tile_plain_4, tile_plain_5, tile_plain_6,
     tile_plain_7, tile_plain_8},
    {tile_min_1, tile_min_2, tile_min_3, tile_min_4, tile_min_5, tile_min_6, tile_min_7,
     tile_min_8},
};

/* Panels [row0, row1) for up to MAX_TOK tokens. As many columns at a time as there is room for their activations; between
 * them the sums wait in y. */
static void few_tokens(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t nt, const void *format)
{
    const halved_32 *const f = format;
    const int64_t n_block = w->n_in / 32, step = MAX_BLOCKS / nt;
    const int64_t n_call = (nt + TILE_TOKENS - 1) / TILE_TOKENS;
    act_words x[MAX_BLOCKS];
    halved_block_32 weights[BLOCKS_AT_ONCE];
    _Alignas(64) float acc[MAX_TOK][FM_PANEL_ROWS];
    for (int64_t b0 = 0; b0 < n_block; b0 += step) {
        const int64_t b1 = b0 + step < n_block ? b0 + step : n_block;
        for (int64_t t = 0; t < nt; t++)
            for (int64_t b = b0; b < b1; b++) {
                fm_ask_for_next_token(act, t, nt, b);
                prepare(&x[(b - b0) * nt + t], (const fm_act_i15_32 *)act[t] + b, f->offset);
            }
        for (int64_t row = row0; row < row1; row += FM_PANEL_ROWS) {
            const panel_planes panel = f->panel(w, row);
            for (int64_t b = b0; b < b1; b += BLOCKS_AT_ONCE) {
                const int n = b1 - b < BLOCKS_AT_ONCE ? (int)(b1 - b) : BLOCKS_AT_ONCE;
                for (int i = 0; i < n; i++) f->unpack(&weights[i], &panel, b + i);
                for (int64_t c = 0, t = 0, nc; c < n_call; c++, t += nc) {
                    nc = nt * (c + 1) / n_call - t;
                    if (b == b0) fm_get_sums(acc + t, y + t, row, nc, b0 == 0);
                    tiles[f->has_min][nc - 1](acc + t, weights, n, &x[(b - b0) * nt + t], nt);
                    if (b + n == b1) fm_put_sums(y + t, row, nc, acc + t);
                }
            }
        }
    }
}

int64_t fm_halved_32_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                            float *const *y, int64_t n_tok, const halved_32 *f)
{
    const int64_t panel_end = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_end ? row1 : panel_end;
    if (n_tok < f->least || row0 >= split) return row0;
    fm_matmul_by_stretch(w, row0, split, act, y, n_tok, MAX_TOK, few_tokens, f);
    return split;
}

/* ---- formats of one plane ------------------------------------------------------------------ */

static panel_planes panel_at(const fm_matrix *w, int64_t row)
{
    return (panel_planes){.codes = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes,
                          .bytes = w->row_bytes * FM_PANEL_ROWS};
}

#define FORMAT(type)                                                                               \
    static void unpack_##type(halved_block_32 *dst, const panel_planes *p, int64_t b)              \
    {                                                                                              \
        const int bytes = shape_##type.block_bytes * FM_PANEL_ROWS;                                \
        const uint8_t *const block = p->codes + b * bytes;                                         \
        ask_for_next_panel(p, block, bytes);                                                       \
        scales_##type(&dst->d, &dst->m, block);                                                    \
        unpack_halved_32(dst, block, unit_##type);                                                 \
    }
FORMAT(q4_0)
FORMAT(q4_1)
FORMAT(q5_0)
FORMAT(q5_1)
FORMAT(q8_0)
FORMAT(mxfp4)
FORMAT(iq4_nl)

typedef struct {
    int least;
    const shape_32 *shape;
    unpack_halved_fn *unpack;
} format_32;
#define ENTRY(type, least)                                                                         \
    {                                                                                              \
        least, &shape_##type, unpack_##type                                                        \
    }
/* By type id. */
static const format_32 formats[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q4_0] = ENTRY(q4_0, 10),     [FM_TYPE_Q4_1] = ENTRY(q4_1, 11),
    [FM_TYPE_Q5_0] = ENTRY(q5_0, 9),      [FM_TYPE_Q5_1] = ENTRY(q5_1, 9),
    [FM_TYPE_Q8_0] = ENTRY(q8_0, 13),     [FM_TYPE_MXFP4] = ENTRY(mxfp4, 9),
    [FM_TYPE_IQ4_NL] = ENTRY(iq4_nl, 12),
};

int64_t fm_words_32_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                           float *const *y, int64_t n_tok)
{
    const format_32 *const f = &formats[w->type->id];
    if (!f->unpack) return row0;
    const halved_32 halved = {f->least, f->shape->offset, f->shape->has_min, panel_at, f->unpack};
    return fm_halved_32_avx512(w, row0, row1, act, y, n_tok, &halved);
}

#endif
