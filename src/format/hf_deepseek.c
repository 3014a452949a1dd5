/* DeepSeek-V3, R1, V3.1 (deepseek_v3) and V3.2 (deepseek_v32), Kimi K2 and K2-Thinking (kimi_k2), the text part of K2.5
 * (kimi_k25), GLM-4.7-Flash (glm4_moe_lite: DeepseekV3's attention and router), GLM-5, 5.1 and 5.2 (glm_moe_dsa). Names and
 * configuration keys: transformers, models/<model_type>, and the published checkpoints. kv_b_proj stays one tensor,
 * [head][nope + value][latent], as older GGUF files have it; mlx-lm (models/deepseek_v3.py, deepseek_v32.py: sanitize) stores its two halves, the key part transposed within each head:
 * embed_q [head][latent][nope] and unembed_out [head][value][latent], which are GGUF's attn_k_b and attn_v_b. */
#include "format/hf_adapter.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// clang-format off
#define LATENT_KEYS                                                                                \
    FM_HF_COMMON_KEYS,                                                                             \
    FM_HF_SIGMOID_KEYS,                                                                            \
    {"q_lora_rank", "attention.q_lora_rank", FM_HF_INT, true},                                     \
    {"kv_lora_rank", "attention.kv_lora_rank", FM_HF_INT, false},                                  \
    {"v_head_dim", "attention.value_length_mla", FM_HF_INT, false}

#define LATENT_NAMES                                                                               \
    FM_HF_ENDS(FM_FIX_NONE),                                                                       \
    {.module = "input_layernorm", .name = "attn_norm"},                                            \
    {.module = "post_attention_layernorm", .name = "ffn_norm"},                                    \
    {.module = "self_attn.q_proj", .name = "attn_q"},                                              \
    {.module = "self_attn.q_a_proj", .name = "attn_q_a"},                                          \
    {.module = "self_attn.q_a_layernorm", .name = "attn_q_a_norm"},                                \
    {.module = "self_attn.q_b_proj", .name = "attn_q_b"},                                          \
    {.module = "self_attn.kv_a_proj_with_mqa", .name = "attn_kv_a_mqa"},                           \
    {.module = "self_attn.kv_a_layernorm", .name = "attn_kv_a_norm"},                              \
    {.module = "self_attn.kv_b_proj", .name = "attn_kv_b"},                                        \
    {.module = "self_attn.embed_q", .name = "attn_k_b"},                                           \
    {.module = "self_attn.unembed_out", .name = "attn_v_b"},                                       \
    {.module = "self_attn.o_proj", .name = "attn_output"},                                         \
    FM_HF_EXPERTS,                                                                                 \
    FM_HF_SHARED_AND_DENSE
// clang-format on

static const fm_hf_key latent_keys[] = {LATENT_KEYS, {0}};
static const fm_hf_name latent_names[] = {LATENT_NAMES, {0}};

static const fm_hf_key sparse_keys[] = {
    LATENT_KEYS,
    {"index_n_heads", "attention.indexer.head_count", FM_HF_INT, false},
    {"index_head_dim", "attention.indexer.key_length", FM_HF_INT, false},
    {"index_topk", "attention.indexer.top_k", FM_HF_INT, false},
    {0}};
static const fm_hf_name sparse_names[] = {
    LATENT_NAMES,
    {.module = "self_attn.indexer.wq_b", .name = "indexer.attn_q_b"},
    {.module = "self_attn.indexer.wk", .name = "indexer.attn_k"},
    {.module = "self_attn.indexer.k_norm", .name = "indexer.k_norm", .has_bias = true},
    {.module = "self_attn.indexer.weights_proj", .name = "indexer.proj"},
    {0}};

/* The first layers have one feed-forward block each: their number, or the list that newer configurations have. */
static fm_status check_dense(fm_checkpoint *c, const char *arch, const json_t *text,
                             const char *path, fm_error *err)
{
    const json_t *types = json_object_get(text, "mlp_layer_types");
    const json_t *first = json_object_get(text, "first_k_dense_replace");
    size_t n_dense = 0;
    const size_t n = json_array_size(types);
    for (size_t i = 0; i < n; i++) {
        const char *t = json_string_value(json_array_get(types, i));
        const bool dense = t && strcmp(t, "dense") == 0;
        if (!t || (!dense && strcmp(t, "sparse") != 0) || (dense && n_dense != i))
            return fm_hf_refuse(err, path, "mlp_layer_types is not first dense and then sparse");
        n_dense += dense;
    }
    if (json_is_integer(first)) {
        if (n > 0 && (size_t)json_integer_value(first) != n_dense)
            return fm_fail(err, FM_E_FORMAT,
                           "%s: first_k_dense_replace is %" JSON_INTEGER_FORMAT
                           ", but mlp_layer_types has %zu dense layers",
                           path, json_integer_value(first), n_dense);
        return FM_OK;
    }
    if (n == 0) return fm_fail(err, FM_E_FORMAT, "%s: first_k_dense_replace is missing", path);
    return fm_hf_put_uint(c, arch, "leading_dense_block_count", n_dense, err);
}

