/* BPE: start with one token per byte; as long as some adjacent pair has a merge, apply the one with
 * the lowest rank, the leftmost of equals. Short pieces (nearly all) are scanned again after each
 * merge; long ones use a heap of (rank, position). Both give the same tokens. */
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

enum { SHORT_PIECE = 48, NO_RANK = INT32_MAX };

/* ---- tables ------------------------------------------------------------------------------ */

/* Slots for n keys: a power of two, at most two thirds full. */
static uint32_t table_size(uint64_t n)
{
    uint64_t size = 16;
    while (size < n + n / 2) size *= 2;
    return (uint32_t)size;
}

fm_status fm_bpe_init(fm_bpe *b, const char *bytes, const uint32_t *start, int32_t n_token,
                      int64_t n_merge, fm_error *err)
{
    *b = (fm_bpe){
        .bytes = bytes, .start = start, .n_token = n_token, .seed = fm_hash_seed_new()};
    if (n_merge < 0 || n_merge > INT32_MAX / 4 || n_token > INT32_MAX / 4)
        return fm_fail(err, FM_E_FORMAT,
                       "%lld merges and %d tokens are more than this program takes",
                       (long long)n_merge, n_token);
    b->n_by_bytes = table_size((uint64_t)n_token);
    b->n_by_pair = table_size((uint64_t)n_merge);
    b->cap_merge = (int32_t)n_merge;
    b->by_bytes = calloc(b->n_by_bytes, sizeof *b->by_bytes);
    b->by_pair = calloc(b->n_by_pair, sizeof *b->by_pair);
    b->merges = malloc(((size_t)n_merge + 1) * sizeof *b->merges);
    for (int i = 0; i < 256; i++) b->byte_id[i] = -1;
    if (b->by_bytes && b->by_pair && b->merges) return FM_OK;
    fm_bpe_deinit(b);
    return fm_fail(err, FM_E_NOMEM, "no memory for the tables of %d tokens", n_token);
}

void fm_bpe_deinit(fm_bpe *b)
{
    free(b->by_bytes);
    free(b->by_pair);
    free(b->merges);
    *b = (fm_bpe){0};
}

uint64_t fm_bpe_memory(const fm_bpe *b)
{
    return (uint64_t)b->n_by_bytes * sizeof *b->by_bytes +
           (uint64_t)b->n_by_pair * sizeof *b->by_pair +
           ((uint64_t)b->cap_merge + 1) * sizeof *b->merges;
}

static uint32_t bytes_slot(const fm_bpe *b, const char *bytes, size_t n)
{
    return (uint32_t)fm_hash_bytes(b->seed, bytes, n) & (b->n_by_bytes - 1);
}

/* Slot that holds these bytes, or the empty one where they belong. */
static uint32_t find_slot(const fm_bpe *b, const char *bytes, size_t n)
{
    uint32_t s = bytes_slot(b, bytes, n);
    for (; b->by_bytes[s] != 0; s = (s + 1) & (b->n_by_bytes - 1)) {
        const int32_t id = b->by_bytes[s] - 1;
        if (b->start[id + 1] - b->start[id] == n && memcmp(b->bytes + b->start[id], bytes, n) == 0)
            break;
    }
    return s;
}

bool fm_bpe_add_token(fm_bpe *b, int32_t id)
{
    const char *bytes = b->bytes + b->start[id];
    const size_t n = b->start[id + 1] - b->start[id];
    const uint32_t s = find_slot(b, bytes, n);
    if (b->by_bytes[s] != 0) return false;
    b->by_bytes[s] = id + 1;
    if (n == 1) b->byte_id[(unsigned char)bytes[0]] = id;
    return true;
}

int32_t fm_bpe_find(const fm_bpe *b, const char *bytes, size_t n)
{
    return b->by_bytes[find_slot(b, bytes, n)] - 1;
}

static uint32_t pair_slot(const fm_bpe *b, int32_t left, int32_t right)
{
    /* The upper bits of a product with an odd number that nobody knows: two pairs rarely share them. */
    const uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * (b->seed.a | 1);
    return (uint32_t)((h >> 32) * b->n_by_pair >> 32);
}

