/* Products of many tokens with the K formats and IQ4_XS as words, for AVX-512 with VNNI: faster where the processor
 * multiplies in two units, and where it has one for formats with much to do between the products. A lane is a row.
 *
 * A block of a panel is taken apart once for up to 32 tokens, to words that have their scale in them, (q - offset) sc:
 * 8 KB, which stay in the first cache. Activations are words too, put together from their planes once per stretch of
 * panels. So vpdpwssd multiplies 16 rows with 2 columns and there is nothing to do between the groups of a block; with
 * planes of bytes every sum is multiplied by its scale there, which takes the place of a product.
 *
 * Where the processor adds while it multiplies, half the products are made of sums: matmul_halved_avx512.h.
 *
 * Ranges: as in matmul_q256_avx2.c; Q3_K's weights are eight times as large, at most 8 * 4 * 32, and so are its sums.
 */
#include "kernel/x86/matmul_halved_avx512.h"
#include "kernel/x86/matmul_q256_avx512.h"

#if defined(__x86_64__)

enum { N_UNIT = 64 /* of 4 columns, in a block */ };

/* Halved products: what weights of formats with an offset become larger by, so that none is negative. */
enum { MORE_WEIGHT = 4096 };

/* v of columns 4u and 4u + 2, 4u + 1 and 4u + 3, as words; halved products: where the sums of the parts of a block start. */
typedef struct {
    int32_t v[N_UNIT][2];
    uint32_t start[2];
    const fm_act_i13_256 *from; /* its sums and scale are read there */
} act_words;

/* A block of 16 rows taken apart. */
typedef struct {
    __m512i w[N_UNIT][2];
    __m512i own[2]; /* what they add to halved products of the parts of a block */
    __m512i mn[16];
    halves_512 half;
} block_words;

static FM_ALWAYS_INLINE int more_weight(const shape_256 shape)
{
    return shape.offset_32 != 0 ? MORE_WEIGHT : 0;
}

static FM_ALWAYS_INLINE void prepare(act_words *dst, const fm_act_i13_256 *x, const bool halved,
                                     const shape_256 shape)
{
    const int more = more_weight(shape);
    dst->from = x;
    __m512i own = _mm512_setzero_si512();
    for (int i = 0; i < 256; i += 64) {
        const __m512i hi = load_512(x->hi + i), lo = load_512(x->lo + i);
        __m512i even =
            _mm512_add_epi16(_mm512_srai_epi16(_mm512_slli_epi16(hi, 8), 8 - FM_ACT_256_SHIFT),
                             _mm512_srai_epi16(_mm512_slli_epi16(lo, 8), 8));
        __m512i odd =
            _mm512_add_epi16(_mm512_slli_epi16(_mm512_srai_epi16(hi, 8), FM_ACT_256_SHIFT),
                             _mm512_srai_epi16(lo, 8));
        if (halved) {
            even = _mm512_add_epi16(even, _mm512_set1_epi16(FM_ACT_256_TOP));
            odd = _mm512_add_epi16(odd, _mm512_set1_epi16(FM_ACT_256_TOP));
            own = add_own(own, even, odd, more);
            if ((i + 64) % (256 / shape.n_part) == 0) {
                dst->start[i / (256 / shape.n_part)] = halved_start(
                    128u / shape.n_part, FM_ACT_256_TOP, more, _mm512_reduce_add_epi32(own));
                own = _mm512_setzero_si512();
            }
        }
        const __m512i low = _mm512_unpacklo_epi32(even, odd),
                      high = _mm512_unpackhi_epi32(even, odd);
        const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        _mm512_storeu_si512(dst->v[i / 4], _mm512_permutex2var_epi64(low, first, high));
        _mm512_storeu_si512(dst->v[i / 4 + 8], _mm512_permutex2var_epi64(low, second, high));
    }
}

