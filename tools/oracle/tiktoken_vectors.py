#!/usr/bin/env python3
"""Writes tests/vectors/tiktoken: a small tiktoken.model in Kimi's form and the ids that OpenAI's tiktoken gives.

  tiktoken_vectors.py OUT

Ranks: 256 bytes, then merges counted in the text below; the pattern is the published one of Kimi K2 (models' tokenization
script). Needs the PyPI package tiktoken (made with 0.14).
"""
import base64
import collections
import json
import os
import sys

import tiktoken

PATTERN = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
TEXT = ("The quick brown fox jumps over the lazy dog, and then the other dogs there think that this is "
        "the thing. We're here; they'll come. def function(value): return value + 12345 中文分词 很好 中文 ") * 3
STRINGS = [
    "", "the", "The thing that they'll do", "  leading and trailing  ", "中文 is Chinese 中文分词", "12345 678901",
    "a<|im_end|>b", "<think>the</think>", "<|reserved_token_400|>x", "\n\n  \n", "WE'RE HERE", "\u00e9t\u00e9 \U0001F600",
    "def f(x):\n\treturn x ** 2  # the end\r\n",
]


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    ranks = {bytes([b]): b for b in range(256)}
    words = [list(bytes([c]) for c in w.encode()) for w in TEXT.replace(" ", "\0 ").split("\0")]
    while len(ranks) < 330:
        pairs = collections.Counter(p for w in words for p in zip(w, w[1:]))
        best = max(sorted(pairs), key=pairs.get)
        ranks[best[0] + best[1]] = len(ranks)
        for w in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i:i + 2] = [best[0] + best[1]]
                i += 1
    n = len(ranks)
    named = {n: "[BOS]", n + 1: "[EOS]", n + 2: "<|im_end|>", n + 22: "<think>", n + 23: "</think>"}
    special = {named.get(n + i, "<|reserved_token_%d|>" % (n + i)): n + i for i in range(256)}
    with open(out + "/tiktoken.model", "w") as f:
        for token, rank in ranks.items():
            f.write("%s %d\n" % (base64.b64encode(token).decode(), rank))
    json.dump({"added_tokens_decoder": {str(i): {"content": s, "special": s[0] == "[" or "im_end" in s}
                                        for i, s in named.items()}},
              open(out + "/tokenizer_config.json", "w"))
    json.dump({"eos_token_id": n + 2}, open(out + "/generation_config.json", "w"))
    enc = tiktoken.Encoding("kimi", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)
    # one line per string: the string in JSON, a tab, its ids
    with open(out + "/expected.txt", "w") as f:
        for s in STRINGS:
            ids = enc.encode(s, allowed_special="all")
            f.write("%s\t%s\n" % (json.dumps(s), " ".join(map(str, ids))))


main()
