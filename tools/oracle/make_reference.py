#!/usr/bin/env python3
"""Makes the reference logits of the tiny models with transformers.

  make_reference.py --out DIR [NAME ...]    writes <spec>-<type>.npy and <spec>.ids.npy, for some
                                            <spec>-long.npy: the last rows of a longer sequence, or
                                            <spec>-draft.npy: the logits of the draft layer
  make_reference.py --seeds N [NAME ...]    tries N seeds per spec, prints their router margins
  make_reference.py --check DIR             makes all of them again and compares bit for bit

Prints for every model the smallest relative gap between the last chosen and the first rejected
expert (and position, where attention is sparse), the spread of the logits, and how far a run token by token (recurrent form, with cache) is
from the stored run over the whole sequence (chunked form).
"""
import argparse
import os
import sys

import numpy as np
import torch
import transformers

import hf_models
import tiny_weights


# spec -> tokens of a longer sequence, of which the last LONG_ROWS rows are stored (type F32)
LONG = {"deepseek2-a": 1150}
LONG_ROWS = 8


def long_logits(name):
    spec = tiny_weights.SPECS[name]
    model = hf_models.build(spec, lambda n, shape: tiny_weights.parameter(spec, n, shape, "F32"))
    return hf_models.run(model, tiny_weights.token_ids(spec, LONG[name]))[-LONG_ROWS:]


# specs whose draft layer has a reference, in the type the spec is stored in
DRAFT = ("qwen35moe-e", "qwen35moe-r", "qwen3next-e", "glm4moe-b")


def draft_logits(name, spec=None, margins=None):
    spec = spec or tiny_weights.SPECS[name]
    fmt, = tiny_weights.types_of(name)

    def weight_of(n, shape):
        return tiny_weights.parameter(spec, n, shape, fmt)

    model = hf_models.build(spec, weight_of)
    ids = tiny_weights.token_ids(spec, hf_models.N_TOKENS)
    return hf_models.run_draft(spec, model, weight_of, ids, margins)


def logits_of(name, fmt, spec=None, margins=None, stepwise=False, gaps=None):
    spec = spec or tiny_weights.SPECS[name]
    model = hf_models.build(spec, lambda n, shape: tiny_weights.parameter(spec, n, shape, fmt))
    ids = tiny_weights.token_ids(spec, hf_models.N_TOKENS)
    logits = hf_models.run(model, ids, margins, gaps)
    if not stepwise:
        return ids, logits, None
    rows, cache = [], None
    with torch.no_grad():
        for t in range(len(ids)):
            out = model(torch.tensor([[int(ids[t])]]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            rows.append(out.logits[0, -1].numpy())
    return ids, logits, np.stack(rows)


def row_error(a, b):
    """Largest over rows of max |a - b| / max |b|."""
    return float((np.abs(a - b).max(-1) / np.abs(b).max(-1)).max())


def try_seeds(names, n):
    for name in names:
        formats = [fmt for run, fmt in tiny_weights.all_runs() if run == name]
        for seed in range(1, n + 1):
            spec = dict(tiny_weights.SPECS[name], seed=seed)
            worst = []
            for fmt in formats:
                margins, gaps = [], []
                logits_of(name, fmt, spec, margins, gaps=gaps)
                worst.append(min([float(m.min()) for m in margins], default=np.inf))
                if gaps:
                    worst.append(min(gaps))
            if name in DRAFT:
                margins = []
                draft_logits(name, spec, margins)
                worst += [float(m.min()) for m in margins]
            print("%s seed %d: %s" % (name, seed, " ".join("%.1e" % w for w in worst)), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out")
    ap.add_argument("--check")
    ap.add_argument("--seeds", type=int)
    ap.add_argument("names", nargs="*")
    args = ap.parse_args()
    torch.set_num_threads(1)
    print("torch %s, transformers %s, numpy %s"
          % (torch.__version__, transformers.__version__, np.__version__))
    names = args.names or list(tiny_weights.SPECS)
    if args.seeds:
        return try_seeds(names, args.seeds)
    if not args.out and not args.check:
        ap.error("--out, --check or --seeds")
    bad = 0
    for name, fmt in tiny_weights.all_runs():
        if name not in names:
            continue
        margins, gaps = [], []
        ids, logits, steps = logits_of(name, fmt, margins=margins, stepwise=True, gaps=gaps)
        margin = min([m.min() for m in margins], default=np.inf)
        print("%-12s %-5s margin %.1e  logits rms %.2f max %.1f  token by token %.1e"
              % (name, fmt, margin, np.sqrt((logits ** 2).mean()),
                 np.abs(logits).max(), row_error(steps, logits)), end="")
        if gaps:
            print("  smallest gap of %d choices of positions %.1e" % (len(gaps), min(gaps)), end="")
        paths = [(args.out or args.check) + "/%s-%s.npy" % (name, fmt),
                 (args.out or args.check) + "/%s.ids.npy" % name]
        if args.out:
            np.save(paths[0], logits.astype(np.float32))
            np.save(paths[1], ids)
            print()
        else:
            same = all(np.array_equal(np.load(p), x) for p, x in zip(paths, (logits, ids)))
            bad += not same
            print("  same" if same else "  DIFFERENT")
    for name in LONG:
        if name not in names:
            continue
        path, logits = "%s/%s-long.npy" % (args.out or args.check, name), long_logits(name)
        if args.out:
            np.save(path, logits.astype(np.float32))
        else:
            bad += not np.array_equal(np.load(path), logits)
    for name in DRAFT:
        if name not in names:
            continue
        margins = []
        path, logits = "%s/%s-draft.npy" % (args.out or args.check, name), draft_logits(name, margins=margins)
        print("%-12s draft margin %.1e  logits rms %.2f max %.1f"
              % (name, min([m.min() for m in margins], default=np.inf), np.sqrt((logits ** 2).mean()),
                 np.abs(logits).max()), end="")
        if args.out:
            np.save(path, logits.astype(np.float32))
            print()
        else:
            same = np.array_equal(np.load(path), logits)
            bad += not same
            print("  same" if same else "  DIFFERENT")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    os.nice(10)
    main()
