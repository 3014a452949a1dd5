/* Between the files of the neon and i8mm products: vectors, and how the formats of blocks of 32 and 256 are taken apart.
 *
 * A panel of 16 rows is four quads: a vector of weights holds 4 columns of the 4 rows of a quad, so that one SDOT with
 * one 4-byte lane of activations adds them to one lane per row. Weights become signed bytes, with their offset taken
 * off, and meet both planes of an activation; so there is nothing to correct afterwards, but for codes of 8 unsigned
 * bits.
 */
#pragma once

#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernel/matmul_panels.h"
#include "quant/planar.h"

enum { N_QUAD = 4, CHUNK = 16 /* columns whose activations fill a vector */ };

/* ---- products of one token, by type ------------------------------------------------------- */

/* 16 rows from `row` on for one token; act is its activation row. */
typedef void fm_panel_one_fn(float *out, const fm_matrix *w, int64_t row, const void *act);

/* The kernel of a type with panels; NULL for others. */
fm_panel_one_fn *fm_panel_one_neon(const fm_type_traits *t);

/* Rows [row0, row1), whole sixteens, for any number of tokens >= 1: of panels of a type for which fm_panel_one_neon() has
 * a kernel, or of code books, in rows. */
void fm_matmul_tiles_neon(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                          float *const *y, int64_t n_tok);
void fm_matmul_tiles_neon_int8(const fm_matrix *w, int64_t row0, int64_t row1,
                               const void *const *act, float *const *y, int64_t n_tok);
void fm_matmul_tiles_i8mm(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                          float *const *y, int64_t n_tok);

/* A product of the neon set whose whole panels are computed by `tiles`. */
void fm_product_neon(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                     float *const *y, int64_t n_tok, fm_matmul_fn tiles);

/* Products with f32, f16, bf16 and E4M3 weights. */
void fm_matmul_float_neon(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                          float *const *y, int64_t n_tok);

/* ---- vectors ------------------------------------------------------------------------------ */

/* acc + the products of 4 columns of 4 rows with lane `lane` (a constant) of x. */
static FM_ALWAYS_INLINE int32x4_t dot_lane(int32x4_t acc, int8x16_t w, int8x16_t x, const int lane)
{
    switch (lane) {
    case 0:
        return vdotq_laneq_s32(acc, w, x, 0);
    case 1:
        return vdotq_laneq_s32(acc, w, x, 1);
    case 2:
        return vdotq_laneq_s32(acc, w, x, 2);
    default:
        return vdotq_laneq_s32(acc, w, x, 3);
    }
}

/* Keeps the operations on sums in the order of the source: moved about by a compiler they need more registers than
 * there are, or form chains, for which processors wait that execute in order. */
static FM_ALWAYS_INLINE int32x4_t in_order(int32x4_t sum)
{
    __asm__ volatile("" : "+w"(sum));
    return sum;
}

/* Shifts by a constant that a compiler may not see as one before it inlines. */
static FM_ALWAYS_INLINE int32x4_t shift_left(int32x4_t v, const int n)
{
    return vreinterpretq_s32_u32(vreinterpretq_u32_s32(v) << (uint32_t)n);
}

/* 4 halves. */
static FM_ALWAYS_INLINE float32x4_t load_half(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

/* fm_e8m0_half for 4 exponents. */
static FM_ALWAYS_INLINE float32x4_t load_e8m0_half(const uint8_t *p)
{
    uint32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    const uint8x8_t v = vreinterpret_u8_u32(vdup_n_u32(bytes));
    const uint32x4_t e = vmovl_u16(vget_low_u16(vmovl_u8(v)));
    const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    const uint32x4_t small = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), small, normal));
}

/* 4 scales; of E8M0 the half, for E2M1 values that are doubled. */
static FM_ALWAYS_INLINE float32x4_t load_scale(const uint8_t *p, fm_scale type)
{
    switch (type) {
    case FM_SCALE_E8M0:
        return load_e8m0_half(p);
    case FM_SCALE_F16:
        return load_half(p);
    case FM_SCALE_BF16:
        return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
    default:
        return vreinterpretq_f32_u8(vld1q_u8(p));
    }
}

