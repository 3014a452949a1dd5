/* Demands, loans and hints: which experts are read and when they are handed out.
 *
 * A demand pins what is cached at once, so nothing that it will hand out can be evicted, and queues
 * reads for the rest in the order given, as far as slots and the queue allow; each loan that comes
 * back frees a slot for the next read. A batch claims only a window of slots at a time: more would
 * evict residents early and gain nothing. Hints are read while no demanded read waits for a slot, and
 * for one token only when all of them have arrived; at the lowest priority, into slots that nobody used
 * lately.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store/store_internal.h"

enum { PRIORITY_DEMAND = 0, PRIORITY_HINT = 2 };

/* ---- demand ------------------------------------------------------------------------------ */

/* Reads for misses, as many as there may be now. */
static void start_misses(fm_store *s)
{
    fm_demand *d = &s->demand;
    if (!d->active || d->failed || d->ending) return;
    const int32_t class_index = s->layer_class[d->layer];
    while (d->next_miss < d->n_miss) {
        const int32_t first_unclaimed = d->next_ready > d->n_hit ? d->next_ready : d->n_hit;
        const int32_t n_unclaimed = d->n_reading + d->n_ready - first_unclaimed;
        if (d->kind == FM_DEMAND_BATCH && d->n_reading > 0 &&
            n_unclaimed >= s->slot_class[class_index].window) {
            return;
        }
        if (!fm_slot_can_read(s, d->layer)) return;
        const int32_t slot = fm_slot_take(s, class_index, INFINITY);
        if (slot < 0) return;
        const int32_t at = d->miss[d->next_miss++];
        fm_demand_item *item = &d->item[at];
        fm_slot_read(s, slot, d->layer, item->expert, PRIORITY_DEMAND);
        s->slot[slot].item = at;
        item->slot = slot;
        item->state = FM_ITEM_READING;
        d->n_reading++;
    }
}

static void drop_expired_hints(fm_store *s, int32_t layer);

static fm_status check_demand(fm_store *s, int32_t layer, const int32_t *ids, int32_t n,
                              fm_error *err)
{
    if (s->demand.active) return fm_fail(err, FM_E_ARG, "a demand is under way already");
    if (layer < 0 || layer >= s->n_layer || n < 0 || n > s->layer[layer].n_expert) {
        return fm_fail(err, FM_E_ARG, "demand of %d experts of layer %d", n, layer);
    }
    fm_demand *d = &s->demand;
    d->serial++;
    for (int32_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= s->layer[layer].n_expert) {
            return fm_fail(err, FM_E_ARG, "demand of expert %d of %d in layer %d", ids[i],
                           s->layer[layer].n_expert, layer);
        }
        if (d->last_serial[ids[i]] == d->serial) {
            return fm_fail(err, FM_E_ARG, "expert %d of layer %d is demanded twice", ids[i], layer);
        }
        d->last_serial[ids[i]] = d->serial;
    }
    return FM_OK;
}

/* The caller finds the expert cached or on its way: the slot is this item's until it is returned.
 */
static void claim_cached(fm_store *s, int32_t at, int32_t slot)
{
    fm_demand *d = &s->demand;
    fm_demand_item *item = &d->item[at];
    fm_slot *sl = &s->slot[slot];
    item->slot = slot;
    sl->item = at;
    if (sl->hinted) {
        s->stats.prefetch_used++;
    } else {
        s->stats.hits++;
    }
    if (sl->state == FM_SLOT_READY) {
        fm_slot_make_pinned(s, slot);
        item->state = FM_ITEM_READY;
        d->ready[d->n_ready++] = at;
        d->n_hit++;
    } else {
        item->state = FM_ITEM_READING;
        d->n_reading++;
    }
}

/* Tells the policy; all experts of the layer are valued anew, wrong hints at what they are worth. */
static void count_uses(fm_store *s, int32_t layer, const int32_t *ids, const int32_t *weight,
                       int32_t n, fm_demand_kind kind)
{
    int64_t picks = 0, most = 1;
    for (int32_t i = 0; weight && i < n; i++) {
        picks += weight[i] > 0 ? weight[i] : 1;
        if (weight[i] > most) most = weight[i];
    }
    int64_t n_tok = kind == FM_DEMAND_TOKEN ? 1 : picks / s->n_used;
    if (n_tok < most) n_tok = most;
    fm_evict_used(&s->evict, layer, ids, weight, n, (int32_t)n_tok);
}

