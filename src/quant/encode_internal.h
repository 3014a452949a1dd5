/* Inside quant/: one set of block encoders per instruction set, from the same text (encode_*.inc). */
#pragma once

#include <stdint.h>

/* One block: x and w have block_elems values; x is finite, w holds at least one number above 0. */
typedef void (*fm_encode_block_fn)(uint8_t *dst, const float *x, const float *w);

typedef struct {
    fm_encode_block_fn q8_0, q4_0, mxfp4, q2_k, q3_k, q4_k, q5_k, q6_k;
} fm_encode_set;

extern const fm_encode_set fm_encode_set_generic;
extern const fm_encode_set fm_encode_set_avx2; /* x86 only */
