/* Probes of the machine: how fast memory streams and how fast the disk answers, measured in the way
 * that the engine uses them. For `flashmoe bench` and for io_tune.c; one thread calls, others are internal.
 */
#pragma once

#include "base/error.h"
#include "base/pool.h"

/* Asked every few milliseconds; false stops the probe with FM_E_CANCELLED. NULL: never. */
typedef bool (*fm_probe_go_fn)(void *user);

/* Bytes of which the processors' caches hold little at a time: eight times the last-level caches, at least 512 MiB. */
uint64_t fm_probe_uncached_bytes(void);

/* ---- memory ------------------------------------------------------------------------------ */

typedef struct {
    uint64_t bytes; /* of the buffer that is read; far more than the caches hold          */
    int n_threads;  /* as many as the engine computes with                                */
    int passes;     /* the best one counts: everything that disturbs only makes it slower */
    fm_probe_go_fn go;
    void *go_user;
} fm_memory_probe;

/* Streams `bytes` through the threads and gives the best pass in 1e9 bytes per second; in turn passes ask for memory ahead
 * twice and once, as kernels do, or leave that to the processor. The buffer is
 * written first, so that its pages exist, and is gone when the call returns. FM_E_NOMEM. */
fm_status fm_probe_memory(double *gb_s, const fm_memory_probe *probe, fm_error *err);

/* Reads memory that holds something already, for instance weights: the best of `passes` in 1e9 bytes per
 * second, by the threads of `pool`, in turn as above. base is aligned to 8. 0: less than 1 MiB, or no memory for the
 * sums. Where memory lies in the machine can matter by a factor of two; this measures the very place. */
double fm_probe_stream(fm_pool *pool, const void *base, uint64_t bytes, int passes);

/* ---- disk -------------------------------------------------------------------------------- */

typedef struct {
    const char *const *path; /* the files that the reads spread over, by size             */
    const uint64_t *file_bytes;
    int32_t n_file;
    const char *io_engine; /* as in fm_io_options                                        */
    int depth;             /* 0: default                                                 */
    uint64_t split_bytes;  /* larger requests are cut; 0: default                        */
    uint64_t read_bytes;   /* of one request; rounded up to the alignment                */
    uint64_t buffer_bytes; /* memory that may be used; fewer requests wait when it is small */
    void *buffer;          /* that memory, FM_IO_ALIGN-aligned; NULL: allocated for the call */
    uint64_t max_us;
    uint64_t max_requests; /* 0: no limit */
    uint64_t first;        /* requests that earlier calls made; their places are not read again */
    fm_probe_go_fn go;
    void *go_user;
} fm_disk_probe;

typedef struct {
    uint64_t requests, bytes, us;
    double gb_s;         /* 1e9 bytes per second; 0 when nothing was left to read */
    uint64_t read_bytes; /* of one request, as it was made                       */
} fm_disk_probe_result;

/* Reads places of the files in a scattered order, none twice, through the same I/O engine as the
 * weights, until the time is over or every place was read. */
fm_status fm_probe_disk(fm_disk_probe_result *out, const fm_disk_probe *probe, fm_error *err);

/* Takes what the page cache holds of a file out of it, where the system listens to that. Pages that
 * somebody has mapped stay. */
fm_status fm_probe_drop_cache(const char *path, fm_error *err);
