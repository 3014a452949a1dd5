/* Joins what a directory stores apart (codes, scales and biases; the experts of a layer) into tensors with GGUF's names,
 * which the model asks for; in which format each is stored, hf_storage.c finds out. */
#include "format/hf_tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "format/hf_storage.h"
#include "quant/planar.h"

enum { NAME_MAX_BYTES = 96, NONE = -1 };

/* Every part is a stored tensor at least, so a directory that lacks some has fewer parts than this for each of its
 * tensors, and is told which is missing; one that claims more would only cost memory. */
enum { PARTS_PER_TENSOR = 16 };

/* What a stored tensor is to its module. */
typedef enum { ROLE_CODES, ROLE_SCALES, ROLE_BIASES, ROLE_BIAS, ROLE_SHAPE } role;

static const struct {
    const char *suffix;
    role role;
} suffixes[] = {
    {".weight", ROLE_CODES},        {".weight_scale_inv", ROLE_SCALES},
    {".scales", ROLE_SCALES},       {".biases", ROLE_BIASES},
    {".weight_packed", ROLE_CODES}, {".weight_scale", ROLE_SCALES},
    {".weight_shape", ROLE_SHAPE},  {".bias", ROLE_BIAS},
    {"_blocks", ROLE_CODES},        {"_scales", ROLE_SCALES},
    {"_bias", ROLE_BIAS},           {"", ROLE_CODES},
};

/* A tensor in the making. part [n_part][FM_MAX_PLANES]: numbers in the raw set, NONE; one part, or one per expert. */
typedef struct {
    char name[NAME_MAX_BYTES];
    const fm_hf_name *entry;
    int32_t *part;
    int32_t n_part;
    bool is_bias;
    bool is_bare; /* stored under the module's name alone */
} assembly;

typedef struct {
    fm_checkpoint *c;
    const fm_hf_adapter *a;
    const json_t *quantization; /* of config.json, or NULL */
    const fm_raw_set *raw;
    fm_error *err;
    int64_t n_layer, n_expert;
    bool norms_have_one; /* converted by MLX */
    assembly *list;
    uint32_t n, cap;
    uint64_t n_part; /* of the whole list */
    fm_name_index index;
} mapper;

static const char *assembly_name(const void *owner, uint32_t i)
{
    return ((const mapper *)owner)->list[i].name;
}

static fm_status no_memory(mapper *m)
{
    return fm_fail(m->err, FM_E_NOMEM, "%s: no memory for the tensor directory", m->c->directory);
}

static const char *path_of(const mapper *m, const fm_raw_tensor *t)
{
    return m->c->paths[t->at.file];
}

/* ---- names ------------------------------------------------------------------------------- */

static bool starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Behind the prefixes that multimodal checkpoints put in front. */
static const char *strip_prefix(const char *s)
{
    for (;;) {
        if (starts_with(s, "language_model."))
            s += strlen("language_model.");
        else if (starts_with(s, "model."))
            s += strlen("model.");
        else
            return s;
    }
}

static bool is_vision(const char *s)
{
    static const char *const prefixes[] = {"visual.", "vision_tower.", "vision_model.",
                                           "mm_projector.", "multi_modal_projector."};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (starts_with(s, prefixes[i])) return true;
    return false;
}

/* A number followed by a dot; returns what is behind, or NULL. */
static const char *read_number(const char *s, int64_t *out)
{
    const char *p = s;
    int64_t v = 0;
    for (; *p >= '0' && *p <= '9' && p - s < 9; p++) v = v * 10 + (*p - '0');
    *out = v;
    return p > s && *p == '.' ? p + 1 : NULL;
}

/* Compares module[n] with a pattern in which "*" is an expert's number. */
static bool matches(const char *pattern, const char *module, size_t n, int64_t *expert)
{
    const char *star = strchr(pattern, '*');
    *expert = NONE;
    if (!star) return strlen(pattern) == n && memcmp(pattern, module, n) == 0;
    const size_t before = (size_t)(star - pattern);
    if (n <= before || memcmp(pattern, module, before) != 0) return false;
    const char *rest = read_number(module + before, expert);
    return rest && (size_t)(module + n - rest) == strlen(star + 2) &&
           memcmp(rest, star + 2, strlen(star + 2)) == 0;
}

