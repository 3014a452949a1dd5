/* The tables of the families. Names and configuration keys: transformers, models/<model_type>, and the published
 * checkpoints; switch_mlp: mlx-lm. */
#include "format/hf_adapter.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- Qwen -------------------------------------------------------------------------------- */

#define COMMON_KEYS                                                                                \
    {"num_hidden_layers", "block_count", FM_HF_INT, false},                                        \
        {"hidden_size", "embedding_length", FM_HF_INT, false},                                     \
        {"max_position_embeddings", "context_length", FM_HF_INT, true},                            \
        {"num_attention_heads", "attention.head_count", FM_HF_INT, false},                         \
        {"num_key_value_heads", "attention.head_count_kv", FM_HF_INT, true},                       \
    {                                                                                              \
        "rms_norm_eps", "attention.layer_norm_rms_epsilon", FM_HF_FLOAT, false                     \
    }

#define QWEN_KEYS                                                                                  \
    COMMON_KEYS, {"head_dim", "attention.key_length", FM_HF_INT, true},                            \
        {"head_dim", "attention.value_length", FM_HF_INT, true},                                   \
        {"num_experts", "expert_count", FM_HF_INT, true},                                          \
        {"num_local_experts", "expert_count", FM_HF_INT, true},                                    \
        {"num_experts_per_tok", "expert_used_count", FM_HF_INT, false},                            \
    {                                                                                              \
        "moe_intermediate_size", "expert_feed_forward_length", FM_HF_INT, false                    \
    }

static const fm_hf_key qwen3_keys[] = {QWEN_KEYS, {0}};

static const fm_hf_key hybrid_keys[] = {
    QWEN_KEYS,
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length", FM_HF_INT, false},
    {"linear_conv_kernel_dim", "ssm.conv_kernel", FM_HF_INT, false},
    {"linear_key_head_dim", "ssm.state_size", FM_HF_INT, false},
    {"linear_num_key_heads", "ssm.group_count", FM_HF_INT, false},
    {"linear_num_value_heads", "ssm.time_step_rank", FM_HF_INT, false},
    {0}};

/* module, GGUF name; then what differs: .whole, .global, .fix */
#define ENDS(norm_fix)                                                                             \
    {.module = "embed_tokens", .name = "token_embd", .global = true},                              \
        {.module = "norm", .name = "output_norm", .global = true, .fix = norm_fix},                \
    {                                                                                              \
        "lm_head", "output", .global = true                                                        \
    }
#define GQA(norm_fix)                                                                              \
    {.module = "self_attn.q_proj", .name = "attn_q"},                                              \
        {.module = "self_attn.k_proj", .name = "attn_k"},                                          \
        {.module = "self_attn.v_proj", .name = "attn_v"},                                          \
        {.module = "self_attn.o_proj", .name = "attn_output"},                                     \
        {.module = "self_attn.q_norm", .name = "attn_q_norm", .fix = norm_fix},                    \
    {                                                                                              \
        "self_attn.k_norm", "attn_k_norm", .fix = norm_fix                                         \
    }
#define EXPERTS                                                                                    \
    {.module = "mlp.gate", .name = "ffn_gate_inp"},                                                \
        {.module = "mlp.experts.*.gate_proj", .name = "ffn_gate_exps"},                            \
        {.module = "mlp.experts.*.up_proj", .name = "ffn_up_exps"},                                \
        {.module = "mlp.experts.*.down_proj", .name = "ffn_down_exps"},                            \
        {.module = "mlp.experts.gate_up_proj", .name = "ffn_gate_up_exps"},                        \
        {.module = "mlp.experts.down_proj", .name = "ffn_down_exps"},                              \
        {.module = "mlp.switch_mlp.gate_proj", .name = "ffn_gate_exps"},                           \
        {.module = "mlp.switch_mlp.up_proj", .name = "ffn_up_exps"},                               \
    {                                                                                              \
        .module = "mlp.switch_mlp.down_proj", .name = "ffn_down_exps"                              \
    }

