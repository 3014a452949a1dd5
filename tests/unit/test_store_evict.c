/* The eviction policy on traces, without files: what generation keeps hot survives a prompt, a
 * prompt leaves the experts it used most in every layer, and the heap always gives the least key.
 */
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
    const fm_evict_policy *policy;
    int n_slot, n_filled;
    int slot_of[N_ALL], expert_in[N_ALL];
    uint64_t key[N_ALL], clock[N_LAYER];
    int64_t hits, uses;
    fm_evict_heap heap;
    int32_t heap_array[N_ALL], where[N_ALL];
    uint64_t heap_key[N_ALL], order[N_ALL];
} cache;

static void cache_init(cache *c, const fm_evict_policy *policy, int n_slot)
{
    memset(c, 0, sizeof *c);
    c->policy = policy;
    c->n_slot = n_slot;
    for (int i = 0; i < N_ALL; i++) c->slot_of[i] = -1;
    for (int i = 0; i < N_LAYER; i++) c->clock[i] = FM_EVICT_CLOCK_START;
    fm_evict_heap_init(&c->heap, c->heap_array, c->where, c->heap_key, c->order, n_slot);
}

static void use(cache *c, int layer, int expert, int64_t weight, int64_t picks, fm_demand_kind kind)
{
    const int id = layer * N_EXPERT + expert;
    int slot = c->slot_of[id];
    uint64_t old_key = 0;
    c->uses++;
    if (slot >= 0) {
        c->hits++;
        old_key = c->key[slot];
        fm_evict_remove(&c->heap, slot);
    } else {
        slot = c->n_filled < c->n_slot ? c->n_filled++ : fm_evict_least(&c->heap);
        if (fm_evict_has(&c->heap, slot)) {
            fm_evict_remove(&c->heap, slot);
            c->slot_of[c->expert_in[slot]] = -1;
        }
        c->slot_of[id] = slot;
        c->expert_in[slot] = id;
    }
    c->key[slot] = c->policy->key_used(c->clock[layer], old_key, weight, picks, kind);
    fm_evict_put(&c->heap, slot, c->key[slot]);
}

static void demand(cache *c, int layer, const int *weight, fm_demand_kind kind)
{
    int64_t picks = 0;
    int32_t n = 0;
    for (int e = 0; e < N_EXPERT; e++) {
        picks += weight[e];
        n += weight[e] > 0;
    }
    c->clock[layer] = c->policy->clock_after(c->clock[layer], n, picks, kind);
    for (int e = 0; e < N_EXPERT; e++) {
        if (weight[e] > 0) use(c, layer, e, weight[e], picks, kind);
    }
}

/* One token: picks N_USED experts around a topic's favourites. */
static void pick(int layer, int topic, int *weight)
{
    for (int n = 0; n < N_USED;) {
        const bool usual = next_random() % 10 < 8;
        const int e = usual ? (topic * 17 + layer * 5 + (int)(next_random() % 12)) % N_EXPERT
                            : (int)(next_random() % N_EXPERT);
        if (weight[e] > 0) continue;
        weight[e] = 1;
        n++;
    }
}

static void run_tokens(cache *c, int topic, int n)
{
    for (int t = 0; t < n; t++) {
        for (int layer = 0; layer < N_LAYER; layer++) {
            int weight[N_EXPERT] = {0};
            pick(layer, topic, weight);
            demand(c, layer, weight, FM_DEMAND_TOKEN);
        }
    }
}

static void run_prompt(cache *c, int topic, int n)
{
    for (int layer = 0; layer < N_LAYER; layer++) {
        int sum[N_EXPERT] = {0};
        for (int t = 0; t < n; t++) {
            int weight[N_EXPERT] = {0};
            pick(layer, topic, weight);
            for (int e = 0; e < N_EXPERT; e++) sum[e] += weight[e];
        }
        demand(c, layer, sum, FM_DEMAND_BATCH);
    }
}

static double hit_rate(cache *c, int topic, int n_token)
{
    c->hits = c->uses = 0;
    run_tokens(c, topic, n_token);
    return (double)c->hits / (double)c->uses;
}

static cache a, b;

static void tokens_alone_are_kept_as_by_lru(void **state)
{
    (void)state;
    const uint64_t start = seed;
    cache_init(&a, &fm_evict_recency, 200);
    run_tokens(&a, 1, 300);
    seed = start;
    cache_init(&b, &fm_evict_lru, 200);
    run_tokens(&b, 1, 300);
    const double difference = (double)(a.hits - b.hits) / (double)a.uses;
    assert_true(difference > -0.01 && difference < 0.01);
}

