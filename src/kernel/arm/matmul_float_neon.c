/* Products with f32, f16, bf16 and E4M3 weights, for NEON. Every product has 16 sums of its own, four vectors, the same
 * lanes in the same order as in the x86 sets, whatever the numbers of rows and tokens.
 */
#include "kernel/arm/matmul_neon.h"
#include "kernel/generic/matmul_planar.h"

#if defined(__aarch64__)

enum { N_VEC = 4, TILE_ROWS = 2, TILE_TOKENS = 3, ONE_ROWS = 4 };

/* 16 weights from p on. */
typedef void load_fn(float32x4_t v[N_VEC], const uint8_t *p);

static FM_ALWAYS_INLINE void load_f32(float32x4_t v[N_VEC], const uint8_t *p)
{
    FM_UNROLL
    for (int i = 0; i < N_VEC; i++) v[i] = vreinterpretq_f32_u8(vld1q_u8(p + 16 * i));
}

static FM_ALWAYS_INLINE void load_f16(float32x4_t v[N_VEC], const uint8_t *p)
{
    FM_UNROLL
    for (int i = 0; i < N_VEC; i++) v[i] = load_half(p + 8 * i);
}

static FM_ALWAYS_INLINE void load_bf16(float32x4_t v[N_VEC], const uint8_t *p)
{
    FM_UNROLL
    for (int i = 0; i < N_VEC; i++)
        v[i] = vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p + 8 * i)), 16));
}

/* Through halves: exponent and mantissa fit, bias 7 becomes 15, so a factor of 256 is left, which is exact; NaN stays
 * one. */
static FM_ALWAYS_INLINE void load_e4m3(float32x4_t v[N_VEC], const uint8_t *p)
{
    const uint8x16_t q = vld1q_u8(p);
    FM_UNROLL
    for (int i = 0; i < 2; i++) {
        const uint16x8_t wide = vshll_n_u8(i ? vget_high_u8(q) : vget_low_u8(q), 8);
        const uint16x8_t sign = vandq_u16(wide, vdupq_n_u16(0x8000));
        const uint16x8_t mag = vandq_u16(vshrq_n_u16(wide, 1), vdupq_n_u16(0x3f80));
        const uint16x8_t is_nan = vceqq_u16(mag, vdupq_n_u16(0x3f80));
        const float16x8_t half = vreinterpretq_f16_u16(
            vorrq_u16(vorrq_u16(sign, mag), vandq_u16(is_nan, vdupq_n_u16(0x7e00))));
        v[2 * i] = vmulq_n_f32(vcvt_f32_f16(vget_low_f16(half)), 256.0f);
        v[2 * i + 1] = vmulq_n_f32(vcvt_high_f32_f16(half), 256.0f);
    }
}

/* Lane i plus lane i + 8, then + 4, + 2, + 1. */
static FM_ALWAYS_INLINE float add_lanes(const float32x4_t v[N_VEC])
{
    const float32x4_t a = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
    const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

/* Sums of nr rows and nt tokens, in registers. */
typedef float32x4_t tile_sums[ONE_ROWS][TILE_TOKENS][N_VEC];

static FM_ALWAYS_INLINE void clear(tile_sums acc, const int nr, const int nt)
{
    FM_UNROLL
    for (int r = 0; r < nr; r++) {
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            FM_UNROLL
            for (int i = 0; i < N_VEC; i++) acc[r][t][i] = vdupq_n_f32(0.0f);
        }
    }
}

/* 16 columns: weights of row r at src + r * row_bytes, activations at x[t]. */
static FM_ALWAYS_INLINE void add_16(tile_sums acc, const uint8_t *src, uint64_t row_bytes,
                                    const float *const *x, const int nr, const int nt,
                                    load_fn *load)
{
    FM_UNROLL
    for (int r = 0; r < nr; r++) {
        float32x4_t v[N_VEC];
        load(v, src + (uint64_t)r * row_bytes);
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            FM_UNROLL
            for (int i = 0; i < N_VEC; i++)
                acc[r][t][i] = vfmaq_f32(acc[r][t][i], v[i], vld1q_f32(x[t] + 4 * i));
        }
    }
}

