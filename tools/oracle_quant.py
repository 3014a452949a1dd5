#!/usr/bin/env python3
"""Writes tests/vectors/quant/: random blocks of each type and the values that the gguf package
decodes them to.

    pip install gguf numpy
    python3 tools/oracle_quant.py tests/vectors/quant

Per type two files: TYPE.blocks (as in a GGUF file) and TYPE.values (little-endian f32).
"""
import sys
from pathlib import Path

import gguf
import numpy as np

# type: (number of blocks, offsets of the f16 fields)
TYPES = {
    "F32": (64, []), "F16": (64, []), "BF16": (64, []),
    "Q4_0": (16, [0]), "Q4_1": (16, [0, 2]), "Q5_0": (16, [0]), "Q5_1": (16, [0, 2]),
    "Q8_0": (16, [0]), "MXFP4": (16, []),
    "Q2_K": (4, [80, 82]), "Q3_K": (4, [108]), "Q4_K": (4, [0, 2]), "Q5_K": (4, [0, 2]),
    "Q6_K": (4, [208]),
    "IQ4_NL": (16, [0]), "IQ4_XS": (4, [0]), "IQ3_S": (8, [0]), "IQ3_XXS": (4, [0]),
    "IQ2_S": (32, [0]), "IQ2_XS": (16, [0]), "IQ2_XXS": (8, [0]), "IQ1_M": (8, []),
    "IQ1_S": (64, [0]),
}


def use_every_entry(name: str, raw: np.ndarray) -> None:
    """Puts the indices 0, 1, 2 ... into the blocks, so that the whole code book is read."""
    n = len(raw)
    if name in ("IQ3_S", "IQ3_XXS"):
        index = np.arange(64 * n).reshape(n, 64)
        raw[:, 2:66] = index & 255
        if name == "IQ3_S":
            raw[:, 66:74] = np.packbits(index >> 8 & 1, axis=1, bitorder="little")
        return
    index = np.arange(32 * n).reshape(n, 32)
    groups = index.reshape(n, 8, 4)
    if name == "IQ2_XXS":
        raw[:, 2:].reshape(n, 8, 8)[:, :, :4] = groups
    elif name == "IQ2_XS":
        words = raw[:, 2:66].copy().view(np.uint16)
        raw[:, 2:66] = (words & 0xfe00 | index.astype(np.uint16)).view(np.uint8)
    elif name == "IQ2_S":
        raw[:, 2:34] = index & 255
        raw[:, 66:74] = ((groups >> 8 & 3) << np.array([0, 2, 4, 6])).sum(2)
    elif name == "IQ1_S":
        raw[:, 2:34] = index & 255
        words = raw[:, 34:50].copy().view(np.uint16)
        high = ((groups >> 8 & 7) << np.array([0, 3, 6, 9])).sum(2).astype(np.uint16)
        raw[:, 34:50] = (words & 0xf000 | high).view(np.uint8)


def blocks_of(name: str, rng: np.random.Generator) -> np.ndarray:
    qtype = gguf.GGMLQuantizationType[name]
    n_block, halves = TYPES[name]
    _, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
    if name in ("F32", "F16", "BF16"):
        x = rng.normal(size=n_block).astype(np.float32)
        if name == "BF16":
            return (x.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(1, -1)
        return x.astype(np.float16 if name == "F16" else np.float32).view(np.uint8).reshape(1, -1)
    raw = rng.integers(0, 256, size=(n_block, block_bytes), dtype=np.uint8)
    for at in halves:
        scale = rng.normal(scale=0.1, size=n_block).astype(np.float16)
        scale[0] = np.float16(2.0**-24)  # the smallest subnormal
        scale[1] = np.float16(65504.0)   # the largest half
        raw[:, at:at + 2] = scale.view(np.uint8).reshape(n_block, 2)
    if name == "MXFP4":
        raw[:, 0] = rng.integers(100, 150, size=n_block, dtype=np.uint8)
        raw[:5, 0] = (0, 1, 2, 3, 254)
    if name.startswith(("IQ1_S", "IQ2", "IQ3")):
        use_every_entry(name, raw)
    if name == "IQ1_M":  # the half lies in the upper nibbles of four words
        scale = rng.normal(scale=0.1, size=n_block).astype(np.float16)
        scale[:2] = (2.0**-24, 65504.0)
        bits = scale.view(np.uint16)
        for j in range(4):
            nibble = (bits >> (4 * j) & 15).astype(np.uint8)
            raw[:, 49 + 2 * j] = raw[:, 49 + 2 * j] & 15 | nibble << 4
    return raw


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20240607)
    for name in TYPES:
        raw = blocks_of(name, rng)
        values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name])
        raw.tofile(out / f"{name}.blocks")
        values.astype("<f4").tofile(out / f"{name}.values")
        print(f"{name}: {raw.size} bytes, {values.size} values")


if __name__ == "__main__":
    main()
