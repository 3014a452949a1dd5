/* What `flashmoe bench` measured, as a table, as JSON or as CSV. */
#include "cli/bench.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/eval_stats.h"
#include "os/probe.h"

/* Of the times of single tokens: the fastest tenth's end, the median, the slowest tenth's begin, the longest. */
enum { TOKEN_P10, TOKEN_P50, TOKEN_P90, TOKEN_MAX, N_QUANTILES };
static const struct {
    const char *name;
    double q;
} quantiles[N_QUANTILES] = {
    [TOKEN_P10] = {"token_ms_p10", 0.1},
    [TOKEN_P50] = {"token_ms_p50", 0.5},
    [TOKEN_P90] = {"token_ms_p90", 0.9},
    [TOKEN_MAX] = {"token_ms_max", 1.0},
};

/* One phase over all repeats: rates are medians, everything else is the mean per token. */
typedef struct {
    const char *name;
    fm_bench_phase sum;
    double tok_s, tok_s_min, tok_s_max;
    double token_ms[N_QUANTILES]; /* of single tokens of a generation; of prompts NAN */
    double hit_rate;              /* NAN: no experts were asked for */
    double bytes_per_token, wasted_per_token, disk_gb_s;
    double wait, experts, attention, head, rest; /* shares of the time */
    double sync;                                 /* inside experts, attention and head */
    double busy;                                 /* the disk had reads, whatever else went on */
    double busy_gb_s;                            /* what it gave then; NAN: it had none */
    fm_bench_bound bound;                        /* seconds per token  */
    double bound_tok_s, bound_ratio, overlapped_tok_s, overlapped_ratio;
} figures;

typedef struct {
    figures prompt, gen;             /* tokens 0: not measured */
    double ttft_ms;                  /* median                 */
    double load_ms;                  /* median of cold repeats; warm: of the one engine */
    double start_ms, start_bound_ms; /* median of cold repeats; NAN: the caches were warm */
    double disk_gb_s, memory_gb_s;
    double touched_trunk, touched_experts, touched_context; /* bytes per token of generation */
    double expert_bytes;
    char hash[17];
    const char *state;
    char state_how[192];
} report;

/* ---- figures -------------------------------------------------------------------------------- */

static double best_of(const double *values)
{
    double best = 0;
    for (int i = 0; i < FM_BENCH_PROBES; i++)
        if (values[i] > best) best = values[i];
    return best;
}

/* What was not measured is no number. */
static double measured(double value)
{
    return value > 0 ? value : NAN;
}

static void add_phase(fm_bench_phase *sum, const fm_bench_phase *p)
{
    sum->tokens += p->tokens;
    sum->us += p->us;
    sum->hits += p->hits;
    sum->misses += p->misses;
    sum->bytes_read += p->bytes_read;
    sum->wait_us += p->wait_us;
    sum->busy_us += p->busy_us;
    sum->sync_us += p->sync_us;
    sum->expert_us += p->expert_us;
    sum->attention_us += p->attention_us;
    sum->head_us += p->head_us;
    sum->draft_us += p->draft_us;
    sum->drafts += p->drafts;
    sum->drafts_right += p->drafts_right;
    sum->prefetch_reads += p->prefetch_reads;
    sum->prefetch_used += p->prefetch_used;
    sum->context_bytes += p->context_bytes;
    for (int i = 0; i < FM_MISS_BINS; i++) sum->layers_with_misses[i] += p->layers_with_misses[i];
}

static double per_second(const fm_bench_phase *p)
{
    return p->us > 0 ? (double)p->tokens * 1e6 / (double)p->us : NAN;
}

static const fm_bench_phase *phase_of(const fm_bench_repeat *r, bool is_prompt)
{
    return is_prompt ? &r->prompt : &r->gen;
}

static void fill_rates(figures *f, const fm_bench_run *run, bool is_prompt)
{
    f->name = is_prompt ? "prompt" : "generation";
    double rates[FM_BENCH_REPEATS_MAX];
    for (int i = 0; i < run->n_repeat; i++) {
        add_phase(&f->sum, phase_of(&run->repeat[i], is_prompt));
        rates[i] = per_second(phase_of(&run->repeat[i], is_prompt));
    }
    f->tok_s = f->tok_s_min = f->tok_s_max = NAN;
    if (f->sum.tokens == 0) return;
    f->tok_s = fm_bench_median(rates, run->n_repeat); /* sorts */
    f->tok_s_min = rates[0];
    f->tok_s_max = rates[run->n_repeat - 1];
}

