/* Panels of IQ1 with one token, for AVX-512 with VNNI and VBMI. The book is so large that loading an entry is less than looking
 * it up, when no other token needs it: 8 bytes, so a vector is 8 columns of 8 rows.
 */
#include "kernel/kernel_internal.h"
#include "kernel/x86/matmul_book_vbmi.h"

#if defined(__x86_64__)

/* Entries as unsigned bytes: the weight of the upper delta plus the offset. */
static uint64_t entries[2048];

void fm_matmul_book_init_iq1_vbmi(void)
{
    for (int i = 0; i < 2048; i++) {
        int8_t q[8];
        uint64_t e = 0;
        fm_iq1_octet(q, fm_book_iq1[i], 1);
        for (int c = 0; c < 8; c++) e |= (uint64_t)(q[c] + WEIGHT_OFFSET) << (8 * c);
        entries[i] = e;
    }
}

/* Of 32 columns: indices by octet in rows 0 to 7 and in rows 8 to 15; a bit to a row whose columns are 2 less. */
typedef struct {
    _Alignas(64) uint16_t index[2][4][8];
    uint8_t lower[4][2];
} indices_32;

/* Bytes j of the lanes of 16 rows side by side, j = 0 to 3. */
static FM_ALWAYS_INLINE __m512i by_octet(__m512i v)
{
    const __m512i row = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60));
    const __m512i octet =
        _mm512_set_epi64(0x0303030303030303, 0x0303030303030303, 0x0202020202020202,
                         0x0202020202020202, 0x0101010101010101, 0x0101010101010101, 0, 0);
    return _mm512_permutexvar_epi8(_mm512_add_epi8(row, octet), v);
}

/* low, high: bytes of the indices of a lane. */
static FM_ALWAYS_INLINE void put_indices(indices_32 *dst, __m512i low, __m512i high)
{
    low = by_octet(low);
    high = by_octet(high);
    _mm512_store_si512(dst->index[0], _mm512_unpacklo_epi8(low, high));
    _mm512_store_si512(dst->index[1], _mm512_unpackhi_epi8(low, high));
}

/* v: the top bits of bytes. */
static FM_ALWAYS_INLINE void put_lower(indices_32 *dst, __m512i v)
{
    const uint64_t mask = _mm512_movepi8_mask(by_octet(v));
    memcpy(dst->lower, &mask, sizeof mask);
}

typedef void indices_fn(indices_32 *dst, const uint8_t *p, int i);

static FM_ALWAYS_INLINE void indices_iq1_s(indices_32 *dst, const uint8_t *p, int i)
{
    const __m512i word = word_of_lane(p, 34, i);
    put_indices(dst, panel_field(p, 2, i), _mm512_and_si512(high_iq1_s(word), _mm512_set1_epi8(7)));
    put_lower(dst, bits_from(word, 8, 8, 8, 8));
}

static FM_ALWAYS_INLINE void indices_iq1_m(indices_32 *dst, const uint8_t *p, int i)
{
    const __m512i word = word_of_lane(p, 32, i);
    put_indices(dst, panel_field(p, 0, i), _mm512_and_si512(high_iq1_m(word), _mm512_set1_epi8(7)));
    put_lower(dst, bits_from(word, -4, 0, 4, 8));
}

static FM_ALWAYS_INLINE __m256i four_entries(const uint16_t *index)
{
    __m256i v = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(entries + index[0])));
    FM_UNROLL
    for (int i = 1; i < 4; i++)
        v = _mm256_mask_broadcastq_epi64(v, (__mmask8)(1 << i),
                                         _mm_loadl_epi64((const __m128i *)(entries + index[i])));
    return v;
}

/* Weights, with the offset, of the columns of an octet in rows 0 to 7 or 8 to 15. */
static FM_ALWAYS_INLINE __m512i eight_rows(const indices_32 *t, int octet, int half)
{
    const uint16_t *const index = t->index[half][octet];
    const __m512i v =
        _mm512_inserti64x4(_mm512_castsi256_si512(four_entries(index)), four_entries(index + 4), 1);
    const __m512i two = _mm512_set1_epi8(2); /* from bytes that do not borrow */
    return _mm512_mask_sub_epi64(v, t->lower[octet][half], v, two);
}

static FM_ALWAYS_INLINE __m512i repeat_64(const int8_t *p)
{
    int64_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi64(v);
}

/* Sums of pairs of lanes: of a rows 0 to 7, of b rows 8 to 15. */
static FM_ALWAYS_INLINE __m512i add_pairs(__m512i a, __m512i b)
{
    const __m512i even =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_permutex2var_epi32(a, even, b),
                            _mm512_permutex2var_epi32(a, odd, b));
}

static FM_ALWAYS_INLINE void one_token(float *out, const uint8_t *panel, int64_t n_block,
                                       const fm_act_i13_256 *x, const shape_256 shape,
                                       scale_fn *scale, indices_fn *get_indices)
{
    const int bytes = shape.block_bytes * FM_PANEL_ROWS, per_32 = shape.n_group / N_CODES;
    const int n_octet = 4 / per_32; /* of a group */
    _mm512_storeu_ps(out, _mm512_setzero_ps());
    for (int64_t b = 0; b < n_block; b++, panel += bytes, x++) {
        indices_32 indices[N_CODES];
        FM_NO_UNROLL
        for (int i = 0; i < N_CODES; i++) get_indices(&indices[i], panel, i);
        fm_in_memory(indices);
        __m512i sum = _mm512_setzero_si512();
        FM_NO_UNROLL
        for (int i = 0; i < N_CODES; i++) {
            fm_prefetch_panel(panel, bytes, i, N_CODES);
            FM_UNROLL
            for (int g = 0; g < per_32; g++) {
                const int k = per_32 * i + g;
                __m512i s[2], low[2];
                s[0] = s[1] = low[0] = low[1] = _mm512_setzero_si512();
                FM_UNROLL
                for (int o = n_octet * g; o < n_octet * (g + 1); o++) {
                    const __m512i hi = repeat_64(x->hi + 32 * i + 8 * o);
                    const __m512i lo = repeat_64(x->lo + 32 * i + 8 * o);
                    FM_UNROLL
                    for (int half = 0; half < 2; half++) {
                        const __m512i w = eight_rows(&indices[i], o, half);
                        s[half] = _mm512_dpbusd_epi32(s[half], w, hi);
                        low[half] = _mm512_dpbusd_epi32(low[half], w, lo);
                    }
                }
                __m512i all = add_pairs(s[0], s[1]);
                all = _mm512_add_epi32(all,
                                       _mm512_set1_epi32(shape.offset_32 * minus_sum(x, shape, k)));
                all = _mm512_add_epi32(_mm512_slli_epi32(all, FM_ACT_256_SHIFT),
                                       add_pairs(low[0], low[1]));
                sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(all, scale(panel, k)));
            }
        }
        add_block_256(out, sum, _mm512_setzero_si512(), read_halves(panel, shape), x->d, shape);
    }
}

void fm_panel_iq1_s_one_vbmi(float *out, const uint8_t *panel, int64_t n_block,
                             const void *const *act)
{
    one_token(out, panel, n_block, act[0], shape_iq1_s, scale_iq1_s, indices_iq1_s);
}

void fm_panel_iq1_m_one_vbmi(float *out, const uint8_t *panel, int64_t n_block,
                             const void *const *act)
{
    one_token(out, panel, n_block, act[0], shape_iq1_m, scale_iq1_m, indices_iq1_m);
}

#endif
