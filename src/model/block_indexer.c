/* The indexer of sparse attention: which cached positions a token's attention sees.
 *
 *   q_h  = rope(Wq c)_h         [n_index_head][d_index], c the normalised latent of the query
 *   k    = rope(LayerNorm(Wk x)) [d_index], cached for every position
 *   w_h  = (Ww x)_h (n_index_head d_index)^-1/2
 *   I_ts = sum_h w_th max(0, q_th . k_s)
 *
 * and token t sees the index_topk positions s <= t with the largest I_ts; on equal scores the lower position.
 * Up to index_topk positions that is all of them, so nothing is scored and attention is told to look at all:
 * the same bits as without an indexer. Rope turns the first values of a head, as the family does it.
 *
 * Scores and choice of a token depend on nothing but its query and the keys before it, so neither the length of
 * a pass nor the number of threads shows. A layer that shares the choice of the one before leaves it in place.
 *
 * Sources: DeepSeek-V3.2 (arXiv 2512.02556) section 2.1; transformers, DeepseekV32Indexer, GlmMoeDsaIndexer.
 * The published code rotates q and k by a Hadamard matrix and rounds them to FP8 before the product; the first
 * changes no product, the second is left out (docs/models.md).
 */
#include "model/run.h"

#include <assert.h>
#include <math.h>

#include "model/top_positions.h"

_Static_assert((int)FM_KV_INDEX_BLOCK == (int)FM_INDEX_BLOCK,
               "the cache's blocks are the kernel's");

enum {
    BLOCKS_PER_ITEM = 64, /* of a single token's scores: 1,024 positions              */
    TOKENS_PER_ITEM = 4,  /* which look at the same keys while these are in the cache */
    BLOCKS_PER_VISIT = 16,
};

typedef struct {
    fm_run *r;
    const fm_layer *l;
    const float *norm_w, *norm_b;
    float w_scale;
} index_job;

static int64_t round16(int64_t n)
{
    return (n + FM_INDEX_BLOCK - 1) / FM_INDEX_BLOCK * FM_INDEX_BLOCK;
}

static void rope(const fm_run *r, float *x, int64_t t)
{
    const int64_t n_rot = r->hp->rope.n_rot, half = n_rot / 2;
    const float *c = r->rope_cos + t * half, *s = r->rope_sin + t * half;
    if (!r->hp->index_rope_pairs) {
        r->k->rope_half(x, c, s, n_rot);
        return;
    }
    for (int64_t i = 0; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * c[i] - b * s[i];
        x[2 * i + 1] = b * c[i] + a * s[i];
    }
}

static void layer_norm(float *x, const float *w, const float *b, float eps, int64_t n)
{
    double sum = 0.0, square = 0.0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    const double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) square += ((double)x[i] - mean) * ((double)x[i] - mean);
    const double inverse = 1.0 / sqrt(square / (double)n + (double)eps);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(((double)x[i] - mean) * inverse) * w[i] + b[i];
}

/* The key of one token into the cache. */
static void key_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const index_job *j = ctx;
    fm_run *r = j->r;
    const int64_t d = r->hp->d_index, pos = r->pos0 + t;
    float *k = r->index_k + t * d;
    layer_norm(k, j->norm_w, j->norm_b, r->hp->eps_index, d);
    rope(r, k, t);
    const int64_t first = pos / FM_INDEX_BLOCK * FM_INDEX_BLOCK * d + pos % FM_INDEX_BLOCK;
    void *cache = fm_kv_index(r->kv, j->l->index_layer);
    if (!fm_kv_get_shape(r->kv)->f16) {
        for (int64_t i = 0; i < d; i++) ((float *)cache)[first + i * FM_INDEX_BLOCK] = k[i];
        return;
    }
    uint16_t half[FM_INDEX_DIM_MAX];
    r->k->to_f16(half, k, d);
    for (int64_t i = 0; i < d; i++) ((uint16_t *)cache)[first + i * FM_INDEX_BLOCK] = half[i];
}

/* Scores of token t against blocks [block0, block1), at their places in `score`. */
static void score_blocks(const index_job *j, float *score, int64_t t, int64_t block0,
                         int64_t block1)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    const bool f16 = fm_kv_get_shape(r->kv)->f16;
    const char *keys = fm_kv_index(r->kv, j->l->index_layer);
    const int64_t block_bytes = hp->d_index * FM_INDEX_BLOCK * (f16 ? 2 : 4);
    r->k->index_scores(score + block0 * FM_INDEX_BLOCK,
                       r->index_q + t * hp->n_index_head * hp->d_index,
                       r->index_w + t * hp->n_index_head, keys + block0 * block_bytes,
                       block1 - block0, hp->d_index, hp->n_index_head, f16);
}

static void prepare_query(const index_job *j, int64_t t)
{
    fm_run *r = j->r;
    const fm_hparams *hp = r->hp;
    float *q = r->index_q + t * hp->n_index_head * hp->d_index;
    for (int64_t h = 0; h < hp->n_index_head; h++) rope(r, q + h * hp->d_index, t);
    float *w = r->index_w + t * hp->n_index_head;
    for (int64_t h = 0; h < hp->n_index_head; h++) w[h] *= j->w_scale;
}

static void choose(fm_run *r, int64_t t, const float *score)
{
    fm_top_positions(r->index_pos + t * r->index_pos_each, score, r->pos0 + t + 1,
                     r->hp->index_topk);
}