static fm_status latent_more(fm_checkpoint *c, const char *arch, const json_t *text,
                             const char *path, fm_error *err)
{
    FM_TRY(fm_hf_check_silu(text, path, err));
    FM_TRY(fm_hf_check_string(text, path, "scoring_func", "sigmoid", err));
    FM_TRY(fm_hf_check_string(text, path, "topk_method", "noaux_tc", err));
    if (json_is_true(json_object_get(text, "attention_bias")))
        return fm_hf_refuse(err, path, "attention_bias is true");
    if (json_is_false(json_object_get(text, "rope_interleave")))
        return fm_hf_refuse(err, path, "rope_interleave is false");
    if (fm_hf_number(text, "moe_layer_freq", 1) != 1)
        return fm_hf_refuse(err, path, "moe_layer_freq is not 1");
    FM_TRY(check_dense(c, arch, text, path, err));
    FM_TRY(
        fm_hf_put_uint(c, arch, "expert_gating_func", 2, err)); /* sigmoid; other readers want it */
    const double nope = fm_hf_number(text, "qk_nope_head_dim", 0),
                 rot = fm_hf_number(text, "qk_rope_head_dim", 0);
    if (!(nope >= 1 && nope <= 65536 && rot >= 2 && rot <= 65536))
        return fm_fail(err, FM_E_FORMAT, "%s: qk_nope_head_dim %g and qk_rope_head_dim %g", path,
                       nope, rot);
    FM_TRY(
        fm_hf_put_uint(c, arch, "attention.key_length_mla", (uint64_t)nope + (uint64_t)rot, err));
    return fm_hf_put_rope(c, arch, text, path, &(fm_hf_rope){10000, 1, rot}, err);
}

static fm_status deepseek_more(fm_checkpoint *c, const json_t *text, const char *path,
                               fm_error *err)
{
    return latent_more(c, "deepseek2", text, path, err);
}

static fm_status deepseek32_more(fm_checkpoint *c, const json_t *text, const char *path,
                                 fm_error *err)
{
    return latent_more(c, "deepseek32", text, path, err);
}

/* Which layers choose positions by themselves: by name, by a pattern of letters, or by a period that starts some layers
 * in (transformers, GlmMoeDsaConfig). Configurations without any of it have no sharing. */
static fm_status put_sharing(fm_checkpoint *c, const json_t *text, const char *path, fm_error *err)
{
    const json_t *types = json_object_get(text, "indexer_types");
    const json_t *pattern = json_object_get(text, "index_topk_pattern");
    const double layers = fm_hf_number(text, "num_hidden_layers", 0);
    if (!(layers >= 1 && layers <= 4096))
        return fm_fail(err, FM_E_FORMAT, "%s: num_hidden_layers is %g", path, layers);
    const size_t n = (size_t)layers;
    const char *letters = json_string_value(pattern);
    if (!json_is_array(types) && json_is_array(pattern)) types = pattern;
    const double freq = fm_hf_number(text, "index_topk_freq", 1),
                 offset = fm_hf_number(text, "index_skip_topk_offset", 2);
    if (!(freq >= 0 && freq <= 4096 && offset >= 0 && offset <= 4096))
        return fm_fail(err, FM_E_FORMAT, "%s: index_topk_freq %g, index_skip_topk_offset %g", path,
                       freq, offset);
    const int64_t period = freq < 1 ? 1 : (int64_t)freq, skip = (int64_t)offset - 1;
    if ((json_is_array(types) && json_array_size(types) < n) ||
        (!json_is_array(types) && letters && strlen(letters) < n))
        return fm_fail(err, FM_E_FORMAT, "%s: indexer_types has fewer elements than %zu layers",
                       path, n);
    bool *full = calloc(n, sizeof *full);
    if (!full) return fm_fail(err, FM_E_NOMEM, "%s: no memory for %zu layers", path, n);
    for (size_t i = 0; i < n; i++) {
        const char *t = json_string_value(json_array_get(types, i));
        if (json_is_array(types))
            full[i] = t && strcmp(t, "full") == 0;
        else if (letters)
            full[i] = letters[i] == 'F';
        else
            full[i] = (int64_t)i <= skip || ((int64_t)i - skip) % period == 0;
    }
    const fm_status st = fm_hf_put_bools(c, "glm-dsa", "attention.indexer.types", full, n, err);
    free(full);
    return st;
}

static fm_status glm_more(fm_checkpoint *c, const json_t *text, const char *path, fm_error *err)
{
    FM_TRY(put_sharing(c, text, path, err));
    if (json_is_false(json_object_get(text, "indexer_rope_interleave")))
        return fm_hf_refuse(err, path, "indexer_rope_interleave is false");
    return latent_more(c, "glm-dsa", text, path, err);
}

const fm_hf_adapter fm_hf_deepseek[] = {
    {"deepseek_v3", "deepseek2", latent_keys, latent_names, deepseek_more, "deepseek-v3", NULL},
    {"kimi_k2", "deepseek2", latent_keys, latent_names, deepseek_more, "kimi-k2", NULL},
    {"kimi_k25", "deepseek2", latent_keys, latent_names, deepseek_more, "kimi-k2", NULL},
    {"glm4_moe_lite", "deepseek2", latent_keys, latent_names, deepseek_more, "glm4", NULL},
    {"deepseek_v32", "deepseek32", sparse_keys, sparse_names, deepseek32_more, "deepseek-v3", NULL},
    {"glm_moe_dsa", "glm-dsa", sparse_keys, sparse_names, glm_more, "glm4", NULL},
    {0}};
