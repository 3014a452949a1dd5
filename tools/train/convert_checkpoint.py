"""Training weights (weights.pt) -> the reference checkpoint: safetensors and a transformers config.

The large matrices are rounded to bfloat16, as checkpoints of such models usually are, and
stored as float32; routers, norms, convolution and decay rates keep their float32 values.
"""
import argparse
import os

import torch
from safetensors.torch import save_file

from model import TaleConfig


def is_large(name, x):
    return x.dim() >= 2 and "conv1d" not in name and "mlp.gate.weight" not in name


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--weights", required=True)
    ap.add_argument("--out", required=True, help="folder for model-f32.safetensors and config.json")
    a = ap.parse_args()
    out = {}
    for name, x in torch.load(a.weights, map_location="cpu").items():
        out[name] = (x.bfloat16().float() if is_large(name, x) else x.float()).contiguous()
    os.makedirs(a.out, exist_ok=True)
    save_file(out, os.path.join(a.out, "model-f32.safetensors"))
    TaleConfig().to_hf().save_pretrained(a.out)
    print("%d tensors, %d weights" % (len(out), sum(x.numel() for x in out.values())))


if __name__ == "__main__":
    main()
