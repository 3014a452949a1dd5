/* What tests with a model share: tiny model files, stored reference logits, one-call evaluation. */
#pragma once

#include "flashmoe.h"

#include "tiny/tiny_model.h"

/* A numpy array of float32 or int32, version 1 header, C order, at most two dimensions. */
typedef struct {
    void *data; /* malloc'd */
    int64_t rows, cols;
    bool is_float;
} npy_array;

/* Repository paths work from any folder: FM_SOURCE_DIR, else the current directory. Returns a static
 * buffer of which four rotate. */
const char *source_path(const char *relative);
bool npy_load(npy_array *out, const char *path);
void npy_free(npy_array *a);

/* Writes a tiny model into the test's scratch folder and returns its path (static, four rotate).
 * Fails the test on error. */
const char *tiny_file(const char *spec, const char *type, const char *fault);
const char *scratch_path(const char *name);

/* Replaces the first `from` of a file by `to`, which is as long; returns the content before, for file_restore(), which
 * frees it. Fail the test on error. */
char *file_replace(const char *path, const char *from, const char *to, size_t *n);
void file_restore(const char *path, char *before, size_t n);

typedef struct {
    uint64_t memory;
    int32_t batch, threads, ctx, experts;
    fm_kv_type kv;
    const char *io, *kernels;
} eval_setup;

/* Evaluates ids on a fresh engine and stores logits [n][n_vocab] (malloc'd). Fails the test when
 * the engine does. stats and plan may be NULL. */
float *eval_logits(const char *model, const int32_t *ids, size_t n, const eval_setup *s,
                   fm_stats *stats, fm_plan *plan);

/* The same, but returns the status and keeps the message. */
fm_status eval_logits_try(float **out, const char *model, const int32_t *ids, size_t n,
                          const eval_setup *s, fm_stats *stats, fm_plan *plan, fm_error *err);

/* fm_quantize() from a directory to a file, which is removed first, as Q8_0 on two threads; said [4096] becomes what was
 * logged, a line each. */
fm_status fixture_quantize(const char *from, const char *to, char *said, fm_error *err);
