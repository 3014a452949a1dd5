#!/bin/bash
# Ctrl-C: within half a second, in the middle of a prompt and of an answer, with the summary and
# status 130. Reads are slowed down by fault injection, so that the work lasts as long as needed.
. tests/cli/lib.sh
m=$dir/m.gguf
make_model qwen35moe-b "$m"
smallest=$(json_get <("$flashmoe" plan "$m" --json --ctx 512) 'j["min_memory_bytes"]')
python3 -c 'print("the man and the sea in the rain " * 20)' >"$dir/prompt"

# interrupt WAIT_FOR COMMAND...: sends SIGINT when a line of that pattern, or 1 s, has come.
interrupt() {
    local pattern=$1 pid deadline
    shift
    : >"$out"
    FM_FAULT=read:slow:us=5000 "$@" >"$out" 2>"$err" </dev/null &
    pid=$!
    deadline=$(($(date +%s%N) + 20000000000))
    until grep -qE "$pattern" "$err" "$out" 2>/dev/null; do
        kill -0 $pid 2>/dev/null || break
        [ "$(date +%s%N)" -gt "$deadline" ] && break
        sleep 0.02
    done
    sleep 0.3
    if ! kill -0 $pid 2>/dev/null; then
        wait $pid
        fail "ended by itself with status $?: $*"
        sed 's/^/    stderr: /' "$err"
        return
    fi
    local t0 t1
    t0=$(date +%s%N)
    kill -INT $pid
    wait $pid
    interrupted_status=$?
    t1=$(date +%s%N)
    took_ms=$(((t1 - t0) / 1000000))
    same "status after Ctrl-C" $interrupted_status 130
    # Sanitizers check for leaks at the end, which takes longer than the stop itself.
    local limit_ms=500
    ldd "$faulty" | grep -q 'lib[at]san' && limit_ms=3000
    [ $took_ms -le $limit_ms ] || fail "stopped after $took_ms ms: $*"
}

# In the middle of a prompt.
interrupt '^memory plan' "$faulty" run "$m" -f "$dir/prompt" --memory "$smallest" --ctx 512 --batch 64
says "$err" '^\[0 tokens \| prompt [0-9]+ tokens'
[ -s "$out" ] && fail "text without an answer"

# In the middle of the answer: what was said so far stays, also as JSON.
interrupt '^prompt .* 100.0 %' "$faulty" run "$m" --raw -p x --memory "$smallest" --ctx 512 --json --seed 1
says "$err" '^\[[0-9]+ tokens'
says "$out" '"token_hash"'
json_get "$out" 'len(j["text"])' >/dev/null

# While logits are written: nothing is left behind.
printf '1,%.0s' $(seq 300) | sed 's/,$//' >"$dir/ids"
interrupt '^loading|^logits|.' "$faulty" logits "$m" --ids-file "$dir/ids" --memory "$smallest" \
    --batch 32 --out "$dir/l.npy"
[ -e "$dir/l.npy" ] && fail "an unfinished file under its final name"
[ -z "$(find "$dir" -name 'l.npy*')" ] || fail "temporary file left: $(find "$dir" -name 'l.npy*')"

# While standard input is awaited.
mkfifo "$dir/fifo"
sleep 30 >"$dir/fifo" &
feeder=$!
"$flashmoe" run "$m" -f - <"$dir/fifo" >"$out" 2>"$err" &
pid=$!
sleep 0.3
kill -INT $pid
wait $pid
same "status while reading standard input" $? 130
kill $feeder
wait $feeder 2>/dev/null
finish
