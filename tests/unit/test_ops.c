/* Norms, gates, rotation, softmax, f16 and the short convolution of every kernel set, against f64
 * transcriptions of their formulas. */
#include "test_ops.h"

#include <stdio.h>

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static void rmsnorm_any_size_matches_formula(const fm_kernels *k)
{
    for (size_t s = 0; s < N_SIZE; s++) {
        const int64_t n = sizes[s];
        for (float scale = 1e-6f; scale < 1e7f; scale *= 1e6f) {
            float *x = random_array(n, scale), *w = random_array(n, 2.0f), *y = array(n);
            double *want = doubles(n), sum = 0.0;
            for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
            for (int64_t i = 0; i < n; i++) want[i] = w[i] * (x[i] / sqrt(sum / n + 1e-6f));
            k->rmsnorm(y, x, w, 1e-6f, n);
            assert_close(y, want, n, 5e-7);
            k->rmsnorm(x, x, w, 1e-6f, n); /* in place */
            assert_same_bits(x, y, n);
            free(want);
            free_array(x, n), free_array(w, n), free_array(y, n);
        }
    }
}

static void rmsnorm_of_zeros_is_zero(const fm_kernels *k)
{
    float x[40] = {0}, w[40], y[40];
    for (int i = 0; i < 40; i++) w[i] = 1.0f;
    k->rmsnorm(y, x, w, 1e-6f, 40);
    for (int i = 0; i < 40; i++) assert_true(y[i] == 0.0f);
}

static void l2norm_any_size_matches_formula(const fm_kernels *k)
{
    for (size_t s = 0; s < N_SIZE; s++) {
        const int64_t n = sizes[s];
        float *x = random_array(n, 3.0f);
        double *want = doubles(n), sum = 0.0;
        for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
        for (int64_t i = 0; i < n; i++) want[i] = x[i] / sqrt(sum + 1e-6f) * 0.25f;
        k->l2norm(x, 1e-6f, 0.25f, n);
        assert_close(x, want, n, 5e-7);
        free(want);
        free_array(x, n);
    }
}

/* Values where exp is at its limits, and some that are harmless. */
static const float awkward[] = {0.0f,   -0.0f,  1e-40f, -1e-40f, 1e-8f,  0.5f,  -0.5f,  10.0f,
                                -10.0f, 17.0f,  -17.0f, 80.0f,   -80.0f, 87.5f, -87.5f, 88.8f,
                                -88.8f, 104.0f, -104.f, 1e4f,    -1e4f,  1e37f, -1e37f};
#define N_AWKWARD (sizeof awkward / sizeof awkward[0])

/* Relative to each value, except near the subnormals, where silu(-88) lives. */
static void assert_each_close(const fm_kernels *k, const float *got, const double *want, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double error = fabs(got[i] - want[i]);
        if (!(error <= 5e-7 * fabs(want[i]) + 2e-36)) {
            fail_msg("%s [%d]: %.9g, want %.9g", k->name, (int)i, got[i], want[i]);
        }
    }
}

static void gates_any_size_match_formula(const fm_kernels *k)
{
    for (size_t s = 0; s < N_SIZE; s++) {
        const int64_t n = sizes[s];
        float *g = random_array(n, 12.0f), *u = random_array(n, 2.0f), *y = array(n);
        for (int64_t i = 0; i < n && s % 2 == 0; i++) g[i] = awkward[(size_t)i % N_AWKWARD];
        double *want = doubles(n);

        for (int64_t i = 0; i < n; i++) want[i] = g[i] * sigmoid(g[i]) * u[i];
        k->silu_mul(y, g, u, n);
        assert_each_close(k, y, want, n);

        for (int64_t i = 0; i < n; i++) {
            const double gate = fmin(g[i], 2.0), up = fmax(-2.0, fmin(u[i], 2.0));
            want[i] = gate * sigmoid(2.0 * gate) * (up + 1.0);
        }
        k->clamped_swiglu(y, g, u, 2.0f, 2.0f, n);
        assert_each_close(k, y, want, n);

        memcpy(y, u, (size_t)n * sizeof *y);
        for (int64_t i = 0; i < n; i++) want[i] = u[i] * sigmoid(g[i]);
        k->sigmoid_mul(y, g, n);
        assert_each_close(k, y, want, n);

        free(want);
        free_array(g, n), free_array(u, n), free_array(y, n);
    }
}

