/* Reads tokenizer.json (the format of Hugging Face's tokenizers) as far as byte-level BPE models
 * use it: added tokens, NFC, splits by pattern, vocabulary, merges. What would change the result
 * and is not known here is refused by name; post-processors are ignored, since no BOS is added. */
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_parse.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"

enum { PATTERNS_MAX = 32, NESTING_MAX = 8 };

typedef struct {
    const char *text; /* borrowed from the JSON tree; NULL: no such token */
    uint8_t kind;     /* FM_TOKEN_...                                      */
    uint8_t added;    /* FM_ADDED_...                                         */
} token_row;

typedef struct {
    const char *origin;
    fm_error *err;
    token_row *tokens;
    int32_t n_token;
    const json_t *merges;
    char *patterns[PATTERNS_MAX]; /* owned */
    size_t n_pattern;
    bool nfc, byte_level;
} loader;

static fm_status bad(const loader *l, const char *where, const char *expected)
{
    return fm_fail(l->err, FM_E_FORMAT, "%s: %s: expected %s", l->origin, where, expected);
}

static fm_status unsupported(const loader *l, const char *where, const char *found)
{
    return fm_fail(l->err, FM_E_UNSUPPORTED, "%s: %s \"%.60s\" is not supported", l->origin, where,
                   found ? found : "(none)");
}

static const char *string_at(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* True when the key is there and neither null nor false nor "" nor 0. */
static bool is_set(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    if (!v || json_is_null(v) || json_is_false(v)) return false;
    if (json_is_string(v)) return json_string_length(v) > 0;
    if (json_is_number(v)) return json_number_value(v) != 0;
    return true;
}

/* ---- vocabulary -------------------------------------------------------------------------- */

static fm_status token_id(const loader *l, const json_t *v, const char *where, json_int_t limit,
                          int32_t *id)
{
    if (!json_is_integer(v)) return bad(l, where, "an integer id");
    const json_int_t n = json_integer_value(v);
    if (n < 0 || n >= limit)
        return fm_fail(l->err, FM_E_FORMAT, "%s: %s: id %lld, expected 0 to %lld", l->origin, where,
                       (long long)n, (long long)limit - 1);
    *id = (int32_t)n;
    return FM_OK;
}

static fm_status read_vocabulary(loader *l, const json_t *vocab, json_int_t limit)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)vocab, key, value)
    {
        int32_t id = 0;
        FM_TRY(token_id(l, value, "model.vocab", limit, &id));
        if (l->tokens[id].text)
            return fm_fail(l->err, FM_E_FORMAT,
                           "%s: model.vocab: id %d belongs to both \"%.60s\" and \"%.60s\"",
                           l->origin, id, l->tokens[id].text, key);
        l->tokens[id] = (token_row){.text = key, .kind = FM_TOKEN_NORMAL};
        if (id >= l->n_token) l->n_token = id + 1;
    }
    return FM_OK;
}

static fm_status read_added(loader *l, const json_t *added, const json_t *vocab, json_int_t limit)
{
    size_t i;
    json_t *a;
    json_array_foreach(added, i, a)
    {
        const char *content = string_at(a, "content");
        if (!content || !*content) return bad(l, "added_tokens", "a content that is not empty");
        int32_t id = 0;
        FM_TRY(token_id(l, json_object_get(a, "id"), "added_tokens", limit, &id));
        if (is_set(a, "single_word"))
            return fm_fail(l->err, FM_E_UNSUPPORTED,
                           "%s: added token \"%.60s\": the flag single_word is not supported",
                           l->origin, content);
        const json_t *known = json_object_get(vocab, content);
        const bool taken = l->tokens[id].text && strcmp(l->tokens[id].text, content) != 0;
        if (taken || (known && json_integer_value(known) != id))
            return fm_fail(l->err, FM_E_FORMAT,
                           "%s: added token \"%.60s\" has id %d, which model.vocab contradicts",
                           l->origin, content, id);
        l->tokens[id] = (token_row){
            .text = content,
            .kind = is_set(a, "special") ? FM_TOKEN_CONTROL : FM_TOKEN_USER_DEFINED,
            .added = (uint8_t)((is_set(a, "normalized") ? FM_ADDED_NORMALIZED : 0) |
                               (is_set(a, "lstrip") ? FM_ADDED_LSTRIP : 0) |
                               (is_set(a, "rstrip") ? FM_ADDED_RSTRIP : 0)),
        };
        if (id >= l->n_token) l->n_token = id + 1;
    }
    return FM_OK;
}

