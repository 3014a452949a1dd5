/* Values of the tiny models: the integer generator, the rule that turns its words into a weight
 * or a quantized block, and the way from a GGUF row back to the Hugging Face row it holds.
 * Everything that decides a value is integer arithmetic, or double arithmetic made of single
 * correctly rounded operations, so that any other implementation gets the same bits. The one
 * exception is exp() in ssm_a, where libraries may differ in the last bit.
 */
#include "tiny_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GOLDEN 0x9E3779B97F4A7C15u

static const tiny_format formats[] = {
    {"F32", TINY_F32, 0, 0, 1, 4, 0},
    {"Q8_0", TINY_Q8_0, 8, 7, 32, 34, 0},
    {"Q4_K", TINY_Q4_K, 12, 15, 256, 144, 0},
    {"Q6_K", TINY_Q6_K, 14, 18, 256, 210, 0},
    {"MXFP4", TINY_MXFP4, 39, 38, 32, 17, 0},
    {"IQ4_XS", TINY_IQ, 23, 30, 256, 136, 1246.0},
    {"IQ3_S", TINY_IQ, 21, 26, 256, 110, 140.5},
    {"IQ2_XS", TINY_IQ, 17, 20, 256, 74, 56.0},
    {"IQ1_M", TINY_IQ1_M, 29, 31, 256, 56, 7.2},
    {"IQ4_NL", TINY_IQ, 20, 25, 32, 18, 67.5},
    {"IQ3_XXS", TINY_IQ, 18, 23, 256, 98, 142.0},
    {"IQ2_S", TINY_IQ, 22, 28, 256, 82, 56.25},
    {"IQ2_XXS", TINY_IQ, 16, 19, 256, 66, 53.5},
    {"IQ1_S", TINY_IQ, 19, 24, 256, 50, 7.2},
    {"IQ", TINY_IQ_MIX, 0, 30, 0, 0, 0},
    {"Q4_1", TINY_OFFSET, 3, 3, 32, 20, 4.61},
    {"Q5_0", TINY_IQ, 6, 8, 32, 22, 9.25},
    {"Q5_1", TINY_OFFSET, 7, 9, 32, 24, 9.23},
};
enum { FIRST_IQ = 5, N_IQ = 9 };

const tiny_format *tiny_format_find(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (strcmp(formats[i].name, name) == 0) return &formats[i];
    }
    return NULL;
}

const tiny_format *tiny_format_of(const tiny_format *wanted, const tiny_spec *spec, const char *hf)
{
    if (wanted->type != TINY_IQ_MIX) return wanted;
    int layer = 0;
    (void)sscanf(hf, "model.layers.%d.", &layer);
    const uint64_t i = spec->seed + 2 * (uint64_t)layer + (strstr(hf, "down_proj") != NULL) +
                       (strstr(hf, "mlp.experts.") == NULL);
    return &formats[FIRST_IQ + i % N_IQ];
}

const tiny_format *tiny_format_fit(const tiny_format *wanted, uint64_t n_col)
{
    if (n_col % (uint64_t)wanted->block_elems == 0) return wanted;
    return n_col % 32 == 0 ? &formats[TINY_Q8_0] : &formats[TINY_F32];
}

const tiny_format *tiny_trunk_format(const tiny_format *wanted)
{
    return wanted->type == TINY_MXFP4 ? &formats[TINY_Q8_0] : wanted;
}

/* FNV-1a of the name, mixed with the seed. */
uint64_t tiny_key(const char *name, uint64_t seed)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (const char *p = name; *p; p++) h = (h ^ (uint8_t)*p) * 0x100000001B3u;
    return h ^ (seed * GOLDEN);
}

/* Output i of splitmix64 started in state `key`. */
uint64_t tiny_word(uint64_t key, uint64_t i)
{
    uint64_t z = key + (i + 1) * GOLDEN;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

void tiny_token_ids(int32_t *ids, size_t n, const tiny_spec *spec)
{
    const uint64_t key = tiny_key("tokens", spec->seed);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)((tiny_word(key, i) >> 33) % (uint64_t)spec->n_vocab);
    }
}

/* A weight is base + scale * u with u in [-1, 1). A matrix has the scale that gives it the
 * standard deviation gain / sqrt(columns), or plain `gain` if the rule says so. */
typedef struct {
    const char *suffix;
    enum { VECTOR, MATRIX, TABLE } kind;
    double base;
    double value; /* VECTOR: scale; MATRIX: gain; TABLE: standard deviation */
} rule;

