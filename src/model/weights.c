/* Bound weights: from the bytes of the trunk's pieces to matrices and vectors, and what is done to those bytes once,
 * when they arrive. */
#include "model/run.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "quant/f16.h"
#include "quant/planar.h"

void fm_model_use_kernels(fm_model *m, const fm_kernels *kernels)
{
    m->book_layout = kernels->book_layout;
    for (int32_t i = 0; i < m->hp.n_layer + m->n_draft; i++)
        m->layers[i].book_layout = m->book_layout;
}

fm_matrix fm_matrix_of(const fm_type_traits *type, fm_layout book_layout, uint8_t *const *plane,
                       int64_t row0, int64_t n_in, int64_t n_out)
{
    fm_matrix w = {.type = type,
                   .n_out = n_out,
                   .n_in = n_in,
                   .row_bytes = fm_type_row_bytes(type, n_in),
                   .layout = fm_layout_of(type, book_layout)};
    w.data = plane[0] + (uint64_t)row0 * w.row_bytes;
    if (type->n_plane) {
        w.aux_row_bytes = fm_plane_row_bytes(type, 1, n_in);
        const uint64_t skip = (uint64_t)(row0 / type->rows_per_scale) * w.aux_row_bytes;
        w.scale_row = (int32_t)(row0 % type->rows_per_scale);
        for (int k = 1; k < type->n_plane; k++) w.aux[k - 1] = plane[k] + skip;
    }
    return w;
}

fm_matrix fm_matrix_by_columns(const fm_type_traits *type, const uint8_t *data, int64_t n_in,
                               int64_t n_out)
{
    return (fm_matrix){.type = type,
                       .data = data,
                       .n_out = n_out,
                       .n_in = n_in,
                       .row_bytes = (uint64_t)n_out * type->block_bytes,
                       .layout = FM_LAYOUT_COLUMNS};
}

fm_matrix fm_matrix_rows(const fm_matrix *w, int64_t row0, int64_t n_out)
{
    fm_matrix rows = *w;
    rows.n_out = n_out;
    if (w->layout == FM_LAYOUT_COLUMNS) {
        rows.data = (const uint8_t *)w->data + (uint64_t)row0 * w->type->block_bytes;
        return rows;
    }
    rows.data = (const uint8_t *)w->data + (uint64_t)row0 * w->row_bytes;
    if (w->type->n_plane == 0) return rows;
    const int64_t first = w->scale_row + row0; /* from the first row of the first scale on */
    const uint64_t skip = (uint64_t)(first / w->type->rows_per_scale) * w->aux_row_bytes;
    rows.scale_row = (int32_t)(first % w->type->rows_per_scale);
    for (int k = 1; k < w->type->n_plane; k++)
        rows.aux[k - 1] = (const uint8_t *)w->aux[k - 1] + skip;
    return rows;
}

fm_matrix fm_weight_matrix(const fm_layer *l, uint8_t *const *ptr, fm_weight w)
{
    assert(l->piece_of[w] >= 0);
    const fm_tensor_info *t = l->tensor_of[w];
    fm_matrix m = fm_matrix_of(fm_type_get(t->type), l->book_layout, ptr + l->piece_of[w], t->row0,
                               t->dim[0], t->dim[1]);
    m.tag = t;
    return m;
}

const fm_layer *fm_layer_of_unit(const fm_model *m, int32_t unit)
{
    const int32_t head_end = m->hp.n_layer + m->n_head_unit;
    return unit < m->hp.n_layer ? &m->layers[unit]
           : unit >= head_end   ? &m->layers[m->hp.n_layer]
                                : NULL;
}

int64_t fm_output_row0(const fm_model *m, int32_t unit)
{
    return (int64_t)(unit - m->hp.n_layer) * m->head_rows;
}

fm_matrix fm_output_matrix(const fm_model *m, int32_t unit, uint8_t *const *ptr)
{
    const int64_t left = m->hp.n_vocab - fm_output_row0(m, unit);
    return fm_matrix_of(fm_type_get(m->head->type), m->book_layout, ptr, 0, m->hp.n_embd,
                        left < m->head_rows ? left : m->head_rows);
}

const float *fm_output_norm(const fm_model *m, uint8_t *const *ptr)
{
    return (const float *)(const void *)ptr[fm_type_n_plane(fm_type_get(m->head->type))];
}

fm_matrix fm_head_matrix(const fm_layer *l, uint8_t *const *ptr, fm_weight w, int64_t row0,
                         int64_t n_out)
{
    assert(l->piece_of[w] >= 0);
    const fm_tensor_info *t = l->tensor_of[w];
    return fm_matrix_of(fm_type_get(t->type), l->book_layout, ptr + l->piece_of[w], t->row0 + row0,
                        t->dim[0], n_out);
}

const float *fm_weight_vector(const fm_layer *l, uint8_t *const *ptr, fm_weight w)
{
    assert(l->piece_of[w] >= 0);
    return (const float *)(const void *)ptr[l->piece_of[w]];
}

