/* Which stored forms of a weight a directory is refused for: crafted headers of a tensor or two, opened as checkpoints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/checkpoint.h"

static char folder[] = "/tmp/fm_hf_storage_XXXXXX";

#define QWEN3                                                                                      \
    "{\"model_type\": \"qwen3_moe\", \"num_hidden_layers\": 1, \"hidden_size\": 64, "              \
    "\"num_attention_heads\": 2, \"head_dim\": 4, \"rms_norm_eps\": 1e-06, \"num_experts\": 2, "   \
    "\"num_experts_per_tok\": 1, \"moe_intermediate_size\": 2, \"norm_topk_prob\": true}"
#define GPT_OSS                                                                                    \
    "{\"model_type\": \"gpt_oss\", \"num_hidden_layers\": 1, \"hidden_size\": 64, "                \
    "\"num_attention_heads\": 2, \"head_dim\": 4, \"rms_norm_eps\": 1e-05, "                       \
    "\"num_local_experts\": 2, \"num_experts_per_tok\": 1, \"intermediate_size\": 64, "            \
    "\"sliding_window\": 8}"
#define QWEN35(interval)                                                                           \
    "{\"model_type\": \"qwen3_5_moe_text\", \"num_hidden_layers\": 1, \"hidden_size\": 64, "       \
    "\"num_attention_heads\": 2, \"head_dim\": 4, \"rms_norm_eps\": 1e-06, \"num_experts\": 2, "   \
    "\"num_experts_per_tok\": 1, \"moe_intermediate_size\": 2, "                                   \
    "\"shared_expert_intermediate_size\": 2, \"linear_conv_kernel_dim\": 4, "                      \
    "\"linear_key_head_dim\": 4, \"linear_value_head_dim\": 4, \"linear_num_key_heads\": 1, "      \
    "\"linear_num_value_heads\": 1, \"full_attention_interval\": " interval "}"
#define LAYER "\"model.layers.0."
#define AT(from, to) "\"data_offsets\": [" #from ", " #to "]}"

static void write_file(const char *name, const char *text, bool has_length)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    const uint64_t n = strlen(text);
    for (int i = 0; i < 8 && has_length; i++) fputc((int)(n >> (8 * i) & 0xff), f);
    fputs(text, f);
    for (int i = 0; i < 65536 && has_length; i++) fputc(0, f);
    fclose(f);
}

/* expect NULL: it opens. */
static void check(const char *config, const char *header, const char *expect)
{
    write_file("config.json", config, false);
    write_file("model.safetensors", header, true);
    fm_checkpoint *c = NULL;
    fm_error err = {0};
    const fm_status st = fm_checkpoint_open(&c, folder, &err);
    if (st == FM_OK) fm_checkpoint_close(c);
    if (!expect && st != FM_OK) fail_msg("%s", err.msg);
    if (expect && (st == FM_OK || !strstr(err.msg, expect)))
        fail_msg("status %d: \"%s\", expected \"%s\"", st, err.msg, expect);
}

/* Codes under the module's bare name would be read as a matrix of floats that lies by columns. */
static void codes_do_not_lie_by_columns(void **state)
{
    (void)state;
    static const char *const modules[] = {"down_proj", "gate_up_proj"};
    for (int i = 0; i < 2; i++) {
        char header[700];
        snprintf(header, sizeof header,
                 "{" LAYER "mlp.experts.%s\": {\"dtype\": \"U8\", \"shape\": [2, 64, 2, 16], "
                 AT(0, 4096) ", " LAYER "mlp.experts.%s_scales\": {\"dtype\": \"U8\", "
                 "\"shape\": [2, 64, 2], " AT(4096, 4352) "}",
                 modules[i], modules[i]);
        check(GPT_OSS, header, "lies by columns");
        snprintf(header, sizeof header,
                 "{" LAYER "mlp.experts.%s\": {\"dtype\": \"U32\", \"shape\": [2, 64, 8], "
                 AT(0, 4096) ", " LAYER "mlp.experts.%s.scales\": {\"dtype\": \"U8\", "
                 "\"shape\": [2, 64, 2], " AT(4096, 4352) "}",
                 modules[i], modules[i]);
        check(GPT_OSS, header, "lies by columns");
        snprintf(header, sizeof header,
                 "{" LAYER "mlp.experts.%s_blocks\": {\"dtype\": \"U8\", \"shape\": [2, 64, 2, 16], "
                 AT(0, 4096) ", " LAYER "mlp.experts.%s_scales\": {\"dtype\": \"U8\", "
                 "\"shape\": [2, 64, 2], " AT(4096, 4352) "}",
                 modules[i], modules[i]);
        check(GPT_OSS, header, NULL);
        snprintf(header, sizeof header,
                 "{" LAYER "mlp.experts.%s\": {\"dtype\": \"BF16\", \"shape\": [2, 64, 64], "
                 AT(0, 16384) "}",
                 modules[i]);
        check(GPT_OSS, header, NULL);
    }
}

