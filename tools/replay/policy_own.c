/* The engine's policy: its own code (src/store/store_evict.c), its own division of the budget into
 * slots (src/store/plan.c), driven by a trace. Only the slots' bytes are left out. */
#include "replay/replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store/store_evict.h"
#include "store/store_internal.h"

typedef struct {
    const rp_trace *t;
    fm_evict evict;
    void *memory;
    int32_t *layer_class, *ids, *weight;
    bool *pinned;
    int64_t n_free[FM_SLOT_CLASSES];
} own;

static bool divide(own *o, uint64_t capacity)
{
    const rp_trace *t = o->t;
    fm_expert_layer *layer = rp_alloc((size_t)t->n_layer, sizeof *layer);
    uint64_t budget = capacity;
    for (int32_t i = 0; i < t->n_layer; i++) {
        layer[i] = (fm_expert_layer){
            .n_expert = t->n_expert[i], .n_part = 1, .part = {{.bytes = t->bytes[i]}}};
        if (t->n_expert[i] == 0) continue;
        /* `capacity` is for the experts' bytes alone: what else a slot takes comes on top. */
        const uint64_t slot = fm_layer_slot_bytes(&layer[i]) + FM_SLOT_META_BYTES;
        budget += (uint64_t)((double)(slot - t->bytes[i]) * (double)t->n_expert[i] *
                             (double)capacity / (double)t->total_bytes);
    }
    budget += fm_store_table_bytes(t->layer_first[t->n_layer]);
    const fm_plan_input in = {
        .layer = layer, .n_layer = t->n_layer, .budget_bytes = budget, .n_batch = 1, .n_ctx = 1};
    fm_store_plan plan;
    const bool ok = fm_plan_make(&plan, &in, NULL) == FM_OK;
    for (int32_t i = 0; ok && i < t->n_layer; i++) {
        o->layer_class[i] =
            t->n_expert[i] == 0 ? -1 : fm_plan_class_of(&plan, fm_layer_slot_bytes(&layer[i]));
    }
    for (int32_t c = 0; ok && c < plan.n_class; c++) o->n_free[c] = plan.slot_class[c].n_slot;
    free(layer);
    return ok;
}

static void destroy(void *p)
{
    own *o = p;
    free(o->memory);
    free(o->layer_class);
    free(o->ids);
    free(o->weight);
    free(o->pinned);
    free(o);
}

static void *create(const rp_trace *t, uint64_t capacity)
{
    const int64_t n = t->layer_first[t->n_layer];
    own *o = rp_alloc(1, sizeof *o);
    o->t = t;
    o->layer_class = rp_alloc((size_t)t->n_layer, sizeof *o->layer_class);
    o->ids = rp_alloc((size_t)n, sizeof *o->ids);
    o->weight = rp_alloc((size_t)n, sizeof *o->weight);
    o->pinned = rp_alloc((size_t)n, sizeof *o->pinned);
    o->memory = rp_alloc(fm_evict_bytes(n, t->n_layer), 1);
    fm_evict_init(&o->evict, o->memory, o->layer_class, t->layer_first, t->n_layer);
    if (divide(o, capacity)) return o;
    destroy(o);
    return NULL;
}

static void allow(own *o, int32_t layer, int32_t expert)
{
    fm_evict_allow(&o->evict, layer, expert, fm_evict_worth(&o->evict, layer, expert));
}

/* What the demand has so far may be evicted again. */
static void unpin(own *o, int32_t layer, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        if (o->pinned[i]) allow(o, layer, o->ids[i]);
        o->pinned[i] = false;
    }
}

/* As in the engine nothing is evicted that the present token wants and has, unless there is no other slot. In a prompt
 * the engine gives experts back while others are still to be read, so there everything may go. */
static void demand(void *p, const rp_demand *d, bool *hit)
{
    own *o = p;
    const rp_item *item = &o->t->item[d->first];
    const int32_t layer = d->layer, base = (int32_t)o->t->layer_first[layer];
    const int32_t class_index = o->layer_class[layer];
    const bool pins = d->n_tok == 1;
    for (int32_t i = 0; i < d->n; i++) {
        o->ids[i] = item[i].expert - base;
        o->weight[i] = item[i].weight;
        hit[i] = fm_evict_is_allowed(&o->evict, layer, o->ids[i]);
        o->pinned[i] = hit[i] && pins;
    }
    fm_evict_used(&o->evict, layer, o->ids, o->weight, d->n, d->n_tok);
    for (int32_t i = 0; i < d->n; i++)
        if (o->pinned[i]) fm_evict_forbid(&o->evict, layer, o->ids[i]);
    for (int32_t i = 0; i < d->n; i++) {
        if (hit[i]) continue;
        int32_t l, e;
        if (o->n_free[class_index] > 0) {
            o->n_free[class_index]--;
        } else {
            if (!fm_evict_least(&o->evict, class_index, INFINITY, &l, &e)) {
                unpin(o, layer, d->n);
                if (!fm_evict_least(&o->evict, class_index, INFINITY, &l, &e)) continue;
            }
            fm_evict_forbid(&o->evict, l, e);
        }
        o->pinned[i] = pins;
        if (!pins) allow(o, layer, o->ids[i]);
    }
    unpin(o, layer, d->n);
}

const rp_policy rp_own = {.name = "flashmoe",
                          .says = "the engine's: two rates of use, compared layer by layer",
                          .is_online = true,
                          .create = create,
                          .demand = demand,
                          .destroy = destroy};
