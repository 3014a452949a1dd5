/* Products with the formats of code books for AVX2. A lane is a column: rows are not interleaved.
 *
 * A group of 32 columns becomes two vectors of words that have their scale in them: those of even and those of odd
 * columns. vpmaddubsw makes them: an unsigned scale beside 0 takes one of two signed bytes. Activations are words too,
 * put together from their planes once per call. One token multiplies the words at once; for several tokens they are
 * kept, and 4 rows meet 2 tokens in registers.
 *
 * Ranges: a weight times its scale is at most 31 * 43 (IQ2) and fits a word; two of their products with 13 bits, and all
 * sums, fit 32 bits, see quant.h.
 */
#include "kernel/x86/matmul_book_avx2.h"
#include "kernel/kernel_internal.h"

#if defined(__x86_64__)

enum {
    MAX_TOK = 16,    /* tokens for which a block is taken apart once             */
    MAX_BLOCKS = 64, /* blocks of activations that are kept as words at a time   */
    TILE_ROWS = 4,
    TILE_TOKENS = 2,
    ONE_BLOCKS = 8, /* blocks of a row whose sums are added up together */
    AHEAD_BYTES = 1024
};

/* 256 columns: of 32 those with even numbers, then those with odd numbers. */
typedef struct {
    __m256i w[8][2];
} words_256;

/* What a format supplies. */
typedef struct {
    void (*one)(const fm_matrix *w, int64_t row0, int64_t row1, int64_t b0, int64_t b1,
                const words_256 *x, const float *dx, float *y);
    /* TILE_ROWS blocks and their halves d; asks for those that lie `ahead` bytes behind them. */
    void (*unpack)(words_256 *dst, uint16_t *half, const uint8_t *const *block, size_t ahead);
    float factor; /* of d: quant_block_iq.h */
} format_book;

static book_tables books;

static uint64_t entry_of(uint32_t codes, int n, int bits, const int8_t *value)
{
    uint64_t entry = 0;
    for (int c = 0; c < n; c++)
        entry |= (uint64_t)(uint8_t)value[codes >> (bits * c) & ((1u << bits) - 1)] << (8 * c);
    return entry;
}

void fm_matmul_book_init_avx2(void)
{
    static const int8_t iq2[] = FM_IQ2_VALUES, iq3_xxs[] = FM_IQ3_XXS_HALVES;
    static const int8_t iq3_s[] = FM_IQ3_S_VALUES, iq1[] = {-8, 0, 8, 16};
    for (int i = 0; i < 256; i++) {
        books.iq2_xxs[i] = entry_of(fm_book_iq2_xxs[i], 8, 2, iq2);
        books.iq3_xxs[i] = (uint32_t)entry_of(fm_book_iq3_xxs[i], 4, 4, iq3_xxs);
    }
    for (int i = 0; i < 512; i++) {
        books.iq2_xs[i] = entry_of(fm_book_iq2_xs[i], 8, 2, iq2);
        books.iq3_s[i] = (uint32_t)entry_of(fm_book_iq3_s[i], 4, 4, iq3_s);
    }
    for (int i = 0; i < 1024; i++) books.iq2_s[i] = entry_of(fm_book_iq2_s[i], 8, 2, iq2);
    for (int i = 0; i < 2048; i++) books.iq1[i] = entry_of(fm_book_iq1[i], 8, 2, iq1);
}

/* ---- parts --------------------------------------------------------------------------------- */

/* v of 256 columns. */
static void activation_words(words_256 *dst, const fm_act_i13_256 *x)
{
    FM_UNROLL
    for (int k = 0; k < 8; k++) {
        const __m256i hi = load_256(x->hi + 32 * k), lo = load_256(x->lo + 32 * k);
        const __m256i hi_even = _mm256_srai_epi16(_mm256_slli_epi16(hi, 8), 8 - FM_ACT_256_SHIFT);
        const __m256i hi_odd = _mm256_slli_epi16(_mm256_srai_epi16(hi, 8), FM_ACT_256_SHIFT);
        const __m256i lo_even = _mm256_srai_epi16(_mm256_slli_epi16(lo, 8), 8);
        dst->w[k][0] = _mm256_add_epi16(hi_even, lo_even);
        dst->w[k][1] = _mm256_add_epi16(hi_odd, _mm256_srai_epi16(lo, 8));
    }
}

