/* Independent truth: logits of random small models against the transformers classes in float32
 * (tests/vectors/model/README.md), for every family, several shapes, token by token and in chunks;
 * quantized files against transformers on the dequantized weights; and proof that the comparison
 * notices a fault in each block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/fixture.h"
#include "support/logits.h"

enum { N_TOKENS = 200 };

/* Largest difference of a row over the row's largest magnitude, worst row. */
#define FLOAT_TOLERANCE 1e-3
#define KL_TOLERANCE 2e-3
/* A deliberate fault must be at least this visible. */
#define FAULT_SHOWS 1e-2

static logits_comparison compare(const float *ours, const npy_array *ref)
{
    return logits_compare(ours, ref->data, ref->rows, ref->cols);
}

static void load(npy_array *ref, int32_t ids[N_TOKENS], const char *spec, const char *type)
{
    char name[160];
    snprintf(name, sizeof name, "tests/vectors/model/%s-%s.npy", spec, type);
    if (!npy_load(ref, source_path(name))) fail_msg("cannot read %s", source_path(name));
    assert_int_equal(ref->rows, N_TOKENS);
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find(spec));
}

static void check_float(const char *spec, const char *type, const char *kernels, int32_t batch)
{
    npy_array ref;
    int32_t ids[N_TOKENS];
    load(&ref, ids, spec, type);
    const eval_setup s = {.batch = batch, .kv = FM_KV_F32, .kernels = kernels};
    float *ours = eval_logits(tiny_file(spec, type, NULL), ids, N_TOKENS, &s, NULL, NULL);
    const logits_comparison c = compare(ours, &ref);
    print_message("%-12s %-5s %-9s batch %-3d  row error %.1e  kl %.1e\n", spec, type,
                  kernels ? kernels : "best", batch, c.worst, c.mean_kl);
    if (!(c.worst <= FLOAT_TOLERANCE) || c.wrong_top)
        fail_msg("%s %s batch %d: row error %g, %d other best tokens", spec, type, batch, c.worst,
                 c.wrong_top);
    free(ours);
    npy_free(&ref);
}

static void each_spec(const char *family, void (*fn)(const char *spec, bool quantized))
{
    int n = 0;
    for (size_t i = 0; tiny_spec_at(i); i++) {
        const tiny_spec *s = tiny_spec_at(i);
        if (strcmp(tiny_family_name(s->family), family) != 0) continue;
        const char kind = s->name[strlen(s->name) - 1];
        fn(s->name, kind == 'q' || kind == 'r' || kind == 's');
        n++;
    }
    assert_true(n >= 3);
}

static void float_all_batches(const char *spec, bool quantized)
{
    if (quantized) return;
    const int32_t batches[] = {1, 7, 64, 512};
    for (int i = 0; i < 4; i++) check_float(spec, "F32", NULL, batches[i]);
    check_float(spec, "F32", "reference", 64);
    check_float(spec, "F32", "generic", 7);
}

static void f32_logits_agree_qwen35moe(void **st)
{
    (void)st;
    each_spec("qwen35moe", float_all_batches);
}
static void f32_logits_agree_qwen3next(void **st)
{
    (void)st;
    each_spec("qwen3next", float_all_batches);
}
static void f32_logits_agree_qwen3moe(void **st)
{
    (void)st;
    each_spec("qwen3moe", float_all_batches);
}

static void f32_logits_agree_glm4moe(void **st)
{
    (void)st;
    each_spec("glm4moe", float_all_batches);
}
static void f32_logits_agree_gptoss(void **st)
{
    (void)st;
    each_spec("gpt-oss", float_all_batches);
}
static void f32_logits_agree_deepseek2(void **st)
{
    (void)st;
    each_spec("deepseek2", float_all_batches);
}

static void f32_logits_agree_deepseek32(void **st)
{
    (void)st;
    each_spec("deepseek32", float_all_batches);
}
static void f32_logits_agree_glm_dsa(void **st)
{
    (void)st;
    each_spec("glm-dsa", float_all_batches);
}

static const char *const quant_types[] = {"Q8_0", "Q4_K", "Q6_K", "IQ"};

/* "IQ", which has all IQ types in one file, is stored for two specs; qwen35moe-r in one type only. */
static bool has_reference(const char *spec, const char *type)
{
    if (strcmp(spec, "qwen35moe-r") == 0) return strcmp(type, "Q4_K") == 0;
    return strcmp(type, "IQ") != 0 || strcmp(spec, "qwen35moe-q") == 0 ||
           strcmp(spec, "qwen3moe-s") == 0;
}

