/* Figures as people read them. */
#pragma once

#include <stdint.h>

enum { FM_FIGURE = 32 };

/* "846 KiB", "3.91 GiB": three significant digits. Returns out. */
const char *fm_figure_bytes(char out[FM_FIGURE], uint64_t bytes);
