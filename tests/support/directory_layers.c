/* Which tensors the layers of a family have in a directory, under which names. */
#include "support/directory_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* "model.layers.N.<suffix>"; of Qwen's draft layer "mtp.layers.0.<suffix>" */
static const char *in_layer(char hf[DIRECTORY_NAME], const tiny_spec *s, int layer,
                            const char *suffix)
{
    if (tiny_is_hybrid(s) && layer >= s->n_layer)
        snprintf(hf, DIRECTORY_NAME, "mtp.layers.0.%s", suffix);
    else
        snprintf(hf, DIRECTORY_NAME, "model.layers.%d.%s", layer, suffix);
    return hf;
}
#define HF(suffix) in_layer(hf, w->spec, layer, suffix)

/* ---- parts ------------------------------------------------------------------------------- */

/* The rows [row0, row0 + rows) of every expert of a parameter that holds them fused, as matrices of their own. */
static void add_experts(directory_writer *w, int layer, const char *suffix, const char *part,
                        uint64_t row0, uint64_t rows, uint64_t all_rows, uint64_t cols)
{
    char hf[DIRECTORY_NAME], base[DIRECTORY_NAME], module[DIRECTORY_NAME + 40];
    stored_name(w, base, HF("mlp."));
    HF(suffix);
    const uint64_t n = (uint64_t)w->spec->n_expert;
    if (w->mlx) {
        snprintf(module, sizeof module, "%sswitch_mlp.%s", base, part);
        add_coded(w, module, hf, n, rows, cols);
        return;
    }
    for (uint64_t e = 0; e < n; e++) {
        snprintf(module, sizeof module, "%sexperts.%d.%s", base, (int)e, part);
        if (coding_of(w, hf, cols)) {
            add_coded(w, module, hf, 0, rows, cols);
            continue;
        }
        strcat(module, ".weight");
        add_rows(w, module, hf, e, 0, &(row_part){row0, 1, rows, all_rows, cols});
    }
}

static void add_moe(directory_writer *w, int layer)
{
    char hf[DIRECTORY_NAME];
    const uint64_t h = (uint64_t)w->spec->n_embd, ff = (uint64_t)w->spec->expert_ff;
    add_matrix(w, HF("mlp.gate.weight"), (uint64_t)w->spec->n_expert, h);
    const bool is_other = layer >= w->spec->n_layer && w->opt->draft_unlike;
    if ((w->quantized || w->opt->one_by_one) != is_other) {
        add_experts(w, layer, "mlp.experts.gate_up_proj", "gate_proj", 0, ff, 2 * ff, h);
        add_experts(w, layer, "mlp.experts.gate_up_proj", "up_proj", ff, ff, 2 * ff, h);
        add_experts(w, layer, "mlp.experts.down_proj", "down_proj", 0, h, h, ff);
    } else {
        add_plain(w, HF("mlp.experts.gate_up_proj"), (uint64_t)w->spec->n_expert, 2 * ff, h);
        add_plain(w, HF("mlp.experts.down_proj"), (uint64_t)w->spec->n_expert, h, ff);
    }
}

/* gate, up and down below `module`. */
static void add_ffn(directory_writer *w, int layer, const char *module, uint64_t ff)
{
    static const char *const parts[] = {"gate_proj", "up_proj", "down_proj"};
    char hf[DIRECTORY_NAME], suffix[64];
    const uint64_t h = (uint64_t)w->spec->n_embd;
    for (int i = 0; i < 3; i++) {
        snprintf(suffix, sizeof suffix, "%s.%s.weight", module, parts[i]);
        add_matrix(w, HF(suffix), i < 2 ? ff : h, i < 2 ? h : ff);
    }
}

static void add_attention(directory_writer *w, int layer, bool gated, bool has_bias, bool has_norms)
{
    const tiny_spec *s = w->spec;
    char hf[DIRECTORY_NAME];
    const uint64_t h = (uint64_t)s->n_embd, d = (uint64_t)s->head_dim;
    const uint64_t q = d * (uint64_t)s->n_head, kv = d * (uint64_t)s->n_head_kv;
    add_matrix(w, HF("self_attn.q_proj.weight"), gated ? 2 * q : q, h);
    add_matrix(w, HF("self_attn.k_proj.weight"), kv, h);
    add_matrix(w, HF("self_attn.v_proj.weight"), kv, h);
    add_matrix(w, HF("self_attn.o_proj.weight"), h, q);
    if (has_bias) {
        add_plain(w, HF("self_attn.q_proj.bias"), q, 0, 0);
        add_plain(w, HF("self_attn.k_proj.bias"), kv, 0, 0);
        add_plain(w, HF("self_attn.v_proj.bias"), kv, 0, 0);
    }
    if (!has_norms) return;
    add_plain(w, HF("self_attn.q_norm.weight"), d, 0, 0);
    add_plain(w, HF("self_attn.k_norm.weight"), d, 0, 0);
}

