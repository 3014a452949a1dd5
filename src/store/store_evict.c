/* The eviction policy: see store_evict.h. docs/experiments.md has what else was tried, with hit rates.
 *
 * Two rates, because what is used follows the last tokens (a name, a list) and the text's topic, and
 * one half-life serves either the one or the other. The share of the fast one is what did well on
 * all recorded traces and is not critical.
 *
 * The rule for batches. A prompt of n tokens goes through the layers one after the other, and in
 * each of them nearly every expert is used: to plain LRU one long scan, which leaves the last
 * layers' experts, whatever their worth. Here an expert gets the rates that token-by-token evaluation
 * would have left on average, w uses by n tokens spread evenly; those that many tokens chose stay, in
 * every layer alike. What was known before fades as by BATCH_TOKENS tokens at most, so one prompt
 * does not wash out what a conversation kept hot.
 *
 * A rate that starts from nothing rises for hundreds of tokens, and a layer that a pass has been through
 * would look better used than one it has not reached. So the slow rate is divided by what it would be if
 * the expert had always been used.
 *
 * Costs: a use goes over the rates of its layer once (a multiplication each), an eviction over the
 * order of one layer, a kilobyte or two; nothing allocates.
 */
#include "store/store_evict.h"

#include <assert.h>
#include <math.h>

#define HALF_LIFE_FAST 8.0   /* tokens */
#define HALF_LIFE_SLOW 192.0 /* tokens */
#define FAST_SHARE 0.8f      /* weight of the fast rate beside the slow one */
#define SEED_KNOWN 0.25f     /* earlier sessions count as much as 80 tokens of this one */
#define NOTHING 1e-20f       /* below it a rate is zero (and never a denormal number) */

enum { BATCH_TOKENS = 128 };

/* One token's use adds this: 1 - 2^(-1 / half-life), so that a rate is uses per token. */
#define FAST_STEP (FAST_SHARE * 0.0829960f)
#define SLOW_STEP 0.0036036f

size_t fm_evict_bytes(int64_t n_expert, int32_t n_layer)
{
    return (size_t)n_expert * 3 * sizeof(float) +
           (size_t)n_layer * (sizeof(float) + sizeof(int32_t));
}

void fm_evict_init(fm_evict *e, void *memory, const int32_t *layer_class,
                   const int64_t *layer_first, int32_t n_layer)
{
    const int64_t n_expert = layer_first[n_layer];
    float *at = memory;
    *e = (fm_evict){.n_layer = n_layer,
                    .layer_class = layer_class,
                    .layer_first = layer_first,
                    .fast = at,
                    .slow = at + n_expert,
                    .order = at + 2 * n_expert,
                    .known = at + 3 * n_expert,
                    .least = (int32_t *)(at + 3 * n_expert + n_layer)};
    for (int64_t i = 0; i < n_expert; i++) {
        e->fast[i] = e->slow[i] = 0;
        e->order[i] = INFINITY;
    }
    for (int32_t i = 0; i < n_layer; i++) {
        e->known[i] = 0;
        e->least[i] = FM_EVICT_NONE;
    }
}

static void fade(float *rate, int64_t n, float keep)
{
    for (int64_t i = 0; i < n; i++) {
        const float r = rate[i] * keep;
        rate[i] = r < NOTHING ? 0 : r;
    }
}

void fm_evict_used(fm_evict *e, int32_t layer, const int32_t *ids, const int32_t *weight, int32_t n,
                   int32_t n_tok)
{
    const int64_t first = e->layer_first[layer], n_expert = e->layer_first[layer + 1] - first;
    const double age = n_tok < BATCH_TOKENS ? n_tok : BATCH_TOKENS;
    const double keep_fast = exp2(-age / HALF_LIFE_FAST), keep_slow = exp2(-age / HALF_LIFE_SLOW);
    float *fast = e->fast + first, *slow = e->slow + first, *order = e->order + first;
    fade(fast, n_expert, (float)keep_fast);
    fade(slow, n_expert, (float)keep_slow);

    /* 1 use in each of `age` tokens adds up to 1 - keep. */
    const float add_fast = FAST_SHARE * (float)((1 - keep_fast) / n_tok);
    const float add_slow = (float)((1 - keep_slow) / n_tok);
    for (int32_t i = 0; i < n; i++) {
        const float w = (float)(weight && weight[i] > 0 ? weight[i] : 1);
        fast[ids[i]] += w * add_fast;
        slow[ids[i]] += w * add_slow;
    }
    e->known[layer] = e->known[layer] * (float)keep_slow + (float)(1 - keep_slow);
    const float scale = 1 / e->known[layer];
    for (int64_t i = 0; i < n_expert; i++) {
        order[i] = order[i] < INFINITY ? fast[i] + slow[i] * scale : INFINITY;
    }
    e->least[layer] = FM_EVICT_UNKNOWN;
}