static void fill_token_times(report *r, fm_bench_run *run)
{
    for (int i = 0; i < N_QUANTILES; i++) r->prompt.token_ms[i] = r->gen.token_ms[i] = NAN;
    const uint64_t n = r->gen.sum.tokens;
    /* Of two tokens evaluated together the second takes no time. */
    if (n == 0 || r->gen.sum.drafts > 0) return;
    fm_eval_sort(run->token_ms, n);
    for (int i = 0; i < N_QUANTILES; i++)
        r->gen.token_ms[i] = fm_eval_quantile(run->token_ms, n, quantiles[i].q);
}

static void fill_means(figures *f, double expert_bytes)
{
    const fm_bench_phase *s = &f->sum;
    const double n = s->tokens > 0 ? (double)s->tokens : NAN;
    const double us = s->us > 0 ? (double)s->us : NAN;
    const uint64_t uses = s->hits + s->prefetch_used + s->misses;
    f->hit_rate = uses > 0 ? (double)s->hits / (double)uses : NAN;
    f->bytes_per_token = (double)s->bytes_read / n;
    /* What was read ahead in one phase may be used in the next: never more than was read. */
    double wasted = 0;
    if (s->prefetch_reads > s->prefetch_used)
        wasted = (double)(s->prefetch_reads - s->prefetch_used) * expert_bytes;
    if (wasted > (double)s->bytes_read) wasted = (double)s->bytes_read;
    f->wasted_per_token = wasted / n;
    f->disk_gb_s = (double)s->bytes_read / 1e3 / us;
    f->wait = (double)s->wait_us / us;
    f->busy = (double)s->busy_us / us;
    f->busy_gb_s = s->busy_us > 0 ? (double)s->bytes_read / 1e3 / (double)s->busy_us : NAN;
    f->sync = (double)s->sync_us / us;
    f->experts = (double)s->expert_us / us;
    f->attention = (double)s->attention_us / us;
    f->head = (double)s->head_us / us;
    f->rest = 1 - f->wait - f->experts - f->attention - f->head;
    if (f->rest < 0) f->rest = 0; /* clocks of microseconds do not add up exactly */
}

/* Bytes of memory that a token of generation touches. */
static double touched(const report *r)
{
    return r->touched_trunk + r->touched_experts + r->touched_context;
}

static void fill_ratios(figures *f)
{
    f->bound_tok_s = 1 / f->bound.dependent_s;
    f->overlapped_tok_s = 1 / f->bound.overlapped_s;
    f->bound_ratio = f->tok_s / f->bound_tok_s;
    f->overlapped_ratio = f->tok_s / f->overlapped_tok_s;
}

static void bound_generation(report *r, const fm_bench_run *run)
{
    figures *f = &r->gen;
    const fm_bench_token token = {
        .disk_gb_s = r->disk_gb_s,
        .memory_gb_s = r->memory_gb_s,
        .trunk_bytes = r->touched_trunk,
        .context_bytes = r->touched_context,
        .shared_bytes = (double)run->info.shared_expert_bytes_per_token,
        .head_bytes = (double)run->info.head_bytes_per_token,
        .expert_bytes = r->expert_bytes,
        .disk_bytes = f->bytes_per_token - f->wasted_per_token,
        .disk_expert_bytes = f->sum.tokens > 0 ? (double)(f->sum.misses + f->sum.prefetch_used) *
                                                     r->expert_bytes / (double)f->sum.tokens
                                               : 0,
        .n_layer = run->info.n_moe_layer,
        .n_expert_used = run->info.n_expert_used,
        .layers_with_misses = f->sum.layers_with_misses,
    };
    f->bound = fm_bench_bound_token(&token);
    fill_ratios(f);
    /* Two tokens in a pass share what they read: these bounds are of tokens one by one. */
    if (f->sum.drafts > 0)
        f->bound_tok_s = f->overlapped_tok_s = f->bound_ratio = f->overlapped_ratio = NAN;
}