/* Bit (or bits, by mask) `from` of every byte, moved to `to`. */
static FM_ALWAYS_INLINE uint8x16_t move_bits(uint8x16_t v, const int from, const int to,
                                             const int mask)
{
    if (from > to) v = v >> (uint8_t)(from - to);
    if (from < to) v = v << (uint8_t)(to - from);
    if (to == 0 && mask == 0xff >> from) return v; /* nothing else is left in the byte */
    return vandq_u8(v, vdupq_n_u8((uint8_t)(mask << to)));
}

/* Low (i = 0) or high nibbles. */
static FM_ALWAYS_INLINE uint8x16_t nibbles(const uint8_t *p, const int i)
{
    return move_bits(vld1q_u8(p), 4 * i, 0, 15);
}

static FM_ALWAYS_INLINE int8x16_t less(uint8x16_t v, const int offset)
{
    return vreinterpretq_s8_u8(vsubq_u8(v, vdupq_n_u8((uint8_t)offset)));
}

/* Values of a book of 16 by index. */
static FM_ALWAYS_INLINE int8x16_t look_up(const int8_t *book, uint8x16_t index)
{
    return vqtbl1q_s8(vld1q_s8(book), index);
}

/* Byte i of every lane, unsigned resp. signed. */
static FM_ALWAYS_INLINE int32x4_t byte_of(uint8x16_t v, const int i)
{
    const uint32x4_t x = vreinterpretq_u32_u8(v) >> (uint32_t)(8 * i);
    return vreinterpretq_s32_u32(vandq_u32(x, vdupq_n_u32(0xff)));
}

static FM_ALWAYS_INLINE int32x4_t signed_byte_of(uint8x16_t v, const int i)
{
    return shift_left(vreinterpretq_s32_u8(v), 24 - 8 * i) >> 24;
}

/* ---- blocks of 256 ------------------------------------------------------------------------ */

/* Properties of a format that the compiler resolves. */
typedef struct {
    int block_bytes;
    int n_unit; /* units of 4 columns that share a scale: 4 or 8     */
    int n_part; /* float steps per block                             */
    int min;    /* columns that share a minimum: 16, 32; 0: none     */
} shape_256;

/* Of a block of the 4 rows of a quad. */
typedef struct {
    int32x4_t sc[16], mn[16]; /* by group */
    float32x4_t d, m;
} head_256;

typedef void head_fn(head_256 *h, const uint8_t *panel, int quad);
/* Columns 16 k + 4 u ... of the quad at p: panel + 16 quad. */
typedef int8x16_t unit_256_fn(const uint8_t *p, int k, int u);

/* 6-bit scales and minima of Q4_K and Q5_K; one serves 32 columns. */
static FM_ALWAYS_INLINE void head_q4_k(head_256 *h, const uint8_t *panel, int quad)
{
    const uint8_t *const p = panel + 4 * 16 + 16 * quad;
    const uint8x16_t a = vld1q_u8(p), b = vld1q_u8(p + 64), c = vld1q_u8(p + 128);
    const uint8x16_t sc0 = move_bits(a, 0, 0, 63), mn0 = move_bits(b, 0, 0, 63);
    const uint8x16_t sc1 = vorrq_u8(move_bits(c, 0, 0, 15), move_bits(a, 6, 4, 3));
    const uint8x16_t mn1 = vorrq_u8(move_bits(c, 4, 0, 15), move_bits(b, 6, 4, 3));
    h->d = load_half(panel + 8 * quad);
    h->m = load_half(panel + 2 * 16 + 8 * quad);
    FM_UNROLL
    for (int i = 0; i < 4; i++) {
        h->sc[i] = byte_of(sc0, i);
        h->sc[4 + i] = byte_of(sc1, i);
        h->mn[i] = byte_of(mn0, i);
        h->mn[4 + i] = byte_of(mn1, i);
    }
}

/* Nibble k / 2 % 2 of units 8 (k / 4) + 4 (k % 2) + u of qs. */
static FM_ALWAYS_INLINE int8x16_t unit_q4_k(const uint8_t *p, int k, int u)
{
    const uint8_t *const qs = p + 16 * 16 + (size_t)(8 * (k >> 2) + 4 * (k & 1)) * 64;
    return vreinterpretq_s8_u8(nibbles(qs + 64 * u, k >> 1 & 1));
}

