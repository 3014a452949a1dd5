/* Grouped-query attention with per-head q and k norms, rope on the first n_rot channels and,
 * where the family has one, an output gate.
 *
 * Work is cut into items of one kv head and one unit of FM_ATTN_UNIT absolute positions; inside, the
 * kernel goes through blocks of 64 positions with an online softmax, and units are joined in
 * ascending order. The order is fixed by positions alone, so a token's result depends neither on
 * threads nor on its neighbours in the pass. Source: models' reference code, see the family files.
 */
#include "model/run.h"

#include <math.h>
#include <string.h>

typedef struct {
    fm_run *r;
    const fm_layer *l;
    const float *q_norm, *k_norm;
    float *q, *k, *v; /* rows of the pass; q rows hold gates too when gated */
    int64_t q_stride, kv_stride, q_head_stride;
    float *o;       /* [n_tok][n_head * d] */
    int64_t n_unit; /* units of the one token, when a token's units are spread out */
} attn_job;

/* Norm, rope and scale of one token's q and k; k and v go to the cache. */
static void prepare_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const attn_job *j = ctx;
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head, half = hp->rope.n_rot / 2, pos = r->pos0 + t;
    const float *cos_t = r->rope_cos + t * half, *sin_t = r->rope_sin + t * half;
    const float scale = hp->rope.score_factor / sqrtf((float)d);
    for (int64_t h = 0; h < hp->n_head; h++) {
        float *q = j->q + t * j->q_stride + h * j->q_head_stride;
        r->k->rmsnorm(q, q, j->q_norm, hp->eps, d);
        r->k->rope_half(q, cos_t, sin_t, hp->rope.n_rot);
        for (int64_t i = 0; i < d; i++) q[i] *= scale;
    }
    const bool f16 = fm_kv_get_shape(r->kv)->f16;
    for (int32_t h = 0; h < hp->n_head_kv; h++) {
        float *k = j->k + t * j->kv_stride + h * d;
        const float *v = j->v + t * j->kv_stride + h * d;
        r->k->rmsnorm(k, k, j->k_norm, hp->eps, d);
        r->k->rope_half(k, cos_t, sin_t, hp->rope.n_rot);
        void *kc = fm_kv_k(r->kv, j->l->kv_index, h), *vc = fm_kv_v(r->kv, j->l->kv_index, h);
        if (f16) {
            r->k->to_f16((uint16_t *)kc + pos * d, k, d);
            r->k->to_f16((uint16_t *)vc + pos * d, v, d);
        } else {
            memcpy((float *)kc + pos * d, k, (size_t)d * sizeof *k);
            memcpy((float *)vc + pos * d, v, (size_t)d * sizeof *v);
        }
    }
}

/* Partial attention of token t, kv head h, unit u into part: [n_q][d] sums, [n_q] maxima, [n_q]
 * denominators. */
static void attend_unit(const attn_job *j, int64_t t, int32_t h, int64_t u, float *part)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head, n_q = hp->n_head / hp->n_head_kv, n_pos = r->pos0 + t + 1;
    const int64_t p0 = u * FM_ATTN_UNIT;
    const int64_t p1 = p0 + FM_ATTN_UNIT < n_pos ? p0 + FM_ATTN_UNIT : n_pos;
    float *o = part, *m = part + n_q * d, *den = m + n_q;
    float *qs = den + n_q; /* queries of this head group, made contiguous */
    for (int64_t i = 0; i < n_q; i++)
        memcpy(qs + i * d, j->q + t * j->q_stride + (h * n_q + i) * j->q_head_stride,
               (size_t)d * sizeof *qs);
    r->k->attend(o, m, den, qs, fm_kv_k(r->kv, j->l->kv_index, h),
                 fm_kv_v(r->kv, j->l->kv_index, h), d, p0, p1, d, n_q, fm_kv_get_shape(r->kv)->f16);
}

/* acc <- acc joined with part; both hold n_q heads of one kv head. */
static void join(const fm_hparams *hp, float *acc, const float *part)
{
    const int64_t d = hp->d_head, n_q = hp->n_head / hp->n_head_kv;
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

/* Divides by the denominator, applies the gate and stores the heads of kv head h. */
static void finish(const attn_job *j, int64_t t, int32_t h, const float *acc)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head, n_q = hp->n_head / hp->n_head_kv;
    const float *den = acc + n_q * d + n_q;
    for (int64_t i = 0; i < n_q; i++) {
        const int64_t head = h * n_q + i;
        float *o = j->o + (t * hp->n_head + head) * d;
        const float inv = 1.0f / den[i];
        for (int64_t c = 0; c < d; c++) o[c] = acc[i * d + c] * inv;
        if (hp->gated_attention)
            r->k->sigmoid_mul(o, j->q + t * j->q_stride + head * j->q_head_stride + d, d);
    }
}

