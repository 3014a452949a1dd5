/* The table of block formats, their names and sizes, and the panel layout. No arithmetic: that is
 * in quant_decode.c and in kernel/. */
#include "quant/quant.h"

#include <string.h>

#include "base/attr.h"
#include "base/checked.h"
#include "quant/interleave.h"
#include "quant/planar.h"
#include "quant/quant_decode.h"

/* On-disk blocks. Never used as types of memory (blocks have no alignment); they prove the sizes
 * and offsets in the table below. */
typedef struct { uint16_t d; uint8_t qs[16]; } disk_q4_0;
typedef struct { uint16_t d, m; uint8_t qs[16]; } disk_q4_1;
typedef struct { uint16_t d; uint8_t qh[4], qs[16]; } disk_q5_0;
typedef struct { uint16_t d, m; uint8_t qh[4], qs[16]; } disk_q5_1;
typedef struct { uint16_t d; int8_t qs[32]; } disk_q8_0;
typedef struct { uint8_t e, qs[16]; } disk_mxfp4;
typedef struct { uint8_t scales[16], qs[64]; uint16_t d, dmin; } disk_q2_k;
typedef struct { uint8_t hmask[32], qs[64], scales[12]; uint16_t d; } disk_q3_k;
typedef struct { uint16_t d, dmin; uint8_t scales[12], qs[128]; } disk_q4_k;
typedef struct { uint16_t d, dmin; uint8_t scales[12], qh[32], qs[128]; } disk_q5_k;
typedef struct { uint8_t ql[128], qh[64]; int8_t scales[16]; uint16_t d; } disk_q6_k;
typedef struct { uint16_t d; uint8_t qs[16]; } disk_iq4_nl;
typedef struct { uint16_t d, scales_h; uint8_t scales_l[4], qs[128]; } disk_iq4_xs;
typedef struct { uint16_t d; uint8_t qs[64], qh[8], signs[32], scales[4]; } disk_iq3_s;
typedef struct { uint16_t d; uint8_t qs[64], aux[32]; } disk_iq3_xxs;
typedef struct { uint16_t d; uint8_t qs[32], signs[32], qh[8], scales[8]; } disk_iq2_s;
typedef struct { uint16_t d, qs[32]; uint8_t scales[8]; } disk_iq2_xs;
typedef struct { uint16_t d; uint8_t qs[64]; } disk_iq2_xxs;
typedef struct { uint8_t qs[32], qh[16]; uint16_t scales[4]; } disk_iq1_m;
typedef struct { uint16_t d; uint8_t qs[32]; uint16_t qh[8]; } disk_iq1_s;
_Static_assert(sizeof(disk_q4_0) == 18, "Q4_0 block");
_Static_assert(sizeof(disk_q4_1) == 20, "Q4_1 block");
_Static_assert(sizeof(disk_q5_0) == 22, "Q5_0 block");
_Static_assert(sizeof(disk_q5_1) == 24, "Q5_1 block");
_Static_assert(sizeof(disk_q8_0) == 34, "Q8_0 block");
_Static_assert(sizeof(disk_mxfp4) == 17, "MXFP4 block");
_Static_assert(sizeof(disk_q2_k) == 84, "Q2_K block");
_Static_assert(sizeof(disk_q3_k) == 110, "Q3_K block");
_Static_assert(sizeof(disk_q4_k) == 144, "Q4_K block");
_Static_assert(sizeof(disk_q5_k) == 176, "Q5_K block");
_Static_assert(sizeof(disk_q6_k) == 210, "Q6_K block");
_Static_assert(sizeof(disk_iq4_nl) == 18, "IQ4_NL block");
_Static_assert(sizeof(disk_iq4_xs) == 136, "IQ4_XS block");
_Static_assert(sizeof(disk_iq3_s) == 110, "IQ3_S block");
_Static_assert(sizeof(disk_iq3_xxs) == 98, "IQ3_XXS block");
_Static_assert(sizeof(disk_iq2_s) == 82, "IQ2_S block");
_Static_assert(sizeof(disk_iq2_xs) == 74, "IQ2_XS block");
_Static_assert(sizeof(disk_iq2_xxs) == 66, "IQ2_XXS block");
_Static_assert(sizeof(disk_iq1_m) == 56, "IQ1_M block");
_Static_assert(sizeof(disk_iq1_s) == 50, "IQ1_S block");
_Static_assert(sizeof(fm_act_i15_32) == 76, "activation block of 32");
_Static_assert(sizeof(fm_act_i13_256) == 624, "activation block of 256");
_Static_assert(offsetof(fm_act_i13_256, hi) % 16 == 0, "hi on 16 bytes");

