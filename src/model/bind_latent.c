/* Configuration and tensors of multi-head latent attention (block_latent.c), shared by the families that
 * have it. */
#include "model/family.h"

/* Largest width of a head or a latent. */
enum { WIDTH_MAX = 1 << 16 };

/* The epsilon of the norms of both latents. No configuration or file has a key for it: the published
 * code and transformers (models/deepseek_v3) leave it at the norm's default, whatever rms_norm_eps is. */
static const float LATENT_EPS = 1e-6f;

/* "attention.<name>_mla", which newer files have and which then is what `name` is in older ones. */
static fm_status head_width(const fm_checkpoint *c, const char *mla_key, const char *key,
                            int32_t *out, fm_error *err)
{
    FM_TRY(fm_hp_i32_or(c, mla_key, out, 0, 1, WIDTH_MAX, err));
    return *out > 0 ? FM_OK : fm_hp_i32(c, key, out, 1, WIDTH_MAX, err);
}

fm_status fm_hp_latent(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    int32_t d_query;
    FM_TRY(fm_hp_i32(c, "attention.kv_lora_rank", &hp->n_latent, 1, WIDTH_MAX, err));
    FM_TRY(fm_hp_i32_or(c, "attention.q_lora_rank", &hp->n_latent_q, 0, 0, WIDTH_MAX, err));
    FM_TRY(head_width(c, "attention.key_length_mla", "attention.key_length", &d_query, err));
    FM_TRY(
        head_width(c, "attention.value_length_mla", "attention.value_length", &hp->d_value, err));
    FM_TRY(fm_hp_i32(c, "rope.dimension_count", &hp->rope.n_rot, 2, WIDTH_MAX, err));
    if (hp->rope.n_rot >= d_query || hp->rope.n_rot % 2 != 0)
        return fm_fail(
            err, FM_E_FORMAT,
            "%s: rope.dimension_count %d, expected an even number below the %d values of "
            "a query head",
            fm_checkpoint_file(c, 0), hp->rope.n_rot, d_query);
    hp->d_nope = d_query - hp->rope.n_rot;
    hp->n_head_kv = 1;
    hp->d_head = hp->n_latent + hp->rope.n_rot;
    hp->eps_latent = LATENT_EPS;
    return fm_rope_read(c, &hp->rope, err);
}

fm_status fm_bind_latent(fm_binder *b)
{
    const fm_hparams *hp = b->hp;
    const int64_t n_head = hp->n_head, q = n_head * (hp->d_nope + hp->rope.n_rot);
    if (hp->n_latent_q) {
        FM_TRY(fm_bind_matrix(b, FM_W_Q_A, "attn_q_a.weight", hp->n_embd, hp->n_latent_q));
        FM_TRY(fm_bind_vector(b, FM_W_Q_A_NORM, "attn_q_a_norm.weight", hp->n_latent_q));
        FM_TRY(fm_bind_matrix(b, FM_W_Q_B, "attn_q_b.weight", hp->n_latent_q, q));
    } else {
        FM_TRY(fm_bind_matrix(b, FM_W_Q, "attn_q.weight", hp->n_embd, q));
    }
    FM_TRY(fm_bind_matrix(b, FM_W_KV_A, "attn_kv_a_mqa.weight", hp->n_embd, hp->d_head));
    FM_TRY(fm_bind_vector(b, FM_W_KV_A_NORM, "attn_kv_a_norm.weight", hp->n_latent));
    if (fm_bind_has(b, "attn_k_b.weight")) {
        FM_TRY(fm_bind_stack(b, FM_W_K_B, "attn_k_b.weight", hp->d_nope, hp->n_latent, n_head));
        FM_TRY(fm_bind_stack(b, FM_W_V_B, "attn_v_b.weight", hp->n_latent, hp->d_value, n_head));
    } else {
        FM_TRY(fm_bind_matrix(b, FM_W_KV_B, "attn_kv_b.weight", hp->n_latent,
                              n_head * (hp->d_nope + hp->d_value)));
    }
    return fm_bind_matrix(b, FM_W_O, "attn_output.weight", n_head * hp->d_value, hp->n_embd);
}
