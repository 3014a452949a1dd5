"""Weights of the tiny test models, written independently of the C generator in tests/tiny.

Gives every Hugging Face parameter by its name and shape. Knows nothing of GGUF names or of the
reordering that a conversion to GGUF does; a quantized matrix is made as blocks along its rows and
decoded here. The definition is in tests/vectors/model/README.md.
"""
import math

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1

# name -> (values per block, bytes per block)
BLOCKS = {"F32": (1, 4), "Q8_0": (32, 34), "Q4_K": (256, 144), "Q6_K": (256, 210),
          "MXFP4": (32, 17)}

# the same, and the root mean square of value / scale over random bits, in the order of dealing out
IQ = {"IQ4_XS": (256, 136, 1246.0), "IQ3_S": (256, 110, 140.5), "IQ2_XS": (256, 74, 56.0),
      "IQ1_M": (256, 56, 7.2), "IQ4_NL": (32, 18, 67.5), "IQ3_XXS": (256, 98, 142.0),
      "IQ2_S": (256, 82, 56.25), "IQ2_XXS": (256, 66, 53.5), "IQ1_S": (256, 50, 7.2)}
MIX_SPECS = ("qwen35moe-q", "qwen3moe-s")  # have a reference for type IQ


def _spec(family, seed, layers, hidden, vocab, heads, kv, head_dim, rope_dim, theta, eps, experts,
          used, ff, interval=0, key_heads=0, value_heads=0, state=0, shared=0, quiet=False,
          tied=False, qk_norm=False, draft=False, dense=0, dense_ff=0, scale=0.0, window=0, yarn=0.0,
          beta_fast=0.0, beta_slow=0.0, original=0, q_latent=0, kv_latent=0, v_dim=0, groups=0,
          groups_used=0, mscale=0.0, kv_b=False, index_heads=0, index_dim=0,
          topk=0, index_types=""):
    return dict(locals())


