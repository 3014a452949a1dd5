/* Importance sums: see input_sums.h. The names and shapes in the file are those that llama.cpp's
 * llama-imatrix writes: NAME.in_sum2 [matrices][columns] and NAME.counts [matrices][1], both F32. */
#include "model/input_sums.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "format/gguf_write.h"
#include "model/model.h"

enum { COLUMNS_PER_ITEM = 512 };

typedef struct {
    const fm_tensor_info *tensor;
    float *sum; /* [n_in] */
    int64_t n_in, count;
} matrix_sums;

typedef struct {
    float *in, *hidden; /* [n_expert][n_embd], [n_expert][n_ff_expert]; NULL: no experts */
    int64_t *count;     /* [n_expert] tokens that chose it */
} expert_sums;

typedef struct {
    float *sum[FM_HEAD_PARTS];     /* [n_head][d_nope], [n_head][n_latent]; NULL: other attention */
    int64_t *count[FM_HEAD_PARTS]; /* [n_head] */
} head_sums;

struct fm_input_sums {
    const fm_model *model;
    fm_ledger *ledger;
    int line;
    fm_arena arena;
    matrix_sums *matrix; /* [n_matrix], ascending by address of the tensor */
    int64_t n_matrix;
    expert_sums *expert; /* [n_layer] */
    head_sums *head;     /* [n_layer] */
    float scale;         /* of the queries that met keys */
    bool spoiled;
};

/* ---- layout ------------------------------------------------------------------------------ */

static bool is_matrix(const fm_tensor_info *t)
{
    return t && t->n_dim == 2 && t->dim[0] > 1 && t->dim[1] > 1;
}

static void add_matrix(fm_input_sums *imp, const fm_tensor_info *t)
{
    const int64_t at = imp->n_matrix++;
    float *sum = fm_arena_take(&imp->arena, (size_t)t->dim[0] * sizeof *sum);
    if (imp->matrix) imp->matrix[at] = (matrix_sums){.tensor = t, .sum = sum, .n_in = t->dim[0]};
}

static bool has_heads(const fm_layer *l)
{
    return l->piece_of[FM_W_KV_B] >= 0 || l->piece_of[FM_W_K_B] >= 0;
}

static int64_t head_width(const fm_hparams *hp, int part)
{
    return part == FM_HEAD_KEYS ? hp->d_nope : hp->n_latent;
}

static void add_heads(fm_input_sums *imp, head_sums *h)
{
    const fm_hparams *hp = &imp->model->hp;
    for (int part = 0; part < FM_HEAD_PARTS; part++) {
        const int64_t n = hp->n_head * head_width(hp, part);
        float *sum = fm_arena_take(&imp->arena, (size_t)n * sizeof *sum);
        int64_t *count = fm_arena_take(&imp->arena, (size_t)hp->n_head * sizeof *count);
        if (!h) continue;
        h->sum[part] = sum;
        h->count[part] = count;
    }
}

/* Lays everything out in the arena; without memory it only measures. */
static void layout(fm_input_sums *imp)
{
    const fm_model *m = imp->model;
    const int64_t E = m->hp.n_expert;
    imp->n_matrix = 0;
    imp->head = fm_arena_take(&imp->arena, (size_t)m->hp.n_layer * sizeof *imp->head);
    imp->expert = fm_arena_take(&imp->arena, (size_t)m->hp.n_layer * sizeof *imp->expert);
    imp->matrix =
        fm_arena_take(&imp->arena, ((size_t)m->hp.n_layer * FM_W_COUNT + 1) * sizeof *imp->matrix);
    for (int32_t i = 0; i < m->hp.n_layer; i++) {
        const fm_layer *l = &m->layers[i];
        for (int w = 0; w < FM_W_COUNT; w++)
            if (l->piece_of[w] >= 0 && is_matrix(l->tensor_of[w])) add_matrix(imp, l->tensor_of[w]);
        if (has_heads(l)) add_heads(imp, imp->head ? &imp->head[i] : NULL);
        if (l->experts.n_expert == 0) continue;
        float *in = fm_arena_take(&imp->arena, (size_t)(E * m->hp.n_embd) * sizeof *in);
        float *hidden = fm_arena_take(&imp->arena, (size_t)(E * m->hp.n_ff_expert) * sizeof *in);
        int64_t *count = fm_arena_take(&imp->arena, (size_t)E * sizeof *count);
        if (imp->expert) imp->expert[i] = (expert_sums){.in = in, .hidden = hidden, .count = count};
    }
    add_matrix(imp, m->head);
}

