/* Attention caches, index keys and recurrent state of one session: storage and addresses, no mathematics. */
#include "kv/cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

struct fm_kv {
    fm_kv_shape shape;
    fm_ledger *ledger;
    int cache_line, index_line, state_line;
    unsigned char *cache, *index;
    float *state, *other; /* other: NULL without two_states */
    uint64_t cache_bytes, index_bytes, state_bytes;
    uint64_t slot_bytes; /* one head of K or V, one position */
    uint64_t n_part;     /* 2: K and V; 1: one row is both    */
};

static uint64_t n_part(const fm_kv_shape *s)
{
    return s->shared_rows ? 1 : 2;
}

static uint64_t slot_bytes(const fm_kv_shape *s)
{
    return (uint64_t)s->d_head * (s->f16 ? 2 : 4);
}

/* An index key: one layer, one position. */
static uint64_t key_bytes(const fm_kv_shape *s)
{
    return (uint64_t)s->d_index * (s->f16 ? 2 : 4);
}

/* Context, heads and layers come from a file and a user: a product that no machine can hold becomes
 * INT64_MAX in whole pages, so that the plan refuses it. */
uint64_t fm_kv_cache_bytes(const fm_kv_shape *s)
{
    uint64_t whole, ring, slots, bytes;
    const bool fits =
        fm_mul_u64((uint64_t)s->n_ctx, (uint64_t)s->n_attn_layer, &whole) &&
        fm_mul_u64((uint64_t)s->n_window_ctx, (uint64_t)s->n_window_layer, &ring) &&
        fm_add_u64(whole, ring, &slots) &&
        fm_mul_u64(slots, n_part(s) * (uint64_t)s->n_head_kv * slot_bytes(s), &bytes) &&
        bytes <= INT64_MAX - FM_LEDGER_PAGE;
    return fits ? fm_round_up(bytes, FM_LEDGER_PAGE) : fm_round_down(INT64_MAX, FM_LEDGER_PAGE);
}

uint64_t fm_kv_index_bytes(const fm_kv_shape *s)
{
    uint64_t slots, bytes;
    const bool fits = fm_add_u64((uint64_t)s->n_ctx, FM_KV_INDEX_BLOCK - 1, &slots) &&
                      fm_mul_u64(slots / FM_KV_INDEX_BLOCK * FM_KV_INDEX_BLOCK,
                                 (uint64_t)s->n_index_layer, &slots) &&
                      fm_mul_u64(slots, key_bytes(s), &bytes) &&
                      bytes <= INT64_MAX - FM_LEDGER_PAGE;
    return fits ? fm_round_up(bytes, FM_LEDGER_PAGE) : fm_round_down(INT64_MAX, FM_LEDGER_PAGE);
}

/* Of one of the states. */
static uint64_t one_state_bytes(const fm_kv_shape *s)
{
    const uint64_t floats = (uint64_t)(s->conv_floats + s->state_floats);
    return fm_round_up(floats * 4 * (uint64_t)s->n_delta_layer, FM_LEDGER_PAGE);
}

