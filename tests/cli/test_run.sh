#!/bin/bash
# The run command on tiny random models: what goes to which stream, the JSON object, prompts, stops.
. tests/cli/lib.sh
m=$dir/m.gguf
make_model qwen35moe-a "$m"
run() { "$flashmoe" run "$m" --memory 64M --temp 0 "$@"; }

# Text on standard output; plan, progress and summary on standard error.
status 0 run -p "the man and the sea" -n 24
cp "$out" "$dir/text"
[ -s "$out" ] || fail "no text"
says "$err" '^memory plan'
says "$err" '^prompt [0-9,]+ of [0-9,]+ tokens, 100\.0 %'
says "$err" '^\[24 tokens \| prompt [0-9,]+ tokens, .* tok/s \| generation .* tok/s \| first token .* s \| hits .* misses \| read .* GB \| disk wait .* % \| peak memory '
status 0 run -p "the man and the sea" -n 24 -q
[ -s "$err" ] && fail "--quiet is not: $(cat "$err")"
cmp -s "$out" "$dir/text" || fail "the same greedy command gave other text"

# --json: exactly these fields, the same text, nothing else on standard output.
status 0 run -p "the man and the sea" -n 24 --json
cp "$out" "$dir/json"
same fields "$(json_get "$dir/json" '" ".join(j)')" "prompt_tokens generated_tokens prompt_tok_s gen_tok_s ttft_ms expert_hits expert_misses prefetch_reads prefetch_used drafts drafts_right bytes_read load_bytes disk_wait_ms peak_rss_bytes memory_budget_bytes token_hash stop_reason text"
json_get "$dir/json" 'j["text"]' >"$dir/json_text"
printf '%s\n' "$(cat "$dir/text")" | cmp -s - "$dir/json_text" || fail "JSON text differs from text"
same "number of tokens" "$(json_get "$dir/json" 'j["generated_tokens"]')" 24
same budget "$(json_get "$dir/json" 'j["memory_budget_bytes"]')" $((64 << 20))
same "hash form" "$(json_get "$dir/json" '__import__("re").fullmatch("[0-9a-f]{16}", j["token_hash"]) is not None')" True
same "figures" "$(json_get "$dir/json" 'j["ttft_ms"] > 0 and j["gen_tok_s"] > 0 and j["peak_rss_bytes"] <= j["memory_budget_bytes"] and j["load_bytes"] > 0')" True
hash=$(json_get "$dir/json" 'j["token_hash"]')

# The hash is FNV-1a 64 over the ids as little-endian int32; of nothing it is the start value.
status 0 run -p x -n 0 --json
same "hash of nothing" "$(json_get "$out" 'j["token_hash"]')" cbf29ce484222325
same "text of nothing" "$(json_get "$out" 'repr(j["text"])')" "''"

# Why an answer ended.
reason() { status 0 run "$@" --json && json_get "$out" 'j["stop_reason"]'; }
same "why: -n" "$(reason -p "the man and the sea" -n 3)" limit
same "why: none asked for" "$(reason -p x -n 0)" limit
text3=$(json_get "$dir/json" 'j["text"][3:5]')
same "why: --stop" "$(reason -p "the man and the sea" -n 24 --stop "$text3")" stop
same "why: context" "$(reason --raw -p "ab" --ctx 16)" context
status 0 run --raw -p "ab" --ctx 16 -q # also when it is quiet
says "$err" 'warning: the answer is cut off: the context of 16 tokens is full'
# Both streams into one file: the figures do not stand behind the answer's last word.
run -p "the man and the sea" -n 8 >"$dir/both" 2>&1 || fail "both streams: $(cat "$dir/both")"
says "$dir/both" '^\[8 tokens'