/* Weights times scales of group k. */
static FM_ALWAYS_INLINE void group_words(__m256i w[2], const book_head *h, const uint8_t *block,
                                         int k, book_group_fn *group)
{
    const __m256i q = group(&books, h, block, k);
    const __m256i take = _mm256_set1_epi16((int16_t)(0x8000 | k));
    const __m256i scale = _mm256_shuffle_epi8(h->scale, take);
    w[0] = _mm256_maddubs_epi16(scale, q);
    w[1] = _mm256_maddubs_epi16(_mm256_slli_epi16(scale, 8), q);
}

/* Lane i is the sum of the lanes of s[i]. */
static FM_ALWAYS_INLINE __m256i add_lanes_of_8(const __m256i s[8])
{
    __m256i pair[4], four[2];
    FM_UNROLL
    for (int i = 0; i < 4; i++)
        pair[i] = _mm256_add_epi32(_mm256_unpacklo_epi32(s[2 * i], s[2 * i + 1]),
                                   _mm256_unpackhi_epi32(s[2 * i], s[2 * i + 1]));
    FM_UNROLL
    for (int i = 0; i < 2; i++)
        four[i] = _mm256_add_epi32(_mm256_unpacklo_epi64(pair[2 * i], pair[2 * i + 1]),
                                   _mm256_unpackhi_epi64(pair[2 * i], pair[2 * i + 1]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(four[0], four[1], 0x20),
                            _mm256_permute2x128_si256(four[0], four[1], 0x31));
}

/* ---- one token ----------------------------------------------------------------------------- */

/* Blocks [b0, b1) of rows [row0, row1), whose activations are x and dx; added to y unless b0 is 0. */
static FM_ALWAYS_INLINE void one_token(const fm_matrix *w, int64_t row0, int64_t row1, int64_t b0,
                                       int64_t b1, const words_256 *x, const float *dx, float *y,
                                       const int block_bytes, const float factor,
                                       book_head_fn *head, book_group_fn *group)
{
    for (int64_t row = row0; row < row1; row++) {
        const uint8_t *p = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes +
                           (uint64_t)b0 * (uint64_t)block_bytes;
        float acc = b0 == 0 ? 0.0f : y[row];
        for (int64_t b = 0; b < b1 - b0; b += ONE_BLOCKS) {
            const int n = b1 - b0 - b < ONE_BLOCKS ? (int)(b1 - b0 - b) : ONE_BLOCKS;
            uint16_t half[ONE_BLOCKS] = {0};
            __m256i sum[ONE_BLOCKS];
            float term[ONE_BLOCKS];
            book_head h[ONE_BLOCKS];
            /* Heads first: their chains of operations are long, and groups that wait for them would fill the
             * processor's queues. */
            for (int i = 0; i < n; i++) {
                _mm_prefetch((const char *)p + i * block_bytes + AHEAD_BYTES, _MM_HINT_T0);
                half[i] = head(&h[i], p + i * block_bytes);
            }
            in_memory(h);
            for (int i = n; i < ONE_BLOCKS; i++) sum[i] = _mm256_setzero_si256();
            for (int i = 0; i < n; i++, p += block_bytes) {
                const words_256 *const v = x + b + i;
                __m256i s[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
                FM_UNROLL
                for (int k = 0; k < 8; k++) {
                    __m256i q[2];
                    group_words(q, &h[i], p, k, group);
                    s[0] = settled(_mm256_add_epi32(s[0], _mm256_madd_epi16(q[0], v->w[k][0])));
                    s[1] = settled(_mm256_add_epi32(s[1], _mm256_madd_epi16(q[1], v->w[k][1])));
                }
                sum[i] = _mm256_add_epi32(s[0], s[1]);
            }
            const __m256 d = _mm256_mul_ps(_mm256_set1_ps(factor), load_half((uint8_t *)half));
            const __m256 total = _mm256_cvtepi32_ps(add_lanes_of_8(sum));
            _mm256_storeu_ps(term, _mm256_mul_ps(_mm256_mul_ps(d, _mm256_loadu_ps(dx + b)), total));
            for (int i = 0; i < n; i++) acc = acc + term[i];
        }
        y[row] = acc;
    }
}

static void one_token_rows(const fm_matrix *w, int64_t row0, int64_t row1, const void *act,
                           float *y, const format_book *f)
{
    const int64_t n_block = w->n_in / 256;
    words_256 x[MAX_BLOCKS];
    float dx[MAX_BLOCKS] = {0};
    for (int64_t b0 = 0; b0 < n_block; b0 += MAX_BLOCKS) {
        const int64_t b1 = b0 + MAX_BLOCKS < n_block ? b0 + MAX_BLOCKS : n_block;
        for (int64_t b = b0; b < b1; b++) {
            const fm_act_i13_256 *const a = (const fm_act_i13_256 *)act + b;
            activation_words(&x[b - b0], a);
            dx[b - b0] = a->d;
        }
        f->one(w, row0, row1, b0, b1, x, dx, y);
    }
}

/* ---- several tokens ------------------------------------------------------------------------ */

static FM_ALWAYS_INLINE void unpack_blocks(words_256 *dst, uint16_t *half,
                                           const uint8_t *const *block, size_t ahead,
                                           const int block_bytes, book_head_fn *head,
                                           book_group_fn *group)
{
    book_head h[TILE_ROWS]; /* first, as above */
    for (int r = 0; r < TILE_ROWS; r++) {
        FM_UNROLL
        for (int i = 0; i < block_bytes; i += 64)
            _mm_prefetch((const char *)block[r] + ahead + i, _MM_HINT_T0);
        half[r] = head(&h[r], block[r]);
    }
    in_memory(h);
    for (int r = 0; r < TILE_ROWS; r++) {
        FM_UNROLL
        for (int k = 0; k < 8; k++) group_words(dst[r].w[k], &h[r], block[r], k, group);
    }
}

/* The sums of one block: 4 rows with x0, then with x1. */
static __m256i tile(const words_256 *w, const words_256 *x0, const words_256 *x1)
{
    __m256i sum[TILE_ROWS * TILE_TOKENS];
    FM_UNROLL
    for (int i = 0; i < TILE_ROWS * TILE_TOKENS; i++) sum[i] = _mm256_setzero_si256();
    for (int k = 0; k < 8; k++) {
        FM_UNROLL
        for (int odd = 0; odd < 2; odd++) {
            const __m256i v0 = x0->w[k][odd], v1 = x1->w[k][odd];
            FM_UNROLL
            for (int r = 0; r < TILE_ROWS; r++) {
                const __m256i q = w[r].w[k][odd];
                sum[r] = settled(_mm256_add_epi32(sum[r], _mm256_madd_epi16(q, v0)));
                sum[4 + r] = settled(_mm256_add_epi32(sum[4 + r], _mm256_madd_epi16(q, v1)));
            }
        }
    }
    return add_lanes_of_8(sum);
}

/* TILE_ROWS results of a token, of which n are in the matrix. */
static FM_ALWAYS_INLINE __m128 load_rows(const float *y, int n)
{
    float v[TILE_ROWS] = {0};
    memcpy(v, y, (size_t)n * sizeof *v);
    return _mm_loadu_ps(v);
}

static FM_ALWAYS_INLINE void store_rows(float *y, __m128 v, int n)
{
    float out[TILE_ROWS];
    _mm_storeu_ps(out, v);
    memcpy(y, out, (size_t)n * sizeof *out);
}

/* Rows for up to MAX_TOK tokens. As many columns at a time as there is room for their activations;
 * between them the sums wait in y. */
static void few_tokens(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t nt, const void *format)
{
    const format_book *const f = format;
    const int64_t n_block = w->n_in / 256, step = MAX_BLOCKS / nt;
    const size_t bytes = w->type->block_bytes;
    words_256 x[MAX_BLOCKS], words[TILE_ROWS];
    float dx[MAX_BLOCKS];
    for (int64_t b0 = 0; b0 < n_block; b0 += step) {
        const int64_t b1 = b0 + step < n_block ? b0 + step : n_block;
        for (int64_t b = b0; b < b1; b++) {
            for (int64_t t = 0; t < nt; t++) {
                const fm_act_i13_256 *const a = (const fm_act_i13_256 *)act[t] + b;
                activation_words(&x[(b - b0) * nt + t], a);
                dx[(b - b0) * nt + t] = a->d;
            }
        }
        for (int64_t row = row0; row < row1; row += TILE_ROWS) {
            const int n = row1 - row < TILE_ROWS ? (int)(row1 - row) : TILE_ROWS;
            /* Lanes: 4 rows of a token, 4 of the next, which is the same one again at the end. */
            __m256 acc[MAX_TOK / TILE_TOKENS];
            for (int64_t t = 0; t < nt; t += TILE_TOKENS) {
                const int64_t u = t + 1 < nt ? t + 1 : t;
                acc[t / 2] =
                    b0 == 0 ? _mm256_setzero_ps()
                            : _mm256_set_m128(load_rows(y[u] + row, n), load_rows(y[t] + row, n));
            }
            for (int64_t b = b0; b < b1; b++) {
                const uint8_t *block[TILE_ROWS];
                uint16_t half[2 * TILE_ROWS];
                for (int r = 0; r < TILE_ROWS; r++)
                    block[r] = (const uint8_t *)w->data +
                               (uint64_t)(row + (r < n ? r : 0)) * w->row_bytes +
                               (uint64_t)b * bytes;
                f->unpack(words, half, block, TILE_ROWS * w->row_bytes);
                memcpy(half + TILE_ROWS, half, TILE_ROWS * sizeof *half);
                const __m256 d =
                    _mm256_mul_ps(_mm256_set1_ps(f->factor), load_half((uint8_t *)half));
                for (int64_t t = 0; t < nt; t += TILE_TOKENS) {
                    const int64_t i = (b - b0) * nt + t, j = t + 1 < nt ? i + 1 : i;
                    const __m256 sum = _mm256_cvtepi32_ps(tile(words, &x[i], &x[j]));
                    const __m256 both = _mm256_set_m128(_mm_set1_ps(dx[j]), _mm_set1_ps(dx[i]));
                    acc[t / 2] =
                        _mm256_add_ps(acc[t / 2], _mm256_mul_ps(_mm256_mul_ps(d, both), sum));
                }
            }
            for (int64_t t = 0; t < nt; t += TILE_TOKENS) {
                store_rows(y[t] + row, _mm256_castps256_ps128(acc[t / 2]), n);
                if (t + 1 < nt) store_rows(y[t + 1] + row, _mm256_extractf128_ps(acc[t / 2], 1), n);
            }
        }
    }
}

/* ---- the formats --------------------------------------------------------------------------- */

#define FORMAT(type, block_bytes, factor)                                                          \
    static void one_##type(const fm_matrix *w, int64_t row0, int64_t row1, int64_t b0, int64_t b1, \
                           const words_256 *x, const float *dx, float *y)                          \
    {                                                                                              \
        one_token(w, row0, row1, b0, b1, x, dx, y, block_bytes, factor, head_##type,               \
                  group_##type);                                                                   \
    }                                                                                              \
    static void unpack_##type(words_256 *dst, uint16_t *half, const uint8_t *const *block,         \
                              size_t ahead)                                                        \
    {                                                                                              \
        unpack_blocks(dst, half, block, ahead, block_bytes, head_##type, group_##type);            \
    }                                                                                              \
    static const format_book format_##type = {one_##type, unpack_##type, factor};
FORMAT(iq2_xxs, 66, 0.125f)
FORMAT(iq2_xs, 74, 0.125f)
FORMAT(iq2_s, 82, 0.125f)
FORMAT(iq3_xxs, 98, 0.5f)
FORMAT(iq3_s, 110, 1.0f)
FORMAT(iq1_s, 50, 0.125f)
FORMAT(iq1_m, 56, 0.125f)

/* By type id. */
static const format_book *const formats[FM_KERNEL_TYPES] = {
    [FM_TYPE_IQ2_XXS] = &format_iq2_xxs, [FM_TYPE_IQ2_XS] = &format_iq2_xs,
    [FM_TYPE_IQ2_S] = &format_iq2_s,     [FM_TYPE_IQ3_XXS] = &format_iq3_xxs,
    [FM_TYPE_IQ3_S] = &format_iq3_s,     [FM_TYPE_IQ1_S] = &format_iq1_s,
    [FM_TYPE_IQ1_M] = &format_iq1_m};

bool fm_matmul_book_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok)
{
    const format_book *const f = formats[w->type->id];
    if (!f) return false;
    if (n_tok == 1)
        one_token_rows(w, row0, row1, act[0], y[0], f);
    else
        fm_matmul_by_stretch(w, row0, row1, act, y, n_tok, MAX_TOK, few_tokens, f);
    return true;
}

#endif
