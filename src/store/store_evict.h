/* Which cached expert gives way to a new one: a policy that gives each expert a key when it is
 * used, and a heap that finds the smallest key. No model, no I/O: a recorded trace is enough to
 * test it.
 *
 * Keys are times on a clock that each layer keeps, counted in picks (one token that chooses one
 * expert), so keys of different layers compare: all layers see the same picks per token.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

typedef struct {
    const char *name;
    /* The layer's clock after a demand for n experts that counts `picks` picks in all. */
    uint64_t (*clock_after)(uint64_t clock, int32_t n, int64_t picks, fm_demand_kind kind);
    /* The key of an expert that `weight` of these picks chose; clock: after the demand; old_key:
     * what it had if it was cached, else 0. */
    uint64_t (*key_used)(uint64_t clock, uint64_t old_key, int64_t weight, int64_t picks,
                         fm_demand_kind kind);
    /* The key of an expert that is only expected to be used. */
    uint64_t (*key_hinted)(uint64_t clock);
} fm_evict_policy;

enum { FM_EVICT_CLOCK_START = 1 << 20 }; /* so that ages never reach below zero */

/* The one in use: least recently used, with the uses inside a batch spread over its tokens. */
extern const fm_evict_policy fm_evict_recency;
/* Plain least recently used, whatever the demand: for comparison. */
extern const fm_evict_policy fm_evict_lru;

/* Slots that may be evicted, smallest key first; equal keys in the order of being put in. */
typedef struct {
    int32_t n;
    uint64_t n_put;
    int32_t *heap;   /* [n]     slots               */
    int32_t *where;  /* [n_slot] place in heap or -1 */
    uint64_t *key;   /* [n_slot]                     */
    uint64_t *order; /* [n_slot]                     */
} fm_evict_heap;

enum { FM_EVICT_BYTES_PER_SLOT = 2 * sizeof(int32_t) + 2 * sizeof(uint64_t) };

/* The arrays have n_slot entries, belong to the caller and need no initial content. */
void fm_evict_heap_init(fm_evict_heap *h, int32_t *heap, int32_t *where, uint64_t *key,
                        uint64_t *order, int32_t n_slot);
void fm_evict_put(fm_evict_heap *h, int32_t slot, uint64_t key); /* not in the heap yet */
void fm_evict_remove(fm_evict_heap *h, int32_t slot);            /* nothing if it is not there */
int32_t fm_evict_least(const fm_evict_heap *h);                  /* -1: empty */
static inline bool fm_evict_has(const fm_evict_heap *h, int32_t slot)
{
    return h->where[slot] >= 0;
}
