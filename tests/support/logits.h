/* How far logits are from reference logits. */
#pragma once

#include <stdint.h>

/* A row error is the largest difference of a row over the largest magnitude of the reference's row. */
typedef struct {
    double worst;   /* largest row error; NaN counts as the largest                       */
    double mean_kl; /* of the reference's distribution from ours, nats                    */
    int other_top;  /* rows whose best token differs                                      */
    int wrong_top;  /* of which the reference has the two further apart than LOGITS_TIE   */
} logits_comparison;

/* Two logits of a row closer than this times the row's largest magnitude are a tie. */
#define LOGITS_TIE 1e-3

/* ours, ref: [rows][cols]. */
logits_comparison logits_compare(const float *ours, const float *ref, int64_t rows, int64_t cols);
