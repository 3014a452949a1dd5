/* Matrix products of a pass, spread over the thread pool. A work item is a range of rows of one
 * matrix for up to 64 tokens; results do not depend on the ranges (see kernel.h). */
#include "model/run.h"

#include <assert.h>

enum {
    TOKENS_PER_ITEM = 64,  /* rows of pointers kept on the stack               */
    ITEMS_PER_THREAD = 12, /* enough to even out threads of unequal speed      */
    MAX_ROWS_PER_ITEM = 2048,
    MAX_OPS = 8,
    EXPECT_BYTES = 256 << 10, /* a part of the second-level cache */
};

void fm_acts_set(fm_acts *a, const float *x, int64_t n, int64_t stride, int64_t n_tok)
{
    a->x = x;
    a->n = n;
    a->stride = stride;
    a->n_tok = n_tok;
    for (int i = 0; i < FM_ACT_COUNT; i++) a->have[i] = false;
}

typedef struct {
    const fm_kernels *k;
    fm_acts *a;
    fm_act form;
} quantize_job;

static void quantize_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const quantize_job *j = ctx;
    j->k->quantize(j->form, j->a->form[j->form] + (size_t)t * j->a->form_bytes[j->form],
                   j->a->x + t * j->a->stride, j->a->n);
}

const unsigned char *fm_acts_need(fm_run *r, fm_acts *a, const fm_type_traits *type, size_t *stride)
{
    const fm_act form = r->k->act_form(type);
    if (form == FM_ACT_F32) {
        *stride = (size_t)a->stride * sizeof(float);
        return (const unsigned char *)a->x;
    }
    if (!a->have[form]) {
        quantize_job j = {r->k, a, form};
        if (a->n_tok < 4) {
            for (int64_t t = 0; t < a->n_tok; t++) quantize_item(&j, t, 0);
        } else {
            fm_pool_run(r->pool, quantize_item, &j, a->n_tok);
        }
        a->have[form] = true;
    }
    *stride = a->form_bytes[form];
    return a->form[form];
}

typedef struct {
    fm_run *r;
    int64_t n_tok, n_stretch; /* of up to TOKENS_PER_ITEM tokens */
    int n_op;
    struct {
        const fm_linear_op *op;
        const unsigned char *act;
        size_t act_stride;
        int64_t rows_per_item, first_item;
    } part[MAX_OPS];
} linear_job;

static void linear_item(void *ctx, int64_t item, int thread)
{
    const linear_job *j = ctx;
    if (j->n_tok > 1 && fm_run_stops(j->r, thread)) return;
    if (j->n_tok == 1 && thread == 0) fm_run_poll(j->r);
    int p = j->n_op - 1;
    while (item < j->part[p].first_item) p--;
    const fm_linear_op *op = j->part[p].op;
    /* All tokens meet the same rows one after the other, so these come from memory once. */
    const int64_t nth = item - j->part[p].first_item;
    const int64_t row0 = nth / j->n_stretch * j->part[p].rows_per_item;
    int64_t row1 = row0 + j->part[p].rows_per_item;
    if (row1 > op->w->n_out) row1 = op->w->n_out;
    const int64_t t0 = nth % j->n_stretch * TOKENS_PER_ITEM;
    const int64_t n = j->n_tok - t0 < TOKENS_PER_ITEM ? j->n_tok - t0 : TOKENS_PER_ITEM;
    const void *act[TOKENS_PER_ITEM];
    float *y[TOKENS_PER_ITEM];
    for (int64_t t = 0; t < n; t++) {
        act[t] = j->part[p].act + (size_t)(t0 + t) * j->part[p].act_stride;
        y[t] = op->y + (t0 + t) * op->y_stride;
    }
    j->r->k->matmul(op->w, row0, row1, act, y, n);
    if (!op->bias) return;
    for (int64_t t = 0; t < n; t++) j->r->k->axpy(y[t] + row0, 1.0f, op->bias + row0, row1 - row0);
}

