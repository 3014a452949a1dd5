/* tokenizer.ggml.pre of what quantize writes: the name under which the file gives the ids of the directory's tokenizer.json,
 * whatever the model_type; no file with other ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "engine/quantize_internal.h"
#include "format/checkpoint.h"
#include "support/directory.h"
#include "support/fixture.h"
#include "text/byte_alphabet.h"
#include "text/pretokenize.h"
#include "text/utf8.h"
#include "unit/test_tokenizer_vectors.h"

static void add_merge(json_t *vocab, json_t *merges, const char *a, const char *b)
{
    char both[40];
    snprintf(both, sizeof both, "%s%s", a, b);
    json_object_set_new(vocab, both, json_integer((json_int_t)json_object_size(vocab)));
    snprintf(both, sizeof both, "%s %s", a, b);
    json_array_append_new(merges, json_string(both));
}

/* Bytes, numbers of two and three digits, and words that reach over what patterns part. */
static void write_tokenizer(const char *directory, const char *const *patterns, bool nfc,
                            bool has_loner)
{
    json_t *vocab = json_object(), *merges = json_array(), *splits = json_array();
    for (int i = 0; i < 256; i++) {
        char text[5] = "";
        text[fm_utf8_encode(text, fm_byte_alphabet((unsigned char)i))] = 0;
        json_object_set_new(vocab, text, json_integer(i));
    }
    add_merge(vocab, merges, "1", "2");
    add_merge(vocab, merges, "12", "3");
    add_merge(vocab, merges, "123", "4");
    add_merge(vocab, merges, "l", "C");
    add_merge(vocab, merges, "\xc3\x8c", "\xc4\xa3"); /* both bytes of an accent */
    add_merge(vocab, merges, "\xc4\xae", "a"); /* a Han character's last byte, and a letter */
    if (has_loner)                             /* no merge makes it */
        json_object_set_new(vocab, "xyz", json_integer((json_int_t)json_object_size(vocab)));
    for (; *patterns; patterns++)
        json_array_append_new(splits,
                              json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern",
                                        "Regex", *patterns, "behavior", "Isolated", "invert", 0));
    json_array_append_new(splits, json_pack("{s:s, s:b, s:b}", "type", "ByteLevel",
                                            "add_prefix_space", 0, "use_regex", 0));
    json_t *root = json_pack("{s:o, s:{s:s, s:o}, s:{s:s, s:b, s:o, s:o}}", "normalizer",
                             nfc ? json_pack("{s:s}", "type", "NFC") : json_null(), "pre_tokenizer",
                             "type", "Sequence", "pretokenizers", splits, "model", "type", "BPE",
                             "ignore_merges", has_loner, "vocab", vocab, "merges", merges);
    assert_non_null(root);
    char path[700];
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
}

static void pre_is(const char *path, const char *want)
{
    fm_checkpoint *c;
    fm_str s;
    fm_error err = {0};
    if (fm_checkpoint_open(&c, path, &err) != FM_OK) fail_msg("%s", err.msg);
    if (fm_meta_str(c, "tokenizer.ggml.pre", &s, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_string_equal(s.data, want);
    fm_checkpoint_close(c);
}

static void the_name_goes_with_the_tokenizer(void **state)
{
    (void)state;
    static const char *const pairs_of_digits[] = {"\\p{N}{1,2}|[^\\p{N}]+", NULL};
    const directory_options opt = {.spec = "qwen3moe-b", .format = "plain", .n_vocab = 320};
    char from[600], to[620], said[4096];
    fm_error err = {0};
    snprintf(from, sizeof from, "%s", scratch_path("pre"));
    snprintf(to, sizeof to, "%s.gguf", from);
    directory_write(from, &opt);

    const fm_split_family *f = fm_split_family_find("qwen2", 5);
    write_tokenizer(from, f->patterns, f->nfc, false);
    if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
    pre_is(to, "qwen2");
    assert_null(strstr(said, "tokenizer"));

    f = fm_split_family_find("gpt-4o", 6);
    write_tokenizer(from, f->patterns, f->nfc, false);
    if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
    pre_is(to, "gpt-4o");
    assert_non_null(strstr(said, "tokenizer.ggml.pre is gpt-4o, not qwen2"));

    /* The split is right, which is all that a name can say. */
    f = fm_split_family_find("qwen2", 5);
    write_tokenizer(from, f->patterns, f->nfc, true);
    if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
    pre_is(to, "qwen2");
    assert_non_null(strstr(said, "gives other ids for some of its tokens, which no merge makes"));

    write_tokenizer(from, pairs_of_digits, false, false);
    assert_int_equal(fixture_quantize(from, to, said, &err), FM_E_UNSUPPORTED);
    if (!strstr(err.msg, "tokenizer.json: splits text in a way that no name"))
        fail_msg("%s", err.msg);

    /* Nobody can say whether it is right, so somebody should know. */
    char path[700];
    snprintf(path, sizeof path, "%s/tokenizer.json", from);
    FILE *out = fopen(path, "w");
    assert_true(
        out &&
        fputs("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}", out) >= 0);
    fclose(out);
    if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
    pre_is(to, "qwen2");
    assert_non_null(strstr(said, "is not known: "));
}

/* Whatever the model_type: only Kimi's way to split goes with tiktoken.model. */
static void tiktoken_is_kimis(void **state)
{
    (void)state;
    const directory_options opt = {.spec = "deepseek2-s", .format = "int4", .n_vocab = 586};
    char from[600], to[620], command[1300], said[4096];
    fm_error err = {0};
    snprintf(from, sizeof from, "%s", scratch_path("ranks"));
    snprintf(to, sizeof to, "%s.gguf", from);
    directory_write(from, &opt);
    snprintf(command, sizeof command, "cp '%s'/tiktoken.model '%s'/tokenizer_config.json '%s'",
             source_path("tests/vectors/tiktoken"), source_path("tests/vectors/tiktoken"), from);
    assert_int_equal(system(command), 0);
    if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
    pre_is(to, "kimi-k2");
}

static void published(const char *name, const char *right, const char *wrong)
{
    char path[700], directory[600];
    snprintf(path, sizeof path, "tokenizers/%s/tokenizer.json.gz", name);
    blob json = blob_gunzip(shared_file(path));
    snprintf(directory, sizeof directory, "%s", scratch_path(name));
    snprintf(path, sizeof path, "mkdir -p '%s'", directory);
    assert_int_equal(system(path), 0);
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(json.data, 1, json.n, f), json.n);
    fclose(f);
    free(json.data);
    fm_vocabulary v = {.n = 160000};
    fm_error err = {0}, doubt = {0};
    const char *pre = NULL;
    if (fm_vocabulary_read(&v, directory, &err) != FM_OK) fail_msg("%s", err.msg);
    const char *const hints[] = {right, wrong};
    for (int i = 0; i < 2; i++) {
        if (fm_quantize_find_pre(&pre, &v, directory, hints[i], &doubt, &err) != FM_OK)
            fail_msg("%s", err.msg);
        assert_string_equal(pre, right);
        assert_int_equal(doubt.code, FM_OK);
    }
    fm_vocabulary_free(&v);
}

static void published_tokenizers_are_recognised(void **state)
{
    (void)state;
    published("qwen3", "qwen2", "glm4");
    published("deepseek_v3", "deepseek-v3", "kimi-k2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_name_goes_with_the_tokenizer),
        cmocka_unit_test(tiktoken_is_kimis),
        cmocka_unit_test(published_tokenizers_are_recognised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
