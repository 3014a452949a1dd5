/* Plain row kernels of the formats of several planes (quant/planar.h), for either layout: the whole of what the
 * set "generic" does with them, and in the vector sets the rows past the last whole panel. Static and
 * compiled per set, as matmul_rows.h. */
#pragma once

#include "kernel/generic/matmul_rows.h"
#include "quant/planar.h"

/* Where the scale (k = 0) or bias (k = 1) of a group of a row lies. */
static inline const uint8_t *fm_planar_aux(const fm_matrix *w, int k, int64_t row, int64_t group)
{
    const uint8_t *const base = w->aux[k];
    const uint64_t unit = fm_scale_bytes((fm_scale)w->type->scale);
    if (fm_has_row_scale(w->type)) group = 0;
    if (row >= fm_matrix_panel_rows(w))
        return base +
               (uint64_t)((row + w->scale_row) / w->type->rows_per_scale) * w->aux_row_bytes +
               (uint64_t)group * unit;
    const uint64_t r = (uint64_t)row % FM_PANEL_ROWS;
    return base + ((uint64_t)row - r) * w->aux_row_bytes +
           ((uint64_t)group * FM_PANEL_ROWS + r) * unit;
}

/* 32 columns of a row as integers (offset included), scale and bias. Not for E4M3. */
static inline void fm_planar_block(const fm_matrix *w, int64_t row, int64_t b, uint8_t q[32],
                                   float *d, float *m)
{
    const fm_type_traits *const t = w->type;
    const int64_t group = b * 32 / t->block_elems;
    const uint8_t *const data = w->data;
    if (row < fm_matrix_panel_rows(w)) {
        const int r = (int)(row % FM_PANEL_ROWS);
        fm_codes_unpack_panel((fm_code)t->code, q, data + (uint64_t)(row - r) * w->row_bytes, b, r);
    } else {
        fm_codes_unpack((fm_code)t->code, q, data + (uint64_t)row * w->row_bytes, b);
    }
    *d = fm_block_scale(t, fm_planar_aux(w, 0, row, group));
    *m =
        t->n_plane == 3 ? fm_scale_load((fm_scale)t->scale, fm_planar_aux(w, 1, row, group)) : 0.0f;
}

/* Columns [32 b, 32 b + 32) of a row. */
static inline void fm_planar_decode_block(const fm_matrix *w, int64_t row, int64_t b, float *dst)
{
    const fm_type_traits *const t = w->type;
    if (t->code == FM_CODE_E4M3) {
        const uint8_t *const q = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes + 32 * b;
        const float d =
            fm_scale_load((fm_scale)t->scale, fm_planar_aux(w, 0, row, b * 32 / t->block_elems));
        for (int i = 0; i < 32; i++) dst[i] = fm_e4m3_to_f32(q[i]) * d;
        return;
    }
    uint8_t q[32];
    float d, m;
    fm_planar_block(w, row, b, q, &d, &m);
    const int offset = fm_code_offset((fm_code)t->code);
    for (int i = 0; i < 32; i++) {
        const float v = d * (float)(q[i] - offset);
        dst[i] = t->n_plane == 3 ? v + m : v;
    }
}

/* sum q (hi 2^7 + lo) over 32 columns; at most 32 * 255 * 16256. */
static FM_ALWAYS_INLINE int32_t fm_dot_codes(const uint8_t *q, const int8_t *hi, const int8_t *lo)
{
    int32_t sum_hi = 0, sum_lo = 0;
    for (int i = 0; i < 32; i++) {
        sum_hi += q[i] * hi[i];
        sum_lo += q[i] * lo[i];
    }
    return sum_hi * (1 << FM_ACT_32_SHIFT) + sum_lo;
}

static inline void fm_row_planar(const fm_matrix *w, int64_t row, const void *const *act,
                                 float *const *y, int64_t n_tok)
{
    const int64_t n_block = w->n_in / 32;
    const int offset = fm_code_offset((fm_code)w->type->code);
    const int has_min = w->type->n_plane == 3;
    for (int64_t t0 = 0; t0 < n_tok; t0 += FM_ROW_TOKENS) {
        const int nt = (int)(n_tok - t0 < FM_ROW_TOKENS ? n_tok - t0 : FM_ROW_TOKENS);
        float acc[FM_ROW_TOKENS] = {0};
        for (int64_t b = 0; b < n_block; b++) {
            uint8_t q[32];
            float d, m;
            fm_planar_block(w, row, b, q, &d, &m);
            for (int t = 0; t < nt; t++) {
                const fm_act_i15_32 *const x = (const fm_act_i15_32 *)act[t0 + t] + b;
                const int32_t sum = fm_dot_codes(q, x->hi, x->lo) + offset * x->nsum;
                float term = (d * x->d) * (float)sum;
                if (has_min) term = term + m * x->dsum;
                acc[t] = acc[t] + term;
            }
        }
        for (int t = 0; t < nt; t++) y[t0 + t][row] = acc[t];
    }
}

/* E4M3 without fused multiply-add. */
static inline void fm_row_e4m3(const fm_matrix *w, int64_t row, const void *const *act,
                               float *const *y, int64_t n_tok)
{
    const fm_type_traits *const type = w->type;
    const uint8_t *const src = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes;
    for (int64_t t = 0; t < n_tok; t++) {
        const float *const x = act[t];
        float lane[16] = {0};
        for (int64_t b = 0; b < w->n_in / type->block_elems; b++) {
            float s[16] = {0};
            for (int64_t c = b * type->block_elems; c < (b + 1) * type->block_elems; c++)
                s[c % 16] += fm_e4m3_to_f32(src[c]) * x[c];
            const float d = fm_scale_load((fm_scale)type->scale, fm_planar_aux(w, 0, row, b));
            for (int i = 0; i < 16; i++) lane[i] += d * s[i];
        }
        for (int half = 8; half > 0; half /= 2)
            for (int i = 0; i < half; i++) lane[i] += lane[i + half];
        y[t][row] = lane[0];
    }
}

static inline void fm_rows_planar(const fm_matrix *w, int64_t row0, int64_t row1,
                                  const void *const *act, float *const *y, int64_t n_tok)
{
    for (int64_t row = row0; row < row1; row++) {
        if (w->type->code == FM_CODE_E4M3)
            fm_row_e4m3(w, row, act, y, n_tok);
        else
            fm_row_planar(w, row, act, y, n_tok);
    }
}
