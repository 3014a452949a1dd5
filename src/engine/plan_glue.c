/* From machine facts and the model's sizes to a memory plan. Nothing large is allocated here. */
#include "engine/engine_internal.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/figure.h"
#include "model/input_sums.h"
#include "os/facts.h"
#include "text/tokenizer.h"

enum {
    DEFAULT_BATCH = 512,
    LARGEST_DEFAULT_BATCH = 4096,
    BATCH_SHARE = 10, /* working memory of a large default batch: at most this part of the budget */
    DEFAULT_CTX = 8192,
    SMALLEST_DEFAULT_CTX = 1024,
    BATCH_STEP = 64, /* the planner may shrink a pass to this many tokens */
};

/* Code, libraries and small allocations of a running process (4 MiB were measured), and page tables for the trunk (1/512
 * of what they map). */
#define PROGRAM_BYTES (UINT64_C(8) << 20)
enum { PAGE_TABLE_SHARE = 512 };

/* What may be used when the user names no budget: what is free, less a reserve that keeps the
 * machine usable. */
static uint64_t default_budget(const fm_mem_facts *facts)
{
    uint64_t reserve = facts->total_bytes / 16;
    if (reserve < (UINT64_C(256) << 20)) reserve = UINT64_C(256) << 20;
    return facts->available_bytes > reserve ? facts->available_bytes - reserve
                                            : facts->available_bytes / 2;
}

static fm_status plan_for(fm_engine *e, fm_plan_input *in, int64_t n_ctx, int32_t n_batch,
                          fm_error *err)
{
    const fm_model *m = e->model;
    if (n_batch > n_ctx) n_batch = (int32_t)n_ctx; /* no pass is longer */
    const fm_kv_shape kv = fm_model_kv_shape(m, n_ctx, n_batch, e->kv_type == FM_KV_F16);
    in->n_ctx = (int32_t)n_ctx;
    in->n_batch = n_batch;
    in->kv_bytes = fm_kv_cache_bytes(&kv);
    in->index_bytes = fm_kv_index_bytes(&kv);
    in->state_bytes = fm_kv_state_bytes(&kv);
    if (n_batch <= BATCH_STEP) {
        in->scratch_fixed_bytes = fm_run_bytes(m, n_batch, n_ctx, e->n_thread);
        in->scratch_token_bytes = 0;
    } else {
        /* Linear in the batch but for rounding of each buffer to 64 bytes and the total to pages, and for what prompts
         * of latent attention take for each thread, which grows up to 2,048 tokens only: then too much is kept. */
        const uint64_t b1 = fm_run_bytes(m, BATCH_STEP, n_ctx, e->n_thread);
        const uint64_t b2 = fm_run_bytes(m, 2 * BATCH_STEP, n_ctx, e->n_thread);
        in->scratch_token_bytes = (b2 - b1) / BATCH_STEP + 64;
        in->scratch_fixed_bytes = b1 - BATCH_STEP * (in->scratch_token_bytes - 64) + 8192;
    }
    return fm_plan_make(&e->plan, in, err);
}

/* A prompt reads every expert it needs once per pass, so passes are as long as a modest share of the
 * memory allows. The length of a pass never shows in results (session.c). */
static int32_t default_batch(const fm_engine *e, int64_t ctx, uint64_t budget)
{
    for (int32_t b = LARGEST_DEFAULT_BATCH; b > DEFAULT_BATCH; b /= 2)
        if (b <= ctx && fm_run_bytes(e->model, b, ctx, e->n_thread) <= budget / BATCH_SHARE)
            return b;
    return DEFAULT_BATCH;
}

/* The longest default context whose cache takes at most an eighth of the budget, or a shorter one where nothing
 * else makes the plan fit; never less than `least`. */
