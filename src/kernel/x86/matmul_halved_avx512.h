/* Sums of products with fewer multiplications, for AVX-512 with VNNI, where the processor adds while it multiplies.
 *
 * S. Winograd, "A New Algorithm for Inner Product", IEEE Transactions on Computers C-17 (1968): for columns 0 and 1 with
 * activations x and weights w
 *     x0 w0 + x1 w1 = (x0 + w1) (x1 + w0) - x0 x1 - w0 w1.
 * The last two are summed once for a block of activations, whatever weights it meets, and once for a block of weights,
 * whatever activations; what is left has one multiplication for two products, and two additions. Everything is an integer,
 * modulo 2^32, so the sum is the same. One multiplier of 512 bits and room for one addition more in every cycle (Zen 4) take
 * 1.5 cycles for 64 products of words, instead of 2, and the multiplier is idle for a third of them. So of four units, of
 * four columns each, one is multiplied as it is: 256 products are then 5 multiplications and 6 additions, 1.375 cycles for
 * 64.
 *
 * Words lie side by side in lanes of 32 bits and are added as those, by an instruction that also spreads the activation.
 * So neither may be negative: activations are `top` larger, the bound of their form, and weights `offset`; what that adds
 * is in the two sums, too. With X = x + top and W = w + offset, over n pairs of columns,
 *     sum x w = sum (X0 + W1) (X1 + W0) - [sum (X0 + offset) (X1 + offset) - n (top + offset)^2]
 *                                       - sum (W0 + top) (W1 + top),
 * and where they are multiplied as they are
 *     sum x w = sum (X0 W0 + X1 W1) - [sum offset (X0 + X1) - 2 n top offset] - sum top (W0 + W1).
 */
#pragma once

#include "kernel/x86/matmul_q32_avx512.h"
#include "quant/planar.h"

#if defined(__x86_64__)

/* Which of four units is multiplied as it is, and the lanes of such in a vector of units, from a multiple of 4 on. */
enum { PLAIN_UNIT = 1, PLAIN_LANES = 0x1111 << PLAIN_UNIT };

static FM_ALWAYS_INLINE bool is_plain(const int u)
{
    return u % 4 == PLAIN_UNIT;
}

/* sum plus what the weights w0, w1 of unit u take away. */
static FM_ALWAYS_INLINE __m512i add_own_weights(__m512i sum, __m512i w0, __m512i w1, const int top,
                                                const int u)
{
    const __m512i t = _mm512_set1_epi16((short)top);
    if (is_plain(u)) return _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(sum, w0, t), w1, t);
    return _mm512_dpwssd_epi32(sum, _mm512_add_epi16(w0, t), _mm512_add_epi16(w1, t));
}

/* sum plus what activations take away, a lane a unit. */
static FM_ALWAYS_INLINE __m512i add_own_acts(__m512i sum, __m512i x0, __m512i x1, const int offset)
{
    const __m512i o = _mm512_set1_epi16((short)offset);
    const __m512i a = _mm512_mask_add_epi32(x0, (__mmask16)~PLAIN_LANES, x0, o);
    const __m512i b = _mm512_mask_add_epi32(o, (__mmask16)~PLAIN_LANES, x1, o);
    return _mm512_mask_dpwssd_epi32(_mm512_dpwssd_epi32(sum, a, b), PLAIN_LANES, x1, o);
}

/* The sum of the lanes, modulo 2^32. */
static FM_ALWAYS_INLINE uint32_t sum_of_8(__m256i v)
{
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

static FM_ALWAYS_INLINE uint32_t sum_of_16(__m512i v)
{
    return sum_of_8(_mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1)));
}

/* Where the sum over n units, a multiple of 4, starts for activations that take away own. */
static FM_ALWAYS_INLINE uint32_t halved_start(uint32_t n, int top, int offset, uint32_t own)
{
    const uint32_t halved = (uint32_t)((top + offset) * (top + offset));
    const uint32_t plain = (uint32_t)(2 * top * offset);
    return n / 4 * 2 * (3 * halved + plain) - own;
}

/* sum plus the products of two columns of each row in w with the two activations at p. This and the next are in the order of
 * the source, as SUM_IN_ORDER. */
