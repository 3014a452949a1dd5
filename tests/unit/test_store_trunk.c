/* The trunk: resident or streamed, in order or not, the right bytes; loading can be stopped and
 * fails with a reason. */
#include "test_store_model.h"

#include <errno.h>
#include <unistd.h>

static const char *const engines[] = {"uring", "pread", "mmap"};
enum { N_ENGINE = 3 };

static void check_unit(int32_t unit, uint8_t *const *ptr, uint8_t flip)
{
    for (int32_t i = 0; i < tm.unit[unit].n_piece; i++) {
        const fm_trunk_piece *p = &tm.piece[unit][i];
        const uint8_t *want = tm.content[p->tensor->file] + p->tensor->offset + p->offset;
        for (uint64_t k = 0; k < p->bytes; k++) {
            if (ptr[i][k] != (want[k] ^ flip)) fail();
        }
    }
}

static void pass_over(fm_store *s, uint8_t flip)
{
    for (int32_t u = 0; u < TM_UNITS; u++) {
        uint8_t *const *ptr;
        fm_error err;
        assert_int_equal(fm_trunk_acquire(s, u, &ptr, &err), FM_OK);
        check_unit(u, ptr, flip);
        fm_trunk_release(s, u);
    }
}

static void any_budget_gives_the_same_trunk(void **state)
{
    (void)state;
    const uint64_t least = tm_least_budget(), whole = tm_whole_budget();
    for (int e = 0; e < N_ENGINE; e++) {
        for (int step = 0; step <= 6; step++) {
            tm_store t;
            tm_open_loaded(&t, least + (whole - least) * (uint64_t)step / 40, engines[e], 3);
            if (step == 0) assert_true(t.plan.n_ring > 0);
            for (int pass = 0; pass < 4; pass++) pass_over(t.store, 0);
            fm_store_stats stats;
            fm_store_stats_get(t.store, &stats);
            if (t.plan.n_ring > 0) assert_true(stats.bytes_read > 0);
            else assert_int_equal(stats.bytes_read, 0);
            tm_close(&t);
        }
    }
}

typedef struct {
    int calls[TM_UNITS];
} prepare_record;

static void flip_bytes(void *user, int32_t unit, uint8_t **ptr)
{
    prepare_record *r = user;
    r->calls[unit]++;
    check_unit(unit, ptr, 0);
    for (int32_t i = 0; i < tm.unit[unit].n_piece; i++) {
        for (uint64_t k = 0; k < tm.piece[unit][i].bytes; k++) ptr[i][k] ^= 0x3c;
    }
}

static void prepare_runs_once_per_arrival(void **state)
{
    (void)state;
    for (int streamed = 0; streamed < 2; streamed++) {
        tm_store t;
        prepare_record r = {0};
        const uint64_t budget = streamed ? tm_least_budget() : tm_whole_budget();
        assert_int_equal(tm_open(&t, budget, "pread", 3, NULL), FM_OK);
        fm_store_set_trunk_prepare(t.store, flip_bytes, &r);
        assert_int_equal(fm_store_load_trunk(t.store, NULL, NULL, NULL), FM_OK);
        for (int pass = 0; pass < 3; pass++) pass_over(t.store, 0x3c);
        for (int32_t u = 0; u < TM_UNITS; u++) {
            assert_int_equal(r.calls[u], u < t.plan.n_resident_unit ? 1 : 3);
        }
        tm_close(&t);
    }
}

static void units_may_be_skipped_repeated_or_restarted(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_least_budget(), engines[e], 2);
        assert_true(fm_fault_set("read:slow:us=50"));
        for (int round = 0; round < 150; round++) {
            const int32_t unit = (int32_t)(tm_random() % TM_UNITS);
            uint8_t *const *ptr, *const *again, *const *next;
            assert_int_equal(fm_trunk_acquire(t.store, unit, &ptr, NULL), FM_OK);
            check_unit(unit, ptr, 0);
            if (tm_random() % 3 == 0) { /* held twice */
                assert_int_equal(fm_trunk_acquire(t.store, unit, &again, NULL), FM_OK);
                assert_ptr_equal(ptr, again);
                fm_trunk_release(t.store, unit);
            }
            if (tm_random() % 3 == 0) { /* two units at a time */
                const int32_t other = (unit + 1 + (int32_t)(tm_random() % 3)) % TM_UNITS;
                assert_int_equal(fm_trunk_acquire(t.store, other, &next, NULL), FM_OK);
                check_unit(other, next, 0);
                check_unit(unit, ptr, 0);
                fm_trunk_release(t.store, other);
            }
            check_unit(unit, ptr, 0);
            fm_trunk_release(t.store, unit);
        }
        fm_fault_set(NULL);
        pass_over(t.store, 0);
        tm_close(&t);
    }
}

