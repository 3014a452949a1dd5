/* Back ends that read with threads: "pread" (direct where the file allows it) and "mmap" (maps the
 * range, copies it into the buffer, unmaps: for comparison, buffered by nature). One thread per
 * unit of depth. A piece belongs to the threads from start() until it is on the list of done ones.
 */
#define _GNU_SOURCE /* MADV_* */
#include "os/io_internal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/fault.h"

#if defined(__linux__) && !defined(MADV_POPULATE_READ)
#define MADV_POPULATE_READ 22 /* headers older than the kernel */
#endif

typedef int64_t (*read_fn)(const fm_io_piece *p);

struct fm_io_back {
    /* set at creation */
    fm_io *io;
    read_fn read;
    pthread_t *threads;
    int n_thread;

    pthread_mutex_t mu;
    pthread_cond_t piece_came, piece_done;
    /* guarded by mu */
    fm_io_list todo, done;
    int n_idle;
    bool submitter_waits, stop;

    int n_held; /* submitter only: with the threads or on `done` */
};

static int64_t read_with_pread(const fm_io_piece *p)
{
    const ssize_t got = pread(p->file->fd, p->buf + p->done, p->bytes - p->done,
                              (off_t)(p->offset + p->done));
    return got >= 0 ? got : -errno;
}

static int populate(void *map, size_t bytes)
{
#ifdef MADV_POPULATE_READ
    return madvise(map, bytes, MADV_POPULATE_READ);
#else
    (void)map, (void)bytes;
    errno = EINVAL;
    return -1;
#endif
}

