/* The values of a directory's tensors: plain ones from the generator, coded ones as tests/vectors/directory/README.md
 * defines them. */
#include "support/directory_internal.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

stored_tensor *add_tensor(directory_writer *w, const char *name, const char *dtype, size_t width,
                          uint64_t d0, uint64_t d1, uint64_t d2)
{
    assert_true(w->n < DIRECTORY_TENSORS);
    stored_tensor *s = &w->list[w->n++];
    *s = (stored_tensor){.dtype = dtype,
                         .n_dim = d2   ? 3
                                  : d1 ? 2
                                       : 1,
                         .dim = {d0, d1, d2},
                         .bytes = width};
    for (int i = 0; i < s->n_dim; i++) s->bytes *= s->dim[i];
    snprintf(s->name, sizeof s->name, "%s", name);
    s->data = calloc(1, s->bytes + 8);
    assert_non_null(s->data);
    return s;
}

static void put_f32(stored_tensor *s, uint64_t i, float v)
{
    const uint32_t u = bits_of(v);
    memcpy(s->data + 4 * i, &u, 4);
}

static void put_bf16(stored_tensor *s, uint64_t i, float v)
{
    const uint32_t u = bits_of(v) >> 16;
    memcpy(s->data + 2 * i, &u, 2);
}

static stored_tensor *add_floats(directory_writer *w, const char *name, uint64_t d0, uint64_t d1,
                                 uint64_t d2)
{
    return w->quantized ? add_tensor(w, name, "BF16", 2, d0, d1, d2)
                        : add_tensor(w, name, "F32", 4, d0, d1, d2);
}

void put_value(const directory_writer *w, stored_tensor *s, uint64_t i, float v)
{
    if (w->quantized) {
        put_bf16(s, i, v);
    } else {
        put_f32(s, i, v);
    }
}

void stored_name(const directory_writer *w, char out[DIRECTORY_NAME], const char *hf)
{
    if (strncmp(hf, "model.", 6) == 0) {
        snprintf(out, DIRECTORY_NAME, "%s%s", w->prefix, hf + 6);
    } else { /* lm_head */
        const bool is_inside = strncmp(w->prefix, "language_model.", 15) == 0;
        snprintf(out, DIRECTORY_NAME, "%s%s", is_inside ? "language_model." : "", hf);
    }
}

/* Of matrices and of the vectors that are no norms. */
static bool is_shifted_norm(const directory_writer *w, const char *hf)
{
    return w->mlx && tiny_is_hybrid(w->spec) && strstr(hf, "norm.weight") &&
           !strstr(hf, "linear_attn.norm");
}

void add_plain(directory_writer *w, const char *hf, uint64_t d0, uint64_t d1, uint64_t d2)
{
    char name[DIRECTORY_NAME];
    stored_name(w, name, hf);
    const uint64_t n_col = d2 ? d2 : d1 ? d1 : d0, n = d0 * (d1 ? d1 : 1) * (d2 ? d2 : 1);
    const bool is_conv = w->mlx && strstr(hf, "conv1d");
    stored_tensor *s = add_floats(w, name, d0, is_conv ? d2 : d1, is_conv ? d1 : d2);
    const float one = is_shifted_norm(w, hf) ? 1.0f : 0.0f;
    const tiny_values v = tiny_values_of(w->spec, hf, n_col);
    for (uint64_t i = 0; i < n; i++) put_value(w, s, i, one + tiny_value(&v, i));
}

void add_f32(directory_writer *w, const char *hf, uint64_t n)
{
    char name[DIRECTORY_NAME];
    stored_name(w, name, hf);
    stored_tensor *s = add_tensor(w, name, "F32", 4, n, 0, 0);
    const tiny_values v = tiny_values_of(w->spec, hf, n);
    for (uint64_t i = 0; i < n; i++) put_f32(s, i, tiny_value(&v, i));
}

void add_rows(directory_writer *w, const char *name, const char *hf, uint64_t first, uint64_t n,
              const row_part *part)
{
    const uint64_t rows = part->rows, cols = part->cols;
    stored_tensor *s = n ? add_floats(w, name, n, rows, cols) : add_floats(w, name, rows, cols, 0);
    const tiny_values v = tiny_values_of(w->spec, hf, cols);
    for (uint64_t m = 0; m < (n ? n : 1); m++)
        for (uint64_t r = 0; r < rows; r++) {
            const uint64_t from = (first + m) * part->all_rows + part->row0 + r * part->step;
            for (uint64_t c = 0; c < cols; c++)
                put_value(w, s, (m * rows + r) * cols + c, tiny_value(&v, from * cols + c));
        }
}

