/* What a session remembers between tokens: attention caches, index keys and recurrent state.
 *
 * Attention: per layer K and V, each [n_head_kv][slots][d_head] in f16 or f32, so that one head's
 * positions are contiguous. With latent attention K and V are the same rows: a value is the first part
 * of its key, and both take [n_head_kv][slots][d_head] together. A layer that sees the whole context has n_ctx slots; a layer with a
 * sliding window has a ring of fewer, and position p lies in slot p % slots, over what was slots
 * positions earlier. Index keys (of layers that choose what their attention sees): per layer blocks of
 * FM_KV_INDEX_BLOCK positions, each [d_index][FM_KV_INDEX_BLOCK] in f16 or f32. Recurrent: per layer the convolution tail [n_tap - 1][n_channel] and
 * the DeltaNet state [n_v_head][d_k][d_v], f32.
 *
 * Numbers: attention layers i count from 0, those that see everything first, then those with a window;
 * delta layers count from 0 for themselves. One thread at a time.
 */
#pragma once

#include "base/ledger.h"

typedef struct {
    int32_t n_attn_layer;   /* layers with an attention cache of the whole context */
    int32_t n_window_layer; /* layers with a ring                                  */
    int64_t n_window_ctx;   /* slots of a ring, at most n_ctx                      */
    int32_t n_delta_layer;  /* layers with recurrent state      */
    int32_t n_head_kv, d_head;
    int64_t n_ctx;
    bool f16;
    bool shared_rows;               /* latent attention: fm_kv_v() is fm_kv_k()      */
    int64_t conv_floats;            /* per delta layer: (n_tap - 1) * n_channel      */
    int64_t state_floats;           /* per delta layer: n_v_head * d_k * d_v         */
    bool two_states;                /* recurrent state exists twice: fm_kv_other_*()  */
    int32_t n_index_layer, d_index; /* layers with index keys, and values of a key */
} fm_kv_shape;

enum { FM_KV_INDEX_BLOCK = 16 };

typedef struct fm_kv fm_kv;

/* Bytes of the attention caches, of the index keys and of the recurrent state, in whole pages. The sizes come from files
 * and users: where 64 bits do not hold the product, the largest whole number of pages below
 * INT64_MAX, which no plan grants. */
uint64_t fm_kv_cache_bytes(const fm_kv_shape *s);
uint64_t fm_kv_index_bytes(const fm_kv_shape *s);
uint64_t fm_kv_state_bytes(const fm_kv_shape *s);

/* Bytes that a token at position pos touches: keys and values of the positions that it sees, its own included, in layers of the
 * whole context at most n_seen of them (0: all), in those with a window at most n_window; the index keys by which
 * these n_seen are chosen; recurrent state twice, because it is read and written. */
uint64_t fm_kv_touched_bytes(const fm_kv_shape *s, int64_t pos, int64_t n_seen, int64_t n_window);

/* Takes these from the ledger's lines FM_LINE_KV, FM_LINE_INDEX and FM_LINE_STATE, zeroed. The caller owns *out; the
 * ledger must outlive it. FM_E_NOMEM when the ledger or the system refuses; then *out is NULL. */
fm_status fm_kv_create(fm_kv **out, const fm_kv_shape *shape, fm_ledger *ledger, fm_error *err);
void fm_kv_destroy(fm_kv *kv); /* NULL is fine */
void fm_kv_reset(fm_kv *kv);   /* recurrent state to zero; attention needs nothing */

/* K or V of head `head` of attention layer i, slot 0; elements are f16 or f32 as the shape says; one
 * slot is d_head elements. Valid until fm_kv_destroy(). */
void *fm_kv_k(const fm_kv *kv, int32_t i, int32_t head);
void *fm_kv_v(const fm_kv *kv, int32_t i, int32_t head);
int64_t fm_kv_slots(const fm_kv *kv, int32_t i); /* of attention layer i */
/* Index keys of layer i of n_index_layer, block 0. */
void *fm_kv_index(const fm_kv *kv, int32_t i);
/* Convolution tail [conv_floats] and DeltaNet state [state_floats] of delta layer i. */
float *fm_kv_conv(const fm_kv *kv, int32_t i);
float *fm_kv_state(const fm_kv *kv, int32_t i);
/* With two_states: where those of the other state lie, which a pass may fill with what comes after a token that
 * is only a draft; and the exchange of both, when the draft was right. */
float *fm_kv_other_conv(const fm_kv *kv, int32_t i);
float *fm_kv_other_state(const fm_kv *kv, int32_t i);
void fm_kv_exchange(fm_kv *kv);
const fm_kv_shape *fm_kv_get_shape(const fm_kv *kv);
