/* Metadata of what fm_quantize() writes. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "engine/quantize_internal.h"

/* general.file_type, as llama.cpp numbers what most of a file is. */
static uint32_t file_type(uint32_t type)
{
    static const struct {
        uint32_t type, number;
    } table[] = {
        {FM_TYPE_F32, 0},   {FM_TYPE_F16, 1},   {FM_TYPE_Q4_0, 2},   {FM_TYPE_Q8_0, 7},
        {FM_TYPE_Q2_K, 10}, {FM_TYPE_Q3_K, 11}, {FM_TYPE_Q4_K, 14},  {FM_TYPE_Q5_K, 16},
        {FM_TYPE_Q6_K, 18}, {FM_TYPE_BF16, 32}, {FM_TYPE_MXFP4, 38},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].type == type) return table[i].number;
    return 0;
}

static bool is_key(const char *key, const char *arch, const char *tail)
{
    const size_t n = strlen(arch);
    return strncmp(key, arch, n) == 0 && key[n] == '.' && strcmp(key + n + 1, tail) == 0;
}

/* Keys that are not true of the destination, or are written anew. */
static bool is_left_out(const char *key, const char *arch, const fm_quantize_plan *p,
                        bool has_importance)
{
    if (fm_checkpoint_directory(p->source) && strcmp(key, "tokenizer.ggml.pre") == 0) return true;
    if (has_importance && strncmp(key, "quantize.imatrix.", 17) == 0) return true;
    static const char *const names[] = {
        "general.alignment", "general.file_type", "general.quantization_version",
        "split.no",          "split.count",       "split.tensors.count"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(key, names[i]) == 0) return true;
    return is_key(key, arch, "block_count") || is_key(key, arch, "nextn_predict_layers") ||
           (p->tiles_heads && is_key(key, arch, "ssm.grouped_value_heads")) ||
           (p->n_latent > 0 && (is_key(key, arch, "attention.head_count_kv") ||
                                is_key(key, arch, "attention.key_length") ||
                                is_key(key, arch, "attention.value_length")));
}

/* What config.json says and our reader does not need, but others do. */
static fm_status put_sections(fm_gguf_writer *w, const char *directory, const char *arch,
                              fm_error *err)
{
    json_t *root;
    FM_TRY(fm_quantize_load_json(&root, directory, "config.json", err));
    const json_t *text = json_object_get(root, "text_config");
    if (!json_is_object(text)) text = root;
    static const char *const places[] = {"rope_parameters", "rope_scaling"};
    const json_t *sections = NULL;
    for (int i = 0; i < 2 && !sections; i++)
        sections = json_object_get(json_object_get(text, places[i]), "mrope_section");
    const size_t n = json_array_size(sections);
    /* llama.cpp refuses a qwen35moe without; its converter takes the published models' where a configuration (of their text
     * part alone) has none. With one position per token they all mean the same. */
    const bool is_qwen35 = strcmp(arch, "qwen35moe") == 0;
    int32_t v[4] = {11, 11, 10, 0};
    if (n > 0) memset(v, 0, sizeof v);
    for (size_t i = 0; i < n && i < 4; i++) {
        const json_int_t s = json_integer_value(json_array_get(sections, i));
        v[i] = s > 0 && s < 65536 ? (int32_t)s : 0;
    }
    char key[200];
    snprintf(key, sizeof key, "%.100s.rope.dimension_sections", arch);
    if (n > 0 || is_qwen35) fm_gguf_put_i32_array(w, key, v, 4);
    json_decref(root);
    return FM_OK;
}

/* With k_b and v_b apart the heads share one key, latent and rotary values, of which the latent is the value. What a head has
 * before that is in the keys that end in _mla. */
static void put_absorbed(fm_gguf_writer *w, const fm_quantize_plan *p, const char *arch)
{
    const struct {
        const char *tail;
        int64_t v;
    } keys[] = {{"head_count_kv", 1},
                {"key_length", p->n_latent + p->n_rot},
                {"value_length", p->n_latent}};
    for (int i = 0; i < 3; i++) {
        char key[200];
        snprintf(key, sizeof key, "%.100s.attention.%s", arch, keys[i].tail);
        fm_gguf_put_u32(w, key, (uint32_t)keys[i].v);
    }
}

fm_status fm_quantize_put_meta(fm_gguf_writer *w, const fm_quantize_plan *p,
                               const fm_quantize_types *types, const char *importance,
                               fm_error *err)
{
    const fm_checkpoint *c = p->source;
    fm_str arch;
    char key[200];
    FM_TRY(fm_meta_str(c, "general.architecture", &arch, err));
    /* Readers look for the architecture first. */
    fm_gguf_put_text(w, "general.architecture", arch.data, arch.len);
    for (uint32_t i = 0; i < fm_meta_count(c); i++) {
        const char *k = fm_meta_key(c, i);
        if (strcmp(k, "general.architecture") != 0 &&
            !is_left_out(k, arch.data, p, importance != NULL))
            fm_gguf_put_meta(w, c, i);
    }
    snprintf(key, sizeof key, "%.100s.block_count", arch.data);
    fm_gguf_put_u32(w, key, p->n_layer);
    if (p->n_latent > 0) put_absorbed(w, p, arch.data);
    fm_gguf_put_u32(w, "general.file_type", file_type(types->expert));
    fm_gguf_put_u32(w, "general.quantization_version", 2);
    if (importance) fm_gguf_put_str(w, "quantize.imatrix.file", importance);
    const char *directory = fm_checkpoint_directory(c);
    if (!directory) return FM_OK;
    if (!fm_meta_has(c, "general.type")) fm_gguf_put_str(w, "general.type", "model");
    return put_sections(w, directory, arch.data, err);
}
