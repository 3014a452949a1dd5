/* The trunk: units that stay, read once into one block, and units that flow through a ring of
 * buffers in every pass. A ring buffer belongs to one unit from the start of its reads to its
 * release; whichever buffer is empty takes the next unit, so the ring is always as far ahead as it
 * can be. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "os/facts.h"
#include "store/store_internal.h"

enum { PRIORITY_LOAD = 0, PRIORITY_AHEAD = 1 };

/* ---- set-up ------------------------------------------------------------------------------ */

/* The plane that a piece is a part of. */
static fm_extent plane_of(const fm_trunk_piece *piece)
{
    const fm_tensor_info *t = piece->tensor;
    if (piece->plane > 0) return t->aux[piece->plane - 1];
    return (fm_extent){t->offset, t->bytes, t->file};
}

static fm_status check_piece(const fm_store_options *opt, int32_t unit, const fm_trunk_piece *piece,
                             fm_error *err)
{
    const fm_tensor_info *t = piece->tensor;
    uint64_t end, file_end;
    const fm_extent at = t && piece->plane < 3 ? plane_of(piece) : (fm_extent){0};
    const bool ok = t && at.file < opt->n_file && piece->bytes > 0 &&
                    fm_add_u64(piece->offset, piece->bytes, &end) && end <= at.bytes &&
                    fm_add_u64(at.offset, end, &file_end) && file_end <= opt->mark[at.file].bytes;
    if (ok) return FM_OK;
    return fm_fail(err, FM_E_ARG,
                   "trunk unit %d: %s, bytes %" PRIu64 " + %" PRIu64 " are not inside the tensor",
                   unit, t && t->name ? t->name : "(no tensor)", piece->offset, piece->bytes);
}

static fm_status copy_units(fm_store *s, const fm_store_options *opt, fm_error *err)
{
    int64_t n_piece = 0;
    for (int32_t u = 0; u < opt->n_unit; u++) n_piece += opt->unit[u].n_piece;
    s->n_unit = opt->n_unit;
    s->unit = calloc((size_t)opt->n_unit + 1, sizeof *s->unit);
    s->piece_place = calloc((size_t)n_piece + 1, sizeof *s->piece_place);
    s->piece_ptr = calloc((size_t)n_piece + 1, sizeof *s->piece_ptr);
    s->load_left = calloc((size_t)opt->n_unit + 1, sizeof *s->load_left);
    if (!s->unit || !s->piece_place || !s->piece_ptr || !s->load_left) {
        return fm_fail(err, FM_E_NOMEM, "no memory for the directory of the trunk");
    }
    int64_t at = 0;
    for (int32_t u = 0; u < opt->n_unit; u++) {
        const fm_trunk_unit *from = &opt->unit[u];
        s->unit[u] = (fm_unit_place){
            .piece = s->piece_place + at, .n_piece = from->n_piece, .ptr = s->piece_ptr + at};
        s->unit[u].name = "";
        for (int32_t i = 0; i < from->n_piece; i++) {
            FM_TRY(check_piece(opt, u, &from->piece[i], err));
            const fm_extent plane = plane_of(&from->piece[i]);
            if (i == 0 && from->piece[i].tensor->name)
                s->unit[u].name = from->piece[i].tensor->name;
            s->unit[u].piece[i] = (fm_piece_place){.file = plane.file,
                                                   .offset = plane.offset + from->piece[i].offset,
                                                   .bytes = from->piece[i].bytes,
                                                   .room = fm_piece_room(&from->piece[i])};
        }
        at += from->n_piece;
    }
    return FM_OK;
}

/* Where the pieces of a unit go when it starts at base: each in its own aligned room. */
static void place_pieces(const fm_unit_place *unit, uint8_t *base, uint8_t **ptr)
{
    for (int32_t i = 0; i < unit->n_piece; i++) {
        ptr[i] = base + unit->piece[i].offset % FM_IO_ALIGN;
        base += fm_io_room(unit->piece[i].room);
    }
}

