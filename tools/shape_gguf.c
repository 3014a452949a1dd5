/* shape-gguf: writes a GGUF file of a known model's true shape with random weights.
 *
 * For measuring: metadata, tensor names, shapes and block formats are those of the real model, so an
 * engine does the same arithmetic and the same I/O. Weights are scaled near 1/sqrt(inputs), so that
 * activations keep unit size and every layer matters.
 *
 * Routing. The rows of a router get norms exp(S * N(0,1)) (--router-skew S). Simulated with 256 experts of
 * which 8 are chosen, the experts that cover 80 % of the choices, and the share of a token's experts
 * that the token before it chose too:
 *     S        0     0.25   0.5    0.75   1.0
 *     cover80  198   117    64     46     36      of 256; published for the 35B model: 62
 *     adjacent 3 %   6 %    11 %   15 %   18 %    published: 24 to 38 %, depending on the model
 * So S = 0.5 has the published popularity. The missing reuse between neighbours comes from topics
 * (--topics R): embedding rows of one topic (256 consecutive ids) share a direction that carries the
 * part R of their power, and the head's rows share it too, so a text stays within a topic for a while
 * and so do its experts.
 *
 * --share N writes the experts of N layers only; the others use the same bytes (same offset), which
 * makes a file of hundreds of GB fit a small disk. The engine's cache keys on layer and expert, so
 * it reads and keeps them apart. Other engines refuse such files.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/random.h"
#include "format/gguf_write.h"
#include "quant/quant.h"
#include "shape/random_block.h"

enum {
    EXPERTS_STEP = 32, /* whole groups, whole blocks of the routers' rows */
    EXPERTS_MAX = 4096,
};

typedef struct {
    const char *name, *arch;
    int n_layer, n_embd, n_vocab, n_ctx, n_head, n_head_kv, d_head, n_rot;
    double rope_base;
    int n_expert, n_used, n_ff, n_shared;    /* n_shared 0: no shared expert */
    int interval, n_k, n_v, d_state, n_conv; /* interval 1: attention everywhere */
} shape;

/* What the shapes of deepseek2 have besides; their d_head is what is cached of a position. */
typedef struct {
    const char *shape;
    int q_latent, kv_latent, d_nope, d_value;
    int n_dense, ff_dense; /* first layers without experts */
    int n_group, n_group_used;
    double weights_scale, yarn_factor, beta_fast, eps;
    const char *pre; /* tokenizer */
} latent_shape;

/* What the shapes of gpt-oss and glm4moe have besides: attention with biases. */
typedef struct {
    const char *shape;
    bool is_gptoss; /* biases everywhere, sinks, windows; else sigmoid routing */
    bool has_qk_norm;
    int n_dense, ff_dense; /* first layers without experts */
    double weights_scale;
    const char *pre; /* tokenizer */
} biased_shape;

// clang-format off
static const shape shapes[] = {
    {"qwen3.5-397b-a17b", "qwen35moe", 60, 4096, 248320, 262144, 32, 2, 256, 64, 1e7, 512, 10, 1024, 1024, 4, 16, 64, 128, 4},
    {"qwen3.5-122b-a10b", "qwen35moe", 48, 3072, 248320, 262144, 32, 2, 256, 64, 1e7, 256, 8, 1024, 1024, 4, 16, 64, 128, 4},
    {"qwen3.5-35b-a3b", "qwen35moe", 40, 2048, 248320, 262144, 16, 2, 256, 64, 1e7, 256, 8, 512, 512, 4, 16, 32, 128, 4},
    {"qwen3-next-80b-a3b", "qwen3next", 48, 2048, 151936, 262144, 16, 2, 256, 64, 1e7, 512, 10, 512, 512, 4, 16, 32, 128, 4},
    {"qwen3-30b-a3b", "qwen3moe", 48, 2048, 151936, 40960, 32, 4, 128, 128, 1e6, 128, 8, 768, 0, 1, 0, 0, 0, 0},
    {"qwen3-235b-a22b", "qwen3moe", 94, 4096, 151936, 40960, 64, 4, 128, 128, 1e6, 128, 8, 1536, 0, 1, 0, 0, 0, 0},
    {"deepseek-v3", "deepseek2", 61, 7168, 129280, 163840, 128, 1, 576, 64, 1e4, 256, 8, 2048, 2048, 1, 0, 0, 0, 0},
    {"kimi-k2.5", "deepseek2", 61, 7168, 163840, 262144, 64, 1, 576, 64, 5e4, 384, 8, 2048, 2048, 1, 0, 0, 0, 0},
    {"gpt-oss-120b", "gpt-oss", 36, 2880, 201088, 131072, 64, 8, 64, 64, 1.5e5, 128, 4, 2880, 0, 1, 0, 0, 0, 0},
    {"gpt-oss-20b", "gpt-oss", 24, 2880, 201088, 131072, 64, 8, 64, 64, 1.5e5, 32, 4, 2880, 0, 1, 0, 0, 0, 0},
    {"glm-4.6", "glm4moe", 92, 5120, 151552, 202752, 96, 8, 128, 64, 1e6, 160, 8, 1536, 1536, 1, 0, 0, 0, 0},
    {"glm-4.5-air", "glm4moe", 46, 4096, 151552, 131072, 96, 8, 128, 64, 1e6, 128, 8, 1408, 1408, 1, 0, 0, 0, 0},
    {"small", "qwen35moe", 8, 512, 8192, 32768, 4, 2, 128, 32, 1e7, 64, 6, 256, 256, 4, 4, 8, 64, 4},
};
static const latent_shape latents[] = {
    {"deepseek-v3", 1536, 512, 128, 128, 3, 18432, 8, 4, 2.5, 40, 32, 1e-6, "deepseek-v3"},
    {"kimi-k2.5", 1536, 512, 128, 128, 1, 18432, 1, 1, 2.827, 64, 32, 1e-5, "kimi-k2"},
};
static const biased_shape biased_shapes[] = {
    {"gpt-oss-120b", true, false, 0, 0, 1, "gpt-4o"},
    {"gpt-oss-20b", true, false, 0, 0, 1, "gpt-4o"},
    {"glm-4.6", false, true, 3, 12288, 2.5, "glm4"},
    {"glm-4.5-air", false, false, 1, 10944, 1, "glm4"},
};
// clang-format on
enum { N_BIASED = sizeof biased_shapes / sizeof biased_shapes[0] };
enum { N_LATENT = sizeof latents / sizeof latents[0] };
enum { N_SHAPE = sizeof shapes / sizeof shapes[0] };

