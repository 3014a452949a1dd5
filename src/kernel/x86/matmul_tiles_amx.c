/* The amx set: products of several tokens with quantized weights by the matrix unit (AMX-INT8) that some x86 server and
 * workstation processors have; all else is the avx512 set's.
 *
 * One instruction multiplies a tile of up to 16 tokens and 64 columns of activations with a tile of 64 columns and 16
 * rows of weights: [16][64] bytes each, the weights as units of 4 columns, which is how a panel holds them once its
 * codes are bytes. Weights are taken apart once per block for up to 32 tokens, whose activations are laid out for a range
 * of columns at a time. Integer sums are exact, and the float steps are those of the avx512 set: same bits. Source of the
 * tile instructions: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
 *
 * Ranges: products of weight and scale fit their bytes. Q2_K at most 45; Q3_K, negated, -128..124 (as it is +128 is
 * reached); Q4_K and Q5_K at most 31 * 7 = 217, unsigned; Q6_K and IQ4_XS within +-4096, so -32..32 above the lower 7 bits.
 * Planes are joined modulo 2^32, and the whole sum fits 32 bits (quant.h).
 */
#include "kernel/kernel_internal.h"

/* clang 14 and older spell it without the second underscore. */
#if defined(__x86_64__) && (defined(__AMX_INT8__) || defined(__AMXINT8__))

#include "kernel/x86/matmul_q256_avx512.h"
#include "kernel/x86/matmul_q32_avx512.h"

/* Tokens that share weights taken apart: their activations of a step fit the first cache beside everything else.
 * Activations are laid out for as many columns as have room, 128 KiB. */
enum {
    TILE = 16,  /* tokens, and rows                              */
    CHUNK = 64, /* columns side by side in a tile of activations */
    TOKENS = 2 * TILE,
    ACT_TILES = 64,     /* pairs of tiles of activations laid out        */
    MAX_CHUNKS = 4,     /* of weights taken apart at a time              */
    MAX_SUMS = 4,       /* tiles of sums of a step                       */
    MIN_TOKENS_256 = 8, /* fewer are faster without tiles: blocks of 256 */
    MIN_TOKENS_32 = 12, /* and of 32                                     */
};

/* Tiles: of sums, of activations in two planes, and of weights in up to two. Macros, because the instructions take their
 * names as text. */
#define SUM_0 0
#define SUM_1 1
#define SUM_2 2
#define SUM_3 3
#define HI 4
#define LO 5
#define WEIGHTS 6
#define WEIGHTS_2 7

/* The compiler does not know what tile instructions read and write. */
#define TILES_MEET_MEMORY() __asm__ volatile("" ::: "memory")

typedef int8_t act_tile[TILE][CHUNK];
typedef int8_t weight_tile[CHUNK / 4][4 * FM_PANEL_ROWS];
typedef int32_t sum_tile[TILE][FM_PANEL_ROWS];

/* Activations of up to TOKENS tokens and RANGE columns, weights taken apart, and sums on their way. */
typedef struct {
    _Alignas(64) act_tile act[ACT_TILES][2]; /* [tile of tokens][chunk] */
    _Alignas(64) weight_tile weights[MAX_CHUNKS][2];
    _Alignas(64) sum_tile sum[MAX_SUMS];
    _Alignas(64) float out[TOKENS][FM_PANEL_ROWS];
    float d[2 * ACT_TILES][TILE], dsum[2 * ACT_TILES][TILE]; /* of activations in blocks of 32 */
    int n_tok, n_tile, tile_tok; /* tokens, tiles, tokens per tile but the last */
    int n_chunk;                 /* chunks of a tile that are laid out at a time  */
} work_amx;

