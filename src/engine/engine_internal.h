/* Inside the engine: what an opened checkpoint owns, and the seams between its files. */
#pragma once

#include <stdarg.h>

#include "base/ledger.h"
#include "base/pool.h"
#include "chat/chat_form.h"
#include "engine/draft_gate.h"
#include "format/checkpoint.h"
#include "model/input_sums.h"
#include "model/model.h"
#include "model/route_trace.h"
#include "store/store.h"

struct fm_engine {
    /* set at open, read-only afterwards */
    char *path;
    fm_checkpoint *checkpoint;
    fm_model *model;          /* NULL with vocab_only                     */
    fm_tokenizer *tokenizer;  /* NULL when the file carries none          */
    fm_error tokenizer_error; /* why not                                  */
    int32_t bos_id;           /* -1: none */
    fm_chat_form *chat;
    fm_error chat_error; /* FM_OK, or why its templates or tokens cannot be read */
    const fm_kernels *kernels;
    fm_activations activations;
    fm_draft_mode draft; /* OFF: the model has no draft layer bound */
    fm_plan_wish wish;
    fm_store_plan plan;
    int n_thread;
    int io_depth;
    uint64_t io_split;
    const char *io_origin;   /* a literal */
    double io_measured_gb_s; /* 0: was not measured */
    fm_kv_type kv_type;
    fm_str name, architecture, pre;
    fm_log_fn log;
    void *log_user;
    uint64_t load_us;
    int32_t n_batch_asked; /* defines the chunks; passes may be shorter */

    /* only after loading */
    fm_ledger ledger;
    fm_pool *pool;
    fm_store *store;
    fm_run *run;
    fm_input_sums *importance;  /* or NULL */
    fm_route_trace *trace;      /* or NULL */
    int embd_fd[FM_MAX_PLANES]; /* of the file of each plane, -1: none */
    unsigned char *pack_scratch;
    fm_prepare_ctx prepare;

    /* statistics of sessions */
    bool has_session, warm_start;
    uint64_t prompt_us, gen_us, tokens_evaluated, drafts, drafts_right;
};

void fm_engine_log(const fm_engine *e, fm_log_level level, const char *fmt, ...) FM_PRINTF(3, 4);

/* plan_glue.c: machine facts and model sizes into e->plan. n_ctx, n_batch: 0 for the default;
 * importance: with room for fm_input_sums. */
fm_status fm_engine_make_plan(fm_engine *e, uint64_t budget, int32_t n_ctx, int32_t n_batch,
                              bool importance, fm_error *err);

/* Logs a warning where the plan takes more than the machine had free when it was made. */
void fm_engine_warn_of_memory(const fm_engine *e);

/* heat_glue.c: what earlier sessions used most, into the store, and what this one did, into the file.
 * Failures are logged. */
void fm_engine_load_heat(fm_engine *e);
void fm_engine_save_heat(fm_engine *e);

uint64_t fm_engine_identity(const fm_engine *e); /* see fm_model_info */

/* io_glue.c: depth and split of reads, after the plan; may measure the disk. */
fm_status fm_engine_choose_io(fm_engine *e, const fm_engine_options *o, fm_error *err);

/* chat_glue.c: the chat templates of the checkpoint into e->chat, or e->chat_error; after the
 * tokenizer. needed: fails where conversations cannot be tokenized. */
fm_status fm_engine_make_chat(fm_engine *e, bool needed, fm_error *err);