enum { TOPIC_IDS = 256, N_SPECIAL = 3, POOL_BYTES = 48 << 20, MAX_TENSORS = 4096, MAX_POOLS = 12 };

typedef enum {
    FILL_WEIGHT,
    FILL_NORM,
    FILL_ROUTER,
    FILL_CONV,
    FILL_DECAY,
    FILL_DT,
    FILL_TOPIC
} fill;

typedef struct {
    char name[64];
    const fm_type_traits *type;
    int n_dim;
    int64_t dim[3];
    fill how;
    double std;
    int same_as;
    uint64_t bytes;
} tensor;

typedef struct {
    const shape *s;
    const latent_shape *lat;    /* or NULL */
    const biased_shape *biased; /* or NULL */
    int n_layer;
    int n_dense;    /* first ones without experts */
    bool has_draft; /* one layer more, which drafts */
    const fm_type_traits *expert, *down, *dense, *embd, *f32;
    double skew, topics;
    int share;
    uint64_t seed;
    tensor t[MAX_TENSORS];
    int n;
    unsigned char *pool[MAX_POOLS];
    struct {
        const fm_type_traits *type;
        double std;
        size_t bytes;
    } pool_of[MAX_POOLS];
    int n_pool;
    uint64_t rng;
} job;

/* ---- tensor list ------------------------------------------------------------------------- */

static void add(job *j, const char *name, int layer, const fm_type_traits *type, int64_t d0,
                int64_t d1, int64_t d2, fill how, double std)
{
    if (j->n == MAX_TENSORS) {
        fprintf(stderr, "shape-gguf: more than %d tensors\n", MAX_TENSORS);
        exit(1);
    }
    tensor *t = &j->t[j->n++];
    memset(t, 0, sizeof *t);
    if (layer < 0) {
        snprintf(t->name, sizeof t->name, "%s", name);
    } else {
        snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, name);
    }
    /* A row that does not fit the blocks falls back to a format that it fits. */
    if (d0 % type->block_elems) type = fm_type_get(d0 % 32 ? FM_TYPE_F32 : FM_TYPE_Q8_0);
    t->type = type;
    t->n_dim = d2 > 0 ? 3 : d1 > 0 ? 2 : 1;
    t->dim[0] = d0;
    t->dim[1] = d1 > 0 ? d1 : 1;
    t->dim[2] = d2 > 0 ? d2 : 1;
    t->how = how;
    t->std = std > 0 ? std : 1.0 / sqrt((double)d0);
    t->same_as = -1;
    t->bytes = fm_type_row_bytes(type, d0) * (uint64_t)(t->dim[1] * t->dim[2]);
}

static void add_expert(job *j, const char *name, int layer, const fm_type_traits *type, int64_t d0,
                       int64_t d1)
{
    add(j, name, layer, type, d0, d1, j->s->n_expert, FILL_WEIGHT, 0);
    const int first = j->n_dense, number = layer - first;
    if (!j->share || number < j->share) return;
    char like[64];
    snprintf(like, sizeof like, "blk.%d.%s", first + number % j->share, name);
    for (int i = 0; i < j->n; i++)
        if (strcmp(j->t[i].name, like) == 0) j->t[j->n - 1].same_as = i;
}

static void add_experts(job *j, int i)
{
    const shape *s = j->s;
    add(j, "ffn_gate_inp.weight", i, j->f32, s->n_embd, s->n_expert, 0, FILL_ROUTER,
        1.5 / sqrt((double)s->n_embd));
    add_expert(j, "ffn_gate_exps.weight", i, j->expert, s->n_embd, s->n_ff);
    add_expert(j, "ffn_up_exps.weight", i, j->expert, s->n_embd, s->n_ff);
    add_expert(j, "ffn_down_exps.weight", i, j->down, s->n_ff, s->n_embd);
}

