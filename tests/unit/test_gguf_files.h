/* Writes GGUF files for tests, right or wrong ones, byte by byte. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/checkpoint.h"
#include "format/gguf_types.h"

typedef struct {
    unsigned char data[65536];
    size_t n;
} bytes;

static inline void put(bytes *b, const void *p, size_t n)
{
    assert_true(n <= sizeof b->data - b->n);
    memcpy(b->data + b->n, p, n);
    b->n += n;
}

static inline void put_le(bytes *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) put(b, &(unsigned char){(unsigned char)(v >> 8 * i)}, 1);
}

static inline void put_string(bytes *b, const char *s)
{
    put_le(b, strlen(s), 8);
    put(b, s, strlen(s));
}

static inline void put_header(bytes *b, uint64_t n_tensor, uint64_t n_entry)
{
    put(b, "GGUF", 4);
    put_le(b, 3, 4);
    put_le(b, n_tensor, 8);
    put_le(b, n_entry, 8);
}

/* A scalar of `size` bytes. */
static inline void put_entry(bytes *b, const char *key, uint32_t type, uint64_t v, int size)
{
    put_string(b, key);
    put_le(b, type, 4);
    put_le(b, v, size);
}

static inline void put_entry_string(bytes *b, const char *key, const char *s)
{
    put_string(b, key);
    put_le(b, FM_GGUF_STRING, 4);
    put_string(b, s);
}

static inline void put_array_head(bytes *b, const char *key, uint32_t elem, uint64_t count)
{
    put_string(b, key);
    put_le(b, FM_GGUF_ARRAY, 4);
    put_le(b, elem, 4);
    put_le(b, count, 8);
}

typedef struct {
    const char *name; /* NULL ends a list */
    uint32_t n_dim;
    uint64_t dim[4];
    uint32_t type;
    uint64_t offset;
} tensor_row;

static inline void put_tensor(bytes *b, const tensor_row *t)
{
    put_string(b, t->name);
    put_le(b, t->n_dim, 4);
    for (uint32_t i = 0; i < t->n_dim && i < 4; i++) put_le(b, t->dim[i], 8);
    put_le(b, t->type, 4);
    put_le(b, t->offset, 8);
}

static inline void put_data(bytes *b, size_t alignment, size_t n)
{
    while (b->n % alignment) put(b, "", 1);
    for (size_t i = 0; i < n; i++) put(b, "", 1);
}

/* One folder for all files of a test program. */
static char folder[] = "/tmp/fm_gguf_XXXXXX";

static inline int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static inline const char *write_file(const char *name, const bytes *b)
{
    static char path[4][200];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    FILE *f = fopen(p, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b->data, 1, b->n, f), b->n);
    fclose(f);
    return p;
}

static inline void remove_file(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

/* Must fail with `st` (FM_OK: with any status) and a message that has the file and `expect`. */
static inline void must_fail(const char *what, const bytes *b, fm_status st, const char *expect)
{
    const char *path = write_file("t.gguf", b);
    fm_checkpoint *c;
    fm_error err = {0};
    const fm_status got = fm_checkpoint_open(&c, path, &err);
    unlink(path);
    if (got == FM_OK) {
        fm_checkpoint_close(c);
        fail_msg("%s: opened", what);
    }
    assert_null(c);
    assert_int_equal(got, err.code);
    if (st != FM_OK && got != st)
        fail_msg("%s: status %d, expected %d: %s", what, got, st, err.msg);
    if (!strstr(err.msg, "t.gguf") || !strstr(err.msg, expect))
        fail_msg("%s: \"%s\" does not name the file and \"%s\"", what, err.msg, expect);
}