static fm_status find_assembly(mapper *m, const char *name, const fm_hf_name *entry, int32_t n_part,
                               assembly **out)
{
    uint32_t i = fm_name_index_find(&m->index, assembly_name, m, name);
    if (i == UINT32_MAX) {
        m->n_part += (uint64_t)n_part;
        if (m->n_part > (uint64_t)m->raw->n * PARTS_PER_TENSOR)
            return fm_fail(m->err, FM_E_FORMAT,
                           "%s: %s of %d experts, but only %u tensors are stored", m->c->directory,
                           name, n_part, m->raw->n);
        if (m->n == m->cap) {
            const uint32_t cap = m->cap ? 2 * m->cap : 256;
            assembly *grown = realloc(m->list, cap * sizeof *grown);
            if (!grown) return no_memory(m);
            m->list = grown;
            m->cap = cap;
        }
        i = m->n;
        assembly *a = &m->list[i];
        *a = (assembly){.entry = entry, .n_part = n_part};
        snprintf(a->name, sizeof a->name, "%s", name);
        const size_t n = (size_t)n_part * FM_MAX_PLANES;
        a->part = malloc(n * sizeof *a->part);
        if (!a->part) return no_memory(m);
        for (size_t k = 0; k < n; k++) a->part[k] = NONE;
        m->n++;
        if (!fm_name_index_add(&m->index, assembly_name, m)) return no_memory(m);
    }
    *out = &m->list[i];
    if ((*out)->n_part == n_part) return FM_OK;
    return fm_fail(m->err, FM_E_FORMAT, "%s: %s is stored both whole and expert by expert",
                   m->c->directory, name);
}

static fm_status unknown(mapper *m, const fm_raw_tensor *t)
{
    return fm_fail(m->err, FM_E_UNSUPPORTED,
                   "%s: tensor %.200s is not known for model_type %s, so the model would not be "
                   "computed as it was trained",
                   path_of(m, t), t->name, m->a->model_type);
}

/* The entry in `table` of a stored name without prefixes, or NULL. A table may list the whole name, so the longest module
 * comes first. */
static const fm_hf_name *find_entry(const fm_hf_name *table, const char *s, bool is_global, role *r,
                                    bool *is_bare, int64_t *expert)
{
    const size_t len = strlen(s);
    for (size_t i = sizeof suffixes / sizeof suffixes[0]; i-- > 0;) {
        const size_t n = strlen(suffixes[i].suffix);
        if (len <= n || strcmp(s + len - n, suffixes[i].suffix) != 0) continue;
        for (const fm_hf_name *e = table; e->module; e++) {
            if (e->global != is_global || !matches(e->module, s, len - n, expert)) continue;
            if (suffixes[i].role == ROLE_BIAS && !e->has_bias) continue;
            *r = suffixes[i].role;
            *is_bare = n == 0;
            return e;
        }
    }
    return NULL;
}

/* Files a stored tensor as (a plane of) what the entry names. */
static fm_status file_part(mapper *m, uint32_t number, const fm_hf_name *e, role r, bool is_bare,
                           int64_t layer, int64_t expert)
{
    const fm_raw_tensor *t = &m->raw->tensors[number];
    if (r == ROLE_SHAPE) return FM_OK; /* repeats what the packed shape says */
    if (expert >= m->n_expert)
        return fm_fail(m->err, FM_E_FORMAT, "%s: tensor %.200s, but there are %" PRId64 " experts",
                       path_of(m, t), t->name, m->n_expert);
    char name[NAME_MAX_BYTES], at_layer[32] = "";
    if (layer != NONE) snprintf(at_layer, sizeof at_layer, "blk.%" PRId64 ".", layer);
    snprintf(name, sizeof name, "%s%s%s", at_layer, e->name,
             r == ROLE_BIAS ? ".bias"
             : e->whole     ? ""
                            : ".weight");
    assembly *a = NULL;
    FM_TRY(find_assembly(m, name, e, expert == NONE ? 1 : (int32_t)m->n_expert, &a));
    a->is_bias = r == ROLE_BIAS;
    if (is_bare) a->is_bare = true;
    const int plane = r == ROLE_SCALES ? 1 : r == ROLE_BIASES ? 2 : 0;
    int32_t *slot = &a->part[(expert == NONE ? 0 : expert) * FM_MAX_PLANES + plane];
    if (*slot != NONE)
        return fm_fail(m->err, FM_E_FORMAT, "%s: tensors %.100s and %.100s are the same weight",
                       path_of(m, t), m->raw->tensors[*slot].name, t->name);
    *slot = (int32_t)number;
    return FM_OK;
}

