/* See npy.h. Source of the format: numpy, numpy.lib.format, version 1.0. */
#include "cli/npy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static fm_status fail_write(const fm_npy *a, int os_errno, fm_error *err)
{
    return fm_fail_errno(err, os_errno, "%s: writing the array", a->path);
}

static fm_status write_header(fm_npy *a, fm_error *err)
{
    /* magic 6, version 2, length 2, text, spaces and a newline up to a multiple of 64 */
    enum { LEAD = 10, SIZE = 192 };
    unsigned char header[SIZE];
    const uint16_t one = 1;
    const bool is_little = *(const unsigned char *)&one == 1;
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    char text[128];
    const int n =
        snprintf(text, sizeof text,
                 "{'descr': '%cf4', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu64 "), }",
                 is_little ? '<' : '>', a->n_row, a->n_col);
    memcpy(header + LEAD, text, (size_t)n);
    const size_t total = (size_t)(LEAD + n + 1 + 63) / 64 * 64;
    header[8] = (unsigned char)((total - LEAD) & 0xff);
    header[9] = (unsigned char)((total - LEAD) >> 8);
    header[total - 1] = '\n';
    return fwrite(header, 1, total, a->file) == total ? FM_OK : fail_write(a, errno, err);
}

fm_status fm_npy_create(fm_npy *a, const char *path, uint64_t n_row, uint64_t n_col, fm_error *err)
{
    *a = (fm_npy){.n_row = n_row, .n_col = n_col};
    a->path = strdup(path);
    if (!a->path) return fm_fail(err, FM_E_NOMEM, "%s: no memory for its name", path);
    struct stat info;
    const bool is_special = stat(path, &info) == 0 && !S_ISREG(info.st_mode);
    if (!is_special) {
        const size_t n = strlen(path) + 32;
        a->temp_path = malloc(n);
        if (!a->temp_path) {
            fm_npy_destroy(a);
            return fm_fail(err, FM_E_NOMEM, "%s: no memory for its name", path);
        }
        snprintf(a->temp_path, n, "%s.%ld.tmp", path, (long)getpid());
    }
    const char *opened = a->temp_path ? a->temp_path : a->path;
    a->file = fopen(opened, "wb");
    if (!a->file) {
        const int os_errno = errno;
        free(a->temp_path); /* nothing to remove */
        a->temp_path = NULL;
        fm_npy_destroy(a);
        return fm_fail_errno(err, os_errno, "%s", path);
    }
    const fm_status st = write_header(a, err);
    if (st != FM_OK) fm_npy_destroy(a);
    return st;
}

fm_status fm_npy_write_row(fm_npy *a, const float *row, fm_error *err)
{
    if (a->n_written == a->n_row) {
        return fm_fail(err, FM_E_ARG, "%s: more rows than the %" PRIu64 " announced", a->path,
                       a->n_row);
    }
    if (fwrite(row, sizeof *row, a->n_col, a->file) != a->n_col) return fail_write(a, errno, err);
    a->n_written++;
    return FM_OK;
}

fm_status fm_npy_commit(fm_npy *a, fm_error *err)
{
    if (a->n_written != a->n_row) {
        return fm_fail(err, FM_E_ARG, "%s: %" PRIu64 " of %" PRIu64 " rows", a->path, a->n_written,
                       a->n_row);
    }
    const bool is_flushed = fflush(a->file) == 0;
    const int flush_errno = errno;
    const bool is_closed = fclose(a->file) == 0;
    a->file = NULL;
    if (!is_flushed || !is_closed) return fail_write(a, is_flushed ? errno : flush_errno, err);
    if (a->temp_path && rename(a->temp_path, a->path) != 0) return fail_write(a, errno, err);
    free(a->temp_path);
    a->temp_path = NULL;
    return FM_OK;
}

void fm_npy_destroy(fm_npy *a)
{
    if (a->file) fclose(a->file);
    if (a->temp_path) unlink(a->temp_path);
    free(a->temp_path);
    free(a->path);
    *a = (fm_npy){0};
}
