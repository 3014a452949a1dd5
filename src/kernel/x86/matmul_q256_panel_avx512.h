/* The panel kernels of formats with blocks of 256, for AVX-512 with VNNI: the sums. A lane is a row. How a format is taken
 * apart is in matmul_q256_avx512.h and, for formats of code books, in matmul_book_vbmi.c.
 *
 * Ranges: the sum of a block (of half a block in Q6_K) fits 32 bits, see quant.h, also when it is
 * 8 times as large as in Q3_K: 1.1e9. With unsigned weights partial results may not fit, but they
 * are computed modulo 2^32, so the sum is right all the same.
 */
#pragma once

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

/* Whether sums of nt tokens get the shift between the planes at the end of a block, not in every group. */
static FM_ALWAYS_INLINE bool shifts_last(const shape_256 shape, const int nt, const int n_plane)
{
    return n_plane == 1 || (shape.scale == SCALE_WEIGHTS && nt > 1);
}

/* Group k of a block for nt tokens, whose weights are those of group `of` at from. */
static FM_ALWAYS_INLINE void add_group(sums_512 *r, __m512i sc, const uint8_t *from, int of,
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
            w[u] = _mm512_mullo_epi16(unit(from_here(from), of, u, 1), sc);
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
        const bool many = nt > 4;
        FM_UNROLL
        for (int u = 0; u < shape.n_unit; u++) w[u] = unit(from, of, u, many);
        dot_planes(s, w, shape.n_unit, hi, lo, nt, n_plane, shift, SUM_WHOLE);
        if (shape.odd_up && !many) {
            FM_UNROLL
            for (int t = 0; t < nt; t++)
                s[t] = _mm512_srav_epi32(s[t], _mm512_set1_epi32(shape.odd_up * (k & 1)));
        }
    } else {
        __m512i other[8];
        clear_sums(other, nt);
        FM_UNROLL
        for (int u = 0; u < shape.n_unit; u++)
            add_unit_apart(s, other, unit(from_here(from), of, u, 1), hi, lo, u, nt, n_plane);
        join_sums(s, other, nt, n_plane, shift);
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

/* Where what a block is made of comes from: the blocks of a panel, its scales or NULL (they are taken out one by one),
 * and, for formats of code books, CODES_BYTES for every 32 columns, else NULL. */
typedef struct {
    const uint8_t *panel, *codes;
    const __m512i *sc;
} block_source;

/* Groups [k0, k0 + n) of a block for nt tokens. */
static FM_ALWAYS_INLINE void add_groups(sums_512 *r, block_source from,
                                        const fm_act_i13_256 *const *x, const int nt,
                                        const int n_plane, const shape_256 shape, scale_fn *scale,
                                        unit_fn *unit, int k0, const int n)
{
    FM_UNROLL
    for (int i = 0; i < n; i++) {
        const int k = k0 + i;
        if (fm_asks_ahead(shape.order, nt))
            fm_prefetch_panel_for(nt, from.panel, shape.block_bytes * FM_PANEL_ROWS, k,
                                  shape.n_group);
        add_group(r, from.sc ? from.sc[k] : scale(from.panel, k),
                  from.codes ? from.codes + k / n * CODES_BYTES : from.panel, from.codes ? i : k, x,
                  nt, n_plane, shape, unit, k);
    }
}

/* All groups of a part. */
static FM_ALWAYS_INLINE void add_part(sums_512 *r, block_source from,
                                      const fm_act_i13_256 *const *x, const int nt,
                                      const int n_plane, const shape_256 shape, scale_fn *scale,
                                      unit_fn *unit, int part)
{
    const int n = shape.n_group / shape.n_part;
    FM_UNROLL
    for (int t = 0; t < nt; t++) r->sum[t] = r->plane_lo[t] = _mm512_setzero_si512();
    if (from.codes) {
        FM_NO_UNROLL
        for (int k = 0; k < n; k += n / N_CODES)
            add_groups(r, from, x, nt, n_plane, shape, scale, unit, k, n / N_CODES);
    } else if (nt == 1 && !shape.rolled) {
        /* Unrolled, so that shifts are constants and weights shared by groups are loaded once. */
        add_groups(r, from, x, nt, n_plane, shape, scale, unit, n * part, n);
    } else {
        FM_NO_UNROLL
        for (int k = n * part; k < n * (part + 1); k++)
            add_groups(r, from, x, nt, n_plane, shape, scale, unit, k, 1);
    }
}

/* The float step of a part for nt tokens. */
static FM_ALWAYS_INLINE void add_part_to(float *out, const sums_512 *r, const __m512i *low,
                                         halves_512 h, const fm_act_i13_256 *const *x, const int nt,
                                         const int n_plane, const shape_256 shape)
{
    fm_in_memory(out);
    FM_UNROLL
    for (int t = 0; t < nt; t++) {
        __m512i sum = r->sum[t];
        if (shifts_last(shape, nt, n_plane))
            sum = _mm512_add_epi32(_mm512_slli_epi32(sum, FM_ACT_256_SHIFT), r->plane_lo[t]);
        add_block_256(out + t * FM_PANEL_ROWS, sum, low[t], h, x[t]->d, shape);
    }
}

/* Integer sums of one block for nt tokens, then the float step of quant.h. */
static FM_ALWAYS_INLINE void panel_256(float *out, const uint8_t *panel, int64_t n_block,
                                       const void *const *act, const int nt, const int n_plane,
                                       const shape_256 shape, scale_fn *scale, minimum_fn *minimum,
                                       codes_fn *get_codes, unit_fn *unit)
{
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    const bool scales_first = nt <= shape.scales_first;
    _Alignas(64) uint8_t codes[N_CODES * CODES_BYTES];
    for (int i = 0; i < nt * FM_PANEL_ROWS; i++) out[i] = 0.0f;
    for (int64_t b = 0; b < n_block; b++, panel += bytes) {
        const fm_act_i13_256 *x[8];
        __m512i sc[16], mn[16];
        const block_source from = {panel, get_codes ? codes : NULL, scales_first ? sc : NULL};
        FM_UNROLL
        for (int t = 0; t < nt; t++) x[t] = (const fm_act_i13_256 *)act[t] + b;
        if (scales_first) {
            read_scales(sc, panel, shape.n_group, scale);
            read_minima(mn, panel, shape.min, minimum);
        }
        if (get_codes) {
            FM_NO_UNROLL
            for (int i = 0; i < N_CODES; i++) get_codes(codes + i * CODES_BYTES, panel, i);
            fm_in_memory(codes);
        }
        FM_UNROLL
        for (int part = 0; part < shape.n_part; part++) {
            sums_512 r;
            __m512i low[8];
            add_part(&r, from, x, nt, n_plane, shape, scale, unit, part);
            sum_minima(low, scales_first ? mn : NULL, panel, x, nt, shape.min, minimum);
            add_part_to(out, &r, low, read_halves(panel, shape), x, nt, n_plane, shape);
        }
    }
}

#define KERNEL(type, nt, n_plane, scale, minimum, get_codes, unit)                                 \
    static void type##_##nt##_##n_plane(float *out, const uint8_t *panel, int64_t n_block,         \
                                        const void *const *act)                                    \
    {                                                                                              \
        panel_256(out, panel, n_block, act, nt, n_plane, shape_##type, scale, minimum, get_codes,  \
                  unit);                                                                           \
    }

#endif
