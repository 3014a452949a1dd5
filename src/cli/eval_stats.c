/* See eval_stats.h. */
#include "cli/eval_stats.h"

#include <math.h>
#include <stdlib.h>

double fm_eval_log_sum(const float *x, int64_t n)
{
    float most = x[0];
    for (int64_t i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    if (!isfinite(most)) return (double)NAN;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)most);
    return (double)most + log(sum);
}

double fm_eval_divergence(const float *ref, double ref_log_sum, const float *x, double x_log_sum,
                          int64_t n)
{
    /* sum p (ref - x) - (ref_log_sum - x_log_sum): one exponential per token. */
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double p = exp((double)ref[i] - ref_log_sum);
        if (p > 0) sum += p * ((double)ref[i] - (double)x[i]);
    }
    const double kl = sum - (ref_log_sum - x_log_sum);
    return kl < 0 ? 0 : kl;
}

int32_t fm_eval_top(const float *x, int64_t n)
{
    int64_t top = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[top]) top = i;
    return (int32_t)top;
}

void fm_eval_mean_add(fm_eval_mean *m, double value)
{
    m->n++;
    m->sum += value;
    m->sum_of_squares += value * value;
}

double fm_eval_mean_value(const fm_eval_mean *m)
{
    return m->n > 0 ? m->sum / (double)m->n : (double)NAN;
}

double fm_eval_mean_error(const fm_eval_mean *m)
{
    if (m->n < 2) return (double)NAN;
    const double n = (double)m->n, mean = m->sum / n;
    const double variance = m->sum_of_squares / n - mean * mean;
    return variance > 0 ? sqrt(variance / (n - 1)) : 0;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void fm_eval_sort(double *values, uint64_t n)
{
    qsort(values, n, sizeof *values, ascending);
}

double fm_eval_quantile(const double *sorted, uint64_t n, double q)
{
    const double at = q * (double)(n - 1);
    const uint64_t low = (uint64_t)at;
    if (low + 1 >= n) return sorted[n - 1];
    return sorted[low] + (at - (double)low) * (sorted[low + 1] - sorted[low]);
}
