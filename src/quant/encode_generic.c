/* The block encoders for any processor. */
#define FM_SET(name) name##_generic
#define FM_SET_TABLE fm_encode_set_generic
#include "quant/encode_set.inc"
