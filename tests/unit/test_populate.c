/* Memory touched ahead of its use: exactly as far as was asked, what is needed first before the rest, and a
 * stop that does not hang in any state. */
#define _GNU_SOURCE /* mincore, SCHED_IDLE */
#include "os/populate.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/facts.h"

enum { MIB = 1 << 20, BYTES = 64 * MIB, PAGE = 4096 };

static uint8_t *map(void)
{
    uint8_t *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    (void)madvise(p, BYTES, MADV_NOHUGEPAGE); /* so that pages count one by one */
    return p;
}

static size_t touched(uint8_t *p)
{
    static unsigned char is_there[BYTES / PAGE];
    assert_int_equal(mincore(p, BYTES, is_there), 0);
    size_t n = 0;
    for (size_t i = 0; i < BYTES / PAGE; i++) n += (is_there[i] & 1) * (size_t)PAGE;
    return n;
}

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 5 * 1000 * 1000};
    nanosleep(&t, NULL);
}

static bool becomes_done(const fm_populate *t)
{
    for (int i = 0; i < 2000 && !fm_populate_is_done(t); i++) nap();
    return fm_populate_is_done(t);
}

/* As its users do: a call that finds the lock taken leaves the wake-up to the next one. */
static void need(fm_populate *t, size_t bytes)
{
    for (int i = 0; i < 3; i++) {
        fm_populate_need(t, bytes);
        nap();
    }
}

/* Up to 10 s, which only a broken one takes. */
static bool comes_to(uint8_t *p, size_t bytes)
{
    for (int i = 0; i < 2000 && touched(p) < bytes; i++) nap();
    return touched(p) == bytes;
}

static fm_populate *start(uint8_t *p, size_t ahead, int n_threads, fm_populate *after)
{
    const fm_populate_options o = {
        .base = p, .bytes = BYTES, .ahead = ahead, .n_threads = n_threads, .after = after};
    return fm_populate_start(&o);
}

static bool is_possible(void)
{
    uint8_t *p = map();
    fm_populate *t = start(p, BYTES, 1, NULL);
    const bool ok = t && becomes_done(t) && touched(p) == BYTES;
    fm_populate_stop(t);
    munmap(p, BYTES);
    return ok;
}

static void as_far_as_was_asked(void **state)
{
    (void)state;
    if (!is_possible()) skip();
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        uint8_t *p = map();
        fm_populate *t = start(p, 16 * MIB, n_threads, NULL);
        assert_true(comes_to(p, 16 * MIB));
        fm_populate_need(t, 1); /* less than a step more: not worth a wake-up */
        nap();
        assert_int_equal(touched(p), 16 * MIB);
        need(t, 16 * MIB);
        assert_true(comes_to(p, 32 * MIB));
        assert_false(fm_populate_is_done(t));
        fm_populate_need(t, BYTES);
        assert_true(comes_to(p, BYTES));
        assert_true(becomes_done(t));
        fm_populate_need(t, BYTES + 1); /* more than there is: nothing happens */
        fm_populate_stop(t);
        munmap(p, BYTES);
    }
}

static void what_was_touched_is_known(void **state)
{
    (void)state;
    if (!is_possible()) skip();
    uint8_t *p = map();
    fm_populate *t = start(p, 16 * MIB, 1, NULL);
    assert_true(comes_to(p, 16 * MIB));
    for (int i = 0; i < 2000 && (!fm_populate_has(t, 0, 16 * MIB) || fm_populate_pending(t) > 0); i++)
        nap(); /* says so a moment later */
    assert_true(fm_populate_has(t, 0, 16 * MIB));
    assert_int_equal(fm_populate_pending(t), 0);
    assert_true(fm_populate_has(t, 5 * MIB + 1, 5 * MIB + 2));
    assert_false(fm_populate_has(t, 16 * MIB, 16 * MIB + 1));
    assert_false(fm_populate_has(t, 15 * MIB, 17 * MIB));
    assert_false(fm_populate_has(t, BYTES - 1, BYTES));
    need(t, BYTES);
    assert_true(becomes_done(t));
    assert_true(fm_populate_has(t, 0, BYTES));
    fm_populate_stop(t);
    munmap(p, BYTES);
    assert_true(fm_populate_has(NULL, 0, BYTES)); /* no way to touch it: it is as good as it gets */
}