/* Shapes of the tiles for tok tokens and n_col columns. */
static void configure(int tok, int n_col)
{
    struct {
        uint8_t palette, start_row, zero[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } c = {.palette = 1};
    for (int i = SUM_0; i <= SUM_3; i++) {
        c.rows[i] = (uint8_t)tok;
        c.row_bytes[i] = 4 * FM_PANEL_ROWS;
    }
    c.rows[HI] = c.rows[LO] = (uint8_t)tok;
    c.row_bytes[HI] = c.row_bytes[LO] = (uint16_t)n_col;
    c.rows[WEIGHTS] = c.rows[WEIGHTS_2] = (uint8_t)(n_col / 4);
    c.row_bytes[WEIGHTS] = c.row_bytes[WEIGHTS_2] = 4 * FM_PANEL_ROWS;
    TILES_MEET_MEMORY();
    _tile_loadconfig(&c);
}

/* The first of n_tok tokens, which are shared out evenly among as few rounds as will do, and so are those of a round
 * among tiles. */
static void share_tokens(work_amx *a, int64_t n_tok)
{
    const int64_t n_round = (n_tok + TOKENS - 1) / TOKENS;
    a->n_tok = (int)((n_tok + n_round - 1) / n_round);
    a->n_tile = (a->n_tok + TILE - 1) / TILE;
    a->tile_tok = (a->n_tok + a->n_tile - 1) / a->n_tile;
    a->n_chunk = ACT_TILES / a->n_tile;
}

/* Rows of y before and after a range of columns. */
static void start_rows(work_amx *a, float *const *y, int64_t row, bool first)
{
    for (int t = 0; t < a->n_tok; t++)
        _mm512_storeu_ps(a->out[t], first ? _mm512_setzero_ps() : _mm512_loadu_ps(y[t] + row));
}

static void finish_rows(const work_amx *a, float *const *y, int64_t row)
{
    for (int t = 0; t < a->n_tok; t++) _mm512_storeu_ps(y[t] + row, _mm512_loadu_ps(a->out[t]));
}

/* Token t's place in the first chunk of its tile; the next chunk is 2 * sizeof(act_tile) further. */
static int8_t *act_row(work_amx *a, int t)
{
    return a->act[t / a->tile_tok * a->n_chunk][0][t % a->tile_tok];
}

/* Sums that are stored, or about to be: those of tokens [at, last) of a tile for one step. Their float step stands
 * between the multiplications of the next step and its stores: those take long and need no vectors, and what they
 * stored should be read much later. */
typedef struct {
    const void *head; /* what the float step needs of the weights  */
    int64_t block;    /* in the rows; of 32 columns: in work_amx.d */
    int first, at, last;
} pending_sums;

static FM_ALWAYS_INLINE pending_sums pending_of(const work_amx *a, int tile, const void *head,
                                                int64_t block)
{
    const int first = tile * a->tile_tok, last = first + a->tile_tok;
    return (pending_sums){.head = head,
                          .block = block,
                          .first = first,
                          .at = first,
                          .last = last < a->n_tok ? last : a->n_tok};
}

static FM_ALWAYS_INLINE __m512i shifted_sum(__m512i high, __m512i low, const int shift)
{
    return _mm512_add_epi32(_mm512_slli_epi32(high, (unsigned)shift), low);
}

/* The sum of token t over the planes, of which sum has a tile each. */
static FM_ALWAYS_INLINE __m512i join_planes(const sum_tile *sum, int t, const int shift,
                                            const int n_plane)
{
    const __m512i high = load_512(sum[0][t]);
    return n_plane == 1 ? _mm512_slli_epi32(high, (unsigned)shift)
                        : shifted_sum(high, load_512(sum[1][t]), shift);
}

/* ---- blocks of 256 ----------------------------------------------------------------------- */

/* Weights meet their scale before the tiles, so that sums run over a whole block (or the part that the format's
 * float step covers): as products w sc in one byte or two. */
typedef enum {
    ONE_UNSIGNED, /* w sc                                                                     */
    ONE_NEGATIVE, /* -w sc, w signed                                                          */
    TWO_SCALES,   /* w (sc / 8) and w (sc % 8), unsigned                                      */
    TWO_BYTES,    /* w sc in bits from 7 up and the 7 below, w signed                         */
} fold;

static FM_ALWAYS_INLINE int fold_shift(const fold f)
{
    return f == TWO_SCALES ? 3 : 7;
}

static FM_ALWAYS_INLINE bool fold_is_double(const fold f)
{
    return f == TWO_SCALES || f == TWO_BYTES;
}

static void lay_out_256(work_amx *a, const void *const *act, int64_t block0, int n_block,
                        int n_plane)
{
    for (int t = 0; t < a->n_tok; t++) {
        const fm_act_i13_256 *const x = (const fm_act_i13_256 *)act[t] + block0;
        int8_t *to = act_row(a, t);
        for (int b = 0; b < n_block; b++) {
            for (int c = 0; c < 256; c += CHUNK, to += 2 * sizeof(act_tile)) {
                _mm512_store_si512(to, load_512(x[b].hi + c));
                if (n_plane == 2) _mm512_store_si512(to + sizeof(act_tile), load_512(x[b].lo + c));
            }
        }
    }
}

/* The same 16 bits twice in every lane. */
static FM_ALWAYS_INLINE __m512i twice_16(__m512i v)
{
    return _mm512_or_si512(_mm512_slli_epi32(v, 16),
                           _mm512_and_si512(v, _mm512_set1_epi32(0xffff)));
}

/* Products of signed bytes with sc (a 16-bit scale twice): of even bytes and of odd ones, 16 bits each. */
static FM_ALWAYS_INLINE void multiply_bytes(__m512i *even, __m512i *odd, __m512i w, __m512i sc)
{
    *even = _mm512_mullo_epi16(_mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8), sc);
    *odd = _mm512_mullo_epi16(_mm512_srai_epi16(w, 8), sc);
}

