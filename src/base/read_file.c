/* See read_file.h. */
#include "base/read_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *fm_path_join(const char *directory, const char *name)
{
    const size_t n = strlen(directory) + strlen(name) + 2;
    char *out = malloc(n);
    if (out) snprintf(out, n, "%s/%s", directory, name);
    return out;
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode)    ? "a directory"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

static fm_status read_open(int fd, char **data, size_t *n, const char *path, uint64_t max,
                           fm_error *err)
{
    struct stat sb;
    if (fstat(fd, &sb) != 0) return fm_fail_errno(err, errno, "%s", path);
    if (!S_ISREG(sb.st_mode))
        return fm_fail(err, FM_E_FORMAT, "%s: is %s, expected a regular file", path,
                       kind_of(sb.st_mode));
    const uint64_t size = (uint64_t)sb.st_size;
    if (size > max)
        return fm_fail(err, FM_E_LIMIT, "%s: has %" PRIu64 " bytes, expected at most %" PRIu64,
                       path, size, max);
    *data = malloc((size_t)size + 1);
    if (!*data) return fm_fail(err, FM_E_NOMEM, "%s: no memory for %" PRIu64 " bytes", path, size);
    for (*n = 0; *n < size;) {
        const ssize_t got = read(fd, *data + *n, (size_t)size - *n);
        if (got == 0)
            return fm_fail(err, FM_E_IO, "%s: the file became shorter while it was read", path);
        if (got < 0 && errno != EINTR) return fm_fail_errno(err, errno, "%s: reading", path);
        if (got > 0) *n += (size_t)got;
    }
    (*data)[size] = 0;
    return FM_OK;
}

fm_status fm_read_file_if_any(char **data, size_t *n, const char *path, uint64_t max, fm_error *err)
{
    *data = NULL;
    *n = 0;
    /* A pipe would block the open; O_NONBLOCK has no effect on regular files. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return errno == ENOENT ? FM_OK : fm_fail_errno(err, errno, "%s", path);
    const fm_status st = read_open(fd, data, n, path, max, err);
    close(fd);
    if (st != FM_OK) {
        free(*data);
        *data = NULL;
        *n = 0;
    }
    return st;
}

fm_status fm_read_file(char **data, size_t *n, const char *path, uint64_t max, fm_error *err)
{
    FM_TRY(fm_read_file_if_any(data, n, path, max, err));
    return *data ? FM_OK : fm_fail_errno(err, ENOENT, "%s", path);
}