/* Experts chosen by sigmoid and bias, and a shared one, or the block of a dense layer. */
static void add_sigmoid_experts(job *j, int i, int64_t ff_dense)
{
    const shape *s = j->s;
    const int64_t H = s->n_embd;
    const bool dense = i < j->n_dense;
    if (!dense) {
        add_experts(j, i);
        add(j, "exp_probs_b.bias", i, j->f32, s->n_expert, 0, 0, FILL_WEIGHT, 0.02);
    }
    const int64_t ff = dense ? ff_dense : s->n_shared;
    add(j, dense ? "ffn_gate.weight" : "ffn_gate_shexp.weight", i, j->dense, H, ff, 0, FILL_WEIGHT,
        0);
    add(j, dense ? "ffn_up.weight" : "ffn_up_shexp.weight", i, j->dense, H, ff, 0, FILL_WEIGHT, 0);
    add(j, dense ? "ffn_down.weight" : "ffn_down_shexp.weight", i, j->dense, ff, H, 0, FILL_WEIGHT,
        0);
}

static void add_latent_layer(job *j, int i)
{
    const shape *s = j->s;
    const latent_shape *lat = j->lat;
    const int64_t H = s->n_embd, n = s->n_head;
    add(j, "attn_norm.weight", i, j->f32, H, 0, 0, FILL_NORM, 0);
    add(j, "attn_q_a.weight", i, j->dense, H, lat->q_latent, 0, FILL_WEIGHT, 0);
    add(j, "attn_q_a_norm.weight", i, j->f32, lat->q_latent, 0, 0, FILL_NORM, 0);
    add(j, "attn_q_b.weight", i, j->dense, lat->q_latent, n * (lat->d_nope + s->n_rot), 0,
        FILL_WEIGHT, 0);
    add(j, "attn_kv_a_mqa.weight", i, j->dense, H, lat->kv_latent + s->n_rot, 0, FILL_WEIGHT, 0);
    add(j, "attn_kv_a_norm.weight", i, j->f32, lat->kv_latent, 0, 0, FILL_NORM, 0);
    add(j, "attn_k_b.weight", i, j->dense, lat->d_nope, lat->kv_latent, n, FILL_WEIGHT,
        1.0 / sqrt((double)lat->kv_latent));
    add(j, "attn_v_b.weight", i, j->dense, lat->kv_latent, lat->d_value, n, FILL_WEIGHT, 0);
    add(j, "attn_output.weight", i, j->dense, n * lat->d_value, H, 0, FILL_WEIGHT, 0);
    add(j, "ffn_norm.weight", i, j->f32, H, 0, 0, FILL_NORM, 0);
    add_sigmoid_experts(j, i, lat->ff_dense);
}

static void add_biased_layer(job *j, int i)
{
    const shape *s = j->s;
    const biased_shape *bi = j->biased;
    const int64_t H = s->n_embd, q = (int64_t)s->n_head * s->d_head,
                  kv = (int64_t)s->n_head_kv * s->d_head;
    const double std = 0.1; /* of biases */
    add(j, "attn_norm.weight", i, j->f32, H, 0, 0, FILL_NORM, 0);
    add(j, "attn_q.weight", i, j->dense, H, q, 0, FILL_WEIGHT, 0);
    add(j, "attn_q.bias", i, j->f32, q, 0, 0, FILL_WEIGHT, std);
    add(j, "attn_k.weight", i, j->dense, H, kv, 0, FILL_WEIGHT, 0);
    add(j, "attn_k.bias", i, j->f32, kv, 0, 0, FILL_WEIGHT, std);
    add(j, "attn_v.weight", i, j->dense, H, kv, 0, FILL_WEIGHT, 0);
    add(j, "attn_v.bias", i, j->f32, kv, 0, 0, FILL_WEIGHT, std);
    if (bi->has_qk_norm) {
        add(j, "attn_q_norm.weight", i, j->f32, s->d_head, 0, 0, FILL_NORM, 0);
        add(j, "attn_k_norm.weight", i, j->f32, s->d_head, 0, 0, FILL_NORM, 0);
    }
    add(j, "attn_output.weight", i, j->dense, q, H, 0, FILL_WEIGHT, 0);
    add(j, "post_attention_norm.weight", i, j->f32, H, 0, 0, FILL_NORM, 0);
    if (!bi->is_gptoss) {
        add_sigmoid_experts(j, i, bi->ff_dense);
        return;
    }
    add(j, "attn_output.bias", i, j->f32, H, 0, 0, FILL_WEIGHT, std);
    add(j, "attn_sinks.weight", i, j->f32, s->n_head, 0, 0, FILL_WEIGHT, 1);
    add_experts(j, i);
    add(j, "ffn_gate_inp.bias", i, j->f32, s->n_expert, 0, 0, FILL_WEIGHT, 0.02);
    add(j, "ffn_gate_exps.bias", i, j->f32, s->n_ff, s->n_expert, 0, FILL_WEIGHT, std);
    add(j, "ffn_up_exps.bias", i, j->f32, s->n_ff, s->n_expert, 0, FILL_WEIGHT, std);
    add(j, "ffn_down_exps.bias", i, j->f32, H, s->n_expert, 0, FILL_WEIGHT, std);
}

