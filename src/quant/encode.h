/* From f32 to the block formats.
 *
 * For every block the encoders look for scales (and minima) that make the sum of squared differences
 * between what was given and what the decoder will return as small as they can, weighted per column when
 * there are weights. They try several starting points, round the real scales to what the block can hold, and then
 * fit again with the rounded ones, so the error of scales is part of what is minimised. Nothing depends on
 * threads or on the instruction set: the same values give the same bytes.
 */
#pragma once

#include <stdint.h>

typedef enum {
    FM_ENCODE_OK,
    FM_ENCODE_NOT_FINITE, /* NaN or infinity in src                                      */
    FM_ENCODE_RANGE,      /* a scale larger than a half, or a value than the type can say */
} fm_encode_status;

/* Encodes n values, a multiple of the type's block, into one of F32, F16, BF16, Q8_0, Q4_0, MXFP4, Q2_K,
 * Q3_K, Q4_K, Q5_K, Q6_K. weight [n]: importance of each value, at least 0 and finite; NULL: all alike. A
 * block whose weights are all 0 is encoded as if they were alike. Any thread. Q8_0 never holds -128. */
fm_encode_status fm_encode(uint32_t type, void *dst, const float *src, const float *weight,
                           int64_t n);

/* As fm_encode, with the plain build of the code even when the processor has a better one: for tests. */
fm_encode_status fm_encode_plain(uint32_t type, void *dst, const float *src, const float *weight,
                                 int64_t n);
