/* flashmoe bench: runs prompts and generations of fixed ids, and probes what disk and memory could
 * have given. Measures only; bench_report.c makes figures of it. */
#include "cli/cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "cli/bench.h"
#include "os/probe.h"

enum {
    MEMORY_PROBE_PASSES = 12,
    WEIGHTS_PASSES = 3, /* of a call: they differ in how they ask for memory */
    WEIGHTS_CALLS = 2,
    DISK_PROBE_US = 2000000,
    WARM_UP = -1, /* number of the first repeat that is not measured; further ones count down */
    WARM_UPS_MAX = 16,
    GROW_LOOK_US = 20 * 1000,
    GROW_STUCK_US = 2 * 1000 * 1000, /* no memory came for so long: go on without */
    GROWN_OF = 100, /* of so many misses one that growth would have avoided is none */
    LINES_MAX = 32,
};

/* What is kept while the engine comes and goes. */
typedef struct {
    const fm_cli_options *o;
    fm_bench_run run;
    char **path; /* [run.info.n_shard], owned */
    uint64_t *file_bytes;
    int32_t *ids; /* [prompt + gen] of the current repeat */
    fm_engine *engine;
    fm_session *session;
    uint64_t probed_reads;    /* of the disk probe so far */
    uint64_t opened_us;       /* when opening the engine began */
    uint64_t said[LINES_MAX]; /* hashes of the lines that opening has logged */
    int n_said;
    fm_log_fn log; /* where they went */
    void *log_user;
} bench;

/* ---- ids ------------------------------------------------------------------------------------ */

/* Ids of plain text, the same ones for the same model and repeat. Each repeat has its own: with the
 * same ids again, a warm cache would hold exactly what they need. */
static void draw_ids(bench *b, int repeat)
{
    const fm_tokenizer *tok = fm_engine_tokenizer(b->engine);
    int64_t n_id = b->run.info.n_vocab;
    if (tok && fm_tokenizer_n_vocab(tok) < n_id) n_id = fm_tokenizer_n_vocab(tok);
    uint64_t state = (uint64_t)(int64_t)repeat * 1000003 + 42;
    const int64_t n = (int64_t)b->o->bench_prompt + b->o->bench_gen;
    for (int64_t i = 0; i < n; i++) {
        int32_t id = (int32_t)(fm_splitmix64(&state) % (uint64_t)n_id);
        for (int tries = 0; tok && tries < 16 && fm_token_is_special(tok, id); tries++)
            id = (int32_t)(fm_splitmix64(&state) % (uint64_t)n_id);
        b->ids[i] = id;
    }
}

static fm_status top_id(int32_t *id, const bench *b, fm_error *err)
{
    const float *logits = fm_session_logits(b->session);
    int32_t best = 0;
    bool is_number = true;
    for (int32_t i = 0; i < b->run.info.n_vocab; i++) {
        is_number = is_number && !isnan(logits[i]);
        if (logits[i] > logits[best]) best = i;
    }
    *id = best;
    if (is_number) return FM_OK;
    return fm_fail(
        err, FM_E_FORMAT,
        "the model's output is not a number (NaN): its weights are damaged, or this is a "
        "fault of the engine");
}

static fm_status hash_top_id(bench *b, fm_bench_repeat *r, fm_error *err)
{
    int32_t id;
    FM_TRY(top_id(&id, b, err));
    r->token_hash = fm_fnv1a_id(r->token_hash, id);
    b->run.token_hash = fm_fnv1a_id(b->run.token_hash, id);
    return FM_OK;
}

/* ---- one repeat ----------------------------------------------------------------------------- */

static void add_difference(fm_bench_phase *p, const fm_stats *before, const fm_stats *after)
{
    p->hits = after->expert_hits - before->expert_hits;
    p->misses = after->expert_misses - before->expert_misses;
    p->bytes_read = after->bytes_read - before->bytes_read;
    p->wait_us = after->disk_wait_us - before->disk_wait_us;
    p->busy_us = after->disk_busy_us - before->disk_busy_us;
    p->expert_us = after->expert_us - before->expert_us;
    p->attention_us = after->attention_us - before->attention_us;
    p->sync_us = after->sync_us - before->sync_us;
    p->head_us = after->head_us - before->head_us;
    p->draft_us = after->draft_us - before->draft_us;
    p->drafts = after->drafts - before->drafts;
    p->drafts_right = after->drafts_right - before->drafts_right;
    p->prefetch_reads = after->prefetch_reads - before->prefetch_reads;
    p->prefetch_used = after->prefetch_used - before->prefetch_used;
    for (int i = 0; i < FM_MISS_BINS; i++)
        p->layers_with_misses[i] = after->layers_with_misses[i] - before->layers_with_misses[i];
}

