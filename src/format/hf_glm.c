/* GLM-4.5, 4.6, 4.7 and Air (glm4_moe), and the text part of GLM-4.5V (glm4v_moe, whose position streams are equal for
 * text). Names and configuration keys: transformers, models/glm4_moe and models/glm4v_moe, and the published checkpoints;
 * switch_mlp: mlx-lm. */
#include "format/hf_adapter.h"

static const fm_hf_key glm4_keys[] = {FM_HF_COMMON_KEYS,
                                      FM_HF_HEAD_KEYS,
                                      FM_HF_SIGMOID_KEYS,
                                      {"attention_bias", "attention.qkv_bias", FM_HF_BOOL, true},
                                      {"use_qk_norm", "attention.qk_norm", FM_HF_BOOL, true},
                                      {0}};

static const fm_hf_name glm4_names[] = {
    FM_HF_ENDS(FM_FIX_NONE),
    {.module = "input_layernorm", .name = "attn_norm"},
    {.module = "post_attention_layernorm", .name = "post_attention_norm"},
    FM_HF_GQA(FM_FIX_NONE, true),
    FM_HF_EXPERTS,
    FM_HF_SHARED_AND_DENSE,
    {0}};

static const fm_hf_name glm4_draft[] = {
    {.module = "eh_proj", .name = "nextn.eh_proj"},
    {.module = "enorm", .name = "nextn.enorm"},
    {.module = "hnorm", .name = "nextn.hnorm"},
    {.module = "shared_head.norm", .name = "nextn.shared_head_norm"},
    {.module = "shared_head.head"}, /* copies of the model's head and embedding */
    {.module = "embed_tokens"},
    {0}};

static fm_status glm4_more(fm_checkpoint *c, const json_t *text, const char *path, fm_error *err)
{
    static const char arch[] = "glm4moe";
    FM_TRY(fm_hf_check_silu(text, path, err));
    FM_TRY(fm_hf_check_string(text, path, "scoring_func", "sigmoid", err));
    FM_TRY(fm_hf_check_string(text, path, "topk_method", "noaux_tc", err));
    /* What transformers takes when the configuration is silent. */
    if (!json_is_boolean(json_object_get(text, "attention_bias")))
        FM_TRY(fm_hf_put_bool(c, arch, "attention.qkv_bias", false, err));
    if (!json_is_boolean(json_object_get(text, "use_qk_norm")))
        FM_TRY(fm_hf_put_bool(c, arch, "attention.qk_norm", false, err));
    if (!json_is_integer(json_object_get(text, "first_k_dense_replace")))
        FM_TRY(fm_hf_put_uint(c, arch, "leading_dense_block_count", 1, err));
    return fm_hf_put_rope(c, arch, text, path, &(fm_hf_rope){10000, 0.5, 0}, err);
}

const fm_hf_adapter fm_hf_glm[] = {
    {"glm4_moe", "glm4moe", glm4_keys, glm4_names, glm4_more, "glm4", glm4_draft},
    {"glm4v_moe_text", "glm4moe", glm4_keys, glm4_names, glm4_more, "glm4", glm4_draft},
    {"glm4v_moe", "glm4moe", glm4_keys, glm4_names, glm4_more, "glm4", glm4_draft},
    {0}};
