/* Text: every text becomes ids, the ids give the text back, splits cover it without gaps, and a
 * stream of its bytes is valid UTF-8. The first byte of the input chooses. */
#include "fuzz/fuzz.h"

#include <string.h>

#include "text/nfc.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

static const char *const families[] = {"qwen35",  "qwen2", "deepseek-v3", "deepseek-llm",
                                       "kimi-k2", "glm4",  "gpt-4o",      "gpt-2"};
enum { N_FAMILY = sizeof families / sizeof families[0] };
static fm_tokenizer *nfc, *plain;
static fm_splitter *splitters[N_FAMILY];

static fm_tokenizer *load(const char *path)
{
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_open(&t, path, &err) != FM_OK) fprintf(stderr, "%s\n", err.msg);
    FUZZ_CHECK(t);
    return t;
}

static void tokenize(const fm_tokenizer *t, const char *text, size_t n, unsigned flags, bool exact)
{
    fm_error err = {0};
    int32_t *ids;
    size_t n_ids, at = 0;
    FUZZ_CHECK(fm_tokenize(t, &ids, &n_ids, text, n, flags, &err) == FM_OK);
    for (size_t i = 0; i < n_ids; i++) {
        size_t len;
        const char *bytes = fm_token_bytes(t, ids[i], &len);
        FUZZ_CHECK(bytes);
        if (exact) FUZZ_CHECK(len <= n - at && memcmp(bytes, text + at, len) == 0);
        at += len;
    }
    if (exact) FUZZ_CHECK(at == n);
    free(ids);
}

static void split(const fm_splitter *s, const char *text, size_t n)
{
    fm_error err = {0};
    fm_pieces p = {0};
    FUZZ_CHECK(fm_splitter_run(s, &p, text, n, &err) == FM_OK);
    size_t at = 0;
    for (size_t i = 0; i < p.n; i++) {
        FUZZ_CHECK(p.end[i] > at && p.end[i] <= n);
        at = p.end[i];
        FUZZ_CHECK(at == n || ((unsigned char)text[at] & 0xC0) != 0x80);
    }
    FUZZ_CHECK(at == n);
    free(p.end);
}

static void stream(const char *text, size_t n, size_t step)
{
    fm_utf8_stream s = {0};
    char out[3 * (16 + 3)];
    for (size_t at = 0; at < n; at += step) {
        const size_t part = n - at < step ? n - at : step;
        const size_t w = fm_utf8_push(&s, out, text + at, part, at + part == n);
        FUZZ_CHECK(w <= 3 * (part + 3) && fm_utf8_valid_prefix(out, w) == w);
    }
}

static void normalize(const char *text, size_t n)
{
    fm_error err = {0};
    char *once, *twice;
    size_t n_once, n_twice;
    FUZZ_CHECK(fm_nfc(&once, &n_once, text, n, &err) == FM_OK);
    FUZZ_CHECK(fm_utf8_valid_prefix(once, n_once) == n_once);
    FUZZ_CHECK(fm_nfc(&twice, &n_twice, once, n_once, &err) == FM_OK);
    FUZZ_CHECK(n_once == n_twice && memcmp(once, twice, n_once) == 0);
    if (fm_nfc_is_plain(text, n)) FUZZ_CHECK(n == n_once && memcmp(once, text, n) == 0);
    free(once);
    free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!nfc) {
        nfc = load("tests/vectors/tokenizer/mini_strings.json");
        plain = load("tests/vectors/tokenizer/mini_pairs.json");
        for (size_t i = 0; i < N_FAMILY; i++) {
            const fm_split_family *f = fm_split_family_find(families[i], strlen(families[i]));
            size_t n_pattern = 0;
            while (f->patterns[n_pattern]) n_pattern++;
            FUZZ_CHECK(fm_splitter_create(&splitters[i], f->patterns, n_pattern, NULL) == FM_OK);
        }
    }
    if (n == 0) return 0;
    const unsigned choice = data[0];
    const char *text = (const char *)data + 1;
    n--;
    tokenize(plain, text, n, choice & 1, true);
    tokenize(nfc, text, n, choice & 1, fm_nfc_is_plain(text, n));
    stream(text, n, 1 + choice % 16);
    const size_t valid = fm_utf8_valid_prefix(text, n);
    split(splitters[choice % N_FAMILY], text, valid);
    normalize(text, valid);
    return 0;
}
