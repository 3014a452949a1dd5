/* From a checkpoint to a bound model: configuration keys, tensor names and shapes are resolved here
 * once, so that the forward pass touches typed fields only. Every mismatch names the tensor or
 * key, what was found and what was expected. */
#include "model/family.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "quant/planar.h"

static const fm_family *const families[] = {&fm_family_qwen35moe, &fm_family_qwen3next,
                                            &fm_family_qwen3moe,  &fm_family_glm4moe,
                                            &fm_family_gptoss,    &fm_family_deepseek2,
                                            &fm_family_deepseek32, &fm_family_glm_dsa};
enum { N_FAMILY = sizeof families / sizeof families[0] };

/* Largest dimension that is accepted; keeps every later product of three inside 63 bits. */
enum { DIM_MAX = 1 << 20 };

/* ---- configuration ----------------------------------------------------------------------- */

static fm_status arch_key(const fm_checkpoint *c, const char *key, char out[128], fm_error *err)
{
    fm_str arch;
    FM_TRY(fm_meta_str(c, "general.architecture", &arch, err));
    snprintf(out, 128, "%.*s.%s", (int)(arch.len < 64 ? arch.len : 64), arch.data, key);
    return FM_OK;
}

static fm_status check_range(const fm_checkpoint *c, const char *name, uint32_t v, int32_t lo,
                             int32_t hi, int32_t *out, fm_error *err)
{
    if (v > (uint32_t)INT32_MAX || (int32_t)v < lo || (int32_t)v > hi)
        return fm_fail(err, FM_E_FORMAT, "%s: %s is %" PRIu32 ", expected %d to %d",
                       fm_checkpoint_file(c, 0), name, v, lo, hi);
    *out = (int32_t)v;
    return FM_OK;
}

fm_status fm_hp_i32(const fm_checkpoint *c, const char *key, int32_t *out, int32_t lo, int32_t hi,
                    fm_error *err)
{
    char name[128];
    uint32_t v;
    FM_TRY(arch_key(c, key, name, err));
    FM_TRY(fm_meta_u32(c, name, &v, err));
    return check_range(c, name, v, lo, hi, out, err);
}

fm_status fm_hp_i32_or(const fm_checkpoint *c, const char *key, int32_t *out, int32_t fallback,
                       int32_t lo, int32_t hi, fm_error *err)
{
    char name[128];
    FM_TRY(arch_key(c, key, name, err));
    if (!fm_meta_has(c, name)) {
        *out = fallback;
        return FM_OK;
    }
    return fm_hp_i32(c, key, out, lo, hi, err);
}

fm_status fm_hp_f32(const fm_checkpoint *c, const char *key, float *out, fm_error *err)
{
    char name[128];
    FM_TRY(arch_key(c, key, name, err));
    FM_TRY(fm_meta_f32(c, name, out, err));
    if (!(*out > 0.0f && *out < 1e30f))
        return fm_fail(err, FM_E_FORMAT, "%s: %s is %g, expected a positive number",
                       fm_checkpoint_file(c, 0), name, (double)*out);
    return FM_OK;
}

fm_status fm_hp_f32_or(const fm_checkpoint *c, const char *key, float *out, float fallback,
                       fm_error *err)
{
    char name[128];
    FM_TRY(arch_key(c, key, name, err));
    *out = fallback;
    return fm_meta_has(c, name) ? fm_hp_f32(c, key, out, err) : FM_OK;
}

fm_status fm_hp_bool_or(const fm_checkpoint *c, const char *key, bool *out, bool fallback,
                        fm_error *err)
{
    char name[128];
    FM_TRY(arch_key(c, key, name, err));
    return fm_meta_bool_or(c, name, out, fallback, err);
}

fm_status fm_hp_str_or(const fm_checkpoint *c, const char *key, fm_str *out, const char *fallback,
                       fm_error *err)
{
    char name[128];
    FM_TRY(arch_key(c, key, name, err));
    return fm_meta_str_or(c, name, out, fallback, err);
}

fm_status fm_hp_sizes(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    int32_t n_extra;
    FM_TRY(fm_hp_i32(c, "block_count", &hp->n_layer, 1, 4096, err));
    FM_TRY(fm_hp_i32_or(c, "nextn_predict_layers", &n_extra, 0, 0, hp->n_layer - 1, err));
    hp->n_layer -= n_extra;
    FM_TRY(fm_hp_i32(c, "embedding_length", &hp->n_embd, 1, DIM_MAX, err));
    hp->router = (fm_router){
        .gating = FM_GATE_SOFTMAX, .n_group = 1, .n_group_used = 1, .normalised = true, .scale = 1};
    FM_TRY(fm_hp_i32_or(c, "context_length", &hp->n_ctx_train, 4096, 1, INT32_MAX, err));
    FM_TRY(fm_hp_i32(c, "attention.head_count", &hp->n_head, 1, 4096, err));
    FM_TRY(fm_hp_f32(c, "rope.freq_base", &hp->rope.base, err));
    FM_TRY(fm_hp_f32(c, "attention.layer_norm_rms_epsilon", &hp->eps, err));
    FM_TRY(fm_hp_i32(c, "expert_count", &hp->n_expert, 1, 65536, err));
    FM_TRY(fm_hp_i32(c, "expert_used_count", &hp->n_expert_used, 1, hp->n_expert, err));
    return fm_hp_i32(c, "expert_feed_forward_length", &hp->n_ff_expert, 1, DIM_MAX, err);
}

