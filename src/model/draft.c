/* The draft layer (multi-token prediction): from the hidden state h_t of a position and the embedding e_{t+1} of the token
 * that follows it,
 *
 *     m_t = W [ rms(e_{t+1}) ; rms(h_t) ],   one layer of full attention and experts over m_0 .. m_t,
 *     a norm of its own and the model's head: logits of the token after the next.
 *
 * h_t is the output of the model's last norm. The layer has keys and values of its own for every position; what follows
 * the prompt alone needs more than these. A draft is only a guess: whether it is right the model itself says, so nothing
 * here can change what a session answers. So of a large vocabulary only the lower ids are looked at as long as few tokens of
 * the text have others: byte-pair encodings number tokens as they were found, frequent ones first.
 * Source: DeepSeek-V3 (arXiv 2412.19437), 2.2; the order of the halves and the norms as in published checkpoints of Qwen3.5
 * and GLM-4.5. Checked by tests/model/test_draft.c.
 */
#include "model/run.h"

#include <string.h>

void fm_draft_layout(fm_run *r, fm_arena *a)
{
    const fm_hparams *hp = r->hp;
    fm_draft *d = &r->draft;
    if (r->model->n_draft == 0) return;
    const int64_t H = hp->n_embd, N = FM_DRAFT_STEP;
#define FLOATS(n) fm_arena_take(a, (size_t)(n) * sizeof(float))
    d->waiting = FLOATS(2 * H);
    d->hidden = FLOATS(N * H);
    d->pair = FLOATS(N * 2 * H);
    d->x = FLOATS(N * H);
    d->normed = FLOATS(N * H);
    d->kv = FLOATS(N * 2 * hp->n_head_kv * hp->d_head);
    d->rope_cos = FLOATS(N * (hp->rope.n_rot / 2));
    d->rope_sin = FLOATS(N * (hp->rope.n_rot / 2));
    d->logits = FLOATS(hp->n_vocab);
#undef FLOATS
    fm_acts_layout(&d->in, a, N, 2 * H);
}

const float *fm_draft_logits(const fm_run *r)
{
    return r->draft.logits;
}

void fm_draft_forget(fm_run *r)
{
    r->draft.n_waiting = 0;
    r->draft.rare = 0;
}

static const float *final_norm(const fm_run *r)
{
    uint8_t *const *ptr;
    const int32_t unit = r->model->hp.n_layer;
    fm_trunk_acquire(r->opt.store, unit, &ptr, NULL); /* resident wherever drafts are made */
    const float *w = fm_output_norm(r->model, ptr);
    fm_trunk_release(r->opt.store, unit);
    return w;
}

static void hidden_states(fm_run *r, float *y, const float *x, int64_t n)
{
    const int64_t H = r->hp->n_embd;
    const float *const w = final_norm(r);
    for (int64_t t = 0; t < n; t++) r->k->rmsnorm(y + t * H, x + t * H, w, r->hp->eps, H);
}

/* The layer's inputs of n positions, of which hidden [n][n_embd] and the next tokens are given, to d->x. */
static fm_status join(fm_run *r, const fm_layer *l, uint8_t *const *ptr, const float *hidden,
                      const int32_t *next, int32_t n, fm_error *err)
{
    const int64_t H = r->hp->n_embd;
    fm_draft *d = &r->draft;
    const float *const we = fm_weight_vector(l, ptr, FM_W_DRAFT_EMBD_NORM),
                       *const wh = fm_weight_vector(l, ptr, FM_W_DRAFT_HIDDEN_NORM);
    FM_TRY(fm_embed(r, d->normed, next, n, err));
    for (int32_t t = 0; t < n; t++) {
        float *const pair = d->pair + t * 2 * H;
        r->k->rmsnorm(pair, d->normed + t * H, we, r->hp->eps, H);
        r->k->rmsnorm(pair + H, hidden + t * H, wh, r->hp->eps, H);
    }
    const fm_matrix w = fm_weight_matrix(l, ptr, FM_W_DRAFT_IN);
    const fm_linear_op op = {&w, d->x, H, NULL};
    fm_acts_set(&d->in, d->pair, 2 * H, 2 * H, n);
    fm_linear(r, &d->in, &op, 1);
    return FM_OK;
}

/* Keys and values of the n first inputs in d->x, which are of positions pos0 on. */
static void keep(fm_run *r, const fm_layer *l, uint8_t *const *ptr, int32_t n, int64_t pos0)
{
    const int64_t H = r->hp->n_embd;
    fm_draft *d = &r->draft;
    const float *const w = fm_weight_vector(l, ptr, FM_W_ATTN_NORM);
    for (int32_t t = 0; t < n; t++)
        r->k->rmsnorm(d->normed + t * H, d->x + t * H, w, r->hp->eps, H);
    fm_acts_set(&d->in, d->normed, H, H, n);
    fm_rope_tables(&r->hp->rope, r->rope_freq, pos0, n, d->rope_cos, d->rope_sin);
    fm_attention_keep(r, l, ptr, &d->in, d->kv, pos0, d->rope_cos, d->rope_sin);
}

