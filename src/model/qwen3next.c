/* qwen3next: Qwen3-Next-80B-A3B. As qwen35moe, but value heads are grouped (value head h belongs to
 * key head h / (n_v_head / n_k_head)) and the b and a projections are one tensor, per key head.
 * Source: transformers, models/qwen3_next; checked by tests/model/test_reference.c.
 */
#include <stdio.h>

#include "model/family.h"

static fm_status read_config(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    FM_TRY(fm_hp_common(c, hp, err));
    FM_TRY(fm_hp_delta(c, hp, err));
    hp->gated_attention = true;
    hp->tiled_heads = false;
    hp->fused_ba = true;
    return FM_OK;
}

static fm_status bind_layer(fm_binder *b)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.ssm_in.weight", b->index);
    if (fm_checkpoint_find(b->c, name))
        return fm_fail(b->err, FM_E_UNSUPPORTED,
                       "%s: this is the early layout of qwen3next files (one fused projection); "
                       "a newer file has attn_qkv and attn_gate instead",
                       name);
    return fm_bind_hybrid_layer(b);
}

const fm_family fm_family_qwen3next = {"qwen3next", read_config, bind_layer, true};
