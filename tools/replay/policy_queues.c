/* Policies made of queues: S3-FIFO, 2Q, ARC and W-TinyLFU. Sizes of queues are in bytes.
 *
 * An expert's node is in one list at a time; ghosts (experts remembered, not cached) are in lists of
 * their own. A use of several tokens at a time counts as that many uses where a policy counts.
 */
#include "replay/replay.h"

#include <stdlib.h>

enum { MAX_LISTS = 5, NOWHERE = -1 };

typedef struct {
    int32_t newest, oldest;
    uint64_t bytes;
} list;

typedef struct {
    int32_t newer, older;
    int8_t in; /* number of the list, NOWHERE: in none */
    uint8_t freq;
    uint32_t seen; /* uses, for W-TinyLFU */
} node;

typedef struct queues {
    const rp_trace *t;
    uint64_t capacity;
    list l[MAX_LISTS];
    node *node;
    uint64_t target;                                                  /* ARC's p */
    uint64_t n_seen, n_ageing;                                        /* W-TinyLFU */
    void (*use)(struct queues *q, int32_t expert, int32_t weight);    /* a hit  */
    void (*insert)(struct queues *q, int32_t expert, int32_t weight); /* a miss */
    int n_cached; /* lists [0, n_cached) hold what is in memory */
} queues;

static void unlink_node(queues *q, int32_t e)
{
    node *n = &q->node[e];
    list *l = &q->l[n->in];
    if (n->newer >= 0) {
        q->node[n->newer].older = n->older;
    } else {
        l->newest = n->older;
    }
    if (n->older >= 0) {
        q->node[n->older].newer = n->newer;
    } else {
        l->oldest = n->newer;
    }
    l->bytes -= rp_bytes(q->t, e);
    n->in = NOWHERE;
}

/* Moves an expert to the new end of a list, wherever it was. */
static void put(queues *q, int to, int32_t e)
{
    node *n = &q->node[e];
    if (n->in != NOWHERE) unlink_node(q, e);
    list *l = &q->l[to];
    n->in = (int8_t)to;
    n->newer = -1;
    n->older = l->newest;
    if (l->newest >= 0) q->node[l->newest].newer = e;
    l->newest = e;
    if (l->oldest < 0) l->oldest = e;
    l->bytes += rp_bytes(q->t, e);
}

static void trim(queues *q, int which, uint64_t bytes)
{
    while (q->l[which].bytes > bytes) unlink_node(q, q->l[which].oldest);
}

static queues *create(const rp_trace *t, uint64_t capacity, int n_cached,
                      void (*use)(queues *, int32_t, int32_t),
                      void (*insert)(queues *, int32_t, int32_t))
{
    for (int32_t i = 0; i < t->n_layer; i++) {
        if (t->n_expert[i] > 0 && t->bytes[i] > capacity / 8) return NULL; /* no room for queues */
    }
    const size_t n = (size_t)t->layer_first[t->n_layer];
    queues *q = rp_alloc(1, sizeof *q);
    *q = (queues){.t = t, .capacity = capacity, .use = use, .insert = insert, .n_cached = n_cached};
    q->node = rp_alloc(n, sizeof *q->node);
    for (size_t i = 0; i < n; i++) q->node[i].in = NOWHERE;
    for (int i = 0; i < MAX_LISTS; i++) q->l[i] = (list){.newest = -1, .oldest = -1};
    q->n_ageing = 10 * (capacity * n / (t->total_bytes + 1) + 1);
    return q;
}

static void destroy(void *p)
{
    queues *q = p;
    free(q->node);
    free(q);
}

static void demand(void *p, const rp_demand *d, bool *hit)
{
    queues *q = p;
    const rp_item *item = &q->t->item[d->first];
    for (int32_t i = 0; i < d->n; i++) {
        const int in = q->node[item[i].expert].in;
        hit[i] = in >= 0 && in < q->n_cached;
        if (hit[i]) q->use(q, item[i].expert, item[i].weight);
    }
    for (int32_t i = 0; i < d->n; i++) {
        if (!hit[i]) q->insert(q, item[i].expert, item[i].weight);
    }
}

