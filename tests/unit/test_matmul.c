/* Matrix products: every kernel set and layout must give the same bits for quantized weights, for
 * any number of tokens and any split of rows, and the right numbers. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/kernel.h"
#include "kernel/kernel_internal.h"
#include "kernel/matmul_panels.h"
#include "support/emulated_amx.h"
#include "support/kernel_sets.h"
#include "support/random_weights.h"

/* Kernels take up to 32 or 64 tokens at a time and make even parts of more: every number near where a tile of tokens or
 * such a part ends. */
static const int64_t token_counts[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13,
                                       14, 15, 16, 17, 18, 19, 31, 32, 33, 63, 64, 65};
enum { N_TOKEN_COUNTS = sizeof token_counts / sizeof token_counts[0], MAX_TOK = 65 };
enum { MANY_TOK = 29 }; /* every kernel of several tokens is used: 32 at a time meet 4, 6 or 8 of them in tiles */

static const uint32_t floats[] = {FM_TYPE_F32, FM_TYPE_F16, FM_TYPE_BF16};

static void *must_alloc(size_t n)
{
    void *const p = aligned_alloc(16, (n + 15) / 16 * 16);
    assert_non_null(p);
    return p;
}

/* ---- sets -------------------------------------------------------------------------------- */

/* All sets that this processor can run, and with AVX-512 the set amx without the unit it is made for; ends with NULL. */
static const fm_kernels *const *all_sets(void)
{
    static const fm_kernels *sets[MAX_KERNEL_SETS + 1];
    static fm_kernels amx;
    if (sets[0]) return sets;
    const fm_kernels *const avx512 = fm_kernels_pick("avx512", NULL);
    bool have = false;
    if (avx512) {
        amx = *avx512;
        amx.name = "amx emulated";
        have = emulated_amx(&amx);
    }
    if (!have) printf("not tested: amx, for want of AVX-512 or of a compiler that knows it\n");
    list_kernel_sets(sets, have ? &amx : NULL);
#if defined(__x86_64__)
    /* Its other ways for many tokens. */
    static fm_kernels other[3];
    static const struct {
        const char *name;
        fm_matmul_fn matmul;
    } ways[] = {{"avx512 by bytes", fm_product_avx512},
                {"avx512 by words", fm_product_words_avx512},
                {"avx512 with fewer multiplications", fm_product_halved_avx512}};
    enum { N_WAYS = sizeof ways / sizeof ways[0] };
    int n = 0, n_other = 0;
    while (sets[n]) n++;
    for (int i = 0; avx512 && i < N_WAYS; i++) {
        if (ways[i].matmul == avx512->matmul) continue;
        assert_true(n < MAX_KERNEL_SETS);
        other[n_other] = *avx512;
        other[n_other].name = ways[i].name;
        other[n_other].matmul = ways[i].matmul;
        sets[n++] = &other[n_other++];
        sets[n] = NULL;
    }
#endif
    return sets;
}

/* The same with activations of 8 bits; without reference. */
static const fm_kernels *const *all_int8_sets(void)
{
    static const fm_kernels *sets[MAX_KERNEL_SETS + 1];
    static fm_kernels amx;
    if (sets[0]) return sets;
    int n = 0;
    for (const fm_kernels *const *set = all_sets(); *set; set++) {
        if (strcmp((*set)->name, "amx emulated") == 0) {
            amx = *fm_kernels_int8(fm_kernels_pick("avx512", NULL));
            amx.name = (*set)->name;
            emulated_amx_int8(&amx);
            sets[n++] = &amx;
        } else if (fm_kernels_int8(*set)) {
            sets[n++] = fm_kernels_int8(*set);
        }
    }
    return sets;
}

static const fm_kernels *generic_set(bool int8)
{
    const fm_kernels *const set = fm_kernels_pick("generic", NULL);
    return int8 ? fm_kernels_int8(set) : set;
}

/* ---- weights ----------------------------------------------------------------------------- */

typedef struct {
    fm_matrix rows, panels; /* the same matrix */
} weights;

static void make_weights(weights *w, const fm_type_traits *t, int64_t n_out, int64_t n_in,
                         weight_kind kind)
{
    const uint64_t row_bytes = fm_type_row_bytes(t, n_in);
    const size_t total = (size_t)n_out * row_bytes;
    /* Exact sizes, so that a read past the end is found by the address sanitizer. */
    uint8_t *const rows = malloc(total), *const panels = malloc(total);
    uint8_t *const scratch = malloc(16 * row_bytes);
    assert_true(rows && panels && scratch);
    for (size_t i = 0; i < total; i += t->block_bytes) fill_block(t, rows + i, kind);
    memcpy(panels, rows, total);
    fm_pack_panels(t, panels, panels, n_out, n_in, scratch);
    free(scratch);
    w->rows = (fm_matrix){.type = t, .data = rows, .n_out = n_out, .n_in = n_in,
                          .row_bytes = row_bytes, .layout = FM_LAYOUT_ROWS};
    w->panels = (fm_matrix){.type = t, .data = panels, .n_out = n_out, .n_in = n_in,
                            .row_bytes = row_bytes, .layout = FM_LAYOUT_PANELS};
}

