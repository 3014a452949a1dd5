/* Gated DeltaNet of every kernel set: the recurrent and the chunked form against f64, against each
 * other, and the chunked form's independence from later tokens. */
#include "test_ops.h"

/* A sequence with rows apart from each other, as they lie in a batch. */
typedef struct {
    int64_t n, dk, dv, qk_stride, v_stride, o_stride, gb_stride;
    float *q, *k, *v, *g, *beta, *S, *o;
} sequence;

typedef enum { USUAL, FORGETFUL, MIXED, KEEPING } memory_kind;

static sequence sequence_new(int64_t n, int64_t dk, int64_t dv, memory_kind kind)
{
    sequence s = {.n = n, .dk = dk, .dv = dv};
    s.qk_stride = dk + 3;
    s.v_stride = dv + 5;
    s.o_stride = dv + 2;
    s.gb_stride = 3;
    s.q = random_array(n * s.qk_stride, 1.0f);
    s.k = random_array(n * s.qk_stride, 1.0f);
    s.v = random_array(n * s.v_stride, 1.0f);
    s.g = array(n * s.gb_stride);
    s.beta = array(n * s.gb_stride);
    s.S = random_array(dk * dv, 1.0f);
    s.o = array(n * s.o_stride);
    for (int64_t t = 0; t < n; t++) {
        float *const rows[] = {s.q + t * s.qk_stride, s.k + t * s.qk_stride};
        for (int r = 0; r < 2; r++) { /* normalised as the model does; q also scaled */
            double sum = 1e-6;
            for (int64_t i = 0; i < dk; i++) sum += (double)rows[r][i] * rows[r][i];
            const double scale = (r ? 1.0 : 1.0 / sqrt((double)dk)) / sqrt(sum);
            for (int64_t i = 0; i < dk; i++) rows[r][i] = (float)(rows[r][i] * scale);
        }
        const float u = (uniform() + 1.0f) / 2.0f; /* [0, 1) */
        s.g[t * s.gb_stride] = kind == USUAL       ? -u
                               : kind == FORGETFUL ? -40.0f * u
                               : kind == MIXED     ? (t < n / 2 ? -30.0f * u : -0.01f * u)
                                                   : 0.0f;
        s.beta[t * s.gb_stride] =
            kind == KEEPING && t % 5 == 0 ? (float)(t % 2) : (uniform() + 1.0f) / 2.0f;
    }
    return s;
}

static void sequence_free(sequence *s)
{
    free_array(s->q, s->n * s->qk_stride);
    free_array(s->k, s->n * s->qk_stride);
    free_array(s->v, s->n * s->v_stride);
    free_array(s->g, s->n * s->gb_stride);
    free_array(s->beta, s->n * s->gb_stride);
    free_array(s->S, s->dk * s->dv);
    free_array(s->o, s->n * s->o_stride);
}

/* The recurrence as written: o [n][dv], S [dk][dv] in and out. */
static void want_sequence(double *S, double *o, const sequence *s)
{
    double *r = doubles(s->dv);
    for (int64_t t = 0; t < s->n; t++) {
        const float *q = s->q + t * s->qk_stride, *k = s->k + t * s->qk_stride;
        const double decay = exp((double)s->g[t * s->gb_stride]);
        memset(r, 0, (size_t)s->dv * sizeof *r);
        for (int64_t i = 0; i < s->dk; i++) {
            for (int64_t c = 0; c < s->dv; c++) {
                S[i * s->dv + c] *= decay;
                r[c] += S[i * s->dv + c] * k[i];
            }
        }
        for (int64_t c = 0; c < s->dv; c++) {
            r[c] = s->beta[t * s->gb_stride] * (s->v[t * s->v_stride + c] - r[c]);
            o[t * s->dv + c] = 0.0;
        }
        for (int64_t i = 0; i < s->dk; i++) {
            for (int64_t c = 0; c < s->dv; c++) {
                S[i * s->dv + c] += k[i] * r[c];
                o[t * s->dv + c] += S[i * s->dv + c] * q[i];
            }
        }
    }
    free(r);
}

static void run_steps(const fm_kernels *k, sequence *s)
{
    for (int64_t t = 0; t < s->n; t++) {
        k->delta_step(s->S, s->o + t * s->o_stride, s->q + t * s->qk_stride,
                      s->k + t * s->qk_stride, s->v + t * s->v_stride, s->g[t * s->gb_stride],
                      s->beta[t * s->gb_stride], s->dk, s->dv);
    }
}

/* In chunks of at most `chunk` tokens. */
static void run_chunks(const fm_kernels *k, sequence *s, int64_t chunk)
{
    const int64_t n_scratch = (int64_t)fm_delta_scratch(s->dk, s->dv);
    float *scratch = array(n_scratch);
    for (int64_t i = 0; i < n_scratch; i++) scratch[i] = NAN; /* contents must not matter */
    for (int64_t t = 0; t < s->n; t += chunk) {
        const int64_t n = s->n - t < chunk ? s->n - t : chunk;
        k->delta_chunk(s->S, s->o + t * s->o_stride, s->q + t * s->qk_stride,
                       s->k + t * s->qk_stride, s->v + t * s->v_stride, s->g + t * s->gb_stride,
                       s->beta + t * s->gb_stride, n, s->qk_stride, s->v_stride, s->o_stride,
                       s->gb_stride, s->dk, s->dv, scratch);
    }
    free_array(scratch, n_scratch);
}

