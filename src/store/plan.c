/* The memory plan: who gets how much of the budget, decided before anything is allocated.
 *
 * The order of precedence is: what cannot shrink and the fewest slots; a modest batch, at most a
 * sixteenth of the budget; the whole trunk, with the batch as large as that allows, or as many trunk
 * units as fit, from the first, the others through a ring. A trunk byte is touched by every token, a
 * slot only sometimes, so slots get what is left when the trunk is settled. A prompt reads streamed
 * units and nearly all experts once per pass: passes of 64 tokens instead of 512 would read eight
 * times as much, and the trunk's last bytes save far less. All sums saturate, so a checkpoint with
 * absurd sizes does not fit instead of wrapping around.
 */
#include "store/store.h"
#include "store/store_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/figure.h"

enum {
    BATCH_STEP = 64, /* also the smallest batch worth having */
    BATCH_MODEST = 512, /* goes before the last units of the trunk... */
    BATCH_SHARE = 16,   /* ...within this part of the budget */
    RING_MIN = 2,    /* one unit computes while the next one arrives */
    RING_GOOD = 3,   /* evens out units of different size and demands in between */
    MIN_SLOTS = 2,   /* one expert computes while the next one arrives */
    MIN_CTX = 256,   /* shorter contexts are not worth proposing */
    MERGE_SHARE = 16, /* classes whose slots differ by less than 1/16 become one */
};

static uint64_t add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return fm_add_u64(a, b, &sum) ? sum : UINT64_MAX;
}

static uint64_t mul(uint64_t a, uint64_t b)
{
    uint64_t product;
    return fm_mul_u64(a, b, &product) ? product : UINT64_MAX;
}

static uint64_t room_for(uint64_t bytes)
{
    return bytes > UINT64_MAX - 2 * FM_IO_ALIGN ? UINT64_MAX : fm_io_room(bytes);
}

uint64_t fm_layer_slot_bytes(const fm_expert_layer *layer)
{
    uint64_t sum = 0;
    for (int32_t i = 0; i < layer->n_part; i++) sum = add(sum, room_for(layer->part[i].bytes));
    return sum;
}

uint64_t fm_unit_room(const fm_trunk_unit *unit)
{
    uint64_t sum = 0;
    for (int32_t i = 0; i < unit->n_piece; i++) sum = add(sum, room_for(fm_piece_room(&unit->piece[i])));
    return sum;
}

int32_t fm_plan_class_of(const fm_store_plan *plan, uint64_t slot_bytes)
{
    int32_t best = -1;
    for (int32_t i = 0; i < plan->n_class; i++) {
        if (plan->slot_class[i].slot_bytes < slot_bytes) continue;
        if (best < 0 || plan->slot_class[i].slot_bytes < plan->slot_class[best].slot_bytes)
            best = i;
    }
    return best;
}

/* ---- slot classes ------------------------------------------------------------------------ */

typedef struct {
    uint64_t slot_bytes;
    int64_t n_expert; /* experts of all its layers: more slots are useless */
    int64_t n_min;
} slot_class;

typedef struct {
    slot_class *c; /* largest slots first; owned */
    int32_t n;
    int64_t experts_total;
    uint64_t fixed_bytes; /* tables that do not depend on the number of slots */
} class_set;

static int by_bytes_descending(const void *a, const void *b)
{
    const slot_class *x = a, *y = b;
    return x->slot_bytes < y->slot_bytes ? 1 : x->slot_bytes > y->slot_bytes ? -1 : 0;
}

static void absorb(slot_class *into, const slot_class *other)
{
    if (other->slot_bytes > into->slot_bytes) into->slot_bytes = other->slot_bytes;
    if (other->n_min > into->n_min) into->n_min = other->n_min;
    into->n_expert += other->n_expert;
}

/* Joins the two neighbours whose sizes are closest in proportion. */
static void join_closest(class_set *set)
{
    int32_t best = 0;
    double best_ratio = 0;
    for (int32_t i = 0; i + 1 < set->n; i++) {
        const double ratio = (double)set->c[i + 1].slot_bytes / (double)set->c[i].slot_bytes;
        if (ratio > best_ratio) {
            best_ratio = ratio;
            best = i;
        }
    }
    absorb(&set->c[best], &set->c[best + 1]);
    memmove(&set->c[best + 1], &set->c[best + 2],
            (size_t)(set->n - best - 2) * sizeof set->c[0]);
    set->n--;
}

