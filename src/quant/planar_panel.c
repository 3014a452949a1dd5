/* Panels of the planar formats: planar.h has their layout. Two rows at a time, a row in each half of a vector: an expert
 * from disk passes through this on its way to its first product.
 */
#include <string.h>

#include "base/attr.h"
#include "quant/interleave.h"
#include "quant/planar.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "codes are moved as words");

/* ---- one row of a panel ------------------------------------------------------------------- */

static int nibble(const uint8_t *v, int c)
{
    return v[c % 16] >> (c / 16 * 4) & 15;
}

static int pair(const uint8_t *v, int c)
{
    return v[c / 16 * 4 + c % 4] >> (2 * (c / 4 % 4)) & 3;
}

static int bit(const uint8_t *v, int c)
{
    return v[c % 4] >> (c / 4) & 1;
}

void fm_codes_unpack_panel(fm_code code, uint8_t q[32], const uint8_t *panel, int64_t b, int r)
{
    const int n_unit = fm_code_bits(code);
    const uint8_t *const p = panel + b * 4 * n_unit * FM_PANEL_ROWS;
    uint8_t v[32];
    for (int u = 0; u < n_unit; u++) memcpy(v + 4 * u, p + 4 * (u * FM_PANEL_ROWS + r), 4);
    for (int c = 0; c < 32; c++) {
        int n = 0;
        switch (code) {
        case FM_CODE_U2:
            n = pair(v, c);
            break;
        case FM_CODE_U3:
            n = pair(v, c) | bit(v + 8, c) << 2;
            break;
        case FM_CODE_U5:
            n = nibble(v + 4, c) | bit(v, c) << 4;
            break;
        case FM_CODE_U6:
            n = nibble(v, c) | pair(v + 16, c) << 4;
            break;
        case FM_CODE_U8:
            n = v[c];
            break;
        case FM_CODE_E2M1:
            n = fm_e2m1_unsigned[nibble(v, c)];
            break;
        default:
            n = nibble(v, c);
        }
        q[c] = (uint8_t)n;
    }
}

/* ---- rows into the order that panels have -------------------------------------------------- */

/* 8 bytes of each of two rows. */
typedef uint64_t two_rows __attribute__((vector_size(16)));

/* Every byte, 16-bit or 32-bit word of both rows. */
#define EACH_8(x) ((two_rows){0x0101010101010101u * (x), 0x0101010101010101u * (x)})
#define EACH_16(x) ((two_rows){0x0001000100010001u * (x), 0x0001000100010001u * (x)})
#define EACH_32(x) ((two_rows){0x0000000100000001u * (x), 0x0000000100000001u * (x)})

static FM_ALWAYS_INLINE two_rows load_two(const uint8_t *p, uint64_t row_bytes)
{
    uint64_t v[2];
    memcpy(&v[0], p, sizeof v[0]);
    memcpy(&v[1], p + row_bytes, sizeof v[1]);
    return (two_rows){v[0], v[1]};
}

/* The first n bytes of each, to rows of 4 bits bytes. */
static FM_ALWAYS_INLINE void store_two(uint8_t *p, const int bits, two_rows v, const size_t n)
{
    const uint64_t w[2] = {v[0], v[1]};
    memcpy(p, &w[0], n);
    memcpy(p + 4 * bits, &w[1], n);
}

/* 8 codes of 2 to 6 bits, with what comes behind them, to a byte each: halves, quarters and eighths are moved apart. */
static FM_ALWAYS_INLINE two_rows spread(two_rows v, const unsigned bits)
{
    const uint64_t four = ((uint64_t)1 << 4 * bits) - 1, two = ((uint64_t)1 << 2 * bits) - 1;
    const uint64_t one = ((uint64_t)1 << bits) - 1;
    v = (v & (two_rows){four, four}) | (v << (32 - 4 * bits) & (two_rows){four << 32, four << 32});
    v = (v & EACH_32(two)) | (v << (16 - 2 * bits) & EACH_32(two << 16));
    return (v & EACH_16(one)) | (v << (8 - bits) & EACH_16(one << 8));
}

/* Bits k and k + 1 of 32 codes (q [4], one to a byte) as two dwords of a row. */
static FM_ALWAYS_INLINE two_rows join_pairs(const two_rows *q, const unsigned k)
{
    const two_rows three = EACH_8(3), low = {0xffffffffu, 0xffffffffu};
    /* Dword j of either: units j and j + 2. */
    const two_rows a = (q[0] >> k & three) | (q[1] >> k & three) << 4;
    const two_rows b = (q[2] >> k & three) | (q[3] >> k & three) << 4;
    return ((a | a >> 30) & low) | ((b << 32 | b << 2) & ~low);
}

/* Bit k of 32 codes as a dword of a row; the other one is of no use. */
static FM_ALWAYS_INLINE two_rows join_bits(const two_rows *q, const unsigned k)
{
    const two_rows one = EACH_8(1);
    const two_rows a = (q[0] >> k & one) | (q[1] >> k & one) << 2 | (q[2] >> k & one) << 4 |
                       (q[3] >> k & one) << 6;
    return a | a >> 31;
}

