/* The I/O engines: the same bytes from all of them for any range, and an error that names the place
 * when bytes cannot be had. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/fault.h"
#include "os/io.h"

enum { FILE_BYTES = 5 * 1024 * 1024 + 1234, SPLIT = 64 * 1024, MAX_BYTES = 700 * 1024 };

static const char *const engines[] = {"uring", "pread", "mmap"};
enum { N_ENGINE = 3 };

static char file_path[256];
static uint8_t *content;
static uint64_t seed = 88172645463325252u;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void write_content(const char *path, size_t n)
{
    const int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    for (size_t done = 0; done < n;) {
        const ssize_t put = write(fd, content + done, n - done);
        assert_true(put > 0);
        done += (size_t)put;
    }
    assert_int_equal(fsync(fd), 0);
    close(fd);
}

static int make_file(void **state)
{
    (void)state;
    content = malloc(FILE_BYTES);
    for (size_t i = 0; i < FILE_BYTES; i++) content[i] = (uint8_t)next_random();
    const char *dir = getenv("TMPDIR");
    snprintf(file_path, sizeof file_path, "%s/fm_io_%d.bin", dir ? dir : "/tmp", (int)getpid());
    write_content(file_path, FILE_BYTES);
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    unlink(file_path);
    free(content);
    return 0;
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

/* NULL when this machine has no io_uring, or cannot map files: a skip, not a pass. */
static fm_io *open_engine(const char *name, int depth, const fm_io_file **file, log_record *log)
{
    fm_io *io;
    fm_error err;
    const fm_io_options opt = {.engine = name,
                               .depth = depth,
                               .split_bytes = SPLIT,
                               .log = log ? keep_line : NULL,
                               .log_user = log};
    if (log) memset(log, 0, sizeof *log);
    const fm_status st = fm_io_create(&io, &opt, &err);
    if (st == FM_E_UNSUPPORTED && strcmp(name, "pread") != 0) {
        print_message("skip: %s\n", err.msg);
        return NULL;
    }
    assert_int_equal(st, FM_OK);
    assert_string_equal(fm_io_name(io), name);
    assert_int_equal(fm_io_open(io, file, file_path, (fm_file_mark){FILE_BYTES, 0}, &err), FM_OK);
    return io;
}

static void *buffer_for(uint64_t bytes)
{
    void *p = NULL;
    assert_int_equal(posix_memalign(&p, FM_IO_ALIGN, fm_io_room(bytes)), 0);
    memset(p, 0xee, fm_io_room(bytes));
    return p;
}

static fm_io_done read_one(fm_io *io, const fm_io_file *file, uint64_t offset, uint64_t bytes,
                           void *base)
{
    const fm_io_read rd = {.file = file, .offset = offset, .bytes = bytes, .base = base, .tag = 77};
    assert_int_equal(fm_io_submit(io, &rd, 1, NULL), FM_OK);
    assert_int_equal(fm_io_outstanding(io), 1);
    fm_io_done done;
    assert_int_equal(fm_io_reap(io, &done, 1, true), 1);
    assert_int_equal(done.tag, 77);
    assert_int_equal(fm_io_outstanding(io), 0);
    return done;
}

static void assert_bytes(const void *base, uint64_t offset, uint64_t bytes)
{
    const uint8_t *p = (const uint8_t *)base + offset % FM_IO_ALIGN;
    assert_memory_equal(p, content + offset, bytes);
}

static void every_engine_reads_any_range(void **state)
{
    (void)state;
    static const struct {
        uint64_t offset, bytes;
    } edges[] = {
        {0, 1}, {0, 4096}, {1, 4095}, {1, 4096}, {4095, 1}, {4095, 2}, {4096, 4096}, {8191, 8194},
        {0, SPLIT}, {1, SPLIT}, {SPLIT - 1, SPLIT + 2}, {100, 3 * SPLIT}, {FILE_BYTES - 1, 1},
        {FILE_BYTES - 5000, 5000}, {FILE_BYTES - 3 * SPLIT - 1, 3 * SPLIT + 1}, {0, FILE_BYTES},
    };
    for (int e = 0; e < N_ENGINE; e++) {
        const fm_io_file *file;
        fm_io *io = open_engine(engines[e], 4, &file, NULL);
        if (!io) continue;
        for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
            void *base = buffer_for(edges[i].bytes);
            const fm_io_done d = read_one(io, file, edges[i].offset, edges[i].bytes, base);
            assert_int_equal(d.status, FM_OK);
            assert_bytes(base, edges[i].offset, edges[i].bytes);
            free(base);
        }
        assert_true(fm_io_bytes_read(io) >= FILE_BYTES);
        fm_io_destroy(io);
    }
}

