#!/bin/bash
# Files that are not models, and a disk that fails in the middle of an answer: one clear message that
# names the file, status 1.
. tests/cli/lib.sh
m=$dir/m.gguf
make_model qwen35moe-b "$m"

printf 'GGUF' >"$dir/short.gguf"
printf 'this is a text file, not a model\n' >"$dir/text.gguf"
: >"$dir/empty.gguf"
mkdir "$dir/folder.gguf"
head -c 100000 "$m" >"$dir/cut.gguf"
head -c $(($(stat -c %s "$m") - 1)) "$m" >"$dir/less.gguf"
for name in missing short text empty folder cut less; do
    for command in info plan "run -p x" "logits --ids 1 --out $dir/x.npy"; do
        # shellcheck disable=SC2086
        set -- $command
        verb=$1
        shift
        failure "$flashmoe" "$verb" "$dir/$name.gguf" "$@"
        says "$err" "$name.gguf"
    done
done
chmod 000 "$dir/short.gguf"
[ "$(id -u)" -eq 0 ] || failure "$flashmoe" info "$dir/short.gguf"

# Shards: the first names the others; a missing one is named.
make_model qwen35moe-a "$dir/s.gguf" --shards 3
status 0 "$flashmoe" run "$dir/s-00001-of-00003.gguf" --memory 64M -p x -n 2
rm "$dir/s-00002-of-00003.gguf"
failure "$flashmoe" run "$dir/s-00001-of-00003.gguf" --memory 64M -p x -n 2
says "$err" 's-00002-of-00003'
mkdir "$dir/s-00002-of-00003.gguf"
failure "$flashmoe" run "$dir/s-00001-of-00003.gguf" --memory 64M -p x -n 2
says "$err" 's-00002-of-00003.gguf: is a directory, expected a GGUF file'

# A disk that fails: transient errors are survived, lasting ones end the answer with place and errno.
smallest=$(json_get <("$flashmoe" plan "$m" --json --ctx 256) 'j["min_memory_bytes"]')
faulty_run() { # fault, io
    FM_FAULT=$1 "$faulty" run "$m" --raw -p "the man and the sea" -n 24 --temp 0 --ctx 256 \
        --memory "$smallest" --io "$2" --json
}
status 0 "$flashmoe" run "$m" --raw -p "the man and the sea" -n 24 --temp 0 --ctx 256 --memory "$smallest" --json
hash=$(json_get "$out" 'j["token_hash"]')
for io in uring pread; do
    status 0 faulty_run read:eio:nth=150 $io
    same "answer after one EIO ($io)" "$(json_get "$out" 'j["token_hash"]')" "$hash"
    status 0 faulty_run read:short:nth=150 $io
    same "answer after a short read ($io)" "$(json_get "$out" 'j["token_hash"]')" "$hash"
    failure faulty_run read:eio:nth=150:sticky $io
    says "$err" 'm\.gguf.*Input/output error'
    [ -s "$out" ] && fail "JSON after a failed read"
    failure faulty_run read:eof:nth=150:sticky $io
    says "$err" 'm\.gguf'
done

# A model that shrinks while it runs.
cp "$m" "$dir/shrinks.gguf"
smallest=$(json_get <("$flashmoe" plan "$dir/shrinks.gguf" --json --ctx 256) 'j["min_memory_bytes"]')
FM_FAULT=read:slow:us=20000 "$faulty" run "$dir/shrinks.gguf" --raw -p "the man and the sea" -n 200 \
    --temp 0 --ctx 256 --memory "$smallest" >"$out" 2>"$err" &
pid=$!
for _ in $(seq 200); do
    grep -q '^prompt .* 100.0 %' "$err" && break
    sleep 0.05
done
truncate -s 200000 "$dir/shrinks.gguf"
wait $pid
same "status of a model that shrank" $? 1
says "$err" '^flashmoe: .*shrinks\.gguf'
finish