/* nr rows from `row` on for nt tokens. elem: bytes per weight. */
static FM_ALWAYS_INLINE void float_tile(const fm_matrix *w, int64_t row, const void *const *act,
                                        float *const *y, const int nr, const int nt, load_fn *load,
                                        const size_t elem)
{
    const uint8_t *const src = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes;
    const int64_t whole = w->n_in / 16 * 16;
    const size_t left = (size_t)(w->n_in - whole);
    const float *x[TILE_TOKENS];
    tile_sums acc;
    clear(acc, nr, nt);
    for (int64_t c = 0; c < whole; c += 16) {
        FM_UNROLL
        for (int t = 0; t < nt; t++) x[t] = (const float *)act[t] + c;
        add_16(acc, src + (size_t)c * elem, w->row_bytes, x, nr, nt, load);
    }
    if (left > 0) { /* the last columns, filled up with zeros */
        uint8_t weights[ONE_ROWS][64] = {{0}};
        float last[TILE_TOKENS][16] = {{0}};
        for (int r = 0; r < nr; r++)
            memcpy(weights[r], src + (uint64_t)r * w->row_bytes + (size_t)whole * elem,
                   left * elem);
        for (int t = 0; t < nt; t++) {
            memcpy(last[t], (const float *)act[t] + whole, left * sizeof(float));
            x[t] = last[t];
        }
        add_16(acc, weights[0], sizeof weights[0], x, nr, nt, load);
    }
    FM_UNROLL
    for (int r = 0; r < nr; r++) {
        FM_UNROLL
        for (int t = 0; t < nt; t++) y[t][row + r] = add_lanes(acc[r][t]);
    }
}

/* Rows of blocks of block_elems columns with a scale each, for nt tokens. */
static FM_ALWAYS_INLINE void e4m3_tile(const fm_matrix *w, int64_t row, const void *const *act,
                                       float *const *y, const int nr, const int nt, load_fn *load,
                                       const size_t elem)
{
    const uint8_t *const src = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes;
    const int64_t columns = w->type->block_elems;
    const float *x[TILE_TOKENS];
    tile_sums acc, s;
    (void)elem;
    clear(acc, nr, nt);
    for (int64_t b = 0; b < w->n_in / columns; b++) {
        clear(s, nr, nt);
        for (int64_t c = b * columns; c < (b + 1) * columns; c += 16) {
            FM_UNROLL
            for (int t = 0; t < nt; t++) x[t] = (const float *)act[t] + c;
            add_16(s, src + c, w->row_bytes, x, nr, nt, load);
        }
        FM_UNROLL
        for (int r = 0; r < nr; r++) {
            const float d =
                fm_scale_load((fm_scale)w->type->scale, fm_planar_aux(w, 0, row + r, b));
            FM_UNROLL
            for (int t = 0; t < nt; t++) {
                FM_UNROLL
                for (int i = 0; i < N_VEC; i++)
                    acc[r][t][i] = vfmaq_n_f32(acc[r][t][i], s[r][t][i], d);
            }
        }
    }
    FM_UNROLL
    for (int r = 0; r < nr; r++) {
        FM_UNROLL
        for (int t = 0; t < nt; t++) y[t][row + r] = add_lanes(acc[r][t]);
    }
}

typedef void tile_fn(const fm_matrix *w, int64_t row, const void *const *act, float *const *y,
                     int nr, int nt, load_fn *load, size_t elem);

static FM_ALWAYS_INLINE void all_rows(const fm_matrix *w, int64_t row0, int64_t row1,
                                      const void *const *act, float *const *y, int64_t n_tok,
                                      tile_fn *tile, load_fn *load, const size_t elem)
{
    int64_t row = row0;
    if (n_tok < TILE_TOKENS) {
        for (; row + ONE_ROWS <= row1; row += ONE_ROWS)
            for (int64_t t = 0; t < n_tok; t++)
                tile(w, row, act + t, y + t, ONE_ROWS, 1, load, elem);
    }
    for (; row + TILE_ROWS <= row1; row += TILE_ROWS) {
        int64_t t = 0;
        for (; t + TILE_TOKENS <= n_tok; t += TILE_TOKENS)
            tile(w, row, act + t, y + t, TILE_ROWS, TILE_TOKENS, load, elem);
        for (; t < n_tok; t++) tile(w, row, act + t, y + t, TILE_ROWS, 1, load, elem);
    }
    for (; row < row1; row++)
        for (int64_t t = 0; t < n_tok; t++) tile(w, row, act + t, y + t, 1, 1, load, elem);
}

#define ROWS(name, tile, elem)                                                                     \
    static void rows_##name(const fm_matrix *w, int64_t row0, int64_t row1,                        \
                            const void *const *act, float *const *y, int64_t n_tok)                \
    {                                                                                              \
        all_rows(w, row0, row1, act, y, n_tok, tile, load_##name, elem);                           \
    }
ROWS(f32, float_tile, 4)
ROWS(f16, float_tile, 2)
ROWS(bf16, float_tile, 2)
ROWS(e4m3, e4m3_tile, 1)

void fm_matmul_float_neon(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                          float *const *y, int64_t n_tok)
{
    if (w->type->code == FM_CODE_E4M3) {
        rows_e4m3(w, row0, row1, act, y, n_tok);
        return;
    }
    switch (w->type->id) {
    case FM_TYPE_F16:
        rows_f16(w, row0, row1, act, y, n_tok);
        break;
    case FM_TYPE_BF16:
        rows_bf16(w, row0, row1, act, y, n_tok);
        break;
    default:
        rows_f32(w, row0, row1, act, y, n_tok);
    }
}

#endif
