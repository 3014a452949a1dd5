/* The positions with the largest scores. */
#pragma once

#include <stdint.h>

/* out [k] <- the k positions of the n scores that are largest, ascending. On equal scores the lower
 * position wins, so the set depends on nothing but the values; 0 and -0 are equal, and a score that is
 * not a number loses against all others. 1 <= k <= n < 2^31. Cannot fail. Any thread. */
void fm_top_positions(int32_t *out, const float *score, int64_t n, int64_t k);
