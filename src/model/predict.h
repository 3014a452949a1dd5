/* Which experts the next layer will want, guessed from the residual stream before that layer's attention
 * has run, and handed to the store as hints: reads that fill time in which the disk had nothing to do.
 * Changes when bytes arrive, never a result.
 *
 * The next layer's own router looks at the hidden state as it is now: layers change it little, so
 * most of its choices stand (Eliseev and Mazur 2023, arXiv 2312.17238, call it speculative loading). Of a long pass it sees
 * tokens here and there, and the experts that most of them would choose are read first; those that none would choose are
 * read only if the sample says that most of them will be wanted after all. When weights are streamed and the router is not
 * at hand, a long pass is taken to want every expert.
 * For one token that is done at the end of a layer, when all its experts have been added, or early as well: whenever the
 * layer waits for the disk, from the sum of the experts computed so far, to be read when all that it waits for is there.
 * Early guesses are worse and read more in vain, but the disk has work while the layer's last experts are computed. Which
 * way pays depends on disk, processors, budget and model, so it is measured: from time to time tokens are evaluated in two
 * ways in turn, and the faster way stays. Passes of a token and a draft guess as passes of several tokens do, and always.
 * Passes of a prompt cannot be evaluated twice to compare. A wrong guess costs the time of its read at most, a right one
 * saves that at most, so half of them is where, as a rule of thumb, they stop to pay: FM_PREFETCH_AUTO then guesses no more
 * for a while.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "flashmoe.h"

enum {
    FM_PREDICT_TOKENS = 64, /* that a router is asked about at a time       */
    FM_PREDICT_TRIAL = 12,  /* tokens of each kind in a comparison          */
};

typedef enum { FM_GUESS_NONE, FM_GUESS_AT_END, FM_GUESS_EARLY, FM_GUESS_KINDS } fm_guess_kind;

/* The comparison of the decided way (even tokens) with a rival (odd tokens). Pure bookkeeping. */
typedef struct {
    fm_prefetch mode;
    fm_guess_kind use;     /* of the token under way                               */
    fm_guess_kind decided; /* the outcome of the comparisons so far                */
    fm_guess_kind rival;   /* in the comparison under way or to come               */
    int32_t n_compared;    /* tokens of the comparison under way                   */
    int32_t n_wait;        /* tokens until the next one begins                     */
    int32_t period;        /* between comparisons; doubles while the outcome stands */
    uint64_t us[2][FM_PREDICT_TRIAL]; /* [decided, rival] */
} fm_predict_trial;

void fm_predict_trial_init(fm_predict_trial *t, fm_prefetch mode);
/* One token of generation took this long. had_miss: it waited for experts, so it can be compared. */
void fm_predict_trial_token(fm_predict_trial *t, uint64_t us, bool had_miss);

/* What passes of prompts have read ahead of late. Pure bookkeeping. */
typedef struct {
    fm_prefetch mode;
    uint64_t seen_reads, seen_used; /* the store's counts when it was last looked at         */
    uint64_t reads, used;           /* since then summed up; older ones count less and less  */
    int32_t n_wait;                 /* layers until guesses are tried again; 0: they are made */
    int32_t period;                 /* of the next wait; doubles while guesses stay wrong    */
} fm_predict_passes;

void fm_predict_passes_init(fm_predict_passes *p, fm_prefetch mode);
/* A pass begins: what was read ahead since a pass last asked is not counted. */
void fm_predict_passes_begin(fm_predict_passes *p, uint64_t reads, uint64_t used);
/* A layer of it has asked for its experts; reads, used: the store's counts of experts read ahead and of those that were
 * asked for. Whether the next layer's are to be guessed: with FM_PREFETCH_ON always, with FM_PREFETCH_OFF never. */
bool fm_predict_passes_pay(fm_predict_passes *p, uint64_t reads, uint64_t used);

/* count [n_expert]: how many tokens of a sample chose each expert. Of those that none chose so many will be wanted by the
 * tokens outside it: f1 (f1 - 1) / (2 (f2 + 1)), where f1 experts were chosen once and f2 twice, a lower bound (Chao 1984,
 * Nonparametric estimation of the number of classes in a population; this form: Chao 2005, Species estimation and
 * applications), and no more than there are. */
int32_t fm_unseen_but_wanted(const int32_t *count, int32_t n_expert);
