/* The list of tiny models, the list of faults, and the tensor table of a model: GGUF name, shape,
 * type, and which Hugging Face parameter each row comes from. The names and the effects of the
 * conversion (folded norms, split projections, value heads from grouped to tiled) are those of
 * published GGUF files of these architectures; the file format itself is in tiny_model.c.
 */
#include "tiny_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Dimensions are odd on purpose: no row is a multiple of a vector width unless it must be, heads
 * come in 1, 2, 3 groups, expert counts cross 64 and 128, layers need not end on a full one. The
 * seeds were picked so that no router decision is a near tie (tests/vectors/model/README.md).
 * The -q and -s models have rows of 256 for the K types; -s has two
 * layers and uses all its experts, so that rounding of the activations stays small. qwen3next-d is like
 * that, with DeltaNet heads as wide as the 128 rows of an FP8 scale. -e and -r have a draft layer where the
 * pattern of the layers would have DeltaNet; -r is quantized, qwen3next-e can be FP8. */
// clang-format off
static const tiny_spec specs[] = {
    {.name = "qwen35moe-a", .family = TINY_QWEN35MOE, .seed = 2, .n_layer = 4, .n_embd = 96,
     .n_vocab = 321, .n_head = 4, .n_head_kv = 2, .head_dim = 16, .rope_dim = 4,
     .rope_base = 1e7, .eps = 1e-6, .n_expert = 20, .n_expert_used = 3, .expert_ff = 40,
     .full_interval = 4, .n_key_head = 2, .n_value_head = 4, .state_dim = 16, .shared_ff = 56},
    {.name = "qwen35moe-b", .family = TINY_QWEN35MOE, .seed = 7, .n_layer = 6, .n_embd = 112,
     .n_vocab = 333, .n_head = 6, .n_head_kv = 1, .head_dim = 24, .rope_dim = 6,
     .rope_base = 1e4, .eps = 1e-3, .n_expert = 72, .n_expert_used = 10, .expert_ff = 44,
     .full_interval = 4, .n_key_head = 3, .n_value_head = 3, .state_dim = 24, .shared_ff = 52,
     .has_quiet_head = true},
    {.name = "qwen35moe-c", .family = TINY_QWEN35MOE, .seed = 15, .n_layer = 5, .n_embd = 72,
     .n_vocab = 307, .n_head = 6, .n_head_kv = 3, .head_dim = 32, .rope_dim = 16,
     .rope_base = 5e5, .eps = 1e-5, .n_expert = 130, .n_expert_used = 8, .expert_ff = 41,
     .full_interval = 2, .n_key_head = 3, .n_value_head = 12, .state_dim = 20, .shared_ff = 70},
    {.name = "qwen35moe-e", .family = TINY_QWEN35MOE, .seed = 18, .n_layer = 4, .n_embd = 88,
     .n_vocab = 311, .n_head = 6, .n_head_kv = 2, .head_dim = 24, .rope_dim = 12,
     .rope_base = 1e6, .eps = 1e-5, .n_expert = 36, .n_expert_used = 5, .expert_ff = 44,
     .full_interval = 3, .n_key_head = 2, .n_value_head = 6, .state_dim = 20, .shared_ff = 52,
     .has_draft_layer = true},
    {.name = "qwen35moe-q", .family = TINY_QWEN35MOE, .seed = 14, .n_layer = 4, .n_embd = 256,
     .n_vocab = 512, .n_head = 4, .n_head_kv = 2, .head_dim = 64, .rope_dim = 16,
     .rope_base = 1e7, .eps = 1e-6, .n_expert = 12, .n_expert_used = 3, .expert_ff = 256,
     .full_interval = 4, .n_key_head = 2, .n_value_head = 8, .state_dim = 32, .shared_ff = 256},
    {.name = "qwen35moe-s", .family = TINY_QWEN35MOE, .seed = 41, .n_layer = 2, .n_embd = 256,
     .n_vocab = 280, .n_head = 4, .n_head_kv = 2, .head_dim = 64, .rope_dim = 16,
     .rope_base = 1e7, .eps = 1e-6, .n_expert = 8, .n_expert_used = 8, .expert_ff = 256,
     .full_interval = 2, .n_key_head = 2, .n_value_head = 8, .state_dim = 32, .shared_ff = 256},
    {.name = "qwen35moe-r", .family = TINY_QWEN35MOE, .seed = 1, .n_layer = 2, .n_embd = 256,
     .n_vocab = 280, .n_head = 4, .n_head_kv = 1, .head_dim = 64, .rope_dim = 16,
     .rope_base = 1e7, .eps = 1e-6, .n_expert = 8, .n_expert_used = 8, .expert_ff = 256,
     .full_interval = 2, .n_key_head = 2, .n_value_head = 4, .state_dim = 32, .shared_ff = 256,
     .has_draft_layer = true},

    {.name = "qwen3next-a", .family = TINY_QWEN3NEXT, .seed = 38, .n_layer = 4, .n_embd = 96,
     .n_vocab = 319, .n_head = 4, .n_head_kv = 2, .head_dim = 16, .rope_dim = 4,
     .rope_base = 1e7, .eps = 1e-6, .n_expert = 20, .n_expert_used = 4, .expert_ff = 48,
     .full_interval = 4, .n_key_head = 2, .n_value_head = 4, .state_dim = 16, .shared_ff = 40},
    {.name = "qwen3next-b", .family = TINY_QWEN3NEXT, .seed = 29, .n_layer = 7, .n_embd = 104,
     .n_vocab = 331, .n_head = 3, .n_head_kv = 3, .head_dim = 20, .rope_dim = 10,
     .rope_base = 1e4, .eps = 1e-5, .n_expert = 72, .n_expert_used = 10, .expert_ff = 44,
     .full_interval = 3, .n_key_head = 2, .n_value_head = 8, .state_dim = 20, .shared_ff = 60},
    {.name = "qwen3next-c", .family = TINY_QWEN3NEXT, .seed = 39, .n_layer = 4, .n_embd = 72,
     .n_vocab = 309, .n_head = 5, .n_head_kv = 1, .head_dim = 32, .rope_dim = 8,
     .rope_base = 1e6, .eps = 1e-3, .n_expert = 130, .n_expert_used = 7, .expert_ff = 52,
     .full_interval = 4, .n_key_head = 5, .n_value_head = 5, .state_dim = 24, .shared_ff = 44,
     .has_quiet_head = true},
    {.name = "qwen3next-d", .family = TINY_QWEN3NEXT, .seed = 46, .n_layer = 2, .n_embd = 128,
     .n_vocab = 280, .n_head = 4, .n_head_kv = 1, .head_dim = 64, .rope_dim = 16,
     .rope_base = 1e7, .eps = 1e-6, .n_expert = 8, .n_expert_used = 8, .expert_ff = 128,
     .full_interval = 2, .n_key_head = 2, .n_value_head = 4, .state_dim = 128, .shared_ff = 128},
    {.name = "qwen3next-e", .family = TINY_QWEN3NEXT, .seed = 20, .n_layer = 2, .n_embd = 128,
     .n_vocab = 280, .n_head = 4, .n_head_kv = 2, .head_dim = 32, .rope_dim = 8,
     .rope_base = 1e6, .eps = 1e-6, .n_expert = 10, .n_expert_used = 4, .expert_ff = 128,
     .full_interval = 2, .n_key_head = 1, .n_value_head = 2, .state_dim = 128, .shared_ff = 128,
     .has_draft_layer = true},
    {.name = "qwen3next-q", .family = TINY_QWEN3NEXT, .seed = 9, .n_layer = 4, .n_embd = 256,
     .n_vocab = 512, .n_head = 8, .n_head_kv = 1, .head_dim = 32, .rope_dim = 8,
     .rope_base = 1e7, .eps = 1e-6, .n_expert = 12, .n_expert_used = 4, .expert_ff = 256,
     .full_interval = 4, .n_key_head = 2, .n_value_head = 4, .state_dim = 64, .shared_ff = 256},
    {.name = "qwen3next-s", .family = TINY_QWEN3NEXT, .seed = 42, .n_layer = 2, .n_embd = 256,
     .n_vocab = 280, .n_head = 8, .n_head_kv = 1, .head_dim = 32, .rope_dim = 8,
     .rope_base = 1e7, .eps = 1e-6, .n_expert = 8, .n_expert_used = 8, .expert_ff = 256,
     .full_interval = 2, .n_key_head = 2, .n_value_head = 4, .state_dim = 64, .shared_ff = 256},

    {.name = "qwen3moe-a", .family = TINY_QWEN3MOE, .seed = 28, .n_layer = 4, .n_embd = 96,
     .n_vocab = 323, .n_head = 4, .n_head_kv = 2, .head_dim = 16, .rope_dim = 16,
     .rope_base = 1e6, .eps = 1e-6, .n_expert = 20, .n_expert_used = 3, .expert_ff = 40},
    {.name = "qwen3moe-b", .family = TINY_QWEN3MOE, .seed = 24, .n_layer = 5, .n_embd = 80,
     .n_vocab = 335, .n_head = 6, .n_head_kv = 1, .head_dim = 24, .rope_dim = 24,
     .rope_base = 1e4, .eps = 1e-3, .n_expert = 72, .n_expert_used = 9, .expert_ff = 56,
     .is_tied = true},
    {.name = "qwen3moe-c", .family = TINY_QWEN3MOE, .seed = 23, .n_layer = 6, .n_embd = 68,
     .n_vocab = 305, .n_head = 9, .n_head_kv = 3, .head_dim = 32, .rope_dim = 32,
     .rope_base = 5e6, .eps = 1e-5, .n_expert = 130, .n_expert_used = 8, .expert_ff = 41},
    {.name = "qwen3moe-q", .family = TINY_QWEN3MOE, .seed = 30, .n_layer = 4, .n_embd = 256,
     .n_vocab = 512, .n_head = 8, .n_head_kv = 2, .head_dim = 64, .rope_dim = 64,
     .rope_base = 1e6, .eps = 1e-6, .n_expert = 12, .n_expert_used = 3, .expert_ff = 256},
    {.name = "qwen3moe-s", .family = TINY_QWEN3MOE, .seed = 43, .n_layer = 2, .n_embd = 256,
     .n_vocab = 280, .n_head = 8, .n_head_kv = 2, .head_dim = 64, .rope_dim = 64,
     .rope_base = 1e6, .eps = 1e-6, .n_expert = 8, .n_expert_used = 8, .expert_ff = 256},

    {.name = "glm4moe-a", .family = TINY_GLM4MOE, .seed = 7, .n_layer = 4, .n_embd = 96,
     .n_vocab = 283, .n_head = 6, .n_head_kv = 2, .head_dim = 16, .rope_dim = 8,
     .rope_base = 1e6, .eps = 1e-5, .n_expert = 20, .n_expert_used = 3, .expert_ff = 40,
     .shared_ff = 40, .has_qk_norm = true, .n_dense = 1, .dense_ff = 150, .weights_scale = 2.5},
    {.name = "glm4moe-b", .family = TINY_GLM4MOE, .seed = 9, .n_layer = 5, .n_embd = 72,
     .n_vocab = 281, .n_head = 12, .n_head_kv = 1, .head_dim = 20, .rope_dim = 10,
     .rope_base = 1e4, .eps = 1e-3, .n_expert = 130, .n_expert_used = 8, .expert_ff = 41,
     .shared_ff = 82, .has_draft_layer = true, .n_dense = 2, .dense_ff = 99, .weights_scale = 1.0},
    {.name = "glm4moe-q", .family = TINY_GLM4MOE, .seed = 2, .n_layer = 3, .n_embd = 256,
     .n_vocab = 280, .n_head = 8, .n_head_kv = 2, .head_dim = 32, .rope_dim = 16,
     .rope_base = 1e6, .eps = 1e-5, .n_expert = 12, .n_expert_used = 3, .expert_ff = 256,
     .shared_ff = 256, .has_qk_norm = true, .n_dense = 1, .dense_ff = 512, .weights_scale = 2.5},

    {.name = "gpt-oss-a", .family = TINY_GPTOSS, .seed = 9, .n_layer = 4, .n_embd = 96,
     .n_vocab = 282, .n_head = 8, .n_head_kv = 1, .head_dim = 32, .rope_dim = 32,
     .rope_base = 150000, .eps = 1e-5, .n_expert = 20, .n_expert_used = 4, .expert_ff = 40,
     .window = 24, .yarn_factor = 32, .beta_fast = 32, .beta_slow = 1, .n_ctx_original = 48},
    {.name = "gpt-oss-b", .family = TINY_GPTOSS, .seed = 5, .n_layer = 5, .n_embd = 76,
     .n_vocab = 284, .n_head = 6, .n_head_kv = 2, .head_dim = 24, .rope_dim = 24,
     .rope_base = 1e4, .eps = 1e-3, .n_expert = 130, .n_expert_used = 5, .expert_ff = 42,
     .window = 70, .yarn_factor = 4, .beta_fast = 8, .beta_slow = 0.5, .n_ctx_original = 100},
    {.name = "gpt-oss-c", .family = TINY_GPTOSS, .seed = 1, .n_layer = 3, .n_embd = 64,
     .n_vocab = 281, .n_head = 9, .n_head_kv = 3, .head_dim = 64, .rope_dim = 64,
     .rope_base = 150000, .eps = 1e-5, .n_expert = 72, .n_expert_used = 4, .expert_ff = 64,
     .window = 3, .yarn_factor = 16, .beta_fast = 1, .beta_slow = 0.1, .n_ctx_original = 32},
    {.name = "gpt-oss-q", .family = TINY_GPTOSS, .seed = 29, .n_layer = 4, .n_embd = 160,
     .n_vocab = 280, .n_head = 4, .n_head_kv = 2, .head_dim = 64, .rope_dim = 64,
     .rope_base = 150000, .eps = 1e-5, .n_expert = 12, .n_expert_used = 4, .expert_ff = 96,
     .window = 32, .yarn_factor = 32, .beta_fast = 4, .beta_slow = 1, .n_ctx_original = 64},

    {.name = "deepseek2-a", .family = TINY_DEEPSEEK2, .seed = 9, .n_layer = 4, .n_embd = 96,
     .n_vocab = 285, .n_head = 6, .n_head_kv = 6, .head_dim = 24, .rope_dim = 16,
     .rope_base = 1e4, .eps = 1e-6, .n_expert = 24, .n_expert_used = 3, .expert_ff = 40,
     .shared_ff = 40, .n_dense = 1, .dense_ff = 150, .weights_scale = 2.5, .yarn_factor = 40,
     .beta_fast = 32, .beta_slow = 1, .n_ctx_original = 96, .q_latent = 40, .kv_latent = 48,
     .value_dim = 20, .n_group = 4, .n_group_used = 2, .mscale = 1},
    {.name = "deepseek2-b", .family = TINY_DEEPSEEK2, .seed = 19, .n_layer = 4, .n_embd = 72,
     .n_vocab = 283, .n_head = 4, .n_head_kv = 4, .head_dim = 20, .rope_dim = 24,
     .rope_base = 5e4, .eps = 1e-3, .n_expert = 130, .n_expert_used = 8, .expert_ff = 41,
     .shared_ff = 41, .has_quiet_head = true, .has_draft_layer = true, .n_dense = 1,
     .dense_ff = 99, .weights_scale = 2.827, .yarn_factor = 64, .beta_fast = 1, .beta_slow = 1,
     .n_ctx_original = 64, .q_latent = 36, .kv_latent = 40, .value_dim = 28, .n_group = 1,
     .n_group_used = 1, .mscale = 0.707},
    {.name = "deepseek2-c", .family = TINY_DEEPSEEK2, .seed = 11, .n_layer = 3, .n_embd = 80,
     .n_vocab = 281, .n_head = 17, .n_head_kv = 17, .head_dim = 10, .rope_dim = 6,
     .rope_base = 1e4, .eps = 1e-5, .n_expert = 72, .n_expert_used = 6, .expert_ff = 44,
     .shared_ff = 88, .n_dense = 2, .dense_ff = 120, .weights_scale = 2.446, .kv_latent = 33,
     .value_dim = 12, .n_group = 8, .n_group_used = 3, .has_kv_b = true},
    {.name = "deepseek2-q", .family = TINY_DEEPSEEK2, .seed = 30, .n_layer = 3, .n_embd = 256,
     .n_vocab = 280, .n_head = 4, .n_head_kv = 4, .head_dim = 64, .rope_dim = 64,
     .rope_base = 1e4, .eps = 1e-6, .n_expert = 12, .n_expert_used = 3, .expert_ff = 256,
     .shared_ff = 256, .n_dense = 1, .dense_ff = 512, .weights_scale = 2.5, .yarn_factor = 40,
     .beta_fast = 32, .beta_slow = 1, .n_ctx_original = 128, .q_latent = 256, .kv_latent = 256,
     .value_dim = 64, .n_group = 3, .n_group_used = 2, .mscale = 1},
    {.name = "deepseek2-s", .family = TINY_DEEPSEEK2, .seed = 1, .n_layer = 2, .n_embd = 256,
     .n_vocab = 280, .n_head = 4, .n_head_kv = 4, .head_dim = 64, .rope_dim = 32,
     .rope_base = 5e4, .eps = 1e-5, .n_expert = 8, .n_expert_used = 8, .expert_ff = 256,
     .shared_ff = 256, .n_dense = 1, .dense_ff = 512, .weights_scale = 2.5, .q_latent = 256,
     .kv_latent = 256, .value_dim = 64, .n_group = 1, .n_group_used = 1, .has_kv_b = true},
    {.name = "deepseek32-a", .family = TINY_DEEPSEEK32, .seed = 7, .n_layer = 3, .n_embd = 96,
     .n_vocab = 285, .n_head = 6, .n_head_kv = 6, .head_dim = 24, .rope_dim = 16,
     .rope_base = 1e4, .eps = 1e-6, .n_expert = 24, .n_expert_used = 3, .expert_ff = 40,
     .shared_ff = 40, .n_dense = 1, .dense_ff = 150, .weights_scale = 2.5, .yarn_factor = 40,
     .beta_fast = 32, .beta_slow = 1, .n_ctx_original = 96, .q_latent = 40, .kv_latent = 48,
     .value_dim = 20, .n_group = 4, .n_group_used = 2, .mscale = 1, .n_index_head = 8,
     .index_dim = 32, .index_topk = 24},
    {.name = "deepseek32-b", .family = TINY_DEEPSEEK32, .seed = 10, .n_layer = 3, .n_embd = 72,
     .n_vocab = 283, .n_head = 4, .n_head_kv = 4, .head_dim = 20, .rope_dim = 24,
     .rope_base = 5e4, .eps = 1e-3, .n_expert = 130, .n_expert_used = 8, .expert_ff = 41,
     .shared_ff = 41, .has_draft_layer = true, .n_dense = 1, .dense_ff = 99,
     .weights_scale = 2.827, .q_latent = 36, .kv_latent = 40, .value_dim = 28, .n_group = 1,
     .n_group_used = 1, .has_kv_b = true, .n_index_head = 13, .index_dim = 24, .index_topk = 70},
    {.name = "deepseek32-q", .family = TINY_DEEPSEEK32, .seed = 10, .n_layer = 2, .n_embd = 256,
     .n_vocab = 280, .n_head = 4, .n_head_kv = 4, .head_dim = 64, .rope_dim = 64,
     .rope_base = 1e4, .eps = 1e-6, .n_expert = 12, .n_expert_used = 3, .expert_ff = 256,
     .shared_ff = 256, .n_dense = 1, .dense_ff = 512, .weights_scale = 2.5, .yarn_factor = 40,
     .beta_fast = 32, .beta_slow = 1, .n_ctx_original = 128, .q_latent = 256, .kv_latent = 256,
     .value_dim = 64, .n_group = 3, .n_group_used = 2, .mscale = 1, .n_index_head = 8,
     .index_dim = 128, .index_topk = 40},
    {.name = "deepseek32-p", .family = TINY_DEEPSEEK32, .seed = 5, .n_layer = 3, .n_embd = 96,
     .n_vocab = 285, .n_head = 6, .n_head_kv = 6, .head_dim = 24, .rope_dim = 16,
     .rope_base = 1e4, .eps = 1e-6, .n_expert = 24, .n_expert_used = 3, .expert_ff = 40,
     .shared_ff = 40, .n_dense = 1, .dense_ff = 150, .weights_scale = 2.5, .q_latent = 40,
     .kv_latent = 48, .value_dim = 20, .n_group = 4, .n_group_used = 2, .n_index_head = 8,
     .index_dim = 32, .index_topk = 150},
    {.name = "glm-dsa-a", .family = TINY_GLM_DSA, .seed = 16, .n_layer = 5, .n_embd = 80,
     .n_vocab = 281, .n_head = 17, .n_head_kv = 17, .head_dim = 18, .rope_dim = 12,
     .rope_base = 1e6, .eps = 1e-5, .n_expert = 72, .n_expert_used = 6, .expert_ff = 44,
     .shared_ff = 88, .n_dense = 2, .dense_ff = 120, .weights_scale = 2.446, .q_latent = 44,
     .kv_latent = 33, .value_dim = 26, .n_group = 1, .n_group_used = 1, .n_index_head = 10,
     .index_dim = 20, .index_topk = 33, .index_types = "FFSSF"},
    {.name = "glm-dsa-b", .family = TINY_GLM_DSA, .seed = 4, .n_layer = 3, .n_embd = 96,
     .n_vocab = 285, .n_head = 5, .n_head_kv = 5, .head_dim = 20, .rope_dim = 16,
     .rope_base = 8e6, .eps = 1e-3, .n_expert = 20, .n_expert_used = 3, .expert_ff = 40,
     .shared_ff = 40, .has_draft_layer = true, .n_dense = 1, .dense_ff = 150,
     .weights_scale = 2.5, .q_latent = 48, .kv_latent = 64, .value_dim = 32, .n_group = 1,
     .n_group_used = 1, .has_kv_b = true, .n_index_head = 16, .index_dim = 40, .index_topk = 100},
    {.name = "glm-dsa-q", .family = TINY_GLM_DSA, .seed = 2, .n_layer = 2, .n_embd = 256,
     .n_vocab = 280, .n_head = 4, .n_head_kv = 4, .head_dim = 48, .rope_dim = 32,
     .rope_base = 1e6, .eps = 1e-5, .n_expert = 12, .n_expert_used = 3, .expert_ff = 256,
     .shared_ff = 256, .n_dense = 1, .dense_ff = 512, .weights_scale = 2.5, .q_latent = 256,
     .kv_latent = 256, .value_dim = 96, .n_group = 1, .n_group_used = 1, .has_kv_b = true,
     .n_index_head = 8, .index_dim = 64, .index_topk = 40},
};
// clang-format on

