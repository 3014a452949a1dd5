#!/usr/bin/env python3
"""Writes tests/vectors/encode/errors.txt: how far the public quantizers are from the tensors that
tests/unit/test_encode.c makes.

    encode_reference.py LIBRARY... > tests/vectors/encode/errors.txt

LIBRARY: shared libraries with llama.cpp's quantize_TYPE functions (its libggml-base.so). Each type is
encoded with every library, without importance and (which changes what they minimise) with importance 1
everywhere; the least error counts. Values are decoded by the gguf package.
"""
import ctypes
import os
import sys

import gguf
import numpy as np

ROWS, COLUMNS = 16, 1024
TYPES = ["Q8_0", "Q4_0", "MXFP4", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
MASK = (1 << 64) - 1


class Random:
    """As test_encode.c: a linear congruential generator, its upper 24 bits as a number in [0, 1)."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & MASK
        return (self.state >> 40) / 16777216.0


def tensor(kind, seed):
    r = Random(seed)
    out = np.empty(ROWS * COLUMNS, np.float32)
    for i in range(out.size):
        g = sum(r.next() for _ in range(12)) - 6.0  # nearly Gaussian
        out[i] = np.float32(g * 0.02 if kind == "gaussian" else g * g * g * 0.01)
    return out.reshape(ROWS, COLUMNS)


def importance(seed):
    r = Random(seed)
    return np.array([(r.next() * 4) ** 3 + 0.01 for _ in range(COLUMNS)], np.float32)


def encode(library, name, x, weight):
    kind = gguf.GGMLQuantizationType[name]
    elems, size = gguf.GGML_QUANT_SIZES[kind]
    f = getattr(library, "quantize_" + (name.lower() if name == "MXFP4" else "q" + name[1:]), None)
    if f is None:
        return None
    raw = np.zeros((ROWS, COLUMNS // elems * size), np.uint8)
    f.restype = ctypes.c_size_t
    f.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    f(x.ctypes.data, raw.ctypes.data, ROWS, COLUMNS, None if weight is None else weight.ctypes.data)
    return gguf.quants.dequantize(raw, kind)


def main():
    libraries = [ctypes.CDLL(p, mode=os.RTLD_LAZY) for p in sys.argv[1:]]
    weight, ones = importance(3), np.ones(COLUMNS, np.float32)
    for kind, seed in (("gaussian", 1), ("heavy", 2)):
        x = tensor(kind, seed)
        for name in TYPES:
            for weighted in (0, 1):
                w = weight if weighted else ones
                tries = [weight] if weighted else [None, ones]
                if name in ("Q8_0", "MXFP4"):
                    tries = tries[:1]
                found = [encode(lib, name, x, t) for lib in libraries for t in tries]
                errors = [np.sqrt((((y - x).astype(np.float64)) ** 2 * w).sum() / (w.sum() * ROWS))
                          for y in found if y is not None]
                print(f"{name} {kind} {weighted} {min(errors):.9g}")


if __name__ == "__main__":
    main()