void fm_evict_seed(fm_evict *e, const float *rate)
{
    const int64_t n_expert = e->layer_first[e->n_layer];
    for (int64_t i = 0; i < n_expert; i++) e->slow[i] = rate[i] * SEED_KNOWN;
    for (int32_t i = 0; i < e->n_layer; i++) e->known[i] = SEED_KNOWN;
}

void fm_evict_heat(const fm_evict *e, float *rate)
{
    for (int32_t l = 0; l < e->n_layer; l++) {
        for (int64_t i = e->layer_first[l]; i < e->layer_first[l + 1]; i++) {
            const float r = e->known[l] > 0 ? e->slow[i] / e->known[l] : 0;
            rate[i] = r < 1 ? r : 1;
        }
    }
}

float fm_evict_worth(const fm_evict *e, int32_t layer, int32_t expert)
{
    const int64_t at = e->layer_first[layer] + expert;
    return e->known[layer] > 0 ? e->fast[at] + e->slow[at] / e->known[layer] : 0;
}

float fm_evict_worth_if_used(const fm_evict *e, int32_t layer, int32_t expert)
{
    const float known = e->known[layer];
    const float step = known > 0 ? FAST_STEP + SLOW_STEP / known : FAST_STEP + 1;
    return (fm_evict_worth(e, layer, expert) + step) * 0.999f; /* rounding */
}

void fm_evict_allow(fm_evict *e, int32_t layer, int32_t expert, float worth)
{
    float *order = e->order + e->layer_first[layer];
    const int32_t least = e->least[layer];
    order[expert] = worth;
    if (least == expert) {
        e->least[layer] = FM_EVICT_UNKNOWN;
    } else if (least == FM_EVICT_NONE || (least >= 0 && worth < order[least])) {
        e->least[layer] = expert;
    }
}

void fm_evict_forbid(fm_evict *e, int32_t layer, int32_t expert)
{
    e->order[e->layer_first[layer] + expert] = INFINITY;
    if (e->least[layer] == expert) e->least[layer] = FM_EVICT_UNKNOWN;
}

bool fm_evict_is_allowed(const fm_evict *e, int32_t layer, int32_t expert)
{
    return e->order[e->layer_first[layer] + expert] < INFINITY;
}

static void find_least(fm_evict *e, int32_t layer)
{
    const float *order = e->order + e->layer_first[layer];
    const int32_t n = (int32_t)(e->layer_first[layer + 1] - e->layer_first[layer]);
    float least = INFINITY;
    e->least[layer] = FM_EVICT_NONE;
    for (int32_t i = 0; i < n; i++) {
        if (!(order[i] < least)) continue;
        least = order[i];
        e->least[layer] = i;
    }
}

bool fm_evict_least(fm_evict *e, int32_t class_index, float below, int32_t *layer, int32_t *expert)
{
    float least = below;
    bool found = false;
    for (int32_t i = 0; i < e->n_layer; i++) {
        if (e->layer_class[i] != class_index) continue;
        if (e->least[i] == FM_EVICT_UNKNOWN) find_least(e, i);
        if (e->least[i] == FM_EVICT_NONE) continue;
        const float worth = e->order[e->layer_first[i] + e->least[i]];
        if (!(worth < least)) continue;
        assert(worth >= 0);
        least = worth;
        *layer = i;
        *expert = e->least[i];
        found = true;
    }
    return found;
}
