/* Makes the books as bytes: book_entries.h. */
#include "kernel/book_entries.h"

#include "kernel/kernel_internal.h"
#include "quant/quant_block_iq.h"

fm_book_bytes fm_book_entries;

static uint64_t entry_of(uint32_t codes, int n, int bits, const int8_t *value)
{
    uint64_t entry = 0;
    for (int c = 0; c < n; c++)
        entry |= (uint64_t)(uint8_t)value[codes >> (bits * c) & ((1u << bits) - 1)] << (8 * c);
    return entry;
}

void fm_book_entries_init(void)
{
    static const int8_t iq2[] = FM_IQ2_VALUES, iq3_xxs[] = FM_IQ3_XXS_HALVES;
    static const int8_t iq3_s[] = FM_IQ3_S_VALUES, iq1[] = FM_IQ1_VALUES;
    fm_book_bytes *const e = &fm_book_entries;
    for (int i = 0; i < 256; i++) {
        e->iq2_xxs[i] = entry_of(fm_book_iq2_xxs[i], 8, 2, iq2);
        e->iq3_xxs[i] = (uint32_t)entry_of(fm_book_iq3_xxs[i], 4, 4, iq3_xxs);
    }
    for (int i = 0; i < 512; i++) {
        e->iq2_xs[i] = entry_of(fm_book_iq2_xs[i], 8, 2, iq2);
        e->iq3_s[i] = (uint32_t)entry_of(fm_book_iq3_s[i], 4, 4, iq3_s);
    }
    for (int i = 0; i < 1024; i++) e->iq2_s[i] = entry_of(fm_book_iq2_s[i], 8, 2, iq2);
    for (int i = 0; i < 2048; i++) e->iq1[i] = entry_of(fm_book_iq1[i], 8, 2, iq1);
}
