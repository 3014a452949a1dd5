/* deepseek2: DeepSeek-V3, R1, V3.1 and Kimi K2, K2-Thinking, K2.5 (its text part).
 * deepseek32: DeepSeek-V3.2, the same with an indexer that chooses what attention sees.
 * glm-dsa: GLM-5, 5.1 and 5.2; like deepseek32, but for the order of the indexer's rotary values, and layers
 * of 5.2 that share a choice.
 *
 * Latent attention in every layer; the first layers with one feed-forward block, the others with
 * sigmoid-routed experts, chosen with a bias and, in DeepSeek's models, within groups, and a shared
 * expert that is added as it is. Draft layers (nextn_predict_layers) lie behind the last layer and are not
 * evaluated. The softmax router of DeepSeek-V2, whose files have the same architecture name, is refused.
 * Source: transformers, models/deepseek_v3, deepseek_v32, glm_moe_dsa; checked by tests/model/test_reference.c.
 */
#include "model/family.h"

#include <string.h>

/* Files of DeepSeek-V3 from before the keys for groups exist have the published model's 8 and 4. */
static void assume_groups(fm_hparams *hp)
{
    enum { V3_LAYERS = 61, V3_EXPERTS = 256, V3_USED = 8 };
    if (hp->n_layer != V3_LAYERS || hp->n_expert != V3_EXPERTS || hp->n_expert_used != V3_USED)
        return;
    hp->router.n_group = 8;
    hp->router.n_group_used = 4;
}

/* Files of Kimi K2 from before the keys for YaRN's ramp exist. K2-Instruct (factor 32), K2-Instruct-0905 (64) and K2-Thinking
 * (64) were trained with beta_fast 1, K2.5 (64) with the usual 32. The first two are told by factor and epsilon, the last
 * two have the same numbers throughout, so their name must say it. A configuration of a directory without them means 32. */
static fm_status assume_betas(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    enum { K2_LAYERS = 61, K2_EXPERTS = 384, K2_HEADS = 64 };
    fm_str name;
    if (hp->n_layer != K2_LAYERS || hp->n_expert != K2_EXPERTS || hp->n_head != K2_HEADS ||
        hp->rope.scaling != FM_ROPE_YARN || fm_checkpoint_directory(c) ||
        fm_meta_has(c, "deepseek2.rope.scaling.yarn_beta_fast"))
        return FM_OK;
    if (hp->rope.factor == 32.0f || (hp->rope.factor == 64.0f && hp->eps < 5e-6f)) {
        hp->rope.beta_fast = 1.0f;
    } else if (hp->rope.factor == 64.0f) {
        FM_TRY(fm_meta_str_or(c, "general.name", &name, "", err));
        const bool thinks = strstr(name.data, "Thinking") || strstr(name.data, "thinking");
        if (thinks) hp->rope.beta_fast = 1.0f;
        hp->note = thinks ? "rope.scaling.yarn_beta_fast is missing; by its name the model is Kimi "
                            "K2-Thinking, so 1 is taken (K2.5: 32)"
                          : "rope.scaling.yarn_beta_fast is missing; 32 is taken, as Kimi K2.5 has "
                            "it (K2-Thinking: 1)";
    }
    return FM_OK;
}

static fm_status read_config(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    int32_t n_shared, n_group;
    FM_TRY(fm_hp_sizes(c, hp, err));
    FM_TRY(fm_hp_latent(c, hp, err));
    FM_TRY(assume_betas(c, hp, err));
    FM_TRY(fm_hp_router(c, hp, err));
    if (hp->router.gating != FM_GATE_SIGMOID)
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: expert_gating_func is not 2 (sigmoid), the router of DeepSeek-V3 and "
                       "Kimi K2; the one of DeepSeek-V2 is not supported",
                       fm_checkpoint_file(c, 0));
    FM_TRY(fm_hp_i32_or(c, "expert_group_count", &n_group, -1, 0, FM_ROUTER_GROUPS_MAX, err));
    if (n_group < 0) assume_groups(hp);
    FM_TRY(fm_hp_dense(c, hp, err));
    FM_TRY(
        fm_hp_i32_or(c, "expert_shared_count", &n_shared, 1, 0, INT32_MAX / hp->n_ff_expert, err));
    hp->n_ff_shared = n_shared * hp->n_ff_expert;
    hp->full_attention_interval = 1;
    return FM_OK;
}

static fm_status bind_layer(fm_binder *b)
{
    const int64_t n_embd = b->hp->n_embd;
    FM_TRY(fm_bind_vector(b, FM_W_ATTN_NORM, "attn_norm.weight", n_embd));
    FM_TRY(fm_bind_latent(b));
    FM_TRY(fm_bind_vector(b, FM_W_FFN_NORM, "ffn_norm.weight", n_embd));
    if (b->index < b->hp->n_dense_layer) return fm_bind_dense(b);
    FM_TRY(fm_bind_experts(b));
    FM_TRY(fm_bind_vector(b, FM_W_CHOICE_BIAS, "exp_probs_b.bias", b->hp->n_expert));
    return b->hp->n_ff_shared ? fm_bind_shared_expert(b) : FM_OK;
}

static fm_status read_sparse(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    FM_TRY(read_config(c, hp, err));
    return fm_hp_indexer(c, hp, err);
}

static fm_status read_glm(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    hp->index_rope_pairs = hp->index_may_share = true;
    return read_sparse(c, hp, err);
}

static fm_status bind_sparse_layer(fm_binder *b)
{
    FM_TRY(bind_layer(b));
    return fm_bind_indexer(b);
}

const fm_family fm_family_deepseek2 = {"deepseek2", read_config, bind_layer, false};
const fm_family fm_family_deepseek32 = {"deepseek32", read_sparse, bind_sparse_layer, false};
const fm_family fm_family_glm_dsa = {"glm-dsa", read_glm, bind_sparse_layer, false};
