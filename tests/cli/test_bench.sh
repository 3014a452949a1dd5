#!/bin/bash
# bench: the fields that others read, the same hash wherever the experts lie, CSV, and usage errors.
. tests/cli/lib.sh
m=model/flashmoe-tale.gguf
[ -f $m ] || { echo "skipped: $m is missing"; exit 77; }
small="--prompt 80 --gen 12 --repeat 2"

usage_error "$flashmoe" bench $m --cold --warm
says "$err" 'either --cold or --warm'
usage_error "$flashmoe" bench $m --json --csv
usage_error "$flashmoe" bench $m --prompt 0 --gen 0
usage_error "$flashmoe" bench $m --draft-right 50
says "$err" 'is for --draft on'
usage_error "$flashmoe" bench $m --draft on --draft-right 101
usage_error "$flashmoe" bench $m --prompt 100 --gen 10 --ctx 109
says "$err" 'too short for 110 tokens'
for bad in "--prompt -1" "--prompt text" "--gen 1.5" "--repeat 0" "--repeat 1001" "--depth 0" \
    "--depth 1025" "--memory 0"; do
    # shellcheck disable=SC2086 # two words
    usage_error "$flashmoe" bench m.gguf $bad
done
failure "$flashmoe" bench "$dir/none.gguf"
failure "$flashmoe" bench $m --memory 1M

# Fields, sums and limits.
status 0 "$flashmoe" bench $m $small --memory 16M --json --quiet
[ -s "$err" ] && fail "--quiet wrote to standard error: $(head -n 3 "$err")"
cp "$out" "$dir/a.json"
same "activations" "$(json_get "$out" 'j["activations"]')" full
same "fields of the contract" "$(json_get "$out" '[k for k in ("gen_tok_s prompt_tok_s ttft_ms hit_rate bytes_per_token disk_gb_s disk_probe_gb_s mem_probe_gb_s bound_tok_s bound_ratio prompt_bound_ratio peak_rss_bytes memory_budget_bytes".split()) if not (isinstance(j[k], (int, float)) and j[k] >= 0)]')" "[]"
same "rates" "$(json_get "$out" 'all(j[k] > 0 for k in ("gen_tok_s", "prompt_tok_s", "ttft_ms", "disk_probe_gb_s", "mem_probe_gb_s", "bound_tok_s"))')" True
same "spread" "$(json_get "$out" 'all(p["tok_s_min"] <= p["tok_s"] <= p["tok_s_max"] for p in (j["prompt"], j["generation"]))')" True
same "single tokens" "$(json_get "$out" '[(g["token_ms_p10"] <= g["token_ms_p50"] <= g["token_ms_p90"] <= g["token_ms_max"], 0 < g["token_ms_p10"] <= mean <= g["token_ms_max"]) for g, mean in [(j["generation"], sum(1e3 / r["gen_tok_s"] for r in j["repeats"]) / 2)]]')" "[(True, True)]"
same "no single tokens of a prompt" "$(json_get "$out" '[j["prompt"]["token_ms_" + k] for k in ("p10", "p50", "p90", "max")]')" "[None, None, None, None]"
same "shares add up" "$(json_get "$out" 'all(0.99 < sum(p[k + "_share"] for k in ("wait", "expert", "attention", "head", "rest")) < 1.01 for p in (j["prompt"], j["generation"]))')" True
same "rate while busy" "$(json_get "$out" 'all(abs(p["disk_busy_gb_s"] * p["disk_busy_share"] - p["disk_gb_s"]) <= 1e-2 * p["disk_gb_s"] + 1e-4 for p in (j["prompt"], j["generation"]))')" True
same "tokens" "$(json_get "$out" '(j["prompt"]["tokens"], j["generation"]["tokens"], len(j["repeats"]))')" "(160, 24, 2)"
same "hits" "$(json_get "$out" 'abs(j["generation"]["expert_hits"] / (j["generation"]["expert_hits"] + j["generation"]["prefetch_used"] + j["generation"]["expert_misses"]) - j["hit_rate"]) < 1e-4')" True
same "memory" "$(json_get "$out" '0 < j["peak_rss_bytes"] <= j["memory_budget_bytes"] == 16 << 20')" True
same "dependent bound is the stricter one" "$(json_get "$out" 'j["bound_tok_s"] <= j["overlapped_bound_tok_s"]')" True
same "the first ratio" "$(json_get "$out" 'abs(j["bound_ratio"] - j["gen_tok_s"] / j["bound_tok_s"]) < 1e-3')" True
same "context is a part of what is touched" "$(json_get "$out" '0 < j["context_bytes_per_token"] < j["touched_bytes_per_token"]')" True
same "prompt ratio" "$(json_get "$out" '0 < j["prompt_bound_ratio"]')" True
same "useful and wasted" "$(json_get "$out" 'abs(j["generation"]["useful_bytes_per_token"] + j["generation"]["wasted_bytes_per_token"] - j["bytes_per_token"]) <= 1e-4 * j["bytes_per_token"]')" True
same "repeats have ids of their own" "$(json_get "$out" 'j["repeats"][0]["token_hash"] != j["repeats"][1]["token_hash"]')" True
same "state" "$(json_get "$out" 'j["cache_state"]')" warm
same "warm-ups" "$(json_get "$out" 'j["warm_ups"]')" 1 # a cache as small as this one has its memory at once
hash=$(json_get "$out" 'j["token_hash"]')