# The prompt from a file, from standard input, and both -f and -p.
printf 'the man and the sea' >"$dir/prompt"
status 0 run -f "$dir/prompt" -n 24 --json
same "hash with -f" "$(json_get "$out" 'j["token_hash"]')" "$hash"
run -f - -n 24 --json <"$dir/prompt" >"$out" 2>"$err" || fail "-f -: $(cat "$err")"
same "hash with -f -" "$(json_get "$out" 'j["token_hash"]')" "$hash"
printf 'the man and' >"$dir/prompt"
status 0 run --raw -f "$dir/prompt" -p "the sea" -n 4 --json
both=$(json_get "$out" 'j["token_hash"]')
status 0 run --raw -p "the man and
the sea" -n 4 --json
same "hash with -f and -p" "$(json_get "$out" 'j["token_hash"]')" "$both"
failure run -f "$dir/nothing" -n 1
says "$err" 'nothing: No such file'
failure run --raw -p "" -n 1
says "$err" 'prompt is empty'
failure run -p "" -n 1
says "$err" 'prompt is empty'
: >"$dir/empty"
failure run -f "$dir/empty" -n 1
says "$err" 'empty: the prompt is empty'
failure "$flashmoe" run "$dir/none.gguf" --raw -p ""
says "$err" 'prompt is empty' # before a model is loaded for it
printf 'a\0b' >"$dir/prompt"
failure run -f "$dir/prompt" -n 1
says "$err" 'NUL'
failure "$flashmoe" run "$dir/none.gguf" -f "$dir/prompt"
says "$err" 'NUL'
status 0 run --raw -f "$dir/prompt" -n 1
printf '\377\376 broken \303' >"$dir/prompt"
status 0 run -f "$dir/prompt" -n 4 --json
json_get "$out" 'len(j)' >/dev/null

head -c 3000000 /dev/zero | tr '\0' x >"$dir/prompt"
failure run -f "$dir/prompt" -n 1 --memory 5M
says "$err" 'prompt: a text of 2\.[0-9]+ MiB takes twice as much'

# Chat form and raw form are different prompts; a user's special tokens do not become control tokens.
chat_tokens() { status 0 run "$@" -n 0 --json && json_get "$out" 'j["prompt_tokens"]'; }
same "one start token" "$(chat_tokens --raw -p '<|im_start|>')" 1
plain=$(chat_tokens -p 'x')
special=$(chat_tokens -p 'x<|im_end|>')
[ "$special" -gt $((plain + 1)) ] || fail "<|im_end|> in user text became a control token"

# A system message and a whole request give the ids that the template's text has as raw text.
say_raw() { "$flashmoe" template "$m" --request "$1" >"$dir/raw" && status 0 run --raw -f "$dir/raw" -n 4 --json && json_get "$out" 'j["token_hash"]'; }
hash_of() { status 0 run "$@" -n 4 --json && json_get "$out" 'j["token_hash"]'; }
printf '{"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a \\"b\\""}], "add_generation_prompt": true}' >"$dir/r.json"
want=$(say_raw "$dir/r.json")
same "--system" "$(hash_of --system 'be brief' -p 'a "b"')" "$want"
same "--request" "$(hash_of --request "$dir/r.json")" "$want"
sed 's/, "add_generation_prompt": true//' "$dir/r.json" >"$dir/r2.json"
same "--request without add_generation_prompt" "$(hash_of --request "$dir/r2.json")" "$want"
# Variables of the chat template, and a word on those that it does not look at.
ask() { # ask WANTED-VARIABLES OPTION...
    local variables=$1
    shift
    printf '{"messages": [{"role": "user", "content": "x"}]%s}' "$variables" >"$dir/v.json"
    same "$*" "$("$flashmoe" run "$dir/vars.gguf" --memory 64M --temp 0 -n 4 -p x --json "$@" 2>"$dir/e" | python3 -c 'import json,sys; j=json.load(sys.stdin); print(j["prompt_tokens"], j["token_hash"])')" \
        "$("$flashmoe" run "$dir/vars.gguf" --memory 64M --temp 0 -n 4 --request "$dir/v.json" --json 2>/dev/null | python3 -c 'import json,sys; j=json.load(sys.stdin); print(j["prompt_tokens"], j["token_hash"])')"
}
python3 - "$m" "$dir/vars.gguf" <<'PY'
# The model's chat template, padded to its length: one that writes down its variables.
import struct, sys
data = open(sys.argv[1], "rb").read()
key = b"tokenizer.chat_template"
at = data.index(key) + len(key) + 4
(n,) = struct.unpack_from("<Q", data, at)
new = b"{{ messages[0].content }}|{{ enable_thinking }}|{{ a }}|{{ b }}|{{ c }}|{{ a is string }}{{ b is string }}{{ c is string }}"
assert len(new) <= n, (len(new), n)
new += b"{#" + b" " * (n - len(new) - 4) + b"#}"
open(sys.argv[2], "wb").write(data[: at + 8] + new + data[at + 8 + n :])
PY
ask ''
ask ', "enable_thinking": true' --think on
says_not "$dir/e" 'has no effect'
ask ', "enable_thinking": false' --think off
ask ', "a": 7, "b": true, "c": "seven"' --set a=7 --set b=true --set c=seven
ask ', "a": -12, "b": null, "c": "1.5"' --set a=-12 --set b=null --set c=1.5
ask ', "a": "x=y \"z\"", "b": ""' --set 'a=x=y "z"' --set b=
ask '' --set nobody=1
says "$dir/e" 'warning: --set nobody has no effect'
sed 's/enable_thinking/enable_thinkinx/g' "$dir/vars.gguf" >"$dir/deaf.gguf"
status 0 "$flashmoe" run "$dir/deaf.gguf" --memory 64M -p x -n 1 -q --think off
says "$err" 'warning: --think off has no effect'
echo '[1]' >"$dir/r.json"
failure run --request "$dir/r.json" -n 1
says "$err" 'r.json: is an array, expected a JSON object with messages'
echo '{"messages": ' >"$dir/r.json"
failure run --request "$dir/r.json" -n 1
says "$err" 'r.json: line 2'

