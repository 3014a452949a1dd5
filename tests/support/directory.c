#include "support/directory.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { TENSORS_MAX = 4096, NAME_BYTES = 160 };

typedef struct {
    char name[NAME_BYTES];
    const char *dtype;
    int n_dim;
    uint64_t dim[4];
    uint8_t *data;
    size_t bytes;
} stored;

typedef struct {
    const directory_options *opt;
    const tiny_spec *spec;
    const char *prefix;
    bool mlx, quantized;
    stored *list;
    int n;
} writer;

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static stored *add(writer *w, const char *name, const char *dtype, size_t bytes, int n_dim,
                   uint64_t d0, uint64_t d1, uint64_t d2)
{
    assert_true(w->n < TENSORS_MAX);
    stored *s = &w->list[w->n++];
    *s = (stored){.dtype = dtype, .n_dim = n_dim, .dim = {d0, d1, d2}, .bytes = bytes};
    snprintf(s->name, sizeof s->name, "%s", name);
    s->data = calloc(1, bytes + 8);
    assert_non_null(s->data);
    return s;
}

/* Values as F32, or as BF16 cut off where the directory is quantized. */
static void put_value(const writer *w, stored *s, uint64_t i, float v)
{
    uint32_t u = bits_of(v);
    if (!w->quantized) {
        memcpy(s->data + 4 * i, &u, 4);
    } else {
        u >>= 16;
        memcpy(s->data + 2 * i, &u, 2);
    }
}

/* A name as stored from a parameter's. */
static void stored_name(const writer *w, char out[NAME_BYTES], const char *hf)
{
    const bool is_head = strncmp(hf, "lm_head", 7) == 0;
    const char *rest = strncmp(hf, "model.", 6) == 0 ? hf + 6 : hf;
    snprintf(out, NAME_BYTES, "%s%s", is_head ? (w->mlx ? "language_model." : "") : w->prefix,
             rest);
}

static void add_plain(writer *w, const char *hf, int n_dim, uint64_t d0, uint64_t d1, uint64_t d2)
{
    char name[NAME_BYTES];
    stored_name(w, name, hf);
    const uint64_t n_col = n_dim == 1 ? d0 : n_dim == 2 ? d1 : d2;
    const uint64_t n = d0 * (n_dim > 1 ? d1 : 1) * (n_dim > 2 ? d2 : 1);
    const bool has_one = w->mlx && w->spec->family != TINY_QWEN3MOE && strstr(hf, "norm.weight") &&
                         !strstr(hf, "linear_attn.norm");
    const bool is_conv = w->mlx && strstr(hf, "conv1d");
    stored *s = add(w, name, w->quantized ? "BF16" : "F32", n * (w->quantized ? 2 : 4), n_dim, d0,
                    is_conv ? d2 : d1, is_conv ? d1 : d2);
    for (uint64_t i = 0; i < n; i++)
        put_value(w, s, i, (has_one ? 1.0f : 0.0f) + tiny_parameter(w->spec, hf, n_col, i));
}

/* ---- quantized matrices ------------------------------------------------------------------ */

static void random_bytes(const writer *w, stored *s)
{
    for (size_t i = 0; i < s->bytes; i++)
        s->data[i] = (uint8_t)(tiny_named_word(w->spec, s->name, i / 8) >> (8 * (i % 8)));
}

/* Between 3/4 and 5/4 of `base`, and the generator's word. */
static double spread(const writer *w, const char *name, uint64_t i, double base, uint64_t *word)
{
    *word = tiny_named_word(w->spec, name, i);
    return base * (1.0 + 0.25 * ((double)((int32_t)(*word >> 48) - 32768) / 32768.0));
}

