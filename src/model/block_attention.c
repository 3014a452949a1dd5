/* Grouped-query attention with rope on the first n_rot channels and, where the family has them, biases,
 * per-head q and k norms, an output gate, a sliding window and sinks: position p sees positions
 * max(0, p - window + 1) to p, and a head's softmax has one more term exp(sink) that takes weight
 * and gives no value.
 *
 * Work is cut into items of one kv head and one unit of FM_ATTN_UNIT absolute positions; inside, the
 * kernel goes through blocks of 64 positions with an online softmax, and units are joined in
 * ascending order. The order is fixed by positions alone, so a token's result depends neither on
 * threads nor on its neighbours in the pass. Whole blocks of positions of a prompt take another way
 * (attention_prompt.c). Source: models' reference code, see the family files.
 */
#include "model/attention.h"

#include <math.h>
#include <string.h>

enum { MANY_UNITS = 4 }; /* their results are joined by all threads */

/* First position that position pos sees. */
static int64_t first_seen(const fm_attention_job *j, int64_t pos)
{
    const int64_t window = j->l->windowed ? j->r->hp->window : pos + 1;
    return pos + 1 > window ? pos + 1 - window : 0;
}

/* Norm and rope of one position's k; k and v go to the cache. */
static void keep(fm_run *r, const fm_layer *l, const float *k_norm, float *k, const float *v,
                 int64_t pos, const float *cos_t, const float *sin_t)
{
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head, slot = pos % fm_kv_slots(r->kv, l->kv_index);
    const bool f16 = fm_kv_get_shape(r->kv)->f16;
    for (int32_t h = 0; h < hp->n_head_kv; h++, k += d, v += d) {
        if (k_norm) r->k->rmsnorm(k, k, k_norm, hp->eps, d);
        r->k->rope_half(k, cos_t, sin_t, hp->rope.n_rot);
        void *kc = fm_kv_k(r->kv, l->kv_index, h), *vc = fm_kv_v(r->kv, l->kv_index, h);
        if (f16) {
            r->k->to_f16((uint16_t *)kc + slot * d, k, d);
            r->k->to_f16((uint16_t *)vc + slot * d, v, d);
        } else {
            memcpy((float *)kc + slot * d, k, (size_t)d * sizeof *k);
            memcpy((float *)vc + slot * d, v, (size_t)d * sizeof *v);
        }
    }
}

/* Norm, rope and scale of one token's q and k; k and v go to the cache. */
static void prepare_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const fm_attention_job *j = ctx;
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head, half = hp->rope.n_rot / 2;
    const float *cos_t = r->rope_cos + t * half, *sin_t = r->rope_sin + t * half;
    const float scale = hp->rope.score_factor / sqrtf((float)d);
    for (int64_t h = 0; h < hp->n_head; h++) {
        float *q = j->q + t * j->q_stride + h * j->q_head_stride;
        if (j->q_norm) r->k->rmsnorm(q, q, j->q_norm, hp->eps, d);
        r->k->rope_half(q, cos_t, sin_t, hp->rope.n_rot);
        for (int64_t i = 0; i < d; i++) q[i] *= scale;
    }
    keep(r, j->l, j->k_norm, j->k + t * j->kv_stride, j->v + t * j->kv_stride, r->pos0 + t, cos_t,
         sin_t);
}

void fm_attention_keep(fm_run *r, const fm_layer *l, uint8_t *const *ptr, fm_acts *in, float *kv,
                       int64_t pos0, const float *rope_cos, const float *rope_sin)
{
    const int64_t width = (int64_t)r->hp->n_head_kv * r->hp->d_head, half = r->hp->rope.n_rot / 2;
    const fm_matrix wk = fm_weight_matrix(l, ptr, FM_W_K), wv = fm_weight_matrix(l, ptr, FM_W_V);
    const fm_linear_op op[2] = {
        {&wk, kv, 2 * width, fm_weight_vector_or_null(l, ptr, FM_W_K_BIAS)},
        {&wv, kv + width, 2 * width, fm_weight_vector_or_null(l, ptr, FM_W_V_BIAS)}};
    fm_linear(r, in, op, 2);
    for (int64_t t = 0; t < in->n_tok; t++, kv += 2 * width)
        keep(r, l, fm_weight_vector_or_null(l, ptr, FM_W_K_NORM), kv, kv + width, pos0 + t,
             rope_cos + t * half, rope_sin + t * half);
}