fm_status fm_store_demand(fm_store *s, int32_t layer, const int32_t *ids, const int32_t *weight,
                          int32_t n, fm_demand_kind kind, fm_error *err)
{
    FM_TRY(check_demand(s, layer, ids, n, err));
    fm_demand *d = &s->demand;
    d->active = true;
    d->failed = d->ending = false;
    d->layer = layer;
    d->kind = kind;
    d->n = n;
    d->n_miss = d->next_miss = d->n_hit = d->n_ready = d->next_ready = d->n_reading = d->n_lent = 0;
    if (n > 0) count_uses(s, layer, ids, weight, n, kind);
    for (int32_t i = 0; i < n; i++) {
        d->item[i] = (fm_demand_item){.expert = ids[i], .slot = -1, .state = FM_ITEM_MISS};
        const int32_t slot = *fm_slot_entry(s, layer, ids[i]);
        if (slot >= 0) {
            claim_cached(s, i, slot);
        } else {
            d->miss[d->n_miss++] = i;
        }
    }
    drop_expired_hints(s, layer);
    s->stats.misses += (uint64_t)d->n_miss;
    if (kind == FM_DEMAND_TOKEN) {
        s->stats.token_misses[d->n_miss < FM_MISS_BINS ? d->n_miss : FM_MISS_BINS - 1]++;
    }
    start_misses(s);
    return FM_OK;
}

/* ---- loans ------------------------------------------------------------------------------- */

static void lend(fm_store *s, fm_expert_ref *out)
{
    fm_demand *d = &s->demand;
    const int32_t at = d->ready[d->next_ready++];
    fm_demand_item *item = &d->item[at];
    const fm_slot *sl = &s->slot[item->slot];
    const fm_expert_layer *ly = &s->layer[d->layer];
    item->state = FM_ITEM_LENT;
    d->n_lent++;
    *out = (fm_expert_ref){
        .expert = item->expert, .index = at, .fresh = !sl->prepared, .slot = item->slot};
    uint8_t *base = fm_slot_address(s, item->slot);
    for (int32_t i = 0; i < ly->n_part; i++) {
        out->part[i] = sl->part[i];
        out->part_base[i] = base;
        base += fm_io_room(ly->part[i].bytes);
    }
}

fm_status fm_lease_next(fm_store *s, fm_expert_ref *out, bool wait, bool *got, fm_error *err)
{
    fm_demand *d = &s->demand;
    *got = false;
    if (!d->active) return FM_OK;
    for (bool looked = false;; looked = true) { /* the first look at the device does not block */
        if (d->failed) {
            if (err) *err = d->error;
            return d->error.code;
        }
        if (d->next_ready < d->n_ready) {
            lend(s, out);
            *got = true;
            return FM_OK;
        }
        if (looked && (!wait || d->n_reading == 0)) {
            /* Nothing is on its way: all was handed out, or the loans hold every slot... */
            if (!wait || d->next_miss == d->n_miss || d->n_lent > 0) return FM_OK;
            /* ...or reads for something else do (hints), or they fill the queue. */
        }
        if (d->n_reading > 0 || d->next_miss < d->n_miss) (void)fm_store_pump(s, looked);
    }
}

int32_t fm_lease_ready(const fm_store *s)
{
    const fm_demand *d = &s->demand;
    return d->active ? d->n_ready - d->next_ready : 0;
}

int32_t fm_lease_left(const fm_store *s)
{
    const fm_demand *d = &s->demand;
    return d->active ? d->n - d->next_ready : 0;
}

void fm_lease_prepared(fm_store *s, const fm_expert_ref *ref)
{
    fm_slot *sl = &s->slot[ref->slot];
    assert(sl->item >= 0 && sl->expert == ref->expert);
    memcpy(sl->part, ref->part, sizeof sl->part);
    sl->prepared = true;
}

static void unpin(fm_store *s, int32_t slot)
{
    s->slot[slot].item = -1;
    fm_slot_make_evictable(s, slot);
}

void fm_lease_done(fm_store *s, const fm_expert_ref *ref)
{
    fm_demand *d = &s->demand;
    assert(d->active && ref->index >= 0 && ref->index < d->n);
    fm_demand_item *item = &d->item[ref->index];
    assert(item->state == FM_ITEM_LENT && item->slot == ref->slot);
    item->state = FM_ITEM_DONE;
    d->n_lent--;
    unpin(s, ref->slot);
    start_misses(s);
}