/* A field of a disk_* block, transposed in units of `unit` bytes. */
#define FIELD(type, member, unit) \
    {(uint16_t)offsetof(type, member), (uint16_t)sizeof(((type *)0)->member), unit}

#define BLOCKS(nm, disk, elems, form, book, dec, count, ...)                                      \
    {.name = #nm,                                                                                 \
     .id = FM_TYPE_##nm,                                                                          \
     .block_elems = elems,                                                                        \
     .block_bytes = sizeof(disk),                                                                 \
     .act = form,                                                                                 \
     .is_book = book,                                                                             \
     .n_field = count,                                                                            \
     .field = {__VA_ARGS__},                                                                      \
     .decode = dec}
#define QUANTIZED(nm, disk, elems, form, dec, count, ...)                                         \
    BLOCKS(nm, disk, elems, form, 0, dec, count, __VA_ARGS__)
#define BOOK(nm, disk, dec, count, ...)                                                           \
    BLOCKS(nm, disk, 256, FM_ACT_I13_256, 1, dec, count, __VA_ARGS__)

static const fm_type_traits types[] = {
    {.name = "F32", .id = FM_TYPE_F32, .block_elems = 1, .block_bytes = 4, .act = FM_ACT_F32,
     .decode = fm_decode_f32},
    {.name = "F16", .id = FM_TYPE_F16, .block_elems = 1, .block_bytes = 2, .act = FM_ACT_F32,
     .decode = fm_decode_f16},
    {.name = "BF16", .id = FM_TYPE_BF16, .block_elems = 1, .block_bytes = 2, .act = FM_ACT_F32,
     .decode = fm_decode_bf16},
    QUANTIZED(Q4_0, disk_q4_0, 32, FM_ACT_I15_32, fm_decode_q4_0, 2,
              FIELD(disk_q4_0, d, 2), FIELD(disk_q4_0, qs, 4)),
    QUANTIZED(Q4_1, disk_q4_1, 32, FM_ACT_I15_32, fm_decode_q4_1, 3,
              FIELD(disk_q4_1, d, 2), FIELD(disk_q4_1, m, 2), FIELD(disk_q4_1, qs, 4)),
    QUANTIZED(Q5_0, disk_q5_0, 32, FM_ACT_I15_32, fm_decode_q5_0, 3,
              FIELD(disk_q5_0, d, 2), FIELD(disk_q5_0, qh, 4), FIELD(disk_q5_0, qs, 4)),
    QUANTIZED(Q5_1, disk_q5_1, 32, FM_ACT_I15_32, fm_decode_q5_1, 4,
              FIELD(disk_q5_1, d, 2), FIELD(disk_q5_1, m, 2), FIELD(disk_q5_1, qh, 4),
              FIELD(disk_q5_1, qs, 4)),
    QUANTIZED(Q8_0, disk_q8_0, 32, FM_ACT_I15_32, fm_decode_q8_0, 2,
              FIELD(disk_q8_0, d, 2), FIELD(disk_q8_0, qs, 4)),
    QUANTIZED(MXFP4, disk_mxfp4, 32, FM_ACT_I15_32, fm_decode_mxfp4, 2,
              FIELD(disk_mxfp4, e, 1), FIELD(disk_mxfp4, qs, 4)),
    QUANTIZED(Q2_K, disk_q2_k, 256, FM_ACT_I13_256, fm_decode_q2_k, 4,
              FIELD(disk_q2_k, scales, 4), FIELD(disk_q2_k, qs, 4), FIELD(disk_q2_k, d, 2),
              FIELD(disk_q2_k, dmin, 2)),
    QUANTIZED(Q3_K, disk_q3_k, 256, FM_ACT_I13_256, fm_decode_q3_k, 4,
              FIELD(disk_q3_k, hmask, 4), FIELD(disk_q3_k, qs, 4), FIELD(disk_q3_k, scales, 4),
              FIELD(disk_q3_k, d, 2)),
    QUANTIZED(Q4_K, disk_q4_k, 256, FM_ACT_I13_256, fm_decode_q4_k, 4,
              FIELD(disk_q4_k, d, 2), FIELD(disk_q4_k, dmin, 2), FIELD(disk_q4_k, scales, 4),
              FIELD(disk_q4_k, qs, 4)),
    QUANTIZED(Q5_K, disk_q5_k, 256, FM_ACT_I13_256, fm_decode_q5_k, 5,
              FIELD(disk_q5_k, d, 2), FIELD(disk_q5_k, dmin, 2), FIELD(disk_q5_k, scales, 4),
              FIELD(disk_q5_k, qh, 4), FIELD(disk_q5_k, qs, 4)),
    QUANTIZED(Q6_K, disk_q6_k, 256, FM_ACT_I13_256, fm_decode_q6_k, 4,
              FIELD(disk_q6_k, ql, 4), FIELD(disk_q6_k, qh, 4), FIELD(disk_q6_k, scales, 4),
              FIELD(disk_q6_k, d, 2)),
    QUANTIZED(IQ4_NL, disk_iq4_nl, 32, FM_ACT_I15_32, fm_decode_iq4_nl, 2,
              FIELD(disk_iq4_nl, d, 2), FIELD(disk_iq4_nl, qs, 4)),
    QUANTIZED(IQ4_XS, disk_iq4_xs, 256, FM_ACT_I13_256, fm_decode_iq4_xs, 4,
              FIELD(disk_iq4_xs, d, 2), FIELD(disk_iq4_xs, scales_h, 2),
              FIELD(disk_iq4_xs, scales_l, 4), FIELD(disk_iq4_xs, qs, 4)),
    BOOK(IQ3_S, disk_iq3_s, fm_decode_iq3_s, 5, FIELD(disk_iq3_s, d, 2), FIELD(disk_iq3_s, qs, 4),
         FIELD(disk_iq3_s, qh, 4), FIELD(disk_iq3_s, signs, 4), FIELD(disk_iq3_s, scales, 4)),
    BOOK(IQ3_XXS, disk_iq3_xxs, fm_decode_iq3_xxs, 3, FIELD(disk_iq3_xxs, d, 2),
         FIELD(disk_iq3_xxs, qs, 4), FIELD(disk_iq3_xxs, aux, 4)),
    BOOK(IQ2_S, disk_iq2_s, fm_decode_iq2_s, 5, FIELD(disk_iq2_s, d, 2), FIELD(disk_iq2_s, qs, 4),
         FIELD(disk_iq2_s, signs, 4), FIELD(disk_iq2_s, qh, 4), FIELD(disk_iq2_s, scales, 4)),
    BOOK(IQ2_XS, disk_iq2_xs, fm_decode_iq2_xs, 3, FIELD(disk_iq2_xs, d, 2),
         FIELD(disk_iq2_xs, qs, 4), FIELD(disk_iq2_xs, scales, 4)),
    BOOK(IQ2_XXS, disk_iq2_xxs, fm_decode_iq2_xxs, 2, FIELD(disk_iq2_xxs, d, 2),
         FIELD(disk_iq2_xxs, qs, 4)),
    BOOK(IQ1_M, disk_iq1_m, fm_decode_iq1_m, 3, FIELD(disk_iq1_m, qs, 4), FIELD(disk_iq1_m, qh, 4),
         FIELD(disk_iq1_m, scales, 4)),
    BOOK(IQ1_S, disk_iq1_s, fm_decode_iq1_s, 3, FIELD(disk_iq1_s, d, 2), FIELD(disk_iq1_s, qs, 4),
         FIELD(disk_iq1_s, qh, 4)),
};