/* A number followed by a dot behind "layers."; s is then what follows. *is_odd: there is no number. */
static int64_t read_layer(const char **s, bool *is_odd)
{
    int64_t layer = NONE;
    *is_odd = false;
    if (!starts_with(*s, "layers.")) return NONE;
    const char *rest = read_number(*s + strlen("layers."), &layer);
    *is_odd = !rest;
    if (rest) *s = rest;
    return layer;
}

/* Tensors of draft layers are below "mtp.", or in layers behind the last. */
static bool is_draft(const mapper *m, const char *s)
{
    bool is_odd;
    return starts_with(s, "mtp.") || (read_layer(&s, &is_odd) >= m->n_layer && !is_odd);
}

/* Files one stored tensor of the model itself. */
static fm_status take(mapper *m, uint32_t number)
{
    const fm_raw_tensor *t = &m->raw->tensors[number];
    const char *s = strip_prefix(t->name);
    int64_t expert = NONE;
    if (is_vision(s)) {
        m->c->unused.n_vision++;
        m->c->unused.vision_bytes += t->at.bytes;
        return FM_OK;
    }
    if (is_draft(m, s)) return FM_OK; /* take_draft_layers() */
    bool is_odd, is_bare;
    const int64_t layer = read_layer(&s, &is_odd);
    if (is_odd) return unknown(m, t);
    if (strstr(s, "rotary_emb.inv_freq")) return FM_OK; /* follows from the configuration */
    role r;
    const fm_hf_name *const e = find_entry(m->a->names, s, layer == NONE, &r, &is_bare, &expert);
    if (!e) return unknown(m, t);
    return file_part(m, number, e, r, is_bare, layer, expert);
}

/* ---- draft layers ------------------------------------------------------------------------ */

/* What was found of the first draft layer. */
typedef struct {
    uint32_t first; /* assembly of the layer, to the end of the list */
    int64_t n_filed;
    uint64_t filed_bytes;
    bool has_unknown; /* a tensor that no table has */
} draft_layer;

static void leave_out(mapper *m, int64_t n, uint64_t bytes)
{
    m->c->unused.n_draft += n;
    m->c->unused.draft_bytes += bytes;
}

/* Files one stored tensor of the first draft layer as a layer behind the last; those of others, and copies of shared
 * tensors, are left out. */
static fm_status take_draft(mapper *m, uint32_t number, draft_layer *d)
{
    const fm_raw_tensor *t = &m->raw->tensors[number];
    const char *s = strip_prefix(t->name);
    const bool is_mtp = starts_with(s, "mtp.");
    if (is_mtp) s += strlen("mtp.");
    bool is_odd, is_bare = false;
    int64_t layer = read_layer(&s, &is_odd), expert = NONE;
    const bool in_layer = layer != NONE;
    if (!is_mtp) layer -= m->n_layer;
    if (strstr(s, "rotary_emb.inv_freq")) return FM_OK;
    if (!m->a->draft || (in_layer && layer != 0)) {
        leave_out(m, 1, t->at.bytes);
        return FM_OK;
    }
    role r = ROLE_CODES;
    const fm_hf_name *e = NULL;
    if (!is_mtp || !in_layer) e = find_entry(m->a->draft, s, false, &r, &is_bare, &expert);
    if (!e && in_layer) e = find_entry(m->a->names, s, false, &r, &is_bare, &expert);
    if (!e || !e->name) {
        d->has_unknown = d->has_unknown || !e;
        leave_out(m, 1, t->at.bytes);
        return FM_OK;
    }
    const fm_status st = file_part(m, number, e, r, is_bare, m->n_layer, expert);
    if (st == FM_E_FORMAT) { /* no reason to refuse the model: it answers without */
        d->has_unknown = true;
        leave_out(m, 1, t->at.bytes);
        return FM_OK;
    }
    d->n_filed += st == FM_OK;
    d->filed_bytes += st == FM_OK ? t->at.bytes : 0;
    return st;
}

static bool has(const mapper *m, int64_t layer, const char *tail)
{
    char name[NAME_MAX_BYTES + 32];
    snprintf(name, sizeof name, "blk.%" PRId64 ".%s", layer, tail);
    return fm_name_index_find(&m->index, assembly_name, m, name) != UINT32_MAX;
}

