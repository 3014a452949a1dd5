/* Front of the I/O engine: requests, pieces, retries, error texts. See io.h for the contract and
 * io_internal.h for the division of work. Nothing here allocates after fm_io_create() except
 * fm_io_open(). */
#define _GNU_SOURCE /* O_DIRECT */
#include "os/io.h"
#include "os/io_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "os/fault.h"

enum {
    MAX_DEPTH = 1024,
    MAX_SPLIT = 1 << 30,
    DEFAULT_CAPACITY = 1024,
    STALL_RETRIES = 2, /* a read that ends inside a block usually means the end of the file */
};

/* ---- lists of indices -------------------------------------------------------------------- */

static void request_push(fm_io *io, fm_io_list *list, int32_t at)
{
    io->requests[at].next = -1;
    if (list->tail >= 0) {
        io->requests[list->tail].next = at;
    } else {
        list->head = at;
    }
    list->tail = at;
}

static int32_t request_pop(fm_io *io, fm_io_list *list)
{
    const int32_t at = list->head;
    if (at < 0) return -1;
    list->head = io->requests[at].next;
    if (list->head < 0) list->tail = -1;
    return at;
}

/* ---- creation ---------------------------------------------------------------------------- */

static fm_status pick_back_end(fm_io *io, const char *name, fm_error *err)
{
    static const fm_io_ops *const all[] = {&fm_io_ops_uring, &fm_io_ops_pread, &fm_io_ops_mmap};
    for (size_t i = 0; name && i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(name, all[i]->name) != 0) continue;
        io->ops = all[i];
        return io->ops->create(&io->back, io, err);
    }
    if (name) {
        return fm_fail(err, FM_E_ARG, "I/O engine '%s': expected uring, pread or mmap", name);
    }
    fm_error why;
    io->ops = &fm_io_ops_uring;
    if (io->ops->create(&io->back, io, &why) == FM_OK) return FM_OK;
    fm_log(io->log, io->log_user, FM_LOG_INFO, "%s; reading with threads (pread) instead", why.msg);
    io->ops = &fm_io_ops_pread;
    return io->ops->create(&io->back, io, err);
}

static fm_status make_tables(fm_io *io, fm_error *err)
{
    io->pieces = calloc((size_t)io->n_piece_max, sizeof *io->pieces);
    io->requests = calloc((size_t)io->capacity, sizeof *io->requests);
    if (!io->pieces || !io->requests) {
        return fm_fail(err, FM_E_NOMEM, "no memory for an I/O queue of depth %d", io->depth);
    }
    for (int i = 0; i < io->n_piece_max; i++) {
        io->pieces[i].request = -1;
        io->pieces[i].next = i + 1 < io->n_piece_max ? i + 1 : -1;
    }
    for (int i = 0; i < io->capacity; i++) {
        io->requests[i].next = i + 1 < io->capacity ? i + 1 : -1;
    }
    const fm_io_list empty = {-1, -1};
    for (int i = 0; i < FM_IO_PRIORITIES; i++) io->waiting[i] = empty;
    io->finished = empty;
    io->again = empty;
    return FM_OK;
}

fm_status fm_io_create(fm_io **out, const fm_io_options *opt, fm_error *err)
{
    static const fm_io_options defaults = {0};
    if (!opt) opt = &defaults;
    *out = NULL;
    if (opt->depth < 0 || opt->depth > MAX_DEPTH) {
        return fm_fail(err, FM_E_ARG, "I/O depth %d: expected 1 to %d", opt->depth, MAX_DEPTH);
    }
    fm_io *io = calloc(1, sizeof *io);
    if (!io) return fm_fail(err, FM_E_NOMEM, "no memory for an I/O engine");
#ifdef FM_FAULTS
    fm_fault_from_env();
#endif
    io->log = opt->log;
    io->log_user = opt->log_user;
    io->depth = opt->depth ? opt->depth : FM_IO_DEFAULT_DEPTH;
    io->capacity = opt->capacity > 0 ? opt->capacity : DEFAULT_CAPACITY;
    io->n_piece_max = io->depth * FM_IO_MAX_STOCK;
    uint64_t split = opt->split_bytes ? opt->split_bytes : FM_IO_DEFAULT_SPLIT;
    if (split > MAX_SPLIT) split = MAX_SPLIT;
    io->split_bytes = (uint32_t)fm_round_up(split, FM_IO_ALIGN);

    fm_status st = make_tables(io, err);
    if (st == FM_OK) st = pick_back_end(io, opt->engine, err);
    if (st != FM_OK) {
        fm_io_destroy(io);
        return st;
    }
    io->direct = io->ops != &fm_io_ops_mmap;
    *out = io;
    return FM_OK;
}

