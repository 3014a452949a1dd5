/* What the unit tests of the kernels need of cmocka, for tests/cli/test_arm64.sh: they run in an emulator, and
 * no package has cmocka for a processor that the machine does not have. Found instead of the library's header
 * by -Itests/arm; nothing else may use it. A failed check ends the program. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*CMUnitTestFunction)(void **state);
struct CMUnitTest {
    const char *name;
    CMUnitTestFunction test_func;
    int (*setup_func)(void **state);
    int (*teardown_func)(void **state);
    void *initial_state;
};

#define cmocka_unit_test(f)                                                                        \
    {                                                                                              \
        .name = #f, .test_func = f                                                                 \
    }
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    ((setup) || (teardown) ? (abort(), 1) : run_tests(tests, sizeof(tests) / sizeof((tests)[0])))

/* Setup and teardown are not called, so there may be none. */
static inline int run_tests(const struct CMUnitTest *tests, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *state = tests[i].initial_state;
        if (tests[i].setup_func || tests[i].teardown_func) abort();
        tests[i].test_func(&state);
        printf("[       OK ] %s\n", tests[i].name);
    }
    return 0;
}

#define fail_msg(...)                                                                              \
    do {                                                                                           \
        printf("%s:%d: ", __FILE__, __LINE__);                                                     \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        exit(1);                                                                                   \
    } while (0)
#define assert_true(c)                                                                             \
    do {                                                                                           \
        if (!(c)) fail_msg("%s", #c);                                                              \
    } while (0)
#define assert_false(c) assert_true(!(c))
#define assert_non_null(p) assert_true((p) != NULL)
#define assert_null(p) assert_true((p) == NULL)
#define assert_int_equal(a, b) assert_true((uint64_t)(a) == (uint64_t)(b))
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