SPECS = {
    "qwen35moe-a": _spec("qwen35moe", 2, 4, 96, 321, 4, 2, 16, 4, 1e7, 1e-6, 20, 3, 40,
                         4, 2, 4, 16, 56),
    "qwen35moe-b": _spec("qwen35moe", 7, 6, 112, 333, 6, 1, 24, 6, 1e4, 1e-3, 72, 10, 44,
                         4, 3, 3, 24, 52, quiet=True),
    "qwen35moe-c": _spec("qwen35moe", 15, 5, 72, 307, 6, 3, 32, 16, 5e5, 1e-5, 130, 8, 41,
                         2, 3, 12, 20, 70),
    "qwen35moe-e": _spec("qwen35moe", 18, 4, 88, 311, 6, 2, 24, 12, 1e6, 1e-5, 36, 5, 44,
                         3, 2, 6, 20, 52, draft=True),
    "qwen35moe-q": _spec("qwen35moe", 14, 4, 256, 512, 4, 2, 64, 16, 1e7, 1e-6, 12, 3, 256,
                         4, 2, 8, 32, 256),
    "qwen35moe-s": _spec("qwen35moe", 41, 2, 256, 280, 4, 2, 64, 16, 1e7, 1e-6, 8, 8, 256,
                         2, 2, 8, 32, 256),
    "qwen35moe-r": _spec("qwen35moe", 1, 2, 256, 280, 4, 1, 64, 16, 1e7, 1e-6, 8, 8, 256,
                         2, 2, 4, 32, 256, draft=True),
    "qwen3next-a": _spec("qwen3next", 38, 4, 96, 319, 4, 2, 16, 4, 1e7, 1e-6, 20, 4, 48,
                         4, 2, 4, 16, 40),
    "qwen3next-b": _spec("qwen3next", 29, 7, 104, 331, 3, 3, 20, 10, 1e4, 1e-5, 72, 10, 44,
                         3, 2, 8, 20, 60),
    "qwen3next-c": _spec("qwen3next", 39, 4, 72, 309, 5, 1, 32, 8, 1e6, 1e-3, 130, 7, 52,
                         4, 5, 5, 24, 44, quiet=True),
    "qwen3next-d": _spec("qwen3next", 46, 2, 128, 280, 4, 1, 64, 16, 1e7, 1e-6, 8, 8, 128,
                         2, 2, 4, 128, 128),
    "qwen3next-e": _spec("qwen3next", 20, 2, 128, 280, 4, 2, 32, 8, 1e6, 1e-6, 10, 4, 128,
                         2, 1, 2, 128, 128, draft=True),
    "qwen3next-q": _spec("qwen3next", 9, 4, 256, 512, 8, 1, 32, 8, 1e7, 1e-6, 12, 4, 256,
                         4, 2, 4, 64, 256),
    "qwen3next-s": _spec("qwen3next", 42, 2, 256, 280, 8, 1, 32, 8, 1e7, 1e-6, 8, 8, 256,
                         2, 2, 4, 64, 256),
    "qwen3moe-a": _spec("qwen3moe", 28, 4, 96, 323, 4, 2, 16, 16, 1e6, 1e-6, 20, 3, 40),
    "qwen3moe-b": _spec("qwen3moe", 24, 5, 80, 335, 6, 1, 24, 24, 1e4, 1e-3, 72, 9, 56, tied=True),
    "qwen3moe-c": _spec("qwen3moe", 23, 6, 68, 305, 9, 3, 32, 32, 5e6, 1e-5, 130, 8, 41),
    "qwen3moe-q": _spec("qwen3moe", 30, 4, 256, 512, 8, 2, 64, 64, 1e6, 1e-6, 12, 3, 256),
    "qwen3moe-s": _spec("qwen3moe", 43, 2, 256, 280, 8, 2, 64, 64, 1e6, 1e-6, 8, 8, 256),
    "glm4moe-a": _spec("glm4moe", 7, 4, 96, 283, 6, 2, 16, 8, 1e6, 1e-5, 20, 3, 40, shared=40,
                       qk_norm=True, dense=1, dense_ff=150, scale=2.5),
    "glm4moe-b": _spec("glm4moe", 9, 5, 72, 281, 12, 1, 20, 10, 1e4, 1e-3, 130, 8, 41, shared=82,
                       draft=True, dense=2, dense_ff=99, scale=1.0),
    "glm4moe-q": _spec("glm4moe", 2, 3, 256, 280, 8, 2, 32, 16, 1e6, 1e-5, 12, 3, 256, shared=256,
                       qk_norm=True, dense=1, dense_ff=512, scale=2.5),
    "gpt-oss-a": _spec("gpt-oss", 9, 4, 96, 282, 8, 1, 32, 32, 150000, 1e-5, 20, 4, 40,
                       window=24, yarn=32.0, beta_fast=32.0, beta_slow=1.0, original=48),
    "gpt-oss-b": _spec("gpt-oss", 5, 5, 76, 284, 6, 2, 24, 24, 1e4, 1e-3, 130, 5, 42,
                       window=70, yarn=4.0, beta_fast=8.0, beta_slow=0.5, original=100),
    "gpt-oss-c": _spec("gpt-oss", 1, 3, 64, 281, 9, 3, 64, 64, 150000, 1e-5, 72, 4, 64,
                       window=3, yarn=16.0, beta_fast=1.0, beta_slow=0.1, original=32),
    "gpt-oss-q": _spec("gpt-oss", 29, 4, 160, 280, 4, 2, 64, 64, 150000, 1e-5, 12, 4, 96,
                       window=32, yarn=32.0, beta_fast=4.0, beta_slow=1.0, original=64),
    # head_dim: of q and k without their rope_dim values
    "deepseek2-a": _spec("deepseek2", 9, 4, 96, 285, 6, 6, 24, 16, 1e4, 1e-6, 24, 3, 40, shared=40,
                         dense=1, dense_ff=150, scale=2.5, yarn=40.0, beta_fast=32.0, beta_slow=1.0,
                         original=96, q_latent=40, kv_latent=48, v_dim=20, groups=4, groups_used=2,
                         mscale=1.0),
    "deepseek2-b": _spec("deepseek2", 19, 4, 72, 283, 4, 4, 20, 24, 5e4, 1e-3, 130, 8, 41, shared=41,
                         quiet=True, draft=True, dense=1, dense_ff=99, scale=2.827, yarn=64.0,
                         beta_fast=1.0, beta_slow=1.0, original=64, q_latent=36, kv_latent=40,
                         v_dim=28, groups=1, groups_used=1, mscale=0.707),
    "deepseek2-c": _spec("deepseek2", 11, 3, 80, 281, 17, 17, 10, 6, 1e4, 1e-5, 72, 6, 44, shared=88,
                         dense=2, dense_ff=120, scale=2.446, kv_latent=33, v_dim=12, groups=8,
                         groups_used=3, kv_b=True),
    "deepseek2-q": _spec("deepseek2", 30, 3, 256, 280, 4, 4, 64, 64, 1e4, 1e-6, 12, 3, 256,
                         shared=256, dense=1, dense_ff=512, scale=2.5, yarn=40.0, beta_fast=32.0,
                         beta_slow=1.0, original=128, q_latent=256, kv_latent=256, v_dim=64,
                         groups=3, groups_used=2, mscale=1.0),
    "deepseek2-s": _spec("deepseek2", 1, 2, 256, 280, 4, 4, 64, 32, 5e4, 1e-5, 8, 8, 256,
                         shared=256, dense=1, dense_ff=512, scale=2.5, q_latent=256, kv_latent=256,
                         v_dim=64, groups=1, groups_used=1, kv_b=True),
    "deepseek32-a": _spec("deepseek32", 7, 3, 96, 285, 6, 6, 24, 16, 1e4, 1e-6, 24, 3, 40, shared=40,
                          dense=1, dense_ff=150, scale=2.5, yarn=40.0, beta_fast=32.0,
                          beta_slow=1.0, original=96, q_latent=40, kv_latent=48, v_dim=20, groups=4,
                          groups_used=2, mscale=1.0, index_heads=8, index_dim=32, topk=24),
    "deepseek32-b": _spec("deepseek32", 10, 3, 72, 283, 4, 4, 20, 24, 5e4, 1e-3, 130, 8, 41, shared=41,
                          draft=True, dense=1, dense_ff=99, scale=2.827, q_latent=36, kv_latent=40,
                          v_dim=28, groups=1, groups_used=1, kv_b=True, index_heads=13,
                          index_dim=24, topk=70),
    "deepseek32-q": _spec("deepseek32", 10, 2, 256, 280, 4, 4, 64, 64, 1e4, 1e-6, 12, 3, 256,
                          shared=256, dense=1, dense_ff=512, scale=2.5, yarn=40.0, beta_fast=32.0,
                          beta_slow=1.0, original=128, q_latent=256, kv_latent=256, v_dim=64,
                          groups=3, groups_used=2, mscale=1.0, index_heads=8, index_dim=128, topk=40),
    "deepseek32-p": _spec("deepseek32", 5, 3, 96, 285, 6, 6, 24, 16, 1e4, 1e-6, 24, 3, 40, shared=40,
                          dense=1, dense_ff=150, scale=2.5, q_latent=40, kv_latent=48, v_dim=20,
                          groups=4, groups_used=2, index_heads=8, index_dim=32, topk=150),
    "glm-dsa-a": _spec("glm-dsa", 16, 5, 80, 281, 17, 17, 18, 12, 1e6, 1e-5, 72, 6, 44, shared=88,
                       dense=2, dense_ff=120, scale=2.446, q_latent=44, kv_latent=33, v_dim=26,
                       groups=1, groups_used=1, index_heads=10, index_dim=20, topk=33,
                       index_types="FFSSF"),
    "glm-dsa-b": _spec("glm-dsa", 4, 3, 96, 285, 5, 5, 20, 16, 8e6, 1e-3, 20, 3, 40, shared=40,
                       draft=True, dense=1, dense_ff=150, scale=2.5, q_latent=48, kv_latent=64,
                       v_dim=32, groups=1, groups_used=1, kv_b=True, index_heads=16, index_dim=40,
                       topk=100),
    "glm-dsa-q": _spec("glm-dsa", 2, 2, 256, 280, 4, 4, 48, 32, 1e6, 1e-5, 12, 3, 256, shared=256,
                       dense=1, dense_ff=512, scale=2.5, q_latent=256, kv_latent=256, v_dim=96,
                       groups=1, groups_used=1, kv_b=True, index_heads=8, index_dim=64, topk=40),
}
HYBRIDS = ("qwen35moe", "qwen3next")


