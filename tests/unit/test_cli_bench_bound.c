/* The arithmetic behind the limits that bench prints, with numbers that can be checked by hand: memory
 * 10 GB/s, disk 1 GB/s, experts of 1 MB, so that computing one takes 0.1 ms and reading one 1 ms. */
#include "cli/bench_bound.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static uint64_t bins[FM_MISS_BINS];

static fm_bench_token a_token(void)
{
    memset(bins, 0, sizeof bins);
    return (fm_bench_token){.disk_gb_s = 1,
                            .memory_gb_s = 10,
                            .trunk_bytes = 30e6, /* 3 ms */
                            .shared_bytes = 10e6,
                            .expert_bytes = 1e6,
                            .n_layer = 10,
                            .n_expert_used = 8,
                            .layers_with_misses = bins};
}

static void near_ms(double seconds, double ms)
{
    if (fabs(seconds * 1e3 - ms) > 1e-9) fail_msg("%.9f ms, expected %.9f", seconds * 1e3, ms);
}

static void a_layer_waits_for_its_last_expert(void **state)
{
    (void)state;
    const fm_bench_token t = a_token();
    near_ms(fm_bench_layer_s(&t, 0), 0.9);  /* shared 0.1, eight experts 0.8                  */
    near_ms(fm_bench_layer_s(&t, 1), 1.1);  /* read 1, then compute it; all else was hidden   */
    near_ms(fm_bench_layer_s(&t, 8), 8.1);  /* eight reads, the last one computed afterwards  */
    near_ms(fm_bench_layer_s(&t, 30), 8.1); /* never more misses than experts                 */
}

static void a_fast_disk_leaves_the_computing(void **state)
{
    (void)state;
    fm_bench_token t = a_token();
    t.disk_gb_s = 20; /* 0.05 ms per expert, computing takes longer */
    near_ms(fm_bench_layer_s(&t, 1), 0.9);
    near_ms(fm_bench_layer_s(&t, 8), 0.9);
    t.shared_bytes = 0;
    near_ms(fm_bench_layer_s(&t, 8), 0.85); /* nothing to do until the first has landed */
}

static void in_memory_all_bounds_are_the_memory_term(void **state)
{
    (void)state;
    const fm_bench_token t = a_token();
    const fm_bench_bound b = fm_bench_bound_token(&t);
    near_ms(b.disk_s, 0);
    near_ms(b.memory_s, 11); /* 30 MB and 10 layers of 8 MB */
    near_ms(b.overlapped_s, 11);
    near_ms(b.dependent_s, 11);
}

static void the_context_adds_to_memory(void **state)
{
    (void)state;
    fm_bench_token t = a_token();
    t.context_bytes = 5e6; /* 0.5 ms, before the layers' experts */
    near_ms(fm_bench_bound_token(&t).memory_s, 11.5);
    bins[8] = 1;
    near_ms(fm_bench_bound_token(&t).dependent_s, 2.5 + 10 * 8.1);
}

static void layers_count_by_their_misses(void **state)
{
    (void)state;
    fm_bench_token t = a_token();
    bins[0] = 30; /* of 40 layers that were passed */
    bins[2] = 10;
    t.disk_bytes = 5e6; /* 10 layers of 0.5 misses each */
    const fm_bench_bound b = fm_bench_bound_token(&t);
    near_ms(b.disk_s, 5);
    near_ms(b.overlapped_s, 11);
    /* Trunk without shared experts 2 ms, then 10 layers of (3 * 0.9 + 2.1) / 4. */
    near_ms(b.dependent_s, 2 + 10 * 1.2);
}

static void bytes_without_misses_still_take_time(void **state)
{
    (void)state;
    fm_bench_token t = a_token();
    t.disk_bytes = 100e6; /* a streamed trunk, for instance */
    const fm_bench_bound b = fm_bench_bound_token(&t);
    near_ms(b.overlapped_s, 100);
    near_ms(b.dependent_s, 100);
}

static void no_expert_is_known_while_the_head_is_computed(void **state)
{
    (void)state;
    fm_bench_token t = a_token();
    t.head_bytes = 20e6;                                /* 2 ms                               */
    t.disk_bytes = 100e6;                               /* all of it read ahead               */
    near_ms(fm_bench_bound_token(&t).dependent_s, 100); /* streamed trunk is always known */
    t.disk_expert_bytes = 100e6;
    near_ms(fm_bench_bound_token(&t).overlapped_s, 100);
    near_ms(fm_bench_bound_token(&t).dependent_s, 102);
    t.disk_expert_bytes = 120e6; /* estimated from a mean size: never more than was read */
    near_ms(fm_bench_bound_token(&t).dependent_s, 102);
    t.disk_bytes = t.disk_expert_bytes = 0; /* in memory the head is part of the memory term */
    near_ms(fm_bench_bound_token(&t).dependent_s, 11);
}

static void what_was_not_measured_is_not_a_number(void **state)
{
    (void)state;
    fm_bench_token t = a_token();
    t.disk_gb_s = 0;
    near_ms(fm_bench_bound_token(&t).dependent_s, 11); /* nothing was read: no rate is needed */
    t.disk_bytes = 1e6;
    bins[1] = 1;
    const fm_bench_bound b = fm_bench_bound_token(&t);
    assert_true(isnan(b.disk_s));
    assert_true(isnan(b.overlapped_s));
    assert_true(isnan(b.dependent_s));
}

static void a_prompt_takes_the_longest_term(void **state)
{
    (void)state;
    near_ms(fm_bench_bound_prompt(2e6, 1, 10e6, 10, 0.0005).overlapped_s, 2);
    near_ms(fm_bench_bound_prompt(2e6, 1, 50e6, 10, 0.0005).overlapped_s, 5);
    near_ms(fm_bench_bound_prompt(2e6, 1, 50e6, 10, 0.007).overlapped_s, 7);
    near_ms(fm_bench_bound_prompt(2e6, 1, 50e6, 10, 0.007).dependent_s, 7);
}

static void a_probe_met_a_slow_moment_when_the_runs_got_more(void **state)
{
    (void)state;
    assert_true(fm_bench_probe_was_slow(1.0, 1.11));
    assert_false(fm_bench_probe_was_slow(1.0, 1.09));
    assert_false(fm_bench_probe_was_slow(1.0, 0.5));
    assert_false(fm_bench_probe_was_slow(0.0, 1.0)); /* no probe */
    assert_false(fm_bench_probe_was_slow(1.0, NAN)); /* no reads */
}

static void medians(void **state)
{
    (void)state;
    double one[] = {3}, three[] = {9, 1, 4}, four[] = {8, 1, 2, 4};
    assert_true(fm_bench_median(one, 1) == 3);
    assert_true(fm_bench_median(three, 3) == 4);
    assert_true(three[0] == 1 && three[2] == 9);
    assert_true(fm_bench_median(four, 4) == 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_layer_waits_for_its_last_expert),
        cmocka_unit_test(a_fast_disk_leaves_the_computing),
        cmocka_unit_test(in_memory_all_bounds_are_the_memory_term),
        cmocka_unit_test(the_context_adds_to_memory),
        cmocka_unit_test(layers_count_by_their_misses),
        cmocka_unit_test(bytes_without_misses_still_take_time),
        cmocka_unit_test(no_expert_is_known_while_the_head_is_computed),
        cmocka_unit_test(what_was_not_measured_is_not_a_number),
        cmocka_unit_test(a_prompt_takes_the_longest_term),
        cmocka_unit_test(a_probe_met_a_slow_moment_when_the_runs_got_more),
        cmocka_unit_test(medians),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
