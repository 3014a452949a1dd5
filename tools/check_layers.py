#!/usr/bin/env python3
"""Checks who includes whom against the table below, which is the architecture.

    check_layers.py ROOT         every file of ROOT/src and ROOT/include
    check_layers.py --self-test  that violations are seen

A change that needs a new arrow edits the table, so that a reviewer sees an architecture decision
and not an include line. `flashmoe.h` holds the error type and may be included everywhere; it
includes no header of ours.
"""
import pathlib
import re
import sys
import tempfile

LOWER = ["base", "os", "format", "quant", "kernel", "store", "kv", "text", "sample", "chat"]
MAY_INCLUDE = {
    "base": [],
    "os": ["base"],
    "format": ["base", "os", "quant"],
    "quant": ["base"],
    "kernel": ["base", "os", "quant"],
    "store": ["base", "os", "format"],
    "kv": ["base", "os"],
    "text": ["base"],
    "sample": ["base", "text"],
    "chat": ["base", "text"],
    "model": ["base", "format", "quant", "kernel", "store", "kv"],
    "engine": LOWER + ["model"],
    "server": ["base", "os"],
    "cli": ["base", "os", "server"],
}
PUBLIC_HEADER = "flashmoe.h"

# Only os/ knows which system it runs on.
SYSTEM_HEADER = re.compile(r"(linux/|liburing|sys/(sysinfo|syscall|sysctl|vfs|statfs)|mach/)")
SYSTEM_MACRO = re.compile(r"\s*#\s*(?:el)?if.*\b(__linux__|__APPLE__|_WIN32|__FreeBSD__)\b")

INCLUDE = re.compile(r'\s*#\s*include\s*(["<])([^">]+)[">]')


def check_line(folder, line):
    """What is wrong with one line of a file in `folder` (None: the public header), or None."""
    if folder != "os":
        macro = SYSTEM_MACRO.match(line)
        if macro:
            return f"{folder or 'include'}/ may not test {macro.group(1)}, only os/ may"
    found = INCLUDE.match(line)
    if not found:
        return None
    quote, name = found.groups()
    if quote == "<":
        if folder != "os" and SYSTEM_HEADER.match(name):
            return f"{folder or 'include'}/ may not include <{name}>, only os/ may"
        return None
    if folder is None:
        return f"{PUBLIC_HEADER} may not include {name}"
    if name == PUBLIC_HEADER:
        return None
    target = name.split("/")[0] if "/" in name else None
    if target is None:
        return f'"{name}": write the folder too'
    if target != folder and target not in MAY_INCLUDE[folder]:
        return f"{folder}/ may not include {target}/"
    return None


def check_tree(root):
    problems = []
    n_file = 0
    names = {}
    for path in sorted([*root.glob("src/**/*"), *root.glob("include/**/*")]):
        if path.suffix not in (".c", ".h", ".inc"):
            continue
        n_file += 1
        shown = path.relative_to(root)
        folder = shown.parts[1] if shown.parts[0] == "src" else None
        if folder is not None and folder not in MAY_INCLUDE:
            problems.append(f"{shown}: {folder}/ is not in the table of tools/check_layers.py")
            continue
        if path.name in names:
            problems.append(f"{shown}: a file of this name exists: {names[path.name]}")
        names[path.name] = shown
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            problem = check_line(folder, line)
            if problem:
                problems.append(f"{shown}:{number}: {problem}")
    if n_file == 0:
        problems.append(f"{root}: no source files found")
    return problems, n_file


def has_cycle():
    done = set()

    def visit(folder, above):
        if folder in above:
            return True
        if folder in done:
            return False
        done.add(folder)
        return any(visit(f, above | {folder}) for f in MAY_INCLUDE[folder])

    return any(visit(folder, frozenset()) for folder in MAY_INCLUDE)


def self_test():
    files = {
        "include/flashmoe.h": ("#include <stddef.h>", 0),
        "include/other.h": ('#include "base/error.h"', 1),
        "src/base/ok.c": ('#include "flashmoe.h"\n#include "base/ok.h"', 0),
        "src/base/up.c": ('#include "os/io.h"', 1),
        "src/base/system.c": ("#if defined(__linux__)\n#include <linux/fs.h>\n#endif", 2),
        "src/os/system_linux.c": ("#ifdef __linux__\n#include <liburing.h>\n#endif", 0),
        "src/cli/reach.c": ('  #  include "engine/engine.h"', 1),
        "src/cli/fine.c": ('#include "server/server.h"\n#include "os/facts.h"', 0),
        "src/model/kernels.c": ('#include "kernel/kernel.h"', 0),
        "src/kernel/x86/model.c": ('#include "model/moe.h"', 1),
        "src/text/bare.c": ('#include "bpe.h"', 1),
        "src/store/reach.c": ("", 1),  # the second file of this name
        "src/novel/x.c": ("", 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, (text, _) in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text + "\n", encoding="utf-8")
        problems, n_file = check_tree(root)
    if n_file != len(files):
        sys.exit(f"check_layers self-test: saw {n_file} of {len(files)} files")
    for name, (_, expected) in files.items():
        n = sum(p.startswith((name + ":",)) for p in problems)
        if n != expected:
            sys.exit(f"check_layers self-test: {name}: {n} problems, expected {expected}\n" +
                     "\n".join(problems))
    if has_cycle():
        sys.exit("check_layers: the table has a cycle")


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    problems, n_file = check_tree(pathlib.Path(sys.argv[1]))
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(1)
    print(f"check-layers: {n_file} files keep to the table")


main()
