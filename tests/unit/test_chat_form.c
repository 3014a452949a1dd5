/* Where a model's chat templates come from, and requests around them. */
#include "chat/chat_form.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "text/tokenizer.h"

static char folder[] = "/tmp/fm_chat_form_XXXXXX";

static void write_file(const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void remove_file(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    remove(path);
}

static void check_render(const fm_chat_form *form, const char *request, const char *expected)
{
    json_t *j;
    fm_chat_text text;
    fm_error err = {0};
    assert_int_equal(fm_chat_request_parse(&j, request, strlen(request), NULL, &err), FM_OK);
    if (fm_chat_form_render(form, j, 0, &text, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_string_equal(text.text, expected);
    fm_chat_text_free(&text);
    json_decref(j);
}

static void check_folder(const char *request, const char *expected)
{
    fm_error err = {0};
    fm_chat_form *form = fm_chat_form_new();
    if (fm_chat_form_read_dir(form, folder, &err) != FM_OK) fail_msg("%s", err.msg);
    check_render(form, request, expected);
    fm_chat_form_free(form);
}

static void folders_keep_templates_in_several_places(void **state)
{
    (void)state;
    write_file(
        "tokenizer_config.json",
        "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}, \"pad_token\": null,"
        " \"chat_template\": \"config {{ bos_token }}{{ eos_token }}{{ pad_token }}\"}");
    check_folder("{}", "config <s></s>");
    check_folder("{\"bos_token\": \"B\"}", "config B</s>");
    write_file("chat_template.json", "{\"chat_template\": \"json {{ bos_token }}\"}");
    check_folder("{}", "json <s>");
    write_file("chat_template.jinja", "jinja {{ tools }}");
    check_folder("{}", "jinja None");
    remove_file("chat_template.jinja");
    remove_file("chat_template.json");
    write_file("tokenizer_config.json",
               "{\"chat_template\": [{\"name\": \"default\", \"template\": \"plain\"},"
               " {\"name\": \"tool_use\", \"template\": \"tools {{ tools | length }}\"},"
               " {\"name\": \"rag\", \"template\": \"{% broken\"}]}");
    check_folder("{}", "plain");
    check_folder("{\"tools\": null}", "plain");
    check_folder("{\"tools\": [1, 2]}", "tools 2");
    remove_file("tokenizer_config.json");
}

static void damaged_files_are_named(void **state)
{
    (void)state;
    static const char *const bad[] = {"{", "[]", "{\"chat_template\": 5}",
                                      "{\"chat_template\": [{}]}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fm_error err = {0};
        fm_chat_form *form = fm_chat_form_new();
        write_file("tokenizer_config.json", bad[i]);
        assert_int_equal(fm_chat_form_read_dir(form, folder, &err), FM_E_FORMAT);
        assert_non_null(strstr(err.msg, "tokenizer_config.json"));
        fm_chat_form_free(form);
    }
    remove_file("tokenizer_config.json");
}

static void a_broken_template_is_reported_when_it_is_used(void **state)
{
    (void)state;
    fm_error err = {0};
    fm_chat_text text;
    json_t *request = json_object();
    fm_chat_form *form = fm_chat_form_new();
    assert_int_equal(fm_chat_form_add(form, NULL, "{% if %}", 8, "F", &err), FM_OK);
    assert_true(fm_chat_form_has_template(form));
    assert_int_equal(fm_chat_form_render(form, request, 0, &text, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, "F, line 1"));
    json_decref(request);
    fm_chat_form_free(form);
}

static void without_a_template_the_form_is_chatml(void **state)
{
    (void)state;
    fm_chat_form *form = fm_chat_form_new();
    check_render(form,
                 "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}],"
                 " \"add_generation_prompt\": true}",
                 "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    static const char *const bad[] = {
        "{}", "{\"messages\": 1}", "{\"messages\": [1]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": null}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"tools\": [{}]}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *request;
        fm_chat_text text;
        fm_error err = {0};
        assert_int_equal(fm_chat_request_parse(&request, bad[i], strlen(bad[i]), NULL, &err),
                         FM_OK);
        assert_int_not_equal(fm_chat_form_render(form, request, 0, &text, &err), FM_OK);
        assert_true(strncmp(err.msg, "chat: ", 6) == 0);
        assert_null(text.text);
        json_decref(request);
    }
    fm_chat_form_free(form);
}

static void requests_are_json_objects(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "[]", "1", "{", "{\"a\": 1e999}", "{\"a\": \"\\ud800\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *j;
        fm_error err = {0};
        assert_int_equal(fm_chat_request_parse(&j, bad[i], strlen(bad[i]), NULL, &err), FM_E_ARG);
        assert_null(j);
        assert_true(strncmp(err.msg, "request: ", 9) == 0);
    }
    fm_error err = {0};
    json_t *j;
    const fm_message m[] = {{"user", "a\xff z"}};
    assert_int_equal(fm_chat_request_make(&j, m, 1, true, &err), FM_OK);
    const json_t *first = json_array_get(json_object_get(j, "messages"), 0);
    assert_string_equal(json_string_value(json_object_get(first, "content")), "a\xEF\xBF\xBD z");
    json_decref(j);
}

/* Control tokens are made of the template's bytes alone. */
static void only_trusted_bytes_become_control_tokens(void **state)
{
    (void)state;
    fm_tokenizer *tok;
    fm_error err = {0};
    if (fm_tokenizer_open(&tok, "model/flashmoe-tale.gguf", &err) != FM_OK) {
        print_message("skipped: %s\n", err.msg);
        skip();
    }
    static const char text[] = "<|im_end|><|im_end|><|im_end|>";
    unsigned char trusted[sizeof text - 1];
    memset(trusted, 1, sizeof trusted);
    trusted[15] = 0; /* a byte in the middle of the second */
    memset(trusted + 20, 0, 10);
    const int32_t end = fm_token_find(tok, "<|im_end|>");
    int32_t *ids;
    size_t n, count = 0;
    assert_int_equal(fm_tokenize_trusted(tok, &ids, &n, text, trusted, sizeof text - 1, &err),
                     FM_OK);
    for (size_t i = 0; i < n; i++) count += ids[i] == end;
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], end);
    free(ids);
    fm_tokenizer_close(tok);
}

int main(void)
{
    if (!mkdtemp(folder)) {
        perror(folder);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_keep_templates_in_several_places),
        cmocka_unit_test(damaged_files_are_named),
        cmocka_unit_test(a_broken_template_is_reported_when_it_is_used),
        cmocka_unit_test(without_a_template_the_form_is_chatml),
        cmocka_unit_test(requests_are_json_objects),
        cmocka_unit_test(only_trusted_bytes_become_control_tokens),
    };
    const int status = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return status;
}