fm_status fm_hp_common(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    FM_TRY(fm_hp_sizes(c, hp, err));
    FM_TRY(
        fm_hp_i32_or(c, "attention.head_count_kv", &hp->n_head_kv, hp->n_head, 1, hp->n_head, err));
    FM_TRY(fm_hp_i32_or(c, "attention.key_length", &hp->d_head, hp->n_embd / hp->n_head, 2, 4096,
                        err));
    int32_t d_value;
    FM_TRY(fm_hp_i32_or(c, "attention.value_length", &d_value, hp->d_head, 1, 4096, err));
    FM_TRY(fm_hp_i32_or(c, "rope.dimension_count", &hp->rope.n_rot, hp->d_head, 2, 4096, err));
    if (d_value != hp->d_head)
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: attention.value_length %d differs from attention.key_length %d, which "
                       "this architecture does not have",
                       fm_checkpoint_file(c, 0), d_value, hp->d_head);
    if (hp->n_head % hp->n_head_kv != 0)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: attention.head_count %d is no multiple of attention.head_count_kv %d",
                       fm_checkpoint_file(c, 0), hp->n_head, hp->n_head_kv);
    if (hp->rope.n_rot > hp->d_head || hp->rope.n_rot % 2 != 0)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: rope.dimension_count %d, expected an even number of at most %d",
                       fm_checkpoint_file(c, 0), hp->rope.n_rot, hp->d_head);
    return fm_rope_read(c, &hp->rope, err);
}

fm_status fm_hp_router(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    enum { SOFTMAX = 1, SIGMOID = 2 };
    int32_t gating;
    fm_router *r = &hp->router;
    FM_TRY(fm_hp_i32_or(c, "expert_gating_func", &gating, SIGMOID, 1, 100, err));
    if (gating != SOFTMAX && gating != SIGMOID)
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: expert_gating_func is %d, expected 1 (softmax) or 2 (sigmoid)",
                       fm_checkpoint_file(c, 0), gating);
    r->gating = gating == SOFTMAX ? FM_GATE_SOFTMAX : FM_GATE_SIGMOID;
    FM_TRY(fm_hp_i32_or(c, "expert_group_count", &r->n_group, 1, 0, FM_ROUTER_GROUPS_MAX, err));
    if (r->n_group == 0) r->n_group = 1;
    FM_TRY(fm_hp_i32_or(c, "expert_group_used_count", &r->n_group_used, r->n_group, 0, r->n_group,
                        err));
    if (r->n_group_used == 0) r->n_group_used = r->n_group;
    FM_TRY(fm_hp_bool_or(c, "expert_weights_norm", &r->normalised, true, err));
    FM_TRY(fm_hp_f32_or(c, "expert_weights_scale", &r->scale, 1.0f, err));
    if (r->gating == FM_GATE_SOFTMAX && r->n_group > 1)
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: a softmax router with %d groups of experts is not supported",
                       fm_checkpoint_file(c, 0), r->n_group);
    if (hp->n_expert % r->n_group != 0 ||
        hp->n_expert / r->n_group * r->n_group_used < hp->n_expert_used)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: %d experts in %d groups of which %d are used; a token needs %d experts",
                       fm_checkpoint_file(c, 0), hp->n_expert, r->n_group, r->n_group_used,
                       hp->n_expert_used);
    return FM_OK;
}

fm_status fm_hp_dense(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    FM_TRY(
        fm_hp_i32_or(c, "leading_dense_block_count", &hp->n_dense_layer, 0, 0, hp->n_layer, err));
    if (hp->n_dense_layer == 0) return FM_OK;
    return fm_hp_i32(c, "feed_forward_length", &hp->n_ff_dense, 1, DIM_MAX, err);
}

fm_status fm_hp_delta(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    int32_t inner;
    FM_TRY(
        fm_hp_i32_or(c, "full_attention_interval", &hp->full_attention_interval, 4, 1, 4096, err));
    FM_TRY(fm_hp_i32(c, "ssm.conv_kernel", &hp->n_conv, 2, 64, err));
    FM_TRY(fm_hp_i32(c, "ssm.state_size", &hp->d_state, 1, 4096, err));
    FM_TRY(fm_hp_i32(c, "ssm.group_count", &hp->n_k_head, 1, 4096, err));
    FM_TRY(fm_hp_i32(c, "ssm.time_step_rank", &hp->n_v_head, 1, 4096, err));
    FM_TRY(fm_hp_i32(c, "ssm.inner_size", &inner, 1, DIM_MAX, err));
    FM_TRY(fm_hp_i32_or(c, "expert_shared_feed_forward_length", &hp->n_ff_shared, hp->n_ff_expert,
                        1, DIM_MAX, err));
    if (hp->n_v_head % hp->n_k_head != 0)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: ssm.time_step_rank %d is no multiple of ssm.group_count %d",
                       fm_checkpoint_file(c, 0), hp->n_v_head, hp->n_k_head);
    if (inner != hp->n_v_head * hp->d_state)
        return fm_fail(
            err, FM_E_FORMAT,
            "%s: ssm.inner_size is %d, expected ssm.time_step_rank %d x ssm.state_size %d",
            fm_checkpoint_file(c, 0), inner, hp->n_v_head, hp->d_state);
    return FM_OK;
}

