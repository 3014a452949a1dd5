/* Buffered forward reading of a header with pread(). Headers of large vocabularies are some 10 MB;
 * one buffer of 256 KiB keeps the calls few without reading far into the weights. */
#include "format/gguf_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 * 1024 };

fm_status fm_gguf_reader_open(fm_gguf_reader *r, const char *path, fm_error *err)
{
    memset(r, 0, sizeof *r);
    r->fd = -1;
    r->path = path;
    struct stat st;
    /* Before open(), which would wait for a writer on a named pipe. */
    if (stat(path, &st) != 0) return fm_fail_errno(err, errno, "%s", path);
    if (S_ISDIR(st.st_mode))
        return fm_fail(err, FM_E_FORMAT, "%s: is a directory, expected a GGUF file", path);
    if (!S_ISREG(st.st_mode)) return fm_fail(err, FM_E_FORMAT, "%s: is not a regular file", path);
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0) return fm_fail_errno(err, errno, "%s", path);
    FM_TRY(fm_file_mark_of(&r->mark, r->fd, path, err));
    r->file_bytes = r->mark.bytes;
    r->buf = malloc(BUFFER_BYTES);
    if (!r->buf) return fm_fail(err, FM_E_NOMEM, "%s: no memory for the read buffer", path);
    snprintf(r->object, sizeof r->object, "header");
    return FM_OK;
}

void fm_gguf_reader_close(fm_gguf_reader *r)
{
    if (r->fd >= 0) close(r->fd);
    free(r->buf);
    r->buf = NULL;
    r->fd = -1;
}

uint64_t fm_gguf_remaining(const fm_gguf_reader *r)
{
    return r->file_bytes - r->pos;
}

/* Refills the empty buffer from `pos`, which is inside the file. */
static fm_status refill(fm_gguf_reader *r, fm_error *err)
{
    for (;;) {
        const ssize_t got = pread(r->fd, r->buf, BUFFER_BYTES, (off_t)r->pos);
        if (got > 0) {
            r->buf_len = (size_t)got;
            r->buf_pos = 0;
            return FM_OK;
        }
        if (got == 0)
            return fm_gguf_fail(
                r, err, "the file became shorter while it was read (it had %" PRIu64 " bytes)",
                r->file_bytes);
        if (errno != EINTR)
            return fm_fail_errno(err, errno, "%s: reading at byte %" PRIu64, r->path, r->pos);
    }
}

fm_status fm_gguf_bytes(fm_gguf_reader *r, void *dst, size_t n, const char *what, fm_error *err)
{
    if (n > fm_gguf_remaining(r))
        return fm_gguf_fail(r, err,
                            "%s needs %zu bytes, but the file ends at byte %" PRIu64
                            " (download incomplete?)",
                            what, n, r->file_bytes);
    unsigned char *to = dst;
    while (n > 0) {
        if (r->buf_pos == r->buf_len) FM_TRY(refill(r, err));
        size_t part = r->buf_len - r->buf_pos;
        if (part > n) part = n;
        memcpy(to, r->buf + r->buf_pos, part);
        r->buf_pos += part;
        r->pos += part;
        to += part;
        n -= part;
    }
    return FM_OK;
}

fm_status fm_gguf_u32(fm_gguf_reader *r, uint32_t *out, const char *what, fm_error *err)
{
    unsigned char b[4] = {0};
    FM_TRY(fm_gguf_bytes(r, b, sizeof b, what, err));
    *out = fm_le32(b);
    return FM_OK;
}

fm_status fm_gguf_u64(fm_gguf_reader *r, uint64_t *out, const char *what, fm_error *err)
{
    unsigned char b[8] = {0};
    FM_TRY(fm_gguf_bytes(r, b, sizeof b, what, err));
    *out = fm_le64(b);
    return FM_OK;
}

fm_status fm_gguf_fail(const fm_gguf_reader *r, fm_error *err, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return fm_fail(err, FM_E_FORMAT, "%s: byte %" PRIu64 ", %s: %s", r->path, r->pos, r->object,
                   text);
}

const char *fm_gguf_quote(char out[FM_QUOTE_BYTES], const char *name, size_t n)
{
    const size_t room = FM_QUOTE_BYTES - 4;
    size_t w = 0;
    for (size_t i = 0; i < n && w < room; i++) {
        const unsigned char c = (unsigned char)name[i];
        out[w++] = (char)(c < 0x20 || c >= 0x7f ? '?' : c);
    }
    if (n > room) {
        memcpy(out + w, "...", 3);
        w += 3;
    }
    out[w] = 0;
    return out;
}