/* One token of many: its units in order on one thread. */
static void token_item(void *ctx, int64_t item, int thread)
{
    const attn_job *j = ctx;
    fm_run *r = j->r;
    if (fm_run_stops(r, thread)) return;
    /* Late tokens cost most, so they start first. */
    const int64_t t = r->n_tok - 1 - item / r->hp->n_head_kv;
    const int32_t h = (int32_t)(item % r->hp->n_head_kv);
    const int64_t n_unit = (r->pos0 + t) / FM_ATTN_UNIT + 1;
    float *acc = r->attn_part + (2 * thread) * r->attn_part_each, *part = acc + r->attn_part_each;
    attend_unit(j, t, h, 0, acc);
    for (int64_t u = 1; u < n_unit; u++) {
        attend_unit(j, t, h, u, part);
        join(r->hp, acc, part);
    }
    finish(j, t, h, acc);
}

/* A single token: every unit is an item of its own, joined afterwards. */
static void unit_item(void *ctx, int64_t item, int thread)
{
    (void)thread;
    const attn_job *j = ctx;
    attend_unit(j, 0, (int32_t)(item / j->n_unit), item % j->n_unit,
                j->r->attn_part + item * j->r->attn_part_each);
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
}

void fm_block_attention(fm_run *r, const fm_layer *l, uint8_t *const *ptr)
{
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head, q_width = (hp->gated_attention ? 2 : 1) * hp->n_head * d;
    const int64_t kv_width = hp->n_head_kv * d;
    attn_job j = {
        .r = r,
        .l = l,
        .q_norm = fm_weight_vector(l, ptr, FM_W_Q_NORM),
        .k_norm = fm_weight_vector(l, ptr, FM_W_K_NORM),
        .q = r->mix_a,
        .k = r->mix_b,
        .v = r->mix_b + kv_width,
        .q_stride = q_width,
        .kv_stride = 2 * kv_width,
        .q_head_stride = hp->gated_attention ? 2 * d : d,
        .o = r->mix_o,
        .n_unit = (r->pos0 + r->n_tok - 1) / FM_ATTN_UNIT + 1,
    };
    const fm_matrix wq = fm_weight_matrix(l, ptr, FM_W_Q), wk = fm_weight_matrix(l, ptr, FM_W_K);
    const fm_matrix wv = fm_weight_matrix(l, ptr, FM_W_V), wo = fm_weight_matrix(l, ptr, FM_W_O);
    const fm_linear_op in[3] = {
        {&wq, j.q, q_width, NULL}, {&wk, j.k, 2 * kv_width, NULL}, {&wv, j.v, 2 * kv_width, NULL}};
    fm_acts_set(&r->in, r->normed, hp->n_embd, hp->n_embd, r->n_tok);
    fm_linear(r, &r->in, in, 3);

    if (r->n_tok == 1) {
        prepare_item(&j, 0, 0);
        fm_pool_run(r->pool, unit_item, &j, j.n_unit * hp->n_head_kv);
        for (int32_t h = 0; h < hp->n_head_kv; h++) {
            float *acc = r->attn_part + h * j.n_unit * r->attn_part_each;
            for (int64_t u = 1; u < j.n_unit; u++) join(hp, acc, acc + u * r->attn_part_each);
            finish(&j, 0, h, acc);
        }
    } else {
        fm_pool_run(r->pool, prepare_item, &j, r->n_tok);
        fm_pool_run(r->pool, token_item, &j, (int64_t)r->n_tok * hp->n_head_kv);
    }

    const fm_linear_op out = {&wo, r->normed, hp->n_embd, NULL};
    fm_acts_set(&r->in, j.o, hp->n_head * d, hp->n_head * d, r->n_tok);
    fm_linear(r, &r->in, &out, 1);
    for (int64_t t = 0; t < r->n_tok; t++)
        r->k->axpy(r->x + t * hp->n_embd, 1.0f, r->normed + t * hp->n_embd, hp->n_embd);
}
