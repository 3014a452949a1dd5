/* The figures of `eval` against numpy, and the file of reference logits: what was written comes back, and
 * every kind of damage is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/eval_logits.h"
#include "cli/eval_stats.h"
#include "support/fixture.h"

static void assert_close(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g, expected %.17g", a, b);
}

/* ---- figures -------------------------------------------------------------------------------- */

/* numpy 2.4.6:
 *   a = np.array([1.5, -2, 0.25, 3, 3], np.float32).astype(float); b = np.array([1, -1, 0.5, 2.5, 4], ...)
 *   la, lb = np.log(np.exp(a).sum()), np.log(np.exp(b).sum()); p = np.exp(a - la)
 *   la, lb, (p * ((a - la) - (b - lb))).sum()                                                      */
static const float A[5] = {1.5f, -2.0f, 0.25f, 3.0f, 3.0f}, B[5] = {1.0f, -1.0f, 0.5f, 2.5f, 4.0f};

static void divergence_of_two_rows_is_numpys(void **st)
{
    (void)st;
    const double la = fm_eval_log_sum(A, 5), lb = fm_eval_log_sum(B, 5);
    assert_close(la, 3.83020807331932, 1e-12);
    assert_close(lb, 4.26991458044955, 1e-12);
    assert_close(fm_eval_divergence(A, la, B, lb, 5), 0.260460036258824, 1e-12);
    assert_true(fm_eval_divergence(A, la, A, la, 5) == 0);
    assert_int_equal(fm_eval_top(A, 5), 3); /* of equal ones the first */
    assert_int_equal(fm_eval_top(B, 5), 4);
}

static void row_that_is_no_number_is_noticed(void **st)
{
    (void)st;
    const float nan_row[3] = {1, NAN, 2}, first_nan[2] = {NAN, 0}, infinite[2] = {INFINITY, 0};
    const float none[2] = {-INFINITY, -INFINITY}, some[2] = {-INFINITY, 1};
    assert_true(isnan(fm_eval_log_sum(nan_row, 3)));
    assert_true(isnan(fm_eval_log_sum(first_nan, 2)));
    assert_true(isnan(fm_eval_log_sum(infinite, 2)));
    assert_true(isnan(fm_eval_log_sum(none, 2)));
    assert_close(fm_eval_log_sum(some, 2), 1, 1e-15);
}

static void large_logits_do_not_overflow(void **st)
{
    (void)st;
    const float large[2] = {3e4f, 3e4f};
    assert_close(fm_eval_log_sum(large, 2), 3e4 + log(2), 1e-9);
}

/* v = [3, 1, 4, 1, 5, 9, 2, 6]; v.mean(), v.std() / np.sqrt(7), np.quantile(v, [0, .5, .99, 1]) */
static void mean_error_and_quantiles_are_numpys(void **st)
{
    (void)st;
    double v[8] = {3, 1, 4, 1, 5, 9, 2, 6};
    fm_eval_mean m = {0};
    assert_true(isnan(fm_eval_mean_value(&m)));
    for (int i = 0; i < 8; i++) fm_eval_mean_add(&m, v[i]);
    assert_close(fm_eval_mean_value(&m), 3.875, 1e-12);
    assert_close(fm_eval_mean_error(&m), 0.971697704315199, 1e-12);
    fm_eval_sort(v, 8);
    assert_close(fm_eval_quantile(v, 8, 0), 1, 0);
    assert_close(fm_eval_quantile(v, 8, 0.5), 3.5, 1e-12);
    assert_close(fm_eval_quantile(v, 8, 0.99), 8.79, 1e-12);
    assert_close(fm_eval_quantile(v, 8, 1), 9, 0);
    fm_eval_mean one = {0};
    fm_eval_mean_add(&one, 7);
    assert_true(isnan(fm_eval_mean_error(&one)));
}

/* ---- the file ------------------------------------------------------------------------------- */

