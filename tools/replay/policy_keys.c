/* Policies that give every cached expert a key when it is used and evict the least one: LRU, LRU-2,
 * three kinds of LFU, and Belady's optimum. The key is all that differs.
 *
 * Belady (evict what is wanted last) has the most hits when all experts have one size; it may even drop
 * at once what it brings in, which the online policies cannot (it is worth one slot at most). With several
 * sizes the best choice is a hard problem; then it is a good guess from above, and rp_bound() says
 * what nothing can exceed.
 */
#include "replay/replay.h"

#include <stdlib.h>

typedef struct keyed {
    const rp_trace *t;
    uint64_t capacity, used;
    bool may_bypass; /* what comes in may be the first to go */
    uint64_t (*key_of)(struct keyed *c, const rp_demand *d, const rp_item *it, bool hit);
    rp_heap heap;           /* numbers are experts */
    uint64_t now;           /* uses so far              */
    uint64_t age;           /* key of the last victim   */
    uint64_t *count, *last; /* [experts], also of those not cached */
} keyed;

static uint64_t key_belady(keyed *c, const rp_demand *d, const rp_item *it, bool hit)
{
    (void)c, (void)d, (void)hit;
    return (uint64_t)RP_NEVER - (uint64_t)it->next;
}

static void *create(const rp_trace *t, uint64_t capacity,
                    uint64_t (*key_of)(keyed *, const rp_demand *, const rp_item *, bool))
{
    for (int32_t i = 0; i < t->n_layer; i++) {
        if (t->n_expert[i] > 0 && t->bytes[i] > capacity) return NULL;
    }
    const size_t n = (size_t)t->layer_first[t->n_layer];
    keyed *c = rp_alloc(1, sizeof *c);
    c->t = t;
    c->capacity = capacity;
    c->key_of = key_of;
    c->may_bypass = key_of == key_belady;
    rp_heap_init(&c->heap, (int32_t)n);
    c->count = rp_alloc(n, sizeof *c->count);
    c->last = rp_alloc(n, sizeof *c->last);
    return c;
}

static void destroy(void *p)
{
    keyed *c = p;
    rp_heap_free(&c->heap);
    free(c->count);
    free(c->last);
    free(c);
}

static void make_room(keyed *c, uint64_t bytes)
{
    while (c->used + bytes > c->capacity) {
        const int32_t least = rp_heap_least(&c->heap);
        c->age = c->heap.key[least];
        c->used -= rp_bytes(c->t, least);
        rp_heap_remove(&c->heap, least);
    }
}

static void demand(void *p, const rp_demand *d, bool *hit)
{
    keyed *c = p;
    const rp_item *item = &c->t->item[d->first];
    for (int32_t i = 0; i < d->n; i++) {
        hit[i] = rp_heap_has(&c->heap, item[i].expert);
        if (!hit[i]) continue;
        c->now++;
        const uint64_t key = c->key_of(c, d, &item[i], true);
        rp_heap_remove(&c->heap, item[i].expert);
        rp_heap_put(&c->heap, item[i].expert, key);
    }
    for (int32_t i = 0; i < d->n; i++) {
        if (hit[i]) continue;
        const uint64_t bytes = c->t->bytes[d->layer];
        if (!c->may_bypass) make_room(c, bytes);
        c->used += bytes;
        c->now++;
        rp_heap_put(&c->heap, item[i].expert, c->key_of(c, d, &item[i], false));
        make_room(c, 0);
    }
}

/* ---- keys -------------------------------------------------------------------------------- */

static uint64_t key_lru(keyed *c, const rp_demand *d, const rp_item *it, bool hit)
{
    (void)d, (void)it, (void)hit;
    return c->now;
}

/* The time of the use before this one; O'Neil, O'Neil, Weikum 1993. */
static uint64_t key_lru2(keyed *c, const rp_demand *d, const rp_item *it, bool hit)
{
    (void)d, (void)hit;
    const uint64_t before = c->last[it->expert];
    c->last[it->expert] = c->now;
    return it->weight > 1 ? c->now : before;
}

/* Uses since it was brought in. */
static uint64_t key_lfu(keyed *c, const rp_demand *d, const rp_item *it, bool hit)
{
    (void)d;
    uint64_t *n = &c->count[it->expert];
    if (!hit) *n = 0;
    return *n += (uint64_t)it->weight;
}

/* All uses, also those before it was evicted. */
static uint64_t key_lfu_all(keyed *c, const rp_demand *d, const rp_item *it, bool hit)
{
    (void)d, (void)hit;
    return c->count[it->expert] += (uint64_t)it->weight;
}

/* Uses since it was brought in, above the level that eviction has reached (LFU-DA, Arlitt 2000). */
static uint64_t key_lfu_aged(keyed *c, const rp_demand *d, const rp_item *it, bool hit)
{
    (void)d;
    uint64_t *n = &c->count[it->expert];
    if (!hit) *n = 0;
    *n += (uint64_t)it->weight;
    return *n + c->age;
}

#define KEYED(symbol, title, online, key, text)                                                    \
    static void *create_##symbol(const rp_trace *t, uint64_t capacity)                             \
    {                                                                                              \
        return create(t, capacity, key);                                                           \
    }                                                                                              \
    const rp_policy symbol = {.name = title,                                                       \
                              .says = text,                                                        \
                              .is_online = online,                                                 \
                              .create = create_##symbol,                                           \
                              .demand = demand,                                                    \
                              .destroy = destroy}

KEYED(rp_lru, "LRU", true, key_lru, "least recently used");
KEYED(rp_lru2, "LRU-2", true, key_lru2, "least recent use but one");
KEYED(rp_lfu, "LFU", true, key_lfu, "fewest uses since it was brought in");
KEYED(rp_lfu_all, "LFU-all", true, key_lfu_all, "fewest uses of all");
KEYED(rp_lfu_aged, "LFU-DA", true, key_lfu_aged, "LFU with dynamic ageing");
KEYED(rp_belady, "Belady", false, key_belady, "what is wanted last; the optimum for equal sizes");
