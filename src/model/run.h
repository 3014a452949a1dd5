/* Inside of the forward pass: working memory and the blocks that share it. */
#pragma once

#include <stdatomic.h>

#include "base/clock.h"
#include "model/input_sums.h"
#include "model/model.h"
#include "model/route_trace.h"

/* A batch of activation rows and, made when first asked for, their quantized forms. */
typedef struct {
    const float *x; /* [n_tok][stride] */
    int64_t n, stride, n_tok;
    unsigned char *form[FM_ACT_COUNT]; /* FM_ACT_F32 unused; others [n_tok][form_bytes]  */
    size_t form_bytes[FM_ACT_COUNT];
    bool have[FM_ACT_COUNT];
} fm_acts;

/* One of several products of the same activations: y = W x + bias. */
typedef struct {
    const fm_matrix *w;
    float *y; /* [n_tok][y_stride] */
    int64_t y_stride;
    const float *bias; /* [w->n_out], or NULL */
} fm_linear_op;

/* Working memory of predict.c; P = FM_PREDICT_TOKENS at most */
typedef struct {
    float *normed; /* [P][n_embd]   */
    float *so_far; /* [n_embd] of one token: x and the experts that were computed */
    float *logits; /* [P][n_expert] */
    fm_acts in;
    int32_t *ids;   /* [n_expert]    */
    int32_t *count; /* [n_expert]    */
    float *weights; /* [K]           */
} fm_guess;

/* Working memory of draft.c; N = FM_DRAFT_STEP. Empty for a model without a draft layer. */
typedef struct {
    float *waiting;             /* [2][n_embd] hidden states of positions whose next token is not known */
    int64_t pos;                /* of the first of them                                       */
    int32_t n_waiting, next[2]; /* how many wait; the tokens behind them, as far as known      */
    int32_t n_low;              /* ids below this one are drafted at least: FM_DRAFT_IDS       */
    float rare;                 /* share of other ids among the last tokens                    */
    float *hidden;              /* [N][n_embd]                                                 */
    float *pair;                /* [N][2 * n_embd]                                             */
    float *x;                   /* [N][n_embd] inputs of the layer                             */
    float *normed;              /* [N][n_embd]                                                 */
    float *kv;                  /* [N][2 * n_head_kv * d_head]                                 */
    float *rope_cos, *rope_sin; /* [N][n_rot / 2]                                              */
    float *logits;              /* [n_vocab]                                                   */
    fm_acts in;
} fm_draft;

enum {
    FM_POLL_US = 100,  /* between looks at the reads while computing */
    FM_HEAD_GROUP = 8, /* tokens whose logits are computed together when all are wanted           */
    FM_MOE_JOBS = 64,  /* experts computed together                                               */
    FM_DRAFT_IDS = 65536, /* tokens made of frequent pairs have low ids                            */
    FM_DRAFT_STEP = 64,   /* positions whose keys the draft layer makes at a time                  */
    FM_FEW_TOKENS = 2,    /* evaluated as a single one is, as far as that pays: a token and a draft */
    FM_LATENT_TOKENS = 32, /* tokens whose queries are in the latent space at a time          */
};

struct fm_run {
    fm_run_options opt;
    const fm_model *model;
    const fm_hparams *hp;
    const fm_kernels *k;
    fm_pool *pool;
    int n_thread;
    fm_ledger *ledger;
    int ledger_line;
    fm_arena arena;
    fm_run_stats stats;
    const fm_pass_hooks *hooks;
    fm_predict_trial trial;
    fm_predict_passes passes;
    fm_guess guess;
    fm_draft draft;
    uint64_t polled_us;
    bool misses;      /* experts had to be read, in this pass so far or in the last one */
    int32_t layers_done; /* of the present pass, for progress */
    atomic_bool stop; /* this pass is to end: what its items would still compute is not wanted */

    /* set for each pass */
    fm_kv *kv;
    int64_t pos0;
    int32_t n_tok;
    bool is_drafted; /* two tokens, of which the second is a draft */

