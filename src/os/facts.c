/* Memory, processors and limits of this machine: see facts.h.
 *
 * A number that cannot be read is treated as "no limit"; nothing here can fail. Control groups
 * are followed from the group of this process up to the root of the mounted hierarchy, because any
 * ancestor may hold the limit that counts, in both versions of the interface.
 */
#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT */
#include "os/facts.h"
#include "os/facts_internal.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
/* Numbers of the system's interface, which headers older than Linux 4.16 and 5.10 do not name. */
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
#ifndef HWCAP2_I8MM
#define HWCAP2_I8MM (1 << 13)
#endif
#endif

enum { PATH_CAP = 1024, LINE_CAP = 4096, CAP_IPC_LOCK_BIT = 14 };

/* ---- small files ------------------------------------------------------------------------- */

/* The first number of a one-line file. "max" and an absent file give UINT64_MAX. */
static uint64_t read_number(const char *path)
{
    FILE *f = fopen(path, "re");
    if (!f) return UINT64_MAX;
    unsigned long long value = 0;
    const int n = fscanf(f, "%llu", &value);
    fclose(f);
    return n == 1 ? value : UINT64_MAX;
}

uint64_t fm_facts_field(const char *path, const char *key)
{
    FILE *f = fopen(path, "re");
    if (!f) return UINT64_MAX;
    const size_t n_key = strlen(key);
    uint64_t value = UINT64_MAX;
    char line[256];
    while (value == UINT64_MAX && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, n_key) != 0) continue;
        const char *p = line + n_key;
        if (*p == ':') p++;
        if (*p != ' ' && *p != '\t') continue;
        char *end = NULL;
        const unsigned long long v = strtoull(p, &end, 10);
        if (end == p) continue;
        value = strstr(end, "kB") ? v * 1024 : v;
    }
    fclose(f);
    return value;
}

/* ---- control groups ---------------------------------------------------------------------- */

typedef struct {
    char mount[PATH_CAP]; /* where the hierarchy is mounted, root included    */
    char group[PATH_CAP]; /* the group of this process below it, "" or "/a/b" */
} cgroup_place;

static bool has_word(const char *list, const char *word)
{
    const size_t n = strlen(word);
    for (const char *p = list; (p = strstr(p, word)) != NULL; p += n) {
        const bool starts = p == list || p[-1] == ',';
        const bool ends = p[n] == '\0' || p[n] == ',' || p[n] == '\n';
        if (starts && ends) return true;
    }
    return false;
}

/* Finds the mount of one hierarchy: version 2 when controller is NULL, else the version 1 one
 * that carries the controller. `inside` is the part of the hierarchy that the mount shows. */
static bool find_mount(const char *root, const char *controller, char *mount, char *inside)
{
    char path[PATH_CAP], line[LINE_CAP];
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        char in[PATH_CAP], at[PATH_CAP], type[64], source[PATH_CAP], super[LINE_CAP];
        const char *tail = strstr(line, " - ");
        if (!tail) continue;
        if (sscanf(line, "%*s %*s %*s %1023s %1023s", in, at) != 2) continue;
        if (sscanf(tail, " - %63s %1023s %4095s", type, source, super) != 3) continue;
        if (controller ? strcmp(type, "cgroup") == 0 && has_word(super, controller)
                       : strcmp(type, "cgroup2") == 0) {
            found = snprintf(mount, PATH_CAP, "%s%s", root, at) < PATH_CAP;
            snprintf(inside, PATH_CAP, "%s", strcmp(in, "/") == 0 ? "" : in);
        }
    }
    fclose(f);
    return found;
}

/* The path of this process in one hierarchy, from /proc/self/cgroup ("id:controllers:path"). */
static bool find_group(const char *root, const char *controller, char *group)
{
    char path[PATH_CAP], line[LINE_CAP];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *list = strchr(line, ':');
        char *at = list ? strchr(list + 1, ':') : NULL;
        if (!at) continue;
        *list++ = '\0';
        *at++ = '\0';
        if (controller ? !has_word(list, controller) : strcmp(line, "0") != 0) continue;
        if (strlen(at) >= PATH_CAP) continue;
        snprintf(group, PATH_CAP, "%.*s", PATH_CAP - 1, strcmp(at, "/") == 0 ? "" : at);
        found = true;
    }
    fclose(f);
    return found;
}

static bool find_place(const char *root, const char *controller, cgroup_place *out)
{
    char inside[PATH_CAP];
    if (!find_mount(root, controller, out->mount, inside)) return false;
    if (!find_group(root, controller, out->group)) return false;
    /* In a container the mount may show only a subtree, while the group is written from the top. */
    const size_t n = strlen(inside);
    if (n > 0 && strncmp(out->group, inside, n) == 0) {
        memmove(out->group, out->group + n, strlen(out->group + n) + 1);
    }
    if (strncmp(out->group, "/..", 3) == 0) out->group[0] = '\0'; /* outside the namespace */
    return true;
}

