/* Products of several tokens with activations of 8 bits and the formats of blocks of 256, for AVX2. A lane is a row.
 *
 * A block of a panel is taken apart once for up to 32 tokens, to bytes: 4 KB, which stay in the first cache. vpmaddubsw
 * adds two products into 16 bits, where the pair sums of a group stay as long as they fit; then vpmaddwd multiplies them by
 * the scale and joins them to 32 bits. So 32 products take two operations, a fourth or a half more for scales, where words
 * (matmul_q256_avx2.c) take four, or two with AVX-VNNI.
 *
 * One factor is unsigned: the weights of formats with minima, as they are, and the activations, plus 128, of those with an
 * offset, whose weights get their sign. What the 128 add depends on the weights alone and is subtracted once per block.
 *
 * Ranges: a pair of unsigned weights with activations is at most 2 * 15 * 127 (Q4_K, 8 pairs: 30480) resp. 2 * 31 * 127
 * (Q5_K, 4 pairs: 31496); of activations with signed ones 2 * 255 * 32 (Q6_K, 2 pairs: 32640), 2 * 255 * 4 (Q3_K, 4 pairs).
 * Sums of 32 bits: without the shift between the planes a 32nd of quant.h's, and about as much again for what 128 add.
 */
#include "kernel/x86/matmul_q256_avx2.h"

#if defined(__x86_64__)

typedef struct {
    act_sums sums;
    uint8_t x[256]; /* the upper plane; plus 128 for formats with an offset */
} act_bytes;

/* A block of 16 rows taken apart. */
typedef struct {
    __m256i w[64][2]; /* unit; half */
    __m256i
        start[2][2]; /* part; half: minus what the 128 in activations add; formats with an offset */
    head_256 h[2];
} block_bytes;

_Static_assert(sizeof(act_bytes) <= sizeof(act_words) && sizeof(block_bytes) <= sizeof(block_words),
               "format_256: bytes take no more room than words");

/* Integer sums of the groups of a part for nt tokens. */
static FM_ALWAYS_INLINE void sum_part(__m256i (*sum)[2], const block_bytes *w, const act_bytes *x,
                                      const int nt, const shape_256 shape, int part)
{
    const int n_group = 64 / shape.n_unit / shape.n_part;
    FM_UNROLL
    for (int t = 0; t < nt; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    FM_NO_UNROLL
    for (int g = n_group * part; g < n_group * (part + 1); g++) {
        __m256i pairs[4][2];
        FM_UNROLL
        for (int i = 0; i < shape.n_unit; i++) {
            const int u = g * shape.n_unit + i;
            const __m256i w0 = w->w[u][0], w1 = w->w[u][1];
            FM_UNROLL
            for (int t = 0; t < nt; t++) {
                const __m256i v = repeat_32(x[t].x + 4 * u);
                const __m256i p0 =
                    shape.offset ? _mm256_maddubs_epi16(v, w0) : _mm256_maddubs_epi16(w0, v);
                const __m256i p1 =
                    shape.offset ? _mm256_maddubs_epi16(v, w1) : _mm256_maddubs_epi16(w1, v);
                const int first = i % shape.n_pair == 0;
                pairs[t][0] = first ? p0 : settled(_mm256_add_epi16(pairs[t][0], p0));
                pairs[t][1] = first ? p1 : settled(_mm256_add_epi16(pairs[t][1], p1));
            }
            if (i % shape.n_pair != shape.n_pair - 1) continue;
            FM_UNROLL
            for (int t = 0; t < nt; t++) {
                FM_UNROLL
                for (int half = 0; half < 2; half++)
                    sum[t][half] = _mm256_add_epi32(
                        sum[t][half], _mm256_madd_epi16(pairs[t][half], w->h[half].sc[g]));
            }
        }
    }
}

static FM_ALWAYS_INLINE void unpack_bytes(block_bytes *dst, const uint8_t *panel,
                                          const shape_256 shape, head_fn *head, unit_fn *unit)
{
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    const __m256i offset = _mm256_set1_epi8((char)shape.offset);
    head(&dst->h[0], panel, 0);
    head(&dst->h[1], panel, 1);
    FM_UNROLL
    for (int k = 0; k < 16; k++) {
        panel = forget(panel);
        ask_ahead(panel, bytes, k, false);
        FM_UNROLL
        for (int u = 0; u < 4; u++) {
            FM_UNROLL
            for (int half = 0; half < 2; half++)
                dst->w[4 * k + u][half] = _mm256_sub_epi8(unit(panel + 32 * half, k, u), offset);
        }
    }
    if (!shape.offset) return;
    act_bytes bias;
    memset(bias.x, 128, sizeof bias.x);
    for (int part = 0; part < shape.n_part; part++) {
        __m256i sum[1][2];
        sum_part(sum, dst, &bias, 1, shape, part);
        FM_UNROLL
        for (int half = 0; half < 2; half++)
            dst->start[part][half] = _mm256_sub_epi32(_mm256_setzero_si256(), sum[0][half]);
    }
}

static FM_ALWAYS_INLINE void prepare_bytes(act_bytes *dst, const fm_act_i13_256 *x,
                                           const shape_256 shape)
{
    const __m256i bias = _mm256_set1_epi8(shape.offset ? -128 : 0);
    prepare_sums(&dst->sums, x, shape.min);
    FM_UNROLL
    for (int i = 0; i < 256; i += 32)
        _mm256_storeu_si256((__m256i *)(dst->x + i), _mm256_xor_si256(load_256(x->hi + i), bias));
}

/* x [nt], acc [nt][16]. */
static FM_ALWAYS_INLINE void tile_bytes(float (*acc)[FM_PANEL_ROWS], const block_bytes *w,
                                        const act_bytes *x, const int nt, const shape_256 shape)
{
    for (int part = 0; part < shape.n_part; part++) {
        __m256i sum[4][2];
        sum_part(sum, w, x, nt, shape, part);
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            FM_UNROLL
            for (int half = 0; half < 2; half++) {
                float *const dst = acc[t] + 8 * half;
                __m256i s = sum[t][half];
                if (shape.offset) s = _mm256_add_epi32(s, w->start[part][half]);
                s = _mm256_slli_epi32(s, FM_ACT_256_SHIFT);
                _mm256_store_ps(
                    dst, add_block(_mm256_load_ps(dst), &w->h[half], s, &x[t].sums, shape.min, 1));
            }
        }
    }
}