/* ---- families ---------------------------------------------------------------------------- */

static void add_delta(directory_writer *w, int layer)
{
    const tiny_spec *s = w->spec;
    char hf[DIRECTORY_NAME];
    const uint64_t h = (uint64_t)s->n_embd, ds = (uint64_t)s->state_dim,
                   nv = (uint64_t)s->n_value_head;
    const uint64_t key = ds * (uint64_t)s->n_key_head, value = ds * nv;
    if (s->family == TINY_QWEN3NEXT) {
        add_matrix(w, HF("linear_attn.in_proj_qkvz.weight"), 2 * key + 2 * value, h);
        add_matrix(w, HF("linear_attn.in_proj_ba.weight"), 2 * nv, h);
    } else {
        add_matrix(w, HF("linear_attn.in_proj_qkv.weight"), 2 * key + value, h);
        add_matrix(w, HF("linear_attn.in_proj_z.weight"), value, h);
        add_matrix(w, HF("linear_attn.in_proj_b.weight"), nv, h);
        add_matrix(w, HF("linear_attn.in_proj_a.weight"), nv, h);
    }
    add_plain(w, HF("linear_attn.conv1d.weight"), 2 * key + value, 1, 4);
    add_plain(w, HF("linear_attn.dt_bias"), nv, 0, 0);
    add_plain(w, HF("linear_attn.A_log"), nv, 0, 0);
    add_plain(w, HF("linear_attn.norm.weight"), ds, 0, 0);
    add_matrix(w, HF("linear_attn.out_proj.weight"), h, value);
}

static void add_qwen(directory_writer *w, int layer)
{
    const tiny_spec *s = w->spec;
    const bool hybrid = tiny_is_hybrid(s);
    char hf[DIRECTORY_NAME];
    const bool is_draft = layer >= s->n_layer;
    if (!hybrid || is_draft || (layer + 1) % s->full_interval == 0) {
        add_attention(w, layer, hybrid, false, true);
    } else {
        add_delta(w, layer);
    }
    add_moe(w, layer);
    if (!hybrid) return;
    add_matrix(w, HF("mlp.shared_expert_gate.weight"), 1, (uint64_t)s->n_embd);
    add_ffn(w, layer, "mlp.shared_expert", (uint64_t)s->shared_ff);
    if (!is_draft) return;
    const uint64_t h = (uint64_t)s->n_embd;
    add_plain(w, "mtp.fc.weight", h, 2 * h, 0);
    add_plain(w, "mtp.pre_fc_norm_embedding.weight", h, 0, 0);
    add_plain(w, "mtp.pre_fc_norm_hidden.weight", h, 0, 0);
    add_plain(w, "mtp.norm.weight", h, 0, 0);
}

/* kv_b_proj of a layer. The values of specs without kv_b are those of GGUF's two tensors (tests/tiny/tiny_deepseek.c). */
typedef struct {
    const tiny_spec *spec;
    tiny_values whole, k_b, v_b;
} kv_b_values;

static kv_b_values kv_b_of(const tiny_spec *s, int layer)
{
    char hf[DIRECTORY_NAME];
    const uint64_t nope = (uint64_t)s->head_dim, latent = (uint64_t)s->kv_latent;
    const char *const names[] = {"self_attn.kv_b_proj.weight", "self_attn.k_b_proj.weight",
                                 "self_attn.v_b_proj.weight"};
    return (kv_b_values){s, tiny_values_of(s, in_layer(hf, s, layer, names[0]), latent),
                         tiny_values_of(s, in_layer(hf, s, layer, names[1]), nope),
                         tiny_values_of(s, in_layer(hf, s, layer, names[2]), latent)};
}

/* Row r of head h, column c. */
static float kv_b_value(const kv_b_values *v, uint64_t h, uint64_t r, uint64_t c)
{
    const uint64_t nope = (uint64_t)v->spec->head_dim, value = (uint64_t)v->spec->value_dim;
    const uint64_t latent = (uint64_t)v->spec->kv_latent;
    if (v->spec->has_kv_b) return tiny_value(&v->whole, (h * (nope + value) + r) * latent + c);
    if (r < nope) return tiny_value(&v->k_b, (h * latent + c) * nope + r);
    return tiny_value(&v->v_b, (h * value + r - nope) * latent + c);
}