static void bound_prompt(report *r, const fm_bench_run *run)
{
    figures *f = &r->prompt;
    const double n_repeat = run->n_repeat, n = (double)f->sum.tokens / n_repeat;
    const double pass = run->plan.n_batch > 0 ? run->plan.n_batch : 1;
    const double head = (double)run->info.head_bytes_per_token;
    const double touched =
        ceil(n / pass) * (r->touched_trunk - head) + head +
        (double)(f->sum.hits + f->sum.prefetch_used + f->sum.misses) / n_repeat * r->expert_bytes;
    /* Of the repeat that computed fastest: like a probe, what disturbs only makes it slower. */
    double computing_s = INFINITY;
    for (int i = 0; i < run->n_repeat; i++) {
        const fm_bench_phase *p = &run->repeat[i].prompt;
        const double s = p->us > p->wait_us ? (double)(p->us - p->wait_us) / 1e6 : 0;
        if (s < computing_s) computing_s = s;
    }
    f->bound = fm_bench_bound_prompt(f->bytes_per_token - f->wasted_per_token, r->disk_gb_s,
                                     touched / n, r->memory_gb_s, computing_s / n);
    fill_ratios(f);
}

static void fill_load(report *r, const fm_bench_run *run)
{
    double ms[FM_BENCH_REPEATS_MAX];
    r->load_ms = (double)run->load_us / 1e3;
    if (!run->is_cold) return;
    for (int i = 0; i < run->n_repeat; i++) ms[i] = (double)run->repeat[i].load_us / 1e3;
    r->load_ms = fm_bench_median(ms, run->n_repeat);
}

/* The disk's time for what a cold start cannot do without: the resident trunk, and what the prompt needed. */
static void fill_start(report *r, const fm_bench_run *run)
{
    r->start_ms = r->start_bound_ms = NAN;
    if (!run->is_cold || r->prompt.sum.tokens == 0) return;
    double ms[FM_BENCH_REPEATS_MAX], bytes = 0;
    for (int i = 0; i < run->n_repeat; i++) {
        ms[i] = (double)run->repeat[i].start_us / 1e3;
        bytes += (double)run->repeat[i].load_bytes;
    }
    bytes +=
        (r->prompt.bytes_per_token - r->prompt.wasted_per_token) * (double)r->prompt.sum.tokens;
    r->start_ms = fm_bench_median(ms, run->n_repeat);
    if (r->disk_gb_s > 0) r->start_bound_ms = bytes / run->n_repeat / (r->disk_gb_s * 1e6);
}

static void fill_report(report *r, fm_bench_run *run)
{
    const fm_model_info *m = &run->info;
    memset(r, 0, sizeof *r);
    r->disk_gb_s = best_of(run->disk_gb_s);
    r->memory_gb_s = best_of(run->memory_gb_s);
    r->touched_trunk = (double)m->trunk_bytes_per_token;
    r->touched_experts = (double)m->expert_bytes_per_token;
    const double n_expert = (double)m->n_moe_layer * m->n_expert; /* of the model's own layers */
    if (n_expert > 0) r->expert_bytes = (double)m->expert_bytes / n_expert;
    fill_rates(&r->prompt, run, true);
    fill_rates(&r->gen, run, false);
    fill_token_times(r, run);
    fill_means(&r->prompt, r->expert_bytes);
    fill_means(&r->gen, r->expert_bytes);
    if (r->gen.sum.tokens > 0)
        r->touched_context = (double)r->gen.sum.context_bytes / (double)r->gen.sum.tokens;
    r->ttft_ms = NAN;
    if (r->prompt.sum.tokens > 0) {
        double ms[FM_BENCH_REPEATS_MAX];
        for (int i = 0; i < run->n_repeat; i++) ms[i] = (double)run->repeat[i].ttft_us / 1e3;
        r->ttft_ms = fm_bench_median(ms, run->n_repeat);
    }
    fill_load(r, run);
    fill_start(r, run);
    bound_prompt(r, run);
    bound_generation(r, run);
    snprintf(r->hash, sizeof r->hash, "%016" PRIx64, run->token_hash);
    r->state = run->is_cold ? "cold" : "warm";
    if (run->is_cold) {
        snprintf(r->state_how, sizeof r->state_how,
                 "before each repeat: a new engine with an empty expert cache, the files dropped "
                 "from the page cache (posix_fadvise)");
    } else {
        snprintf(r->state_how, sizeof r->state_how,
                 "%d repeat%s before, not measured%s; then the engine and its expert cache were "
                 "kept and the session was reset",
                 run->n_warm_up, run->n_warm_up == 1 ? "" : "s",
                 run->is_grown ? "" : " (the cache was still growing)");
    }
}

