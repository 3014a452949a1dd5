/* The engine: opens a checkpoint, makes the plan, loads the trunk, and answers questions about all of
 * it. The only place that joins the parts; implements the engine half of flashmoe.h. */
#include "engine/engine_internal.h"

#include <fcntl.h>
#include <inttypes.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "os/probe.h"
#include "os/facts.h"
#include "os/file.h"
#include "quant/planar.h"
#include "engine/tokenizer_glue.h"

enum { IO_DEPTH_MAX = 1024, IO_SPLIT_MAX = 1 << 30 };

void fm_engine_options_init(fm_engine_options *opt)
{
    memset(opt, 0, sizeof *opt);
    opt->struct_size = sizeof *opt;
}

void fm_engine_log(const fm_engine *e, fm_log_level level, const char *fmt, ...)
{
    if (!e->log) return;
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    e->log(e->log_user, level, line);
}

static fm_status check_options(const fm_engine_options *o, fm_error *err)
{
    if (o->struct_size != sizeof *o)
        return fm_fail(err, FM_E_ARG,
                       "fm_engine_options: size %zu, this library has %zu; was "
                       "fm_engine_options_init() called?",
                       o->struct_size, sizeof *o);
    if (!o->model_path || !o->model_path[0]) return fm_fail(err, FM_E_ARG, "no model was named");
    if (o->n_threads < 0 || o->n_threads > FM_POOL_THREADS_MAX)
        return fm_fail(err, FM_E_ARG, "threads: %d, expected 1 to %d (0: all cores)", o->n_threads,
                       FM_POOL_THREADS_MAX);
    if (o->n_ctx < 0)
        return fm_fail(err, FM_E_ARG, "context: %d tokens, expected 1 or more", o->n_ctx);
    if (o->n_batch < 0 || o->n_batch > (1 << 16))
        return fm_fail(err, FM_E_ARG, "batch: %d tokens, expected 1 to %d", o->n_batch, 1 << 16);
    if (o->io_depth < 0 || o->io_depth > IO_DEPTH_MAX)
        return fm_fail(err, FM_E_ARG, "I/O depth: %d, expected 1 to %d (0: the default)",
                       o->io_depth, IO_DEPTH_MAX);
    if (o->io_split > IO_SPLIT_MAX || o->io_split % FM_IO_ALIGN)
        return fm_fail(err, FM_E_ARG,
                       "I/O split: %" PRIu64 " bytes, expected a multiple of %d up to %d (0: the "
                       "default)",
                       o->io_split, FM_IO_ALIGN, IO_SPLIT_MAX);
    if (o->n_expert_used < 0)
        return fm_fail(err, FM_E_ARG, "experts: %d, expected 1 or more", o->n_expert_used);
    if (o->activations != FM_ACTIVATIONS_FULL && o->activations != FM_ACTIVATIONS_INT8)
        return fm_fail(err, FM_E_ARG, "activations: %d, expected FM_ACTIVATIONS_FULL or _INT8",
                       (int)o->activations);
    if (o->draft < FM_DRAFT_AUTO || o->draft > FM_DRAFT_OFF)
        return fm_fail(err, FM_E_ARG, "draft: %d, expected FM_DRAFT_AUTO, _ON or _OFF",
                       (int)o->draft);
    return FM_OK;
}

static fm_status read_names(fm_engine *e, fm_error *err)
{
    FM_TRY(fm_meta_str_or(e->checkpoint, "general.name", &e->name, "", err));
    FM_TRY(fm_meta_str_or(e->checkpoint, "general.architecture", &e->architecture, "", err));
    /* For people. One of another kind is reported with the tokenizer, which needs it. */
    if (fm_meta_str_or(e->checkpoint, "tokenizer.ggml.pre", &e->pre, "", NULL) != FM_OK)
        e->pre = (fm_str){.data = ""};
    return FM_OK;
}

/* A model whose tokenizer, or the token that its texts start with, cannot be used can still be examined,
 * measured and asked for logits: without `needed` that is a warning here, and what needs text fails
 * with the reason, which is kept. */