/* Low bytes of even and high bytes of odd, each in its place. */
static FM_ALWAYS_INLINE __m512i merge_bytes(__m512i even, __m512i odd)
{
    return _mm512_ternarylogic_epi32(_mm512_set1_epi16(0xff), even, odd, 0xca);
}

/* What the float steps of a panel's block need of it. */
typedef struct {
    halves_512 halves;
    __m512i mn[16];
} head_256;

/* Groups [k0, k0 + n) of a panel's block. */
static FM_ALWAYS_INLINE void take_apart_256(work_amx *a, const uint8_t *panel, const int k0,
                                            const int n, const shape_256 shape, const fold f,
                                            scale_fn *scale, unit_fn *unit)
{
    const __m512i offset = _mm512_set1_epi8((char)((32 * shape.offset_32) >> shape.down));
    const int per_chunk = CHUNK / 4 / shape.n_unit;
    FM_UNROLL
    for (int k = 0; k < n; k++) {
        int8_t *const to = a->weights[k / per_chunk][0][k % per_chunk * shape.n_unit];
        int8_t *const to_2 = a->weights[k / per_chunk][1][k % per_chunk * shape.n_unit];
        const __m512i sc = scale(panel, k0 + k);
        __m512i w[8];
        FM_UNROLL
        for (int u = 0; u < shape.n_unit; u++) w[u] = unit(panel, k0 + k, u, 0);
        FM_UNROLL
        for (int u = 0; u < shape.n_unit; u++) {
            __m512i even, odd;
            if (shape.down) w[u] = _mm512_srli_epi32(w[u], (unsigned)shape.down);
            switch (f) {
            case ONE_UNSIGNED:
                w[u] = _mm512_mullo_epi16(w[u], sc);
                break;
            case ONE_NEGATIVE:
                multiply_bytes(&even, &odd, _mm512_sub_epi8(offset, w[u]), twice_16(sc));
                w[u] = merge_bytes(even, _mm512_slli_epi16(odd, 8));
                break;
            case TWO_SCALES:
                _mm512_store_si512(
                    to_2 + 64 * u,
                    _mm512_mullo_epi16(w[u], twice_16(_mm512_and_si512(sc, _mm512_set1_epi32(7)))));
                w[u] = _mm512_mullo_epi16(w[u], twice_16(_mm512_srli_epi32(sc, 3)));
                break;
            case TWO_BYTES:
                multiply_bytes(&even, &odd, _mm512_sub_epi8(w[u], offset), twice_16(sc));
                _mm512_store_si512(to_2 + 64 * u,
                                   _mm512_and_si512(merge_bytes(even, _mm512_slli_epi16(odd, 8)),
                                                    _mm512_set1_epi8(0x7f)));
                w[u] = merge_bytes(_mm512_srai_epi16(even, 7), _mm512_slli_epi16(odd, 1));
                break;
            }
            _mm512_store_si512(to + 64 * u, w[u]);
        }
    }
}

