/* Fork-join thread pool: see pool.h.
 *
 * The items of a run are dealt out in ranges of neighbours, one to a thread, because neighbours mostly lie side by side
 * in memory: what a thread asks for ahead of its use is then its own next item, until others, who have nothing left, take
 * from its range. Taking one is a single atomic addition, and a result inside the range *is* the permission
 * to compute that item: while it is being computed the run cannot end, so the description of the run (fn, ctx)
 * cannot change under the one who holds it. A thread that comes late finds nothing left and needs no part in
 * the run's end; therefore a run never waits for a thread that sleeps or was not scheduled, which is what
 * keeps more threads than processors fast.
 */
#include "base/pool.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/spin.h"

enum {
    LINE = 128, /* two cache lines: neighbours are fetched in pairs on x86 */
    PAUSES_PER_CLOCK = 32,
    /* FM_POOL_STACK_USED, and more for the library below; some systems' default is 128 KiB. */
    STACK_BYTES = 2 << 20,
};

typedef struct {
    struct fm_pool *pool;
    pthread_t thread;
    int index;
} worker;

/* What one thread has been dealt. The lower half of `items` is the next one, the upper half the end; written by
 * the caller between runs. */
typedef struct {
    _Alignas(LINE) _Atomic uint64_t items;
    _Atomic uintptr_t expected; /* what it will read first in a later run; 0: nothing, or fetched */
    _Atomic size_t expected_bytes;
} deal;

struct fm_pool {
    /* set at creation, read-only afterwards */
    int n_thread; /* with the caller */
    int n_started;
    worker *workers;

    /* set by the caller between runs; the second is read by workers at any time */
    int64_t waited_ns;       /* by callers, for the last items of others              */
    _Atomic int n_awake_max; /* workers worth waking: processors less the caller's    */

    /* the run: written by the caller while no item is out, read by who holds an item */
    fm_pool_fn fn;
    void *ctx;
    _Atomic unsigned n_run;

    deal *deals;                                 /* [n_thread]                                 */
    _Alignas(LINE) _Atomic int64_t n_unfinished; /* items not computed                         */
    _Alignas(LINE) _Atomic int n_sleeping;       /* workers at or near pthread_cond_wait       */
    _Atomic bool caller_sleeps;
    _Atomic bool stop;

    pthread_mutex_t mu; /* guards nothing but the sleeping itself */
    pthread_cond_t work_came;
    pthread_cond_t work_done;
};

/* Which pool this thread computes for, so that a run started inside an item runs in place. */
static _Thread_local const fm_pool *tls_pool;
static _Thread_local int tls_index;

static bool has_items(deal *d)
{
    const uint64_t items = atomic_load_explicit(&d->items, memory_order_relaxed);
    return (uint32_t)items < items >> 32;
}

/* Computes items until none is left to take. */
static void take_items(fm_pool *pool, int index)
{
    int64_t n_computed = 0;
    for (int i = 0; i < pool->n_thread; i++) {
        deal *d = &pool->deals[(index + i) % pool->n_thread];
        while (has_items(d)) {
            const uint64_t items = atomic_fetch_add(&d->items, 1);
            if ((uint32_t)items >= items >> 32) break;
            pool->fn(pool->ctx, (int64_t)(uint32_t)items, index);
            n_computed++;
        }
    }
    if (n_computed == 0) return;
    if (atomic_fetch_sub(&pool->n_unfinished, n_computed) != n_computed) return;
    /* This thread computed the last item. The caller announces its sleep before it looks at
     * n_unfinished for the last time, so one of the two sees the other. */
    if (atomic_load(&pool->caller_sleeps)) {
        pthread_mutex_lock(&pool->mu);
        pthread_cond_signal(&pool->work_done);
        pthread_mutex_unlock(&pool->mu);
    }
}

/* A run after the one that was seen last has items left, or the pool ends. */
static bool run_waits(fm_pool *pool, unsigned seen)
{
    if (atomic_load(&pool->stop)) return true;
    if (atomic_load(&pool->n_run) == seen) return false;
    for (int t = 0; t < pool->n_thread; t++)
        if (has_items(&pool->deals[t])) return true;
    return false;
}

/* The next lines of what the thread expects to read; false when there are none. A late one may take what was meant for the
 * run after: it is a hint. */
static bool fetch_expected(deal *d)
{
    enum { STEP_BYTES = 1024, CACHE_LINE = 64 };
    const uintptr_t at = atomic_load_explicit(&d->expected, memory_order_relaxed);
    if (at == 0) return false;
    const size_t left = atomic_load_explicit(&d->expected_bytes, memory_order_relaxed);
    const size_t n = left < STEP_BYTES ? left : STEP_BYTES;
    for (size_t i = 0; i < n; i += CACHE_LINE) __builtin_prefetch((const char *)at + i, 0, 2);
    atomic_store_explicit(&d->expected_bytes, left - n, memory_order_relaxed);
    atomic_store_explicit(&d->expected, left > n ? at + n : 0, memory_order_relaxed);
    return true;
}