/* Layers from n_layer on are draft layers, which have full attention. */
static void add_layer(job *j, int i)
{
    const shape *s = j->s;
    const int64_t H = s->n_embd, q = (int64_t)s->n_head * s->d_head,
                  kv = (int64_t)s->n_head_kv * s->d_head;
    const int64_t key = (int64_t)s->n_k * s->d_state, val = (int64_t)s->n_v * s->d_state;
    const bool plain = s->n_shared == 0; /* qwen3moe */
    add(j, "attn_norm.weight", i, j->f32, H, 0, 0, FILL_NORM, 0);
    if ((i + 1) % s->interval == 0 || i >= j->n_layer) {
        add(j, "attn_q.weight", i, j->dense, H, plain ? q : 2 * q, 0, FILL_WEIGHT, 0);
        add(j, "attn_k.weight", i, j->dense, H, kv, 0, FILL_WEIGHT, 0);
        add(j, "attn_v.weight", i, j->dense, H, kv, 0, FILL_WEIGHT, 0);
        add(j, "attn_q_norm.weight", i, j->f32, s->d_head, 0, 0, FILL_NORM, 0);
        add(j, "attn_k_norm.weight", i, j->f32, s->d_head, 0, 0, FILL_NORM, 0);
        add(j, "attn_output.weight", i, j->dense, q, H, 0, FILL_WEIGHT, 0);
    } else {
        add(j, "attn_qkv.weight", i, j->dense, H, 2 * key + val, 0, FILL_WEIGHT, 0);
        add(j, "attn_gate.weight", i, j->dense, H, val, 0, FILL_WEIGHT, 0);
        add(j, "ssm_conv1d.weight", i, j->f32, s->n_conv, 2 * key + val, 0, FILL_CONV, 0.5);
        add(j, "ssm_dt.bias", i, j->f32, s->n_v, 0, 0, FILL_DT, 0);
        add(j, "ssm_a", i, j->f32, s->n_v, 0, 0, FILL_DECAY, 0);
        if (strcmp(s->arch, "qwen3next") == 0) {
            add(j, "ssm_ba.weight", i, j->f32, H, 2 * s->n_v, 0, FILL_WEIGHT, 0);
        } else {
            add(j, "ssm_beta.weight", i, j->f32, H, s->n_v, 0, FILL_WEIGHT, 0);
            add(j, "ssm_alpha.weight", i, j->f32, H, s->n_v, 0, FILL_WEIGHT, 0);
        }
        add(j, "ssm_norm.weight", i, j->f32, s->d_state, 0, 0, FILL_NORM, 0);
        add(j, "ssm_out.weight", i, j->dense, val, H, 0, FILL_WEIGHT, 0);
    }
    add(j, plain ? "ffn_norm.weight" : "post_attention_norm.weight", i, j->f32, H, 0, 0, FILL_NORM,
        0);
    add_experts(j, i);
    if (plain) return;
    add(j, "ffn_gate_inp_shexp.weight", i, j->f32, H, 0, 0, FILL_WEIGHT, 0);
    add(j, "ffn_gate_shexp.weight", i, j->dense, H, s->n_shared, 0, FILL_WEIGHT, 0);
    add(j, "ffn_up_shexp.weight", i, j->dense, H, s->n_shared, 0, FILL_WEIGHT, 0);
    add(j, "ffn_down_shexp.weight", i, j->dense, s->n_shared, H, 0, FILL_WEIGHT, 0);
}

static void add_draft_layer(job *j)
{
    const int64_t H = j->s->n_embd;
    add_layer(j, j->n_layer);
    add(j, "nextn.eh_proj.weight", j->n_layer, j->dense, 2 * H, H, 0, FILL_WEIGHT, 0);
    add(j, "nextn.enorm.weight", j->n_layer, j->f32, H, 0, 0, FILL_NORM, 0);
    add(j, "nextn.hnorm.weight", j->n_layer, j->f32, H, 0, 0, FILL_NORM, 0);
    add(j, "nextn.shared_head_norm.weight", j->n_layer, j->f32, H, 0, 0, FILL_NORM, 0);
}

/* ---- data ----------------------------------------------------------------------------------- */

/* A pool of random blocks per type and spread; tensors are cut from it at different rotations. */
static int pool_for(job *j, const fm_type_traits *type, double std)
{
    for (int i = 0; i < j->n_pool; i++)
        if (j->pool_of[i].type == type && fabs(j->pool_of[i].std / std - 1) < 1e-9) return i;
    if (j->n_pool == MAX_POOLS) { /* few spreads occur; make room */
        free(j->pool[0]);
        memmove(j->pool, j->pool + 1, (MAX_POOLS - 1) * sizeof j->pool[0]);
        memmove(j->pool_of, j->pool_of + 1, (MAX_POOLS - 1) * sizeof j->pool_of[0]);
        j->n_pool = MAX_POOLS - 1;
    }
    const int at = j->n_pool++;
    const size_t n = (POOL_BYTES / type->block_bytes) | 1; /* odd, so rotations do not line up */
    j->pool_of[at].type = type;
    j->pool_of[at].std = std;
    j->pool_of[at].bytes = n * type->block_bytes;
    j->pool[at] = malloc(j->pool_of[at].bytes);
    if (!j->pool[at]) {
        fprintf(stderr, "shape-gguf: no memory\n");
        exit(1);
    }
    for (size_t i = 0; i < n; i++)
        sg_random_block(type, j->pool[at] + i * type->block_bytes, std, &j->rng);
    return at;
}

