/* Eviction policies and the heap of evictable slots: see store_evict.h.
 *
 * The rule for batches. A prompt of n tokens goes through the layers one after the other, and in
 * each of them nearly every expert is used. To plain LRU that is one long scan: it would leave the
 * cache full of the last layers' experts, whatever their worth, and nothing of what the tokens
 * before kept hot. So an expert's key after a batch is what token-by-token evaluation would have
 * left on average: chosen by w of p picks, it was last used about p / w picks before the end.
 * Experts that many tokens chose look recently used, the rare ones old, in every layer alike. And a
 * batch that uses n experts moves the clock by n / 2 picks at most, half the age of an expert that
 * it chose with average weight: one prompt does not wash out what tokens kept hot, since that now
 * ranks between the prompt's favourites and the rest; a run of prompts that never choose it does.
 */
#include "store/store_evict.h"

#include <assert.h>

static uint64_t recency_clock_after(uint64_t clock, int32_t n, int64_t picks, fm_demand_kind kind)
{
    if (kind == FM_DEMAND_BATCH && picks > n / 2) picks = n / 2;
    return clock + (uint64_t)picks;
}

static uint64_t recency_key_used(uint64_t clock, uint64_t old_key, int64_t weight, int64_t picks,
                                 fm_demand_kind kind)
{
    if (kind == FM_DEMAND_TOKEN) return clock;
    const uint64_t age = (uint64_t)(picks / (weight > 0 ? weight : 1));
    const uint64_t key = clock > age ? clock - age : 0;
    return key > old_key ? key : old_key;
}

static uint64_t key_is_now(uint64_t clock)
{
    return clock;
}

const fm_evict_policy fm_evict_recency = {
    .name = "recency",
    .clock_after = recency_clock_after,
    .key_used = recency_key_used,
    .key_hinted = key_is_now,
};

static uint64_t lru_clock_after(uint64_t clock, int32_t n, int64_t picks, fm_demand_kind kind)
{
    (void)n;
    (void)picks;
    (void)kind;
    return clock;
}

/* All keys are equal, so the order of use decides. */
static uint64_t lru_key_used(uint64_t clock, uint64_t old_key, int64_t weight, int64_t picks,
                             fm_demand_kind kind)
{
    (void)old_key;
    (void)weight;
    (void)picks;
    (void)kind;
    return clock;
}

const fm_evict_policy fm_evict_lru = {
    .name = "lru",
    .clock_after = lru_clock_after,
    .key_used = lru_key_used,
    .key_hinted = key_is_now,
};

/* ---- heap -------------------------------------------------------------------------------- */

void fm_evict_heap_init(fm_evict_heap *h, int32_t *heap, int32_t *where, uint64_t *key,
                        uint64_t *order, int32_t n_slot)
{
    *h = (fm_evict_heap){.heap = heap, .where = where, .key = key, .order = order};
    for (int32_t i = 0; i < n_slot; i++) {
        where[i] = -1;
        key[i] = order[i] = 0;
    }
}

static bool is_less(const fm_evict_heap *h, int32_t a, int32_t b)
{
    if (h->key[a] != h->key[b]) return h->key[a] < h->key[b];
    return h->order[a] < h->order[b];
}

static void place(fm_evict_heap *h, int32_t at, int32_t slot)
{
    h->heap[at] = slot;
    h->where[slot] = at;
}

static void sift_up(fm_evict_heap *h, int32_t at, int32_t slot)
{
    while (at > 0) {
        const int32_t parent = (at - 1) / 2;
        if (!is_less(h, slot, h->heap[parent])) break;
        place(h, at, h->heap[parent]);
        at = parent;
    }
    place(h, at, slot);
}

static void sift_down(fm_evict_heap *h, int32_t at, int32_t slot)
{
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= h->n) break;
        if (child + 1 < h->n && is_less(h, h->heap[child + 1], h->heap[child])) child++;
        if (!is_less(h, h->heap[child], slot)) break;
        place(h, at, h->heap[child]);
        at = child;
    }
    place(h, at, slot);
}

void fm_evict_put(fm_evict_heap *h, int32_t slot, uint64_t key)
{
    assert(h->where[slot] < 0);
    h->key[slot] = key;
    h->order[slot] = ++h->n_put;
    sift_up(h, h->n++, slot);
}

void fm_evict_remove(fm_evict_heap *h, int32_t slot)
{
    const int32_t at = h->where[slot];
    if (at < 0) return;
    h->where[slot] = -1;
    const int32_t last = h->heap[--h->n];
    if (last == slot) return;
    if (at > 0 && is_less(h, last, h->heap[(at - 1) / 2])) {
        sift_up(h, at, last);
    } else {
        sift_down(h, at, last);
    }
}

int32_t fm_evict_least(const fm_evict_heap *h)
{
    return h->n > 0 ? h->heap[0] : -1;
}