/* Where there are more threads than processors a waiting one is soon in the way. */
static int64_t awake_ns(const fm_pool *pool, const fm_spin *spin)
{
    return pool->n_thread - 1 > pool->n_awake_max ? FM_SPIN_SHORT_NS : fm_spin_limit_ns(spin);
}

/* Looks at its own items, which no other worker looks at meanwhile; who has none comes a little later, for those of
 * the others. */
static bool spin_for_work(fm_pool *pool, deal *own, unsigned seen, int64_t start_ns,
                          int64_t limit_ns)
{
    do {
        for (int i = 0; i < PAUSES_PER_CLOCK; i++) {
            if (has_items(own)) return true;
            if (!fetch_expected(own)) fm_cpu_pause();
        }
        if (run_waits(pool, seen)) return true;
    } while (fm_spin_on(start_ns, limit_ns));
    return false;
}

static void sleep_for_work(fm_pool *pool, unsigned seen)
{
    pthread_mutex_lock(&pool->mu);
    /* First announced, then looked: the caller publishes items first and then looks for sleepers.
     */
    atomic_fetch_add(&pool->n_sleeping, 1);
    while (!run_waits(pool, seen)) pthread_cond_wait(&pool->work_came, &pool->mu);
    atomic_fetch_sub(&pool->n_sleeping, 1);
    pthread_mutex_unlock(&pool->mu);
}

static void *worker_main(void *arg)
{
    const worker *w = arg;
    fm_pool *pool = w->pool;
    deal *own = &pool->deals[w->index];
    tls_pool = pool;
    tls_index = w->index;
    unsigned seen = 0; /* the last run whose items it looked for */
    fm_spin spin = {0};
    while (!atomic_load(&pool->stop)) {
        const int64_t start_ns = fm_now_ns();
        if (!spin_for_work(pool, own, seen, start_ns, awake_ns(pool, &spin)))
            sleep_for_work(pool, seen);
        fm_spin_learn(&spin, fm_now_ns() - start_ns);
        seen = atomic_load(&pool->n_run);
        take_items(pool, w->index);
    }
    return NULL;
}

void fm_pool_limit(fm_pool *pool, int n_cpu)
{
    const int n_worker = pool->n_thread - 1;
    int n = n_cpu < 1 ? 0 : n_cpu - 1;
    if (n > n_worker) n = n_worker;
    pool->n_awake_max = n;
}

fm_status fm_pool_create(fm_pool **out, int n_threads, fm_error *err)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > FM_POOL_THREADS_MAX) {
        return fm_fail(err, FM_E_ARG, "%d threads: expected 1 to %d", n_threads,
                       FM_POOL_THREADS_MAX);
    }
    fm_pool *pool = NULL;
    if (posix_memalign((void **)&pool, LINE, sizeof *pool) != 0) {
        return fm_fail(err, FM_E_NOMEM, "no memory for a thread pool");
    }
    memset(pool, 0, sizeof *pool);
    pool->n_thread = n_threads;
    pthread_mutex_init(&pool->mu, NULL);
    pthread_cond_init(&pool->work_came, NULL);
    pthread_cond_init(&pool->work_done, NULL);
    fm_pool_limit(pool, (int)sysconf(_SC_NPROCESSORS_ONLN));

    const size_t deals_bytes = (size_t)n_threads * sizeof *pool->deals;
    pool->workers = calloc((size_t)n_threads, sizeof *pool->workers);
    if (!pool->workers || posix_memalign((void **)&pool->deals, LINE, deals_bytes) != 0) {
        pool->deals = NULL; /* undefined after a failure */
        fm_pool_destroy(pool);
        return fm_fail(err, FM_E_NOMEM, "no memory for %d threads", n_threads);
    }
    memset(pool->deals, 0, deals_bytes);
    /* Signals are for the program's own threads. */
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    for (int i = 0; i < n_threads - 1 && rc == 0; i++) {
        worker *w = &pool->workers[i];
        *w = (worker){.pool = pool, .index = i + 1};
        rc = pthread_create(&w->thread, &attr, worker_main, w);
        if (rc == 0) pool->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        const int n_started = pool->n_started;
        fm_pool_destroy(pool);
        return fm_fail_errno(err, rc, "starting thread %d of %d", n_started + 2, n_threads);
    }
    *out = pool;
    return FM_OK;
}