static FM_ALWAYS_INLINE __m512i add_pair(__m512i sum, __m512i w, const int32_t *p)
{
#if defined(FM_ADDRESS_SANITIZER)
    return _mm512_dpwssd_epi32(sum, w, _mm512_set1_epi32(*p));
#else
    __asm__ volatile("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*p));
    return sum;
#endif
}

/* sum plus (W1 + X0) (W0 + X1) of two pairs of columns of each row: w0 and w1 hold W0 and W1, *x0 and *x1 hold X0 and X1. */
static FM_ALWAYS_INLINE __m512i add_halved(__m512i sum, __m512i w0, __m512i w1, const int32_t *x0,
                                           const int32_t *x1)
{
#if defined(FM_ADDRESS_SANITIZER)
    return _mm512_dpwssd_epi32(sum, _mm512_add_epi32(w1, _mm512_set1_epi32(*x0)),
                               _mm512_add_epi32(w0, _mm512_set1_epi32(*x1)));
#else
    __m512i a, b;
    __asm__ volatile("vpaddd %1%{1to16%}, %2, %0" : "=v"(a) : "m"(*x0), "v"(w1));
    __asm__ volatile("vpaddd %1%{1to16%}, %2, %0" : "=v"(b) : "m"(*x1), "v"(w0));
    __asm__ volatile("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#endif
}

/* sum plus what unit u adds. */
static FM_ALWAYS_INLINE __m512i add_unit_of_words(__m512i sum, __m512i w0, __m512i w1,
                                                  const int32_t *x0, const int32_t *x1, const int u)
{
    if (is_plain(u)) return add_pair(add_pair(sum, w0, x0), w1, x1);
    return add_halved(sum, w0, w1, x0, x1);
}

/* ---- blocks of 32: matmul_q32_halved_avx512.c ---------------------------------------------- */

/* Where a panel's blocks come from; formats of one plane have codes only. */
typedef struct {
    const uint8_t *codes, *scale, *bias;
    uint64_t bytes;  /* to the next panel's codes */
    int64_t n_block; /* of 32 columns             */
    int blocks_per_group;
    fm_scale scale_type;
} panel_planes;

/* A block of 16 rows taken apart. */
typedef struct {
    __m512i w[8][2]; /* unit; W of columns 4u and 4u + 2, 4u + 1 and 4u + 3 */
    __m512i less;    /* minus what the weights take away                     */
    __m512 d, m;
} halved_block_32;

/* Takes apart block b of a panel. */
typedef void unpack_halved_fn(halved_block_32 *dst, const panel_planes *p, int64_t b);

/* What a format supplies. */
typedef struct {
    int least;  /* tokens for which this is faster than planes of bytes, measured on Zen 4 */
    int offset; /* of its unsigned codes */
    int has_min;
    panel_planes (*panel)(const fm_matrix *w, int64_t row);
    unpack_halved_fn *unpack;
} halved_32;

/* Asks for the block of the next panel in the place of one with so many bytes: tokens meet some blocks of one panel, then
 * the same blocks of the next. */
static FM_ALWAYS_INLINE void ask_for_next_panel(const panel_planes *p, const uint8_t *block,
                                                const int bytes)
{
    FM_UNROLL
    for (int i = 0; i < bytes; i += 64) fm_prefetch_far(block + p->bytes + i);
}

_Static_assert(2 * FM_ACT_32_TOP + UINT8_MAX <= INT16_MAX, "X + W is a word");

/* Takes apart the weights of a block at p; scale and minimum are the caller's. */
static FM_ALWAYS_INLINE void unpack_halved_32(halved_block_32 *dst, const uint8_t *p,
                                              unit_32_fn *unit)
{
    __m512i own = _mm512_setzero_si512();
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        const __m512i q = unit(p, u);
        dst->w[u][0] = _mm512_and_si512(q, _mm512_set1_epi16(0xff));
        dst->w[u][1] = _mm512_srli_epi16(q, 8);
        own = add_own_weights(own, dst->w[u][0], dst->w[u][1], FM_ACT_32_TOP, u);
    }
    dst->less = _mm512_sub_epi32(_mm512_setzero_si512(), own);
}

/* Panels [row0, row1) where f is faster for so many tokens, and else none; activations of two planes. Returns the first row
 * that is left to compute. */
int64_t fm_halved_32_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                            float *const *y, int64_t n_tok, const halved_32 *f);

#endif
