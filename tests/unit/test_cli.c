/* The pieces of the command line that can be tested without a model: numbers as people type them,
 * options, stop strings, .npy files and JSON. */
#include "cli/cli.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "cli/npy.h"
#include "cli/stop_filter.h"

/* ---- numbers -------------------------------------------------------------------------------- */

static void sizes_are_powers_of_1024(void **state)
{
    (void)state;
    const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"4096", 4096},
        {"512M", 512ull << 20},
        {"512m", 512ull << 20},
        {"4G", 4ull << 30},
        {"4GiB", 4ull << 30},
        {"4GB", 4ull << 30},
        {"4gb", 4ull << 30},
        {"1.5G", 3ull << 29},
        {"0.5K", 512},
        {"2T", 2ull << 40},
        {"7B", 7},
        {"0", 0},
        {"18446744073709551615", UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t value = 1;
        assert_true(fm_cli_parse_size(good[i].text, &value));
        assert_true(value == good[i].bytes);
    }
    const char *bad[] = {"",
                         "G",
                         "4X",
                         "4 G",
                         "-4G",
                         "4Gi",
                         "4GiBs",
                         "1.5",
                         "1..5",
                         "1e9",
                         "0x10",
                         ".5G",
                         "nan",
                         "18446744073709551616",
                         "99999999999G",
                         "4G4",
                         "1,5G",
                         "+4G"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t value = 77;
        assert_false(fm_cli_parse_size(bad[i], &value));
        assert_true(value == 77);
    }
}

static void numbers_are_whole_words(void **state)
{
    (void)state;
    int64_t i;
    uint64_t u;
    double d;
    assert_true(fm_cli_parse_int("-5", -10, 10, &i) && i == -5);
    assert_false(fm_cli_parse_int("11", -10, 10, &i));
    assert_false(fm_cli_parse_int("5x", -10, 10, &i));
    assert_false(fm_cli_parse_int(" 5", -10, 10, &i));
    assert_false(fm_cli_parse_int("", -10, 10, &i));
    assert_false(fm_cli_parse_int("99999999999999999999", INT64_MIN, INT64_MAX, &i));
    assert_true(fm_cli_parse_u64("18446744073709551615", &u) && u == UINT64_MAX);
    assert_false(fm_cli_parse_u64("-1", &u));
    assert_false(fm_cli_parse_u64("", &u));
    assert_true(fm_cli_parse_real("0.7", &d) && d == 0.7);
    assert_true(fm_cli_parse_real("-1e2", &d) && d == -100);
    const char *bad[] = {"", "nan", "inf", "0x1p3", "1.2.3", "0,7", "e5", "1e999"};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        assert_false(fm_cli_parse_real(bad[k], &d));
    }
}

static void id_lists_name_what_is_wrong(void **state)
{
    (void)state;
    int32_t *ids;
    size_t n;
    fm_error err = {0};
    assert_int_equal(fm_cli_parse_ids(&ids, &n, " 1, 2,3\n4\t5 ,6,\n", "--ids", &err), FM_OK);
    assert_int_equal(n, 6);
    for (int i = 0; i < 6; i++) assert_int_equal(ids[i], i + 1);
    assert_int_equal(fm_cli_check_ids(ids, n, 7, "--ids", &err), FM_OK);
    assert_int_equal(fm_cli_check_ids(ids, n, 6, "--ids", &err), FM_E_ARG);
    assert_non_null(strstr(err.msg, "id 6 (number 6)"));
    free(ids);
    const char *bad[] = {"",    "  ", "1,,2", ",1",         "1;2",
                         "x",   "1x", "-1",   "2147483648", "1 2 99999999999999999999",
                         "0x10"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(fm_cli_parse_ids(&ids, &n, bad[i], "list", &err), FM_E_ARG);
        assert_null(ids);
        assert_non_null(strstr(err.msg, "list"));
    }
}

/* ---- options -------------------------------------------------------------------------------- */

static const fm_cli_command *command(const char *name)
{
    const fm_cli_command *c = fm_cli_commands;
    while (c->name && strcmp(c->name, name) != 0) c++;
    assert_non_null(c->name);
    return c;
}