# Without probes the same is measured, and nothing is said of bounds.
# shellcheck disable=SC2086 # several words
status 0 "$flashmoe" bench $m $small --memory 16M --json --quiet --probes off
same "token_hash without probes" "$(json_get "$out" 'j["token_hash"]')" "$hash"
same "no bounds without probes" "$(json_get "$out" '[k for k in ("disk_probe_gb_s", "mem_probe_gb_s", "weights_probe_gb_s", "bound_tok_s", "bound_ratio", "prompt_bound_ratio", "overlapped_bound_ratio") if j[k] is not None]')" "[]"
same "rates without probes" "$(json_get "$out" 'j["gen_tok_s"] > 0 and j["prompt_tok_s"] > 0 and j["disk_probe_bytes"] == j["mem_probe_bytes"] == 0')" True
# shellcheck disable=SC2086
status 0 "$flashmoe" bench $m $small --memory 16M --quiet --probes off
says "$out" 'nothing was probed'
usage_error "$flashmoe" bench $m --probes maybe

# Drafts, of which as many are right as were asked for, change nothing but the time.
for right in 0 50 100; do
    # shellcheck disable=SC2086 # several words
    status 0 "$flashmoe" bench $m $small --memory 96M --json --quiet --draft on --draft-right $right
    same "token_hash with $right % of the drafts right" "$(json_get "$out" 'j["token_hash"]')" "$hash"
    same "drafts" "$(json_get "$out" '(j["draft"], 22 <= j["generation"]["drafts"] + j["generation"]["drafts_right"] <= 24, abs(100 * j["generation"]["drafts_right"] / j["generation"]["drafts"] - '$right') < 10)')" "('on', True, True)"
done
same "no single tokens with drafts" "$(json_get "$out" 'j["generation"]["token_ms_p50"]')" None
same "share of the draft layer" "$(json_get "$out" '0 < j["generation"]["draft_share"] < 1')" True
same "no drafts by itself" "$(json_get "$dir/a.json" '(j["draft"], j["generation"]["drafts"])')" "('off', 0)"

# A long prompt: while a layer is computed the experts of the next that a sample of it would choose are read, and used.
status 0 "$flashmoe" bench $m --prompt 512 --gen 1 --repeat 4 --memory 64M --json -q --cold
same "read ahead" "$(json_get "$out" 'j["prompt"]["prefetch_reads"] > 200')" True
same "and used" "$(json_get "$out" 'j["prompt"]["prefetch_used"] >= 0.95 * j["prompt"]["prefetch_reads"]')" True
echo "$hash" | grep -qE '^[0-9a-f]{16}$' || fail "token_hash $hash"

# The same ids and the same answer for any budget, thread count, depth, I/O engine and cache state.
for options in "--memory 64M" "--memory 64M --threads 1" "--memory 16M --cold --depth 1" \
    "--memory 24M --io pread --threads 3"; do
    # shellcheck disable=SC2086 # several words
    status 0 "$flashmoe" bench $m $small $options --json -q
    same "token_hash with $options" "$(json_get "$out" 'j["token_hash"]')" "$hash"
