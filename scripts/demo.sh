#!/bin/sh
# Runs the model that ships with the project in less memory than it is large: a story, a fact and a
# tool call, each followed by its line of figures (misses above zero: experts come from the disk).
#
#   scripts/demo.sh PROGRAM MODEL MEMORY
set -eu
flashmoe=$1
model=$2
memory=$3
if [ ! -f "$model" ]; then
    echo "demo: no model: model/ holds no .gguf file" >&2
    exit 1
fi
echo "$model: $(wc -c <"$model") bytes; memory budget $memory"

ask() { # title, options of run
    title=$1
    shift
    printf '\n== %s ==\n' "$title"
    # The figures come after the text, the plan is not shown three times.
    "$flashmoe" run "$model" --memory "$memory" --ctx 1024 "$@" 2>"$log" || {
        cat "$log" >&2
        exit 1
    }
    printf '\n'
    tail -n 1 "$log"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$flashmoe" plan "$model" --memory "$memory" --ctx 1024

ask "a story" --seed 1 -n 160 -p "Tell me a short story."
ask "a fact" --temp 0 -n 60 -p "What is the capital of Arvenia?"
ask "a tool call" --temp 0 -n 80 --raw -f scripts/demo_tool.txt