/* ---- table ---------------------------------------------------------------------------------- */

static const char *percent(char out[FM_CLI_FIGURE], double share)
{
    if (isfinite(share)) {
        snprintf(out, FM_CLI_FIGURE, "%.1f %%", 100 * share);
    } else {
        snprintf(out, FM_CLI_FIGURE, "-");
    }
    return out;
}

/* Three digits that count. */
static const char *number(char out[FM_CLI_FIGURE], double value)
{
    const double size = fabs(value);
    if (isfinite(value)) {
        snprintf(out, FM_CLI_FIGURE, "%.*f", size >= 100 ? 0 : size >= 10 ? 1 : 2, value);
    } else {
        snprintf(out, FM_CLI_FIGURE, "-");
    }
    return out;
}

static void print_setup(const report *r, const fm_bench_run *run, const fm_cli_options *o)
{
    const fm_model_info *m = &run->info;
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE], c[FM_CLI_FIGURE], d[FM_CLI_FIGURE];
    char name[FM_CLI_NAME];
    printf("model       %s (%s), %s\n", run->name[0] ? fm_cli_name(name, run->name) : "(no name)",
           run->family, fm_figure_bytes(a, m->file_bytes));
    printf("workload    prompt of %s tokens, generation of %s, %d %s; fixed ids\n",
           fm_cli_count(a, (uint64_t)o->bench_prompt), fm_cli_count(b, (uint64_t)o->bench_gen),
           run->n_repeat, run->n_repeat == 1 ? "repeat" : "repeats");
    printf(
        "machine     %d threads, %s, activations %s; passes of %d tokens, %d experts per token\n",
        (int)m->n_threads, run->kernels, fm_cli_activations(m->activations), (int)run->plan.n_batch,
        (int)m->n_expert_used);
    printf("reads       %s, %d at a time, cut at %s (%s)\n", run->io, (int)m->io_depth,
           fm_figure_bytes(a, m->io_split), run->io_origin);
    printf("memory      %s %s, peak %s; %s of %s experts fit\n",
           fm_figure_bytes(a, run->plan.budget_bytes), run->plan.budget_given ? "given" : "free",
           fm_figure_bytes(b, run->peak_rss_bytes),
           fm_cli_count(c, (uint64_t)run->plan.expert_slots),
           fm_cli_count(d, (uint64_t)run->plan.experts_total));
    printf("caches      %s: %s\n\n", r->state, r->state_how);
}

static void print_phase(const figures *f)
{
    if (f->sum.tokens == 0) return;
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE], c[FM_CLI_FIGURE], d[FM_CLI_FIGURE];
    char spread[2 * FM_CLI_FIGURE + 2];
    snprintf(spread, sizeof spread, "%s..%s", number(a, f->tok_s_min), number(b, f->tok_s_max));
    printf("%-11s %8s %14s %8s %9s %6s", f->name, number(a, f->tok_s), spread,
           percent(b, f->hit_rate), number(c, f->bytes_per_token / 1e6), number(d, f->disk_gb_s));
    printf(" %8s %8s", percent(a, f->wait), percent(b, f->experts));
    printf(" %9s %7s %7s", percent(a, f->attention), percent(b, f->head), percent(c, f->rest));
    printf(" %7s\n", percent(a, f->sync));
}

static void print_token_times(const figures *f)
{
    if (!isfinite(f->token_ms[TOKEN_P50])) return;
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE], c[FM_CLI_FIGURE], d[FM_CLI_FIGURE];
    printf("one token   %s ms (median); a tenth took at most %s, a tenth at least %s, the longest "
           "%s\n",
           number(a, f->token_ms[TOKEN_P50]), number(b, f->token_ms[TOKEN_P10]),
           number(c, f->token_ms[TOKEN_P90]), number(d, f->token_ms[TOKEN_MAX]));
}

