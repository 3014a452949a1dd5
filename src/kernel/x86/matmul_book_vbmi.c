/* Panel kernels of the formats of code books, for AVX-512 with VNNI and VBMI: matmul_q256_panel_avx512.h. A lane is a row.
 *
 * Of a row, 32 columns have four indices of 8 columns or eight of 4. Indices, codes and signs are all brought to bytes of the
 * row's lane. vpermi2b looks 64 indices, those of 16 rows, up among 128 bytes at once, so books
 * are kept as the codes of quant/code_books.h, low and high bytes apart. vpmultishiftqb brings the codes of four columns to
 * the bytes of a lane, and their signs, which vpermb makes a weight with an offset. Many tokens take a block apart once.
 */
#include "kernel/kernel_internal.h"
#include "kernel/x86/matmul_book_vbmi.h"
#include "kernel/x86/matmul_words_avx512.h"

#if defined(__x86_64__)

/* Low bytes of entries, then high ones; signs: of eight columns, by the seven that are stored. */
static struct {
    _Alignas(64) uint8_t iq2_xxs[2][256], iq3_xxs[2][256], iq2_xs[2][512], iq3_s[2][512];
    uint8_t iq2_s[2][1024], iq1[2][2048], signs[128];
} books;

/* Weights by code and, above it, sign (IQ1: whether the delta is negative), plus the offset; as often as there is room. */
static struct {
    _Alignas(16) uint8_t iq1[16], iq2[16], iq3_xxs[16], iq3_s[16];
} values;

static void split(uint8_t *low, uint8_t *high, const uint16_t *book, int n)
{
    for (int i = 0; i < n; i++) {
        low[i] = (uint8_t)book[i];
        high[i] = (uint8_t)(book[i] >> 8);
    }
}

/* n codes. */
static void put_values(uint8_t dst[16], const int8_t *value, int n)
{
    for (int i = 0; i < 16; i++) {
        const int v = value[i % n];
        dst[i] = (uint8_t)(WEIGHT_OFFSET + (i & n ? -v : v));
    }
}

void fm_matmul_book_init_vbmi(void)
{
    static const int8_t iq1[] = FM_IQ1_VALUES, iq2[] = FM_IQ2_VALUES;
    static const int8_t iq3_xxs[] = FM_IQ3_XXS_HALVES, iq3_s[] = FM_IQ3_S_VALUES;
    for (int i = 0; i < 16; i++)
        values.iq1[i] = (uint8_t)(WEIGHT_OFFSET + iq1[i % 4] + (i & 4 ? -1 : 1));
    put_values(values.iq2, iq2, 4);
    put_values(values.iq3_xxs, iq3_xxs, 8);
    put_values(values.iq3_s, iq3_s, 8);
    split(books.iq2_xxs[0], books.iq2_xxs[1], fm_book_iq2_xxs, 256);
    split(books.iq3_xxs[0], books.iq3_xxs[1], fm_book_iq3_xxs, 256);
    split(books.iq2_xs[0], books.iq2_xs[1], fm_book_iq2_xs, 512);
    split(books.iq3_s[0], books.iq3_s[1], fm_book_iq3_s, 512);
    split(books.iq2_s[0], books.iq2_s[1], fm_book_iq2_s, 1024);
    split(books.iq1[0], books.iq1[1], fm_book_iq1, 2048);
    for (uint32_t i = 0; i < 128; i++) books.signs[i] = (uint8_t)fm_iq_signs(i);
    fm_matmul_book_init_iq1_vbmi();
}

/* Bytes of a book of 128, 256 ... 2048 by 64 indices: their low 8 bits, and masks of bits 8, 9 and 10. */
static FM_ALWAYS_INLINE __m512i look_up(const uint8_t *book, const int n, __m512i index,
                                        const __mmask64 *bit)
{
    __m512i v[16];
    FM_UNROLL
    for (int i = 0; i < n / 128; i++)
        v[i] = _mm512_permutex2var_epi8(load_512(book + 128 * i), index,
                                        load_512(book + 128 * i + 64));
    FM_UNROLL
    for (int m = n / 256, k = 7; m > 0; m /= 2, k++) {
        const __mmask64 set = k == 7 ? _mm512_movepi8_mask(index) : bit[k - 8];
        FM_UNROLL
        for (int i = 0; i < m; i++) v[i] = _mm512_mask_blend_epi8(set, v[2 * i], v[2 * i + 1]);
    }
    return v[0];
}

