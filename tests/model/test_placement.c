/* Where a weight lies decides speed, never output: logits are equal bit for bit for every budget from
 * the smallest legal one to everything-fits, every I/O engine, 1 to 8 threads, cold and warm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/fixture.h"

/* Both go beyond a block of 64 positions. The second is for short passes and for plain code, where every
 * token costs a wait for the disk, or much arithmetic. */
enum { N_TOKENS = 150, FEWER_TOKENS = 70 };

static const uint64_t PLENTY = UINT64_C(1) << 30;

static fm_plan plan_of(const char *model, const eval_setup *s)
{
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = model;
    o.memory_budget = s->memory;
    o.n_batch = s->batch;
    o.n_threads = s->threads ? s->threads : 2;
    o.n_ctx = 512;
    o.plan_only = true;
    fm_engine *e;
    fm_error err = {0};
    if (fm_engine_open(&e, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    fm_plan p;
    fm_engine_plan(e, &p);
    fm_engine_close(e);
    return p;
}

/* Tokens of a model and their logits, with everything in memory. */
typedef struct {
    const char *model;
    int32_t ids[N_TOKENS];
    size_t n;
    int n_vocab;
    float *logits;
} expected;

static void compare(const expected *x, const float *got, const char *what)
{
    const size_t n = x->n * (size_t)x->n_vocab;
    const float *want = x->logits;
    if (memcmp(want, got, n * sizeof *got) != 0) {
        size_t i = 0;
        while (want[i] == got[i]) i++;
        fail_msg("%s: token %zu, logit %zu: %.9g, elsewhere %.9g", what, i / (size_t)x->n_vocab,
                 i % (size_t)x->n_vocab, (double)got[i], (double)want[i]);
    }
}

static void check_same(const expected *x, const char *model, const eval_setup *s, const char *what,
                       fm_stats *stats)
{
    float *got = eval_logits(model, x->ids, x->n, s, stats, NULL);
    compare(x, got, what);
    free(got);
}

static void expect(expected *x, const char *spec, const char *model, size_t n, const eval_setup *s)
{
    x->model = model;
    x->n = n;
    x->n_vocab = tiny_spec_find(spec)->n_vocab;
    tiny_token_ids(x->ids, n, tiny_spec_find(spec));
    x->logits = eval_logits(model, x->ids, n, s, NULL, NULL);
}

/* The least budget with every reader: it must really stream. Returns its misses with the first that runs. */
static uint64_t with_every_reader(const expected *x, const eval_setup *least, const char *what)
{
    const char *const io[] = {"uring", "pread", "mmap"};
    uint64_t misses = 0;
    for (int i = 0; i < 3; i++) {
        eval_setup s = *least;
        s.io = io[i];
        fm_error err = {0};
        fm_stats stats;
        float *got;
        const fm_status st = eval_logits_try(&got, x->model, x->ids, x->n, &s, &stats, NULL, &err);
        if (st == FM_E_UNSUPPORTED && i == 0) {
            print_message("io_uring not tested: %s\n", err.msg);
            continue;
        }
        if (st != FM_OK) fail_msg("%s", err.msg);
        char with[128];
        snprintf(with, sizeof with, "%s --io %s", what, io[i]);
        compare(x, got, with);
        free(got);
        if (misses == 0) misses = stats.expert_misses;
    }
    return misses;
}

static void placement(const char *spec, const char *type, int32_t batch, const char *kernels)
{
    const bool slow = batch < 64 || (kernels && strcmp(kernels, "reference") == 0);
    const char *model = tiny_file(spec, type, NULL);
    const eval_setup all = {.memory = PLENTY, .batch = batch, .kernels = kernels};
    expected x;
    expect(&x, spec, model, slow ? FEWER_TOKENS : N_TOKENS, &all);

    const fm_plan big = plan_of(model, &all);
    assert_int_equal(big.expert_slots, big.experts_total);
    assert_int_equal(big.trunk_resident, big.trunk_units);
    const uint64_t least = big.min_memory_bytes;
    assert_true(least < big.total_bytes);

    /* budgets: the smallest, points between, and one where only experts are short */
    char what[96];
    snprintf(what, sizeof what, "%s %s batch %d budget 0/3", spec, type, batch);
    eval_setup s = {.memory = least, .batch = batch, .kernels = kernels};
    const uint64_t misses_least = with_every_reader(&x, &s, what);
    for (int i = 1; i <= 2; i++) {
        s.memory = least + (big.total_bytes - least) * (uint64_t)i / 3;
        snprintf(what, sizeof what, "%s %s batch %d budget %d/3", spec, type, batch, i);
        check_same(&x, model, &s, what, NULL);
    }
    fm_stats full;
    check_same(&x, model, &all, "again", &full);
    assert_true(misses_least > full.expert_misses);

    const int32_t threads[] = {1, 3, 8};
    for (int i = 0; i < 3; i++) {
        s.threads = threads[i];
        snprintf(what, sizeof what, "%s %s batch %d threads %d", spec, type, batch, threads[i]);
        s.memory = PLENTY;
        check_same(&x, model, &s, what, NULL);
        s.memory = plan_of(model, &s).min_memory_bytes;
        check_same(&x, model, &s, what, NULL);
    }
    free(x.logits);
}

static void same_bits_everywhere(void **st)
{
    (void)st;
    placement("qwen35moe-a", "F32", 512, NULL);
    placement("qwen35moe-b", "F32", 1, NULL);
    placement("qwen35moe-q", "Q4_K", 512, NULL);
    placement("qwen35moe-q", "Q4_K", 1, NULL);
    placement("qwen3next-b", "F32", 100, NULL);
    placement("qwen3next-q", "Q8_0", 7, NULL);
    placement("qwen3moe-c", "F32", 64, NULL);
    placement("qwen3moe-q", "Q6_K", 512, NULL);
    placement("qwen35moe-q", "IQ", 64, NULL);
    placement("qwen3moe-s", "IQ", 1, NULL);
    placement("deepseek32-a", "F32", 64, NULL);
    placement("glm-dsa-a", "F32", 7, NULL);
    placement("glm-dsa-q", "Q8_0", 1, NULL);
    placement("glm4moe-a", "F32", 64, NULL);
    placement("glm4moe-q", "Q4_K", 1, NULL);
    placement("gpt-oss-b", "F32", 512, NULL);
    placement("gpt-oss-q", "MXFP4", 1, NULL);
    placement("gpt-oss-q", "MXFP4", 64, NULL);
    placement("deepseek2-b", "F32", 64, NULL);
    placement("deepseek2-c", "F32", 7, NULL);
    placement("deepseek2-q", "Q4_K", 1, NULL);
    placement("deepseek2-s", "Q6_K", 512, NULL);
    placement("deepseek2-q", "IQ", 64, NULL);
    placement("deepseek2-s", "IQ", 1, NULL);
}

static uint64_t cache_bytes(const fm_plan *plan)
{
    for (int32_t i = 0; i < plan->n_line; i++)
        if (strcmp(plan->lines[i].name, "attention cache") == 0) return plan->lines[i].bytes;
    fail_msg("no attention cache in the plan");
    return 0;
}

/* A layer with a sliding window keeps a ring of positions, which is shorter the shorter the passes are.
 * Past its end, where positions overwrite others, the bits are those of a cache of everything. */
static void window_ring_equals_whole_cache(void **st)
{
    (void)st;
    enum { LONG = 2500 };
    const tiny_spec *ts = tiny_spec_find("gpt-oss-b");
    const char *model = tiny_file("gpt-oss-b", "F32", NULL);
    int32_t *ids = malloc(LONG * sizeof *ids);
    assert_non_null(ids);
    tiny_token_ids(ids, LONG, ts);
    const int32_t batches[] = {4096, 64, 1024, 2048};
    float *want = NULL;
    uint64_t kv_whole = 0;
    for (int i = 0; i < 4; i++) {
        fm_plan plan;
        const eval_setup s = {.memory = PLENTY, .batch = batches[i], .ctx = 4096, .threads = 3};
        float *got = eval_logits(model, ids, LONG, &s, NULL, &plan);
        if (i == 0) {
            want = got;
            kv_whole = cache_bytes(&plan);
            continue;
        }
        if (batches[i] == 64) assert_true(cache_bytes(&plan) < kv_whole * 3 / 5);
        for (size_t k = 0; k < (size_t)LONG * (size_t)ts->n_vocab; k++)
            if (memcmp(&want[k], &got[k], sizeof *got) != 0)
                fail_msg("batch %d: token %zu, logit %zu: %.9g, whole cache %.9g", batches[i],
                         k / (size_t)ts->n_vocab, k % (size_t)ts->n_vocab, (double)got[k],
                         (double)want[k]);
        free(got);
    }
    free(want);
    free(ids);
}

static void same_bits_in_every_kernel_set(void **st)
{
    (void)st;
    placement("qwen35moe-q", "Q4_K", 70, "generic");
    placement("qwen3moe-q", "Q4_K", 1, "reference");
}

/* A second run in the same engine finds a warm cache. */
static void warm_equals_cold(void **st)
{
    (void)st;
    const tiny_spec *ts = tiny_spec_find("qwen35moe-q");
    const char *model = tiny_file("qwen35moe-q", "Q6_K", NULL);
    int32_t ids[N_TOKENS];
    tiny_token_ids(ids, N_TOKENS, ts);
    const eval_setup all = {.memory = PLENTY};
    const fm_plan big = plan_of(model, &all);
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = model;
    o.memory_budget = (big.min_memory_bytes + big.total_bytes) / 2;
    o.n_ctx = 512;
    o.n_threads = 2;
    fm_engine *e;
    fm_session *s;
    fm_error err = {0};
    if (fm_engine_open(&e, &o, &err) != FM_OK || fm_session_create(&s, e, &err) != FM_OK)
        fail_msg("%s", err.msg);
    const size_t bytes = (size_t)ts->n_vocab * sizeof(float);
    float *cold = malloc(bytes);
    for (int round = 0; round < 3; round++) {
        fm_session_reset(s);
        if (fm_session_eval(s, ids, N_TOKENS - 10, NULL, &err) != FM_OK) fail_msg("%s", err.msg);
        for (int i = N_TOKENS - 10; i < N_TOKENS; i++)
            if (fm_session_eval(s, &ids[i], 1, NULL, &err) != FM_OK) fail_msg("%s", err.msg);
        if (round == 0) {
            memcpy(cold, fm_session_logits(s), bytes);
        } else {
            assert_memory_equal(cold, fm_session_logits(s), bytes);
        }
    }
    free(cold);
    fm_session_destroy(s);
    fm_engine_close(e);
}

/* Tensors of several layers may share bytes; the cache must still keep layers apart. */
static void shared_bytes_and_shards_give_the_same(void **st)
{
    (void)st;
    char err[256];
    char one[1024], shards[1024], first[1024], second[1024];
    snprintf(one, sizeof one, "%s", scratch_path("one.gguf"));
    snprintf(shards, sizeof shards, "%s", scratch_path("set.gguf"));
    snprintf(first, sizeof first, "%s", scratch_path("set-00001-of-00003.gguf"));
    snprintf(second, sizeof second, "%s", scratch_path("set-00002-of-00003.gguf"));
    const tiny_options a = {.spec = "qwen35moe-b", .type = "F32", .share_layers = true};
    tiny_options b = a;
    b.share_layers = false;
    b.n_shards = 3;
    if (tiny_write(one, &a, err, sizeof err) != 0 || tiny_write(shards, &b, err, sizeof err) != 0)
        fail_msg("%s", err);
    const eval_setup all = {.memory = PLENTY};
    expected x;
    expect(&x, "qwen35moe-b", one, N_TOKENS, &all);
    const eval_setup tight = {.memory = plan_of(one, &all).min_memory_bytes};
    check_same(&x, one, &tight, "shared bytes, smallest budget", NULL);
    free(x.logits);
    expect(&x, "qwen35moe-b", tiny_file("qwen35moe-b", "F32", NULL), N_TOKENS, &all);
    check_same(&x, first, &all, "shards", NULL);
    const eval_setup tight_set = {.memory = plan_of(second, &all).min_memory_bytes};
    check_same(&x, second, &tight_set, "shards, named by the second", NULL);
    free(x.logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_everywhere),
        cmocka_unit_test(window_ring_equals_whole_cache),
        cmocka_unit_test(same_bits_in_every_kernel_set),
        cmocka_unit_test(warm_equals_cold),
        cmocka_unit_test(shared_bytes_and_shards_give_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
