/* The routing heat that a session leaves: the next one begins with it, computes the same, and goes on without a
 * file that is damaged, hostile or of another model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/cache_file.h"
#include "support/fixture.h"

enum { N_TOKENS = 96, HEAD = 8, PAYLOAD_MAX = 1 << 20 };
static const char MAGIC[FM_CACHE_MAGIC_BYTES] = "FMHEAT\0";
static const char SPEC[] = "qwen35moe-b"; /* 72 experts */
static char heat[FM_CACHE_PATH_MAX];      /* the file of the model that was opened last */
static char warning[512];
static int n_warning;
static uint64_t budget;

static void on_log(void *user, fm_log_level level, const char *line)
{
    (void)user;
    if (level != FM_LOG_WARN) return;
    snprintf(warning, sizeof warning, "%s", line);
    n_warning++;
}

static fm_engine *open_spec(const char *spec, bool warm)
{
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = tiny_file(spec, "F32", NULL);
    o.memory_budget = budget;
    o.n_threads = 2;
    o.n_ctx = 128;
    o.prefetch = FM_PREFETCH_OFF; /* whose reads depend on time */
    o.warm_start = warm;
    o.log = on_log;
    n_warning = 0;
    warning[0] = '\0';
    fm_engine *e;
    fm_error err = {0};
    if (fm_engine_open(&e, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    fm_model_info info;
    fm_engine_model_info(e, &info);
    snprintf(heat, sizeof heat, "%s/flashmoe/heat-%016llx", getenv("XDG_CACHE_HOME"),
             (unsigned long long)info.identity);
    return e;
}

/* The last logits of a session of some tokens; the engine is closed. */
static float *run_session(fm_engine *e, const char *spec, int n_tokens, fm_stats *stats,
                          size_t *bytes)
{
    fm_session *s;
    fm_error err = {0};
    if (fm_session_create(&s, e, &err) != FM_OK) fail_msg("%s", err.msg);
    char name[128];
    snprintf(name, sizeof name, "tests/vectors/model/%s.ids.npy", spec);
    npy_array ids;
    assert_true(npy_load(&ids, source_path(name)));
    for (int i = 0; i < n_tokens; i++)
        if (fm_session_eval(s, (const int32_t *)ids.data + i, 1, NULL, &err) != FM_OK)
            fail_msg("%s", err.msg);
    npy_free(&ids);
    fm_model_info info;
    fm_engine_model_info(e, &info);
    *bytes = (size_t)info.n_vocab * sizeof(float);
    float *logits = malloc(*bytes);
    assert_non_null(logits);
    memcpy(logits, fm_session_logits(s), *bytes);
    fm_engine_stats(e, stats);
    fm_session_destroy(s);
    fm_engine_close(e);
    return logits;
}

static void second_session_begins_with_what_the_first_used(void **state)
{
    (void)state;
    fm_stats cold, warm, off;
    size_t bytes;
    fm_engine *e = open_spec(SPEC, true);
    unlink(heat);
    float *first = run_session(e, SPEC, N_TOKENS, &cold, &bytes);
    assert_int_equal(n_warning, 0);
    assert_int_equal(access(heat, R_OK), 0);
    assert_true(cold.expert_misses > 0);

    float *second = run_session(open_spec(SPEC, true), SPEC, N_TOKENS, &warm, &bytes);
    assert_int_equal(n_warning, 0);
    assert_true(warm.expert_misses < cold.expert_misses);
    assert_memory_equal(first, second, bytes);

    struct stat before, after;
    assert_int_equal(stat(heat, &before), 0);
    float *third = run_session(open_spec(SPEC, false), SPEC, N_TOKENS, &off, &bytes);
    assert_int_equal(off.expert_misses, cold.expert_misses);
    assert_int_equal(stat(heat, &after), 0);
    assert_true(before.st_ino == after.st_ino); /* not written again */
    assert_memory_equal(first, third, bytes);

    assert_int_equal(unlink(heat), 0); /* it may be deleted at any time */
    float *fourth = run_session(open_spec(SPEC, true), SPEC, N_TOKENS, &off, &bytes);
    assert_int_equal(n_warning, 0);
    assert_int_equal(off.expert_misses, cold.expert_misses);
    assert_memory_equal(first, fourth, bytes);
    free(first);
    free(second);
    free(third);
    free(fourth);
}

static void short_session_leaves_no_file(void **state)
{
    (void)state;
    fm_stats stats;
    size_t bytes;
    fm_engine *e = open_spec(SPEC, true);
    unlink(heat);
    free(run_session(e, SPEC, 8, &stats, &bytes));
    assert_int_not_equal(access(heat, F_OK), 0);
    free(run_session(open_spec(SPEC, false), SPEC, N_TOKENS, &stats, &bytes));
    assert_int_not_equal(access(heat, F_OK), 0);
}

/* Puts a file with a right checksum in the place of the heat: `bytes` of the payload, and a rate. */
static void forge(const unsigned char *payload, size_t bytes, size_t rate_at, float rate)
{
    static unsigned char p[PAYLOAD_MAX];
    fm_error err = {0};
    memcpy(p, payload, bytes);
    if (rate_at) memcpy(p + rate_at, &rate, sizeof rate);
    if (fm_cache_write(heat, MAGIC, 1, p, bytes, &err) != FM_OK) fail_msg("%s", err.msg);
}

static void expect_refused(const char *why)
{
    fm_engine *e = open_spec(SPEC, true);
    if (n_warning != 1 || !strstr(warning, why) || !strstr(warning, heat) ||
        !strstr(warning, "starting without it"))
        fail_msg("%d warnings, \"%s\" does not say \"%s\"", n_warning, warning, why);
    fm_engine_close(e);
}

static void file_that_cannot_be_right_is_refused_and_replaced(void **state)
{
    (void)state;
    fm_stats cold, stats;
    size_t bytes, n;
    fm_engine *e = open_spec(SPEC, true);
    unlink(heat);
    float *first = run_session(e, SPEC, N_TOKENS, &cold, &bytes);
    unsigned char *good;
    fm_error err = {0};
    assert_int_equal(fm_cache_read(&good, &n, heat, MAGIC, 1, PAYLOAD_MAX, &err), FM_OK);
    assert_non_null(good);
    assert_true(n > HEAD && n < PAYLOAD_MAX / 2);

    forge(good, n, HEAD + 4, NAN);
    expect_refused("expert 1 used nan times per token");
    forge(good, n, HEAD, -0.5f);
    expect_refused("expert 0 used -0.5 times");
    forge(good, n, n - 4, 1.5f);
    expect_refused("used 1.5 times");
    forge(good, n, HEAD, INFINITY);
    expect_refused("used inf times");
    forge(good, n - 4, 0, 0);
    expect_refused("for another model");
    forge(good, 0, 0, 0);
    expect_refused("for another model");
    forge(good, n + 4, 0, 0);
    expect_refused("expected 32 to");
    good[0] ^= 1;
    forge(good, n, 0, 0);
    expect_refused("is of the model");
    good[0] ^= 1;
    forge(good, n, 0, 0);
    assert_int_equal(truncate(heat, 40), 0);
    expect_refused("its header says");
    assert_int_equal(truncate(heat, 0), 0);
    expect_refused("has 0 bytes");
    unlink(heat);
    assert_int_equal(mkdir(heat, 0700), 0);
    expect_refused("is a directory");
    assert_int_equal(rmdir(heat), 0);
    assert_int_equal(mkfifo(heat, 0600), 0);
    expect_refused("is not a regular file");

    /* A session goes on and leaves a right one in its place. */
    float *second = run_session(open_spec(SPEC, true), SPEC, N_TOKENS, &stats, &bytes);
    assert_int_equal(stats.expert_misses, cold.expert_misses);
    assert_memory_equal(first, second, bytes);
    e = open_spec(SPEC, true);
    assert_int_equal(n_warning, 0);
    fm_engine_close(e);

    /* Heat that says the opposite costs reads, not the answer. */
    for (size_t at = HEAD; at < n; at += sizeof(float)) {
        float r;
        memcpy(&r, good + at, sizeof r);
        r = 1 - r;
        memcpy(good + at, &r, sizeof r);
    }
    forge(good, n, 0, 0);
    float *third = run_session(open_spec(SPEC, true), SPEC, N_TOKENS, &stats, &bytes);
    assert_int_equal(n_warning, 0);
    assert_memory_equal(first, third, bytes);
    free(good);
    free(first);
    free(second);
    free(third);
}

static int set_up(void **state)
{
    (void)state;
    /* Room for about a third of the experts. */
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = tiny_file(SPEC, "F32", NULL);
    o.n_ctx = 128;
    o.plan_only = true;
    o.memory_budget = UINT64_C(256) << 20;
    fm_engine *e;
    fm_error err = {0};
    if (fm_engine_open(&e, &o, &err) != FM_OK) return 1;
    fm_plan plan;
    fm_engine_plan(e, &plan);
    fm_engine_close(e);
    uint64_t slots = 0, total = 0;
    for (int32_t i = 0; i < plan.n_line; i++) {
        total += plan.lines[i].bytes;
        if (strcmp(plan.lines[i].name, "expert slots") == 0) slots = plan.lines[i].bytes;
    }
    budget = total - slots + slots / 3;
    return setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_session_begins_with_what_the_first_used),
        cmocka_unit_test(short_session_leaves_no_file),
        cmocka_unit_test(file_that_cannot_be_right_is_refused_and_replaced),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
