/* Files: what is given another name never takes the place of what has it; small files are read whole, and nothing else is. */
#include "os/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/read_file.h"

static char folder[] = "/tmp/fm_file_XXXXXX";

static const char *at(const char *name)
{
    static char path[4][100];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(at(name), "wb");
    assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void check(const char *name, const char *text)
{
    char *data;
    size_t n;
    fm_error err = {0};
    if (fm_read_file(&data, &n, at(name), 100, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_string_equal(data, text);
    assert_int_equal(n, strlen(text));
    free(data);
}

static void a_taken_name_stays_whose_it_is(void **state)
{
    (void)state;
    fm_error err = {0};
    bool is_taken;
    put("a", "first");
    put("b", "second");
    assert_int_equal(fm_file_rename_new(at("a"), at("b"), &is_taken, &err), FM_E_IO);
    assert_true(is_taken);
    check("a", "first");
    check("b", "second");
    if (fm_file_rename_new(at("a"), at("c"), &is_taken, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_false(is_taken);
    check("c", "first");
    assert_int_equal(fm_file_rename_new(at("a"), at("d"), &is_taken, &err), FM_E_IO);
    assert_false(is_taken);
    unlink(at("b"));
    unlink(at("c"));
}

static void refused(const char *name, fm_status status, const char *expect)
{
    char *data;
    size_t n;
    fm_error err = {0};
    alarm(20);
    const fm_status st = fm_read_file_if_any(&data, &n, at(name), 100, &err);
    alarm(0);
    assert_null(data);
    if (st != status || !strstr(err.msg, expect)) fail_msg("status %d: %s", st, err.msg);
}

static void small_files_are_read_whole(void **state)
{
    (void)state;
    char *data;
    size_t n;
    fm_error err = {0};
    put("empty", "");
    check("empty", "");
    put("text", "text");
    check("text", "text");
    assert_int_equal(fm_read_file_if_any(&data, &n, at("none"), 100, &err), FM_OK);
    assert_null(data);
    assert_int_equal(fm_read_file(&data, &n, at("none"), 100, &err), FM_E_IO);
    assert_non_null(strstr(err.msg, "none"));
    char long_text[102];
    memset(long_text, 'x', sizeof long_text);
    long_text[101] = 0;
    put("long", long_text);
    refused("long", FM_E_LIMIT, "long: has 101 bytes, expected at most 100");
    assert_int_equal(mkfifo(at("pipe"), 0600), 0);
    refused("pipe", FM_E_FORMAT, "pipe: is a pipe, expected a regular file");
    refused("", FM_E_FORMAT, "is a directory, expected a regular file");
    unlink(at("empty"));
    unlink(at("text"));
    unlink(at("long"));
    unlink(at("pipe"));
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_taken_name_stays_whose_it_is),
        cmocka_unit_test(small_files_are_read_whole),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
