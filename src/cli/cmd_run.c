/* flashmoe run: one prompt, its answer on standard output, the figures on standard error. */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "cli/run_prompt.h"
#include "cli/stop_filter.h"

/* Where the answer's bytes go: through the stop filter and the UTF-8 stream to standard output, or
 * into memory for --json. */
typedef struct {
    fm_stop_filter stops;
    fm_utf8_stream utf8;
    bool is_collected;
    char *text; /* with is_collected, owned */
    size_t n_text, text_cap;
    char last_byte;
    int write_errno; /* of the first failure, 0 for none */
    bool has_failed;
} answer;

typedef enum { STOP_END, STOP_LIMIT, STOP_TEXT, STOP_CONTEXT, STOP_INTERRUPTED } stop_reason;
static const char *const stop_names[] = {"end", "limit", "stop", "context", "interrupted"};

typedef struct {
    stop_reason stop;
    uint64_t prompt_tokens, generated_tokens, evaluated_tokens;
    uint64_t prompt_us, gen_us, first_token_us;
    uint64_t expert_hits, expert_misses, prefetch_reads, prefetch_used, bytes_read, load_bytes,
        disk_wait_us;
    uint64_t peak_rss_bytes, memory_budget_bytes;
    uint64_t token_hash;
    uint64_t drafts, drafts_right;
} run_figures;

/* ---- the answer's text ---------------------------------------------------------------------- */

static bool put_valid(answer *a, const char *text, size_t n)
{
    if (n == 0) return true;
    a->last_byte = text[n - 1];
    if (!a->is_collected) {
        errno = 0;
        if (fwrite(text, 1, n, stdout) == n && fflush(stdout) == 0) return true;
        a->write_errno = errno;
        a->has_failed = true;
        return false;
    }
    if (a->text_cap - a->n_text < n) {
        const size_t cap = 2 * a->text_cap + n + 4096;
        char *grown = realloc(a->text, cap);
        if (!grown) {
            a->write_errno = ENOMEM;
            a->has_failed = true;
            return false;
        }
        a->text = grown;
        a->text_cap = cap;
    }
    memcpy(a->text + a->n_text, text, n);
    a->n_text += n;
    return true;
}

/* Ctrl-C also ends a write that waits for its reader. */
static bool was_cut_off(const answer *a)
{
    return a->has_failed && a->write_errno == EINTR && fm_cli_is_interrupted();
}

static bool put_bytes(void *user, const char *bytes, size_t n)
{
    enum { PIECE = 256 };
    answer *a = user;
    char valid[3 * (PIECE + 3)];
    for (size_t at = 0; at < n; at += PIECE) {
        const size_t piece = n - at < PIECE ? n - at : PIECE;
        const size_t n_valid = fm_utf8_push(&a->utf8, valid, bytes + at, piece, false);
        if (!put_valid(a, valid, n_valid)) return false;
    }
    return true;
}

/* Everything that was held back. */
static bool finish_answer(answer *a)
{
    char valid[16];
    if (!fm_stop_filter_flush(&a->stops, put_bytes, a)) return false;
    if (!put_valid(a, valid, fm_utf8_push(&a->utf8, valid, "", 0, true))) return false;
    if (!a->is_collected && a->n_text == 0 && isatty(STDOUT_FILENO) && a->last_byte != '\n') {
        return put_valid(a, "\n", 1);
    }
    return true;
}

/* ---- generation ----------------------------------------------------------------------------- */

static void fill_sampler_options(fm_sampler_options *s, const fm_cli_options *o)
{
    fm_sampler_options_init(s);
    s->temperature = o->temperature;
    s->top_k = o->top_k;
    s->top_p = o->top_p;
    s->min_p = o->min_p;
    s->repeat_penalty = o->repeat_penalty;
    if (o->has_seed) s->seed = o->seed;
}

/* Control tokens are not text; everything else goes through the filters. */
static bool put_token(answer *a, const fm_tokenizer *tok, int32_t id)
{
    size_t n = 0;
    const char *bytes = fm_token_bytes(tok, id, &n);
    if (!bytes || fm_token_is_special(tok, id)) return true;
    return fm_stop_filter_push(&a->stops, bytes, n, put_bytes, a);
}

