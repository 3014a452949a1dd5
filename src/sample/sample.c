/* The sampler of flashmoe.h: from logits to one id.
 *
 * All filters (top-k, top-p, min-p) keep a prefix of the candidates in one total order: larger
 * logit first, lower id first on ties. So each of them only moves one boundary, which is found by
 * partial selection among the few that can matter, and the draw walks the survivors in order of
 * their ids. The result depends on logits and seed alone.
 *
 * Source of the repeat penalty: Keskar et al., CTRL (2019), section 4.1, with the usual treatment
 * of negative logits; of top-p: Holtzman et al. (2020); of min-p: Nguyen et al. (2024).
 */
#include "flashmoe.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/random.h"

typedef struct {
    float logit;
    float weight; /* exp(logit - largest): probability times a common factor */
    int32_t id;
} candidate;

struct fm_sampler {
    /* set at creation */
    fm_sampler_options opt;
    int32_t n_vocab;
    float *scores;         /* [n_vocab] logits after the penalty */
    candidate *candidates; /* [n_vocab] scratch of one pick      */
    int32_t *recent;       /* [repeat_last_n] ring               */

    uint64_t rng[4];
    int32_t n_recent, next_recent;
};

/* ---- random numbers: xoshiro256** seeded by splitmix64, Blackman and Vigna (2018), public domain */

