#!/usr/bin/env python3
"""Compares flashmoe with other engines on one model, under memory caps, run against run.

  sudo bench/compare.py --model m.gguf --caps none,8,6,4 --pairs 3 \\
       --ours build/flashmoe --peer other=/path/to/other-bench --json results.json

Every run is a fresh process in a fresh memory cgroup. The contestants alternate (A B A B ...), so
that slow drift of the machine meets all of them alike. Capped runs start with an empty page cache,
uncapped runs with as much of the model in it as fits. bench/README.md says how to read the result.

Linux, Python 3.8 or newer, nothing else. Memory caps, cold runs and --readahead-kb need root.
Exit status: 0 all runs succeeded, 1 some run failed or the machine refused, 2 usage.
"""
import argparse
import datetime
import hashlib
import json
import os
import platform
import random
import re
import shlex
import signal
import statistics
import subprocess
import sys

from caged_run import GIB, CageError, Disk, ReadAhead, caged_run, drop_page_cache, fill_page_cache, read_text

WORDS = ("the river carries old stones under a quiet bridge while seven lamps burn near the harbour and nobody "
         "counts ships that leave before morning because wind turns cold over open water when autumn begins").split()


def note(text):
    print(text, file=sys.stderr, flush=True)


# ---- contestants ---------------------------------------------------------------------------------
# A contestant turns one test into a command line, and what the command printed into numbers:
#   {"prompt_tok_s", "gen_tok_s"} and whatever else it reports. A missing rate is None.
HITS = ("expert_hits", "expert_misses", "prefetch_used")


class Ours:
    """This project's binary: `bench --json` where random tokens are fed, `run --json` where a text is.
    Without what earlier runs left: the routing heat of the same tokens would be worth too much."""

    kind = "ours"

    def __init__(self, name, binary, extra):
        self.name, self.binary, self.extra = name, binary, extra

    def command(self, test, args, cap):
        if args.feed == "text":
            work = ["run", args.model, "--raw", "-p", test["text"], "-n", str(max(1, test["n_gen"])), "--temp", "0"]
        else:
            cold = not args.warm and (cap or args.cold)
            work = ["bench", args.model, "--prompt", str(test["n_prompt"] or args.gen_prompt), "--gen",
                    str(test["n_gen"]), "--repeat", str(args.repeats), "--cold" if cold else "--warm", "--probes", "off"]
        memory = ["--memory", format_gib(cap)] if cap else []
        return ([self.binary] + work + ["--warm-start", "off", "--threads", str(args.threads), "--json"] + memory +
                self.extra)

    def parse(self, run, test):
        for text in (run["stdout"], *reversed(run["stdout"].splitlines())):
            try:
                report = json.loads(text)
            except ValueError:
                continue
            if isinstance(report, dict) and "gen_tok_s" in report:
                phase = report.get("generation" if test["n_gen"] else "prompt")  # of `bench`
                return dict(report, **{k: phase[k] for k in HITS}) if isinstance(phase, dict) else dict(report)
        raise ValueError("no JSON object with gen_tok_s on stdout")


class BenchPeer:
    """A benchmark program with the options -m -p -n -t -r -o json, that prints a JSON list with one
    object for each test: n_prompt, n_gen, and avg_ts or samples_ts, a rate for each repeat. It feeds random
    tokens, not the prompt text."""

    kind = "bench"

    def __init__(self, name, binary, extra):
        self.name, self.binary, self.extra = name, binary, extra

    def command(self, test, args, cap):
        return [self.binary, "-m", args.model, "-p", str(test["n_prompt"]), "-n", str(test["n_gen"]),
                "-t", str(args.threads), "-r", str(args.repeats), "-o", "json"] + self.extra

    def parse(self, run, test):
        start, end = run["stdout"].find("["), run["stdout"].rfind("]")
        if start < 0 or end < start:
            raise ValueError("no JSON list on stdout")
        out = {"rows": json.loads(run["stdout"][start:end + 1])}
        for row in out["rows"]:
            repeats = row.get("samples_ts") or [row["avg_ts"]]
            out["prompt_tok_s" if row["n_gen"] == 0 else "gen_tok_s"] = statistics.median(repeats)
            for key in ("build_commit", "build_number"):
                out[key] = row.get(key)
        return out


