/* flashmoe quantize: a checkpoint as one GGUF file in another type. */
#include "cli/cli.h"

#include "base/clock.h"
#include "base/error.h"

static void print_json(const fm_quantize_result *r, double seconds)
{
    fm_json_out j = {.out = stdout};
    fm_json_open(&j, NULL, '{');
    fm_json_u64(&j, "source_bytes", r->source_bytes);
    fm_json_u64(&j, "destination_bytes", r->destination_bytes);
    fm_json_u64(&j, "resumed_bytes", r->resumed_bytes);
    fm_json_u64(&j, "tensors", (uint64_t)r->n_tensor);
    fm_json_u64(&j, "copied", (uint64_t)r->n_copied);
    fm_json_u64(&j, "fallback", (uint64_t)r->n_fallback);
    fm_json_u64(&j, "draft_left_out", (uint64_t)r->n_draft);
    fm_json_u64(&j, "vision_left_out", (uint64_t)r->n_vision);
    fm_json_real(&j, "seconds", seconds);
    fm_json_u64(&j, "peak_rss_bytes", r->peak_rss_bytes);
    fm_json_close(&j, '}');
}

int fm_cmd_quantize(const fm_cli_options *o)
{
    if (!o->destination) return fm_cli_usage_error(o, "give the file to write after the model");
    if (!o->to) return fm_cli_usage_error(o, "which type? give --to TYPE");
    fm_cli_progress progress[2] = {{.o = o, .what = "writing"}, {.o = o, .what = "reading back"}};
    const fm_quantize_options opt = {
        .struct_size = sizeof opt,
        .source = o->model,
        .destination = o->destination,
        .type = o->to,
        .expert_type = o->expert_type,
        .trunk_type = o->trunk_type,
        .importance = o->importance,
        .n_threads = o->n_threads,
        .log = fm_cli_on_log,
        .log_user = (void *)(uintptr_t)o, /* only read through */
        .progress = fm_cli_on_quantize,
        .progress_user = progress,
    };
    fm_error err = {0};
    fm_quantize_result r = {0};
    const uint64_t began = fm_now_us();
    const fm_status st = fm_quantize(&opt, &r, &err);
    fm_cli_progress_clear();
    if (st != FM_OK) {
        if (st == FM_E_CANCELLED && err.msg[0]) fprintf(stderr, "%s\n", err.msg);
        return fm_cli_fail(&err);
    }
    const double seconds = (double)(fm_now_us() - began) / 1e6;
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE], c[FM_CLI_FIGURE], d[FM_CLI_FIGURE];
    fm_cli_note(o, "%s: %s from %s, %d tensors, %s; peak memory %s", o->destination,
                fm_figure_bytes(a, r.destination_bytes), fm_figure_bytes(b, r.source_bytes),
                (int)r.n_tensor, fm_cli_seconds(c, seconds), fm_figure_bytes(d, r.peak_rss_bytes));
    if (o->is_json) print_json(&r, seconds);
    return FM_EXIT_OK;
}
