/* The expert cache: whatever the budget, the engine and the order of calls, a demand hands out each
 * of its experts once, with that expert's bytes; and an error leaves a store that works. */
#include "test_store_model.h"

#include <errno.h>

#include "store/store_internal.h"

static const char *const engines[] = {"uring", "pread", "mmap"};
enum { N_ENGINE = 3 };

/* ---- borrowers --------------------------------------------------------------------------- */

/* A borrower's rearrangement: all bytes flipped, moved to the start of the room. */
static void rearrange(fm_store *s, int32_t layer, fm_expert_ref *ref)
{
    for (int32_t p = 0; p < tm.layer[layer].n_part; p++) {
        const size_t n = (size_t)tm.layer[layer].part[p].bytes;
        memmove(ref->part_base[p], ref->part[p], n);
        for (size_t i = 0; i < n; i++) ref->part_base[p][i] ^= 0xff;
        ref->part[p] = ref->part_base[p];
    }
    fm_lease_prepared(s, ref);
}

static void check_expert(const fm_expert_ref *ref, int32_t layer, const int32_t *ids)
{
    assert_int_equal(ref->expert, ids[ref->index]);
    for (int32_t p = 0; p < tm.layer[layer].n_part; p++) {
        const size_t n = (size_t)tm.layer[layer].part[p].bytes;
        const uint8_t *want = tm_part(layer, ref->expert, p);
        assert_int_equal((uintptr_t)ref->part_base[p] % FM_IO_ALIGN, 0);
        if (ref->fresh) {
            assert_memory_equal(ref->part[p], want, n);
            continue;
        }
        assert_ptr_equal(ref->part[p], ref->part_base[p]);
        for (size_t i = 0; i < n; i++) {
            if (ref->part[p][i] + want[i] != 0xff) fail();
        }
    }
}

/* Picks n distinct experts; ascending for batches. */
static void pick_ids(int32_t *ids, int32_t n, int32_t n_expert, bool ascending)
{
    int32_t all[TM_MAX_EXPERT];
    for (int32_t i = 0; i < n_expert; i++) all[i] = i;
    for (int32_t i = 0; i < n; i++) {
        const int32_t j = i + (int32_t)(tm_random() % (uint64_t)(n_expert - i));
        const int32_t t = all[i];
        all[i] = all[j];
        all[j] = t;
    }
    memcpy(ids, all, (size_t)n * sizeof *ids);
    for (int32_t i = 1; ascending && i < n; i++) {
        for (int32_t j = i; j > 0 && ids[j] < ids[j - 1]; j--) {
            const int32_t t = ids[j];
            ids[j] = ids[j - 1];
            ids[j - 1] = t;
        }
    }
}

typedef struct {
    int max_held;      /* loans kept at a time            */
    int rearrange_of8; /* of 8 fresh experts, rearranged  */
    bool polls;        /* now and then without waiting    */
} borrower;

/* Takes everything a demand gives; the status of the first failing call. */
static fm_status consume(fm_store *s, int32_t layer, const int32_t *ids, int32_t n,
                         const borrower *who, int32_t stop_after, fm_error *err)
{
    bool seen[TM_MAX_EXPERT] = {false};
    fm_expert_ref held[16];
    int n_held = 0;
    int32_t n_got = 0;
    while (fm_lease_left(s) > 0 && n_got < stop_after) {
        if (n_held == who->max_held) fm_lease_done(s, &held[--n_held]);
        bool got = false;
        const bool wait = !who->polls || tm_random() % 2;
        fm_expert_ref ref;
        const fm_status st = fm_lease_next(s, &ref, wait, &got, err);
        if (st != FM_OK) return st;
        if (!got) {
            if (wait) assert_true(n_held > 0); /* only because of our own loans */
            if (n_held > 0) fm_lease_done(s, &held[--n_held]);
            continue;
        }
        assert_in_range(ref.index, 0, n - 1);
        assert_false(seen[ref.index]);
        seen[ref.index] = true;
        check_expert(&ref, layer, ids);
        if (ref.fresh && tm_random() % 8 < (uint64_t)who->rearrange_of8) rearrange(s, layer, &ref);
        held[n_held++] = ref;
        n_got++;
        assert_int_equal(fm_lease_left(s), n - n_got);
    }
    for (int i = 0; i < n_held; i++) { /* what was lent is still intact */
        if (tm_random() % 2) fm_lease_done(s, &held[i]);
    }
    return FM_OK;
}