/* module (as stored, without suffix): matrices [n_mat][rows][cols]; `hf` gives the deviation. n_mat 0: two dimensions. */
static void add_coded(writer *w, const char *module, const char *hf, uint64_t n_mat, uint64_t rows,
                      uint64_t cols)
{
    const char *f = w->opt->format;
    const double std = tiny_deviation(w->spec, hf, cols);
    const uint64_t n = n_mat ? n_mat : 1;
    const int nd = n_mat ? 3 : 2;
    char name[NAME_BYTES];
    uint64_t word;
#define ADD(suffix, dtype, width, r, c)                                                            \
    (snprintf(name, sizeof name, "%.120s%s", module, suffix),                                      \
     n_mat ? add(w, name, dtype, n * (r) * (c) * (width), nd, n, r, c)                             \
           : add(w, name, dtype, (r) * (c) * (width), nd, r, c, 0))
    if (strncmp(f, "mlx", 3) == 0) {
        const uint64_t bits = (uint64_t)(f[3] - '0'), group = 64;
        random_bytes(w, ADD(".weight", "U32", 4, rows, cols * bits / 32));
        stored *s = ADD(".scales", "BF16", 2, rows, cols / group);
        stored *b = ADD(".biases", "BF16", 2, rows, cols / group);
        const double top = (double)((1 << bits) - 1),
                     rms = sqrt((top + 1) * (top + 1) - 1) / sqrt(12.0);
        for (uint64_t i = 0; i < n * rows * (cols / group); i++) {
            const double d = spread(w, s->name, i, std / rms, &word);
            const float scale = float_of(bits_of((float)(word & 1 ? -d : d)) & 0xffff0000u);
            put_value(w, s, i, scale);
            put_value(w, b, i, (float)(-top / 2 * (double)scale));
        }
    } else if (strcmp(f, "int4") == 0) {
        random_bytes(w, ADD(".weight_packed", "I32", 4, rows, cols / 8));
        stored *s = ADD(".weight_scale", "BF16", 2, rows, cols / 32);
        for (uint64_t i = 0; i < n * rows * (cols / 32); i++)
            put_value(w, s, i, (float)spread(w, s->name, i, std / 4.61, &word));
        ADD(".weight_shape", "I32", 4, (uint64_t)1, (uint64_t)2);
    } else if (strcmp(f, "mxfp4") == 0) {
        random_bytes(w, ADD(".weight", "U32", 4, rows, cols / 8));
        stored *s = ADD(".scales", "U8", 1, rows, cols / 32);
        int e;
        frexp(std / 2.93, &e);
        for (uint64_t i = 0; i < s->bytes; i++)
            s->data[i] = (uint8_t)(126 + e + (int)(tiny_named_word(w->spec, s->name, i) & 1));
    } else {
        stored *q = ADD(".weight", "F8_E4M3", 1, rows, cols);
        random_bytes(w, q);
        for (size_t i = 0; i < q->bytes; i++)
            if ((q->data[i] & 0x7f) == 0x7f) q->data[i]--;
        const uint64_t sr = (rows + 127) / 128, sc = cols / 128;
        stored *s = ADD(".weight_scale_inv", "F32", 4, sr, sc);
        for (uint64_t i = 0; i < n * sr * sc; i++) {
            const uint32_t u = bits_of((float)spread(w, s->name, i, std / 124.0, &word));
            memcpy(s->data + 4 * i, &u, 4);
        }
    }
#undef ADD
}

static bool is_coded(const writer *w, const char *hf, uint64_t cols)
{
    const char *f = w->opt->format;
    if (!w->quantized) return false;
    if (strcmp(f, "int4") == 0) return strstr(hf, ".experts.") && cols % 32 == 0;
    if (strcmp(f, "fp8") == 0)
        return strstr(hf, "proj") && !strstr(hf, "in_proj_a") && !strstr(hf, "in_proj_b") &&
               cols % 128 == 0;
    return cols % (strcmp(f, "mxfp4") == 0 ? 32 : 64) == 0;
}

static void add_matrix(writer *w, const char *hf, uint64_t rows, uint64_t cols)
{
    char module[NAME_BYTES];
    if (!is_coded(w, hf, cols)) {
        add_plain(w, hf, 2, rows, cols, 0);
        return;
    }
    stored_name(w, module, hf);
    module[strlen(module) - strlen(".weight")] = 0;
    add_coded(w, module, hf, 0, rows, cols);
}

/* The rows [row0, row0 + rows) of every expert of a fused parameter. */
static void add_experts(writer *w, const char *layer, const char *hf_suffix, const char *part,
                        uint64_t row0, uint64_t rows, uint64_t all_rows, uint64_t cols)
{
    char hf[NAME_BYTES], base[NAME_BYTES], module[NAME_BYTES + 32];
    snprintf(hf, sizeof hf, "%s%s", layer, hf_suffix);
    const uint64_t n = (uint64_t)w->spec->n_expert;
    stored_name(w, base, layer);
    if (w->mlx) {
        snprintf(module, sizeof module, "%smlp.switch_mlp.%s", base, part);
        add_coded(w, module, hf, n, rows, cols);
        return;
    }
    for (uint64_t e = 0; e < n; e++) {
        snprintf(module, sizeof module, "%smlp.experts.%d.%s", base, (int)e, part);
        if (is_coded(w, hf, cols)) {
            add_coded(w, module, hf, 0, rows, cols);
            continue;
        }
        strcat(module, ".weight");
        stored *s = add(w, module, w->quantized ? "BF16" : "F32",
                        rows * cols * (w->quantized ? 2 : 4), 2, rows, cols, 0);
        for (uint64_t i = 0; i < rows * cols; i++)
            put_value(w, s, i, tiny_parameter(w->spec, hf, cols, (e * all_rows + row0) * cols + i));
    }
}