typedef struct {
    uint64_t offset, bytes;
    void *base;
    bool pending;
} slot;

/* Keeps many reads of mixed priority under way and checks every byte. */
static void random_traffic(fm_io *io, const fm_io_file *file, int n_slot, int n_read, bool may_fail)
{
    slot *slots = calloc((size_t)n_slot, sizeof *slots);
    for (int i = 0; i < n_slot; i++) slots[i].base = buffer_for(MAX_BYTES);
    int n_started = 0, n_pending = 0, n_ok = 0;
    while (n_started < n_read || n_pending > 0) {
        for (int i = 0; i < n_slot && n_started < n_read; i++) {
            slot *s = &slots[i];
            if (s->pending) continue;
            s->bytes = 1 + next_random() % (next_random() % 4 == 0 ? MAX_BYTES : 9000);
            s->offset = next_random() % (FILE_BYTES - s->bytes);
            s->pending = true;
            const fm_io_read rd = {.file = file,
                                   .offset = s->offset,
                                   .bytes = s->bytes,
                                   .base = s->base,
                                   .tag = (uint64_t)i,
                                   .priority = (int)(next_random() % FM_IO_PRIORITIES)};
            assert_int_equal(fm_io_submit(io, &rd, 1, NULL), FM_OK);
            n_started++;
            n_pending++;
        }
        fm_io_done done[5];
        const bool wait = next_random() % 3 != 0;
        const int n = fm_io_reap(io, done, 5, wait);
        if (wait) assert_true(n > 0);
        for (int i = 0; i < n; i++) {
            slot *s = &slots[done[i].tag];
            assert_true(s->pending);
            s->pending = false;
            n_pending--;
            if (!may_fail && done[i].status != FM_OK) fail_msg("%s", done[i].error.msg);
            if (done[i].status != FM_OK) continue;
            assert_bytes(s->base, s->offset, s->bytes);
            memset(s->base, 0xee, fm_io_room(s->bytes));
            n_ok++;
        }
    }
    assert_true(n_ok > 0);
    assert_int_equal(fm_io_outstanding(io), 0);
    for (int i = 0; i < n_slot; i++) free(slots[i].base);
    free(slots);
}

static void random_reads_beyond_the_depth_are_exact(void **state)
{
    (void)state;
    static const int depths[] = {1, 3, 8, 64};
    for (int e = 0; e < N_ENGINE; e++) {
        for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
            const fm_io_file *file;
            fm_io *io = open_engine(engines[e], depths[i], &file, NULL);
            if (!io) continue;
            assert_int_equal(fm_io_depth(io), depths[i]);
            random_traffic(io, file, 40, 300, false);
            fm_io_destroy(io);
        }
    }
}

static void short_and_interrupted_reads_are_continued(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        static const char *const specs[] = {"read:short:every=2", "read:short:every=3",
                                            "read:eio:nth=9:times=2,read:short:nth=4"};
        for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
            const fm_io_file *file;
            fm_io *io = open_engine(engines[e], 4, &file, NULL);
            if (!io) continue;
            assert_true(fm_fault_set(specs[i]));
            /* one at a time, so that "every second" cannot always hit the same read */
            random_traffic(io, file, 1, 60, i < 2);
            fm_fault_set(NULL);
            fm_io_destroy(io);
        }
    }
}