/* One step towards the root; false after the root was visited. */
static bool step_up(cgroup_place *p)
{
    if (p->group[0] == '\0') return false;
    char *slash = strrchr(p->group, '/');
    *(slash ? slash : p->group) = '\0';
    return true;
}

static void group_file(const cgroup_place *p, const char *file, char *out, size_t cap)
{
    snprintf(out, cap, "%s%s/%s", p->mount, p->group, file);
}

static uint64_t group_number(const cgroup_place *p, const char *file)
{
    char path[3 * PATH_CAP];
    group_file(p, file, path, sizeof path);
    return read_number(path);
}

static uint64_t group_stat(const cgroup_place *p, const char *key)
{
    char path[3 * PATH_CAP];
    group_file(p, "memory.stat", path, sizeof path);
    const uint64_t v = fm_facts_field(path, key);
    return v == UINT64_MAX ? 0 : v;
}

/* Applies the memory limits of one hierarchy to *out. Page cache that is charged to the group is
 * not counted as used: the kernel gives it back before it refuses memory. */
static void apply_memory_limits(cgroup_place *p, bool v2, fm_mem_facts *out)
{
    do {
        uint64_t limit = group_number(p, v2 ? "memory.max" : "memory.limit_in_bytes");
        const uint64_t soft = v2 ? group_number(p, "memory.high") : UINT64_MAX;
        if (soft < limit) limit = soft; /* above it the kernel slows the process to a crawl */
        const uint64_t used = group_number(p, v2 ? "memory.current" : "memory.usage_in_bytes");
        if (limit == UINT64_MAX) continue;
        const uint64_t cache = group_stat(p, v2 ? "active_file" : "total_active_file") +
                               group_stat(p, v2 ? "inactive_file" : "total_inactive_file");
        const uint64_t held = used == UINT64_MAX ? 0 : used > cache ? used - cache : 0;
        const uint64_t room = limit > held ? limit - held : 0;
        if (limit < out->total_bytes) out->total_bytes = limit;
        if (room < out->available_bytes) out->available_bytes = room;
    } while (step_up(p));
}

void fm_facts_memory_at(const char *root, fm_mem_facts *out)
{
    char path[PATH_CAP];
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    *out = (fm_mem_facts){.total_bytes = fm_facts_field(path, "MemTotal"),
                          .available_bytes = fm_facts_field(path, "MemAvailable")};
    if (out->total_bytes == UINT64_MAX) {
        out->total_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    }
    if (out->available_bytes > out->total_bytes) out->available_bytes = out->total_bytes;

    cgroup_place place;
    if (find_place(root, NULL, &place)) apply_memory_limits(&place, true, out);
    if (find_place(root, "memory", &place)) apply_memory_limits(&place, false, out);
}

void fm_os_memory(fm_mem_facts *out)
{
    fm_facts_memory_at("", out);
}

/* ---- processors -------------------------------------------------------------------------- */

static void apply_cpu_quota(uint64_t quota, uint64_t period, int *n_cpu)
{
    if (quota == UINT64_MAX || period == UINT64_MAX || quota == 0 || period == 0) return;
    const uint64_t n = (quota + period - 1) / period;
    if (n < (uint64_t)(*n_cpu ? *n_cpu : 1 << 20)) *n_cpu = (int)n;
}

int fm_facts_cpu_quota_at(const char *root)
{
    int n_cpu = 0;
    cgroup_place place;
    if (find_place(root, NULL, &place)) {
        do {
            char path[3 * PATH_CAP];
            group_file(&place, "cpu.max", path, sizeof path);
            FILE *f = fopen(path, "re");
            if (!f) continue;
            unsigned long long quota, period; /* "max 100000" has no quota and does not match */
            if (fscanf(f, "%llu %llu", &quota, &period) == 2) {
                apply_cpu_quota(quota, period, &n_cpu);
            }
            fclose(f);
        } while (step_up(&place));
    }
    if (find_place(root, "cpu", &place)) {
        do {
            uint64_t quota = group_number(&place, "cpu.cfs_quota_us");
            if (quota > INT64_MAX) quota = UINT64_MAX; /* -1: no quota */
            apply_cpu_quota(quota, group_number(&place, "cpu.cfs_period_us"), &n_cpu);
        } while (step_up(&place));
    }
    return n_cpu;
}

