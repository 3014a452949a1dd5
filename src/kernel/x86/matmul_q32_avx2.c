/* Products with the formats of blocks of 32, for AVX2. A lane is a row; the two halves of a panel
 * are computed together.
 *
 * Weights are brought to unsigned bytes q + offset, and the sum starts at -offset * (sum v). The
 * largest sum is 32 * 255 * 16256 = 1.33e8, per block, so the row length does not matter.
 *
 * One token multiplies planes as long as pairs of products fit 16 bits. For several tokens weights
 * (q, with its sign) and activations become words, as in matmul_q256_avx2.c: weights once for up to
 * 32 tokens, activations once per stretch of panels. A block of 32 columns ends with five operations
 * on floats for every 32 on integers, so what is added to lies in the first cache, not in y, whose
 * rows are far apart.
 */
#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

/* Unit u of a half as unsigned bytes (panel, half, u), and the scales (panel, half). */
typedef __m256i unit_fn(const uint8_t *, int, int);
typedef __m256 scale_fn(const uint8_t *, int);

typedef struct {
    int block_bytes;
    int n_pair; /* units whose pair sums with the high plane fit 16 bits: 4 or 8; 0: none */
    int offset; /* in the unsigned weights */
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
    return _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
}

/* How far ahead of its use a weight is asked for. Less than with AVX-512: processors that have only AVX2 have smaller
 * second-level caches, and what is asked for too early has left them again, or its page has left the TLB. */
enum { AHEAD_BYTES = 2048 };

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
    in_memory(even);
    in_memory(odd);
}

/* Sum of w v of a block for both halves; unsigned weights with products of planes. */
static FM_ALWAYS_INLINE void sum_planes(__m256i s[2], const uint8_t *panel, const fm_act_i15_32 *x,
                                        const shape_32 shape, unit_fn *unit)
{
    __m256i hi[2], lo[2], high[2];
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        const __m256i x_hi = repeat_32(x->hi + 4 * u), x_lo = repeat_32(x->lo + 4 * u);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            const __m256i w = unit(panel, half, u);
            const __m256i p = _mm256_maddubs_epi16(w, x_hi), q = _mm256_maddubs_epi16(w, x_lo);
            hi[half] = u % shape.n_pair == 0 ? p : settled(_mm256_add_epi16(hi[half], p));
            lo[half] = u == 0 ? q : settled(_mm256_add_epi16(lo[half], q));
            if (u % shape.n_pair != shape.n_pair - 1) continue;
            const __m256i sum =
                _mm256_madd_epi16(hi[half], _mm256_set1_epi16(1 << FM_ACT_32_SHIFT));
            high[half] = u < shape.n_pair ? sum : settled(_mm256_add_epi32(high[half], sum));
        }
    }
    FM_UNROLL
    for (int half = 0; half < 2; half++)
        s[half] = _mm256_add_epi32(high[half], _mm256_madd_epi16(lo[half], _mm256_set1_epi16(1)));
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
            s[half] = settled(_mm256_add_epi32(s[half], _mm256_madd_epi16(even_bytes(w), x_even)));
            s[half] = settled(_mm256_add_epi32(s[half], _mm256_madd_epi16(odd_bytes(w), x_odd)));
        }
    }
}

/* One token: both halves together, so that an activation is spread over the lanes once for 16
 * rows. */
