/* Products of several tokens with activations of 8 bits, for the sets neon and i8mm: SDOT with their one plane. SMMLA would
 * take as many instructions, unless it met two tokens instead of two planes. */
#include "kernel/arm/matmul_dot_neon.h"

#if defined(__aarch64__)

/* Two sums under way; the lower plane, x[1], is 0 and not read. */
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
