/* Code books of the IQ block formats: an index stored in a block names 8 (IQ1, IQ2) or 4 (IQ3)
 * neighbouring weights at once.
 *
 * An entry holds one code per column, the first column in the lowest bits: 8 codes of 2 bits, or 4
 * codes of 3 bits in 4. What a code is worth:
 *   IQ1          -1, 0, 1 for 0, 1, 2; plus or minus 1/8
 *   IQ2          8, 25, 43 for 0, 1, 2, with a sign stored beside the index
 *   IQ3_XXS      4, 12, 20, 28, 36, 44, 52, 62, with a sign
 *   IQ3_S        1, 3, .. 15, with a sign
 * The lists have one entry more than the format can name, so that an entry may be read as 32 bits.
 */
#pragma once

#include <stdint.h>

extern const int8_t fm_book_iq4[16]; /* values of the 4-bit codes of IQ4_NL and IQ4_XS */
extern const uint16_t fm_book_iq2_xxs[256 + 1];
extern const uint16_t fm_book_iq2_xs[512 + 1];
extern const uint16_t fm_book_iq2_s[1024 + 1];
extern const uint16_t fm_book_iq1[2048 + 1]; /* IQ1_S and IQ1_M */
extern const uint16_t fm_book_iq3_xxs[256 + 1];
extern const uint16_t fm_book_iq3_s[512 + 1];