static void device_error_is_reported_with_its_place(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        const fm_io_file *file;
        fm_io *io = open_engine(engines[e], 4, &file, NULL);
        if (!io) continue;
        void *base = buffer_for(6 * SPLIT);
        assert_true(fm_fault_set("read:EIO:nth=3:sticky,retry:us=0"));
        fm_io_done d = read_one(io, file, 12345, 6 * SPLIT, base);
        assert_int_equal(d.status, FM_E_IO);
        assert_int_equal(d.error.code, FM_E_IO);
        assert_int_equal(d.error.os_errno, EIO);
        assert_non_null(strstr(d.error.msg, file_path));
        assert_non_null(strstr(d.error.msg, "12345"));
        assert_non_null(strstr(d.error.msg, strerror(EIO)));
        fm_fault_set(NULL); /* the engine goes on after an error */
        d = read_one(io, file, 12345, 6 * SPLIT, base);
        assert_int_equal(d.status, FM_OK);
        assert_bytes(base, 12345, 6 * SPLIT);

        assert_true(fm_fault_set("read:eio-forever"));
        d = read_one(io, file, 0, 10, base);
        assert_int_equal(d.status, FM_E_IO);
        assert_in_range(fm_fault_reads(), 3, 12); /* a second, at growing distances */
        assert_true(fm_fault_set("read:eio:nth=1:times=2"));
        d = read_one(io, file, 0, 10, base);
        assert_int_equal(d.status, FM_OK);
        fm_fault_set(NULL);
        free(base);
        fm_io_destroy(io);
    }
}

static void errors_in_the_middle_of_traffic_hit_only_their_read(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        const fm_io_file *file;
        fm_io *io = open_engine(engines[e], 6, &file, NULL);
        if (!io) continue;
        assert_true(fm_fault_set("read:eio:nth=20:sticky,read:enodata:nth=50:sticky,"
                                 "read:eof:nth=80:sticky,retry:us=20000"));
        random_traffic(io, file, 20, 200, true);
        fm_fault_set(NULL);
        random_traffic(io, file, 20, 50, false);
        fm_io_destroy(io);
    }
}

static void shrunk_file_is_noticed_by_the_read(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        for (int cut = 0; cut < 3; cut++) {
            const fm_io_file *file;
            fm_io *io = open_engine(engines[e], 4, &file, NULL);
            if (!io) continue;
            static const off_t new_size[] = {2 * SPLIT + 4096, 2 * SPLIT + 777, 0};
            assert_int_equal(truncate(file_path, new_size[cut]), 0);
            void *base = buffer_for(6 * SPLIT);
            const fm_io_done d = read_one(io, file, 100, 6 * SPLIT, base);
            assert_int_equal(d.status, FM_E_FORMAT);
            assert_non_null(strstr(d.error.msg, "shorter than the checkpoint says"));
            assert_non_null(strstr(d.error.msg, file_path));
            char where[32];
            snprintf(where, sizeof where, "byte %d,", (int)new_size[cut]);
            assert_non_null(strstr(d.error.msg, where));
            free(base);
            fm_io_destroy(io);
            write_content(file_path, FILE_BYTES);
        }
    }
}

