/* Which tensors fm_quantize() writes, in which type, and what is changed on the way so that every reader of GGUF files
 * finds what it expects: fused gate and up matrices of directories are written as two, value heads of qwen35moe directories
 * are put into the order that GGUF files have, kv_b of latent attention is written as two matrices for each head. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "engine/quantize_internal.h"
#include "quant/encode.h"

static bool ends_with(const char *name, const char *tail)
{
    const size_t n = strlen(name), k = strlen(tail);
    return n >= k && strcmp(name + n - k, tail) == 0;
}

static bool is_expert(const char *name)
{
    return strstr(name, "_exps.weight") != NULL;
}

/* Matrices stay numbers of 32 bits where they are small and decide much: routers, gates, convolutions, the weights with which
 * an indexer's heads count when it chooses positions. */
static bool stays_f32(const fm_tensor_info *t)
{
    const char *const name = t->name;
    return t->n_dim < 2 || (t->dim[1] == 1 && t->dim[2] == 1) || ends_with(name, ".bias") ||
           strstr(name, "ffn_gate_inp") != NULL || strstr(name, "ssm_conv1d") != NULL ||
           strstr(name, "norm.weight") != NULL || strstr(name, "attn_sinks") != NULL ||
           ends_with(name, ".indexer.proj.weight");
}

/* What rows of `columns` can be when they do not fit the type that was asked for. */
static uint32_t fitting_type(uint32_t type, int64_t columns)
{
    const fm_type_traits *t = fm_type_get(type);
    if (columns % t->block_elems == 0) return type;
    if (t->block_elems == 256 && columns % 32 == 0)
        return type == FM_TYPE_Q2_K || type == FM_TYPE_Q3_K ? FM_TYPE_Q4_0 : FM_TYPE_Q8_0;
    return FM_TYPE_F16;
}

/* Layer number of "blk.N.", or -1. */
static int64_t layer_of(const char *name)
{
    if (strncmp(name, "blk.", 4) != 0) return -1;
    char *end;
    const long n = strtol(name + 4, &end, 10);
    return end > name + 4 && *end == '.' ? n : -1;
}

typedef struct {
    int64_t state, n_key, n_value;
} head_sizes;

/* Of a qwen35moe directory; n_key 0: heads stay as they are. */
static fm_status read_heads(const fm_checkpoint *c, head_sizes *h, fm_error *err)
{
    bool grouped;
    fm_str arch;
    *h = (head_sizes){0};
    FM_TRY(fm_meta_str(c, "general.architecture", &arch, err));
    FM_TRY(fm_meta_bool_or(c, "qwen35moe.ssm.grouped_value_heads", &grouped, false, err));
    if (!grouped || strcmp(arch.data, "qwen35moe") != 0) return FM_OK;
    uint32_t state, n_key, n_value;
    FM_TRY(fm_meta_u32(c, "qwen35moe.ssm.state_size", &state, err));
    FM_TRY(fm_meta_u32(c, "qwen35moe.ssm.group_count", &n_key, err));
    FM_TRY(fm_meta_u32(c, "qwen35moe.ssm.time_step_rank", &n_value, err));
    if (n_key < 1 || n_value < 1 || n_value % n_key != 0 || state < 1 || state > 65536 ||
        n_value > 65536)
        return fm_fail(err, FM_E_FORMAT, "%s: %u key and %u value heads of %u",
                       fm_checkpoint_file(c, 0), n_key, n_value, state);
    *h = (head_sizes){state, n_key, n_value};
    return FM_OK;
}

