/* The unfinished file and its journal, which survive a kill at any moment.
 *
 * Data is written to DESTINATION.part at its final place, behind a header whose magic says "unfinished". From time to time
 * the part is brought to the device, and only then records that speak of that data are appended to the journal and brought
 * to the device too. So what a whole record says is there is there. Layout of the journal: docs/formats.md.
 *
 * Order of events: journal (header) -> part -> records ... -> magic -> part renamed -> journal removed. A part without a
 * journal is therefore not ours. A journal beside the destination belongs to a run that was killed right before it ended. A
 * journal without either speaks of nothing that is there any more, whatever it says, and is begun anew; a part that has not
 * its full length goes only with a journal that speaks of none of it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/figure.h"
#include "base/hash.h"
#include "engine/quantize_internal.h"
#include "engine/quantize_journal.h"
#include "os/file.h"

/* How often the part goes to the device: a slow one takes at most about a tenth of the time. */
enum { SYNC_US = 250 * 1000, SYNC_MAX_US = 30 * 1000 * 1000, SYNC_SHARE = 9 };

static bool is_time(const fm_quantize_part *p)
{
    return fm_now_us() - p->synced_us >= p->sync_every_us;
}

static char *with_tail(const char *path, const char *tail)
{
    const size_t n = strlen(path), k = strlen(tail);
    char *out = malloc(n + k + 1);
    if (!out) return NULL;
    memcpy(out, path, n);
    memcpy(out + n, tail, k + 1);
    return out;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* ---- beginning --------------------------------------------------------------------------- */

static fm_status begin_journal(fm_quantize_part *p, const fm_part_identity *id, fm_error *err)
{
    const size_t n_text = strlen(id->options), n = FM_JOURNAL_FIXED + n_text + 8;
    uint8_t *h = calloc(1, n);
    if (!h) return fm_fail(err, FM_E_NOMEM, "%s: no memory", p->journal_path);
    memcpy(h, FM_JOURNAL_MAGIC, 8);
    fm_put_le(h + 8, id->source, 8);
    fm_put_le(h + 16, id->importance, 8);
    fm_put_le(h + 24, id->header, 8);
    fm_put_le(h + 32, p->total_bytes, 8);
    fm_put_le(h + 40, (uint64_t)p->n_tensor, 8);
    fm_put_le(h + 48, n_text, 8);
    memcpy(h + FM_JOURNAL_FIXED, id->options, n_text);
    p->chain = fm_fnv1a(FM_FNV1A_INIT, h, n - 8);
    fm_put_le(h + n - 8, p->chain, 8);
    fm_status st = FM_OK;
    if (ftruncate(p->journal_fd, 0) != 0) st = fm_fail_errno(err, errno, "%s", p->journal_path);
    if (st == FM_OK) st = fm_file_write_at(p->journal_fd, p->journal_path, h, n, 0, err);
    if (st == FM_OK) st = fm_file_sync(p->journal_fd, p->journal_path, err);
    if (st == FM_OK) st = fm_file_sync_folder(p->journal_path, err);
    p->journal_bytes = n;
    free(h);
    return st;
}

/* The journal of an earlier call: whose it is and how far it came. */
static fm_status resume_journal(fm_quantize_part *p, const fm_part_identity *id,
                                const uint8_t *data, size_t n, fm_error *err)
{
    fm_journal j;
    if (!fm_journal_parse_header(&j, data, n))
        return fm_fail(err, FM_E_FORMAT,
                       "%s: the journal is damaged, so %s cannot be gone on with; remove both",
                       p->journal_path, p->part_path);
    if (j.n_text != strlen(id->options) || memcmp(j.text, id->options, j.n_text) != 0)
        return fm_fail(err, FM_E_ARG,
                       "%s: was begun with other options: \"%.*s\", now \"%s\"; give those again "
                       "or remove it and %s",
                       p->part_path, (int)(j.n_text < 300 ? j.n_text : 300), j.text, id->options,
                       p->journal_path);
    if (j.importance != id->importance)
        return fm_fail(err, FM_E_ARG,
                       "%s: was begun with another importance file, or it has changed; remove it "
                       "and %s to begin anew",
                       p->part_path, p->journal_path);
    if (j.source != id->source || j.header != id->header || j.total_bytes != p->total_bytes ||
        j.n_tensor != (uint64_t)p->n_tensor)
        return fm_fail(err, FM_E_ARG,
                       "%s: was begun from another source, or the source has changed since (size, "
                       "time or header); remove it and %s to begin anew",
                       p->part_path, p->journal_path);
    fm_journal_record r;
    while (fm_journal_next(&j, &r)) {
        if (r.is_finished) {
            p->hash[r.tensor] = r.hash;
            p->is_finished[r.tensor] = true;
            p->at_tensor = (int64_t)r.tensor + 1;
            p->at_bytes = 0;
            p->at_hash = FM_FNV1A_INIT;
        } else {
            p->at_tensor = (int64_t)r.tensor;
            p->at_bytes = r.bytes;
            p->at_hash = r.hash;
        }
    }
    p->chain = j.chain;
    p->journal_bytes = j.at;
    if (ftruncate(p->journal_fd, (off_t)j.at) != 0) /* a record that was cut off */
        return fm_fail_errno(err, errno, "%s", p->journal_path);
    return FM_OK;
}

static fm_status check_room(const fm_quantize_part *p, fm_error *err)
{
    fm_file_facts facts = {0};
    (void)fm_file_facts_of(&facts, p->part_path);
    const uint64_t room = fm_file_free_bytes(p->part_path), margin = 1 << 20;
    const uint64_t need =
        p->total_bytes > facts.allocated_bytes ? p->total_bytes - facts.allocated_bytes : 0;
    if (room == UINT64_MAX || need + margin <= room) return FM_OK;
    char a[FM_FIGURE], b[FM_FIGURE];
    fm_fail_errno(err, ENOSPC, "%s: needs %s, its file system has %s free", p->path,
                  fm_figure_bytes(a, need + margin), fm_figure_bytes(b, room));
    return FM_E_IO;
}

/* A journal speaks only of a part that had its full length on the device. */
static fm_status check_length(const fm_quantize_part *p, fm_error *err)
{
    fm_file_facts facts = {0};
    (void)fm_file_facts_of(&facts, p->part_path);
    if (facts.bytes == p->total_bytes || (p->at_tensor == 0 && p->at_bytes == 0)) return FM_OK;
    return fm_fail(err, FM_E_FORMAT,
                   "%s: has %" PRIu64 " bytes, expected %" PRIu64
                   ", so it is not what its journal speaks of; remove it and %s to begin anew",
                   p->part_path, facts.bytes, p->total_bytes, p->journal_path);
}

static fm_status open_part(fm_quantize_part *p, const fm_part_identity *id, fm_error *err)
{
    bool had_part = exists(p->part_path);
    const bool had_journal = exists(p->journal_path);
    if (exists(p->path)) {
        /* Renamed by a call that was killed before it removed the journal? */
        if (!had_journal || had_part)
            return fm_fail(err, FM_E_ARG, "%s: exists already; it is not overwritten", p->path);
    } else if (had_part && !had_journal) {
        return fm_fail(err, FM_E_ARG,
                       "%s: is there without its journal, so it cannot be gone on with; remove it",
                       p->part_path);
    }
    FM_TRY(fm_file_open_rw(&p->journal_fd, p->journal_path, err));
    if (!fm_file_lock(p->journal_fd))
        return fm_fail(err, FM_E_ARG, "%s: another process is writing it", p->part_path);
    had_part = exists(p->part_path); /* who had the lock may have begun it since */
    fm_file_facts facts = {0};
    (void)fm_file_facts_of(&facts, p->journal_path);
    if (facts.bytes > FM_JOURNAL_MAX)
        return fm_fail(err, FM_E_FORMAT, "%s: has %" PRIu64 " bytes, which no journal has",
                       p->journal_path, facts.bytes);
    uint8_t *data = malloc((size_t)facts.bytes + 1);
    if (!data) return fm_fail(err, FM_E_NOMEM, "%s: no memory", p->journal_path);
    fm_status st =
        fm_file_read_at(p->journal_fd, p->journal_path, data, (size_t)facts.bytes, 0, err);
    fm_journal j;
    const bool is_whole = fm_journal_parse_header(&j, data, (size_t)facts.bytes);
    p->at_hash = FM_FNV1A_INIT;
    if (st == FM_OK && exists(p->path)) {
        st = is_whole
                 ? resume_journal(p, id, data, (size_t)facts.bytes, err)
                 : fm_fail(err, FM_E_ARG, "%s: exists already; it is not overwritten", p->path);
        p->was_complete = st == FM_OK && p->at_tensor == p->n_tensor;
        if (st == FM_OK && !p->was_complete)
            st = fm_fail(err, FM_E_ARG, "%s: exists already; it is not overwritten", p->path);
    } else if (st == FM_OK && had_part) {
        st = resume_journal(p, id, data, (size_t)facts.bytes, err);
        if (st == FM_OK) st = check_length(p, err);
    } else if (st == FM_OK) {
        st = begin_journal(p, id, err);
    }
    free(data);
    if (st != FM_OK || p->was_complete) return st;
    FM_TRY(check_room(p, err));
    FM_TRY(fm_file_open_rw(&p->part_fd, p->part_path, err));
    if (ftruncate(p->part_fd, (off_t)p->total_bytes) != 0)
        return fm_fail_errno(err, errno, "%s: making it %" PRIu64 " bytes long", p->part_path,
                             p->total_bytes);
    FM_TRY(fm_file_sync_folder(p->part_path, err)); /* before a record speaks of it */
    p->synced_us = fm_now_us();
    p->sync_every_us = SYNC_US;
    return FM_OK;
}

fm_status fm_part_open(fm_quantize_part *p, const char *destination, const fm_part_identity *id,
                       int64_t n_tensor, uint64_t total_bytes, fm_error *err)
{
    *p = (fm_quantize_part){.part_fd = -1,
                            .journal_fd = -1,
                            .n_tensor = n_tensor,
                            .total_bytes = total_bytes,
                            .path = strdup(destination),
                            .part_path = with_tail(destination, ".part"),
                            .journal_path = with_tail(destination, ".part.journal"),
                            .hash = calloc((size_t)n_tensor + 1, sizeof *p->hash),
                            .is_finished = calloc((size_t)n_tensor + 1, sizeof *p->is_finished)};
    if (!p->path || !p->part_path || !p->journal_path || !p->hash || !p->is_finished)
        return fm_fail(err, FM_E_NOMEM, "%s: no memory", destination);
    return open_part(p, id, err);
}

/* ---- going on ---------------------------------------------------------------------------- */

fm_status fm_part_write(fm_quantize_part *p, const void *data, size_t n, uint64_t offset,
                        fm_error *err)
{
    return fm_file_write_at(p->part_fd, p->part_path, data, n, offset, err);
}

static fm_status add_record(fm_quantize_part *p, bool is_finished, uint64_t bytes, uint64_t hash,
                            fm_error *err)
{
    if (p->n_pending + FM_JOURNAL_RECORD > p->cap_pending) {
        const size_t cap = p->cap_pending * 2 + 64 * FM_JOURNAL_RECORD;
        uint8_t *grown = realloc(p->pending, cap);
        if (!grown) return fm_fail(err, FM_E_NOMEM, "%s: no memory", p->journal_path);
        p->pending = grown;
        p->cap_pending = cap;
    }
    uint8_t *const r = p->pending + p->n_pending;
    fm_put_le(r, is_finished ? 1 : 2, 8);
    fm_put_le(r + 8, (uint64_t)p->at_tensor, 8);
    fm_put_le(r + 16, bytes, 8);
    fm_put_le(r + 24, hash, 8);
    p->chain = fm_fnv1a(p->chain, r, FM_JOURNAL_RECORD - 8);
    fm_put_le(r + 32, p->chain, 8);
    p->n_pending += FM_JOURNAL_RECORD;
    return FM_OK;
}

static fm_status sync_records(fm_quantize_part *p, fm_error *err)
{
    if (p->n_pending == 0) return FM_OK;
    const uint64_t began = fm_now_us();
    const fm_status st = fm_file_sync(p->part_fd, p->part_path, err);
    p->has_lost = st != FM_OK;
    FM_TRY(st);
    FM_TRY(fm_file_write_at(p->journal_fd, p->journal_path, p->pending, p->n_pending,
                            p->journal_bytes, err));
    FM_TRY(fm_file_sync(p->journal_fd, p->journal_path, err));
    p->journal_bytes += p->n_pending;
    p->n_pending = 0;
    p->synced_us = fm_now_us();
    const uint64_t wait = (p->synced_us - began) * SYNC_SHARE;
    p->sync_every_us = wait < SYNC_US ? SYNC_US : wait > SYNC_MAX_US ? SYNC_MAX_US : wait;
    return FM_OK;
}

fm_status fm_part_progress(fm_quantize_part *p, uint64_t bytes, uint64_t hash, bool now,
                           fm_error *err)
{
    p->at_bytes = bytes;
    p->at_hash = hash;
    if (!now && !is_time(p)) return FM_OK;
    if (bytes > 0) FM_TRY(add_record(p, false, bytes, hash, err));
    return sync_records(p, err);
}

fm_status fm_part_finish_tensor(fm_quantize_part *p, uint64_t hash, fm_error *err)
{
    p->hash[p->at_tensor] = hash;
    p->is_finished[p->at_tensor] = true;
    FM_TRY(add_record(p, true, 0, hash, err));
    p->at_tensor++;
    p->at_bytes = 0;
    p->at_hash = FM_FNV1A_INIT;
    if (p->at_tensor < p->n_tensor && !is_time(p)) return FM_OK;
    return sync_records(p, err);
}

void fm_part_keep(fm_quantize_part *p)
{
    /* A sync may succeed where the one before has failed, and the bytes be gone all the same. */
    if (p->has_lost) return;
    /* Without room on the disk this fails too; then the last sync is what a rerun goes on from. */
    if (p->at_bytes > 0 && add_record(p, false, p->at_bytes, p->at_hash, NULL) != FM_OK) return;
    (void)sync_records(p, NULL);
}

/* ---- the end ----------------------------------------------------------------------------- */

fm_status fm_part_rename(fm_quantize_part *p, fm_error *err)
{
    if (!p->was_complete) {
        FM_TRY(fm_part_write(p, "GGUF", 4, 0, err));
        FM_TRY(fm_file_sync(p->part_fd, p->part_path, err));
        bool is_taken;
        const fm_status st = fm_file_rename_new(p->part_path, p->path, &is_taken, err);
        if (is_taken)
            return fm_fail(err, FM_E_ARG, "%s: appeared meanwhile; it is not overwritten", p->path);
        FM_TRY(st);
        FM_TRY(fm_file_sync_folder(p->path, err));
    }
    if (unlink(p->journal_path) != 0)
        return fm_fail_errno(err, errno, "%s: removing it", p->journal_path);
    return FM_OK;
}

void fm_part_close(fm_quantize_part *p)
{
    fm_file_close(p->part_fd);
    fm_file_close(p->journal_fd);
    free(p->path);
    free(p->part_path);
    free(p->journal_path);
    free(p->hash);
    free(p->is_finished);
    free(p->pending);
    *p = (fm_quantize_part){.part_fd = -1, .journal_fd = -1};
}