static FM_ALWAYS_INLINE void unpack(block_words *dst, const uint8_t *panel, const bool halved,
                                    const shape_256 shape, scale_fn *scale, minimum_fn *minimum,
                                    unit_fn *unit)
{
    const int n_part_group = shape.n_group / shape.n_part;
    __m512i own = _mm512_setzero_si512();
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
        __m512i low =
            _mm512_mullo_epi16(_mm512_srai_epi16(odd, 8), _mm512_set1_epi16(32 * shape.offset_32));
        if (halved) low = _mm512_sub_epi16(low, _mm512_set1_epi16((short)more_weight(shape)));
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
            if (halved) own = add_own(own, w0, w1, FM_ACT_256_TOP);
        }
        if (halved && (k + 1) % n_part_group == 0) {
            dst->own[k / n_part_group] = own;
            own = _mm512_setzero_si512();
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
                                  const act_words *x, const int nt, const bool halved,
                                  const shape_256 shape)
{
    const fm_act_i13_256 *a[FM_APART_TILE];
    FM_UNROLL
    for (int t = 0; t < nt; t++) a[t] = x[t].from;
    const int n_unit = N_UNIT / shape.n_part;
    FM_UNROLL
    for (int part = 0; part < shape.n_part; part++) {
        __m512i s[FM_APART_TILE][2], low[FM_APART_TILE];
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            s[t][0] = s[t][1] = _mm512_setzero_si512();
            if (halved)
                s[t][0] = _mm512_sub_epi32(_mm512_set1_epi32((int)x[t].start[part]), w->own[part]);
        }
        FM_NO_UNROLL
        for (int u = n_unit * part; u < n_unit * (part + 1); u++) {
            if (halved) {
                FM_UNROLL
                for (int t = 0; t < nt; t++)
                    s[t][0] = add_halved(s[t][0], w->w[u][0], w->w[u][1], x[t].v[u], x[t].v[u] + 1);
                continue;
            }
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

/* way: words, or halved for products that are halved. */
#define TILE(way, type, nt)                                                                        \
    static void tile_##way##_##type##_##nt(float(*acc)[FM_PANEL_ROWS], const void *w,              \
                                           const void *x)                                          \
    {                                                                                              \
        tile(acc, w, x, nt, is_##way, shape_##type);                                               \
    }
#define WAY(way, type, scale, minimum)                                                             \
    static void prepare_##way##_##type(void *dst, const fm_act_i13_256 *x)                         \
    {                                                                                              \
        prepare(dst, x, is_##way, shape_##type);                                                   \
    }                                                                                              \
    static void unpack_##way##_##type(void *dst, const uint8_t *panel)                             \
    {                                                                                              \
        unpack(dst, panel, is_##way, shape_##type, scale, minimum, unit_##type);                   \
    }                                                                                              \
    TILE(way, type, 1)                                                                             \
    TILE(way, type, 2)                                                                             \
    TILE(way, type, 3)                                                                             \
    TILE(way, type, 4) TILE(way, type, 5) TILE(way, type, 6) TILE(way, type, 7) TILE(way, type, 8)
#define FORMAT(type, scale, minimum)                                                               \
    WAY(words, type, scale, minimum) WAY(halved, type, scale, minimum)
enum { is_words = 0, is_halved = 1 };
enum { words_tokens = 32, words_blocks = 256, halved_tokens = 64, halved_blocks = 512 };
FORMAT(q2_k, scale_q2_k, minimum_q2_k)
FORMAT(q3_k, scale_q3_k, NULL)
FORMAT(q4_k, scale_6bit, minimum_6bit)
FORMAT(q5_k, scale_6bit, minimum_6bit)
FORMAT(q6_k, scale_q6_k, NULL)
FORMAT(iq4_xs, scale_iq4_xs, NULL)

#define ENTRY(way, type)                                                                           \
    {                                                                                              \
        way##_tokens, way##_blocks, FM_APART_TILE, sizeof(act_words), prepare_##way##_##type,      \
            unpack_##way##_##type,                                                                 \
        {                                                                                          \
            tile_##way##_##type##_1, tile_##way##_##type##_2, tile_##way##_##type##_3,             \
                tile_##way##_##type##_4, tile_##way##_##type##_5, tile_##way##_##type##_6,         \
                tile_##way##_##type##_7, tile_##way##_##type##_8                                   \
        }                                                                                          \
    }
#define FORMATS(way)                                                                               \
    {                                                                                              \
        [FM_TYPE_Q2_K] = ENTRY(way, q2_k), [FM_TYPE_Q3_K] = ENTRY(way, q3_k),                      \
        [FM_TYPE_Q4_K] = ENTRY(way, q4_k), [FM_TYPE_Q5_K] = ENTRY(way, q5_k),                      \
        [FM_TYPE_Q6_K] = ENTRY(way, q6_k), [FM_TYPE_IQ4_XS] = ENTRY(way, iq4_xs),                  \
    }
/* By type id; [1] with products halved. */
static const fm_apart_256 formats[2][FM_KERNEL_TYPES] = {FORMATS(words), FORMATS(halved)};

static void few_tokens(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t nt, const void *format)
{
    _Alignas(64) uint8_t x[words_blocks * sizeof(act_words)];
    block_words weights;
    fm_matmul_apart_256(w, row0, row1, act, y, nt, format, x, &weights);
}

static void few_tokens_halved(const fm_matrix *w, int64_t row0, int64_t row1,
                              const void *const *act, float *const *y, int64_t nt,
                              const void *format)
{
    _Alignas(64) uint8_t x[halved_blocks * sizeof(act_words)];
    block_words weights;
    fm_matmul_apart_256(w, row0, row1, act, y, nt, format, x, &weights);
}

/* From how many tokens on words are faster than planes of bytes. [0] as they are, measured on Emerald Rapids, with two units
 * that multiply 512 bits; [1] halved, measured on Zen 4, with one, where a block taken apart costs as much as three
 * tokens. */
static const uint8_t least[2][FM_KERNEL_TYPES] = {
    {[FM_TYPE_Q2_K] = 10,
     [FM_TYPE_Q3_K] = 10,
     [FM_TYPE_Q4_K] = 10,
     [FM_TYPE_Q5_K] = 10,
     [FM_TYPE_Q6_K] = 10,
     [FM_TYPE_IQ4_XS] = 10},
    {[FM_TYPE_Q2_K] = 9,
     [FM_TYPE_Q3_K] = 10,
     [FM_TYPE_Q4_K] = 10,
     [FM_TYPE_Q5_K] = 11,
     [FM_TYPE_Q6_K] = 9,
     [FM_TYPE_IQ4_XS] = 11},
};

int64_t fm_words_256_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                            float *const *y, int64_t n_tok, bool one_multiplier)
{
    const fm_apart_256 *const f = &formats[one_multiplier][w->type->id];
    const int64_t panel_end = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_end ? row1 : panel_end;
    const int from = least[one_multiplier][w->type->id];
    if (from == 0 || n_tok < from || row0 >= split) return row0;
    fm_matmul_by_stretch(w, row0, split, act, y, n_tok, f->tokens,
                         one_multiplier ? few_tokens_halved : few_tokens, f);
    return split;
}

#endif