/* Waits for what the device has and forgets the rest: the buffers are the caller's again. */
static void drain(fm_io *io)
{
    for (int i = 0; i < FM_IO_PRIORITIES; i++) {
        for (int32_t at = io->waiting[i].head; at >= 0; at = io->requests[at].next) {
            io->requests[at].cursor = io->requests[at].end;
        }
        io->waiting[i] = (fm_io_list){-1, -1};
    }
    while (io->n_with_device > 0) {
        io->n_with_device -= io->n_again;
        io->n_again = 0;
        io->again = (fm_io_list){-1, -1};
        if (io->n_with_device > 0) io->ops->reap(io->back, true);
    }
}

void fm_io_destroy(fm_io *io)
{
    if (!io) return;
    if (io->back) {
        drain(io);
        io->ops->destroy(io->back);
    }
    for (fm_io_file *f = io->files; f;) {
        fm_io_file *next = f->next;
        if (f->fd >= 0) close(f->fd);
        free(f->path);
        free(f);
        f = next;
    }
    free(io->pieces);
    free(io->requests);
    free(io);
}

const char *fm_io_name(const fm_io *io)
{
    return io->ops->name;
}

int fm_io_depth(const fm_io *io)
{
    return io->depth;
}

uint64_t fm_io_split(const fm_io *io)
{
    return io->split_bytes;
}

int fm_io_capacity(const fm_io *io)
{
    return io->capacity;
}

int fm_io_outstanding(const fm_io *io)
{
    return io->n_outstanding;
}

uint64_t fm_io_busy_us(const fm_io *io)
{
    return io->busy_us + (io->n_with_device > 0 ? fm_now_us() - io->busy_since_us : 0);
}

uint64_t fm_io_bytes_read(const fm_io *io)
{
    return io->bytes_read;
}

/* ---- files ------------------------------------------------------------------------------- */

static void say_no_direct_io(fm_io *io, const char *path)
{
    if (io->said_buffered) return;
    io->said_buffered = true;
    fm_log(io->log, io->log_user, FM_LOG_WARN,
           "%s: this file system has no direct I/O; reads go through the page cache", path);
}

fm_status fm_io_open(fm_io *io, const fm_io_file **out, const char *path, fm_file_mark was,
                     fm_error *err)
{
    *out = NULL;
    fm_status st = FM_OK;
    fm_io_file *f = calloc(1, sizeof *f);
    if (!f) return fm_fail(err, FM_E_NOMEM, "%s: no memory for the file handle", path);
    *f = (fm_io_file){.fd = -1, .registered = -1, .bytes = was.bytes};
    f->path = strdup(path);
    if (!f->path) {
        st = fm_fail(err, FM_E_NOMEM, "%s: no memory for the file handle", path);
        goto fail;
    }
    const int flags = O_RDONLY | O_CLOEXEC;
#ifdef O_DIRECT
    if (io->direct) {
        f->fd = open(path, flags | O_DIRECT);
        f->direct = f->fd >= 0;
        if (f->fd < 0 && errno == EINVAL) say_no_direct_io(io, path);
    }
#endif
    if (f->fd < 0) f->fd = open(path, flags);
    if (f->fd < 0) {
        st = fm_fail_errno(err, errno, "%s", path);
        goto fail;
    }
    st = fm_file_check_mark(f->fd, path, was, err);
    if (st != FM_OK) goto fail;
    f->next = io->files;
    io->files = f;
    io->n_file++;
    if (io->ops->add_file) io->ops->add_file(io->back, f);
    *out = f;
    return FM_OK;

fail:
    if (f->fd >= 0) close(f->fd);
    free(f->path);
    free(f);
    return st;
}

