/* Operations of the avx2 set. Those not filled here are inherited from the plain ones. */
#include "kernel/kernel_internal.h"

void fm_ops_avx2(fm_kernels *k)
{
    (void)k;
}
