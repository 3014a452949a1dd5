/* Gated DeltaNet in plain C: the short convolution in front of it, the recurrent form for one
 * token and the chunked form for a block of a prompt. Also the layout of the chunked form's
 * scratch, which all kernel sets share.
 *
 * Source: Yang, Kautz and Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule",
 * 2024, section 3. Chunked form, rows are the tokens of a block, S the state before it:
 *   gamma_i = g_1 + .. + g_i                       D_ij = exp(gamma_i - gamma_j), i >= j
 *   A_ij = beta_i (k_i . k_j) D_ij, i > j          P_ij = (q_i . k_j) D_ij, i >= j
 *   V' = (I + A)^-1 (beta V - beta e^gamma K S)
 *   O  = e^gamma Q S + P V'
 *   S  = e^gamma_n S + sum_j e^(gamma_n - gamma_j) k_j V'_j^T
 * V' is often written U - W S with two triangular systems, U for beta V and W for beta e^gamma K;
 * solving for the difference of the right-hand sides needs one system only. The solution goes
 * forward row by row, V'_i = rhs_i - sum_{j<i} A_ij V'_j, so no row depends on a later token.
 */
#include "kernel/ops_internal.h"

#include <math.h>
#include <stddef.h>

enum { BLOCK = FM_DELTA_BLOCK, CHANNELS = 64 };

static int64_t round16(int64_t n)
{
    return (n + 15) & ~(int64_t)15;
}

size_t fm_delta_scratch(int64_t dk, int64_t dv)
{
    return (size_t)(2 * BLOCK * BLOCK + BLOCK * (2 * round16(dk) + round16(dv)) + 16);
}

fm_delta_parts fm_delta_split(float *scratch, int64_t dk, int64_t dv)
{
    while ((uintptr_t)scratch % 64 != 0) scratch++;
    fm_delta_parts parts;
    parts.a = scratch;
    parts.p = parts.a + BLOCK * BLOCK;
    parts.kt = parts.p + BLOCK * BLOCK;
    parts.qt = parts.kt + BLOCK * round16(dk);
    parts.vn = parts.qt + BLOCK * round16(dk);
    parts.vn_stride = round16(dv);
    return parts;
}

/* Channels [c0, c1) in groups. Tokens go backwards, so that y may be x: the inputs of a token are
 * its own and earlier rows. */
void fm_conv_silu_generic(float *y, const float *x, float *state, const float *w, int64_t n_tok,
                          int64_t stride, int64_t n_ch, int64_t n_tap, int64_t c0, int64_t c1)
{
    const int64_t n_old = n_tap - 1;
    float next[FM_CONV_TAPS_MAX - 1][CHANNELS]; /* state after the last token */
    for (int64_t c = c0; c < c1; c += CHANNELS) {
        const int64_t width = c1 - c < CHANNELS ? c1 - c : CHANNELS;
        for (int64_t j = 0; j < n_old; j++) {
            const int64_t t = n_tok - n_old + j; /* negative: still a row of the old state */
            const float *row = t < 0 ? state + (t + n_old) * n_ch : x + t * stride;
            for (int64_t i = 0; i < width; i++) next[j][i] = row[c + i];
        }
        for (int64_t t = n_tok - 1; t >= 0; t--) {
            float sum[CHANNELS] = {0};
            for (int64_t j = 0; j < n_tap; j++) {
                const int64_t from = t - n_old + j;
                const float *row = from < 0 ? state + (from + n_old) * n_ch : x + from * stride;
                for (int64_t i = 0; i < width; i++) sum[i] += w[(c + i) * n_tap + j] * row[c + i];
            }
            for (int64_t i = 0; i < width; i++) {
                y[t * stride + c + i] = sum[i] / (1.0f + expf(-sum[i]));
            }
        }
        for (int64_t j = 0; j < n_old; j++) {
            for (int64_t i = 0; i < width; i++) state[j * n_ch + c + i] = next[j][i];
        }
    }
}

