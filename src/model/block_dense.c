/* The feed-forward block of layers without experts: down(silu(gate x) * up x).
 *
 * Its hidden rows may be many times wider than an expert's; the tokens of a pass go through in groups
 * that fit the buffers of the experts. */
#include "model/run.h"

typedef struct {
    fm_run *r;
    int64_t n_ff;
} dense_job;

static void gate_item(void *ctx, int64_t t, int thread)
{
    (void)thread;
    const dense_job *j = ctx;
    float *gate = j->r->ff_gate + t * j->n_ff;
    j->r->k->silu_mul(gate, gate, j->r->ff_up + t * j->n_ff, j->n_ff);
}

void fm_block_dense(fm_run *r, const fm_layer *l, uint8_t *const *ptr)
{
    const int64_t n_embd = r->hp->n_embd, n_ff = r->hp->n_ff_dense;
    const fm_matrix gate = fm_weight_matrix(l, ptr, FM_W_FF_GATE);
    const fm_matrix up = fm_weight_matrix(l, ptr, FM_W_FF_UP);
    const fm_matrix down = fm_weight_matrix(l, ptr, FM_W_FF_DOWN);
    dense_job j = {r, n_ff};
    for (int64_t t0 = 0; t0 < r->n_tok && !fm_run_stops(r, 0); t0 += r->dense_rows) {
        const int64_t n = r->n_tok - t0 < r->dense_rows ? r->n_tok - t0 : r->dense_rows;
        float *rows = r->normed + t0 * n_embd;
        const fm_linear_op in[2] = {{&gate, r->ff_gate, n_ff, NULL}, {&up, r->ff_up, n_ff, NULL}};
        const fm_linear_op out = {&down, rows, n_embd, NULL};
        fm_acts_set(&r->in, rows, n_embd, n_embd, n);
        fm_linear(r, &r->in, in, 2);
        fm_pool_run(r->pool, gate_item, &j, n);
        fm_acts_set(&r->dense_act, r->ff_gate, n_ff, n_ff, n);
        fm_linear(r, &r->dense_act, &out, 1);
        fm_add_rows(r, r->x + t0 * n_embd, rows, n);
    }
}
