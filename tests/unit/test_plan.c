/* The memory plan: never above the budget, exact at its smallest, and more memory never means less
 * of what matters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/store.h"

#define MIB (UINT64_C(1) << 20)

enum { MAX_LAYERS = 64, MAX_UNITS = 64, MAX_PIECES = 8 };

/* A made-up model and its plan input. */
typedef struct {
    fm_expert_layer layer[MAX_LAYERS];
    fm_trunk_unit unit[MAX_UNITS];
    fm_trunk_piece piece[MAX_UNITS][MAX_PIECES];
    fm_plan_input in;
} model;

static uint64_t seed = 0x2545f4914f6cdd1du;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static uint64_t between(uint64_t lo, uint64_t hi)
{
    return lo + next_random() % (hi - lo + 1);
}

static void set_layer(model *m, int i, int32_t n_expert, uint64_t part_bytes, int32_t n_part)
{
    fm_expert_layer *layer = &m->layer[i];
    *layer = (fm_expert_layer){.n_expert = n_expert, .n_part = n_part};
    for (int32_t p = 0; p < n_part; p++) {
        layer->part[p] = (fm_expert_part){.bytes = part_bytes, .stride = part_bytes};
    }
}

static void set_unit(model *m, int i, int32_t n_piece, uint64_t bytes)
{
    for (int32_t p = 0; p < n_piece; p++) m->piece[i][p] = (fm_trunk_piece){.bytes = bytes};
    m->unit[i] = (fm_trunk_unit){.piece = m->piece[i], .n_piece = n_piece};
}

static void finish(model *m, int n_layer, int n_unit)
{
    m->in.layer = m->layer;
    m->in.unit = m->unit;
    m->in.n_layer = n_layer;
    m->in.n_unit = n_unit;
}

/* 8 layers of 64 experts of 3 x 600 KiB, 10 units of 20 MiB. */
static void typical(model *m)
{
    memset(m, 0, sizeof *m);
    for (int i = 0; i < 8; i++) set_layer(m, i, 64, 600 * 1024, 3);
    for (int i = 0; i < 10; i++) set_unit(m, i, 4, 5 * MIB);
    finish(m, 8, 10);
    m->in.program_bytes = 50 * MIB;
    m->in.metadata_bytes = 20 * MIB;
    m->in.always_bytes = 1 * MIB;
    m->in.kv_bytes = 64 * MIB;
    m->in.state_bytes = 3 * MIB;
    m->in.scratch_fixed_bytes = 10 * MIB;
    m->in.scratch_token_bytes = 100 * 1024;
    m->in.n_batch = 512;
    m->in.n_ctx = 4096;
}

static void random_model(model *m)
{
    memset(m, 0, sizeof *m);
    const int n_layer = (int)between(0, 40), n_unit = (int)between(0, 40);
    const int n_kind = (int)between(1, 25);
    for (int i = 0; i < n_layer; i++) {
        const uint64_t kind = between(1, (uint64_t)n_kind);
        const int32_t n_expert = next_random() % 6 == 0 ? 0 : (int32_t)between(1, 60);
        set_layer(m, i, n_expert, kind * between(1, 3) * 50000,
                  (int32_t)between(1, FM_EXPERT_PARTS));
    }
    for (int i = 0; i < n_unit; i++)
        set_unit(m, i, (int32_t)between(1, MAX_PIECES), between(1, 4 * MIB));
    finish(m, n_layer, n_unit);
    m->in.program_bytes = between(0, 50 * MIB);
    m->in.metadata_bytes = between(0, 50 * MIB);
    m->in.always_bytes = between(0, MIB);
    m->in.kv_bytes = between(0, 100 * MIB);
    m->in.state_bytes = between(0, MIB);
    m->in.index_bytes = between(0, 1) * between(0, 20 * MIB);
    m->in.scratch_fixed_bytes = between(0, 10 * MIB);
    m->in.scratch_token_bytes = between(0, 200000);
    m->in.n_batch = (int32_t)between(1, 1000);
    m->in.n_ctx = 4096;
}

static fm_status plan_with(fm_store_plan *out, model *m, uint64_t budget, fm_error *err)
{
    m->in.budget_bytes = budget;
    return fm_plan_make(out, &m->in, err);
}