static fm_status set_heads(fm_quantize_tensor *t, const char *file, const head_sizes *h,
                           fm_error *err)
{
    static const struct {
        const char *tail;
        fm_head_axis axis;
        int after_keys; /* heads of q and k come before */
        int whole;      /* a head has `state` rows or columns, else one */
    } table[] = {
        {".attn_qkv.weight", FM_HEADS_IN_ROWS, 1, 1},
        {".attn_gate.weight", FM_HEADS_IN_ROWS, 0, 1},
        {".ssm_beta.weight", FM_HEADS_IN_ROWS, 0, 0},
        {".ssm_alpha.weight", FM_HEADS_IN_ROWS, 0, 0},
        {".ssm_conv1d.weight", FM_HEADS_IN_ROWS, 1, 1},
        {".ssm_out.weight", FM_HEADS_IN_COLUMNS, 0, 1},
        {".ssm_a", FM_HEADS_IN_COLUMNS, 0, 0},
        {".ssm_dt.bias", FM_HEADS_IN_COLUMNS, 0, 0},
    };
    if (h->n_key == 0 || h->n_key == h->n_value) return FM_OK;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!ends_with(t->name, table[i].tail)) continue;
        t->axis = table[i].axis;
        t->unit = table[i].whole ? h->state : 1;
        t->first = table[i].after_keys ? 2 * h->n_key * h->state : 0;
        t->n_key = h->n_key;
        t->n_value = h->n_value;
        const int64_t have = t->dim[t->axis == FM_HEADS_IN_ROWS],
                      want = t->first + h->n_value * t->unit;
        if (have != want)
            return fm_fail(err, FM_E_FORMAT, "%s: tensor %s has %" PRId64 " %s, expected %" PRId64,
                           file, t->name, have, t->axis == FM_HEADS_IN_ROWS ? "rows" : "columns",
                           want);
    }
    return FM_OK;
}

static fm_status set_type(fm_quantize_plan *p, fm_quantize_tensor *t,
                          const fm_quantize_types *types, fm_error *err)
{
    const fm_tensor_info *from = t->from;
    const fm_type_traits *have = fm_type_get(from->type);
    const char *const file = fm_checkpoint_file(p->source, from->file);
    if (!have)
        return fm_fail(err, FM_E_UNSUPPORTED, "%s: tensor %s is of type %s, which is not decoded",
                       file, from->name,
                       fm_type_name(from->type) ? fm_type_name(from->type) : "(unknown)");
    const uint32_t asked = stays_f32(from)      ? FM_TYPE_F32
                           : is_expert(t->name) ? types->expert
                                                : types->trunk;
    t->type = fitting_type(asked, t->dim[0]);
    t->is_fallback = t->type != asked;
    t->is_copy = t->type == from->type && have->n_plane == 0 && from->fix == FM_FIX_NONE &&
                 from->order.n_part == 0 && !from->each && !from->source && !from->by_columns &&
                 t->row0 == 0 && t->head_rows == 0 && t->dim[0] == from->dim[0] &&
                 t->axis == FM_HEADS_AS_THEY_ARE && t->dim[1] == from->dim[1];
    const uint64_t row = fm_type_row_bytes(fm_type_get(t->type), t->dim[0]);
    uint64_t rows;
    if (row == 0 || !fm_mul_u64((uint64_t)t->dim[1], (uint64_t)t->dim[2], &rows) ||
        !fm_mul_u64(rows, (uint64_t)t->dim[3], &rows) || !fm_mul_u64(rows, row, &t->bytes) ||
        t->bytes > INT64_MAX / 4)
        return fm_fail(err, FM_E_FORMAT, "%s: tensor %s: no size for %" PRId64 " columns", file,
                       from->name, t->dim[0]);
    if (t->dim[3] != 1)
        return fm_fail(err, FM_E_UNSUPPORTED, "%s: tensor %s has four dimensions", file,
                       from->name);
    p->n_fallback += t->is_fallback;
    p->n_copied += t->is_copy;
    return FM_OK;
}

typedef struct {
    int64_t head_rows, row0;
    bool is_transposed;
    int64_t dim[3];
} head_split;

/* part: 0 the whole tensor, 1 and 2 the halves of its rows (of a bias, of its columns). split: NULL but where heads become
 * matrices. */
