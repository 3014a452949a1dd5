/* How products of blocks of 32 are computed by AVX2, for the formats of GGUF (matmul_q32_avx2.c) and those of several planes
 * (matmul_planar_avx2.c). A lane is a row; the two halves of a panel are computed together.
 *
 * Weights are brought to unsigned bytes q + offset, and the sum starts at -offset * (sum v). The
 * largest sum is 32 * 255 * 16256 = 1.33e8, per block, so the row length does not matter.
 *
 * One token multiplies planes as long as pairs of products fit 16 bits. For several tokens weights
 * (q, with its sign) and activations become words, as in matmul_q256_avx2.c: weights once for up to
 * 32 tokens, activations once per stretch of panels. With activations of 8 bits both stay bytes, as in
 * matmul_q256_int8_avx2.c. A block of 32 columns ends with five operations
 * on floats for every 32 on integers, so what is added to lies in the first cache, not in y, whose
 * rows are far apart.
 */
#pragma once

#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

#include "quant/planar.h"

/* A panel of 16 rows. */
typedef struct {
    const uint8_t *codes;        /* GGUF: the blocks */
    const uint8_t *scale, *bias; /* planes 1 and 2, if there are */
    int64_t n_block;             /* of 32 columns */
    int group_log2;              /* of as many blocks as share a scale, and bias */
    fm_scale scale_type;
} panel_32;

static inline panel_32 panel_at(const fm_matrix *w, int64_t row)
{
    const int n_plane = fm_type_n_plane(w->type);
    const uint64_t aux = (uint64_t)row * w->aux_row_bytes;
    return (panel_32){
        .codes = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes,
        .scale = n_plane > 1 ? (const uint8_t *)w->aux[0] + aux : NULL,
        .bias = n_plane > 2 ? (const uint8_t *)w->aux[1] + aux : NULL,
        .n_block = w->n_in / 32,
        .group_log2 = w->type->block_elems == 128  ? 2
                      : w->type->block_elems == 64 ? 1
                                                   : 0,
        .scale_type = (fm_scale)w->type->scale,
    };
}

/* Unit u of a half as unsigned bytes (block, half, u). */
typedef __m256i unit_fn(const uint8_t *, int, int);
/* Scale resp. minimum of a half: panel, its block b and where that begins. */
typedef __m256 scale_fn(const panel_32 *p, const uint8_t *block, int64_t b, int half);

typedef struct {
    int block_bytes; /* of what codes points at, per row */
    int n_pair;      /* units whose pair sums with the high plane fit 16 bits: 2, 4 or 8; 0: none */
    int offset;      /* in the unsigned weights */
    int has_min;
} shape_32;

/* fm_e8m0_half for 8 exponents. */
static FM_ALWAYS_INLINE __m256 e8m0_half(const uint8_t *p)
{
    const __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
}

/* Doubled values of E2M1 plus 12, so that all are unsigned, by nibble. */
static FM_ALWAYS_INLINE __m256i book_e2m1_unsigned(void)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)fm_e2m1_unsigned));
}

/* How far ahead of its use a weight is asked for where that is done once, as for several tokens. Less than with AVX-512: AMD
 * processors that have only AVX2 have smaller second-level caches, and what is asked for too early has left them again, or
 * its page has left the TLB. */
enum { AHEAD_BYTES = 2048 };

static FM_ALWAYS_INLINE void ask_ahead(const uint8_t *block, const int bytes, const bool one)
{
    const bool twice = one && fm_asks_twice;
    fm_prefetch_lines(block, twice ? FM_PANEL_AHEAD_BYTES : AHEAD_BYTES, 0, bytes / 64, twice);
}

/* The float step of quant.h for half a panel: acc [8] plus what a block with this sum, scale and minimum adds for one token,
 * whose block of activations has scale dx and scaled sum dsum. */
static FM_ALWAYS_INLINE __m256 add_block(__m256 acc, __m256i sum, __m256 d, __m256 m, float dx,
                                         float dsum, const int has_min)
{
    __m256 term = _mm256_mul_ps(_mm256_mul_ps(d, _mm256_set1_ps(dx)), _mm256_cvtepi32_ps(sum));
    if (has_min) term = _mm256_add_ps(term, _mm256_mul_ps(m, _mm256_set1_ps(dsum)));
    return _mm256_add_ps(acc, term);
}

