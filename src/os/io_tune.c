/* Depth and split of reads, measured once per disk: see io_tune.h. */
#include "os/io_tune.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

#include "base/bytes.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/ledger.h"
#include "os/cache_file.h"

#define MAGIC "FMIOTUN1"
enum { VERSION = 1, KEY_MAX = 256, PAYLOAD_HEAD = 24, PAYLOAD_MAX = PAYLOAD_HEAD + KEY_MAX };

enum {
    CANDIDATES_MAX = 8,
    DEPTH_MAX = 256,
    SLICE_READS = 64,     /* of one candidate in one round: the same bytes for all, because ... */
    SLICE_US = 80 * 1000, /* ... some disks are fast until a quota is used up; at most */
};
#define GAIN 1.10   /* what another setting must bring */
#define NEARLY 0.95 /* of the fastest: as good */

static void say(const fm_io_tune *t, fm_log_level level, const char *fmt, ...) FM_PRINTF(3, 4);
static void say(const fm_io_tune *t, fm_log_level level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fm_log_va(t->log, t->log_user, level, fmt, ap);
    va_end(ap);
}

/* ---- the decision ------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* How much faster than candidate 0, in the middle of the rounds that both were in; 0: not in all of them, or
 * fewer than two. */
static double gain_of(const fm_io_candidate *c, const fm_io_candidate *now)
{
    double ratio[FM_IO_TUNE_ROUNDS];
    int n = 0;
    for (int i = 0; i < FM_IO_TUNE_ROUNDS; i++) {
        if (!(c->rate[i] > 0) || !(now->rate[i] > 0)) continue;
        ratio[n++] = c->rate[i] / now->rate[i];
        if (ratio[n - 1] <= 1) return 0;
    }
    if (n < 2) return 0;
    qsort(ratio, (size_t)n, sizeof *ratio, by_value);
    return n % 2 ? ratio[n / 2] : (ratio[n / 2 - 1] + ratio[n / 2]) / 2;
}

int fm_io_tune_pick(const fm_io_candidate *c, int n)
{
    double best = 1;
    for (int i = 1; i < n; i++)
        if (gain_of(&c[i], &c[0]) > best) best = gain_of(&c[i], &c[0]);
    if (best < GAIN) return 0;
    int pick = 0;
    for (int i = 1; i < n; i++) {
        if (gain_of(&c[i], &c[0]) < best * NEARLY) continue;
        const uint64_t under_way = (uint64_t)c[i].depth * c[i].split_bytes;
        if (pick == 0 || under_way < (uint64_t)c[pick].depth * c[pick].split_bytes) pick = i;
    }
    return pick;
}

/* ---- measuring --------------------------------------------------------------------------- */

typedef struct {
    const fm_io_tune *t;
    uint8_t *buffer;
    uint64_t started_us, places; /* read so far, none twice */
} tuning;

static double median_rate(const fm_io_candidate *c)
{
    double rate[FM_IO_TUNE_ROUNDS];
    int n = 0;
    for (int i = 0; i < FM_IO_TUNE_ROUNDS; i++)
        if (c->rate[i] > 0) rate[n++] = c->rate[i];
    if (n == 0) return 0;
    qsort(rate, (size_t)n, sizeof *rate, by_value);
    return rate[n / 2];
}

/* Requests whose pieces fill the depth; one at least. */
static uint64_t requests_for(uint64_t room, int depth, uint64_t split_bytes)
{
    const uint64_t piece = room < split_bytes ? room : split_bytes;
    return ((uint64_t)depth * piece + room - 1) / room;
}

/* There is memory for as many, and for one that waits, so that the device does not run dry in between. */
static bool can_be_measured(const fm_io_tune *t, int depth, uint64_t split_bytes)
{
    const uint64_t room = fm_io_room(t->read_bytes);
    return t->buffer_bytes / room > requests_for(room, depth, split_bytes);
}

/* Rounds over all candidates, as far as the time and the unread places go. */
static fm_status measure(tuning *u, fm_io_candidate *c, int n, uint64_t end_us, fm_error *err)
{
    const fm_io_tune *t = u->t;
    for (int round = 0; round < FM_IO_TUNE_ROUNDS; round++) {
        for (int k = 0; k < n; k++) {
            /* Forwards and backwards: what comes after a greedy one is at a disadvantage. */
            const int i = round % 2 ? n - 1 - k : k;
            if (fm_now_us() - u->started_us + SLICE_US > end_us) return FM_OK;
            const fm_disk_probe probe = {.path = t->path,
                                         .file_bytes = t->file_bytes,
                                         .n_file = t->n_file,
                                         .io_engine = t->io_engine,
                                         .depth = c[i].depth,
                                         .split_bytes = c[i].split_bytes,
                                         .read_bytes = t->read_bytes,
                                         .buffer_bytes = t->buffer_bytes,
                                         .buffer = u->buffer,
                                         .max_us = SLICE_US,
                                         .max_requests = SLICE_READS,
                                         .first = u->places,
                                         .go = t->go,
                                         .go_user = t->go_user};
            fm_disk_probe_result result;
            FM_TRY(fm_probe_disk(&result, &probe, err));
            u->places += result.requests;
            /* Fewer requests than fill the depth never showed it. */
            if (result.requests >=
                requests_for(fm_io_room(t->read_bytes), c[i].depth, c[i].split_bytes))
                c[i].rate[round] = result.gb_s;
        }
    }
    return FM_OK;
}

