/* Products of several tokens for the set i8mm: SMMLA multiplies 8 columns of two rows with the same 8 columns of both
 * planes of an activation, half as many instructions as SDOT takes. */
#include "kernel/arm/matmul_neon.h"
#include "kernel/kernel_internal.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_MATMUL_INT8)

static FM_ALWAYS_INLINE int8x16_t zip_low(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

static FM_ALWAYS_INLINE int8x16_t zip_high(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

/* Columns 0 to 7 of rows 0 and 1, of rows 2 and 3; columns 8 to 15 of both. */
static FM_ALWAYS_INLINE void arrange(int8x16_t dst[4], const int8x16_t w[4])
{
    FM_UNROLL
    for (int u = 0; u < 4; u += 2) {
        dst[u] = zip_low(w[u], w[u + 1]);
        dst[u + 1] = zip_high(w[u], w[u + 1]);
    }
}

/* Columns 0 to 7 of both planes, then 8 to 15. */
static FM_ALWAYS_INLINE void arrange_act(int8x16_t x[2], int8x16_t hi, int8x16_t lo)
{
    const int64x2_t h = vreinterpretq_s64_s8(hi), l = vreinterpretq_s64_s8(lo);
    x[0] = vreinterpretq_s8_s64(vzip1q_s64(h, l));
    x[1] = vreinterpretq_s8_s64(vzip2q_s64(h, l));
}

/* s[0]: row 0 with hi and lo, row 1 with hi and lo; s[1]: rows 2 and 3. */
static FM_ALWAYS_INLINE void step(int32x4_t s[2], int8x16_t w, const int8x16_t x[2], const int u)
{
    s[u & 1] = in_order(vmmlaq_s32(s[u & 1], w, x[u >> 1]));
}

static FM_ALWAYS_INLINE int32x4_t join(const int32x4_t s[2], const int shift)
{
    return vaddq_s32(shift_left(vuzp1q_s32(s[0], s[1]), shift), vuzp2q_s32(s[0], s[1]));
}

#include "kernel/arm/matmul_tiles.inc"

void fm_matmul_tiles_i8mm(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                          float *const *y, int64_t n_tok)
{
    matmul_tiles(w, row0, row1, act, y, n_tok);
}

static void matmul(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                   float *const *y, int64_t n_tok)
{
    fm_product_neon(w, row0, row1, act, y, n_tok, fm_matmul_tiles_i8mm);
}

bool fm_matmul_i8mm(fm_kernels *k)
{
    k->matmul = matmul;
    return true;
}

#else

bool fm_matmul_i8mm(fm_kernels *k)
{
    (void)k;
    return false;
}

#endif
