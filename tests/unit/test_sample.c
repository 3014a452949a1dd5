/* The sampler: what a user relies on is that greedy means greedy, that a seed repeats, that the
 * filters keep exactly the tokens that they promise and that draws have the right frequencies. */
#include "flashmoe.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static fm_sampler_options options(float temperature)
{
    fm_sampler_options o;
    fm_sampler_options_init(&o);
    o.temperature = temperature;
    o.top_p = 1;
    o.seed = 1;
    return o;
}

static fm_sampler *make(int32_t n_vocab, const fm_sampler_options *o)
{
    fm_sampler *s;
    fm_error err = {0};
    assert_int_equal(fm_sampler_create(&s, n_vocab, o, &err), FM_OK);
    return s;
}

/* Counts of n picks; the same logits every time. */
static void count_picks(int *counts, int32_t n_vocab, const float *logits,
                        const fm_sampler_options *o, int n)
{
    memset(counts, 0, (size_t)n_vocab * sizeof *counts);
    fm_sampler *s = make(n_vocab, o);
    for (int i = 0; i < n; i++) {
        const int32_t id = fm_sampler_pick(s, logits);
        assert_in_range(id, 0, n_vocab - 1);
        counts[id]++;
    }
    fm_sampler_destroy(s);
}

static void defaults_are_documented(void **state)
{
    (void)state;
    fm_sampler_options a, b;
    fm_sampler_options_init(&a);
    fm_sampler_options_init(&b);
    assert_int_equal(a.struct_size, sizeof a);
    assert_true(a.temperature == 0.7f && a.top_p == 0.95f);
    assert_true(a.top_k == 0 && a.min_p == 0 && a.repeat_penalty == 1);
    assert_true(a.seed != b.seed);
}

static void temperature_zero_takes_largest_lowest_id(void **state)
{
    (void)state;
    const float logits[6] = {-1, 3, 2, 3, -INFINITY, 3};
    const fm_sampler_options o = options(0);
    fm_sampler *s = make(6, &o);
    for (int i = 0; i < 10; i++) assert_int_equal(fm_sampler_pick(s, logits), 1);
    fm_sampler_destroy(s);
}

static void top_k_one_is_greedy(void **state)
{
    (void)state;
    const float logits[4] = {1, 2, 2, 0};
    fm_sampler_options o = options(5);
    o.top_k = 1;
    fm_sampler *s = make(4, &o);
    for (int i = 0; i < 50; i++) assert_int_equal(fm_sampler_pick(s, logits), 1);
    fm_sampler_destroy(s);
}

static void same_seed_gives_same_ids(void **state)
{
    (void)state;
    enum { N = 500, V = 300 };
    float logits[V];
    for (int i = 0; i < V; i++) logits[i] = sinf((float)i * 1.7f) * 3;
    int32_t first[N];
    int differences = 0;
    for (int round = 0; round < 3; round++) {
        fm_sampler_options o = options(0.9f);
        o.top_p = 0.9f;
        o.seed = round == 2 ? 43 : 42;
        fm_sampler *s = make(V, &o);
        for (int i = 0; i < N; i++) {
            const int32_t id = fm_sampler_pick(s, logits);
            if (round == 0) first[i] = id;
            if (round == 1) assert_int_equal(id, first[i]);
            if (round == 2) differences += id != first[i];
        }
        fm_sampler_destroy(s);
    }
    assert_true(differences > N / 2);
}

/* Chi-square against the softmax. 7 degrees of freedom: above 24.3 once in a thousand seeds. */
static void draws_follow_softmax(void **state)
{
    (void)state;
    enum { V = 8, N = 200000 };
    const float logits[V] = {0, 1, -1, 2, 0.5f, -2, 1.5f, 0.25f};
    const float temperatures[] = {1, 0.5f, 2};
    for (int t = 0; t < 3; t++) {
        double p[V], sum = 0;
        int counts[V];
        for (int i = 0; i < V; i++) sum += p[i] = exp((double)logits[i] / temperatures[t]);
        const fm_sampler_options o = options(temperatures[t]);
        count_picks(counts, V, logits, &o, N);
        double chi2 = 0;
        for (int i = 0; i < V; i++) {
            const double expected = N * p[i] / sum;
            chi2 += (counts[i] - expected) * (counts[i] - expected) / expected;
        }
        assert_true(chi2 < 24.3);
    }
}

