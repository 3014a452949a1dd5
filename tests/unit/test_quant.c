/* Block formats: decoded values against two independent sources (the formulas of the format written
 * per element, and the gguf Python package), sizes, and the panel layout. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quant/f16.h"
#include "quant/quant.h"

static const uint32_t quantized[] = {
    FM_TYPE_Q4_0, FM_TYPE_Q4_1, FM_TYPE_Q5_0, FM_TYPE_Q5_1, FM_TYPE_Q8_0, FM_TYPE_MXFP4,
    FM_TYPE_Q2_K, FM_TYPE_Q3_K, FM_TYPE_Q4_K, FM_TYPE_Q5_K, FM_TYPE_Q6_K,
    FM_TYPE_IQ4_NL, FM_TYPE_IQ4_XS, FM_TYPE_IQ3_S, FM_TYPE_IQ3_XXS, FM_TYPE_IQ2_S,
    FM_TYPE_IQ2_XS, FM_TYPE_IQ2_XXS, FM_TYPE_IQ1_M, FM_TYPE_IQ1_S};
enum { N_QUANTIZED = sizeof quantized / sizeof quantized[0] };

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint8_t random_byte(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint8_t)(random_state >> 32);
}

/* ---- halves ------------------------------------------------------------------------------ */

/* The definition of binary16. */
static double half_value(unsigned h)
{
    const double sign = h & 0x8000 ? -1.0 : 1.0;
    const int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
    if (e == 31) return m ? NAN : sign * INFINITY;
    return sign * (e ? ldexp(1024 + m, e - 25) : ldexp(m, -24));
}

static void f16_every_half_becomes_its_exact_value(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        const float got = fm_f16_to_f32((uint16_t)h);
        const double want = half_value(h);
        if (isnan(want)) {
            assert_true(isnan(got));
            continue;
        }
        assert_true((double)got == want);
        assert_int_equal(signbit(got) != 0, h >> 15);
        assert_int_equal(fm_f32_to_f16(got), h);
    }
}

