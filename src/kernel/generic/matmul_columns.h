/* Products with F32, F16 and BF16 matrices that lie by columns (FM_LAYOUT_COLUMNS). Every output row is a lane of its
 * own, so plain C vectorizes; static and compiled per set, as matmul_rows.h, with the same bits in all. */
#pragma once

#include "kernel/generic/matmul_rows.h"

enum { FM_COLUMNS_ROWS = 32 };

typedef float fm_load_float(const uint8_t *);

static FM_ALWAYS_INLINE float fm_load_f32(const uint8_t *p)
{
    return fm_f32_from_bits(fm_quant_le32(p));
}

static FM_ALWAYS_INLINE float fm_load_f16(const uint8_t *p)
{
    return fm_f16_to_f32(fm_quant_le16(p));
}

static FM_ALWAYS_INLINE float fm_load_bf16(const uint8_t *p)
{
    return fm_bf16_to_f32(fm_quant_le16(p));
}

/* n rows from `row` on, nt tokens. */
static FM_ALWAYS_INLINE void fm_columns_tile(const fm_matrix *w, int64_t row, const int n,
                                             const void *const *act, float *const *y, const int nt,
                                             fm_load_float *load)
{
    const size_t elem = w->type->block_bytes;
    const uint8_t *src = (const uint8_t *)w->data + (size_t)row * elem;
    float acc[2][FM_COLUMNS_ROWS] = {{0}};
    for (int64_t c = 0; c < w->n_in; c++, src += w->row_bytes) {
        float v[FM_COLUMNS_ROWS];
        for (int i = 0; i < n; i++) v[i] = load(src + (size_t)i * elem);
        for (int t = 0; t < nt; t++) {
            const float x = ((const float *)act[t])[c];
            for (int i = 0; i < n; i++) acc[t][i] = acc[t][i] + v[i] * x;
        }
    }
    for (int t = 0; t < nt; t++)
        for (int i = 0; i < n; i++) y[t][row + i] = acc[t][i];
}

static FM_ALWAYS_INLINE void fm_columns_rows(const fm_matrix *w, int64_t row0, int64_t row1,
                                             const void *const *act, float *const *y, int64_t n_tok,
                                             fm_load_float *load)
{
    for (int64_t row = row0; row < row1; row += FM_COLUMNS_ROWS) {
        const int64_t left = row1 - row;
        int64_t t = 0;
        if (left >= FM_COLUMNS_ROWS) {
            for (; t + 2 <= n_tok; t += 2)
                fm_columns_tile(w, row, FM_COLUMNS_ROWS, act + t, y + t, 2, load);
            if (t < n_tok) fm_columns_tile(w, row, FM_COLUMNS_ROWS, act + t, y + t, 1, load);
        } else {
            for (; t < n_tok; t++) fm_columns_tile(w, row, (int)left, act + t, y + t, 1, load);
        }
    }
}

static inline void fm_matmul_columns(const fm_matrix *w, int64_t row0, int64_t row1,
                                     const void *const *act, float *const *y, int64_t n_tok)
{
    switch (w->type->id) {
    case FM_TYPE_F16:
        fm_columns_rows(w, row0, row1, act, y, n_tok, fm_load_f16);
        break;
    case FM_TYPE_BF16:
        fm_columns_rows(w, row0, row1, act, y, n_tok, fm_load_bf16);
        break;
    default:
        fm_columns_rows(w, row0, row1, act, y, n_tok, fm_load_f32);
    }
}
