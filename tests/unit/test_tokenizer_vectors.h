/* Reads the files of tests/vectors/tokenizer/ (see the README there) and finds shared data. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "flashmoe.h"

#define VECTORS "tests/vectors/tokenizer/"

typedef struct {
    unsigned char *data;
    size_t n, pos;
} blob;

/* Unpacked bytes of a gzip file; data == NULL when it cannot be read. */
static inline blob blob_gunzip(const char *path)
{
    blob b = {0};
    FILE *there = fopen(path, "rb");
    if (!there) return b;
    fclose(there);
    char command[1200];
    snprintf(command, sizeof command, "gzip -dc '%s'", path);
    FILE *f = popen(command, "r");
    if (!f) return b;
    size_t cap = 0;
    for (;;) {
        if (b.n == cap) {
            cap = cap * 2 + 65536;
            b.data = realloc(b.data, cap);
            assert_non_null(b.data);
        }
        const size_t got = fread(b.data + b.n, 1, cap - b.n, f);
        if (got == 0) break;
        b.n += got;
    }
    assert_int_equal(pclose(f), 0);
    return b;
}

static inline uint32_t blob_varint(blob *b)
{
    uint32_t v = 0;
    for (int shift = 0; shift < 35; shift += 7) {
        assert_true(b->pos < b->n);
        const unsigned char c = b->data[b->pos++];
        v |= (uint32_t)(c & 127) << shift;
        if (c < 128) break;
    }
    return v;
}

static inline const char *blob_string(blob *b, size_t *n)
{
    *n = blob_varint(b);
    assert_true(*n <= b->n - b->pos);
    const char *s = (const char *)b->data + b->pos;
    b->pos += *n;
    return s;
}

/* A file of the shared test data, or a skip with its name when it is not there. */
static inline const char *shared_file(const char *name)
{
    static char path[1024];
    const char *root = getenv("FM_SHARED_DATA");
    snprintf(path, sizeof path, "%s/%s", root ? root : "../shared/data", name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        print_message("skipped: %s is not there (FM_SHARED_DATA names the folder)\n", path);
        skip();
    }
    fclose(f);
    return path;
}

static inline fm_tokenizer *open_tokenizer(const char *path)
{
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_open(&t, path, &err) != FM_OK) fail_msg("%s", err.msg);
    return t;
}

static inline void print_text(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)s[i];
        print_message(c < 0x20 || c == 0x7f ? "\\x%02x" : "%c", c);
    }
}

/* Compares the tokens of text with n_want expected ids; true when they are the same. */
static inline int same_ids(const fm_tokenizer *t, const char *text, size_t n, unsigned flags,
                           const int32_t *want, size_t n_want)
{
    fm_error err = {0};
    int32_t *ids;
    size_t n_ids;
    if (fm_tokenize(t, &ids, &n_ids, text, n, flags, &err) != FM_OK) fail_msg("%s", err.msg);
    const int same =
        n_ids == n_want && (n_want == 0 || memcmp(ids, want, n_want * sizeof *ids) == 0);
    if (!same) {
        print_message("text \"");
        print_text(text, n);
        print_message("\"\n  got     ");
        for (size_t i = 0; i < n_ids; i++) print_message(" %d", ids[i]);
        print_message("\n  expected");
        for (size_t i = 0; i < n_want; i++) print_message(" %d", want[i]);
        print_message("\n");
    }
    free(ids);
    return same;
}