static void prompt_leaves_its_experts_in_every_layer(void **state)
{
    (void)state;
    const uint64_t start = seed;
    cache_init(&a, &fm_evict_recency, 160); /* a quarter of all */
    run_prompt(&a, 2, 256);
    const double ours = hit_rate(&a, 2, 1);
    seed = start;
    cache_init(&b, &fm_evict_lru, 160);
    run_prompt(&b, 2, 256);
    const double plain = hit_rate(&b, 2, 1);
    assert_true(ours > 0.7);
    assert_true(plain < 0.4); /* only the last layers are left */

    int n_in_layer[N_LAYER] = {0};
    cache_init(&a, &fm_evict_recency, 160);
    run_prompt(&a, 2, 256);
    for (int i = 0; i < N_ALL; i++) n_in_layer[i / N_EXPERT] += a.slot_of[i] >= 0;
    for (int layer = 0; layer < N_LAYER; layer++) assert_true(n_in_layer[layer] >= 8);
}

static void prompt_on_another_topic_does_not_wash_out_the_conversation(void **state)
{
    (void)state;
    const uint64_t start = seed;
    cache_init(&a, &fm_evict_recency, 250);
    run_tokens(&a, 3, 100);
    run_prompt(&a, 4, 256);
    const double ours = hit_rate(&a, 3, 2);
    seed = start;
    cache_init(&b, &fm_evict_lru, 250);
    run_tokens(&b, 3, 100);
    run_prompt(&b, 4, 256);
    const double plain = hit_rate(&b, 3, 2);
    assert_true(ours > plain + 0.1);
    assert_true(ours > 0.6);
}

static void long_run_of_prompts_moves_on(void **state)
{
    (void)state;
    cache_init(&a, &fm_evict_recency, 160);
    run_tokens(&a, 5, 200);
    for (int i = 0; i < 12; i++) run_prompt(&a, 6, 256);
    assert_true(hit_rate(&a, 6, 2) > 0.7);
}

static void more_weight_never_means_older(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        const int64_t picks = 1 + (int64_t)(next_random() % 5000);
        const int64_t w = 1 + (int64_t)(next_random() % (uint64_t)picks);
        const uint64_t clock =
            fm_evict_recency.clock_after(FM_EVICT_CLOCK_START, 100, picks, FM_DEMAND_BATCH);
        const uint64_t k = fm_evict_recency.key_used(clock, 0, w, picks, FM_DEMAND_BATCH);
        const uint64_t more = fm_evict_recency.key_used(clock, 0, w + 1, picks, FM_DEMAND_BATCH);
        assert_true(k <= more && more <= clock);
        const uint64_t hit = fm_evict_recency.key_used(clock, clock - 1, w, picks, FM_DEMAND_BATCH);
        assert_true(hit >= clock - 1); /* a batch never makes a cached expert older */
        assert_int_equal(fm_evict_recency.key_used(clock, 0, 1, 4, FM_DEMAND_TOKEN), clock);
    }
}

static void heap_gives_the_least_key_and_the_oldest_of_equals(void **state)
{
    (void)state;
    enum { N = 100 };
    int32_t heap[N], where[N];
    uint64_t key[N], order[N], want_key[N] = {0}, want_order[N] = {0}, serial = 0;
    bool in[N] = {false};
    fm_evict_heap h;
    fm_evict_heap_init(&h, heap, where, key, order, N);
    assert_int_equal(fm_evict_least(&h), -1);
    for (int step = 0; step < 20000; step++) {
        const int32_t slot = (int32_t)(next_random() % N);
        if (in[slot]) {
            fm_evict_remove(&h, slot);
            in[slot] = false;
        } else {
            want_key[slot] = next_random() % 20;
            want_order[slot] = ++serial;
            fm_evict_put(&h, slot, want_key[slot]);
            in[slot] = true;
        }
        int32_t best = -1;
        for (int32_t i = 0; i < N; i++) {
            assert_int_equal(fm_evict_has(&h, i), in[i]);
            if (!in[i]) continue;
            if (best < 0 || want_key[i] < want_key[best] ||
                (want_key[i] == want_key[best] && want_order[i] < want_order[best])) {
                best = i;
            }
        }
        assert_int_equal(fm_evict_least(&h), best);
        fm_evict_remove(&h, slot); /* what is not there: nothing */
        if (in[slot]) {
            fm_evict_put(&h, slot, want_key[slot]);
            want_order[slot] = ++serial;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_alone_are_kept_as_by_lru),
        cmocka_unit_test(prompt_leaves_its_experts_in_every_layer),
        cmocka_unit_test(prompt_on_another_topic_does_not_wash_out_the_conversation),
        cmocka_unit_test(long_run_of_prompts_moves_on),
        cmocka_unit_test(more_weight_never_means_older),
        cmocka_unit_test(heap_gives_the_least_key_and_the_oldest_of_equals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
