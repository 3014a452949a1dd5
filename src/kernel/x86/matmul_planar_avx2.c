/* Products with the formats of several planes, for AVX2: panels, a lane is a row, as in matmul_q32_avx2.c, but codes,
 * scales and biases come from places of their own. */
#include "kernel/x86/matmul_avx2.h"

#if defined(__x86_64__)

#include "kernel/generic/matmul_planar.h"

/* ---- panels ------------------------------------------------------------------------------ */

/* One panel of each plane. */
typedef struct {
    const uint8_t *codes, *scale, *bias;
    int64_t n_block; /* of 32 columns */
    int blocks_per_group;
    fm_scale scale_type;
} panel_planes;

/* 8 scales of a group, one per row of a half. */
static FM_ALWAYS_INLINE __m256 load_scale(const uint8_t *p, fm_scale type, const int is_e2m1)
{
    if (is_e2m1) { /* fm_e8m0_half */
        const __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
        const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
        const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
        const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
        return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
    }
    if (type == FM_SCALE_BF16) {
        const __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
        return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
    }
    return type == FM_SCALE_F16 ? load_half(p) : _mm256_loadu_ps((const float *)(const void *)p);
}

/* 32 columns of the 8 rows of a half as unsigned bytes, q + offset. */
typedef void codes_fn(__m256i *w, const uint8_t *p, int half);

static FM_ALWAYS_INLINE void codes_u4(__m256i *w, const uint8_t *p, int half)
{
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        const __m256i v = load_256(p + 64 * u + 32 * half);
        w[u] = low_nibbles(v);
        w[4 + u] = high_nibbles(v);
    }
}

static FM_ALWAYS_INLINE void codes_u2(__m256i *w, const uint8_t *p, int half)
{
    FM_UNROLL
    for (int u = 0; u < 8; u++)
        w[u] =
            _mm256_and_si256(_mm256_srli_epi32(load_256(p + 64 * (u / 4) + 32 * half), 2 * (u % 4)),
                             _mm256_set1_epi8(3));
}

static FM_ALWAYS_INLINE void codes_u5(__m256i *w, const uint8_t *p, int half)
{
    const __m256i bits = load_256(p + 32 * half);
    const __m256i lane = _mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c,
                                          0x08080808, 0x04040404, 0);
    codes_u4(w, p + 64, half);
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        /* Byte u / 2 of the dword to all four bytes, then one bit of each. */
        const __m256i from = _mm256_add_epi8(lane, _mm256_set1_epi8((char)(u / 2)));
        const __m256i bit = _mm256_set1_epi32(u & 1 ? (int)0x80402010u : 0x08040201);
        const __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(bits, from), bit);
        w[u] = _mm256_or_si256(w[u],
                               _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), _mm256_set1_epi8(16)));
    }
}

static FM_ALWAYS_INLINE void codes_u8(__m256i *w, const uint8_t *p, int half)
{
    FM_UNROLL
    for (int u = 0; u < 8; u++) w[u] = load_256(p + 64 * u + 32 * half);
}

static FM_ALWAYS_INLINE void codes_e2m1(__m256i *w, const uint8_t *p, int half)
{
    /* Doubled values plus 12, so that all are unsigned. */
    const __m256i value = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    codes_u4(w, p, half);
    FM_UNROLL
    for (int u = 0; u < 8; u++) w[u] = _mm256_shuffle_epi8(value, w[u]);
}

typedef struct {
    int bits;
    int n_pair; /* units whose pair sums with the high plane fit 16 bits: 4 or 8; 0: none do (8 bits) */
    int offset; /* in the unsigned weights */
    int has_min;
    int is_e2m1;
} shape;

static FM_ALWAYS_INLINE __m256i pairs(__m256i w, const int8_t *q)
{
    return _mm256_maddubs_epi16(w, repeat_32(q));
}

/* s + factor * (sum of w and one plane); n_pair units share a 16-bit sum. */
static FM_ALWAYS_INLINE __m256i add_plane(__m256i s, const __m256i *w, const int8_t *plane,
                                          const int n_pair, const int factor)
{
    FM_UNROLL
    for (int u = 0; u < 8; u += n_pair) {
        __m256i p = pairs(w[u], plane + 4 * u);
        FM_UNROLL
        for (int i = 1; i < n_pair; i++)
            p = _mm256_add_epi16(p, pairs(w[u + i], plane + 4 * (u + i)));
        s = _mm256_add_epi32(s, _mm256_madd_epi16(p, _mm256_set1_epi16((int16_t)factor)));
    }
    return s;
}

/* The same for weights of 8 bits, whose products of two do not fit 16 bits: even and odd bytes apart, as words. */
static FM_ALWAYS_INLINE __m256i add_plane_u8(__m256i s, const __m256i *w, const int8_t *plane,
                                             const int shift)
{
    __m256i sum = _mm256_setzero_si256();
    FM_UNROLL
    for (int u = 0; u < 8; u++) {
        const __m256i x = repeat_32(plane + 4 * u);
        const __m256i x_odd = _mm256_srai_epi16(x, 8);
        const __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
        const __m256i w_even = _mm256_and_si256(w[u], _mm256_set1_epi16(0xff));
        const __m256i w_odd = _mm256_srli_epi16(w[u], 8);
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(w_even, x_even),
                                                     _mm256_madd_epi16(w_odd, x_odd)));
    }
    return _mm256_add_epi32(s, _mm256_slli_epi32(sum, shift));
}