    /* working memory, laid out once by fm_run_create(); B = n_batch, T = threads */
    float *x;                   /* [B][n_embd] residual stream                                */
    float *normed;              /* [B][n_embd]                                                */
    fm_acts in;                 /* activations of a block's input, width max of all inputs    */
    float *mix_a;               /* [B][width_a] q (and gate) | qkv                             */
    float *mix_b;               /* [B][width_b] k, v | z                                       */
    float *mix_o;               /* [B][width_o] attention output | DeltaNet output             */
    float *mix_ba;              /* [B][2 * n_v_head] raw b and a, then beta and decay          */
    double *rope_freq;          /* [n_rot / 2]                                          */
    float *rope_cos, *rope_sin; /* [B][n_rot / 2] of the pass                           */
    float *attn_part;           /* partial attention of work items                             */
    int64_t attn_part_each;
    float *attn_prompt; /* [T][attn_prompt_each], attention_prompt.c                     */
    int64_t attn_prompt_each;
    float *latent_qa;              /* [B][n_latent_q]                                             */
    fm_acts latent_in;             /* of latent_qa                                                */
    float *latent_q;               /* [C][n_head][d_head], C = FM_LATENT_TOKENS at most           */
    float *latent_o;               /* [C][n_head][n_latent]                                       */
    unsigned char *latent_scratch; /* [T][latent_scratch_each]                          */
    size_t latent_scratch_each;
    float *latent_prompt; /* [T][latent_prompt_each], latent_prompt.c                    */
    int64_t latent_prompt_each;
    float *delta_scratch; /* [T][delta_scratch_each]                                    */
    int64_t delta_scratch_each;

    bool chooses;   /* contexts reach beyond index_topk; where not, what follows is not there   */
    float *index_q; /* [B][n_index_head][d_index], in the place of mix_a             */
    float *index_w; /* [B][n_index_head]                                            */
    float *index_k; /* [B][d_index]                                                 */
    float *index_score; /* rows of scores, of a single token or per thread */
    int32_t *index_pos; /* [B][index_pos_each] chosen positions, ascending  */
    int64_t index_score_each, index_pos_each;

    float *router;  /* [B][n_expert]                                               */
    int32_t *ids;   /* [B][K] chosen experts, best first                           */
    float *weights; /* [B][K]                                                      */
    int32_t *expert_count, *expert_start; /* [n_expert + 1]                             */
    int32_t *need_ids, *need_weight;      /* [n_expert]                                 */
    int32_t *pairs;         /* [B * K] (token, rank) pairs grouped by expert               */
    int32_t *identity;      /* [B] 0, 1, 2, ...                                            */
    float *expert_out;      /* [B * K][n_embd] one row per pair                            */
    float *shared_out;      /* [B][n_embd]                                                 */
    float *shared_gate;     /* [B]                                                         */
    float *ff_gate, *ff_up; /* [ff_rows][ff_max]                                        */
    fm_acts ff_act;         /* of ff_gate                                                  */
    int64_t ff_rows, ff_max;
    fm_acts dense_act;           /* of ff_gate as rows [dense_rows][n_ff_dense]                */
    int64_t dense_rows;          /* tokens of a dense block computed together                  */
    unsigned char *pack_scratch; /* [T][pack_each]                                      */
    size_t pack_each;

    float *logits;           /* [FM_HEAD_GROUP][n_vocab]                                    */
    unsigned char *embd_row; /* one row as stored                                       */
};

/* Tokens [*from, *to) of the pass that are evaluated by whole blocks of FM_ATTN_BLOCK positions: those of the blocks that
 * lie in the pass, before position `end` and in the caller's one call, which must give `least` such tokens. How the plan cuts
 * the call into passes, which end at blocks, changes nothing about it. forward.c */
void fm_whole_blocks(const fm_run *r, int64_t least, int64_t end, int64_t *from, int64_t *to);
/* dst [n] <- values [first, first + n) of cached keys or values, of either type. forward.c */
void fm_cache_values(const fm_run *r, float *dst, const void *cache, int64_t first, int64_t n);

/* Moves reads along; for the thread of the pass, inside its items: reading takes it tens of microseconds in the
 * kernel, in which the other threads go on with the items. */
static inline void fm_run_poll(fm_run *r)
{
    const uint64_t now = fm_now_us();
    if (now - r->polled_us < FM_POLL_US) return;
    r->polled_us = now;
    fm_store_poll(r->opt.store);
}

