/* Tokenizers against Hugging Face's library and against published test files: wrong ids are wrong
 * answers that nobody sees. */
#include "test_tokenizer_vectors.h"

#include <unistd.h>

#include "text/tokenizer.h"

/* Reads one list of ids into *ids (grown as needed). */
static size_t read_ids(blob *b, int32_t **ids, size_t *cap)
{
    const size_t n = blob_varint(b);
    if (n > *cap) {
        *cap = n * 2;
        *ids = realloc(*ids, *cap * sizeof **ids);
        assert_non_null(*ids);
    }
    for (size_t i = 0; i < n; i++) (*ids)[i] = (int32_t)blob_varint(b);
    return n;
}

/* ids of one list per string; with `strings` == NULL each list follows its string in `ids`. */
static void compare_all(const fm_tokenizer *t, blob *strings, blob *lists)
{
    int32_t *want = NULL;
    size_t cap = 0, n_id = 0;
    int n_bad = 0;
    const size_t n = blob_varint(lists);
    if (strings) assert_int_equal(blob_varint(strings), n);
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *text = blob_string(strings ? strings : lists, &len);
        const size_t n_want = read_ids(lists, &want, &cap);
        n_id += n_want;
        if (!same_ids(t, text, len, FM_TOKENIZE_SPECIAL, want, n_want) && ++n_bad == 20) break;
    }
    print_message("%zu strings, %zu ids\n", n, n_id);
    free(want);
    assert_int_equal(n_bad, 0);
}

/* ---- tokenizers that lie in the tree ----------------------------------------------------- */

static void mini(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, VECTORS "%s.json", name);
    fm_tokenizer *t = open_tokenizer(path);
    snprintf(path, sizeof path, VECTORS "%s.ids.gz", name);
    blob ids = blob_gunzip(path);
    assert_non_null(ids.data);
    compare_all(t, NULL, &ids);
    free(ids.data);
    fm_tokenizer_close(t);
}

static void mini_with_nfc_and_string_merges_gives_hf_ids(void **state)
{
    (void)state;
    mini("mini_strings");
}

static void mini_with_pairs_and_ignore_merges_gives_hf_ids(void **state)
{
    (void)state;
    mini("mini_pairs");
}

/* ---- real tokenizers --------------------------------------------------------------------- */

static void real(const char *name)
{
    char path[200], unpacked[] = "/tmp/fm_tokenizer_XXXXXX";
    snprintf(path, sizeof path, "tokenizers/%s/tokenizer.json.gz", name);
    blob json = blob_gunzip(shared_file(path));
    const int fd = mkstemp(unpacked);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, json.data, json.n), json.n);
    close(fd);
    free(json.data);
    fm_tokenizer *t = open_tokenizer(unpacked);
    unlink(unpacked);
    print_message("%s: %d tokens in %llu bytes of memory\n", name, fm_tokenizer_n_vocab(t),
                  (unsigned long long)fm_tokenizer_memory(t));
    assert_true(fm_tokenizer_memory(t) < 40 << 20);

    blob strings = blob_gunzip(VECTORS "strings.gz");
    snprintf(path, sizeof path, VECTORS "%s.ids.gz", name);
    blob ids = blob_gunzip(path);
    assert_non_null(strings.data);
    assert_non_null(ids.data);
    compare_all(t, &strings, &ids);
    free(strings.data);
    free(ids.data);
    fm_tokenizer_close(t);
}

static void qwen3_gives_hf_ids(void **state)
{
    (void)state;
    real("qwen3");
}

static void deepseek_v3_gives_hf_ids(void **state)
{
    (void)state;
    real("deepseek_v3");
}

/* ---- vocabulary-only GGUF files ---------------------------------------------------------- */

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *s = calloc(1, 1 << 20);
    assert_non_null(s);
    assert_true(fread(s, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return s;
}

/* NAME.inp: texts, each ended by a separator line; NAME.out: a line of ids for each. */
static void gguf_vocabulary(const char *name)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char path[200];
    snprintf(path, sizeof path, "vocab/ggml-vocab-%s.gguf", name);
    fm_tokenizer *t = open_tokenizer(shared_file(path));
    snprintf(path, sizeof path, "vocab/ggml-vocab-%s.gguf.inp", name);
    char *texts = read_file(shared_file(path));
    snprintf(path, sizeof path, "vocab/ggml-vocab-%s.gguf.out", name);
    char *lines = read_file(shared_file(path));
    char *out = lines;
    int n = 0, n_bad = 0;
    for (char *p = texts, *end; (end = strstr(p, separator)); p = end + sizeof separator - 1) {
        int32_t want[1000];
        size_t n_want = 0;
        for (; *out && *out != '\n'; n_want++) {
            assert_true(n_want < 1000);
            want[n_want] = (int32_t)strtol(out, &out, 10);
            while (*out == ' ') out++;
        }
        if (*out) out++;
        n_bad += !same_ids(t, p, (size_t)(end - p), FM_TOKENIZE_SPECIAL, want, n_want);
        n++;
    }
    print_message("%s: %d texts\n", name, n);
    assert_true(n > 40);
    assert_int_equal(n_bad, 0);
    free(texts);
    free(lines);
    fm_tokenizer_close(t);
}

static void gguf_gpt2_gives_published_ids(void **state)
{
    (void)state;
    gguf_vocabulary("gpt-2");
}

static void gguf_deepseek_llm_gives_published_ids(void **state)
{
    (void)state;
    gguf_vocabulary("deepseek-llm");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mini_with_nfc_and_string_merges_gives_hf_ids),
        cmocka_unit_test(mini_with_pairs_and_ignore_merges_gives_hf_ids),
        cmocka_unit_test(qwen3_gives_hf_ids),
        cmocka_unit_test(deepseek_v3_gives_hf_ids),
        cmocka_unit_test(gguf_gpt2_gives_published_ids),
        cmocka_unit_test(gguf_deepseek_llm_gives_published_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