enum { N_SPEC = sizeof specs / sizeof specs[0] };

const tiny_spec *tiny_spec_at(size_t i)
{
    return i < N_SPEC ? &specs[i] : NULL;
}

const tiny_spec *tiny_spec_find(const char *name)
{
    for (size_t i = 0; i < N_SPEC; i++) {
        if (strcmp(specs[i].name, name) == 0) return &specs[i];
    }
    return NULL;
}

const char *tiny_family_name(tiny_family family)
{
    static const char *const names[] = {"qwen35moe", "qwen3next", "qwen3moe",   "glm4moe",
                                        "gpt-oss",   "deepseek2", "deepseek32", "glm-dsa"};
    return names[family];
}

bool tiny_is_latent(const tiny_spec *spec)
{
    return spec->kv_latent > 0;
}

bool tiny_is_hybrid(const tiny_spec *spec)
{
    return spec->family == TINY_QWEN35MOE || spec->family == TINY_QWEN3NEXT;
}

enum {
    HYBRID = 1 << TINY_QWEN35MOE | 1 << TINY_QWEN3NEXT,
    GLM = 1 << TINY_GLM4MOE,
    OSS = 1 << TINY_GPTOSS,
    DSA = 1 << TINY_DEEPSEEK32 | 1 << TINY_GLM_DSA,
    DSV = 1 << TINY_DEEPSEEK2 | DSA,
    EVERY = HYBRID | 1 << TINY_QWEN3MOE | GLM | OSS | DSV,
};

