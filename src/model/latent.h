/* What both forms of multi-head latent attention share (block_latent.c, latent_prompt.c). */
#pragma once

#include "model/run.h"

typedef struct {
    fm_run *r;
    const fm_layer *l;
    uint8_t *const *ptr;
    int32_t layer;
    const float *q_norm, *kv_norm; /* q_norm may be NULL                    */
    float *q, *kv;                 /* rows of the pass; queries: [nope | rot] per head */
    int64_t q_stride, d_query;
    int64_t t0, n_tok; /* absorbed form: the tokens at hand, at most FM_LATENT_TOKENS */
    int64_t group, n_group;
    int64_t n_unit; /* of the one token, when a token's units are spread out */
} fm_latent_job;

/* y[t] = W x[t], t < n <= FM_LATENT_TOKENS, on one thread; x[t] at x + t * x_stride, quantized into scratch (a
 * thread's latent_scratch) if W asks for it. block_latent.c, like the next two */
void fm_latent_product(fm_run *r, const fm_matrix *w, const float *x, int64_t x_stride,
                       float *const *y, int64_t n, unsigned char *scratch);
/* V_h. */
fm_matrix fm_latent_values(const fm_latent_job *j, int64_t h);
/* dst [n_latent][d_nope] = K_h^T; row [n_latent] is scratch. */
void fm_latent_keys(const fm_latent_job *j, int64_t h, float *dst, float *row);

/* ---- latent_prompt.c ----------------------------------------------------------------------- */

void fm_latent_prompt_layout(fm_run *r, fm_arena *a, int64_t n_batch, int64_t n_ctx);
/* Tokens [*from, *to) of the pass go through fm_latent_prompt(), whole blocks of positions. */
void fm_latent_prompt_range(const fm_run *r, int64_t *from, int64_t *to);
/* mix_o of these tokens, from their queries and the cache. */
void fm_latent_prompt(const fm_latent_job *j, int64_t from, int64_t to);