/* The tensor, or the same in another form: gate and up of the experts may be fused in one layer and not in another. */
static bool has_like(const mapper *m, int64_t layer, const char *tail)
{
    static const char fused[] = "ffn_gate_up_exps.weight", gate[] = "ffn_gate_exps.weight",
                      up[] = "ffn_up_exps.weight";
    if (has(m, layer, tail)) return true;
    if (strcmp(tail, fused) == 0) return has(m, layer, gate) && has(m, layer, up);
    return (strcmp(tail, gate) == 0 || strcmp(tail, up) == 0) && has(m, layer, fused);
}

/* Whether the layer has exactly the tensors of the model's last layer with attention over all positions, and those that
 * draft layers have besides, none without a weight. */
static bool is_whole(const mapper *m, const draft_layer *d)
{
    int64_t model = m->n_layer - 1;
    while (model >= 0 && !has(m, model, "attn_q.weight")) model--;
    if (model < 0 || d->has_unknown) return false;
    for (const fm_hf_name *e = m->a->draft; e->module; e++) {
        char tail[NAME_MAX_BYTES];
        snprintf(tail, sizeof tail, "%s.weight", e->name ? e->name : "");
        if (e->name && !has(m, m->n_layer, tail)) return false;
    }
    char prefix[32];
    const int n = snprintf(prefix, sizeof prefix, "blk.%" PRId64 ".", model);
    for (uint32_t i = 0; i < d->first; i++)
        if (starts_with(m->list[i].name, prefix) && !has_like(m, m->n_layer, m->list[i].name + n))
            return false;
    for (uint32_t i = d->first; i < m->n; i++) {
        const assembly *a = &m->list[i];
        const char *tail = strchr(a->name + strlen("blk."), '.') + 1;
        if (!starts_with(tail, "nextn.") && !has_like(m, model, tail)) return false;
        for (int32_t k = 0; k < a->n_part; k++)
            if (a->part[k * FM_MAX_PLANES] == NONE) return false;
    }
    return true;
}

/* The first draft layer becomes a layer behind the last, as GGUF files have it, if it is whole; else nothing of it is
 * used. Comes after all others, and takes what it filed back from the end of the list. */
static fm_status take_draft_layers(mapper *m)
{
    draft_layer d = {.first = m->n};
    for (uint32_t i = 0; i < m->raw->n; i++) {
        const char *s = strip_prefix(m->raw->tensors[i].name);
        if (!is_vision(s) && is_draft(m, s)) FM_TRY(take_draft(m, i, &d));
    }
    if (!m->a->draft) return FM_OK;
    const bool is_used = d.n_filed > 0 && is_whole(m, &d);
    if (!is_used) {
        leave_out(m, d.n_filed, d.filed_bytes);
        for (; m->n > d.first; m->n--) free(m->list[m->n - 1].part);
    }
    FM_TRY(fm_hf_put_uint(m->c, m->a->architecture, "nextn_predict_layers", is_used, m->err));
    return fm_hf_put_uint(m->c, m->a->architecture, "block_count", (uint64_t)(m->n_layer + is_used),
                          m->err);
}

/* ---- formats ----------------------------------------------------------------------------- */

/* Type and shape of one part of an assembly. */
static fm_status part_type(mapper *m, const assembly *a, const int32_t *part, uint32_t *type,
                           fm_hf_shape *s)
{
    const fm_raw_tensor *const all = m->raw->tensors;
    if (part[0] == NONE) {
        const fm_raw_tensor *other = &all[part[1] != NONE ? part[1] : part[2]];
        return fm_fail(m->err, FM_E_FORMAT, "%s: tensor %.200s has no weight beside it",
                       path_of(m, other), other->name);
    }
    const fm_hf_stored stored = {
        .path = path_of(m, &all[part[0]]),
        .quantization = m->quantization,
        .codes = &all[part[0]],
        .scales = part[1] != NONE ? &all[part[1]] : NULL,
        .biases = part[2] != NONE ? &all[part[2]] : NULL,
        .is_conv = strstr(a->name, "conv1d") != NULL,
    };
    return fm_hf_stored_type(&stored, type, s, m->err);
}

/* ---- results ----------------------------------------------------------------------------- */