static fm_status write_pooled(job *j, fm_gguf_writer *w, const tensor *t, fm_error *err)
{
    const int p = pool_for(j, t->type, t->std);
    uint64_t seed = fm_fnv1a(FM_FNV1A_INIT ^ j->seed, t->name, strlen(t->name));
    const uint64_t slice = t->bytes / (uint64_t)t->dim[2]; /* every expert starts somewhere else */
    for (int64_t e = 0; e < t->dim[2]; e++) {
        const size_t n_block = j->pool_of[p].bytes / t->type->block_bytes;
        size_t at = (size_t)(fm_splitmix64(&seed) % n_block) * t->type->block_bytes;
        for (uint64_t left = slice; left > 0;) {
            size_t n = j->pool_of[p].bytes - at;
            if (n > left) n = (size_t)left;
            FM_TRY(fm_gguf_write(w, j->pool[p] + at, n, err));
            left -= n;
            at = 0;
        }
    }
    return FM_OK;
}

static fm_status write_small(job *j, fm_gguf_writer *w, const tensor *t, fm_error *err)
{
    uint64_t s = fm_fnv1a(FM_FNV1A_INIT ^ j->seed, t->name, strlen(t->name));
    float *row = malloc((size_t)t->dim[0] * sizeof *row);
    if (!row) return fm_fail(err, FM_E_NOMEM, "no memory for a row");
    fm_status st = FM_OK;
    for (int64_t r = 0; r < t->dim[1] && st == FM_OK; r++) {
        const double scale = t->how == FILL_ROUTER ? t->std * exp(j->skew * sg_normal(&s)) : t->std;
        for (int64_t i = 0; i < t->dim[0]; i++) {
            switch (t->how) {
            case FILL_NORM:
                row[i] = (float)(1.0 + 0.05 * sg_normal(&s));
                break;
            case FILL_DECAY:
                row[i] = (float)-(1.0 + 15.0 * sg_uniform(&s));
                break;
            case FILL_DT: { /* inverse softplus of a step between 0.001 and 0.1 */
                const double dt = exp(log(1e-3) + sg_uniform(&s) * log(100.0));
                row[i] = (float)log(expm1(dt));
                break;
            }
            default:
                row[i] = (float)(scale * sg_normal(&s));
                break;
            }
        }
        st = fm_gguf_write(w, row, (size_t)t->dim[0] * sizeof *row, err);
    }
    free(row);
    return st;
}

/* Rows that share a direction per topic, in Q8_0 or as floats. */
static fm_status write_topics(job *j, fm_gguf_writer *w, const tensor *t, fm_error *err)
{
    const int64_t n = t->dim[0];
    float *centre = malloc((size_t)n * sizeof *centre), *row = malloc((size_t)n * sizeof *row);
    unsigned char *out = malloc((size_t)fm_type_row_bytes(t->type, n));
    fm_status st = centre && row && out ? FM_OK : fm_fail(err, FM_E_NOMEM, "no memory for a row");
    uint64_t s = fm_fnv1a(FM_FNV1A_INIT ^ j->seed, t->name, strlen(t->name));
    for (int64_t r = 0; r < t->dim[1] && st == FM_OK; r++) {
        if (r % TOPIC_IDS == 0) { /* the same directions in embedding and head */
            uint64_t c = j->seed * 977 + (uint64_t)(r / TOPIC_IDS) + 1;
            for (int64_t i = 0; i < n; i++) centre[i] = (float)sg_normal(&c);
        }
        for (int64_t i = 0; i < n; i++)
            row[i] = (float)(t->std *
                             (sqrt(j->topics) * centre[i] + sqrt(1 - j->topics) * sg_normal(&s)));
        if (t->type->id == FM_TYPE_F32) {
            memcpy(out, row, (size_t)n * 4);
        } else {
            for (int64_t b = 0; b < n / 32; b++) {
                float amax = 0;
                for (int i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(row[b * 32 + i]));
                const float d = amax / 127.0f;
                sg_store_f16(out + b * 34, (double)d);
                for (int i = 0; i < 32; i++)
                    out[b * 34 + 2 + i] =
                        (unsigned char)(signed char)lroundf(d > 0 ? row[b * 32 + i] / d : 0);
            }
        }
        st = fm_gguf_write(w, out, (size_t)fm_type_row_bytes(t->type, n), err);
    }
    free(centre);
    free(row);
    free(out);
    return st;
}

/* ---- metadata ---------------------------------------------------------------------------- */

#define MERGED "\xc4\xa0t"

static const char *token_text(void *user, size_t i)
{
    static char buf[32];
    const job *j = user;
    static const char *const special[N_SPECIAL] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    if (i < 256) { /* the stand-in character of one byte */
        unsigned c = (unsigned)i;
        const bool shown = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
        if (!shown) c = 256 + (c < 33 ? c : c < 161 ? c - 127 + 33 : 67);
        if (c < 128) {
            snprintf(buf, sizeof buf, "%c", (char)c);
        } else {
            snprintf(buf, sizeof buf, "%c%c", (char)(0xc0 | c >> 6), (char)(0x80 | (c & 63)));
        }
        return buf;
    }
    if (i >= (size_t)j->s->n_vocab - N_SPECIAL)
        return special[i - ((size_t)j->s->n_vocab - N_SPECIAL)];
    if (i == 256) return MERGED;
    snprintf(buf, sizeof buf, "\xc4\xa0w%05zx", i);
    return buf;
}