/* Everything the model can use. */
static uint64_t bytes_of_everything(model *m)
{
    fm_store_plan plan;
    assert_int_equal(plan_with(&plan, m, UINT64_C(1) << 50, NULL), FM_OK);
    return plan.report.total_bytes;
}

static uint64_t smallest(model *m)
{
    fm_store_plan plan;
    assert_int_equal(plan_with(&plan, m, 0, NULL), FM_E_NOMEM);
    return plan.report.min_memory_bytes;
}

static void check_invariants(const fm_store_plan *p, const model *m)
{
    const fm_plan *r = &p->report;
    uint64_t sum = 0;
    for (int32_t i = 0; i < r->n_line; i++) sum += r->lines[i].bytes;
    assert_int_equal(sum, r->total_bytes);
    assert_true(r->total_bytes <= m->in.budget_bytes);
    assert_true(r->min_memory_bytes <= r->total_bytes);
    assert_int_equal(r->trunk_units, m->in.n_unit);
    assert_int_equal(r->trunk_resident, p->n_resident_unit);
    assert_in_range(p->n_batch, 1, m->in.n_batch);
    assert_true(p->n_batch == m->in.n_batch || p->n_batch % 64 == 0);
    assert_int_equal(r->n_batch, p->n_batch);

    /* Trunk bytes and ring room. */
    uint64_t trunk = 0;
    for (int32_t u = 0; u < m->in.n_unit; u++) {
        uint64_t room = 0;
        for (int32_t i = 0; i < m->unit[u].n_piece; i++)
            room += fm_io_room(m->unit[u].piece[i].bytes);
        if (u < p->n_resident_unit) trunk += room;
        else assert_true(room <= p->ring_bytes_each);
    }
    assert_int_equal(trunk, p->trunk_bytes);
    if (p->n_resident_unit < m->in.n_unit) assert_in_range(p->n_ring, 2, 3);
    else assert_int_equal(p->n_ring, 0);

    /* Slots: every layer has a class that fits, at least 2 slots or as many as there are experts.
     */
    int64_t experts = 0, slots = 0, class_experts[FM_SLOT_CLASSES] = {0};
    assert_in_range(p->n_class, 0, FM_SLOT_CLASSES);
    for (int32_t i = 0; i < m->in.n_layer; i++) {
        const fm_expert_layer *layer = &m->layer[i];
        if (layer->n_expert == 0) continue;
        uint64_t room = 0;
        for (int32_t k = 0; k < layer->n_part; k++) room += fm_io_room(layer->part[k].bytes);
        int best = -1;
        for (int c = 0; c < p->n_class; c++) {
            if (p->slot_class[c].slot_bytes >= room &&
                (best < 0 || p->slot_class[c].slot_bytes < p->slot_class[best].slot_bytes)) {
                best = c;
            }
        }
        assert_true(best >= 0);
        assert_true(p->slot_class[best].n_slot >= (layer->n_expert < 2 ? 1 : 2));
        class_experts[best] += layer->n_expert;
        experts += layer->n_expert;
    }
    for (int c = 0; c < p->n_class; c++) {
        slots += p->slot_class[c].n_slot;
        assert_true(p->slot_class[c].n_slot <= class_experts[c]);
        assert_int_equal(p->slot_class[c].slot_bytes % FM_IO_ALIGN, 0);
    }
    assert_int_equal(experts, r->experts_total);
    assert_int_equal(slots, r->expert_slots);
}

static void lines_come_in_the_agreed_order(void **state)
{
    (void)state;
    static const char *const whole[] = {FM_LINE_PROGRAM, FM_LINE_METADATA, FM_LINE_TRUNK,
                                        FM_LINE_KV,      FM_LINE_STATE,    FM_LINE_SCRATCH,
                                        FM_LINE_SLOTS};
    static const char *const streamed[] = {FM_LINE_PROGRAM, FM_LINE_METADATA, FM_LINE_TRUNK,
                                           FM_LINE_RING, FM_LINE_KV, FM_LINE_STATE,
                                           FM_LINE_SCRATCH, FM_LINE_SLOTS};
    model m;
    fm_store_plan p;
    typical(&m);
    assert_int_equal(plan_with(&p, &m, 2048 * MIB, NULL), FM_OK);
    assert_int_equal(p.report.n_line, 7);
    for (int i = 0; i < 7; i++) assert_string_equal(p.report.lines[i].name, whole[i]);
    assert_int_equal(plan_with(&p, &m, smallest(&m), NULL), FM_OK);
    assert_int_equal(p.report.n_line, 8);
    for (int i = 0; i < 8; i++) assert_string_equal(p.report.lines[i].name, streamed[i]);
    m.in.index_bytes = 5 * MIB;
    assert_int_equal(plan_with(&p, &m, 2048 * MIB, NULL), FM_OK);
    assert_int_equal(p.report.n_line, 8);
    assert_string_equal(p.report.lines[4].name, FM_LINE_INDEX);
    assert_int_equal(p.report.lines[4].bytes, 5 * MIB);
}