/* Parses words up to NULL; messages go nowhere. */
static int parse(fm_cli_options *o, const char *name, ...)
{
    char *argv[32];
    int argc = 0;
    va_list words;
    va_start(words, name);
    for (char *word; (word = va_arg(words, char *)) != NULL;) argv[argc++] = word;
    va_end(words);
    fflush(stderr);
    const int saved = dup(2), nowhere = open("/dev/null", O_WRONLY);
    assert_true(saved >= 0 && nowhere >= 0);
    dup2(nowhere, 2);
    const int status = fm_cli_parse(o, command(name), argc, argv);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    close(nowhere);
    return status;
}

static void defaults_come_from_the_table(void **state)
{
    (void)state;
    fm_cli_options o;
    fm_sampler_options s;
    fm_sampler_options_init(&s);
    assert_int_equal(parse(&o, "run", "m.gguf", NULL), FM_EXIT_OK);
    assert_string_equal(o.model, "m.gguf");
    assert_true(o.temperature == s.temperature && o.top_p == s.top_p && o.top_k == s.top_k);
    assert_true(o.min_p == s.min_p && o.repeat_penalty == s.repeat_penalty);
    assert_true(o.n_predict == -1 && !o.has_seed && o.memory_bytes == 0 && o.n_batch == 0);
    assert_string_equal(o.kv, "f16");
    assert_null(o.io);
}

static void options_may_stand_anywhere(void **state)
{
    (void)state;
    fm_cli_options o;
    assert_int_equal(parse(&o, "run", "--memory", "4G", "-p", "-x", "m.gguf", "--temp=0", "-n", "5",
                           "--stop", "a", "--stop=b=c", "--seed", "9", "-q", NULL),
                     FM_EXIT_OK);
    assert_true(o.memory_bytes == 4ull << 30 && o.temperature == 0 && o.n_predict == 5);
    assert_string_equal(o.prompt, "-x"); /* a value may start with a dash */
    assert_int_equal(o.stops.n, 2);
    assert_string_equal(o.stops.items[1], "b=c");
    assert_true(o.has_seed && o.seed == 9 && o.is_quiet);
    assert_int_equal(parse(&o, "run", "-p", "x", "--", "-odd-name.gguf", NULL), FM_EXIT_OK);
    assert_string_equal(o.model, "-odd-name.gguf");
}

static void mistakes_are_usage_errors(void **state)
{
    (void)state;
    fm_cli_options o;
#define WRONG(...) assert_int_equal(parse(&o, __VA_ARGS__, NULL), FM_EXIT_USAGE)
    WRONG("run");
    WRONG("run", "a", "b");
    WRONG("run", "a", "--nonsense");
    WRONG("run", "a", "--memory");
    WRONG("run", "a", "--memory", "0");
    WRONG("run", "a", "--memory", "lots");
    WRONG("run", "a", "-n", "-2");
    WRONG("run", "a", "-m", "b");
    WRONG("run", "a", "--file", "");
    WRONG("run", "a", "--set", "");
    WRONG("run", "a", "-n", "2.5");
    WRONG("run", "a", "--threads", "0");
    WRONG("run", "a", "--temp", "hot");
    WRONG("run", "a", "--io", "floppy");
    WRONG("run", "a", "--io", "");
    WRONG("run", "a", "--io", "uring|pread");
    WRONG("run", "a", "--kernels", "AVX2");
    WRONG("run", "a", "--stop", "");
    WRONG("run", "a", "--seed", "-3");
    WRONG("run", "a", "--json=yes");
    WRONG("run", "a", "--mem", "4G"); /* no abbreviations */
    WRONG("info", "a", "--memory", "4G");
    WRONG("logits", "a", "--json");
    WRONG("tokenize", "a", "-n", "3");
}

static void help_lists_every_option_of_a_command(void **state)
{
    (void)state;
    const char *const expected[] = {
        "--prompt", "--file",  "--raw",   "--tokens",  "--stop",           "--json", "--quiet",
        "--temp",   "--top-k", "--top-p", "--min-p",   "--repeat-penalty", "--seed", "--memory",
        "--ctx",    "--batch", "--kv",    "--threads", "--experts",        "--io",   "--kernels"};
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    fm_cli_print_help(out, command("run"));
    fclose(out);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_non_null(strstr(text, expected[i]));
    }
    assert_non_null(strstr(text, "(default 0.7)"));
    assert_null(strstr(text, "--decode"));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        assert_true(strlen(line) <= 100);
    }
    free(text);
}

