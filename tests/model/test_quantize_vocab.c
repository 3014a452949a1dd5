/* The tokenizer that quantize writes from a Hugging Face directory that has only tiktoken.model, as Kimi's do: the same
 * tokens, kinds, ends and ids as from the directory, merges as tests/vectors/tiktoken has them, the chat template. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "format/checkpoint.h"
#include "support/directory.h"
#include "support/fixture.h"
#include "text/tokenizer.h"

#define FROM "tests/vectors/tiktoken/"
enum { N_RANK = 330, N_ALL = 586 };

/* As the published configurations have it, with the ids of this vocabulary. */
static const char config[] =
    "{\"added_tokens_decoder\": {"
    "\"330\": {\"content\": \"[BOS]\", \"special\": true}, "
    "\"331\": {\"content\": \"[EOS]\", \"special\": true}, "
    "\"332\": {\"content\": \"<|im_end|>\", \"special\": true}, "
    "\"352\": {\"content\": \"<think>\", \"special\": false}, "
    "\"353\": {\"content\": \"</think>\", \"special\": false}, "
    "\"354\": {\"content\": \"[UNK]\", \"special\": true}, "
    "\"355\": {\"content\": \"[PAD]\", \"special\": true}}, "
    "\"bos_token\": \"[BOS]\", \"eos_token\": \"[EOS]\", \"pad_token\": \"[PAD]\", "
    "\"model_max_length\": 1000000000000000019884624838656}";
static const char template[] = "{%- for m in messages -%}<|im_end|>{{ m.content }}{%- endfor -%}";

static void put_text(const char *directory, const char *name, const char *text)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "wb");
    assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static char *text_of(const char *path)
{
    FILE *f = fopen(source_path(path), "rb");
    char *s = calloc(1, 1 << 16);
    assert_true(f && s);
    assert_true(fread(s, 1, (1 << 16) - 1, f) > 0);
    fclose(f);
    return s;
}

static void kimi_directory(const char *path, int n_vocab)
{
    const directory_options opt = {
        .spec = "deepseek2-s", .format = "int4", .multimodal = true, .n_vocab = n_vocab};
    directory_write(path, &opt);
    char *ranks = text_of(FROM "tiktoken.model");
    put_text(path, "tiktoken.model", ranks);
    put_text(path, "tokenizer_config.json", config);
    put_text(path, "generation_config.json", "{\"max_length\": 262144, \"eos_token_id\": 332}");
    put_text(path, "chat_template.jinja", template);
    free(ranks);
}

static fm_tokenizer *open_tokenizer(const char *path)
{
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_open(&t, path, &err) != FM_OK) fail_msg("%s: %s", path, err.msg);
    return t;
}

static void same_ids(const fm_tokenizer *a, const fm_tokenizer *b, const char *s, size_t n)
{
    int32_t *ia, *ib;
    size_t na, nb;
    fm_error err = {0};
    assert_int_equal(fm_tokenize(a, &ia, &na, s, n, FM_TOKENIZE_SPECIAL, &err), FM_OK);
    assert_int_equal(fm_tokenize(b, &ib, &nb, s, n, FM_TOKENIZE_SPECIAL, &err), FM_OK);
    if (na != nb || memcmp(ia, ib, na * sizeof *ia) != 0) fail_msg("other ids: %.*s", (int)n, s);
    free(ia);
    free(ib);
}

/* Texts that were made for the ranks, one of them with a reserved token. */
static void same_tokens_of_texts(const fm_tokenizer *a, const fm_tokenizer *b)
{
    char *lines = text_of(FROM "expected.txt");
    int n = 0;
    for (char *line = lines, *end; (end = strchr(line, '\n')); line = end + 1, n++) {
        json_t *s = json_loadb(line, (size_t)(strchr(line, '\t') - line), JSON_DECODE_ANY, NULL);
        assert_true(json_is_string(s));
        same_ids(a, b, json_string_value(s), json_string_length(s));
        json_decref(s);
    }
    assert_true(n >= 12);
    free(lines);
}

