#!/bin/bash
# A model whose tokenizer cannot be used, or whose start token is odd: info, plan, bench and logits work and
# warn, run and eval fail with one message that names the file, what was found and what was expected.
. tests/cli/lib.sh
command -v python3 >/dev/null || { echo "skipped: no python3 to damage files with"; exit 77; }
m=$dir/m.gguf
make_model qwen3moe-b "$m"
printf 'the man and the sea\n' >"$dir/text"

# set_value FILE KEY HEX: the bytes that follow a metadata key (its kind and its value).
set_value() {
    python3 - "$@" <<'PY'
import sys
path, key, value = sys.argv[1], sys.argv[2].encode(), bytes.fromhex(sys.argv[3])
data = bytearray(open(path, "rb").read())
at = data.index(len(key).to_bytes(8, "little") + key) + 8 + len(key)
data[at:at + len(value)] = value
open(path, "wb").write(data)
PY
}

# without_text MODEL PATTERN: the warning, and the failure of what needs text.
without_text() {
    status 0 "$flashmoe" info "$1"
    says "$err" "^flashmoe: warning: no tokenizer.*$2"
    status 0 "$flashmoe" plan "$1"
    says "$err" "^flashmoe: warning: no tokenizer.*$2"
    status 0 "$flashmoe" bench "$1" --prompt 4 --gen 2 --repeat 1 --memory 64M
    says "$err" "^flashmoe: warning: no tokenizer.*$2"
    status 0 "$flashmoe" logits "$1" --ids 1,2,3 --out "$dir/odd.npy" --memory 64M
    says "$err" "^flashmoe: warning: no tokenizer.*$2"
    cmp -s "$dir/odd.npy" "$dir/good.npy" || fail "other logits without a tokenizer"
    for command in "run --raw -p x -n 1" "run -p x -n 1" "eval --text $dir/text"; do
        # shellcheck disable=SC2086
        set -- "$1" "$2" $command
        failure "$flashmoe" "$3" "$1" "${@:4}" --memory 64M
        says "$err" "^flashmoe: .*$2"
        says_not "$err" 'loading'
        set -- "$1" "$2"
    done
}

status 0 "$flashmoe" logits "$m" --ids 1,2,3 --out "$dir/good.npy" --memory 64M
says_not "$err" 'warning'

# A start token beyond the vocabulary is nothing to complain of until texts are to start with it.
cp "$m" "$dir/bos.gguf"
set_value "$dir/bos.gguf" tokenizer.ggml.bos_token_id 0400000040420f00
status 0 "$flashmoe" run "$dir/bos.gguf" --raw -p x -n 1 --memory 64M
says_not "$err" 'warning'
set_value "$dir/bos.gguf" tokenizer.ggml.add_bos_token 0700000001
without_text "$dir/bos.gguf" 'bos\.gguf: .*bos_token_id is 1000000, but there are [0-9]+ tokens'
set_value "$dir/bos.gguf" tokenizer.ggml.bos_token_id 06000000
without_text "$dir/bos.gguf" 'bos\.gguf: .*bos_token_id.*expected'

# Another kind of tokenizer; an end beyond the vocabulary; a pre-tokenizer that is an array and no text.
cp "$m" "$dir/kind.gguf"
set_value "$dir/kind.gguf" tokenizer.ggml.model 08000000040000000000000067707439
without_text "$dir/kind.gguf" 'kind\.gguf: .*"gpt9"'
cp "$m" "$dir/end.gguf"
set_value "$dir/end.gguf" tokenizer.ggml.eos_token_id 0400000040420f00
without_text "$dir/end.gguf" 'end\.gguf: .*eos_token_id is 1000000'
cp "$m" "$dir/pre.gguf"
set_value "$dir/pre.gguf" tokenizer.ggml.pre 0900000000000000010000000000000007
without_text "$dir/pre.gguf" 'pre\.gguf: .*tokenizer\.ggml\.pre.*expected'
finish
