/* The probes: every place of the files once and none twice, stops when asked, and no result when there
 * is nothing to read. */
#include "os/probe.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { N_FILE = 2, PLACE = 8192 };

static char name[N_FILE][256];
static const char *path[N_FILE];
static uint64_t file_bytes[N_FILE] = {37 * PLACE + 100, 5 * PLACE};

static int make_files(void **state)
{
    (void)state;
    const char *dir = getenv("TMPDIR");
    for (int i = 0; i < N_FILE; i++) {
        snprintf(name[i], sizeof name[i], "%s/fm_probe_%d_%d.bin", dir ? dir : "/tmp",
                 (int)getpid(), i);
        path[i] = name[i];
        const int fd = open(name[i], O_CREAT | O_TRUNC | O_WRONLY, 0600);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t)file_bytes[i]), 0);
        close(fd);
    }
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    for (int i = 0; i < N_FILE; i++) unlink(name[i]);
    return 0;
}

static fm_disk_probe a_probe(void)
{
    return (fm_disk_probe){.path = path,
                           .file_bytes = file_bytes,
                           .n_file = N_FILE,
                           .io_engine = "pread",
                           .depth = 4,
                           .read_bytes = PLACE - 100,
                           .buffer_bytes = 1 << 20,
                           .max_us = 60 * 1000000ull};
}

static void every_place_is_read_once(void **state)
{
    (void)state;
    fm_error err = {0};
    fm_disk_probe_result result;
    fm_disk_probe probe = a_probe();
    assert_int_equal(fm_probe_disk(&result, &probe, &err), FM_OK);
    assert_int_equal(result.read_bytes, PLACE); /* rounded up */
    assert_int_equal(result.requests, 42);
    assert_int_equal(result.bytes, 42 * PLACE);
    assert_true(result.gb_s > 0);

    probe.first = 40;
    assert_int_equal(fm_probe_disk(&result, &probe, &err), FM_OK);
    assert_int_equal(result.requests, 2);
    probe.first = 10;
    probe.max_requests = 7;
    assert_int_equal(fm_probe_disk(&result, &probe, &err), FM_OK);
    assert_int_equal(result.requests, 7);
    probe.max_requests = 0;
    probe.first = 0;
    probe.buffer_bytes = 20 * PLACE; /* less memory than requests: places in it are used again */
    assert_int_equal(fm_probe_disk(&result, &probe, &err), FM_OK);
    assert_int_equal(result.requests, 42);
    probe.first = 42;
    assert_int_equal(fm_probe_disk(&result, &probe, &err), FM_OK);
    assert_int_equal(result.requests, 0);
    assert_true(result.gb_s == 0);
}

static void the_time_limit_holds(void **state)
{
    (void)state;
    fm_disk_probe_result result;
    fm_disk_probe probe = a_probe();
    probe.max_us = 0;
    assert_int_equal(fm_probe_disk(&result, &probe, NULL), FM_OK);
    assert_in_range(result.requests, 1, 8); /* what was under way when the time was over */
    probe.buffer_bytes = 1;                 /* one request at a time, still one */
    assert_int_equal(fm_probe_disk(&result, &probe, NULL), FM_OK);
    assert_int_equal(result.requests, 1);
}

static void requests_shrink_to_the_file(void **state)
{
    (void)state;
    fm_disk_probe_result result;
    fm_disk_probe probe = a_probe();
    probe.read_bytes = 1 << 30;
    assert_int_equal(fm_probe_disk(&result, &probe, NULL), FM_OK);
    assert_int_equal(result.read_bytes, 37 * PLACE);
    assert_int_equal(result.requests, 1);

    const uint64_t tiny = 100;
    probe.file_bytes = &tiny;
    probe.n_file = 1;
    assert_int_equal(fm_probe_disk(&result, &probe, NULL), FM_OK);
    assert_true(result.requests == 0 && result.gb_s == 0);
}

static bool never(void *user)
{
    ++*(int *)user;
    return false;
}

static void probes_stop_when_asked(void **state)
{
    (void)state;
    fm_error err = {0};
    int asked = 0;
    fm_disk_probe_result result;
    fm_disk_probe disk = a_probe();
    disk.go = never;
    disk.go_user = &asked;
    assert_int_equal(fm_probe_disk(&result, &disk, &err), FM_E_CANCELLED);
    assert_int_equal(asked, 1);

    double gb_s;
    const fm_memory_probe memory = {
        .bytes = 1 << 20, .n_threads = 1, .passes = 5, .go = never, .go_user = &asked};
    assert_int_equal(fm_probe_memory(&gb_s, &memory, &err), FM_E_CANCELLED);
    assert_int_equal(asked, 2);
    assert_true(gb_s == 0);
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    fm_error err = {0};
    fm_disk_probe_result result;
    const char *none[N_FILE] = {path[0], "/nonexistent/m.gguf"};
    fm_disk_probe probe = a_probe();
    probe.path = none;
    assert_int_equal(fm_probe_disk(&result, &probe, &err), FM_E_IO);
    assert_non_null(strstr(err.msg, "/nonexistent/m.gguf"));
    assert_true(fm_probe_drop_cache("/nonexistent/m.gguf", &err) != FM_OK);
    assert_int_equal(fm_probe_drop_cache(path[0], &err), FM_OK);
}

static void memory_has_a_rate(void **state)
{
    (void)state;
    double gb_s;
    for (int n = 1; n <= 3; n++) {
        const fm_memory_probe probe = {.bytes = (3 << 20) + 5, .n_threads = n, .passes = 3};
        assert_int_equal(fm_probe_memory(&gb_s, &probe, NULL), FM_OK);
        assert_true(gb_s > 0);
    }
    const fm_memory_probe none = {.bytes = 1 << 20, .n_threads = 1, .passes = 0};
    assert_int_equal(fm_probe_memory(&gb_s, &none, NULL), FM_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_place_is_read_once),    cmocka_unit_test(the_time_limit_holds),
        cmocka_unit_test(requests_shrink_to_the_file), cmocka_unit_test(probes_stop_when_asked),
        cmocka_unit_test(a_missing_file_is_named),     cmocka_unit_test(memory_has_a_rate),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
