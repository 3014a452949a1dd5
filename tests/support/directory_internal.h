/* Between the files of the directory writer: directory.c writes files, directory_values.c makes tensors, and
 * directory_layers.c knows which a family has. */
#pragma once

#include "support/directory.h"

enum { DIRECTORY_NAME = 160, DIRECTORY_TENSORS = 8192 };

typedef struct {
    char name[DIRECTORY_NAME];
    const char *dtype;
    int n_dim;
    uint64_t dim[4];
    uint8_t *data;
    size_t bytes;
} stored_tensor;

typedef struct {
    const directory_options *opt;
    const tiny_spec *spec;
    const char *prefix; /* in place of "model." */
    bool mlx, quantized;
    stored_tensor *list;
    int n;
} directory_writer;

/* A name as stored from a parameter's. */
void stored_name(const directory_writer *w, char out[DIRECTORY_NAME], const char *hf);
/* A tensor of zeros of shape [d0][d1][d2]; trailing zeros are no dimensions. */
stored_tensor *add_tensor(directory_writer *w, const char *name, const char *dtype, size_t width,
                          uint64_t d0, uint64_t d1, uint64_t d2);

/* Element i, in the type of a plain parameter. */
void put_value(const directory_writer *w, stored_tensor *s, uint64_t i, float v);

/* Parameters by name, as F32 or, where the directory is quantized, as BF16 cut off. */
void add_plain(directory_writer *w, const char *hf, uint64_t d0, uint64_t d1, uint64_t d2);
void add_f32(directory_writer *w, const char *hf, uint64_t n);
/* A matrix, coded where the format does that; hf ends in ".weight". */
void add_matrix(directory_writer *w, const char *hf, uint64_t rows, uint64_t cols);

/* The format in which a parameter with rows of `cols` is stored; NULL: plain. "mlx8" stands beside MLX's mxfp4. */
const char *coding_of(const directory_writer *w, const char *hf, uint64_t cols);
/* module: as stored, without suffix. n_mat matrices [rows][cols] in one tensor; 0: a single one. hf gives the deviation. */
void add_coded(directory_writer *w, const char *module, const char *hf, uint64_t n_mat,
               uint64_t rows, uint64_t cols);
/* A part of a parameter that holds matrices [all_rows][cols]: `rows` rows from row0 on, every step-th. */
typedef struct {
    uint64_t row0, step, rows, all_rows, cols;
} row_part;
/* The part of n matrices from number `first` on as one plain tensor; n 0: two dimensions, of the matrix `first`. */
void add_rows(directory_writer *w, const char *name, const char *hf, uint64_t first, uint64_t n,
              const row_part *part);
/* The same for whole matrices, but [n][cols][rows]. */
void add_by_columns(directory_writer *w, const char *hf, uint64_t n, uint64_t rows, uint64_t cols);
/* Of every row [all] of a table of n rows the values column0, column0 + step, ...: all / step of them. */
void add_table(directory_writer *w, const char *name, const char *hf, uint64_t n, uint64_t column0,
               uint64_t step, uint64_t all);
uint64_t group_of(const directory_writer *w); /* columns of MLX's affine formats */

/* All tensors of a layer. */
void add_layer(directory_writer *w, int layer);