/* ---- pieces ------------------------------------------------------------------------------ */

static void start_piece(fm_io *io, int32_t at)
{
    if (io->n_with_device == 0) io->busy_since_us = fm_now_us();
    io->n_with_device++;
    io->ops->start(io->back, at);
}

/* Cuts the next piece off a request; the caller knows that a piece is free. */
static void cut_piece(fm_io *io, int32_t request)
{
    fm_io_request *r = &io->requests[request];
    const int32_t at = io->free_piece;
    fm_io_piece *p = &io->pieces[at];
    io->free_piece = p->next;

    const uint64_t left = r->end - r->cursor;
    const uint64_t bytes = left < io->split_bytes ? left : io->split_bytes;
    const uint64_t data_end = r->read.offset + r->read.bytes;
    const uint64_t first = fm_round_down(r->read.offset, FM_IO_ALIGN);
    *p = (fm_io_piece){.request = request,
                       .next = -1,
                       .file = r->file,
                       .offset = r->cursor,
                       .buf = (uint8_t *)r->read.base + (r->cursor - first),
                       .bytes = (uint32_t)bytes,
                       .need =
                           (uint32_t)(data_end - r->cursor < bytes ? data_end - r->cursor : bytes)};
    r->cursor += bytes;
    r->n_piece++;
    start_piece(io, at);
}

static void push_again(fm_io *io, int32_t at, uint64_t in_us)
{
    fm_io_piece *p = &io->pieces[at];
    p->waits = true;
    p->again_us = in_us > 0 ? fm_now_us() + in_us : 0;
    io->n_again++;
    fm_io_piece_push(io, &io->again, at);
}

static void start_again(fm_io *io)
{
    const fm_io_list all = io->again;
    if (all.head < 0) return;
    const uint64_t now = fm_now_us();
    io->again = (fm_io_list){-1, -1};
    for (int32_t at = all.head, next; at >= 0; at = next) {
        fm_io_piece *p = &io->pieces[at];
        next = p->next;
        p->next = -1;
        if (p->again_us > now) {
            fm_io_piece_push(io, &io->again, at);
            continue;
        }
        p->waits = false;
        io->n_again--;
        io->ops->start(io->back, at); /* it was never counted out */
    }
}

/* Nothing is under way but what waits for another try: until the first one's time. */
static void sleep_until_again(const fm_io *io)
{
    uint64_t first = UINT64_MAX;
    for (int32_t at = io->again.head; at >= 0; at = io->pieces[at].next)
        if (io->pieces[at].again_us < first) first = io->pieces[at].again_us;
    const uint64_t now = fm_now_us();
    if (io->again.head >= 0 && first > now) fm_sleep_us(first - now);
}

/* Gives the device what it may have. Only first-priority work is stocked beyond the depth, so
 * that a demand never waits behind a stock of guesses. */
static void feed_device(fm_io *io)
{
    start_again(io);
    for (int level = 0; level < FM_IO_PRIORITIES; level++) {
        fm_io_list *list = &io->waiting[level];
        const int limit = level == 0 ? io->depth * io->ops->stock : io->depth;
        while (list->head >= 0 && io->n_with_device < limit && io->free_piece >= 0) {
            const int32_t at = list->head;
            cut_piece(io, at);
            if (io->requests[at].cursor == io->requests[at].end) (void)request_pop(io, list);
        }
        if (list->head >= 0) break; /* the device is full */
    }
    io->ops->flush(io->back);
}

static void fail_request(fm_io *io, int32_t request, int os_errno, bool fell_short, uint64_t offset)
{
    fm_io_request *r = &io->requests[request];
    if (!r->failed) {
        r->failed = true;
        r->os_errno = os_errno;
        r->fell_short = fell_short;
        r->fail_offset = offset;
    }
    if (r->cursor == r->end) return;
    /* What was not started yet is dropped: take the request out of its queue. */
    fm_io_list *list = &io->waiting[r->read.priority];
    int32_t before = -1;
    for (int32_t at = list->head; at != request; at = io->requests[at].next) before = at;
    if (before >= 0) {
        io->requests[before].next = r->next;
    } else {
        list->head = r->next;
    }
    if (list->tail == request) list->tail = before;
    r->cursor = r->end;
}