/* Partial attention of token t, queries [q0, q1) of kv head h, unit u into part: [n_q][d] sums, [n_q] maxima, [n_q]
 * denominators. A query's result does not depend on which others go with it. */
static void attend_unit(const fm_attention_job *j, int64_t t, int32_t h, int64_t u, int64_t q0,
                        int64_t q1, float *part)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head, n_q = hp->n_head / hp->n_head_kv, n_pos = r->pos0 + t + 1;
    const int64_t u0 = u * FM_ATTN_UNIT, u1 = u0 + FM_ATTN_UNIT < n_pos ? u0 + FM_ATTN_UNIT : n_pos;
    const int64_t first = first_seen(j, n_pos - 1), p0 = first > u0 ? first : u0;
    /* A ring holds whole units, so slots of a unit are contiguous and its blocks are cut alike. */
    const int64_t shift = u0 - u0 % fm_kv_slots(r->kv, j->l->kv_index);
    float *o = part, *m = part + n_q * d, *den = m + n_q;
    float *qs = den + n_q; /* queries of this head group, made contiguous */
    for (int64_t i = q0; i < q1; i++)
        memcpy(qs + i * d, j->q + t * j->q_stride + (h * n_q + i) * j->q_head_stride,
               (size_t)d * sizeof *qs);
    r->k->attend(o + q0 * d, m + q0, den + q0, qs + q0 * d, fm_kv_k(r->kv, j->l->kv_index, h),
                 fm_kv_v(r->kv, j->l->kv_index, h), d, p0 - shift, u1 - shift, d, d, q1 - q0,
                 fm_kv_get_shape(r->kv)->f16);
}

void fm_attend_join(float *acc, const float *part, int64_t n_q, int64_t d)
{
    float *am = acc + n_q * d, *al = am + n_q;
    const float *pm = part + n_q * d, *pl = pm + n_q;
    for (int64_t i = 0; i < n_q; i++) {
        const float m = am[i] > pm[i] ? am[i] : pm[i];
        const float ca = expf(am[i] - m), cp = expf(pm[i] - m);
        for (int64_t c = 0; c < d; c++) acc[i * d + c] = acc[i * d + c] * ca + part[i * d + c] * cp;
        al[i] = al[i] * ca + pl[i] * cp;
        am[i] = m;
    }
}

/* What one over the softmax's denominator becomes when a sink joins: the sums are relative to the
 * maximum m, which the sink may exceed. */
static float inverse_with_sink(float m, float den, float sink)
{
    const float top = m > sink ? m : sink, c = expf(m - top);
    return c / (den * c + expf(sink - top));
}

void fm_attention_finish(const fm_attention_job *j, int64_t t, int64_t head0, int64_t n,
                         const float *acc, const float *m, const float *den)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head;
    for (int64_t i = 0; i < n; i++) {
        const int64_t head = head0 + i;
        float *o = j->o + (t * hp->n_head + head) * d;
        const float inv =
            j->sinks ? inverse_with_sink(m[i], den[i], j->sinks[head]) : 1.0f / den[i];
        for (int64_t c = 0; c < d; c++) o[c] = acc[i * d + c] * inv;
        if (hp->gated_attention)
            r->k->sigmoid_mul(o, j->q + t * j->q_stride + head * j->q_head_stride + d, d);
    }
}