/* The float step of the next n pending tokens. */
static FM_ALWAYS_INLINE void settle_256(work_amx *a, pending_sums *p, const void *const *act, int n,
                                        const int n_plane, const shape_256 shape, const fold f)
{
    shape_256 scaled = shape;
    scaled.down = 0;
    const head_256 *const h = p->head;
    TILES_MEET_MEMORY();
    for (; n > 0 && p->at < p->last; n--, p->at++) {
        const int t = p->at - p->first;
        __m512i sum = join_planes(a->sum, t, FM_ACT_256_SHIFT, n_plane);
        if (fold_is_double(f))
            sum = shifted_sum(sum, join_planes(a->sum + 2, t, FM_ACT_256_SHIFT, n_plane),
                              fold_shift(f));
        if (f == ONE_NEGATIVE) sum = _mm512_sub_epi32(_mm512_setzero_si512(), sum);
        const fm_act_i13_256 *const x = (const fm_act_i13_256 *)act[p->at] + p->block;
        __m512i low;
        sum_minima(&low, h->mn, NULL, &x, 1, shape.min, NULL);
        add_block_256(a->out[p->at], sum, low, h->halves, x->d, scaled);
    }
    TILES_MEET_MEMORY();
}

/* Sums of one step for one tile of tokens, n_chunk chunks from column chunk c on; meanwhile p's float step. */
static FM_ALWAYS_INLINE void sum_step_256(work_amx *a, int tile, int c, const int n_chunk,
                                          pending_sums *p, const void *const *act,
                                          const int n_plane, const shape_256 shape, const fold f)
{
    const bool is_double = fold_is_double(f);
    _tile_zero(SUM_0);
    if (n_plane == 2) _tile_zero(SUM_1);
    if (is_double) _tile_zero(SUM_2);
    if (is_double && n_plane == 2) _tile_zero(SUM_3);
    const int n = TILE / n_chunk / (n_plane * (is_double ? 2 : 1));
    FM_UNROLL
    for (int i = 0; i < n_chunk; i++) {
        settle_256(a, p, act, n, n_plane, shape, f);
        _tile_loadd(WEIGHTS, a->weights[i][0], 64);
        _tile_loadd(HI, a->act[tile * a->n_chunk + c + i][0], CHUNK);
        if (f == TWO_SCALES)
            _tile_dpbsud(SUM_0, HI, WEIGHTS);
        else
            _tile_dpbssd(SUM_0, HI, WEIGHTS);
        if (n_plane == 2) {
            settle_256(a, p, act, n, n_plane, shape, f);
            _tile_loadd(LO, a->act[tile * a->n_chunk + c + i][1], CHUNK);
            if (f == TWO_SCALES)
                _tile_dpbsud(SUM_1, LO, WEIGHTS);
            else
                _tile_dpbssd(SUM_1, LO, WEIGHTS);
        }
        if (!is_double) continue;
        settle_256(a, p, act, n, n_plane, shape, f);
        _tile_loadd(WEIGHTS_2, a->weights[i][1], 64);
        _tile_dpbsud(SUM_2, HI, WEIGHTS_2);
        if (n_plane == 1) continue;
        settle_256(a, p, act, n, n_plane, shape, f);
        _tile_dpbsud(SUM_3, LO, WEIGHTS_2);
    }
    TILES_MEET_MEMORY();
    _tile_stored(SUM_0, a->sum[0], 64);
    if (n_plane == 2) _tile_stored(SUM_1, a->sum[1], 64);
    if (is_double) _tile_stored(SUM_2, a->sum[2], 64);
    if (is_double && n_plane == 2) _tile_stored(SUM_3, a->sum[3], 64);
    TILES_MEET_MEMORY();
}

