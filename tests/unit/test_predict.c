/* The comparison that decides whether guessing the next layer's experts pays. */
#include "model/predict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Microseconds of a token for each way of guessing. */
typedef uint64_t speeds[FM_GUESS_KINDS];

/* Feeds n tokens; returns how many were evaluated in this way. */
static int feed(fm_predict_trial *t, int n, const speeds us, fm_guess_kind kind)
{
    int n_kind = 0;
    for (int i = 0; i < n; i++) {
        n_kind += t->use == kind;
        /* every seventh token meets a slow read, whatever it does */
        fm_predict_trial_token(t, us[t->use] + (i % 7 == 3 ? 5000 : 0), true);
    }
    return n_kind;
}

static void fastest_way_stays(void **state)
{
    (void)state;
    static const speeds at_end = {1000, 900, 950}, early = {1000, 900, 800}, none = {900, 1000, 950};
    fm_predict_trial t;
    fm_predict_trial_init(&t, FM_PREFETCH_AUTO);
    assert_int_equal(t.use, FM_GUESS_EARLY);
    assert_int_equal(feed(&t, 40, early, FM_GUESS_AT_END), FM_PREDICT_TRIAL);
    assert_int_equal(feed(&t, 200, early, FM_GUESS_NONE), FM_PREDICT_TRIAL);
    assert_int_equal(t.decided, FM_GUESS_EARLY);
    assert_true(feed(&t, 1000, early, FM_GUESS_EARLY) >= 960);
    static const speeds near_tie = {990, 985, 1000};
    (void)feed(&t, 20000, near_tie, 0); /* no reason to change */
    assert_int_equal(t.decided, FM_GUESS_EARLY);
    (void)feed(&t, 20000, at_end, 0); /* something changed: later comparisons notice */
    assert_int_equal(t.decided, FM_GUESS_AT_END);
    assert_true(feed(&t, 1000, at_end, FM_GUESS_AT_END) >= 960);
    (void)feed(&t, 20000, none, 0);
    assert_int_equal(t.decided, FM_GUESS_NONE);
    assert_true(feed(&t, 1000, none, FM_GUESS_NONE) >= 960);
    (void)feed(&t, 20000, at_end, 0);
    assert_int_equal(t.decided, FM_GUESS_AT_END);
    static const speeds close = {990, 1000, 985};
    (void)feed(&t, 20000, close, 0); /* no reason to change */
    assert_int_equal(t.decided, FM_GUESS_AT_END);
}

/* Chance made the slower way win: the next comparison is with the one that lost. */
static void a_wrong_change_is_soon_undone(void **state)
{
    (void)state;
    static const speeds lucky = {1000, 800, 900}, usual = {1000, 950, 900};
    fm_predict_trial t;
    fm_predict_trial_init(&t, FM_PREFETCH_AUTO);
    (void)feed(&t, 2 + 2 * FM_PREDICT_TRIAL, lucky, 0);
    assert_int_equal(t.decided, FM_GUESS_AT_END);
    (void)feed(&t, t.n_wait + 2 * FM_PREDICT_TRIAL, usual, 0);
    assert_int_equal(t.decided, FM_GUESS_EARLY);
}

static void tokens_without_misses_say_nothing(void **state)
{
    (void)state;
    fm_predict_trial t;
    fm_predict_trial_init(&t, FM_PREFETCH_AUTO);
    const fm_predict_trial before = t;
    for (int i = 0; i < 500; i++) fm_predict_trial_token(&t, 1, false);
    assert_memory_equal(&t, &before, sizeof t);
}

static void forced_modes_keep_their_word(void **state)
{
    (void)state;
    static const speeds none_fastest = {10, 900, 1000}, none_slowest = {1000, 10, 20};
    fm_predict_trial t;
    fm_predict_trial_init(&t, FM_PREFETCH_ON); /* which way is still measured */
    assert_int_equal(feed(&t, 5000, none_fastest, FM_GUESS_NONE), 0);
    assert_int_equal(t.decided, FM_GUESS_AT_END);
    fm_predict_trial_init(&t, FM_PREFETCH_OFF);
    assert_int_equal(feed(&t, 500, none_slowest, FM_GUESS_NONE), 500);
}