static void add_kv_b(directory_writer *w, int layer)
{
    const tiny_spec *s = w->spec;
    char hf[DIRECTORY_NAME], name[DIRECTORY_NAME];
    const uint64_t n = (uint64_t)s->n_head, latent = (uint64_t)s->kv_latent;
    const uint64_t rows = (uint64_t)s->head_dim + (uint64_t)s->value_dim;
    HF("self_attn.kv_b_proj.weight");
    if (s->has_kv_b || coding_of(w, hf, latent)) {
        add_matrix(w, hf, n * rows, latent);
        return;
    }
    assert_false(w->quantized);
    stored_name(w, name, hf);
    float *at = (float *)(void *)add_tensor(w, name, "F32", 4, n * rows, latent, 0)->data;
    const kv_b_values v = kv_b_of(s, layer);
    for (uint64_t h = 0; h < n; h++)
        for (uint64_t r = 0; r < rows; r++)
            for (uint64_t c = 0; c < latent; c++) *at++ = kv_b_value(&v, h, r, c);
}

/* As mlx-lm has it: the rows of the keys transposed within each head, those of the values apart. A matrix whose rows are
 * no multiple of a group stays as it is. */
static void add_embed_and_unembed(directory_writer *w, int layer)
{
    const tiny_spec *s = w->spec;
    char hf[DIRECTORY_NAME], module[DIRECTORY_NAME];
    const uint64_t n = (uint64_t)s->n_head, nope = (uint64_t)s->head_dim;
    const uint64_t value = (uint64_t)s->value_dim, latent = (uint64_t)s->kv_latent;
    const kv_b_values v = kv_b_of(s, layer);
    for (int half = 0; half < 2; half++) {
        const uint64_t rows = half ? value : latent, cols = half ? latent : nope;
        stored_name(w, module, HF(half ? "self_attn.unembed_out" : "self_attn.embed_q"));
        HF("self_attn.kv_b_proj.weight");
        if (coding_of(w, hf, cols)) {
            add_coded(w, module, hf, n, rows, cols);
            continue;
        }
        strcat(module, ".weight");
        stored_tensor *t = add_tensor(w, module, "BF16", 2, n, rows, cols);
        for (uint64_t i = 0; i < n * rows * cols; i++) {
            const uint64_t h = i / (rows * cols), r = i / cols % rows, c = i % cols;
            put_value(w, t, i, half ? kv_b_value(&v, h, nope + r, c) : kv_b_value(&v, h, c, r));
        }
    }
}

/* Latent attention, and the indexer where the layer has one. */
static void add_latent(directory_writer *w, int layer)
{
    const tiny_spec *s = w->spec;
    char hf[DIRECTORY_NAME];
    const uint64_t h = (uint64_t)s->n_embd, n = (uint64_t)s->n_head, rot = (uint64_t)s->rope_dim;
    const uint64_t nope = (uint64_t)s->head_dim, value = (uint64_t)s->value_dim;
    const uint64_t latent = (uint64_t)s->kv_latent, q_latent = (uint64_t)s->q_latent;
    if (q_latent) {
        add_matrix(w, HF("self_attn.q_a_proj.weight"), q_latent, h);
        add_plain(w, HF("self_attn.q_a_layernorm.weight"), q_latent, 0, 0);
        add_matrix(w, HF("self_attn.q_b_proj.weight"), n * (nope + rot), q_latent);
    } else {
        add_matrix(w, HF("self_attn.q_proj.weight"), n * (nope + rot), h);
    }
    add_matrix(w, HF("self_attn.kv_a_proj_with_mqa.weight"), latent + rot, h);
    add_plain(w, HF("self_attn.kv_a_layernorm.weight"), latent, 0, 0);
    if (w->mlx)
        add_embed_and_unembed(w, layer);
    else
        add_kv_b(w, layer);
    add_matrix(w, HF("self_attn.o_proj.weight"), h, n * value);
    if (!s->n_index_head) return;
    if (s->index_types && layer < s->n_layer && s->index_types[layer] != 'F') return;
    const uint64_t dim = (uint64_t)s->index_dim;
    add_matrix(w, HF("self_attn.indexer.wq_b.weight"), (uint64_t)s->n_index_head * dim, q_latent);
    add_matrix(w, HF("self_attn.indexer.wk.weight"), dim, h);
    add_plain(w, HF("self_attn.indexer.k_norm.weight"), dim, 0, 0);
    add_plain(w, HF("self_attn.indexer.k_norm.bias"), dim, 0, 0);
    HF("self_attn.indexer.weights_proj.weight");
    if (w->mlx)
        add_matrix(w, hf, (uint64_t)s->n_index_head, h);
    else
        add_plain(w, hf, (uint64_t)s->n_index_head, h, 0);
}

