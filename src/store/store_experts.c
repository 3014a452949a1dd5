/* The expert cache: set-up, slots and their reads. Demands and hints, which decide what is read,
 * are in store_demand.c.
 *
 * A slot is free, being read, or ready. A ready slot is either pinned by an item of the demand or its expert has
 * a place in the order of those that may go (store_evict.c); a slot being read is neither. The table slot_of
 * names a slot from the start of the read, so an expert is never read twice at a time.
 */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store/store_internal.h"

enum {
    /* A batch has this much under way or unclaimed at least; more would only evict earlier. */
    WINDOW_BYTES = 32 << 20,
    WINDOW_MIN = 4,
    /* Slots are touched this far ahead: half a second of a fast drive. */
    POPULATE_AHEAD = 512 << 20,
    /* The first slots of a class are taken whether they were touched or not. */
    UNTOUCHED_BYTES = 64 << 20,
};
/* Of one processor's time, where all have other work; the classes have equal parts of it. */
#define POPULATE_LEAST_SHARE 0.05

/* ---- set-up ------------------------------------------------------------------------------ */

static fm_status check_layer(const fm_store_options *opt, int32_t index, fm_error *err)
{
    const fm_expert_layer *layer = &opt->layer[index];
    if (layer->n_expert == 0) return FM_OK;
    if (layer->n_expert < 0 || layer->n_part < 1 || layer->n_part > FM_EXPERT_PARTS) {
        return fm_fail(err, FM_E_ARG, "layer %d: %d experts of %d parts", index, layer->n_expert,
                       layer->n_part);
    }
    for (int32_t i = 0; i < layer->n_part; i++) {
        const fm_expert_part *p = &layer->part[i];
        uint64_t last, start, end;
        bool ok = p->bytes > 0 && p->file < opt->n_file &&
                  fm_mul_u64(p->stride, (uint64_t)layer->n_expert - 1, &last) &&
                  fm_add_u64(p->offset, last, &start) && fm_add_u64(start, p->bytes, &end) &&
                  end <= opt->mark[p->file].bytes;
        if (p->each) {
            ok = p->bytes > 0 && p->each_step > 0;
            for (int32_t e = 0; e < layer->n_expert && ok; e++) {
                const fm_extent at = fm_expert_extent(p, e);
                ok = at.bytes == p->bytes && at.file < opt->n_file &&
                     fm_add_u64(at.offset, at.bytes, &end) && end <= opt->mark[at.file].bytes;
            }
        }
        if (!ok) {
            return fm_fail(err, FM_E_ARG,
                           "layer %d, expert part %d: %d x %" PRIu64 " bytes at %" PRIu64
                           " do not lie in the file",
                           index, i, layer->n_expert, p->bytes, p->offset);
        }
    }
    return FM_OK;
}

static fm_status copy_layers(fm_store *s, const fm_store_options *opt, int32_t *most, fm_error *err)
{
    const size_t n = (size_t)opt->n_layer + 1;
    s->n_layer = opt->n_layer;
    s->layer = calloc(n, sizeof *s->layer);
    s->layer_class = calloc(n, sizeof *s->layer_class);
    s->layer_first = calloc(n, sizeof *s->layer_first);
    if (!s->layer || !s->layer_class || !s->layer_first) {
        return fm_fail(err, FM_E_NOMEM, "no memory for %d layers", opt->n_layer);
    }
    int64_t n_expert = 0;
    for (int32_t i = 0; i < opt->n_layer; i++) {
        FM_TRY(check_layer(opt, i, err));
        const fm_expert_layer *layer = &opt->layer[i];
        s->layer[i] = *layer;
        s->layer_first[i] = n_expert;
        n_expert += layer->n_expert;
        if (layer->n_expert > *most) *most = layer->n_expert;
        s->layer_class[i] = -1;
        if (layer->n_expert == 0) continue;
        s->layer_class[i] = fm_plan_class_of(&s->plan, fm_layer_slot_bytes(layer));
        if (s->layer_class[i] < 0) {
            return fm_fail(err, FM_E_ARG,
                           "layer %d: the plan has no slots of %" PRIu64 " bytes for its experts",
                           i, fm_layer_slot_bytes(layer));
        }
    }
    s->layer_first[s->n_layer] = n_expert;
    if (n_expert != s->plan.report.experts_total) {
        return fm_fail(err, FM_E_ARG, "the plan is for %" PRId64 " experts, the model has %" PRId64,
                       s->plan.report.experts_total, n_expert);
    }
    return FM_OK;
}