static void free_weights(weights *w)
{
    free((void *)(uintptr_t)w->rows.data);
    free((void *)(uintptr_t)w->panels.data);
}

/* ---- activations and results ------------------------------------------------------------- */

typedef struct {
    int64_t n_in, n_tok;
    float *x; /* [n_tok][n_in] */
    const fm_kernels *kernels;
    uint8_t *bytes;
    const void *act[MAX_TOK];
} tokens;

/* Quantizes x for type t as `kernels` does. */
static void quantize_tokens(tokens *k, const fm_kernels *kernels, const fm_type_traits *t)
{
    const fm_act form = kernels->act_form(t);
    const size_t n = (fm_act_bytes(form, k->n_in) + 15) / 16 * 16;
    k->kernels = kernels;
    k->bytes = must_alloc(n * (size_t)k->n_tok);
    for (int64_t i = 0; i < k->n_tok; i++) {
        kernels->quantize(form, k->bytes + n * (size_t)i, k->x + i * k->n_in, k->n_in);
        k->act[i] = k->bytes + n * (size_t)i;
    }
}

/* y [n_tok][n_out] of tokens [t0, t1) and rows [row0, row1). */
static void multiply(const tokens *k, const fm_matrix *w, float *y, int64_t row0, int64_t row1,
                     int64_t t0, int64_t t1)
{
    float *out[MAX_TOK];
    for (int64_t t = t0; t < t1; t++) out[t] = y + t * w->n_out;
    k->kernels->matmul(w, row0, row1, k->act + t0, out + t0, t1 - t0);
}

static float *fresh_result(const tokens *k, const fm_matrix *w)
{
    const size_t n = (size_t)(k->n_tok * w->n_out);
    float *const y = malloc(n * sizeof *y);
    assert_non_null(y);
    for (size_t i = 0; i < n; i++) y[i] = 12345.0f;
    return y;
}

/* Equal bits, or both NaN. */
static void check_same(const float *got, const float *want, int64_t n_tok, int64_t n_out,
                       const char *type, const char *what)
{
    for (int64_t i = 0; i < n_tok * n_out; i++) {
        if (isnan(got[i]) && isnan(want[i])) continue;
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%s %s: token %d of %d, row %d of %d: %.9g, expected %.9g", type, what,
                     (int)(i / n_out), (int)n_tok, (int)(i % n_out), (int)n_out, (double)got[i],
                     (double)want[i]);
    }
}

/* ---- quantization of activations --------------------------------------------------------- */

static void check_quantize(const fm_kernels *set, bool int8)
{
    enum { N = 1024 };
    for (int rep = 0; rep < 40; rep++) {
        float x[N];
        fill_activations(x, N, (activation_kind)(rep % X_COUNT));
        for (fm_act form = 0; form < FM_ACT_COUNT; form++) {
            const size_t n = fm_act_bytes(form, N);
            uint8_t *const want = must_alloc(n), *const got = must_alloc(n);
            memset(want, 1, n), memset(got, 2, n);
            generic_set(int8)->quantize(form, want, x, N);
            set->quantize(form, got, x, N);
            assert_memory_equal(got, want, n);
            free(want), free(got);
        }
    }
}

static void quantize_is_the_same_bytes_in_every_set(void **state)
{
    (void)state;
    for (const fm_kernels *const *set = all_sets(); *set; set++) check_quantize(*set, false);
    for (const fm_kernels *const *set = all_int8_sets(); *set; set++) check_quantize(*set, true);
}

/* v of one plane pair, after checking that the bytes are in range. */
static int joined(int8_t hi, int8_t lo, int shift)
{
    assert_in_range(hi + 127, 0, 254);
    assert_in_range(lo + (1 << (shift - 1)), 0, (1 << shift) - 1);
    return hi * (1 << shift) + lo;
}

