/* See route_trace.h. */
#include "model/route_trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "model/model.h"

struct fm_route_trace {
    FILE *file;
    char *path, *temp_path;
    int32_t n_used, n_tok;
    off_t bytes, pass_at; /* written so far; up to the pass that was begun last */
    bool in_pass, has_pass;
    int write_errno; /* of the first failure, 0: none */
};

static void note_error(fm_route_trace *t)
{
    if (!t->write_errno) t->write_errno = errno ? errno : EIO;
}

static void put(fm_route_trace *t, uint64_t v, int n)
{
    uint8_t number[8];
    fm_put_le(number, v, n);
    if (fwrite(number, 1, (size_t)n, t->file) != (size_t)n) note_error(t);
    t->bytes += n;
}

static void write_header(fm_route_trace *t, const fm_model *m, fm_str name)
{
    const size_t n_name = name.len < 255 ? name.len : 255; /* what the replayer takes */
    for (const char *p = "FMROUTE1"; *p; p++) put(t, (unsigned char)*p, 1);
    put(t, (uint64_t)m->hp.n_layer, 4);
    put(t, (uint64_t)t->n_used, 4);
    put(t, n_name, 4);
    for (size_t i = 0; i < n_name; i++) put(t, (unsigned char)name.data[i], 1);
    for (int32_t i = 0; i < m->hp.n_layer; i++) {
        const fm_expert_layer *l = &m->layers[i].experts;
        uint64_t bytes = 0;
        for (int32_t p = 0; p < l->n_part; p++) bytes += l->part[p].bytes;
        put(t, (uint64_t)l->n_expert, 4);
        put(t, l->n_expert ? bytes : 0, 8);
    }
}

static void destroy(fm_route_trace *t)
{
    if (t->file) fclose(t->file);
    if (t->temp_path) unlink(t->temp_path);
    free(t->temp_path);
    free(t->path);
    free(t);
}

fm_status fm_route_trace_open(fm_route_trace **out, const char *path, const fm_model *m,
                              fm_str name, fm_error *err)
{
    *out = NULL;
    if (m->hp.n_expert > UINT16_MAX + 1)
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: a routing trace numbers experts up to 65535, the "
                       "model has %d in a layer",
                       path, m->hp.n_expert);
    const size_t n = strlen(path) + 32;
    fm_route_trace *t = calloc(1, sizeof *t);
    char *temp = malloc(n);
    if (t) t->path = strdup(path);
    if (!t || !temp || !t->path) {
        free(temp);
        if (t) destroy(t);
        return fm_fail(err, FM_E_NOMEM, "%s: no memory for a routing trace", path);
    }
    snprintf(temp, n, "%s.%ld.tmp", path, (long)getpid());
    t->file = fopen(temp, "wb");
    if (!t->file) {
        const int os_errno = errno;
        free(temp);
        destroy(t);
        return fm_fail_errno(err, os_errno, "%s", path);
    }
    t->temp_path = temp;
    t->n_used = m->hp.n_expert_used;
    write_header(t, m, name);
    *out = t;
    return FM_OK;
}

/* Back to where a pass that was broken off began: not all of its layers are there. */
static void drop_broken_pass(fm_route_trace *t)
{
    if (!t->in_pass) return;
    t->in_pass = false;
    t->bytes = t->pass_at;
    if (fflush(t->file) != 0 || ftruncate(fileno(t->file), t->pass_at) != 0 ||
        fseeko(t->file, t->pass_at, SEEK_SET) != 0)
        note_error(t);
}

void fm_route_trace_pass(fm_route_trace *t, bool is_prompt, int32_t n_tok, int64_t pos)
{
    drop_broken_pass(t);
    t->in_pass = true;
    t->pass_at = t->bytes;
    t->n_tok = n_tok;
    put(t, 1, 1);
    put(t, is_prompt ? 0 : 1, 1);
    put(t, (uint64_t)n_tok, 4);
    put(t, (uint64_t)pos, 8);
}

void fm_route_trace_layer(fm_route_trace *t, int32_t layer, const int32_t *ids)
{
    put(t, 2, 1);
    put(t, (uint64_t)layer, 2);
    for (int64_t i = 0; i < (int64_t)t->n_tok * t->n_used; i++) put(t, (uint64_t)ids[i], 2);
}

void fm_route_trace_pass_end(fm_route_trace *t)
{
    t->in_pass = false;
    t->has_pass = true;
}

fm_status fm_route_trace_close(fm_route_trace *t, fm_error *err)
{
    if (!t) return FM_OK;
    errno = 0;
    drop_broken_pass(t);
    const bool flushed = fflush(t->file) == 0;
    if (!flushed && !t->write_errno) t->write_errno = errno ? errno : EIO;
    fm_status st = FM_OK;
    if (t->write_errno) {
        st = fm_fail_errno(err, t->write_errno, "%s: writing the routing trace", t->path);
    } else if (t->has_pass && rename(t->temp_path, t->path) != 0) {
        st = fm_fail_errno(err, errno, "%s", t->path);
    } else if (t->has_pass) {
        free(t->temp_path);
        t->temp_path = NULL;
    }
    destroy(t);
    return st;
}
