/* Memory touched ahead of its first use: see populate.h. */
#define _GNU_SOURCE /* MADV_POPULATE_WRITE, SCHED_IDLE */
#include "os/populate.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"

#ifdef MADV_POPULATE_WRITE

enum {
    /* Stopping waits for one at most, and so do mmap and munmap of other threads: the kernel holds the lock of the
     * address space meanwhile, also where a thread in the background has lost its processor. */
    CHUNK = 2 << 20,
    WAKE = 8 << 20, /* a goal that is nearer to the last one is not worth waking a thread */
    THREADS_MAX = 8,
    LOOK_US = 2 * 1000, /* how often one looks whether the one before it is done */
    SECOND_US = 1000 * 1000,
};
#define NONE SIZE_MAX

struct fm_populate {
    fm_populate_options o;
    pthread_t thread[THREADS_MAX];
    int n_thread;
    pthread_mutex_t mu;
    pthread_cond_t moved;  /* by the monotonic clock */
    _Atomic int n_entered; /* threads that have begun */
    _Atomic size_t goal;   /* touch up to here */
    _Atomic size_t done;   /* bytes touched */
    size_t next;           /* under mu: not taken by a thread yet */
    size_t behind;         /* under mu: taken last by the thread in the background */
    int n_touching;        /* under mu */
    bool stop;             /* under mu */
    _Atomic bool is_done;
    _Atomic bool *touched; /* [chunks] */
    size_t asked;          /* the caller's copy of the goal */
};

/* The lock is held. Returns early when something moves. */
static void wait_until(fm_populate *p, uint64_t us)
{
    const struct timespec until = {.tv_sec = (time_t)(us / SECOND_US),
                                   .tv_nsec = (long)(us % SECOND_US) * 1000};
    pthread_cond_timedwait(&p->moved, &p->mu, &until);
}

typedef enum { WORKS, IN_BACKGROUND, RESTS } role;

/* Where to touch, NONE: nothing to do now. The lock is held. */
static size_t next_chunk(const fm_populate *p, role me)
{
    /* One in the background may have lost its processor for long, with a chunk that all wait for. */
    if (me == RESTS && p->behind != NONE && !atomic_load(&p->touched[p->behind / CHUNK]))
        return p->behind;
    return p->next < p->o.bytes && p->next < atomic_load(&p->goal) ? p->next : NONE;
}

/* The lock is held, but not while memory is touched. */
static void touch_chunk(fm_populate *p, role me, size_t at)
{
    const size_t n = p->o.bytes - at < CHUNK ? p->o.bytes - at : CHUNK;
    if (at == p->next) p->next += n;
    if (me == IN_BACKGROUND) p->behind = at;
    p->n_touching++;
    pthread_mutex_unlock(&p->mu);
    int rc;
    do {
        rc = madvise((uint8_t *)p->o.base + at, n, MADV_POPULATE_WRITE);
    } while (rc != 0 && errno == EINTR);
    if (rc == 0 && !atomic_exchange(&p->touched[at / CHUNK], true)) atomic_fetch_add(&p->done, n);
    pthread_mutex_lock(&p->mu);
    p->n_touching--;
    if (rc == 0) return;
    p->next = p->o.bytes; /* an older kernel, or no memory now: left to first use */
    p->behind = NONE;
}

/* Decided, and the policy set, before the lock is taken: nobody waits for one that has no processor. */
static role choose_role(fm_populate *p)
{
    if (p->o.least_share <= 0) return WORKS;
    if (atomic_fetch_add(&p->n_entered, 1) == 0) return RESTS;
    const struct sched_param none = {0};
    /* Where that is forbidden there is one more that rests. */
    return pthread_setschedparam(pthread_self(), SCHED_IDLE, &none) == 0 ? IN_BACKGROUND : RESTS;
}

