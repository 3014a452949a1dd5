/* Plain files: open and exact reads. Any thread. For the streams of
 * weights see io.h. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Opens a regular file for reading; *bytes (may be NULL) is its size. The descriptor belongs to the
 * caller, who closes it with fm_file_close(). *fd is -1 on failure. */
fm_status fm_file_open(int *fd, uint64_t *bytes, const char *path, fm_error *err);
void fm_file_close(int fd); /* negative: does nothing */

/* Reads exactly n bytes at offset off into dst, or fails: FM_E_FORMAT when the file ends before,
 * FM_E_IO when the system refuses. `path` is for the message. */
fm_status fm_file_read_at(int fd, const char *path, void *dst, size_t n, uint64_t off,
                          fm_error *err);
