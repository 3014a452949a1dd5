/* Formats of several planes: decoding against MLX, compressed-tensors, torch and transformers
 * (tests/vectors/planar, made by tools/oracle/planar_vectors.py), panels, and products that must be the same bits in every
 * set, layout and number of tokens. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/kernel.h"
#include "kernel/kernel_internal.h"
#include "quant/planar.h"
#include "support/fixture.h"
#include "support/kernel_sets.h"
#include "support/random_weights.h"

enum { ROWS = 37, COLS = 128, TOKENS = 9, PLANE_BYTES = 32768 };

typedef struct {
    const char *name;
    fm_code code;
    uint32_t group;
    fm_scale scale;
} vector;

// clang-format off
static const vector vectors[] = {
    {"MLX2_g32_F32", FM_CODE_U2, 32, FM_SCALE_F32}, {"MLX2_g64_F32", FM_CODE_U2, 64, FM_SCALE_F32},
    {"MLX2_g128_F32", FM_CODE_U2, 128, FM_SCALE_F32}, {"MLX3_g32_F32", FM_CODE_U3, 32, FM_SCALE_F32},
    {"MLX3_g64_F32", FM_CODE_U3, 64, FM_SCALE_F32}, {"MLX3_g128_F32", FM_CODE_U3, 128, FM_SCALE_F32},
    {"MLX4_g32_BF16", FM_CODE_U4, 32, FM_SCALE_BF16}, {"MLX4_g64_BF16", FM_CODE_U4, 64, FM_SCALE_BF16},
    {"MLX4_g128_BF16", FM_CODE_U4, 128, FM_SCALE_BF16}, {"MLX5_g32_F32", FM_CODE_U5, 32, FM_SCALE_F32},
    {"MLX5_g64_F32", FM_CODE_U5, 64, FM_SCALE_F32}, {"MLX5_g128_F32", FM_CODE_U5, 128, FM_SCALE_F32},
    {"MLX6_g32_F32", FM_CODE_U6, 32, FM_SCALE_F32}, {"MLX6_g64_F32", FM_CODE_U6, 64, FM_SCALE_F32},
    {"MLX6_g128_F32", FM_CODE_U6, 128, FM_SCALE_F32}, {"MLX8_g32_F32", FM_CODE_U8, 32, FM_SCALE_F32},
    {"MLX8_g64_F32", FM_CODE_U8, 64, FM_SCALE_F32}, {"MLX8_g128_F32", FM_CODE_U8, 128, FM_SCALE_F32},
    {"INT4_g32_F16", FM_CODE_I4, 32, FM_SCALE_F16}, {"INT4_g64_BF16", FM_CODE_I4, 64, FM_SCALE_BF16},
    {"INT4_g128_BF16", FM_CODE_I4, 128, FM_SCALE_BF16}, {"FP8_BF16", FM_CODE_E4M3, 128, FM_SCALE_BF16},
    {"FP8_E8M0", FM_CODE_E4M3, 128, FM_SCALE_E8M0}, {"FP8_row_F32", FM_CODE_E4M3, 32, FM_SCALE_F32},
    {"FP8_row_F16", FM_CODE_E4M3, 32, FM_SCALE_F16},
    {"INT4_g32_BF16", FM_CODE_I4, 32, FM_SCALE_BF16}, {"FP8_row_BF16", FM_CODE_E4M3, 32, FM_SCALE_BF16},
    {"FP8_F32", FM_CODE_E4M3, 128, FM_SCALE_F32}, {"MXFP4", FM_CODE_E2M1, 32, FM_SCALE_E8M0},
};
// clang-format on
enum { N_VECTOR = sizeof vectors / sizeof vectors[0] };

typedef struct {
    const fm_type_traits *type;
    uint8_t data[2][PLANE_BYTES]; /* rows, panels: plane after plane */
    uint8_t *plane[2][FM_MAX_PLANES];
    float values[ROWS * COLS];
} matrix;

static size_t read_file(const char *name, const char *suffix, void *out, size_t room)
{
    char path[200];
    snprintf(path, sizeof path, "tests/vectors/planar/%s%s", name, suffix);
    FILE *f = fopen(source_path(path), "rb");
    if (!f) fail_msg("cannot read %s", path);
    const size_t n = fread(out, 1, room, f);
    fclose(f);
    return n;
}