static fm_status setup_ring(fm_store *s, const fm_store_options *opt, fm_error *err)
{
    const int32_t n_resident = s->plan.n_resident_unit;
    s->n_ring = s->plan.n_ring;
    s->ring_next_unit = n_resident;
    if (n_resident == s->n_unit) {
        s->n_ring = 0;
        return FM_OK;
    }
    int32_t most_pieces = 0;
    for (int32_t u = n_resident; u < s->n_unit; u++) {
        if (s->unit[u].n_piece > most_pieces) most_pieces = s->unit[u].n_piece;
        const uint64_t room = fm_unit_room(&opt->unit[u]);
        if (room > s->plan.ring_bytes_each)
            return fm_fail(err, FM_E_ARG,
                           "trunk unit %d takes %" PRIu64
                           " bytes, a buffer of the plan's ring has %" PRIu64,
                           u, room, s->plan.ring_bytes_each);
    }
    if (s->line_ring < 0) return fm_fail(err, FM_E_ARG, "the plan has no line for the trunk ring");
    if (s->n_ring < 1 || s->n_ring > FM_RING_MAX)
        return fm_fail(err, FM_E_ARG, "the plan has a trunk ring of %d buffers, expected 1 to %d",
                       s->n_ring, FM_RING_MAX);
    s->ring_bytes = s->plan.ring_bytes_each * (uint64_t)s->n_ring;
    s->ring_base = fm_store_alloc(s, s->line_ring, s->ring_bytes, err);
    if (!s->ring_base) return FM_E_NOMEM;
    for (int32_t i = 0; i < s->n_ring; i++) {
        s->ring[i].base = s->ring_base + (uint64_t)i * s->plan.ring_bytes_each;
        s->ring[i].ptr = calloc((size_t)most_pieces + 1, sizeof *s->ring[i].ptr);
        if (!s->ring[i].ptr) return fm_fail(err, FM_E_NOMEM, "no memory for the trunk ring");
    }
    return FM_OK;
}

fm_status fm_trunk_setup(fm_store *s, const fm_store_options *opt, fm_error *err)
{
    FM_TRY(copy_units(s, opt, err));
    const int32_t n_resident = s->plan.n_resident_unit;
    if (n_resident < 0 || n_resident > s->n_unit || s->plan.report.trunk_units != s->n_unit) {
        return fm_fail(err, FM_E_ARG, "the plan keeps %d of %d trunk units, the model has %d units",
                       n_resident, s->plan.report.trunk_units, s->n_unit);
    }
    for (int32_t u = 0; u < n_resident; u++) s->trunk_bytes += fm_unit_room(&opt->unit[u]);
    if (s->trunk_bytes > 0) {
        s->trunk_base = fm_store_alloc(s, s->line_trunk, s->trunk_bytes, err);
        if (!s->trunk_base) return FM_E_NOMEM;
        /* While it is loaded nothing is computed: all processors may touch, and the slots come after. */
        const fm_populate_options touch = {.base = s->trunk_base,
                                           .bytes = s->trunk_bytes,
                                           .ahead = s->trunk_bytes,
                                           .n_threads = fm_os_cpu_count()};
        s->trunk_populate = fm_populate_start(&touch);
    }
    uint8_t *at = s->trunk_base;
    for (int32_t u = 0; u < n_resident; u++) {
        place_pieces(&s->unit[u], at, s->unit[u].ptr);
        at += fm_unit_room(&opt->unit[u]);
    }
    return setup_ring(s, opt, err);
}

void fm_trunk_teardown(fm_store *s)
{
    fm_populate_stop(s->trunk_populate);
    for (int32_t i = 0; i < FM_RING_MAX; i++) free(s->ring[i].ptr);
    if (s->ring_base) fm_ledger_free(s->ledger, s->line_ring, s->ring_base, s->ring_bytes);
    if (s->trunk_base) fm_ledger_free(s->ledger, s->line_trunk, s->trunk_base, s->trunk_bytes);
    free(s->load_left);
    free(s->piece_ptr);
    free(s->piece_place);
    free(s->unit);
}

void fm_store_set_trunk_prepare(fm_store *s, fm_trunk_prepare_fn fn, void *user)
{
    s->prepare = fn;
    s->prepare_user = user;
}

