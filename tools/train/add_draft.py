"""Add a trained draft layer to a model file, or replace the one it has.

  add_draft.py --model m.gguf --draft DRAFT/draft.safetensors --out m.gguf

The tensors that are there keep their bytes and their order, the draft layer's stand behind
them as one block more; of the metadata only the number of blocks and of draft layers change.
"""
import argparse
import os

import numpy as np
from safetensors.torch import load_file

from export_gguf import draft_block, draft_to_file, g
from model import TaleConfig
from quantize_model import FILE_TYPE, format_of

BLOCKS, DRAFTS = "qwen35moe.block_count", "qwen35moe.nextn_predict_layers"


def new_metadata(f, blocks):
    """The file's metadata with one draft layer; its key stands behind the number of blocks."""
    out = []
    for key, typ, value in f.entries():
        if key == BLOCKS:
            out += [(BLOCKS, typ, blocks), (DRAFTS, g.U32, 1)]
        elif key != DRAFTS:
            out.append((key, typ, value))
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--draft", required=True)
    ap.add_argument("--plan", default="mixed", choices=sorted(FILE_TYPE))
    ap.add_argument("--out", required=True, help="may be the model file itself")
    a = ap.parse_args()
    c, f = TaleConfig(), g.GGUF(a.model)
    own = f.meta[BLOCKS] - f.meta.get(DRAFTS, 0)
    if own != c.num_layers:
        raise SystemExit("%s has %d layers, the draft layer is of a model with %d" % (a.model, own, c.num_layers))
    kept = [t for t in f.tensors.values() if not t.name.startswith(draft_block(c))]
    tensors = [(t.name, t.format, t.shape, f.raw(t.name)) for t in kept]
    weights = size = 0
    new = draft_to_file({k: v.float().numpy() for k, v in load_file(a.draft).items()}, c)
    for name, x in new.items():
        fmt = format_of(name, a.plan)
        raw = g.encode(fmt, x)
        tensors.append((name, fmt, x.shape, raw))
        weights, size = weights + x.size, size + raw.nbytes
        error = np.sqrt(((g.decode(fmt, raw, x.size).reshape(x.shape) - x) ** 2).sum() / (x ** 2).sum())
        print("%-36s %-5s %-16s relative error %.4f" % (name, fmt, x.shape, error))
    meta, part = new_metadata(f, own + 1), a.out + ".part"
    total = g.write_gguf(part, meta, tensors, f.meta.get("general.alignment", g.ALIGN))
    back = g.GGUF(part)
    assert back.entries() == meta and list(back.tensors) == [t.name for t in kept] + list(new)
    assert all(np.array_equal(back.raw(t.name), f.raw(t.name)) for t in kept)
    os.replace(part, a.out)
    print("%s: draft layer of %d weights in %d bytes, %d bytes in all" % (a.out, weights, size, total))


if __name__ == "__main__":
    main()
