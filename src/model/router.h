/* The router: which experts compute a token, and with what weights. */
#pragma once

#include "kernel/kernel.h"

typedef enum {
    FM_GATE_SOFTMAX, /* scores are the softmax over all experts      */
    FM_GATE_SIGMOID, /* scores are logistic, each for itself         */
} fm_gating;

enum { FM_ROUTER_GROUPS_MAX = 256 };

typedef struct {
    fm_gating gating;
    /* Experts lie in n_group runs of equal length; only the n_group_used runs whose two best
     * choices have the largest sum are chosen from. 1 and 1: no groups. */
    int32_t n_group, n_group_used;
    bool normalised; /* weights of the chosen are divided by their sum    */
    float scale;     /* then multiplied by this                           */
} fm_router;

/* Chooses n_used of n experts for one token. scores [n]: logits on entry, scores on return. bias [n] or
 * NULL is added for choosing only. ids, weights [n_used], best choice first; on equal choices the lower
 * number wins. A score that is not a number is never chosen while others are left.
 *
 * Sources: softmax: transformers, Qwen3*MoeTopKRouter; sigmoid, bias and groups: DeepSeek-V3
 * (arXiv 2412.19437) section 2.1.2 and transformers, DeepseekV3TopkRouter. Groups that are not used are
 * out of the choice altogether, as there; other code gives them the choice 0, which differs when a
 * choice is negative. */
void fm_route(const fm_kernels *k, const fm_router *router, float *scores, const float *bias,
              int32_t n, int32_t n_used, int32_t *ids, float *weights);