void add_by_columns(directory_writer *w, const char *hf, uint64_t n, uint64_t rows, uint64_t cols)
{
    char name[DIRECTORY_NAME];
    stored_name(w, name, hf);
    stored_tensor *s = add_floats(w, name, n, cols, rows);
    const tiny_values v = tiny_values_of(w->spec, hf, cols);
    for (uint64_t i = 0; i < n * rows * cols; i++) {
        const uint64_t m = i / (rows * cols), r = i / cols % rows, c = i % cols;
        put_value(w, s, (m * cols + c) * rows + r, tiny_value(&v, i));
    }
}

void add_table(directory_writer *w, const char *name, const char *hf, uint64_t n, uint64_t column0,
               uint64_t step, uint64_t all)
{
    const uint64_t cols = all / step;
    stored_tensor *s = add_floats(w, name, n, cols, 0);
    const tiny_values v = tiny_values_of(w->spec, hf, all);
    for (uint64_t r = 0; r < n; r++)
        for (uint64_t c = 0; c < cols; c++)
            put_value(w, s, r * cols + c, tiny_value(&v, r * all + column0 + c * step));
}

/* ---- coded matrices ---------------------------------------------------------------------- */

static void random_bytes(const directory_writer *w, stored_tensor *s)
{
    const uint64_t key = tiny_key(s->name, w->spec->seed);
    for (size_t i = 0; i < s->bytes; i += 8) {
        const uint64_t word = tiny_word(key, i / 8);
        for (size_t k = 0; k < 8 && i + k < s->bytes; k++)
            s->data[i + k] = (uint8_t)(word >> (8 * k));
    }
}

/* Between 3/4 and 5/4 of `base`, and the generator's word. */
static double spread(uint64_t key, uint64_t i, double base, uint64_t *word)
{
    *word = tiny_word(key, i);
    return base * (1.0 + 0.25 * ((double)((int32_t)(*word >> 48) - 32768) / 32768.0));
}

/* n_mat matrices of r rows of c elements, or one. */
typedef struct {
    directory_writer *w;
    const char *module;
    uint64_t n_mat, rows, cols, count; /* count: rows of all matrices */
    double std;
} matrices;

static stored_tensor *add_part(const matrices *m, const char *suffix, const char *dtype,
                               size_t width, uint64_t rows, uint64_t cols)
{
    char name[DIRECTORY_NAME];
    snprintf(name, sizeof name, "%.120s%s", m->module, suffix);
    return m->n_mat ? add_tensor(m->w, name, dtype, width, m->n_mat, rows, cols)
                    : add_tensor(m->w, name, dtype, width, rows, cols, 0);
}

static void add_mlx(const matrices *m, uint64_t bits)
{
    const uint64_t groups = m->cols / group_of(m->w);
    random_bytes(m->w, add_part(m, ".weight", "U32", 4, m->rows, m->cols * bits / 32));
    stored_tensor *s = add_part(m, ".scales", "BF16", 2, m->rows, groups);
    stored_tensor *b = add_part(m, ".biases", "BF16", 2, m->rows, groups);
    const uint64_t key = tiny_key(s->name, m->w->spec->seed);
    const double top = (double)((1 << bits) - 1);
    const double rms = sqrt((top + 1) * (top + 1) - 1) / sqrt(12.0);
    for (uint64_t i = 0; i < m->count * groups; i++) {
        uint64_t word;
        const double d = spread(key, i, m->std / rms, &word);
        const float scale = float_of(bits_of((float)(word & 1 ? -d : d)) & 0xffff0000u);
        put_bf16(s, i, scale);
        put_bf16(b, i, (float)(-top / 2 * (double)scale));
    }
}

static void add_int4(const matrices *m)
{
    random_bytes(m->w, add_part(m, ".weight_packed", "I32", 4, m->rows, m->cols / 8));
    stored_tensor *s = add_part(m, ".weight_scale", "BF16", 2, m->rows, m->cols / 32);
    const uint64_t key = tiny_key(s->name, m->w->spec->seed);
    uint64_t word;
    for (uint64_t i = 0; i < m->count * (m->cols / 32); i++)
        put_bf16(s, i, (float)spread(key, i, m->std / 4.61, &word));
    add_part(m, ".weight_shape", "I32", 4, 1, 2);
}

