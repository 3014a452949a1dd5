/* What no policy exceeds, for experts of any size: PFOO-L.
 *
 * To turn a use into a hit, an expert has to stay since its last use: it takes bytes x length of
 * the cache's bytes x time. Whatever a policy does, its hits take no more than capacity x all of the
 * time. So the most hit bytes are had when the shortest intervals are granted first, as if they never
 * collided: short intervals give the most hit bytes for the room they take.
 */
#include "replay/replay.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t length, bytes;
} interval;

static int by_length(const void *a, const void *b)
{
    const interval *x = a, *y = b;
    return x->length > y->length ? 1 : x->length < y->length ? -1 : 0;
}

void rp_bound(const rp_trace *t, uint64_t capacity, rp_count *out)
{
    *out = (rp_count){0};
    interval *all = rp_alloc((size_t)t->n_item, sizeof *all);
    size_t n = 0;
    /* Time in demands: within one demand nothing has to wait for the others. */
    for (int32_t d = 0; d < t->n_demand; d++) {
        for (int32_t i = 0; i < t->demand[d].n; i++) {
            const rp_item *it = &t->item[t->demand[d].first + i];
            const uint64_t bytes = rp_bytes(t, it->expert);
            out->uses++;
            out->use_bytes += bytes;
            if (it->next == RP_NEVER) continue;
            all[n++] = (interval){.length = (uint64_t)(it->next - d), .bytes = bytes};
        }
    }
    qsort(all, n, sizeof *all, by_length);
    double left = (double)capacity * (double)t->n_demand;
    for (size_t i = 0; i < n; i++) {
        if (left <= 0) break;
        left -= (double)all[i].length * (double)all[i].bytes;
        out->hits++;
        out->hit_bytes += all[i].bytes;
    }
    free(all);
}