static const struct {
    const char *name;
    unsigned families;
    const char *text;
} faults[] = {
    {"norm", EVERY,
     "the norm before the experts of layer 1 without its 1+ (plain norms: with one)"},
    {"qnorm", EVERY & ~OSS & ~DSV,
     "the query norm of the first full layer without its 1+ (plain norms: with one)"},
    {"rope", EVERY, "rope.freq_base 100"},
    {"gate", HYBRID, "query and gate rows of head 0 exchanged in the first full layer"},
    {"shared_gate", HYBRID, "shared expert gate of layer 0 all zero"},
    {"decay", HYBRID, "ssm_a of layer 0 half as much again"},
    {"dt", HYBRID, "0.5 added to the dt bias of layer 0"},
    {"conv", HYBRID, "convolution taps of layer 0 in reverse"},
    {"beta_alpha_swap", HYBRID,
     "beta and alpha rows exchanged in layer 0 (qwen3next: of key head 0)"},
    {"router", EVERY, "router rows of experts 0 and 1 exchanged in the first layer with experts"},
    {"head_order", 1 << TINY_QWEN35MOE, "value heads left in grouped order in every layer"},
    {"expert_down", EVERY, "down matrices of experts 0 and 1 exchanged in the same layer"},
    {"eps", EVERY, "layer_norm_rms_epsilon 0.03 greater"},
    {"k_bias", GLM | OSS, "bias of k of layer 0 all zero"},
    {"v_bias", GLM | OSS, "bias of v of layer 0 all zero"},
    {"score_bias", GLM | DSV,
     "the bias for the choice of experts all zero in the first layer with experts"},
    {"weights_scale", GLM | DSV, "expert_weights_scale half as much again"},
    {"weights_norm", GLM | DSV, "expert_weights_norm false"},
    {"gate_up", GLM | OSS | DSV,
     "gate and up exchanged in layer 0 and in the experts of the first layer that has some"},
    {"shared_up", GLM | DSV,
     "gate and up of the shared expert exchanged in the first layer with experts"},
    {"o_bias", OSS, "bias of the attention output of layer 0 all zero"},
    {"sinks", OSS, "sinks of layer 0 all zero"},
    {"window", OSS, "attention.sliding_window half as much again, and one"},
    {"yarn", OSS | DSV, "rope.scaling.factor half as much"},
    {"router_bias", OSS, "bias of the router of layer 0 all zero"},
    {"gate_bias", OSS, "bias of the experts' gate of layer 0 all zero"},
    {"up_bias", OSS, "bias of the experts' up of layer 0 all zero"},
    {"down_bias", OSS, "bias of the experts' down of layer 0 all zero"},
    {"groups", DSV, "expert_group_used_count one less"},
    {"mscale", DSV, "rope.scaling.yarn_log_multiplier half as much"},
    {"rope_order", DSV, "two rotary rows of kv_a of layer 0 exchanged, of different pairs"},
    {"q_a_norm", DSV, "the norm of the query latent of layer 0 with a 1+"},
    {"kv_a_norm", DSV, "the norm of the key and value latent of layer 0 with a 1+"},
    {"k_b", DSV, "key matrices of heads 0 and 1 exchanged in layer 0"},
    {"v_b", DSV, "value matrices of heads 0 and 1 exchanged in layer 0"},
    {"index_q", DSA, "query matrices of the indexer's heads 0 and 1 exchanged in layer 0"},
    {"index_rope", DSA, "rotary rows 0 and 3 of the indexer's key matrix exchanged in layer 0"},
    {"index_norm", DSA, "weight of the indexer's norm all zero in layer 0"},
    {"index_bias", DSA, "bias of the indexer's norm all zero in layer 0"},
    {"index_weights", DSA, "weights of the indexer's heads 0 and 1 exchanged in layer 0"},
    {"index_topk", DSA, "half as many positions for attention to see"},
    {"index_types", DSA, "every layer shares the choice of layer 0"},
};