/* ---- tensors ----------------------------------------------------------------------------- */

static fm_status check_shape(const fm_checkpoint *c, const fm_tensor_info *t, int64_t d0,
                             int64_t d1, int64_t d2, fm_error *err)
{
    if (t->dim[0] == d0 && t->dim[1] == d1 && t->dim[2] == d2 && t->dim[3] == 1) return FM_OK;
    return fm_fail(err, FM_E_FORMAT,
                   "%s: tensor %s has shape [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64
                   "], expected [%" PRId64 ", %" PRId64 ", %" PRId64 "]",
                   fm_checkpoint_file(c, t->file), t->name, t->dim[0], t->dim[1], t->dim[2],
                   t->dim[3], d0, d1, d2);
}

static fm_status find_tensor(const fm_checkpoint *c, const char *name, const fm_tensor_info **out,
                             fm_error *err)
{
    *out = fm_checkpoint_find(c, name);
    if (*out) return FM_OK;
    return fm_fail(err, FM_E_FORMAT, "%s: tensor %s is missing", fm_checkpoint_file(c, 0), name);
}

/* A tensor in a type this build computes with. */
static fm_status check_type(const fm_checkpoint *c, const fm_tensor_info *t,
                            const fm_type_traits **out, fm_error *err)
{
    *out = fm_type_get(t->type);
    if (*out) return FM_OK;
    const char *name = fm_type_name(t->type);
    return fm_fail(
        err, FM_E_UNSUPPORTED,
        "%s: tensor %s is stored as %s (type %" PRIu32 "), which cannot be computed with yet",
        fm_checkpoint_file(c, t->file), t->name, name ? name : "an unknown type", t->type);
}

/* A type whose values are used one by one after conversion to f32. */
static fm_status check_vector_type(const fm_checkpoint *c, const fm_tensor_info *t, fm_error *err)
{
    if (t->type == FM_TYPE_F32 || t->type == FM_TYPE_F16 || t->type == FM_TYPE_BF16) return FM_OK;
    const char *name = fm_type_name(t->type);
    return fm_fail(err, FM_E_UNSUPPORTED,
                   "%s: tensor %s is stored as %s, expected F32, F16 or BF16",
                   fm_checkpoint_file(c, t->file), t->name, name ? name : "an unknown type");
}

/* The whole of plane k as a piece of the trunk. */
static fm_trunk_piece whole_plane(const fm_tensor_info *t, int k)
{
    return (fm_trunk_piece){
        .tensor = t, .plane = (uint8_t)k, .bytes = k == 0 ? t->bytes : t->aux[k - 1].bytes};
}

static fm_trunk_piece vector_piece(const fm_tensor_info *t)
{
    fm_trunk_piece p = whole_plane(t, 0);
    p.room = (uint64_t)(t->dim[0] * t->dim[1]) * sizeof(float);
    return p;
}

static fm_status bind(fm_binder *b, fm_weight w, const char *suffix, int64_t n_in, int64_t n_out,
                      int64_t n_stack, bool is_vector)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%d.%s", b->index, suffix);
    const fm_tensor_info *t;
    const fm_type_traits *type;
    FM_TRY(find_tensor(b->c, name, &t, b->err));
    FM_TRY(check_type(b->c, t, &type, b->err));
    if (n_stack > 1 && t->dim[2] == 1) {
        FM_TRY(check_shape(b->c, t, n_in, n_out * n_stack, 1, b->err));
    } else {
        FM_TRY(check_shape(b->c, t, n_in, n_out, n_stack, b->err));
    }
    fm_layer *l = b->layer;
    l->tensor_of[w] = t;
    const fm_tensor_info *stored = t->source ? t->source : t;
    for (int32_t p = 0; t->source && p < l->n_piece; p++) {
        if (l->pieces[p].tensor != stored) continue;
        l->piece_of[w] = (int16_t)p; /* rows of a matrix that is bound already */
        return FM_OK;
    }
    l->piece_of[w] = (int16_t)l->n_piece;
    if (is_vector) {
        FM_TRY(check_vector_type(b->c, t, b->err));
        l->pieces[l->n_piece++] = vector_piece(stored);
        return FM_OK;
    }
    for (int k = 0; k < fm_type_n_plane(type); k++)
        l->pieces[l->n_piece++] = whole_plane(stored, k);
    return FM_OK;
}

