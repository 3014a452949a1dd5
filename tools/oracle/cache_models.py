#!/usr/bin/env python3
"""Checks cache-replay against models written from the papers, in plain Python and without its code.

    cache_models.py CACHE_REPLAY [FOLDER]

Random traces are written into FOLDER (a temporary one when left out) and replayed. LRU, LFU, S3-FIFO
and the generation part of every trace must agree to the hit; Belady must equal the best that trying
every possible eviction finds (short traces), and must be reached by no online policy; the bound for
several sizes must not be below what Belady gets. Damaged traces must be refused.
"""
import collections
import functools
import itertools
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

N_FAILED = 0


def check(ok, what):
    global N_FAILED
    if not ok:
        N_FAILED += 1
        print("FAIL:", what)


def write_trace(path, sizes, n_used, passes):
    """sizes: [(experts, bytes)] per layer; passes: [(phase, [[ids of token 0], ...] per layer)]."""
    out = bytearray(b"FMROUTE1" + struct.pack("<III", len(sizes), n_used, 4) + b"test")
    for n, size in sizes:
        out += struct.pack("<IQ", n, size)
    pos = 0
    for phase, layers in passes:
        n_tok = len(layers[0])
        out += struct.pack("<BBIQ", 1, phase, n_tok, pos)
        pos += n_tok
        for layer, tokens in enumerate(layers):
            out += struct.pack("<BH", 2, layer)
            for ids in tokens:
                out += struct.pack(f"<{n_used}H", *ids)
    path.write_bytes(out)


def demands(sizes, passes):
    """[(phase, [(expert, weight)] in the order of the engine)]; an expert is (layer, id)."""
    out = []
    for phase, layers in passes:
        for layer, tokens in enumerate(layers):
            count = collections.Counter(i for ids in tokens for i in ids)
            order = tokens[0] if len(tokens) == 1 else sorted(count)
            out.append((phase, [((layer, i), count[i]) for i in order]))
    return out


