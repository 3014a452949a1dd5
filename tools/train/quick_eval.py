"""Exact-answer accuracy straight from a training checkpoint (no caches, for a first look).

Every new token costs a full pass over the rows, which a GPU does not mind; the scores
that are reported come from evaluate.py, which uses transformers on the exported weights.
"""
import argparse
import os

import torch

import corpus
from batches import tokenizer
from model import CHUNK, Tale, TaleConfig


@torch.no_grad()
def answers(model, tok, prompts, limit, device):
    ids = [tok.encode(p, add_special_tokens=False).ids for p in prompts]
    length = -(-(max(map(len, ids)) + limit) // CHUNK) * CHUNK
    rows = torch.zeros(len(ids), length, dtype=torch.long, device=device)
    for i, x in enumerate(ids):
        rows[i, :len(x)] = torch.tensor(x)
    at = torch.tensor([len(x) for x in ids], device=device)
    n = torch.arange(len(ids), device=device)
    stop, done = tok.token_to_id("<|im_end|>"), torch.zeros(len(ids), dtype=torch.bool, device=device)
    doc = torch.zeros_like(rows)
    for _ in range(limit):
        logits = model(rows, doc)[n, at - 1]
        new = logits.argmax(-1)
        rows[n, at] = torch.where(done, 0, new)
        at = torch.where(done, at, at + 1)
        done |= new == stop
        if done.all():
            break
    out = []
    for i, x in enumerate(ids):
        text = rows[i, len(x):at[i]].tolist()
        out.append(tok.decode(text[:-1] if text and text[-1] == stop else text, skip_special_tokens=False))
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--weights", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--count", type=int, default=128)
    a = ap.parse_args()
    device = "cuda" if torch.cuda.device_count() else "cpu"
    model = Tale(TaleConfig(), torch.float32).to(device).eval()
    model.load_state_dict(torch.load(a.weights, map_location=device))
    tok = tokenizer(os.path.abspath(a.tokenizer))
    for task in corpus.TASKS:
        qs = corpus.questions(task, 8 if task == "stories" else a.count)
        got = answers(model, tok, [q["rendered"] for q in qs], 320 if task == "stories" else 64, device)
        good = sum(g == q["expected"] for g, q in zip(got, qs))
        print("%-14s %d of %d" % (task, good, len(qs)))
        for g, q in list(zip(got, qs))[:2] if task == "stories" else [(g, q) for g, q in zip(got, qs) if g != q["expected"]][:6]:
            print("   %r -> %r, expected %r" % (q["prompt"][-120:], g, q["expected"][:200]))


if __name__ == "__main__":
    main()
