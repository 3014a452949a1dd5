/* Importance files as quantize reads them: a matrix at a time, whatever the file's size. */
#include "engine/importance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/gguf_write.h"
#include "support/fixture.h"

enum { COLUMNS = 65536, MATRICES = 32 };

static float sum_at(int m, int c)
{
    return (float)(m * 1000 + c % 977);
}

static void write_file(const char *path)
{
    fm_gguf_writer *w;
    fm_error err = {0};
    float *row = malloc(COLUMNS * sizeof *row), counts[MATRICES];
    assert_int_equal(fm_gguf_writer_open(&w, path, &err), FM_OK);
    fm_gguf_put_str(w, "general.type", "imatrix");
    fm_gguf_add_tensor(w, "a.in_sum2", 0, 2, (int64_t[]){COLUMNS, MATRICES},
                       (uint64_t)COLUMNS * MATRICES * sizeof *row, -1);
    fm_gguf_add_tensor(w, "a.counts", 0, 2, (int64_t[]){1, MATRICES}, sizeof counts, -1);
    if (fm_gguf_begin_data(w, &err) != FM_OK) fail_msg("%s", err.msg);
    for (int m = 0; m < MATRICES; m++) {
        counts[m] = (float)m;
        for (int c = 0; c < COLUMNS; c++) row[c] = sum_at(m, c);
        assert_int_equal(fm_gguf_write(w, row, COLUMNS * sizeof *row, &err), FM_OK);
    }
    assert_int_equal(fm_gguf_write(w, counts, sizeof counts, &err), FM_OK);
    if (fm_gguf_writer_close(w, &err) != FM_OK) fail_msg("%s", err.msg);
    free(row);
}

static void sums_stay_on_the_disk(void **state)
{
    (void)state;
    const char *path = scratch_path("large.imatrix");
    fm_importance *im;
    fm_importance_place at;
    fm_error err = {0};
    float *sums = malloc(COLUMNS * sizeof *sums), count;
    write_file(path); /* 8 MiB */
    if (fm_importance_open(&im, path, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_true(fm_importance_memory(im) < 1 << 20);
    const uint64_t hash = fm_importance_hash(im);
    if (fm_importance_find(im, "a", COLUMNS, MATRICES, &at, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_int_equal(at.n_matrix, MATRICES);
    for (int m = MATRICES - 1; m >= 0; m -= 7) {
        if (fm_importance_read(im, &at, m, sums, &count, &err) != FM_OK) fail_msg("%s", err.msg);
        assert_true(count == (float)m);
        for (int c = 0; c < COLUMNS; c++) assert_true(sums[c] == sum_at(m, c));
    }
    assert_int_equal(fm_importance_find(im, "b", COLUMNS, MATRICES, &at, &err), FM_OK);
    assert_int_equal(at.n_matrix, 0);
    assert_int_equal(fm_importance_find(im, "a", COLUMNS / 2, MATRICES, &at, &err), FM_E_FORMAT);

    /* What changes behind our back is not believed. */
    assert_int_equal(fm_importance_find(im, "a", COLUMNS, MATRICES, &at, &err), FM_OK);
    FILE *f = fopen(path, "r+b");
    const float odd = -1;
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at.sums + 8, SEEK_SET), 0);
    assert_int_equal(fwrite(&odd, sizeof odd, 1, f), 1);
    fclose(f);
    assert_int_equal(fm_importance_read(im, &at, 0, sums, &count, &err), FM_E_FORMAT);
    assert_int_equal(fm_importance_read(im, &at, 1, sums, &count, &err), FM_OK);
    fm_importance_close(im);

    write_file(path);
    if (fm_importance_open(&im, path, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_true(fm_importance_hash(im) == hash);
    fm_importance_close(im);
    free(sums);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_stay_on_the_disk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