static FM_ALWAYS_INLINE void half_planar(float *out, const panel_planes *p, const void *const *act,
                                         const int nt, const shape sh, codes_fn *codes, int half)
{
    __m256 acc[4];
    FM_UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm256_setzero_ps();
    const int unit = (int)fm_scale_bytes(p->scale_type), scale_bytes = FM_PANEL_ROWS * unit;
    const uint8_t *at = p->codes, *scale = p->scale + 8 * unit * half;
    const uint8_t *bias = sh.has_min ? p->bias + 8 * unit * half : NULL;
    __m256 d = _mm256_setzero_ps(), m = _mm256_setzero_ps();
    int left = 0; /* blocks of this group */
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
        __m256i w[8];
        codes(w, at, half);
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            const fm_act_i15_32 *const x = (const fm_act_i15_32 *)act[t] + b;
            __m256i s = _mm256_set1_epi32(sh.offset * x->nsum);
            if (sh.n_pair == 0) {
                s = add_plane_u8(s, w, x->hi, FM_ACT_32_SHIFT);
                s = add_plane_u8(s, w, x->lo, 0);
            } else {
                s = add_plane(s, w, x->hi, sh.n_pair, 1 << FM_ACT_32_SHIFT);
                s = add_plane(s, w, x->lo, 8, 1);
            }
            const __m256 f = _mm256_mul_ps(d, _mm256_set1_ps(x->d));
            __m256 term = _mm256_mul_ps(f, _mm256_cvtepi32_ps(s));
            if (sh.has_min) term = _mm256_add_ps(term, _mm256_mul_ps(m, _mm256_set1_ps(x->dsum)));
            acc[t] = _mm256_add_ps(acc[t], term);
        }
    }
    FM_UNROLL
    for (int t = 0; t < nt; t++) _mm256_storeu_ps(out + t * FM_PANEL_ROWS + 8 * half, acc[t]);
}

static const shape shape_u2 = {2, 8, 0, 1, 0};
static const shape shape_u4 = {4, 8, 0, 1, 0};
static const shape shape_u5 = {5, 4, 0, 1, 0};
static const shape shape_u8 = {8, 0, 0, 1, 0};
static const shape shape_i4 = {4, 8, 8, 0, 0};
static const shape shape_e2m1 = {4, 4, 12, 0, 1};
#define codes_i4 codes_u4

typedef void (*planar_fn)(float *out, const panel_planes *p, const void *const *act);

#define KERNEL(code, nt)                                                                           \
    static void code##_##nt(float *out, const panel_planes *p, const void *const *act)             \
    {                                                                                              \
        half_planar(out, p, act, nt, shape_##code, codes_##code, 0);                               \
        half_planar(out, p, act, nt, shape_##code, codes_##code, 1);                               \
    }
#define KERNELS(code) KERNEL(code, 1) KERNEL(code, 2) KERNEL(code, 4)
KERNELS(u2)
KERNELS(u4)
KERNELS(u5)
KERNELS(u8)
KERNELS(i4)
KERNELS(e2m1)

/* By code and log2 of the number of tokens. */
static const planar_fn kernels[][3] = {
    [FM_CODE_U2] = {u2_1, u2_2, u2_4}, [FM_CODE_U4] = {u4_1, u4_2, u4_4},
    [FM_CODE_U5] = {u5_1, u5_2, u5_4}, [FM_CODE_U8] = {u8_1, u8_2, u8_4},
    [FM_CODE_I4] = {i4_1, i4_2, i4_4}, [FM_CODE_E2M1] = {e2m1_1, e2m1_2, e2m1_4},
};

/* fm_matmul_panel_rows() with planes. */
static void panel_rows(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t n_tok)
{
    enum { GROUP = 4 };
    const uint64_t panel_bytes = w->row_bytes * FM_PANEL_ROWS;
    int64_t stretch = (int64_t)(FM_PANEL_STRETCH_BYTES / panel_bytes) * FM_PANEL_ROWS;
    if (stretch < FM_PANEL_ROWS) stretch = FM_PANEL_ROWS;
    for (int64_t r0 = row0; r0 < row1; r0 += stretch) {
        const int64_t r1 = r0 + stretch < row1 ? r0 + stretch : row1;
        for (int64_t t0 = 0; t0 < n_tok; t0 += GROUP) {
            const int64_t nt = n_tok - t0 < GROUP ? n_tok - t0 : GROUP;
            const int log2 = nt > 2 ? 2 : nt > 1 ? 1 : 0;
            const void *x[GROUP];
            for (int64_t t = 0; t < GROUP; t++) x[t] = act[t0 + (t < nt ? t : 0)];
            for (int64_t row = r0; row < r1; row += FM_PANEL_ROWS) {
                const uint64_t aux = (uint64_t)row * w->aux_row_bytes;
                const panel_planes p = {
                    .codes = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes,
                    .scale = (const uint8_t *)w->aux[0] + aux,
                    .bias = w->type->n_plane == 3 ? (const uint8_t *)w->aux[1] + aux : NULL,
                    .n_block = w->n_in / 32,
                    .blocks_per_group = w->type->block_elems / 32,
                    .scale_type = (fm_scale)w->type->scale,
                };
                float out[GROUP * FM_PANEL_ROWS];
                kernels[w->type->code][log2](out, &p, x);
                for (int64_t t = 0; t < nt; t++)
                    memcpy(y[t0 + t] + row, out + t * FM_PANEL_ROWS, FM_PANEL_ROWS * sizeof *out);
            }
        }
    }
}

void fm_matmul_planar_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                           float *const *y, int64_t n_tok)
{
    if (w->type->code == FM_CODE_E4M3) {
        fm_matmul_e4m3_avx2(w, row0, row1, act, y, n_tok);
        return;
    }
    const int64_t panels = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panels ? row1 : panels;
    if (row0 < split) {
        panel_rows(w, row0, split, act, y, n_tok);
        row0 = split;
    }
    fm_rows_planar(w, row0, row1, act, y, n_tok);
}

#endif
