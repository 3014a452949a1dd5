#include "support/directory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "support/directory_internal.h"

/* ---- files ------------------------------------------------------------------------------- */

static FILE *create(const char *directory, const char *name)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "wb");
    if (!f) fail_msg("cannot write %s", path);
    return f;
}

/* The text part of Kimi K2.5. */
static bool is_kimi(const directory_writer *w)
{
    return w->opt->multimodal && w->spec->family == TINY_DEEPSEEK2;
}

static void write_qwen(const directory_writer *w, FILE *f)
{
    const tiny_spec *s = w->spec;
    fprintf(f, ", \"num_experts\": %d, \"moe_intermediate_size\": %d, \"norm_topk_prob\": true",
            s->n_expert, s->expert_ff);
    if (s->family == TINY_QWEN3MOE)
        fprintf(f, ", \"rope_theta\": %.1f", s->rope_base);
    else
        fprintf(f,
                ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": %.1f, "
                "\"partial_rotary_factor\": %.17g}, \"shared_expert_intermediate_size\": %d, "
                "\"full_attention_interval\": %d, \"linear_conv_kernel_dim\": 4, "
                "\"linear_key_head_dim\": %d, \"linear_value_head_dim\": %d, "
                "\"linear_num_key_heads\": %d, \"linear_num_value_heads\": %d, "
                "\"mtp_num_hidden_layers\": %d",
                s->rope_base, (double)s->rope_dim / s->head_dim, s->shared_ff, s->full_interval,
                s->state_dim, s->state_dim, s->n_key_head, s->n_value_head, s->has_draft_layer);
}

/* Rope at the top, as transformers 4 wrote it; multimodal: as its version 5 does. */
static void write_glm(const directory_writer *w, FILE *f)
{
    const tiny_spec *s = w->spec;
    const double part = (double)s->rope_dim / s->head_dim;
    fprintf(f,
            ", \"n_routed_experts\": %d, \"n_shared_experts\": %d, \"moe_intermediate_size\": %d, "
            "\"intermediate_size\": %d, \"first_k_dense_replace\": %d, \"n_group\": 1, "
            "\"topk_group\": 1, \"routed_scaling_factor\": %.9g, \"norm_topk_prob\": true, "
            "\"attention_bias\": true, \"use_qk_norm\": %s, \"num_nextn_predict_layers\": %d",
            s->n_expert, s->shared_ff / s->expert_ff, s->expert_ff, s->dense_ff, s->n_dense,
            s->weights_scale, s->has_qk_norm ? "true" : "false", s->has_draft_layer);
    if (w->opt->multimodal)
        fprintf(f,
                ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": %.1f, "
                "\"partial_rotary_factor\": %.17g, \"mrope_section\": [%d, 0, 0]}",
                s->rope_base, part, s->rope_dim / 2);
    else
        fprintf(f,
                ", \"rope_theta\": %.1f, \"rope_scaling\": null, \"partial_rotary_factor\": %.17g",
                s->rope_base, part);
}

/* Rope at the top as in DeepSeek's and Kimi's configurations; GLM: as transformers 5 writes it. */
static void write_latent(const directory_writer *w, FILE *f)
{
    const tiny_spec *s = w->spec;
    fprintf(f,
            ", \"n_routed_experts\": %d, \"n_shared_experts\": %d, \"moe_intermediate_size\": %d, "
            "\"intermediate_size\": %d, \"first_k_dense_replace\": %d, \"n_group\": %d, "
            "\"topk_group\": %d, \"routed_scaling_factor\": %.9g, \"norm_topk_prob\": true, "
            "\"scoring_func\": \"sigmoid\", \"topk_method\": \"noaux_tc\", \"moe_layer_freq\": 1, "
            "\"attention_bias\": false, \"num_nextn_predict_layers\": %d, \"kv_lora_rank\": %d, "
            "\"qk_nope_head_dim\": %d, \"qk_rope_head_dim\": %d, \"v_head_dim\": %d, "
            "\"q_lora_rank\": ",
            s->n_expert, s->shared_ff / s->expert_ff, s->expert_ff, s->dense_ff, s->n_dense,
            s->n_group, s->n_group_used, s->weights_scale, s->has_draft_layer, s->kv_latent,
            s->head_dim, s->rope_dim, s->value_dim);
    if (s->q_latent)
        fprintf(f, "%d", s->q_latent);
    else
        fprintf(f, "null");
    if (s->family == TINY_GLM_DSA)
        fprintf(f,
                ", \"indexer_rope_interleave\": true, \"rope_parameters\": {\"rope_type\": "
                "\"default\", \"rope_theta\": %.1f}",
                s->rope_base);
    else
        fprintf(f, ", \"rope_theta\": %.1f", s->rope_base);
    if (s->yarn_factor > 0)
        fprintf(f,
                ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": %.9g, \"beta_fast\": %.9g, "
                "\"beta_slow\": %.9g, \"mscale\": %.9g, \"mscale_all_dim\": %.9g, "
                "\"original_max_position_embeddings\": %d}",
                s->yarn_factor, s->beta_fast, s->beta_slow, s->mscale, s->mscale,
                s->n_ctx_original);
    if (!s->n_index_head) return;
    fprintf(f, ", \"index_n_heads\": %d, \"index_head_dim\": %d, \"index_topk\": %d",
            s->n_index_head, s->index_dim, s->index_topk);
    if (!s->index_types) return;
    fprintf(f, ", \"indexer_types\": [");
    for (int i = 0; i < s->n_layer; i++)
        fprintf(f, "%s\"%s\"", i ? ", " : "", s->index_types[i] == 'F' ? "full" : "shared");
    fprintf(f, "]");
}

