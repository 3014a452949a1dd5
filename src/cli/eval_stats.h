/* What an evaluation measures: how surprised the model is by a text, and how far its distributions are
 * from those of a reference. Natural logarithms throughout. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* ln(sum(exp(x))) over x [n], in double precision; NaN when a value is NaN or +infinity, or none is above
 * -infinity. */
double fm_eval_log_sum(const float *x, int64_t n);

/* sum p ln(p / q) with p = softmax(ref), q = softmax(x), both [n]; never below 0. The two log sums are those
 * of fm_eval_log_sum(). */
double fm_eval_divergence(const float *ref, double ref_log_sum, const float *x, double x_log_sum,
                          int64_t n);

/* The largest value's index; the lowest of equal ones. */
int32_t fm_eval_top(const float *x, int64_t n);

/* A mean and its standard error, sqrt(variance / (n - 1)), from sums; the error is NaN below 2 values. */
typedef struct {
    uint64_t n;
    double sum, sum_of_squares;
} fm_eval_mean;

void fm_eval_mean_add(fm_eval_mean *m, double value);
double fm_eval_mean_value(const fm_eval_mean *m);
double fm_eval_mean_error(const fm_eval_mean *m);

/* Sorts values [n], n >= 1, ascending. */
void fm_eval_sort(double *values, uint64_t n);
/* Quantile q in [0, 1] of sorted values, linear between neighbours as in numpy. */
double fm_eval_quantile(const double *sorted, uint64_t n, double q);
