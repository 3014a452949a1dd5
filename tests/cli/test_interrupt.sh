#!/bin/bash
# Ctrl-C: within half a second, in the middle of a prompt and of an answer, with the summary and
# status 130. Reads are slowed down by fault injection, so that the work lasts as long as needed.
. tests/cli/lib.sh
m=$dir/m.gguf
make_model qwen35moe-b "$m"
smallest=$(json_get <("$flashmoe" plan "$m" --json --ctx 512) 'j["min_memory_bytes"]')
python3 -c 'print("the man and the sea in the rain " * 20)' >"$dir/prompt"

# stop_once PATTERN COMMAND...: sends SIGINT 0.3 s after a line of that pattern has come. Sets
# took_ms, and interrupted_status to the exit status, or to "early" when it ended by itself.
stop_once() {
    local pattern=$1 pid deadline t0
    shift
    : >"$out"
    : >"$err"
    FM_FAULT=read:slow:us=${slow_us:-5000} "$@" >"$out" 2>"$err" </dev/null &
    pid=$!
    deadline=$(($(date +%s) + 60))
    until grep -qE "$pattern" "$err" "$out" 2>/dev/null; do
        kill -0 $pid 2>/dev/null || break
        [ "$(date +%s)" -gt "$deadline" ] && break
        sleep 0.02
    done
    sleep 0.3
    interrupted_status=early
    kill -0 $pid 2>/dev/null || { wait $pid; return; }
    t0=$(date +%s%N)
    kill -INT $pid
    wait $pid
    interrupted_status=$?
    took_ms=$((($(date +%s%N) - t0) / 1000000))
}

# The time limit is about the program; on a machine that is busy with something else one of three
# attempts must keep it. Sanitizers look for leaks at the end, which takes longer than the stop.
limit_ms=500
ldd "$faulty" | grep -q 'lib[at]san' && limit_ms=5000
interrupt() {
    local attempt
    for attempt in 1 2 3; do
        stop_once "$@"
        same "status after Ctrl-C" "$interrupted_status" 130
        [ "$interrupted_status" = 130 ] || { sed 's/^/    stderr: /' "$err"; return; }
        [ $took_ms -le $limit_ms ] && return
    done
    fail "stopped after $took_ms ms, allowed are $limit_ms: $*"
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
interrupt . "$faulty" logits "$m" --ids-file "$dir/ids" --memory "$smallest" \
    --batch 32 --out "$dir/l.npy"
[ -e "$dir/l.npy" ] && fail "an unfinished file under its final name"
[ -z "$(find "$dir" -name 'l.npy*')" ] || fail "temporary file left: $(find "$dir" -name 'l.npy*')"

# While bench loads once more: no prompt is needed to notice.
slow_us=15000 interrupt '^repeat 1 of 2' "$faulty" bench "$m" --cold --repeat 2 --prompt 1 --gen 0 --json
says "$err" '^flashmoe: interrupted'
[ -s "$out" ] && fail "figures of a stopped run"

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

# While a named pipe waits for a writer, and while nobody reads what is written.
mkfifo "$dir/nobody" "$dir/full"
"$flashmoe" run "$m" -f "$dir/nobody" >"$out" 2>"$err" &
pid=$!
sleep 0.3
kill -INT $pid
wait $pid
same "status while a pipe is opened" $? 130
says "$err" '^flashmoe: interrupted'
exec 3<>"$dir/full"
dd if=/dev/zero of="$dir/full" bs=4096 oflag=nonblock 2>/dev/null
many=$(seq -s, 1 40 | sed 's/$/,/' | tr -d '\n'); for _ in 1 2 3 4 5 6 7 8; do many=$many$many; done
many=${many%,} # 10,240 ids, more text than any buffer holds
for words in "run --raw -p x -n 3 --seed 1" "run --raw -p x -n 3 --seed 1 --json -q" "tokenize -f $dir/prompt" \
    "tokenize -f $dir/prompt --json" "tokenize --decode $many --json"; do
    # shellcheck disable=SC2086
    "$flashmoe" ${words%% *} "$m" ${words#* } >&3 2>"$err" &
    pid=$!
    sleep 0.5
    kill -INT $pid
    for _ in $(seq 50); do
        kill -0 $pid 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL $pid 2>/dev/null && fail "still waits for a reader: $words"
    wait $pid
    same "status while nobody reads: $words" $? 130
    says_not "$err" 'Interrupted system call'
done
exec 3>&-
finish
