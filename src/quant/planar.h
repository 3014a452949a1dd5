/* Formats of Hugging Face checkpoints: codes, scales and biases in matrices ("planes") of their own.
 *
 * Plane 0 holds the codes, row by row, columns in order, lowest bits first. Plane 1 holds one scale for
 * every block_elems columns of a row (FP8: of 128 rows), plane 2 one bias, if the format has them.
 *
 *   code        value of column c, group g = c / block_elems             published by
 *   U2 ... U8   scale[g] * q + bias[g], q unsigned                       MLX, affine mode
 *   I4          scale[g] * (q - 8)                                       compressed-tensors, pack-quantized
 *   E2M1        2^(scale[g] - 127) * one of 0, .5, 1, 1.5, 2, 3, 4, 6    gpt-oss; MLX, mxfp4 mode
 *   E4M3        scale[row / 128][g] * q, q a float8_e4m3fn               DeepSeek, Qwen: weight_scale_inv
 *   E4M3 row    scale[row] * q: groups of 32 that share one scale        GLM: compressed-tensors, by channel
 *
 * Arithmetic: all but E4M3 are types of 32 in the sense of quant.h, with the minimum m = bias where
 * there is one; q - 8 and the E2M1 codes are exact integers (these doubled, the scale halved). E4M3 is a
 * float format; kernel.h fixes its order of additions.
 *
 * In panels (quant.h) each plane is interleaved by itself and stays where it is: a scale or bias is a field of its
 * own unit; codes are first brought, 32 columns at a time, into the order that the kernels take apart:
 *   8 bits   as they are
 *   6 bits   nibbles as for 4 bits, then the high pairs of bits as for 2
 *   5 bits   the fifth bits as one dword, byte i of which holds columns 4 u + i in bit u, then nibbles as for 4 bits
 *   4 bits   byte j holds columns j (low) and 16 + j (high)
 *   3 bits   the low pairs of bits as for 2, then the third bits as the fifth ones of 5
 *   2 bits   byte 4 h + i holds columns 16 h + 4 j + i in bits 2 j and 2 j + 1
 * E4M3 has no panels.
 */
#pragma once

#include "quant/quant.h"

typedef enum {
    FM_CODE_NONE,
    FM_CODE_U2,
    FM_CODE_U3,
    FM_CODE_U4,
    FM_CODE_U5,
    FM_CODE_U6,
    FM_CODE_U8,
    FM_CODE_I4,
    FM_CODE_E2M1,
    FM_CODE_E4M3,
} fm_code;

typedef enum { FM_SCALE_F32, FM_SCALE_F16, FM_SCALE_BF16, FM_SCALE_E8M0 } fm_scale;

enum { FM_PLANAR_FIRST_ID = 256, FM_E2M1_OFFSET = 12 };

/* Type id of a combination, 0 when it is not one of those above: groups of 32, 64 or 128 columns (E2M1: 32, E4M3:
 * 128, or 32 for one scale to a row), scales of F32, F16 or BF16 (E2M1: E8M0; E4M3 of 128: F32, BF16 or E8M0). */
uint32_t fm_planar_id(fm_code code, uint32_t group, fm_scale scale);
/* Row of such an id; NULL for others. */
const fm_type_traits *fm_planar_get(uint32_t id);

/* Whether a row has one scale, whatever its length. */
static inline int fm_has_row_scale(const fm_type_traits *t)
{
    return t->code == FM_CODE_E4M3 && t->rows_per_scale == 1;
}

int fm_code_bits(fm_code code);
static inline uint32_t fm_scale_bytes(fm_scale scale)
{
    return scale == FM_SCALE_F32 ? 4 : scale == FM_SCALE_E8M0 ? 1 : 2;
}

/* Planes of a type; 1 for GGUF's. */
static inline int fm_type_n_plane(const fm_type_traits *t)
{
    return t->n_plane ? t->n_plane : 1;
}

/* Bytes of one row of plane k of a matrix with n_in columns; 0 when it cannot be. Scales of E4M3: the row
 * serves rows_per_scale rows of codes. */
uint64_t fm_plane_row_bytes(const fm_type_traits *t, int k, int64_t n_in);
/* Rows of plane k for n_out rows of codes. */
int64_t fm_plane_rows(const fm_type_traits *t, int k, int64_t n_out);

/* Columns [0, n) of a row that is not in a panel; n a multiple of block_elems. Any type: with one plane it is
 * t->decode. */
void fm_decode_planes(const fm_type_traits *t, float *dst, const void *const *plane, int64_t n);

/* A scale as stored. */
float fm_scale_load(fm_scale scale, const uint8_t *p);
/* The factor of the integers that fm_codes_unpack() gives, less their offset. */
float fm_block_scale(const fm_type_traits *t, const uint8_t *p);

/* Any type: brings rows [row0, row0 + n) of a matrix into panels, in place; row0 is a multiple of 16, rows past the
 * last whole panel stay. plane [n_plane] points at row 0. scratch: 16 rows of the largest plane. */
void fm_pack_planes(const fm_type_traits *t, uint8_t *const *plane, int64_t row0, int64_t n,
                    int64_t n_in, void *scratch);

/* 32 codes at block b (of 32 columns) of a row, as unsigned integers with `fm_code_offset` added: from plane 0 as
 * stored, or from its panel. Not for E4M3. */
void fm_codes_unpack(fm_code code, uint8_t q[32], const uint8_t *row, int64_t b);
void fm_codes_unpack_panel(fm_code code, uint8_t q[32], const uint8_t *panel, int64_t b, int r);
int fm_code_offset(fm_code code);

/* The doubled values of E2M1 by their code, with their offset. */
static const uint8_t fm_e2m1_unsigned[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                             12, 11, 10, 9,  8,  6,  4,  0};

/* float8_e4m3fn to f32, exact; 0x7f and 0xff are NaN. */
float fm_e4m3_to_f32(uint8_t v);
