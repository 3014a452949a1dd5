#!/usr/bin/env python3
"""Writes tests/vectors/tiktoken: a small tiktoken.model in Kimi's form, the ids that OpenAI's tiktoken gives, and the merges
that its ranks stand for.

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
from tiktoken._educational import bpe_encode

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


# Long texts as (text, times) joined; what the script's encode() does before tiktoken sees them is slices() below.
LONG = [
    [("other ", 80000)], [("the", 20001), (" ", 1), ("y", 25000)], [("a", 3), (" ", 50002), ("b", 1)],
    [("ab ", 133330), ("quick<|im_end|>", 3)], [("\u4e2d\u6587\n", 140000), ("the", 9000)],
    [("x\x1c", 30000), ("\x1d", 25003), ("\u3000", 4)], [("1", 25000), ("2", 1), (" ", 374999), (" a", 70000)],
]


def slices(text):
    """Kimi's tokenization script: at most 400,000 characters, and 25,000 of white space or of none in a row."""
    for start in range(0, len(text), 400000):
        part = text[start:start + 400000]
        begin, length, space = 0, 0, part[0].isspace()
        for i, c in enumerate(part):
            if c.isspace() != space:
                length, space = 1, c.isspace()
                continue
            length += 1
            if length > 25000:
                yield part[begin:i]
                begin, length = i, 1
        yield part[begin:]


def fnv(ids):
    h = 0xcbf29ce484222325
    for b in b"".join(i.to_bytes(4, "little") for i in ids):
        h = (h ^ b) * 0x100000001b3 & (1 << 64) - 1
    return h


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
    # one line per merge, in order: the two ids that tiktoken's teaching code leaves of a token when it knows only lower ranks
    with open(out + "/merges.txt", "w") as f:
        for token, rank in ranks.items():
            if len(token) > 1:
                parts = bpe_encode({t: r for t, r in ranks.items() if r < rank}, token, visualise=None)
                f.write("%s\n" % " ".join(map(str, parts)))
    # one line per string: the string in JSON, a tab, its ids
    with open(out + "/expected.txt", "w") as f:
        for s in STRINGS:
            ids = enc.encode(s, allowed_special="all")
            f.write("%s\t%s\n" % (json.dumps(s), " ".join(map(str, ids))))
    # one line per long text: its parts in JSON, the number of ids, FNV-1a of the ids as little-endian words
    with open(out + "/expected_long.txt", "w") as f:
        for parts in LONG:
            text = "".join(s * n for s, n in parts)
            ids = [i for s in slices(text) for i in enc.encode(s, allowed_special="all")]
            whole = enc.encode(text, allowed_special="all")
            print(len(text), len(ids), "slicing changes ids" if whole != ids else "slicing changes nothing")
            f.write("%s\t%d\t%016x\n" % (json.dumps(parts), len(ids), fnv(ids)))


if __name__ == "__main__":
    main()
