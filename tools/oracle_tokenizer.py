#!/usr/bin/env python3
"""Makes the expected token ids and splits of tests/vectors/tokenizer/ with Hugging Face's tokenizers.

    python3 tools/oracle_tokenizer.py --data DIR [--out tests/vectors/tokenizer]

DIR holds tokenizers/qwen3/tokenizer.json.gz and tokenizers/deepseek_v3/tokenizer.json.gz. The
strings come from a seeded generator; the same call gives the same files. Only characters assigned
in Unicode 14 are used, so that the tables of every library involved know them.
"""
import argparse
import gzip
import json
import os
import random
import unicodedata

import tokenizers
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0", "the assigned characters must be those of Unicode 14"

# Patterns as published; the engine has its own table of them.
APOS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
KIMI_U = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
KIMI_L = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
O200K_U = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
O200K_L = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
HEAD = r"[^\r\n\p{L}\p{N}]?"
FAMILIES = {
    "qwen35": [APOS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + TAIL],
    "qwen2": [APOS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL],
    "glm4": [APOS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL],
    "deepseek-v3": [
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
        r" ?[\p{P}\p{S}]+[\r\n]*|" + TAIL],
    "kimi-k2": [
        r"[\p{Han}]+|" + HEAD + KIMI_U + "*" + KIMI_L + "+" + APOS + "?|"
        + HEAD + KIMI_U + "+" + KIMI_L + "*" + APOS + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL],
    "gpt-4o": [
        HEAD + O200K_U + "*" + O200K_L + "+" + APOS + "?|"
        + HEAD + O200K_U + "+" + O200K_L + "*" + APOS + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + TAIL],
    "gpt-2": [r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"],
}

SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>",
    "</tool_call>", "<|vision_start|>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
    "<｜User｜>", "<｜Assistant｜>", "<｜▁pad▁｜>", "<｜fim▁hole｜>", "<｜tool▁calls▁begin｜>",
    "<|fim_prefix|>", "<｜place▁holder▁no▁1｜>", "<｜place▁holder▁no▁11｜>",
    "<｜place▁holder▁no▁111｜>",
]

def unknown_marks():
    """Characters that are newer than the normalisation tables inside tokenizers.

    Those tables are of an older Unicode than 14; for a newer mark they have no combining class, and
    for a newer letter no composition. Found by comparing with Python's tables, which are of 14.
    """
    nfc = normalizers.NFC()
    out = set()
    for code in range(0x300, 0x110000):
        c = chr(code)
        if unicodedata.category(c) in ("Cn", "Cs", "Co"):
            continue
        tests = [c, unicodedata.normalize("NFD", c)]
        if unicodedata.combining(c):
            tests += ["a" + c + "\u0334", "a\u0345" + c, "a\u0301" + c, "a" + c + "\u0301"]
        if any(nfc.normalize_str(t) != unicodedata.normalize("NFC", t) for t in tests):
            out.add(c)
    return out


CHANGED = unknown_marks()

