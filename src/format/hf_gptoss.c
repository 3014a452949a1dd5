/* gpt-oss-120b and 20b: as published (blocks and scales), as transformers saves them dequantized ([expert][in][out]), and
 * as mlx-lm splits them. Names and configuration keys: transformers, models/gpt_oss; mlx-lm, models/gpt_oss. */
#include "format/hf_adapter.h"

#include <string.h>

static const fm_hf_key keys[] = {
    FM_HF_COMMON_KEYS,
    FM_HF_HEAD_KEYS,
    {"num_local_experts", "expert_count", FM_HF_INT, false},
    {"num_experts_per_tok", "expert_used_count", FM_HF_INT, false},
    {"intermediate_size", "expert_feed_forward_length", FM_HF_INT, false},
    {"sliding_window", "attention.sliding_window", FM_HF_INT, false},
    {"swiglu_alpha", "swiglu_alpha", FM_HF_FLOAT, true},
    {"swiglu_limit", "swiglu_limit", FM_HF_FLOAT, true},
    {0}};

static const fm_hf_name names[] = {
    FM_HF_ENDS(FM_FIX_NONE),
    {.module = "input_layernorm", .name = "attn_norm"},
    {.module = "post_attention_layernorm", .name = "post_attention_norm"},
    {.module = "self_attn.o_proj", .name = "attn_output", .has_bias = true},
    FM_HF_GQA(FM_FIX_NONE, true),
    {.module = "self_attn.sinks", .name = "attn_sinks"},
    {.module = "mlp.router", .name = "ffn_gate_inp", .has_bias = true},
    {.module = "mlp.experts.gate_up_proj",
     .name = "ffn_gate_up_exps",
     .has_bias = true,
     .by_columns = true,
     .rows = FM_HF_ALTERNATE},
    {.module = "mlp.experts.down_proj",
     .name = "ffn_down_exps",
     .has_bias = true,
     .by_columns = true},
    {.module = "mlp.experts.gate_proj", .name = "ffn_gate_exps", .has_bias = true},
    {.module = "mlp.experts.up_proj", .name = "ffn_up_exps", .has_bias = true},
    {0}};

static fm_status more(fm_checkpoint *c, const json_t *text, const char *path, fm_error *err)
{
    FM_TRY(fm_hf_check_silu(text, path, err));
    if (json_is_false(json_object_get(text, "attention_bias")))
        return fm_hf_refuse(err, path, "attention_bias is false");
    /* Windowed and full layers in turn, which is what the architecture stands for in a GGUF file. */
    const json_t *types = json_object_get(text, "layer_types");
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *t = json_string_value(json_array_get(types, i));
        if (!t || strcmp(t, i % 2 == 0 ? "sliding_attention" : "full_attention") != 0)
            return fm_hf_refuse(err, path,
                                "layer_types is not sliding_attention and full_attention in turn");
    }
    return fm_hf_put_rope(c, "gpt-oss", text, path, &(fm_hf_rope){150000, 1.0, 0}, err);
}

const fm_hf_adapter fm_hf_gptoss[] = {{"gpt_oss", "gpt-oss", keys, names, more, "gpt-4o", NULL},
                                      {0}};
