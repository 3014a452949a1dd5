/* Measures memory and disk as the engine uses them: memory with one sequential reader per thread, the
 * disk with scattered direct reads of one size through fm_io. See probe.h. */
#include "os/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/ledger.h"
#include "base/pool.h"
#include "os/facts.h"
#include "os/file.h"
#include "os/io.h"

static bool goes_on(fm_probe_go_fn go, void *user)
{
    return !go || go(user);
}

static fm_status stopped(fm_error *err)
{
    return fm_fail(err, FM_E_CANCELLED, "stopped");
}

uint64_t fm_probe_uncached_bytes(void)
{
    const uint64_t least = 512 << 20, bytes = 8 * fm_os_last_cache();
    return bytes > least ? bytes : least;
}

/* ---- memory ------------------------------------------------------------------------------ */

/* Small enough that threads which are held up leave little for the others to wait for. */
enum {
    CHUNK_BYTES = 1 << 20,
    LINE_WORDS = 8,
    AHEAD_WORDS = 8192 / 8, /* as kernels do */
    NEAR_WORDS = 4096 / 8,  /* the same      */
};

/* How often a line is asked for before it is read. */
typedef enum { ASK_NEVER, ASK_ONCE, ASK_TWICE, ASK_WAYS } ask_ahead;

typedef struct {
    uint64_t *words;
    uint64_t *sums; /* one per chunk, so that no thread shares a line with another for long */
} stream;

static void fill_chunk(void *ctx, int64_t item, int thread)
{
    (void)thread;
    const stream *s = ctx;
    memset((char *)s->words + (uint64_t)item * CHUNK_BYTES, 1, CHUNK_BYTES);
}

/* Eight independent sums, one line of 64 bytes per step: the compiler makes vectors of it, and the
 * additions cost less than the loads even on one thread. */
static inline void sum_lines(const stream *s, int64_t chunk, const ask_ahead ask)
{
    const uint64_t *p = s->words + (uint64_t)chunk * (CHUNK_BYTES / sizeof *p);
    uint64_t sum[LINE_WORDS] = {0};
    for (size_t i = 0; i < CHUNK_BYTES / sizeof *p; i += LINE_WORDS) {
        if (ask != ASK_NEVER) __builtin_prefetch(p + i + AHEAD_WORDS, 0, 2);
        if (ask == ASK_TWICE) __builtin_prefetch(p + i + NEAR_WORDS, 0, 3);
        for (size_t k = 0; k < LINE_WORDS; k++) sum[k] += p[i + k];
    }
    uint64_t all = 0;
    for (size_t k = 0; k < LINE_WORDS; k++) all += sum[k];
    s->sums[chunk] = all;
}

static void sum_chunk(void *ctx, int64_t item, int thread)
{
    (void)thread;
    sum_lines(ctx, item, ASK_NEVER);
}

/* Lines are asked for as the kernels do it: on some processors a thread gets a third more. */
static void sum_chunk_ahead(void *ctx, int64_t item, int thread)
{
    (void)thread;
    sum_lines(ctx, item, ASK_ONCE);
}

static void sum_chunk_twice(void *ctx, int64_t item, int thread)
{
    (void)thread;
    sum_lines(ctx, item, ASK_TWICE);
}

/* Microseconds of one pass. They differ in turn in how they ask for memory; the best counts. */
static uint64_t pass_us(fm_pool *pool, stream *s, int64_t n_chunk, int pass)
{
    static void (*const ways[ASK_WAYS])(void *, int64_t, int) = {sum_chunk_twice, sum_chunk_ahead,
                                                                 sum_chunk};
    const uint64_t started = fm_now_us();
    fm_pool_run(pool, ways[pass % ASK_WAYS], s, n_chunk);
    return fm_now_us() - started;
}

static fm_status stream_passes(double *gb_s, const fm_memory_probe *probe, stream *s,
                               int64_t n_chunk, fm_error *err)
{
    fm_pool *pool;
    FM_TRY(fm_pool_create(&pool, probe->n_threads, err));
    fm_pool_run(pool, fill_chunk, s, n_chunk);
    uint64_t best_us = UINT64_MAX;
    fm_status st = FM_OK;
    for (int i = 0; i < probe->passes && st == FM_OK; i++) {
        const uint64_t us = pass_us(pool, s, n_chunk, i);
        if (us < best_us) best_us = us;
        if (!goes_on(probe->go, probe->go_user)) st = stopped(err);
    }
    fm_pool_destroy(pool);
    if (st != FM_OK) return st;
    /* The sums are used, so the loads cannot be left out. */
    for (int64_t i = 0; i < n_chunk; i++) {
        if (s->sums[i] == s->sums[0]) continue;
        return fm_fail(err, FM_E_IO, "memory probe: what was read differs from what was written");
    }
    const double bytes = (double)n_chunk * CHUNK_BYTES;
    *gb_s = bytes / 1e3 / (double)(best_us > 0 ? best_us : 1);
    return FM_OK;
}