SCRIPTS = [
    (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x250, 0x2AF), (0x370, 0x3FF), (0x400, 0x52F),
    (0x531, 0x58A), (0x5D0, 0x5F4), (0x620, 0x6FF), (0x700, 0x74F), (0x780, 0x7B1), (0x7C0, 0x7FA),
    (0x900, 0x97F), (0x980, 0x9FE), (0xA00, 0xA76), (0xA80, 0xAFF), (0xB00, 0xB77), (0xB80, 0xBFA),
    (0xC00, 0xC7F), (0xC80, 0xCF2), (0xD00, 0xD7F), (0xD80, 0xDF4), (0xE01, 0xE5B), (0xE80, 0xEDF),
    (0xF00, 0xFDA), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x139F),
    (0x13A0, 0x13FD), (0x1400, 0x167F), (0x1680, 0x169C), (0x16A0, 0x16F8), (0x1780, 0x17F9),
    (0x1800, 0x18AA), (0x1B00, 0x1B7E), (0x1C50, 0x1C7F), (0x1D00, 0x1DBF), (0x1E00, 0x1EFF),
    (0x1F00, 0x1FFE), (0x2C00, 0x2C5F), (0x2D30, 0x2D7F), (0x3041, 0x309F), (0x30A0, 0x30FF),
    (0x3105, 0x312F), (0x3131, 0x318E), (0x3400, 0x4DBF), (0x4E00, 0x9FFC), (0xA000, 0xA4C6),
    (0xAC00, 0xD7A3), (0xF900, 0xFAD9), (0xFB00, 0xFB06), (0xFB1D, 0xFB4F), (0xFB50, 0xFDFD),
    (0xFE70, 0xFEFC), (0xFF01, 0xFFEE), (0x10330, 0x1034A), (0x10400, 0x1044F), (0x10A00, 0x10A58),
    (0x11000, 0x11075), (0x12000, 0x12399), (0x13000, 0x1342E), (0x16A40, 0x16A6F),
    (0x1D400, 0x1D7FF), (0x1E900, 0x1E959), (0x20000, 0x2A6DD), (0x2F800, 0x2FA1D),
]
MARKS = [(0x300, 0x36F), (0x483, 0x489), (0x591, 0x5BD), (0x64B, 0x65F), (0x93C, 0x94D),
         (0xE31, 0xE3A), (0x1AB0, 0x1AC0), (0x1DC0, 0x1DFF), (0x20D0, 0x20F0), (0x302A, 0x302F),
         (0x3099, 0x309A), (0xFE20, 0xFE2F), (0x1D165, 0x1D172)]
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
EMOJI = "😀😂🦙🚀🌫💡👍👩👨👧👦🧑🏽🏿❤✅✈☺🔥🎉🏴🇩🇪🇯🇵🇺🇳👁🗨©™〰"
WORDS = ("the of and Hello world I'm you're they've it'll he'd DON'T won't token izer experts "
         "streaming memory layer straße naïve café Übergröße français señor año Ελληνικά λόγος "
         "Москва привет мир 你好 世界 東京 日本語 ひらがな カタカナ 한국어 안녕하세요 مرحبا العالم "
         "שלום עולם नमस्ते दुनिया สวัสดี ไทย cảm ơn việt Nam İstanbul ığdır ǅ ǈ ﬁ ﬂ ½ ² ³ Ⅷ ⅷ ① ㊿ "
         "१२३ ٤٥٦ 3.14159 1,000,000 0x1F 1e-5 CamelCaseWord snake_case_word HTTPServer iPhone "
         "'S 'LL 'Re 'ſ ’s `` '' \"quoted\" (paren) [x] {y} <z> a/b c\\d e|f #tag @user $5 50% ~/ "
         "https://example.org/a?b=c&d=e#f user@example.org -- --- ... … — – • ■ ▁ ｜ ! ?? !!! :-) ;) "
         "=> != === ++i; /* c */ // x <!-- h -->").split(" ")
CODE = [
    "int main(void)\n{\n    for (int i = 0; i < 10; i++)\n        printf(\"%d\\n\", i);\n    return 0;\n}\n",
    "def f(x):\n\tif x:\n\t\treturn {'a': 1,  'b': [2, 3]}\n\n\n\treturn None  # no\n",
    "{\"role\": \"user\", \"content\": \"hi\\n\\u00e9\", \"n\": -1.5e+10, \"ok\": true}",
    "SELECT * FROM t WHERE a >= 10 AND b LIKE '%x%';\r\n\r\n-- end\r\n",
    "<div class=\"a b\">\n  <p>text &amp; more</p>\n</div>\n",
    "$ ls -la | grep '\\.c$' && echo \"done: $?\" > /dev/null 2>&1",
    "\\begin{align}\n  e^{i\\pi} + 1 &= 0 \\\\\n\\end{align}",
    "    return a if b else c\n        # eight\n      # six\n\n\n\n",
]


def assigned(code):
    """Known to every library involved."""
    return unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co") and chr(code) not in CHANGED


ALL = [c for c in range(0x110000) if assigned(c)]


