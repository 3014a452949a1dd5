#!/bin/bash
# A reader that goes away and a device that is full: one message, status 1, no half-written file.
. tests/cli/lib.sh
m=$dir/m.gguf
make_model qwen35moe-a "$m"
long="-p x --raw -n 400 --temp 0 --memory 64M -q"

# shellcheck disable=SC2086 # words of $long
closed_pipe() { # command...: standard output is a pipe whose reader leaves after one byte
    { "$@" 2>"$err"; echo $? >"$dir/status"; } | head -c 1 >/dev/null
    n_checked=$((n_checked + 1))
    [ "$(cat "$dir/status")" = 1 ] || fail "closed pipe: status $(cat "$dir/status"): $*"
    [ "$(grep -c '^flashmoe: writing .*: Broken pipe' "$err")" -eq 1 ] || fail "closed pipe: $(cat "$err")"
}
closed_pipe "$flashmoe" run "$m" $long
# Commands with little output end before they notice, or fail in the same words; never a signal.
for command in "info $m" "plan $m" "info $m --json" "tokenize $m -p abc" "help"; do
    # shellcheck disable=SC2086
    { "$flashmoe" $command 2>"$err"; echo $? >"$dir/status"; } | true
    got=$(cat "$dir/status")
    [ "$got" = 0 ] || [ "$got" = 1 ] || fail "closed pipe: status $got: $command"
done

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
