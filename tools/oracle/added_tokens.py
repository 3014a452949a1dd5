#!/usr/bin/env python3
"""Writes tests/vectors/tokenizer/strip.json and strip.ids: added tokens that take white space with them.

  added_tokens.py OUT

A small byte-level tokenizer.json with every combination of lstrip, rstrip and normalized, and the ids that Hugging Face's
tokenizers gives for strings around them (made with 0.23.3). One line per string: the string in JSON, a tab, its ids.
"""
import itertools
import json
import random
import sys

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

SPACES = ["", " ", "  ", "\t", "\n \n", "\u00a0", "\u3000 ", "\u200b", "\u2028", "\x1c", " \u0085"]
WORDS = ["a", "the end", "\u00e9", "e\u0301", "\u4e2d\u6587", "12", "!?", "<", "|x|", "_"]


def main():
    out = sys.argv[1]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate(alphabet)}
    merges = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("\u0120", "\u0120"), ("e", "n"), ("en", "d")]
    for a, b in merges:
        vocab[a + b] = len(vocab)
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    names = []
    for left, right, normalized in itertools.product((False, True), repeat=3):
        name = "<%s%s%s>" % ("l" if left else "", "r" if right else "", "n" if normalized else "")
        names.append(name)
        token = AddedToken(name, lstrip=left, rstrip=right, normalized=normalized, special=not normalized)
        (tok.add_special_tokens if token.special else tok.add_tokens)([token])
    # One that begins with white space, so that it can lie in what another took.
    tok.add_special_tokens([AddedToken("  gap", lstrip=False, rstrip=False, normalized=False)])
    names.append("  gap")
    tok.save(out + "/strip.json")
    rng = random.Random(7)
    strings = ["", " ", "<>", " <l> ", "<r>  <l>", "<r>  gap", "<r>    gap<l>", "a <lr> <lr> b", "<ln> \u00e9 <rn>e\u0301"]
    while len(strings) < 400:
        s = ""
        for _ in range(rng.randint(1, 6)):
            s += rng.choice(SPACES) + rng.choice(names if rng.random() < 0.6 else WORDS)
        strings.append(s + rng.choice(SPACES))
    with open(out + "/strip.ids", "w") as f:
        for s in strings:
            ids = tok.encode(s, add_special_tokens=False).ids
            f.write("%s\t%s\n" % (json.dumps(s), " ".join(map(str, ids))))
    print(tokenizers.__version__, len(strings))


main()
