/* fm_quantize(): plan, header, then tensor after tensor in pieces of rows: read, decode and encode on all threads, write. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "base/figure.h"
#include "base/hash.h"
#include "base/ledger.h"
#include "base/pool.h"
#include "engine/quantize_internal.h"
#include "format/gguf_types.h"
#include "os/facts.h"
#include "os/file.h"
#include "quant/encode.h"

enum {
    PIECE_BYTES = 32 << 20,      /* of f32 that are worked on together           */
    FINGERPRINT_BYTES = 1 << 20, /* of every file's start that tell it apart     */
    VERIFY_BYTES = 8 << 20,
};
#define MEMORY_MAX (UINT64_C(1) << 30)
#define HEADER_MAX (UINT64_C(512) << 20)

typedef struct {
    const fm_quantize_options *o;
    fm_quantize_plan plan;
    fm_quantize_types types;
    fm_importance *importance;
    unsigned char *header;
    size_t header_bytes;
    uint64_t data_bytes;
    fm_quantize_part part;
    fm_pool *pool;
    fm_ledger ledger;
    int line;
    /* one block of the ledger, cut up */
    uint8_t *block, *raw, *out;
    const void *(*plane)[FM_MAX_PLANES];
    float *row, *weight, *sums; /* [threads][2 * columns_max], [columns_max], [columns_max] */
    int64_t columns_max;
    uint64_t block_bytes;
    int64_t piece_rows_max;
    fm_row_files files;
    uint64_t resumed_bytes, source_hash;
    int64_t n_unknown; /* tensors that the importance file does not know */
} quantizer;

static void say(const quantizer *q, fm_log_level level, const char *fmt, ...) FM_PRINTF(3, 4);
static void say(const quantizer *q, fm_log_level level, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fm_log_va(q->o->log, q->o->log_user, level, fmt, args);
    va_end(args);
}

/* ---- options ----------------------------------------------------------------------------- */

static const uint32_t encodable[] = {FM_TYPE_Q8_0, FM_TYPE_Q4_0, FM_TYPE_Q4_K, FM_TYPE_Q5_K,
                                     FM_TYPE_Q6_K, FM_TYPE_Q3_K, FM_TYPE_Q2_K, FM_TYPE_MXFP4,
                                     FM_TYPE_BF16, FM_TYPE_F16,  FM_TYPE_F32};

static fm_status type_named(uint32_t *out, const char *name, const char *what, fm_error *err)
{
    char known[200] = "";
    for (size_t i = 0; i < sizeof encodable / sizeof *encodable; i++) {
        const char *one = fm_type_name(encodable[i]);
        if (strcasecmp(one, name) == 0) {
            *out = encodable[i];
            return FM_OK;
        }
        const size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", one);
    }
    return fm_fail(err, FM_E_ARG, "%s \"%.40s\": expected one of %s", what, name, known);
}

static fm_status check_options(quantizer *q, fm_error *err)
{
    const fm_quantize_options *o = q->o;
    if (o->struct_size != sizeof *o)
        return fm_fail(err, FM_E_ARG, "fm_quantize_options: size %zu, this library has %zu",
                       o->struct_size, sizeof *o);
    if (!o->source || !*o->source) return fm_fail(err, FM_E_ARG, "no source was given");
    if (!o->destination || !*o->destination)
        return fm_fail(err, FM_E_ARG, "no destination was given");
    if (!o->type) return fm_fail(err, FM_E_ARG, "no type was given");
    if (o->n_threads < 0 || o->n_threads > FM_POOL_THREADS_MAX)
        return fm_fail(err, FM_E_ARG, "threads: %d, expected 1 to %d", o->n_threads,
                       FM_POOL_THREADS_MAX);
    uint32_t all;
    FM_TRY(type_named(&all, o->type, "type", err));
    q->types = (fm_quantize_types){all, all};
    if (o->expert_type)
        FM_TRY(type_named(&q->types.expert, o->expert_type, "type of experts", err));
    if (o->trunk_type) FM_TRY(type_named(&q->types.trunk, o->trunk_type, "type of the trunk", err));
    return FM_OK;
}