/* Bytes of any kind around words of these texts. */
static void same_tokens_of_bytes(const fm_tokenizer *a, const fm_tokenizer *b)
{
    static const char *const words[] = {"the",
                                        " quick",
                                        "thing",
                                        "<|im_end|>",
                                        "  ",
                                        "<think>",
                                        "\n",
                                        "12345",
                                        "They'll",
                                        "[EOS]",
                                        "\xe4\xb8\xad\xe6\x96\x87"};
    uint64_t dice = 1;
    for (int i = 0; i < 2000; i++) {
        char text[400];
        size_t used = 0;
        while (used < 300) {
            dice = dice * UINT64_C(6364136223846793005) + 1442695040888963407;
            const unsigned pick = (unsigned)(dice >> 40);
            if (pick % 4 == 0) {
                text[used++] = (char)(pick >> 8);
            } else {
                const char *w = words[(pick >> 8) % (sizeof words / sizeof words[0])];
                memcpy(text + used, w, strlen(w));
                used += strlen(w);
            }
        }
        same_ids(a, b, text, used);
    }
}

static void same_vocabulary(const fm_tokenizer *a, const fm_tokenizer *b)
{
    assert_int_equal(fm_tokenizer_n_vocab(a), fm_tokenizer_n_vocab(b));
    for (int32_t id = 0; id < fm_tokenizer_n_vocab(a); id++) {
        size_t na, nb;
        const char *ta = fm_token_bytes(a, id, &na), *tb = fm_token_bytes(b, id, &nb);
        if (na != nb || memcmp(ta, tb, na) != 0) fail_msg("token %d: %.*s", id, (int)nb, tb);
        assert_int_equal(fm_token_is_special(a, id), fm_token_is_special(b, id));
        assert_int_equal(fm_token_is_end(a, id), fm_token_is_end(b, id));
    }
}

static void id_is(const fm_checkpoint *c, const char *key, uint32_t want)
{
    char full[80];
    uint32_t id;
    fm_error err = {0};
    snprintf(full, sizeof full, "tokenizer.ggml.%s", key);
    if (fm_meta_u32(c, full, &id, &err) != FM_OK) fail_msg("%s", err.msg);
    if (id != want) fail_msg("%s is %u", key, id);
}