static fm_status make_tokenizer(fm_engine *e, bool needed, fm_error *err)
{
    fm_error *const why = &e->tokenizer_error;
    e->bos_id = -1;
    fm_status st = fm_tokenizer_from_checkpoint(&e->tokenizer, e->checkpoint, why);
    if (st == FM_OK) st = fm_tokenizer_bos(e->checkpoint, e->tokenizer, &e->bos_id, why);
    if (st != FM_OK) {
        fm_tokenizer_close(e->tokenizer);
        e->tokenizer = NULL;
        e->bos_id = -1;
        if (needed || st == FM_E_NOMEM) {
            if (err) *err = *why;
            return st;
        }
        fm_engine_log(e, FM_LOG_WARN, "no tokenizer, so the model takes and gives no text: %s",
                      why->msg);
    } else if (e->model && fm_tokenizer_n_vocab(e->tokenizer) > e->model->hp.n_vocab) {
        fm_engine_log(e, FM_LOG_WARN, "the tokenizer has %d tokens, the embedding %d rows",
                      fm_tokenizer_n_vocab(e->tokenizer), e->model->hp.n_vocab);
    }
    fm_checkpoint_drop_tokenizer(e->checkpoint);
#ifdef __GLIBC__
    malloc_trim(0); /* the merges of a large vocabulary were tens of MB */
#endif
    return FM_OK;
}

static int32_t embd_file(const fm_model *m, int plane)
{
    return plane == 0 ? m->embd->file : m->embd->aux[plane - 1].file;
}

static fm_status read_embd(void *user, void *dst, size_t n, int plane, uint64_t offset,
                           fm_error *err)
{
    const fm_engine *e = user;
    return fm_file_read_at(e->embd_fd[plane],
                           fm_checkpoint_file(e->checkpoint, embd_file(e->model, plane)), dst, n,
                           offset, err);
}

static void hint_embd(void *user, size_t n, int plane, uint64_t offset)
{
    const fm_engine *e = user;
    (void)posix_fadvise(e->embd_fd[plane], (off_t)offset, (off_t)n, POSIX_FADV_WILLNEED);
}

static fm_status open_embd(fm_engine *e, fm_error *err)
{
    const int n_plane = fm_type_n_plane(fm_type_get(e->model->embd->type));
    for (int k = 0; k < n_plane; k++) {
        FM_TRY(fm_file_open(&e->embd_fd[k], NULL,
                            fm_checkpoint_file(e->checkpoint, embd_file(e->model, k)), err));
        /* Single rows are wanted; without this the kernel reads megabytes around each. */
        (void)posix_fadvise(e->embd_fd[k], 0, 0, POSIX_FADV_RANDOM);
    }
    return FM_OK;
}

static fm_status create_store(fm_engine *e, const fm_engine_options *o, fm_error *err)
{
    const fm_model *m = e->model;
    const int32_t n_file = fm_checkpoint_n_file(e->checkpoint);
    const int32_t n_layer = m->hp.n_layer + m->n_draft;
    fm_expert_layer *layers = calloc((size_t)n_layer, sizeof *layers);
    const char **path = calloc((size_t)n_file, sizeof *path);
    uint64_t *bytes = calloc((size_t)n_file, sizeof *bytes);
    fm_status st;
    if (!layers || !path || !bytes) {
        st = fm_fail(err, FM_E_NOMEM, "no memory for the store's tables");
    } else {
        for (int32_t i = 0; i < n_layer; i++) layers[i] = m->layers[i].experts;
        for (int32_t i = 0; i < n_file; i++) {
            path[i] = fm_checkpoint_file(e->checkpoint, i);
            bytes[i] = fm_checkpoint_file_bytes(e->checkpoint, i);
        }
        const fm_io_options io = {.engine = o->io_engine,
                                  .depth = e->io_depth,
                                  .split_bytes = e->io_split,
                                  .log = e->log,
                                  .log_user = e->log_user};
        const fm_store_options so = {
            .path = path,
            .file_bytes = bytes,
            .n_file = n_file,
            .plan = &e->plan,
            .layer = layers,
            .n_layer = n_layer,
            .n_used = m->hp.n_expert_used,
            .unit = m->units,
            .n_unit = m->n_unit,
            .ledger = &e->ledger,
            .io = &io,
            .log = e->log,
            .log_user = e->log_user,
        };
        st = fm_store_create(&e->store, &so, err);
    }
    free(layers);
    free(path);
    free(bytes);
    return st;
}

