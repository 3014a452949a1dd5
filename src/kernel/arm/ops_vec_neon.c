/* Operations of the neon set: ops_*.inc compiled for 64-bit ARM. */
#include "kernel/ops_vec_neon.h"

#include "kernel/kernel_internal.h"
#include "kernel/ops_table.inc"

void fm_ops_neon(fm_kernels *k)
{
    fill_table(k);
}