/* One rule, so that the list is not empty; its result is token 256. */
static const char *only_merge(void *user, size_t i)
{
    (void)user;
    (void)i;
    return "\xc4\xa0 t";
}

static void put_key(fm_gguf_writer *w, const job *j, const char *name, uint32_t v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", j->s->arch, name);
    fm_gguf_put_u32(w, key, v);
}

static void put_key_f32(fm_gguf_writer *w, const job *j, const char *name, double v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", j->s->arch, name);
    fm_gguf_put_f32(w, key, (float)v);
}

static void put_yarn(fm_gguf_writer *w, const job *j, double factor)
{
    char key[96];
    snprintf(key, sizeof key, "%s.rope.scaling.type", j->s->arch);
    fm_gguf_put_str(w, key, "yarn");
    put_key_f32(w, j, "rope.scaling.factor", factor);
    put_key(w, j, "rope.scaling.original_context_length", 4096);
}

static void put_sigmoid_metadata(fm_gguf_writer *w, const job *j, int ff_dense,
                                 double weights_scale)
{
    char key[96];
    put_key(w, j, "leading_dense_block_count", (uint32_t)j->n_dense);
    put_key(w, j, "feed_forward_length", (uint32_t)ff_dense);
    put_key(w, j, "expert_shared_count", (uint32_t)(j->s->n_shared / j->s->n_ff));
    put_key(w, j, "expert_gating_func", 2);
    if (j->lat) {
        put_key(w, j, "expert_group_count", (uint32_t)j->lat->n_group);
        put_key(w, j, "expert_group_used_count", (uint32_t)j->lat->n_group_used);
    }
    put_key_f32(w, j, "expert_weights_scale", weights_scale);
    snprintf(key, sizeof key, "%s.expert_weights_norm", j->s->arch);
    fm_gguf_put_bool(w, key, true);
}

static void put_latent_metadata(fm_gguf_writer *w, const job *j)
{
    const shape *s = j->s;
    const latent_shape *lat = j->lat;
    put_key(w, j, "attention.q_lora_rank", (uint32_t)lat->q_latent);
    put_key(w, j, "attention.kv_lora_rank", (uint32_t)lat->kv_latent);
    put_key(w, j, "attention.key_length_mla", (uint32_t)(lat->d_nope + s->n_rot));
    put_key(w, j, "attention.value_length_mla", (uint32_t)lat->d_value);
    put_sigmoid_metadata(w, j, lat->ff_dense, lat->weights_scale);
    put_yarn(w, j, lat->yarn_factor);
    put_key_f32(w, j, "rope.scaling.yarn_beta_fast", lat->beta_fast);
    put_key_f32(w, j, "rope.scaling.yarn_log_multiplier", 0.1);
}

static void put_biased_metadata(fm_gguf_writer *w, const job *j)
{
    const biased_shape *bi = j->biased;
    if (bi->is_gptoss) {
        put_key(w, j, "attention.sliding_window", 128);
        put_yarn(w, j, 32);
        return;
    }
    put_sigmoid_metadata(w, j, bi->ff_dense, bi->weights_scale);
}

static const char *pre_tokenizer(const job *j)
{
    if (j->lat) return j->lat->pre;
    if (j->biased) return j->biased->pre;
    return strcmp(j->s->arch, "qwen35moe") == 0 ? "qwen35" : "qwen2";
}

