/* The thread pool: every item exactly once, whatever the sizes, and results of one run visible to
 * the caller and to the next run without further locks. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/pool.h"
#include "base/spin.h"

enum { MAX_ITEMS = 4096, MAX_THREADS = 16 };

typedef struct {
    fm_pool *pool;
    int32_t seen[MAX_ITEMS]; /* plain on purpose: an item belongs to one thread */
    _Atomic int bad_thread;
    int64_t work;
} record;

static void count_item(void *ctx, int64_t item, int thread)
{
    record *r = ctx;
    if (thread < 0 || thread >= fm_pool_size(r->pool)) atomic_fetch_add(&r->bad_thread, 1);
    for (volatile int64_t i = 0; i < r->work; i++) {
    }
    r->seen[item]++;
}

static void run_and_check(fm_pool *pool, record *r, int64_t n_items)
{
    memset(r->seen, 0, sizeof r->seen);
    fm_pool_run(pool, count_item, r, n_items);
    for (int64_t i = 0; i < MAX_ITEMS; i++) assert_int_equal(r->seen[i], i < n_items ? 1 : 0);
}

/* A record with a pool of its own, and the end of both. */
static record *open_record(int n_thread)
{
    record *r = calloc(1, sizeof *r);
    assert_int_equal(fm_pool_create(&r->pool, n_thread, NULL), FM_OK);
    return r;
}

static void close_record(record *r)
{
    fm_pool_destroy(r->pool); /* of workers that are awake or asleep */
    assert_int_equal(atomic_load(&r->bad_thread), 0);
    free(r);
}

static void any_thread_count_computes_every_item_once(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 8, 31, 64, 257, 4096};
    record *r = calloc(1, sizeof *r);
    for (int n_thread = 1; n_thread <= MAX_THREADS; n_thread++) {
        fm_pool *pool;
        assert_int_equal(fm_pool_create(&pool, n_thread, NULL), FM_OK);
        assert_int_equal(fm_pool_size(pool), n_thread);
        r->pool = pool;
        for (int round = 0; round < 20; round++) {
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
                r->work = (round * 37) % 200;
                run_and_check(pool, r, sizes[i]);
            }
        }
        fm_pool_destroy(pool);
    }
    assert_int_equal(atomic_load(&r->bad_thread), 0);
    free(r);
}

static void runs_after_workers_slept_still_complete(void **state)
{
    (void)state;
    record *r = open_record(4);
    fm_pool *pool = r->pool;
    for (int i = 0; i < 200; i++) {
        /* Around both times of staying awake, the second half where there are processors for all. */
        static const long nap_us[] = {0, 20, 60, 500, 3000};
        const struct timespec nap = {0, 1000 * nap_us[i / 20 % 5]};
        if (i == 100) fm_pool_limit(pool, 4);
        nanosleep(&nap, NULL);
        r->work = (i % 7) * 1000;
        run_and_check(pool, r, 1 + i % 40);
    }
    close_record(r);
}

typedef struct {
    const int64_t *in;
    int64_t *out;
} pass;

static void add_neighbours(void *ctx, int64_t item, int thread)
{
    const pass *p = ctx;
    (void)thread;
    const int64_t left = item > 0 ? p->in[item - 1] : 0;
    p->out[item] = (left + 3 * p->in[item]) % 1000003;
}

/* Each run reads what other threads wrote in the run before. */
static void next_run_sees_results_of_the_last(void **state)
{
    (void)state;
    enum { N = 300, ROUNDS = 500 };
    int64_t a[N], b[N], c[N], d[N];
    for (int i = 0; i < N; i++) a[i] = c[i] = i;
    fm_pool *pool;
    assert_int_equal(fm_pool_create(&pool, 8, NULL), FM_OK);
    for (int round = 0; round < ROUNDS; round++) {
        pass p = {a, b};
        fm_pool_run(pool, add_neighbours, &p, N);
        memcpy(a, b, sizeof a);
        pass q = {c, d};
        for (int i = 0; i < N; i++) add_neighbours(&q, i, 0);
        memcpy(c, d, sizeof c);
    }
    assert_memory_equal(a, c, sizeof a);
    fm_pool_destroy(pool);
}

typedef struct {
    fm_pool *pool;
    _Atomic int64_t sum;
    _Atomic int wrong_thread;
} nest;