static bool can_populate(void)
{
    void *const page = mmap(NULL, 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return false;
    const bool can = populate(page, (size_t)sysconf(_SC_PAGESIZE)) == 0;
    munmap(page, 1);
    return can;
}

static int64_t read_with_mmap(const fm_io_piece *p)
{
    const uint64_t offset = p->offset + p->done;
    struct stat st;
    if (fstat(p->file->fd, &st) != 0) return -errno;
    if ((uint64_t)st.st_size <= offset) return 0;
    const uint64_t in_file = (uint64_t)st.st_size - offset;
    size_t n = p->bytes - p->done;
    if (n > in_file) n = (size_t)in_file;
    /* The system's pages may be larger than FM_IO_ALIGN, of which offset is a multiple. */
    const size_t before = (size_t)(offset % (uint64_t)sysconf(_SC_PAGESIZE)), whole = before + n;
    uint8_t *map = mmap(NULL, whole, PROT_READ, MAP_PRIVATE, p->file->fd, (off_t)(offset - before));
    if (map == MAP_FAILED) return -errno;
    int64_t result = (int64_t)n;
    (void)madvise(map, whole, MADV_WILLNEED); /* one large read instead of one per fault */
    /* Brings the pages in, and turns what would be a SIGBUS during the copy into an error. */
    if (populate(map, whole) != 0) result = errno == EFAULT ? -EIO : -errno;
    if (result > 0) memcpy(p->buf + p->done, map + before, n);
    munmap(map, whole);
    return result;
}

static void *reader_main(void *arg)
{
    fm_io_back *b = arg;
    pthread_mutex_lock(&b->mu);
    for (;;) {
        const int32_t at = fm_io_piece_pop(b->io, &b->todo);
        if (at < 0) {
            if (b->stop) break;
            b->n_idle++;
            pthread_cond_wait(&b->piece_came, &b->mu);
            b->n_idle--;
            continue;
        }
        pthread_mutex_unlock(&b->mu);
        fm_io_piece *p = &b->io->pieces[at];
        p->result = fm_fault_read(p->file, p->offset + p->done, p->buf + p->done, b->read(p));
        pthread_mutex_lock(&b->mu);
        fm_io_piece_push(b->io, &b->done, at);
        if (b->submitter_waits) pthread_cond_signal(&b->piece_done);
    }
    pthread_mutex_unlock(&b->mu);
    return NULL;
}

static void threads_destroy(fm_io_back *b)
{
    if (!b) return;
    pthread_mutex_lock(&b->mu);
    b->stop = true;
    pthread_cond_broadcast(&b->piece_came);
    pthread_mutex_unlock(&b->mu);
    for (int i = 0; i < b->n_thread; i++) pthread_join(b->threads[i], NULL);
    pthread_cond_destroy(&b->piece_done);
    pthread_cond_destroy(&b->piece_came);
    pthread_mutex_destroy(&b->mu);
    free(b->threads);
    free(b);
}

static fm_status threads_create(fm_io_back **out, fm_io *io, read_fn read, fm_error *err)
{
    *out = NULL;
    fm_io_back *b = calloc(1, sizeof *b);
    if (!b) return fm_fail(err, FM_E_NOMEM, "no memory for reading threads");
    b->io = io;
    b->read = read;
    b->todo = b->done = (fm_io_list){-1, -1};
    pthread_mutex_init(&b->mu, NULL);
    pthread_cond_init(&b->piece_came, NULL);
    pthread_cond_init(&b->piece_done, NULL);
    b->threads = calloc((size_t)io->depth, sizeof *b->threads);
    if (!b->threads) {
        threads_destroy(b);
        return fm_fail(err, FM_E_NOMEM, "no memory for %d reading threads", io->depth);
    }
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    for (int i = 0; i < io->depth && rc == 0; i++) {
        rc = pthread_create(&b->threads[i], NULL, reader_main, b);
        if (rc == 0) b->n_thread++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (b->n_thread == 0) { /* fewer threads than the depth are slower, not wrong */
        threads_destroy(b);
        return fm_fail_errno(err, rc, "starting a reading thread");
    }
    *out = b;
    return FM_OK;
}

static fm_status pread_create(fm_io_back **out, fm_io *io, fm_error *err)
{
    return threads_create(out, io, read_with_pread, err);
}

static fm_status mmap_create(fm_io_back **out, fm_io *io, fm_error *err)
{
    *out = NULL;
    if (!can_populate())
        return fm_fail(
            err, FM_E_UNSUPPORTED,
            "I/O engine 'mmap' needs MADV_POPULATE_READ (Linux 5.14): without it a file that "
            "becomes shorter would end the process; expected uring or pread");
    return threads_create(out, io, read_with_mmap, err);
}

static void threads_start(fm_io_back *b, int32_t piece)
{
    pthread_mutex_lock(&b->mu);
    fm_io_piece_push(b->io, &b->todo, piece);
    if (b->n_idle > 0) pthread_cond_signal(&b->piece_came);
    pthread_mutex_unlock(&b->mu);
    b->n_held++;
}

static void threads_flush(fm_io_back *b)
{
    (void)b;
}

static void threads_reap(fm_io_back *b, bool wait)
{
    if (b->n_held == 0) return;
    pthread_mutex_lock(&b->mu);
    while (wait && b->done.head < 0) {
        b->submitter_waits = true;
        pthread_cond_wait(&b->piece_done, &b->mu);
        b->submitter_waits = false;
    }
    int32_t at = b->done.head;
    b->done = (fm_io_list){-1, -1};
    pthread_mutex_unlock(&b->mu);
    while (at >= 0) {
        const int32_t next = b->io->pieces[at].next;
        b->n_held--;
        fm_io_piece_done(b->io, at);
        at = next;
    }
}

const fm_io_ops fm_io_ops_pread = {
    .name = "pread",
    .stock = FM_IO_MAX_STOCK,
    .create = pread_create,
    .destroy = threads_destroy,
    .start = threads_start,
    .flush = threads_flush,
    .reap = threads_reap,
};

const fm_io_ops fm_io_ops_mmap = {
    .name = "mmap",
    .stock = FM_IO_MAX_STOCK,
    .create = mmap_create,
    .destroy = threads_destroy,
    .start = threads_start,
    .flush = threads_flush,
    .reap = threads_reap,
};