static fm_status add(fm_quantize_plan *p, const fm_tensor_info *from, const char *name, int part,
                     const head_sizes *heads, const head_split *split,
                     const fm_quantize_types *types, fm_error *err)
{
    fm_quantize_tensor *t = &p->tensor[p->n_tensor];
    *t = (fm_quantize_tensor){.from = from, .n_dim = from->n_dim};
    memcpy(t->dim, from->dim, sizeof t->dim);
    t->name = strdup(name);
    if (!t->name) return fm_fail(err, FM_E_NOMEM, "no memory for the list of tensors");
    p->n_tensor++;
    if (part > 0) {
        const int axis = ends_with(name, ".bias") ? 0 : 1;
        t->dim[axis] = from->dim[axis] / 2;
        *(axis == 0 ? &t->column0 : &t->row0) = part == 2 ? t->dim[axis] : 0;
    }
    if (split) {
        t->n_dim = 3;
        memcpy(t->dim, split->dim, sizeof split->dim);
        t->head_rows = split->head_rows;
        t->row0 = split->row0;
        t->is_transposed = split->is_transposed;
    }
    FM_TRY(set_heads(t, fm_checkpoint_file(p->source, from->file), heads, err));
    return set_type(p, t, types, err);
}

static fm_status add_split(fm_quantize_plan *p, const fm_tensor_info *from,
                           const fm_quantize_types *types, fm_error *err)
{
    static const char *const names[] = {"ffn_gate_exps", "ffn_up_exps"};
    static const head_sizes none = {0};
    const bool is_bias = ends_with(from->name, ".bias");
    const int64_t n = from->dim[is_bias ? 0 : 1];
    if (n % 2 != 0)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: tensor %s has %" PRId64 " rows, expected an even number",
                       fm_checkpoint_file(p->source, from->file), from->name, n);
    const int stem = (int)(strstr(from->name, "ffn_gate_up_exps") - from->name);
    for (int i = 0; i < 2; i++) {
        char name[256];
        snprintf(name, sizeof name, "%.*s%s.%s", stem, from->name, names[i],
                 is_bias ? "bias" : "weight");
        FM_TRY(add(p, from, name, i + 1, &none, NULL, types, err));
    }
    return FM_OK;
}

/* Sizes of latent attention's heads, to see that kv_b has just them. */
typedef struct {
    int64_t n_head, nope, value, latent, rot;
} latent_sizes;

static fm_status read_latent(const fm_checkpoint *c, latent_sizes *l, fm_error *err)
{
    static const char *const keys[] = {"attention.head_count", "attention.key_length_mla",
                                       "attention.value_length_mla", "attention.kv_lora_rank",
                                       "rope.dimension_count"};
    uint32_t v[5];
    fm_str arch;
    FM_TRY(fm_meta_str(c, "general.architecture", &arch, err));
    for (int i = 0; i < 5; i++) {
        char key[160];
        snprintf(key, sizeof key, "%.100s.%s", arch.data, keys[i]);
        FM_TRY(fm_meta_u32(c, key, &v[i], err));
        if (v[i] < 1 || v[i] > 1 << 20)
            return fm_fail(err, FM_E_FORMAT, "%s: %s is %u, expected 1 to %d",
                           fm_checkpoint_file(c, 0), key, v[i], 1 << 20);
    }
    *l = (latent_sizes){v[0], (int64_t)v[1] - v[4], v[2], v[3], v[4]};
    if (l->nope < 1)
        return fm_fail(err, FM_E_FORMAT, "%s: %u rotary values in a head of %u, expected fewer",
                       fm_checkpoint_file(c, 0), v[4], v[1]);
    return FM_OK;
}

/* kv_b, per head the rows of its key matrix, then those of its value matrix, as attn_k_b [head][latent][nope], which is
 * what a query is multiplied with, and attn_v_b [head][value][latent]. */
