/* flashmoe info: what a checkpoint is. flashmoe plan: what would lie in memory, without loading. */
#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static void print_row(const char *name, const char *value)
{
    printf("%-20s %s\n", name, value);
}

/* Tensors of a directory that nothing here computes with. */
static void print_skipped(const char *what, int64_t n, uint64_t bytes)
{
    char a[FM_CLI_FIGURE], line[128];
    if (n == 0) return;
    snprintf(line, sizeof line, "%" PRId64 " tensor%s, %s, skipped", n, n == 1 ? "" : "s",
             fm_figure_bytes(a, bytes));
    print_row(what, line);
}

/* Where the bytes of the model are. */
static void print_parts(const fm_model_info *m)
{
    char a[FM_CLI_FIGURE], line[256];
    int n = snprintf(line, sizeof line, "trunk %s", fm_figure_bytes(a, m->trunk_bytes));
    n += snprintf(line + n, sizeof line - (size_t)n, ", experts %s",
                  fm_figure_bytes(a, m->expert_bytes));
    if (m->embedding_bytes > 0)
        n += snprintf(line + n, sizeof line - (size_t)n, ", embedding %s",
                      fm_figure_bytes(a, m->embedding_bytes));
    if (m->draft_layer_bytes > 0)
        snprintf(line + n, sizeof line - (size_t)n, ", draft layer with its experts %s",
                 fm_figure_bytes(a, m->draft_layer_bytes));
    print_row("", line);
}

static void print_info(const fm_model_info *m, const fm_type_use *types, size_t n_type)
{
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE], c[FM_CLI_FIGURE], line[512], name[FM_CLI_NAME];

    print_row("model", m->name[0] ? fm_cli_name(name, m->name) : "(no name)");
    print_row("family", m->architecture);
    snprintf(line, sizeof line, "%.3g B, %.3g B active per token", (double)m->n_param / 1e9,
             (double)m->n_param_active / 1e9);
    if (m->n_param < 1000000000) {
        snprintf(line, sizeof line, "%.3g M, %.3g M active per token", (double)m->n_param / 1e6,
                 (double)m->n_param_active / 1e6);
    }
    print_row("parameters", line);
    snprintf(line, sizeof line,
             "%d: %d with full attention, %d with linear attention, %d with experts",
             (int)m->n_layer, (int)m->n_full_attention_layer, (int)m->n_linear_attention_layer,
             (int)m->n_moe_layer);
    print_row("layers", line);
    if (m->n_window_layer > 0) {
        snprintf(line, sizeof line, "%s positions, in %d of the layers with attention",
                 fm_cli_count(a, (uint64_t)m->window), (int)m->n_window_layer);
        print_row("sliding window", line);
    }
    if (m->n_draft_layer > 0) {
        snprintf(line, sizeof line, "%d more in the file (multi-token prediction)",
                 (int)m->n_draft_layer);
        print_row("draft layers", line);
    }
    print_skipped("vision", m->n_vision_tensor, m->vision_bytes);
    print_skipped("draft tensors", m->n_draft_tensor, m->draft_bytes);
    if (m->n_latent > 0) {
        snprintf(line, sizeof line,
                 "%d wide; %d heads, a latent of %d + %d for all their keys and values",
                 (int)m->n_embd, (int)m->n_head, (int)m->n_latent, (int)m->n_latent_rot);
    } else {
        snprintf(line, sizeof line, "%d wide; %d heads, %d for keys and values", (int)m->n_embd,
                 (int)m->n_head, (int)m->n_head_kv);
    }
    print_row("dimensions", line);
    snprintf(line, sizeof line, "%d per layer, %d chosen for a token; up to %s each",
             (int)m->n_expert, (int)m->n_expert_used_trained,
             fm_figure_bytes(a, m->bytes_per_expert_max));
    print_row("experts", line);
    snprintf(line, sizeof line, "%s in %d %s", fm_figure_bytes(a, m->file_bytes), (int)m->n_shard,
             m->n_shard == 1 ? "file" : "files");
    print_row("size", line);
    print_parts(m);
    snprintf(line, sizeof line, "%s: trunk %s, experts %s",
             fm_figure_bytes(a, m->trunk_bytes_per_token + m->expert_bytes_per_token),
             fm_figure_bytes(b, m->trunk_bytes_per_token),
             fm_figure_bytes(c, m->expert_bytes_per_token));
    print_row("bytes per token", line);
    snprintf(line, sizeof line, "%s tokens as trained",
             fm_cli_count(a, (uint64_t)(m->n_ctx_train > 0 ? m->n_ctx_train : 0)));
    print_row("context", line);
    snprintf(line, sizeof line, "%s, %s tokens", fm_cli_name(name, m->tokenizer),
             fm_cli_count(a, (uint64_t)(m->n_vocab > 0 ? m->n_vocab : 0)));
    print_row("tokenizer", line);
    for (size_t i = 0; i < n_type; i++) {
        snprintf(line, sizeof line, "%-6s %5" PRIu64 " tensors, trunk %s, experts %s",
                 types[i].type, types[i].n_tensor, fm_figure_bytes(a, types[i].bytes_trunk),
                 fm_figure_bytes(b, types[i].bytes_expert));
        print_row(i == 0 ? "types" : "", line);
    }
}

