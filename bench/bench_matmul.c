/* Speed of one thread's matrix products, per type and kernel set.
 *
 *   bench_matmul [-s SET] [-8] [-t TYPE] [-n ROWS] [-k TOKENS] [-r REPEATS] [-m MIB]
 *
 * Matrices of ROWS (512) x 2048; -8: activations of 8 bits. GB/s counts weight bytes: once with one matrix that stays in the
 * cache, once over MIB (512) of different matrices. GMAC/s counts products of a weight and an
 * activation, TOKENS (64) at a time, again from the cache and from memory; an expert of a prompt
 * is a product from memory for some 16 tokens. us/token is the quantization of 2048 activations, pack
 * the rate at which rows from memory are brought into panels, as an expert is that came from disk.
 * Time is this thread's processor time, best of REPEATS (7), so that other programs disturb the
 * numbers less; compare runs, not with wall-clock results. Reads no files; weights are random bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kernel/kernel.h"
#include "quant/planar.h"

enum { N_IN = 2048, N_TOK = 64, MAX_OUT = 1 << 16, MAX_REPEATS = 1001 };

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* Random bytes, with scales that are ordinary numbers: halves from 0.1 to 1, and exponents of
 * MXFP4 that make no denormals, which some processors are slow with. */
static void fill(uint8_t *p, size_t n)
{
    uint64_t s = 88172645463325252u;
    for (size_t i = 0; i < n; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        p[i] = (uint8_t)(0x30 | ((s >> 24) & 0x0b));
    }
}

/* The same for formats of code books, with all indices: random bytes but for the half d. */
static void fill_books(uint8_t *p, size_t n, const fm_type_traits *t)
{
    uint64_t s = 88172645463325252u;
    for (size_t i = 0; i < n; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        p[i] = (uint8_t)(s >> 24);
    }
    for (size_t at = 0; at + t->block_bytes <= n; at += t->block_bytes) {
        if (t->id == FM_TYPE_IQ1_M) /* its nibbles are the highest of four words */
            p[at + 55] = (uint8_t)((p[at + 55] & 0x0f) | 0x30);
        else
            p[at + 1] = (uint8_t)(0x30 | (p[at + 1] & 0x0b));
    }
}

typedef struct {
    const fm_kernels *kernels;
    const fm_type_traits *type;
    uint8_t *weights; /* n_matrix matrices, plane after plane */
    size_t plane[FM_MAX_PLANES], matrix_bytes;
    int64_t n_out;
    const void *act[N_TOK];
    float *y[N_TOK];
    int repeats;
} bench;

/* Where the planes of a matrix begin, and its bytes. */
static void set_planes(bench *b)
{
    b->matrix_bytes = 0;
    for (int k = 0; k < fm_type_n_plane(b->type); k++) {
        b->plane[k] = b->matrix_bytes;
        b->matrix_bytes +=
            fm_plane_row_bytes(b->type, k, N_IN) * (size_t)fm_plane_rows(b->type, k, b->n_out);
    }
}

/* The layout that the set is made for. */
static fm_layout layout_of(const bench *b)
{
    return fm_layout_of(b->type, b->kernels->book_layout);
}

/* Best seconds of one pass over the first n_matrix matrices. */
static double time_pass(const bench *b, size_t n_matrix, int n_tok)
{
    /* Small matrices are repeated, so that the clock's own time does not count. */
    const int times = n_matrix > 1 || b->matrix_bytes * (size_t)n_tok > 1 << 22 ? 1 : 8;
    double best = 0;
    for (int rep = -1; rep < b->repeats; rep++) {
        const double start = now();
        for (size_t i = 0; i < n_matrix * (size_t)times; i++) {
            const uint8_t *const at = b->weights + i % n_matrix * b->matrix_bytes;
            const int n_plane = fm_type_n_plane(b->type);
            const fm_matrix w = {
                .type = b->type,
                .data = at,
                .n_out = b->n_out,
                .n_in = N_IN,
                .row_bytes = fm_type_row_bytes(b->type, N_IN),
                .layout = layout_of(b),
                .aux = {n_plane > 1 ? at + b->plane[1] : NULL,
                        n_plane > 2 ? at + b->plane[2] : NULL},
                .aux_row_bytes = n_plane > 1 ? fm_plane_row_bytes(b->type, 1, N_IN) : 0,
            };
            b->kernels->matmul(&w, 0, b->n_out, b->act, b->y, n_tok);
        }
        const double seconds = (now() - start) / times;
        if (rep <= 0 || seconds < best) best = seconds; /* the first pass only warms up */
    }
    return best;
}