# A stop string ends the answer before itself, wherever the pieces of text break.
full=$(cat "$dir/text")
stop=$(printf '%s' "$full" | LC_ALL=C tr -cd 'a-zA-Z0-9 ' | head -c 3 | tail -c 1)
status 0 run -p "the man and the sea" -n 24 -q --stop "$stop"
same "text before the stop string" "$(cat "$out")" "${full%%"$stop"*}"
status 0 run -p "the man and the sea" -n 24 -q --stop "never in the text" --stop "$stop"
same "second stop string" "$(cat "$out")" "${full%%"$stop"*}"
status 0 run -p "the man and the sea" -n 24 -q --stop "$full and not more"
same "held text is released" "$(cat "$out")" "$full"

# Sampling: the same seed repeats, other seeds differ, no seed differs.
sampled() { run -p hello -n 24 --json --temp 1.5 "$@" 2>/dev/null | python3 -c 'import json,sys; print(json.load(sys.stdin)["token_hash"])'; }
same "same seed" "$(sampled --seed 5)" "$(sampled --seed 5)"
[ "$(sampled --seed 5)" != "$(sampled --seed 6)" ] || fail "two seeds, one text"
[ "$(sampled)" != "$(sampled)" ] || fail "without a seed the text repeats"

# The context: the prompt must fit, and a full one ends the answer.
long=$(printf 'the man and the sea %.0s' $(seq 300))
status 0 run --raw -p "$long" -n 1 --json
[ "$(json_get "$out" 'j["prompt_tokens"]')" -gt 1024 ] || fail "the long prompt is none"
status 0 run --raw -p "ab" -n 3000 --memory 24M --stop "$text3" --json # "at most": what fits
status 0 run --raw -p "$long" -n 1 --memory 24M --json # the default context of such a budget would be shorter
failure run -p "a prompt that is longer than eight tokens of context can hold" --ctx 8 -n 1
says "$err" '(context|--ctx)'
status 0 run --raw -p "ab" --ctx 16 --json
tokens=$(json_get "$out" 'j["prompt_tokens"] + j["generated_tokens"]')
[ "$tokens" -le 17 ] || fail "$tokens tokens in a context of 16"

# Options that change the output say so once, others are silent about it.
status 0 run -p x -n 2 -q --experts 2
same "warnings" "$(grep -c 'warning: --experts 2 changes the output' "$err")" 1
status 0 run -p x -n 2 -q --experts 3
[ -s "$err" ] && fail "warned about the trained number of experts"
failure run -p x -n 2 --experts 999
for io in uring pread mmap; do
    status 0 run -p "the man and the sea" -n 24 --json --io $io
    same "hash with --io $io" "$(json_get "$out" 'j["token_hash"]')" "$hash"
done
status 0 run -p x -n 2 --kernels generic
status 0 run -p x -n 2 --kernels reference
status 0 run -p x -n 2 --kv f32
finish
