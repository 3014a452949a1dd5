#!/bin/bash
# A model whose tokenizer cannot be used, or whose start token is odd: info, plan, bench and logits work and
# warn, run and eval fail with one message that names the file, what was found and what was expected, before
# they load anything. The same for a chat template, which only run without --raw needs.
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

# make_array FILE KEY: a text becomes an array of u8 of the same length in the file.
make_array() {
    python3 - "$@" <<'PY'
import struct, sys
path, key = sys.argv[1], sys.argv[2].encode()
data = bytearray(open(path, "rb").read())
at = data.index(len(key).to_bytes(8, "little") + key) + 8 + len(key)
kind, n = struct.unpack_from("<IQ", data, at)
assert kind == 8
struct.pack_into("<IIQ", data, at, 9, 0, n - 4)
open(path, "wb").write(data)
PY
}

# fails_unloaded PATTERN COMMAND...: fails with the pattern and loads nothing: the file of the trace, which
# loading begins, is not there.
fails_unloaded() {
    failure "$flashmoe" "${@:2}" --memory 64M --record-trace "$dir/loaded"
    says "$err" "^flashmoe: .*$1"
    [ -e "$dir/loaded" ] && fail "loaded before it failed: ${*:2}"
    rm -f "$dir/loaded"
}

# warns MODEL PATTERN: what needs no text works, with the warning.
warns() {
    status 0 "$flashmoe" info "$1"
    says "$err" "^flashmoe: warning: $2"
    status 0 "$flashmoe" plan "$1"
    says "$err" "^flashmoe: warning: $2"
    status 0 "$flashmoe" bench "$1" --prompt 4 --gen 2 --repeat 2 --memory 64M --cold
    same "bench warns once, however often it opens" "$(grep -cE "^flashmoe: warning: $2" "$err")" 1
    status 0 "$flashmoe" logits "$1" --ids 1,2,3 --out "$dir/odd.npy" --memory 64M
    says "$err" "^flashmoe: warning: $2"
    cmp -s "$dir/odd.npy" "$dir/good.npy" || fail "other logits with a warning: $1"
}

# without_text MODEL PATTERN: the warning, and the failure of what needs text.
without_text() {
    warns "$1" "no tokenizer.*$2"
    fails_unloaded "$2" run "$1" --raw -p x -n 1
    fails_unloaded "$2" run "$1" -p x -n 1
    fails_unloaded "$2" eval "$1" --text "$dir/text" --ctx 8
}

# without_chat MODEL PATTERN: the warning, and the failure of what needs a conversation.
without_chat() {
    warns "$1" "no chat form.*$2"
    status 0 "$flashmoe" run "$1" --raw -p x -n 1 --memory 64M
    says "$err" "^flashmoe: warning: no chat form.*$2"
    status 0 "$flashmoe" eval "$1" --text "$dir/text" --ctx 8 --memory 64M
    says "$err" "^flashmoe: warning: no chat form.*$2"
    fails_unloaded "$2" run "$1" -p x -n 1
}

status 0 "$flashmoe" logits "$m" --ids 1,2,3 --out "$dir/good.npy" --memory 64M
says_not "$err" 'warning'
# What loads leaves the file that fails_unloaded looks for.
for command in run eval; do
    [ $command = run ] && set -- -p x -n 1 || set -- --text "$dir/text" --ctx 8
    status 0 "$flashmoe" $command "$m" "$@" --memory 64M --record-trace "$dir/loaded"
    says_not "$err" 'warning'
    [ -s "$dir/loaded" ] || fail "no trace of a $command that loads"
    rm -f "$dir/loaded"
done

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
make_array "$dir/pre.gguf" tokenizer.ggml.pre
without_text "$dir/pre.gguf" 'pre\.gguf: .*tokenizer\.ggml\.pre.*expected'

# A chat template that is an array and no text; one that does not compile.
cp "$m" "$dir/chat.gguf"
make_array "$dir/chat.gguf" tokenizer.chat_template
without_chat "$dir/chat.gguf" 'chat\.gguf: .*tokenizer\.chat_template is of type array of u8, expected string'
LC_ALL=C sed 's/{% for m in messages/{% fur m in messages/' "$m" >"$dir/jinja.gguf"
cmp -s "$m" "$dir/jinja.gguf" && fail "the template of the model was not changed"
without_chat "$dir/jinja.gguf" 'jinja\.gguf: tokenizer\.chat_template, line 1: .*fur'
finish