/* The fifth bit is bit k / 2 of the bytes of qh. */
static FM_ALWAYS_INLINE int8x16_t unit_q5_k(const uint8_t *p, int k, int u)
{
    const uint8_t *const qh = p + 16 * 16 + (size_t)(4 * (k & 1)) * 64;
    const uint8_t *const qs = p + 48 * 16 + (size_t)(8 * (k >> 2) + 4 * (k & 1)) * 64;
    return vreinterpretq_s8_u8(
        vorrq_u8(nibbles(qs + 64 * u, k >> 1 & 1), move_bits(vld1q_u8(qh + 64 * u), k >> 1, 4, 1)));
}

static FM_ALWAYS_INLINE void head_q6_k(head_256 *h, const uint8_t *panel, int quad)
{
    h->d = load_half(panel + 208 * 16 + 8 * quad);
    FM_UNROLL
    for (int k = 0; k < 16; k++)
        h->sc[k] = signed_byte_of(vld1q_u8(panel + 192 * 16 + 64 * (k / 4) + 16 * quad), k % 4);
}

/* Group k is columns 32 c + 16 g of half n, k = 8 n + 2 c + g: nibble c / 2 of ql, pair c of qh. */
static FM_ALWAYS_INLINE int8x16_t unit_q6_k(const uint8_t *p, int k, int u)
{
    const int n = k >> 3, c = k >> 1 & 3, g = k & 1;
    const uint8_t *const ql = p + (size_t)(16 * n + 8 * (c & 1) + 4 * g) * 64;
    const uint8_t *const qh = p + 128 * 16 + (size_t)(8 * n + 4 * g) * 64;
    return less(
        vorrq_u8(nibbles(ql + 64 * u, c >> 1), move_bits(vld1q_u8(qh + 64 * u), 2 * c, 4, 3)), 32);
}

static FM_ALWAYS_INLINE void head_q3_k(head_256 *h, const uint8_t *panel, int quad)
{
    const uint8_t *const s = panel + 96 * 16 + 16 * quad;
    const uint8x16_t a = vld1q_u8(s), b = vld1q_u8(s + 64), c = vld1q_u8(s + 128);
    uint8x16_t sc[4]; /* 6-bit scales of groups 4j .. 4j+3 */
    sc[0] = vorrq_u8(move_bits(a, 0, 0, 15), move_bits(c, 0, 4, 3));
    sc[1] = vorrq_u8(move_bits(b, 0, 0, 15), move_bits(c, 2, 4, 3));
    sc[2] = vorrq_u8(move_bits(a, 4, 0, 15), move_bits(c, 4, 4, 3));
    sc[3] = vorrq_u8(move_bits(b, 4, 0, 15), move_bits(c, 6, 4, 3));
    h->d = load_half(panel + 108 * 16 + 8 * quad);
    FM_UNROLL
    for (int k = 0; k < 16; k++)
        h->sc[k] = signed_byte_of(vreinterpretq_u8_s8(less(sc[k / 4], 32)), k % 4);
}

/* Group k = 8 n + 2 j + g: bit pair j of units 8 n + 4 g + u of qs, bit 4 n + j of hmask. */
static FM_ALWAYS_INLINE int8x16_t unit_q3_k(const uint8_t *p, int k, int u)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const hm = p + (size_t)g * 4 * 64;
    const uint8_t *const qs = p + 32 * 16 + (size_t)(8 * n + 4 * g) * 64;
    return less(vorrq_u8(move_bits(vld1q_u8(qs + 64 * u), 2 * j, 0, 3),
                         move_bits(vld1q_u8(hm + 64 * u), 4 * n + j, 2, 1)),
                4);
}

static FM_ALWAYS_INLINE void head_q2_k(head_256 *h, const uint8_t *panel, int quad)
{
    h->d = load_half(panel + 80 * 16 + 8 * quad);
    h->m = load_half(panel + 82 * 16 + 8 * quad);
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        const uint8x16_t s = vld1q_u8(panel + 64 * j + 16 * quad);
        FM_UNROLL
        for (int i = 0; i < 4; i++) {
            h->sc[4 * j + i] = byte_of(move_bits(s, 0, 0, 15), i);
            h->mn[4 * j + i] = byte_of(move_bits(s, 4, 0, 15), i);
        }
    }
}

static FM_ALWAYS_INLINE int8x16_t unit_q2_k(const uint8_t *p, int k, int u)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const qs = p + 16 * 16 + (size_t)(8 * n + 4 * g) * 64;
    return vreinterpretq_s8_u8(move_bits(vld1q_u8(qs + 64 * u), 2 * j, 0, 3));
}