/* ---- the tensors of a model -------------------------------------------------------------- */

static void add_layer(writer *w, int i)
{
    const tiny_spec *s = w->spec;
    const uint64_t h = (uint64_t)s->n_embd, d = (uint64_t)s->head_dim, ff = (uint64_t)s->expert_ff;
    const bool hybrid = s->family != TINY_QWEN3MOE, next = s->family == TINY_QWEN3NEXT;
    char layer[64], hf[NAME_BYTES];
    snprintf(layer, sizeof layer, "model.layers.%d.", i);
#define HF(suffix) (snprintf(hf, sizeof hf, "%s%s", layer, suffix), hf)
    add_plain(w, HF("input_layernorm.weight"), 1, h, 0, 0);
    add_plain(w, HF("post_attention_layernorm.weight"), 1, h, 0, 0);
    if (!hybrid || (i + 1) % s->full_interval == 0) {
        const uint64_t q = d * (uint64_t)s->n_head, kv = d * (uint64_t)s->n_head_kv;
        add_matrix(w, HF("self_attn.q_proj.weight"), hybrid ? 2 * q : q, h);
        add_matrix(w, HF("self_attn.k_proj.weight"), kv, h);
        add_matrix(w, HF("self_attn.v_proj.weight"), kv, h);
        add_matrix(w, HF("self_attn.o_proj.weight"), h, q);
        add_plain(w, HF("self_attn.q_norm.weight"), 1, d, 0, 0);
        add_plain(w, HF("self_attn.k_norm.weight"), 1, d, 0, 0);
    } else {
        const uint64_t ds = (uint64_t)s->state_dim, nv = (uint64_t)s->n_value_head;
        const uint64_t key = ds * (uint64_t)s->n_key_head, value = ds * nv;
        if (next) {
            add_matrix(w, HF("linear_attn.in_proj_qkvz.weight"), 2 * key + 2 * value, h);
            add_matrix(w, HF("linear_attn.in_proj_ba.weight"), 2 * nv, h);
        } else {
            add_matrix(w, HF("linear_attn.in_proj_qkv.weight"), 2 * key + value, h);
            add_matrix(w, HF("linear_attn.in_proj_z.weight"), value, h);
            add_matrix(w, HF("linear_attn.in_proj_b.weight"), nv, h);
            add_matrix(w, HF("linear_attn.in_proj_a.weight"), nv, h);
        }
        add_plain(w, HF("linear_attn.conv1d.weight"), 3, 2 * key + value, 1, 4);
        add_plain(w, HF("linear_attn.dt_bias"), 1, nv, 0, 0);
        add_plain(w, HF("linear_attn.A_log"), 1, nv, 0, 0);
        add_plain(w, HF("linear_attn.norm.weight"), 1, ds, 0, 0);
        add_matrix(w, HF("linear_attn.out_proj.weight"), h, value);
    }
    add_matrix(w, HF("mlp.gate.weight"), (uint64_t)s->n_expert, h);
    if (w->quantized || w->opt->one_by_one) {
        add_experts(w, layer, "mlp.experts.gate_up_proj", "gate_proj", 0, ff, 2 * ff, h);
        add_experts(w, layer, "mlp.experts.gate_up_proj", "up_proj", ff, ff, 2 * ff, h);
        add_experts(w, layer, "mlp.experts.down_proj", "down_proj", 0, h, h, ff);
    } else {
        add_plain(w, HF("mlp.experts.gate_up_proj"), 3, (uint64_t)s->n_expert, 2 * ff, h);
        add_plain(w, HF("mlp.experts.down_proj"), 3, (uint64_t)s->n_expert, h, ff);
    }
    if (!hybrid) return;
    const uint64_t shared = (uint64_t)s->shared_ff;
    add_matrix(w, HF("mlp.shared_expert_gate.weight"), 1, h);
    add_matrix(w, HF("mlp.shared_expert.gate_proj.weight"), shared, h);
    add_matrix(w, HF("mlp.shared_expert.up_proj.weight"), shared, h);
    add_matrix(w, HF("mlp.shared_expert.down_proj.weight"), h, shared);
#undef HF
}

/* ---- files ------------------------------------------------------------------------------- */

static FILE *create(const char *directory, const char *name)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "wb");
    if (!f) fail_msg("cannot write %s", path);
    return f;
}

