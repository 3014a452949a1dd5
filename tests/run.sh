#!/bin/sh
# Runs tests and prints one line for each, then "N passed, N failed, N skipped".
#
#   tests/run.sh BUILD TEST...
#
# TEST is a program without its build folder (tests/unit/test_x), a script (tests/cli/test_x.sh),
# "check-layers", or a program of another mode (asan:tests/unit/test_x). A fuzz target replays
# tests/fuzz/corpus/NAME. Exit status 0: passed. 77: skipped; the reason is the last line that
# starts with "skipped: ". Single cases that a program skips are counted and named as well.
# The output of a test is kept in BUILD/log and shown when it fails.
set -u
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

run_one() { # test, log: runs it with its output in the log
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

for test in "$@"; do
    log=$log_dir/$(echo "$test" | tr '/:' '__').log
    t0=$(date +%s)
    run_one "$test" >"$log" 2>&1
    status=$?
    seconds=$(($(date +%s) - t0))
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
done

for test in $failures; do echo "failed: $test"; done
echo "$passed passed, $failed failed, $skipped skipped ($(($(date +%s) - started)) s)"
[ "$failed" -eq 0 ]