static fm_status read_model(loader *l, const json_t *root, fm_tokenizer_rules *rules)
{
    const json_t *model = json_object_get(root, "model"),
                 *added = json_object_get(root, "added_tokens");
    if (!json_is_object(model)) return bad(l, "model", "an object");
    const char *type = string_at(model, "type");
    if (type && strcmp(type, "BPE") != 0) return unsupported(l, "model type", type);
    static const char *const flags[] = {"dropout", "continuing_subword_prefix",
                                        "end_of_word_suffix", "byte_fallback"};
    for (size_t k = 0; k < sizeof flags / sizeof flags[0]; k++)
        if (is_set(model, flags[k])) return unsupported(l, "model option", flags[k]);
    rules->ignore_merges = is_set(model, "ignore_merges");

    const json_t *vocab = json_object_get(model, "vocab");
    if (!json_is_object(vocab)) return bad(l, "model.vocab", "an object of ids");
    l->merges = json_object_get(model, "merges");
    if (!json_is_array(l->merges)) return bad(l, "model.merges", "an array");
    if (added && !json_is_null(added) && !json_is_array(added))
        return bad(l, "added_tokens", "an array");
    /* Ids may have gaps, but the table must stay in proportion to the file. */
    const json_int_t n = (json_int_t)json_object_size(vocab) + (json_int_t)json_array_size(added);
    const json_int_t limit = n > INT_MAX / 16 ? INT_MAX / 4 : n * 4 + 1024;
    l->tokens = calloc((size_t)limit, sizeof *l->tokens);
    if (!l->tokens)
        return fm_fail(l->err, FM_E_NOMEM, "%s: no memory for %lld tokens", l->origin,
                       (long long)n);
    FM_TRY(read_vocabulary(l, vocab, limit));
    return read_added(l, added, vocab, limit);
}

/* ---- normaliser and pre-tokenizer -------------------------------------------------------- */

static fm_status read_normalizer(loader *l, const json_t *node, int depth)
{
    if (!node || json_is_null(node)) return FM_OK;
    const char *type = string_at(node, "type");
    if (!type) return bad(l, "normalizer", "an object with a type");
    if (strcmp(type, "NFC") == 0) {
        l->nfc = true;
        return FM_OK;
    }
    if (strcmp(type, "Sequence") != 0 || depth >= NESTING_MAX)
        return unsupported(l, "normalizer", type);
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(node, "normalizers"), i, part)
        FM_TRY(read_normalizer(l, part, depth + 1));
    return FM_OK;
}

/* Keeps a copy of a pattern; `literal`: of a text that is to be found as it is. */
static fm_status add_pattern(loader *l, const char *pattern, bool literal)
{
    if (l->n_pattern == PATTERNS_MAX)
        return fm_fail(l->err, FM_E_UNSUPPORTED, "%s: more than %d splits in pre_tokenizer",
                       l->origin, PATTERNS_MAX);
    char *copy = malloc(2 * strlen(pattern) + 1);
    if (!copy) return fm_fail(l->err, FM_E_NOMEM, "%s: no memory for a pattern", l->origin);
    char *w = copy;
    for (const char *p = pattern; *p; p++) {
        if (literal && strchr("\\^$.[]|()?*+{}&-", *p)) *w++ = '\\';
        *w++ = *p;
    }
    *w = 0;
    l->patterns[l->n_pattern++] = copy;
    return FM_OK;
}

static fm_status read_split(loader *l, const json_t *node)
{
    const json_t *pattern = json_object_get(node, "pattern");
    const char *behavior = string_at(node, "behavior");
    if (!behavior || strcmp(behavior, "Isolated") != 0)
        return unsupported(l, "pre_tokenizer Split with behavior", behavior);
    if (is_set(node, "invert")) return unsupported(l, "pre_tokenizer Split with", "invert");
    if (string_at(pattern, "Regex")) return add_pattern(l, string_at(pattern, "Regex"), false);
    if (string_at(pattern, "String")) return add_pattern(l, string_at(pattern, "String"), true);
    return bad(l, "pre_tokenizer Split", "a pattern with Regex or String");
}