const float *fm_weight_vector_or_null(const fm_layer *l, uint8_t *const *ptr, fm_weight w)
{
    return l->piece_of[w] < 0 ? NULL : fm_weight_vector(l, ptr, w);
}

uint64_t fm_embd_row_bytes(const fm_model *m)
{
    const fm_type_traits *type = fm_type_get(m->embd->type);
    uint64_t sum = 0;
    for (int k = 0; k < fm_type_n_plane(type); k++)
        sum += fm_plane_row_bytes(type, k, m->hp.n_embd);
    return sum;
}

/* ---- scratch ----------------------------------------------------------------------------- */

static uint64_t panel_scratch(const fm_model *m, const fm_type_traits *type, int64_t n_in)
{
    uint64_t most = 0;
    if (fm_layout_of(type, m->book_layout) != FM_LAYOUT_PANELS) return 0;
    for (int k = 0; k < fm_type_n_plane(type); k++) {
        const uint64_t row = fm_plane_row_bytes(type, k, n_in);
        if (row > most) most = row;
    }
    return most * FM_PANEL_ROWS;
}

/* One row and a bit for every row. */
static uint64_t order_scratch(const fm_tensor_info *t, const fm_type_traits *type)
{
    if (t->order.n_part == 0) return 0;
    return fm_type_row_bytes(type, t->dim[0]) + (uint64_t)t->dim[1] / 8 + 1;
}

size_t fm_model_pack_scratch(const fm_model *m)
{
    uint64_t most = 0;
    for (int32_t u = 0; u < m->n_unit; u++)
        for (int32_t p = 0; p < m->units[u].n_piece; p++) {
            const fm_tensor_info *t = m->units[u].piece[p].tensor;
            const fm_type_traits *type = fm_type_get(t->type);
            const uint64_t pack = panel_scratch(m, type, t->dim[0]), order = order_scratch(t, type);
            if (pack > most) most = pack;
            if (order > most) most = order;
        }
    for (int32_t i = 0; i < m->hp.n_layer + m->n_draft; i++) {
        const fm_layer *l = &m->layers[i];
        if (l->experts.n_expert == 0) continue;
        const uint64_t need[] = {panel_scratch(m, l->type_gate, m->hp.n_embd),
                                 panel_scratch(m, l->type_up, m->hp.n_embd),
                                 panel_scratch(m, l->type_down, m->hp.n_ff_expert)};
        for (int k = 0; k < 3; k++)
            if (need[k] > most) most = need[k];
    }
    return (size_t)most;
}

/* ---- vectors ----------------------------------------------------------------------------- */

static float fixed(float x, fm_tensor_fix fix)
{
    switch (fix) {
    case FM_FIX_ADD_ONE:
        return 1.0f + x;
    case FM_FIX_NEG_EXP:
        return (float)-exp((double)x);
    default:
        return x;
    }
}

/* n values to f32 at an aligned place of the piece's room. */
static uint8_t *prepare_vector(const fm_tensor_info *t, uint8_t *data, int64_t n)
{
    const size_t width = t->type == FM_TYPE_F32 ? 4 : 2;
    const bool is_aligned = (uintptr_t)data % sizeof(float) == 0;
    if (t->type == FM_TYPE_F32 && t->fix == FM_FIX_NONE && is_aligned) return data;
    uint8_t *const base = data - (uintptr_t)data % FM_IO_ALIGN;
    /* The source to the end of the room, so that values are written behind what was read. */
    uint8_t *const src = base + (size_t)n * (sizeof(float) - width);
    memmove(src, data, (size_t)n * width);
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *const p = src + (size_t)i * width;
        float x;
        if (t->type == FM_TYPE_F32)
            x = fm_f32_from_bits(fm_quant_le32(p));
        else if (t->type == FM_TYPE_F16)
            x = fm_f16_to_f32(fm_quant_le16(p));
        else
            x = fm_bf16_to_f32(fm_quant_le16(p));
        x = fixed(x, t->fix);
        memcpy(base + (size_t)i * sizeof x, &x, sizeof x);
    }
    return base;
}

/* ---- order of rows ----------------------------------------------------------------------- */

/* Puts the rows of a plane into the wanted order, in place, cycle by cycle. */
static void order_rows(const fm_row_order *o, uint8_t *data, uint64_t row_bytes, int64_t n_row,
                       int64_t unit, uint8_t *scratch)
{
    uint8_t *const done = scratch + row_bytes;
    memset(done, 0, (size_t)n_row / 8 + 1);
    for (int64_t first = 0; first < n_row; first++) {
        if (done[first / 8] >> (first % 8) & 1) continue;
        memcpy(scratch, data + (uint64_t)first * row_bytes, row_bytes);
        for (int64_t r = first;;) {
            const int64_t from = fm_stored_row(o, r, unit);
            done[r / 8] |= (uint8_t)(1 << (r % 8));
            uint8_t *const to = data + (uint64_t)r * row_bytes;
            if (from == first) {
                memcpy(to, scratch, row_bytes);
                break;
            }
            memcpy(to, data + (uint64_t)from * row_bytes, row_bytes);
            r = from;
        }
    }
}

