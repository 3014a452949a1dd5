/* Gated DeltaNet: linear attention with a decaying state per value head.
 *
 * One token takes the recurrent step; several take the chunked form in blocks that end at absolute
 * multiples of 64 positions (or at the end of the pass), so the result depends on where blocks
 * start, which the caller's batch fixes, and on nothing else. A token and a draft of the next one take two
 * steps: the state after the first stays as it is, the second goes on in the session's other state.
 * Source: S. Yang et al., Gated Delta Networks (arXiv 2412.06464); transformers, models/qwen3_next.
 */
#include "model/run.h"

#include <math.h>
#include <string.h>

typedef struct {
    fm_run *r;
    const fm_layer *l;
    const float *conv_w, *dt, *a, *norm_w;
    float *u, *z, *o; /* [n_tok][channels], [n_tok][value], [n_tok][value] */
    int64_t channels, key, value;
    float *beta, *decay; /* [n_tok][2 * n_v_head]: row stride 2 * n_v_head */
    bool is_drafted;     /* the second of two tokens is a draft             */
} delta_job;

/* Channels are heads one after the other: n_k_head of q, as many of k, n_v_head of v. */
static int64_t heads_per_conv_item(const fm_run *r)
{
    enum { CHANNELS = 512, CHANNELS_OF_ONE = 128 }; /* one token: so that all threads get some */
    const int64_t want = (r->n_tok == 1 ? CHANNELS_OF_ONE : CHANNELS) / r->hp->d_state;
    return want < 1 ? 1 : want;
}

/* The convolution of some heads, all tokens, and the norms of those that are queries or keys. */
static void conv_item(void *ctx, int64_t item, int thread)
{
    (void)thread;
    const delta_job *j = ctx;
    const fm_run *r = j->r;
    const int64_t d = r->hp->d_state, n_k = r->hp->n_k_head, n_head = 2 * n_k + r->hp->n_v_head;
    const int64_t each = heads_per_conv_item(r), h0 = item * each;
    const int64_t h1 = h0 + each < n_head ? h0 + each : n_head;
    float *const state = fm_kv_conv(r->kv, j->l->kv_index);
    r->k->conv_silu(j->u, j->u, state, j->conv_w, j->is_drafted ? 1 : r->n_tok, j->channels,
                    j->channels, r->hp->n_conv, h0 * d, h1 * d);
    if (j->is_drafted) {
        float *const other = fm_kv_other_conv(r->kv, j->l->kv_index);
        for (int64_t i = 0; i + 1 < r->hp->n_conv; i++)
            memcpy(other + i * j->channels + h0 * d, state + i * j->channels + h0 * d,
                   (size_t)((h1 - h0) * d) * sizeof *state);
        float *const draft = j->u + j->channels;
        r->k->conv_silu(draft, draft, other, j->conv_w, 1, j->channels, j->channels, r->hp->n_conv,
                        h0 * d, h1 * d);
    }
    for (int64_t t = 0; t < r->n_tok; t++)
        for (int64_t h = h0; h < h1 && h < 2 * n_k; h++)
            r->k->l2norm(j->u + t * j->channels + h * d, 1e-6f,
                         h < n_k ? 1.0f / sqrtf((float)d) : 1.0f, d);
}

static float softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

/* Beta and decay of token t, value head h. Raw values come from mix_ba: [b of all heads | a of all heads], or with one
 * fused projection per key head [b .. | a ..]. Results go behind all of them, because the fused order differs. */
static void gate_head(const delta_job *j, int64_t t, int64_t h)
{
    const fm_hparams *hp = j->r->hp;
    const int64_t n_v = hp->n_v_head, ratio = n_v / hp->n_k_head;
    const int64_t fused = (h / ratio) * 2 * ratio + h % ratio;
    const float *ba = j->r->mix_ba + t * 2 * n_v;
    const float b = ba[hp->fused_ba ? fused : h], a = ba[hp->fused_ba ? fused + ratio : n_v + h];
    j->beta[t * 2 * n_v + h] = 1.0f / (1.0f + expf(-b));
    j->decay[t * 2 * n_v + h] = j->a[h] * softplus(a + j->dt[h]);
}

static void gate_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const delta_job *j = ctx;
    for (int64_t h = 0; h < j->r->hp->n_v_head; h++) gate_head(j, t, h);
}

