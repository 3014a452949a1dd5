/* Qwen3, Qwen3-Next, Qwen3.5. Names and configuration keys: transformers, models/<model_type>, and the published
 * checkpoints; switch_mlp: mlx-lm. */
#include "format/hf_adapter.h"

#include <math.h>
#include <string.h>

// clang-format off
#define QWEN_KEYS                                                                                  \
    FM_HF_COMMON_KEYS,                                                                             \
    FM_HF_HEAD_KEYS,                                                                               \
    {"num_experts", "expert_count", FM_HF_INT, true},                                              \
    {"num_local_experts", "expert_count", FM_HF_INT, true},                                        \
    {"num_experts_per_tok", "expert_used_count", FM_HF_INT, false},                                \
    {"moe_intermediate_size", "expert_feed_forward_length", FM_HF_INT, false}
// clang-format on

static const fm_hf_key qwen3_keys[] = {QWEN_KEYS, {0}};

static const fm_hf_key hybrid_keys[] = {
    QWEN_KEYS,
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length", FM_HF_INT, false},
    {"linear_conv_kernel_dim", "ssm.conv_kernel", FM_HF_INT, false},
    {"linear_key_head_dim", "ssm.state_size", FM_HF_INT, false},
    {"linear_num_key_heads", "ssm.group_count", FM_HF_INT, false},
    {"linear_num_value_heads", "ssm.time_step_rank", FM_HF_INT, false},
    {0}};

static const fm_hf_name qwen3_names[] = {FM_HF_ENDS(FM_FIX_NONE),
                                         {.module = "input_layernorm", .name = "attn_norm"},
                                         {.module = "post_attention_layernorm", .name = "ffn_norm"},
                                         FM_HF_GQA(FM_FIX_NONE, false),
                                         FM_HF_EXPERTS,
                                         {0}};

static const fm_hf_name hybrid_names[] = {
    FM_HF_ENDS(FM_FIX_ADD_ONE),
    {.module = "input_layernorm", .name = "attn_norm", .fix = FM_FIX_ADD_ONE},
    {.module = "post_attention_layernorm", .name = "post_attention_norm", .fix = FM_FIX_ADD_ONE},
    FM_HF_GQA(FM_FIX_ADD_ONE, false),
    {.module = "linear_attn.in_proj_qkv", .name = "attn_qkv"},
    {.module = "linear_attn.in_proj_z", .name = "attn_gate"},
    {.module = "linear_attn.in_proj_b", .name = "ssm_beta"},
    {.module = "linear_attn.in_proj_a", .name = "ssm_alpha"},
    {.module = "linear_attn.in_proj_qkvz", .name = "attn_qkv", .rows = FM_HF_QKVZ},
    {.module = "linear_attn.in_proj_ba", .name = "ssm_ba"},
    {.module = "linear_attn.conv1d", .name = "ssm_conv1d"},
    {.module = "linear_attn.dt_bias", .name = "ssm_dt.bias", .whole = true},
    {.module = "linear_attn.A_log", .name = "ssm_a", .whole = true, .fix = FM_FIX_NEG_EXP},
    {.module = "linear_attn.norm", .name = "ssm_norm"},
    {.module = "linear_attn.out_proj", .name = "ssm_out"},
    FM_HF_EXPERTS,
    {.module = "mlp.shared_expert_gate", .name = "ffn_gate_inp_shexp"},
    {.module = "mlp.shared_expert.gate_proj", .name = "ffn_gate_shexp"},
    {.module = "mlp.shared_expert.up_proj", .name = "ffn_up_shexp"},
    {.module = "mlp.shared_expert.down_proj", .name = "ffn_down_shexp"},
    {0}};

static const fm_hf_name hybrid_draft[] = {
    {.module = "fc", .name = "nextn.eh_proj"},
    {.module = "pre_fc_norm_embedding", .name = "nextn.enorm", .fix = FM_FIX_ADD_ONE},
    {.module = "pre_fc_norm_hidden", .name = "nextn.hnorm", .fix = FM_FIX_ADD_ONE},
    {.module = "norm", .name = "nextn.shared_head_norm", .fix = FM_FIX_ADD_ONE},
    {0}};