void fm_io_drop_waiting(fm_io *io, int priority)
{
    fm_io_list *list = &io->waiting[priority];
    while (list->head >= 0) {
        const int32_t at = list->head;
        fm_io_request *r = &io->requests[at];
        fail_request(io, at, ECANCELED, false, r->cursor); /* takes it out of the list */
        if (r->n_piece == 0) request_push(io, &io->finished, at);
    }
}

static void end_piece(fm_io *io, int32_t at)
{
    fm_io_piece *p = &io->pieces[at];
    const int32_t request = p->request;
    fm_io_request *r = &io->requests[request];
    p->request = -1;
    p->next = io->free_piece;
    io->free_piece = at;
    if (--io->n_with_device == 0) io->busy_us += fm_now_us() - io->busy_since_us;
    r->n_piece--;
    if (r->n_piece == 0 && r->cursor == r->end) request_push(io, &io->finished, request);
}

/* O_DIRECT was accepted at open but not by the read: some stacked file systems do that. */
static bool fall_back_to_buffered(fm_io *io, fm_io_file *f)
{
#ifdef O_DIRECT
    if (!io->direct) return false;
    if (f->direct) {
        const int flags = fcntl(f->fd, F_GETFL);
        if (flags < 0 || fcntl(f->fd, F_SETFL, flags & ~O_DIRECT) != 0) return false;
        f->direct = false;
        fm_log(io->log, io->log_user, io->told_of_buffered ? FM_LOG_INFO : FM_LOG_WARN,
               "%s: a direct read was refused (EINVAL); this file is read through the page cache",
               f->path);
        io->told_of_buffered = true; /* a model of many files needs one warning */
        return true;
    }
#else
    (void)io;
    (void)f;
#endif
    return false;
}

/* Judges a negative result: true when the piece is worth another try. */
static bool error_is_passing(fm_io *io, fm_io_piece *p, int os_errno, uint32_t *in_us)
{
    *in_us = 0;
    if (os_errno != EINVAL) return fm_retry_after(&p->retry, os_errno, in_us);
    /* Pieces that were under way when another one switched the file get one more try. */
    return fall_back_to_buffered(io, p->file) || (!p->file->direct && ++p->n_refused == 1);
}

void fm_io_piece_failed(fm_io *io, int32_t at, int os_errno)
{
    const fm_io_piece *p = &io->pieces[at];
    fail_request(io, p->request, os_errno, false, p->offset + p->done);
    end_piece(io, at);
}

void fm_io_piece_done(fm_io *io, int32_t at)
{
    fm_io_piece *p = &io->pieces[at];
    assert(p->request >= 0);
    const int64_t result = p->result;
    if (result < 0) {
        uint32_t in_us;
        if (error_is_passing(io, p, (int)-result, &in_us))
            push_again(io, at, in_us);
        else
            fm_io_piece_failed(io, at, (int)-result);
        return;
    }
    io->bytes_read += (uint64_t)result;
    const uint32_t reached = p->done + (uint32_t)result;
    if (reached >= p->need) {
        end_piece(io, at);
        return;
    }
    /* Short. Direct reads continue at a block boundary; no new block means no progress. */
    const uint32_t whole = (uint32_t)fm_round_down(reached, FM_IO_ALIGN);
    const bool stalled = whole == p->done;
    p->done = whole;
    if (!stalled) {
        p->n_stall = 0;
        p->retry = (fm_retry){0};
    }
    if (stalled && (result == 0 || ++p->n_stall > STALL_RETRIES)) {
        fail_request(io, p->request, 0, true, p->offset + reached);
        end_piece(io, at);
        return;
    }
    push_again(io, at, 0);
}

