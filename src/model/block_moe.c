/* Mixture of experts: router, routed experts on loan from the store, shared expert, gated or not.
 *
 * This is where expert numbers meet bytes. Experts that are in memory are computed while reads of
 * the others are in flight; each missing one is computed when it lands. Every (token, expert) pair
 * has an output row of its own, and rows are summed in the router's order at the end, so neither
 * arrival nor placement shows in the result.
 *
 * An expert fresh from disk lies in rows; the items that compute with it bring it into panels first,
 * range by range, so the rearranging reads what the computation is about to read anyway.
 * Source: transformers, Qwen3*MoeSparseMoeBlock, DeepseekV3MoE; the choice is in router.c.
 */
#include "model/run.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "quant/planar.h"

enum { TOKENS_PER_CALL = 64, ROUTER_TOKENS_PER_ITEM = 8 };

/* One expert and the tokens it computes. */
typedef struct {
    fm_matrix gate, up, down; /* alternate: gate holds both, its rows are gate and up in turn */
    bool alternate;
    int64_t n_ff;
    bool fresh; /* bytes are rows; pack while computing              */
    int64_t n_tok;
    const int32_t *pair; /* [n_tok] pair numbers; token = pair / div          */
    int32_t div;
    float *out; /* row of a pair: out + pair * n_embd                 */
    const float *gate_bias, *up_bias, *down_bias; /* or NULL; alternate: gate's has both */
    int64_t row0;      /* first row in ff_gate, ff_up                        */
    fm_expert_ref ref; /* routed: what goes back to the store                */
    bool routed;
    int64_t first_in, first_out, rows_in, rows_out; /* work items                 */
} moe_job;

typedef struct {
    fm_run *r;
    int32_t layer;
    moe_job job[FM_MOE_JOBS + 1];
    int n_job;
    int64_t n_row; /* rows used in ff_gate */
    const fm_layer *l;
    float *so_far; /* of one token: gets the weighted results of what is computed; or NULL */
    const unsigned char *act[3];
    size_t act_stride[3];
} moe_set;

/* ---- router ------------------------------------------------------------------------------ */

void fm_route_layer(const fm_run *r, const fm_layer *l, uint8_t *const *ptr, float *scores,
                    int32_t *ids, float *weights)
{
    const fm_hparams *hp = r->hp;
    fm_route(r->k, &hp->router, scores, fm_weight_vector_or_null(l, ptr, FM_W_CHOICE_BIAS),
             hp->n_expert, hp->n_expert_used, ids, weights);
}

typedef struct {
    fm_run *r;
    const fm_layer *l;
    uint8_t *const *ptr;
} route_job;

static void route_item(void *ctx, int64_t item, int thread)
{
    (void)thread;
    const route_job *j = ctx;
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t t1 = (item + 1) * ROUTER_TOKENS_PER_ITEM;
    for (int64_t t = item * ROUTER_TOKENS_PER_ITEM; t < t1 && t < r->n_tok; t++)
        fm_route_layer(r, j->l, j->ptr, r->router + t * hp->n_expert,
                       r->ids + t * hp->n_expert_used, r->weights + t * hp->n_expert_used);
}

/* Groups pairs by expert; need_ids gets the experts in use, ascending. Returns their number. */
static int32_t group(fm_run *r)
{
    const fm_hparams *hp = r->hp;
    const int32_t n_pair = r->n_tok * hp->n_expert_used;
    memset(r->expert_count, 0, ((size_t)hp->n_expert + 1) * sizeof *r->expert_count);
    for (int32_t p = 0; p < n_pair; p++) r->expert_count[r->ids[p]]++;
    int32_t at = 0, n_need = 0;
    for (int32_t e = 0; e < hp->n_expert; e++) {
        r->expert_start[e] = at;
        at += r->expert_count[e];
        if (r->expert_count[e] == 0) continue;
        r->need_weight[n_need] = r->expert_count[e];
        r->need_ids[n_need++] = e;
    }
    for (int32_t p = 0; p < n_pair; p++) r->pairs[r->expert_start[r->ids[p]]++] = p;
    for (int32_t e = 0; e < hp->n_expert; e++) r->expert_start[e] -= r->expert_count[e];
    return n_need;
}