static fm_status add_latent(fm_quantize_plan *p, const fm_tensor_info *from,
                            const fm_quantize_types *types, fm_error *err)
{
    static const head_sizes none = {0};
    latent_sizes l = {0};
    FM_TRY(read_latent(p->source, &l, err));
    const int64_t rows = l.n_head * (l.nope + l.value);
    if (from->dim[0] != l.latent || from->dim[1] != rows || from->dim[2] != 1 || from->by_columns ||
        from->order.n_part > 0 || from->source)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: tensor %s is %" PRId64 " x %" PRId64 ", expected %" PRId64 " x %" PRId64
                       " in its rows' order",
                       fm_checkpoint_file(p->source, from->file), from->name, from->dim[1],
                       from->dim[0], rows, l.latent);
    p->n_latent = l.latent;
    p->n_rot = l.rot;
    const int stem = (int)(strstr(from->name, "attn_kv_b") - from->name);
    for (int i = 0; i < 2; i++) {
        const head_split split = {.head_rows = l.nope + l.value,
                                  .row0 = i ? l.nope : 0,
                                  .is_transposed = i == 0,
                                  .dim = {i ? l.latent : l.nope, i ? l.value : l.latent, l.n_head}};
        char name[256];
        snprintf(name, sizeof name, "%.*sattn_%c_b.weight", stem, from->name, i ? 'v' : 'k');
        FM_TRY(add(p, from, name, 0, &none, &split, types, err));
    }
    return FM_OK;
}

fm_status fm_quantize_make_plan(fm_quantize_plan *p, const fm_quantize_types *types, fm_error *err)
{
    const fm_checkpoint *c = p->source;
    const int64_t n = fm_checkpoint_n_tensor(c);
    fm_str arch;
    char key[160];
    uint32_t n_block, n_draft;
    FM_TRY(fm_meta_str(c, "general.architecture", &arch, err));
    snprintf(key, sizeof key, "%.100s.block_count", arch.data);
    FM_TRY(fm_meta_u32(c, key, &n_block, err));
    snprintf(key, sizeof key, "%.100s.nextn_predict_layers", arch.data);
    FM_TRY(fm_meta_u32_or(c, key, &n_draft, 0, err));
    if (n_draft >= n_block)
        return fm_fail(err, FM_E_FORMAT, "%s: %s is %u of %u layers", fm_checkpoint_file(c, 0), key,
                       n_draft, n_block);
    p->n_layer = n_block - n_draft;
    head_sizes heads;
    FM_TRY(read_heads(c, &heads, err));
    p->tiles_heads = heads.n_key > 0;
    p->tensor = calloc((size_t)(2 * n + 1), sizeof *p->tensor);
    if (!p->tensor) return fm_fail(err, FM_E_NOMEM, "no memory for the list of tensors");
    for (int64_t i = 0; i < n; i++) {
        const fm_tensor_info *t = fm_checkpoint_tensor(c, i);
        if (layer_of(t->name) >= (int64_t)p->n_layer) {
            p->n_draft++;
            continue;
        }
        p->source_bytes += fm_tensor_bytes(t);
        const bool is_ours = fm_checkpoint_directory(c) != NULL;
        if (is_ours && strstr(t->name, "ffn_gate_up_exps."))
            FM_TRY(add_split(p, t, types, err));
        else if (is_ours && ends_with(t->name, ".attn_kv_b.weight"))
            FM_TRY(add_latent(p, t, types, err));
        else
            FM_TRY(add(p, t, t->name, 0, &heads, NULL, types, err));
        if (is_ours && ends_with(t->name, ".attn_k_b.weight")) { /* MLX: split already */
            latent_sizes l = {0};
            FM_TRY(read_latent(c, &l, err));
            p->n_latent = l.latent;
            p->n_rot = l.rot;
        }
    }
    return FM_OK;
}

void fm_quantize_free_plan(fm_quantize_plan *p)
{
    for (int64_t i = 0; i < p->n_tensor; i++) free(p->tensor[i].name);
    free(p->tensor);
    fm_checkpoint_close(p->source);
}