/* Best seconds of bringing n_matrix matrices into panels; they hold something else then. */
static double time_pack(const bench *b, size_t n_matrix, void *scratch)
{
    double best = 0;
    for (int rep = -1; rep < b->repeats; rep++) {
        const double start = now();
        for (size_t i = 0; i < n_matrix; i++) {
            uint8_t *plane[FM_MAX_PLANES] = {0};
            for (int k = 0; k < fm_type_n_plane(b->type); k++)
                plane[k] = b->weights + i * b->matrix_bytes + b->plane[k];
            fm_pack_planes(b->type, plane, 0, b->n_out, N_IN, scratch);
        }
        const double seconds = now() - start;
        if (rep <= 0 || seconds < best) best = seconds;
    }
    return best;
}

/* Best seconds of the quantization of one row of activations. */
static double time_quantize(const bench *b, fm_act form, void *dst, const float *x)
{
    enum { TIMES = 64 };
    double best = 0;
    for (int rep = -1; rep < b->repeats; rep++) {
        const double start = now();
        for (int i = 0; i < TIMES; i++) b->kernels->quantize(form, dst, x, N_IN);
        const double seconds = (now() - start) / TIMES;
        if (rep <= 0 || seconds < best) best = seconds;
    }
    return best;
}

static int run(const char *set, bool int8, const char *only_type, int64_t n_out, int n_tok,
               int repeats, size_t mib)
{
    static const uint32_t ids[] = {FM_TYPE_Q4_0,   FM_TYPE_Q4_1,    FM_TYPE_Q5_0,    FM_TYPE_Q5_1,
                                   FM_TYPE_Q8_0,   FM_TYPE_MXFP4,   FM_TYPE_Q2_K,    FM_TYPE_Q3_K,
                                   FM_TYPE_Q4_K,   FM_TYPE_Q5_K,    FM_TYPE_Q6_K,    FM_TYPE_IQ4_NL,
                                   FM_TYPE_IQ4_XS, FM_TYPE_IQ3_S,   FM_TYPE_IQ3_XXS, FM_TYPE_IQ2_S,
                                   FM_TYPE_IQ2_XS, FM_TYPE_IQ2_XXS, FM_TYPE_IQ1_M,   FM_TYPE_IQ1_S,
                                   FM_TYPE_F32,    FM_TYPE_F16,     FM_TYPE_BF16};
    static const struct {
        fm_code code;
        uint32_t group;
        fm_scale scale;
    } planar[] = {{FM_CODE_U2, 64, FM_SCALE_BF16},   {FM_CODE_U3, 64, FM_SCALE_BF16},
                  {FM_CODE_U4, 64, FM_SCALE_BF16},   {FM_CODE_U5, 64, FM_SCALE_BF16},
                  {FM_CODE_U6, 64, FM_SCALE_BF16},   {FM_CODE_U8, 64, FM_SCALE_BF16},
                  {FM_CODE_I4, 32, FM_SCALE_BF16},   {FM_CODE_E2M1, 32, FM_SCALE_E8M0},
                  {FM_CODE_E4M3, 128, FM_SCALE_F32}, {FM_CODE_E4M3, 32, FM_SCALE_BF16}};
    enum { N_ID = sizeof ids / sizeof ids[0], N_PLANAR = sizeof planar / sizeof planar[0] };
    fm_error err = {0};
    const fm_kernels *kernels = fm_kernels_pick(set, &err);
    if (!kernels) {
        fprintf(stderr, "bench_matmul: %s\n", err.msg);
        return 1;
    }
    if (int8) kernels = fm_kernels_int8(kernels);
    if (!kernels) {
        fprintf(stderr, "bench_matmul: -8: this set does not round activations\n");
        return 1;
    }
    float *const x = malloc(sizeof(float) * N_IN);
    float *const y = malloc(sizeof(float) * (size_t)n_out * N_TOK);
    uint8_t *const act = aligned_alloc(64, sizeof(float) * N_IN * N_TOK);
    uint8_t *const weights = aligned_alloc(2 << 20, mib << 20);
    uint8_t *const scratch = malloc(sizeof(float) * N_IN * FM_PANEL_ROWS);
    if (!x || !y || !act || !weights || !scratch) {
        fprintf(stderr, "bench_matmul: not enough memory\n");
        return 1;
    }
#ifdef MADV_HUGEPAGE
    (void)madvise(weights, mib << 20, MADV_HUGEPAGE); /* as the engine's memory */
#endif
    for (int i = 0; i < N_IN; i++) x[i] = (float)((i * 37) % 101 - 50) / 50.0f;
    printf("%-10s %-8s %12s %12s %12s %12s %12s %12s   (products of %d tokens)\n", "set", "type",
           "cache GB/s", "memory GB/s", "cache GMAC/s", "mem. GMAC/s", "us/token", "pack GB/s",
           n_tok);
    for (int i = 0; i < N_ID + N_PLANAR; i++) {
        const int k = i - N_ID;
        bench b = {.kernels = kernels,
                   .type = k < 0 ? fm_type_get(ids[i])
                                 : fm_planar_get(fm_planar_id(planar[k].code, planar[k].group,
                                                              planar[k].scale)),
                   .weights = weights,
                   .repeats = repeats,
                   .n_out = n_out};
        if (only_type && strcmp(only_type, b.type->name) != 0) continue;
        set_planes(&b);
        const size_t n_matrix = (mib << 20) / b.matrix_bytes;
        if (n_matrix == 0) continue;
        /* Anew: bringing codes into panels makes other bytes of them, which the next type has its scales in. */
        if (b.type->is_book)
            fill_books(weights, mib << 20, b.type);
        else
            fill(weights, mib << 20);
        if (b.type->is_book && layout_of(&b) == FM_LAYOUT_PANELS)
            for (size_t m = 0; m < n_matrix; m++) {
                uint8_t *const at = weights + m * b.matrix_bytes;
                fm_pack_panels(b.type, at, at, n_out, N_IN, scratch);
            }
        const fm_act form = kernels->act_form(b.type);
        const size_t act_bytes = fm_act_bytes(form, N_IN);
        for (int t = 0; t < N_TOK; t++) {
            kernels->quantize(form, act + (size_t)t * act_bytes, x, N_IN);
            b.act[t] = act + (size_t)t * act_bytes;
            b.y[t] = y + (int64_t)t * n_out;
        }
        const double cached = time_pass(&b, 1, 1);
        const double memory = time_pass(&b, n_matrix, 1);
        const double batch = time_pass(&b, 1, n_tok);
        const double batch_memory = time_pass(&b, n_matrix, n_tok);
        const double products = (double)(N_IN * n_out) * n_tok;
        const double quantize = time_quantize(&b, form, act, x);
        const double total_gb = (double)(b.matrix_bytes * n_matrix) / 1e9;
        printf("%-10s %-8s %12.1f %12.1f %12.1f %12.1f %12.2f", kernels->name, b.type->name,
               (double)b.matrix_bytes / cached / 1e9, total_gb / memory, products / batch / 1e9,
               products * (double)n_matrix / batch_memory / 1e9, quantize * 1e6);
        if (layout_of(&b) == FM_LAYOUT_PANELS)
            printf(" %12.1f\n", total_gb / time_pack(&b, n_matrix, scratch));
        else
            printf(" %12s\n", "rows");
        fflush(stdout);
    }
    free(x), free(y), free(act), free(weights), free(scratch);
    return 0;
}

int main(int argc, char **argv)
{
    const char *set = NULL, *type = NULL;
    bool int8 = false;
    int repeats = 7, n_tok = N_TOK, option;
    long rows = 512;
    size_t mib = 512;
    while ((option = getopt(argc, argv, "8s:t:n:k:r:m:")) != -1) {
        switch (option) {
        case '8':
            int8 = true;
            break;
        case 's':
            set = optarg;
            break;
        case 't':
            type = optarg;
            break;
        case 'n':
            rows = atol(optarg);
            break;
        case 'k':
            n_tok = atoi(optarg);
            break;
        case 'r':
            repeats = atoi(optarg);
            break;
        case 'm':
            mib = (size_t)strtoul(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    if (rows < 1 || rows > MAX_OUT || repeats < 1 || repeats > MAX_REPEATS || mib < 32 ||
        mib > 65536 || n_tok < 1 || n_tok > N_TOK) {
        fprintf(stderr, "bench_matmul: ROWS 1..%d, TOKENS 1..%d, REPEATS 1..%d, MIB 32..65536\n",
                MAX_OUT, N_TOK, MAX_REPEATS);
        return 2;
    }
    return run(set, int8, type, rows, n_tok, repeats, mib);
}
