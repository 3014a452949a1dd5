/* Byte-level vocabularies write every byte as one printable character. */
#include "text/byte_alphabet.h"

#include "text/utf8.h"

static int is_itself(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

uint32_t fm_byte_alphabet(unsigned char byte)
{
    if (is_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0xA0) return 0x121u + (byte - 0x7Fu);
    return 0x143; /* 0xAD */
}

/* The byte a character stands for, or -1. */
static int byte_of(uint32_t code)
{
    if (code < 0x100) return is_itself(code) ? (int)code : -1;
    if (code <= 0x120) return (int)(code - 0x100);
    if (code <= 0x142) return (int)(code - 0x121 + 0x7F);
    return code == 0x143 ? 0xAD : -1;
}

size_t fm_byte_alphabet_decode(char *out, const char *s, size_t n)
{
    size_t w = 0;
    for (size_t i = 0; i < n;) {
        uint32_t code;
        const size_t len = fm_utf8_decode(&code, s + i, n - i);
        if (len == 0) return SIZE_MAX;
        const int byte = byte_of(code);
        if (byte < 0) return SIZE_MAX;
        out[w++] = (char)byte;
        i += len;
    }
    return w;
}