/* ---- computing a set of experts ---------------------------------------------------------- */

/* Packs the panels of rows [row0, row1) of w in place; rows past the last whole panel stay. */
static void pack_rows(fm_run *r, const fm_matrix *w, int64_t row0, int64_t row1, int thread)
{
    if (w->layout != FM_LAYOUT_PANELS) return;
    uint8_t *const plane[] = {(uint8_t *)(uintptr_t)w->data, (uint8_t *)(uintptr_t)w->aux[0],
                              (uint8_t *)(uintptr_t)w->aux[1]}; /* on loan from the store */
    fm_pack_planes(w->type, plane, row0, row1 - row0, w->n_in,
                   r->pack_scratch + (size_t)thread * r->pack_each);
}

static const moe_job *job_of(const moe_set *s, int64_t item, bool out)
{
    int j = s->n_job - 1;
    while (item < (out ? s->job[j].first_out : s->job[j].first_in)) j--;
    return &s->job[j];
}

/* y[i][row0..row1) += bias[row0..row1) for n rows y. */
static void add_bias(const fm_run *r, float *const *y, const float *bias, int64_t n, int64_t row0,
                     int64_t row1)
{
    for (int64_t i = 0; bias && i < n; i++) r->k->axpy(y[i] + row0, 1.0f, bias + row0, row1 - row0);
}

static void activate(const fm_run *r, float *gate, const float *up, int64_t n)
{
    const fm_hparams *hp = r->hp;
    if (hp->swiglu_limit > 0.0f) {
        r->k->clamped_swiglu(gate, gate, up, hp->swiglu_alpha, hp->swiglu_limit, n);
    } else {
        r->k->silu_mul(gate, gate, up, n);
    }
}

/* Rows [row0, row1) of the hidden vectors of n tokens when the rows of gate and up are in turn in one matrix. Its 2 (row1 -
 * row0) rows are computed into that range of g, up to a whole panel, and of u, and then paired; a pair lies at or behind
 * the place of its result in g. */
static void alternate_rows(const fm_run *r, const moe_job *j, int64_t row0, int64_t row1,
                           const void *const *act, float *const *g, float *const *u, int64_t n)
{
    enum { PAIRS = 64 };
    const int64_t n_row = 2 * (row1 - row0);
    int64_t n_first = (row1 - row0 + FM_PANEL_ROWS - 1) / FM_PANEL_ROWS * FM_PANEL_ROWS;
    if (n_first > n_row) n_first = n_row;
    float *first[TOKENS_PER_CALL], *second[TOKENS_PER_CALL];
    for (int64_t i = 0; i < n; i++) {
        first[i] = g[i] + row0;
        second[i] = u[i] + row0;
    }
    const int64_t start = 2 * row0;
    const fm_matrix all = fm_matrix_rows(&j->gate, start, j->gate.n_out - start);
    const fm_matrix rest = fm_matrix_rows(&all, n_first, all.n_out - n_first);
    r->k->matmul(&all, 0, n_first, act, first, n);
    if (n_row > n_first) r->k->matmul(&rest, 0, n_row - n_first, act, second, n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t h0 = 0; h0 < row1 - row0; h0 += PAIRS) {
            const int64_t n_pair = row1 - row0 - h0 < PAIRS ? row1 - row0 - h0 : PAIRS;
            float part[2][PAIRS]; /* gate, up */
            for (int64_t k = 0; k < 2 * n_pair; k++) {
                const int64_t row = 2 * h0 + k;
                const float v = row < n_first ? first[i][row] : second[i][row - n_first];
                part[k % 2][k / 2] = j->gate_bias ? v + j->gate_bias[start + row] : v;
            }
            activate(r, part[0], part[1], n_pair);
            memcpy(first[i] + h0, part[0], (size_t)n_pair * sizeof(float));
        }
}

