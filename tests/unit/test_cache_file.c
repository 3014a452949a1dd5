/* Files of the cache directory: written whole or not at all, and refused with a reason when their content is
 * not what it should be. */
#include "os/cache_file.h"

#include <errno.h>
#include <fcntl.h>
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

static char dir[200], path[FM_CACHE_PATH_MAX];
static const char MAGIC[] = "FMTESTS1";
static const char TEXT[] = "what was measured";
enum { VERSION = 3, HEADER = 32 };

static int make_dir(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/fm_cache_XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
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

static void paths_follow_the_environment(void **state)
{
    (void)state;
    fm_error err = {0};
    char expected[FM_CACHE_PATH_MAX];
    assert_int_equal(fm_cache_path(path, "x.bin", &err), FM_OK);
    snprintf(expected, sizeof expected, "%s/flashmoe/x.bin", dir);
    assert_string_equal(path, expected);

    setenv("HOME", "/home/somebody", 1);
    setenv("XDG_CACHE_HOME", "relative", 1); /* to be ignored, says the XDG specification */
    assert_int_equal(fm_cache_path(path, "x.bin", &err), FM_OK);
    assert_string_equal(path, "/home/somebody/.cache/flashmoe/x.bin");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    assert_int_equal(fm_cache_path(path, "x.bin", &err), FM_E_UNSUPPORTED);

    static char longer[FM_CACHE_PATH_MAX + 1] = "/";
    memset(longer + 1, 'a', sizeof longer - 2);
    setenv("XDG_CACHE_HOME", longer, 1);
    assert_int_equal(fm_cache_path(path, "x.bin", &err), FM_E_LIMIT);
    setenv("XDG_CACHE_HOME", dir, 1);
}

static fm_status read_it(char *text, size_t size, fm_error *err)
{
    unsigned char *data;
    size_t n;
    const fm_status st = fm_cache_read(&data, &n, path, MAGIC, VERSION, 100, err);
    text[0] = 0;
    if (st == FM_OK && data) snprintf(text, size, "%.*s", (int)n, (const char *)data);
    if (st != FM_OK) assert_null(data);
    free(data);
    return st;
}

static void write_it(void)
{
    fm_error err = {0};
    assert_int_equal(fm_cache_path(path, "deep.bin", &err), FM_OK);
    assert_int_equal(fm_cache_write(path, MAGIC, VERSION, TEXT, strlen(TEXT), &err), FM_OK);
}

static void a_file_comes_back(void **state)
{
    (void)state;
    fm_error err = {0};
    char text[100];
    assert_int_equal(fm_cache_path(path, "none.bin", &err), FM_OK);
    assert_int_equal(read_it(text, sizeof text, &err), FM_OK); /* not there: nothing, no error */
    assert_string_equal(text, "");
    write_it();
    assert_int_equal(read_it(text, sizeof text, &err), FM_OK);
    assert_string_equal(text, TEXT);
    write_it(); /* over an old one */
    assert_int_equal(read_it(text, sizeof text, &err), FM_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 077, 0);
    assert_int_equal(st.st_size, (off_t)(HEADER + strlen(TEXT)));
}

/* Every single byte of the file, changed, is noticed; so is every length that is not the right one. */
static void damage_is_refused(void **state)
{
    (void)state;
    fm_error err = {0};
    char text[100];
    const off_t size = (off_t)(HEADER + strlen(TEXT));
    for (off_t at = 0; at < size; at++) {
        write_it();
        const int fd = open(path, O_RDWR);
        unsigned char byte;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        close(fd);
        assert_int_equal(read_it(text, sizeof text, &err), FM_E_FORMAT);
        assert_non_null(strstr(err.msg, path));
        if (at >= 12 && at < 16) assert_non_null(strstr(err.msg, "expected 0"));
    }
    for (off_t n = 0; n < size; n++) {
        write_it();
        assert_int_equal(truncate(path, n), 0);
        assert_int_equal(read_it(text, sizeof text, &err), FM_E_FORMAT);
    }
    write_it();
    assert_int_equal(truncate(path, size + 1), 0);
    assert_int_equal(read_it(text, sizeof text, &err), FM_E_FORMAT);
    assert_int_equal(truncate(path, 1000), 0); /* above the caller's limit */
    assert_int_equal(read_it(text, sizeof text, &err), FM_E_FORMAT);
}

static void another_kind_or_version_is_refused(void **state)
{
    (void)state;
    fm_error err = {0};
    unsigned char *data;
    size_t n;
    write_it();
    assert_int_equal(fm_cache_read(&data, &n, path, "FMOTHER1", VERSION, 100, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, "FMOTHER1"));
    assert_int_equal(fm_cache_read(&data, &n, path, MAGIC, VERSION + 1, 100, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, "version 3, expected 4"));
    assert_int_equal(fm_cache_read(&data, &n, dir, MAGIC, VERSION, 100, &err), FM_E_ARG);
}

static void what_cannot_be_written_is_said(void **state)
{
    (void)state;
    fm_error err = {0};
    write_it();
    char below[FM_CACHE_PATH_MAX + 8];
    snprintf(below, sizeof below, "%s/x.bin", path); /* a file where a folder should be */
    assert_int_equal(fm_cache_write(below, MAGIC, VERSION, TEXT, 1, &err), FM_E_IO);
    assert_int_equal(err.os_errno, ENOTDIR);
    snprintf(below, sizeof below, "%s/flashmoe", dir); /* a folder in the file's place */
    assert_int_equal(fm_cache_write(below, MAGIC, VERSION, TEXT, 1, &err), FM_E_IO);
    char command[FM_CACHE_PATH_MAX]; /* nothing half written stays behind */
    snprintf(command, sizeof command, "! find '%s' -name '*.tmp' | grep -q .", dir);
    assert_int_equal(system(command), 0);
}

/* A disk that is full or fails: the old file stays, and nothing beside it. */
static void what_cannot_be_brought_to_the_device_replaces_nothing(void **state)
{
    (void)state;
    fm_error err = {0};
    char text[100], command[FM_CACHE_PATH_MAX];
    snprintf(command, sizeof command, "! find '%s' -name '*.tmp' | grep -q .", dir);
    static const char *const faults[] = {"write:enospc:nth=1", "write:enospc:nth=2",
                                         "sync:eio:nth=1"};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        write_it();
        assert_true(fm_fault_set(faults[i]));
        assert_int_equal(fm_cache_write(path, MAGIC, VERSION, "other", 5, &err), FM_E_IO);
        fm_fault_set(NULL);
        assert_int_equal(err.os_errno, i == 2 ? EIO : ENOSPC);
        assert_int_equal(read_it(text, sizeof text, &err), FM_OK);
        assert_string_equal(text, TEXT);
        assert_int_equal(system(command), 0);
    }
}

static void remains_of_killed_processes_are_removed(void **state)
{
    (void)state;
    write_it();
    static const struct {
        const char *tail;
        bool is_old, stays;
    } files[] = {{".123.0.tmp", true, false}, {".4.7.tmp", true, false}, {".5.0.tmp", false, true},
                 {"x.1.0.tmp", true, true}, {".tmp", true, true}, {".1.0.txt", true, true}};
    char name[FM_CACHE_PATH_MAX + 16];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(name, sizeof name, "%s%s", path, files[i].tail);
        close(open(name, O_WRONLY | O_CREAT, 0600));
        const struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
        if (files[i].is_old) assert_int_equal(utimensat(AT_FDCWD, name, old, 0), 0);
    }
    write_it();
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(name, sizeof name, "%s%s", path, files[i].tail);
        assert_int_equal(access(name, F_OK) == 0, files[i].stays);
        (void)remove(name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_follow_the_environment),
        cmocka_unit_test(a_file_comes_back),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(another_kind_or_version_is_refused),
        cmocka_unit_test(what_cannot_be_written_is_said),
        cmocka_unit_test(what_cannot_be_brought_to_the_device_replaces_nothing),
        cmocka_unit_test(remains_of_killed_processes_are_removed),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