static void holding_every_ring_buffer_is_refused_not_waited_for(void **state)
{
    (void)state;
    tm_store t;
    tm_open_loaded(&t, tm_least_budget(), "pread", 2);
    uint8_t *const *ptr;
    fm_error err;
    const int32_t first = t.plan.n_resident_unit, n_ring = t.plan.n_ring;
    for (int32_t i = 0; i < n_ring; i++) {
        assert_int_equal(fm_trunk_acquire(t.store, first + i, &ptr, &err), FM_OK);
    }
    assert_int_equal(fm_trunk_acquire(t.store, first + n_ring, &ptr, &err), FM_E_LIMIT);
    assert_null(ptr);
    for (int32_t i = 0; i < n_ring; i++) fm_trunk_release(t.store, first + i);
    assert_int_equal(fm_trunk_acquire(t.store, first + n_ring, &ptr, &err), FM_OK);
    check_unit(first + n_ring, ptr, 0);
    fm_trunk_release(t.store, first + n_ring);
    assert_int_equal(fm_trunk_acquire(t.store, TM_UNITS, &ptr, &err), FM_E_ARG);
    assert_int_equal(fm_trunk_acquire(t.store, -1, &ptr, &err), FM_E_ARG);
    tm_close(&t);
}

static void failed_read_of_a_streamed_unit_is_reported_and_can_be_repeated(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_least_budget(), engines[e], 2);
        pass_over(t.store, 0);
        assert_true(fm_fault_set("read:eio-forever,retry:us=0"));
        fm_error err = {0};
        uint8_t *const *ptr;
        fm_status st = FM_OK;
        int32_t failed = -1;
        for (int32_t u = 0; u < TM_UNITS && st == FM_OK; u++) { /* some are here already */
            st = fm_trunk_acquire(t.store, u, &ptr, &err);
            failed = u;
            if (st == FM_OK) fm_trunk_release(t.store, u);
        }
        assert_int_equal(st, FM_E_IO);
        assert_int_equal(err.os_errno, EIO);
        char unit[64]; /* and what was to be read */
        snprintf(unit, sizeof unit, "trunk unit %d (%s, ...)", failed,
                 tm.unit[failed].piece[0].tensor->name);
        assert_non_null(strstr(err.msg, unit));
        assert_int_equal(fm_trunk_acquire(t.store, failed, &ptr, &err), FM_E_IO);
        fm_fault_set(NULL);
        for (int32_t u = failed; u < TM_UNITS; u++) {
            assert_int_equal(fm_trunk_acquire(t.store, u, &ptr, &err), FM_OK);
            check_unit(u, ptr, 0);
            fm_trunk_release(t.store, u);
        }
        pass_over(t.store, 0);
        tm_close(&t);
    }
}

/* A unit read ahead at the end of a pass may fail long before anybody asks for it. */
static void read_ahead_that_failed_is_read_again_when_it_is_needed(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_least_budget(), engines[e], 2);
        const int32_t first = t.plan.n_resident_unit;
        assert_true(TM_UNITS - first > t.plan.n_ring);
        pass_over(t.store, 0);
        uint8_t *const *ptr;
        assert_int_equal(fm_trunk_acquire(t.store, first, &ptr, NULL), FM_OK);
        assert_true(fm_fault_set("read:eio-forever,retry:us=0"));
        fm_trunk_release(t.store, first); /* whose buffer is read into now */
        for (int i = 0; i < 1000 && fm_fault_reads() < 8; i++) {
            fm_store_poll(t.store);
            usleep(100);
        }
        assert_true(fm_fault_reads() > 0);
        fm_fault_set(NULL);
        for (int32_t u = first + 1; u < TM_UNITS; u++) {
            assert_int_equal(fm_trunk_acquire(t.store, u, &ptr, NULL), FM_OK);
            check_unit(u, ptr, 0);
            fm_trunk_release(t.store, u);
        }
        tm_close(&t);
    }
}