static fm_status run_prompt(bench *b, fm_bench_repeat *r, fm_error *err)
{
    fm_cli_progress progress;
    fm_cli_progress_start(&progress, b->o, "prompt", false);
    const fm_eval_options eval = {
        .struct_size = sizeof eval, .progress = fm_cli_on_eval, .progress_user = &progress};
    const size_t n = (size_t)b->o->bench_prompt;
    fm_stats before, after;
    fm_engine_stats(b->engine, &before);
    const uint64_t started = fm_now_us();
    FM_TRY(fm_session_eval(b->session, b->ids, n, &eval, err));
    r->prompt.us = fm_now_us() - started;
    r->prompt.tokens = n;
    FM_TRY(hash_top_id(b, r, err));
    r->ttft_us = fm_now_us() - started;
    fm_engine_stats(b->engine, &after);
    if (b->run.is_cold) {
        r->start_us = started + r->ttft_us - b->opened_us;
        r->load_bytes = after.load_bytes;
    }
    add_difference(&r->prompt, &before, &after);
    fm_cli_progress_clear();
    return FM_OK;
}

/* The next draft: in draft_right of a hundred cases, spread evenly, the id that is fed next. */
static int32_t proposal(const bench *b, int32_t next)
{
    fm_stats stats;
    fm_engine_stats(b->engine, &stats);
    const uint64_t p = (uint64_t)b->o->draft_right, n = stats.drafts;
    const bool is_right = (n + 1) * p / 100 > n * p / 100;
    return is_right ? next : (next + 1) % b->run.info.n_vocab;
}

/* token_ms [gen] or NULL */
static fm_status run_generation(bench *b, fm_bench_repeat *r, double *token_ms, fm_error *err)
{
    fm_cli_progress progress;
    fm_cli_progress_start(&progress, b->o, "generation", false);
    fm_eval_options eval = {.struct_size = sizeof eval, .progress = fm_cli_on_token};
    const int32_t *ids = b->ids + b->o->bench_prompt;
    fm_stats before, after;
    fm_engine_stats(b->engine, &before);
    for (int32_t i = 0; i < b->o->bench_gen; i++) {
        r->gen.context_bytes += fm_session_bytes_per_token(b->session);
        const bool proposes = b->o->draft_right >= 0 && i + 1 < b->o->bench_gen;
        const int32_t next = proposes ? proposal(b, ids[i + 1]) : 0;
        eval.expected_next = proposes ? &next : NULL;
        const uint64_t started = fm_now_us();
        FM_TRY(fm_session_eval(b->session, &ids[i], 1, &eval, err));
        const uint64_t us = fm_now_us() - started; /* the largest logit is not ours to look for */
        r->gen.us += us;
        r->gen.tokens++;
        if (token_ms) token_ms[i] = (double)us / 1e3;
        FM_TRY(hash_top_id(b, r, err));
        fm_cli_progress_show(&progress, (uint64_t)i + 1, (uint64_t)b->o->bench_gen);
    }
    fm_engine_stats(b->engine, &after);
    add_difference(&r->gen, &before, &after);
    fm_cli_progress_clear();
    return FM_OK;
}

static double rate(const fm_bench_phase *p)
{
    return p->us > 0 ? (double)p->tokens * 1e6 / (double)p->us : 0;
}