static int by_tensor(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t)((const matrix_sums *)a)->tensor;
    const uintptr_t y = (uintptr_t)((const matrix_sums *)b)->tensor;
    return (x > y) - (x < y);
}

uint64_t fm_input_sums_bytes(const fm_model *m)
{
    fm_input_sums imp = {.model = m};
    layout(&imp);
    return fm_round_up(imp.arena.used, FM_LEDGER_PAGE);
}

fm_status fm_input_sums_create(fm_input_sums **out, const fm_model *m, fm_ledger *ledger,
                               fm_error *err)
{
    *out = NULL;
    fm_input_sums *imp = calloc(1, sizeof *imp);
    if (!imp) return fm_fail(err, FM_E_NOMEM, "no memory for importance sums");
    imp->model = m;
    imp->ledger = ledger;
    imp->arena.size = fm_input_sums_bytes(m);
    imp->line = fm_ledger_line_of(ledger, FM_LINE_IMPORTANCE, imp->arena.size);
    imp->arena.base = fm_ledger_alloc(ledger, imp->line, imp->arena.size, 1, err);
    if (!imp->arena.base) {
        free(imp);
        return FM_E_NOMEM;
    }
    layout(imp);
    qsort(imp->matrix, (size_t)imp->n_matrix, sizeof *imp->matrix, by_tensor);
    *out = imp;
    return FM_OK;
}

void fm_input_sums_destroy(fm_input_sums *imp)
{
    if (!imp) return;
    fm_ledger_free(imp->ledger, imp->line, imp->arena.base, imp->arena.size);
    free(imp);
}

void fm_input_sums_spoil(fm_input_sums *imp)
{
    imp->spoiled = true;
}

/* ---- sums -------------------------------------------------------------------------------- */

static matrix_sums *find(fm_input_sums *imp, const fm_tensor_info *tensor)
{
    const matrix_sums key = {.tensor = tensor};
    return bsearch(&key, imp->matrix, (size_t)imp->n_matrix, sizeof key, by_tensor);
}

/* sum[c] += x[c]^2 for the columns [c0, c1) of all rows, in the order of rows. */
static void add_rows(float *restrict sum, const fm_input_sums_rows *r, int64_t c0, int64_t c1)
{
    for (int64_t i = 0; i < r->n_row; i++) {
        const float *restrict x = r->x + (r->pair ? r->pair[i] / r->div : i) * r->stride;
        for (int64_t c = c0; c < c1; c++) sum[c] += x[c] * x[c];
    }
}

typedef struct {
    matrix_sums *m;
    fm_input_sums_rows rows;
} add_job;

static void add_item(void *ctx, int64_t item, int thread)
{
    (void)thread;
    const add_job *j = ctx;
    const int64_t c0 = item * COLUMNS_PER_ITEM;
    const int64_t c1 = c0 + COLUMNS_PER_ITEM < j->m->n_in ? c0 + COLUMNS_PER_ITEM : j->m->n_in;
    add_rows(j->m->sum, &j->rows, c0, c1);
}

void fm_input_sums_add(fm_input_sums *imp, fm_pool *pool, const fm_tensor_info *tensor,
                       const float *x, int64_t stride, int64_t n_tok)
{
    add_job j = {.m = find(imp, tensor),
                 .rows = {.x = x, .stride = stride, .div = 1, .n_row = n_tok}};
    if (!j.m) return;
    fm_pool_run(pool, add_item, &j, (j.m->n_in + COLUMNS_PER_ITEM - 1) / COLUMNS_PER_ITEM);
    j.m->count += n_tok;
}

void fm_input_sums_matrix(fm_input_sums *imp, const fm_tensor_info *tensor,
                          const fm_input_sums_rows *rows)
{
    matrix_sums *m = find(imp, tensor);
    if (!m) return;
    add_rows(m->sum, rows, 0, m->n_in);
    m->count += rows->n_row;
}

