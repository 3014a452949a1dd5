/* Which cached expert gives way to a new one. No model, no I/O: a recorded trace is enough to drive it
 * (tools/cache_replay.c does).
 *
 * Every expert, cached or not, has two rates of use that are forgotten at different speeds: half in
 * 8 tokens, and half in 192. Their weighted sum is what it is worth to keep; the least worthy goes.
 * A layer's rates are brought up to date when that layer is used, so all layers are compared as of
 * their own last use: an expert of a layer further on, which this pass has not reached yet, is not
 * taken for one that this pass could have used and did not.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t n_layer;
    const int32_t *layer_class; /* [n_layer] slots are exchanged inside a class; -1: no experts   */
    const int64_t
        *layer_first;   /* [n_layer + 1] number of a layer's first expert, over all layers */
    float *fast, *slow; /* [experts] uses per token, weighted, forgotten fast and slowly  */
    float *known;       /* [n_layer] what `slow` would be of an expert that every token used */
    float *order;   /* [experts] worth of an expert that may be evicted, INFINITY: it may not be */
    int32_t *least; /* [n_layer] the first to go: expert id, or FM_EVICT_NONE, _UNKNOWN          */
} fm_evict;

enum { FM_EVICT_NONE = -1, FM_EVICT_UNKNOWN = -2 };

/* Bytes of the tables, which belong to the caller. */
size_t fm_evict_bytes(int64_t n_expert, int32_t n_layer);

/* No expert was ever used, none may be evicted. memory: fm_evict_bytes(), aligned for float. The two
 * layer tables are borrowed. */
void fm_evict_init(fm_evict *e, void *memory, const int32_t *layer_class,
                   const int64_t *layer_first, int32_t n_layer);

/* A layer was used by n_tok tokens together, weight[i] (NULL: one each) of which chose expert ids[i].
 */
void fm_evict_used(fm_evict *e, int32_t layer, const int32_t *ids, const int32_t *weight, int32_t n,
                   int32_t n_tok);

/* Before the first use: rate[i] is how often earlier sessions used an expert, per token; what this one
 * uses soon outweighs it. */
void fm_evict_seed(fm_evict *e, const float *rate);
/* The slow rates, 0 to 1, earlier sessions' in them as far as they still count. */
void fm_evict_heat(const fm_evict *e, float *rate);

float fm_evict_worth(const fm_evict *e, int32_t layer, int32_t expert);
/* What it would be worth if the layer's last token had used it too. */
float fm_evict_worth_if_used(const fm_evict *e, int32_t layer, int32_t expert);

/* From now on the expert may be evicted, in the order of `worth`, until it may not be or its layer is
 * used, which puts its own worth in place. */
void fm_evict_allow(fm_evict *e, int32_t layer, int32_t expert, float worth);
void fm_evict_forbid(fm_evict *e, int32_t layer, int32_t expert);
bool fm_evict_is_allowed(const fm_evict *e, int32_t layer, int32_t expert);

/* The least worthy expert of a class that may be evicted and is worth less than `below`. False: there
 * is none. */
bool fm_evict_least(fm_evict *e, int32_t class_index, float below, int32_t *layer, int32_t *expert);