/* From a partial result as fm_attend_join() has it. */
static void finish(const fm_attention_job *j, int64_t t, int32_t h, const float *acc)
{
    const int64_t n_q = j->r->hp->n_head / j->r->hp->n_head_kv;
    const float *m = acc + n_q * j->r->hp->d_head;
    fm_attention_finish(j, t, h * n_q, n_q, acc, m, m + n_q);
}

/* One token of many: its units in order on one thread. */
static void token_item(void *ctx, int64_t item, int thread)
{
    const fm_attention_job *j = ctx;
    fm_run *r = j->r;
    if (fm_run_stops(r, thread)) return;
    /* Late tokens cost most, so they start first. */
    const int64_t t = j->end - 1 - item / r->hp->n_head_kv;
    const int32_t h = (int32_t)(item % r->hp->n_head_kv);
    const int64_t pos = r->pos0 + t, first = first_seen(j, pos) / FM_ATTN_UNIT;
    float *acc = r->attn_part + (2 * thread) * r->attn_part_each, *part = acc + r->attn_part_each;
    const int64_t n_q = r->hp->n_head / r->hp->n_head_kv;
    attend_unit(j, t, h, first, 0, n_q, acc);
    for (int64_t u = first + 1; u <= pos / FM_ATTN_UNIT; u++) {
        attend_unit(j, t, h, u, 0, n_q, part);
        fm_attend_join(acc, part, n_q, r->hp->d_head);
    }
    finish(j, t, h, acc);
}

/* Tokens [from, to) of the pass, each on one thread. */
static void one_by_one(fm_attention_job *j, int64_t from, int64_t to)
{
    j->end = to;
    fm_pool_run(j->r->pool, token_item, j, (to - from) * j->r->hp->n_head_kv);
}

/* A token alone: every unit, and where these are few every group of queries, is an item of its own, joined
 * afterwards. */
static void unit_item(void *ctx, int64_t item, int thread)
{
    (void)thread;
    const fm_attention_job *j = ctx;
    const fm_hparams *hp = j->r->hp;
    const int64_t part = item / j->n_group, group = item % j->n_group;
    const int64_t n_q = hp->n_head / hp->n_head_kv;
    attend_unit(j, j->t, (int32_t)(part / j->n_unit), j->first_unit + part % j->n_unit,
                group * n_q / j->n_group, (group + 1) * n_q / j->n_group,
                j->r->attn_part + part * j->r->attn_part_each);
}

/* A group reads the unit's keys and values anew, so there are at most as many items as threads. */
static int64_t query_groups(const fm_run *r, int64_t n_part)
{
    const int64_t n_q = r->hp->n_head / r->hp->n_head_kv, n = r->n_thread / n_part;
    return n < 1 ? 1 : n < n_q ? n : n_q;
}

/* The units of one head for keys and values joined, in their order. */
static void join_item(void *ctx, int64_t h, int thread)
{
    (void)thread;
    const fm_attention_job *j = ctx;
    const fm_run *r = j->r;
    float *acc = r->attn_part + h * j->n_unit * r->attn_part_each;
    for (int64_t u = 1; u < j->n_unit; u++)
        fm_attend_join(acc, acc + u * r->attn_part_each, r->hp->n_head / r->hp->n_head_kv,
                       r->hp->d_head);
    finish(j, j->t, h, acc);
}

/* Token j->t, by all threads. */
static void attend_alone(fm_attention_job *j)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t pos = r->pos0 + j->t;
    j->first_unit = first_seen(j, pos) / FM_ATTN_UNIT;
    j->n_unit = pos / FM_ATTN_UNIT + 1 - j->first_unit;
    j->n_group = query_groups(r, j->n_unit * hp->n_head_kv);
    fm_pool_run(r->pool, unit_item, j, j->n_unit * hp->n_head_kv * j->n_group);
    if (j->n_unit < MANY_UNITS) { /* less work than waking others for it */
        for (int32_t h = 0; h < hp->n_head_kv; h++) join_item(j, h, 0);
    } else {
        fm_pool_run(r->pool, join_item, j, hp->n_head_kv);
    }
}