static void quantized(const char *spec, bool is_quantized)
{
    if (!is_quantized) return;
    for (int i = 0; i < 4; i++) {
        if (!has_reference(spec, quant_types[i])) continue;
        /* f32 arithmetic on the same weights must reach the float tolerance ... */
        check_float(spec, quant_types[i], "reference", 64);
        check_float(spec, quant_types[i], "reference", 1);
        /* ... and quantized activations must stay close. */
        npy_array ref;
        int32_t ids[N_TOKENS];
        load(&ref, ids, spec, quant_types[i]);
        const int32_t batches[] = {1, 64};
        for (int b = 0; b < 2; b++) {
            const eval_setup s = {.batch = batches[b], .kv = FM_KV_F32};
            float *ours =
                eval_logits(tiny_file(spec, quant_types[i], NULL), ids, N_TOKENS, &s, NULL, NULL);
            const logits_comparison c = compare(ours, &ref);
            print_message("%-12s %-5s best      batch %-3d  row error %.1e  kl %.1e\n", spec,
                          quant_types[i], batches[b], c.worst, c.mean_kl);
            if (!(c.mean_kl < KL_TOLERANCE))
                fail_msg("%s %s batch %d: mean KL %g", spec, quant_types[i], batches[b], c.mean_kl);
            free(ours);
        }
        npy_free(&ref);
    }
}

static void quantized_logits_agree_qwen35moe(void **st)
{
    (void)st;
    each_spec("qwen35moe", quantized);
}
static void quantized_logits_agree_qwen3next(void **st)
{
    (void)st;
    each_spec("qwen3next", quantized);
}
static void quantized_logits_agree_qwen3moe(void **st)
{
    (void)st;
    each_spec("qwen3moe", quantized);
}

/* Experts as these families are published, by transformers on the decoded weights. */
static void published_type(const char *spec, const char *type)
{
    npy_array ref;
    int32_t ids[N_TOKENS];
    check_float(spec, type, "reference", 64);
    check_float(spec, type, "reference", 1);
    load(&ref, ids, spec, type);
    for (int32_t batch = 1; batch <= 64; batch += 63) {
        const eval_setup s = {.batch = batch, .kv = FM_KV_F32};
        float *ours = eval_logits(tiny_file(spec, type, NULL), ids, N_TOKENS, &s, NULL, NULL);
        const logits_comparison c = compare(ours, &ref);
        print_message("%-12s %-5s best      batch %-3d  row error %.1e  kl %.1e  other best %d\n",
                      spec, type, batch, c.worst, c.mean_kl, c.other_top);
        if (!(c.mean_kl < KL_TOLERANCE) || c.other_top > N_TOKENS * 2 / 100)
            fail_msg("%s %s batch %d: mean KL %g, %d other best tokens", spec, type, batch,
                     c.mean_kl, c.other_top);
        free(ours);
    }
    npy_free(&ref);
}

