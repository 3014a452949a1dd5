/* The store's life and its I/O: one engine reads for the trunk (store_trunk.c) and for the experts
 * (store_experts.c); completions find their owner by tag. The engine library is the only caller. */
#include "store/store.h"
#include "store/store_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "os/facts.h"
#include "os/fault.h"

enum { DONE_BATCH = 8, IO_CAPACITY = 1024 };

void *fm_store_alloc(fm_store *s, int line, uint64_t bytes, fm_error *err)
{
    if (bytes > SIZE_MAX || fm_fault_alloc()) {
        fm_fail(err, FM_E_NOMEM, "no memory: %" PRIu64 " bytes for '%s'", bytes,
                s->ledger->lines[line].name);
        return NULL;
    }
    return fm_ledger_alloc(s->ledger, line, (size_t)bytes, 1, err);
}

static fm_status open_files(fm_store *s, const fm_store_options *opt, fm_error *err)
{
    fm_io_options io = opt->io ? *opt->io : (fm_io_options){0};
    if (!io.log) {
        io.log = opt->log;
        io.log_user = opt->log_user;
    }
    if (io.capacity == 0) io.capacity = IO_CAPACITY;
    if (io.capacity < FM_EXPERT_PARTS) io.capacity = FM_EXPERT_PARTS;
    FM_TRY(fm_io_create(&s->io, &io, err));
    s->file = calloc((size_t)opt->n_file + 1, sizeof *s->file);
    if (!s->file) return fm_fail(err, FM_E_NOMEM, "no memory for %d files", opt->n_file);
    for (int32_t i = 0; i < opt->n_file; i++) {
        FM_TRY(fm_io_open(s->io, &s->file[i], opt->path[i], opt->mark[i], err));
    }
    return FM_OK;
}

/* The line under the plan's name, with the plan's limit. */
static fm_status open_line(fm_store *s, const char *name, int *line, fm_error *err)
{
    *line = -1;
    for (int32_t i = 0; i < s->plan.report.n_line; i++) {
        const fm_plan_line *l = &s->plan.report.lines[i];
        if (strcmp(l->name, name) != 0) continue;
        *line = fm_ledger_line_of(s->ledger, name, l->bytes);
        if (*line < 0)
            return fm_fail(err, FM_E_LIMIT, "memory ledger: no line left for '%s'", name);
    }
    return FM_OK;
}

fm_status fm_store_create(fm_store **out, const fm_store_options *opt, fm_error *err)
{
    *out = NULL;
    fm_store *s = calloc(1, sizeof *s);
    if (!s) return fm_fail(err, FM_E_NOMEM, "no memory for the store");
    s->plan = *opt->plan;
    s->ledger = opt->ledger;
    s->log = opt->log;
    s->log_user = opt->log_user;

    fm_status st = open_line(s, FM_LINE_TRUNK, &s->line_trunk, err);
    if (st == FM_OK) st = open_line(s, FM_LINE_RING, &s->line_ring, err);
    if (st == FM_OK) st = open_line(s, FM_LINE_SLOTS, &s->line_slots, err);
    if (st == FM_OK) st = open_files(s, opt, err);
    if (st == FM_OK) st = fm_trunk_setup(s, opt, err);
    if (st == FM_OK) st = fm_experts_setup(s, opt, err);
    if (st != FM_OK) {
        fm_store_destroy(s);
        return st;
    }
    *out = s;
    return FM_OK;
}

void fm_store_destroy(fm_store *s)
{
    if (!s) return;
    fm_io_destroy(s->io); /* first: after it nobody writes to the buffers */
    fm_experts_teardown(s);
    fm_trunk_teardown(s);
    free(s->file);
    free(s);
}

const char *fm_store_io_name(const fm_store *s)
{
    return fm_io_name(s->io);
}

static void dispatch(fm_store *s, const fm_io_done *done)
{
    const int32_t index = (int32_t)(done->tag & UINT32_MAX);
    switch (done->tag >> FM_TAG_SHIFT) {
    case FM_TAG_LOAD: fm_trunk_load_arrived(s, index, done); break;
    case FM_TAG_RING: fm_trunk_ring_arrived(s, index, done); break;
    default: fm_experts_arrived(s, index, done); break;
    }
}

bool fm_store_pump(fm_store *s, bool wait)
{
    const bool had_work = fm_io_outstanding(s->io) > 0;
    if (had_work) {
        const uint64_t start_us = wait ? fm_now_us() : 0;
        fm_io_done done[DONE_BATCH];
        int n = fm_io_reap(s->io, done, DONE_BATCH, wait);
        if (wait) s->stats.wait_us += fm_now_us() - start_us;
        while (n > 0) {
            for (int i = 0; i < n; i++) dispatch(s, &done[i]);
            n = n == DONE_BATCH ? fm_io_reap(s->io, done, DONE_BATCH, false) : 0;
        }
    }
    fm_experts_feed(s);
    fm_trunk_feed(s);
    fm_io_start(s->io);
    return had_work;
}

void fm_store_poll(fm_store *s)
{
    (void)fm_store_pump(s, false);
}

void fm_store_stats_get(const fm_store *s, fm_store_stats *out)
{
    *out = s->stats;
    out->busy_us = fm_io_busy_us(s->io);
    out->bytes_read = fm_io_bytes_read(s->io) - s->stats.load_bytes;
    for (int32_t c = 0; c < s->n_class; c++)
        out->growing_bytes += fm_populate_pending(s->slot_class[c].populate);
}