static void print_info_json(const fm_model_info *m, const fm_type_use *types, size_t n_type)
{
    fm_json_out j = {.out = stdout};
    fm_json_open(&j, NULL, '{');
    fm_json_string(&j, "name", m->name);
    fm_json_string(&j, "family", m->architecture);
    fm_json_u64(&j, "parameters", m->n_param);
    fm_json_u64(&j, "active_parameters", m->n_param_active);
    fm_json_count(&j, "layers", m->n_layer);
    fm_json_count(&j, "full_attention_layers", m->n_full_attention_layer);
    fm_json_count(&j, "linear_attention_layers", m->n_linear_attention_layer);
    fm_json_count(&j, "moe_layers", m->n_moe_layer);
    fm_json_count(&j, "window_layers", m->n_window_layer);
    fm_json_count(&j, "window", m->window);
    fm_json_count(&j, "draft_layers", m->n_draft_layer);
    fm_json_count(&j, "vision_tensors", m->n_vision_tensor);
    fm_json_u64(&j, "vision_bytes", m->vision_bytes);
    fm_json_count(&j, "draft_tensors", m->n_draft_tensor);
    fm_json_u64(&j, "draft_bytes", m->draft_bytes);
    fm_json_count(&j, "embedding", m->n_embd);
    fm_json_count(&j, "heads", m->n_head);
    fm_json_count(&j, "kv_heads", m->n_head_kv);
    fm_json_count(&j, "latent", m->n_latent);
    fm_json_count(&j, "latent_rope", m->n_latent_rot);
    fm_json_count(&j, "experts", m->n_expert);
    fm_json_count(&j, "experts_used", m->n_expert_used_trained);
    fm_json_count(&j, "context", m->n_ctx_train);
    fm_json_string(&j, "tokenizer", m->tokenizer);
    fm_json_count(&j, "vocabulary", m->n_vocab);
    fm_json_count(&j, "shards", m->n_shard);
    fm_json_u64(&j, "file_bytes", m->file_bytes);
    fm_json_u64(&j, "trunk_bytes", m->trunk_bytes);
    fm_json_u64(&j, "expert_bytes", m->expert_bytes);
    fm_json_u64(&j, "embedding_bytes", m->embedding_bytes);
    fm_json_u64(&j, "draft_layer_bytes", m->draft_layer_bytes);
    fm_json_u64(&j, "bytes_per_expert_max", m->bytes_per_expert_max);
    fm_json_u64(&j, "trunk_bytes_per_token", m->trunk_bytes_per_token);
    fm_json_u64(&j, "expert_bytes_per_token", m->expert_bytes_per_token);
    fm_json_open(&j, "types", '[');
    for (size_t i = 0; i < n_type; i++) {
        fm_json_open(&j, NULL, '{');
        fm_json_string(&j, "type", types[i].type);
        fm_json_u64(&j, "tensors", types[i].n_tensor);
        fm_json_u64(&j, "trunk_bytes", types[i].bytes_trunk);
        fm_json_u64(&j, "expert_bytes", types[i].bytes_expert);
        fm_json_close(&j, '}');
    }
    fm_json_close(&j, ']');
    fm_json_close(&j, '}');
}