typedef struct {
    nest *n;
    int outer_thread;
} inner_ctx;

static void inner_item(void *ctx, int64_t item, int thread)
{
    inner_ctx *c = ctx;
    atomic_fetch_add(&c->n->sum, item + 1);
    if (thread != c->outer_thread) atomic_fetch_add(&c->n->wrong_thread, 1);
}

static void outer_item(void *ctx, int64_t item, int thread)
{
    nest *n = ctx;
    (void)item;
    inner_ctx c = {n, thread};
    fm_pool_run(n->pool, inner_item, &c, 10);
}

static void run_inside_an_item_computes_in_place(void **state)
{
    (void)state;
    for (int n_thread = 1; n_thread <= 4; n_thread++) {
        nest n = {0};
        assert_int_equal(fm_pool_create(&n.pool, n_thread, NULL), FM_OK);
        fm_pool_run(n.pool, outer_item, &n, 100);
        assert_int_equal(atomic_load(&n.sum), 100 * 55);
        assert_int_equal(atomic_load(&n.wrong_thread), 0);
        fm_pool_destroy(n.pool);
    }
}

typedef struct {
    fm_pool *inner;
    record *r[4];
} two_pools;

static void use_other_pool(void *ctx, int64_t item, int thread)
{
    two_pools *t = ctx;
    (void)item;
    if (thread != 0) return; /* one thread per pool */
    fm_pool_run(t->inner, count_item, t->r[0], 16);
}

static void pool_used_inside_another_pool_works(void **state)
{
    (void)state;
    fm_pool *outer;
    two_pools t = {0};
    t.r[0] = calloc(1, sizeof *t.r[0]);
    assert_int_equal(fm_pool_create(&outer, 1, NULL), FM_OK);
    assert_int_equal(fm_pool_create(&t.inner, 3, NULL), FM_OK);
    t.r[0]->pool = t.inner;
    fm_pool_run(outer, use_other_pool, &t, 5);
    for (int i = 0; i < 16; i++) assert_int_equal(t.r[0]->seen[i], 5);
    fm_pool_destroy(t.inner);
    fm_pool_destroy(outer);
    free(t.r[0]);
}

static void limited_pool_still_computes_everything(void **state)
{
    (void)state;
    for (int n_cpu = 0; n_cpu <= 10; n_cpu++) {
        record *r = open_record(8);
        fm_pool_limit(r->pool, n_cpu);
        for (int i = 0; i < 50; i++) run_and_check(r->pool, r, 64);
        close_record(r);
    }
}

typedef struct {
    int64_t first[MAX_THREADS]; /* item that each thread began with, -1: none yet */
    _Atomic int n_begun;
    int n_thread;
} beginners;

/* Waits until every thread has begun, so that nobody takes an item of a thread that comes late. */
static void begin_item(void *ctx, int64_t item, int thread)
{
    beginners *b = ctx;
    if (b->first[thread] >= 0) return;
    b->first[thread] = item;
    atomic_fetch_add(&b->n_begun, 1);
    while (atomic_load(&b->n_begun) < b->n_thread) sched_yield();
}

static void threads_begin_with_their_own_items(void **state)
{
    (void)state;
    for (int n_thread = 2; n_thread <= 6; n_thread++) {
        fm_pool *pool;
        assert_int_equal(fm_pool_create(&pool, n_thread, NULL), FM_OK);
        fm_pool_limit(pool, n_thread); /* all are woken */
        beginners b = {.n_thread = n_thread};
        for (int t = 0; t < n_thread; t++) b.first[t] = -1;
        fm_pool_run(pool, begin_item, &b, 100);
        for (int t = 0; t < n_thread; t++)
            assert_int_equal(b.first[t], fm_pool_first(pool, 100, t));
        fm_pool_destroy(pool);
    }
}

static void items_are_dealt_out_evenly(void **state)
{
    (void)state;
    for (int n_thread = 1; n_thread <= MAX_THREADS; n_thread++) {
        fm_pool *pool;
        assert_int_equal(fm_pool_create(&pool, n_thread, NULL), FM_OK);
        for (int64_t n = 1; n < 100; n++) {
            assert_int_equal(fm_pool_first(pool, n, 0), 0);
            assert_int_equal(fm_pool_first(pool, n, n_thread), n);
            for (int t = 0; t < n_thread; t++) {
                const int64_t own = fm_pool_first(pool, n, t + 1) - fm_pool_first(pool, n, t);
                assert_in_range(own, n / n_thread, (n + n_thread - 1) / n_thread);
            }
        }
        fm_pool_destroy(pool);
    }
}

