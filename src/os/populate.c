/* Memory touched ahead of its first use: see populate.h. */
#define _GNU_SOURCE /* MADV_POPULATE_WRITE */
#include "os/populate.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef MADV_POPULATE_WRITE

enum { CHUNK = 8 << 20 }; /* short calls: stopping waits for one at most */

struct fm_populate {
    uint8_t *base;
    size_t bytes, ahead;
    pthread_t thread;
    pthread_mutex_t mu;
    pthread_cond_t moved;
    size_t goal; /* under mu: touch up to here */
    bool stop;   /* under mu */
    size_t asked; /* the caller's copy of the goal */
};

static void *populate_main(void *arg)
{
    fm_populate *p = arg;
    size_t done = 0;
    pthread_mutex_lock(&p->mu);
    while (!p->stop && done < p->bytes) {
        if (done >= p->goal) {
            pthread_cond_wait(&p->moved, &p->mu);
            continue;
        }
        pthread_mutex_unlock(&p->mu);
        const size_t n = p->bytes - done < CHUNK ? p->bytes - done : CHUNK;
        const int rc = madvise(p->base + done, n, MADV_POPULATE_WRITE);
        if (rc != 0 && errno != EINTR && errno != EAGAIN) return NULL; /* an older kernel */
        if (rc == 0) done += n;
        pthread_mutex_lock(&p->mu);
    }
    pthread_mutex_unlock(&p->mu);
    return NULL;
}

fm_populate *fm_populate_start(void *base, size_t bytes, size_t ahead)
{
    fm_populate *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    *p = (fm_populate){.base = base, .bytes = bytes, .ahead = ahead, .goal = ahead, .asked = ahead};
    pthread_mutex_init(&p->mu, NULL);
    pthread_cond_init(&p->moved, NULL);
    sigset_t all, old; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int rc = pthread_create(&p->thread, NULL, populate_main, p);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0) return p;
    pthread_cond_destroy(&p->moved);
    pthread_mutex_destroy(&p->mu);
    free(p);
    return NULL;
}

void fm_populate_need(fm_populate *p, size_t bytes)
{
    if (!p || bytes > p->bytes) return;
    const size_t goal = p->bytes - bytes < p->ahead ? p->bytes : bytes + p->ahead;
    if (goal < p->asked + CHUNK && goal != p->bytes) return; /* not worth a wake-up yet */
    if (goal <= p->asked) return;
    p->asked = goal;
    pthread_mutex_lock(&p->mu);
    p->goal = goal;
    pthread_cond_signal(&p->moved);
    pthread_mutex_unlock(&p->mu);
}

void fm_populate_stop(fm_populate *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->mu);
    p->stop = true;
    pthread_cond_signal(&p->moved);
    pthread_mutex_unlock(&p->mu);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->moved);
    pthread_mutex_destroy(&p->mu);
    free(p);
}

#else

fm_populate *fm_populate_start(void *base, size_t bytes, size_t ahead)
{
    (void)base, (void)bytes, (void)ahead;
    return NULL;
}

void fm_populate_need(fm_populate *p, size_t bytes)
{
    (void)p, (void)bytes;
}

void fm_populate_stop(fm_populate *p)
{
    (void)p;
}

#endif