static FM_ALWAYS_INLINE void rows_256(const fm_matrix *w, int64_t row0, int64_t row1,
                                      const void *const *act, float *const *y, int64_t n_tok,
                                      const int n_plane, const shape_256 shape, const fold f,
                                      scale_fn *scale, minimum_fn *minimum, unit_fn *unit)
{
    work_amx a;
    head_256 heads[2]; /* of this step and the last one */
    const int64_t n_block = w->n_in / 256;
    const int n_group = shape.n_group / shape.n_part, bytes = shape.block_bytes * FM_PANEL_ROWS;
    const int n_chunk = 256 / CHUNK / shape.n_part;
    for (int64_t left = n_tok; left > 0; left -= a.n_tok, act += a.n_tok, y += a.n_tok) {
        share_tokens(&a, left);
        configure(a.tile_tok, CHUNK);
        for (int64_t b0 = 0, n; b0 < n_block; b0 += n) {
            n = a.n_chunk / 4;
            if (n > n_block - b0) n = n_block - b0;
            lay_out_256(&a, act, b0, (int)n, n_plane);
            for (int64_t row = row0; row < row1; row += FM_PANEL_ROWS) {
                const uint8_t *panel = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes +
                                       (uint64_t)(b0 * bytes);
                pending_sums p = {0};
                start_rows(&a, y, row, b0 == 0);
                for (int b = 0; b < n; b++, panel += bytes) {
                    head_256 *const h = &heads[b & 1];
                    h->halves = read_halves(panel, shape);
                    read_minima(h->mn, panel, shape.min, minimum);
                    FM_UNROLL
                    for (int part = 0; part < shape.n_part; part++) {
                        fm_prefetch_panel(panel, bytes, part, shape.n_part);
                        take_apart_256(&a, panel, part * n_group, n_group, shape, f, scale, unit);
                        for (int i = 0; i < a.n_tile; i++) {
                            sum_step_256(&a, i, 4 * b + n_chunk * part, n_chunk, &p, act, n_plane,
                                         shape, f);
                            p = pending_of(&a, i, h, b0 + b);
                        }
                    }
                }
                settle_256(&a, &p, act, TILE, n_plane, shape, f);
                finish_rows(&a, y, row);
            }
        }
    }
    _tile_release();
}

/* ---- blocks of 32 ------------------------------------------------------------------------ */

enum { STEP_BLOCKS = 2 * MAX_CHUNKS }; /* of weights taken apart at a time */

typedef struct {
    __m512 d, m;
} head_32;

static void lay_out_32(work_amx *a, const void *const *act, int64_t block0, int n_block,
                       int n_plane)
{
    for (int t = 0; t < a->n_tok; t++) {
        const fm_act_i15_32 *const x = (const fm_act_i15_32 *)act[t] + block0;
        int8_t *to = act_row(a, t);
        const int tile = t / a->tile_tok, nth = t % a->tile_tok;
        for (int b = 0; b < n_block; b++) {
            memcpy(to + b % 2 * 32, x[b].hi, 32);
            if (n_plane == 2) memcpy(to + sizeof(act_tile) + b % 2 * 32, x[b].lo, 32);
            if (b % 2) to += 2 * sizeof(act_tile);
            a->d[2 * tile * a->n_chunk + b][nth] = x[b].d;
            a->dsum[2 * tile * a->n_chunk + b][nth] = x[b].dsum;
        }
    }
}

/* How a block of 32 becomes tiles of weights. */
typedef enum {
    UNPACKED, /* into bytes, turned from q + offset to q                                         */
    IN_PLACE, /* Q8_0: its panels hold signed bytes as they are needed, behind the scales         */
} tile_source;

enum { BLOCK_TILE_BYTES = 32 * FM_PANEL_ROWS };

