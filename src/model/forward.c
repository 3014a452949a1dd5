/* The forward pass: embedding, layers, head; and the working memory that all blocks share. Every
 * buffer is laid out once by one function that also measures, so the plan knows the exact size. */
#include "model/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "quant/planar.h"

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void fm_acts_layout(fm_acts *a, fm_arena *arena, int64_t rows, int64_t width)
{
    for (int form = 0; form < FM_ACT_COUNT; form++) {
        if (form == FM_ACT_F32) continue;
        const int64_t block = 256;
        a->form_bytes[form] = (size_t)fm_round_up(
            fm_act_bytes((fm_act)form, (width + block - 1) / block * block), 64);
        a->form[form] = fm_arena_take(arena, (size_t)rows * a->form_bytes[form]);
    }
}

/* Lays out every buffer of r in a; with a->base == NULL it only measures. */
static void layout(fm_run *r, fm_arena *a, int64_t B, int64_t n_ctx)
{
    const fm_hparams *hp = r->hp;
    const int64_t H = hp->n_embd, E = hp->n_expert, K = hp->n_expert_used, T = r->n_thread;
    const bool latent = hp->n_latent > 0;
    const int64_t d_query = latent ? hp->d_nope + hp->rope.n_rot : hp->d_head;
    const int64_t q = hp->n_head * d_query, kv = (int64_t)hp->n_head_kv * hp->d_head;
    const int64_t key = (int64_t)hp->n_k_head * hp->d_state,
                  val = (int64_t)hp->n_v_head * hp->d_state;
    const bool delta = r->model->n_delta > 0;
    const int64_t width_q = max_i64((hp->gated_attention ? 2 : 1) * q, delta ? 2 * key + val : 0);
    /* The indexer is done with its queries before those of attention are made. */
    const int64_t width_a = max_i64(width_q, (int64_t)hp->n_index_head * hp->d_index);
    const int64_t width_b = max_i64(latent ? kv : 2 * kv, delta ? val : 0);
    const int64_t width_o =
        max_i64(latent ? (int64_t)hp->n_head * hp->d_value : q, delta ? val : 0);
#define FLOATS(n) fm_arena_take(a, (size_t)(n) * sizeof(float))
#define INTS(n) fm_arena_take(a, (size_t)(n) * sizeof(int32_t))
    r->x = FLOATS(B * H);
    r->normed = FLOATS(B * H);
    fm_acts_layout(&r->in, a, B, max_i64(H, width_o));
    r->mix_a = FLOATS(B * width_a);
    r->mix_b = FLOATS(B * width_b);
    r->mix_o = FLOATS(B * width_o);
    r->mix_ba = FLOATS(2 * B * 2 * hp->n_v_head);
    r->rope_freq = fm_arena_take(a, (size_t)(hp->rope.n_rot / 2) * sizeof(double));
    r->rope_cos = FLOATS(B * (hp->rope.n_rot / 2));
    r->rope_sin = FLOATS(B * (hp->rope.n_rot / 2));
    fm_indexer_layout(r, a, B, n_ctx);
    (latent ? fm_latent_layout : fm_attention_layout)(r, a, B, n_ctx);
    r->delta_scratch_each =
        delta ? (int64_t)fm_round_up(fm_delta_scratch(hp->d_state, hp->d_state), 16) : 0;
    r->delta_scratch = FLOATS(T * r->delta_scratch_each);

    r->router = FLOATS(B * E);
    r->ids = INTS(B * K);
    r->weights = FLOATS(B * K);
    r->expert_count = INTS(E + 1);
    r->expert_start = INTS(E + 1);
    r->need_ids = INTS(E);
    r->need_weight = INTS(E);
    r->pairs = INTS(B * K);
    r->identity = INTS(B);
    r->expert_out = FLOATS(B * K * H);
    r->shared_out = FLOATS(hp->n_ff_shared ? B * H : 0);
    r->shared_gate = FLOATS(B);
    /* A token's routed experts and its shared one, or all tokens of one expert; a sum, because the plan counts on
     * scratch that grows in a straight line with the pass. */
    r->ff_rows = B + K;
    r->ff_max = (int64_t)fm_round_up((uint64_t)max_i64(hp->n_ff_expert, hp->n_ff_shared), 16);
    int64_t ff_floats = r->ff_rows * r->ff_max;
    if (hp->n_ff_dense) {
        /* Tokens of a dense layer at a time, so many per 64 of the pass, for the same reason. */
        const int64_t per_64 = 64 * r->ff_max / hp->n_ff_dense;
        const int64_t rows = B < 64 ? ff_floats / hp->n_ff_dense : B / 64 * per_64;
        r->dense_rows = rows < 1 ? 1 : rows < B ? rows : B;
        ff_floats += hp->n_ff_dense;
        fm_acts_layout(&r->dense_act, a, r->dense_rows, hp->n_ff_dense);
    }
    r->ff_gate = FLOATS(ff_floats);
    r->ff_up = FLOATS(ff_floats);
    fm_acts_layout(&r->ff_act, a, r->ff_rows, r->ff_max);
    r->pack_each = fm_round_up(fm_model_pack_scratch(r->model), 64);
    r->pack_scratch = fm_arena_take(a, (size_t)T * r->pack_each);
    const int64_t P = B < FM_PREDICT_TOKENS ? B : FM_PREDICT_TOKENS;
    r->guess.normed = FLOATS(P * H);
    r->guess.so_far = FLOATS(H);
    r->guess.logits = FLOATS(P * E);
    fm_acts_layout(&r->guess.in, a, P, H);
    r->guess.ids = INTS(max_i64(E, K));
    r->guess.count = INTS(E);
    r->guess.weights = FLOATS(K);
    r->logits = FLOATS((B > 1 ? FM_HEAD_GROUP : 1) * (int64_t)hp->n_vocab);
    r->embd_row = fm_arena_take(a, (size_t)fm_embd_row_bytes(r->model));
    fm_draft_layout(r, a);
#undef FLOATS
#undef INTS
}

