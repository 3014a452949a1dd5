/* Panel kernels of the K formats and IQ4_XS, for AVX-512 with VNNI: matmul_q256_panel_avx512.h with the functions of
 * matmul_q256_avx512.h. */
#include "kernel/x86/matmul_q256_panel_avx512.h"

#if defined(__x86_64__)

#define KERNELS_4_TO_8(type, n_plane, scale, minimum, unit)                                        \
    KERNEL(type, 4, n_plane, scale, minimum, NULL, unit)                                           \
    KERNEL(type, 5, n_plane, scale, minimum, NULL, unit)                                           \
    KERNEL(type, 6, n_plane, scale, minimum, NULL, unit)                                           \
    KERNEL(type, 7, n_plane, scale, minimum, NULL, unit)                                           \
    KERNEL(type, 8, n_plane, scale, minimum, NULL, unit)
#define KERNELS(type, scale, minimum, unit)                                                        \
    KERNEL(type, 1, 2, scale, minimum, NULL, unit)                                                 \
    KERNEL(type, 2, 2, scale, minimum, NULL, unit)                                                 \
    KERNEL(type, 3, 2, scale, minimum, NULL, unit)                                                 \
    KERNELS_4_TO_8(type, 2, scale, minimum, unit)                                                  \
    KERNELS_4_TO_8(type, 1, scale, minimum, unit)
KERNELS(q2_k, scale_q2_k, minimum_q2_k, unit_q2_k)
KERNELS(q3_k, scale_q3_k, NULL, unit_q3_k)
KERNELS(q4_k, scale_6bit, minimum_6bit, unit_q4_k_in_place)
KERNELS(q5_k, scale_6bit, minimum_6bit, unit_q5_k)
KERNELS(q6_k, scale_q6_k, NULL, unit_q6_k)
KERNELS(iq4_xs, scale_iq4_xs, NULL, unit_iq4_xs)

#define TABLE(n_plane)                                                                             \
    {                                                                                              \
        [FM_TYPE_Q2_K] = FM_PANEL_KERNELS(q2_k, n_plane),                                          \
        [FM_TYPE_Q3_K] = FM_PANEL_KERNELS(q3_k, n_plane),                                          \
        [FM_TYPE_Q4_K] = FM_PANEL_KERNELS(q4_k, n_plane),                                          \
        [FM_TYPE_Q5_K] = FM_PANEL_KERNELS(q5_k, n_plane),                                          \
        [FM_TYPE_Q6_K] = FM_PANEL_KERNELS(q6_k, n_plane),                                          \
        [FM_TYPE_IQ4_XS] = FM_PANEL_KERNELS(iq4_xs, n_plane),                                      \
    }
const fm_panel_kernels fm_panels_256_avx512[2][FM_KERNEL_TYPES] = {TABLE(1), TABLE(2)};

#endif
