/* The tables of kernel sets and the choice between them. Built once, read-only afterwards; any
 * thread may ask. */
#include "kernel/kernel.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "kernel/kernel_internal.h"
#include "kernel/matmul_panels.h"
#include "os/facts.h"

/* Best first. Sets of every processor, so that the name of another one's is known as a name. */
enum {
    SET_AMX,
    SET_AVX512,
    SET_AVXVNNI,
    SET_AVX2,
    SET_I8MM,
    SET_NEON,
    SET_GENERIC,
    SET_REFERENCE,
    SET_COUNT
};

static const char *const set_names[SET_COUNT] = {"amx",  "avx512", "avxvnni", "avx2",
                                                 "i8mm", "neon",   "generic", "reference"};

static fm_kernels sets[SET_COUNT], sets_int8[SET_COUNT];
static const char *available[SET_COUNT + 1];
bool fm_follows_streams, fm_asks_twice;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build_int8(unsigned can_run)
{
    static void (*const change[SET_COUNT])(fm_kernels *) = {
        [SET_GENERIC] = fm_int8_generic,
#if defined(__x86_64__)
        [SET_AMX] = fm_int8_avx512,
        [SET_AVX512] = fm_int8_avx512,
        [SET_AVX2] = fm_int8_avx2,
#if defined(FM_AVXVNNI)
        [SET_AVXVNNI] = fm_int8_avxvnni,
#endif
#elif defined(__aarch64__) && defined(__AARCH64EL__)
        [SET_I8MM] = fm_int8_neon,
        [SET_NEON] = fm_int8_neon,
#endif
    };
    for (int i = 0; i < SET_COUNT; i++) {
        sets_int8[i] = sets[i];
        if ((can_run & 1u << i) && change[i]) change[i](&sets_int8[i]);
    }
#if defined(__x86_64__)
    if (can_run & 1u << SET_AMX) fm_int8_amx(&sets_int8[SET_AMX]);
#endif
}

static void build_tables(void)
{
    unsigned can_run = 1u << SET_GENERIC | 1u << SET_REFERENCE;
    for (int i = 0; i < SET_COUNT; i++) fm_ops_generic(&sets[i]);
    fm_matmul_reference(&sets[SET_REFERENCE]);
    fm_matmul_generic(&sets[SET_GENERIC]);
#if defined(__x86_64__)
    /* What fills a table is compiled for its instruction set like the kernels, so it runs only
     * where they can. */
    const unsigned need_avx2 = FM_CPU_AVX2 | FM_CPU_FMA | FM_CPU_F16C;
    const unsigned have = fm_os_cpu_features();
    /* Measured on Zen 4; without AVX-512 on none. docs/experiments.md */
    fm_follows_streams = (have & FM_CPU_AMD) && (have & FM_CPU_AVX512VNNI);
    fm_asks_twice = !(have & FM_CPU_AMD); /* measured on Emerald Rapids */
    if ((have & need_avx2) == need_avx2) {
        can_run |= 1u << SET_AVX2;
        fm_ops_avx2(&sets[SET_AVX2]);
        fm_matmul_avx2(&sets[SET_AVX2]);
#if defined(FM_AVXVNNI) /* the compiler knows it */
        if (have & FM_CPU_AVXVNNI) {
            can_run |= 1u << SET_AVXVNNI;
            fm_ops_avx2(&sets[SET_AVXVNNI]);
            fm_matmul_avxvnni(&sets[SET_AVXVNNI]);
        }
#endif
        fm_ops_avx2(&sets[SET_AVX512]);
        if (have & FM_CPU_AVX512VNNI) {
            can_run |= 1u << SET_AVX512;
            fm_ops_avx512(&sets[SET_AVX512]);
            /* Zen 4 multiplies 512 bits in one unit, Emerald Rapids in two. Zen 5, which has two, and Intel's client
             * processors, which have one, get the rule of their maker's: not measured. docs/experiments.md */
            fm_matmul_avx512(&sets[SET_AVX512], have & FM_CPU_AVX512VBMI, have & FM_CPU_AMD);
            sets[SET_AMX] = sets[SET_AVX512];
            if ((have & FM_CPU_AMX_INT8) && fm_matmul_amx(&sets[SET_AMX])) can_run |= 1u << SET_AMX;
        }
    }
#elif defined(__aarch64__) && defined(__AARCH64EL__)
    const unsigned have = fm_os_cpu_features();
    if (have & FM_CPU_DOTPROD) {
        can_run |= 1u << SET_NEON;
        fm_ops_neon(&sets[SET_NEON]);
        fm_matmul_neon(&sets[SET_NEON]);
        sets[SET_I8MM] = sets[SET_NEON];
        if ((have & FM_CPU_I8MM) && fm_matmul_i8mm(&sets[SET_I8MM])) can_run |= 1u << SET_I8MM;
    }
#endif
    int n = 0;
    for (int i = 0; i < SET_COUNT; i++) {
        sets[i].name = set_names[i];
        if (can_run & 1u << i) available[n++] = set_names[i];
    }
    build_int8(can_run);
}

const char *const *fm_kernels_available(void)
{
    pthread_once(&once, build_tables);
    return available;
}

const fm_kernels *fm_kernels_pick(const char *name, fm_error *err)
{
    const char *const *const names = fm_kernels_available();
    const char *const wanted = name ? name : names[0];
    char list[64] = "";
    for (int i = 0; names[i]; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
        if (strcmp(names[i], wanted) != 0) continue;
        for (int s = 0; s < SET_COUNT; s++)
            if (strcmp(sets[s].name, wanted) == 0) return &sets[s];
    }
    for (int s = 0; s < SET_COUNT; s++) {
        if (strcmp(sets[s].name, wanted) != 0) continue;
        fm_fail(err, FM_E_UNSUPPORTED,
                "kernels \"%s\": this processor, its system or this build does not offer the "
                "instructions; "
                "it can run: %s",
                wanted, list);
        return NULL;
    }
    fm_fail(err, FM_E_ARG, "kernels \"%s\": no such set; this processor can run: %s", wanted, list);
    return NULL;
}

const fm_kernels *fm_kernels_int8(const fm_kernels *set)
{
    for (int s = 0; s < SET_COUNT; s++)
        if (set == &sets[s] && s != SET_REFERENCE) return &sets_int8[s];
    return NULL;
}
