/* Inside cache-replay: a routing trace as demands, and the policies that are compared on it.
 *
 * A demand is what one layer asks the store for in one pass: distinct experts, each with the number
 * of tokens that chose it. Every policy answers the same sequence. Experts that are cached when the
 * demand comes are hits and are served first; then the missing ones are brought in one by one, in
 * the trace's order, and each needs room (as in the engine there is no way past the cache).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RP_PROMPT = 0, RP_GENERATION = 1, RP_PHASES = 2 };
enum { RP_NEVER = INT32_MAX };

typedef struct {
    int32_t expert; /* of all layers: layer_first + id                  */
    int32_t weight; /* tokens that chose it                             */
    int32_t next;   /* demand that wants it next, RP_NEVER: none does   */
} rp_item;

typedef struct {
    int32_t layer, phase, n;
    int32_t n_tok;
    int64_t first; /* of its items */
} rp_demand;

typedef struct {
    char name[256];
    int32_t n_layer, n_used;
    int32_t *n_expert;    /* [n_layer]     */
    uint64_t *bytes;      /* [n_layer] of one expert */
    int64_t *layer_first; /* [n_layer + 1] */
    int32_t *layer_of;    /* [experts]     */
    bool equal_sizes;
    uint64_t total_bytes; /* of all experts */
    rp_demand *demand;
    int32_t n_demand;
    rp_item *item;
    int64_t n_item;
} rp_trace;

static inline uint64_t rp_bytes(const rp_trace *t, int32_t expert)
{
    return t->bytes[t->layer_of[expert]];
}

/* Says what is wrong on standard error and returns false. */
bool rp_trace_read(rp_trace *t, const char *path);
void rp_trace_free(rp_trace *t);

typedef struct {
    const char *name, *says;
    bool is_online; /* knows nothing of the future */
    /* NULL: it cannot work with this capacity. */
    void *(*create)(const rp_trace *t, uint64_t capacity);
    /* Answers one demand: hit[i] for each of its items. */
    void (*demand)(void *p, const rp_demand *d, bool *hit);
    void (*destroy)(void *p);
} rp_policy;

extern const rp_policy rp_own, rp_lru, rp_lru2, rp_lfu, rp_lfu_all, rp_lfu_aged, rp_belady;
extern const rp_policy rp_s3fifo, rp_2q, rp_arc, rp_tinylfu;

typedef struct {
    uint64_t uses, hits, use_bytes, hit_bytes;
} rp_count;

/* No policy, not even one that knows the future, has more hit bytes than these: PFOO-L of Berger,
 * Beckmann, Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object Sizes" (2018).
 * Counts both phases together. */
void rp_bound(const rp_trace *t, uint64_t capacity, rp_count *out);

/* Numbers [0, n) with keys, the least first; equal keys in the order of being put in. */
typedef struct {
    int32_t n;
    uint64_t n_put;
    int32_t *heap, *where;
    uint64_t *key, *order;
} rp_heap;

void rp_heap_init(rp_heap *h, int32_t n);
void rp_heap_free(rp_heap *h);
void rp_heap_put(rp_heap *h, int32_t i, uint64_t key); /* not in the heap yet */
void rp_heap_remove(rp_heap *h, int32_t i);            /* nothing if it is not there */
int32_t rp_heap_least(const rp_heap *h);               /* -1: empty */
static inline bool rp_heap_has(const rp_heap *h, int32_t i)
{
    return h->where[i] >= 0;
}

/* calloc() that ends the program. */
void *rp_alloc(size_t n, size_t size);