fm_status fm_bind_matrix(fm_binder *b, fm_weight w, const char *suffix, int64_t n_in, int64_t n_out)
{
    return bind(b, w, suffix, n_in, n_out, 1, false);
}

fm_status fm_bind_vector(fm_binder *b, fm_weight w, const char *suffix, int64_t n)
{
    return bind(b, w, suffix, n, 1, 1, true);
}

fm_status fm_bind_table(fm_binder *b, fm_weight w, const char *suffix, int64_t n_in, int64_t n_out)
{
    return bind(b, w, suffix, n_in, n_out, 1, true);
}

fm_status fm_bind_stack(fm_binder *b, fm_weight w, const char *suffix, int64_t n_in, int64_t n_out,
                        int64_t n_stack)
{
    return bind(b, w, suffix, n_in, n_out, n_stack, false);
}

fm_status fm_bind_attention(fm_binder *b)
{
    const fm_hparams *hp = b->hp;
    const int64_t q = (int64_t)hp->n_head * hp->d_head, kv = (int64_t)hp->n_head_kv * hp->d_head;
    FM_TRY(fm_bind_matrix(b, FM_W_Q, "attn_q.weight", hp->n_embd, hp->gated_attention ? 2 * q : q));
    FM_TRY(fm_bind_matrix(b, FM_W_K, "attn_k.weight", hp->n_embd, kv));
    FM_TRY(fm_bind_matrix(b, FM_W_V, "attn_v.weight", hp->n_embd, kv));
    return fm_bind_matrix(b, FM_W_O, "attn_output.weight", q, hp->n_embd);
}

fm_status fm_bind_qk_norm(fm_binder *b)
{
    FM_TRY(fm_bind_vector(b, FM_W_Q_NORM, "attn_q_norm.weight", b->hp->d_head));
    return fm_bind_vector(b, FM_W_K_NORM, "attn_k_norm.weight", b->hp->d_head);
}

fm_status fm_bind_qkv_bias(fm_binder *b)
{
    const fm_hparams *hp = b->hp;
    const int64_t q = (int64_t)hp->n_head * hp->d_head, kv = (int64_t)hp->n_head_kv * hp->d_head;
    FM_TRY(fm_bind_vector(b, FM_W_Q_BIAS, "attn_q.bias", q));
    FM_TRY(fm_bind_vector(b, FM_W_K_BIAS, "attn_k.bias", kv));
    return fm_bind_vector(b, FM_W_V_BIAS, "attn_v.bias", kv);
}

bool fm_bind_has(const fm_binder *b, const char *suffix)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%d.%s", b->index, suffix);
    return fm_checkpoint_find(b->c, name) != NULL;
}

fm_status fm_bind_delta(fm_binder *b)
{
    const fm_hparams *hp = b->hp;
    const int64_t key = (int64_t)hp->n_k_head * hp->d_state,
                  val = (int64_t)hp->n_v_head * hp->d_state;
    FM_TRY(fm_bind_matrix(b, FM_W_QKV, "attn_qkv.weight", hp->n_embd, 2 * key + val));
    FM_TRY(fm_bind_matrix(b, FM_W_Z, "attn_gate.weight", hp->n_embd, val));
    FM_TRY(fm_bind_table(b, FM_W_CONV, "ssm_conv1d.weight", hp->n_conv, 2 * key + val));
    FM_TRY(fm_bind_vector(b, FM_W_DT, "ssm_dt.bias", hp->n_v_head));
    FM_TRY(fm_bind_vector(b, FM_W_A, "ssm_a", hp->n_v_head));
    if (hp->fused_ba) {
        FM_TRY(fm_bind_matrix(b, FM_W_BA, "ssm_ba.weight", hp->n_embd, 2 * (int64_t)hp->n_v_head));
    } else {
        FM_TRY(fm_bind_matrix(b, FM_W_BETA, "ssm_beta.weight", hp->n_embd, hp->n_v_head));
        FM_TRY(fm_bind_matrix(b, FM_W_ALPHA, "ssm_alpha.weight", hp->n_embd, hp->n_v_head));
    }
    FM_TRY(fm_bind_vector(b, FM_W_SSM_NORM, "ssm_norm.weight", hp->d_state));
    return fm_bind_matrix(b, FM_W_SSM_OUT, "ssm_out.weight", val, hp->n_embd);
}

