/* How text is cut into pieces, per family, against Hugging Face's library with the same published
 * patterns; and the translation of patterns. */
#include "test_tokenizer_vectors.h"

#include "text/pattern.h"
#include "text/pretokenize.h"

static fm_splitter *family_splitter(const char *name, size_t n)
{
    const fm_split_family *family = fm_split_family_find(name, n);
    if (!family) fail_msg("family %.*s is not known", (int)n, name);
    size_t n_pattern = 0;
    while (family->patterns[n_pattern]) n_pattern++;
    fm_splitter *s;
    fm_error err = {0};
    if (fm_splitter_create(&s, family->patterns, n_pattern, &err) != FM_OK) fail_msg("%s", err.msg);
    return s;
}

/* splits.gz: the strings, then per family its name and per string the lengths of its pieces. */
static void families_cut_as_hf_does(void **state)
{
    (void)state;
    blob all = blob_gunzip(VECTORS "splits.gz");
    assert_non_null(all.data);
    const size_t n = blob_varint(&all), first = all.pos;
    for (size_t i = 0; i < n; i++) {
        size_t len;
        blob_string(&all, &len);
    }
    const size_t n_family = blob_varint(&all);
    fm_pieces pieces = {0};
    for (size_t f = 0; f < n_family; f++) {
        size_t name_len;
        const char *name = blob_string(&all, &name_len);
        fm_splitter *s = family_splitter(name, name_len);
        blob texts = all;
        texts.pos = first;
        int n_bad = 0;
        for (size_t i = 0; i < n; i++) {
            size_t len, at = 0;
            const char *text = blob_string(&texts, &len);
            fm_error err = {0};
            if (fm_splitter_run(s, &pieces, text, len, &err) != FM_OK) fail_msg("%s", err.msg);
            const size_t n_want = blob_varint(&all);
            int same = n_want == pieces.n;
            for (size_t k = 0; k < n_want; k++) {
                at += blob_varint(&all);
                if (same && pieces.end[k] != at) same = 0;
            }
            if (same) continue;
            print_message("%.*s cuts \"", (int)name_len, name);
            print_text(text, len);
            print_message("\" after");
            for (size_t k = 0; k < pieces.n; k++) print_message(" %zu", pieces.end[k]);
            print_message("\n");
            if (++n_bad == 20) break;
        }
        print_message("%.*s: %zu strings\n", (int)name_len, name, n);
        assert_int_equal(n_bad, 0);
        fm_splitter_destroy(s);
    }
    free(pieces.end);
    free(all.data);
}

static void cut_as(const char *pattern, const char *text, const char *expected)
{
    fm_splitter *s;
    fm_error err = {0};
    fm_pieces pieces = {0};
    if (fm_splitter_create(&s, &pattern, 1, &err) != FM_OK) fail_msg("%s: %s", pattern, err.msg);
    if (fm_splitter_run(s, &pieces, text, strlen(text), &err) != FM_OK) fail_msg("%s", err.msg);
    char got[300] = "";
    for (size_t i = 0, from = 0; i < pieces.n; from = pieces.end[i++]) {
        if (i) strcat(got, "|");
        strncat(got, text + from, pieces.end[i] - from);
    }
    assert_string_equal(got, expected);
    free(pieces.end);
    fm_splitter_destroy(s);
}

/* Expected by the rules of Oniguruma (Ruby syntax), by hand. */
static void patterns_mean_what_they_mean_in_oniguruma(void **state)
{
    (void)state;
    cut_as("[a-z&&[^c-e]]+", "abcdefg", "ab|cde|fg");
    cut_as("[^a-z&&[c-e]]+", "abcdefg", "ab|cde|fg"); /* everything but c, d, e */
    cut_as("[[a-c]x-z]+", "abxyqz", "abxy|q|z");
    cut_as("[[^a]]+", "xay", "x|a|y");
    cut_as("[+-]", "a+b-c", "a|+|b|-|c");
    cut_as("[\\s-x]", "a-b x", "a|-|b| |x"); /* no range from a set: the hyphen is itself */
    cut_as("\\h", "fg", "f|g");
    cut_as("\\s", "a\u00a0b\u180ec", "a|\u00a0|b\u180ec"); /* U+180E is no white space */
    cut_as("\\p{Han}", "a\u3001\u4e2d", "a\u3001|\u4e2d"); /* the script, not its extensions */
    cut_as("^b", "a\nb", "a\n|b");                         /* ^ and $ at every line */
    cut_as("(?i:k)", "\u212aK", "\u212a|K");               /* the Kelvin sign is a k */
    cut_as("a++b|a", "aab", "aab");
    cut_as("x*", "axxb", "a|xx|b"); /* empty matches cut, too */
}

