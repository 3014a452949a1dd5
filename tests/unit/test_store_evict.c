/* The eviction policy on made-up routing, without files: what generation keeps hot survives a prompt,
 * a prompt leaves the experts it used most in every layer, and the least worthy expert is found.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/store_evict.h"

enum { N_LAYER = 10, N_EXPERT = 64, N_USED = 4, N_ALL = N_LAYER * N_EXPERT };

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* ---- a cache without bytes --------------------------------------------------------------- */

typedef struct {
    bool is_lru; /* for comparison: the least recently used goes */
    int n_free;
    fm_evict evict;
    int32_t layer_class[N_LAYER];
    int64_t layer_first[N_LAYER + 1];
    float memory[N_ALL * 3 + N_LAYER * 2];
    uint64_t now, last[N_ALL];
    bool in[N_ALL];
    int64_t hits, uses;
} cache;

static void cache_init(cache *c, bool is_lru, int n_slot)
{
    memset(c, 0, sizeof *c);
    c->is_lru = is_lru;
    c->n_free = n_slot;
    for (int i = 0; i <= N_LAYER; i++) c->layer_first[i] = i * N_EXPERT;
    assert_true(fm_evict_bytes(N_ALL, N_LAYER) <= sizeof c->memory);
    fm_evict_init(&c->evict, c->memory, c->layer_class, c->layer_first, N_LAYER);
}

static void make_room(cache *c)
{
    if (c->n_free > 0) {
        c->n_free--;
        return;
    }
    int32_t layer = -1, expert = -1;
    if (c->is_lru) {
        int least = -1;
        for (int i = 0; i < N_ALL; i++) {
            if (c->in[i] && (least < 0 || c->last[i] < c->last[least])) least = i;
        }
        c->in[least] = false;
        return;
    }
    assert_true(fm_evict_least(&c->evict, 0, INFINITY, &layer, &expert));
    assert_true(c->in[layer * N_EXPERT + expert]);
    fm_evict_forbid(&c->evict, layer, expert);
    c->in[layer * N_EXPERT + expert] = false;
}

static void demand(cache *c, int32_t layer, const int *weight, int32_t n_tok)
{
    int32_t ids[N_EXPERT], w[N_EXPERT], n = 0;
    for (int e = 0; e < N_EXPERT; e++) {
        if (weight[e] == 0) continue;
        ids[n] = e;
        w[n++] = weight[e];
    }
    fm_evict_used(&c->evict, layer, ids, w, n, n_tok);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n; i++) {
            const int at = layer * N_EXPERT + ids[i];
            if ((pass == 0) != c->in[at]) continue; /* those in memory first */
            if (c->last[at] == c->now + 1) continue;
            c->uses++;
            if (pass == 0) {
                c->hits++;
            } else {
                make_room(c);
                c->in[at] = true;
                fm_evict_allow(&c->evict, layer, ids[i], fm_evict_worth(&c->evict, layer, ids[i]));
            }
            c->last[at] = c->now + 1;
        }
    }
    c->now++;
}

/* One token: picks N_USED experts around a topic's favourites. */
static void pick(int layer, int topic, int *weight)
{
    int mine[N_USED];
    for (int n = 0; n < N_USED;) {
        const bool usual = next_random() % 10 < 8;
        const int e = usual ? (topic * 17 + layer * 5 + (int)(next_random() % 12)) % N_EXPERT
                            : (int)(next_random() % N_EXPERT);
        bool is_new = true;
        for (int i = 0; i < n; i++) is_new = is_new && mine[i] != e;
        if (!is_new) continue;
        mine[n++] = e;
        weight[e]++;
    }
}

static void run_tokens(cache *c, int topic, int n)
{
    for (int t = 0; t < n; t++) {
        for (int layer = 0; layer < N_LAYER; layer++) {
            int weight[N_EXPERT] = {0};
            pick(layer, topic, weight);
            demand(c, layer, weight, 1);
        }
    }
}

static void run_prompt(cache *c, int topic, int n)
{
    for (int layer = 0; layer < N_LAYER; layer++) {
        int weight[N_EXPERT] = {0};
        for (int t = 0; t < n; t++) pick(layer, topic, weight);
        demand(c, layer, weight, n);
    }
}

static double hit_rate(cache *c, int topic, int n_token)
{
    c->hits = c->uses = 0;
    run_tokens(c, topic, n_token);
    return (double)c->hits / (double)c->uses;
}

static cache a, b;

static void tokens_alone_are_kept_at_least_as_by_lru(void **state)
{
    (void)state;
    const uint64_t start = seed;
    for (int n_slot = 60; n_slot < 500; n_slot += 110) {
        seed = start;
        cache_init(&a, false, n_slot);
        run_tokens(&a, 1, 300);
        seed = start;
        cache_init(&b, true, n_slot);
        run_tokens(&b, 1, 300);
        assert_true(a.uses == b.uses);
        assert_true((double)(a.hits - b.hits) / (double)a.uses > -0.01);
    }
}

