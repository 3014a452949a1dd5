/* Directories of a few bytes that no writer of models makes: what their headers claim costs no memory, reads nothing
 * outside a table, and is refused with one message that a terminal can be shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/checkpoint.h"
#include "format/safetensors.h"

static char directory[512];

static int make_directory(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%.400s/fm_hf_tensor_XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(directory) ? 0 : 1;
}

static const char *in_directory(const char *name)
{
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(in_directory("config.json"));
    unlink(in_directory("model.safetensors"));
    return rmdir(directory);
}

static void write_config(int n_expert)
{
    FILE *f = fopen(in_directory("config.json"), "wb");
    assert_non_null(f);
    fprintf(
        f,
        "{\"model_type\": \"qwen3_moe\", \"num_hidden_layers\": 2, \"hidden_size\": 64, "
        "\"max_position_embeddings\": 64, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, "
        "\"head_dim\": 32, \"rms_norm_eps\": 1e-6, \"num_experts_per_tok\": 1, "
        "\"hidden_act\": \"silu\", \"num_experts\": %d, \"moe_intermediate_size\": 32, "
        "\"norm_topk_prob\": true, \"rope_theta\": 10000.0}",
        n_expert);
    assert_int_equal(fclose(f), 0);
}

/* The header and n_data zeros behind it. */
static void write_header(const char *header, int n_data)
{
    FILE *f = fopen(in_directory("model.safetensors"), "wb");
    assert_non_null(f);
    const size_t n = strlen(header);
    for (int i = 0; i < 8; i++) fputc((int)((uint64_t)n >> (8 * i) & 0xff), f);
    fwrite(header, 1, n, f);
    for (int i = 0; i < n_data; i++) fputc(0, f);
    assert_int_equal(fclose(f), 0);
}

static void refused(const char *expect)
{
    fm_checkpoint *c = NULL;
    fm_error err = {0};
    const fm_status st = fm_checkpoint_open(&c, directory, &err);
    if (st == FM_OK || !strstr(err.msg, expect))
        fail_msg("status %d: \"%s\", expected \"%s\"", st, err.msg, expect);
    for (const char *p = err.msg; *p; p++) assert_true(*p >= 0x20 && *p != 0x7f);
}

/* One dimension less than one is none: not gpt-oss's blocks of bytes. */
static void scales_without_dimensions_do_not_fit(void **state)
{
    (void)state;
    write_config(4);
    write_header(
        "{\"model.layers.0.self_attn.q_proj.weight\": {\"dtype\": \"U8\", \"shape\": [16], "
        "\"data_offsets\": [0, 16]}, "
        "\"model.layers.0.self_attn.q_proj.weight_scale\": {\"dtype\": \"F32\", "
        "\"shape\": [], \"data_offsets\": [16, 20]}}",
        20);
    refused("of shape [] and type F32 does not fit");
}

static void experts_that_are_not_there_take_no_memory(void **state)
{
    (void)state;
    static const char header[] =
        "{\"model.layers.0.mlp.experts.0.up_proj.weight\": {\"dtype\": \"F32\", \"shape\": [1], "
        "\"data_offsets\": [0, 4]}}";
    write_header(header, 4);
    write_config(65536);
    refused("blk.0.ffn_up_exps.weight of 65536 experts, but only 1 tensors are stored");
    write_config(3);
    refused("expert 1 of 3 is missing");
}

static void names_in_messages_are_harmless(void **state)
{
    (void)state;
    write_config(4);
    write_header("{\"model.\\u001b]0;title\\u0007\\u009b2J\\u007f\": {\"dtype\": \"F32\", "
                 "\"shape\": [1], \"data_offsets\": [0, 4]}}",
                 4);
    refused("tensor model.?]0;title???2J? is not known");
    write_header("{\"x\\u001b[2J\": {\"dtype\": \"\\u001b[2J\", \"shape\": [1], "
                 "\"data_offsets\": [0, 4]}}",
                 4);
    refused("tensor x?[2J has the unknown dtype \"?[2J\"");
}

/* The process's own memory is a regular file of no bytes whose first page cannot be read. */
static void a_read_error_is_not_a_short_file(void **state)
{
    (void)state;
    static const char path[] = "/proc/self/mem";
    FILE *f = fopen(path, "rb");
    const bool is_usable = f && fgetc(f) == EOF && ferror(f);
    if (f) fclose(f);
    if (!is_usable) {
        print_message("skipped: %s does not give a read error\n", path);
        skip();
    }
    fm_raw_set set = {0};
    fm_file_mark mark;
    fm_error err = {0};
    assert_int_equal(fm_safetensors_read(&set, 0, path, &mark, &err), FM_E_IO);
    assert_int_not_equal(err.os_errno, 0);
    fm_raw_set_deinit(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales_without_dimensions_do_not_fit),
        cmocka_unit_test(experts_that_are_not_there_take_no_memory),
        cmocka_unit_test(names_in_messages_are_harmless),
        cmocka_unit_test(a_read_error_is_not_a_short_file),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
