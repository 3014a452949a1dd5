/* Encoders: errors against those of public quantizers on the same tensors, the same bytes from every build of the code, and
 * what cannot be encoded. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quant/encode.h"
#include "quant/f16.h"
#include "quant/quant.h"

enum { ROWS = 16, COLUMNS = 1024, N = ROWS * COLUMNS };

static const uint32_t block_types[] = {FM_TYPE_Q8_0, FM_TYPE_Q4_0, FM_TYPE_MXFP4, FM_TYPE_Q2_K,
                                       FM_TYPE_Q3_K, FM_TYPE_Q4_K, FM_TYPE_Q5_K,  FM_TYPE_Q6_K};
enum { N_BLOCK_TYPE = sizeof block_types / sizeof block_types[0] };

/* The tensors of tools/oracle/encode_reference.py. */
static double next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(*state >> 40) / 16777216.0;
}

static float *tensor(const char *kind)
{
    const bool is_gaussian = strcmp(kind, "gaussian") == 0;
    uint64_t state = is_gaussian ? 1 : 2;
    float *x = malloc(N * sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < N; i++) {
        double g = 0;
        for (int k = 0; k < 12; k++) g += next(&state);
        g -= 6.0;
        x[i] = (float)(is_gaussian ? g * 0.02 : g * g * g * 0.01);
    }
    return x;
}

static void importance(float *w)
{
    uint64_t state = 3;
    for (int i = 0; i < COLUMNS; i++) {
        const double u = next(&state) * 4;
        w[i] = (float)(u * u * u + 0.01);
    }
}

static uint32_t type_named(const char *name)
{
    for (int i = 0; i < N_BLOCK_TYPE; i++)
        if (strcmp(fm_type_name(block_types[i]), name) == 0) return block_types[i];
    fail_msg("unknown type %s", name);
    return 0;
}

/* Encodes row by row, decodes, and returns the root of the weighted mean square of what is lost. */
static double error_of(uint32_t type, const float *x, const float *w)
{
    const fm_type_traits *t = fm_type_get(type);
    const uint64_t row_bytes = fm_type_row_bytes(t, COLUMNS);
    uint8_t *raw = malloc(row_bytes), *plain = malloc(row_bytes);
    float back[COLUMNS];
    double sum = 0, weight = 0;
    for (int r = 0; r < ROWS; r++) {
        const float *const row = x + r * COLUMNS;
        assert_int_equal(fm_encode(type, raw, row, w, COLUMNS), FM_ENCODE_OK);
        assert_int_equal(fm_encode_plain(type, plain, row, w, COLUMNS), FM_ENCODE_OK);
        assert_memory_equal(raw, plain, row_bytes);
        t->decode(back, raw, COLUMNS);
        for (int c = 0; c < COLUMNS; c++) {
            const double d = (double)back[c] - row[c], wc = w ? (double)w[c] : 1.0;
            sum += wc * d * d;
            weight += wc;
        }
        for (uint64_t i = 0; i < row_bytes && type == FM_TYPE_Q8_0; i++)
            if (i % 34 >= 2) assert_int_not_equal(raw[i], 0x80);
    }
    free(raw);
    free(plain);
    return sqrt(sum / weight);
}

static void errors_are_not_above_those_of_public_quantizers(void **state)
{
    (void)state;
    FILE *f = fopen("tests/vectors/encode/errors.txt", "r");
    assert_non_null(f);
    char name[16], kind[16];
    int weighted, n = 0;
    double reference;
    float w[COLUMNS];
    importance(w);
    while (fscanf(f, "%15s %15s %d %lf", name, kind, &weighted, &reference) == 4) {
        float *x = tensor(kind);
        const double got = error_of(type_named(name), x, weighted ? w : NULL);
        if (!(got <= reference))
            fail_msg("%s, %s tensor, importance %d: error %.6g, the best public one is %.6g", name,
                     kind, weighted, got, reference);
        free(x);
        n++;
    }
    fclose(f);
    assert_int_equal(n, 4 * N_BLOCK_TYPE);
}

/* Errors for blocks that a fixed formula encodes badly: constant, one large value, positive only. */
static void odd_blocks_lose_little(void **state)
{
    (void)state;
    for (int i = 0; i < N_BLOCK_TYPE; i++) {
        const fm_type_traits *t = fm_type_get(block_types[i]);
        for (int shape = 0; shape < 5; shape++) {
            float x[256], back[256];
            uint8_t raw[512];
            uint64_t s = 7;
            for (int c = 0; c < 256; c++) {
                const float u = (float)next(&s);
                x[c] = shape == 0 ? 0.0f : shape == 1 ? 0.37f : shape == 2 ? -1.5f : 1.0f + u;
                if (shape == 4) x[c] = c == 77 ? 1000.0f : 0.0f;
            }
            assert_int_equal(fm_encode(t->id, raw, x, NULL, 256), FM_ENCODE_OK);
            t->decode(back, raw, 256);
            double lost = 0, all = 0;
            for (int c = 0; c < 256; c++) {
                lost += (back[c] - x[c]) * (double)(back[c] - x[c]);
                all += x[c] * (double)x[c];
            }
            if (shape == 0) {
                assert_true(lost == 0);
                continue;
            }
            /* A step of an eighth of the range and a scale of 4 bits at worst. */
            if (lost > 0.03 * all)
                fail_msg("%s, shape %d: lost %g of %g", t->name, shape, lost, all);
        }
    }
}

