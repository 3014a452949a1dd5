#!/bin/bash
# The eval command: perplexity and divergence of the bundled model as transformers has them, the same in
# every budget; reference logits that do not fit are refused. Origin of the expected values:
# tests/vectors/eval/README.md.
. tests/cli/lib.sh
m=model/flashmoe-tale.gguf
vectors=tests/vectors/eval
text=$vectors/text.txt
eval_() { "$flashmoe" eval "$m" --text "$text" --special --ctx 256 "$@"; }

# close WHAT FOUND-FILE FIELD EXPECTED-EXPRESSION TOLERANCE (relative)
close() {
    n_checked=$((n_checked + 1))
    python3 - "$@" "$vectors/expected.json" <<'PY' || fail "$1"
import json, sys
what, found, field, expected, tolerance, path = sys.argv[1:]
a = json.load(open(found))[field]
b = eval(expected, {"j": json.load(open(path))})
ok = abs(a - b) <= float(tolerance) * abs(b)
if not ok:
    print("%s: %s is %r, expected %r" % (what, field, a, b))
sys.exit(not ok)
PY
}

# Logits within 1e-3 of their largest move a mean of -ln p by far less than 1e-3 of the perplexity.
status 0 eval_ --json --save-logits "$dir/ref"
cp "$out" "$dir/halves"
for field in text_tokens; do same "$field" "$(json_get "$out" "j['$field']")" 3358; done
close "halves" "$out" scored_tokens 'j["halves"]["scored_tokens"]' 0
close "halves" "$out" windows 'j["halves"]["windows"]' 0
close "halves" "$out" perplexity 'j["halves"]["perplexity"]' 1e-3
close "halves" "$out" perplexity_error 'j["halves"]["perplexity_error"]' 1e-3
says "$err" 'ref will take 19\.4 MiB: 1,651 rows of 3072 logits'
same "size of the reference" "$(stat -c %s "$dir/ref")" $((256 + 4 * 13 * 256 + 8 + 13 * (127 * 3072 * 4 + 8)))

status 0 eval_ --json --stride 100 --max-tokens 1500
for field in scored_tokens windows; do close "stride" "$out" $field "j['stride_100_of_1500']['$field']" 0; done
close "stride" "$out" perplexity 'j["stride_100_of_1500"]["perplexity"]' 1e-3

# Fewer experts: the divergence from the reference. Its mean hangs on a few tokens that are near a tie.
status 0 eval_ --json --against "$dir/ref" --experts 2
close "2 experts" "$out" perplexity 'j["experts_2"]["perplexity"]' 1e-3
for field in kl_mean kl_error kl_p99 kl_max; do
    close "2 experts" "$out" $field "j['experts_2_against_4']['$field']" 1e-2
done
close "2 experts" "$out" same_top 'j["experts_2_against_4"]["same_top"]' 2e-3
same "same model" "$(json_get "$out" 'j["reference"]["same_model"], j["reference"]["experts_used"], j["experts_used"]')" "(1, 4, 2)"
says "$err" '--experts 2 changes the output'

# Activations of 8 bits: what they cost, the same everywhere, and less than three experts of four.
status 0 eval_ --json --activations int8 --save-logits "$dir/int8"
status 0 eval_ --json --against "$dir/ref" --activations int8
says "$err" 'warning: --activations int8 changes the output'
same "int8" "$(json_get "$out" 'j["activations"], j["reference"]["activations"], 1e-5 < j["kl_mean"] < 1.5e-3, j["same_top"] > 0.99')" \
    "('int8', 'full', True, True)"
status 0 eval_ --json --against "$dir/int8" --activations int8 --memory 24M --threads 3 --max-tokens 800
same "int8 elsewhere" "$(json_get "$out" 'j["reference"]["activations"], j["kl_max"], j["same_top"]')" "('int8', 0, 1)"
failure eval_ --activations int8 --kernels reference
says "$err" 'activations of 8 bits: kernels "reference" do not round'

# Placement, threads and the length of passes show in nothing: the reference is met exactly.
for option in "--memory 24M --io pread" "--threads 3 --batch 64"; do
    # shellcheck disable=SC2086
    status 0 eval_ --json --max-tokens 800 --against "$dir/ref" $option
    same "$option" "$(json_get "$out" 'j["windows"], j["kl_max"], j["same_top"]')" "(3, 0, 1)"
done
# A shorter text against the same reference; the table for people.
status 0 eval_ --against "$dir/ref" --max-tokens 1000 -q
[ -s "$err" ] && fail "--quiet is not: $(cat "$err")"
says "$out" '^perplexity      1\.[0-9]+ \+- '
says "$out" '^scored          381 tokens: 3 windows of 256, from number 129 on$'
says "$out" '^KL divergence   0 \+- 0, median 0, 99 % 0, largest 0$'
says "$out" '^same top token  100.000 \+- 0.000 %$'
says "$out" '^reference       flashmoe-tale \(qwen35moe, 4 experts per token, activations full\), the same model$'

