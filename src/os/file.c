/* Plain files: see file.h. No state; errors name the path that the caller gave. */
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

fm_status fm_file_map(const void **out, int fd, const char *path, size_t bytes, fm_error *err)
{
    *out = NULL;
    if (bytes == 0) return FM_OK;
    void *p = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) return fm_fail_errno(err, errno, "%s: mapping %zu bytes", path, bytes);
    *out = p;
    return FM_OK;
}

void fm_file_unmap(const void *map, size_t bytes)
{
    if (map) munmap((void *)(uintptr_t)map, bytes);
}

static int write_all(int fd, const char *data, size_t n)
{
    for (size_t done = 0; done < n;) {
        const ssize_t put = write(fd, data + done, n - done);
        if (put >= 0) {
            done += (size_t)put;
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return fsync(fd) == 0 ? 0 : errno;
}

fm_status fm_file_write(const char *path, const void *data, size_t n, fm_error *err)
{
    const size_t cap = strlen(path) + sizeof ".XXXXXX";
    char *temp = malloc(cap);
    if (!temp) return fm_fail(err, FM_E_NOMEM, "%s: no memory to write it", path);
    snprintf(temp, cap, "%s.XXXXXX", path);
    const int fd = mkstemp(temp);
    int e = fd < 0 ? errno : 0;
    if (fd >= 0) {
        e = write_all(fd, data, n);
        if (fchmod(fd, 0644) != 0 && e == 0) e = errno;
        if (close(fd) != 0 && e == 0) e = errno;
        if (e == 0 && rename(temp, path) != 0) e = errno;
        if (e != 0) unlink(temp);
    }
    free(temp);
    return e == 0 ? FM_OK : fm_fail_errno(err, e, "%s: writing %zu bytes", path, n);
}