static fm_status plan_default_ctx(fm_engine *e, fm_plan_input *in, int64_t most, int64_t least,
                                  int32_t n_batch, fm_error *err)
{
    int64_t ctx = most;
    for (; ctx > least; ctx = ctx / 2 > least ? ctx / 2 : least) {
        const fm_kv_shape kv = fm_model_kv_shape(e->model, ctx, n_batch, e->kv_type == FM_KV_F16);
        if (fm_kv_cache_bytes(&kv) <= in->budget_bytes / 8) break;
    }
    fm_status st = plan_for(e, in, ctx, n_batch, err);
    while (st == FM_E_NOMEM && ctx > least) {
        ctx = ctx / 2 > least ? ctx / 2 : least;
        st = plan_for(e, in, ctx, n_batch, err);
    }
    if (st != FM_OK || ctx <= least) return st;
    /* A smaller budget would get a shorter default context, down to the shortest. */
    const fm_store_plan chosen = e->plan;
    st = plan_for(e, in, least, n_batch, err);
    const uint64_t least_bytes = e->plan.report.min_memory_bytes;
    e->plan = chosen;
    e->plan.report.min_memory_bytes = least_bytes;
    return st;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

fm_status fm_engine_make_plan(fm_engine *e, uint64_t budget, int32_t n_ctx, int32_t n_batch,
                              bool importance, fm_error *err)
{
    const fm_model *m = e->model;
    fm_mem_facts machine;
    fm_os_memory(&machine);
    const uint64_t budget_bytes = budget ? budget : default_budget(&machine);
    const int64_t least =
        smaller(larger(e->wish.n_ctx_least, SMALLEST_DEFAULT_CTX), m->hp.n_ctx_train);
    const int64_t most =
        smaller(larger(larger(e->wish.n_ctx, DEFAULT_CTX), least), m->hp.n_ctx_train);
    if (n_batch == 0) n_batch = default_batch(e, n_ctx ? n_ctx : most, budget_bytes);
    e->n_batch_asked = n_batch;
    const int32_t n_layer = m->hp.n_layer + m->n_draft;
    fm_expert_layer *experts = calloc((size_t)n_layer, sizeof *experts);
    if (!experts) return fm_fail(err, FM_E_NOMEM, "no memory for the plan");
    for (int32_t i = 0; i < n_layer; i++) experts[i] = m->layers[i].experts;
    fm_plan_input in = {
        .layer = experts,
        .n_layer = n_layer,
        .unit = m->units,
        .n_unit = m->n_unit,
        .budget_bytes = budget_bytes,
        .budget_given = budget != 0,
        .program_bytes =
            PROGRAM_BYTES + (uint64_t)FM_POOL_STACK_USED * (uint64_t)e->n_thread +
            (m->trunk_bytes + (m->n_draft ? m->draft_trunk_bytes : 0)) / PAGE_TABLE_SHARE +
            fm_round_up(fm_model_pack_scratch(m) * (uint64_t)e->n_thread, 4096),
        .importance_bytes = importance ? fm_input_sums_bytes(m) : 0,
        .caller_bytes = e->wish.caller_bytes,
        .metadata_bytes = fm_checkpoint_memory(e->checkpoint) +
                          (e->tokenizer ? fm_tokenizer_memory(e->tokenizer) : 0),
    };
    const fm_status st = n_ctx > 0 ? plan_for(e, &in, n_ctx, n_batch, err)
                                   : plan_default_ctx(e, &in, most, least, n_batch, err);
    e->plan.report.budget_given = budget != 0;
    e->plan.report.machine_bytes = machine.total_bytes;
    e->plan.report.available_bytes = machine.available_bytes;
    free(experts);
    return st;
}

void fm_engine_warn_of_memory(const fm_engine *e)
{
    const fm_plan *const p = &e->plan.report;
    char takes[FM_FIGURE], is_free[FM_FIGURE], all[FM_FIGURE];
    if (p->total_bytes <= p->available_bytes) return;
    fm_engine_log(e, FM_LOG_WARN,
                  "the plan takes %s, but of this machine's %s only %s are free: it may swap, or "
                  "the system may end the program",
                  fm_figure_bytes(takes, p->total_bytes), fm_figure_bytes(all, p->machine_bytes),
                  fm_figure_bytes(is_free, p->available_bytes));
}