static void load(matrix *m, const vector *v)
{
    m->type = fm_type_get(fm_planar_id(v->code, v->group, v->scale));
    assert_non_null(m->type);
    const size_t n = read_file(v->name, ".planes", m->data[0], PLANE_BYTES);
    memcpy(m->data[1], m->data[0], n);
    assert_int_equal(read_file(v->name, ".values", m->values, sizeof m->values), sizeof m->values);
    size_t at = 0;
    for (int k = 0; k < fm_type_n_plane(m->type); k++) {
        for (int layout = 0; layout < 2; layout++) m->plane[layout][k] = m->data[layout] + at;
        at += (size_t)fm_plane_rows(m->type, k, ROWS) * fm_plane_row_bytes(m->type, k, COLS);
    }
    assert_int_equal(at, n);
    static uint8_t scratch[16 * 4 * COLS];
    fm_pack_planes(m->type, m->plane[1], 0, ROWS, COLS, scratch);
}

static fm_matrix view(const matrix *m, int layout)
{
    return (fm_matrix){
        .type = m->type,
        .data = m->plane[layout][0],
        .n_out = ROWS,
        .n_in = COLS,
        .row_bytes = fm_plane_row_bytes(m->type, 0, COLS),
        .layout = layout && m->type->n_field ? FM_LAYOUT_PANELS : FM_LAYOUT_ROWS,
        .aux = {m->plane[layout][1], m->plane[layout][2]},
        .aux_row_bytes = fm_plane_row_bytes(m->type, 1, COLS),
    };
}

static void values_are_those_of_the_public_tools(void **state)
{
    (void)state;
    static matrix m;
    for (int i = 0; i < N_VECTOR; i++) {
        load(&m, &vectors[i]);
        for (int r = 0; r < ROWS; r++) {
            float row[COLS];
            const void *plane[FM_MAX_PLANES] = {NULL};
            for (int k = 0; k < fm_type_n_plane(m.type); k++)
                plane[k] = m.plane[0][k] + (uint64_t)(fm_plane_rows(m.type, k, r + 1) - 1) *
                                               fm_plane_row_bytes(m.type, k, COLS);
            fm_decode_planes(m.type, row, plane, COLS);
            for (int layout = 0; layout < 2; layout++) {
                const fm_matrix w = view(&m, layout);
                float again[COLS];
                fm_matrix_row(again, &w, r);
                for (int c = 0; c < COLS; c++)
                    assert_true(again[c] == row[c] || (isnan(again[c]) && isnan(row[c])));
            }
            for (int c = 0; c < COLS; c++) {
                const float want = m.values[r * COLS + c];
                if (isnan(want) && isnan(row[c])) continue;
                /* mlx fuses scale * q + bias: one rounding less */
                const float slack = m.type->n_plane == 3 ? 4.0f * 0x1p-22f : 0.0f;
                if (!(fabsf(row[c] - want) <= slack))
                    fail_msg("%s: row %d column %d: %.9g, expected %.9g", vectors[i].name, r, c,
                             (double)row[c], (double)want);
            }
        }
    }
}

/* E4M3: COLS has one scale in either form. */
static float row_scale(const matrix *m, int row)
{
    return fm_scale_load((fm_scale)m->type->scale,
                         m->plane[0][1] + (uint64_t)row / m->type->rows_per_scale *
                                              fm_plane_row_bytes(m->type, 1, COLS));
}

/* y [TOKENS][ROWS] in calls of n_tok tokens. */
static void product(float *y, const fm_kernels *k, const fm_matrix *w, const float *x, int n_tok)
{
    static _Alignas(64) unsigned char form[TOKENS][4096];
    const fm_act act = k->act_form(w->type);
    for (int t = 0; t < TOKENS; t++) k->quantize(act, form[t], x + t * COLS, COLS);
    for (int t0 = 0; t0 < TOKENS; t0 += n_tok) {
        const int n = TOKENS - t0 < n_tok ? TOKENS - t0 : n_tok;
        const void *a[TOKENS];
        float *out[TOKENS];
        for (int t = 0; t < n; t++) {
            a[t] = form[t0 + t];
            out[t] = y + (t0 + t) * ROWS;
        }
        k->matmul(w, 0, 16, a, out, n);
        k->matmul(w, 16, ROWS, a, out, n);
    }
}

