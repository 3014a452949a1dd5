/* Makes a tokenizer from a source: packs the vocabulary into one block of bytes, resolves merges to
 * ids, prepares the splitter and the search for added tokens. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/nfc.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

/* Merges and tokens quoted in messages. */
#define QUOTE_MAX 60

/* Ends of a generation in the families that are known; they count only as special tokens. */
static const char *const end_names[] = {
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|return|>",
    "<|call|>",
    "<|user|>",
    "<|observation|>",
    "[EOS]",
    "[EOT]",
    "</s>",
    "<｜end▁of▁sentence｜>",
};

static fm_status no_memory(const fm_tokenizer_source *src, fm_error *err)
{
    return fm_fail(err, FM_E_NOMEM, "%s: no memory for a vocabulary of %d tokens", src->origin,
                   src->n_token);
}

static fm_status token_type(const fm_tokenizer_source *src, int32_t id, int32_t *out, fm_error *err)
{
    *out = FM_TOKEN_NORMAL;
    return src->token_type ? src->token_type(src->user, id, out, err) : FM_OK;
}

/* Bytes, offsets and flags of all tokens. */
static fm_status pack_vocabulary(fm_tokenizer *t, const fm_tokenizer_source *src, fm_error *err)
{
    uint64_t room = 0;
    fm_text_span s;
    for (int32_t id = 0; id < src->n_token; id++) {
        FM_TRY(src->token(src->user, id, &s, err));
        if (s.data) room += s.n;
    }
    if (room > UINT32_MAX)
        return fm_fail(err, FM_E_FORMAT, "%s: the tokens have %llu bytes; at most %u are accepted",
                       src->origin, (unsigned long long)room, UINT32_MAX);
    t->n_vocab = src->n_token;
    t->bytes = malloc((size_t)room + 1);
    t->start = malloc(((size_t)src->n_token + 1) * sizeof *t->start);
    t->flags = calloc((size_t)src->n_token + 1, 1);
    if (!t->bytes || !t->start || !t->flags) return no_memory(src, err);
    uint32_t used = 0;
    for (int32_t id = 0; id < src->n_token; id++) {
        int32_t type;
        t->start[id] = used;
        FM_TRY(src->token(src->user, id, &s, err));
        if (!s.data) continue;
        FM_TRY(token_type(src, id, &type, err));
        t->flags[id] = FM_TOKEN_EXISTS;
        if (type == FM_TOKEN_CONTROL) t->flags[id] |= FM_TOKEN_IS_SPECIAL | FM_TOKEN_IS_ADDED;
        if (type == FM_TOKEN_USER_DEFINED) t->flags[id] |= FM_TOKEN_IS_ADDED;
        size_t n = SIZE_MAX;
        if (type == FM_TOKEN_NORMAL && !src->raw_bytes)
            n = fm_byte_alphabet_decode(t->bytes + used, s.data, s.n);
        if (n == SIZE_MAX) { /* literal text */
            memcpy(t->bytes + used, s.data, s.n);
            n = s.n;
        }
        if (n == 0 && type != FM_TOKEN_UNUSED)
            return fm_fail(err, FM_E_FORMAT, "%s: token %d is empty", src->origin, id);
        used += (uint32_t)n;
    }
    t->start[src->n_token] = used;
    /* What decoding saved is given back; a refusal only keeps the larger block. */
    char *p = realloc(t->bytes, (size_t)used + 1);
    if (p) t->bytes = p;
    return FM_OK;
}

/* The table by bytes: normal tokens first; user-defined ones where their text is still free,
 * because merge lists of some files lead to them. Control tokens are never made of text. */
static fm_status index_tokens(fm_tokenizer *t, const fm_tokenizer_source *src, fm_error *err)
{
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t id = 0; id < t->n_vocab; id++) {
            int32_t type;
            if (!(t->flags[id] & FM_TOKEN_EXISTS)) continue;
            FM_TRY(token_type(src, id, &type, err));
            if (type != (pass == 0 ? FM_TOKEN_NORMAL : FM_TOKEN_USER_DEFINED)) continue;
            if (pass == 1 && t->bpe.rank_by_id) continue;
            if (pass == 1 && t->start[id + 1] == t->start[id]) continue;
            (void)fm_bpe_add_token(&t->bpe, id);
        }
    }
    for (unsigned b = 0; b < 256; b++)
        if (t->bpe.byte_id[b] < 0 && fm_utf8_has_byte((unsigned char)b))
            return fm_fail(
                err, FM_E_FORMAT,
                "%s: the vocabulary has no token for the single byte 0x%02x (U+%04X in the "
                "byte alphabet)",
                src->origin, b, fm_byte_alphabet((unsigned char)b));
    return FM_OK;
}