/* Scales of n blocks of a panel, and unless they are used in place their weights. */
static FM_ALWAYS_INLINE void take_apart_32(work_amx *a, head_32 *h, const uint8_t *panel, int n,
                                           const shape_32 shape, const tile_source source,
                                           scales_32_fn *scales, unit_32_fn *unit)
{
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    const __m512i offset = _mm512_set1_epi8((char)shape.offset);
    int8_t *to = a->weights[0][0][0];
    for (int k = 0; k < n; k++, panel += bytes, to += BLOCK_TILE_BYTES) {
        fm_prefetch_panel(panel, bytes, 0, 1);
        scales(&h[k].d, &h[k].m, panel);
        if (source == IN_PLACE) continue;
        FM_UNROLL
        for (int u = 0; u < 8; u++)
            _mm512_store_si512(to + 64 * u, _mm512_sub_epi8(unit(panel, u), offset));
    }
}

/* The float step of the next n pending tokens. */
static FM_ALWAYS_INLINE void settle_32(work_amx *a, pending_sums *p, sum_tile *sum, int n,
                                       const int n_plane, const shape_32 shape)
{
    const head_32 *const h = p->head;
    TILES_MEET_MEMORY();
    for (; n > 0 && p->at < p->last; n--, p->at++) {
        const int t = p->at - p->first;
        const __m512i s = join_planes(sum, t, FM_ACT_32_SHIFT, n_plane);
        const __m512 acc =
            add_block_32(_mm512_loadu_ps(a->out[p->at]), s, h->d, shape.has_min ? h->m : h->d,
                         a->d[p->block][t], a->dsum[p->block][t], shape);
        _mm512_storeu_ps(a->out[p->at], acc);
    }
    TILES_MEET_MEMORY();
}

/* Blocks on their way: the sums of the last one are in tiles, those of the one before in memory. */
typedef struct {
    pending_sums stored, held;
} pipe_32;

/* Stores the sums that tiles hold, with the float step of those stored before on both sides of it; sum_held and
 * sum_stored are where in a->sum they go and lie. */
#define MOVE_ON_32(a, pipe, tile_hi, tile_lo, sum_held, sum_stored, n_plane, shape)                \
    do {                                                                                           \
        settle_32(a, &(pipe)->stored, (a)->sum + (sum_stored), TILE / 2, n_plane, shape);          \
        _tile_stored(tile_hi, (a)->sum[sum_held], 64);                                             \
        if (n_plane == 2) _tile_stored(tile_lo, (a)->sum[(sum_held) + 1], 64);                     \
        settle_32(a, &(pipe)->stored, (a)->sum + (sum_stored), TILE, n_plane, shape);              \
        (pipe)->stored = (pipe)->held;                                                             \
        (pipe)->held = (pending_sums){0};                                                          \
    } while (0)

/* Sums of one block (half of chunk c) for one tile of tokens. */
#define SUM_BLOCK_32(a, tile, c, half, weights, sum_hi, sum_lo, weights_tile, n_plane)             \
    do {                                                                                           \
        const int8_t *const hi_ = &(a)->act[(tile) * (a)->n_chunk + (c)][0][0][32 * (half)];       \
        TILES_MEET_MEMORY();                                                                       \
        _tile_zero(sum_hi);                                                                        \
        if (n_plane == 2) _tile_zero(sum_lo);                                                      \
        _tile_loadd(weights_tile, weights, 64);                                                    \
        _tile_loadd(HI, hi_, CHUNK);                                                               \
        _tile_dpbssd(sum_hi, HI, weights_tile);                                                    \
        if (n_plane == 2) {                                                                        \
            _tile_loadd(LO, hi_ + sizeof(act_tile), CHUNK);                                        \
            _tile_dpbssd(sum_lo, LO, weights_tile);                                                \
        }                                                                                          \
    } while (0)

/* n blocks, whose weights begin at w and lie stride bytes apart, for one tile of tokens. Blocks take turns with two sets of
 * tiles, and an odd one at the end leaves the pipe empty. */