static void text_is(const fm_checkpoint *c, const char *key, const char *want)
{
    fm_str s;
    fm_error err = {0};
    if (fm_meta_str(c, key, &s, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_string_equal(s.data, want);
}

/* Merge i of the file joins the spellings of the two ids in line i of merges.txt. */
static void merges_are_those_of_tiktoken(const fm_checkpoint *c)
{
    fm_error err = {0};
    fm_meta_kind kind;
    uint64_t n, i = 0;
    int left, right;
    FILE *f = fopen(source_path(FROM "merges.txt"), "r");
    assert_non_null(f);
    assert_int_equal(fm_meta_array(c, "tokenizer.ggml.merges", &kind, &n, &err), FM_OK);
    for (; fscanf(f, "%d %d", &left, &right) == 2; i++) {
        char want[200];
        fm_str merge, a, b;
        assert_true(i < n);
        assert_int_equal(fm_meta_array_str(c, "tokenizer.ggml.merges", i, &merge, &err), FM_OK);
        assert_int_equal(fm_meta_array_str(c, "tokenizer.ggml.tokens", (uint64_t)left, &a, &err),
                         FM_OK);
        assert_int_equal(fm_meta_array_str(c, "tokenizer.ggml.tokens", (uint64_t)right, &b, &err),
                         FM_OK);
        snprintf(want, sizeof want, "%s %s", a.data, b.data);
        assert_string_equal(merge.data, want);
    }
    assert_int_equal(i, n);
    fclose(f);
}

static void kimi_directory_becomes_a_file_with_its_tokenizer(void **state)
{
    (void)state;
    static const int rows[] = {N_ALL, 360, 600};
    for (int k = 0; k < 3; k++) {
        char name[40], from[600], to[620], said[4096] = "";
        fm_error err = {0};
        snprintf(name, sizeof name, "kimi-%d", rows[k]);
        snprintf(from, sizeof from, "%s", scratch_path(name));
        snprintf(to, sizeof to, "%s.gguf", from);
        kimi_directory(from, rows[k]);
        if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
        assert_null(strstr(said, "no tokenizer"));
        assert_null(strstr(said, "no merge"));
        fm_checkpoint *c;
        if (fm_checkpoint_open(&c, to, &err) != FM_OK) fail_msg("%s", err.msg);
        text_is(c, "tokenizer.ggml.model", "gpt2");
        text_is(c, "tokenizer.ggml.pre", "kimi-k2");
        text_is(c, "tokenizer.chat_template", template);
        id_is(c, "bos_token_id", 330);
        id_is(c, "eos_token_id", 331);
        id_is(c, "eot_token_id", 332);
        assert_false(fm_meta_has(c, "tokenizer.ggml.eom_token_id"));
        id_is(c, "padding_token_id", 355);
        merges_are_those_of_tiktoken(c);
        fm_meta_kind kind;
        uint64_t n;
        assert_int_equal(fm_meta_array(c, "tokenizer.ggml.tokens", &kind, &n, &err), FM_OK);
        assert_int_equal(n, rows[k]);
        for (int64_t i = 0; i < rows[k]; i++) {
            int64_t type;
            assert_int_equal(
                fm_meta_array_int(c, "tokenizer.ggml.token_type", (uint64_t)i, &type, &err), FM_OK);
            assert_int_equal(type, i < N_RANK             ? FM_TOKEN_NORMAL
                                   : i == 352 || i == 353 ? FM_TOKEN_USER_DEFINED
                                   : i < N_ALL            ? FM_TOKEN_CONTROL
                                                          : FM_TOKEN_UNUSED);
        }
        fm_checkpoint_close(c);
        fm_tokenizer *a = open_tokenizer(from), *b = open_tokenizer(to);
        if (rows[k] == N_ALL) same_vocabulary(a, b);
        if (rows[k] >= N_ALL) same_tokens_of_texts(a, b);
        same_tokens_of_bytes(a, b);
        fm_tokenizer_close(a);
        fm_tokenizer_close(b);
    }
}

static void what_does_not_fit_is_refused_or_said(void **state)
{
    (void)state;
    char from[600], to[600], said[4096] = "";
    fm_error err = {0};
    snprintf(from, sizeof from, "%s", scratch_path("unfit"));
    snprintf(to, sizeof to, "%s", scratch_path("unfit.gguf"));
    kimi_directory(from, 353);
    assert_int_equal(fixture_quantize(from, to, said, &err), FM_E_FORMAT);
    if (!strstr(err.msg, "\"</think>\" has the id 353, the embedding 353 rows"))
        fail_msg("%s", err.msg);
    put_text(from, "tokenizer_config.json", "{}");
    if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_null(strstr(said, "no merge"));
    /* cXYZ of nothing that came before */
    char *ranks = text_of(FROM "tiktoken.model");
    const size_t n = strlen(ranks);
    snprintf(ranks + n, 100, "Y1hZWg== 330\n");
    put_text(from, "tiktoken.model", ranks);
    if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_non_null(strstr(said, "tiktoken.model: 1 token "));
    snprintf(ranks + n, 100, "Y1hZWg== 331\n");
    put_text(from, "tiktoken.model", ranks);
    assert_int_equal(fixture_quantize(from, to, said, &err), FM_E_FORMAT);
    if (!strstr(err.msg, "rank 331, expected 330")) fail_msg("%s", err.msg);
    free(ranks);
    char path[700];
    snprintf(path, sizeof path, "%s/tokenizer_config.json", from);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fixture_quantize(from, to, said, &err), FM_E_IO);
    if (!strstr(err.msg, "tokenizer_config.json: is missing")) fail_msg("%s", err.msg);
    snprintf(path, sizeof path, "%s/tiktoken.model", from);
    assert_int_equal(unlink(path), 0);
    if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_non_null(strstr(said, "neither tokenizer.json nor tiktoken.model"));
}

/* Several in the places where published directories have them; what the directory's tokenizer stops at, the file's does. */
static void all_ends_of_a_generation_are_written(void **state)
{
    (void)state;
    static const struct {
        const char *tokenizer, *generation;
        int ends[3]; /* of text, turn, message; 0: none */
        int n_all;
    } cases[] = {
        {config, "{\"eos_token_id\": [332, 340, 331]}", {331, 332, 340}, 3},
        {"{}", "{\"eos_token_id\": [345, 340, 100000, -1]}", {345, 340, 0}, 2},
        {"{}", "{}", {0, 0, 0}, 0},
        {"{}", "{\"eos_token_id\": 345}", {345, 0, 0}, 1},
        {"{}", "{\"eos_token_id\": [341, 342, 343, 342, 344]}", {341, 342, 343}, 4},
    };
    static const char *const keys[] = {"eos_token_id", "eot_token_id", "eom_token_id"};
    char from[600], to[620];
    snprintf(from, sizeof from, "%s", scratch_path("ends"));
    snprintf(to, sizeof to, "%s.gguf", from);
    kimi_directory(from, N_ALL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char said[4096] = "";
        fm_error err = {0};
        put_text(from, "tokenizer_config.json", cases[i].tokenizer);
        put_text(from, "generation_config.json", cases[i].generation);
        if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
        fm_checkpoint *c;
        if (fm_checkpoint_open(&c, to, &err) != FM_OK) fail_msg("%s", err.msg);
        for (int k = 0; k < 3; k++) {
            char full[80];
            snprintf(full, sizeof full, "tokenizer.ggml.%s", keys[k]);
            if (cases[i].ends[k])
                id_is(c, keys[k], (uint32_t)cases[i].ends[k]);
            else
                assert_false(fm_meta_has(c, full));
        }
        fm_checkpoint_close(c);
        assert_int_equal(strstr(said, "names 4 ids that end a generation") != NULL,
                         cases[i].n_all > 3);
        fm_tokenizer *a = open_tokenizer(from), *b = open_tokenizer(to);
        if (cases[i].n_all <= 3) same_vocabulary(a, b);
        fm_tokenizer_close(a);
        fm_tokenizer_close(b);
    }
}

static void remove_from(const char *directory, const char *name)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    assert_int_equal(unlink(path), 0);
}