/* Every id that the format has defined, for messages and size checks. Complete on purpose: a
 * checkpoint with a block format that this engine cannot compute with still opens, so that the message
 * about it can name the tensor and the format. Ids without a size were withdrawn from the format. */
typedef struct {
    const char *name;
    uint16_t block_elems, block_bytes;
} type_fact;

static const type_fact facts[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},
    [3] = {"Q4_1", 32, 20},      [4] = {"Q4_2", 0, 0},        [5] = {"Q4_3", 0, 0},
    [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},      [8] = {"Q8_0", 32, 34},
    [9] = {"Q8_1", 32, 36},      [10] = {"Q2_K", 256, 84},    [11] = {"Q3_K", 256, 110},
    [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},   [14] = {"Q6_K", 256, 210},
    [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66}, [17] = {"IQ2_XS", 256, 74},
    [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},   [20] = {"IQ4_NL", 32, 18},
    [21] = {"IQ3_S", 256, 110},  [22] = {"IQ2_S", 256, 82},   [23] = {"IQ4_XS", 256, 136},
    [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},        [26] = {"I32", 1, 4},
    [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},        [29] = {"IQ1_M", 256, 56},
    [30] = {"BF16", 1, 2},       [31] = {"Q4_0_4_4", 0, 0},   [32] = {"Q4_0_4_8", 0, 0},
    [33] = {"Q4_0_8_8", 0, 0},   [34] = {"TQ1_0", 256, 54},   [35] = {"TQ2_0", 256, 66},
    [36] = {"IQ4_NL_4_4", 0, 0}, [37] = {"IQ4_NL_4_8", 0, 0}, [38] = {"IQ4_NL_8_8", 0, 0},
    [39] = {"MXFP4", 32, 17},    [40] = {"NVFP4", 64, 36},    [41] = {"Q1_0", 128, 18},
};
enum { N_FACT = sizeof facts / sizeof facts[0], N_TYPE = sizeof types / sizeof types[0] };