/* Memory that cannot be had is left to first use, and nobody waits for it. */
static void no_memory_counts_as_touched(void **state)
{
    (void)state;
    uint8_t *p = map();
    assert_int_equal(mprotect(p + 4 * MIB, 4 * MIB, PROT_NONE), 0);
    fm_populate *t = start(p, BYTES, 1, NULL);
    assert_true(becomes_done(t));
    assert_true(fm_populate_has(t, 0, BYTES));
    assert_true(touched(p) <= 4 * MIB);
    fm_populate_stop(t);
    munmap(p, BYTES);
}

/* Threads of this process with the policy SCHED_IDLE. */
static int n_idle_threads(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/task");
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        n += e->d_name[0] != '.' && sched_getscheduler((pid_t)atoi(e->d_name)) == SCHED_IDLE;
    closedir(dir);
    return n;
}

static void *burn(void *stop)
{
    while (!atomic_load((_Atomic bool *)stop)) {
    }
    return NULL;
}

/* One thread takes time that nobody wants, the other goes on where every processor has work. */
static void the_background_is_not_starved(void **state)
{
    (void)state;
    if (!is_possible()) skip();
    enum { MANY = 64 };
    pthread_t thread[MANY];
    _Atomic bool stop = false;
    const int n = fm_os_cpu_count() < MANY ? fm_os_cpu_count() : MANY;
    for (int i = 0; i < n; i++) assert_int_equal(pthread_create(&thread[i], NULL, burn, &stop), 0);
    uint8_t *p = map();
    const fm_populate_options o = {.base = p, .bytes = BYTES, .ahead = 8 * MIB, .least_share = 0.5};
    fm_populate *t = fm_populate_start(&o);
    assert_non_null(t);
    bool came = false;
    for (int i = 0; i < 6 && !came; i++) came = comes_to(p, 8 * MIB); /* a minute of much else */
    const int n_idle = n_idle_threads();
    atomic_store(&stop, true);
    for (int i = 0; i < n; i++) pthread_join(thread[i], NULL);
    assert_true(came);
    assert_int_equal(n_idle, 1);
    for (int i = 0; i < 2000 && !fm_populate_is_done(t); i++) {
        fm_populate_need(t, BYTES);
        nap();
    }
    assert_true(fm_populate_is_done(t));
    assert_int_equal(touched(p), BYTES);
    fm_populate_stop(t);
    munmap(p, BYTES);
}

static void the_second_begins_when_the_first_is_done(void **state)
{
    (void)state;
    if (!is_possible()) skip();
    uint8_t *a = map(), *b = map();
    fm_populate *first = start(a, 16 * MIB, 2, NULL);
    fm_populate *second = start(b, BYTES, 1, first);
    assert_true(comes_to(a, 16 * MIB)); /* and waits: it was not asked for more */
    nap();
    assert_int_equal(touched(b), 0);
    assert_int_equal(fm_populate_pending(second), BYTES);
    need(first, BYTES);
    assert_true(comes_to(b, BYTES));
    assert_int_equal(touched(a), BYTES);
    fm_populate_stop(second);
    fm_populate_stop(first);
    munmap(a, BYTES);
    munmap(b, BYTES);
}

/* One that waits for work, one that waits for another, one in the middle of its work. */
static void stopping_never_hangs(void **state)
{
    (void)state;
    uint8_t *a = map(), *b = map();
    for (int i = 0; i < 20; i++) {
        const fm_populate_options o = {.base = a,
                                       .bytes = BYTES,
                                       .ahead = i % 2 ? 0 : BYTES,
                                       .n_threads = 1 + i % 3,
                                       .least_share = i % 5 == 0 ? 0.05 : 0};
        fm_populate *first = fm_populate_start(&o);
        fm_populate *second = start(b, BYTES, 1, first);
        if (i % 4 == 0) nap();
        fm_populate_stop(second);
        fm_populate_stop(first);
        (void)madvise(a, BYTES, MADV_DONTNEED);
    }
    fm_populate_stop(NULL);
    fm_populate_need(NULL, 1);
    assert_true(fm_populate_is_done(NULL));
    assert_int_equal(fm_populate_pending(NULL), 0);
    munmap(a, BYTES);
    munmap(b, BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_far_as_was_asked),
        cmocka_unit_test(what_was_touched_is_known),
        cmocka_unit_test(no_memory_counts_as_touched),
        cmocka_unit_test(the_background_is_not_starved),
        cmocka_unit_test(the_second_begins_when_the_first_is_done),
        cmocka_unit_test(stopping_never_hangs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
