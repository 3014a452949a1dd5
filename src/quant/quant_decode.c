/* Decoders: blocks as on disk to f32. Used for embedding rows, norms and conversions, and by the
 * reference kernels; products with quantized weights never come through here. */
#include "quant/quant_decode.h"

#include "quant/quant_block_iq.h"

/* The order of operations is the formats' own, so that values match other readers bit for bit:
 * blocks of 32: q * d + m;  blocks of 256: (d * sc) * q - (dmin * mn). */
static FM_ALWAYS_INLINE void decode_32(float *dst, const uint8_t *src, int64_t n, int block_bytes,
                                       void (*unpack)(fm_quant_block *, const uint8_t *))
{
    for (int64_t i = 0; i < n; i += 32, src += block_bytes) {
        fm_quant_block b;
        unpack(&b, src);
        for (int c = 0; c < 32; c++) dst[i + c] = (float)b.q[c] * b.d;
    }
}

static FM_ALWAYS_INLINE void decode_32m(float *dst, const uint8_t *src, int64_t n,
                                        int block_bytes,
                                        void (*unpack)(fm_quant_block *, const uint8_t *))
{
    for (int64_t i = 0; i < n; i += 32, src += block_bytes) {
        fm_quant_block b;
        unpack(&b, src);
        for (int c = 0; c < 32; c++) dst[i + c] = (float)b.q[c] * b.d + b.m;
    }
}

static FM_ALWAYS_INLINE void decode_256(float *dst, const uint8_t *src, int64_t n, int block_bytes,
                                        void (*unpack)(fm_quant_block *, const uint8_t *))
{
    for (int64_t i = 0; i < n; i += 256, src += block_bytes) {
        fm_quant_block b;
        unpack(&b, src);
        for (int k = 0; k < 16; k++) {
            const float scale = b.d * (float)b.sc[k];
            for (int c = 0; c < 16; c++) dst[i + 16 * k + c] = scale * (float)b.q[16 * k + c];
        }
    }
}

static FM_ALWAYS_INLINE void decode_256m(float *dst, const uint8_t *src, int64_t n,
                                         int block_bytes,
                                         void (*unpack)(fm_quant_block *, const uint8_t *))
{
    for (int64_t i = 0; i < n; i += 256, src += block_bytes) {
        fm_quant_block b;
        unpack(&b, src);
        for (int k = 0; k < 16; k++) {
            const float scale = b.d * (float)b.sc[k], min = b.m * (float)b.mn[k];
            for (int c = 0; c < 16; c++)
                dst[i + 16 * k + c] = scale * (float)b.q[16 * k + c] - min;
        }
    }
}

#define DECODER(type, shape, block_bytes)                                                         \
    void fm_decode_##type(float *dst, const void *src, int64_t n)                                 \
    {                                                                                             \
        shape(dst, src, n, block_bytes, fm_block_##type);                                         \
    }
DECODER(q4_0, decode_32, 18)
DECODER(q4_1, decode_32m, 20)
DECODER(q5_0, decode_32, 22)
DECODER(q5_1, decode_32m, 24)
DECODER(q8_0, decode_32, 34)
DECODER(mxfp4, decode_32, 17)
DECODER(q2_k, decode_256m, 84)
DECODER(q3_k, decode_256, 110)
DECODER(q4_k, decode_256m, 144)
DECODER(q5_k, decode_256m, 176)
DECODER(q6_k, decode_256, 210)
DECODER(iq4_nl, decode_32, 18)
DECODER(iq4_xs, decode_256, 136)
DECODER(iq3_s, decode_256, 110)
DECODER(iq3_xxs, decode_256, 98)
DECODER(iq2_s, decode_256, 82)
DECODER(iq2_xs, decode_256, 74)
DECODER(iq2_xxs, decode_256, 66)
DECODER(iq1_m, decode_256, 56)
DECODER(iq1_s, decode_256, 50)

void fm_decode_f32(float *dst, const void *src, int64_t n)
{
    const uint8_t *const p = src;
    for (int64_t i = 0; i < n; i++) dst[i] = fm_f32_from_bits(fm_quant_le32(p + 4 * i));
}

void fm_decode_f16(float *dst, const void *src, int64_t n)
{
    const uint8_t *const p = src;
    for (int64_t i = 0; i < n; i++) dst[i] = fm_f16_to_f32(fm_quant_le16(p + 2 * i));
}

void fm_decode_bf16(float *dst, const void *src, int64_t n)
{
    const uint8_t *const p = src;
    for (int64_t i = 0; i < n; i++) dst[i] = fm_bf16_to_f32(fm_quant_le16(p + 2 * i));
}
