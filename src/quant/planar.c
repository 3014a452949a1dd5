/* The table of the planar formats and their decoding; planar.h has the definitions.
 *
 * Origins: MLX affine, mlx/ops.cpp (quantize, dequantize); pack-quantized, compressed-tensors,
 * compressors/quantized_compressors/pack_quantized.py; MXFP4, OCP Microscaling 1.0; E4M3, Micikevicius et al., FP8
 * Formats for Deep Learning (arXiv 2209.05433). Checked against those packages by tests/unit/test_planar.c.
 */
#include "quant/planar.h"

#include <string.h>

#include "base/attr.h"
#include "base/checked.h"
#include "quant/quant_block.h"

/* The code plane as a type of one field of dwords; see the layout in planar.h. */
#define CODES(bytes)                                                                               \
    {                                                                                              \
        {                                                                                          \
            0, bytes, 4                                                                            \
        }                                                                                          \
    }
#define ROW(nm, kind, group, bits, sc, n_planes, panels, form, rows)                               \
    {                                                                                              \
        .name = nm,                                                                                \
        .id = FM_PLANAR_FIRST_ID + FM_CODE_##kind * 16 +                                           \
              (group == 32   ? 0                                                                   \
               : group == 64 ? 4                                                                   \
                             : 8) +                                                                \
              FM_SCALE_##sc,                                                                       \
        .block_elems = group, .block_bytes = group * bits / 8, .act = form, .n_field = panels,     \
        .field = CODES(group * bits / 8), .n_plane = n_planes, .code = FM_CODE_##kind,             \
        .scale = FM_SCALE_##sc, .rows_per_scale = rows                                             \
    }
#define SCALES(nm, kind, group, bits, n_planes)                                                    \
    ROW(nm, kind, group, bits, F32, n_planes, 1, FM_ACT_I15_32, 1),                                \
        ROW(nm, kind, group, bits, F16, n_planes, 1, FM_ACT_I15_32, 1),                            \
        ROW(nm, kind, group, bits, BF16, n_planes, 1, FM_ACT_I15_32, 1)
#define GROUPS(nm, kind, bits, n_planes)                                                           \
    SCALES(nm " g32", kind, 32, bits, n_planes), SCALES(nm " g64", kind, 64, bits, n_planes),      \
        SCALES(nm " g128", kind, 128, bits, n_planes)

static const fm_type_traits types[] = {
    GROUPS("MLX2", U2, 2, 3),
    GROUPS("MLX3", U3, 3, 3),
    GROUPS("MLX4", U4, 4, 3),
    GROUPS("MLX5", U5, 5, 3),
    GROUPS("MLX6", U6, 6, 3),
    GROUPS("MLX8", U8, 8, 3),
    GROUPS("INT4", I4, 4, 2),
    ROW("MXFP4", E2M1, 32, 4, E8M0, 2, 1, FM_ACT_I15_32, 1),
    ROW("FP8", E4M3, 128, 8, F32, 2, 0, FM_ACT_F32, 128),
    ROW("FP8", E4M3, 128, 8, BF16, 2, 0, FM_ACT_F32, 128),
    ROW("FP8", E4M3, 128, 8, E8M0, 2, 0, FM_ACT_F32, 128),
    ROW("FP8 row", E4M3, 32, 8, F32, 2, 0, FM_ACT_F32, 1),
    ROW("FP8 row", E4M3, 32, 8, F16, 2, 0, FM_ACT_F32, 1),
    ROW("FP8 row", E4M3, 32, 8, BF16, 2, 0, FM_ACT_F32, 1),
};
enum { N_TYPE = sizeof types / sizeof types[0] };

const fm_type_traits *fm_planar_get(uint32_t id)
{
    if (id < FM_PLANAR_FIRST_ID) return NULL;
    for (int i = 0; i < N_TYPE; i++)
        if (types[i].id == id) return &types[i];
    return NULL;
}

uint32_t fm_planar_id(fm_code code, uint32_t group, fm_scale scale)
{
    for (int i = 0; i < N_TYPE; i++)
        if (types[i].code == code && types[i].block_elems == group && types[i].scale == scale)
            return types[i].id;
    return 0;
}

int fm_code_bits(fm_code code)
{
    static const uint8_t bits[] = {0, 2, 3, 4, 5, 6, 8, 4, 4, 8};
    return bits[code];
}

int fm_code_offset(fm_code code)
{
    return code == FM_CODE_I4 ? 8 : code == FM_CODE_E2M1 ? FM_E2M1_OFFSET : 0;
}

uint64_t fm_plane_row_bytes(const fm_type_traits *t, int k, int64_t n_in)
{
    const uint64_t codes = fm_type_row_bytes(t, n_in);
    if (k == 0 || codes == 0) return codes;
    if (fm_has_row_scale(t)) return fm_scale_bytes((fm_scale)t->scale);
    return (uint64_t)(n_in / t->block_elems) * fm_scale_bytes((fm_scale)t->scale);
}

int64_t fm_plane_rows(const fm_type_traits *t, int k, int64_t n_out)
{
    if (k == 0) return n_out;
    return (n_out + t->rows_per_scale - 1) / t->rows_per_scale;
}

