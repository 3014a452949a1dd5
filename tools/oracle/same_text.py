#!/usr/bin/env python3
"""Does another engine, given the same file and the same prompts, say the same thing?

  same_text.py --ours build/flashmoe --peer-server PROGRAM MODEL.gguf [MODEL.gguf ...]

The peer is a program that serves a model over HTTP in the manner of llama.cpp's server: `PROGRAM -m MODEL --port P`,
then POST /completion with a prompt of token ids, answered with the chosen ids. It continues each prompt greedily. Ours then
evaluates the prompt and the peer's answer in one go (`flashmoe logits`), which shows for every position what ours
would have chosen in the same place: as long as all are equal, both texts are. Where they differ first the comparison
of that prompt ends, and the difference is a tie when both engines see the two ids closer than 1 % of the standard deviation
of the row's logits (the peer's distance comes from its log-probabilities, which differ as logits do).

Prompts are random ids (never control tokens), or --prompt TEXT, cut by flashmoe's tokenizer. Ids that end a generation are
not special here: the peer is told to go on. Exit status 0: every prompt equal, or its first difference a tie.

Python 3.8 or newer and numpy.
"""
import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import numpy as np


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """The peer, for the time of one model."""

    def __init__(self, program, model, n_ctx, threads, log):
        self.port = free_port()
        self.log = log
        command = [program, "-m", model, "--port", str(self.port), "--host", "127.0.0.1", "-c", str(n_ctx), "-t",
                   str(threads), "--no-warmup", "-np", "1"]
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self):
        deadline = time.time() + 300
        while time.time() < deadline:
            if self.process.poll() is not None:
                self.log.seek(0)
                raise SystemExit("the peer ended:\n" + self.log.read().decode(errors="replace")[-2000:])
            try:
                with urllib.request.urlopen("http://127.0.0.1:%d/health" % self.port, timeout=5) as answer:
                    if answer.status == 200:
                        return self
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise SystemExit("the peer did not answer within 300 s")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def complete(self, ids, n):
        """The n ids that follow, and for each the log-probabilities of the likeliest two."""
        request = {"prompt": ids, "n_predict": n, "temperature": 0.0, "top_k": 1, "samplers": ["top_k"], "n_probs": 8,
                   "ignore_eos": True, "cache_prompt": False, "return_tokens": True, "repeat_penalty": 1.0}
        body = json.dumps(request).encode()
        call = urllib.request.Request("http://127.0.0.1:%d/completion" % self.port, body,
                                      {"Content-Type": "application/json"})
        with urllib.request.urlopen(call, timeout=600) as answer:
            reply = json.load(answer)
        rows = [{top["id"]: top["logprob"] for top in step["top_logprobs"]} for step in reply["completion_probabilities"]]
        return [step["id"] for step in reply["completion_probabilities"]], rows


def our_logits(program, model, ids, extra):
    with tempfile.TemporaryDirectory() as folder:
        ids_path, out = os.path.join(folder, "ids"), os.path.join(folder, "out.npy")
        with open(ids_path, "w", encoding="ascii") as f:
            f.write(" ".join(map(str, ids)))
        subprocess.run([program, "logits", model, "--ids-file", ids_path, "--out", out, "-q"] + extra, check=True)
        return np.load(out)


def prompts_of(args, model):
    if args.prompt:
        found = []
        for text in args.prompt:
            run = subprocess.run([args.ours, "tokenize", model, "--json", "-p", text], check=True, capture_output=True, text=True)
            found.append(json.loads(run.stdout)["ids"])
        return found
    info = json.loads(subprocess.run([args.ours, "info", model, "--json"], check=True, capture_output=True, text=True).stdout)
    limit = args.ids_below or info["vocabulary"]
    dice = random.Random(args.seed)
    return [[dice.randrange(args.ids_from, limit) for _ in range(args.prompt_tokens)] for _ in range(args.prompts)]


def compare(args, model):
    good = True
    prompts = prompts_of(args, model)
    answers = []
    with tempfile.TemporaryFile() as log:
        n_ctx = max(len(p) for p in prompts) + args.tokens + 8
        with Server(args.peer_server, model, n_ctx, args.threads, log) as peer:
            for prompt in prompts:
                answers.append(peer.complete(prompt, args.tokens))
    for i, (prompt, (answer, rows)) in enumerate(zip(prompts, answers)):
        if len(answer) != args.tokens:
            raise SystemExit("%s: the peer gave %d tokens, wanted %d" % (model, len(answer), args.tokens))
        logits = our_logits(args.ours, model, prompt + answer[:-1], args.ours_args.split())[len(prompt) - 1:]
        ours = logits.argmax(axis=1)
        differ = np.nonzero(ours != np.array(answer))[0]
        if not len(differ):
            print("%s: prompt %d: %d tokens equal (%d distinct)" % (os.path.basename(model), i, len(answer), len(set(answer))))
            continue
        at = int(differ[0])
        row, a, b = logits[at], int(ours[at]), answer[at]
        std = float(row.std())
        gap_ours = float(row[a] - row[b]) / std
        gap_peer = (rows[at][b] - rows[at][a]) / std if a in rows[at] else float("inf")
        tie = gap_ours < 0.01 and gap_peer < 0.01
        good = good and tie
        print("%s: prompt %d: equal for %d of %d tokens, then %s: ours %d, peer %d, apart by %.4f and %.4f standard deviations"
              % (os.path.basename(model), i, at, len(answer), "a tie" if tie else "DIFFERENT", a, b, gap_ours, gap_peer))
    return good


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="+")
    p.add_argument("--ours", required=True)
    p.add_argument("--ours-args", default="")
    p.add_argument("--peer-server", required=True)
    p.add_argument("--tokens", type=int, default=100)
    p.add_argument("--prompts", type=int, default=4)
    p.add_argument("--prompt-tokens", type=int, default=24)
    p.add_argument("--prompt", action="append")
    p.add_argument("--ids-from", type=int, default=3)
    p.add_argument("--ids-below", type=int, default=0)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    good = [compare(args, model) for model in args.model]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
