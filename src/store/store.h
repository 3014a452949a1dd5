/* The store: which bytes live where. It owns the trunk (resident, or streamed through a ring) and
 * the expert slots, and it knows nothing about mathematics: bytes go in from disk, pointers
 * come out on loan.
 *
 * Everything here is called by one thread, the one that evaluates. Statistics are plain numbers
 * read by the same thread.
 */
#pragma once

#include "base/ledger.h"
#include "format/checkpoint.h"
#include "os/io.h"

enum { FM_EXPERT_PARTS = 9, FM_SLOT_CLASSES = 16 };

/* Where the experts of one layer lie: part i of expert e is `bytes` bytes at offset + e * stride of `file`, or,
 * where experts lie one by one, at each[e * each_step] (borrowed; outlives the store). */
typedef struct {
    uint16_t file;
    uint64_t offset, stride, bytes;
    const fm_extent *each;
    int32_t each_step;
} fm_expert_part;

typedef struct {
    int32_t n_expert; /* 0: a layer without routed experts */
    int32_t n_part;
    fm_expert_part part[FM_EXPERT_PARTS];
} fm_expert_layer;

/* A piece of the trunk that is needed at one time: the tensors of a layer, or a row range of the
 * output head. Units are used in ascending order once per pass over the model. */
typedef struct {
    const fm_tensor_info *tensor; /* borrowed from the checkpoint                   */
    uint64_t offset, bytes;       /* the part of the plane, from the plane's start  */
    uint64_t room;                /* bytes it may take when prepared, at least `bytes`; 0: bytes */
    uint8_t plane;                /* 0: the tensor's own bytes; k: its aux[k - 1]    */
} fm_trunk_piece;

typedef struct {
    const fm_trunk_piece *piece;
    int32_t n_piece;
} fm_trunk_unit;

/* ---- plan -------------------------------------------------------------------------------- */

typedef struct {
    const fm_expert_layer *layer;
    int32_t n_layer;
    const fm_trunk_unit *unit;
    int32_t n_unit;
    uint64_t budget_bytes;
    /* consumers the store does not own; each is a line */
    uint64_t program_bytes;  /* code, libraries, stacks: a fixed reserve          */
    uint64_t metadata_bytes; /* checkpoint directory and tokenizer                */
    uint64_t always_bytes;   /* small trunk parts that are resident in every plan */
    uint64_t kv_bytes;       /* attention caches for n_ctx                        */
    uint64_t index_bytes;    /* keys of sparse attention's indexer for n_ctx; 0: no line */
    uint64_t state_bytes;    /* recurrent state                                   */
    uint64_t importance_bytes; /* sums over activations; 0: none are gathered     */
    uint64_t caller_bytes;     /* what the caller holds; 0: nothing               */
    bool budget_given;         /* else it is what the machine can spare           */
    /* scratch grows with the batch: fixed + per_token * n_batch. The planner shrinks n_batch in
     * steps of 64, never below min(64, n_batch), before it streams the trunk; up to 512 tokens not below
     * what a sixteenth of the budget allows. */
    uint64_t scratch_fixed_bytes, scratch_token_bytes;
    int32_t n_batch;
    int32_t n_ctx;
} fm_plan_input;

typedef struct fm_store_plan {
    fm_plan report; /* what people see                                    */
    int32_t n_batch;
    int32_t n_resident_unit; /* units [0, n) stay; the others go through the ring  */
    int32_t n_ring;          /* ring buffers, 0 when all is resident               */
    uint64_t ring_bytes_each;
    uint64_t trunk_bytes; /* resident part                                      */
    int32_t n_class;      /* slot classes: layers whose experts need equal room */
    struct {
        uint64_t slot_bytes;
        int64_t n_slot;
    } slot_class[FM_SLOT_CLASSES];
} fm_store_plan;

/* FM_E_NOMEM when nothing legal fits: the message lists every line and the smallest budget. */
fm_status fm_plan_make(fm_store_plan *out, const fm_plan_input *in, fm_error *err);

/* ---- store ------------------------------------------------------------------------------- */

typedef struct fm_store fm_store;

typedef struct {
    const char *const *path;  /* the checkpoint's files; index = fm_tensor_info.file   */
    const fm_file_mark *mark; /* as the checkpoint saw them                            */
    int32_t n_file;
    const fm_store_plan *plan;    /* made from the same layers and units                 */
    const fm_expert_layer *layer; /* copied                                              */
    int32_t n_layer;
    int32_t n_used; /* experts that a token chooses in a layer, for the policy; 0: 1     */
    const fm_trunk_unit *unit; /* copied; of tensors only the names are needed afterwards */
    int32_t n_unit;
    fm_ledger *ledger;       /* charged on the lines FM_LINE_*; outlives the store  */
    const fm_io_options *io; /* NULL: defaults; its log falls back to `log`         */
    fm_log_fn log;
    void *log_user;
} fm_store_options;

fm_status fm_store_create(fm_store **out, const fm_store_options *opt, fm_error *err);
void fm_store_destroy(fm_store *s);
const char *fm_store_io_name(const fm_store *s);

/* ---- trunk ------------------------------------------------------------------------------- */

/* Called once per unit after its bytes arrived (resident: at load; ring: at every arrival), with
 * the address of each piece; may rearrange bytes in place inside each piece's `room`, which starts at the
 * FM_IO_ALIGN-aligned address at or below ptr[i], and then say in ptr[i] where they are. */
