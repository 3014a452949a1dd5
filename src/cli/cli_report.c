/* Figures and tables for people. */
#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/quote.h"

const char *fm_cli_count(char out[FM_CLI_FIGURE], uint64_t n)
{
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%" PRIu64, n);
    char *p = out;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) *p++ = ',';
        *p++ = digits[i];
    }
    *p = '\0';
    return out;
}

const char *fm_cli_seconds(char out[FM_CLI_FIGURE], double seconds)
{
    if (seconds > 1e9) seconds = 1e9;
    const long long whole = (long long)(seconds + 0.5);
    if (whole < 60) {
        snprintf(out, FM_CLI_FIGURE, "%lld s", whole);
    } else if (whole < 3600) {
        snprintf(out, FM_CLI_FIGURE, "%lld min %02lld s", whole / 60, whole % 60);
    } else {
        snprintf(out, FM_CLI_FIGURE, "%lld h %02lld min", whole / 3600, whole / 60 % 60);
    }
    return out;
}

const char *fm_cli_name(char out[FM_CLI_NAME], const char *name)
{
    fm_utf8_stream utf8 = {0};
    const size_t n = fm_utf8_push(&utf8, out, name, strnlen(name, (FM_CLI_NAME - 1) / 3 - 3), true);
    out[n] = '\0';
    fm_quote_in_place(out);
    return out;
}

fm_cli_speed fm_cli_speed_of(const fm_plan *plan, const fm_model_info *info)
{
    const double slots =
        plan->experts_total > 0 ? (double)plan->expert_slots / (double)plan->experts_total : 1.0;
    const double streamed = plan->trunk_units > 0
                                ? 1.0 - (double)plan->trunk_resident / (double)plan->trunk_units
                                : 0.0;
    fm_cli_speed s = {.disk_gb_s = info->io_measured_gb_s};
    s.touched_bytes = (double)info->trunk_bytes_per_token + (double)info->expert_bytes_per_token;
    s.read_bytes = (1.0 - fmin(slots, 1.0)) * (double)info->expert_bytes_per_token +
                   streamed * (double)info->trunk_bytes;
    return s;
}

/* What the disk, or memory, allows at best: the terms of docs/benchmarks.md, from sizes alone. */
static void print_speed(FILE *out, const fm_plan *plan, const fm_model_info *info)
{
    const fm_cli_speed s = fm_cli_speed_of(plan, info);
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE];
    fm_figure_bytes(a, (uint64_t)s.touched_bytes);
    if (s.read_bytes <= 0) {
        fprintf(
            out,
            "  speed: a token touches %s and reads nothing: at most %.2f tok/s for each GB/s of "
            "memory\n",
            a, 1e9 / s.touched_bytes);
        return;
    }
    fprintf(
        out,
        "  speed: a token touches %s and reads %s of it where all experts are used alike: at most "
        "%.2f tok/s for each GB/s of the disk\n",
        a, fm_figure_bytes(b, (uint64_t)s.read_bytes), 1e9 / s.read_bytes);
}

void fm_cli_print_plan(FILE *out, const fm_plan *plan, const fm_model_info *info)
{
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE];
    fprintf(out, "memory plan\n");
    for (int32_t i = 0; i < plan->n_line; i++) {
        fprintf(out, "  %-30s %12s\n", plan->lines[i].name,
                fm_figure_bytes(a, plan->lines[i].bytes));
    }
    fprintf(out, "  %-30s %12s   of %s (%s)\n", "total", fm_figure_bytes(a, plan->total_bytes),
            fm_figure_bytes(b, plan->budget_bytes),
            plan->budget_given ? "given" : "what the machine can spare");
    fprintf(out, "  %-30s %12s   of %s\n", "free on this machine",
            fm_figure_bytes(a, plan->available_bytes), fm_figure_bytes(b, plan->machine_bytes));
    fprintf(out, "  experts in memory: %s of %s",
            fm_cli_count(a, (uint64_t)(plan->expert_slots > 0 ? plan->expert_slots : 0)),
            fm_cli_count(b, (uint64_t)(plan->experts_total > 0 ? plan->experts_total : 0)));
    if (plan->experts_total > 0) {
        fprintf(out, " (%.1f %%)",
                100.0 * (double)plan->expert_slots / (double)plan->experts_total);
    }
    fputc('\n', out);
    if (plan->trunk_resident < plan->trunk_units) {
        fprintf(out,
                "  the trunk does not fit: %d of its %d pieces stay in memory, the rest is read "
                "for every token (slow)\n",
                (int)plan->trunk_resident, (int)plan->trunk_units);
    }
    fprintf(out, "  context %s tokens, prompts in chunks of %s; smallest budget %s\n",
            fm_cli_count(a, (uint64_t)(plan->n_ctx > 0 ? plan->n_ctx : 0)),
            fm_cli_count(b, (uint64_t)(plan->n_batch > 0 ? plan->n_batch : 0)),
            fm_figure_bytes((char[FM_CLI_FIGURE]){0}, plan->min_memory_bytes));
    if (info && info->uses_draft) fprintf(out, "  drafts by the model's draft layer\n");
    if (!info) return;
    print_speed(out, plan, info);
    if (plan->expert_slots >= plan->experts_total) return;
    fprintf(out, "  reads: %d at a time, cut at %s (%s", (int)info->io_depth,
            fm_figure_bytes(a, info->io_split), info->io_origin);
    if (info->io_measured_gb_s > 0) fprintf(out, ": %.2f GB/s", info->io_measured_gb_s);
    fprintf(out, ")\n");
}
