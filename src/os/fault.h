/* Fault injection for test builds (FM_FAULTS): reads that fail on purpose.
 *
 * A spec is a list of rules separated by commas, each "what:kind[:option...]":
 *
 *   read:eio:nth=12          the 12th device read (from 1) fails once with EIO; a retry works
 *   read:eio:nth=12:times=5  that place of that file fails 5 times in all
 *   read:eio:nth=12:sticky   that place of that file fails from then on, like a bad sector
 *   read:eio-forever         every read fails
 *   read:einval:nth=1        as above with another error: the names are in fault.c
 *   read:short:nth=5         the 5th read delivers half of its bytes
 *   read:short:every=3       every third read does
 *   read:eof:nth=7:sticky    the file ends where the 7th read begins
 *   read:slow:us=2000        every read completes this much later
 *   alloc:nth=3              the third guarded allocation fails
 *   write:enospc:nth=9       the 9th write of fm_file_write_at() fails, and all after it (times=1: it alone)
 *   sync:eio:nth=2           the 2nd fm_file_sync() fails, and the next one works, as Linux has it
 *   file:eio:nth=2:times=3   the 2nd to 4th read of fm_file_read_at() fail
 *   ring:eagain:nth=5        the 5th system call on an I/O ring fails, and all after it
 *   retry:us=0               what keeps failing is tried again twice, not for a second
 *
 * Upper case is accepted. The environment variable FM_FAULT holds a spec for whole programs; it is
 * read with the first I/O engine of the process, or the first of the calls that are counted apart. Release builds have
 * none of this.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* System calls that are counted apart. */
typedef enum {
    FM_FAULT_WRITE,
    FM_FAULT_SYNC,
    FM_FAULT_FILE,
    FM_FAULT_RING,
    FM_FAULT_KINDS
} fm_fault_kind;

#ifdef FM_FAULTS

/* Replaces all rules and restarts the counting; NULL or "" clears. False: spec not understood, no
 * rule is active. Any thread. */
bool fm_fault_set(const char *spec);
void fm_fault_from_env(void); /* once per process */

/* What a device read of [offset, offset + bytes) of `file` (any stable pointer) that ended with
 * `result` (bytes or -errno) pretends to have ended with. Bytes that were "not delivered" are
 * overwritten in buf. */
int64_t fm_fault_read(const void *file, uint64_t offset, void *buf, int64_t result);
bool fm_fault_alloc(void); /* true: this allocation fails */
/* The errno with which this call fails, or 0. */
int fm_fault_call(fm_fault_kind call);
uint64_t fm_fault_retry_us(uint64_t us); /* us, or what a rule says instead */
uint64_t fm_fault_reads(void); /* device reads seen since fm_fault_set() */

#else

static inline int64_t fm_fault_read(const void *file, uint64_t offset, void *buf, int64_t result)
{
    (void)file;
    (void)offset;
    (void)buf;
    return result;
}
static inline bool fm_fault_alloc(void)
{
    return false;
}
static inline int fm_fault_call(fm_fault_kind call)
{
    (void)call;
    return 0;
}
static inline uint64_t fm_fault_retry_us(uint64_t us)
{
    return us;
}

#endif
