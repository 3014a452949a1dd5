/* Plain files: see file.h. No state; errors name the path that the caller gave. */
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

fm_status fm_file_open(int *fd, uint64_t *bytes, const char *path, fm_error *err)
{
    *fd = -1;
    /* A pipe would block the open; O_NONBLOCK has no effect on regular files. */
    const int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f < 0) return fm_fail_errno(err, errno, "%s", path);
    struct stat st;
    if (fstat(f, &st) != 0) {
        const int e = errno;
        close(f);
        return fm_fail_errno(err, e, "%s", path);
    }
    if (!S_ISREG(st.st_mode)) {
        close(f);
        return fm_fail(err, FM_E_ARG, "%s: %s, expected a file", path,
                       S_ISDIR(st.st_mode) ? "is a directory" : "is not a regular file");
    }
    if (bytes) *bytes = (uint64_t)st.st_size;
    *fd = f;
    return FM_OK;
}

void fm_file_close(int fd)
{
    if (fd >= 0) close(fd);
}

fm_status fm_file_read_at(int fd, const char *path, void *dst, size_t n, uint64_t off,
                          fm_error *err)
{
    if (off > INT64_MAX || n > (uint64_t)INT64_MAX - off) {
        return fm_fail(err, FM_E_ARG, "%s: reading %zu bytes at %" PRIu64 " is out of range", path,
                       n, off);
    }
    for (size_t done = 0; done < n;) {
        const size_t want = n - done < SSIZE_MAX ? n - done : SSIZE_MAX;
        const ssize_t got = pread(fd, (char *)dst + done, want, (off_t)(off + done));
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0) {
            return fm_fail(err, FM_E_FORMAT,
                           "%s: ends at byte %" PRIu64 ", but bytes up to %" PRIu64
                           " are needed (download incomplete?)",
                           path, off + done, off + n);
        } else if (errno != EINTR) {
            return fm_fail_errno(err, errno, "%s: reading %zu bytes at %" PRIu64, path, n, off);
        }
    }
    return FM_OK;
}
