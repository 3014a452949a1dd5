/* A forward cursor over the header of a GGUF file: checked reads through a buffer, little-endian.
 * Never reads tensor data beyond what its buffer happens to cover. */
#pragma once

#include "os/file.h"

typedef struct {
    const char *path; /* borrowed */
    int fd;
    fm_file_mark mark;
    uint64_t file_bytes; /* of the mark */
    uint64_t pos; /* next byte to hand out */
    unsigned char *buf;
    size_t buf_len, buf_pos;
    /* What is being parsed, for messages: "metadata entry 3 of 40 (general.name)". */
    char object[200];
} fm_gguf_reader;

/* Opens a regular file; anything else is refused. `path` must outlive the reader. Close also after a
 * failure. */
fm_status fm_gguf_reader_open(fm_gguf_reader *r, const char *path, fm_error *err);
void fm_gguf_reader_close(fm_gguf_reader *r);

uint64_t fm_gguf_remaining(const fm_gguf_reader *r);

/* Copies n bytes to dst. FM_E_FORMAT when the file ends first; `what` names the field. */
fm_status fm_gguf_bytes(fm_gguf_reader *r, void *dst, size_t n, const char *what, fm_error *err);
fm_status fm_gguf_u32(fm_gguf_reader *r, uint32_t *out, const char *what, fm_error *err);
fm_status fm_gguf_u64(fm_gguf_reader *r, uint64_t *out, const char *what, fm_error *err);

/* FM_E_FORMAT with file, position and object in front of the message. */
fm_status fm_gguf_fail(const fm_gguf_reader *r, fm_error *err, const char *fmt, ...)
    FM_PRINTF(3, 4);

/* Makes bytes of a file fit for a message: control characters and broken bytes become '?', long
 * names are cut. Returns `out`. */
enum { FM_QUOTE_BYTES = 100 };
const char *fm_gguf_quote(char out[FM_QUOTE_BYTES], const char *name, size_t n);

static inline uint32_t fm_le16(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t fm_le32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t fm_le64(const unsigned char *p)
{
    return (uint64_t)fm_le32(p) | (uint64_t)fm_le32(p + 4) << 32;
}
