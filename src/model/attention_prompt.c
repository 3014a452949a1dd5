/* Grouped-query attention for whole blocks of a prompt: for a kv head and some tokens a block of 64 cached positions
 * becomes f32 once, its keys transposed, and meets their queries as a product of matrices. Against a token at a time that saves the
 * widening of keys and values for every token and the sums across the lanes of a vector for every score.
 *
 * Which tokens: fm_whole_blocks(). Blocks are added in the order of positions.
 */
#include "model/attention.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK = FM_ATTN_BLOCK,
    ROWS = 512, /* queries that share a block, about: enough that making it costs a few percent */
};

/* Working memory of one thread. */
typedef struct {
    float *kt;            /* [d][BLOCK]                                  */
    float *k, *v;         /* [BLOCK][d]                                  */
    float *q, *o, *m, *l; /* [rows][d], [rows][d], [rows], [rows]        */
} prompt_scratch;

typedef struct {
    const fm_attention_job *j;
    int64_t from, to, n_group, n_part; /* groups of tokens; parts of a kv head's queries */
} prompt_job;

static int64_t queries(const fm_hparams *hp)
{
    return hp->n_head / hp->n_head_kv;
}

/* Tokens of one work item. */
static int64_t item_tokens(const fm_hparams *hp)
{
    const int64_t n = ROWS / queries(hp) / BLOCK * BLOCK;
    return n > BLOCK ? n : BLOCK;
}

static int64_t scratch_floats(const fm_hparams *hp)
{
    const int64_t n_row = item_tokens(hp) * queries(hp);
    return (3 * (int64_t)hp->d_head * BLOCK + 2 * n_row * (hp->d_head + 1) + 15) / 16 * 16;
}

static prompt_scratch scratch_at(const fm_hparams *hp, float *base)
{
    const int64_t d = hp->d_head, n_row = item_tokens(hp) * queries(hp), block = d * BLOCK;
    float *const q = base + 3 * block, *const o = q + n_row * d, *const m = o + n_row * d;
    return (prompt_scratch){base, base + block, base + 2 * block, q, o, m, m + n_row};
}

void fm_attention_prompt_layout(fm_run *r, fm_arena *a, int64_t n_batch)
{
    r->attn_prompt_each = n_batch < BLOCK ? 0 : scratch_floats(r->hp);
    r->attn_prompt = fm_arena_take(a, (size_t)(r->n_thread * r->attn_prompt_each) * sizeof(float));
}

/* Some queries of one kv head for a group of tokens. Late groups cost most, so they start first. */
static void group_item(void *ctx, int64_t item, int thread)
{
    const prompt_job *pj = ctx;
    const fm_attention_job *j = pj->j;
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const int64_t d = hp->d_head, each = item_tokens(hp), part = item % pj->n_part;
    const int32_t h = (int32_t)(item / pj->n_part % hp->n_head_kv);
    const int64_t q0 = part * queries(hp) / pj->n_part, q1 = (part + 1) * queries(hp) / pj->n_part;
    const int64_t n_q = q1 - q0, head0 = h * queries(hp) + q0;
    const int64_t t0 = pj->from + (pj->n_group - 1 - item / pj->n_part / hp->n_head_kv) * each;
    const int64_t t1 = t0 + each < pj->to ? t0 + each : pj->to, n_row = (t1 - t0) * n_q;
    const prompt_scratch s = scratch_at(hp, r->attn_prompt + thread * r->attn_prompt_each);

    for (int64_t i = 0; i < n_row; i++) {
        const float *q = j->q + (t0 + i / n_q) * j->q_stride + (head0 + i % n_q) * j->q_head_stride;
        memcpy(s.q + i * d, q, (size_t)d * sizeof *q);
        s.m[i] = -INFINITY;
        s.l[i] = 0.0f;
    }
    memset(s.o, 0, (size_t)(n_row * d) * sizeof *s.o);
    const void *const k = fm_kv_k(r->kv, j->l->kv_index, h);
    const void *const v = fm_kv_v(r->kv, j->l->kv_index, h);
    for (int64_t b = 0; b < (r->pos0 + t1) / BLOCK; b++) {
        if (fm_run_stops(r, thread)) return;
        fm_cache_values(r, s.k, k, b * BLOCK * d, BLOCK * d);
        fm_cache_values(r, s.v, v, b * BLOCK * d, BLOCK * d);
        r->k->transpose(s.kt, s.k, d, BLOCK, d);
        const int64_t own = b * BLOCK - r->pos0 - t0, first = own > 0 ? own : 0, row = first * n_q;
        r->k->attend_rows(s.o + row * d, s.m + row, s.l + row, s.q + row * d, s.kt, s.v,
                          n_row - row, n_q, first - own + 1, d, d);
    }
    for (int64_t t = t0; t < t1; t++) {
        const int64_t row = (t - t0) * n_q;
        fm_attention_finish(j, t, head0, n_q, s.o + row * d, s.m + row, s.l + row);
    }
}

void fm_attention_prompt(const fm_attention_job *j, int64_t from, int64_t to)
{
    const fm_hparams *hp = j->r->hp;
    const int64_t each = item_tokens(hp), n_group = (to - from + each - 1) / each;
    /* Few items: the queries of a kv head are shared out, too, each part making the blocks for itself. */
    const int64_t n_item = n_group * hp->n_head_kv,
                  want = (3 * j->r->n_thread + n_item - 1) / n_item;
    prompt_job pj = {j, from, to, n_group, want < queries(hp) ? want : queries(hp)};
    fm_pool_run(j->r->pool, group_item, &pj, n_item * pj.n_part);
}
