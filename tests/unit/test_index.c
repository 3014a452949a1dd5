/* The parts of the sparse-attention indexer: scores of every kernel set against f64, the promises about
 * bits, and the choice of positions against a sort. */
#include "test_ops.h"

#include "model/top_positions.h"

static uint16_t half_of(float x)
{
    const fm_kernels *k = fm_kernels_pick("generic", NULL);
    uint16_t h;
    k->to_f16(&h, &x, 1);
    return h;
}

typedef struct {
    int64_t n_block, d, n_head;
    float *q, *w, *keys; /* keys as f32 [position][d] */
    float *k32;
    uint16_t *k16;
} index_case;

static index_case new_case(int64_t n_block, int64_t d, int64_t n_head)
{
    index_case c = {.n_block = n_block, .d = d, .n_head = n_head};
    const int64_t n = n_block * FM_INDEX_BLOCK * d;
    c.q = random_array(n_head * d, 1.0f);
    c.w = random_array(n_head, 1.0f); /* of either sign */
    c.keys = random_array(n, 1.0f);
    c.k32 = array(n);
    c.k16 = malloc((size_t)n * sizeof *c.k16);
    assert_non_null(c.k16);
    for (int64_t p = 0; p < n_block * FM_INDEX_BLOCK; p++)
        for (int64_t i = 0; i < d; i++) {
            /* exact in f16, so that both forms of the cache hold the same keys */
            const float x = (float)(int)(c.keys[p * d + i] * 1024.0f) / 1024.0f;
            const int64_t at = (p / FM_INDEX_BLOCK * d + i) * FM_INDEX_BLOCK + p % FM_INDEX_BLOCK;
            c.keys[p * d + i] = c.k32[at] = x;
            c.k16[at] = half_of(x);
        }
    return c;
}

static void free_case(index_case *c)
{
    const int64_t n = c->n_block * FM_INDEX_BLOCK * c->d;
    free_array(c->q, c->n_head * c->d);
    free_array(c->w, c->n_head);
    free_array(c->keys, n);
    free_array(c->k32, n);
    free(c->k16);
}

static void scores_match_the_formula(const fm_kernels *k)
{
    static const int64_t dims[] = {1, 2, 24, 64, 128, 256}, heads[] = {1, 3, 4, 7, 9, 32, 64};
    for (size_t a = 0; a < sizeof dims / sizeof *dims; a++)
        for (size_t b = 0; b < sizeof heads / sizeof *heads; b++) {
            index_case c = new_case(5, dims[a], heads[b]);
            const int64_t n = c.n_block * FM_INDEX_BLOCK;
            double *want = doubles(n);
            float *got = array(n), *half = array(n);
            for (int64_t p = 0; p < n; p++)
                for (int64_t h = 0; h < c.n_head; h++) {
                    double dot = 0;
                    for (int64_t i = 0; i < c.d; i++)
                        dot += (double)c.q[h * c.d + i] * c.keys[p * c.d + i];
                    if (dot > 0) want[p] += c.w[h] * dot;
                }
            k->index_scores(got, c.q, c.w, c.k32, c.n_block, c.d, c.n_head, 0);
            k->index_scores(half, c.q, c.w, c.k16, c.n_block, c.d, c.n_head, 1);
            assert_close(got, want, n, 4e-6);
            assert_same_bits(got, half, n);
            free(want);
            free_array(got, n);
            free_array(half, n);
            free_case(&c);
        }
}

/* A block's scores are the same bits alone and among others. */
static void scores_do_not_depend_on_the_split(const fm_kernels *k)
{
    index_case c = new_case(9, 128, 33);
    const int64_t n = c.n_block * FM_INDEX_BLOCK, each = c.d * FM_INDEX_BLOCK;
    float *all = array(n), *parts = array(n);
    k->index_scores(all, c.q, c.w, c.k32, c.n_block, c.d, c.n_head, 0);
    k->index_scores(parts, c.q, c.w, c.k32, 4, c.d, c.n_head, 0);
    for (int64_t b = 4; b < c.n_block; b++)
        k->index_scores(parts + b * FM_INDEX_BLOCK, c.q, c.w, c.k32 + b * each, 1, c.d, c.n_head,
                        0);
    assert_same_bits(all, parts, n);
    free_array(all, n);
    free_array(parts, n);
    free_case(&c);
}

/* ---- choice ------------------------------------------------------------------------------ */

static const float *sorted_by;

/* Best first: larger score, then lower position; NaN last. */
static int better_first(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const float x = sorted_by[i], y = sorted_by[j];
    if (isnan(x) != isnan(y)) return isnan(x) ? 1 : -1;
    if (x > y) return -1;
    if (x < y) return 1;
    return i < j ? -1 : 1;
}

static int ascending(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    return i < j ? -1 : i > j;
}

static void check_choice(const float *score, int64_t n, int64_t k)
{
    int32_t *want = malloc((size_t)n * sizeof *want), *got = malloc((size_t)k * sizeof *got);
    assert_true(want && got);
    for (int32_t i = 0; i < n; i++) want[i] = i;
    sorted_by = score;
    qsort(want, (size_t)n, sizeof *want, better_first);
    qsort(want, (size_t)k, sizeof *want, ascending);
    fm_top_positions(got, score, n, k);
    assert_memory_equal(got, want, (size_t)k * sizeof *got);
    free(want);
    free(got);
}

static void choice_is_that_of_a_stable_sort(void **state)
{
    (void)state;
    float score[3000];
    for (int kind = 0; kind < 6; kind++)
        for (int64_t n = 1; n <= 3000; n = n * 3 / 2 + 1) {
            for (int64_t i = 0; i < n; i++) {
                const float u = uniform();
                const float kinds[] = {u,
                                       (float)(int)(u * 4),  /* few values, many ties */
                                       u > 0 ? 0.0f : -0.0f, /* all equal             */
                                       u * 1e-40f,           /* subnormal             */
                                       u > 0.9f ? NAN : u * 1e30f,
                                       u > 0.8f    ? INFINITY
                                       : u < -0.8f ? -INFINITY
                                                   : u};
                score[i] = kinds[kind];
            }
            const int64_t ks[] = {1, n / 2 ? n / 2 : 1, n - 1 ? n - 1 : 1, n};
            for (int i = 0; i < 4; i++) check_choice(score, n, ks[i]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_SET(scores_match_the_formula),
        EVERY_SET(scores_do_not_depend_on_the_split),
        cmocka_unit_test(choice_is_that_of_a_stable_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