enum { N_FAULT = sizeof faults / sizeof faults[0] };

const char *tiny_fault_name(size_t i)
{
    return i < N_FAULT ? faults[i].name : NULL;
}

const char *tiny_fault_text(size_t i)
{
    return i < N_FAULT ? faults[i].text : NULL;
}

bool tiny_fault_applies(const tiny_spec *spec, const char *fault)
{
    size_t i = 0;
    while (i < N_FAULT && strcmp(faults[i].name, fault) != 0) i++;
    if (i == N_FAULT || !(faults[i].families >> spec->family & 1)) return false;
    if (strcmp(fault, "head_order") == 0)
        return spec->n_key_head > 1 && spec->n_value_head > spec->n_key_head;
    if (strcmp(fault, "groups") == 0) return spec->n_group_used > 1;
    if (strcmp(fault, "yarn") == 0 || strcmp(fault, "mscale") == 0) return spec->yarn_factor > 0;
    if (strcmp(fault, "index_types") == 0) return spec->index_types != NULL;
    if (strcmp(fault, "q_a_norm") == 0) return spec->q_latent > 0;
    if (strcmp(fault, "qnorm") == 0) return spec->family != TINY_GLM4MOE || spec->has_qk_norm;
    return true;
}

/* -------------------------------------------------------------------------- tensor table */