/* ---- what tells a source apart ----------------------------------------------------------- */

static fm_status fingerprint(const fm_checkpoint *c, uint64_t *out, fm_error *err)
{
    uint64_t h = FM_FNV1A_INIT;
    unsigned char *buf = malloc(FINGERPRINT_BYTES);
    if (!buf) return fm_fail(err, FM_E_NOMEM, "no memory to read the source");
    fm_status st = FM_OK;
    for (int32_t i = 0; i < fm_checkpoint_n_file(c) && st == FM_OK; i++) {
        const char *path = fm_checkpoint_file(c, i);
        fm_file_facts facts = {0};
        int fd;
        (void)fm_file_facts_of(&facts, path);
        st = fm_file_open(&fd, NULL, path, err);
        if (st != FM_OK) break;
        const size_t n =
            facts.bytes < FINGERPRINT_BYTES ? (size_t)facts.bytes : (size_t)FINGERPRINT_BYTES;
        st = fm_file_read_at(fd, path, buf, n, 0, err);
        fm_file_close(fd);
        h = fm_fnv1a(h, &facts.bytes, sizeof facts.bytes);
        h = fm_fnv1a(h, &facts.mtime_ns, sizeof facts.mtime_ns);
        if (st == FM_OK) h = fm_fnv1a(h, buf, n);
    }
    free(buf);
    *out = h;
    return st;
}

/* ---- header ------------------------------------------------------------------------------ */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static fm_status fill_header(quantizer *q, fm_gguf_writer *w, fm_error *err)
{
    const fm_checkpoint *c = q->plan.source;
    const char *directory = fm_checkpoint_directory(c);
    FM_TRY(fm_quantize_put_meta(w, &q->plan, &q->types,
                                q->o->importance ? base_name(q->o->importance) : NULL, err));
    const fm_tensor_info *embd = fm_checkpoint_find(c, "token_embd.weight");
    if (directory) {
        fm_vocab_facts facts;
        fm_str pre;
        FM_TRY(fm_meta_str(c, "tokenizer.ggml.pre", &pre, err));
        FM_TRY(fm_quantize_put_vocab(w, directory, embd ? embd->dim[1] : 0, pre.data, &facts, err));
        if (facts.found && strcmp(facts.pre, pre.data) != 0)
            say(q, FM_LOG_INFO,
                "%s: its tokenizer is not the usual one of its model_type: tokenizer.ggml.pre is "
                "%s, not %s",
                directory, facts.pre, pre.data);
        if (facts.found && facts.doubt.code != FM_OK)
            say(q, FM_LOG_WARN, "tokenizer.ggml.pre is %s, but %s", facts.pre, facts.doubt.msg);
        if (!facts.found)
            say(q, FM_LOG_WARN,
                "%s: has neither tokenizer.json nor tiktoken.model, so the file gets no tokenizer "
                "(logits work, text does not)",
                directory);
        if (facts.n_more_ends > 0)
            say(q, FM_LOG_WARN,
                "%s: names %d ids that end a generation, three of which have a key; text may run "
                "past the others",
                directory, facts.n_more_ends + 3);
        if (facts.n_without_merge > 0)
            say(q, FM_LOG_INFO,
                "tiktoken.model: %d token%s made by no merge of two others; readers that go by "
                "merges "
                "never form %s",
                facts.n_without_merge, facts.n_without_merge == 1 ? " is" : "s are",
                facts.n_without_merge == 1 ? "it" : "them");
    }
    for (int64_t i = 0; i < q->plan.n_tensor; i++) {
        const fm_quantize_tensor *t = &q->plan.tensor[i];
        fm_gguf_add_tensor(w, t->name, t->type, t->n_dim, t->dim, t->bytes, -1);
    }
    FM_TRY(fm_gguf_header(w, &q->header, &q->header_bytes, err));
    if (q->header_bytes > HEADER_MAX)
        return fm_fail(err, FM_E_LIMIT, "%s: metadata of %zu bytes", q->o->source, q->header_bytes);
    q->data_bytes = fm_gguf_data_bytes(w);
    for (int64_t i = 0; i < q->plan.n_tensor; i++)
        q->plan.tensor[i].offset = fm_gguf_tensor_offset(w, (int)i);
    return FM_OK;
}

