#!/usr/bin/env python3
"""Reference logits of the quantized directories that tests/support/directory.c writes.

  directory_reference.py OUT [SPEC-FORMAT ...]

Makes the same codes and scales from the generator of tiny_weights.py, decodes them by each format's published rule with
numpy and torch, and runs the transformers class on the decoded weights in float32. Knows nothing of the C code; the
definition is in tests/vectors/directory/README.md.
"""
import math
import os
import sys

import numpy as np
import torch

import hf_models
import tiny_weights

RUNS = [("qwen35moe-s", "mlx4"), ("qwen3next-s", "mlx2"), ("qwen35moe-s", "fp8"), ("qwen3next-s", "int4"),
        ("qwen3moe-s", "mxfp4"), ("qwen3moe-s", "fp8"), ("qwen3next-d", "fp8"), ("glm4moe-q", "mlx4"), ("glm4moe-q", "fp8"),
        ("glm4moe-q", "fp8-row"), ("gpt-oss-q", "blocks"), ("gpt-oss-q", "mxfp4"),
        ("deepseek2-s", "int4"), ("deepseek32-q", "fp8"), ("glm-dsa-q", "fp8"),
        ("deepseek2-s", "mlx4"), ("deepseek2-q", "mlx4"), ("deepseek32-q", "mxfp4"), ("glm-dsa-q", "mlx8")]
N_ROWS = 64
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def bf16(x):
    """float32 cut off to bfloat16."""
    return (np.asarray(x, np.float32).view(np.uint32) & np.uint32(0xffff0000)).view(np.float32)