#define QUEUED(symbol, title, n, use, insert, text)                                                \
    static void *create_##symbol(const rp_trace *t, uint64_t capacity)                             \
    {                                                                                              \
        return create(t, capacity, n, use, insert);                                                \
    }                                                                                              \
    const rp_policy symbol = {.name = title,                                                       \
                              .says = text,                                                        \
                              .is_online = true,                                                   \
                              .create = create_##symbol,                                           \
                              .demand = demand,                                                    \
                              .destroy = destroy}

/* ---- S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi, SOSP 2023, algorithm 1) ------------------------ */

enum { S3_SMALL, S3_MAIN, S3_GHOST, S3_SMALL_SHARE = 10, S3_FREQ_MAX = 3 };

static void s3_use(queues *q, int32_t e, int32_t weight)
{
    node *n = &q->node[e];
    n->freq = weight >= S3_FREQ_MAX - n->freq ? S3_FREQ_MAX : (uint8_t)(n->freq + weight);
}

static void s3_evict_main(queues *q)
{
    for (;;) {
        const int32_t e = q->l[S3_MAIN].oldest;
        if (q->node[e].freq == 0) {
            unlink_node(q, e);
            return;
        }
        q->node[e].freq--;
        put(q, S3_MAIN, e);
    }
}

static void s3_evict_small(queues *q)
{
    const uint64_t main_bytes = q->capacity - q->capacity / S3_SMALL_SHARE;
    while (q->l[S3_SMALL].oldest >= 0) {
        const int32_t e = q->l[S3_SMALL].oldest;
        if (q->node[e].freq > 1) {
            q->node[e].freq = 0;
            put(q, S3_MAIN, e);
            while (q->l[S3_MAIN].bytes > main_bytes) s3_evict_main(q);
        } else {
            put(q, S3_GHOST, e);
            trim(q, S3_GHOST, main_bytes);
            return;
        }
    }
}

static void s3_insert(queues *q, int32_t e, int32_t weight)
{
    const uint64_t bytes = rp_bytes(q->t, e);
    const bool is_known = q->node[e].in == S3_GHOST;
    if (is_known) unlink_node(q, e);
    while (q->l[S3_SMALL].bytes + q->l[S3_MAIN].bytes + bytes > q->capacity) {
        if (q->l[S3_SMALL].bytes >= q->capacity / S3_SMALL_SHARE || q->l[S3_MAIN].bytes == 0) {
            s3_evict_small(q);
        } else {
            s3_evict_main(q);
        }
    }
    q->node[e].freq = 0;
    if (weight > 1) s3_use(q, e, weight - 1);
    put(q, is_known ? S3_MAIN : S3_SMALL, e);
}

QUEUED(rp_s3fifo, "S3-FIFO", 2, s3_use, s3_insert, "small, main and ghost FIFO");

/* ---- 2Q (Johnson, Shasha, VLDB 1994, full version) ------------------------------------------ */

enum { Q2_IN, Q2_MAIN, Q2_OUT };

static void q2_use(queues *q, int32_t e, int32_t weight)
{
    if (q->node[e].in == Q2_MAIN || weight > 1) put(q, Q2_MAIN, e);
}

static void q2_insert(queues *q, int32_t e, int32_t weight)
{
    const bool is_known = q->node[e].in == Q2_OUT;
    if (is_known) unlink_node(q, e);
    while (q->l[Q2_IN].bytes + q->l[Q2_MAIN].bytes + rp_bytes(q->t, e) > q->capacity) {
        if (q->l[Q2_IN].bytes > q->capacity / 4 || q->l[Q2_MAIN].bytes == 0) {
            put(q, Q2_OUT, q->l[Q2_IN].oldest);
            trim(q, Q2_OUT, q->capacity / 2);
        } else {
            unlink_node(q, q->l[Q2_MAIN].oldest);
        }
    }
    put(q, is_known || weight > 1 ? Q2_MAIN : Q2_IN, e);
}

QUEUED(rp_2q, "2Q", 2, q2_use, q2_insert, "a FIFO for new ones, an LRU for those that came back");

/* ---- ARC (Megiddo, Modha, FAST 2003), its sizes in bytes ------------------------------------- */

enum { ARC_T1, ARC_T2, ARC_B1, ARC_B2 };

static void arc_use(queues *q, int32_t e, int32_t weight)
{
    (void)weight;
    put(q, ARC_T2, e);
}