uint64_t fm_run_bytes(const fm_model *m, int32_t n_batch, int64_t n_ctx, int n_thread)
{
    fm_run r = {.model = m, .hp = &m->hp, .n_thread = n_thread};
    fm_arena a = {0};
    layout(&r, &a, n_batch, n_ctx);
    return fm_round_up(a.used, FM_LEDGER_PAGE);
}

fm_status fm_run_create(fm_run **out, const fm_run_options *opt, fm_ledger *ledger, fm_error *err)
{
    *out = NULL;
    fm_run *r = calloc(1, sizeof *r);
    if (!r) return fm_fail(err, FM_E_NOMEM, "no memory for a forward pass");
    r->opt = *opt;
    r->model = opt->model;
    r->hp = &opt->model->hp;
    r->k = opt->kernels;
    r->pool = opt->pool;
    r->n_thread = fm_pool_size(opt->pool);
    r->ledger = ledger;
    r->arena.size = fm_run_bytes(opt->model, opt->n_batch, opt->n_ctx, r->n_thread);
    r->ledger_line = fm_ledger_line_of(ledger, FM_LINE_SCRATCH, r->arena.size);
    r->arena.base = fm_ledger_alloc(ledger, r->ledger_line, r->arena.size, 1, err);
    if (!r->arena.base) {
        free(r);
        return FM_E_NOMEM;
    }
    layout(r, &r->arena, opt->n_batch, opt->n_ctx);
    for (int32_t i = 0; i < opt->n_batch; i++) r->identity[i] = i;
    r->draft.n_low = FM_DRAFT_IDS;
    fm_predict_trial_init(&r->trial, opt->prefetch);
    fm_predict_passes_init(&r->passes, opt->prefetch);
    fm_rope_frequencies(&r->hp->rope, r->rope_freq);
    *out = r;
    return FM_OK;
}

void fm_run_destroy(fm_run *r)
{
    if (!r) return;
    fm_ledger_free(r->ledger, r->ledger_line, r->arena.base, r->arena.size);
    free(r);
}

const float *fm_run_logits(const fm_run *r)
{
    return r->logits;
}
void fm_run_drop_trace(fm_run *r)
{
    r->opt.trace = NULL;
}
void fm_run_stats_get(const fm_run *r, fm_run_stats *out)
{
    *out = r->stats;
}

void fm_whole_blocks(const fm_run *r, int64_t least, int64_t end, int64_t *from, int64_t *to)
{
    const int64_t each = FM_ATTN_BLOCK, pos1 = r->pos0 + r->n_tok;
    *from = *to = 0;
    if (!r->hooks) return;
    const int64_t call0 = (r->hooks->call_from + each - 1) / each * each;
    if (min_i64(r->hooks->call_to, end) / each * each - call0 < least) return;
    const int64_t p0 = (r->pos0 + each - 1) / each * each, p1 = min_i64(pos1, end) / each * each;
    if (p0 >= p1) return;
    *from = p0 - r->pos0;
    *to = p1 - r->pos0;
}

void fm_cache_values(const fm_run *r, float *dst, const void *cache, int64_t first, int64_t n)
{
    if (fm_kv_get_shape(r->kv)->f16)
        r->k->from_f16(dst, (const uint16_t *)cache + first, n);
    else
        memcpy(dst, (const float *)cache + first, (size_t)n * sizeof *dst);
}

/* ---- pieces of a pass -------------------------------------------------------------------- */

