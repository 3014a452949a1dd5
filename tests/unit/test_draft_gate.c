/* The comparison that decides whether drafts pay. */
#include "engine/draft_gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Generates n tokens; a plain one takes plain_us, a pass with a draft pass_us, and right of a hundred drafts are right, which
 * gives the next token for nothing. Returns how many tokens came from passes with a draft. */
static int generate(fm_draft_gate *g, int n, uint64_t plain_us, uint64_t pass_us, int right)
{
    int n_drafted = 0, chance = 0;
    bool ahead = false;
    for (int i = 0; i < n; i++) {
        const bool drafted = ahead || g->use;
        n_drafted += drafted;
        if (ahead) {
            ahead = false;
            fm_draft_gate_token(g, 0, true);
        } else {
            chance = (chance + 37) % 100;
            ahead = drafted && chance < right;
            fm_draft_gate_token(g, drafted ? pass_us : plain_us, drafted);
        }
    }
    return n_drafted;
}

static void faster_way_stays(void **state)
{
    (void)state;
    fm_draft_gate g;
    fm_draft_gate_init(&g, FM_DRAFT_AUTO);
    assert_true(g.use);
    /* 1.8 tokens in 1.4 of the time */
    (void)generate(&g, 100, 1000, 1400, 80);
    assert_true(g.decided);
    assert_true(generate(&g, 4000, 1000, 1400, 80) > 3700);
    /* another text: hardly a draft is right */
    (void)generate(&g, 4000, 1000, 1400, 10);
    assert_false(g.decided);
    assert_true(generate(&g, 4000, 1000, 1400, 10) < 300);
    /* and back */
    (void)generate(&g, 4000, 1000, 1400, 80);
    assert_true(g.decided);
    /* a disk that reads nearly twice the experts for two tokens */
    (void)generate(&g, 4000, 1000, 1950, 80);
    assert_false(g.decided);
}

static void first_comparison_is_early_and_later_ones_rare(void **state)
{
    (void)state;
    fm_draft_gate g;
    fm_draft_gate_init(&g, FM_DRAFT_AUTO);
    (void)generate(&g, 5 + 4 * FM_DRAFT_TURN, 1000, 1900, 0);
    assert_false(g.decided);
    assert_false(g.use);
    const int32_t first = g.period;
    assert_int_equal(first, FM_DRAFT_PERIOD_FIRST);
    (void)generate(&g, 3000, 1000, 1900, 0);
    assert_true(g.period > 4 * first);
}

static void ways_within_a_few_percent_stay(void **state)
{
    (void)state;
    fm_draft_gate g;
    fm_draft_gate_init(&g, FM_DRAFT_AUTO);
    (void)generate(&g, 5000, 1000, 1010, 0);
    assert_true(g.decided);
    g.decided = g.use = false;
    (void)generate(&g, 5000, 1000, 990, 0);
    assert_false(g.decided);
}

static void on_and_off_do_not_compare(void **state)
{
    (void)state;
    fm_draft_gate g;
    fm_draft_gate_init(&g, FM_DRAFT_ON);
    assert_int_equal(generate(&g, 1000, 1000, 1900, 0), 1000);
    fm_draft_gate_init(&g, FM_DRAFT_OFF);
    assert_int_equal(generate(&g, 1000, 1000, 100, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faster_way_stays),
        cmocka_unit_test(first_comparison_is_early_and_later_ones_rare),
        cmocka_unit_test(ways_within_a_few_percent_stay),
        cmocka_unit_test(on_and_off_do_not_compare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