double fm_probe_stream(fm_pool *pool, const void *base, uint64_t bytes, int passes)
{
    const int64_t n_chunk = (int64_t)(bytes / CHUNK_BYTES);
    if (n_chunk == 0) return 0;
    stream s = {.words = (uint64_t *)(uintptr_t)base, .sums = calloc((size_t)n_chunk, 8)};
    if (!s.sums) return 0;
    uint64_t best_us = UINT64_MAX;
    for (int i = 0; i < passes; i++) {
        const uint64_t us = pass_us(pool, &s, n_chunk, i);
        if (us < best_us) best_us = us;
    }
    volatile uint64_t used = 0; /* so that the loads cannot be left out */
    for (int64_t i = 0; i < n_chunk; i++) used += s.sums[i];
    (void)used;
    free(s.sums);
    return (double)n_chunk * CHUNK_BYTES / 1e3 / (double)(best_us > 0 ? best_us : 1);
}

fm_status fm_probe_memory(double *gb_s, const fm_memory_probe *probe, fm_error *err)
{
    *gb_s = 0;
    const uint64_t bytes = fm_round_up(probe->bytes ? probe->bytes : 1, CHUNK_BYTES);
    const int64_t n_chunk = (int64_t)(bytes / CHUNK_BYTES);
    if (bytes > SIZE_MAX || probe->passes < 1 || probe->n_threads < 1) {
        return fm_fail(err, FM_E_ARG, "memory probe: %d passes with %d threads", probe->passes,
                       probe->n_threads);
    }
    fm_ledger ledger = {0};
    const int line = fm_ledger_open(&ledger, "memory probe", bytes);
    stream s = {.sums = calloc((size_t)n_chunk, sizeof *s.sums)};
    if (!s.sums) return fm_fail(err, FM_E_NOMEM, "no memory for the memory probe");
    s.words = fm_ledger_alloc(&ledger, line, (size_t)bytes, 1, err);
    fm_status st = FM_E_NOMEM;
    if (s.words) {
        st = stream_passes(gb_s, probe, &s, n_chunk, err);
        fm_ledger_free(&ledger, line, s.words, (size_t)bytes);
    }
    free(s.sums);
    return st;
}

/* ---- disk -------------------------------------------------------------------------------- */

typedef struct {
    const fm_disk_probe *opt;
    fm_io *io;
    const fm_io_file **file;
    uint64_t step;    /* bytes of a place and of a request        */
    uint64_t n_place; /* over all files                           */
    uint64_t stride;  /* from a place to the next; no common divisor with n_place */
    uint8_t *buffer;
    uint64_t room;   /* of one request in the buffer                                    */
    uint64_t n_room; /* in the buffer: n_request of them are in use at a time, all in turn */
    int n_request;   /* under way */
} disk_run;

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* A walk with a stride near the golden section visits every place once, and neighbours in time
 * are far apart on the disk; no list of what was read is needed. */
static void choose_places(disk_run *d)
{
    const fm_disk_probe *p = d->opt;
    uint64_t largest = 0;
    for (int32_t i = 0; i < p->n_file; i++)
        if (p->file_bytes[i] > largest) largest = p->file_bytes[i];
    d->step = fm_round_up(p->read_bytes ? p->read_bytes : 1, FM_IO_ALIGN);
    if (d->step > largest) d->step = fm_round_down(largest, FM_IO_ALIGN);
    if (d->step == 0) return;
    for (int32_t i = 0; i < p->n_file; i++) d->n_place += p->file_bytes[i] / d->step;
    d->stride = (uint64_t)((double)d->n_place * 0.6180339887) | 1;
    while (common_divisor(d->stride, d->n_place) != 1) d->stride += 2;
}

/* The number-th request; room: where it goes. */
static fm_io_read place_read(const disk_run *d, uint64_t number, uint64_t room)
{
    /* number * stride stays below 2^64: both are below the files' bytes / 4096. */
    uint64_t place = number * (d->stride % d->n_place) % d->n_place;
    int32_t file = 0;
    while (place >= d->opt->file_bytes[file] / d->step) {
        place -= d->opt->file_bytes[file] / d->step;
        file++;
    }
    return (fm_io_read){.file = d->file[file],
                        .offset = place * d->step,
                        .bytes = d->step,
                        .base = d->buffer + room * d->room,
                        .tag = room};
}

/* Keeps n_request requests under way until the time is over. The n-th of them uses the rooms n, n + n_request, .. in turn, so
 * that none is written by two. */
