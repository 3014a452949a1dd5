/* Products of several tokens for the set neon: SDOT with 4 columns of an activation's plane at a time. */
#include "kernel/arm/matmul_dot_neon.h"

#if defined(__aarch64__)

/* One sum for each plane. */
static FM_ALWAYS_INLINE void step(int32x4_t s[2], int8x16_t w, const int8x16_t x[2], const int u)
{
    s[0] = in_order(dot_lane(s[0], w, x[0], u));
    s[1] = in_order(dot_lane(s[1], w, x[1], u));
}

static FM_ALWAYS_INLINE int32x4_t join(const int32x4_t s[2], const int shift)
{
    return vaddq_s32(shift_left(s[0], shift), s[1]);
}

#include "kernel/arm/matmul_tiles.inc"

void fm_matmul_tiles_neon(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                          float *const *y, int64_t n_tok)
{
    matmul_tiles(w, row0, row1, act, y, n_tok);
}

#endif
