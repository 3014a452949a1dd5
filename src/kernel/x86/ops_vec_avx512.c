/* Operations of the avx512 set. Those not filled here are inherited from the plain ones. */
#include "kernel/kernel_internal.h"

void fm_ops_avx512(fm_kernels *k)
{
    (void)k;
}