/* Reads were asked for: the next item starts them. */
static inline void fm_run_poll_soon(fm_run *r)
{
    r->polled_us = 0;
}

/* True when the pass is to be broken off; work items then leave their results undone. Asks the caller of
 * the pass when `thread` is 0, which is the thread that he called on; the others look what came of it. A
 * pass of one token is over so soon that its items do not ask; they move reads along by themselves. */
static inline bool fm_run_stops(fm_run *r, int thread)
{
    if (thread == 0 && r->n_tok > 1) fm_run_poll(r);
    if (thread == 0 && !atomic_load_explicit(&r->stop, memory_order_relaxed) && r->hooks &&
        r->hooks->keep_going && !r->hooks->keep_going(r->hooks->keep_user)) {
        atomic_store_explicit(&r->stop, true, memory_order_relaxed);
    }
    return atomic_load_explicit(&r->stop, memory_order_relaxed);
}

/* ---- linear.c ---------------------------------------------------------------------------- */

/* Room in the arena for the quantized forms of `rows` rows of up to `width` values. */
void fm_acts_layout(fm_acts *a, fm_arena *arena, int64_t rows, int64_t width);
/* Points acts at rows x [n_tok][stride] of n values; quantized forms are forgotten. */
void fm_acts_set(fm_acts *a, const float *x, int64_t n, int64_t stride, int64_t n_tok);
/* Makes the form that `type` needs and returns the rows' base address and stride in bytes. */
const unsigned char *fm_acts_need(fm_run *r, fm_acts *a, const fm_type_traits *type,
                                  size_t *stride);
/* y = W x + bias for several W and one input, spread over the pool. */
void fm_linear(fm_run *r, fm_acts *a, const fm_linear_op *ops, int n_op);
/* These products of one token come next, apart from what reads no weights: threads that wait meanwhile ask for what they will read first
 * (fm_pool_expect()). Nothing in a pass of more tokens. */
void fm_linear_expect(fm_run *r, const fm_linear_op *ops, int n_op);
/* The same for one thread that will begin with row0 of w. */
void fm_expect_rows(fm_run *r, int thread, const fm_matrix *w, int64_t row0);
/* The same for the first products of a layer's feed-forward block, and of a unit of the trunk (a layer or a part of the
 * head) where it is resident. expect.c */
void fm_expect_ffn(fm_run *r, const fm_layer *l, uint8_t *const *ptr);
void fm_expect_unit(fm_run *r, int32_t unit);
/* y[t] = norm of x[t] with weight w, for all tokens of the pass; rows of n_embd. */
void fm_norm_rows(fm_run *r, float *y, const float *x, const float *w);
/* y[t] += x[t] for n tokens; rows of n_embd. */
void fm_add_rows(fm_run *r, float *y, const float *x, int64_t n);

/* ---- weights.c --------------------------------------------------------------------------- */

/* Rows [row0, row0 + n_out) of a matrix whose planes start at plane[0], plane[1], ...; book_layout: fm_kernels. */
fm_matrix fm_matrix_of(const fm_type_traits *type, fm_layout book_layout, uint8_t *const *plane,
                       int64_t row0, int64_t n_in, int64_t n_out);
/* A matrix of one plane that lies by columns. */
fm_matrix fm_matrix_by_columns(const fm_type_traits *type, const uint8_t *data, int64_t n_in,
                               int64_t n_out);
/* Its rows [row0, row0 + n_out), packed (or not) as a matrix of their own. */
fm_matrix fm_matrix_rows(const fm_matrix *w, int64_t row0, int64_t n_out);
/* Bytes of one row of the embedding, all planes. */
uint64_t fm_embd_row_bytes(const fm_model *m);
/* Rows [row0, row0 + n_out) of a bound weight of one matrix per head; they start a matrix of that weight. */
fm_matrix fm_head_matrix(const fm_layer *l, uint8_t *const *ptr, fm_weight w, int64_t row0,
                         int64_t n_out);