static void gates_in_pieces_give_the_same_bits(const fm_kernels *k)
{
    const int64_t n = 200;
    float *g = random_array(n, 9.0f), *u = random_array(n, 2.0f);
    float *whole = array(n), *pieces = array(n);
    k->silu_mul(whole, g, u, n);
    for (int64_t i = 0, step = 1; i < n; i += step, step = step * 2 + 1) {
        const int64_t len = n - i < step ? n - i : step;
        k->silu_mul(pieces + i, g + i, u + i, len);
    }
    assert_same_bits(whole, pieces, n);
    k->silu_mul(g, g, u, n); /* in place */
    assert_same_bits(whole, g, n);
    k->clamped_swiglu(whole, g, u, 1.702f, 7.0f, n);
    for (int64_t i = 0, step = 1; i < n; i += step, step = step * 2 + 1) {
        const int64_t len = n - i < step ? n - i : step;
        k->clamped_swiglu(pieces + i, g + i, u + i, 1.702f, 7.0f, len);
    }
    assert_same_bits(whole, pieces, n);
    free_array(g, n), free_array(u, n), free_array(whole, n), free_array(pieces, n);
}

/* Bounds hold where they should, and what is not a number stays so. */
static void clamped_swiglu_at_its_limits(const fm_kernels *k)
{
    const float gate[] = {1e30f, INFINITY, -1e30f, 7.0f, 0.0f, NAN, 1.0f};
    const float up[] = {1e30f, -INFINITY, 3.0f, -9.0f, 5.0f, 1.0f, NAN};
    float y[7];
    k->clamped_swiglu(y, gate, up, 1.702f, 7.0f, 7);
    const double top = 7.0 / (1.0 + exp(-1.702 * 7.0));
    assert_true(fabs(y[0] - 8.0 * top) < 1e-5 && fabs(y[1] + 6.0 * top) < 1e-5);
    assert_true(y[2] == 0.0f && fabs(y[3] + 6.0 * top) < 1e-5 && y[4] == 0.0f);
    assert_true(isnan(y[5]) && isnan(y[6]));
}

static void axpy_any_size_matches_formula(const fm_kernels *k)
{
    for (size_t s = 0; s < N_SIZE; s++) {
        const int64_t n = sizes[s];
        float *x = random_array(n, 3.0f), *y = random_array(n, 1.0f);
        double *want = doubles(n);
        for (int64_t i = 0; i < n; i++) want[i] = y[i] + 0.7f * (double)x[i];
        k->axpy(y, 0.7f, x, n);
        assert_close(y, want, n, 2e-7);
        free(want);
        free_array(x, n), free_array(y, n);
    }
}

/* Hand-checkable vector: head of 8, rotary 4, theta 1e7, position 3, x = 1..8. */
static void rope_half_known_vector(const fm_kernels *k)
{
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const double want[8] = {-1.4133525, 1.9962044, -2.8288575, 4.0018956, 5, 6, 7, 8};
    const double slow = 3.0 * pow(1e7, -2.0 / 4.0);
    const float cos_t[2] = {(float)cos(3.0), (float)cos(slow)};
    const float sin_t[2] = {(float)sin(3.0), (float)sin(slow)};
    k->rope_half(x, cos_t, sin_t, 4);
    assert_close(x, want, 8, 1e-7);
}

