/* Hashes. FNV-1a, 64 bits, is for what people compare (token hashes) and for file formats; whoever
 * wants names that collide finds them. Tables over names from files take fm_hash_bytes(),
 * but for the dicts of templates, whose searches count as steps. */
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

/* Of a token id: little-endian int32, whatever the machine. */
static inline uint64_t fm_fnv1a_id(uint64_t h, int32_t id)
{
    const uint32_t u = (uint32_t)id;
    const unsigned char four[4] = {(unsigned char)u, (unsigned char)(u >> 8),
                                   (unsigned char)(u >> 16), (unsigned char)(u >> 24)};
    return fm_fnv1a(h, four, sizeof four);
}

/* What one table adds to its hashes: nobody who writes a file knows it, so nobody can choose names
 * that collide. Another one for every table; results must not depend on it. */
typedef struct {
    uint64_t a, b;
} fm_hash_seed;

fm_hash_seed fm_hash_seed_new(void);

/* SipHash-1-3. */
uint64_t fm_hash_bytes(fm_hash_seed seed, const void *data, size_t n);
