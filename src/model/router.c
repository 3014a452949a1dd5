/* Scores, groups and the choice of experts. */
#include "model/router.h"

#include <math.h>

/* Keeps transformers' quotient defined when every score is zero. */
static const float SUM_EPS = 1e-20f;

static float choice_of(const float *scores, const float *bias, int32_t e)
{
    return bias ? scores[e] + bias[e] : scores[e];
}

/* used[g] for the n_group_used groups of the largest sums of two best choices. */
static void choose_groups(const fm_router *router, const float *scores, const float *bias,
                          int32_t n, bool *used)
{
    const int32_t size = n / router->n_group;
    float sum[FM_ROUTER_GROUPS_MAX];
    for (int32_t g = 0; g < router->n_group; g++) {
        float best = -INFINITY, second = -INFINITY;
        for (int32_t e = g * size; e < (g + 1) * size; e++) {
            const float c = choice_of(scores, bias, e);
            if (c > best) {
                second = best;
                best = c;
            } else if (c > second) {
                second = c;
            }
        }
        sum[g] = size > 1 ? best + second : best;
        used[g] = false;
    }
    for (int32_t i = 0; i < router->n_group_used; i++) {
        int32_t at = -1;
        for (int32_t g = 0; g < router->n_group; g++)
            if (!used[g] && (at < 0 || sum[g] > sum[at])) at = g;
        used[at] = true;
    }
}

/* The slots that found no number to choose (a broken file) get the lowest experts left. */
static void fill_rest(int32_t *ids, int32_t n_used)
{
    int32_t next = 0;
    for (int32_t i = 0; i < n_used; i++) {
        if (ids[i] >= 0) continue;
        for (int32_t j = 0; j < n_used; j++)
            if (ids[j] == next) {
                next++;
                j = -1;
            }
        ids[i] = next++;
    }
}

void fm_route(const fm_kernels *k, const fm_router *router, float *scores, const float *bias,
              int32_t n, int32_t n_used, int32_t *ids, float *weights)
{
    bool used[FM_ROUTER_GROUPS_MAX];
    if (router->gating == FM_GATE_SOFTMAX) {
        k->softmax(scores, n);
    } else {
        for (int32_t e = 0; e < n; e++) scores[e] = 1.0f / (1.0f + expf(-scores[e]));
    }
    const bool grouped = router->n_group > 1;
    const int32_t size = n / router->n_group;
    if (grouped) choose_groups(router, scores, bias, n, used);

    /* weights holds the choices, in descending order, until all are made */
    for (int32_t i = 0; i < n_used; i++) {
        ids[i] = -1;
        weights[i] = -INFINITY;
    }
    for (int32_t e = 0; e < n; e++) {
        if (grouped && !used[e / size]) continue;
        const float c = choice_of(scores, bias, e);
        if (!(c > weights[n_used - 1])) continue;
        int32_t at = n_used - 1;
        for (; at > 0 && c > weights[at - 1]; at--) {
            weights[at] = weights[at - 1];
            ids[at] = ids[at - 1];
        }
        weights[at] = c;
        ids[at] = e;
    }
    fill_rest(ids, n_used);
    float sum = 0.0f;
    for (int32_t i = 0; i < n_used; i++) sum += weights[i] = scores[ids[i]];
    if (router->gating == FM_GATE_SIGMOID) sum += SUM_EPS;
    for (int32_t i = 0; i < n_used; i++) {
        if (router->normalised) weights[i] /= sum;
        if (router->scale != 1.0f) weights[i] *= router->scale;
    }
}
