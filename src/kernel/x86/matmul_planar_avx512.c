/* Products with the formats of several planes, for AVX-512 with VNNI: panels, a lane is a row, as in
 * matmul_q32_avx512.c, but codes, scales and biases come from places of their own. */
#include <assert.h>

#include "kernel/x86/matmul_halved_avx512.h"

#if defined(__x86_64__)

#include "kernel/generic/matmul_planar.h"

/* ---- panels ------------------------------------------------------------------------------ */

/* 16 scales of a group, one per row. */
static FM_ALWAYS_INLINE __m512 load_scale(const uint8_t *p, fm_scale type, const int is_e2m1)
{
    if (is_e2m1) return e8m0_half(p);
    if (type == FM_SCALE_BF16) {
        const __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
        return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
    }
    return type == FM_SCALE_F16 ? load_half(p) : _mm512_loadu_ps(p);
}

/* v with bit `from` of every byte in the place of bit `to`; bits that come from other bytes are to be masked off. */
static FM_ALWAYS_INLINE __m512i move_bits(__m512i v, const int from, const int to)
{
    return from >= to ? _mm512_srli_epi32(v, (unsigned)(from - to))
                      : _mm512_slli_epi32(v, (unsigned)(to - from));
}

/* w plus bit u of the bytes of dword p as bit `to`. */
static FM_ALWAYS_INLINE __m512i plus_bit(__m512i w, const uint8_t *p, const int u, const int to)
{
    return or_masked(w, move_bits(load_512(p), u, to), _mm512_set1_epi8((char)(1 << to)));
}

/* The pair of bits of unit u, at bits `to` and `to` + 1. */
static FM_ALWAYS_INLINE __m512i move_pair(const uint8_t *p, const int u, const int to)
{
    return move_bits(load_512(p + 64 * (u / 4)), 2 * (u % 4), to);
}

static FM_ALWAYS_INLINE __m512i unit_u2(const uint8_t *p, int u)
{
    return _mm512_and_si512(move_pair(p, u, 0), _mm512_set1_epi8(3));
}

static FM_ALWAYS_INLINE __m512i unit_u3(const uint8_t *p, int u)
{
    return plus_bit(unit_u2(p, u), p + 2 * 64, u, 2);
}

static FM_ALWAYS_INLINE __m512i unit_u4(const uint8_t *p, int u)
{
    return nibble_unit(p, u);
}

static FM_ALWAYS_INLINE __m512i unit_i4(const uint8_t *p, int u)
{
    return nibble_unit(p, u);
}

static FM_ALWAYS_INLINE __m512i unit_u5(const uint8_t *p, int u)
{
    return plus_bit(nibble_unit(p + 64, u), p, u, 4);
}

static FM_ALWAYS_INLINE __m512i unit_u6(const uint8_t *p, int u)
{
    return or_masked(nibble_unit(p, u), move_pair(p + 4 * 64, u, 4), _mm512_set1_epi8(0x30));
}

static FM_ALWAYS_INLINE __m512i unit_u8(const uint8_t *p, int u)
{
    return load_512(p + 64 * u);
}

typedef struct {
    int bits;
    int offset; /* of the unsigned codes: a power of two or 0 */
    int has_min;
    int is_e2m1;
    fm_read_order order;
} shape;

static FM_ALWAYS_INLINE void panel_planar(float *out, const panel_planes *p, const void *const *act,
                                          const int nt, const int n_plane, const shape sh,
                                          unit_32_fn *unit)
{
    __m512 acc[8];
    FM_UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
    const uint8_t *at = p->codes, *scale = p->scale, *bias = p->bias;
    const int scale_bytes = FM_PANEL_ROWS * (int)fm_scale_bytes(p->scale_type);
    __m512 d = _mm512_setzero_ps(), m = _mm512_setzero_ps();
    int left = 0; /* blocks of this group */
    /* Scales of every block are a second stream. */
    const fm_read_order order = p->blocks_per_group == 1 ? FM_READ_BY_FIELDS : sh.order;
    for (int64_t b = 0; b < p->n_block; b++, at += 4 * sh.bits * FM_PANEL_ROWS) {
        if (left == 0) {
            left = p->blocks_per_group;
            d = load_scale(scale, p->scale_type, sh.is_e2m1);
            scale += scale_bytes;
            if (sh.has_min) {
                m = load_scale(bias, p->scale_type, 0);
                bias += scale_bytes;
            }
        }
        left--;
        if (nt == 1 && fm_asks_ahead(order, nt))
            fm_prefetch_panel_for(nt, at, 4 * sh.bits * FM_PANEL_ROWS, 0, 1);
        const fm_act_i15_32 *x[8];
        __m512i s[8];
        FM_UNROLL
        for (int t = 0; t < nt; t++) x[t] = (const fm_act_i15_32 *)act[t] + b;
        dot_block_32(s, at, unit, sh.offset, x, nt, n_plane);
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            const __m512 f = _mm512_mul_ps(d, _mm512_set1_ps(x[t]->d));
            __m512 term = _mm512_mul_ps(f, _mm512_cvtepi32_ps(s[t]));
            if (sh.has_min)
                term = _mm512_add_ps(term, _mm512_mul_ps(m, _mm512_set1_ps(x[t]->dsum)));
            acc[t] = _mm512_add_ps(acc[t], term);
        }
    }
    FM_UNROLL
    for (int t = 0; t < nt; t++) _mm512_storeu_ps(out + t * FM_PANEL_ROWS, acc[t]);
}