static void print_bounds(const report *r, const figures *f, bool is_prompt)
{
    if (f->sum.tokens == 0) return;
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE];
    printf("\n%s, ms per token\n", f->name);
    printf("  achieved    %9s\n", number(a, 1e3 / f->tok_s));
    printf("  disk        %9s   %s MB that were needed; wasted by reading ahead: %s MB\n",
           number(a, f->bound.disk_s * 1e3),
           number(b, (f->bytes_per_token - f->wasted_per_token) / 1e6),
           number((char[FM_CLI_FIGURE]){0}, f->wasted_per_token / 1e6));
    printf("  disk busy   %9s   then it gave %s GB/s\n", number(a, 1e3 * f->busy / f->tok_s),
           number(b, f->busy_gb_s));
    if (fm_bench_probe_was_slow(r->disk_gb_s, f->busy_gb_s))
        printf("  note                    the probes found less, a slow moment of the disk: bounds "
               "that it decides are too low\n");
    if (is_prompt) {
        printf("  memory      %9s   weights touched, once per pass\n",
               number(a, f->bound.memory_s * 1e3));
        printf("  arithmetic  %9s   measured: the time without waits for the disk, best repeat\n",
               number(a, f->bound.arithmetic_s * 1e3));
    } else {
        printf("  memory      %9s   %s MB touched: trunk %s, experts %s, context %s\n",
               number(a, f->bound.memory_s * 1e3), number(b, touched(r) / 1e6),
               number((char[FM_CLI_FIGURE]){0}, r->touched_trunk / 1e6),
               number((char[FM_CLI_FIGURE]){0}, r->touched_experts / 1e6),
               number((char[FM_CLI_FIGURE]){0}, r->touched_context / 1e6));
        printf("  arithmetic          -   not counted: one token's products are bound by memory\n");
    }
    printf("  bound, everything overlapped        %8s tok/s, achieved %s\n",
           number(a, f->overlapped_tok_s), percent(b, f->overlapped_ratio));
    if (is_prompt) return;
    printf("  bound, misses known after routers   %8s tok/s, achieved %s\n",
           number(a, f->bound_tok_s), percent(b, f->bound_ratio));
}

static void print_probes(const fm_bench_run *run)
{
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE], c[FM_CLI_FIGURE];
    if (run->memory_probe_bytes == 0) {
        printf("\nnothing was probed (--probes off), so there are no bounds\n");
        return;
    }
    printf("\nprobes, before and after\n");
    printf("  disk    %s and %s GB/s: scattered reads of %s, depth %d\n",
           number(a, measured(run->disk_gb_s[0])), number(b, measured(run->disk_gb_s[1])),
           fm_figure_bytes(c, run->disk_probe_read_bytes), (int)run->info.io_depth);
    printf("  memory  %s and %s GB/s: %s streamed by %d threads%s\n",
           number(a, run->memory_gb_s[0]), number(b, run->memory_gb_s[1]),
           fm_figure_bytes(c, run->memory_probe_bytes), (int)run->info.n_threads,
           run->memory_probe_bytes < fm_probe_uncached_bytes()
               ? " (half of the budget: part of it may lie in the processor's caches)"
               : "");
    if (run->weights_gb_s > 0)
        printf("  memory  %s GB/s: the resident weights where they lie\n",
               number(a, run->weights_gb_s));
}

static void print_table(const report *r, const fm_bench_run *run, const fm_cli_options *o)
{
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE], c[FM_CLI_FIGURE];
    print_setup(r, run, o);
    printf("%-11s %8s %14s %8s %9s %6s %8s %8s %9s %7s %7s %7s\n", "phase", "tok/s", "min..max",
           "hits", "MB/token", "GB/s", "waiting", "experts", "attention", "head", "rest", "(sync)");
    print_phase(&r->prompt);
    print_phase(&r->gen);
    print_token_times(&r->gen);
    if (r->gen.sum.drafts > 0)
        printf(
            "drafts      %s, %s of them right; the draft layer took %s of the time of generation\n",
            fm_cli_count(a, r->gen.sum.drafts),
            percent(b, (double)r->gen.sum.drafts_right / (double)r->gen.sum.drafts),
            percent(c, (double)r->gen.sum.draft_us / (double)r->gen.sum.us));
    if (r->prompt.sum.tokens > 0) {
        printf("first token %s s after the start of the prompt; loading took %s s\n",
               number(a, r->ttft_ms / 1e3), number(b, r->load_ms / 1e3));
    }
    if (isfinite(r->start_ms)) {
        printf("cold start  %s s from opening the model to the first token; the disk's part of it "
               "%s s "
               "(trunk and needed experts), %s times that\n",
               number(a, r->start_ms / 1e3), number(b, r->start_bound_ms / 1e3),
               number(c, r->start_ms / r->start_bound_ms));
    }
    print_probes(run);
    if (r->memory_gb_s > 0) {
        print_bounds(r, &r->prompt, true);
        print_bounds(r, &r->gen, false);
    }
    printf("\ntoken hash  %s\n", r->hash);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

