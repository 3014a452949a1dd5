/* Importance of columns: mean squares of the activations that met them, from a GGUF file as llama.cpp writes them
 * (general.type "imatrix"): per matrix NAME the tensors NAME.in_sum2 [columns, matrices] and NAME.counts [1,
 * matrices], both F32. Of models with many experts such a file has more than a gigabyte, so sums stay on the disk. */
#pragma once

#include "flashmoe.h"

typedef struct fm_importance fm_importance;

/* Reads all of the file once, for the hash and to check every number. */
fm_status fm_importance_open(fm_importance **out, const char *path, fm_error *err);
void fm_importance_close(fm_importance *im); /* NULL is fine */
uint64_t fm_importance_memory(const fm_importance *im);
/* Fails where it was written to since. */
fm_status fm_importance_check(const fm_importance *im, fm_error *err);
/* Hash of everything in it. */
uint64_t fm_importance_hash(const fm_importance *im);

/* What is known of one tensor of the model. */
typedef struct {
    int64_t columns;
    int64_t n_matrix;      /* the model's tensor's, or 1, which stands for all; 0: nothing is known */
    uint64_t sums, counts; /* where they lie in the file */
} fm_importance_place;

/* Of tensor `name` with this many columns and matrices. FM_E_FORMAT when the file knows it in another size. */
fm_status fm_importance_find(const fm_importance *im, const char *name, int64_t columns,
                             int64_t n_matrix, fm_importance_place *out, fm_error *err);
/* Of its matrix m: sums [columns] of squares, and the count of what was summed, 0 for a matrix that no token met. */
fm_status fm_importance_read(const fm_importance *im, const fm_importance_place *at, int64_t m,
                             float *sums, float *count, fm_error *err);