/* Steps: between values of v, 1, and with activations of 8 bits the weight of the upper plane. */
static void check_rounding(const fm_kernels *k, int step_32, int step_256)
{
    for (int rep = 0; rep < 50; rep++) {
        float x[256];
        fill_activations(x, 256, rep % 3 ? X_RANDOM : X_SPIKE);
        if (rep == 0 || rep == 1) /* amax V, so d = 1 in one form: halves are ties */
            for (int i = 0; i < 256; i++)
                x[i] = i % 32 == 0 ? rep ? 4064.0f : -16256.0f : (float)i * 15.5f - 1984.0f;
        if (rep > 1 && rep < 6) /* the same halfway between steps, even and odd ones */
            for (int i = 0; i < 256; i++)
                x[i] = i % 32 == 0 ? rep & 1 ? 4064.0f : -16256.0f
                                   : 0.5f * (float)((rep < 4 ? step_32 : step_256) * (i % 61 - 30));
        fm_act_i15_32 a[8];
        fm_act_i13_256 b;
        k->quantize(FM_ACT_I15_32, a, x, 256);
        k->quantize(FM_ACT_I13_256, &b, x, 256);
        float amax256 = 0;
        for (int i = 0; i < 256; i++) amax256 = fmaxf(amax256, fabsf(x[i]));
        assert_true(b.d == amax256 / 4064.0f);
        for (int j = 0; j < 8; j++) {
            float amax = 0;
            int sum = 0, sum_b[2] = {0, 0}, sum_hi = 0, sum_lo = 0, top = 0;
            for (int i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(x[32 * j + i]));
            assert_true(a[j].d == amax / 16256.0f);
            for (int i = 0; i < 32; i++) {
                const int c = 32 * j + i, va = joined(a[j].hi[i], a[j].lo[i], 7);
                const int vb = joined(b.hi[c], b.lo[c], 5);
                const float one_a = 1.0f / a[j].d / (float)step_32;
                const float one_b = 1.0f / b.d / (float)step_256;
                assert_int_equal(va, step_32 * (int)nearbyintf(x[c] * one_a));
                assert_int_equal(vb, step_256 * (int)nearbyintf(x[c] * one_b));
                top = abs(va) > top ? abs(va) : top;
                sum += va;
                sum_b[i / 16] += vb;
                sum_hi += b.hi[c];
                sum_lo += b.lo[c];
            }
            assert_int_equal(top, 16256);
            assert_int_equal(a[j].nsum, -sum);
            assert_true(a[j].dsum == a[j].d * (float)sum);
            for (int i = 0; i < 2; i++) assert_int_equal(b.nsum[2 * j + i], -sum_b[i]);
            assert_int_equal(b.sum32[j][0], sum_hi);
            assert_int_equal(b.sum32[j][1], sum_lo);
        }
    }
}

static void quantized_activations_are_rounded_to_nearest_even(void **state)
{
    (void)state;
    for (const fm_kernels *const *set = all_sets(); *set; set++) check_rounding(*set, 1, 1);
    for (const fm_kernels *const *set = all_int8_sets(); *set; set++) check_rounding(*set, 128, 32);
}

static void check_not_finite(const fm_kernels *const *set)
{
    for (; *set; set++) {
        for (int t = 0; t < N_QUANTIZED; t++) {
            const fm_type_traits *const type = fm_type_get(quantized[t]);
            const int64_t n_in = 2 * type->block_elems;
            weights w;
            float x[MANY_TOK * 512], y[MANY_TOK * 33];
            tokens k = {.n_in = n_in, .n_tok = MANY_TOK, .x = x};
            fill_activations(x, MANY_TOK * n_in, X_RANDOM);
            for (int i = 0; i < MANY_TOK; i++) x[i * n_in + 5] = t & 1 ? NAN : INFINITY;
            make_weights(&w, type, 33, n_in, W_RANDOM);
            quantize_tokens(&k, *set, type);
            multiply(&k, &w.panels, y, 0, 33, 0, 1);
            for (int i = 0; i < 33; i++) assert_false(isfinite(y[i]));
            multiply(&k, &w.panels, y, 0, 33, 0, MANY_TOK);
            for (int i = 0; i < MANY_TOK * 33; i++) assert_false(isfinite(y[i]));
            free(k.bytes);
            free_weights(&w);
        }
    }
}

static void not_finite_activation_gives_nan_and_never_a_wrong_number(void **state)
{
    (void)state;
    check_not_finite(all_sets());
    check_not_finite(all_int8_sets());
}

/* ---- the same bits ----------------------------------------------------------------------- */