/* Splits "left right" at its first space; a token of the byte alphabet has none. */
static bool split_merge(fm_text_span *left, fm_text_span *right)
{
    const char *space = left->n > 1 ? memchr(left->data + 1, ' ', left->n - 1) : NULL;
    if (!space) return false;
    right->data = space + 1;
    right->n = left->n - (size_t)(right->data - left->data);
    left->n = (size_t)(space - left->data);
    return right->n > 0;
}

static fm_status add_merges(fm_tokenizer *t, const fm_tokenizer_source *src, fm_error *err)
{
    char *buf = NULL;
    size_t cap = 0;
    fm_status st = FM_OK;
    for (int64_t i = 0; i < src->n_merge && st == FM_OK; i++) {
        fm_text_span left = {0}, right = {0};
        st = src->merge(src->user, i, &left, &right, err);
        if (st != FM_OK) break;
        const fm_text_span whole = left;
        bool ok = right.data != NULL || split_merge(&left, &right);
        if (left.n + right.n > cap) {
            cap = (left.n + right.n) * 2 + 64;
            free(buf);
            buf = malloc(cap);
            if (!buf) {
                st = no_memory(src, err);
                break;
            }
        }
        int32_t l = -1, r = -1, both = -1;
        if (ok) {
            const size_t a = fm_byte_alphabet_decode(buf, left.data, left.n);
            const size_t b =
                a == SIZE_MAX ? SIZE_MAX : fm_byte_alphabet_decode(buf + a, right.data, right.n);
            ok = a != SIZE_MAX && b != SIZE_MAX && a > 0 && b > 0;
            if (ok) {
                l = fm_bpe_find(&t->bpe, buf, a);
                r = fm_bpe_find(&t->bpe, buf + a, b);
                both = fm_bpe_find(&t->bpe, buf, a + b);
            }
        }
        if (!ok) {
            st = fm_fail(err, FM_E_FORMAT,
                         "%s: merge %lld (\"%.*s\") is not two tokens of the byte alphabet",
                         src->origin, (long long)i, whole.n > QUOTE_MAX ? QUOTE_MAX : (int)whole.n,
                         whole.data);
        } else if (l < 0 || r < 0 || both < 0) {
            st = fm_fail(err, FM_E_FORMAT,
                         "%s: merge %lld (\"%.*s\" + \"%.*s\"): the %s is not a token", src->origin,
                         (long long)i, left.n > QUOTE_MAX ? QUOTE_MAX : (int)left.n, left.data,
                         right.n > QUOTE_MAX ? QUOTE_MAX : (int)right.n, right.data,
                         l < 0   ? "left part"
                         : r < 0 ? "right part"
                                 : "result");
        } else {
            fm_bpe_add_merge(&t->bpe, l, r, both);
        }
    }
    free(buf);
    return st;
}

/* Added tokens into the sets they are searched with. */
static fm_status add_literals(fm_tokenizer *t, const fm_tokenizer_source *src, fm_error *err)
{
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (!(t->flags[id] & FM_TOKEN_IS_ADDED)) continue;
        const char *s = t->bytes + t->start[id];
        const size_t n = t->start[id + 1] - t->start[id];
        bool ok;
        const unsigned added = src->added ? src->added(src->user, id) : 0;
        if (added & FM_ADDED_LSTRIP) t->flags[id] |= FM_TOKEN_STRIPS_LEFT;
        if (added & FM_ADDED_RSTRIP) t->flags[id] |= FM_TOKEN_STRIPS_RIGHT;
        if (!(added & FM_ADDED_NORMALIZED)) {
            ok = fm_literal_set_add(&t->raw, s, n, id);
        } else if (!t->nfc || fm_utf8_valid_prefix(s, n) != n) {
            ok = fm_literal_set_add(&t->normalized, s, n, id);
        } else {
            char *nfc = NULL;
            size_t n_nfc;
            FM_TRY(fm_nfc(&nfc, &n_nfc, s, n, err));
            ok = fm_literal_set_add(&t->normalized, nfc, n_nfc, id);
            free(nfc);
        }
        if (!ok) return no_memory(src, err);
    }
    return FM_OK;
}