static fm_status make_header(quantizer *q, fm_error *err)
{
    fm_gguf_writer *w;
    FM_TRY(fm_gguf_writer_new(&w, q->o->destination, err));
    const fm_status st = fill_header(q, w, err);
    (void)fm_gguf_writer_close(w, NULL);
    if (st == FM_OK) memcpy(q->header, FM_GGUF_UNFINISHED, 4);
    return st;
}

/* ---- memory ------------------------------------------------------------------------------ */

static int64_t piece_rows(const fm_quantize_tensor *t)
{
    const uint64_t row = (uint64_t)t->dim[0] * sizeof(float);
    if (t->from->by_columns || t->is_transposed) return t->dim[1]; /* is read whole */
    const int64_t n = row >= PIECE_BYTES ? 1 : (int64_t)(PIECE_BYTES / row);
    return n < t->dim[1] ? n : t->dim[1];
}

static fm_status make_room(quantizer *q, fm_error *err)
{
    uint64_t raw = 0, out = 0;
    for (int64_t i = 0; i < q->plan.n_tensor; i++) {
        const fm_quantize_tensor *t = &q->plan.tensor[i];
        fm_row_source s;
        FM_TRY(fm_row_source_init(&s, q->plan.source, t, err));
        const int64_t n = piece_rows(t);
        const uint64_t in = fm_row_source_bytes(&s, n),
                       to = (uint64_t)n * fm_type_row_bytes(fm_type_get(t->type), t->dim[0]);
        raw = in > raw ? in : raw;
        out = to > out ? to : out;
        const int64_t wide = s.from_columns > t->dim[0] ? s.from_columns : t->dim[0];
        if (wide > q->columns_max) q->columns_max = wide;
        const int64_t most =
            t->is_transposed && t->dim[0] > n ? t->dim[0] : n; /* rows that are read */
        if (most > q->piece_rows_max) q->piece_rows_max = most;
    }
    const uint64_t threads = (uint64_t)fm_pool_size(q->pool), columns = (uint64_t)q->columns_max;
    if (out < VERIFY_BYTES) out = VERIFY_BYTES;
    fm_arena a = {0};
    for (int pass = 0; pass < 2; pass++) {
        q->raw = fm_arena_take(&a, raw + 64);
        q->out = fm_arena_take(&a, out + 64);
        q->plane = fm_arena_take(&a, (size_t)q->piece_rows_max * sizeof *q->plane);
        q->row = fm_arena_take(&a, threads * 2 * columns * sizeof(float));
        q->weight = fm_arena_take(&a, columns * sizeof(float));
        q->sums = fm_arena_take(&a, columns * sizeof(float));
        if (pass == 1) break;
        q->block_bytes = a.used + 4096;
        const uint64_t held = fm_checkpoint_memory(q->plan.source) + q->header_bytes +
                              (q->importance ? fm_importance_memory(q->importance) : 0);
        q->line = fm_ledger_open(&q->ledger, "quantize", MEMORY_MAX);
        FM_TRY(fm_ledger_charge(&q->ledger, q->line, (int64_t)held, err));
        q->block = fm_ledger_alloc(&q->ledger, q->line, q->block_bytes, 0, err);
        if (!q->block) return FM_E_NOMEM;
        a = (fm_arena){.base = q->block, .size = q->block_bytes};
    }
    return FM_OK;
}