static void write_config(const writer *w, const char *directory)
{
    const tiny_spec *s = w->spec;
    static const char *const types[] = {"qwen3_5_moe_text", "qwen3_next", "qwen3_moe"};
    FILE *f = create(directory, "config.json");
    fprintf(f, "{");
    if (w->opt->multimodal) fprintf(f, "\"model_type\": \"qwen3_5_moe\", \"text_config\": {");
    fprintf(f,
            "\"model_type\": \"%s\", \"num_hidden_layers\": %d, \"hidden_size\": %d, "
            "\"max_position_embeddings\": 4096, \"num_attention_heads\": %d, "
            "\"num_key_value_heads\": %d, \"head_dim\": %d, \"rms_norm_eps\": %.9g, "
            "\"num_experts\": %d, \"num_experts_per_tok\": %d, \"moe_intermediate_size\": %d, "
            "\"norm_topk_prob\": true, \"hidden_act\": \"silu\"",
            types[s->family], s->n_layer, s->n_embd, s->n_head, s->n_head_kv, s->head_dim, s->eps,
            s->n_expert, s->n_expert_used, s->expert_ff);
    if (s->family == TINY_QWEN3MOE)
        fprintf(f, ", \"rope_theta\": %.1f", s->rope_base);
    else
        fprintf(f,
                ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": %.1f, "
                "\"partial_rotary_factor\": %.17g}, \"shared_expert_intermediate_size\": %d, "
                "\"full_attention_interval\": %d, \"linear_conv_kernel_dim\": 4, "
                "\"linear_key_head_dim\": %d, \"linear_value_head_dim\": %d, "
                "\"linear_num_key_heads\": %d, \"linear_num_value_heads\": %d",
                s->rope_base, (double)s->rope_dim / s->head_dim, s->shared_ff, s->full_interval,
                s->state_dim, s->state_dim, s->n_key_head, s->n_value_head);
    if (w->opt->multimodal) fprintf(f, "}");
    if (strncmp(w->opt->format, "mlx", 3) == 0)
        fprintf(f, ", \"quantization\": {\"group_size\": 64, \"bits\": %c}", w->opt->format[3]);
    if (strcmp(w->opt->format, "fp8") == 0)
        fprintf(f, ", \"quantization_config\": {\"quant_method\": \"fp8\", "
                   "\"weight_block_size\": [128, 128]}");
    if (strcmp(w->opt->format, "int4") == 0)
        fprintf(f, ", \"quantization_config\": {\"quant_method\": \"compressed-tensors\", "
                   "\"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 4, \"type\": "
                   "\"int\", \"symmetric\": true, \"group_size\": 32}}}}");
    fprintf(f, "}\n");
    assert_int_equal(fclose(f), 0);
}

/* Every n_shards-th tensor from `first` on. The header is padded by a varying number of spaces, so that data begin at odd
 * places too. */
static void write_shard(const writer *w, const char *directory, const char *name, int first,
                        int step)
{
    char *json = NULL;
    size_t len = 0;
    FILE *m = open_memstream(&json, &len);
    assert_non_null(m);
    uint64_t at = 0;
    fprintf(m, "{\"__metadata__\": {\"format\": \"pt\"}");
    for (int i = first; i < w->n; i += step) {
        const stored *s = &w->list[i];
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
    writer w = {.opt = opt, .spec = tiny_spec_find(opt->spec)};
    assert_non_null(w.spec);
    w.mlx = strncmp(opt->format, "mlx", 3) == 0 || strcmp(opt->format, "mxfp4") == 0;
    w.quantized = strcmp(opt->format, "plain") != 0;
    w.prefix = w.mlx             ? "language_model.model."
               : opt->multimodal ? "model.language_model."
                                 : "model.";
    w.list = calloc(TENSORS_MAX, sizeof *w.list);
    assert_non_null(w.list);
    const uint64_t h = (uint64_t)w.spec->n_embd, v = (uint64_t)w.spec->n_vocab;
    add_matrix(&w, "model.embed_tokens.weight", v, h);
    add_plain(&w, "model.norm.weight", 1, h, 0, 0);
    if (!w.spec->is_tied) add_matrix(&w, "lm_head.weight", v, h);
    for (int i = 0; i < w.spec->n_layer; i++) add_layer(&w, i);
    if (opt->multimodal) {
        add(&w, "model.visual.blocks.0.attn.qkv.weight", "BF16", 24, 2, 3, 4, 0);
        add(&w, "mtp.fc.weight", "BF16", 16, 2, 2, 4, 0);
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