static fm_status make_demand(fm_store *s, int32_t most, fm_error *err)
{
    fm_demand *d = &s->demand;
    d->item = calloc((size_t)most + 1, sizeof *d->item);
    d->miss = calloc((size_t)most + 1, sizeof *d->miss);
    d->ready = calloc((size_t)most + 1, sizeof *d->ready);
    d->last_serial = calloc((size_t)most + 1, sizeof *d->last_serial);
    fm_hints *h = &s->hints;
    h->n_max = most;
    h->id = calloc((size_t)most + 1, sizeof *h->id);
    h->slot = calloc((size_t)most + 1, sizeof *h->slot);
    if (d->item && d->miss && d->ready && d->last_serial && h->id && h->slot) return FM_OK;
    return fm_fail(err, FM_E_NOMEM, "no memory for a demand of %d experts", most);
}

/* Lays the bookkeeping out in one block: slot_of, the policy's tables, then the slots. */
static fm_status make_tables(fm_store *s, fm_error *err)
{
    const uint64_t n_slot = (uint64_t)s->n_slot;
    const uint64_t n_expert = (uint64_t)s->plan.report.experts_total;
    const uint64_t evict_bytes = fm_evict_bytes((int64_t)n_expert, s->n_layer);
    const uint64_t of_bytes = fm_round_up(n_expert * sizeof(int32_t) + evict_bytes, FM_STORE_PAGE);
    s->table_bytes = of_bytes + fm_round_up(n_slot * FM_SLOT_META_BYTES, FM_STORE_PAGE);
    s->tables = fm_store_alloc(s, s->line_slots, s->table_bytes, err);
    if (!s->tables) return FM_E_NOMEM;

    uint8_t *at = s->tables;
    s->slot_of = (int32_t *)at;
    for (uint64_t i = 0; i < n_expert; i++) s->slot_of[i] = -1;
    fm_evict_init(&s->evict, s->slot_of + n_expert, s->layer_class, s->layer_first, s->n_layer);
    s->slot = (fm_slot *)(at + of_bytes);
    for (int32_t c = 0; c < s->n_class; c++) {
        fm_slot_class *cls = &s->slot_class[c];
        const int32_t first = cls->first;
        cls->free = cls->n_slot > 0 ? first : -1;
        for (int32_t i = first; i < first + cls->n_slot; i++) {
            s->slot[i] = (fm_slot){.layer = -1,
                                   .expert = -1,
                                   .item = -1,
                                   .next_free = i + 1 < first + cls->n_slot ? i + 1 : -1,
                                   .n_class = (uint8_t)c};
        }
    }
    return FM_OK;
}

static fm_status make_classes(fm_store *s, fm_error *err)
{
    uint64_t window = 2 * (uint64_t)fm_io_depth(s->io) * fm_io_split(s->io);
    if (window < WINDOW_BYTES) window = WINDOW_BYTES;
    for (int32_t c = 0; c < s->plan.n_class; c++) {
        fm_slot_class *cls = &s->slot_class[c];
        const uint64_t bytes = s->plan.slot_class[c].slot_bytes;
        const int64_t n_slot = s->plan.slot_class[c].n_slot;
        if (n_slot < 1 || n_slot > INT32_MAX - s->n_slot) {
            return fm_fail(err, FM_E_ARG,
                           "the plan has %" PRId64 " expert slots of %" PRIu64
                           " bytes, expected 1 to %d",
                           n_slot, bytes, INT32_MAX - s->n_slot);
        }
        *cls = (fm_slot_class){.slot_bytes = bytes,
                               .bytes = bytes * (uint64_t)n_slot,
                               .first = s->n_slot,
                               .n_slot = (int32_t)n_slot,
                               .n_untouched = (int32_t)(UNTOUCHED_BYTES / bytes)};
        const uint64_t n_window = window / bytes + 1;
        cls->window = n_window < WINDOW_MIN ? WINDOW_MIN : (int32_t)n_window;
        s->n_slot += cls->n_slot;
        s->n_class++;
        cls->base = fm_store_alloc(s, s->line_slots, cls->bytes, err);
        if (!cls->base) return FM_E_NOMEM;
        const fm_populate_options touch = {.base = cls->base,
                                           .bytes = cls->bytes,
                                           .ahead = POPULATE_AHEAD,
                                           .least_share = POPULATE_LEAST_SHARE / s->plan.n_class,
                                           .after = s->trunk_populate};
        cls->populate = fm_populate_start(&touch);
    }
    return FM_OK;
}