class TextPeer:
    """A command-line generator with the options -m -p -n -t --temp --ignore-eos, that ends with lines
    "prompt eval time = X ms / N tokens" and "eval time = X ms / N runs". Same prompt text as ours."""

    kind = "text"
    LINE = re.compile(r"(prompt )?eval time\s*=\s*([\d.]+) ms /\s*(\d+) (?:tokens|runs)")

    def __init__(self, name, binary, extra):
        self.name, self.binary, self.extra = name, binary, extra

    def command(self, test, args, cap):
        return [self.binary, "-m", args.model, "-p", test["text"], "-n", str(max(1, test["n_gen"])),
                "-t", str(args.threads), "--temp", "0", "--ignore-eos"] + self.extra

    def parse(self, run, test):
        out = {}
        for prompt, milliseconds, count in self.LINE.findall(run["stderr"] + run["stdout"]):
            which, seconds, count = "prompt" if prompt else "gen", float(milliseconds) / 1000, int(count)
            out[which + "_tokens"] = count
            out[which + "_tok_s"] = count / seconds if seconds > 0 and count > 0 else None
        if not out:
            raise ValueError("no timing lines in the output")
        return out


PEER_KINDS = {"bench": BenchPeer, "text": TextPeer}


def format_gib(gib):
    """A size the command line takes: 4 -> 4G, 2.5 -> 2560M."""
    return "%dG" % gib if gib == int(gib) else "%dM" % round(gib * 1024)


def make_text(n_tokens, chars_per_token, seed):
    """Words in a fixed pseudo-random order, about n_tokens tokens long."""
    source, words, length = random.Random(seed), [], 0
    while length < n_tokens * chars_per_token:
        words.append(source.choice(WORDS))
        length += len(words[-1]) + 1
    return " ".join(words)[:max(1, int(n_tokens * chars_per_token))].rstrip()


def fit_text(text, n_tokens, binary, model):
    """The first n_tokens tokens of an ASCII text, cut with our tokenizer; None when that does not work."""
    try:
        tokens = json.loads(output_of([binary, "tokenize", model, "--json", "-p", text]))["tokens"]
    except (ValueError, KeyError, TypeError):
        return None
    return "".join(tokens[:n_tokens]).rstrip() if len(tokens) >= n_tokens else None


# ---- machine and program facts -------------------------------------------------------------------


def output_of(command, folder=None):
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def file_digest(path, edges_only=False):
    """SHA-256 of a file; edges_only takes the first and last MiB (a model is too large to read twice)."""
    digest, edge = hashlib.sha256(), 1 << 20
    with open(path, "rb") as f:
        if edges_only and os.path.getsize(path) > 2 * edge:
            digest.update(f.read(edge))
            f.seek(-edge, os.SEEK_END)
        for block in iter(lambda: f.read(edge), b""):
            digest.update(block)
    return digest.hexdigest()


