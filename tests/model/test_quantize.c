/* fm_quantize(): tiny models of every family and every storage format of directories become GGUF files whose logits are
 * those of transformers; every type runs, streamed as in memory, and stays as near as its bits allow; the same bytes from
 * any number of threads. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/checkpoint.h"
#include "support/directory.h"
#include "support/fixture.h"
#include "support/logits.h"

enum { N_TOKENS = 64 };

static void remember(void *user, fm_log_level level, const char *line)
{
    (void)level;
    const size_t n = strlen(user);
    snprintf((char *)user + n, 4000 - n, "%s\n", line);
}

static fm_quantize_result quantize(const char *from, const char *to, const char *type,
                                   const char *experts, int threads, char *said)
{
    fm_error err = {0};
    fm_quantize_result r;
    const fm_quantize_options o = {.struct_size = sizeof o,
                                   .source = from,
                                   .destination = to,
                                   .type = type,
                                   .expert_type = experts,
                                   .n_threads = threads,
                                   .log = said ? remember : NULL,
                                   .log_user = said};
    unlink(to);
    if (fm_quantize(&o, &r, &err) != FM_OK) fail_msg("%s to %s: %s", from, type, err.msg);
    return r;
}

static float *logits_of(const char *model, const char *spec, int64_t n)
{
    int32_t ids[256];
    tiny_token_ids(ids, (size_t)n, tiny_spec_find(spec));
    const eval_setup s = {.batch = 64, .kv = FM_KV_F32, .kernels = "reference"};
    return eval_logits(model, ids, (size_t)n, &s, NULL, NULL);
}

/* With everything in memory and with as little as is legal, which reads experts again in every pass, the logits have
 * the same bits. */
static void check_streamed(const char *model, const char *spec)
{
    int32_t ids[N_TOKENS];
    const tiny_spec *ts = tiny_spec_find(spec);
    tiny_token_ids(ids, N_TOKENS, ts);
    eval_setup s = {.memory = UINT64_C(1) << 30, .batch = 16};
    fm_plan plan;
    fm_stats resident, streamed;
    float *want = eval_logits(model, ids, N_TOKENS, &s, &resident, &plan);
    assert_int_equal(plan.expert_slots, plan.experts_total);
    s.memory = plan.min_memory_bytes;
    float *got = eval_logits(model, ids, N_TOKENS, &s, &streamed, NULL);
    assert_true(streamed.expert_misses > resident.expert_misses);
    for (int i = 0; i < N_TOKENS * ts->n_vocab; i++)
        if (!isfinite(want[i]) || memcmp(&want[i], &got[i], sizeof *got) != 0)
            fail_msg("%s: token %d, logit %d: %.9g streamed, %.9g resident", model, i / ts->n_vocab,
                     i % ts->n_vocab, (double)got[i], (double)want[i]);
    free(want);
    free(got);
}

/* Largest error of a row over its largest magnitude, in the first n rows of a stored reference. */
static void check_reference(const char *model, const char *spec, const char *reference)
{
    npy_array ref;
    if (!npy_load(&ref, source_path(reference))) fail_msg("cannot read %s", reference);
    const int64_t n = ref.rows < N_TOKENS ? ref.rows : N_TOKENS;
    float *ours = logits_of(model, spec, n);
    const double worst = logits_compare(ours, ref.data, n, ref.cols).worst;
    print_message("%-24s row error %.1e\n", strrchr(model, '/') + 1, worst);
    if (!(worst <= 1e-3)) fail_msg("%s: row error %g against %s", model, worst, reference);
    free(ours);
    npy_free(&ref);
}

