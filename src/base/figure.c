/* Figures as people read them. */
#include "base/figure.h"

#include <stdio.h>

const char *fm_figure_bytes(char out[FM_FIGURE], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 1000 && unit < 4) {
        value /= 1024;
        unit++;
    }
    const int decimals = unit == 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
    snprintf(out, FM_FIGURE, "%.*f %s", decimals, value, units[unit]);
    return out;
}