static void top_k_keeps_exactly_k_with_low_ids_on_ties(void **state)
{
    (void)state;
    const float logits[7] = {1, 5, 1, 4, 1, 1, 3};
    fm_sampler_options o = options(10);
    o.top_k = 5;
    int counts[7];
    count_picks(counts, 7, logits, &o, 5000);
    const bool expected[7] = {true, true, true, true, false, false, true};
    for (int i = 0; i < 7; i++) assert_int_equal(counts[i] > 0, expected[i]);
    o.top_k = 100; /* more than there are */
    count_picks(counts, 7, logits, &o, 5000);
    for (int i = 0; i < 7; i++) assert_true(counts[i] > 0);
}

/* Probabilities 0.4, 0.3, 0.2, 0.1 in a shuffled order. */
static void top_p_keeps_smallest_set_that_reaches_p(void **state)
{
    (void)state;
    const float logits[4] = {logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f)};
    const struct {
        float top_p;
        bool kept[4];
    } cases[] = {
        {0.39f, {false, true, false, false}}, {0.41f, {false, true, false, true}},
        {0.69f, {false, true, false, true}},  {0.71f, {true, true, false, true}},
        {0.91f, {true, true, true, true}},    {0.0001f, {false, true, false, false}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        fm_sampler_options o = options(1);
        o.top_p = cases[c].top_p;
        int counts[4];
        count_picks(counts, 4, logits, &o, 3000);
        for (int i = 0; i < 4; i++) assert_int_equal(counts[i] > 0, cases[c].kept[i]);
    }
}

/* The filters look at probabilities before the temperature: a high one must not let more in. */
static void top_p_does_not_depend_on_temperature(void **state)
{
    (void)state;
    const float logits[4] = {logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f)};
    fm_sampler_options o = options(50);
    o.top_p = 0.6f;
    int counts[4];
    count_picks(counts, 4, logits, &o, 3000);
    assert_true(counts[1] > 0 && counts[3] > 0);
    assert_true(counts[0] == 0 && counts[2] == 0);
}

static void min_p_drops_what_is_below_its_share(void **state)
{
    (void)state;
    const float logits[4] = {logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f)};
    fm_sampler_options o = options(3);
    o.min_p = 0.6f; /* of 0.4: keeps 0.4 and 0.3 */
    int counts[4];
    count_picks(counts, 4, logits, &o, 3000);
    assert_true(counts[1] > 0 && counts[3] > 0);
    assert_true(counts[0] == 0 && counts[2] == 0);
    o.min_p = 1;
    count_picks(counts, 4, logits, &o, 300);
    assert_int_equal(counts[1], 300);
}

/* Against a plain implementation that sorts, over random logits with many ties. */
static int by_rank(const void *a, const void *b)
{
    const float *x = a, *y = b; /* {logit, id} */
    if (x[0] != y[0]) return x[0] < y[0] ? 1 : -1;
    return x[1] < y[1] ? -1 : 1;
}

