/* tiktoken.model of a Hugging Face directory against OpenAI's tiktoken (tests/vectors/tiktoken, made by
 * tools/oracle/tiktoken_vectors.py), and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "support/fixture.h"
#include "text/tokenizer.h"

static void ids_are_those_of_tiktoken(void **state)
{
    (void)state;
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_open(&t, source_path("tests/vectors/tiktoken"), &err) != FM_OK)
        fail_msg("%s", err.msg);
    FILE *f = fopen(source_path("tests/vectors/tiktoken/expected.txt"), "r");
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
    assert_true(n >= 12);
    fclose(f);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_tiktoken),
        cmocka_unit_test(damaged_files_are_refused_by_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
