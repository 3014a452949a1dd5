"""Small templates, one per corner of the language; all are rendered with VARIABLES."""

VARIABLES = {
    "s": "Hello World", "e": "", "n": 42, "neg": -7, "f": 2.5, "big": 9007199254740993,
    "t": True, "no": None, "l": [3, 1, 2], "words": ["b", "A", "c"], "nest": [[1, [2, 3]], []],
    "d": {"b": 1, "a": {"x": [1, None, "é"]}, "items": "own", "C": 2.0},
    "users": [{"name": "Ann", "age": 30, "tags": ["x"]}, {"name": "bob", "age": 25, "tags": []},
              {"name": "Cid", "age": 30}],
    "u": "Zoë 🦊 ñandú ß ǆ İ ΑΣ", "multi": "a\nb\n\nc\n", "html": "<a href=\"x\">'&'</a>",
    "ws": " \t\n x y \u00a0\n",
}

# Groups of templates, separated by a line of dashes.
TEXT = r'''
plain text
----
{{ s }}
----
a{{ n }}b{{ f }}c{{ t }}d{{ no }}e{{ missing }}f
----
{{ l }} {{ d }} {{ nest }} {{ users[0] }}
----
{{ big }} {{ big + 1 }} {{ 10 // 3 }} {{ -10 // 3 }} {{ -10 % 3 }} {{ 10 % -3 }} {{ 7 / 2 }}
----
{{ 7.5 // 2 }} {{ -7.5 // 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2.0 ** 3 }} {{ 2 ** 3 ** 2 }}
----
{{ 1.0 }} {{ 0.1 }} {{ 1e16 }} {{ 1e15 }} {{ 123456789.125 }} {{ 1e-4 }} {{ 1e-5 }} {{ 1.5e300 }} {{ 0.1 + 0.2 }} {{ 1e22 }}
----
{{ 1 / 0 }}
----
{{ 1 // 0 }}
----
{{ 1 % 0 }}
----
{{ 1.0 / 0 }}
----
{{ 1 + 2 * 3 - 4 / 2 }} {{ (1 + 2) * 3 }} {{ -2 ** 2 }} {{ - n }} {{ + n }} {{ -f }}
----
{{ "a" + "b" }} {{ "a" ~ 1 ~ none ~ missing ~ [1] }} {{ "ab" * 3 }} {{ 2 * [1] }} {{ [1] + [2] }} {{ (1,) + (2, 3) }}
----
{{ "a" + 1 }}
----
{{ 1 + "a" }}
----
{{ [1] + (2,) }}
----
{{ "a" - "b" }}
----
{{ none + 1 }}
----
{{ missing + 1 }}
----
{{ 1 + missing }}
----
{{ missing.x }}
----
{{ missing['x'] }}
----
{{ missing() }}
----
{{ d.nope }}|{{ d['nope'] }}|{{ l[9] }}|{{ l['x'] }}|{{ n.x }}|{{ s.x }}|{{ s[99] }}
----
{{ d.nope.deeper }}
----
{{ l[9].x }}
----
{{ no.x }}|{{ no.x is defined }}
----
{{ no.x.y }}
----
{{ d['items'] }} {{ d.items() | list }} {{ d.b }} {{ d['b'] }} {{ d.a.x[2] }} {{ d.a.x.1 }}
----
{{ l.0 }} {{ l[0] }} {{ l[-1] }} {{ l[true] }} {{ s[0] }} {{ s[-1] }} {{ u[4] }}
----
{{ s[1:4] }}|{{ s[:3] }}|{{ s[-3:] }}|{{ s[::2] }}|{{ s[::-1] }}|{{ s[4:1] }}|{{ s[4:1:-1] }}|{{ s[:] }}|{{ s[100:] }}|{{ s[-100:2] }}
----
{{ l[1:] }} {{ l[::-1] }} {{ l[:-1] }} {{ (1,2,3,4)[1:3] }} {{ u[4:8] }} {{ range(10)[2:5] | list }} {{ range(10)[2:5] }} {{ range(9)[::-2] }}
----
{{ l[::0] }}
----
{{ l['a':] }}
----
{{ n[1:] }}
----
{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ "1" == 1 }} {{ [1,2] == [1,2] }} {{ (1,) == [1] }} {{ {"a":1} == {"a":1.0} }}
----
{{ "a" < "b" }} {{ "a" < "B" }} {{ [1,2] < [1,3] }} {{ "é" > "z" }} {{ missing == missing }} {{ missing == none }} {{ none == none }} {{ missing != 1 }}
----
{{ 1 < "a" }}
----
{{ none < 1 }}
----
{{ missing < 1 }}
----
{{ [1] < [none] }}
----
{{ "ell" in s }} {{ "x" in s }} {{ 3 in l }} {{ "b" in d }} {{ "z" not in d }} {{ 5 in range(6) }} {{ 1 in (1, 2) }} {{ "" in "" }} {{ none in [none] }} {{ 1 in missing }}
----
{{ 1 in "a" }}
----
{{ 1 in 1 }}
----
{{ [] in d }}
----
{{ "a" in none }}
----
{{ true and false }} {{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or "x" }} {{ none or missing or "y" }} {{ not 1 }} {{ not missing }} {{ not not [] }} {{ 1 and missing }}
----
{{ "yes" if t else "no" }} {{ "yes" if no else "no" }} [{{ "x" if false }}] {{ 1 if 0 else 2 if 0 else 3 }} {{ (1 if t) + 1 }}
----
{{ ("x" if false).y }}
----
{{ True }} {{ False }} {{ None }} {{ true }} {{ none }} {{ [True, None] }}
----
{{ 'a' 'b' "c" }} {{ 'it' 's' }} {{ "q\"q" }} {{ 'n\nt\tb\\ \x41 \u00e9 \101 \q' }}
----
{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1_0.5 }} {{ 1e3 }} {{ 1.5e-3 }} {{ 00 }}
----
{{ () }} {{ (1,) }} {{ (1, 2) }} {{ 1, 2 }} {{ [] }} {{ {} }} {{ [1, 2,] }} {{ {"a": 1,} }} {{ {1: 2, none: 3, true: 4} }} {{ {(1, 2): 3}[(1, 2)] }}
----
{{ {[]: 1} }}
----
{{ ["it's", 'say "hi"', 'b"o\'th', "\n\t\\", "é\u200b\u00a0"] }}
----
{% if n == 42 %}A{% elif n %}B{% else %}C{% endif %}{% if e %}D{% endif %}{% if l and not e %}E{% endif %}
----
{% for x in l %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}
----
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}
----
{% for x in [] %}a{% else %}empty{% endfor %}{% for x in missing %}a{% else %}none{% endfor %}
----
{% for x in 5 %}{% endfor %}
----
{% for x in none %}{% endfor %}
----
{% for k in d %}{{ k }},{% endfor %}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for c in "añ🦊" %}[{{ c }}]{% endfor %}
----
{% for a, b in [(1, 2), [3, 4], "xy"] %}{{ a }}{{ b }} {% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
----
{% for a, b in [(1, 2, 3)] %}{% endfor %}
----
{% for a, b in [(1,)] %}{% endfor %}
----
{% for a, b in [1] %}{% endfor %}
----
{% for x in range(6) if x is odd %}{{ x }}:{{ loop.index }}/{{ loop.length }} {% else %}no{% endfor %}
----
{% for x in range(6) if x > 9 %}{{ x }}{% else %}no{% endfor %}
----
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
----
{% for x in [1] %}{% break %}{% else %}else after break{% endfor %}
----
{% for x in [1, 2] %}{% continue %}{% else %}else after continue{% endfor %}
----
{% break %}
----
{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
----
{% for x in [1,2] %}{% for y in "ab" %}{{ loop.index }}{{ y }}{% endfor %}{{ loop.index }}{% endfor %}
----
{% for x in [1,[2,[3]],4] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}
----
{% for x in [1] %}{{ loop([2]) }}{% endfor %}
----
{% for x in l %}{{ loop.cycle("a", "b") }}{{ loop.changed(x > 1) }} {% endfor %}
----
{% for x in l %}{{ loop }}{% endfor %}
----
{% for x in l %}{{ loop.cycle() }}{% endfor %}
----
{% set x = 1 %}{% for i in [1,2] %}{{ x }}{% set x = x + 10 %}{{ x }} {% endfor %}{{ x }}
----
{% for i in [1,2] %}{% if i == 1 %}{% set y = "set" %}{% endif %}[{{ y }}]{% endfor %}[{{ y }}]
----
{% if t %}{% set y = 5 %}{% endif %}{{ y }}{% if no %}{% set z = 5 %}{% endif %}[{{ z }}]
----
{% if no %}{% set s = "changed" %}{% endif %}{{ s }}
----
{% if t %}{% set s = "changed" %}{% else %}{% set s = "other" %}{% endif %}{{ s }}
----
{% for i in [1] %}{{ s }}{% set s = "in" %}{{ s }}{% endfor %}{{ s }}
----
{% macro m() %}[{{ s }}]{% endmacro %}{{ m() }}{% set s = 3 %}{{ m() }}
----
{% macro m() %}[{{ q }}]{% endmacro %}{{ m() }}{% set q = 3 %}{{ m() }}
----
{% set x = s %}{% set s = "new" %}{{ x }}{{ s }}
----
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = b, a %}{{ a }}{{ b }}{% set (c, d2), e2 = (1, 2), 3 %}{{ c }}{{ d2 }}{{ e2 }}
----
{% set a, b = [1] %}
----
{% set a, b = 5 %}
----
{% set x %}block {{ n }}{% endset %}[{{ x }}]{% set y | upper | replace("O", "0") %}foo{{ n }}{% endset %}[{{ y }}]
----
{% set ns = namespace(a=1, b="x") %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}
----
{% set ns = namespace({"k": 1}, z=2) %}{{ ns.k }}{{ ns.z }}{{ ns['k'] }}
----
{% set ns = namespace() %}{% set ns._x = 1 %}
----
{{ namespace(_x=1) }}
----
{% set d.x = 1 %}
----
{% set missing.x = 1 %}
----
{% set ns = namespace(l=[]) %}{% set _ = ns.l.append(1) %}{{ ns.l }}
----
{{ d.update({"x": 1}) }}
----
{{ d.pop("b") }}
----
{{ l.sort() }}
----
{{ l.append is defined }}
----
{{ s.__class__ }}
----
{{ s.__class__.__mro__ }}
----
{{ ''.__class__ is defined }} {{ d._private is defined }} {{ d.__len__ is defined }}
----
{% macro hi(name, greet="Hi", n=n) %}{{ greet }} {{ name }}{{ n }}{% endmacro %}{{ hi("A") }}|{{ hi("B", "Yo") }}|{{ hi(greet="Oy", name="C", n=1) }}|{{ hi() }}
----
{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}
----
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}{{ m() }}
----
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
----
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}
----
{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}
----
{% macro m(a) %}{% if a > 0 %}{{ a }}{{ m(a - 1) }}{% endif %}{% endmacro %}{{ m(5) }}
----
{% macro m() %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs is defined }}{% endmacro %}{{ m }}{{ m() }}
----
{% macro box(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call box("b") %}inner {{ n }}{% endcall %}
----
{% macro each(xs) %}{% for x in xs %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(v, i=0) each(l) %}[{{ v }}{{ i }}]{% endcall %}
----
{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}
----
{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}
----
{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}
----
{% call s %}x{% endcall %}
----
{% macro m(a, a) %}{% endmacro %}
----
{% macro m(a=1, b) %}{% endmacro %}
----
{% filter upper %}abc {{ s }}{% endfilter %}{% filter replace("a", "b") | trim %} aaa {% endfilter %}
----
{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}
----
{% with a = 1, b = a %}{{ b }}{% endwith %}
----
{% raw %}{{ not }} {% this %}{% endraw %}
----
a {%- raw -%} {{ x }} {%- endraw -%} b
----
{# comment #}x{#- trim -#} y {# multi
line #} z
----
{% generation %}gen {{ n }}{% set q = 1 %}{% endgeneration %}[{{ q }}]
----
{% print n, s %}
----
{% include "x" %}
----
{% extends "x" %}
----
{% unknown %}
----
{% if %}x{% endif %}
----
{% if x %}
----
{% for x in l %}{% endif %}{% endfor %}
----
{{ }}
----
{{ 1 + }}
----
{{ (1 }}
----
{{ 1 ) }}
----
{{ [1) }}
----
{{ "abc }}
----
{{ a b }}
----
{{ x.1y }}
----
{{ 1 $ 2 }}
----
{% set 1 = 2 %}
----
{% set none = 2 %}
----
{% set a.b.c = 2 %}
----
{# never closed
----
{% raw %} never closed
----
{{ s | nofilter }}
----
{{ s is notest }}
----
{% if no %}{{ s | nofilter }}{% endif %}ok
----
{% if t %}{{ s | nofilter }}{% endif %}
----
{{ (s | nofilter) if no else "ok" }}
----
{{ foo(a=1, a=2) }}
----
{{ foo(a=1, 2) }}
----
{{ dict(**{"a": 1}) }}{{ dict(a=1, **{"b": 2}) }}{{ dict([("x", 1)], y=2) }}{{ dict({"q": 1}) }}{{ dict() }}
----
{{ range(*[1, 4]) | list }}{{ range(5, 0, -2) | list }}{{ range(3) }}{{ range(0) | list }}{{ range(1, 9, 3) }}
----
{{ range(100001) }}
----
{{ range(1, 2, 0) }}
----
{{ range("a") }}
----
{{ range(1.5) }}
----
{{ raise_exception("stop here: é") }}
----
{{ raise_exception(n) }}
----
{{ strftime_now("%Y-%m-%d %H:%M:%S %d %B %b %A %a %j %y %% %Z%z|%p %I") }}
----
{{ cycler("a", "b").next() }}{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.next() }}
----
{% set j = joiner("; ") %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}
----
{{ n() }}
----
{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ s.capitalize() }} {{ s.swapcase() }} {{ s.casefold() }}
----
{{ u.upper() }} {{ u.lower() }} {{ u.title() }} {{ u.casefold() }} {{ u.swapcase() }} {{ u.capitalize() }} {{ u | length }}
----
{{ u | upper }} {{ u | lower }} {{ u | title }} {{ u | capitalize }} {{ "it's a (nice) day-trip" | title }} {{ "ǆx ßa" | title }}
----
[{{ ws.strip() }}][{{ ws.lstrip() }}][{{ ws.rstrip() }}][{{ "xxhixx".strip("x") }}][{{ "abcba".lstrip("ab") }}][{{ "éaé".strip("é") }}][{{ ws | trim }}][{{ "..a.." | trim(".") }}][{{ n | trim }}]
----
{{ "a,b,,c".split(",") }}{{ "a,b,c".split(",", 1) }}{{ " a  b ".split() }}{{ "a b c".split(none, 1) }}{{ "a,b,c".rsplit(",", 1) }}{{ " a b  c ".rsplit(maxsplit=1) }}{{ "".split() }}{{ "".split(",") }}
----
{{ "a".split("") }}
----
{{ "</think>x</think>y".split("</think>")[-1] }}{{ "a=b=c".partition("=") }}{{ "a=b=c".rpartition("=") }}{{ "a".partition("=") }}{{ "a".rpartition("=") }}
----
{{ multi.splitlines() }}{{ "a\r\nb\x0bc\u2028d".splitlines(true) }}{{ "".splitlines() }}
----
{{ s.startswith("He") }}{{ s.endswith("ld") }}{{ s.startswith(("x", "He")) }}{{ s.startswith("l", 2) }}{{ s.endswith("o", 0, 5) }}{{ s.startswith("") }}{{ "".startswith("a") }}
----
{{ s.startswith(1) }}
----
{{ s.startswith(none) }}
----
{{ s.find("o") }}{{ s.find("o", 5) }}{{ s.rfind("o") }}{{ s.find("z") }}{{ s.index("W") }}{{ u.find("ñ") }}{{ s.count("l") }}{{ s.count("") }}{{ "aaa".count("aa") }}{{ s.find("") }}{{ s.rfind("") }}{{ s.find("l", -3) }}
----
{{ s.index("zz") }}
----
{{ s.replace("l", "L") }}{{ s.replace("l", "L", 1) }}{{ "abc".replace("", "-") }}{{ "abc".replace("", "-", 2) }}{{ s.replace("o", "") }}{{ "aa" | replace("a", "b", 1) }}{{ n | replace(4, 5) }}
----
{{ s.replace("a") }}
----
{{ s.replace(1, 2) }}
----
{{ "-".join(["a", "b"]) }}{{ "".join("abc") }}{{ ",".join({"x": 1, "y": 2}) }}
----
{{ "-".join([1, 2]) }}
----
{{ "-".join(5) }}
----
[{{ "ab".center(7) }}][{{ "ab".center(6, "*") }}][{{ "abc".center(6) }}][{{ "ab".ljust(5, ".") }}][{{ "ab".rjust(5) }}][{{ "42".zfill(5) }}][{{ "-42".zfill(6) }}][{{ "x" | center(5) }}][{{ "a\tb".expandtabs(4) }}]
----
{{ "ab".center(5, "xy") }}
----
{{ "abc".isalpha() }}{{ "a1".isalnum() }}{{ "12".isdigit() }}{{ "²".isdigit() }}{{ "½".isnumeric() }}{{ "٣".isdecimal() }}{{ " ".isspace() }}{{ "".isspace() }}{{ "Ab Cd".istitle() }}{{ "AB1".isupper() }}{{ "ab".islower() }}{{ "é".isascii() }}{{ "a_1".isidentifier() }}{{ "1a".isidentifier() }}{{ "a\n".isprintable() }}{{ "".isascii() }}
----
{{ "prefix-x".removeprefix("prefix-") }}{{ "x.txt".removesuffix(".txt") }}{{ "x".removeprefix("y") }}
----
{{ "{} {} {}".format(1, "a", none) }}{{ "{0}{1}{0}".format("x", "y") }}{{ "{a}{b.x}{c[0]}{c[1]}".format(a=1, b={"x": 2}, c=[3, 4]) }}{{ "{{}}".format() }}{{ "{!r}".format("q") }}{{ "{:>5}|{:<5}|{:^5}|{:*^7}".format("a", "b", "c", "d") }}
----
{{ "{:05d}|{:+d}|{:x}|{:#x}|{:,}|{:.2f}|{:e}|{:%}|{:g}|{:10.3f}|{:b}|{:_}".format(42, 5, 255, 255, 1234567, 3.14159, 12345.678, 0.25, 0.0001, 2.5, 5, 1234567) }}
----
{{ "{}".format() }}
----
{{ "{x}".format(y=1) }}
----
{{ "{:d}".format("a") }}
----
{{ "{".format() }}
----
{{ "%s %s" % (1, "a") }}{{ "%d%%" % 5 }}{{ "%05.1f|%-5s|%5s|%x|%X|%o|%e|%r|%c|%+d|% d|%#x" % (2.345, "a", "b", 255, 255, 8, 1234.5, "q", "z", 3, 4, 255) }}{{ "%(a)s-%(b)d" % {"a": 1, "b": 2} }}{{ "%s" % [1] }}{{ "%s" % none }}{{ "%.2s" % "abc" }}{{ "%s" % missing }}
----
{{ "%s" % (1, 2) }}
----
{{ "%s %s" % (1,) }}
----
{{ "%d" % "a" }}
----
{{ "%s" | format(1) }}{{ "%s %s" | format("a", 2) }}{{ "%(x)s" | format(x=1) }}
----
{{ d.get("b") }}{{ d.get("zz") }}{{ d.get("zz", 7) }}{{ d.keys() }}{{ d.values() | list }}{{ d.items() }}{{ d.copy() }}
----
{{ d.get() }}
----
{{ d.get("a", default=1) }}
----
{{ d.get([]) }}
----
{{ l.index(1) }}{{ l.count(3) }}{{ (1, 2).index(2) }}{{ l.copy() }}
----
{{ l.index(9) }}
----
{{ d.keys() | list }}{{ d | list }}{{ d | length }}{{ d.items() | length }}{{ "b" in d.keys() }}{{ d.keys()[0] }}
----
{{ f.is_integer() }}{{ (4.0).is_integer() }}{{ n.bit_length() }}{{ n.real }}
----
{{ -5 | abs }}{{ (-5) | abs }}{{ -2.5 | abs }}{{ true | abs }}
----
{{ "a" | abs }}
----
{{ missing | default("x") }}{{ e | default("x") }}{{ e | default("x", true) }}{{ no | d("y") }}{{ no | d("y", boolean=true) }}[{{ missing | default }}]{{ d.nope | default("z") }}
----
{{ missing.x | default("x") }}
----
{{ l | first }}{{ l | last }}{{ "abc" | first }}{{ "abc" | last }}[{{ [] | first }}][{{ [] | last }}][{{ missing | first }}]
----
{{ ([] | first).x }}
----
{{ 5 | first }}
----
{{ l | sum }}{{ [1, 2.5] | sum }}{{ users | sum(attribute="age") }}{{ l | sum(start=10) }}{{ [] | sum }}{{ [[1], [2]] | sum(start=[]) }}
----
{{ ["a"] | sum }}
----
{{ l | min }}{{ l | max }}{{ words | min }}{{ words | max }}{{ words | max(case_sensitive=true) }}{{ (users | max(attribute="age")).name }}[{{ [] | min }}]
----
{{ [1, "a"] | min }}
----
{{ l | sort }}{{ l | sort(reverse=true) }}{{ words | sort }}{{ words | sort(case_sensitive=true) }}{{ users | sort(attribute="age") | map(attribute="name") | list }}{{ users | sort(attribute="age,name") | map(attribute="name") | list }}{{ "hello" | sort }}
----
{{ [1, "a"] | sort }}
----
{{ [none, none] | sort }}
----
{{ d | dictsort }}{{ {"b": 1, "A": 2} | dictsort }}{{ {"b": 1, "A": 2} | dictsort(true) }}{{ {"b": 1, "A": 2} | dictsort(by="value") }}{{ {"b": 1, "A": 2} | dictsort(reverse=true) }}
----
{{ d | dictsort(by="x") }}
----
{{ l | dictsort }}
----
{{ l | reverse | list }}{{ "abc" | reverse }}{{ u | reverse }}{{ l | reverse | first }}
----
{{ 5 | reverse }}
----
{{ l | join }}{{ l | join(", ") }}{{ users | join("|", attribute="name") }}{{ [1, [2], none, missing] | join("-") }}{{ "abc" | join(".") }}{{ missing | join(",") }}{{ d | join(",") }}
----
{{ 5 | join }}
----
{{ l | length }}{{ s | count }}{{ missing | length }}{{ e | length }}{{ (1, 2) | length }}{{ range(5) | length }}
----
{{ 5 | length }}
----
{{ none | length }}
----
{{ (l | map("string")) | length }}
----
{{ "abc" | list }}{{ (1, 2) | list }}{{ missing | list }}{{ d.values() | list }}
----
{{ 5 | list }}
----
{{ ["a", "b"] | map("upper") | list }}{{ users | map(attribute="name") | join(",") }}{{ users | map(attribute="nope", default="-") | list }}{{ users[:2] | map(attribute="tags.0") | list }}{{ [1.7, "3"] | map("int") | list }}{{ ["x"] | map("replace", "x", "y") | list }}{{ missing | map("upper") | list }}
----
{{ l | map | list }}
----
{{ l | map("nofilter") | list }}
----
{{ [] | map("nofilter") | list }}
----
{{ l | map(attribute="x", foo=1) | list }}
----
{{ [0, 1, "", "a"] | select | list }}{{ range(6) | select("odd") | list }}{{ l | select("gt", 1) | list }}{{ [0, 1] | reject | list }}{{ range(6) | reject("divisibleby", 3) | list }}
----
{{ users | selectattr("tags") | map(attribute="name") | list }}{{ users | selectattr("age", "equalto", 30) | list | length }}{{ users | rejectattr("name", "lower") | map(attribute="name") | list }}{{ users | selectattr("nope", "defined") | list }}
----
{{ users | selectattr("nope.x", "defined") | list }}
----
{{ users | map(attribute="tags.0") | list }}
----
{{ users | selectattr | list }}
----
{{ l | select("nope") | list }}
----
{{ [1, 1, 2, "a", "A"] | unique | list }}{{ ["a", "A"] | unique(true) | list }}{{ users | unique(attribute="age") | map(attribute="name") | list }}
----
{{ [[1]] | unique | list }}
----
{% for g, us in users | groupby("age") %}{{ g }}:{% for x in us %}{{ x.name }}{% endfor %};{% endfor %}{% for g in users | groupby("age") %}{{ g.grouper }}{{ g.list | length }}{% endfor %}{{ [{"c": "x"}, {"c": "X"}, {}] | groupby("c", default="y") | map("first") | list }}
----
{{ range(7) | batch(3) | list }}{{ range(7) | batch(3, "-") | list }}{{ range(7) | slice(3) | list }}{{ range(7) | slice(3, "-") | list }}
----
{{ l | slice(0) | list }}
----
{{ l | attr("count") is defined }}{{ d | attr("b") is defined }}{{ d | attr("get") is defined }}{{ namespace(x=5) | attr("x") }}
----
{{ d | items | list }}{{ missing | items | list }}
----
{{ l | items | list }}
----
{{ "3" | int }}{{ "3.9" | int }}{{ "x" | int }}{{ "x" | int(7) }}{{ "ff" | int(base=16) }}{{ "0x1A" | int(0, 16) }}{{ "0b11" | int(base=2) }}{{ 3.99 | int }}{{ -3.99 | int }}{{ none | int }}{{ true | int }}{{ " 5 " | int }}{{ "1_000" | int }}{{ [] | int(9) }}{{ "" | int }}{{ "1e3" | int }}
----
{{ missing | int }}
----
{{ "3" | float }}{{ "x" | float }}{{ "1e5" | float }}{{ 3 | float }}{{ none | float(1.5) }}{{ " 2.5 " | float }}{{ "inf" | float }}{{ "-.5" | float }}{{ "1_0.5" | float }}{{ "nan" | float }}
----
{{ 2.5 | round }}{{ 3.5 | round }}{{ 2.567 | round(2) }}{{ 2.1 | round(0, "ceil") }}{{ 2.9 | round(method="floor") }}{{ 42 | round }}{{ 1234.5 | round(-2) }}{{ 42.55 | round(1, "floor") }}{{ 1250 | round(-2) }}{{ -2.5 | round }}{{ 0.5 | round | int }}
----
{{ "a" | round }}
----
{{ 2.5 | round(1, "up") }}
----
{{ 1 | filesizeformat }} {{ 999 | filesizeformat }} {{ 1000 | filesizeformat }} {{ 1536 | filesizeformat(true) }} {{ 123456789 | filesizeformat }} {{ "2000" | filesizeformat }}
----
{{ s | string }}{{ n | string + "x" }}{{ l | string }}{{ missing | string }}
----
{{ multi | indent }}|{{ multi | indent(2, true) }}|{{ multi | indent("> ", blank=true) }}|{{ "a" | indent }}|{{ "" | indent(first=true) }}
----
{{ missing | indent }}
----
{{ n | indent }}
----
{{ "foo bar baz qux" | truncate(9) }}|{{ "foo bar baz qux" | truncate(9, true) }}|{{ "foo bar baz qux" | truncate(11) }}|{{ "foo bar baz qux" | truncate(11, false, "…", 0) }}|{{ "abcdefghijklmnop" | truncate(5, leeway=0) }}
----
{{ "abc" | truncate(1) }}
----
{{ "one two,three_x  é1" | wordcount }}{{ "" | wordcount }}
----
{{ html | escape }}{{ html | e | e }}{{ html | forceescape }}{{ (html | e) | forceescape }}{{ html | safe }}{{ (html | safe) + "<" }}{{ "<" + (html | safe) }}{{ ("<" | safe) ~ "<" }}{{ ("<" | e) is escaped }}{{ n | e }}
----
{{ "a b/c?d=é&" | urlencode }}{{ {"a b": "c/d", "e": 1} | urlencode }}{{ [("x", "y z")] | urlencode }}{{ n | urlencode }}
----
{{ {"a": 1, "b": none, "c": "<"} | xmlattr }}{{ {"a": 1} | xmlattr(false) }}
----
{{ {"a b": 1} | xmlattr }}
----
{{ d | tojson }}
----
{{ d | tojson(indent=2) }}
----
{{ {"a": [], "b": {}, "c": [1, [2]]} | tojson(indent=4) }}{{ [1, {"a": 2}] | tojson(indent="\t") }}{{ [1] | tojson(indent=0) }}
----
{{ u | tojson }}{{ u | tojson(ensure_ascii=true) }}{{ html | tojson }}{{ "\u007f\u0001\b\f\n\r\t\"\\/" | tojson }}
----
{{ {"b": 1, "a": 2} | tojson(sort_keys=true) }}{{ {"b": 1, "a": [1, 2]} | tojson(separators=(",", ":")) }}{{ {"b": 1} | tojson(separators=(",", ":"), indent=1) }}
----
{{ [1, 1.0, 1e20, 1e-7, true, none, (1, 2), big, -0.0] | tojson }}{{ {1: 1, none: 2, true: 3, 1.5: 4} | tojson }}
----
{{ missing | tojson }}
----
{{ [missing] | tojson }}
----
{{ {(1, 2): 3} | tojson }}
----
{{ range(3) | tojson }}
----
{{ (l | map("string")) | tojson }}
----
{{ d | tojson(bogus=1) }}
----
{{ s is defined }}{{ missing is defined }}{{ missing is undefined }}{{ no is none }}{{ n is none }}{{ d.nope is defined }}{{ s is not none }}
----
{{ s is string }}{{ n is string }}{{ n is number }}{{ t is number }}{{ n is integer }}{{ t is integer }}{{ f is float }}{{ t is boolean }}{{ n is boolean }}{{ t is true }}{{ t is false }}{{ 1 is true }}
----
{{ d is mapping }}{{ l is mapping }}{{ l is sequence }}{{ s is sequence }}{{ d is sequence }}{{ n is sequence }}{{ l is iterable }}{{ n is iterable }}{{ s is iterable }}{{ missing is iterable }}{{ missing is sequence }}{{ missing is mapping }}{{ range(2) is sequence }}
----
{{ n is odd }}{{ n is even }}{{ n is divisibleby 7 }}{{ n is divisibleby(5) }}{{ n is gt 3 }}{{ n is eq 42 }}{{ n is equalto 42.0 }}{{ n is ne 1 }}{{ n is lt 1 }}{{ n is ge 42 }}{{ n is le(41) }}{{ n is in [42] }}{{ "a" is in "abc" }}{{ n is greaterthan 1 }}{{ n is lessthan 1 }}
----
{{ "a" is odd }}
----
{{ missing is odd }}
----
{{ "abc" is lower }}{{ "ABC" is upper }}{{ "Abc" is lower }}{{ 5 is lower }}{{ none is sameas none }}{{ t is sameas true }}{{ 1 is sameas true }}{{ l is sameas l }}{{ "upper" is filter }}{{ "nope" is filter }}{{ "odd" is test }}{{ range is callable }}{{ s is callable }}{{ s.upper is callable }}{{ missing is callable }}
----
{{ s is defined and s is string and not n is string }}{{ n is not odd }}{{ not n is odd }}{{ 1 if n is defined else 2 }}{{ n is defined == true }}
----
{{ n is odd is even }}
----
{{ s is string | upper }}
----
{{ s | upper | lower | replace("h", "j") | length }}{{ (s | upper)[0] }}{{ s | upper ~ "x" }}{{ -n | abs }}
----
{{ 1 + 2 | string }}
----
{{ "a" if s | length > 3 else "b" }}
----
  {% if t %}
  indented
  {% endif %}
end
----
x
    {%- if t %}
  a
    {%- endif %}
y
----
x  {% if t -%}   a   {%- endif %}  y
----
x
  {%+ if t %}
a
  {%+ endif %}
y
----
{% if t +%}
a
{% endif %}
b
----
  {{ n }}
  {{- n }}
  {{ n -}}
  z
----
  {# c #}
a  {# c #}
b
----
a
{#- c #}
b
{# c -#}
c
----
{% for x in l %}
  - {{ x }}
{% endfor %}
done
----
{% set x = 1 %}

{% set y = 2 %}
{{ x }}{{ y }}


----
 {% raw %} a {% endraw %} b
----
{{ "a\
b" }}
----
{{-1}}{{+1}}{{- 1 -}}{{1-}}
----
{%if t%}x{%endif%}{%-if t-%} y {%-endif-%}
----
{% if t: %}x{% endif %}
----
{{ {"a": {"b": 1}}.a.b }}{{ {'x':{'y':2}}['x']['y'] }}{{ "}}" }}{{ "%}" }}{{ {"a":"}}"}.a }}
----
{{ [x for x in l] }}
----
{{ lambda }}
----
{{ l[0, 1] }}
----
{{ d.a.x | join("-") if d.a is mapping else "no" }}{{ users[0].tags[0] }}{{ users[0]["name"][0] }}{{ users | map(attribute="name") | map("lower") | join }}
----
{% for m in users %}{% set role = m.name %}{% if loop.first %}{% set first = role %}{% endif %}{{ role }}{{ first }};{% endfor %}
----
{% for m in users %}{% for x in m.tags %}{{ loop.index }}{{ x }}{% else %}none{% endfor %}{{ loop.index }}{% endfor %}
----
{% set ns = namespace(found=false) %}{% for m in users[::-1] %}{% if not ns.found and m.age == 30 %}{% set ns.found = true %}{{ m.name }}{% endif %}{% endfor %}{{ ns.found }}{{ ns }}
----
{% set x = [] %}{% for i in l %}{% set x = x + [i] %}{% endfor %}{{ x }}
----
{% macro a() %}{% set v = 1 %}{{ v }}{% endmacro %}{{ a() }}{{ v }}{% set v = 2 %}{{ a() }}{{ v }}
----
{% macro outer() %}{% macro inner(x) %}<{{ x }}>{% endmacro %}{{ inner(1) }}{% endmacro %}{{ outer() }}
----
{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}
----
{% set loop = 1 %}{{ loop }}
----
{% for x in l %}{% set loop = 1 %}{% endfor %}
----
{% for loop in l %}{% endfor %}
----
{{ loop }}|{{ loop is defined }}
----
{% if not messages %}{{ raise_exception("no messages") }}{% endif %}
----
{{ lipsum is defined }}{{ dict is defined }}{{ namespace is defined }}
----
{{ 9223372036854775807 }} {{ -9223372036854775807 }}
----
{% set x = namespace(v=0) %}{% for a in range(3) %}{% for b in range(3) %}{% if b == 1 %}{% continue %}{% endif %}{% set x.v = x.v + a * b %}{% endfor %}{% endfor %}{{ x.v }}
----
{% set c | trim %}
   {{ s }}
{% endset %}[{{ c }}]
----
{{ "a" if true else "b" if false else "c" }}{{ ("a" if false else none) is none }}
----
{{ caller }}{{ varargs }}{{ kwargs }}
----
{% call(x) (none)() %}{% endcall %}
----
{{ "%s and %s" % ("<a>" | safe, "<b>") }}
----
{{ ("<i>%s</i>" | safe) % "<b>" }}
----
{{ ("<i>" | safe) + "&" + ("x" * 2) }}
----
{{ d.b == 1 and d["a"]["x"][0] == 1 and d.a.x.0 == 1 }}
----
{{ users | tojson }}
----
{{ none | string | length }}{{ [none] | string }}{{ (none, true) | string }}{{ 1.0 | string }}{{ 1e100 }}
----
{% filter length %}abc{% endfilter %}
----
{% filter indent(2) %}a
b
{% endfilter %}
----
{% for k, v in {"x": {"y": [1]}} | dictsort %}{{ k }}{{ v }}{% endfor %}
----
{% for i in range(3) %}{% with j = i * 2 %}{{ j }}{% endwith %}{% endfor %}
----
{{ "ab" is in ["ab"] and "x" not in "ab" }}{{ not "a" in "b" }}{{ "a" in "ab" == true }}
'''


def snippets():
    parts = TEXT.strip("\n").split("\n----\n")
    return parts + [p + "\n" for p in parts[:3]] + [
        "", "\n", "\n\n", "a\r\nb\rc\n", "{{ s }}\r\n\r\n", "\t{% if t %}\r\nx\r\n\t{% endif %}\r\n",
        "\u00a0{%- if t -%}\u2003x\u2003{%- endif -%}\u3000", "{{ '\u00e9' }}{# \u65e5 #}\U0001f98a",
    ]