static FM_ALWAYS_INLINE void head_iq4_xs(head_256 *h, const uint8_t *panel, int quad)
{
    const uint32x4_t low = vreinterpretq_u32_u8(vld1q_u8(panel + 4 * 16 + 16 * quad));
    const uint32x4_t high = vshll_n_u16(vreinterpret_u16_u8(vld1_u8(panel + 2 * 16 + 8 * quad)), 4);
    h->d = load_half(panel + 8 * quad);
    FM_UNROLL
    for (int k = 0; k < 8; k++) {
        const uint32x4_t nibble = vandq_u32(low >> (uint32_t)(4 * k), vdupq_n_u32(15));
        const uint32x4_t pair = vandq_u32(high >> (uint32_t)(2 * k), vdupq_n_u32(0x30));
        h->sc[k] = vsubq_s32(vreinterpretq_s32_u32(vorrq_u32(nibble, pair)), vdupq_n_s32(32));
    }
}

/* Nibble k % 2 of units 4 (k / 2) + u of qs. */
static FM_ALWAYS_INLINE int8x16_t unit_iq4_xs(const uint8_t *p, int k, int u)
{
    return look_up(fm_book_iq4, nibbles(p + 8 * 16 + (size_t)(k >> 1) * 4 * 64 + 64 * u, k & 1));
}

static const shape_256 shape_q2_k = {84, 4, 1, 16};
static const shape_256 shape_q3_k = {110, 4, 1, 0};
static const shape_256 shape_q4_k = {144, 8, 1, 32};
static const shape_256 shape_q5_k = {176, 8, 1, 32};
static const shape_256 shape_q6_k = {210, 4, 2, 0};
static const shape_256 shape_iq4_xs = {136, 8, 2, 0};

/* name (of its shape and unit, too), type id, head */
#define FM_FORMATS_256(X)                                                                          \
    X(q2_k, FM_TYPE_Q2_K, head_q2_k)                                                               \
    X(q3_k, FM_TYPE_Q3_K, head_q3_k)                                                               \
    X(q4_k, FM_TYPE_Q4_K, head_q4_k)                                                               \
    X(q5_k, FM_TYPE_Q5_K, head_q4_k)                                                               \
    X(q6_k, FM_TYPE_Q6_K, head_q6_k)                                                               \
    X(iq4_xs, FM_TYPE_IQ4_XS, head_iq4_xs)

/* ---- blocks of 32 ------------------------------------------------------------------------- */

typedef struct {
    int block_bytes; /* GGUF: of a row                                                        */
    int codes;       /* GGUF: where they begin in a block of a row                             */
    int has_min;
    int missing; /* what was taken off the weights though it belongs to them: 128 or 0     */
    int bits;    /* formats of several planes: of a code; 0: GGUF                          */
} shape_32;

/* Unit u of 8 of the quad at p: the codes of a block + 16 quad. */
typedef int8x16_t unit_32_fn(const uint8_t *p, int u);
/* Scale resp. minimum of the 4 rows of a quad at row, column 32 b. */
typedef float32x4_t scale_fn(const fm_matrix *w, const uint8_t *block, int64_t row, int64_t b,
                             int quad);

/* The codes of block b of the panel at row, and where the block begins (GGUF). */
static FM_ALWAYS_INLINE const uint8_t *block_32_at(const fm_matrix *w, const shape_32 s,
                                                   int64_t row, int64_t b)
{
    const uint8_t *const panel = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes;
    return panel + (size_t)b * FM_PANEL_ROWS * (size_t)(s.bits ? 4 * s.bits : s.block_bytes);
}

static FM_ALWAYS_INLINE uint8x16_t unit_nibbles(const uint8_t *p, int u)
{
    return nibbles(p + 64 * (u % 4), u / 4);
}

static FM_ALWAYS_INLINE int8x16_t unit_u4(const uint8_t *p, int u)
{
    return vreinterpretq_s8_u8(unit_nibbles(p, u));
}

static FM_ALWAYS_INLINE int8x16_t unit_i4(const uint8_t *p, int u)
{
    return less(unit_nibbles(p, u), 8);
}