static void directories_become_files_with_the_logits_of_transformers(void **state)
{
    (void)state;
    static const directory_options all[] = {
        {.spec = "qwen35moe-a", .format = "plain"},
        {.spec = "qwen35moe-b",
         .format = "plain",
         .one_by_one = true,
         .n_shards = 3,
         .multimodal = true},
        {.spec = "qwen35moe-e", .format = "plain", .draft_unlike = true},
        {.spec = "qwen3next-a", .format = "plain", .one_by_one = true},
        {.spec = "qwen3next-e", .format = "plain", .one_by_one = true},
        {.spec = "qwen3moe-b", .format = "plain"},
        {.spec = "glm4moe-b", .format = "plain", .multimodal = true},
        {.spec = "gpt-oss-a", .format = "plain"},
        {.spec = "gpt-oss-b", .format = "plain", .one_by_one = true},
        {.spec = "qwen35moe-s", .format = "mlx4"},
        {.spec = "qwen3next-s", .format = "mlx2"},
        {.spec = "qwen35moe-s", .format = "fp8", .n_shards = 2, .multimodal = true},
        {.spec = "qwen3next-s", .format = "int4"},
        {.spec = "qwen3moe-s", .format = "mxfp4", .n_shards = 3},
        {.spec = "deepseek2-a", .format = "plain"},
        {.spec = "deepseek2-s", .format = "int4", .multimodal = true},
        {.spec = "deepseek32-q", .format = "fp8"},
        {.spec = "glm-dsa-q", .format = "fp8", .n_shards = 2},
        {.spec = "deepseek2-q", .format = "mlx4"},
        {.spec = "glm-dsa-q", .format = "mlx8"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char name[80], reference[160], said[4096] = "";
        const bool plain = strcmp(all[i].format, "plain") == 0;
        snprintf(name, sizeof name, "%s-%s", all[i].spec, all[i].format);
        const char *from = scratch_path(name);
        directory_write(from, &all[i]);
        snprintf(name, sizeof name, "%s-%s.gguf", all[i].spec, all[i].format);
        const char *to = scratch_path(name);
        const fm_quantize_result r = quantize(from, to, "F32", NULL, 2, said);
        assert_int_equal(r.n_vision > 0, all[i].multimodal);
        assert_int_equal(r.n_draft > 0, strstr(said, "of draft layers") != NULL);
        if (tiny_spec_find(all[i].spec)->has_draft_layer) assert_true(r.n_draft > 10);
        assert_int_equal(strstr(said, "of the vision part") != NULL, all[i].multimodal);
        snprintf(reference, sizeof reference,
                 plain ? "tests/vectors/model/%s-F32.npy" : "tests/vectors/directory/%s-%s.npy",
                 all[i].spec, all[i].format);
        check_reference(to, all[i].spec, reference);
    }
}

static void files_of_every_family_keep_their_logits(void **state)
{
    (void)state;
    static const char *const specs[] = {"qwen35moe-a", "qwen3next-b", "qwen3moe-c",   "glm4moe-a",
                                        "gpt-oss-a",   "deepseek2-b", "deepseek32-a", "glm-dsa-a"};
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        char name[80], reference[160];
        const char *from = tiny_file(specs[i], "F32", NULL);
        snprintf(name, sizeof name, "%s-again.gguf", specs[i]);
        const char *to = scratch_path(name);
        const fm_quantize_result r = quantize(from, to, "F32", NULL, 1, NULL);
        assert_int_equal(r.n_copied, r.n_tensor);
        assert_int_equal(r.n_draft > 0, tiny_spec_find(specs[i])->has_draft_layer);
        snprintf(reference, sizeof reference, "tests/vectors/model/%s-F32.npy", specs[i]);
        check_reference(to, specs[i], reference);
    }
}

/* Mean over positions of the Kullback-Leibler divergence of b's distribution from a's. */
static double divergence(const float *a, const float *b, int64_t n, int64_t n_vocab)
{
    double sum = 0;
    for (int64_t t = 0; t < n; t++, a += n_vocab, b += n_vocab) {
        double za = 0, zb = 0, ma = -INFINITY, mb = -INFINITY;
        for (int64_t i = 0; i < n_vocab; i++) {
            if (a[i] > ma) ma = a[i];
            if (b[i] > mb) mb = b[i];
        }
        for (int64_t i = 0; i < n_vocab; i++) {
            za += exp(a[i] - ma);
            zb += exp(b[i] - mb);
        }
        for (int64_t i = 0; i < n_vocab; i++) {
            const double la = a[i] - ma - log(za), lb = b[i] - mb - log(zb);
            sum += exp(la) * (la - lb);
        }
    }
    return sum / (double)n;
}