static fm_status bind_expert_tensor(fm_binder *b, const char *suffix, int64_t n_in, int64_t n_out,
                                    const fm_type_traits **type, int8_t *first_part,
                                    const fm_tensor_info **out)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%d.%s", b->index, suffix);
    const fm_tensor_info *t;
    FM_TRY(find_tensor(b->c, name, &t, b->err));
    *out = t;
    FM_TRY(check_type(b->c, t, type, b->err));
    FM_TRY(check_shape(b->c, t, n_in, n_out, b->hp->n_expert, b->err));
    const int n_plane = fm_type_n_plane(*type);
    fm_expert_layer *e = &b->layer->experts;
    if (e->n_part + n_plane > FM_EXPERT_PARTS)
        return fm_fail(b->err, FM_E_UNSUPPORTED, "%s: more than %d pieces to an expert", name,
                       FM_EXPERT_PARTS);
    *first_part = (int8_t)e->n_part;
    for (int k = 0; k < n_plane; k++) {
        const fm_extent at = k == 0 ? (fm_extent){t->offset, t->bytes, t->file} : t->aux[k - 1];
        const uint64_t one = t->each ? t->each[k].bytes : at.bytes / (uint64_t)b->hp->n_expert;
        e->part[e->n_part++] = (fm_expert_part){.file = at.file,
                                                .offset = at.offset,
                                                .stride = one,
                                                .bytes = one,
                                                .each = t->each ? t->each + k : NULL,
                                                .each_step = n_plane};
    }
    return FM_OK;
}

fm_status fm_bind_experts(fm_binder *b)
{
    const fm_hparams *hp = b->hp;
    fm_layer *l = b->layer;
    FM_TRY(fm_bind_matrix(b, FM_W_ROUTER, "ffn_gate_inp.weight", hp->n_embd, hp->n_expert));
    l->experts.n_expert = hp->n_expert;
    const fm_tensor_info *t;
    l->fused_gate_up = fm_bind_has(b, "ffn_gate_up_exps.weight");
    if (l->fused_gate_up) {
        FM_TRY(bind_expert_tensor(b, "ffn_gate_up_exps.weight", hp->n_embd,
                                  2 * (int64_t)hp->n_ff_expert, &l->type_gate, &l->part_gate, &t));
        l->type_up = l->type_gate;
        l->part_up = l->part_gate;
        l->alternate = t->order.n_part > 0;
        l->gate_columns = t->by_columns;
    } else {
        FM_TRY(bind_expert_tensor(b, "ffn_gate_exps.weight", hp->n_embd, hp->n_ff_expert,
                                  &l->type_gate, &l->part_gate, &t));
        FM_TRY(bind_expert_tensor(b, "ffn_up_exps.weight", hp->n_embd, hp->n_ff_expert, &l->type_up,
                                  &l->part_up, &t));
    }
    FM_TRY(bind_expert_tensor(b, "ffn_down_exps.weight", hp->n_ff_expert, hp->n_embd, &l->type_down,
                              &l->part_down, &t));
    l->down_columns = t->by_columns;
    return FM_OK;
}

fm_status fm_bind_expert_biases(fm_binder *b)
{
    const fm_hparams *hp = b->hp;
    if (b->layer->alternate) {
        FM_TRY(fm_bind_table(b, FM_W_GATE_BIAS, "ffn_gate_up_exps.bias",
                             2 * (int64_t)hp->n_ff_expert, hp->n_expert));
    } else {
        FM_TRY(
            fm_bind_table(b, FM_W_GATE_BIAS, "ffn_gate_exps.bias", hp->n_ff_expert, hp->n_expert));
        FM_TRY(fm_bind_table(b, FM_W_UP_BIAS, "ffn_up_exps.bias", hp->n_ff_expert, hp->n_expert));
    }
    return fm_bind_table(b, FM_W_DOWN_BIAS, "ffn_down_exps.bias", hp->n_embd, hp->n_expert);
}

fm_status fm_bind_shared_expert(fm_binder *b)
{
    const fm_hparams *hp = b->hp;
    FM_TRY(fm_bind_matrix(b, FM_W_SH_GATE, "ffn_gate_shexp.weight", hp->n_embd, hp->n_ff_shared));
    FM_TRY(fm_bind_matrix(b, FM_W_SH_UP, "ffn_up_shexp.weight", hp->n_embd, hp->n_ff_shared));
    return fm_bind_matrix(b, FM_W_SH_DOWN, "ffn_down_shexp.weight", hp->n_ff_shared, hp->n_embd);
}

fm_status fm_bind_choice_bias(fm_binder *b)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.exp_probs_b.bias", b->index);
    if (!fm_checkpoint_find(b->c, name)) return FM_OK;
    return fm_bind_vector(b, FM_W_CHOICE_BIAS, "exp_probs_b.bias", b->hp->n_expert);
}

fm_status fm_bind_dense(fm_binder *b)
{
    const int64_t n_embd = b->hp->n_embd, n_ff = b->hp->n_ff_dense;
    FM_TRY(fm_bind_matrix(b, FM_W_FF_GATE, "ffn_gate.weight", n_embd, n_ff));
    FM_TRY(fm_bind_matrix(b, FM_W_FF_UP, "ffn_up.weight", n_embd, n_ff));
    return fm_bind_matrix(b, FM_W_FF_DOWN, "ffn_down.weight", n_ff, n_embd);
}