static void refused(const char *pattern, const char *because)
{
    char *out;
    fm_error err = {0};
    const fm_status st = fm_pattern_translate(&out, pattern, strlen(pattern), &err);
    assert_int_equal(st, FM_E_UNSUPPORTED);
    assert_null(out);
    if (!strstr(err.msg, because))
        fail_msg("%s: \"%s\" does not say %s", pattern, err.msg, because);
}

static void unknown_constructs_are_refused_by_name(void **state)
{
    (void)state;
    refused("\\w+", "\\w");
    refused("\\bx", "\\b");
    refused("(a)\\1", "\\1");
    refused("[[:alpha:]]", "POSIX");
    refused("(?<n>a)", "group");
    refused("a(?i)b", "group");
    refused("(*UTF)a", "group");
    refused("a{,3}", "{");
    refused("a{2}+", "{n}+");
    refused("[a-\\d]", "range");
    refused("[]a]", "empty");
    refused("[a&&]", "empty");
    refused("[abc", "]");
    refused("\\p{L", "property");
    refused("\\pL", "\\p");
    refused("\\xff", "7f");
    refused("abc\\", "backslash");
    refused("\xc3", "UTF-8");
    refused("\\Qa\\E", "\\Q");
}

static void pattern_errors_reach_the_caller(void **state)
{
    (void)state;
    const char *const broken[] = {"a(", "*a", "\\p{Nosuchscript}", "(?<=a+)b"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        fm_splitter *s;
        fm_error err = {0};
        assert_int_not_equal(fm_splitter_create(&s, &broken[i], 1, &err), FM_OK);
        assert_null(s);
        assert_true(err.msg[0] != 0);
    }
}

/* A pattern that backtracks without end is stopped, not waited for. */
static void endless_backtracking_is_stopped(void **state)
{
    (void)state;
    const char *pattern = "(?:a|aa|aaa)+c";
    fm_splitter *s;
    fm_error err = {0};
    fm_pieces pieces = {0};
    assert_int_equal(fm_splitter_create(&s, &pattern, 1, &err), FM_OK);
    char text[200];
    memset(text, 'a', sizeof text);
    memcpy(text + sizeof text - 2, "bc", 2);
    assert_int_equal(fm_splitter_run(s, &pieces, text, sizeof text, &err), FM_E_LIMIT);
    assert_true(err.msg[0] != 0);
    free(pieces.end);
    fm_splitter_destroy(s);
}

/* One word of a megabyte in every family: no stack overflow, no blow-up. */
static void long_runs_are_cut_in_every_family(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen35",  "qwen2", "deepseek-v3", "deepseek-llm",
                                        "kimi-k2", "glm4",  "gpt-4o",      "gpt-2"};
    static const char *const units[] = {"a", "A", " ", "é", "的", "1", ".", "\n", "\xcc\x81"};
    const size_t n = 1 << 20;
    char *text = malloc(n + 8);
    assert_non_null(text);
    for (size_t f = 0; f < sizeof names / sizeof names[0]; f++) {
        fm_splitter *s = family_splitter(names[f], strlen(names[f]));
        for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
            const size_t len = strlen(units[u]);
            size_t w = 0;
            for (; w + len <= n; w += len) memcpy(text + w, units[u], len);
            text[w++] = 'x';
            fm_pieces pieces = {0};
            fm_error err = {0};
            if (fm_splitter_run(s, &pieces, text, w, &err) != FM_OK)
                fail_msg("%s, run of \"%s\": %s", names[f], units[u], err.msg);
            assert_int_equal(pieces.end[pieces.n - 1], w);
            free(pieces.end);
        }
        fm_splitter_destroy(s);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_cut_as_hf_does),
        cmocka_unit_test(patterns_mean_what_they_mean_in_oniguruma),
        cmocka_unit_test(unknown_constructs_are_refused_by_name),
        cmocka_unit_test(pattern_errors_reach_the_caller),
        cmocka_unit_test(endless_backtracking_is_stopped),
        cmocka_unit_test(long_runs_are_cut_in_every_family),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
