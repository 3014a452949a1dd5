/* Block formats: one row per format, and everything that asks "what type is this" asks the row.
 *
 * Numbers are the GGUF type ids. A row of a matrix is n_in / block_elems blocks of block_bytes.
 *
 * Arithmetic of a quantized dot product (the same bits in all kernel sets: docs/architecture.md)
 * ------------------------------------------------------------------------------------------------
 * Activations are quantized once per token, to integers v with a scale per block. v is stored as
 * two signed bytes, v = hi * 2^s + lo, so that a product with a weight of at most 8 bits is two
 * products of bytes; that loses nothing:
 *   FM_ACT_I15_32   blocks of 32,  s = 7, |v| <= 127 * 2^7 = 16256
 *   FM_ACT_I13_256  blocks of 256, s = 5, |v| <= 127 * 2^5 = 4064
 *   FM_ACT_F32      as they are
 * with V the bound:  d = amax / V,  v = round_to_even(x * (1/d)),  hi = (v + 2^(s-1)) >> s, so
 * |hi| <= 127 and -2^(s-1) <= lo < 2^(s-1). No v leaves the range: x * (1/d) is at most
 * V (1 + 2^-22), which rounds to V.
 * Activations of 8 bits, which a user can ask for, are the same with an empty lower plane:
 * v = 2^s round_to_even(x * (1/d) * 2^-s), lo = 0. All else stays, so kernels need not know, but may.
 * The integer part of a block is exact; floats are combined per output row in block order, with
 * separate multiply and add (no fused multiply-add):
 *   types of 32, no minimum  acc = acc + (dw * dx) * (float)(sum (q_w - offset) v)
 *   types of 32, minimum m   acc = acc + ((dw * dx) * (float)(sum q_w v)
 *                                         + m * (dx * (float)(sum v)))
 *   types of 256, no minimum acc = acc + (dw * dx) * (float)(sum_k sc_k sum (q_w - offset) v)
 *   types of 256, minimum    acc = acc + ((dw * dx) * (float)(sum_k sc_k sum q_w v)
 *                                         - (dmin * dx) * (float)(sum_k mn_k sum v))
 *   Q6_K, IQ4_XS             as without minimum, but the block counts as two halves of 128 columns,
 *                            added one after the other, since its sum of 256 may not fit 32 bits
 * All integers fit 32 bits. The largest, sums of absolute values of the terms, so that no order of
 * addition passes them:
 *   types of 32   Q8_0 as unsigned bytes  32 * 255 * 16256            1.33e8
 *   Q2_K          256 * 15 * 3 * 4064                                 4.7e7
 *   Q3_K          256 * 32 * 4 * 4064                                 1.34e8
 *   Q4_K          256 * 63 * 15 * 4064                                9.84e8
 *   Q5_K          256 * 63 * 31 * 4064 = 2031869952                   < 2^31 = 2147483648
 *   Q6_K          128 * 128 * 32 * 4064 = 2130706432 (scale -128)     < 2^31
 *   IQ4_NL        32 * 127 * 16256                                    6.6e7
 *   IQ4_XS        128 * 32 * 127 * 4064 = 2114060288 (scale -32)      < 2^31
 *   IQ3_S         256 * 31 * 15 * 4064                                4.8e8
 *   IQ3_XXS       256 * 31 * 31 * 4064                                1.0e9
 *   IQ2           256 * 31 * 43 * 4064                                1.4e9
 *   IQ1           256 * 15 * 9 * 4064                                 1.4e8
 *   minima        256 * 63 * 4064                                     6.6e7
 * So a result depends neither on how many rows or tokens are computed together, nor on threads.
 * F32, F16 and BF16 weights: f32 products in a lane order that kernel.h fixes per kernel set.
 *
 * Panel layout
 * ------------
 * A matrix in memory is either *rows* (as on disk) or *panels*: 16 consecutive rows interleaved in
 * place, so that one vector lane belongs to one row. For block number b, the 16 blocks of a panel
 * lie together (16 * block_bytes); inside, each field of the block is transposed in units of 1, 2
 * or 4 bytes: unit u of row r lies at field_offset * 16 + (u * 16 + r) * unit. The pack table of a
 * row lists the fields. Rows beyond the last whole panel keep the row layout.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum {
    FM_TYPE_F32 = 0,
    FM_TYPE_F16 = 1,
    FM_TYPE_Q4_0 = 2,
    FM_TYPE_Q4_1 = 3,
    FM_TYPE_Q5_0 = 6,
    FM_TYPE_Q5_1 = 7,
    FM_TYPE_Q8_0 = 8,
    FM_TYPE_Q2_K = 10,
    FM_TYPE_Q3_K = 11,
    FM_TYPE_Q4_K = 12,
    FM_TYPE_Q5_K = 13,
    FM_TYPE_Q6_K = 14,
    FM_TYPE_IQ2_XXS = 16,
    FM_TYPE_IQ2_XS = 17,
    FM_TYPE_IQ3_XXS = 18,
    FM_TYPE_IQ1_S = 19,
    FM_TYPE_IQ4_NL = 20,
    FM_TYPE_IQ3_S = 21,
    FM_TYPE_IQ2_S = 22,
    FM_TYPE_IQ4_XS = 23,
    FM_TYPE_IQ1_M = 29,
    FM_TYPE_BF16 = 30,
    FM_TYPE_MXFP4 = 39,
} fm_type;

typedef enum { FM_ACT_F32, FM_ACT_I15_32, FM_ACT_I13_256, FM_ACT_COUNT } fm_act;

/* s and V of the forms. */
enum {
    FM_ACT_32_SHIFT = 7,
    FM_ACT_32_TOP = 127 << FM_ACT_32_SHIFT,
    FM_ACT_256_SHIFT = 5,
    FM_ACT_256_TOP = 127 << FM_ACT_256_SHIFT,
};

