/* What every matrix is multiplied with: sums of squares of its inputs, channel by channel, which tell a
 * quantizer where rounding hurts. Gathered while the model is evaluated, written as an importance
 * matrix in llama.cpp's GGUF form.
 *
 * Sums are float32 and go over tokens one by one in their order, so they depend on no more than what is
 * summed does: neither on placement nor threads, nor on the length of passes as long as it is a
 * multiple of 64. Passes of other lengths, which only a caller's n_batch makes, move the last bits of
 * the inputs (docs/architecture.md, rule 2).
 */
#pragma once

#include "base/pool.h"
#include "format/checkpoint.h"

struct fm_model;
struct fm_ledger;
typedef struct fm_input_sums fm_input_sums;

uint64_t fm_input_sums_bytes(const struct fm_model *m); /* for the plan */

/* Memory comes from the ledger's line FM_LINE_IMPORTANCE. The model must outlive it. */
fm_status fm_input_sums_create(fm_input_sums **out, const struct fm_model *m,
                               struct fm_ledger *ledger, fm_error *err);
void fm_input_sums_destroy(fm_input_sums *imp);

/* Inputs of n_row tokens: row i is x + stride * (pair ? pair[i] / div : i). */
typedef struct {
    const float *x;
    int64_t stride;
    const int32_t *pair;
    int32_t div;
    int64_t n_row;
} fm_input_sums_rows;

/* Adds rows [n_tok][stride] that the trunk matrix `tensor` is multiplied with, spread over the pool. A
 * tensor that is no matrix of the model is passed over. */
void fm_input_sums_add(fm_input_sums *imp, fm_pool *pool, const fm_tensor_info *tensor,
                       const float *x, int64_t stride, int64_t n_tok);
/* The same on the calling thread; calls for different matrices, or different experts, may run at once. */
void fm_input_sums_matrix(fm_input_sums *imp, const fm_tensor_info *tensor,
                          const fm_input_sums_rows *rows);
/* `in` goes into gate and up, `hidden` into down. */
void fm_input_sums_expert(fm_input_sums *imp, int32_t layer, int32_t expert,
                          const fm_input_sums_rows *in, const fm_input_sums_rows *hidden);

/* The matrices that each head of latent attention has for itself: keys (attn_k_b) are met by the part of a query without
 * rope, times `scale` of all queries, which the file does not have; values (attn_v_b) by a sum of latents. Also
 * for models that have both in attn_kv_b. On the calling thread; calls for different heads may run at once. */
typedef enum { FM_HEAD_KEYS, FM_HEAD_VALUES, FM_HEAD_PARTS } fm_head_part;
void fm_input_sums_head(fm_input_sums *imp, int32_t layer, fm_head_part part, int64_t head,
                        const fm_input_sums_rows *rows);
/* What queries of latent attention are multiplied with before they meet keys. */
void fm_input_sums_set_scale(fm_input_sums *imp, float scale);

/* An evaluation broke off: sums may lack rows, and writing them fails. */
void fm_input_sums_spoil(fm_input_sums *imp);

/* See fm_engine_write_importance(). Matrices that were never used are left out. */
fm_status fm_input_sums_write(const fm_input_sums *imp, const char *path, const char *dataset,
                              uint32_t n_chunk, uint32_t chunk_size, fm_error *err);
