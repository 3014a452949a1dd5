/* In which format a weight of a directory is stored. */
#pragma once

#include <jansson.h>

#include "format/safetensors.h"

/* Experts, rows, columns, in elements. */
typedef struct {
    int64_t experts, rows, columns;
    int32_t n_dim;
} fm_hf_shape;

/* The stored tensors of one weight. */
typedef struct {
    const char *path;                             /* of the codes' file, for messages */
    const json_t *quantization;                   /* of config.json, or NULL          */
    const fm_raw_tensor *codes, *scales, *biases; /* scales, biases: NULL for none    */
    bool is_conv;                                 /* its middle dimension is dropped  */
} fm_hf_stored;

/* Type id and shape, from dtypes and shapes. A tensor that the format does not have is refused by name. */
fm_status fm_hf_stored_type(const fm_hf_stored *t, uint32_t *type, fm_hf_shape *s, fm_error *err);