static FM_ALWAYS_INLINE void sum_step_32(work_amx *a, pipe_32 *pipe, int tile, const head_32 *h,
                                         int64_t block, int c, int n, const void *w, int stride,
                                         const int n_plane, const shape_32 shape)
{
    const uint8_t *at = w;
    for (int k = 0; k < n; k += 2, at += 2 * stride) {
        SUM_BLOCK_32(a, tile, c + k / 2, 0, at, SUM_0, SUM_1, WEIGHTS, n_plane);
        MOVE_ON_32(a, pipe, SUM_2, SUM_3, 2, 0, n_plane, shape);
        pipe->held = pending_of(a, tile, h + k, block + k);
        if (k + 1 == n) {
            MOVE_ON_32(a, pipe, SUM_0, SUM_1, 0, 2, n_plane, shape);
            settle_32(a, &pipe->stored, a->sum, TILE, n_plane, shape);
            return;
        }
        SUM_BLOCK_32(a, tile, c + k / 2, 1, at + stride, SUM_2, SUM_3, WEIGHTS_2, n_plane);
        MOVE_ON_32(a, pipe, SUM_0, SUM_1, 0, 2, n_plane, shape);
        pipe->held = pending_of(a, tile, h + k + 1, block + k + 1);
    }
}

static FM_ALWAYS_INLINE void rows_32(const fm_matrix *w, int64_t row0, int64_t row1,
                                     const void *const *act, float *const *y, int64_t n_tok,
                                     const int n_plane, const shape_32 shape,
                                     const tile_source source, scales_32_fn *scales,
                                     unit_32_fn *unit)
{
    work_amx a;
    head_32 heads[2][STEP_BLOCKS]; /* of this step and the last one */
    const int64_t n_block = w->n_in / 32;
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    const int stride = source == IN_PLACE ? bytes : BLOCK_TILE_BYTES;
    for (int64_t left = n_tok; left > 0; left -= a.n_tok, act += a.n_tok, y += a.n_tok) {
        share_tokens(&a, left);
        configure(a.tile_tok, 32);
        for (int64_t b0 = 0, n; b0 < n_block; b0 += n) {
            n = 2 * a.n_chunk;
            if (n > n_block - b0) n = n_block - b0;
            lay_out_32(&a, act, b0, (int)n, n_plane);
            for (int64_t row = row0; row < row1; row += FM_PANEL_ROWS) {
                const uint8_t *panel = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes +
                                       (uint64_t)(b0 * bytes);
                pipe_32 pipe = {0};
                start_rows(&a, y, row, b0 == 0);
                for (int b = 0, step; b < n; b += step, panel += step * bytes) {
                    head_32 *const h = heads[b / STEP_BLOCKS & 1];
                    const void *const tiles =
                        source == IN_PLACE ? (const void *)(panel + 2 * FM_PANEL_ROWS) : a.weights;
                    step = (int)n - b < STEP_BLOCKS ? (int)n - b : STEP_BLOCKS;
                    take_apart_32(&a, h, panel, step, shape, source, scales, unit);
                    for (int i = 0; i < a.n_tile; i++)
                        sum_step_32(&a, &pipe, i, h, 2 * i * a.n_chunk + b, b / 2, step, tiles,
                                    stride, n_plane, shape);
                }
                MOVE_ON_32(&a, &pipe, SUM_2, SUM_3, 2, 0, n_plane, shape);
                settle_32(&a, &pipe.stored, a.sum + 2, TILE, n_plane, shape);
                finish_rows(&a, y, row);
            }
        }
    }
    _tile_release();
}

/* ---- the set ----------------------------------------------------------------------------- */