static void write_gptoss(const directory_writer *w, FILE *f)
{
    const tiny_spec *s = w->spec;
    fprintf(f,
            ", \"num_local_experts\": %d, \"intermediate_size\": %d, \"sliding_window\": %d, "
            "\"attention_bias\": true, \"swiglu_limit\": 7.0, \"rope_theta\": %.1f, "
            "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": %.9g, \"beta_fast\": %.9g, "
            "\"beta_slow\": %.9g, \"truncate\": false, "
            "\"original_max_position_embeddings\": %d}, \"layer_types\": [",
            s->n_expert, s->expert_ff, s->window, s->rope_base, s->yarn_factor, s->beta_fast,
            s->beta_slow, s->n_ctx_original);
    for (int i = 0; i < s->n_layer; i++)
        fprintf(f, "%s\"%s_attention\"", i ? ", " : "", i % 2 ? "full" : "sliding");
    fprintf(f, "]");
}

static void write_quantization(const directory_writer *w, FILE *f)
{
    const char *const format = w->opt->format;
    if (strncmp(format, "mlx", 3) == 0)
        fprintf(f, ", \"quantization\": {\"group_size\": 64, \"bits\": %c}", format[3]);
    if (strcmp(format, "mxfp4") == 0) {
        fprintf(f, ", \"quantization\": {\"group_size\": 32, \"bits\": 4, \"mode\": \"mxfp4\"");
        for (int i = 0; i < w->n; i++) { /* what is in another format */
            const char *const end = strstr(w->list[i].name, ".biases");
            if (end)
                fprintf(f, ", \"%.*s\": {\"group_size\": %d, \"bits\": 8}",
                        (int)(end - w->list[i].name), w->list[i].name, (int)group_of(w));
        }
        fprintf(f, "}");
    }
    if (strcmp(format, "blocks") == 0)
        fprintf(f, ", \"quantization_config\": {\"quant_method\": \"mxfp4\", "
                   "\"modules_to_not_convert\": [\"model.layers.*.self_attn\", "
                   "\"model.layers.*.mlp.router\", \"model.embed_tokens\", \"lm_head\"]}");
    if (strcmp(format, "fp8") == 0)
        fprintf(f, ", \"quantization_config\": {\"quant_method\": \"fp8\", "
                   "\"weight_block_size\": [128, 128]}");
    if (strcmp(format, "fp8-row") == 0)
        fprintf(f, ", \"quantization_config\": {\"quant_method\": \"compressed-tensors\", "
                   "\"format\": \"float-quantized\", \"config_groups\": {\"group_0\": "
                   "{\"input_activations\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": "
                   "\"token\", \"dynamic\": true}, \"weights\": {\"num_bits\": 8, \"type\": "
                   "\"float\", \"symmetric\": true, \"strategy\": \"channel\"}}}}");
    if (strcmp(format, "int4") == 0)
        fprintf(f, ", \"quantization_config\": {\"quant_method\": \"compressed-tensors\", "
                   "\"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 4, \"type\": "
                   "\"int\", \"symmetric\": true, \"group_size\": 32}}}}");
}

static void write_config(const directory_writer *w, const char *directory)
{
    static const char *const types[] = {"qwen3_5_moe_text", "qwen3_next", "qwen3_moe",
                                        "glm4_moe",         "gpt_oss",    "deepseek_v3",
                                        "deepseek_v32",     "glm_moe_dsa"};
    const tiny_spec *s = w->spec;
    const bool is_glm = s->family == TINY_GLM4MOE;
    FILE *f = create(directory, "config.json");
    fprintf(f, "{");
    if (w->opt->multimodal)
        fprintf(f, "\"model_type\": \"%s\", \"text_config\": {",
                is_glm       ? "glm4v_moe"
                : is_kimi(w) ? "kimi_k25"
                             : "qwen3_5_moe");
    fprintf(f,
            "\"model_type\": \"%s\", \"num_hidden_layers\": %d, \"hidden_size\": %d, "
            "\"max_position_embeddings\": 4096, \"num_attention_heads\": %d, "
            "\"num_key_value_heads\": %d, \"head_dim\": %d, \"rms_norm_eps\": %.9g, "
            "\"num_experts_per_tok\": %d, \"hidden_act\": \"silu\"",
            w->opt->model_type             ? w->opt->model_type
            : is_glm && w->opt->multimodal ? "glm4v_moe_text"
            : is_kimi(w)                   ? "kimi_k2"
                                           : types[s->family],
            s->n_layer, s->n_embd, s->n_head, s->n_head_kv, s->head_dim, s->eps, s->n_expert_used);
    switch (s->family) {
    case TINY_GLM4MOE:
        write_glm(w, f);
        break;
    case TINY_DEEPSEEK2:
    case TINY_DEEPSEEK32:
    case TINY_GLM_DSA:
        write_latent(w, f);
        break;
    case TINY_GPTOSS:
        write_gptoss(w, f);
        break;
    default:
        write_qwen(w, f);
    }
    if (w->opt->multimodal) fprintf(f, "}");
    write_quantization(w, f);
    fprintf(f, "}\n");
    assert_int_equal(fclose(f), 0);
}

