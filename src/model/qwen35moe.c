/* qwen35moe: Qwen3.5-397B-A17B, 122B-A10B, 35B-A3B and what shares their shape.
 *
 * Every full_attention_interval-th layer is gated attention, the others gated DeltaNet; every
 * layer has routed experts and a gated shared expert. GGUF files hold norms as 1 + w and value
 * heads in tiled order (value head h belongs to key head h % n_k_head).
 * Source: transformers, models/qwen3_5_moe; checked by tests/model/test_reference.c.
 */
#include "model/family.h"

static fm_status read_config(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    FM_TRY(fm_hp_common(c, hp, err));
    FM_TRY(fm_hp_delta(c, hp, err));
    hp->gated_attention = true;
    bool grouped;
    FM_TRY(fm_hp_bool_or(c, "ssm.grouped_value_heads", &grouped, false, err));
    hp->tiled_heads = !grouped;
    hp->fused_ba = false;
    return FM_OK;
}

const fm_family fm_family_qwen35moe = {"qwen35moe", read_config, fm_bind_hybrid_layer, true};
