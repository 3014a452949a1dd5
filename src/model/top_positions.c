/* Selection by radix: the k-th largest key is found one byte at a time, from counts, and one more walk
 * over the scores takes what is above it and the first of what is equal. Four walks of n, whatever the
 * values are; a heap of 2,048 entries would be slower and its time depend on their order. */
#include "model/top_positions.h"

#include <assert.h>
#include <string.h>

/* Unsigned numbers in the order of the scores. */
static inline uint32_t key_of(float x)
{
    uint32_t bits;
    x += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

void fm_top_positions(int32_t *out, const float *score, int64_t n, int64_t k)
{
    assert(k >= 1 && k <= n && n <= INT32_MAX);
    uint32_t prefix = 0, mask = 0; /* the bytes of the k-th key that are known */
    int64_t wanted = k;            /* of those that share the prefix           */
    for (int shift = 24; shift >= 0; shift -= 8) {
        uint32_t count[256] = {0};
        for (int64_t i = 0; i < n; i++) {
            const uint32_t key = key_of(score[i]);
            if ((key & mask) == prefix) count[key >> shift & 255]++;
        }
        uint32_t byte = 255;
        while (count[byte] < wanted) wanted -= count[byte--];
        prefix |= byte << shift;
        mask |= UINT32_C(255) << shift;
    }
    int64_t taken = 0;
    for (int64_t i = 0; i < n && taken < k; i++) {
        const uint32_t key = key_of(score[i]);
        if (key < prefix || (key == prefix && wanted == 0)) continue;
        if (key == prefix) wanted--;
        out[taken++] = (int32_t)i;
    }
}
