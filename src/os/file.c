/* Plain files: see file.h. No state; errors name the path that the caller gave. */
#define _GNU_SOURCE /* renameat2 */
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "os/fault.h"
#include "os/retry.h"

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
    fm_retry retry = {0};
    for (size_t done = 0; done < n;) {
        const size_t want = n - done < SSIZE_MAX ? n - done : SSIZE_MAX;
        const int fault = fm_fault_call(FM_FAULT_FILE);
        const ssize_t got = fault ? -1 : pread(fd, (char *)dst + done, want, (off_t)(off + done));
        const int os_errno = fault ? fault : errno;
        uint32_t wait_us;
        if (got > 0) {
            done += (size_t)got;
            retry = (fm_retry){0};
        } else if (got == 0) {
            return fm_fail(err, FM_E_FORMAT,
                           "%s: ends at byte %" PRIu64 ", but bytes up to %" PRIu64
                           " are needed (download incomplete?)",
                           path, off + done, off + n);
        } else if (fm_retry_after(&retry, os_errno, &wait_us)) {
            fm_sleep_us(wait_us);
        } else {
            return fm_fail_errno(err, os_errno, "%s: reading %zu bytes at %" PRIu64, path, n, off);
        }
    }
    return FM_OK;
}

static int64_t mtime_ns(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

fm_status fm_file_mark_of(fm_file_mark *out, int fd, const char *path, fm_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return fm_fail_errno(err, errno, "%s", path);
    *out = (fm_file_mark){(uint64_t)st.st_size, mtime_ns(&st)};
    return FM_OK;
}

fm_status fm_file_check_mark(int fd, const char *path, fm_file_mark was, fm_error *err)
{
    fm_file_mark is;
    FM_TRY(fm_file_mark_of(&is, fd, path, err));
    if (is.bytes != was.bytes)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: changed since it was first looked at: it had %" PRIu64
                       " bytes and now has %" PRIu64,
                       path, was.bytes, is.bytes);
    if (was.mtime_ns != 0 && is.mtime_ns != was.mtime_ns)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: changed since it was first looked at (written to, or replaced)",
                       path);
    return FM_OK;
}

/* ---- writing ----------------------------------------------------------------------------- */

fm_status fm_file_open_rw(int *fd, const char *path, fm_error *err)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    if (*fd < 0) return fm_fail_errno(err, errno, "%s", path);
    struct stat st;
    if (fstat(*fd, &st) == 0 && S_ISREG(st.st_mode)) return FM_OK;
    close(*fd);
    *fd = -1;
    return fm_fail(err, FM_E_ARG, "%s: is not a regular file", path);
}

fm_status fm_file_write_at(int fd, const char *path, const void *src, size_t n, uint64_t off,
                           fm_error *err)
{
    for (size_t done = 0; done < n;) {
        const size_t want = n - done < SSIZE_MAX ? n - done : SSIZE_MAX;
        const int fault = fm_fault_call(FM_FAULT_WRITE);
        const ssize_t put =
            fault ? -1 : pwrite(fd, (const char *)src + done, want, (off_t)(off + done));
        if (put > 0)
            done += (size_t)put;
        else if (put == 0 || fault || errno != EINTR)
            return fm_fail_errno(err,
                                 put == 0 ? ENOSPC
                                 : fault  ? fault
                                          : errno,
                                 "%s: writing %zu bytes at %" PRIu64, path, n, off);
    }
    return FM_OK;
}

fm_status fm_file_sync(int fd, const char *path, fm_error *err)
{
    const int fault = fm_fault_call(FM_FAULT_SYNC);
    if (!fault && fsync(fd) == 0) return FM_OK;
    return fm_fail_errno(err, fault ? fault : errno, "%s: writing to the device", path);
}

/* The folder of `path`, malloc'd. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    const size_t n = !slash ? 1 : slash == path ? 1 : (size_t)(slash - path);
    char *out = malloc(n + 1);
    if (!out) return NULL;
    memcpy(out, slash ? path : ".", n);
    out[n] = 0;
    return out;
}

fm_status fm_file_sync_folder(const char *path, fm_error *err)
{
    char *folder = folder_of(path);
    if (!folder) return fm_fail(err, FM_E_NOMEM, "%s: no memory", path);
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fm_status st = FM_OK;
    /* Some file systems cannot; what they do instead is their business. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP))
        st = fm_fail_errno(err, errno, "%s: writing to the device", folder);
    if (fd >= 0) close(fd);
    free(folder);
    return st;
}

fm_status fm_file_rename_new(const char *from, const char *to, bool *is_taken, fm_error *err)
{
    *is_taken = false;
    int done = renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
    if (done != 0 && (errno == EINVAL || errno == ENOSYS)) { /* not on this file system */
        if (access(to, F_OK) == 0)
            errno = EEXIST;
        else
            done = rename(from, to);
    }
    if (done == 0) return FM_OK;
    *is_taken = errno == EEXIST;
    return fm_fail_errno(err, errno, "%s: giving it the name %s", from, to);
}

void fm_file_forget_cached(int fd)
{
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* where it cannot, reads are only faster */
}

bool fm_file_lock(int fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_SETLK, &whole) == 0 || (errno != EACCES && errno != EAGAIN);
}

bool fm_file_facts_of(fm_file_facts *out, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) return false;
    *out = (fm_file_facts){(uint64_t)st.st_size, (uint64_t)st.st_blocks * 512, mtime_ns(&st)};
    return true;
}

uint64_t fm_file_free_bytes(const char *path)
{
    char *folder = folder_of(path);
    struct statvfs st;
    const bool ok = folder && statvfs(folder, &st) == 0;
    free(folder);
    return ok ? (uint64_t)st.f_bavail * st.f_frsize : UINT64_MAX;
}
