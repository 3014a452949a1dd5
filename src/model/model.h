/* A model: one architecture's configuration and tensors bound to typed fields, and its forward pass
 * built from shared blocks. Knows shapes and mathematics; does not know whether bytes come
 * from memory or disk (that is store/).
 */
#pragma once

#include "base/pool.h"
#include "format/checkpoint.h"
#include "kernel/kernel.h"
#include "kv/cache.h"
#include "model/predict.h"
#include "model/rope.h"
#include "model/router.h"
#include "store/store.h"

/* Every number comes from the checkpoint's metadata. */
typedef struct {
    int32_t n_layer, n_embd, n_vocab, n_ctx_train;
    int32_t n_head, n_head_kv, d_head;
    fm_rope rope;
    float eps;
    /* Latent attention; n_latent 0: there is none. Then n_head_kv is 1 and d_head the n_latent + n_rot
     * values that are cached for a position; a query head has d_nope + n_rot values. */
    int32_t n_latent, n_latent_q; /* n_latent_q 0: queries come straight from the input    */
    int32_t d_nope, d_value;
    float eps_latent; /* of the norms of both latents */
    int32_t n_expert, n_expert_used, n_ff_expert;
    int32_t n_ff_shared; /* 0: no shared expert                       */
    fm_router router;
    int32_t n_dense_layer, n_ff_dense;           /* the first layers have one feed-forward block */
    int32_t full_attention_interval;             /* layer i is attention iff (i+1) % it == 0  */
    int32_t n_k_head, n_v_head, d_state, n_conv; /* gated DeltaNet; 0 when there is none      */
    int32_t window; /* positions that a layer with a sliding window sees; 0: none has one */
    int32_t n_index_head, d_index; /* sparse attention's indexer; 0: attention sees everything  */
    int32_t index_topk;            /* positions that attention sees                             */
    float eps_index;               /* of the LayerNorm of its keys                            */
    bool index_may_share;  /* layers may take over the choice of the layer before            */
    bool index_rope_pairs; /* the indexer's rope turns (2i, 2i + 1), else (i, i + n/2)   */
    float swiglu_alpha, swiglu_limit; /* of the experts' clamped SwiGLU; limit 0: plain SwiGLU */
    bool gated_attention;   /* q rows per head are [query | gate]                               */
    bool tiled_heads;       /* value head h uses key head h % n_k_head, else h / (n_v / n_k)    */
    bool fused_ba;          /* ssm_ba, per key head [b.. | a..], instead of ssm_beta, ssm_alpha */
    bool qkv_bias, qk_norm; /* of families that come with and without                         */
    const char *note; /* what the file leaves open and was assumed, for people; or NULL */
} fm_hparams;

typedef enum { FM_MIX_ATTENTION, FM_MIX_LATENT, FM_MIX_DELTA } fm_mixer;

typedef enum {
    FM_W_ATTN_NORM,
    FM_W_FFN_NORM,
    FM_W_Q,
    FM_W_K,
    FM_W_V,
    FM_W_O,
    FM_W_Q_BIAS,
    FM_W_K_BIAS,
    FM_W_V_BIAS,
    FM_W_O_BIAS,
    FM_W_SINKS,
    FM_W_Q_NORM,
    FM_W_K_NORM,
    FM_W_Q_A,
    FM_W_Q_A_NORM,
    FM_W_Q_B,
    FM_W_KV_A,
    FM_W_KV_A_NORM,
    FM_W_K_B,  /* [n_head][n_latent][d_nope]: a head's key matrix, transposed */
    FM_W_V_B,  /* [n_head][d_value][n_latent]                                 */
    FM_W_KV_B, /* [n_head][d_nope + d_value][n_latent], in place of these two */
    FM_W_QKV,
    FM_W_Z,
    FM_W_CONV,
    FM_W_DT,
    FM_W_A,
    FM_W_BETA,
    FM_W_ALPHA,
    FM_W_BA,
    FM_W_SSM_NORM,
    FM_W_SSM_OUT,
    FM_W_ROUTER,
    FM_W_ROUTER_BIAS,
    FM_W_GATE_BIAS, /* [n_expert][n_ff_expert], of the routed experts; [2 n_ff_expert] with `alternate` */
    FM_W_UP_BIAS,
    FM_W_DOWN_BIAS,   /* [n_expert][n_embd] */
    FM_W_CHOICE_BIAS, /* added to the router's scores for choosing only */
    FM_W_SH_ROUTER,
    FM_W_SH_GATE,
    FM_W_SH_UP,
    FM_W_SH_DOWN,
    FM_W_FF_GATE,
    FM_W_FF_UP,
    FM_W_FF_DOWN,
    FM_W_INDEX_Q, /* [n_index_head * d_index][q latent] */
    FM_W_INDEX_K,
    FM_W_INDEX_K_NORM,
    FM_W_INDEX_K_NORM_BIAS,
    FM_W_INDEX_WEIGHTS, /* [n_index_head][n_embd] */
    FM_W_DRAFT_IN, /* [n_embd][2 n_embd]: of the next token's embedding, then of the hidden state */
    FM_W_DRAFT_EMBD_NORM,
    FM_W_DRAFT_HIDDEN_NORM,
    FM_W_DRAFT_OUT_NORM,
    FM_W_COUNT
} fm_weight;

