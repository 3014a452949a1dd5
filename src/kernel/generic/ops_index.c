/* Scores of the sparse-attention indexer in plain C:
 *   out[p] = sum over heads h of w_h max(0, q_h . k_p)
 * Source: DeepSeek-V3.2 (arXiv 2512.02556) equation 1; transformers, DeepseekV32Indexer.
 */
#include "kernel/ops_internal.h"

#include "quant/f16.h"

void fm_index_scores_generic(float *out, const float *q, const float *w, const void *k,
                             int64_t n_block, int64_t d, int64_t n_head, int f16)
{
    for (int64_t p = 0; p < n_block * FM_INDEX_BLOCK; p++) {
        const int64_t first = p / FM_INDEX_BLOCK * FM_INDEX_BLOCK * d + p % FM_INDEX_BLOCK;
        float sum = 0.0f;
        for (int64_t h = 0; h < n_head; h++) {
            float dot = 0.0f;
            for (int64_t i = 0; i < d; i++) {
                const int64_t at = first + i * FM_INDEX_BLOCK;
                const float x =
                    f16 ? fm_f16_to_f32(((const uint16_t *)k)[at]) : ((const float *)k)[at];
                dot += q[h * d + i] * x;
            }
            sum += w[h] * (dot > 0.0f ? dot : 0.0f);
        }
        out[p] = sum;
    }
}
