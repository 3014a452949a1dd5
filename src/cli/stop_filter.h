/* Stop strings: lets text through until one of them is complete, and holds back what may still
 * become one. Zero-initialise, then set the strings, which are borrowed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    const char *const *stops; /* [n_stop], none empty */
    int n_stop;
    char *held; /* [capacity], a prefix of a stop string or nothing */
    size_t n_held, capacity;
    bool is_stopped;
} fm_stop_filter;

typedef bool (*fm_stop_sink)(void *user, const char *text, size_t n);

/* False when out of memory. */
bool fm_stop_filter_init(fm_stop_filter *f, const char *const *stops, int n_stop);
void fm_stop_filter_deinit(fm_stop_filter *f);

/* Takes n bytes and hands on what cannot be part of a stop string. After the first complete one
 * nothing more comes out and is_stopped is set; of several that end at the same byte the longest
 * is cut off. False when the sink said false. Does not allocate. */
bool fm_stop_filter_push(fm_stop_filter *f, const char *text, size_t n, fm_stop_sink sink,
                         void *user);

/* No more text comes: hands on what was held back. */
bool fm_stop_filter_flush(fm_stop_filter *f, fm_stop_sink sink, void *user);
