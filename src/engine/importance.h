/* Importance of columns: mean squares of the activations that met them, from a GGUF file as llama.cpp writes them
 * (general.type "imatrix"): per matrix NAME the tensors NAME.in_sum2 [columns, matrices] and NAME.counts [1,
 * matrices], both F32. */
#pragma once

#include "flashmoe.h"

typedef struct fm_importance fm_importance;

fm_status fm_importance_open(fm_importance **out, const char *path, fm_error *err);
void fm_importance_close(fm_importance *im); /* NULL is fine */
uint64_t fm_importance_memory(const fm_importance *im);
/* Hash of everything in it. */
uint64_t fm_importance_hash(const fm_importance *im);

/* Of tensor `name`: sums [n_matrix][columns] of squares and counts [n_matrix] of what was summed, 0 for a matrix that no
 * token met. Borrowed. *found: false when the file does not know the tensor. FM_E_FORMAT when it knows it in
 * another size; one matrix stands for all. *n_found: 1 or n_matrix. */
fm_status fm_importance_find(const fm_importance *im, const char *name, int64_t columns,
                             int64_t n_matrix, const float **sums, const float **counts,
                             int64_t *n_found, bool *found, fm_error *err);
