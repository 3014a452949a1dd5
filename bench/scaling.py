#!/usr/bin/env python3
"""How the time of a token grows with what should make it grow, and with nothing else.

    bench/scaling.py --ours build/flashmoe --shape-gguf build/tools/shape_gguf --work DIR \\
        --json scaling.json --plot scaling.svg

Writes models of the 35B shape with few layers into DIR (kept for the next run; about 10 GB), then runs
`flashmoe bench` over five sweeps: experts per token, experts, layers, context, memory budget. Each row has the
measured milliseconds per generated token beside those of the speed model (docs/benchmarks.md) at the
rates that were probed in the same run. Prompts of 1,024 tokens fill the cache in the first three sweeps.
The plot needs matplotlib; without it the table is all there is.
"""
import argparse
import json
import os
import subprocess
import sys

SHAPE = "qwen3.5-35b-a3b"


def model(opt, layers, experts=256):
    path = os.path.join(opt.work, "scaling-%d-%d.gguf" % (layers, experts))
    if not os.path.exists(path):
        part = path + ".part"
        subprocess.run([opt.shape_gguf, "--shape", SHAPE, "--layers", str(layers), "--experts", str(experts),
                        "--share", "1", "--out", part], check=True, stdout=subprocess.DEVNULL)
        os.rename(part, path)
    return path


def bench(opt, path, memory, prompt, gen, *extra):
    command = [opt.ours, "bench", path, "--memory", memory, "--prompt", str(prompt), "--gen", str(gen),
               "--repeat", str(opt.repeat), "--threads", str(opt.threads), "--json", "--quiet", *extra]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit("%s\n%s" % (" ".join(command), run.stderr.strip()))
    return json.loads(run.stdout)


def sweeps(opt):
    """Yields (sweep, unit, x, function that runs it)."""
    for k in (1, 2, 4, 8, 16):
        yield "experts per token", "", k, lambda k=k: bench(
            opt, model(opt, 8), "8G", 1024, opt.gen, "--experts", str(k))
    for n in (64, 128, 256, 512):
        yield "experts", "a layer", n, lambda n=n: bench(opt, model(opt, 8, n), "12G", 1024, opt.gen)
    for n in (4, 8, 16):
        yield "layers", "", n, lambda n=n: bench(opt, model(opt, n), "12G", 1024, opt.gen)
    for n in opt.contexts:
        yield "context", "tokens", n, lambda n=n: bench(opt, model(opt, 8), "8G", n, opt.gen)
    for gib in (2, 3, 4, 6, 8, 10):
        yield "memory budget", "GiB", gib, lambda gib=gib: bench(
            opt, model(opt, 16), "%dG" % gib, 16, opt.gen)


def table(rows):
    print("| sweep | value | ms/token | [min..max] | model, ms/token | model / measured | hits | MB read/token |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in rows:
        print("| %s | %s %s | %.1f | [%.1f..%.1f] | %.1f | %.2f | %.0f %% | %.0f |" % (
            r["sweep"], r["x"], r["unit"], r["ms"], r["ms_min"], r["ms_max"], r["model_ms"],
            r["model_ms"] / r["ms"], 100 * (r["hit_rate"] or 0), (r["bytes_per_token"] or 0) / 1e6))


def plot(rows, path):
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed", file=sys.stderr)
        return
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    names = list(dict.fromkeys(r["sweep"] for r in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.2))
    for axis, name in zip(axes if len(names) > 1 else [axes], names):
        part = [r for r in rows if r["sweep"] == name]
        x = [r["x"] for r in part]
        axis.plot(x, [r["ms"] for r in part], "o-", label="measured")
        axis.plot(x, [r["model_ms"] for r in part], "--", label="speed model")
        axis.set_xlabel(name + (" (%s)" % part[0]["unit"] if part[0]["unit"] else ""))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    (axes[0] if len(names) > 1 else axes).set_ylabel("ms per generated token")
    (axes[0] if len(names) > 1 else axes).legend()
    figure.tight_layout()
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", required=True)
    parser.add_argument("--shape-gguf", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--json")
    parser.add_argument("--plot")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--gen", type=int, default=24)
    parser.add_argument("--contexts", type=lambda s: [int(v) for v in s.split(",")],
                        default=[64, 2048, 8192, 32768])
    parser.add_argument("--only", help="comma-separated sweeps")
    opt = parser.parse_args()
    os.makedirs(opt.work, exist_ok=True)
    rows = []
    for sweep, unit, x, run in sweeps(opt):
        if opt.only and sweep not in opt.only.split(","):
            continue
        j = run()
        rows.append({"sweep": sweep, "unit": unit, "x": x, "ms": 1e3 / j["gen_tok_s"],
                     "ms_min": 1e3 / j["generation"]["tok_s_max"],
                     "ms_max": 1e3 / j["generation"]["tok_s_min"],
                     "model_ms": 1e3 / j["bound_tok_s"], "hit_rate": j["hit_rate"],
                     "bytes_per_token": j["bytes_per_token"], "disk_gb_s": j["disk_probe_gb_s"],
                     "memory_gb_s": j["mem_probe_gb_s"], "prompt_tok_s": j["prompt_tok_s"],
                     "attention_share": j["generation"]["attention_share"]})
        print("%s %s: %.1f ms" % (sweep, x, rows[-1]["ms"]), file=sys.stderr)
        if opt.json:
            with open(opt.json, "w") as out:
                json.dump(rows, out, indent=1)
    table(rows)
    if opt.plot:
        plot(rows, opt.plot)


if __name__ == "__main__":
    main()
