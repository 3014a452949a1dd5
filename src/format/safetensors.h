/* Headers of safetensors files: u64 length, a JSON object of names, types, shapes and offsets, then the data. Nothing
 * of the data is read. Format: github.com/huggingface/safetensors. */
#pragma once

#include "format/checkpoint_internal.h"

enum { FM_RAW_DIMS = 8 };

/* Types that a header may name. */
typedef enum {
    FM_DT_F32,
    FM_DT_F16,
    FM_DT_BF16,
    FM_DT_E4M3,
    FM_DT_E8M0,
    FM_DT_U8,
    FM_DT_I32,
    FM_DT_U32,
    FM_DT_OTHER, /* known to the format, not used here */
} fm_dtype;

/* A tensor as its file has it. dim[0] is the outermost. */
typedef struct {
    const char *name;
    const char *dtype_name; /* static */
    fm_dtype dtype;
    int32_t n_dim;
    int64_t dim[FM_RAW_DIMS];
    fm_extent at;
} fm_raw_tensor;

/* All tensors of a directory. Zero-initialise. */
typedef struct {
    fm_raw_tensor *tensors;
    uint32_t n, cap;
    fm_name_index index;
    fm_string_arena names;
} fm_raw_set;

void fm_raw_set_deinit(fm_raw_set *s);
const fm_raw_tensor *fm_raw_set_find(const fm_raw_set *s, const char *name); /* or NULL */

/* Adds the tensors of the file with number `file`; *mark gets what it was. */
fm_status fm_safetensors_read(fm_raw_set *s, int32_t file, const char *path, fm_file_mark *mark,
                              fm_error *err);
/* The same from the header's JSON; data_start: where data begin in a file of file_bytes. */
fm_status fm_safetensors_parse(fm_raw_set *s, int32_t file, const char *path, const char *json,
                               size_t n, uint64_t data_start, uint64_t file_bytes, fm_error *err);
