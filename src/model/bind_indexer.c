/* Configuration and tensors of sparse attention's indexer (block_indexer.c). */
#include "model/family.h"

#include <inttypes.h>
#include <stdio.h>

/* Of the LayerNorm of keys, where the file has no key for it: a constant of the published code and of transformers
 * (models/deepseek_v32), whatever rms_norm_eps is. */
static const float NORM_EPS = 1e-6f;

enum {
    HEADS_MAX = 4096,
    TOPK_MAX = 1 << 20,
    SHARING_CONTEXT = 1 << 20, /* of GLM-5.2; earlier models have shorter ones and share nothing */
};

fm_status fm_hp_indexer(const fm_checkpoint *c, fm_hparams *hp, fm_error *err)
{
    FM_TRY(fm_hp_i32(c, "attention.indexer.head_count", &hp->n_index_head, 1, HEADS_MAX, err));
    FM_TRY(fm_hp_i32(c, "attention.indexer.key_length", &hp->d_index, 1, FM_INDEX_DIM_MAX, err));
    FM_TRY(fm_hp_i32(c, "attention.indexer.top_k", &hp->index_topk, 1, TOPK_MAX, err));
    FM_TRY(fm_hp_f32_or(c, "attention.layer_norm_epsilon", &hp->eps_index, NORM_EPS, err));
    if (hp->n_latent_q == 0)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: the indexer of sparse attention needs attention.q_lora_rank",
                       fm_checkpoint_file(c, 0));
    if (hp->rope.n_rot > hp->d_index)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: rope.dimension_count %d, but attention.indexer.key_length is %d",
                       fm_checkpoint_file(c, 0), hp->rope.n_rot, hp->d_index);
    return FM_OK;
}

/* Whether the layer chooses by itself; else it shares the choice of the layer before. Files of GLM-5.2 from before
 * the key exists have the published model's layers 0, 1, 2, 6, 10, ... */
static fm_status chooses(const fm_binder *b, bool *out)
{
    fm_str arch;
    char key[128];
    FM_TRY(fm_meta_str(b->c, "general.architecture", &arch, b->err));
    snprintf(key, sizeof key, "%.*s.attention.indexer.types", (int)(arch.len < 64 ? arch.len : 64),
             arch.data);
    *out = true;
    if (!fm_meta_has(b->c, key)) {
        if (b->hp->index_may_share && b->hp->n_ctx_train >= SHARING_CONTEXT)
            *out = b->index < 2 || b->index % 4 == 2;
        return FM_OK;
    }
    fm_meta_kind kind;
    uint64_t n;
    int64_t v;
    FM_TRY(fm_meta_array(b->c, key, &kind, &n, b->err));
    if (n < (uint64_t)b->hp->n_layer)
        return fm_fail(b->err, FM_E_FORMAT, "%s: %s has %" PRIu64 " elements for %d layers",
                       fm_checkpoint_file(b->c, 0), key, n, b->hp->n_layer);
    FM_TRY(fm_meta_array_int(b->c, key, (uint64_t)b->index, &v, b->err));
    *out = v != 0;
    if (b->index == 0 && !*out)
        return fm_fail(b->err, FM_E_FORMAT,
                       "%s: %s: layer 0 shares the choice of a layer before it",
                       fm_checkpoint_file(b->c, 0), key);
    return FM_OK;
}

fm_status fm_bind_indexer(fm_binder *b)
{
    const fm_hparams *hp = b->hp;
    bool is_full;
    FM_TRY(chooses(b, &is_full));
    if (!is_full) return FM_OK; /* its tensors, which some files hold, are not used */
    FM_TRY(fm_bind_matrix(b, FM_W_INDEX_Q, "indexer.attn_q_b.weight", hp->n_latent_q,
                          (int64_t)hp->n_index_head * hp->d_index));
    FM_TRY(fm_bind_matrix(b, FM_W_INDEX_K, "indexer.attn_k.weight", hp->n_embd, hp->d_index));
    FM_TRY(fm_bind_vector(b, FM_W_INDEX_K_NORM, "indexer.k_norm.weight", hp->d_index));
    FM_TRY(fm_bind_vector(b, FM_W_INDEX_K_NORM_BIAS, "indexer.k_norm.bias", hp->d_index));
    return fm_bind_matrix(b, FM_W_INDEX_WEIGHTS, "indexer.proj.weight", hp->n_embd,
                          hp->n_index_head);
}