/* silu(gate x) * (up x), or the family's form of it, for rows [row0, row1) of one expert, all its tokens. */
static void in_rows(const moe_set *s, const moe_job *j, int64_t row0, int64_t row1, int thread)
{
    fm_run *r = s->r;
    if (j->fresh && j->alternate) {
        pack_rows(r, &j->gate, 2 * row0, 2 * row1, thread);
    } else if (j->fresh) {
        pack_rows(r, &j->gate, row0, row1, thread);
        pack_rows(r, &j->up, row0, row1, thread);
    }
    const fm_act form_g = r->k->act_form(j->gate.type), form_u = r->k->act_form(j->up.type);
    for (int64_t i0 = 0; i0 < j->n_tok; i0 += TOKENS_PER_CALL) {
        if (j->n_tok > 1 && fm_run_stops(r, thread)) return; /* packed all the same */
        const int64_t n = j->n_tok - i0 < TOKENS_PER_CALL ? j->n_tok - i0 : TOKENS_PER_CALL;
        const void *act_g[TOKENS_PER_CALL], *act_u[TOKENS_PER_CALL];
        float *g[TOKENS_PER_CALL], *u[TOKENS_PER_CALL];
        for (int64_t i = 0; i < n; i++) {
            const size_t t = (size_t)(j->pair[i0 + i] / j->div);
            act_g[i] = s->act[form_g] + t * s->act_stride[form_g];
            act_u[i] = s->act[form_u] + t * s->act_stride[form_u];
            g[i] = r->ff_gate + (j->row0 + i0 + i) * r->ff_max;
            u[i] = r->ff_up + (j->row0 + i0 + i) * r->ff_max;
        }
        if (j->alternate) {
            alternate_rows(r, j, row0, row1, act_g, g, u, n);
            continue;
        }
        r->k->matmul(&j->gate, row0, row1, act_g, g, n);
        r->k->matmul(&j->up, row0, row1, act_u, u, n);
        add_bias(r, g, j->gate_bias, n, row0, row1);
        add_bias(r, u, j->up_bias, n, row0, row1);
        for (int64_t i = 0; i < n; i++) activate(r, g[i] + row0, u[i] + row0, row1 - row0);
    }
}

/* Rows of w that are computed at once: what is to be brought into panels is used a few panels at a time when few tokens
 * use it, while it is in the first cache. */
static int64_t rows_at_once(const moe_job *j, const fm_matrix *w, int64_t n_row)
{
    enum { FEW_TOKENS = 4, FEW_ROWS = 2 * FM_PANEL_ROWS };
    const bool packs = j->fresh && w->layout == FM_LAYOUT_PANELS;
    return packs && j->n_tok <= FEW_TOKENS && n_row > FEW_ROWS ? FEW_ROWS : n_row;
}

static void in_item(void *ctx, int64_t item, int thread)
{
    const moe_set *s = ctx;
    const moe_job *j = job_of(s, item, false);
    if (thread == 0) fm_run_poll(s->r);
    const int64_t ff = j->n_ff, row0 = (item - j->first_in) * j->rows_in;
    const int64_t row1 = row0 + j->rows_in < ff ? row0 + j->rows_in : ff;
    const int64_t step = rows_at_once(j, &j->gate, row1 - row0);
    for (int64_t at = row0; at < row1; at += step)
        in_rows(s, j, at, at + step < row1 ? at + step : row1, thread);
}

/* The hidden rows in the form the down projection wants. */
static void quantize_item(void *ctx, int64_t row, int thread)
{
    (void)thread;
    const moe_set *s = ctx;
    fm_run *r = s->r;
    int i = s->n_job - 1;
    while (row < s->job[i].row0) i--;
    const fm_matrix *down = &s->job[i].down;
    const fm_act form = r->k->act_form(down->type);
    if (form == FM_ACT_F32) return;
    r->k->quantize(form, r->ff_act.form[form] + (size_t)row * r->ff_act.form_bytes[form],
                   r->ff_gate + row * r->ff_max, down->n_in);
}