static void ample_budget_holds_everything_and_takes_no_more(void **state)
{
    (void)state;
    model m;
    fm_store_plan p;
    typical(&m);
    assert_int_equal(plan_with(&p, &m, UINT64_C(1) << 40, NULL), FM_OK);
    check_invariants(&p, &m);
    assert_int_equal(p.report.expert_slots, 8 * 64);
    assert_int_equal(p.n_resident_unit, 10);
    assert_int_equal(p.n_batch, 512);
    const uint64_t all = p.report.total_bytes;
    assert_int_equal(plan_with(&p, &m, all, NULL), FM_OK);
    assert_int_equal(p.report.expert_slots, 8 * 64);
    assert_int_equal(plan_with(&p, &m, all - 1, NULL), FM_OK);
    assert_int_equal(p.report.expert_slots, 8 * 64 - 1);
}

static void smallest_budget_is_exact(void **state)
{
    (void)state;
    model m;
    fm_store_plan p;
    for (int round = 0; round < 400; round++) {
        if (round == 0) typical(&m);
        else random_model(&m);
        const uint64_t least = smallest(&m);
        fm_error err;
        assert_int_equal(plan_with(&p, &m, least, &err), FM_OK);
        check_invariants(&p, &m);
        assert_int_equal(p.report.total_bytes, least);
        assert_int_equal(p.report.min_memory_bytes, least);
        if (least > 0) assert_int_equal(plan_with(&p, &m, least - 1, &err), FM_E_NOMEM);
    }
}

static void too_small_budget_lists_the_lines_and_a_way_out(void **state)
{
    (void)state;
    model m;
    fm_store_plan p;
    typical(&m);
    const uint64_t least = smallest(&m);
    fm_error err;
    assert_int_equal(plan_with(&p, &m, least - 10 * MIB, &err), FM_E_NOMEM);
    static const char *const words[] = {FM_LINE_PROGRAM, FM_LINE_METADATA, FM_LINE_TRUNK,
                                        FM_LINE_RING, FM_LINE_KV, FM_LINE_STATE, FM_LINE_SCRATCH,
                                        FM_LINE_SLOTS, "--memory", "--ctx", "MiB"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_non_null(strstr(err.msg, words[i]));
    }
    /* What the message proposes works. */
    unsigned long long mib = 0;
    assert_int_equal(sscanf(strstr(err.msg, "--memory"), "--memory %lluM", &mib), 1);
    assert_int_equal(plan_with(&p, &m, mib * MIB, &err), FM_OK);
    assert_int_equal(plan_with(&p, &m, least - 10 * MIB, &err), FM_E_NOMEM);
    int n_ctx = 0;
    assert_int_equal(sscanf(strstr(err.msg, "--ctx"), "--ctx %d", &n_ctx), 1);
    m.in.kv_bytes = m.in.kv_bytes * (uint64_t)n_ctx / 4096;
    assert_int_equal(plan_with(&p, &m, least - 10 * MIB, &err), FM_OK);

    typical(&m); /* even with every number at its longest the message is whole */
    m.in.kv_bytes = m.in.program_bytes = UINT64_C(1) << 60;
    assert_int_equal(plan_with(&p, &m, 1, &err), FM_E_NOMEM);
    assert_non_null(strstr(err.msg, "--memory"));
}

