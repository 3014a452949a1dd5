#!/bin/bash
# Routing traces that the program records: the replayer reads them, and what it predicts for the engine's
# policy with the engine's own slots is what the engine counted.
. tests/cli/lib.sh
replay=$build/tools/cache_replay
m=model/flashmoe-tale.gguf
bytes_per_expert=$(json_get <("$flashmoe" info "$m" --json) 'j["bytes_per_expert_max"]')

# replayed TRACE SLOTS: uses and hits of the engine's policy in a cache of so many experts
replayed() {
    "$replay" --json --policies flashmoe --budget $(($2 * bytes_per_expert + bytes_per_expert / 2)) "$1" >"$dir/replay" ||
        fail "the replayer refuses $1"
    json_get "$dir/replay" "[sum(p[ph][k] for p in j['traces'][0]['budgets'][0]['policies'] for ph in ('prompt', 'generation')) for k in ('uses', 'hits')]"
}

# Token by token, without reading ahead and without what earlier runs used: the same hits, to the last one.
for memory in 24M 30M; do
    slots=$(json_get <("$flashmoe" plan "$m" --memory $memory --batch 1 --json) 'j["expert_slots"]')
    status 0 "$flashmoe" run "$m" -p "Tell me a story about a fox named Pip in the forest." --memory $memory \
        --batch 1 --prefetch off --warm-start off -n 100 --temp 0 --json --record-trace "$dir/$memory.fmr"
    counted=$(json_get "$out" '[j["expert_hits"] + j["expert_misses"], j["expert_hits"]]')
    same "$memory, $slots slots" "$(replayed "$dir/$memory.fmr" "$slots")" "$counted"
    [ "$(json_get "$out" 'j["expert_misses"] > 100 and j["expert_hits"] > 100')" = True ] || fail "nothing to compare at $memory: $counted"
done
cmp -s "$dir/24M.fmr" "$dir/30M.fmr" || fail "the trace depends on memory"
failure "$flashmoe" run "$m" -p x -n 1 --memory 30M --record-trace "$dir/no/folder"
usage_error "$flashmoe" bench "$m" --cold --record-trace "$dir/x"
finish
