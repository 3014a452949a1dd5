"""Train the model on one GPU; can stop at any time and go on later.

  train.py --tokenizer tokenizer.json --out CKPT --seconds 540
  train.py --tokenizer tokenizer.json --out CKPT --length 2048 --rows 32 --finish-in 520

The learning rate rises for `--warm` steps and then stays, so a run may be stopped after
`--seconds` and continued without having planned its length.  A run with `--finish-in`
measures its speed, plans how many steps fit, and lets the rate fall to zero over them.

Text is made while training by worker processes (batches.py): batch number = step number.
Matrix products run in bfloat16 with float32 weights; router, decay, norms and the
DeltaNet state stay float32.
"""
import argparse
import csv
import itertools
import multiprocessing
import os
import time

import torch

from batches import make_batch
from model import Tale, TaleConfig

BALANCE, Z = 0.02, 1e-4       # weights of the expert balance loss and the router z loss
FIELDS = ["step", "tokens", "seconds", "loss", "answer_loss", "balance", "max_over_mean_load", "grad_norm", "lr"]


def groups(model, decay):
    """Weight decay on matrices only; decay rates, biases and norms are left alone."""
    mats = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": mats, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def planned_lr(step, a, start, total):
    """Warm-up, plateau and, once `total` is known, a straight fall to zero from step `start`."""
    lr = a.lr * min(1.0, (step + 1) / a.warm)
    if total is not None:
        lr *= max(0.0, (total - step) / max(1, total - start))
    return lr


def to_device(batch, device):
    ids, weights, docs = (torch.from_numpy(x) for x in batch)
    return (ids.to(device, non_blocking=True).long(), docs.to(device, non_blocking=True).long(),
            weights.to(device, non_blocking=True).float())


class Log:
    """Loss curve as CSV; rows of an interrupted run past its last checkpoint are dropped."""

    def __init__(self, path, upto, fields=FIELDS):
        rows = []
        if os.path.exists(path):
            rows = [r for r in csv.DictReader(open(path)) if int(r["step"]) <= upto]
        self.file = open(path, "w", newline="")
        self.out = csv.DictWriter(self.file, fields)
        self.out.writeheader()
        self.out.writerows(rows)

    def add(self, **row):
        self.out.writerow(row)
        self.file.flush()


def save(path, model, opt, step, tokens, seconds):
    torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "step": step,
                "tokens": tokens, "seconds": seconds}, path + ".part")
    os.replace(path + ".part", path)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True, help="folder of the checkpoint and the loss curve")
    ap.add_argument("--rows", type=int, default=64)
    ap.add_argument("--length", type=int, default=1024)
    ap.add_argument("--lr", type=float, default=1.5e-3)
    ap.add_argument("--warm", type=int, default=300)
    ap.add_argument("--decay", type=float, default=0.1)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--seconds", type=float, default=1e9, help="stop and save after this time")
    ap.add_argument("--finish-in", type=float, help="end the training, rate falling to zero, within this time")
    ap.add_argument("--workers", type=int, default=12)
    ap.add_argument("--max-steps", type=int, default=10 ** 9)
    ap.add_argument("--no-compile", action="store_true")
    ap.add_argument("--small", action="store_true", help="a tiny model, to try the program on a CPU")
    a = ap.parse_args()
    began = time.time()
    os.makedirs(a.out, exist_ok=True)
    device = "cuda" if torch.cuda.device_count() else "cpu"
    path = os.path.join(a.out, "checkpoint.pt")
    state = torch.load(path, map_location="cpu") if os.path.exists(path) else None
    step = state["step"] if state else 0

    pool = multiprocessing.get_context("spawn").Pool(a.workers)
    stream = pool.imap(make_batch, ((a.seed, i, a.rows, a.length, a.tokenizer)
                                    for i in range(step, step + min(a.max_steps + 2, 8000))))
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(a.seed)
    config = TaleConfig(num_layers=4, hidden_size=128, num_heads=4, head_dim=32, rotary_dim=16, num_experts=8,
                        top_k=2, linear_k_heads=2, linear_v_heads=2) if a.small else TaleConfig()
    model = Tale(config, torch.bfloat16 if device == "cuda" else torch.float32).to(device)
    opt = torch.optim.AdamW(groups(model, a.decay), lr=a.lr, betas=(0.9, 0.95), eps=1e-9, fused=device == "cuda")
    tokens, seconds = 0, 0.0
    if state:
        model.load_state_dict(state["model"])
        opt.load_state_dict(state["opt"])
        tokens, seconds = state["tokens"], state["seconds"]
        del state
    if device == "cuda" and not a.no_compile:
        for layer in model.model.layers:
            layer.compile(dynamic=False)
    log = Log(os.path.join(a.out, "loss.csv"), step)
    print("parameters %.2f M, starting at step %d" % (sum(p.numel() for p in model.parameters()) / 1e6, step), flush=True)

    first, total, fall_from, mark = step, None, step, None
    data = (to_device(b, device) for b in stream)
    ahead = next(data)
    for _ in itertools.count():
        batch, ahead = ahead, next(data)
        lr = planned_lr(step, a, fall_from, total)
        for g in opt.param_groups:
            g["lr"] = lr
        loss, balance, z, load, answer = model.losses(*batch)
        (loss + BALANCE * balance + Z * z).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + a.rows * a.length
        spent = time.time() - began
        if step - first == 40:
            loss.item()
            mark = time.time()
        if step - first == 140 and a.finish_in:
            loss.item()
            rate = 100 / (time.time() - mark)
            fall_from, total = step, step + int((a.finish_in - (time.time() - began)) * rate * 0.985)
            print("%.2f steps/s, ends at step %d" % (rate, total), flush=True)
        if step % 20 == 0 or step - first <= 3:
            worst = (load.max(1).values * load.shape[1]).max()
            loss, answer, balance, worst, norm = (float(x.detach()) for x in (loss, answer, balance, worst, norm))
            log.add(step=step, tokens=tokens, seconds="%.1f" % (seconds + spent), loss="%.4f" % loss,
                    answer_loss="%.4f" % answer, balance="%.4f" % balance, max_over_mean_load="%.3f" % worst,
                    grad_norm="%.3f" % norm, lr="%.3e" % lr)
            if step % 200 == 0 or step - first <= 3:
                print("step %d loss %.4f answers %.4f balance %.3f load %.2f norm %.2f, %.0f s, %.0f tokens/s" % (
                    step, loss, answer, balance, worst, norm, spent, (step - first) * a.rows * a.length / spent), flush=True)
        if spent > a.seconds or step - first >= a.max_steps or (total and step >= total):
            break
    save(path, model, opt, step, tokens, seconds + time.time() - began)
    torch.save(model.state_dict(), os.path.join(a.out, "weights.pt"))
    pool.terminate()
    print("saved at step %d, %.0f M tokens" % (step, tokens / 1e6), flush=True)


if __name__ == "__main__":
    main()