static void rope_half_any_size_matches_formula(const fm_kernels *k)
{
    for (int64_t half = 1; half <= 64; half += half < 36 ? 1 : 28) {
        float *x = random_array(2 * half, 2.0f), *c = array(half), *s = array(half);
        double *want = doubles(2 * half);
        for (int64_t i = 0; i < half; i++) {
            const double angle = uniform() * 100.0;
            c[i] = (float)cos(angle);
            s[i] = (float)sin(angle);
            want[i] = (double)x[i] * c[i] - (double)x[i + half] * s[i];
            want[i + half] = (double)x[i + half] * c[i] + (double)x[i] * s[i];
        }
        k->rope_half(x, c, s, 2 * half);
        assert_close(x, want, 2 * half, 2e-7);
        free(want);
        free_array(x, 2 * half), free_array(c, half), free_array(s, half);
    }
}

static void softmax_any_size_matches_formula(const fm_kernels *k)
{
    for (size_t s = 0; s < N_SIZE; s++) {
        const int64_t n = sizes[s];
        float *x = random_array(n, s % 2 ? 10.0f : 3000.0f);
        if (n > 3) x[1] = -INFINITY;
        double *want = doubles(n), max = -INFINITY, sum = 0.0;
        for (int64_t i = 0; i < n; i++)
            if (x[i] > max) max = x[i];
        for (int64_t i = 0; i < n; i++) sum += want[i] = exp(x[i] - max);
        for (int64_t i = 0; i < n; i++) want[i] /= sum;
        k->softmax(x, n);
        assert_close(x, want, n, 5e-7);
        if (n > 3) assert_true(x[1] == 0.0f);
        free(want);
        free_array(x, n);
    }
}

/* e^g alone: a 1 x 1 state of 1 and a key of 0. */
static float exp_of(const fm_kernels *k, float g)
{
    float S = 1.0f, o;
    const float zero = 0.0f;
    k->delta_step(&S, &o, &zero, &zero, &zero, g, 0.0f, 1, 1);
    return S;
}

/* Distance in representable values, both >= 0 or infinite. */
static int64_t ulps(float a, float b)
{
    int32_t ia, ib;
    memcpy(&ia, &a, sizeof ia);
    memcpy(&ib, &b, sizeof ib);
    return llabs((long long)ia - ib);
}

static void exp_is_within_two_ulp_everywhere(const fm_kernels *k)
{
    int64_t worst = 0;
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += 8191) {
        const uint32_t word = (uint32_t)bits;
        float x;
        memcpy(&x, &word, sizeof x);
        if (!(x <= 88.0f)) continue; /* a decay; the overflowing side is tested by the gates */
        const int64_t off = ulps(exp_of(k, x), (float)exp((double)x));
        worst = off > worst ? off : worst;
    }
    for (float x = -104.5f; x < 88.7f; x += 0.00037f) { /* where the result is not 0, 1, inf */
        const int64_t off = ulps(exp_of(k, x), (float)exp((double)x));
        worst = off > worst ? off : worst;
    }
    if (worst > 2) fail_msg("%s: %d ulp", k->name, (int)worst);
    assert_true(exp_of(k, -INFINITY) == 0.0f);
    assert_true(exp_of(k, -1000.0f) == 0.0f);
    assert_true(exp_of(k, 0.0f) == 1.0f);
    assert_true(isnan(exp_of(k, NAN)));
}

static double half_value(uint16_t half)
{
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const double mag = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return half & 0x8000 ? -mag : mag;
}

static uint16_t to_half(const fm_kernels *k, float x)
{
    uint16_t out[2] = {0, 0xABCD};
    k->to_f16(out, &x, 1);
    assert_int_equal(out[1], 0xABCD);
    return out[0];
}

