/* Text of files that is shown to people. */
#pragma once

/* Names from files end up on terminals, which obey control characters: C0 but newline and tab, DEL, and C1 as UTF-8
 * become '?'. */
static inline void fm_quote_in_place(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) *p++ = '?', *p = '?';
        if ((*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f) *p = '?';
    }
}
