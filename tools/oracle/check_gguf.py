#!/usr/bin/env python3
"""Checks the files of tiny-gguf against the transformers models, without the engine.

  check_gguf.py --tiny-gguf PROGRAM [NAME ...]   every spec (or these) and type: metadata, names, shapes;
                                                 the mapping undone gives the parameters bit for bit;
                                                 shards and shared layers hold the same tensors
  check_gguf.py --tiny-gguf PROGRAM --faults     measures what each fault does to the logits: the
                                                 faulty file is undone into a transformers model
  check_gguf.py --tiny-gguf PROGRAM --names FILE compares names, shapes and metadata keys with a
                                                 Python module that has all_tensors and meta_of

Files are read with the PyPI package gguf, whose decoders also check ours.
"""
import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np

import tiny_weights


class File:
    """Metadata and decoded tensors (numpy order: rows, columns) of one file or all its shards."""

    def __init__(self, paths):
        self.meta, self.tensors, self.types, self.offsets = {}, {}, {}, {}
        for path in paths:
            reader = gguf.GGUFReader(path)
            for field in reader.fields.values():
                if not field.name.startswith(("split.", "GGUF.")):
                    self.meta.setdefault(field.name, field.contents())
            for t in reader.tensors:
                if t.name in self.tensors:
                    raise SystemExit("%s: %s twice" % (path, t.name))
                raw = np.asarray(t.data)
                fmt = t.tensor_type.name
                if fmt == "F32":
                    data = raw.astype(np.float32)
                else:
                    data = gguf.dequantize(raw, t.tensor_type)
                    rows = raw.reshape(-1, tiny_weights.block_of(fmt)[1])
                    ours = tiny_weights.decode(rows, fmt)
                    if not np.array_equal(ours.reshape(data.shape), data):
                        raise SystemExit("%s: decoders disagree" % t.name)
                shape = [int(x) for x in reversed(t.shape)]
                self.tensors[t.name] = np.array(data).reshape(shape)
                self.types[t.name] = fmt
                self.offsets[t.name] = (path, int(t.data_offset))


def expected_metadata(spec):
    arch = spec["family"]
    want = {
        "block_count": spec["layers"] + spec["draft"], "embedding_length": spec["hidden"],
        "vocab_size": spec["vocab"], "attention.head_count": spec["heads"],
        "attention.head_count_kv": spec["kv"], "attention.key_length": spec["head_dim"],
        "attention.value_length": spec["head_dim"], "expert_count": spec["experts"],
        "expert_used_count": spec["used"], "expert_feed_forward_length": spec["ff"],
        "rope.freq_base": np.float32(spec["theta"]),
        "attention.layer_norm_rms_epsilon": np.float32(spec["eps"])}
    if arch == "glm4moe":
        want.update({
            "rope.dimension_count": spec["rope_dim"],
            "leading_dense_block_count": spec["dense"], "feed_forward_length": spec["dense_ff"],
            "expert_shared_count": spec["shared"] // spec["ff"], "expert_gating_func": 2,
            "expert_weights_scale": np.float32(spec["scale"]), "expert_weights_norm": True})
    elif arch == "deepseek2":
        rot, absorbed = spec["rope_dim"], not spec["kv_b"]
        want.update({
            "rope.dimension_count": rot,
            "leading_dense_block_count": spec["dense"], "feed_forward_length": spec["dense_ff"],
            "expert_shared_count": spec["shared"] // spec["ff"], "expert_gating_func": 2,
            "expert_weights_scale": np.float32(spec["scale"]), "expert_weights_norm": True,
            "attention.kv_lora_rank": spec["kv_latent"],
            "attention.head_count_kv": 1 if absorbed else spec["heads"],
            "attention.key_length": (spec["kv_latent"] if absorbed else spec["head_dim"]) + rot,
            "attention.value_length": spec["kv_latent" if absorbed else "v_dim"]})
        if absorbed:
            want.update({"attention.key_length_mla": spec["head_dim"] + rot,
                         "attention.value_length_mla": spec["v_dim"]})
        if spec["q_latent"]:
            want["attention.q_lora_rank"] = spec["q_latent"]
        if spec["groups"] > 1:
            want.update({"expert_group_count": spec["groups"],
                         "expert_group_used_count": spec["groups_used"]})
        if spec["yarn"]:
            want.update({
                "rope.scaling.type": "yarn", "rope.scaling.factor": np.float32(spec["yarn"]),
                "rope.scaling.original_context_length": spec["original"],
                "rope.scaling.yarn_beta_fast": np.float32(spec["beta_fast"]),
                "rope.scaling.yarn_beta_slow": np.float32(spec["beta_slow"]),
                "rope.scaling.yarn_log_multiplier": np.float32(0.1 * spec["mscale"])})
    elif arch == "gpt-oss":
        want.update({
            "attention.sliding_window": spec["window"], "rope.scaling.type": "yarn",
            "rope.scaling.factor": np.float32(spec["yarn"]),
            "rope.scaling.original_context_length": spec["original"],
            "rope.scaling.yarn_beta_fast": np.float32(spec["beta_fast"]),
            "rope.scaling.yarn_beta_slow": np.float32(spec["beta_slow"])})
    elif arch in tiny_weights.HYBRIDS:
        want.update({
            "rope.dimension_count": spec["rope_dim"], "ssm.conv_kernel": 4,
            "ssm.state_size": spec["state"], "ssm.group_count": spec["key_heads"],
            "ssm.time_step_rank": spec["value_heads"],
            "ssm.inner_size": spec["state"] * spec["value_heads"],
            "expert_shared_feed_forward_length": spec["shared"],
            "full_attention_interval": spec["interval"]})
    if spec["draft"]:
        want["nextn_predict_layers"] = 1
    return {arch + "." + k: v for k, v in want.items()}