/* ---- one token --------------------------------------------------------------------------- */

/* v of columns 4u and 4u + 2, 4u + 1 and 4u + 3, as words. */
static FM_ALWAYS_INLINE void words_of(int32_t even[8], int32_t odd[8], const fm_act_i15_32 *x)
{
    const __m256i hi = load_256(x->hi), lo = load_256(x->lo);
    const __m256i hi_even = _mm256_srai_epi16(_mm256_slli_epi16(hi, 8), 8 - FM_ACT_32_SHIFT);
    const __m256i hi_odd = _mm256_slli_epi16(_mm256_srai_epi16(hi, 8), FM_ACT_32_SHIFT);
    const __m256i lo_even = _mm256_srai_epi16(_mm256_slli_epi16(lo, 8), 8);
    _mm256_storeu_si256((__m256i *)even, _mm256_add_epi16(hi_even, lo_even));
    _mm256_storeu_si256((__m256i *)odd, _mm256_add_epi16(hi_odd, _mm256_srai_epi16(lo, 8)));
    fm_in_memory(even);
    fm_in_memory(odd);
}

/* Sum of w v of a block for both halves; unsigned weights with products of planes. */
static FM_ALWAYS_INLINE void sum_planes(__m256i s[2], const uint8_t *panel, const fm_act_i15_32 *x,
                                        const int n_plane, const shape_32 shape, unit_fn *unit)
{
    /* The low plane is half as large. */
    const int n_low = shape.n_pair < 4 ? 2 * shape.n_pair : 8;
    __m256i hi[2], lo[2], all[2];
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        const __m256i x_hi = repeat_32(x->hi + 4 * u), x_lo = repeat_32(x->lo + 4 * u);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            const __m256i w = unit(panel, half, u);
            const __m256i p = _mm256_maddubs_epi16(w, x_hi);
            hi[half] = u % shape.n_pair == 0 ? p : settled(_mm256_add_epi16(hi[half], p));
            if (u % shape.n_pair == shape.n_pair - 1) {
                const __m256i sum =
                    _mm256_madd_epi16(hi[half], _mm256_set1_epi16(1 << FM_ACT_32_SHIFT));
                all[half] = u < shape.n_pair ? sum : settled(_mm256_add_epi32(all[half], sum));
            }
            if (n_plane == 1) continue;
            const __m256i q = _mm256_maddubs_epi16(w, x_lo);
            lo[half] = u % n_low == 0 ? q : settled(_mm256_add_epi16(lo[half], q));
            if (u % n_low == n_low - 1)
                all[half] = settled(
                    _mm256_add_epi32(all[half], _mm256_madd_epi16(lo[half], _mm256_set1_epi16(1))));
        }
    }
    s[0] = all[0];
    s[1] = all[1];
}

/* The same with weights above what a pair of products leaves room for (n_pair 0): words times
 * words. */
static FM_ALWAYS_INLINE void sum_words(__m256i s[2], const uint8_t *panel, const fm_act_i15_32 *x,
                                       unit_fn *unit)
{
    int32_t even[8], odd[8];
    words_of(even, odd, x);
    s[0] = s[1] = _mm256_setzero_si256();
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        const __m256i x_even = repeat_32(even + u), x_odd = repeat_32(odd + u);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            const __m256i w = unit(panel, half, u);
            s[half] = add_words(s[half], even_bytes(w), x_even);
            s[half] = add_words(s[half], odd_bytes(w), x_odd);
        }
    }
}

/* One token: both halves together, so that an activation is spread over the lanes once for 16
 * rows. */