/* What is allocated later finds its line with the plan's limit and cannot pass it. */
static fm_status open_ledger(fm_engine *e, fm_error *err)
{
    const fm_plan *plan = &e->plan.report;
    for (int32_t i = 0; i < plan->n_line; i++)
        if (fm_ledger_open(&e->ledger, plan->lines[i].name, plan->lines[i].bytes) < 0)
            return fm_fail(err, FM_E_LIMIT, "memory ledger: no line left for '%s'",
                           plan->lines[i].name);
    return FM_OK;
}

static fm_status load(fm_engine *e, const fm_engine_options *o, fm_error *err)
{
    const fm_model *m = e->model;
    FM_TRY(open_ledger(e, err));
    FM_TRY(fm_pool_create(&e->pool, e->n_thread, err));
    fm_pool_limit(e->pool, fm_os_cpu_count()); /* the pool knows neither affinity nor quota */
    FM_TRY(open_embd(e, err));
    FM_TRY(create_store(e, o, err));
    const size_t each = fm_model_pack_scratch(m);
    e->pack_scratch = malloc(each * (size_t)e->n_thread + 1);
    if (!e->pack_scratch) return fm_fail(err, FM_E_NOMEM, "no memory for loading");
    e->prepare = (fm_prepare_ctx){.model = m,
                                  .kernels = e->kernels,
                                  .pool = e->pool,
                                  .pack_scratch = e->pack_scratch,
                                  .pack_scratch_each = each};
    fm_store_set_trunk_prepare(e->store, fm_model_prepare_unit, &e->prepare);
    FM_TRY(fm_store_load_trunk(e->store, o->load_progress, o->progress_user, err));
    if (o->collect_importance) FM_TRY(fm_input_sums_create(&e->importance, m, &e->ledger, err));
    if (o->trace_path) FM_TRY(fm_route_trace_open(&e->trace, o->trace_path, m, e->name, err));
    const fm_run_options ro = {
        .model = m,
        .kernels = e->kernels,
        .pool = e->pool,
        .store = e->store,
        .read_embd = read_embd,
        .hint_embd = hint_embd,
        .read_user = e,
        .n_ctx = e->plan.report.n_ctx,
        .n_batch = e->plan.n_batch,
        .prefetch = o->prefetch,
        .importance = e->importance,
        .trace = e->trace,
    };
    FM_TRY(fm_run_create(&e->run, &ro, &e->ledger, err));
    if (e->warm_start) fm_engine_load_heat(e);
    return FM_OK;
}

/* The draft layer, where it is wanted and the model has one that can be evaluated. */
static fm_status add_draft(fm_engine *e, const fm_engine_options *o, fm_error *err)
{
    e->draft = o->draft;
    /* Neither is to see tokens that nobody asked for. */
    if (o->trace_path || o->collect_importance) {
        if (o->draft == FM_DRAFT_ON)
            return fm_fail(err, FM_E_ARG,
                           "draft: on, but no drafts are made while a %s is recorded (--draft off)",
                           o->trace_path ? "routing trace" : "sum of activations");
        e->draft = FM_DRAFT_OFF;
    }
    if (e->draft == FM_DRAFT_OFF) return FM_OK;
    fm_error why;
    const fm_status st = fm_model_add_draft(e->model, e->checkpoint, &why);
    if (st == FM_OK) return FM_OK;
    if (e->draft == FM_DRAFT_ON) {
        if (err) *err = why;
        return st;
    }
    if (st != FM_E_UNSUPPORTED) fm_engine_log(e, FM_LOG_WARN, "no drafts: %s", why.msg);
    e->draft = FM_DRAFT_OFF;
    return FM_OK;
}