/* ---- preparing a unit -------------------------------------------------------------------- */

typedef struct {
    const fm_prepare_ctx *p;
    const fm_type_traits *type;
    uint8_t *plane[FM_MAX_PLANES];
    int64_t n_in;
} pack_job;

static void pack_item(void *ctx, int64_t panel, int thread)
{
    const pack_job *j = ctx;
    fm_pack_planes(j->type, j->plane, panel * FM_PANEL_ROWS, FM_PANEL_ROWS, j->n_in,
                   j->p->pack_scratch + (size_t)thread * j->p->pack_scratch_each);
}

static void pack(const fm_prepare_ctx *p, const fm_matrix *w)
{
    if (w->layout != FM_LAYOUT_PANELS) return;
    const pack_job j = {p,
                        w->type,
                        {(uint8_t *)(uintptr_t)w->data, (uint8_t *)(uintptr_t)w->aux[0],
                         (uint8_t *)(uintptr_t)w->aux[1]},
                        w->n_in};
    fm_pool_run(p->pool, pack_item, (void *)(uintptr_t)&j, w->n_out / FM_PANEL_ROWS);
}

/* Rows of one head among those of a weight, and which of them a product uses. */
typedef struct {
    int64_t all, first, n;
} head_rows;

static head_rows rows_of_head(const fm_hparams *hp, fm_weight w)
{
    switch (w) {
    case FM_W_K_B:
        return (head_rows){hp->n_latent, 0, hp->n_latent};
    case FM_W_V_B:
        return (head_rows){hp->d_value, 0, hp->d_value};
    case FM_W_KV_B: /* the key rows are used transposed, one by one: they stay as they are */
        return (head_rows){hp->d_nope + hp->d_value, hp->d_nope, hp->d_value};
    default:
        return (head_rows){0, 0, 0};
    }
}

typedef struct {
    const fm_prepare_ctx *p;
    const fm_layer *l;
    uint8_t *const *ptr;
    fm_weight w;
    head_rows rows;
} pack_heads_job;

/* Each head's matrix into panels of its own, so that panels do not lie across two heads. */
static void pack_head_item(void *ctx, int64_t head, int thread)
{
    const pack_heads_job *j = ctx;
    const fm_matrix w =
        fm_head_matrix(j->l, j->ptr, j->w, head * j->rows.all + j->rows.first, j->rows.n);
    uint8_t *const plane[FM_MAX_PLANES] = {(uint8_t *)(uintptr_t)w.data,
                                           (uint8_t *)(uintptr_t)w.aux[0],
                                           (uint8_t *)(uintptr_t)w.aux[1]};
    fm_pack_planes(w.type, plane, 0, w.n_out, w.n_in,
                   j->p->pack_scratch + (size_t)thread * j->p->pack_scratch_each);
}

void fm_model_prepare_unit(void *prepare_ctx, int32_t unit, uint8_t **ptr)
{
    const fm_prepare_ctx *p = prepare_ctx;
    const fm_model *m = p->model;
    const fm_trunk_unit *u = &m->units[unit];
    for (int32_t i = 0; i < u->n_piece; i++) {
        const fm_trunk_piece *piece = &u->piece[i];
        const fm_tensor_info *t = piece->tensor;
        if (piece->room > 0) { /* only vectors ask for room */
            ptr[i] = prepare_vector(t, ptr[i], (int64_t)(piece->room / sizeof(float)));
        } else if (t->order.n_part > 0) {
            const fm_type_traits *type = fm_type_get(t->type);
            const int64_t unit_rows = piece->plane > 0 ? type->rows_per_scale : 1;
            order_rows(&t->order, ptr[i], fm_plane_row_bytes(type, piece->plane, t->dim[0]),
                       fm_plane_rows(type, piece->plane, t->dim[1]), unit_rows, p->pack_scratch);
        }
    }
    const fm_layer *const l = fm_layer_of_unit(m, unit);
    if (l) {
        for (int w = 0; w < FM_W_COUNT; w++) {
            if (l->piece_of[w] < 0 || l->pieces[l->piece_of[w]].room > 0) continue;
            const head_rows rows = rows_of_head(&m->hp, (fm_weight)w);
            if (rows.n > 0) {
                pack_heads_job j = {p, l, ptr, (fm_weight)w, rows};
                if (fm_head_matrix(l, ptr, (fm_weight)w, 0, rows.n).layout == FM_LAYOUT_PANELS)
                    fm_pool_run(p->pool, pack_head_item, &j, m->hp.n_head);
                continue;
            }
            const fm_matrix matrix = fm_weight_matrix(l, ptr, (fm_weight)w);
            pack(p, &matrix);
        }
        return;
    }
    const fm_matrix matrix = fm_output_matrix(m, unit, ptr);
    pack(p, &matrix);
}
