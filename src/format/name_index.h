/* Finds a name's number among names that are only ever added: open addressing, 4 bytes a slot.
 * The names themselves stay with the owner. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

/* The name with number i, NUL-terminated. */
typedef const char *(*fm_name_of)(const void *owner, uint32_t i);

typedef struct {
    uint32_t *slots; /* number + 1; 0 is empty */
    uint32_t n_slot; /* a power of two, or 0   */
    uint32_t n_name;
    fm_hash_seed seed; /* once there are slots */
} fm_name_index;

/* Number of `name`, or UINT32_MAX. */
uint32_t fm_name_index_find(const fm_name_index *x, fm_name_of name_of, const void *owner,
                            const char *name);

/* Adds the next number (x->n_name), whose name is not in the index yet. False: no memory. */
bool fm_name_index_add(fm_name_index *x, fm_name_of name_of, const void *owner);
void fm_name_index_deinit(fm_name_index *x);
