/* Which way to split text the file names (tokenizer.ggml.pre). A tokenizer.json says it in patterns, a GGUF file only by a
 * family's name, and model_type is no more than a hint: finetunes bring tokenizers of their own. So a name is taken only if the
 * tokenizer that readers will make of the file gives the ids that the directory's own gives, for a text with every token in it
 * and for what families are known to split in different ways. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/read_file.h"
#include "engine/quantize_internal.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

enum { PROBE_BYTES = 4096 };

static const char *const probes[] = {
    "Don't we'll THEY'RE it's I'M you'D he'll",
    "1 12 123 1234 12345 1234567890 3.14159 \xd9\xa1\xd9\xa2\xd9\xa3\xd9\xa4 \xc2\xbd\xc2\xb2",
    "camelCase HTTPServer iPhone XMLHttpRequest aB AB Ab abC",
    "\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c"
    "abc\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1"
    "\xe3\x81\xaf\xe3\x82\xab\xe3\x82\xbf\xed\x95\x9c\xea\xb5\xad\xec\x96\xb4", /* Han, kana, Hangul */
    "e\xcc\x81te\xcc\x81 cafe\xcc\x81 a\xcc\x8a \xc3\xa9\xc3\xa5", /* accents apart and joined */
    "\xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5\x8d\xe0\xa4\xa4\xe0\xa5\x87 "
    "\xe0\xb8\xaa\xe0\xb8\xa7\xe0\xb8\xb1"
    "\xe0\xb8\xaa\xe0\xb8\x94\xe0\xb8\xb5 \xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82", /* marks inside of words */
    "  two   three    four\n\n\n a\r\n\r\nb \t\tc \n d   \n",
    "!hello _name (word) [x] {y} <z> $var @me #tag a/b//c ...and ?!?! --\n //\n",
    "int main(void) { return x->y * 2; }\n\t// \xe2\x82\xac"
    "5 \xe2\x80\x9cquoted\xe2\x80\x9d \xf0\x9f\x98\x80\xf0\x9f\x98\x80",
};

/* ---- the tokenizer that readers make of the file ------------------------------------------------- */

static fm_status token_of(void *user, int32_t id, fm_text_span *out, fm_error *err)
{
    (void)err;
    const char *t = ((const fm_vocabulary *)user)->token[id];
    *out = (fm_text_span){t, t ? strlen(t) : 0};
    return FM_OK;
}

static fm_status type_of(void *user, int32_t id, int32_t *out, fm_error *err)
{
    (void)err;
    *out = ((const fm_vocabulary *)user)->kind[id];
    return FM_OK;
}

static fm_status merge_of(void *user, int64_t i, fm_text_span *left, fm_text_span *right,
                          fm_error *err)
{
    (void)err;
    const char *m = fm_vocabulary_merge(user, (size_t)i);
    *left = (fm_text_span){m, strlen(m)};
    *right = (fm_text_span){0};
    return FM_OK;
}

static fm_status make_written(fm_tokenizer **out, fm_vocabulary *v, const char *pre,
                              const char *origin, fm_error *err)
{
    const fm_tokenizer_source src = {
        .origin = origin,
        .model = "gpt2",
        .pre = pre,
        .user = v,
        .n_token = (int32_t)v->n,
        .token = token_of,
        .token_type = type_of,
        .n_merge = (int64_t)v->n_merge,
        .merge = merge_of,
    };
    return fm_tokenizer_create(out, &src, err);
}

/* ---- comparison ---------------------------------------------------------------------------------- */

static fm_status same_ids(const fm_tokenizer *a, const fm_tokenizer *b, const char *text, size_t n,
                          bool *same, fm_error *err)
{
    int32_t *ia = NULL, *ib = NULL;
    size_t na = 0, nb = 0;
    fm_status st = fm_tokenize(a, &ia, &na, text, n, 0, err);
    if (st == FM_OK) st = fm_tokenize(b, &ib, &nb, text, n, 0, err);
    *same = st == FM_OK && na == nb && memcmp(ia, ib, na * sizeof *ia) == 0;
    free(ia);
    free(ib);
    return st;
}

