/* Block formats: one row per format, and everything that asks "what type is this" asks the row.
 *
 * Numbers are the GGUF type ids. A row of a matrix is n_in / block_elems blocks of block_bytes.
 *
 * Arithmetic of a quantized dot product (all kernel sets give the same bits; see docs/architecture.md)
 * ------------------------------------------------------------------------------------------------
 * Activations are quantized once per token:
 *   FM_ACT_Q8_32   blocks of 32:  d = amax / 127, q = round_to_even(x * (1/d)), isum = sum q
 *   FM_ACT_Q8_256  blocks of 256: the same over 256; isum[j] = sum of q over 16 columns, j < 16
 *   FM_ACT_F32     as they are
 * The integer part of a block is exact; floats are combined per output row in block order, with
 * separate multiply and add (no fused multiply-add):
 *   types of 32, no minimum  acc = acc + (dw * dx) * (float)(sum (q_w - offset) q_x)
 *   types of 32, minimum m   acc = acc + ((dw * dx) * (float)(sum q_w q_x) + m * (dx * (float)isum))
 *   types of 256, no minimum acc = acc + (dw * dx) * (float)(sum_k sc_k sum (q_w - offset) q_x)
 *   types of 256, minimum    acc = acc + ((dw * dx) * (float)(sum_k sc_k sum q_w q_x)
 *                                         - (dmin * dx) * (float)(sum_k mn_k isum_k))
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
    FM_TYPE_BF16 = 30,
    FM_TYPE_MXFP4 = 39,
} fm_type;

typedef enum { FM_ACT_F32, FM_ACT_Q8_32, FM_ACT_Q8_256, FM_ACT_COUNT } fm_act;

enum { FM_PANEL_ROWS = 16 };

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
    uint8_t n_field;       /* 0: has no panel layout (F32, F16, BF16)           */
    fm_pack_field field[6];
    void (*decode)(float *dst, const void *src, int64_t n); /* n multiple of block_elems */
} fm_type_traits;

/* Row of a GGUF type id; NULL for a number this build does not compute with. */
const fm_type_traits *fm_type_get(uint32_t gguf_id);

/* Name of any type id the format defines ("IQ2_XXS"), NULL for an unknown number. Block geometry of
 * those (elements and bytes per block) for size checks; false when unknown. */
const char *fm_type_name(uint32_t gguf_id);
int fm_type_geometry(uint32_t gguf_id, uint32_t *block_elems, uint32_t *block_bytes);

/* Bytes of one row of n_in elements; 0 when n_in is no multiple of the block or it overflows. */
uint64_t fm_type_row_bytes(const fm_type_traits *t, int64_t n_in);

/* Activation blocks as laid out in memory. A quantized row of n values is an array of these. */
typedef struct {
    float d;
    int32_t isum;
    int8_t q[32];
} fm_act_q8_32;

typedef struct {
    float d;
    int32_t pad[3]; /* keeps q on 16 bytes */
    int16_t isum[16];
    int8_t q[256];
} fm_act_q8_256;

/* Bytes of n activations in form a; n is a multiple of 32 resp. 256 for the quantized forms. */
size_t fm_act_bytes(fm_act a, int64_t n);

/* Interleaves / restores 16-row panels in place. `rows` [n_out][row_bytes]; scratch holds at
 * least 16 * row_bytes bytes. Rows past the last whole panel are untouched. The panel p of a
 * matrix can be packed alone: pass its address and n_out = 16. dst may lie before src (moved
 * down by any amount, as after an aligned read) or equal it. */
void fm_pack_panels(const fm_type_traits *t, void *dst, const void *src, int64_t n_out,
                    int64_t n_in, void *scratch);
void fm_unpack_row(const fm_type_traits *t, void *dst_row, const void *packed, int64_t row,
                   int64_t n_out, int64_t n_in);