typedef void (*fm_trunk_prepare_fn)(void *user, int32_t unit, uint8_t **ptr);
void fm_store_set_trunk_prepare(fm_store *s, fm_trunk_prepare_fn fn, void *user);

/* Reads all resident units. progress as in fm_engine_options. */
fm_status fm_store_load_trunk(fm_store *s, bool (*progress)(void *, uint64_t, uint64_t), void *user,
                              fm_error *err);

/* Addresses of the pieces of a unit, valid until fm_trunk_release(unit). Waits when streamed.
 * Streamed units may be skipped or begun again from any place; the order above is only the fast
 * one. Of them n_ring - 1 may be held at a time so that reading goes on, n_ring at most
 * (FM_E_LIMIT). */
fm_status fm_trunk_acquire(fm_store *s, int32_t unit, uint8_t *const **ptr, fm_error *err);
void fm_trunk_release(fm_store *s, int32_t unit);
/* The resident trunk as it lies in memory; *bytes may be 0. */
const void *fm_trunk_resident_memory(const fm_store *s, uint64_t *bytes);
bool fm_trunk_is_resident(const fm_store *s, int32_t unit); /* acquiring it never waits */

/* ---- experts ----------------------------------------------------------------------------- */

/* One expert on loan. part[i] points at its bytes; `fresh` says that they are as on disk and
 * the borrower may rearrange each part inside [part_base[i], part_base[i] + room) and must then
 * set part[i] and call fm_lease_prepared(); a later loan returns the rearranged bytes with
 * fresh = false. */
typedef struct {
    int32_t expert;
    int32_t index; /* position in the ids given to fm_store_demand */
    bool fresh;
    uint8_t *part[FM_EXPERT_PARTS];
    uint8_t *part_base[FM_EXPERT_PARTS]; /* FM_IO_ALIGN-aligned start of the room of the part */
    int32_t slot;                        /* internal */
} fm_expert_ref;

typedef enum {
    FM_DEMAND_TOKEN, /* one token: ids in router order                                    */
    FM_DEMAND_BATCH, /* many tokens: ids ascending; must not wash out what tokens keep hot */
} fm_demand_kind;

/* Starts a demand for n distinct experts of a layer. Reads of the missing ones are queued, in the given order, as many as
 * slots allow, and begin with the next fm_store_poll() or wait. weight[i] (may be NULL): how many
 * tokens chose expert i, for the policy. One demand at a time. */
fm_status fm_store_demand(fm_store *s, int32_t layer, const int32_t *ids, const int32_t *weight,
                          int32_t n, fm_demand_kind kind, fm_error *err);

/* The next expert that is ready: cached ones first, then misses as they land. *got = false: none is
 * ready now (only when !wait), or all were handed out, or every slot is on loan, so that nothing
 * can arrive before a loan is returned. A caller that holds no loan and waits always gets the next
 * one. A read that failed is the error; the demand must then be ended. */
fm_status fm_lease_next(fm_store *s, fm_expert_ref *out, bool wait, bool *got, fm_error *err);
int32_t fm_lease_left(const fm_store *s);  /* experts of this demand not handed out yet */
int32_t fm_lease_ready(const fm_store *s); /* of which can be had at once, as of the last look */
void fm_lease_prepared(fm_store *s, const fm_expert_ref *ref); /* part[] as the ref now says */
void fm_lease_done(fm_store *s, const fm_expert_ref *ref);     /* the bytes may go */
/* Ends the demand: waits for reads in flight, returns every loan. Also after an error or cancel. */
void fm_store_demand_end(fm_store *s);

/* Likely experts of a layer, likeliest first: read in idle time, below demand (during a demand of one token
 * when all that it waits for has arrived), into slots that nobody used since the layer's last demand;
 * dropped when the layer has passed. Ids from the last hint whose reads are not queued yet are replaced.
 * Queued by the next fm_store_poll(). kind: of the demand to come. */
void fm_store_hint(fm_store *s, int32_t layer, const int32_t *ids, int32_t n, fm_demand_kind kind);

/* Every expert of the layer is cached or on its way: hints for it have nothing to do. */
bool fm_store_holds_layer(const fm_store *s, int32_t layer);

/* How often experts were lately used, for the next session: rate [experts of all layers] uses per token,
 * 0 to 1. Before its first demand that one is seeded with it: what stays cached, and for which hints
 * something gives way, is decided by it until this session's own uses outweigh it. */
void fm_store_heat(const fm_store *s, float *rate);
void fm_store_seed(fm_store *s, const float *rate);

/* Moves reads along: to be called now and then by a thread that computes for milliseconds without
 * calling anything else here. Cheap; never waits. */
void fm_store_poll(fm_store *s);

typedef struct {
    uint64_t load_bytes; /* device bytes of fm_store_load_trunk()                   */
    uint64_t bytes_read; /* device bytes since: experts, streamed trunk, hints      */
    /* demanded experts are cached (hits), there or on their way for a hint (prefetch_used), or misses */
    uint64_t hits, misses;
    uint64_t wait_us; /* calls above stood still for a read                      */
    uint64_t busy_us; /* the device had reads                                    */
    uint64_t prefetch_reads, prefetch_used; /* experts read for hints; of which demanded */
    uint64_t evicted_early; /* slots whose expert gave way while others were free, but not touched yet */
    uint64_t growing_bytes; /* now: memory of slots that is wanted, with some ahead, and not touched yet */
    uint64_t token_misses[FM_MISS_BINS]; /* FM_DEMAND_TOKEN with i misses; the last: or more     */
} fm_store_stats;
void fm_store_stats_get(const fm_store *s, fm_store_stats *out);