/* All tokens that are whole characters, one after another or in lines of their own, some at a time. */
static fm_status same_for_tokens(const fm_tokenizer *a, const fm_tokenizer *b,
                                 const fm_vocabulary *v, bool in_lines, bool *same, fm_error *err)
{
    char text[PROBE_BYTES];
    size_t at = 0;
    const int32_t n = fm_tokenizer_n_vocab(a);
    for (int32_t id = 0; id < n && *same; id++) {
        size_t k = 0;
        const bool is_text = id < v->n && v->kind[id] == FM_TOKEN_NORMAL;
        const char *bytes = is_text ? fm_token_bytes(a, id, &k) : NULL;
        if (!bytes || k == 0 || k >= sizeof text || fm_utf8_valid_prefix(bytes, k) != k) continue;
        if (at + k >= sizeof text) {
            FM_TRY(same_ids(a, b, text, at, same, err));
            at = 0;
        }
        memcpy(text + at, bytes, k);
        at += k;
        if (in_lines) text[at++] = '\n';
    }
    return at > 0 && *same ? same_ids(a, b, text, at, same, err) : FM_OK;
}

/* How far a name goes with the directory's tokenizer. */
typedef enum {
    SPLITS_OTHERWISE,
    SPLITS_ALIKE, /* but some tokens come out otherwise: such as no merge makes */
    SAME_IDS,
} likeness;

static fm_status compare(const fm_tokenizer *a, fm_vocabulary *v, const char *pre,
                         const char *origin, likeness *out, fm_error *err)
{
    fm_tokenizer *b = NULL;
    bool same = true;
    fm_status st = make_written(&b, v, pre, origin, err);
    for (size_t i = 0; i < sizeof probes / sizeof *probes && st == FM_OK && same; i++)
        st = same_ids(a, b, probes[i], strlen(probes[i]), &same, err);
    *out = same ? SPLITS_ALIKE : SPLITS_OTHERWISE;
    for (int in_lines = 0; in_lines < 2 && st == FM_OK && same; in_lines++)
        st = same_for_tokens(a, b, v, in_lines, &same, err);
    if (same) *out = SAME_IDS;
    fm_tokenizer_close(b);
    return st;
}

static fm_status find(const char **pre, const fm_tokenizer *a, fm_vocabulary *v, const char *hint,
                      const char *origin, fm_error *doubt, fm_error *err)
{
    likeness best, one;
    FM_TRY(compare(a, v, hint, origin, &best, err));
    const fm_split_family *f;
    for (size_t i = 0; best != SAME_IDS && (f = fm_split_family_at(i)); i++) {
        if (strcmp(f->name, hint) == 0) continue;
        FM_TRY(compare(a, v, f->name, origin, &one, err));
        if (one <= best) continue;
        best = one;
        *pre = f->name;
    }
    if (best == SAME_IDS) return FM_OK;
    if (best == SPLITS_ALIKE) {
        fm_fail(doubt, FM_E_UNSUPPORTED,
                "%s gives other ids for some of its tokens, which no merge makes", origin);
        return FM_OK;
    }
    char names[300];
    fm_split_family_names(names, sizeof names);
    return fm_fail(err, FM_E_UNSUPPORTED,
                   "%s: splits text in a way that no name of tokenizer.ggml.pre stands for (tried: "
                   "%s), so the file would give other ids than the directory; without this file "
                   "it is written with no tokenizer",
                   origin, names);
}

fm_status fm_quantize_find_pre(const char **pre, fm_vocabulary *v, const char *directory,
                               const char *hint, fm_error *doubt, fm_error *err)
{
    *pre = hint;
    if (!v->root) { /* only Kimi's way goes with tiktoken.model */
        *pre = "kimi-k2";
        return FM_OK;
    }
    char *path = fm_path_join(directory, "tokenizer.json"), *json = NULL;
    size_t n;
    if (!path) return fm_fail(err, FM_E_NOMEM, "%s: no memory", directory);
    fm_tokenizer *a = NULL;
    fm_error why = {0};
    fm_status st = fm_read_file(&json, &n, path, FM_TOKENIZER_FILE_MAX, err);
    if (st == FM_OK) {
        st = fm_tokenizer_from_json(&a, json, n, path, &why);
        free(json);
        if (st == FM_OK) {
            st = find(pre, a, v, hint, path, doubt, err);
        } else if (st != FM_E_NOMEM) { /* the directory gives no ids either */
            fm_fail(doubt, st, "whether it gives the directory's ids is not known: %s", why.msg);
            st = FM_OK;
        } else if (err) {
            *err = why;
        }
    }
    fm_tokenizer_close(a);
    free(path);
    return st;
}
