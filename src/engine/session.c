/* Sessions: one conversation's state and the loop that feeds tokens through the model in chunks.
 *
 * A chunk never changes results by its size alone: attention and the recurrent layers work in blocks
 * that start at absolute multiples of 64 positions, and chunks end at absolute multiples of the batch.
 * Which blocks are whole depends on how the caller cuts a text into calls, in the last bits.
 * A pass may therefore be shorter than the batch the user asked for (when memory is tight), as long as
 * it ends at a multiple of 64 or where the asked chunk ends; so for one --batch, and for every batch
 * that is a multiple of 64, the blocks, and with them the bits, are the same in every plan.
 *
 * With a draft layer a single token is evaluated together with a guess of the next one. What the guess gave is kept aside:
 * a caller who then asks for that very token gets it at once, any other is evaluated as if there had been no guess. */
#include "engine/engine_internal.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"

struct fm_session {
    fm_engine *engine;
    fm_kv *kv;
    int64_t n_past;
    const float *logits; /* of the last token, or NULL */
    int32_t draft;       /* what was evaluated behind the last token, -1: nothing */
    bool drafts;         /* the draft layer follows what is evaluated             */
    fm_draft_gate gate;
};

fm_status fm_session_create(fm_session **out, fm_engine *engine, fm_error *err)
{
    *out = NULL;
    if (!engine->run) return fm_fail(err, FM_E_ARG, "the engine was opened without weights");
    if (engine->has_session)
        return fm_fail(err, FM_E_LIMIT,
                       "the memory plan holds one session, and one is open already");
    fm_session *s = calloc(1, sizeof *s);
    if (!s) return fm_fail(err, FM_E_NOMEM, "no memory for a session");
    s->engine = engine;
    const fm_kv_shape shape = fm_model_kv_shape(engine->model, engine->plan.report.n_ctx,
                                                engine->plan.n_batch, engine->kv_type == FM_KV_F16);
    const fm_status st = fm_kv_create(&s->kv, &shape, &engine->ledger, err);
    if (st != FM_OK) {
        free(s);
        return st;
    }
    engine->has_session = true;
    s->draft = -1;
    s->drafts = engine->model->n_draft > 0;
    fm_draft_forget(engine->run);
    fm_draft_gate_init(&s->gate, engine->draft);
    *out = s;
    return FM_OK;
}

void fm_session_destroy(fm_session *s)
{
    if (!s) return;
    s->engine->has_session = false;
    fm_kv_destroy(s->kv);
    free(s);
}

const float *fm_session_logits(const fm_session *s)
{
    return s->logits;
}

int64_t fm_session_n_past(const fm_session *s)
{
    return s->n_past;
}

uint64_t fm_session_bytes_per_token(const fm_session *s)
{
    const fm_hparams *hp = &s->engine->model->hp;
    return fm_kv_touched_bytes(fm_kv_get_shape(s->kv), s->n_past, hp->index_topk, hp->window);
}

void fm_session_reset(fm_session *s)
{
    fm_kv_reset(s->kv);
    fm_draft_forget(s->engine->run);
    s->n_past = 0;
    s->logits = NULL;
    s->draft = -1;
}

/* After a call that broke off. Where every layer finds what it needs by position, and keeps all positions, the next call
 * writes over what this one wrote; recurrent state of some layers has moved on, and rings have lost old positions. */
static void take_back(fm_session *s, int64_t n_past)
{
    const fm_kv_shape *const shape = fm_kv_get_shape(s->kv);
    const bool by_position = shape->n_delta_layer == 0 && shape->n_window_layer == 0;
    fm_session_reset(s);
    if (by_position) s->n_past = n_past;
}

typedef struct {
    const fm_eval_options *opt;
    const fm_run *run;
    int64_t done, in_pass, total; /* in_pass: tokens of the pass under way, 0 between passes */
} progress;

static bool keep_going(void *user)
{
    const progress *p = user;
    if (!p->opt || !p->opt->progress) return true;
    const double part = p->in_pass ? fm_run_pass_share(p->run) * (double)p->in_pass : 0;
    return p->opt->progress(p->opt->progress_user, p->done + (int64_t)part, p->total);
}