/* Every finite half, every midpoint between neighbours and the values beside it. */
static void to_f16_rounds_to_nearest_even(const fm_kernels *k)
{
    for (int sign = 0; sign < 2; sign++) {
        for (uint16_t h = 0; h < 0x7c00; h++) {
            const uint16_t half = (uint16_t)(h | sign << 15), next = (uint16_t)(half + 1);
            assert_int_equal(to_half(k, (float)half_value(half)), half);
            const double above = h == 0x7bff ? (sign ? -65536.0 : 65536.0) : half_value(next);
            const float middle = (float)((half_value(half) + above) / 2); /* exact in f32 */
            const uint16_t even = h & 1 ? next : half;
            assert_int_equal(to_half(k, middle), even);
            assert_int_equal(to_half(k, nextafterf(middle, 0.0f)), half);
            assert_int_equal(to_half(k, nextafterf(middle, sign ? -1e9f : 1e9f)), next);
        }
    }
    assert_int_equal(to_half(k, INFINITY), 0x7c00);
    assert_int_equal(to_half(k, -INFINITY), 0xfc00);
    assert_int_equal(to_half(k, 1e30f), 0x7c00);
    assert_int_equal(to_half(k, 1e-30f), 0);
    assert_true((to_half(k, NAN) & 0x7fff) > 0x7c00);

    float many[37];
    uint16_t out[38] = {0};
    for (int i = 0; i < 37; i++) many[i] = uniform() * 100.0f;
    out[37] = 0xABCD;
    k->to_f16(out, many, 37);
    for (int i = 0; i < 37; i++) assert_int_equal(out[i], to_half(k, many[i]));
    assert_int_equal(out[37], 0xABCD);
}

/* ---- convolution ------------------------------------------------------------------------- */

typedef struct {
    int64_t n_tok, stride, n_ch, n_tap;
    float *x, *y, *state, *w;
} conv;

static conv conv_new(int64_t n_tok, int64_t n_ch, int64_t n_tap)
{
    conv c = {.n_tok = n_tok, .stride = n_ch + 5, .n_ch = n_ch, .n_tap = n_tap};
    c.x = random_array(n_tok * c.stride, 2.0f);
    c.y = array(n_tok * c.stride);
    c.state = random_array((n_tap - 1) * n_ch, 2.0f);
    c.w = random_array(n_ch * n_tap, 1.0f);
    return c;
}

static void conv_free(conv *c)
{
    free_array(c->x, c->n_tok * c->stride);
    free_array(c->y, c->n_tok * c->stride);
    free_array(c->state, (c->n_tap - 1) * c->n_ch);
    free_array(c->w, c->n_ch * c->n_tap);
}

/* Input of channel ch at token t of the call, t < 0 in the state. */
static float conv_input(const conv *c, const float *state, int64_t t, int64_t ch)
{
    return t < 0 ? state[(t + c->n_tap - 1) * c->n_ch + ch] : c->x[t * c->stride + ch];
}

static void conv_silu_any_size_matches_formula(const fm_kernels *k)
{
    static const int64_t channels[] = {1, 3, 8, 20, 40, 100, 300}, tokens[] = {1, 2, 3, 7, 20};
    for (int64_t n_tap = 2; n_tap <= FM_CONV_TAPS_MAX; n_tap += n_tap < 9 ? 1 : 55) {
        for (size_t a = 0; a < sizeof channels / sizeof channels[0]; a++) {
            for (size_t b = 0; b < sizeof tokens / sizeof tokens[0]; b++) {
                conv c = conv_new(tokens[b], channels[a], n_tap);
                float *state = copy_array(c.state, (n_tap - 1) * c.n_ch);
                k->conv_silu(c.y, c.x, c.state, c.w, c.n_tok, c.stride, c.n_ch, n_tap, 0, c.n_ch);
                for (int64_t t = 0; t < c.n_tok; t++) {
                    for (int64_t ch = 0; ch < c.n_ch; ch++) {
                        double sum = 0.0, terms = 0.0;
                        for (int64_t j = 0; j < n_tap; j++) {
                            const double term = (double)c.w[ch * n_tap + j] *
                                                conv_input(&c, state, t - n_tap + 1 + j, ch);
                            sum += term;
                            terms += fabs(term);
                        }
                        const double error = fabs(c.y[t * c.stride + ch] - sum * sigmoid(sum));
                        assert_true(error <= 1e-6 * terms);
                    }
                    assert_true(c.y[t * c.stride + c.n_ch] == guard_value); /* between rows */
                }
                for (int64_t j = 0; j < n_tap - 1; j++) {
                    for (int64_t ch = 0; ch < c.n_ch; ch++) {
                        assert_true(c.state[j * c.n_ch + ch] ==
                                    conv_input(&c, state, c.n_tok - n_tap + 1 + j, ch));
                    }
                }
                free_array(state, (n_tap - 1) * c.n_ch);
                conv_free(&c);
            }
        }
    }
}