/* Seven signs and what lies above, in bytes: eight signs. */
static FM_ALWAYS_INLINE __m512i all_signs(__m512i seven)
{
    return look_up(books.signs, 128, seven, NULL);
}

static FM_ALWAYS_INLINE void put(uint8_t *dst, int i, __m512i v)
{
    _mm512_store_si512(dst + 64 * i, v);
}

/* ---- codes and signs ------------------------------------------------------------------------- */

/* Of 8 columns to an index: codes of the first four columns of each, of the others, signs. */
enum { CODES_FIRST, CODES_OTHERS, CODES_SIGNS_8 };
/* Of 4: codes of indices 0 and 1, 2 and 3 ...: in every lane two bytes of the first two columns, two of the others; signs. */
enum { CODES_PAIRS, CODES_SIGNS_4 = 4 };

static FM_ALWAYS_INLINE void put_codes_8(uint8_t *dst, const uint8_t *book, const int n,
                                         __m512i index, const __mmask64 *bit)
{
    put(dst, CODES_FIRST, look_up(book, n, index, bit));
    put(dst, CODES_OTHERS, look_up(book + n, n, index, bit));
}

static FM_ALWAYS_INLINE void put_codes_4(uint8_t *dst, const uint8_t *book, const int n,
                                         __m512i index, const __mmask64 *bit)
{
    const __m512i low = look_up(book, n, index, bit), high = look_up(book + n, n, index, bit);
    put(dst, 0, select_bits(0xffff, low, _mm512_slli_epi32(high, 16)));
    put(dst, 1, select_bits(0xffff, _mm512_srli_epi32(low, 16), high));
}

static FM_ALWAYS_INLINE void codes_iq2_xxs(uint8_t *dst, const uint8_t *p, int i)
{
    put_codes_8(dst, books.iq2_xxs[0], 256, panel_field(p, 2, 2 * i), NULL);
    put(dst, CODES_SIGNS_8, all_signs(bits_from(panel_field(p, 2, 2 * i + 1), 0, 7, 14, 21)));
}

/* Two words to a lane, so of their bytes the second and the third change places. */
static FM_ALWAYS_INLINE void codes_iq2_xs(uint8_t *dst, const uint8_t *p, int i)
{
    const __m512i a = panel_field(p, 2, 2 * i), b = panel_field(p, 2, 2 * i + 1);
    const __m512i low = select_bits(0x00ff00ff, a, _mm512_slli_epi32(b, 8));
    const __m512i high = select_bits(0x00ff00ff, _mm512_srli_epi32(a, 8), b);
    const __mmask64 bit[] = {_mm512_test_epi8_mask(high, _mm512_set1_epi8(1))};
    put_codes_8(dst, books.iq2_xs[0], 512, low, bit);
    put(dst, CODES_SIGNS_8, all_signs(_mm512_srli_epi32(high, 1)));
}

/* Masks of bits 0, 1 and 2 of the bytes of v. */
static FM_ALWAYS_INLINE void three_masks(__mmask64 bit[3], __m512i v)
{
    FM_UNROLL
    for (int i = 0; i < 3; i++) bit[i] = _mm512_test_epi8_mask(v, _mm512_set1_epi8((char)(1 << i)));
}

static FM_ALWAYS_INLINE void codes_iq2_s(uint8_t *dst, const uint8_t *p, int i)
{
    /* Byte i % 4, two bits to an index. */
    const __m512i byte =
        _mm512_srlv_epi32(panel_field(p, 66, i / 4), _mm512_set1_epi32(8 * (i % 4)));
    __mmask64 bit[3];
    three_masks(bit, bits_from(byte, 0, 2, 4, 6));
    put_codes_8(dst, books.iq2_s[0], 1024, panel_field(p, 2, i), bit);
    put(dst, CODES_SIGNS_8, panel_field(p, 34, i));
}

