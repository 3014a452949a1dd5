/* What a Hugging Face checkpoint calls things, per model_type: a table of configuration keys and one of tensor names, each
 * with the GGUF name that the families of model/ ask for. A new family is two tables and an entry, in a hf_<family>.c
 * whose list is named in hf_adapter.c; parts that families share are macros below. */
#pragma once

#include <jansson.h>

#include "format/checkpoint_internal.h"

/* How the rows of a matrix lie. */
typedef enum {
    FM_HF_ROWS,      /* as they are wanted                                              */
    FM_HF_QKVZ,      /* q, k, v and z of each key head: becomes attn_qkv and attn_gate  */
    FM_HF_ALTERNATE, /* gate and up alternate; the biases beside it too                 */
} fm_hf_rows;

/* A module below "layers.N." (or a global one) and its name in GGUF. */
typedef struct {
    const char *module; /* "*" stands for an expert's number */
    const char *name;   /* without ".weight"; with `whole`, as it is */
    bool whole;
    bool global;       /* not in a layer                                                 */
    bool has_bias;     /* a bias may lie beside it: becomes <name>.bias                  */
    bool by_columns;   /* [in][out] where it is stored as plain floats                   */
    fm_tensor_fix fix; /* of plain Hugging Face files; MLX has ADD_ONE applied already   */
    fm_hf_rows rows;
} fm_hf_name;

typedef enum { FM_HF_INT, FM_HF_FLOAT, FM_HF_BOOL } fm_hf_kind;

typedef struct {
    const char *hf, *key; /* of the text configuration; GGUF's, without the architecture */
    fm_hf_kind kind;
    bool optional;
} fm_hf_key;

typedef struct {
    const char *model_type; /* of the text part, or of the whole */
    const char *architecture;
    const fm_hf_key *keys;   /* to a NULL */
    const fm_hf_name *names; /* to a NULL; the first that matches counts */
    /* Keys that take more than copying, and refusals of what the architecture's code does not do. */
    fm_status (*more)(fm_checkpoint *c, const json_t *text, const char *path, fm_error *err);
    const char *tokenizer; /* name of the pre-tokenizer, for people */
    /* What a draft layer has besides the tensors of a layer: below "mtp.", or in the layer behind the last; to a NULL. An
     * entry without name is a copy of a shared tensor, which is not used. NULL: draft layers are not used. */
    const fm_hf_name *draft;
} fm_hf_adapter;

const fm_hf_adapter *fm_hf_adapter_find(const char *model_type); /* or NULL */
void fm_hf_adapter_names(char *out, size_t size);

/* ---- the families' lists, each to an entry without model_type ------------------------------ */

extern const fm_hf_adapter fm_hf_qwen[];
extern const fm_hf_adapter fm_hf_glm[];
extern const fm_hf_adapter fm_hf_gptoss[];
extern const fm_hf_adapter fm_hf_deepseek[];

/* ---- what families share ------------------------------------------------------------------- */

// clang-format off
#define FM_HF_COMMON_KEYS                                                                          \
    {"num_hidden_layers", "block_count", FM_HF_INT, false},                                        \
    {"hidden_size", "embedding_length", FM_HF_INT, false},                                         \
    {"max_position_embeddings", "context_length", FM_HF_INT, true},                                \
    {"num_attention_heads", "attention.head_count", FM_HF_INT, false},                             \
    {"num_key_value_heads", "attention.head_count_kv", FM_HF_INT, true},                           \
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", FM_HF_FLOAT, false}

/* Heads whose keys and values are as long as each other. */
#define FM_HF_HEAD_KEYS                                                                            \
    {"head_dim", "attention.key_length", FM_HF_INT, true},                                         \
    {"head_dim", "attention.value_length", FM_HF_INT, true}

/* Router with sigmoid scores, a bias for choosing, groups; shared experts; dense layers first. */
#define FM_HF_SIGMOID_KEYS                                                                         \
    {"n_routed_experts", "expert_count", FM_HF_INT, false},                                        \
    {"num_experts_per_tok", "expert_used_count", FM_HF_INT, false},                                \
    {"moe_intermediate_size", "expert_feed_forward_length", FM_HF_INT, false},                     \
    {"intermediate_size", "feed_forward_length", FM_HF_INT, false},                                \
    {"first_k_dense_replace", "leading_dense_block_count", FM_HF_INT, true},                       \
    {"n_shared_experts", "expert_shared_count", FM_HF_INT, true},                                  \
    {"n_group", "expert_group_count", FM_HF_INT, true},                                            \
    {"topk_group", "expert_group_used_count", FM_HF_INT, true},                                    \
    {"routed_scaling_factor", "expert_weights_scale", FM_HF_FLOAT, true},                          \
    {"norm_topk_prob", "expert_weights_norm", FM_HF_BOOL, true}