static int64_t n_block_of(const fm_run *r, int64_t t)
{
    return round16(r->pos0 + t + 1) / FM_INDEX_BLOCK;
}

/* Some neighbouring tokens; late ones first, since they cost most. */
static void token_item(void *ctx, int64_t item, int thread)
{
    const index_job *j = ctx;
    fm_run *r = j->r;
    if (fm_run_stops(r, thread)) return;
    const int64_t end = r->n_tok - item * TOKENS_PER_ITEM;
    int64_t t0 = end - TOKENS_PER_ITEM > 0 ? end - TOKENS_PER_ITEM : 0;
    while (t0 < end && r->pos0 + t0 + 1 <= r->hp->index_topk) t0++; /* these see everything */
    float *score = r->index_score + thread * TOKENS_PER_ITEM * r->index_score_each;
    for (int64_t t = t0; t < end; t++) prepare_query(j, t);
    for (int64_t b = 0; t0 < end && b < n_block_of(r, end - 1); b += BLOCKS_PER_VISIT)
        for (int64_t t = t0; t < end; t++) {
            const int64_t n = n_block_of(r, t),
                          b1 = b + BLOCKS_PER_VISIT < n ? b + BLOCKS_PER_VISIT : n;
            if (b < b1) score_blocks(j, score + (t - t0) * r->index_score_each, t, b, b1);
        }
    for (int64_t t = t0; t < end; t++) choose(r, t, score + (t - t0) * r->index_score_each);
}

/* A piece of the only token's scores. */
static void piece_item(void *ctx, int64_t item, int thread)
{
    (void)thread;
    const index_job *j = ctx;
    const int64_t n = n_block_of(j->r, 0), b0 = item * BLOCKS_PER_ITEM;
    score_blocks(j, j->r->index_score, 0, b0, b0 + BLOCKS_PER_ITEM < n ? b0 + BLOCKS_PER_ITEM : n);
}

bool fm_model_chooses(const fm_model *m, int64_t n_ctx)
{
    return m->n_index_layer > 0 && n_ctx > m->hp.index_topk;
}

void fm_indexer_layout(fm_run *r, fm_arena *a, int64_t n_batch, int64_t n_ctx)
{
    const fm_hparams *hp = r->hp;
    r->chooses = fm_model_chooses(r->model, n_ctx);
    if (!r->chooses) return;
    r->index_score_each = round16(n_ctx);
    r->index_pos_each = hp->index_topk;
    const int64_t rows = n_batch > 1 ? TOKENS_PER_ITEM * (int64_t)r->n_thread : 1;
    r->index_q = r->mix_a;
    r->index_w = fm_arena_take(a, (size_t)(n_batch * hp->n_index_head) * sizeof(float));
    r->index_k = fm_arena_take(a, (size_t)(n_batch * hp->d_index) * sizeof(float));
    r->index_score = fm_arena_take(a, (size_t)(rows * r->index_score_each) * sizeof(float));
    r->index_pos = fm_arena_take(a, (size_t)(n_batch * r->index_pos_each) * sizeof(int32_t));
}

void fm_block_indexer(fm_run *r, const fm_layer *l, uint8_t *const *ptr, fm_acts *latent)
{
    const fm_hparams *hp = r->hp;
    if (!r->chooses || l->index_layer < 0) return;
    index_job j = {.r = r,
                   .l = l,
                   .norm_w = fm_weight_vector(l, ptr, FM_W_INDEX_K_NORM),
                   .norm_b = fm_weight_vector(l, ptr, FM_W_INDEX_K_NORM_BIAS),
                   .w_scale = 1.0f / sqrtf((float)hp->n_index_head * (float)hp->d_index)};
    const bool needed = r->pos0 + r->n_tok > hp->index_topk;
    const fm_matrix wk = fm_weight_matrix(l, ptr, FM_W_INDEX_K),
                    ww = fm_weight_matrix(l, ptr, FM_W_INDEX_WEIGHTS),
                    wq = fm_weight_matrix(l, ptr, FM_W_INDEX_Q);
    const fm_linear_op in[2] = {{&wk, r->index_k, hp->d_index, NULL},
                                {&ww, r->index_w, hp->n_index_head, NULL}};
    fm_linear(r, &r->in, in, needed ? 2 : 1);
    if (needed) {
        const fm_linear_op q = {&wq, r->index_q, (int64_t)hp->n_index_head * hp->d_index, NULL};
        fm_linear(r, latent, &q, 1);
    }
    if (r->n_tok == 1) {
        key_item(&j, 0, 0);
        if (!needed) return;
        prepare_query(&j, 0);
        fm_pool_run(r->pool, piece_item, &j,
                    (n_block_of(r, 0) + BLOCKS_PER_ITEM - 1) / BLOCKS_PER_ITEM);
        choose(r, 0, r->index_score);
        return;
    }
    fm_pool_run(r->pool, key_item, &j, r->n_tok);
    if (needed)
        fm_pool_run(r->pool, token_item, &j, (r->n_tok + TOKENS_PER_ITEM - 1) / TOKENS_PER_ITEM);
}

const int32_t *fm_indexer_selected(const fm_run *r, int64_t t, int64_t *n)
{
    const int64_t n_pos = r->pos0 + t + 1;
    const bool all = !r->chooses || n_pos <= r->hp->index_topk;
    *n = all ? n_pos : r->hp->index_topk;
    return all ? NULL : r->index_pos + t * r->index_pos_each;
}
