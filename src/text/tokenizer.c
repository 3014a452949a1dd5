/* Text to ids and ids to bytes. The order of work:
 *
 *   1. added tokens are looked for in the text as given (only when asked for);
 *   2. what is between them is cut into valid UTF-8 and single bytes that are not. Such a byte is
 *      the token of that byte, alone: it takes part in no pattern and no merge. Some vocabularies
 *      lack the bytes that UTF-8 never uses; then U+FFFD stands for the byte;
 *   3. valid text is normalised (NFC where the model asks for it);
 *   4. added tokens of the other kind are looked for in the normalised text;
 *   5. patterns cut the rest into pieces, byte-pair encoding turns each piece into ids. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "text/nfc.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

typedef struct {
    const fm_tokenizer *tok;
    unsigned flags;
    /* Control tokens must lie in trusted bytes of whole[n_whole]; NULL: anywhere. */
    const unsigned char *trusted;
    const char *whole;
    size_t n_whole;
    fm_id_vec ids;
    fm_bpe_scratch scratch;
    fm_pieces pieces;
    fm_error *err;
} job;

static fm_status push(job *j, int32_t id)
{
    if (fm_id_vec_push(&j->ids, id)) return FM_OK;
    return fm_fail(j->err, FM_E_NOMEM, "no memory for %zu token ids", j->ids.n + 1);
}

/* Step 5. */
static fm_status encode_plain(job *j, const char *text, size_t n)
{
    FM_TRY(fm_splitter_run(j->tok->splitter, &j->pieces, text, n, j->err));
    size_t begin = 0;
    for (size_t i = 0; i < j->pieces.n; i++) {
        const size_t end = j->pieces.end[i];
        FM_TRY(
            fm_bpe_encode(&j->tok->bpe, &j->scratch, &j->ids, text + begin, end - begin, j->err));
        begin = end;
    }
    return FM_OK;
}

typedef fm_status (*encode_fn)(job *j, const char *text, size_t n);

/* `at` may lie in a normalised copy, which is not trusted. */
static bool is_trusted(const job *j, const char *at, size_t len)
{
    if (!j->trusted) return true;
    const uintptr_t from = (uintptr_t)at - (uintptr_t)j->whole;
    if (from >= j->n_whole || len > j->n_whole - from) return false;
    return memchr(j->trusted + from, 0, len) == NULL;
}

/* The next literal that the flags admit, as fm_literal_set_search(). */
static size_t next_literal(const job *j, const fm_literal_set *set, const char *text, size_t n,
                           size_t from, size_t *len, int32_t *id)
{
    if (!(j->flags & (FM_TOKENIZE_CONTROL | FM_TOKENIZE_MARKUP))) return n;
    for (size_t at = from; at < n; at++) {
        at = fm_literal_set_search(set, text, n, at, len, id);
        if (at == n) break;
        const bool is_control = fm_token_is_special(j->tok, *id);
        if (is_control && !is_trusted(j, text + at, *len)) continue;
        if (j->flags & (is_control ? FM_TOKENIZE_CONTROL : FM_TOKENIZE_MARKUP)) return at;
    }
    return n;
}

/* Emits the literals of `set` that stand in the text and hands what is between them to `rest`. */
static fm_status encode_around(job *j, const fm_literal_set *set, const char *text, size_t n,
                               encode_fn rest)
{
    size_t begin = 0;
    while (begin < n) {
        size_t len = 0;
        int32_t id = -1;
        const size_t at = next_literal(j, set, text, n, begin, &len, &id);
        if (at > begin) FM_TRY(rest(j, text + begin, at - begin));
        if (at == n) break;
        FM_TRY(push(j, id));
        begin = at + len;
    }
    return FM_OK;
}

/* Steps 3 and 4. */
static fm_status encode_valid(job *j, const char *text, size_t n)
{
    char *nfc = NULL;
    if (j->tok->nfc && !fm_nfc_is_plain(text, n)) {
        FM_TRY(fm_nfc(&nfc, &n, text, n, j->err));
        text = nfc;
    }
    const fm_status st = encode_around(j, &j->tok->normalized, text, n, encode_plain);
    free(nfc);
    return st;
}

