/* io_uring back end: pieces become read operations of one ring, submitted and reaped by the thread
 * that uses the engine. Files are registered with the ring when the kernel allows it.
 *
 * The ring is not bound to one thread (IORING_SETUP_SINGLE_ISSUER, DEFER_TASKRUN): an engine may
 * be opened by one thread and used by another, and reads may be under way in between.
 */
#include "os/io_internal.h"

#if defined(__linux__)

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

#include "base/spin.h"
#include "os/fault.h"

enum {
    MAX_FILES = 256,
    CQE_BATCH = 32,
    PAUSES_PER_LOOK = 32,
    /* A ring is given up after so many failing system calls in a row that took so long: a memory cgroup that is full
     * for a moment lets it allocate nothing, and there are a hundred calls in a millisecond. */
    MAX_RING_ERRORS = 100,
    MAX_RING_ERROR_US = 1000 * 1000,
    RING_ERROR_PAUSE_US = 1000,
};

struct fm_io_back {
    fm_io *io;
    struct io_uring ring;
    bool has_ring, has_file_table;
    int n_file;
    int n_in_ring; /* started and not yet completed */
    int n_ring_error, broken_errno;
    uint64_t ring_error_us; /* the first of them */
    fm_spin spin;
};

static int open_ring(struct io_uring *ring, unsigned entries)
{
    struct io_uring_params p;
    int rc = -EINVAL;
#ifdef IORING_SETUP_COOP_TASKRUN
    /* Completions wait for this thread's next system call instead of interrupting it. */
    memset(&p, 0, sizeof p);
    p.flags = IORING_SETUP_CLAMP | IORING_SETUP_COOP_TASKRUN;
    rc = io_uring_queue_init_params(entries, ring, &p);
#endif
    if (rc == -EINVAL) {
        memset(&p, 0, sizeof p);
        rc = io_uring_queue_init_params(entries, ring, &p);
    }
    return rc;
}

static bool can_read(struct io_uring *ring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    const bool ok = probe && io_uring_opcode_supported(probe, IORING_OP_READ);
    if (probe) io_uring_free_probe(probe);
    return ok;
}

static void uring_destroy(fm_io_back *b)
{
    if (!b) return;
    if (b->has_ring) io_uring_queue_exit(&b->ring);
    free(b);
}

static fm_status uring_create(fm_io_back **out, fm_io *io, fm_error *err)
{
    *out = NULL;
    fm_io_back *b = calloc(1, sizeof *b);
    if (!b) return fm_fail(err, FM_E_NOMEM, "no memory for an I/O ring");
    b->io = io;
    const int rc = open_ring(&b->ring, (unsigned)io->depth);
    if (rc < 0) {
        uring_destroy(b);
        fm_fail_errno(err, -rc, "io_uring cannot be used here");
        if (err) err->code = FM_E_UNSUPPORTED;
        return FM_E_UNSUPPORTED;
    }
    b->has_ring = true;
    if (!can_read(&b->ring)) {
        uring_destroy(b);
        return fm_fail(err, FM_E_UNSUPPORTED, "this kernel's io_uring has no read operation");
    }
    b->has_file_table = io_uring_register_files_sparse(&b->ring, MAX_FILES) == 0;
    *out = b;
    return FM_OK;
}

static void uring_add_file(fm_io_back *b, struct fm_io_file *file)
{
    if (!b->has_file_table || b->n_file == MAX_FILES) return;
    if (io_uring_register_files_update(&b->ring, (unsigned)b->n_file, &file->fd, 1) != 1) return;
    file->registered = b->n_file++;
}

static void uring_start(fm_io_back *b, int32_t piece)
{
    fm_io_piece *p = &b->io->pieces[piece];
    b->n_in_ring++;
    if (b->broken_errno) return; /* the next reap fails it */
    struct io_uring_sqe *sqe = io_uring_get_sqe(&b->ring);
    if (!sqe) {
        io_uring_submit(&b->ring);
        sqe = io_uring_get_sqe(&b->ring);
    }
    assert(sqe); /* the ring has room for the depth */
    uint8_t *buf = p->buf + p->done;
    const uint32_t n = p->bytes - p->done;
    const uint64_t offset = p->offset + p->done;
    const bool fixed_file = p->file->registered >= 0;
    const int fd = fixed_file ? p->file->registered : p->file->fd;
    io_uring_prep_read(sqe, fd, buf, n, offset);
    if (fixed_file) sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = (uint64_t)(uint32_t)piece;
}

