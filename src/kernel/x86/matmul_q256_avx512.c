/* Panel kernels of the formats with blocks of 256, for AVX-512 with VNNI. A lane is a row.
 *
 * All formats have the same shape: a head (scales), and groups of 16 or 32 columns whose weights
 * are small unsigned integers with one scale. A format supplies two functions, one that reads the
 * head of 16 blocks and one that takes a group apart; panel_256 does the sums.
 *
 * Ranges (per block, so independent of the row length): a group's sum is at most
 * 32 * 31 * 127 or 16 * 63 * 127 = 128016; times a scale of at most 128, times 16 groups: 2.7e8.
 * The second sum has 16 terms of at most 128 * 2032, times the offset 32: 1.4e8.
 */
#include "kernel/x86/matmul_avx512.h"

#if defined(__x86_64__)

typedef struct {
    __m512i sc[16];  /* scale of group k, in the form that shape_256.scale names             */
    __m512i pair[8]; /* what meets isum[2m], isum[2m+1]: minima, or scales when q has offset */
    __m512 d, m;
} head_512;

typedef void head_fn(head_512 *, const uint8_t *);
typedef void group_fn(__m512i *, const uint8_t *, int);

/* Where the scale of a group comes in. */
typedef enum {
    SCALE_SUM,     /* sum times sc, i32                                                      */
    SCALE_I16,     /* the sum fits 16 bits: one i16 product; sc in the low half, 0 above     */
    SCALE_WEIGHTS, /* weight times scale fits a byte: before the sum; sc as i16 twice        */
} scale_place;

/* Properties of a format that the compiler resolves. */
typedef struct {
    int block_bytes;
    int n_group, n_unit; /* groups per block; units (4 columns) per group                    */
    int offset;          /* subtracted from every q; 0 for formats with a minimum            */
    int has_min;
    scale_place scale;
    int prefetch; /* one token: measured three times faster from memory with explicit
                     prefetch and a rolled loop; the other formats are faster without        */
} shape_256;

/* Asks for part k of the block after the next. At the end of the matrix that is some lines behind
 * it, which a prefetch may name. */
static FM_ALWAYS_INLINE void prefetch_ahead(const uint8_t *panel, const shape_256 shape, int k)
{
    const int bytes = shape.block_bytes * FM_PANEL_ROWS;
    const int n_line = bytes / 64 / shape.n_group + 1;
    FM_UNROLL
    for (int i = 0; i < n_line; i++)
        _mm_prefetch((const char *)(panel + 2 * bytes + 64 * (n_line * k + i)), _MM_HINT_T0);
}

/* Group k of a block for nt tokens. */
static FM_ALWAYS_INLINE void add_group(__m512i *sum, const head_512 *h, const uint8_t *panel,
                                       const fm_act_q8_256 *const *x, const int nt,
                                       const shape_256 shape, group_fn *group, int k)
{
    const int column = k * shape.n_unit * 4;
    __m512i w[8];
    group(w, panel, k);
    if (shape.scale == SCALE_WEIGHTS) {
        FM_UNROLL
        for (int u = 0; u < shape.n_unit; u++) w[u] = _mm512_mullo_epi16(w[u], h->sc[k]);
    }
    /* Tokens inside: nt independent chains of sums hide the latency of vpdpbusd. */
    __m512i s[8];
    FM_UNROLL
    for (int t = 0; t < nt; t++) s[t] = _mm512_setzero_si512();
    FM_UNROLL
    for (int u = 0; u < shape.n_unit; u++) {
        FM_UNROLL
        for (int t = 0; t < nt; t++)
            s[t] = _mm512_dpbusd_epi32(s[t], w[u], repeat_32(x[t]->q + column + 4 * u));
    }
    FM_UNROLL
    for (int t = 0; t < nt; t++) {
        if (shape.scale == SCALE_WEIGHTS)
            sum[t] = _mm512_add_epi32(sum[t], s[t]);
        else if (shape.scale == SCALE_I16)
            sum[t] = _mm512_dpwssd_epi32(sum[t], s[t], h->sc[k]);
        else
            sum[t] = _mm512_add_epi32(sum[t], _mm512_mullo_epi32(s[t], h->sc[k]));
    }
}

