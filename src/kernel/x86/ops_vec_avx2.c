/* Operations of the avx2 set: ops_*.inc compiled for AVX2 with FMA and F16C. */
#include "kernel/ops_vec_avx2.h"

#include "kernel/kernel_internal.h"
#include "kernel/ops_table.inc"

void fm_ops_avx2(fm_kernels *k)
{
    fill_table(k);
}