/* spread 0: values of a few, with many ties; else evenly from -spread to 0, one of 16 ruled out. */
static void match_sorting(int V, int n_round, float spread)
{
    uint32_t random = 12345;
    float *logits = malloc((size_t)V * sizeof *logits);
    float(*sorted)[2] = malloc((size_t)V * sizeof *sorted);
    bool *allowed = malloc((size_t)V * sizeof *allowed);
    int *counts = malloc((size_t)V * sizeof *counts);
    for (int round = 0; round < n_round; round++) {
        for (int i = 0; i < V; i++) {
            random = random * 1664525u + 1013904223u;
            logits[i] = spread > 0 ? (float)(random >> 8) * 0x1p-24f * -spread
                                   : (float)((random >> 24) % 23) * 0.37f - 4;
            if (spread > 0 && random >> 28 == 3) logits[i] = -INFINITY;
            sorted[i][0] = logits[i];
            sorted[i][1] = (float)i;
        }
        qsort(sorted, (size_t)V, sizeof sorted[0], by_rank);
        fm_sampler_options o = options(20);
        o.seed = (uint64_t)round;
        o.top_k = round % 3 == 0 ? 0 : 1 + round % (spread > 0 ? 40 : 90);
        o.top_p = round % 4 == 0 && (o.top_k || spread == 0)
                      ? 1
                      : 0.05f + 0.93f * (float)round / (float)n_round;
        o.min_p = round % 5 == 0 ? 0.01f * (float)(round % 20) : 0;

        int n = o.top_k > 0 && o.top_k < V ? o.top_k : V;
        double sum = 0, reached = 0;
        for (int i = 0; i < n; i++) sum += exp((double)(sorted[i][0] - sorted[0][0]));
        int kept = 0;
        while (kept < n && (kept == 0 || reached < (double)o.top_p * sum)) {
            reached += exp((double)(sorted[kept++][0] - sorted[0][0]));
        }
        if (o.top_p >= 1) kept = n;
        bool is_near_edge = fabs(reached - (double)o.top_p * sum) < 1e-5 * sum;
        const double before = reached - exp((double)(sorted[kept - 1][0] - sorted[0][0]));
        is_near_edge |= o.top_p < 1 && fabs(before - (double)o.top_p * sum) < 1e-5 * sum;
        while (kept > 1 && exp((double)(sorted[kept - 1][0] - sorted[0][0])) < (double)o.min_p) {
            kept--;
        }
        if (is_near_edge) continue;
        memset(allowed, 0, (size_t)V * sizeof *allowed);
        for (int i = 0; i < kept; i++) allowed[(int)sorted[i][1]] = true;
        count_picks(counts, V, logits, &o, kept > 40 ? 200 : 2500);
        int seen = 0;
        for (int i = 0; i < V; i++) {
            if (counts[i] > 0) assert_true(allowed[i]);
            seen += counts[i] > 0;
        }
        if (kept <= 40) assert_int_equal(seen, kept); /* each has at least about 1/60 */
    }
    free(logits);
    free(sorted);
    free(allowed);
    free(counts);
}

static void filters_together_match_sorting(void **state)
{
    (void)state;
    match_sorting(97, 300, 0);
    match_sorting(5003, 30, 800);
    match_sorting(5003, 20, 60);
}

static void repeat_penalty_counts_a_token_once_and_forgets(void **state)
{
    (void)state;
    const float logits[3] = {4, 3, -1};
    fm_sampler_options o = options(0);
    o.repeat_penalty = 1.5f; /* 4 -> 2.67; a second time it would be 1.78 */
    o.repeat_last_n = 2;
    fm_sampler *s = make(3, &o);
    assert_int_equal(fm_sampler_pick(s, logits), 0);
    assert_int_equal(fm_sampler_pick(s, logits), 1); /* 2.67 against 3 */
    assert_int_equal(fm_sampler_pick(s, logits), 0); /* 2.67 against 2 */
    fm_sampler_accept(s, 2);
    fm_sampler_accept(s, 2); /* the window holds only 2 now */
    assert_int_equal(fm_sampler_pick(s, logits), 0);
    fm_sampler_destroy(s);

    /* A negative logit is pushed down, not up. */
    const float negative[2] = {-1, -1.2f};
    o.repeat_last_n = 64;
    s = make(2, &o);
    fm_sampler_accept(s, 0);
    assert_int_equal(fm_sampler_pick(s, negative), 1);
    fm_sampler_accept(s, -5); /* ignored, as is what lies outside the vocabulary */
    fm_sampler_accept(s, 2);
    fm_sampler_destroy(s);
}

