/* Whether drafts pay: tokens of generation are evaluated with and without drafts in turn, a few at a time, and the way
 * whose tokens took less time stays until the next comparison. What a draft saves depends on how often it is right,
 * and what it costs on how many experts have to be read, so nothing but time can tell. Pure bookkeeping. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "flashmoe.h"

enum {
    FM_DRAFT_TURN = 12, /* tokens of one way in a comparison; each way has two turns     */
    FM_DRAFT_PERIOD_FIRST =
        96 /* tokens until the next comparison; doubles while the outcome stands */
};

typedef struct {
    fm_draft_mode mode;
    bool use;             /* the next pass is to hold a draft           */
    bool decided;         /* the outcome of the comparisons so far      */
    int32_t n_turn, turn; /* tokens of the turn under way; turns that are over */
    int32_t n_wait;       /* tokens until a comparison begins; 0: one is under way */
    int32_t period;
    uint64_t us[2]; /* [plain, drafting] of the comparison under way */
    int32_t n_token[2];
} fm_draft_gate;

void fm_draft_gate_init(fm_draft_gate *g, fm_draft_mode mode);
/* One token was delivered after so long; drafted: by a pass that held a draft, or by a draft that was right. */
void fm_draft_gate_token(fm_draft_gate *g, uint64_t us, bool drafted);
