/* Memory touched ahead of its first use.
 *
 * The first write to a page makes the kernel find and clear it, and under a virtual machine the host as
 * well: at 0.5 to 2 GB/s that is as slow as a disk. Reads that land in untouched memory pay it in the
 * thread that submits them. A thread of its own pays it here, a fixed distance ahead of the use, so
 * memory that is never needed is never taken from the machine.
 */
#pragma once

#include "base/error.h"

typedef struct fm_populate fm_populate;

/* Touches [base, base + bytes), `ahead` bytes before what fm_populate_need() asked for. base is aligned to
 * a page and stays mapped until fm_populate_stop(). NULL where the system has no way to do it, or no
 * thread could be started: the memory is then touched by its first use. */
fm_populate *fm_populate_start(void *base, size_t bytes, size_t ahead);
/* The first `bytes` bytes are about to be used; never waits. One thread calls. */
void fm_populate_need(fm_populate *p, size_t bytes);
void fm_populate_stop(fm_populate *p); /* NULL is fine; a call under way is waited for */
