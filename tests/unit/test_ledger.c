/* The ledger never lets a line pass its limit, and memory it gives is aligned and zero. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/ledger.h"

static void line_is_limited_to_what_the_plan_granted(void **state)
{
    (void)state;
    fm_ledger l = {0};
    fm_error err;
    const int line = fm_ledger_open(&l, "slots", 10 * 4096);
    void *a = fm_ledger_alloc(&l, line, 7 * 4096, 0, &err);
    assert_non_null(a);
    assert_null(fm_ledger_alloc(&l, line, 3 * 4096 + 1, 0, &err)); /* rounds up to 4 pages */
    assert_int_equal(err.code, FM_E_NOMEM);
    assert_non_null(strstr(err.msg, "slots"));
    assert_int_equal(l.lines[line].used_bytes, 7 * 4096);
    void *b = fm_ledger_alloc(&l, line, 3 * 4096, 1, &err);
    assert_non_null(b);
    assert_null(fm_ledger_alloc(&l, line, 1, 0, &err));
    fm_ledger_free(&l, line, a, 7 * 4096);
    fm_ledger_free(&l, line, b, 3 * 4096);
    fm_ledger_free(&l, line, NULL, 99);
    assert_int_equal(l.lines[line].used_bytes, 0);
}

static void memory_is_page_aligned_and_zero(void **state)
{
    (void)state;
    fm_ledger l = {0};
    const int line = fm_ledger_open(&l, "x", 64 << 20);
    const size_t sizes[] = {1, 4096, 5000, 3 << 20};
    for (size_t i = 0; i < 4; i++) {
        unsigned char *p = fm_ledger_alloc(&l, line, sizes[i], (int)(i % 2), NULL);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 4096, 0);
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(p[k], 0);
        memset(p, 1, sizes[i]);
        fm_ledger_free(&l, line, p, sizes[i]);
    }
}

/* Direct reads into pages that are shared with a child may be lost. */
static void child_processes_do_not_share_it(void **state)
{
    (void)state;
#ifdef MADV_DONTFORK
    fm_ledger l = {0};
    enum { BYTES = 3 << 20 };
    const int line = fm_ledger_open(&l, "x", BYTES);
    unsigned char *p = fm_ledger_alloc(&l, line, BYTES, 1, NULL);
    assert_non_null(p);
    memset(p, 1, BYTES);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) { /* is there anything? */
        const bool is_there = msync(p, 4096, MS_ASYNC) == 0;
        _exit(is_there ? 1 : 0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(p[BYTES - 1], 1);
    fm_ledger_free(&l, line, p, BYTES);
#else
    skip();
#endif
}

static void reopening_a_line_changes_its_limit_not_its_use(void **state)
{
    (void)state;
    fm_ledger l = {0};
    const int a = fm_ledger_open(&l, "a", 100), b = fm_ledger_open(&l, "b", 200);
    assert_int_not_equal(a, b);
    assert_int_equal(fm_ledger_charge(&l, a, 80, NULL), FM_OK);
    assert_int_equal(fm_ledger_open(&l, "a", 150), a);
    assert_int_equal(l.lines[a].used_bytes, 80);
    assert_int_equal(fm_ledger_charge(&l, a, 71, NULL), FM_E_NOMEM);
    assert_int_equal(fm_ledger_charge(&l, a, 70, NULL), FM_OK);
    assert_int_equal(fm_ledger_charge(&l, a, -150, NULL), FM_OK);
    assert_int_equal(fm_ledger_open(&l, "a", 10), a);
    assert_int_equal(fm_ledger_line_of(&l, "a", 1000), a); /* who needs more does not get it */
    assert_int_equal(l.lines[a].limit_bytes, 10);
    const int c = fm_ledger_line_of(&l, "c", 30);
    assert_int_equal(l.lines[c].limit_bytes, 30);
    assert_int_equal(fm_ledger_charge(&l, a, 11, NULL), FM_E_NOMEM);
}

static void full_ledger_says_so(void **state)
{
    (void)state;
    fm_ledger l = {0};
    char name[32];
    for (int i = 0; i < FM_LEDGER_LINES; i++) {
        snprintf(name, sizeof name, "line %d", i);
        assert_int_equal(fm_ledger_open(&l, name, 1), i);
    }
    assert_int_equal(fm_ledger_open(&l, "one more", 1), -1);
    assert_int_equal(fm_ledger_open(&l, "line 3", 5), 3);
}

static void arena_measures_and_lays_out_the_same(void **state)
{
    (void)state;
    fm_arena measure = {0};
    const size_t sizes[] = {1, 64, 65, 1000, 0, 7};
    for (size_t i = 0; i < 6; i++) assert_null(fm_arena_take(&measure, sizes[i]));
    _Alignas(64) static unsigned char block[4096];
    fm_arena a = {.base = block, .size = measure.used};
    for (size_t i = 0; i < 6; i++) {
        unsigned char *p = fm_arena_take(&a, sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
    }
    assert_int_equal(a.used, measure.used);
    assert_null(fm_arena_take(&a, 1));
    assert_int_equal(a.used, measure.used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_is_limited_to_what_the_plan_granted),
        cmocka_unit_test(memory_is_page_aligned_and_zero),
        cmocka_unit_test(child_processes_do_not_share_it),
        cmocka_unit_test(reopening_a_line_changes_its_limit_not_its_use),
        cmocka_unit_test(full_ledger_says_so),
        cmocka_unit_test(arena_measures_and_lays_out_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