static void *populate_main(void *arg)
{
    fm_populate *p = arg;
    const role me = choose_role(p);
    const double rest = me == RESTS ? 1 / p->o.least_share - 1 : 0;
    pthread_mutex_lock(&p->mu);
    while (!p->stop && !fm_populate_is_done(p->o.after)) wait_until(p, fm_now_us() + LOOK_US);
    uint64_t resume = 0;
    while (!p->stop && (p->next < p->o.bytes || (me == RESTS && p->n_touching > 0))) {
        const size_t at = next_chunk(p, me);
        const uint64_t start = fm_now_us();
        if (at == NONE && me == RESTS && p->n_touching > 0) {
            wait_until(p, start + LOOK_US);
        } else if (at == NONE) {
            /* A wake-up may have been left out: fm_populate_need(). */
            wait_until(p, start + SECOND_US);
        } else if (start < resume) {
            wait_until(p, resume);
        } else {
            touch_chunk(p, me, at);
            const uint64_t end = fm_now_us();
            resume = end + (uint64_t)(rest * (double)(end - start));
        }
    }
    /* The last one says so, also when it was stopped: nobody waits for the rest
     * then. */
    if (p->n_touching == 0) atomic_store(&p->is_done, true);
    pthread_cond_broadcast(&p->moved);
    pthread_mutex_unlock(&p->mu);
    return NULL;
}

fm_populate *fm_populate_start(const fm_populate_options *opt)
{
    fm_populate *p = calloc(1, sizeof *p);
    _Atomic bool *touched = calloc(opt->bytes / CHUNK + 1, sizeof *touched);
    if (!p || !touched) {
        free(p);
        free(touched);
        return NULL;
    }
    p->o = *opt;
    p->touched = touched;
    p->asked = opt->ahead < opt->bytes ? opt->ahead : opt->bytes;
    p->behind = NONE;
    atomic_store(&p->goal, p->asked);
    int n = opt->n_threads > 0 ? opt->n_threads : 1;
    if (opt->least_share > 0) n = 2;
    if (n > THREADS_MAX) n = THREADS_MAX;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC); /* setting the time moves no wait */
    pthread_mutex_init(&p->mu, NULL);
    pthread_cond_init(&p->moved, &clock);
    pthread_condattr_destroy(&clock);
    sigset_t all, old; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (int i = 0; i < n; i++) {
        if (pthread_create(&p->thread[i], NULL, populate_main, p) != 0) break;
        p->n_thread++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (p->n_thread > 0) return p;
    fm_populate_stop(p);
    return NULL;
}

void fm_populate_need(fm_populate *p, size_t bytes)
{
    if (!p || bytes > p->o.bytes) return;
    const size_t goal = p->o.bytes - bytes < p->o.ahead ? p->o.bytes : bytes + p->o.ahead;
    if (goal < p->asked + WAKE && goal != p->o.bytes) return; /* not worth a wake-up yet */
    if (goal <= p->asked) return;
    atomic_store(&p->goal, goal);
    /* Where one that may have no processor holds the lock, the next call wakes. */
    if (pthread_mutex_trylock(&p->mu) != 0) return;
    p->asked = goal;
    pthread_cond_broadcast(&p->moved);
    pthread_mutex_unlock(&p->mu);
}

bool fm_populate_has(const fm_populate *p, size_t from, size_t to)
{
    if (fm_populate_is_done(p)) return true;
    assert(to <= p->o.bytes);
    for (size_t at = from / CHUNK; at * CHUNK < to; at++)
        if (!atomic_load(&p->touched[at])) return false;
    return true;
}

size_t fm_populate_pending(const fm_populate *p)
{
    if (fm_populate_is_done(p)) return 0;
    const size_t goal = atomic_load(&p->goal), done = atomic_load(&p->done);
    return goal > done ? goal - done : 0;
}

bool fm_populate_is_done(const fm_populate *p)
{
    return !p || atomic_load(&p->is_done);
}

void fm_populate_stop(fm_populate *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->mu);
    p->stop = true;
    pthread_cond_broadcast(&p->moved);
    pthread_mutex_unlock(&p->mu);
    for (int i = 0; i < p->n_thread; i++) pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->moved);
    pthread_mutex_destroy(&p->mu);
    free(p->touched);
    free(p);
}

#else

fm_populate *fm_populate_start(const fm_populate_options *opt)
{
    (void)opt;
    return NULL;
}

void fm_populate_need(fm_populate *p, size_t bytes)
{
    (void)p, (void)bytes;
}

bool fm_populate_has(const fm_populate *p, size_t from, size_t to)
{
    (void)p, (void)from, (void)to;
    return true;
}

size_t fm_populate_pending(const fm_populate *p)
{
    (void)p;
    return 0;
}

bool fm_populate_is_done(const fm_populate *p)
{
    (void)p;
    return true;
}

void fm_populate_stop(fm_populate *p)
{
    (void)p;
}

#endif
