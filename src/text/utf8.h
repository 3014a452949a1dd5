/* UTF-8 by the book: no overlong forms, no surrogates, nothing above U+10FFFF. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes the character at p, of which n bytes can be read. Returns its length (1..4), or 0 when
 * the bytes are no whole character. */
size_t fm_utf8_decode(uint32_t *code, const char *p, size_t n);

/* Writes a code point (not a surrogate, at most U+10FFFF) to p; returns the length (1..4). */
size_t fm_utf8_encode(char p[4], uint32_t code);

/* Whether this byte can occur in valid UTF-8 at all (C0, C1 and F5 to FF cannot). */
bool fm_utf8_has_byte(unsigned char byte);

/* Unicode's White_Space. */
bool fm_utf8_is_space(uint32_t code);

/* Length of the longest prefix of p[0..n) that is valid. */
size_t fm_utf8_valid_prefix(const char *p, size_t n);
