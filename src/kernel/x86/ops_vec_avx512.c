/* Operations of the avx512 set: ops_*.inc compiled for AVX-512 (F, BW, VL, DQ). */
#include "kernel/ops_vec_avx512.h"

#include "kernel/kernel_internal.h"
#include "kernel/ops_table.inc"

void fm_ops_avx512(fm_kernels *k)
{
    fill_table(k);
}
