/* Shared by the files of format/: metadata sets, the tensor directory, the parser of one file. */
#pragma once

#include "format/checkpoint.h"
#include "format/gguf_reader.h"
#include "format/name_index.h"

/* A file below this size that begins with "version" is taken for a Git LFS pointer, which a clone without LFS has
 * in place of a large file. */
enum { FM_LFS_POINTER_MAX = 1024 };

/* Limits of our own. Real headers are below 50 MB and below 200,000 tensors. */
enum {
    FM_GGUF_NAME_MAX = 65535,  /* bytes of a metadata key or tensor name                     */
    FM_GGUF_SHARD_MAX = 65535, /* five digits in the name, 16 bits in split.count            */
};
#define FM_GGUF_HEADER_MAX (UINT64_C(1) << 30) /* bytes of one array or string of the metadata  */

/* Strings that live as long as the checkpoint, in chunks; nothing is freed one by one. */
typedef struct fm_string_chunk {
    struct fm_string_chunk *next;
    size_t used, size;
    char data[];
} fm_string_chunk;

typedef struct {
    fm_string_chunk *head;
    uint64_t heap_bytes;
} fm_string_arena;

char *fm_string_arena_take(fm_string_arena *a, size_t bytes); /* NULL: no memory */
void fm_string_arena_deinit(fm_string_arena *a);

typedef struct {
    const char *key;
    uint32_t type;      /* FM_GGUF_...                                           */
    uint32_t elem_type; /* of an array                                           */
    bool dropped;       /* fm_checkpoint_drop_tokenizer() took the elements      */
    union {
        uint64_t u;
        int64_t i;
        double f;
        fm_str s;
    } value;
    /* Arrays. Scalars: little-endian as in the file. Strings: NUL-terminated, one after another;
     * element i is data[start[i] .. start[i + 1] - 1). */
    uint64_t count;
    unsigned char *data;
    uint32_t *start; /* [count + 1] */
    uint64_t heap_bytes;
} fm_meta_entry;

typedef struct {
    fm_meta_entry *entries;
    uint32_t n_entry, cap_entry;
    fm_name_index index;
    fm_string_arena strings;
} fm_meta_set;

void fm_meta_set_deinit(fm_meta_set *m);
const fm_meta_entry *fm_meta_set_find(const fm_meta_set *m, const char *key); /* or NULL */
/* Any integer kind but bool, as u64. `path` is for messages; `*present` false: key absent. */
fm_status fm_meta_set_uint(const fm_meta_set *m, const char *path, const char *key, uint64_t max,
                           uint64_t *out, bool *present, fm_error *err);

struct fm_checkpoint {
    fm_meta_set meta;
    fm_tensor_info *tensors;
    uint32_t n_tensor, cap_tensor;
    fm_name_index index;
    fm_string_arena names;
    char **paths;        /* [n_file] */
    fm_file_mark *marks; /* [n_file] */
    int32_t n_file;

    /* Hugging Face directories */
    char *directory;          /* NULL: GGUF */
    fm_extent *each;          /* of all tensors that are stored expert by expert */
    fm_tensor_info *sources;  /* tensors that others are rows of */
    uint64_t hf_bytes;        /* heap of these two */
    fm_unused_tensors unused;
};

/* Opens the directory `path` into c (empty before). hf_open.c */
fm_status fm_hf_open(fm_checkpoint *c, const char *path, fm_error *err);

/* Parses the file with number `file`: metadata into *meta (empty before), tensors appended to c. */
fm_status fm_gguf_parse(fm_checkpoint *c, fm_meta_set *meta, int32_t file, fm_error *err);
