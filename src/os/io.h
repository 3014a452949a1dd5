/* Asynchronous reads of whole extents into aligned buffers.
 *
 * A read asks for bytes [offset, offset + bytes) of an opened file. With direct I/O the engine
 * rounds the range out to the alignment on both sides, so the buffer must have room:
 * fm_io_room(bytes) bytes from a base aligned to FM_IO_ALIGN; the data then starts at
 * base + offset % FM_IO_ALIGN (in every engine, so that buffers look the same). Large reads
 * may be split inside the engine; one completion is reported per request.
 *
 * One thread submits and waits; the engine's own threads (pread, mmap) are internal.
 */
#pragma once

#include "base/error.h"
#include "os/file.h"

enum { FM_IO_ALIGN = 4096, FM_IO_DEFAULT_DEPTH = 8, FM_IO_DEFAULT_SPLIT = 1 << 20 };

typedef struct fm_io fm_io;
typedef struct fm_io_file fm_io_file; /* one opened file of an engine */

typedef struct {
    const fm_io_file *file;
    uint64_t offset; /* any alignment */
    uint64_t bytes;
    void *base;   /* FM_IO_ALIGN-aligned, fm_io_room(bytes) bytes */
    uint64_t tag; /* comes back with the completion               */
    int priority; /* 0 first; 1, 2: only when nothing above waits */
} fm_io_read;

enum { FM_IO_PRIORITIES = 3 };

typedef struct {
    uint64_t tag;
    fm_status status; /* FM_OK, or why the read failed */
    fm_error error;   /* filled when status != FM_OK: file, offset, bytes, errno             */
} fm_io_done;

typedef struct {
    const char *engine;   /* "uring", "pread", "mmap" (from Linux 5.14); NULL: uring, else pread
                             with a log line */
    int depth;            /* device requests in flight; 0: default                        */
    uint64_t split_bytes; /* larger reads are cut into pieces of this size; 0: default   */
    int capacity;         /* requests outstanding at most; 0: 1024                       */
    fm_log_fn log;
    void *log_user;
} fm_io_options;

fm_status fm_io_create(fm_io **out, const fm_io_options *opt, fm_error *err);
void fm_io_destroy(fm_io *io); /* waits for what is in flight */
const char *fm_io_name(const fm_io *io);
int fm_io_depth(const fm_io *io);
uint64_t fm_io_split(const fm_io *io); /* bytes of a piece */

/* Opens read-only, direct where the file system has it (else buffered, with a log line). `was` is
 * what the checkpoint saw: a file that is another one by now is refused, one that shrinks later
 * is noticed by the read that falls short. The handle lives as long as the engine. */
fm_status fm_io_open(fm_io *io, const fm_io_file **out, const char *path, fm_file_mark was,
                     fm_error *err);

static inline uint64_t fm_io_room(uint64_t bytes)
{
    return (bytes + 2 * FM_IO_ALIGN - 1) & ~(uint64_t)(FM_IO_ALIGN - 1);
}

/* Queues reads; more than the depth is fine. They go to the device, by priority and then in order, with
 * fm_io_start() or fm_io_reap(), all that may in one system call; that call takes tens of microseconds, so a thread
 * that has others waiting for it chooses its moment. What waits moves on when completions are reaped, so a
 * thread that computes for long calls fm_io_reap() now and then. Does not allocate. All or none:
 * FM_E_LIMIT when more than fm_io_capacity() would be outstanding. */
fm_status fm_io_submit(fm_io *io, const fm_io_read *reads, int n, fm_error *err);
void fm_io_start(fm_io *io);
int fm_io_capacity(const fm_io *io);
int fm_io_outstanding(const fm_io *io);

/* Takes up to `max` completions; blocks until at least one when `wait` and something is
 * outstanding. Returns the count. Short reads are continued inside, and errors that may pass are tried again
 * for a second, at growing distances (retry.h); a read that still fails or stays short completes with an error. */
int fm_io_reap(fm_io *io, fm_io_done *done, int max, bool wait);

/* Reads of this priority go no further than what is with the device; they complete, with
 * FM_E_CANCELLED unless all of their bytes were under way already. */
void fm_io_drop_waiting(fm_io *io, int priority);

/* Time in which the device had reads, as this end saw it: to the reaping of the last one. */
uint64_t fm_io_busy_us(const fm_io *io);
uint64_t fm_io_bytes_read(const fm_io *io); /* device bytes completed so far, rounded reads */
