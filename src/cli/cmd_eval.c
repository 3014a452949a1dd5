/* flashmoe eval: perplexity of a text, divergence from reference logits, importance sums. */
#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/eval_logits.h"
#include "cli/eval_stats.h"

enum { DEFAULT_CTX = 512 };

/* A text as windows; which of their logits are scored is in the shape. */
typedef struct {
    fm_eval_shape shape;
    int32_t *ids; /* [n_id] of the text, owned */
    int64_t n_id; /* all that there are; windows may use fewer */
} eval_text;

typedef struct {
    const fm_cli_options *o;
    eval_text *text;
    char *bytes; /* of the text, until it is tokens; owned */
    size_t n_byte;
    fm_logits_file reference, saved; /* file NULL: none */
    int32_t *reference_ids;          /* until they are compared with the text's */
    float *reference_row;            /* [n_vocab] */
    int32_t *window;                 /* [n_ctx] ids */
    int64_t at_window;

    fm_eval_mean surprise, divergence;
    double *divergences; /* [scored tokens], with a reference */
    uint64_t n_same_top;

    fm_cli_progress progress;
    fm_status status; /* of the callbacks' first failure */
    fm_error err;
} evaluation;

/* ---- the text ------------------------------------------------------------------------------- */

static void name_model(fm_eval_shape *s, const fm_model_info *info)
{
    snprintf(s->name, sizeof s->name, "%s", info->name);
    snprintf(s->architecture, sizeof s->architecture, "%s", info->architecture);
    s->identity = info->identity;
    s->n_expert_used = info->n_expert_used;
    s->activations = (int32_t)info->activations;
    s->n_vocab = info->n_vocab;
    s->bos_id = info->bos_id;
}

static fm_status cut_windows(eval_text *t, const fm_cli_options *o, int32_t n_ctx, fm_error *err)
{
    fm_eval_shape *s = &t->shape;
    s->n_ctx = n_ctx;
    s->step = o->stride ? o->stride : n_ctx;
    s->first = o->stride ? n_ctx - 1 - o->stride : n_ctx / 2;
    s->n_row = n_ctx - 1 - s->first;
    const int64_t n = o->max_tokens && o->max_tokens < t->n_id ? o->max_tokens : t->n_id;
    if (n < n_ctx)
        return fm_fail(err, FM_E_ARG,
                       "%s: %" PRId64 " tokens%s, a window takes %d (--ctx makes it shorter)",
                       o->text_path, n, n < t->n_id ? " are to be used" : "", n_ctx);
    s->n_window = (n - n_ctx) / s->step + 1;
    s->n_id = (s->n_window - 1) * s->step + n_ctx;
    return FM_OK;
}

static fm_status read_text(eval_text *t, const fm_engine *engine, const fm_cli_options *o,
                           const char *text, size_t n, fm_error *err)
{
    const fm_tokenizer *tok = fm_engine_tokenizer(engine);
    fm_model_info info;
    fm_engine_model_info(engine, &info);
    name_model(&t->shape, &info);
    int32_t *ids;
    size_t n_id;
    /* Markup as in text that a model writes; llama.cpp reads its files the same way. */
    const unsigned flags = o->is_special ? FM_TOKENIZE_SPECIAL : FM_TOKENIZE_MARKUP;
    FM_TRY(fm_tokenize(tok, &ids, &n_id, text, n, flags, err));
    if (info.bos_id >= 0) {
        int32_t *grown = realloc(ids, (n_id + 1) * sizeof *ids);
        if (!grown) {
            free(ids);
            return fm_fail(err, FM_E_NOMEM, "%s: no memory for its tokens", o->text_path);
        }
        ids = grown;
        memmove(ids + 1, ids, n_id * sizeof *ids);
        ids[0] = info.bos_id;
        n_id++;
    }
    t->ids = ids;
    t->n_id = (int64_t)n_id;
    FM_TRY(fm_cli_check_ids(ids, n_id, info.n_vocab, o->text_path, err));
    FM_TRY(cut_windows(t, o, o->n_ctx ? o->n_ctx : DEFAULT_CTX, err));
    /* What lies behind the last window goes now. */
    int32_t *used = realloc(t->ids, (size_t)t->shape.n_id * sizeof *used);
    if (used) t->ids = used;
    return FM_OK;
}