static void quantized_logits_agree_glm4moe(void **st)
{
    (void)st;
    published_type("glm4moe-q", "Q4_K");
}
static void quantized_logits_agree_gptoss(void **st)
{
    (void)st;
    published_type("gpt-oss-q", "MXFP4");
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Quantized activations move a choice of positions whose gap is below their error, and its row with it: by how much
 * says nothing. Rows that see no more positions than are chosen have nothing to move and are held to what all
 * quantized files are held to; of the others most keep their choice and must be close. */
static void sparse_type(const char *spec, const char *type)
{
    npy_array ref;
    int32_t ids[N_TOKENS];
    check_float(spec, type, "reference", 64);
    check_float(spec, type, "reference", 1);
    load(&ref, ids, spec, type);
    const eval_setup s = {.batch = 64, .kv = FM_KV_F32};
    float *ours = eval_logits(tiny_file(spec, type, NULL), ids, N_TOKENS, &s, NULL, NULL);
    const int64_t dense = tiny_spec_find(spec)->index_topk;
    assert_in_range(dense, 32, N_TOKENS / 2);
    const logits_comparison early = logits_compare(ours, ref.data, dense, ref.cols);
    const logits_comparison all = compare(ours, &ref);
    double error[N_TOKENS];
    for (int64_t t = 0; t < N_TOKENS; t++)
        error[t] =
            logits_compare(ours + t * ref.cols, (const float *)ref.data + t * ref.cols, 1, ref.cols)
                .worst;
    qsort(error, N_TOKENS, sizeof error[0], ascending);
    print_message("%-12s %-5s best      first %d rows: row error %.1e  kl %.1e; all: median row "
                  "error %.1e  other best %d\n",
                  spec, type, (int)dense, early.worst, early.mean_kl, error[N_TOKENS / 2],
                  all.other_top);
    if (!(early.mean_kl < KL_TOLERANCE) || early.other_top > dense * 2 / 100)
        fail_msg("%s %s: the first %d rows: mean KL %g, %d other best tokens", spec, type,
                 (int)dense, early.mean_kl, early.other_top);
    if (!(error[N_TOKENS / 2] < FAULT_SHOWS) || all.other_top > N_TOKENS * 2 / 100)
        fail_msg("%s %s: median row error %g, %d other best tokens", spec, type,
                 error[N_TOKENS / 2], all.other_top);
    free(ours);
    npy_free(&ref);
}

static void quantized_logits_agree_sparse(void **st)
{
    (void)st;
    sparse_type("deepseek32-q", "Q8_0");
    sparse_type("glm-dsa-q", "Q8_0");
}

static void quantized_logits_agree_deepseek2(void **st)
{
    (void)st;
    published_type("deepseek2-q", "Q4_K");
    published_type("deepseek2-s", "Q8_0");
    published_type("deepseek2-s", "Q6_K");
}

/* Attention in more than one unit of positions: the last tokens of a long sequence. */
static void long_context_agrees_deepseek2(void **st)
{
    (void)st;
    enum { LONG = 1150 };
    static int32_t ids[LONG];
    npy_array ref;
    if (!npy_load(&ref, source_path("tests/vectors/model/deepseek2-a-long.npy")))
        fail_msg("cannot read deepseek2-a-long.npy");
    tiny_token_ids(ids, LONG, tiny_spec_find("deepseek2-a"));
    /* the first two compute all tokens in the absorbed form, the others whole blocks with keys and values */
    const int32_t batches[] = {1, 50, 64, 2048};
    float *first = NULL;
    for (int i = 0; i < 4; i++) {
        const eval_setup s = {.batch = batches[i], .kv = FM_KV_F32, .ctx = 2048, .threads = 1 + i};
        float *ours = eval_logits(tiny_file("deepseek2-a", "F32", NULL), ids, LONG, &s, NULL, NULL);
        const logits_comparison c = compare(ours + (LONG - ref.rows) * ref.cols, &ref);
        print_message("deepseek2-a  tokens to %d, batch %d: row error %.1e\n", LONG, batches[i],
                      c.worst);
        if (!(c.worst <= FLOAT_TOLERANCE) || c.wrong_top)
            fail_msg("batch %d: row error %g, %d other best tokens", batches[i], c.worst,
                     c.wrong_top);
        /* within a form not even the length of a pass shows */
        const bool same =
            first && memcmp(first, ours, (size_t)(LONG * ref.cols) * sizeof *ours) == 0;
        if (first && same != (i != 2))
            fail_msg("batch %d: %s bits as batch %d", batches[i], same ? "the same" : "other",
                     batches[i - 1]);
        free(first);
        first = ours;
    }
    free(first);
    npy_free(&ref);
}

/* Every deliberate error in a file must be seen, or the comparison above proves nothing. */
static void deliberate_fault_shows(void **st)
{
    (void)st;
    const char *const specs[] = {"qwen35moe-a", "qwen3next-a", "qwen3moe-a",   "glm4moe-a",
                                 "gpt-oss-a",   "deepseek2-a", "deepseek32-a", "glm-dsa-a"};
    int n = 0;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        npy_array ref;
        int32_t ids[N_TOKENS];
        load(&ref, ids, specs[i], "F32");
        for (size_t f = 0; tiny_fault_name(f); f++) {
            const char *fault = tiny_fault_name(f);
            if (!tiny_fault_applies(tiny_spec_find(specs[i]), fault)) continue;
            const eval_setup s = {.batch = 64, .kv = FM_KV_F32};
            float *ours =
                eval_logits(tiny_file(specs[i], "F32", fault), ids, N_TOKENS, &s, NULL, NULL);
            const logits_comparison c = compare(ours, &ref);
            print_message("%-12s fault %-16s row error %.1e\n", specs[i], fault, c.worst);
            if (!(c.worst > FAULT_SHOWS))
                fail_msg("%s: fault %s passes, error %g", specs[i], fault, c.worst);
            free(ours);
            n++;
        }
        npy_free(&ref);
    }
    assert_true(n >= 63);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_logits_agree_qwen35moe),
        cmocka_unit_test(f32_logits_agree_qwen3next),
        cmocka_unit_test(f32_logits_agree_qwen3moe),
        cmocka_unit_test(f32_logits_agree_glm4moe),
        cmocka_unit_test(f32_logits_agree_gptoss),
        cmocka_unit_test(f32_logits_agree_deepseek2),
        cmocka_unit_test(f32_logits_agree_deepseek32),
        cmocka_unit_test(f32_logits_agree_glm_dsa),
        cmocka_unit_test(quantized_logits_agree_sparse),
        cmocka_unit_test(quantized_logits_agree_qwen35moe),
        cmocka_unit_test(quantized_logits_agree_qwen3next),
        cmocka_unit_test(quantized_logits_agree_qwen3moe),
        cmocka_unit_test(quantized_logits_agree_glm4moe),
        cmocka_unit_test(quantized_logits_agree_gptoss),
        cmocka_unit_test(quantized_logits_agree_deepseek2),
        cmocka_unit_test(long_context_agrees_deepseek2),
        cmocka_unit_test(deliberate_fault_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
