/* qwen3moe: Qwen3-30B-A3B, 235B-A22B. Plain grouped-query attention with per-head q and k norms in
 * every layer, rope over the whole head, routed experts, no shared expert.
 * Source: transformers, models/qwen3_moe; checked by tests/model/test_reference.c.
 */
#include "model/family.h"

static fm_status read_config(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    FM_TRY(fm_hp_common(c, hp, err));
    hp->full_attention_interval = 1;
    hp->n_ff_shared = 0;
    hp->gated_attention = false;
    return FM_OK;
}

static fm_status bind_layer(fm_binder *b)
{
    FM_TRY(fm_bind_vector(b, FM_W_ATTN_NORM, "attn_norm.weight", b->hp->n_embd));
    FM_TRY(fm_bind_attention(b));
    FM_TRY(fm_bind_qk_norm(b));
    FM_TRY(fm_bind_vector(b, FM_W_FFN_NORM, "ffn_norm.weight", b->hp->n_embd));
    return fm_bind_experts(b);
}

const fm_family fm_family_qwen3moe = {"qwen3moe", read_config, bind_layer, false};
