/* Reads that fail and may work a moment later: which errors these are, and for how long they are tried. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "os/fault.h"

enum { FM_RETRY_FIRST_US = 1000, FM_RETRY_FOR_US = 1000 * 1000, FM_RETRY_LEAST = 2 };

/* One read's failures in a row; zeroed at first and whenever it gets on. */
typedef struct {
    uint64_t since_us; /* the first one */
    uint32_t wait_us;  /* the last wait */
    uint32_t n;        /* failures */
} fm_retry;

/* Direct reads report the block layer's own codes: ENODATA a medium error, which the drive may still correct or
 * remap, ENOLINK a lost path, EREMOTEIO the target. ENOMEM, EBUSY and EAGAIN: short of something for now. */
static inline bool fm_may_pass(int os_errno)
{
    switch (os_errno) {
    case EAGAIN:
    case EIO:
    case ENOMEM:
    case EBUSY:
    case ENODATA:
    case ETIMEDOUT:
    case ENOLINK:
#ifdef EREMOTEIO
    case EREMOTEIO:
#endif
        return true;
    default: return false;
    }
}

/* After a failure: whether to try again, and in how many microseconds. A call that a signal broke off says nothing of the
 * device and does not count, however long the process stood still meanwhile. A device that takes long to say no is asked
 * three times, one that says so at once a dozen times within a second. */
static inline bool fm_retry_after(fm_retry *r, int os_errno, uint32_t *in_us)
{
    *in_us = 0;
    if (os_errno == EINTR) return true;
    if (!fm_may_pass(os_errno)) return false;
    const uint64_t now = fm_now_us();
    if (r->n == 0) r->since_us = now;
    if (r->n++ >= FM_RETRY_LEAST && now - r->since_us >= fm_fault_retry_us(FM_RETRY_FOR_US))
        return false;
    r->wait_us = r->wait_us ? 2 * r->wait_us : FM_RETRY_FIRST_US;
    *in_us = r->wait_us;
    return true;
}

static inline void fm_sleep_us(uint64_t us)
{
    const struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    nanosleep(&t, NULL);
}