def undo_draft(spec, left):
    """Takes the tensors of the draft layer out of `left`: parameters, or nothing of other families."""
    out, b = {}, "blk.%d." % spec["layers"]
    if not spec["draft"] or spec["family"] not in ("qwen35moe", "qwen3next", "glm4moe"):
        return out
    is_glm = spec["family"] == "glm4moe"
    m = "model.layers.%d." % spec["layers"] if is_glm else "mtp.layers.0."
    ends = [m + n for n in ("eh_proj", "enorm", "hnorm", "shared_head.norm")] if is_glm else [
        "mtp." + n for n in ("fc", "pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")]
    shared = "mlp.shared_experts." if is_glm else "mlp.shared_expert."
    names = dict(zip(("nextn.eh_proj", "nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"), ends))
    names.update({
        "attn_norm": m + "input_layernorm", "post_attention_norm": m + "post_attention_layernorm",
        "attn_output": m + "self_attn.o_proj", "ffn_gate_inp": m + "mlp.gate"})
    for part in "qkv":
        names["attn_" + part] = m + "self_attn.%s_proj" % part
    for part in ("gate", "up", "down"):
        names["ffn_%s_shexp" % part] = m + shared + part + "_proj"
    if spec["qk_norm"] or not is_glm:
        names.update({"attn_q_norm": m + "self_attn.q_norm", "attn_k_norm": m + "self_attn.k_norm"})
    for gguf_name, name in names.items():
        w = left.pop(b + gguf_name + ".weight")
        out[name + ".weight"] = w - np.float32(1) if w.ndim == 1 and not is_glm else w
    if is_glm:
        for part in "qkv":
            out[m + "self_attn.%s_proj.bias" % part] = left.pop(b + "attn_%s.bias" % part)
        out[m + "mlp.gate.e_score_correction_bias"] = left.pop(b + "exp_probs_b.bias")
    else:
        out[m + "mlp.shared_expert_gate.weight"] = left.pop(b + "ffn_gate_inp_shexp.weight")[None]
    out[m + "mlp.experts.gate_up_proj"] = np.concatenate(
        [left.pop(b + "ffn_gate_exps.weight"), left.pop(b + "ffn_up_exps.weight")], 1)
    out[m + "mlp.experts.down_proj"] = left.pop(b + "ffn_down_exps.weight")
    return out


