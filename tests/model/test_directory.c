/* Hugging Face directories: plain ones against the logits that tests/vectors/model has for the same parameters, quantized
 * ones against transformers on the decoded weights (tests/vectors/directory), streamed against resident bit for bit, and
 * one clear message for each damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/directory.h"
#include "support/fixture.h"
#include "support/logits.h"

enum { N_TOKENS = 200 };
#define FLOAT_TOLERANCE 1e-3

static const char *write_named(const char *name, const directory_options *opt)
{
    const char *path = scratch_path(name);
    if (access(path, R_OK) != 0) directory_write(path, opt);
    return path;
}

static void check(const char *directory, const char *spec, const char *logits, const char *kernels,
                  int32_t batch, double tolerance)
{
    npy_array ref;
    int32_t ids[N_TOKENS];
    if (!npy_load(&ref, source_path(logits))) fail_msg("cannot read %s", logits);
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find(spec));
    const eval_setup s = {.batch = batch, .kv = FM_KV_F32, .kernels = kernels};
    float *ours = eval_logits(directory, ids, (size_t)ref.rows, &s, NULL, NULL);
    const logits_comparison c = logits_compare(ours, ref.data, ref.rows, ref.cols);
    const double same = 1 - (double)c.other_top / (double)ref.rows;
    print_message("%-14s %-9s batch %-3d row error %.1e, same best token %.3f\n",
                  strrchr(directory, '/') + 1, kernels ? kernels : "best", batch, c.worst, same);
    if (!(c.worst <= tolerance) || same < 0.98)
        fail_msg("%s: row error %g, same best token %g", directory, c.worst, same);
    free(ours);
    npy_free(&ref);
}

static void plain_directories_have_the_logits_of_transformers(void **state)
{
    (void)state;
    static const directory_options all[] = {
        {.spec = "qwen35moe-a", .format = "plain"},
        {.spec = "qwen35moe-b",
         .format = "plain",
         .one_by_one = true,
         .n_shards = 3,
         .multimodal = true},
        {.spec = "qwen35moe-c", .format = "plain", .multimodal = true},
        {.spec = "qwen35moe-e", .format = "plain", .draft_unlike = true},
        {.spec = "qwen3next-a", .format = "plain", .one_by_one = true},
        {.spec = "qwen3next-b", .format = "plain", .n_shards = 2},
        {.spec = "qwen3next-c", .format = "plain"},
        {.spec = "qwen3next-d", .format = "plain"},
        {.spec = "qwen3next-e", .format = "plain", .one_by_one = true},
        {.spec = "qwen3moe-a", .format = "plain", .one_by_one = true, .n_shards = 5},
        {.spec = "qwen3moe-b", .format = "plain"},
        {.spec = "qwen3moe-c", .format = "plain"},
        {.spec = "glm4moe-a", .format = "plain", .one_by_one = true, .n_shards = 2},
        {.spec = "glm4moe-b", .format = "plain", .multimodal = true},
        {.spec = "gpt-oss-a", .format = "plain"},
        {.spec = "gpt-oss-a", .format = "plain", .one_by_one = true},
        {.spec = "gpt-oss-b", .format = "plain", .n_shards = 3},
        {.spec = "gpt-oss-c", .format = "plain"},
        {.spec = "deepseek2-a", .format = "plain", .n_shards = 2},
        {.spec = "deepseek2-b", .format = "plain", .one_by_one = true, .multimodal = true},
        {.spec = "deepseek2-c", .format = "plain", .one_by_one = true},
        {.spec = "deepseek2-c", .format = "plain", .model_type = "glm4_moe_lite"},
        {.spec = "deepseek32-a", .format = "plain", .one_by_one = true, .n_shards = 3},
        {.spec = "deepseek32-b", .format = "plain"},
        {.spec = "glm-dsa-a", .format = "plain"},
        {.spec = "glm-dsa-b", .format = "plain", .one_by_one = true},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char logits[160], name[64];
        snprintf(logits, sizeof logits, "tests/vectors/model/%s-F32.npy", all[i].spec);
        snprintf(name, sizeof name, "%s%s", all[i].model_type ? all[i].model_type : all[i].spec,
                 all[i].one_by_one ? "-apart" : "");
        const char *path = write_named(name, &all[i]);
        check(path, all[i].spec, logits, NULL, 1, FLOAT_TOLERANCE);
        check(path, all[i].spec, logits, NULL, 64, FLOAT_TOLERANCE);
    }
}

static const directory_options quantized[] = {
    {.spec = "qwen35moe-s", .format = "mlx4"},
    {.spec = "qwen3next-s", .format = "mlx2"},
    {.spec = "qwen35moe-s", .format = "fp8", .n_shards = 2, .multimodal = true},
    {.spec = "qwen3next-s", .format = "int4"},
    {.spec = "qwen3moe-s", .format = "mxfp4", .n_shards = 3},
    {.spec = "qwen3moe-s", .format = "fp8", .n_shards = 2},
    {.spec = "qwen3next-d", .format = "fp8", .n_shards = 2},
    {.spec = "deepseek2-s", .format = "int4", .multimodal = true},
    {.spec = "deepseek32-q", .format = "fp8", .n_shards = 2},
    {.spec = "glm-dsa-q", .format = "fp8"},
    {.spec = "glm4moe-q", .format = "mlx4"},
    {.spec = "glm4moe-q", .format = "fp8", .multimodal = true},
    {.spec = "glm4moe-q", .format = "fp8-row", .n_shards = 2},
    {.spec = "gpt-oss-q", .format = "blocks", .n_shards = 2},
    {.spec = "gpt-oss-q", .format = "mxfp4"},
    {.spec = "deepseek2-s", .format = "mlx4", .multimodal = true},
    {.spec = "deepseek2-q", .format = "mlx4", .n_shards = 3},
    {.spec = "deepseek32-q", .format = "mxfp4"},
    {.spec = "glm-dsa-q", .format = "mlx8"},
};
enum { N_QUANTIZED = sizeof quantized / sizeof quantized[0] };

static const char *quantized_directory(int i)
{
    char name[64];
    snprintf(name, sizeof name, "%s-%s", quantized[i].spec, quantized[i].format);
    return write_named(name, &quantized[i]);
}

static void quantized_directories_agree_with_transformers_on_decoded_weights(void **state)
{
    (void)state;
    for (int i = 0; i < N_QUANTIZED; i++) {
        char logits[160];
        snprintf(logits, sizeof logits, "tests/vectors/directory/%s-%s.npy", quantized[i].spec,
                 quantized[i].format);
        const char *path = quantized_directory(i);
        check(path, quantized[i].spec, logits, "reference", 64, FLOAT_TOLERANCE);
        check(path, quantized[i].spec, logits, NULL, 64, 1e-2);
        check(path, quantized[i].spec, logits, NULL, 1, 1e-2);
    }
}

static void streamed_equals_resident_bit_for_bit(void **state)
{
    (void)state;
    for (int i = 0; i < N_QUANTIZED + 1; i++) {
        const directory_options plain = {.spec = "qwen3next-b", .format = "plain", .n_shards = 2};
        const char *spec = i < N_QUANTIZED ? quantized[i].spec : plain.spec;
        const char *path =
            i < N_QUANTIZED ? quantized_directory(i) : write_named("qwen3next-b", &plain);
        int32_t ids[96];
        tiny_token_ids(ids, 96, tiny_spec_find(spec));
        eval_setup s = {.batch = 16, .ctx = 96};
        fm_plan plan;
        fm_stats stats;
        float *resident = eval_logits(path, ids, 96, &s, &stats, &plan);
        const uint64_t load_bytes = stats.bytes_read;
        s.memory = plan.min_memory_bytes;
        float *streamed = eval_logits(path, ids, 96, &s, &stats, &plan);
        assert_true(plan.expert_slots < plan.experts_total);
        assert_true(stats.bytes_read > load_bytes);
        if (memcmp(resident, streamed, 96 * (size_t)tiny_spec_find(spec)->n_vocab * 4) != 0)
            fail_msg("%s: other bits when streamed", path);
        free(resident);
        free(streamed);
    }
}

/* ---- text -------------------------------------------------------------------------------- */