#define TILES_256_OF(type, n_plane, fold, scale, minimum, unit)                                    \
    static void type##_##n_plane(const fm_matrix *w, int64_t row0, int64_t row1,                   \
                                 const void *const *act, float *const *y, int64_t n_tok)           \
    {                                                                                              \
        rows_256(w, row0, row1, act, y, n_tok, n_plane, shape_##type, fold, scale, minimum, unit); \
    }
#define TILES_256(type, fold, scale, minimum, unit)                                                \
    TILES_256_OF(type, 1, fold, scale, minimum, unit)                                              \
    TILES_256_OF(type, 2, fold, scale, minimum, unit)
TILES_256(q2_k, ONE_UNSIGNED, scale_q2_k, minimum_q2_k, unit_q2_k)
TILES_256(q3_k, ONE_NEGATIVE, scale_q3_k, NULL, unit_q3_k)
TILES_256(q4_k, TWO_SCALES, scale_6bit, minimum_6bit, unit_q4_k)
TILES_256(q5_k, TWO_SCALES, scale_6bit, minimum_6bit, unit_q5_k)
TILES_256(q6_k, TWO_BYTES, scale_q6_k, NULL, unit_q6_k)
TILES_256(iq4_xs, TWO_BYTES, scale_iq4_xs, NULL, unit_iq4_xs)

#define TILES_32_OF(type, n_plane, source)                                                         \
    static void type##_##n_plane(const fm_matrix *w, int64_t row0, int64_t row1,                   \
                                 const void *const *act, float *const *y, int64_t n_tok)           \
    {                                                                                              \
        rows_32(w, row0, row1, act, y, n_tok, n_plane, shape_##type, source, scales_##type,        \
                unit_##type);                                                                      \
    }
#define TILES_32(type, source) TILES_32_OF(type, 1, source) TILES_32_OF(type, 2, source)
TILES_32(q4_0, UNPACKED)
TILES_32(q4_1, UNPACKED)
TILES_32(q5_0, UNPACKED)
TILES_32(q5_1, UNPACKED)
TILES_32(q8_0, IN_PLACE)
TILES_32(mxfp4, UNPACKED)
TILES_32(iq4_nl, UNPACKED)

/* By planes of activations and type id. */
#define TABLE(n_plane)                                                                             \
    {                                                                                              \
        [FM_TYPE_Q2_K] = q2_k_##n_plane, [FM_TYPE_Q3_K] = q3_k_##n_plane,                          \
        [FM_TYPE_Q4_K] = q4_k_##n_plane, [FM_TYPE_Q5_K] = q5_k_##n_plane,                          \
        [FM_TYPE_Q6_K] = q6_k_##n_plane, [FM_TYPE_IQ4_XS] = iq4_xs_##n_plane,                      \
        [FM_TYPE_Q4_0] = q4_0_##n_plane, [FM_TYPE_Q4_1] = q4_1_##n_plane,                          \
        [FM_TYPE_Q5_0] = q5_0_##n_plane, [FM_TYPE_Q5_1] = q5_1_##n_plane,                          \
        [FM_TYPE_Q8_0] = q8_0_##n_plane, [FM_TYPE_MXFP4] = mxfp4_##n_plane,                        \
        [FM_TYPE_IQ4_NL] = iq4_nl_##n_plane,                                                       \
    }
static const fm_matmul_fn tile_kernels[2][FM_KERNEL_TYPES] = {TABLE(1), TABLE(2)};

/* A product with activations of n_plane planes; rest: the avx512 set's. */
static void product(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                    float *const *y, int64_t n_tok, int n_plane, fm_matmul_fn rest)
{
    /* Formats of several planes have ids beyond the table. */
    const int64_t panel_rows = w->type->n_plane ? 0 : fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_rows ? row1 : panel_rows;
    const int64_t least = w->type->act == FM_ACT_I13_256 ? MIN_TOKENS_256 : MIN_TOKENS_32;
    if (n_tok >= least && row0 < split && tile_kernels[n_plane - 1][w->type->id]) {
        tile_kernels[n_plane - 1][w->type->id](w, row0, split, act, y, n_tok);
        row0 = split;
    }
    if (row0 < row1) rest(w, row0, row1, act, y, n_tok);
}

static void matmul(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                   float *const *y, int64_t n_tok)
{
    product(w, row0, row1, act, y, n_tok, 2, fm_product_avx512);
}

static void matmul_int8(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                        float *const *y, int64_t n_tok)
{
    product(w, row0, row1, act, y, n_tok, 1, fm_product_avx512_int8);
}

bool fm_matmul_amx(fm_kernels *k)
{
    k->matmul = matmul;
    return true;
}

void fm_int8_amx(fm_kernels *k)
{
    k->matmul = matmul_int8;
}

#else

bool fm_matmul_amx(fm_kernels *k)
{
    (void)k;
    return false;
}

void fm_int8_amx(fm_kernels *k)
{
    (void)k;
}

#endif