def undo(spec, tensors):
    """GGUF tensors -> transformers parameters. Every tensor must be used exactly once."""
    left = dict(tensors)
    out = {}
    if spec["family"] in ("glm4moe", "gpt-oss", "deepseek2"):
        return undo_other(spec, left)
    zero_centred = 0 if spec["family"] == "qwen3moe" else 1
    keys, values, dim = spec["key_heads"], spec["value_heads"], spec["state"]
    ratio = values // keys if keys else 0

    def take(name):
        return left.pop(name)

    def norm(name):
        return take(name) - np.float32(zero_centred)

    def grouped(x):
        """First axis: value heads times width, from tiled [ratio][key] to grouped [key][ratio]."""
        if spec["family"] != "qwen35moe":
            return x
        return x.reshape(ratio, keys, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)

    def grouped_tail(x):
        return np.concatenate([x[:2 * keys * dim], grouped(x[2 * keys * dim:])])

    out["model.embed_tokens.weight"] = take("token_embd.weight")
    out["model.norm.weight"] = norm("output_norm.weight")
    if not spec["tied"]:
        out["lm_head.weight"] = take("output.weight")
    for i in range(spec["layers"]):
        b, m = "blk.%d." % i, "model.layers.%d." % i
        out[m + "input_layernorm.weight"] = norm(b + "attn_norm.weight")
        out[m + "post_attention_layernorm.weight"] = norm(
            b + ("post_attention_norm.weight" if zero_centred else "ffn_norm.weight"))
        if not zero_centred or (i + 1) % spec["interval"] == 0:
            a = m + "self_attn."
            out[a + "q_proj.weight"] = take(b + "attn_q.weight")
            out[a + "k_proj.weight"] = take(b + "attn_k.weight")
            out[a + "v_proj.weight"] = take(b + "attn_v.weight")
            out[a + "o_proj.weight"] = take(b + "attn_output.weight")
            out[a + "q_norm.weight"] = norm(b + "attn_q_norm.weight")
            out[a + "k_norm.weight"] = norm(b + "attn_k_norm.weight")
        else:
            a = m + "linear_attn."
            qkv, z = take(b + "attn_qkv.weight"), take(b + "attn_gate.weight")
            if spec["family"] == "qwen3next":
                q, k, v = np.split(qkv, [keys * dim, 2 * keys * dim])
                parts = [x.reshape(keys, -1, x.shape[1]) for x in (q, k, v, z)]
                out[a + "in_proj_qkvz.weight"] = np.concatenate(parts, 1).reshape(-1, qkv.shape[1])
                out[a + "in_proj_ba.weight"] = take(b + "ssm_ba.weight")
            else:
                out[a + "in_proj_qkv.weight"] = grouped_tail(qkv)
                out[a + "in_proj_z.weight"] = grouped(z)
                out[a + "in_proj_b.weight"] = grouped(take(b + "ssm_beta.weight"))
                out[a + "in_proj_a.weight"] = grouped(take(b + "ssm_alpha.weight"))
            out[a + "conv1d.weight"] = grouped_tail(take(b + "ssm_conv1d.weight"))[:, None, :]
            out[a + "A_log"] = np.log(-grouped(take(b + "ssm_a"))).astype(np.float32)
            out[a + "dt_bias"] = grouped(take(b + "ssm_dt.bias"))
            out[a + "norm.weight"] = take(b + "ssm_norm.weight")
            out[a + "out_proj.weight"] = grouped(take(b + "ssm_out.weight").T).T
        f = m + "mlp."
        out[f + "gate.weight"] = take(b + "ffn_gate_inp.weight")
        out[f + "experts.gate_up_proj"] = np.concatenate(
            [take(b + "ffn_gate_exps.weight"), take(b + "ffn_up_exps.weight")], 1)
        out[f + "experts.down_proj"] = take(b + "ffn_down_exps.weight")
        if zero_centred:
            out[f + "shared_expert_gate.weight"] = take(b + "ffn_gate_inp_shexp.weight")[None]
            for part in ("gate", "up", "down"):
                gguf_name = b + "ffn_%s_shexp.weight" % part
                out[f + "shared_expert.%s_proj.weight" % part] = take(gguf_name)
    if left:
        raise SystemExit("tensors nobody asked for: " + " ".join(sorted(left)))
    return out