static void keep_warning(void *user, fm_log_level level, const char *line)
{
    if (level == FM_LOG_WARN) snprintf(user, 512, "%s", line);
}

/* Opens, evaluates the first ids, and says which warning there was and whether there is a tokenizer. */
static float *logits_and_warning(const char *directory, char warning[512], bool *has_tokenizer)
{
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = directory;
    o.n_threads = 2;
    o.n_ctx = 64;
    o.log = keep_warning;
    o.log_user = warning;
    warning[0] = 0;
    fm_engine *e;
    fm_session *s;
    fm_error err = {0};
    if (fm_engine_open(&e, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    if (fm_session_create(&s, e, &err) != FM_OK) fail_msg("%s", err.msg);
    const int32_t ids[] = {1, 2, 3};
    const fm_eval_options eo = {.struct_size = sizeof eo};
    if (fm_session_eval(s, ids, 3, &eo, &err) != FM_OK) fail_msg("%s", err.msg);
    fm_model_info info;
    fm_engine_model_info(e, &info);
    float *out = malloc((size_t)info.n_vocab * sizeof *out);
    memcpy(out, fm_session_logits(s), (size_t)info.n_vocab * sizeof *out);
    *has_tokenizer = fm_engine_tokenizer(e) != NULL;
    fm_session_destroy(s);
    fm_engine_close(e);
    return out;
}

static void write_text(const char *directory, const char *name, const char *text)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "wb");
    assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void a_damaged_tokenizer_leaves_logits_and_a_warning(void **state)
{
    (void)state;
    const directory_options opt = {.spec = "qwen3moe-b", .format = "plain"};
    const char *const dir = strdup(write_named("damaged-text", &opt));
    char command[1200], warning[512];
    snprintf(command, sizeof command, "cp '%s'/* '%s'", source_path("tests/vectors/tiktoken"), dir);
    assert_int_equal(system(command), 0);
    static const struct {
        const char *name, *text, *expect;
    } cases[] = {
        {"tokenizer_config.json", "{\"add_bos_token\": ", "tokenizer_config.json: line 1"},
        {"tokenizer_config.json",
         "{\"add_bos_token\": true, \"bos_token\": \"<odd>\", \"added_tokens_decoder\": {}}",
         "tokenizer_config.json: bos_token is \"<odd>\", which is none of the tokenizer's"},
        {"generation_config.json", "{", "generation_config.json: line 1"},
        {"tokenizer.json", "{\"model\": {}", "tokenizer.json"},
    };
    bool has_tokenizer;
    float *const good = logits_and_warning(dir, warning, &has_tokenizer);
    if (!has_tokenizer) fail_msg("%s", warning);
    const size_t n_vocab = (size_t)tiny_spec_find(opt.spec)->n_vocab;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(system(command), 0);
        write_text(dir, cases[i].name, cases[i].text);
        float *const odd = logits_and_warning(dir, warning, &has_tokenizer);
        if (has_tokenizer || !strstr(warning, cases[i].expect))
            fail_msg("\"%s\", expected \"%s\"", warning, cases[i].expect);
        assert_memory_equal(good, odd, n_vocab * sizeof *good);
        free(odd);
        fm_engine_options o;
        fm_engine_options_init(&o);
        o.model_path = dir;
        o.need_tokenizer = true;
        fm_engine *e;
        fm_error err = {0};
        assert_int_not_equal(fm_engine_open(&e, &o, &err), FM_OK);
        if (!strstr(err.msg, cases[i].expect)) fail_msg("%s", err.msg);
    }
    free(good);
    free((void *)(uintptr_t)dir);
}

