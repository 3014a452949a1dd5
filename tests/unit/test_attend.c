/* Attention over cached positions of every kernel set: against f64, and the promises about bits. */
#include "test_ops.h"

/* Queries, a cache of n_pos positions of which a row holds d values and `gap` others. With dv < d the
 * values are the first dv of the row of k. */
typedef struct {
    int64_t n_pos, d, dv, stride, n_q;
    int f16;
    float *q, *k, *v; /* what the cache holds, as f32 */
    uint16_t *k16, *v16;
    float *o, *m, *l;
} attention;

static float half_to_f32(uint16_t half)
{
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const double mag = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return (float)(half & 0x8000 ? -mag : mag);
}

static attention attention_new(const fm_kernels *k, int64_t n_pos, int64_t d, int64_t gap,
                               int64_t n_q, int f16, float q_scale)
{
    attention a = {.n_pos = n_pos, .d = d, .dv = d, .stride = d + gap, .n_q = n_q, .f16 = f16};
    const int64_t n = n_pos * a.stride;
    a.q = random_array(n_q * d, q_scale);
    a.k = random_array(n, 1.0f);
    a.v = random_array(n, 1.0f);
    a.k16 = malloc((size_t)n * sizeof *a.k16);
    a.v16 = malloc((size_t)n * sizeof *a.v16);
    assert_true(a.k16 && a.v16);
    if (f16) {
        k->to_f16(a.k16, a.k, n);
        k->to_f16(a.v16, a.v, n);
        for (int64_t i = 0; i < n; i++) {
            a.k[i] = half_to_f32(a.k16[i]);
            a.v[i] = half_to_f32(a.v16[i]);
        }
    }
    a.o = array(n_q * d);
    a.m = array(n_q);
    a.l = array(n_q);
    return a;
}

static void attention_free(attention *a)
{
    free_array(a->q, a->n_q * a->d);
    free_array(a->k, a->n_pos * a->stride);
    free_array(a->v, a->n_pos * a->stride);
    free_array(a->o, a->n_q * a->d);
    free_array(a->m, a->n_q);
    free_array(a->l, a->n_q);
    free(a->k16);
    free(a->v16);
}

static void attention_run(const fm_kernels *k, attention *a, int64_t pos0, int64_t pos1)
{
    const void *keys = a->f16 ? (void *)a->k16 : (void *)a->k;
    const void *values = a->f16 ? (void *)a->v16 : (void *)a->v;
    k->attend(a->o, a->m, a->l, a->q, keys, a->dv < a->d ? keys : values, a->stride, pos0, pos1,
              a->d, a->dv, a->n_q, a->f16);
}

/* Head h over [pos0, pos1): out [dv] = softmax(q K^T) V. */
static void attention_want(double *out, const attention *a, int64_t h, int64_t pos0, int64_t pos1)
{
    const float *v = a->dv < a->d ? a->k : a->v;
    double *score = doubles(a->n_pos), max = -INFINITY, sum = 0.0;
    for (int64_t p = pos0; p < pos1; p++) {
        for (int64_t i = 0; i < a->d; i++) {
            score[p] += (double)a->q[h * a->d + i] * a->k[p * a->stride + i];
        }
        max = fmax(max, score[p]);
    }
    memset(out, 0, (size_t)a->dv * sizeof *out);
    for (int64_t p = pos0; p < pos1; p++) {
        const double weight = exp(score[p] - max);
        sum += weight;
        for (int64_t i = 0; i < a->dv; i++) out[i] += weight * v[p * a->stride + i];
    }
    for (int64_t i = 0; i < a->dv; i++) out[i] /= sum;
    free(score);
}

static void assert_head_close(const fm_kernels *k, const attention *a, int64_t h, int64_t pos0,
                              int64_t pos1, double limit)
{
    double *want = doubles(a->dv);
    float *got = array(a->dv);
    attention_want(want, a, h, pos0, pos1);
    for (int64_t i = 0; i < a->dv; i++) got[i] = a->o[h * a->dv + i] / a->l[h];
    assert_close(got, want, a->dv, limit);
    free(want);
    free_array(got, a->dv);
}

static void attend_any_size_matches_formula(const fm_kernels *k)
{
    static const int64_t ranges[][2] = {{0, 1}, {0, 3}, {0, 64}, {0, 65}, {64, 135}, {70, 200}};
    static const int64_t heads[] = {1, 2, 3, 4, 7, 8, 16, 21};
    for (size_t s = 0; s + 1 < N_SIZE; s++) {
        for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++) {
            for (int f16 = 0; f16 < 2; f16++) {
                const int64_t n_q = heads[(s + r) % (sizeof heads / sizeof heads[0])];
                const float scale = 3.0f / sqrtf((float)sizes[s]);
                attention a = attention_new(k, 200, sizes[s], r % 2 ? 7 : 0, n_q, f16, scale);
                attention_run(k, &a, ranges[r][0], ranges[r][1]);
                for (int64_t h = 0; h < n_q; h++) {
                    assert_head_close(k, &a, h, ranges[r][0], ranges[r][1], 4e-6);
                }
                attention_free(&a);
            }
        }
    }
}

/* Latent attention: one cached row is the key, its first dv values are the value. */
static void attend_values_inside_the_keys_match_formula(const fm_kernels *k)
{
    static const int64_t dims[][2] = {{576, 512}, {40, 32}, {21, 9}, {100, 24}};
    static const int64_t ranges[][2] = {{0, 1}, {0, 65}, {70, 200}};
    for (size_t s = 0; s < sizeof dims / sizeof dims[0]; s++) {
        for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++) {
            for (int f16 = 0; f16 < 2; f16++) {
                const int64_t n_q = 1 + 16 * (int64_t)r + (int64_t)s;
                const float scale = 3.0f / sqrtf((float)dims[s][0]);
                attention a = attention_new(k, 200, dims[s][0], 5 * (int64_t)r, n_q, f16, scale);
                a.dv = dims[s][1];
                attention_run(k, &a, ranges[r][0], ranges[r][1]);
                for (int64_t h = 0; h < n_q; h++) {
                    assert_head_close(k, &a, h, ranges[r][0], ranges[r][1], 4e-6);
                }
                attention_free(&a);
            }
        }
    }
}

