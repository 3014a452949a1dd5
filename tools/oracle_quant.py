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
}


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