/* First match wins, so longer suffixes come before those they end in. */
static const rule rules[] = {
    {"embed_tokens.weight", TABLE, 0.0, 0.5},
    {"lm_head.weight", MATRIX, 0.0, 2.0},
    {"linear_attn.norm.weight", VECTOR, 1.0, 0.3},
    {"q_norm.weight", VECTOR, 0.5, 0.4}, /* zero-centred; see rule_of */
    {"k_norm.weight", VECTOR, 0.5, 0.4},
    {"norm.weight", VECTOR, 0.0, 0.3},
    {"pre_fc_norm_embedding.weight", VECTOR, 0.0, 0.3},
    {"pre_fc_norm_hidden.weight", VECTOR, 0.0, 0.3},
    {"linear_attn.A_log", VECTOR, -1.0, 2.0},
    {"linear_attn.dt_bias", VECTOR, -1.5, 2.5},
    {"linear_attn.conv1d.weight", VECTOR, 0.0, 0.9},
    {"self_attn.o_proj.weight", MATRIX, 0.0, 1.5},
    {"self_attn.sinks", VECTOR, 1.0, 2.0},
    {"k_norm.bias", VECTOR, 0.0, 0.4},
    {"_proj.bias", VECTOR, 0.0, 0.4},
    {"linear_attn.out_proj.weight", MATRIX, 0.0, 1.5},
    {"mlp.gate.weight", MATRIX, 0.0, 2.0},
    {"mlp.gate.e_score_correction_bias", VECTOR, 0.0, 0.2},
    {"mlp.router.weight", MATRIX, 0.0, 2.0},
    {"mlp.router.bias", VECTOR, 0.0, 1.0},
    {"mlp.experts.gate_up_proj_bias", VECTOR, 0.0, 1.0},
    {"mlp.experts.down_proj_bias", VECTOR, 0.0, 0.5},
    {"mlp.shared_expert_gate.weight", MATRIX, 0.0, 1.5},
    {"mlp.experts.gate_up_proj", MATRIX, 0.0, 1.25},
    {"mlp.experts.down_proj", MATRIX, 0.0, 2.0},
    {"mlp.shared_expert.down_proj.weight", MATRIX, 0.0, 2.0},
    {"", MATRIX, 0.0, 1.0},
};

static rule rule_of(const tiny_spec *spec, const char *hf)
{
    const size_t len = strlen(hf);
    size_t i = 0;
    for (;; i++) {
        const size_t n = strlen(rules[i].suffix);
        if (n <= len && strcmp(hf + len - n, rules[i].suffix) == 0) break;
    }
    rule r = rules[i];
    /* Plain norms have the same spread, around an effective 1 (or 1.5). */
    if (!tiny_is_hybrid(spec) && strstr(hf, "norm.weight")) r.base += 1.0;
    /* Large enough for the limits of the activation to matter. */
    if (spec->family == TINY_GPTOSS && strcmp(rules[i].suffix, "mlp.experts.gate_up_proj") == 0)
        r.value *= 3.0;
    return r;
}

static double std_of(const rule *r, uint64_t n_col)
{
    return r->kind == TABLE ? r->value : r->value / sqrt((double)n_col);
}

static float scale_of(const rule *r, uint64_t n_col)
{
    return (float)(r->kind == VECTOR ? r->value : std_of(r, n_col) * sqrt(3.0));
}

/* The product is exact in double, so that a fused multiply-add makes no difference. */
static float weight_at(double base, float scale, uint64_t key, uint64_t i)
{
    const double u = (double)((int32_t)(tiny_word(key, i) >> 48) - 32768) / 32768.0;
    return (float)(base + (double)scale * u);
}

/* f16 bits of a scale near `target`: one binade, ten random bits of mantissa. */
static uint16_t half_near(double target, uint16_t random)
{
    int e;
    const double f = frexp(target / 1.5, &e);
    if (f < 0.70710678) e--;
    const uint16_t mantissa = random & 1023;
    if (e >= -14) return (uint16_t)((e + 15) << 10 | mantissa);
    return (uint16_t)((1024 | mantissa) >> (-14 - e)); /* subnormal */
}

static void put_half(uint8_t *dst, uint16_t bits)
{
    dst[0] = (uint8_t)bits;
    dst[1] = (uint8_t)(bits >> 8);
}

static uint16_t get_half(const uint8_t *src)
{
    return (uint16_t)(src[0] | src[1] << 8);
}

/* The exponent of the power of two next below target. */
static int exponent_below(double target)
{
    int e;
    frexp(target, &e);
    return e - 1;
}

/* Random bytes are random codes in all formats; only the scales need a magnitude. The
 * divisors are the root mean square of the integer part of a value. */
