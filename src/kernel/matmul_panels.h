/* What the panel kernels of the vector sets share: how rows and tokens are grouped. avx512 takes weights apart in
 * registers, for up to eight tokens (fm_matmul_panel_rows); avx2, neon, formats of code books and, where words are faster,
 * many tokens of avx512 in memory, for more (fm_matmul_by_stretch).
 *
 * A panel kernel computes 16 rows for a fixed number of tokens; its results go to out [nt][16].
 * Weights are taken apart once per call, so more tokens per call means less work per product.
 */
#pragma once

#include "kernel/generic/matmul_rows.h"

#if defined(__clang__)
#define FM_UNROLL _Pragma("clang loop unroll(full)")
#define FM_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define FM_UNROLL _Pragma("GCC unroll 16")
#define FM_NO_UNROLL _Pragma("GCC unroll 1")
#endif

/* What p points at is in memory from here on, not in registers that sums need, nor stored once more. */
static FM_ALWAYS_INLINE void fm_in_memory(const void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

/* Asks for a line of weights, for the second-level cache. */
static FM_ALWAYS_INLINE void fm_prefetch_far(const uint8_t *p)
{
    __builtin_prefetch(p, 0, 2);
}

/* The same for the first-level cache. */
static FM_ALWAYS_INLINE void fm_prefetch_near(const uint8_t *p)
{
    __builtin_prefetch(p, 0, 3);
}

/* act [nt]: the tokens' activation rows. */
typedef void (*fm_panel_fn)(float *out, const uint8_t *panel, int64_t n_block,
                            const void *const *act);

/* Kernels of one type for 1, 2, 4 and 8 tokens, of which the last may be NULL; and, unless NULL, for
 * 3, 5, 6 and 7. */
typedef struct {
    fm_panel_fn by_log2[4], between[4];
} fm_panel_kernels;

/* The kernel for nt tokens, or the next larger one. */
static inline fm_panel_fn fm_panel_kernel(const fm_panel_kernels *k, int64_t nt)
{
    static const int8_t between[] = {-1, -1, -1, 0, -1, 1, 2, 3, -1};
    if (between[nt] >= 0 && k->between[between[nt]]) return k->between[between[nt]];
    return k->by_log2[nt > 4 ? 3 : nt > 2 ? 2 : nt > 1 ? 1 : 0];
}

/* How far ahead of its use a weight is asked for; and once more, for the first-level cache (fm_asks_twice). */
enum { FM_PANEL_AHEAD_BYTES = 8192, FM_PANEL_NEAR_BYTES = 4096 };

/* True where weights of one or two tokens are asked for twice: with a full memory bus a processor may forget some of what it
 * was asked for. Set by kernel.c before the first product. */
extern bool fm_asks_twice;

/* Asks for lines [first, end) of what lies `ahead` bytes behind a block; twice: and for the same lines nearer to it. */
static FM_ALWAYS_INLINE void fm_prefetch_lines(const uint8_t *block, const int ahead,
                                               const int first, const int end, const bool twice)
{
    FM_UNROLL
    for (int i = first; i < end; i++) fm_prefetch_far(block + ahead + 64 * i);
    if (!twice) return;
    FM_UNROLL
    for (int i = first; i < end; i++) fm_prefetch_near(block + FM_PANEL_NEAR_BYTES + 64 * i);
}

/* Part k of n of what lies FM_PANEL_AHEAD_BYTES behind a block of 16 rows (bytes long). The processor follows a stream
 * by itself, but not across pages, not in the order of some formats' fields, and not far enough when many cores
 * make the memory's answers late. Into the second-level cache: the first level can wait for
 * too few lines at a time to fill the memory bus. At the end of the matrix that is some lines
 * behind it, which a prefetch may name. */
static FM_ALWAYS_INLINE void fm_prefetch_panel(const uint8_t *block, const int bytes, const int k,
                                               const int n)
{
    const int n_line = (bytes / 64 + n) / n;
    fm_prefetch_lines(block + 64 * n_line * k, FM_PANEL_AHEAD_BYTES, 0, n_line, false);
}

/* The same by a kernel of nt tokens; one or two may ask twice. */
static FM_ALWAYS_INLINE void fm_prefetch_panel_for(const int nt, const uint8_t *block,
                                                   const int bytes, const int k, const int n)
{
    const int n_line = (bytes / 64 + n) / n;
    fm_prefetch_lines(block + 64 * n_line * k, FM_PANEL_AHEAD_BYTES, 0, n_line,
                      nt <= 2 && fm_asks_twice);
}

/* How a kernel goes through a block: from its first byte to its last, or through several fields side by side, or with
 * much to do for every line; or that the weights it goes through were brought near before. */
typedef enum { FM_READ_IN_ORDER, FM_READ_BY_FIELDS, FM_READ_ELSEWHERE } fm_read_order;

/* True where the processor follows a stream that is read in order, and does little else, as fast as the memory gives
 * it; asking ahead then only takes places among the lines that are waited for, and several rows side by side are
 * slower than one after the other. Set by kernel.c before the first product. */
extern bool fm_follows_streams;

/* Whether a product of nt tokens asks ahead. With several, products stand between the reads. */
static FM_ALWAYS_INLINE bool fm_asks_ahead(const fm_read_order order, const int nt)
{
    if (order == FM_READ_ELSEWHERE) return false;
    return nt > 1 || order == FM_READ_BY_FIELDS || !fm_follows_streams;
}

/* Asks ahead in a row that is read from end to end, a line or less at a time. */
static FM_ALWAYS_INLINE void fm_prefetch_row(const uint8_t *at)
{
    fm_prefetch_far(at + (fm_follows_streams ? 512 : FM_PANEL_AHEAD_BYTES));
}

/* The same for one token, a line at a time. */
static FM_ALWAYS_INLINE void fm_prefetch_row_of_one(const uint8_t *at)
{
    fm_prefetch_row(at);
    if (fm_asks_twice) fm_prefetch_near(at + FM_PANEL_NEAR_BYTES);
}

/* A stretch of panels that stays in the second-level cache while all tokens visit it. */
enum { FM_PANEL_STRETCH_BYTES = 256 * 1024 };

/* Panels [row0, row1), both multiples of 16. Tokens are shared out evenly among as few calls as will
 * do. A group for which there is no kernel is filled up with its first token, whose surplus results
 * are dropped. */
static inline void fm_matmul_panel_rows(const fm_matrix *w, int64_t row0, int64_t row1,
                                        const void *const *act, float *const *y, int64_t n_tok,
                                        const fm_panel_kernels *kernels)
{
    const uint64_t panel_bytes = w->row_bytes * FM_PANEL_ROWS;
    const int64_t n_block = w->n_in / w->type->block_elems;
    const int64_t group = kernels->by_log2[3] ? 8 : 4;
    int64_t stretch = (int64_t)(FM_PANEL_STRETCH_BYTES / panel_bytes) * FM_PANEL_ROWS;
    if (stretch < FM_PANEL_ROWS) stretch = FM_PANEL_ROWS;
    for (int64_t r0 = row0; r0 < row1; r0 += stretch) {
        const int64_t r1 = r0 + stretch < row1 ? r0 + stretch : row1;
        for (int64_t t0 = 0, nt; t0 < n_tok; t0 += nt) {
            const int64_t left = n_tok - t0, n_call = (left + group - 1) / group;
            nt = (left + n_call - 1) / n_call;
            const fm_panel_fn kernel = fm_panel_kernel(kernels, nt);
            const void *x[8];
            for (int64_t t = 0; t < 8; t++) x[t] = act[t0 + (t < nt ? t : 0)];
            const uint8_t *panel = (const uint8_t *)w->data + (uint64_t)r0 * w->row_bytes;
            for (int64_t row = r0; row < r1; row += FM_PANEL_ROWS, panel += panel_bytes) {
                float out[8 * FM_PANEL_ROWS];
                kernel(out, panel, n_block, x);
                for (int64_t t = 0; t < nt; t++)
                    memcpy(y[t0 + t] + row, out + t * FM_PANEL_ROWS, FM_PANEL_ROWS * sizeof *out);
            }
        }
    }
}

/* A whole quantized product: panels, then rows, which are also the way of panels of a type that
 * the set has no kernel for. kernels: by type id. */
static inline void fm_matmul_quantized(const fm_matrix *w, int64_t row0, int64_t row1,
                                       const void *const *act, float *const *y, int64_t n_tok,
                                       const fm_panel_kernels *kernels)
{
    const int64_t panel_rows = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_rows ? row1 : panel_rows;
    if (row0 < split && kernels[w->type->id].by_log2[0]) {
        fm_matmul_panel_rows(w, row0, split, act, y, n_tok, &kernels[w->type->id]);
        row0 = split;
    }
    if (row0 < row1) fm_rows_kernels[w->type->id](w, row0, row1, act, y, n_tok);
}

/* Rows of the stretches of panels of which all tokens visit one before the next, all about equally long. Weights taken
 * apart serve up to 32 tokens, those of code books with avx2, which have fewer bytes, up to 16; so a core asks for 2 bytes
 * in a cycle at most and the third-level cache can hold the stretch; the longer it is, the more rows share the activations'
 * being arranged. Measured with avx2; where they serve 64 tokens, a core asks for 2 GB/s, which memory has, and a stretch is
 * twice as long. Boards whose last cache is smaller than a stretch for each thread may want less. */
enum { FM_STRETCH_BYTES = 2 << 20 };
static inline int64_t fm_panel_stretch(const fm_matrix *w, int64_t n_row,
                                       int max_tok) /* n_row > 0 */
{
    const int64_t bytes = max_tok > 32 ? 2 * FM_STRETCH_BYTES : FM_STRETCH_BYTES;
    const int64_t most = bytes / (int64_t)w->row_bytes + 1;
    const int64_t n = (n_row + most - 1) / most, rows = (n_row + n - 1) / n;
    return (rows + FM_PANEL_ROWS - 1) / FM_PANEL_ROWS * FM_PANEL_ROWS;
}

/* Rows [row0, row1) for as many tokens as weights are taken apart for at once. */
typedef void fm_few_tokens_fn(const fm_matrix *w, int64_t row0, int64_t row1,
                              const void *const *act, float *const *y, int64_t nt,
                              const void *format);

/* All tokens, shared out evenly among as few calls as will do, meet a stretch of rows before the next one. */
static inline void fm_matmul_by_stretch(const fm_matrix *w, int64_t row0, int64_t row1,
                                        const void *const *act, float *const *y, int64_t n_tok,
                                        int max_tok, fm_few_tokens_fn *few, const void *format)
{
    if (row0 >= row1) return;
    const int64_t n_call = (n_tok + max_tok - 1) / max_tok;
    const int64_t stretch = fm_panel_stretch(w, row1 - row0, max_tok);
    for (int64_t r0 = row0; r0 < row1; r0 += stretch) {
        const int64_t r1 = r0 + stretch < row1 ? r0 + stretch : row1;
        for (int64_t c = 0; c < n_call; c++) {
            const int64_t t0 = n_tok * c / n_call, t1 = n_tok * (c + 1) / n_call;
            few(w, r0, r1, act + t0, y + t0, t1 - t0, format);
        }
    }
}

/* Sums of 16 rows of nt tokens to y, whose rows of tokens lie far apart; asks for where the next panel's go. */
static FM_ALWAYS_INLINE void fm_put_sums(float *const *y, int64_t row, int64_t nt,
                                         float (*acc)[FM_PANEL_ROWS])
{
    for (int64_t t = 0; t < nt; t++) {
        memcpy(y[t] + row, acc[t], sizeof acc[t]);
        __builtin_prefetch(y[t] + row + FM_PANEL_ROWS, 1);
    }
}

/* The sums so far of nt tokens from y, or zeros. */
static FM_ALWAYS_INLINE void fm_get_sums(float (*acc)[FM_PANEL_ROWS], float *const *y, int64_t row,
                                         int64_t nt, int first)
{
    for (int64_t t = 0; t < nt; t++) {
        if (first)
            memset(acc[t], 0, sizeof acc[t]);
        else
            memcpy(acc[t], y[t] + row, sizeof acc[t]);
    }
}

/* While block b of 32 activations of one token is arranged, the next token's, which lies elsewhere, is asked for. */
static FM_ALWAYS_INLINE void fm_ask_for_next_token(const void *const *act, int64_t t, int64_t nt,
                                                   int64_t b)
{
    if (t + 1 < nt) fm_prefetch_near((const uint8_t *)((const fm_act_i15_32 *)act[t + 1] + b));
}

/* How blocks of 256 of a format are taken apart once for several tokens: a block of 16 rows, the activations that it meets,
 * and the sums of both for 1, 2, ... tile_tokens tokens, which meet 16 rows in registers. */
enum { FM_APART_TOKENS = 64, FM_APART_TILE = 8 };
typedef struct {
    int tokens;       /* for how many at once, at most FM_APART_TOKENS */
    int blocks;       /* of activations are prepared at a time, for all tokens together */
    int tile_tokens;  /* at most FM_APART_TILE */
    size_t act_bytes; /* of a block of activations prepared */
    void (*prepare)(void *dst, const fm_act_i13_256 *x);
    void (*unpack)(void *dst, const uint8_t *panel);
    void (*tile[FM_APART_TILE])(float (*acc)[FM_PANEL_ROWS], const void *w, const void *x);
} fm_apart_256;

/* Panels [row0, row1) for up to f->tokens tokens. As many columns at a time as there is room for their activations;
 * between them the sums wait in y. x: room for f->blocks blocks of activations prepared, weights: for a block. */
static inline void fm_matmul_apart_256(const fm_matrix *w, int64_t row0, int64_t row1,
                                       const void *const *act, float *const *y, int64_t nt,
                                       const fm_apart_256 *f, uint8_t *x, void *weights)
{
    const uint64_t panel_bytes = w->row_bytes * FM_PANEL_ROWS;
    const uint64_t bytes = (uint64_t)w->type->block_bytes * FM_PANEL_ROWS;
    const int64_t n_block = w->n_in / w->type->block_elems, step = f->blocks / nt;
    const int64_t n_call = (nt + f->tile_tokens - 1) / f->tile_tokens;
    _Alignas(64) float acc[FM_APART_TOKENS][FM_PANEL_ROWS];
    for (int64_t b0 = 0; b0 < n_block; b0 += step) {
        const int64_t b1 = b0 + step < n_block ? b0 + step : n_block;
        for (int64_t t = 0; t < nt; t++)
            for (int64_t b = b0; b < b1; b++)
                f->prepare(x + f->act_bytes * (size_t)((b - b0) * nt + t),
                           (const fm_act_i13_256 *)act[t] + b);
        const uint8_t *panel = (const uint8_t *)w->data + (uint64_t)row0 * w->row_bytes;
        for (int64_t row = row0; row < row1; row += FM_PANEL_ROWS, panel += panel_bytes) {
            for (int64_t b = b0; b < b1; b++) {
                f->unpack(weights, panel + (uint64_t)b * bytes);
                for (int64_t c = 0, t = 0, n; c < n_call; c++, t += n) {
                    n = nt * (c + 1) / n_call - t;
                    if (b == b0) fm_get_sums(acc + t, y + t, row, n, b0 == 0);
                    f->tile[n - 1](acc + t, weights,
                                   x + f->act_bytes * (size_t)((b - b0) * nt + t));
                    if (b + 1 == b1) fm_put_sums(y + t, row, n, acc + t);
                }
            }
        }
    }
}