fm_status fm_experts_setup(fm_store *s, const fm_store_options *opt, fm_error *err)
{
    int32_t most = 0;
    s->n_used = opt->n_used > 0 ? opt->n_used : 1;
    FM_TRY(copy_layers(s, opt, &most, err));
    FM_TRY(make_demand(s, most, err));
    if (most == 0) return FM_OK;
    if (s->line_slots < 0) return fm_fail(err, FM_E_ARG, "the plan has no line for expert slots");
    FM_TRY(make_classes(s, err));
    return make_tables(s, err);
}

void fm_experts_teardown(fm_store *s)
{
    for (int32_t c = 0; c < s->n_class; c++) {
        fm_slot_class *cls = &s->slot_class[c];
        fm_populate_stop(cls->populate);
        if (cls->base) fm_ledger_free(s->ledger, s->line_slots, cls->base, cls->bytes);
    }
    if (s->tables) fm_ledger_free(s->ledger, s->line_slots, s->tables, s->table_bytes);
    free(s->demand.item);
    free(s->demand.miss);
    free(s->demand.ready);
    free(s->demand.last_serial);
    free(s->hints.id);
    free(s->hints.slot);
    free(s->layer);
    free(s->layer_class);
    free(s->layer_first);
}

void fm_store_heat(const fm_store *s, float *rate)
{
    if (s->tables) fm_evict_heat(&s->evict, rate);
}

void fm_store_seed(fm_store *s, const float *rate)
{
    if (s->tables) fm_evict_seed(&s->evict, rate);
}

/* ---- slots ------------------------------------------------------------------------------- */

int32_t *fm_slot_entry(fm_store *s, int32_t layer, int32_t expert)
{
    return &s->slot_of[s->layer_first[layer] + expert];
}

uint8_t *fm_slot_address(const fm_store *s, int32_t slot)
{
    const fm_slot_class *cls = &s->slot_class[s->slot[slot].n_class];
    return cls->base + (uint64_t)(slot - cls->first) * cls->slot_bytes;
}

void fm_slot_make_evictable(fm_store *s, int32_t slot)
{
    const fm_slot *sl = &s->slot[slot];
    float worth = fm_evict_worth(&s->evict, sl->layer, sl->expert);
    /* What is expected to be used stays until its layer comes. */
    if (sl->hinted) worth = fm_evict_worth_if_used(&s->evict, sl->layer, sl->expert);
    fm_evict_allow(&s->evict, sl->layer, sl->expert, worth);
}

void fm_slot_make_pinned(fm_store *s, int32_t slot)
{
    fm_evict_forbid(&s->evict, s->slot[slot].layer, s->slot[slot].expert);
}

static void forget_hint(fm_store *s, int32_t slot)
{
    fm_hints *h = &s->hints;
    for (int32_t i = 0; i < h->n_slot; i++) {
        if (h->slot[i] != slot) continue;
        h->slot[i] = h->slot[--h->n_slot];
        break;
    }
    s->slot[slot].hinted = false;
}

/* The content goes; the slot is the caller's to fill or to free. */
static void empty_slot(fm_store *s, int32_t slot)
{
    fm_slot *sl = &s->slot[slot];
    if (sl->hinted) forget_hint(s, slot);
    *fm_slot_entry(s, sl->layer, sl->expert) = -1;
    sl->layer = sl->expert = -1;
    sl->state = FM_SLOT_FREE;
#ifdef FM_DEBUG
    /* A late use computes with nonsense instead of with another expert's weights. */
    memset(fm_slot_address(s, slot), 0xdb, (size_t)s->slot_class[sl->n_class].slot_bytes);
#endif
}

static void free_slot(fm_store *s, int32_t slot)
{
    fm_slot_class *cls = &s->slot_class[s->slot[slot].n_class];
    empty_slot(s, slot);
    s->slot[slot].next_free = cls->free;
    cls->free = slot;
}

/* Whether the free slot costs no clearing of memory now. Asks for more of it either way: for what
 * gave way early and has not come back, too, which is touched when there is time. */
