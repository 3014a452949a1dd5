/* Memory touched ahead of its first use.
 *
 * The first write to a page makes the kernel find and clear it, and under a
 * virtual machine the host as well: at 0.3 to 2 GB/s and processor that is as
 * slow as a disk. Reads that land in untouched memory pay it in the thread that
 * submits them. Threads of its own pay it here, as far as was asked for and a fixed
 * distance further, so memory that is never wanted is never taken from the machine.
 */
#pragma once

#include "base/error.h"

typedef struct fm_populate fm_populate;

typedef struct {
    void *base; /* aligned to a page, stays mapped until fm_populate_stop() */
    size_t bytes;
    size_t ahead;  /* touched this far before what fm_populate_need() asked for */
    int n_threads; /* 0: 1 */
    /* Not 0: instead of n_threads one thread in time that nobody else of the process's scheduling group wants
     * (SCHED_IDLE), and beside it one for this share of a processor's time, so that it goes on
     * where there is no such time. */
    double least_share;
    /* Begins when this one has touched all of its memory, so that what is needed
     * first is touched first; must be stopped later. NULL: at once. */
    fm_populate *after;
} fm_populate_options;

/* NULL where the system has no way to do it, or no thread could be started: the
 * memory is then touched by its first use. */
fm_populate *fm_populate_start(const fm_populate_options *opt);
/* The first `bytes` bytes are wanted, now or when there is time; never waits. One thread calls, again and
 * again: where a wake-up would have to wait it is left to the next call, or comes within a second. */
void fm_populate_need(fm_populate *p, size_t bytes);
/* Bytes [from, to), to <= bytes, were touched, or nothing will be any more. NULL: true. Any thread. */
bool fm_populate_has(const fm_populate *p, size_t from, size_t to);
/* Bytes that were asked for, with those ahead, and are still to be touched. NULL: 0. Any thread. */
size_t fm_populate_pending(const fm_populate *p);
/* All of it was touched, or cannot be. NULL: true. Any thread. */
bool fm_populate_is_done(const fm_populate *p);
void fm_populate_stop(fm_populate *p); /* NULL is fine; a call under way is waited for */