/* How many requests of which size the disk wants, then whether smaller pieces of them help. */
static fm_status tune(tuning *u, fm_io_choice *out, fm_error *err)
{
    static const int depths[] = {FM_IO_DEFAULT_DEPTH, 32, 2, 16, 4, 64};
    const fm_io_tune *t = u->t;
    const uint64_t room = fm_io_room(t->read_bytes);
    fm_io_candidate c[CANDIDATES_MAX];
    int n = 0;
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        if (i > 0 && !can_be_measured(t, depths[i], FM_IO_DEFAULT_SPLIT)) continue;
        c[n++] = (fm_io_candidate){.depth = depths[i], .split_bytes = FM_IO_DEFAULT_SPLIT};
    }
    FM_TRY(measure(u, c, n, t->max_us / 2, err));
    const fm_io_candidate first = c[fm_io_tune_pick(c, n)];
    out->depth = first.depth;
    out->gb_s = median_rate(&first);

    static const uint64_t splits[] = {256 << 10, 128 << 10, 4 << 20};
    const uint64_t whole = room < FM_IO_DEFAULT_SPLIT ? room : FM_IO_DEFAULT_SPLIT;
    n = 0;
    c[n++] = (fm_io_candidate){.depth = first.depth, .split_bytes = FM_IO_DEFAULT_SPLIT};
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        const bool is_larger = splits[i] > whole;
        if (is_larger && room <= FM_IO_DEFAULT_SPLIT) continue; /* it is read whole already */
        if (!is_larger && whole < 2 * splits[i]) continue;
        if (!can_be_measured(t, first.depth, splits[i])) continue;
        c[n++] = (fm_io_candidate){.depth = first.depth, .split_bytes = splits[i]};
        if (is_larger) continue;
        /* As many bytes under way as without. */
        const uint64_t more = (uint64_t)first.depth * ((whole + splits[i] - 1) / splits[i]);
        if (more <= DEPTH_MAX && can_be_measured(t, (int)more, splits[i]))
            c[n++] = (fm_io_candidate){.depth = (int)more, .split_bytes = splits[i]};
    }
    FM_TRY(measure(u, c, n, t->max_us, err));
    const int pick = fm_io_tune_pick(c, n);
    if (pick == 0) return FM_OK;
    out->depth = c[pick].depth;
    out->split_bytes = c[pick].split_bytes;
    out->gb_s = median_rate(&c[pick]);
    return FM_OK;
}

static fm_status tune_with_buffer(fm_io_choice *out, const fm_io_tune *t, fm_error *err)
{
    fm_ledger ledger = {0};
    const int line = fm_ledger_open(&ledger, "disk probe", t->buffer_bytes);
    tuning u = {.t = t};
    u.buffer = fm_ledger_alloc(&ledger, line, (size_t)t->buffer_bytes, 1, err);
    if (!u.buffer) return FM_E_NOMEM;
    memset(u.buffer, 0, (size_t)t->buffer_bytes); /* first touches are not the disk's time */
    u.started_us = fm_now_us();
    const fm_status st = tune(&u, out, err);
    fm_ledger_free(&ledger, line, u.buffer, (size_t)t->buffer_bytes);
    return st;
}

/* ---- remembering ------------------------------------------------------------------------- */

/* What the choice depends on: file system, engine, size of a read. */
static bool make_key(char key[KEY_MAX], const fm_io_tune *t)
{
    int32_t largest = 0;
    for (int32_t i = 1; i < t->n_file; i++)
        if (t->file_bytes[i] > t->file_bytes[largest]) largest = i;
    struct stat st;
    if (t->n_file < 1 || stat(t->path[largest], &st) != 0) return false;
    unsigned long type = 0;
    uint64_t id = 0;
#ifdef __linux__
    struct statfs fs;
    if (statfs(t->path[largest], &fs) == 0) {
        type = (unsigned long)fs.f_type;
        memcpy(&id, &fs.f_fsid, sizeof id < sizeof fs.f_fsid ? sizeof id : sizeof fs.f_fsid);
    }
#endif
    const int n =
        snprintf(key, KEY_MAX, "type %lx id %" PRIx64 " device %" PRIx64 " %s %" PRIu64, type, id,
                 (uint64_t)st.st_dev, t->io_engine ? t->io_engine : "auto", t->read_bytes);
    return n > 0 && n < KEY_MAX;
}