/* Codes and scales of these are whole without biases, so a bias would be left out silently. */
static void only_mlx_has_biases(void **state)
{
    (void)state;
    static const struct {
        const char *codes, *scales, *biases; /* entries without names */
        const char *codes_name, *scales_name;
    } forms[] = {
        {"{\"dtype\": \"I32\", \"shape\": [8, 8], " AT(0, 256),
         "{\"dtype\": \"BF16\", \"shape\": [8, 2], " AT(256, 288),
         "{\"dtype\": \"BF16\", \"shape\": [8, 2], " AT(288, 320), "weight_packed",
         "weight_scale"},
        {"{\"dtype\": \"U8\", \"shape\": [8, 2, 16], " AT(0, 256),
         "{\"dtype\": \"U8\", \"shape\": [8, 2], " AT(256, 272),
         "{\"dtype\": \"U8\", \"shape\": [8, 2], " AT(272, 288), "weight", "scales"},
        {"{\"dtype\": \"F8_E4M3\", \"shape\": [8, 128], " AT(0, 1024),
         "{\"dtype\": \"F32\", \"shape\": [1, 1], " AT(1024, 1028),
         "{\"dtype\": \"F32\", \"shape\": [1, 1], " AT(1028, 1032), "weight",
         "weight_scale_inv"},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        char header[900];
        snprintf(header, sizeof header,
                 "{" LAYER "self_attn.q_proj.%s\": %s, " LAYER "self_attn.q_proj.%s\": %s}",
                 forms[i].codes_name, forms[i].codes, forms[i].scales_name, forms[i].scales);
        check(QWEN3, header, NULL);
        snprintf(header, sizeof header,
                 "{" LAYER "self_attn.q_proj.%s\": %s, " LAYER "self_attn.q_proj.%s\": %s, " LAYER
                 "self_attn.q_proj.biases\": %s}",
                 forms[i].codes_name, forms[i].codes, forms[i].scales_name, forms[i].scales,
                 forms[i].biases);
        check(QWEN3, header, "q_proj.biases of shape");
    }
}

static void one_experts_matrix_has_two_dimensions(void **state)
{
    (void)state;
    check(QWEN3,
          "{" LAYER "mlp.experts.0.up_proj.weight\": {\"dtype\": \"BF16\", \"shape\": [2, 64], "
          AT(0, 256) ", " LAYER "mlp.experts.1.up_proj.weight\": {\"dtype\": \"BF16\", "
          "\"shape\": [2, 64], " AT(256, 512) "}",
          NULL);
    check(QWEN3,
          "{" LAYER "mlp.experts.0.up_proj.weight\": {\"dtype\": \"BF16\", \"shape\": [2, 2, 64], "
          AT(0, 512) ", " LAYER "mlp.experts.1.up_proj.weight\": {\"dtype\": \"BF16\", "
          "\"shape\": [2, 2, 64], " AT(512, 1024) "}",
          "experts.0.up_proj.weight has three dimensions");
}

/* The number is cast, which outside the range of the type means nothing. */
static void a_hostile_interval_is_refused(void **state)
{
    (void)state;
    static const char *const configs[] = {QWEN35("-1"), QWEN35("1e300"), QWEN35("-1e300"),
                                          QWEN35("2.5"), QWEN35("65537")};
    const char *const header = "{\"model.norm.weight\": {\"dtype\": \"BF16\", \"shape\": [64], "
                               AT(0, 128) "}";
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++)
        check(configs[i], header, "full_attention_interval is");
    check(QWEN35("4"), header, NULL);
    check(QWEN35("null"), header, NULL);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char path[200];
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_do_not_lie_by_columns),
        cmocka_unit_test(only_mlx_has_biases),
        cmocka_unit_test(one_experts_matrix_has_two_dimensions),
        cmocka_unit_test(a_hostile_interval_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