/* ---- sets -------------------------------------------------------------------------------- */

/* Every set, and the E4M3 products that avx512 has for processors without VBMI; ends with NULL. */
static const fm_kernels *const *sets_for_e4m3(void)
{
    static const fm_kernels *sets[MAX_KERNEL_SETS + 1];
    static fm_kernels plain;
    const fm_kernels *beside = NULL;
    if (sets[0]) return sets;
#if defined(__x86_64__)
    if (fm_kernels_pick("avx512", NULL)) {
        plain = *fm_kernels_pick("avx512", NULL);
        plain.name = "avx512 without VBMI";
        plain.matmul = fm_matmul_e4m3_avx512;
        beside = &plain;
    }
#else
    (void)plain;
#endif
    list_kernel_sets(sets, beside);
    return sets;
}

/* Every set, and the products of many tokens that avx512 has for other processors than this one. */
static const fm_kernels *const *sets_for_codes(void)
{
    static const fm_kernels *sets[MAX_KERNEL_SETS + 1];
    static fm_kernels other;
    const fm_kernels *beside = NULL;
    if (sets[0]) return sets;
#if defined(__x86_64__)
    if (fm_kernels_pick("avx512", NULL)) {
        other = *fm_kernels_pick("avx512", NULL);
        other.name = "avx512 for another processor";
        other.matmul = other.matmul == fm_product_halved_avx512 ? fm_product_words_avx512
                                                                    : fm_product_halved_avx512;
        beside = &other;
    }
#else
    (void)other;
#endif
    list_kernel_sets(sets, beside);
    return sets;
}

static const fm_kernels *const *sets_for(const fm_type_traits *type)
{
    return type->code == FM_CODE_E4M3 ? sets_for_e4m3() : sets_for_codes();
}

static void products_agree_in_every_set_layout_and_batch(void **state)
{
    (void)state;
    static matrix m;
    static float x[TOKENS * COLS], want[TOKENS * ROWS], got[TOKENS * ROWS];
    for (int i = 0; i < TOKENS * COLS; i++) x[i] = sinf((float)(i * i % 1009)) * (float)(1 + i % 7);
    const fm_kernels *generic = fm_kernels_pick("generic", NULL);
    for (int i = 0; i < N_VECTOR; i++) {
        load(&m, &vectors[i]);
        /* NaN codes are for decoding; here every product shall be a number. */
        for (int c = 0; vectors[i].code == FM_CODE_E4M3 && c < ROWS * COLS; c++)
            if ((m.plane[0][0][c] & 0x7f) == 0x7f) {
                m.plane[0][0][c] = m.plane[1][0][c] = 0x41;
                m.values[c] = fm_e4m3_to_f32(0x41) * row_scale(&m, c / COLS);
            }
        const fm_matrix rows = view(&m, 0);
        product(want, generic, &rows, x, TOKENS);
        for (int t = 0; t < TOKENS; t++)
            for (int r = 0; r < ROWS; r++) {
                double exact = 0, size = 0;
                for (int c = 0; c < COLS; c++) {
                    const double p = (double)m.values[r * COLS + c] * x[t * COLS + c];
                    exact += p;
                    size += fabs(p);
                }
                if (!(fabs(want[t * ROWS + r] - exact) <= 3e-4 * size))
                    fail_msg("%s: %g, expected %g", vectors[i].name, (double)want[t * ROWS + r],
                             exact);
            }
        for (const fm_kernels *const *set = sets_for(m.type); *set; set++) {
            const fm_kernels *const k = *set;
            if (strcmp(k->name, "reference") == 0) continue;
            const bool is_float = m.type->act == FM_ACT_F32;
            for (int layout = 0; layout < 2; layout++) {
                const fm_matrix w = view(&m, layout);
                for (int n_tok = 1; n_tok <= TOKENS; n_tok++) {
                    product(got, k, &w, x, n_tok);
                    /* A float format: the vector sets fuse, so that their first result is the measure. */
                    if (is_float && layout == 0 && n_tok == 1 && k != generic) {
                        for (int j = 0; j < TOKENS * ROWS; j++)
                            assert_true(fabsf(got[j] - want[j]) <= 1e-5f * fabsf(want[j]) + 1e-2f);
                        memcpy(want, got, sizeof want);
                        continue;
                    }
                    if (is_float && k == generic) continue;
                    if (memcmp(got, want, sizeof want) != 0)
                        fail_msg("%s: %s, layout %d, %d tokens: other bits", vectors[i].name, k->name,
                                 layout, n_tok);
                }
            }
        }
    }
}

