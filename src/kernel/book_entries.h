/* The books of IQ1, IQ2 and IQ3 (quant/code_books.h) as bytes, so that 8 or 4 weights are one load. For the files of the
 * sets avx2 and neon.
 */
#pragma once

#include <stdint.h>

/* Entries of 8 and of 4 columns, the first one in the lowest byte: weights without sign as in quant_block_iq.h; IQ1: 8 times
 * the code. One of 4 columns may be read as 16 bytes. */
typedef struct {
    uint64_t iq2_xxs[256], iq2_xs[512], iq2_s[1024], iq1[2048];
    uint32_t iq3_xxs[256 + 3], iq3_s[512 + 3];
} fm_book_bytes;

/* Made by fm_book_entries_init(). */
extern fm_book_bytes fm_book_entries;