static FM_ALWAYS_INLINE void one_32(float *out, const panel_32 *p, const fm_act_i15_32 *x,
                                    const int n_plane, const shape_32 shape, unit_fn *unit,
                                    scale_fn *scale, scale_fn *minimum)
{
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    const uint8_t *block = p->codes;
    __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t b = 0; b < p->n_block; b++, block += bytes, x++) {
        __m256i s[2];
        ask_ahead(block, bytes, true);
        if (shape.n_pair == 0)
            sum_words(s, block, x, unit);
        else
            sum_planes(s, block, x, n_plane, shape, unit);
        const __m256i start = _mm256_set1_epi32(shape.offset * x->nsum);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            if (shape.offset != 0) s[half] = _mm256_add_epi32(s[half], start);
            const __m256 d = scale(p, block, b, half);
            const __m256 m = shape.has_min ? minimum(p, block, b, half) : d;
            acc[half] = add_block(acc[half], s[half], d, m, x->d, x->dsum, shape.has_min);
        }
    }
    _mm256_storeu_ps(out, acc[0]);
    _mm256_storeu_ps(out + 8, acc[1]);
}

/* Unit u of 8 in 16 bytes of nibbles per row. */
static FM_ALWAYS_INLINE __m256i unit_nibbles(const uint8_t *qs, int half, int u)
{
    const __m256i v = load_256(qs + 64 * (u % 4) + 32 * half);
    return u < 4 ? low_nibbles(v) : high_nibbles(v);
}

/* ---- several tokens ------------------------------------------------------------------------ */

enum {
    MAX_TOK = 32,       /* tokens for which weights are taken apart once                     */
    MAX_BLOCKS = 2048,  /* blocks of activations that are kept as words at a time            */
    BLOCKS_AT_ONCE = 4, /* of weights                                                       */
    TILE_TOKENS = 6,    /* that meet 16 rows in registers: as words                         */
    BYTES_TOKENS = 4    /* and as bytes                                                     */
};

/* A block of 16 rows taken apart. */
typedef struct {
    __m256i w[8][2][2]; /* unit; columns 4u and 4u + 2, 4u + 1 and 4u + 3; half */
    __m256 d[2], m[2];
} block_words;

/* A block of activations. */
typedef struct {
    int32_t even[8], odd[8]; /* v of columns 4u and 4u + 2, 4u + 1 and 4u + 3 */
    float d, dsum;
} act_words;

/* The same as bytes: unsigned weights, and the upper plane of activations. */
typedef struct {
    __m256i w[8][2]; /* unit; half */
    __m256 d[2], m[2];
} block_bytes;

typedef struct {
    int8_t x[32];
    int32_t start; /* what the weights' offset takes away from the sum */
    float d, dsum;
} act_bytes;

_Static_assert(sizeof(act_bytes) <= sizeof(act_words) && sizeof(block_bytes) <= sizeof(block_words),
               "format_32: bytes take no more room than words");

/* n blocks w; x: blocks of activations as the format has them, block b of token t is number stride t + b. */
typedef void tile_fn(float (*acc)[FM_PANEL_ROWS], const void *w, int n, const void *x,
                     int64_t stride);

/* What a format supplies: weights and activations as words or as bytes. */
typedef struct {
    void (*one)(float *out, const panel_32 *p, const fm_act_i15_32 *x);
    int least; /* tokens for which this is faster than one token after the other */
    size_t act_bytes, block_bytes; /* of a block of either */
    void (*prepare)(void *dst, const fm_act_i15_32 *x);
    void (*unpack)(void *dst, const panel_32 *p, int64_t b);
    int tile_tokens;            /* that meet 16 rows in registers, at most */
    tile_fn *tile[TILE_TOKENS]; /* for 1, 2, ... tokens */
} format_32;

/* Block b of a panel, whose scales and minima go to d and m, by half; asks for what lies ahead. */
static FM_ALWAYS_INLINE const uint8_t *start_block(__m256 d[2], __m256 m[2], const panel_32 *p,
                                                   int64_t b, const shape_32 shape, scale_fn *scale,
                                                   scale_fn *minimum)
{
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    const uint8_t *const block = p->codes + b * bytes;
    ask_ahead(block, bytes, false);
    FM_UNROLL
    for (int half = 0; half < 2; half++) {
        d[half] = scale(p, block, b, half);
        if (shape.has_min) m[half] = minimum(p, block, b, half);
    }
    return block;
}