/* The text's tokens, and room for them and for what is kept of each in the plan. */
static fm_status wish_for_text(void *user, const fm_engine *engine, fm_plan_wish *wish,
                               fm_error *err)
{
    evaluation *e = user;
    const fm_eval_shape *s = &e->text->shape;
    FM_TRY(read_text(e->text, engine, e->o, e->bytes, e->n_byte, err));
    free(e->bytes);
    e->bytes = NULL;
    fm_model_info info;
    fm_engine_model_info(engine, &info);
    wish->caller_bytes = (uint64_t)s->n_id * sizeof *e->text->ids;
    if (e->o->against) {
        wish->caller_bytes += (uint64_t)s->n_id * sizeof *e->reference_ids +
                              (uint64_t)s->n_window * (uint64_t)s->n_row * sizeof *e->divergences +
                              (uint64_t)info.n_vocab * sizeof *e->reference_row;
    }
    return FM_OK;
}

/* ---- the reference -------------------------------------------------------------------------- */

static fm_status compare_ids(const evaluation *e, const int32_t *theirs, const fm_engine *engine,
                             fm_error *err)
{
    const fm_tokenizer *tok = fm_engine_tokenizer(engine);
    const int32_t *ours = e->text->ids;
    for (int64_t i = 0; i < e->text->shape.n_id; i++) {
        if (theirs[i] == ours[i]) continue;
        size_t n_a = 0, n_b = 0;
        const char *a = fm_token_bytes(tok, theirs[i], &n_a),
                   *b = fm_token_bytes(tok, ours[i], &n_b);
        return fm_fail(err, FM_E_ARG,
                       "%s: made from other tokens: number %" PRId64 " is %d \"%.*s\" there and %d "
                       "\"%.*s\" here",
                       e->o->against, i, (int)theirs[i], a ? (int)(n_a < 20 ? n_a : 20) : 0,
                       a ? a : "", (int)ours[i], b ? (int)(n_b < 20 ? n_b : 20) : 0, b ? b : "");
    }
    return FM_OK;
}

static fm_status check_reference(const evaluation *e, const int32_t *ids, const fm_engine *engine,
                                 fm_error *err)
{
    const fm_eval_shape *there = &e->reference.shape, *here = &e->text->shape;
    const char *path = e->o->against;
    if (there->n_vocab != here->n_vocab)
        return fm_fail(err, FM_E_ARG, "%s: has a vocabulary of %d, this model has %d", path,
                       (int)there->n_vocab, (int)here->n_vocab);
    if (there->n_ctx != here->n_ctx)
        return fm_fail(err, FM_E_ARG, "%s: has windows of %d tokens, here they have %d (--ctx)",
                       path, (int)there->n_ctx, (int)here->n_ctx);
    if (there->step != here->step || there->first != here->first)
        return fm_fail(
            err, FM_E_ARG,
            "%s: has a window every %d tokens, scored from number %d on; here it is every "
            "%d, from number %d on (--stride)",
            path, (int)there->step, (int)there->first + 1, (int)here->step, (int)here->first + 1);
    if (there->bos_id != here->bos_id)
        return fm_fail(err, FM_E_ARG, "%s: its windows start with token %d, here with %d", path,
                       (int)there->bos_id, (int)here->bos_id);
    if (there->n_window < here->n_window)
        return fm_fail(err, FM_E_ARG,
                       "%s: has %" PRId64 " windows, the text gives %" PRId64
                       " (--max-tokens %" PRId64 " uses as many)",
                       path, there->n_window, here->n_window, there->n_id);
    return compare_ids(e, ids, engine, err);
}