/* MLX's words, or gpt-oss's blocks of 16 bytes, which are a dimension more. */
static void add_mxfp4(const matrices *m, bool as_blocks)
{
    stored_tensor *q = as_blocks ? add_part(m, "_blocks", "U8", 1, m->rows, m->cols / 2)
                                 : add_part(m, ".weight", "U32", 4, m->rows, m->cols / 8);
    random_bytes(m->w, q);
    if (as_blocks) {
        q->dim[q->n_dim - 1] = m->cols / 32;
        q->dim[q->n_dim++] = 16;
    }
    stored_tensor *s =
        add_part(m, as_blocks ? "_scales" : ".scales", "U8", 1, m->rows, m->cols / 32);
    const uint64_t key = tiny_key(s->name, m->w->spec->seed);
    int e;
    frexp(m->std / 2.93, &e);
    for (uint64_t i = 0; i < s->bytes; i++)
        s->data[i] = (uint8_t)(126 + e + (int)(tiny_word(key, i) & 1));
}

static void add_fp8(const matrices *m, bool row_scales)
{
    stored_tensor *q = add_part(m, ".weight", "F8_E4M3", 1, m->rows, m->cols);
    random_bytes(m->w, q);
    for (size_t i = 0; i < q->bytes; i++)
        if ((q->data[i] & 0x7f) == 0x7f) q->data[i]--;
    const uint64_t n = m->n_mat ? m->n_mat : 1;
    const uint64_t sr = row_scales ? m->rows : (m->rows + 127) / 128,
                   sc = row_scales ? 1 : m->cols / 128;
    stored_tensor *s = row_scales ? add_part(m, ".weight_scale", "BF16", 2, sr, sc)
                                  : add_part(m, ".weight_scale_inv", "F32", 4, sr, sc);
    const uint64_t key = tiny_key(s->name, m->w->spec->seed);
    uint64_t word;
    for (uint64_t i = 0; i < n * sr * sc; i++) {
        const float d = (float)spread(key, i, m->std / 124.0, &word);
        if (row_scales) {
            put_bf16(s, i, d);
        } else {
            put_f32(s, i, d);
        }
    }
}

uint64_t group_of(const directory_writer *w)
{
    return w->spec->family == TINY_GPTOSS ? 32 : 64;
}

const char *coding_of(const directory_writer *w, const char *hf, uint64_t cols)
{
    const char *f = w->opt->format;
    const bool is_expert = strstr(hf, ".experts.") != NULL;
    if (!w->quantized) return NULL;
    if (strcmp(f, "int4") == 0 || strcmp(f, "blocks") == 0)
        return is_expert && cols % 32 == 0 ? f : NULL;
    if (strncmp(f, "fp8", 3) == 0) {
        const bool is_linear = (strstr(hf, "proj") || strstr(hf, "indexer.w")) &&
                               !strstr(hf, "in_proj_a") && !strstr(hf, "in_proj_b");
        return is_linear && cols % (f[3] ? 32 : 128) == 0 ? f : NULL;
    }
    /* mlx-lm has these routers as they are. */
    if (w->mlx && (w->spec->family == TINY_GLM4MOE || tiny_is_latent(w->spec)) &&
        strstr(hf, "mlp.gate.weight"))
        return NULL;
    if (strcmp(f, "mxfp4") == 0 && (w->spec->family != TINY_GPTOSS || is_expert))
        return cols % 32 == 0 ? f : NULL;
    if (cols % group_of(w) != 0) return NULL;
    return strcmp(f, "mxfp4") == 0 ? "mlx8" : f;
}

void add_coded(directory_writer *w, const char *module, const char *hf, uint64_t n_mat,
               uint64_t rows, uint64_t cols)
{
    const char *f = coding_of(w, hf, cols);
    const matrices m = {w,
                        module,
                        n_mat,
                        rows,
                        cols,
                        (n_mat ? n_mat : 1) * rows,
                        tiny_deviation(w->spec, hf, cols)};
    if (strncmp(f, "mlx", 3) == 0)
        add_mlx(&m, (uint64_t)(f[3] - '0'));
    else if (strcmp(f, "int4") == 0)
        add_int4(&m);
    else if (strncmp(f, "fp8", 3) == 0)
        add_fp8(&m, strcmp(f, "fp8-row") == 0);
    else
        add_mxfp4(&m, strcmp(f, "blocks") == 0);
}

void add_matrix(directory_writer *w, const char *hf, uint64_t rows, uint64_t cols)
{
    char module[DIRECTORY_NAME];
    if (!coding_of(w, hf, cols)) {
        add_plain(w, hf, rows, cols, 0);
        return;
    }
    stored_name(w, module, hf);
    module[strlen(module) - strlen(".weight")] = 0;
    add_coded(w, module, hf, 0, rows, cols);
}