bool tiny_has_fault(const tiny_plan *plan, const char *fault)
{
    return strcmp(plan->fault, fault) == 0;
}

tiny_tensor *tiny_add(tiny_plan *plan, int layer, const char *name, const char *hf, uint64_t n_col,
                      uint64_t n_row, uint64_t n_expert)
{
    if (plan->n == plan->cap) {
        const size_t cap = plan->cap ? 2 * plan->cap : 64;
        tiny_tensor *grown = realloc(plan->tensors, cap * sizeof *grown);
        if (grown) {
            plan->tensors = grown;
            plan->cap = cap;
        } else {
            plan->is_out_of_memory = true;
            if (plan->n == 0) return NULL; /* not even the first: tiny_plan_tensors stops */
            plan->n--;
        }
    }
    tiny_tensor *t = &plan->tensors[plan->n++];
    *t = (tiny_tensor){.layer = layer, .dims = {n_col, n_row, n_expert}};
    t->n_dims = n_row == 0 ? 1 : n_expert == 0 ? 2 : 3;
    t->format = tiny_format_find("F32");
    if (layer < 0) {
        snprintf(t->name, sizeof t->name, "%s", name);
        snprintf(t->hf, sizeof t->hf, "%s", hf);
    } else {
        snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, name);
        if (strncmp(hf, "mtp.", 4) == 0)
            snprintf(t->hf, sizeof t->hf, "%s", hf);
        else if (tiny_is_hybrid(plan->spec) && layer >= plan->spec->n_layer)
            snprintf(t->hf, sizeof t->hf, "mtp.layers.0.%s", hf);
        else
            snprintf(t->hf, sizeof t->hf, "model.layers.%d.%s", layer, hf);
    }
    return t;
}