/* Counts failing system calls; a ring that keeps failing is declared broken. */
static void note_ring_error(fm_io_back *b, int rc)
{
    if (rc >= 0) {
        b->n_ring_error = 0;
        return;
    }
    if (rc == -EINTR || rc == -ETIME) return;
    const uint64_t now = fm_now_us();
    if (b->n_ring_error++ == 0) b->ring_error_us = now;
    if (b->n_ring_error > MAX_RING_ERRORS && now - b->ring_error_us >= MAX_RING_ERROR_US)
        b->broken_errno = rc == -EINVAL ? EIO : -rc; /* EINVAL is about files, see io.c */
}

/* The system calls. */
static void submit(fm_io_back *b)
{
    const int fault = fm_fault_call(FM_FAULT_RING);
    note_ring_error(b, fault ? -fault : io_uring_submit(&b->ring));
}

static void get_events(fm_io_back *b)
{
    const int fault = fm_fault_call(FM_FAULT_RING);
    note_ring_error(b, fault ? -fault : io_uring_get_events(&b->ring));
}

static void submit_and_wait(fm_io_back *b)
{
    const int fault = fm_fault_call(FM_FAULT_RING);
    note_ring_error(b, fault ? -fault : io_uring_submit_and_wait(&b->ring, 1));
}

static void uring_flush(fm_io_back *b)
{
    if (!b->broken_errno && io_uring_sq_ready(&b->ring) > 0) submit(b);
}

/* Nothing comes back from a broken ring: every piece fails with the ring's error. The kernel may
 * still write to the buffers until the ring is closed. */
static void fail_everything(fm_io_back *b)
{
    for (int i = 0; i < b->io->n_piece_max; i++) {
        const fm_io_piece *p = &b->io->pieces[i];
        if (p->request >= 0 && !p->waits) fm_io_piece_failed(b->io, i, b->broken_errno);
    }
    b->n_in_ring = 0;
}

/* With cooperative completion the kernel posts results when it is entered. Submits what an earlier call did not, so
 * that a ring which takes nothing any more is noticed. */
static void look_for_completions(fm_io_back *b)
{
    if (io_uring_cq_ready(&b->ring) > 0) return;
    if (io_uring_sq_ready(&b->ring) > 0)
        uring_flush(b);
    else
        get_events(b);
}

/* Awake at first, for as long as earlier waits say that it pays. */
static void wait_for_completion(fm_io_back *b)
{
    const int64_t start_ns = fm_now_ns(), limit_ns = fm_spin_limit_ns(&b->spin);
    look_for_completions(b);
    while (io_uring_cq_ready(&b->ring) == 0 && !b->broken_errno && fm_spin_on(start_ns, limit_ns)) {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) fm_cpu_pause();
        look_for_completions(b);
    }
    if (io_uring_cq_ready(&b->ring) == 0 && !b->broken_errno) {
        submit_and_wait(b);
        if (b->n_ring_error > 0) fm_sleep_us(RING_ERROR_PAUSE_US);
    }
    fm_spin_learn(&b->spin, fm_now_ns() - start_ns);
}

static void uring_reap(fm_io_back *b, bool wait)
{
    if (b->broken_errno) {
        fail_everything(b);
        return;
    }
    if (b->n_in_ring == 0) return;
    if (wait) {
        wait_for_completion(b);
    } else {
        look_for_completions(b);
    }
    struct io_uring_cqe *batch[CQE_BATCH];
    for (unsigned n; (n = io_uring_peek_batch_cqe(&b->ring, batch, CQE_BATCH)) > 0;) {
        int32_t piece[CQE_BATCH];
        for (unsigned i = 0; i < n; i++) {
            piece[i] = (int32_t)batch[i]->user_data;
            b->io->pieces[piece[i]].result = batch[i]->res;
        }
        io_uring_cq_advance(&b->ring, n);
        b->n_in_ring -= (int)n;
        for (unsigned i = 0; i < n; i++) {
            fm_io_piece *p = &b->io->pieces[piece[i]];
            p->result = fm_fault_read(p->file, p->offset + p->done, p->buf + p->done, p->result);
            fm_io_piece_done(b->io, piece[i]);
        }
        if (n < CQE_BATCH) break;
    }
}

const fm_io_ops fm_io_ops_uring = {
    .name = "uring",
    .stock = 1,
    .create = uring_create,
    .destroy = uring_destroy,
    .start = uring_start,
    .flush = uring_flush,
    .reap = uring_reap,
    .add_file = uring_add_file,
};

#else

static fm_status no_uring(fm_io_back **out, fm_io *io, fm_error *err)
{
    (void)io;
    *out = NULL;
    return fm_fail(err, FM_E_UNSUPPORTED, "io_uring needs Linux");
}

const fm_io_ops fm_io_ops_uring = {.name = "uring", .stock = 1, .create = no_uring};

#endif