static void file_that_is_not_what_the_checkpoint_saw_is_refused(void **state)
{
    (void)state;
    fm_io *io;
    fm_error err;
    const fm_io_file *file;
    assert_int_equal(fm_io_create(&io, &(fm_io_options){.engine = "pread"}, &err), FM_OK);
    fm_file_mark was;
    const int fd = open(file_path, O_RDWR);
    assert_int_equal(fm_file_mark_of(&was, fd, file_path, &err), FM_OK);
    const fm_file_mark bad[] = {
        {FILE_BYTES + 1, 0}, {FILE_BYTES - 1, 0}, {FILE_BYTES, was.mtime_ns - 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(fm_io_open(io, &file, file_path, bad[i], &err), FM_E_FORMAT);
        assert_null(file);
        assert_non_null(strstr(err.msg, file_path));
        assert_non_null(strstr(err.msg, "changed since it was first looked at"));
    }
    assert_int_equal(fm_io_open(io, &file, file_path, was, &err), FM_OK);
    assert_int_equal(pwrite(fd, content, 1, 0), 1); /* the same byte, but who knows */
    const struct timespec later[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
    assert_int_equal(futimens(fd, later), 0);
    assert_int_equal(fm_io_open(io, &file, file_path, was, &err), FM_E_FORMAT);
    close(fd);
    assert_int_equal(fm_io_open(io, &file, "no/such/file", was, &err), FM_E_IO);
    assert_int_equal(err.os_errno, ENOENT);
    fm_io_destroy(io);
}

static void full_queue_refuses_all_or_none(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        const fm_io_file *file;
        fm_io *io;
        fm_error err;
        const fm_io_options opt = {.engine = engines[e], .depth = 2, .capacity = 10};
        if (fm_io_create(&io, &opt, &err) != FM_OK) continue;
        assert_int_equal(fm_io_open(io, &file, file_path, (fm_file_mark){FILE_BYTES, 0}, NULL),
                         FM_OK);
        assert_int_equal(fm_io_capacity(io), 10);
        fm_io_read rd[11];
        for (int i = 0; i < 11; i++) {
            rd[i] = (fm_io_read){.file = file,
                                 .offset = (uint64_t)i * 5000,
                                 .bytes = 5000,
                                 .base = buffer_for(5000),
                                 .tag = (uint64_t)i};
        }
        assert_int_equal(fm_io_submit(io, rd, 11, &err), FM_E_LIMIT);
        assert_int_equal(fm_io_outstanding(io), 0);
        assert_int_equal(fm_io_submit(io, rd, 10, &err), FM_OK);
        assert_int_equal(fm_io_submit(io, &rd[10], 1, &err), FM_E_LIMIT);
        fm_io_done done[16];
        int n = 0;
        while (n < 10) n += fm_io_reap(io, done + n, 16 - n, true);
        assert_int_equal(fm_io_reap(io, done, 16, true), 0); /* nothing left: does not block */
        assert_int_equal(fm_io_submit(io, &rd[10], 1, &err), FM_OK);
        assert_int_equal(fm_io_reap(io, done, 16, true), 1);
        for (int i = 0; i < 11; i++) {
            assert_bytes(rd[i].base, rd[i].offset, rd[i].bytes);
            free(rd[i].base);
        }
        fm_io_destroy(io);
    }
}

static void malformed_reads_are_refused(void **state)
{
    (void)state;
    const fm_io_file *file;
    fm_io *io = open_engine("pread", 2, &file, NULL);
    uint8_t *base = buffer_for(10000);
    fm_error err;
    const fm_io_read bad[] = {
        {.file = file, .offset = 0, .bytes = 0, .base = base},
        {.file = file, .offset = 0, .bytes = 1, .base = base + 1},
        {.file = file, .offset = UINT64_MAX, .bytes = 2, .base = base},
        {.file = file, .offset = INT64_MAX, .bytes = 2, .base = base},
        {.file = file, .offset = 0, .bytes = 1, .base = base, .priority = 3},
        {.file = NULL, .offset = 0, .bytes = 1, .base = base},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(fm_io_submit(io, &bad[i], 1, &err), FM_E_ARG);
    }
    assert_int_equal(fm_io_outstanding(io), 0);
    free(base);
    fm_io_destroy(io);
}

static void destroy_with_reads_under_way_is_safe(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        for (int round = 0; round < 5; round++) {
            const fm_io_file *file;
            fm_io *io = open_engine(engines[e], 3, &file, NULL);
            if (!io) continue;
            assert_true(fm_fault_set(round == 4 ? "read:eio-forever,retry:us=0" : NULL));
            void *base[30];
            for (int i = 0; i < 30; i++) {
                base[i] = buffer_for(2 * SPLIT);
                const fm_io_read rd = {.file = file,
                                       .offset = (uint64_t)i * 1000,
                                       .bytes = 2 * SPLIT,
                                       .base = base[i],
                                       .priority = i % 3};
                assert_int_equal(fm_io_submit(io, &rd, 1, NULL), FM_OK);
            }
            fm_io_done d;
            if (round > 1) (void)fm_io_reap(io, &d, 1, true);
            fm_io_destroy(io);
            fm_fault_set(NULL);
            for (int i = 0; i < 30; i++) free(base[i]);
        }
    }
    fm_io_destroy(NULL);
}

