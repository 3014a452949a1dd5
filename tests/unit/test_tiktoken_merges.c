/* Merges from the ranks of a tiktoken file: against tiktoken's own code for a small one (tests/vectors/tiktoken), against
 * the merges that Qwen published beside its ranks for one of 151,643, and what no merge makes. */
#include "test_tokenizer_vectors.h"

#include <jansson.h>

#include "support/fixture.h"
#include "text/bpe.h"
#include "text/byte_alphabet.h"
#include "text/tiktoken.h"

/* Tokens of a list whose spelling ends at a space; the caller frees bytes and start. */
static fm_tiktoken ranks_of(const char *list)
{
    fm_tiktoken t = {0};
    t.bytes = malloc(strlen(list) + 1);
    t.start = calloc(strlen(list) + 2, sizeof *t.start);
    assert_true(t.bytes && t.start);
    for (uint32_t used = 0; *list; list++) {
        if (*list == ' ')
            t.start[++t.n_rank] = used;
        else
            t.bytes[used++] = *list;
    }
    return t;
}

static void small_file_has_the_merges_of_tiktoken(void **state)
{
    (void)state;
    FILE *f = fopen(source_path("tests/vectors/tiktoken/tiktoken.model"), "rb");
    assert_non_null(f);
    char text[8192];
    const size_t n_text = fread(text, 1, sizeof text, f);
    fclose(f);
    assert_true(n_text > 0 && n_text < sizeof text);
    fm_tiktoken t;
    fm_error err = {0};
    fm_token_pair *pairs;
    int32_t n, n_without, i = 0, left, right;
    if (fm_tiktoken_read(&t, text, n_text, "{}", 2, "tiktoken.model", &err) != FM_OK ||
        fm_tiktoken_merges(&t, &pairs, &n, &n_without, &err) != FM_OK)
        fail_msg("%s", err.msg);
    f = fopen(source_path("tests/vectors/tiktoken/merges.txt"), "r");
    assert_non_null(f);
    for (; fscanf(f, "%d %d", &left, &right) == 2; i++) {
        assert_true(i < n);
        assert_int_equal(pairs[i].left, left);
        assert_int_equal(pairs[i].right, right);
    }
    fclose(f);
    assert_int_equal(i, n);
    assert_int_equal(n, 74);
    assert_int_equal(n_without, 0);
    free(pairs);
    fm_tiktoken_free(&t);
}

