# Shared by the command line tests: where the programs are, a folder that is removed at the end,
# and checks that say what was expected. Read with `. tests/cli/lib.sh` from the project's root.
set -u
build=${FM_BUILD:-build}
flashmoe=$build/flashmoe
faulty=$build/t/flashmoe # the same program with fault injection
tiny=$build/t/tests/tiny/tiny-gguf
for program in "$flashmoe" "$faulty" "$tiny"; do
    if [ ! -x "$program" ]; then
        echo "FAIL: $program is missing; run make test"
        exit 1
    fi
done

dir=$(mktemp -d "${TMPDIR:-/tmp}/fm_cli_XXXXXX")
trap 'rm -rf "$dir"' EXIT
export XDG_CACHE_HOME=$dir/cache # never the user's own
out=$dir/out
err=$dir/err
n_failed=0
n_checked=0

fail() {
    echo "FAIL: $*"
    n_failed=$((n_failed + 1))
}

# status EXPECTED COMMAND...: runs it with its output in $out and $err.
status() {
    local expected=$1
    shift
    "$@" >"$out" 2>"$err" </dev/null
    local got=$?
    n_checked=$((n_checked + 1))
    if [ "$got" -ne "$expected" ]; then
        fail "status $got, expected $expected: $*"
        sed 's/^/    stderr: /' "$err" | head -n 12
    fi
}

# A usage error: status 2, a message on standard error, nothing on standard output.
usage_error() {
    status 2 "$@"
    [ -s "$out" ] && fail "wrote to standard output: $*"
    grep -q 'see: flashmoe' "$err" || fail "no hint to the help: $*"
}

# A failure: status 1, one message that starts with "flashmoe: ", no crash report.
failure() {
    status 1 "$@"
    [ "$(grep -c '^flashmoe: ' "$err")" -eq 1 ] || {
        fail "expected one message: $*"
        sed 's/^/    stderr: /' "$err" | head -n 12
    }
    grep -q 'Sanitizer\|runtime error' "$err" && fail "sanitizer report: $*"
}

says() { # file, pattern
    n_checked=$((n_checked + 1))
    grep -qE -- "$2" "$1" || {
        fail "\"$2\" not found in:"
        sed 's/^/    | /' "$1" | head -n 20
    }
}

says_not() {
    n_checked=$((n_checked + 1))
    grep -qE -- "$2" "$1" && fail "\"$2\" found in $1"
    return 0
}

same() { # what, got, expected
    n_checked=$((n_checked + 1))
    [ "$2" = "$3" ] || fail "$1: \"$2\", expected \"$3\""
}

json_get() { # file, python expression over j
    python3 -c 'import json,sys; j=json.load(open(sys.argv[1], encoding="utf-8")); print(eval(sys.argv[2]))' \
        "$1" "$2" || fail "not the JSON that was expected: $2"
}

make_model() { # spec, file, further options
    local spec=$1 file=$2
    shift 2
    "$tiny" --spec "$spec" --out "$file" "$@" || {
        echo "FAIL: no test model $spec"
        exit 1
    }
}

finish() {
    if [ "$n_failed" -gt 0 ]; then
        echo "$n_failed of $n_checked checks failed"
        exit 1
    fi
    echo "$n_checked checks"
    exit 0
}