enum { FM_PANEL_ROWS = 16, FM_MAX_PLANES = 3 };

typedef struct {
    uint16_t offset; /* bytes from the start of a block */
    uint16_t bytes;
    uint8_t unit;    /* 1, 2 or 4 */
} fm_pack_field;

typedef struct {
    const char *name;
    uint32_t id;           /* GGUF type id                                      */
    uint16_t block_elems;
    uint16_t block_bytes;
    uint8_t act;           /* fm_act: how activations meet this type            */
    uint8_t is_book;       /* 1: indices into books of 4 or 8 weights: IQ1, IQ2, IQ3 */
    uint8_t n_field;       /* 0: has no panel layout                            */
    fm_pack_field field[6];
    void (*decode)(float *dst, const void *src, int64_t n); /* n multiple of block_elems; NULL for
                                                               formats of several planes       */
    /* Formats whose codes, scales and biases are matrices of their own (planar.h); else all 0.
     * block_elems columns share a scale, block_bytes is what their codes take. */
    uint8_t n_plane;       /* 2: codes and scales; 3: biases too */
    uint8_t code;          /* fm_code                            */
    uint8_t scale;         /* fm_scale of planes 1 and 2         */
    uint8_t rows_per_scale; /* rows that share a scale: 1 or 128  */
} fm_type_traits;

/* Row of a type id, GGUF's or one of planar.h; NULL for a number this build does not compute with. */
const fm_type_traits *fm_type_get(uint32_t gguf_id);

/* Name of any type id the format defines ("IQ2_XXS"), NULL for an unknown number. Block geometry of
 * those (elements and bytes per block) for size checks; false when unknown. */
const char *fm_type_name(uint32_t gguf_id);
int fm_type_geometry(uint32_t gguf_id, uint32_t *block_elems, uint32_t *block_bytes);

/* Bytes of one row of n_in elements; 0 when n_in is no multiple of the block or it overflows. */
uint64_t fm_type_row_bytes(const fm_type_traits *t, int64_t n_in);

/* Activation blocks as laid out in memory. A quantized row of n values is an array of these. The
 * sums are what the offsets and minima of weights meet; nsum is negative because the kernels start
 * from it. */
typedef struct {
    float d;
    float dsum;   /* d * (float)(sum v) */
    int32_t nsum; /* -(sum v)           */
    int8_t hi[32], lo[32];
} fm_act_i15_32;

typedef struct {
    float d;
    int32_t pad[3];       /* keeps the bytes on 16                     */
    int16_t sum32[8][2];  /* sum of hi, sum of lo over 32 columns each */
    int32_t nsum[16];     /* -(sum v) over 16 columns each             */
    int8_t hi[256], lo[256];
} fm_act_i13_256;

/* Bytes of n activations in form a; n is a multiple of 32 resp. 256 for the quantized forms. */
size_t fm_act_bytes(fm_act a, int64_t n);

/* Interleaves 16-row panels in place. `rows` [n_out][row_bytes]; scratch holds at
 * least 16 * row_bytes bytes. Rows past the last whole panel are untouched. The panel p of a
 * matrix can be packed alone: pass its address and n_out = 16. dst may lie before src (moved
 * down by any amount, as after an aligned read) or equal it. */
void fm_pack_panels(const fm_type_traits *t, void *dst, const void *src, int64_t n_out,
                    int64_t n_in, void *scratch);