static fm_status add_tensor(mapper *m, const char *name, fm_tensor_info t)
{
    const size_t n = strlen(name) + 1;
    char *copy = fm_string_arena_take(&m->c->names, n);
    if (!copy) return no_memory(m);
    memcpy(copy, name, n);
    t.name = copy;
    m->c->tensors[m->c->n_tensor++] = t;
    return FM_OK;
}

/* The rows q, k, v and z of a fused projection as two tensors. */
static fm_status split_qkvz(mapper *m, const assembly *a, const fm_tensor_info *t,
                            fm_tensor_info *source)
{
    uint32_t d, n_k, n_v;
    char key[64];
    uint32_t *const out[] = {&d, &n_k, &n_v};
    static const char *const keys[] = {"state_size", "group_count", "time_step_rank"};
    for (int i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "%s.ssm.%s", m->a->architecture, keys[i]);
        FM_TRY(fm_meta_u32(m->c, key, out[i], m->err));
    }
    const fm_type_traits *type = fm_type_get(t->type);
    const int64_t unit = type->rows_per_scale > 1 ? type->rows_per_scale : 1;
    if (n_k < 1 || d < 1 || d > 65536 || n_v > 65536 || n_v % n_k != 0 ||
        t->dim[1] != 2 * (int64_t)d * ((int64_t)n_k + n_v) || d % unit != 0)
        return fm_fail(m->err, FM_E_FORMAT,
                       "%s: %s has %" PRId64
                       " rows, which %u key and %u value heads of %u do not fit",
                       m->c->directory, a->name, t->dim[1], n_k, n_v, d);
    const int32_t value = (int32_t)(n_v / n_k * d);
    *source = *t;
    source->name = a->entry->module;
    source->order = (fm_row_order){(int32_t)n_k, 4, {(int32_t)d, (int32_t)d, value, value}};
    const int64_t z_rows = (int64_t)n_v * d, first_z = t->dim[1] - z_rows;
    char gate[NAME_MAX_BYTES];
    snprintf(gate, sizeof gate, "%.*sattn_gate.weight",
             (int)(strstr(a->name, "attn_qkv") - a->name), a->name);
    for (int i = 0; i < 2; i++) {
        fm_tensor_info view = *t;
        view.source = source;
        view.row0 = i == 0 ? 0 : first_z;
        view.dim[1] = i == 0 ? first_z : z_rows;
        view.bytes = t->bytes / (uint64_t)t->dim[1] * (uint64_t)view.dim[1];
        for (int k = 0; k < 2; k++)
            view.aux[k].bytes = (uint64_t)((double)view.aux[k].bytes * (double)view.dim[1] /
                                           (double)t->dim[1]); /* for people */
        FM_TRY(add_tensor(m, i == 0 ? a->name : gate, view));
    }
    return FM_OK;
}

/* Every expert like the first; their places into each [n_part][planes]. */
static fm_status join_experts(mapper *m, const assembly *a, uint32_t type, const fm_hf_shape *s,
                              int n_plane, fm_extent *each, fm_tensor_info *t)
{
    for (int32_t e = 0; e < a->n_part; e++) {
        const int32_t *part = a->part + e * FM_MAX_PLANES;
        if (part[0] == NONE && part[1] == NONE && part[2] == NONE)
            return fm_fail(m->err, FM_E_FORMAT, "%s: %s: expert %d of %d is missing",
                           m->c->directory, a->name, e, a->n_part);
        uint32_t own_type;
        fm_hf_shape own;
        FM_TRY(part_type(m, a, part, &own_type, &own));
        const fm_raw_tensor *codes = &m->raw->tensors[part[0]];
        if (own.experts != 1)
            return fm_fail(m->err, FM_E_FORMAT,
                           "%s: tensor %.200s has three dimensions, expected the two of one expert",
                           path_of(m, codes), codes->name);
        if (own_type != type || own.rows != s->rows || own.columns != s->columns)
            return fm_fail(m->err, FM_E_FORMAT,
                           "%s: tensor %.200s is not of the type and shape of expert 0's",
                           path_of(m, codes), codes->name);
        for (int k = 0; k < n_plane; k++) {
            const fm_extent at = m->raw->tensors[part[k]].at;
            each[e * n_plane + k] = at;
            uint64_t *sum = k == 0 ? &t->bytes : &t->aux[k - 1].bytes;
            if (e > 0) *sum += at.bytes;
        }
    }
    t->each = each;
    t->dim[2] = a->n_part;
    t->n_dim = 3;
    return FM_OK;
}

