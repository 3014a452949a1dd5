/* Panel kernels of the formats with blocks of 256, for AVX-512 with VNNI. A lane is a row. How a format is taken apart
 * is in matmul_q256_avx512.h; panel_256 does the sums.
 *
 * Ranges: the sum of a block (of half a block in Q6_K) fits 32 bits, see quant.h, also when it is
 * 8 times as large as in Q3_K: 1.1e9. With unsigned weights partial results may not fit, but they
 * are computed modulo 2^32, so the sum is right all the same.
 */
#include "kernel/x86/matmul_q256_avx512.h"

#if defined(__x86_64__)

/* The sums of one block and nt tokens. With SCALE_WEIGHTS, and with one plane, sum is the high plane until the end of the
 * block; plane_lo: only with SCALE_WEIGHTS and two planes. */
typedef struct {
    __m512i sum[8], plane_lo[8];
} sums_512;

/* -(sum v) over the columns of group k. */
static FM_ALWAYS_INLINE int32_t minus_sum(const fm_act_i13_256 *x, const shape_256 shape, int k)
{
    return shape.n_unit == 4 ? x->nsum[k] : x->nsum[2 * k] + x->nsum[2 * k + 1];
}

/* panel, but what is read there is taken apart after what stands before. */
static FM_ALWAYS_INLINE const uint8_t *from_here(const uint8_t *panel)
{
    __asm__ volatile("" : "+r"(panel));
    return panel;
}

/* Whether sums of nt tokens get the shift between the planes at the end of a block, not in every group. */
static FM_ALWAYS_INLINE bool shifts_last(const shape_256 shape, const int nt, const int n_plane)
{
    return n_plane == 1 || (shape.scale == SCALE_WEIGHTS && nt > 1);
}

/* Group k of a block for nt tokens. */
static FM_ALWAYS_INLINE void add_group(sums_512 *r, __m512i sc, const uint8_t *panel,
                                       const fm_act_i13_256 *const *x, const int nt,
                                       const int n_plane, const shape_256 shape, unit_fn *unit,
                                       int k)
{
    const int column = k * shape.n_unit * 4;
    const int shift = n_plane == 1 ? 0 : FM_ACT_256_SHIFT;
    __m512i w[8], s[8];
    const int8_t *hi[8], *lo[8];
    FM_UNROLL
    for (int t = 0; t < nt; t++) {
        hi[t] = x[t]->hi + column;
        lo[t] = x[t]->lo + column;
        s[t] = _mm512_setzero_si512();
        if (shape.offset_32) s[t] = _mm512_set1_epi32(shape.offset_32 * minus_sum(x[t], shape, k));
    }
    if (shape.scale == SCALE_WEIGHTS && nt > 1) {
        FM_UNROLL
        for (int u = 0; u < shape.n_unit; u++) {
            w[u] = _mm512_mullo_epi16(unit(from_here(panel), k, u, 1), sc);
            FM_UNROLL
            for (int t = 0; t < nt; t++) {
                r->sum[t] = add_unit(r->sum[t], w[u], hi[t] + 4 * u, SUM_IN_ORDER);
                if (n_plane == 1) continue;
                r->plane_lo[t] = add_unit(r->plane_lo[t], w[u], lo[t] + 4 * u, SUM_IN_ORDER);
            }
        }
        return;
    }
    if (nt < shape.in_step) {
        FM_UNROLL
        for (int u = 0; u < shape.n_unit; u++) w[u] = unit(panel, k, u, nt > 4);
        dot_planes(s, w, shape.n_unit, hi, lo, nt, n_plane, shift, SUM_WHOLE);
    } else {
        FM_UNROLL
        for (int u = 0; u < shape.n_unit; u++) {
            w[u] = unit(from_here(panel), k, u, 1);
            add_unit_of_all(s, w[u], hi, u, nt, SUM_IN_ORDER);
        }
        shift_all(s, nt, shift);
        if (n_plane == 2) {
            FM_UNROLL
            for (int u = 0; u < shape.n_unit; u++)
                add_unit_of_all(s, w[u], lo, u, nt, SUM_IN_ORDER);
        }
    }
    if (shape.scale == SCALE_WEIGHTS) sc = _mm512_srli_epi32(sc, 16);
    FM_UNROLL
    for (int t = 0; t < nt; t++)
        r->sum[t] = _mm512_add_epi32(r->sum[t], _mm512_mullo_epi32(s[t], sc));
}

/* The scales of a block's groups. */
static FM_ALWAYS_INLINE void read_scales(__m512i *sc, const uint8_t *p, const int n_group,
                                         scale_fn *scale)
{
    FM_UNROLL
    for (int k = 0; k < n_group; k++) sc[k] = scale(p, k);
}

