/* Which token a model wants in front of every text: by a GGUF file's metadata and by a directory's
 * tokenizer_config.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "engine/tokenizer_glue.h"
#include "format/gguf_write.h"
#include "support/fixture.h"

/* The 256 single bytes, which a byte-level vocabulary must have, and two control tokens. */
enum { BOS = 256, END, N_TOKEN, ABSENT = -1 };

/* Bytes that print stand for themselves in the byte alphabet of GPT-2, the others for U+0100 on. */
static const char *token(void *user, size_t i)
{
    static char text[3];
    (void)user;
    if (i >= BOS) return i == BOS ? "<s>" : "</s>";
    unsigned code = 0x100, c = 0;
    for (; c < i; c++) code += !((c >= 33 && c <= 126) || (c >= 161 && c != 173));
    if ((i >= 33 && i <= 126) || (i >= 161 && i != 173)) code = (unsigned)i;
    if (code < 128) {
        snprintf(text, sizeof text, "%c", (int)code);
    } else {
        snprintf(text, sizeof text, "%c%c", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 0x3f)));
    }
    return text;
}

static const char *no_merge(void *user, size_t i)
{
    (void)user, (void)i;
    return "";
}

static fm_gguf_writer *begin_gguf(const char *path, fm_error *err)
{
    int32_t type[N_TOKEN];
    for (int i = 0; i < N_TOKEN; i++) type[i] = i < BOS ? 1 : 3;
    fm_gguf_writer *w;
    assert_int_equal(fm_gguf_writer_open(&w, path, err), FM_OK);
    fm_gguf_put_str(w, "general.architecture", "qwen3moe");
    fm_gguf_put_str(w, "tokenizer.ggml.model", "gpt2");
    fm_gguf_put_str(w, "tokenizer.ggml.pre", "qwen2");
    fm_gguf_put_str_array(w, "tokenizer.ggml.tokens", N_TOKEN, token, NULL);
    fm_gguf_put_i32_array(w, "tokenizer.ggml.token_type", type, N_TOKEN);
    fm_gguf_put_str_array(w, "tokenizer.ggml.merges", 0, no_merge, NULL);
    return w;
}

static fm_checkpoint *end_gguf(fm_gguf_writer *w, const char *path, fm_error *err)
{
    const int64_t dim[] = {1};
    fm_gguf_add_tensor(w, "t", 0, 1, dim, 4, -1);
    assert_int_equal(fm_gguf_begin_data(w, err), FM_OK);
    assert_int_equal(fm_gguf_write(w, "1234", 4, err), FM_OK);
    assert_int_equal(fm_gguf_writer_close(w, err), FM_OK);
    fm_checkpoint *c;
    if (fm_checkpoint_open(&c, path, err) != FM_OK) fail_msg("%s", err->msg);
    return c;
}

/* wanted: 0, 1 or ABSENT; id: of the start token or ABSENT. */
static fm_status bos_of_gguf(int wanted, int id, int32_t *out, fm_error *err)
{
    const char *path = scratch_path("bos.gguf");
    fm_gguf_writer *w = begin_gguf(path, err);
    if (wanted != ABSENT) fm_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", wanted);
    if (id != ABSENT) fm_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)id);
    fm_checkpoint *c = end_gguf(w, path, err);
    fm_tokenizer *tok;
    if (fm_tokenizer_from_checkpoint(&tok, c, NULL, err) != FM_OK) fail_msg("%s", err->msg);
    const fm_status st = fm_tokenizer_bos(c, tok, out, err);
    fm_tokenizer_close(tok);
    fm_checkpoint_close(c);
    return st;
}

static void gguf_says_whether_and_which(void **state)
{
    (void)state;
    int32_t id;
    fm_error err = {0};
    assert_int_equal(bos_of_gguf(1, BOS, &id, &err), FM_OK);
    assert_int_equal(id, BOS);
    assert_int_equal(bos_of_gguf(0, BOS, &id, &err), FM_OK);
    assert_int_equal(id, -1);
    assert_int_equal(bos_of_gguf(ABSENT, BOS, &id, &err), FM_OK);
    assert_int_equal(id, -1);
    assert_int_equal(bos_of_gguf(1, ABSENT, &id, &err), FM_OK);
    assert_int_equal(id, -1);
    assert_int_equal(bos_of_gguf(1, N_TOKEN, &id, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, "bos_token_id is 258, but there are 258 tokens, and add"));
}

