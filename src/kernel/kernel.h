/* Kernels: one table of functions per instruction set, chosen once.
 *
 * Conventions, everywhere: weights are row-major [out][in], y[out] = sum over in of W[out][in] x[in];
 * the last dimension of a written shape is contiguous; activations are [token][channel]. Kernels
 * know nothing about files, slots or layers. They compute a range of rows or heads, so that
 * callers can spread the ranges over threads; a result never depends on the split nor on how many
 * tokens are computed in one call.
 */
#pragma once

#include <stdint.h>

#include "quant/quant.h"

typedef enum {
    FM_LAYOUT_ROWS,
    FM_LAYOUT_PANELS,
    FM_LAYOUT_COLUMNS, /* F32, F16, BF16: [n_in][n_out], row_bytes from one column to the next */
} fm_layout;

/* The layout of matrices of a type; book_layout: fm_kernels. */
static inline fm_layout fm_layout_of(const fm_type_traits *t, fm_layout book_layout)
{
    if (t->is_book) return book_layout;
    return t->n_field ? FM_LAYOUT_PANELS : FM_LAYOUT_ROWS;
}

/* A weight matrix in memory. Borrowed bytes. */
typedef struct {
    const fm_type_traits *type;
    const void *data;
    int64_t n_out, n_in;
    uint64_t row_bytes;
    fm_layout layout;
    /* Formats of several planes (quant/planar.h): scales, biases. */
    const void *aux[FM_MAX_PLANES - 1];
    uint64_t aux_row_bytes;
    int32_t scale_row; /* rows of the first scale that lie before row 0 (scales of 128 rows) */
    const void *tag; /* what it is, for those who made it; kernels do not look */
} fm_matrix;

/* Row `row` of a matrix in rows or panels as f32, dst [n_in]. */
void fm_matrix_row(float *dst, const fm_matrix *w, int64_t row);

/* A matmul of some rows for some tokens:
 *   y[t][row] for row in [row0, row1), t < n_tok, where y[t] points at the token's output vector
 *   act[t] is the token's activation row in the form act_form(w->type) (fm_act_bytes long,
 *   64-byte aligned start preferred, 16 required).
 * row0 is a multiple of 16; row1 too unless it is n_out. Any n_tok >= 1. Reads nothing outside
 * the matrix and the activations; w->data needs no alignment.
 *
 * Quantized weights: quant.h fixes the arithmetic; all sets but reference, on every processor, and both
 * layouts agree bit for bit (a NaN may differ in its payload).
 * F32, F16, BF16 weights: lane i of 16 sums the products of columns i, i+16, ... in order, with
 * fused multiply-add in the sets of a processor and without it in generic; lanes are then added as a tree,
 * lane i with lane i+8, then +4, +2, +1. By columns: a row's products are added in order of columns, separate
 * multiply and add, in every set but reference.
 * E4M3 weights: the same lanes, without the scale, over each block of 128 columns (with one scale to a row: of 32); then
 * every lane of the block times the block's scale is added to the row's lane (fused as above). */
typedef void (*fm_matmul_fn)(const fm_matrix *w, int64_t row0, int64_t row1,
                             const void *const *act, float *const *y, int64_t n_tok);