/* Classes depend on the multiset of layers only, not on their order. */
static fm_status find_classes(class_set *set, const fm_plan_input *in, fm_error *err)
{
    *set = (class_set){0};
    set->c = calloc((size_t)in->n_layer + 1, sizeof *set->c);
    if (!set->c) return fm_fail(err, FM_E_NOMEM, "no memory to plan %d layers", in->n_layer);
    for (int32_t i = 0; i < in->n_layer; i++) {
        const fm_expert_layer *layer = &in->layer[i];
        if (layer->n_expert <= 0) continue;
        set->c[set->n++] = (slot_class){.slot_bytes = fm_layer_slot_bytes(layer),
                                        .n_expert = layer->n_expert,
                                        .n_min = layer->n_expert < MIN_SLOTS ? 1 : MIN_SLOTS};
        set->experts_total += layer->n_expert;
    }
    qsort(set->c, (size_t)set->n, sizeof set->c[0], by_bytes_descending);
    int32_t n = 0;
    for (int32_t i = 0; i < set->n; i++) {
        slot_class *last = n > 0 ? &set->c[n - 1] : NULL;
        if (last && (last->slot_bytes == set->c[i].slot_bytes ||
                     last->slot_bytes - set->c[i].slot_bytes < last->slot_bytes / MERGE_SHARE)) {
            absorb(last, &set->c[i]);
        } else {
            set->c[n++] = set->c[i];
        }
    }
    set->n = n;
    while (set->n > FM_SLOT_CLASSES) join_closest(set);
    if (set->n > 0) set->fixed_bytes = fm_store_table_bytes(set->experts_total);
    return FM_OK;
}

static uint64_t slot_cost(const slot_class *c)
{
    return add(c->slot_bytes, FM_SLOT_META_BYTES);
}

static uint64_t min_slot_cost(const class_set *set)
{
    uint64_t sum = set->fixed_bytes;
    for (int32_t i = 0; i < set->n; i++) {
        sum = add(sum, mul(slot_cost(&set->c[i]), (uint64_t)set->c[i].n_min));
    }
    return sum;
}

/* Divides `budget` (at least min_slot_cost) so that every class holds the same share of its
 * experts, as nearly as whole slots allow; returns the bytes used. Slots are granted one by one to
 * the class that is behind, and the first grant that does not fit ends it: thereby more budget
 * never means fewer slots of any class. */
static uint64_t grant_slots(const class_set *set, uint64_t budget, int64_t *n_slot)
{
    uint64_t used = set->fixed_bytes, everything = set->fixed_bytes;
    for (int32_t i = 0; i < set->n; i++) {
        n_slot[i] = set->c[i].n_min;
        used = add(used, mul(slot_cost(&set->c[i]), (uint64_t)n_slot[i]));
        everything = add(everything, mul(slot_cost(&set->c[i]), (uint64_t)set->c[i].n_expert));
    }
    if (everything <= budget) {
        for (int32_t i = 0; i < set->n; i++) n_slot[i] = set->c[i].n_expert;
        return everything;
    }
    for (;;) {
        int32_t next = -1;
        for (int32_t i = 0; i < set->n; i++) {
            if (n_slot[i] >= set->c[i].n_expert) continue;
            if (next < 0 || mul((uint64_t)n_slot[i] + 1, (uint64_t)set->c[next].n_expert) <
                                mul((uint64_t)n_slot[next] + 1, (uint64_t)set->c[i].n_expert)) {
                next = i;
            }
        }
        if (next < 0) return used;
        const uint64_t cost = slot_cost(&set->c[next]);
        if (cost > budget - used) return used;
        used += cost;
        n_slot[next]++;
    }
}

/* ---- trunk ------------------------------------------------------------------------------- */

typedef struct {
    int32_t n_resident, n_ring;
    uint64_t resident_bytes, ring_bytes_each;
} trunk_split;

static uint64_t split_cost(const trunk_split *s)
{
    return add(s->resident_bytes, mul(s->ring_bytes_each, (uint64_t)s->n_ring));
}

/* The split with the most resident units that costs at most `budget`; with RING_GOOD buffers when
 * that is affordable for the same units. False: no split fits. *least: the cheapest split's cost.
 */
static bool split_trunk(trunk_split *out, const fm_plan_input *in, uint64_t budget, uint64_t *least)
{
    uint64_t resident = 0, largest = 0;
    for (int32_t i = 0; i < in->n_unit; i++) resident = add(resident, fm_unit_room(&in->unit[i]));
    *least = resident;
    bool found = resident <= budget;
    if (found) *out = (trunk_split){.n_resident = in->n_unit, .resident_bytes = resident};

    for (int32_t r = in->n_unit - 1; r >= 0 && resident != UINT64_MAX; r--) {
        const uint64_t room = fm_unit_room(&in->unit[r]);
        const int32_t n_streamed = in->n_unit - r;
        resident -= room;
        if (room > largest) largest = room;
        trunk_split s = {.n_resident = r,
                         .n_ring = n_streamed < RING_MIN ? n_streamed : RING_MIN,
                         .resident_bytes = resident,
                         .ring_bytes_each = largest};
        const uint64_t cost = split_cost(&s);
        if (cost < *least) *least = cost;
        if (found || cost > budget) continue;
        found = true;
        if (n_streamed > RING_GOOD && largest <= budget - cost) s.n_ring = RING_GOOD;
        *out = s;
    }
    return found;
}

