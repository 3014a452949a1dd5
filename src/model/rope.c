/* Frequencies and tables of rotary position embeddings. */
#include "model/rope.h"

#include <math.h>
#include <string.h>

#include "model/family.h"

static const double PI = 3.14159265358979323846;

double fm_rope_mscale(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

static bool is(fm_str s, const char *word)
{
    return s.len == strlen(word) && memcmp(s.data, word, s.len) == 0;
}

fm_status fm_rope_read(const fm_checkpoint *c, fm_rope *rope, fm_error *err)
{
    rope->scaling = FM_ROPE_PLAIN;
    rope->factor = rope->attention_factor = rope->score_factor = 1.0f;
    rope->truncate = true;
    fm_str type;
    FM_TRY(fm_hp_str_or(c, "rope.scaling.type", &type, "none", err));
    if (is(type, "none")) return FM_OK;
    if (!is(type, "linear") && !is(type, "yarn"))
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: rope.scaling.type is '%.*s', expected none, linear or yarn",
                       fm_checkpoint_file(c, 0), (int)(type.len < 64 ? type.len : 64), type.data);
    FM_TRY(fm_hp_f32(c, "rope.scaling.factor", &rope->factor, err));
    if (is(type, "linear")) {
        rope->scaling = FM_ROPE_LINEAR;
        return FM_OK;
    }
    float log_multiplier, given;
    rope->scaling = FM_ROPE_YARN;
    FM_TRY(fm_hp_i32(c, "rope.scaling.original_context_length", &rope->n_ctx_original, 1, INT32_MAX,
                     err));
    FM_TRY(fm_hp_f32_or(c, "rope.scaling.yarn_beta_fast", &rope->beta_fast, 32.0f, err));
    FM_TRY(fm_hp_f32_or(c, "rope.scaling.yarn_beta_slow", &rope->beta_slow, 1.0f, err));
    FM_TRY(fm_hp_f32_or(c, "rope.scaling.yarn_log_multiplier", &log_multiplier, 0.0f, err));
    FM_TRY(fm_hp_f32_or(c, "rope.scaling.yarn_attn_factor", &given, 1.0f, err));
    FM_TRY(fm_hp_bool_or(c, "rope.scaling.truncate", &rope->truncate, true, err));
    if (log_multiplier > 0.0f) {
        const double m = fm_rope_mscale(rope->factor, 10.0 * (double)log_multiplier);
        rope->score_factor = (float)(m * m);
        rope->attention_factor = given;
    } else {
        rope->attention_factor = (float)(given * fm_rope_mscale(rope->factor, 1.0));
    }
    return FM_OK;
}

/* The pair, as a real number, that turns `beta` times over the original context. */
static double pair_of(const fm_rope *r, double beta)
{
    return r->n_rot * log(r->n_ctx_original / (2.0 * PI * beta)) / (2.0 * log((double)r->base));
}

void fm_rope_frequencies(const fm_rope *rope, double *freq)
{
    const int32_t half = rope->n_rot / 2;
    for (int32_t i = 0; i < half; i++)
        freq[i] = pow((double)rope->base, -2.0 * (double)i / (double)rope->n_rot);
    if (rope->scaling == FM_ROPE_LINEAR)
        for (int32_t i = 0; i < half; i++) freq[i] /= (double)rope->factor;
    if (rope->scaling != FM_ROPE_YARN) return;
    double low = pair_of(rope, rope->beta_fast), high = pair_of(rope, rope->beta_slow);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    if (low < 0.0) low = 0.0;
    if (high > rope->n_rot - 1) high = rope->n_rot - 1;
    if (low == high) high += 0.001;
    for (int32_t i = 0; i < half; i++) {
        double ramp = ((double)i - low) / (high - low);
        ramp = ramp < 0.0 ? 0.0 : ramp > 1.0 ? 1.0 : ramp;
        freq[i] = freq[i] * (1.0 - ramp) + freq[i] / (double)rope->factor * ramp;
    }
}

void fm_rope_tables(const fm_rope *rope, const double *freq, int64_t pos0, int64_t n_tok,
                    float *cos_t, float *sin_t)
{
    const int64_t half = rope->n_rot / 2;
    const double factor = rope->attention_factor;
    for (int64_t t = 0; t < n_tok; t++)
        for (int64_t i = 0; i < half; i++) {
            const double angle = (double)(pos0 + t) * freq[i];
            cos_t[t * half + i] = (float)(cos(angle) * factor);
            sin_t[t * half + i] = (float)(sin(angle) * factor);
        }
}
