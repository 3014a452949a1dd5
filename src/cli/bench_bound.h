/* How fast a run could have been at the measured speed of disk and memory. Pure arithmetic; the model
 * is explained in docs/benchmarks.md. Times are in seconds, rates in 1e9 bytes per second.
 */
#pragma once

#include "flashmoe.h"

typedef struct {
    double disk_gb_s, memory_gb_s; /* as probed */
    double trunk_bytes;            /* weights that every token touches, shared experts included */
    double shared_bytes;           /* of which shared experts, all layers                       */
    double head_bytes;             /* of which the output head                                  */
    double context_bytes;          /* of attention caches and recurrent state                   */
    double expert_bytes;           /* one routed expert                                         */
    double disk_bytes;             /* read for one token and needed                             */
    double disk_expert_bytes;      /* of which routed experts (more than all of them: all)      */
    int32_t n_layer;               /* with routed experts                                       */
    int32_t n_expert_used;         /* per token and layer                                       */
    /* [FM_MISS_BINS] how often a layer of one token had i misses; only the shares count. All zero:
     * no layer had any. */
    const uint64_t *layers_with_misses;
} fm_bench_token;

typedef struct {
    double disk_s, memory_s, arithmetic_s; /* the three terms; 0: not counted             */
    double overlapped_s;                   /* everything overlaps everything              */
    double dependent_s;                    /* misses known after routers and heads       */
} fm_bench_bound;

/* One token of generation. Arithmetic is not counted: one token's products are bound by memory. A term
 * whose rate is 0 (not measured) is NAN when it has bytes, and so are the bounds. */
fm_bench_bound fm_bench_bound_token(const fm_bench_token *token);

/* Time from a layer's router to the end of its experts, of which n_miss have to be read. */
double fm_bench_layer_s(const fm_bench_token *token, int32_t n_miss);

/* A prompt: needed bytes from disk, bytes of weights touched (once per pass), and the time of the
 * arithmetic as measured. All of it overlaps. */
fm_bench_bound fm_bench_bound_prompt(double disk_bytes, double disk_gb_s, double touched_bytes,
                                     double memory_gb_s, double arithmetic_s);

/* Whether the disk gave so much more while it was busy than in the probes that these met a slow moment: a tenth may be
 * chance. NAN, or 0 for a probe: not measured. */
bool fm_bench_probe_was_slow(double probe_gb_s, double busy_gb_s);

/* Of n > 0 values, which are sorted in place. */
double fm_bench_median(double *values, int n);
