/* A made-up checkpoint for the store's tests: two files whose bytes are a function of file and
 * offset, layers of experts and trunk units that lie anywhere in them. */
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/fault.h"
#include "store/store.h"

enum {
    TM_FILES = 2,
    TM_FILE_BYTES = 6 * 1024 * 1024 + 1717,
    TM_LAYERS = 6,
    TM_UNITS = 9,
    TM_PIECES = 4,
    TM_MAX_EXPERT = 48,
    TM_SPLIT = 16 * 1024,
};

typedef struct {
    char path[TM_FILES][256];
    uint8_t *content[TM_FILES];
    fm_expert_layer layer[TM_LAYERS];
    fm_tensor_info tensor[TM_UNITS][TM_PIECES];
    fm_trunk_piece piece[TM_UNITS][TM_PIECES];
    fm_trunk_unit unit[TM_UNITS];
} tm_model;

static tm_model tm;
static uint64_t tm_seed = 0x853c49e6748fea9bu;

static inline uint64_t tm_random(void)
{
    tm_seed ^= tm_seed << 13;
    tm_seed ^= tm_seed >> 7;
    tm_seed ^= tm_seed << 17;
    return tm_seed;
}

static inline void tm_write_file(int f)
{
    const int fd = open(tm.path[f], O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    for (size_t done = 0; done < TM_FILE_BYTES;) {
        const ssize_t put = write(fd, tm.content[f] + done, TM_FILE_BYTES - done);
        assert_true(put > 0);
        done += (size_t)put;
    }
    close(fd);
}

static inline void tm_layer(int index, int32_t n_expert, int32_t n_part, uint64_t bytes)
{
    fm_expert_layer *layer = &tm.layer[index];
    *layer = (fm_expert_layer){.n_expert = n_expert, .n_part = n_part};
    for (int32_t p = 0; p < n_part; p++) {
        const uint64_t n = bytes + (uint64_t)p * 700, stride = n + (uint64_t)(p % 2) * 32;
        const uint64_t span = stride * (uint64_t)n_expert;
        layer->part[p] = (fm_expert_part){.file = (uint16_t)(p % TM_FILES),
                                          .offset = tm_random() % (TM_FILE_BYTES - span),
                                          .stride = stride,
                                          .bytes = n};
    }
    /* one part ends at the very end of its file */
    fm_expert_part *last = &layer->part[n_part - 1];
    if (n_expert > 0) {
        last->offset = TM_FILE_BYTES - last->stride * (uint64_t)(n_expert - 1) - last->bytes;
    }
}

static inline int tm_setup(void **state)
{
    (void)state;
    const char *seed = getenv("FM_TEST_SEED"); /* for longer searches than a test run */
    if (seed) tm_seed ^= strtoull(seed, NULL, 10) * UINT64_C(0x9e3779b97f4a7c15);
    /* In memory where that is possible: the engines' own tests use the disk. */
    const char *dir = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");
    for (int f = 0; f < TM_FILES; f++) {
        snprintf(tm.path[f], sizeof tm.path[f], "%s/fm_store_%d_%d.bin", dir ? dir : "/tmp",
                 (int)getpid(), f);
        tm.content[f] = malloc(TM_FILE_BYTES);
        for (size_t i = 0; i < TM_FILE_BYTES; i++) tm.content[f][i] = (uint8_t)(tm_random() >> 17);
        tm_write_file(f);
    }
    tm_layer(0, 32, 3, 20000);
    tm_layer(1, TM_MAX_EXPERT, 3, 20000);
    tm_layer(2, 0, 1, 0); /* dense */
    tm_layer(3, 32, 2, 50001);
    tm_layer(4, 1, 9, 4097);
    tm_layer(5, TM_MAX_EXPERT, 1, 61441);
    for (int u = 0; u < TM_UNITS; u++) {
        const int n_piece = 1 + u % TM_PIECES;
        for (int i = 0; i < n_piece; i++) {
            const uint64_t bytes = 1 + tm_random() % 60000;
            tm.tensor[u][i] = (fm_tensor_info){.name = "made-up",
                                               .file = (uint16_t)(tm_random() % TM_FILES),
                                               .offset = tm_random() % (TM_FILE_BYTES - bytes),
                                               .bytes = bytes};
            const uint64_t skip = tm_random() % bytes;
            tm.piece[u][i] = (fm_trunk_piece){
                .tensor = &tm.tensor[u][i], .offset = skip, .bytes = bytes - skip};
        }
        tm.unit[u] = (fm_trunk_unit){tm.piece[u], n_piece};
    }
    return 0;
}

static inline int tm_teardown(void **state)
{
    (void)state;
    for (int f = 0; f < TM_FILES; f++) {
        unlink(tm.path[f]);
        free(tm.content[f]);
    }
    return 0;
}

/* ---- a store over it --------------------------------------------------------------------- */

typedef struct {
    fm_store *store;
    fm_store_plan plan;
    fm_ledger ledger;
} tm_store;

static inline fm_plan_input tm_plan_input(void)
{
    return (fm_plan_input){.layer = tm.layer,
                           .n_layer = TM_LAYERS,
                           .unit = tm.unit,
                           .n_unit = TM_UNITS,
                           .program_bytes = 1000,
                           .n_batch = 64,
                           .n_ctx = 128};
}

static inline uint64_t tm_least_budget(void)
{
    fm_plan_input in = tm_plan_input();
    fm_store_plan plan;
    assert_int_equal(fm_plan_make(&plan, &in, NULL), FM_E_NOMEM);
    return plan.report.min_memory_bytes;
}

static inline uint64_t tm_whole_budget(void)
{
    fm_plan_input in = tm_plan_input();
    in.budget_bytes = UINT64_C(1) << 40;
    fm_store_plan plan;
    assert_int_equal(fm_plan_make(&plan, &in, NULL), FM_OK);
    return plan.report.total_bytes;
}

static inline fm_store_options tm_options(tm_store *t, const fm_io_options *io)
{
    static const char *path[TM_FILES];
    static fm_file_mark mark[TM_FILES];
    for (int f = 0; f < TM_FILES; f++) {
        path[f] = tm.path[f];
        mark[f].bytes = TM_FILE_BYTES;
    }
    return (fm_store_options){.path = path,
                              .mark = mark,
                              .n_file = TM_FILES,
                              .plan = &t->plan,
                              .layer = tm.layer,
                              .n_layer = TM_LAYERS,
                              .unit = tm.unit,
                              .n_unit = TM_UNITS,
                              .ledger = &t->ledger,
                              .io = io};
}

/* Engine "uring" falls back to "pread" where the kernel has none. */
static inline fm_status tm_open(tm_store *t, uint64_t budget, const char *engine, int depth,
                                fm_error *err)
{
    memset(t, 0, sizeof *t);
    fm_plan_input in = tm_plan_input();
    in.budget_bytes = budget;
    assert_int_equal(fm_plan_make(&t->plan, &in, NULL), FM_OK);
    const fm_io_options io = {.engine = strcmp(engine, "uring") == 0 ? NULL : engine,
                              .depth = depth,
                              .split_bytes = TM_SPLIT};
    const fm_store_options opt = tm_options(t, &io);
    return fm_store_create(&t->store, &opt, err);
}

static inline void tm_open_loaded(tm_store *t, uint64_t budget, const char *engine, int depth)
{
    fm_error err;
    assert_int_equal(tm_open(t, budget, engine, depth, &err), FM_OK);
    assert_int_equal(fm_store_load_trunk(t->store, NULL, NULL, &err), FM_OK);
}

/* Everything was given back to the ledger. */
static inline void tm_close(tm_store *t)
{
    fm_store_destroy(t->store);
    for (int i = 0; i < t->ledger.n_line; i++) assert_int_equal(t->ledger.lines[i].used_bytes, 0);
}

static inline const uint8_t *tm_part(int32_t layer, int32_t expert, int32_t part)
{
    const fm_expert_part *p = &tm.layer[layer].part[part];
    return tm.content[p->file] + p->offset + p->stride * (uint64_t)expert;
}