static void every_type_stays_as_near_as_its_bits_allow(void **state)
{
    (void)state;
    static const char *const types[] = {"F32",  "F16",  "BF16", "Q8_0", "Q6_K", "Q5_K",
                                        "Q4_K", "Q3_K", "Q2_K", "Q4_0", "MXFP4"};
    enum { N_TYPE = sizeof types / sizeof types[0] };
    const char *spec = "qwen3moe-s";
    const int64_t n_vocab = tiny_spec_find(spec)->n_vocab;
    char from[400];
    snprintf(from, sizeof from, "%s", tiny_file(spec, "F32", NULL));
    float *exact = logits_of(from, spec, N_TOKENS);
    double kl[N_TYPE];
    for (int i = 0; i < N_TYPE; i++) {
        char name[80];
        snprintf(name, sizeof name, "type-%s.gguf", types[i]);
        const char *to = scratch_path(name);
        (void)quantize(from, to, types[i], NULL, 2, NULL);
        float *ours = logits_of(to, spec, N_TOKENS);
        kl[i] = divergence(exact, ours, N_TOKENS, n_vocab);
        print_message("%-6s divergence %.3e\n", types[i], kl[i]);
        free(ours);
        check_streamed(to, spec);
    }
    free(exact);
    assert_true(kl[0] < 1e-12);
    for (int i = 1; i < N_TYPE; i++) assert_true(isfinite(kl[i]) && kl[i] >= -1e-9);
    for (int i = 3; i <= 8; i++) assert_true(i == 3 || kl[i] > kl[i - 1]); /* fewer bits, further */
    assert_true(kl[1] < kl[2] && kl[2] < kl[4]);                           /* F16, BF16, Q6_K */
    assert_true(kl[9] > kl[5] && kl[10] > kl[5]); /* four bits are further than five */
    assert_true(kl[6] < kl[9]);                   /* Q4_K is nearer than Q4_0 */
}

static void types_that_are_only_read_stream_too(void **state)
{
    (void)state;
    static const char *const types[] = {"Q4_1", "Q5_0", "Q5_1"};
    for (int i = 0; i < 3; i++)
        check_streamed(tiny_file("qwen3moe-s", types[i], NULL), "qwen3moe-s");
}

static void bytes_do_not_depend_on_threads(void **state)
{
    (void)state;
    char from[400], a[400], b[400];
    snprintf(from, sizeof from, "%s", tiny_file("qwen35moe-s", "Q8_0", NULL));
    snprintf(a, sizeof a, "%s", scratch_path("threads-1.gguf"));
    snprintf(b, sizeof b, "%s", scratch_path("threads-3.gguf"));
    (void)quantize(from, a, "Q4_K", "Q2_K", 1, NULL);
    (void)quantize(from, b, "q4_k", "q2_k", 3, NULL);
    FILE *fa = fopen(a, "rb"), *fb = fopen(b, "rb");
    assert_non_null(fa);
    assert_non_null(fb);
    int ca, cb;
    do {
        ca = getc(fa);
        cb = getc(fb);
        assert_int_equal(ca, cb);
    } while (ca != EOF);
    fclose(fa);
    fclose(fb);
}

static void options_of_another_size_are_refused(void **state)
{
    (void)state;
    fm_error err = {0};
    const char *from = tiny_file("qwen3moe-c", "F32", NULL);
    const char *to = scratch_path("size.gguf");
    const fm_quantize_options o = {
        .struct_size = sizeof o - 8, .source = from, .destination = to, .type = "F32"};
    unlink(to);
    assert_int_equal(fm_quantize(&o, NULL, &err), FM_E_ARG);
    assert_non_null(strstr(err.msg, "fm_quantize_options: size"));
    assert_int_not_equal(access(to, F_OK), 0);
}

