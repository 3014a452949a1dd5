/* The block encoders with AVX2: the same text and the same bits. */
#define FM_SET(name) name##_avx2
#define FM_SET_TABLE fm_encode_set_avx2
#include "quant/encode_set.inc"