static void out_rows(const moe_set *s, const moe_job *j, int64_t row0, int64_t row1, int thread)
{
    fm_run *r = s->r;
    if (j->fresh) pack_rows(r, &j->down, row0, row1, thread);
    const fm_act form = r->k->act_form(j->down.type);
    for (int64_t i0 = 0; i0 < j->n_tok; i0 += TOKENS_PER_CALL) {
        if (j->n_tok > 1 && fm_run_stops(r, thread)) return; /* packed all the same */
        const int64_t n = j->n_tok - i0 < TOKENS_PER_CALL ? j->n_tok - i0 : TOKENS_PER_CALL;
        const void *act[TOKENS_PER_CALL];
        float *y[TOKENS_PER_CALL];
        for (int64_t i = 0; i < n; i++) {
            const int64_t row = j->row0 + i0 + i;
            act[i] = form == FM_ACT_F32
                         ? (const void *)(r->ff_gate + row * r->ff_max)
                         : r->ff_act.form[form] + (size_t)row * r->ff_act.form_bytes[form];
            y[i] = j->out + (int64_t)j->pair[i0 + i] * r->hp->n_embd;
        }
        r->k->matmul(&j->down, row0, row1, act, y, n);
        add_bias(r, y, j->down_bias, n, row0, row1);
    }
}

static void out_item(void *ctx, int64_t item, int thread)
{
    const moe_set *s = ctx;
    const moe_job *j = job_of(s, item, true);
    if (thread == 0) fm_run_poll(s->r);
    const int64_t n_embd = s->r->hp->n_embd, row0 = (item - j->first_out) * j->rows_out;
    const int64_t row1 = row0 + j->rows_out < n_embd ? row0 + j->rows_out : n_embd;
    const int64_t step = rows_at_once(j, &j->down, row1 - row0);
    for (int64_t at = row0; at < row1; at += step)
        out_rows(s, j, at, at + step < row1 ? at + step : row1, thread);
}

/* What the matrices of one job are multiplied with, its tokens in their order. */
static void importance_item(void *ctx, int64_t item, int thread)
{
    (void)thread;
    const moe_set *s = ctx;
    const fm_run *r = s->r;
    const moe_job *j = &s->job[item];
    const fm_input_sums_rows in = {r->in.x, r->in.stride, j->pair, j->div, j->n_tok};
    const fm_input_sums_rows hidden = {r->ff_gate + j->row0 * r->ff_max, r->ff_max, NULL, 1,
                                       j->n_tok};
    if (j->routed) {
        fm_input_sums_expert(r->opt.importance, s->layer, j->ref.expert, &in, &hidden);
    } else {
        fm_input_sums_matrix(r->opt.importance, j->gate.tag, &in);
        fm_input_sums_matrix(r->opt.importance, j->up.tag, &in);
        fm_input_sums_matrix(r->opt.importance, j->down.tag, &hidden);
    }
}

/* Rows per work item: whole panels, some items per thread over the whole set. More where the last item would keep all
 * waiting: when threads take several experts with several tokens each, which differ in their numbers of tokens, and for
 * one token, whose few experts do not fall into equal shares. */
static int64_t rows_per_item(const moe_set *s, int64_t n_out)
{
    const int n_thread = s->r->n_thread, n_job = s->n_job;
    const bool uneven = s->r->n_tok == 1 || (n_job >= n_thread && s->n_row > 4 * n_job);
    int64_t want = (int64_t)n_thread * (uneven ? 16 : 8) / n_job;
    if (want < 1) want = 1;
    if (n_thread > 1 && n_job < 4 && want < n_thread) want = n_thread;
    int64_t rows = (n_out + want - 1) / want;
    rows = (rows + FM_PANEL_ROWS - 1) / FM_PANEL_ROWS * FM_PANEL_ROWS;
    return rows < FM_PANEL_ROWS ? FM_PANEL_ROWS : rows;
}