class Directory:
    def __init__(self, name, fmt):
        self.spec, self.fmt = tiny_weights.SPECS[name], fmt
        self.mlx = fmt.startswith("mlx") or fmt == "mxfp4"
        self.inside = self.mlx and self.spec["family"].startswith("qwen") or name == "deepseek2-s"
        self.prefix = "language_model.model." if self.inside else \
            "model.language_model." if fmt == "fp8" and self.spec["family"] in ("qwen35moe", "glm4moe") else "model."
        self.group = 32 if self.spec["family"] == "gpt-oss" else 64

    def words(self, name, n):
        return tiny_weights.words(tiny_weights.key_of(name, self.spec["seed"]), n)

    def codes(self, name, n_bytes):
        return self.words(name, (n_bytes + 7) // 8).astype("<u8").view(np.uint8)[:n_bytes].copy()

    def spread(self, name, n, base):
        w = self.words(name, n)
        u = ((w >> np.uint64(48)).astype(np.int64) - 32768) / 32768.0
        return base * (1.0 + 0.25 * u), w

    def stored(self, hf):
        if hf.startswith("lm_head"):
            return ("language_model." if self.inside else "") + hf
        return self.prefix + hf[len("model."):]

    def coded(self, module, shape, std, fmt):
        """A stored matrix (or a stack) by its module's name: its decoded values."""
        n, cols = int(np.prod(shape[:-1])), shape[-1]
        if fmt.startswith("mlx"):
            bits = int(fmt[3:])
            raw = self.codes(module + ".weight", n * cols * bits // 8)
            q = np.unpackbits(raw, bitorder="little").reshape(n, cols, bits) @ (1 << np.arange(bits))
            top = 2 ** bits - 1
            rms = math.sqrt((top + 1) ** 2 - 1) / math.sqrt(12.0)
            d, w = self.spread(module + ".scales", n * cols // self.group, std / rms)
            s = bf16(np.where(w & np.uint64(1), -d, d).astype(np.float32))
            b = bf16((-top / 2 * s.astype(np.float64)).astype(np.float32))
            out = q.reshape(n, -1, self.group).astype(np.float32) * s.reshape(n, -1, 1) + b.reshape(n, -1, 1)
        elif fmt == "int4":
            raw = self.codes(module + ".weight_packed", n * cols // 2)
            q = np.stack([raw & 15, raw >> 4], -1).astype(np.float32).reshape(n, -1, 32) - 8
            s = bf16(self.spread(module + ".weight_scale", n * cols // 32, std / 4.61)[0].astype(np.float32))
            out = q * s.reshape(n, -1, 1)
        elif fmt in ("mxfp4", "blocks"):
            names = (".weight", ".scales") if fmt == "mxfp4" else ("_blocks", "_scales")
            raw = self.codes(module + names[0], n * cols // 2)
            q = E2M1[np.stack([raw & 15, raw >> 4], -1)].reshape(n, -1, 32)
            e = math.frexp(std / 2.93)[1] - 1 + (self.words(module + names[1], n * cols // 32) & np.uint64(1)).astype(np.int64)
            out = q * np.exp2(e).astype(np.float32).reshape(n, -1, 1)
        else:
            raw = self.codes(module + ".weight", n * cols)
            raw[(raw & 0x7f) == 0x7f] -= 1
            q = torch.from_numpy(raw).view(torch.float8_e4m3fn).float().numpy().reshape(n, cols)
            if fmt == "fp8-row":
                s = bf16(self.spread(module + ".weight_scale", n, std / 124.0)[0].astype(np.float32))
                return (q * s.reshape(n, 1)).reshape(shape)
            sr, sc = -(-n // 128), cols // 128
            s = self.spread(module + ".weight_scale_inv", sr * sc, std / 124.0)[0].astype(np.float32)
            out = q * s.reshape(sr, sc).repeat(128, 0)[:n].repeat(128, 1)
        return out.reshape(shape)

    def coding(self, name, cols):
        """The format of a matrix, or None for a plain one."""
        fmt, family = self.fmt, self.spec["family"]
        if fmt in ("int4", "blocks"):
            return fmt if ".experts." in name else None
        if fmt.startswith("fp8"):
            linear = ("proj" in name or "indexer.w" in name) and not name.endswith("weights_proj.weight") and \
                "in_proj_a" not in name and "in_proj_b" not in name
            return fmt if linear and cols % (128 if fmt == "fp8" else 32) == 0 else None
        if self.mlx and (family == "glm4moe" or self.spec["kv_latent"]) and "mlp.gate.weight" in name:
            return None
        if fmt == "mxfp4" and (family != "gpt-oss" or ".experts." in name):
            return fmt if cols % 32 == 0 else None
        if cols % self.group:
            return None
        return "mlx8" if fmt == "mxfp4" else fmt

    def gpt_oss_experts(self, name, shape, value):
        """The class has [expert][in][out], gate and up in turn; mlx-lm has them apart."""
        stored = (shape[0], shape[2], shape[1])
        base = self.stored(name)[:self.stored(name).index("experts.")] + "experts."
        std = value / math.sqrt(stored[-1])
        if self.fmt == "blocks" or name.endswith("down_proj"):
            part = self.coded(base + name.split(".")[-1], stored, std, self.fmt)
        else:
            half = (stored[0], stored[1] // 2, stored[2])
            part = np.stack([self.coded(base + "gate_proj", half, std, self.fmt),
                             self.coded(base + "up_proj", half, std, self.fmt)], 2).reshape(stored)
        return part.transpose(0, 2, 1)

    def kv_b(self, name, shape, value):
        """mlx-lm stores the halves apart, the keys' transposed within each head: [head][latent][nope], and
        [head][value][latent]. A half that is not coded is that of the parameter."""
        n, nope, v, latent = (self.spec[k] for k in ("heads", "head_dim", "v_dim", "kv_latent"))
        base = self.stored(name)[:-len("kv_b_proj.weight")]
        whole = bf16(tiny_weights.parameter(self.spec, name, shape, "F32")).reshape(n, nope + v, latent)
        halves = [whole[:, :nope], whole[:, nope:]]
        if self.coding(name, nope):
            halves[0] = self.coded(base + "embed_q", (n, latent, nope), value / math.sqrt(nope),
                                   self.coding(name, nope)).transpose(0, 2, 1)
        if self.coding(name, latent):
            halves[1] = self.coded(base + "unembed_out", (n, v, latent), value / math.sqrt(latent),
                                   self.coding(name, latent))
        return np.concatenate(halves, 1).reshape(shape)

    def parameter(self, name, shape):
        spec = self.spec
        kind, _, value = tiny_weights.rule_of(spec, name)
        plain = tiny_weights.parameter(spec, name, shape, "F32")
        if name.endswith("e_score_correction_bias"):
            return plain  # F32 in every directory
        if self.mlx and name.endswith("kv_b_proj.weight"):
            return self.kv_b(name, shape, value)
        if ".experts." in name and len(shape) == 3 and spec["family"] == "gpt-oss":
            return self.gpt_oss_experts(name, shape, value)
        if ".experts." in name and len(shape) == 3:
            base = self.stored(name)[:self.stored(name).index("experts.")]
            std = value / math.sqrt(shape[-1])
            outs = []
            parts = ["gate_proj", "up_proj"] if name.endswith("gate_up_proj") else ["down_proj"]
            rows = shape[1] // len(parts)
            for part in parts:
                if self.mlx:
                    outs.append(self.coded(base + "switch_mlp." + part, (shape[0], rows, shape[2]), std, self.fmt))
                else:
                    outs.append(np.stack([self.coded("%sexperts.%d.%s" % (base, e, part), (rows, shape[2]), std,
                                                     self.fmt) for e in range(shape[0])]))
            return np.concatenate(outs, 1)
        if len(shape) == 2 and "_bias" not in name and self.coding(name, shape[-1]):
            std = value if kind == "table" else value / math.sqrt(shape[-1])
            return self.coded(self.stored(name)[:-len(".weight")], tuple(shape), std, self.coding(name, shape[-1]))
        one = 1.0 if self.mlx and spec["family"] in tiny_weights.HYBRIDS and "norm.weight" in name and \
            "linear_attn.norm" not in name else 0.0
        return bf16(np.float32(one) + plain) - np.float32(one)


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    torch.set_num_threads(1)
    for name, fmt in RUNS:
        if len(sys.argv) > 2 and name + "-" + fmt not in sys.argv[2:]:
            continue
        d = Directory(name, fmt)
        model = hf_models.build(d.spec, lambda n, shape: np.ascontiguousarray(d.parameter(n, tuple(shape)), np.float32))
        ids = tiny_weights.token_ids(d.spec, N_ROWS)
        margins, gaps = [], []
        logits = hf_models.run(model, ids, margins, gaps)
        np.save("%s/%s-%s.npy" % (out, name, fmt), logits.astype(np.float32))
        if margins:
            print(name, fmt, "smallest gap of the routers %.1e" % min(m.min() for m in margins))
        print(name, fmt, "logits rms %.2f" % np.sqrt((logits ** 2).mean()),
              "smallest gap of %d choices %.1e" % (len(gaps), min(gaps)) if gaps else "")


main()