void fm_input_sums_expert(fm_input_sums *imp, int32_t layer, int32_t expert,
                          const fm_input_sums_rows *in, const fm_input_sums_rows *hidden)
{
    const fm_hparams *hp = &imp->model->hp;
    const expert_sums *e = &imp->expert[layer];
    add_rows(e->in + (int64_t)expert * hp->n_embd, in, 0, hp->n_embd);
    add_rows(e->hidden + (int64_t)expert * hp->n_ff_expert, hidden, 0, hp->n_ff_expert);
    e->count[expert] += in->n_row;
}

void fm_input_sums_head(fm_input_sums *imp, int32_t layer, fm_head_part part, int64_t head,
                        const fm_input_sums_rows *rows)
{
    const head_sums *h = &imp->head[layer];
    const int64_t n = head_width(&imp->model->hp, part);
    add_rows(h->sum[part] + head * n, rows, 0, n);
    h->count[part][head] += rows->n_row;
}

void fm_input_sums_set_scale(fm_input_sums *imp, float scale)
{
    imp->scale = scale;
}

/* ---- file -------------------------------------------------------------------------------- */

/* One entry of the file: the sums and counts of n_mat matrices of one name. */
typedef struct {
    char name[128];
    const float *sum;
    const int64_t *count;
    int64_t n_in, n_mat;
    float factor; /* of the sums; 0: none */
} file_entry;

typedef fm_status (*entry_fn)(fm_gguf_writer *w, const file_entry *e, fm_error *err);

static fm_status declare(fm_gguf_writer *w, const file_entry *e, fm_error *err)
{
    char name[160];
    (void)err;
    const int64_t sum_dim[] = {e->n_in, e->n_mat}, count_dim[] = {1, e->n_mat};
    snprintf(name, sizeof name, "%s.in_sum2", e->name);
    fm_gguf_add_tensor(w, name, FM_TYPE_F32, 2, sum_dim,
                       (uint64_t)(e->n_in * e->n_mat) * sizeof(float), -1);
    snprintf(name, sizeof name, "%s.counts", e->name);
    fm_gguf_add_tensor(w, name, FM_TYPE_F32, 2, count_dim, (uint64_t)e->n_mat * sizeof(float), -1);
    return FM_OK;
}

static fm_status write_entry(fm_gguf_writer *w, const file_entry *e, fm_error *err)
{
    if (e->factor == 0)
        FM_TRY(fm_gguf_write(w, e->sum, (size_t)(e->n_in * e->n_mat) * sizeof(float), err));
    for (int64_t i = 0; e->factor != 0 && i < e->n_in * e->n_mat; i++) {
        const float sum = e->sum[i] * e->factor;
        FM_TRY(fm_gguf_write(w, &sum, sizeof sum, err));
    }
    for (int64_t i = 0; i < e->n_mat; i++) {
        const float count = (float)e->count[i];
        FM_TRY(fm_gguf_write(w, &count, sizeof count, err));
    }
    return FM_OK;
}

static fm_status experts_of_layer(const fm_input_sums *imp, int32_t layer, fm_gguf_writer *w,
                                  entry_fn fn, fm_error *err)
{
    const fm_hparams *hp = &imp->model->hp;
    const expert_sums *s = &imp->expert[layer];
    int64_t used = 0;
    for (int32_t e = 0; s->count && e < hp->n_expert; e++) used += s->count[e];
    if (used == 0) return FM_OK;
    static const char *const names[] = {"gate", "up", "down", "gate_up"};
    const int n = imp->model->layers[layer].fused_gate_up ? 4 : 3;
    for (int k = 0; k < n; k++) {
        const bool down = k == 2;
        file_entry e = {.sum = down ? s->hidden : s->in,
                        .count = s->count,
                        .n_in = down ? hp->n_ff_expert : hp->n_embd,
                        .n_mat = hp->n_expert};
        snprintf(e.name, sizeof e.name, "blk.%d.ffn_%s_exps.weight", layer, names[k]);
        FM_TRY(fn(w, &e, err));
    }
    return FM_OK;
}

