/* Which experts the next layer will want, guessed from the residual stream before that layer's attention
 * has run, and handed to the store as hints: reads that fill time in which the disk had nothing to do.
 * Changes when bytes arrive, never a result.
 *
 * A prompt needs nearly every expert of every layer, so all of the next layer's are hinted. For few tokens
 * the next layer's own router looks at the hidden state as it is now: layers change it little, so
 * most of its choices stand (Eliseev and Mazur 2023, arXiv 2312.17238, call it speculative loading).
 * Whether this pays depends on disk, budget and model, so it is measured: from time to time tokens
 * are evaluated with and without in turn, and the faster way stays.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "flashmoe.h"

enum {
    FM_PREDICT_TOKENS = 64, /* passes up to this length ask the router      */
    FM_PREDICT_TRIAL = 8,   /* tokens of each kind in a comparison          */
};

/* The comparison: tokens in turn with (even) and without (odd) guesses. Pure bookkeeping. */
typedef struct {
    fm_prefetch mode;
    bool use;           /* guesses are made for the token under way              */
    bool decided;       /* the outcome of the last comparison                    */
    int32_t n_compared; /* tokens of the comparison under way                    */
    int32_t n_wait;     /* tokens until the next one begins                      */
    int32_t period;     /* between comparisons; doubles while the outcome stands */
    uint64_t us[2][FM_PREDICT_TRIAL];
} fm_predict_trial;

void fm_predict_trial_init(fm_predict_trial *t, fm_prefetch mode);
/* One token of generation took this long. had_miss: it waited for experts, so it can be compared. */
void fm_predict_trial_token(fm_predict_trial *t, uint64_t us, bool had_miss);