static fm_status read_places(disk_run *d, fm_disk_probe_result *out, fm_error *err)
{
    enum { REAP = 16 };
    fm_io_done done[REAP];
    uint64_t next = d->opt->first, last = d->n_place;
    if (d->opt->max_requests > 0 && last - next > d->opt->max_requests)
        last = next + d->opt->max_requests;
    const uint64_t started = fm_now_us();
    const uint64_t n_request = (uint64_t)d->n_request;
    for (uint64_t room = 0; room < n_request && next < last; room++, next++) {
        const fm_io_read rd = place_read(d, next, room);
        FM_TRY(fm_io_submit(d->io, &rd, 1, err));
    }
    while (fm_io_outstanding(d->io) > 0) {
        const int n = fm_io_reap(d->io, done, REAP, true);
        const uint64_t now = fm_now_us();
        for (int i = 0; i < n; i++) {
            if (done[i].status != FM_OK) {
                if (err) *err = done[i].error;
                return done[i].status;
            }
            out->requests++;
            out->bytes += d->step;
            if (next >= last || now - started >= d->opt->max_us) continue;
            uint64_t room = done[i].tag + n_request;
            if (room >= d->n_room) room %= n_request;
            const fm_io_read rd = place_read(d, next++, room);
            FM_TRY(fm_io_submit(d->io, &rd, 1, err));
        }
        out->us = now - started;
        if (!goes_on(d->opt->go, d->opt->go_user)) return stopped(err);
    }
    if (out->us > 0) out->gb_s = (double)out->bytes / 1e3 / (double)out->us;
    return FM_OK;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The device sees `depth` requests at a time; as many again wait inside, so that it never runs dry
 * between a completion and the next request. They go to more memory than a cache holds, where there is as much: reads into
 * the same few megabytes are faster than reads of weights ever are. */
static fm_status make_buffers(disk_run *d, fm_ledger *ledger, int *line, fm_error *err)
{
    d->room = fm_io_room(d->step);
    uint64_t n = least(2 * (uint64_t)fm_io_depth(d->io), (uint64_t)fm_io_capacity(d->io));
    uint64_t most = least(d->opt->buffer_bytes / d->room, d->n_place - d->opt->first);
    if (d->opt->max_requests > 0) most = least(most, d->opt->max_requests);
    const uint64_t uncached = fm_probe_uncached_bytes() / d->room;
    d->n_room = least(most, n > uncached ? n : uncached);
    if (d->n_room == 0) d->n_room = 1;
    n = least(n, d->n_room);
    d->n_request = (int)n;
    d->n_room -= d->n_room % n;
    if (d->opt->buffer && d->opt->buffer_bytes >= d->room) {
        d->buffer = d->opt->buffer;
        return FM_OK;
    }
    const uint64_t bytes = d->n_room * d->room;
    *line = fm_ledger_open(ledger, "disk probe", bytes);
    d->buffer = fm_ledger_alloc(ledger, *line, (size_t)bytes, 1, err);
    if (!d->buffer) return FM_E_NOMEM;
    memset(d->buffer, 0, (size_t)bytes); /* before the clock runs */
    return FM_OK;
}

fm_status fm_probe_disk(fm_disk_probe_result *out, const fm_disk_probe *probe, fm_error *err)
{
    memset(out, 0, sizeof *out);
    disk_run d = {.opt = probe};
    choose_places(&d);
    out->read_bytes = d.step;
    if (probe->first >= d.n_place) return FM_OK;

    fm_ledger ledger = {0};
    int line = -1;
    const fm_io_options io = {
        .engine = probe->io_engine, .depth = probe->depth, .split_bytes = probe->split_bytes};
    fm_status st = fm_io_create(&d.io, &io, err);
    if (st != FM_OK) return st;
    d.file = calloc((size_t)probe->n_file, sizeof *d.file);
    if (!d.file) st = fm_fail(err, FM_E_NOMEM, "no memory for %d files", probe->n_file);
    for (int32_t i = 0; i < probe->n_file && st == FM_OK; i++)
        st = fm_io_open(d.io, &d.file[i], probe->path[i],
                        (fm_file_mark){.bytes = probe->file_bytes[i]}, err);
    if (st == FM_OK) st = make_buffers(&d, &ledger, &line, err);
    if (st == FM_OK) st = read_places(&d, out, err);
    fm_io_destroy(d.io); /* waits: nobody writes to the buffer any more */
    if (line >= 0 && d.buffer) fm_ledger_free(&ledger, line, d.buffer, (size_t)(d.n_room * d.room));
    free(d.file);
    return st;
}

fm_status fm_probe_drop_cache(const char *path, fm_error *err)
{
    int fd;
    FM_TRY(fm_file_open(&fd, NULL, path, err));
    const int code = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    fm_file_close(fd);
    return code == 0 ? FM_OK : fm_fail_errno(err, code, "%s: dropping its page cache", path);
}
