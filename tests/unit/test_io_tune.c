/* How a disk is read: the choice between measured rates, and what is kept of it. */
#include "os/io_tune.h"

#include <fcntl.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/fault.h"

enum { FILE_BYTES = 24 << 20, READ = 48 << 10 };

static char dir[200], name[256];
static const char *path[1] = {name};
static uint64_t file_bytes[1] = {FILE_BYTES};

static int make_dir(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/fm_tune_XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(name, sizeof name, "%s/m.bin", dir);
    const int fd = open(name, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, FILE_BYTES), 0);
    close(fd);
    setenv("XDG_CACHE_HOME", dir, 1);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static int forget(void **state)
{
    (void)state;
    fm_fault_set(NULL);
    setenv("XDG_CACHE_HOME", dir, 1);
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s/flashmoe'", dir);
    return system(command);
}

/* ---- the decision ------------------------------------------------------------------------ */

static void a_tenth_is_needed_to_leave_what_is_used(void **state)
{
    (void)state;
    fm_io_candidate c[] = {
        {8, 1 << 20, {1.0, 1.0, 1.0}}, {16, 1 << 20, {1.09, 1.09, 1.09}}, {4, 1 << 20, {1, 1, 1}}};
    assert_int_equal(fm_io_tune_pick(c, 3), 0); /* not even for less under way */
    c[1].rate[0] = c[1].rate[1] = c[1].rate[2] = 1.2;
    assert_int_equal(fm_io_tune_pick(c, 3), 1);
    assert_int_equal(fm_io_tune_pick(c, 1), 0);
}

/* The disk became three times as fast between rounds: only what was measured in the same round is compared,
 * and one wild round does not decide. */
static void a_wandering_disk_does_not_decide(void **state)
{
    (void)state;
    const fm_io_candidate c[] = {{8, 1 << 20, {0.5, 1.0, 1.5, 1.5}},
                                 {16, 1 << 20, {0.51, 1.01, 1.51, 9.0}},
                                 {32, 1 << 20, {0.9, 2.0, 9.0, 1.4}}};
    assert_int_equal(fm_io_tune_pick(c, 2), 0); /* fast in one round */
    assert_int_equal(fm_io_tune_pick(c, 3), 0); /* slower in one */
    const fm_io_candidate once[] = {{8, 1 << 20, {0.5, 1, 1}}, {16, 1 << 20, {5, 0, 0}}};
    assert_int_equal(fm_io_tune_pick(once, 2), 0); /* one round is no measurement */
}

static void of_equals_the_least_under_way(void **state)
{
    (void)state;
    const fm_io_candidate c[] = {{8, 1 << 20, {1, 1, 1}},
                                 {64, 1 << 20, {2.0, 2.0, 2.0}},
                                 {16, 1 << 20, {1.95, 1.92, 1.97}},
                                 {32, 1 << 20, {1.99, 2.0, 1.98}},
                                 {12, 1 << 20, {1.6, 1.6, 1.6}}};
    assert_int_equal(fm_io_tune_pick(c, 5), 2);
    /* A device that falls with depth. */
    const fm_io_candidate phone[] = {
        {8, 1 << 20, {1.8, 1.8, 1.8}}, {2, 1 << 20, {2.4, 2.5, 2.4}}, {16, 1 << 20, {1, 1, 1}}};
    assert_int_equal(fm_io_tune_pick(phone, 3), 1);
}

/* ---- measuring and remembering ----------------------------------------------------------- */

static char said[4096];

static void keep_log(void *user, fm_log_level level, const char *line)
{
    (void)user, (void)level;
    const size_t n = strlen(said);
    snprintf(said + n, sizeof said - n, "%s\n", line);
}

static fm_io_tune a_tune(void)
{
    said[0] = 0;
    return (fm_io_tune){.path = path,
                        .file_bytes = file_bytes,
                        .n_file = 1,
                        .io_engine = "pread",
                        .read_bytes = READ,
                        .buffer_bytes = 8 << 20,
                        .max_us =
                            4000 * 1000, /* a slow machine under a sanitizer must get through */
                        .log = keep_log};
}

/* The only file in the folder of the cache directory. */
static const char *kept_file(void)
{
    static char found[300];
    char pattern[300];
    glob_t g;
    snprintf(pattern, sizeof pattern, "%s/flashmoe/*", dir);
    found[0] = 0;
    if (glob(pattern, 0, NULL, &g) == 0) {
        assert_int_equal(g.gl_pathc, 1);
        snprintf(found, sizeof found, "%s", g.gl_pathv[0]);
        globfree(&g);
    }
    return found;
}

