/* Guesses of the next layer's experts: see predict.h. */
#include "model/predict.h"

#include <stdlib.h>
#include <string.h>

#include "model/run.h"

/* ---- does it pay? ------------------------------------------------------------------------ */

enum { PERIOD_FIRST = 64, PERIOD_MOST = 4096, SETTLE = 2 };

void fm_predict_trial_init(fm_predict_trial *t, fm_prefetch mode)
{
    const fm_guess_kind kind = mode == FM_PREFETCH_OFF ? FM_GUESS_NONE : FM_GUESS_EARLY;
    *t = (fm_predict_trial){.mode = mode,
                            .use = kind,
                            .decided = kind,
                            .rival = FM_GUESS_AT_END,
                            .n_wait = SETTLE,
                            .period = PERIOD_FIRST};
}

/* The decided way's rivals take turns; never to guess is one of them only where that is free. */
static fm_guess_kind next_rival(const fm_predict_trial *t)
{
    fm_guess_kind k = t->rival;
    do {
        k = (fm_guess_kind)((k + 1) % FM_GUESS_KINDS);
    } while (k == t->decided || (k == FM_GUESS_NONE && t->mode != FM_PREFETCH_AUTO));
    return k;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The middle half's sum: one slow read must not decide. */
static uint64_t middle(uint64_t *us)
{
    qsort(us, FM_PREDICT_TRIAL, sizeof *us, by_value);
    uint64_t sum = 0;
    for (int i = FM_PREDICT_TRIAL / 4; i < FM_PREDICT_TRIAL - FM_PREDICT_TRIAL / 4; i++)
        sum += us[i];
    return sum;
}

void fm_predict_trial_token(fm_predict_trial *t, uint64_t us, bool had_miss)
{
    if (t->mode == FM_PREFETCH_OFF || !had_miss) return;
    if (t->n_wait > 0) {
        t->n_wait--;
        return;
    }
    t->us[t->n_compared % 2][t->n_compared / 2] = us;
    t->n_compared++;
    t->use = t->n_compared % 2 == 0 ? t->decided : t->rival;
    if (t->n_compared < 2 * FM_PREDICT_TRIAL) return;
    /* Tokens differ by more than the ways do: what is within a few percent says nothing. */
    const uint64_t decided_us = middle(t->us[0]), rival_us = middle(t->us[1]);
    const bool stands = decided_us - decided_us / 32 <= rival_us;
    t->period = !stands                   ? PERIOD_FIRST
                : t->period < PERIOD_MOST ? t->period * 2
                                          : PERIOD_MOST;
    if (stands) {
        t->rival = next_rival(t);
    } else { /* who lost comes first: chance may have decided */
        const fm_guess_kind loser = t->decided;
        t->decided = t->rival;
        t->rival = loser;
    }
    t->use = t->decided;
    t->n_wait = t->period;
    t->n_compared = 0;
}

enum {
    PASSES_READS = 64, /* experts read ahead that say something */
    PASSES_FIRST = 64, /* layers */
    PASSES_MOST = 4096,
};

void fm_predict_passes_init(fm_predict_passes *p, fm_prefetch mode)
{
    *p = (fm_predict_passes){.mode = mode, .period = PASSES_FIRST};
}

void fm_predict_passes_begin(fm_predict_passes *p, uint64_t reads, uint64_t used)
{
    p->seen_reads = reads;
    p->seen_used = used;
}

bool fm_predict_passes_pay(fm_predict_passes *p, uint64_t reads, uint64_t used)
{
    p->reads += reads - p->seen_reads;
    p->used += used - p->seen_used;
    fm_predict_passes_begin(p, reads, used);
    if (p->mode != FM_PREFETCH_AUTO) return p->mode == FM_PREFETCH_ON;
    if (p->n_wait > 0) return --p->n_wait == 0;
    if (p->reads < PASSES_READS) return true;
    const bool pays = 2 * p->used >= p->reads;
    p->n_wait = pays ? 0 : p->period;
    if (pays) {
        p->period = PASSES_FIRST;
    } else if (p->period < PASSES_MOST) {
        p->period *= 2;
    }
    /* A new try begins with nothing; else the past counts half. */
    p->reads = pays ? p->reads / 2 : 0;
    p->used = pays ? p->used / 2 : 0;
    return pays;
}

/* ---- guesses ----------------------------------------------------------------------------- */

int32_t fm_unseen_but_wanted(const int32_t *count, int32_t n_expert)
{
    int64_t f0 = 0, f1 = 0, f2 = 0;
    for (int32_t e = 0; e < n_expert; e++) {
        f0 += count[e] == 0;
        f1 += count[e] == 1;
        f2 += count[e] == 2;
    }
    const int64_t wanted = f1 * (f1 - 1) / (2 * (f2 + 1));
    return (int32_t)(wanted < f0 ? wanted : f0);
}

/* The next layer's router on x, the residual stream of all tokens, or of FM_PREDICT_TOKENS spread evenly over them; ids by
 * number of tokens that would choose them, for one token by its router's order. What a sample missed comes last, and only
 * if most of it will be wanted. */
static int32_t ask_router(fm_run *r, const float *x, const fm_layer *next, uint8_t *const *ptr)
{
    const fm_hparams *hp = r->hp;
    fm_guess *g = &r->guess;
    const int32_t n_tok = r->n_tok < FM_PREDICT_TOKENS ? r->n_tok : FM_PREDICT_TOKENS;
    const float *norm = fm_weight_vector(next, ptr, FM_W_FFN_NORM);
    for (int32_t t = 0; t < n_tok; t++) {
        const int64_t from = (int64_t)t * r->n_tok / n_tok;
        r->k->rmsnorm(g->normed + (int64_t)t * hp->n_embd, x + from * hp->n_embd, norm, hp->eps,
                      hp->n_embd);
    }
    fm_matrix router = fm_weight_matrix(next, ptr, FM_W_ROUTER);
    router.tag = NULL; /* a guess does not count as its use */
    const fm_linear_op op = {.w = &router,
                             .y = g->logits,
                             .y_stride = hp->n_expert,
                             .bias = fm_weight_vector_or_null(next, ptr, FM_W_ROUTER_BIAS)};
    fm_acts_set(&g->in, g->normed, hp->n_embd, hp->n_embd, n_tok);
    fm_linear(r, &g->in, &op, 1);
    if (n_tok == 1) {
        fm_route_layer(r, next, ptr, g->logits, g->ids, g->weights);
        return hp->n_expert_used;
    }
    memset(g->count, 0, (size_t)hp->n_expert * sizeof *g->count);
    int32_t most = 0;
    for (int32_t t = 0; t < n_tok; t++) {
        fm_route_layer(r, next, ptr, g->logits + (int64_t)t * hp->n_expert, g->ids, g->weights);
        for (int32_t i = 0; i < hp->n_expert_used; i++)
            if (++g->count[g->ids[i]] > most) most = g->count[g->ids[i]];
    }
    int32_t n = 0;
    for (int32_t c = most; c > 0; c--)
        for (int32_t e = 0; e < hp->n_expert; e++)
            if (g->count[e] == c) g->ids[n++] = e;
    if (n_tok == r->n_tok || fm_unseen_but_wanted(g->count, hp->n_expert) < (hp->n_expert - n) / 2)
        return n;
    for (int32_t e = 0; e < hp->n_expert; e++)
        if (g->count[e] == 0) g->ids[n++] = e;
    return n;
}

void fm_guess_next(fm_run *r, int32_t layer, const float *x)
{
    const fm_hparams *hp = r->hp;
    const int32_t at = layer + 1;
    if (at >= hp->n_layer || r->model->layers[at].experts.n_expert == 0) return;
    if (r->n_tok == 1 && r->trial.use == FM_GUESS_NONE) return;
    if (r->trial.mode == FM_PREFETCH_OFF || fm_store_holds_layer(r->opt.store, at)) return;
    if (r->n_tok > 1 && !r->is_drafted) {
        fm_store_stats s;
        fm_store_stats_get(r->opt.store, &s);
        if (!fm_predict_passes_pay(&r->passes, s.prefetch_reads, s.prefetch_used)) return;
    }
    fm_guess *g = &r->guess;
    int32_t n = 0;
    if (fm_trunk_is_resident(r->opt.store, at)) {
        uint8_t *const *ptr;
        if (fm_trunk_acquire(r->opt.store, at, &ptr, NULL) != FM_OK) return;
        n = ask_router(r, x, &r->model->layers[at], ptr);
        fm_trunk_release(r->opt.store, at);
    } else if (r->n_tok > FM_PREDICT_TOKENS &&
               (int64_t)r->n_tok * hp->n_expert_used >= 2 * (int64_t)hp->n_expert) {
        for (; n < hp->n_expert; n++) g->ids[n] = n;
    } else {
        return;
    }
    fm_store_hint(r->opt.store, at, g->ids, n, r->n_tok == 1 ? FM_DEMAND_TOKEN : FM_DEMAND_BATCH);
    fm_run_poll_soon(r);
}