static void bad_logits_are_refused(void **state)
{
    (void)state;
    for (int temperature = 0; temperature < 2; temperature++) {
        const fm_sampler_options o = options((float)temperature);
        fm_sampler *s = make(4, &o);
        const float with_nan[4] = {1, 2, NAN, 0};
        const float with_nan_first[4] = {NAN, 2, 1, 0};
        const float none[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
        const float infinite[4] = {1, INFINITY, 2, INFINITY};
        const float one[4] = {-INFINITY, -INFINITY, -7, -INFINITY};
        assert_int_equal(fm_sampler_pick(s, NULL), -1); /* what a session without logits gives */
        assert_int_equal(fm_sampler_pick(s, with_nan), -1);
        assert_int_equal(fm_sampler_pick(s, with_nan_first), -1);
        assert_int_equal(fm_sampler_pick(s, none), -1);
        assert_int_equal(fm_sampler_pick(s, infinite), 1);
        assert_int_equal(fm_sampler_pick(s, one), 2);
        fm_sampler_destroy(s);
    }
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    fm_sampler *s;
    fm_error err = {0};
    fm_sampler_options o;
#define REFUSED(field, value)                                                                      \
    do {                                                                                           \
        o = options(1);                                                                            \
        o.field = value;                                                                           \
        assert_int_equal(fm_sampler_create(&s, 10, &o, &err), FM_E_ARG);                           \
        assert_null(s);                                                                            \
    } while (0)
    REFUSED(struct_size, 0);
    REFUSED(temperature, -0.1f);
    REFUSED(temperature, NAN);
    REFUSED(top_k, -1);
    REFUSED(top_p, 0);
    REFUSED(top_p, 1.01f);
    REFUSED(min_p, -1);
    REFUSED(min_p, 2);
    REFUSED(repeat_penalty, 0);
    REFUSED(repeat_last_n, -1);
    o = options(1);
    assert_int_equal(fm_sampler_create(&s, 0, &o, &err), FM_E_ARG);
    fm_sampler_destroy(NULL);
}

/* A real vocabulary, with the shapes that make a careless selection quadratic. */
static void large_vocabulary_in_any_order_is_handled(void **state)
{
    (void)state;
    enum { V = 248320 };
    float *logits = malloc(V * sizeof *logits);
    assert_non_null(logits);
    fm_sampler_options o = options(0.7f);
    o.top_k = 40;
    o.top_p = 0.95f;
    fm_sampler *s = make(V, &o);
    for (int shape = 0; shape < 5; shape++) {
        for (int i = 0; i < V; i++) {
            const float x = (float)i / V;
            logits[i] = shape == 0   ? 1                    /* all equal     */
                        : shape == 1 ? 20 * x               /* ascending     */
                        : shape == 2 ? -20 * x              /* descending    */
                        : shape == 3 ? 20 * fabsf(x - 0.5f) /* a valley      */
                                     : (float)(i % 3);      /* many ties     */
        }
        for (int i = 0; i < 3; i++) assert_in_range(fm_sampler_pick(s, logits), 0, V - 1);
    }
    fm_sampler_destroy(s);
    o.top_k = 0;
    s = make(V, &o);
    for (int i = 0; i < V; i++) logits[i] = 10 * sinf((float)i);
    for (int i = 0; i < 3; i++) assert_in_range(fm_sampler_pick(s, logits), 0, V - 1);
    fm_sampler_destroy(s);
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_documented),
        cmocka_unit_test(temperature_zero_takes_largest_lowest_id),
        cmocka_unit_test(top_k_one_is_greedy),
        cmocka_unit_test(same_seed_gives_same_ids),
        cmocka_unit_test(draws_follow_softmax),
        cmocka_unit_test(top_k_keeps_exactly_k_with_low_ids_on_ties),
        cmocka_unit_test(top_p_keeps_smallest_set_that_reaches_p),
        cmocka_unit_test(top_p_does_not_depend_on_temperature),
        cmocka_unit_test(min_p_drops_what_is_below_its_share),
        cmocka_unit_test(filters_together_match_sorting),
        cmocka_unit_test(repeat_penalty_counts_a_token_once_and_forgets),
        cmocka_unit_test(bad_logits_are_refused),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(large_vocabulary_in_any_order_is_handled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
