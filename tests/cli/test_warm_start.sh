#!/bin/bash
# What a session used most is kept in the cache folder; the next one misses less and answers the same.
. tests/cli/lib.sh
m=model/flashmoe-tale.gguf
run() { "$flashmoe" run "$m" -p "Tell me a story about a fox named Pip in the forest." --memory 34M --ctx 256 -n 60 --temp 0 --prefetch off --json "$@"; }
heat() { ls "$XDG_CACHE_HOME/flashmoe" 2>/dev/null | grep '^heat-'; }
misses() { json_get "$out" 'j["expert_misses"]'; }
same_answer() { same "hash $1" "$(json_get "$out" 'j["token_hash"]')" "$hash"; }

status 0 run --warm-start off
hash=$(json_get "$out" 'j["token_hash"]')
cold=$(misses)
[ -z "$(heat)" ] || fail "--warm-start off leaves a file: $(heat)"
status 0 "$flashmoe" bench "$m" --memory 34M --prompt 16 --gen 16 --repeat 1 --quiet
[ -z "$(heat)" ] || fail "bench leaves a file that nobody asked for: $(heat)"
status 0 run
same_answer "of the first session"
same "misses of the first session" "$(misses)" "$cold"
same "files" "$(heat | wc -l)" 1
status 0 run
same_answer "of the second session"
says_not "$err" 'warning'
[ "$(misses)" -lt "$cold" ] || fail "$(misses) misses with the heat of the same session, $cold without"

printf 'x' >>"$XDG_CACHE_HOME/flashmoe/$(heat)"
status 0 run
same_answer "beside a damaged file"
same "misses beside a damaged file" "$(misses)" "$cold"
same "warnings" "$(grep -c 'warning: .*heat-.*; starting without it' "$err")" 1
rm "$XDG_CACHE_HOME/flashmoe/$(heat)"
status 0 run
same_answer "of a session after the file was deleted"
same "misses after the file was deleted" "$(misses)" "$cold"
says_not "$err" 'warning'

# No place for such a file is no failure.
XDG_CACHE_HOME='' HOME='' status 0 run
same_answer "without a cache folder"
XDG_CACHE_HOME=/proc/absent status 0 run
same_answer "where nothing can be written"
same "notes" "$(grep -c 'what was used most is not kept' "$err")" 1
usage_error "$flashmoe" run "$m" --warm-start maybe
usage_error "$flashmoe" logits "$m" --warm-start on
finish