static uint64_t rotate_left(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static uint64_t next_random(uint64_t s[4])
{
    const uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* In [0, 1), 53 bits. */
static double next_uniform(uint64_t s[4])
{
    return (double)(next_random(s) >> 11) * 0x1.0p-53;
}

static uint64_t fresh_seed(const void *salt)
{
    struct timespec real, mono;
    clock_gettime(CLOCK_REALTIME, &real);
    clock_gettime(CLOCK_MONOTONIC, &mono);
    uint64_t state = (uint64_t)real.tv_sec * UINT64_C(1000000000) + (uint64_t)real.tv_nsec;
    state ^= fm_splitmix64(&state) ^ (uint64_t)mono.tv_nsec << 32 ^ (uint64_t)(uintptr_t)salt;
    return fm_splitmix64(&state);
}

/* ---- selection ---------------------------------------------------------------------------- */

static bool ranks_before(float logit_a, int32_t id_a, float logit_b, int32_t id_b)
{
    return logit_a > logit_b || (logit_a == logit_b && id_a < id_b);
}

static bool candidate_before(const candidate *a, const candidate *b)
{
    return ranks_before(a->logit, a->id, b->logit, b->id);
}

static void swap_candidates(candidate *a, candidate *b)
{
    const candidate t = *a;
    *a = *b;
    *b = t;
}

/* Puts the pivot of c[lo..hi) at its final place, better ones before it; returns that place.
 * Median of three, so that ordered and constant inputs stay linear. */
static int32_t partition(candidate *c, int32_t lo, int32_t hi)
{
    const int32_t mid = lo + (hi - lo) / 2;
    const int32_t last = hi - 1;
    if (candidate_before(&c[mid], &c[lo])) swap_candidates(&c[mid], &c[lo]);
    if (candidate_before(&c[last], &c[lo])) swap_candidates(&c[last], &c[lo]);
    if (candidate_before(&c[last], &c[mid])) swap_candidates(&c[last], &c[mid]);
    swap_candidates(&c[mid], &c[last]);
    const candidate pivot = c[last];
    int32_t place = lo;
    for (int32_t i = lo; i < last; i++) {
        if (candidate_before(&c[i], &pivot)) swap_candidates(&c[i], &c[place++]);
    }
    swap_candidates(&c[place], &c[last]);
    return place;
}

/* Moves the best candidates to the front until they are `n_wanted` (by_weight false) or weigh at
 * least `weight_wanted` (by_weight true); returns how many that takes, at least 1. */
static int32_t select_front(candidate *c, int32_t n, bool by_weight, int32_t n_wanted,
                            double weight_wanted)
{
    int32_t lo = 0, hi = n;
    double before = 0; /* weight of c[0..lo), all of which are kept */
    while (hi - lo > 1) {
        const int32_t place = partition(c, lo, hi);
        double weight = before;
        if (by_weight) {
            for (int32_t i = lo; i < place; i++) weight += c[i].weight;
        }
        const bool is_enough_left = by_weight ? weight >= weight_wanted : place >= n_wanted;
        if (is_enough_left && place > lo) {
            hi = place;
            continue;
        }
        weight += c[place].weight;
        if (by_weight ? weight >= weight_wanted : place + 1 >= n_wanted) return place + 1;
        lo = place + 1;
        before = weight;
    }
    return lo < n ? lo + 1 : n;
}

/* Numbers of the vocabulary that are taken side by side, each with its own part of the result. */
enum { LANES = 16 };

/* ---- one pick ----------------------------------------------------------------------------- */

static void apply_repeat_penalty(fm_sampler *s, const float *logits)
{
    const float penalty = s->opt.repeat_penalty;
    if (penalty == 1.0f) return;
    for (int32_t i = 0; i < s->n_recent; i++) {
        const int32_t id = s->recent[i];
        const float x = logits[id]; /* the original, so that repeats count once */
        s->scores[id] = x > 0 ? x / penalty : x * penalty;
    }
}

/* The largest score, lowest id on ties; -1 when the logits cannot be trusted. */
static int32_t find_largest(const float *scores, int32_t n)
{
    float most[LANES];
    bool is_nan = false;
    for (int k = 0; k < LANES; k++) most[k] = -INFINITY;
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES) /* lanes apart, so that the compiler takes them together */
        for (int k = 0; k < LANES; k++) {
            const float x = scores[i + k];
            is_nan |= x != x;
            most[k] = x > most[k] ? x : most[k];
        }
    float largest = -INFINITY;
    for (int k = 0; k < LANES; k++) largest = most[k] > largest ? most[k] : largest;
    for (; i < n; i++) {
        is_nan |= scores[i] != scores[i];
        largest = scores[i] > largest ? scores[i] : largest;
    }
    if (is_nan || largest == -INFINITY) return -1;
    int32_t best = 0;
    while (scores[best] != largest) best++;
    return best;
}

/* exp(x) for x <= 0, 0 below the normal numbers. In plain additions and products, so that it has the same bits with every C
 * library and processor, and the compiler can take several together. The method and the numbers of vexp(), ops_simple.inc. */
static inline float weight_of(float x)
{
    const float lowest = -87.0f, to_integer = 0x1.8p23f;
    const float in = x > lowest ? x : lowest;
    const float n = (in * 0x1.715476p+0f + to_integer) - to_integer;
    const float r = (in - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    float p = 0x1.6a2434p-10f;
    p = p * r + 0x1.1239e2p-7f;
    p = p * r + 0x1.5558f2p-5f;
    p = p * r + 0x1.555492p-3f;
    p = p * r + 0x1.fffffcp-2f;
    const float e = 1.0f + (r * r * p + r);
    const int32_t keep = -(int32_t)(x >= lowest), bits = ((int32_t)n + 127) * (1 << 23) & keep;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return e * scale;
}

/* Sets weights against the largest logit. */
static void weigh(candidate *c, int32_t n, float largest)
{
    for (int32_t i = 0; i < n; i++) c[i].weight = weight_of(c[i].logit - largest);
}

/* Not above ln x, and not far below; x = 0: the lowest number. */
static float at_least_log(float x)
{
    int exponent;
    if (x <= 0) return -FLT_MAX;
    (void)frexpf(x, &exponent);
    return (float)(exponent - 1) * 0.6931472f - 1e-2f;
}

/* All tokens whose score is at least `lowest`. */
static int32_t collect(fm_sampler *s, float lowest)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++)
        if (s->scores[i] >= lowest)
            s->candidates[n++] = (candidate){.logit = s->scores[i], .id = i};
    return n;
}

/* The k best tokens. What is below the k-th best of those before it is not looked at again. */
static int32_t collect_best(fm_sampler *s, int32_t k)
{
    candidate *c = s->candidates;
    const int64_t room = 4 * (int64_t)k + 1024;
    float lowest = -INFINITY;
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (!(s->scores[i] >= lowest) || s->scores[i] == -INFINITY) continue;
        c[n++] = (candidate){.logit = s->scores[i], .id = i};
        if (n < room) continue;
        n = select_front(c, n, false, k, 0);
        for (int32_t j = 0; j < n; j++)
            lowest = j == 0 || c[j].logit < lowest ? c[j].logit : lowest;
    }
    return k < n ? select_front(c, n, false, k, 0) : n;
}