/* Whether the plan that was made is one to draft with; why not, if they are demanded. A pass of two tokens needs more experts
 * than one of one, so by themselves drafts are for models most of whose experts are in memory. */
static bool can_draft(const fm_engine *e, fm_error *why)
{
    enum { SLOT_SHARE = 2 }; /* at least one of so many experts has a slot */
    const fm_plan *const p = &e->plan.report;
    if (p->n_batch < 2) {
        fm_fail(why, FM_E_ARG, "drafts need passes of two tokens, they have %d (--batch, --ctx)",
                p->n_batch);
        return false;
    }
    if (p->trunk_resident < p->trunk_units) {
        fm_fail(why, FM_E_NOMEM,
                "drafts need the whole trunk in memory: %d of its %d pieces fit (--memory, or "
                "--draft off)",
                p->trunk_resident, p->trunk_units);
        return false;
    }
    return e->draft == FM_DRAFT_ON || p->expert_slots >= p->experts_total / SLOT_SHARE;
}

/* The plan without the draft layer, whose context it keeps, and then with it where that can be. */
static fm_status make_plan(fm_engine *e, const fm_engine_options *o, fm_error *err)
{
    const bool has_draft = e->model->n_draft > 0;
    fm_model_use_draft(e->model, false);
    FM_TRY(
        fm_engine_make_plan(e, o->memory_budget, o->n_ctx, o->n_batch, o->collect_importance, err));
    if (!has_draft) return FM_OK;
    const fm_store_plan without = e->plan;
    const int32_t n_batch_asked = e->n_batch_asked;
    fm_model_use_draft(e->model, true);
    fm_error why;
    const fm_status st = fm_engine_make_plan(e, without.report.budget_bytes, without.report.n_ctx,
                                             o->n_batch, o->collect_importance, &why);
    e->plan.report.budget_given = without.report.budget_given;
    const bool drafts = st == FM_OK && can_draft(e, &why);
    if (e->draft == FM_DRAFT_ON) {
        if (drafts) return FM_OK;
        if (err) *err = why;
        return why.code;
    }
    if (drafts) {
        e->plan.report.min_memory_bytes = without.report.min_memory_bytes;
        return FM_OK;
    }
    fm_model_use_draft(e->model, false);
    e->draft = FM_DRAFT_OFF;
    e->plan = without;
    e->n_batch_asked = n_batch_asked;
    return FM_OK;
}

static fm_status pick_kernels(fm_engine *e, const fm_engine_options *o, fm_error *err)
{
    e->kernels = fm_kernels_pick(o->kernels, err);
    if (!e->kernels) return err ? err->code : FM_E_ARG;
    e->activations = o->activations;
    if (o->activations == FM_ACTIVATIONS_FULL) return FM_OK;
    const char *const name = e->kernels->name;
    e->kernels = fm_kernels_int8(e->kernels);
    if (e->kernels) return FM_OK;
    return fm_fail(
        err, FM_E_ARG,
        "activations of 8 bits: kernels \"%s\" do not round activations; expected another "
        "set of kernels",
        name);
}