static int32_t random_layer(void)
{
    static const int32_t layers[] = {0, 1, 3, 4, 5};
    return layers[tm_random() % 5];
}

static fm_status random_demand(fm_store *s, const borrower *who, bool may_stop, fm_error *err)
{
    const int32_t layer = random_layer(), n_expert = tm.layer[layer].n_expert;
    const bool batch = tm_random() % 3 == 0;
    int32_t n = batch ? n_expert : 1 + (int32_t)(tm_random() % 8);
    if (n > n_expert || tm_random() % 20 == 0)
        n = (int32_t)(tm_random() % (uint64_t)(n_expert + 1));
    int32_t ids[TM_MAX_EXPERT], weight[TM_MAX_EXPERT];
    pick_ids(ids, n, n_expert, batch);
    for (int32_t i = 0; i < n; i++) weight[i] = 1 + (int32_t)(tm_random() % 30);
    if (tm_random() % 4 == 0) {
        int32_t likely[6];
        const int32_t hint_layer = random_layer();
        const int32_t n_likely = tm.layer[hint_layer].n_expert < 6 ? 1 : 6;
        pick_ids(likely, n_likely, tm.layer[hint_layer].n_expert, false);
        fm_store_hint(s, hint_layer, likely, n_likely,
                      tm_random() % 2 ? FM_DEMAND_TOKEN : FM_DEMAND_BATCH);
    }
    fm_status st = fm_store_demand(s, layer, ids, tm_random() % 3 ? weight : NULL, n,
                                   batch ? FM_DEMAND_BATCH : FM_DEMAND_TOKEN, err);
    assert_int_equal(st, FM_OK);
    const int32_t stop_after = may_stop && tm_random() % 5 == 0 ? n / 2 : n;
    st = consume(s, layer, ids, n, who, stop_after, err);
    fm_store_demand_end(s);
    return st;
}

/* ---- tests ------------------------------------------------------------------------------- */

static void random_demands_return_the_right_bytes_at_any_budget(void **state)
{
    (void)state;
    const uint64_t least = tm_least_budget(), whole = tm_whole_budget();
    for (int e = 0; e < N_ENGINE; e++) {
        for (int step = 0; step <= 4; step++) {
            tm_store t;
            const uint64_t budget = least + (whole - least) * (uint64_t)step / 4;
            tm_open_loaded(&t, budget, engines[e], 1 + step * 3);
            const borrower who = {
                .max_held = 1 + step * 2, .rearrange_of8 = step * 2, .polls = step % 2};
            fm_error err;
            /* some runs with a device that takes its time */
            assert_true(fm_fault_set(step == 1 ? "read:slow:us=50" : NULL));
            for (int round = 0; round < 60; round++) {
                assert_int_equal(random_demand(t.store, &who, true, &err), FM_OK);
            }
            fm_store_stats stats;
            fm_store_stats_get(t.store, &stats);
            assert_true(stats.misses > 0 && stats.hits > 0);
            assert_true(stats.bytes_read > 0);
            fm_fault_set(NULL);
            tm_close(&t);
        }
    }
}

static void whole_layer_streams_through_two_slots(void **state)
{
    (void)state;
    tm_store t;
    tm_open_loaded(&t, tm_least_budget(), "uring", 4);
    for (int c = 0; c < t.plan.n_class; c++) assert_in_range(t.plan.slot_class[c].n_slot, 1, 2);
    int32_t ids[TM_MAX_EXPERT];
    pick_ids(ids, TM_MAX_EXPERT, TM_MAX_EXPERT, true);
    for (int kind = 0; kind < 2; kind++) {
        for (int max_held = 1; max_held <= 2; max_held++) {
            const borrower who = {.max_held = max_held};
            assert_int_equal(fm_store_demand(t.store, 5, ids, NULL, TM_MAX_EXPERT,
                                             kind ? FM_DEMAND_BATCH : FM_DEMAND_TOKEN, NULL),
                             FM_OK);
            assert_int_equal(consume(t.store, 5, ids, TM_MAX_EXPERT, &who, TM_MAX_EXPERT, NULL),
                             FM_OK);
            assert_int_equal(fm_lease_left(t.store), 0);
            fm_store_demand_end(t.store);
            assert_false(fm_store_holds_layer(t.store, 5));
        }
    }
    tm_close(&t);
}