static fm_status finish(mapper *m, const assembly *a, fm_extent **each, fm_tensor_info **source)
{
    uint32_t type;
    fm_hf_shape s;
    if (a->n_part > 1 && a->part[0] == NONE && a->part[1] == NONE)
        return fm_fail(m->err, FM_E_FORMAT, "%s: %s: expert 0 of %d is missing", m->c->directory,
                       a->name, a->n_part);
    FM_TRY(part_type(m, a, a->part, &type, &s));
    const int n_plane = fm_type_n_plane(fm_type_get(type));
    const fm_raw_tensor *codes = &m->raw->tensors[a->part[0]];
    fm_tensor_info t = {
        .type = type,
        .n_dim = s.n_dim,
        .dim = {s.columns, s.rows, s.experts, 1},
        .file = codes->at.file,
        .offset = codes->at.offset,
        .bytes = codes->at.bytes,
        .fix = m->norms_have_one && a->entry->fix == FM_FIX_ADD_ONE ? FM_FIX_NONE : a->entry->fix,
    };
    for (int k = 1; k < n_plane; k++) t.aux[k - 1] = m->raw->tensors[a->part[k]].at;
    if (a->entry->by_columns && a->is_bare && !a->is_bias) {
        /* Scales go along rows, so codes cannot lie by columns. */
        if (n_plane > 1)
            return fm_fail(
                m->err, FM_E_UNSUPPORTED,
                "%s: tensor %.160s lies by columns, which only F32, F16 and BF16 can, but "
                "there are scales beside it (%.160s)",
                path_of(m, codes), codes->name, m->raw->tensors[a->part[1]].name);
        t.by_columns = true;
        t.dim[0] = s.rows;
        t.dim[1] = s.columns;
    }
    /* A bias has its rows in columns. */
    const int rows_at = a->is_bias ? 0 : 1;
    if (a->entry->rows == FM_HF_ALTERNATE) {
        if (t.dim[rows_at] % 2 != 0 || t.dim[rows_at] / 2 > INT32_MAX)
            return fm_fail(m->err, FM_E_FORMAT, "%s: %s has %" PRId64 " rows for gate and up",
                           m->c->directory, a->name, t.dim[rows_at]);
        t.order = (fm_row_order){(int32_t)(t.dim[rows_at] / 2), 2, {1, 1}};
    }
    if (a->n_part > 1 || strchr(a->entry->module, '*')) {
        FM_TRY(join_experts(m, a, type, &s, n_plane, *each, &t));
        *each += a->n_part * n_plane;
    }
    if (a->entry->rows == FM_HF_QKVZ) return split_qkvz(m, a, &t, (*source)++);
    return add_tensor(m, a->name, t);
}

static const char *tensor_name(const void *owner, uint32_t i)
{
    return ((const fm_checkpoint *)owner)->tensors[i].name;
}

static fm_status finish_all(mapper *m)
{
    fm_checkpoint *c = m->c;
    size_t n_each = 0, n_source = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        if (strchr(m->list[i].entry->module, '*'))
            n_each += (size_t)m->list[i].n_part * FM_MAX_PLANES;
        n_source += m->list[i].entry->rows == FM_HF_QKVZ;
    }
    const size_t n_tensor = m->n + n_source;
    c->tensors = calloc(n_tensor + 1, sizeof *c->tensors);
    c->each = calloc(n_each + 1, sizeof *c->each);
    c->sources = calloc(n_source + 1, sizeof *c->sources);
    if (!c->tensors || !c->each || !c->sources) return no_memory(m);
    c->cap_tensor = (uint32_t)n_tensor + 1;
    c->hf_bytes = n_each * sizeof *c->each + n_source * sizeof *c->sources;
    fm_extent *each = c->each;
    fm_tensor_info *source = c->sources;
    for (uint32_t i = 0; i < m->n; i++) FM_TRY(finish(m, &m->list[i], &each, &source));
    for (uint32_t i = 0; i < c->n_tensor; i++) {
        if (fm_name_index_find(&c->index, tensor_name, c, c->tensors[i].name) != UINT32_MAX)
            return fm_fail(m->err, FM_E_FORMAT, "%s: %s is stored twice", c->directory,
                           c->tensors[i].name);
        if (!fm_name_index_add(&c->index, tensor_name, c)) return no_memory(m);
    }
    return FM_OK;
}