/* want: the set "generic" on rows, one token and one panel of rows at a time. */
static void check_sets(const fm_type_traits *type, weights *w, float *x, int64_t n_tok, bool int8)
{
    const int64_t n_out = w->rows.n_out;
    tokens base = {.n_in = w->rows.n_in, .n_tok = n_tok, .x = x};
    quantize_tokens(&base, generic_set(int8), type);
    float *const want = fresh_result(&base, &w->rows);
    for (int64_t t = 0; t < n_tok; t++)
        for (int64_t row = 0; row < n_out; row += 16)
            multiply(&base, &w->rows, want, row, row + 16 < n_out ? row + 16 : n_out, t, t + 1);
    for (const fm_kernels *const *set = int8 ? all_int8_sets() : all_sets(); *set; set++) {
        if (strcmp((*set)->name, "reference") == 0) continue;
        tokens k = {.n_in = w->rows.n_in, .n_tok = n_tok, .x = x};
        quantize_tokens(&k, *set, type);
        const fm_matrix *const layouts[2] = {&w->rows, &w->panels};
        for (int layout = 0; layout < 2; layout++) {
            char what[64];
            snprintf(what, sizeof what, "%s%s %s", (*set)->name, int8 ? " int8" : "",
                     layout ? "panels" : "rows");
            float *const whole = fresh_result(&k, &w->rows);
            multiply(&k, layouts[layout], whole, 0, n_out, 0, n_tok);
            check_same(whole, want, n_tok, n_out, type->name, what);
            free(whole);
            float *const split = fresh_result(&k, &w->rows);
            const int64_t cut = n_out > 32 ? 32 : n_out > 16 ? 16 : n_out;
            multiply(&k, layouts[layout], split, 0, cut, 0, n_tok);
            if (cut < n_out) multiply(&k, layouts[layout], split, cut, n_out, 0, n_tok);
            check_same(split, want, n_tok, n_out, type->name, what);
            free(split);
        }
        free(k.bytes);
    }
    free(want);
    free(base.bytes);
}

static void check_all_ways(const fm_type_traits *type, weights *w, float *x, int64_t n_tok)
{
    check_sets(type, w, x, n_tok, false);
    check_sets(type, w, x, n_tok, true);
}

static void quantized_products_have_the_same_bits_in_every_set_layout_and_split(void **state)
{
    (void)state;
    static const int64_t row_counts[] = {1, 15, 16, 17, 40};
    for (int i = 0; i < N_QUANTIZED; i++) {
        const fm_type_traits *const type = fm_type_get(quantized[i]);
        for (int c = 0; c < 5; c++) {
            for (int k = 0; k < N_TOKEN_COUNTS; k++) {
                const int64_t n_tok = token_counts[k];
                const int64_t n_in = type->block_elems * (1 + n_tok % 3);
                float *const x = malloc((size_t)(n_tok * n_in) * sizeof *x);
                weights w;
                fill_activations(x, n_tok * n_in, X_RANDOM);
                make_weights(&w, type, row_counts[c], n_in, W_RANDOM);
                check_all_ways(type, &w, x, n_tok);
                free_weights(&w);
                free(x);
            }
        }
    }
}

/* Matrices of more than 2 MiB, which are cut; two of more than 4, which the way with fewer multiplications cuts, too. */
static void large_products_have_the_same_bits_in_every_set_layout_and_split(void **state)
{
    (void)state;
    static const struct {
        int type;
        int64_t n_in, n_tok;
    } cases[] = {{FM_TYPE_Q8_0, 15360, 33}, {FM_TYPE_Q6_K, 10240, 5}, {FM_TYPE_Q6_K, 10240, 35}, {FM_TYPE_IQ3_S, 20480, 5},
                 {FM_TYPE_IQ2_XXS, 32768, 35}, {FM_TYPE_Q4_K, 27648, 17},
                 {FM_TYPE_Q4_0, 32 * 421, 17}, {FM_TYPE_Q5_1, 32 * 411, 65}};
    enum { N_CASES = sizeof cases / sizeof cases[0] };
    for (int i = 0; i < N_CASES; i++) {
        const fm_type_traits *const type = fm_type_get(cases[i].type);
        const int64_t n_in = cases[i].n_in, n_tok = cases[i].n_tok, n_out = 16 * 17 + 5;
        float *const x = malloc((size_t)(n_tok * n_in) * sizeof *x);
        weights w;
        fill_activations(x, n_tok * n_in, X_RANDOM);
        make_weights(&w, type, n_out, n_in, W_RANDOM);
        assert_true((uint64_t)n_out * w.rows.row_bytes > 2 << 20);
        check_all_ways(type, &w, x, n_tok);
        free_weights(&w);
        free(x);
    }
}

static void quantized_products_have_the_same_bits_for_awkward_weights_and_activations(void **state)
{
    (void)state;
    for (int i = 0; i < N_QUANTIZED; i++) {
        const fm_type_traits *const type = fm_type_get(quantized[i]);
        const int64_t n_in = type->block_elems * 2;
        for (weight_kind wk = 0; wk < W_COUNT; wk++) {
            for (activation_kind xk = 0; xk < X_COUNT; xk++) {
                float x[MANY_TOK * 512];
                weights w;
                fill_activations(x, MANY_TOK * n_in, xk);
                make_weights(&w, type, 33, n_in, wk);
                check_all_ways(type, &w, x, MANY_TOK);
                free_weights(&w);
            }
        }
    }
}