static void fill_block(uint8_t *dst, const tiny_format *format, double std, uint64_t key,
                       uint64_t block)
{
    const uint64_t n_word = ((uint64_t)format->block_bytes + 7) / 8;
    for (int i = 0; i < format->block_bytes; i++) {
        const uint64_t w = tiny_word(key, block * n_word + (uint64_t)i / 8);
        dst[i] = (uint8_t)(w >> (8 * (i % 8)));
    }
    switch (format->type) {
    case TINY_F32:
    case TINY_IQ_MIX:
        break;
    case TINY_IQ:
        put_half(dst, half_near(std / format->rms, get_half(dst)));
        break;
    case TINY_OFFSET: { /* the least value is below zero by the mean of the codes */
        const double mean = format->block_bytes == 20 ? 7.5 : 15.5;
        const double d = std / format->rms;
        put_half(dst, half_near(d, get_half(dst)));
        put_half(dst + 2, half_near(mean * d, get_half(dst + 2)) | 0x8000);
        break;
    }
    case TINY_IQ1_M: { /* a nibble on top of each of the last four words */
        const uint16_t half = half_near(std / format->rms, get_half(dst + 48));
        for (int j = 0; j < 4; j++)
            dst[49 + 2 * j] = (uint8_t)((dst[49 + 2 * j] & 15) | (half >> (4 * j) & 15) << 4);
        break;
    }
    case TINY_Q8_0:
        put_half(dst, half_near(std / 73.6, get_half(dst)));
        for (int i = 2; i < 34; i++) {
            if (dst[i] == 0x80) dst[i] = 0x81; /* no quantizer makes -128 */
        }
        break;
    case TINY_Q4_K: /* 7.5 * d makes the mean of d*sc*q - dmin*mn zero */
        put_half(dst, half_near(std / 258.0, get_half(dst)));
        put_half(dst + 2, half_near(7.5 * std / 258.0, get_half(dst + 2)));
        break;
    case TINY_MXFP4: /* the scale below or above */
        dst[0] = (uint8_t)(127 + exponent_below(std / 2.926) + (dst[0] & 1));
        break;
    case TINY_Q6_K: { /* d of either sign, as quantizers make it */
        const uint16_t random = get_half(dst + 208);
        put_half(dst + 208, half_near(std / 1367.0, random) | (random & 0x8000));
        break;
    }
    }
}

/* Tiled value head t serves key head t % n_key; grouped head g serves g / (n_value / n_key). */
static uint64_t grouped_of_tiled(const tiny_spec *spec, uint64_t t)
{
    const uint64_t n_key = (uint64_t)spec->n_key_head;
    const uint64_t ratio = (uint64_t)spec->n_value_head / n_key;
    return (t % n_key) * ratio + t / n_key;
}

static uint64_t tiled_item(const tiny_spec *spec, uint64_t i, uint64_t width)
{
    return grouped_of_tiled(spec, i / width) * width + i % width;
}

static uint64_t source_row(const tiny_spec *spec, const tiny_tensor *t, uint64_t r)
{
    if (r - t->swap_a < t->swap_len) {
        r = r - t->swap_a + t->swap_b;
    } else if (r - t->swap_b < t->swap_len) {
        r = r - t->swap_b + t->swap_a;
    }
    const uint64_t ff = (uint64_t)spec->expert_ff;
    const uint64_t dim = (uint64_t)spec->state_dim;
    const uint64_t n_key_row = (uint64_t)spec->n_key_head * dim;
    const uint64_t ratio = spec->n_key_head ? (uint64_t)(spec->n_value_head / spec->n_key_head) : 0;
    /* rows of one key head in in_proj_qkvz: q, k, then its value heads, then their z */
    const uint64_t group = (2 + 2 * ratio) * dim;
    switch (t->rows) {
    case TINY_ROW_SAME:
        break;
    case TINY_ROW_GATE:
        return r / ff * 2 * ff + r % ff;
    case TINY_ROW_UP:
        return r / ff * 2 * ff + ff + r % ff;
    case TINY_ROW_QKV_TILED:
        if (r < 2 * n_key_row) return r;
        return 2 * n_key_row + tiled_item(spec, r - 2 * n_key_row, dim);
    case TINY_ROW_HEAD_TILED:
        return tiled_item(spec, r, dim);
    case TINY_ROW_ONE_TILED:
        return grouped_of_tiled(spec, r);
    case TINY_ROW_QKV_SPLIT:
        if (r < n_key_row) return r / dim * group + r % dim;
        r -= n_key_row;
        if (r < n_key_row) return r / dim * group + dim + r % dim;
        r -= n_key_row;
        return r / (ratio * dim) * group + 2 * dim + r % (ratio * dim);
    case TINY_ROW_EVEN:
        return r / ff * 2 * ff + 2 * (r % ff);
    case TINY_ROW_ODD:
        return r / ff * 2 * ff + 2 * (r % ff) + 1;
    case TINY_ROW_Z_SPLIT:
        return r / (ratio * dim) * group + (2 + ratio) * dim + r % (ratio * dim);
    }
    return r;
}