/* The tokens that may belong to the most likely ones with the probability top_p together, and the sum of the weights of all.
 * Weights are summed up by steps of the score, so that only the tokens down to the step where top_p is reached are put in
 * order. */
static int32_t collect_nucleus(fm_sampler *s, float largest, double *sum)
{
    enum { STEPS = 256, PER_UNIT = 8 };
    double step[STEPS] = {0};
    for (int32_t i0 = 0; i0 < s->n_vocab; i0 += LANES) {
        float weight[LANES];
        int32_t at[LANES];
        const int32_t n = s->n_vocab - i0 < LANES ? s->n_vocab - i0 : LANES;
        float below[LANES] = {0}; /* largest - score, 0 or more */
        for (int32_t k = 0; k < n; k++) below[k] = largest - s->scores[i0 + k];
        for (int k = 0; k < LANES; k++) {
            const float steps = below[k] * PER_UNIT;
            at[k] = (int32_t)(steps < STEPS - 1 ? steps : STEPS - 1);
            weight[k] = weight_of(-below[k]);
        }
        for (int32_t k = 0; k < n; k++) step[at[k]] += (double)weight[k];
    }
    *sum = 0;
    for (int i = STEPS - 1; i >= 0; i--) *sum += step[i];
    int last = 0;
    for (double so_far = step[0]; last < STEPS - 1 && so_far < s->opt.top_p * *sum;)
        so_far += step[++last];
    /* A margin for the rounding of differences and sums. */
    return collect(s,
                   last == STEPS - 1 ? -FLT_MAX : largest - (float)(last + 1) / PER_UNIT - 1e-2f);
}

/* The last candidate, in the total order, that passes all filters. */
static candidate find_boundary(fm_sampler *s, float largest)
{
    const fm_sampler_options *o = &s->opt;
    candidate *c = s->candidates;
    double sum = 0;
    int32_t n;
    if (o->top_k > 0 && o->top_k < s->n_vocab) {
        n = collect_best(s, o->top_k);
        weigh(c, n, largest);
        for (int32_t i = 0; i < n; i++) sum += c[i].weight;
    } else if (o->top_p < 1) {
        n = collect_nucleus(s, largest, &sum);
        weigh(c, n, largest);
    } else {
        n = collect(s, largest + at_least_log(o->min_p));
    }
    if (o->top_p < 1) n = select_front(c, n, true, 0, o->top_p * sum);
    if (o->min_p > 0) {
        /* p >= min_p * p_largest, and the weight of the largest is 1 */
        int32_t kept = 0;
        for (int32_t i = 0; i < n; i++) {
            if (weight_of(c[i].logit - largest) >= o->min_p) c[kept++] = c[i];
        }
        n = kept;
    }
    candidate boundary = c[0];
    for (int32_t i = 1; i < n; i++) {
        if (candidate_before(&boundary, &c[i])) boundary = c[i];
    }
    return boundary;
}

static int32_t draw(fm_sampler *s, float largest)
{
    const candidate boundary = find_boundary(s, largest);
    candidate *c = s->candidates;
    int32_t n = 0;
    double sum = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (s->scores[i] < boundary.logit ||
            ranks_before(boundary.logit, boundary.id, s->scores[i], i))
            continue;
        const float weight = weight_of((s->scores[i] - largest) / s->opt.temperature);
        if (!(weight > 0)) continue;
        c[n++] = (candidate){.weight = weight, .id = i};
        sum += weight;
    }
    double left = next_uniform(s->rng) * sum;
    for (int32_t i = 0; i + 1 < n; i++) {
        left -= c[i].weight;
        if (left < 0) return c[i].id;
    }
    return c[n - 1].id; /* n >= 1: the largest has weight 1 */
}

int32_t fm_sampler_pick(fm_sampler *s, const float *logits)
{
    if (!logits) return -1;
    memcpy(s->scores, logits, (size_t)s->n_vocab * sizeof *logits);
    apply_repeat_penalty(s, logits);
    const int32_t best = find_largest(s->scores, s->n_vocab);
    if (best < 0) return -1;
    const float largest = s->scores[best];
    const bool is_greedy = s->opt.temperature == 0 || s->opt.top_k == 1 || isinf(largest);
    const int32_t id = is_greedy ? best : draw(s, largest);
    fm_sampler_accept(s, id);
    return id;
}