/* ---- the plan ---------------------------------------------------------------------------- */

static uint64_t scratch_bytes(const fm_plan_input *in, int32_t n_batch)
{
    return add(in->scratch_fixed_bytes, mul(in->scratch_token_bytes, (uint64_t)n_batch));
}

/* What is needed whatever the trunk, the slots and the batch get. */
static uint64_t fixed_bytes(const fm_plan_input *in)
{
    uint64_t sum = add(in->program_bytes, in->metadata_bytes);
    sum = add(sum, in->always_bytes);
    sum = add(sum, in->kv_bytes);
    sum = add(sum, in->index_bytes);
    sum = add(sum, in->importance_bytes);
    sum = add(sum, in->caller_bytes);
    return add(sum, in->state_bytes);
}

static void add_line(fm_plan *report, const char *name, uint64_t bytes)
{
    fm_plan_line *line = &report->lines[report->n_line++];
    snprintf(line->name, sizeof line->name, "%s", name);
    line->bytes = bytes;
    report->total_bytes = add(report->total_bytes, bytes);
}

static void list_lines(fm_plan *report, const fm_plan_input *in, const trunk_split *trunk,
                       int32_t n_batch, uint64_t slot_bytes)
{
    report->n_line = 0;
    report->total_bytes = 0;
    add_line(report, FM_LINE_PROGRAM, in->program_bytes);
    add_line(report, FM_LINE_METADATA, in->metadata_bytes);
    add_line(report, FM_LINE_TRUNK, add(in->always_bytes, trunk->resident_bytes));
    if (trunk->n_ring > 0) {
        add_line(report, FM_LINE_RING, mul(trunk->ring_bytes_each, (uint64_t)trunk->n_ring));
    }
    add_line(report, FM_LINE_KV, in->kv_bytes);
    if (in->index_bytes > 0) add_line(report, FM_LINE_INDEX, in->index_bytes);
    add_line(report, FM_LINE_STATE, in->state_bytes);
    add_line(report, FM_LINE_SCRATCH, scratch_bytes(in, n_batch));
    if (in->importance_bytes > 0) add_line(report, FM_LINE_IMPORTANCE, in->importance_bytes);
    if (in->caller_bytes > 0) add_line(report, FM_LINE_CALLER, in->caller_bytes);
    add_line(report, FM_LINE_SLOTS, slot_bytes);
}

static fm_status refuse(const fm_plan_input *in, const fm_plan *least, fm_error *err)
{
    char text[900], a[FM_FIGURE], b[FM_FIGURE];
    size_t n = (size_t)snprintf(text, sizeof text,
                                "the smallest plan takes %s of memory, %s is %s",
                                fm_figure_bytes(a, least->total_bytes),
                                in->budget_given ? "the budget" : "what the machine can spare",
                                fm_figure_bytes(b, in->budget_bytes));
    for (int32_t i = 0; i < least->n_line && n < sizeof text; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "\n  %-24s %10s", least->lines[i].name,
                              fm_figure_bytes(a, least->lines[i].bytes));
    }
    if (n < sizeof text) {
        const uint64_t mib = least->total_bytes / (1u << 20) + 1;
        n += (size_t)snprintf(text + n, sizeof text - n,
                              in->budget_given ? "\nIt would fit with --memory %" PRIu64 "M"
                                               : "\nIt would fit if other programs gave some back (to "
                                                 "take it all the same: --memory %" PRIu64 "M)",
                              mib);
    }
    /* A shorter context, when that alone would do. */
    const uint64_t over = least->total_bytes - in->budget_bytes;
    const uint64_t per_ctx = add(in->kv_bytes, in->index_bytes);
    if (n < sizeof text && over < per_ctx) {
        const double share = 1.0 - (double)over / (double)per_ctx;
        const int32_t n_ctx = (int32_t)(share * in->n_ctx);
        if (n_ctx >= MIN_CTX) {
            snprintf(text + n, sizeof text - n, ", or with --ctx %d instead of %d", n_ctx,
                     in->n_ctx);
        }
    }
    return fm_fail(err, FM_E_NOMEM, "%s", text);
}