/* Says what was read, which the error of a read does not know. */
static void name_unit(const fm_store *s, int32_t unit, fm_error *err)
{
    fm_fail_context(err, "trunk unit %d (%s, ...)", unit, s->unit[unit].name);
}

static fm_status submit_piece(fm_store *s, const fm_piece_place *piece, uint8_t *ptr, uint64_t tag,
                              int priority, fm_error *err)
{
    const fm_io_read rd = {.file = s->file[piece->file],
                           .offset = piece->offset,
                           .bytes = piece->bytes,
                           .base = ptr - piece->offset % FM_IO_ALIGN,
                           .tag = tag,
                           .priority = priority};
    return fm_io_submit(s->io, &rd, 1, err);
}

/* ---- resident units ---------------------------------------------------------------------- */

void fm_trunk_load_arrived(fm_store *s, int32_t unit, const fm_io_done *done)
{
    if (done->status != FM_OK && !s->load_failed) {
        s->load_failed = true;
        s->load_error = done->error;
        name_unit(s, unit, &s->load_error);
    }
    if (--s->load_left[unit] > 0 || s->load_failed) return;
    for (int32_t i = 0; i < s->unit[unit].n_piece; i++) {
        s->load_done_bytes += s->unit[unit].piece[i].bytes;
    }
    if (s->prepare) s->prepare(s->prepare_user, unit, s->unit[unit].ptr);
}

static void lock_trunk(fm_store *s)
{
    if (s->trunk_bytes == 0 || fm_os_lock(s->trunk_base, s->trunk_bytes)) return;
    fm_log(s->log, s->log_user, FM_LOG_INFO,
           "the trunk (%" PRIu64 " MiB) is not locked in memory; under memory pressure the "
           "system may page it out (raise the limit with ulimit -l)",
           s->trunk_bytes >> 20);
}

/* Starts the read of one piece as soon as the queue has a place. */
static fm_status load_piece(fm_store *s, int32_t unit, int32_t piece, fm_error *err)
{
    while (fm_io_outstanding(s->io) >= fm_io_capacity(s->io)) (void)fm_store_pump(s, true);
    return submit_piece(s, &s->unit[unit].piece[piece], s->unit[unit].ptr[piece],
                        fm_store_tag(FM_TAG_LOAD, unit), PRIORITY_LOAD, err);
}

static bool may_go_on(fm_store *s, bool (*progress)(void *, uint64_t, uint64_t), void *user,
                      uint64_t total)
{
    return !s->load_failed && (!progress || progress(user, s->load_done_bytes, total));
}

fm_status fm_store_load_trunk(fm_store *s, bool (*progress)(void *, uint64_t, uint64_t), void *user,
                              fm_error *err)
{
    const int32_t n_resident = s->plan.n_resident_unit;
    const uint64_t bytes_before = fm_io_bytes_read(s->io);
    const uint64_t wait_before = s->stats.wait_us;
    uint64_t total = 0;
    s->load_failed = false;
    s->load_done_bytes = 0;
    for (int32_t u = 0; u < n_resident; u++) {
        s->load_left[u] = s->unit[u].n_piece;
        for (int32_t i = 0; i < s->unit[u].n_piece; i++) total += s->unit[u].piece[i].bytes;
    }
    fm_status st = FM_OK;
    bool go_on = may_go_on(s, progress, user, total);
    for (int32_t u = 0; u < n_resident && go_on && st == FM_OK; u++) {
        for (int32_t i = 0; i < s->unit[u].n_piece && st == FM_OK; i++) {
            st = load_piece(s, u, i, err);
        }
        if (fm_io_outstanding(s->io) >= fm_io_depth(s->io)) (void)fm_store_pump(s, true);
        go_on = may_go_on(s, progress, user, total);
    }
    bool is_cancelled = false;
    while (fm_io_outstanding(s->io) > 0) {
        if (!go_on) { /* the rest may be most of the trunk, which nobody waits for now */
            is_cancelled |= !s->load_failed;
            fm_io_drop_waiting(s->io, PRIORITY_LOAD);
        }
        (void)fm_store_pump(s, true);
        if (go_on) go_on = may_go_on(s, progress, user, total);
    }
    s->stats.load_bytes += fm_io_bytes_read(s->io) - bytes_before;
    s->stats.wait_us = wait_before; /* loading is not waiting */
    if (st != FM_OK) return st;
    if (s->load_failed && !is_cancelled) {
        if (err) *err = s->load_error;
        return s->load_error.code;
    }
    if (!go_on) return fm_fail(err, FM_E_CANCELLED, "loading was cancelled");
    s->trunk_loaded = true;
    lock_trunk(s);
    fm_trunk_feed(s);
    fm_io_start(s->io);
    return FM_OK;
}

