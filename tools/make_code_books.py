#!/usr/bin/env python3
"""Writes src/quant/code_books.c: the code books of the IQ block formats.

    pip install gguf numpy
    python3 tools/make_code_books.py > src/quant/code_books.c

The numbers are data of the formats and come from the PyPI package `gguf` (gguf/quants.py). An
entry of a code book is stored here as the position of each of its values in the short list of
values that the format uses: 2 bits per column for the books of 8 columns, 4 bits per column for
the books of 4 columns; the first column lies in the lowest bits.
"""
from importlib.metadata import version

import gguf.quants as q
import numpy as np

HEAD = """/* Code books of the IQ block formats. Written by tools/make_code_books.py; do not edit.
 *
 * Origin: the numeric tables of the PyPI package gguf %s (gguf/quants.py), which are part of
 * the definition of the formats. code_books.h says what an entry means. */
#include "quant/code_books.h"

// clang-format off
"""

BOOKS = [("fm_book_iq2_xxs", q.IQ2_XXS), ("fm_book_iq2_xs", q.IQ2_XS), ("fm_book_iq2_s", q.IQ2_S),
         ("fm_book_iq1", q.IQ1_S), ("fm_book_iq3_xxs", q.IQ3_XXS), ("fm_book_iq3_s", q.IQ3_S)]


def check_signs() -> None:
    """The eighth sign is the parity of the other seven, so it needs no table."""
    for i, s in enumerate(q.IQ2_XXS.ksigns):
        assert s == i | (bin(i).count("1") & 1) << 7


def main() -> None:
    check_signs()
    print(HEAD % version("gguf"), end="")
    print("const int8_t fm_book_iq4[16] = {" + ", ".join(map(str, q.IQ4_NL.kvalues)) + "};")
    for name, cls in BOOKS:
        cls.init_grid()
        n, width = cls.grid_shape
        grid = cls.grid.reshape(n, width)
        bits = 16 // width
        words = np.zeros(n, dtype=np.uint32)
        for c in range(width):
            position = np.searchsorted(np.array(cls.grid_map, dtype=np.float32), grid[:, c])
            assert np.array_equal(np.array(cls.grid_map, dtype=np.float32)[position], grid[:, c])
            words |= position.astype(np.uint32) << (bits * c)
        # One more entry, so that a 32-bit load of the last one stays inside.
        print(f"\nconst uint16_t {name}[{n} + 1] = {{")
        for i in range(0, n, 12):
            print("    " + " ".join(f"0x{w:04x}," for w in words[i:i + 12]))
        print("};")
    print("// clang-format on")


if __name__ == "__main__":
    main()
