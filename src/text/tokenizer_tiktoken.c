/* Reads tiktoken files, as Kimi's checkpoints have them: a line per token, its bytes in base64 and its rank, which is its id
 * and the priority of the merge that makes it. Special tokens are named by tokenizer_config.json.
 * Source: openai/tiktoken, load.py; tokenization_kimi.py of the published checkpoints. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_parse.h"
#include "text/tiktoken.h"
#include "text/tokenizer.h"

enum { TOKENS_MAX = 1 << 24 };

typedef struct {
    const char *origin;
    fm_error *err;
    fm_tiktoken *t;
    uint32_t used; /* bytes of tokens so far */
} loader;

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Appends what s[n] stands for; false: it is not base64. */
static bool decode_base64(loader *l, const char *s, size_t n)
{
    while (n > 0 && s[n - 1] == '=') n--;
    if (n % 4 == 1) return false;
    uint32_t v = 0;
    int bits = 0;
    for (size_t i = 0; i < n; i++) {
        const int d = digit_of(s[i]);
        if (d < 0) return false;
        v = v << 6 | (uint32_t)d;
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        l->t->bytes[l->used++] = (char)(unsigned char)(v >> bits);
        v &= (1u << bits) - 1;
    }
    return v == 0; /* left-over bits are zero in canonical base64 */
}

static fm_status bad_line(const loader *l, const char *expected)
{
    return fm_fail(l->err, FM_E_FORMAT, "%s: line %d: expected %s", l->origin, l->t->n_rank + 1,
                   expected);
}

static fm_status read_line(loader *l, const char *s, size_t n)
{
    const char *space = memchr(s, ' ', n);
    if (!space) return bad_line(l, "base64 and a rank");
    int64_t rank = 0;
    const char *p = space + 1, *end = s + n;
    if (p == end) return bad_line(l, "a rank");
    for (; p < end; p++) {
        if (*p < '0' || *p > '9' || rank > TOKENS_MAX) return bad_line(l, "a rank");
        rank = rank * 10 + (*p - '0');
    }
    if (rank != l->t->n_rank)
        return fm_fail(l->err, FM_E_FORMAT, "%s: line %d: rank %lld, expected %d", l->origin,
                       l->t->n_rank + 1, (long long)rank, l->t->n_rank);
    const uint32_t before = l->used;
    if (!decode_base64(l, s, (size_t)(space - s))) return bad_line(l, "base64");
    if (l->used == before) return bad_line(l, "a token that is not empty");
    l->t->start[++l->t->n_rank] = l->used;
    return FM_OK;
}

static fm_status read_ranks(loader *l, const char *text, size_t n)
{
    size_t n_line = 1;
    if (n > UINT32_MAX)
        return fm_fail(l->err, FM_E_LIMIT, "%s: %zu bytes, at most %u", l->origin, n, UINT32_MAX);
    for (size_t i = 0; i < n; i++) n_line += text[i] == '\n';
    if (n_line > TOKENS_MAX)
        return fm_fail(l->err, FM_E_LIMIT, "%s: %zu lines, at most %d", l->origin, n_line,
                       TOKENS_MAX);
    l->t->bytes = malloc(n + 1); /* base64 is longer than what it stands for */
    l->t->start = calloc(n_line + 1, sizeof *l->t->start);
    if (!l->t->bytes || !l->t->start)
        return fm_fail(l->err, FM_E_NOMEM, "%s: no memory", l->origin);
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t len = end ? (size_t)(end - text) - at : n - at;
        const size_t step = len + 1;
        if (len > 0 && text[at + len - 1] == '\r') len--;
        if (len > 0) FM_TRY(read_line(l, text + at, len));
        at += step;
    }
    if (l->t->n_rank == 0) return fm_fail(l->err, FM_E_FORMAT, "%s: has no tokens", l->origin);
    return FM_OK;
}

