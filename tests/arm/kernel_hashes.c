/* Hashes of products, to compare kernel sets of different processors, which no single program can run:
 *
 *   set format layout tokens hash
 *
 * for every set but reference and every format, and as format_int8 with activations of 8 bits. Weights and activations
 * are random but the same everywhere, ordinary and awkward. Also `set form activations 0 hash` for the quantization of
 * activations. The program needs the kernels and the C library only, so that it is soon built for another processor.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "kernel/kernel.h"
#include "quant/planar.h"
#include "support/random_weights.h"

static const int64_t token_counts[] = {1, 2, 3, 5, 8, 13, 33};
enum { N_COUNT = sizeof token_counts / sizeof token_counts[0], MAX_TOK = 33, MAX_SET = 12 };

static const char *const layout_names[] = {"rows", "panels", "columns"};
enum { N_LAYOUT = sizeof layout_names / sizeof layout_names[0] };

/* All sets, then the same with activations of 8 bits. */
static const fm_kernels *sets[MAX_SET];
static int n_set, n_full;

static int is_int8(int s)
{
    return s >= n_full;
}

static void *must_alloc(size_t n)
{
    void *const p = aligned_alloc(64, (n + 63) / 64 * 64);
    if (!p) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return p;
}

/* ---- matrices ----------------------------------------------------------------------------- */

typedef struct {
    fm_matrix view[N_LAYOUT];
    int has[N_LAYOUT];
    uint8_t *memory[N_LAYOUT];
} matrix;

/* F32, F16, BF16: as rows or as columns, whichever way it is looked at. */
static void fill_floats(const fm_type_traits *t, uint8_t *p, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = random_float();
        uint32_t u;
        memcpy(&u, &v, sizeof u);
        if (t->id == FM_TYPE_BF16) u >>= 16;
        if (t->id == FM_TYPE_F16) u = (u >> 16 & 0x8000) | (0x2c00 + random_u32() % 0x1000);
        memcpy(p + i * t->block_bytes, &u, t->block_bytes);
    }
}

static void make_matrix(matrix *m, const fm_type_traits *t, int64_t n_out, int64_t n_in,
                        weight_kind kind)
{
    const int is_plain = t->block_elems == 1, n_plane = fm_type_n_plane(t);
    uint64_t plane_bytes[FM_MAX_PLANES], total = 0, row_bytes = 0;
    for (int k = 0; k < n_plane; k++) {
        const uint64_t row = fm_plane_row_bytes(t, k, n_in);
        plane_bytes[k] = (uint64_t)fm_plane_rows(t, k, n_out) * row;
        total += plane_bytes[k];
        row_bytes = row > row_bytes ? row : row_bytes;
    }
    *m = (matrix){.has = {1, t->n_field > 0, is_plain}};
    for (int layout = 0; layout < N_LAYOUT; layout++) {
        uint8_t *plane[FM_MAX_PLANES] = {NULL}, *at = m->memory[layout] = must_alloc(total);
        for (int k = 0; k < n_plane; at += plane_bytes[k++]) plane[k] = at;
        if (layout > 0) {
            memcpy(plane[0], m->memory[0], total);
        } else if (is_plain) {
            fill_floats(t, plane[0], n_out * n_in);
        } else if (n_plane > 1) {
            fill_planes(t, plane, n_out, n_in);
        } else {
            for (uint64_t i = 0; i < total; i += t->block_bytes) fill_block(t, plane[0] + i, kind);
        }
        if (layout == FM_LAYOUT_PANELS && m->has[layout]) {
            uint8_t *const scratch = must_alloc(FM_PANEL_ROWS * row_bytes);
            fm_pack_planes(t, plane, 0, n_out, n_in, scratch);
            free(scratch);
        }
        m->view[layout] = (fm_matrix){.type = t,
                                      .data = plane[0],
                                      .n_out = n_out,
                                      .n_in = n_in,
                                      .row_bytes = fm_plane_row_bytes(t, 0, n_in),
                                      .layout = (fm_layout)layout};
        if (n_plane > 1) {
            m->view[layout].aux_row_bytes = fm_plane_row_bytes(t, 1, n_in);
            for (int k = 1; k < n_plane; k++) m->view[layout].aux[k - 1] = plane[k];
        }
    }
    m->view[FM_LAYOUT_COLUMNS].row_bytes = (uint64_t)n_out * t->block_bytes;
}