class Generator:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def char(self, ranges):
        while True:
            a, b = self.r.choice(ranges)
            c = self.r.randint(a, b)
            if assigned(c):
                return chr(c)

    def word(self):
        one = [self.r.choice(SCRIPTS)]
        return "".join(self.char(one) for _ in range(self.r.randint(1, 9)))

    def spaces(self):
        k = self.r.random()
        if k < 0.6:
            return " "
        if k < 0.9:
            return "".join(self.r.choice(" \n\t\r") for _ in range(self.r.randint(1, 5)))
        return "".join(self.r.choice(SPACES) for _ in range(self.r.randint(1, 4)))

    def digits(self):
        zero = self.r.choice([0x30] * 6 + [0x660, 0x966, 0xE50, 0xFF10, 0x1D7CE])
        return "".join(chr(zero + self.r.randint(0, 9)) for _ in range(self.r.randint(1, 12)))

    def words(self):
        return "".join(self.r.choice(WORDS) + self.spaces() for _ in range(self.r.randint(1, 10)))

    def scripts(self):
        return self.spaces().join(self.word() for _ in range(self.r.randint(1, 6)))

    def emoji(self):
        out = ""
        for _ in range(self.r.randint(1, 8)):
            out += self.r.choice(EMOJI)
            out += self.r.choice(["", "", "\ufe0f", "\u200d", "\U0001f3fb", "\u20e3", " ", "a"])
        return out

    def marks(self):
        out = ""
        for _ in range(self.r.randint(1, 5)):
            out += self.char(SCRIPTS) if self.r.random() < 0.5 else self.r.choice("aeiounAEKqが각가")
            out += "".join(self.char(MARKS) for _ in range(self.r.randint(0, 5)))
        return out

    def jamo(self):
        out = ""
        for _ in range(self.r.randint(1, 5)):
            out += chr(self.r.randint(0x1100, 0x1114)) + chr(self.r.randint(0x1161, 0x1177))
            if self.r.random() < 0.6:
                out += chr(self.r.randint(0x11A7, 0x11C3))
        return out

    def singletons(self):
        return "".join(self.r.choice("\u212b\u2126\u212a\u1f71\u0958\u0344\u0340\u0374\u037e\u0387"
                                     "\u2000\u2001\u2329\uf900\ufb1d\U0001d15e\U0002f800\u0f43"
                                     "\u0b94\u1e9b\u0323\u09cb x1") for _ in range(self.r.randint(1, 8)))

    def controls(self):
        return "".join(chr(self.r.choice([self.r.randint(1, 31), 127, self.r.randint(128, 159), 0xAD,
                                          0x200B, 0x200C, 0x200D, 0x200E, 0x202E, 0x2066, 0xFEFF,
                                          0x61, 0x20, 0xFFFD, 0]))
                       for _ in range(self.r.randint(1, 10)))

    def code(self):
        s = self.r.choice(CODE)
        a = self.r.randrange(len(s))
        return s[a:a + self.r.randint(5, 60)]

    def runs(self):
        c = self.r.choice([" ", "a", "=", "-", "\n", "1", "ab", "的", "ا", "é", "e\u0301", " \n", "🦙",
                           "Aa", "\t", "０", ".", "'s"])
        return self.r.choice(["", "x", " "]) + c * self.r.randint(2, 90) + self.r.choice(["", "x", " y"])

    def mixed_digits(self):
        return "".join(self.digits() + self.r.choice(["", " ", "  ", ",", ".", "年", "a", "\u0301"])
                       for _ in range(self.r.randint(1, 5)))

    def specials(self):
        out = ""
        for _ in range(self.r.randint(1, 4)):
            s = self.r.choice(SPECIALS)
            k = self.r.random()
            if k < 0.15:
                s = s[:self.r.randint(1, len(s))]
            elif k < 0.25:
                s = s[self.r.randint(0, len(s) - 1):]
            elif k < 0.3:
                s = s[:3] + "\u0301" + s[3:]
            out += s + self.r.choice(["", "", " ", "\n", "a", "\u0301", "<", "  "])
        return out

    def anything(self):
        return "".join(chr(self.r.choice(ALL)) for _ in range(self.r.randint(1, 8)))

    def string(self):
        kinds = [self.words] * 4 + [self.scripts] * 4 + [
            self.emoji, self.marks, self.jamo, self.singletons, self.controls, self.code, self.code,
            self.runs, self.mixed_digits, self.specials, self.anything, self.anything]
        out = self.r.choice(kinds)()
        while self.r.random() < 0.35:
            out += self.r.choice(["", "", " ", "'"]) + self.r.choice(kinds)()
        return out


def strings(seed, n):
    g = Generator(seed)
    fixed = ["", " ", "a", "\n", "'", "’", "\u0301", "a\u0301", "  12", "a  12345 x  中文!foo's\n\n ok"]
    return fixed + [g.string() for _ in range(n - len(fixed))]


def varint(n):
    out = bytearray()
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def pack_list(values):
    return varint(len(values)) + b"".join(map(varint, values))


def pack_string(s):
    b = s.encode()
    return varint(len(b)) + b


def write_gz(path, data):
    with open(path, "wb") as f:
        f.write(gzip.compress(data, 9, mtime=0))


def splits(patterns, text):
    parts = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    pieces = pre_tokenizers.Sequence(parts).pre_tokenize_str(text)
    assert "".join(p for p, _ in pieces) == text
    return [len(p.encode()) for p, _ in pieces]