/* Integer sums of one block for nt tokens, then the float step of quant.h. */
static FM_ALWAYS_INLINE void panel_256(float *out, const uint8_t *panel, int64_t n_block,
                                       const void *const *act, const int nt, const shape_256 shape,
                                       head_fn *head, group_fn *group)
{
    __m512 acc[8];
    FM_UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_block; b++, panel += (size_t)shape.block_bytes * FM_PANEL_ROWS) {
        const fm_act_q8_256 *x[8];
        head_512 h;
        __m512i sum[8], low[8];
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            x[t] = (const fm_act_q8_256 *)act[t] + b;
            sum[t] = low[t] = _mm512_setzero_si512();
        }
        head(&h, panel);
        if (nt == 1 && !shape.prefetch) {
            /* Unrolled, so that shifts are constants and weights shared by groups are loaded
             * once. */
            FM_UNROLL
            for (int k = 0; k < shape.n_group; k++)
                add_group(sum, &h, panel, x, nt, shape, group, k);
        } else {
            for (int k = 0; k < shape.n_group; k++) {
                if (nt == 1) prefetch_ahead(panel, shape, k);
                add_group(sum, &h, panel, x, nt, shape, group, k);
            }
        }
        FM_UNROLL
        for (int m = 0; m < 8; m++) {
            FM_UNROLL
            for (int t = 0; t < nt; t++)
                low[t] = _mm512_dpwssd_epi32(low[t], h.pair[m], repeat_32(x[t]->isum + 2 * m));
        }
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            const __m512 dx = _mm512_set1_ps(x[t]->d);
            if (shape.offset != 0)
                sum[t] = _mm512_sub_epi32(
                    sum[t], _mm512_mullo_epi32(low[t], _mm512_set1_epi32(shape.offset)));
            __m512 term = _mm512_mul_ps(_mm512_mul_ps(h.d, dx), _mm512_cvtepi32_ps(sum[t]));
            if (shape.has_min)
                term = _mm512_sub_ps(
                    term, _mm512_mul_ps(_mm512_mul_ps(h.m, dx), _mm512_cvtepi32_ps(low[t])));
            acc[t] = _mm512_add_ps(acc[t], term);
        }
    }
    FM_UNROLL
    for (int t = 0; t < nt; t++) _mm512_storeu_ps(out + t * FM_PANEL_ROWS, acc[t]);
}

/* Bytes of every 32-bit lane rearranged: byte j of the result is byte (pattern >> 8 j) & 0xff of
 * the lane, or 0 where that has bit 7. */
static FM_ALWAYS_INLINE __m512i pick_bytes(__m512i v, uint32_t pattern)
{
    const __m512i lane = _mm512_broadcast_i32x4(
        _mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c));
    return _mm512_shuffle_epi8(v, _mm512_add_epi8(_mm512_set1_epi32((int)pattern), lane));
}

/* Byte i of every lane as u32, as i32, as i16 below zeros, and as the same u16 twice. */
static FM_ALWAYS_INLINE __m512i byte_u32(__m512i v, int i)
{
    return pick_bytes(v, 0x80808000u + (uint32_t)i);
}

static FM_ALWAYS_INLINE __m512i byte_i32(__m512i v, int i)
{
    return _mm512_srai_epi32(pick_bytes(v, 0x00808080u + ((uint32_t)i << 24)), 24);
}

static FM_ALWAYS_INLINE __m512i byte_i16(__m512i v, int i)
{
    return _mm512_srai_epi16(pick_bytes(v, 0x80800080u + ((uint32_t)i << 8)), 8);
}

static FM_ALWAYS_INLINE __m512i byte_twice_u16(__m512i v, int i)
{
    return pick_bytes(v, 0x80008000u + (uint32_t)i * 0x00010001u);
}

/* Bytes 2j and 2j + 1 of every lane as two u16 and as two i16. */
static FM_ALWAYS_INLINE __m512i byte_pair_u16(__m512i v, int j)
{
    return pick_bytes(v, 0x80018000u + (uint32_t)j * 0x00020002u);
}

static FM_ALWAYS_INLINE __m512i byte_pair_i16(__m512i v, int j)
{
    return _mm512_srai_epi16(pick_bytes(v, 0x01800080u + (uint32_t)j * 0x02000200u), 8);
}

/* 6-bit scales and minima of Q4_K and Q5_K; p at the 12 bytes. Group k has 32 columns. */
static FM_ALWAYS_INLINE void head_6bit(head_512 *h, const uint8_t *p)
{
    const __m512i a = load_512(p), b = load_512(p + 64), c = load_512(p + 128);
    const __m512i m6 = _mm512_set1_epi32(0x3f3f3f3f), m4 = _mm512_set1_epi32(0x0f0f0f0f);
    const __m512i top = _mm512_set1_epi32(0x30303030);
    const __m512i sc0 = _mm512_and_si512(a, m6), mn0 = _mm512_and_si512(b, m6);
    const __m512i sc1 = or_masked(_mm512_and_si512(c, m4), _mm512_srli_epi32(a, 2), top);
    const __m512i mn1 = or_masked(_mm512_and_si512(_mm512_srli_epi32(c, 4), m4),
                                  _mm512_srli_epi32(b, 2), top);
    FM_UNROLL
    for (int i = 0; i < 4; i++) {
        h->sc[i] = byte_u32(sc0, i);
        h->sc[4 + i] = byte_u32(sc1, i);
        h->pair[i] = byte_twice_u16(mn0, i);
        h->pair[4 + i] = byte_twice_u16(mn1, i);
    }
}