static const shape shape_u2 = {2, 0, 1, 0, FM_READ_BY_FIELDS};
static const shape shape_u3 = {3, 0, 1, 0, FM_READ_BY_FIELDS};
static const shape shape_u4 = {4, 0, 1, 0, FM_READ_IN_ORDER};
static const shape shape_u5 = {5, 0, 1, 0, FM_READ_IN_ORDER};
static const shape shape_u6 = {6, 0, 1, 0, FM_READ_BY_FIELDS};
static const shape shape_u8 = {8, 0, 1, 0, FM_READ_IN_ORDER};
static const shape shape_i4 = {4, 8, 0, 0, FM_READ_IN_ORDER};
static const shape shape_e2m1 = {4, 16, 0, 1, FM_READ_IN_ORDER};

typedef void (*planar_fn)(float *out, const panel_planes *p, const void *const *act);

#define KERNEL(code, nt, n_plane)                                                                  \
    static void code##_##nt##_##n_plane(float *out, const panel_planes *p, const void *const *act) \
    {                                                                                              \
        panel_planar(out, p, act, nt, n_plane, shape_##code, unit_##code);                         \
    }
#define KERNELS(code)                                                                              \
    KERNEL(code, 1, 2)                                                                             \
    KERNEL(code, 2, 2) KERNEL(code, 4, 2) KERNEL(code, 8, 2) KERNEL(code, 4, 1) KERNEL(code, 8, 1)
KERNELS(u2)
KERNELS(u3)
KERNELS(u4)
KERNELS(u5)
KERNELS(u6)
KERNELS(u8)
KERNELS(i4)
KERNELS(e2m1)

#define ENTRY(code, n_plane)                                                                       \
    {                                                                                              \
        code##_1_2, code##_2_2, code##_4_##n_plane, code##_8_##n_plane                             \
    }
#define TABLE(n_plane)                                                                             \
    {                                                                                              \
        [FM_CODE_U2] = ENTRY(u2, n_plane), [FM_CODE_U3] = ENTRY(u3, n_plane),                      \
        [FM_CODE_U4] = ENTRY(u4, n_plane), [FM_CODE_U5] = ENTRY(u5, n_plane),                      \
        [FM_CODE_U6] = ENTRY(u6, n_plane), [FM_CODE_U8] = ENTRY(u8, n_plane),                      \
        [FM_CODE_I4] = ENTRY(i4, n_plane), [FM_CODE_E2M1] = ENTRY(e2m1, n_plane),                  \
    }
/* By planes of activations, code and log2 of the number of tokens. */
static const planar_fn kernels[2][FM_CODE_E2M1 + 1][4] = {TABLE(1), TABLE(2)};

/* One panel of each plane. */
static panel_planes panel_at(const fm_matrix *w, int64_t row)
{
    const uint64_t aux = (uint64_t)row * w->aux_row_bytes;
    return (panel_planes){
        .codes = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes,
        .scale = (const uint8_t *)w->aux[0] + aux,
        .bytes = w->row_bytes * FM_PANEL_ROWS,
        .bias = w->type->n_plane == 3 ? (const uint8_t *)w->aux[1] + aux : NULL,
        .n_block = w->n_in / 32,
        .blocks_per_group = w->type->block_elems / 32,
        .scale_type = (fm_scale)w->type->scale,
    };
}

/* fm_matmul_panel_rows() with planes. */
static void panel_rows(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t n_tok, int n_plane)
{
    enum { GROUP = 8 };
    const uint64_t panel_bytes = w->row_bytes * FM_PANEL_ROWS;
    int64_t stretch = (int64_t)(FM_PANEL_STRETCH_BYTES / panel_bytes) * FM_PANEL_ROWS;
    if (stretch < FM_PANEL_ROWS) stretch = FM_PANEL_ROWS;
    for (int64_t r0 = row0; r0 < row1; r0 += stretch) {
        const int64_t r1 = r0 + stretch < row1 ? r0 + stretch : row1;
        for (int64_t t0 = 0; t0 < n_tok; t0 += GROUP) {
            const int64_t nt = n_tok - t0 < GROUP ? n_tok - t0 : GROUP;
            const int log2 = nt > 4 ? 3 : nt > 2 ? 2 : nt > 1 ? 1 : 0;
            const void *x[GROUP];
            for (int64_t t = 0; t < GROUP; t++) x[t] = act[t0 + (t < nt ? t : 0)];
            for (int64_t row = r0; row < r1; row += FM_PANEL_ROWS) {
                const panel_planes p = panel_at(w, row);
                float out[GROUP * FM_PANEL_ROWS];
                kernels[n_plane - 1][w->type->code][log2](out, &p, x);
                for (int64_t t = 0; t < nt; t++)
                    memcpy(y[t0 + t] + row, out + t * FM_PANEL_ROWS, FM_PANEL_ROWS * sizeof *out);
            }
        }
    }
}

/* Many tokens, see matmul_halved_avx512.h. */
static FM_ALWAYS_INLINE void unpack_planar(halved_block_32 *dst, const panel_planes *p, int64_t b,
                                           const shape sh, unit_32_fn *unit)
{
    const int64_t scales = b / p->blocks_per_group * FM_PANEL_ROWS * fm_scale_bytes(p->scale_type);
    const uint8_t *const block = p->codes + b * 4 * sh.bits * FM_PANEL_ROWS;
    ask_for_next_panel(p, block, 4 * sh.bits * FM_PANEL_ROWS);
    dst->d = load_scale(p->scale + scales, p->scale_type, sh.is_e2m1);
    dst->m = sh.has_min ? load_scale(p->bias + scales, p->scale_type, 0) : _mm512_setzero_ps();
    unpack_halved_32(dst, block, unit);
}

#define HALVED(code)                                                                               \
    static void unpack_##code(halved_block_32 *dst, const panel_planes *p, int64_t b)              \
    {                                                                                              \
        unpack_planar(dst, p, b, shape_##code, unit_##code);                                       \
    }
HALVED(u2)
HALVED(u3)
HALVED(u4)
HALVED(u5)
HALVED(u6)
HALVED(u8)
HALVED(i4)
HALVED(e2m1)

/* By code; from how many tokens on, for all, see bench_matmul: weights from memory are asked for here. */
enum { HALVED_LEAST = 8 };
static const struct {
    const shape *shape;
    unpack_halved_fn *unpack;
} halved[FM_CODE_E2M1 + 1] = {
    [FM_CODE_U2] = {&shape_u2, unpack_u2}, [FM_CODE_U3] = {&shape_u3, unpack_u3},
    [FM_CODE_U4] = {&shape_u4, unpack_u4}, [FM_CODE_U5] = {&shape_u5, unpack_u5},
    [FM_CODE_U6] = {&shape_u6, unpack_u6}, [FM_CODE_U8] = {&shape_u8, unpack_u8},
    [FM_CODE_I4] = {&shape_i4, unpack_i4}, [FM_CODE_E2M1] = {&shape_e2m1, unpack_e2m1},
};

/* As fm_halved_32_avx512(). */
static int64_t many_tokens(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                           float *const *y, int64_t n_tok)
{
    assert(w->type->code <= FM_CODE_E2M1);
    const shape *const sh = halved[w->type->code].shape;
    const halved_32 f = {HALVED_LEAST, sh->offset, sh->has_min, panel_at,
                         halved[w->type->code].unpack};
    return fm_halved_32_avx512(w, row0, row1, act, y, n_tok, &f);
}

void fm_matmul_planar_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                             float *const *y, int64_t n_tok, int n_plane, bool one_multiplier)
{
    if (n_plane == 2 && one_multiplier) row0 = many_tokens(w, row0, row1, act, y, n_tok);
    const int64_t panels = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panels ? row1 : panels;
    if (row0 < split) {
        panel_rows(w, row0, split, act, y, n_tok, n_plane);
        row0 = split;
    }
    fm_rows_planar(w, row0, row1, act, y, n_tok);
}

#endif