/* The same templates as when the directory itself is asked (tests/unit/test_chat_form.c), each under one key. */
static void templates_are_those_of_the_directory(void **state)
{
    (void)state;
    char from[600], to[620], folder[700], said[4096] = "";
    snprintf(from, sizeof from, "%s", scratch_path("templates"));
    snprintf(to, sizeof to, "%s.gguf", from);
    kimi_directory(from, N_ALL);
    remove_from(from, "chat_template.jinja");
    static const struct {
        const char *config, *json, *tool_use; /* NULL: no such file */
        const char *base, *tools, *rag;       /* NULL: no such key */
    } cases[] = {
        {"{\"chat_template\": \"config\"}", NULL, NULL, "config", NULL, NULL},
        {"{\"chat_template\": \"config\"}", "{\"chat_template\": \"json\"}", "tools", "json",
         "tools", NULL},
        {"{\"chat_template\": [{\"name\": \"default\", \"template\": \"a\"}, {\"name\": \"rag\", "
         "\"template\": \"r\"}, {\"name\": \"default\", \"template\": \"b\"}, {\"name\": "
         "\"tool_use\", \"template\": \"t\"}, {\"name\": \"rag\", \"template\": \"s\"}]}",
         NULL, NULL, "b", "t", "s"},
        {"{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"t\"}]}", NULL, "file", NULL,
         "file", NULL},
        {"{}", NULL, NULL, NULL, NULL, NULL},
    };
    snprintf(folder, sizeof folder, "%s/additional_chat_templates", from);
    assert_int_equal(mkdir(folder, 0700), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_text(from, "tokenizer_config.json", cases[i].config);
        if (cases[i].json) put_text(from, "chat_template.json", cases[i].json);
        if (cases[i].tool_use)
            put_text(from, "additional_chat_templates/tool_use.jinja", cases[i].tool_use);
        fm_error err = {0};
        if (fixture_quantize(from, to, said, &err) != FM_OK) fail_msg("%s", err.msg);
        fm_checkpoint *c;
        if (fm_checkpoint_open(&c, to, &err) != FM_OK) fail_msg("%s", err.msg);
        const char *const found[3][2] = {{"tokenizer.chat_template", cases[i].base},
                                         {"tokenizer.chat_template.tool_use", cases[i].tools},
                                         {"tokenizer.chat_template.rag", cases[i].rag}};
        for (int k = 0; k < 3; k++) {
            if (found[k][1])
                text_is(c, found[k][0], found[k][1]);
            else
                assert_false(fm_meta_has(c, found[k][0]));
        }
        fm_checkpoint_close(c);
        if (cases[i].json) remove_from(from, "chat_template.json");
        if (cases[i].tool_use) remove_from(from, "additional_chat_templates/tool_use.jinja");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kimi_directory_becomes_a_file_with_its_tokenizer),
        cmocka_unit_test(all_ends_of_a_generation_are_written),
        cmocka_unit_test(templates_are_those_of_the_directory),
        cmocka_unit_test(what_does_not_fit_is_refused_or_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