static const fm_hf_name qwen3_names[] = {ENDS(FM_FIX_NONE),
                                         {.module = "input_layernorm", .name = "attn_norm"},
                                         {.module = "post_attention_layernorm", .name = "ffn_norm"},
                                         GQA(FM_FIX_NONE),
                                         EXPERTS,
                                         {0}};

static const fm_hf_name hybrid_names[] = {
    ENDS(FM_FIX_ADD_ONE),
    {.module = "input_layernorm", .name = "attn_norm", .fix = FM_FIX_ADD_ONE},
    {.module = "post_attention_layernorm", .name = "post_attention_norm", .fix = FM_FIX_ADD_ONE},
    GQA(FM_FIX_ADD_ONE),
    {.module = "linear_attn.in_proj_qkv", .name = "attn_qkv"},
    {.module = "linear_attn.in_proj_z", .name = "attn_gate"},
    {.module = "linear_attn.in_proj_b", .name = "ssm_beta"},
    {.module = "linear_attn.in_proj_a", .name = "ssm_alpha"},
    {.module = "linear_attn.in_proj_qkvz", .name = "attn_qkv", .qkvz = true},
    {.module = "linear_attn.in_proj_ba", .name = "ssm_ba"},
    {.module = "linear_attn.conv1d", .name = "ssm_conv1d"},
    {.module = "linear_attn.dt_bias", .name = "ssm_dt.bias", .whole = true},
    {.module = "linear_attn.A_log", .name = "ssm_a", .whole = true, .fix = FM_FIX_NEG_EXP},
    {.module = "linear_attn.norm", .name = "ssm_norm"},
    {.module = "linear_attn.out_proj", .name = "ssm_out"},
    EXPERTS,
    {.module = "mlp.shared_expert_gate", .name = "ffn_gate_inp_shexp"},
    {.module = "mlp.shared_expert.gate_proj", .name = "ffn_gate_shexp"},
    {.module = "mlp.shared_expert.up_proj", .name = "ffn_up_shexp"},
    {.module = "mlp.shared_expert.down_proj", .name = "ffn_down_shexp"},
    {0}};

static fm_status refuse(fm_error *err, const char *path, const char *what)
{
    return fm_fail(err, FM_E_UNSUPPORTED, "%s: %s, which this architecture's code does not do",
                   path, what);
}

static double number_or(const json_t *o, const char *key, double fallback)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

/* rope_theta and scaling, at the top (before transformers 5) or in rope_parameters; the rotated part of a head. */
static fm_status put_rope(fm_checkpoint *c, const char *arch, const json_t *text, const char *path,
                          double default_factor, fm_error *err)
{
    const json_t *rope = json_object_get(text, "rope_parameters");
    if (!json_is_object(rope)) rope = json_object_get(text, "rope_scaling");
    const double theta = number_or(rope, "rope_theta", number_or(text, "rope_theta", 10000.0));
    FM_TRY(fm_hf_put_float(c, arch, "rope.freq_base", theta, err));
    const double factor = number_or(rope, "partial_rotary_factor",
                                    number_or(text, "partial_rotary_factor", default_factor));
    const double heads = number_or(text, "num_attention_heads", 0);
    const double head =
        number_or(text, "head_dim", heads > 0 ? number_or(text, "hidden_size", 0) / heads : 0);
    if (!(factor > 0 && factor <= 1 && head >= 1 && head <= 65536))
        return fm_fail(err, FM_E_FORMAT, "%s: partial_rotary_factor %g of head_dim %g", path,
                       factor, head);
    FM_TRY(fm_hf_put_uint(c, arch, "rope.dimension_count", (uint64_t)(head * factor), err));
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    if (!type) type = json_string_value(json_object_get(rope, "type"));
    if (!type || strcmp(type, "default") == 0 || strcmp(type, "mrope") == 0) return FM_OK;
    FM_TRY(fm_hf_put_str(c, arch, "rope.scaling.type", type, err));
    FM_TRY(fm_hf_put_float(c, arch, "rope.scaling.factor", number_or(rope, "factor", 1.0), err));
    const double original = number_or(rope, "original_max_position_embeddings", 0);
    if (original >= 1 && original < 1e9)
        FM_TRY(fm_hf_put_uint(c, arch, "rope.scaling.original_context_length", (uint64_t)original,
                              err));
    return FM_OK;
}

