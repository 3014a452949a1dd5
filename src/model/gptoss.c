/* gpt-oss: gpt-oss-120b and 20b.
 *
 * Grouped-query attention with biases on q, k, v and the output, learned sinks, and a sliding window in
 * every second layer from the first on; YaRN whose ramp ends at fractions of a pair (GGUF files do not
 * say so, the published configuration does: truncate false). Experts have biases and the clamped SwiGLU
 * with alpha 1.702 and limit 7; GGUF files carry neither number, both are the architecture's defaults.
 * The router has a bias and takes softmax over its k best logits, which equals softmax over all,
 * divided by the sum of the k best. No shared expert, no dense layers.
 * Source: transformers, models/gpt_oss; checked by tests/model/test_reference.c.
 */
#include "model/family.h"

static fm_status read_config(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    FM_TRY(fm_hp_common(c, hp, err));
    FM_TRY(fm_hp_i32(c, "attention.sliding_window", &hp->window, 1, INT32_MAX, err));
    FM_TRY(fm_hp_bool_or(c, "rope.scaling.truncate", &hp->rope.truncate, false, err));
    FM_TRY(fm_hp_f32_or(c, "swiglu_alpha", &hp->swiglu_alpha, 1.702f, err));
    FM_TRY(fm_hp_f32_or(c, "swiglu_limit", &hp->swiglu_limit, 7.0f, err));
    hp->full_attention_interval = 1;
    return FM_OK;
}

static fm_status bind_layer(fm_binder *b)
{
    const fm_hparams *hp = b->hp;
    b->layer->windowed = b->index % 2 == 0;
    FM_TRY(fm_bind_vector(b, FM_W_ATTN_NORM, "attn_norm.weight", hp->n_embd));
    FM_TRY(fm_bind_attention(b));
    FM_TRY(fm_bind_qkv_bias(b));
    FM_TRY(fm_bind_vector(b, FM_W_O_BIAS, "attn_output.bias", hp->n_embd));
    FM_TRY(fm_bind_vector(b, FM_W_SINKS, "attn_sinks.weight", hp->n_head));
    FM_TRY(fm_bind_vector(b, FM_W_FFN_NORM, "post_attention_norm.weight", hp->n_embd));
    FM_TRY(fm_bind_experts(b));
    FM_TRY(fm_bind_vector(b, FM_W_ROUTER_BIAS, "ffn_gate_inp.bias", hp->n_expert));
    return fm_bind_expert_biases(b);
}

const fm_family fm_family_gptoss = {"gpt-oss", read_config, bind_layer, false};