/* Of the shared expert in the sum of token t: its own gate's, where it has one. */
static float shared_weight(const fm_run *r, const fm_layer *l, int64_t t)
{
    return l->piece_of[FM_W_SH_ROUTER] >= 0 ? 1.0f / (1.0f + expf(-r->shared_gate[t])) : 1.0f;
}

static void add_so_far(const moe_set *s)
{
    const fm_run *r = s->r;
    for (int i = 0; i < s->n_job; i++) {
        const moe_job *j = &s->job[i];
        const int32_t pair = *j->pair;
        r->k->axpy(s->so_far, j->routed ? r->weights[pair] : shared_weight(r, s->l, 0),
                   j->out + (int64_t)pair * r->hp->n_embd, r->hp->n_embd);
    }
}

static void expect_out(const moe_set *s, int64_t n_out)
{
    fm_run *r = s->r;
    if (r->n_tok > 1) return;
    for (int t = 0; t < r->n_thread; t++) {
        const int64_t item = fm_pool_first(r->pool, n_out, t);
        if (item >= n_out) break;
        const moe_job *j = job_of(s, item, true);
        if (!j->fresh) fm_expect_rows(r, t, &j->down, (item - j->first_out) * j->rows_out);
    }
}

static void compute_set(moe_set *s)
{
    fm_run *r = s->r;
    if (s->n_job == 0) return;
    int64_t n_in = 0, n_out = 0;
    for (int i = 0; i < s->n_job; i++) {
        moe_job *j = &s->job[i];
        j->rows_in = rows_per_item(s, j->n_ff);
        j->rows_out = rows_per_item(s, j->down.n_out);
        j->first_in = n_in;
        j->first_out = n_out;
        n_in += (j->n_ff + j->rows_in - 1) / j->rows_in;
        n_out += (j->down.n_out + j->rows_out - 1) / j->rows_out;
    }
    expect_out(s, n_out);
    fm_pool_run(r->pool, in_item, s, n_in);
    if (r->opt.importance) fm_pool_run(r->pool, importance_item, s, s->n_job);
    if (s->n_row < 16) {
        for (int64_t i = 0; i < s->n_row; i++) quantize_item(s, i, 0);
    } else {
        fm_pool_run(r->pool, quantize_item, s, s->n_row);
    }
    if (fm_lease_left(r->opt.store) == 0)
        fm_expect_unit(r, s->layer < r->hp->n_layer ? s->layer + 1 : r->hp->n_layer);
    fm_pool_run(r->pool, out_item, s, n_out);
    if (s->so_far) add_so_far(s);
    for (int i = 0; i < s->n_job; i++) {
        moe_job *j = &s->job[i];
        if (!j->routed) continue;
        if (j->fresh) fm_lease_prepared(r->opt.store, &j->ref);
        fm_lease_done(r->opt.store, &j->ref);
    }
    s->n_job = 0;
    s->n_row = 0;
}

/* Row `expert` of a bias [n_expert][n], or NULL when the layer has none. */
static const float *expert_bias(const fm_layer *l, uint8_t *const *ptr, fm_weight w, int32_t expert,
                                int64_t n)
{
    const float *bias = fm_weight_vector_or_null(l, ptr, w);
    return bias ? bias + expert * n : NULL;
}

static fm_matrix expert_matrix(const fm_layer *l, const fm_type_traits *type,
                               uint8_t *const *plane, int64_t n_in, int64_t n_out, bool by_columns)
{
    return by_columns ? fm_matrix_by_columns(type, plane[0], n_in, n_out)
                      : fm_matrix_of(type, l->book_layout, plane, 0, n_in, n_out);
}