int fm_cmd_info(const fm_cli_options *o)
{
    fm_error err = {0};
    fm_engine *engine;
    fm_engine_options opt;
    fm_cli_engine_options(&opt, o);
    /* Only the checkpoint's facts are wanted, also of models that this machine could not hold:
     * the plan is made for more memory than there is, and nothing is allocated for it. */
    opt.plan_only = true;
    opt.memory_budget = UINT64_C(1) << 60;
    if (fm_cli_open(&engine, &opt, o, &err) != FM_OK) return fm_cli_fail(&err);

    enum { MAX_TYPE = 64 };
    fm_type_use types[MAX_TYPE];
    size_t n_type = fm_engine_type_use(engine, types, MAX_TYPE);
    if (n_type > MAX_TYPE) n_type = MAX_TYPE;
    fm_model_info info;
    fm_engine_model_info(engine, &info);
    if (o->is_json) {
        print_info_json(&info, types, n_type);
    } else {
        print_info(&info, types, n_type);
    }
    fm_engine_close(engine);
    return FM_EXIT_OK;
}

static void print_plan_json(const fm_plan *plan, const fm_model_info *info)
{
    fm_json_out j = {.out = stdout};
    fm_json_open(&j, NULL, '{');
    fm_json_open(&j, "lines", '[');
    for (int32_t i = 0; i < plan->n_line; i++) {
        fm_json_open(&j, NULL, '{');
        fm_json_string(&j, "name", plan->lines[i].name);
        fm_json_u64(&j, "bytes", plan->lines[i].bytes);
        fm_json_close(&j, '}');
    }
    fm_json_close(&j, ']');
    fm_json_u64(&j, "total_bytes", plan->total_bytes);
    fm_json_u64(&j, "budget_bytes", plan->budget_bytes);
    fm_json_bool(&j, "budget_given", plan->budget_given);
    fm_json_u64(&j, "machine_bytes", plan->machine_bytes);
    fm_json_u64(&j, "available_bytes", plan->available_bytes);
    fm_json_u64(&j, "min_memory_bytes", plan->min_memory_bytes);
    fm_json_count(&j, "expert_slots", plan->expert_slots);
    fm_json_count(&j, "experts_total", plan->experts_total);
    fm_json_count(&j, "trunk_units", plan->trunk_units);
    fm_json_count(&j, "trunk_resident", plan->trunk_resident);
    fm_json_count(&j, "context", plan->n_ctx);
    fm_json_count(&j, "batch", plan->n_batch);
    fm_json_string(&j, "draft", info->uses_draft ? "on" : "off");
    fm_json_count(&j, "io_depth", info->io_depth);
    fm_json_u64(&j, "io_split", info->io_split);
    fm_json_string(&j, "io_origin", info->io_origin);
    const fm_cli_speed speed = fm_cli_speed_of(plan, info);
    fm_json_u64(&j, "touched_bytes_per_token", (uint64_t)speed.touched_bytes);
    fm_json_u64(&j, "read_bytes_per_token", (uint64_t)speed.read_bytes);
    fm_json_real(&j, "disk_gb_s", speed.disk_gb_s > 0 ? speed.disk_gb_s : NAN);
    fm_json_close(&j, '}');
}

int fm_cmd_plan(const fm_cli_options *o)
{
    fm_error err = {0};
    fm_engine *engine;
    fm_engine_options opt;
    fm_cli_engine_options(&opt, o);
    opt.plan_only = true;
    if (fm_cli_open(&engine, &opt, o, &err) != FM_OK) return fm_cli_fail(&err);
    fm_plan plan;
    fm_engine_plan(engine, &plan);
    fm_model_info info;
    fm_engine_model_info(engine, &info);
    if (o->is_json) {
        print_plan_json(&plan, &info);
    } else {
        fm_cli_print_plan(stdout, &plan, &info);
    }
    fm_engine_close(engine);
    return FM_EXIT_OK;
}
