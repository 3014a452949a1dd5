/* Random numbers and blocks for shape-gguf. The same seed gives the same file on every machine with the same libm. */
#pragma once

#include <stdint.h>

#include "quant/quant.h"

double sg_uniform(uint64_t *s); /* [0, 1) */
double sg_normal(uint64_t *s);  /* mean 0, variance 1; by Box and Muller */
/* p [2] <- v as a half, low byte first. */
void sg_store_f16(unsigned char *p, double v);
/* b [type->block_bytes] <- one block whose values have about this standard deviation and mean zero. */
void sg_random_block(const fm_type_traits *type, unsigned char *b, double std, uint64_t *s);
