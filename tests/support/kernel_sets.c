#include "support/kernel_sets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void list_kernel_sets(const fm_kernels *sets[MAX_KERNEL_SETS + 1], const fm_kernels *beside)
{
    int n = 0;
    for (const char *const *name = fm_kernels_available(); *name; name++) {
        if (n + 2 > MAX_KERNEL_SETS) {
            fprintf(stderr, "more than %d kernel sets: raise MAX_KERNEL_SETS\n", MAX_KERNEL_SETS);
            abort();
        }
        sets[n++] = fm_kernels_pick(*name, NULL);
        if (beside && strcmp(*name, "avx512") == 0) sets[n++] = beside;
    }
    sets[n] = NULL;
}