/* ---- stop strings --------------------------------------------------------------------------- */

typedef struct {
    char text[256];
    size_t n;
} collected;

static bool collect(void *user, const char *text, size_t n)
{
    collected *c = user;
    assert_true(c->n + n < sizeof c->text);
    memcpy(c->text + c->n, text, n);
    c->n += n;
    c->text[c->n] = '\0';
    return true;
}

/* Feeds text in pieces of every size; the result must not depend on them. */
static void check_stop(const char *const *stops, int n_stop, const char *text, const char *expected,
                       bool is_stopped)
{
    const size_t n = strlen(text);
    for (size_t piece = 1; piece <= n; piece++) {
        fm_stop_filter f;
        collected c = {0};
        assert_true(fm_stop_filter_init(&f, stops, n_stop));
        for (size_t at = 0; at < n; at += piece) {
            const size_t length = n - at < piece ? n - at : piece;
            assert_true(fm_stop_filter_push(&f, text + at, length, collect, &c));
        }
        assert_true(fm_stop_filter_flush(&f, collect, &c));
        assert_string_equal(c.text, expected);
        assert_int_equal(f.is_stopped, is_stopped);
        fm_stop_filter_deinit(&f);
    }
}

static void text_before_a_stop_string_comes_out(void **state)
{
    (void)state;
    const char *one[] = {"END"};
    check_stop(one, 1, "a story.END and more", "a story.", true);
    check_stop(one, 1, "EEND", "E", true);
    check_stop(one, 1, "ENEND", "EN", true);
    check_stop(one, 1, "no stop", "no stop", false);
    check_stop(one, 1, "held EN", "held EN", false); /* the end of text releases it */
    const char *several[] = {"aab", "\n\n", "abcd", "bc"};
    check_stop(several, 4, "x\ny\n\nz", "x\ny", true);
    check_stop(several, 4, "aaab", "a", true);
    check_stop(several, 4, "xabcd", "xa", true); /* the one that is complete first */
    const char *same_end[] = {"ab", "xab"};
    check_stop(same_end, 2, "12xab", "12", true); /* the longest of those that end together */
    check_stop(NULL, 0, "anything", "anything", false);
}

static void text_is_held_back_only_while_it_may_become_a_stop(void **state)
{
    (void)state;
    const char *stops[] = {"<end>"};
    fm_stop_filter f;
    collected c = {0};
    assert_true(fm_stop_filter_init(&f, stops, 1));
    assert_true(fm_stop_filter_push(&f, "a<en", 4, collect, &c));
    assert_string_equal(c.text, "a");
    assert_true(fm_stop_filter_push(&f, "x", 1, collect, &c));
    assert_string_equal(c.text, "a<enx");
    fm_stop_filter_deinit(&f);
}

/* ---- files ---------------------------------------------------------------------------------- */

static size_t read_all(const char *path, unsigned char *out, size_t cap)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t n = fread(out, 1, cap, f);
    fclose(f);
    return n;
}

