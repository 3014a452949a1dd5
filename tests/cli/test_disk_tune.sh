#!/bin/bash
# How the disk is read: measured at first use when the model does not fit, kept, overridden, and never in the output.
. tests/cli/lib.sh
export XDG_CACHE_HOME=$dir/cache
m=$dir/large.gguf
make_model qwen35moe-a "$m"
# Only large files are measured: the rest is a hole that no tensor lies in.
truncate -s 1100M "$m"
small=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["min_memory_bytes"])' \
    < <("$flashmoe" plan "$m" --memory 1G --ctx 64 --json))
budget=$((small + 40000000)) # room for the measurement, not for everything
logits="logits $m --ids 1,2,3,4,5 --ctx 64"
has_all=$("$flashmoe" plan "$m" --memory $budget --ctx 64 --json | python3 -c 'import json,sys; j=json.load(sys.stdin); print(j["expert_slots"] >= j["experts_total"])')

# shellcheck disable=SC2086 # words
{
    status 0 "$flashmoe" $logits --memory 1G --out "$dir/all.npy"
    says_not "$err" 'measuring'
    [ -e "$XDG_CACHE_HOME" ] && fail "measured although everything fits"

    if [ "$has_all" = True ]; then budget=$small; fi
    status 0 "$flashmoe" plan "$m" --memory $budget --ctx 64
    says "$out" 'reads: 8 at a time, cut at 1.00 MiB \(default\)'
    status 0 "$flashmoe" plan "$m" --memory $budget --ctx 64 --depth 5 --split 64K
    says "$out" 'reads: 5 at a time, cut at 64.0 KiB \(given\)'
    status 0 "$flashmoe" plan "$m" --memory $budget --ctx 64 --split 64K --json
    same "plan" "$(json_get "$out" '(j["io_depth"], j["io_split"], j["io_origin"])')" "(8, 65536, 'given')"

    # bench measures before it opens the engine that it times; that is still measured now.
    status 0 "$flashmoe" bench "$m" --memory $budget --ctx 64 --prompt 4 --gen 0 --repeat 1 --json
    same "measured by bench" "$(json_get "$out" 'j["io_origin"]') $(grep -c 'measuring how' "$err")" "measured 1"
    status 0 "$flashmoe" bench "$m" --memory $budget --ctx 64 --prompt 4 --gen 0 --repeat 1 --json -q
    same "and remembered" "$(json_get "$out" 'j["io_origin"]')" remembered
    rm -r "$XDG_CACHE_HOME"

    for options in "" "--depth 3" "--split 4K" "--depth 33 --split 8K" "--io pread --split 16K"; do
        status 0 "$flashmoe" $logits --memory $budget $options --out "$dir/few.npy"
        cmp -s "$dir/all.npy" "$dir/few.npy" || fail "other logits with '$options'"
    done
    kept=$(find "$XDG_CACHE_HOME" -type f | wc -l)
    if [ "$kept" -gt 0 ]; then
        status 0 "$flashmoe" plan "$m" --memory $budget --ctx 64
        says "$out" '\(remembered: [0-9.]+ GB/s\)'
        status 0 "$flashmoe" $logits --memory $budget --out "$dir/few.npy"
        says_not "$err" 'measuring'
        for f in $(find "$XDG_CACHE_HOME" -type f); do echo nonsense >"$f"; done
        status 0 "$flashmoe" $logits --memory $budget --out "$dir/few.npy"
        says "$err" 'what was measured of this disk is not used: .*expected'
        says "$err" 'measuring how this disk wants to be read'
        cmp -s "$dir/all.npy" "$dir/few.npy" || fail "other logits after a damaged file"
    else
        fail "nothing was kept"
    fi
    usage_error "$flashmoe" $logits --out x.npy --split 0
    usage_error "$flashmoe" $logits --memory $budget --out "$dir/x.npy" --split 5000
    says "$err" 'multiple of 4K'
}
finish