/* Nibbles behind a dword of fifth bits: byte u / 2 of it to all four bytes, then one bit of each. */
static FM_ALWAYS_INLINE uint8x16_t five_bits(const uint8_t *p, int u)
{
    static const uint8_t lane[16] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    static const uint8_t bit[2][16] = {
        {1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8},
        {16, 32, 64, 128, 16, 32, 64, 128, 16, 32, 64, 128, 16, 32, 64, 128}};
    const uint8x16_t from = vaddq_u8(vld1q_u8(lane), vdupq_n_u8((uint8_t)(u / 2)));
    const uint8x16_t set = vtstq_u8(vqtbl1q_u8(vld1q_u8(p), from), vld1q_u8(bit[u & 1]));
    return vorrq_u8(unit_nibbles(p + 64, u), vandq_u8(set, vdupq_n_u8(16)));
}

static FM_ALWAYS_INLINE int8x16_t unit_q5_1(const uint8_t *p, int u)
{
    return vreinterpretq_s8_u8(five_bits(p, u));
}

static FM_ALWAYS_INLINE int8x16_t unit_q5_0(const uint8_t *p, int u)
{
    return less(five_bits(p, u), 16);
}

static FM_ALWAYS_INLINE int8x16_t unit_q8_0(const uint8_t *p, int u)
{
    return vreinterpretq_s8_u8(vld1q_u8(p + 64 * u));
}

static FM_ALWAYS_INLINE int8x16_t unit_u8(const uint8_t *p, int u)
{
    return less(vld1q_u8(p + 64 * u), 128);
}

/* Formats of several planes: pairs of bits and single bits in the order of planar.h, moved to bit `to`. */
static FM_ALWAYS_INLINE uint8x16_t pair_of_bits(const uint8_t *p, int u, const int to)
{
    return move_bits(vld1q_u8(p + 64 * (u / 4)), 2 * (u % 4), to, 3);
}

static FM_ALWAYS_INLINE uint8x16_t single_bit(const uint8_t *p, int u, const int to)
{
    return move_bits(vld1q_u8(p), u, to, 1);
}

static FM_ALWAYS_INLINE int8x16_t unit_u2(const uint8_t *p, int u)
{
    return vreinterpretq_s8_u8(pair_of_bits(p, u, 0));
}

static FM_ALWAYS_INLINE int8x16_t unit_u3(const uint8_t *p, int u)
{
    return vreinterpretq_s8_u8(vorrq_u8(pair_of_bits(p, u, 0), single_bit(p + 2 * 64, u, 2)));
}

static FM_ALWAYS_INLINE int8x16_t unit_u5(const uint8_t *p, int u)
{
    return vreinterpretq_s8_u8(vorrq_u8(unit_nibbles(p + 64, u), single_bit(p, u, 4)));
}

static FM_ALWAYS_INLINE int8x16_t unit_u6(const uint8_t *p, int u)
{
    return vreinterpretq_s8_u8(vorrq_u8(unit_nibbles(p, u), pair_of_bits(p + 4 * 64, u, 4)));
}

static FM_ALWAYS_INLINE int8x16_t unit_iq4_nl(const uint8_t *p, int u)
{
    return look_up(fm_book_iq4, unit_nibbles(p, u));
}