static void nan_weights_make_nan_products(void **state)
{
    (void)state;
    enum { N_TOK = 7 };
    static matrix m;
    static float x[COLS], y[N_TOK][ROWS];
    for (int i = 0; i < COLS; i++) x[i] = 1.0f;
    int n = 0;
    for (int i = 0; i < N_VECTOR; i++) {
        if (vectors[i].code != FM_CODE_E4M3) continue;
        n++;
        load(&m, &vectors[i]);
        const fm_matrix w = view(&m, 0);
        for (const fm_kernels *const *set = sets_for_e4m3(); *set; set++) {
            for (int n_tok = 1; n_tok <= N_TOK; n_tok++) {
                const void *act[N_TOK];
                float *out[N_TOK];
                memset(y, 0, sizeof y);
                for (int t = 0; t < n_tok; t++) {
                    act[t] = x;
                    out[t] = y[t];
                }
                (*set)->matmul(&w, 0, ROWS, act, out, n_tok);
                for (int t = 0; t < n_tok; t++)
                    for (int r = 0; r < ROWS; r++)
                        assert_true(isnan(y[t][r])); /* every row has a code 0x7f or 0xff */
            }
        }
    }
    assert_int_equal(n, 6);
}

/* A matrix that begins inside the rows of a scale has the products of those rows. */
static void scales_of_many_rows_may_begin_before_the_matrix(void **state)
{
    (void)state;
    enum { ALL = 300, FIRST = 112, PART = ALL - FIRST };
    static uint8_t codes[ALL * COLS];
    static float x[TOKENS * COLS], whole[TOKENS][ALL], part[TOKENS][PART];
    static const float scales[3] = {0.5f, 3.0f, -0.125f}; /* of 128 rows each */
    for (int i = 0; i < ALL * COLS; i++) {
        codes[i] = (uint8_t)(i * 37 + i / 251);
        if ((codes[i] & 0x7f) == 0x7f) codes[i] = 0x41;
    }
    for (int i = 0; i < TOKENS * COLS; i++) x[i] = (float)(i % 13 - 6) / 7.0f;
    const fm_type_traits *type = fm_type_get(fm_planar_id(FM_CODE_E4M3, 128, FM_SCALE_F32));
    const fm_matrix all = {.type = type,
                           .data = codes,
                           .n_out = ALL,
                           .n_in = COLS,
                           .row_bytes = COLS,
                           .aux = {scales, NULL},
                           .aux_row_bytes = sizeof scales[0]};
    fm_matrix below = all;
    below.data = codes + FIRST * COLS;
    below.scale_row = FIRST;
    below.n_out = PART;
    const void *act[TOKENS];
    float *out_all[TOKENS], *out_part[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        act[t] = x + t * COLS;
        out_all[t] = whole[t];
        out_part[t] = part[t];
    }
    for (const fm_kernels *const *set = sets_for_e4m3(); *set; set++) {
        const fm_kernels *const k = *set;
        k->matmul(&all, 0, ALL, act, out_all, TOKENS);
        k->matmul(&below, 0, PART, act, out_part, TOKENS);
        for (int t = 0; t < TOKENS; t++)
            assert_memory_equal(whole[t] + FIRST, part[t], sizeof part[t]);
        assert_true(whole[0][127] != 0.0f && whole[0][128] != 0.0f);
    }
}

/* In memory of their own, so that a byte beside them is found. */
static void *exactly(size_t n)
{
    void *p = malloc(n);
    assert_non_null(p);
    return p;
}