static fm_status use_reference(evaluation *e, const fm_engine *engine, fm_error *err)
{
    FM_TRY(check_reference(e, e->reference_ids, engine, err));
    free(e->reference_ids);
    e->reference_ids = NULL;
    const fm_eval_shape *s = &e->text->shape;
    const uint64_t scored = (uint64_t)s->n_window * (uint64_t)s->n_row;
    e->reference_row = malloc((size_t)s->n_vocab * sizeof *e->reference_row);
    e->divergences = malloc(scored * sizeof *e->divergences);
    if (!e->reference_row || !e->divergences)
        return fm_fail(err, FM_E_NOMEM, "%s: no memory to compare with it", e->o->against);
    return FM_OK;
}

/* ---- scoring -------------------------------------------------------------------------------- */

static fm_status compare_row(evaluation *e, const float *logits, double log_sum, fm_error *err)
{
    const int64_t n = e->text->shape.n_vocab;
    FM_TRY(fm_logits_read_row(&e->reference, e->reference_row, err));
    const double ref_log_sum = fm_eval_log_sum(e->reference_row, n);
    const double kl = fm_eval_divergence(e->reference_row, ref_log_sum, logits, log_sum, n);
    if (isnan(kl)) return fm_fail(err, FM_E_FORMAT, "%s: holds no numbers (NaN)", e->o->against);
    e->divergences[e->divergence.n] = kl;
    fm_eval_mean_add(&e->divergence, kl);
    e->n_same_top += fm_eval_top(e->reference_row, n) == fm_eval_top(logits, n);
    return FM_OK;
}

static fm_status score_row(evaluation *e, int64_t pos, const float *logits, fm_error *err)
{
    const double log_sum = fm_eval_log_sum(logits, e->text->shape.n_vocab);
    if (isnan(log_sum))
        return fm_fail(err, FM_E_FORMAT,
                       "the model's output is not a number (NaN): its weights are damaged, or this "
                       "is a fault of the engine");
    fm_eval_mean_add(&e->surprise, log_sum - (double)logits[e->window[pos + 1]]);
    if (e->saved.file) FM_TRY(fm_logits_write_row(&e->saved, logits, err));
    return e->reference.file ? compare_row(e, logits, log_sum, err) : FM_OK;
}

static bool on_logits(void *user, int64_t pos, const float *logits)
{
    evaluation *e = user;
    if (pos + 1 >= e->text->shape.n_ctx) return true; /* nothing follows in this window */
    e->status = score_row(e, pos, logits, &e->err);
    return e->status == FM_OK;
}

static bool on_progress(void *user, int64_t done, int64_t total)
{
    (void)total;
    evaluation *e = user;
    const fm_eval_shape *s = &e->text->shape;
    return fm_cli_on_eval(&e->progress, e->at_window * s->n_ctx + done, s->n_window * s->n_ctx);
}

static fm_status evaluate(evaluation *e, fm_session *session, fm_error *err)
{
    const fm_eval_shape *s = &e->text->shape;
    e->window = malloc((size_t)s->n_ctx * sizeof *e->window);
    if (!e->window) return fm_fail(err, FM_E_NOMEM, "no memory for a window of %d", s->n_ctx);
    const fm_eval_options eval = {
        .struct_size = sizeof eval,
        .progress = on_progress,
        .progress_user = e,
        .every_logits = on_logits,
        .logits_user = e,
        .logits_from = s->first,
    };
    fm_cli_progress_start(&e->progress, e->o, "evaluated", false);
    for (; e->at_window < s->n_window; e->at_window++) {
        memcpy(e->window, e->text->ids + e->at_window * s->step,
               (size_t)s->n_ctx * sizeof *e->window);
        if (s->bos_id >= 0) e->window[0] = s->bos_id;
        fm_session_reset(session);
        const fm_status st = fm_session_eval(session, e->window, (size_t)s->n_ctx, &eval, err);
        if (e->status !=
            FM_OK) { /* the evaluation stopped for it; its own message is the one to show */
            *err = e->err;
            return e->status;
        }
        FM_TRY(st);
    }
    return e->saved.file ? fm_logits_commit(&e->saved, err) : FM_OK;
}