static fm_status qwen_common(const json_t *text, const char *path, bool renormalises, fm_error *err)
{
    if (!renormalises && !json_is_true(json_object_get(text, "norm_topk_prob")))
        return refuse(err, path, "norm_topk_prob is not true");
    if (json_array_size(json_object_get(text, "mlp_only_layers")) > 0)
        return refuse(err, path, "mlp_only_layers is not empty");
    if (number_or(text, "decoder_sparse_step", 1) != 1)
        return refuse(err, path, "decoder_sparse_step is not 1");
    if (json_is_true(json_object_get(text, "attention_bias")))
        return refuse(err, path, "attention_bias is true");
    const char *act = json_string_value(json_object_get(text, "hidden_act"));
    if (act && strcmp(act, "silu") != 0) return refuse(err, path, "hidden_act is not silu");
    return FM_OK;
}

static fm_status qwen3_more(fm_checkpoint *c, const json_t *text, const char *path, fm_error *err)
{
    FM_TRY(qwen_common(text, path, false, err));
    if (json_is_true(json_object_get(text, "use_sliding_window")))
        return refuse(err, path, "use_sliding_window is true");
    return put_rope(c, "qwen3moe", text, path, 1.0, err);
}

/* layer_types must be the pattern of full_attention_interval, which is what the models have. */
static fm_status put_interval(fm_checkpoint *c, const char *arch, const json_t *text,
                              const char *path, fm_error *err)
{
    const json_t *types = json_object_get(text, "layer_types");
    uint64_t interval = (uint64_t)number_or(text, "full_attention_interval", 0);
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
            return refuse(err, path,
                          "layer_types is no regular pattern of linear and full attention");
    }
    return fm_hf_put_uint(c, arch, "full_attention_interval", interval, err);
}

static fm_status hybrid_more(fm_checkpoint *c, const char *arch, const json_t *text,
                             const char *path, fm_error *err)
{
    const double k = number_or(text, "linear_key_head_dim", 0),
                 v = number_or(text, "linear_value_head_dim", 0),
                 n = number_or(text, "linear_num_value_heads", 0);
    if (k != v) return refuse(err, path, "linear_key_head_dim and linear_value_head_dim differ");
    if (!(v * n >= 1 && v * n < 1e9))
        return fm_fail(err, FM_E_FORMAT, "%s: linear_value_head_dim %g x linear_num_value_heads %g",
                       path, v, n);
    FM_TRY(fm_hf_put_uint(c, arch, "ssm.inner_size", (uint64_t)(v * n), err));
    FM_TRY(fm_hf_put_bool(c, arch, "ssm.grouped_value_heads", true, err));
    FM_TRY(put_interval(c, arch, text, path, err));
    return put_rope(c, arch, text, path, 0.25, err);
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

/* ---- the list ---------------------------------------------------------------------------- */

static const fm_hf_adapter adapters[] = {
    {"qwen3_5_moe_text", "qwen35moe", hybrid_keys, hybrid_names, qwen35_more, "qwen35"},
    {"qwen3_5_moe", "qwen35moe", hybrid_keys, hybrid_names, qwen35_more, "qwen35"},
    {"qwen3_next", "qwen3next", hybrid_keys, hybrid_names, qwen3_next_more, "qwen2"},
    {"qwen3_moe", "qwen3moe", qwen3_keys, qwen3_names, qwen3_more, "qwen2"},
};
enum { N_ADAPTER = sizeof adapters / sizeof adapters[0] };

const fm_hf_adapter *fm_hf_adapter_find(const char *model_type)
{
    for (int i = 0; i < N_ADAPTER && model_type; i++)
        if (strcmp(adapters[i].model_type, model_type) == 0) return &adapters[i];
    return NULL;
}

void fm_hf_adapter_names(char *out, size_t size)
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < N_ADAPTER && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? ", " : "", adapters[i].model_type);
}