static void measured_once_then_remembered(void **state)
{
    (void)state;
    fm_error err = {0};
    fm_io_choice a, b;
    fm_io_tune t = a_tune();
    assert_int_equal(fm_io_choose(&a, &t, &err), FM_OK);
    assert_int_equal(a.origin, FM_IO_MEASURED);
    assert_true(a.gb_s > 0);
    assert_in_range(a.depth, 1, 256);
    assert_int_equal(a.split_bytes % FM_IO_ALIGN, 0);
    assert_non_null(strstr(said, "measuring"));

    t = a_tune();
    t.max_us = 0;
    const uint64_t reads = fm_fault_reads();
    assert_int_equal(fm_io_choose(&b, &t, &err), FM_OK);
    assert_int_equal(b.origin, FM_IO_REMEMBERED);
    assert_int_equal(b.depth, a.depth);
    assert_int_equal(b.split_bytes, a.split_bytes);
    assert_true(b.gb_s > a.gb_s * 0.99 && b.gb_s < a.gb_s * 1.01);
    assert_string_equal(said, "");
    assert_int_equal(fm_fault_reads(), reads);

    t.read_bytes = 2 * READ; /* another question */
    assert_int_equal(fm_io_choose(&b, &t, &err), FM_OK);
    assert_int_equal(b.origin, FM_IO_BY_DEFAULT);
    assert_int_equal(b.depth, FM_IO_DEFAULT_DEPTH);
    assert_int_equal(b.split_bytes, FM_IO_DEFAULT_SPLIT);
}

static void a_damaged_file_is_named_and_replaced(void **state)
{
    (void)state;
    fm_error err = {0};
    fm_io_choice a;
    fm_io_tune t = a_tune();
    assert_int_equal(fm_io_choose(&a, &t, &err), FM_OK);
    const int fd = open(kept_file(), O_RDWR);
    assert_int_equal(pwrite(fd, "\xff", 1, 33), 1); /* in the depth */
    close(fd);
    t = a_tune();
    assert_int_equal(fm_io_choose(&a, &t, &err), FM_OK);
    assert_non_null(strstr(said, "checksum"));
    assert_non_null(strstr(said, kept_file()));
    assert_int_equal(a.origin, FM_IO_MEASURED);
    t = a_tune();
    assert_int_equal(fm_io_choose(&a, &t, &err), FM_OK);
    assert_int_equal(a.origin, FM_IO_REMEMBERED);
    assert_string_equal(said, "");
}

static void what_cannot_be_kept_is_not_measured(void **state)
{
    (void)state;
    fm_error err = {0};
    fm_io_choice a;
    fm_io_tune t = a_tune();
    setenv("XDG_CACHE_HOME", name, 1); /* a file */
    assert_int_equal(fm_io_choose(&a, &t, &err), FM_OK);
    assert_int_equal(a.origin, FM_IO_BY_DEFAULT);
    assert_non_null(strstr(said, "not measured"));

    setenv("XDG_CACHE_HOME", dir, 1);
    t = a_tune();
    t.buffer_bytes = READ; /* too little memory to have anything under way */
    assert_int_equal(fm_io_choose(&a, &t, &err), FM_OK);
    assert_int_equal(a.origin, FM_IO_BY_DEFAULT);
    assert_string_equal(kept_file(), "");
}

/* The device sees pieces: eight parts of 5 MiB need not fit for eight of them to be under way. */
static void large_parts_are_measured_in_little_memory(void **state)
{
    (void)state;
    fm_error err = {0};
    fm_io_choice a;
    fm_io_tune t = a_tune();
    t.read_bytes = 5 << 20; /* the file has four */
    t.buffer_bytes = 16 << 20;
    assert_int_equal(fm_io_choose(&a, &t, &err), FM_OK);
    assert_int_equal(a.origin, FM_IO_MEASURED);
    assert_true(a.gb_s > 0);
}

/* A read that fails is for who needs the data; nothing is kept of such a measurement. */
static void failing_reads_give_the_defaults(void **state)
{
    (void)state;
    fm_error err = {0};
    fm_io_choice a;
    fm_io_tune t = a_tune();
    assert_true(fm_fault_set("read:eio-forever"));
    assert_int_equal(fm_io_choose(&a, &t, &err), FM_OK);
    assert_int_equal(a.origin, FM_IO_BY_DEFAULT);
    assert_int_equal(a.depth, FM_IO_DEFAULT_DEPTH);
    assert_non_null(strstr(said, "could not be measured"));
    assert_non_null(strstr(said, name));
    assert_string_equal(kept_file(), "");

    assert_true(fm_fault_set("read:eio:nth=5")); /* retried inside */
    t = a_tune();
    assert_int_equal(fm_io_choose(&a, &t, &err), FM_OK);
    assert_int_equal(a.origin, FM_IO_MEASURED);
}

static bool never(void *user)
{
    (void)user;
    return false;
}

static void stopping_leaves_nothing(void **state)
{
    (void)state;
    fm_error err = {0};
    fm_io_choice a;
    fm_io_tune t = a_tune();
    t.go = never;
    assert_int_equal(fm_io_choose(&a, &t, &err), FM_E_CANCELLED);
    assert_string_equal(kept_file(), "");
}

#define KEPT(f) cmocka_unit_test_setup_teardown(f, forget, forget)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tenth_is_needed_to_leave_what_is_used),
        cmocka_unit_test(a_wandering_disk_does_not_decide),
        cmocka_unit_test(of_equals_the_least_under_way),
        KEPT(measured_once_then_remembered),
        KEPT(a_damaged_file_is_named_and_replaced),
        KEPT(what_cannot_be_kept_is_not_measured),
        KEPT(large_parts_are_measured_in_little_memory),
        KEPT(failing_reads_give_the_defaults),
        KEPT(stopping_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