static fm_status read_pre_tokenizer(loader *l, const json_t *node, int depth)
{
    const char *type = string_at(node, "type");
    if (!type) return bad(l, "pre_tokenizer", "an object with a type");
    if (strcmp(type, "Sequence") == 0 && depth < NESTING_MAX) {
        size_t i;
        json_t *part;
        json_array_foreach(json_object_get(node, "pretokenizers"), i, part)
            FM_TRY(read_pre_tokenizer(l, part, depth + 1));
        return FM_OK;
    }
    /* Behind ByteLevel the text is in the byte alphabet, where patterns mean something else. */
    if (l->byte_level) return unsupported(l, "pre_tokenizer behind ByteLevel:", type);
    if (strcmp(type, "Split") == 0) return read_split(l, node);
    if (strcmp(type, "Digits") == 0)
        return add_pattern(l, is_set(node, "individual_digits") ? "\\p{N}" : "\\p{N}+", false);
    if (strcmp(type, "ByteLevel") == 0) {
        if (is_set(node, "add_prefix_space"))
            return unsupported(l, "pre_tokenizer ByteLevel with", "add_prefix_space");
        l->byte_level = true;
        const json_t *use_regex = json_object_get(node, "use_regex");
        if (!use_regex || is_set(node, "use_regex")) return add_pattern(l, fm_pattern_gpt2, false);
        return FM_OK;
    }
    return unsupported(l, "pre_tokenizer", type);
}

static fm_status read_rules(loader *l, const json_t *root, fm_tokenizer_rules *rules)
{
    FM_TRY(read_normalizer(l, json_object_get(root, "normalizer"), 0));
    FM_TRY(read_pre_tokenizer(l, json_object_get(root, "pre_tokenizer"), 0));
    if (!l->byte_level) return unsupported(l, "a pre_tokenizer without", "ByteLevel");
    const json_t *decoder = json_object_get(root, "decoder");
    const char *type = string_at(decoder, "type");
    if (decoder && !json_is_null(decoder) && (!type || strcmp(type, "ByteLevel") != 0))
        return unsupported(l, "decoder", type);
    rules->patterns = (const char *const *)l->patterns;
    rules->n_pattern = l->n_pattern;
    rules->nfc = l->nfc;
    return FM_OK;
}

/* ---- as a source ------------------------------------------------------------------------- */

static fm_status token_of(void *user, int32_t id, fm_text_span *out, fm_error *err)
{
    (void)err;
    const token_row *t = &((loader *)user)->tokens[id];
    *out = (fm_text_span){t->text, t->text ? strlen(t->text) : 0};
    return FM_OK;
}

static fm_status type_of(void *user, int32_t id, int32_t *out, fm_error *err)
{
    (void)err;
    *out = ((loader *)user)->tokens[id].kind;
    return FM_OK;
}

static unsigned added_flags(void *user, int32_t id)
{
    return ((loader *)user)->tokens[id].added;
}

static fm_status merge_of(void *user, int64_t i, fm_text_span *left, fm_text_span *right,
                          fm_error *err)
{
    const loader *l = user;
    const json_t *m = json_array_get(l->merges, (size_t)i);
    if (json_is_string(m)) {
        *left = (fm_text_span){json_string_value(m), json_string_length(m)};
        return FM_OK;
    }
    const json_t *a = json_array_get(m, 0), *b = json_array_get(m, 1);
    if (json_array_size(m) != 2 || !json_is_string(a) || !json_is_string(b))
        return fm_fail(err, FM_E_FORMAT, "%s: merge %lld: expected \"a b\" or [\"a\", \"b\"]",
                       l->origin, (long long)i);
    *left = (fm_text_span){json_string_value(a), json_string_length(a)};
    *right = (fm_text_span){json_string_value(b), json_string_length(b)};
    return FM_OK;
}

fm_status fm_tokenizer_from_json(fm_tokenizer **out, const char *json, size_t n, const char *origin,
                                 fm_error *err)
{
    *out = NULL;
    loader l = {.origin = origin, .err = err};
    fm_tokenizer_rules rules = {0};
    json_error_t why;
    json_t *root = fm_json_parse(json, n, JSON_REJECT_DUPLICATES, &why);
    fm_status st = FM_OK;
    if (!root) {
        st = fm_fail(err, FM_E_FORMAT, "%s: line %d, column %d: %s", origin, why.line, why.column,
                     why.text);
        goto done;
    }
    if (!json_is_object(root)) st = bad(&l, "the file", "a JSON object");
    if (st == FM_OK) st = read_model(&l, root, &rules);
    if (st == FM_OK) st = read_rules(&l, root, &rules);
    if (st == FM_OK && l.n_token == 0) st = bad(&l, "model.vocab", "at least one token");
    if (st == FM_OK) {
        const fm_tokenizer_source src = {
            .origin = origin,
            .model = "gpt2",
            .rules = &rules,
            .user = &l,
            .n_token = l.n_token,
            .token = token_of,
            .token_type = type_of,
            .added = added_flags,
            .n_merge = (int64_t)json_array_size(l.merges),
            .merge = merge_of,
        };
        st = fm_tokenizer_create(out, &src, err);
    }

done:
    for (size_t i = 0; i < l.n_pattern; i++) free(l.patterns[i]);
    free(l.tokens);
    json_decref(root);
    return st;
}
