/* Multi-head latent attention, in the absorbed form: a cached position is one row of n_latent + n_rot
 * values that all heads share.
 *
 *   c_q = norm(W_qa x)           q_h = W_qb c_q, per head [nope | rot]     (or q_h = W_q x)
 *   [c | k] = W_kva x            c <- norm(c); rot of q_h and k turn by the position
 *   cached row s                 [c_s | k_s]
 *   q'_h = K_h^T nope_h          K_h [d_nope][n_latent]
 *   score_hs = scale (q'_h . c_s + rot_h . k_s)
 *   o_h = V_h sum_s p_hs c_s     V_h [d_value][n_latent]
 *
 * which equals attention with keys [K_h c_s | k_s] and values V_h c_s; long prompts compute these
 * (latent_prompt.c). Rotary pairs are neighbours, (2i, 2i + 1).
 *
 * As in block_attention.c work is cut into units of FM_ATTN_UNIT positions, joined in ascending order; heads are
 * cut into groups that share loads of the cache, never sums. Where an indexer has
 * chosen the positions that a token sees, blocks and units count along its list.
 * Source: DeepSeek-V2 (arXiv 2405.04434) section 2.1; transformers, models/deepseek_v3; checked by
 * tests/model/test_reference.c.
 */
#include "model/latent.h"

#include <math.h>
#include <string.h>

/* Heads that go through the cache together. */
enum { GROUP_MAX = 16, GROUP_MIN = 4 };

static int64_t group_size(const fm_hparams *hp, int n_thread)
{
    int64_t size = GROUP_MAX;
    while (size > GROUP_MIN && hp->n_head < size * n_thread) size /= 2;
    return size < hp->n_head ? size : hp->n_head;
}

static size_t act_stride(const fm_act form, int64_t n)
{
    return form == FM_ACT_F32 ? 0 : (fm_act_bytes(form, n) + 63) / 64 * 64;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Bytes that rows of n values take in the widest quantized form that they may be asked for. */
static size_t most_act_bytes(int64_t n)
{
    const size_t a = act_stride(FM_ACT_I15_32, (n + 31) / 32 * 32);
    return max_size(a, act_stride(FM_ACT_I13_256, (n + 255) / 256 * 256));
}

void fm_latent_layout(fm_run *r, fm_arena *a, int64_t n_batch, int64_t n_ctx)
{
    const fm_hparams *hp = r->hp;
    const int64_t C = n_batch < FM_LATENT_TOKENS ? n_batch : FM_LATENT_TOKENS;
    const int64_t n_unit = (n_ctx + FM_ATTN_UNIT - 1) / FM_ATTN_UNIT;
    const int64_t group = group_size(hp, r->n_thread);
    const int64_t n_group = (hp->n_head + group - 1) / group;
#define FLOATS(n) fm_arena_take(a, (size_t)(n) * sizeof(float))
    r->latent_qa = FLOATS(n_batch * hp->n_latent_q);
    if (hp->n_latent_q) fm_acts_layout(&r->latent_in, a, n_batch, hp->n_latent_q);
    r->latent_q = FLOATS(C * hp->n_head * hp->d_head);
    r->latent_o = FLOATS(C * hp->n_head * hp->n_latent);
    r->attn_part_each = (group * (hp->n_latent + 2) + 15) / 16 * 16;
    int64_t parts = n_unit * n_group;
    if (n_batch > 1 && parts < 2 * r->n_thread) parts = 2 * r->n_thread;
    r->attn_part = FLOATS(parts * r->attn_part_each);
#undef FLOATS
    /* One use at a time: activations of one head, a head's decoded key matrix, a unit of listed rows. */
    size_t each = (size_t)C * max_size(most_act_bytes(hp->d_nope), most_act_bytes(hp->n_latent));
    each = max_size(each, (size_t)hp->d_nope * (size_t)hp->n_latent * sizeof(float));
    if (r->chooses) each = max_size(each, (size_t)(FM_ATTN_UNIT * hp->d_head) * sizeof(float));
    r->latent_scratch_each = (each + 63) / 64 * 64;
    r->latent_scratch = fm_arena_take(a, (size_t)r->n_thread * r->latent_scratch_each);
    fm_latent_prompt_layout(r, a, n_batch, n_ctx);
}

/* ---- before the cache -------------------------------------------------------------------- */

static void norm_query_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const fm_latent_job *j = ctx;
    fm_run *r = j->r;
    const int64_t n = r->hp->n_latent_q;
    float *row = r->latent_qa + t * n;
    r->k->rmsnorm(row, row, j->q_norm, r->hp->eps_latent, n);
}

