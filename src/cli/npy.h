/* Writes a float32 array of two dimensions as .npy (format 1.0), row by row.
 *
 * A regular file is written under a temporary name next to its own and renamed when it is complete;
 * a device or a pipe is written to directly. */
#pragma once

#include <stdio.h>

#include "base/error.h"

typedef struct {
    FILE *file;
    char *path, *temp_path; /* owned; temp_path NULL: written directly */
    uint64_t n_row, n_col, n_written;
} fm_npy;

fm_status fm_npy_create(fm_npy *a, const char *path, uint64_t n_row, uint64_t n_col, fm_error *err);
fm_status fm_npy_write_row(fm_npy *a, const float *row, fm_error *err); /* [n_col] */
/* All rows must have been written. After a failure the temporary file is gone. */
fm_status fm_npy_commit(fm_npy *a, fm_error *err);
/* Removes what is unfinished; safe after commit and on a zeroed struct. */
void fm_npy_destroy(fm_npy *a);
