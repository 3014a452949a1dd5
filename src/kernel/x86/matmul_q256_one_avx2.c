/* Products of one token with the formats of blocks of 256, for AVX2: what a generated token waits for, so every
 * operation per weight counts. Both halves of a panel are computed together, so that an activation is spread over the
 * lanes once for 16 rows, and a panel is read from front to back.
 *
 * The pair sums of a group stay in 16 bits as long as they fit (matmul_avx2.h), one sum for each plane; then vpmaddwd
 * multiplies them by the scale and joins them to 32 bits. The planes meet at the end of a block. Where not even one pair
 * of products with the high plane fits (IQ4_XS), words are multiplied instead: v, put together again, by even and odd
 * columns.
 *
 * Ranges: the sum of a block (of half a block in Q6_K and IQ4_XS) fits 32 bits, see quant.h. With unsigned weights
 * partial results may not fit, but they are computed modulo 2^32, so the sum is right all the same.
 */
#include "kernel/x86/matmul_q256_avx2.h"

#if defined(__x86_64__)

/* Integer sums of one half during a part of a block. */
typedef struct {
    __m256i hi, lo; /* of the planes; without planes all is in lo */
} sums_one;

static FM_ALWAYS_INLINE void add_group_bytes(sums_one *s, const head_256 *h, const uint8_t *panel,
                                             const fm_act_i13_256 *x, const int n_plane,
                                             const shape_256 shape, unit_fn *unit, int g)
{
    __m256i hi[2], lo[2];
    FM_UNROLL
    for (int i = 0; i < shape.n_unit; i++) {
        const int u = g * shape.n_unit + i;
        const __m256i x_hi = repeat_32(x->hi + 4 * u);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            const __m256i w = unit(panel + 32 * half, u / 4, u % 4);
            const __m256i p = _mm256_maddubs_epi16(w, x_hi);
            hi[half] = i % shape.n_pair == 0 ? p : settled(_mm256_add_epi16(hi[half], p));
            if (n_plane == 2) {
                const __m256i q = _mm256_maddubs_epi16(w, repeat_32(x->lo + 4 * u));
                lo[half] = i == 0 ? q : settled(_mm256_add_epi16(lo[half], q));
            }
            if (i % shape.n_pair == shape.n_pair - 1)
                s[half].hi = settled(
                    _mm256_add_epi32(s[half].hi, _mm256_madd_epi16(hi[half], h[half].sc[g])));
        }
    }
    if (n_plane == 1) return;
    FM_UNROLL
    for (int half = 0; half < 2; half++)
        s[half].lo =
            settled(_mm256_add_epi32(s[half].lo, _mm256_madd_epi16(lo[half], h[half].sc[g])));
}

static FM_ALWAYS_INLINE void add_group_words(sums_one *s, const head_256 *h, const uint8_t *panel,
                                             const act_words *x, const shape_256 shape,
                                             unit_fn *unit, int g)
{
    __m256i sum[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    FM_UNROLL
    for (int i = 0; i < shape.n_unit; i++) {
        const int u = g * shape.n_unit + i;
        const __m256i x_even = repeat_32(x->even + u), x_odd = repeat_32(x->odd + u);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            const __m256i w = unit(panel + 32 * half, u / 4, u % 4);
            sum[half] =
                settled(_mm256_add_epi32(sum[half], _mm256_madd_epi16(even_bytes(w), x_even)));
            sum[half] =
                settled(_mm256_add_epi32(sum[half], _mm256_madd_epi16(odd_bytes(w), x_odd)));
        }
    }
    FM_UNROLL
    for (int half = 0; half < 2; half++)
        s[half].lo = settled(_mm256_add_epi32(
            s[half].lo, _mm256_mullo_epi32(sum[half], _mm256_srai_epi32(h[half].sc[g], 16))));
}

/* offset times the sum of scales times -(sum v), over groups [g0, g1). */
static FM_ALWAYS_INLINE __m256i offset_sum(const head_256 *h, const act_sums *x,
                                           const shape_256 shape, const int g0, const int g1)
{
    __m256i s = _mm256_setzero_si256();
    FM_UNROLL
    for (int k = g0 * shape.n_unit / 4; k < g1 * shape.n_unit / 4; k++)
        s = settled(_mm256_add_epi32(
            s, _mm256_madd_epi16(h->sc[k * 4 / shape.n_unit], repeat_32(x->nsum + k))));
    return _mm256_mullo_epi32(s, _mm256_set1_epi32(shape.offset));
}

static FM_ALWAYS_INLINE void one_256(float *out, const uint8_t *panel, int64_t n_block,
                                     const void *const *act, const int n_plane,
                                     const shape_256 shape, head_fn *head, unit_fn *unit)
{
    const int n_group = 64 / shape.n_unit / shape.n_part;
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    const fm_act_i13_256 *x = act[0];
    __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t b = 0; b < n_block; b++, panel += bytes, x++) {
        head_256 h[2];
        act_words xp;
        prepare_sums(&xp.sums, x, shape.min);
        if (shape.n_pair == 0) prepare_words(&xp, x);
        head(&h[0], panel, 0);
        head(&h[1], panel, 1);
        fm_in_memory(h);
        fm_in_memory(&xp);
        FM_UNROLL
        for (int part = 0; part < shape.n_part; part++) {
            const int g0 = n_group * part, g1 = g0 + n_group;
            sums_one s[2];
            s[0].hi = s[0].lo = s[1].hi = s[1].lo = _mm256_setzero_si256();
            FM_UNROLL
            for (int g = g0; g < g1; g++) {
                panel = forget(panel);
                FM_UNROLL
                for (int k = g * shape.n_unit / 4; k < (g + 1) * shape.n_unit / 4; k++)
                    ask_ahead(panel, bytes, k, true);
                if (shape.n_pair == 0)
                    add_group_words(s, h, panel, &xp, shape, unit, g);
                else
                    add_group_bytes(s, h, panel, x, n_plane, shape, unit, g);
            }
            FM_UNROLL
            for (int half = 0; half < 2; half++) {
                __m256i sum = s[half].lo;
                if (shape.n_pair > 0)
                    sum = _mm256_add_epi32(_mm256_slli_epi32(s[half].hi, FM_ACT_256_SHIFT), sum);
                if (shape.offset != 0)
                    sum = _mm256_add_epi32(sum, offset_sum(&h[half], &xp.sums, shape, g0, g1));
                acc[half] = add_block(acc[half], &h[half], sum, &xp.sums, shape.min, n_plane);
            }
        }
    }
    _mm256_storeu_ps(out, acc[0]);
    _mm256_storeu_ps(out + 8, acc[1]);
}

#define KERNEL(type, name, n_plane, head)                                                          \
    void fm_panel_##name##_avx2(float *out, const uint8_t *panel, int64_t n_block,                 \
                                const void *const *act)                                            \
    {                                                                                              \
        one_256(out, panel, n_block, act, n_plane, shape_##type, head, unit_##type);               \
    }
#define KERNELS(type, head) KERNEL(type, type##_one, 2, head) KERNEL(type, type##_one_int8, 1, head)
KERNELS(q2_k, head_q2_k)
KERNELS(q3_k, head_q3_k)
KERNELS(q4_k, head_q4_k)
KERNELS(q5_k, head_q4_k)
KERNELS(q6_k, head_q6_k)
KERNEL(iq4_xs, iq4_xs_one, 2, head_iq4_xs)

#endif