/* ---- figures -------------------------------------------------------------------------------- */

typedef struct {
    double perplexity, perplexity_error;
    double kl_median, kl_p99, kl_max, same_top, same_top_error; /* with a reference */
    double tok_s, hit_rate;
    fm_stats stats;
} eval_figures;

static void make_figures(eval_figures *f, const evaluation *e, const fm_engine *engine, uint64_t us)
{
    const fm_eval_shape *s = &e->text->shape;
    *f = (eval_figures){.perplexity = exp(fm_eval_mean_value(&e->surprise))};
    f->perplexity_error = f->perplexity * fm_eval_mean_error(&e->surprise);
    fm_engine_stats(engine, &f->stats);
    const uint64_t hits = f->stats.expert_hits;
    const uint64_t uses = hits + f->stats.expert_misses + f->stats.prefetch_used;
    f->hit_rate = uses > 0 ? (double)hits / (double)uses : (double)NAN;
    f->tok_s = us > 0 ? (double)(s->n_window * s->n_ctx) * 1e6 / (double)us : 0;
    const uint64_t n = e->divergence.n;
    if (n == 0) return;
    fm_eval_sort(e->divergences, n);
    f->kl_median = fm_eval_quantile(e->divergences, n, 0.5);
    f->kl_p99 = fm_eval_quantile(e->divergences, n, 0.99);
    f->kl_max = e->divergences[n - 1];
    const double p = (double)e->n_same_top / (double)n;
    f->same_top = p;
    f->same_top_error = n > 1 ? sqrt(p * (1 - p) / (double)(n - 1)) : (double)NAN;
}

static void print_table(const evaluation *e, const eval_figures *f)
{
    const fm_eval_shape *s = &e->text->shape;
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE];
    printf("perplexity      %.6g +- %.3g\n", f->perplexity, f->perplexity_error);
    printf("scored          %s tokens: %s windows of %d, from number %d on\n",
           fm_cli_count(a, e->surprise.n), fm_cli_count(b, (uint64_t)s->n_window), (int)s->n_ctx,
           (int)s->first + 1);
    if (e->divergence.n == 0) return;
    const fm_eval_shape *ref = &e->reference.shape;
    printf("KL divergence   %.6g +- %.3g, median %.6g, 99 %% %.6g, largest %.6g\n",
           fm_eval_mean_value(&e->divergence), fm_eval_mean_error(&e->divergence), f->kl_median,
           f->kl_p99, f->kl_max);
    printf("same top token  %.3f +- %.3f %%\n", 100 * f->same_top, 100 * f->same_top_error);
    char name[FM_CLI_NAME], architecture[FM_CLI_NAME];
    printf("reference       %s (%s, %d experts per token, activations %s)%s\n",
           *ref->name ? fm_cli_name(name, ref->name) : "unnamed",
           fm_cli_name(architecture, ref->architecture), (int)ref->n_expert_used,
           fm_cli_activations(ref->activations),
           ref->identity == s->identity ? ", the same model" : "");
}

