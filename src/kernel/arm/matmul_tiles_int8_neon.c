/* Products of several tokens with activations of 8 bits, for the sets neon and i8mm: SDOT with their one plane. SMMLA would
 * take as many instructions, unless it met two tokens instead of two planes. */
#include "kernel/arm/matmul_neon.h"

#if defined(__aarch64__)

static FM_ALWAYS_INLINE void arrange(int8x16_t dst[4], const int8x16_t w[4])
{
    FM_UNROLL
    for (int u = 0; u < 4; u++) dst[u] = w[u];
}

static FM_ALWAYS_INLINE void arrange_act(int8x16_t x[2], int8x16_t hi, int8x16_t lo)
{
    x[0] = hi;
    x[1] = lo; /* zeros, which nothing reads */
}

/* Two sums under way. */
static FM_ALWAYS_INLINE void step(int32x4_t s[2], int8x16_t w, const int8x16_t x[2], const int u)
{
    s[u & 1] = in_order(dot_lane(s[u & 1], w, x[0], u));
}

static FM_ALWAYS_INLINE int32x4_t join(const int32x4_t s[2], const int shift)
{
    return shift_left(vaddq_s32(s[0], s[1]), shift);
}

#include "kernel/arm/matmul_tiles.inc"

void fm_matmul_tiles_neon_int8(const fm_matrix *w, int64_t row0, int64_t row1,
                               const void *const *act, float *const *y, int64_t n_tok)
{
    matmul_tiles(w, row0, row1, act, y, n_tok);
}

#endif