/* Step 2. */
static fm_status encode_bytes(job *j, const char *text, size_t n)
{
    for (size_t at = 0; at < n;) {
        const size_t valid = fm_utf8_valid_prefix(text + at, n - at);
        if (valid > 0) {
            FM_TRY(encode_valid(j, text + at, valid));
            at += valid;
        } else {
            const int32_t id = j->tok->bpe.byte_id[(unsigned char)text[at]];
            FM_TRY(id >= 0 ? push(j, id) : encode_valid(j, "\xEF\xBF\xBD", 3));
            at++;
        }
    }
    return FM_OK;
}

static fm_status tokenize(const fm_tokenizer *tok, int32_t **ids, size_t *n_ids, const char *text,
                          size_t n, unsigned flags, const unsigned char *trusted, fm_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    if (n > INT32_MAX)
        return fm_fail(err, FM_E_LIMIT, "a text of %zu bytes; at most %d are taken at once", n,
                       INT32_MAX);
    job j = {
        .tok = tok, .flags = flags, .trusted = trusted, .whole = text, .n_whole = n, .err = err};
    fm_status st = encode_around(&j, &tok->raw, text, n, encode_bytes);
    fm_bpe_scratch_deinit(&j.scratch);
    free(j.pieces.end);
    if (st == FM_OK && !j.ids.ids) {
        j.ids.ids = malloc(sizeof *j.ids.ids);
        if (!j.ids.ids) st = fm_fail(err, FM_E_NOMEM, "no memory for token ids");
    }
    if (st != FM_OK) {
        free(j.ids.ids);
        return st;
    }
    *ids = j.ids.ids;
    *n_ids = j.ids.n;
    return FM_OK;
}

fm_status fm_tokenize(const fm_tokenizer *tok, int32_t **ids, size_t *n_ids, const char *text,
                      size_t n, unsigned flags, fm_error *err)
{
    return tokenize(tok, ids, n_ids, text, n, flags, NULL, err);
}

fm_status fm_tokenize_trusted(const fm_tokenizer *tok, int32_t **ids, size_t *n_ids,
                              const char *text, const unsigned char *trusted, size_t n,
                              fm_error *err)
{
    return tokenize(tok, ids, n_ids, text, n, FM_TOKENIZE_SPECIAL, trusted, err);
}

void fm_tokenizer_close(fm_tokenizer *tok)
{
    if (!tok) return;
    free(tok->bytes);
    free(tok->start);
    free(tok->flags);
    fm_bpe_deinit(&tok->bpe);
    fm_splitter_destroy(tok->splitter);
    fm_literal_set_deinit(&tok->raw);
    fm_literal_set_deinit(&tok->normalized);
    free(tok);
}

static bool exists(const fm_tokenizer *tok, int32_t id)
{
    return id >= 0 && id < tok->n_vocab;
}

const char *fm_token_bytes(const fm_tokenizer *tok, int32_t id, size_t *n)
{
    if (!exists(tok, id)) {
        if (n) *n = 0;
        return NULL;
    }
    if (n) *n = tok->start[id + 1] - tok->start[id];
    return tok->bytes + tok->start[id];
}

bool fm_token_is_special(const fm_tokenizer *tok, int32_t id)
{
    return exists(tok, id) && (tok->flags[id] & FM_TOKEN_IS_SPECIAL) != 0;
}

bool fm_token_is_end(const fm_tokenizer *tok, int32_t id)
{
    return exists(tok, id) && (tok->flags[id] & FM_TOKEN_IS_END) != 0;
}

int32_t fm_token_find(const fm_tokenizer *tok, const char *literal)
{
    const size_t n = strlen(literal);
    if (n == 0) return -1;
    for (int32_t id = 0; id < tok->n_vocab; id++)
        if ((tok->flags[id] & FM_TOKEN_IS_ADDED) && tok->start[id + 1] - tok->start[id] == n &&
            memcmp(tok->bytes + tok->start[id], literal, n) == 0)
            return id;
    return fm_bpe_find(&tok->bpe, literal, n);
}

int32_t fm_tokenizer_n_vocab(const fm_tokenizer *tok)
{
    return tok->n_vocab;
}

const char *fm_tokenizer_pre(const fm_tokenizer *tok)
{
    return tok->pre;
}

uint64_t fm_tokenizer_memory(const fm_tokenizer *tok)
{
    const uint64_t n = (uint64_t)tok->n_vocab;
    return sizeof *tok + tok->start[n] + 1 + (n + 1) * sizeof *tok->start + n + 1 +
           fm_bpe_memory(&tok->bpe) + fm_splitter_memory(tok->splitter) +
           fm_literal_set_memory(&tok->raw) + fm_literal_set_memory(&tok->normalized);
}
