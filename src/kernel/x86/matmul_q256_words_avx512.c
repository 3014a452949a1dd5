/* Products of many tokens with the K formats and IQ4_XS as words: matmul_words_avx512.h. */
#include "kernel/x86/matmul_words_avx512.h"

#if defined(__x86_64__)

static FM_ALWAYS_INLINE void unpack(block_words *dst, const uint8_t *panel, const bool halved,
                                    const shape_256 shape, scale_fn *scale, minimum_fn *minimum,
                                    unit_fn *unit)
{
    __m512i own = _mm512_setzero_si512();
    dst->half = read_halves(panel, shape);
    read_minima(dst->mn, panel, shape.min, minimum);
    FM_NO_UNROLL
    for (int k = 0; k < shape.n_group; k++) {
        fm_prefetch_panel(panel, shape.block_bytes * FM_PANEL_ROWS, k, shape.n_group);
        unpack_words(dst, &own, scale(panel, k), panel, k, k, halved, shape, unit);
    }
}

/* way: words, or halved for products that are halved. */
#define TILE(way, type, nt)                                                                        \
    static void tile_##way##_##type##_##nt(float(*acc)[FM_PANEL_ROWS], const void *w,              \
                                           const void *x)                                          \
    {                                                                                              \
        tile_words(acc, w, x, nt, is_##way, shape_##type);                                         \
    }
#define WAY(way, type, scale, minimum)                                                             \
    static void prepare_##way##_##type(void *dst, const fm_act_i13_256 *x)                         \
    {                                                                                              \
        prepare_words(dst, x, is_##way, shape_##type);                                             \
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
    fm_matmul_by_stretch(w, row0, split, act, y, n_tok, f->tokens, words_few_tokens, f);
    return split;
}

#endif
