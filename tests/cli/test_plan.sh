#!/bin/bash
# info and plan: tables and JSON, the budget as a promise, and a refusal that shows the sum.
. tests/cli/lib.sh
make_model glm4moe-b "$dir/draft.gguf"
status 0 "$flashmoe" info "$dir/draft.gguf"
says "$out" '^draft layers +1 more in the file'
status 0 "$flashmoe" info "$dir/draft.gguf" --json
same "draft layers" "$(json_get "$out" '(j["layers"], j["moe_layers"], j["draft_layers"], j["window"])')" "(5, 3, 1, 0)"
make_model gpt-oss-a "$dir/window.gguf"
status 0 "$flashmoe" info "$dir/window.gguf" --json
same "windows" "$(json_get "$out" '(j["layers"], j["window_layers"], j["window"])')" "(4, 2, 24)"
# A name from a file does not reach the terminal as it is.
LC_ALL=C sed 's/tiny gpt-oss-a/t\x1b[2J\xc2\x9bosss\xff\xc3\xa4/' "$dir/window.gguf" >"$dir/name.gguf"
status 0 "$flashmoe" info "$dir/name.gguf"
says "$out" "^model +t\?\[2J\?\?osss$(printf '\357\277\275\303\244')$"
status 0 "$flashmoe" info "$dir/name.gguf" --json
same "name" "$(json_get "$out" 'ascii(j["name"])')" "'t\\x1b[2J\\x9bosss\\ufffd\\xe4'"

for spec in qwen35moe-a qwen35moe-e qwen3next-a qwen3moe-a glm4moe-a gpt-oss-a; do
    m=$dir/$spec.gguf
    make_model $spec "$m"

    status 0 "$flashmoe" info "$m"
    says "$out" "^family +${spec%-*}"
    says "$out" '^experts .* per layer'
    says "$out" '^types +F32'
    [ -s "$err" ] && fail "info wrote to standard error: $(cat "$err")"
    status 0 "$flashmoe" info "$m" --json
    same "family of $spec" "$(json_get "$out" 'j["family"]')" "${spec%-*}"
    same "file size" "$(json_get "$out" 'j["file_bytes"]')" "$(stat -c %s "$m")"
    # a draft layer's are listed beside the model's own
    same "types add up" "$(json_get "$out" 'sum(t["expert_bytes"] for t in j["types"]) == j["expert_bytes"] * (j["layers"] + j["draft_layers"]) // j["layers"] > 0')" True

    status 0 "$flashmoe" plan "$m" --memory 128M
    says "$out" 'total .* of 128 MiB \(given\)'
    says "$out" '^  free on this machine .* of '
    says "$out" '^  speed: a token touches .* and reads nothing: at most .* tok/s for each GB/s of memory'
    status 0 "$flashmoe" plan "$m" --memory 128M --json
    same "plan adds up" "$(json_get "$out" 'sum(l["bytes"] for l in j["lines"]) == j["total_bytes"] <= j["budget_bytes"] == 128 << 20')" True
    status 0 "$flashmoe" plan "$m" --json
    same "automatic plan" "$(json_get "$out" 'not j["budget_given"] and 0 < j["available_bytes"] <= j["machine_bytes"] and j["budget_bytes"] < j["available_bytes"]')" True
    same "automatic plan" "$(json_get "$out" 'j["total_bytes"] <= j["budget_bytes"] and j["expert_slots"] > 0')" True

    status 0 "$flashmoe" plan "$m" --memory "$(json_get "$out" 'j["min_memory_bytes"]')"
    says "$out" '^  speed: a token touches .* and reads .* of it where all experts are used alike: at most .* tok/s'

    # The smallest budget works, one byte less is refused with the plan. With a fixed context: an
    # automatic one shrinks with the budget.
    status 0 "$flashmoe" plan "$m" --memory 128M --ctx 512 --json
    smallest=$(json_get "$out" 'j["min_memory_bytes"]')
    status 0 "$flashmoe" run "$m" -p x -n 4 --ctx 512 --memory "$smallest" --json
    same "peak memory" "$(json_get "$out" 'j["peak_rss_bytes"] <= j["memory_budget_bytes"]')" True
    for command in "plan $m" "run $m -p x" "logits $m --ids 1 --out $dir/x.npy"; do
        # shellcheck disable=SC2086
        status 1 "$flashmoe" $command --memory $((smallest / 2))
        says "$err" '^flashmoe: '
        says "$err" '(trunk|expert)'
        [ "$(wc -l <"$err")" -ge 4 ] || fail "the refusal does not list the plan: $(cat "$err")"
    done
    status 1 "$flashmoe" plan "$m" --ctx 512 --memory $((smallest - 1))
    failure "$flashmoe" plan "$m" --memory 1K --json 
    [ -s "$out" ] && fail "JSON after a failure"
done

# Scratch is counted as a straight line in the length of a pass, and the ledger lets nobody pass the plan.
for spec in glm4moe-a deepseek2-a qwen35moe-a; do
    m=$dir/$spec.gguf
    [ -s "$m" ] || make_model $spec "$m"
    for batch in 1 63 64 65 100 127 128 129 300 448 512; do
        status 0 "$flashmoe" logits "$m" --ids 1,2,3 --out "$dir/x.npy" --batch $batch --ctx 512 --memory 128M
    done
done
# Of experts in groups only those of the groups that are used can be chosen: 12 of 24.
status 0 "$flashmoe" plan "$dir/deepseek2-a.gguf" --experts 12
status 1 "$flashmoe" plan "$dir/deepseek2-a.gguf" --experts 13
says "$err" '13 experts per token asked for; the router chooses among the 12 of 2 groups out of 4'
make_model qwen3moe-c "$dir/many.gguf" # 130 experts
for batch in 64 128 129 512; do
    status 0 "$flashmoe" logits "$dir/many.gguf" --experts 129 --ids 1,2,3 --out "$dir/x.npy" --batch $batch --ctx 512 --memory 128M
done
finish
