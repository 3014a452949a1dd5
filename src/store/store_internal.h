/* What the files of store/ share: store.c (life of the store, completions), store_trunk.c,
 * store_experts.c (slots), store_demand.c (demands, loans, hints) and plan.c (sizes that the plan
 * and the store must agree on). One thread uses all of it. */
#pragma once

#include "base/checked.h"
#include "os/populate.h"
#include "store/store.h"
#include "store/store_evict.h"

/* ---- sizes ------------------------------------------------------------------------------- */

/* Bookkeeping that the plan charges for one slot, and for one expert, cached or not. */
enum { FM_SLOT_META_BYTES = 192, FM_EXPERT_META_BYTES = 24, FM_STORE_PAGE = FM_LEDGER_PAGE };

static inline uint64_t fm_store_table_bytes(int64_t experts_total)
{
    /* slot number and the policy's rates per expert; a page more because two tables are rounded */
    return fm_round_up((uint64_t)experts_total * FM_EXPERT_META_BYTES, FM_STORE_PAGE) +
           FM_STORE_PAGE;
}

/* Room of one expert of the layer: its parts, each placed for direct reading. */
uint64_t fm_layer_slot_bytes(const fm_expert_layer *layer);
uint64_t fm_unit_room(const fm_trunk_unit *unit);
static inline uint64_t fm_piece_room(const fm_trunk_piece *p)
{
    return p->room > p->bytes ? p->room : p->bytes;
}
/* Where part p of an expert lies. */
static inline fm_extent fm_expert_extent(const fm_expert_part *p, int32_t expert)
{
    if (p->each) return p->each[(int64_t)expert * p->each_step];
    return (fm_extent){p->offset + p->stride * (uint64_t)expert, p->bytes, p->file};
}
/* The class whose slots hold this many bytes with the least waste; -1: none. */
int32_t fm_plan_class_of(const fm_store_plan *plan, uint64_t slot_bytes);

/* ---- trunk ------------------------------------------------------------------------------- */

typedef struct {
    uint16_t file;
    uint64_t offset, bytes, room;
} fm_piece_place;

typedef struct {
    fm_piece_place *piece; /* [n_piece], in store.piece_place */
    int32_t n_piece;
    const char *name; /* of its first tensor, borrowed */
    uint8_t **ptr;    /* [n_piece] of a resident unit, in store.piece_ptr */
} fm_unit_place;

typedef enum { FM_RING_EMPTY, FM_RING_READING, FM_RING_READY } fm_ring_state;

typedef struct {
    uint8_t *base;
    fm_ring_state state;
    int32_t unit;        /* what it holds or will hold */
    int32_t n_hold;      /* loans */
    int32_t next_piece;  /* the first one whose read was not submitted */
    int32_t pieces_left; /* not arrived */
    bool failed, unwanted, prepared;
    fm_error error;
    uint8_t **ptr; /* [most pieces of a streamed unit] */
} fm_ring_buffer;

enum { FM_RING_MAX = 3 };

/* ---- experts ----------------------------------------------------------------------------- */

typedef enum { FM_SLOT_FREE, FM_SLOT_READING, FM_SLOT_READY } fm_slot_state;

typedef struct {
    int32_t layer, expert;
    int32_t item; /* of the demand that pins this slot, -1: not pinned */
    int32_t next_free;
    uint8_t state;   /* fm_slot_state */
    uint8_t n_class; /* index of its class */
    uint8_t parts_left;
    bool failed, prepared;
    bool hinted;                    /* read for a hint and not demanded yet     */
    bool guess;                     /* its read was started by a hint           */
    uint8_t *part[FM_EXPERT_PARTS]; /* where the bytes start */
} fm_slot;

_Static_assert(sizeof(fm_slot) <= FM_SLOT_META_BYTES, "the plan charges too little for a slot");

typedef struct {
    uint8_t *base;
    uint64_t slot_bytes, bytes;
    int32_t first, n_slot; /* slots [first, first + n_slot) */
    int32_t free;          /* list */
    int32_t n_untouched;   /* the first ones are taken whether they were touched or not */
    fm_populate *populate; /* touches slots ahead of their first use; may be NULL */
    int64_t n_early;       /* experts marked FM_GAVE_WAY_EARLY */
    int32_t window;        /* reads and unclaimed arrivals of a batch at a time */
} fm_slot_class;

/* In slot_of: the expert gave way while slots were free, but not touched yet, and has not come back. */
enum { FM_GAVE_WAY_EARLY = -2 };

typedef enum {
    FM_ITEM_MISS,
    FM_ITEM_READING,
    FM_ITEM_READY,
    FM_ITEM_LENT,
    FM_ITEM_DONE
} fm_item_state;

typedef struct {
    int32_t expert, slot;
    fm_item_state state;
} fm_demand_item;