static void prompt_leaves_its_experts_in_every_layer(void **state)
{
    (void)state;
    const uint64_t start = seed;
    cache_init(&a, false, 160); /* a quarter of all */
    run_prompt(&a, 2, 256);
    int n_in_layer[N_LAYER] = {0};
    for (int i = 0; i < N_ALL; i++) n_in_layer[i / N_EXPERT] += a.in[i];
    for (int layer = 0; layer < N_LAYER; layer++) assert_true(n_in_layer[layer] >= 8);
    const double ours = hit_rate(&a, 2, 1);
    seed = start;
    cache_init(&b, true, 160);
    run_prompt(&b, 2, 256);
    const double plain = hit_rate(&b, 2, 1);
    assert_true(ours > 0.7);
    assert_true(plain < 0.4); /* only the last layers are left */
}

static void prompt_on_another_topic_does_not_wash_out_the_conversation(void **state)
{
    (void)state;
    const uint64_t start = seed;
    cache_init(&a, false, 250);
    run_tokens(&a, 3, 100);
    run_prompt(&a, 4, 256);
    const double ours = hit_rate(&a, 3, 2);
    seed = start;
    cache_init(&b, true, 250);
    run_tokens(&b, 3, 100);
    run_prompt(&b, 4, 256);
    const double plain = hit_rate(&b, 3, 2);
    assert_true(ours > plain + 0.1);
    assert_true(ours > 0.6);
}

static void long_run_of_prompts_moves_on(void **state)
{
    (void)state;
    cache_init(&a, false, 160);
    run_tokens(&a, 5, 200);
    for (int i = 0; i < 12; i++) run_prompt(&a, 6, 256);
    assert_true(hit_rate(&a, 6, 2) > 0.7);
}

/* Passes over everything: what fits is kept and hit each time; LRU would always be a step behind. */
static void passes_of_a_long_prompt_keep_what_fits(void **state)
{
    (void)state;
    cache_init(&a, false, N_ALL / 2);
    cache_init(&b, true, N_ALL / 2);
    int weight[N_EXPERT];
    for (int pass = 0; pass < 6; pass++) {
        if (pass == 2) a.hits = a.uses = b.hits = b.uses = 0;
        for (int layer = 0; layer < N_LAYER; layer++) {
            for (int e = 0; e < N_EXPERT; e++) weight[e] = 100 + (e * 7 + layer) % N_EXPERT;
            demand(&a, layer, weight, 512);
            demand(&b, layer, weight, 512);
        }
    }
    assert_true((double)a.hits > 0.45 * (double)a.uses);
    assert_true((double)b.hits < 0.05 * (double)b.uses);
}

static void batch_counts_like_its_tokens(void **state)
{
    (void)state;
    /* The same experts in every token: one batch gives the rates of as many single tokens. */
    cache_init(&a, false, 10);
    cache_init(&b, false, 10);
    const int32_t ids[3] = {5, 9, 60}, weight[3] = {100, 100, 50};
    for (int t = 0; t < 100; t++) fm_evict_used(&a.evict, 0, ids, NULL, t % 2 ? 3 : 2, 1);
    fm_evict_used(&b.evict, 0, ids, weight, 3, 100);
    for (int i = 0; i < 3; i++) {
        const float one = fm_evict_worth(&a.evict, 0, ids[i]);
        const float all = fm_evict_worth(&b.evict, 0, ids[i]);
        assert_true(fabsf(one - all) < 0.03f * all); /* every other token is not quite evenly */
    }
    /* More choices are never worth less; an expert in use is never worth less than before. */
    for (int i = 0; i < 1000; i++) {
        const int32_t n_tok = 1 + (int32_t)(next_random() % 3000);
        const int32_t w = (int32_t)(next_random() % (uint64_t)n_tok) + 1;
        const int32_t two[2] = {(int32_t)(next_random() % 30), 30 + (int32_t)(next_random() % 30)};
        const int32_t both[2] = {w, n_tok};
        cache_init(&a, false, 10);
        fm_evict_used(&a.evict, 3, two, both, 2, n_tok);
        const float less = fm_evict_worth(&a.evict, 3, two[0]);
        const float more = fm_evict_worth(&a.evict, 3, two[1]);
        assert_true(less > 0 && less <= more && more < 2);
    }
}

static void last_token_is_worth_more_than_what_is_long_gone(void **state)
{
    (void)state;
    cache_init(&a, false, 10);
    const int32_t old = 1, now = 2;
    for (int t = 0; t < 3; t++) fm_evict_used(&a.evict, 0, &old, NULL, 1, 1);
    for (int t = 0; t < 100; t++) fm_evict_used(&a.evict, 0, &now, NULL, 0, 1);
    fm_evict_used(&a.evict, 0, &now, NULL, 1, 1);
    const int32_t never = 3;
    const float just_used = fm_evict_worth_if_used(&a.evict, 0, never);
    assert_true(fm_evict_worth(&a.evict, 0, now) >= just_used);
    assert_true(fm_evict_worth(&a.evict, 0, old) < just_used);
    assert_true(fm_evict_worth_if_used(&a.evict, 0, old) > just_used);
    /* Nothing becomes a denormal number: multiplying those is slow. */
    for (int t = 0; t < 40000; t++) fm_evict_used(&a.evict, 0, &now, NULL, 0, 1);
    assert_true(fm_evict_worth(&a.evict, 0, old) == 0);
}