static FM_ALWAYS_INLINE void head_q4_k(head_512 *h, const uint8_t *p)
{
    h->d = load_half(p);
    h->m = load_half(p + 2 * 16);
    head_6bit(h, p + 4 * 16);
}

/* Columns of group k: nibble k % 2 of units 8 (k / 2) + u of qs. */
static FM_ALWAYS_INLINE void group_q4_k(__m512i *w, const uint8_t *p, int k)
{
    const uint8_t *const qs = p + 16 * 16 + (size_t)(k / 2) * 8 * 64;
    const __m128i shift = _mm_cvtsi32_si128(4 * (k & 1));
    FM_UNROLL
    for (int u = 0; u < 8; u++)
        w[u] = _mm512_and_si512(_mm512_srl_epi32(load_512(qs + 64 * u), shift),
                                _mm512_set1_epi32(0x0f0f0f0f));
}

/* The fifth bit is bit k of the bytes of qh; rotating by k - 4 puts it on bit 4. */
static FM_ALWAYS_INLINE void group_q5_k(__m512i *w, const uint8_t *p, int k)
{
    const uint8_t *const qh = p + 16 * 16, *const qs = p + 48 * 16 + (size_t)(k / 2) * 8 * 64;
    const __m128i shift = _mm_cvtsi32_si128(4 * (k & 1));
    const __m512i turn = _mm512_set1_epi32(k - 4);
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        const __m512i low = _mm512_and_si512(_mm512_srl_epi32(load_512(qs + 64 * u), shift),
                                             _mm512_set1_epi32(0x0f0f0f0f));
        w[u] = or_masked(low, _mm512_rorv_epi32(load_512(qh + 64 * u), turn),
                         _mm512_set1_epi32(0x10101010));
    }
}

static FM_ALWAYS_INLINE void head_q6_k(head_512 *h, const uint8_t *p)
{
    h->d = load_half(p + 208 * 16);
    h->m = _mm512_setzero_ps();
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        const __m512i s = load_512(p + 192 * 16 + 64 * j);
        FM_UNROLL
        for (int i = 0; i < 4; i++) h->sc[4 * j + i] = byte_i32(s, i);
        h->pair[2 * j] = byte_pair_i16(s, 0);
        h->pair[2 * j + 1] = byte_pair_i16(s, 1);
    }
}

/* Group k is columns 32 c + 16 g of half n, k = 8 n + 2 c + g: nibble c / 2 of ql, pair c of qh. */
static FM_ALWAYS_INLINE void group_q6_k(__m512i *w, const uint8_t *p, int k)
{
    const int n = k >> 3, c = k >> 1 & 3, g = k & 1;
    const uint8_t *const ql = p + (size_t)(16 * n + 8 * (c & 1) + 4 * g) * 64;
    const uint8_t *const qh = p + 128 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m128i shift = _mm_cvtsi32_si128(4 * (c >> 1));
    const __m512i turn = _mm512_set1_epi32(2 * c - 4);
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m512i low = _mm512_and_si512(_mm512_srl_epi32(load_512(ql + 64 * u), shift),
                                             _mm512_set1_epi32(0x0f0f0f0f));
        w[u] = or_masked(low, _mm512_rorv_epi32(load_512(qh + 64 * u), turn),
                         _mm512_set1_epi32(0x30303030));
    }
}

static FM_ALWAYS_INLINE void head_q3_k(head_512 *h, const uint8_t *p)
{
    const uint8_t *const s = p + 96 * 16;
    const __m512i a = load_512(s), b = load_512(s + 64), c = load_512(s + 128);
    const __m512i m4 = _mm512_set1_epi32(0x0f0f0f0f), top = _mm512_set1_epi32(0x30303030);
    __m512i six[4]; /* bytes: 6-bit scales of groups 4j .. 4j+3 */
    six[0] = or_masked(_mm512_and_si512(a, m4), _mm512_slli_epi32(c, 4), top);
    six[1] = or_masked(_mm512_and_si512(b, m4), _mm512_slli_epi32(c, 2), top);
    six[2] = or_masked(_mm512_and_si512(_mm512_srli_epi32(a, 4), m4), c, top);
    six[3] = or_masked(_mm512_and_si512(_mm512_srli_epi32(b, 4), m4), _mm512_srli_epi32(c, 2), top);
    h->d = load_half(p + 108 * 16);
    h->m = _mm512_setzero_ps();
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        const __m512i v = _mm512_sub_epi8(six[j], _mm512_set1_epi8(32));
        FM_UNROLL
        for (int i = 0; i < 4; i++) h->sc[4 * j + i] = byte_i16(v, i);
        h->pair[2 * j] = byte_pair_i16(v, 0);
        h->pair[2 * j + 1] = byte_pair_i16(v, 1);
    }
}