/* Some converters write the highest number for a token that the model does not have. */
static void an_end_that_cannot_be_is_passed_over(void **state)
{
    (void)state;
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
                                       "tokenizer.ggml.eos_token_id"};
    for (int i = 0; i < 3; i++) {
        fm_error err = {0}, passed_over;
        const char *path = scratch_path("end.gguf");
        fm_gguf_writer *w = begin_gguf(path, &err);
        if (i < 2) fm_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", END);
        fm_gguf_put_u32(w, keys[i], UINT32_MAX);
        fm_checkpoint *c = end_gguf(w, path, &err);
        fm_tokenizer *tok = NULL;
        const fm_status st = fm_tokenizer_from_checkpoint(&tok, c, &passed_over, &err);
        const fm_error *said = i < 2 ? &passed_over : &err;
        if (st != (i < 2 ? FM_OK : FM_E_FORMAT)) fail_msg("%s: %s", keys[i], err.msg);
        assert_non_null(strstr(said->msg, "_token_id is 4294967295, but there are 258 tokens"));
        assert_non_null(strstr(said->msg, keys[i]));
        if (tok) assert_true(fm_token_is_end(tok, END));
        fm_tokenizer_close(tok);
        fm_checkpoint_close(c);
    }
}

static void directory_says_whether_and_which(void **state)
{
    (void)state;
    static const struct {
        const char *config, *bos; /* bos NULL: none */
    } cases[] = {
        {"{\"add_bos_token\": true, \"bos_token\": \"[BOS]\"}", "[BOS]"},
        {"{\"add_bos_token\": true, \"bos_token\": {\"content\": \"[BOS]\", \"lstrip\": false}}",
         "[BOS]"},
        {"{\"add_bos_token\": false, \"bos_token\": \"[BOS]\"}", NULL},
        {"{\"bos_token\": \"[BOS]\"}", NULL},
        {"{\"add_bos_token\": true, \"bos_token\": null}", NULL},
        {"{\"add_bos_token\": false, \"bos_token\": \"no such token\"}", NULL},
        {"{\"add_bos_token\": null, \"bos_token\": \"[BOS]\"}", NULL},
    };
    /* What is wanted and cannot be had: leaving it out would change what the model sees. */
    static const struct {
        const char *config, *expect;
    } odd[] = {
        {"{\"add_bos_token\": true, \"bos_token\": \"no such token\"}",
         "tokenizer_config.json: bos_token is \"no such token\", which is none of the tokenizer's"},
        {"{\"add_bos_token\": true, \"bos_token\": 1}", "bos_token is a number, expected a text"},
        {"{\"add_bos_token\": true, \"bos_token\": {}}", "bos_token.content is missing, expected"},
        {"{\"add_bos_token\": \"yes\", \"bos_token\": \"[BOS]\"}",
         "add_bos_token is a string, neither true nor false"},
        {"[]", "tokenizer_config.json: is an array, expected a JSON object"},
        {"{\"add_bos_token\": ", "tokenizer_config.json: line 1"},
    };
    fm_tokenizer *tok;
    fm_error err = {0};
    if (fm_tokenizer_open(&tok, source_path("tests/vectors/tiktoken"), &err) != FM_OK)
        fail_msg("%s", err.msg);
    char dir[512], path[600];
    snprintf(dir, sizeof dir, "%s", scratch_path("bos"));
    assert_int_equal(mkdir(dir, 0700), 0);
    int32_t id;
    assert_int_equal(fm_tokenizer_bos_of_directory(dir, tok, &id, &err), FM_OK);
    assert_int_equal(id, -1); /* no such file */
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *f = fopen(path, "w");
        assert_true(f && fputs(cases[i].config, f) >= 0 && fclose(f) == 0);
        assert_int_equal(fm_tokenizer_bos_of_directory(dir, tok, &id, &err), FM_OK);
        const int32_t want = cases[i].bos ? fm_token_find(tok, cases[i].bos) : -1;
        assert_true(!cases[i].bos || want >= 0);
        assert_int_equal(id, want);
    }
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        FILE *f = fopen(path, "w");
        assert_true(f && fputs(odd[i].config, f) >= 0 && fclose(f) == 0);
        assert_int_equal(fm_tokenizer_bos_of_directory(dir, tok, &id, &err), FM_E_FORMAT);
        if (!strstr(err.msg, odd[i].expect)) fail_msg("%s", err.msg);
    }
    fm_tokenizer_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_says_whether_and_which),
        cmocka_unit_test(an_end_that_cannot_be_is_passed_over),
        cmocka_unit_test(directory_says_whether_and_which),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
