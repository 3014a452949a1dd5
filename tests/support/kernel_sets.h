/* The kernel sets that a test compares. */
#pragma once

#include "kernel/kernel.h"

enum { MAX_KERNEL_SETS = 16 };

/* All sets that this processor can run; ends with NULL. beside, unless NULL, is one more set of a processor with
 * AVX-512: left out where there is none. */
void list_kernel_sets(const fm_kernels *sets[MAX_KERNEL_SETS + 1], const fm_kernels *beside);
