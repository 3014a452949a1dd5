/* Rotary position embedding: what turns a position into angles.
 *
 * A rotary vector of n_rot values holds n_rot / 2 pairs; pair i at position p turns by p * f_i.
 * Sources: J. Su et al., RoFormer (arXiv 2104.09864); B. Peng et al., YaRN (arXiv 2309.00071),
 * in the form of transformers, modeling_rope_utils; checked by tests/unit/test_rope.c.
 */
#pragma once

#include "format/checkpoint.h"

typedef enum { FM_ROPE_PLAIN, FM_ROPE_LINEAR, FM_ROPE_YARN } fm_rope_scaling;

typedef struct {
    float base;    /* f_i = base^(-2i / n_rot) before scaling            */
    int32_t n_rot; /* values of a head that turn, even                   */
    fm_rope_scaling scaling;
    float factor;           /* linear, YaRN: context is this many times longer      */
    int32_t n_ctx_original; /* YaRN: context before scaling                         */
    float beta_fast;        /* YaRN: pairs that turn more often than this over the  */
    float beta_slow;        /*   original context keep f_i, less often than that    */
                            /*   get f_i / factor, a ramp between                   */
    bool truncate;          /* YaRN: the ends of the ramp are whole pair numbers    */
    float attention_factor; /* cos and sin are multiplied by this                   */
    float score_factor;     /* attention scores are multiplied by this              */
} fm_rope;

/* 0.1 * mscale * ln(factor) + 1, YaRN's magnitude correction; 1 for factors up to 1. */
double fm_rope_mscale(double factor, double mscale);

/* Reads "A.rope.scaling.*" of a GGUF file of architecture A into *rope, whose base and n_rot are set.
 * GGUF keeps 0.1 * mscale_all_dim as yarn_log_multiplier and implies mscale = mscale_all_dim: with that
 * key cos and sin stay as they are and scores are multiplied by the square of the correction.
 * Without it YaRN's default correction goes to cos and sin. */
fm_status fm_rope_read(const fm_checkpoint *c, fm_rope *rope, fm_error *err);

/* freq [n_rot / 2], radians per position. */
void fm_rope_frequencies(const fm_rope *rope, double *freq);

/* cos_t, sin_t [n_tok][n_rot / 2] for positions pos0.. Angles in double, then rounded. */
void fm_rope_tables(const fm_rope *rope, const double *freq, int64_t pos0, int64_t n_tok,
                    float *cos_t, float *sin_t);