float fm_scale_load(fm_scale scale, const uint8_t *p)
{
    switch (scale) {
    case FM_SCALE_F16:
        return fm_f16_to_f32(fm_quant_le16(p));
    case FM_SCALE_BF16:
        return fm_bf16_to_f32(fm_quant_le16(p));
    case FM_SCALE_E8M0: /* 2^(e - 127): 255 stands for NaN */
        if (*p == 255) return fm_f32_from_bits(0x7fc00000u);
        return fm_f32_from_bits(*p == 0 ? 0x00400000u : (uint32_t)*p << 23);
    default:
        return fm_f32_from_bits(fm_quant_le32(p));
    }
}

float fm_block_scale(const fm_type_traits *t, const uint8_t *p)
{
    /* The codes are doubled; and as in GGUF's MXFP4 blocks, 255 continues the sequence. */
    return t->code == FM_CODE_E2M1 ? fm_e8m0_half(*p) : fm_scale_load((fm_scale)t->scale, p);
}

float fm_e4m3_to_f32(uint8_t v)
{
    const uint32_t sign = (uint32_t)(v & 0x80) << 24;
    if ((v & 0x7f) == 0x7f) return fm_f32_from_bits(sign | 0x7fc00000u);
    /* The exponent with bias 7 in the field of bias 127; the product also makes the subnormals right. */
    const float mag = fm_f32_from_bits((uint32_t)(v & 0x7f) << 20) * 0x1p120f;
    return fm_f32_from_bits(fm_f32_bits(mag) | sign);
}

/* ---- codes ------------------------------------------------------------------------------- */

/* Codes of `bits` bits, lowest first; a group of 8 columns takes `bits` whole bytes. */
static FM_ALWAYS_INLINE void unpack_bits(uint8_t q[32], const uint8_t *p, int bits)
{
    for (int c8 = 0; c8 < 4; c8++, p += bits) {
        uint64_t v = 0;
        for (int i = 0; i < bits; i++) v |= (uint64_t)p[i] << (8 * i);
        for (int c = 0; c < 8; c++) q[8 * c8 + c] = (uint8_t)(v >> (c * bits) & ((1u << bits) - 1));
    }
}

static FM_ALWAYS_INLINE void unpack_nibbles(uint8_t q[32], const uint8_t *p)
{
    for (int i = 0; i < 16; i++) {
        q[2 * i] = p[i] & 15;
        q[2 * i + 1] = p[i] >> 4;
    }
}

void fm_codes_unpack(fm_code code, uint8_t q[32], const uint8_t *row, int64_t b)
{
    const uint8_t *const p = row + b * 4 * fm_code_bits(code);
    switch (code) {
    case FM_CODE_U2:
        unpack_bits(q, p, 2);
        break;
    case FM_CODE_U3:
        unpack_bits(q, p, 3);
        break;
    case FM_CODE_U4:
    case FM_CODE_I4:
        unpack_nibbles(q, p);
        break;
    case FM_CODE_U5:
        unpack_bits(q, p, 5);
        break;
    case FM_CODE_U6:
        unpack_bits(q, p, 6);
        break;
    case FM_CODE_E2M1:
        unpack_nibbles(q, p);
        for (int c = 0; c < 32; c++) q[c] = fm_e2m1_unsigned[q[c]];
        break;
    default:
        memcpy(q, p, 32);
    }
}

/* ---- decoding ---------------------------------------------------------------------------- */

static void decode_e4m3(const fm_type_traits *t, float *dst, const uint8_t *codes,
                        const uint8_t *scales, int64_t n)
{
    const uint32_t step = fm_has_row_scale(t) ? 0 : fm_scale_bytes((fm_scale)t->scale);
    for (int64_t c = 0; c < n; c++)
        dst[c] = fm_e4m3_to_f32(codes[c]) *
                 fm_scale_load((fm_scale)t->scale, scales + c / t->block_elems * step);
}

void fm_decode_planes(const fm_type_traits *t, float *dst, const void *const *plane, int64_t n)
{
    if (t->n_plane == 0) {
        t->decode(dst, plane[0], n);
        return;
    }
    const fm_code code = (fm_code)t->code;
    const fm_scale scale = (fm_scale)t->scale;
    if (code == FM_CODE_E4M3) {
        decode_e4m3(t, dst, plane[0], plane[1], n);
        return;
    }
    const int offset = fm_code_offset(code);
    for (int64_t c = 0; c < n; c += 32) {
        uint8_t q[32];
        const size_t at = (size_t)(c / t->block_elems) * fm_scale_bytes(scale);
        const float d = fm_block_scale(t, (const uint8_t *)plane[1] + at);
        const float m =
            t->n_plane == 3 ? fm_scale_load(scale, (const uint8_t *)plane[2] + at) : 0.0f;
        fm_codes_unpack(code, q, plane[0], c / 32);
        for (int i = 0; i < 32; i++) {
            const float v = d * (float)(q[i] - offset);
            dst[c + i] = t->n_plane == 3 ? v + m : v;
        }
    }
}