static void free_matrix(matrix *m)
{
    for (int layout = 0; layout < N_LAYOUT; layout++) free(m->memory[layout]);
}

/* ---- products ----------------------------------------------------------------------------- */

/* Which NaN a sum ends with is no set's promise. */
static uint64_t hash_floats(uint64_t h, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = isnan(y[i]) ? 0.0f : y[i];
        const unsigned char no_number = isnan(y[i]) != 0;
        h = fm_fnv1a(h, &v, sizeof v);
        h = fm_fnv1a(h, &no_number, 1);
    }
    return h;
}

typedef uint64_t hashes[MAX_SET][N_LAYOUT][N_COUNT];

/* Adds the products of a random matrix with random activations to every hash of a format. */
static void add_products(hashes h, const fm_type_traits *t, int64_t n_out, int64_t n_in,
                         weight_kind wk, activation_kind xk)
{
    matrix m;
    make_matrix(&m, t, n_out, n_in, wk);
    float *const x = must_alloc((size_t)(MAX_TOK * n_in) * sizeof *x);
    float *const y = must_alloc((size_t)(MAX_TOK * n_out) * sizeof *y);
    fill_activations(x, MAX_TOK * n_in, xk);
    for (int s = 0; s < n_set; s++) {
        const fm_act form = sets[s]->act_form(t);
        if (is_int8(s) && form == FM_ACT_F32) continue;
        const size_t bytes = (fm_act_bytes(form, n_in) + 63) / 64 * 64;
        uint8_t *const acts = must_alloc(MAX_TOK * bytes);
        const void *act[MAX_TOK];
        float *out[MAX_TOK];
        for (int64_t i = 0; i < MAX_TOK; i++) {
            act[i] = acts + (size_t)i * bytes;
            out[i] = y + i * n_out;
            sets[s]->quantize(form, acts + (size_t)i * bytes, x + i * n_in, n_in);
        }
        for (int layout = 0; layout < N_LAYOUT; layout++) {
            if (!m.has[layout]) continue;
            for (int c = 0; c < N_COUNT; c++) {
                memset(y, 0x55, (size_t)(MAX_TOK * n_out) * sizeof *y);
                /* As threads share them: a panel, then the rest. */
                const int64_t split = n_out < FM_PANEL_ROWS ? n_out : FM_PANEL_ROWS;
                sets[s]->matmul(&m.view[layout], 0, split, act, out, token_counts[c]);
                if (split < n_out)
                    sets[s]->matmul(&m.view[layout], split, n_out, act, out, token_counts[c]);
                h[s][layout][c] = hash_floats(h[s][layout][c], y, MAX_TOK * n_out);
            }
        }
        free(acts);
    }
    free(x), free(y);
    free_matrix(&m);
}

/* Names of several words are joined; formats of several planes differ in their scales too. */
static void print_format(const fm_type_traits *t)
{
    static const char *const scales[] = {"F32", "F16", "BF16", "E8M0"};
    for (const char *p = t->name; *p; p++) putchar(*p == ' ' ? '_' : *p);
    if (t->n_plane) printf("_%s", scales[t->scale]);
}

