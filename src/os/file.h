/* Plain files: open, exact reads, read-only maps, whole-file writes. Any thread. For the streams of
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

/* Maps the first `bytes` bytes read-only. *out is NULL when bytes is 0 or on failure. The file must
 * not shrink while it is mapped. */
fm_status fm_file_map(const void **out, int fd, const char *path, size_t bytes, fm_error *err);
void fm_file_unmap(const void *map, size_t bytes); /* NULL: does nothing */

/* Replaces the file at `path` by n bytes: written to a temporary name beside it, synced, renamed; so
 * that a reader sees the old content or the new one, never a part. */
fm_status fm_file_write(const char *path, const void *data, size_t n, fm_error *err);