static void add_expert(moe_set *s, const fm_layer *l, uint8_t *const *ptr, const fm_expert_ref *ref)
{
    fm_run *r = s->r;
    const fm_hparams *hp = r->hp;
    const int64_t ff = hp->n_ff_expert;
    moe_job *j = &s->job[s->n_job++];
    memset(j, 0, sizeof *j);
    j->ref = *ref;
    j->routed = true;
    j->fresh = ref->fresh;
    uint8_t *const *const gate = &ref->part[l->part_gate],
                          *const *const up = &ref->part[l->part_up],
                          *const *const down = &ref->part[l->part_down];
    j->n_ff = ff;
    j->alternate = l->alternate;
    if (l->fused_gate_up) {
        const fm_matrix both =
            expert_matrix(l, l->type_gate, gate, hp->n_embd, 2 * ff, l->gate_columns);
        j->gate = l->alternate ? both : fm_matrix_rows(&both, 0, ff);
        j->up = fm_matrix_rows(&both, ff, ff);
    } else {
        j->gate = expert_matrix(l, l->type_gate, gate, hp->n_embd, ff, l->gate_columns);
        j->up = expert_matrix(l, l->type_up, up, hp->n_embd, ff, l->gate_columns);
    }
    j->down = expert_matrix(l, l->type_down, down, ff, hp->n_embd, l->down_columns);
    j->gate_bias = expert_bias(l, ptr, FM_W_GATE_BIAS, ref->expert, l->alternate ? 2 * ff : ff);
    j->up_bias = expert_bias(l, ptr, FM_W_UP_BIAS, ref->expert, ff);
    j->down_bias = expert_bias(l, ptr, FM_W_DOWN_BIAS, ref->expert, hp->n_embd);
    j->n_tok = r->expert_count[ref->expert];
    j->pair = r->pairs + r->expert_start[ref->expert];
    j->div = hp->n_expert_used;
    j->out = r->expert_out;
    j->row0 = s->n_row;
    s->n_row += j->n_tok;
}

static void add_shared(moe_set *s, const fm_layer *l, uint8_t *const *ptr)
{
    fm_run *r = s->r;
    moe_job *j = &s->job[s->n_job++];
    memset(j, 0, sizeof *j);
    j->gate = fm_weight_matrix(l, ptr, FM_W_SH_GATE);
    j->up = fm_weight_matrix(l, ptr, FM_W_SH_UP);
    j->down = fm_weight_matrix(l, ptr, FM_W_SH_DOWN);
    j->n_ff = j->gate.n_out;
    j->n_tok = r->n_tok;
    j->pair = r->identity;
    j->div = 1;
    j->out = r->shared_out;
    j->row0 = s->n_row;
    s->n_row += r->n_tok;
}

/* ---- the block --------------------------------------------------------------------------- */

typedef struct {
    fm_run *r;
    const fm_layer *l;
} combine_job;

static void combine_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const combine_job *j = ctx;
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t n = hp->n_embd, k = hp->n_expert_used;
    float *sum = r->normed + t * n;
    memset(sum, 0, (size_t)n * sizeof *sum);
    for (int64_t i = 0; i < k; i++)
        r->k->axpy(sum, r->weights[t * k + i], r->expert_out + (t * k + i) * n, n);
    if (hp->n_ff_shared) {
        r->k->axpy(sum, shared_weight(r, j->l, t), r->shared_out + t * n, n);
    }
    r->k->axpy(r->x + t * n, 1.0f, sum, n);
}

/* Activations in every form that the experts of this layer ask for. */
static void set_acts(moe_set *s, const fm_layer *l, uint8_t *const *ptr)
{
    fm_run *r = s->r;
    const fm_type_traits *types[4] = {l->type_gate, l->type_up};
    int n = 2;
    if (r->hp->n_ff_shared) {
        types[n++] = fm_weight_matrix(l, ptr, FM_W_SH_GATE).type;
        types[n++] = fm_weight_matrix(l, ptr, FM_W_SH_UP).type;
    }
    for (int i = 0; i < n; i++) {
        const fm_act form = r->k->act_form(types[i]);
        s->act[form] = fm_acts_need(r, &r->in, types[i], &s->act_stride[form]);
    }
}