/* ---- streamed units ---------------------------------------------------------------------- */

static fm_ring_buffer *find_buffer(fm_store *s, int32_t unit)
{
    for (int32_t i = 0; i < s->n_ring; i++) {
        fm_ring_buffer *b = &s->ring[i];
        if (b->state != FM_RING_EMPTY && !b->unwanted && b->unit == unit) return b;
    }
    return NULL;
}

static void settle_buffer(fm_ring_buffer *b)
{
    if (b->state != FM_RING_READING || b->pieces_left > 0) return;
    b->state = b->unwanted ? FM_RING_EMPTY : FM_RING_READY;
}

/* Submits what the queue takes of a buffer's unit. */
static void continue_reading(fm_store *s, fm_ring_buffer *b)
{
    const fm_unit_place *unit = &s->unit[b->unit];
    const uint64_t tag = fm_store_tag(FM_TAG_RING, (int32_t)(b - s->ring));
    while (b->next_piece < unit->n_piece && fm_io_outstanding(s->io) < fm_io_capacity(s->io)) {
        const int32_t i = b->next_piece++;
        fm_error err;
        if (submit_piece(s, &unit->piece[i], b->ptr[i], tag, PRIORITY_AHEAD, &err) == FM_OK)
            continue;
        b->pieces_left--;
        if (!b->failed) b->error = err;
        b->failed = true;
    }
    settle_buffer(b);
}

void fm_trunk_ring_arrived(fm_store *s, int32_t buffer, const fm_io_done *done)
{
    fm_ring_buffer *b = &s->ring[buffer];
    assert(b->state == FM_RING_READING && b->pieces_left > 0);
    if (done->status != FM_OK && !b->failed) {
        b->failed = true;
        b->error = done->error;
        name_unit(s, b->unit, &b->error);
    }
    b->pieces_left--;
    settle_buffer(b);
}

bool fm_trunk_is_reading(const fm_store *s)
{
    for (int32_t i = 0; i < s->n_ring; i++)
        if (s->ring[i].state == FM_RING_READING) return true;
    return false;
}

void fm_trunk_feed(fm_store *s)
{
    if (!s->trunk_loaded || s->n_ring == 0) return;
    for (int32_t i = 0; i < s->n_ring; i++) {
        fm_ring_buffer *b = &s->ring[i];
        if (b->state == FM_RING_EMPTY) {
            if (find_buffer(s, s->ring_next_unit)) continue; /* the whole cycle is here */
            const int32_t unit = s->ring_next_unit++;
            if (s->ring_next_unit == s->n_unit) s->ring_next_unit = s->plan.n_resident_unit;
            b->state = FM_RING_READING;
            b->unit = unit;
            b->next_piece = b->n_hold = 0;
            b->pieces_left = s->unit[unit].n_piece;
            b->failed = b->unwanted = b->prepared = false;
            place_pieces(&s->unit[unit], b->base, b->ptr);
        }
        if (b->state == FM_RING_READING) continue_reading(s, b);
    }
}

/* Gives up a buffer's content; what is being read is dropped when it has arrived. */
static void drop_buffer(fm_store *s, fm_ring_buffer *b)
{
    if (b->state == FM_RING_EMPTY || b->n_hold > 0) return;
    if (b->state == FM_RING_READY) {
        b->state = FM_RING_EMPTY;
        return;
    }
    b->unwanted = true;
    b->pieces_left -= s->unit[b->unit].n_piece - b->next_piece; /* those not submitted */
    b->next_piece = s->unit[b->unit].n_piece;
    settle_buffer(b);
}

