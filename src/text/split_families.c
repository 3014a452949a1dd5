/* The patterns of model families, by the name that GGUF files give in tokenizer.ggml.pre. Each is
 * the published pattern of the family's tokenizer.json (Kimi's: of its tokenization script), in
 * Oniguruma syntax; pattern.c translates. */
#include "text/pretokenize.h"

#include <stdio.h>
#include <string.h>

/* What most of these share: contractions, then at the end white space. A run of white space before
 * a word leaves its last character to the word. */
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

const char fm_pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static const char *const gpt2[] = {fm_pattern_gpt2, NULL};

static const char *const qwen35[] = {
    CONTRACTIONS
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES,
    NULL};

static const char *const qwen2[] = {
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES,
    NULL};

static const char *const glm4[] = {
    CONTRACTIONS
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES,
    NULL};

/* Numbers, then Han and kana, then the rest; each inside what is left. */
static const char *const deepseek_v3[] = {
    "\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES,
    NULL};

/* Words by case. NOT_HAN is "" or an intersection. */
#define UPPER(not_han) "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}" not_han "]"
#define LOWER(not_han) "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}" not_han "]"
#define CASED_WORDS(not_han)                                                                       \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER(not_han) "*" LOWER(                                             \
        not_han) "+" CONTRACTIONS "?|"                                                             \
                 "[^\\r\\n\\p{L}\\p{N}]?" UPPER(not_han) "+" LOWER(not_han) "*" CONTRACTIONS "?|"

static const char *const kimi_k2[] = {
    "[\\p{Han}]+|" CASED_WORDS(
        "&&[^\\p{Han}]") "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES,
    NULL};

static const char *const gpt_4o[] = {
    CASED_WORDS("") "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES, NULL};

/* The published fourth pattern is \s+$. The look-behind in front does not change what matches and
 * keeps a long run of spaces from being tried again from each of its characters. */
static const char *const deepseek_llm[] = {
    "[\\r\\n]",
    // clang-format off
    "\\s?["
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}"
    "\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}"
    "\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}"
    "\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}"
    "\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}"
    "\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}"
    "\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}"
    "\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}"
    "\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}"
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}"
    "\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}"
    "\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}"
    "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}"
    "\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}"
    "\\x{1e900}-\\x{1e943}"
    "]+",
    "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
    "(?<!\\s)\\s+$",
    "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+",
    "\\p{N}",
    // clang-format on
    NULL};

static const fm_split_family families[] = {
    {"qwen35", qwen35, true, false, false},
    {"qwen2", qwen2, true, false, false},
    {"qwen3", qwen2, true, false, false},
    {"deepseek-v3", deepseek_v3, false, false, false},
    {"deepseek-llm", deepseek_llm, false, false, false},
    {"kimi-k2", kimi_k2, false, true, true},
    {"glm4", glm4, false, false, false},
    {"chatglm-bpe", glm4, false, false, false},
    {"gpt-4o", gpt_4o, false, false, false},
    {"gpt-2", gpt2, false, false, false},
    {"default", gpt2, false, false, false},
};

const fm_split_family *fm_split_family_find(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strlen(families[i].name) == n && memcmp(families[i].name, name, n) == 0)
            return &families[i];
    return NULL;
}

const fm_split_family *fm_split_family_at(size_t i)
{
    return i < sizeof families / sizeof families[0] ? &families[i] : NULL;
}

void fm_split_family_names(char *out, size_t size)
{
    size_t w = 0;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        const int n = snprintf(out + w, size - w, "%s%s", i ? ", " : "", families[i].name);
        if (n < 0 || (size_t)n >= size - w) break;
        w += (size_t)n;
    }
}
