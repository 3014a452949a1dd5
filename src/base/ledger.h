/* The ledger: every large block of memory belongs to a named line with a limit that the plan set.
 *
 * A line is opened with the bytes the plan granted; allocations charge it and fail with
 * FM_E_NOMEM when the line would be exceeded, so the sum never passes the budget. Nothing charges "program",
 * "metadata and tokenizer" and "text and results": what these hold comes from malloc(), and the plan sets it aside. Blocks are
 * anonymous page-aligned mappings (64-byte aligned within an arena). Not thread-safe: the
 * ledger is touched only while an engine or session is being set up or torn down.
 */
#pragma once

#include "base/error.h"

#define FM_LEDGER_LINES 24

/* Blocks are whole ones; also what is planned for them. */
enum { FM_LEDGER_PAGE = 4096 };

/* Names of the plan's lines, which the engine opens here with the plan's bytes before anything is taken from them. */
#define FM_LINE_PROGRAM "program"
#define FM_LINE_METADATA "metadata and tokenizer"
#define FM_LINE_TRUNK "trunk (resident)"
#define FM_LINE_RING "trunk ring"
#define FM_LINE_KV "attention cache"
#define FM_LINE_INDEX "index keys"
#define FM_LINE_STATE "recurrent state"
#define FM_LINE_SCRATCH "scratch"
#define FM_LINE_IMPORTANCE "importance sums"
#define FM_LINE_CALLER "text and results"
#define FM_LINE_SLOTS "expert slots"

typedef struct {
    char name[48];
    uint64_t limit_bytes;
    uint64_t used_bytes;
} fm_ledger_line;

typedef struct fm_ledger {
    fm_ledger_line lines[FM_LEDGER_LINES];
    int n_line;
} fm_ledger;

/* Opens a line, or sets the limit of the line that has this name. Returns its index, -1 full. */
int fm_ledger_open(fm_ledger *l, const char *name, uint64_t limit_bytes);

/* The line of this name with the limit that it has; opened with need_bytes where no plan was made. -1: full. */
int fm_ledger_line_of(fm_ledger *l, const char *name, uint64_t need_bytes);

/* Page-aligned zeroed memory, charged to `line`; NULL with *err filled when the line is full or
 * the system refuses. `huge`: ask for transparent huge pages. A child made by fork() does not have it. */
void *fm_ledger_alloc(fm_ledger *l, int line, size_t bytes, int huge, fm_error *err);
void fm_ledger_free(fm_ledger *l, int line, void *p, size_t bytes);

/* Charges memory that was allocated elsewhere (a library's); bytes may be negative. */
fm_status fm_ledger_charge(fm_ledger *l, int line, int64_t bytes, fm_error *err);

/* A bump allocator over one ledger block; working memory of a session comes from one of these. */
typedef struct {
    unsigned char *base;
    size_t size, used;
} fm_arena;

/* 64-byte aligned; NULL when the arena is full. With base == NULL only sizes are counted: `used`
 * grows, the result is NULL; so one function both measures and lays out. */
void *fm_arena_take(fm_arena *a, size_t bytes);