static fm_status heads_of_layer(const fm_input_sums *imp, int32_t layer, fm_gguf_writer *w,
                                entry_fn fn, fm_error *err)
{
    const fm_hparams *hp = &imp->model->hp;
    const head_sums *h = &imp->head[layer];
    for (int part = 0; part < FM_HEAD_PARTS; part++) {
        if (!h->sum[part] || h->count[part][0] == 0) continue;
        file_entry e = {.sum = h->sum[part],
                        .count = h->count[part],
                        .n_in = head_width(hp, part),
                        .n_mat = hp->n_head};
        if (part == FM_HEAD_KEYS) e.factor = 1 / (imp->scale * imp->scale);
        snprintf(e.name, sizeof e.name, "blk.%d.attn_%c_b.weight", layer,
                 part == FM_HEAD_KEYS ? 'k' : 'v');
        FM_TRY(fn(w, &e, err));
    }
    return FM_OK;
}

static fm_status matrix_of(const matrix_sums *m, fm_gguf_writer *w, entry_fn fn, fm_error *err)
{
    if (m->count == 0) return FM_OK;
    file_entry e = {.sum = m->sum, .count = &m->count, .n_in = m->n_in, .n_mat = 1};
    snprintf(e.name, sizeof e.name, "%s", m->tensor->name);
    return fn(w, &e, err);
}

/* All that was used, in the model's order: the layers, each with its experts last, then the head. */
static fm_status each_entry(fm_input_sums *imp, fm_gguf_writer *w, entry_fn fn, fm_error *err)
{
    const fm_model *m = imp->model;
    for (int32_t i = 0; i < m->hp.n_layer; i++) {
        const fm_layer *l = &m->layers[i];
        for (int k = 0; k < FM_W_COUNT; k++)
            if (l->piece_of[k] >= 0 && is_matrix(l->tensor_of[k]))
                FM_TRY(matrix_of(find(imp, l->tensor_of[k]), w, fn, err));
        FM_TRY(heads_of_layer(imp, i, w, fn, err));
        FM_TRY(experts_of_layer(imp, i, w, fn, err));
    }
    return matrix_of(find(imp, m->head), w, fn, err);
}

static const char *dataset_name(void *user, size_t i)
{
    (void)i;
    return user;
}

static fm_status write_file(fm_input_sums *imp, const char *path, const char *dataset,
                            uint32_t n_chunk, uint32_t chunk_size, fm_error *err)
{
    fm_gguf_writer *w;
    FM_TRY(fm_gguf_writer_open(&w, path, err));
    fm_gguf_put_str(w, "general.type", "imatrix");
    fm_gguf_put_str_array(w, "imatrix.datasets", 1, dataset_name, (void *)(uintptr_t)dataset);
    fm_gguf_put_u32(w, "imatrix.chunk_count", n_chunk);
    fm_gguf_put_u32(w, "imatrix.chunk_size", chunk_size);
    fm_status st = each_entry(imp, w, declare, err);
    if (st == FM_OK) st = fm_gguf_begin_data(w, err);
    if (st == FM_OK) st = each_entry(imp, w, write_entry, err);
    const fm_status closed = fm_gguf_writer_close(w, st == FM_OK ? err : NULL);
    return st == FM_OK ? closed : st;
}

fm_status fm_input_sums_write(const fm_input_sums *imp, const char *path, const char *dataset,
                              uint32_t n_chunk, uint32_t chunk_size, fm_error *err)
{
    if (imp->spoiled)
        return fm_fail(err, FM_E_ARG, "%s: an evaluation broke off, its importance sums lack rows",
                       path);
    const size_t n = strlen(path) + 32;
    char *temp = malloc(n);
    if (!temp) return fm_fail(err, FM_E_NOMEM, "%s: no memory for its name", path);
    snprintf(temp, n, "%s.%ld.tmp", path, (long)getpid());
    /* Only read; the walk over its entries is shared with the parts that add to them. */
    fm_status st =
        write_file((fm_input_sums *)(uintptr_t)imp, temp, dataset, n_chunk, chunk_size, err);
    if (st == FM_OK && rename(temp, path) != 0) st = fm_fail_errno(err, errno, "%s", path);
    if (st != FM_OK) unlink(temp);
    free(temp);
    return st;
}