static void arc_replace(queues *q, bool was_in_b2)
{
    const uint64_t t1 = q->l[ARC_T1].bytes;
    const bool from_t1 = t1 > 0 && (t1 > q->target || (was_in_b2 && t1 == q->target));
    if (from_t1 || q->l[ARC_T2].bytes == 0) {
        put(q, ARC_B1, q->l[ARC_T1].oldest);
    } else {
        put(q, ARC_B2, q->l[ARC_T2].oldest);
    }
}

static void arc_insert(queues *q, int32_t e, int32_t weight)
{
    const uint64_t bytes = rp_bytes(q->t, e), b1 = q->l[ARC_B1].bytes, b2 = q->l[ARC_B2].bytes;
    const int was = q->node[e].in;
    if (was == ARC_B1) {
        const uint64_t step = b2 > b1 ? bytes * b2 / b1 : bytes;
        q->target = q->target + step < q->capacity ? q->target + step : q->capacity;
    } else if (was == ARC_B2) {
        const uint64_t step = b1 > b2 ? bytes * b1 / b2 : bytes;
        q->target = q->target > step ? q->target - step : 0;
    }
    if (was != NOWHERE) unlink_node(q, e);
    while (q->l[ARC_T1].bytes + q->l[ARC_T2].bytes + bytes > q->capacity) {
        arc_replace(q, was == ARC_B2);
    }
    put(q, was != NOWHERE || weight > 1 ? ARC_T2 : ARC_T1, e);
    if (q->l[ARC_T1].bytes < q->capacity) {
        trim(q, ARC_B1, q->capacity - q->l[ARC_T1].bytes);
    } else {
        trim(q, ARC_B1, 0);
    }
    uint64_t others = 0;
    for (int i = 0; i < 3; i++) others += q->l[i].bytes;
    trim(q, ARC_B2, others < 2 * q->capacity ? 2 * q->capacity - others : 0);
}

QUEUED(rp_arc, "ARC", 2, arc_use, arc_insert, "adapts between recency and frequency");

/* ---- W-TinyLFU (Einziger, Friedman, Manes 2017), with exact counters ------------------------- */

enum { TL_WINDOW, TL_TRIAL, TL_PROTECTED };

static void tl_count(queues *q, int32_t e, int32_t weight)
{
    q->node[e].seen += (uint32_t)weight;
    q->n_seen += (uint64_t)weight;
    if (q->n_seen < q->n_ageing) return;
    q->n_seen = 0;
    const int64_t n = q->t->layer_first[q->t->n_layer];
    for (int64_t i = 0; i < n; i++) {
        q->node[i].seen /= 2;
        q->n_seen += q->node[i].seen;
    }
    if (q->n_seen >= q->n_ageing) q->n_seen = q->n_ageing - 1;
}

static void tl_use(queues *q, int32_t e, int32_t weight)
{
    tl_count(q, e, weight);
    const int in = q->node[e].in;
    put(q, in == TL_WINDOW ? TL_WINDOW : TL_PROTECTED, e);
    while (q->l[TL_PROTECTED].bytes > q->capacity / 100 * 79) {
        put(q, TL_TRIAL, q->l[TL_PROTECTED].oldest);
    }
}

static void tl_insert(queues *q, int32_t e, int32_t weight)
{
    tl_count(q, e, weight);
    const uint64_t bytes = rp_bytes(q->t, e);
    const uint64_t window = q->capacity / 100 > bytes ? q->capacity / 100 : bytes;
    put(q, TL_WINDOW, e);
    while (q->l[TL_WINDOW].bytes > window) put(q, TL_TRIAL, q->l[TL_WINDOW].oldest);
    /* What left the window fights with the oldest one on trial for the place. */
    while (q->l[TL_WINDOW].bytes + q->l[TL_TRIAL].bytes + q->l[TL_PROTECTED].bytes > q->capacity) {
        const int from = q->l[TL_TRIAL].oldest >= 0 ? TL_TRIAL : TL_PROTECTED;
        if (q->l[from].oldest < 0) {
            unlink_node(q, q->l[TL_WINDOW].oldest);
            continue;
        }
        const int32_t victim = q->l[from].oldest, candidate = q->l[TL_TRIAL].newest;
        const bool stays = candidate >= 0 && candidate != victim &&
                           q->node[victim].seen >= q->node[candidate].seen;
        unlink_node(q, stays ? candidate : victim);
    }
}

QUEUED(rp_tinylfu, "W-TinyLFU", 3, tl_use, tl_insert,
       "a window, then by frequency with ageing into a segmented LRU");
