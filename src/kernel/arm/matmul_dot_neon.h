/* For matmul_tiles.inc: the order of weights and activations that SDOT takes, which is the order they come in. */
#pragma once

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
    x[1] = lo;
}

#endif