def machine_facts(disk):
    cpu = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", read_text("/proc/cpuinfo"), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+)", read_text("/proc/meminfo"), re.M)
    here = os.path.dirname(os.path.abspath(__file__))
    scheduler = re.search(r"\[(.+)\]", disk.setting("scheduler"))
    return {
        "cpu": cpu.group(1) if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
        "kernel": platform.release(), "machine": platform.machine(),
        "disk": disk.name, "disk_scheduler": scheduler.group(1) if scheduler else None,
        "disk_rotational": disk.setting("rotational") or None,
        "transparent_hugepage": read_text("/sys/kernel/mm/transparent_hugepage/enabled").strip() or None,
        "commit": output_of(["git", "rev-parse", "HEAD"], here) or None,
        "tree_dirty": bool(output_of(["git", "status", "--porcelain", "-uno"], here)),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


# ---- running -------------------------------------------------------------------------------------


def make_tests(args):
    """Each test is one process: `both` times prompt and generation in it, the others one of the two."""
    tests = []
    for name in args.tests:
        n_prompt = args.prompt if name in ("both", "prompt") else 0
        n_gen = args.gen if name in ("both", "gen") else 0
        tokens = n_prompt or args.gen_prompt  # generation from text needs something to start from
        text = args.prompt_text
        if not text and args.ours:  # more than enough text, then cut to length
            text = fit_text(make_text(tokens, 10, args.seed), tokens, args.ours, args.model)
        if not text:
            text = make_text(tokens, args.chars_per_token, args.seed)
        tests.append({"name": name, "n_prompt": n_prompt, "n_gen": n_gen, "text": text})
    return tests


def measure(contestant, test, cap, index, args, disk):
    """One run: prepare the page cache, run, read the numbers. A failure is recorded, not raised."""
    cold = bool(cap) or args.cold
    if cold:
        drop_page_cache()
    else:
        fill_page_cache(args.model)
    limit = (cap + args.margin) * GIB if cap else 0
    command = contestant.command(test, args, cap)
    record = {"contestant": contestant.name, "test": test["name"], "cap_gib": cap, "pair": index,
              "page_cache": "cold" if cold else "filled"}
    record.update(caged_run(command, disk, limit, use_cage=not args.no_cage, timeout=args.timeout))
    stdout, stderr = record["stdout"], record["stderr"]
    try:
        if record["rc"] != 0:
            cause = ("out of memory in the cgroup" if record.get("oom_kills") else
                     "timed out" if record["timed_out"] else "exit status %d" % record["rc"])
            raise ValueError(cause)
        record["report"] = contestant.parse(record, test)
        record["stdout"], record["stderr"] = "", ""  # the numbers are in report
    except (ValueError, KeyError, TypeError) as e:
        record["error"] = str(e)
        record["stdout"], record["stderr"] = stdout[-4000:], stderr[-4000:]
    return record


def progress(record, number, total):
    report = record.get("report", {})
    head = "[%d/%d] cap %-5s %-6s %-14s" % (number, total, cap_name(record["cap_gib"]), record["test"],
                                            record["contestant"])
    if "error" in record:
        note("%s FAILED: %s" % (head, record["error"]))
        for line in record["stderr"].strip().splitlines()[-5:]:
            note("    " + line)
        return
    note("%s prompt %s  gen %s tok/s  %s GB read  %.0f s" % (
        head, number_text(report.get("prompt_tok_s")), number_text(report.get("gen_tok_s")),
        number_text(scaled(record["disk_read_bytes"], 1e9)), record["wall_s"]))


def run_all(args, contestants, disk):
    """Caps outermost, then tests, then pairs; inside a pair every contestant once, in order."""
    tests, records = make_tests(args), []
    total = len(args.caps) * len(tests) * args.pairs * len(contestants)
    for cap in args.caps:
        for test in tests:
            for index in range(args.pairs):
                for contestant in contestants:
                    record = measure(contestant, test, cap, index, args, disk)
                    records.append(record)
                    progress(record, len(records), total)
                    save(args, contestants, disk, records)
    return records


# ---- results -------------------------------------------------------------------------------------


def cap_name(cap):
    return "none" if not cap else "%g" % cap


def scaled(value, unit):
    return None if value is None else value / unit


def number_text(value, digits=2):
    return "-" if value is None else "%.*f" % (digits, value)


def spread_text(values):
    """median [min..max]"""
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    if len(values) == 1:
        return "%.2f" % values[0]
    return "%.2f [%.2f..%.2f]" % (statistics.median(values), min(values), max(values))


def median_text(values, digits=2):
    values = [v for v in values if v is not None]
    return number_text(statistics.median(values), digits) if values else "-"


def ratios(ours, theirs, rate):
    """Our rate over theirs, for each pair in which both succeeded."""
    by_pair = {r["pair"]: r["report"].get(rate) for r in theirs}
    both = [(r["report"].get(rate), by_pair.get(r["pair"])) for r in ours]
    return [a / b for a, b in both if a and b]


def hit_rate(record):
    hits, misses = record["report"].get("expert_hits"), record["report"].get("expert_misses")
    if misses is not None:
        misses += record["report"].get("prefetch_used", 0)
    return 100 * hits / (hits + misses) if hits is not None and misses is not None and hits + misses else None


def table_rows(records, contestants):
    header = ["cap GiB", "test", "engine", "prompt tok/s", "gen tok/s", "x prompt", "x gen",
              "read GB", "faults", "RSS GiB", "group GiB", "refaults", "hit %", "runs"]
    rows, first = [header], contestants[0]
    for cap, test in dict.fromkeys((r["cap_gib"], r["test"]) for r in records):
        here = [r for r in records if (r["cap_gib"], r["test"]) == (cap, test)]
        good = {c.name: [r for r in here if r["contestant"] == c.name and "report" in r] for c in contestants}
        for c in contestants:
            runs, tried = good[c.name], sum(r["contestant"] == c.name for r in here)
            wins = {rate: [] if c is first else ratios(good[first.name], runs, rate)
                    for rate in ("prompt_tok_s", "gen_tok_s")}
            rows.append([
                cap_name(cap), test, c.name,
                spread_text([r["report"].get("prompt_tok_s") for r in runs]),
                spread_text([r["report"].get("gen_tok_s") for r in runs]),
                spread_text(wins["prompt_tok_s"]), spread_text(wins["gen_tok_s"]),
                median_text([scaled(r["disk_read_bytes"], 1e9) for r in runs]),
                median_text([r["major_faults"] for r in runs], 0),
                median_text([scaled(r["peak_rss_bytes"], GIB) for r in runs]),
                median_text([scaled(r.get("group_peak_bytes"), GIB) for r in runs]),
                median_text([r.get("refaulted_pages") for r in runs], 0),
                median_text([hit_rate(r) for r in runs], 1),
                "%d/%d" % (len(runs), tried)])
    return rows


def print_table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows = rows[:1] + [["-" * w for w in widths]] + rows[1:]
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")


def token_hash_remarks(records):
    """The same prompt and settings must give the same tokens under every cap; say so when they do not."""
    seen = {}
    for r in records:
        value = r.get("report", {}).get("token_hash")
        if value is not None:
            seen.setdefault((r["contestant"], r["test"]), {}).setdefault(str(value), set()).add(cap_name(r["cap_gib"]))
    lines = []
    for (name, test), hashes in seen.items():
        if len(hashes) > 1:
            detail = "; ".join("%s at cap %s" % (h, ",".join(sorted(caps))) for h, caps in hashes.items())
            lines.append("WARNING: %s generated different tokens in test %s: %s" % (name, test, detail))
    return lines


def save(args, contestants, disk, records):
    """Rewritten after every run, so that an interrupted session keeps what it measured."""
    if not args.json:
        return
    document = {"format": "flashmoe-compare-1", "command": sys.argv, "facts": args.facts,
                "contestants": args.programs, "settings": {
                    "caps_gib": args.caps, "margin_gib": args.margin, "threads": args.threads,
                    "prompt": args.prompt, "gen": args.gen, "pairs": args.pairs, "tests": args.tests,
                    "feed": args.feed, "repeats": args.repeats, "warm": args.warm,
                    "readahead_kb": disk.setting("read_ahead_kb"), "seed": args.seed},
                "runs": records}
    part = args.json + ".part"
    with open(part, "w") as f:
        json.dump(document, f, indent=1)
        f.write("\n")
    os.replace(part, args.json)


# ---- command line --------------------------------------------------------------------------------


def split_named(text, parser, option):
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        parser.error("%s wants NAME=VALUE, got %r" % (option, text))
    return name, value


def parse_caps(text):
    caps = []
    for word in text.split(","):
        cap = 0.0 if word == "none" else float(word)
        if cap < 0 or (cap == 0 and word != "none"):
            raise argparse.ArgumentTypeError("a cap is a size in GiB or none, not %r" % word)
        caps.append(cap)
    return caps


def parse_tests(text):
    tests = text.split(",")
    for name in tests:
        if name not in ("both", "prompt", "gen"):
            raise argparse.ArgumentTypeError("a test is both, prompt or gen, not %r" % name)
    return tests


def make_parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="model file that all contestants read")
    p.add_argument("--ours", metavar="BINARY", help="flashmoe binary (first contestant; the ratios are ours over theirs)")
    p.add_argument("--ours-args", default="", metavar="ARGS", help="more arguments for our binary, as one string")
    p.add_argument("--peer", action="append", default=[], metavar="NAME=BINARY", help="another engine; repeatable")
    p.add_argument("--peer-kind", action="append", default=[], metavar="NAME=KIND",
                   help="how the peer is called: bench (default when the file name has 'bench') or text")
    p.add_argument("--peer-args", action="append", default=[], metavar="NAME=ARGS", help="more arguments for that peer")
    p.add_argument("--caps", type=parse_caps, default=[0.0], metavar="LIST", help="GiB or none, e.g. none,8,6,4 (default none)")
    p.add_argument("--margin", type=float, default=0.2, metavar="GIB",
                   help="the cgroup gets cap + margin, our --memory the cap (default 0.2)")
    p.add_argument("--tests", type=parse_tests, default=["both"], metavar="LIST",
                   help="both (one process), prompt, gen (a process each); default both")
    p.add_argument("--prompt", type=int, default=512, metavar="N", help="prompt tokens (default 512)")
    p.add_argument("--gen", type=int, default=32, metavar="N", help="generated tokens (default 32)")
    p.add_argument("--gen-prompt", type=int, default=8, metavar="N",
                   help="prompt tokens before a gen-only test of ours and of text peers (default 8)")
    p.add_argument("--feed", choices=("ids", "text"),
                   help="what ours evaluates: random token ids, as bench peers do (default), or the text that text "
                        "peers get (default when there is one)")
    p.add_argument("--repeats", type=int, default=1, metavar="R",
                   help="measured repeats inside each run of ours and of bench peers (default 1)")
    p.add_argument("--prompt-file", help="prompt text for ours and for text peers (default: generated words)")
    p.add_argument("--chars-per-token", type=float, default=4.5, metavar="X",
                   help="sizes the generated prompt when our tokenizer cannot (no --ours); default 4.5")
    p.add_argument("--seed", type=int, default=1, help="of the generated prompt (default 1)")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="default: all cores")
    p.add_argument("--pairs", type=int, default=3, metavar="N", help="rounds through all contestants (default 3)")
    p.add_argument("--readahead-kb", type=int, metavar="KIB", help="set the disk's read-ahead meanwhile, then restore it")
    p.add_argument("--cold", action="store_true", help="drop the page cache before uncapped runs too")
    p.add_argument("--warm", action="store_true",
                   help="ours under a cap: keep the engine for all repeats, after one that is not measured")
    p.add_argument("--no-cage", action="store_true", help="no cgroup (only with --caps none); works without root")
    p.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="for one run (default 1800)")
    p.add_argument("--json", metavar="FILE", help="write every run and the machine's facts here")
    return p