/* The layout that the set is made for. */
static const fm_matrix *wanted_layout(const fm_kernels *set, const weights *w)
{
    return fm_layout_of(w->rows.type, set->book_layout) == FM_LAYOUT_ROWS ? &w->rows : &w->panels;
}

/* Whether products of several tokens in that layout leave the lower plane of activations of 8 bits out. */
static bool leaves_lower_plane_out(const fm_kernels *set, const fm_type_traits *t)
{
    if (strcmp(set->name, "avx2") == 0 || strcmp(set->name, "avxvnni") == 0)
        return !t->is_book && t->id != FM_TYPE_Q8_0 && t->id != FM_TYPE_IQ4_NL &&
               t->id != FM_TYPE_IQ4_XS;
    if (strncmp(set->name, "avx512", 6) == 0 || strncmp(set->name, "amx", 3) == 0)
        return !t->is_book || set->book_layout == FM_LAYOUT_PANELS;
    return strcmp(set->name, "generic") != 0;
}

/* They would have the right bits with it, too: it is 0. So here it is not. */
static void products_of_int8_activations_leave_the_lower_plane_out(void **state)
{
    (void)state;
    for (int i = 0; i < N_QUANTIZED; i++) {
        const fm_type_traits *const type = fm_type_get(quantized[i]);
        const int64_t n_in = type->block_elems * 3;
        float x[MANY_TOK * 768];
        weights w;
        fill_activations(x, MANY_TOK * n_in, X_RANDOM);
        make_weights(&w, type, 32, n_in, W_RANDOM);
        tokens base = {.n_in = n_in, .n_tok = MANY_TOK, .x = x};
        quantize_tokens(&base, generic_set(true), type);
        float *const want = fresh_result(&base, &w.panels);
        multiply(&base, &w.panels, want, 0, 32, 0, MANY_TOK);
        for (const fm_kernels *const *set = all_int8_sets(); *set; set++) {
            if (!leaves_lower_plane_out(*set, type)) continue;
            tokens k = {.n_in = n_in, .n_tok = MANY_TOK, .x = x};
            quantize_tokens(&k, *set, type);
            for (int64_t t = 0; t < MANY_TOK; t++) {
                if (type->act == FM_ACT_I15_32) {
                    fm_act_i15_32 *const a = (fm_act_i15_32 *)(uintptr_t)k.act[t];
                    for (int64_t b = 0; b < n_in / 32; b++) memset(a[b].lo, 0x33, sizeof a->lo);
                } else {
                    fm_act_i13_256 *const a = (fm_act_i13_256 *)(uintptr_t)k.act[t];
                    for (int64_t b = 0; b < n_in / 256; b++) memset(a[b].lo, 0x33, sizeof a->lo);
                }
            }
            float *const y = fresh_result(&k, wanted_layout(*set, &w));
            multiply(&k, wanted_layout(*set, &w), y, 0, 32, 0, MANY_TOK);
            check_same(y, want, MANY_TOK, 32, type->name, (*set)->name);
            free(y), free(k.bytes);
        }
        free(want), free(base.bytes);
        free_weights(&w);
    }
}

/* ---- the right numbers ------------------------------------------------------------------- */

typedef struct {
    double exact;     /* f64 dot product of decoded weights and f32 activations */
    double magnitude; /* sum |w x|                                             */
    double act_error; /* sum |w| amax(block of x) / 2 top: activation rounding */
} expected;

/* Steps from 0 to the largest activation that meets type t. */
static double act_top(const fm_type_traits *t, bool int8)
{
    return int8 ? 127 : t->act == FM_ACT_I15_32 ? 16256 : 4064;
}

/* top: act_top(). */
static expected expect(const fm_matrix *w, int64_t row, const float *x, float *decoded, double top)
{
    const int block = w->type->block_elems;
    expected e = {0};
    w->type->decode(decoded, (const uint8_t *)w->data + (uint64_t)row * w->row_bytes, w->n_in);
    for (int64_t b = 0; b < w->n_in; b += block) {
        double amax = 0;
        for (int64_t i = b; i < b + block; i++)
            if (fabs((double)x[i]) > amax) amax = fabs((double)x[i]);
        for (int64_t i = b; i < b + block; i++) {
            e.exact += (double)decoded[i] * x[i];
            e.magnitude += fabs((double)decoded[i] * x[i]);
            e.act_error += fabs((double)decoded[i]) * amax / (2 * top);
        }
    }
    return e;
}