static void all_slots_on_loan_is_said_not_waited_for(void **state)
{
    (void)state;
    tm_store t;
    tm_open_loaded(&t, tm_least_budget(), "pread", 4);
    const int32_t ids[] = {7, 3, 9};
    assert_int_equal(fm_store_demand(t.store, 5, ids, NULL, 3, FM_DEMAND_TOKEN, NULL), FM_OK);
    fm_expert_ref a, b, c;
    bool got;
    assert_int_equal(fm_lease_next(t.store, &a, true, &got, NULL), FM_OK);
    assert_true(got);
    assert_int_equal(fm_lease_next(t.store, &b, true, &got, NULL), FM_OK);
    assert_true(got);
    assert_int_equal(fm_lease_next(t.store, &c, true, &got, NULL), FM_OK);
    assert_false(got);
    assert_int_equal(fm_lease_left(t.store), 1);
    check_expert(&a, 5, ids); /* loans stay whole meanwhile */
    check_expert(&b, 5, ids);
    fm_lease_done(t.store, &a);
    assert_int_equal(fm_lease_next(t.store, &c, true, &got, NULL), FM_OK);
    assert_true(got);
    check_expert(&b, 5, ids);
    check_expert(&c, 5, ids);
    assert_int_equal(fm_lease_next(t.store, &a, true, &got, NULL), FM_OK); /* all handed out */
    assert_false(got);
    fm_store_demand_end(t.store);
    tm_close(&t);
}

static void with_room_for_all_everything_is_read_once(void **state)
{
    (void)state;
    tm_store t;
    tm_open_loaded(&t, tm_whole_budget(), "uring", 8);
    fm_store_stats first, later;
    for (int pass = 0; pass < 3; pass++) {
        for (int32_t layer = 0; layer < TM_LAYERS; layer++) {
            int32_t ids[TM_MAX_EXPERT];
            const int32_t n = tm.layer[layer].n_expert;
            if (n == 0) continue;
            pick_ids(ids, n, n, true);
            const borrower who = {.max_held = 3, .rearrange_of8 = 4};
            assert_int_equal(fm_store_holds_layer(t.store, layer), pass > 0);
            assert_int_equal(fm_store_demand(t.store, layer, ids, NULL, n, FM_DEMAND_BATCH, NULL),
                             FM_OK);
            assert_int_equal(consume(t.store, layer, ids, n, &who, n, NULL), FM_OK);
            fm_store_demand_end(t.store);
        }
        fm_store_stats_get(t.store, pass == 0 ? &first : &later);
    }
    assert_int_equal(first.misses, t.plan.report.experts_total);
    assert_int_equal(later.misses, first.misses);
    assert_int_equal(later.bytes_read, first.bytes_read);
    assert_int_equal(later.hits, 2 * first.misses);
    tm_close(&t);
}

static void cached_experts_come_first_and_are_not_evicted_meanwhile(void **state)
{
    (void)state;
    tm_store t;
    /* slots for some of layer 5, fewer than the second demand's experts */
    tm_open_loaded(&t, tm_least_budget() + 3 * 1024 * 1024, "pread", 2);
    const borrower who = {.max_held = 1};
    int32_t ids[TM_MAX_EXPERT];
    for (int round = 0; round < 30; round++) {
        int32_t warm[4];
        pick_ids(warm, 4, TM_MAX_EXPERT, false);
        assert_int_equal(fm_store_demand(t.store, 5, warm, NULL, 4, FM_DEMAND_TOKEN, NULL), FM_OK);
        assert_int_equal(consume(t.store, 5, warm, 4, &who, 4, NULL), FM_OK);
        fm_store_demand_end(t.store);

        pick_ids(ids, TM_MAX_EXPERT, TM_MAX_EXPERT, true);
        fm_store_stats before, after;
        fm_store_stats_get(t.store, &before);
        assert_int_equal(
            fm_store_demand(t.store, 5, ids, NULL, TM_MAX_EXPERT, FM_DEMAND_BATCH, NULL), FM_OK);
        fm_store_stats_get(t.store, &after);
        const uint64_t n_hit = after.hits - before.hits;
        assert_true(n_hit >= 4);
        uint64_t n_seen = 0;
        for (int i = 0; i < TM_MAX_EXPERT; i++) {
            fm_expert_ref ref;
            bool got;
            assert_int_equal(fm_lease_next(t.store, &ref, true, &got, NULL), FM_OK);
            assert_true(got);
            check_expert(&ref, 5, ids);
            for (int w = 0; w < 4; w++) {
                if (ref.expert != warm[w]) continue;
                assert_true((uint64_t)i < n_hit);
                n_seen++;
            }
            fm_lease_done(t.store, &ref);
        }
        assert_int_equal(n_seen, 4);
        fm_store_demand_end(t.store);
    }
    tm_close(&t);
}

