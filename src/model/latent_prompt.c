/* Multi-head latent attention for many tokens: a block of 64 positions gets its keys [K_h c_s | k_s] and values V_h c_s
 * back, head after head, and all tokens meet them. A score then takes d_nope + n_rot products instead of
 * n_latent + n_rot (192 instead of 576 in DeepSeek-V3), a value d_value instead of n_latent (128 instead of 512); what
 * making them takes is shared by all tokens of a pass.
 *
 * Which tokens: fm_whole_blocks(), from MIN_TOKENS on. Keys are products in f32 of the decoded matrix and the latents as
 * they are cached, values are quantized products like all others; blocks are added in the order of positions.
 *
 * Source: DeepSeek-V2 (arXiv 2405.04434) section 2.1, equations 9 to 14 before the matrices are absorbed.
 */
#include "model/latent.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK = FM_ATTN_BLOCK,
    MIN_TOKENS = 2 * BLOCK,
    GROUP_TOKENS = 2048, /* tokens that share a head's keys and values; bounds the scratch */
    SLICE = 256,         /* tokens between looks at the reads */
};

/* Working memory of one thread. */
typedef struct {
    float *matrix;        /* [n_latent][d_nope] K_h^T             */
    float *rows;          /* [BLOCK][d_head] cached rows as f32   */
    float *keys;          /* [BLOCK][d_nope]; one row of K_h      */
    float *kt;            /* [d_query][BLOCK]                     */
    float *values;        /* [BLOCK][d_value]                     */
    float *q, *o, *m, *l; /* [GROUP_TOKENS][d_query], [..][d_value], [..], [..] */
} prompt_scratch;

typedef struct {
    const fm_latent_job *j;
    int64_t from, to, n_group;
} prompt_job;

static int64_t scratch_floats(const fm_hparams *hp, int64_t n_tok)
{
    const int64_t d_query = hp->d_nope + hp->rope.n_rot, n_latent = hp->n_latent;
    const int64_t block = hp->d_head + hp->d_nope + d_query + hp->d_value;
    const int64_t n =
        n_latent * hp->d_nope + BLOCK * block + n_latent + n_tok * (d_query + hp->d_value + 2);
    return (n + 15) / 16 * 16;
}

static prompt_scratch scratch_at(const fm_hparams *hp, int64_t n_tok, float *base)
{
    const int64_t d_query = hp->d_nope + hp->rope.n_rot, n_latent = hp->n_latent;
    prompt_scratch s = {.matrix = base};
    s.rows = s.matrix + n_latent * hp->d_nope;
    s.kt = s.rows + BLOCK * (int64_t)hp->d_head;
    s.values = s.kt + BLOCK * d_query;
    s.keys = s.values + BLOCK * (int64_t)hp->d_value;
    s.q = s.keys + BLOCK * (int64_t)hp->d_nope + n_latent;
    s.o = s.q + n_tok * d_query;
    s.m = s.o + n_tok * hp->d_value;
    s.l = s.m + n_tok;
    return s;
}

/* Tokens of one work item. */
static int64_t group_tokens(int64_t n_batch)
{
    const int64_t n = n_batch / BLOCK * BLOCK;
    return n < GROUP_TOKENS ? n : GROUP_TOKENS;
}

void fm_latent_prompt_layout(fm_run *r, fm_arena *a, int64_t n_batch, int64_t n_ctx)
{
    const bool never = n_batch < BLOCK || n_ctx < MIN_TOKENS;
    r->latent_prompt_each = never ? 0 : scratch_floats(r->hp, group_tokens(n_batch));
    r->latent_prompt =
        fm_arena_take(a, (size_t)(r->n_thread * r->latent_prompt_each) * sizeof(float));
}

void fm_latent_prompt_range(const fm_run *r, int64_t *from, int64_t *to)
{
    *from = *to = 0;
    if (r->opt.importance) return; /* the sums are those of absorbed products */
    fm_whole_blocks(r, MIN_TOKENS, r->chooses ? r->hp->index_topk : INT64_MAX, from, to);
}

/* Keys and values of head h at the positions of block b. */
static void make_block(const fm_latent_job *j, int64_t h, int64_t b, const prompt_scratch *s,
                       int thread)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head, d_nope = hp->d_nope, n = BLOCK * d;
    fm_cache_values(r, s->rows, fm_kv_k(r->kv, j->l->kv_index, 0), b * n, n);
    r->k->gemm(s->keys, s->rows, d, s->matrix, BLOCK, hp->n_latent, d_nope);
    r->k->transpose(s->kt, s->keys, d_nope, BLOCK, d_nope);
    r->k->transpose(s->kt + d_nope * BLOCK, s->rows + hp->n_latent, d, BLOCK, hp->rope.n_rot);

    const fm_matrix w = fm_latent_values(j, h);
    float *y[FM_LATENT_TOKENS];
    for (int64_t p = 0; p < BLOCK; p += FM_LATENT_TOKENS) {
        for (int64_t i = 0; i < FM_LATENT_TOKENS; i++) y[i] = s->values + (p + i) * hp->d_value;
        fm_latent_product(r, &w, s->rows + p * d, d, y, FM_LATENT_TOKENS,
                          r->latent_scratch + (size_t)thread * r->latent_scratch_each);
    }
}

/* One head of a group of tokens. Late groups cost most, so they start first. */
static void head_item(void *ctx, int64_t item, int thread)
{
    const prompt_job *pj = ctx;
    const fm_latent_job *j = pj->j;
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t h = item % hp->n_head, each = group_tokens(r->opt.n_batch);
    const int64_t t0 = pj->from + (pj->n_group - 1 - item / hp->n_head) * each;
    const int64_t t1 = t0 + each < pj->to ? t0 + each : pj->to, n = t1 - t0;
    const prompt_scratch s =
        scratch_at(hp, each, r->latent_prompt + thread * r->latent_prompt_each);

    for (int64_t t = 0; t < n; t++) {
        memcpy(s.q + t * j->d_query, j->q + (t0 + t) * j->q_stride + h * j->d_query,
               (size_t)j->d_query * sizeof *s.q);
        s.m[t] = -INFINITY;
        s.l[t] = 0.0f;
    }
    memset(s.o, 0, (size_t)(n * hp->d_value) * sizeof *s.o);
    fm_latent_keys(j, h, s.matrix, s.keys);
    for (int64_t b = 0; b < (r->pos0 + t1) / BLOCK; b++) {
        make_block(j, h, b, &s, thread);
        const int64_t own = b * BLOCK - r->pos0 - t0;
        for (int64_t t = own > 0 ? own : 0; t < n; t += SLICE) {
            if (fm_run_stops(r, thread)) return;
            r->k->attend_rows(s.o + t * hp->d_value, s.m + t, s.l + t, s.q + t * j->d_query, s.kt,
                              s.values, n - t < SLICE ? n - t : SLICE, 1, t - own + 1, j->d_query,
                              hp->d_value);
        }
    }
    for (int64_t t = 0; t < n; t++) {
        float *o = r->mix_o + ((t0 + t) * hp->n_head + h) * hp->d_value;
        const float inv = 1.0f / s.l[t];
        for (int64_t i = 0; i < hp->d_value; i++) o[i] = s.o[t * hp->d_value + i] * inv;
    }
}

void fm_latent_prompt(const fm_latent_job *j, int64_t from, int64_t to)
{
    const int64_t each = group_tokens(j->r->opt.n_batch);
    prompt_job pj = {j, from, to, (to - from + each - 1) / each};
    fm_pool_run(j->r->pool, head_item, &pj, pj.n_group * j->r->hp->n_head);
}
