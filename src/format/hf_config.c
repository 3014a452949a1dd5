/* config.json into metadata with GGUF's keys; the tables of the families are in hf_<family>.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_parse.h"
#include "format/gguf_types.h"
#include "format/hf_adapter.h"

static const char *entry_key(const void *owner, uint32_t i)
{
    return ((const fm_meta_set *)owner)->entries[i].key;
}

/* A new entry, or NULL with *err. */
static fm_meta_entry *add(fm_checkpoint *c, const char *arch, const char *key, uint32_t type,
                          fm_error *err)
{
    fm_meta_set *m = &c->meta;
    char full[160];
    snprintf(full, sizeof full, "%s%s%s", arch ? arch : "", arch ? "." : "", key);
    const size_t n = strlen(full) + 1;
    char *copy = fm_string_arena_take(&m->strings, n);
    if (m->n_entry == m->cap_entry) {
        const uint32_t cap = m->cap_entry ? 2 * m->cap_entry : 64;
        fm_meta_entry *grown = realloc(m->entries, cap * sizeof *grown);
        if (grown) {
            m->entries = grown;
            m->cap_entry = cap;
        }
    }
    if (!copy || m->n_entry == m->cap_entry) {
        fm_fail(err, FM_E_NOMEM, "no memory for metadata");
        return NULL;
    }
    memcpy(copy, full, n);
    fm_meta_entry *e = &m->entries[m->n_entry++];
    *e = (fm_meta_entry){.key = copy, .type = type};
    if (fm_name_index_add(&m->index, entry_key, m)) return e;
    m->n_entry--;
    fm_fail(err, FM_E_NOMEM, "no memory for metadata");
    return NULL;
}

fm_status fm_hf_put_uint(fm_checkpoint *c, const char *arch, const char *key, uint64_t v,
                         fm_error *err)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s%s", arch ? arch : "", arch ? "." : "", key);
    const uint32_t i = fm_name_index_find(&c->meta.index, entry_key, &c->meta, full);
    fm_meta_entry *e =
        i != UINT32_MAX ? &c->meta.entries[i] : add(c, arch, key, FM_GGUF_U64, err);
    if (!e) return FM_E_NOMEM;
    e->type = FM_GGUF_U64;
    e->value.u = v;
    return FM_OK;
}

fm_status fm_hf_put_float(fm_checkpoint *c, const char *arch, const char *key, double v,
                          fm_error *err)
{
    fm_meta_entry *e = add(c, arch, key, FM_GGUF_F64, err);
    if (!e) return FM_E_NOMEM;
    e->value.f = v;
    return FM_OK;
}

fm_status fm_hf_put_bool(fm_checkpoint *c, const char *arch, const char *key, bool v, fm_error *err)
{
    fm_meta_entry *e = add(c, arch, key, FM_GGUF_BOOL, err);
    if (!e) return FM_E_NOMEM;
    e->value.u = v;
    return FM_OK;
}

fm_status fm_hf_put_str(fm_checkpoint *c, const char *arch, const char *key, const char *v,
                        fm_error *err)
{
    const size_t n = strlen(v);
    char *copy = fm_string_arena_take(&c->meta.strings, n + 1);
    fm_meta_entry *e = copy ? add(c, arch, key, FM_GGUF_STRING, err) : NULL;
    if (!e) return FM_E_NOMEM;
    memcpy(copy, v, n + 1);
    e->value.s = (fm_str){copy, n};
    return FM_OK;
}

fm_status fm_hf_put_bools(fm_checkpoint *c, const char *arch, const char *key, const bool *v,
                          size_t n, fm_error *err)
{
    unsigned char *data = malloc(n + 1);
    fm_meta_entry *e = data ? add(c, arch, key, FM_GGUF_ARRAY, err) : NULL;
    if (!e) {
        free(data);
        return fm_fail(err, FM_E_NOMEM, "no memory for metadata");
    }
    for (size_t i = 0; i < n; i++) data[i] = v[i];
    e->elem_type = FM_GGUF_BOOL;
    e->count = n;
    e->data = data;
    e->heap_bytes = n + 1;
    return FM_OK;
}

static fm_status copy_key(fm_checkpoint *c, const fm_hf_adapter *a, const fm_hf_key *k,
                          const json_t *text, const char *path, fm_error *err)
{
    const json_t *v = json_object_get(text, k->hf);
    if (!v || json_is_null(v)) {
        if (k->optional) return FM_OK;
        return fm_fail(err, FM_E_FORMAT, "%s: %s is missing", path, k->hf);
    }
    if (k->kind == FM_HF_INT) {
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return fm_fail(err, FM_E_FORMAT, "%s: %s: expected an integer of at least 0", path,
                           k->hf);
        return fm_hf_put_uint(c, a->architecture, k->key, (uint64_t)json_integer_value(v), err);
    }
    if (k->kind == FM_HF_BOOL) {
        if (!json_is_boolean(v))
            return fm_fail(err, FM_E_FORMAT, "%s: %s: expected true or false", path, k->hf);
        return fm_hf_put_bool(c, a->architecture, k->key, json_is_true(v), err);
    }
    if (!json_is_number(v) || !isfinite(json_number_value(v)))
        return fm_fail(err, FM_E_FORMAT, "%s: %s: expected a number", path, k->hf);
    return fm_hf_put_float(c, a->architecture, k->key, json_number_value(v), err);
}

fm_status fm_hf_read_config(fm_checkpoint *c, const char *path, const char *json, size_t n,
                            const fm_hf_adapter **adapter, json_t **root, fm_error *err)
{
    json_error_t why;
    *adapter = NULL;
    *root = fm_json_parse(json, n, 0, &why);
    if (!*root) return fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", path, why.line, why.text);
    if (!json_is_object(*root)) return fm_fail(err, FM_E_FORMAT, "%s: expected an object", path);
    /* Multimodal checkpoints keep the language model's values apart. */
    const json_t *text = json_object_get(*root, "text_config");
    if (!json_is_object(text)) text = *root;
    const char *type = json_string_value(json_object_get(text, "model_type"));
    if (!type) type = json_string_value(json_object_get(*root, "model_type"));
    if (!type) return fm_fail(err, FM_E_FORMAT, "%s: model_type is missing", path);
    const fm_hf_adapter *a = fm_hf_adapter_find(type);
    if (!a) a = fm_hf_adapter_find(json_string_value(json_object_get(*root, "model_type")));
    if (!a) {
        char known[400];
        fm_hf_adapter_names(known, sizeof known);
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: model_type \"%.60s\" is not supported; these are: %s", path, type,
                       known);
    }
    *adapter = a;
    FM_TRY(fm_hf_put_str(c, NULL, "general.architecture", a->architecture, err));
    FM_TRY(fm_hf_put_str(c, NULL, "tokenizer.ggml.pre", a->tokenizer, err));
    for (const fm_hf_key *k = a->keys; k->hf; k++) FM_TRY(copy_key(c, a, k, text, path, err));
    return a->more(c, text, path, err);
}