/* Token by token, in place, and with the channels in two ranges. */
static void conv_silu_any_split_gives_the_same_bits(const fm_kernels *k)
{
    for (int64_t n_tap = 2; n_tap <= 8; n_tap += 2) {
        conv c = conv_new(11, 300, n_tap);
        const int64_t n_state = (n_tap - 1) * c.n_ch, n_x = c.n_tok * c.stride, cut = 133;
        float *state = copy_array(c.state, n_state), *x = copy_array(c.x, n_x);
        k->conv_silu(c.y, c.x, c.state, c.w, c.n_tok, c.stride, c.n_ch, n_tap, 0, c.n_ch);
        for (int64_t t = 0; t < c.n_tok; t++) {
            float *row = x + t * c.stride;
            k->conv_silu(row, row, state, c.w, 1, c.stride, c.n_ch, n_tap, 0, cut);
            k->conv_silu(row, row, state, c.w, 1, c.stride, c.n_ch, n_tap, cut, c.n_ch);
            assert_same_bits(row, c.y + t * c.stride, c.n_ch);
        }
        assert_same_bits(state, c.state, n_state);
        k->conv_silu(c.x, c.x, state, c.w, c.n_tok, c.stride, c.n_ch, n_tap, 0, 0); /* nothing */
        assert_same_bits(state, c.state, n_state);
        free_array(state, n_state), free_array(x, n_x);
        conv_free(&c);
    }
}

static void conv_silu_in_place_many_tokens_gives_the_same_bits(const fm_kernels *k)
{
    conv c = conv_new(9, 70, 4);
    float *state = copy_array(c.state, 3 * c.n_ch);
    k->conv_silu(c.y, c.x, c.state, c.w, c.n_tok, c.stride, c.n_ch, 4, 0, c.n_ch);
    k->conv_silu(c.x, c.x, state, c.w, c.n_tok, c.stride, c.n_ch, 4, 0, c.n_ch);
    for (int64_t t = 0; t < c.n_tok; t++) {
        assert_same_bits(c.x + t * c.stride, c.y + t * c.stride, c.n_ch);
    }
    assert_same_bits(state, c.state, 3 * c.n_ch);
    free_array(state, 3 * c.n_ch);
    conv_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_SET(rmsnorm_any_size_matches_formula),
        EVERY_SET(rmsnorm_of_zeros_is_zero),
        EVERY_SET(l2norm_any_size_matches_formula),
        EVERY_SET(gates_any_size_match_formula),
        EVERY_SET(gates_in_pieces_give_the_same_bits),
        EVERY_SET(clamped_swiglu_at_its_limits),
        EVERY_SET(axpy_any_size_matches_formula),
        EVERY_SET(rope_half_known_vector),
        EVERY_SET(rope_half_any_size_matches_formula),
        EVERY_SET(softmax_any_size_matches_formula),
        EVERY_SET(exp_is_within_two_ulp_everywhere),
        EVERY_SET(to_f16_rounds_to_nearest_even),
        EVERY_SET(conv_silu_any_size_matches_formula),
        EVERY_SET(conv_silu_any_split_gives_the_same_bits),
        EVERY_SET(conv_silu_in_place_many_tokens_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
