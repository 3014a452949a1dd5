#!/bin/sh
# Runs tests and prints one line for each, then "N passed, N failed, N skipped".
#
#   tests/run.sh BUILD TEST...
#
# TEST is a program without its build folder (tests/unit/test_x), a script (tests/cli/test_x.sh),
# "check-layers", or a program of another mode (asan:tests/unit/test_x). A fuzz target replays
# tests/fuzz/corpus/NAME. Exit status 0: passed. 77: skipped; the reason is the last line that
# starts with "skipped: ". Single cases that a program skips are counted and named as well.
# The output of a test is kept in BUILD/log and shown when it fails. Programs of another mode come last, as many at a
# time as there are processors: what sanitizers look for does not depend on time.
set -u
if [ "$1" = --one ]; then # of several at a time: BUILD TEST
    one=$3
    set -- "$2"
else
    one=""
fi
build=$1
shift
log_dir=$build/log
mkdir -p "$log_dir"
limit_s=${TEST_TIMEOUT_S:-1200}
passed=0
failed=0
skipped=0
failures=""
started=$(date +%s)

export FM_BUILD="$build"
export ASAN_OPTIONS="${ASAN_OPTIONS:-allocator_may_return_null=1:detect_stack_use_after_return=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1}"

run_one() { # test
    case $1 in
    check-layers)
        python3 tools/check_layers.py --self-test && python3 tools/check_layers.py .
        ;;
    *.sh)
        timeout "$limit_s" bash "$1"
        ;;
    *)
        mode=${1%%:*}
        program=${1#*:}
        dir=$build
        [ "$mode" = "$1" ] || dir=$build/$mode
        case $program in
        tests/fuzz/*)
            corpus=tests/fuzz/corpus/${program#tests/fuzz/fuzz_}
            timeout "$limit_s" "$dir/t/$program" "$corpus"
            ;;
        *)
            timeout "$limit_s" "$dir/t/$program"
            ;;
        esac
        ;;
    esac
}

log_of() { # test
    echo "$log_dir/$(echo "$1" | tr '/:' '__').log"
}

run_timed() { # test: leaves its status and seconds beside its log
    log=$(log_of "$1")
    t0=$(date +%s)
    run_one "$1" >"$log" 2>&1
    echo "$? $(($(date +%s) - t0))" >"$log.end"
}

report() { # test: after run_timed
    test=$1
    log=$(log_of "$test")
    read -r status seconds <"$log.end" || { status=127 seconds=0; }
    case $status in
    0)
        passed=$((passed + 1))
        cases=$(grep -c '^\[       OK \]' "$log")
        # A skipped case appears twice in the output, when it runs and in the list at the end.
        left_out=$(grep '^\[  SKIPPED \] [A-Za-z_]' "$log" | sort -u | sed 's/.*\] //')
        note=""
        [ "$cases" -gt 0 ] && note="$cases cases, "
        printf 'ok       %-44s %s%d s\n' "$test" "$note" "$seconds"
        for case in $left_out; do
            skipped=$((skipped + 1))
            printf 'skipped  %-44s %s\n' "$test" "$case"
        done
        grep '^skipped: ' "$log" | sort -u | sed 's/^skipped: /           because: /'
        ;;
    77)
        skipped=$((skipped + 1))
        reason=$(grep '^skipped: ' "$log" | tail -n 1)
        printf 'skipped  %-44s %s\n' "$test" "${reason#skipped: }"
        ;;
    *)
        failed=$((failed + 1))
        failures="$failures $test"
        [ "$status" -eq 124 ] && echo "(stopped after $limit_s s)" >>"$log"
        printf 'FAILED   %-44s status %d, %d s; its output:\n' "$test" "$status" "$seconds"
        tail -n 60 "$log" | sed 's/^/    | /'
        ;;
    esac
}

if [ -n "$one" ]; then
    run_timed "$one"
    exit 0
fi

other_modes=""
for test in "$@"; do
    rm -f "$(log_of "$test").end"
    case $test in
    *:*)
        other_modes="$other_modes $test"
        continue
        ;;
    esac
    run_timed "$test"
    report "$test"
done
if [ -n "$other_modes" ]; then
    printf '%s\n' $other_modes | xargs -P "$(nproc 2>/dev/null || echo 2)" -I '{}' "$0" --one "$build" '{}'
    for test in $other_modes; do report "$test"; done
fi

for test in $failures; do echo "failed: $test"; done
echo "$passed passed, $failed failed, $skipped skipped ($(($(date +%s) - started)) s)"
[ "$failed" -eq 0 ]
