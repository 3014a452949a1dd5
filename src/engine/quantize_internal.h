/* Inside fm_quantize(): what is written (quantize_plan.c), where its values come from (quantize_rows.c), the metadata
 * (quantize_meta.c, quantize_vocab.c, quantize_tokens.c, quantize_pre.c), importance (importance.c), and the unfinished
 * file (quantize_part.c). */
#pragma once

#include "engine/importance.h"
#include "flashmoe.h"
#include "format/checkpoint.h"
#include "format/gguf_write.h"
#include "quant/planar.h"
#include "text/tiktoken.h"

/* Value heads of linear attention that are stored grouped by key head and written tiled: head t of the destination is
 * head (t % n_key) * (n_value / n_key) + t / n_key of the source. */
typedef enum { FM_HEADS_AS_THEY_ARE, FM_HEADS_IN_ROWS, FM_HEADS_IN_COLUMNS } fm_head_axis;

typedef struct {
    char *name;                 /* owned */
    const fm_tensor_info *from; /* of the source */
    uint32_t type;
    bool is_copy;     /* the source's bytes as they are */
    bool is_fallback; /* the rows do not fit the type that was asked for */
    int n_dim;
    int64_t dim[FM_MAX_DIMS]; /* as written */
    int64_t row0, column0;    /* first one of the source (a half of gate_up, of its biases) */
    fm_head_axis axis;
    int64_t first, unit; /* heads start at this row or column and have `unit` each */
    int64_t n_key, n_value;
    /* Heads of one matrix that become matrices of their own: matrix h begins at row h * head_rows + row0. 0: none. */
    int64_t head_rows;
    bool is_transposed;     /* and its columns are rows of the source */
    uint64_t bytes, offset; /* offset in the data of the destination */
} fm_quantize_tensor;

typedef struct {
    fm_checkpoint *source;
    fm_quantize_tensor *tensor;
    int64_t n_tensor, n_draft, n_fallback, n_copied;
    uint32_t n_layer; /* without drafting ones */
    bool tiles_heads;
    int64_t n_latent, n_rot; /* of latent attention whose heads are split, else 0 */
    uint64_t source_bytes;   /* of the tensors that are written */
} fm_quantize_plan;

typedef struct {
    uint32_t expert, trunk; /* type ids */
} fm_quantize_types;

/* quantize_plan.c */
fm_status fm_quantize_make_plan(fm_quantize_plan *p, const fm_quantize_types *types, fm_error *err);
void fm_quantize_free_plan(fm_quantize_plan *p);

/* quantize_meta.c: metadata of the destination. importance: base name of that file or NULL. */
fm_status fm_quantize_put_meta(fm_gguf_writer *w, const fm_quantize_plan *p,
                               const fm_quantize_types *types, const char *importance,
                               fm_error *err);
/* quantize_vocab.c: tokenizer and chat template of a directory. */
typedef struct {
    bool found; /* it has a tokenizer */
    int32_t n_without_merge;
    int n_more_ends; /* ids that end a generation and have no key in the format */
    const char *pre; /* tokenizer.ggml.pre */
    fm_error doubt;  /* code not FM_OK: why that may not be right */
} fm_vocab_facts;
/* pre: what goes with the model_type. */
fm_status fm_quantize_put_vocab(fm_gguf_writer *w, const char *directory, int64_t n_vocab,
                                const char *pre, fm_vocab_facts *facts, fm_error *err);
/* A file of a directory, with a zero behind; *data NULL when there is none, else the caller frees it. */
fm_status fm_quantize_read_text(char **data, size_t *n, const char *directory, const char *name,
                                fm_error *err);
/* A JSON file of a directory; *root NULL when there is no such file. */
struct json_t;
fm_status fm_quantize_load_json(struct json_t **root, const char *directory, const char *name,
                                fm_error *err);

/* quantize_tokens.c: what a directory's tokenizer.json, else its tiktoken.model, has for the n ids of the embedding. */
typedef struct {
    int64_t n;
    const char **token; /* [n], NULL: no token has this id */
    int32_t *kind;      /* [n] FM_TOKEN_... */
    char (*filler)[24]; /* [n] */
    size_t n_merge;
    int32_t n_without_merge; /* tokens of tiktoken.model that no merge makes */
    /* where tokens and merges lie */
    struct json_t *root;
    const struct json_t *merges;
    fm_tiktoken tiktoken;
    fm_token_pair *pairs;
    char *spelled; /* tokens of tiktoken.model in the byte alphabet */
    char *joined;  /* room for a merge */
    size_t joined_bytes;
} fm_vocabulary;
/* v->n is given, the rest zeros. Without a tokenizer v->token stays NULL. Free it after errors too. */
fm_status fm_vocabulary_read(fm_vocabulary *v, const char *directory, fm_error *err);
void fm_vocabulary_free(fm_vocabulary *v);
/* Merge number i, "left right", until the next call. */
const char *fm_vocabulary_merge(void *vocabulary, size_t i);

