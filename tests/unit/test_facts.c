/* Facts about the machine: limits of enclosing control groups are found in both versions, in
 * containers and without them; what cannot be read is no limit. */
#define _XOPEN_SOURCE 700 /* nftw */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "os/facts.h"
#include "os/facts_internal.h"
#include "os/fault.h"
#include "os/file.h"

#define GIB (UINT64_C(1) << 30)

static char root[256];

/* Writes root/path, making its folders. */
static void put(const char *path, const char *text)
{
    char full[1024];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        (void)mkdir(full, 0700);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

static int clear(void **state)
{
    (void)state;
    nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}

static int prepare(void **state)
{
    const char *dir = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/fm_facts_%d", dir ? dir : "/tmp", (int)getpid());
    clear(state);
    mkdir(root, 0700);
    put("proc/meminfo", "MemTotal:       33554432 kB\nMemFree:         1000000 kB\n"
                        "MemAvailable:   25165824 kB\n"); /* 32 and 24 GiB */
    return 0;
}

static void plain_machine_gives_its_own_numbers(void **state)
{
    (void)state;
    fm_mem_facts m;
    fm_facts_memory_at(root, &m);
    assert_int_equal(m.total_bytes, 32 * GIB);
    assert_int_equal(m.available_bytes, 24 * GIB);
    assert_int_equal(fm_facts_cpu_quota_at(root), 0);
}

static void version_2_limit_of_an_ancestor_counts(void **state)
{
    (void)state;
    put("proc/self/mountinfo",
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
    put("proc/self/cgroup", "0::/user.slice/job.scope\n");
    put("sys/fs/cgroup/user.slice/job.scope/memory.max", "max\n");
    put("sys/fs/cgroup/user.slice/job.scope/memory.current", "1000\n");
    put("sys/fs/cgroup/user.slice/memory.max", "8589934592\n");     /* 8 GiB  */
    put("sys/fs/cgroup/user.slice/memory.current", "7516192768\n"); /* 7 GiB, */
    put("sys/fs/cgroup/user.slice/memory.stat",
        "anon 2147483648\nfile 5368709120\ninactive_file 3221225472\nactive_file 2147483648\n");
    put("sys/fs/cgroup/user.slice/job.scope/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/user.slice/cpu.max", "250000 100000\n");
    fm_mem_facts m;
    fm_facts_memory_at(root, &m);
    assert_int_equal(m.total_bytes, 8 * GIB);
    assert_int_equal(m.available_bytes, 6 * GIB); /* 5 of the 7 are page cache */
    assert_int_equal(fm_facts_cpu_quota_at(root), 3);
}

static void version_2_soft_limit_counts_too(void **state)
{
    (void)state;
    put("proc/self/mountinfo", "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("proc/self/cgroup", "0::/a\n");
    put("sys/fs/cgroup/a/memory.max", "8589934592\n");
    put("sys/fs/cgroup/a/memory.high", "4294967296\n");
    put("sys/fs/cgroup/a/memory.current", "5368709120\n"); /* above it already */
    fm_mem_facts m;
    fm_facts_memory_at(root, &m);
    assert_int_equal(m.total_bytes, 4 * GIB);
    assert_int_equal(m.available_bytes, 0);
}

static void version_1_limit_counts_beside_an_empty_version_2(void **state)
{
    (void)state;
    put("proc/self/mountinfo",
        "30 22 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "31 22 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "32 22 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
        "33 22 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    put("proc/self/cgroup",
        "9:name=systemd:/\n5:cpuset:/\n4:memory:/batch/x\n2:cpu,cpuacct:/batch\n0::/\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "30000000000\n");
    put("sys/fs/cgroup/memory/batch/memory.limit_in_bytes", "17179869184\n");
    put("sys/fs/cgroup/memory/batch/memory.usage_in_bytes", "4294967296\n");
    put("sys/fs/cgroup/memory/batch/memory.stat",
        "total_inactive_file 1073741824\ntotal_active_file 0\n");
    put("sys/fs/cgroup/memory/batch/x/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_quota_us", "150000\n");
    put("sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    fm_mem_facts m;
    fm_facts_memory_at(root, &m);
    assert_int_equal(m.total_bytes, 16 * GIB);
    assert_int_equal(m.available_bytes, 13 * GIB);
    assert_int_equal(fm_facts_cpu_quota_at(root), 2);
}

static void container_that_sees_only_its_subtree_finds_its_limit(void **state)
{
    (void)state;
    put("proc/self/mountinfo",
        "33 22 0:29 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put("proc/self/cgroup", "4:memory:/docker/0123\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n");
    fm_mem_facts m;
    fm_facts_memory_at(root, &m);
    assert_int_equal(m.total_bytes, 2 * GIB);
    assert_int_equal(m.available_bytes, GIB);

    /* the group lies outside of what this namespace shows */
    put("proc/self/mountinfo", "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("proc/self/cgroup", "0::/../other\n");
    put("sys/fs/cgroup/memory.max", "3221225472\n");
    put("sys/fs/cgroup/memory.current", "0\n");
    fm_facts_memory_at(root, &m);
    assert_int_equal(m.total_bytes, 3 * GIB);
}

static void broken_files_are_no_limit(void **state)
{
    (void)state;
    put("proc/self/mountinfo", "garbage\n30 22 - cgroup2\n\n - cgroup2 cgroup2 rw\n");
    put("proc/self/cgroup", "0::/a\n:::\nx\n");
    put("sys/fs/cgroup/a/memory.max", "5\n");
    fm_mem_facts m;
    fm_facts_memory_at(root, &m);
    assert_int_equal(m.total_bytes, 32 * GIB);
    assert_int_equal(m.available_bytes, 24 * GIB);
    put("proc/self/mountinfo", "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("sys/fs/cgroup/a/memory.max", "many\n");
    put("sys/fs/cgroup/a/cpu.max", "0 0\n");
    fm_facts_memory_at(root, &m);
    assert_int_equal(m.total_bytes, 32 * GIB);
    assert_int_equal(fm_facts_cpu_quota_at(root), 0);
}

static void largest_cache_is_found(void **state)
{
    (void)state;
    assert_int_equal(fm_facts_last_cache_at(root, 16), 0);
    put("sys/devices/system/cpu/cpu0/cache/index0/size", "48K\n");
    put("sys/devices/system/cpu/cpu0/cache/index1/size", "nonsense\n");
    put("sys/devices/system/cpu/cpu0/cache/index3/size", "307200K\n");
    put("sys/devices/system/cpu/cpu0/cache/index4/size", "2048K\n");
    assert_int_equal(fm_facts_last_cache_at(root, 16), UINT64_C(300) << 20);
    put("sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_list", "0-3,8,10-11\n"); /* seven */
    assert_int_equal(fm_facts_last_cache_at(root, 7), UINT64_C(300) << 20);
    assert_int_equal(fm_facts_last_cache_at(root, 16), UINT64_C(900) << 20);
}

/* No processor has instructions of the other kind; on ARM the answer is that of its own registers. */
static void check_other_processors(unsigned cpu)
{
    const unsigned arm = FM_CPU_DOTPROD | FM_CPU_I8MM;
#if defined(__aarch64__)
    assert_int_equal(cpu & ~arm, 0);
#if defined(__linux__)
    enum { HAS_REGISTERS = 1 << 11 }; /* HWCAP_CPUID: the system answers for these registers */
    if (getauxval(AT_HWCAP) & HAS_REGISTERS) {
        uint64_t isar0, isar1;
        __asm__("mrs %0, ID_AA64ISAR0_EL1" : "=r"(isar0));
        __asm__("mrs %0, ID_AA64ISAR1_EL1" : "=r"(isar1));
        assert_int_equal((cpu & FM_CPU_DOTPROD) != 0, (isar0 >> 44 & 15) != 0);
        assert_int_equal((cpu & FM_CPU_I8MM) != 0, (isar1 >> 52 & 15) != 0);
    }
#endif
#else
    assert_int_equal(cpu & arm, 0);
#endif
}

static void this_machine_answers_sensibly(void **state)
{
    (void)state;
    fm_mem_facts m;
    fm_os_memory(&m);
    assert_true(m.total_bytes > 0 && m.available_bytes <= m.total_bytes);
    assert_in_range(fm_os_cpu_count(), 1, sysconf(_SC_NPROCESSORS_CONF));
    assert_true(fm_os_peak_rss() > 100000);
    const uint64_t t = fm_now_us();
    usleep(2000);
    assert_in_range(fm_now_us() - t, 2000, 60 * 1000000);
    const unsigned cpu = fm_os_cpu_features();
    if (cpu & FM_CPU_AVX512VNNI) assert_true(cpu & FM_CPU_AVX2);
    if (cpu & (FM_CPU_AMX_INT8 | FM_CPU_AVX512VBMI)) assert_true(cpu & FM_CPU_AVX512VNNI);
    assert_int_equal(fm_os_cpu_features(), cpu); /* asking for the tiles again changes nothing */
#if defined(__x86_64__) && defined(__GNUC__)
    assert_int_equal((cpu & FM_CPU_AVX2) != 0, __builtin_cpu_supports("avx2") != 0);
    assert_int_equal((cpu & FM_CPU_FMA) != 0, __builtin_cpu_supports("fma") != 0);
    assert_int_equal((cpu & FM_CPU_AVX512VNNI) != 0, __builtin_cpu_supports("avx512vnni") != 0);
    assert_int_equal((cpu & FM_CPU_AVX512VBMI) != 0,
                     (cpu & FM_CPU_AVX512VNNI) && __builtin_cpu_supports("avx512vbmi") &&
                         __builtin_cpu_supports("bmi2"));
#if __GNUC__ >= 11 && !defined(__clang__)
    assert_int_equal((cpu & FM_CPU_AVXVNNI) != 0, __builtin_cpu_supports("avxvnni") != 0);
#endif
    assert_int_equal((cpu & FM_CPU_AMD) != 0, __builtin_cpu_is("amd") != 0);
#endif
    check_other_processors(cpu);
    void *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fm_os_memlock_limit() >= 65536) assert_true(fm_os_lock(p, 8192));
    assert_true(fm_os_lock(p, 0));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they replace mlock() */
    assert_false(fm_os_lock(p, UINT64_C(1) << 60));
    assert_int_equal(errno, ENOMEM);
#endif
    munmap(p, 8192);
}

/* ---- plain files ------------------------------------------------------------------------- */

static void files_are_read_exactly_or_not_at_all(void **state)
{
    (void)state;
    put("f", "0123456789");
    char path[512], buf[16] = {0};
    snprintf(path, sizeof path, "%s/f", root);
    int fd;
    uint64_t bytes;
    fm_error err;
    assert_int_equal(fm_file_open(&fd, &bytes, path, &err), FM_OK);
    assert_int_equal(bytes, 10);
    assert_int_equal(fm_file_read_at(fd, path, buf, 4, 6, &err), FM_OK);
    assert_string_equal(buf, "6789");
    assert_int_equal(fm_file_read_at(fd, path, buf, 0, 99, &err), FM_OK);
    assert_int_equal(fm_file_read_at(fd, path, buf, 5, 6, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.msg, path));
    assert_non_null(strstr(err.msg, "ends at byte 10"));
    assert_int_equal(fm_file_read_at(fd, path, buf, 1, UINT64_MAX, &err), FM_E_ARG);
    fm_file_close(fd);
    fm_file_close(-1);

    assert_int_equal(fm_file_open(&fd, &bytes, root, &err), FM_E_ARG);
    assert_non_null(strstr(err.msg, "directory"));
    assert_int_equal(fd, -1);
    assert_int_equal(fm_file_open(&fd, NULL, "no/such/file", &err), FM_E_IO);
    assert_int_equal(err.os_errno, ENOENT);
}

/* Rows of the embedding are read this way: a disk's error that passes is as good as none. */
static void file_reads_are_tried_again(void **state)
{
    (void)state;
    put("f", "0123456789");
    char path[512], buf[16] = {0};
    snprintf(path, sizeof path, "%s/f", root);
    int fd;
    fm_error err = {0};
    assert_int_equal(fm_file_open(&fd, NULL, path, &err), FM_OK);
    static const char *const passing[] = {"eio", "enodata", "eintr", "eagain", "enolink"};
    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++) {
        char spec[64];
        snprintf(spec, sizeof spec, "file:%s:nth=1:times=4", passing[i]);
        assert_true(fm_fault_set(spec));
        memset(buf, 0, sizeof buf);
        assert_int_equal(fm_file_read_at(fd, path, buf, 4, 6, &err), FM_OK);
        assert_string_equal(buf, "6789");
    }
    assert_true(fm_fault_set("file:enodata:nth=1,retry:us=20000")); /* but not forever */
    assert_int_equal(fm_file_read_at(fd, path, buf, 4, 6, &err), FM_E_IO);
    assert_int_equal(err.os_errno, ENODATA);
    assert_non_null(strstr(err.msg, path));
    assert_non_null(strstr(err.msg, "4 bytes at 6"));
    assert_true(fm_fault_set("file:enodev:nth=1:times=1")); /* and not what will not pass */
    assert_int_equal(fm_file_read_at(fd, path, buf, 4, 6, &err), FM_E_IO);
    fm_fault_set(NULL);
    fm_file_close(fd);
}

int main(void)
{
#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, prepare, clear)
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(plain_machine_gives_its_own_numbers),
        IN_A_FOLDER(version_2_limit_of_an_ancestor_counts),
        IN_A_FOLDER(version_2_soft_limit_counts_too),
        IN_A_FOLDER(version_1_limit_counts_beside_an_empty_version_2),
        IN_A_FOLDER(container_that_sees_only_its_subtree_finds_its_limit),
        IN_A_FOLDER(broken_files_are_no_limit),
        IN_A_FOLDER(largest_cache_is_found),
        IN_A_FOLDER(this_machine_answers_sensibly),
        IN_A_FOLDER(files_are_read_exactly_or_not_at_all),
        IN_A_FOLDER(file_reads_are_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
