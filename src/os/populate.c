/* Memory touched ahead of its first use: see populate.h. */
#define _GNU_SOURCE /* MADV_POPULATE_WRITE */
#include "os/populate.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#ifdef MADV_POPULATE_WRITE

enum {
    CHUNK = 8 << 20, /* short calls: stopping waits for one at most */
    THREADS_MAX = 8,
    LOOK_NS = 2 * 1000 * 1000, /* how often one looks whether the one before it is done */
};

struct fm_populate {
    fm_populate_options o;
    pthread_t thread[THREADS_MAX];
    int n_thread;
    pthread_mutex_t mu;
    pthread_cond_t moved; /* by the monotonic clock */
    size_t goal;          /* under mu: touch up to here */
    size_t next;          /* under mu: not taken by a thread yet */
    int n_touching;       /* under mu */
    bool stop;            /* under mu */
    _Atomic bool is_done;
    size_t asked; /* the caller's copy of the goal */
};

/* The lock is held. */
static void wait_for_predecessor(fm_populate *p)
{
    while (!p->stop && !fm_populate_is_done(p->o.after)) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += LOOK_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&p->moved, &p->mu, &until);
    }
}

static void *populate_main(void *arg)
{
    fm_populate *p = arg;
    pthread_mutex_lock(&p->mu);
    wait_for_predecessor(p);
    while (!p->stop && p->next < p->o.bytes) {
        if (p->next >= p->goal) {
            pthread_cond_wait(&p->moved, &p->mu);
            continue;
        }
        const size_t at = p->next;
        const size_t n = p->o.bytes - at < CHUNK ? p->o.bytes - at : CHUNK;
        p->next += n;
        p->n_touching++;
        pthread_mutex_unlock(&p->mu);
        int rc;
        do {
            rc = madvise((uint8_t *)p->o.base + at, n, MADV_POPULATE_WRITE);
        } while (rc != 0 && errno == EINTR);
        pthread_mutex_lock(&p->mu);
        p->n_touching--;
        if (rc != 0)
            p->next = p->o.bytes; /* an older kernel, or no memory now: left to first use */
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
    if (!p) return NULL;
    p->o = *opt;
    p->goal = p->asked = opt->ahead;
    int n = opt->n_threads > 0 ? opt->n_threads : 1;
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
    if (goal < p->asked + CHUNK && goal != p->o.bytes) return; /* not worth a wake-up yet */
    if (goal <= p->asked) return;
    p->asked = goal;
    pthread_mutex_lock(&p->mu);
    p->goal = goal;
    pthread_cond_broadcast(&p->moved);
    pthread_mutex_unlock(&p->mu);
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