def make_contestants(args, parser):
    kinds = dict(split_named(t, parser, "--peer-kind") for t in args.peer_kind)
    extras = dict(split_named(t, parser, "--peer-args") for t in args.peer_args)
    out = [Ours("ours", args.ours, shlex.split(args.ours_args))] if args.ours else []
    for text in args.peer:
        name, binary = split_named(text, parser, "--peer")
        kind = kinds.pop(name, "bench" if "bench" in os.path.basename(binary) else "text")
        if kind not in PEER_KINDS:
            parser.error("--peer-kind %s: no kind %r; there are %s" % (name, kind, ", ".join(PEER_KINDS)))
        out.append(PEER_KINDS[kind](name, binary, shlex.split(extras.pop(name, ""))))
    for name in list(kinds) + list(extras):
        parser.error("no --peer is called %r" % name)
    if not out:
        parser.error("nothing to run: give --ours, --peer or both")
    if len({c.name for c in out}) < len(out):
        parser.error("two contestants have the same name")
    for c in out:
        if not os.access(c.binary, os.X_OK) or os.path.isdir(c.binary):
            parser.error("%s: %s is not an executable file" % (c.name, c.binary))
        c.binary = os.path.abspath(c.binary)
    return out


def check_arguments(args, parser):
    if not os.path.isfile(args.model):
        parser.error("--model: no file %s" % args.model)
    if args.no_cage and any(args.caps):
        parser.error("--no-cage cannot enforce a memory cap; use --caps none")
    if min(args.prompt, args.gen, args.pairs, args.threads, args.gen_prompt, args.repeats) < 1 or args.margin < 0:
        parser.error("counts must be positive")
    args.prompt_text = ""
    if args.prompt_file:
        with open(args.prompt_file, encoding="utf-8") as f:
            args.prompt_text = f.read().strip()
    if any(args.caps) and os.geteuid():
        note("compare: memory caps and cold runs need root; without it only --caps none --no-cage works")