/* The chosen position wins by thousands: exp must neither overflow nor leave NaN behind. */
static void attend_huge_scores_stay_finite(const fm_kernels *k)
{
    attention a = attention_new(k, 150, 40, 0, 5, 0, 1000.0f);
    attention_run(k, &a, 0, 150);
    for (int64_t h = 0; h < 5; h++) assert_head_close(k, &a, h, 0, 150, 1e-3);
    attention_free(&a);
}

static void attend_no_positions_gives_zero_weight(const fm_kernels *k)
{
    attention a = attention_new(k, 1, 24, 0, 3, 0, 1.0f);
    attention_run(k, &a, 64, 64);
    for (int64_t h = 0; h < 3; h++) {
        assert_true(a.m[h] == -INFINITY && a.l[h] == 0.0f);
        for (int64_t i = 0; i < 24; i++) assert_true(a.o[h * 24 + i] == 0.0f);
    }
    attention_free(&a);
}

static void attend_equal_keys_average_the_values(const fm_kernels *k)
{
    attention a = attention_new(k, 128, 20, 0, 2, 0, 1.0f);
    for (int64_t p = 1; p < 128; p++) memcpy(a.k + p * 20, a.k, 20 * sizeof(float));
    attention_run(k, &a, 0, 128);
    for (int64_t h = 0; h < 2; h++) {
        assert_true(a.l[h] == 128.0f);
        assert_head_close(k, &a, h, 0, 128, 1e-6);
    }
    attention_free(&a);
}

/* A head computes the same bits alone and in any group. */
static void attend_heads_do_not_see_each_other(const fm_kernels *k)
{
    static const int64_t dims[] = {20, 64, 100, 256};
    for (int f16 = 0; f16 < 2; f16++) {
        for (size_t s = 0; s < sizeof dims / sizeof dims[0]; s++) {
            const int64_t d = dims[s];
            attention a = attention_new(k, 150, d, 3, 19, f16, 0.3f);
            attention_run(k, &a, 0, 147);
            for (int64_t h = 0; h < 19; h++) {
                attention one = a;
                one.q = a.q + h * d, one.n_q = 1 + h % 3 < 19 - h ? 1 + h % 3 : 1;
                one.o = array(3 * d), one.m = array(3), one.l = array(3);
                attention_run(k, &one, 0, 147);
                assert_same_bits(one.o, a.o + h * d, one.n_q * d);
                assert_same_bits(one.m, a.m + h, one.n_q);
                assert_same_bits(one.l, a.l + h, one.n_q);
                free_array(one.o, 3 * d), free_array(one.m, 3), free_array(one.l, 3);
            }
            attention_free(&a);
        }
    }
}

/* What is cached beyond the end, even NaN, never shows. */
static void attend_later_positions_never_show(const fm_kernels *k)
{
    for (int64_t end = 1; end < 140; end += 5) {
        attention a = attention_new(k, 140, 40, 0, 6, 0, 0.5f);
        attention_run(k, &a, 0, end);
        float *o = copy_array(a.o, 6 * 40), *l = copy_array(a.l, 6);
        for (int64_t i = end * 40; i < 140 * 40; i++) a.k[i] = a.v[i] = NAN;
        attention_run(k, &a, 0, end);
        assert_same_bits(o, a.o, 6 * 40);
        assert_same_bits(l, a.l, 6);
        free_array(o, 6 * 40), free_array(l, 6);
        attention_free(&a);
    }
}

/* Units joined in order, the way callers do it, equal attention over all positions. */
static void attend_joined_units_match_formula(const fm_kernels *k)
{
    enum { UNIT = 128, END = 500, D = 64, HEADS = 8 };
    attention a = attention_new(k, END, D, 0, HEADS, 1, 0.5f);
    float o[HEADS * D] = {0}, m[HEADS], l[HEADS] = {0};
    for (int h = 0; h < HEADS; h++) m[h] = -INFINITY;
    for (int64_t pos = 0; pos < END; pos += UNIT) {
        attention_run(k, &a, pos, pos + UNIT < END ? pos + UNIT : END);
        for (int h = 0; h < HEADS; h++) {
            const float max = fmaxf(m[h], a.m[h]);
            const float old = expf(m[h] - max), fresh = expf(a.m[h] - max);
            for (int i = 0; i < D; i++) o[h * D + i] = old * o[h * D + i] + fresh * a.o[h * D + i];
            l[h] = old * l[h] + fresh * a.l[h];
            m[h] = max;
        }
    }
    memcpy(a.o, o, sizeof o);
    memcpy(a.l, l, sizeof l);
    for (int h = 0; h < HEADS; h++) assert_head_close(k, &a, h, 0, END, 2e-6);
    attention_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_SET(attend_any_size_matches_formula),
        EVERY_SET(attend_values_inside_the_keys_match_formula),
        EVERY_SET(attend_huge_scores_stay_finite),
        EVERY_SET(attend_no_positions_gives_zero_weight),
        EVERY_SET(attend_equal_keys_average_the_values),
        EVERY_SET(attend_heads_do_not_see_each_other),
        EVERY_SET(attend_later_positions_never_show),
        EVERY_SET(attend_joined_units_match_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