/* Values that MXFP4 can hold come back as they were; so do Q8_0's, whose scale is a power of two. */
static void exact_values_stay(void **state)
{
    (void)state;
    static const float e2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    float x[32], back[32];
    uint8_t raw[34];
    uint64_t s = 5;
    for (int round = 0; round < 50; round++) {
        for (int c = 0; c < 32; c++) {
            const int k = (int)(next(&s) * 16);
            x[c] = ldexpf(k < 8 ? e2m1[k] : -e2m1[k - 8], round - 25);
        }
        x[3] = ldexpf(6, round - 25);
        assert_int_equal(fm_encode(FM_TYPE_MXFP4, raw, x, NULL, 32), FM_ENCODE_OK);
        fm_type_get(FM_TYPE_MXFP4)->decode(back, raw, 32);
        for (int c = 0; c < 32; c++) assert_true(back[c] == x[c]);
        for (int c = 0; c < 32; c++)
            x[c] = ldexpf((float)((int)(next(&s) * 255) - 127), round % 9 - 9);
        x[9] = ldexpf(-127, round % 9 - 9);
        assert_int_equal(fm_encode(FM_TYPE_Q8_0, raw, x, NULL, 32), FM_ENCODE_OK);
        fm_type_get(FM_TYPE_Q8_0)->decode(back, raw, 32);
        for (int c = 0; c < 32; c++) assert_true(back[c] == x[c]);
    }
}

static void importance_moves_the_error(void **state)
{
    (void)state;
    float *x = tensor("gaussian"), w[COLUMNS], zero[COLUMNS] = {0};
    for (int c = 0; c < COLUMNS; c++) w[c] = c % 8 == 0 ? 1.0f : 0.001f;
    for (int i = 0; i < N_BLOCK_TYPE; i++) {
        const fm_type_traits *t = fm_type_get(block_types[i]);
        const uint64_t bytes = fm_type_row_bytes(t, COLUMNS);
        uint8_t *a = malloc(bytes), *b = malloc(bytes);
        assert_true(error_of(t->id, x, w) < error_of(t->id, x, NULL));
        /* All of no importance: as if all were alike. A factor common to all changes nothing. */
        assert_int_equal(fm_encode(t->id, a, x, NULL, COLUMNS), FM_ENCODE_OK);
        assert_int_equal(fm_encode(t->id, b, x, zero, COLUMNS), FM_ENCODE_OK);
        assert_memory_equal(a, b, bytes);
        float large[COLUMNS];
        for (int c = 0; c < COLUMNS; c++) large[c] = w[c] * 0x1p100f;
        assert_int_equal(fm_encode(t->id, a, x, w, COLUMNS), FM_ENCODE_OK);
        assert_int_equal(fm_encode(t->id, b, x, large, COLUMNS), FM_ENCODE_OK);
        assert_memory_equal(a, b, bytes);
        free(a);
        free(b);
    }
    free(x);
}

static void what_cannot_be_encoded_is_said(void **state)
{
    (void)state;
    static const uint32_t all[] = {FM_TYPE_F32,  FM_TYPE_F16,   FM_TYPE_BF16, FM_TYPE_Q8_0,
                                   FM_TYPE_Q4_0, FM_TYPE_MXFP4, FM_TYPE_Q2_K, FM_TYPE_Q3_K,
                                   FM_TYPE_Q4_K, FM_TYPE_Q5_K,  FM_TYPE_Q6_K};
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        float x[512], back[512];
        uint8_t raw[2048];
        for (int k = 0; k < 3; k++) {
            for (int c = 0; c < 512; c++) x[c] = 0.5f;
            x[300] = bad[k];
            assert_int_equal(fm_encode(all[i], raw, x, NULL, 512), FM_ENCODE_NOT_FINITE);
        }
        for (int c = 0; c < 512; c++) x[c] = c % 2 ? 3.3e38f : -3.3e38f;
        assert_int_equal(fm_encode(all[i], raw, x, NULL, 512),
                         all[i] == FM_TYPE_F32 || all[i] == FM_TYPE_BF16 ? FM_ENCODE_OK
                                                                         : FM_ENCODE_RANGE);
        /* From the smallest numbers to the largest: finite, never far from what was given. */
        for (int e = -149; e < 128; e++) {
            for (int c = 0; c < 512; c++) x[c] = ldexpf((float)(c % 29 - 14) / 14.0f, e);
            if (fm_encode(all[i], raw, x, NULL, 512) != FM_ENCODE_OK) {
                assert_true(e > 14); /* halves reach 2^16 */
                continue;
            }
            fm_type_get(all[i])->decode(back, raw, 512);
            for (int c = 0; c < 512; c++)
                if (!(fabsf(back[c] - x[c]) <= ldexpf(0.6f, e) + 0x1p-22f))
                    fail_msg("%s: %g came back as %g", fm_type_name(all[i]), (double)x[c],
                             (double)back[c]);
        }
    }
}

/* Ties to even, by the definition of bfloat16. */
static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    static const uint32_t cases[][2] = {
        {0x3f808000, 0x3f80}, {0x3f808001, 0x3f81}, {0x3f818000, 0x3f82}, {0x3f817fff, 0x3f81},
        {0xbf808000, 0xbf80}, {0x00000000, 0},      {0x80000000, 0x8000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const float x = fm_f32_from_bits(cases[i][0]);
        uint8_t raw[2];
        assert_int_equal(fm_encode(FM_TYPE_BF16, raw, &x, NULL, 1), FM_ENCODE_OK);
        assert_int_equal(raw[0] | raw[1] << 8, cases[i][1]);
    }
    const float top = 3.4028235e38f; /* rounds up to infinity */
    uint8_t raw[2];
    assert_int_equal(fm_encode(FM_TYPE_BF16, raw, &top, NULL, 1), FM_ENCODE_RANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_not_above_those_of_public_quantizers),
        cmocka_unit_test(odd_blocks_lose_little),
        cmocka_unit_test(exact_values_stay),
        cmocka_unit_test(importance_moves_the_error),
        cmocka_unit_test(what_cannot_be_encoded_is_said),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