/* Group k = 8 n + 2 j + g: bit pair j of units 8 n + 4 g + u of qs, bit 4 n + j of hmask. */
static FM_ALWAYS_INLINE void group_q3_k(__m512i *w, const uint8_t *p, int k)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const hm = p + (size_t)g * 4 * 64;
    const uint8_t *const qs = p + 32 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m128i shift = _mm_cvtsi32_si128(2 * j);
    const __m512i turn = _mm512_set1_epi32(4 * n + j - 2);
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m512i low = _mm512_and_si512(_mm512_srl_epi32(load_512(qs + 64 * u), shift),
                                             _mm512_set1_epi32(0x03030303));
        w[u] = or_masked(low, _mm512_rorv_epi32(load_512(hm + 64 * u), turn),
                         _mm512_set1_epi32(0x04040404));
    }
}

static FM_ALWAYS_INLINE void head_q2_k(head_512 *h, const uint8_t *p)
{
    const __m512i m4 = _mm512_set1_epi32(0x0f0f0f0f);
    h->d = load_half(p + 80 * 16);
    h->m = load_half(p + 82 * 16);
    FM_UNROLL
    for (int j = 0; j < 4; j++) {
        const __m512i s = load_512(p + 64 * j);
        const __m512i sc = _mm512_and_si512(s, m4);
        const __m512i mn = _mm512_and_si512(_mm512_srli_epi32(s, 4), m4);
        FM_UNROLL
        for (int i = 0; i < 4; i++) h->sc[4 * j + i] = byte_twice_u16(sc, i);
        h->pair[2 * j] = byte_pair_u16(mn, 0);
        h->pair[2 * j + 1] = byte_pair_u16(mn, 1);
    }
}

/* Two weights of at most 3 lie in each 16-bit word; a product with a scale of at most 15 stays
 * below 256, so a 16-bit multiplication handles both bytes. */
static FM_ALWAYS_INLINE void group_q2_k(__m512i *w, const uint8_t *p, int k)
{
    const int n = k >> 3, j = k >> 1 & 3, g = k & 1;
    const uint8_t *const qs = p + 16 * 16 + (size_t)(8 * n + 4 * g) * 64;
    const __m128i shift = _mm_cvtsi32_si128(2 * j);
    FM_UNROLL
    for (int u = 0; u < 4; u++)
        w[u] = _mm512_and_si512(_mm512_srl_epi32(load_512(qs + 64 * u), shift),
                                _mm512_set1_epi32(0x03030303));
}

static const shape_256 shape_q2_k = {84, 16, 4, 0, 1, SCALE_WEIGHTS, 0};
static const shape_256 shape_q3_k = {110, 16, 4, 4, 0, SCALE_I16, 0}; /* 16 * 7 * 127 = 14224 */
static const shape_256 shape_q4_k = {144, 8, 8, 0, 1, SCALE_SUM, 0};
static const shape_256 shape_q5_k = {176, 8, 8, 0, 1, SCALE_SUM, 0};
static const shape_256 shape_q6_k = {210, 16, 4, 32, 0, SCALE_SUM, 1};

#define KERNEL(type, nt, head, group)                                                             \
    static void type##_##nt(float *out, const uint8_t *panel, int64_t n_block,                    \
                            const void *const *act)                                               \
    {                                                                                             \
        panel_256(out, panel, n_block, act, nt, shape_##type, head, group);                       \
    }
#define KERNELS(type, head, group)                                                                \
    KERNEL(type, 1, head, group)                                                                  \
    KERNEL(type, 2, head, group)                                                                  \
    KERNEL(type, 4, head, group)                                                                  \
    KERNEL(type, 8, head, group)
KERNELS(q2_k, head_q2_k, group_q2_k)
KERNELS(q3_k, head_q3_k, group_q3_k)
KERNELS(q4_k, head_q4_k, group_q4_k)
KERNELS(q5_k, head_q4_k, group_q5_k)
KERNELS(q6_k, head_q6_k, group_q6_k)

const fm_panel_kernels fm_panels_256_avx512[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q2_K] = {{q2_k_1, q2_k_2, q2_k_4, q2_k_8}},
    [FM_TYPE_Q3_K] = {{q3_k_1, q3_k_2, q3_k_4, q3_k_8}},
    [FM_TYPE_Q4_K] = {{q4_k_1, q4_k_2, q4_k_4, q4_k_8}},
    [FM_TYPE_Q5_K] = {{q5_k_1, q5_k_2, q5_k_4, q5_k_8}},
    [FM_TYPE_Q6_K] = {{q6_k_1, q6_k_2, q6_k_4, q6_k_8}},
};

#endif
