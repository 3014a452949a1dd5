/* Reading the journal of an unfinished file. Layout: docs/formats.md. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FM_JOURNAL_MAGIC "FMQUANT1"
enum {
    FM_JOURNAL_FIXED = 56, /* bytes before the options  */
    FM_JOURNAL_RECORD = 40,
    FM_JOURNAL_MAX = 1 << 28,
};

typedef struct {
    uint64_t source, importance, header, total_bytes, n_tensor;
    const char *text; /* options, not terminated */
    size_t n_text;
    /* where reading stands */
    const uint8_t *data;
    size_t n, at;
    uint64_t chain;
    uint64_t n_finished, at_bytes;
} fm_journal;

typedef struct {
    bool is_finished; /* else: `bytes` of the tensor are there */
    uint64_t tensor, bytes, hash;
} fm_journal_record;

/* False when the header is not whole. `data` is borrowed. */
bool fm_journal_parse_header(fm_journal *j, const uint8_t *data, size_t n);
/* The next record; false at the end or at the first that is not whole or out of order. j->at stays there. */
bool fm_journal_next(fm_journal *j, fm_journal_record *out);
