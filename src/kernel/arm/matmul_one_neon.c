/* Products of one token with the formats that have panels, for NEON with SDOT: what a generated token waits for. All
 * four quads of a panel are computed together, so that activations are loaded once for 16 rows, enough sums are under
 * way, and a panel is read from front to back.
 *
 * Ranges: the sum of a block (of half a block in Q6_K and IQ4_XS) fits 32 bits, see quant.h; partial results are
 * computed modulo 2^32.
 */
#include "kernel/arm/matmul_neon.h"

#if defined(__aarch64__)

/* Keeps the compiler from holding weights of one group in registers, and then on the stack, until another group uses
 * their other bits: loading them again from the first cache costs less. */
static FM_ALWAYS_INLINE const uint8_t *forget(const uint8_t *p)
{
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

/* Sums of a plane each for the quads of a panel. */
typedef struct {
    int32x4_t hi[N_QUAD], lo[N_QUAD];
} plane_sums;

static FM_ALWAYS_INLINE void clear_sums(plane_sums *s)
{
    FM_UNROLL
    for (int q = 0; q < N_QUAD; q++) s->hi[q] = s->lo[q] = vdupq_n_s32(0);
}

/* 4 columns of all quads, w, with lane u of 16 activations. */
static FM_ALWAYS_INLINE void add_unit(plane_sums *s, int8x16_t w[N_QUAD], int8x16_t hi,
                                      int8x16_t lo, const int u)
{
    FM_UNROLL
    for (int q = 0; q < N_QUAD; q++) {
        s->hi[q] = in_order(dot_lane(s->hi[q], w[q], hi, u));
        s->lo[q] = in_order(dot_lane(s->lo[q], w[q], lo, u));
    }
}

/* ---- blocks of 256 ------------------------------------------------------------------------ */

/* Columns 16 k ... of a block added to s. */
static FM_ALWAYS_INLINE void add_chunk(plane_sums *s, const uint8_t *panel, const fm_act_i13_256 *x,
                                       unit_256_fn *unit, const int k)
{
    const int8x16_t hi = vld1q_s8(x->hi + CHUNK * k), lo = vld1q_s8(x->lo + CHUNK * k);
    FM_UNROLL
    for (int u = 0; u < 4; u++) {
        int8x16_t w[N_QUAD];
        FM_UNROLL
        for (int q = 0; q < N_QUAD; q++) w[q] = unit(panel + 16 * q, k, u);
        add_unit(s, w, hi, lo, u);
    }
}

static FM_ALWAYS_INLINE int32x4_t sum_minima(const head_256 *h, const fm_act_i13_256 *x,
                                             const int min)
{
    int32x4_t low = vdupq_n_s32(0);
    FM_UNROLL
    for (int k = 0; k < 256 / min; k++) {
        const int32_t nsum = min == 16 ? x->nsum[k] : x->nsum[2 * k] + x->nsum[2 * k + 1];
        low = vmlsq_n_s32(low, h->mn[k], nsum);
    }
    return low;
}

static FM_ALWAYS_INLINE void one_256(float *out, const fm_matrix *w, int64_t row, const void *act,
                                     const shape_256 shape, head_fn *head, unit_256_fn *unit)
{
    const int n_chunk = shape.n_unit / 4;
    const int n_group = 16 / n_chunk / shape.n_part, bytes = shape.block_bytes * FM_PANEL_ROWS;
    const fm_act_i13_256 *x = act;
    const uint8_t *panel = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes;
    float32x4_t acc[N_QUAD];
    FM_UNROLL
    for (int q = 0; q < N_QUAD; q++) acc[q] = vdupq_n_f32(0.0f);
    for (int64_t b = 0; b < w->n_in / 256; b++, panel += bytes, x++) {
        head_256 h[N_QUAD];
        for (int q = 0; q < N_QUAD; q++) head(&h[q], panel, q);
        FM_UNROLL
        for (int part = 0; part < shape.n_part; part++) {
            int32x4_t sum[N_QUAD];
            FM_UNROLL
            for (int q = 0; q < N_QUAD; q++) sum[q] = vdupq_n_s32(0);
            FM_UNROLL
            for (int g = n_group * part; g < n_group * (part + 1); g++) {
                plane_sums s;
                clear_sums(&s);
                panel = forget(panel);
                FM_UNROLL
                for (int k = n_chunk * g; k < n_chunk * (g + 1); k++) {
                    fm_prefetch_panel(panel, bytes, k, 16);
                    add_chunk(&s, panel, x, unit, k);
                }
                FM_UNROLL
                for (int q = 0; q < N_QUAD; q++) {
                    const int32x4_t both =
                        vaddq_s32(vshlq_n_s32(s.hi[q], FM_ACT_256_SHIFT), s.lo[q]);
                    sum[q] = vmlaq_s32(sum[q], both, h[q].sc[g]);
                }
            }
            FM_UNROLL
            for (int q = 0; q < N_QUAD; q++) {
                float32x4_t term = vmulq_f32(vmulq_n_f32(h[q].d, x->d), vcvtq_f32_s32(sum[q]));
                if (shape.min) {
                    const int32x4_t low = sum_minima(&h[q], x, shape.min);
                    term =
                        vsubq_f32(term, vmulq_f32(vmulq_n_f32(h[q].m, x->d), vcvtq_f32_s32(low)));
                }
                acc[q] = vaddq_f32(acc[q], term);
            }
        }
    }
    FM_UNROLL
    for (int q = 0; q < N_QUAD; q++) vst1q_f32(out + 4 * q, acc[q]);
}

/* ---- blocks of 32 ------------------------------------------------------------------------- */

static FM_ALWAYS_INLINE void one_32(float *out, const fm_matrix *w, int64_t row, const void *act,
                                    const shape_32 shape, unit_32_fn *unit, scale_fn *scale,
                                    scale_fn *minimum)
{
    const int bytes = (shape.bits ? 4 * shape.bits : shape.block_bytes) * FM_PANEL_ROWS;
    const fm_act_i15_32 *x = act;
    float32x4_t acc[N_QUAD];
    FM_UNROLL
    for (int q = 0; q < N_QUAD; q++) acc[q] = vdupq_n_f32(0.0f);
    for (int64_t b = 0; b < w->n_in / 32; b++, x++) {
        const uint8_t *const block = block_32_at(w, shape, row, b);
        const uint8_t *const codes = block + FM_PANEL_ROWS * shape.codes;
        plane_sums s;
        clear_sums(&s);
        fm_prefetch_panel(block, bytes, 0, 1);
        FM_UNROLL
        for (int k = 0; k < 2; k++) {
            const int8x16_t hi = vld1q_s8(x->hi + CHUNK * k), lo = vld1q_s8(x->lo + CHUNK * k);
            FM_UNROLL
            for (int u = 0; u < 4; u++) {
                int8x16_t v[N_QUAD];
                FM_UNROLL
                for (int q = 0; q < N_QUAD; q++) v[q] = unit(codes + 16 * q, 4 * k + u);
                add_unit(&s, v, hi, lo, u);
            }
        }
        FM_UNROLL
        for (int q = 0; q < N_QUAD; q++) {
            int32x4_t sum = vaddq_s32(vshlq_n_s32(s.hi[q], FM_ACT_32_SHIFT), s.lo[q]);
            if (shape.missing) sum = vsubq_s32(sum, vdupq_n_s32(shape.missing * x->nsum));
            float32x4_t term =
                vmulq_f32(vmulq_n_f32(scale(w, block, row, b, q), x->d), vcvtq_f32_s32(sum));
            if (shape.has_min)
                term = vaddq_f32(term, vmulq_n_f32(minimum(w, block, row, b, q), x->dsum));
            acc[q] = vaddq_f32(acc[q], term);
        }
    }
    FM_UNROLL
    for (int q = 0; q < N_QUAD; q++) vst1q_f32(out + 4 * q, acc[q]);
}

#define ONE_256(name, id, head)                                                                    \
    static void one_##name(float *out, const fm_matrix *w, int64_t row, const void *act)           \
    {                                                                                              \
        one_256(out, w, row, act, shape_##name, head, unit_##name);                                \
    }
#define ONE_32(name, id, unit, scale, minimum)                                                     \
    static void one_##name(float *out, const fm_matrix *w, int64_t row, const void *act)           \
    {                                                                                              \
        one_32(out, w, row, act, shape_##name, unit, scale, minimum);                              \
    }
FM_FORMATS_256(ONE_256)
FM_FORMATS_32(ONE_32)
FM_FORMATS_PLANAR(ONE_32)

fm_panel_one_fn *fm_panel_one_neon(const fm_type_traits *t)
{
#define ENTRY(name, id, ...) [id] = one_##name,
    static fm_panel_one_fn *const by_type[FM_KERNEL_TYPES] = {FM_FORMATS_256(ENTRY)
                                                                  FM_FORMATS_32(ENTRY)};
    static fm_panel_one_fn *const by_code[] = {FM_FORMATS_PLANAR(ENTRY)[FM_CODE_E4M3] = NULL};
#undef ENTRY
    if (t->n_plane) return by_code[t->code];
    return t->id < FM_KERNEL_TYPES ? by_type[t->id] : NULL;
}

#endif
