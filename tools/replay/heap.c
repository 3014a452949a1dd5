/* A heap of numbered things, the least key first. */
#include "replay/replay.h"

#include <assert.h>
#include <stdlib.h>

void rp_heap_init(rp_heap *h, int32_t n)
{
    *h = (rp_heap){.heap = rp_alloc((size_t)n, sizeof *h->heap),
                   .where = rp_alloc((size_t)n, sizeof *h->where),
                   .key = rp_alloc((size_t)n, sizeof *h->key),
                   .order = rp_alloc((size_t)n, sizeof *h->order)};
    for (int32_t i = 0; i < n; i++) h->where[i] = -1;
}

void rp_heap_free(rp_heap *h)
{
    free(h->heap);
    free(h->where);
    free(h->key);
    free(h->order);
}

static bool is_less(const rp_heap *h, int32_t a, int32_t b)
{
    if (h->key[a] != h->key[b]) return h->key[a] < h->key[b];
    return h->order[a] < h->order[b];
}

static void place(rp_heap *h, int32_t at, int32_t i)
{
    h->heap[at] = i;
    h->where[i] = at;
}

static void sift_up(rp_heap *h, int32_t at, int32_t i)
{
    while (at > 0) {
        const int32_t parent = (at - 1) / 2;
        if (!is_less(h, i, h->heap[parent])) break;
        place(h, at, h->heap[parent]);
        at = parent;
    }
    place(h, at, i);
}

static void sift_down(rp_heap *h, int32_t at, int32_t i)
{
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= h->n) break;
        if (child + 1 < h->n && is_less(h, h->heap[child + 1], h->heap[child])) child++;
        if (!is_less(h, h->heap[child], i)) break;
        place(h, at, h->heap[child]);
        at = child;
    }
    place(h, at, i);
}

void rp_heap_put(rp_heap *h, int32_t i, uint64_t key)
{
    assert(h->where[i] < 0);
    h->key[i] = key;
    h->order[i] = ++h->n_put;
    sift_up(h, h->n++, i);
}

void rp_heap_remove(rp_heap *h, int32_t i)
{
    const int32_t at = h->where[i];
    if (at < 0) return;
    h->where[i] = -1;
    const int32_t last = h->heap[--h->n];
    if (last == i) return;
    if (at > 0 && is_less(h, last, h->heap[(at - 1) / 2])) {
        sift_up(h, at, last);
    } else {
        sift_down(h, at, last);
    }
}

int32_t rp_heap_least(const rp_heap *h)
{
    return h->n > 0 ? h->heap[0] : -1;
}