/* Steps from one streamed unit forward to another, around the end. */
static int32_t steps_ahead(const fm_store *s, int32_t from, int32_t to)
{
    const int32_t n = s->n_unit - s->plan.n_resident_unit;
    return ((to - from) % n + n) % n;
}

/* Makes the ring serve `unit` next: buffers of units that were skipped are dropped, and when the
 * unit is not under way at all, reading begins anew from it. */
static void aim_ring(fm_store *s, int32_t unit)
{
    const bool under_way = find_buffer(s, unit) != NULL;
    for (int32_t i = 0; i < s->n_ring; i++) {
        fm_ring_buffer *b = &s->ring[i];
        if (b->state == FM_RING_EMPTY) continue;
        if (!under_way || steps_ahead(s, unit, b->unit) >= s->n_ring) drop_buffer(s, b);
    }
    if (!under_way) {
        fm_io_drop_waiting(s->io, PRIORITY_AHEAD); /* all of it for units that were skipped */
        s->ring_next_unit = unit;
    }
    fm_trunk_feed(s);
}

static bool all_buffers_held(const fm_store *s)
{
    for (int32_t i = 0; i < s->n_ring; i++) {
        if (s->ring[i].n_hold == 0) return false;
    }
    return true;
}

/* The buffer that holds a streamed unit, read or failed. */
static fm_status wait_for_unit(fm_store *s, int32_t unit, fm_ring_buffer **out, fm_error *err)
{
    aim_ring(s, unit);
    while ((*out = find_buffer(s, unit)) == NULL || (*out)->state == FM_RING_READING) {
        if (!*out && all_buffers_held(s)) {
            return fm_fail(err, FM_E_LIMIT, "trunk unit %d: all %d ring buffers are on loan", unit,
                           s->n_ring);
        }
        (void)fm_store_pump(s, true);
    }
    return FM_OK;
}

fm_status fm_trunk_acquire(fm_store *s, int32_t unit, uint8_t *const **ptr, fm_error *err)
{
    *ptr = NULL;
    if (unit < 0 || unit >= s->n_unit) {
        return fm_fail(err, FM_E_ARG, "trunk unit %d of %d", unit, s->n_unit);
    }
    if (!s->trunk_loaded) return fm_fail(err, FM_E_ARG, "the trunk is not loaded");
    if (unit < s->plan.n_resident_unit) {
        *ptr = s->unit[unit].ptr;
        return FM_OK;
    }
    fm_ring_buffer *b;
    for (int attempt = 0;; attempt++) {
        FM_TRY(wait_for_unit(s, unit, &b, err));
        if (!b->failed) break;
        const fm_error why = b->error;
        drop_buffer(s, b);
        /* It may have failed long ago, while nobody asked for it: only a read begun now counts. */
        if (attempt == 0) continue;
        if (err) *err = why;
        return why.code;
    }
    if (!b->prepared && s->prepare) s->prepare(s->prepare_user, unit, b->ptr);
    b->prepared = true;
    b->n_hold++;
    *ptr = b->ptr;
    return FM_OK;
}

const void *fm_trunk_resident_memory(const fm_store *s, uint64_t *bytes)
{
    *bytes = s->trunk_loaded ? s->trunk_bytes : 0;
    return s->trunk_base;
}

bool fm_trunk_is_resident(const fm_store *s, int32_t unit)
{
    return s->trunk_loaded && unit >= 0 && unit < s->plan.n_resident_unit;
}

void fm_trunk_release(fm_store *s, int32_t unit)
{
    if (unit < s->plan.n_resident_unit) return;
    fm_ring_buffer *b = find_buffer(s, unit);
    assert(b && b->n_hold > 0);
    if (--b->n_hold > 0) return;
#ifdef FM_DEBUG
    memset(b->base, 0xdb, (size_t)s->plan.ring_bytes_each);
#endif
    drop_buffer(s, b);
    fm_trunk_feed(s);
}