def undo_other(spec, left):
    """The same for the families with biases or latent attention."""
    out = {"model.embed_tokens.weight": left.pop("token_embd.weight"),
           "model.norm.weight": left.pop("output_norm.weight"),
           "lm_head.weight": left.pop("output.weight")}
    is_oss, is_latent = spec["family"] == "gpt-oss", spec["family"] == "deepseek2"
    for i in range(spec["layers"]):
        b, m = "blk.%d." % i, "model.layers.%d." % i

        def move(gguf_name, name):
            out[m + name] = left.pop(b + gguf_name)

        def interleave(kind, axis):
            gate, up = left.pop(b + "ffn_gate_exps." + kind), left.pop(b + "ffn_up_exps." + kind)
            shape = list(gate.shape)
            shape[axis] *= 2
            return np.stack([gate, up], axis + 1).reshape(shape)

        move("attn_norm.weight", "input_layernorm.weight")
        if is_latent:
            move("ffn_norm.weight", "post_attention_layernorm.weight")
            if spec["q_latent"]:
                move("attn_q_a.weight", "self_attn.q_a_proj.weight")
                move("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight")
                move("attn_q_b.weight", "self_attn.q_b_proj.weight")
            else:
                move("attn_q.weight", "self_attn.q_proj.weight")
            move("attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight")
            move("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight")
            if spec["kv_b"]:
                move("attn_kv_b.weight", "self_attn.kv_b_proj.weight")
            else:
                k_b, v_b = left.pop(b + "attn_k_b.weight"), left.pop(b + "attn_v_b.weight")
                out[m + "self_attn.kv_b_proj.weight"] = np.concatenate(
                    [k_b.transpose(0, 2, 1), v_b], 1).reshape(-1, spec["kv_latent"])
        else:
            move("post_attention_norm.weight", "post_attention_layernorm.weight")
            for part in "qkv":
                for kind in ("weight", "bias"):
                    move("attn_%s.%s" % (part, kind), "self_attn.%s_proj.%s" % (part, kind))
        move("attn_output.weight", "self_attn.o_proj.weight")
        if is_oss:
            move("attn_output.bias", "self_attn.o_proj.bias")
            move("attn_sinks.weight", "self_attn.sinks")
            move("ffn_gate_inp.weight", "mlp.router.weight")
            move("ffn_gate_inp.bias", "mlp.router.bias")
            e = m + "mlp.experts."
            out[e + "gate_up_proj"] = interleave("weight", 1).transpose(0, 2, 1)
            out[e + "gate_up_proj_bias"] = interleave("bias", 1)
            out[e + "down_proj"] = left.pop(b + "ffn_down_exps.weight").transpose(0, 2, 1)
            move("ffn_down_exps.bias", "mlp.experts.down_proj_bias")
            continue
        if spec["qk_norm"]:
            move("attn_q_norm.weight", "self_attn.q_norm.weight")
            move("attn_k_norm.weight", "self_attn.k_norm.weight")
        dense = i < spec["dense"]
        for part in ("gate", "up", "down"):
            move("ffn_%s%s.weight" % (part, "" if dense else "_shexp"),
                 "mlp.%s%s_proj.weight" % ("" if dense else "shared_experts.", part))
        if not dense:
            move("ffn_gate_inp.weight", "mlp.gate.weight")
            move("exp_probs_b.bias", "mlp.gate.e_score_correction_bias")
            out[m + "mlp.experts.gate_up_proj"] = np.concatenate(
                [left.pop(b + "ffn_gate_exps.weight"), left.pop(b + "ffn_up_exps.weight")], 1)
            move("ffn_down_exps.weight", "mlp.experts.down_proj")
    draft = [n for n in left if n.startswith("blk.%d." % spec["layers"])]
    if bool(draft) != (spec["draft"] and is_latent) or len(draft) != len(left):
        raise SystemExit("tensors nobody asked for: " + " ".join(sorted(left)))
    return out


