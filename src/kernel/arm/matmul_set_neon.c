/* The neon set's matmul and quantize: entry points and quantization of activations. */
#include "kernel/kernel_internal.h"

#include "kernel/arm/matmul_neon.h"
#include "kernel/generic/matmul_columns.h"
#include "kernel/generic/matmul_planar.h"
#include "kernel/quantize_acts.h"

#if defined(__aarch64__)

/* ---- products ----------------------------------------------------------------------------- */

void fm_product_neon(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                     float *const *y, int64_t n_tok, fm_matmul_fn tiles)
{
    const fm_type_traits *const type = w->type;
    if (w->layout == FM_LAYOUT_COLUMNS) {
        fm_matmul_columns(w, row0, row1, act, y, n_tok);
        return;
    }
    if (type->act == FM_ACT_F32) {
        fm_matmul_float_neon(w, row0, row1, act, y, n_tok);
        return;
    }
    const int64_t panels = fm_matrix_panel_rows(w);
    int64_t split = row1 < panels ? row1 : panels;
    const bool has_tiles = type->is_book ? panels == 0 : fm_panel_one_neon(type) != NULL;
    if (type->is_book && has_tiles)
        split = row0 + (row1 - row0) / FM_PANEL_ROWS * FM_PANEL_ROWS;
    if (row0 < split && has_tiles) {
        tiles(w, row0, split, act, y, n_tok);
        row0 = split;
    }
    if (row0 >= row1) return;
    if (type->n_plane)
        fm_rows_planar(w, row0, row1, act, y, n_tok);
    else
        fm_rows_kernels[type->id](w, row0, row1, act, y, n_tok);
}

static void matmul(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                   float *const *y, int64_t n_tok)
{
    fm_product_neon(w, row0, row1, act, y, n_tok, fm_matmul_tiles_neon);
}

static void matmul_int8(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                        float *const *y, int64_t n_tok)
{
    fm_product_neon(w, row0, row1, act, y, n_tok, fm_matmul_tiles_neon_int8);
}

/* ---- quantization of activations: fm_quantize_generic has the reasons --------------------- */

static FM_ALWAYS_INLINE uint32_t largest_bits(const float *x, int n)
{
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < n; i += 4)
        largest = vmaxq_u32(
            largest, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), vdupq_n_u32(0x7fffffff)));
    return vmaxvq_u32(largest);
}

/* 16 integers that fit bytes. */
static FM_ALWAYS_INLINE int8x16_t narrow(const int32x4_t v[4])
{
    const int16x8_t a = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1]));
    const int16x8_t b = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
    return vcombine_s8(vmovn_s16(a), vmovn_s16(b));
}

/* fm_round_16_fn */
static FM_ALWAYS_INLINE fm_sums_16 round_16(int8_t *hi, int8_t *lo, const float *x, float inverse,
                                            const int coarse, const int shift)
{
    int32x4_t v[4], h[4], l[4];
    FM_UNROLL
    for (int i = 0; i < 4; i++) {
        v[i] = shift_left(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inverse)), coarse);
        h[i] = vrshlq_s32(v[i], vdupq_n_s32(-shift)); /* to the right */
        l[i] = vsubq_s32(v[i], shift_left(h[i], shift));
    }
    vst1q_s8(hi, narrow(h));
    vst1q_s8(lo, narrow(l));
    const int32x4_t sum = vaddq_s32(vaddq_s32(v[0], v[1]), vaddq_s32(v[2], v[3]));
    const int32x4_t sum_hi = vaddq_s32(vaddq_s32(h[0], h[1]), vaddq_s32(h[2], h[3]));
    return (fm_sums_16){vaddvq_s32(sum), vaddvq_s32(sum_hi)};
}

static FM_ALWAYS_INLINE void quantize_32(fm_act_i15_32 *dst, const float *x, const int coarse)
{
    fm_quantize_32_by_16(dst, x, coarse, largest_bits, round_16);
}

static FM_ALWAYS_INLINE void quantize_256(fm_act_i13_256 *dst, const float *x, const int coarse)
{
    fm_quantize_256_by_16(dst, x, coarse, largest_bits, round_16);
}

static void quantize(fm_act form, void *dst, const float *x, int64_t n)
{
    fm_quantize_row(form, dst, x, n, 2, quantize_32, quantize_256);
}

static void quantize_int8(fm_act form, void *dst, const float *x, int64_t n)
{
    fm_quantize_row(form, dst, x, n, 1, quantize_32, quantize_256);
}

void fm_matmul_neon(fm_kernels *k)
{
    k->act_form = fm_act_form_of_type;
    k->quantize = quantize;
    k->matmul = matmul;
    fm_book_entries_init();
}

void fm_int8_neon(fm_kernels *k)
{
    k->quantize = quantize_int8;
    k->matmul = matmul_int8;
}

#endif