def random_passes(rng, sizes, n_used, n_pass, prompts=True):
    passes = []
    for _ in range(n_pass):
        n_tok = rng.choice([1, 1, 1, 1, 6]) if prompts else 1
        layers = [[rng.sample(range(max(n_used, n // rng.choice([1, 2]))), n_used)
                   for _ in range(n_tok)] for n, _ in sizes]
        passes.append((0 if n_tok > 1 else 1, layers))
    return passes


def replay(binary, path, budget, *options):
    done = subprocess.run([binary, "--json", "--budget", str(budget), *options, str(path)],
                          capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["traces"][0]["budgets"][0]
    hits = {p["policy"]: (p["prompt"]["hits"], p["generation"]["hits"]) for p in found["policies"]}
    return hits, found


# ---- the models: each a function that takes demands and slots and returns hits per phase -------

def by_victim(all_demands, n_slot, victim, touch):
    """Hits first, then misses in order; `victim` picks from the cached set."""
    cached, hits = set(), [0, 0]
    for number, (phase, items) in enumerate(all_demands):
        were_in = [e in cached for e, _ in items]
        for (e, w), was in zip(items, were_in):
            if was:
                hits[phase] += 1
                touch(e, w, True, number)
        for (e, w), was in zip(items, were_in):
            if was:
                continue
            if len(cached) == n_slot:
                cached.remove(victim(cached))
            cached.add(e)
            touch(e, w, False, number)
    return tuple(hits)


def lru(all_demands, n_slot):
    last, clock = {}, itertools.count()

    def touch(e, w, hit, number):
        last[e] = next(clock)

    return by_victim(all_demands, n_slot, lambda c: min(c, key=last.get), touch)


def lfu(all_demands, n_slot):
    uses, when, clock = {}, {}, itertools.count()

    def touch(e, w, hit, number):
        uses[e] = (uses[e] if hit else 0) + w
        when[e] = next(clock)

    return by_victim(all_demands, n_slot, lambda c: min(c, key=lambda e: (uses[e], when[e])), touch)


def s3fifo(all_demands, n_slot):
    """Yang et al. 2023: S holds a tenth, M the rest, G as many names as M."""
    n_small, n_main = n_slot // 10, n_slot - n_slot // 10
    small, main, ghost, freq = [], [], [], {}
    hits = [0, 0]

    def evict_main():
        while True:
            e = main.pop(0)
            if freq[e] > 0:
                freq[e] -= 1
                main.append(e)
            else:
                return

    def evict_small():
        while small:
            e = small.pop(0)
            if freq[e] > 1:
                freq[e] = 0
                main.append(e)
                if len(main) > n_main:
                    evict_main()
            else:
                ghost.append(e)
                if len(ghost) > n_main:
                    ghost.pop(0)
                return

    for phase, items in all_demands:
        were_in = [e in small or e in main for e, _ in items]
        for (e, w), was in zip(items, were_in):
            if was:
                hits[phase] += 1
                freq[e] = min(3, freq[e] + w)
        for (e, w), was in zip(items, were_in):
            if was:
                continue
            known = e in ghost
            if known:
                ghost.remove(e)
            while len(small) + len(main) >= n_slot:
                if len(small) >= n_small or not main:
                    evict_small()
                else:
                    evict_main()
            freq[e] = min(3, w - 1)
            (main if known else small).append(e)
    return tuple(hits)


def best_of_all(all_demands, n_slot):
    """Tries everything: the most hits that any sequence of evictions gives."""
    lists = [[e for e, _ in items] for _, items in all_demands]

    @functools.lru_cache(maxsize=None)
    def best(at, cached):
        if at == len(lists):
            return 0
        wanted = frozenset(lists[at])
        hits = len(wanted & cached)
        # After the demand any n_slot of what was there or came in may be left.
        pool = cached | wanted
        if len(pool) <= n_slot:
            return hits + best(at + 1, pool)
        return hits + max(best(at + 1, frozenset(keep))
                          for keep in itertools.combinations(sorted(pool), n_slot))

    return best(0, frozenset())


# ---- the checks --------------------------------------------------------------------------------

def compare_models(binary, folder):
    rng = random.Random(7)
    for case in range(12):
        sizes = [(rng.randint(12, 40), 1000)] * rng.randint(1, 6)
        n_used = rng.randint(1, 4)
        passes = random_passes(rng, sizes, n_used, 150)
        path = folder / f"models{case}.fmr"
        write_trace(path, sizes, n_used, passes)
        n_all = sum(n for n, _ in sizes)
        for n_slot in sorted({20, n_all // 2 // 10 * 10}):
            if not 10 <= n_slot < n_all:
                continue
            hits, _ = replay(binary, path, n_slot * 1000)
            told = demands(sizes, passes)
            for name, model in (("LRU", lru), ("LFU", lfu), ("S3-FIFO", s3fifo)):
                want = model(told, n_slot)
                check(hits[name] == want, f"case {case}, {n_slot} slots: {name} has {hits[name]}, "
                      f"the model {want}")
            best = sum(hits["Belady"])
            for name, got in hits.items():
                check(sum(got) <= best, f"case {case}: {name} beats the optimum")


def compare_optimum(binary, folder):
    rng = random.Random(11)
    for case in range(25):
        sizes = [(rng.randint(3, 5), 500)] * rng.randint(1, 2)
        n_used = rng.randint(1, 2)
        passes = random_passes(rng, sizes, n_used, 14)
        path = folder / f"best{case}.fmr"
        write_trace(path, sizes, n_used, passes)
        for n_slot in (2, 3, 4):
            hits, found = replay(binary, path, n_slot * 500, "--policies", "Belady")
            want = best_of_all(demands(sizes, passes), n_slot)
            got = sum(hits["Belady"])
            check(got == want, f"case {case}, {n_slot} slots: Belady has {got}, the best is {want}")
            check(found["bound"]["hits"] >= want, f"case {case}: the bound is below the best")


def by_hand(binary, folder):
    # One layer, one expert per token: a b c a b d a b; two slots.
    # a and b are brought in and stay, c and d come and go: four hits. LRU has none.
    ids = [0, 1, 2, 0, 1, 3, 0, 1]
    passes = [(1, [[[i]]]) for i in ids]
    path = folder / "hand.fmr"
    write_trace(path, [(4, 100)], 1, passes)
    hits, _ = replay(binary, path, 200)
    check(hits["Belady"] == (0, 4), f"by hand: Belady has {hits['Belady']}")
    check(hits["LRU"] == (0, 0), f"by hand: LRU has {hits['LRU']}")
    hits, _ = replay(binary, path, 400)
    for name, got in hits.items():
        check(got == (0, 4), f"by hand: {name} with room for all has {got}")


def several_sizes(binary, folder):
    rng = random.Random(13)
    sizes = [(20, 900), (20, 2100), (30, 900), (10, 5000)]
    passes = random_passes(rng, sizes, 3, 300)
    path = folder / "sizes.fmr"
    write_trace(path, sizes, 3, passes)
    total = sum(n * size for n, size in sizes)
    uses = collections.Counter()
    for phase, items in demands(sizes, passes):
        for (layer, _), _ in items:
            uses[phase] += sizes[layer][1]
    for share in (30, 60, 100):
        _, found = replay(binary, path, total * share // 100)
        bound = found["bound"]["hit_bytes"]
        for p in found["policies"]:
            got = p["prompt"]["hit_bytes"] + p["generation"]["hit_bytes"]
            check(got <= bound, f"{share} %: {p['policy']} has more bytes than the bound")
            check(p["prompt"]["use_bytes"] == uses[0] and p["generation"]["use_bytes"] == uses[1],
                  f"{share} %: {p['policy']} counted other uses")
            if share == 100 and p["policy"] != "W-TinyLFU":
                check(got == bound, f"{p['policy']} misses with everything in memory")


def damaged(binary, folder):
    rng = random.Random(17)
    sizes = [(8, 100)] * 2
    passes = random_passes(rng, sizes, 2, 10)
    path = folder / "whole.fmr"
    write_trace(path, sizes, 2, passes)
    whole = path.read_bytes()
    broken = folder / "broken.fmr"

    def run(data):
        broken.write_bytes(data)
        done = subprocess.run([binary, "--budget", "50%", str(broken)], capture_output=True, text=True)
        check(done.returncode in (0, 1), f"status {done.returncode} on a damaged trace")
        return done
    for n in range(0, 60):
        done = run(whole[:n])
        header = 8 + 12 + 4 + 2 * 12
        if n < header:
            check(done.returncode == 1 and "broken.fmr" in done.stderr, f"a header cut at {n} passes")
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        run(bytes(data))


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
        by_hand(binary, folder)
        compare_models(binary, folder)
        compare_optimum(binary, folder)
        several_sizes(binary, folder)
        damaged(binary, folder)
    print("cache models:", "failed" if N_FAILED else "agree")
    sys.exit(1 if N_FAILED else 0)


if __name__ == "__main__":
    main()
