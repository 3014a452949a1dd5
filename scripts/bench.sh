#!/bin/sh
# Times the model that ships with several budgets and prints one row for each. The hash shows that
# all of them produced the same tokens.
#
#   scripts/bench.sh PROGRAM MODEL [TOKENS]
set -eu
flashmoe=$1
model=$2
tokens=${3:-128}
[ -f "$model" ] || { echo "bench: no model: model/ holds no .gguf file" >&2; exit 1; }
smallest=$("$flashmoe" plan "$model" --ctx 1024 --json |
    python3 -c 'import json,sys; print(json.load(sys.stdin)["min_memory_bytes"])')
echo "$("$flashmoe" --version), $(uname -srm), $(nproc) cores, $tokens tokens, context 1024"
echo "budget_bytes  prompt_tok_s  gen_tok_s  hit_rate  read_bytes  disk_wait_ms  peak_rss_bytes  token_hash"
for memory in "$smallest" $((smallest * 5 / 4)) $((smallest * 2)); do
    "$flashmoe" run "$model" --memory "$memory" --ctx 1024 --temp 0 -n "$tokens" --json --quiet \
        -p "Tell me a short story about a lighthouse." |
        python3 -c '
import json, sys
j = json.load(sys.stdin)
uses = j["expert_hits"] + j["prefetch_used"] + j["expert_misses"]
print("%-13d %-13.1f %-10.1f %-9.3f %-11d %-13.1f %-15d %s" % (
    j["memory_budget_bytes"], j["prompt_tok_s"], j["gen_tok_s"],
    j["expert_hits"] / uses if uses else 1, j["bytes_read"], j["disk_wait_ms"],
    j["peak_rss_bytes"], j["token_hash"]))'
done