/* MLX stores convolutions as [channel][tap][1] and norms with the 1 added; Hugging Face [channel][1][tap]. */
static bool converted_by_mlx(const fm_raw_set *raw)
{
    for (uint32_t i = 0; i < raw->n; i++) {
        const fm_raw_tensor *t = &raw->tensors[i];
        if (t->n_dim == 3 && strstr(t->name, "conv1d.weight") && !is_vision(strip_prefix(t->name)))
            return t->dim[2] == 1 && t->dim[1] > 1;
    }
    return false;
}

static fm_status check_quantization(mapper *m)
{
    const json_t *q = m->quantization;
    if (!q) return FM_OK;
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    static const char *const known[] = {"fp8", "compressed-tensors", "mxfp4"};
    bool ok = method == NULL; /* MLX names none */
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        ok = ok || (method && strcmp(method, known[i]) == 0);
    if (!ok)
        return fm_fail(m->err, FM_E_UNSUPPORTED,
                       "%s: quant_method \"%.40s\" is not supported; expected fp8, "
                       "compressed-tensors, mxfp4, or what MLX writes",
                       m->c->paths[0], method);
    const json_t *block = json_object_get(q, "weight_block_size");
    if (json_is_array(block) && (json_integer_value(json_array_get(block, 0)) != 128 ||
                                 json_integer_value(json_array_get(block, 1)) != 128))
        return fm_fail(m->err, FM_E_UNSUPPORTED, "%s: weight_block_size is not [128, 128]",
                       m->c->paths[0]);
    const char *group;
    json_t *v;
    json_object_foreach(json_object_get(q, "config_groups"), group, v)
    {
        const json_t *w = json_object_get(v, "weights");
        const char *type = json_string_value(json_object_get(w, "type"));
        const json_int_t bits = json_integer_value(json_object_get(w, "num_bits"));
        const bool is_known = type && ((bits == 4 && strcmp(type, "int") == 0) ||
                                       (bits == 8 && strcmp(type, "float") == 0));
        if (!is_known || !json_is_true(json_object_get(w, "symmetric")))
            return fm_fail(
                m->err, FM_E_UNSUPPORTED,
                "%s: config_groups.%.40s: weights that are neither symmetric integers of 4 "
                "bits nor floats of 8",
                m->c->paths[0], group);
    }
    return FM_OK;
}

fm_status fm_hf_map(fm_checkpoint *c, const fm_hf_adapter *a, const json_t *config,
                    const fm_raw_set *raw, fm_error *err)
{
    mapper m = {.c = c, .a = a, .raw = raw, .err = err, .norms_have_one = converted_by_mlx(raw)};
    const char *const places[] = {"quantization", "quantization_config"};
    const json_t *text = json_object_get(config, "text_config");
    for (int i = 0; i < 2 && !json_is_object(m.quantization); i++) {
        m.quantization = json_object_get(config, places[i]);
        if (!json_is_object(m.quantization)) m.quantization = json_object_get(text, places[i]);
    }
    if (!json_is_object(m.quantization)) m.quantization = NULL;
    char key[64];
    uint32_t n_layer, n_expert;
    snprintf(key, sizeof key, "%s.block_count", a->architecture);
    FM_TRY(fm_meta_u32(c, key, &n_layer, err));
    snprintf(key, sizeof key, "%s.expert_count", a->architecture);
    FM_TRY(fm_meta_u32(c, key, &n_expert, err));
    if (n_layer > 4096 || n_expert > 65536)
        return fm_fail(err, FM_E_FORMAT, "%s: %u layers of %u experts", c->paths[0], n_layer,
                       n_expert);
    m.n_layer = n_layer;
    m.n_expert = n_expert;
    fm_status st = check_quantization(&m);
    for (uint32_t i = 0; i < raw->n && st == FM_OK; i++) st = take(&m, i);
    if (st == FM_OK) st = take_draft_layers(&m);
    if (st == FM_OK) st = finish_all(&m);
    for (uint32_t i = 0; i < m.n; i++) free(m.list[i].part);
    free(m.list);
    fm_name_index_deinit(&m.index);
    return st;
}
