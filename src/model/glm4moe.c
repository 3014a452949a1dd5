/* glm4moe: GLM-4.5, 4.6, 4.7 and their Air variants.
 *
 * Grouped-query attention with biases on q, k and v, per-head q and k norms where the file has them
 * (Air has none), rope on the first half of each head; the first layers with one feed-forward block,
 * the others with sigmoid-routed experts and one shared expert that is added as it is. A draft layer
 * (nextn_predict_layers) lies behind the last layer.
 * Source: transformers, models/glm4_moe; checked by tests/model/test_reference.c.
 */
#include "model/family.h"

static fm_status read_config(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    int32_t n_shared;
    FM_TRY(fm_hp_common(c, hp, err));
    FM_TRY(fm_hp_router(c, hp, err));
    FM_TRY(fm_hp_dense(c, hp, err));
    FM_TRY(
        fm_hp_i32_or(c, "expert_shared_count", &n_shared, 1, 0, INT32_MAX / hp->n_ff_expert, err));
    hp->n_ff_shared = n_shared * hp->n_ff_expert;
    /* A directory's configuration says so; a GGUF file has the tensors or not. */
    FM_TRY(fm_hp_bool_or(c, "attention.qkv_bias", &hp->qkv_bias, true, err));
    FM_TRY(fm_hp_bool_or(c, "attention.qk_norm", &hp->qk_norm,
                         fm_checkpoint_find(c, "blk.0.attn_q_norm.weight") != NULL, err));
    hp->full_attention_interval = 1;
    return FM_OK;
}

static fm_status bind_layer(fm_binder *b)
{
    const int64_t n_embd = b->hp->n_embd;
    FM_TRY(fm_bind_vector(b, FM_W_ATTN_NORM, "attn_norm.weight", n_embd));
    FM_TRY(fm_bind_attention(b));
    if (b->hp->qkv_bias) FM_TRY(fm_bind_qkv_bias(b));
    if (b->hp->qk_norm) FM_TRY(fm_bind_qk_norm(b));
    FM_TRY(fm_bind_vector(b, FM_W_FFN_NORM, "post_attention_norm.weight", n_embd));
    if (b->index < b->hp->n_dense_layer) return fm_bind_dense(b);
    FM_TRY(fm_bind_experts(b));
    FM_TRY(fm_bind_choice_bias(b));
    return b->hp->n_ff_shared ? fm_bind_shared_expert(b) : FM_OK;
}

const fm_family fm_family_glm4moe = {"glm4moe", read_config, bind_layer, true};