static void failed_read_fails_the_demand_and_the_next_one_works(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_least_budget() + 1024 * 1024, engines[e], 3);
        const borrower who = {.max_held = 2};
        int32_t ids[TM_MAX_EXPERT];
        pick_ids(ids, TM_MAX_EXPERT, TM_MAX_EXPERT, false);
        for (int nth = 1; nth < 60; nth += 7) {
            char spec[64];
            snprintf(spec, sizeof spec, "read:eio:nth=%d:sticky,retry:us=0", nth);
            assert_true(fm_fault_set(spec));
            fm_error err;
            memset(&err, 0, sizeof err);
            assert_int_equal(
                fm_store_demand(t.store, 1, ids, NULL, TM_MAX_EXPERT, FM_DEMAND_TOKEN, &err),
                FM_OK);
            const fm_status st = consume(t.store, 1, ids, TM_MAX_EXPERT, &who, TM_MAX_EXPERT, &err);
            fm_store_demand_end(t.store);
            assert_int_equal(st, FM_E_IO);
            assert_int_equal(err.os_errno, EIO);
            assert_non_null(strstr(err.msg, "layer 1, expert"));
            assert_non_null(strstr(err.msg, "fm_store_"));
            fm_fault_set(NULL);
            assert_int_equal(fm_lease_left(t.store), 0);
            assert_int_equal(
                fm_store_demand(t.store, 1, ids, NULL, TM_MAX_EXPERT, FM_DEMAND_TOKEN, &err),
                FM_OK);
            assert_int_equal(consume(t.store, 1, ids, TM_MAX_EXPERT, &who, TM_MAX_EXPERT, &err),
                             FM_OK);
            fm_store_demand_end(t.store);
            /* leave other experts in the cache for the next round */
            int32_t other[TM_MAX_EXPERT];
            pick_ids(other, 32, 32, false);
            assert_int_equal(fm_store_demand(t.store, 0, other, NULL, 32, FM_DEMAND_TOKEN, &err),
                             FM_OK);
            assert_int_equal(consume(t.store, 0, other, 32, &who, 32, &err), FM_OK);
            fm_store_demand_end(t.store);
        }
        tm_close(&t);
    }
}

static void random_faults_never_give_wrong_bytes(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_least_budget() + 2 * 1024 * 1024, engines[e], 4);
        const borrower who = {.max_held = 3, .rearrange_of8 = 3, .polls = true};
        int n_failed = 0;
        for (int round = 0; round < 150; round++) {
            char spec[128];
            snprintf(spec, sizeof spec,
                     "read:eio:nth=%d:sticky,read:short:every=7,read:eof:nth=%d:times=1,retry:us=0",
                     1 + (int)(tm_random() % 40), 1 + (int)(tm_random() % 60));
            assert_true(fm_fault_set(spec));
            fm_error err;
            const fm_status st = random_demand(t.store, &who, true, &err);
            if (st != FM_OK) n_failed++;
            assert_true(st == FM_OK || st == FM_E_IO || st == FM_E_FORMAT);
        }
        fm_fault_set(NULL);
        assert_true(n_failed > 0);
        fm_error err;
        for (int round = 0; round < 30; round++) {
            assert_int_equal(random_demand(t.store, &who, false, &err), FM_OK);
        }
        tm_close(&t);
    }
}