void fm_attention_layout(fm_run *r, fm_arena *a, int64_t n_batch, int64_t n_ctx)
{
    const fm_hparams *hp = r->hp;
    const int64_t n_q = hp->n_head / hp->n_head_kv,
                  n_unit = (n_ctx + FM_ATTN_UNIT - 1) / FM_ATTN_UNIT;
    r->attn_part_each = (n_q * (2 * hp->d_head + 2) + 15) / 16 * 16;
    int64_t parts = n_unit * hp->n_head_kv;
    if (n_batch > 1 && parts < 2 * r->n_thread) parts = 2 * r->n_thread;
    r->attn_part = fm_arena_take(a, (size_t)(parts * r->attn_part_each) * sizeof(float));
    fm_attention_prompt_layout(r, a, n_batch);
}

void fm_block_attention(fm_run *r, const fm_layer *l, uint8_t *const *ptr)
{
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head, q_width = (hp->gated_attention ? 2 : 1) * hp->n_head * d;
    const int64_t kv_width = hp->n_head_kv * d;
    fm_attention_job j = {
        .r = r,
        .l = l,
        .q_norm = fm_weight_vector_or_null(l, ptr, FM_W_Q_NORM),
        .k_norm = fm_weight_vector_or_null(l, ptr, FM_W_K_NORM),
        .sinks = fm_weight_vector_or_null(l, ptr, FM_W_SINKS),
        .q = r->mix_a,
        .k = r->mix_b,
        .v = r->mix_b + kv_width,
        .q_stride = q_width,
        .kv_stride = 2 * kv_width,
        .q_head_stride = hp->gated_attention ? 2 * d : d,
        .o = r->mix_o,
    };
    const fm_matrix wq = fm_weight_matrix(l, ptr, FM_W_Q), wk = fm_weight_matrix(l, ptr, FM_W_K);
    const fm_matrix wv = fm_weight_matrix(l, ptr, FM_W_V), wo = fm_weight_matrix(l, ptr, FM_W_O);
    const fm_linear_op in[3] = {
        {&wq, j.q, q_width, fm_weight_vector_or_null(l, ptr, FM_W_Q_BIAS)},
        {&wk, j.k, 2 * kv_width, fm_weight_vector_or_null(l, ptr, FM_W_K_BIAS)},
        {&wv, j.v, 2 * kv_width, fm_weight_vector_or_null(l, ptr, FM_W_V_BIAS)}};
    const fm_linear_op out = {&wo, r->normed, hp->n_embd,
                              fm_weight_vector_or_null(l, ptr, FM_W_O_BIAS)};
    fm_acts_set(&r->in, r->normed, hp->n_embd, hp->n_embd, r->n_tok);
    fm_linear_expect(r, &out, 1);
    fm_linear(r, &r->in, in, 3);

    if (r->n_tok <= FM_FEW_TOKENS) { /* one after the other, each by all threads */
        for (int64_t t = 0; t < r->n_tok; t++) prepare_item(&j, t, 0);
        for (j.t = 0; j.t < r->n_tok; j.t++) attend_alone(&j);
    } else {
        fm_pool_run(r->pool, prepare_item, &j, r->n_tok);
        int64_t from = 0, to = 0;
        if (!l->windowed) fm_whole_blocks(r, FM_ATTN_BLOCK, INT64_MAX, &from, &to);
        one_by_one(&j, 0, from);
        if (from < to) fm_attention_prompt(&j, from, to);
        one_by_one(&j, to, r->n_tok);
    }

    fm_acts_set(&r->in, j.o, hp->n_head * d, hp->n_head * d, r->n_tok);
    fm_expect_ffn(r, l, ptr);
    fm_linear(r, &r->in, &out, 1);
    fm_add_rows(r, r->x, r->normed, r->n_tok);
}