static int affinity_count(void)
{
    for (int n = CPU_SETSIZE; n <= 1 << 18; n *= 4) { /* the kernel's mask may be wider than ours */
        cpu_set_t *set = CPU_ALLOC((size_t)n);
        if (!set) break;
        const size_t bytes = CPU_ALLOC_SIZE((size_t)n);
        const bool ok = sched_getaffinity(0, bytes, set) == 0;
        const int count = ok ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (ok) return count;
        if (errno != EINVAL) break;
    }
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

int fm_os_cpu_count(void)
{
    int n = affinity_count();
    const int quota = fm_facts_cpu_quota_at("");
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? n : 1;
}

/* Processors in a list like "0-3,8"; 0: no such file. */
static int count_listed(const char *path)
{
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    int n = 0, first, last;
    while (fscanf(f, "%d", &first) == 1) {
        last = first;
        int c = fgetc(f);
        if (c == '-') {
            if (fscanf(f, "%d", &last) != 1) break;
            c = fgetc(f);
        }
        if (last >= first) n += last - first + 1;
        if (c != ',') break;
    }
    fclose(f);
    return n;
}

uint64_t fm_facts_last_cache_at(const char *root, int n_cpu)
{
    enum { MOST = 8 };
    uint64_t largest = 0;
    int n_sharing = 0;
    for (int i = 0; i < MOST; i++) {
        char path[PATH_CAP];
        const char *const folder = "sys/devices/system/cpu/cpu0/cache";
        snprintf(path, sizeof path, "%s/%s/index%d/size", root, folder, i);
        const uint64_t kib = read_number(path); /* "32768K" */
        if (kib >= UINT64_C(1) << 32 || kib * 1024 <= largest) continue;
        largest = kib * 1024;
        snprintf(path, sizeof path, "%s/%s/index%d/shared_cpu_list", root, folder, i);
        n_sharing = count_listed(path);
    }
    return n_sharing > 0 ? largest * (uint64_t)((n_cpu + n_sharing - 1) / n_sharing) : largest;
}

uint64_t fm_os_last_cache(void)
{
    return fm_facts_last_cache_at("", fm_os_cpu_count());
}

#if defined(__x86_64__)
/* Which register state the system saves: without it the instructions fault whatever cpuid says. */
static uint64_t saved_state(void)
{
    uint32_t lo, hi;
    __asm__ __volatile__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* Linux saves the 8 KiB of tile registers only for processes that asked for them. */
static bool may_use_tiles(void)
{
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

unsigned fm_os_cpu_features(void)
{
    enum { STATE_AVX = 0x06, STATE_AVX512 = 0xe6, STATE_TILES = 0x60000 };
    enum { HAS_TILES = 1 << 24, HAS_TILES_INT8 = 1 << 25 }; /* of edx, leaf 7; not in every cpuid.h */
    enum { HAS_AVXVNNI = 1 << 4 }; /* of eax, leaf 7.1 */
    unsigned a, b, c, d, features = 0;
    if (!__get_cpuid(0, &a, &b, &c, &d)) return 0;
    if (b == signature_AMD_ebx && c == signature_AMD_ecx && d == signature_AMD_edx)
        features |= FM_CPU_AMD;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return features;
    const bool has_xsave = (c & bit_OSXSAVE) != 0;
    const bool has_avx = has_xsave && (c & bit_AVX) && (saved_state() & STATE_AVX) == STATE_AVX;
    if (!has_avx) return features;
    if (c & bit_FMA) features |= FM_CPU_FMA;
    if (c & bit_F16C) features |= FM_CPU_F16C;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return features;
    if (b & bit_AVX2) features |= FM_CPU_AVX2;
    const unsigned base = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    if ((b & base) == base && (c & bit_AVX512VNNI) &&
        (saved_state() & STATE_AVX512) == STATE_AVX512) {
        features |= FM_CPU_AVX512VNNI;
        if (c & bit_AVX512VBMI) features |= FM_CPU_AVX512VBMI;
        if ((d & HAS_TILES) && (d & HAS_TILES_INT8) && (saved_state() & STATE_TILES) == STATE_TILES &&
            may_use_tiles())
            features |= FM_CPU_AMX_INT8;
    }
    if ((features & FM_CPU_AVX2) && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
        (a & HAS_AVXVNNI))
        features |= FM_CPU_AVXVNNI;
    return features;
}
#elif defined(__aarch64__) && defined(__linux__)
unsigned fm_os_cpu_features(void)
{
    unsigned features = 0;
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) features |= FM_CPU_DOTPROD;
    if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) features |= FM_CPU_I8MM;
    return features;
}
#else
unsigned fm_os_cpu_features(void)
{
    return 0;
}
#endif

/* ---- process ----------------------------------------------------------------------------- */

uint64_t fm_os_peak_rss(void)
{
    const uint64_t v = fm_facts_field("/proc/self/status", "VmHWM");
    if (v != UINT64_MAX) return v;
    struct rusage use;
    return getrusage(RUSAGE_SELF, &use) == 0 ? (uint64_t)use.ru_maxrss * 1024 : 0;
}

/* CAP_IPC_LOCK lifts the limit on locked memory. */
static bool may_lock_anything(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    if (!f) return false;
    char line[256];
    unsigned long long caps = 0;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "CapEff: %llx", &caps) == 1) break;
    }
    fclose(f);
    return (caps >> CAP_IPC_LOCK_BIT & 1) != 0;
}

uint64_t fm_os_memlock_limit(void)
{
    struct rlimit limit;
    if (may_lock_anything() || getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return UINT64_MAX;
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : (uint64_t)limit.rlim_cur;
}

bool fm_os_lock(void *p, uint64_t bytes)
{
    if (bytes == 0) return true;
    if (bytes > fm_os_memlock_limit()) {
        errno = ENOMEM;
        return false;
    }
    return mlock(p, bytes) == 0;
}