static void npy_is_complete_or_absent(void **state)
{
    (void)state;
    char dir[] = "/tmp/fm_test_cli_XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.npy", dir);
    const float rows[2][3] = {{1, 2, 3}, {-4, 5.5f, 6}};
    fm_npy a;
    fm_error err = {0};

    assert_int_equal(fm_npy_create(&a, path, 2, 3, &err), FM_OK);
    assert_int_equal(fm_npy_write_row(&a, rows[0], &err), FM_OK);
    assert_int_not_equal(access(path, F_OK), 0);         /* not under its name yet */
    assert_int_equal(fm_npy_commit(&a, &err), FM_E_ARG); /* a row is missing */
    fm_npy_destroy(&a);
    assert_int_equal(rmdir(dir), 0); /* nothing was left */

    assert_non_null(mkdtemp(strcpy(dir, "/tmp/fm_test_cli_XXXXXX")));
    snprintf(path, sizeof path, "%s/a.npy", dir);
    assert_int_equal(fm_npy_create(&a, path, 2, 3, &err), FM_OK);
    for (int i = 0; i < 2; i++) assert_int_equal(fm_npy_write_row(&a, rows[i], &err), FM_OK);
    assert_int_equal(fm_npy_write_row(&a, rows[0], &err), FM_E_ARG);
    assert_int_equal(fm_npy_commit(&a, &err), FM_OK);
    fm_npy_destroy(&a);
    unsigned char bytes[512];
    const size_t n = read_all(path, bytes, sizeof bytes);
    const size_t header = 10 + bytes[8] + 256u * bytes[9];
    assert_memory_equal(bytes, "\x93NUMPY\x01\x00", 8);
    assert_int_equal(header % 64, 0);
    assert_int_equal(n, header + sizeof rows);
    assert_int_equal(bytes[header - 1], '\n');
    bytes[header - 1] = '\0';
    assert_non_null(strstr((char *)bytes + 10, "'shape': (2, 3)"));
    assert_non_null(strstr((char *)bytes + 10, "f4'"));
    assert_memory_equal(bytes + header, rows, sizeof rows);
    unlink(path);
    assert_int_equal(rmdir(dir), 0);
}

static void json_strings_are_valid_whatever_they_hold(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    fm_json_out j = {.out = out};
    fm_json_open(&j, NULL, '{');
    fm_json_text(&j, "a", "q\"b\\s\n\r\t\x01\x7f/", 11);
    fm_json_text(&j, "b", "\xc3\xa9\xff\xe2\x82", 5); /* valid, broken, cut off */
    fm_json_open(&j, "c", '[');
    fm_json_u64(&j, NULL, UINT64_MAX);
    fm_json_real(&j, NULL, 0.5);
    fm_json_real(&j, NULL, 0.0 / 0.0);
    fm_json_close(&j, ']');
    fm_json_open(&j, "d", '{');
    fm_json_close(&j, '}');
    fm_json_close(&j, '}');
    fclose(out);
    assert_string_equal(text, "{\"a\": \"q\\\"b\\\\s\\n\\r\\t\\u0001\\u007f/\", "
                              "\"b\": \"\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\", "
                              "\"c\": [18446744073709551615, 0.5, null], \"d\": {}}\n");
    free(text);
}

static void figures_read_well(void **state)
{
    (void)state;
    char out[FM_CLI_FIGURE];
    assert_string_equal(fm_figure_bytes(out, 0), "0 B");
    assert_string_equal(fm_figure_bytes(out, 999), "999 B");
    assert_string_equal(fm_figure_bytes(out, 1536), "1.50 KiB");
    assert_string_equal(fm_figure_bytes(out, 4ull << 30), "4.00 GiB");
    assert_string_equal(fm_figure_bytes(out, 372ull << 30), "372 GiB");
    assert_string_equal(fm_cli_count(out, 0), "0");
    assert_string_equal(fm_cli_count(out, 999), "999");
    assert_string_equal(fm_cli_count(out, 1204), "1,204");
    assert_string_equal(fm_cli_count(out, UINT64_MAX), "18,446,744,073,709,551,615");
    assert_string_equal(fm_cli_seconds(out, 59.4), "59 s");
    assert_string_equal(fm_cli_seconds(out, 59.6), "1 min 00 s");
    assert_string_equal(fm_cli_seconds(out, 3725), "1 h 02 min");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_powers_of_1024),
        cmocka_unit_test(numbers_are_whole_words),
        cmocka_unit_test(id_lists_name_what_is_wrong),
        cmocka_unit_test(defaults_come_from_the_table),
        cmocka_unit_test(options_may_stand_anywhere),
        cmocka_unit_test(mistakes_are_usage_errors),
        cmocka_unit_test(help_lists_every_option_of_a_command),
        cmocka_unit_test(text_before_a_stop_string_comes_out),
        cmocka_unit_test(text_is_held_back_only_while_it_may_become_a_stop),
        cmocka_unit_test(npy_is_complete_or_absent),
        cmocka_unit_test(json_strings_are_valid_whatever_they_hold),
        cmocka_unit_test(figures_read_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
