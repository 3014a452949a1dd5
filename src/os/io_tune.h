/* How to read a disk: reads in flight and the size of a piece, measured once per disk with the files that
 * are going to be read and kept in the user's cache directory. Decides speed, never content.
 */
#pragma once

#include "base/error.h"
#include "os/io.h"
#include "os/probe.h"

enum { FM_IO_TUNE_ROUNDS = 4 };

typedef enum { FM_IO_BY_DEFAULT, FM_IO_MEASURED, FM_IO_REMEMBERED } fm_io_origin;

typedef struct {
    int depth;
    uint64_t split_bytes;
    double gb_s; /* 1e9 bytes per second when it was measured; 0: it was not */
    fm_io_origin origin;
} fm_io_choice;

typedef struct {
    const char *const *path; /* as in fm_disk_probe */
    const uint64_t *file_bytes;
    int32_t n_file;
    const char *io_engine;
    uint64_t read_bytes;   /* the read that matters: a part of an expert */
    uint64_t buffer_bytes; /* memory that may be used meanwhile; a multiple of FM_IO_ALIGN */
    uint64_t max_us;       /* 0: do not measure, only remember           */
    fm_probe_go_fn go;
    void *go_user;
    fm_log_fn
        log; /* says what is measured, and what was wrong with a file of the cache directory */
    void *log_user;
} fm_io_tune;

/* What was measured before for this file system, engine and size of read; else measures, at most about
 * max_us, and remembers. Defaults when nothing may or can be measured: with too little memory, without a
 * cache directory (it would be measured at every start), or when a read fails, which is left to who needs
 * the data; the log says so. Only FM_E_CANCELLED is an error. */
fm_status fm_io_choose(fm_io_choice *out, const fm_io_tune *t, fm_error *err);

/* ---- the decision, for its test ----------------------------------------------------------- */

typedef struct {
    int depth;
    uint64_t split_bytes;
    double rate[FM_IO_TUNE_ROUNDS]; /* 1e9 bytes per second; 0: not measured in this round */
} fm_io_candidate;

/* Index of the candidate to use. Candidate 0 is what is used now: another one must have been faster in every
 * round that both were in, and by a tenth in the middle of them (a disk's rate wanders, so only rounds are
 * compared); of those nearly as fast as the fastest the one with the least under way, which keeps a first read
 * from waiting. */
int fm_io_tune_pick(const fm_io_candidate *c, int n);