static void first_priority_overtakes_waiting_guesses(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        const fm_io_file *file;
        fm_io *io = open_engine(engines[e], 1, &file, NULL);
        if (!io) continue;
        void *base[9];
        for (int i = 0; i < 9; i++) {
            base[i] = buffer_for(5000);
            const fm_io_read rd = {.file = file,
                                   .offset = (uint64_t)i * 9000,
                                   .bytes = 5000,
                                   .base = base[i],
                                   .tag = (uint64_t)i,
                                   .priority = i == 8 ? 0 : 2};
            assert_int_equal(fm_io_submit(io, &rd, 1, NULL), FM_OK);
        }
        fm_io_done d[9];
        int n = 0, urgent_at = -1;
        while (n < 9) {
            const int got = fm_io_reap(io, d, 9, true);
            for (int i = 0; i < got; i++, n++) {
                if (d[i].tag == 8) urgent_at = n;
            }
        }
        assert_in_range(urgent_at, 0, 2); /* behind what the device already had */
        for (int i = 0; i < 9; i++) free(base[i]);
        fm_io_destroy(io);
    }
}

static void file_without_direct_io_is_read_buffered_and_said_once(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/fm_io_%d.bin", (int)getpid());
    const int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (fd < 0) {
        print_message("skip: no /dev/shm\n");
        return;
    }
    close(fd);
    write_content(path, 100000);
    for (int e = 0; e < 2; e++) {
        log_record log = {0};
        fm_io *io;
        const fm_io_options opt = {.engine = engines[e], .log = keep_line, .log_user = &log};
        if (fm_io_create(&io, &opt, NULL) != FM_OK) continue;
        const fm_io_file *a, *b;
        assert_int_equal(fm_io_open(io, &a, path, (fm_file_mark){100000, 0}, NULL), FM_OK);
        assert_int_equal(fm_io_open(io, &b, path, (fm_file_mark){100000, 0}, NULL), FM_OK);
        void *base = buffer_for(90000);
        assert_int_equal(read_one(io, b, 7777, 90000, base).status, FM_OK);
        assert_bytes(base, 7777, 90000);
        assert_true(log.n_line <= 1); /* newer kernels do direct I/O on tmpfs */
        free(base);
        fm_io_destroy(io);
    }
    unlink(path);
}

/* For what must not fail though this machine stands still for more than the second of a user. */
#define PATIENT ",retry:us=30000000"

static void passing_errors_are_tried_again(void **state)
{
    (void)state;
    for (int e = 0; e < N_ENGINE; e++) {
        const fm_io_file *file;
        fm_io *io = open_engine(engines[e], 4, &file, NULL);
        if (!io) continue;
        assert_true(fm_fault_set("read:eintr:every=2,read:eagain:every=3" PATIENT));
        random_traffic(io, file, 10, 100, false);
        static const char *const others[] = {"eio",     "enodata", "etimedout",
                                             "enolink", "enomem",  "ebusy"};
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
            char spec[96];
            /* several times, so not in a moment */
            snprintf(spec, sizeof spec, "read:%s:nth=7:times=4,read:%s:nth=20:times=3" PATIENT,
                     others[i], others[i]);
            assert_true(fm_fault_set(spec));
            random_traffic(io, file, 10, 40, false);
        }
        fm_fault_set("read:eagain:every=1,retry:us=20000"); /* but not forever */
        void *base = buffer_for(100);
        const fm_io_done d = read_one(io, file, 0, 100, base);
        assert_int_equal(d.status, FM_E_IO);
        assert_int_equal(d.error.os_errno, EAGAIN);
        fm_fault_set("read:enodev:every=1"); /* and not these */
        assert_int_equal(read_one(io, file, 0, 100, base).error.os_errno, ENODEV);
        assert_int_equal(fm_fault_reads(), 1);
        fm_fault_set(NULL);
        free(base);
        fm_io_destroy(io);
    }
}