def all_runs():
    """(spec name, type) of every stored reference."""
    for name in SPECS:
        for fmt in types_of(name):
            yield name, fmt
        if name in MIX_SPECS:
            yield name, "IQ"


def types_of(name):
    if name == "gpt-oss-q":
        return ("MXFP4",)
    if name in ("glm4moe-q", "deepseek2-q", "qwen35moe-r"):
        return ("Q4_K",)
    if name in ("deepseek32-q", "glm-dsa-q"):
        return ("Q8_0",)
    if name == "deepseek2-s":
        return ("Q8_0", "Q6_K")
    return ("Q8_0", "Q4_K", "Q6_K") if name.endswith(("-q", "-s")) else ("F32",)


# ------------------------------------------------------------------------------- generator
def key_of(name, seed):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h ^ ((seed * GOLDEN) & MASK)


def words(key, n):
    """The first n outputs of splitmix64 started in state key."""
    i = np.arange(1, n + 1, dtype=np.uint64)
    z = np.uint64(key) + i * np.uint64(GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def token_ids(spec, n):
    w = words(key_of("tokens", spec["seed"]), n)
    return ((w >> np.uint64(33)) % np.uint64(spec["vocab"])).astype(np.int32)


# suffix -> kind, base, value; the first match wins
RULES = [
    ("embed_tokens.weight", "table", 0.0, 0.5),
    ("lm_head.weight", "matrix", 0.0, 2.0),
    ("linear_attn.norm.weight", "vector", 1.0, 0.3),
    ("q_norm.weight", "vector", 0.5, 0.4),
    ("k_norm.weight", "vector", 0.5, 0.4),
    ("norm.weight", "vector", 0.0, 0.3),
    ("pre_fc_norm_embedding.weight", "vector", 0.0, 0.3),
    ("pre_fc_norm_hidden.weight", "vector", 0.0, 0.3),
    ("linear_attn.A_log", "vector", -1.0, 2.0),
    ("linear_attn.dt_bias", "vector", -1.5, 2.5),
    ("linear_attn.conv1d.weight", "vector", 0.0, 0.9),
    ("self_attn.o_proj.weight", "matrix", 0.0, 1.5),
    ("self_attn.sinks", "vector", 1.0, 2.0),
    ("k_norm.bias", "vector", 0.0, 0.4),
    ("_proj.bias", "vector", 0.0, 0.4),
    ("linear_attn.out_proj.weight", "matrix", 0.0, 1.5),
    ("mlp.gate.weight", "matrix", 0.0, 2.0),
    ("mlp.gate.e_score_correction_bias", "vector", 0.0, 0.2),
    ("mlp.router.weight", "matrix", 0.0, 2.0),
    ("mlp.router.bias", "vector", 0.0, 1.0),
    ("mlp.experts.gate_up_proj_bias", "vector", 0.0, 1.0),
    ("mlp.experts.down_proj_bias", "vector", 0.0, 0.5),
    ("mlp.shared_expert_gate.weight", "matrix", 0.0, 1.5),
    ("mlp.experts.gate_up_proj", "matrix", 0.0, 1.25),
    ("mlp.experts.down_proj", "matrix", 0.0, 2.0),
    ("mlp.shared_expert.down_proj.weight", "matrix", 0.0, 2.0),
    ("", "matrix", 0.0, 1.0),
]


def rule_of(spec, name):
    for suffix, kind, base, value in RULES:
        if name.endswith(suffix):
            if spec["family"] not in HYBRIDS and "norm.weight" in name:
                base += 1.0
            if spec["family"] == "gpt-oss" and suffix == "mlp.experts.gate_up_proj":
                value *= 3.0
            return kind, base, value


def block_of(fmt):
    """Values and bytes of a block."""
    return BLOCKS[fmt] if fmt in BLOCKS else IQ[fmt][:2]


def format_of(spec, name, shape, wanted):
    """The block format of a parameter in a file of type `wanted`."""
    kind = rule_of(spec, name)[0]
    if kind == "vector" or name.endswith(("mlp.gate.weight", "shared_expert_gate.weight",
                                          "mlp.router.weight", "weights_proj.weight")):
        return "F32"
    if wanted == "MXFP4" and ".experts." not in name:
        wanted = "Q8_0"
    unit = spec["state"] if "linear_attn.out_proj" in name else shape[-1]
    if wanted == "IQ":
        parts = name.split(".")
        layer = int(parts[2]) if parts[1] == "layers" else 0
        i = spec["seed"] + 2 * layer + ("down_proj" in name) + ("mlp.experts." not in name)
        wanted = list(IQ)[i % len(IQ)]
    for fmt in (wanted, "Q8_0"):
        if unit % block_of(fmt)[0] == 0:
            return fmt
    return "F32"


def half_bits(target, random):
    """f16 bits near target (array of random u16 in): one binade, ten random mantissa bits."""
    f, e = math.frexp(target / 1.5)
    if f < 0.70710678:
        e -= 1
    mantissa = random & np.uint16(1023)
    if e >= -14:
        return np.uint16((e + 15) << 10) | mantissa
    return (np.uint16(1024) | mantissa) >> np.uint16(-14 - e)


def blocks_of(key, n, fmt, std):
    """n blocks as bytes [n][block bytes]."""
    size = block_of(fmt)[1]
    per = (size + 7) // 8
    raw = words(key, n * per).astype("<u8").view(np.uint8).reshape(n, per * 8)[:, :size].copy()

    def half(at, target, signed=False):
        random = raw[:, at].astype(np.uint16) | raw[:, at + 1].astype(np.uint16) << np.uint16(8)
        bits = half_bits(target, random)
        if signed:
            bits = bits | (random & np.uint16(0x8000))
        raw[:, at:at + 2] = bits.astype("<u2").view(np.uint8).reshape(n, 2)

    if fmt == "Q8_0":
        half(0, std / 73.6)
        codes = raw[:, 2:]
        codes[codes == 0x80] = 0x81
    elif fmt == "Q4_K":
        half(0, std / 258.0)
        half(2, 7.5 * std / 258.0)
    elif fmt == "Q6_K":
        half(208, std / 1367.0, signed=True)
    elif fmt == "MXFP4":
        raw[:, 0] = 127 + math.frexp(std / 2.926)[1] - 1 + (raw[:, 0] & 1)
    elif fmt == "IQ1_M":
        random = raw[:, 48].astype(np.uint16) | raw[:, 49].astype(np.uint16) << np.uint16(8)
        bits = half_bits(std / IQ[fmt][2], random)
        for j in range(4):
            nibble = (bits >> np.uint16(4 * j) & np.uint16(15)).astype(np.uint8)
            raw[:, 49 + 2 * j] = raw[:, 49 + 2 * j] & 15 | nibble << 4
    elif fmt in IQ:
        half(0, std / IQ[fmt][2])
    return raw


def parameter(spec, name, shape, fmt="F32"):
    """The parameter `name` as float32 [shape], decoded if `fmt` stores it in blocks."""
    if spec["family"] == "gpt-oss" and name.endswith(("gate_up_proj", "down_proj")):
        # the class holds what the published checkpoint has, with the last two axes exchanged
        stored = _parameter(spec, name, (shape[0], shape[2], shape[1]), fmt)
        return np.ascontiguousarray(stored.transpose(0, 2, 1))
    if spec["kv_latent"] and not spec["kv_b"] and name.endswith("kv_b_proj.weight"):
        # two tensors in the file, of which k_b is transposed within each head
        n, nope, v, latent = spec["heads"], spec["head_dim"], spec["v_dim"], spec["kv_latent"]
        k_b = _parameter(spec, name.replace("kv_b", "k_b"), (n, latent, nope), fmt)
        v_b = _parameter(spec, name.replace("kv_b", "v_b"), (n, v, latent), fmt)
        return np.concatenate([k_b.transpose(0, 2, 1), v_b], 1).reshape(shape)
    return _parameter(spec, name, shape, fmt)


def _parameter(spec, name, shape, fmt):
    kind, base, value = rule_of(spec, name)
    key = key_of(name, spec["seed"])
    n = int(np.prod(shape))
    std = value / math.sqrt(shape[-1]) if kind == "matrix" else value
    stored = format_of(spec, name, shape, fmt)
    if stored != "F32":
        raw = blocks_of(key, n // block_of(stored)[0], stored, std)
        return decode(raw, stored).reshape(shape)
    scale = np.float32(std if kind == "vector" else std * math.sqrt(3.0))
    u = ((words(key, n) >> np.uint64(48)).astype(np.int32) - 32768) / 32768.0
    w = (base + np.float64(scale) * u).astype(np.float32).reshape(shape)
    if spec["quiet"] and "q_a_proj" in name:
        w *= np.float32(2.0 ** -5)
    if spec["quiet"] and "kv_a_proj" in name:
        w[:spec["kv_latent"]] *= np.float32(2.0 ** -5)
    if spec["quiet"] and "in_proj_qkv" in name:
        dim, keys = spec["state"], spec["state"] * spec["key_heads"]
        if name.endswith("in_proj_qkvz.weight"):
            w[:2 * dim] *= np.float32(2.0 ** -11)
        else:
            w[:dim] *= np.float32(2.0 ** -11)
            w[keys:keys + dim] *= np.float32(2.0 ** -11)
    return w


# -------------------------------------------------------------------------------- decoding
def decode(raw, fmt):
    """Blocks as bytes [n][block bytes] -> float32 [n][block elements]. The IQ types have no second
    transcription here: their code books are the gguf package's."""
    if fmt in IQ:
        import gguf
        return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[fmt])
    return {"Q8_0": decode_q8_0, "Q4_K": decode_q4_k, "Q6_K": decode_q6_k,
            "MXFP4": decode_mxfp4}[fmt](raw)


def halves(raw, at):
    return raw[:, at:at + 2].copy().view("<f2").astype(np.float32)


def decode_mxfp4(raw):
    lut = np.array([0, .5, 1, 1.5, 2, 3, 4, 6], np.float32)
    lut = np.concatenate([lut, -lut])
    scale = np.ldexp(np.float32(1), raw[:, :1].astype(np.int32) - 127)
    return scale * np.concatenate([lut[raw[:, 1:] & 15], lut[raw[:, 1:] >> 4]], 1)


def decode_q8_0(raw):
    return halves(raw, 0) * raw[:, 2:].view(np.int8).astype(np.float32)


def decode_q4_k(raw):
    d, dmin, packed, qs = halves(raw, 0), halves(raw, 2), raw[:, 4:16], raw[:, 16:]
    out = np.empty((len(raw), 256), np.float32)
    for k in range(8):
        if k < 4:
            sc, mn = packed[:, k] & 63, packed[:, k + 4] & 63
        else:
            sc = packed[:, k + 4] & 15 | packed[:, k - 4] >> 6 << 4
            mn = packed[:, k + 4] >> 4 | packed[:, k] >> 6 << 4
        pair = qs[:, 32 * (k // 2):32 * (k // 2) + 32]
        q = pair >> 4 if k % 2 else pair & 15
        scale = d * sc[:, None].astype(np.float32)
        offset = dmin * mn[:, None].astype(np.float32)
        out[:, 32 * k:32 * k + 32] = scale * q.astype(np.float32) - offset
    return out


def decode_q6_k(raw):
    d, scales = halves(raw, 208), raw[:, 192:208].copy().view(np.int8).astype(np.float32)
    out = np.empty((len(raw), 256), np.float32)
    for half in range(2):
        ql, qh = raw[:, 64 * half:64 * half + 64], raw[:, 128 + 32 * half:160 + 32 * half]
        for part in range(4):
            low = ql[:, 32 * (part % 2):32 * (part % 2) + 32]
            low = low >> 4 if part >= 2 else low & 15
            q = (low | (qh >> (2 * part) & 3) << 4).astype(np.float32) - 32
            for side in range(2):
                sub = 2 * part + side
                at = 128 * half + 16 * sub
                scale = d * scales[:, 8 * half + sub][:, None]
                out[:, at:at + 16] = scale * q[:, 16 * side:16 * side + 16]
    return out