static void head_item(void *ctx, int64_t h, int thread)
{
    const delta_job *j = ctx;
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_state, n_v = hp->n_v_head;
    const int64_t hk = hp->tiled_heads ? h % hp->n_k_head : h / (n_v / hp->n_k_head);
    float *S = fm_kv_state(r->kv, j->l->kv_index) + h * d * d;
    const float *q = j->u + hk * d, *k = j->u + j->key + hk * d, *v = j->u + 2 * j->key + h * d;
    float *o = j->o + h * d;
    if (r->n_tok == 1) gate_head(j, 0, h);
    for (int64_t t = 0; t < r->n_tok;) {
        if (r->n_tok > 1 && fm_run_stops(r, thread)) return;
        const int64_t pos = r->pos0 + t;
        int64_t n = j->is_drafted ? 1 : FM_DELTA_BLOCK - pos % FM_DELTA_BLOCK;
        if (n > r->n_tok - t) n = r->n_tok - t;
        if (j->is_drafted && t == 1) {
            float *const other = fm_kv_other_state(r->kv, j->l->kv_index) + h * d * d;
            memcpy(other, S, (size_t)(d * d) * sizeof *S);
            S = other;
        }
        const float *g = j->decay + t * 2 * n_v + h, *beta = j->beta + t * 2 * n_v + h;
        if (n == 1) {
            r->k->delta_step(S, o + t * j->value, q + t * j->channels, k + t * j->channels,
                             v + t * j->channels, *g, *beta, d, d);
        } else {
            r->k->delta_chunk(S, o + t * j->value, q + t * j->channels, k + t * j->channels,
                              v + t * j->channels, g, beta, n, j->channels, j->channels, j->value,
                              2 * n_v, d, d, r->delta_scratch + thread * r->delta_scratch_each);
        }
        t += n;
    }
    for (int64_t t = 0; t < r->n_tok; t++) {
        float *row = o + t * j->value;
        r->k->rmsnorm(row, row, j->norm_w, hp->eps, d);
        r->k->silu_mul(row, j->z + t * j->value + h * d, row, d);
    }
}

void fm_block_delta(fm_run *r, const fm_layer *l, uint8_t *const *ptr)
{
    const fm_hparams *hp = r->hp;
    const int64_t key = (int64_t)hp->n_k_head * hp->d_state,
                  value = (int64_t)hp->n_v_head * hp->d_state;
    const int64_t n_v = hp->n_v_head;
    float *beta = r->mix_ba + (int64_t)r->opt.n_batch * 2 * n_v;
    delta_job j = {
        .r = r,
        .l = l,
        .conv_w = fm_weight_vector(l, ptr, FM_W_CONV),
        .dt = fm_weight_vector(l, ptr, FM_W_DT),
        .a = fm_weight_vector(l, ptr, FM_W_A),
        .norm_w = fm_weight_vector(l, ptr, FM_W_SSM_NORM),
        .u = r->mix_a,
        .z = r->mix_b,
        .o = r->mix_o,
        .channels = 2 * key + value,
        .key = key,
        .value = value,
        .beta = beta,
        .decay = beta + n_v,
        .is_drafted = r->is_drafted,
    };
    const fm_matrix wu = fm_weight_matrix(l, ptr, FM_W_QKV), wz = fm_weight_matrix(l, ptr, FM_W_Z);
    const fm_matrix wo = fm_weight_matrix(l, ptr, FM_W_SSM_OUT);
    fm_matrix wb, wa;
    fm_linear_op in[4] = {{&wu, j.u, j.channels, NULL}, {&wz, j.z, value, NULL}};
    int n_in = 2;
    if (hp->fused_ba) {
        wb = fm_weight_matrix(l, ptr, FM_W_BA);
        in[n_in++] = (fm_linear_op){&wb, r->mix_ba, 2 * n_v, NULL};
    } else {
        wb = fm_weight_matrix(l, ptr, FM_W_BETA);
        wa = fm_weight_matrix(l, ptr, FM_W_ALPHA);
        in[n_in++] = (fm_linear_op){&wb, r->mix_ba, 2 * n_v, NULL};
        in[n_in++] = (fm_linear_op){&wa, r->mix_ba + n_v, 2 * n_v, NULL};
    }
    const fm_linear_op out = {&wo, r->normed, hp->n_embd, NULL};
    fm_acts_set(&r->in, r->normed, hp->n_embd, hp->n_embd, r->n_tok);
    fm_linear_expect(r, &out, 1);
    fm_linear(r, &r->in, in, n_in);
    const int64_t n_head = 2 * hp->n_k_head + n_v, each = heads_per_conv_item(r);
    fm_pool_run(r->pool, conv_item, &j, (n_head + each - 1) / each);
    if (r->n_tok > 1) fm_pool_run(r->pool, gate_item, &j, r->n_tok);
    fm_pool_run(r->pool, head_item, &j, n_v);

    fm_acts_set(&r->in, j.o, value, value, r->n_tok);
    fm_expect_ffn(r, l, ptr);
    fm_linear(r, &r->in, &out, 1);
    fm_add_rows(r, r->x, r->normed, r->n_tok);
}
