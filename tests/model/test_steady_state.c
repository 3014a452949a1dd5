/* After warm-up a token costs no allocation; and a request that fails in the middle of an answer says
 * where, leaves nothing behind, and the engine goes on working. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/fault.h"
#include "support/fixture.h"

/* ---- counting allocations: glibc's malloc under our names --------------------------------- */

#if defined(__GLIBC__) && !defined(FM_DEBUG)
#define COUNTS_ALLOCATIONS 1
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
static _Atomic uint64_t n_alloc;

void *malloc(size_t n)
{
    atomic_fetch_add(&n_alloc, 1);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    atomic_fetch_add(&n_alloc, 1);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    atomic_fetch_add(&n_alloc, 1);
    return __libc_realloc(p, n);
}
#else
#define COUNTS_ALLOCATIONS 0
static uint64_t n_alloc;
#endif

enum { N_TOKENS = 60, WARM = 20 };

typedef struct {
    fm_engine *engine;
    fm_session *session;
    int32_t ids[N_TOKENS];
} run;

static void open_run(run *r, const char *spec, const char *io, uint64_t memory)
{
    fm_error err = {0};
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = tiny_file(spec, "F32", NULL);
    o.n_threads = 2;
    o.n_ctx = 256;
    o.memory_budget = memory;
    o.io_engine = io;
    if (strcmp(spec, "qwen35moe-e") == 0) o.draft = FM_DRAFT_ON; /* whether it pays or not */
    if (fm_engine_open(&r->engine, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    if (fm_session_create(&r->session, r->engine, &err) != FM_OK) fail_msg("%s", err.msg);
    tiny_token_ids(r->ids, N_TOKENS, tiny_spec_find(spec));
}

static void close_run(run *r)
{
    fm_session_destroy(r->session);
    fm_engine_close(r->engine);
}

static uint64_t tight_budget(const char *spec)
{
    fm_error err = {0};
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = tiny_file(spec, "F32", NULL);
    o.n_threads = 2;
    o.n_ctx = 256;
    o.plan_only = true;
    o.memory_budget = UINT64_C(1) << 30;
    fm_engine *e;
    if (fm_engine_open(&e, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    fm_plan p;
    fm_engine_plan(e, &p);
    fm_engine_close(e);
    return (p.min_memory_bytes * 3 + p.total_bytes) / 4;
}

static void no_allocation_per_token_after_warm_up(void **st)
{
    (void)st;
    if (!COUNTS_ALLOCATIONS) skip();
    const char *const io[] = {"pread", "mmap", NULL};
    const char *const specs[] = {"qwen35moe-b", "qwen3moe-c"};
    for (int k = 0; k < 6; k++) {
        run r;
        fm_error err = {0};
        open_run(&r, specs[k / 3], io[k % 3], tight_budget(specs[k / 3]));
        if (fm_session_eval(r.session, r.ids, WARM, NULL, &err) != FM_OK) fail_msg("%s", err.msg);
        if (fm_session_eval(r.session, &r.ids[WARM], 1, NULL, &err) != FM_OK)
            fail_msg("%s", err.msg);
        fm_sampler_options so;
        fm_sampler_options_init(&so);
        fm_sampler *sampler;
        if (fm_sampler_create(&sampler, tiny_spec_find(specs[k / 3])->n_vocab, &so, &err) != FM_OK)
            fail_msg("%s", err.msg);
        const uint64_t before = n_alloc;
        for (int i = WARM + 1; i < N_TOKENS; i++) {
            if (fm_session_eval(r.session, &r.ids[i], 1, NULL, &err) != FM_OK)
                fail_msg("%s", err.msg);
            (void)fm_sampler_pick(sampler, fm_session_logits(r.session));
        }
        const uint64_t after = n_alloc;
        fm_stats stats;
        fm_engine_stats(r.engine, &stats);
        assert_true(stats.expert_misses > 0);
        fm_sampler_destroy(sampler);
        close_run(&r);
        if (after != before)
            fail_msg("%s, io %s: %d tokens made %llu allocations", specs[k / 3],
                     io[k % 3] ? io[k % 3] : "best", N_TOKENS - WARM - 1,
                     (unsigned long long)(after - before));
    }
}

/* The same with drafts, of which some are right. */
static void drafts_allocate_nothing_per_token(void **st)
{
    (void)st;
    run r;
    fm_error err = {0};
    open_run(&r, "qwen35moe-e", NULL, UINT64_C(1) << 30);
    if (fm_session_eval(r.session, r.ids, WARM, NULL, &err) != FM_OK) fail_msg("%s", err.msg);
    uint64_t before = 0;
    for (int i = WARM; i < N_TOKENS; i++) {
        const int32_t next = r.ids[(i + 1) % N_TOKENS], other = 0;
        const fm_eval_options o = {.struct_size = sizeof o,
                                   .expected_next = i % 3 ? &next : &other};
        if (i == 2 * WARM) before = n_alloc;
        if (fm_session_eval(r.session, &r.ids[i], 1, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    }
    const uint64_t after = n_alloc;
    fm_stats stats;
    fm_engine_stats(r.engine, &stats);
    assert_true(stats.drafts > 10 && stats.drafts_right > 5);
    close_run(&r);
    assert_int_equal(before, after); /* both 0 where allocations are not counted */
}

/* A disk that fails in the middle of an answer. */
static void read_errors_name_file_and_offset_and_the_engine_recovers(void **st)
{
    (void)st;
    const struct {
        const char *fault, *says;
    } cases[] = {{"read:eio:nth=9:sticky", "Input/output error"},
                 {"read:eof:nth=9:sticky", "ends at"}};
    const char *const io[] = {"pread", "mmap", "uring"};
    for (int k = 0; k < 6; k++) {
        run r;
        fm_error err = {0};
        open_run(&r, "qwen35moe-b", io[k / 2], tight_budget("qwen35moe-b"));
        float *want = NULL;
        /* a clean run first */
        if (fm_session_eval(r.session, r.ids, WARM, NULL, &err) != FM_OK) fail_msg("%s", err.msg);
        const size_t bytes = (size_t)tiny_spec_find("qwen35moe-b")->n_vocab * sizeof *want;
        want = malloc(bytes);
        memcpy(want, fm_session_logits(r.session), bytes);
        fm_session_reset(r.session);

        assert_true(fm_fault_set(cases[k % 2].fault));
        fm_status status = fm_session_eval(r.session, r.ids, WARM, NULL, &err);
        for (int i = WARM; i < N_TOKENS && status == FM_OK; i++)
            status = fm_session_eval(r.session, &r.ids[i], 1, NULL, &err);
        assert_true(fm_fault_set(NULL));
        print_message("%s, %s: %s\n", io[k / 2], cases[k % 2].fault, err.msg);
        assert_true(status == FM_E_IO || status == FM_E_FORMAT);
        assert_non_null(strstr(err.msg, ".gguf"));
        assert_int_equal(fm_session_n_past(r.session), 0);

        if (fm_session_eval(r.session, r.ids, WARM, NULL, &err) != FM_OK) fail_msg("%s", err.msg);
        assert_memory_equal(want, fm_session_logits(r.session), bytes);
        free(want);
        close_run(&r);
    }
}

/* Reads that come short or fail once are carried on with and change nothing. */
static void passing_faults_change_nothing(void **st)
{
    (void)st;
    /* Named places: "every third" depends on the order in which threads read, and may then hit
     * one place as often as a bad file would. */
    const char *const faults[] = {
        "read:short:nth=3,read:short:nth=20,read:short:nth=77,read:short:nth=200",
        "read:eio:nth=5"};
    for (int k = 0; k < 2; k++) {
        run r;
        fm_error err = {0};
        open_run(&r, "qwen35moe-b", "pread", tight_budget("qwen35moe-b"));
        const size_t bytes = (size_t)tiny_spec_find("qwen35moe-b")->n_vocab * sizeof(float);
        if (fm_session_eval(r.session, r.ids, N_TOKENS, NULL, &err) != FM_OK)
            fail_msg("%s", err.msg);
        float *want = malloc(bytes);
        memcpy(want, fm_session_logits(r.session), bytes);
        fm_session_reset(r.session);
        assert_true(fm_fault_set(faults[k]));
        if (fm_session_eval(r.session, r.ids, N_TOKENS, NULL, &err) != FM_OK)
            fail_msg("%s", err.msg);
        assert_true(fm_fault_set(NULL));
        assert_memory_equal(want, fm_session_logits(r.session), bytes);
        free(want);
        close_run(&r);
    }
}

typedef struct {
    int n_call, stop_at;
} stop_after;

static bool stop_at_call(void *user, int64_t done, int64_t total)
{
    (void)done;
    (void)total;
    stop_after *s = user;
    return ++s->n_call != s->stop_at;
}

/* Wherever the stop falls: between layers, inside a product, while experts are packed. */
static void stop_in_a_prompt_leaves_a_usable_session(void **st)
{
    (void)st;
    const size_t bytes = (size_t)tiny_spec_find("qwen35moe-b")->n_vocab * sizeof(float);
    float *want = NULL;
    run r;
    fm_error err = {0};
    open_run(&r, "qwen35moe-b", NULL, 0);
    for (int stop_at = 1;; stop_at += stop_at < 20 ? 3 : stop_at / 4) {
        stop_after s = {.stop_at = stop_at};
        const fm_eval_options eo = {
            .struct_size = sizeof eo, .progress = stop_at_call, .progress_user = &s};
        const fm_status status = fm_session_eval(r.session, r.ids, N_TOKENS, &eo, &err);
        if (status == FM_OK) {
            assert_true(stop_at > 50); /* products were asked too, not only layers */
            break;
        }
        assert_int_equal(status, FM_E_CANCELLED);
        assert_int_equal(fm_session_n_past(r.session), 0);
        assert_null(fm_session_logits(r.session));
        assert_int_equal(fm_session_eval(r.session, r.ids, N_TOKENS, NULL, &err), FM_OK);
        assert_int_equal(fm_session_n_past(r.session), N_TOKENS);
        if (!want) {
            want = malloc(bytes);
            memcpy(want, fm_session_logits(r.session), bytes);
        }
        assert_memory_equal(want, fm_session_logits(r.session), bytes);
        fm_session_reset(r.session);
    }
    free(want);
    close_run(&r);
}

/* A conversation goes on where it is, which is rarely a multiple of 64. The length of passes, which
 * the memory decides when the user does not, must not show there either. */
static void goes_on(const char *name)
{
    enum { FIRST = 30, SECOND = 170 };
    const tiny_spec *spec = tiny_spec_find(name);
    const size_t bytes = (size_t)spec->n_vocab * sizeof(float);
    int32_t ids[FIRST + SECOND];
    tiny_token_ids(ids, FIRST + SECOND, spec);
    float *want = NULL;
    for (int32_t batch = 64; batch <= 256; batch *= 2) {
        fm_error err = {0};
        fm_engine_options o;
        fm_engine_options_init(&o);
        o.model_path = tiny_file(name, "F32", NULL);
        o.n_batch = batch;
        o.n_threads = 2;
        o.n_ctx = 256;
        fm_engine *engine;
        fm_session *session;
        if (fm_engine_open(&engine, &o, &err) != FM_OK) fail_msg("%s", err.msg);
        if (fm_session_create(&session, engine, &err) != FM_OK) fail_msg("%s", err.msg);
        assert_int_equal(fm_session_eval(session, ids, FIRST, NULL, &err), FM_OK);
        assert_int_equal(fm_session_eval(session, ids + FIRST, SECOND, NULL, &err), FM_OK);
        if (!want) {
            want = malloc(bytes);
            memcpy(want, fm_session_logits(session), bytes);
        }
        assert_memory_equal(want, fm_session_logits(session), bytes);
        fm_session_destroy(session);
        fm_engine_close(engine);
    }
    free(want);
}

typedef struct {
    float *out; /* [N_BACK_ALL][n_vocab] */
    size_t n_vocab;
} every;

static bool keep_logits(void *user, int64_t pos, const float *logits)
{
    const every *e = user;
    memcpy(e->out + (size_t)pos * e->n_vocab, logits, e->n_vocab * sizeof *logits);
    return true;
}

enum { N_BACK_FIRST = 150, N_BACK_SECOND = 200, N_BACK_ALL = N_BACK_FIRST + N_BACK_SECOND + 3 };

/* The second call, and three tokens one by one. */
static void go_on(fm_session *s, const int32_t *ids, every *e)
{
    fm_error err = {0};
    const fm_eval_options o = {
        .struct_size = sizeof o, .every_logits = keep_logits, .logits_user = e};
    assert_int_equal(fm_session_eval(s, ids + N_BACK_FIRST, N_BACK_SECOND, &o, &err), FM_OK);
    for (int i = N_BACK_FIRST + N_BACK_SECOND; i < N_BACK_ALL; i++)
        assert_int_equal(fm_session_eval(s, ids + i, 1, &o, &err), FM_OK);
}

/* Where a model keeps all of its past by position, a call that fails is taken back, wherever it was. */
static void goes_back(const char *spec, bool can)
{
    const size_t n_vocab = (size_t)tiny_spec_find(spec)->n_vocab, n = N_BACK_ALL * n_vocab;
    int32_t ids[N_BACK_ALL];
    tiny_token_ids(ids, N_BACK_ALL, tiny_spec_find(spec));
    every want = {calloc(n, sizeof(float)), n_vocab}, got = {calloc(n, sizeof(float)), n_vocab};
    fm_error err = {0};
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = tiny_file(spec, "F32", NULL);
    o.n_threads = 2;
    o.n_ctx = 512;
    o.n_batch = 64;
    fm_engine *e;
    fm_session *s;
    if (fm_engine_open(&e, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    if (fm_session_create(&s, e, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_int_equal(fm_session_eval(s, ids, N_BACK_FIRST, NULL, &err), FM_OK);
    go_on(s, ids, &want);
    for (int stop_at = 1;; stop_at += 1 + stop_at / 2) {
        fm_session_reset(s);
        assert_int_equal(fm_session_eval(s, ids, N_BACK_FIRST, NULL, &err), FM_OK);
        stop_after stop = {.stop_at = stop_at};
        const fm_eval_options eo = {
            .struct_size = sizeof eo, .progress = stop_at_call, .progress_user = &stop};
        /* other tokens than those that come then */
        const fm_status st = fm_session_eval(s, ids + 7, N_BACK_SECOND, &eo, &err);
        if (st == FM_OK) {
            assert_true(stop_at > 50);
            break;
        }
        assert_int_equal(st, FM_E_CANCELLED);
        assert_null(fm_session_logits(s));
        assert_int_equal(fm_session_n_past(s), can ? N_BACK_FIRST : 0);
        if (!can) break;
        memset(got.out, 0, n * sizeof(float));
        go_on(s, ids, &got);
        if (memcmp(want.out, got.out, n * sizeof(float)) != 0)
            fail_msg("%s: stopped at call %d, other logits", spec, stop_at);
    }
    fm_session_destroy(s);
    fm_engine_close(e);
    free(want.out);
    free(got.out);
}

static void failed_calls_are_taken_back(void **st)
{
    (void)st;
    goes_back("qwen3moe-a", true);
    goes_back("glm4moe-a", true);
    goes_back("deepseek2-c", true);
    goes_back("glm-dsa-a", true);
    goes_back("gpt-oss-a", false);
    goes_back("qwen35moe-a", false);
}

static void batch_does_not_show_when_a_session_goes_on(void **st)
{
    (void)st;
    goes_on("qwen35moe-b");
    goes_on("glm4moe-a");
    goes_on("deepseek2-c");
}

/* Prompts of latent attention share keys and values among 2,048 tokens at most: how many groups there are never shows, and
 * what is computed is what single tokens compute. */
static void long_prompts_of_latent_attention_agree(void **st)
{
    (void)st;
    enum { LONG = 2200, LAST = 40 };
    static int32_t ids[LONG];
    const tiny_spec *spec = tiny_spec_find("deepseek2-c");
    tiny_token_ids(ids, LONG, spec);
    float *first = NULL;
    const size_t n = (size_t)spec->n_vocab;
    static const int32_t batches[] = {512, 4096, 1};
    for (int i = 0; i < 3; i++) {
        const eval_setup s = {.batch = batches[i], .kv = FM_KV_F32, .ctx = 2304, .threads = 1 + i};
        float *got = eval_logits(tiny_file("deepseek2-c", "F32", NULL), ids, LONG, &s, NULL, NULL);
        float *const last = got + (LONG - LAST) * n;
        if (i == 0) {
            first = got;
            continue;
        }
        const bool same = memcmp(first, got, LONG * n * sizeof *got) == 0;
        assert_true(same == (batches[i] > 1));
        double error = 0, size = 0;
        for (size_t k = 0; k < LAST * n; k++) {
            const double want = first[(LONG - LAST) * n + k];
            error += (last[k] - want) * (last[k] - want);
            size += want * want;
        }
        if (!(error <= 1e-8 * size)) fail_msg("error %g of %g", error, size);
        free(got);
    }
    free(first);
}

static void requests_out_of_range_are_refused(void **st)
{
    (void)st;
    run r;
    fm_error err = {0};
    open_run(&r, "qwen3moe-a", NULL, 0);
    fm_session *second;
    assert_int_equal(fm_session_create(&second, r.engine, &err), FM_E_LIMIT);
    assert_null(second);
    assert_null(fm_session_logits(r.session));
    int32_t bad = tiny_spec_find("qwen3moe-a")->n_vocab;
    assert_int_equal(fm_session_eval(r.session, &bad, 1, NULL, &err), FM_E_ARG);
    bad = -1;
    assert_int_equal(fm_session_eval(r.session, &bad, 1, NULL, &err), FM_E_ARG);
    assert_int_equal(fm_session_eval(r.session, r.ids, 0, NULL, &err), FM_E_ARG);
    for (int i = 0; i < 256 / N_TOKENS; i++)
        assert_int_equal(fm_session_eval(r.session, r.ids, N_TOKENS, NULL, &err), FM_OK);
    /* and the session goes on as it was */
    const float *const logits = fm_session_logits(r.session);
    const float first = logits[0];
    const int64_t n_past = fm_session_n_past(r.session);
    assert_int_equal(n_past, 256 / N_TOKENS * N_TOKENS);
    assert_int_equal(fm_session_eval(r.session, r.ids, N_TOKENS, NULL, &err), FM_E_LIMIT);
    assert_non_null(strstr(err.msg, "--ctx"));
    assert_int_equal(fm_session_eval(r.session, &bad, 1, NULL, &err), FM_E_ARG);
    assert_int_equal(fm_session_n_past(r.session), n_past);
    assert_ptr_equal(fm_session_logits(r.session), logits);
    assert_true(logits[0] == first);
    assert_int_equal(fm_session_eval(r.session, r.ids, 1, NULL, &err), FM_OK);
    fm_session_reset(r.session);
    assert_null(fm_session_logits(r.session));
    close_run(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_allocation_per_token_after_warm_up),
        cmocka_unit_test(drafts_allocate_nothing_per_token),
        cmocka_unit_test(read_errors_name_file_and_offset_and_the_engine_recovers),
        cmocka_unit_test(passing_faults_change_nothing),
        cmocka_unit_test(stop_in_a_prompt_leaves_a_usable_session),
        cmocka_unit_test(failed_calls_are_taken_back),
        cmocka_unit_test(batch_does_not_show_when_a_session_goes_on),
        cmocka_unit_test(long_prompts_of_latent_attention_agree),
        cmocka_unit_test(requests_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
