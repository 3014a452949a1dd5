/* The plain C operations, for the table in ops_generic.c. Contracts: kernel.h. */
#pragma once

#include "kernel/kernel.h"

void fm_attend_generic(float *o, float *m, float *l, const float *q, const void *k, const void *v,
                       int64_t stride, int64_t pos0, int64_t pos1, int64_t dk, int64_t dv,
                       int64_t n_q, int f16);

void fm_attend_rows_generic(float *o, float *m, float *l, const float *q, const float *kt,
                            const float *v, int64_t n_row, int64_t group, int64_t seen, int64_t dk,
                            int64_t dv);

void fm_index_scores_generic(float *out, const float *q, const float *w, const void *k,
                             int64_t n_block, int64_t d, int64_t n_head, int f16);

void fm_conv_silu_generic(float *y, const float *x, float *state, const float *w, int64_t n_tok,
                          int64_t stride, int64_t n_ch, int64_t n_tap, int64_t c0, int64_t c1);

void fm_delta_step_generic(float *S, float *o, const float *q, const float *k, const float *v,
                           float g, float beta, int64_t dk, int64_t dv);

void fm_delta_chunk_generic(float *S, float *o, const float *q, const float *k, const float *v,
                            const float *g, const float *beta, int64_t n, int64_t qk_stride,
                            int64_t v_stride, int64_t o_stride, int64_t gb_stride, int64_t dk,
                            int64_t dv, float *scratch);

/* Parts of delta_chunk's scratch, in this order, each starting on a multiple of 16 floats after
 * the first one is aligned to 64 bytes:
 *   a  [64][64]            beta_i (k_i . k_j) D_ij
 *   p  [64][64]            (q_i . k_j) D_ij
 *   kt [round16(dk)][64]   the block's keys, transposed
 *   qt [round16(dk)][64]   the block's queries, transposed
 *   vn [64][round16(dv)]   V' */
typedef struct {
    float *a, *p, *kt, *qt, *vn;
    int64_t vn_stride;
} fm_delta_parts;

fm_delta_parts fm_delta_split(float *scratch, int64_t dk, int64_t dv);