static void put_metadata(fm_gguf_writer *w, job *j)
{
    const shape *s = j->s;
    char key[96];
    fm_gguf_put_str(w, "general.architecture", s->arch);
    fm_gguf_put_str(w, "general.name", s->name);
    put_key(w, j, "block_count", (uint32_t)(j->n_layer + j->has_draft));
    if (j->has_draft) put_key(w, j, "nextn_predict_layers", 1);
    put_key(w, j, "context_length", (uint32_t)s->n_ctx);
    put_key(w, j, "embedding_length", (uint32_t)s->n_embd);
    put_key(w, j, "attention.head_count", (uint32_t)s->n_head);
    put_key(w, j, "attention.head_count_kv", (uint32_t)s->n_head_kv);
    put_key(w, j, "attention.key_length", (uint32_t)s->d_head);
    put_key(w, j, "attention.value_length", (uint32_t)(j->lat ? j->lat->kv_latent : s->d_head));
    put_key(w, j, "rope.dimension_count", (uint32_t)s->n_rot);
    put_key(w, j, "expert_count", (uint32_t)s->n_expert);
    put_key(w, j, "expert_used_count", (uint32_t)s->n_used);
    put_key(w, j, "expert_feed_forward_length", (uint32_t)s->n_ff);
    put_key(w, j, "vocab_size", (uint32_t)s->n_vocab);
    put_key_f32(w, j, "rope.freq_base", s->rope_base);
    put_key_f32(w, j, "attention.layer_norm_rms_epsilon",
                j->lat      ? j->lat->eps
                : j->biased ? 1e-5
                            : 1e-6);
    if (j->lat) {
        put_latent_metadata(w, j);
    } else if (j->biased) {
        put_biased_metadata(w, j);
    } else if (s->n_shared) {
        const int32_t sections[4] = {11, 11, 10, 0};
        snprintf(key, sizeof key, "%s.rope.dimension_sections", s->arch);
        if (strcmp(s->arch, "qwen35moe") == 0) fm_gguf_put_i32_array(w, key, sections, 4);
        put_key(w, j, "expert_shared_feed_forward_length", (uint32_t)s->n_shared);
        put_key(w, j, "full_attention_interval", (uint32_t)s->interval);
        put_key(w, j, "ssm.conv_kernel", (uint32_t)s->n_conv);
        put_key(w, j, "ssm.state_size", (uint32_t)s->d_state);
        put_key(w, j, "ssm.group_count", (uint32_t)s->n_k);
        put_key(w, j, "ssm.time_step_rank", (uint32_t)s->n_v);
        put_key(w, j, "ssm.inner_size", (uint32_t)(s->n_v * s->d_state));
    }
    fm_gguf_put_str(w, "tokenizer.ggml.model", "gpt2");
    fm_gguf_put_str(w, "tokenizer.ggml.pre", pre_tokenizer(j));
    fm_gguf_put_str_array(w, "tokenizer.ggml.tokens", (size_t)s->n_vocab, token_text, j);
    int32_t *types = calloc((size_t)s->n_vocab, sizeof *types);
    for (int i = 0; types && i < s->n_vocab; i++) types[i] = i < s->n_vocab - N_SPECIAL ? 1 : 3;
    if (types) fm_gguf_put_i32_array(w, "tokenizer.ggml.token_type", types, (size_t)s->n_vocab);
    free(types);
    fm_gguf_put_str_array(w, "tokenizer.ggml.merges", 1, only_merge, NULL);
    fm_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)s->n_vocab - 1);
    fm_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false);
}

/* ---- main -------------------------------------------------------------------------------- */

static const fm_type_traits *type_by_name(const char *name)
{
    for (uint32_t id = 0; id < 64; id++) {
        const fm_type_traits *t = fm_type_get(id);
        if (t && strcmp(t->name, name) == 0) return t;
    }
    fprintf(stderr, "shape-gguf: %s is no type that can be written\n", name);
    exit(2);
}

static void usage(FILE *f)
{
    fprintf(
        f, "usage: shape-gguf --shape NAME --out FILE [options]\n\n"
           "  --layers N         layers (default: the model's)\n"
           "  --experts N        routed experts of a layer (default: the model's)\n"
           "  --expert-type T    routed gate and up (default Q4_K, of gpt-oss MXFP4)\n"
           "  --down-type T      routed down (default as gate and up)\n"
           "                     A row that is no multiple of a type's block becomes Q8_0 or F32.\n"
           "  --dense-type T     attention, shared experts (default Q8_0)\n"
           "  --embed-type T     embedding and head (default Q8_0)\n"
           "  --router-skew S    spread of the experts' popularity (default 0.5)\n"
           "  --topics R         part of the embedding that neighbours share, 0 to 1 (default 0)\n"
           "  --share N          only N layers have expert bytes of their own\n"
           "  --draft            with a draft layer (qwen3.5 and qwen3-next)\n"
           "  --seed N           (default 1)\n  --dry-run          sizes only\n\nshapes:");
    for (int i = 0; i < N_SHAPE; i++) fprintf(f, " %s", shapes[i].name);
    fprintf(f, "\n");
}

static fm_status write_file(job *j, const char *path, fm_error *err)
{
    fm_gguf_writer *w;
    FM_TRY(fm_gguf_writer_open(&w, path, err));
    put_metadata(w, j);
    uint64_t total = 0;
    for (int i = 0; i < j->n; i++) {
        const tensor *t = &j->t[i];
        fm_gguf_add_tensor(w, t->name, t->type->id, t->n_dim, t->dim, t->bytes, t->same_as);
        if (t->same_as < 0) total += t->bytes;
    }
    fm_status st = fm_gguf_begin_data(w, err);
    uint64_t shown = 0;
    for (int i = 0; i < j->n && st == FM_OK; i++) {
        const tensor *t = &j->t[i];
        if (t->same_as >= 0) continue;
        st = t->how == FILL_WEIGHT && t->bytes > (1 << 20) ? write_pooled(j, w, t, err)
             : t->how == FILL_TOPIC                        ? write_topics(j, w, t, err)
             : t->type->id == FM_TYPE_F32                  ? write_small(j, w, t, err)
                                                           : write_pooled(j, w, t, err);
        if (fm_gguf_written(w) - shown > (UINT64_C(2) << 30)) {
            shown = fm_gguf_written(w);
            fprintf(stderr, "  %.1f of %.1f GB\n", (double)shown / 1e9, (double)total / 1e9);
        }
    }
    const uint64_t size = fm_gguf_written(w);
    fm_error later;
    const fm_status closed = fm_gguf_writer_close(w, st == FM_OK ? err : &later);
    if (st == FM_OK) st = closed;
    if (st == FM_OK) printf("%s: %.2f GB\n", path, (double)size / 1e9);
    return st;
}

