/* Products of many tokens with the K formats and IQ4_XS as words, for AVX-512 with VNNI: faster where the processor
 * multiplies in two units, and where it has one for formats with much to do between the products. A lane is a row.
 *
 * A block of a panel is taken apart once for up to 32 tokens, to words that have their scale in them, (q - offset) sc:
 * 8 KB, which stay in the first cache. Activations are words too, put together from their planes once per stretch of
 * panels. So vpdpwssd multiplies 16 rows with 2 columns and there is nothing to do between the groups of a block; with
 * planes of bytes every sum is multiplied by its scale there, which takes the place of a product.
 *
 * Ranges: as in matmul_q256_avx2.c; Q3_K's weights are eight times as large, at most 8 * 4 * 32, and so are its sums.
 */
#include "kernel/x86/matmul_q256_avx512.h"

#if defined(__x86_64__)

enum { N_UNIT = 64 /* of 4 columns, in a block */ };

/* v of columns 4u and 4u + 2, 4u + 1 and 4u + 3, as words. */
typedef struct {
    int32_t v[N_UNIT][2];
    const fm_act_i13_256 *from; /* its sums and scale are read there */
} act_words;

/* A block of 16 rows taken apart. */
typedef struct {
    __m512i w[N_UNIT][2];
    __m512i mn[16];
    halves_512 half;
} block_words;

static void prepare(void *to, const fm_act_i13_256 *x)
{
    act_words *const dst = to;
    dst->from = x;
    for (int i = 0; i < 256; i += 64) {
        const __m512i hi = load_512(x->hi + i), lo = load_512(x->lo + i);
        const __m512i even =
            _mm512_add_epi16(_mm512_srai_epi16(_mm512_slli_epi16(hi, 8), 8 - FM_ACT_256_SHIFT),
                             _mm512_srai_epi16(_mm512_slli_epi16(lo, 8), 8));
        const __m512i odd =
            _mm512_add_epi16(_mm512_slli_epi16(_mm512_srai_epi16(hi, 8), FM_ACT_256_SHIFT),
                             _mm512_srai_epi16(lo, 8));
        const __m512i low = _mm512_unpacklo_epi32(even, odd),
                      high = _mm512_unpackhi_epi32(even, odd);
        const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        _mm512_storeu_si512(dst->v[i / 4], _mm512_permutex2var_epi64(low, first, high));
        _mm512_storeu_si512(dst->v[i / 4 + 8], _mm512_permutex2var_epi64(low, second, high));
    }
}

static FM_ALWAYS_INLINE void unpack(block_words *dst, const uint8_t *panel, const shape_256 shape,
                                    scale_fn *scale, minimum_fn *minimum, unit_fn *unit)
{
    dst->half = read_halves(panel, shape);
    read_minima(dst->mn, panel, shape.min, minimum);
    FM_NO_UNROLL
    for (int k = 0; k < shape.n_group; k++) {
        fm_prefetch_panel(panel, shape.block_bytes * FM_PANEL_ROWS, k, shape.n_group);
        /* A scale beside 0 takes one of two bytes. */
        const __m512i sc = _mm512_and_si512(scale(panel, k), _mm512_set1_epi32(0xff));
        const __m512i even = _mm512_or_si512(sc, _mm512_slli_epi32(sc, 16));
        const __m512i odd = _mm512_slli_epi32(even, 8);
        /* What offset * scale is in a word. */
        const __m512i low =
            _mm512_mullo_epi16(_mm512_srai_epi16(odd, 8), _mm512_set1_epi16(32 * shape.offset_32));
        FM_UNROLL
        for (int i = 0; i < shape.n_unit; i++) {
            const __m512i w = unit(panel, k, i, 1);
            __m512i w0 = _mm512_maddubs_epi16(w, even), w1 = _mm512_maddubs_epi16(w, odd);
            if (shape.offset_32 != 0) {
                w0 = _mm512_sub_epi16(w0, low);
                w1 = _mm512_sub_epi16(w1, low);
            }
            dst->w[k * shape.n_unit + i][0] = w0;
            dst->w[k * shape.n_unit + i][1] = w1;
        }
    }
}

