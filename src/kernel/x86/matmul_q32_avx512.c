/* Panel kernels of the formats with blocks of 32, for AVX-512 with VNNI. A lane is a row.
 *
 * vpdpbusd multiplies unsigned weights with signed activations, so formats with an offset bring
 * their weights to unsigned bytes (q + offset) 2^down with offset * 2^down = 128. Then the sum of
 * the high plane starts at -(sum v), which the shift between the planes multiplies by 128, and the
 * whole is shifted back by down, exactly. The largest sum is 32 * 255 * 16256 = 1.3e8, per block,
 * so the row length does not matter.
 */
#include "kernel/x86/matmul_q32_avx512.h"

#if defined(__x86_64__)

static FM_ALWAYS_INLINE void panel_32(float *out, const uint8_t *panel, int64_t n_block,
                                      const void *const *act, const int nt, const shape_32 shape,
                                      block_fn *unpack)
{
    __m512 acc[8];
    FM_UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_block; b++, panel += (size_t)shape.block_bytes * FM_PANEL_ROWS) {
        block_512 wb;
        if (fm_asks_ahead(FM_READ_IN_ORDER, nt))
            fm_prefetch_panel(panel, shape.block_bytes * FM_PANEL_ROWS, 0, 1);
        unpack(&wb, panel);
        const fm_act_i15_32 *x[8];
        const int8_t *hi[8], *lo[8];
        __m512i s[8];
        FM_UNROLL
        for (int t = 0; t < nt; t++) {
            x[t] = (const fm_act_i15_32 *)act[t] + b;
            hi[t] = x[t]->hi;
            lo[t] = x[t]->lo;
            s[t] = shape.has_offset ? _mm512_set1_epi32(x[t]->nsum) : _mm512_setzero_si512();
        }
        dot_planes(s, wb.w, 8, hi, lo, nt, FM_ACT_32_SHIFT, SUM_AS_COMPILED);
        FM_UNROLL
        for (int t = 0; t < nt; t++)
            acc[t] = add_block_32(acc[t], s[t], wb.d, shape.has_min ? wb.m : wb.d, x[t]->d,
                                  x[t]->dsum, shape);
    }
    FM_UNROLL
    for (int t = 0; t < nt; t++) _mm512_storeu_ps(out + t * FM_PANEL_ROWS, acc[t]);
}

#define KERNEL(type, nt)                                                                           \
    static void type##_##nt(float *out, const uint8_t *panel, int64_t n_block,                     \
                            const void *const *act)                                                \
    {                                                                                              \
        panel_32(out, panel, n_block, act, nt, shape_##type, unpack_##type);                       \
    }
#define KERNELS(type)                                                                              \
    KERNEL(type, 1)                                                                                \
    KERNEL(type, 2) KERNEL(type, 3) KERNEL(type, 4) KERNEL(type, 5) KERNEL(type, 6)                \
        KERNEL(type, 7) KERNEL(type, 8)
KERNELS(q4_0)
KERNELS(q4_1)
KERNELS(q5_0)
KERNELS(q5_1)
KERNELS(q8_0)
KERNELS(mxfp4)
KERNELS(iq4_nl)

const fm_panel_kernels fm_panels_32_avx512[FM_KERNEL_TYPES] = {
    [FM_TYPE_Q4_0] = {{q4_0_1, q4_0_2, q4_0_4, q4_0_8}, {q4_0_3, q4_0_5, q4_0_6, q4_0_7}},
    [FM_TYPE_Q4_1] = {{q4_1_1, q4_1_2, q4_1_4, q4_1_8}, {q4_1_3, q4_1_5, q4_1_6, q4_1_7}},
    [FM_TYPE_Q5_0] = {{q5_0_1, q5_0_2, q5_0_4, q5_0_8}, {q5_0_3, q5_0_5, q5_0_6, q5_0_7}},
    [FM_TYPE_Q5_1] = {{q5_1_1, q5_1_2, q5_1_4, q5_1_8}, {q5_1_3, q5_1_5, q5_1_6, q5_1_7}},
    [FM_TYPE_Q8_0] = {{q8_0_1, q8_0_2, q8_0_4, q8_0_8}, {q8_0_3, q8_0_5, q8_0_6, q8_0_7}},
    [FM_TYPE_MXFP4] = {{mxfp4_1, mxfp4_2, mxfp4_4, mxfp4_8}, {mxfp4_3, mxfp4_5, mxfp4_6, mxfp4_7}},
    [FM_TYPE_IQ4_NL] = {{iq4_nl_1, iq4_nl_2, iq4_nl_4, iq4_nl_8},
                        {iq4_nl_3, iq4_nl_5, iq4_nl_6, iq4_nl_7}},
};

#endif
