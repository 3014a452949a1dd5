/* Plain row kernels: one output row at a time, in C, for either layout. They are the whole of the
 * set "generic", and in the vector sets they compute matrices in row layout and the rows past the
 * last whole panel. Everything is static: each set compiles its own copy with its own flags, and
 * since the integer sums are exact and the float steps are written out, all copies agree bit for
 * bit (quant.h gives the formulas).
 *
 * Integer ranges: quant.h. Nothing integer runs across blocks, so the row length does not matter.
 */
#pragma once

#include <string.h>

#include "kernel/kernel.h"
#include "quant/quant_block_iq.h"

/* Tokens that share one unpacked block. */
enum { FM_ROW_TOKENS = 16 };

typedef void fm_block_unpack_fn(fm_quant_block *, const uint8_t *);

/* Rows that lie in whole panels; the rest has row layout. */
static inline int64_t fm_matrix_panel_rows(const fm_matrix *w)
{
    if (w->layout != FM_LAYOUT_PANELS || w->type->n_field == 0) return 0;
    return w->n_out / FM_PANEL_ROWS * FM_PANEL_ROWS;
}

/* Block b of a row as on disk: a pointer into the matrix, or gathered from its panel into
 * buf [block_bytes]. */
static inline const uint8_t *fm_matrix_block(const fm_matrix *w, int64_t row, int64_t b,
                                             uint8_t *buf)
{
    const fm_type_traits *const t = w->type;
    const uint8_t *const data = w->data;
    if (row >= fm_matrix_panel_rows(w))
        return data + (uint64_t)row * w->row_bytes + (uint64_t)b * t->block_bytes;
    const uint64_t r = (uint64_t)(row % FM_PANEL_ROWS);
    const uint8_t *const src = data + ((uint64_t)row - r) * w->row_bytes +
                               (uint64_t)b * t->block_bytes * FM_PANEL_ROWS;
    for (int f = 0; f < t->n_field; f++) {
        const fm_pack_field fd = t->field[f];
        const uint8_t *const from = src + (size_t)fd.offset * FM_PANEL_ROWS;
        uint8_t *const to = buf + fd.offset;
        if (fd.unit == 4) {
            for (size_t u = 0; u < fd.bytes / 4u; u++)
                memcpy(to + u * 4, from + (u * FM_PANEL_ROWS + r) * 4, 4);
        } else {
            for (size_t u = 0; u < (size_t)fd.bytes / fd.unit; u++)
                memcpy(to + u * fd.unit, from + (u * FM_PANEL_ROWS + r) * fd.unit, fd.unit);
        }
    }
    return buf;
}

/* sum w (hi * 2^shift + lo); a product of sums of at most 32 * 128 * 127 with 2^7 fits. */
static FM_ALWAYS_INLINE int32_t fm_dot_planes(const int8_t *w, const int8_t *hi, const int8_t *lo,
                                              int n, int shift)
{
    int32_t sum_hi = 0, sum_lo = 0;
    for (int i = 0; i < n; i++) {
        sum_hi += w[i] * hi[i];
        sum_lo += w[i] * lo[i];
    }
    return sum_hi * (1 << shift) + sum_lo;
}

/* All tokens of one row; FM_ROW_TOKENS at a time share an unpacked block. */
static FM_ALWAYS_INLINE void fm_row_32(const fm_matrix *w, int64_t row, const void *const *act,
                                       float *const *y, int64_t n_tok, fm_block_unpack_fn *unpack,
                                       int has_min)
{
    const int64_t n_block = w->n_in / 32;
    for (int64_t t0 = 0; t0 < n_tok; t0 += FM_ROW_TOKENS) {
        const int nt = (int)(n_tok - t0 < FM_ROW_TOKENS ? n_tok - t0 : FM_ROW_TOKENS);
        float acc[FM_ROW_TOKENS] = {0};
        for (int64_t b = 0; b < n_block; b++) {
            uint8_t buf[64];
            fm_quant_block wb;
            unpack(&wb, fm_matrix_block(w, row, b, buf));
            for (int t = 0; t < nt; t++) {
                const fm_act_i15_32 *const x = (const fm_act_i15_32 *)act[t0 + t] + b;
                const int32_t sum = fm_dot_planes(wb.q, x->hi, x->lo, 32, FM_ACT_32_SHIFT);
                float term = (wb.d * x->d) * (float)sum;
                if (has_min) term = term + wb.m * x->dsum;
                acc[t] = acc[t] + term;
            }
        }
        for (int t = 0; t < nt; t++) y[t0 + t][row] = acc[t];
    }
}