/* ---- requests ---------------------------------------------------------------------------- */

fm_status fm_io_submit(fm_io *io, const fm_io_read *reads, int n, fm_error *err)
{
    if (n > io->capacity - io->n_outstanding) {
        return fm_fail(err, FM_E_LIMIT, "%d reads on top of %d: the queue holds %d", n,
                       io->n_outstanding, io->capacity);
    }
    for (int i = 0; i < n; i++) {
        const fm_io_read *rd = &reads[i];
        uint64_t end;
        const bool ok = rd->file && rd->bytes > 0 && fm_add_u64(rd->offset, rd->bytes, &end) &&
                        end <= INT64_MAX - FM_IO_ALIGN && (uintptr_t)rd->base % FM_IO_ALIGN == 0 &&
                        rd->priority >= 0 && rd->priority < FM_IO_PRIORITIES;
        if (!ok) {
            return fm_fail(err, FM_E_ARG,
                           "%s: read of %" PRIu64 " bytes at %" PRIu64 " is malformed",
                           rd->file ? rd->file->path : "(no file)", rd->bytes, rd->offset);
        }
    }
    for (int i = 0; i < n; i++) {
        const int32_t at = io->free_request;
        fm_io_request *r = &io->requests[at];
        io->free_request = r->next;
        *r = (fm_io_request){
            .read = reads[i],
            .file = (fm_io_file *)(uintptr_t)reads[i].file,
            .cursor = fm_round_down(reads[i].offset, FM_IO_ALIGN),
            .end = fm_round_up(reads[i].offset + reads[i].bytes, FM_IO_ALIGN),
        };
        io->n_outstanding++;
        request_push(io, &io->waiting[reads[i].priority], at);
    }
    return FM_OK;
}

void fm_io_start(fm_io *io)
{
    feed_device(io);
}

static void describe_failure(const fm_io_request *r, fm_error *err)
{
    const char *path = r->file->path;
    if (r->fell_short) {
        /* The piece that noticed need not be the first one behind the end. */
        struct stat sb;
        uint64_t end = r->fail_offset;
        if (fstat(r->file->fd, &sb) == 0 && (uint64_t)sb.st_size < end) end = (uint64_t)sb.st_size;
        fm_fail(err, FM_E_FORMAT,
                "%s: reading %" PRIu64 " bytes at %" PRIu64 ": the file ends at byte %" PRIu64
                ", shorter than the checkpoint says (%" PRIu64
                " bytes; shrunk while running, or download incomplete?)",
                path, r->read.bytes, r->read.offset, end, r->file->bytes);
    } else if (r->os_errno == ECANCELED) {
        fm_fail(err, FM_E_CANCELLED, "%s: reading %" PRIu64 " bytes at %" PRIu64 " was cancelled",
                path, r->read.bytes, r->read.offset);
    } else {
        fm_fail_errno(err, r->os_errno,
                      "%s: reading %" PRIu64 " bytes at %" PRIu64 " (failed at %" PRIu64 ")", path,
                      r->read.bytes, r->read.offset, r->fail_offset);
    }
}

int fm_io_reap(fm_io *io, fm_io_done *done, int max, bool wait)
{
    for (;;) {
        if (wait) feed_device(io); /* what was queued meanwhile is not to sit through the wait */
        const bool must_wait = wait && io->finished.head < 0;
        if (must_wait && io->n_again == io->n_with_device) sleep_until_again(io);
        io->ops->reap(io->back, must_wait && io->n_again < io->n_with_device);
        feed_device(io);
        if (!wait || io->finished.head >= 0 || io->n_outstanding == 0) break;
    }
    int n = 0;
    while (n < max && io->finished.head >= 0) {
        const int32_t at = request_pop(io, &io->finished);
        fm_io_request *r = &io->requests[at];
        done[n].tag = r->read.tag;
        done[n].status = FM_OK;
        if (r->failed) {
            describe_failure(r, &done[n].error);
            done[n].status = done[n].error.code;
        }
        n++;
        r->next = io->free_request;
        io->free_request = at;
        io->n_outstanding--;
    }
    return n;
}