static void turn_pairs(float *x, const float *cos_t, const float *sin_t, int64_t n_rot)
{
    for (int64_t i = 0; i < n_rot / 2; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos_t[i] - b * sin_t[i];
        x[2 * i + 1] = b * cos_t[i] + a * sin_t[i];
    }
}

static float query_scale(const fm_latent_job *j)
{
    return j->r->hp->rope.score_factor / sqrtf((float)j->d_query);
}

/* Rope and scale of one token's queries; norm and rope of its row, which goes to the cache. */
static void prepare_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const fm_latent_job *j = ctx;
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t n_rot = hp->rope.n_rot, d = hp->d_head, slot = r->pos0 + t;
    const float *cos_t = r->rope_cos + t * (n_rot / 2), *sin_t = r->rope_sin + t * (n_rot / 2);
    const float scale = query_scale(j);
    for (int64_t h = 0; h < hp->n_head; h++) {
        float *q = j->q + t * j->q_stride + h * j->d_query;
        turn_pairs(q + hp->d_nope, cos_t, sin_t, n_rot);
        for (int64_t i = 0; i < j->d_query; i++) q[i] *= scale;
    }
    float *row = j->kv + t * d;
    r->k->rmsnorm(row, row, j->kv_norm, hp->eps_latent, hp->n_latent);
    turn_pairs(row + hp->n_latent, cos_t, sin_t, n_rot);
    void *cache = fm_kv_k(r->kv, j->l->kv_index, 0);
    if (fm_kv_get_shape(r->kv)->f16) {
        r->k->to_f16((uint16_t *)cache + slot * d, row, d);
    } else {
        memcpy((float *)cache + slot * d, row, (size_t)d * sizeof *row);
    }
}

/* ---- products with one matrix per head --------------------------------------------------- */

void fm_latent_product(fm_run *r, const fm_matrix *w, const float *x, int64_t x_stride,
                       float *const *y, int64_t n, unsigned char *scratch)
{
    const fm_kernels *k = r->k;
    const fm_act form = k->act_form(w->type);
    const size_t stride = act_stride(form, w->n_in);
    const void *act[FM_LATENT_TOKENS];
    for (int64_t t = 0; t < n; t++) {
        act[t] = x + t * x_stride;
        if (form == FM_ACT_F32) continue;
        k->quantize(form, scratch + (size_t)t * stride, x + t * x_stride, w->n_in);
        act[t] = scratch + (size_t)t * stride;
    }
    k->matmul(w, 0, w->n_out, act, y, n);
}

fm_matrix fm_latent_values(const fm_latent_job *j, int64_t h)
{
    const fm_hparams *hp = j->r->hp;
    const bool own = j->l->piece_of[FM_W_V_B] >= 0;
    const int64_t row0 = own ? h * hp->d_value : h * (hp->d_nope + hp->d_value) + hp->d_nope;
    return fm_head_matrix(j->l, j->ptr, own ? FM_W_V_B : FM_W_KV_B, row0, hp->d_value);
}

/* Row i of K_h in files without k_b, which hold it as it is. */
static fm_matrix key_row(const fm_latent_job *j, int64_t h, int64_t i)
{
    const int64_t each = j->r->hp->d_nope + j->r->hp->d_value;
    return fm_head_matrix(j->l, j->ptr, FM_W_KV_B, h * each + i, 1);
}

void fm_latent_keys(const fm_latent_job *j, int64_t h, float *dst, float *row)
{
    const fm_hparams *hp = j->r->hp;
    if (j->l->piece_of[FM_W_K_B] >= 0) {
        const fm_matrix w = fm_head_matrix(j->l, j->ptr, FM_W_K_B, h * hp->n_latent, hp->n_latent);
        for (int64_t c = 0; c < hp->n_latent; c++) fm_matrix_row(dst + c * hp->d_nope, &w, c);
        return;
    }
    for (int64_t i = 0; i < hp->d_nope; i++) {
        const fm_matrix w = key_row(j, h, i);
        fm_matrix_row(row, &w, 0);
        for (int64_t c = 0; c < hp->n_latent; c++) dst[c * hp->d_nope + i] = row[c];
    }
}