#define TILE(type, nt)                                                                             \
    static void tile_##type##_##nt(float(*acc)[FM_PANEL_ROWS], const void *w, const void *x)       \
    {                                                                                              \
        tile_bytes(acc, w, x, nt, shape_##type);                                                   \
    }
#define FORMAT(type, head)                                                                         \
    static void unpack_##type(void *dst, const uint8_t *panel)                                     \
    {                                                                                              \
        unpack_bytes(dst, panel, shape_##type, head, unit_##type);                                 \
    }                                                                                              \
    static void prepare_##type(void *dst, const fm_act_i13_256 *x)                                 \
    {                                                                                              \
        prepare_bytes(dst, x, shape_##type);                                                       \
    }                                                                                              \
    TILE(type, 1) TILE(type, 2) TILE(type, 3) TILE(type, 4)
FORMAT(q2_k, head_q2_k)
FORMAT(q3_k, head_q3_k)
FORMAT(q4_k, head_q4_k)
FORMAT(q5_k, head_q4_k)
FORMAT(q6_k, head_q6_k)

#define ENTRY(type)                                                                                \
    {                                                                                              \
        fm_panel_##type##_one_int8_avx2, 3,                                                        \
        {                                                                                          \
            MAX_TOK, MAX_BLOCKS, BYTES_TOKENS, sizeof(act_bytes), prepare_##type, unpack_##type,   \
            {                                                                                      \
                tile_##type##_1, tile_##type##_2, tile_##type##_3, tile_##type##_4                 \
            }                                                                                      \
        }                                                                                          \
    }
const format_256 fm_formats_256_int8_avx2[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q2_K] = ENTRY(q2_k), [FM_TYPE_Q3_K] = ENTRY(q3_k), [FM_TYPE_Q4_K] = ENTRY(q4_k),
    [FM_TYPE_Q5_K] = ENTRY(q5_k), [FM_TYPE_Q6_K] = ENTRY(q6_k),
};

#endif
