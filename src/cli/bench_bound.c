/* The speed model of a benchmark. See bench_bound.h and docs/benchmarks.md. */
#include "cli/bench_bound.h"

#include <math.h>

#include "cli/eval_stats.h"

static double larger(double a, double b)
{
    return isnan(a) || isnan(b) ? NAN : a > b ? a : b;
}

static double seconds(double bytes, double gb_s)
{
    if (bytes <= 0) return 0;
    return gb_s > 0 ? bytes / (gb_s * 1e9) : NAN;
}

/* Reads start when the router has spoken and land one after another at the disk's rate. Meanwhile
 * the cached experts and the shared one are computed; a missing one is computed after it landed:
 *
 *   max( all computing,                       the disk is never waited for
 *        first landing + computing misses,    the disk is faster than memory
 *        last landing + computing one )       the disk is slower than memory
 *
 * Landings are evenly spaced, so the landings in between are never the longest way. */
double fm_bench_layer_s(const fm_bench_token *t, int32_t n_miss)
{
    if (n_miss > t->n_expert_used) n_miss = t->n_expert_used;
    const double shared_s =
        seconds(t->n_layer > 0 ? t->shared_bytes / t->n_layer : 0, t->memory_gb_s);
    const double compute_one = seconds(t->expert_bytes, t->memory_gb_s);
    const double compute_all = shared_s + t->n_expert_used * compute_one;
    if (n_miss <= 0) return compute_all;
    const double read_one = seconds(t->expert_bytes, t->disk_gb_s);
    const double first = read_one + n_miss * compute_one;
    const double last = n_miss * read_one + compute_one;
    return larger(compute_all, larger(first, last));
}

fm_bench_bound fm_bench_bound_token(const fm_bench_token *t)
{
    const double routed = (double)t->n_layer * t->n_expert_used * t->expert_bytes;
    fm_bench_bound b = {.disk_s = seconds(t->disk_bytes, t->disk_gb_s),
                        .memory_s =
                            seconds(t->trunk_bytes + t->context_bytes + routed, t->memory_gb_s)};
    b.overlapped_s = larger(b.disk_s, b.memory_s);

    double layer_s = 0;
    uint64_t n = 0;
    for (int32_t m = 0; m < FM_MISS_BINS; m++) {
        if (t->layers_with_misses[m] == 0) continue;
        layer_s += (double)t->layers_with_misses[m] * fm_bench_layer_s(t, m);
        n += t->layers_with_misses[m];
    }
    layer_s = n > 0 ? layer_s / (double)n : fm_bench_layer_s(t, 0);
    b.dependent_s = seconds(t->trunk_bytes - t->shared_bytes + t->context_bytes, t->memory_gb_s) +
                    t->n_layer * layer_s;
    /* Bytes that no miss stands for (streamed trunk, reads ahead) can only add to the disk's time. */
    b.dependent_s = larger(b.dependent_s, b.overlapped_s);
    /* While the head is computed the next token is not known, so no router can be asked about it. */
    const double experts =
        t->disk_expert_bytes < t->disk_bytes ? t->disk_expert_bytes : t->disk_bytes;
    b.dependent_s = larger(b.dependent_s,
                           seconds(experts, t->disk_gb_s) + seconds(t->head_bytes, t->memory_gb_s));
    return b;
}

fm_bench_bound fm_bench_bound_prompt(double disk_bytes, double disk_gb_s, double touched_bytes,
                                     double memory_gb_s, double arithmetic_s)
{
    fm_bench_bound b = {.disk_s = seconds(disk_bytes, disk_gb_s),
                        .memory_s = seconds(touched_bytes, memory_gb_s),
                        .arithmetic_s = arithmetic_s};
    b.overlapped_s = larger(b.arithmetic_s, larger(b.disk_s, b.memory_s));
    b.dependent_s = b.overlapped_s;
    return b;
}

bool fm_bench_probe_was_slow(double probe_gb_s, double busy_gb_s)
{
    return probe_gb_s > 0 && busy_gb_s > 1.1 * probe_gb_s;
}

double fm_bench_median(double *values, int n)
{
    fm_eval_sort(values, (uint64_t)n);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}