enum { VOCAB = 5, CTX = 8, ROWS = 3, WINDOWS = 2, IDS = 16, HEAD = 256 };

static const fm_eval_shape SHAPE = {.n_vocab = VOCAB,
                                    .n_ctx = CTX,
                                    .step = CTX,
                                    .first = CTX / 2,
                                    .n_row = ROWS,
                                    .n_window = WINDOWS,
                                    .n_id = IDS,
                                    .bos_id = -1,
                                    .n_expert_used = 4,
                                    .identity = UINT64_C(0x0123456789abcdef),
                                    .name = "Some Model",
                                    .architecture = "qwen35moe"};

static float value_at(int row, int i)
{
    return (float)(row * 10 + i) - 7.5f;
}

static const char *write_whole(const char *name)
{
    const char *path = scratch_path(name);
    int32_t ids[IDS];
    for (int i = 0; i < IDS; i++) ids[i] = i % VOCAB;
    fm_logits_file f;
    fm_error err = {0};
    if (fm_logits_create(&f, path, &SHAPE, ids, &err) != FM_OK) fail_msg("%s", err.msg);
    for (int r = 0; r < WINDOWS * ROWS; r++) {
        float row[VOCAB];
        for (int i = 0; i < VOCAB; i++) row[i] = value_at(r, i);
        assert_int_equal(fm_logits_write_row(&f, row, &err), FM_OK);
    }
    assert_int_equal(fm_logits_commit(&f, &err), FM_OK);
    fm_logits_destroy(&f);
    return path;
}

/* Reads everything; FM_OK or the first failure. Values are what was written, or a failure comes. */
static fm_status read_whole(const char *path, fm_error *err)
{
    fm_logits_file f;
    int32_t *ids;
    fm_status st = fm_logits_open(&f, path, &ids, err);
    if (st != FM_OK) return st;
    float row[VOCAB];
    bool as_written = true;
    for (int r = 0; r < WINDOWS * ROWS && st == FM_OK; r++) {
        st = fm_logits_read_row(&f, row, err);
        for (int i = 0; i < VOCAB; i++) as_written = as_written && row[i] == value_at(r, i);
    }
    if (st == FM_OK) assert_true(as_written);
    free(ids);
    fm_logits_destroy(&f);
    return st;
}

