"""Scores of a model file with transformers: accuracy, perplexity, expert load.

  evaluate.py --model flashmoe-tale.gguf --tokenizer tokenizer.json --json scores.json
  evaluate.py --model model-f32.safetensors ...                 the weights before quantization

A .gguf file is decoded to float32 and put back into transformers' Qwen3_5MoeForCausalLM, so
the numbers tell what the stored weights can do, apart from any engine.  Questions are held
out of training (corpus.py); answers are decoded greedily and must be exact.  For stories an
exact text makes no sense: the check is that the hero's name from the request is used.
"""
import argparse
import json
import os
import re
import sys
import time

import torch
import torch.nn.functional as F

import corpus
from batches import encode, tokenizer
from model import TaleConfig

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))


def load(path):
    """A transformers model in float32 with the weights of a .gguf or .safetensors file."""
    from transformers import Qwen3_5MoeForCausalLM
    c = TaleConfig()
    if path.endswith(".gguf"):
        from export_gguf import from_file, g
        f = g.GGUF(path)
        sd = {k: torch.from_numpy(v) for k, v in from_file({n: f.array(n) for n in f.tensors}, c).items()}
    else:
        from safetensors.torch import load_file
        sd = load_file(path)
    config = c.to_hf()
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = Qwen3_5MoeForCausalLM(config).float().eval()
    wrong = model.load_state_dict(sd, strict=False)
    assert not wrong.missing_keys and not wrong.unexpected_keys, wrong
    return model


@torch.no_grad()
def greedy(model, tok, prompts, limit, batch=50):
    """Greedy answers; prompts of similar length go together, padded on the left."""
    end, pad = tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")
    ids = [tok.encode(p, add_special_tokens=False).ids for p in prompts]
    out = [None] * len(ids)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for a in range(0, len(order), batch):
        part = order[a:a + batch]
        n = max(len(ids[i]) for i in part)
        x = torch.tensor([[pad] * (n - len(ids[i])) + ids[i] for i in part])
        mask = torch.tensor([[0] * (n - len(ids[i])) + [1] * len(ids[i]) for i in part])
        got = model.generate(x, attention_mask=mask, max_new_tokens=limit, do_sample=False, eos_token_id=end, pad_token_id=pad)
        for i, row in zip(part, got[:, n:].tolist()):
            row = row[:row.index(end)] if end in row else row
            out[i] = tok.decode(row, skip_special_tokens=False)
    return out


class LoadCounter:
    """Counts which experts the routers choose."""

    def __init__(self, model):
        self.routers = [layer.mlp.gate for layer in model.model.layers]
        self.count = torch.zeros(len(self.routers), self.routers[0].num_experts)
        for i, r in enumerate(self.routers):
            r.register_forward_hook(self.hook(i))

    def hook(self, layer):
        def count(module, inputs, output):
            chosen = output[2].reshape(-1)
            self.count[layer] += torch.bincount(chosen, minlength=self.count.shape[1]).float()
        return count


@torch.no_grad()
def perplexity(model, tok, docs):
    """exp of the mean loss over the assistant's tokens, one document at a time."""
    total = n = 0.0
    for ids, weights in encode(tok, docs):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1]
        keep = torch.tensor(weights[1:]) > 0.99
        ce = F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")[keep]
        total, n = total + ce.sum().item(), n + keep.sum().item()
    return float(torch.tensor(total / n).exp())


def hero(prompt):
    found = re.search(r"(?:named|called) (\w+)", prompt)
    return found.group(1) if found else None


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--count", type=int, default=200)
    ap.add_argument("--docs", type=int, default=60, help="documents per task for the perplexity")
    ap.add_argument("--stories", type=int, default=40)
    ap.add_argument("--json")
    a = ap.parse_args()
    model, tok, scores, began = load(a.model), tokenizer(a.tokenizer), {"accuracy": {}, "perplexity": {}}, time.time()
    for task in corpus.TASKS[:4] if a.count else []:
        qs = corpus.questions(task, a.count)
        got = greedy(model, tok, [q["rendered"] for q in qs], 72)
        wrong = [(q, x) for q, x in zip(qs, got) if x != q["expected"]]
        scores["accuracy"][task] = 1 - len(wrong) / len(qs)
        print("%-14s %5.1f %% of %d, %.0f s" % (task, 100 * scores["accuracy"][task], len(qs), time.time() - began), flush=True)
        for q, x in wrong[:5]:
            print("    %r -> %r, expected %r" % (q["prompt"][-80:], x, q["expected"]))
    counter = LoadCounter(model)
    for task, docs in corpus.heldout_documents(a.docs).items():
        scores["perplexity"][task] = perplexity(model, tok, docs)
        print("%-14s perplexity %.4f, %.0f s" % (task, scores["perplexity"][task], time.time() - began), flush=True)
    load_ratio = counter.count.max(1).values / counter.count.mean(1)
    scores["max_over_mean_load"] = [round(float(x), 3) for x in load_ratio]
    scores["min_over_mean_load"] = [round(float(x), 3) for x in counter.count.min(1).values / counter.count.mean(1)]
    print("expert load, max/mean by layer:", scores["max_over_mean_load"], flush=True)
    qs = [q for q in corpus.questions("stories", 3 * a.stories) if hero(q["prompt"])][:a.stories]
    got = greedy(model, tok, [q["rendered"] for q in qs], 330)
    scores["accuracy"]["stories_name_kept"] = sum(hero(q["prompt"]) in x for q, x in zip(qs, got)) / len(qs)
    print("stories that keep the hero's name: %.1f %% of %d, %.0f s" % (
        100 * scores["accuracy"]["stories_name_kept"], len(qs), time.time() - began))
    if a.json:
        json.dump(scores, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    main()