static void hinted_experts_are_hits_and_wrong_hints_do_no_harm(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_least_budget() + 4 * 1024 * 1024, engines[e], 4);
        const int32_t likely[] = {5, 6, 40, 41};
        const int32_t ids[] = {41, 2, 5, 6};
        const borrower who = {.max_held = 1};
        fm_store_hint(t.store, 1, likely, 4, FM_DEMAND_TOKEN);
        for (int i = 0; i < 1000; i++) { /* the compute in between */
            fm_store_poll(t.store);
            usleep(100);
            fm_store_stats st;
            fm_store_stats_get(t.store, &st);
            if (st.prefetch_reads == 4 && i > 20) break;
        }
        assert_int_equal(fm_store_demand(t.store, 1, ids, NULL, 4, FM_DEMAND_TOKEN, NULL), FM_OK);
        assert_int_equal(consume(t.store, 1, ids, 4, &who, 4, NULL), FM_OK);
        fm_store_demand_end(t.store);
        fm_store_stats st;
        fm_store_stats_get(t.store, &st);
        assert_int_equal(st.prefetch_reads, 4);
        assert_int_equal(st.prefetch_used, 3);
        assert_int_equal(st.hits, 0);
        assert_int_equal(st.misses, 1);

        /* A hint whose demand comes at once is not waited for, whatever its state. */
        for (int round = 0; round < 40; round++) {
            int32_t guess[8], real[8];
            pick_ids(guess, 8, 48, false);
            pick_ids(real, 8, 48, false);
            fm_store_hint(t.store, 1, guess, 8, FM_DEMAND_TOKEN);
            assert_int_equal(fm_store_demand(t.store, 1, real, NULL, 8, FM_DEMAND_TOKEN, NULL),
                             FM_OK);
            fm_store_hint(t.store, 3, guess, 2, FM_DEMAND_TOKEN); /* during a demand */
            assert_int_equal(consume(t.store, 1, real, 8, &who, 8, NULL), FM_OK);
            fm_store_demand_end(t.store);
        }
        /* A hint that cannot be read is silent; the demand that needs it says so. */
        assert_true(fm_fault_set("read:eio-forever,retry:us=0"));
        int32_t bad[2] = {0, 1};
        fm_store_hint(t.store, 4, bad, 1, FM_DEMAND_TOKEN);
        fm_store_hint(t.store, 99, bad, 1, FM_DEMAND_TOKEN);
        fm_store_hint(t.store, -1, bad, 1, FM_DEMAND_TOKEN);
        fm_store_hint(t.store, 2, bad, 2, FM_DEMAND_TOKEN);
        for (int i = 0; i < 20; i++) fm_store_poll(t.store);
        fm_fault_set(NULL);
        assert_int_equal(fm_store_demand(t.store, 4, bad, NULL, 1, FM_DEMAND_TOKEN, NULL), FM_OK);
        assert_int_equal(consume(t.store, 4, bad, 1, &who, 1, NULL), FM_OK);
        fm_store_demand_end(t.store);
        tm_close(&t);
    }
}

static void hints_wait_until_one_tokens_experts_have_arrived(void **state)
{
    (void)state;
    enum { N = 6 };
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_least_budget() + 4 * 1024 * 1024, engines[e], 4);
        const int32_t ids[N] = {1, 2, 3, 20, 30, 47}, likely[] = {7, 8};
        assert_int_equal(fm_store_demand(t.store, 1, ids, NULL, N, FM_DEMAND_TOKEN, NULL), FM_OK);
        fm_store_hint(t.store, 3, likely, 2, FM_DEMAND_TOKEN);
        fm_store_stats st = {0};
        for (int i = 0; i < 50000 && st.prefetch_reads == 0; i++) {
            if (i > 0) usleep(100);
            fm_store_poll(t.store);
            fm_store_stats_get(t.store, &st);
            assert_true(st.prefetch_reads == 0 || fm_lease_ready(t.store) == N);
        }
        assert_true(st.prefetch_reads > 0); /* while the demand is still open */
        const borrower who = {.max_held = 1};
        assert_int_equal(consume(t.store, 1, ids, N, &who, N, NULL), FM_OK);
        fm_store_demand_end(t.store);
        for (int i = 0; i < 50000 && st.prefetch_reads < 2; i++) {
            usleep(100);
            fm_store_poll(t.store);
            fm_store_stats_get(t.store, &st);
        }
        assert_int_equal(fm_store_demand(t.store, 3, likely, NULL, 2, FM_DEMAND_TOKEN, NULL),
                         FM_OK);
        assert_int_equal(consume(t.store, 3, likely, 2, &who, 2, NULL), FM_OK);
        fm_store_demand_end(t.store);
        fm_store_stats_get(t.store, &st);
        assert_int_equal(st.prefetch_used, 2);
        tm_close(&t);
    }
}

/* One token's use of two experts of layer 5. */
static void use_two(fm_store *s, int32_t a, int32_t b)
{
    const borrower who = {.max_held = 1};
    const int32_t ids[] = {a, b};
    assert_int_equal(fm_store_demand(s, 5, ids, NULL, 2, FM_DEMAND_TOKEN, NULL), FM_OK);
    assert_int_equal(consume(s, 5, ids, 2, &who, 2, NULL), FM_OK);
    fm_store_demand_end(s);
}

