/* What callers of the tokenizer rely on: special tokens, broken text, limits, and errors that say
 * what is wrong with a file. */
#include "test_gguf_files.h"

#include "engine/tokenizer_glue.h"
#include "test_tokenizer_vectors.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

#define STRINGS VECTORS "mini_strings.json"
#define PAIRS VECTORS "mini_pairs.json"

/* ---- ids --------------------------------------------------------------------------------- */

static size_t count_ids(const fm_tokenizer *t, const char *text, size_t n, unsigned flags)
{
    int32_t *ids;
    size_t n_ids;
    fm_error err = {0};
    if (fm_tokenize(t, &ids, &n_ids, text, n, flags, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_non_null(ids); /* also for no ids at all: the caller frees it */
    free(ids);
    return n_ids;
}

static void special_tokens_in_text_are_text_unless_asked_for(void **state)
{
    (void)state;
    fm_tokenizer *t = open_tokenizer(STRINGS);
    const int32_t start = fm_token_find(t, "<|im_start|>"), end = fm_token_find(t, "<|im_end|>");
    const int32_t think = fm_token_find(t, "<think>");
    assert_true(start > 0 && end > start && think > end);
    assert_true(fm_token_is_special(t, start) && fm_token_is_special(t, end));
    assert_false(fm_token_is_special(t, think));
    assert_true(same_ids(t, "<|im_start|>", 12, FM_TOKENIZE_SPECIAL, &start, 1));
    assert_true(count_ids(t, "<|im_start|>", 12, 0) > 3);
    assert_true(count_ids(t, "<think>", 7, 0) > 1);
    assert_true(fm_token_is_end(t, end));
    assert_false(fm_token_is_end(t, start));
    /* the longest of two that begin alike */
    const int32_t longer = fm_token_find(t, "<|im_end|>x");
    assert_true(same_ids(t, "<|im_end|>x", 11, FM_TOKENIZE_SPECIAL, &longer, 1));
    fm_tokenizer_close(t);
}

static void ids_out_of_range_are_answered(void **state)
{
    (void)state;
    fm_tokenizer *t = open_tokenizer(STRINGS);
    const int32_t bad[] = {-1, INT32_MIN, INT32_MAX, fm_tokenizer_n_vocab(t)};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t n = 7;
        assert_null(fm_token_bytes(t, bad[i], &n));
        assert_int_equal(n, 0);
        assert_false(fm_token_is_special(t, bad[i]) || fm_token_is_end(t, bad[i]));
    }
    assert_int_equal(fm_token_find(t, "no such token"), -1);
    assert_int_equal(fm_token_find(t, ""), -1);
    assert_int_equal(count_ids(t, "", 0, 0), 0);
    assert_int_equal(count_ids(t, NULL, 0, FM_TOKENIZE_SPECIAL), 0);
    int32_t *ids;
    size_t n_ids;
    fm_error err = {0};
    assert_int_equal(fm_tokenize(t, &ids, &n_ids, "", (size_t)INT32_MAX + 1, 0, &err), FM_E_LIMIT);
    fm_tokenizer_close(NULL);
    fm_tokenizer_close(t);
}

/* Every byte string comes back as it was (no normaliser, all bytes in the vocabulary). */
static void any_bytes_survive_the_round_trip(void **state)
{
    (void)state;
    fm_tokenizer *t = open_tokenizer(PAIRS);
    uint32_t seed = 1;
    for (int round = 0; round < 2000; round++) {
        char text[300], back[600];
        const size_t n = (size_t)round % sizeof text;
        for (size_t i = 0; i < n; i++) {
            seed = seed * 1664525 + 1013904223;
            const unsigned char c = (unsigned char)(seed >> 24);
            text[i] = (char)(round % 3 == 0 ? c : round % 3 == 1 ? c % 96 + 32 : c | 0x80);
        }
        int32_t *ids;
        size_t n_ids, w = 0;
        fm_error err = {0};
        assert_int_equal(fm_tokenize(t, &ids, &n_ids, text, n, 0, &err), FM_OK);
        for (size_t i = 0; i < n_ids; i++) {
            size_t len;
            const char *part = fm_token_bytes(t, ids[i], &len);
            assert_true(w + len <= sizeof back);
            memcpy(back + w, part, len);
            w += len;
        }
        assert_int_equal(w, n);
        if (n) assert_memory_equal(text, back, n);
        free(ids);
    }
    fm_tokenizer_close(t);
}

/* A broken byte is its own token and does not change what is around it. */
static void broken_bytes_are_single_tokens(void **state)
{
    (void)state;
    fm_tokenizer *t = open_tokenizer(STRINGS);
    const int32_t ff = fm_token_find(t, "\xff"), c3 = fm_token_find(t, "\xc3");
    const int32_t the = fm_token_find(t, " the");
    assert_true(ff >= 0 && c3 >= 0 && the >= 0);
    const int32_t want[] = {the, ff, c3, the};
    assert_true(same_ids(t, " the\xff\xc3 the", 10, 0, want, 4));
    fm_tokenizer_close(t);
}

/* Long pieces take another path than short ones; both must agree. */
static void long_pieces_merge_like_short_ones(void **state)
{
    (void)state;
    fm_tokenizer *t = open_tokenizer(STRINGS);
    const char *const units[] = {"the", "ing", "a", "tion", "erre", "abcabd"};
    fm_bpe_scratch scratch = {0};
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        char text[400];
        size_t n = 0;
        for (; n + 10 < sizeof text; n += strlen(units[u]))
            memcpy(text + n, units[u], strlen(units[u]));
        /* Merging by hand: the lowest rank first, the leftmost of equals. */
        int32_t want[400];
        size_t k = n;
        for (size_t i = 0; i < n; i++) want[i] = t->bpe.byte_id[(unsigned char)text[i]];
        for (;;) {
            int32_t best = INT32_MAX, result = -1;
            size_t at = 0;
            for (size_t i = 0; i + 1 < k; i++)
                for (int32_t r = 0; r < t->bpe.n_merge; r++)
                    if (t->bpe.merges[r].left == want[i] && t->bpe.merges[r].right == want[i + 1] &&
                        r < best) {
                        best = r;
                        at = i;
                        result = t->bpe.merges[r].result;
                    }
            if (result < 0) break;
            want[at] = result;
            memmove(want + at + 1, want + at + 2, (--k - at - 1) * sizeof *want);
        }
        fm_id_vec got = {0};
        fm_error err = {0};
        assert_int_equal(fm_bpe_encode(&t->bpe, &scratch, &got, text, n, &err), FM_OK);
        assert_int_equal(got.n, k);
        assert_memory_equal(got.ids, want, k * sizeof *want);
        free(got.ids);
    }
    fm_bpe_scratch_deinit(&scratch);
    fm_tokenizer_close(t);
}

