/* What the products of one token will read first, told to the pool ahead of time: threads that wait for others, or for
 * what a single thread computes, then fetch it. Speed only; where a list here does not fit what a block does, fetches
 * are wasted.
 */
#include "model/run.h"

enum { MOST = 4 };

static void expect_weights(fm_run *r, const fm_layer *l, uint8_t *const *ptr, const fm_weight *w,
                           int n)
{
    fm_matrix m[MOST];
    fm_linear_op op[MOST];
    int n_op = 0;
    for (int i = 0; i < n; i++) {
        if (l->piece_of[w[i]] < 0) continue;
        m[n_op] = fm_weight_matrix(l, ptr, w[i]);
        op[n_op] = (fm_linear_op){.w = &m[n_op]};
        n_op++;
    }
    fm_linear_expect(r, op, n_op);
}

void fm_expect_ffn(fm_run *r, const fm_layer *l, uint8_t *const *ptr)
{
    static const fm_weight routers[] = {FM_W_ROUTER, FM_W_SH_ROUTER},
                           dense[] = {FM_W_FF_GATE, FM_W_FF_UP};
    expect_weights(r, l, ptr, l->experts.n_expert ? routers : dense, 2);
}

static void expect_mixer(fm_run *r, const fm_layer *l, uint8_t *const *ptr)
{
    static const fm_weight attention[MOST] = {FM_W_Q, FM_W_K, FM_W_V},
                           delta[MOST] = {FM_W_QKV, FM_W_Z, FM_W_BETA, FM_W_ALPHA},
                           fused[MOST] = {FM_W_QKV, FM_W_Z, FM_W_BA};
    const fm_weight latent[MOST] = {FM_W_KV_A, r->hp->n_latent_q ? FM_W_Q_A : FM_W_Q};
    switch (l->mixer) {
    case FM_MIX_ATTENTION:
        expect_weights(r, l, ptr, attention, 3);
        break;
    case FM_MIX_LATENT:
        expect_weights(r, l, ptr, latent, 2);
        break;
    case FM_MIX_DELTA:
        expect_weights(r, l, ptr, r->hp->fused_ba ? fused : delta, r->hp->fused_ba ? 3 : 4);
        break;
    }
}

void fm_expect_unit(fm_run *r, int32_t unit)
{
    const fm_model *m = r->model;
    uint8_t *const *ptr;
    if (r->n_tok > 1 || unit >= m->n_unit || !fm_trunk_is_resident(r->opt.store, unit)) return;
    if (fm_trunk_acquire(r->opt.store, unit, &ptr, NULL) != FM_OK) return;
    const fm_layer *const l = fm_layer_of_unit(m, unit);
    if (l) {
        expect_mixer(r, l, ptr);
    } else {
        const fm_matrix w = fm_output_matrix(m, unit, ptr);
        const fm_linear_op op = {.w = &w};
        fm_linear_expect(r, &op, 1);
    }
    fm_trunk_release(r->opt.store, unit);
}
