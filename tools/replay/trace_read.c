/* Reads a routing trace (docs/formats.md) and makes demands of it. */
#include "replay/replay.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPERTS_MAX = 1 << 16, LAYERS_MAX = 1 << 12, TOKENS_MAX = 1 << 20 };

void *rp_alloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p) {
        fputs("cache-replay: no memory\n", stderr);
        exit(1);
    }
    return p;
}

typedef struct {
    FILE *f;
    const char *path;
    uint64_t at;
    bool bad;
} source;

static bool refuse(source *s, const char *what)
{
    fprintf(stderr, "cache-replay: %s: at byte %" PRIu64 ": %s\n", s->path, s->at, what);
    s->bad = true;
    return false;
}

static bool take(source *s, void *to, size_t n)
{
    if (fread(to, 1, n, s->f) != n) return refuse(s, "the file ends early");
    s->at += n;
    return true;
}

static uint64_t take_number(source *s, size_t n)
{
    unsigned char b[8] = {0};
    if (s->bad || !take(s, b, n)) return 0;
    uint64_t v = 0;
    for (size_t i = n; i-- > 0;) v = v << 8 | b[i];
    return v;
}

static bool read_header(rp_trace *t, source *s)
{
    char magic[8];
    if (!take(s, magic, sizeof magic)) return false;
    if (memcmp(magic, "FMROUTE1", 8) != 0) return refuse(s, "this is no routing trace");
    const uint64_t n_layer = take_number(s, 4), n_used = take_number(s, 4);
    const uint64_t n_name = take_number(s, 4);
    if (s->bad) return false;
    if (n_layer < 1 || n_layer > LAYERS_MAX || n_used < 1 || n_used > EXPERTS_MAX) {
        return refuse(s, "numbers of layers or experts out of range");
    }
    if (n_name >= sizeof t->name) return refuse(s, "the model's name is too long");
    if (!take(s, t->name, n_name)) return false;
    t->n_layer = (int32_t)n_layer;
    t->n_used = (int32_t)n_used;
    t->n_expert = rp_alloc(n_layer, sizeof *t->n_expert);
    t->bytes = rp_alloc(n_layer, sizeof *t->bytes);
    t->layer_first = rp_alloc(n_layer + 1, sizeof *t->layer_first);
    t->equal_sizes = true;
    uint64_t one_size = 0;
    for (int32_t i = 0; i < t->n_layer; i++) {
        const uint64_t n = take_number(s, 4), bytes = take_number(s, 8);
        if (s->bad) return false;
        if (n > EXPERTS_MAX || (n > 0 && (n < n_used || bytes < 1 || bytes >> 40))) {
            return refuse(s, "a layer with an impossible number or size of experts");
        }
        t->n_expert[i] = (int32_t)n;
        t->bytes[i] = bytes;
        t->layer_first[i + 1] = t->layer_first[i] + (int64_t)n;
        t->total_bytes += n * bytes;
        if (n == 0) continue;
        if (one_size && bytes != one_size) t->equal_sizes = false;
        one_size = bytes;
    }
    t->layer_of = rp_alloc((size_t)t->layer_first[n_layer], sizeof *t->layer_of);
    for (int32_t i = 0; i < t->n_layer; i++) {
        for (int64_t e = t->layer_first[i]; e < t->layer_first[i + 1]; e++) t->layer_of[e] = i;
    }
    return true;
}

typedef struct {
    int64_t item_cap;
    int32_t demand_cap;
    int32_t *count; /* [EXPERTS_MAX] of the present demand */
    uint16_t *ids;  /* of the present demand */
    size_t ids_cap;
} room;

static rp_item *add_item(rp_trace *t, room *r, int32_t expert, int32_t weight)
{
    if (t->n_item == r->item_cap) {
        r->item_cap = r->item_cap ? 2 * r->item_cap : 1 << 16;
        t->item = realloc(t->item, (size_t)r->item_cap * sizeof *t->item);
        if (!t->item) exit(1);
    }
    t->item[t->n_item] = (rp_item){.expert = expert, .weight = weight, .next = RP_NEVER};
    return &t->item[t->n_item++];
}