static FM_ALWAYS_INLINE void unpack_32(block_words *dst, const panel_32 *p, int64_t b,
                                       const shape_32 shape, unit_fn *unit, scale_fn *scale,
                                       scale_fn *minimum)
{
    const uint8_t *const block = start_block(dst->d, dst->m, p, b, shape, scale, minimum);
    FM_UNROLL
    for (int half = 0; half < 2; half++) {
        FM_UNROLL
        for (int u = 0; u < 8; u++) {
            const __m256i w = unit(block, half, u), off = _mm256_set1_epi8((char)shape.offset);
            if (shape.offset == 0) {
                dst->w[u][0][half] = even_bytes(w);
                dst->w[u][1][half] = odd_bytes(w);
                continue;
            }
            /* From 128 to the sign and back is nothing, which compilers see in xor. */
            const __m256i q =
                shape.offset == 128 ? _mm256_xor_si256(w, off) : _mm256_sub_epi8(w, off);
            dst->w[u][0][half] = _mm256_srai_epi16(_mm256_slli_epi16(q, 8), 8);
            dst->w[u][1][half] = _mm256_srai_epi16(q, 8);
        }
    }
}

/* n blocks of 16 rows for nt tokens, added to acc [nt][16]. */
static FM_ALWAYS_INLINE void tile_32(float (*acc)[FM_PANEL_ROWS], const block_words *w, int n,
                                     const act_words *x, int64_t stride, const int nt,
                                     const int has_min)
{
    for (int b = 0; b < n; b++, w++, x++) {
        __m256i sum[TILE_TOKENS][2];
        FM_UNROLL
        for (int u = 0; u < 8; u++) {
            FM_UNROLL
            for (int odd = 0; odd < 2; odd++) {
                const __m256i w0 = w->w[u][odd][0], w1 = w->w[u][odd][1];
                FM_UNROLL
                for (int t = 0; t < nt; t++) {
                    const __m256i v =
                        repeat_32(odd ? x[stride * t].odd + u : x[stride * t].even + u);
                    if (u == 0 && odd == 0) {
                        sum[t][0] = _mm256_madd_epi16(w0, v);
                        sum[t][1] = _mm256_madd_epi16(w1, v);
                        continue;
                    }
                    sum[t][0] = add_words(sum[t][0], w0, v);
                    sum[t][1] = add_words(sum[t][1], w1, v);
                }
            }
        }
        fm_in_memory(acc);
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            const float dx = x[stride * t].d, dsum = x[stride * t].dsum;
            FM_UNROLL
            for (int half = 0; half < 2; half++) {
                float *const dst = acc[t] + 8 * half;
                _mm256_store_ps(dst, add_block(_mm256_load_ps(dst), sum[t][half], w->d[half],
                                               w->m[half], dx, dsum, has_min));
            }
        }
    }
}

static void prepare_words(void *to, const fm_act_i15_32 *x)
{
    act_words *const dst = to;
    words_of(dst->even, dst->odd, x);
    dst->d = x->d;
    dst->dsum = x->dsum;
}

static FM_ALWAYS_INLINE void unpack_bytes_32(block_bytes *dst, const panel_32 *p, int64_t b,
                                             const shape_32 shape, unit_fn *unit, scale_fn *scale,
                                             scale_fn *minimum)
{
    const uint8_t *const block = start_block(dst->d, dst->m, p, b, shape, scale, minimum);
    FM_UNROLL
    for (int half = 0; half < 2; half++) {
        FM_UNROLL
        for (int u = 0; u < 8; u++) dst->w[u][half] = unit(block, half, u);
    }
}

static FM_ALWAYS_INLINE void prepare_bytes_32(act_bytes *dst, const fm_act_i15_32 *x,
                                              const shape_32 shape)
{
    memcpy(dst->x, x->hi, sizeof dst->x);
    dst->start = shape.offset * x->nsum / (1 << FM_ACT_32_SHIFT); /* which nsum is a multiple of */
    dst->d = x->d;
    dst->dsum = x->dsum;
}

