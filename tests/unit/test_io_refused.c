/* Reading where the system refuses something: no io_uring (a container's system call filter), no
 * right to lock memory. Each test runs in a child process, since such refusals are for good. */
#define _GNU_SOURCE /* system call numbers, setgroups */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/facts.h"
#include "os/io.h"

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { FILE_BYTES = 300000, OK = 0, BAD = 1, SKIP = 77 };

static char path[256];

static int make_file(void **state)
{
    (void)state;
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/fm_io_refused_%d.bin", dir ? dir : "/tmp", (int)getpid());
    FILE *f = fopen(path, "w");
    for (int i = 0; f && i < FILE_BYTES; i++) fputc(i * 7 & 0xff, f);
    return f ? fclose(f) : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

typedef struct {
    int n_line;
    char last[512];
} log_record;

static void keep_line(void *user, fm_log_level level, const char *line)
{
    log_record *r = user;
    (void)level;
    r->n_line++;
    snprintf(r->last, sizeof r->last, "%s", line);
}

#define CHECK(x)                                                                                  \
    do {                                                                                          \
        if (!(x)) {                                                                               \
            fprintf(stderr, "line %d: %s\n", __LINE__, #x);                                       \
            return BAD;                                                                           \
        }                                                                                         \
    } while (0)

/* Everything but what is refused works. */
static int read_works(fm_io *io, uint8_t *buf)
{
    const fm_io_file *file;
    fm_error err;
    CHECK(fm_io_open(io, &file, path, (fm_file_mark){FILE_BYTES, 0}, &err) == FM_OK);
    const fm_io_read rd = {.file = file, .offset = 5, .bytes = FILE_BYTES - 5, .base = buf};
    fm_io_done done;
    CHECK(fm_io_submit(io, &rd, 1, &err) == FM_OK);
    CHECK(fm_io_reap(io, &done, 1, true) == 1);
    CHECK(done.status == FM_OK);
    for (int i = 5; i < FILE_BYTES; i++) CHECK(buf[i] == (i * 7 & 0xff));
    return OK;
}

static bool install(struct sock_filter *rules, unsigned short n)
{
    struct sock_fprog program = {n, rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* A system call fails with EPERM from here on, as under a container's default profile. */
static bool refuse(int system_call)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)system_call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    return install(rules, sizeof rules / sizeof rules[0]);
}

/* The ring takes no reads any more, but can be asked for results (little-endian: the low half of the argument). */
static bool refuse_submission(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)SYS_io_uring_enter, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    return install(rules, sizeof rules / sizeof rules[0]);
}

/* As a kernel before 5.14, which knows no MADV_POPULATE_READ. */
static bool refuse_populating(void)
{
    enum { POPULATE_READ = 22 };
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, POPULATE_READ, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    return install(rules, sizeof rules / sizeof rules[0]);
}

/* What is mapped could vanish during the copy. */
static int without_populating(void)
{
    if (!refuse_populating()) return SKIP;
    const fm_io_options opt = {.engine = "mmap"};
    fm_io *io;
    fm_error err = {0};
    CHECK(fm_io_create(&io, &opt, &err) == FM_E_UNSUPPORTED);
    CHECK(io == NULL && strstr(err.msg, "mmap") && strstr(err.msg, "5.14"));
    return OK;
}

static int without_io_uring(void)
{
    if (!refuse(SYS_io_uring_setup)) return SKIP;
    log_record log = {0};
    fm_io_options opt = {.log = keep_line, .log_user = &log};
    fm_io *io;
    fm_error err = {0};
    static uint8_t buf[FILE_BYTES + 2 * FM_IO_ALIGN] __attribute__((aligned(FM_IO_ALIGN)));
    CHECK(fm_io_create(&io, &opt, &err) == FM_OK);
    CHECK(strcmp(fm_io_name(io), "pread") == 0);
    CHECK(log.n_line == 1);
    CHECK(strstr(log.last, "io_uring") && strstr(log.last, strerror(EPERM)));
    CHECK(read_works(io, buf) == OK);
    fm_io_destroy(io);
    opt.engine = "uring"; /* forced: an error, not another engine */
    CHECK(fm_io_create(&io, &opt, &err) == FM_E_UNSUPPORTED);
    CHECK(io == NULL && err.os_errno == EPERM);
    return OK;
}

static bool refuse_ring(void)
{
    return refuse(SYS_io_uring_enter);
}

/* The ring stops working while reads are under way. */
static int with_a_broken_ring(bool (*break_it)(void))
{
    static uint8_t buf[FILE_BYTES + 2 * FM_IO_ALIGN] __attribute__((aligned(FM_IO_ALIGN)));
    const fm_io_options opt = {.engine = "uring", .depth = 2, .split_bytes = 20000};
    fm_io *io;
    if (fm_io_create(&io, &opt, NULL) != FM_OK) return SKIP;
    CHECK(read_works(io, buf) == OK);
    const fm_io_file *file;
    CHECK(fm_io_open(io, &file, path, (fm_file_mark){FILE_BYTES, 0}, NULL) == FM_OK);
    if (!break_it()) return SKIP;
    for (int round = 0; round < 3; round++) { /* an error each time, no hang and no crash */
        const fm_io_read rd = {.file = file, .bytes = FILE_BYTES, .base = buf};
        fm_io_done done;
        CHECK(fm_io_submit(io, &rd, 1, NULL) == FM_OK);
        CHECK(fm_io_reap(io, &done, 1, true) == 1);
        CHECK(done.status == FM_E_IO && done.error.os_errno == EPERM);
        CHECK(strstr(done.error.msg, path) != NULL);
    }
    fm_io_destroy(io);
    return OK;
}

static int with_a_ring_that_breaks(void)
{
    return with_a_broken_ring(refuse_ring);
}

static int with_a_ring_that_takes_nothing(void)
{
    return with_a_broken_ring(refuse_submission);
}

static int without_locked_memory(void)
{
    const struct rlimit none = {4096, 4096};
    if (chmod(path, 0644) != 0 || setrlimit(RLIMIT_MEMLOCK, &none) != 0) return SKIP;
    if (getuid() == 0 && (setgroups(0, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0)) {
        return SKIP;
    }
    enum { BYTES = 16 << 20 };
    uint8_t *buf = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(buf != MAP_FAILED);
    CHECK(fm_os_memlock_limit() == 4096);
    errno = 0;
    CHECK(!fm_os_lock(buf, BYTES));
    CHECK(errno == ENOMEM);
    log_record log = {0};
    const fm_io_options opt = {.log = keep_line, .log_user = &log};
    fm_io *io;
    CHECK(fm_io_create(&io, &opt, NULL) == FM_OK);
    CHECK(read_works(io, buf) == OK);
    /* Some kernels count the ring's own memory; then threads read, and that is said. */
    CHECK(log.n_line == (strcmp(fm_io_name(io), "uring") == 0 ? 0 : 1));
    fm_io_destroy(io);
    return OK;
}

static void run_in_child(int (*test)(void))
{
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const int rc = test();
        fflush(NULL);
        _exit(rc);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIP) {
        print_message("skip: this process may not set up the refusal\n");
        return;
    }
    assert_int_equal(WEXITSTATUS(status), OK);
}

static void refused_io_uring_is_replaced_unless_asked_for(void **state)
{
    (void)state;
    run_in_child(without_io_uring);
}

static void ring_that_breaks_fails_its_reads(void **state)
{
    (void)state;
    run_in_child(with_a_ring_that_breaks);
    run_in_child(with_a_ring_that_takes_nothing);
}

static void mmap_is_refused_where_a_shorter_file_would_end_the_process(void **state)
{
    (void)state;
    run_in_child(without_populating);
}

static void refused_locking_is_a_note_not_an_error(void **state)
{
    (void)state;
    run_in_child(without_locked_memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_io_uring_is_replaced_unless_asked_for),
        cmocka_unit_test(ring_that_breaks_fails_its_reads),
        cmocka_unit_test(mmap_is_refused_where_a_shorter_file_would_end_the_process),
        cmocka_unit_test(refused_locking_is_a_note_not_an_error),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
#else
int main(void)
{
    puts("skipped: the refusals are written for Linux on 64-bit x86 and ARM");
    return 77;
}
#endif