static void what_is_expected_changes_nothing(void **state)
{
    (void)state;
    record *r = open_record(3);
    fm_pool *pool = r->pool;
    r->work = 300;
    enum { BYTES = 300001 };
    char *memory = malloc(BYTES);
    const char *const nobodys = (const char *)(uintptr_t)4096; /* memory may be gone by the time */
    for (int i = 0; i < 300; i++) {
        for (int t = 0; t < 3; t++)
            fm_pool_expect(pool, t, i % 2 ? memory : nobodys, i % 7 ? (size_t)i * 1000 : 0);
        run_and_check(pool, r, i % 40);
    }
    close_record(r);
    free(memory);
}

static void waits_that_end_soon_are_stayed_awake_for(void **state)
{
    (void)state;
    fm_spin s = {0};
    const int64_t before = fm_spin_limit_ns(&s), soon = FM_SPIN_LONG_NS / 2;
    assert_int_equal(before, FM_SPIN_SHORT_NS);
    fm_spin_learn(&s, soon);
    assert_int_equal(fm_spin_limit_ns(&s), FM_SPIN_LONG_NS);
    for (int i = 0; i < 1000; i++) fm_spin_learn(&s, soon);
    for (int i = 0; i < FM_SPIN_CREDIT; i++) fm_spin_learn(&s, FM_SPIN_LONG_NS + 1);
    assert_int_equal(fm_spin_limit_ns(&s), FM_SPIN_SHORT_NS); /* however long it was otherwise */
    for (int i = 0; i < 1000; i++) fm_spin_learn(&s, FM_SPIN_LONG_NS + 1);
    for (int i = 0; i < 1000; i++) fm_spin_learn(&s, FM_SPIN_SHORT_NS); /* says nothing */
    for (int i = 0; i < FM_SPIN_CREDIT; i++) fm_spin_learn(&s, soon);
    assert_int_equal(fm_spin_limit_ns(&s), FM_SPIN_SHORT_NS);
    fm_spin_learn(&s, soon);
    assert_int_equal(fm_spin_limit_ns(&s), FM_SPIN_LONG_NS);
}

static void create_refuses_senseless_counts(void **state)
{
    (void)state;
    fm_pool *pool;
    fm_error err;
    assert_int_equal(fm_pool_create(&pool, 0, &err), FM_E_ARG);
    assert_null(pool);
    assert_int_equal(fm_pool_create(&pool, -3, &err), FM_E_ARG);
    assert_int_equal(fm_pool_create(&pool, 1 << 20, &err), FM_E_ARG);
    fm_pool_destroy(NULL);
}

static void machines_with_many_processors_get_as_many_threads_as_there_may_be(void **state)
{
    (void)state;
    assert_int_equal(fm_pool_threads(0, 6), 6);
    assert_int_equal(fm_pool_threads(3, 6), 3);
    assert_int_equal(fm_pool_threads(0, 4096), FM_POOL_THREADS_MAX);
    fm_pool *pool;
    fm_error err;
    assert_int_equal(fm_pool_create(&pool, fm_pool_threads(4096, 8), &err), FM_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machines_with_many_processors_get_as_many_threads_as_there_may_be),
        cmocka_unit_test(any_thread_count_computes_every_item_once),
        cmocka_unit_test(runs_after_workers_slept_still_complete),
        cmocka_unit_test(next_run_sees_results_of_the_last),
        cmocka_unit_test(run_inside_an_item_computes_in_place),
        cmocka_unit_test(pool_used_inside_another_pool_works),
        cmocka_unit_test(limited_pool_still_computes_everything),
        cmocka_unit_test(threads_begin_with_their_own_items),
        cmocka_unit_test(items_are_dealt_out_evenly),
        cmocka_unit_test(what_is_expected_changes_nothing),
        cmocka_unit_test(waits_that_end_soon_are_stayed_awake_for),
        cmocka_unit_test(create_refuses_senseless_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