void fm_pool_destroy(fm_pool *pool)
{
    if (!pool) return;
    pthread_mutex_lock(&pool->mu);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->work_came);
    pthread_mutex_unlock(&pool->mu);
    for (int i = 0; i < pool->n_started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->work_done);
    pthread_cond_destroy(&pool->work_came);
    pthread_mutex_destroy(&pool->mu);
    free(pool->workers);
    free(pool->deals);
    free(pool);
}

int fm_pool_size(const fm_pool *pool)
{
    return pool->n_thread;
}

/* Wakes as many sleepers as this run can use and the processors can carry. */
static void wake_workers(fm_pool *pool, int64_t n_items)
{
    const int n_sleeping = atomic_load(&pool->n_sleeping);
    if (n_sleeping == 0) return;
    const int n_awake = pool->n_thread - 1 - n_sleeping;
    const int64_t n_useful = n_items - 1 < pool->n_awake_max ? n_items - 1 : pool->n_awake_max;
    const int64_t n_wake = n_useful - n_awake;
    if (n_wake <= 0) return;
    pthread_mutex_lock(&pool->mu);
    if (n_wake >= n_sleeping) {
        pthread_cond_broadcast(&pool->work_came);
    } else {
        for (int64_t i = 0; i < n_wake; i++) pthread_cond_signal(&pool->work_came);
    }
    pthread_mutex_unlock(&pool->mu);
}

static void wait_for_others(fm_pool *pool, int64_t start_ns)
{
    do {
        for (int i = 0; i < PAUSES_PER_CLOCK; i++) {
            if (atomic_load(&pool->n_unfinished) == 0) return;
            if (!fetch_expected(&pool->deals[0])) fm_cpu_pause();
        }
    } while (fm_spin_on(start_ns, FM_SPIN_SHORT_NS));
    pthread_mutex_lock(&pool->mu);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->n_unfinished) != 0) pthread_cond_wait(&pool->work_done, &pool->mu);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->mu);
}

int64_t fm_pool_first(const fm_pool *pool, int64_t n_items, int thread)
{
    /* Rounded up, so that of few items the caller has one. */
    return (n_items * thread + pool->n_thread - 1) / pool->n_thread;
}

void fm_pool_expect(fm_pool *pool, int thread, const void *at, size_t bytes)
{
    deal *d = &pool->deals[thread];
    atomic_store_explicit(&d->expected_bytes, bytes, memory_order_relaxed);
    atomic_store_explicit(&d->expected, bytes ? (uintptr_t)at : 0, memory_order_relaxed);
}

static void deal_items(fm_pool *pool, int64_t n_items)
{
    atomic_store(&pool->n_unfinished, n_items); /* before anybody can take one */
    for (int t = pool->n_thread - 1; t >= 0; t--) {
        const uint64_t first = (uint64_t)fm_pool_first(pool, n_items, t);
        const uint64_t end = (uint64_t)fm_pool_first(pool, n_items, t + 1);
        if (first == end && !has_items(&pool->deals[t])) continue; /* its line stays where it is */
        atomic_store_explicit(&pool->deals[t].items, end << 32 | first, memory_order_release);
    }
    /* Workers about to sleep announce it and then look at this. */
    atomic_fetch_add(&pool->n_run, 1);
}

static void run_dealt(fm_pool *pool, fm_pool_fn fn, void *ctx, int64_t n_items)
{
    pool->fn = fn;
    pool->ctx = ctx;
    deal_items(pool, n_items);
    wake_workers(pool, n_items);
    take_items(pool, 0);
    if (atomic_load(&pool->n_unfinished) == 0) return;
    const int64_t start_ns = fm_now_ns();
    wait_for_others(pool, start_ns);
    pool->waited_ns += fm_now_ns() - start_ns;
}

void fm_pool_run(fm_pool *pool, fm_pool_fn fn, void *ctx, int64_t n_items)
{
    if (n_items <= 0) return;
    /* Late threads add to exhausted ranges: with this it never carries into the end. */
    assert(n_items <= INT32_MAX);
    const bool nested = tls_pool == pool;
    if (nested || n_items == 1 || pool->n_started == 0) {
        const int index = nested ? tls_index : 0;
        for (int64_t i = 0; i < n_items; i++) fn(ctx, i, index);
        return;
    }
    assert(atomic_load(&pool->n_unfinished) == 0); /* one run at a time */
    const fm_pool *outer_pool = tls_pool; /* a run of one pool may use another pool inside */
    const int outer_index = tls_index;
    tls_pool = pool;
    tls_index = 0;

    run_dealt(pool, fn, ctx, n_items);
    tls_pool = outer_pool;
    tls_index = outer_index;
}

uint64_t fm_pool_wait_us(const fm_pool *pool)
{
    return (uint64_t)pool->waited_ns / 1000;
}
