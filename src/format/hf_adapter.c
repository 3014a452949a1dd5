/* Finds the adapter of a model_type, and what the families' configurations have in common. The families' tables are in
 * hf_qwen.c, hf_glm.c, hf_gptoss.c and hf_deepseek.c. */
#include "format/hf_adapter.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the list ---------------------------------------------------------------------------- */

static const fm_hf_adapter *const families[] = {fm_hf_qwen, fm_hf_glm, fm_hf_gptoss,
                                                fm_hf_deepseek};
enum { N_FAMILY = sizeof families / sizeof families[0] };

const fm_hf_adapter *fm_hf_adapter_find(const char *model_type)
{
    for (int f = 0; f < N_FAMILY && model_type; f++)
        for (const fm_hf_adapter *a = families[f]; a->model_type; a++)
            if (strcmp(a->model_type, model_type) == 0) return a;
    return NULL;
}

void fm_hf_adapter_names(char *out, size_t size)
{
    size_t at = 0;
    out[0] = 0;
    for (int f = 0; f < N_FAMILY; f++)
        for (const fm_hf_adapter *a = families[f]; a->model_type && at < size; a++)
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "", a->model_type);
}

/* ---- configurations ---------------------------------------------------------------------- */

fm_status fm_hf_refuse(fm_error *err, const char *path, const char *what)
{
    return fm_fail(err, FM_E_UNSUPPORTED, "%s: %s, which this architecture's code does not do",
                   path, what);
}

fm_status fm_hf_check_string(const json_t *text, const char *path, const char *key,
                             const char *only, fm_error *err)
{
    const json_t *v = json_object_get(text, key);
    if (!v || json_is_null(v)) return FM_OK;
    const char *found = json_string_value(v);
    if (found && strcmp(found, only) == 0) return FM_OK;
    char what[160];
    snprintf(what, sizeof what, "%s is \"%.60s\" and not \"%s\"", key, found ? found : "?", only);
    return fm_hf_refuse(err, path, what);
}

fm_status fm_hf_check_silu(const json_t *text, const char *path, fm_error *err)
{
    return fm_hf_check_string(text, path, "hidden_act", "silu", err);
}

double fm_hf_number(const json_t *o, const char *key, double fallback)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

/* What transformers' _compute_yarn_parameters reads, and DeepSeek's factor of the scores. */
static fm_status put_yarn(fm_checkpoint *c, const char *arch, const json_t *rope, double factor,
                          fm_error *err)
{
    static const char *const betas[][2] = {{"beta_fast", "rope.scaling.yarn_beta_fast"},
                                           {"beta_slow", "rope.scaling.yarn_beta_slow"}};
    for (int i = 0; i < 2; i++) {
        const double beta = fm_hf_number(rope, betas[i][0], 0);
        if (beta != 0) FM_TRY(fm_hf_put_float(c, arch, betas[i][1], beta, err));
    }
    const json_t *truncate = json_object_get(rope, "truncate");
    if (json_is_boolean(truncate))
        FM_TRY(fm_hf_put_bool(c, arch, "rope.scaling.truncate", json_is_true(truncate), err));
    const double mscale = fm_hf_number(rope, "mscale", 0),
                 all_dim = fm_hf_number(rope, "mscale_all_dim", 0),
                 log_factor = factor > 1 ? 0.1 * log(factor) : 0;
    double attention = fm_hf_number(rope, "attention_factor", 0);
    if (all_dim != 0) {
        FM_TRY(fm_hf_put_float(c, arch, "rope.scaling.yarn_log_multiplier", 0.1 * all_dim, err));
        if (attention == 0)
            attention = mscale != 0 ? (mscale * log_factor + 1) / (all_dim * log_factor + 1)
                                    : log_factor + 1;
    } else if (attention != 0) {
        attention /= log_factor + 1; /* what the reader of these keys multiplies with */
    }
    if (attention == 0) return FM_OK;
    return fm_hf_put_float(c, arch, "rope.scaling.yarn_attn_factor", attention, err);
}

fm_status fm_hf_put_rope(fm_checkpoint *c, const char *arch, const json_t *text, const char *path,
                         const fm_hf_rope *how, fm_error *err)
{
    const json_t *rope = json_object_get(text, "rope_parameters");
    if (!json_is_object(rope)) rope = json_object_get(text, "rope_scaling");
    const double theta =
        fm_hf_number(rope, "rope_theta", fm_hf_number(text, "rope_theta", how->default_theta));
    FM_TRY(fm_hf_put_float(c, arch, "rope.freq_base", theta, err));
    const double part =
        fm_hf_number(rope, "partial_rotary_factor",
                     fm_hf_number(text, "partial_rotary_factor", how->default_factor));
    const double heads = fm_hf_number(text, "num_attention_heads", 0);
    const double head = fm_hf_number(text, "head_dim",
                                     heads > 0 ? fm_hf_number(text, "hidden_size", 0) / heads : 0);
    double rotated = how->rot_dim;
    if (rotated == 0) {
        if (!(part > 0 && part <= 1 && head >= 1 && head <= 65536))
            return fm_fail(err, FM_E_FORMAT, "%s: partial_rotary_factor %g of head_dim %g", path,
                           part, head);
        rotated = head * part;
    }
    FM_TRY(fm_hf_put_uint(c, arch, "rope.dimension_count", (uint64_t)rotated, err));
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    if (!type) type = json_string_value(json_object_get(rope, "type"));
    if (!type || strcmp(type, "default") == 0 || strcmp(type, "mrope") == 0) return FM_OK;
    FM_TRY(fm_hf_put_str(c, arch, "rope.scaling.type", type, err));
    const double original =
        fm_hf_number(text, "original_max_position_embeddings",
                     fm_hf_number(rope, "original_max_position_embeddings",
                                  fm_hf_number(text, "max_position_embeddings", 0)));
    double factor = fm_hf_number(rope, "factor", 0);
    if (factor == 0 && original > 0)
        factor = fm_hf_number(text, "max_position_embeddings", 0) / original;
    FM_TRY(fm_hf_put_float(c, arch, "rope.scaling.factor", factor, err));
    if (original >= 1 && original < 1e9)
        FM_TRY(fm_hf_put_uint(c, arch, "rope.scaling.original_context_length", (uint64_t)original,
                              err));
    return strcmp(type, "yarn") == 0 ? put_yarn(c, arch, rope, factor, err) : FM_OK;
}
