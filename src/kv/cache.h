/* What a session remembers between tokens: attention caches and recurrent state.
 *
 * Attention: per layer K and V, each [n_head_kv][n_ctx][d_head] in f16 or f32, so that one head's
 * positions are contiguous. Recurrent: per layer the convolution tail [n_tap - 1][n_channel] and
 * the DeltaNet state [n_v_head][d_k][d_v], f32.
 */
#pragma once

#include "base/ledger.h"

typedef struct {
    int32_t n_attn_layer;  /* layers with an attention cache   */
    int32_t n_delta_layer; /* layers with recurrent state      */
    int32_t n_head_kv, d_head;
    int64_t n_ctx;
    bool f16;
    int64_t conv_floats;  /* per delta layer: (n_tap - 1) * n_channel      */
    int64_t state_floats; /* per delta layer: n_v_head * d_k * d_v         */
} fm_kv_shape;

typedef struct fm_kv fm_kv;

uint64_t fm_kv_cache_bytes(const fm_kv_shape *s); /* attention caches, whole pages */
uint64_t fm_kv_state_bytes(const fm_kv_shape *s); /* recurrent state, whole pages  */

/* Charges the ledger's lines "attention cache" and "recurrent state". */
fm_status fm_kv_create(fm_kv **out, const fm_kv_shape *shape, fm_ledger *ledger, fm_error *err);
void fm_kv_destroy(fm_kv *kv);
void fm_kv_reset(fm_kv *kv); /* recurrent state to zero; attention needs nothing */

/* Head `head` of attention layer i at position 0; elements are f16 or f32; one position is d_head
 * elements. */
void *fm_kv_k(const fm_kv *kv, int32_t i, int32_t head);
void *fm_kv_v(const fm_kv *kv, int32_t i, int32_t head);
float *fm_kv_conv(const fm_kv *kv, int32_t i);  /* of delta layer i */
float *fm_kv_state(const fm_kv *kv, int32_t i); /* of delta layer i */
const fm_kv_shape *fm_kv_get_shape(const fm_kv *kv);
