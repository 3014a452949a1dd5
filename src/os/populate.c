/* Memory touched ahead of its first use: see populate.h. */
#define _GNU_SOURCE /* MADV_POPULATE_WRITE, SCHED_IDLE */
#include "os/populate.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#ifdef MADV_POPULATE_WRITE

enum {
    CHUNK = 2 << 20, /* short calls: stopping waits for one at most */
    WAKE = 8 << 20,  /* a goal that is nearer to the last one is not worth waking a thread */
    THREADS_MAX = 8,
    LOOK_NS = 2 * 1000 * 1000, /* how often one looks whether the one before it is done */
    SECOND_NS = 1000 * 1000 * 1000,
};

struct fm_populate {
    fm_populate_options o;
    pthread_t thread[THREADS_MAX];
    int n_thread;
    pthread_mutex_t mu;
    pthread_cond_t moved; /* by the monotonic clock */
    size_t goal;          /* under mu: touch up to here */
    size_t next;          /* under mu: not taken by a thread yet */
    int n_entered;        /* under mu: threads that have begun */
    int n_touching;       /* under mu */
    bool stop;            /* under mu */
    _Atomic bool is_done;
    _Atomic bool *touched; /* [chunks] */
    size_t asked;          /* the caller's copy of the goal */
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND_NS + t.tv_nsec;
}

/* The lock is held. Returns early when something moves. */
static void wait_until(fm_populate *p, int64_t ns)
{
    const struct timespec until = {.tv_sec = (time_t)(ns / SECOND_NS),
                                   .tv_nsec = (long)(ns % SECOND_NS)};
    pthread_cond_timedwait(&p->moved, &p->mu, &until);
}

/* The lock is held, but not while memory is touched. */
static void touch_chunk(fm_populate *p)
{
    const size_t at = p->next;
    const size_t n = p->o.bytes - at < CHUNK ? p->o.bytes - at : CHUNK;
    p->next += n;
    p->n_touching++;
    pthread_mutex_unlock(&p->mu);
    int rc;
    do {
        rc = madvise((uint8_t *)p->o.base + at, n, MADV_POPULATE_WRITE);
    } while (rc != 0 && errno == EINTR);
    if (rc == 0) atomic_store(&p->touched[at / CHUNK], true);
    pthread_mutex_lock(&p->mu);
    p->n_touching--;
    if (rc != 0) p->next = p->o.bytes; /* an older kernel, or no memory now: left to first use */
}

static void *populate_main(void *arg)
{
    fm_populate *p = arg;
    pthread_mutex_lock(&p->mu);
    /* In the background the first one works when nobody else would, the second one rests between its chunks. */
    const bool is_background = p->o.least_share > 0;
    const bool rests = is_background && p->n_entered++ > 0;
    const double rest = rests ? 1 / p->o.least_share - 1 : 0;
    if (is_background && !rests) {
        const struct sched_param none = {0};
        (void)sched_setscheduler(0, SCHED_IDLE, &none); /* of this thread; nothing forbids it */
    }
    while (!p->stop && !fm_populate_is_done(p->o.after)) wait_until(p, now_ns() + LOOK_NS);
    int64_t resume = 0;
    while (!p->stop && p->next < p->o.bytes) {
        if (p->next >= p->goal) {
            pthread_cond_wait(&p->moved, &p->mu);
            continue;
        }
        const int64_t start = now_ns();
        if (start < resume) {
            wait_until(p, resume);
            continue;
        }
        touch_chunk(p);
        const int64_t end = now_ns();
        resume = end + (int64_t)(rest * (double)(end - start));
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
    p->goal = p->asked = opt->ahead;
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
    p->asked = goal;
    pthread_mutex_lock(&p->mu);
    p->goal = goal;
    pthread_cond_broadcast(&p->moved);
    pthread_mutex_unlock(&p->mu);
}

bool fm_populate_has(const fm_populate *p, size_t from, size_t to)
{
    if (fm_populate_is_done(p)) return true;
    for (size_t at = from / CHUNK; at * CHUNK < to; at++)
        if (!atomic_load(&p->touched[at])) return false;
    return true;
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