static void hints_are_read_into_a_full_cache_and_spare_what_is_hot(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_least_budget() + 1536 * 1024, engines[e], 4);
        /* 0 is used by every token, the others once each: they fill every slot and more. */
        for (int32_t id = 1; id < 48; id++) use_two(t.store, 0, id);
        fm_store_stats before, after;
        fm_store_stats_get(t.store, &before);
        for (int32_t id = 1; id < 5; id++) use_two(t.store, 0, id);
        fm_store_stats_get(t.store, &after);
        assert_int_equal(after.misses - before.misses, 4); /* long gone: no slot is free */
        assert_int_equal(after.hits - before.hits, 4);

        const int32_t likely[] = {10, 11};
        fm_store_hint(t.store, 5, likely, 2, FM_DEMAND_TOKEN);
        for (int i = 0; i < 5000; i++) {
            fm_store_poll(t.store);
            fm_store_stats_get(t.store, &before);
            if (before.prefetch_reads == 2) break;
            usleep(100);
        }
        assert_int_equal(before.prefetch_reads, 2);
        for (int i = 0; i < 50; i++) { /* until they have landed */
            fm_store_poll(t.store);
            usleep(200);
        }
        use_two(t.store, 10, 11);
        use_two(t.store, 0, 10);
        fm_store_stats_get(t.store, &after);
        assert_int_equal(after.prefetch_used, 2);
        assert_int_equal(after.misses, before.misses);
        assert_int_equal(after.hits - before.hits, 2); /* 0 was not evicted for them */
        tm_close(&t);
    }
}

/* Nothing of the slots counts as touched until the gate is opened, the first ones have no privilege, and
 * nothing is touched ahead of what is wanted. */
static fm_populate *hold_growth(fm_store *s, void *gate_page)
{
    const fm_populate_options closed = {.base = gate_page, .bytes = FM_STORE_PAGE};
    fm_populate *gate = fm_populate_start(&closed);
    for (int32_t c = 0; gate && c < s->n_class; c++) {
        fm_slot_class *cls = &s->slot_class[c];
        fm_populate_stop(cls->populate);
        const fm_populate_options held = {
            .base = cls->base, .bytes = cls->bytes, .after = gate};
        cls->populate = fm_populate_start(&held);
        assert_non_null(cls->populate);
        cls->n_untouched = 0;
    }
    return gate;
}

static void untouched_memory_waits_while_experts_can_give_way(void **state)
{
    (void)state;
    const borrower who = {.max_held = 1};
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_whole_budget(), engines[e], 4);
        void *page = aligned_alloc(FM_STORE_PAGE, FM_STORE_PAGE);
        fm_populate *gate = hold_growth(t.store, page);
        if (!gate) skip(); /* a system without a way to touch memory */
        fm_store_stats st;

        /* The first expert has nobody to replace, a demand pins what it has, and the next one replaces. */
        use_two(t.store, 0, 1);
        fm_store_stats_get(t.store, &st);
        assert_in_range(st.evicted_early, 0, 1); /* the second, if the first was given back by then */
        const uint64_t first = st.evicted_early;
        use_two(t.store, 2, 3);
        fm_store_stats_get(t.store, &st);
        assert_int_equal(st.evicted_early, first + 2);

        /* What gave way early and has not come back is wanted: not more for the same few experts again and again. */
        const fm_slot_class *cls = &t.store->slot_class[t.store->layer_class[5]];
        for (int32_t i = 0; i < 100; i++) use_two(t.store, i % 2 * 2, i % 2 * 2 + 1);
        fm_store_stats_get(t.store, &st);
        assert_true(st.evicted_early - first > 48);
        assert_int_equal(st.growing_bytes, 0);
        for (int32_t id = 4; id < 48; id += 2) use_two(t.store, id, id + 1);
        fm_store_stats_get(t.store, &st);
        assert_int_equal(st.growing_bytes, cls->bytes);

        /* A guess takes no untouched slot, and nothing that is worth more. */
        for (int i = 0; i < 40; i++) use_two(t.store, 0, 1);
        fm_store_stats before;
        fm_store_stats_get(t.store, &before);
        const int32_t likely[] = {2, 3};
        fm_store_hint(t.store, 3, likely, 2, FM_DEMAND_TOKEN);
        for (int i = 0; i < 20; i++) fm_store_poll(t.store);
        fm_store_stats_get(t.store, &st);
        const int n_free_taken = (int)(st.prefetch_reads - before.prefetch_reads) -
                                 (int)(st.evicted_early - before.evicted_early);
        assert_int_equal(n_free_taken, 0);

        /* All experts of a layer at once, each with its bytes. */
        int32_t all[48];
        for (int32_t i = 0; i < 48; i++) all[i] = i;
        assert_int_equal(fm_store_demand(t.store, 5, all, NULL, 48, FM_DEMAND_BATCH, NULL), FM_OK);
        assert_int_equal(consume(t.store, 5, all, 48, &who, 48, NULL), FM_OK);
        fm_store_demand_end(t.store);

        for (int i = 0; i < 2000 && !fm_populate_is_done(gate); i++) {
            fm_populate_need(gate, FM_STORE_PAGE);
            usleep(1000);
        }
        for (int i = 0; i < 2000 && !fm_populate_is_done(cls->populate); i++) usleep(1000);
        fm_store_stats_get(t.store, &before);
        assert_int_equal(before.growing_bytes, 0);
        for (int32_t id = 0; id < 48; id += 2) use_two(t.store, id, id + 1);
        for (int32_t id = 0; id < 48; id += 2) use_two(t.store, id, id + 1);
        fm_store_stats_get(t.store, &st);
        assert_int_equal(st.evicted_early, before.evicted_early); /* everything fits now */
        assert_true(st.hits - before.hits >= 48);
        for (int32_t c = 0; c < t.store->n_class; c++) { /* before the gate, which they wait for */
            fm_populate_stop(t.store->slot_class[c].populate);
            t.store->slot_class[c].populate = NULL;
        }
        fm_populate_stop(gate);
        free(page);
        tm_close(&t);
    }
}