static fm_status qwen_common(const json_t *text, const char *path, bool renormalises, fm_error *err)
{
    if (!renormalises && !json_is_true(json_object_get(text, "norm_topk_prob")))
        return fm_hf_refuse(err, path, "norm_topk_prob is not true");
    if (json_array_size(json_object_get(text, "mlp_only_layers")) > 0)
        return fm_hf_refuse(err, path, "mlp_only_layers is not empty");
    if (fm_hf_number(text, "decoder_sparse_step", 1) != 1)
        return fm_hf_refuse(err, path, "decoder_sparse_step is not 1");
    if (json_is_true(json_object_get(text, "attention_bias")))
        return fm_hf_refuse(err, path, "attention_bias is true");
    return fm_hf_check_silu(text, path, err);
}

static fm_status qwen3_more(fm_checkpoint *c, const json_t *text, const char *path, fm_error *err)
{
    FM_TRY(qwen_common(text, path, false, err));
    if (json_is_true(json_object_get(text, "use_sliding_window")))
        return fm_hf_refuse(err, path, "use_sliding_window is true");
    return fm_hf_put_rope(c, "qwen3moe", text, path, &(fm_hf_rope){10000, 1.0, 0}, err);
}

/* layer_types must be the pattern of full_attention_interval, which is what the models have. */
static fm_status put_interval(fm_checkpoint *c, const char *arch, const json_t *text,
                              const char *path, fm_error *err)
{
    const json_t *types = json_object_get(text, "layer_types");
    const double given = fm_hf_number(text, "full_attention_interval", 0);
    if (!(given >= 0 && given <= 65536) || given != floor(given))
        return fm_fail(err, FM_E_FORMAT,
                       "%s: full_attention_interval is %g, expected a whole number up to 65536",
                       path, given);
    uint64_t interval = (uint64_t)given;
    const size_t n = json_array_size(types);
    for (size_t i = 0; i < n && interval == 0; i++) {
        const char *t = json_string_value(json_array_get(types, i));
        if (t && strcmp(t, "full_attention") == 0) interval = i + 1;
    }
    if (interval == 0) interval = n > 0 ? n + 1 : 4;
    for (size_t i = 0; i < n; i++) {
        const char *t = json_string_value(json_array_get(types, i));
        const bool full = t && strcmp(t, "full_attention") == 0;
        if (!t || full != ((i + 1) % interval == 0) ||
            (!full && strcmp(t, "linear_attention") != 0))
            return fm_hf_refuse(err, path,
                                "layer_types is no regular pattern of linear and full attention");
    }
    return fm_hf_put_uint(c, arch, "full_attention_interval", interval, err);
}

static fm_status hybrid_more(fm_checkpoint *c, const char *arch, const json_t *text,
                             const char *path, fm_error *err)
{
    const double k = fm_hf_number(text, "linear_key_head_dim", 0),
                 v = fm_hf_number(text, "linear_value_head_dim", 0),
                 n = fm_hf_number(text, "linear_num_value_heads", 0);
    if (k != v)
        return fm_hf_refuse(err, path, "linear_key_head_dim and linear_value_head_dim differ");
    if (!(v * n >= 1 && v * n < 1e9))
        return fm_fail(err, FM_E_FORMAT, "%s: linear_value_head_dim %g x linear_num_value_heads %g",
                       path, v, n);
    FM_TRY(fm_hf_put_uint(c, arch, "ssm.inner_size", (uint64_t)(v * n), err));
    FM_TRY(fm_hf_put_bool(c, arch, "ssm.grouped_value_heads", true, err));
    FM_TRY(put_interval(c, arch, text, path, err));
    return fm_hf_put_rope(c, arch, text, path, &(fm_hf_rope){10000, 0.25, 0}, err);
}

static fm_status qwen3_next_more(fm_checkpoint *c, const json_t *text, const char *path,
                                 fm_error *err)
{
    FM_TRY(qwen_common(text, path, false, err));
    return hybrid_more(c, "qwen3next", text, path, err);
}

static fm_status qwen35_more(fm_checkpoint *c, const json_t *text, const char *path, fm_error *err)
{
    FM_TRY(qwen_common(text, path, true, err));
    return hybrid_more(c, "qwen35moe", text, path, err);
}

const fm_hf_adapter fm_hf_qwen[] = {
    {"qwen3_5_moe_text", "qwen35moe", hybrid_keys, hybrid_names, qwen35_more, "qwen35",
     hybrid_draft},
    {"qwen3_5_moe", "qwen35moe", hybrid_keys, hybrid_names, qwen35_more, "qwen35", hybrid_draft},
    {"qwen3_next", "qwen3next", hybrid_keys, hybrid_names, qwen3_next_more, "qwen2", hybrid_draft},
    {"qwen3_moe", "qwen3moe", qwen3_keys, qwen3_names, qwen3_more, "qwen2", NULL},
    {0}};
