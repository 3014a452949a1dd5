"""Train the model's byte-level BPE: tokenizer.json.

The splitting pattern and the normalisation are those of Qwen3.5, so an engine needs no
new code for it.  All 256 byte symbols are in the vocabulary, so any text can be encoded.
The markers of turns, tool lists and tool calls are added tokens at the end.
"""
import argparse
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--text", required=True, help="documents separated by NUL (corpus.py --text)")
    ap.add_argument("--vocab", type=int, default=3072)
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    tok = Tokenizer(BPE(ignore_merges=False))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()

    def pieces():
        """Text between the added tokens, as the encoder will see it."""
        with open(a.text, encoding="utf-8") as f:
            for doc in f.read().split("\0"):
                for mark in CONTROL + MARKS:
                    doc = doc.replace(mark, "\0")
                yield from doc.split("\0")

    trainer = trainers.BpeTrainer(
        vocab_size=a.vocab - len(CONTROL) - len(MARKS), min_frequency=2, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(pieces(), trainer)
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL])
    tok.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKS])
    size = tok.get_vocab_size(with_added_tokens=True)
    assert size == a.vocab, "the text supports only %d tokens" % size
    tok.save(a.out)
    model = json.load(open(a.out, encoding="utf-8"))["model"]
    print("%d tokens, %d merges" % (size, len(model["merges"])))


if __name__ == "__main__":
    main()
