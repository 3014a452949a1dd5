/* A set of literal strings (added tokens) that are looked for in text: leftmost, longest. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t child, sibling; /* node numbers, 0: none */
    int32_t id;             /* of the string that ends here, -1: none */
    unsigned char byte;
} fm_literal_node;

/* Zero-initialise. A trie; nodes[0] is the root. */
typedef struct {
    fm_literal_node *nodes;
    int32_t n_node, cap_node;
    int32_t first[256]; /* children of the root by byte */
} fm_literal_set;

/* Adds bytes[n], n >= 1. A string that is there already keeps its id. False: no memory. */
bool fm_literal_set_add(fm_literal_set *s, const char *bytes, size_t n, int32_t id);
void fm_literal_set_deinit(fm_literal_set *s);
uint64_t fm_literal_set_memory(const fm_literal_set *s);

/* First place at or after `from` where a string of the set stands; the longest one there. Returns
 * its position with *len and *id, or n when there is none. */
size_t fm_literal_set_search(const fm_literal_set *s, const char *text, size_t n, size_t from,
                             size_t *len, int32_t *id);