/* ---- one piece --------------------------------------------------------------------------- */

typedef struct {
    quantizer *q;
    const fm_row_source *s;
    const float *weight; /* NULL: all alike */
    int64_t n;
    uint64_t row_bytes;
    int64_t bad_row; /* first that cannot be encoded, and why; guarded by nothing: any will do */
    fm_encode_status why;
} piece;

enum { ROWS_PER_ITEM = 4 };

static void encode_item(void *ctx, int64_t item, int thread)
{
    piece *p = ctx;
    const int64_t columns = p->s->columns;
    const int64_t wide = p->q->columns_max;
    float *const x = p->q->row + (int64_t)thread * 2 * wide;
    for (int64_t i = item * ROWS_PER_ITEM; i < (item + 1) * ROWS_PER_ITEM && i < p->n; i++) {
        fm_row_source_decode(p->s, x, p->q->plane[i], x + wide);
        const fm_encode_status st =
            fm_encode(p->s->t->type, p->q->out + (uint64_t)i * p->row_bytes, x, p->weight, columns);
        if (st == FM_ENCODE_OK) continue;
        __atomic_store_n(&p->why, st, __ATOMIC_RELAXED);
        __atomic_store_n(&p->bad_row, i, __ATOMIC_RELAXED);
    }
}

/* What the importance file knows of a tensor, under its own name or that of the fused one it comes from. */
static fm_status find_importance(const quantizer *q, const fm_quantize_tensor *t,
                                 fm_importance_place *at, fm_error *err)
{
    *at = (fm_importance_place){0};
    if (!q->importance) return FM_OK;
    FM_TRY(fm_importance_find(q->importance, t->name, t->dim[0], t->dim[2], at, err));
    if (at->n_matrix > 0 || t->is_transposed || strcmp(t->name, t->from->name) == 0) return FM_OK;
    return fm_importance_find(q->importance, t->from->name, t->dim[0], t->dim[2], at, err);
}

/* Weights of the columns of matrix m; NULL when nothing is known of it. */
static fm_status weights_of(quantizer *q, const fm_row_source *s, int64_t m, const float **weight,
                            bool *known, fm_error *err)
{
    const fm_quantize_tensor *t = s->t;
    fm_importance_place at;
    float count;
    *weight = NULL;
    *known = true;
    if (!q->importance || t->is_copy || fm_type_get(t->type)->block_elems == 1) return FM_OK;
    FM_TRY(find_importance(q, t, &at, err));
    *known = at.n_matrix > 0;
    if (!*known) return FM_OK;
    FM_TRY(fm_importance_read(q->importance, &at, m, q->sums, &count, err));
    if (!(count > 0)) return FM_OK;
    double sum = 0;
    for (int64_t c = 0; c < t->dim[0]; c++) sum += (double)q->sums[c];
    if (!(sum > 0)) return FM_OK;
    /* A column that met nothing in the sample may still meet something: a thousandth of the mean. */
    const double mean = sum / (double)t->dim[0];
    for (int64_t c = 0; c < t->dim[0]; c++)
        q->weight[c] = (float)((double)q->sums[fm_row_source_column(s, c)] / mean + 0.001);
    *weight = q->weight;
    return FM_OK;
}

static fm_status report(quantizer *q, fm_quantize_phase phase, uint64_t done, fm_error *err)
{
    const fm_quantize_options *o = q->o;
    if (!o->progress || o->progress(o->progress_user, phase, done, q->data_bytes,
                                    phase == FM_QUANTIZE_WRITE ? q->resumed_bytes : 0))
        return FM_OK;
    return fm_fail(err, FM_E_CANCELLED, "%s: stopped; the same command goes on from here",
                   q->part.part_path);
}