static fm_status run_repeat(bench *b, int number, fm_error *err)
{
    fm_bench_repeat unmeasured = {0};
    fm_bench_repeat *r = number <= WARM_UP ? &unmeasured : &b->run.repeat[number];
    const uint64_t hash = b->run.token_hash;
    r->token_hash = FM_FNV1A_INIT;
    r->load_us = number <= WARM_UP || b->run.is_cold ? b->run.load_us : 0;
    draw_ids(b, number);
    fm_session_reset(b->session);
    if (b->o->bench_prompt > 0) FM_TRY(run_prompt(b, r, err));
    double *const token_ms =
        number <= WARM_UP ? NULL : b->run.token_ms + (size_t)number * (size_t)b->o->bench_gen;
    if (b->o->bench_gen > 0) FM_TRY(run_generation(b, r, token_ms, err));
    if (number <= WARM_UP) {
        b->run.token_hash = hash;
        return FM_OK;
    }
    char a[48] = "", c[48] = "";
    if (b->o->bench_prompt > 0) snprintf(a, sizeof a, ", prompt %.2f tok/s", rate(&r->prompt));
    if (b->o->bench_gen > 0) snprintf(c, sizeof c, ", generation %.2f tok/s", rate(&r->gen));
    fm_cli_note(b->o, "repeat %d of %d%s%s", number + 1, b->run.n_repeat, a, c);
    return FM_OK;
}

/* ---- the engine ----------------------------------------------------------------------------- */

/* The engine is opened several times and says the same each time. */
static void log_once(void *user, fm_log_level level, const char *line)
{
    bench *b = user;
    const uint64_t hash = fm_fnv1a(FM_FNV1A_INIT, line, strlen(line));
    for (int i = 0; i < b->n_said; i++)
        if (b->said[i] == hash) return;
    if (b->n_said < LINES_MAX) b->said[b->n_said++] = hash;
    b->log(b->log_user, level, line);
}

static bool on_load(void *user, uint64_t done, uint64_t total)
{
    (void)user, (void)done, (void)total;
    return !fm_cli_is_interrupted();
}

static void engine_options(fm_engine_options *opt, bench *b)
{
    fm_cli_engine_options(opt, b->o);
    if (opt->n_ctx == 0) opt->n_ctx = b->o->bench_prompt + b->o->bench_gen;
    b->log = opt->log;
    b->log_user = opt->log_user;
    opt->log = log_once;
    opt->log_user = b;
    opt->load_progress = on_load;
}

static void close_engine(bench *b)
{
    if (!b->engine) return;
    fm_stats stats;
    fm_engine_stats(b->engine, &stats);
    b->run.peak_rss_bytes = stats.peak_rss_bytes;
    fm_session_destroy(b->session);
    fm_engine_close(b->engine);
    b->session = NULL;
    b->engine = NULL;
}

static fm_status open_engine(bench *b, bool is_first, fm_error *err)
{
    b->opened_us = fm_now_us();
    fm_engine_options opt;
    engine_options(&opt, b);
    FM_TRY(is_first ? fm_cli_open(&b->engine, &opt, b->o, err)
                    : fm_engine_open(&b->engine, &opt, err));
    FM_TRY(fm_session_create(&b->session, b->engine, err));
    fm_stats stats;
    fm_engine_stats(b->engine, &stats);
    b->run.load_us = stats.load_us;
    fm_engine_plan(b->engine, &b->run.plan);
    fm_engine_model_info(b->engine, &b->run.info);
    snprintf(b->run.name, sizeof b->run.name, "%s", b->run.info.name);
    snprintf(b->run.family, sizeof b->run.family, "%s", b->run.info.architecture);
    snprintf(b->run.kernels, sizeof b->run.kernels, "%s", b->run.info.kernels);
    snprintf(b->run.io, sizeof b->run.io, "%s", b->run.info.io_engine);
    /* What read_facts() measured is what this engine remembers. */
    if (strcmp(b->run.io_origin, "measured") != 0)
        snprintf(b->run.io_origin, sizeof b->run.io_origin, "%s", b->run.info.io_origin);
    b->run.info.io_origin = b->run.io_origin;
    return FM_OK;
}

/* Sizes and files, before anything is loaded: the probes need them, and their memory must be gone
 * when the engine looks for its own. */
