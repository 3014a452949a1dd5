/* Tensor tables of glm4moe and gpt-oss: names, shapes and row orders of published GGUF files. The
 * transformers class of gpt-oss keeps its experts transposed; values are keyed in the order of the
 * published checkpoint, [expert][2 ff][embd] with gate in even rows and [expert][embd][ff].
 */
#include "tiny_internal.h"

/* A bias; the fault of its name makes it zero in layer 0. */
static tiny_tensor *add_bias(tiny_plan *plan, int layer, const char *name, const char *hf,
                             uint64_t n, const char *fault)
{
    tiny_tensor *t = tiny_add(plan, layer, name, hf, n, 0, 0);
    if (fault && layer == 0 && tiny_has_fault(plan, fault)) t->effect = TINY_ZERO;
    return t;
}

static void add_attention(tiny_plan *plan, int layer)
{
    const tiny_spec *s = plan->spec;
    const uint64_t embd = (uint64_t)s->n_embd, dim = (uint64_t)s->head_dim;
    const uint64_t q = dim * (uint64_t)s->n_head, kv = dim * (uint64_t)s->n_head_kv;
    tiny_add_linear(plan, layer, "attn_q.weight", "self_attn.q_proj.weight", embd, q);
    tiny_add_linear(plan, layer, "attn_k.weight", "self_attn.k_proj.weight", embd, kv);
    tiny_add_linear(plan, layer, "attn_v.weight", "self_attn.v_proj.weight", embd, kv);
    tiny_add_linear(plan, layer, "attn_output.weight", "self_attn.o_proj.weight", q, embd);
    add_bias(plan, layer, "attn_q.bias", "self_attn.q_proj.bias", q, NULL);
    add_bias(plan, layer, "attn_k.bias", "self_attn.k_proj.bias", kv, "k_bias");
    add_bias(plan, layer, "attn_v.bias", "self_attn.v_proj.bias", kv, "v_bias");
    if (s->family == TINY_GPTOSS) {
        add_bias(plan, layer, "attn_output.bias", "self_attn.o_proj.bias", embd, "o_bias");
        add_bias(plan, layer, "attn_sinks.weight", "self_attn.sinks", (uint64_t)s->n_head, "sinks");
    } else if (s->has_qk_norm) {
        tiny_tensor *t =
            tiny_add_norm(plan, layer, "attn_q_norm.weight", "self_attn.q_norm.weight", dim);
        if (layer == 0 && tiny_has_fault(plan, "qnorm")) tiny_flip_norm(t);
        tiny_add_norm(plan, layer, "attn_k_norm.weight", "self_attn.k_norm.weight", dim);
    }
}

static void add_norms_and_attention(tiny_plan *plan, int layer)
{
    const uint64_t embd = (uint64_t)plan->spec->n_embd;
    tiny_add_norm(plan, layer, "attn_norm.weight", "input_layernorm.weight", embd);
    add_attention(plan, layer);
    tiny_tensor *t = tiny_add_norm(plan, layer, "post_attention_norm.weight",
                                   "post_attention_layernorm.weight", embd);
    if (layer == 1 && tiny_has_fault(plan, "norm")) tiny_flip_norm(t);
}

static void add_experts(tiny_plan *plan, int layer, const char *router_hf)
{
    const tiny_spec *s = plan->spec;
    const uint64_t embd = (uint64_t)s->n_embd, ff = (uint64_t)s->expert_ff;
    const uint64_t n_expert = (uint64_t)s->n_expert;
    const bool is_oss = s->family == TINY_GPTOSS, is_first = layer == s->n_dense;
    const bool is_swapped = is_first && tiny_has_fault(plan, "gate_up");
    const tiny_row_map maps[] = {is_oss ? TINY_ROW_EVEN : TINY_ROW_GATE,
                                 is_oss ? TINY_ROW_ODD : TINY_ROW_UP};
    const struct {
        const char *name, *hf;
        tiny_row_map rows;
    } parts[] = {
        {"ffn_gate_exps.weight", "mlp.experts.gate_up_proj", maps[is_swapped]},
        {"ffn_up_exps.weight", "mlp.experts.gate_up_proj", maps[!is_swapped]},
        {"ffn_down_exps.weight", "mlp.experts.down_proj", TINY_ROW_SAME},
    };
    tiny_tensor *t = tiny_add(plan, layer, "ffn_gate_inp.weight", router_hf, embd, n_expert, 0);
    if (is_first && tiny_has_fault(plan, "router")) {
        t->swap_b = 1;
        t->swap_len = 1;
    }
    for (int i = 0; i < 3; i++) {
        const bool is_down = i == 2;
        t = tiny_add(plan, layer, parts[i].name, parts[i].hf, is_down ? ff : embd,
                     is_down ? embd : ff, n_expert);
        t->format = tiny_format_fit(tiny_format_of(plan->format, s, t->hf), t->dims[0]);
        t->rows = parts[i].rows;
        t->is_expert = true;
        if (is_down && is_first && tiny_has_fault(plan, "expert_down")) {
            t->swap_b = embd;
            t->swap_len = embd;
        }
    }
}