tiny_tensor *tiny_add_linear(tiny_plan *plan, int layer, const char *name, const char *hf,
                             uint64_t n_col, uint64_t n_row)
{
    tiny_tensor *t = tiny_add(plan, layer, name, hf, n_col, n_row, 0);
    const tiny_format *wanted = tiny_trunk_format(plan->format);
    t->format = tiny_format_fit(tiny_format_of(wanted, plan->spec, t->hf), n_col);
    return t;
}

tiny_tensor *tiny_add_norm(tiny_plan *plan, int layer, const char *name, const char *hf, uint64_t n)
{
    tiny_tensor *t = tiny_add(plan, layer, name, hf, n, 0, 0);
    t->effect = tiny_is_hybrid(plan->spec) ? TINY_ONE_PLUS : TINY_KEEP;
    return t;
}

void tiny_flip_norm(tiny_tensor *t)
{
    t->effect = t->effect == TINY_KEEP ? TINY_ONE_PLUS : TINY_KEEP;
}

static void add_attention(tiny_plan *plan, int layer, bool is_first)
{
    const tiny_spec *s = plan->spec;
    const uint64_t embd = (uint64_t)s->n_embd, dim = (uint64_t)s->head_dim;
    const uint64_t n_head = (uint64_t)s->n_head, n_kv = (uint64_t)s->n_head_kv;
    const bool is_gated = s->family != TINY_QWEN3MOE; /* q rows per head: query, then gate */
    tiny_tensor *t = tiny_add_linear(plan, layer, "attn_q.weight", "self_attn.q_proj.weight", embd,
                                     dim * n_head * (is_gated ? 2 : 1));
    if (is_first && tiny_has_fault(plan, "gate")) {
        t->swap_a = 0;
        t->swap_b = dim;
        t->swap_len = dim;
    }
    tiny_add_linear(plan, layer, "attn_k.weight", "self_attn.k_proj.weight", embd, dim * n_kv);
    tiny_add_linear(plan, layer, "attn_v.weight", "self_attn.v_proj.weight", embd, dim * n_kv);
    t = tiny_add_norm(plan, layer, "attn_q_norm.weight", "self_attn.q_norm.weight", dim);
    if (is_first && tiny_has_fault(plan, "qnorm")) tiny_flip_norm(t);
    tiny_add_norm(plan, layer, "attn_k_norm.weight", "self_attn.k_norm.weight", dim);
    tiny_add_linear(plan, layer, "attn_output.weight", "self_attn.o_proj.weight", dim * n_head,
                    embd);
}