/* Rows of several blocks, more tokens than are kept at a time: every set that fuses, every batch, the same bits. */
static void e4m3_rows_of_many_blocks_agree_in_every_batch(void **state)
{
    (void)state;
    enum { N_OUT = 23, N_IN = 5 * 128, N_TOK = 70 };
    static float want[N_TOK][N_OUT], got[N_TOK][N_OUT];
    static const vector forms[] = {{"FP8_F32", FM_CODE_E4M3, 128, FM_SCALE_F32},
                                   {"FP8_BF16", FM_CODE_E4M3, 128, FM_SCALE_BF16},
                                   {"FP8_E8M0", FM_CODE_E4M3, 128, FM_SCALE_E8M0},
                                   {"FP8_row_F32", FM_CODE_E4M3, 32, FM_SCALE_F32},
                                   {"FP8_row_F16", FM_CODE_E4M3, 32, FM_SCALE_F16},
                                   {"FP8_row_BF16", FM_CODE_E4M3, 32, FM_SCALE_BF16}};
    static const int batches[] = {1, 2, 3, 4, 5, 64, 65, N_TOK};
    random_start(77);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const fm_type_traits *type =
            fm_type_get(fm_planar_id(forms[i].code, forms[i].group, forms[i].scale));
        const int64_t n_in = forms[i].group == 32 ? N_IN - 32 : N_IN; /* odd numbers of blocks */
        const size_t scale_bytes =
            fm_plane_row_bytes(type, 1, n_in) * (size_t)fm_plane_rows(type, 1, N_OUT);
        uint8_t *const codes = exactly((size_t)(N_OUT * n_in)), *const scales = exactly(scale_bytes);
        uint8_t *const plane[] = {codes, scales};
        float *x[N_TOK];
        fill_planes(type, plane, N_OUT, n_in);
        for (int t = 0; t < N_TOK; t++) {
            x[t] = exactly((size_t)n_in * sizeof *x[t]);
            fill_activations(x[t], n_in, X_RANDOM);
        }
        const fm_matrix w = {.type = type,
                             .data = codes,
                             .n_out = N_OUT,
                             .n_in = n_in,
                             .row_bytes = (uint64_t)n_in,
                             .aux = {scales, NULL},
                             .aux_row_bytes = fm_plane_row_bytes(type, 1, n_in)};
        bool have_fused = false;
        for (const fm_kernels *const *set = sets_for_e4m3(); *set; set++) {
            const fm_kernels *const k = *set;
            if (strcmp(k->name, "reference") == 0) continue;
            const bool fuses = strcmp(k->name, "generic") != 0;
            for (size_t b = 0; b < sizeof batches / sizeof batches[0]; b++) {
                memset(got, 0xff, sizeof got);
                for (int t = 0, n; t < N_TOK; t += n) {
                    const void *act[N_TOK];
                    float *y[N_TOK];
                    n = N_TOK - t < batches[b] ? N_TOK - t : batches[b];
                    for (int j = 0; j < n; j++) {
                        act[j] = x[t + j];
                        y[j] = got[t + j];
                    }
                    k->matmul(&w, 0, 16, act, y, n);
                    k->matmul(&w, 16, N_OUT, act, y, n);
                }
                if (fuses && !have_fused) {
                    memcpy(want, got, sizeof want);
                    have_fused = true;
                }
                if (fuses && memcmp(got, want, sizeof want) != 0)
                    fail_msg("%s: %s, %d tokens: other bits", forms[i].name, k->name, batches[b]);
                for (int j = 0; !fuses && have_fused && j < N_TOK * N_OUT; j++) {
                    const float a = (&got[0][0])[j], e = (&want[0][0])[j];
                    if (!(fabsf(a - e) <= 1e-4f * fabsf(e) + 1e-3f * fabsf(want[0][0])))
                        fail_msg("%s: %g, expected %g", forms[i].name, (double)a, (double)e);
                }
            }
        }
        for (int t = 0; t < N_TOK; t++) free(x[t]);
        free(codes);
        free(scales);
    }
}

enum { CODE_ROWS = 37, CODE_COLS = 9 * 128, CODE_TOKENS = 66 };

/* Products of several tokens with whole panels leave the lower plane of activations of 8 bits out. They would have the
 * right bits with it, too: it is 0. So here it is not. */
