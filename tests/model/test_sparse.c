/* Sparse attention: the choice of positions does not depend on how a sequence is cut into passes, and a context that it
 * never cuts short computes what it would without an indexer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/fixture.h"

enum { N_TOKENS = 200 };

static float *logits_of(const char *spec, const char *type, const int32_t *ids, size_t n,
                        const eval_setup *s, fm_plan *plan)
{
    return eval_logits(tiny_file(spec, type, NULL), ids, n, s, NULL, plan);
}

/* batches end with 0. The indexer chooses from the positions of the later tokens. */
static void same_bits_for_every_cut(const char *spec, const char *type, fm_kv_type kv,
                                    const int32_t *batches)
{
    const tiny_spec *ts = tiny_spec_find(spec);
    const size_t row = (size_t)ts->n_vocab * sizeof(float);
    int32_t ids[N_TOKENS];
    tiny_token_ids(ids, N_TOKENS, ts);
    assert_true(ts->index_topk > 0 && ts->index_topk < N_TOKENS);
    float *want = NULL;
    for (int i = 0; batches[i]; i++) {
        const eval_setup s = {.batch = batches[i], .kv = kv, .threads = 1 + i % 3, .ctx = 512};
        float *got = logits_of(spec, type, ids, N_TOKENS, &s, NULL);
        if (!want) {
            want = got;
            continue;
        }
        for (size_t t = 0; t < N_TOKENS; t++)
            if (memcmp(want + t * (size_t)ts->n_vocab, got + t * (size_t)ts->n_vocab, row) != 0)
                fail_msg("%s %s: batch %d gives other bits from token %zu on", spec, type,
                         batches[i], t);
        free(got);
    }
    free(want);
}

static void passes_of_any_length_give_the_same_bits(void **state)
{
    (void)state;
    static const int32_t any[] = {512, 1, 3, 64, 101, 0}, blocks[] = {512, 64, 128, 0};
    same_bits_for_every_cut("deepseek32-a", "F32", FM_KV_F32, any);
    same_bits_for_every_cut("deepseek32-q", "Q8_0", FM_KV_F16, any);
    same_bits_for_every_cut("glm-dsa-a", "F32", FM_KV_F16, any);
    same_bits_for_every_cut("glm-dsa-q", "Q8_0", FM_KV_F32, any);
    /* the first 128 tokens, which see everything, go by whole blocks */
    same_bits_for_every_cut("deepseek32-p", "F32", FM_KV_F16, blocks);
}

static uint64_t line_bytes(const fm_plan *plan, const char *name)
{
    for (int32_t i = 0; i < plan->n_line; i++)
        if (strcmp(plan->lines[i].name, name) == 0) return plan->lines[i].bytes;
    return 0;
}

/* The shorter context runs no indexer and keeps no keys. The longer one does, and until its first token beyond
 * index_topk nothing shows of it; then its attention sees less. */
static void contexts_up_to_top_k_are_dense(void **state)
{
    (void)state;
    static const char *const specs[] = {"deepseek32-a", "deepseek32-b", "glm-dsa-a",
                                        "deepseek32-p"};
    for (int i = 0; i < 4; i++) {
        const tiny_spec *ts = tiny_spec_find(specs[i]);
        const size_t top = (size_t)ts->index_topk, v = (size_t)ts->n_vocab;
        int32_t ids[N_TOKENS];
        tiny_token_ids(ids, N_TOKENS, ts);
        for (int32_t batch = 1; batch <= 64; batch += 63) {
            fm_plan dense_plan, sparse_plan;
            const eval_setup dense = {.batch = batch, .ctx = ts->index_topk};
            const eval_setup sparse = {.batch = batch, .ctx = 256};
            float *want = logits_of(specs[i], "F32", ids, top, &dense, &dense_plan);
            float *got = logits_of(specs[i], "F32", ids, N_TOKENS, &sparse, &sparse_plan);
            assert_memory_equal(want, got, top * v * sizeof *want);
            assert_int_equal(line_bytes(&dense_plan, "index keys"), 0);
            assert_true(line_bytes(&sparse_plan, "index keys") > 0);
            free(want);
            free(got);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_of_any_length_give_the_same_bits),
        cmocka_unit_test(contexts_up_to_top_k_are_dense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