/* What was not measured is null. */
static void put_phase(fm_json_out *j, const figures *f, bool is_prompt)
{
    const fm_bench_phase *s = &f->sum;
    fm_json_open(j, f->name, '{');
    fm_json_u64(j, "tokens", s->tokens);
    fm_json_real(j, "tok_s", f->tok_s);
    fm_json_real(j, "tok_s_min", f->tok_s_min);
    fm_json_real(j, "tok_s_max", f->tok_s_max);
    for (int i = 0; i < N_QUANTILES; i++) fm_json_real(j, quantiles[i].name, f->token_ms[i]);
    fm_json_u64(j, "expert_hits", s->hits);
    fm_json_u64(j, "expert_misses", s->misses);
    fm_json_real(j, "hit_rate", f->hit_rate);
    fm_json_u64(j, "bytes_read", s->bytes_read);
    fm_json_real(j, "bytes_per_token", f->bytes_per_token);
    fm_json_real(j, "useful_bytes_per_token", f->bytes_per_token - f->wasted_per_token);
    fm_json_real(j, "wasted_bytes_per_token", f->wasted_per_token);
    fm_json_u64(j, "prefetch_reads", s->prefetch_reads);
    fm_json_u64(j, "prefetch_used", s->prefetch_used);
    fm_json_real(j, "disk_gb_s", f->disk_gb_s);
    fm_json_real(j, "wait_share", f->wait);
    fm_json_real(j, "expert_share", f->experts);
    fm_json_real(j, "attention_share", f->attention);
    fm_json_real(j, "head_share", f->head);
    fm_json_real(j, "rest_share", f->rest);
    fm_json_real(j, "sync_share", f->sync);
    fm_json_u64(j, "drafts", s->drafts);
    fm_json_u64(j, "drafts_right", s->drafts_right);
    fm_json_real(j, "draft_share", s->us > 0 ? (double)s->draft_us / (double)s->us : 0);
    fm_json_real(j, "disk_busy_share", f->busy);
    fm_json_real(j, "disk_busy_gb_s", f->busy_gb_s);
    fm_json_real(j, "disk_term_ms", f->bound.disk_s * 1e3);
    fm_json_real(j, "memory_term_ms", f->bound.memory_s * 1e3);
    fm_json_real(j, "arithmetic_term_ms", is_prompt ? f->bound.arithmetic_s * 1e3 : NAN);
    fm_json_real(j, "overlapped_bound_tok_s", f->overlapped_tok_s);
    fm_json_real(j, "overlapped_bound_ratio", f->overlapped_ratio);
    fm_json_real(j, "bound_tok_s", f->bound_tok_s);
    fm_json_real(j, "bound_ratio", f->bound_ratio);
    fm_json_close(j, '}');
}

static void put_repeats(fm_json_out *j, const fm_bench_run *run)
{
    fm_json_open(j, "repeats", '[');
    for (int i = 0; i < run->n_repeat; i++) {
        const fm_bench_repeat *r = &run->repeat[i];
        char hash[17];
        snprintf(hash, sizeof hash, "%016" PRIx64, r->token_hash);
        fm_json_open(j, NULL, '{');
        fm_json_real(j, "prompt_tok_s", per_second(&r->prompt));
        fm_json_real(j, "gen_tok_s", per_second(&r->gen));
        fm_json_real(j, "ttft_ms", r->prompt.tokens > 0 ? (double)r->ttft_us / 1e3 : NAN);
        fm_json_real(j, "load_ms", run->is_cold ? (double)r->load_us / 1e3 : NAN);
        fm_json_u64(j, "prompt_bytes_read", r->prompt.bytes_read);
        fm_json_u64(j, "gen_bytes_read", r->gen.bytes_read);
        fm_json_string(j, "token_hash", hash);
        fm_json_close(j, '}');
    }
    fm_json_close(j, ']');
}