fm_status fm_bind_hybrid_layer(fm_binder *b)
{
    const int64_t n_embd = b->hp->n_embd;
    FM_TRY(fm_bind_vector(b, FM_W_ATTN_NORM, "attn_norm.weight", n_embd));
    if (b->layer->mixer == FM_MIX_ATTENTION) {
        FM_TRY(fm_bind_attention(b));
        FM_TRY(fm_bind_qk_norm(b));
    } else {
        FM_TRY(fm_bind_delta(b));
    }
    FM_TRY(fm_bind_vector(b, FM_W_FFN_NORM, "post_attention_norm.weight", n_embd));
    FM_TRY(fm_bind_experts(b));
    FM_TRY(fm_bind_matrix(b, FM_W_SH_ROUTER, "ffn_gate_inp_shexp.weight", n_embd, 1));
    return fm_bind_shared_expert(b);
}

/* ---- model ------------------------------------------------------------------------------- */

static fm_status bind_layers(fm_model *m, const fm_checkpoint *c, const fm_family *family,
                             fm_error *err)
{
    m->layers = calloc((size_t)m->hp.n_layer + 1, sizeof *m->layers); /* and a draft layer */
    if (!m->layers) return fm_fail(err, FM_E_NOMEM, "no memory for %d layers", m->hp.n_layer);
    for (int32_t i = 0; i < m->hp.n_layer; i++) {
        fm_layer *l = &m->layers[i];
        memset(l->piece_of, 0xff, sizeof l->piece_of);
        const bool full = (i + 1) % m->hp.full_attention_interval == 0;
        l->mixer = !full ? FM_MIX_DELTA : m->hp.n_latent > 0 ? FM_MIX_LATENT : FM_MIX_ATTENTION;
        l->index_layer = -1;
        l->kv_index = full ? m->n_attention++ : m->n_delta++;
        fm_binder b = {.c = c, .hp = &m->hp, .layer = l, .index = i, .err = err};
        FM_TRY(family->bind_layer(&b));
        if (l->experts.n_expert) m->n_moe_layer++;
        if (l->piece_of[FM_W_INDEX_K] >= 0) l->index_layer = m->n_index_layer++;
    }
    int32_t whole = 0, windowed = 0;
    for (int32_t i = 0; i < m->hp.n_layer; i++) m->n_windowed += m->layers[i].windowed;
    for (int32_t i = 0; m->n_windowed > 0 && i < m->hp.n_layer; i++) {
        fm_layer *l = &m->layers[i];
        if (l->mixer != FM_MIX_ATTENTION) continue;
        l->kv_index = l->windowed ? m->n_attention - m->n_windowed + windowed++ : whole++;
    }
    return FM_OK;
}

static fm_status bind_ends(fm_model *m, const fm_checkpoint *c, fm_error *err)
{
    const fm_type_traits *type;
    FM_TRY(find_tensor(c, "token_embd.weight", &m->embd, err));
    FM_TRY(check_type(c, m->embd, &type, err));
    if (m->embd->dim[1] < 1 || m->embd->dim[1] > (1 << 24))
        return fm_fail(err, FM_E_FORMAT, "%s: token_embd.weight has %" PRId64 " rows",
                       fm_checkpoint_file(c, 0), m->embd->dim[1]);
    m->hp.n_vocab = (int32_t)m->embd->dim[1];
    FM_TRY(check_shape(c, m->embd, m->hp.n_embd, m->hp.n_vocab, 1, err));
    m->head = fm_checkpoint_find(c, "output.weight");
    m->tied = m->head == NULL;
    if (m->tied) m->head = m->embd;
    FM_TRY(check_type(c, m->head, &type, err));
    FM_TRY(check_shape(c, m->head, m->hp.n_embd, m->hp.n_vocab, 1, err));
    FM_TRY(find_tensor(c, "output_norm.weight", &m->out_norm, err));
    FM_TRY(check_shape(c, m->out_norm, m->hp.n_embd, 1, 1, err));
    return check_vector_type(c, m->out_norm, err);
}

/* Layer units, then the head cut into row ranges no larger than the largest layer, so that a
 * streamed trunk needs no buffer for the whole head. */