static uint64_t source_col(const tiny_spec *spec, const tiny_tensor *t, uint64_t c)
{
    switch (t->cols) {
    case TINY_COL_SAME:
        break;
    case TINY_COL_HEAD_TILED:
        return tiled_item(spec, c, (uint64_t)spec->state_dim);
    case TINY_COL_REVERSED:
        return t->dims[0] - 1 - c;
    case TINY_COL_EVEN:
        return 2 * c;
    case TINY_COL_ODD:
        return 2 * c + 1;
    }
    return c;
}

/* Which rows of a parameter are made small, and how small, in a spec with a quiet head: by 2^-11 those of q and k of key
 * head 0, in deepseek2 by 2^-5 those of both latents. */
static tiny_quiet quiet_of(const tiny_spec *spec, const char *hf)
{
    tiny_quiet q = {.factor = 1.0f};
    if (!spec->has_quiet_head) return q;
    if (spec->family == TINY_DEEPSEEK2) {
        q.factor = 1.0f / 32;
        if (strstr(hf, "kv_a_proj")) {
            q.n = (uint64_t)spec->kv_latent;
        } else if (strstr(hf, "q_a_proj")) {
            q.n = UINT64_MAX;
        }
        return q;
    }
    const uint64_t dim = (uint64_t)spec->state_dim;
    q.factor = 1.0f / 2048;
    if (strstr(hf, "in_proj_qkvz")) {
        q.n = 2 * dim;
    } else if (strstr(hf, "in_proj_qkv")) {
        q.n = q.n_second = dim;
        q.second = (uint64_t)spec->n_key_head * dim;
    }
    return q;
}

static float row_factor(const tiny_quiet *q, uint64_t hf_row)
{
    const bool is_quiet = hf_row < q->n || hf_row - q->second < q->n_second;
    return is_quiet ? q->factor : 1.0f;
}

static float apply_effect(tiny_effect effect, float w)
{
    switch (effect) {
    case TINY_KEEP:
        break;
    case TINY_ONE_PLUS:
        return 1.0f + w;
    case TINY_NEG_EXP:
        return (float)-exp((double)w);
    case TINY_ZERO:
        return 0.0f;
    case TINY_STRONGER:
        return (float)(-1.5 * exp((double)w));
    case TINY_PLUS_HALF:
        return w + 0.5f;
    }
    return w;
}

static void put_float(uint8_t *dst, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    for (int i = 0; i < 4; i++) dst[i] = (uint8_t)(bits >> (8 * i));
}

void tiny_fill_row(uint8_t *dst, const tiny_plan *plan, const tiny_tensor *t, uint64_t row)
{
    const tiny_spec *spec = plan->spec;
    const uint64_t key = tiny_key(t->hf, spec->seed);
    const rule r = rule_of(spec, t->hf);
    const bool is_vector = t->n_dims == 1;
    const uint64_t n_col = t->dims[0];
    const uint64_t hf_row = is_vector ? 0 : source_row(spec, t, row);

    if (t->format->type != TINY_F32) {
        const uint64_t elems = (uint64_t)t->format->block_elems;
        const uint64_t n_block = n_col / elems;
        for (uint64_t b = 0; b < n_block; b++) {
            const uint64_t hf_block = source_col(spec, t, b * elems) / elems;
            fill_block(dst + b * (uint64_t)t->format->block_bytes, t->format, std_of(&r, n_col),
                       key, hf_row * n_block + hf_block);
        }
        return;
    }
    const float scale = scale_of(&r, n_col);
    const tiny_quiet quiet = quiet_of(spec, t->hf);
    const float factor = row_factor(&quiet, hf_row);
    const uint64_t hf_n_col =
        t->cols == TINY_COL_EVEN || t->cols == TINY_COL_ODD ? 2 * n_col : n_col;
    for (uint64_t c = 0; c < n_col; c++) {
        /* A vector has one element per GGUF "row" of its map, and no columns to permute. */
        const uint64_t i =
            is_vector ? source_row(spec, t, c) : hf_row * hf_n_col + source_col(spec, t, c);
        const float w = weight_at(r.base, scale, key, i) * factor;
        put_float(dst + 4 * c, apply_effect(t->effect, w));
    }
}

tiny_values tiny_values_of(const tiny_spec *spec, const char *hf, uint64_t n_col)
{
    const rule r = rule_of(spec, hf);
    return (tiny_values){.key = tiny_key(hf, spec->seed),
                         .n_col = n_col,
                         .base = r.base,
                         .scale = scale_of(&r, n_col),
                         .quiet = quiet_of(spec, hf)};
}

float tiny_value(const tiny_values *v, uint64_t i)
{
    return weight_at(v->base, v->scale, v->key, i) * row_factor(&v->quiet, i / v->n_col);
}

double tiny_deviation(const tiny_spec *spec, const char *hf, uint64_t n_col)
{
    const rule r = rule_of(spec, hf);
    return std_of(&r, n_col);
}
