#!/bin/bash
# Text to ids and back.
. tests/cli/lib.sh
m=$dir/m.gguf
make_model qwen3moe-a "$m"
ids() { "$flashmoe" tokenize "$m" --json "$@" | python3 -c 'import json,sys; print(*json.load(sys.stdin)["ids"], sep=",")'; }

status 0 "$flashmoe" tokenize "$m" -p 'the man and "the" sea' --json
same fields "$(json_get "$out" '" ".join(j)')" "ids tokens"
same "tokens make the text" "$(json_get "$out" '"".join(j["tokens"])')" 'the man and "the" sea'
status 0 "$flashmoe" tokenize "$m" -p 'the "sea"'
says "$out" '^[0-9]+	"'

for text in "plain text" "  spaces   and
lines" "héron 漢字 🙂 e\`́" "" "a\"b\\c"; do
    list=$(ids -p "$text")
    if [ -n "$list" ]; then
        same "round trip" "$("$flashmoe" tokenize "$m" --decode "$list")" "$text"
    else
        same "no ids" "$text" ""
    fi
    printf '%s' "$text" >"$dir/t"
    same "-f" "$(ids -f "$dir/t")" "$list"
    same "-f -" "$(ids -f - <"$dir/t")" "$list"
done
# A special token in the text is one id, or plain text when asked.
same "special" "$(ids -p '<|im_start|>' | tr ',' '\n' | wc -l)" 1
[ "$(ids -p '<|im_start|>' --no-special | tr ',' '\n' | wc -l)" -gt 1 ] || fail "--no-special has no effect"
same "special decoded" "$("$flashmoe" tokenize "$m" --decode "$(ids -p '<|im_start|>')")" '<|im_start|>'
# Broken characters are replaced, not passed on.
printf 'a\377b' >"$dir/t"
list=$(ids -f "$dir/t")
same "broken byte" "$("$flashmoe" tokenize "$m" --decode "$list")" "a�b"
status 0 "$flashmoe" tokenize "$m" --decode "$list" --json
same "broken byte in JSON" "$(json_get "$out" 'j["text"]')" "a�b"

failure "$flashmoe" tokenize "$m" --decode 1,99999999
failure "$flashmoe" tokenize "$m" --decode ""
failure "$flashmoe" tokenize "$m" --decode x
failure "$flashmoe" tokenize "$m" -f "$dir/none"
failure "$flashmoe" tokenize "$dir/none" -p x
echo '{"broken": ' >"$dir/tokenizer.json"
failure "$flashmoe" tokenize "$dir/tokenizer.json" -p x
says "$err" 'tokenizer.json'
finish