def main():
    parser = make_parser()
    args = parser.parse_args()
    check_arguments(args, parser)
    contestants = make_contestants(args, parser)
    if not args.feed:
        args.feed = "text" if any(c.kind == "text" for c in contestants) else "ids"
    if args.feed == "text" and (args.warm or args.repeats > 1):
        parser.error("--warm and --repeats are for ids: a text is evaluated once by each process")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that settings are restored
    disk = Disk(args.model)
    args.facts = dict(machine_facts(disk), model=os.path.basename(args.model),
                      model_bytes=os.path.getsize(args.model), model_edges_sha256=file_digest(args.model, True))
    args.programs = [{"name": c.name, "kind": c.kind, "binary": c.binary, "sha256": file_digest(c.binary),
                      "args": c.extra} for c in contestants]
    try:
        with ReadAhead(disk, args.readahead_kb):
            readahead = disk.setting("read_ahead_kb")
            records = run_all(args, contestants, disk)
    except CageError as e:
        note("compare: %s" % e)
        return 1
    except KeyboardInterrupt:
        note("compare: interrupted")
        return 1
    f = args.facts
    print("%s, %d cores, %.1f GiB, Linux %s; disk %s, read-ahead %s KiB; %s (%.1f GB); %d threads; commit %s%s" % (
        f["cpu"], f["cores"], (f["memory_bytes"] or 0) / GIB, f["kernel"], f["disk"] or "unknown", readahead or "?",
        f["model"], f["model_bytes"] / 1e9, args.threads, (f["commit"] or "none")[:12],
        " (modified)" if f["tree_dirty"] else ""))
    print_table(table_rows(records, contestants))
    for line in token_hash_remarks(records):
        print(line)
    return 1 if any("error" in r for r in records) else 0


if __name__ == "__main__":
    sys.exit(main())
