/* The GPT-2 alphabet, in which byte-level vocabularies spell their tokens. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The stand-in character of each byte: printable Latin-1 bytes are themselves, the other 68 are U+0100 and up, in
 * order. */
uint32_t fm_byte_alphabet(unsigned char byte);
/* Bytes of s[n] in that alphabet, to out (room n). Returns their number, or SIZE_MAX when s has a
 * character that is not in it. */
size_t fm_byte_alphabet_decode(char *out, const char *s, size_t n);