typedef struct {
    fm_mixer mixer;
    int32_t kv_index;    /* number among the layers of the same mixer; layers with a sliding
                                     window come after those without                       */
    int32_t index_layer; /* number among the layers with an indexer of their own; -1: none, so a
                            layer of a sparse model shares the choice of the layer before          */
    bool windowed;       /* attention sees hp.window positions, its own included      */
    int16_t piece_of[FM_W_COUNT]; /* first of its pieces (one per plane), -1: not in this layer */
    const fm_tensor_info *tensor_of[FM_W_COUNT];
    fm_trunk_piece pieces[FM_W_COUNT * FM_MAX_PLANES];
    int32_t n_piece;
    fm_expert_layer experts; /* parts: gate, up, down, or gate_up, down   */
    const fm_type_traits *type_gate, *type_up, *type_down;
    int8_t part_gate, part_up, part_down; /* the first of each matrix's parts (one per plane)   */
    bool fused_gate_up; /* gate and up are one matrix, gate's rows first ...                   */
    bool alternate;     /* ... or gate and up in turn; then their biases are one table as well */
    bool gate_columns, down_columns; /* matrices lie by columns (FM_LAYOUT_COLUMNS); up as gate */
    fm_layout book_layout; /* the model's */
} fm_layer;

/* Positions whose attention is one work item; a multiple of FM_ATTN_BLOCK. */
enum { FM_ATTN_UNIT = 1024 };

typedef struct fm_model {
    const char *architecture;
    const struct fm_family *family;
    fm_hparams hp;
    fm_layer *layers;             /* [n_layer + n_draft]                                       */
    int32_t n_draft;              /* 1: a draft layer is bound, behind the others; draft.c     */
    int32_t n_attention, n_delta; /* n_attention: with and without a window, the draft layer's */
    int32_t n_windowed;
    int32_t n_index_layer; /* layers that choose the positions their attention sees */
    int32_t n_moe_layer;   /* layers with routed experts; the others have a dense block */
    const fm_tensor_info *embd, *head, *out_norm;
    bool tied;            /* the head is the embedding                                 */
    fm_trunk_unit *units; /* [n_unit]: layer i is unit i, then the head in row ranges up to
                             n_layer + n_head_unit, then the draft layer                */
    fm_trunk_piece *head_pieces;
    int32_t n_unit, n_head_unit;
    int64_t head_rows; /* rows of one head unit (the last may have fewer)           */
    uint64_t n_param, n_param_active, trunk_bytes, expert_bytes;
    uint64_t draft_trunk_bytes; /* of the draft layer, not in trunk_bytes */
    int32_t n_expert_used_trained;
    int32_t n_extra_layer; /* layers of the file behind the last one: they draft        */
    fm_layout book_layout; /* of matrices in formats of code books: fm_model_use_kernels() */
} fm_model;

/* Binds a checkpoint: reads the configuration, finds every tensor and checks its type and shape.
 * The checkpoint must outlive the model. n_expert_used: 0 as trained. */
fm_status fm_model_bind(fm_model **out, const fm_checkpoint *c, int32_t n_expert_used,
                        fm_error *err);
void fm_model_free(fm_model *m);

/* Binds the first draft layer of the checkpoint, which must be the model's own, and uses it; sizes of the model leave it out. FM_E_UNSUPPORTED when there is none or the
 * family's drafts are not known, FM_E_FORMAT when it is not whole; the model is then as before. */
fm_status fm_model_add_draft(fm_model *m, const fm_checkpoint *c, fm_error *err);
/* Without the layer, or with it again, when it was bound before; not once anything was made from the model. */
void fm_model_use_draft(fm_model *m, bool use);

/* From now on matrices are brought into the layouts that these kernels want; before anything is made from the model. Without
 * this they are brought into those that every set computes with. */
void fm_model_use_kernels(fm_model *m, const fm_kernels *kernels);

/* Brings a trunk unit into the layout the kernels want; the store's prepare callback. */
typedef struct {
    const fm_model *model;
    const fm_kernels *kernels;
    fm_pool *pool;
    unsigned char *pack_scratch; /* [n_thread][pack_scratch_each] */
    size_t pack_scratch_each;
} fm_prepare_ctx;
void fm_model_prepare_unit(void *prepare_ctx, int32_t unit, uint8_t **ptr);
size_t fm_model_pack_scratch(const fm_model *m); /* bytes one thread needs */

/* n_batch: tokens of the longest pass; a layer with a sliding window keeps its window and one pass. */
fm_kv_shape fm_model_kv_shape(const fm_model *m, int64_t n_ctx, int64_t n_batch, bool f16);