/* Every n_shards-th tensor from `first` on. The header is padded by a varying number of spaces, so that data begin at odd
 * places too. */
static void write_shard(const directory_writer *w, const char *directory, const char *name,
                        int first, int step)
{
    char *json = NULL;
    size_t len = 0;
    FILE *m = open_memstream(&json, &len);
    assert_non_null(m);
    uint64_t at = 0;
    fprintf(m, "{\"__metadata__\": {\"format\": \"pt\"}");
    for (int i = first; i < w->n; i += step) {
        const stored_tensor *s = &w->list[i];
        fprintf(m, ", \"%s\": {\"dtype\": \"%s\", \"shape\": [", s->name, s->dtype);
        for (int d = 0; d < s->n_dim; d++)
            fprintf(m, "%s%llu", d ? ", " : "", (unsigned long long)s->dim[d]);
        fprintf(m, "], \"data_offsets\": [%llu, %llu]}", (unsigned long long)at,
                (unsigned long long)(at + s->bytes));
        at += s->bytes;
    }
    fprintf(m, "}%*s", 1 + first % 4, "");
    fclose(m);
    FILE *f = create(directory, name);
    unsigned char head[8];
    for (int i = 0; i < 8; i++) head[i] = (unsigned char)((uint64_t)len >> (8 * i));
    fwrite(head, 1, 8, f);
    fwrite(json, 1, len, f);
    for (int i = first; i < w->n; i += step) fwrite(w->list[i].data, 1, w->list[i].bytes, f);
    assert_int_equal(fclose(f), 0);
    free(json);
}

void directory_write(const char *path, const directory_options *opt)
{
    directory_writer w = {.opt = opt, .spec = tiny_spec_find(opt->spec)};
    assert_non_null(w.spec);
    w.mlx = strncmp(opt->format, "mlx", 3) == 0 || strcmp(opt->format, "mxfp4") == 0;
    w.quantized = strcmp(opt->format, "plain") != 0;
    const bool is_qwen = w.spec->family <= TINY_QWEN3MOE;
    w.prefix = (w.mlx && is_qwen) || is_kimi(&w) ? "language_model.model."
               : opt->multimodal                 ? "model.language_model."
                                                 : "model.";
    w.list = calloc(DIRECTORY_TENSORS, sizeof *w.list);
    assert_non_null(w.list);
    const uint64_t h = (uint64_t)w.spec->n_embd;
    const uint64_t v = (uint64_t)(opt->n_vocab ? opt->n_vocab : w.spec->n_vocab);
    add_matrix(&w, "model.embed_tokens.weight", v, h);
    add_plain(&w, "model.norm.weight", h, 0, 0);
    if (!w.spec->is_tied) add_matrix(&w, "lm_head.weight", v, h);
    const bool has_draft = w.spec->has_draft_layer && !w.mlx;
    const int n_layer = w.spec->n_layer + has_draft;
    for (int i = 0; i < n_layer; i++) add_layer(&w, i);
    if (opt->multimodal) {
        add_tensor(&w, "model.visual.blocks.0.attn.qkv.weight", "BF16", 2, 3, 4, 0);
        add_tensor(&w, "model.visual.patch_embed.proj.bias", "BF16", 2, 5, 0, 0);
        if (is_qwen && !has_draft) add_tensor(&w, "mtp.fc.weight", "BF16", 2, 2, 4, 0);
        if (is_qwen && has_draft)
            add_tensor(&w, "mtp.layers.1.input_layernorm.weight", "BF16", 2, 4, 0, 0);
    }
    assert_int_equal(mkdir(path, 0777), 0);
    write_config(&w, path);
    if (opt->n_shards < 2) {
        write_shard(&w, path, "model.safetensors", 0, 1);
    } else {
        FILE *f = create(path, "model.safetensors.index.json");
        fprintf(f, "{\"metadata\": {}, \"weight_map\": {");
        for (int i = 0; i < w.n; i++)
            fprintf(f, "%s\"%s\": \"model-%05d-of-%05d.safetensors\"", i ? ", " : "",
                    w.list[i].name, i % opt->n_shards + 1, opt->n_shards);
        fprintf(f, "}}\n");
        assert_int_equal(fclose(f), 0);
        for (int i = 0; i < opt->n_shards; i++) {
            char name[64];
            snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", i + 1, opt->n_shards);
            write_shard(&w, path, name, i, opt->n_shards);
        }
    }
    for (int i = 0; i < w.n; i++) free(w.list[i].data);
    free(w.list);
}
