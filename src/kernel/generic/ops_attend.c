/* Attention over cached positions in plain C: one query head at a time, blocks of 64 absolute
 * positions, online softmax. The caller owns the cache and joins the units.
 *
 * For every block with scores s_p = q . k_p:
 *   m' = max(m, max_p s_p);  c = exp(m - m')
 *   l  = c l + sum_p exp(s_p - m');  o = c o + sum_p exp(s_p - m') v_p;  m = m'
 * Source of the online form: Milakov and Gimelshein, "Online normalizer calculation for softmax",
 * 2018, section 3.
 */
#include "kernel/ops_internal.h"

#include "quant/f16.h"

#include <math.h>

enum { LANES = 8 };

/* Element i of a cached row. */
static float element(const void *row, int64_t i, int f16)
{
    return f16 ? fm_f16_to_f32(((const uint16_t *)row)[i]) : ((const float *)row)[i];
}

static const void *row_at(const void *base, int64_t index, int f16)
{
    return f16 ? (const void *)((const uint16_t *)base + index)
               : (const void *)((const float *)base + index);
}

/* Eight running sums, element i in sum i mod 8: a fixed order with a small rounding error. */
static float dot(const float *q, const void *row, int64_t d, int f16)
{
    float lane[LANES] = {0};
    for (int64_t i = 0; i < d; i++) lane[i % LANES] += q[i] * element(row, i, f16);
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* Scores of n positions become weights relative to the new maximum; their sum joins *l. Returns what earlier sums are
 * multiplied with. */
static float weigh(float *s, int64_t n, float max, float *m, float *l)
{
    const float carry = expf(*m - max);
    float sum = 0.0f;
    for (int64_t p = 0; p < n; p++) {
        s[p] = expf(s[p] - max);
        sum += s[p];
    }
    *m = max;
    *l = *l * carry + sum;
    return carry;
}

/* One query head, one block of n <= 64 positions starting at rows k and v. */
static void attend_block(float *o, float *m, float *l, const float *q, const void *k, const void *v,
                         int64_t stride, int64_t n, int64_t dk, int64_t dv, int f16)
{
    float s[FM_ATTN_BLOCK];
    float max = *m;
    for (int64_t p = 0; p < n; p++) {
        s[p] = dot(q, row_at(k, p * stride, f16), dk, f16);
        max = s[p] > max ? s[p] : max;
    }
    const float carry = weigh(s, n, max, m, l);
    for (int64_t i = 0; i < dv; i++) o[i] *= carry;
    for (int64_t p = 0; p < n; p++) {
        const void *row = row_at(v, p * stride, f16);
        for (int64_t i = 0; i < dv; i++) o[i] += s[p] * element(row, i, f16);
    }
}

void fm_attend_generic(float *o, float *m, float *l, const float *q, const void *k, const void *v,
                       int64_t stride, int64_t pos0, int64_t pos1, int64_t dk, int64_t dv,
                       int64_t n_q, int f16)
{
    for (int64_t h = 0; h < n_q; h++) {
        m[h] = -INFINITY;
        l[h] = 0.0f;
        for (int64_t i = 0; i < dv; i++) o[h * dv + i] = 0.0f;
    }
    for (int64_t pos = pos0; pos < pos1;) {
        const int64_t block_end = (pos / FM_ATTN_BLOCK + 1) * FM_ATTN_BLOCK;
        const int64_t end = block_end < pos1 ? block_end : pos1;
        for (int64_t h = 0; h < n_q; h++) {
            attend_block(o + h * dv, m + h, l + h, q + h * dk, row_at(k, pos * stride, f16),
                         row_at(v, pos * stride, f16), stride, end - pos, dk, dv, f16);
        }
        pos = end;
    }
}

void fm_attend_rows_generic(float *o, float *m, float *l, const float *q, const float *kt,
                            const float *v, int64_t n_row, int64_t group, int64_t seen, int64_t dk,
                            int64_t dv)
{
    for (int64_t r = 0; r < n_row; r++, o += dv, q += dk) {
        const int64_t all = seen + r / group, n = all < FM_ATTN_BLOCK ? all : FM_ATTN_BLOCK;
        float s[FM_ATTN_BLOCK] = {0}, max = m[r];
        for (int64_t i = 0; i < dk; i++)
            for (int64_t p = 0; p < n; p++) s[p] += q[i] * kt[i * FM_ATTN_BLOCK + p];
        for (int64_t p = 0; p < n; p++) max = s[p] > max ? s[p] : max;
        const float carry = weigh(s, n, max, m + r, l + r);
        for (int64_t i = 0; i < dv; i++) o[i] *= carry;
        for (int64_t p = 0; p < n; p++)
            for (int64_t i = 0; i < dv; i++) o[i] += s[p] * v[p * dv + i];
    }
}
