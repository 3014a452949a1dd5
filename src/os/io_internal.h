/* What the front of the I/O engine (io.c) and its back ends (io_uring.c, io_threads.c) share.
 *
 * The front owns requests, cuts them into pieces, retries, and judges results; a back end moves one
 * piece at a time and knows nothing else. All of it runs on the submitting thread, except the
 * back ends' own threads, which touch only the pieces that were handed to them.
 */
#pragma once

#include "os/io.h"
#include "os/retry.h"

struct fm_io_file {
    char *path;
    uint64_t bytes; /* as the checkpoint saw it */
    int fd;
    int registered; /* index in the ring's file table, -1: none */
    bool direct;
    struct fm_io_file *next;
};

/* A part of a request that is with the device. */
typedef struct {
    int32_t request; /* index, -1: this piece is free */
    int32_t next;    /* back end's or the front's list */
    struct fm_io_file *file;
    uint64_t offset; /* in the file, aligned                       */
    uint8_t *buf;    /* aligned                                    */
    uint32_t bytes;  /* rounded: what is asked of the device       */
    uint32_t need;   /* of which at least these must arrive        */
    uint32_t done;   /* arrived, a multiple of the alignment       */
    uint8_t n_stall, n_refused;
    bool waits;        /* in fm_io.again, not with the back end      */
    uint64_t again_us; /* until then, on the monotonic clock         */
    fm_retry retry;
    int64_t result; /* of the last device read: bytes or -errno   */
} fm_io_piece;

typedef struct {
    fm_io_read read;
    struct fm_io_file *file;
    uint64_t cursor, end; /* aligned part of the file that is not with the device yet */
    int32_t n_piece;      /* with the device */
    int32_t next;
    int os_errno;       /* of the first failure; 0 with fell_short */
    bool failed, fell_short;
    uint64_t fail_offset; /* where it failed, or where the file ends */
} fm_io_request;

typedef struct {
    int32_t head, tail;
} fm_io_list;

typedef struct fm_io_back fm_io_back;

enum { FM_IO_MAX_STOCK = 4 };

typedef struct {
    const char *name;
    /* First-priority pieces taken in per unit of depth, 1 to FM_IO_MAX_STOCK. Threads go on to the
     * next piece without help from the submitter, so they are given a stock of them. */
    int stock;
    fm_status (*create)(fm_io_back **out, fm_io *io, fm_error *err);
    void (*destroy)(fm_io_back *b); /* nothing is in flight; NULL is fine */
    /* Starts [offset + done, offset + bytes) of a piece; may hold it back until flush. */
    void (*start)(fm_io_back *b, int32_t piece);
    void (*flush)(fm_io_back *b);
    /* Reports finished pieces with fm_io_piece_done(). Blocks for at least one when `wait`. */
    void (*reap)(fm_io_back *b, bool wait);
    void (*add_file)(fm_io_back *b, struct fm_io_file *file);     /* may be NULL */
} fm_io_ops;

extern const fm_io_ops fm_io_ops_uring, fm_io_ops_pread, fm_io_ops_mmap;

struct fm_io {
    /* set at creation */
    const fm_io_ops *ops;
    fm_io_back *back;
    int depth, capacity, n_piece_max;
    uint32_t split_bytes;
    fm_log_fn log;
    void *log_user;
    bool direct; /* files are opened for direct I/O when they can be */
    bool told_of_buffered;

    struct fm_io_file *files;
    int n_file;

    fm_io_piece *pieces; /* [n_piece_max] */
    int32_t free_piece;
    int n_with_device, n_again; /* the first counts those in `again` too */

    fm_io_request *requests; /* [capacity] */
    int32_t free_request;
    int n_outstanding;
    fm_io_list waiting[FM_IO_PRIORITIES];
    fm_io_list finished;
    fm_io_list again; /* pieces to be started once more, when their time has come */

    uint64_t bytes_read;
    uint64_t busy_us, busy_since_us; /* since: while n_with_device > 0 */
    bool said_buffered;
};

/* Lists of pieces, linked by their `next`. */
static inline void fm_io_piece_push(fm_io *io, fm_io_list *list, int32_t at)
{
    io->pieces[at].next = -1;
    if (list->tail >= 0) {
        io->pieces[list->tail].next = at;
    } else {
        list->head = at;
    }
    list->tail = at;
}

/* -1: the list is empty. */
static inline int32_t fm_io_piece_pop(fm_io *io, fm_io_list *list)
{
    const int32_t at = list->head;
    if (at < 0) return -1;
    list->head = io->pieces[at].next;
    if (list->head < 0) list->tail = -1;
    return at;
}

/* Called by reap() for each piece that came back; pieces[piece].result is set. */
void fm_io_piece_done(fm_io *io, int32_t piece);
/* The same for one that no further try can help. */
void fm_io_piece_failed(fm_io *io, int32_t piece, int os_errno);