/* Tokens of the next pass: up to the end of the chunk that the user's batch defines, or less when
 * the plan allows only shorter passes, then up to a multiple of the block. */
static int64_t pass_length(const fm_engine *e, int64_t pos, int64_t chunk_end)
{
    const int64_t left = chunk_end - pos, most = e->plan.n_batch;
    if (left <= most) return left;
    const int64_t end = (pos + most) / FM_DELTA_BLOCK * FM_DELTA_BLOCK;
    return end > pos ? end - pos : most;
}

/* A draft layer that fails, because its weights cannot be read say, ends the drafts and not the answer. */
static fm_status settle(fm_session *s, fm_status st, const fm_error *why, fm_error *err)
{
    if (st == FM_OK) return FM_OK;
    if (st == FM_E_CANCELLED) {
        if (err) *err = *why;
        return st;
    }
    fm_engine_log(s->engine, FM_LOG_WARN, "no more drafts: %s", why->msg);
    fm_draft_forget(s->engine->run);
    s->drafts = false;
    return FM_OK;
}

/* The positions that wait for the token id get their keys; with *draft the layer guesses what follows id. */
static fm_status draft_next(fm_session *s, int32_t id, int32_t *draft, const fm_pass_hooks *hooks,
                            fm_error *err)
{
    fm_error why;
    const fm_status st = fm_draft_next(s->engine->run, s->kv, id, draft, hooks, &why);
    if (st != FM_OK && draft) *draft = -1;
    return settle(s, st, &why, err);
}

/* n tokens were evaluated at n_past. */
static fm_status draft_follow(fm_session *s, const int32_t *ids, int64_t n,
                              const fm_pass_hooks *hooks, fm_error *err)
{
    if (!s->drafts) return FM_OK;
    fm_error why;
    const fm_status st =
        fm_draft_follow(s->engine->run, s->kv, ids, (int32_t)n, s->n_past, hooks, &why);
    return settle(s, st, &why, err);
}

/* One token, with a draft of the next one where that pays. */
static fm_status eval_one(fm_session *s, int32_t id, const int32_t *expected,
                          const fm_pass_hooks *hooks, fm_error *err)
{
    fm_engine *e = s->engine;
    const uint64_t t0 = fm_now_us();
    const int32_t drafted = s->draft;
    s->draft = -1;
    e->drafts_right += drafted == id;
    if (drafted == id) {
        fm_kv_exchange(s->kv);
        fm_draft_right(e->run);
        s->n_past++;
        s->logits = fm_run_logits(e->run) + e->model->hp.n_vocab;
        fm_draft_gate_token(&s->gate, fm_now_us() - t0, true);
        return FM_OK;
    }
    int32_t ids[2] = {id, -1};
    const bool wants = s->gate.use && s->n_past + 1 < e->plan.report.n_ctx;
    FM_TRY(draft_next(s, id, wants ? &ids[1] : NULL, hooks, err));
    const bool has_draft = ids[1] >= 0;
    if (has_draft && expected) ids[1] = *expected;
    FM_TRY(fm_run_pass(e->run, s->kv, ids, has_draft ? 2 : 1, s->n_past,
                       has_draft ? FM_HEAD_DRAFTED : FM_HEAD_LAST, hooks, err));
    if (has_draft) {
        fm_draft_pair(e->run, s->n_past, ids[1]);
        s->draft = ids[1];
        e->drafts++;
    } else {
        FM_TRY(draft_follow(s, ids, 1, hooks, err));
    }
    s->n_past++;
    s->logits = fm_run_logits(e->run);
    fm_draft_gate_token(&s->gate, fm_now_us() - t0, has_draft);
    return FM_OK;
}

