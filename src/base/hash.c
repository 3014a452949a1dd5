/* SipHash after its description (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012),
 * and its seeds. */
#include "base/hash.h"

#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/random.h"

fm_hash_seed fm_hash_seed_new(void)
{
    fm_hash_seed seed;
    if (getentropy(&seed, sizeof seed) != 0) {
        /* Refused by an old kernel or a sandbox: what an author of files cannot know exactly. */
        uint64_t state = (uint64_t)fm_now_ns() ^ (uint64_t)(uintptr_t)&seed;
        seed.a = fm_splitmix64(&state);
        seed.b = fm_splitmix64(&state);
    }
    return seed;
}

static inline uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

typedef struct {
    uint64_t a, b, c, d;
} state;

static inline void mix(state *v)
{
    v->a += v->b;
    v->b = rotate(v->b, 13) ^ v->a;
    v->a = rotate(v->a, 32);
    v->c += v->d;
    v->d = rotate(v->d, 16) ^ v->c;
    v->a += v->d;
    v->d = rotate(v->d, 21) ^ v->a;
    v->c += v->b;
    v->b = rotate(v->b, 17) ^ v->c;
    v->c = rotate(v->c, 32);
}

static inline void add_word(state *v, uint64_t word)
{
    v->d ^= word;
    mix(v);
    v->a ^= word;
}

uint64_t fm_hash_bytes(fm_hash_seed seed, const void *data, size_t n)
{
    const uint8_t *p = data;
    state v = {seed.a ^ UINT64_C(0x736f6d6570736575), seed.b ^ UINT64_C(0x646f72616e646f6d),
               seed.a ^ UINT64_C(0x6c7967656e657261), seed.b ^ UINT64_C(0x7465646279746573)};
    size_t at = 0;
    for (; n - at >= 8; at += 8) add_word(&v, fm_get_le(p + at, 8));
    add_word(&v, (uint64_t)n << 56 | fm_get_le(p + at, (int)(n - at)));
    v.c ^= 0xff;
    for (int i = 0; i < 3; i++) mix(&v);
    return v.a ^ v.b ^ v.c ^ v.d;
}