/* A guess queued behind a streamed unit would be waited for behind it. */
static void hints_wait_for_streamed_units(void **state)
{
    (void)state;
    tm_store t;
    tm_open_loaded(&t, tm_least_budget(), "pread", 2);
    pass_over(t.store, 0);
    const int32_t first = t.plan.n_resident_unit;
    uint8_t *const *ptr;
    assert_true(fm_fault_set("read:slow:us=3000"));
    assert_int_equal(fm_trunk_acquire(t.store, first, &ptr, NULL), FM_OK);
    fm_trunk_release(t.store, first);
    const int32_t hint[] = {1, 2};
    fm_store_hint(t.store, 1, hint, 2, FM_DEMAND_TOKEN);
    fm_store_stats stats;
    fm_store_poll(t.store);
    fm_store_stats_get(t.store, &stats);
    assert_int_equal(stats.prefetch_reads, 0);
    fm_fault_set(NULL);
    for (int i = 0; i < 10000 && stats.prefetch_reads == 0; i++) {
        fm_store_poll(t.store);
        fm_store_stats_get(t.store, &stats);
        usleep(100);
    }
    assert_int_equal(stats.prefetch_reads, 2);
    tm_close(&t);
}

static void trunk_and_experts_share_the_device(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        tm_open_loaded(&t, tm_least_budget(), engines[e], 3);
        for (int pass = 0; pass < 6; pass++) {
            for (int32_t u = 0; u < TM_UNITS; u++) {
                uint8_t *const *ptr;
                assert_int_equal(fm_trunk_acquire(t.store, u, &ptr, NULL), FM_OK);
                if (u < TM_LAYERS && tm.layer[u].n_expert >= 4) {
                    const int32_t hint[] = {pass, pass + 1};
                    if (u != 2) fm_store_hint(t.store, u, hint, 2, FM_DEMAND_TOKEN);
                    const int32_t ids[] = {pass + 1, pass + 9, pass + 4, pass};
                    assert_int_equal(
                        fm_store_demand(t.store, u, ids, NULL, 4, FM_DEMAND_TOKEN, NULL), FM_OK);
                    while (fm_lease_left(t.store) > 0) {
                        fm_expert_ref ref;
                        bool got;
                        assert_int_equal(fm_lease_next(t.store, &ref, true, &got, NULL), FM_OK);
                        assert_true(got);
                        assert_memory_equal(ref.part[0], tm_part(u, ref.expert, 0),
                                            tm.layer[u].part[0].bytes);
                        fm_lease_done(t.store, &ref);
                    }
                    fm_store_demand_end(t.store);
                }
                check_unit(u, ptr, 0);
                fm_trunk_release(t.store, u);
            }
        }
        tm_close(&t);
    }
}

typedef struct {
    uint64_t last, total;
    int n_call, stop_at;
} progress_record;

static bool note_progress(void *user, uint64_t done, uint64_t total)
{
    progress_record *r = user;
    assert_true(done >= r->last && done <= total);
    r->last = done;
    r->total = total;
    return ++r->n_call != r->stop_at;
}

static void loading_reports_progress_and_can_be_cancelled(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        for (int stop_at = 0; stop_at < 6; stop_at++) {
            tm_store t;
            fm_error err;
            progress_record r = {.stop_at = stop_at};
            assert_int_equal(tm_open(&t, tm_whole_budget(), engines[e], 2, &err), FM_OK);
            const fm_status st = fm_store_load_trunk(t.store, note_progress, &r, &err);
            uint8_t *const *ptr;
            if (stop_at == 0) {
                assert_int_equal(st, FM_OK);
                assert_int_equal(r.last, r.total);
                fm_store_stats stats;
                fm_store_stats_get(t.store, &stats);
                assert_true(stats.load_bytes >= r.total);
                assert_int_equal(stats.wait_us, 0);
                pass_over(t.store, 0);
            } else {
                assert_int_equal(st, FM_E_CANCELLED);
                assert_int_equal(fm_trunk_acquire(t.store, 0, &ptr, &err), FM_E_ARG);
                assert_int_equal(fm_store_load_trunk(t.store, NULL, NULL, &err), FM_OK);
                pass_over(t.store, 0);
            }
            tm_close(&t);
        }
    }
}

