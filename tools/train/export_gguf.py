"""Trained weights -> GGUF file of architecture qwen35moe.

Used as a module by quantize_model.py (which picks the formats), by add_draft.py (which adds the
draft layer) and by evaluate.py and train_draft.py (which go the way back).  What changes on
the way into the file:

* norms hold 1 + w, except the DeltaNet output norm, which is plain everywhere;
* value heads are re-ordered from grouped (the nv/nk value heads of key head 0, then those of
  key head 1, ...) to tiled (one value head of every key head, then the next of every ...),
  so that the key head of value head h is h % nk.  This touches the V part of attn_qkv and
  ssm_conv1d, attn_gate, ssm_beta, ssm_alpha, ssm_a, ssm_dt.bias and the columns of ssm_out;
* ssm_a holds -exp(A_log); the fused expert gate_up is cut into ffn_gate and ffn_up.
"""
import json
import os
import sys

import numpy as np

from model import TaleConfig

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import ggufio as g  # noqa: E402

NAME = "flashmoe-tale"
CHAT_TEMPLATE = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}
        {%- if message.content %}
            {{- message.content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and message.content) or not loop.first %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' + tool_call.name + '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""


def tiled_order(c):
    """order[i]: the grouped value head that stands at place i of the file."""
    rep = c.linear_v_heads // c.linear_k_heads
    return np.arange(c.linear_v_heads).reshape(c.linear_k_heads, rep).T.reshape(-1)


def regroup(x, order, head, axis=0):
    """Re-order blocks of `head` rows (or columns) of x."""
    x = np.moveaxis(x, axis, 0)
    x = x.reshape((len(order), head) + x.shape[1:])[order].reshape(x.shape)
    return np.ascontiguousarray(np.moveaxis(x, 0, axis))


ATTENTION = (("attn_q", "q_proj"), ("attn_k", "k_proj"), ("attn_v", "v_proj"), ("attn_output", "o_proj"))


def layer_to_file(sd, p, b, full, c: TaleConfig):
    """The layer named p... in transformers' form as {b...: array}; full: with attention."""
    order, d, key = tiled_order(c), c.linear_head_dim, c.linear_k_heads * c.linear_head_dim
    out = {b + "attn_norm.weight": 1 + sd[p + "input_layernorm.weight"]}

    def value_part(x):
        return np.concatenate([x[:2 * key], regroup(x[2 * key:], order, d)])

    if full:
        a = p + "self_attn."
        for ours, theirs in ATTENTION:
            out[b + ours + ".weight"] = sd[a + theirs + ".weight"]
        out[b + "attn_q_norm.weight"] = 1 + sd[a + "q_norm.weight"]
        out[b + "attn_k_norm.weight"] = 1 + sd[a + "k_norm.weight"]
    else:
        a = p + "linear_attn."
        out[b + "attn_qkv.weight"] = value_part(sd[a + "in_proj_qkv.weight"])
        out[b + "attn_gate.weight"] = regroup(sd[a + "in_proj_z.weight"], order, d)
        out[b + "ssm_conv1d.weight"] = value_part(sd[a + "conv1d.weight"][:, 0, :])
        out[b + "ssm_dt.bias"] = sd[a + "dt_bias"][order]
        out[b + "ssm_a"] = -np.exp(sd[a + "A_log"][order])
        out[b + "ssm_beta.weight"] = sd[a + "in_proj_b.weight"][order]
        out[b + "ssm_alpha.weight"] = sd[a + "in_proj_a.weight"][order]
        out[b + "ssm_norm.weight"] = sd[a + "norm.weight"]
        out[b + "ssm_out.weight"] = regroup(sd[a + "out_proj.weight"], order, d, axis=1)
    out[b + "post_attention_norm.weight"] = 1 + sd[p + "post_attention_layernorm.weight"]
    m, ff = p + "mlp.", c.expert_ff
    out[b + "ffn_gate_inp.weight"] = sd[m + "gate.weight"]
    out[b + "ffn_gate_exps.weight"] = np.ascontiguousarray(sd[m + "experts.gate_up_proj"][:, :ff])
    out[b + "ffn_up_exps.weight"] = np.ascontiguousarray(sd[m + "experts.gate_up_proj"][:, ff:])
    out[b + "ffn_down_exps.weight"] = sd[m + "experts.down_proj"]
    out[b + "ffn_gate_inp_shexp.weight"] = sd[m + "shared_expert_gate.weight"][0]
    for part in ("gate", "up", "down"):
        out[b + "ffn_%s_shexp.weight" % part] = sd[m + "shared_expert.%s_proj.weight" % part]
    return out


def layer_from_file(t, b, p, full, c: TaleConfig):
    """The way back of layer_to_file."""
    back, d, key = np.argsort(tiled_order(c)), c.linear_head_dim, c.linear_k_heads * c.linear_head_dim
    out = {p + "input_layernorm.weight": t[b + "attn_norm.weight"] - 1,
           p + "post_attention_layernorm.weight": t[b + "post_attention_norm.weight"] - 1}

    def value_part(x):
        return np.concatenate([x[:2 * key], regroup(x[2 * key:], back, d)])

    if full:
        a = p + "self_attn."
        for ours, theirs in ATTENTION:
            out[a + theirs + ".weight"] = t[b + ours + ".weight"]
        out[a + "q_norm.weight"] = t[b + "attn_q_norm.weight"] - 1
        out[a + "k_norm.weight"] = t[b + "attn_k_norm.weight"] - 1
    else:
        a = p + "linear_attn."
        out[a + "in_proj_qkv.weight"] = value_part(t[b + "attn_qkv.weight"])
        out[a + "in_proj_z.weight"] = regroup(t[b + "attn_gate.weight"], back, d)
        out[a + "conv1d.weight"] = value_part(t[b + "ssm_conv1d.weight"])[:, None, :]
        out[a + "dt_bias"] = t[b + "ssm_dt.bias"][back]
        out[a + "A_log"] = np.log(-t[b + "ssm_a"][back])
        out[a + "in_proj_b.weight"] = t[b + "ssm_beta.weight"][back]
        out[a + "in_proj_a.weight"] = t[b + "ssm_alpha.weight"][back]
        out[a + "norm.weight"] = t[b + "ssm_norm.weight"]
        out[a + "out_proj.weight"] = regroup(t[b + "ssm_out.weight"], back, d, axis=1)
    m = p + "mlp."
    out[m + "gate.weight"] = t[b + "ffn_gate_inp.weight"]
    out[m + "experts.gate_up_proj"] = np.concatenate([t[b + "ffn_gate_exps.weight"], t[b + "ffn_up_exps.weight"]], 1)
    out[m + "experts.down_proj"] = t[b + "ffn_down_exps.weight"]
    out[m + "shared_expert_gate.weight"] = t[b + "ffn_gate_inp_shexp.weight"][None]
    for part in ("gate", "up", "down"):
        out[m + "shared_expert.%s_proj.weight" % part] = t[b + "ffn_%s_shexp.weight" % part]
    return out


def is_full(i, c):
    return (i + 1) % c.full_interval == 0


def to_file(sd, c: TaleConfig):
    """{transformers name: float32 array} -> ordered {GGUF name: float32 array}."""
    out = {"token_embd.weight": sd["model.embed_tokens.weight"]}
    for i in range(c.num_layers):
        out.update(layer_to_file(sd, "model.layers.%d." % i, "blk.%d." % i, is_full(i, c), c))
    out["output_norm.weight"] = 1 + sd["model.norm.weight"]
    out["output.weight"] = sd["lm_head.weight"]
    return out


def from_file(t, c: TaleConfig):
    """The way back: {GGUF name: float32 array} -> {transformers name: float32 array}.  A draft layer is
    left out."""
    out = {"model.embed_tokens.weight": t["token_embd.weight"], "lm_head.weight": t["output.weight"],
           "model.norm.weight": t["output_norm.weight"] - 1}
    for i in range(c.num_layers):
        out.update(layer_from_file(t, "blk.%d." % i, "model.layers.%d." % i, is_full(i, c), c))
    return out


# the draft layer's own parts: GGUF name without the block, name in published checkpoints
DRAFT_NORMS = (("nextn.enorm.weight", "mtp.pre_fc_norm_embedding.weight"),
               ("nextn.hnorm.weight", "mtp.pre_fc_norm_hidden.weight"),
               ("nextn.shared_head_norm.weight", "mtp.norm.weight"))


def draft_block(c):
    """Prefix of the draft layer's tensors: it counts as one block more than the model has layers."""
    return "blk.%d." % c.num_layers


def draft_to_file(sd, c: TaleConfig):
    """The draft layer, {"mtp...": float32 array} -> ordered {GGUF name: float32 array}."""
    b = draft_block(c)
    out = layer_to_file(sd, "mtp.layers.0.", b, True, c)
    out[b + "nextn.eh_proj.weight"] = sd["mtp.fc.weight"]
    for ours, theirs in DRAFT_NORMS:
        out[b + ours] = 1 + sd[theirs]
    return out


def draft_from_file(t, c: TaleConfig):
    """The way back of draft_to_file."""
    b = draft_block(c)
    out = layer_from_file(t, b, "mtp.layers.0.", True, c)
    out["mtp.fc.weight"] = t[b + "nextn.eh_proj.weight"]
    for ours, theirs in DRAFT_NORMS:
        out[theirs] = t[b + ours] - 1
    return out


def metadata(c: TaleConfig, tokenizer_path, file_type):
    """All keys of the file: general, dimensions, tokenizer."""
    r = c.rotary_dim // 2
    kv = [("general.architecture", g.STR, "qwen35moe"), ("general.type", g.STR, "model"),
          ("general.name", g.STR, NAME), ("general.file_type", g.U32, file_type),
          ("general.description", g.STR, "A small Mixture-of-Experts model trained from scratch on generated text: "
           "stories, sums, facts of an invented world, tool calls."),
          ("general.quantization_version", g.U32, 2)]
    dims = [("block_count", c.num_layers), ("context_length", c.context), ("embedding_length", c.hidden_size),
            ("attention.head_count", c.num_heads), ("attention.head_count_kv", c.num_kv_heads),
            ("attention.key_length", c.head_dim), ("attention.value_length", c.head_dim),
            ("rope.dimension_count", c.rotary_dim), ("expert_count", c.num_experts), ("expert_used_count", c.top_k),
            ("expert_feed_forward_length", c.expert_ff), ("expert_shared_feed_forward_length", c.shared_ff),
            ("vocab_size", c.vocab_size), ("ssm.conv_kernel", c.conv_kernel), ("ssm.state_size", c.linear_head_dim),
            ("ssm.group_count", c.linear_k_heads), ("ssm.time_step_rank", c.linear_v_heads),
            ("ssm.inner_size", c.linear_v_heads * c.linear_head_dim), ("full_attention_interval", c.full_interval)]
    kv += [("qwen35moe." + k, g.U32, v) for k, v in dims]
    kv += [("qwen35moe.attention.layer_norm_rms_epsilon", g.F32, c.eps), ("qwen35moe.rope.freq_base", g.F32, c.rope_theta),
           ("qwen35moe.rope.dimension_sections", g.ARR, (g.I32, [r - 2 * (r // 3), r // 3, r // 3, 0]))]

    tok = json.load(open(tokenizer_path, encoding="utf-8"))
    tokens, types = [None] * c.vocab_size, [1] * c.vocab_size
    for text, i in tok["model"]["vocab"].items():
        tokens[i] = text
    for added in tok["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = 3 if added["special"] else 4
    assert None not in tokens
    merges = [m if isinstance(m, str) else " ".join(m) for m in tok["model"]["merges"]]
    end, pad = tokens.index("<|im_end|>"), tokens.index("<|endoftext|>")
    kv += [("tokenizer.ggml.model", g.STR, "gpt2"), ("tokenizer.ggml.pre", g.STR, "qwen35"),
           ("tokenizer.ggml.tokens", g.ARR, (g.STR, tokens)), ("tokenizer.ggml.token_type", g.ARR, (g.I32, types)),
           ("tokenizer.ggml.merges", g.ARR, (g.STR, merges)), ("tokenizer.ggml.eos_token_id", g.U32, end),
           ("tokenizer.ggml.padding_token_id", g.U32, pad), ("tokenizer.ggml.add_bos_token", g.BOOL, False),
           ("tokenizer.chat_template", g.STR, CHAT_TEMPLATE)]
    return kv