int main(int argc, char **argv)
{
    static job j = {.skew = 0.5, .seed = 1};
    const char *out = NULL, *expert = NULL, *down = NULL, *dense = "Q8_0", *embd = "Q8_0";
    const char *n_expert = NULL; /* the model's */
    bool dry = false;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(a, "--help") == 0) {
            usage(stdout);
            return 0;
        }
        if (strcmp(a, "--dry-run") == 0) {
            dry = true;
            continue;
        }
        if (strcmp(a, "--draft") == 0) {
            j.has_draft = true;
            continue;
        }
        if (!v) {
            usage(stderr);
            return 2;
        }
        i++;
        if (strcmp(a, "--shape") == 0) {
            for (int k = 0; k < N_SHAPE; k++)
                if (strcmp(shapes[k].name, v) == 0) j.s = &shapes[k];
        } else if (strcmp(a, "--out") == 0) {
            out = v;
        } else if (strcmp(a, "--layers") == 0) {
            j.n_layer = atoi(v);
        } else if (strcmp(a, "--experts") == 0) {
            n_expert = v;
        } else if (strcmp(a, "--expert-type") == 0) {
            expert = v;
        } else if (strcmp(a, "--down-type") == 0) {
            down = v;
        } else if (strcmp(a, "--dense-type") == 0) {
            dense = v;
        } else if (strcmp(a, "--embed-type") == 0) {
            embd = v;
        } else if (strcmp(a, "--router-skew") == 0) {
            j.skew = atof(v);
        } else if (strcmp(a, "--topics") == 0) {
            j.topics = atof(v);
        } else if (strcmp(a, "--share") == 0) {
            j.share = atoi(v);
        } else if (strcmp(a, "--seed") == 0) {
            j.seed = strtoull(v, NULL, 10);
        } else {
            usage(stderr);
            return 2;
        }
    }
    if (!j.s || (!out && !dry) || j.n_layer < 0 || j.share < 0 || j.topics < 0 || j.topics > 1) {
        usage(stderr);
        return 2;
    }
    if (j.n_layer == 0) j.n_layer = j.s->n_layer;
    shape changed = *j.s;
    if (n_expert) {
        changed.n_expert = atoi(n_expert);
        if (changed.n_expert < changed.n_used || changed.n_expert > EXPERTS_MAX ||
            changed.n_expert % EXPERTS_STEP != 0) {
            fprintf(stderr,
                    "shape-gguf: --experts wants a multiple of %d from the %d that a token chooses "
                    "to %d\n",
                    EXPERTS_STEP, changed.n_used, EXPERTS_MAX);
            return 2;
        }
        j.s = &changed;
    }
    if (j.has_draft && j.s->n_v == 0) {
        fprintf(stderr, "shape-gguf: no draft layer is known for %s\n", j.s->name);
        return 2;
    }
    for (int k = 0; k < N_LATENT; k++)
        if (strcmp(latents[k].shape, j.s->name) == 0) j.lat = &latents[k];
    for (int k = 0; k < N_BIASED; k++)
        if (strcmp(biased_shapes[k].shape, j.s->name) == 0) j.biased = &biased_shapes[k];
    j.n_dense = j.lat ? j.lat->n_dense : j.biased ? j.biased->n_dense : 0;
    if (!expert) expert = j.biased && j.biased->is_gptoss ? "MXFP4" : "Q4_K";
    j.expert = type_by_name(expert);
    j.down = type_by_name(down ? down : expert);
    j.dense = type_by_name(dense);
    j.embd = type_by_name(embd);
    j.f32 = type_by_name("F32");
    j.rng = j.seed;
    if (j.topics > 0 && j.embd->id != FM_TYPE_Q8_0 && j.embd->id != FM_TYPE_F32) {
        fprintf(stderr, "shape-gguf: --topics needs --embed-type Q8_0 or F32\n");
        return 2;
    }
    const fill how = j.topics > 0 ? FILL_TOPIC : FILL_WEIGHT;
    add(&j, "token_embd.weight", -1, j.embd, j.s->n_embd, j.s->n_vocab, 0, how, 1.0);
    for (int i = 0; i < j.n_layer; i++)
        (j.lat ? add_latent_layer : j.biased ? add_biased_layer : add_layer)(&j, i);
    add(&j, "output_norm.weight", -1, j.f32, j.s->n_embd, 0, 0, FILL_NORM, 0);
    add(&j, "output.weight", -1, j.embd, j.s->n_embd, j.s->n_vocab, 0, how,
        2.0 / sqrt((double)j.s->n_embd));
    if (j.has_draft) add_draft_layer(&j);
    if (dry) {
        uint64_t total = 0, own = 0;
        for (int i = 0; i < j.n; i++) {
            total += j.t[i].bytes;
            if (j.t[i].same_as < 0) own += j.t[i].bytes;
        }
        printf("%s: %d tensors, %.2f GB, %.2f GB on disk\n", j.s->name, j.n, (double)total / 1e9,
               (double)own / 1e9);
        return 0;
    }
    fm_error err = {0};
    if (write_file(&j, out, &err) != FM_OK) {
        fprintf(stderr, "shape-gguf: %s\n", err.msg);
        return 1;
    }
    return 0;
}
