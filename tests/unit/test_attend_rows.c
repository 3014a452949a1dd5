/* Attention of many rows over one block, and products of small matrices, of every kernel set: against f64, and the
 * promises about bits. */
#include "test_ops.h"

enum { BLOCK = FM_ATTN_BLOCK };

/* Queries, and blocks of keys and values in the order of positions. */
typedef struct {
    int64_t n_row, group, seen, n_block, dk, dv;
    float *q, *k, *v; /* [n_row][dk], [n_block * BLOCK][dk], [..][dv] */
    float *o, *m, *l;
} rows;

static rows rows_new(int64_t n_row, int64_t group, int64_t seen, int64_t n_block, int64_t dk,
                     int64_t dv)
{
    rows a = {n_row, group, seen, n_block, dk, dv, NULL, NULL, NULL, NULL, NULL, NULL};
    a.q = random_array(n_row * dk, 3.0f / sqrtf((float)dk));
    a.k = random_array(n_block * BLOCK * dk, 1.0f);
    a.v = random_array(n_block * BLOCK * dv, 1.0f);
    a.o = array(n_row * dv);
    a.m = array(n_row);
    a.l = array(n_row);
    return a;
}

static void rows_free(rows *a)
{
    free_array(a->q, a->n_row * a->dk);
    free_array(a->k, a->n_block * BLOCK * a->dk);
    free_array(a->v, a->n_block * BLOCK * a->dv);
    free_array(a->o, a->n_row * a->dv);
    free_array(a->m, a->n_row);
    free_array(a->l, a->n_row);
}

/* Rows [r0, r1): all see every block but the last whole, of which row r sees seen + r / group positions. */
static void rows_run(const fm_kernels *k, const rows *a, int64_t r0, int64_t r1)
{
    float *const kt = array(a->dk * BLOCK);
    for (int64_t r = r0; r < r1; r++) a->m[r] = -INFINITY, a->l[r] = 0.0f;
    memset(a->o + r0 * a->dv, 0, (size_t)((r1 - r0) * a->dv) * sizeof *a->o);
    for (int64_t b = 0; b < a->n_block; b++) {
        const float *const keys = a->k + b * BLOCK * a->dk;
        for (int64_t i = 0; i < a->dk; i++)
            for (int64_t p = 0; p < BLOCK; p++) kt[i * BLOCK + p] = keys[p * a->dk + i];
        const int64_t seen = b + 1 < a->n_block ? BLOCK : a->seen + r0 / a->group;
        k->attend_rows(a->o + r0 * a->dv, a->m + r0, a->l + r0, a->q + r0 * a->dk, kt,
                       a->v + b * BLOCK * a->dv, r1 - r0, a->group, seen, a->dk, a->dv);
    }
    free_array(kt, a->dk * BLOCK);
}

static int64_t positions_of(const rows *a, int64_t r)
{
    const int64_t n = a->seen + r / a->group;
    return (a->n_block - 1) * BLOCK + (n < BLOCK ? n : BLOCK);
}

static void rows_match_formula(const fm_kernels *k)
{
    static const int64_t dims[][2] = {{192, 128}, {40, 24}, {21, 9}, {1, 5}, {64, 64}, {100, 130}};
    static const int64_t shapes[][4] = {/* rows, group, seen, blocks */
                                        {1, 1, 1, 1},  {64, 1, 1, 1}, {13, 1, 60, 2},
                                        {24, 8, 3, 3}, {7, 1, 64, 2}, {130, 4, 20, 2}};
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            rows a = rows_new(shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3], dims[d][0],
                              dims[d][1]);
            rows_run(k, &a, 0, a.n_row);
            double *score = doubles(a.n_block * BLOCK), *want = doubles(a.dv);
            float *got = array(a.dv);
            for (int64_t r = 0; r < a.n_row; r++) {
                double max = -INFINITY, sum = 0.0;
                const int64_t n = positions_of(&a, r);
                for (int64_t p = 0; p < n; p++) {
                    score[p] = 0.0;
                    for (int64_t i = 0; i < a.dk; i++)
                        score[p] += (double)a.q[r * a.dk + i] * a.k[p * a.dk + i];
                    max = fmax(max, score[p]);
                }
                memset(want, 0, (size_t)a.dv * sizeof *want);
                for (int64_t p = 0; p < n; p++) {
                    const double weight = exp(score[p] - max);
                    sum += weight;
                    for (int64_t i = 0; i < a.dv; i++) want[i] += weight * a.v[p * a.dv + i];
                }
                for (int64_t i = 0; i < a.dv; i++) {
                    want[i] /= sum;
                    got[i] = a.o[r * a.dv + i] / a.l[r];
                }
                assert_close(got, want, a.dv, 4e-6);
            }
            free(score), free(want), free_array(got, a.dv);
            rows_free(&a);
        }
}

