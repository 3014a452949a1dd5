/* Plain files: open and exact reads. Any thread. For the streams of
 * weights see io.h. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Opens a regular file for reading; *bytes (may be NULL) is its size. The descriptor belongs to the
 * caller, who closes it with fm_file_close(). *fd is -1 on failure. */
fm_status fm_file_open(int *fd, uint64_t *bytes, const char *path, fm_error *err);
void fm_file_close(int fd); /* negative: does nothing */

/* Reads exactly n bytes at offset off into dst, or fails: FM_E_FORMAT when the file ends before,
 * FM_E_IO when the system refuses, for a second where that may pass (retry.h). `path` is for the message. */
fm_status fm_file_read_at(int fd, const char *path, void *dst, size_t n, uint64_t off,
                          fm_error *err);

/* What a file was when it was first looked at. No inode: file systems in user space may give another one whenever a
 * file is opened. */
typedef struct {
    uint64_t bytes;
    int64_t mtime_ns; /* 0: any */
} fm_file_mark;
fm_status fm_file_mark_of(fm_file_mark *out, int fd, const char *path, fm_error *err);
/* FM_E_FORMAT where the opened file is not the one of the mark any more: written to, or another one has its name. */
fm_status fm_file_check_mark(int fd, const char *path, fm_file_mark was, fm_error *err);

/* Opens (creates, keeps what is there) a file for reading and writing. */
fm_status fm_file_open_rw(int *fd, const char *path, fm_error *err);
fm_status fm_file_write_at(int fd, const char *path, const void *src, size_t n, uint64_t off,
                           fm_error *err);
/* Until what was written, and the file's size, is on the device. After a failure the next call may succeed without that:
 * Linux reports an error once and takes the pages for written. */
fm_status fm_file_sync(int fd, const char *path, fm_error *err);
/* The same for the names in the folder that holds `path`. */
fm_status fm_file_sync_folder(const char *path, fm_error *err);
/* Gives a file another name; *is_taken when a file has that name already, which stays as it is. File systems that cannot do
 * both at once leave a moment in which a file that appears is overwritten. */
fm_status fm_file_rename_new(const char *from, const char *to, bool *is_taken, fm_error *err);
/* Lets go of the system's cached copy, so that the next reads come from the device. What is not on the device stays. */
void fm_file_forget_cached(int fd);
/* False when another process has locked the file; until it is closed. */
bool fm_file_lock(int fd);

typedef struct {
    uint64_t bytes, allocated_bytes; /* a file with holes has less on the disk than its size */
    int64_t mtime_ns;
} fm_file_facts;
bool fm_file_facts_of(fm_file_facts *out, const char *path); /* false: errno says why not */
/* Free bytes on the file system that holds the folder of `path`; UINT64_MAX unknown. */
uint64_t fm_file_free_bytes(const char *path);
