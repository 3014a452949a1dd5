/* Routing heat: how often each expert of a model was used lately, kept between sessions in a small file of
 * the user's cache directory. It decides what stays cached, and what gives way to a guess, until the
 * session knows better, never what is computed. docs/formats.md has the layout. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "engine/engine_internal.h"
#include "os/cache_file.h"

static const char MAGIC[FM_CACHE_MAGIC_BYTES] = {'F', 'M', 'H', 'E', 'A', 'T', 0, 0};
enum {
    VERSION = 1,
    HEAD = 8,       /* identity of the model, then a float32 per expert */
    MIN_TOKENS = 16 /* a session of fewer says nothing                  */
};

/* Of the model's own layers; a draft layer comes last and is not always there. */
static size_t n_kept(const fm_engine *e)
{
    const fm_model *m = e->model;
    const int32_t n_draft = m->n_draft ? m->layers[m->hp.n_layer].experts.n_expert : 0;
    return (size_t)(e->plan.report.experts_total - n_draft);
}

static size_t payload_bytes(const fm_engine *e)
{
    return HEAD + n_kept(e) * sizeof(float);
}

/* Rates of all experts of the store, zeros; owned by the caller. */
static float *make_rates(const fm_engine *e)
{
    return calloc((size_t)e->plan.report.experts_total + 1, sizeof(float));
}

static fm_status heat_path(const fm_engine *e, char path[FM_CACHE_PATH_MAX], fm_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "heat-%016" PRIx64, fm_engine_identity(e));
    return fm_cache_path(path, name, err);
}

/* The rates of a payload become floats where they lie. */
static fm_status decode(const fm_engine *e, const char *path, unsigned char *payload, size_t bytes,
                        fm_error *err)
{
    if (bytes != payload_bytes(e))
        return fm_fail(err, FM_E_FORMAT, "%s: %zu bytes for another model, expected %zu", path,
                       bytes, payload_bytes(e));
    if (fm_get_le(payload, HEAD) != fm_engine_identity(e))
        return fm_fail(err, FM_E_FORMAT, "%s: is of the model %016" PRIx64 ", expected %016" PRIx64,
                       path, fm_get_le(payload, HEAD), fm_engine_identity(e));
    for (size_t at = HEAD; at < bytes; at += sizeof(float)) {
        const uint32_t bits = (uint32_t)fm_get_le(payload + at, sizeof bits);
        float rate;
        memcpy(&rate, &bits, sizeof rate);
        if (!(rate >= 0 && rate <= 1))
            return fm_fail(err, FM_E_FORMAT, "%s: expert %zu used %g times per token", path,
                           (at - HEAD) / sizeof rate, (double)rate);
        memcpy(payload + at, &rate, sizeof rate);
    }
    return FM_OK;
}

void fm_engine_load_heat(fm_engine *e)
{
    char path[FM_CACHE_PATH_MAX];
    unsigned char *payload;
    size_t bytes;
    fm_error err;
    if (heat_path(e, path, &err) != FM_OK) {
        fm_engine_log(e, FM_LOG_INFO, "no warm start: %s", err.msg);
        return;
    }
    fm_status st = fm_cache_read(&payload, &bytes, path, MAGIC, VERSION, payload_bytes(e), &err);
    if (st == FM_OK && !payload) return; /* the first session */
    if (st == FM_OK) st = decode(e, path, payload, bytes, &err);
    float *const rate = st == FM_OK ? make_rates(e) : NULL;
    if (rate) {
        memcpy(rate, payload + HEAD, n_kept(e) * sizeof *rate);
        fm_store_seed(e->store, rate);
    }
    free(rate);
    const fm_log_level level =
        st == FM_E_IO ? FM_LOG_INFO : FM_LOG_WARN; /* unreadable, or damaged */
    if (st != FM_OK) fm_engine_log(e, level, "%s; starting without it", err.msg);
    free(payload);
}

void fm_engine_save_heat(fm_engine *e)
{
    if (e->tokens_evaluated < MIN_TOKENS) return;
    char path[FM_CACHE_PATH_MAX];
    fm_error err;
    if (heat_path(e, path, &err) != FM_OK) return;
    const size_t bytes = payload_bytes(e);
    unsigned char *payload = malloc(bytes);
    float *const rate = make_rates(e);
    if (!payload || !rate) goto done; /* nothing is lost */
    fm_put_le(payload, fm_engine_identity(e), HEAD);
    fm_store_heat(e->store, rate);
    for (size_t i = 0; i < n_kept(e); i++) {
        uint32_t bits;
        memcpy(&bits, &rate[i], sizeof bits);
        fm_put_le(payload + HEAD + i * sizeof bits, bits, sizeof bits);
    }
    if (fm_cache_write(path, MAGIC, VERSION, payload, bytes, &err) != FM_OK)
        fm_engine_log(e, FM_LOG_INFO, "what was used most is not kept: %s", err.msg);
done:
    free(rate);
    free(payload);
}
