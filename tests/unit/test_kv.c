/* Attention caches: sizes no machine can hold saturate, and every head of every layer has slots of
 * its own, in layers with and without a ring. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kv/cache.h"

static const fm_kv_shape both_kinds = {.n_attn_layer = 3,
                                       .n_window_layer = 2,
                                       .n_window_ctx = 1024,
                                       .n_head_kv = 4,
                                       .d_head = 64,
                                       .n_ctx = 8192,
                                       .f16 = true};

static void sizes_count_both_kinds_of_layers(void **state)
{
    (void)state;
    assert_int_equal(fm_kv_cache_bytes(&both_kinds), (3 * 8192 + 2 * 1024) * 2 * 4 * 64 * 2);
    fm_kv_shape odd = {.n_attn_layer = 1, .n_head_kv = 1, .d_head = 3, .n_ctx = 7};
    assert_int_equal(fm_kv_cache_bytes(&odd), 4096); /* whole pages */
    odd.n_attn_layer = 0;
    assert_int_equal(fm_kv_cache_bytes(&odd), 0);
}

static void a_token_touches_what_it_sees(void **state)
{
    (void)state;
    fm_kv_shape s = both_kinds;
    const uint64_t row = 2 * 4 * 64 * 2; /* K and V of a layer */
    assert_int_equal(fm_kv_touched_bytes(&s, 0, 0, 512), 5 * row);
    assert_int_equal(fm_kv_touched_bytes(&s, 2999, 0, 512), (3 * 3000 + 2 * 512) * row);
    s = (fm_kv_shape){.n_attn_layer = 3,
                      .n_head_kv = 1,
                      .d_head = 64,
                      .n_ctx = 8192,
                      .shared_rows = true,
                      .n_index_layer = 2,
                      .d_index = 16};
    assert_int_equal(fm_kv_touched_bytes(&s, 99, 100, 0), 3 * 100 * 64 * 4); /* sees all */
    assert_int_equal(fm_kv_touched_bytes(&s, 199, 100, 0), 3 * 100 * 64 * 4 + 2 * 200 * 16 * 4);
    s = (fm_kv_shape){.n_delta_layer = 5, .conv_floats = 7, .state_floats = 100};
    assert_int_equal(fm_kv_touched_bytes(&s, 4000, 0, 0), 2 * 5 * 107 * 4);
}

/* Every factor is one that a file or a user may give; products wrap in 64 bits, some back to small. */
static void sizes_that_overflow_saturate(void **state)
{
    (void)state;
    const uint64_t most = (uint64_t)INT64_MAX / 4096 * 4096;
    const int64_t ctx[] = {INT64_C(1) << 62, INT64_C(1) << 55, INT64_C(1) << 48, INT64_MAX};
    for (size_t i = 0; i < sizeof ctx / sizeof *ctx; i++) {
        const fm_kv_shape whole = {
            .n_attn_layer = 4096, .n_head_kv = 8, .d_head = 128, .n_ctx = ctx[i]};
        assert_int_equal(fm_kv_cache_bytes(&whole), most);
        const fm_kv_shape ring = {.n_window_layer = 4096,
                                  .n_window_ctx = ctx[i],
                                  .n_head_kv = 8,
                                  .d_head = 128,
                                  .n_ctx = ctx[i]};
        assert_int_equal(fm_kv_cache_bytes(&ring), most);
    }
    const fm_kv_shape sum = {.n_attn_layer = 1,
                             .n_window_layer = 1,
                             .n_window_ctx = INT64_MAX,
                             .n_head_kv = 1,
                             .d_head = 1,
                             .n_ctx = INT64_MAX};
    assert_int_equal(fm_kv_cache_bytes(&sum), most);
}