/* A row computes the same bits with any others. */
static void rows_do_not_see_each_other(const fm_kernels *k)
{
    rows a = rows_new(53, 1, 5, 3, 100, 70);
    rows_run(k, &a, 0, a.n_row);
    float *o = copy_array(a.o, a.n_row * a.dv), *m = copy_array(a.m, a.n_row),
          *l = copy_array(a.l, a.n_row);
    for (int64_t r = 0, n = 1; r < a.n_row; r += n, n = n % 7 + 1)
        rows_run(k, &a, r, r + n < a.n_row ? r + n : a.n_row);
    assert_same_bits(o, a.o, a.n_row * a.dv);
    assert_same_bits(m, a.m, a.n_row);
    assert_same_bits(l, a.l, a.n_row);
    free_array(o, a.n_row * a.dv), free_array(m, a.n_row), free_array(l, a.n_row);
    rows_free(&a);
}

/* Whatever stands at positions that a row does not see, of values even NaN. */
static void rows_do_not_see_later_positions(const fm_kernels *k)
{
    rows a = rows_new(20, 1, 3, 1, 33, 50);
    rows_run(k, &a, 0, a.n_row);
    float *o = copy_array(a.o, a.n_row * a.dv), *l = copy_array(a.l, a.n_row);
    const int64_t first = positions_of(&a, 9);
    for (int64_t i = first * a.dk; i < BLOCK * a.dk; i++) a.k[i] = 1e6f;
    for (int64_t i = first * a.dv; i < BLOCK * a.dv; i++) a.v[i] = NAN;
    rows_run(k, &a, 0, 10);
    assert_same_bits(o, a.o, 10 * a.dv);
    assert_same_bits(l, a.l, 10);
    free_array(o, a.n_row * a.dv), free_array(l, a.n_row);
    rows_free(&a);
}

static void gemm_matches_formula(const fm_kernels *k)
{
    static const int64_t rows_of[] = {1, 2, 3, 5, 8, 64};
    for (size_t i = 0; i < N_SIZE; i++)
        for (size_t j = 0; j < sizeof rows_of / sizeof rows_of[0]; j++) {
            const int64_t n = sizes[i], n_k = sizes[(i + 3 * j) % N_SIZE], m = rows_of[j];
            const int64_t stride = n_k + (int64_t)j;
            float *a = random_array(m * stride, 1.0f), *b = random_array(n_k * n, 1.0f);
            float *y = array(m * n), *one = array(n);
            double *want = doubles(m * n);
            for (int64_t r = 0; r < m; r++)
                for (int64_t x = 0; x < n_k; x++)
                    for (int64_t c = 0; c < n; c++)
                        want[r * n + c] += (double)a[r * stride + x] * b[x * n + c];
            k->gemm(y, a, stride, b, m, n_k, n);
            assert_close(y, want, m * n, 1e-5);
            k->gemm(one, a + (m - 1) * stride, stride, b, 1, n_k, n); /* any rows, the same bits */
            assert_same_bits(one, y + (m - 1) * n, n);
            free_array(a, m * stride), free_array(b, n_k * n), free_array(y, m * n);
            free_array(one, n), free(want);
        }
}

static void transpose_swaps_and_fills_up(const fm_kernels *k)
{
    for (size_t i = 0; i < N_SIZE; i++)
        for (int64_t n = 0; n <= BLOCK; n += 7) {
            const int64_t n_c = sizes[i], stride = n_c + n % 3;
            float *x = random_array(BLOCK * stride, 1.0f), *to = array(n_c * BLOCK);
            k->transpose(to, x, stride, n, n_c);
            for (int64_t c = 0; c < n_c; c++)
                for (int64_t t = 0; t < BLOCK; t++)
                    assert_true(to[c * BLOCK + t] == (t < n ? x[t * stride + c] : 0.0f));
            free_array(x, BLOCK * stride), free_array(to, n_c * BLOCK);
        }
}

static void halves_widen_exactly(const fm_kernels *k)
{
    static uint16_t half[1 << 16], again[1 << 16];
    for (int i = 0; i < 1 << 16; i++) half[i] = (uint16_t)i;
    float *x = array(1 << 16);
    k->from_f16(x, half, 1 << 16);
    assert_true(x[0x3c00] == 1.0f && x[0xc500] == -5.0f && x[1] == 0x1p-24f && isinf(x[0x7c00]));
    k->to_f16(again, x, 1 << 16);
    for (int i = 0; i < 1 << 16; i++) assert_true(isnan(x[i]) || again[i] == half[i]);
    free_array(x, 1 << 16);
    x = array(37);
    k->from_f16(x, half + 0x3c00, 37);
    assert_true(x[36] == 1.0f + 36 * 0x1p-10f);
    free_array(x, 37);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_SET(rows_match_formula),
        EVERY_SET(rows_do_not_see_each_other),
        EVERY_SET(rows_do_not_see_later_positions),
        EVERY_SET(gemm_matches_formula),
        EVERY_SET(transpose_swaps_and_fills_up),
        EVERY_SET(halves_widen_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
