#!/bin/sh
# Fuzzes each target for a while, starting from its corpus. Inputs that crash are kept in
# BUILD/findings; new inputs that reach new code go to BUILD/corpus and not into the tree.
#
#   scripts/fuzz.sh BUILD SECONDS TARGET...     TARGET: tests/fuzz/fuzz_x
set -eu
build=$1
seconds=$2
shift 2
[ $# -gt 0 ] || { echo "fuzz: no targets in tests/fuzz" >&2; exit 1; }
mkdir -p "$build/findings"
for target in "$@"; do
    name=${target##*/fuzz_}
    mkdir -p "$build/corpus/$name"
    echo "== $name, $seconds s =="
    "$build/t/$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$build/findings/$name-" "$build/corpus/$name" "tests/fuzz/corpus/$name"
done
