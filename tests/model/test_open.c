/* What an engine does not open, and what a failed open or evaluation leaves on the disk. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/fixture.h"

#define SPEC "qwen3moe-a"
enum { N_TOKENS = 40 };

static void set_options(fm_engine_options *o, const char *path)
{
    fm_engine_options_init(o);
    o->model_path = path;
    o->n_threads = 2;
    o->n_ctx = 256;
}

static void copy_file(const char *to, const char *from)
{
    char cmd[2100];
    snprintf(cmd, sizeof cmd, "cp -- '%s' '%s'", from, to);
    assert_int_equal(system(cmd), 0);
}

/* ---- a file that changes meanwhile -------------------------------------------------------- */

typedef struct {
    const char *path, *instead; /* instead takes the name of path; NULL: path grows by a byte */
    int n_call;
} change;

/* The engine says that the model has no tokenizer: the header was read, the weights were not. */
static void change_it(void *user, fm_log_level level, const char *line)
{
    change *c = user;
    (void)level;
    (void)line;
    if (c->n_call++ > 0) return;
    if (c->instead) {
        assert_int_equal(rename(c->instead, c->path), 0);
    } else {
        struct stat st;
        assert_int_equal(stat(c->path, &st), 0);
        assert_int_equal(truncate(c->path, st.st_size + 1), 0);
    }
}

static void model_that_changes_while_it_is_opened_is_refused(void **state)
{
    (void)state;
    const char *const path = scratch_path("m.gguf");
    for (int k = 0; k < 2; k++) {
        copy_file(path, tiny_file(SPEC, "F32", NULL));
        size_t n;
        free(file_replace(path, "gpt2", "gpt9", &n)); /* no such tokenizer */
        change c = {.path = path};
        if (k == 0) {
            c.instead = scratch_path("other.gguf");
            copy_file(c.instead, path);
            const struct timespec past[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
            assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0);
        }
        fm_engine *e;
        fm_error err = {0};
        fm_engine_options o;
        set_options(&o, path);
        o.log = change_it;
        o.log_user = &c;
        assert_int_equal(fm_engine_open(&e, &o, &err), FM_E_FORMAT);
        assert_true(c.n_call > 0);
        assert_null(e);
        assert_non_null(strstr(err.msg, path));
        assert_non_null(strstr(err.msg, "changed since it was first looked at"));
        o.log = NULL;
        if (k == 0) { /* as it is now there is nothing wrong with it */
            assert_int_equal(fm_engine_open(&e, &o, &err), FM_OK);
            fm_engine_close(e);
        }
    }
}

/* ---- routing traces ----------------------------------------------------------------------- */

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* malloc'd, with a NUL after the n bytes. */
static char *read_all(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    *n = (size_t)st.st_size;
    char *out = calloc(1, *n + 1);
    assert_non_null(out);
    assert_int_equal(fread(out, 1, *n, f), *n);
    fclose(f);
    return out;
}

static bool stop_in_pass(void *user, int64_t done, int64_t total)
{
    int64_t *const stop_at = user;
    return done < *stop_at || done == total;
}

/* Evaluates N_TOKENS and, where fails, some more, but stops in the middle of it; the trace is in the file. */
static void record(const char *trace, bool first, bool fails)
{
    fm_engine *e;
    fm_session *s;
    fm_error err = {0};
    fm_engine_options o;
    set_options(&o, tiny_file(SPEC, "F32", NULL));
    o.trace_path = trace;
    assert_int_equal(fm_engine_open(&e, &o, &err), FM_OK);
    assert_int_equal(fm_session_create(&s, e, &err), FM_OK);
    int32_t ids[N_TOKENS];
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find(SPEC));
    if (first) assert_int_equal(fm_session_eval(s, ids, N_TOKENS, NULL, &err), FM_OK);
    int64_t stop_at = N_TOKENS / 2;
    const fm_eval_options eo = {
        .struct_size = sizeof eo, .progress = stop_in_pass, .progress_user = &stop_at};
    if (fails) assert_int_equal(fm_session_eval(s, ids, N_TOKENS, &eo, &err), FM_E_CANCELLED);
    fm_session_destroy(s);
    fm_engine_close(e);
}