static FM_ALWAYS_INLINE void codes_iq1_s(uint8_t *dst, const uint8_t *p, int i)
{
    const __m512i word = word_of_lane(p, 34, i);
    __mmask64 bit[3];
    three_masks(bit, high_iq1_s(word));
    put_codes_8(dst, books.iq1[0], 2048, panel_field(p, 2, i), bit);
    put(dst, CODES_SIGNS_8,
        _mm512_srai_epi32(_mm512_slli_epi32(word, 16), 31)); /* of all columns */
}

static FM_ALWAYS_INLINE void codes_iq1_m(uint8_t *dst, const uint8_t *p, int i)
{
    const __m512i word = word_of_lane(p, 32, i);
    __mmask64 bit[3];
    three_masks(bit, high_iq1_m(word));
    put_codes_8(dst, books.iq1[0], 2048, panel_field(p, 0, i), bit);
    put(dst, CODES_SIGNS_8, word);
}

static FM_ALWAYS_INLINE void codes_iq3_xxs(uint8_t *dst, const uint8_t *p, int i)
{
    put_codes_4(dst, books.iq3_xxs[0], 256, panel_field(p, 2, 2 * i), NULL);
    put_codes_4(dst + 128, books.iq3_xxs[0], 256, panel_field(p, 2, 2 * i + 1), NULL);
    put(dst, CODES_SIGNS_4, all_signs(bits_from(panel_field(p, 66, i), 0, 7, 14, 21)));
}

static FM_ALWAYS_INLINE void codes_iq3_s(uint8_t *dst, const uint8_t *p, int i)
{
    /* Byte i % 4, a bit to an index. */
    const __m512i bits =
        _mm512_srlv_epi32(panel_field(p, 66, i / 4), _mm512_set1_epi32(8 * (i % 4)));
    const __m512i one = _mm512_set1_epi8(1);
    const __mmask64 a[] = {_mm512_test_epi8_mask(bits_from(bits, 0, 1, 2, 3), one)};
    const __mmask64 b[] = {_mm512_test_epi8_mask(bits_from(bits, 4, 5, 6, 7), one)};
    put_codes_4(dst, books.iq3_s[0], 512, panel_field(p, 2, 2 * i), a);
    put_codes_4(dst + 128, books.iq3_s[0], 512, panel_field(p, 2, 2 * i + 1), b);
    put(dst, CODES_SIGNS_4, panel_field(p, 74, i));
}

/* ---- weights ------------------------------------------------------------------------------- */

static FM_ALWAYS_INLINE __m512i value_of(const uint8_t *of, __m512i index)
{
    const __m512i table = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)of));
    return _mm512_permutexvar_epi8(index, table);
}

/* Columns 4 u and more; place: where the byte of an index of 8 columns is. */
static FM_ALWAYS_INLINE __m512i columns_of_8(const uint8_t *codes, int u, int place)
{
    const int b = 8 * place, s = 8 * place + 4 * (u & 1) - 2;
    const __m512i code = bits_from(load_512(codes + 64 * (u & 1 ? CODES_OTHERS : CODES_FIRST)), b,
                                   b + 2, b + 4, b + 6);
    const __m512i sign = bits_from(load_512(codes + 64 * CODES_SIGNS_8), s, s + 1, s + 2, s + 3);
    return select_bits(0x03030303, code, sign);
}

static FM_ALWAYS_INLINE __m512i columns_of_4(const uint8_t *codes, int u)
{
    const int b = 8 * (u & 1), s = 4 * u - 3;
    const __m512i code =
        bits_from(load_512(codes + 64 * (CODES_PAIRS + u / 2)), b, b + 4, b + 16, b + 20);
    const __m512i sign = bits_from(load_512(codes + 64 * CODES_SIGNS_4), s, s + 1, s + 2, s + 3);
    return select_bits(0x07070707, code, sign);
}