static fm_status generate(answer *a, run_figures *f, fm_session *session, fm_sampler *sampler,
                          const fm_engine *engine, const fm_cli_options *o,
                          const fm_eval_options *eval, fm_error *err)
{
    const fm_tokenizer *tok = fm_engine_tokenizer(engine);
    fm_model_info info;
    fm_engine_model_info(engine, &info);
    const uint64_t most = o->n_predict >= 0 ? (uint64_t)o->n_predict : UINT64_MAX;
    fm_status st = FM_OK;
    const uint64_t started = fm_now_us();
    f->stop = STOP_LIMIT;
    while (f->generated_tokens < most) {
        const int32_t id = fm_sampler_pick(sampler, fm_session_logits(session));
        if (id < 0) {
            st = fm_fail(err, FM_E_FORMAT,
                         "the model's output is not a number (NaN): its weights are damaged, or "
                         "this is a fault of the engine");
            break;
        }
        if (f->first_token_us == 0) f->first_token_us = f->prompt_us + (fm_now_us() - started);
        if (fm_token_is_end(tok, id)) {
            f->stop = STOP_END;
            break;
        }
        f->generated_tokens++;
        f->token_hash = fm_fnv1a_id(f->token_hash, id);
        if (!put_token(a, tok, id)) break;
        if (a->stops.is_stopped) {
            f->stop = STOP_TEXT;
            break;
        }
        if (f->generated_tokens == most) break;
        if (fm_session_n_past(session) >= info.n_ctx) {
            f->stop = STOP_CONTEXT;
            break;
        }
        st = fm_session_eval(session, &id, 1, eval, err);
        if (st != FM_OK) break;
        f->evaluated_tokens++;
    }
    f->gen_us = fm_now_us() - started;
    return st;
}

/* ---- figures -------------------------------------------------------------------------------- */

static double rate_per_s(uint64_t n, uint64_t us)
{
    return us > 0 ? (double)n * 1e6 / (double)us : 0;
}

static void collect_figures(run_figures *f, const fm_engine *engine, const fm_stats *before)
{
    fm_stats now;
    fm_plan plan;
    fm_engine_stats(engine, &now);
    fm_engine_plan(engine, &plan);
    f->expert_hits = now.expert_hits - before->expert_hits;
    f->expert_misses = now.expert_misses - before->expert_misses;
    f->prefetch_reads = now.prefetch_reads - before->prefetch_reads;
    f->prefetch_used = now.prefetch_used - before->prefetch_used;
    f->bytes_read = now.bytes_read - before->bytes_read;
    f->disk_wait_us = now.disk_wait_us - before->disk_wait_us;
    f->load_bytes = now.load_bytes;
    f->drafts = now.drafts - before->drafts;
    f->drafts_right = now.drafts_right - before->drafts_right;
    f->peak_rss_bytes = now.peak_rss_bytes;
    f->memory_budget_bytes = plan.budget_bytes;
}

static void print_summary(const fm_cli_options *o, const run_figures *f)
{
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE], c[FM_CLI_FIGURE], d[FM_CLI_FIGURE];
    char hits[64] = "no experts used";
    const uint64_t uses = f->expert_hits + f->prefetch_used + f->expert_misses;
    if (uses > 0) {
        snprintf(hits, sizeof hits, "hits %.1f %%, %s misses",
                 100.0 * (double)f->expert_hits / (double)uses, fm_cli_count(a, f->expert_misses));
    }
    char drafts[96] = "";
    if (f->drafts > 0)
        snprintf(drafts, sizeof drafts, " | %s of %s drafts right",
                 fm_cli_count(a, f->drafts_right), fm_cli_count(b, f->drafts));
    const uint64_t work_us = f->prompt_us + f->gen_us;
    fm_cli_note(o,
                "[%s tokens | prompt %s tokens, %.1f tok/s | generation %.1f tok/s | first token "
                "%.2f s%s | %s | read %.3f GB | disk wait %.0f %% | peak memory %s]",
                fm_cli_count(b, f->generated_tokens), fm_cli_count(c, f->prompt_tokens),
                rate_per_s(f->prompt_tokens, f->prompt_us),
                rate_per_s(f->evaluated_tokens, f->gen_us), (double)f->first_token_us / 1e6, drafts,
                hits, (double)f->bytes_read / 1e9,
                work_us > 0 ? 100.0 * (double)f->disk_wait_us / (double)work_us : 0.0,
                fm_figure_bytes(d, f->peak_rss_bytes));
}

