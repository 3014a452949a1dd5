/* tiktoken.model of a Hugging Face directory against OpenAI's tiktoken (tests/vectors/tiktoken, made by
 * tools/oracle/tiktoken_vectors.py), what ends a generation, and what is refused; added tokens that take white space with them against Hugging
 * Face's tokenizers (strip.* of tests/vectors/tokenizer, made by tools/oracle/added_tokens.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "support/fixture.h"
#include "text/tokenizer.h"

/* Lines of a string in JSON, a tab and its ids; returns their number. */
static int compare_lines(const char *tokenizer, const char *expected)
{
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_open(&t, source_path(tokenizer), &err) != FM_OK) fail_msg("%s", err.msg);
    FILE *f = fopen(source_path(expected), "r");
    assert_non_null(f);
    char line[4096];
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        char *tab = strchr(line, '\t');
        assert_non_null(tab);
        json_t *s = json_loadb(line, (size_t)(tab - line), JSON_DECODE_ANY, NULL);
        assert_true(json_is_string(s));
        int32_t *ids;
        size_t n_id;
        assert_int_equal(fm_tokenize(t, &ids, &n_id, json_string_value(s), json_string_length(s),
                                     FM_TOKENIZE_SPECIAL, &err),
                         FM_OK);
        char *p = tab + 1;
        for (size_t i = 0; i < n_id; i++) {
            char *end;
            const long want = strtol(p, &end, 10);
            if (end == p || want != ids[i]) fail_msg("%s: id %zu is %d", line, i, ids[i]);
            p = end;
        }
        assert_int_equal(*p, '\n');
        free(ids);
        json_decref(s);
        n++;
    }
    fclose(f);
    fm_tokenizer_close(t);
    return n;
}

static void ids_are_those_of_tiktoken(void **state)
{
    (void)state;
    assert_true(compare_lines("tests/vectors/tiktoken", "tests/vectors/tiktoken/expected.txt") >=
                12);
}

static void added_tokens_take_white_space_as_in_tokenizers(void **state)
{
    (void)state;
    assert_int_equal(
        compare_lines("tests/vectors/tokenizer/strip.json", "tests/vectors/tokenizer/strip.ids"),
        400);
}

static uint64_t hash_ids(const int32_t *ids, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < 4 * n; i++) {
        h ^= (uint32_t)ids[i / 4] >> (8 * (i % 4)) & 255;
        h *= UINT64_C(0x100000001b3);
    }
    return h;
}

static void long_texts_are_cut_as_the_published_script_does(void **state)
{
    (void)state;
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_open(&t, source_path("tests/vectors/tiktoken"), &err) != FM_OK)
        fail_msg("%s", err.msg);
    FILE *f = fopen(source_path("tests/vectors/tiktoken/expected_long.txt"), "r");
    assert_non_null(f);
    char line[1024];
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        char *tab = strchr(line, '\t'), *end;
        assert_non_null(tab);
        json_t *parts = json_loadb(line, (size_t)(tab - line), 0, NULL), *part;
        assert_true(json_array_size(parts) > 0);
        char *text = NULL;
        size_t n_text, i;
        FILE *m = open_memstream(&text, &n_text);
        json_array_foreach(parts, i, part)
        {
            const json_int_t times = json_integer_value(json_array_get(part, 1));
            for (json_int_t k = 0; k < times; k++)
                fputs(json_string_value(json_array_get(part, 0)), m);
        }
        fclose(m);
        int32_t *ids;
        size_t n_id;
        if (fm_tokenize(t, &ids, &n_id, text, n_text, FM_TOKENIZE_SPECIAL, &err) != FM_OK)
            fail_msg("%.200s: %s", line, err.msg);
        const size_t want = strtoull(tab + 1, &end, 10);
        if (n_id != want || hash_ids(ids, n_id) != strtoull(end + 1, NULL, 16))
            fail_msg("%.200s: %zu other ids, expected %zu", line, n_id, want);
        free(ids);
        free(text);
        json_decref(parts);
        n++;
    }
    assert_true(n >= 7);
    fclose(f);
    fm_tokenizer_close(t);
}

/* A copy of a file of tests/vectors/tiktoken. */
static void copy_to(const char *directory, const char *name)
{
    char path[1200];
    char buf[4096];
    size_t n;
    snprintf(path, sizeof path, "tests/vectors/tiktoken/%s", name);
    FILE *from = fopen(source_path(path), "rb");
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *to = fopen(path, "wb");
    assert_true(from && to);
    while ((n = fread(buf, 1, sizeof buf, from)) > 0) assert_int_equal(fwrite(buf, 1, n, to), n);
    fclose(from);
    assert_int_equal(fclose(to), 0);
}

/* text NULL: no such file. */
static void put_file(const char *directory, const char *name, const char *text)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (!text) {
        (void)remove(path);
        return;
    }
    FILE *f = fopen(path, "w");
    assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* The places and forms in which published directories have eos_token_id, with ids of this vocabulary, beside the two
 * tokens that end by their names. */