/* Rows of s->o and the state against the recurrence from `S0`; a row's error is relative to the
 * largest output of the sequence, as a row alone may cancel to nothing. */
static void assert_sequence_close(const fm_kernels *k, const sequence *s, const float *S0,
                                  double limit)
{
    double *S = doubles(s->dk * s->dv), *o = doubles(s->n * s->dv);
    float *got = array(s->n * s->dv);
    for (int64_t i = 0; i < s->dk * s->dv; i++) S[i] = S0[i];
    want_sequence(S, o, s);
    for (int64_t t = 0; t < s->n; t++) {
        memcpy(got + t * s->dv, s->o + t * s->o_stride, (size_t)s->dv * sizeof *got);
        assert_true(s->o[t * s->o_stride + s->dv] == guard_value); /* between rows */
    }
    assert_close(got, o, s->n * s->dv, limit);
    assert_close(s->S, S, s->dk * s->dv, limit);
    free(S);
    free(o);
    free_array(got, s->n * s->dv);
}

static const int64_t shapes[][2] = {{1, 1},     {3, 8},     {8, 3},   {20, 24},
                                    {40, 20},   {24, 100},  {64, 64}, {100, 40},
                                    {128, 128}, {128, 256}, {256, 72}};
#define N_SHAPE (sizeof shapes / sizeof shapes[0])

/* One head of 2 x 2, A_log = ln 2, dt_bias = 0.5; q, k, v after convolution, q scaled and
 * normalised here. Worked by hand from the formulas. */
static void fill_known(sequence *s)
{
    static const double q[3][2] = {{1, 2}, {0.5, -1}, {-1, 1}}, k[3][2] = {{1, 0}, {1, 1}, {-2, 1}};
    static const float v[3][2] = {{1, -1}, {2, 0.5f}, {-0.5f, 3}};
    static const double a[3] = {0, 1, -1}, b[3] = {0, 2, -2};
    for (int t = 0; t < 3; t++) {
        const double nq = sqrt(q[t][0] * q[t][0] + q[t][1] * q[t][1] + 1e-6);
        const double nk = sqrt(k[t][0] * k[t][0] + k[t][1] * k[t][1] + 1e-6);
        for (int i = 0; i < 2; i++) {
            s->q[t * s->qk_stride + i] = (float)(q[t][i] / nq / sqrt(2.0));
            s->k[t * s->qk_stride + i] = (float)(k[t][i] / nk);
            s->v[t * s->v_stride + i] = v[t][i];
        }
        s->g[t * s->gb_stride] = (float)(-2.0 * log(1.0 + exp(a[t] + 0.5)));
        s->beta[t * s->gb_stride] = (float)(1.0 / (1.0 + exp(-b[t])));
    }
    memset(s->S, 0, 4 * sizeof *s->S);
}

static void delta_known_vector(const fm_kernels *k)
{
    const double want_o[3][2] = {
        {0.1581138, -0.1581138}, {-0.386325, -0.1060552}, {-0.0255866, 0.2470699}};
    const double want_S[4] = {0.5160535, -0.2080794, 0.4648802, 0.2860606};
    for (int chunked = 0; chunked < 2; chunked++) {
        sequence s = sequence_new(3, 2, 2, USUAL);
        fill_known(&s);
        if (chunked) {
            run_chunks(k, &s, 64);
        } else {
            run_steps(k, &s);
        }
        for (int t = 0; t < 3; t++) assert_close(s.o + t * s.o_stride, want_o[t], 2, 2e-6);
        assert_close(s.S, want_S, 4, 2e-6);
        sequence_free(&s);
    }
}

static void delta_step_any_shape_matches_recurrence(const fm_kernels *k)
{
    for (size_t i = 0; i < N_SHAPE; i++) {
        for (int kind = USUAL; kind <= KEEPING; kind++) {
            sequence s = sequence_new(9, shapes[i][0], shapes[i][1], (memory_kind)kind);
            float *S0 = copy_array(s.S, s.dk * s.dv);
            run_steps(k, &s);
            assert_sequence_close(k, &s, S0, 3e-6);
            free_array(S0, s.dk * s.dv);
            sequence_free(&s);
        }
    }
}

static void delta_chunk_any_shape_matches_recurrence(const fm_kernels *k)
{
    static const int64_t lengths[] = {1, 2, 3, 5, 6, 7, 16, 31, 63, 64, 65, 150};
    for (size_t i = 0; i < N_SHAPE; i++) {
        for (size_t j = 0; j < sizeof lengths / sizeof lengths[0]; j++) {
            const memory_kind kind = (memory_kind)((i + j) % (KEEPING + 1));
            sequence s = sequence_new(lengths[j], shapes[i][0], shapes[i][1], kind);
            float *S0 = copy_array(s.S, s.dk * s.dv);
            run_chunks(k, &s, FM_DELTA_BLOCK);
            assert_sequence_close(k, &s, S0, 1e-5);
            free_array(S0, s.dk * s.dv);
            sequence_free(&s);
        }
    }
}

