/* Fork-join thread pool for the arithmetic.
 *
 * fm_pool_run() hands out item numbers 0..n-1 to the calling thread and the workers; it returns
 * when all are done. Each thread begins with neighbouring items of its own (fm_pool_first()) and then
 * helps the others; which thread computes which item is not fixed, so an item's result must not depend on
 * it. Workers stay awake for a while after a run, because the next one follows at once while a token is
 * computed (base/spin.h), then sleep in the kernel.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct fm_pool fm_pool;

/* item in [0, n_items); thread in [0, fm_pool_size()). */
typedef void (*fm_pool_fn)(void *ctx, int64_t item, int thread);

enum {
    FM_POOL_THREADS_MAX = 1024,
    FM_POOL_STACK_USED = 384 << 10, /* of a thread's stack, at most; 366 KiB were measured (tests/model/test_stack.c) */
};
/* How many threads who asked for so many gets; 0: one for each of n_cpu processors, as far as that goes. */
static inline int fm_pool_threads(int asked, int n_cpu)
{
    return asked != 0 ? asked : n_cpu < FM_POOL_THREADS_MAX ? n_cpu : FM_POOL_THREADS_MAX;
}

/* n_threads, up to FM_POOL_THREADS_MAX, includes the caller; 1 makes no thread at all. */
fm_status fm_pool_create(fm_pool **out, int n_threads, fm_error *err);
void fm_pool_destroy(fm_pool *pool);
int fm_pool_size(const fm_pool *pool);

/* At most n_cpu threads (with the caller) are kept awake; the others of a larger pool stay asleep.
 * The default is the machine's processors; a program that knows its affinity or quota says so. Workers of a pool
 * above the limit never stay awake for long. */
void fm_pool_limit(fm_pool *pool, int n_cpu);

/* One run at a time, from one thread; at most INT32_MAX items. Does not allocate. A run started inside an item of the same
 * pool computes in place, on the thread of that item. */
void fm_pool_run(fm_pool *pool, fm_pool_fn fn, void *ctx, int64_t n_items);

/* The item that `thread` begins with in a run of n_items; it is the first of the next thread where this one gets none. */
int64_t fm_pool_first(const fm_pool *pool, int64_t n_items, int thread);

/* What `thread` will read first in a later run: while it waits for others or for that run, it asks for these bytes, so that
 * they come into its cache. A hint, called between runs; the memory may be gone by then. The last one counts; 0 bytes: none. */
void fm_pool_expect(fm_pool *pool, int thread, const void *at, size_t bytes);

/* Time that callers of fm_pool_run() had no item left and waited for the other threads' last ones. */
uint64_t fm_pool_wait_us(const fm_pool *pool);