static FM_ALWAYS_INLINE void one_32(float *out, const uint8_t *panel, int64_t n_block,
                                    const void *const *act, const shape_32 shape, unit_fn *unit,
                                    scale_fn *scale)
{
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    const fm_act_i15_32 *x = act[0];
    __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t b = 0; b < n_block; b++, panel += bytes, x++) {
        __m256i s[2];
        FM_UNROLL
        for (int i = 0; i < bytes / 64; i++)
            _mm_prefetch((const char *)(panel + AHEAD_BYTES + 64 * i), _MM_HINT_T1);
        if (shape.n_pair == 0)
            sum_words(s, panel, x, unit);
        else
            sum_planes(s, panel, x, shape, unit);
        const __m256i start = _mm256_set1_epi32(shape.offset * x->nsum);
        FM_UNROLL
        for (int half = 0; half < 2; half++) {
            if (shape.offset != 0) s[half] = _mm256_add_epi32(s[half], start);
            const __m256 d = scale(panel, half);
            __m256 term =
                _mm256_mul_ps(_mm256_mul_ps(d, _mm256_set1_ps(x->d)), _mm256_cvtepi32_ps(s[half]));
            if (shape.has_min)
                term = _mm256_add_ps(term, _mm256_mul_ps(load_half(panel + 2 * 16 + 16 * half),
                                                         _mm256_set1_ps(x->dsum)));
            acc[half] = _mm256_add_ps(acc[half], term);
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

static FM_ALWAYS_INLINE __m256i unit_q4_0(const uint8_t *p, int half, int u)
{
    return unit_nibbles(p + 2 * 16, half, u);
}

static FM_ALWAYS_INLINE __m256i unit_q4_1(const uint8_t *p, int half, int u)
{
    return unit_nibbles(p + 4 * 16, half, u);
}

/* 16 in the bytes of columns 4u .. 4u + 3 whose bit is set in the row's dword in qh. */
static FM_ALWAYS_INLINE __m256i fifth_bits(const uint8_t *qh, int half, int u)
{
    /* Byte u / 2 of the dword to all four bytes, then one bit of each. */
    const __m256i from = _mm256_add_epi8(_mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0,
                                                          0x0c0c0c0c, 0x08080808, 0x04040404, 0),
                                         _mm256_set1_epi8((char)(u / 2)));
    const __m256i bit = _mm256_set1_epi32(u & 1 ? (int)0x80402010u : 0x08040201);
    const __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(load_256(qh + 32 * half), from), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), _mm256_set1_epi8(16));
}

static FM_ALWAYS_INLINE __m256i unit_q5_0(const uint8_t *p, int half, int u)
{
    return _mm256_or_si256(unit_nibbles(p + 6 * 16, half, u), fifth_bits(p + 2 * 16, half, u));
}

static FM_ALWAYS_INLINE __m256i unit_q5_1(const uint8_t *p, int half, int u)
{
    return _mm256_or_si256(unit_nibbles(p + 8 * 16, half, u), fifth_bits(p + 4 * 16, half, u));
}

static FM_ALWAYS_INLINE __m256i unit_q8_0(const uint8_t *p, int half, int u)
{
    return _mm256_xor_si256(load_256(p + 2 * 16 + 64 * u + 32 * half),
                            _mm256_set1_epi8((char)0x80));
}

static FM_ALWAYS_INLINE __m256i unit_iq4_nl(const uint8_t *p, int half, int u)
{
    return _mm256_shuffle_epi8(book_iq4_unsigned(), unit_nibbles(p + 2 * 16, half, u));
}

static FM_ALWAYS_INLINE __m256i unit_mxfp4(const uint8_t *p, int half, int u)
{
    return _mm256_shuffle_epi8(book_e2m1_unsigned(), unit_nibbles(p + 16, half, u));
}

static FM_ALWAYS_INLINE __m256 scale_half(const uint8_t *p, int half)
{
    return load_half(p + 16 * half);
}

static FM_ALWAYS_INLINE __m256 scale_e8m0(const uint8_t *p, int half)
{
    return e8m0_half(p + 8 * half);
}

static const shape_32 shape_q4_0 = {18, 8, 8, 0};
static const shape_32 shape_q4_1 = {20, 8, 0, 1};
static const shape_32 shape_q5_0 = {22, 4, 16, 0};
static const shape_32 shape_q5_1 = {24, 4, 0, 1};
static const shape_32 shape_q8_0 = {34, 0, 128, 0};
static const shape_32 shape_mxfp4 = {17, 4, 12, 0};
static const shape_32 shape_iq4_nl = {18, 0, 128, 0};

/* ---- several tokens ------------------------------------------------------------------------ */

