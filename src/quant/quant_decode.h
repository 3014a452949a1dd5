/* Inside quant/: the decoders that the table of types points at. Each turns n values (a multiple
 * of the block) from the on-disk layout into f32. */
#pragma once

#include <stdint.h>

void fm_decode_f32(float *dst, const void *src, int64_t n);
void fm_decode_f16(float *dst, const void *src, int64_t n);
void fm_decode_bf16(float *dst, const void *src, int64_t n);
void fm_decode_q4_0(float *dst, const void *src, int64_t n);
void fm_decode_q4_1(float *dst, const void *src, int64_t n);
void fm_decode_q5_0(float *dst, const void *src, int64_t n);
void fm_decode_q5_1(float *dst, const void *src, int64_t n);
void fm_decode_q8_0(float *dst, const void *src, int64_t n);
void fm_decode_mxfp4(float *dst, const void *src, int64_t n);
void fm_decode_q2_k(float *dst, const void *src, int64_t n);
void fm_decode_q3_k(float *dst, const void *src, int64_t n);
void fm_decode_q4_k(float *dst, const void *src, int64_t n);
void fm_decode_q5_k(float *dst, const void *src, int64_t n);
void fm_decode_q6_k(float *dst, const void *src, int64_t n);
void fm_decode_iq4_nl(float *dst, const void *src, int64_t n);
void fm_decode_iq4_xs(float *dst, const void *src, int64_t n);
void fm_decode_iq3_s(float *dst, const void *src, int64_t n);
void fm_decode_iq3_xxs(float *dst, const void *src, int64_t n);
void fm_decode_iq2_s(float *dst, const void *src, int64_t n);
void fm_decode_iq2_xs(float *dst, const void *src, int64_t n);
void fm_decode_iq2_xxs(float *dst, const void *src, int64_t n);
void fm_decode_iq1_m(float *dst, const void *src, int64_t n);
void fm_decode_iq1_s(float *dst, const void *src, int64_t n);
