/* Merges from ranks. Byte-pair encoding by rank merges the adjacent parts whose joined bytes have the lowest one, so with a
 * table that holds only the tokens before it, the bytes of a token end up as the parts that its own merge joins. */
#include <stdlib.h>

#include "text/bpe.h"
#include "text/tiktoken.h"

/* Published ranks have up to 128 bytes. What a token costs grows faster than its length. */
enum { TOKEN_BYTES_MAX = 512 };

static fm_status fill(const fm_tiktoken *t, fm_bpe *b, fm_token_pair *pairs, int32_t *n,
                      int32_t *n_without, fm_error *err)
{
    fm_bpe_scratch scratch = {0};
    fm_id_vec parts = {0};
    fm_status st = FM_OK;
    b->rank_by_id = true;
    /* Single bytes are what encoding starts from, wherever they stand in the list. */
    for (int32_t r = 0; r < t->n_rank; r++)
        if (t->start[r + 1] - t->start[r] == 1) (void)fm_bpe_add_token(b, r);
    for (int32_t r = 0; r < t->n_rank && st == FM_OK; r++) {
        const char *bytes = t->bytes + t->start[r];
        const size_t len = t->start[r + 1] - t->start[r];
        if (len == 1) continue;
        if (len > TOKEN_BYTES_MAX) {
            st = fm_fail(err, FM_E_LIMIT,
                         "tiktoken.model: the token of rank %d has %zu bytes, expected at most %d "
                         "for merges",
                         r, len, TOKEN_BYTES_MAX);
            break;
        }
        parts.n = 0;
        st = fm_bpe_encode(b, &scratch, &parts, bytes, len, err);
        if (st != FM_OK) break;
        if (parts.n == 2 && parts.ids[0] >= 0 && parts.ids[1] >= 0)
            pairs[(*n)++] = (fm_token_pair){parts.ids[0], parts.ids[1]};
        else
            ++*n_without;
        (void)fm_bpe_add_token(b, r);
    }
    free(parts.ids);
    fm_bpe_scratch_deinit(&scratch);
    return st;
}

fm_status fm_tiktoken_merges(const fm_tiktoken *t, fm_token_pair **pairs, int32_t *n,
                             int32_t *n_without, fm_error *err)
{
    fm_bpe b;
    *pairs = NULL;
    *n = *n_without = 0;
    FM_TRY(fm_bpe_init(&b, t->bytes, t->start, t->n_rank, 0, err));
    fm_status st = FM_OK;
    *pairs = malloc(((size_t)t->n_rank + 1) * sizeof **pairs);
    if (!*pairs) st = fm_fail(err, FM_E_NOMEM, "no memory for the merges of %d tokens", t->n_rank);
    if (st == FM_OK) st = fill(t, &b, *pairs, n, n_without, err);
    fm_bpe_deinit(&b);
    if (st != FM_OK) {
        free(*pairs);
        *pairs = NULL;
    }
    return st;
}