static fm_status run_experts(fm_run *r, int32_t layer, const fm_layer *l, uint8_t *const *ptr,
                             int32_t n_need, fm_error *err)
{
    fm_store *store = r->opt.store;
    const bool one = r->n_tok == 1;
    FM_TRY(fm_store_demand(store, layer, one ? r->ids : r->need_ids, one ? NULL : r->need_weight,
                           n_need, one ? FM_DEMAND_TOKEN : FM_DEMAND_BATCH, err));
    fm_run_poll_soon(r);
    const bool waits = fm_lease_ready(store) < n_need;
    r->misses |= waits;
    moe_set set = {.r = r, .layer = layer, .l = l};
    if (one && waits && r->trial.use == FM_GUESS_EARLY) {
        /* Apart from r->x: here experts are added in the order in which they arrive. */
        set.so_far = r->guess.so_far;
        memcpy(set.so_far, r->x, (size_t)r->hp->n_embd * sizeof *set.so_far);
    }
    set_acts(&set, l, ptr);
    if (r->hp->n_ff_shared) {
        add_shared(&set, l, ptr);
        /* The shared expert of many tokens fills the buffers alone; its time covers the first reads. */
        if (r->n_tok > FM_FEW_TOKENS) compute_set(&set);
    }
    if (!one) fm_guess_next(r, layer, r->x);
    while (fm_lease_left(store) > 0) {
        if (fm_run_stops(r, 0)) return fm_fail(err, FM_E_CANCELLED, "stopped");
        /* Wait only when there is nothing to compute. The reads of one token begin inside the items that compute what is
         * there, not before them. */
        if (one && set.n_job > 0 && fm_lease_ready(store) == 0) {
            compute_set(&set);
            /* What the disk will do once it has read what is waited for. */
            if (set.so_far && fm_lease_ready(store) == 0) fm_guess_next(r, layer, set.so_far);
        }
        fm_expert_ref ref;
        bool got = false;
        FM_TRY(fm_lease_next(store, &ref, set.n_job == 0, &got, err));
        if (got) {
            if (set.n_job > 0 && set.n_row + r->expert_count[ref.expert] > r->ff_rows)
                compute_set(&set);
            add_expert(&set, l, ptr, &ref);
        }
        if (!got || set.n_job == FM_MOE_JOBS) compute_set(&set);
    }
    compute_set(&set);
    return FM_OK;
}

fm_status fm_block_moe(fm_run *r, int32_t layer, const fm_layer *l, uint8_t *const *ptr,
                       fm_error *err)
{
    const fm_hparams *hp = r->hp;
    const fm_matrix router = fm_weight_matrix(l, ptr, FM_W_ROUTER);
    fm_matrix sh_router;
    fm_linear_op ops[2] = {
        {&router, r->router, hp->n_expert, fm_weight_vector_or_null(l, ptr, FM_W_ROUTER_BIAS)}};
    int n_op = 1;
    if (l->piece_of[FM_W_SH_ROUTER] >= 0) {
        sh_router = fm_weight_matrix(l, ptr, FM_W_SH_ROUTER);
        ops[n_op++] = (fm_linear_op){&sh_router, r->shared_gate, 1, NULL};
    }
    fm_acts_set(&r->in, r->normed, hp->n_embd, hp->n_embd, r->n_tok);
    fm_linear(r, &r->in, ops, n_op);
    route_job route = {r, l, ptr};
    fm_pool_run(r->pool, route_item, &route,
                (r->n_tok + ROUTER_TOKENS_PER_ITEM - 1) / ROUTER_TOKENS_PER_ITEM);
    /* Of a product that was broken off some scores are an older layer's: nothing is read or remembered for them. */
    if (fm_run_stops(r, 0)) return fm_fail(err, FM_E_CANCELLED, "stopped");
    if (r->opt.trace) fm_route_trace_layer(r->opt.trace, layer, r->ids);
    const int32_t n_need = group(r);

    const fm_status st = run_experts(r, layer, l, ptr, n_need, err);
    fm_store_demand_end(r->opt.store);
    if (st != FM_OK) return st;
    combine_job combine = {r, l};
    if (r->n_tok == 1) {
        combine_item(&combine, 0, 0);
        if (r->misses) fm_guess_next(r, layer, r->x);
    } else {
        fm_pool_run(r->pool, combine_item, &combine, r->n_tok);
    }
    return FM_OK;
}