/* y[t] = K_h^T x[t] from the rows of K_h, which files without k_b hold. */
static void transposed_product(const fm_latent_job *j, int64_t h, const float *x, int64_t x_stride,
                               float *const *y, float *decoded)
{
    const fm_hparams *hp = j->r->hp;
    const int64_t n = hp->n_latent;
    for (int64_t i = 0; i < hp->d_nope; i++) {
        const fm_matrix w = key_row(j, h, i);
        fm_matrix_row(decoded + i * n, &w, 0);
    }
    for (int64_t t = 0; t < j->n_tok; t++) {
        memset(y[t], 0, (size_t)n * sizeof *y[t]);
        for (int64_t i = 0; i < hp->d_nope; i++)
            j->r->k->axpy(y[t], x[t * x_stride + i], decoded + i * n, n);
    }
}

/* What head h's matrix for keys or values is multiplied with. */
static void add_sums(const fm_latent_job *j, fm_head_part part, int64_t h, const float *x,
                     int64_t x_stride)
{
    fm_input_sums *sums = j->r->opt.importance;
    const fm_input_sums_rows rows = {.x = x, .stride = x_stride, .div = 1, .n_row = j->n_tok};
    if (sums) fm_input_sums_head(sums, j->layer, part, h, &rows);
}

/* Queries of head h in the latent space, their rotary part behind. */
static void absorb_item(void *ctx, int64_t h, int thread)
{
    const fm_latent_job *j = ctx;
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    if (j->n_tok > 1 && fm_run_stops(r, thread)) return;
    unsigned char *scratch = r->latent_scratch + (size_t)thread * r->latent_scratch_each;
    const float *x = j->q + j->t0 * j->q_stride + h * j->d_query;
    add_sums(j, FM_HEAD_KEYS, h, x, j->q_stride);
    float *y[FM_LATENT_TOKENS];
    for (int64_t t = 0; t < j->n_tok; t++) y[t] = r->latent_q + (t * hp->n_head + h) * hp->d_head;
    if (j->l->piece_of[FM_W_K_B] >= 0) {
        const fm_matrix w = fm_head_matrix(j->l, j->ptr, FM_W_K_B, h * hp->n_latent, hp->n_latent);
        fm_latent_product(r, &w, x, j->q_stride, y, j->n_tok, scratch);
    } else {
        transposed_product(j, h, x, j->q_stride, y, (float *)(void *)scratch);
    }
    for (int64_t t = 0; t < j->n_tok; t++)
        memcpy(y[t] + hp->n_latent, x + t * j->q_stride + hp->d_nope,
               (size_t)hp->rope.n_rot * sizeof *x);
}

/* Outputs of head h from its sums of latents. */
static void value_item(void *ctx, int64_t h, int thread)
{
    const fm_latent_job *j = ctx;
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    if (j->n_tok > 1 && fm_run_stops(r, thread)) return;
    float *y[FM_LATENT_TOKENS];
    for (int64_t t = 0; t < j->n_tok; t++)
        y[t] = r->mix_o + ((j->t0 + t) * hp->n_head + h) * hp->d_value;
    const fm_matrix w = fm_latent_values(j, h);
    add_sums(j, FM_HEAD_VALUES, h, r->latent_o + h * hp->n_latent, hp->n_head * hp->n_latent);
    fm_latent_product(r, &w, r->latent_o + h * hp->n_latent, hp->n_head * hp->n_latent, y, j->n_tok,
                      r->latent_scratch + (size_t)thread * r->latent_scratch_each);
}

/* ---- over the cache ---------------------------------------------------------------------- */

static int64_t heads_of(const fm_latent_job *j, int64_t g)
{
    const int64_t left = j->r->hp->n_head - g * j->group;
    return left < j->group ? left : j->group;
}

