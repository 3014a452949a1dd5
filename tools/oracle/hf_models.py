"""Builds a tiny model as its transformers class and runs it: float32, CPU, plain torch code."""
import contextlib
import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers

N_TOKENS = 200


def config_of(spec, eps=None, theta=None, scale=None, norm_topk=True, yarn=None, window=None,
              groups_used=None, mscale=None, topk=None, index_types=None):
    """The transformers configuration; the others replace the spec's (to build faulty models)."""
    rope = {"rope_type": "default", "rope_theta": theta or spec["theta"]}
    common = dict(
        vocab_size=spec["vocab"], hidden_size=spec["hidden"], num_hidden_layers=spec["layers"],
        num_attention_heads=spec["heads"], num_key_value_heads=spec["kv"],
        head_dim=spec["head_dim"], rms_norm_eps=eps or spec["eps"], num_experts=spec["experts"],
        num_experts_per_tok=spec["used"], moe_intermediate_size=spec["ff"],
        tie_word_embeddings=spec["tied"], max_position_embeddings=4096, rope_parameters=rope)
    if spec["family"] == "glm4moe":
        rope["partial_rotary_factor"] = spec["rope_dim"] / spec["head_dim"]
        del common["num_experts"]
        return transformers.Glm4MoeConfig(
            n_routed_experts=spec["experts"], n_shared_experts=spec["shared"] // spec["ff"],
            intermediate_size=spec["dense_ff"], first_k_dense_replace=spec["dense"],
            routed_scaling_factor=scale or spec["scale"], norm_topk_prob=norm_topk,
            n_group=1, topk_group=1, use_qk_norm=spec["qk_norm"], attention_bias=True, **common)
    if spec["family"] == "gpt-oss":
        rope.update(rope_type="yarn", factor=yarn or spec["yarn"], beta_fast=spec["beta_fast"],
                    beta_slow=spec["beta_slow"], truncate=False,
                    original_max_position_embeddings=spec["original"])
        del common["num_experts"], common["moe_intermediate_size"]
        return transformers.GptOssConfig(
            num_local_experts=spec["experts"], intermediate_size=spec["ff"],
            sliding_window=window or spec["window"], **common)
    if spec["kv_latent"]:
        if spec["yarn"]:
            rope.update(rope_type="yarn", factor=yarn or spec["yarn"], beta_fast=spec["beta_fast"],
                        beta_slow=spec["beta_slow"], mscale=mscale or spec["mscale"],
                        mscale_all_dim=mscale or spec["mscale"],
                        original_max_position_embeddings=spec["original"])
        del common["num_experts"], common["head_dim"]
        make = transformers.DeepseekV3Config
        if spec["topk"]:
            common.update(index_n_heads=spec["index_heads"], index_head_dim=spec["index_dim"],
                          index_topk=topk or spec["topk"])
            make = transformers.DeepseekV32Config
        if spec["family"] == "glm-dsa":
            types = index_types or spec["index_types"] or "F" * spec["layers"]
            common.update(indexer_types=["full" if c == "F" else "shared" for c in types])
            make = transformers.GlmMoeDsaConfig
        return make(
            n_routed_experts=spec["experts"], n_shared_experts=spec["shared"] // spec["ff"],
            intermediate_size=spec["dense_ff"], first_k_dense_replace=spec["dense"],
            routed_scaling_factor=scale or spec["scale"], norm_topk_prob=norm_topk,
            n_group=spec["groups"], topk_group=groups_used or spec["groups_used"],
            q_lora_rank=spec["q_latent"] or None, kv_lora_rank=spec["kv_latent"],
            qk_nope_head_dim=spec["head_dim"], qk_rope_head_dim=spec["rope_dim"],
            v_head_dim=spec["v_dim"], num_mtp_layers=0, **common)
    if spec["family"] == "qwen3moe":
        return transformers.Qwen3MoeConfig(
            norm_topk_prob=True, intermediate_size=3 * spec["hidden"], **common)
    rope["partial_rotary_factor"] = spec["rope_dim"] / spec["head_dim"]
    common.update(
        linear_num_key_heads=spec["key_heads"], linear_num_value_heads=spec["value_heads"],
        linear_key_head_dim=spec["state"], linear_value_head_dim=spec["state"],
        linear_conv_kernel_dim=4, shared_expert_intermediate_size=spec["shared"],
        layer_types=["linear_attention" if (i + 1) % spec["interval"] else "full_attention"
                     for i in range(spec["layers"])])
    if spec["family"] == "qwen3next":
        return transformers.Qwen3NextConfig(
            norm_topk_prob=True, intermediate_size=3 * spec["hidden"], **common)
    half = spec["rope_dim"] // 2
    rope["mrope_section"] = [(half + 2) // 3, (half + 1) // 3, half // 3]
    return transformers.Qwen3_5MoeTextConfig(**common)


def class_of(spec):
    return {"qwen3moe": transformers.Qwen3MoeForCausalLM,
            "qwen3next": transformers.Qwen3NextForCausalLM,
            "qwen35moe": transformers.Qwen3_5MoeForCausalLM,
            "glm4moe": transformers.Glm4MoeForCausalLM,
            "deepseek2": transformers.DeepseekV3ForCausalLM,
            "deepseek32": transformers.DeepseekV32ForCausalLM,
            "glm-dsa": transformers.GlmMoeDsaForCausalLM,
            "gpt-oss": transformers.GptOssForCausalLM}[spec["family"]]


def weights_of(model):
    """(name, tensor) of all that a checkpoint holds: a tied lm_head once, as the embedding."""
    yield from model.named_parameters()
    for name, b in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            yield name, b


def build(spec, weight_of, **changes):
    """The model with every parameter set to weight_of(name, shape)."""
    config = config_of(spec, **changes)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = class_of(spec)(config).float().eval()
    rotary = getattr(model.model.rotary_emb, "inv_freq")
    if 2 * len(rotary) != spec["rope_dim"]:
        raise SystemExit("rotary dimension is %d, wanted %d" % (2 * len(rotary), spec["rope_dim"]))
    with torch.no_grad():
        for name, p in weights_of(model):
            p.copy_(torch.from_numpy(np.ascontiguousarray(weight_of(name, tuple(p.shape)))))
    return model


def draft_parameter(spec, name):
    """The parameter of the draft layer that a model of that one layer calls `name`."""
    at = "model.layers.%d." % spec["layers"]
    layer, norm, ends = at, at + "shared_head.norm.weight", [
        at + "eh_proj.weight", at + "enorm.weight", at + "hnorm.weight"]
    if spec["family"] in ("qwen35moe", "qwen3next"):
        layer, norm, ends = "mtp.layers.0.", "mtp.norm.weight", [
            "mtp.fc.weight", "mtp.pre_fc_norm_embedding.weight", "mtp.pre_fc_norm_hidden.weight"]
    if name in ("eh_proj", "enorm", "hnorm"):
        return ends[("eh_proj", "enorm", "hnorm").index(name)]
    if name == "model.norm.weight":
        return norm
    return name.replace("model.layers.0.", layer)


def run_draft(spec, model, weight_of, ids, margins=None):
    """float32 logits [n - 1][vocab] of the draft layer: row t follows from the main model's state after its last norm
    at position t and the token at t + 1, and guesses the token at t + 2. The layer is run as a model of its own with
    full attention and experts, the main model's embedding and head, and the draft's last norm as its last norm."""
    alone = dict(spec, layers=1, interval=1, dense=0)
    draft = build(alone, lambda name, shape: weight_of(draft_parameter(spec, name), shape))
    hidden = spec["hidden"]

    def end(name, *shape):
        return torch.from_numpy(np.array(weight_of(draft_parameter(spec, name), shape)))

    norms = {}
    with torch.no_grad():
        for name in ("enorm", "hnorm"):
            norms[name] = type(model.model.norm)(hidden, eps=spec["eps"])
            norms[name].weight.copy_(end(name, hidden))
        ids = torch.from_numpy(np.asarray(ids, np.int64))[None]
        states = model.model(ids, use_cache=False).last_hidden_state
        both = torch.cat([norms["enorm"](model.model.embed_tokens(ids[:, 1:])),
                          norms["hnorm"](states[:, :-1])], -1)
        inputs = torch.nn.functional.linear(both, end("eh_proj", hidden, 2 * hidden))
    return run(draft, None, margins, embeds=inputs)


def gap(sorted_values, k):
    """How far the k-th value of each row lies above the next, relative to that."""
    last, next_ = sorted_values[:, k - 1], sorted_values[:, k]
    return ((last - next_) / next_.abs()).numpy()


class IndexerWatch(torch.overrides.TorchFunctionMode):
    """Sees the scores that the indexers of sparse attention choose positions from: for every row with more than k
    of them, the gap between the k-th and the next, relative to the row's largest magnitude, goes to `gaps`."""

    def __init__(self, model, gaps):
        super().__init__()
        self.k, self.gaps, self.inside, self.hooks = model.config.index_topk, gaps, False, []
        for layer in model.model.layers:
            if layer.self_attn.indexer is not None:
                self.hooks.append(layer.self_attn.indexer.register_forward_pre_hook(self.enter))
                self.hooks.append(layer.self_attn.indexer.register_forward_hook(self.leave))

    def enter(self, *_):
        self.inside = True

    def leave(self, *_):
        self.inside = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.inside and func is torch.Tensor.topk:
            self.inside = False
            for row in args[0].double().flatten(0, -2):
                row = row[row > torch.finfo(torch.float32).min / 2].sort(descending=True).values
                if len(row) > self.k:
                    self.gaps.append(float((row[self.k - 1] - row[self.k]) / row.abs().max()))
        return func(*args, **(kwargs or {}))


def run(model, ids, margins=None, gaps=None, embeds=None):
    """float32 logits [n][vocab] of ids, or of what stands for their embeddings. Appends to `margins` the relative gap p[k]/p[k+1] - 1 between
    the last chosen and the first rejected expert (and group of experts), for every router call,
    and to `gaps` those of IndexerWatch."""
    hooks = []
    config = model.config
    n_expert = getattr(config, "num_local_experts", None) or config.num_experts
    if margins is not None and config.num_experts_per_tok < n_expert:
        def hook(module, _, out):
            if hasattr(module, "e_score_correction_bias"):
                p = out[0].double().sigmoid() + module.e_score_correction_bias
                used = getattr(module, "topk_group", 1)
                if getattr(module, "num_group", 1) > used:
                    groups = p.view(len(p), module.num_group, -1)
                    sums = groups.topk(2, -1).values.sum(-1).sort(-1, descending=True)
                    margins.append(gap(sums.values, used))
                    out_of_choice = torch.ones_like(sums.values, dtype=torch.bool)
                    out_of_choice.scatter_(1, sums.indices[:, :used], False)
                    p = groups.masked_fill(out_of_choice[:, :, None], -torch.inf).flatten(1)
            else:
                p = torch.softmax(out[0].double(), -1)
            p = p.sort(-1, descending=True).values
            margins.append(gap(p, module.top_k))
        routers = [getattr(layer.mlp, "gate", getattr(layer.mlp, "router", None))
                   for layer in model.model.layers]
        hooks = [m.register_forward_hook(hook) for m in routers if m is not None]
    watch = contextlib.nullcontext()
    if gaps is not None and getattr(config, "index_topk", None):
        watch = IndexerWatch(model, gaps)
        hooks += watch.hooks
    with torch.no_grad(), watch:
        if embeds is not None:
            out = model(inputs_embeds=embeds, use_cache=False)
        else:
            out = model(torch.from_numpy(np.asarray(ids, np.int64))[None], use_cache=False)
    for h in hooks:
        h.remove()
    return out.logits[0].numpy()