const fm_type_traits *fm_type_get(uint32_t gguf_id)
{
    for (int i = 0; i < N_TYPE; i++)
        if (types[i].id == gguf_id) return &types[i];
    return fm_planar_get(gguf_id);
}

const char *fm_type_name(uint32_t gguf_id)
{
    const fm_type_traits *planar = fm_planar_get(gguf_id);
    return planar ? planar->name : gguf_id < N_FACT ? facts[gguf_id].name : NULL;
}

int fm_type_geometry(uint32_t gguf_id, uint32_t *block_elems, uint32_t *block_bytes)
{
    if (gguf_id >= N_FACT || facts[gguf_id].block_bytes == 0) return 0;
    *block_elems = facts[gguf_id].block_elems;
    *block_bytes = facts[gguf_id].block_bytes;
    return 1;
}

uint64_t fm_type_row_bytes(const fm_type_traits *t, int64_t n_in)
{
    uint64_t bytes;
    if (n_in <= 0 || n_in % t->block_elems != 0) return 0;
    if (!fm_mul_u64((uint64_t)(n_in / t->block_elems), t->block_bytes, &bytes)) return 0;
    return bytes;
}

size_t fm_act_bytes(fm_act a, int64_t n)
{
    switch (a) {
    case FM_ACT_I15_32: return (size_t)(n / 32) * sizeof(fm_act_i15_32);
    case FM_ACT_I13_256: return (size_t)(n / 256) * sizeof(fm_act_i13_256);
    default: return (size_t)n * sizeof(float);
    }
}

/* next: the rows behind these, mostly the next to be brought into a panel; they are asked for. */
static void pack_panel(const fm_type_traits *t, uint8_t *restrict dst, const uint8_t *restrict src,
                       uint64_t row_bytes, const uint8_t *next)
{
    const uint64_t n_block = row_bytes / t->block_bytes;
    const size_t block = (size_t)t->block_bytes * FM_PANEL_ROWS;
    for (uint64_t b = 0; b < n_block; b++) {
        for (size_t i = 0; i < block; i += 64) __builtin_prefetch(next + i, 0, 2);
        next += block;
        for (int f = 0; f < t->n_field; f++) {
            const fm_pack_field fd = t->field[f];
            uint8_t *const to = dst + (size_t)fd.offset * FM_PANEL_ROWS;
            const uint8_t *const from = src + fd.offset;
            fm_interleave(to, from, row_bytes, (uint64_t)(fd.bytes / fd.unit), fd.unit);
        }
        dst += block;
        src += t->block_bytes;
    }
}

void fm_pack_panels(const fm_type_traits *t, void *dst, const void *src, int64_t n_out,
                    int64_t n_in, void *scratch)
{
    const uint64_t row_bytes = fm_type_row_bytes(t, n_in);
    const uint64_t panel_bytes = row_bytes * FM_PANEL_ROWS;
    const int64_t n_panel = t->n_field == 0 ? 0 : n_out / FM_PANEL_ROWS;
    uint8_t *to = dst;
    const uint8_t *from = src;
    /* A panel that would be written over its own source goes through scratch; a later panel's
     * source is never touched, because dst does not lie behind src. */
    const int overlaps = (uintptr_t)from - (uintptr_t)to < panel_bytes;
    for (int64_t p = 0; p < n_panel; p++, to += panel_bytes, from += panel_bytes) {
        const uint8_t *rows = from;
        if (overlaps) {
            memcpy(scratch, from, panel_bytes);
            rows = scratch;
        }
        pack_panel(t, to, rows, row_bytes, from + panel_bytes);
    }
    if (to != from)
        memmove(to, from, (size_t)(n_out - n_panel * FM_PANEL_ROWS) * row_bytes);
}
