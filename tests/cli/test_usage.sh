#!/bin/bash
# Usage errors are found before anything is opened: status 2 and where to read on.
. tests/cli/lib.sh

status 2 "$flashmoe"
says "$err" '^usage: flashmoe COMMAND'
usage_error "$flashmoe" nonsense
usage_error "$flashmoe" help nonsense
status 2 "$flashmoe" version extra
status 2 "$flashmoe" help run extra

for command in run info plan logits tokenize bench template; do
    usage_error "$flashmoe" $command
    usage_error "$flashmoe" $command a.gguf b.gguf
    usage_error "$flashmoe" $command a.gguf --no-such-option
    usage_error "$flashmoe" $command a.gguf -Z
    status 0 "$flashmoe" $command --help
    [ -s "$err" ] && fail "$command --help wrote to standard error"
    cp "$out" "$dir/help1"
    status 0 "$flashmoe" help $command
    cmp -s "$out" "$dir/help1" || fail "help $command differs from $command --help"
    says "$out" "^usage: flashmoe $command "
    # Every option that the help shows is accepted by the parser, and needs a value if it shows one.
    grep -oE '^  (-[a-zA-Z], )?--[a-z-]+( [A-Z|a-z0-9]+)?' "$out" | sed -E 's/^ +(-[a-zA-Z], )?//' |
        while read -r option value; do
            [ "$option" = --help ] && continue
            "$flashmoe" $command m.gguf $option >/dev/null 2>"$dir/e"
            if [ -n "$value" ]; then
                grep -q -- "$option needs a value" "$dir/e" || echo "$command $option takes no value"
            else
                grep -q "unknown option\|needs a value" "$dir/e" && echo "$command $option refused"
            fi
        done >"$dir/complaints"
    [ -s "$dir/complaints" ] && fail "$(cat "$dir/complaints")"
done
# The contract's spellings.
for option in -p -f -n --temp --top-k --top-p --min-p --seed --repeat-penalty --stop --memory \
    --threads --ctx --experts --activations --io --kernels --kv; do
    usage_error "$flashmoe" run m.gguf $option
    says "$err" 'needs a value'
done

usage_error "$flashmoe" run m.gguf
says "$err" 'no prompt'
for bad in "-n -2" "-n 1.5" "-n x" "--temp hot" "--temp -1" "--temp nan" "--top-p 0" "--top-p 2" \
    "--top-k -1" "--min-p 3" "--repeat-penalty 0" "--seed -1" "--seed 1.5" "--memory 4X" \
    "--memory 0" "--memory -4G" "--memory G" "--threads 0" "--threads 9999" "--ctx 0" "--ctx x" \
    "--experts 0" "--io disk" "--kernels sse" "--activations int4" "--kv q8" "--batch 0" "--split 5000" "--split 0" "--think maybe" \
    "--set x" "--set =x" "--set messages=x"; do
    # shellcheck disable=SC2086 # two words
    usage_error "$flashmoe" run m.gguf -p x $bad
    says "$err" "^flashmoe run: .*(${bad%% *}|${bad##--}|${bad#* })"
done
# A name that is empty, as an unset variable leaves it, and habits from elsewhere.
for option in "run -p x --record-trace" "run --file" "run --request" "eval --text t --save-logits" \
    "eval --text" "logits --ids 1 --out" "bench --record-trace" "run -m" "template --request"; do
    # shellcheck disable=SC2086
    usage_error "$flashmoe" $option "" m.gguf
    says "$err" 'the name is empty'
done
usage_error "$flashmoe" logits m.gguf --ids 1 --out -
says "$err" '--out -: expected the name of a file'
usage_error "$flashmoe" run m.gguf "why is the sky blue"
says "$err" 'the text is given with -p'
usage_error "$flashmoe" run m.gguf -m other.gguf -p x
says "$err" 'two models: m.gguf and other.gguf'
failure "$flashmoe" run -m "$dir/none.gguf" -p x -n -1
says "$err" 'none.gguf: No such file'
for with in "-p x" "-f x" "--raw" "--system x" "--think on" "--set a=b"; do
    # shellcheck disable=SC2086
    usage_error "$flashmoe" run m.gguf --request r.json $with
done
usage_error "$flashmoe" run m.gguf -p x --raw --system y
# What `run` takes of engine and machine `plan` takes as well.
for option in "--activations int8" "--prefetch off" "--warm-start off" "--draft off" "-q" "--kv f32"; do
    # shellcheck disable=SC2086
    failure "$flashmoe" plan "$dir/none.gguf" $option
    says "$err" 'No such file'
done
usage_error "$flashmoe" run m.gguf -p x --json=1
says "$err" '--json takes no value'
usage_error "$flashmoe" logits m.gguf --ids 1
says "$err" '--out'
usage_error "$flashmoe" logits m.gguf --out x.npy
usage_error "$flashmoe" logits m.gguf --out x.npy --ids 1 --ids-file f
usage_error "$flashmoe" tokenize m.gguf
usage_error "$flashmoe" tokenize m.gguf -p a --decode 1
usage_error "$flashmoe" tokenize m.gguf --decode 1 --no-special

status 0 "$flashmoe" --version
says "$out" '^flashmoe [0-9]+\.[0-9]+\.[0-9]+'
status 0 "$flashmoe" version
status 0 "$flashmoe" help
for command in run info plan logits tokenize bench template; do says "$out" "^  $command "; done
says "$out" 'Hugging Face directory'
status 0 "$flashmoe" --help
# -f with -p is for run alone.
status 0 "$flashmoe" help tokenize
says_not "$out" 'the file comes first'
usage_error "$flashmoe" tokenize m.gguf -p a -f b
finish