static void earlier_sessions_count_until_this_one_knows_better(void **state)
{
    (void)state;
    static float rate[N_ALL], out[N_ALL];
    cache_init(&a, false, 10);
    fm_evict_heat(&a.evict, out);
    for (int i = 0; i < N_ALL; i++) assert_true(out[i] == 0);
    for (int i = 0; i < N_ALL; i++) rate[i] = (float)(next_random() % 65) / 64;
    rate[3] = 0.5f;
    rate[4] = 0.25f;
    fm_evict_seed(&a.evict, rate);
    fm_evict_heat(&a.evict, out); /* divided by 64: exact */
    assert_memory_equal(rate, out, sizeof rate);

    const int32_t three = 3, four = 4;
    int32_t layer, expert;
    for (int32_t e = 3; e <= 4; e++) fm_evict_allow(&a.evict, 0, e, fm_evict_worth(&a.evict, 0, e));
    assert_true(fm_evict_least(&a.evict, 0, INFINITY, &layer, &expert) && expert == 4);
    for (int t = 0; t < 2; t++) fm_evict_used(&a.evict, 0, &four, NULL, 1, 1);
    /* Used by the last two tokens, it is worth as much as the other by the fast rate alone. */
    assert_true(fm_evict_worth(&a.evict, 0, 4) > 0.25f);
    for (int t = 0; t < 400; t++) fm_evict_used(&a.evict, 0, &four, NULL, 1, 1);
    assert_true(fm_evict_least(&a.evict, 0, INFINITY, &layer, &expert) && expert == 3);
    fm_evict_heat(&a.evict, out);
    /* With k = 2^(-402/192): 0.25 k 0.5 / (0.25 k + 1 - k), and (0.25 k 0.25 + 1 - k) over the same. */
    assert_true(fabsf(out[three] - 0.03553f) < 1e-4f);
    assert_true(fabsf(out[four] - 0.94671f) < 1e-4f);
    assert_memory_equal(out + N_EXPERT, rate + N_EXPERT, sizeof rate - N_EXPERT * sizeof *rate);
}

static void least_worthy_is_found(void **state)
{
    (void)state;
    static float want[N_ALL];
    cache_init(&a, false, 10);
    for (int i = 0; i < N_LAYER; i++) a.layer_class[i] = i % 2;
    a.layer_class[4] = -1;
    for (int i = 0; i < N_ALL; i++) want[i] = INFINITY;
    for (int step = 0; step < 50000; step++) {
        const int32_t layer = (int32_t)(next_random() % N_LAYER);
        const int32_t expert = (int32_t)(next_random() % N_EXPERT);
        const int at = layer * N_EXPERT + expert;
        const uint64_t what = next_random() % 16;
        if (what == 0) {
            fm_evict_used(&a.evict, layer, &expert, NULL, 1, 1);
            for (int e = 0; e < N_EXPERT; e++) {
                float *w = &want[layer * N_EXPERT + e];
                if (*w < INFINITY) *w = fm_evict_worth(&a.evict, layer, e);
            }
        } else if (what < 9) {
            want[at] = (float)(next_random() % 50) / 50;
            fm_evict_allow(&a.evict, layer, expert, want[at]);
        } else {
            want[at] = INFINITY;
            fm_evict_forbid(&a.evict, layer, expert); /* what is not there: nothing */
        }
        assert_int_equal(fm_evict_is_allowed(&a.evict, layer, expert), want[at] < INFINITY);
        const int32_t wanted_class = (int32_t)(next_random() % 2);
        const float below = next_random() % 2 ? INFINITY : 0.1f;
        float least = below;
        for (int i = 0; i < N_ALL; i++) {
            if (a.layer_class[i / N_EXPERT] == wanted_class && want[i] < least) least = want[i];
        }
        int32_t l, e;
        const bool found = fm_evict_least(&a.evict, wanted_class, below, &l, &e);
        assert_int_equal(found, least < below);
        if (!found) continue;
        assert_int_equal(a.layer_class[l], wanted_class);
        assert_true(want[l * N_EXPERT + e] == least);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_alone_are_kept_at_least_as_by_lru),
        cmocka_unit_test(prompt_leaves_its_experts_in_every_layer),
        cmocka_unit_test(prompt_on_another_topic_does_not_wash_out_the_conversation),
        cmocka_unit_test(long_run_of_prompts_moves_on),
        cmocka_unit_test(passes_of_a_long_prompt_keep_what_fits),
        cmocka_unit_test(batch_counts_like_its_tokens),
        cmocka_unit_test(last_token_is_worth_more_than_what_is_long_gone),
        cmocka_unit_test(earlier_sessions_count_until_this_one_knows_better),
        cmocka_unit_test(least_worthy_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
