#!/usr/bin/env python3
"""Writes tests/vectors/planar: small matrices in the formats of several planes and what the public tools decode them to.

  planar_vectors.py OUT [scales]

`scales` writes only the INT4 and FP8 matrices with other groups and types of scales, for which mlx and transformers are not needed.
NAME.planes: codes, scales, biases one after the other, as they lie in safetensors files; NAME.values: float32, row by row.
MLX: mlx.core.quantize and dequantize (0.32) with float32 scales, and bfloat16 ones whose decoded values are computed in float32 from
mlx's own codes; INT4: compressed-tensors' pack_to_int32 and unpack_from_int32; FP8: torch.float8_e4m3fn, by row also
compressed-tensors' dequantize; MXFP4:
transformers' table of E2M1 values, through its convert_moe_packed_tensors.
"""
import os
import sys

import numpy as np
import torch

OUT = sys.argv[1]
ROWS, COLS = 37, 128  # two panels and five rows


def write(name, planes, values):
    with open("%s/%s.planes" % (OUT, name), "wb") as f:
        for p in planes:
            f.write(p.tobytes())
    values.astype("<f4").tofile("%s/%s.values" % (OUT, name))


def bf16_bytes(x):
    return torch.from_numpy(np.asarray(x, np.float32)).to(torch.bfloat16).view(torch.int16).numpy()


def mlx_vectors(rng):
    import mlx.core as mx
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            w = mx.array(rng.standard_normal((ROWS, COLS)).astype(np.float32))
            q, s, b = mx.quantize(w, group_size=group, bits=bits)
            values = np.array(mx.dequantize(q, s, b, group_size=group, bits=bits))
            name = "MLX%d_g%d" % (bits, group)
            if bits == 4:
                s16, b16 = bf16_bytes(np.array(s)), bf16_bytes(np.array(b))
                wide = [mx.array(torch.from_numpy(x.copy()).view(torch.bfloat16).float().numpy())
                        for x in (s16, b16)]
                values = np.array(mx.dequantize(q, *wide, group_size=group, bits=bits))
                write(name + "_BF16", [np.array(q), s16, b16], values)
            else:
                write(name + "_F32", [np.array(q), np.array(s), np.array(b)], values)


def packing():
    try:
        from compressed_tensors.compressors.pack_quantized import pack_to_int32, unpack_from_int32
    except ImportError:
        from compressed_tensors.compressors.pack_quantized.helpers import (pack_to_int32,
                                                                           unpack_from_int32)
    return pack_to_int32, unpack_from_int32


def int4_vectors(rng):
    pack_to_int32, unpack_from_int32 = packing()
    q = torch.from_numpy(rng.integers(-8, 8, (ROWS, COLS)).astype(np.int8))
    packed = pack_to_int32(q, 4)
    assert torch.equal(unpack_from_int32(packed, 4, q.shape), q)
    scale = torch.rand(ROWS, COLS // 32).to(torch.bfloat16)
    values = q.float() * scale.float().repeat_interleave(32, 1)
    write("INT4_g32_BF16", [packed.numpy(), scale.view(torch.int16).numpy()], values.numpy())


def fp8_vectors(rng):
    codes = torch.arange(256, dtype=torch.uint8).repeat(ROWS * COLS // 256 + 1)[:ROWS * COLS]
    q = codes.reshape(ROWS, COLS).view(torch.float8_e4m3fn)
    scale = torch.tensor([[0.0173]])
    write("FP8_F32", [codes.numpy(), scale.numpy()], (q.float() * scale).numpy())


def fp8_row_vectors():
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    codes = torch.arange(256, dtype=torch.uint8).repeat(ROWS * COLS // 256 + 1)[:ROWS * COLS]
    q = codes.reshape(ROWS, COLS).view(torch.float8_e4m3fn)
    scale = (torch.linspace(0.01, 0.9, ROWS)[:, None]).to(torch.bfloat16)
    args = QuantizationArgs(num_bits=8, type="float", strategy="channel")
    values = dequantize(q, scale.float(), None, args)
    assert values.dtype == torch.float32
    write("FP8_row_BF16", [codes.numpy(), scale.view(torch.int16).numpy()], values.numpy())


def raw(scale):
    return scale.numpy() if scale.dtype == torch.float32 else scale.view(torch.int16).numpy()


def scale_vectors():
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    pack_to_int32, unpack_from_int32 = packing()
    torch.manual_seed(3)

    q = torch.from_numpy(np.random.default_rng(3).integers(-8, 8, (ROWS, COLS)).astype(np.int8))
    packed = pack_to_int32(q, 4)
    assert torch.equal(unpack_from_int32(packed, 4, q.shape), q)
    for group, name, dtype in ((32, "F16", torch.float16), (64, "BF16", torch.bfloat16),
                               (128, "BF16", torch.bfloat16)):
        scale = torch.rand(ROWS, COLS // group).to(dtype)
        args = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=group)
        values = dequantize(q, scale.float(), None, args)
        assert torch.equal(values, q.float() * scale.float().repeat_interleave(group, 1))
        write("INT4_g%d_%s" % (group, name), [packed.numpy(), raw(scale)], values.numpy())

    codes = torch.arange(256, dtype=torch.uint8).repeat(ROWS * COLS // 256 + 1)[:ROWS * COLS]
    q = codes.reshape(ROWS, COLS).view(torch.float8_e4m3fn)
    scale = torch.tensor([[0.0173]]).to(torch.bfloat16)
    write("FP8_BF16", [codes.numpy(), raw(scale)], (q.float() * scale.float()).numpy())
    exponent = torch.tensor([[118]], dtype=torch.uint8)
    scale = exponent.view(torch.float8_e8m0fnu).float()
    write("FP8_E8M0", [codes.numpy(), exponent.numpy()], (q.float() * scale).numpy())
    args = QuantizationArgs(num_bits=8, type="float", strategy="channel")
    for name, dtype in (("F32", torch.float32), ("F16", torch.float16)):
        scale = torch.linspace(0.01, 0.9, ROWS)[:, None].to(dtype)
        values = dequantize(q, scale.float(), None, args)
        write("FP8_row_" + name, [codes.numpy(), raw(scale)], values.numpy())


def mxfp4_vectors(rng):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors
    blocks = rng.integers(0, 256, (1, ROWS, COLS // 32, 16)).astype(np.uint8)
    scales = rng.integers(100, 140, (1, ROWS, COLS // 32)).astype(np.uint8)
    values = convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales),
                                        dtype=torch.float32)
    values = values.reshape(1, *values.shape[-2:])[0]
    if values.shape[0] == COLS:
        values = values.T
    write("MXFP4", [blocks, scales], values.contiguous().numpy())


def main():
    os.makedirs(OUT, exist_ok=True)
    if sys.argv[2:] == ["scales"]:
        return scale_vectors()
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    mlx_vectors(rng)
    int4_vectors(rng)
    fp8_vectors(rng)
    fp8_row_vectors()
    mxfp4_vectors(rng)
    scale_vectors()


main()
