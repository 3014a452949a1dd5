"""Write the file that ships: formats by tensor, about 5 bits per weight in all.

  quantize_model.py --weights weights.safetensors --tokenizer tokenizer.json --out m.gguf
  quantize_model.py ... --plan F32 --out reference.gguf

The routed experts, most of the file, get 4 to 5.5 bits.  What every token passes through
gets more; routers, gates, norms and decay rates are tiny and stay float32, because a flipped
choice of expert costs more than any rounding.  Rows of 512 or 256 take the K formats,
the experts' down rows (64 values) the 32-value formats.
"""
import argparse

from safetensors.numpy import load_file

from export_gguf import g, metadata, to_file
from model import TaleConfig

# first match wins; names without the block prefix.  What is listed nowhere stays F32.
PLAN = [
    ("ffn_gate_exps", "Q4_K"), ("ffn_up_exps", "Q4_K"), ("ffn_down_exps", "Q5_0"),
    ("ffn_gate_shexp", "Q5_K"), ("ffn_up_shexp", "Q5_K"), ("ffn_down_shexp", "Q6_K"),
    ("attn_qkv", "Q5_K"), ("attn_gate", "Q5_K"), ("ssm_out", "Q6_K"),
    ("attn_q.weight", "Q5_K"), ("attn_k.weight", "Q6_K"), ("attn_v.weight", "Q8_0"), ("attn_output", "Q6_K"),
    ("token_embd", "Q6_K"), ("output.weight", "Q6_K"), ("nextn.eh_proj", "Q6_K"),
]
FILE_TYPE = {"F32": 0, "F16": 1, "mixed": 15}


def format_of(name, plan):
    for part, fmt in PLAN:
        if part in name and not name.endswith("ffn_gate_inp_shexp.weight"):
            return fmt if plan == "mixed" else plan
    return "F32"


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--weights", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--plan", default="mixed", choices=sorted(FILE_TYPE))
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    c = TaleConfig()
    tensors, by_format = [], {}
    for name, x in to_file(load_file(a.weights), c).items():
        fmt = format_of(name, a.plan)
        raw = g.encode(fmt, x)
        n, b = by_format.get(fmt, (0, 0))
        by_format[fmt] = (n + x.size, b + raw.nbytes)
        tensors.append((name, fmt, x.shape, raw))
    size = g.write_gguf(a.out, metadata(c, a.tokenizer, FILE_TYPE[a.plan]), tensors)
    total = sum(n for n, _ in by_format.values())
    for fmt, (n, b) in sorted(by_format.items(), key=lambda kv: -kv[1][0]):
        print("%-5s %9d weights %9d bytes" % (fmt, n, b))
    print("%s: %d weights, %d bytes, %.2f bits per weight" % (a.out, total, size, 8 * size / total))


if __name__ == "__main__":
    main()