/* Integer sums of one block for nt tokens, then the float step of quant.h. */
static FM_ALWAYS_INLINE void panel_256(float *out, const uint8_t *panel, int64_t n_block,
                                       const void *const *act, const int nt, const int n_plane,
                                       const shape_256 shape, scale_fn *scale, minimum_fn *minimum,
                                       unit_fn *unit)
{
    const int n_group = shape.n_group / shape.n_part, bytes = shape.block_bytes * FM_PANEL_ROWS;
    const bool scales_first = nt <= shape.scales_first;
    for (int i = 0; i < nt * FM_PANEL_ROWS; i++) out[i] = 0.0f;
    for (int64_t b = 0; b < n_block; b++, panel += bytes) {
        const fm_act_i13_256 *x[8];
        __m512i sc[16], mn[16];
        FM_UNROLL
        for (int t = 0; t < nt; t++) x[t] = (const fm_act_i13_256 *)act[t] + b;
        if (scales_first) {
            read_scales(sc, panel, shape.n_group, scale);
            read_minima(mn, panel, shape.min, minimum);
        }
        FM_UNROLL
        for (int part = 0; part < shape.n_part; part++) {
            sums_512 r;
            __m512i low[8];
            FM_UNROLL
            for (int t = 0; t < nt; t++) r.sum[t] = r.plane_lo[t] = _mm512_setzero_si512();
            if (nt == 1 && !shape.rolled) {
                /* Unrolled, so that shifts are constants and weights shared by groups are loaded
                 * once. */
                FM_UNROLL
                for (int i = 0; i < n_group; i++) {
                    const int k = n_group * part + i;
                    if (fm_asks_ahead(shape.order, nt))
                        fm_prefetch_panel(panel, bytes, k, shape.n_group);
                    add_group(&r, scales_first ? sc[k] : scale(panel, k), panel, x, nt, n_plane,
                              shape, unit, k);
                }
            } else {
                FM_NO_UNROLL
                for (int k = n_group * part; k < n_group * (part + 1); k++) {
                    if (fm_asks_ahead(shape.order, nt))
                        fm_prefetch_panel(panel, bytes, k, shape.n_group);
                    add_group(&r, scales_first ? sc[k] : scale(panel, k), panel, x, nt, n_plane,
                              shape, unit, k);
                }
            }
            sum_minima(low, scales_first ? mn : NULL, panel, x, nt, shape.min, minimum);
            const halves_512 h = read_halves(panel, shape);
            fm_in_memory(out);
            FM_UNROLL
            for (int t = 0; t < nt; t++) {
                __m512i sum = r.sum[t];
                if (shifts_last(shape, nt, n_plane))
                    sum = _mm512_add_epi32(_mm512_slli_epi32(sum, FM_ACT_256_SHIFT), r.plane_lo[t]);
                add_block_256(out + t * FM_PANEL_ROWS, sum, low[t], h, x[t]->d, shape);
            }
        }
    }
}

#define KERNEL(type, nt, n_plane, scale, minimum, unit)                                            \
    static void type##_##nt##_##n_plane(float *out, const uint8_t *panel, int64_t n_block,         \
                                        const void *const *act)                                    \
    {                                                                                              \
        panel_256(out, panel, n_block, act, nt, n_plane, shape_##type, scale, minimum, unit);      \
    }
#define KERNELS_4_TO_8(type, n_plane, scale, minimum, unit)                                        \
    KERNEL(type, 4, n_plane, scale, minimum, unit)                                                 \
    KERNEL(type, 5, n_plane, scale, minimum, unit)                                                 \
    KERNEL(type, 6, n_plane, scale, minimum, unit)                                                 \
    KERNEL(type, 7, n_plane, scale, minimum, unit)                                                 \
    KERNEL(type, 8, n_plane, scale, minimum, unit)
#define KERNELS(type, scale, minimum, unit)                                                        \
    KERNEL(type, 1, 2, scale, minimum, unit)                                                       \
    KERNEL(type, 2, 2, scale, minimum, unit)                                                       \
    KERNEL(type, 3, 2, scale, minimum, unit)                                                       \
    KERNELS_4_TO_8(type, 2, scale, minimum, unit)                                                  \
    KERNELS_4_TO_8(type, 1, scale, minimum, unit)
KERNELS(q2_k, scale_q2_k, minimum_q2_k, unit_q2_k)
KERNELS(q3_k, scale_q3_k, NULL, unit_q3_k)
KERNELS(q4_k, scale_6bit, minimum_6bit, unit_q4_k)
KERNELS(q5_k, scale_6bit, minimum_6bit, unit_q5_k)
KERNELS(q6_k, scale_q6_k, NULL, unit_q6_k)
KERNELS(iq4_xs, scale_iq4_xs, NULL, unit_iq4_xs)

#define TABLE(n_plane)                                                                             \
    {                                                                                              \
        [FM_TYPE_Q2_K] = FM_PANEL_KERNELS(q2_k, n_plane),                                          \
        [FM_TYPE_Q3_K] = FM_PANEL_KERNELS(q3_k, n_plane),                                          \
        [FM_TYPE_Q4_K] = FM_PANEL_KERNELS(q4_k, n_plane),                                          \
        [FM_TYPE_Q5_K] = FM_PANEL_KERNELS(q5_k, n_plane),                                          \
        [FM_TYPE_Q6_K] = FM_PANEL_KERNELS(q6_k, n_plane),                                          \
        [FM_TYPE_IQ4_XS] = FM_PANEL_KERNELS(iq4_xs, n_plane),                                      \
    }
const fm_panel_kernels fm_panels_256_avx512[2][FM_KERNEL_TYPES] = {TABLE(1), TABLE(2)};

#endif