static void print_json(const run_figures *f, const answer *a)
{
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, f->token_hash);
    fm_json_out j = {.out = stdout};
    fm_json_open(&j, NULL, '{');
    fm_json_u64(&j, "prompt_tokens", f->prompt_tokens);
    fm_json_u64(&j, "generated_tokens", f->generated_tokens);
    fm_json_real(&j, "prompt_tok_s", rate_per_s(f->prompt_tokens, f->prompt_us));
    fm_json_real(&j, "gen_tok_s", rate_per_s(f->evaluated_tokens, f->gen_us));
    fm_json_real(&j, "ttft_ms", (double)f->first_token_us / 1e3);
    fm_json_u64(&j, "expert_hits", f->expert_hits);
    fm_json_u64(&j, "expert_misses", f->expert_misses);
    fm_json_u64(&j, "prefetch_reads", f->prefetch_reads);
    fm_json_u64(&j, "prefetch_used", f->prefetch_used);
    fm_json_u64(&j, "drafts", f->drafts);
    fm_json_u64(&j, "drafts_right", f->drafts_right);
    fm_json_u64(&j, "bytes_read", f->bytes_read);
    fm_json_u64(&j, "load_bytes", f->load_bytes);
    fm_json_real(&j, "disk_wait_ms", (double)f->disk_wait_us / 1e3);
    fm_json_u64(&j, "peak_rss_bytes", f->peak_rss_bytes);
    fm_json_u64(&j, "memory_budget_bytes", f->memory_budget_bytes);
    fm_json_string(&j, "token_hash", hash);
    fm_json_string(&j, "stop_reason", stop_names[f->stop]);
    fm_json_text(&j, "text", a->text ? a->text : "", a->n_text);
    fm_json_close(&j, '}');
}

/* What follows on standard error begins a line of its own also where both streams end in one file or pipe. */
static void end_line(const answer *a)
{
    struct stat out, log;
    if (a->is_collected || !a->last_byte || a->last_byte == '\n' || isatty(STDOUT_FILENO)) return;
    if (fstat(STDOUT_FILENO, &out) == 0 && fstat(STDERR_FILENO, &log) == 0 &&
        out.st_dev == log.st_dev && out.st_ino == log.st_ino)
        fputc('\n', stderr);
}

static int context_of(const fm_engine *engine)
{
    fm_model_info info;
    fm_engine_model_info(engine, &info);
    return (int)info.n_ctx;
}

/* ---- the command ---------------------------------------------------------------------------- */

static fm_status evaluate_prompt(run_figures *f, fm_session *session, const fm_cli_options *o,
                                 const int32_t *ids, size_t n_ids, fm_error *err)
{
    fm_cli_progress progress;
    fm_cli_progress_start(&progress, o, "prompt", false);
    const fm_eval_options eval = {
        .struct_size = sizeof eval, .progress = fm_cli_on_eval, .progress_user = &progress};
    const uint64_t started = fm_now_us();
    const fm_status st = fm_session_eval(session, ids, n_ids, &eval, err);
    f->prompt_us = fm_now_us() - started;
    f->prompt_tokens = st == FM_OK ? n_ids : progress.done; /* less when it was stopped */
    if (st == FM_OK) fm_cli_progress_show(&progress, n_ids, n_ids);
    fm_cli_progress_clear();
    return st;
}