/* A block of the format may not straddle two value heads where columns are reordered; for
 * simplicity both families then use Q8_0, or F32 when that does not fit either. */
static const tiny_format *out_format(const tiny_plan *plan, const char *hf)
{
    const uint64_t dim = (uint64_t)plan->spec->state_dim;
    const tiny_format *wanted = tiny_format_of(tiny_trunk_format(plan->format), plan->spec, hf);
    return tiny_format_fit(tiny_format_fit(wanted, dim), dim);
}

static void add_delta_net(tiny_plan *plan, int layer)
{
    const tiny_spec *s = plan->spec;
    const uint64_t embd = (uint64_t)s->n_embd, dim = (uint64_t)s->state_dim;
    const uint64_t n_value = (uint64_t)s->n_value_head;
    const uint64_t key = dim * (uint64_t)s->n_key_head, value = dim * n_value;
    const bool is_next = s->family == TINY_QWEN3NEXT;
    const bool is_tiled = !is_next && !tiny_has_fault(plan, "head_order");
    const bool is_faulty = layer == 0; /* the layer that the faults of one layer hit */
    const tiny_row_map one = is_tiled ? TINY_ROW_ONE_TILED : TINY_ROW_SAME;
    const tiny_row_map qkv = is_tiled ? TINY_ROW_QKV_TILED : TINY_ROW_SAME;

    tiny_tensor *t = tiny_add_linear(plan, layer, "attn_qkv.weight",
                                     is_next ? "linear_attn.in_proj_qkvz.weight"
                                             : "linear_attn.in_proj_qkv.weight",
                                     embd, 2 * key + value);
    t->rows = is_next ? TINY_ROW_QKV_SPLIT : qkv;
    t = tiny_add_linear(
        plan, layer, "attn_gate.weight",
        is_next ? "linear_attn.in_proj_qkvz.weight" : "linear_attn.in_proj_z.weight", embd, value);
    t->rows = is_next ? TINY_ROW_Z_SPLIT : is_tiled ? TINY_ROW_HEAD_TILED : TINY_ROW_SAME;
    t = tiny_add(plan, layer, "ssm_conv1d.weight", "linear_attn.conv1d.weight", 4, 2 * key + value,
                 0);
    t->rows = qkv;
    if (is_faulty && tiny_has_fault(plan, "conv")) t->cols = TINY_COL_REVERSED;
    t = tiny_add(plan, layer, "ssm_dt.bias", "linear_attn.dt_bias", n_value, 0, 0);
    t->rows = one;
    if (is_faulty && tiny_has_fault(plan, "dt")) t->effect = TINY_PLUS_HALF;
    t = tiny_add(plan, layer, "ssm_a", "linear_attn.A_log", n_value, 0, 0);
    t->rows = one;
    t->effect = is_faulty && tiny_has_fault(plan, "decay") ? TINY_STRONGER : TINY_NEG_EXP;

    const bool is_swapped = is_faulty && tiny_has_fault(plan, "beta_alpha_swap");
    if (is_next) {
        t = tiny_add_linear(plan, layer, "ssm_ba.weight", "linear_attn.in_proj_ba.weight", embd,
                            2 * n_value);
        if (is_swapped) {
            const uint64_t ratio = n_value / (uint64_t)s->n_key_head;
            t->swap_b = ratio;
            t->swap_len = ratio;
        }
    } else {
        const char *b = "linear_attn.in_proj_b.weight", *a = "linear_attn.in_proj_a.weight";
        t = tiny_add_linear(plan, layer, "ssm_beta.weight", is_swapped ? a : b, embd, n_value);
        t->rows = one;
        t = tiny_add_linear(plan, layer, "ssm_alpha.weight", is_swapped ? b : a, embd, n_value);
        t->rows = one;
    }
    tiny_add(plan, layer, "ssm_norm.weight", "linear_attn.norm.weight", dim, 0, 0);
    t = tiny_add(plan, layer, "ssm_out.weight", "linear_attn.out_proj.weight", value, embd, 0);
    t->format = out_format(plan, t->hf);
    if (is_tiled) t->cols = TINY_COL_HEAD_TILED;
}