void fm_bpe_add_merge(fm_bpe *b, int32_t left, int32_t right, int32_t result)
{
    uint32_t s = pair_slot(b, left, right);
    for (; b->by_pair[s] != 0; s = (s + 1) & (b->n_by_pair - 1)) {
        const fm_bpe_merge *m = &b->merges[b->by_pair[s] - 1];
        if (m->left == left && m->right == right) break;
    }
    b->merges[b->n_merge] = (fm_bpe_merge){left, right, result};
    b->by_pair[s] = ++b->n_merge;
}

bool fm_id_vec_push(fm_id_vec *v, int32_t id)
{
    if (v->n == v->cap) {
        const size_t cap = v->cap * 2 + 64;
        if (cap > SIZE_MAX / sizeof *v->ids) return false;
        int32_t *p = realloc(v->ids, cap * sizeof *p);
        if (!p) return false;
        v->ids = p;
        v->cap = cap;
    }
    v->ids[v->n++] = id;
    return true;
}

/* ---- encoding ---------------------------------------------------------------------------- */

/* Rank of merging the adjacent tokens left and right, which together are bytes[n]; NO_RANK if they
 * do not merge. *result: the token they become. */
static int32_t pair_rank(const fm_bpe *b, int32_t left, int32_t right, const char *bytes, size_t n,
                         int32_t *result)
{
    if (b->rank_by_id) {
        const int32_t id = fm_bpe_find(b, bytes, n);
        *result = id;
        return id < 0 ? NO_RANK : id;
    }
    for (uint32_t s = pair_slot(b, left, right); b->by_pair[s] != 0;
         s = (s + 1) & (b->n_by_pair - 1)) {
        const fm_bpe_merge *m = &b->merges[b->by_pair[s] - 1];
        if (m->left == left && m->right == right) {
            *result = m->result;
            return b->by_pair[s] - 1;
        }
    }
    return NO_RANK;
}

static bool encode_short(const fm_bpe *b, fm_id_vec *out, const char *piece, size_t n)
{
    /* Token i covers piece[at[i] .. at[i + 1]); rank[i], becomes[i]: merging i with i + 1. */
    int32_t id[SHORT_PIECE], rank[SHORT_PIECE], becomes[SHORT_PIECE];
    size_t at[SHORT_PIECE + 1];
    size_t k = n;
    for (size_t i = 0; i < n; i++) {
        id[i] = b->byte_id[(unsigned char)piece[i]];
        at[i] = i;
    }
    at[n] = n;
    rank[n - 1] = NO_RANK; /* the last token has nobody to merge with */
    becomes[n - 1] = -1;
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = pair_rank(b, id[i], id[i + 1], piece + i, 2, &becomes[i]);
    while (k > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < k; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;
        id[best] = becomes[best];
        k--;
        for (size_t i = best + 1; i < k; i++) {
            id[i] = id[i + 1];
            at[i] = at[i + 1];
            rank[i] = rank[i + 1];
            becomes[i] = becomes[i + 1];
        }
        at[k] = n;
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < k; i++)
            rank[i] = pair_rank(b, id[i], id[i + 1], piece + at[i], at[i + 2] - at[i], &becomes[i]);
    }
    for (size_t i = 0; i < k; i++)
        if (!fm_id_vec_push(out, id[i])) return false;
    return true;
}

/* Min-heap of rank << 32 | position. */
static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    const uint64_t v = heap[i];
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= n) break;
        if (c + 1 < n && heap[c + 1] < heap[c]) c++;
        if (heap[c] >= v) break;
        heap[i] = heap[c];
        i = c;
    }
    heap[i] = v;
}

static void sift_up(uint64_t *heap, size_t i)
{
    const uint64_t v = heap[i];
    while (i > 0 && heap[(i - 1) / 2] > v) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = v;
}

