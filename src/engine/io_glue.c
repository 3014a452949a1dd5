/* How the disk will be read: what the caller gave, what is known of this disk, or the defaults. */
#include "engine/engine_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "os/io_tune.h"

enum {
    TUNE_MAX_US = 1800 * 1000,
    TUNE_BUFFER = 64 << 20,
    TUNE_BUFFER_SHARE =
        4, /* of the budget at most a quarter; given back before anything is loaded */
};
/* Less than this is read in a second or two; measuring would not pay, and no place would be new. */
#define TUNE_MIN_BYTES (UINT64_C(1) << 30)

static const char *const origins[] = {"default", "measured", "remembered"};

typedef struct {
    const fm_engine *engine;
    const fm_engine_options *options;
} go_context;

static bool go_on(void *user)
{
    const go_context *c = user;
    const fm_engine_options *o = c->options;
    return !o->load_progress ||
           o->load_progress(o->progress_user, 0, c->engine->model->trunk_bytes);
}

static uint64_t largest_part(const fm_model *m)
{
    uint64_t most = 0;
    for (int32_t i = 0; i < m->hp.n_layer; i++)
        for (int32_t p = 0; p < m->layers[i].experts.n_part; p++)
            if (m->layers[i].experts.part[p].bytes > most)
                most = m->layers[i].experts.part[p].bytes;
    return most;
}

static bool all_fits(const fm_plan *p)
{
    return p->expert_slots >= p->experts_total && p->trunk_resident >= p->trunk_units;
}

static fm_status choose(fm_io_choice *out, const fm_engine *e, const fm_engine_options *o,
                        fm_error *err)
{
    const int32_t n_file = fm_checkpoint_n_file(e->checkpoint);
    const char **path = calloc((size_t)n_file, sizeof *path);
    uint64_t *bytes = calloc((size_t)n_file, sizeof *bytes), sum = 0;
    fm_status st = FM_OK;
    if (!path || !bytes) {
        st = fm_fail(err, FM_E_NOMEM, "no memory for a table of %d files", n_file);
    } else {
        for (int32_t i = 0; i < n_file; i++) {
            path[i] = fm_checkpoint_file(e->checkpoint, i);
            sum += bytes[i] = fm_checkpoint_file_bytes(e->checkpoint, i);
        }
        const uint64_t share =
            fm_round_down(e->plan.report.budget_bytes / TUNE_BUFFER_SHARE, FM_IO_ALIGN);
        go_context go = {e, o};
        const fm_io_tune tune = {.path = path,
                                 .file_bytes = bytes,
                                 .n_file = n_file,
                                 .io_engine = o->io_engine,
                                 .read_bytes = largest_part(e->model),
                                 .buffer_bytes = share < TUNE_BUFFER ? share : TUNE_BUFFER,
                                 .max_us = o->plan_only && !o->measure_io ? 0 : TUNE_MAX_US,
                                 .go = go_on,
                                 .go_user = &go,
                                 .log = e->log,
                                 .log_user = e->log_user};
        if (sum >= TUNE_MIN_BYTES) st = fm_io_choose(out, &tune, err);
    }
    free(path);
    free(bytes);
    return st;
}

fm_status fm_engine_choose_io(fm_engine *e, const fm_engine_options *o, fm_error *err)
{
    fm_io_choice choice = {.depth = FM_IO_DEFAULT_DEPTH, .split_bytes = FM_IO_DEFAULT_SPLIT};
    const bool is_given = o->io_depth > 0 || o->io_split > 0;
    const bool is_mapped = o->io_engine && strcmp(o->io_engine, "mmap") == 0;
    if (!is_given && !is_mapped && !all_fits(&e->plan.report)) FM_TRY(choose(&choice, e, o, err));
    e->io_depth = o->io_depth > 0 ? o->io_depth : choice.depth;
    e->io_split = o->io_split > 0 ? o->io_split : choice.split_bytes;
    e->io_origin = is_given ? "given" : origins[choice.origin];
    e->io_measured_gb_s = choice.gb_s;
    return FM_OK;
}