static void add_glm(directory_writer *w, int layer)
{
    const tiny_spec *s = w->spec;
    char hf[DIRECTORY_NAME];
    if (tiny_is_latent(s))
        add_latent(w, layer);
    else
        add_attention(w, layer, false, true, s->has_qk_norm);
    if (layer < s->n_dense) {
        add_ffn(w, layer, "mlp", (uint64_t)s->dense_ff);
        return;
    }
    add_moe(w, layer);
    add_f32(w, HF("mlp.gate.e_score_correction_bias"), (uint64_t)s->n_expert);
    add_ffn(w, layer, "mlp.shared_experts", (uint64_t)s->shared_ff);
    if (layer < s->n_layer) return;
    const uint64_t h = (uint64_t)s->n_embd;
    add_plain(w, HF("eh_proj.weight"), h, 2 * h, 0);
    add_plain(w, HF("enorm.weight"), h, 0, 0);
    add_plain(w, HF("hnorm.weight"), h, 0, 0);
    add_plain(w, HF("shared_head.norm.weight"), h, 0, 0);
    if (tiny_is_latent(s)) return;
    add_plain(w, HF("shared_head.head.weight"), (uint64_t)s->n_vocab, h, 0);
    add_plain(w, HF("embed_tokens.weight"), (uint64_t)s->n_vocab, h, 0);
}

static void add_gptoss(directory_writer *w, int layer)
{
    const tiny_spec *s = w->spec;
    char hf[DIRECTORY_NAME], name[DIRECTORY_NAME + 40], base[DIRECTORY_NAME];
    const uint64_t n = (uint64_t)s->n_expert, h = (uint64_t)s->n_embd, ff = (uint64_t)s->expert_ff;
    add_attention(w, layer, false, true, false);
    add_plain(w, HF("self_attn.o_proj.bias"), h, 0, 0);
    add_plain(w, HF("self_attn.sinks"), (uint64_t)s->n_head, 0, 0);
    add_matrix(w, HF("mlp.router.weight"), n, h);
    add_plain(w, HF("mlp.router.bias"), n, 0, 0);
    stored_name(w, base, HF("mlp.experts."));
    const bool is_split = w->mlx || w->opt->one_by_one; /* gate and up apart, as mlx-lm has them */
    for (int i = 0; i < 2; i++) {
        if (!is_split) continue;
        const char *const part = i == 0 ? "gate_proj" : "up_proj";
        snprintf(name, sizeof name, "%s%s", base, part);
        HF("mlp.experts.gate_up_proj");
        if (w->mlx) {
            add_coded(w, name, hf, n, ff, h);
        } else {
            strcat(name, ".weight");
            add_rows(w, name, hf, 0, n, &(row_part){(uint64_t)i, 2, ff, 2 * ff, h});
        }
        snprintf(name, sizeof name, "%s%s.bias", base, part);
        add_table(w, name, HF("mlp.experts.gate_up_proj_bias"), n, (uint64_t)i, 2, 2 * ff);
    }
    if (!is_split) add_plain(w, HF("mlp.experts.gate_up_proj_bias"), n, 2 * ff, 0);
    snprintf(name, sizeof name, "%sdown_proj%s", base, is_split ? ".bias" : "_bias");
    add_table(w, name, HF("mlp.experts.down_proj_bias"), n, 0, 1, h);
    HF("mlp.experts.down_proj");
    snprintf(name, sizeof name, "%sdown_proj", base);
    if (w->mlx || strcmp(w->opt->format, "blocks") == 0) {
        add_coded(w, name, hf, n, h, ff);
    } else if (is_split) {
        strcat(name, ".weight");
        add_rows(w, name, hf, 0, n, &(row_part){0, 1, h, h, ff});
    } else {
        add_by_columns(w, hf, n, h, ff);
    }
    if (is_split) return;
    HF("mlp.experts.gate_up_proj");
    snprintf(name, sizeof name, "%sgate_up_proj", base);
    if (strcmp(w->opt->format, "blocks") == 0) {
        add_coded(w, name, hf, n, 2 * ff, h);
    } else {
        add_by_columns(w, hf, n, 2 * ff, h);
    }
}

void add_layer(directory_writer *w, int layer)
{
    char hf[DIRECTORY_NAME];
    const uint64_t h = (uint64_t)w->spec->n_embd;
    add_plain(w, HF("input_layernorm.weight"), h, 0, 0);
    add_plain(w, HF("post_attention_layernorm.weight"), h, 0, 0);
    switch (w->spec->family) {
    case TINY_GLM4MOE:
    case TINY_DEEPSEEK2:
    case TINY_DEEPSEEK32:
    case TINY_GLM_DSA:
        add_glm(w, layer);
        break;
    case TINY_GPTOSS:
        add_gptoss(w, layer);
        break;
    default:
        add_qwen(w, layer);
    }
}