/* Feeds n layers whose guesses are read, `read` experts each, of which `right` were asked for; returns how many guessed. */
static int feed_layers(fm_predict_passes *p, int n, uint64_t read, uint64_t right)
{
    int n_guess = 0;
    uint64_t reads = p->seen_reads, used = p->seen_used;
    for (int i = 0; i < n; i++) {
        if (!fm_predict_passes_pay(p, reads, used)) continue;
        n_guess++;
        reads += read;
        used += right;
    }
    return n_guess;
}

static void passes_that_guess_wrong_stop_for_a_while(void **state)
{
    (void)state;
    fm_predict_passes p;
    fm_predict_passes_init(&p, FM_PREFETCH_AUTO);
    assert_int_equal(feed_layers(&p, 5000, 10, 9), 5000);
    assert_int_equal(feed_layers(&p, 5000, 10, 6), 5000);
    /* What was right before is forgotten in a few dozen reads; then less and less is tried. */
    assert_in_range(feed_layers(&p, 100, 10, 1), 7, 40);
    assert_in_range(feed_layers(&p, 5000, 10, 1), 7, 70);
    assert_in_range(feed_layers(&p, 100000, 10, 1), 100, 300);
    /* Guesses that have become right are noticed. */
    (void)feed_layers(&p, 5000, 10, 9);
    assert_int_equal(feed_layers(&p, 1000, 10, 9), 1000);
    /* Few reads say nothing, and those of single tokens between two passes do not count. */
    fm_predict_passes_init(&p, FM_PREFETCH_AUTO);
    uint64_t reads = 0;
    for (int i = 0; i < 30; i++) {
        fm_predict_passes_begin(&p, reads, 0);
        assert_true(fm_predict_passes_pay(&p, reads, 0));
        assert_true(fm_predict_passes_pay(&p, reads + 2, 0));
        reads += 1000;
    }
    assert_false(fm_predict_passes_pay(&p, reads, 0)); /* no pass began */
}

static void passes_keep_forced_modes(void **state)
{
    (void)state;
    fm_predict_passes p;
    fm_predict_passes_init(&p, FM_PREFETCH_ON);
    assert_int_equal(feed_layers(&p, 1000, 10, 0), 1000);
    fm_predict_passes_init(&p, FM_PREFETCH_OFF);
    assert_int_equal(feed_layers(&p, 1000, 10, 10), 0);
}

/* Of 256 experts the first n_wanted are wanted equally by all tokens; 64 tokens choose 8 each. What the sample misses of
 * them is known here. */
static void the_estimate_of_unseen_experts_is_near_the_truth(void **state)
{
    (void)state;
    static const int32_t wanted[] = {256, 200, 120};
    uint32_t seed = 1;
    for (int i = 0; i < 3; i++) {
        int32_t sum = 0, unseen = 0;
        for (int round = 0; round < 50; round++) {
            int32_t count[256] = {0};
            for (int k = 0; k < 64 * 8; k++) {
                seed = seed * 1664525u + 1013904223u;
                count[(seed >> 8) % (uint32_t)wanted[i]]++;
            }
            for (int32_t e = 0; e < wanted[i]; e++) unseen += count[e] == 0;
            sum += fm_unseen_but_wanted(count, 256);
        }
        assert_in_range(sum, unseen / 2, unseen + unseen / 2);
    }
    const int32_t twice[4] = {2, 2, 2, 0}, once[8] = {1, 1, 1}, all_once[4] = {1, 1, 1, 1};
    assert_int_equal(fm_unseen_but_wanted(twice, 4), 0);
    assert_int_equal(fm_unseen_but_wanted(once, 8), 3);
    assert_int_equal(fm_unseen_but_wanted(all_once, 4), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_estimate_of_unseen_experts_is_near_the_truth),
        cmocka_unit_test(fastest_way_stays),
        cmocka_unit_test(a_wrong_change_is_soon_undone),
        cmocka_unit_test(tokens_without_misses_say_nothing),
        cmocka_unit_test(forced_modes_keep_their_word),
        cmocka_unit_test(passes_that_guess_wrong_stop_for_a_while),
        cmocka_unit_test(passes_keep_forced_modes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
