#!/usr/bin/env python3
"""Does a GGUF file that quantize wrote from a directory with tiktoken.model hold its tokenizer, as readers see it who go by merges?

  check_tokenizer.py DIRECTORY FILE.gguf TEXT_FILE...

Tokens and merges of the file, in the BPE of Hugging Face's tokenizers with Kimi's pattern, against OpenAI's tiktoken with the
directory's ranks, on every line of the texts and on all of them in one. Needs gguf, tokenizers and tiktoken from PyPI.
"""
import json
import sys

import gguf
import tiktoken
import tokenizers
from tiktoken.load import load_tiktoken_bpe

from tiktoken_vectors import PATTERN


def main():
    directory, file, texts = sys.argv[1], sys.argv[2], sys.argv[3:]
    ranks = load_tiktoken_bpe(directory + "/tiktoken.model")
    theirs = tiktoken.Encoding("kimi", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    fields = gguf.GGUFReader(file).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    named = json.load(open(directory + "/tokenizer_config.json", encoding="utf-8"))["added_tokens_decoder"]
    for i, token in named.items():
        assert tokens[int(i)] == token["content"] and kinds[int(i)] == (3 if token["special"] else 4), i
    vocab = {t: i for i, t in enumerate(tokens) if kinds[i] == 1}
    assert len(vocab) == len(ranks)
    ours = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    ours.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated"),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    lines = [line for name in texts for line in open(name, encoding="utf-8")]
    n = 0
    for s in lines + ["".join(lines)]:
        a, b = ours.encode(s).ids, theirs.encode_ordinary(s)
        if a != b:
            raise SystemExit("other ids: %r" % s[:200])
        n += len(a)
    print("%d tokens, %d merges; %d texts, %d ids equal" % (len(tokens), len(merges), len(lines) + 1, n))


if __name__ == "__main__":
    main()