/* Columns of S are independent; in groups, so that r and delta fit a small array. */
void fm_delta_step_generic(float *S, float *o, const float *q, const float *k, const float *v,
                           float g, float beta, int64_t dk, int64_t dv)
{
    const float decay = expf(g);
    for (int64_t c = 0; c < dv; c += CHANNELS) {
        const int64_t width = dv - c < CHANNELS ? dv - c : CHANNELS;
        float r[CHANNELS] = {0}, out[CHANNELS] = {0};
        for (int64_t row = 0; row < dk; row++) {
            float *s = S + row * dv + c;
            for (int64_t i = 0; i < width; i++) {
                s[i] *= decay;
                r[i] += s[i] * k[row];
            }
        }
        for (int64_t i = 0; i < width; i++) r[i] = beta * (v[c + i] - r[i]); /* now delta */
        for (int64_t row = 0; row < dk; row++) {
            float *s = S + row * dv + c;
            for (int64_t i = 0; i < width; i++) {
                s[i] += k[row] * r[i];
                out[i] += s[i] * q[row];
            }
        }
        for (int64_t i = 0; i < width; i++) o[c + i] = out[i];
    }
}

static float dot(const float *a, const float *b, int64_t n)
{
    float lane[8] = {0};
    for (int64_t i = 0; i < n; i++) lane[i % 8] += a[i] * b[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* y [dv] = S^T x */
static void state_product(float *y, const float *S, const float *x, int64_t dk, int64_t dv)
{
    for (int64_t i = 0; i < dv; i++) y[i] = 0.0f;
    for (int64_t row = 0; row < dk; row++) {
        for (int64_t i = 0; i < dv; i++) y[i] += S[row * dv + i] * x[row];
    }
}

void fm_delta_chunk_generic(float *S, float *o, const float *q, const float *k, const float *v,
                            const float *g, const float *beta, int64_t n, int64_t qk_stride,
                            int64_t v_stride, int64_t o_stride, int64_t gb_stride, int64_t dk,
                            int64_t dv, float *scratch)
{
    const fm_delta_parts parts = fm_delta_split(scratch, dk, dv);
    /* In f64: where tokens forget quickly gamma is large and its differences are small. */
    double gamma[BLOCK], sum = 0.0;
    for (int64_t i = 0; i < n; i++) gamma[i] = sum += g[i * gb_stride];

    for (int64_t i = 0; i < n; i++) {
        const float *qi = q + i * qk_stride, *ki = k + i * qk_stride;
        float *vi = parts.vn + i * parts.vn_stride, *oi = o + i * o_stride;
        const float decay = expf((float)gamma[i]), b = beta[i * gb_stride];

        state_product(vi, S, ki, dk, dv);
        for (int64_t c = 0; c < dv; c++) vi[c] = b * (v[i * v_stride + c] - decay * vi[c]);
        for (int64_t j = 0; j < i; j++) {
            const float d_ij = expf((float)(gamma[i] - gamma[j]));
            const float a_ij = b * dot(ki, k + j * qk_stride, dk) * d_ij;
            const float *vj = parts.vn + j * parts.vn_stride;
            for (int64_t c = 0; c < dv; c++) vi[c] -= a_ij * vj[c];
        }
        state_product(oi, S, qi, dk, dv);
        for (int64_t c = 0; c < dv; c++) oi[c] *= decay;
        for (int64_t j = 0; j <= i; j++) {
            const float p_ij = dot(qi, k + j * qk_stride, dk) * expf((float)(gamma[i] - gamma[j]));
            const float *vj = parts.vn + j * parts.vn_stride;
            for (int64_t c = 0; c < dv; c++) oi[c] += p_ij * vj[c];
        }
    }

    const float decay = expf((float)sum);
    for (int64_t i = 0; i < dk * dv; i++) S[i] *= decay;
    for (int64_t j = 0; j < n; j++) {
        const float d_nj = expf((float)(sum - gamma[j]));
        const float *kj = k + j * qk_stride, *vj = parts.vn + j * parts.vn_stride;
        for (int64_t row = 0; row < dk; row++) {
            const float factor = d_nj * kj[row];
            for (int64_t c = 0; c < dv; c++) S[row * dv + c] += factor * vj[c];
        }
    }
}