static void megabyte_word_ends_soon(void **state)
{
    (void)state;
    fm_tokenizer *t = open_tokenizer(STRINGS);
    const size_t n = 1 << 20;
    char *text = malloc(n);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++) text[i] = (char)('a' + i * i % 7);
    assert_true(count_ids(t, text, n, 0) > n / 8);
    memset(text, '<', n);
    assert_true(count_ids(t, text, n, FM_TOKENIZE_SPECIAL) > n / 16);
    free(text);
    fm_tokenizer_close(t);
}

/* ---- tokenizer.json that is refused ------------------------------------------------------ */

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *s = calloc(1, 200000);
    assert_non_null(s);
    assert_true(fread(s, 1, 199999, f) > 0);
    fclose(f);
    return s;
}

/* The file with the first `from` replaced by `to`. */
static char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    if (!at) fail_msg("\"%s\" is not in the file", from);
    char *s = calloc(1, strlen(text) + strlen(to) + 1);
    assert_non_null(s);
    memcpy(s, text, (size_t)(at - text));
    strcat(s, to);
    strcat(s, at + strlen(from));
    return s;
}

static const struct {
    const char *from, *to;
    fm_status st;
    const char *expect;
} json_cases[] = {
    {"{", "[", FM_E_FORMAT, "line 1"},
    {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", FM_E_UNSUPPORTED, "model type \"Unigram\""},
    {"\"dropout\":null", "\"dropout\":0.1", FM_E_UNSUPPORTED, "dropout"},
    {"\"byte_fallback\":false", "\"byte_fallback\":true", FM_E_UNSUPPORTED, "byte_fallback"},
    {"\"end_of_word_suffix\":\"\"", "\"end_of_word_suffix\":\"</w>\"", FM_E_UNSUPPORTED, "suffix"},
    {"\"type\":\"NFC\"", "\"type\":\"Lowercase\"", FM_E_UNSUPPORTED, "normalizer \"Lowercase\""},
    {"\"type\":\"Split\"", "\"type\":\"Metaspace\"", FM_E_UNSUPPORTED, "\"Metaspace\""},
    {"\"Isolated\"", "\"Removed\"", FM_E_UNSUPPORTED, "\"Removed\""},
    {"\"invert\":false", "\"invert\":true", FM_E_UNSUPPORTED, "invert"},
    {"\"Regex\":\"", "\"Regex\":\"\\\\w|", FM_E_UNSUPPORTED, "\\w"},
    {"\"Regex\":\"", "\"Regex\":\"(", FM_E_UNSUPPORTED, "pre_tokenizer"},
    {"\"Regex\":", "\"Glob\":", FM_E_FORMAT, "Regex or String"},
    {"\"single_word\":false", "\"single_word\":true", FM_E_UNSUPPORTED,
     "\"<|im_start|>\": the flag single_word"},
    {"\"content\":\"<|im_start|>\"", "\"content\":\"\"", FM_E_FORMAT, "added_tokens"},
    {"\"id\":", "\"id\":9", FM_E_FORMAT, "added_tokens: id 9"},
    {"\"id\":", "\"id\":-", FM_E_FORMAT, "added_tokens: id -"},
    {"\"id\":", "\"id\":0.", FM_E_FORMAT, "an integer id"},
    {"\"vocab\":{", "\"vocab\":{\"zz\":0,", FM_E_FORMAT, "id 0 belongs to both"},
    {"\"vocab\":{", "\"vocab\":{\"zz\":99999999,", FM_E_FORMAT, "id 99999999"},
    {"\"vocab\":{", "\"vocab\":{\"zz\":\"x\",", FM_E_FORMAT, "integer id"},
    {"\"vocab\":{", "\"vocab\":7,\"v\":{", FM_E_FORMAT, "model.vocab"},
    {"\"vocab\":{\"!\"", "\"vocab\":{\"!!!!!\"", FM_E_FORMAT, "single byte 0x21"},
    {"\"merges\":[", "\"merges\":[\"ab\",", FM_E_FORMAT, "merge 0 (\"ab\")"},
    {"\"merges\":[", "\"merges\":[\"zq zq\",", FM_E_FORMAT, "the left part is not a token"},
    {"\"merges\":[", "\"merges\":[\"z zq\",", FM_E_FORMAT, "the right part is not a token"},
    {"\"merges\":[", "\"merges\":[\"z q\",", FM_E_FORMAT, "the result is not a token"},
    {"\"merges\":[", "\"merges\":[[\"a\"],", FM_E_FORMAT, "merge 0"},
    {"\"merges\":[", "\"merges\":[3,", FM_E_FORMAT, "merge 0"},
    {"\"merges\":[", "\"merges\":[\"\\u4e2d a\",", FM_E_FORMAT, "byte alphabet"},
    {"\"merges\":[", "\"merges\":{},\"m\":[", FM_E_FORMAT, "model.merges"},
    {"\"model\":{", "\"model\":null,\"m\":{", FM_E_FORMAT, "model"},
    {"\"added_tokens\":[", "\"added_tokens\":5,\"a\":[", FM_E_FORMAT, "added_tokens"},
    {"\"pre_tokenizer\":{", "\"pre_tokenizer\":null,\"p\":{", FM_E_FORMAT, "pre_tokenizer"},
    {"\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"WordPiece\"", FM_E_UNSUPPORTED,
     "decoder \"WordPiece\""},
};

