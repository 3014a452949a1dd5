/* Small random models as GGUF files, for tests.
 *
 * The weights come from an integer generator keyed by the name of the Hugging Face parameter, so
 * that a reference program can make the same float32 values without ever seeing a GGUF file; the
 * reordering and folding which a conversion to GGUF does is repeated here. What the values are is
 * defined in tests/vectors/model/README.md. Plain C11 and libc; knows nothing of the engine.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    TINY_QWEN35MOE,
    TINY_QWEN3NEXT,
    TINY_QWEN3MOE,
    TINY_GLM4MOE,
    TINY_GPTOSS,
    TINY_DEEPSEEK2,
    TINY_DEEPSEEK32,
    TINY_GLM_DSA,
} tiny_family;

/* One model: all dimensions as the Hugging Face configuration would have them. */
typedef struct {
    const char *name; /* "<family>-<letter>" */
    tiny_family family;
    uint64_t seed;
    int n_layer;
    int n_embd;
    int n_vocab;
    int n_head, n_head_kv, head_dim;
    int rope_dim; /* rotated part of head_dim */
    double rope_base;
    double eps;
    int n_expert, n_expert_used, expert_ff;
    bool is_tied; /* the output head is the embedding; no output.weight in the file */

    /* qwen35moe and qwen3next only, 0 otherwise */
    int full_interval; /* layer i holds full attention when (i + 1) % full_interval == 0 */
    int n_key_head, n_value_head, state_dim;
    int shared_ff;       /* glm4moe and deepseek2 too */
    bool has_quiet_head; /* key head 0 is 2^-11 of the others, so the eps of its L2 norm shows;
                            deepseek2: both latents are 2^-5, so the eps of their norms shows  */

    bool has_draft_layer; /* one layer more in the file, with nextn tensors; no qwen3moe, gpt-oss */

    /* glm4moe and deepseek2 (no q and k norms), 0 otherwise */
    bool has_qk_norm;
    int n_dense, dense_ff; /* layers at the start without experts                        */
    double weights_scale;  /* of the router's weights                                    */

    /* gpt-oss and deepseek2 (no window; factor 0: no YaRN), 0 otherwise */
    int window; /* of layers 0, 2, ...                                        */
    double yarn_factor, beta_fast, beta_slow;
    int n_ctx_original;

    /* deepseek2 only, 0 otherwise; head_dim is that of q and k without their rope_dim values */
    int q_latent, kv_latent; /* q_latent 0: q straight from the input                           */
    int value_dim;
    int n_group, n_group_used; /* of experts                                                    */
    double mscale;             /* both of YaRN's                                                */
    bool has_kv_b;             /* older files: attn_kv_b, not attn_k_b and attn_v_b             */

    /* deepseek32 and glm-dsa only (with all of deepseek2's), 0 otherwise */
    int n_index_head, index_dim, index_topk;
    const char *index_types; /* per layer F (own choice of positions) or S (shares the one before);
                                NULL: all F, and nothing about it in the file               */
} tiny_spec;

typedef struct {
    const char *spec;  /* a name of the list below                                            */
    const char *type;  /* "F32", "Q8_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q6_K", "MXFP4", an IQ
                          type or "IQ", which deals all of them out; NULL = F32. A matrix whose row
                          length does not allow the type falls back to Q8_0, then to F32; MXFP4 is
                          for routed experts only, what else would be in blocks is then Q8_0  */
    const char *fault; /* one deliberate error, see tiny_fault_name; NULL = a correct file     */
    int n_shards;      /* 0 or 1 = one file; else PATH without .gguf gets -00001-of-0000N.gguf */
    bool share_layers; /* routed experts of every layer are the bytes of layer 0 (same offset)  */
} tiny_options;

/* Writes the model. Returns 0, or -1 with one line in err (err may be NULL when err_len is 0).
 * An existing file is overwritten. Any thread; nothing is kept between calls. */
int tiny_write(const char *path, const tiny_options *opt, char *err, size_t err_len);

/* The specs in order, NULL after the last; and one by name, NULL if there is none. */
const tiny_spec *tiny_spec_at(size_t i);
const tiny_spec *tiny_spec_find(const char *name);
const char *tiny_family_name(tiny_family family);
/* True for the families that mix DeltaNet with attention. */
bool tiny_is_hybrid(const tiny_spec *spec);
/* True for the families with latent attention. */
bool tiny_is_latent(const tiny_spec *spec);

/* The faults in order, NULL after the last, and what each one does. */
const char *tiny_fault_name(size_t i);
const char *tiny_fault_text(size_t i);
/* True if the fault changes a file of this spec (some need DeltaNet layers, for example). */
bool tiny_fault_applies(const tiny_spec *spec, const char *fault);

/* A Hugging Face parameter: its values are asked for one by one, its name is looked up once. */
typedef struct {
    uint64_t n;                /* the first rows, */
    uint64_t second, n_second; /* and others from `second` on, are made smaller */
    float factor;
} tiny_quiet;
typedef struct {
    uint64_t key, n_col;
    double base;
    float scale;
    tiny_quiet quiet;
} tiny_values;
tiny_values tiny_values_of(const tiny_spec *spec, const char *hf, uint64_t n_col);
/* Value i, row-major, rows of n_col. */
float tiny_value(const tiny_values *v, uint64_t i);

/* The generator: its key for a name, and output i with a key. */
uint64_t tiny_key(const char *name, uint64_t seed);
uint64_t tiny_word(uint64_t key, uint64_t i);
/* Standard deviation of a matrix's values. */
double tiny_deviation(const tiny_spec *spec, const char *hf, uint64_t n_col);

/* The token ids that the stored reference logits were made with: ids [n] out, each < n_vocab. */
void tiny_token_ids(int32_t *ids, size_t n, const tiny_spec *spec);
