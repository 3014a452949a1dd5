/* Values for products, see the header. What a caller gets depends on what was asked for since
 * random_start(). */
#include "support/random_weights.h"

#include <math.h>
#include <string.h>

#include "quant/planar.h"

const uint32_t quantized[N_QUANTIZED] = {
    FM_TYPE_Q4_0, FM_TYPE_Q4_1, FM_TYPE_Q5_0, FM_TYPE_Q5_1, FM_TYPE_Q8_0, FM_TYPE_MXFP4,
    FM_TYPE_Q2_K, FM_TYPE_Q3_K, FM_TYPE_Q4_K, FM_TYPE_Q5_K, FM_TYPE_Q6_K,
    FM_TYPE_IQ4_NL, FM_TYPE_IQ4_XS, FM_TYPE_IQ3_S, FM_TYPE_IQ3_XXS, FM_TYPE_IQ2_S,
    FM_TYPE_IQ2_XS, FM_TYPE_IQ2_XXS, FM_TYPE_IQ1_M, FM_TYPE_IQ1_S};

static uint64_t random_state = 0x2545f4914f6cdd1du;

void random_start(uint64_t seed)
{
    random_state = seed;
}

uint32_t random_u32(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

float random_float(void)
{
    return (float)(random_u32() >> 8) * 0x1p-23f - 1.0f;
}

/* The f16 of IQ1_M lies in the upper nibbles of four words. */
static void put_half_iq1_m(uint8_t *p, unsigned h)
{
    for (int j = 0; j < 4; j++)
        p[49 + 2 * j] = (uint8_t)((p[49 + 2 * j] & 15) | (h >> (4 * j) & 15) << 4);
}

/* Offsets of the f16 scales in a block. */
static int scale_offsets(const fm_type_traits *t, int offsets[2])
{
    switch (t->id) {
    case FM_TYPE_Q2_K: offsets[0] = 80, offsets[1] = 82; return 2;
    case FM_TYPE_Q3_K: offsets[0] = 108; return 1;
    case FM_TYPE_Q6_K: offsets[0] = 208; return 1;
    case FM_TYPE_MXFP4: return 0;
    case FM_TYPE_Q4_0:
    case FM_TYPE_Q5_0:
    case FM_TYPE_Q8_0:
    case FM_TYPE_IQ4_NL:
    case FM_TYPE_IQ4_XS:
    case FM_TYPE_IQ3_S:
    case FM_TYPE_IQ3_XXS:
    case FM_TYPE_IQ2_S:
    case FM_TYPE_IQ2_XS:
    case FM_TYPE_IQ2_XXS:
    case FM_TYPE_IQ1_S: offsets[0] = 0; return 1;
    default: offsets[0] = 0, offsets[1] = 2; return 2;
    }
}

void fill_block(const fm_type_traits *t, uint8_t *p, weight_kind kind)
{
    for (int i = 0; i < t->block_bytes; i++)
        p[i] = kind == W_ZERO      ? 0
               : kind == W_LARGEST ? 0xff
               : kind == W_LOWEST  ? 0x80
                                   : (uint8_t)random_u32();
    if (kind == W_LOWEST && t->id == FM_TYPE_Q6_K) memset(p, 0, 192);
    if (kind == W_LOWEST && (t->id == FM_TYPE_IQ4_XS || t->id == FM_TYPE_Q3_K))
        memset(p, 0, t->block_bytes);
    int offsets[2];
    const int in_pieces = t->id == FM_TYPE_IQ1_M, n = in_pieces ? 1 : scale_offsets(t, offsets);
    for (int i = 0; i < n; i++) {
        unsigned h = 0x2000 + random_u32() % 0x1000; /* about 0.01 */
        h |= (random_u32() & 1) << 15;
        if (kind == W_ZERO) h = 0;
        if (kind == W_LARGEST) h = 0x7bff;
        if (kind == W_DENORMAL) h = random_u32() % 4;
        if (in_pieces) {
            put_half_iq1_m(p, h);
            continue;
        }
        p[offsets[i]] = (uint8_t)h;
        p[offsets[i] + 1] = (uint8_t)(h >> 8);
    }
    if (t->id == FM_TYPE_MXFP4 && kind != W_LARGEST)
        p[0] = kind == W_DENORMAL ? (uint8_t)(random_u32() % 4) : (uint8_t)(115 + random_u32() % 8);
}

/* About 0.01, of either sign where there is one. */
static void put_scale(uint8_t *p, fm_scale scale)
{
    const uint32_t sign = random_u32() & 1, fraction = random_u32();
    uint32_t bits = 0;
    switch (scale) {
    case FM_SCALE_F32: bits = sign << 31 | (0x3c000000 + fraction % 0x1000000); break;
    case FM_SCALE_BF16: bits = sign << 15 | (0x3c00 + fraction % 0x100); break;
    case FM_SCALE_F16: bits = sign << 15 | (0x2000 + fraction % 0x1000); break;
    case FM_SCALE_E8M0: bits = 115 + fraction % 8; break;
    }
    for (uint32_t i = 0; i < fm_scale_bytes(scale); i++) p[i] = (uint8_t)(bits >> 8 * i);
}

void fill_planes(const fm_type_traits *t, uint8_t *const *plane, int64_t n_out, int64_t n_in)
{
    const uint64_t n_code = (uint64_t)n_out * fm_plane_row_bytes(t, 0, n_in);
    for (uint64_t i = 0; i < n_code; i++) {
        plane[0][i] = (uint8_t)random_u32();
        if (t->code == FM_CODE_E4M3 && (plane[0][i] & 0x7f) == 0x7f) plane[0][i] ^= 0x40;
    }
    for (int k = 1; k < fm_type_n_plane(t); k++) {
        const uint64_t n = (uint64_t)fm_plane_rows(t, k, n_out) * fm_plane_row_bytes(t, k, n_in);
        for (uint64_t i = 0; i < n; i += fm_scale_bytes((fm_scale)t->scale))
            put_scale(plane[k] + i, (fm_scale)t->scale);
    }
}

void fill_activations(float *x, int64_t n, activation_kind kind)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = random_float();
        if (kind == X_ZERO) x[i] = i & 1 ? -0.0f : 0.0f;
        if (kind == X_SPIKE && i % 50 == 3) x[i] *= 1e9f;
        if (kind == X_DENORMAL) x[i] *= i < n / 2 ? 1e-40f : 1e-36f;
        if (kind == X_NOT_FINITE && i % 100 == 7) x[i] = i % 200 == 7 ? INFINITY : -NAN;
    }
}