def closed_subset(full, n_merge):
    """The 256 bytes and the first n_merge merges of a vocabulary, numbered anew."""
    merges = [m if isinstance(m, list) else m.split(" ") for m in full["model"]["merges"][:n_merge]]
    names = sorted(k for k in full["model"]["vocab"] if len(k) == 1)
    assert len(names) == 256
    for a, b in merges:
        if a + b not in names:
            names.append(a + b)
    return {name: i for i, name in enumerate(names)}, merges


def added(first, rows):
    return [{"id": first + i, "content": c, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": norm, "special": special} for i, (c, special, norm) in enumerate(rows)]


def make_mini(full, out):
    """Two small tokenizers whose files use the forms the real ones do not."""
    vocab, merges = closed_subset(full, 900)
    n = len(vocab)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                  "use_regex": False}
    base = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None,
            "decoder": dict(byte_level)}
    # as Qwen: NFC, one split, merges as strings; added tokens of every kind that is supported
    first = dict(base)
    first["added_tokens"] = added(n, [("<|im_start|>", True, False), ("<|im_end|>", True, False),
                                      ("<|im_end|>x", False, False), ("<think>", False, False),
                                      ("Å\u0327", False, True), ("ﬁn", False, True)])
    first["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    first["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": FAMILIES["qwen2"][0]}, "behavior": "Isolated",
         "invert": False}, dict(byte_level)]}
    first["model"] = {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
                      "byte_fallback": False, "ignore_merges": False, "vocab": vocab,
                      "merges": [" ".join(m) for m in merges]}
    # no normaliser, literal split, digits, the built-in pattern; merges as pairs; whole pieces are
    # tokens even when no merge leads there, which the last vocabulary entries test
    second = dict(base)
    vocab2 = dict(vocab)
    for extra in ["Ġstreaming", "Hello", "Ã©Ã©", "ĠÐ¼Ð¸ÑĢ"]:
        vocab2.setdefault(extra, len(vocab2))
    second["added_tokens"] = added(len(vocab2), [("<|endoftext|>", True, False),
                                                    ("▁", False, True)])
    second["normalizer"] = None
    second["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"String": "::"}, "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"Regex": r"[\p{L}&&[^\p{Han}a-c]]+\d|[^\S\n]{2,}"},
         "behavior": "Isolated", "invert": False},
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}
    second["model"] = {"type": "BPE", "dropout": None, "unk_token": None,
                       "continuing_subword_prefix": None, "end_of_word_suffix": None,
                       "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                       "vocab": vocab2, "merges": merges}
    texts = strings(3, 700) + ["A\u030a\u0327 fin ﬁn ﬁ ▁x▁ std::vector::x <|im_end|>xy <|im_end|>",
                               "Hello streaming éé мир Hello::мир9 a9 d9 漢9", "\u00c5\u0327Å\u0327"]
    for name, spec in (("mini_strings", first), ("mini_pairs", second)):
        path = os.path.join(out, name + ".json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(spec, f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        t = Tokenizer.from_file(path)
        data = varint(len(texts))
        for s in texts:
            data += pack_string(s) + pack_list(t.encode(s, add_special_tokens=False).ids)
        write_gz(os.path.join(out, name + ".ids.gz"), data)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", required=True)
    p.add_argument("--out", default="tests/vectors/tokenizer")
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    print("tokenizers", tokenizers.__version__, "without", len(CHANGED), "characters")

    texts = strings(1, 8000)
    write_gz(os.path.join(a.out, "strings.gz"),
             varint(len(texts)) + b"".join(map(pack_string, texts)))
    for name in ("qwen3", "deepseek_v3"):
        with gzip.open(os.path.join(a.data, "tokenizers", name, "tokenizer.json.gz")) as f:
            raw = f.read().decode()
        t = Tokenizer.from_str(raw)
        ids = [t.encode(s, add_special_tokens=False).ids for s in texts]
        write_gz(os.path.join(a.out, name + ".ids.gz"),
                 varint(len(ids)) + b"".join(map(pack_list, ids)))
        print(name, len(texts), "strings,", sum(map(len, ids)), "ids")
        if name == "qwen3":
            make_mini(json.loads(raw), a.out)

    some = strings(2, 3000)
    data = varint(len(some)) + b"".join(map(pack_string, some)) + varint(len(FAMILIES))
    for name, patterns in FAMILIES.items():
        data += pack_string(name) + b"".join(pack_list(splits(patterns, s)) for s in some)
    write_gz(os.path.join(a.out, "splits.gz"), data)


if __name__ == "__main__":
    main()
