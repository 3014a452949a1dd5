/* Trie over the bytes of added tokens; see the header. Vocabularies have up to a few thousand of
 * them, most with a long common prefix. */
#include "text/literals.h"

#include <stdlib.h>

static int32_t new_node(fm_literal_set *s, unsigned char byte)
{
    if (s->n_node == s->cap_node) {
        if (s->cap_node > INT32_MAX / 4) return -1;
        const int32_t cap = s->cap_node ? s->cap_node * 2 : 256;
        fm_literal_node *p = realloc(s->nodes, (size_t)cap * sizeof *p);
        if (!p) return -1;
        s->nodes = p;
        s->cap_node = cap;
    }
    s->nodes[s->n_node] = (fm_literal_node){.id = -1, .byte = byte};
    return s->n_node++;
}

/* Child of `node` with this byte, or 0. */
static int32_t child_of(const fm_literal_set *s, int32_t node, unsigned char byte)
{
    if (node == 0) return s->first[byte];
    int32_t c = s->nodes[node].child;
    while (c != 0 && s->nodes[c].byte != byte) c = s->nodes[c].sibling;
    return c;
}

bool fm_literal_set_add(fm_literal_set *s, const char *bytes, size_t n, int32_t id)
{
    if (s->n_node == 0 && new_node(s, 0) < 0) return false;
    int32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned char b = (unsigned char)bytes[i];
        int32_t next = child_of(s, node, b);
        if (next == 0) {
            next = new_node(s, b);
            if (next < 0) return false;
            if (node == 0) {
                s->first[b] = next;
            } else {
                s->nodes[next].sibling = s->nodes[node].child;
                s->nodes[node].child = next;
            }
        }
        node = next;
    }
    if (node != 0 && s->nodes[node].id < 0) s->nodes[node].id = id;
    return true;
}

void fm_literal_set_deinit(fm_literal_set *s)
{
    free(s->nodes);
    *s = (fm_literal_set){0};
}

uint64_t fm_literal_set_memory(const fm_literal_set *s)
{
    return (uint64_t)s->cap_node * sizeof *s->nodes;
}

size_t fm_literal_set_search(const fm_literal_set *s, const char *text, size_t n, size_t from,
                             size_t *len, int32_t *id)
{
    if (s->n_node == 0) return n;
    for (size_t at = from; at < n; at++) {
        int32_t node = s->first[(unsigned char)text[at]];
        size_t found = 0;
        for (size_t i = at; node != 0;) {
            i++;
            if (s->nodes[node].id >= 0) {
                found = i - at;
                *id = s->nodes[node].id;
            }
            if (i == n) break;
            node = child_of(s, node, (unsigned char)text[i]);
        }
        if (found > 0) {
            *len = found;
            return at;
        }
    }
    return n;
}