fm_status fm_engine_open(fm_engine **out, const fm_engine_options *o, fm_error *err)
{
    *out = NULL;
    FM_TRY(check_options(o, err));
    const uint64_t t0 = fm_now_us();
    fm_engine *e = calloc(1, sizeof *e);
    if (!e) return fm_fail(err, FM_E_NOMEM, "no memory for the engine");
    for (int k = 0; k < FM_MAX_PLANES; k++) e->embd_fd[k] = -1;
    e->log = o->log;
    e->log_user = o->log_user;
    e->kv_type = o->kv_type;
    e->warm_start = o->warm_start;
    e->n_thread = o->n_threads ? o->n_threads : fm_os_cpu_count();
    e->path = strdup(o->model_path);

    fm_status st = e->path ? fm_checkpoint_open(&e->checkpoint, o->model_path, err)
                           : fm_fail(err, FM_E_NOMEM, "no memory for the engine");
    if (st == FM_OK) st = read_names(e, err);
    if (st == FM_OK && !o->vocab_only) {
        st = pick_kernels(e, o, err);
        if (st == FM_OK) st = fm_model_bind(&e->model, e->checkpoint, o->n_expert_used, err);
        if (st == FM_OK) st = add_draft(e, o, err);
        if (st == FM_OK) fm_model_use_kernels(e->model, e->kernels);
    }
    if (st == FM_OK)
        st = make_tokenizer(e, o->need_tokenizer || o->need_chat || o->vocab_only, err);
    if (st == FM_OK) st = fm_engine_make_chat(e, o->need_chat, err);
    if (st == FM_OK && !o->vocab_only) st = make_plan(e, o, err);
    if (st == FM_OK && !o->vocab_only) st = fm_engine_choose_io(e, o, err);
    if (st == FM_OK && !o->vocab_only && !o->plan_only) st = load(e, o, err);
    if (st != FM_OK) {
        fm_engine_close(e);
        return st;
    }
    e->load_us = fm_now_us() - t0;
    *out = e;
    return FM_OK;
}

void fm_engine_close(fm_engine *e)
{
    if (!e) return;
    fm_error err = {0};
    if (fm_engine_finish_trace(e, &err) != FM_OK) fm_engine_log(e, FM_LOG_WARN, "%s", err.msg);
    if (e->run && e->warm_start) fm_engine_save_heat(e);
    fm_run_destroy(e->run);
    fm_input_sums_destroy(e->importance);
    fm_store_destroy(e->store);
    fm_pool_destroy(e->pool);
    for (int k = 0; k < FM_MAX_PLANES; k++) fm_file_close(e->embd_fd[k]);
    free(e->pack_scratch);
    fm_tokenizer_close(e->tokenizer);
    fm_chat_form_free(e->chat);
    fm_model_free(e->model);
    fm_checkpoint_close(e->checkpoint);
    free(e->path);
    free(e);
}

/* ---- facts ------------------------------------------------------------------------------- */

static void expert_sizes(const fm_model *m, fm_model_info *out)
{
    for (int32_t i = 0; i < m->hp.n_layer; i++) {
        const fm_layer *l = &m->layers[i];
        uint64_t sum = 0;
        for (int32_t p = 0; p < l->experts.n_part; p++) {
            const uint64_t part = l->experts.part[p].bytes;
            sum += part;
            if (part > out->bytes_per_expert_read) out->bytes_per_expert_read = part;
        }
        if (sum > out->bytes_per_expert_max) out->bytes_per_expert_max = sum;
        static const fm_weight shared[] = {FM_W_SH_GATE, FM_W_SH_UP, FM_W_SH_DOWN};
        for (size_t k = 0; k < sizeof shared / sizeof *shared; k++)
            if (l->piece_of[shared[k]] >= 0)
                out->shared_expert_bytes_per_token += fm_tensor_bytes(l->tensor_of[shared[k]]);
    }
}

static uint64_t hash_number(uint64_t h, uint64_t v)
{
    unsigned char b[8];
    for (int i = 0; i < 8; i++) b[i] = (unsigned char)(v >> (8 * i));
    return fm_fnv1a(h, b, sizeof b);
}

static uint64_t hash_text(uint64_t h, const char *text, size_t n)
{
    return fm_fnv1a(hash_number(h, n), text, n);
}

uint64_t fm_engine_identity(const fm_engine *e)
{
    uint64_t h = hash_text(FM_FNV1A_INIT, e->architecture.data, e->architecture.len);
    h = hash_text(h, e->name.data, e->name.len);
    for (int32_t i = 0; i < fm_checkpoint_n_file(e->checkpoint); i++)
        h = hash_number(h, fm_checkpoint_file_bytes(e->checkpoint, i));
    const int64_t n = fm_checkpoint_n_tensor(e->checkpoint);
    for (int64_t i = 0; i < n; i++) {
        const fm_tensor_info *t = fm_checkpoint_tensor(e->checkpoint, i);
        h = hash_text(h, t->name, strlen(t->name));
        h = hash_number(hash_number(h, t->type), (uint64_t)t->n_dim);
        for (int d = 0; d < t->n_dim; d++) h = hash_number(h, (uint64_t)t->dim[d]);
        h = hash_number(hash_number(h, t->file), t->offset);
    }
    return h;
}