/* A modest batch comes before the last units of the trunk, but takes a sixteenth of the budget at most. */
static void a_modest_batch_goes_before_the_trunk(void **state)
{
    (void)state;
    model m;
    fm_store_plan p;
    typical(&m);
    m.in.scratch_token_bytes = 300 * 1024;
    m.in.n_batch = 1024;
    const uint64_t least = smallest(&m);
    bool saw_small = false, saw_streamed_512 = false, saw_whole_small = false;
    int32_t last_batch = 0;
    for (uint64_t budget = least; budget < least + 3000 * MIB; budget += 3 * MIB) {
        assert_int_equal(plan_with(&p, &m, budget, NULL), FM_OK);
        check_invariants(&p, &m);
        uint64_t share = budget / 16;
        if (share > budget - least) share = budget - least;
        if (share > (512 - 64) * m.in.scratch_token_bytes)
            share = (512 - 64) * m.in.scratch_token_bytes;
        const int32_t promised = 64 + (int32_t)(share / m.in.scratch_token_bytes) / 64 * 64;
        assert_true(p.n_batch >= promised);
        saw_small |= p.n_ring > 0 && p.n_batch < 128;
        saw_streamed_512 |= p.n_ring > 0 && p.n_batch >= 512;
        saw_whole_small |= p.n_ring == 0 && p.n_batch < 512;
        last_batch = p.n_batch;
    }
    assert_true(saw_small && saw_whole_small && !saw_streamed_512); /* the trunk is 200 MiB */
    assert_int_equal(last_batch, 1024);

    typical(&m); /* a trunk of 20 GiB: long passes although most of it is streamed */
    for (int i = 0; i < 10; i++) set_unit(&m, i, 4, 512 * MIB);
    m.in.scratch_token_bytes = 500 * 1024;
    assert_int_equal(plan_with(&p, &m, 8192 * MIB, NULL), FM_OK);
    check_invariants(&p, &m);
    assert_true(p.n_ring > 0);
    assert_in_range(p.n_resident_unit, 1, 9);
    assert_int_equal(p.n_batch, 512);
}

/* -1, 0, 1 on (resident units, ring, batch, slots): what a larger budget must not lower. */
static int compare_plans(const fm_store_plan *a, const fm_store_plan *b)
{
    const int64_t x[] = {a->n_resident_unit, a->n_ring, a->n_batch, a->report.expert_slots};
    const int64_t y[] = {b->n_resident_unit, b->n_ring, b->n_batch, b->report.expert_slots};
    for (int i = 0; i < 4; i++) {
        if (i == 1 && x[0] == a->report.trunk_units) continue; /* whole: no ring */
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    }
    return 0;
}

static void more_memory_never_gives_a_worse_plan(void **state)
{
    (void)state;
    model m;
    for (int round = 0; round < 60; round++) {
        random_model(&m);
        const uint64_t least = smallest(&m), all = bytes_of_everything(&m);
        const uint64_t step = (all - least) / 300 + 1 + next_random() % 5000;
        fm_store_plan before, now;
        assert_int_equal(plan_with(&before, &m, least, NULL), FM_OK);
        for (uint64_t budget = least; budget <= all + step; budget += step) {
            assert_int_equal(plan_with(&now, &m, budget, NULL), FM_OK);
            check_invariants(&now, &m);
            assert_true(compare_plans(&before, &now) <= 0);
            const bool same_shape = before.n_resident_unit == now.n_resident_unit &&
                                    before.n_ring == now.n_ring && before.n_batch == now.n_batch;
            for (int c = 0; same_shape && c < now.n_class; c++) {
                assert_true(before.slot_class[c].n_slot <= now.slot_class[c].n_slot);
            }
            before = now;
        }
        assert_int_equal(now.report.expert_slots, now.report.experts_total);
        assert_int_equal(now.n_resident_unit, m.in.n_unit);
    }
}

static void order_of_layers_does_not_matter(void **state)
{
    (void)state;
    model a, b;
    for (int round = 0; round < 200; round++) {
        random_model(&a);
        b = a;
        finish(&b, a.in.n_layer, a.in.n_unit);
        for (int u = 0; u < b.in.n_unit; u++) b.unit[u].piece = b.piece[u];
        for (int i = b.in.n_layer - 1; i > 0; i--) {
            const int j = (int)(next_random() % (uint64_t)(i + 1));
            const fm_expert_layer t = b.layer[i];
            b.layer[i] = b.layer[j];
            b.layer[j] = t;
        }
        const uint64_t least = smallest(&a);
        assert_int_equal(smallest(&b), least);
        fm_store_plan p, q;
        const uint64_t budget = least + next_random() % (2 * (bytes_of_everything(&a) - least) + 1);
        assert_int_equal(plan_with(&p, &a, budget, NULL), FM_OK);
        assert_int_equal(plan_with(&q, &b, budget, NULL), FM_OK);
        assert_memory_equal(&p, &q, sizeof p);
    }
}