static void json_that_would_change_the_result_is_refused(void **state)
{
    (void)state;
    char *text = read_text(STRINGS);
    int n = 0;
    for (size_t i = 0; i < sizeof json_cases / sizeof json_cases[0]; i++) {
        char *bad = replaced(text, json_cases[i].from, json_cases[i].to);
        fm_tokenizer *t;
        fm_error err = {0};
        const fm_status st = fm_tokenizer_from_json(&t, bad, strlen(bad), "the/file.json", &err);
        if (st != json_cases[i].st || !strstr(err.msg, json_cases[i].expect) ||
            !strstr(err.msg, "the/file.json"))
            fail_msg("%s: status %d: \"%s\", expected \"%s\"", json_cases[i].to, st, err.msg,
                     json_cases[i].expect);
        assert_null(t);
        free(bad);
        n++;
    }
    print_message("%d damaged files\n", n);
    /* cut anywhere */
    for (size_t n_byte = 0; n_byte < strlen(text) - 2; n_byte += n_byte < 200 ? 1 : 997) {
        fm_tokenizer *t;
        fm_error err = {0};
        assert_int_equal(fm_tokenizer_from_json(&t, text, n_byte, "f", &err), FM_E_FORMAT);
        assert_null(t);
    }
    free(text);
}

/* tokenizers 0.23 reads this length into 64 bits without a sign and gives the same ids. */
static void json_with_integers_beyond_int64_is_read(void **state)
{
    (void)state;
    static const char with[] = "\"truncation\":{\"direction\":\"Right\",\"max_length\":"
                               "18446744073709551615,\"strategy\":\"LongestFirst\",\"stride\":0}";
    static const char string[] = "<|im_start|>the man and the sea";
    char *text = read_text(STRINGS);
    char *large = replaced(text, "\"truncation\":null", with);
    fm_tokenizer *plain, *t;
    fm_error err = {0};
    assert_int_equal(fm_tokenizer_from_json(&plain, text, strlen(text), "f", &err), FM_OK);
    if (fm_tokenizer_from_json(&t, large, strlen(large), "f", &err) != FM_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(fm_tokenizer_n_vocab(t), fm_tokenizer_n_vocab(plain));
    int32_t *want;
    size_t n_want;
    assert_int_equal(
        fm_tokenize(plain, &want, &n_want, string, sizeof string - 1, FM_TOKENIZE_SPECIAL, &err),
        FM_OK);
    assert_true(n_want > 1);
    assert_true(same_ids(t, string, sizeof string - 1, FM_TOKENIZE_SPECIAL, want, n_want));
    free(want);
    fm_tokenizer_close(plain);
    fm_tokenizer_close(t);

    char *twice = replaced(large, "\"truncation\":", "\"truncation\":null,\"truncation\":");
    assert_int_equal(fm_tokenizer_from_json(&t, twice, strlen(twice), "f", &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, "duplicate"));
    free(twice);
    free(large);
    free(text);
}

/* ---- tokenizers in GGUF files ------------------------------------------------------------ */

typedef struct {
    const char *model, *pre;
    uint64_t n_token, n_type, n_merge; /* as declared; 0: the key is left out */
    int32_t type, eos;                 /* eos -1: the key is left out         */
    const char *merge;
} gguf_spec;

/* 256 bytes, "ab" and a control token. */
static const gguf_spec sound = {"gpt2", "qwen2", 258, 258, 1, 3, 257, "a b"};

static void put_tokenizer(bytes *b, const gguf_spec *s)
{
    const uint64_t n = (s->model != NULL) + (s->pre != NULL) + (s->n_token > 0) + (s->n_type > 0) +
                       (s->n_merge > 0) + (s->eos >= 0);
    put_header(b, 0, n);
    if (s->model) put_entry_string(b, "tokenizer.ggml.model", s->model);
    if (s->pre) put_entry_string(b, "tokenizer.ggml.pre", s->pre);
    if (s->n_token) put_array_head(b, "tokenizer.ggml.tokens", FM_GGUF_STRING, s->n_token);
    for (uint64_t i = 0; i < s->n_token; i++) {
        char one[8] = {0};
        if (i < 256) fm_utf8_encode(one, fm_byte_alphabet((unsigned char)i));
        put_string(b, i < 256 ? one : i == 256 ? "ab" : "<|end|>");
    }
    if (s->n_type) put_array_head(b, "tokenizer.ggml.token_type", FM_GGUF_I32, s->n_type);
    for (uint64_t i = 0; i < s->n_type; i++) put_le(b, i == 257 ? (uint32_t)s->type : 1, 4);
    if (s->n_merge) put_array_head(b, "tokenizer.ggml.merges", FM_GGUF_STRING, 1);
    if (s->n_merge) put_string(b, s->merge);
    if (s->eos >= 0) put_entry(b, "tokenizer.ggml.eos_token_id", FM_GGUF_U32, (uint32_t)s->eos, 4);
}

static void gguf_tokenizer_is_made_and_used(void **state)
{
    (void)state;
    bytes b = {.n = 0};
    put_tokenizer(&b, &sound);
    fm_tokenizer *t = open_tokenizer(write_file("t.gguf", &b));
    remove_file("t.gguf");
    const int32_t want[] = {257, 256, ' ', 'a'};
    assert_true(same_ids(t, "<|end|>ab a", 11, FM_TOKENIZE_SPECIAL, want, 4));
    assert_true(fm_token_is_special(t, 257) && fm_token_is_end(t, 257));
    assert_int_equal(fm_tokenizer_n_vocab(t), 258);
    fm_tokenizer_close(t);
}

static void gguf_tokenizer_errors_name_the_key(void **state)
{
    (void)state;
    const struct {
        gguf_spec spec;
        fm_status st;
        const char *expect;
    } cases[] = {
        {{NULL, "qwen2", 258, 258, 1, 3, 257, "a b"}, FM_E_FORMAT, "tokenizer.ggml.model"},
        {{"gpt2", NULL, 258, 258, 1, 3, 257, "a b"}, FM_E_FORMAT, "tokenizer.ggml.pre"},
        {{"llama", "qwen2", 258, 258, 1, 3, 257, "a b"}, FM_E_UNSUPPORTED, "model \"llama\""},
        {{"gpt2", "viking", 258, 258, 1, 3, 257, "a b"}, FM_E_UNSUPPORTED, "\"viking\""},
        {{"gpt2", "viking", 258, 258, 1, 3, 257, "a b"}, FM_E_UNSUPPORTED, "qwen35, qwen2"},
        {{"gpt2", "qwen2", 0, 258, 1, 3, 257, "a b"}, FM_E_FORMAT, "tokenizer.ggml.tokens"},
        {{"gpt2", "qwen2", 258, 257, 1, 3, 257, "a b"}, FM_E_FORMAT, "token_type has 257"},
        {{"gpt2", "qwen2", 258, 258, 1, 7, 257, "a b"},
         FM_E_FORMAT,
         "token_type of token 257 is 7"},
        {{"gpt2", "qwen2", 258, 258, 1, 3, 258, "a b"}, FM_E_FORMAT, "eos_token_id is 258"},
        {{"gpt2", "qwen2", 258, 258, 1, 3, 257, "ab"}, FM_E_FORMAT, "merge 0 (\"ab\")"},
        {{"gpt2", "qwen2", 258, 258, 1, 3, 257, "a c"}, FM_E_FORMAT, "the result is not a token"},
        {{"gpt2", "qwen2", 258, 258, 1, 3, 257, "ba a"},
         FM_E_FORMAT,
         "the left part is not a token"},
        {{"gpt2", "qwen2", 200, 200, 0, 3, 1, ""},
         FM_E_FORMAT,
         "no token for the single byte 0xc8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bytes b = {.n = 0};
        put_tokenizer(&b, &cases[i].spec);
        fm_tokenizer *t;
        fm_error err = {0};
        const fm_status st = fm_tokenizer_open(&t, write_file("t.gguf", &b), &err);
        if (st != cases[i].st || !strstr(err.msg, cases[i].expect) || !strstr(err.msg, "t.gguf"))
            fail_msg("status %d: \"%s\", expected \"%s\"", st, err.msg, cases[i].expect);
        assert_null(t);
    }
    remove_file("t.gguf");
}

static void other_files_are_no_tokenizers(void **state)
{
    (void)state;
    const struct {
        const char *text;
        fm_status st;
        const char *expect;
    } cases[] = {
        {"", FM_E_FORMAT, "neither"},      {"  \n", FM_E_FORMAT, "neither"},
        {"hello", FM_E_FORMAT, "neither"}, {"\x1f\x8b\x08", FM_E_UNSUPPORTED, "gzip"},
        {"{}", FM_E_FORMAT, "model"},      {" {", FM_E_FORMAT, "line 1"},
        {"GGUF", FM_E_FORMAT, "version"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bytes b = {.n = 0};
        put(&b, cases[i].text, strlen(cases[i].text));
        fm_tokenizer *t;
        fm_error err = {0};
        assert_int_equal(fm_tokenizer_open(&t, write_file("t.gguf", &b), &err), cases[i].st);
        assert_null(t);
        if (!strstr(err.msg, cases[i].expect)) fail_msg("\"%s\"", err.msg);
    }
    remove_file("t.gguf");
    fm_tokenizer *t;
    fm_error err = {0};
    assert_int_equal(fm_tokenizer_open(&t, "/tmp", &err), FM_E_IO); /* no tokenizer.json there */
    assert_int_equal(fm_tokenizer_open(&t, "/nonexistent", &err), FM_E_IO);
    assert_int_equal(fm_tokenizer_open(&t, NULL, &err), FM_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(special_tokens_in_text_are_text_unless_asked_for),
        cmocka_unit_test(ids_out_of_range_are_answered),
        cmocka_unit_test(any_bytes_survive_the_round_trip),
        cmocka_unit_test(broken_bytes_are_single_tokens),
        cmocka_unit_test(long_pieces_merge_like_short_ones),
        cmocka_unit_test(megabyte_word_ends_soon),
        cmocka_unit_test(json_that_would_change_the_result_is_refused),
        cmocka_unit_test(json_with_integers_beyond_int64_is_read),
        cmocka_unit_test(gguf_tokenizer_is_made_and_used),
        cmocka_unit_test(gguf_tokenizer_errors_name_the_key),
        cmocka_unit_test(other_files_are_no_tokenizers),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