static void add_experts(tiny_plan *plan, int layer)
{
    const tiny_spec *s = plan->spec;
    const uint64_t embd = (uint64_t)s->n_embd, ff = (uint64_t)s->expert_ff;
    const uint64_t n_expert = (uint64_t)s->n_expert, shared = (uint64_t)s->shared_ff;
    static const struct {
        const char *name, *hf;
        tiny_row_map rows;
    } parts[] = {
        {"ffn_gate_exps.weight", "mlp.experts.gate_up_proj", TINY_ROW_GATE},
        {"ffn_up_exps.weight", "mlp.experts.gate_up_proj", TINY_ROW_UP},
        {"ffn_down_exps.weight", "mlp.experts.down_proj", TINY_ROW_SAME},
    };
    tiny_tensor *t =
        tiny_add(plan, layer, "ffn_gate_inp.weight", "mlp.gate.weight", embd, n_expert, 0);
    if (layer == 0 && tiny_has_fault(plan, "router")) {
        t->swap_b = 1;
        t->swap_len = 1;
    }
    for (int i = 0; i < 3; i++) {
        const bool is_down = i == 2;
        t = tiny_add(plan, layer, parts[i].name, parts[i].hf, is_down ? ff : embd,
                     is_down ? embd : ff, n_expert);
        t->format = tiny_format_fit(tiny_format_of(plan->format, s, t->hf), t->dims[0]);
        t->rows = parts[i].rows;
        t->is_expert = true;
        if (is_down && layer == 0 && tiny_has_fault(plan, "expert_down")) {
            t->swap_b = embd;
            t->swap_len = embd;
        }
    }
    if (s->family == TINY_QWEN3MOE) return;
    t = tiny_add(plan, layer, "ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight", embd, 0,
                 0);
    if (layer == 0 && tiny_has_fault(plan, "shared_gate")) t->effect = TINY_ZERO;
    tiny_add_linear(plan, layer, "ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight",
                    embd, shared);
    tiny_add_linear(plan, layer, "ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight", embd,
                    shared);
    tiny_add_linear(plan, layer, "ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight",
                    shared, embd);
}

/* One layer of the Qwen families. */
static void add_qwen_layer(tiny_plan *plan, int layer)
{
    const tiny_spec *s = plan->spec;
    const uint64_t embd = (uint64_t)s->n_embd;
    const bool is_hybrid = tiny_is_hybrid(s);
    tiny_add_norm(plan, layer, "attn_norm.weight", "input_layernorm.weight", embd);
    const bool is_draft = layer >= s->n_layer; /* always with attention */
    if (is_hybrid && !is_draft && (layer + 1) % s->full_interval != 0) {
        add_delta_net(plan, layer);
    } else {
        add_attention(plan, layer, layer == (is_hybrid ? s->full_interval - 1 : 0));
    }
    tiny_tensor *t =
        tiny_add_norm(plan, layer, is_hybrid ? "post_attention_norm.weight" : "ffn_norm.weight",
                      "post_attention_layernorm.weight", embd);
    if (layer == 1 && tiny_has_fault(plan, "norm")) tiny_flip_norm(t);
    add_experts(plan, layer);
    if (is_draft) tiny_add_draft_ends(plan, layer);
}

int tiny_plan_tensors(tiny_plan *plan)
{
    const tiny_spec *s = plan->spec;
    const uint64_t embd = (uint64_t)s->n_embd;
    const int n_layer = s->n_layer + s->has_draft_layer;

    plan->eps = s->eps + (tiny_has_fault(plan, "eps") ? 0.03 : 0.0);
    plan->rope_base = tiny_has_fault(plan, "rope") ? 100 : s->rope_base;
    if (!tiny_add(plan, -1, "token_embd.weight", "model.embed_tokens.weight", embd,
                  (uint64_t)s->n_vocab, 0)) {
        return -1;
    }
    plan->tensors[0].format = tiny_format_fit(
        tiny_format_of(tiny_trunk_format(plan->format), s, plan->tensors[0].hf), embd);
    for (int layer = 0; layer < n_layer; layer++) {
        switch (s->family) {
        case TINY_GLM4MOE:
            tiny_add_glm4moe_layer(plan, layer);
            break;
        case TINY_GPTOSS:
            tiny_add_gptoss_layer(plan, layer);
            break;
        case TINY_DEEPSEEK2:
        case TINY_DEEPSEEK32:
        case TINY_GLM_DSA:
            tiny_add_deepseek_layer(plan, layer);
            break;
        default:
            add_qwen_layer(plan, layer);
        }
    }
    tiny_add_norm(plan, -1, "output_norm.weight", "model.norm.weight", embd);
    if (!s->is_tied) {
        tiny_add_linear(plan, -1, "output.weight", "lm_head.weight", embd, (uint64_t)s->n_vocab);
    }
    return plan->is_out_of_memory ? -1 : 0;
}
