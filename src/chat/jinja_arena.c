/* Memory of a template and of a rendering: pieces are taken one after another and freed together. */
#include "chat/jinja_value.h"

#include <stdalign.h>
#include <stdlib.h>

struct fmj_chunk {
    fmj_chunk *next;
    alignas(max_align_t) char data[];
};

enum { CHUNK = 64 * 1024 };

void *fmj_arena_get(fmj_arena *a, size_t n)
{
    const size_t align = alignof(max_align_t);
    if (n > SIZE_MAX - 2 * CHUNK) return NULL;
    n = (n + align - 1) & ~(align - 1);
    if (n > a->left) {
        /* Large pieces get a chunk of their own, and the rest of the current one stays in use. */
        const bool is_own = n > CHUNK / 4;
        const size_t size = is_own ? n : CHUNK;
        if (a->limit - a->used < size) return NULL;
        fmj_chunk *chunk = malloc(sizeof *chunk + size);
        if (!chunk) return NULL;
        a->used += size;
        chunk->next = a->chunks;
        a->chunks = chunk;
        if (is_own) return chunk->data;
        a->at = chunk->data;
        a->left = size;
    }
    void *p = a->at;
    a->at += n;
    a->left -= n;
    return p;
}

void fmj_arena_free(fmj_arena *a)
{
    while (a->chunks) {
        fmj_chunk *next = a->chunks->next;
        free(a->chunks);
        a->chunks = next;
    }
    *a = (fmj_arena){0};
}