# From standard input, with the control tokens as plain text: another text.
"$flashmoe" eval "$m" --text - --ctx 256 --max-tokens 256 --json -q <"$text" >"$out" 2>"$err" || fail "--text -: $(cat "$err")"
[ "$(json_get "$out" 'j["text_tokens"]')" -gt 3358 ] || fail "without --special the markers are one token each"
# Importance sums.
status 0 eval_ -q --max-tokens 300 --collect-importance "$dir/sums.gguf"
[ -s "$dir/sums.gguf" ] || fail "no importance sums"
says <(strings "$dir/sums.gguf" | head -40) 'blk\.0\.attn_qkv\.weight\.in_sum2'

# A reference that does not fit is refused by name.
failure eval_ --against "$text"
says "$err" "$text: no file of reference logits: its magic is .*, expected 46 4d 4c 4f 47 49 54 53 ..FMLOGITS"
failure eval_ --against "$dir/ref" --ctx 128
says "$err" 'has windows of 256 tokens, here they have 128 \(--ctx\)'
failure eval_ --against "$dir/ref" --stride 64
says "$err" 'a window every 256 tokens, scored from number 129 on; here it is every 64'
{ head -c 700 "$text"; printf 'x'; tail -c +701 "$text"; } >"$dir/other.txt"
failure "$flashmoe" eval "$m" --text "$dir/other.txt" --special --ctx 256 --against "$dir/ref"
says "$err" 'made from other tokens: number [0-9]+ is [0-9]+ ".*" there and [0-9]+ ".*" here'
cat "$text" "$text" >"$dir/long.txt"
failure "$flashmoe" eval "$m" --text "$dir/long.txt" --special --ctx 256 --against "$dir/ref"
says "$err" 'has 13 windows, the text gives 26 \(--max-tokens 3328 uses as many\)'
head -c 1000000 "$dir/ref" >"$dir/short"
failure eval_ --against "$dir/short"
says "$err" 'was it cut off'
python3 - "$dir/ref" "$dir/vocab" <<'PY'
import struct, sys
b = bytearray(open(sys.argv[1], "rb").read())
b[12:16] = struct.pack("<I", 3071)
open(sys.argv[2], "wb").write(b)
PY
failure eval_ --against "$dir/vocab"
says "$err" 'its header promises'

# Texts and paths that cannot serve.
printf 'short' >"$dir/short.txt"
failure "$flashmoe" eval "$m" --text "$dir/short.txt"
says "$err" 'short.txt: [0-9]+ tokens, a window takes 512 \(--ctx makes it shorter\)'
failure eval_ --max-tokens 100
says "$err" '100 tokens are to be used, a window takes 256'
failure "$flashmoe" eval "$m" --text "$dir/absent"
failure eval_ --ctx 4096
says "$err" 'trained for 2048'
failure eval_ --save-logits "$dir/no/such/folder"
failure eval_ --collect-importance "$dir/no/such/folder"
[ -e "$dir/no" ] && fail "made a folder"
# Before the model is even looked for: a large one takes a while to load.
for option in --save-logits --collect-importance; do
    failure "$flashmoe" eval "$dir/none.gguf" --text "$text" $option "$dir/no/such/folder"
    says "$err" 'no/such/folder: No such file'
    failure "$flashmoe" eval "$dir/none.gguf" --text "$text" $option "$dir"
    says "$err" 'Is a directory'
done
failure "$flashmoe" eval "$dir/none.gguf" --text "$text" --against "$text"
says "$err" 'no file of reference logits'
usage_error "$flashmoe" eval "$m"
usage_error eval_ --save-logits a --against b
usage_error eval_ --stride 256
says "$err" 'expected less than the window of 256 tokens'
usage_error eval_ --ctx 3

# Another vocabulary.
make_model qwen35moe-a "$dir/tiny.gguf"
failure "$flashmoe" eval "$dir/tiny.gguf" --text "$text" --ctx 256 --against "$dir/ref"

# Ctrl-C: status 130, what was found so far, no half-written file.
FM_FAULT=read:slow:us=20000 "$faulty" eval "$m" --text "$text" --special --ctx 256 --memory 24M --save-logits "$dir/part" \
    >"$out" 2>"$err" &
pid=$!
for _ in $(seq 300); do
    grep -q '^evaluated' "$err" && break
    sleep 0.1
done
kill -INT $pid
wait $pid
same "status after Ctrl-C" $? 130
[ -s "$out" ] && fail "figures of an evaluation that was stopped"
says "$err" 'interrupted'
[ -z "$(ls "$dir" | grep '^part')" ] || fail "left behind: $(ls "$dir" | grep '^part')"
# The text's tokens have a line of the plan, and a text that is far larger than what is used of it costs no more.
python3 -c 'import sys; t=open(sys.argv[1]).read(); open(sys.argv[2],"w").write(t*(1+3000000//len(t)))' $text "$dir/long"
status 0 "$flashmoe" eval "$m" --text "$dir/long" --special --ctx 64 --max-tokens 640 --memory 26M --json
same "peak memory" "$(json_get "$out" 'j["peak_rss_bytes"] <= j["memory_budget_bytes"] == 26 << 20 or j["peak_rss_bytes"]')" True
failure "$flashmoe" eval "$m" --text "$dir/long" --ctx 64 --max-tokens 640 --memory 5M
says "$err" 'long: a text of 2\.[0-9]+ MiB takes twice as much .* the budget is 5\.00 MiB'
finish