/* Whether sessions of this context ever see more positions than attention is to look at; where not, the
 * indexer does not run and keeps nothing. */
bool fm_model_chooses(const fm_model *m, int64_t n_ctx);

/* ---- forward pass ------------------------------------------------------------------------ */

typedef struct fm_run fm_run;

typedef struct {
    const fm_model *model;
    const fm_kernels *kernels;
    fm_pool *pool;
    fm_store *store;
    /* Reads n bytes of the file that holds plane `plane` of the embedding, for single rows. */
    fm_status (*read_embd)(void *user, void *dst, size_t n, int plane, uint64_t offset,
                           fm_error *err);
    /* Says that read_embd will soon ask for these bytes, so that rows come together; cannot fail. */
    void (*hint_embd)(void *user, size_t n, int plane, uint64_t offset);
    void *read_user;
    int64_t n_ctx;
    int32_t n_batch; /* tokens in one pass */
    fm_prefetch prefetch;
    struct fm_input_sums *importance; /* gathers what matrices are multiplied with, or NULL */
    struct fm_route_trace *trace;     /* records the choice of experts, or NULL */
} fm_run_options;

/* Bytes of working memory for these sizes. */
uint64_t fm_run_bytes(const fm_model *m, int32_t n_batch, int64_t n_ctx, int n_thread);

/* Working memory comes from the ledger's line FM_LINE_SCRATCH. */
fm_status fm_run_create(fm_run **out, const fm_run_options *opt, fm_ledger *ledger, fm_error *err);
void fm_run_destroy(fm_run *r);

/* Which tokens of a pass get logits. DRAFTED: of a token and a draft of the next one both, two rows in fm_run_logits(); the
 * recurrent state is then that after the first, and the other state that after the draft. */
typedef enum { FM_HEAD_NONE, FM_HEAD_LAST, FM_HEAD_ALL, FM_HEAD_DRAFTED } fm_head_mode;

typedef struct {
    bool (*keep_going)(void *user); /* asked between layers, experts and blocks of tokens, on
                                       the thread of the pass; NULL: never stop */
    void *keep_user;
    fm_logits_fn logits; /* FM_HEAD_ALL: receives each row                     */
    void *logits_user;
    int64_t logits_from; /* FM_HEAD_ALL: of the tokens from this position on   */
    /* Positions [call_from, call_to) are evaluated in one call, of which this pass is a part. */
    int64_t call_from, call_to;
} fm_pass_hooks;

/* Evaluates n <= n_batch tokens at positions pos0.. of the session state kv. With FM_HEAD_LAST the
 * logits of the last are in fm_run_logits(). An error or a stop leaves kv unusable. */
fm_status fm_run_pass(fm_run *r, fm_kv *kv, const int32_t *ids, int32_t n, int64_t pos0,
                      fm_head_mode head, const fm_pass_hooks *hooks, fm_error *err);
const float *fm_run_logits(const fm_run *r); /* [n_vocab] */

/* ---- drafts: draft.c ---------------------------------------------------------------------- */

/* The draft layer of a model guesses the token after the next one from the hidden state of a position and the next
 * token. It has keys and values of its own for every position, so it follows whatever the session evaluates: */

/* ids [n] were just evaluated at pos0: all but the last position get their keys, the last one waits for its next token. */
fm_status fm_draft_follow(fm_run *r, fm_kv *kv, const int32_t *ids, int32_t n, int64_t pos0,
                          const fm_pass_hooks *hooks, fm_error *err);
/* The positions that wait get their keys, now that `next` is known to follow the last of them. With *draft not NULL the
 * layer is evaluated for the last one and *draft becomes what probably follows `next`. Does nothing when none waits, *draft
 * is then -1. */
fm_status fm_draft_next(fm_run *r, fm_kv *kv, int32_t next, int32_t *draft,
                        const fm_pass_hooks *hooks, fm_error *err);
/* After a pass with FM_HEAD_DRAFTED at pos0: the first token's position waits; and once the draft has turned out right,
 * the second one's, too. */
void fm_draft_pair(fm_run *r, int64_t pos0, int32_t draft);
void fm_draft_right(fm_run *r);
void fm_draft_forget(fm_run *r); /* the session is empty again */
/* [n_vocab] of the last evaluation; of a large vocabulary often the lower ids only. */
const float *fm_draft_logits(const fm_run *r);
/* Share in [0, 1) of the present pass that is done, counted in layers; for the keep_going hook. */
double fm_run_pass_share(const fm_run *r);

/* Ends the recording; the trace is the caller's. */
void fm_run_drop_trace(fm_run *r);

typedef struct {
    uint64_t attention_us, expert_us, head_us; /* without waits for the disk */
    uint64_t embd_us;                          /* in read_embd               */
    uint64_t draft_us;                         /* in the draft layer and its head, without waits */
} fm_run_stats;
void fm_run_stats_get(const fm_run *r, fm_run_stats *out);