/* Prompt and answer on an open session; prints the figures unless it failed. */
static int run_session(fm_session *session, fm_sampler *sampler, const fm_engine *engine,
                       const fm_cli_options *o, const int32_t *ids, size_t n_ids)
{
    fm_error err = {0};
    run_figures f = {.token_hash = FM_FNV1A_INIT};
    answer a = {.is_collected = o->is_json};
    fm_stats before;
    fm_engine_stats(engine, &before);
    if (!fm_stop_filter_init(&a.stops, o->stops.items, o->stops.n)) {
        fm_fail(&err, FM_E_NOMEM, "no memory for the stop strings");
        return fm_cli_fail(&err);
    }
    const fm_eval_options eval = {.struct_size = sizeof eval, .progress = fm_cli_on_token};
    for (size_t i = 0; i < n_ids; i++) fm_sampler_accept(sampler, ids[i]);
    fm_status st = evaluate_prompt(&f, session, o, ids, n_ids, &err);
    if (st == FM_OK) st = generate(&a, &f, session, sampler, engine, o, &eval, &err);
    int status = FM_EXIT_OK;
    if (st == FM_OK || st == FM_E_CANCELLED) {
        if (st == FM_E_CANCELLED || was_cut_off(&a)) f.stop = STOP_INTERRUPTED;
        if (!a.has_failed) finish_answer(&a);
        collect_figures(&f, engine, &before);
        if (o->is_json && !a.has_failed) print_json(&f, &a);
        if (!o->is_quiet || f.stop == STOP_CONTEXT) end_line(&a);
        if (f.stop == STOP_CONTEXT)
            fm_cli_warn("the answer is cut off: the context of %d tokens is full (--ctx gives it "
                        "more)",
                        context_of(engine));
        print_summary(o, &f);
        if (f.stop == STOP_INTERRUPTED) status = FM_EXIT_INTERRUPTED;
    } else {
        status = fm_cli_fail(&err);
    }
    if (a.has_failed && !was_cut_off(&a)) {
        fm_fail_errno(&err, a.write_errno, "writing the answer");
        status = fm_cli_fail(&err);
        clearerr(stdout); /* reported */
    }
    fm_stop_filter_deinit(&a.stops);
    free(a.text);
    return status;
}

int fm_cmd_run(const fm_cli_options *o)
{
    fm_error err = {0};
    fm_engine *engine = NULL;
    fm_session *session = NULL;
    fm_sampler *sampler = NULL;
    fm_run_prompt prompt;
    int status = fm_run_prompt_check(o);
    if (status != FM_EXIT_OK) return status;
    fm_sampler_options sampling;
    fill_sampler_options(&sampling, o);
    /* A vocabulary of one, to have the values checked before a large model is loaded. */
    if (fm_sampler_create(&sampler, 1, &sampling, &err) != FM_OK) {
        return fm_cli_usage_error(o, "%s", err.msg);
    }
    fm_sampler_destroy(sampler);
    sampler = NULL;
    if (fm_run_prompt_read(&prompt, o, &err) != FM_OK) return fm_cli_fail(&err);
    if (o->trace_path && fm_cli_check_writable(o->trace_path, &err) != FM_OK) goto failed;

    fm_engine_options opt;
    fm_cli_engine_options(&opt, o);
    opt.need_tokenizer = true;
    opt.need_chat = !o->is_raw;
    opt.before_plan = fm_run_prompt_wish;
    opt.before_plan_user = &prompt;
    if (fm_cli_open(&engine, &opt, o, &err) != FM_OK) goto failed;
    fm_model_info info;
    fm_engine_model_info(engine, &info);
    if (!o->is_quiet) {
        fm_plan plan;
        fm_engine_plan(engine, &plan);
        fm_cli_print_plan(stderr, &plan, &info);
    }
    if (fm_session_create(&session, engine, &err) != FM_OK) goto failed;
    const int32_t n_vocab = fm_tokenizer_n_vocab(fm_engine_tokenizer(engine));
    if (fm_sampler_create(&sampler, info.n_vocab > 0 ? info.n_vocab : n_vocab, &sampling, &err) !=
        FM_OK) {
        goto failed;
    }
    status = run_session(session, sampler, engine, o, prompt.ids, prompt.n_ids);
    if (fm_engine_finish_trace(engine, &err) != FM_OK) status = fm_cli_fail(&err);
    goto done;

failed:
    status = fm_cli_fail(&err);
done:
    fm_sampler_destroy(sampler);
    fm_session_destroy(session);
    fm_engine_close(engine);
    fm_run_prompt_free(&prompt);
    return status;
}