static void print_json(const evaluation *e, const eval_figures *f, const fm_engine *engine)
{
    const fm_eval_shape *s = &e->text->shape, *ref = &e->reference.shape;
    fm_plan plan;
    fm_engine_plan(engine, &plan);
    fm_json_out j = {.out = stdout};
    fm_json_open(&j, NULL, '{');
    fm_json_real(&j, "perplexity", f->perplexity);
    fm_json_real(&j, "perplexity_error", f->perplexity_error);
    fm_json_real(&j, "mean_nll", fm_eval_mean_value(&e->surprise));
    fm_json_u64(&j, "scored_tokens", e->surprise.n);
    fm_json_u64(&j, "windows", (uint64_t)s->n_window);
    fm_json_u64(&j, "context", (uint64_t)s->n_ctx);
    fm_json_u64(&j, "stride", (uint64_t)s->step);
    fm_json_u64(&j, "first_scored", (uint64_t)s->first + 1);
    fm_json_u64(&j, "text_tokens", (uint64_t)e->text->n_id);
    fm_json_u64(&j, "experts_used", (uint64_t)s->n_expert_used);
    fm_json_string(&j, "activations", fm_cli_activations(s->activations));
    if (e->divergence.n > 0) {
        fm_json_real(&j, "kl_mean", fm_eval_mean_value(&e->divergence));
        fm_json_real(&j, "kl_error", fm_eval_mean_error(&e->divergence));
        fm_json_real(&j, "kl_median", f->kl_median);
        fm_json_real(&j, "kl_p99", f->kl_p99);
        fm_json_real(&j, "kl_max", f->kl_max);
        fm_json_real(&j, "same_top", f->same_top);
        fm_json_real(&j, "same_top_error", f->same_top_error);
        fm_json_open(&j, "reference", '{');
        fm_json_string(&j, "name", ref->name);
        fm_json_string(&j, "family", ref->architecture);
        fm_json_u64(&j, "experts_used", (uint64_t)ref->n_expert_used);
        fm_json_string(&j, "activations", fm_cli_activations(ref->activations));
        fm_json_u64(&j, "same_model", ref->identity == s->identity);
        fm_json_close(&j, '}');
    }
    fm_json_real(&j, "tok_s", f->tok_s);
    fm_json_real(&j, "hit_rate", f->hit_rate);
    fm_json_u64(&j, "bytes_read", f->stats.bytes_read);
    fm_json_real(&j, "disk_wait_ms", (double)f->stats.disk_wait_us / 1e3);
    fm_json_u64(&j, "peak_rss_bytes", f->stats.peak_rss_bytes);
    fm_json_u64(&j, "memory_budget_bytes", plan.budget_bytes);
    fm_json_close(&j, '}');
}

/* ---- the command ---------------------------------------------------------------------------- */

static int check_usage(const fm_cli_options *o)
{
    if (!o->text_path) return fm_cli_usage_error(o, "which text? give it with --text FILE");
    if (o->save_logits && o->against)
        return fm_cli_usage_error(o, "--save-logits and --against exclude each other");
    const int32_t n_ctx = o->n_ctx ? o->n_ctx : DEFAULT_CTX;
    if (o->stride >= n_ctx)
        return fm_cli_usage_error(o, "--stride %d: expected less than the window of %d tokens",
                                  (int)o->stride, (int)n_ctx);
    return FM_EXIT_OK;
}

/* What needs no model, before a large one is loaded. */
static fm_status check_files(evaluation *e, fm_error *err)
{
    const fm_cli_options *o = e->o;
    if (o->trace_path) FM_TRY(fm_cli_check_writable(o->trace_path, err));
    if (o->importance_path) FM_TRY(fm_cli_check_writable(o->importance_path, err));
    if (o->save_logits) FM_TRY(fm_cli_check_writable(o->save_logits, err));
    if (!o->against) return FM_OK;
    return fm_logits_open(&e->reference, o->against, &e->reference_ids, err);
}

static fm_status open_outputs(evaluation *e, const fm_engine *engine, fm_error *err)
{
    const fm_cli_options *o = e->o;
    if (o->against) FM_TRY(use_reference(e, engine, err));
    if (!o->save_logits) return FM_OK;
    const fm_eval_shape *s = &e->text->shape;
    char size[FM_CLI_FIGURE], rows[FM_CLI_FIGURE];
    fm_cli_note(o, "%s will take %s: %s rows of %d logits", o->save_logits,
                fm_figure_bytes(size, fm_logits_file_bytes(s)),
                fm_cli_count(rows, (uint64_t)s->n_window * (uint64_t)s->n_row), (int)s->n_vocab);
    return fm_logits_create(&e->saved, o->save_logits, s, e->text->ids, err);
}