static fm_status read_specials(loader *l, const json_t *added)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)added, key, v)
    {
        char *end;
        const long id = strtol(key, &end, 10);
        const char *content = json_string_value(json_object_get(v, "content"));
        if (*end || end == key || !content || !*content)
            return fm_fail(
                l->err, FM_E_FORMAT,
                "%s: added_tokens_decoder of tokenizer_config.json: \"%.40s\": expected an id "
                "and a content",
                l->origin, key);
        if (id < l->t->n_rank || id >= (long)l->t->n_rank + FM_TIKTOKEN_SPECIALS)
            return fm_fail(l->err, FM_E_FORMAT,
                           "%s: special token %.60s has id %ld, expected %d to %d", l->origin,
                           content, id, l->t->n_rank, l->t->n_rank + FM_TIKTOKEN_SPECIALS - 1);
        char **slot = &l->t->special[id - l->t->n_rank];
        free(*slot);
        *slot = strdup(content);
        if (!*slot) return fm_fail(l->err, FM_E_NOMEM, "%s: no memory", l->origin);
        l->t->is_named[id - l->t->n_rank] = true;
        l->t->user_defined[id - l->t->n_rank] = json_is_false(json_object_get(v, "special"));
    }
    for (int i = 0; i < FM_TIKTOKEN_SPECIALS; i++) {
        if (l->t->special[i]) continue;
        char name[48];
        snprintf(name, sizeof name, "<|reserved_token_%d|>", l->t->n_rank + i);
        l->t->special[i] = strdup(name);
        if (!l->t->special[i]) return fm_fail(l->err, FM_E_NOMEM, "%s: no memory", l->origin);
    }
    return FM_OK;
}

fm_status fm_tiktoken_read(fm_tiktoken *t, const char *text, size_t n, const char *config,
                           size_t n_config, const char *origin, fm_error *err)
{
    *t = (fm_tiktoken){0};
    loader l = {.origin = origin, .err = err, .t = t};
    json_error_t why;
    json_t *root = fm_json_parse(config, n_config, 0, &why);
    fm_status st = FM_OK;
    if (!json_is_object(root))
        st = fm_fail(err, FM_E_FORMAT, "%s: tokenizer_config.json: line %d: %s", origin, why.line,
                     root ? "expected an object" : why.text);
    if (st == FM_OK) st = read_ranks(&l, text, n);
    if (st == FM_OK) st = read_specials(&l, json_object_get(root, "added_tokens_decoder"));
    json_decref(root);
    if (st != FM_OK) fm_tiktoken_free(t);
    return st;
}

void fm_tiktoken_free(fm_tiktoken *t)
{
    for (int i = 0; i < FM_TIKTOKEN_SPECIALS; i++) free(t->special[i]);
    free(t->start);
    free(t->bytes);
    *t = (fm_tiktoken){0};
}

/* ---- as a tokenizer ---------------------------------------------------------------------- */

static fm_status token_of(void *user, int32_t id, fm_text_span *out, fm_error *err)
{
    (void)err;
    const fm_tiktoken *t = user;
    if (id < t->n_rank) {
        *out = (fm_text_span){t->bytes + t->start[id], t->start[id + 1] - t->start[id]};
    } else {
        const char *s = t->special[id - t->n_rank];
        *out = (fm_text_span){s, strlen(s)};
    }
    return FM_OK;
}

static fm_status type_of(void *user, int32_t id, int32_t *out, fm_error *err)
{
    (void)err;
    const fm_tiktoken *t = user;
    *out = id < t->n_rank                    ? FM_TOKEN_NORMAL
           : t->user_defined[id - t->n_rank] ? FM_TOKEN_USER_DEFINED
                                             : FM_TOKEN_CONTROL;
    return FM_OK;
}

fm_status fm_tokenizer_from_tiktoken(fm_tokenizer **out, const char *text, size_t n,
                                     const char *config, size_t n_config, const char *pre,
                                     const char *origin, fm_error *err)
{
    *out = NULL;
    fm_tiktoken t;
    FM_TRY(fm_tiktoken_read(&t, text, n, config, n_config, origin, err));
    const fm_tokenizer_source src = {
        .origin = origin,
        .model = "gpt2",
        .pre = pre,
        .user = &t,
        .n_token = t.n_rank + FM_TIKTOKEN_SPECIALS,
        .raw_bytes = true,
        .token = token_of,
        .token_type = type_of,
    };
    const fm_status st = fm_tokenizer_create(out, &src, err);
    fm_tiktoken_free(&t);
    return st;
}