done
status 0 "$flashmoe" bench $m $small --memory 64M --json -q
same "no reads" "$(json_get "$out" 'j["generation"]["disk_busy_gb_s"]')" None
same "everything fits" "$(json_get "$out" '(j["hit_rate"], j["bytes_per_token"])')" "(1, 0)"
status 0 "$flashmoe" bench $m $small --memory 64M --json -q --cold
same "cold" "$(json_get "$out" 'j["cache_state"] == "cold" and j["warm_ups"] == 0 and j["prompt"]["expert_hits"] == 0 and j["repeats"][1]["load_ms"] > 0')" True
same "cold start" "$(json_get "$out" 'j["start_to_first_token_ms"] >= j["ttft_ms"] > 0 and j["start_bound_ms"] > 0 and abs(j["start_bound_ratio"] - j["start_to_first_token_ms"] / j["start_bound_ms"]) < 1e-3 * j["start_bound_ratio"]')" True
status 0 "$flashmoe" bench $m --prompt 80 --gen 0 --repeat 3 --memory 64M --json -q --cold
same "loading is the median" "$(json_get "$out" 'j["load_ms"] == sorted(r["load_ms"] for r in j["repeats"])[1]')" True
same "no cold start when warm" "$(json_get "$dir/a.json" 'j["start_to_first_token_ms"]')" None
status 0 "$flashmoe" bench $m --prompt 80 --gen 12 --repeat 1 --memory 64M --json -q
same "the first repeat is the same in shorter runs" "$(json_get "$out" 'j["repeats"][0]["token_hash"]')" \
    "$(json_get "$dir/a.json" 'j["repeats"][0]["token_hash"]')"

# One phase alone.
status 0 "$flashmoe" bench $m --prompt 0 --gen 3 --repeat 1 --json -q --memory 64M
same "generation alone" "$(json_get "$out" '(j["prompt_tok_s"], j["ttft_ms"], j["gen_tok_s"] > 0)')" "(None, None, True)"
status 0 "$flashmoe" bench $m --prompt 3 --gen 0 --repeat 1 --json -q --memory 64M
same "prompt alone" "$(json_get "$out" '(j["gen_tok_s"], j["bound_ratio"], j["prompt_tok_s"] > 0)')" "(None, None, True)"

# CSV and table.
status 0 "$flashmoe" bench $m $small --memory 24M --csv -q
same "CSV" "$(python3 -c 'import csv,sys; r=list(csv.reader(open(sys.argv[1]))); print([x[0] for x in r], {len(x) for x in r} == {len(r[0])}, float(r[2][r[0].index("tok_s")]) > 0, r[1][r[0].index("token_hash")])' "$out")" \
    "['phase', 'prompt', 'generation'] True True $hash"
same "CSV, what was run" "$(python3 -c 'import csv,sys; r=list(csv.DictReader(open(sys.argv[1])))[0]; print(r["experts_used"], r["activations"], r["kv"], r["prefetch"], r["draft"], r["kernels"] != "", r["io"] != "", int(r["batch"]) > 0, r["model"] != "")' "$out")" \
    "4 full f16 auto off True True True True"
same "CSV, terms and single tokens" "$(python3 -c 'import csv,sys; p, g = csv.DictReader(open(sys.argv[1])); print(all(float(g[k]) > 0 for k in ("disk_busy_share", "disk_busy_gb_s", "disk_term_ms", "memory_term_ms", "token_ms_p10", "token_ms_p50", "token_ms_p90", "token_ms_max")), float(p["arithmetic_term_ms"]) > 0, repr(g["arithmetic_term_ms"]), repr(p["token_ms_p50"]))' "$out")" "True True '' ''"
status 0 "$flashmoe" bench $m $small --memory 24M --json -q --kv f32 --prefetch off
same "JSON, what was run" "$(json_get "$out" '(j["kv"], j["prefetch"], j["draft"])')" "('f32', 'off', 'off')"
status 0 "$flashmoe" bench $m $small --memory 24M
says "$out" '^generation +[0-9.]+ +[0-9.]+\.\.[0-9.]+'
says "$out" 'bound, misses known after routers'
says "$out" '^one token +[0-9.]+ ms \(median\); a tenth took at most [0-9.]+, a tenth at least'
says "$out" "^token hash  $hash"
says "$err" 'repeat 2 of 2, prompt [0-9.]+ tok/s'
says "$err" '^memory plan'

# A disk that fails fails the run, with the place.
FM_FAULT=read:eio-forever failure "$faulty" bench $m $small --memory 16M --csv -q
[ -s "$out" ] && fail "a failed run printed figures"
finish
