/* What the two ways of grouped-query attention share (block_attention.c, attention_prompt.c). */
#pragma once

#include "model/run.h"

typedef struct {
    fm_run *r;
    const fm_layer *l;
    const float *q_norm, *k_norm, *sinks; /* or NULL */
    float *q, *k, *v;                     /* rows of the pass; q rows hold gates too when gated */
    int64_t q_stride, kv_stride, q_head_stride;
    float *o;    /* [n_tok][n_head * d] */
    int64_t end; /* tokens on one thread each: those before this one, the last of them first */
    /* one token at a time: which, its units, and how many groups the queries of a kv head are cut into */
    int64_t t, first_unit, n_unit, n_group;
} fm_attention_job;

/* Divides the sums acc [n][d] of token t and heads [head0, head0 + n) by their denominators, with maxima m [n] for the
 * sinks, applies the gate and stores them. block_attention.c */
void fm_attention_finish(const fm_attention_job *j, int64_t t, int64_t head0, int64_t n,
                         const float *acc, const float *m, const float *den);

/* ---- attention_prompt.c -------------------------------------------------------------------- */

void fm_attention_prompt_layout(fm_run *r, fm_arena *a, int64_t n_batch);
/* o of tokens [from, to) of the pass, whole blocks of positions, from their queries and the cache; no window. */
void fm_attention_prompt(const fm_attention_job *j, int64_t from, int64_t to);
