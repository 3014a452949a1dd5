/* Which encoder a type has; the plain types; what cannot be encoded. */
#include "quant/encode.h"

#include <math.h>
#include <string.h>

#include "quant/encode_internal.h"
#include "quant/quant.h"
#include "quant/quant_block.h"

static void put_le(uint8_t *p, uint32_t v, int n)
{
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> (8 * i));
}

/* Round to nearest, ties to even. A number near the largest f32 becomes infinity. */
static uint16_t bf16_of(float x)
{
    const uint32_t u = fm_f32_bits(x);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static fm_encode_status encode_plain_type(uint32_t type, uint8_t *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(src[i])) return FM_ENCODE_NOT_FINITE;
        if (type == FM_TYPE_F32) {
            put_le(dst + 4 * i, fm_f32_bits(src[i]), 4);
            continue;
        }
        const uint16_t h = type == FM_TYPE_F16 ? fm_f32_to_f16(src[i]) : bf16_of(src[i]);
        const uint32_t infinity = type == FM_TYPE_F16 ? 0x7c00 : 0x7f80;
        if ((h & 0x7fffu) >= infinity) return FM_ENCODE_RANGE;
        put_le(dst + 2 * i, h, 2);
    }
    return FM_ENCODE_OK;
}

static fm_encode_block_fn block_encoder(const fm_encode_set *set, uint32_t type)
{
    switch (type) {
    case FM_TYPE_Q8_0:
        return set->q8_0;
    case FM_TYPE_Q4_0:
        return set->q4_0;
    case FM_TYPE_MXFP4:
        return set->mxfp4;
    case FM_TYPE_Q2_K:
        return set->q2_k;
    case FM_TYPE_Q3_K:
        return set->q3_k;
    case FM_TYPE_Q4_K:
        return set->q4_k;
    case FM_TYPE_Q5_K:
        return set->q5_k;
    case FM_TYPE_Q6_K:
        return set->q6_k;
    default:
        return NULL;
    }
}

static bool is_plain(uint32_t type)
{
    return type == FM_TYPE_F32 || type == FM_TYPE_F16 || type == FM_TYPE_BF16;
}

/* The largest magnitude whose scale is still a half with room for what fitting adds. */
static float most_of(uint32_t type)
{
    switch (type) {
    case FM_TYPE_MXFP4:
        return 0x1p120f;
    case FM_TYPE_Q8_0:
        return 65504.0f * 100;
    case FM_TYPE_Q6_K: /* 65504 * 121 * 28, and so on, less a margin */
        return 65504.0f * 2000;
    case FM_TYPE_Q3_K:
        return 65504.0f * 50;
    case FM_TYPE_Q4_0:
        return 65504.0f * 4;
    case FM_TYPE_Q2_K: /* the minimum: 65504 * 12 */
        return 65504.0f * 8;
    default:
        return 65504.0f * 40;
    }
}

static fm_encode_status encode_with(const fm_encode_set *set, uint32_t type, void *dst,
                                    const float *src, const float *weight, int64_t n)
{
    uint8_t *to = dst;
    if (is_plain(type)) return encode_plain_type(type, to, src, n);
    const fm_encode_block_fn encode = block_encoder(set, type);
    const fm_type_traits *traits = fm_type_get(type);
    const float most = most_of(type);
    float ones[256];
    for (int i = 0; i < 256; i++) ones[i] = 1.0f;
    for (int64_t at = 0; at < n; at += traits->block_elems, to += traits->block_bytes) {
        float top = 0, heaviest = 0;
        int bad = 0;
        for (int i = 0; i < traits->block_elems; i++) {
            const float a = fabsf(src[at + i]);
            bad |= !(a <= 3.4028235e38f);
            top = a > top ? a : top;
            if (weight && weight[at + i] > heaviest) heaviest = weight[at + i];
        }
        if (bad) return FM_ENCODE_NOT_FINITE;
        if (top > most) return FM_ENCODE_RANGE;
        const float *w = ones;
        float scaled[256];
        if (heaviest > 0) { /* to at most 1, so that sums neither overflow nor vanish */
            const float inv = 1.0f / heaviest;
            for (int i = 0; i < traits->block_elems; i++) scaled[i] = weight[at + i] * inv;
            w = scaled;
        }
        encode(to, src + at, w);
    }
    return FM_ENCODE_OK;
}

fm_encode_status fm_encode_plain(uint32_t type, void *dst, const float *src, const float *weight,
                                 int64_t n)
{
    return encode_with(&fm_encode_set_generic, type, dst, src, weight, n);
}

fm_encode_status fm_encode(uint32_t type, void *dst, const float *src, const float *weight,
                           int64_t n)
{
#if defined(__x86_64__) || defined(__i386__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) /* f16c came with both */
        return encode_with(&fm_encode_set_avx2, type, dst, src, weight, n);
#endif
    return encode_with(&fm_encode_set_generic, type, dst, src, weight, n);
}
