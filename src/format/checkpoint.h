/* A checkpoint as it lies on disk: metadata, a directory of tensors, tokenizer sources. Headers
 * only; weight bytes are never read here. Everything handed out has been validated: names unique,
 * shapes and sizes without overflow, every extent inside its file.
 *
 * A GGUF file or a Hugging Face directory: names of tensors and keys are GGUF's in both cases (the
 * adapters of hf_adapter.c translate), so that whoever binds a model need not know which it is. What GGUF
 * cannot say, a tensor that lies in several pieces or is changed when it is loaded, is in the second half of
 * fm_tensor_info. */
#pragma once

#include "base/error.h"
#include "os/file.h"

typedef struct fm_checkpoint fm_checkpoint;

enum { FM_MAX_DIMS = 4 };

/* A range of bytes of one file. */
typedef struct {
    uint64_t offset, bytes; /* the offset is absolute */
    uint16_t file;          /* index for fm_checkpoint_file() */
} fm_extent;

/* What becomes of a vector's values when they are loaded. */
typedef enum {
    FM_FIX_NONE,
    FM_FIX_ADD_ONE, /* 1 + x   */
    FM_FIX_NEG_EXP, /* -exp(x) */
} fm_tensor_fix;

/* Rows of a matrix (values of each row of a bias) that lie in n_group groups, each [part 0 | part 1 | ...] of rows[i]
 * rows. They are wanted as part 0 of all groups, part 1 of all groups, ... No part: the order is right as it is. */
typedef struct {
    int32_t n_group, n_part;
    int32_t rows[4];
} fm_row_order;

/* Where wanted row r lies, in units of `unit` rows. */
int64_t fm_stored_row(const fm_row_order *o, int64_t r, int64_t unit);

typedef struct fm_tensor_info {
    const char *name;
    uint32_t type;             /* type id (quant/); the name of unknown ones is in the error */
    int32_t n_dim;
    int64_t dim[FM_MAX_DIMS];  /* dim[0] is the contiguous one (columns); unused are 1   */
    uint16_t file;             /* index for fm_checkpoint_file()                         */
    uint64_t offset;           /* absolute in that file                                  */
    uint64_t bytes;

    /* All below is 0 in GGUF files. */
    fm_extent aux[2];      /* formats of several planes (quant/planar.h): scales, biases */
    const fm_extent *each; /* [dim[2]][planes] of experts stored one by one; file, offset and aux
                              are those of expert 0, bytes is the sum                    */
    fm_tensor_fix fix;
    fm_row_order order;
    bool by_columns; /* F32, F16, BF16: each matrix lies [dim[0]][dim[1]], its columns together */
    /* Not NULL: this tensor is the rows [row0, row0 + dim[1]) of `source`, in its order; what says where
     * bytes lie is to be taken from there. */
    const struct fm_tensor_info *source;
    int64_t row0;
} fm_tensor_info;

typedef enum {
    FM_META_UINT,   /* u8, u16, u32, u64, bool */
    FM_META_INT,    /* i8, i16, i32, i64       */
    FM_META_FLOAT,  /* f32, f64                */
    FM_META_STRING,
    FM_META_ARRAY,
} fm_meta_kind;

typedef struct {
    const char *data; /* not terminated by the format, but a NUL follows */
    size_t len;
} fm_str;

/* path: a GGUF file or the first shard NAME-00001-of-000NN.gguf (any shard is accepted and the
 * set is found from it), or a directory with config.json and safetensors files. */
fm_status fm_checkpoint_open(fm_checkpoint **out, const char *path, fm_error *err);
void fm_checkpoint_close(fm_checkpoint *c);

/* The Hugging Face directory, NULL for GGUF files. */
const char *fm_checkpoint_directory(const fm_checkpoint *c);
/* What of a directory is recognised and not used: number and bytes of tensors. */
typedef struct {
    int64_t n_vision, n_draft;
    uint64_t vision_bytes, draft_bytes;
} fm_unused_tensors;
void fm_checkpoint_unused(const fm_checkpoint *c, fm_unused_tensors *out);

int32_t fm_checkpoint_n_file(const fm_checkpoint *c);
const char *fm_checkpoint_file(const fm_checkpoint *c, int32_t file);
uint64_t fm_checkpoint_file_bytes(const fm_checkpoint *c, int32_t file);
/* As it was when its header was read: who opens it again for its weights checks that it still is. */
fm_file_mark fm_checkpoint_file_mark(const fm_checkpoint *c, int32_t file);
/* Bytes of heap the directory and metadata hold, for the ledger. */
uint64_t fm_checkpoint_memory(const fm_checkpoint *c);

/* Bytes of a tensor with all its planes. */
uint64_t fm_tensor_bytes(const fm_tensor_info *t);

int64_t fm_checkpoint_n_tensor(const fm_checkpoint *c);
const fm_tensor_info *fm_checkpoint_tensor(const fm_checkpoint *c, int64_t i);
const fm_tensor_info *fm_checkpoint_find(const fm_checkpoint *c, const char *name); /* or NULL */

/* Entries in the order of the file. */
uint32_t fm_meta_count(const fm_checkpoint *c);
const char *fm_meta_key(const fm_checkpoint *c, uint32_t i);
bool fm_meta_has(const fm_checkpoint *c, const char *key);
/* Typed gets. Missing key: FM_E_FORMAT naming the key. Wrong kind or out of range: FM_E_FORMAT with
 * found and expected. The _or forms return `fallback` only when the key is absent. */
fm_status fm_meta_u32(const fm_checkpoint *c, const char *key, uint32_t *out, fm_error *err);
fm_status fm_meta_u32_or(const fm_checkpoint *c, const char *key, uint32_t *out, uint32_t fallback,
                         fm_error *err);
fm_status fm_meta_f32(const fm_checkpoint *c, const char *key, float *out, fm_error *err);
fm_status fm_meta_bool_or(const fm_checkpoint *c, const char *key, bool *out, bool fallback,
                          fm_error *err);
fm_status fm_meta_str(const fm_checkpoint *c, const char *key, fm_str *out, fm_error *err);
fm_status fm_meta_str_or(const fm_checkpoint *c, const char *key, fm_str *out, const char *fallback,
                         fm_error *err);
/* Arrays: element kind and count, then elements. FM_E_FORMAT if absent or not an array. */
fm_status fm_meta_array(const fm_checkpoint *c, const char *key, fm_meta_kind *elem,
                        uint64_t *count, fm_error *err);
fm_status fm_meta_array_str(const fm_checkpoint *c, const char *key, uint64_t i, fm_str *out,
                            fm_error *err); /* O(1) */
fm_status fm_meta_array_int(const fm_checkpoint *c, const char *key, uint64_t i, int64_t *out,
                            fm_error *err);
/* Drops the tokenizer arrays once a tokenizer was built from them (they are tens of MB). */
void fm_checkpoint_drop_tokenizer(fm_checkpoint *c);
