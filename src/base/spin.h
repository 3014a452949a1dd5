/* How long a thread stays awake while it waits for another thread or for the disk.
 *
 * To sleep and be woken costs a thread tens of microseconds, in a virtual machine or a deep idle state more than a hundred,
 * and the processor comes back slowly. While tokens are generated from a fast disk, threads wait for about a
 * millisecond some hundred times per token: there being awake pays. Where waits are long it only burns power, so
 * what earlier waits were like decides. Who has more threads than processors takes the short time (base/pool.c). A wait that is not over after a few microseconds offers the processor to
 * others (sched_yield) between looks.
 */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

enum {
    FM_SPIN_SHORT_NS = 80 * 1000,      /* longer than the gaps between runs of the pool inside a token */
    FM_SPIN_LONG_NS = 2 * 1000 * 1000, /* where most waits, as for the read of an expert, end by then  */
    FM_SPIN_ALONE_NS = 10 * 1000,      /* spun without a system call                                   */
    FM_SPIN_CREDIT = 8,                /* the last 9 waits of one kind outweigh all before them        */
};

/* What a thread knows of its waits; zeroed at first. */
typedef struct {
    int credit; /* of waits above SHORT, those up to LONG less the others; from -CREDIT to CREDIT */
} fm_spin;

/* Nanoseconds to stay awake in the next wait. */
static inline int64_t fm_spin_limit_ns(const fm_spin *s)
{
    return s->credit > 0 ? FM_SPIN_LONG_NS : FM_SPIN_SHORT_NS;
}

/* A wait lasted this long, asleep or awake. */
static inline void fm_spin_learn(fm_spin *s, int64_t waited_ns)
{
    if (waited_ns <= FM_SPIN_SHORT_NS) return;
    if (waited_ns <= FM_SPIN_LONG_NS) {
        if (s->credit < FM_SPIN_CREDIT) s->credit++;
    } else if (s->credit > -FM_SPIN_CREDIT) {
        s->credit--;
    }
}

static inline void fm_cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb");
#endif
}

/* One round of a wait that began at start_ns; false when it has lasted for limit_ns. */
static inline bool fm_spin_on(int64_t start_ns, int64_t limit_ns)
{
    const int64_t waited_ns = fm_now_ns() - start_ns;
    if (waited_ns > limit_ns) return false;
    if (waited_ns > FM_SPIN_ALONE_NS) sched_yield();
    return true;
}