static void traces_have_whole_passes(void **state)
{
    (void)state;
    const char *const trace = scratch_path("t.fmr");
    size_t n_want, n;
    record(trace, true, false);
    char *const want = read_all(trace, &n_want);
    assert_memory_equal(want, "FMROUTE1", 8);
    record(trace, true, true);
    char *got = read_all(trace, &n);
    assert_int_equal(n, n_want);
    assert_memory_equal(got, want, n);
    free(got);
    free(want);
    write_text(trace, "an earlier one");
    record(trace, false, true); /* nothing was evaluated: it stays */
    got = read_all(trace, &n);
    assert_string_equal(got, "an earlier one");
    free(got);
}

#if defined(__linux__) && !defined(FM_ADDRESS_SANITIZER) && !defined(FM_THREAD_SANITIZER)
/* No more memory from here on. */
static bool take_memory_away(void *user, uint64_t done, uint64_t total)
{
    if (done < total) return true;
    struct rlimit *const before = user;
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu", &pages), 1);
    fclose(f);
    const struct rlimit now = {pages * (rlim_t)sysconf(_SC_PAGESIZE), before->rlim_max};
    return setrlimit(RLIMIT_AS, &now) == 0;
}

static void open_that_fails_leaves_an_earlier_trace_alone(void **state)
{
    (void)state;
    const char *const trace = scratch_path("u.fmr");
    write_text(trace, "an earlier one");
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    fm_engine *e;
    fm_error err = {0};
    fm_engine_options o;
    set_options(&o, tiny_file(SPEC, "F32", NULL));
    o.trace_path = trace;
    o.load_progress = take_memory_away;
    o.progress_user = &before;
    const fm_status st = fm_engine_open(&e, &o, &err);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(st, FM_E_NOMEM);
    assert_non_null(strstr(err.msg, "scratch")); /* comes after the trace is begun */
    size_t n;
    char *const got = read_all(trace, &n);
    assert_string_equal(got, "an earlier one");
    free(got);
}
#else
static void open_that_fails_leaves_an_earlier_trace_alone(void **state)
{
    (void)state;
    skip();
}
#endif

/* ---- options ------------------------------------------------------------------------------ */

static void values_that_no_option_has_are_refused(void **state)
{
    (void)state;
    fm_engine *e;
    fm_error err = {0};
    fm_engine_options o;
#define REFUSED(field, value)                                                                      \
    do {                                                                                           \
        set_options(&o, tiny_file(SPEC, "F32", NULL));                                             \
        o.field = value;                                                                           \
        assert_int_equal(fm_engine_open(&e, &o, &err), FM_E_ARG);                                  \
        assert_null(e);                                                                            \
    } while (0)
    REFUSED(kv_type, (fm_kv_type)9);
    assert_non_null(strstr(err.msg, "kv_type: 9"));
    REFUSED(prefetch, (fm_prefetch)7);
    assert_non_null(strstr(err.msg, "prefetch: 7"));
    REFUSED(draft, (fm_draft_mode)3);
    REFUSED(activations, (fm_activations)2);
    REFUSED(n_threads, 1025);
    REFUSED(n_threads, -1);
    REFUSED(io_depth, 1025);
    REFUSED(io_split, 4097);
    REFUSED(n_ctx, -1);
    REFUSED(struct_size, sizeof o - 1);
    REFUSED(model_path, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_that_changes_while_it_is_opened_is_refused),
        cmocka_unit_test(traces_have_whole_passes),
        cmocka_unit_test(open_that_fails_leaves_an_earlier_trace_alone),
        cmocka_unit_test(values_that_no_option_has_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