/* The two forms of the same set, with state carried from chunk to chunk. */
static void delta_chunk_equals_repeated_steps(const fm_kernels *k)
{
    for (int kind = USUAL; kind <= KEEPING; kind++) {
        for (int64_t chunk = 1; chunk <= 64; chunk += 21) {
            sequence s = sequence_new(200, 128, 128, (memory_kind)kind);
            float *S0 = copy_array(s.S, 128 * 128);
            run_chunks(k, &s, chunk);
            float *S1 = copy_array(s.S, 128 * 128), *o1 = copy_array(s.o, 200 * s.o_stride);
            memcpy(s.S, S0, 128 * 128 * sizeof *S0);
            run_steps(k, &s);
            double *want = doubles(200 * s.o_stride);
            for (int64_t i = 0; i < 128 * 128; i++) want[i] = s.S[i];
            assert_close(S1, want, 128 * 128, 1e-5);
            for (int64_t t = 0; t < 200; t++) {
                for (int64_t c = 0; c < 128; c++) {
                    want[t * 128 + c] = s.o[t * s.o_stride + c];
                    o1[t * 128 + c] = o1[t * s.o_stride + c];
                }
            }
            assert_close(o1, want, 200 * 128, 1e-5);
            free(want);
            free_array(S0, 128 * 128), free_array(S1, 128 * 128);
            free_array(o1, 200 * s.o_stride);
            sequence_free(&s);
        }
    }
}

/* A token's output has the same bits whether or not tokens follow in its block, even if they are
 * NaN. */
static void delta_chunk_rows_do_not_see_later_ones(const fm_kernels *k)
{
    static const int64_t dims[][2] = {{128, 128}, {20, 40}};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        sequence s = sequence_new(64, dims[i][0], dims[i][1], USUAL);
        const int64_t n_state = s.dk * s.dv;
        float *S0 = copy_array(s.S, n_state);
        run_chunks(k, &s, 64);
        float *whole = copy_array(s.o, 64 * s.o_stride);
        for (int64_t n = 1; n < 64; n++) {
            sequence head = s;
            head.n = n;
            head.S = copy_array(S0, n_state);
            memset(s.o, 0x7f, (size_t)(64 * s.o_stride) * sizeof *s.o);
            run_chunks(k, &head, 64);
            for (int64_t t = 0; t < n; t++) {
                assert_same_bits(s.o + t * s.o_stride, whole + t * s.o_stride, s.dv);
            }
            free_array(head.S, n_state);
        }
        memcpy(s.S, S0, (size_t)n_state * sizeof *S0);
        for (int64_t j = 40 * s.qk_stride; j < 64 * s.qk_stride; j++) s.q[j] = s.k[j] = NAN;
        for (int64_t j = 40 * s.v_stride; j < 64 * s.v_stride; j++) s.v[j] = NAN;
        for (int64_t t = 40; t < 64; t++) s.g[t * 3] = s.beta[t * 3] = NAN;
        run_chunks(k, &s, 64);
        for (int64_t t = 0; t < 40; t++) {
            assert_same_bits(s.o + t * s.o_stride, whole + t * s.o_stride, s.dv);
        }
        free_array(S0, n_state), free_array(whole, 64 * s.o_stride);
        sequence_free(&s);
    }
}

/* Columns of v and S mean nothing to each other: a head of 40 columns holds that of the first
 * 24. */
static void delta_columns_do_not_see_each_other(const fm_kernels *k)
{
    enum { DK = 40, WIDE = 40, NARROW = 24, N = 20 };
    sequence wide = sequence_new(N, DK, WIDE, USUAL), narrow = wide;
    narrow.dv = NARROW;
    narrow.S = array(DK * NARROW);
    narrow.o = array(N * narrow.o_stride);
    for (int i = 0; i < DK; i++) {
        memcpy(narrow.S + i * NARROW, wide.S + i * WIDE, NARROW * sizeof(float));
    }
    for (int round = 0; round < 2; round++) {
        (round ? run_steps(k, &wide) : run_chunks(k, &wide, 64));
        (round ? run_steps(k, &narrow) : run_chunks(k, &narrow, 64));
        for (int t = 0; t < N; t++) {
            assert_same_bits(narrow.o + t * narrow.o_stride, wide.o + t * wide.o_stride, NARROW);
        }
        for (int i = 0; i < DK; i++)
            assert_same_bits(narrow.S + i * NARROW, wide.S + i * WIDE, NARROW);
    }
    free_array(narrow.S, DK * NARROW);
    free_array(narrow.o, N * narrow.o_stride);
    sequence_free(&wide);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_SET(delta_known_vector),
        EVERY_SET(delta_step_any_shape_matches_recurrence),
        EVERY_SET(delta_chunk_any_shape_matches_recurrence),
        EVERY_SET(delta_chunk_equals_repeated_steps),
        EVERY_SET(delta_chunk_rows_do_not_see_later_ones),
        EVERY_SET(delta_columns_do_not_see_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