static void f16_rounding_is_to_nearest_with_ties_to_even(void **state)
{
    (void)state;
    /* 0x7bff is the largest half; its upper neighbour counts as 65536 and rounds to infinity. */
    for (unsigned h = 0; h < 0x7c00; h++) {
        const double low = half_value(h), high = h == 0x7bff ? 65536.0 : half_value(h + 1);
        const float middle = (float)((low + high) / 2); /* exact: one more bit than a half */
        const unsigned even = h & 1 ? h + 1 : h;
        assert_int_equal(fm_f32_to_f16(middle), even);
        assert_int_equal(fm_f32_to_f16(-middle), even | 0x8000);
        assert_int_equal(fm_f32_to_f16(nextafterf(middle, 0.0f)), h);
        assert_int_equal(fm_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
    }
    assert_int_equal(fm_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(fm_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(fm_f32_to_f16(1e-30f), 0);
    assert_true(isnan(fm_f16_to_f32(fm_f32_to_f16(NAN))));
}

/* ---- decoding ---------------------------------------------------------------------------- */

static float half_at(const uint8_t *p)
{
    return (float)half_value((unsigned)(p[0] | p[1] << 8));
}

static int bits(const uint8_t *p, int shift, int n)
{
    return *p >> shift & ((1 << n) - 1);
}

static float value_k_6bit(const uint8_t *p, int i, int q)
{
    const uint8_t *const s = p + 4;
    const int k = i / 32;
    const int sc = k < 4 ? s[k] & 63 : (s[k + 4] & 15) | (s[k - 4] >> 6) << 4;
    const int mn = k < 4 ? s[k + 4] & 63 : s[k + 4] >> 4 | (s[k] >> 6) << 4;
    return half_at(p) * (float)sc * (float)q - half_at(p + 2) * (float)mn;
}

/* Element i of the block at p, from the formulas of the format. */
static float value_at(uint32_t type, const uint8_t *p, int i)
{
    static const float e2m1[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                   -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    static const int8_t iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};
    const int j = i % 16, nibble = i / 16 % 2 * 4; /* blocks of 32 */
    const int n = i / 128, r = i % 128, l = r % 32; /* blocks of 256 */
    switch (type) {
    case FM_TYPE_Q4_0: return (float)(bits(p + 2 + j, nibble, 4) - 8) * half_at(p);
    case FM_TYPE_Q4_1: return (float)bits(p + 4 + j, nibble, 4) * half_at(p) + half_at(p + 2);
    case FM_TYPE_Q5_0:
        return (float)(bits(p + 6 + j, nibble, 4) + 16 * bits(p + 2 + i / 8, i % 8, 1) - 16) *
               half_at(p);
    case FM_TYPE_Q5_1:
        return (float)(bits(p + 8 + j, nibble, 4) + 16 * bits(p + 4 + i / 8, i % 8, 1)) *
                   half_at(p) + half_at(p + 2);
    case FM_TYPE_Q8_0: return (float)(int8_t)p[2 + i] * half_at(p);
    case FM_TYPE_MXFP4: return (float)ldexp(e2m1[bits(p + 1 + j, nibble, 4)], p[0] - 127);
    case FM_TYPE_Q2_K: {
        const int q = bits(p + 16 + 32 * n + l, r / 32 * 2, 2), k = i / 16;
        return half_at(p + 80) * (float)(p[k] & 15) * (float)q -
               half_at(p + 82) * (float)(p[k] >> 4);
    }
    case FM_TYPE_Q3_K: {
        const int j2 = r / 32, k = i / 16;
        const int q = bits(p + 32 + 32 * n + l, 2 * j2, 2) - (bits(p + l, 4 * n + j2, 1) ? 0 : 4);
        const int low = k < 8 ? p[96 + k] & 15 : p[96 + k - 8] >> 4;
        const int high = bits(p + 96 + 8 + k % 4, 2 * (k / 4), 2);
        return half_at(p + 108) * (float)(low + 16 * high - 32) * (float)q;
    }
    case FM_TYPE_Q4_K:
        return value_k_6bit(p, i, bits(p + 16 + i / 64 * 32 + i % 32, i / 32 % 2 * 4, 4));
    case FM_TYPE_Q5_K:
        return value_k_6bit(p, i, bits(p + 48 + i / 64 * 32 + i % 32, i / 32 % 2 * 4, 4) +
                                      16 * bits(p + 16 + i % 32, i / 32, 1));
    case FM_TYPE_IQ4_NL: return half_at(p) * (float)iq4[bits(p + 2 + j, nibble, 4)];
    case FM_TYPE_IQ4_XS: {
        const int k = i / 32;
        const int sc = bits(p + 4 + k / 2, k % 2 * 4, 4) + 16 * bits(p + 2 + k / 4, k % 4 * 2, 2);
        return half_at(p) * (float)(sc - 32) * (float)iq4[bits(p + 8 + 16 * k + j, nibble, 4)];
    }
    case FM_TYPE_Q6_K: {
        const int c = r / 32;
        const int low = bits(p + 64 * n + 32 * (c % 2) + l, c / 2 * 4, 4);
        const int q = low + 16 * bits(p + 128 + 32 * n + l, 2 * c, 2) - 32;
        return half_at(p + 208) * (float)(int8_t)p[192 + i / 16] * (float)q;
    }
    default: fail_msg("type %u", type); return 0;
    }
}

static int same_value(float a, float b)
{
    return (isnan(a) && isnan(b)) || a == b;
}

static int has_code_book(uint32_t type)
{
    switch (type) {
    case FM_TYPE_IQ3_S:
    case FM_TYPE_IQ3_XXS:
    case FM_TYPE_IQ2_S:
    case FM_TYPE_IQ2_XS:
    case FM_TYPE_IQ2_XXS:
    case FM_TYPE_IQ1_M:
    case FM_TYPE_IQ1_S: return 1;
    default: return 0;
    }
}

static void decode_random_bytes_give_the_formats_values(void **state)
{
    (void)state;
    for (int t = 0; t < N_QUANTIZED; t++) {
        const fm_type_traits *const type = fm_type_get(quantized[t]);
        if (has_code_book(type->id)) continue; /* the fixtures read the books, entry by entry */
        uint8_t block[256];
        float got[256];
        for (int rep = 0; rep < 2000; rep++) {
            for (int i = 0; i < type->block_bytes; i++) block[i] = random_byte();
            if (type->id == FM_TYPE_MXFP4) block[0] = (uint8_t)rep; /* every exponent */
            type->decode(got, block, type->block_elems);
            for (int i = 0; i < type->block_elems; i++)
                if (!same_value(got[i], value_at(type->id, block, i)))
                    fail_msg("%s element %d: %g, expected %g", type->name, i, (double)got[i],
                             (double)value_at(type->id, block, i));
        }
    }
}

/* Size in *n; the caller frees. */
static void *read_fixture(const char *type, const char *part, size_t *n)
{
    char path[128];
    snprintf(path, sizeof path, "tests/vectors/quant/%s.%s", type, part);
    FILE *const f = fopen(path, "rb");
    if (!f) fail_msg("%s: cannot open (run from the root of the tree)", path);
    uint8_t *const data = malloc(65536);
    *n = fread(data, 1, 65536, f);
    fclose(f);
    return data;
}

static void decode_blocks_as_the_gguf_package_does(void **state)
{
    (void)state;
    static const uint32_t floats[] = {FM_TYPE_F32, FM_TYPE_F16, FM_TYPE_BF16};
    for (int t = 0; t < N_QUANTIZED + 3; t++) {
        const fm_type_traits *const type =
            fm_type_get(t < N_QUANTIZED ? quantized[t] : floats[t - N_QUANTIZED]);
        size_t n_bytes, n_value;
        void *const blocks = read_fixture(type->name, "blocks", &n_bytes);
        float *const want = read_fixture(type->name, "values", &n_value);
        n_value /= sizeof *want;
        assert_true(n_value > 0);
        assert_int_equal(n_bytes, fm_type_row_bytes(type, (int64_t)n_value));
        float *const got = malloc(n_value * sizeof *got);
        type->decode(got, blocks, (int64_t)n_value);
        for (size_t i = 0; i < n_value; i++)
            if (!same_value(got[i], want[i]))
                fail_msg("%s value %zu: %.9g, expected %.9g", type->name, i, (double)got[i],
                         (double)want[i]);
        free(blocks), free(want), free(got);
    }
}

/* ---- table ------------------------------------------------------------------------------- */

static void type_table_agrees_with_the_list_of_names_and_sizes(void **state)
{
    (void)state;
    for (uint32_t id = 0; id < 64; id++) {
        const fm_type_traits *const t = fm_type_get(id);
        if (!t) continue;
        uint32_t elems, bytes;
        assert_int_equal(t->id, id);
        assert_string_equal(t->name, fm_type_name(id));
        assert_true(fm_type_geometry(id, &elems, &bytes));
        assert_int_equal(elems, t->block_elems);
        assert_int_equal(bytes, t->block_bytes);
        int covered = 0;
        for (int f = 0; f < t->n_field; f++) {
            assert_int_equal(t->field[f].offset, covered);
            assert_int_equal(t->field[f].bytes % t->field[f].unit, 0);
            covered += t->field[f].bytes;
        }
        assert_int_equal(covered, t->n_field ? t->block_bytes : 0);
    }
    uint32_t elems, bytes;
    assert_null(fm_type_get(34));
    assert_string_equal(fm_type_name(34), "TQ1_0");
    assert_true(fm_type_geometry(34, &elems, &bytes));
    assert_int_equal(elems, 256);
    assert_int_equal(bytes, 54);
    assert_null(fm_type_name(1000));
    assert_false(fm_type_geometry(1000, &elems, &bytes));
    assert_false(fm_type_geometry(4, &elems, &bytes)); /* withdrawn */
}

static void row_bytes_refuse_broken_rows_and_overflow(void **state)
{
    (void)state;
    const fm_type_traits *const q4_k = fm_type_get(FM_TYPE_Q4_K);
    assert_int_equal(fm_type_row_bytes(q4_k, 2048), 1152);
    assert_int_equal(fm_type_row_bytes(q4_k, 2049), 0);
    assert_int_equal(fm_type_row_bytes(q4_k, 0), 0);
    assert_int_equal(fm_type_row_bytes(q4_k, -256), 0);
    assert_int_equal(fm_type_row_bytes(fm_type_get(FM_TYPE_F32), INT64_MAX), 0);
}

static void act_bytes_count_whole_blocks(void **state)
{
    (void)state;
    assert_int_equal(fm_act_bytes(FM_ACT_F32, 256), 1024);
    assert_int_equal(fm_act_bytes(FM_ACT_I15_32, 256), 608);
    assert_int_equal(fm_act_bytes(FM_ACT_I13_256, 512), 1248);
}

/* ---- panels ------------------------------------------------------------------------------ */

/* The layout as quant.h describes it, byte by byte. */
static void check_panel_bytes(const fm_type_traits *t, const uint8_t *packed, const uint8_t *rows,
                              uint64_t row_bytes)
{
    for (uint64_t b = 0; b < row_bytes / t->block_bytes; b++)
        for (int f = 0; f < t->n_field; f++)
            for (int r = 0; r < 16; r++)
                for (int i = 0; i < t->field[f].bytes; i++) {
                    const int unit = t->field[f].unit, u = i / unit;
                    const size_t at = b * 16 * t->block_bytes + (size_t)t->field[f].offset * 16 +
                                      (size_t)((u * 16 + r) * unit + i % unit);
                    const size_t from = (size_t)r * row_bytes + b * t->block_bytes +
                                        (size_t)(t->field[f].offset + i);
                    assert_int_equal(packed[at], rows[from]);
                }
}

static void panels_keep_every_row_for_any_row_count_and_distance(void **state)
{
    (void)state;
    static const int64_t row_counts[] = {1, 15, 16, 17, 40};
    for (int t = 0; t < N_QUANTIZED; t++) {
        const fm_type_traits *const type = fm_type_get(quantized[t]);
        const int64_t n_in = type->block_elems * 3;
        const uint64_t row_bytes = fm_type_row_bytes(type, n_in);
        for (int c = 0; c < 5; c++) {
            const int64_t n_out = row_counts[c];
            const size_t total = (size_t)n_out * row_bytes;
            /* How far the packed matrix lies before its source; the last is a separate block. */
            const size_t shifts[] = {0, 1, 511, row_bytes, 16 * row_bytes - 1, 16 * row_bytes,
                                     16 * row_bytes + 77, 2 * total};
            uint8_t *const rows = malloc(total), *const scratch = malloc(16 * row_bytes);
            for (size_t i = 0; i < total; i++) rows[i] = random_byte();
            for (size_t s = 0; s < sizeof shifts / sizeof shifts[0]; s++) {
                uint8_t *const space = malloc(total + shifts[s]);
                memcpy(space + shifts[s], rows, total);
                fm_pack_panels(type, space, space + shifts[s], n_out, n_in, scratch);
                const size_t whole = (size_t)(n_out / 16) * 16 * row_bytes;
                for (size_t at = 0; at < whole; at += 16 * row_bytes)
                    check_panel_bytes(type, space + at, rows + at, row_bytes);
                if (whole < total) assert_memory_equal(space + whole, rows + whole, total - whole);
                free(space);
            }
            free(rows), free(scratch);
        }
    }
}

static void panels_packed_one_by_one_equal_the_whole(void **state)
{
    (void)state;
    const fm_type_traits *const type = fm_type_get(FM_TYPE_Q6_K);
    const uint64_t row_bytes = fm_type_row_bytes(type, 512);
    const size_t total = 40 * row_bytes, panel = 16 * row_bytes;
    uint8_t *const a = malloc(total), *const b = malloc(total), *const scratch = malloc(panel);
    for (size_t i = 0; i < total; i++) a[i] = b[i] = random_byte();
    fm_pack_panels(type, a, a, 40, 512, scratch);
    fm_pack_panels(type, b, b, 16, 512, scratch);
    fm_pack_panels(type, b + panel, b + panel, 16, 512, scratch);
    assert_memory_equal(a, b, total);
    free(a), free(b), free(scratch);
}

static void types_without_panels_move_unchanged(void **state)
{
    (void)state;
    const fm_type_traits *const type = fm_type_get(FM_TYPE_F16);
    uint8_t space[20 * 2 * 5 + 3], want[sizeof space];
    for (size_t i = 0; i < sizeof space; i++) space[i] = want[i] = (uint8_t)i;
    fm_pack_panels(type, space, space + 3, 20, 5, NULL);
    assert_memory_equal(space, want + 3, sizeof space - 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_every_half_becomes_its_exact_value),
        cmocka_unit_test(f16_rounding_is_to_nearest_with_ties_to_even),
        cmocka_unit_test(decode_random_bytes_give_the_formats_values),
        cmocka_unit_test(decode_blocks_as_the_gguf_package_does),
        cmocka_unit_test(type_table_agrees_with_the_list_of_names_and_sizes),
        cmocka_unit_test(row_bytes_refuse_broken_rows_and_overflow),
        cmocka_unit_test(act_bytes_count_whole_blocks),
        cmocka_unit_test(panels_keep_every_row_for_any_row_count_and_distance),
        cmocka_unit_test(panels_packed_one_by_one_equal_the_whole),
        cmocka_unit_test(types_without_panels_move_unchanged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