/* More blocks than any kernel takes at a time, and no multiple of what it takes. */
static void quantized_products_of_long_rows_have_the_same_bits(void **state)
{
    (void)state;
    enum { N_IN = 67 * 256 };
    static const int64_t counts[] = {1, 3, 16, 33};
    float *const x = malloc(33 * N_IN * sizeof *x);
    assert_non_null(x);
    fill_activations(x, 33 * N_IN, X_RANDOM);
    for (int i = 0; i < N_QUANTIZED; i++) {
        weights w;
        make_weights(&w, fm_type_get(quantized[i]), 21, N_IN, W_RANDOM);
        for (int c = 0; c < 4; c++) check_all_ways(w.rows.type, &w, x, counts[c]);
        free_weights(&w);
    }
    free(x);
}

/* The largest weights, scales and activations, of either sign, in a long row: every sum that comes
 * near the end of its range, and every one that would overflow if it ran across blocks. */
static void long_rows_of_extreme_values_do_not_overflow(void **state)
{
    (void)state;
    enum { N = 32768 };
    float *const x = malloc(3 * N * sizeof *x), *const decoded = malloc(N * sizeof *decoded);
    for (int i = 0; i < N; i++) {
        x[i] = 1.0f;
        x[N + i] = -1.0f;
        x[2 * N + i] = i & 1 ? 1.0f : -1.0f;
    }
    const fm_kernels *const generic = fm_kernels_pick("generic", NULL);
    for (int i = 0; i < N_QUANTIZED; i++) {
        const fm_type_traits *const type = fm_type_get(quantized[i]);
        for (int lowest = 0; lowest < 2; lowest++) {
            const int no_number = type->id == FM_TYPE_MXFP4 && !lowest;
            weights w;
            float y[3 * 16];
            make_weights(&w, type, 16, N, no_number ? W_RANDOM : lowest ? W_LOWEST : W_LARGEST);
            check_all_ways(type, &w, x, 3);
            tokens k = {.n_in = N, .n_tok = 3, .x = x};
            quantize_tokens(&k, generic, type);
            multiply(&k, &w.rows, y, 0, 16, 0, 3);
            for (int t = 0; t < 3; t++) {
                const expected e = expect(&w.rows, 3, x + t * N, decoded, 1);
                /* 1024 float additions; an overflow would be of the order of the sum. */
                assert_true(fabs((double)y[t * 16 + 3] - e.exact) <= e.magnitude * 1e-4);
            }
            free(k.bytes);
            free_weights(&w);
        }
    }
    free(x), free(decoded);
}

/* The same values in rows of a few blocks, for as many tokens as the kernels of several take. */
static void extreme_values_have_the_same_bits_for_many_tokens(void **state)
{
    (void)state;
    enum { N = 1024 };
    float *const x = malloc(MANY_TOK * N * sizeof *x);
    for (int t = 0; t < MANY_TOK; t++)
        for (int i = 0; i < N; i++)
            x[t * N + i] = t % 3 == 0 ? 1.0f : t % 3 == 1 ? -1.0f : i & 1 ? 1.0f : -1.0f;
    for (int i = 0; i < N_QUANTIZED; i++) {
        for (int lowest = 0; lowest < 2; lowest++) {
            weights w;
            make_weights(&w, fm_type_get(quantized[i]), 16, N, lowest ? W_LOWEST : W_LARGEST);
            check_all_ways(w.rows.type, &w, x, MANY_TOK);
            free_weights(&w);
        }
    }
    free(x);
}

/* Worst case: every activation off by half a step, and float rounding. Typical: errors of single
 * activations are independent, so a row's error relative to |row| |x| stays near
 * amax / rms / (top sqrt(12)), which is 0.5 / top for these inputs: 3e-5 and 1.2e-4, with 8 bits 4e-3. */
