#!/bin/bash
# Drafts on the bundled model, whose draft layer is trained: the same text, greedy and drawn, most drafts right, and what the
# options say.
. tests/cli/lib.sh
m=model/flashmoe-tale.gguf
[ -f $m ] || { echo "skipped: $m is missing"; exit 77; }
story="Tell me a story about a fox named Pip in the forest."
run() { "$flashmoe" run $m --memory 96M --threads 2 --warm-start off --json "$@"; }

for how in "--temp 0" "--temp 0.7 --seed 5" "--temp 1.2 --seed 6 --repeat-penalty 1.1"; do
    # shellcheck disable=SC2086 # several words
    status 0 run -p "$story" -n 160 $how --draft off
    same "none" "$(json_get "$out" '(j["drafts"], j["drafts_right"])')" "(0, 0)"
    expected=$(json_get "$out" '(j["token_hash"], j["generated_tokens"], j["text"])')
    for draft in on auto; do
        # shellcheck disable=SC2086 # several words
        status 0 run -p "$story" -n 160 $how --draft $draft
        same "answer with --draft $draft $how" "$(json_get "$out" '(j["token_hash"], j["generated_tokens"], j["text"])')" "$expected"
        same "drafts" "$(json_get "$out" '0 < j["drafts_right"] <= j["drafts"]')" True
    done
done
# Greedy: most are right, so there are far fewer passes than tokens.
status 0 run -p "$story" -n 160 --temp 0 --draft on
same "most are right" "$(json_get "$out" 'j["drafts_right"] > 0.8 * j["drafts"] and j["drafts"] < 0.6 * j["generated_tokens"]')" True
says "$err" 'drafts right'

# By themselves only where most experts fit; the plan has room for the layer and a second state.
status 0 run -p "$story" -n 40 --temp 0 --memory 20M
same "none where experts are streamed" "$(json_get "$out" 'j["drafts"]')" 0
status 0 "$flashmoe" plan $m --memory 96M --json
with=$(json_get "$out" 'j["experts_total"]')
same "the plan drafts" "$(json_get "$out" 'j["draft"]')" on
status 0 "$flashmoe" plan $m --memory 96M --draft off --json
same "experts of the draft layer" "$((with - $(json_get "$out" 'j["experts_total"]')))" 32
status 0 "$flashmoe" info $m
says "$out" '^draft layers +1 '
status 0 "$flashmoe" run $m --memory 16M --ctx 256 -p x -n 1 --draft off
failure "$flashmoe" run $m --memory 16M --ctx 256 -p x -n 1 --draft on
says "$err" 'whole trunk in memory|smallest plan'
make_model qwen35moe-a "$dir/none.gguf"
failure "$flashmoe" run "$dir/none.gguf" --memory 64M -p x -n 1 --draft on
says "$err" 'holds no draft layer'
finish
