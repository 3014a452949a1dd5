/* tiktoken files: input is tokenizer_config.json, a zero byte, then the file. */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "text/tiktoken.h"
#include "text/tokenizer.h"

static uint32_t bytes_of(const fm_tiktoken *k, int32_t id)
{
    return k->start[id + 1] - k->start[id];
}

static int joins(const fm_tiktoken *k, fm_token_pair p, int32_t r)
{
    if (p.left < 0 || p.right < 0 || p.left >= k->n_rank || p.right >= k->n_rank) abort();
    const uint32_t a = bytes_of(k, p.left), b = bytes_of(k, p.right);
    const char *const whole = k->bytes + k->start[r];
    return a + b == bytes_of(k, r) && memcmp(whole, k->bytes + k->start[p.left], a) == 0 &&
           memcmp(whole + a, k->bytes + k->start[p.right], b) == 0;
}

/* Each merge joins two tokens to a third one, in ascending order of these; all others are counted. */
static void check_merges(const char *text, size_t n, const char *config, size_t n_config)
{
    fm_tiktoken k;
    fm_error err = {0};
    fm_token_pair *pairs;
    int32_t n_pair, n_without, n_single = 0;
    if (fm_tiktoken_read(&k, text, n, config, n_config, "fuzz", &err) != FM_OK) return;
    if (fm_tiktoken_merges(&k, &pairs, &n_pair, &n_without, &err) == FM_OK) {
        for (int32_t i = 0, r = 0; i < n_pair; i++) {
            while (r < k.n_rank && !joins(&k, pairs[i], r)) r++;
            if (r++ == k.n_rank) abort();
        }
        for (int32_t r = 0; r < k.n_rank; r++) n_single += bytes_of(&k, r) == 1;
        if (n_pair + n_without + n_single != k.n_rank) abort();
        free(pairs);
    }
    fm_tiktoken_free(&k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = memchr(data, 0, size);
    const size_t n_config = zero ? (size_t)(zero - data) : size;
    const uint8_t *text = zero ? zero + 1 : data + size;
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_from_tiktoken(&t, (const char *)text, size - (size_t)(text - data),
                                   (const char *)data, n_config, "kimi-k2", "fuzz", &err) == FM_OK)
        fm_tokenizer_close(t);
    else if (!err.msg[0])
        abort();
    check_merges((const char *)text, size - (size_t)(text - data), (const char *)data, n_config);
    return 0;
}
