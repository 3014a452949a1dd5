/* Products of many tokens with blocks of 256 as words, for AVX-512 with VNNI: what the K formats and those of code books
 * share. A lane is a row.
 *
 * A block of a panel is taken apart once for many tokens, to words that have their scale in them, (q - offset) sc: 8 KB,
 * which stay in the first cache. Activations are words too, put together from their planes once per stretch of panels. So
 * vpdpwssd multiplies 16 rows with 2 columns and there is nothing to do between the groups of a block; with planes of bytes
 * every sum is multiplied by its scale there, which takes the place of a product.
 *
 * Where the processor adds while it multiplies, products are partly made of sums: matmul_halved_avx512.h.
 *
 * Ranges: as in matmul_q256_avx2.c; Q3_K's weights are eight times as large, at most 8 * 4 * 32, and so are its sums. The
 * largest words are Q6_K's, -4064 to 4096; halved products have them 4096 larger.
 */
#pragma once

#include <assert.h>

#include "kernel/x86/matmul_halved_avx512.h"
#include "kernel/x86/matmul_q256_avx512.h"

#if defined(__x86_64__)

enum { N_UNIT = 64 /* of 4 columns, in a block */ };

/* Halved products: what weights of formats with an offset become larger by, so that none is negative. */
enum { MORE_WEIGHT = 4096 };
_Static_assert(2 * (FM_ACT_256_TOP + MORE_WEIGHT) <= INT16_MAX, "sums of two words are words");

/* v of columns 4u and 4u + 2, 4u + 1 and 4u + 3, as words; halved products: where the sums of the parts of a block start. */
typedef struct {
    int32_t v[N_UNIT][2];
    uint32_t start[2];
    const fm_act_i13_256 *from; /* its sums and scale are read there */
} act_words;

/* A block of 16 rows taken apart. */
typedef struct {
    __m512i w[N_UNIT][2];
    __m512i own[2]; /* what they take away from the parts of a block, halved */
    __m512i mn[16];
    halves_512 half;
} block_words;

static FM_ALWAYS_INLINE int more_weight(const shape_256 shape)
{
    return shape.offset_32 != 0 ? MORE_WEIGHT : 0;
}

static FM_ALWAYS_INLINE void prepare_words(act_words *dst, const fm_act_i13_256 *x,
                                           const bool halved, const shape_256 shape)
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
            own = add_own_acts(own, even, odd, more);
            if ((i + 64) % (256 / shape.n_part) == 0) {
                dst->start[i / (256 / shape.n_part)] =
                    halved_start(64u / shape.n_part, FM_ACT_256_TOP, more, sum_of_16(own));
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

/* Group k, of a multiple of 4 units, of a block with the scale sc, whose weights are those of group `of` at from. own: the
 * sum of a part of the block so far, 0 where a part begins. */
static FM_ALWAYS_INLINE void unpack_words(block_words *dst, __m512i *own, __m512i scale,
                                          const uint8_t *from, int of, int k, const bool halved,
                                          const shape_256 shape, unit_fn *unit)
{
    const int n_part_group = shape.n_group / shape.n_part;
    /* A scale beside 0 takes one of two bytes. */
    const __m512i sc = _mm512_and_si512(scale, _mm512_set1_epi32(0xff));
    const __m512i even = _mm512_or_si512(sc, _mm512_slli_epi32(sc, 16));
    const __m512i odd = _mm512_slli_epi32(even, 8);
    /* What offset * scale is in a word. */
    __m512i low =
        _mm512_mullo_epi16(_mm512_srai_epi16(odd, 8), _mm512_set1_epi16(32 * shape.offset_32));
    if (halved) low = _mm512_sub_epi16(low, _mm512_set1_epi16((short)more_weight(shape)));
    assert(shape.n_unit % 4 == 0);
    FM_UNROLL
    for (int i = 0; i < shape.n_unit; i++) {
        const __m512i w = unit(from, of, i, 1);
        __m512i w0 = _mm512_maddubs_epi16(w, even), w1 = _mm512_maddubs_epi16(w, odd);
        if (shape.offset_32 != 0) {
            w0 = _mm512_sub_epi16(w0, low);
            w1 = _mm512_sub_epi16(w1, low);
        }
        dst->w[k * shape.n_unit + i][0] = w0;
        dst->w[k * shape.n_unit + i][1] = w1;
        if (halved) *own = add_own_weights(*own, w0, w1, FM_ACT_256_TOP, i);
    }
    if (halved && (k + 1) % n_part_group == 0) {
        dst->own[k / n_part_group] = *own;
        *own = _mm512_setzero_si512();
    }
}

/* Adds a block for nt tokens to acc [nt][16]. */
static FM_ALWAYS_INLINE void tile_words(float (*acc)[FM_PANEL_ROWS], const block_words *w,
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
        for (int u = n_unit * part; u < n_unit * (part + 1); u += halved ? 4 : 1) {
            if (halved) {
                FM_UNROLL
                for (int i = 0; i < 4; i++) {
                    const __m512i w0 = w->w[u + i][0], w1 = w->w[u + i][1];
                    FM_UNROLL
                    for (int t = 0; t < nt; t++) {
                        const int32_t *const v = x[t].v[u + i];
                        s[t][0] = add_unit_of_words(s[t][0], w0, w1, v, v + 1, i);
                    }
                }
            } else {
                FM_UNROLL
                for (int odd = 0; odd < 2; odd++) {
                    FM_UNROLL
                    for (int t = 0; t < nt; t++)
                        s[t][odd] = add_pair(s[t][odd], w->w[u][odd], &x[t].v[u][odd]);
                }
            }
        }
        sum_minima(low, w->mn, NULL, a, nt, shape.min, NULL);
        FM_UNROLL
        for (int t = 0; t < nt; t++)
            add_block_256(acc[t], _mm512_add_epi32(s[t][0], s[t][1]), low[t], w->half, a[t]->d,
                          shape);
    }
}

/* How many tokens a block is taken apart for, and how many blocks of activations are prepared at a time. */
enum { words_tokens = 32, words_blocks = 256, halved_tokens = 64, halved_blocks = 512 };

/* fm_few_tokens_fn; format: fm_apart_256 of act_words and block_words. */
static inline void words_few_tokens(const fm_matrix *w, int64_t row0, int64_t row1,
                                    const void *const *act, float *const *y, int64_t nt,
                                    const void *format)
{
    _Alignas(64) uint8_t x[halved_blocks * sizeof(act_words)]; /* room for either */
    block_words weights;
    fm_matmul_apart_256(w, row0, row1, act, y, nt, format, x, &weights);
}

#endif