/* quantize_pre.c: the value of tokenizer.ggml.pre with which the written vocabulary gives the ids that the directory gives: `hint`,
 * or another; FM_E_UNSUPPORTED when there is none. *doubt: it is the nearest, or the directory's tokenizer could not be asked. */
fm_status fm_quantize_find_pre(const char **pre, fm_vocabulary *v, const char *directory,
                               const char *hint, fm_error *doubt, fm_error *err);

/* quantize_rows.c: where the values of one tensor's rows lie. */
typedef struct {
    int fd[FM_MAX_PLANES];
    int32_t file[FM_MAX_PLANES];
} fm_row_files;

typedef struct {
    const fm_quantize_tensor *t;
    const fm_tensor_info *from; /* t->from, or what it is a view of */
    const fm_type_traits *type;
    int64_t columns, rows; /* of one matrix as written */
    int64_t from_columns;  /* of a row that is read */
    uint64_t row_bytes[FM_MAX_PLANES];
} fm_row_source;

fm_status fm_row_source_init(fm_row_source *s, const fm_checkpoint *c, const fm_quantize_tensor *t,
                             fm_error *err);
/* Bytes of buffer that n rows of a matrix need. */
uint64_t fm_row_source_bytes(const fm_row_source *s, int64_t n);
/* Reads rows [row, row + n) of matrix `matrix` into buf; plane[n][FM_MAX_PLANES] gets where each row's planes lie. */
fm_status fm_row_source_read(const fm_row_source *s, const fm_checkpoint *c, fm_row_files *files,
                             int64_t matrix, int64_t row, int64_t n, uint8_t *buf,
                             const void *(*plane)[FM_MAX_PLANES], fm_error *err);
/* Column of the source that column `at` of the destination is. */
int64_t fm_row_source_column(const fm_row_source *s, int64_t at);
/* One row to f32 as it is to be written; scratch has from_columns floats. */
void fm_row_source_decode(const fm_row_source *s, float *dst, const void *const *plane,
                          float *scratch);

/* quantize_part.c: DESTINATION.part and its journal. */
typedef struct {
    char *path, *part_path, *journal_path;
    int part_fd, journal_fd;
    uint64_t total_bytes, journal_bytes, chain;
    int64_t n_tensor;
    uint64_t *hash;    /* [n_tensor] of those that are finished     */
    bool *is_finished; /* [n_tensor]                                */
    int64_t at_tensor; /* where to go on                            */
    uint64_t at_bytes; /* of its bytes are there                    */
    uint64_t at_hash;  /* FNV-1a of these                           */
    uint64_t synced_us, sync_every_us;
    uint8_t *pending; /* records that are not in the journal yet   */
    size_t n_pending, cap_pending;
    bool was_complete; /* an earlier call renamed it and was killed */
    bool has_lost;     /* bringing it to the device failed, so what was written since may be gone */
} fm_quantize_part;

typedef struct {
    const char *options;                 /* as people write them */
    uint64_t source, importance, header; /* hashes */
} fm_part_identity;

/* Opens or begins the part. FM_E_ARG when the destination exists, when the part belongs to other options or another
 * source, when another process writes it, or when the disk has too little room. */
fm_status fm_part_open(fm_quantize_part *p, const char *destination, const fm_part_identity *id,
                       int64_t n_tensor, uint64_t total_bytes, fm_error *err);
fm_status fm_part_write(fm_quantize_part *p, const void *data, size_t n, uint64_t offset,
                        fm_error *err);
/* Tensor at_tensor has `bytes` bytes with this hash, or is finished. Goes to the disk now and then, or now. */
fm_status fm_part_progress(fm_quantize_part *p, uint64_t bytes, uint64_t hash, bool now,
                           fm_error *err);
fm_status fm_part_finish_tensor(fm_quantize_part *p, uint64_t hash, fm_error *err);
/* After a failure: puts down what was written since the last sync as far as the disk lets it; nothing when that sync was what
 * failed. Cannot fail. */
void fm_part_keep(fm_quantize_part *p);
/* Gives the file its magic and its name. */
fm_status fm_part_rename(fm_quantize_part *p, fm_error *err);
void fm_part_close(fm_quantize_part *p);