static void check_accuracy(const fm_kernels *set, const fm_type_traits *type, bool int8)
{
    enum { N_OUT = 48, N_IN = 1024, N_TOK = 5 };
    const bool is_reference = strcmp(set->name, "reference") == 0;
    float *const x = malloc(sizeof(float) * N_TOK * N_IN), decoded[N_IN], y[N_TOK * N_OUT];
    weights w;
    tokens k = {.n_in = N_IN, .n_tok = N_TOK, .x = x};
    fill_activations(x, N_TOK * N_IN, X_RANDOM);
    make_weights(&w, type, N_OUT, N_IN, W_RANDOM);
    quantize_tokens(&k, set, type);
    multiply(&k, &w.panels, y, 0, N_OUT, 0, N_TOK);
    const double top = act_top(type, int8);
    double error2 = 0, norm2 = 0;
    for (int t = 0; t < N_TOK; t++) {
        double xx = 0;
        for (int c = 0; c < N_IN; c++) xx += (double)x[t * N_IN + c] * x[t * N_IN + c];
        for (int row = 0; row < N_OUT; row++) {
            const expected e = expect(&w.rows, row, x + t * N_IN, decoded, top);
            const double error = fabs((double)y[t * N_OUT + row] - e.exact);
            const double rounding = e.magnitude * 1e-5;
            if (!(error <= rounding + (is_reference ? 0 : e.act_error)))
                fail_msg("%s %s row %d: off by %g, allowed %g", set->name, type->name, row, error,
                         rounding + e.act_error);
            double ww = 0;
            for (int c = 0; c < N_IN; c++) ww += (double)decoded[c] * decoded[c];
            error2 += error * error;
            norm2 += ww * xx;
        }
    }
    assert_true(sqrt(error2 / norm2) < (is_reference ? 1e-6 : 0.6 / top));
    free(k.bytes);
    free_weights(&w);
    free(x);
}

static void quantized_products_are_within_the_activation_rounding_of_f64(void **state)
{
    (void)state;
    for (int i = 0; i < N_QUANTIZED; i++) {
        const fm_type_traits *const type = fm_type_get(quantized[i]);
        for (const fm_kernels *const *set = all_sets(); *set; set++)
            check_accuracy(*set, type, false);
        for (const fm_kernels *const *set = all_int8_sets(); *set; set++)
            check_accuracy(*set, type, true);
    }
}

static void float_products_are_within_rounding_of_f64_for_any_size(void **state)
{
    (void)state;
    static const int64_t sizes[][3] = {/* n_out, n_in, n_tok */
                                       {1, 1, 1}, {5, 15, 2}, {16, 16, 3}, {17, 17, 5},
                                       {40, 300, 7}, {33, 2049, 19}, {9, 530, 65}};
    enum { N_SIZES = sizeof sizes / sizeof sizes[0] };
    for (const char *const *name = fm_kernels_available(); *name; name++) {
        for (int i = 0; i < 3; i++) {
            const fm_type_traits *const type = fm_type_get(floats[i]);
            for (int s = 0; s < N_SIZES; s++) {
                const int64_t n_out = sizes[s][0], n_in = sizes[s][1], n_tok = sizes[s][2];
                const uint64_t row_bytes = fm_type_row_bytes(type, n_in);
                uint8_t *const data = malloc((size_t)n_out * row_bytes);
                float *const x = malloc((size_t)(n_tok * n_in) * sizeof *x);
                float *const decoded = malloc((size_t)n_in * sizeof *decoded);
                for (int64_t e = 0; e < n_out * n_in; e++) {
                    const float v = random_float();
                    uint32_t u;
                    memcpy(&u, &v, 4);
                    if (type->id == FM_TYPE_BF16) u >>= 16;
                    if (type->id == FM_TYPE_F16) u = 0x2c00 + random_u32() % 0x1000;
                    memcpy(data + e * type->block_bytes, &u, type->block_bytes);
                }
                fill_activations(x, n_tok * n_in, X_RANDOM);
                const fm_matrix w = {.type = type, .data = data, .n_out = n_out, .n_in = n_in,
                                     .row_bytes = row_bytes, .layout = FM_LAYOUT_ROWS};
                tokens k = {.n_in = n_in, .n_tok = n_tok, .x = x};
                quantize_tokens(&k, fm_kernels_pick(*name, NULL), type);
                float *const y = fresh_result(&k, &w);
                multiply(&k, &w, y, 0, n_out, 0, n_tok);
                for (int64_t t = 0; t < n_tok; t++)
                    for (int64_t row = 0; row < n_out; row++) {
                        const expected e = expect(&w, row, x + t * n_in, decoded, 1);
                        assert_true(fabs((double)y[t * n_out + row] - e.exact) <=
                                    e.magnitude * 1e-5);
                    }
                /* One token and one panel at a time, in either order of rows: the same bits. */
                const bool follows = fm_follows_streams;
                for (int other = 0; other < 2; other++) {
                    fm_follows_streams = other ? !follows : follows;
                    float *const single = fresh_result(&k, &w);
                    for (int64_t t = 0; t < n_tok; t++)
                        for (int64_t row = 0; row < n_out; row += 16)
                            multiply(&k, &w, single, row, row + 16 < n_out ? row + 16 : n_out, t,
                                     t + 1);
                    check_same(single, y, n_tok, n_out, type->name, *name);
                    free(single);
                }
                fm_follows_streams = follows;
                free(y), free(k.bytes), free(data), free(x), free(decoded);
            }
        }
    }
}

