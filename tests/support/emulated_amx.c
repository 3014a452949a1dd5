#include "support/emulated_amx.h"

#if defined(__x86_64__) && (defined(__AMX_INT8__) || defined(__AMXINT8__))

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Eight tiles of up to 16 rows and 64 bytes. Source: Intel 64 and IA-32 Architectures Software Developer's Manual,
 * volume 1, chapter 18, and the instructions' pages in volume 2. */
enum { N_TILE = 8, ROWS = 16, ROW_BYTES = 64 };
static struct {
    uint8_t byte[ROWS][ROW_BYTES];
    int n_row, row_bytes;
} emulated[N_TILE];

/* What the processor would not carry out ends the test. */
static void refuse(const char *what)
{
    fprintf(stderr, "emulated AMX: %s\n", what);
    abort();
}

static void load_config(const void *config)
{
    /* Palette, start row, 14 bytes, widths of 16 tiles, rows of 16 tiles. */
    const uint8_t *const c = config;
    if (c[0] != 1) refuse("configuration: palette is not 1");
    memset(emulated, 0, sizeof emulated);
    for (int i = 0; i < N_TILE; i++) {
        emulated[i].row_bytes = c[16 + 2 * i] | c[17 + 2 * i] << 8;
        emulated[i].n_row = c[48 + i];
    }
}

static void zero(int t)
{
    memset(emulated[t].byte, 0, sizeof emulated[t].byte);
}

static void load(int t, const void *from, size_t stride)
{
    zero(t);
    for (int r = 0; r < emulated[t].n_row; r++)
        memcpy(emulated[t].byte[r], (const uint8_t *)from + (size_t)r * stride,
               (size_t)emulated[t].row_bytes);
}

static void store(int t, void *to, size_t stride)
{
    for (int r = 0; r < emulated[t].n_row; r++)
        memcpy((uint8_t *)to + (size_t)r * stride, emulated[t].byte[r],
               (size_t)emulated[t].row_bytes);
}

/* Sums of products of four bytes: of signed ones of a and of b, signed or not, added modulo 2^32. Without the sanitizers'
 * checks, which would make it most of the tests' time. */
__attribute__((no_sanitize("address", "undefined"))) static void multiply(int sum, int a, int b,
                                                                          bool b_is_signed)
{
    if (emulated[sum].n_row != emulated[a].n_row ||
        emulated[a].row_bytes / 4 != emulated[b].n_row ||
        emulated[sum].row_bytes != emulated[b].row_bytes)
        refuse("product: shapes of its tiles do not match");
    for (int m = 0; m < emulated[sum].n_row; m++) {
        uint32_t s[ROW_BYTES / 4];
        memcpy(s, emulated[sum].byte[m], sizeof s);
        for (int k = 0; k < emulated[a].row_bytes; k++) {
            const int x = (int8_t)emulated[a].byte[m][k];
            const uint8_t *const y = emulated[b].byte[k / 4] + k % 4;
            for (int n = 0; n < emulated[sum].row_bytes / 4; n++)
                s[n] += (uint32_t)(x * (b_is_signed ? (int8_t)y[4 * n] : y[4 * n]));
        }
        memcpy(emulated[sum].byte[m], s, sizeof s);
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#undef _tile_dpbsud
#define _tile_loadconfig load_config
#define _tile_release() ((void)0)
#define _tile_zero zero
#define _tile_loadd load
#define _tile_stored store
#define _tile_dpbssd(sum, a, b) multiply(sum, a, b, true)
#define _tile_dpbsud(sum, a, b) multiply(sum, a, b, false)
#define fm_matmul_amx emulated_amx
#define fm_int8_amx emulated_amx_int8
#include "kernel/x86/matmul_tiles_amx.c"

#else

bool emulated_amx(fm_kernels *k)
{
    (void)k;
    return false;
}

void emulated_amx_int8(fm_kernels *k)
{
    (void)k;
}

#endif