/* 32 codes of 3, 5 or 6 bits of two rows. */
static FM_ALWAYS_INLINE void reorder_odd(uint8_t *to, const uint8_t *src, uint64_t row_bytes,
                                         const int bits)
{
    const two_rows low = EACH_8(15);
    two_rows q[4];
    for (int g = 0; g < 4; g++) {
        /* 8 bytes that end with the block at the latest. */
        const int from = bits * g < 4 * bits - 8 ? bits * g : 4 * bits - 8;
        q[g] = spread(load_two(src + from, row_bytes) >> (8 * (bits * g - from)), (unsigned)bits);
    }
    if (bits == 5) {
        store_two(to, bits, join_bits(q, 4), 4);
        to += 4;
    }
    if (bits >= 5) {
        store_two(to, bits, (q[0] & low) | (q[2] & low) << 4, 8);
        store_two(to + 8, bits, (q[1] & low) | (q[3] & low) << 4, 8);
        to += 16;
    }
    if (bits != 5) {
        store_two(to, bits, join_pairs(q, bits == 6 ? 4 : 0), 8);
        to += 8;
    }
    if (bits == 3) store_two(to, bits, join_bits(q, 2), 4);
}

/* 2 bits: columns 4 j + i of a dword change places with columns 4 i + j, a transposition, by two exchanges. */
static FM_ALWAYS_INLINE void reorder_2(uint8_t *to, const uint8_t *src, uint64_t row_bytes)
{
    two_rows v = load_two(src, row_bytes);
    two_rows t = (v ^ v >> 6) & EACH_32((uint64_t)0x00cc00cc);
    v ^= t ^ t << 6;
    t = (v ^ v >> 12) & EACH_32((uint64_t)0x0000f0f0);
    store_two(to, 2, v ^ t ^ t << 12, 8);
}

/* Nibbles of columns 2 i and 2 i + 1 in byte i to columns j and 16 + j in byte j. */
static FM_ALWAYS_INLINE void reorder_4(uint8_t *to, const uint8_t *src, uint64_t row_bytes)
{
    const two_rows low = EACH_8(15);
    const two_rows a = load_two(src, row_bytes), b = load_two(src + 8, row_bytes);
    const fm_u8x16 even = (fm_u8x16)((a & low) | (b & low) << 4);
    const fm_u8x16 odd = (fm_u8x16)((a >> 4 & low) | (b & ~low));
    const fm_u8x16 row0 =
        FM_BYTES(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const fm_u8x16 row1 =
        FM_BYTES(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    memcpy(to, &row0, sizeof row0);
    memcpy(to + 16, &row1, sizeof row1);
}

/* The codes of 16 rows into a panel elsewhere. next: the rows behind them, mostly the next to be brought into a panel; they
 * are asked for. */
static FM_ALWAYS_INLINE void pack_codes(uint8_t *restrict dst, const uint8_t *restrict rows,
                                        uint64_t row_bytes, const uint8_t *next, const int bits)
{
    const uint64_t bytes = 4 * (uint64_t)bits; /* of a block of a row */
    for (uint64_t at = 0; at < row_bytes; at += bytes, dst += bytes * FM_PANEL_ROWS) {
        uint8_t block[32 * FM_PANEL_ROWS];
        for (uint64_t i = 0; i < bytes * FM_PANEL_ROWS; i += 64)
            __builtin_prefetch(next + at * FM_PANEL_ROWS + i, 0, 2);
        if (bits == 8) {
            fm_interleave_4(dst, rows + at, row_bytes, bytes / 4);
            continue;
        }
        for (uint64_t r = 0; r < FM_PANEL_ROWS; r += 2) {
            const uint8_t *const src = rows + at + r * row_bytes;
            uint8_t *const to = block + r * bytes;
            if (bits == 2)
                reorder_2(to, src, row_bytes);
            else if (bits == 4)
                reorder_4(to, src, row_bytes);
            else
                reorder_odd(to, src, row_bytes, bits);
        }
        fm_interleave_4(dst, block, bytes, bytes / 4);
    }
}

static void pack_codes_of(int bits, uint8_t *dst, const uint8_t *rows, uint64_t row_bytes,
                          const uint8_t *next)
{
    switch (bits) {
    case 2:
        pack_codes(dst, rows, row_bytes, next, 2);
        break;
    case 3:
        pack_codes(dst, rows, row_bytes, next, 3);
        break;
    case 4:
        pack_codes(dst, rows, row_bytes, next, 4);
        break;
    case 5:
        pack_codes(dst, rows, row_bytes, next, 5);
        break;
    case 6:
        pack_codes(dst, rows, row_bytes, next, 6);
        break;
    default:
        pack_codes(dst, rows, row_bytes, next, 8);
    }
}

void fm_pack_planes(const fm_type_traits *t, uint8_t *const *plane, int64_t row0, int64_t n,
                    int64_t n_in, void *scratch)
{
    if (t->n_field == 0) return;
    const uint64_t codes = fm_type_row_bytes(t, n_in);
    n = n / FM_PANEL_ROWS * FM_PANEL_ROWS;
    if (t->n_plane == 0) {
        uint8_t *const at = plane[0] + (uint64_t)row0 * codes;
        fm_pack_panels(t, at, at, n, n_in, scratch);
        return;
    }
    const uint64_t aux = fm_plane_row_bytes(t, 1, n_in);
    const size_t unit = fm_scale_bytes((fm_scale)t->scale);
    for (int64_t r0 = row0; r0 < row0 + n; r0 += FM_PANEL_ROWS) {
        uint8_t *const at = plane[0] + (uint64_t)r0 * codes;
        memcpy(scratch, at, codes * FM_PANEL_ROWS);
        pack_codes_of(fm_code_bits((fm_code)t->code), at, scratch, codes,
                      at + codes * FM_PANEL_ROWS);
        for (int k = 1; k < t->n_plane; k++) {
            uint8_t *const p = plane[k] + (uint64_t)r0 * aux;
            memcpy(scratch, p, aux * FM_PANEL_ROWS);
            fm_interleave(p, scratch, aux, aux / unit, unit);
        }
    }
}
