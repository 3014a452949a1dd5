"""Packs documents into rows for training.

Batch number i of a seed is always the same, whatever process makes it, so a run that
stops can go on with the next number, and worker processes can make batches ahead.
"""
import os
import random

import numpy as np

import corpus

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
WAITING = 48      # documents held back to find one that fits the rest of a row
_tokenizer = {}


def tokenizer(path):
    if path not in _tokenizer:
        from tokenizers import Tokenizer
        _tokenizer[path] = Tokenizer.from_file(path)
    return _tokenizer[path]


def encode(tok, docs):
    """Token ids and loss weights of documents made of weighted pieces.

    Pieces are encoded one by one; they meet only where the splitting pattern cuts anyway
    (at a marker, or between a newline and a letter), so the ids equal those of the whole text.
    """
    texts = [t for d in docs for t, _ in d]
    coded = iter(tok.encode_batch_fast(texts, add_special_tokens=False))
    out = []
    for d in docs:
        ids, weights = [], []
        for _, w in d:
            piece = next(coded).ids
            ids += piece
            weights += [w] * len(piece)
        out.append((ids, weights))
    return out


def fill_rows(coded, length):
    """Documents from encode(), in order, in as many rows as they need; arrays as make_batch gives them."""
    rows, at = [], length
    for n, (tokens, w) in enumerate(coded):
        if at + len(tokens) > length:
            rows.append((np.zeros(length, np.uint16), np.zeros(length, np.float16), np.full(length, -1, np.int16)))
            at = 0
        part = slice(at, at + len(tokens))
        for row, values in zip(rows[-1], (tokens, w, n)):
            row[part] = values
        at += len(tokens)
    return tuple(np.stack(x) for x in zip(*rows))


def make_batch(job):
    """(seed, index, rows, length, tokenizer path) -> ids uint16, weights f16, document numbers i16."""
    seed, index, rows, length, path = job
    tok, r = tokenizer(path), random.Random("%d %d" % (seed, index))
    ids = np.zeros((rows, length), np.uint16)
    weights = np.zeros((rows, length), np.float16)
    docs = np.full((rows, length), -1, np.int16)
    pool = []
    for row in range(rows):
        at = number = 0
        while True:
            if len(pool) < WAITING:
                new = encode(tok, [corpus.document(r) for _ in range(256)])
                pool += [d for d in new if len(d[0]) <= length]
            fit = next((i for i, d in enumerate(pool) if len(d[0]) <= length - at), None)
            if fit is None:
                break
            tokens, w = pool.pop(fit)
            ids[row, at:at + len(tokens)] = tokens
            weights[row, at:at + len(tokens)] = w
            docs[row, at:at + len(tokens)] = number
            at, number = at + len(tokens), number + 1
    return ids, weights, docs
