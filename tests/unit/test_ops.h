/* Shared by the tests of the operations: numbers, guarded arrays, comparison, the loop over
 * sets. */
#pragma once

#include "kernel/kernel.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 1;

/* xorshift64*, uniform in [-1, 1). */
static inline float uniform(void)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (float)((seed * 0x2545F4914F6CDD1Du) >> 40) * 0x1p-23f - 1.0f;
}

/* Arrays with a guard on both sides: masked stores are invisible to the address sanitizer. The
 * start is deliberately at an odd multiple of 4 bytes. */
enum { GUARD = 33 };
static const float guard_value = 12345.678f;

static inline float *array(int64_t n)
{
    float *p = malloc(((size_t)n + 2 * GUARD) * sizeof *p);
    assert_non_null(p);
    for (int64_t i = 0; i < n + 2 * GUARD; i++) p[i] = guard_value;
    return p + GUARD;
}

static inline float *random_array(int64_t n, float scale)
{
    float *p = array(n);
    for (int64_t i = 0; i < n; i++) p[i] = uniform() * scale;
    return p;
}

static inline float *copy_array(const float *from, int64_t n)
{
    float *p = array(n);
    memcpy(p, from, (size_t)n * sizeof *p);
    return p;
}

static inline void free_array(float *p, int64_t n)
{
    for (int64_t i = 0; i < GUARD; i++) {
        assert_true(p[-1 - i] == guard_value);
        assert_true(p[n + i] == guard_value);
    }
    free(p - GUARD);
}

/* Largest difference of n values relative to the largest expected magnitude. */
static inline double relative_error(const float *got, const double *want, int64_t n)
{
    double top = 0.0, error = 0.0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) return INFINITY;
        top = fmax(top, fabs(want[i]));
        error = fmax(error, fabs(got[i] - want[i]));
    }
    return error == 0.0 ? 0.0 : error / top;
}

#define assert_close(got, want, n, limit)                                                          \
    do {                                                                                           \
        const double error_ = relative_error(got, want, n);                                        \
        if (!(error_ <= (limit))) fail_msg("%s: error %g, limit %g", k->name, error_, limit);      \
    } while (0)

#define assert_same_bits(a, b, n) assert_memory_equal(a, b, (size_t)(n) * sizeof *(a))

static inline double *doubles(int64_t n)
{
    double *p = calloc((size_t)n, sizeof *p);
    assert_non_null(p);
    return p;
}

typedef void (*set_test)(const fm_kernels *k);

/* Whether a set has only the operations of one before it: those that differ in their products. */
static inline int has_old_operations(const fm_kernels *k)
{
    const size_t first = offsetof(fm_kernels, rmsnorm);
    for (const char *const *name = fm_kernels_available(); *name && *name != k->name; name++) {
        const fm_kernels *const other = fm_kernels_pick(*name, NULL);
        if (memcmp((const char *)k + first, (const char *)other + first, sizeof *k - first) == 0)
            return 1;
    }
    return 0;
}

static inline void run_for_every_set(void **state)
{
    const set_test *test = *state;
    for (const char *const *name = fm_kernels_available(); *name; name++) {
        const fm_kernels *k = fm_kernels_pick(*name, NULL);
        assert_non_null(k);
        if (has_old_operations(k)) continue;
        seed = 0x9E3779B97F4A7C15u;
        (*test)(k);
    }
}

/* One cmocka test that runs `function` for every set of this machine with operations of its own. */
#define EVERY_SET(function)                                                                        \
    {                                                                                              \
#function, run_for_every_set, NULL, NULL, (set_test[])                                     \
        {                                                                                          \
            function                                                                               \
        }                                                                                          \
    }

static const int64_t sizes[] = {1, 3, 8, 20, 24, 40, 64, 100, 128, 256, 1000};
#define N_SIZE (sizeof sizes / sizeof sizes[0])
