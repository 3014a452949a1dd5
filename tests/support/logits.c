/* Comparison of logits with a reference, for the tests that evaluate models. */
#include "support/logits.h"

#include <math.h>

static int64_t best(const float *x, int64_t n)
{
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[at]) at = i;
    return at;
}

static double log_sum_exp(const float *x, int64_t n)
{
    double m = x[0], s = 0;
    for (int64_t i = 1; i < n; i++) m = x[i] > m ? x[i] : m;
    for (int64_t i = 0; i < n; i++) s += exp(x[i] - m);
    return m + log(s);
}

logits_comparison logits_compare(const float *ours, const float *ref, int64_t rows, int64_t cols)
{
    logits_comparison c = {0};
    for (int64_t t = 0; t < rows; t++) {
        const float *a = ours + t * cols, *b = ref + t * cols;
        double diff = 0, mag = 0, kl = 0;
        const double la = log_sum_exp(a, cols), lb = log_sum_exp(b, cols);
        for (int64_t i = 0; i < cols; i++) {
            const double d = fabs((double)a[i] - b[i]);
            /* written so that NaN counts as the largest difference */
            if (!(d <= diff)) diff = d;
            if (fabs(b[i]) > mag) mag = fabs(b[i]);
            kl += exp(b[i] - lb) * ((b[i] - lb) - (a[i] - la));
        }
        if (!(diff / mag <= c.worst)) c.worst = diff / mag;
        c.mean_kl += kl / (double)rows;
        const int64_t ba = best(a, cols), bb = best(b, cols);
        if (ba == bb) continue;
        c.other_top++;
        if (!(fabs((double)b[ba] - b[bb]) <= LOGITS_TIE * mag)) c.wrong_top++;
    }
    return c;
}