void fm_store_demand_end(fm_store *s)
{
    fm_demand *d = &s->demand;
    if (!d->active) return;
    d->ending = true; /* no further reads */
    if (d->n_reading > 0) fm_io_drop_waiting(s->io, PRIORITY_DEMAND);
    while (d->n_reading > 0) (void)fm_store_pump(s, true);
    for (int32_t i = 0; i < d->n; i++) {
        const fm_demand_item *item = &d->item[i];
        if (item->state == FM_ITEM_READY || item->state == FM_ITEM_LENT) unpin(s, item->slot);
    }
    d->active = false;
}

/* ---- hints ------------------------------------------------------------------------------- */

/* The demand for `layer` has come: hints for it that it did not ask for were wrong, and waiting
 * ones for it or for layers before it come too late. */
static void drop_expired_hints(fm_store *s, int32_t layer)
{
    fm_hints *h = &s->hints;
    if (h->next < h->n && h->layer <= layer) h->next = h->n;
    for (int32_t i = h->n_slot; i-- > 0;) {
        const int32_t slot = h->slot[i];
        fm_slot *sl = &s->slot[slot];
        if (sl->layer != layer) continue;
        h->slot[i] = h->slot[--h->n_slot];
        if (sl->state == FM_SLOT_READING) h->n_reading--;
        sl->hinted = false;
    }
}

static void start_hints(fm_store *s)
{
    fm_hints *h = &s->hints;
    const fm_demand *d = &s->demand;
    if (h->next == h->n) return;
    if (d->active && (d->next_miss < d->n_miss || d->failed)) return;
    /* A guess beside the experts of one token would delay them: it takes its share of the disk, and some
     * disks (virtual ones, for instance) report nothing until all that they were given is read. */
    if (d->active && d->kind == FM_DEMAND_TOKEN && d->n_reading > 0) return;
    /* Streamed layers have the disk to themselves: a guess queued behind one would be waited for behind it. */
    if (fm_trunk_is_reading(s)) return;
    while (h->next < h->n && h->n_reading < h->most_reading && h->n_slot < h->n_max) {
        const int32_t expert = h->id[h->next];
        if (*fm_slot_entry(s, h->layer, expert) < 0) {
            if (!fm_slot_can_read(s, h->layer)) return;
            /* Only at the cost of what would be worth less if the hint is right. */
            const float worth = fm_evict_worth_if_used(&s->evict, h->layer, expert);
            const int32_t slot = fm_slot_take(s, s->layer_class[h->layer], worth);
            if (slot < 0) return;
            fm_slot_read(s, slot, h->layer, expert, PRIORITY_HINT);
            s->slot[slot].hinted = s->slot[slot].guess = true;
            h->slot[h->n_slot++] = slot;
            h->n_reading++;
            s->stats.prefetch_reads++;
        }
        h->next++;
    }
}

/* Experts read for hints at a time. What the device has taken of them when the demand comes stands in the way: where
 * the demand is a few experts that is as little as keeps the device awake, else as much as it takes at once. */
static int32_t hints_at_a_time(const fm_store *s, int32_t layer, fm_demand_kind kind)
{
    enum { FEW = 2 };
    if (kind == FM_DEMAND_TOKEN) return FEW;
    const int32_t n = fm_io_depth(s->io) / s->layer[layer].n_part;
    return n < FEW ? FEW : n;
}

void fm_store_hint(fm_store *s, int32_t layer, const int32_t *ids, int32_t n, fm_demand_kind kind)
{
    fm_hints *h = &s->hints;
    h->n = h->next = 0;
    if (layer < 0 || layer >= s->n_layer || s->layer[layer].n_part == 0) return;
    h->layer = layer;
    h->most_reading = hints_at_a_time(s, layer, kind);
    for (int32_t i = 0; i < n && h->n < h->n_max; i++) {
        if (ids[i] >= 0 && ids[i] < s->layer[layer].n_expert) h->id[h->n++] = ids[i];
    }
}

bool fm_store_holds_layer(const fm_store *s, int32_t layer)
{
    const int32_t *slot = s->slot_of + s->layer_first[layer];
    for (int32_t i = 0; i < s->layer[layer].n_expert; i++)
        if (slot[i] < 0) return false;
    return true;
}

void fm_experts_feed(fm_store *s)
{
    start_misses(s);
    start_hints(s);
}
