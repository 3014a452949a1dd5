/* Hash index over names; see the header. */
#include "format/name_index.h"

#include <stdlib.h>
#include <string.h>

static uint32_t first_slot(const fm_name_index *x, const char *name)
{
    return (uint32_t)fm_hash_bytes(x->seed, name, strlen(name)) & (x->n_slot - 1);
}

uint32_t fm_name_index_find(const fm_name_index *x, fm_name_of name_of, const void *owner,
                            const char *name)
{
    if (x->n_slot == 0) return UINT32_MAX;
    for (uint32_t s = first_slot(x, name); x->slots[s] != 0; s = (s + 1) & (x->n_slot - 1))
        if (strcmp(name_of(owner, x->slots[s] - 1), name) == 0) return x->slots[s] - 1;
    return UINT32_MAX;
}

static void place(fm_name_index *x, const char *name, uint32_t number)
{
    uint32_t s = first_slot(x, name);
    while (x->slots[s] != 0) s = (s + 1) & (x->n_slot - 1);
    x->slots[s] = number + 1;
}

bool fm_name_index_add(fm_name_index *x, fm_name_of name_of, const void *owner)
{
    if (x->n_name >= x->n_slot / 2) {
        if (x->n_slot >= UINT32_C(1) << 31) return false;
        const uint32_t n_slot = x->n_slot ? x->n_slot * 2 : 64;
        fm_name_index bigger = {.slots = calloc(n_slot, sizeof *bigger.slots),
                                .n_slot = n_slot,
                                .seed = x->n_slot ? x->seed : fm_hash_seed_new()};
        if (!bigger.slots) return false;
        for (uint32_t i = 0; i < x->n_name; i++) place(&bigger, name_of(owner, i), i);
        bigger.n_name = x->n_name;
        free(x->slots);
        *x = bigger;
    }
    place(x, name_of(owner, x->n_name), x->n_name);
    x->n_name++;
    return true;
}

void fm_name_index_deinit(fm_name_index *x)
{
    free(x->slots);
    *x = (fm_name_index){0};
}