/* Cuts the products into items; returns how many. Needs n_tok, n_stretch and n_op. */
static int64_t cut_into_items(linear_job *j, const fm_linear_op *ops)
{
    const fm_run *r = j->r;
    int64_t items = 0;
    for (int i = 0; i < j->n_op; i++) {
        const int64_t n_out = ops[i].w->n_out;
        int64_t rows = n_out * j->n_stretch / ((int64_t)r->n_thread * ITEMS_PER_THREAD);
        rows = (rows + FM_PANEL_ROWS - 1) / FM_PANEL_ROWS * FM_PANEL_ROWS;
        if (rows < FM_PANEL_ROWS) rows = FM_PANEL_ROWS;
        if (rows > MAX_ROWS_PER_ITEM) rows = MAX_ROWS_PER_ITEM;
        j->part[i].op = &ops[i];
        j->part[i].rows_per_item = rows;
        j->part[i].first_item = items;
        items += (n_out + rows - 1) / rows * j->n_stretch;
    }
    return items;
}

void fm_linear(fm_run *r, fm_acts *a, const fm_linear_op *ops, int n_op)
{
    assert(n_op <= MAX_OPS);
    linear_job j = {.r = r,
                    .n_tok = a->n_tok,
                    .n_stretch = (a->n_tok + TOKENS_PER_ITEM - 1) / TOKENS_PER_ITEM,
                    .n_op = n_op};
    for (int i = 0; i < n_op; i++) {
        const fm_matrix *w = ops[i].w;
        assert(w->n_in == a->n);
        if (r->opt.importance && w->tag)
            fm_input_sums_add(r->opt.importance, r->pool, w->tag, a->x, a->stride, a->n_tok);
        j.part[i].act = fm_acts_need(r, a, w->type, &j.part[i].act_stride);
    }
    fm_pool_run(r->pool, linear_item, &j, cut_into_items(&j, ops));
}

void fm_expect_rows(fm_run *r, int thread, const fm_matrix *w, int64_t row0)
{
    if (w->layout == FM_LAYOUT_COLUMNS) return;
    const uint64_t bytes = (uint64_t)(w->n_out - row0) * w->row_bytes;
    fm_pool_expect(r->pool, thread, (const uint8_t *)w->data + (uint64_t)row0 * w->row_bytes,
                   bytes < EXPECT_BYTES ? (size_t)bytes : EXPECT_BYTES);
}

void fm_linear_expect(fm_run *r, const fm_linear_op *ops, int n_op)
{
    if (r->n_tok > 1) return;
    assert(n_op <= MAX_OPS);
    linear_job j = {.r = r, .n_tok = 1, .n_stretch = 1, .n_op = n_op};
    const int64_t items = cut_into_items(&j, ops);
    int p = 0;
    for (int t = 0; t < r->n_thread; t++) {
        const int64_t item = fm_pool_first(r->pool, items, t);
        if (item >= items) break;
        while (p + 1 < n_op && item >= j.part[p + 1].first_item) p++;
        fm_expect_rows(r, t, ops[p].w, (item - j.part[p].first_item) * j.part[p].rows_per_item);
    }
}

/* ---- rows of all tokens ------------------------------------------------------------------ */

typedef struct {
    fm_run *r;
    float *y;
    const float *x, *w;
} row_job;

static void each_row(row_job *j, fm_pool_fn item, int64_t n)
{
    enum { FEW_ROWS = 4 };
    if (n < FEW_ROWS) {
        for (int64_t t = 0; t < n; t++) item(j, t, 0);
    } else {
        fm_pool_run(j->r->pool, item, j, n);
    }
}

static void norm_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const row_job *j = ctx;
    const int64_t n = j->r->hp->n_embd;
    j->r->k->rmsnorm(j->y + t * n, j->x + t * n, j->w, j->r->hp->eps, n);
}

void fm_norm_rows(fm_run *r, float *y, const float *x, const float *w)
{
    row_job j = {r, y, x, w};
    each_row(&j, norm_item, r->n_tok);
}

static void add_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const row_job *j = ctx;
    const int64_t n = j->r->hp->n_embd;
    j->r->k->axpy(j->y + t * n, 1.0f, j->x + t * n, n);
}

void fm_add_rows(fm_run *r, float *y, const float *x, int64_t n)
{
    row_job j = {r, y, x, NULL};
    each_row(&j, add_item, n);
}
