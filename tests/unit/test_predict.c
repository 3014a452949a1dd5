/* The comparison that decides whether guessing the next layer's experts pays. */
#include "model/predict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Feeds n tokens that take on_us with guesses and off_us without; returns how many had guesses. */
static int feed(fm_predict_trial *t, int n, uint64_t on_us, uint64_t off_us)
{
    int n_on = 0;
    for (int i = 0; i < n; i++) {
        n_on += t->use;
        /* every seventh token meets a slow read, whatever it does */
        fm_predict_trial_token(t, (t->use ? on_us : off_us) + (i % 7 == 3 ? 5000 : 0), true);
    }
    return n_on;
}

static void faster_way_stays(void **state)
{
    (void)state;
    fm_predict_trial t;
    fm_predict_trial_init(&t, FM_PREFETCH_AUTO);
    (void)feed(&t, 40, 900, 1000);
    assert_true(t.use);
    assert_true(feed(&t, 1000, 900, 1000) >= 960);
    (void)feed(&t, 9000, 1000, 900); /* it stopped paying: the next comparison notices */
    assert_false(t.decided);
    assert_true(feed(&t, 1000, 1000, 900) <= 40);
    (void)feed(&t, 9000, 900, 1000);
    assert_true(t.decided);
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

static void fixed_modes_do_not_change(void **state)
{
    (void)state;
    fm_predict_trial t;
    fm_predict_trial_init(&t, FM_PREFETCH_ON);
    assert_int_equal(feed(&t, 500, 1000, 10), 500);
    fm_predict_trial_init(&t, FM_PREFETCH_OFF);
    assert_int_equal(feed(&t, 500, 10, 1000), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faster_way_stays),
        cmocka_unit_test(tokens_without_misses_say_nothing),
        cmocka_unit_test(fixed_modes_do_not_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