void fm_tokenizer_add_ends(fm_tokenizer *tok, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < tok->n_vocab) tok->flags[ids[i]] |= FM_TOKEN_IS_END;
}

static void mark_ends(fm_tokenizer *t, const fm_tokenizer_source *src)
{
    for (size_t i = 0; i < src->n_end_id; i++)
        if (src->end_ids[i] >= 0 && src->end_ids[i] < t->n_vocab)
            t->flags[src->end_ids[i]] |= FM_TOKEN_IS_END;
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (!(t->flags[id] & FM_TOKEN_IS_SPECIAL)) continue;
        const size_t n = t->start[id + 1] - t->start[id];
        for (size_t k = 0; k < sizeof end_names / sizeof end_names[0]; k++)
            if (strlen(end_names[k]) == n && memcmp(end_names[k], t->bytes + t->start[id], n) == 0)
                t->flags[id] |= FM_TOKEN_IS_END;
    }
}

static fm_status make_splitter(fm_tokenizer *t, const fm_tokenizer_source *src, fm_error *err)
{
    if (!src->pre) {
        t->nfc = src->rules->nfc;
        t->bpe.ignore_merges = src->rules->ignore_merges;
        snprintf(t->pre, sizeof t->pre, "tokenizer.json");
        const fm_status st =
            fm_splitter_create(&t->splitter, src->rules->patterns, src->rules->n_pattern, err);
        return st == FM_OK ? st : fm_fail_context(err, "%s: pre_tokenizer", src->origin);
    }
    const fm_split_family *family = fm_split_family_find(src->pre, strlen(src->pre));
    if (!family) {
        char known[300];
        fm_split_family_names(known, sizeof known);
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: unknown pre-tokenizer \"%.40s\" (tokenizer.ggml.pre); known: %s",
                       src->origin, src->pre, known);
    }
    snprintf(t->pre, sizeof t->pre, "%s", family->name);
    t->nfc = family->nfc;
    t->bpe.rank_by_id = family->rank_by_id;
    t->sliced = family->sliced;
    size_t n = 0;
    while (family->patterns[n]) n++;
    const fm_status st = fm_splitter_create(&t->splitter, family->patterns, n, err);
    return st == FM_OK ? st : fm_fail_context(err, "%s: pre-tokenizer %s", src->origin, t->pre);
}

fm_status fm_tokenizer_create(fm_tokenizer **out, const fm_tokenizer_source *src, fm_error *err)
{
    *out = NULL;
    if (strcmp(src->model, "gpt2") != 0)
        return fm_fail(
            err, FM_E_UNSUPPORTED,
            "%s: tokenizer model \"%.40s\" is not supported; byte-level BPE (\"gpt2\") is",
            src->origin, src->model);
    if (src->n_token < 1 || src->n_token > INT32_MAX / 4)
        return fm_fail(err, FM_E_FORMAT, "%s: a vocabulary of %d tokens", src->origin,
                       src->n_token);
    fm_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return no_memory(src, err);
    fm_status st = pack_vocabulary(t, src, err);
    if (st == FM_OK) {
        st = fm_bpe_init(&t->bpe, t->bytes, t->start, t->n_vocab, src->n_merge, err);
        if (st != FM_OK) fm_fail_context(err, "%s", src->origin);
    }
    if (st == FM_OK) st = make_splitter(t, src, err);
    if (st == FM_OK) st = index_tokens(t, src, err);
    if (st == FM_OK && !t->bpe.rank_by_id) st = add_merges(t, src, err);
    if (st == FM_OK) st = add_literals(t, src, err);
    if (st != FM_OK) {
        fm_tokenizer_close(t);
        return st;
    }
    mark_ends(t, src);
    *out = t;
    return FM_OK;
}
