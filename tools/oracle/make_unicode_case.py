#!/usr/bin/env python3
"""Writes src/chat/unicode_case_table.inc: where Python's case mappings of one character give several
(or, for casefold, not the lower-case one), and its characters that are digits or numbers without
being decimal digits.

    make_unicode_case.py > src/chat/unicode_case_table.inc
"""
import sys
import unicodedata

ALL = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]


def rows(name, mapping, wanted):
    print(f"static const case_row {name}[] = {{")
    for c in ALL:
        m = mapping(c)
        if wanted(c, m):
            codes = [f"0x{ord(x):04x}" for x in m]
            print(f"    {{0x{ord(c):04x}, {len(m)}, {{{', '.join(codes)}}}}},")
    print("};\n")


def ranges(name, wanted):
    print(f"static const int32_t {name}[][2] = {{")
    start = None
    for c in range(sys.maxunicode + 2):
        inside = c <= sys.maxunicode and not 0xD800 <= c < 0xE000 and wanted(chr(c))
        if inside and start is None:
            start = c
        if not inside and start is not None:
            print(f"    {{0x{start:04x}, 0x{c - 1:04x}}},")
            start = None
    print("};\n")


print(f"/* Written by tools/oracle/make_unicode_case.py, Unicode {unicodedata.unidata_version}. */")
rows("upper_rows", str.upper, lambda c, m: len(m) > 1)
rows("title_rows", str.title, lambda c, m: len(m) > 1)
rows("lower_rows", str.lower, lambda c, m: len(m) > 1)
rows("fold_rows", str.casefold, lambda c, m: m != c.lower())
ranges("digit_ranges", lambda c: c.isdigit() and not c.isdecimal())
ranges("numeric_ranges", lambda c: c.isnumeric() and not c.isdigit())