static bool read_demand(rp_trace *t, source *s, room *r, int phase, int32_t n_tok)
{
    const uint64_t layer = take_number(s, 2);
    if (s->bad) return false;
    if (layer >= (uint64_t)t->n_layer || t->n_expert[layer] == 0) {
        return refuse(s, "routing of a layer that has no experts");
    }
    const size_t n = (size_t)n_tok * (size_t)t->n_used;
    if (n > r->ids_cap) {
        free(r->ids);
        r->ids = rp_alloc(n, sizeof *r->ids);
        r->ids_cap = n;
    }
    if (!take(s, r->ids, n * sizeof *r->ids)) return false;
    const unsigned char *b = (const unsigned char *)r->ids;
    const int32_t n_expert = t->n_expert[layer], base = (int32_t)t->layer_first[layer];
    if (t->n_demand == r->demand_cap) {
        r->demand_cap = r->demand_cap ? 2 * r->demand_cap : 1 << 14;
        t->demand = realloc(t->demand, (size_t)r->demand_cap * sizeof *t->demand);
        if (!t->demand) exit(1);
    }
    rp_demand *d = &t->demand[t->n_demand++];
    *d = (rp_demand){.layer = (int32_t)layer, .phase = phase, .n_tok = n_tok, .first = t->n_item};
    memset(r->count, 0, (size_t)n_expert * sizeof *r->count);
    for (size_t i = 0; i < n; i++) {
        const int32_t id = b[2 * i] | b[2 * i + 1] << 8;
        if (id >= n_expert) return refuse(s, "an expert that the layer does not have");
        if (r->count[id]++ == 0 && n_tok == 1) add_item(t, r, base + id, 1); /* router's order */
    }
    if (n_tok > 1) {
        for (int32_t e = 0; e < n_expert; e++) {
            if (r->count[e] > 0) add_item(t, r, base + e, r->count[e]);
        }
    }
    d->n = (int32_t)(t->n_item - d->first);
    return true;
}

static bool read_events(rp_trace *t, source *s, room *r)
{
    int phase = -1;
    int32_t n_tok = 0;
    for (;;) {
        const int kind = fgetc(s->f);
        if (kind == EOF) return true;
        s->at++;
        if (kind == 1) {
            phase = (int)take_number(s, 1);
            const uint64_t n = take_number(s, 4);
            (void)take_number(s, 8); /* position */
            if (s->bad) return false;
            if (phase >= RP_PHASES || n < 1 || n > TOKENS_MAX) return refuse(s, "an odd pass");
            n_tok = (int32_t)n;
        } else if (kind == 2 && phase >= 0) {
            if (!read_demand(t, s, r, phase, n_tok)) return false;
        } else {
            return refuse(s, "an unknown record");
        }
    }
}

static void link_uses(rp_trace *t)
{
    const int64_t n_expert = t->layer_first[t->n_layer];
    int32_t *next = rp_alloc((size_t)n_expert, sizeof *next);
    for (int64_t i = 0; i < n_expert; i++) next[i] = RP_NEVER;
    for (int32_t d = t->n_demand; d-- > 0;) {
        for (int32_t i = 0; i < t->demand[d].n; i++) {
            rp_item *it = &t->item[t->demand[d].first + i];
            it->next = next[it->expert];
            next[it->expert] = d;
        }
    }
    free(next);
}

bool rp_trace_read(rp_trace *t, const char *path)
{
    *t = (rp_trace){0};
    source s = {.f = fopen(path, "rb"), .path = path};
    if (!s.f) {
        perror(path);
        return false;
    }
    room r = {.count = rp_alloc(EXPERTS_MAX, sizeof(int32_t))};
    const bool ok = read_header(t, &s) && read_events(t, &s, &r);
    if (ok) link_uses(t);
    fclose(s.f);
    free(r.count);
    free(r.ids);
    return ok;
}

void rp_trace_free(rp_trace *t)
{
    free(t->n_expert);
    free(t->bytes);
    free(t->layer_first);
    free(t->layer_of);
    free(t->demand);
    free(t->item);
}