void fm_sampler_accept(fm_sampler *s, int32_t id)
{
    if (s->opt.repeat_last_n == 0 || id < 0 || id >= s->n_vocab) return;
    s->recent[s->next_recent] = id;
    s->next_recent = (s->next_recent + 1) % s->opt.repeat_last_n;
    if (s->n_recent < s->opt.repeat_last_n) s->n_recent++;
}

/* ---- life --------------------------------------------------------------------------------- */

void fm_sampler_options_init(fm_sampler_options *opt)
{
    *opt = (fm_sampler_options){
        .struct_size = sizeof *opt,
        .temperature = 0.7f,
        .top_k = 0,
        .top_p = 0.95f,
        .min_p = 0,
        .repeat_penalty = 1,
        .repeat_last_n = 64,
        .seed = fresh_seed(opt),
    };
}

static fm_status check_options(const fm_sampler_options *o, int32_t n_vocab, fm_error *err)
{
    if (o->struct_size != sizeof *o) {
        return fm_fail(err, FM_E_ARG, "sampler: options are not initialised");
    }
    if (n_vocab < 1) return fm_fail(err, FM_E_ARG, "sampler: a vocabulary of %d", (int)n_vocab);
    /* Written so that NaN fails. */
    if (!(o->temperature >= 0 && o->temperature <= 100)) {
        return fm_fail(err, FM_E_ARG, "temperature %g: expected 0 to 100", (double)o->temperature);
    }
    if (o->top_k < 0) {
        return fm_fail(err, FM_E_ARG, "top-k %d: expected 0 (off) or more", (int)o->top_k);
    }
    if (!(o->top_p > 0 && o->top_p <= 1)) {
        return fm_fail(err, FM_E_ARG, "top-p %g: expected above 0, up to 1", (double)o->top_p);
    }
    if (!(o->min_p >= 0 && o->min_p <= 1)) {
        return fm_fail(err, FM_E_ARG, "min-p %g: expected 0 to 1", (double)o->min_p);
    }
    if (!(o->repeat_penalty > 0 && o->repeat_penalty <= 100)) {
        return fm_fail(err, FM_E_ARG, "repeat penalty %g: expected above 0, up to 100",
                       (double)o->repeat_penalty);
    }
    if (o->repeat_last_n < 0 || o->repeat_last_n > 1 << 20) {
        return fm_fail(err, FM_E_ARG, "repeat window %d: expected 0 to %d", (int)o->repeat_last_n,
                       1 << 20);
    }
    return FM_OK;
}

fm_status fm_sampler_create(fm_sampler **out, int32_t n_vocab, const fm_sampler_options *opt,
                            fm_error *err)
{
    *out = NULL;
    FM_TRY(check_options(opt, n_vocab, err));
    fm_sampler *s = calloc(1, sizeof *s);
    if (!s) return fm_fail(err, FM_E_NOMEM, "sampler: no memory");
    s->opt = *opt;
    s->n_vocab = n_vocab;
    const size_t n = (size_t)n_vocab;
    const size_t n_recent = opt->repeat_last_n > 0 ? (size_t)opt->repeat_last_n : 1;
    size_t bytes;
    if (fm_mul_size(n, sizeof *s->candidates, &bytes)) {
        s->scores = malloc(n * sizeof *s->scores);
        s->candidates = malloc(bytes);
        s->recent = malloc(n_recent * sizeof *s->recent);
    }
    if (!s->scores || !s->candidates || !s->recent) {
        fm_sampler_destroy(s);
        return fm_fail(err, FM_E_NOMEM, "sampler: no memory for a vocabulary of %d", (int)n_vocab);
    }
    uint64_t state = opt->seed;
    for (int i = 0; i < 4; i++) s->rng[i] = fm_splitmix64(&state);
    *out = s;
    return FM_OK;
}

void fm_sampler_destroy(fm_sampler *s)
{
    if (!s) return;
    free(s->scores);
    free(s->candidates);
    free(s->recent);
    free(s);
}
