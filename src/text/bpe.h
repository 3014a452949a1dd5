/* Byte-pair encoding of one piece of text: the merge rules and the table of tokens by bytes. */
#pragma once

#include "base/error.h"
#include "base/hash.h"

typedef struct {
    int32_t left, right, result; /* token ids */
} fm_bpe_merge;

/* Vocabulary (borrowed) and rules (owned). Zero-initialise, fill with the functions below. */
typedef struct {
    /* token i is bytes[start[i] .. start[i + 1]) */
    const char *bytes;
    const uint32_t *start; /* [n_token + 1] */
    int32_t n_token;

    fm_hash_seed seed;
    int32_t *by_bytes; /* hash slots: id + 1, 0 is empty */
    uint32_t n_by_bytes;
    fm_bpe_merge *merges; /* [n_merge], the number is the rank: low merges first */
    int32_t n_merge, cap_merge;
    int32_t *by_pair; /* hash slots: rank + 1 */
    uint32_t n_by_pair;
    int32_t byte_id[256]; /* token of each single byte, -1: none (only bytes UTF-8 never uses) */

    bool ignore_merges; /* a piece that is a token as a whole is that token */
    bool rank_by_id;    /* no merge list: a pair merges when its bytes are a token, low ids first */
} fm_bpe;

/* Takes the vocabulary, which must stay; n_merge: how many merges will be added at most. */
fm_status fm_bpe_init(fm_bpe *b, const char *bytes, const uint32_t *start, int32_t n_token,
                      int64_t n_merge, fm_error *err);
void fm_bpe_deinit(fm_bpe *b);
uint64_t fm_bpe_memory(const fm_bpe *b);

/* Makes token `id` findable by its bytes; false when another token has the same bytes. */
bool fm_bpe_add_token(fm_bpe *b, int32_t id);
int32_t fm_bpe_find(const fm_bpe *b, const char *bytes, size_t n); /* id or -1 */

/* Adds the merge with the next rank. The same pair again: the later rank counts. */
void fm_bpe_add_merge(fm_bpe *b, int32_t left, int32_t right, int32_t result);

typedef struct {
    int32_t *ids;
    size_t n, cap;
} fm_id_vec;

bool fm_id_vec_push(fm_id_vec *v, int32_t id); /* false: no memory */

/* Working memory that is reused from piece to piece. Zero-initialise; free with _deinit. */
typedef struct {
    int32_t *nodes; /* four arrays of n_node_cap */
    uint64_t *heap;
    size_t node_cap;
} fm_bpe_scratch;
void fm_bpe_scratch_deinit(fm_bpe_scratch *s);

/* Appends the tokens of piece[n], n < 2^31, to *out. O(n log n). */
fm_status fm_bpe_encode(const fm_bpe *b, fm_bpe_scratch *s, fm_id_vec *out, const char *piece,
                        size_t n, fm_error *err);