typedef struct fm_kernels {
    const char *name;

    /* The form in which matmul of this set wants activations for a weight type: t->act, and
     * FM_ACT_F32 for every type in the set "reference". */
    fm_act (*act_form)(const fm_type_traits *t);

    /* Formats of code books: the layout for which matmul of this set is fast. The other one gives the same bits. */
    fm_layout book_layout;

    /* dst <- activations of x [n] in form FM_ACT_I15_32 / FM_ACT_I13_256 / copy for F32.
     * A block whose largest magnitude is below V * FLT_MIN (V: quant.h) becomes zeros (d = 0). A
     * block that holds an Inf or NaN becomes d = NaN and v = 0, so every product with it is NaN. */
    void (*quantize)(fm_act form, void *dst, const float *x, int64_t n);
    fm_matmul_fn matmul;

    /* y = w * x / sqrt(mean(x^2) + eps); y may be x. sum in f64 or fixed lanes. [n] */
    void (*rmsnorm)(float *y, const float *x, const float *w, float eps, int64_t n);

    /* x / sqrt(sum x^2 + eps) * scale, in place. [n] */
    void (*l2norm)(float *x, float eps, float scale, int64_t n);

    /* y[i] = silu(gate[i]) * up[i]; y may be gate. [n] */
    void (*silu_mul)(float *y, const float *gate, const float *up, int64_t n);

    /* y[i] = g sigmoid(alpha g) (u + 1), g = min(gate[i], limit), u = up[i] held to +-limit; y may be
     * gate. [n] Source: openai/gpt-oss, gpt_oss/torch/model.py, swiglu. */
    void (*clamped_swiglu)(float *y, const float *gate, const float *up, float alpha, float limit,
                           int64_t n);

    /* y[i] *= sigmoid(g[i]) */
    void (*sigmoid_mul)(float *y, const float *g, int64_t n);

    /* y += a * x */
    void (*axpy)(float *y, float a, const float *x, int64_t n);

    /* Rotates pairs (x[i], x[i + n_rot/2]) of one head, i < n_rot/2, by cos/sin [n_rot/2]. */
    void (*rope_half)(float *x, const float *cos_t, const float *sin_t, int64_t n_rot);

    /* softmax in place over n values, maximum subtracted, sum in a fixed order. */
    void (*softmax)(float *x, int64_t n);

    /* Attention of one kv head for a group of query heads and one token, over the cached positions
     * [pos0, pos1) of one unit, online softmax in blocks of 64 absolute positions:
     *   q    [n_q][dk]        f32, already scaled
     *   k, v position p at k + p * stride elements (f16 or f32 as `f16`), dk values of k and dv of v; v
     *        may be k, where a cached row holds both
     *   o    [n_q][dv] unnormalised sum of exp(s - m) v;  m [n_q] maximum;  l [n_q] sum of exp
     * All three are written, not added to; without positions o = 0, m = -inf, l = 0. The caller
     * joins units in order. */
    void (*attend)(float *o, float *m, float *l, const float *q, const void *k, const void *v,
                   int64_t stride, int64_t pos0, int64_t pos1, int64_t dk, int64_t dv, int64_t n_q,
                   int f16);

    /* Attention of many query rows over one block of 64 positions, of which row r sees the first
     * min(64, seen + r / group), seen >= 1:
     *   q [n_row][dk] f32, already scaled;  kt [dk][64] keys, transposed;  v [64][dv]
     *   o [n_row][dv], m [n_row], l [n_row] as above, updated: the caller begins with o = 0, m = -inf, l = 0
     * All 64 columns of kt are read; what a row does not see never shows in it. */
    void (*attend_rows)(float *o, float *m, float *l, const float *q, const float *kt,
                        const float *v, int64_t n_row, int64_t group, int64_t seen, int64_t dk,
                        int64_t dv);

    /* y [n_row][n] = a b: a [n_row][n_k], rows a_stride apart, b [n_k][n], sums over n_k in order. */
    void (*gemm)(float *y, const float *a, int64_t a_stride, const float *b, int64_t n_row,
                 int64_t n_k, int64_t n);

    /* to [n_c][64] <- x transposed: n <= 64 rows of n_c values, x_stride apart; columns beyond n become zero. */
    void (*transpose)(float *to, const float *x, int64_t x_stride, int64_t n, int64_t n_c);

    /* Scores of one query of the sparse-attention indexer against n_block blocks of cached keys:
     *   q [n_head][d], w [n_head] f32;  k: block b at + b * d * FM_INDEX_BLOCK elements (f16 or f32 as
     *   `f16`), transposed: [d][FM_INDEX_BLOCK] positions;  1 <= d <= FM_INDEX_DIM_MAX
     *   out[p] = sum_h w[h] max(0, q_h . k_p), p < n_block * FM_INDEX_BLOCK, channels and heads in order */
    void (*index_scores)(float *out, const float *q, const float *w, const void *k, int64_t n_block,
                         int64_t d, int64_t n_head, int f16);

    /* f32 -> f16, round to nearest even; f16 -> f32. */
    void (*to_f16)(uint16_t *dst, const float *src, int64_t n);
    void (*from_f16)(float *dst, const uint16_t *src, int64_t n);

    /* Causal depthwise convolution over the last n_tap inputs and SiLU, channels [c0, c1),
     * 2 <= n_tap <= FM_CONV_TAPS_MAX:
     *   state [n_tap-1][n_ch] previous inputs, oldest first, updated;  x [n_tok][stride] in,
     *   y [n_tok][stride] out (may be x);  w [n_ch][n_tap], w[c][n_tap-1] is the newest. */
    void (*conv_silu)(float *y, const float *x, float *state, const float *w, int64_t n_tok,
                      int64_t stride, int64_t n_ch, int64_t n_tap, int64_t c0, int64_t c1);

    /* Gated DeltaNet, one value head, one token (recurrent form):
     *   S [dk][dv] state, updated;  q, k [dk] (normalised, q scaled);  v [dv];  o [dv] out
     *   S = e^g S;  r = S^T k;  S += k (beta (v - r))^T;  o = S^T q */
    void (*delta_step)(float *S, float *o, const float *q, const float *k, const float *v, float g,
                       float beta, int64_t dk, int64_t dv);

    /* The same for 1 <= n <= 64 tokens in chunked form; row t of q,k at + t*qk_stride, of v at
     * + t*v_stride, of o at + t*o_stride; g, beta [n] with stride gb_stride.
     * scratch: fm_delta_scratch(dk, dv) floats. */
    void (*delta_chunk)(float *S, float *o, const float *q, const float *k, const float *v,
                        const float *g, const float *beta, int64_t n, int64_t qk_stride,
                        int64_t v_stride, int64_t o_stride, int64_t gb_stride, int64_t dk,
                        int64_t dv, float *scratch);
} fm_kernels;

enum { FM_DELTA_BLOCK = 64, FM_ATTN_BLOCK = 64, FM_CONV_TAPS_MAX = 64 };
enum { FM_INDEX_BLOCK = 16, FM_INDEX_DIM_MAX = 256 };

/* Floats of scratch that delta_chunk needs. */
size_t fm_delta_scratch(int64_t dk, int64_t dv);

/* The set called `name`, or the best one this processor runs when name is NULL. NULL with *err
 * when unknown or not runnable here (the message lists what is). "reference" computes every
 * product in f32 on decoded weights with f32 activations. */
const fm_kernels *fm_kernels_pick(const char *name, fm_error *err);

/* The same set with activations of 8 bits (quant.h): quantize rounds to them, and matmul takes activations of that quantize
 * only, for which products of several tokens take about half the operations. NULL for the set reference, which does not
 * round activations. */
const fm_kernels *fm_kernels_int8(const fm_kernels *set);

/* Names this processor can run, best first, NULL-terminated. */
const char *const *fm_kernels_available(void);