static FM_ALWAYS_INLINE __m512i unit_iq2_xxs(const uint8_t *p, int k, int u, const int many)
{
    (void)k, (void)many;
    return value_of(values.iq2, columns_of_8(p, u, u / 2));
}

static FM_ALWAYS_INLINE __m512i unit_iq2_xs(const uint8_t *p, int k, int u, const int many)
{
    (void)many;
    const int at = 4 * k + u, octet = at / 2;
    return value_of(values.iq2, columns_of_8(p, at, octet == 1 ? 2 : octet == 2 ? 1 : octet));
}

static FM_ALWAYS_INLINE __m512i unit_iq2_s(const uint8_t *p, int k, int u, const int many)
{
    (void)many;
    const int at = 4 * k + u;
    return value_of(values.iq2, columns_of_8(p, at, at / 2));
}

static FM_ALWAYS_INLINE __m512i unit_iq3_xxs(const uint8_t *p, int k, int u, const int many)
{
    (void)k, (void)many;
    return value_of(values.iq3_xxs, columns_of_4(p, u));
}

static FM_ALWAYS_INLINE __m512i unit_iq3_s(const uint8_t *p, int k, int u, const int many)
{
    (void)k, (void)many;
    return value_of(values.iq3_s, columns_of_4(p, u));
}

/* sign: of an index, in the place of its columns. */
static FM_ALWAYS_INLINE __m512i columns_of_iq1(const uint8_t *codes, int u, __m512i sign)
{
    const int b = 8 * (u / 2);
    const __m512i code = bits_from(load_512(codes + 64 * (u & 1 ? CODES_OTHERS : CODES_FIRST)), b,
                                   b + 2, b + 4, b + 6);
    return value_of(values.iq1, select_bits(0x03030303, code, sign));
}

static FM_ALWAYS_INLINE __m512i unit_iq1_s(const uint8_t *p, int k, int u, const int many)
{
    (void)k, (void)many;
    return columns_of_iq1(p, u, load_512(p + 64 * CODES_SIGNS_8));
}

static FM_ALWAYS_INLINE __m512i unit_iq1_m(const uint8_t *p, int k, int u, const int many)
{
    (void)many;
    const int at = 4 * k + u, s = 4 * (at / 2) + 1; /* bit 3 of a nibble is to be bit 2 */
    return columns_of_iq1(p, at, bits_from(load_512(p + 64 * CODES_SIGNS_8), s, s, s, s));
}

/* ---- scales -------------------------------------------------------------------------------- */

static FM_ALWAYS_INLINE __m512i scale_iq2_xxs(const uint8_t *p, int k)
{
    return odd_scale(panel_field(p, 2, 2 * k + 1), 28, 4);
}

static FM_ALWAYS_INLINE __m512i scale_iq2_xs(const uint8_t *p, int k)
{
    return odd_scale(panel_field(p, 66, k / 8), 4 * (k % 8), 4);
}

static FM_ALWAYS_INLINE __m512i scale_iq2_s(const uint8_t *p, int k)
{
    return odd_scale(panel_field(p, 74, k / 8), 4 * (k % 8), 4);
}

static FM_ALWAYS_INLINE __m512i scale_iq3_xxs(const uint8_t *p, int k)
{
    return odd_scale(panel_field(p, 66, k), 28, 4);
}

static FM_ALWAYS_INLINE __m512i scale_iq3_s(const uint8_t *p, int k)
{
    return odd_scale(panel_field(p, 106, 0), 4 * k, 4);
}

static const shape_256 shape_iq2_xxs = SHAPE(66, 8, 0.125f, 0, FM_READ_IN_ORDER);
static const shape_256 shape_iq2_xs = SHAPE(74, 16, 0.125f, 0, FM_READ_BY_FIELDS);
static const shape_256 shape_iq2_s = SHAPE(82, 16, 0.125f, 0, FM_READ_BY_FIELDS);
static const shape_256 shape_iq3_xxs = SHAPE(98, 8, 0.5f, 0, FM_READ_BY_FIELDS);
static const shape_256 shape_iq3_s = SHAPE(110, 8, 1.0f, 0, FM_READ_BY_FIELDS);