/* One bad place does not hold up the reads beside it. */
static void others_go_on_while_one_is_tried_again(void **state)
{
    (void)state;
    enum { N = 20, BYTES = 5000 };
    for (int e = 0; e < N_ENGINE; e++) {
        const fm_io_file *file;
        fm_io *io = open_engine(engines[e], 4, &file, NULL);
        if (!io) continue;
        assert_true(fm_fault_set("read:enodata:nth=1:sticky,retry:us=200000"));
        void *base[N];
        for (int i = 0; i < N; i++) {
            base[i] = buffer_for(BYTES);
            const fm_io_read rd = {.file = file,
                                   .offset = (uint64_t)i * 9000,
                                   .bytes = BYTES,
                                   .base = base[i],
                                   .tag = (uint64_t)i};
            assert_int_equal(fm_io_submit(io, &rd, 1, NULL), FM_OK);
        }
        fm_io_done d[N];
        int n = 0;
        while (n < N) n += fm_io_reap(io, d + n, N - n, true);
        int n_before = 0, n_bad = 0;
        for (int i = 0; i < N; i++) {
            n_bad += d[i].status != FM_OK;
            n_before += n_bad == 0;
            if (d[i].status != FM_OK) assert_int_equal(d[i].error.os_errno, ENODATA);
        }
        assert_int_equal(n_bad, 1);
        assert_true(n_before >= N / 2); /* all, where nobody else holds up this machine */
        fm_fault_set(NULL);
        for (int i = 0; i < N; i++) free(base[i]);
        fm_io_destroy(io);
    }
}

static void direct_read_that_is_refused_becomes_a_buffered_one(void **state)
{
    (void)state;
    for (int e = 0; e < 2; e++) {
        log_record log;
        const fm_io_file *file;
        fm_io *io = open_engine(engines[e], 4, &file, &log);
        if (!io) continue;
        if (log.n_line > 0) { /* no direct I/O where the test file lies */
            fm_io_destroy(io);
            continue;
        }
        assert_true(fm_fault_set("read:einval:nth=3"));
        random_traffic(io, file, 10, 60, false);
        assert_int_equal(log.n_line, 1);
        assert_non_null(strstr(log.last, "page cache"));
        assert_non_null(strstr(log.last, "EINVAL")); /* and not that there is no direct I/O */
        assert_non_null(strstr(log.last, file_path));
        const fm_io_file *other; /* another one is another matter */
        assert_int_equal(fm_io_open(io, &other, file_path, (fm_file_mark){FILE_BYTES, 0}, NULL),
                         FM_OK);
        assert_true(fm_fault_set("read:einval:nth=3"));
        random_traffic(io, other, 10, 60, false);
        random_traffic(io, file, 10, 60, false);
        assert_int_equal(log.n_line, 2);
        fm_fault_set("read:einval:every=1"); /* now it means something else */
        void *base = buffer_for(100);
        const fm_io_done d = read_one(io, file, 0, 100, base);
        assert_int_equal(d.status, FM_E_IO);
        assert_int_equal(d.error.os_errno, EINVAL);
        fm_fault_set(NULL);
        free(base);
        fm_io_destroy(io);
    }
}

/* A memory cgroup that is full, for instance, lets a ring take nothing. */
static void ring_that_fails_for_a_while_goes_on(void **state)
{
    (void)state;
    static const char *const specs[] = {"ring:eagain:nth=1:times=300",
                                        "ring:enomem:nth=5:times=200"};
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        const fm_io_file *file;
        fm_io *io = open_engine("uring", 4, &file, NULL);
        if (!io) return;
        assert_true(fm_fault_set(specs[i]));
        random_traffic(io, file, 10, 100, false);
        fm_fault_set(NULL);
        fm_io_destroy(io);
    }
}

typedef struct {
    fm_io *io;
    const fm_io_read *reads;
    int n;
    fm_status status;
} submission;

static void *submit_and_leave(void *arg)
{
    submission *s = arg;
    s->status = fm_io_submit(s->io, s->reads, s->n, NULL);
    return NULL;
}