static int32_t largest(const float *x, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* Ids that a draft may have. To look at all of a head of 248,320 costs a tenth of a pass and gains the drafts of rare tokens
 * at most. */
static int32_t n_drafted_ids(const fm_run *r)
{
    const int32_t n_vocab = r->hp->n_vocab;
    return n_vocab <= r->draft.n_low || r->draft.rare > 0.08f ? n_vocab : r->draft.n_low;
}

static void note_ids(fm_draft *d, const int32_t *ids, int32_t n)
{
    enum { SPAN = 64 };
    for (int32_t i = 0; i < n; i++)
        d->rare += ((ids[i] >= d->n_low ? 1.0f : 0.0f) - d->rare) / SPAN;
}

/* The whole layer for the position pos with input x, and its logits. */
static fm_status evaluate(fm_run *r, const fm_layer *l, uint8_t *const *ptr, const float *x,
                          int64_t pos, int32_t *draft, fm_error *err)
{
    const fm_hparams *hp = r->hp;
    r->n_tok = 1;
    r->pos0 = pos;
    memcpy(r->x, x, (size_t)hp->n_embd * sizeof *x);
    fm_rope_tables(&hp->rope, r->rope_freq, pos, 1, r->rope_cos, r->rope_sin);
    fm_norm_rows(r, r->normed, r->x, fm_weight_vector(l, ptr, FM_W_ATTN_NORM));
    fm_block_attention(r, l, ptr);
    fm_norm_rows(r, r->normed, r->x, fm_weight_vector(l, ptr, FM_W_FFN_NORM));
    FM_TRY(fm_block_moe(r, hp->n_layer, l, ptr, err));
    const int32_t n_id = n_drafted_ids(r);
    FM_TRY(fm_head_rows(r, r->draft.logits, r->x, fm_weight_vector(l, ptr, FM_W_DRAFT_OUT_NORM), 1,
                        n_id, err));
    *draft = largest(r->draft.logits, n_id);
    return FM_OK;
}

/* Waits of the draft layer so far, which are counted elsewhere. */
static uint64_t waited_us(const fm_run *r)
{
    return fm_disk_wait_us(r) + r->stats.embd_us;
}

static void begin(fm_run *r, fm_kv *kv, const fm_pass_hooks *hooks)
{
    r->kv = kv;
    r->hooks = hooks;
    r->is_drafted = false;
    atomic_store(&r->stop, false);
}

/* n positions from pos0 on, whose hidden states and next tokens are given; with `draft` the last one whole. */
static fm_status advance(fm_run *r, const float *hidden, const int32_t *next, int32_t n,
                         int64_t pos0, int32_t *draft, fm_error *err)
{
    const int32_t unit = r->model->n_unit - 1;
    const fm_layer *const l = &r->model->layers[r->hp->n_layer];
    uint8_t *const *ptr;
    FM_TRY(fm_trunk_acquire(r->opt.store, unit, &ptr, err));
    note_ids(&r->draft, next, n);
    fm_status st = join(r, l, ptr, hidden, next, n, err);
    const int32_t n_keep = draft ? n - 1 : n;
    if (st == FM_OK && n_keep > 0) keep(r, l, ptr, n_keep, pos0);
    if (st == FM_OK && draft)
        st = evaluate(r, l, ptr, r->draft.x + (int64_t)n_keep * r->hp->n_embd, pos0 + n_keep, draft,
                      err);
    fm_trunk_release(r->opt.store, unit);
    if (st == FM_OK && atomic_load(&r->stop)) st = fm_fail(err, FM_E_CANCELLED, "stopped");
    return st;
}

fm_status fm_draft_follow(fm_run *r, fm_kv *kv, const int32_t *ids, int32_t n, int64_t pos0,
                          const fm_pass_hooks *hooks, fm_error *err)
{
    const int64_t H = r->hp->n_embd;
    const uint64_t t0 = fm_now_us(), waited = waited_us(r);
    fm_draft *d = &r->draft;
    begin(r, kv, hooks);
    for (int32_t t = 0; t < n - 1; t += FM_DRAFT_STEP) {
        const int32_t left = n - 1 - t, part = left < FM_DRAFT_STEP ? left : FM_DRAFT_STEP;
        hidden_states(r, d->hidden, r->x + t * H, part);
        FM_TRY(advance(r, d->hidden, ids + t + 1, part, pos0 + t, NULL, err));
    }
    hidden_states(r, d->waiting, r->x + (n - 1) * H, 1);
    d->n_waiting = 1;
    d->pos = pos0 + n - 1;
    r->stats.draft_us += fm_now_us() - t0 - (waited_us(r) - waited);
    return FM_OK;
}

void fm_draft_pair(fm_run *r, int64_t pos0, int32_t draft)
{
    hidden_states(r, r->draft.waiting, r->x, 2);
    r->draft.n_waiting = 1;
    r->draft.pos = pos0;
    r->draft.next[0] = draft;
}

void fm_draft_right(fm_run *r)
{
    r->draft.n_waiting = 2;
}

fm_status fm_draft_next(fm_run *r, fm_kv *kv, int32_t next, int32_t *draft,
                        const fm_pass_hooks *hooks, fm_error *err)
{
    fm_draft *d = &r->draft;
    const int32_t n = d->n_waiting;
    if (draft) *draft = -1;
    if (n == 0) return FM_OK;
    const uint64_t t0 = fm_now_us(), waited = waited_us(r);
    d->next[n - 1] = next;
    d->n_waiting = 0;
    begin(r, kv, hooks);
    const fm_status st = advance(r, d->waiting, d->next, n, d->pos, draft, err);
    r->stats.draft_us += fm_now_us() - t0 - (waited_us(r) - waited);
    return st;
}