static void tokens_that_no_merge_makes_are_counted(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        int32_t n, n_without;
        fm_token_pair pairs[4];
    } cases[] = {
        {"a b c ab abc ", 2, 0, {{0, 1}, {3, 2}}},
        {"a b c abc ab ", 1, 1, {{0, 1}}},                    /* its own rank comes too early   */
        {"a b c abc abcc ", 0, 2, {{0, 0}}},                  /* nor does it help the next one  */
        {"ab a b ", 1, 0, {{1, 2}}},                          /* single bytes behind            */
        {"a b ab ab abab ", 2, 1, {{0, 1}, {2, 2}}},          /* the same bytes twice           */
        {"a b bc ", 0, 1, {{0, 0}}},                          /* a byte that is no token        */
        {"a b c bc ab abc ", 3, 0, {{1, 2}, {0, 1}, {0, 3}}}, /* a + bc, not ab + c     */
        {"a ", 0, 0, {{0, 0}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fm_tiktoken t = ranks_of(cases[i].list);
        fm_error err = {0};
        fm_token_pair *pairs;
        int32_t n, n_without;
        if (fm_tiktoken_merges(&t, &pairs, &n, &n_without, &err) != FM_OK) fail_msg("%s", err.msg);
        if (n != cases[i].n || n_without != cases[i].n_without)
            fail_msg("%s: %d merges, %d tokens without", cases[i].list, n, n_without);
        for (int32_t k = 0; k < n; k++)
            if (pairs[k].left != cases[i].pairs[k].left ||
                pairs[k].right != cases[i].pairs[k].right)
                fail_msg("%s: merge %d is %d %d", cases[i].list, k, pairs[k].left, pairs[k].right);
        free(pairs);
        fm_tiktoken_free(&t);
    }
}

/* The vocabulary of a tokenizer.json whose ids are ranks, as a tiktoken file would have it. */
static fm_tiktoken ranks_of_json(const json_t *vocab)
{
    const size_t n = json_object_size(vocab);
    const char **spelled = calloc(n, sizeof *spelled), *key;
    json_t *id;
    size_t bytes = 0;
    assert_non_null(spelled);
    json_object_foreach((json_t *)(uintptr_t)vocab, key, id)
    {
        const json_int_t i = json_integer_value(id);
        assert_true(i >= 0 && (size_t)i < n);
        spelled[i] = key;
        bytes += strlen(key);
    }
    fm_tiktoken t = {0};
    t.bytes = malloc(bytes);
    t.start = calloc(n + 1, sizeof *t.start);
    assert_true(t.bytes && t.start);
    for (; (size_t)t.n_rank < n; t.n_rank++) {
        const uint32_t at = t.start[t.n_rank];
        const size_t got =
            fm_byte_alphabet_decode(t.bytes + at, spelled[t.n_rank], strlen(spelled[t.n_rank]));
        assert_true(got > 0 && got != SIZE_MAX);
        t.start[t.n_rank + 1] = at + (uint32_t)got;
    }
    free(spelled);
    return t;
}

/* Words by ranks and by merges: the same tokens. */
static void encode_both_ways(const fm_tiktoken *t, const fm_token_pair *pairs, int32_t n)
{
    fm_bpe by_rank, by_merge;
    fm_bpe_scratch scratch = {0};
    fm_id_vec a = {0}, b = {0};
    fm_error err = {0};
    assert_int_equal(fm_bpe_init(&by_rank, t->bytes, t->start, t->n_rank, 0, &err), FM_OK);
    assert_int_equal(fm_bpe_init(&by_merge, t->bytes, t->start, t->n_rank, n, &err), FM_OK);
    by_rank.rank_by_id = true;
    for (int32_t r = 0; r < t->n_rank; r++) {
        (void)fm_bpe_add_token(&by_rank, r);
        (void)fm_bpe_add_token(&by_merge, r);
    }
    for (int32_t i = 0; i < n; i++) {
        const fm_token_pair p = pairs[i];
        char both[2048];
        const size_t la = t->start[p.left + 1] - t->start[p.left],
                     lb = t->start[p.right + 1] - t->start[p.right];
        assert_true(la + lb <= sizeof both);
        memcpy(both, t->bytes + t->start[p.left], la);
        memcpy(both + la, t->bytes + t->start[p.right], lb);
        fm_bpe_add_merge(&by_merge, p.left, p.right, fm_bpe_find(&by_merge, both, la + lb));
    }
    blob strings = blob_gunzip(source_path(VECTORS "strings.gz"));
    assert_non_null(strings.data);
    const uint32_t n_string = blob_varint(&strings);
    for (uint32_t i = 0; i < n_string; i++) {
        size_t len;
        const char *s = blob_string(&strings, &len);
        a.n = b.n = 0;
        assert_int_equal(fm_bpe_encode(&by_rank, &scratch, &a, s, len, &err), FM_OK);
        assert_int_equal(fm_bpe_encode(&by_merge, &scratch, &b, s, len, &err), FM_OK);
        assert_int_equal(a.n, b.n);
        for (size_t k = 0; k < a.n; k++) assert_int_equal(a.ids[k], b.ids[k]);
    }
    print_message("%u strings are the same tokens by ranks and by merges\n", n_string);
    assert_true(n_string > 1000);
    free(strings.data);
    free(a.ids);
    free(b.ids);
    fm_bpe_scratch_deinit(&scratch);
    fm_bpe_deinit(&by_rank);
    fm_bpe_deinit(&by_merge);
}

/* Prefixes of one another cost more than their bytes: there is an end to their length. */
static void long_tokens_are_refused_by_rank(void **state)
{
    (void)state;
    static char bytes[513 + 512 + 1];
    uint32_t start[4] = {0, 1, 513, 1026};
    memset(bytes, 'a', sizeof bytes);
    fm_tiktoken t = {.bytes = bytes, .start = start, .n_rank = 3};
    fm_error err = {0};
    fm_token_pair *pairs;
    int32_t n, n_without;
    assert_int_equal(fm_tiktoken_merges(&t, &pairs, &n, &n_without, &err), FM_E_LIMIT);
    assert_null(pairs);
    assert_non_null(strstr(err.msg, "the token of rank 2 has 513 bytes, expected at most 512"));
    t.n_rank = 2;
    assert_int_equal(fm_tiktoken_merges(&t, &pairs, &n, &n_without, &err), FM_OK);
    free(pairs);
}

static void large_file_has_the_published_merges(void **state)
{
    (void)state;
    blob file = blob_gunzip(shared_file("tokenizers/qwen3/tokenizer.json.gz"));
    json_t *root = json_loadb((const char *)file.data, file.n, 0, NULL);
    const json_t *model = json_object_get(root, "model"),
                 *merges = json_object_get(model, "merges");
    fm_tiktoken t = ranks_of_json(json_object_get(model, "vocab"));
    assert_int_equal(t.n_rank, 151643);
    fm_error err = {0};
    fm_token_pair *pairs;
    int32_t n, n_without;
    if (fm_tiktoken_merges(&t, &pairs, &n, &n_without, &err) != FM_OK) fail_msg("%s", err.msg);
    assert_int_equal(n_without, 0);
    assert_int_equal(n, json_array_size(merges));
    for (int32_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(merges, (size_t)i);
        for (size_t side = 0; side < 2; side++) {
            const char *want = json_string_value(json_array_get(m, side));
            const int32_t id = side ? pairs[i].right : pairs[i].left;
            char bytes[1024];
            assert_non_null(want);
            assert_true(strlen(want) <= sizeof bytes);
            const size_t len = fm_byte_alphabet_decode(bytes, want, strlen(want));
            if (len != t.start[id + 1] - t.start[id] ||
                memcmp(bytes, t.bytes + t.start[id], len) != 0)
                fail_msg("merge %d: %s", i, want);
        }
    }
    encode_both_ways(&t, pairs, n);
    free(pairs);
    fm_tiktoken_free(&t);
    json_decref(root);
    free(file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_file_has_the_merges_of_tiktoken),
        cmocka_unit_test(tokens_that_no_merge_makes_are_counted),
        cmocka_unit_test(long_tokens_are_refused_by_rank),
        cmocka_unit_test(large_file_has_the_published_merges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
