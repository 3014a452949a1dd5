"""Train the draft layer of a finished model on one GPU: the network itself stays as it is.

  train_draft.py --model m.gguf --tokenizer tokenizer.json --out DRAFT --finish-in 300
  train_draft.py --model m.gguf --tokenizer tokenizer.json --score      only the held-out figures

The draft layer (model.py) guesses the token after the next.  It learns from the states of
the stored, quantized weights, since those are what an engine will feed it with, and from the
text and with the balance loss the network was trained with.  Text that training has not
seen before: another seed.

Beside the loss, the share of guesses that equal the network's own first choice once it has
read the next token ("equal"): what greedy decoding accepts.  Written are draft.safetensors
(large matrices in bfloat16), draft_loss.csv and draft_scores.json (held-out documents by task).
"""
import argparse
import json
import multiprocessing
import os
import time

import torch
from safetensors.torch import save_file

import corpus
from batches import encode, fill_rows, make_batch, tokenizer
from convert_checkpoint import is_large
from export_gguf import draft_block, draft_from_file, from_file, g
from model import CHUNK, Draft, Tale, TaleConfig, mean_over, target_weight, token_loss
from train import BALANCE, Z, Log, groups, planned_lr, to_device

FIELDS = ["step", "tokens", "seconds", "loss", "answer_loss", "equal", "answer_equal", "balance",
          "max_over_mean_load", "grad_norm", "lr"]


def load(path, device, in_dtype):
    """The network of a GGUF file, frozen, and the file's draft layer or None."""
    c, f = TaleConfig(), g.GGUF(path)
    t = {n: f.array(n) for n in f.tensors}

    def into(module, sd):
        module.load_state_dict({k: torch.from_numpy(v) for k, v in sd.items()})
        return module.to(device).eval().requires_grad_(False)

    model, draft = into(Tale(c, in_dtype), from_file(t, c)), None
    if draft_block(c) + "nextn.eh_proj.weight" in t:
        draft = into(Draft(c, in_dtype), {k.removeprefix("mtp."): v for k, v in draft_from_file(t, c).items()})
    return model, draft


@torch.no_grad()
def equal(model, state, logits, doc, weight):
    """Share of positions where the draft's first choice for the token at t + 2 is the network's at t + 1:
    of all positions and of those whose token is part of an answer."""
    same = (logits[:, :-2].argmax(-1) == model.head(state[:, 1:-1]).argmax(-1)).float()
    w = target_weight(doc, weight, 2)
    return mean_over(same, (w > 0).float()), mean_over(same, (w > 0.99).float())