/* As tile_32(). */
static FM_ALWAYS_INLINE void tile_bytes_32(float (*acc)[FM_PANEL_ROWS], const block_bytes *w, int n,
                                           const act_bytes *x, int64_t stride, const int nt,
                                           const shape_32 shape)
{
    for (int b = 0; b < n; b++, w++, x++) {
        __m256i pairs[4][2], sum[4][2];
        FM_UNROLL
        for (int u = 0; u < 8; u++) {
            const __m256i w0 = w->w[u][0], w1 = w->w[u][1];
            FM_UNROLL
            for (int t = 0; t < nt; t++) {
                const __m256i v = repeat_32(x[stride * t].x + 4 * u);
                const __m256i p0 = _mm256_maddubs_epi16(w0, v), p1 = _mm256_maddubs_epi16(w1, v);
                const int first = u % shape.n_pair == 0;
                pairs[t][0] = first ? p0 : settled(_mm256_add_epi16(pairs[t][0], p0));
                pairs[t][1] = first ? p1 : settled(_mm256_add_epi16(pairs[t][1], p1));
            }
            if (u % shape.n_pair != shape.n_pair - 1) continue;
            FM_UNROLL
            for (int t = 0; t < nt; t++) {
                FM_UNROLL
                for (int half = 0; half < 2; half++) {
                    const __m256i s = _mm256_madd_epi16(pairs[t][half], _mm256_set1_epi16(1));
                    sum[t][half] = u < shape.n_pair ? s : _mm256_add_epi32(sum[t][half], s);
                }
            }
        }
        fm_in_memory(acc);
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            const act_bytes *const a = x + stride * t;
            const float dx = a->d, dsum = a->dsum;
            const __m256i start = _mm256_set1_epi32(a->start);
            FM_UNROLL
            for (int half = 0; half < 2; half++) {
                float *const dst = acc[t] + 8 * half;
                __m256i s = sum[t][half];
                if (shape.offset) s = _mm256_add_epi32(s, start);
                s = _mm256_slli_epi32(s, FM_ACT_32_SHIFT);
                _mm256_store_ps(dst, add_block(_mm256_load_ps(dst), s, w->d[half], w->m[half], dx,
                                               dsum, shape.has_min));
            }
        }
    }
}

/* Panels [row0, row1) for up to MAX_TOK tokens. As many columns at a time as there is room for
 * their activations; between them the sums wait in y. */
static void few_tokens(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t nt, const void *format)
{
    const format_32 *const f = format;
    const int64_t n_block = w->n_in / 32, step = MAX_BLOCKS / nt;
    const int64_t n_call = (nt + f->tile_tokens - 1) / f->tile_tokens;
    _Alignas(32) uint8_t x[MAX_BLOCKS * sizeof(act_words)];
    _Alignas(32) uint8_t weights[BLOCKS_AT_ONCE * sizeof(block_words)];
    _Alignas(64) float acc[MAX_TOK][FM_PANEL_ROWS];
    for (int64_t b0 = 0; b0 < n_block; b0 += step) {
        const int64_t b1 = b0 + step < n_block ? b0 + step : n_block;
        for (int64_t t = 0; t < nt; t++)
            for (int64_t b = b0; b < b1; b++) {
                fm_ask_for_next_token(act, t, nt, b);
                f->prepare(x + f->act_bytes * (size_t)(step * t + b - b0),
                           (const fm_act_i15_32 *)act[t] + b);
            }
        for (int64_t row = row0; row < row1; row += FM_PANEL_ROWS) {
            const panel_32 panel = panel_at(w, row);
            fm_get_sums(acc, y, row, nt, b0 == 0);
            for (int64_t b = b0; b < b1; b += BLOCKS_AT_ONCE) {
                const int n = b1 - b < BLOCKS_AT_ONCE ? (int)(b1 - b) : BLOCKS_AT_ONCE;
                for (int i = 0; i < n; i++)
                    f->unpack(weights + f->block_bytes * (size_t)i, &panel, b + i);
                for (int64_t c = 0, t = 0, nc; c < n_call; c++, t += nc) {
                    nc = nt * (c + 1) / n_call - t;
                    f->tile[nc - 1](acc + t, weights, n,
                                    x + f->act_bytes * (size_t)(step * t + b - b0), step);
                }
            }
            fm_put_sums(y, row, nt, acc);
        }
    }
}