static int report(evaluation *e, const fm_engine *engine, fm_status st, fm_error *err, uint64_t us)
{
    if (st != FM_OK) {
        const int status = fm_cli_fail(err);
        if (st == FM_E_CANCELLED && e->surprise.n > 0) {
            char n[FM_CLI_FIGURE];
            fm_cli_note(e->o, "so far: perplexity %.6g +- %.3g over %s tokens",
                        exp(fm_eval_mean_value(&e->surprise)),
                        exp(fm_eval_mean_value(&e->surprise)) * fm_eval_mean_error(&e->surprise),
                        fm_cli_count(n, e->surprise.n));
        }
        return status;
    }
    eval_figures f;
    make_figures(&f, e, engine, us);
    if (e->o->is_json) {
        print_json(e, &f, engine);
    } else {
        print_table(e, &f);
    }
    char peak[FM_CLI_FIGURE];
    fm_cli_note(e->o,
                "[%.1f tok/s | hits %.1f %% | read %.3f GB | disk wait %.0f %% | peak memory %s]",
                f.tok_s, isnan(f.hit_rate) ? 0 : 100 * f.hit_rate, (double)f.stats.bytes_read / 1e9,
                us > 0 ? 100.0 * (double)f.stats.disk_wait_us / (double)us : 0.0,
                fm_figure_bytes(peak, f.stats.peak_rss_bytes));
    return FM_EXIT_OK;
}

int fm_cmd_eval(const fm_cli_options *o)
{
    const int usage = check_usage(o);
    if (usage != FM_EXIT_OK) return usage;
    fm_error err = {0};
    fm_engine *engine = NULL;
    fm_session *session = NULL;
    eval_text text = {0};
    evaluation e = {.o = o, .text = &text};

    fm_status st = fm_cli_read_file(&e.bytes, &e.n_byte, o->text_path, &err);
    if (st == FM_OK) st = fm_cli_check_text(o, o->text_path, e.n_byte, &err);
    if (st == FM_OK) st = check_files(&e, &err);
    if (st == FM_OK) {
        fm_engine_options opt;
        fm_cli_engine_options(&opt, o);
        opt.need_tokenizer = true;
        if (opt.n_ctx == 0) opt.n_ctx = DEFAULT_CTX;
        opt.collect_importance = o->importance_path != NULL;
        opt.before_plan = wish_for_text;
        opt.before_plan_user = &e;
        st = fm_cli_open(&engine, &opt, o, &err);
    }
    free(e.bytes);
    if (st == FM_OK) st = open_outputs(&e, engine, &err);
    if (st == FM_OK) st = fm_session_create(&session, engine, &err);
    const uint64_t started = fm_now_us();
    if (st == FM_OK) st = evaluate(&e, session, &err);
    const uint64_t us = fm_now_us() - started;
    if (st == FM_OK && o->importance_path)
        st = fm_engine_write_importance(engine, o->importance_path, o->text_path,
                                        (uint32_t)text.shape.n_window, (uint32_t)text.shape.n_ctx,
                                        &err);
    if (st == FM_OK) st = fm_engine_finish_trace(engine, &err);
    fm_cli_progress_clear();
    const int status = report(&e, engine, st, &err, us);
    fm_logits_destroy(&e.saved);
    fm_logits_destroy(&e.reference);
    free(e.reference_ids);
    free(e.reference_row);
    free(e.divergences);
    free(e.window);
    free(text.ids);
    fm_session_destroy(session);
    fm_engine_close(engine);
    return status;
}