void fm_engine_model_info(const fm_engine *e, fm_model_info *out)
{
    memset(out, 0, sizeof *out);
    out->bos_id = e->bos_id;
    out->identity = fm_engine_identity(e);
    out->name = e->name.data;
    out->architecture = e->architecture.data;
    out->tokenizer = e->pre.data;
    out->kernels = e->kernels ? e->kernels->name : "";
    out->activations = e->activations;
    out->io_engine = e->store ? fm_store_io_name(e->store) : "";
    out->n_threads = e->n_thread;
    out->n_shard = fm_checkpoint_n_file(e->checkpoint);
    for (int32_t i = 0; i < out->n_shard; i++)
        out->file_bytes += fm_checkpoint_file_bytes(e->checkpoint, i);
    if (fm_checkpoint_directory(e->checkpoint)) out->n_shard--; /* config.json is its first file */
    const fm_model *m = e->model;
    if (!m) return;
    const fm_hparams *hp = &m->hp;
    out->n_layer = hp->n_layer;
    out->n_embd = hp->n_embd;
    out->n_vocab = hp->n_vocab;
    out->n_head = hp->n_head;
    out->n_head_kv = hp->n_head_kv;
    out->n_latent = hp->n_latent;
    out->n_latent_rot = hp->n_latent ? hp->rope.n_rot : 0;
    out->n_ctx_train = hp->n_ctx_train;
    out->n_expert = hp->n_expert;
    out->n_expert_used = hp->n_expert_used;
    out->n_expert_used_trained = m->n_expert_used_trained;
    out->n_moe_layer = m->n_moe_layer;
    out->n_full_attention_layer = m->n_attention - m->n_draft;
    out->n_linear_attention_layer = m->n_delta;
    out->n_window_layer = m->n_windowed;
    out->window = m->n_windowed ? hp->window : 0;
    out->n_draft_layer = m->n_extra_layer;
    out->uses_draft = m->n_draft > 0;
    fm_unused_tensors unused;
    fm_checkpoint_unused(e->checkpoint, &unused);
    out->n_vision_tensor = unused.n_vision;
    out->vision_bytes = unused.vision_bytes;
    out->n_draft_tensor = unused.n_draft;
    out->draft_bytes = unused.draft_bytes;
    out->n_ctx = e->plan.report.n_ctx;
    out->n_batch = e->plan.n_batch;
    out->n_param = m->n_param;
    out->n_param_active = m->n_param_active;
    out->trunk_bytes = m->trunk_bytes;
    out->expert_bytes = m->expert_bytes;
    out->io_depth = e->io_depth;
    out->io_split = e->io_split;
    out->io_origin = e->io_origin;
    out->io_measured_gb_s = e->io_measured_gb_s;
    expert_sizes(m, out);
    out->expert_bytes_per_token =
        m->expert_bytes / (uint64_t)hp->n_expert * (uint64_t)hp->n_expert_used;
    out->trunk_bytes_per_token = m->trunk_bytes;
    out->head_bytes_per_token = fm_tensor_bytes(m->head);
}

const char *fm_engine_file(const fm_engine *e, int32_t index, uint64_t *bytes)
{
    if (fm_checkpoint_directory(e->checkpoint)) index++; /* past config.json, as n_shard */
    if (bytes) *bytes = fm_checkpoint_file_bytes(e->checkpoint, index);
    return fm_checkpoint_file(e->checkpoint, index);
}

static int by_size(const void *a, const void *b)
{
    const fm_type_use *x = a, *y = b;
    const uint64_t sx = x->bytes_trunk + x->bytes_expert, sy = y->bytes_trunk + y->bytes_expert;
    return sx < sy ? 1 : sx > sy ? -1 : strcmp(x->type, y->type);
}

