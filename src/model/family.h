/* What a family file supplies: reading its configuration and binding one layer. Used by bind.c. */
#pragma once

#include "model/model.h"

/* Binds the tensors of one layer. Every fm_bind_*() below finds its tensors in the checkpoint, checks type
 * and shape against the configuration, and appends them to the layer; where one is missing or does not
 * fit it fails with FM_E_FORMAT or FM_E_UNSUPPORTED and a message that names the tensor, what was
 * found and what was expected. Borrows everything; lives for one layer. */
typedef struct {
    const fm_checkpoint *c;
    const fm_hparams *hp;
    fm_layer *layer;
    int32_t index; /* of the layer, from 0 */
    fm_error *err;
} fm_binder;

/* A family. read fills hp from the metadata, on top of zeros, and refuses what the family cannot be.
 * bind_layer is called once per layer in order, after n_vocab is known, and where `drafts` once more for the first of those
 * that the file holds beyond n_layer. Neither keeps state. */
typedef struct fm_family {
    const char *architecture; /* general.architecture of the files */
    fm_status (*read)(const fm_checkpoint *c, fm_hparams *hp, fm_error *err);
    fm_status (*bind_layer)(fm_binder *b);
    bool
        drafts; /* draft layers are layers of full attention, bound like the others, with nextn.* */
} fm_family;

extern const fm_family fm_family_qwen35moe;
extern const fm_family fm_family_qwen3next;
extern const fm_family fm_family_qwen3moe;
extern const fm_family fm_family_glm4moe;
extern const fm_family fm_family_gptoss;
extern const fm_family fm_family_deepseek2;
extern const fm_family fm_family_deepseek32;
extern const fm_family fm_family_glm_dsa;

/* "A.key" of the checkpoint's architecture A; the value must lie in [lo, hi]. */
fm_status fm_hp_i32(const fm_checkpoint *c, const char *key, int32_t *out, int32_t lo, int32_t hi,
                    fm_error *err);
fm_status fm_hp_i32_or(const fm_checkpoint *c, const char *key, int32_t *out, int32_t fallback,
                       int32_t lo, int32_t hi, fm_error *err);
fm_status fm_hp_f32(const fm_checkpoint *c, const char *key, float *out, fm_error *err);
fm_status fm_hp_f32_or(const fm_checkpoint *c, const char *key, float *out, float fallback,
                       fm_error *err);
fm_status fm_hp_bool_or(const fm_checkpoint *c, const char *key, bool *out, bool fallback,
                        fm_error *err);
/* fallback must outlive *out. */
fm_status fm_hp_str_or(const fm_checkpoint *c, const char *key, fm_str *out, const char *fallback,
                       fm_error *err);

/* What every family has: sizes, experts, eps, the base of rope. */
fm_status fm_hp_sizes(const fm_checkpoint *c, fm_hparams *hp, fm_error *err);
/* The same, and attention with keys and values per head. */
fm_status fm_hp_common(const fm_checkpoint *c, fm_hparams *hp, fm_error *err);
/* Latent attention, after fm_hp_sizes(). */
fm_status fm_hp_latent(const fm_checkpoint *c, fm_hparams *hp, fm_error *err);
/* The indexer of sparse attention, after fm_hp_latent(). */
fm_status fm_hp_indexer(const fm_checkpoint *c, fm_hparams *hp, fm_error *err);
/* Sigmoid (or softmax) router: expert_gating_func and what belongs to it. */
fm_status fm_hp_router(const fm_checkpoint *c, fm_hparams *hp, fm_error *err);
/* The first layers without experts. */
fm_status fm_hp_dense(const fm_checkpoint *c, fm_hparams *hp, fm_error *err);
fm_status fm_hp_delta(const fm_checkpoint *c, fm_hparams *hp, fm_error *err);

/* blk.<index>.<suffix>: a matrix [n_out][n_in] of any computable type, or an f32 vector [n]. */
fm_status fm_bind_matrix(fm_binder *b, fm_weight w, const char *suffix, int64_t n_in,
                         int64_t n_out);
fm_status fm_bind_vector(fm_binder *b, fm_weight w, const char *suffix, int64_t n);
/* An f32 matrix that is used element by element (convolution). */
fm_status fm_bind_table(fm_binder *b, fm_weight w, const char *suffix, int64_t n_in, int64_t n_out);

/* n_stack matrices [n_out][n_in], one after the other: a tensor of three dimensions, or of two with
 * n_stack * n_out rows. */
fm_status fm_bind_stack(fm_binder *b, fm_weight w, const char *suffix, int64_t n_in, int64_t n_out,
                        int64_t n_stack);

bool fm_bind_has(const fm_binder *b, const char *suffix); /* is blk.<index>.<suffix> in the file? */

fm_status fm_bind_attention(fm_binder *b);     /* q, k, v, o                               */
fm_status fm_bind_qk_norm(fm_binder *b);       /* per-head norms of q and k                */
fm_status fm_bind_qkv_bias(fm_binder *b);      /* biases of q, k, v                        */
fm_status fm_bind_latent(fm_binder *b);        /* q, kv, k_b and v_b or kv_b, o            */
fm_status fm_bind_indexer(fm_binder *b);       /* indexer.*, in layers that choose         */
fm_status fm_bind_delta(fm_binder *b);         /* qkv, z, conv, dt, a, b/a, norm, out      */
fm_status fm_bind_experts(fm_binder *b);       /* router and ffn_*_exps                    */
fm_status fm_bind_expert_biases(fm_binder *b); /* ffn_*_exps.bias; after fm_bind_experts    */
fm_status fm_bind_choice_bias(fm_binder *b);   /* exp_probs_b, where the file has it       */
fm_status fm_bind_shared_expert(fm_binder *b); /* ffn_*_shexp                              */
fm_status fm_bind_dense(fm_binder *b);         /* ffn_gate, ffn_up, ffn_down               */
/* A whole layer of the families that mix gated DeltaNet and gated attention: norms, the mixer, routed and
 * shared experts. */
fm_status fm_bind_hybrid_layer(fm_binder *b);
