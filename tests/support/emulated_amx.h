/* The amx set's products with the tile instructions in plain C, so that they are tested on every processor with AVX-512. */
#pragma once

#include <stdbool.h>

#include "kernel/kernel.h"

/* Sets k->matmul. May be called only where the set avx512 runs; false where this compiler does not know AMX. */
bool emulated_amx(fm_kernels *k);

/* The same for activations of 8 bits, if emulated_amx() was true. */
void emulated_amx_int8(fm_kernels *k);