static void ends_are_those_of_both_configurations(void **state)
{
    (void)state;
    static const struct {
        const char *config, *generation;
        int32_t ends[5]; /* up to -1 */
    } cases[] = {
        /* GLM-4.5 to 4.7: the same three in both */
        {"{\"eos_token_id\": [329, 336, 338], \"pad_token_id\": 329}",
         "{\"eos_token_id\": [329, 336, 338], \"pad_token_id\": 329}",
         {329, 336, 338, -1}},
        /* GLM-4.5V: inside text_config */
        {"{\"text_config\": {\"eos_token_id\": [329, 336, 338]}}", NULL, {329, 336, 338, -1}},
        /* gpt-oss: one in config.json, three in generation_config.json */
        {"{\"eos_token_id\": 333, \"pad_token_id\": 330}",
         "{\"bos_token_id\": 331, \"eos_token_id\": [333, 330, 345], \"pad_token_id\": 330}",
         {333, 330, 345, -1}},
        {"{\"eos_token_id\": 333}", NULL, {333, -1}},
        {NULL, "{\"eos_token_id\": 345}", {345, -1}},
        {"{\"eos_token_id\": null}", "{}", {-1}},
        {"{\"eos_token_id\": [100000, -7, 4294967629, \"333\", 345]}", NULL, {345, -1}},
    };
    char dir[1000];
    snprintf(dir, sizeof dir, "%s", scratch_path("ends"));
    assert_int_equal(mkdir(dir, 0700), 0);
    copy_to(dir, "tiktoken.model");
    copy_to(dir, "tokenizer_config.json");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_file(dir, "config.json", cases[i].config);
        put_file(dir, "generation_config.json", cases[i].generation);
        fm_tokenizer *t;
        fm_error err = {0};
        if (fm_tokenizer_open(&t, dir, &err) != FM_OK) fail_msg("%s", err.msg);
        assert_true(fm_tokenizer_n_vocab(t) > 345);
        for (int32_t id = 0; id < fm_tokenizer_n_vocab(t); id++) {
            bool want = id == fm_token_find(t, "[EOS]") || id == fm_token_find(t, "<|im_end|>");
            for (const int32_t *e = cases[i].ends; *e >= 0; e++) want = want || *e == id;
            if (fm_token_is_end(t, id) != want) fail_msg("case %zu: token %d", i, id);
        }
        fm_tokenizer_close(t);
    }
    put_file(dir, "generation_config.json", "{\"eos_token_id\": [333,");
    fm_tokenizer *t;
    fm_error err = {0};
    assert_int_equal(fm_tokenizer_open(&t, dir, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, "generation_config.json: line 1"));
}

/* Published configurations of Kimi and gpt-oss give this length where none is known. */
static void a_length_beyond_64_bits_is_read(void **state)
{
    (void)state;
    char dir[1000];
    snprintf(dir, sizeof dir, "%s", scratch_path("length"));
    assert_int_equal(mkdir(dir, 0700), 0);
    copy_to(dir, "tiktoken.model");
    put_file(dir, "tokenizer_config.json",
             "{\"model_max_length\": 1000000000000000019884624838656, \"added_tokens_decoder\": "
             "{\"330\": {\"content\": \"[BOS]\"}}}");
    put_file(dir, "config.json", "{\"n\": 18446744073709551616, \"eos_token_id\": 345}");
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_open(&t, dir, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_int_equal(fm_token_find(t, "[BOS]"), 330);
    assert_true(fm_token_is_end(t, 345));
    fm_tokenizer_close(t);
}

static void damaged_files_are_refused_by_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *config, *expect;
    } cases[] = {
        {"", "{}", "no tokens"},
        {"QQ==", "{}", "line 1: expected base64 and a rank"},
        {"QQ== 1\n", "{}", "rank 1, expected 0"},
        {"QQ== x\n", "{}", "expected a rank"},
        {"Q!== 0\n", "{}", "expected base64"},
        {"QR== 0\n", "{}", "expected base64"},
        {" 0\n", "{}", "not empty"},
        {"QQ== 0\n", "[", "tokenizer_config.json"},
        {"QQ== 0\n", "{\"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}", "expected an id"},
        {"QQ== 0\n", "{\"added_tokens_decoder\": {\"999\": {\"content\": \"a\"}}}", "has id 999"},
        {"QQ== 0\n", "{}", "no token for the single byte"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fm_tokenizer *t;
        fm_error err = {0};
        assert_int_equal(fm_tokenizer_from_tiktoken(&t, cases[i].text, strlen(cases[i].text),
                                                    cases[i].config, strlen(cases[i].config),
                                                    "kimi-k2", "t.model", &err),
                         FM_E_FORMAT);
        assert_null(t);
        if (!strstr(err.msg, cases[i].expect) || !strstr(err.msg, "t.model"))
            fail_msg("%s", err.msg);
    }
}

/* The open of a pipe waits for a writer, who never comes. */
static void a_pipe_is_refused_and_not_waited_for(void **state)
{
    (void)state;
    char dir[1000], path[1100];
    snprintf(dir, sizeof dir, "%s", scratch_path("pipe"));
    assert_int_equal(mkdir(dir, 0700), 0);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    fm_tokenizer *t;
    fm_error err = {0};
    alarm(20);
    assert_int_equal(fm_tokenizer_open(&t, dir, &err), FM_E_FORMAT);
    alarm(0);
    assert_non_null(strstr(err.msg, "tokenizer.json: is a pipe, expected a regular file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_tiktoken),
        cmocka_unit_test(added_tokens_take_white_space_as_in_tokenizers),
        cmocka_unit_test(long_texts_are_cut_as_the_published_script_does),
        cmocka_unit_test(ends_are_those_of_both_configurations),
        cmocka_unit_test(a_length_beyond_64_bits_is_read),
        cmocka_unit_test(a_pipe_is_refused_and_not_waited_for),
        cmocka_unit_test(damaged_files_are_refused_by_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