uint64_t fm_kv_state_bytes(const fm_kv_shape *s)
{
    return one_state_bytes(s) * (s->two_states ? 2 : 1);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

uint64_t fm_kv_touched_bytes(const fm_kv_shape *s, int64_t pos, int64_t n_seen, int64_t n_window)
{
    const int64_t n_pos = pos + 1, n_whole = n_seen > 0 ? least(n_pos, n_seen) : n_pos;
    const int64_t slots = n_whole * s->n_attn_layer + least(n_pos, n_window) * s->n_window_layer;
    const int64_t keys = n_whole < n_pos ? n_pos * s->n_index_layer : 0;
    const int64_t floats = (s->conv_floats + s->state_floats) * s->n_delta_layer;
    return (uint64_t)slots * n_part(s) * (uint64_t)s->n_head_kv * slot_bytes(s) +
           (uint64_t)keys * key_bytes(s) + 2 * (uint64_t)floats * sizeof(float);
}

fm_status fm_kv_create(fm_kv **out, const fm_kv_shape *shape, fm_ledger *ledger, fm_error *err)
{
    *out = NULL;
    fm_kv *kv = calloc(1, sizeof *kv);
    if (!kv) return fm_fail(err, FM_E_NOMEM, "no memory for a session");
    kv->shape = *shape;
    kv->ledger = ledger;
    kv->slot_bytes = slot_bytes(shape);
    kv->n_part = n_part(shape);
    kv->cache_bytes = fm_kv_cache_bytes(shape);
    kv->index_bytes = fm_kv_index_bytes(shape);
    kv->state_bytes = fm_kv_state_bytes(shape);
    kv->cache_line = fm_ledger_line_of(ledger, FM_LINE_KV, kv->cache_bytes);
    kv->state_line = fm_ledger_line_of(ledger, FM_LINE_STATE, kv->state_bytes);
    if (kv->cache_bytes) {
        kv->cache = fm_ledger_alloc(ledger, kv->cache_line, kv->cache_bytes, 1, err);
        if (!kv->cache) goto fail;
    }
    if (kv->index_bytes) {
        kv->index_line = fm_ledger_line_of(ledger, FM_LINE_INDEX, kv->index_bytes);
        kv->index = fm_ledger_alloc(ledger, kv->index_line, kv->index_bytes, 1, err);
        if (!kv->index) goto fail;
    }
    if (kv->state_bytes) {
        kv->state = fm_ledger_alloc(ledger, kv->state_line, kv->state_bytes, 1, err);
        if (!kv->state) goto fail;
        if (shape->two_states) kv->other = kv->state + one_state_bytes(shape) / sizeof(float);
    }
    *out = kv;
    return FM_OK;
fail:
    fm_kv_destroy(kv);
    return FM_E_NOMEM;
}

void fm_kv_destroy(fm_kv *kv)
{
    if (!kv) return;
    fm_ledger_free(kv->ledger, kv->cache_line, kv->cache, kv->cache_bytes);
    if (kv->index) fm_ledger_free(kv->ledger, kv->index_line, kv->index, kv->index_bytes);
    float *const states = kv->other && kv->other < kv->state ? kv->other : kv->state;
    fm_ledger_free(kv->ledger, kv->state_line, states, kv->state_bytes);
    free(kv);
}

void fm_kv_reset(fm_kv *kv)
{
    if (kv->state) memset(kv->state, 0, one_state_bytes(&kv->shape));
}

int64_t fm_kv_slots(const fm_kv *kv, int32_t i)
{
    return i < kv->shape.n_attn_layer ? kv->shape.n_ctx : kv->shape.n_window_ctx;
}

static void *head_at(const fm_kv *kv, int32_t i, int32_t head, uint64_t which)
{
    const fm_kv_shape *s = &kv->shape;
    const uint64_t n_head = (uint64_t)s->n_head_kv;
    const uint64_t whole = (uint64_t)(i < s->n_attn_layer ? i : s->n_attn_layer);
    const uint64_t ring = (uint64_t)i - whole;
    const uint64_t before = whole * (uint64_t)s->n_ctx + ring * (uint64_t)s->n_window_ctx;
    const uint64_t own = which * n_head + (uint64_t)head;
    return kv->cache +
           (before * kv->n_part * n_head + own * (uint64_t)fm_kv_slots(kv, i)) * kv->slot_bytes;
}

void *fm_kv_k(const fm_kv *kv, int32_t i, int32_t head)
{
    return head_at(kv, i, head, 0);
}
void *fm_kv_v(const fm_kv *kv, int32_t i, int32_t head)
{
    return head_at(kv, i, head, kv->n_part - 1);
}

void *fm_kv_index(const fm_kv *kv, int32_t i)
{
    const uint64_t slots = fm_round_up((uint64_t)kv->shape.n_ctx, FM_KV_INDEX_BLOCK);
    return kv->index + (uint64_t)i * slots * key_bytes(&kv->shape);
}

static float *conv_at(const fm_kv *kv, float *state, int32_t i)
{
    return state + (int64_t)i * (kv->shape.conv_floats + kv->shape.state_floats);
}

float *fm_kv_conv(const fm_kv *kv, int32_t i)
{
    return conv_at(kv, kv->state, i);
}

float *fm_kv_state(const fm_kv *kv, int32_t i)
{
    return fm_kv_conv(kv, i) + kv->shape.conv_floats;
}

float *fm_kv_other_conv(const fm_kv *kv, int32_t i)
{
    return conv_at(kv, kv->other, i);
}

float *fm_kv_other_state(const fm_kv *kv, int32_t i)
{
    return fm_kv_other_conv(kv, i) + kv->shape.conv_floats;
}

void fm_kv_exchange(fm_kv *kv)
{
    if (!kv->other) return; /* no layer has such a state */
    float *const state = kv->state;
    kv->state = kv->other;
    kv->other = state;
}

const fm_kv_shape *fm_kv_get_shape(const fm_kv *kv)
{
    return &kv->shape;
}
