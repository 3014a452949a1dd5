#!/usr/bin/env python3
"""Expected values of `flashmoe eval`, with transformers and numpy.

  eval_reference.py --model model/flashmoe-tale.gguf --tokenizer model/tokenizer.json --out tests/vectors/eval
  eval_reference.py --sums SPEC... --out tests/vectors/eval     only the importance files of these tiny models
  eval_reference.py --compare FOUND.gguf EXPECTED.gguf

Writes text.txt (held-out documents of the bundled model's training program), expected.json
(perplexity with its error for two ways to cut windows, divergence of 2 experts per token from 4) and
importance-SPEC.gguf (sums of squares of the inputs of every linear layer of a tiny model, in llama.cpp's
form, written by the PyPI package gguf). --compare opens two such files and shows how far they differ.

Every figure is made from the definition, in double precision on float32 logits: windows of `ctx`
tokens evaluated from nothing, tokens from number `first` on scored.
"""
import argparse
import json
import os
import sys

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "train"))
sys.path.insert(0, HERE)

TINY = ["qwen35moe-a", "glm4moe-a", "deepseek2-a", "deepseek2-c"]
SUMS_TOKENS = 192
STRIDED = 1500


def text_of():
    import corpus
    docs = corpus.heldout_documents(7, seed=23)
    return "".join("".join(t for t, _ in d) + "\n"
                   for task in ("stories", "facts", "arithmetic", "tools_system") for d in docs[task])


@torch.no_grad()
def windows_of(model, ids, ctx, step, first):
    """float64 log-probabilities [window][row][vocab] of the tokens from number `first` on, and these tokens."""
    logp, targets = [], []
    for at in range(0, len(ids) - ctx + 1, step):
        w = torch.tensor([ids[at:at + ctx]])
        rows = model(w, use_cache=False).logits[0, first - 1:-1].double()
        logp.append(torch.log_softmax(rows, -1).numpy())
        targets.append(ids[at + first:at + ctx])
    return np.stack(logp), np.array(targets)


def perplexity(logp, targets):
    nll = -np.take_along_axis(logp, targets[..., None], -1).reshape(-1)
    ppl = float(np.exp(nll.mean()))
    return {"perplexity": ppl, "perplexity_error": float(ppl * nll.std() / np.sqrt(len(nll) - 1)),
            "scored_tokens": len(nll), "windows": len(logp)}


def divergence(ref, other):
    kl = (np.exp(ref) * (ref - other)).sum(-1).reshape(-1)
    same = (ref.argmax(-1) == other.argmax(-1)).reshape(-1)
    return {"kl_mean": float(kl.mean()), "kl_error": float(kl.std() / np.sqrt(len(kl) - 1)),
            "kl_median": float(np.median(kl)), "kl_p99": float(np.quantile(kl, 0.99)),
            "kl_max": float(kl.max()), "same_top": float(same.mean())}