/* Listed rows, one after the other, into dst. */
static void gather(const fm_run *r, const int32_t *pos, int64_t n, const void *cache,
                   unsigned char *dst)
{
    const size_t row = (size_t)r->hp->d_head * (fm_kv_get_shape(r->kv)->f16 ? 2 : 4);
    for (int64_t i = 0; i < n; i++)
        memcpy(dst + (size_t)i * row, (const unsigned char *)cache + (size_t)pos[i] * row, row);
}

static int64_t n_unit_of(const fm_latent_job *j, int64_t t)
{
    int64_t seen;
    (void)fm_indexer_selected(j->r, j->t0 + t, &seen);
    return (seen + FM_ATTN_UNIT - 1) / FM_ATTN_UNIT;
}

/* Partial attention of token t, head group g, unit u into part: [n_q][n_latent] sums, [n_q] maxima,
 * [n_q] denominators. */
static void attend_unit(const fm_latent_job *j, int64_t t, int64_t g, int64_t u, float *part,
                        int thread)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t n_q = heads_of(j, g);
    int64_t seen;
    const int32_t *listed = fm_indexer_selected(r, j->t0 + t, &seen);
    int64_t u0 = u * FM_ATTN_UNIT, u1 = u0 + FM_ATTN_UNIT < seen ? u0 + FM_ATTN_UNIT : seen;
    const void *rows = fm_kv_k(r->kv, j->l->kv_index, 0);
    if (listed) {
        unsigned char *copy = r->latent_scratch + (size_t)thread * r->latent_scratch_each;
        gather(r, listed + u0, u1 - u0, rows, copy);
        rows = copy;
        u1 -= u0;
        u0 = 0;
    }
    float *m = part + n_q * hp->n_latent;
    const float *q = r->latent_q + (t * hp->n_head + g * j->group) * hp->d_head;
    r->k->attend(part, m, m + n_q, q, rows, rows, hp->d_head, u0, u1, hp->d_head, hp->n_latent, n_q,
                 fm_kv_get_shape(r->kv)->f16);
}

static void finish(const fm_latent_job *j, int64_t t, int64_t g, const float *acc)
{
    const fm_hparams *hp = j->r->hp;
    const int64_t d = hp->n_latent, n_q = heads_of(j, g);
    const float *den = acc + n_q * d + n_q;
    float *o = j->r->latent_o + (t * hp->n_head + g * j->group) * d;
    for (int64_t i = 0; i < n_q; i++) {
        const float inv = 1.0f / den[i];
        for (int64_t c = 0; c < d; c++) o[i * d + c] = acc[i * d + c] * inv;
    }
}

/* One token of many: its units in order on one thread. Late tokens cost most, so they start first. */
static void token_item(void *ctx, int64_t item, int thread)
{
    const fm_latent_job *j = ctx;
    fm_run *r = j->r;
    if (fm_run_stops(r, thread)) return;
    const int64_t t = j->n_tok - 1 - item / j->n_group, g = item % j->n_group;
    const int64_t n_unit = n_unit_of(j, t);
    float *acc = r->attn_part + (2 * thread) * r->attn_part_each, *part = acc + r->attn_part_each;
    attend_unit(j, t, g, 0, acc, thread);
    for (int64_t u = 1; u < n_unit; u++) {
        attend_unit(j, t, g, u, part, thread);
        fm_attend_join(acc, part, heads_of(j, g), j->r->hp->n_latent);
    }
    finish(j, t, g, acc);
}

/* A single token: every unit is an item of its own, joined afterwards. */
static void unit_item(void *ctx, int64_t item, int thread)
{
    const fm_latent_job *j = ctx;
    attend_unit(j, 0, item / j->n_unit, item % j->n_unit,
                j->r->attn_part + item * j->r->attn_part_each, thread);
}

static void join_item(void *ctx, int64_t g, int thread)
{
    (void)thread;
    const fm_latent_job *j = ctx;
    float *acc = j->r->attn_part + g * j->n_unit * j->r->attn_part_each;
    for (int64_t u = 1; u < j->n_unit; u++)
        fm_attend_join(acc, acc + u * j->r->attn_part_each, heads_of(j, g), j->r->hp->n_latent);
    finish(j, 0, g, acc);
}