static fm_status stopped(fm_error *err)
{
    return fm_fail(err, FM_E_CANCELLED, "stopped");
}

/* Rows whose reads are under way at a time. */
enum { EMBD_AHEAD = 64 };

typedef struct {
    uint64_t offset;
    size_t bytes;
} embd_place;

/* Where plane k of the row of token id lies in its file. */
static embd_place embd_row(const fm_run *r, int32_t id, int k)
{
    const fm_tensor_info *t = r->model->embd;
    const fm_type_traits *type = fm_type_get(t->type);
    const uint64_t row = fm_plane_row_bytes(type, k, r->hp->n_embd);
    const uint64_t offset = k == 0 ? t->offset : t->aux[k - 1].offset;
    return (embd_place){offset + (uint64_t)(fm_plane_rows(type, k, id + 1) - 1) * row, (size_t)row};
}

fm_status fm_embed(fm_run *r, float *y, const int32_t *ids, int32_t n, fm_error *err)
{
    const fm_type_traits *type = fm_type_get(r->model->embd->type);
    const int64_t n_embd = r->hp->n_embd;
    const int n_plane = fm_type_n_plane(type);
    int32_t asked = 0;
    for (int32_t i = 0; i < n; i++) {
        if (fm_run_stops(r, 0)) return stopped(err);
        for (; n > 1 && asked < n && asked < i + EMBD_AHEAD; asked++)
            for (int k = 0; k < n_plane; k++) {
                const embd_place p = embd_row(r, ids[asked], k);
                r->opt.hint_embd(r->opt.read_user, p.bytes, k, p.offset);
            }
        const void *plane[FM_MAX_PLANES];
        unsigned char *at = r->embd_row;
        for (int k = 0; k < n_plane; k++) {
            const embd_place p = embd_row(r, ids[i], k);
            const uint64_t t0 = fm_now_us();
            FM_TRY(r->opt.read_embd(r->opt.read_user, at, p.bytes, k, p.offset, err));
            r->stats.embd_us += fm_now_us() - t0;
            plane[k] = at;
            at += p.bytes;
        }
        fm_decode_planes(type, y + i * n_embd, plane, n_embd);
    }
    return FM_OK;
}

uint64_t fm_disk_wait_us(const fm_run *r)
{
    fm_store_stats s;
    fm_store_stats_get(r->opt.store, &s);
    return s.wait_us;
}

static fm_status layer_pass(fm_run *r, int32_t i, fm_error *err)
{
    const fm_layer *l = &r->model->layers[i];
    uint8_t *const *ptr;
    FM_TRY(fm_trunk_acquire(r->opt.store, i, &ptr, err));
    /* Where no layer with experts stands before it, nobody has guessed this one's yet. */
    if (i == 0 || r->model->layers[i - 1].experts.n_expert == 0) fm_guess_next(r, i - 1, r->x);
    const uint64_t t0 = fm_now_us();
    fm_norm_rows(r, r->normed, r->x, fm_weight_vector(l, ptr, FM_W_ATTN_NORM));
    switch (l->mixer) {
    case FM_MIX_ATTENTION:
        fm_block_attention(r, l, ptr);
        break;
    case FM_MIX_LATENT:
        fm_block_latent(r, i, l, ptr);
        break;
    case FM_MIX_DELTA:
        fm_block_delta(r, l, ptr);
        break;
    }
    fm_norm_rows(r, r->normed, r->x, fm_weight_vector(l, ptr, FM_W_FFN_NORM));
    const uint64_t t1 = fm_now_us(), waited = fm_disk_wait_us(r);
    fm_status st = FM_OK;
    if (fm_run_stops(r, 0)) {
        st = stopped(err);
    } else if (l->experts.n_expert) {
        st = fm_block_moe(r, i, l, ptr, err);
    } else {
        fm_block_dense(r, l, ptr);
    }
    r->stats.attention_us += t1 - t0;
    r->stats.expert_us += fm_now_us() - t1 - (fm_disk_wait_us(r) - waited);
    fm_trunk_release(r->opt.store, i);
    return st;
}