/* sum plus the products of two columns of each row in w with the two activations at p. */
static FM_ALWAYS_INLINE __m512i add_pair(__m512i sum, __m512i w, const int32_t *p)
{
#if defined(FM_ADDRESS_SANITIZER)
    return _mm512_dpwssd_epi32(sum, w, _mm512_set1_epi32(*p));
#else
    __asm__ volatile("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*p));
    return sum;
#endif
}

/* Adds a block for nt tokens to acc [nt][16]. */
static FM_ALWAYS_INLINE void tile(float (*acc)[FM_PANEL_ROWS], const block_words *w,
                                  const act_words *x, const int nt, const shape_256 shape)
{
    const fm_act_i13_256 *a[FM_APART_TILE];
    FM_UNROLL
    for (int t = 0; t < nt; t++) a[t] = x[t].from;
    const int n_unit = N_UNIT / shape.n_part;
    FM_UNROLL
    for (int part = 0; part < shape.n_part; part++) {
        __m512i s[FM_APART_TILE][2], low[FM_APART_TILE];
        FM_UNROLL
        for (int t = 0; t < nt; t++) s[t][0] = s[t][1] = _mm512_setzero_si512();
        FM_NO_UNROLL
        for (int u = n_unit * part; u < n_unit * (part + 1); u++) {
            FM_UNROLL
            for (int odd = 0; odd < 2; odd++) {
                FM_UNROLL
                for (int t = 0; t < nt; t++)
                    s[t][odd] = add_pair(s[t][odd], w->w[u][odd], &x[t].v[u][odd]);
            }
        }
        sum_minima(low, w->mn, NULL, a, nt, shape.min, NULL);
        FM_UNROLL
        for (int t = 0; t < nt; t++)
            add_block_256(acc[t], _mm512_add_epi32(s[t][0], s[t][1]), low[t], w->half, a[t]->d,
                          shape);
    }
}

#define TILE(type, nt)                                                                             \
    static void tile_##type##_##nt(float(*acc)[FM_PANEL_ROWS], const void *w, const void *x)       \
    {                                                                                              \
        tile(acc, w, x, nt, shape_##type);                                                         \
    }
#define FORMAT(type, scale, minimum)                                                               \
    static void unpack_##type(void *dst, const uint8_t *panel)                                     \
    {                                                                                              \
        unpack(dst, panel, shape_##type, scale, minimum, unit_##type);                             \
    }                                                                                              \
    TILE(type, 1)                                                                                  \
    TILE(type, 2)                                                                                  \
    TILE(type, 3) TILE(type, 4) TILE(type, 5) TILE(type, 6) TILE(type, 7) TILE(type, 8)
FORMAT(q2_k, scale_q2_k, minimum_q2_k)
FORMAT(q3_k, scale_q3_k, NULL)
FORMAT(q4_k, scale_6bit, minimum_6bit)
FORMAT(q5_k, scale_6bit, minimum_6bit)
FORMAT(q6_k, scale_q6_k, NULL)
FORMAT(iq4_xs, scale_iq4_xs, NULL)

#define ENTRY(type)                                                                                \
    {                                                                                              \
        FM_APART_TILE, sizeof(act_words), prepare, unpack_##type,                                  \
        {                                                                                          \
            tile_##type##_1, tile_##type##_2, tile_##type##_3, tile_##type##_4, tile_##type##_5,   \
                tile_##type##_6, tile_##type##_7, tile_##type##_8                                  \
        }                                                                                          \
    }
/* By type id. */
static const fm_apart_256 formats[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q2_K] = ENTRY(q2_k), [FM_TYPE_Q3_K] = ENTRY(q3_k), [FM_TYPE_Q4_K] = ENTRY(q4_k),
    [FM_TYPE_Q5_K] = ENTRY(q5_k), [FM_TYPE_Q6_K] = ENTRY(q6_k), [FM_TYPE_IQ4_XS] = ENTRY(iq4_xs),
};

static void few_tokens(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t nt, const void *format)
{
    _Alignas(64) uint8_t x[FM_APART_BLOCKS * sizeof(act_words)];
    block_words weights;
    fm_matmul_apart_256(w, row0, row1, act, y, nt, format, x, &weights);
}

/* From how many tokens on words are faster than planes of bytes; 0: never. [0] with two units that multiply 512 bits, measured
 * on Emerald Rapids; [1] with one, measured on Zen 4, where a block taken apart costs as much as one to three tokens. */
static const uint8_t least[2][FM_KERNEL_TYPES] = {
    {[FM_TYPE_Q2_K] = 10, [FM_TYPE_Q3_K] = 10, [FM_TYPE_Q4_K] = 10, [FM_TYPE_Q5_K] = 10,
     [FM_TYPE_Q6_K] = 10, [FM_TYPE_IQ4_XS] = 10},
    {[FM_TYPE_Q3_K] = 16, [FM_TYPE_Q5_K] = 16, [FM_TYPE_Q6_K] = 12},
};

int64_t fm_words_256_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                            float *const *y, int64_t n_tok, bool one_multiplier)
{
    const fm_apart_256 *const f = &formats[w->type->id];
    const int64_t panel_end = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_end ? row1 : panel_end;
    const int from = least[one_multiplier][w->type->id];
    if (from == 0 || n_tok < from || row0 >= split) return row0;
    fm_matmul_by_stretch(w, row0, split, act, y, n_tok, FM_APART_TOKENS, few_tokens, f);
    return split;
}

#endif
