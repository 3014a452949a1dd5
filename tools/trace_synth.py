#!/usr/bin/env python3
"""Writes a routing trace (docs/formats.md) of a model that does not exist, with chosen statistics.

    trace_synth.py OUT.fmr [--layers L] [--experts N] [--used K] [--sizes BYTES[,BYTES...]]
                   [--turns PROMPT:GEN[,PROMPT:GEN...]] [--popularity P] [--topic T] [--drift D]
                   [--drift-tokens H] [--topic-tokens N] [--topics M] [--batch B] [--seed S]

A router's score of an expert is the sum of four parts, of which the K largest win: what the expert
is worth everywhere (standard deviation P, spread over layers by a factor of 0.6 to 1.4), what it is worth
for the present topic (T; the topic changes about every N tokens, among M), a part that drifts
(D; an AR(1) process that forgets half in H tokens), and noise of standard deviation 1. All zero is
uniform routing. With --report it prints what published measurements print: the share of a token's
experts that the token before chose too, and how many experts cover 80 % of the choices.

Each turn is a prompt, layer by layer in passes of B tokens, then GEN single tokens; the first turn starts
at position 0, the others continue. --fresh starts every turn at position 0 (a new conversation).
"""
import argparse
import struct
import sys

import numpy as np


def route(args, n_tok, rng):
    """Expert ids [n_tok, n_layer, n_used], the best first."""
    shape = (args.layers, args.experts)
    spread = np.linspace(0.6, 1.4, args.layers)
    rng.shuffle(spread)
    worth = args.popularity * spread[:, None] * rng.standard_normal(shape)
    topics = args.topic * rng.standard_normal((args.topics, *shape))
    keep = 0.5 ** (1 / args.drift_tokens)
    step = np.sqrt(1 - keep * keep)
    drift = rng.standard_normal(shape)
    ids = np.empty((n_tok, args.layers, args.used), np.uint16)
    topic = 0
    for t in range(n_tok):
        if rng.random() < 1 / args.topic_tokens:
            topic = rng.integers(args.topics)
        drift = keep * drift + step * rng.standard_normal(shape)
        score = worth + topics[topic] + args.drift * drift + rng.standard_normal(shape)
        best = np.argpartition(-score, args.used - 1, axis=1)[:, : args.used]
        order = np.argsort(-np.take_along_axis(score, best, 1), axis=1)
        ids[t] = np.take_along_axis(best, order, 1)
    return ids


def report(args, ids):
    shared = [np.intersect1d(a, b).size
              for before, after in zip(ids[:-1], ids[1:]) for a, b in zip(before, after)]
    cover = []
    for layer in range(args.layers):
        count = np.sort(np.bincount(ids[:, layer].ravel(), minlength=args.experts))[::-1]
        cover.append(np.searchsorted(np.cumsum(count), 0.8 * count.sum()) + 1)
    print(f"{args.out}: neighbours share {np.mean(shared) / args.used:.1%}, 80 % in "
          f"{np.mean(cover):.0f} of {args.experts} experts ({min(cover)} to {max(cover)})",
          file=sys.stderr)


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("out")
    p.add_argument("--layers", type=int, default=40)
    p.add_argument("--experts", type=int, default=256)
    p.add_argument("--used", type=int, default=8)
    p.add_argument("--sizes", default="1769472", help="bytes of an expert, cyclic over layers")
    p.add_argument("--turns", default="512:512")
    p.add_argument("--popularity", type=float, default=0)
    p.add_argument("--topic", type=float, default=0)
    p.add_argument("--drift", type=float, default=0)
    p.add_argument("--drift-tokens", type=float, default=2)
    p.add_argument("--topic-tokens", type=float, default=300)
    p.add_argument("--topics", type=int, default=4)
    p.add_argument("--batch", type=int, default=512)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--fresh", action="store_true")
    p.add_argument("--report", action="store_true")
    args = p.parse_args()

    turns = [tuple(map(int, turn.split(":"))) for turn in args.turns.split(",")]
    ids = route(args, sum(a + b for a, b in turns), np.random.default_rng(args.seed))
    if args.report:
        report(args, ids)
    sizes = [int(s) for s in args.sizes.split(",")]
    name = b"synthetic routing"
    with open(args.out, "wb") as out:
        out.write(b"FMROUTE1" + struct.pack("<III", args.layers, args.used, len(name)) + name)
        for layer in range(args.layers):
            out.write(struct.pack("<IQ", args.experts, sizes[layer % len(sizes)]))
        at = pos = 0

        def write_pass(phase, n):
            nonlocal at, pos
            out.write(struct.pack("<BBIQ", 1, phase, n, pos))
            for layer in range(args.layers):
                out.write(struct.pack("<BH", 2, layer))
                out.write(ids[at:at + n, layer].astype("<u2").tobytes())
            at += n
            pos += n

        for n_prompt, n_gen in turns:
            if args.fresh:
                pos = 0
            for first in range(0, n_prompt, args.batch):
                write_pass(0, min(args.batch, n_prompt - first))
            for _ in range(n_gen):
                write_pass(1, 1)


if __name__ == "__main__":
    main()