static fm_status path_of(char path[FM_CACHE_PATH_MAX], const char *key, fm_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "disk-%016" PRIx64, fm_fnv1a(FM_FNV1A_INIT, key, strlen(key)));
    return fm_cache_path(path, name, err);
}

/* False: nothing usable, and why was said. */
static bool recall(fm_io_choice *out, const fm_io_tune *t, const char *path, const char *key)
{
    unsigned char *data;
    size_t n;
    fm_error why;
    if (fm_cache_read(&data, &n, path, MAGIC, VERSION, PAYLOAD_MAX, &why) != FM_OK) {
        say(t, FM_LOG_WARN, "what was measured of this disk is not used: %s", why.msg);
        return false;
    }
    if (!data) return false;
    const size_t key_bytes = strlen(key);
    bool ok = n == PAYLOAD_HEAD + key_bytes && memcmp(data + PAYLOAD_HEAD, key, key_bytes) == 0;
    if (!ok) say(t, FM_LOG_WARN, "%s is not used: it is about another disk", path);
    if (ok) {
        const uint64_t depth = fm_get_le(data, 8), split = fm_get_le(data + 8, 8);
        if (fm_get_le(data + 16, 8) == 0) { /* a process that ended while it measured */
            free(data);
            return false;
        }
        ok = depth >= 1 && depth <= DEPTH_MAX && split >= FM_IO_ALIGN && split <= (1 << 30) &&
             split % FM_IO_ALIGN == 0;
        if (ok) {
            *out = (fm_io_choice){.depth = (int)depth,
                                  .split_bytes = split,
                                  .gb_s = (double)fm_get_le(data + 16, 8) / 1e6,
                                  .origin = FM_IO_REMEMBERED};
        } else {
            say(t, FM_LOG_WARN, "%s is not used: depth %" PRIu64 ", split %" PRIu64, path, depth,
                split);
        }
    }
    free(data);
    return ok;
}

static fm_status remember(const fm_io_choice *c, const char *path, const char *key, fm_error *err)
{
    unsigned char data[PAYLOAD_MAX];
    fm_put_le(data, (uint64_t)c->depth, 8);
    fm_put_le(data + 8, c->split_bytes, 8);
    fm_put_le(data + 16, (uint64_t)(c->gb_s * 1e6), 8);
    memcpy(data + PAYLOAD_HEAD, key, strlen(key));
    return fm_cache_write(path, MAGIC, VERSION, data, PAYLOAD_HEAD + strlen(key), err);
}

fm_status fm_io_choose(fm_io_choice *out, const fm_io_tune *t, fm_error *err)
{
    *out = (fm_io_choice){.depth = FM_IO_DEFAULT_DEPTH, .split_bytes = FM_IO_DEFAULT_SPLIT};
    char key[KEY_MAX], path[FM_CACHE_PATH_MAX];
    fm_error why;
    if (!make_key(key, t)) return FM_OK;
    if (path_of(path, key, &why) != FM_OK) {
        if (t->max_us > 0) say(t, FM_LOG_INFO, "the disk is not measured: %s", why.msg);
        return FM_OK;
    }
    if (recall(out, t, path, key)) return FM_OK;
    if (t->max_us == 0 || t->read_bytes == 0 ||
        !can_be_measured(t, FM_IO_DEFAULT_DEPTH, FM_IO_DEFAULT_SPLIT))
        return FM_OK;
    fm_io_choice found = *out;
    /* Written before it is known: where that fails, measuring would cost every start the same again. */
    if (remember(&found, path, key, &why) != FM_OK) {
        say(t, FM_LOG_INFO, "the disk is not measured, the result could not be kept: %s", why.msg);
        return FM_OK;
    }
    say(t, FM_LOG_INFO, "measuring how this disk wants to be read, once (at most %.0f s)",
        (double)t->max_us / 1e6);
    found.origin = FM_IO_MEASURED;
    const fm_status st = tune_with_buffer(&found, t, &why);
    if (st == FM_OK && found.gb_s > 0 && remember(&found, path, key, &why) == FM_OK) {
        say(t, FM_LOG_INFO, "reads of %" PRIu64 " KiB: depth %d, split %" PRIu64 " KiB, %.2f GB/s",
            t->read_bytes >> 10, found.depth, found.split_bytes >> 10, found.gb_s);
        *out = found;
        return FM_OK;
    }
    (void)remove(path); /* what stands there was not measured */
    if (st == FM_E_CANCELLED) {
        if (err) *err = why;
        return st;
    }
    if (st != FM_OK) say(t, FM_LOG_WARN, "the disk could not be measured: %s", why.msg);
    return FM_OK;
}