/* Doubled values of E2M1. */
static FM_ALWAYS_INLINE int8x16_t unit_e2m1(const uint8_t *p, int u)
{
    static const int8_t book[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return look_up(book, unit_nibbles(p, u));
}

/* GGUF: a half in front of the block; a second one is the minimum. */
static FM_ALWAYS_INLINE float32x4_t scale_half(const fm_matrix *w, const uint8_t *block,
                                               int64_t row, int64_t b, int quad)
{
    (void)w, (void)row, (void)b;
    return load_half(block + 8 * quad);
}

static FM_ALWAYS_INLINE float32x4_t min_half(const fm_matrix *w, const uint8_t *block, int64_t row,
                                             int64_t b, int quad)
{
    (void)w, (void)row, (void)b;
    return load_half(block + 2 * 16 + 8 * quad);
}

/* Of formats without a minimum: never asked. */
static FM_ALWAYS_INLINE float32x4_t no_min(const fm_matrix *w, const uint8_t *block, int64_t row,
                                           int64_t b, int quad)
{
    (void)w, (void)block, (void)row, (void)b, (void)quad;
    return vdupq_n_f32(0.0f);
}

static FM_ALWAYS_INLINE float32x4_t scale_e8m0(const fm_matrix *w, const uint8_t *block,
                                               int64_t row, int64_t b, int quad)
{
    (void)w, (void)row, (void)b;
    return load_e8m0_half(block + 4 * quad);
}

/* Formats of several planes: plane 1 or 2, one for every block_elems columns. */
static FM_ALWAYS_INLINE float32x4_t scale_in_plane(const fm_matrix *w, int plane, int64_t row,
                                                   int64_t b, int quad)
{
    const fm_scale type = (fm_scale)w->type->scale;
    const int64_t group = b / (w->type->block_elems / 32);
    const uint8_t *const panel =
        (const uint8_t *)w->aux[plane - 1] + (uint64_t)row * w->aux_row_bytes;
    return load_scale(panel + (size_t)(group * FM_PANEL_ROWS + 4 * quad) * fm_scale_bytes(type),
                      type);
}

static FM_ALWAYS_INLINE float32x4_t scale_plane(const fm_matrix *w, const uint8_t *block,
                                                int64_t row, int64_t b, int quad)
{
    (void)block;
    return scale_in_plane(w, 1, row, b, quad);
}

static FM_ALWAYS_INLINE float32x4_t min_plane(const fm_matrix *w, const uint8_t *block, int64_t row,
                                              int64_t b, int quad)
{
    (void)block;
    return scale_in_plane(w, 2, row, b, quad);
}

static const shape_32 shape_q4_0 = {18, 2, 0, 0, 0};
static const shape_32 shape_q4_1 = {20, 4, 1, 0, 0};
static const shape_32 shape_q5_0 = {22, 2, 0, 0, 0};
static const shape_32 shape_q5_1 = {24, 4, 1, 0, 0};
static const shape_32 shape_q8_0 = {34, 2, 0, 0, 0};
static const shape_32 shape_mxfp4 = {17, 1, 0, 0, 0};
static const shape_32 shape_iq4_nl = {18, 2, 0, 0, 0};
static const shape_32 shape_u2 = {0, 0, 1, 0, 2};
static const shape_32 shape_u3 = {0, 0, 1, 0, 3};
static const shape_32 shape_u4 = {0, 0, 1, 0, 4};
static const shape_32 shape_u5 = {0, 0, 1, 0, 5};
static const shape_32 shape_u6 = {0, 0, 1, 0, 6};
static const shape_32 shape_u8 = {0, 0, 1, 128, 8};
static const shape_32 shape_i4 = {0, 0, 0, 0, 4};
static const shape_32 shape_e2m1 = {0, 0, 0, 0, 4};

/* name, type id, unit, scale, minimum */
#define FM_FORMATS_32(X)                                                                           \
    X(q4_0, FM_TYPE_Q4_0, unit_i4, scale_half, no_min)                                             \
    X(q4_1, FM_TYPE_Q4_1, unit_u4, scale_half, min_half)                                           \
    X(q5_0, FM_TYPE_Q5_0, unit_q5_0, scale_half, no_min)                                           \
    X(q5_1, FM_TYPE_Q5_1, unit_q5_1, scale_half, min_half)                                         \
    X(q8_0, FM_TYPE_Q8_0, unit_q8_0, scale_half, no_min)                                           \
    X(mxfp4, FM_TYPE_MXFP4, unit_e2m1, scale_e8m0, no_min)                                         \
    X(iq4_nl, FM_TYPE_IQ4_NL, unit_iq4_nl, scale_half, no_min)
/* name, code, unit, scale, minimum */
#define FM_FORMATS_PLANAR(X)                                                                       \
    X(u2, FM_CODE_U2, unit_u2, scale_plane, min_plane)                                             \
    X(u3, FM_CODE_U3, unit_u3, scale_plane, min_plane)                                             \
    X(u4, FM_CODE_U4, unit_u4, scale_plane, min_plane)                                             \
    X(u5, FM_CODE_U5, unit_u5, scale_plane, min_plane)                                             \
    X(u6, FM_CODE_U6, unit_u6, scale_plane, min_plane)                                             \
    X(u8, FM_CODE_U8, unit_u8, scale_plane, min_plane)                                             \
    X(i4, FM_CODE_I4, unit_i4, scale_plane, no_min)                                                \
    X(e2m1, FM_CODE_E2M1, unit_e2m1, scale_plane, no_min)

#endif
