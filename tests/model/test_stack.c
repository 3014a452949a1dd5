/* How much stack a caller needs: include/flashmoe.h says how much is enough, and applications
 * that evaluate on a thread of their own go by it. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/attr.h"
#include "base/pool.h"
#include "support/fixture.h"

enum { PROMISED = 512 << 10, STACK = 4 << 20, PAINT = 0xA5, N_TOKENS = 136 };
_Static_assert((int)FM_POOL_STACK_USED <= (int)PROMISED, "a caller's stack holds what a thread uses");

typedef struct {
    const char *model;
    eval_setup setup;
    int32_t ids[N_TOKENS];
    size_t n;
    fm_status st;
    fm_error err;
} job;

static void *evaluate(void *arg)
{
    job *j = arg;
    float *logits = NULL;
    j->st = eval_logits_try(&logits, j->model, j->ids, j->n, &j->setup, NULL, NULL, &j->err);
    free(logits);
    return NULL;
}

/* Bytes of stack that the job touches. */
static size_t stack_of(job *j)
{
    unsigned char *stack =
        mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(stack != MAP_FAILED);
    memset(stack, PAINT, STACK);
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    assert_int_equal(pthread_attr_setstack(&attr, stack, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attr, evaluate, j), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    size_t untouched = 0;
    while (untouched < STACK && stack[untouched] == PAINT) untouched++;
    munmap(stack, STACK);
    return STACK - untouched;
}

static void evaluation_needs_no_more_stack_than_promised(void **state)
{
    (void)state;
#if defined(FM_ADDRESS_SANITIZER) || defined(FM_THREAD_SANITIZER) || !defined(__OPTIMIZE__)
    skip();
#endif
    static const char *const kernels[] = {"generic", "avx2", "avxvnni", "avx512",
                                          "amx",     "neon", "i8mm"};
    static const char *const models[][2] = {
        {"qwen35moe-q", "Q4_K"},  {"qwen35moe-q", "Q6_K"},  {"qwen35moe-q", "IQ2_S"},
        {"qwen35moe-q", "IQ1_S"}, {"qwen35moe-q", "Q8_0"},  {"qwen3next-q", "Q8_0"},
        {"gpt-oss-q", "MXFP4"},   {"glm4moe-q", "Q4_K"},    {"deepseek2-q", "Q4_K"},
        {"deepseek32-q", "Q4_K"}, {"deepseek32-a", "F32"},  {"qwen35moe-c", "F32"},
    };
    size_t most = 0;
    for (size_t k = 0; k < sizeof kernels / sizeof kernels[0]; k++) {
        for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
            for (int32_t batch = 1; batch <= 128; batch += 127) {
                job j = {.model = tiny_file(models[m][0], models[m][1], NULL),
                         .setup = {.memory = UINT64_C(1) << 30,
                                   .batch = batch,
                                   .threads = 1,
                                   .kernels = kernels[k]},
                         .n = batch == 1 ? 16 : N_TOKENS};
                tiny_token_ids(j.ids, N_TOKENS, tiny_spec_find(models[m][0]));
                const size_t bytes = stack_of(&j);
                if (j.st == FM_E_UNSUPPORTED || j.st == FM_E_ARG) continue;
                if (j.st != FM_OK) fail_msg("%s", j.err.msg);
                print_message("%-8s %-13s %-6s batch %-4d %zu KiB\n", kernels[k], models[m][0],
                              models[m][1], batch, bytes >> 10);
                if (bytes > most) most = bytes;
            }
        }
    }
    print_message("at most %zu KiB\n", most >> 10);
    assert_true(most > 0);
    assert_true(most <= FM_POOL_STACK_USED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(evaluation_needs_no_more_stack_than_promised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
