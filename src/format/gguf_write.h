/* Writes GGUF v3 files front to back: metadata, then the tensor directory, then data in directory
 * order. The header is built in memory; data is streamed by the caller.
 *
 *   fm_gguf_writer_open -> fm_gguf_put_* -> fm_gguf_add_tensor* -> fm_gguf_begin_data
 *     -> fm_gguf_write (bytes of tensor 0, padding is inserted, tensor 1, ...) -> fm_gguf_writer_close
 */
#pragma once

#include "format/checkpoint.h"

typedef struct fm_gguf_writer fm_gguf_writer;

fm_status fm_gguf_writer_open(fm_gguf_writer **out, const char *path, fm_error *err);

/* Without a file, for a caller who wants only the header: fm_gguf_header after the tensors were added. `path` is for
 * messages. */
fm_status fm_gguf_writer_new(fm_gguf_writer **out, const char *path, fm_error *err);
/* Everything before the data, padded to where it starts; malloc'd, the caller frees it. */
fm_status fm_gguf_header(const fm_gguf_writer *w, unsigned char **head, size_t *n, fm_error *err);
/* Where a tensor starts in the data, and the bytes of all with their padding. */
uint64_t fm_gguf_tensor_offset(const fm_gguf_writer *w, int tensor);
uint64_t fm_gguf_data_bytes(const fm_gguf_writer *w);

/* Copies entry i of a checkpoint's metadata as it is; of a directory's, whose kinds are ours, numbers become u32 and f32
 * where they fit. */
void fm_gguf_put_meta(fm_gguf_writer *w, const fm_checkpoint *c, uint32_t i);

/* Keys and strings are copied. Out of memory is remembered and reported by fm_gguf_begin_data. */
void fm_gguf_put_u32(fm_gguf_writer *w, const char *key, uint32_t v);
void fm_gguf_put_f32(fm_gguf_writer *w, const char *key, float v);
void fm_gguf_put_bool(fm_gguf_writer *w, const char *key, bool v);
void fm_gguf_put_str(fm_gguf_writer *w, const char *key, const char *v);
void fm_gguf_put_text(fm_gguf_writer *w, const char *key, const char *v, size_t n);
void fm_gguf_put_i32_array(fm_gguf_writer *w, const char *key, const int32_t *v, size_t n);
/* Strings are asked for one by one; `get` returns a pointer that lives until its next call. */
void fm_gguf_put_str_array(fm_gguf_writer *w, const char *key, size_t n,
                           const char *(*get)(void *user, size_t i), void *user);

/* Adds a tensor of `bytes` bytes; returns its index. same_as >= 0: it has no bytes of its own but
 * those of that earlier tensor. dim[0] is the contiguous one. */
int fm_gguf_add_tensor(fm_gguf_writer *w, const char *name, uint32_t type, int n_dim,
                       const int64_t *dim, uint64_t bytes, int same_as);

fm_status fm_gguf_begin_data(fm_gguf_writer *w, fm_error *err);
/* The next n bytes; a tensor's bytes may come in any number of calls, but a call may not cross from
 * one tensor into the next. */
fm_status fm_gguf_write(fm_gguf_writer *w, const void *data, size_t n, fm_error *err);
/* Ends the file: checks that every tensor got its bytes, syncs, closes. Frees w in every case. */
fm_status fm_gguf_writer_close(fm_gguf_writer *w, fm_error *err);
uint64_t fm_gguf_written(const fm_gguf_writer *w);