#define TILE(form, nt, has_min)                                                                    \
    static void tile_##form##_##nt(float(*acc)[FM_PANEL_ROWS], const void *w, int n,               \
                                   const void *x, int64_t stride)                                  \
    {                                                                                              \
        tile_32(acc, w, n, x, stride, nt, has_min);                                                \
    }
#define TILES(form, has_min)                                                                       \
    TILE(form, 1, has_min)                                                                         \
    TILE(form, 2, has_min)                                                                         \
    TILE(form, 3, has_min) TILE(form, 4, has_min) TILE(form, 5, has_min) TILE(form, 6, has_min)
TILES(plain, 0)
TILES(min, 1)

/* The functions of a format, as words, and the entry of a table. */
#define WORDS(name, scale, minimum)                                                                \
    static void name##_one(float *out, const panel_32 *p, const fm_act_i15_32 *x)                  \
    {                                                                                              \
        one_32(out, p, x, 2, shape_##name, unit_##name, scale, minimum);                           \
    }                                                                                              \
    static void unpack_##name(void *dst, const panel_32 *p, int64_t b)                             \
    {                                                                                              \
        unpack_32(dst, p, b, shape_##name, unit_##name, scale, minimum);                           \
    }
#define ENTRY(name, form)                                                                          \
    {                                                                                              \
        name##_one, 3, sizeof(act_words), sizeof(block_words), prepare_words, unpack_##name,       \
            TILE_TOKENS,                                                                           \
        {                                                                                          \
            tile_##form##_1, tile_##form##_2, tile_##form##_3, tile_##form##_4, tile_##form##_5,   \
                tile_##form##_6                                                                    \
        }                                                                                          \
    }

/* And as bytes. */
#define TILE_INT8(name, nt)                                                                        \
    static void tile_##name##_int8_##nt(float(*acc)[FM_PANEL_ROWS], const void *w, int n,          \
                                        const void *x, int64_t stride)                             \
    {                                                                                              \
        tile_bytes_32(acc, w, n, x, stride, nt, shape_##name);                                     \
    }
#define BYTES(name, scale, minimum)                                                                \
    static void name##_one_int8(float *out, const panel_32 *p, const fm_act_i15_32 *x)             \
    {                                                                                              \
        one_32(out, p, x, 1, shape_##name, unit_##name, scale, minimum);                           \
    }                                                                                              \
    static void unpack_##name##_int8(void *dst, const panel_32 *p, int64_t b)                      \
    {                                                                                              \
        unpack_bytes_32(dst, p, b, shape_##name, unit_##name, scale, minimum);                     \
    }                                                                                              \
    static void prepare_##name##_int8(void *dst, const fm_act_i15_32 *x)                           \
    {                                                                                              \
        prepare_bytes_32(dst, x, shape_##name);                                                    \
    }                                                                                              \
    TILE_INT8(name, 1) TILE_INT8(name, 2) TILE_INT8(name, 3) TILE_INT8(name, 4)
#define ENTRY_INT8(name)                                                                           \
    {                                                                                              \
        name##_one_int8, 3, sizeof(act_bytes), sizeof(block_bytes), prepare_##name##_int8,         \
            unpack_##name##_int8, BYTES_TOKENS,                                                    \
        {                                                                                          \
            tile_##name##_int8_1, tile_##name##_int8_2, tile_##name##_int8_3, tile_##name##_int8_4 \
        }                                                                                          \
    }
#define BOTH(name, scale, minimum) WORDS(name, scale, minimum) BYTES(name, scale, minimum)

/* Panels [row0, row1). */
static void panels_32(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                      float *const *y, int64_t n_tok, const format_32 *f)
{
    if (n_tok >= f->least) {
        fm_matmul_by_stretch(w, row0, row1, act, y, n_tok, MAX_TOK, few_tokens, f);
        return;
    }
    /* Every panel for one token after the other: it comes from memory once. */
    for (int64_t row = row0; row < row1; row += FM_PANEL_ROWS) {
        const panel_32 panel = panel_at(w, row);
        for (int64_t t = 0; t < n_tok; t++) f->one(y[t] + row, &panel, act[t]);
    }
}
#endif
