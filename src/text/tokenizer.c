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

/* Where the white space ends that begins at text[from], and where it begins that ends at text[to]. */
static size_t space_end(const char *text, size_t n, size_t from)
{
    uint32_t code;
    for (size_t len; from < n; from += len) {
        len = fm_utf8_decode(&code, text + from, n - from);
        if (len == 0 || !fm_utf8_is_space(code)) break;
    }
    return from;
}

static size_t space_begin(const char *text, size_t to)
{
    while (to > 0) {
        size_t len = 1;
        uint32_t code;
        while (len < 4 && len < to && ((unsigned char)text[to - len] & 0xc0) == 0x80) len++;
        if (fm_utf8_decode(&code, text + to - len, len) != len || !fm_utf8_is_space(code)) break;
        to -= len;
    }
    return to;
}

/* Emits the literals of `set` that stand in the text and hands what is between them to `rest`. A literal may take the white
 * space beside it with it, on the left as far as no other one has it. Source: huggingface/tokenizers,
 * added_vocabulary.rs, find_matches: as there, the search goes on behind the literal itself. */
static fm_status encode_around(job *j, const fm_literal_set *set, const char *text, size_t n,
                               encode_fn rest)
{
    size_t done = 0, from = 0;
    for (;;) {
        size_t len = 0;
        int32_t id = -1;
        size_t begin = next_literal(j, set, text, n, from, &len, &id);
        if (begin == n) break;
        size_t end = from = begin + len;
        if (j->tok->flags[id] & FM_TOKEN_STRIPS_LEFT) {
            begin = space_begin(text, begin);
            if (begin < done) begin = done;
        }
        if (j->tok->flags[id] & FM_TOKEN_STRIPS_RIGHT) end = space_end(text, n, end);
        if (begin > done) FM_TRY(rest(j, text + done, begin - done));
        FM_TRY(push(j, id));
        done = end;
    }
    return done < n ? rest(j, text + done, n - done) : FM_OK;
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

/* Python's str.isspace() of a character. */
static bool is_python_space(uint32_t code)
{
    return fm_utf8_is_space(code) || (code >= 0x1c && code <= 0x1f);
}

/* The whole text in the slices of FM_SLICE_CHARS and FM_SLICE_RUN. A byte that is no UTF-8 counts as a character. */
static fm_status encode_sliced(job *j, const char *text, size_t n)
{
    size_t begin = 0, len;
    int32_t n_char = 0, run = 0;
    bool was_space = false;
    for (size_t at = 0; at < n; at += len, n_char++) {
        uint32_t code = 0xfffd;
        len = fm_utf8_decode(&code, text + at, n - at);
        if (len == 0) len = 1;
        const bool is_space = is_python_space(code), is_full = n_char == FM_SLICE_CHARS;
        if (is_full) n_char = 0;
        run = n_char > 0 && is_space == was_space ? run + 1 : 1;
        was_space = is_space;
        if (!is_full && run <= FM_SLICE_RUN) continue;
        FM_TRY(encode_around(j, &j->tok->raw, text + begin, at - begin, encode_bytes));
        begin = at;
        run = 1;
    }
    return encode_around(j, &j->tok->raw, text + begin, n - begin, encode_bytes);
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
    fm_status st = tok->sliced ? encode_sliced(&j, text, n)
                               : encode_around(&j, &tok->raw, text, n, encode_bytes);
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

uint64_t fm_tokenizer_memory(const fm_tokenizer *tok)
{
    const uint64_t n = (uint64_t)tok->n_vocab;
    return sizeof *tok + tok->start[n] + 1 + (n + 1) * sizeof *tok->start + n + 1 +
           fm_bpe_memory(&tok->bpe) + fm_splitter_memory(tok->splitter) +
           fm_literal_set_memory(&tok->raw) + fm_literal_set_memory(&tok->normalized);
}
