/* Rows brought into panels: unit u of 16 rows side by side. An expert from disk passes through this on its way to its
 * first product, so it has to be about as fast as memory. */
#pragma once

#include <stdint.h>
#include <string.h>

#include "base/attr.h"
#include "quant/quant.h"

typedef uint32_t fm_u32x4 __attribute__((vector_size(16)));

typedef uint8_t fm_u8x16 __attribute__((vector_size(16)));

/* Lanes of a (0 to 3) and b (4 to 7); the same with bytes (0 to 15, 16 to 31). */
#if defined(__clang__)
#define FM_LANES(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define FM_BYTES(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FM_LANES(a, b, ...) __builtin_shuffle(a, b, (fm_u32x4){__VA_ARGS__})
#define FM_BYTES(a, b, ...) __builtin_shuffle(a, b, (fm_u8x16){__VA_ARGS__})
#endif

static FM_ALWAYS_INLINE fm_u32x4 fm_load_u32x4(const uint8_t *p)
{
    fm_u32x4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* dst[u][r] <- src[r][u], units of 4 bytes; u < n_unit, r < 16, rows row_bytes apart. Four units of four rows are
 * transposed in registers. */
static inline void fm_interleave_4(uint8_t *restrict dst, const uint8_t *restrict src,
                                   uint64_t row_bytes, uint64_t n_unit)
{
    enum { UNIT = 4, LINE = UNIT * FM_PANEL_ROWS };
    uint64_t u = 0;
    for (; u + 4 <= n_unit; u += 4) {
        for (uint64_t r = 0; r < FM_PANEL_ROWS; r += 4) {
            const uint8_t *const from = src + r * row_bytes + u * UNIT;
            const fm_u32x4 a = fm_load_u32x4(from), b = fm_load_u32x4(from + row_bytes);
            const fm_u32x4 c = fm_load_u32x4(from + 2 * row_bytes);
            const fm_u32x4 d = fm_load_u32x4(from + 3 * row_bytes);
            const fm_u32x4 ab0 = FM_LANES(a, b, 0, 4, 1, 5);
            const fm_u32x4 ab2 = FM_LANES(a, b, 2, 6, 3, 7);
            const fm_u32x4 cd0 = FM_LANES(c, d, 0, 4, 1, 5);
            const fm_u32x4 cd2 = FM_LANES(c, d, 2, 6, 3, 7);
            const fm_u32x4 out[4] = {FM_LANES(ab0, cd0, 0, 1, 4, 5), FM_LANES(ab0, cd0, 2, 3, 6, 7),
                                     FM_LANES(ab2, cd2, 0, 1, 4, 5),
                                     FM_LANES(ab2, cd2, 2, 3, 6, 7)};
            for (uint64_t i = 0; i < 4; i++)
                memcpy(dst + (u + i) * LINE + r * UNIT, &out[i], sizeof out[i]);
        }
    }
    for (; u < n_unit; u++)
        for (uint64_t r = 0; r < FM_PANEL_ROWS; r++)
            memcpy(dst + u * LINE + r * UNIT, src + r * row_bytes + u * UNIT, UNIT);
}

/* The same with units of 1 or 2 bytes. */
static FM_ALWAYS_INLINE void fm_interleave_small(uint8_t *restrict dst, const uint8_t *restrict src,
                                                 uint64_t row_bytes, uint64_t n_unit,
                                                 const size_t unit)
{
    for (uint64_t u = 0; u < n_unit; u++)
        for (uint64_t r = 0; r < FM_PANEL_ROWS; r++)
            memcpy(dst + (u * FM_PANEL_ROWS + r) * unit, src + r * row_bytes + u * unit, unit);
}

/* By the unit's bytes: 4, 2 or 1. */
static inline void fm_interleave(uint8_t *restrict dst, const uint8_t *restrict src,
                                 uint64_t row_bytes, uint64_t n_unit, size_t unit)
{
    if (unit == 4)
        fm_interleave_4(dst, src, row_bytes, n_unit);
    else if (unit == 2)
        fm_interleave_small(dst, src, row_bytes, n_unit, 2);
    else
        fm_interleave_small(dst, src, row_bytes, n_unit, 1);
}