static void float_products_agree_bit_for_bit_between_avx2_and_avx512(void **state)
{
    (void)state;
    const fm_kernels *const a = fm_kernels_pick("avx2", NULL);
    const fm_kernels *const b = fm_kernels_pick("avx512", NULL);
    if (!a || !b) skip();
    enum { N_OUT = 21, N_IN = 777, N_TOK = 6 };
    float *const x = malloc(sizeof(float) * N_TOK * N_IN);
    float *const data = malloc(sizeof(float) * N_OUT * N_IN);
    float ya[N_TOK * N_OUT], yb[N_TOK * N_OUT];
    fill_activations(x, N_TOK * N_IN, X_RANDOM);
    fill_activations(data, N_OUT * N_IN, X_RANDOM);
    const fm_matrix w = {.type = fm_type_get(FM_TYPE_F32), .data = data, .n_out = N_OUT,
                         .n_in = N_IN, .row_bytes = 4 * N_IN, .layout = FM_LAYOUT_ROWS};
    tokens k = {.n_in = N_IN, .n_tok = N_TOK, .x = x};
    quantize_tokens(&k, a, w.type);
    multiply(&k, &w, ya, 0, N_OUT, 0, N_TOK);
    k.kernels = b;
    multiply(&k, &w, yb, 0, N_OUT, 0, N_TOK);
    check_same(yb, ya, N_TOK, N_OUT, "F32", "avx512");
    free(k.bytes), free(x), free(data);
}

/* ---- choice of the set ------------------------------------------------------------------- */

static void pick_names_what_this_processor_can_run(void **state)
{
    (void)state;
    fm_error err = {0};
    const char *const *names = fm_kernels_available();
    assert_string_equal(fm_kernels_pick(NULL, NULL)->name, names[0]);
    int n = 0;
    for (; names[n]; n++) assert_string_equal(fm_kernels_pick(names[n], &err)->name, names[n]);
    assert_true(n >= 2);
    assert_string_equal(names[n - 1], "reference");
    assert_null(fm_kernels_pick("abacus", &err));
    assert_int_equal(err.code, FM_E_ARG);
    assert_non_null(strstr(err.msg, "generic"));
}

static void reference_takes_plain_activations_and_the_others_what_the_type_says(void **state)
{
    (void)state;
    const fm_type_traits *const q4_k = fm_type_get(FM_TYPE_Q4_K);
    assert_int_equal(fm_kernels_pick("reference", NULL)->act_form(q4_k), FM_ACT_F32);
    assert_int_equal(fm_kernels_pick("generic", NULL)->act_form(q4_k), FM_ACT_I13_256);
}

static void every_set_but_reference_has_activations_of_8_bits(void **state)
{
    (void)state;
    for (const char *const *name = fm_kernels_available(); *name; name++) {
        const fm_kernels *const set = fm_kernels_pick(*name, NULL), *const k = fm_kernels_int8(set);
        if (strcmp(*name, "reference") == 0) {
            assert_null(k);
            continue;
        }
        assert_string_equal(k->name, *name);
        assert_ptr_not_equal(k->quantize, set->quantize);
        assert_null(fm_kernels_int8(k));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantize_is_the_same_bytes_in_every_set),
        cmocka_unit_test(quantized_activations_are_rounded_to_nearest_even),
        cmocka_unit_test(not_finite_activation_gives_nan_and_never_a_wrong_number),
        cmocka_unit_test(quantized_products_have_the_same_bits_in_every_set_layout_and_split),
        cmocka_unit_test(large_products_have_the_same_bits_in_every_set_layout_and_split),
        cmocka_unit_test(quantized_products_have_the_same_bits_for_awkward_weights_and_activations),
        cmocka_unit_test(quantized_products_of_long_rows_have_the_same_bits),
        cmocka_unit_test(products_of_int8_activations_leave_the_lower_plane_out),
        cmocka_unit_test(long_rows_of_extreme_values_do_not_overflow),
        cmocka_unit_test(extreme_values_have_the_same_bits_for_many_tokens),
        cmocka_unit_test(quantized_products_are_within_the_activation_rounding_of_f64),
        cmocka_unit_test(float_products_are_within_rounding_of_f64_for_any_size),
        cmocka_unit_test(float_products_agree_bit_for_bit_between_avx2_and_avx512),
        cmocka_unit_test(pick_names_what_this_processor_can_run),
        cmocka_unit_test(reference_takes_plain_activations_and_the_others_what_the_type_says),
        cmocka_unit_test(every_set_but_reference_has_activations_of_8_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