/* ---- the formats --------------------------------------------------------------------------- */

#define FORMATS(X)                                                                                 \
    X(iq1_s, IQ1_S)                                                                                \
    X(iq1_m, IQ1_M)                                                                                \
    X(iq2_xxs, IQ2_XXS)                                                                            \
    X(iq2_xs, IQ2_XS)                                                                              \
    X(iq2_s, IQ2_S)                                                                                \
    X(iq3_xxs, IQ3_XXS)                                                                            \
    X(iq3_s, IQ3_S)

/* Up to four tokens; with activations of 8 bits, too, whose lower plane is 0. */
#define KERNEL_OF(type, nt) KERNEL(type, nt, 2, scale_##type, NULL, codes_##type, unit_##type)
#define FEW(type, name) KERNEL_OF(type, 2) KERNEL_OF(type, 3) KERNEL_OF(type, 4)
FORMATS(FEW)
KERNEL_OF(iq2_xxs, 1)
KERNEL_OF(iq2_xs, 1)
KERNEL_OF(iq2_s, 1)
KERNEL_OF(iq3_xxs, 1)
KERNEL_OF(iq3_s, 1)
/* Of IQ1 it is a kernel of another kind. */
#define iq1_s_1_2 fm_panel_iq1_s_one_vbmi
#define iq1_m_1_2 fm_panel_iq1_m_one_vbmi

enum { FEW_TOKENS = 4, MANY_TOKENS = 32, HALVED_TOKENS = 11 };
#define ENTRY(type, name) [FM_TYPE_##name] = {{type##_1_2, type##_2_2, type##_4_2}, {type##_3_2}},
static const fm_panel_kernels few_tokens[FM_KERNEL_TYPES] = {FORMATS(ENTRY)};

/* ---- many tokens --------------------------------------------------------------------------- */

/* A block of 16 rows as bytes: vector u has columns 4 u to 4 u + 3. */
typedef struct {
    __m512i unit[64], sc[16];
    halves_512 h;
} unpacked_block;

static FM_ALWAYS_INLINE void put_all_codes(uint8_t codes[N_CODES * CODES_BYTES],
                                           const uint8_t *panel, codes_fn *get_codes)
{
    FM_NO_UNROLL
    for (int i = 0; i < N_CODES; i++) get_codes(codes + i * CODES_BYTES, panel, i);
    fm_in_memory(codes);
}

static FM_ALWAYS_INLINE void unpack_block(unpacked_block *dst, const uint8_t *panel,
                                          const shape_256 shape, scale_fn *scale,
                                          codes_fn *get_codes, unit_fn *unit)
{
    const int n = shape.n_group / N_CODES;
    _Alignas(64) uint8_t codes[N_CODES * CODES_BYTES];
    put_all_codes(codes, panel, get_codes);
    FM_NO_UNROLL
    for (int i = 0; i < N_CODES; i++) {
        fm_prefetch_panel(panel, shape.block_bytes * FM_PANEL_ROWS, i, N_CODES);
        FM_UNROLL
        for (int u = 0; u < 8; u++)
            dst->unit[8 * i + u] =
                unit(codes + i * CODES_BYTES, u / shape.n_unit, u % shape.n_unit, 1);
        FM_UNROLL
        for (int k = 0; k < n; k++) dst->sc[n * i + k] = scale(panel, n * i + k);
    }
    dst->h = read_halves(panel, shape);
}