/* bench probes these: config.json is none of them, and the last shard is. */
static void the_files_of_a_directory_are_its_shards(void **state)
{
    (void)state;
    const directory_options opt = {.spec = "qwen3moe-b", .format = "plain", .n_shards = 3};
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = write_named("files", &opt);
    o.plan_only = true;
    fm_engine *e;
    fm_error err = {0};
    if (fm_engine_open(&e, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    fm_model_info info;
    fm_engine_model_info(e, &info);
    assert_int_equal(info.n_shard, 3);
    for (int32_t i = 0; i < info.n_shard; i++) {
        char expected[64];
        uint64_t bytes = 0;
        struct stat file;
        const char *path = fm_engine_file(e, i, &bytes);
        snprintf(expected, sizeof expected, "model-%05d-of-00003.safetensors", (int)i + 1);
        assert_string_equal(strrchr(path, '/') + 1, expected);
        assert_int_equal(stat(path, &file), 0);
        assert_int_equal(bytes, file.st_size);
    }
    fm_engine_close(e);
}

/* ---- damage ------------------------------------------------------------------------------ */

static void in_directory(char out[1200], const char *directory, const char *name)
{
    snprintf(out, 1200, "%s/%s", directory, name);
}

static void refused(const char *directory, const char *expect)
{
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = directory;
    o.plan_only = true;
    fm_engine *e;
    fm_error err = {0};
    const fm_status st = fm_engine_open(&e, &o, &err);
    if (st == FM_OK || !strstr(err.msg, expect))
        fail_msg("status %d: \"%s\", expected \"%s\"", st, err.msg, expect);
    assert_null(strchr(err.msg, '\n'));
}

static void damage_is_refused_with_one_message(void **state)
{
    (void)state;
    const directory_options opt = {.spec = "qwen3moe-s", .format = "fp8", .n_shards = 2};
    const char *const dir = strdup(write_named("damage", &opt));
    static const struct {
        const char *file, *from, *to, *expect;
    } cases[] = {
        {"model.safetensors.index.json", "\"model.norm.weight\"", "\"model.morn.weight\"",
         "tensor model.morn.weight is to be in"},
        {"model.safetensors.index.json", "model-00002-of", "model-00009-of",
         "shard 2 of 3 is missing"},
        {"model.safetensors.index.json", "model-00002-of", "../el-00002-of",
         "expected a file name"},
        {"model.safetensors.index.json", "weight_map", "weight_mop", "weight_map: expected"},
        {"model-00001-of-00002.safetensors", "\"dtype\": \"BF16\"", "\"dtype\": \"BG16\"",
         "unknown dtype"},
        {"model-00001-of-00002.safetensors", "\"dtype\": \"BF16\"", "\"dtype\": \"F32\" ",
         "but its shape in F32 takes"},
        {"model-00001-of-00002.safetensors", "\"dtype\": \"F8_E4M3\"", "\"dtype\": \"I8\"     ",
         "does not fit"},
        {"model-00001-of-00002.safetensors", "__metadata__\": {", "__metadata__\": [", "header:"},
        {"model-00001-of-00002.safetensors", "\"data_offsets\": [0", "\"data_offsets\": [9",
         "bytes, but its shape"},
        {"config.json", "\"num_experts\": 8", "\"num_experts\": 9", "is missing"},
        {"config.json", "\"num_experts\": 8", "\"num_experts\": 7", "but there are 7 experts"},
        {"config.json", "\"hidden_size\": 256", "\"hidden_size\": 257", "expected [257"},
        {"config.json", "\"hidden_size\": 256", "\"hidden_size\": -56", "expected an integer"},
        {"config.json", "\"qwen3_moe\"", "\"qwen9_moe\"",
         "model_type \"qwen9_moe\" is not supported"},
        {"config.json", "\"norm_topk_prob\": true", "\"norm_topk_prob\": 0   ", "norm_topk_prob"},
        {"config.json", "{\"model_type\"", "[\"model_type\"", "config.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[1200];
        size_t n;
        in_directory(path, dir, cases[i].file);
        char *before = file_replace(path, cases[i].from, cases[i].to, &n);
        refused(dir, cases[i].expect);
        file_restore(path, before, n);
    }
    char path[1200];
    size_t n;
    in_directory(path, dir, "model-00002-of-00002.safetensors");
    char *before = file_replace(path, "{", "{", &n);
    assert_int_equal(truncate(path, 100), 0);
    refused(dir, "the header claims");
    assert_int_equal(truncate(path, 5), 0);
    refused(dir, "too short");
    FILE *f = fopen(path, "wb");
    fwrite("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 1, 10, f);
    fclose(f);
    refused(dir, "the header claims 9223372036854775807 bytes");
    f = fopen(path, "wb");
    fputs("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", f);
    fclose(f);
    refused(dir, "a Git LFS pointer");
    file_restore(path, before, n);
    assert_int_equal(truncate(path, (off_t)n - 1), 0);
    refused(dir, "truncated");
    assert_int_equal(unlink(path), 0);
    refused(dir, "shard 2 of 2 is missing");
    in_directory(path, dir, "config.json");
    assert_int_equal(unlink(path), 0);
    refused(dir, "has no config.json");
    for (int i = 0; i < 3; i++) { /* what most downloads leave: the first file is the one to give */
        static const char *const names[] = {"m-00002-of-00002.gguf", "m-00001-of-00002.gguf",
                                            "x.gg"};
        in_directory(path, dir, names[i]);
        f = fopen(path, "wb");
        fclose(f);
    }
    refused(dir, "holds a GGUF file");
    refused(dir, "/m-00001-of-00002.gguf itself");
    free((void *)(uintptr_t)dir);
}

static void damage_of_sparse_attention_is_refused(void **state)
{
    (void)state;
    const directory_options opt = {.spec = "glm-dsa-q", .format = "fp8"};
    const char *const dir = strdup(write_named("damage-sparse", &opt));
    static const struct {
        const char *file, *from, *to, *expect;
    } cases[] = {
        {"config.json", "\"index_topk\": 40", "\"index_tapk\": 40", "index_topk is missing"},
        {"config.json", "\"index_topk\": 40", "\"index_topk\":  0", "top_k is 0, expected"},
        {"config.json", "\"kv_lora_rank\": 256", "\"kv_lora_rank\": 255", "expected [256, 287"},
        {"config.json", "\"qk_nope_head_dim\": 48", "\"qk_nope_head_dim\": -8",
         "qk_nope_head_dim -8"},
        {"config.json", "\"scoring_func\": \"sigmoid\"", "\"scoring_func\": \"softmax\"",
         "scoring_func is \"softmax\""},
        {"config.json", "\"first_k_dense_replace\"", "\"first_k_dense_replaca\"",
         "first_k_dense_replace is missing"},
        {"model.safetensors", "q_b_proj.weight_scale_inv\": {\"dtype\": \"F32\", \"shape\": [3, 2]",
         "q_b_proj.weight_scale_inv\": {\"dtype\": \"F32\", \"shape\": [2, 3]", "[2, 3]"},
        {"model.safetensors", "indexer.wq_b.weight\"", "indexer.wq_c.weight\"",
         "is not known for model_type glm_moe_dsa"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[1200];
        size_t n;
        in_directory(path, dir, cases[i].file);
        char *before = file_replace(path, cases[i].from, cases[i].to, &n);
        refused(dir, cases[i].expect);
        file_restore(path, before, n);
    }
    free((void *)(uintptr_t)dir);
}

/* What the tables of glm4_moe and gpt_oss check beyond that, and mlx-lm's halves of kv_b_proj. */
static void damage_in_glm_gptoss_and_mlx_is_refused(void **state)
{
    (void)state;
    static const directory_options glm = {.spec = "glm4moe-q", .format = "fp8-row", .n_shards = 2},
                                   oss = {.spec = "gpt-oss-q", .format = "blocks"},
                                   mlx = {.spec = "glm-dsa-q", .format = "mlx8"};
    static const struct {
        const directory_options *in;
        const char *file, *from, *to, *expect;
    } cases[] = {
        {&glm, "config.json", "\"use_qk_norm\": true", "\"use_qk_norm\": 1234",
         "use_qk_norm: expected true or false"},
        {&glm, "config.json", "\"silu\"", "\"gelu\"", "hidden_act is \"gelu\" and not \"silu\""},
        {&glm, "config.json", "\"first_k_dense_replace\": 1", "\"first_k_dense_replace\": 0",
         "is missing"},
        {&glm, "config.json", "\"num_bits\": 8, \"type\": \"float\", \"symmetric\"",
         "\"num_bits\": 8, \"type\": \"int\"  , \"symmetric\"", "nor floats of 8"},
        {&glm, "model-00001-of-00002.safetensors", "_scale\": {\"dtype\": \"BF16\"",
         "_scale\": {\"dtype\": \"I16\" ", "does not fit"},
        {&oss, "config.json", "\"sliding_attention\"", "\"chunked_attention\"",
         "layer_types is not"},
        {&oss, "config.json", "\"attention_bias\": true", "\"attention_bias\":false",
         "attention_bias is false"},
        {&oss, "config.json", "\"num_local_experts\": 12", "\"num_local_experts\": 13",
         "expected [160, 13"},
        {&oss, "model.safetensors", "down_proj_scales", "down_proj_scalez",
         "is not known for model_type gpt_oss"},
        {&oss, "model.safetensors", "gate_up_proj_bias", "gate_up_proj_bean",
         "is not known for model_type gpt_oss"},
        {&oss, "model.safetensors", "self_attn.sinks\"", "self_attn.sinkz\"", "is not known"},
        {&mlx, "config.json", "\"v_head_dim\": 96", "\"v_head_dim\": 95", "expected [256, 95, 4]"},
        {&mlx, "config.json", "\"qk_nope_head_dim\": 48", "\"qk_nope_head_dim\": 47",
         "expected [256, 31"},
        {&mlx, "model.safetensors", "self_attn.unembed_out.biases", "self_attn.unembed_oot.biases",
         "is not known for model_type glm_moe_dsa"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[64], path[1200];
        size_t n;
        snprintf(name, sizeof name, "%s-damage", cases[i].in->spec);
        const char *const dir = strdup(write_named(name, cases[i].in));
        in_directory(path, dir, cases[i].file);
        char *before = file_replace(path, cases[i].from, cases[i].to, &n);
        refused(dir, cases[i].expect);
        file_restore(path, before, n);
        free((void *)(uintptr_t)dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_directories_have_the_logits_of_transformers),
        cmocka_unit_test(quantized_directories_agree_with_transformers_on_decoded_weights),
        cmocka_unit_test(streamed_equals_resident_bit_for_bit),
        cmocka_unit_test(a_damaged_tokenizer_leaves_logits_and_a_warning),
        cmocka_unit_test(the_files_of_a_directory_are_its_shards),
        cmocka_unit_test(damage_is_refused_with_one_message),
        cmocka_unit_test(damage_in_glm_gptoss_and_mlx_is_refused),
        cmocka_unit_test(damage_of_sparse_attention_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