static void put_probes(fm_json_out *j, const report *r, const fm_bench_run *run)
{
    fm_json_real(j, "disk_probe_gb_s", measured(r->disk_gb_s));
    fm_json_open(j, "disk_probes_gb_s", '[');
    for (int i = 0; i < FM_BENCH_PROBES; i++) fm_json_real(j, NULL, measured(run->disk_gb_s[i]));
    fm_json_close(j, ']');
    fm_json_u64(j, "disk_probe_read_bytes", run->disk_probe_read_bytes);
    fm_json_u64(j, "disk_probe_bytes", run->disk_probe_bytes);
    fm_json_real(j, "mem_probe_gb_s", measured(r->memory_gb_s));
    fm_json_real(j, "weights_probe_gb_s", measured(run->weights_gb_s));
    fm_json_open(j, "mem_probes_gb_s", '[');
    for (int i = 0; i < FM_BENCH_PROBES; i++) fm_json_real(j, NULL, measured(run->memory_gb_s[i]));
    fm_json_close(j, ']');
    fm_json_u64(j, "mem_probe_bytes", run->memory_probe_bytes);
}

static void print_json(const report *r, const fm_bench_run *run, const fm_cli_options *o)
{
    const fm_model_info *m = &run->info;
    fm_json_out out = {.out = stdout}, *j = &out;
    fm_json_open(j, NULL, '{');
    fm_json_string(j, "version", FM_VERSION);
    fm_json_string(j, "model", run->name);
    fm_json_string(j, "family", run->family);
    fm_json_u64(j, "file_bytes", m->file_bytes);
    fm_json_count(j, "prompt_tokens", o->bench_prompt);
    fm_json_count(j, "gen_tokens", o->bench_gen);
    fm_json_count(j, "repeat", run->n_repeat);
    fm_json_string(j, "cache_state", r->state);
    fm_json_string(j, "cache_state_how", r->state_how);
    fm_json_count(j, "warm_ups", run->n_warm_up);
    fm_json_string(j, "warm_start", o->warm_start ? o->warm_start : "off");
    fm_json_count(j, "threads", m->n_threads);
    fm_json_string(j, "kernels", run->kernels);
    fm_json_string(j, "activations", fm_cli_activations(m->activations));
    fm_json_string(j, "kv", o->kv);
    fm_json_string(j, "prefetch", o->prefetch);
    fm_json_string(j, "draft", m->uses_draft ? o->draft : "off");
    fm_json_string(j, "io", run->io);
    fm_json_count(j, "io_depth", m->io_depth);
    fm_json_u64(j, "io_split", m->io_split);
    fm_json_string(j, "io_origin", run->io_origin);
    fm_json_count(j, "context", run->plan.n_ctx);
    fm_json_count(j, "batch", run->plan.n_batch);
    fm_json_count(j, "experts_used", m->n_expert_used);
    fm_json_count(j, "expert_slots", run->plan.expert_slots);
    fm_json_count(j, "experts_total", run->plan.experts_total);
    fm_json_count(j, "trunk_units", run->plan.trunk_units);
    fm_json_count(j, "trunk_resident", run->plan.trunk_resident);

    fm_json_real(j, "gen_tok_s", r->gen.tok_s);
    fm_json_real(j, "prompt_tok_s", r->prompt.tok_s);
    fm_json_real(j, "ttft_ms", r->ttft_ms);
    fm_json_real(j, "load_ms", r->load_ms);
    fm_json_real(j, "start_to_first_token_ms", r->start_ms);
    fm_json_real(j, "start_bound_ms", r->start_bound_ms);
    fm_json_real(j, "start_bound_ratio", r->start_ms / r->start_bound_ms);
    fm_json_real(j, "hit_rate", r->gen.hit_rate);
    fm_json_real(j, "bytes_per_token", r->gen.bytes_per_token);
    fm_json_real(j, "disk_gb_s", r->gen.disk_gb_s);
    put_probes(j, r, run);
    fm_json_real(j, "touched_bytes_per_token", touched(r));
    fm_json_real(j, "context_bytes_per_token", r->touched_context);
    fm_json_real(j, "bound_tok_s", r->gen.bound_tok_s);
    fm_json_real(j, "bound_ratio", r->gen.bound_ratio);
    fm_json_real(j, "overlapped_bound_tok_s", r->gen.overlapped_tok_s);
    fm_json_real(j, "overlapped_bound_ratio", r->gen.overlapped_ratio);
    fm_json_real(j, "prompt_bound_tok_s", r->prompt.bound_tok_s);
    fm_json_real(j, "prompt_bound_ratio", r->prompt.bound_ratio);
    fm_json_u64(j, "peak_rss_bytes", run->peak_rss_bytes);
    fm_json_u64(j, "memory_budget_bytes", run->plan.budget_bytes);
    fm_json_string(j, "token_hash", r->hash);
    put_phase(j, &r->prompt, true);
    put_phase(j, &r->gen, false);
    put_repeats(j, run);
    fm_json_close(j, '}');
}

