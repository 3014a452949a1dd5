/* Tensor tables of deepseek2, deepseek32 and glm-dsa: names and shapes of published GGUF files of DeepSeek-V3 and
 * Kimi K2; the indexer's names are those of llama.cpp.
 *
 * Files of today hold kv_b_proj as two tensors, of which k_b is transposed within each head, so that blocks of a
 * quantized type lie along other values than in the checkpoint. The values of such files are keyed with names of
 * their own, self_attn.k_b_proj.weight [head][latent][nope] and self_attn.v_b_proj.weight [head][value][latent]; the
 * Python side puts kv_b_proj together from them.
 */
#include "tiny_internal.h"

static tiny_tensor *add_stack(tiny_plan *plan, int layer, const char *name, const char *hf,
                              uint64_t n_col, uint64_t n_row)
{
    const uint64_t n_head = (uint64_t)plan->spec->n_head;
    tiny_tensor *t = tiny_add(plan, layer, name, hf, n_col, n_row, n_head);
    const tiny_format *wanted = tiny_trunk_format(plan->format);
    t->format = tiny_format_fit(tiny_format_of(wanted, plan->spec, t->hf), n_col);
    return t;
}

/* Fault: the rows of heads 0 and 1, `n` each, change places in layer 0. */
static void swap_heads(const tiny_plan *plan, tiny_tensor *t, const char *fault, uint64_t n)
{
    if (t->layer != 0 || !tiny_has_fault(plan, fault)) return;
    t->swap_b = n;
    t->swap_len = n;
}

static void add_attention(tiny_plan *plan, int layer)
{
    const tiny_spec *s = plan->spec;
    const uint64_t embd = (uint64_t)s->n_embd, n_head = (uint64_t)s->n_head;
    const uint64_t nope = (uint64_t)s->head_dim, rot = (uint64_t)s->rope_dim;
    const uint64_t value = (uint64_t)s->value_dim, latent = (uint64_t)s->kv_latent;
    const uint64_t q_latent = (uint64_t)s->q_latent;
    tiny_tensor *t;
    if (q_latent) {
        tiny_add_linear(plan, layer, "attn_q_a.weight", "self_attn.q_a_proj.weight", embd,
                        q_latent);
        t = tiny_add_norm(plan, layer, "attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight",
                          q_latent);
        if (layer == 0 && tiny_has_fault(plan, "q_a_norm")) tiny_flip_norm(t);
        tiny_add_linear(plan, layer, "attn_q_b.weight", "self_attn.q_b_proj.weight", q_latent,
                        n_head * (nope + rot));
    } else {
        tiny_add_linear(plan, layer, "attn_q.weight", "self_attn.q_proj.weight", embd,
                        n_head * (nope + rot));
    }
    t = tiny_add_linear(plan, layer, "attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight",
                        embd, latent + rot);
    if (layer == 0 && tiny_has_fault(plan, "rope_order")) {
        t->swap_a = latent + 1;
        t->swap_b = latent + rot / 2;
        t->swap_len = 1;
    }
    t = tiny_add_norm(plan, layer, "attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight",
                      latent);
    if (layer == 0 && tiny_has_fault(plan, "kv_a_norm")) tiny_flip_norm(t);
    if (s->has_kv_b) {
        t = tiny_add_linear(plan, layer, "attn_kv_b.weight", "self_attn.kv_b_proj.weight", latent,
                            n_head * (nope + value));
        swap_heads(plan, t, "k_b", nope);
        t->swap_b = t->swap_len ? nope + value : 0;
        if (layer == 0 && tiny_has_fault(plan, "v_b")) {
            t->swap_a = nope;
            t->swap_b = 2 * nope + value;
            t->swap_len = value;
        }
    } else {
        t = add_stack(plan, layer, "attn_k_b.weight", "self_attn.k_b_proj.weight", nope, latent);
        swap_heads(plan, t, "k_b", latent);
        t = add_stack(plan, layer, "attn_v_b.weight", "self_attn.v_b_proj.weight", latent, value);
        swap_heads(plan, t, "v_b", value);
    }
    tiny_add_linear(plan, layer, "attn_output.weight", "self_attn.o_proj.weight", n_head * value,
                    embd);
}

/* Which positions attention sees. Layers that share a choice have no tensors for it. */
static void add_indexer(tiny_plan *plan, int layer)
{
    const tiny_spec *s = plan->spec;
    const uint64_t embd = (uint64_t)s->n_embd, dim = (uint64_t)s->index_dim;
    const uint64_t n_head = (uint64_t)s->n_index_head;
    tiny_tensor *t;
    if (s->index_types && layer < s->n_layer && s->index_types[layer] != 'F') return;
    t = tiny_add_linear(plan, layer, "indexer.attn_q_b.weight", "self_attn.indexer.wq_b.weight",
                        (uint64_t)s->q_latent, n_head * dim);
    swap_heads(plan, t, "index_q", dim);
    t = tiny_add_linear(plan, layer, "indexer.attn_k.weight", "self_attn.indexer.wk.weight", embd,
                        dim);
    if (layer == 0 && tiny_has_fault(plan, "index_rope")) { /* of different pairs in both orders */
        t->swap_b = 3;
        t->swap_len = 1;
    }
    t = tiny_add_norm(plan, layer, "indexer.k_norm.weight", "self_attn.indexer.k_norm.weight", dim);
    if (layer == 0 && tiny_has_fault(plan, "index_norm")) t->effect = TINY_ZERO;
    t = tiny_add(plan, layer, "indexer.k_norm.bias", "self_attn.indexer.k_norm.bias", dim, 0, 0);
    if (layer == 0 && tiny_has_fault(plan, "index_bias")) t->effect = TINY_ZERO;
    t = tiny_add(plan, layer, "indexer.proj.weight", "self_attn.indexer.weights_proj.weight", embd,
                 n_head, 0);
    swap_heads(plan, t, "index_weights", 1);
}

void tiny_add_deepseek_layer(tiny_plan *plan, int layer)
{
    const uint64_t embd = (uint64_t)plan->spec->n_embd;
    tiny_add_norm(plan, layer, "attn_norm.weight", "input_layernorm.weight", embd);
    add_attention(plan, layer);
    tiny_tensor *t =
        tiny_add_norm(plan, layer, "ffn_norm.weight", "post_attention_layernorm.weight", embd);
    if (layer == 1 && tiny_has_fault(plan, "norm")) tiny_flip_norm(t);
    tiny_add_feed_forward(plan, layer);
    if (plan->spec->n_index_head) add_indexer(plan, layer);
    if (layer >= plan->spec->n_layer) tiny_add_draft_ends(plan, layer);
}