static void attend(fm_latent_job *j)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    fm_pool_run(r->pool, absorb_item, j, hp->n_head);
    if (r->n_tok == 1) {
        j->n_unit = n_unit_of(j, 0);
        fm_pool_run(r->pool, unit_item, j, j->n_unit * j->n_group);
        fm_pool_run(r->pool, join_item, j, j->n_group);
    } else {
        fm_pool_run(r->pool, token_item, j, j->n_tok * j->n_group);
    }
    fm_pool_run(r->pool, value_item, j, hp->n_head);
}

/* Tokens [from, to) of the pass. */
static void absorbed(fm_latent_job *j, int64_t from, int64_t to)
{
    for (j->t0 = from; j->t0 < to && !fm_run_stops(j->r, 0); j->t0 += FM_LATENT_TOKENS) {
        j->n_tok = to - j->t0 < FM_LATENT_TOKENS ? to - j->t0 : FM_LATENT_TOKENS;
        attend(j);
    }
}

/* ---- the block --------------------------------------------------------------------------- */

/* Queries, and the rows to be cached, of all tokens of the pass. */
static void project(fm_latent_job *j)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const fm_matrix w_kv = fm_weight_matrix(j->l, j->ptr, FM_W_KV_A);
    const fm_matrix w_q = fm_weight_matrix(j->l, j->ptr, hp->n_latent_q ? FM_W_Q_A : FM_W_Q);
    const fm_linear_op in[2] = {
        {&w_kv, j->kv, hp->d_head, NULL},
        {&w_q, hp->n_latent_q ? r->latent_qa : j->q, w_q.n_out, NULL},
    };
    fm_acts_set(&r->in, r->normed, hp->n_embd, hp->n_embd, r->n_tok);
    fm_linear(r, &r->in, in, 2);
    if (hp->n_latent_q == 0) return;
    const fm_matrix w_qb = fm_weight_matrix(j->l, j->ptr, FM_W_Q_B);
    const fm_linear_op out = {&w_qb, j->q, j->q_stride, NULL};
    fm_pool_run(r->pool, norm_query_item, j, r->n_tok);
    fm_acts_set(&r->latent_in, r->latent_qa, hp->n_latent_q, hp->n_latent_q, r->n_tok);
    fm_block_indexer(r, j->l, j->ptr, &r->latent_in);
    fm_linear(r, &r->latent_in, &out, 1);
}

void fm_block_latent(fm_run *r, int32_t layer, const fm_layer *l, uint8_t *const *ptr)
{
    const fm_hparams *hp = r->hp;
    const int64_t d_query = hp->d_nope + hp->rope.n_rot, group = group_size(hp, r->n_thread);
    fm_latent_job j = {
        .r = r,
        .l = l,
        .ptr = ptr,
        .layer = layer,
        .q_norm = fm_weight_vector_or_null(l, ptr, FM_W_Q_A_NORM),
        .kv_norm = fm_weight_vector(l, ptr, FM_W_KV_A_NORM),
        .q = r->mix_a,
        .kv = r->mix_b,
        .q_stride = hp->n_head * d_query,
        .d_query = d_query,
        .group = group,
        .n_group = (hp->n_head + group - 1) / group,
    };
    project(&j);
    fm_pool_run(r->pool, prepare_item, &j, r->n_tok);
    if (r->opt.importance) {
        fm_input_sums_set_scale(r->opt.importance, query_scale(&j));
        if (l->piece_of[FM_W_KV_B] >= 0) /* latents are what all of it would be multiplied with */
            fm_input_sums_add(r->opt.importance, r->pool, l->tensor_of[FM_W_KV_B], j.kv, hp->d_head,
                              r->n_tok);
    }
    int64_t from, to;
    fm_latent_prompt_range(r, &from, &to);
    absorbed(&j, 0, from);
    if (from < to) fm_latent_prompt(&j, from, to);
    absorbed(&j, to, r->n_tok);

    const fm_matrix wo = fm_weight_matrix(l, ptr, FM_W_O);
    const fm_linear_op out = {&wo, r->normed, hp->n_embd, NULL};
    const int64_t width = hp->n_head * hp->d_value;
    fm_acts_set(&r->in, r->mix_o, width, width, r->n_tok);
    fm_expect_ffn(r, l, ptr);
    fm_linear(r, &r->in, &out, 1);
    fm_add_rows(r, r->x, r->normed, r->n_tok);
}