static void failed_read_of_a_hint_is_read_again_by_the_demand(void **state)
{
    (void)state;
    const borrower who = {.max_held = 1};
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_whole_budget(), engines[e], 4);
        for (int32_t id = 0; id < 20; id++) {
            /* as often as the engine tries, at the hint's read */
            assert_true(fm_fault_set("read:slow:us=200,read:eio:nth=1:times=3,retry:us=0"));
            const int32_t ids[] = {id, id + 20};
            fm_error err;
            fm_store_hint(t.store, 5, ids, 1, FM_DEMAND_TOKEN);
            fm_store_poll(t.store); /* its read begins */
            for (int32_t i = 0; i < id % 4; i++) fm_store_poll(t.store);
            assert_int_equal(fm_store_demand(t.store, 5, ids, NULL, 2, FM_DEMAND_TOKEN, &err),
                             FM_OK);
            assert_int_equal(consume(t.store, 5, ids, 2, &who, 2, &err), FM_OK);
            fm_store_demand_end(t.store);
        }
        fm_fault_set(NULL);
        tm_close(&t);
    }
}

static void malformed_demands_are_refused(void **state)
{
    (void)state;
    tm_store t;
    tm_open_loaded(&t, tm_whole_budget(), "pread", 2);
    fm_error err;
    const int32_t twice[] = {1, 2, 1}, out[] = {1, 48}, minus[] = {-1}, fine[] = {1, 2};
    assert_int_equal(fm_store_demand(t.store, 6, fine, NULL, 2, FM_DEMAND_TOKEN, &err), FM_E_ARG);
    assert_int_equal(fm_store_demand(t.store, -1, fine, NULL, 2, FM_DEMAND_TOKEN, &err), FM_E_ARG);
    assert_int_equal(fm_store_demand(t.store, 2, fine, NULL, 1, FM_DEMAND_TOKEN, &err), FM_E_ARG);
    assert_int_equal(fm_store_demand(t.store, 1, out, NULL, 2, FM_DEMAND_TOKEN, &err), FM_E_ARG);
    assert_int_equal(fm_store_demand(t.store, 1, minus, NULL, 1, FM_DEMAND_TOKEN, &err), FM_E_ARG);
    const borrower who = {.max_held = 1};
    assert_int_equal(fm_store_demand(t.store, 1, fine, NULL, 2, FM_DEMAND_TOKEN, &err), FM_OK);
    assert_int_equal(fm_store_demand(t.store, 1, fine, NULL, 2, FM_DEMAND_TOKEN, &err), FM_E_ARG);
    assert_int_equal(consume(t.store, 1, fine, 2, &who, 2, &err), FM_OK);
    fm_store_demand_end(t.store);
    assert_int_equal(fm_store_demand(t.store, 1, twice, NULL, 3, FM_DEMAND_TOKEN, &err), FM_E_ARG);
    const int32_t new_twice[] = {11, 12, 11};
    assert_int_equal(fm_store_demand(t.store, 1, new_twice, NULL, 3, FM_DEMAND_TOKEN, &err),
                     FM_E_ARG);
    fm_store_demand_end(t.store); /* with none under way: nothing */
    assert_int_equal(fm_store_demand(t.store, 1, new_twice, NULL, 2, FM_DEMAND_TOKEN, &err), FM_OK);
    assert_int_equal(consume(t.store, 1, new_twice, 2, &who, 2, &err), FM_OK);
    fm_store_demand_end(t.store);
    tm_close(&t);
}