static void print_products(const fm_type_traits *t)
{
    static const struct {
        weight_kind w;
        activation_kind x;
    } kinds[] = {{W_RANDOM, X_SPIKE},  {W_DENORMAL, X_RANDOM}, {W_LARGEST, X_RANDOM},
                 {W_LOWEST, X_RANDOM}, {W_RANDOM, X_DENORMAL}, {W_RANDOM, X_NOT_FINITE}};
    enum { N_KIND = sizeof kinds / sizeof kinds[0] };
    static hashes h;
    const int64_t block = t->block_elems;
    for (int s = 0; s < MAX_SET; s++)
        for (int layout = 0; layout < N_LAYOUT; layout++)
            for (int c = 0; c < N_COUNT; c++) h[s][layout][c] = FM_FNV1A_INIT;
    random_start(t->id + 1);
    /* A panel and rows beside it, a few blocks and an odd number of them; alone, and two panels. */
    add_products(h, t, 37, block == 1 ? 77 : block == 32 ? 9 * 32 : 3 * block, W_RANDOM, X_RANDOM);
    add_products(h, t, 32, block == 1 ? 128 : block == 256 ? 256 : 4 * block, W_RANDOM, X_RANDOM);
    /* More blocks than activations are kept at a time. */
    const int64_t long_row = block == 256 ? 16 * 256 : 128 * 32;
    if (block > 1) add_products(h, t, 16, long_row, W_RANDOM, X_RANDOM);
    /* Awkward scales are those of one plane; the others meet awkward activations. */
    for (int k = 0; k < N_KIND; k++)
        add_products(h, t, 17, block == 1 ? 33 : block == 32 ? 64 : block, kinds[k].w, kinds[k].x);
    for (int s = 0; s < n_set; s++)
        for (int layout = 0; layout < N_LAYOUT; layout++)
            for (int c = 0; c < N_COUNT; c++) {
                const int has = layout == FM_LAYOUT_ROWS ||
                                (layout == FM_LAYOUT_PANELS ? t->n_field > 0 : block == 1);
                if (!has || (is_int8(s) && t->act == FM_ACT_F32)) continue;
                printf("%s ", sets[s]->name);
                print_format(t);
                printf("%s %s %d %016" PRIx64 "\n", is_int8(s) ? "_int8" : "", layout_names[layout],
                       (int)token_counts[c], h[s][layout][c]);
            }
}

static void print_quantization(fm_act form, const char *name)
{
    enum { N = 768 };
    float x[N];
    const size_t bytes = fm_act_bytes(form, N);
    uint8_t *const to = must_alloc(bytes);
    for (int s = 0; s < n_set; s++) {
        uint64_t h = FM_FNV1A_INIT;
        random_start(1);
        for (int i = 0; i < 8 * X_COUNT; i++) {
            fill_activations(x, N, (activation_kind)(i % X_COUNT));
            memset(to, 0, bytes);
            sets[s]->quantize(form, to, x, N);
            h = fm_fnv1a(h, to, bytes);
        }
        printf("%s %s%s activations 0 %016" PRIx64 "\n", sets[s]->name, name,
               is_int8(s) ? "_int8" : "", h);
    }
    free(to);
}

int main(void)
{
    for (const char *const *name = fm_kernels_available(); *name && n_set < MAX_SET / 2; name++)
        if (strcmp(*name, "reference") != 0) sets[n_set++] = fm_kernels_pick(*name, NULL);
    n_full = n_set;
    for (int s = 0; s < n_full; s++) sets[n_set++] = fm_kernels_int8(sets[s]);

    print_quantization(FM_ACT_I15_32, "I15_32");
    print_quantization(FM_ACT_I13_256, "I13_256");
    static const uint32_t plain[] = {FM_TYPE_F32, FM_TYPE_F16, FM_TYPE_BF16};
    for (int i = 0; i < 3; i++) print_products(fm_type_get(plain[i]));
    for (int i = 0; i < N_QUANTIZED; i++) print_products(fm_type_get(quantized[i]));
    for (int code = FM_CODE_U2; code <= FM_CODE_E4M3; code++)
        for (uint32_t group = 32; group <= 128; group *= 2)
            for (int scale = FM_SCALE_F32; scale <= FM_SCALE_E8M0; scale++) {
                const uint32_t id = fm_planar_id((fm_code)code, group, (fm_scale)scale);
                if (id) print_products(fm_type_get(id));
            }
    return 0;
}