static void index_keys_have_blocks_of_their_own(void **state)
{
    (void)state;
    enum { LAYERS = 3, D = 5, CTX = 33 }; /* three blocks of 16 */
    const fm_kv_shape s = {.n_attn_layer = LAYERS,
                           .n_head_kv = 1,
                           .d_head = 4,
                           .n_ctx = CTX,
                           .n_index_layer = LAYERS,
                           .d_index = D};
    fm_kv_shape half = s;
    half.f16 = true;
    half.n_ctx = 8192;
    half.d_index = 128;
    assert_int_equal(fm_kv_index_bytes(&s), 4096); /* 3 * 48 * 5 * 4, in whole pages */
    assert_int_equal(fm_kv_index_bytes(&half), LAYERS * 8192 * 128 * 2);
    half.n_ctx = INT64_C(1) << 56;
    assert_int_equal(fm_kv_index_bytes(&half), INT64_MAX / 4096 * 4096);
    half.n_index_layer = 0;
    assert_int_equal(fm_kv_index_bytes(&half), 0);
    fm_ledger ledger = {0};
    fm_kv *kv;
    fm_error err = {0};
    assert_int_equal(fm_kv_create(&kv, &s, &ledger, &err), FM_OK);
    float mark = 0.0f;
    for (int32_t i = 0; i < LAYERS; i++)
        for (int k = 0; k < 48 * D; k++) {
            assert_true(((float *)fm_kv_index(kv, i))[k] == 0.0f);
            ((float *)fm_kv_index(kv, i))[k] = ++mark;
        }
    mark = 0.0f;
    for (int32_t i = 0; i < LAYERS; i++)
        for (int k = 0; k < 48 * D; k++) assert_true(((float *)fm_kv_index(kv, i))[k] == ++mark);
    fm_kv_destroy(kv);
    for (int i = 0; i < ledger.n_line; i++) assert_int_equal(ledger.lines[i].used_bytes, 0);
}

static void heads_do_not_overlap(void **state)
{
    (void)state;
    enum { LAYERS = 5, HEADS = 3, D = 10 };
    const fm_kv_shape s = {.n_attn_layer = 2,
                           .n_window_layer = LAYERS - 2,
                           .n_window_ctx = 5,
                           .n_head_kv = HEADS,
                           .d_head = D,
                           .n_ctx = 9};
    fm_ledger ledger = {0};
    fm_kv *kv;
    fm_error err = {0};
    assert_int_equal(fm_kv_create(&kv, &s, &ledger, &err), FM_OK);
    float mark = 0.0f;
    for (int32_t i = 0; i < LAYERS; i++) {
        assert_int_equal(fm_kv_slots(kv, i), i < 2 ? 9 : 5);
        for (int32_t h = 0; h < HEADS; h++)
            for (int64_t k = 0; k < fm_kv_slots(kv, i) * D; k++) {
                ((float *)fm_kv_k(kv, i, h))[k] = mark++;
                ((float *)fm_kv_v(kv, i, h))[k] = mark++;
            }
    }
    mark = 0.0f;
    for (int32_t i = 0; i < LAYERS; i++)
        for (int32_t h = 0; h < HEADS; h++)
            for (int64_t k = 0; k < fm_kv_slots(kv, i) * D; k++) {
                assert_true(((float *)fm_kv_k(kv, i, h))[k] == mark++);
                assert_true(((float *)fm_kv_v(kv, i, h))[k] == mark++);
            }
    fm_kv_destroy(kv);
}

/* Latent attention: a row is key and value, and rows of layers do not overlap. */
static void shared_rows_count_once(void **state)
{
    (void)state;
    enum { LAYERS = 4, D = 576 };
    const fm_kv_shape s = {
        .n_attn_layer = LAYERS, .n_head_kv = 1, .d_head = D, .n_ctx = 9, .shared_rows = true};
    assert_int_equal(fm_kv_cache_bytes(&s), (LAYERS * 9 * D * 4 + 4095) / 4096 * 4096);
    fm_ledger ledger = {0};
    fm_kv *kv;
    fm_error err = {0};
    assert_int_equal(fm_kv_create(&kv, &s, &ledger, &err), FM_OK);
    for (int32_t i = 0; i < LAYERS; i++) {
        float *row = fm_kv_k(kv, i, 0);
        assert_ptr_equal(row, fm_kv_v(kv, i, 0));
        for (int64_t k = 0; k < 9 * D; k++) row[k] = (float)(i * 9 * D + k);
    }
    for (int32_t i = 0; i < LAYERS; i++)
        for (int64_t k = 0; k < 9 * D; k++)
            assert_true(((float *)fm_kv_v(kv, i, 0))[k] == (float)(i * 9 * D + k));
    fm_kv_destroy(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_count_both_kinds_of_layers),
        cmocka_unit_test(a_token_touches_what_it_sees),
        cmocka_unit_test(sizes_that_overflow_saturate),
        cmocka_unit_test(index_keys_have_blocks_of_their_own),
        cmocka_unit_test(heads_do_not_overlap),
        cmocka_unit_test(shared_rows_count_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