static bool was_touched(fm_slot_class *cls, int32_t slot)
{
    const size_t from = (size_t)(slot - cls->first) * cls->slot_bytes, to = from + cls->slot_bytes;
    const uint64_t wanted = to + (uint64_t)cls->n_early * cls->slot_bytes;
    fm_populate_need(cls->populate, wanted < cls->bytes ? wanted : cls->bytes);
    return slot < cls->first + cls->n_untouched || fm_populate_has(cls->populate, from, to);
}

int32_t fm_slot_take(fm_store *s, int32_t class_index, float worth_below)
{
    fm_slot_class *cls = &s->slot_class[class_index];
    const int32_t next = cls->free;
    const bool is_cheap = next >= 0 && was_touched(cls, next);
    int32_t layer, expert;
    if (!is_cheap && fm_evict_least(&s->evict, class_index, worth_below, &layer, &expert)) {
        const int32_t slot = *fm_slot_entry(s, layer, expert);
        fm_slot_make_pinned(s, slot);
        empty_slot(s, slot);
        if (next >= 0) {
            *fm_slot_entry(s, layer, expert) = FM_GAVE_WAY_EARLY;
            cls->n_early++;
            s->stats.evicted_early++;
        }
        return slot;
    }
    if (next < 0 || (!is_cheap && worth_below < INFINITY)) return -1;
    cls->free = s->slot[next].next_free;
    return next;
}

bool fm_slot_can_read(const fm_store *s, int32_t layer)
{
    return fm_io_capacity(s->io) - fm_io_outstanding(s->io) >= s->layer[layer].n_part;
}

void fm_slot_read(fm_store *s, int32_t slot, int32_t layer, int32_t expert, int priority)
{
    const fm_expert_layer *ly = &s->layer[layer];
    fm_slot *sl = &s->slot[slot];
    sl->layer = layer;
    sl->expert = expert;
    sl->state = FM_SLOT_READING;
    sl->parts_left = (uint8_t)ly->n_part;
    sl->failed = sl->prepared = sl->hinted = sl->guess = false;
    sl->item = -1;
    int32_t *entry = fm_slot_entry(s, layer, expert);
    if (*entry == FM_GAVE_WAY_EARLY) s->slot_class[sl->n_class].n_early--;
    *entry = slot;

    fm_io_read rd[FM_EXPERT_PARTS];
    uint8_t *at = fm_slot_address(s, slot);
    for (int32_t i = 0; i < ly->n_part; i++) {
        const fm_expert_part *p = &ly->part[i];
        const fm_extent from = fm_expert_extent(p, expert);
        rd[i] = (fm_io_read){.file = s->file[from.file],
                             .offset = from.offset,
                             .bytes = p->bytes,
                             .base = at,
                             .tag = fm_store_tag(FM_TAG_EXPERT, slot),
                             .priority = priority};
        sl->part[i] = at + from.offset % FM_IO_ALIGN;
        at += fm_io_room(p->bytes);
    }
    const fm_status st = fm_io_submit(s->io, rd, ly->n_part, NULL);
    assert(st == FM_OK); /* set-up checked the extents, the caller the room in the queue */
    (void)st;
}

void fm_experts_arrived(fm_store *s, int32_t slot, const fm_io_done *done)
{
    fm_slot *sl = &s->slot[slot];
    fm_demand *d = &s->demand;
    assert(sl->state == FM_SLOT_READING && sl->parts_left > 0);
    const int32_t item = sl->item;
    if (done->status != FM_OK) {
        sl->failed = true;
        if (item >= 0 && !sl->guess && !d->failed) {
            d->failed = true;
            d->error = done->error;
            fm_fail_context(&d->error, "layer %d, expert %d", sl->layer, sl->expert);
        }
    }
    if (--sl->parts_left > 0) return;

    if (sl->hinted) s->hints.n_reading--;
    if (item >= 0) d->n_reading--;
    if (sl->failed) {
        if (item >= 0) {
            d->item[item].slot = -1;
            d->item[item].state = FM_ITEM_MISS;
            /* A hint's read that failed is not the demand's failure: it reads for itself. */
            if (!d->failed) d->miss[d->n_miss++] = item;
        }
        sl->item = -1;
        free_slot(s, slot);
        return;
    }
    sl->state = FM_SLOT_READY;
    if (item < 0) {
        fm_slot_make_evictable(s, slot);
        return;
    }
    d->item[item].state = FM_ITEM_READY;
    d->ready[d->n_ready++] = item;
}
