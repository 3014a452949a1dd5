/* Files of reference logits: what `flashmoe eval --save-logits` writes and `--against` reads. The layout is
 * in docs/formats.md: a header with the ids, then the logits of each window with a checksum behind
 * them. Rows are written and read in order, one at a time. */
#pragma once

#include <stdio.h>

#include "base/error.h"

/* What was evaluated. The name and architecture are those of the model that made the file. */
typedef struct {
    int32_t n_vocab;
    int32_t n_ctx; /* tokens of a window                                         */
    int32_t step;  /* from the start of a window to that of the next             */
    int32_t first; /* position in a window whose logits are the first kept       */
    int32_t n_row; /* positions kept of a window                                 */
    int64_t n_window;
    int64_t n_id;   /* (n_window - 1) * step + n_ctx                              */
    int32_t bos_id; /* replaces the first id of every window; -1: nothing does    */
    int32_t n_expert_used;
    int32_t activations; /* fm_activations                                        */
    uint64_t identity;
    char name[128], architecture[64]; /* of the model; cut when longer */
} fm_eval_shape;

typedef struct {
    FILE *file;
    char *path, *temp_path;
    fm_eval_shape shape;
    uint64_t hash;  /* of the window so far */
    int64_t n_done; /* rows */
} fm_logits_file;

/* Bytes of a file of this shape. */
uint64_t fm_logits_file_bytes(const fm_eval_shape *shape);

/* ids [shape->n_id]. Nothing has the name `path` before the commit; FM_E_IO when the disk has too little
 * room for the file. */
fm_status fm_logits_create(fm_logits_file *f, const char *path, const fm_eval_shape *shape,
                           const int32_t *ids, fm_error *err);
fm_status fm_logits_write_row(fm_logits_file *f, const float *row, fm_error *err);
fm_status fm_logits_commit(fm_logits_file *f, fm_error *err);

/* *ids [f->shape.n_id] is malloc'd and the caller's. Everything but the rows has been checked. */
fm_status fm_logits_open(fm_logits_file *f, const char *path, int32_t **ids, fm_error *err);
/* The next row [n_vocab]. The checksum of a window is compared when its last row has been read. */
fm_status fm_logits_read_row(fm_logits_file *f, float *row, fm_error *err);

/* Closes, and takes back a file that was not committed. Zeroed is fine. */
void fm_logits_destroy(fm_logits_file *f);