/* The head is used in row ranges, which may be streamed. */
fm_status fm_head_rows(fm_run *r, float *logits, const float *x, const float *norm, int32_t n,
                       int64_t n_row, fm_error *err)
{
    const fm_model *m = r->model;
    const int64_t n_embd = r->hp->n_embd;
    const int32_t first = m->hp.n_layer;
    for (int32_t u = first; u < first + m->n_head_unit && fm_output_row0(m, u) < n_row; u++) {
        uint8_t *const *ptr;
        FM_TRY(fm_trunk_acquire(r->opt.store, u, &ptr, err));
        if (u == first) {
            const float *w = norm ? norm : fm_output_norm(m, ptr);
            for (int32_t t = 0; t < n; t++)
                r->k->rmsnorm(r->normed + t * n_embd, x + t * n_embd, w, r->hp->eps, n_embd);
            fm_acts_set(&r->in, r->normed, n_embd, n_embd, n);
        }
        fm_matrix w = fm_output_matrix(m, u, ptr);
        if (w.n_out > n_row - fm_output_row0(m, u)) w.n_out = n_row - fm_output_row0(m, u);
        if (u + 1 < first + m->n_head_unit && fm_output_row0(m, u + 1) < n_row)
            fm_expect_unit(r, u + 1);
        if (u == first) w.tag = m->head; /* all units see the same rows: counted once */
        const fm_linear_op op = {&w, logits + fm_output_row0(m, u), r->hp->n_vocab, NULL};
        fm_linear(r, &r->in, &op, 1);
        fm_trunk_release(r->opt.store, u);
        if (fm_run_stops(r, 0)) return stopped(err);
    }
    return FM_OK;
}

static fm_status heads(fm_run *r, fm_head_mode mode, fm_error *err)
{
    const uint64_t t0 = fm_now_us(), waited = fm_disk_wait_us(r);
    const float *const last = r->x + (int64_t)(r->n_tok - 1) * r->hp->n_embd;
    fm_status st = FM_OK;
    if (mode == FM_HEAD_LAST) {
        st = fm_head_rows(r, r->logits, last, NULL, 1, r->hp->n_vocab, err);
    } else if (mode == FM_HEAD_DRAFTED) {
        st = fm_head_rows(r, r->logits, r->x, NULL, r->n_tok, r->hp->n_vocab, err);
    } else if (mode == FM_HEAD_ALL) {
        const int32_t group = r->opt.n_batch > 1 ? FM_HEAD_GROUP : 1;
        const int64_t from = r->hooks->logits_from - r->pos0;
        for (int32_t t = from > 0 ? (int32_t)from : 0; t < r->n_tok && st == FM_OK; t += group) {
            const int32_t n = r->n_tok - t < group ? r->n_tok - t : group;
            st = fm_head_rows(r, r->logits, r->x + (int64_t)t * r->hp->n_embd, NULL, n,
                              r->hp->n_vocab, err);
            for (int32_t i = 0; i < n && st == FM_OK; i++)
                if (!r->hooks->logits(r->hooks->logits_user, r->pos0 + t + i,
                                      r->logits + (int64_t)i * r->hp->n_vocab))
                    st = stopped(err);
            if (st == FM_OK && t + n == r->n_tok && n > 1)
                memmove(r->logits, r->logits + (int64_t)(n - 1) * r->hp->n_vocab,
                        (size_t)r->hp->n_vocab * sizeof *r->logits);
        }
    }
    r->stats.head_us += fm_now_us() - t0 - (fm_disk_wait_us(r) - waited);
    return st;
}

fm_status fm_run_pass(fm_run *r, fm_kv *kv, const int32_t *ids, int32_t n, int64_t pos0,
                      fm_head_mode head, const fm_pass_hooks *hooks, fm_error *err)
{
    r->kv = kv;
    r->pos0 = pos0;
    r->n_tok = n;
    r->is_drafted = head == FM_HEAD_DRAFTED;
    r->hooks = hooks;
    r->layers_done = 0;
    atomic_store(&r->stop, false);
    fm_store_stats before, after;
    fm_store_stats_get(r->opt.store, &before);
    fm_predict_passes_begin(&r->passes, before.prefetch_reads, before.prefetch_used);
    const uint64_t t0 = fm_now_us();
    FM_TRY(fm_embed(r, r->x, ids, n, err));
    fm_rope_tables(&r->hp->rope, r->rope_freq, pos0, n, r->rope_cos, r->rope_sin);
    for (int32_t i = 0; i < r->hp->n_layer; i++) {
        if (fm_run_stops(r, 0)) return stopped(err);
        FM_TRY(layer_pass(r, i, err));
        r->layers_done = i + 1;
    }
    FM_TRY(heads(r, head, err));
    fm_store_poll(r->opt.store); /* the first layers of the next pass, where they are streamed */
    fm_store_stats_get(r->opt.store, &after);
    r->misses = after.misses > before.misses || after.prefetch_used > before.prefetch_used;
    if (n == 1) fm_predict_trial_token(&r->trial, fm_now_us() - t0, r->misses);
    /* The last layer's experts may have been broken off. */
    return atomic_load(&r->stop) ? stopped(err) : FM_OK;
}

double fm_run_pass_share(const fm_run *r)
{
    /* The head counts as one layer more. */
    return (double)r->layers_done / (double)(r->hp->n_layer + 1);
}