void tiny_add_gptoss_layer(tiny_plan *plan, int layer)
{
    const tiny_spec *s = plan->spec;
    const uint64_t embd = (uint64_t)s->n_embd, ff = (uint64_t)s->expert_ff;
    const uint64_t n_expert = (uint64_t)s->n_expert;
    const struct {
        const char *name, *hf, *fault;
        tiny_col_map cols;
        uint64_t n;
    } biases[] = {
        {"ffn_gate_exps.bias", "mlp.experts.gate_up_proj_bias", "gate_bias", TINY_COL_EVEN, ff},
        {"ffn_up_exps.bias", "mlp.experts.gate_up_proj_bias", "up_bias", TINY_COL_ODD, ff},
        {"ffn_down_exps.bias", "mlp.experts.down_proj_bias", "down_bias", TINY_COL_SAME, embd},
    };
    add_norms_and_attention(plan, layer);
    add_experts(plan, layer, "mlp.router.weight");
    add_bias(plan, layer, "ffn_gate_inp.bias", "mlp.router.bias", n_expert, "router_bias");
    for (int i = 0; i < 3; i++) {
        tiny_tensor *t =
            tiny_add(plan, layer, biases[i].name, biases[i].hf, biases[i].n, n_expert, 0);
        t->cols = biases[i].cols;
        if (layer == 0 && tiny_has_fault(plan, biases[i].fault)) t->effect = TINY_ZERO;
    }
}

/* gate, up and down of one plain block. */
static void add_ffn(tiny_plan *plan, int layer, const char *const names[3], const char *const hf[3],
                    uint64_t ff, bool is_swapped)
{
    const uint64_t embd = (uint64_t)plan->spec->n_embd;
    tiny_add_linear(plan, layer, names[0], hf[is_swapped], embd, ff);
    tiny_add_linear(plan, layer, names[1], hf[!is_swapped], embd, ff);
    tiny_add_linear(plan, layer, names[2], hf[2], ff, embd);
}

void tiny_add_feed_forward(tiny_plan *plan, int layer)
{
    static const char *const dense[] = {"ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"};
    static const char *const dense_hf[] = {"mlp.gate_proj.weight", "mlp.up_proj.weight",
                                           "mlp.down_proj.weight"};
    static const char *const shared[] = {"ffn_gate_shexp.weight", "ffn_up_shexp.weight",
                                         "ffn_down_shexp.weight"};
    static const char *const shared_hf[] = {"mlp.shared_experts.gate_proj.weight",
                                            "mlp.shared_experts.up_proj.weight",
                                            "mlp.shared_experts.down_proj.weight"};
    const tiny_spec *s = plan->spec;
    if (layer < s->n_dense) {
        add_ffn(plan, layer, dense, dense_hf, (uint64_t)s->dense_ff,
                layer == 0 && tiny_has_fault(plan, "gate_up"));
        return;
    }
    add_experts(plan, layer, "mlp.gate.weight");
    tiny_tensor *t = tiny_add(plan, layer, "exp_probs_b.bias", "mlp.gate.e_score_correction_bias",
                              (uint64_t)s->n_expert, 0, 0);
    if (layer == s->n_dense && tiny_has_fault(plan, "score_bias")) t->effect = TINY_ZERO;
    add_ffn(plan, layer, shared, shared_hf, (uint64_t)s->shared_ff,
            layer == s->n_dense && tiny_has_fault(plan, "shared_up"));
}

void tiny_add_draft_ends(tiny_plan *plan, int layer)
{
    static const char *const names[][4] = {
        {"eh_proj.weight", "enorm.weight", "hnorm.weight", "shared_head.norm.weight"},
        {"mtp.fc.weight", "mtp.pre_fc_norm_embedding.weight", "mtp.pre_fc_norm_hidden.weight",
         "mtp.norm.weight"}};
    const char *const *hf = names[tiny_is_hybrid(plan->spec)];
    const uint64_t embd = (uint64_t)plan->spec->n_embd;
    tiny_add_linear(plan, layer, "nextn.eh_proj.weight", hf[0], 2 * embd, embd);
    tiny_add_norm(plan, layer, "nextn.enorm.weight", hf[1], embd);
    tiny_add_norm(plan, layer, "nextn.hnorm.weight", hf[2], embd);
    tiny_add_norm(plan, layer, "nextn.shared_head_norm.weight", hf[3], embd);
}

void tiny_add_glm4moe_layer(tiny_plan *plan, int layer)
{
    add_norms_and_attention(plan, layer);
    tiny_add_feed_forward(plan, layer);
    if (layer >= plan->spec->n_layer) tiny_add_draft_ends(plan, layer);
}
