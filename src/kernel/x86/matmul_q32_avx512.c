/* Panel kernels of the formats with blocks of 32, for AVX-512 with VNNI. A lane is a row.
 *
 * vpdpbusd multiplies unsigned weights with signed activations, so formats with an offset bring
 * their weights to unsigned bytes q + offset, and offset * sum v is taken away from the sum: where the offset is 128 the
 * sum of the high plane starts at -(sum v), which the shift between the planes multiplies by 128. The largest sum is
 * 32 * 255 * 16256 = 1.3e8, per block, so the row length does not matter.
 */
#include "kernel/x86/matmul_q32_avx512.h"

#if defined(__x86_64__)

static FM_ALWAYS_INLINE void panel_32(float *out, const uint8_t *panel, int64_t n_block,
                                      const void *const *act, const int nt, const int n_plane,
                                      const shape_32 shape, scales_32_fn *scales, unit_32_fn *unit)
{
    __m512 acc[8];
    FM_UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_block; b++, panel += (size_t)shape.block_bytes * FM_PANEL_ROWS) {
        __m512 d, m;
        if (fm_asks_ahead(FM_READ_IN_ORDER, nt))
            fm_prefetch_panel_for(nt, panel, shape.block_bytes * FM_PANEL_ROWS, 0, 1);
        scales(&d, &m, panel);
        const fm_act_i15_32 *x[8];
        __m512i s[8];
        FM_UNROLL
        for (int t = 0; t < nt; t++) x[t] = (const fm_act_i15_32 *)act[t] + b;
        dot_block_32(s, panel, unit, shape.offset, x, nt, n_plane);
        FM_UNROLL
        for (int t = 0; t < nt; t++)
            acc[t] = add_block_32(acc[t], s[t], d, m, x[t]->d, x[t]->dsum, shape);
    }
    FM_UNROLL
    for (int t = 0; t < nt; t++) _mm512_storeu_ps(out + t * FM_PANEL_ROWS, acc[t]);
}

#define KERNEL(type, nt, n_plane)                                                                  \
    static void type##_##nt##_##n_plane(float *out, const uint8_t *panel, int64_t n_block,         \
                                        const void *const *act)                                    \
    {                                                                                              \
        panel_32(out, panel, n_block, act, nt, n_plane, shape_##type, scales_##type, unit_##type); \
    }
#define KERNELS(type)                                                                              \
    KERNEL(type, 1, 2)                                                                             \
    KERNEL(type, 2, 2)                                                                             \
    KERNEL(type, 3, 2)                                                                             \
    KERNEL(type, 4, 2)                                                                             \
    KERNEL(type, 5, 2) KERNEL(type, 6, 2) KERNEL(type, 7, 2) KERNEL(type, 8, 2) KERNEL(type, 4, 1) \
        KERNEL(type, 5, 1) KERNEL(type, 6, 1) KERNEL(type, 7, 1) KERNEL(type, 8, 1)
KERNELS(q4_0)
KERNELS(q4_1)
KERNELS(q5_0)
KERNELS(q5_1)
KERNELS(q8_0)
KERNELS(mxfp4)
KERNELS(iq4_nl)

#define TABLE(n_plane)                                                                             \
    {                                                                                              \
        [FM_TYPE_Q4_0] = FM_PANEL_KERNELS(q4_0, n_plane),                                          \
        [FM_TYPE_Q4_1] = FM_PANEL_KERNELS(q4_1, n_plane),                                          \
        [FM_TYPE_Q5_0] = FM_PANEL_KERNELS(q5_0, n_plane),                                          \
        [FM_TYPE_Q5_1] = FM_PANEL_KERNELS(q5_1, n_plane),                                          \
        [FM_TYPE_Q8_0] = FM_PANEL_KERNELS(q8_0, n_plane),                                          \
        [FM_TYPE_MXFP4] = FM_PANEL_KERNELS(mxfp4, n_plane),                                        \
        [FM_TYPE_IQ4_NL] = FM_PANEL_KERNELS(iq4_nl, n_plane),                                      \
    }
const fm_panel_kernels fm_panels_32_avx512[2][FM_KERNEL_TYPES] = {TABLE(1), TABLE(2)};

#endif