static void check_lower_plane_is_left_out(const fm_matrix *panels, const void *const *act,
                                          float (*want)[CODE_ROWS])
{
    enum { BATCH = 8, N_ROW = CODE_ROWS / FM_PANEL_ROWS * FM_PANEL_ROWS };
    const size_t bytes = fm_act_bytes(FM_ACT_I15_32, panels->n_in);
    for (const char *const *name = fm_kernels_available(); *name; name++) {
        if (strcmp(*name, "reference") == 0 || strcmp(*name, "generic") == 0) continue;
        const bool by_words = strcmp(*name, "avx2") == 0 || strcmp(*name, "avxvnni") == 0;
        if (by_words && panels->type->code == FM_CODE_U8) continue;
        const fm_kernels *const k = fm_kernels_int8(fm_kernels_pick(*name, NULL));
        fm_act_i15_32 *changed[BATCH];
        float got[BATCH][CODE_ROWS], *y[BATCH];
        for (int t = 0; t < BATCH; t++) {
            changed[t] = exactly(bytes);
            memcpy(changed[t], act[t], bytes);
            for (int64_t b = 0; b < panels->n_in / 32; b++)
                memset(changed[t][b].lo, 0x33, sizeof changed[t][b].lo);
            y[t] = got[t];
        }
        k->matmul(panels, 0, N_ROW, (const void *const *)changed, y, BATCH);
        for (int t = 0; t < BATCH; t++) {
            assert_memory_equal(got[t], want[t], N_ROW * sizeof got[0][0]);
            free(changed[t]);
        }
    }
}

/* One type: products in every set, layout and batch have the bits of plain rows. */
static void check_codes(const fm_type_traits *type, const void *const *act, int64_t n_in, bool full,
                        bool int8)
{
    static float want[CODE_TOKENS][CODE_ROWS], got[CODE_TOKENS][CODE_ROWS];
    static const int batches[] = {1, 3, 8, 31, 64};
    const int n_plane = fm_type_n_plane(type);
    fm_matrix w[2];
    uint8_t *plane[2][FM_MAX_PLANES] = {{NULL}};
    for (int layout = 0; layout < 2; layout++) {
        for (int k = 0; k < n_plane; k++) {
            const size_t n = CODE_ROWS * (size_t)fm_plane_row_bytes(type, k, n_in);
            plane[layout][k] = exactly(n);
            if (layout == 1) memcpy(plane[1][k], plane[0][k], n);
        }
        if (layout == 0) fill_planes(type, plane[0], CODE_ROWS, n_in);
        if (layout == 0 && full)
            memset(plane[0][0], 0xff, CODE_ROWS * (size_t)fm_plane_row_bytes(type, 0, n_in));
        w[layout] = (fm_matrix){.type = type,
                                .data = plane[layout][0],
                                .n_out = CODE_ROWS,
                                .n_in = n_in,
                                .row_bytes = fm_plane_row_bytes(type, 0, n_in),
                                .layout = layout ? FM_LAYOUT_PANELS : FM_LAYOUT_ROWS,
                                .aux = {plane[layout][1], plane[layout][2]},
                                .aux_row_bytes = fm_plane_row_bytes(type, 1, n_in)};
    }
    void *const scratch = exactly(FM_PANEL_ROWS * (size_t)fm_plane_row_bytes(type, 0, n_in));
    fm_pack_planes(type, plane[1], 0, CODE_ROWS, n_in, scratch);
    free(scratch);
    float *y[CODE_TOKENS];
    for (int t = 0; t < CODE_TOKENS; t++) y[t] = want[t];
    fm_kernels_pick("generic", NULL)->matmul(&w[0], 0, CODE_ROWS, act, y, CODE_TOKENS);
    for (int t = 0; t < CODE_TOKENS; t++) y[t] = got[t];
    if (int8) check_lower_plane_is_left_out(&w[1], act, want);
    for (const fm_kernels *const *set = sets_for(type); *set; set++) {
        const fm_kernels *const k = int8 ? fm_kernels_int8(*set) : *set;
        /* One of these has no activations of 8 bits of its own. */
        if (!k || strcmp((*set)->name, "reference") == 0) continue;
        for (size_t b = 0; b < 2 * sizeof batches / sizeof batches[0]; b++) {
            memset(got, 0xff, sizeof got);
            for (int t = 0, n; t < CODE_TOKENS; t += n) {
                n = CODE_TOKENS - t < batches[b / 2] ? CODE_TOKENS - t : batches[b / 2];
                k->matmul(&w[b % 2], 0, 16, act + t, y + t, n);
                k->matmul(&w[b % 2], 16, CODE_ROWS, act + t, y + t, n);
            }
            if (memcmp(got, want, sizeof want) != 0)
                fail_msg("%s scale %d%s: %s%s, layout %d, %d tokens: other bits", type->name,
                         type->scale, full ? " all bits set" : "", (*set)->name, int8 ? " int8" : "",
                         (int)(b % 2), batches[b / 2]);
        }
    }
    for (int k = 0; k < n_plane; k++) {
        free(plane[0][k]);
        free(plane[1][k]);
    }
}