size_t fm_engine_type_use(const fm_engine *e, fm_type_use *rows, size_t cap)
{
    fm_type_use all[64];
    size_t n = 0;
    const int64_t n_tensor = fm_checkpoint_n_tensor(e->checkpoint);
    for (int64_t i = 0; i < n_tensor; i++) {
        const fm_tensor_info *t = fm_checkpoint_tensor(e->checkpoint, i);
        const char *name = fm_type_name(t->type);
        if (!name) name = "?";
        size_t at = 0;
        while (at < n && strcmp(all[at].type, name) != 0) at++;
        if (at == 64) continue;
        if (at == n) all[n++] = (fm_type_use){.type = name};
        all[at].n_tensor++;
        if (strstr(t->name, "_exps.weight")) {
            all[at].bytes_expert += fm_tensor_bytes(t);
        } else {
            all[at].bytes_trunk += fm_tensor_bytes(t);
        }
    }
    qsort(all, n, sizeof *all, by_size);
    for (size_t i = 0; i < n && i < cap; i++) rows[i] = all[i];
    return n;
}

void fm_engine_plan(const fm_engine *e, fm_plan *out)
{
    *out = e->plan.report;
}
const fm_tokenizer *fm_engine_tokenizer(const fm_engine *e)
{
    return e->tokenizer;
}

void fm_engine_stats(const fm_engine *e, fm_stats *out)
{
    memset(out, 0, sizeof *out);
    out->peak_rss_bytes = fm_os_peak_rss();
    out->load_us = e->load_us;
    out->prompt_us = e->prompt_us;
    out->gen_us = e->gen_us;
    out->tokens_evaluated = e->tokens_evaluated;
    out->drafts = e->drafts;
    out->drafts_right = e->drafts_right;
    if (e->store) {
        fm_store_stats s;
        fm_store_stats_get(e->store, &s);
        out->load_bytes = s.load_bytes;
        out->bytes_read = s.bytes_read;
        out->expert_hits = s.hits;
        out->expert_misses = s.misses;
        out->disk_wait_us = s.wait_us;
        out->disk_busy_us = s.busy_us;
        out->prefetch_reads = s.prefetch_reads;
        out->prefetch_used = s.prefetch_used;
        out->experts_evicted_early = s.evicted_early;
        out->experts_growing_bytes = s.growing_bytes;
        memcpy(out->layers_with_misses, s.token_misses, sizeof s.token_misses);
    }
    if (e->pool) out->sync_us = fm_pool_wait_us(e->pool);
    if (e->run) {
        fm_run_stats r;
        fm_run_stats_get(e->run, &r);
        out->expert_us = r.expert_us;
        out->attention_us = r.attention_us;
        out->head_us = r.head_us;
        out->draft_us = r.draft_us;
        out->disk_wait_us += r.embd_us;
    }
}

fm_status fm_engine_finish_trace(fm_engine *e, fm_error *err)
{
    fm_route_trace *trace = e->trace;
    e->trace = NULL;
    if (e->run) fm_run_drop_trace(e->run);
    return fm_route_trace_close(trace, err);
}

fm_status fm_engine_write_importance(const fm_engine *e, const char *path, const char *dataset,
                                     uint32_t n_chunk, uint32_t chunk_size, fm_error *err)
{
    if (!e->importance)
        return fm_fail(err, FM_E_ARG, "the engine was opened without collect_importance");
    return fm_input_sums_write(e->importance, path, dataset, n_chunk, chunk_size, err);
}

double fm_engine_weights_gb_s(fm_engine *e, int passes)
{
    uint64_t bytes = 0;
    const void *base = e->store ? fm_trunk_resident_memory(e->store, &bytes) : NULL;
    return base ? fm_probe_stream(e->pool, base, bytes, passes) : 0;
}

const char *fm_build_info(void)
{
#if defined(FM_DEBUG)
    return "debug checks";
#elif defined(FM_FAULTS)
    return "fault injection";
#else
    return "release";
#endif
}