/* parts: float steps per block. */
static FM_ALWAYS_INLINE void fm_row_256(const fm_matrix *w, int64_t row, const void *const *act,
                                        float *const *y, int64_t n_tok,
                                        fm_block_unpack_fn *unpack, int has_min, int parts)
{
    const int64_t n_block = w->n_in / 256;
    const int n_group = 16 / parts;
    for (int64_t t0 = 0; t0 < n_tok; t0 += FM_ROW_TOKENS) {
        const int nt = (int)(n_tok - t0 < FM_ROW_TOKENS ? n_tok - t0 : FM_ROW_TOKENS);
        float acc[FM_ROW_TOKENS] = {0};
        for (int64_t b = 0; b < n_block; b++) {
            uint8_t buf[256];
            fm_quant_block wb;
            unpack(&wb, fm_matrix_block(w, row, b, buf));
            for (int t = 0; t < nt; t++) {
                const fm_act_i13_256 *const x = (const fm_act_i13_256 *)act[t0 + t] + b;
                for (int part = 0; part < parts; part++) {
                    int32_t sum = 0, low = 0;
                    for (int k = n_group * part; k < n_group * (part + 1); k++) {
                        sum += wb.sc[k] * fm_dot_planes(wb.q + 16 * k, x->hi + 16 * k,
                                                        x->lo + 16 * k, 16, FM_ACT_256_SHIFT);
                        low -= wb.mn[k] * x->nsum[k];
                    }
                    float term = (wb.d * x->d) * (float)sum;
                    if (has_min) term = term - (wb.m * x->d) * (float)low;
                    acc[t] = acc[t] + term;
                }
            }
        }
        for (int t = 0; t < nt; t++) y[t0 + t][row] = acc[t];
    }
}

/* type, block, elements, then what fm_row_<elements> wants: the list of formats for kernels. */
#define FM_QUANT_KERNELS(X)                                                                       \
    X(Q4_0, q4_0, 32, 0)                                                                          \
    X(Q4_1, q4_1, 32, 1)                                                                          \
    X(Q5_0, q5_0, 32, 0)                                                                          \
    X(Q5_1, q5_1, 32, 1)                                                                          \
    X(Q8_0, q8_0, 32, 0)                                                                          \
    X(MXFP4, mxfp4, 32, 0)                                                                        \
    X(Q2_K, q2_k, 256, 1, 1)                                                                      \
    X(Q3_K, q3_k, 256, 0, 1)                                                                      \
    X(Q4_K, q4_k, 256, 1, 1)                                                                      \
    X(Q5_K, q5_k, 256, 1, 1)                                                                      \
    X(Q6_K, q6_k, 256, 0, 2)                                                                      \
    X(IQ4_NL, iq4_nl, 32, 0)                                                                      \
    X(IQ4_XS, iq4_xs, 256, 0, 2)                                                                  \
    X(IQ3_S, iq3_s, 256, 0, 1)                                                                    \
    X(IQ3_XXS, iq3_xxs, 256, 0, 1)                                                                \
    X(IQ2_S, iq2_s, 256, 0, 1)                                                                    \
    X(IQ2_XS, iq2_xs, 256, 0, 1)                                                                  \
    X(IQ2_XXS, iq2_xxs, 256, 0, 1)                                                                \
    X(IQ1_M, iq1_m, 256, 0, 1)                                                                    \
    X(IQ1_S, iq1_s, 256, 0, 1)

#define FM_ROWS_KERNEL(type, block, elems, ...)                                                   \
    static void rows_##block(const fm_matrix *w, int64_t row0, int64_t row1,                      \
                             const void *const *act, float *const *y, int64_t n_tok)              \
    {                                                                                             \
        for (int64_t row = row0; row < row1; row++)                                               \
            fm_row_##elems(w, row, act, y, n_tok, fm_block_##block, __VA_ARGS__);                 \
    }
FM_QUANT_KERNELS(FM_ROWS_KERNEL)

/* By type id; NULL for types whose activations are not quantized. */
enum { FM_KERNEL_TYPES = FM_TYPE_MXFP4 + 1 };
#define FM_ROWS_ENTRY(type, block, elems, ...) [FM_TYPE_##type] = rows_##block,
static const fm_matmul_fn fm_rows_kernels[FM_KERNEL_TYPES] = {FM_QUANT_KERNELS(FM_ROWS_ENTRY)};