static fm_status make_units(fm_model *m, fm_error *err)
{
    uint64_t largest = 0;
    for (int32_t i = 0; i < m->hp.n_layer; i++) {
        uint64_t sum = 0;
        for (int32_t p = 0; p < m->layers[i].n_piece; p++) sum += m->layers[i].pieces[p].bytes;
        if (sum > largest) largest = sum;
    }
    const fm_type_traits *type = fm_type_get(m->head->type);
    const int n_plane = fm_type_n_plane(type);
    const int64_t step = type->rows_per_scale > 64 ? type->rows_per_scale : 64;
    uint64_t row = 0;
    for (int k = 0; k < n_plane; k++) row += fm_plane_row_bytes(type, k, m->hp.n_embd);
    int64_t rows = (int64_t)(largest / row) / step * step;
    if (rows < step) rows = step;
    if (rows > m->hp.n_vocab) rows = m->hp.n_vocab;
    m->head_rows = rows;
    const int32_t n_head_unit = (int32_t)((m->hp.n_vocab + rows - 1) / rows);
    m->n_head_unit = n_head_unit;
    m->n_unit = m->hp.n_layer + n_head_unit;
    m->units = calloc((size_t)m->n_unit + 1, sizeof *m->units); /* and a draft layer's */
    m->head_pieces = calloc((size_t)n_head_unit * (size_t)n_plane + 1, sizeof *m->head_pieces);
    if (!m->units || !m->head_pieces)
        return fm_fail(err, FM_E_NOMEM, "no memory for %d units", m->n_unit);
    for (int32_t i = 0; i < m->hp.n_layer; i++)
        m->units[i] =
            (fm_trunk_unit){.piece = m->layers[i].pieces, .n_piece = m->layers[i].n_piece};
    /* A head unit is its rows of each plane; the first also carries the final norm, as its last piece. */
    fm_trunk_piece *p = m->head_pieces;
    for (int32_t i = 0; i < n_head_unit; i++) {
        const int64_t r0 = i * rows;
        const int64_t n = m->hp.n_vocab - r0 < rows ? m->hp.n_vocab - r0 : rows;
        m->units[m->hp.n_layer + i] =
            (fm_trunk_unit){.piece = p, .n_piece = i == 0 ? n_plane + 1 : n_plane};
        for (int k = 0; k < n_plane; k++) {
            const uint64_t bytes = fm_plane_row_bytes(type, k, m->hp.n_embd);
            const uint64_t first = (uint64_t)fm_plane_rows(type, k, r0);
            *p++ = (fm_trunk_piece){.tensor = m->head,
                                    .plane = (uint8_t)k,
                                    .offset = first * bytes,
                                    .bytes =
                                        ((uint64_t)fm_plane_rows(type, k, r0 + n) - first) * bytes};
        }
        if (i == 0) *p++ = vector_piece(m->out_norm);
    }
    return FM_OK;
}

static void count_parameters(fm_model *m, const fm_checkpoint *c)
{
    const int64_t n = fm_checkpoint_n_tensor(c);
    for (int64_t i = 0; i < n; i++) {
        const fm_tensor_info *t = fm_checkpoint_tensor(c, i);
        m->n_param += (uint64_t)(t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3]);
    }
    for (int32_t u = 0; u < m->n_unit; u++)
        for (int32_t p = 0; p < m->units[u].n_piece; p++) {
            const fm_trunk_piece *piece = &m->units[u].piece[p];
            const fm_tensor_info *t = piece->tensor;
            m->trunk_bytes += piece->bytes;
            if (piece->plane > 0) continue;
            m->n_param_active +=
                (uint64_t)(t->dim[0] * t->dim[1] * t->dim[2]) * piece->bytes / t->bytes;
        }
    const uint64_t per_expert = 3 * (uint64_t)m->hp.n_embd * (uint64_t)m->hp.n_ff_expert;
    m->n_param_active += per_expert * (uint64_t)m->hp.n_expert_used * (uint64_t)m->n_moe_layer;
    for (int32_t i = 0; i < m->hp.n_layer; i++)
        for (int32_t p = 0; p < m->layers[i].experts.n_part; p++)
            m->expert_bytes += m->layers[i].experts.part[p].bytes * (uint64_t)m->hp.n_expert;
}

fm_status fm_model_bind(fm_model **out, const fm_checkpoint *c, int32_t n_expert_used,
                        fm_error *err)
{
    *out = NULL;
    fm_str arch;
    FM_TRY(fm_meta_str(c, "general.architecture", &arch, err));
    const fm_family *family = NULL;
    for (int i = 0; i < N_FAMILY; i++)
        if (strlen(families[i]->architecture) == arch.len &&
            memcmp(families[i]->architecture, arch.data, arch.len) == 0)
            family = families[i];
    if (!family) {
        char known[200] = "";
        for (int i = 0; i < N_FAMILY; i++) {
            const size_t at = strlen(known);
            snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "",
                     families[i]->architecture);
        }
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: architecture '%.*s' is not supported; these are: %s",
                       fm_checkpoint_file(c, 0), (int)arch.len, arch.data, known);
    }
    fm_model *m = calloc(1, sizeof *m);
    if (!m) return fm_fail(err, FM_E_NOMEM, "no memory for the model");
    m->architecture = family->architecture;
    m->family = family;
    fm_status st = family->read(c, &m->hp, err);
    if (st != FM_OK) goto fail;
    if (n_expert_used > m->hp.n_expert) {
        st = fm_fail(err, FM_E_ARG, "%s: %d experts per token asked for, a layer has %d",
                     fm_checkpoint_file(c, 0), n_expert_used, m->hp.n_expert);
        goto fail;
    }
    const fm_router *const router = &m->hp.router;
    if (router->n_group > 1 &&
        n_expert_used > m->hp.n_expert / router->n_group * router->n_group_used) {
        st = fm_fail(err, FM_E_ARG,
                     "%s: %d experts per token asked for; the router chooses among the %d of %d "
                     "groups out of %d",
                     fm_checkpoint_file(c, 0), n_expert_used,
                     m->hp.n_expert / router->n_group * router->n_group_used, router->n_group_used,
                     router->n_group);
        goto fail;
    }
    m->n_expert_used_trained = m->hp.n_expert_used;
    if (n_expert_used > 0) m->hp.n_expert_used = n_expert_used;
    st = fm_hp_i32_or(c, "nextn_predict_layers", &m->n_extra_layer, 0, 0, 4096, err);
    if (st == FM_OK) st = bind_ends(m, c, err);
    if (st == FM_OK) st = bind_layers(m, c, family, err);
    if (st == FM_OK) st = make_units(m, err);
    if (st != FM_OK) goto fail;
    count_parameters(m, c);
    *out = m;
    return FM_OK;