static void classes_hold_the_same_share_of_their_experts(void **state)
{
    (void)state;
    model m;
    typical(&m);
    for (int i = 4; i < 8; i++) set_layer(&m, i, 64, 900 * 1024, 3);
    fm_store_plan p;
    assert_int_equal(plan_with(&p, &m, smallest(&m) + 700 * MIB, NULL), FM_OK);
    assert_int_equal(p.n_class, 2);
    const int64_t difference = p.slot_class[0].n_slot - p.slot_class[1].n_slot;
    assert_true(p.slot_class[0].n_slot > 50);
    assert_in_range(difference + 1, 0, 2);

    /* nearly equal slots become one class, of the larger size */
    for (int i = 4; i < 8; i++) set_layer(&m, i, 64, 590 * 1024, 3);
    assert_int_equal(plan_with(&p, &m, smallest(&m) + 700 * MIB, NULL), FM_OK);
    assert_int_equal(p.n_class, 1);
    assert_int_equal(p.slot_class[0].slot_bytes, 3 * fm_io_room(600 * 1024));

    /* more kinds than classes */
    for (int i = 0; i < 40; i++) set_layer(&m, i, 8, (uint64_t)(100000 * (i + 1)) << (i / 8), 2);
    finish(&m, 40, 10);
    assert_int_equal(plan_with(&p, &m, smallest(&m), NULL), FM_OK);
    check_invariants(&p, &m);
    assert_int_equal(p.n_class, FM_SLOT_CLASSES);
}

static void dense_model_and_model_without_trunk_plan_too(void **state)
{
    (void)state;
    model m;
    fm_store_plan p;
    typical(&m);
    m.in.n_layer = 0;
    assert_int_equal(plan_with(&p, &m, smallest(&m), NULL), FM_OK);
    check_invariants(&p, &m);
    assert_int_equal(p.n_class, 0);
    assert_int_equal(p.report.expert_slots, 0);
    typical(&m);
    m.in.n_unit = 0;
    assert_int_equal(plan_with(&p, &m, smallest(&m), NULL), FM_OK);
    check_invariants(&p, &m);
    typical(&m);
    m.in.n_batch = 5; /* below the smallest batch: kept */
    assert_int_equal(plan_with(&p, &m, smallest(&m), NULL), FM_OK);
    assert_int_equal(p.n_batch, 5);
}

static void absurd_sizes_are_refused_not_wrapped(void **state)
{
    (void)state;
    model m;
    fm_store_plan p;
    fm_error err;
    typical(&m);
    m.layer[3].part[1].bytes = UINT64_MAX;
    assert_int_equal(plan_with(&p, &m, UINT64_MAX, &err), FM_E_NOMEM);
    typical(&m);
    m.piece[3][1].bytes = UINT64_MAX - 5;
    assert_int_equal(plan_with(&p, &m, UINT64_MAX, &err), FM_E_NOMEM);
    typical(&m);
    m.in.kv_bytes = UINT64_MAX;
    assert_int_equal(plan_with(&p, &m, UINT64_MAX, &err), FM_E_NOMEM);
    typical(&m);
    m.in.scratch_token_bytes = UINT64_MAX / 3;
    assert_int_equal(plan_with(&p, &m, UINT64_MAX, &err), FM_E_NOMEM);
    typical(&m);
    m.in.n_batch = 0;
    assert_int_equal(plan_with(&p, &m, UINT64_MAX, &err), FM_E_ARG);
    typical(&m);
    m.layer[0].n_part = FM_EXPERT_PARTS + 1;
    assert_int_equal(plan_with(&p, &m, UINT64_MAX, &err), FM_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_in_the_agreed_order),
        cmocka_unit_test(ample_budget_holds_everything_and_takes_no_more),
        cmocka_unit_test(smallest_budget_is_exact),
        cmocka_unit_test(too_small_budget_lists_the_lines_and_a_way_out),
        cmocka_unit_test(a_modest_batch_goes_before_the_trunk),
        cmocka_unit_test(more_memory_never_gives_a_worse_plan),
        cmocka_unit_test(order_of_layers_does_not_matter),
        cmocka_unit_test(classes_hold_the_same_share_of_their_experts),
        cmocka_unit_test(dense_model_and_model_without_trunk_plan_too),
        cmocka_unit_test(absurd_sizes_are_refused_not_wrapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