def compare(spec, fmt, params, where):
    """Bit for bit, except where the file holds 1 + w or exp(A_log): there within rounding."""
    for name, got in params.items():
        want = tiny_weights.parameter(spec, name, got.shape, fmt)
        folded = name.endswith("A_log") or (
            spec["family"] in tiny_weights.HYBRIDS and ("norm.weight" in name or "pre_fc_norm" in name)
            and "linear_attn.norm" not in name)
        same = np.abs(got - want).max() < 5e-7 if folded else np.array_equal(got, want)
        if not same:
            raise SystemExit("%s: %s differs by up to %g" % (where, name, np.abs(got - want).max()))


def check_shapes(spec, params):
    """The transformers class agrees that these are its parameters."""
    import hf_models
    import torch
    with torch.device("meta"):
        cls = hf_models.class_of(spec)
        model = cls(hf_models.config_of(spec))
    want = {n: tuple(p.shape) for n, p in hf_models.weights_of(model)}
    got = {n: p.shape for n, p in params.items()}
    if want != got:
        raise SystemExit("parameters differ: %s" % sorted(set(want.items()) ^ set(got.items())))


def check_names(module_path, spec, f):
    """Names, shapes (GGUF order) and metadata keys as another writer has them."""
    loader = importlib.util.spec_from_file_location("other", module_path)
    other = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(other)
    half = spec["rope_dim"] // 2
    p = dict(
        arch=spec["family"], block_count=spec["layers"], embedding_length=spec["hidden"],
        context_length=4096, vocab=spec["vocab"], head_count=spec["heads"],
        head_count_kv=spec["kv"], key_length=spec["head_dim"], value_length=spec["head_dim"],
        rope_dim=spec["rope_dim"], rope_base=spec["theta"], eps=spec["eps"],
        full_attention_interval=spec["interval"], conv_kernel=4, state_size=spec["state"],
        group_count=spec["key_heads"], time_step_rank=spec["value_heads"],
        expert_count=spec["experts"], expert_used=spec["used"], expert_ff=spec["ff"],
        shared_ff=spec["shared"],
        rope_sections=[(half + 2) // 3, (half + 1) // 3, half // 3, 0]
        if spec["family"] == "qwen35moe" else None,
        feed_forward_length=0 if spec["family"] == "qwen35moe" else 3 * spec["hidden"])
    want = [(t.name, list(reversed(t.shape))) for t in other.all_tensors(p, spec["tied"])]
    got = [(n, list(t.shape)) for n, t in f.tensors.items()]
    if sorted(want) != sorted(got):
        raise SystemExit("names or shapes differ: %s" % [x for x in want + got
                                                         if (x in want) != (x in got)])
    keys = {k: v for k, _, v in other.meta_of(p, "", 0) + other.tokenizer_of(spec["vocab"], "")}
    if set(keys) != set(f.meta):
        raise SystemExit("metadata keys differ: %s" % sorted(set(keys) ^ set(f.meta)))
    for k, v in keys.items():
        if k in ("general.name", "general.file_type", "tokenizer.ggml.pre"):
            continue
        v = v[1] if isinstance(v, tuple) else np.float32(v) if isinstance(v, float) else v
        if f.meta[k] != v:
            raise SystemExit("%s: %r, other writer has %r" % (k, f.meta[k], v))


def write(program, out, name, fmt, *more):
    subprocess.run([program, "--spec", name, "--type", fmt, "--out", out, *more], check=True)


def check_all(program, names_module, folder, only):
    path = folder + "/m.gguf"
    for name, spec in tiny_weights.SPECS.items():
        if only and name not in only:
            continue
        for fmt in [*tiny_weights.BLOCKS, "IQ"]:
            write(program, path, name, fmt)
            f = File([path])
            for k, v in expected_metadata(spec).items():
                if f.meta[k] != v:
                    raise SystemExit("%s: %s is %s, not %s" % (name, k, f.meta[k], v))
            left = dict(f.tensors)
            compare(spec, fmt, undo_draft(spec, left), "%s %s" % (name, fmt))
            params = undo(spec, left)
            check_shapes(spec, params)
            compare(spec, fmt, params, "%s %s" % (name, fmt))
            if names_module and spec["family"].startswith("qwen") and not spec["draft"]:
                check_names(names_module, spec, f)
            kinds = sorted(set(f.types.values()))
            print("%-12s %-5s %3d tensors, %s, %.1f MB" % (
                name, fmt, len(f.tensors), "+".join(kinds), os.path.getsize(path) / 1e6))
        # one type again in shards, then with shared experts (which IQ, a mixture, cannot have)
        fmt = "Q6_K"
        write(program, path, name, fmt)
        f = File([path])
        write(program, path, name, fmt, "--shards", "3")
        shards = File([folder + "/m-%05d-of-00003.gguf" % (i + 1) for i in range(3)])
        if shards.meta != f.meta or any(
                not np.array_equal(t, shards.tensors[n]) for n, t in f.tensors.items()):
            raise SystemExit(name + ": shards differ from the whole")
        write(program, path, name, fmt, "--share-layers")
        shared = File([path])
        for n, t in f.tensors.items():
            base = n if "_exps.weight" not in n else "blk.%d.%s" % (spec["dense"], n.split(".", 2)[2])
            if shared.offsets[n] != shared.offsets[base]:
                raise SystemExit("%s: %s is not shared" % (name, n))
            if not np.array_equal(shared.tensors[n], f.tensors[base]):
                raise SystemExit("%s: %s has other values when shared" % (name, n))
    print("all good: files, shards, shared layers")


def measure_faults(program, folder):
    import hf_models
    import make_reference
    path = folder + "/m.gguf"
    listing = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout
    faults = [line.split()[0] for line in listing.split("\nfault\n")[1].splitlines()]
    for name, spec in tiny_weights.SPECS.items():
        if name.endswith(("-q", "-s")):
            continue
        ids = tiny_weights.token_ids(spec, hf_models.N_TOKENS)
        truth = None
        cells = []
        for fault in [None] + faults:
            args = ["--fault", fault] if fault else []
            done = subprocess.run([program, "--spec", name, "--out", path, *args],
                                  capture_output=True, text=True)
            if done.returncode:
                continue
            f = File([path])
            left = dict(f.tensors)
            undo_draft(spec, left)
            params = undo(spec, left)
            def meta(key, fallback):
                return f.meta.get(spec["family"] + "." + key, fallback)
            logits = hf_models.run(hf_models.build(
                spec, lambda n, shape: params[n],
                eps=float(meta("attention.layer_norm_rms_epsilon", 0)),
                theta=float(meta("rope.freq_base", 0)),
                scale=float(meta("expert_weights_scale", 0)),
                norm_topk=bool(meta("expert_weights_norm", True)),
                yarn=float(meta("rope.scaling.factor", 0)),
                window=meta("attention.sliding_window", None),
                groups_used=meta("expert_group_used_count", None),
                mscale=10 * float(meta("rope.scaling.yarn_log_multiplier", 0))), ids)
            if truth is None:
                _, truth, _ = make_reference.logits_of(name, "F32")
            rows = np.abs(logits - truth).max(-1) / np.abs(truth).max(-1)
            cells.append("%s %.0e/%d" % (fault or "none", rows.max(), (rows > 1e-2).sum()))
        print("%s: %s" % (name, ", ".join(cells)), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tiny-gguf", required=True, metavar="PROGRAM")
    ap.add_argument("--names", metavar="FILE")
    ap.add_argument("--faults", action="store_true")
    ap.add_argument("only", nargs="*", metavar="NAME")
    args = ap.parse_args()
    os.nice(10)
    with tempfile.TemporaryDirectory() as folder:
        if args.faults:
            measure_faults(args.tiny_gguf, folder)
        else:
            check_all(args.tiny_gguf, args.names, folder, args.only)


if __name__ == "__main__":
    sys.exit(main())