/* The layer whose trunk is this unit; NULL: a part of the head. */
const fm_layer *fm_layer_of_unit(const fm_model *m, int32_t unit);
/* The rows of the output head that a unit of the trunk holds, and the first one's number. */
int64_t fm_output_row0(const fm_model *m, int32_t unit);
fm_matrix fm_output_matrix(const fm_model *m, int32_t unit, uint8_t *const *ptr);
/* The matrix of a bound weight, given the addresses of the layer's pieces; its tag is the tensor. */
fm_matrix fm_weight_matrix(const fm_layer *l, uint8_t *const *ptr, fm_weight w);
const float *fm_weight_vector(const fm_layer *l, uint8_t *const *ptr, fm_weight w);
/* The same, or NULL when the layer has no such weight. */
const float *fm_weight_vector_or_null(const fm_layer *l, uint8_t *const *ptr, fm_weight w);

/* The weight of the norm before the head, from the pieces of the head's first unit. */
const float *fm_output_norm(const fm_model *m, uint8_t *const *ptr);

/* ---- forward.c --------------------------------------------------------------------------- */

/* Microseconds that the store has waited for the disk so far. */
uint64_t fm_disk_wait_us(const fm_run *r);
/* Rows of the embedding of n tokens to y [n][n_embd]. */
fm_status fm_embed(fm_run *r, float *y, const int32_t *ids, int32_t n, fm_error *err);
/* Logits [n][n_vocab] of n <= FM_HEAD_GROUP rows x [n][n_embd] of the residual stream, after a norm with weight norm (NULL:
 * the head's own), for the ids below n_row. Overwrites r->normed and r->in. */
fm_status fm_head_rows(fm_run *r, float *logits, const float *x, const float *norm, int32_t n,
                       int64_t n_row, fm_error *err);
/* draft.c */
void fm_draft_layout(fm_run *r, fm_arena *a);

/* ---- blocks: read r->normed (already normalised), add their result to r->x ----------------- */

/* acc <- acc joined with part, two stretches of positions of the same n_q query heads: each is
 * [n_q][d] sums, then [n_q] maxima and [n_q] denominators, as `attend` leaves them. */
void fm_attend_join(float *acc, const float *part, int64_t n_q, int64_t d);
void fm_block_attention(fm_run *r, const fm_layer *l, uint8_t *const *ptr);
/* Of layer l's attention only keys and values, of positions pos0 on whose normalised inputs are `in`; kv [n_tok][2 * n_head_kv
 * * d_head] is working memory, rope_* [n_tok][n_rot / 2] are of these positions. */
void fm_attention_keep(fm_run *r, const fm_layer *l, uint8_t *const *ptr, fm_acts *in, float *kv,
                       int64_t pos0, const float *rope_cos, const float *rope_sin);
void fm_block_latent(fm_run *r, int32_t layer, const fm_layer *l, uint8_t *const *ptr);
void fm_block_delta(fm_run *r, const fm_layer *l, uint8_t *const *ptr);
void fm_block_dense(fm_run *r, const fm_layer *l, uint8_t *const *ptr);
fm_status fm_block_moe(fm_run *r, int32_t layer, const fm_layer *l, uint8_t *const *ptr,
                       fm_error *err);

/* Which positions the attention of layer l sees, from r->in (the block's input) and the normalised query
 * latents; nothing for layers without an indexer of their own. block_indexer.c */
void fm_block_indexer(fm_run *r, const fm_layer *l, uint8_t *const *ptr, fm_acts *latent);
/* The *n positions that token t of the pass sees in the layer whose indexer ran last, ascending; NULL: all up to
 * its own, *n of them. Valid until the next full layer. */
const int32_t *fm_indexer_selected(const fm_run *r, int64_t t, int64_t *n);
void fm_indexer_layout(fm_run *r, fm_arena *a, int64_t n_batch, int64_t n_ctx);

/* The K experts of one token from its router's row of logits [n_expert], which becomes the scores; best
 * first. */
void fm_route_layer(const fm_run *r, const fm_layer *l, uint8_t *const *ptr, float *scores,
                    int32_t *ids, float *weights);
/* Hints for the experts of the layer after this one, from x: [n_tok][n_embd], the residual stream as far as it is known. */
void fm_guess_next(fm_run *r, int32_t layer, const float *x);

/* Width of the attention block's working rows, for the layout. */
void fm_attention_layout(fm_run *r, fm_arena *a, int64_t n_batch, int64_t n_ctx);
void fm_latent_layout(fm_run *r, fm_arena *a, int64_t n_batch, int64_t n_ctx);