typedef struct {
    bool active, failed, ending;
    int32_t layer, n;
    fm_demand_kind kind;
    fm_demand_item *item;  /* [most experts of a layer] */
    uint64_t *last_serial; /* [most] number of the last demand for this expert id */
    uint64_t serial;
    int32_t *miss; /* items that need a read, in the order given */
    int32_t n_miss, next_miss;
    int32_t *ready; /* items in the order they became ready */
    int32_t n_hit;  /* the first entries of `ready` */
    int32_t n_ready, next_ready;
    int32_t n_reading; /* items whose bytes are on their way */
    int32_t n_lent;
    fm_error error;
} fm_demand;

typedef struct {
    int32_t layer; /* of the waiting ids */
    int32_t *id;   /* [n_max] */
    int32_t n, next;
    int32_t *slot; /* [n_max] filled or being filled for a hint, not demanded yet */
    int32_t n_slot;
    int32_t n_reading;
    int32_t most_reading; /* at a time               */
    int32_t n_max;        /* most experts of a layer */
} fm_hints;

/* ---- the store --------------------------------------------------------------------------- */

struct fm_store {
    /* set at creation */
    fm_store_plan plan;
    fm_ledger *ledger;
    int line_trunk, line_ring, line_slots;
    fm_log_fn log;
    void *log_user;
    fm_io *io;
    const fm_io_file **file; /* of the checkpoint */

    /* trunk */
    int32_t n_unit;
    fm_unit_place *unit;
    fm_piece_place *piece_place;
    uint8_t **piece_ptr;
    uint8_t *trunk_base;
    uint64_t trunk_bytes;
    fm_populate *trunk_populate; /* may be NULL */
    bool trunk_loaded;
    fm_trunk_prepare_fn prepare;
    void *prepare_user;
    uint8_t *ring_base;
    uint64_t ring_bytes;
    fm_ring_buffer ring[FM_RING_MAX];
    int32_t n_ring, ring_next_unit;
    int32_t *load_left; /* [n_resident] pieces of each unit that did not arrive yet */
    uint64_t load_done_bytes;
    bool load_failed;
    fm_error load_error;

    /* experts */
    fm_evict evict;
    int32_t n_used; /* experts that one token chooses */
    int32_t n_layer;
    fm_expert_layer *layer;
    int32_t *layer_class; /* [n_layer] */
    int64_t *layer_first; /* [n_layer] of slot_of */
    uint8_t *tables;
    uint64_t table_bytes;
    int32_t *slot_of; /* [experts] slot that holds or will hold it; below 0: none */
    fm_slot *slot;
    int32_t n_slot;
    int32_t n_class;
    fm_slot_class slot_class[FM_SLOT_CLASSES];
    fm_demand demand;
    fm_hints hints;

    fm_store_stats stats;
};

/* Tags of reads: what arrived, for fm_store_pump(). */
enum { FM_TAG_SHIFT = 56, FM_TAG_LOAD = 1, FM_TAG_RING = 2, FM_TAG_EXPERT = 3 };
static inline uint64_t fm_store_tag(unsigned kind, int32_t index)
{
    return (uint64_t)kind << FM_TAG_SHIFT | (uint32_t)index;
}

/* Memory for the store, or NULL with *err; a place for injected failures. */
void *fm_store_alloc(fm_store *s, int line, uint64_t bytes, fm_error *err);

/* Takes completions and hands them to the parts below; then starts what may start now. Counts the
 * time when it waits. False: nothing was outstanding, so there is nothing to wait for. */
bool fm_store_pump(fm_store *s, bool wait);

fm_status fm_trunk_setup(fm_store *s, const fm_store_options *opt, fm_error *err);
void fm_trunk_teardown(fm_store *s);
void fm_trunk_load_arrived(fm_store *s, int32_t unit, const fm_io_done *done);
void fm_trunk_ring_arrived(fm_store *s, int32_t buffer, const fm_io_done *done);
void fm_trunk_feed(fm_store *s); /* read-ahead of streamed units */
bool fm_trunk_is_reading(const fm_store *s); /* a streamed unit is on its way */

/* Slots (store_experts.c). */
int32_t *fm_slot_entry(fm_store *s, int32_t layer, int32_t expert);
uint8_t *fm_slot_address(const fm_store *s, int32_t slot);
void fm_slot_make_evictable(fm_store *s, int32_t slot); /* ready and not pinned */
void fm_slot_make_pinned(fm_store *s, int32_t slot);
/* A free slot of the class whose memory was touched; else that of the least worthy evictable expert that is worth
 * less than worth_below; else, for a demand (INFINITY: it may wait for nothing but this), a free slot that was not
 * touched. -1: none. */
int32_t fm_slot_take(fm_store *s, int32_t class_index, float worth_below);
bool fm_slot_can_read(const fm_store *s, int32_t layer); /* the queue has room for one expert */
/* Starts to fill a slot that fm_slot_take() gave; the caller sets item and hinted. */
void fm_slot_read(fm_store *s, int32_t slot, int32_t layer, int32_t expert, int priority);

fm_status fm_experts_setup(fm_store *s, const fm_store_options *opt, fm_error *err);
void fm_experts_teardown(fm_store *s);
void fm_experts_arrived(fm_store *s, int32_t slot, const fm_io_done *done);
void fm_experts_feed(fm_store *s); /* misses that found no slot before, then hints */