typedef void unpack_fn(unpacked_block *dst, const uint8_t *panel);
#define UNPACK(type, name)                                                                         \
    static void unpack_##type(unpacked_block *dst, const uint8_t *panel)                           \
    {                                                                                              \
        unpack_block(dst, panel, shape_##type, scale_##type, codes_##type, unit_##type);           \
    }
FORMATS(UNPACK)

static FM_ALWAYS_INLINE __m512i unpacked_unit_8(const uint8_t *p, int k, int u, const int many)
{
    (void)many;
    return load_512(p + 64 * (8 * k + u));
}

static FM_ALWAYS_INLINE __m512i unpacked_unit_4(const uint8_t *p, int k, int u, const int many)
{
    (void)many;
    return load_512(p + 64 * (4 * k + u));
}

/* The products of a block with nt tokens; n_unit as in shape_256. */
typedef void add_fn(float *out, const unpacked_block *w, const fm_act_i13_256 *const *x);
#define ADD(nt, n_plane, units)                                                                    \
    static void add_##nt##_##n_plane##_##units(float *out, const unpacked_block *w,                \
                                               const fm_act_i13_256 *const *x)                     \
    {                                                                                              \
        const shape_256 shape = {.n_group = 64 / units,                                            \
                                 .n_unit = units,                                                  \
                                 .offset_32 = WEIGHT_OFFSET / 32,                                  \
                                 .n_part = 1,                                                      \
                                 .in_step = 1,                                                     \
                                 .order = FM_READ_ELSEWHERE};                                      \
        const block_source from = {(const uint8_t *)w->unit, NULL, w->sc};                         \
        const __m512i none[8] = {{0}};                                                             \
        sums_512 r;                                                                                \
        add_part(&r, from, x, nt, n_plane, shape, NULL, unpacked_unit_##units, 0);                 \
        add_part_to(out, &r, none, w->h, x, nt, n_plane, shape);                                   \
    }
#define ADD_4_TO_8(X, n_plane, units)                                                              \
    X(4, n_plane, units)                                                                           \
    X(5, n_plane, units) X(6, n_plane, units) X(7, n_plane, units) X(8, n_plane, units)
ADD_4_TO_8(ADD, 1, 4)
ADD_4_TO_8(ADD, 1, 8)
ADD_4_TO_8(ADD, 2, 4)
ADD_4_TO_8(ADD, 2, 8)

/* By planes of activations, units per group (4, 8) and tokens, of which there are 4 to 8. */
#define ADD_ENTRY(nt, n_plane, units) [nt] = add_##nt##_##n_plane##_##units,
static add_fn *const add_kernels[2][2][9] = {
    {{ADD_4_TO_8(ADD_ENTRY, 1, 4)}, {ADD_4_TO_8(ADD_ENTRY, 1, 8)}},
    {{ADD_4_TO_8(ADD_ENTRY, 2, 4)}, {ADD_4_TO_8(ADD_ENTRY, 2, 8)}},
};

typedef struct {
    unpack_fn *unpack;
    const shape_256 *shape;
} format_book;
#define FORMAT(type, name) [FM_TYPE_##name] = {unpack_##type, &shape_##type},
static const format_book formats[FM_KERNEL_TYPES] = {FORMATS(FORMAT)};

/* What many_tokens() wants to know. */
typedef struct {
    unpack_fn *unpack;
    add_fn *const *add;
} many_kernels;

/* fm_few_tokens_fn: rows of whole panels for 5 to MANY_TOKENS tokens. */
static void many_tokens(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                        float *const *y, int64_t n_tok, const void *kernels)
{
    const many_kernels *const k = kernels;
    const int64_t n_block = w->n_in / 256, n_call = (n_tok + 7) / 8;
    const size_t bytes = (size_t)w->type->block_bytes * FM_PANEL_ROWS;
    for (int64_t row = row0; row < row1; row += FM_PANEL_ROWS) {
        const uint8_t *panel = (const uint8_t *)w->data + (uint64_t)row * w->row_bytes;
        _Alignas(64) float acc[MANY_TOKENS][FM_PANEL_ROWS];
        memset(acc, 0, (size_t)n_tok * sizeof acc[0]);
        for (int64_t b = 0; b < n_block; b++, panel += bytes) {
            unpacked_block block;
            k->unpack(&block, panel);
            fm_in_memory(&block);
            for (int64_t c = 0; c < n_call; c++) {
                const int64_t t0 = n_tok * c / n_call, nt = n_tok * (c + 1) / n_call - t0;
                const fm_act_i13_256 *x[8];
                for (int64_t t = 0; t < nt; t++) x[t] = (const fm_act_i13_256 *)act[t0 + t] + b;
                k->add[nt](acc[t0], &block, x);
            }
        }
        fm_put_sums(y, row, n_tok, acc);
    }
}

/* ---- many tokens, with fewer multiplications: matmul_words_avx512.h ------------------------- */

static FM_ALWAYS_INLINE void unpack_halved(block_words *dst, const uint8_t *panel,
                                           const shape_256 shape, scale_fn *scale,
                                           codes_fn *get_codes, unit_fn *unit)
{
    const int n = shape.n_group / N_CODES;
    _Alignas(64) uint8_t codes[N_CODES * CODES_BYTES];
    __m512i own = _mm512_setzero_si512();
    put_all_codes(codes, panel, get_codes);
    FM_NO_UNROLL
    for (int i = 0; i < N_CODES; i++) {
        fm_prefetch_panel(panel, shape.block_bytes * FM_PANEL_ROWS, i, N_CODES);
        FM_UNROLL
        for (int k = 0; k < n; k++)
            unpack_words(dst, &own, scale(panel, n * i + k), codes + i * CODES_BYTES, k, n * i + k,
                         true, shape, unit);
    }
    dst->half = read_halves(panel, shape);
}

#define HALVED(type, name)                                                                         \
    static void unpack_halved_##type(void *dst, const uint8_t *panel)                              \
    {                                                                                              \
        unpack_halved(dst, panel, shape_##type, scale_##type, codes_##type, unit_##type);          \
    }
FORMATS(HALVED)

/* All that activations and sums need to know of the formats. */
static const shape_256 shape_of_all = {.offset_32 = WEIGHT_OFFSET / 32, .n_part = 1};

static void prepare_halved(void *dst, const fm_act_i13_256 *x)
{
    prepare_words(dst, x, true, shape_of_all);
}

#define TILE_HALVED(nt)                                                                            \
    static void tile_halved_##nt(float(*acc)[FM_PANEL_ROWS], const void *w, const void *x)         \
    {                                                                                              \
        tile_words(acc, w, x, nt, true, shape_of_all);                                             \
    }
TILE_HALVED(1)
TILE_HALVED(2)
TILE_HALVED(3)
TILE_HALVED(4) TILE_HALVED(5) TILE_HALVED(6) TILE_HALVED(7) TILE_HALVED(8)

#define ENTRY_HALVED(type, name)                                                                   \
    [FM_TYPE_##name] = {halved_tokens,                                                             \
                        halved_blocks,                                                             \
                        FM_APART_TILE,                                                             \
                        sizeof(act_words),                                                         \
                        prepare_halved,                                                            \
                        unpack_halved_##type,                                                      \
                        {tile_halved_1, tile_halved_2, tile_halved_3, tile_halved_4,               \
                         tile_halved_5, tile_halved_6, tile_halved_7, tile_halved_8}},
static const fm_apart_256 halved[FM_KERNEL_TYPES] = {FORMATS(ENTRY_HALVED)};

void fm_matmul_book_vbmi(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok, int n_plane, bool one_multiplier)
{
    const int64_t panel_rows = fm_matrix_panel_rows(w);
    const int64_t split = row1 < panel_rows ? row1 : panel_rows;
    if (row0 < split) {
        const format_book *const f = &formats[w->type->id];
        const many_kernels k = {f->unpack, add_kernels[n_plane - 1][f->shape->n_unit == 8]};
        if (n_tok <= FEW_TOKENS)
            fm_matmul_panel_rows(w, row0, split, act, y, n_tok, &few_tokens[w->type->id]);
        else if (one_multiplier && n_plane == 2 && n_tok >= HALVED_TOKENS)
            fm_matmul_by_stretch(w, row0, split, act, y, n_tok, halved_tokens, words_few_tokens,
                                 &halved[w->type->id]);
        else
            fm_matmul_by_stretch(w, row0, split, act, y, n_tok, MANY_TOKENS, many_tokens, &k);
        row0 = split;
    }
    if (row0 < row1) fm_matmul_book_avx2(w, row0, row1, act, y, n_tok);
}

#endif
