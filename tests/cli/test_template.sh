#!/bin/bash
# Requests rendered with templates from files and models.
. tests/cli/lib.sh
t=$dir/t.jinja
r=$dir/r.json
printf '<s>{%% for m in messages %%}{{ m.role }}: {{ m.content }}\n{%% endfor %%}{{ tools }}{{ add_generation_prompt }}' >"$t"
printf '{"messages": [{"role": "user", "content": "Zoë <s>"}], "add_generation_prompt": true}' >"$r"

status 0 "$flashmoe" template --file "$t" --request "$r"
printf '<s>user: Zoë <s>\nNoneTrue' >"$dir/want"
cmp -s "$out" "$dir/want" || fail "another text: $(cat "$out")"
[ -s "$err" ] && fail "wrote to standard error"
"$flashmoe" template --file "$t" --request - <"$r" | cmp -s - "$dir/want" || fail "not from standard input"

printf '{{ strftime_now("%%Y-%%m-%%d %%H:%%M") }} {{ 1.0 }} {{ n }} {{ f }}' >"$t"
printf '{"n": 3, "f": 3.0}' >"$r"
same "clock" "$(TZ=UTC "$flashmoe" template --file "$t" --request "$r" --now 1700000000)" "2023-11-14 22:13 1.0 3 3.0"

# A template that raises gives its message.
printf 'a\n{{ raise_exception("roles must alternate: é") }}' >"$t"
failure "$flashmoe" template --file "$t" --request "$r"
says "$err" 'line 2: roles must alternate: é$'
[ -s "$out" ] && fail "a failed rendering wrote to standard output"
printf 'a\n{%% if %%}' >"$t"
failure "$flashmoe" template --file "$t" --request "$r"
says "$err" 't.jinja, line 2: '
printf '{%% for a in range(99999) %%}{%% for a in range(99999) %%}{%% endfor %%}{%% endfor %%}' >"$t"
failure "$flashmoe" template --file "$t" --request "$r"
says "$err" 'steps'
printf 'x' >"$t"
printf '{"a": 1,}' >"$r"
failure "$flashmoe" template --file "$t" --request "$r"
says "$err" 'line 1, column'
printf '[1]' >"$r"
failure "$flashmoe" template --file "$t" --request "$r"
says "$err" 'expected a JSON object'
failure "$flashmoe" template --file "$dir/none" --request "$r"
failure "$flashmoe" template --file "$t" --request "$dir/none"

# The model's own template.
m=model/flashmoe-tale.gguf
printf '{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true}' >"$r"
printf '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n' >"$dir/want"
status 0 "$flashmoe" template "$m" --request "$r"
cmp -s "$out" "$dir/want" || fail "the model's template: $(cat "$out")"
usage_error "$flashmoe" template --file "$t"
usage_error "$flashmoe" template --request "$r"
usage_error "$flashmoe" template "$m" --file "$t" --request "$r"
usage_error "$flashmoe" template --file "$t" --request "$r" --now soon
finish
