#!/usr/bin/env python3
"""Writes a tiny model (tiny_weights.py) as a Hugging Face directory, with transformers' save_pretrained where the format is
transformers' own.

  make_directory.py SPEC OUT [--format F] [--dtype D] [--shards N] [--per-expert] [--multimodal]

Formats: plain (F32, BF16 or F16), mlx2 ... mlx8 (affine, group 32, 64 or 128: --group), fp8, int4, mxfp4. The values of the
quantized ones are those of the spec rounded by the format's reference rule; reference logits of the decoded weights are
written with --logits FILE.npy.
"""
import argparse
import json
import os

import numpy as np
import torch
from safetensors.torch import save_file

import hf_models
import tiny_weights

SCALE = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def affine(w, bits, group, dtype):
    """MLX's quantizer (mlx/ops.cpp, quantize): codes, scales, biases and the decoded values."""
    n = 2 ** bits - 1
    g = w.float().reshape(*w.shape[:-1], -1, group)
    lo, hi = g.amin(-1, keepdim=True), g.amax(-1, keepdim=True)
    s = torch.clamp((hi - lo) / n, min=1e-7)
    left = lo.abs() > hi.abs()
    s = torch.where(left, s, -s)
    edge = torch.where(left, lo, hi)
    q0 = torch.round(edge / s)
    s = torch.where(q0 != 0, edge / q0, s)
    bias = torch.where(q0 != 0, edge, torch.zeros_like(edge))
    s, bias = s.to(dtype).float(), bias.to(dtype).float()
    q = torch.clamp(torch.round((g - bias) / s), 0, n)
    decoded = (q * s + bias).reshape(w.shape)
    return pack_bits(q.reshape(w.shape).to(torch.int64), bits), s[..., 0].to(dtype), \
        bias[..., 0].to(dtype), decoded


def pack_bits(q, bits):
    """Codes of `bits` bits along the last axis, lowest first, as u32 words."""
    shape = q.shape
    planes = (q.reshape(-1, shape[-1]).numpy()[..., None] >> np.arange(bits)) & 1
    flat = planes.reshape(planes.shape[0], -1).astype(np.uint8)
    data = np.packbits(flat, axis=-1, bitorder="little")
    return torch.from_numpy(data.view("<u4").reshape(*shape[:-1], -1).copy())


def int4(w, dtype, group=32):
    """compressed-tensors, pack-quantized, symmetric: eight codes + 8 in an i32, lowest first."""
    g = w.float().reshape(*w.shape[:-1], -1, group)
    s = (g.abs().amax(-1, keepdim=True) / 7.5).clamp(min=1e-9).to(dtype).float()
    q = torch.clamp(torch.round(g / s), -8, 7)
    packed = pack_bits((q.reshape(w.shape) + 8).to(torch.int64), 4).numpy().view(np.int32)
    return torch.from_numpy(packed.copy()), s[..., 0].to(dtype), (q * s).reshape(w.shape)


def fp8(w, ue8m0=False):
    rows, cols = -(-w.shape[-2] // 128), -(-w.shape[-1] // 128)
    scale = torch.empty(rows, cols)
    q = torch.empty(w.shape, dtype=torch.float8_e4m3fn)
    out = torch.empty(w.shape)
    for i in range(rows):
        for j in range(cols):
            b = (slice(i * 128, i * 128 + 128), slice(j * 128, j * 128 + 128))
            s = w[b].abs().max().clamp(min=1e-9) / 448
            if ue8m0:
                s = 2.0 ** torch.ceil(torch.log2(s))
            scale[i, j] = s
            q[b] = (w[b] / s).to(torch.float8_e4m3fn)
            out[b] = q[b].float() * s
    return q, scale, out


E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])


def mxfp4(w):
    """OCP MX, group 32: codes (even column low), E8M0 scales."""
    g = w.float().reshape(*w.shape[:-1], -1, 32)
    e = torch.floor(torch.log2(g.abs().amax(-1, keepdim=True).clamp(min=1e-30))) - 2
    q = ((g / 2.0 ** e)[..., None] - E2M1).abs().argmin(-1)
    decoded = (E2M1[q] * 2.0 ** e).reshape(w.shape)
    return pack_bits(q.reshape(w.shape), 4), (e[..., 0] + 127).to(torch.uint8), decoded