def bundled(args):
    from batches import tokenizer
    from evaluate import load
    text = text_of()
    with open(os.path.join(args.out, "text.txt"), "w", encoding="utf-8") as f:
        f.write(text)
    ids = tokenizer(args.tokenizer).encode(text, add_special_tokens=False).ids
    model = load(args.model)
    ctx = 256
    four, targets = windows_of(model, ids, ctx, ctx, ctx // 2 + 1)
    strided, strided_targets = windows_of(model, ids[:STRIDED], ctx, 100, ctx - 100)
    for layer in model.model.layers:
        layer.mlp.gate.top_k = 2
    two, _ = windows_of(model, ids, ctx, ctx, ctx // 2 + 1)
    return {"text_tokens": len(ids), "halves": perplexity(four, targets),
            "stride_100_of_1500": perplexity(strided, strided_targets), "experts_2": perplexity(two, targets),
            "experts_2_against_4": divergence(four, two)}


# ---- importance sums ---------------------------------------------------------------------------

GGUF_NAMES = {
    "linear_attn.in_proj_qkv": "attn_qkv", "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_b": "ssm_beta", "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.out_proj": "ssm_out", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp", "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp", "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "self_attn.q_a_proj": "attn_q_a", "self_attn.q_b_proj": "attn_q_b", "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def squares(x):
    return x.reshape(-1, x.shape[-1]).double().square().sum(0).numpy()


def tiled(sums, spec):
    """GGUF's order of value heads: head t is head (t % keys) * ratio + t // keys of transformers."""
    keys, ratio = spec["key_heads"], spec["value_heads"] // spec["key_heads"]
    heads = sums.reshape(spec["value_heads"], -1)
    return heads[[t % keys * ratio + t // keys for t in range(len(heads))]].reshape(-1)


@torch.no_grad()
def importance(name):
    """{GGUF name of a matrix: (sums [matrices][channels], counts [matrices])} over SUMS_TOKENS tokens."""
    import hf_models
    import tiny_weights
    spec = tiny_weights.SPECS[name]
    model = hf_models.build(spec, lambda n, shape: tiny_weights.parameter(spec, n, shape, "F32"))
    ids = tiny_weights.token_ids(spec, hf_models.N_TOKENS)[:SUMS_TOKENS]
    out = {}

    def of_matrix(gguf, inputs):
        sums = squares(inputs[0])
        if gguf.endswith("ssm_out") and spec["family"] == "qwen35moe":
            sums = tiled(sums, spec)
        out[gguf + ".weight"] = (sums[None], np.array([inputs[0].reshape(-1, inputs[0].shape[-1]).shape[0]]))

    def of_experts(layer, module, args):
        x, chosen = args[0].reshape(-1, args[0].shape[-1]), args[1].reshape(-1, spec["used"])
        into, hidden, counts = [], [], []
        for e in range(spec["experts"]):
            rows = x[(chosen == e).any(-1)]
            gate, up = (rows @ module.gate_up_proj[e].T).chunk(2, -1)
            into.append(squares(rows))
            hidden.append(squares(torch.nn.functional.silu(gate) * up))
            counts.append(len(rows))
        for matrix, sums in (("gate", into), ("up", into), ("down", hidden)):
            out["%s.ffn_%s_exps.weight" % (layer, matrix)] = (np.stack(sums), np.array(counts))

    def of_latent(layer, attention, weights, query, latents):
        """What the absorbed form multiplies per head: K_h with the query without rope, V_h with the sum of latents."""
        nope, heads = attention.qk_nope_head_dim, attention.num_heads
        q = query.view(len(query), heads, -1)[..., :nope].transpose(0, 1)
        for name, x in (("k", q), ("v", weights @ latents)):  # [heads][tokens][channels]
            out["%s.attn_%s_b.weight" % (layer, name)] = (np.stack([squares(h) for h in x]),
                                                          np.full(heads, len(query)))
        if spec.get("kv_b"):
            out[layer + ".attn_kv_b.weight"] = (squares(latents)[None], np.array([len(query)]))

    model.lm_head.register_forward_hook(lambda m, i, o: of_matrix("output", i))
    for index, layer in enumerate(model.model.layers):
        at = "blk.%d" % index
        for n, m in layer.named_modules():
            if n == "mlp.experts":
                m.register_forward_pre_hook(lambda m, a, at=at: of_experts(at, m, a))
            elif n == "self_attn" and hasattr(m, "kv_b_proj"):
                seen = {}
                last = m.q_b_proj if m.q_lora_rank else m.q_proj
                last.register_forward_hook(lambda m, i, o, seen=seen: seen.update(query=o[0]))
                m.kv_a_layernorm.register_forward_hook(lambda m, i, o, seen=seen: seen.update(latents=o[0]))
                m.register_forward_hook(
                    lambda m, i, o, at=at, seen=seen: of_latent(at, m, o[1][0], seen["query"], seen["latents"]))
            elif n in GGUF_NAMES:
                m.register_forward_hook(lambda m, i, o, g=at + "." + GGUF_NAMES[n]: of_matrix(g, i))
    model(torch.tensor([ids.tolist()]), use_cache=False)
    return out


def write_importance(path, sums):
    import gguf
    w = gguf.GGUFWriter(path, "imatrix")
    w.add_type("imatrix")
    for name, (values, counts) in sums.items():
        w.add_tensor(name + ".in_sum2", values.astype(np.float32))
        w.add_tensor(name + ".counts", counts.astype(np.float32)[:, None])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def compare_importance(found, expected):
    """Opens two files with gguf-py; largest difference of a tensor relative to its largest value."""
    import gguf
    a, b = gguf.GGUFReader(found), gguf.GGUFReader(expected)
    for key in ("general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"):
        print(key, a.get_field(key).contents())
    left, right = ({t.name: t for t in f.tensors} for f in (a, b))
    print("only in the first:", sorted(set(left) - set(right)), "only in the second:", sorted(set(right) - set(left)))
    worst = max((float(np.abs(left[n].data - right[n].data).max() / np.abs(right[n].data).max()), n)
                for n in set(left) & set(right))
    print("%d tensors, largest difference %.1e (%s)" % (len(right), *worst))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model")
    ap.add_argument("--tokenizer")
    ap.add_argument("--out")
    ap.add_argument("--sums", nargs="+", metavar="SPEC")
    ap.add_argument("--compare", nargs=2, metavar=("FOUND", "EXPECTED"))
    args = ap.parse_args()
    if args.compare:
        return compare_importance(*args.compare)
    os.makedirs(args.out, exist_ok=True)
    torch.set_num_threads(1)
    if args.sums:
        for name in args.sums:
            write_importance(os.path.join(args.out, "importance-%s.gguf" % name), importance(name))
        return None
    import transformers
    print("torch %s, transformers %s, numpy %s" % (torch.__version__, transformers.__version__, np.__version__))
    expected = bundled(args)
    with open(os.path.join(args.out, "expected.json"), "w", encoding="utf-8") as f:
        json.dump(expected, f, indent=1)
        f.write("\n")
    print(json.dumps(expected, indent=1))
    for name in TINY:
        write_importance(os.path.join(args.out, "importance-%s.gguf" % name), importance(name))


if __name__ == "__main__":
    main()