/* Not the whole trunk is waited for: what the device had not begun is not read. */
static void cancelled_load_reads_little_more(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        tm_store t;
        fm_error err;
        progress_record r = {.stop_at = 2};
        assert_int_equal(tm_open(&t, tm_whole_budget(), engines[e], 1, &err), FM_OK);
        assert_true(fm_fault_set("read:slow:us=1000"));
        assert_int_equal(fm_store_load_trunk(t.store, note_progress, &r, &err), FM_E_CANCELLED);
        const uint64_t n_read = fm_fault_reads();
        fm_fault_set(NULL);
        fm_fault_set("read:slow:us=0");
        assert_int_equal(fm_store_load_trunk(t.store, NULL, NULL, &err), FM_OK);
        assert_true(2 * n_read < fm_fault_reads());
        fm_fault_set(NULL);
        pass_over(t.store, 0);
        tm_close(&t);
    }
}

static void failed_load_names_the_file_and_may_be_repeated(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        for (int nth = 1; nth < 40; nth += 13) {
            tm_store t;
            fm_error err;
            char spec[64];
            assert_int_equal(tm_open(&t, tm_whole_budget(), engines[e], 2, &err), FM_OK);
            snprintf(spec, sizeof spec, "read:eio:nth=%d:sticky,retry:us=0", nth);
            assert_true(fm_fault_set(spec));
            assert_int_equal(fm_store_load_trunk(t.store, NULL, NULL, &err), FM_E_IO);
            assert_non_null(strstr(err.msg, "fm_store_"));
            assert_non_null(strstr(err.msg, "trunk unit "));
            fm_fault_set(NULL);
            assert_int_equal(fm_store_load_trunk(t.store, NULL, NULL, &err), FM_OK);
            pass_over(t.store, 0);
            tm_close(&t);
        }
    }
}

static void small_queue_is_enough_for_units_of_many_pieces(void **state)
{
    (void)state;
    tm_store t = {0};
    fm_plan_input in = tm_plan_input();
    in.budget_bytes = tm_least_budget();
    assert_int_equal(fm_plan_make(&t.plan, &in, NULL), FM_OK);
    const fm_io_options io = {
        .engine = "pread", .depth = 1, .capacity = 1, .split_bytes = TM_SPLIT};
    const fm_store_options opt = tm_options(&t, &io);
    assert_int_equal(fm_store_create(&t.store, &opt, NULL), FM_OK);
    assert_int_equal(fm_store_load_trunk(t.store, NULL, NULL, NULL), FM_OK);
    pass_over(t.store, 0);
    pass_over(t.store, 0);
    tm_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_budget_gives_the_same_trunk),
        cmocka_unit_test(prepare_runs_once_per_arrival),
        cmocka_unit_test(units_may_be_skipped_repeated_or_restarted),
        cmocka_unit_test(holding_every_ring_buffer_is_refused_not_waited_for),
        cmocka_unit_test(failed_read_of_a_streamed_unit_is_reported_and_can_be_repeated),
        cmocka_unit_test(read_ahead_that_failed_is_read_again_when_it_is_needed),
        cmocka_unit_test(hints_wait_for_streamed_units),
        cmocka_unit_test(trunk_and_experts_share_the_device),
        cmocka_unit_test(loading_reports_progress_and_can_be_cancelled),
        cmocka_unit_test(cancelled_load_reads_little_more),
        cmocka_unit_test(failed_load_names_the_file_and_may_be_repeated),
        cmocka_unit_test(small_queue_is_enough_for_units_of_many_pieces),
    };
    return cmocka_run_group_tests(tests, tm_setup, tm_teardown);
}