static fm_status read_facts(bench *b, fm_error *err)
{
    fm_engine_options opt;
    engine_options(&opt, b);
    opt.plan_only = true;
    opt.measure_io = true; /* not inside the first repeat */
    fm_engine *engine;
    FM_TRY(fm_engine_open(&engine, &opt, err));
    fm_engine_model_info(engine, &b->run.info);
    fm_engine_plan(engine, &b->run.plan);
    snprintf(b->run.io_origin, sizeof b->run.io_origin, "%s", b->run.info.io_origin);
    const size_t n = (size_t)b->run.info.n_shard;
    b->path = calloc(n, sizeof *b->path);
    b->file_bytes = calloc(n, sizeof *b->file_bytes);
    bool is_complete = b->path && b->file_bytes;
    for (int32_t i = 0; is_complete && i < b->run.info.n_shard; i++) {
        b->path[i] = strdup(fm_engine_file(engine, i, &b->file_bytes[i]));
        is_complete = b->path[i] != NULL;
    }
    fm_engine_close(engine);
    const size_t n_id = (size_t)b->o->bench_prompt + (size_t)b->o->bench_gen;
    b->ids = malloc(n_id * sizeof *b->ids);
    b->run.n_repeat = b->o->n_repeat;
    b->run.repeat = calloc((size_t)b->run.n_repeat, sizeof *b->run.repeat);
    /* One more: none is no request for memory that fails. */
    b->run.token_ms =
        calloc((size_t)b->run.n_repeat * (size_t)b->o->bench_gen + 1, sizeof *b->run.token_ms);
    if (is_complete && b->ids && b->run.repeat && b->run.token_ms) return FM_OK;
    return fm_fail(err, FM_E_NOMEM, "no memory for the measurement's tables");
}

/* ---- probes --------------------------------------------------------------------------------- */

static bool go_on(void *user)
{
    (void)user;
    return !fm_cli_is_interrupted();
}

static bool probes(const bench *b)
{
    return strcmp(b->o->probes, "on") == 0;
}

/* Each call streams all that is resident, seconds of a large model. */
static fm_status probe_weights(bench *b, fm_error *err)
{
    if (!probes(b)) return FM_OK;
    for (int i = 0; i < WEIGHTS_CALLS; i++) {
        if (fm_cli_is_interrupted()) return fm_fail(err, FM_E_CANCELLED, "interrupted");
        const double gb_s = fm_engine_weights_gb_s(b->engine, WEIGHTS_PASSES);
        if (gb_s > b->run.weights_gb_s) b->run.weights_gb_s = gb_s;
    }
    return FM_OK;
}

/* The engine is closed: at most half of the budget is used here. */
static fm_status probe_machine(bench *b, int number, fm_error *err)
{
    fm_bench_run *run = &b->run;
    if (!probes(b)) return FM_OK;
    fm_cli_note(b->o, "probing memory and disk");
    const uint64_t half = run->plan.budget_bytes / 2;
    const uint64_t uncached = fm_probe_uncached_bytes();
    run->memory_probe_bytes = half < uncached ? half >> 20 << 20 : uncached;
    if (run->memory_probe_bytes == 0) run->memory_probe_bytes = 1 << 20;
    const fm_memory_probe memory = {.bytes = run->memory_probe_bytes,
                                    .n_threads = run->info.n_threads,
                                    .passes = MEMORY_PROBE_PASSES,
                                    .go = go_on};
    FM_TRY(fm_probe_memory(&run->memory_gb_s[number], &memory, err));
    const fm_disk_probe disk = {.path = (const char *const *)b->path,
                                .file_bytes = b->file_bytes,
                                .n_file = run->info.n_shard,
                                .io_engine = b->o->io,
                                .depth = run->info.io_depth,
                                .split_bytes = run->info.io_split,
                                .read_bytes = run->info.bytes_per_expert_read,
                                .buffer_bytes = half,
                                .max_us = DISK_PROBE_US,
                                .first = b->probed_reads,
                                .go = go_on};
    fm_disk_probe_result result;
    FM_TRY(fm_probe_disk(&result, &disk, err));
    b->probed_reads += result.requests;
    run->disk_gb_s[number] = result.gb_s;
    run->disk_probe_bytes += result.bytes;
    if (number == 0) run->disk_probe_read_bytes = result.read_bytes;
    return FM_OK;
}

/* ---- the command ---------------------------------------------------------------------------- */

/* What a user's pause between two questions does: the cache gets the memory that it wants. */
static void let_grow(const bench *b)
{
    const struct timespec look = {.tv_nsec = GROW_LOOK_US * 1000};
    fm_cli_progress progress;
    fm_cli_progress_start(&progress, b->o, "memory of the expert cache", true);
    fm_stats now;
    fm_engine_stats(b->engine, &now);
    const uint64_t total = now.experts_growing_bytes;
    uint64_t left = total, since = fm_now_us();
    while (left > 0 && !fm_cli_is_interrupted() && fm_now_us() - since < GROW_STUCK_US) {
        nanosleep(&look, NULL);
        fm_engine_stats(b->engine, &now);
        if (now.experts_growing_bytes >= left) continue;
        left = now.experts_growing_bytes;
        since = fm_now_us();
        fm_cli_progress_show(&progress, total - left, total);
    }
    fm_cli_progress_clear();
}