static void what_was_written_comes_back(void **st)
{
    (void)st;
    const char *path = write_whole("whole");
    fm_logits_file f;
    int32_t *ids;
    fm_error err = {0};
    if (fm_logits_open(&f, path, &ids, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_int_equal(f.shape.n_vocab, VOCAB);
    assert_int_equal(f.shape.n_window, WINDOWS);
    assert_int_equal(f.shape.n_id, IDS);
    assert_int_equal(f.shape.bos_id, -1);
    assert_int_equal(f.shape.n_expert_used, 4);
    assert_true(f.shape.identity == SHAPE.identity);
    assert_string_equal(f.shape.name, "Some Model");
    assert_string_equal(f.shape.architecture, "qwen35moe");
    for (int i = 0; i < IDS; i++) assert_int_equal(ids[i], i % VOCAB);
    free(ids);
    fm_logits_destroy(&f);
    assert_int_equal(read_whole(path, &err), FM_OK);
    FILE *file = fopen(path, "rb");
    fseek(file, 0, SEEK_END);
    assert_int_equal(ftell(file), fm_logits_file_bytes(&SHAPE));
    fclose(file);
}

static unsigned char *load(const char *path, size_t *n)
{
    static unsigned char bytes[4096];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    *n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    return bytes;
}

static const char *store(const unsigned char *bytes, size_t n)
{
    const char *path = scratch_path("damaged");
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
    return path;
}

static void any_changed_byte_is_refused(void **st)
{
    (void)st;
    size_t n;
    unsigned char *bytes = load(write_whole("whole"), &n);
    for (size_t i = 0; i < n; i++) {
        bytes[i] ^= 0x41;
        fm_error err = {0};
        const fm_status got = read_whole(store(bytes, n), &err);
        if (got != FM_E_FORMAT && got != FM_E_UNSUPPORTED)
            fail_msg("byte %zu changed: status %d (%s)", i, got, err.msg);
        assert_true(err.msg[0]);
        bytes[i] ^= 0x41;
    }
}

static void any_cut_or_growth_is_refused(void **st)
{
    (void)st;
    size_t n;
    unsigned char *bytes = load(write_whole("whole"), &n);
    for (size_t cut = 0; cut < n; cut += cut < HEAD + 20 ? 1 : 7) {
        fm_error err = {0};
        assert_int_equal(read_whole(store(bytes, cut), &err), FM_E_FORMAT);
        assert_true(err.msg[0]);
    }
    bytes[n] = 0;
    fm_error err = {0};
    assert_int_equal(read_whole(store(bytes, n + 1), &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, "its header promises"));
}

static void other_files_are_refused_by_name(void **st)
{
    (void)st;
    size_t n;
    unsigned char *bytes = load(write_whole("whole"), &n);
    fm_error err = {0};
    bytes[248] = 2;
    assert_int_equal(read_whole(store(bytes, n), &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, "the rounding of activations"));
    bytes[248] = 0;
    bytes[8] = 2;
    assert_int_equal(read_whole(store(bytes, n), &err), FM_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "version 2"));
    memcpy(bytes, "GGUF", 4);
    assert_int_equal(read_whole(store(bytes, n), &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, "magic is 47 47 55 46 47 49 54 53, expected 46 4d 4c 4f"));
    assert_int_equal(read_whole(scratch_path("absent"), &err), FM_E_IO);
    assert_int_equal(read_whole("/", &err), FM_E_ARG);
}

static void unfinished_file_leaves_nothing(void **st)
{
    (void)st;
    const char *path = scratch_path("unfinished");
    const int32_t ids[IDS] = {0};
    const float row[VOCAB] = {0};
    fm_logits_file f;
    fm_error err = {0};
    assert_int_equal(fm_logits_create(&f, path, &SHAPE, ids, &err), FM_OK);
    assert_int_equal(fm_logits_write_row(&f, row, &err), FM_OK);
    assert_int_equal(fm_logits_commit(&f, &err), FM_E_ARG);
    char temp[1024];
    snprintf(temp, sizeof temp, "%s", f.temp_path);
    assert_int_equal(access(temp, F_OK), 0);
    fm_logits_destroy(&f);
    assert_int_not_equal(access(temp, F_OK), 0);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void file_larger_than_the_disk_is_refused_before_work(void **st)
{
    (void)st;
    fm_eval_shape huge = SHAPE;
    huge.n_vocab = 1 << 24;
    huge.n_window = INT64_C(1) << 32;
    const int32_t ids[IDS] = {0};
    fm_logits_file f;
    fm_error err = {0};
    assert_int_equal(fm_logits_create(&f, scratch_path("huge"), &huge, ids, &err), FM_E_IO);
    assert_non_null(strstr(err.msg, "MB free"));
    assert_int_not_equal(access(scratch_path("huge"), F_OK), 0);
    huge.n_window = INT64_MAX / CTX;
    assert_true(fm_logits_file_bytes(&huge) == UINT64_MAX); /* and no wrapped number */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(divergence_of_two_rows_is_numpys),
        cmocka_unit_test(row_that_is_no_number_is_noticed),
        cmocka_unit_test(large_logits_do_not_overflow),
        cmocka_unit_test(mean_error_and_quantiles_are_numpys),
        cmocka_unit_test(what_was_written_comes_back),
        cmocka_unit_test(any_changed_byte_is_refused),
        cmocka_unit_test(any_cut_or_growth_is_refused),
        cmocka_unit_test(other_files_are_refused_by_name),
        cmocka_unit_test(unfinished_file_leaves_nothing),
        cmocka_unit_test(file_larger_than_the_disk_is_refused_before_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