/* ---- CSV ------------------------------------------------------------------------------------ */

/* A field without a value is empty. */
static void put_field(double value)
{
    if (isfinite(value)) {
        printf(",%.6g", value);
    } else {
        putchar(',');
    }
}

/* In quotes, which a name from a file may hold itself. */
static void put_text_field(const char *text)
{
    char name[FM_CLI_NAME];
    fm_cli_name(name, text);
    fputs(",\"", stdout);
    for (const char *p = name; *p; p++) {
        if (*p == '"') putchar('"');
        putchar(*p);
    }
    putchar('"');
}

static void print_row(const report *r, const fm_bench_run *run, const fm_cli_options *o,
                      const figures *f, bool is_prompt)
{
    if (f->sum.tokens == 0) return;
    printf("%s,%" PRIu64 ",%d,%s", f->name, f->sum.tokens / (uint64_t)run->n_repeat, run->n_repeat,
           r->state);
    const double values[] = {
        f->tok_s,
        f->tok_s_min,
        f->tok_s_max,
        is_prompt ? r->ttft_ms : NAN,
        f->hit_rate,
        f->bytes_per_token,
        f->wasted_per_token,
        f->disk_gb_s,
        f->wait,
        f->experts,
        f->attention,
        f->head,
        f->rest,
        f->sync,
        f->bound_tok_s,
        f->bound_ratio,
        f->overlapped_tok_s,
        f->overlapped_ratio,
        measured(r->disk_gb_s),
        measured(r->memory_gb_s),
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) put_field(values[i]);
    printf(",%" PRIu64 ",%" PRIu64 ",%d,%s", run->peak_rss_bytes, run->plan.budget_bytes,
           (int)run->info.n_threads, r->hash);
    put_text_field(run->name);
    printf(",%d,%s,%s,%s,%s,%s,%d,%s,%d", (int)run->info.n_expert_used,
           fm_cli_activations(run->info.activations), run->kernels, o->kv, o->prefetch,
           run->info.uses_draft ? o->draft : "off", (int)run->plan.n_batch, run->io,
           (int)run->info.io_depth);
    put_field(f->busy);
    put_field(f->busy_gb_s);
    put_field(f->bound.disk_s * 1e3);
    put_field(f->bound.memory_s * 1e3);
    put_field(is_prompt ? f->bound.arithmetic_s * 1e3 : NAN);
    for (int i = 0; i < N_QUANTILES; i++) put_field(f->token_ms[i]);
    putchar('\n');
}

static void print_csv(const report *r, const fm_bench_run *run, const fm_cli_options *o)
{
    puts("phase,tokens,repeat,cache_state,tok_s,tok_s_min,tok_s_max,ttft_ms,hit_rate,"
         "bytes_per_token,wasted_bytes_per_token,disk_gb_s,wait_share,expert_share,attention_share,"
         "head_share,rest_share,sync_share,bound_tok_s,bound_ratio,overlapped_bound_tok_s,"
         "overlapped_bound_ratio,disk_probe_gb_s,mem_probe_gb_s,peak_rss_bytes,"
         "memory_budget_bytes,threads,token_hash,model,experts_used,activations,kernels,kv,"
         "prefetch,draft,batch,io,io_depth,disk_busy_share,disk_busy_gb_s,disk_term_ms,"
         "memory_term_ms,arithmetic_term_ms,token_ms_p10,token_ms_p50,token_ms_p90,token_ms_max");
    print_row(r, run, o, &r->prompt, true);
    print_row(r, run, o, &r->gen, false);
}

void fm_bench_report(fm_bench_run *run, const fm_cli_options *o)
{
    report r;
    fill_report(&r, run);
    if (o->is_json) {
        print_json(&r, run, o);
    } else if (o->is_csv) {
        print_csv(&r, run, o);
    } else {
        print_table(&r, run, o);
    }
}
