/* Files in the user's cache directory: see cache_file.h. */
#include "os/cache_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "os/file.h"

/* magic, version (4), zero (4), bytes of the payload (8), checksum (8); little-endian */
enum { AT_VERSION = 8, AT_ZERO = 12, AT_BYTES = 16, AT_SUM = 24, HEADER_BYTES = 32 };
enum { STALE_SECONDS = 3600 };

fm_status fm_cache_path(char path[FM_CACHE_PATH_MAX], const char *name, fm_error *err)
{
    const char *dir = getenv("XDG_CACHE_HOME"), *below = "";
    if (!dir || dir[0] != '/') {
        dir = getenv("HOME");
        below = "/.cache";
    }
    if (!dir || dir[0] != '/')
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "no cache directory: neither XDG_CACHE_HOME nor HOME is an absolute path");
    const int n = snprintf(path, FM_CACHE_PATH_MAX, "%s%s/flashmoe/%s", dir, below, name);
    if (n < 0 || n >= FM_CACHE_PATH_MAX)
        return fm_fail(err, FM_E_LIMIT, "%s%s/flashmoe/%s: the path is too long", dir, below, name);
    return FM_OK;
}

/* Over everything but itself. */
static uint64_t checksum(const unsigned char *header, const void *payload, size_t bytes)
{
    return fm_fnv1a(fm_fnv1a(FM_FNV1A_INIT, header, AT_SUM), payload, bytes);
}

/* ---- reading ----------------------------------------------------------------------------- */

static fm_status check_header(const unsigned char *h, const char *path, const char *magic,
                              uint32_t version, uint64_t payload_bytes, fm_error *err)
{
    if (memcmp(h, magic, FM_CACHE_MAGIC_BYTES) != 0)
        return fm_fail(err, FM_E_FORMAT, "%s: does not begin with %.8s", path, magic);
    const uint32_t found = (uint32_t)fm_get_le(h + AT_VERSION, 4);
    if (found != version)
        return fm_fail(err, FM_E_FORMAT, "%s: version %" PRIu32 ", expected %" PRIu32, path, found,
                       version);
    const uint64_t zero = fm_get_le(h + AT_ZERO, 4), said = fm_get_le(h + AT_BYTES, 8);
    if (zero != 0)
        return fm_fail(err, FM_E_FORMAT, "%s: %" PRIu64 " behind the version, expected 0", path,
                       zero);
    if (said != payload_bytes)
        return fm_fail(err, FM_E_FORMAT, "%s: holds %" PRIu64 " bytes, its header says %" PRIu64,
                       path, payload_bytes, said);
    return FM_OK;
}

static fm_status read_opened(unsigned char **payload, size_t *bytes, int fd, uint64_t file_bytes,
                             const char *path, const char *magic, uint32_t version,
                             size_t max_bytes, fm_error *err)
{
    if (file_bytes < HEADER_BYTES || file_bytes - HEADER_BYTES > max_bytes)
        return fm_fail(err, FM_E_FORMAT, "%s: has %" PRIu64 " bytes, expected %d to %zu", path,
                       file_bytes, HEADER_BYTES, max_bytes + HEADER_BYTES);
    unsigned char header[HEADER_BYTES];
    const size_t n = (size_t)file_bytes - HEADER_BYTES;
    FM_TRY(fm_file_read_at(fd, path, header, sizeof header, 0, err));
    FM_TRY(check_header(header, path, magic, version, n, err));
    unsigned char *data = malloc(n + 1);
    if (!data) return fm_fail(err, FM_E_NOMEM, "%s: no memory for %zu bytes", path, n);
    fm_status st = fm_file_read_at(fd, path, data, n, HEADER_BYTES, err);
    if (st == FM_OK && checksum(header, data, n) != fm_get_le(header + AT_SUM, 8))
        st = fm_fail(err, FM_E_FORMAT, "%s: the checksum is wrong (damaged)", path);
    if (st != FM_OK) {
        free(data);
        return st;
    }
    *payload = data;
    *bytes = n;
    return FM_OK;
}