/* Rows of several groups, more tokens than are kept at a time; codes and activations at their limits. */
static void code_rows_of_many_blocks_agree_in_every_set_layout_and_batch(void **state)
{
    (void)state;
    static float x[CODE_TOKENS][CODE_COLS];
    random_start(79);
    for (int t = 0; t < CODE_TOKENS; t++) {
        fill_activations(x[t], CODE_COLS, X_RANDOM);
        /* Beside 1.0 this is 16192 = 127 * 128 - 64, and its negative -126 * 128 - 64: the largest planes. */
        for (int c = 0; c < CODE_COLS && t % 3 != 0; c++)
            x[t][c] = c % 32 == 7 ? 1.0f : (t % 3 == 1 ? 16192.0f : -16192.0f) / 16256.0f;
    }
    int n_type = 0;
    for (uint32_t id = FM_PLANAR_FIRST_ID; id < FM_PLANAR_FIRST_ID + 256; id++) {
        const fm_type_traits *const type = fm_type_get(id);
        if (!type || type->code == FM_CODE_E4M3) continue;
        n_type++;
        const int64_t n_in = /* an odd number of groups */
            CODE_COLS - (type->block_elems < 128 ? type->block_elems : 0);
        for (int int8 = 0; int8 < 2; int8++) {
            const void *act[CODE_TOKENS];
            const fm_kernels *generic = fm_kernels_pick("generic", NULL);
            if (int8) generic = fm_kernels_int8(generic);
            for (int t = 0; t < CODE_TOKENS; t++) {
                void *const form = exactly(fm_act_bytes(type->act, n_in));
                generic->quantize(type->act, form, x[t], n_in);
                act[t] = form;
            }
            const fm_act_i15_32 *const first = act[1], *const second = act[2];
            const int high = int8 ? 126 : 127, low = int8 ? 0 : -64; /* 126.5 to even */
            assert_true(first->hi[0] == high && first->lo[0] == low && second->lo[0] == low);
            check_codes(type, act, n_in, false, int8);
            check_codes(type, act, n_in, true, int8);
            for (int t = 0; t < CODE_TOKENS; t++) free((void *)(uintptr_t)act[t]);
        }
    }
    assert_int_equal(n_type, 7 * 9 + 1);
}

static void ids_are_unique_and_found(void **state)
{
    (void)state;
    int n = 0;
    for (uint32_t id = FM_PLANAR_FIRST_ID; id < FM_PLANAR_FIRST_ID + 256; id++) {
        const fm_type_traits *t = fm_type_get(id);
        if (!t) continue;
        n++;
        assert_int_equal(fm_planar_id((fm_code)t->code, t->block_elems, (fm_scale)t->scale), id);
        assert_string_equal(fm_type_name(id), t->name);
    }
    assert_int_equal(n, 7 * 9 + 1 + 6);
    assert_int_equal(fm_planar_id(FM_CODE_U4, 16, FM_SCALE_F32), 0);
    assert_int_equal(fm_planar_id(FM_CODE_E2M1, 32, FM_SCALE_F32), 0);
    assert_int_equal(fm_planar_id(FM_CODE_E4M3, 32, FM_SCALE_E8M0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_those_of_the_public_tools),
        cmocka_unit_test(products_agree_in_every_set_layout_and_batch),
        cmocka_unit_test(nan_weights_make_nan_products),
        cmocka_unit_test(scales_of_many_rows_may_begin_before_the_matrix),
        cmocka_unit_test(e4m3_rows_of_many_blocks_agree_in_every_batch),
        cmocka_unit_test(code_rows_of_many_blocks_agree_in_every_set_layout_and_batch),
        cmocka_unit_test(ids_are_unique_and_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