enum {
    MAX_TOK = 32,      /* tokens for which weights are taken apart once                     */
    MAX_BLOCKS = 2048, /* blocks of activations that are kept as words at a time            */
    BLOCKS_AT_ONCE = 4 /* of weights                                                        */
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

/* Block b of token t is x[stride t + b]. */
typedef void tile_fn(float (*acc)[FM_PANEL_ROWS], const block_words *w, int n, const act_words *x,
                     int64_t stride);

/* What a format supplies. */
typedef struct {
    fm_panel_fn one; /* for one token */
    int least;       /* tokens for which words are faster than one token after the other */
    void (*unpack)(block_words *dst, const uint8_t *panel);
    tile_fn *tile[4]; /* for 1, 2, 3, 4 tokens */
} format_32;

static FM_ALWAYS_INLINE void unpack_32(block_words *dst, const uint8_t *panel, const shape_32 shape,
                                       unit_fn *unit, scale_fn *scale)
{
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    FM_UNROLL
    for (int i = 0; i < bytes / 64; i++)
        _mm_prefetch((const char *)(panel + AHEAD_BYTES + 64 * i), _MM_HINT_T1);
    FM_UNROLL
    for (int half = 0; half < 2; half++) {
        dst->d[half] = scale(panel, half);
        if (shape.has_min) dst->m[half] = load_half(panel + 2 * 16 + 16 * half);
        FM_UNROLL
        for (int u = 0; u < 8; u++) {
            /* From 128 to the sign and back is nothing, which compilers see in xor. */
            const __m256i w = unit(panel, half, u), off = _mm256_set1_epi8((char)shape.offset);
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
        __m256i sum[4][2];
        FM_UNROLL
        for (int u = 0; u < 8; u++) {
            FM_UNROLL
            for (int odd = 0; odd < 2; odd++) {
                const __m256i w0 = w->w[u][odd][0], w1 = w->w[u][odd][1];
                FM_UNROLL
                for (int t = 0; t < nt; t++) {
                    const __m256i v =
                        repeat_32(odd ? x[stride * t].odd + u : x[stride * t].even + u);
                    const __m256i p0 = _mm256_madd_epi16(w0, v), p1 = _mm256_madd_epi16(w1, v);
                    const int first = u == 0 && odd == 0;
                    sum[t][0] = first ? p0 : settled(_mm256_add_epi32(sum[t][0], p0));
                    sum[t][1] = first ? p1 : settled(_mm256_add_epi32(sum[t][1], p1));
                }
            }
        }
        in_memory(acc);
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            const __m256 dx = _mm256_set1_ps(x[stride * t].d),
                         dsum = _mm256_set1_ps(x[stride * t].dsum);
            FM_UNROLL
            for (int half = 0; half < 2; half++) {
                float *const dst = acc[t] + 8 * half;
                __m256 term =
                    _mm256_mul_ps(_mm256_mul_ps(w->d[half], dx), _mm256_cvtepi32_ps(sum[t][half]));
                if (has_min) term = _mm256_add_ps(term, _mm256_mul_ps(w->m[half], dsum));
                _mm256_store_ps(dst, _mm256_add_ps(_mm256_load_ps(dst), term));
            }
        }
    }
}

static void prepare(act_words *dst, const fm_act_i15_32 *x)
{
    words_of(dst->even, dst->odd, x);
    dst->d = x->d;
    dst->dsum = x->dsum;
}

/* While block b of one token is made words, the next token's, which lies elsewhere, is asked for. */
static FM_ALWAYS_INLINE void ask_for_next_token(const void *const *act, int64_t t, int64_t nt,
                                                int64_t b)
{
    if (t + 1 < nt)
        _mm_prefetch((const char *)((const fm_act_i15_32 *)act[t + 1] + b), _MM_HINT_T0);
}

/* Panels [row0, row1) for up to MAX_TOK tokens. As many columns at a time as there is room for
 * their activations; between them the sums wait in y. */
static void few_tokens(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t nt, const void *format)
{
    const format_32 *const f = format;
    const uint64_t panel_bytes = w->row_bytes * FM_PANEL_ROWS;
    const uint64_t bytes = (uint64_t)w->type->block_bytes * FM_PANEL_ROWS;
    const int64_t n_block = w->n_in / w->type->block_elems, step = MAX_BLOCKS / nt;
    act_words x[MAX_BLOCKS];
    block_words words[BLOCKS_AT_ONCE];
    _Alignas(64) float acc[MAX_TOK][FM_PANEL_ROWS];
    for (int64_t b0 = 0; b0 < n_block; b0 += step) {
        const int64_t b1 = b0 + step < n_block ? b0 + step : n_block;
        for (int64_t t = 0; t < nt; t++)
            for (int64_t b = b0; b < b1; b++) {
                ask_for_next_token(act, t, nt, b);
                prepare(&x[step * t + b - b0], (const fm_act_i15_32 *)act[t] + b);
            }
        const uint8_t *panel = (const uint8_t *)w->data + (uint64_t)row0 * w->row_bytes;
        for (int64_t row = row0; row < row1; row += FM_PANEL_ROWS, panel += panel_bytes) {
            fm_get_sums(acc, y, row, nt, b0 == 0);
            for (int64_t b = b0; b < b1; b += BLOCKS_AT_ONCE) {
                const int n = b1 - b < BLOCKS_AT_ONCE ? (int)(b1 - b) : BLOCKS_AT_ONCE;
                for (int i = 0; i < n; i++) f->unpack(&words[i], panel + (uint64_t)(b + i) * bytes);
                for (int64_t t = 0; t < nt; t += 4)
                    f->tile[nt - t < 4 ? nt - t - 1 : 3](acc + t, words, n, &x[step * t + b - b0],
                                                         step);
            }
            fm_put_sums(y, row, nt, acc);
        }
    }
}

/* ---- the formats --------------------------------------------------------------------------- */

#define TILE(form, nt, has_min)                                                                    \
    static void tile_##form##_##nt(float(*acc)[FM_PANEL_ROWS], const block_words *w, int n,        \
                                   const act_words *x, int64_t stride)                             \
    {                                                                                              \
        tile_32(acc, w, n, x, stride, nt, has_min);                                                \
    }
