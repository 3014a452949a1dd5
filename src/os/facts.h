/* Facts about this machine and process. Files under /proc and /sys are read once per call. */
#pragma once

#include <stdint.h>

#include "base/error.h"

typedef struct {
    uint64_t total_bytes;     /* physical, or the cgroup's limit if that is lower         */
    uint64_t available_bytes; /* what this process may still take: min of MemAvailable and
                                 the room in every enclosing cgroup (v1 and v2)           */
} fm_mem_facts;
void fm_os_memory(fm_mem_facts *out);

int fm_os_cpu_count(void); /* processors this process may use (affinity and cgroup quota) */
uint64_t fm_os_last_cache(void); /* bytes of all last-level caches of these processors; 0: unknown */
uint64_t fm_os_peak_rss(void); /* VmHWM in bytes */
uint64_t fm_os_memlock_limit(void); /* bytes, UINT64_MAX unlimited */

/* Instruction sets that processor and system offer, and whose processor it is. Linux saves the tiles of AMX only for processes that asked, so this asks,
 * for the whole process; from then on it wants alternate signal stacks with room for 8 KiB more. */
enum {
    FM_CPU_AVX2 = 1,
    FM_CPU_AVX512VNNI = 2,
    FM_CPU_F16C = 4,
    FM_CPU_FMA = 8,
    FM_CPU_AMX_INT8 = 16,
    FM_CPU_DOTPROD = 32,     /* 64-bit ARM: sdot, udot     */
    FM_CPU_I8MM = 64,        /* 64-bit ARM: smmla, usdot     */
    FM_CPU_AMD = 128,        /* the maker                    */
    FM_CPU_AVX512VBMI = 256,
    FM_CPU_AVXVNNI = 512,    /* vpdpwssd without AVX-512      */
};
unsigned fm_os_cpu_features(void);

/* Locks pages; false when the limit forbids it (errno kept). */
bool fm_os_lock(void *p, uint64_t bytes);
