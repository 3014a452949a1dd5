"""Builds a tiny model as its transformers class and runs it: float32, CPU, plain torch code."""
import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers

N_TOKENS = 200


def config_of(spec, eps=None, theta=None):
    """The transformers configuration; eps and theta replace the spec's (to build faulty models)."""
    rope = {"rope_type": "default", "rope_theta": theta or spec["theta"]}
    common = dict(
        vocab_size=spec["vocab"], hidden_size=spec["hidden"], num_hidden_layers=spec["layers"],
        num_attention_heads=spec["heads"], num_key_value_heads=spec["kv"],
        head_dim=spec["head_dim"], rms_norm_eps=eps or spec["eps"], num_experts=spec["experts"],
        num_experts_per_tok=spec["used"], moe_intermediate_size=spec["ff"],
        tie_word_embeddings=spec["tied"], max_position_embeddings=4096, rope_parameters=rope)
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
            "qwen35moe": transformers.Qwen3_5MoeForCausalLM}[spec["family"]]


def build(spec, weight_of, eps=None, theta=None):
    """The model with every parameter set to weight_of(name, shape)."""
    config = config_of(spec, eps, theta)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = class_of(spec)(config).float().eval()
    rotary = getattr(model.model.rotary_emb, "inv_freq")
    if 2 * len(rotary) != spec["rope_dim"]:
        raise SystemExit("rotary dimension is %d, wanted %d" % (2 * len(rotary), spec["rope_dim"]))
    with torch.no_grad():
        for name, p in model.named_parameters():  # a tied lm_head is listed once, as embedding
            p.copy_(torch.from_numpy(np.ascontiguousarray(weight_of(name, tuple(p.shape)))))
    return model


def run(model, ids, margins=None):
    """float32 logits [n][vocab]. Appends to `margins` the relative gap p[k]/p[k+1] - 1 between
    the last chosen and the first rejected expert, for every router call."""
    hooks = []
    if margins is not None and model.config.num_experts_per_tok < model.config.num_experts:
        def hook(module, _, out):
            p = torch.softmax(out[0].double(), -1).sort(-1, descending=True).values
            margins.append((p[:, module.top_k - 1] / p[:, module.top_k] - 1).numpy())
        hooks = [layer.mlp.gate.register_forward_hook(hook) for layer in model.model.layers]
    with torch.no_grad():
        out = model(torch.from_numpy(np.asarray(ids, np.int64))[None], use_cache=False)
    for h in hooks:
        h.remove()
    return out.logits[0].numpy()
