/* Numbers in files: little endian, on every machine. */
#pragma once

#include <stdint.h>

/* The low n bytes of v, n at most 8. */
static inline void fm_put_le(uint8_t *at, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) at[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t fm_get_le(const uint8_t *at, int n)
{
    uint64_t v = 0;
    for (int i = n; i-- > 0;) v = v << 8 | at[i];
    return v;
}
