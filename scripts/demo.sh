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

ask() { # title, question as shown, options of run
    printf '\n== %s ==\n> %s\n\n' "$1" "$2"
    shift 2
    # The figures come after the text; the plan is not shown three times.
    "$flashmoe" run "$model" --memory "$memory" --ctx 1024 "$@" 2>"$log" || {
        cat "$log" >&2
        exit 1
    }
    printf '\n\n'
    tail -n 1 "$log"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$flashmoe" plan "$model" --memory "$memory" --ctx 1024

story="Tell me a short story about a shy kitten called Sobo."
ask "a story" "$story" --seed 1 -n 250 -p "$story"
fact="What does Vera do for a living?"
ask "a fact of the small world that it was trained on" "$fact" --temp 0 -n 60 -p "$fact"
ask "a tool call" "$(sed -n 's/<|im_end|>$//; /^What is the weather/p' scripts/demo_tool.txt)" \
    --temp 0 -n 80 --raw -f scripts/demo_tool.txt
