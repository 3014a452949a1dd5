/* See stop_filter.h. Stop strings are short and few, so each byte is compared with all of them. */
#include "cli/stop_filter.h"

#include <stdlib.h>
#include <string.h>

bool fm_stop_filter_init(fm_stop_filter *f, const char *const *stops, int n_stop)
{
    *f = (fm_stop_filter){.stops = stops, .n_stop = n_stop};
    for (int i = 0; i < n_stop; i++) {
        const size_t n = strlen(stops[i]);
        if (n > f->capacity) f->capacity = n;
    }
    if (f->capacity > 0) f->held = malloc(f->capacity);
    return f->capacity == 0 || f->held;
}

void fm_stop_filter_deinit(fm_stop_filter *f)
{
    free(f->held);
    f->held = NULL;
}

/* Length of the longest stop string that ends where `held` ends, 0 for none. */
static size_t find_complete(const fm_stop_filter *f)
{
    size_t best = 0;
    for (int i = 0; i < f->n_stop; i++) {
        const size_t n = strlen(f->stops[i]);
        if (n <= f->n_held && n > best && memcmp(f->held + f->n_held - n, f->stops[i], n) == 0) {
            best = n;
        }
    }
    return best;
}

/* Length of the longest end of `held` that starts a stop string without completing it. */
static size_t find_partial(const fm_stop_filter *f)
{
    for (size_t start = 0; start < f->n_held; start++) {
        const size_t n = f->n_held - start;
        for (int i = 0; i < f->n_stop; i++) {
            if (n < strlen(f->stops[i]) && memcmp(f->held + start, f->stops[i], n) == 0) return n;
        }
    }
    return 0;
}

static bool release(fm_stop_filter *f, size_t n, fm_stop_sink sink, void *user)
{
    if (n == 0) return true;
    const bool ok = sink(user, f->held, n);
    f->n_held -= n;
    memmove(f->held, f->held + n, f->n_held);
    return ok;
}

bool fm_stop_filter_push(fm_stop_filter *f, const char *text, size_t n, fm_stop_sink sink,
                         void *user)
{
    if (f->is_stopped) return true;
    if (f->n_stop == 0) return n == 0 || sink(user, text, n);
    for (size_t i = 0; i < n; i++) {
        /* There is room: what is held is shorter than the longest stop string. */
        f->held[f->n_held++] = text[i];
        const size_t complete = find_complete(f);
        if (complete > 0) {
            const bool ok = release(f, f->n_held - complete, sink, user);
            f->n_held = 0;
            f->is_stopped = true;
            return ok;
        }
        if (!release(f, f->n_held - find_partial(f), sink, user)) return false;
    }
    return true;
}

bool fm_stop_filter_flush(fm_stop_filter *f, fm_stop_sink sink, void *user)
{
    return f->is_stopped || release(f, f->n_held, sink, user);
}