static void every_allocation_of_creation_may_fail(void **state)
{
    (void)state;
    int n_failed = 0;
    for (int nth = 1; nth < 20; nth++) {
        char spec[32];
        snprintf(spec, sizeof spec, "alloc:nth=%d", nth);
        assert_true(fm_fault_set(spec));
        tm_store t;
        fm_error err;
        const fm_status st = tm_open(&t, tm_least_budget(), "pread", 2, &err);
        fm_fault_set(NULL);
        if (st != FM_OK) {
            assert_int_equal(st, FM_E_NOMEM);
            assert_null(t.store);
            n_failed++;
        }
        tm_close(&t);
    }
    assert_in_range(n_failed, 3, 18);
}

static void store_refuses_what_does_not_match(void **state)
{
    (void)state;
    tm_store t;
    fm_error err;
    const uint64_t budget = tm_least_budget();
    assert_int_equal(tm_open(&t, budget, "pread", 2, &err), FM_OK);
    tm_close(&t);
    const fm_io_options io = {.engine = "pread"};
    fm_store_options opt = tm_options(&t, &io);
    fm_store *s;

    fm_expert_layer layers[TM_LAYERS];
    memcpy(layers, tm.layer, sizeof layers);
    opt.layer = layers;
    layers[1].part[0].offset = TM_FILE_BYTES - 100; /* beyond the file */
    assert_int_equal(fm_store_create(&s, &opt, &err), FM_E_ARG);
    layers[1] = tm.layer[1];
    layers[1].part[0].stride = UINT64_MAX / 3;
    assert_int_equal(fm_store_create(&s, &opt, &err), FM_E_ARG);
    layers[1] = tm.layer[1];
    layers[1].part[0].file = 2;
    assert_int_equal(fm_store_create(&s, &opt, &err), FM_E_ARG);
    layers[1] = tm.layer[1];
    layers[0].n_expert = 3; /* another model than the plan's */
    assert_int_equal(fm_store_create(&s, &opt, &err), FM_E_ARG);
    layers[0] = tm.layer[0];
    opt.n_unit--;
    assert_int_not_equal(fm_store_create(&s, &opt, &err), FM_OK);
    assert_null(s);
    opt.n_unit++;
    assert_int_equal(truncate(tm.path[1], TM_FILE_BYTES - 1), 0);
    assert_int_equal(fm_store_create(&s, &opt, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, tm.path[1]));
    tm_write_file(1);
    fm_store_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_demands_return_the_right_bytes_at_any_budget),
        cmocka_unit_test(whole_layer_streams_through_two_slots),
        cmocka_unit_test(all_slots_on_loan_is_said_not_waited_for),
        cmocka_unit_test(with_room_for_all_everything_is_read_once),
        cmocka_unit_test(cached_experts_come_first_and_are_not_evicted_meanwhile),
        cmocka_unit_test(failed_read_fails_the_demand_and_the_next_one_works),
        cmocka_unit_test(random_faults_never_give_wrong_bytes),
        cmocka_unit_test(hinted_experts_are_hits_and_wrong_hints_do_no_harm),
        cmocka_unit_test(hints_wait_until_one_tokens_experts_have_arrived),
        cmocka_unit_test(hints_are_read_into_a_full_cache_and_spare_what_is_hot),
        cmocka_unit_test(untouched_memory_waits_while_experts_can_give_way),
        cmocka_unit_test(failed_read_of_a_hint_is_read_again_by_the_demand),
        cmocka_unit_test(malformed_demands_are_refused),
        cmocka_unit_test(every_allocation_of_creation_may_fail),
        cmocka_unit_test(store_refuses_what_does_not_match),
    };
    return cmocka_run_group_tests(tests, tm_setup, tm_teardown);
}