static bool touch_source(void *user, fm_quantize_phase phase, uint64_t done, uint64_t total,
                         uint64_t resumed)
{
    (void)done, (void)total, (void)resumed;
    const struct timespec long_ago[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    if (phase == FM_QUANTIZE_WRITE) assert_int_equal(utimensat(AT_FDCWD, user, long_ago, 0), 0);
    return true;
}

/* Half of one file and half of another would be a whole file with the hashes that it should have. */
static void a_source_that_changes_meanwhile_is_refused(void **state)
{
    (void)state;
    char from[600], to[600];
    snprintf(from, sizeof from, "%s", tiny_file("qwen3moe-b", "F32", NULL));
    snprintf(to, sizeof to, "%s", scratch_path("changes.gguf"));
    fm_error err = {0};
    const fm_quantize_options o = {.struct_size = sizeof o,
                                   .source = from,
                                   .destination = to,
                                   .type = "Q8_0",
                                   .progress = touch_source,
                                   .progress_user = from};
    assert_int_equal(fm_quantize(&o, NULL, &err), FM_E_IO);
    if (!strstr(err.msg, "changed while it was read")) fail_msg("%s", err.msg);
    assert_int_not_equal(access(to, F_OK), 0);
}

/* A message about a tensor says in which file it is. */
static void messages_about_tensors_name_the_file(void **state)
{
    (void)state;
    const directory_options opt = {.spec = "qwen35moe-a", .format = "plain"};
    char from[600], to[600], config[700];
    snprintf(from, sizeof from, "%s", scratch_path("heads"));
    snprintf(to, sizeof to, "%s", scratch_path("heads.gguf"));
    directory_write(from, &opt);
    snprintf(config, sizeof config, "%s/config.json", from);
    size_t n;
    char *before =
        file_replace(config, "\"linear_num_value_heads\": 4", "\"linear_num_value_heads\": 6", &n);
    fm_error err = {0};
    const fm_quantize_options o = {
        .struct_size = sizeof o, .source = from, .destination = to, .type = "F32"};
    assert_int_equal(fm_quantize(&o, NULL, &err), FM_E_FORMAT);
    if (!strstr(err.msg, "model.safetensors: tensor blk.0.")) fail_msg("%s", err.msg);
    file_restore(config, before, n);
}

/* llama.cpp refuses the file without them; configurations of the text part alone need not have any. */
static void qwen35_gets_sections_that_its_configuration_lacks(void **state)
{
    (void)state;
    static const int64_t want[] = {11, 11, 10, 0};
    const directory_options opt = {.spec = "qwen35moe-a", .format = "plain"};
    char from[600], to[600];
    snprintf(from, sizeof from, "%s", scratch_path("sections"));
    snprintf(to, sizeof to, "%s", scratch_path("sections.gguf"));
    directory_write(from, &opt);
    (void)quantize(from, to, "Q8_0", NULL, 2, NULL);
    fm_checkpoint *c;
    fm_error err = {0};
    fm_meta_kind kind;
    uint64_t n = 0;
    if (fm_checkpoint_open(&c, to, &err) != FM_OK) fail_msg("%s", err.msg);
    const char *const key = "qwen35moe.rope.dimension_sections";
    if (fm_meta_array(c, key, &kind, &n, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_int_equal(n, 4);
    for (uint64_t i = 0; i < n; i++) {
        int64_t v;
        assert_int_equal(fm_meta_array_int(c, key, i, &v, &err), FM_OK);
        assert_int_equal(v, want[i]);
    }
    fm_checkpoint_close(c);
}

static void a_damaged_merge_is_no_empty_one(void **state)
{
    (void)state;
    static const char *const merges[] = {"\"a b\", [\"c\", \"d\"]", "\"a b\", [\"c\", 7]",
                                         "[\"a\", \"b\", \"c\"]", "3"};
    const directory_options opt = {.spec = "qwen3moe-b", .format = "plain"};
    const char *from = scratch_path("merges"), *to = scratch_path("merges.gguf");
    directory_write(from, &opt);
    for (size_t i = 0; i < sizeof merges / sizeof merges[0]; i++) {
        char path[500];
        snprintf(path, sizeof path, "%s/tokenizer.json", from);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fprintf(
            f,
            "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"d\": 3}, "
            "\"merges\": [%s]}}",
            merges[i]);
        assert_int_equal(fclose(f), 0);
        fm_error err = {0};
        const fm_quantize_options o = {
            .struct_size = sizeof o, .source = from, .destination = to, .type = "F32"};
        unlink(to);
        const fm_status st = fm_quantize(&o, NULL, &err);
        assert_int_equal(st, i == 0 ? FM_OK : FM_E_FORMAT);
        if (i > 0) assert_non_null(strstr(err.msg, i == 1 ? "merge number 1 " : "merge number 0 "));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directories_become_files_with_the_logits_of_transformers),
        cmocka_unit_test(files_of_every_family_keep_their_logits),
        cmocka_unit_test(every_type_stays_as_near_as_its_bits_allow),
        cmocka_unit_test(types_that_are_only_read_stream_too),
        cmocka_unit_test(bytes_do_not_depend_on_threads),
        cmocka_unit_test(options_of_another_size_are_refused),
        cmocka_unit_test(a_source_that_changes_meanwhile_is_refused),
        cmocka_unit_test(messages_about_tensors_name_the_file),
        cmocka_unit_test(qwen35_gets_sections_that_its_configuration_lacks),
        cmocka_unit_test(a_damaged_merge_is_no_empty_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