def names_of(args):
    """Prefix of the language model, and whether experts are stored one by one."""
    if args.format.startswith("mlx") or args.format == "mxfp4":
        return "language_model.model.", "switch"
    return ("model.language_model." if args.multimodal else "model."), \
        ("one" if args.per_expert or args.format in ("fp8", "int4") else "fused")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("spec")
    ap.add_argument("out")
    ap.add_argument("--format", default="plain")
    ap.add_argument("--dtype", default="F32", choices=SCALE)
    ap.add_argument("--group", type=int, default=64)
    ap.add_argument("--shards", type=int, default=1)
    ap.add_argument("--per-expert", action="store_true")
    ap.add_argument("--multimodal", action="store_true")
    ap.add_argument("--ue8m0", action="store_true")
    ap.add_argument("--logits")
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)
    spec = tiny_weights.SPECS[args.spec]
    model = hf_models.build(spec, lambda n, s: tiny_weights.parameter(spec, n, s, "F32"))
    config = json.loads(model.config.to_json_string(use_diff=False))
    prefix, experts = names_of(args)
    dtype = SCALE[args.dtype]
    files, decoded = {}, {}
    is_mlx = prefix.startswith("language_model")
    has_linear = spec["family"] != "qwen3moe"

    def put_matrix(name, w):
        """A module's matrix in the format; returns what it decodes to."""
        cols = w.shape[-1]
        if args.format.startswith("mlx") and cols % args.group == 0:
            q, s, b, out = affine(w, int(args.format[3:]), args.group, dtype)
            files[name + ".weight"], files[name + ".scales"], files[name + ".biases"] = q, s, b
        elif args.format == "mxfp4" and cols % 32 == 0:
            q, s, out = mxfp4(w)
            files[name + ".weight"], files[name + ".scales"] = q, s
        elif args.format == "fp8" and cols % 128 == 0 and ("proj" in name and "in_proj_a" not in name and "in_proj_b" not in name):
            q, s, out = fp8(w, args.ue8m0)
            files[name + ".weight"], files[name + ".weight_scale_inv"] = q, s
        elif args.format == "int4" and cols % 32 == 0 and ".experts." in name:
            q, s, out = int4(w, torch.bfloat16)
            files[name + ".weight_packed"], files[name + ".weight_scale"] = q, s
            files[name + ".weight_shape"] = torch.tensor(w.shape, dtype=torch.int32)
        else:
            stored = w.to(dtype)
            files[name + ".weight"], out = stored, stored.float()
        return out

    for name, p in model.named_parameters():
        w = p.detach().float()
        short = name[len("model."):] if name.startswith("model.") else name
        target = (("language_model." if is_mlx else "") + short) if short.startswith("lm_head") else prefix + short
        if "mlp.experts." in name:
            base, which = target.rsplit(".", 1)
            halves = w.chunk(2, 1) if which == "gate_up_proj" else [w]
            parts = ["gate_proj", "up_proj"] if which == "gate_up_proj" else ["down_proj"]
            if experts == "fused":
                files[target] = w.to(dtype)
                decoded[name] = files[target].float()
                continue
            outs = []
            for part, half in zip(parts, halves):
                if experts == "switch":
                    outs.append(put_matrix(base.replace("experts", "switch_mlp") + "." + part, half))
                else:
                    outs.append(torch.stack([put_matrix("%s.%d.%s" % (base, e, part), half[e])
                                             for e in range(len(half))]))
            decoded[name] = torch.cat(outs, 1)
        elif w.ndim == 2 and name.endswith(".weight"):
            decoded[name] = put_matrix(target[:-len(".weight")], w)
        else:
            if is_mlx and has_linear and "norm.weight" in name and "linear_attn.norm" not in name:
                stored = (w + 1).to(dtype)
                decoded[name] = stored.float() - 1
            else:
                stored = w.to(dtype)
                decoded[name] = stored.float()
            files[target] = stored.movedim(2, 1).contiguous() if is_mlx and "conv1d" in name else stored
    if args.multimodal:
        files["model.visual.patch_embed.proj.weight"] = torch.zeros(4, 4)
        files["mtp.fc.weight"] = torch.zeros(4, 8)
        config = {"model_type": "qwen3_5_moe", "text_config": config}
    if args.format.startswith("mlx"):
        config["quantization"] = {"group_size": args.group, "bits": int(args.format[3:])}
    elif args.format == "mxfp4":
        config["quantization"] = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    elif args.format == "fp8":
        config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    elif args.format == "int4":
        config["quantization_config"] = {"quant_method": "compressed-tensors", "config_groups": {
            "group_0": {"weights": {"num_bits": 4, "type": "int", "symmetric": True, "group_size": 32}}}}
    json.dump(config, open(args.out + "/config.json", "w"), indent=1)
    files = {k: v.contiguous().clone() for k, v in files.items()}
    if args.shards == 1:
        save_file(files, args.out + "/model.safetensors")
    else:
        where = {}
        for i in range(args.shards):
            shard = "model-%05d-of-%05d.safetensors" % (i + 1, args.shards)
            part = {k: v for n, (k, v) in enumerate(files.items()) if n % args.shards == i}
            save_file(part, args.out + "/" + shard)
            where.update({k: shard for k in part})
        json.dump({"metadata": {}, "weight_map": where},
                  open(args.out + "/model.safetensors.index.json", "w"))
    if args.logits:
        again = hf_models.build(spec, lambda n, s: decoded[n].numpy())
        ids = tiny_weights.token_ids(spec, hf_models.N_TOKENS)
        np.save(args.logits, hf_models.run(again, ids).astype(np.float32))


if __name__ == "__main__":
    main()