fm_status fm_session_eval(fm_session *s, const int32_t *ids, size_t n, const fm_eval_options *opt,
                          fm_error *err)
{
    fm_engine *e = s->engine;
    if (opt && opt->struct_size != sizeof *opt)
        return fm_fail(err, FM_E_ARG, "fm_eval_options: size %zu, this library has %zu",
                       opt->struct_size, sizeof *opt);
    if (n == 0) return fm_fail(err, FM_E_ARG, "no tokens to evaluate");
    const int32_t n_vocab = e->model->hp.n_vocab;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= n_vocab)
            return fm_fail(err, FM_E_ARG,
                           "token %zu has id %" PRId32 ", the model has ids 0 to %" PRId32, i,
                           ids[i], n_vocab - 1);
    if (opt && opt->expected_next && (*opt->expected_next < 0 || *opt->expected_next >= n_vocab))
        return fm_fail(err, FM_E_ARG,
                       "expected_next is %" PRId32 ", the model has ids 0 to %" PRId32,
                       *opt->expected_next, n_vocab - 1);
    const int64_t n_ctx = e->plan.report.n_ctx;
    if (n > (size_t)(n_ctx - s->n_past))
        return fm_fail(err, FM_E_LIMIT,
                       "%zu tokens do not fit: the context holds %" PRId64 " and has %" PRId64
                       " (a longer one: --ctx)",
                       n, n_ctx, s->n_past);

    const uint64_t t0 = fm_now_us();
    progress p = {.opt = opt, .run = e->run, .total = (int64_t)n};
    const fm_pass_hooks hooks = {
        .keep_going = keep_going,
        .keep_user = &p,
        .logits = opt ? opt->every_logits : NULL,
        .logits_user = opt ? opt->logits_user : NULL,
        .logits_from = opt ? opt->logits_from : 0,
        .call_from = s->n_past,
        .call_to = s->n_past + (int64_t)n,
    };
    const int64_t end = s->n_past + (int64_t)n, batch = e->n_batch_asked;
    fm_status st = FM_OK;
    if (s->drafts && n == 1 && !hooks.logits) {
        p.in_pass = 1;
        st = eval_one(s, ids[0], opt ? opt->expected_next : NULL, &hooks, err);
        p.in_pass = 0;
        if (st == FM_OK) {
            p.done = 1;
            e->tokens_evaluated++;
            (void)keep_going(&p); /* says that it is done */
        }
    } else if (s->drafts) {
        s->draft = -1;
        st = draft_next(s, ids[0], NULL, &hooks, err);
    }
    while (s->n_past < end && st == FM_OK) {
        int64_t chunk_end = (s->n_past / batch + 1) * batch;
        if (chunk_end > end) chunk_end = end;
        const int64_t n_pass = pass_length(e, s->n_past, chunk_end);
        const bool last = s->n_past + n_pass == end;
        const bool wanted = hooks.logits && s->n_past + n_pass > hooks.logits_from;
        const fm_head_mode head = wanted ? FM_HEAD_ALL : last ? FM_HEAD_LAST : FM_HEAD_NONE;
        if (e->trace) fm_route_trace_pass(e->trace, n > 1, (int32_t)n_pass, s->n_past);
        p.in_pass = n_pass;
        st =
            fm_run_pass(e->run, s->kv, ids + p.done, (int32_t)n_pass, s->n_past, head, &hooks, err);
        if (st == FM_OK && e->trace) fm_route_trace_pass_end(e->trace);
        if (st == FM_OK) st = draft_follow(s, ids + p.done, n_pass, &hooks, err);
        if (st == FM_OK && s->drafts && !last)
            st = draft_next(s, ids[p.done + n_pass], NULL, &hooks, err);
        if (st != FM_OK) break;
        s->logits = fm_run_logits(e->run);
        s->n_past += n_pass;
        p.done += n_pass;
        p.in_pass = 0;
        e->tokens_evaluated += (uint64_t)n_pass;
        if (!keep_going(&p) && p.done < p.total) st = fm_fail(err, FM_E_CANCELLED, "stopped");
    }
    const uint64_t us = fm_now_us() - t0;
    if (n == 1) {
        e->gen_us += us;
    } else {
        e->prompt_us += us;
    }
    if (st != FM_OK) take_back(s, hooks.call_from);
    if (st != FM_OK && e->importance) fm_input_sums_spoil(e->importance);
    return st;
}