/* Repeats that are not measured: one, and more while the cache grows; a recorded trace has one. */
static fm_status warm_up(bench *b, fm_error *err)
{
    const int most = b->o->trace_path ? 1 : WARM_UPS_MAX;
    while (b->run.n_warm_up < most && !b->run.is_grown) {
        fm_stats before, after;
        fm_engine_stats(b->engine, &before);
        FM_TRY(run_repeat(b, WARM_UP - b->run.n_warm_up, err));
        fm_engine_stats(b->engine, &after);
        const uint64_t early = after.experts_evicted_early - before.experts_evicted_early;
        b->run.is_grown = early <= (after.expert_misses - before.expert_misses) / GROWN_OF;
        b->run.n_warm_up++;
        fm_cli_note(b->o, "warm-up %d done%s", b->run.n_warm_up,
                    b->run.is_grown ? "" : "; the expert cache was still growing");
        if (!b->run.is_grown && b->run.n_warm_up < most) let_grow(b);
    }
    return FM_OK;
}

static fm_status run_all(bench *b, fm_error *err)
{
    for (int i = b->run.is_cold ? 0 : WARM_UP; i < b->run.n_repeat; i++) {
        if (b->run.is_cold) {
            close_engine(b);
            for (int32_t f = 0; f < b->run.info.n_shard; f++)
                FM_TRY(fm_probe_drop_cache(b->path[f], err));
        }
        if (!b->engine) {
            FM_TRY(open_engine(b, i <= 0, err));
            if (i <= 0 && !b->o->is_quiet) fm_cli_print_plan(stderr, &b->run.plan, &b->run.info);
        }
        FM_TRY(i == WARM_UP ? warm_up(b, err) : run_repeat(b, i, err));
        FM_TRY(probe_weights(b, err));
    }
    if (b->engine) FM_TRY(fm_engine_finish_trace(b->engine, err));
    close_engine(b);
    return FM_OK;
}

static void free_tables(bench *b)
{
    for (int32_t i = 0; b->path && i < b->run.info.n_shard; i++) free(b->path[i]);
    free(b->path);
    free(b->file_bytes);
    free(b->ids);
    free(b->run.repeat);
    free(b->run.token_ms);
}

static int check_options(const fm_cli_options *o)
{
    if (o->is_cold && o->is_warm) return fm_cli_usage_error(o, "give either --cold or --warm");
    if (o->is_json && o->is_csv) return fm_cli_usage_error(o, "give either --json or --csv");
    if (o->is_cold && o->trace_path)
        return fm_cli_usage_error(o, "--record-trace records one engine, --cold makes many");
    if (o->draft_right >= 0 && !(o->draft && strcmp(o->draft, "on") == 0))
        return fm_cli_usage_error(o, "--draft-right is for --draft on");
    const int32_t n = o->bench_prompt + o->bench_gen;
    if (n == 0) return fm_cli_usage_error(o, "--prompt 0 --gen 0: nothing to measure");
    if (o->n_ctx > 0 && o->n_ctx < n) {
        return fm_cli_usage_error(o, "--ctx %d is too short for %d tokens (--prompt %d, --gen %d)",
                                  (int)o->n_ctx, (int)n, (int)o->bench_prompt, (int)o->bench_gen);
    }
    return FM_EXIT_OK;
}

int fm_cmd_bench(const fm_cli_options *o)
{
    const int usage = check_options(o);
    if (usage != FM_EXIT_OK) return usage;
    fm_error err = {0};
    bench b = {.o = o, .run = {.is_cold = o->is_cold, .token_hash = FM_FNV1A_INIT}};
    fm_status st = read_facts(&b, &err);
    if (st == FM_OK) st = probe_machine(&b, 0, &err);
    if (st == FM_OK) st = run_all(&b, &err);
    if (st == FM_OK) st = probe_machine(&b, 1, &err);
    if (st == FM_OK) fm_bench_report(&b.run, o);
    const int status = st == FM_OK ? FM_EXIT_OK : fm_cli_fail(&err);
    fm_cli_progress_clear();
    close_engine(&b);
    free_tables(&b);
    return status;
}