/* One thread at a time, but not always the same one; reads may be under way in between. */
static void engine_may_pass_from_thread_to_thread(void **state)
{
    (void)state;
    enum { N = 12, BYTES = 3 * SPLIT };
    for (int e = 0; e < N_ENGINE; e++) {
        const fm_io_file *file;
        fm_io *io = open_engine(engines[e], 4, &file, NULL);
        if (!io) continue;
        fm_io_read rd[N];
        for (int i = 0; i < N; i++) {
            rd[i] = (fm_io_read){.file = file,
                                 .offset = (uint64_t)i * 111111,
                                 .bytes = BYTES,
                                 .base = buffer_for(BYTES),
                                 .tag = (uint64_t)i};
        }
        for (int round = 0; round < 10; round++) {
            submission s = {.io = io, .reads = rd, .n = N};
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, submit_and_leave, &s), 0);
            pthread_join(thread, NULL);
            assert_int_equal(s.status, FM_OK);
            fm_io_done done[N];
            for (int n = 0; n < N;) n += fm_io_reap(io, done + n, N - n, true);
            for (int i = 0; i < N; i++) {
                assert_int_equal(done[i].status, FM_OK);
                assert_bytes(rd[i].base, rd[i].offset, BYTES);
                memset(rd[i].base, 0xee, fm_io_room(BYTES));
            }
        }
        for (int i = 0; i < N; i++) free(rd[i].base);
        fm_io_destroy(io);
    }
}

static void unknown_engine_is_an_error(void **state)
{
    (void)state;
    fm_io *io;
    fm_error err;
    assert_int_equal(fm_io_create(&io, &(fm_io_options){.engine = "aio"}, &err), FM_E_ARG);
    assert_null(io);
    assert_non_null(strstr(err.msg, "aio"));
    assert_int_equal(fm_io_create(&io, &(fm_io_options){.depth = -1}, &err), FM_E_ARG);
    assert_int_equal(fm_io_create(&io, NULL, &err), FM_OK); /* the best there is */
    fm_io_destroy(io);
}

static void fault_specs_that_are_not_understood_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"read", "read:eio", "seek:eio:nth=1", "read:eio:nth=x",
                                      "read:what:nth=1", "nonsense", "read:eio:nth=1,oops"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(fm_fault_set(bad[i]));
    assert_true(fm_fault_set("read:EIO:nth=1,alloc:nth=3"));
    assert_true(fm_fault_set("write:enospc:nth=1,file:eio:nth=1,ring:eagain:nth=2,retry:us=0"));
    assert_true(fm_fault_set(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_engine_reads_any_range),
        cmocka_unit_test(random_reads_beyond_the_depth_are_exact),
        cmocka_unit_test(short_and_interrupted_reads_are_continued),
        cmocka_unit_test(device_error_is_reported_with_its_place),
        cmocka_unit_test(errors_in_the_middle_of_traffic_hit_only_their_read),
        cmocka_unit_test(shrunk_file_is_noticed_by_the_read),
        cmocka_unit_test(file_that_is_not_what_the_checkpoint_saw_is_refused),
        cmocka_unit_test(full_queue_refuses_all_or_none),
        cmocka_unit_test(malformed_reads_are_refused),
        cmocka_unit_test(destroy_with_reads_under_way_is_safe),
        cmocka_unit_test(first_priority_overtakes_waiting_guesses),
        cmocka_unit_test(file_without_direct_io_is_read_buffered_and_said_once),
        cmocka_unit_test(passing_errors_are_tried_again),
        cmocka_unit_test(others_go_on_while_one_is_tried_again),
        cmocka_unit_test(direct_read_that_is_refused_becomes_a_buffered_one),
        cmocka_unit_test(ring_that_fails_for_a_while_goes_on),
        cmocka_unit_test(engine_may_pass_from_thread_to_thread),
        cmocka_unit_test(unknown_engine_is_an_error),
        cmocka_unit_test(fault_specs_that_are_not_understood_are_refused),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
