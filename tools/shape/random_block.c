/* Random weights in every block format: see random_block.h. */
#include "shape/random_block.h"

#include <math.h>
#include <string.h>

#include "base/random.h"
#include "quant/f16.h"

double sg_uniform(uint64_t *s)
{
    return (double)(fm_splitmix64(s) >> 11) * 0x1p-53;
}

double sg_normal(uint64_t *s)
{
    const double u = sg_uniform(s), v = sg_uniform(s);
    return sqrt(-2.0 * log(u + 1e-300)) * cos(6.283185307179586 * v);
}

void sg_store_f16(unsigned char *p, double v)
{
    const uint16_t h = fm_f32_to_f16((float)v);
    p[0] = (unsigned char)h;
    p[1] = (unsigned char)(h >> 8);
}

void sg_random_block(const fm_type_traits *type, unsigned char *b, double std, uint64_t *s)
{
    const double jitter = 0.8 + 0.4 * sg_uniform(s);
    for (int i = 0; i < type->block_bytes; i += 8) {
        const uint64_t r = fm_splitmix64(s);
        memcpy(b + i, &r, type->block_bytes - i < 8 ? (size_t)(type->block_bytes - i) : 8);
    }
    switch (type->id) {
    case FM_TYPE_F32: {
        const float v = (float)(std * sg_normal(s));
        memcpy(b, &v, 4);
        break;
    }
    case FM_TYPE_F16:
        sg_store_f16(b, std * sg_normal(s));
        break;
    case FM_TYPE_BF16: {
        const float v = (float)(std * sg_normal(s));
        memcpy(b, (const unsigned char *)&v + 2, 2);
        break;
    }
    case FM_TYPE_Q8_0: /* uniform bytes but -128: rms 73.6 */
        sg_store_f16(b, jitter * std / 73.6);
        for (int i = 2; i < 34; i++)
            if (b[i] == 0x80) b[i] = 0x81;
        break;
    case FM_TYPE_Q4_0:
        sg_store_f16(b, (fm_splitmix64(s) & 1 ? 1 : -1) * jitter * std / 4.64);
        break;
    case FM_TYPE_Q5_0:
        sg_store_f16(b, (fm_splitmix64(s) & 1 ? 1 : -1) * jitter * std / 9.25);
        break;
    case FM_TYPE_Q4_1: /* d q + m with m = -7.5 d */
        sg_store_f16(b, jitter * std / 4.61);
        sg_store_f16(b + 2, -7.5 * jitter * std / 4.61);
        break;
    case FM_TYPE_Q5_1:
        sg_store_f16(b, jitter * std / 9.23);
        sg_store_f16(b + 2, -15.5 * jitter * std / 9.23);
        break;
    case FM_TYPE_MXFP4: { /* rms of the 16 values is 2.92 */
        const int e = 127 + (int)lround(log2(std / 2.92));
        b[0] = (unsigned char)(e < 1 ? 1 : e > 254 ? 254 : e);
        break;
    }
    case FM_TYPE_Q2_K: /* scale = minimum code m in 4 bits, dmin = 1.5 d: m d (q - 1.5), rms 1.12 m d */
        for (int i = 0; i < 16; i++) {
            const unsigned m = 8 + (b[i] & 7);
            b[i] = (unsigned char)(m | m << 4);
        }
        sg_store_f16(b + 80, jitter * std / (1.12 * 11.6));
        sg_store_f16(b + 82, 1.5 * jitter * std / (1.12 * 11.6));
        break;
    case FM_TYPE_Q3_K: /* (sc - 32) random sign and size, q in -4..3: rms about 2.3 x 18.5 */
        sg_store_f16(b + 108, jitter * std / (2.35 * 18.5));
        break;
    case FM_TYPE_Q4_K:
    case FM_TYPE_Q5_K: { /* scale = minimum code = m in 40..63, dmin = (q range / 2) d */
        const double half = type->id == FM_TYPE_Q4_K ? 7.5 : 15.5,
                     rms = type->id == FM_TYPE_Q4_K ? 4.61 : 9.23;
        const double d = jitter * std / (rms * 51.9);
        unsigned m[8];
        for (int i = 0; i < 8; i++) m[i] = 40 + (unsigned)(fm_splitmix64(s) % 24);
        for (int i = 0; i < 4; i++) {
            b[4 + i] = b[8 + i] = (unsigned char)(m[i] | (m[i + 4] >> 4) << 6);
            b[12 + i] = (unsigned char)((m[i + 4] & 15) | (m[i + 4] & 15) << 4);
        }
        sg_store_f16(b, d);
        sg_store_f16(b + 2, half * fm_f16_to_f32(fm_f32_to_f16((float)d)));
        break;
    }
    case FM_TYPE_Q6_K:
        for (int i = 0; i < 16; i++) {
            const int sc = 40 + (int)(fm_splitmix64(s) % 24);
            b[192 + i] = (unsigned char)(fm_splitmix64(s) & 1 ? sc : -sc);
        }
        sg_store_f16(b + 208, jitter * std / (18.5 * 51.9));
        break;
    /* Code books: rms of a book's values as quant_block_iq.h counts them, of odd scales up to 31 or 15, and the factor of d. */
    case FM_TYPE_IQ2_XXS:
        sg_store_f16(b, jitter * std / (23.1 * 18.5 / 8));
        break;
    case FM_TYPE_IQ2_XS:
    case FM_TYPE_IQ2_S:
        sg_store_f16(b, jitter * std / (24.3 * 18.5 / 8));
        break;
    case FM_TYPE_IQ3_XXS:
        sg_store_f16(b, jitter * std / (15.4 * 18.5 / 2));
        break;
    case FM_TYPE_IQ3_S:
        sg_store_f16(b, jitter * std / (7.6 * 18.5));
        break;
    case FM_TYPE_IQ1_S:
        sg_store_f16(b, jitter * std / (6.25 * 9.2 / 8));
        break;
    case FM_TYPE_IQ1_M: { /* the half lies in the upper nibbles of four words */
        unsigned char half[2];
        sg_store_f16(half, jitter * std / (6.25 * 9.2 / 8));
        for (int i = 0; i < 4; i++)
            b[49 + 2 * i] =
                (unsigned char)((b[49 + 2 * i] & 15) | (half[i / 2] >> (4 * (i & 1)) & 15) << 4);
        break;
    }
    case FM_TYPE_IQ4_NL: /* rms of the 16 values is 67.5 */
        sg_store_f16(b, (fm_splitmix64(s) & 1 ? 1 : -1) * jitter * std / 67.5);
        break;
    case FM_TYPE_IQ4_XS: /* scales of 6 bits less 32 */
        sg_store_f16(b, jitter * std / (67.5 * 18.5));
        break;
    default:
        break;
    }
}