static fm_status do_piece(quantizer *q, const fm_row_source *s, int64_t m, int64_t row, int64_t n,
                          const float *weight, fm_error *err)
{
    const fm_quantize_tensor *t = s->t;
    piece p = {.q = q,
               .s = s,
               .weight = weight,
               .n = n,
               .row_bytes = t->bytes / (uint64_t)(t->dim[1] * t->dim[2]),
               .bad_row = -1};
    FM_TRY(fm_row_source_read(s, q->plan.source, &q->files, m, row, n, q->raw, q->plane, err));
    if (t->is_copy) {
        memcpy(q->out, q->raw, (size_t)((uint64_t)n * p.row_bytes));
        return FM_OK;
    }
    fm_pool_run(q->pool, encode_item, &p, (n + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM);
    if (p.bad_row < 0) return FM_OK;
    char of[48] = "";
    if (t->dim[2] > 1)
        snprintf(of, sizeof of, " of %s %" PRId64, t->head_rows ? "head" : "expert", m);
    return fm_fail(err, FM_E_FORMAT, "%s: tensor %s, row %" PRId64 "%s holds a number that %s %s",
                   fm_checkpoint_file(q->plan.source, t->from->file), t->name, row + p.bad_row, of,
                   p.why == FM_ENCODE_NOT_FINITE ? "is not finite, so it cannot become"
                                                 : "is too large for",
                   fm_type_name(t->type));
}

static fm_status do_tensor(quantizer *q, int64_t i, fm_error *err)
{
    const fm_quantize_tensor *t = &q->plan.tensor[i];
    fm_row_source s;
    FM_TRY(fm_row_source_init(&s, q->plan.source, t, err));
    const uint64_t row_bytes = t->bytes / (uint64_t)(t->dim[1] * t->dim[2]);
    uint64_t done = q->part.at_bytes, hash = q->part.at_hash;
    if (done % row_bytes != 0 || done >= t->bytes + row_bytes)
        return fm_fail(err, FM_E_FORMAT, "%s: says %" PRIu64 " bytes of %s", q->part.journal_path,
                       done, t->name);
    bool is_known = true;
    for (int64_t at = (int64_t)(done / row_bytes), next; at < t->dim[1] * t->dim[2]; at = next) {
        const int64_t m = at / t->dim[1], row = at % t->dim[1];
        int64_t n = piece_rows(t);
        if (n > t->dim[1] - row) n = t->dim[1] - row;
        next = at + n;
        const float *weight;
        FM_TRY(weights_of(q, &s, m, &weight, &is_known, err));
        FM_TRY(do_piece(q, &s, m, row, n, weight, err));
        const size_t bytes = (size_t)((uint64_t)n * row_bytes);
        FM_TRY(fm_part_write(&q->part, q->out, bytes, q->header_bytes + t->offset + done, err));
        hash = fm_fnv1a(hash, q->out, bytes);
        done += bytes;
        const fm_status going_on = report(q, FM_QUANTIZE_WRITE, t->offset + done, err);
        FM_TRY(fm_part_progress(&q->part, done, hash, going_on != FM_OK, going_on ? NULL : err));
        FM_TRY(going_on);
    }
    q->n_unknown += !is_known;
    return fm_part_finish_tensor(&q->part, hash, err);
}

/* ---- all --------------------------------------------------------------------------------- */

/* Reads everything back from the device and compares it with what was written. */
static fm_status verify(quantizer *q, fm_error *err)
{
    fm_quantize_part *p = &q->part;
    FM_TRY(fm_file_sync(p->part_fd, p->part_path, err));
    fm_file_forget_cached(p->part_fd);
    for (uint64_t at = 0; at < q->header_bytes;) {
        size_t n = q->header_bytes - at < VERIFY_BYTES ? (size_t)(q->header_bytes - at)
                                                       : (size_t)VERIFY_BYTES;
        FM_TRY(fm_file_read_at(p->part_fd, p->part_path, q->out, n, at, err));
        /* A run that was killed between magic and name has the magic already. */
        if (at == 0) memcpy(q->out, q->header, 4);
        if (memcmp(q->out, q->header + at, n) != 0)
            return fm_fail(err, FM_E_IO,
                           "%s: the header reads back other than it was written; remove it and %s",
                           p->part_path, p->journal_path);
        at += n;
    }
    for (int64_t i = 0; i < q->plan.n_tensor; i++) {
        const fm_quantize_tensor *t = &q->plan.tensor[i];
        uint64_t hash = FM_FNV1A_INIT;
        for (uint64_t done = 0; done < t->bytes;) {
            const size_t n =
                t->bytes - done < VERIFY_BYTES ? (size_t)(t->bytes - done) : (size_t)VERIFY_BYTES;
            FM_TRY(fm_file_read_at(p->part_fd, p->part_path, q->out, n,
                                   q->header_bytes + t->offset + done, err));
            hash = fm_fnv1a(hash, q->out, n);
            done += n;
            FM_TRY(report(q, FM_QUANTIZE_VERIFY, t->offset + done, err));
        }
        if (hash != p->hash[i])
            return fm_fail(err, FM_E_IO,
                           "%s: tensor %s reads back other than it was written; remove it and %s",
                           p->part_path, t->name, p->journal_path);
    }
    return FM_OK;
}

/* Headers and places were read when all began, the weights for hours since: of two sources that would be half of each. */
static fm_status check_source(const quantizer *q, fm_error *err)
{
    uint64_t now;
    if (q->importance) FM_TRY(fm_importance_check(q->importance, err));
    FM_TRY(fingerprint(q->plan.source, &now, err));
    if (now == q->source_hash) return FM_OK;
    return fm_fail(err, FM_E_IO,
                   "%s: changed while it was read (size, time or header of a file), so what was "
                   "written is of no use; remove %s and %s to begin anew",
                   q->o->source, q->part.part_path, q->part.journal_path);
}

static fm_status open_part(quantizer *q, fm_error *err)
{
    char options[1024];
    FM_TRY(fingerprint(q->plan.source, &q->source_hash, err));
    snprintf(options, sizeof options, "experts %s, trunk %s%s%.400s", fm_type_name(q->types.expert),
             fm_type_name(q->types.trunk), q->importance ? ", importance " : "",
             q->importance ? base_name(q->o->importance) : "");
    const fm_part_identity id = {options, q->source_hash,
                                 q->importance ? fm_importance_hash(q->importance) : 0,
                                 fm_fnv1a(FM_FNV1A_INIT, q->header, q->header_bytes)};
    const uint64_t total = q->header_bytes + q->data_bytes;
    FM_TRY(fm_part_open(&q->part, q->o->destination, &id, q->plan.n_tensor, total, err));
    if (q->part.was_complete) return FM_OK;
    const fm_quantize_part *p = &q->part;
    if (p->at_tensor > 0 || p->at_bytes > 0) {
        q->resumed_bytes = p->at_tensor < q->plan.n_tensor
                               ? q->plan.tensor[p->at_tensor].offset + p->at_bytes
                               : q->data_bytes;
        char a[FM_FIGURE], b[FM_FIGURE];
        say(q, FM_LOG_INFO, "going on with %s: %s of %s are there", p->part_path,
            fm_figure_bytes(a, q->resumed_bytes), fm_figure_bytes(b, q->data_bytes));
    }
    return fm_part_write(&q->part, q->header, q->header_bytes, 0, err);
}

static void say_what(const quantizer *q, const fm_unused_tensors *unused)
{
    const fm_quantize_plan *p = &q->plan;
    if (p->n_draft + unused->n_draft > 0)
        say(q, FM_LOG_INFO, "left out: %" PRId64 " tensors of draft layers (MTP)",
            p->n_draft + unused->n_draft);
    if (unused->n_vision > 0)
        say(q, FM_LOG_INFO, "left out: %" PRId64 " tensors of the vision part", unused->n_vision);
    for (int64_t i = 0, n = 0; i < p->n_tensor; i++) {
        const fm_quantize_tensor *t = &p->tensor[i];
        if (!t->is_fallback) continue;
        if (++n <= 3 || p->n_fallback <= 4)
            say(q, FM_LOG_INFO, "%s has rows of %" PRId64 ", no multiple of the block: %s", t->name,
                t->dim[0], fm_type_name(t->type));
        if (n == 4 && p->n_fallback > 4)
            say(q, FM_LOG_INFO, "and so for %" PRId64 " more", p->n_fallback - 3);
    }
}

static fm_status quantize(quantizer *q, fm_quantize_result *result, fm_error *err)
{
    const fm_quantize_options *o = q->o;
    FM_TRY(check_options(q, err));
    FM_TRY(fm_checkpoint_open(&q->plan.source, o->source, err));
    FM_TRY(fm_quantize_make_plan(&q->plan, &q->types, err));
    if (o->importance) FM_TRY(fm_importance_open(&q->importance, o->importance, err));
    for (int64_t i = 0; i < q->plan.n_tensor; i++) { /* wrong sizes before any work */
        fm_importance_place at;
        FM_TRY(find_importance(q, &q->plan.tensor[i], &at, err));
    }
    FM_TRY(make_header(q, err));
    FM_TRY(fm_pool_create(&q->pool, fm_pool_threads(o->n_threads, fm_os_cpu_count()), err));
    fm_pool_limit(q->pool, fm_os_cpu_count());
    FM_TRY(make_room(q, err));
    FM_TRY(open_part(q, err));
    fm_unused_tensors unused = {0};
    fm_checkpoint_unused(q->plan.source, &unused);
    if (!q->part.was_complete) {
        say_what(q, &unused);
        for (int64_t i = q->part.at_tensor; i < q->plan.n_tensor; i++) {
            const fm_status st = do_tensor(q, i, err);
            if (st != FM_OK) fm_part_keep(&q->part);
            if (st == FM_E_IO)
                fm_fail_context(err, "the same command goes on from what reached the disk");
            FM_TRY(st);
        }
        if (q->n_unknown > 0)
            say(q, FM_LOG_WARN, "%s: knows nothing of %" PRId64 " tensors",
                base_name(o->importance), q->n_unknown);
        FM_TRY(check_source(q, err));
        FM_TRY(verify(q, err));
    }
    FM_TRY(fm_part_rename(&q->part, err));
    if (result) {
        *result = (fm_quantize_result){.source_bytes = q->plan.source_bytes,
                                       .destination_bytes = q->header_bytes + q->data_bytes,
                                       .resumed_bytes = q->resumed_bytes,
                                       .peak_rss_bytes = fm_os_peak_rss(),
                                       .n_tensor = q->plan.n_tensor,
                                       .n_copied = q->plan.n_copied,
                                       .n_fallback = q->plan.n_fallback,
                                       .n_draft = q->plan.n_draft + unused.n_draft,
                                       .n_vision = unused.n_vision};
    }
    return FM_OK;
}

fm_status fm_quantize(const fm_quantize_options *o, fm_quantize_result *result, fm_error *err)
{
    quantizer q = {.o = o, .part = {.part_fd = -1, .journal_fd = -1}};
    for (int k = 0; k < FM_MAX_PLANES; k++) q.files.fd[k] = -1;
    const fm_status st = quantize(&q, result, err);
    for (int k = 0; k < FM_MAX_PLANES; k++) fm_file_close(q.files.fd[k]);
    fm_part_close(&q.part);
    if (q.block) fm_ledger_free(&q.ledger, q.line, q.block, q.block_bytes);
    fm_pool_destroy(q.pool);
    fm_importance_close(q.importance);
    free(q.header);
    fm_quantize_free_plan(&q.plan);
    return st;
}
