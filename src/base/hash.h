/* FNV-1a, 64 bits: for token hashes that people compare and for hash tables. Not for security. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FM_FNV1A_INIT UINT64_C(0xcbf29ce484222325)

static inline uint64_t fm_fnv1a(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}