/* Embedding, last norm, head. */
#define FM_HF_ENDS(norm_fix)                                                                       \
    {.module = "embed_tokens", .name = "token_embd", .global = true},                              \
    {.module = "norm", .name = "output_norm", .global = true, .fix = norm_fix},                    \
    {.module = "lm_head", .name = "output", .global = true}

#define FM_HF_GQA(norm_fix, bias)                                                                  \
    {.module = "self_attn.q_proj", .name = "attn_q", .has_bias = bias},                            \
    {.module = "self_attn.k_proj", .name = "attn_k", .has_bias = bias},                            \
    {.module = "self_attn.v_proj", .name = "attn_v", .has_bias = bias},                            \
    {.module = "self_attn.o_proj", .name = "attn_output"},                                         \
    {.module = "self_attn.q_norm", .name = "attn_q_norm", .fix = norm_fix},                        \
    {.module = "self_attn.k_norm", .name = "attn_k_norm", .fix = norm_fix}

/* One by one; fused as transformers saves them; fused as mlx-lm does. */
#define FM_HF_EXPERTS                                                                              \
    {.module = "mlp.gate", .name = "ffn_gate_inp"},                                                \
    {.module = "mlp.experts.*.gate_proj", .name = "ffn_gate_exps"},                                \
    {.module = "mlp.experts.*.up_proj", .name = "ffn_up_exps"},                                    \
    {.module = "mlp.experts.*.down_proj", .name = "ffn_down_exps"},                                \
    {.module = "mlp.experts.gate_up_proj", .name = "ffn_gate_up_exps"},                            \
    {.module = "mlp.experts.down_proj", .name = "ffn_down_exps"},                                  \
    {.module = "mlp.switch_mlp.gate_proj", .name = "ffn_gate_exps"},                               \
    {.module = "mlp.switch_mlp.up_proj", .name = "ffn_up_exps"},                                   \
    {.module = "mlp.switch_mlp.down_proj", .name = "ffn_down_exps"}

/* The choosing bias, shared experts and dense blocks that go with FM_HF_SIGMOID_KEYS. */
#define FM_HF_SHARED_AND_DENSE                                                                     \
    {.module = "mlp.gate.e_score_correction_bias", .name = "exp_probs_b.bias", .whole = true},     \
    {.module = "mlp.shared_experts.gate_proj", .name = "ffn_gate_shexp"},                          \
    {.module = "mlp.shared_experts.up_proj", .name = "ffn_up_shexp"},                              \
    {.module = "mlp.shared_experts.down_proj", .name = "ffn_down_shexp"},                          \
    {.module = "mlp.gate_proj", .name = "ffn_gate"},                                               \
    {.module = "mlp.up_proj", .name = "ffn_up"},                                                   \
    {.module = "mlp.down_proj", .name = "ffn_down"}
// clang-format on

/* Fails with FM_E_UNSUPPORTED: "<path>: <what>, which this architecture's code does not do". */
fm_status fm_hf_refuse(fm_error *err, const char *path, const char *what);
/* Fails unless hidden_act is absent or "silu". */
fm_status fm_hf_check_silu(const json_t *text, const char *path, fm_error *err);
double fm_hf_number(const json_t *o, const char *key, double fallback);
/* Fails unless `key` is absent or the string `only`. */
fm_status fm_hf_check_string(const json_t *text, const char *path, const char *key,
                             const char *only, fm_error *err);

/* rope_theta and scaling, at the top (before transformers 5) or in rope_parameters. Dimension count: rot_dim, or with 0 the
 * partial_rotary_factor (default_factor where it is absent) of head_dim. */
typedef struct {
    double default_theta, default_factor, rot_dim;
} fm_hf_rope;
fm_status fm_hf_put_rope(fm_checkpoint *c, const char *arch, const json_t *text, const char *path,
                         const fm_hf_rope *how, fm_error *err);

/* Metadata of our own making: "<arch>.<key>", or the key alone when arch is NULL. An integer that is there is replaced. */
fm_status fm_hf_put_uint(fm_checkpoint *c, const char *arch, const char *key, uint64_t v,
                         fm_error *err);
fm_status fm_hf_put_float(fm_checkpoint *c, const char *arch, const char *key, double v,
                          fm_error *err);
fm_status fm_hf_put_bool(fm_checkpoint *c, const char *arch, const char *key, bool v,
                         fm_error *err);
fm_status fm_hf_put_str(fm_checkpoint *c, const char *arch, const char *key, const char *v,
                        fm_error *err);
/* An array of n truth values; v is copied. */
fm_status fm_hf_put_bools(fm_checkpoint *c, const char *arch, const char *key, const bool *v,
                          size_t n, fm_error *err);

/* config.json (as bytes) into the metadata of c: picks the adapter by model_type. *root is the whole document, for the
 * caller to json_decref. hf_config.c */
fm_status fm_hf_read_config(fm_checkpoint *c, const char *path, const char *json, size_t n,
                            const fm_hf_adapter **adapter, json_t **root, fm_error *err);
