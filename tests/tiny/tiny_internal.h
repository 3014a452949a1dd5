/* Shared by the files of the tiny model generator; tests include tiny_model.h. */
#pragma once

#include "tiny_model.h"

typedef enum {
    TINY_F32,
    TINY_Q8_0,
    TINY_Q4_K,
    TINY_Q6_K,
    TINY_MXFP4,
    TINY_IQ, /* any of the IQ types whose block begins with its f16 scale, and Q5_0 */
    TINY_IQ1_M,
    TINY_OFFSET, /* Q4_1, Q5_1: scale and least value, both f16                 */
    TINY_IQ_MIX, /* no type of a tensor: see tiny_format_of                   */
} tiny_type;

typedef struct {
    const char *name;
    tiny_type type;
    uint32_t gguf_id;
    uint32_t file_type; /* general.file_type */
    int block_elems;
    int block_bytes;
    double rms; /* root mean square of value / scale over random bits, for TINY_OFFSET about its mean;
                   0 where the code has it */
} tiny_format;

/* Where row r of a GGUF tensor comes from in the Hugging Face parameter. */
typedef enum {
    TINY_ROW_SAME,
    TINY_ROW_GATE,       /* first half of each expert's gate_up rows          */
    TINY_ROW_UP,         /* second half                                       */
    TINY_ROW_QKV_TILED,  /* q and k rows stay, value heads grouped -> tiled   */
    TINY_ROW_HEAD_TILED, /* value heads of state_dim rows, grouped -> tiled   */
    TINY_ROW_ONE_TILED,  /* one row per value head, grouped -> tiled          */
    TINY_ROW_QKV_SPLIT,  /* q, k, v picked out of the per-key-head qkvz rows  */
    TINY_ROW_Z_SPLIT,    /* z picked out of them                              */
    TINY_ROW_EVEN,       /* rows 0, 2, ... of each expert's gate_up rows      */
    TINY_ROW_ODD,        /* rows 1, 3, ...                                    */
} tiny_row_map;

typedef enum {
    TINY_COL_SAME,
    TINY_COL_HEAD_TILED, /* value heads of state_dim columns, grouped -> tiled */
    TINY_COL_REVERSED,   /* fault */
    TINY_COL_EVEN,       /* columns 0, 2, ... of rows twice as long */
    TINY_COL_ODD,
} tiny_col_map;

typedef enum {
    TINY_KEEP,
    TINY_ONE_PLUS,  /* 1 + w                     */
    TINY_NEG_EXP,   /* -exp(w)                   */
    TINY_ZERO,      /* fault: 0                  */
    TINY_STRONGER,  /* fault: -1.5 exp(w)        */
    TINY_PLUS_HALF, /* fault: w + 0.5            */
} tiny_effect;

/* One tensor of the file and the recipe for its rows. */
typedef struct {
    char name[48]; /* in the GGUF file                                      */
    char hf[80];   /* Hugging Face parameter that the values are keyed with */
    const tiny_format *format;
    int n_dims;
    uint64_t dims[3]; /* GGUF order, dims[0] contiguous */
    tiny_row_map rows;
    tiny_col_map cols;
    tiny_effect effect;
    uint64_t swap_a, swap_b, swap_len; /* fault: GGUF rows a.. and b.. change places */
    bool is_expert;
    int layer; /* -1 for the global tensors */

    /* set by the writer */
    int shard;
    bool is_alias; /* its bytes are those of an earlier tensor */
    uint64_t size, offset;
} tiny_tensor;

typedef struct {
    const tiny_spec *spec;
    const tiny_format *format;
    tiny_tensor *tensors; /* owned */
    size_t n, cap;
    bool is_out_of_memory;
    double eps, rope_base; /* as written, faults included */
    const char *fault;     /* "" for none */
} tiny_plan;

/* tiny_random.c */
const tiny_format *tiny_format_find(const char *name);
/* The type that a file of type `wanted` gives the parameter hf; "IQ" deals out its types. */
const tiny_format *tiny_format_of(const tiny_format *wanted, const tiny_spec *spec, const char *hf);
const tiny_format *tiny_format_fit(const tiny_format *wanted, uint64_t n_col);
/* What the matrices that are no routed experts have in a file of type `wanted`. */
const tiny_format *tiny_trunk_format(const tiny_format *wanted);
/* Row r of t, in file form, into dst (row bytes of the format). */
void tiny_fill_row(uint8_t *dst, const tiny_plan *plan, const tiny_tensor *t, uint64_t row);

/* tiny_spec.c: fills plan->tensors; 0, or -1 when out of memory. */
int tiny_plan_tensors(tiny_plan *plan);

bool tiny_has_fault(const tiny_plan *plan, const char *fault);
/* Appends a tensor of layer `layer` (-1: global); hf: what follows the layer, or from "mtp." on all. n_row 0 makes a vector; n_expert 0 a matrix.
 * Always returns something to write to, so that callers need no checks; out of memory is
 * remembered in the plan. */
tiny_tensor *tiny_add(tiny_plan *plan, int layer, const char *name, const char *hf, uint64_t n_col,
                      uint64_t n_row, uint64_t n_expert);
/* A matrix in the type of the file, as far as its row length allows. */
tiny_tensor *tiny_add_linear(tiny_plan *plan, int layer, const char *name, const char *hf,
                             uint64_t n_col, uint64_t n_row);
/* A norm vector: zero-centred in the two families with DeltaNet, so the file holds 1 + w. */
tiny_tensor *tiny_add_norm(tiny_plan *plan, int layer, const char *name, const char *hf,
                           uint64_t n);
void tiny_flip_norm(tiny_tensor *t); /* fault: the other of w and 1 + w */

/* tiny_glm_gptoss.c: the tensors of one layer. */
void tiny_add_glm4moe_layer(tiny_plan *plan, int layer);
/* Of glm4moe and deepseek2: dense block or experts with their router. */
void tiny_add_feed_forward(tiny_plan *plan, int layer);
/* What a draft layer has besides, in every family. */
void tiny_add_draft_ends(tiny_plan *plan, int layer);
/* tiny_deepseek.c */
void tiny_add_deepseek_layer(tiny_plan *plan, int layer);
void tiny_add_gptoss_layer(tiny_plan *plan, int layer);