@torch.no_grad()
def heldout_scores(model, draft, tok, count, length, device):
    """{task: figures} over the answers of held-out documents."""
    out = {}
    for task, docs in corpus.heldout_documents(count).items():
        coded = encode(tok, docs)
        longest = -(-max(len(tokens) for tokens, _ in coded) // CHUNK) * CHUNK
        arrays, sums, n = fill_rows(coded, max(length, longest)), [0.0, 0.0], 0.0
        for a in range(0, len(arrays[0]), 4):
            ids, doc, weight = to_device([x[a:a + 4] for x in arrays], device)
            state = model.hidden(ids, doc)[0]
            logits = model.head(draft(model, state, ids, doc)[0])
            tokens = float((target_weight(doc, weight, 2) > 0.99).sum())
            for i, x in enumerate((token_loss(logits, ids, doc, weight, 2)[1], equal(model, state, logits, doc, weight)[1])):
                sums[i] += float(x) * tokens
            n += tokens
        out[task] = {"documents": len(docs), "tokens": int(n), "loss": round(sums[0] / n, 4), "equal": round(sums[1] / n, 4)}
        print("%-14s %6d tokens of answers, loss %.4f, equal %.2f %%" % (task, n, sums[0] / n, 100 * sums[1] / n), flush=True)
    return out


def train(a, model, device, in_dtype):
    began = time.time()
    draft = Draft(model.c, in_dtype).to(device)
    draft.start_from(model)
    opt = torch.optim.AdamW(groups(draft, a.decay), lr=a.lr, betas=(0.9, 0.95), eps=1e-9, fused=device == "cuda")
    pool = multiprocessing.get_context("spawn").Pool(a.workers)
    data = (to_device(b, device) for b in pool.imap(make_batch, (
        (a.seed, i, a.rows, a.length, a.tokenizer) for i in range(min(a.max_steps + 1, 12000)))))
    if device == "cuda" and not a.no_compile:
        for layer in [*model.model.layers, *draft.layers]:
            layer.compile(dynamic=False)
    log = Log(os.path.join(a.out, "draft_loss.csv"), -1, FIELDS)
    print("draft layer: %.2f M parameters" % (sum(p.numel() for p in draft.parameters()) / 1e6), flush=True)

    step, fall_from, mark = 0, 0, None
    total = None if a.finish_in else a.max_steps
    for ids, doc, weight in data:
        lr = planned_lr(step, a, fall_from, total)
        for group in opt.param_groups:
            group["lr"] = lr
        with torch.no_grad():
            state = model.hidden(ids, doc)[0]
        out, balance, z, load = draft(model, state, ids, doc)
        logits = model.head(out)
        loss, answer = token_loss(logits, ids, doc, weight, 2)
        (loss + BALANCE * balance + Z * z).backward()
        norm = torch.nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step += 1
        if step == 40:
            loss.item()
            mark = time.time()
        if step == 140 and a.finish_in:
            loss.item()
            rate = 100 / (time.time() - mark)
            fall_from, total = step, step + max(1, int((a.finish_in - (time.time() - began)) * rate * 0.985))
            print("%.2f steps/s, ends at step %d" % (rate, total), flush=True)
        if step % 20 == 0 or step <= 3 or step == total:
            same, answer_same = equal(model, state, logits, doc, weight)
            worst = load.max() * load.shape[1]
            loss, answer, same, answer_same, balance, worst, norm = (
                float(x.detach()) for x in (loss, answer, same, answer_same, balance, worst, norm))
            spent = time.time() - began
            log.add(step=step, tokens=step * a.rows * a.length, seconds="%.1f" % spent, loss="%.4f" % loss,
                    answer_loss="%.4f" % answer, equal="%.4f" % same, answer_equal="%.4f" % answer_same,
                    balance="%.4f" % balance, max_over_mean_load="%.3f" % worst, grad_norm="%.3f" % norm, lr="%.3e" % lr)
            if step % a.show == 0 or step <= 3 or step == total:
                print("step %d loss %.4f answers %.4f equal %.4f answers %.4f load %.2f norm %.2f, %.0f s, %.0f tokens/s" % (
                    step, loss, answer, same, answer_same, worst, norm, spent, step * a.rows * a.length / spent), flush=True)
        if step >= a.max_steps or (total and step >= total):
            break
    pool.terminate()
    seconds = time.time() - began
    print("%d steps, %.1f M tokens, %.0f s" % (step, step * a.rows * a.length / 1e6, seconds), flush=True)
    return draft.eval(), {"steps": step, "tokens": step * a.rows * a.length, "seconds": round(seconds, 1)}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model", required=True, help="GGUF file of the finished network")
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", help="folder of the weights, the loss curve and the scores")
    ap.add_argument("--score", action="store_true", help="no training: score the draft layer in the file")
    ap.add_argument("--rows", type=int, default=32)
    ap.add_argument("--length", type=int, default=2048)
    ap.add_argument("--lr", type=float, default=1.5e-3)
    ap.add_argument("--warm", type=int, default=200)
    ap.add_argument("--decay", type=float, default=0.1)
    ap.add_argument("--seed", type=int, default=2)
    ap.add_argument("--finish-in", type=float, help="end, rate falling to zero, within this many seconds")
    ap.add_argument("--max-steps", type=int, default=12000, help="without --finish-in the rate falls to zero over these")
    ap.add_argument("--show", type=int, default=200, help="print every so many steps (a multiple of 20)")
    ap.add_argument("--docs", type=int, default=60, help="held-out documents per task")
    ap.add_argument("--workers", type=int, default=12)
    ap.add_argument("--no-compile", action="store_true")
    a = ap.parse_args()
    if not a.score and not a.out:
        ap.error("--out is needed to train")
    device = "cuda" if torch.cuda.device_count() else "cpu"
    in_dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(a.seed)
    model, draft = load(a.model, device, in_dtype)
    tok = tokenizer(a.tokenizer)
    if a.score:
        if draft is None:
            raise SystemExit("%s has no draft layer" % a.model)
        heldout_scores(model, draft, tok, a.docs, a.length, device)
        return
    os.makedirs(a.out, exist_ok=True)
    draft, run = train(a, model, device, in_dtype)
    save_file({"mtp." + k: (v.bfloat16() if is_large(k, v) else v.float()).cpu().contiguous()
               for k, v in draft.state_dict().items()}, os.path.join(a.out, "draft.safetensors"))
    with torch.compiler.set_stance("force_eager"):          # other shapes than in training
        scores = heldout_scores(model, draft, tok, a.docs, a.length, device)
    json.dump({**run, "heldout": scores}, open(os.path.join(a.out, "draft_scores.json"), "w"), indent=1)


if __name__ == "__main__":
    main()