/* The largest batch not above in->n_batch with which `others` fits, at least `smallest`. */
static int32_t largest_batch(const fm_plan_input *in, uint64_t others, int32_t smallest)
{
    int32_t n = in->n_batch;
    while (n > smallest && add(others, scratch_bytes(in, n)) > in->budget_bytes) {
        n = (n - 1) / BATCH_STEP * BATCH_STEP;
        if (n < smallest) n = smallest;
    }
    return n;
}

/* Bytes that a batch above the smallest may have before the trunk: a share, not whole steps of the batch, so
 * that more memory never means a smaller trunk. */
static uint64_t batch_reserve(const fm_plan_input *in, int32_t smallest, uint64_t min_memory)
{
    const int32_t modest = in->n_batch < BATCH_MODEST ? in->n_batch : BATCH_MODEST;
    uint64_t reserve = scratch_bytes(in, modest) - scratch_bytes(in, smallest);
    if (reserve > in->budget_bytes / BATCH_SHARE) reserve = in->budget_bytes / BATCH_SHARE;
    if (reserve > in->budget_bytes - min_memory) reserve = in->budget_bytes - min_memory;
    return reserve;
}

static fm_status check_input(const fm_plan_input *in, fm_error *err)
{
    if (in->n_batch < 1) return fm_fail(err, FM_E_ARG, "plan: a batch of %d tokens", in->n_batch);
    for (int32_t i = 0; i < in->n_layer; i++) {
        if (in->layer[i].n_part < 0 || in->layer[i].n_part > FM_EXPERT_PARTS ||
            (in->layer[i].n_expert > 0 && in->layer[i].n_part == 0)) {
            return fm_fail(err, FM_E_ARG, "plan: layer %d has experts of %d parts", i,
                           in->layer[i].n_part);
        }
    }
    return FM_OK;
}

fm_status fm_plan_make(fm_store_plan *out, const fm_plan_input *in, fm_error *err)
{
    memset(out, 0, sizeof *out);
    FM_TRY(check_input(in, err));
    class_set set;
    FM_TRY(find_classes(&set, in, err));

    const int32_t smallest = in->n_batch < BATCH_STEP ? in->n_batch : BATCH_STEP;
    const uint64_t slots_min = min_slot_cost(&set);
    const uint64_t settled = add(fixed_bytes(in), slots_min);
    trunk_split trunk = {0};
    uint64_t trunk_least;
    (void)split_trunk(&trunk, in, 0, &trunk_least); /* what the cheapest split costs */

    fm_plan *report = &out->report;
    report->budget_bytes = in->budget_bytes;
    report->min_memory_bytes = add(add(settled, scratch_bytes(in, smallest)), trunk_least);
    report->experts_total = set.experts_total;
    report->trunk_units = in->n_unit;
    report->n_ctx = in->n_ctx;

    fm_status st = FM_OK;
    if (in->budget_bytes < report->min_memory_bytes || report->min_memory_bytes == UINT64_MAX) {
        /* Show the plan that the smallest budget would give. */
        (void)split_trunk(&trunk, in, trunk_least, &trunk_least);
        list_lines(report, in, &trunk, smallest, slots_min);
        st = refuse(in, report, err);
        goto done;
    }

    const uint64_t before_trunk = settled + scratch_bytes(in, smallest) +
                                  batch_reserve(in, smallest, report->min_memory_bytes);
    (void)split_trunk(&trunk, in, in->budget_bytes - before_trunk, &trunk_least);
    out->n_batch = largest_batch(in, add(settled, split_cost(&trunk)), smallest);
    const uint64_t others =
        fixed_bytes(in) + scratch_bytes(in, out->n_batch) + split_cost(&trunk);
    int64_t n_slot[FM_SLOT_CLASSES] = {0};
    const uint64_t slot_bytes = grant_slots(&set, in->budget_bytes - others, n_slot);

    out->n_resident_unit = trunk.n_resident;
    out->n_ring = trunk.n_ring;
    out->ring_bytes_each = trunk.ring_bytes_each;
    out->trunk_bytes = trunk.resident_bytes;
    out->n_class = set.n;
    for (int32_t i = 0; i < set.n; i++) {
        out->slot_class[i].slot_bytes = set.c[i].slot_bytes;
        out->slot_class[i].n_slot = n_slot[i];
        report->expert_slots += n_slot[i];
    }
    list_lines(report, in, &trunk, out->n_batch, slot_bytes);
    report->trunk_resident = trunk.n_resident;
    report->n_batch = out->n_batch;

done:
    free(set.c);
    return st;
}
