#!/bin/bash
# A reader that goes away and a device that is full: one message, status 1, no half-written file.
. tests/cli/lib.sh
m=$dir/m.gguf
make_model qwen35moe-a "$m"
smallest=$(json_get <("$flashmoe" plan "$m" --json --ctx 2100) 'j["min_memory_bytes"]')
long="-p x --raw -n 400 --temp 0 --memory 64M -q"

check_broken_pipe() { # status file is $dir/status, messages are in $err
    n_checked=$((n_checked + 1))
    [ "$(cat "$dir/status")" = 1 ] || fail "closed pipe: status $(cat "$dir/status"): $*"
    [ "$(grep -c '^flashmoe: writing .*: Broken pipe' "$err")" -eq 1 ] ||
        fail "closed pipe: $*: $(cat "$err")"
}
# The reader is gone before the first write.
for command in "run $m $long" "run $m $long --json" "info $m" "plan $m" "info $m --json" \
    "tokenize $m -p abc" "help" "version" "plan --help"; do
    # shellcheck disable=SC2086
    { sleep 0.2; "$flashmoe" $command 2>"$err"; echo $? >"$dir/status"; } | true
    check_broken_pipe "$command"
done
# The reader leaves after one byte, in the middle of an answer; the rest is not computed.
t0=$(date +%s)
# shellcheck disable=SC2086
{ FM_FAULT=read:slow:us=10000 "$faulty" run "$m" $long -n 2000 --ctx 2100 --memory "$smallest" 2>"$err"
  echo $? >"$dir/status"; } | head -c 1 >/dev/null
check_broken_pipe "run, head -c 1"
[ $(($(date +%s) - t0)) -le 30 ] || fail "went on after the reader had left"

if [ -c /dev/full ]; then
    for command in "run $m $long" "run $m $long --json" "info $m" "info $m --json" "plan $m" \
        "plan $m --json" "tokenize $m -p abc" "tokenize $m --decode 65 --json" "help" "version" \
        "run --help"; do
        # shellcheck disable=SC2086
        "$flashmoe" $command >/dev/full 2>"$err"
        got=$?
        n_checked=$((n_checked + 1))
        [ "$got" -eq 1 ] || fail "full device: status $got: $command"
        same "messages on a full device ($command)" \
            "$(grep -c '^flashmoe: writing .*: No space left on device' "$err")" 1
    done
    failure "$flashmoe" logits "$m" --ids 1,2,3 --out /dev/full --memory 64M -q
    says "$err" 'No space left on device'
    [ -c /dev/full ] || fail "/dev/full was replaced"
fi

# shellcheck disable=SC2086
"$flashmoe" run "$m" $long >&- 2>"$err"
same "status with standard output closed" $? 1
says "$err" 'Bad file descriptor'
finish