static bool scratch_room(fm_bpe_scratch *s, size_t n)
{
    if (n <= s->node_cap) return true;
    const size_t cap = n + n / 2;
    free(s->nodes);
    free(s->heap);
    /* Each merge takes one entry out and puts at most two in: n + 2n entries at most. */
    s->nodes = cap > SIZE_MAX / 32 ? NULL : malloc(cap * 4 * sizeof *s->nodes);
    s->heap = cap > SIZE_MAX / 32 ? NULL : malloc(cap * 3 * sizeof *s->heap);
    s->node_cap = s->nodes && s->heap ? cap : 0;
    return s->node_cap > 0;
}

void fm_bpe_scratch_deinit(fm_bpe_scratch *s)
{
    free(s->nodes);
    free(s->heap);
    *s = (fm_bpe_scratch){0};
}

/* Positions are those of a token's first byte. A heap entry is stale when the pair at its position
 * has another rank by now. */
static bool encode_long(const fm_bpe *b, fm_bpe_scratch *s, fm_id_vec *out, const char *piece,
                        size_t n)
{
    if (!scratch_room(s, n)) return false;
    int32_t *id = s->nodes, *prev = id + n, *next = prev + n, *rank = next + n;
    const int32_t end = (int32_t)n;
    int32_t result;
    size_t n_heap = 0;
    for (int32_t i = 0; i < end; i++) {
        id[i] = b->byte_id[(unsigned char)piece[i]];
        prev[i] = i - 1;
        next[i] = i + 1;
        rank[i] = NO_RANK;
    }
    for (int32_t i = 0; i + 1 < end; i++) {
        rank[i] = pair_rank(b, id[i], id[i + 1], piece + i, 2, &result);
        if (rank[i] != NO_RANK) s->heap[n_heap++] = (uint64_t)rank[i] << 32 | (uint32_t)i;
    }
    for (size_t i = n_heap / 2; i-- > 0;) sift_down(s->heap, n_heap, i);

    while (n_heap > 0) {
        const int32_t at = (int32_t)(uint32_t)s->heap[0], want = (int32_t)(s->heap[0] >> 32);
        s->heap[0] = s->heap[--n_heap];
        if (n_heap > 0) sift_down(s->heap, n_heap, 0);
        if (rank[at] != want) continue;
        const int32_t gone = next[at], after = next[gone];
        (void)pair_rank(b, id[at], id[gone], piece + at, (size_t)(after - at), &result);
        id[at] = result;
        next[at] = after;
        if (after < end) prev[after] = at;
        rank[gone] = NO_RANK;
        rank[at] = NO_RANK;
        for (int side = 0; side < 2; side++) {
            const int32_t i = side ? at : prev[at];
            if (i < 0 || next[i] >= end) continue;
            const int32_t j = next[i], j_end = next[j];
            rank[i] = pair_rank(b, id[i], id[j], piece + i, (size_t)(j_end - i), &result);
            if (rank[i] == NO_RANK) continue;
            s->heap[n_heap] = (uint64_t)rank[i] << 32 | (uint32_t)i;
            sift_up(s->heap, n_heap++);
        }
    }
    for (int32_t i = 0; i < end; i = next[i])
        if (!fm_id_vec_push(out, id[i])) return false;
    return true;
}

fm_status fm_bpe_encode(const fm_bpe *b, fm_bpe_scratch *s, fm_id_vec *out, const char *piece,
                        size_t n, fm_error *err)
{
    if (n == 0) return FM_OK;
    if (b->ignore_merges || b->rank_by_id) {
        const int32_t whole = fm_bpe_find(b, piece, n);
        if (whole >= 0) {
            if (fm_id_vec_push(out, whole)) return FM_OK;
            return fm_fail(err, FM_E_NOMEM, "no memory for token ids");
        }
    }
    const bool ok =
        n <= SHORT_PIECE ? encode_short(b, out, piece, n) : encode_long(b, s, out, piece, n);
    return ok ? FM_OK : fm_fail(err, FM_E_NOMEM, "no memory to encode a piece of %zu bytes", n);
}