fm_status fm_cache_read(unsigned char **payload, size_t *bytes, const char *path,
                        const char magic[FM_CACHE_MAGIC_BYTES], uint32_t version, size_t max_bytes,
                        fm_error *err)
{
    *payload = NULL;
    *bytes = 0;
    int fd;
    uint64_t file_bytes;
    fm_error why;
    const fm_status st = fm_file_open(&fd, &file_bytes, path, &why);
    if (st != FM_OK) {
        if (why.os_errno == ENOENT || why.os_errno == ENOTDIR) return FM_OK;
        if (err) *err = why;
        return st;
    }
    const fm_status result =
        read_opened(payload, bytes, fd, file_bytes, path, magic, version, max_bytes, err);
    fm_file_close(fd);
    return result;
}

/* ---- writing ----------------------------------------------------------------------------- */

/* Makes the folders above a file; only the user may look into them. */
static fm_status make_folders(const char *path, fm_error *err)
{
    char folder[FM_CACHE_PATH_MAX];
    for (size_t i = 1; path[i]; i++) {
        if (path[i] != '/') continue;
        memcpy(folder, path, i);
        folder[i] = 0;
        if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
            struct stat st;
            const int e = errno; /* a read-only system says so before it says that it is there */
            if (stat(folder, &st) == 0 && S_ISDIR(st.st_mode)) continue;
            return fm_fail_errno(err, e, "%s", folder);
        }
    }
    return FM_OK;
}

/* What processes that were killed while they wrote `path` left behind. To write one takes milliseconds. */
static void remove_stale(const char *path)
{
    const char *const slash = strrchr(path, '/');
    if (!slash) return;
    const char *const name = slash + 1;
    const size_t n = strlen(name), n_folder = (size_t)(name - path);
    char other[FM_CACHE_PATH_MAX + 256];
    memcpy(other, path, n_folder);
    other[n_folder] = 0;
    DIR *const folder = opendir(other);
    if (!folder) return;
    const time_t now = time(NULL);
    for (const struct dirent *e; (e = readdir(folder)) != NULL;) {
        const size_t len = strlen(e->d_name);
        if (len < n + 5 || strncmp(e->d_name, name, n) != 0 || e->d_name[n] != '.' ||
            strcmp(e->d_name + len - 4, ".tmp") != 0)
            continue;
        snprintf(other + n_folder, sizeof other - n_folder, "%s", e->d_name);
        struct stat st;
        if (stat(other, &st) == 0 && now - st.st_mtime > STALE_SECONDS) unlink(other);
    }
    closedir(folder);
}

/* To the device before it gets its name: after a power cut the name stands for the old content or the new one. */
static fm_status write_whole(int fd, const char *path, const unsigned char *header,
                             const void *payload, size_t bytes, fm_error *err)
{
    FM_TRY(fm_file_write_at(fd, path, header, HEADER_BYTES, 0, err));
    FM_TRY(fm_file_write_at(fd, path, payload, bytes, HEADER_BYTES, err));
    return fm_file_sync(fd, path, err);
}

fm_status fm_cache_write(const char *path, const char magic[FM_CACHE_MAGIC_BYTES], uint32_t version,
                         const void *payload, size_t bytes, fm_error *err)
{
    static _Atomic unsigned n_written; /* threads of a process do not share a name */
    char tmp[FM_CACHE_PATH_MAX + 48];
    if (strlen(path) >= FM_CACHE_PATH_MAX)
        return fm_fail(err, FM_E_LIMIT, "%s: the path is too long", path);
    snprintf(tmp, sizeof tmp, "%s.%ld.%u.tmp", path, (long)getpid(), n_written++);
    unsigned char header[HEADER_BYTES] = {0};
    memcpy(header, magic, FM_CACHE_MAGIC_BYTES);
    fm_put_le(header + AT_VERSION, version, 4);
    fm_put_le(header + AT_BYTES, bytes, 8);
    fm_put_le(header + AT_SUM, checksum(header, payload, bytes), 8);

    FM_TRY(make_folders(path, err));
    remove_stale(path);
    unlink(tmp); /* of a killed process that had the same number */
    const int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return fm_fail_errno(err, errno, "%s", tmp);
    fm_status st = write_whole(fd, path, header, payload, bytes, err);
    if (close(fd) != 0 && st == FM_OK) st = fm_fail_errno(err, errno, "%s", path);
    if (st == FM_OK && rename(tmp, path) != 0) st = fm_fail_errno(err, errno, "%s", path);
    if (st != FM_OK) unlink(tmp);
    return st;
}
