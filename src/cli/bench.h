/* Between the parts of `flashmoe bench`: cmd_bench.c measures, bench_report.c turns what was measured
 * into figures and prints them.
 */
#pragma once

#include "cli/bench_bound.h"
#include "cli/cli.h"

/* One prompt or one generation. */
typedef struct {
    uint64_t tokens, us;
    uint64_t hits, misses, bytes_read;
    uint64_t wait_us, busy_us, expert_us, attention_us, head_us, sync_us, draft_us;
    uint64_t drafts, drafts_right;
    uint64_t prefetch_reads, prefetch_used;
    uint64_t context_bytes; /* touched of attention caches and recurrent state; generation only */
    uint64_t layers_with_misses[FM_MISS_BINS];
} fm_bench_phase;

typedef struct {
    fm_bench_phase prompt, gen;
    uint64_t ttft_us;    /* from the start of the prompt to the first id */
    uint64_t load_us;    /* of this repeat's engine; 0 when it was kept  */
    uint64_t start_us;   /* from opening that engine to the first id; 0  */
    uint64_t load_bytes; /* read for that engine's trunk                 */
    uint64_t token_hash; /* of this repeat alone                         */
} fm_bench_repeat;

enum {
    FM_BENCH_REPEATS_MAX = 1000,
    FM_BENCH_PROBES = 2,
};

/* Everything measured; strings of the engine are copied. */
typedef struct {
    char name[96], family[32], kernels[16], io[16], io_origin[16];
    fm_model_info info; /* its strings are gone with the engine */
    fm_plan plan;
    bool is_cold;
    int n_warm_up;           /* repeats before the measured ones */
    bool is_grown;           /* the expert cache grew no more after them */
    fm_bench_repeat *repeat; /* [n_repeat] */
    int n_repeat;
    double *token_ms;    /* of each generated token, repeat after repeat; sorted by the report */
    uint64_t token_hash; /* over all repeats */
    uint64_t peak_rss_bytes, load_us; /* load_us: of the engine that is or was open */

    double memory_gb_s[FM_BENCH_PROBES]; /* before and after the runs */
    uint64_t memory_probe_bytes;
    double weights_gb_s; /* the resident weights where they lie, best of all repeats */
    double disk_gb_s[FM_BENCH_PROBES];
    uint64_t disk_probe_bytes, disk_probe_read_bytes;
} fm_bench_run;

/* Prints as o asks: table, --json or --csv. */
void fm_bench_report(fm_bench_run *run, const fm_cli_options *o);