#define TILES(form, has_min)                                                                       \
    TILE(form, 1, has_min) TILE(form, 2, has_min) TILE(form, 3, has_min) TILE(form, 4, has_min)
TILES(plain, 0)
TILES(min, 1)

#define FORMAT(type, scale)                                                                        \
    static void type##_one(float *out, const uint8_t *panel, int64_t n_block,                      \
                           const void *const *act)                                                 \
    {                                                                                              \
        one_32(out, panel, n_block, act, shape_##type, unit_##type, scale);                        \
    }                                                                                              \
    static void unpack_##type(block_words *dst, const uint8_t *panel)                              \
    {                                                                                              \
        unpack_32(dst, panel, shape_##type, unit_##type, scale);                                   \
    }
FORMAT(q4_0, scale_half)
FORMAT(q4_1, scale_half)
FORMAT(q5_0, scale_half)
FORMAT(q5_1, scale_half)
FORMAT(q8_0, scale_half)
FORMAT(mxfp4, scale_e8m0)
FORMAT(iq4_nl, scale_half)

#define TILES_OF(form)                                                                             \
    {                                                                                              \
        tile_##form##_1, tile_##form##_2, tile_##form##_3, tile_##form##_4                         \
    }

/* By type id. */
static const format_32 formats[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q4_0] = {q4_0_one, 3, unpack_q4_0, TILES_OF(plain)},
    [FM_TYPE_Q4_1] = {q4_1_one, 3, unpack_q4_1, TILES_OF(min)},
    [FM_TYPE_Q5_0] = {q5_0_one, 3, unpack_q5_0, TILES_OF(plain)},
    [FM_TYPE_Q5_1] = {q5_1_one, 3, unpack_q5_1, TILES_OF(min)},
    [FM_TYPE_Q8_0] = {q8_0_one, 3, unpack_q8_0, TILES_OF(plain)},
    [FM_TYPE_MXFP4] = {mxfp4_one, 3, unpack_mxfp4, TILES_OF(plain)},
    [FM_TYPE_IQ4_NL] = {iq4_nl_one, 3, unpack_iq4_nl, TILES_OF(plain)},
};

void fm_matmul_32_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t n_tok)
{
    const format_32 *const f = &formats[w->type->id];
    const int64_t panel_end = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_end ? row1 : panel_end;
    if (row0 < split && f->one) {
        if (n_tok < f->least)
            fm_matmul_panels_by_token(w, row0, split, act, y, n_tok, f->one);
        else
            fm_matmul_by_stretch(w, row0, split, act, y, n_tok, MAX_TOK, few_tokens, f);
        row0 = split;
    }
    if (row0 < row1) fm_rows_kernels[w->type->id](w, row0, row1, act, y, n_tok);
}

#endif