fail:
    fm_model_free(m);
    return st;
}

fm_status fm_model_add_draft(fm_model *m, const fm_checkpoint *c, fm_error *err)
{
    const int32_t index = m->hp.n_layer;
    const int64_t n_embd = m->hp.n_embd;
    fm_layer *l = &m->layers[index];
    memset(l, 0, sizeof *l);
    memset(l->piece_of, 0xff, sizeof l->piece_of);
    fm_binder b = {.c = c, .hp = &m->hp, .layer = l, .index = index, .err = err};
    if (m->n_extra_layer == 0 || !fm_bind_has(&b, "nextn.eh_proj.weight"))
        return fm_fail(err, FM_E_UNSUPPORTED, "%s: holds no draft layer", fm_checkpoint_file(c, 0));
    if (!m->family->drafts)
        return fm_fail(err, FM_E_UNSUPPORTED, "%s: draft layers of %s are not evaluated yet",
                       fm_checkpoint_file(c, 0), m->architecture);
    l->mixer = FM_MIX_ATTENTION;
    l->book_layout = m->book_layout;
    l->index_layer = -1;
    l->kv_index = m->n_attention;
    FM_TRY(m->family->bind_layer(&b));
    FM_TRY(fm_bind_matrix(&b, FM_W_DRAFT_IN, "nextn.eh_proj.weight", 2 * n_embd, n_embd));
    FM_TRY(fm_bind_vector(&b, FM_W_DRAFT_EMBD_NORM, "nextn.enorm.weight", n_embd));
    FM_TRY(fm_bind_vector(&b, FM_W_DRAFT_HIDDEN_NORM, "nextn.hnorm.weight", n_embd));
    FM_TRY(fm_bind_vector(&b, FM_W_DRAFT_OUT_NORM, "nextn.shared_head_norm.weight", n_embd));
    m->units[m->n_unit] = (fm_trunk_unit){.piece = l->pieces, .n_piece = l->n_piece};
    m->draft_trunk_bytes = 0;
    for (int32_t p = 0; p < l->n_piece; p++) m->draft_trunk_bytes += l->pieces[p].bytes;
    fm_model_use_draft(m, true);
    return FM_OK;
}

void fm_model_use_draft(fm_model *m, bool use)
{
    const int32_t change = (int32_t)use - m->n_draft;
    m->n_draft += change;
    m->n_attention += change;
    m->n_unit += change;
}

void fm_model_free(fm_model *m)
{
    if (!m) return;
    free(m->layers);
    free(m->units);
    free(m->head_pieces);
    free(m);
}

/* Positions that a layer with a sliding window keeps: what the first token of a pass sees, and the
 * pass. A multiple of the unit of attention, so that no unit lies across the end of the ring. */
static int64_t window_slots(const fm_hparams *hp, int64_t n_ctx, int64_t n_batch)
{
    const uint64_t need = (uint64_t)hp->window - 1 + (uint64_t)n_batch;
    const int64_t slots = (int64_t)fm_round_up(need, FM_ATTN_UNIT);
    return slots < n_ctx ? slots : n_ctx;
}

fm_kv_shape fm_model_kv_shape(const fm_model *m, int64_t n_ctx, int64_t n_batch, bool f16)
{
    const fm_hparams *hp = &m->hp;
    const int64_t channels = (int64_t)(2 * hp->n_k_head + hp->n_v_head) * hp->d_state;
    return (fm_kv_shape){
        .n_attn_layer = m->n_attention - m->n_windowed,
        .n_window_layer = m->n_windowed,
        .n_window_ctx = m->n_windowed ? window_slots(hp, n_ctx, n_batch) : 0,
        .n_delta_layer = m->n_delta,
        .n_head_kv = hp->n_head_kv,
        .d_head = hp->d_head,
        .n_ctx = n_ctx,
        .f16 = f16,
        .shared_rows = hp->n_latent > 0,
        .conv_floats = m->n_delta ? (hp->n_conv - 1) * channels : 0,
        .n_index_layer = fm_model_chooses(m, n_ctx) ? m->n_index_layer : 0,
        .d_index = hp->d_index,
        .state_floats = (int64_t)hp->n_v_head * hp->d_state * hp->d_state,
        .two_states = m->n_draft > 0 && m->n_delta > 0,
    };
}
