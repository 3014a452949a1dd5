#include "support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROTATE = 4, PATH_BYTES = 1024, DIR_BYTES = 512 };

static char *next_path(void)
{
    static char buf[ROTATE][PATH_BYTES];
    static unsigned at;
    return buf[at++ % ROTATE];
}

const char *source_path(const char *relative)
{
    const char *root = getenv("FM_SOURCE_DIR");
    char *out = next_path();
    snprintf(out, PATH_BYTES, "%s/%s", root ? root : ".", relative);
    return out;
}

static void remove_scratch(void);

static const char *scratch_dir(void)
{
    static char dir[DIR_BYTES];
    if (!dir[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(dir, sizeof dir, "%s/flashmoe-test-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(dir)) fail_msg("no scratch folder at %s", dir);
        atexit(remove_scratch);
    }
    return dir;
}

static void remove_scratch(void)
{
    char cmd[DIR_BYTES + 64];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", scratch_dir());
    if (system(cmd) != 0) fprintf(stderr, "left behind: %s\n", scratch_dir());
}

const char *scratch_path(const char *name)
{
    char *out = next_path();
    snprintf(out, PATH_BYTES, "%.500s/%.400s", scratch_dir(), name);
    return out;
}

bool npy_load(npy_array *out, const char *path)
{
    memset(out, 0, sizeof *out);
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    unsigned char head[10];
    char text[1024] = "";
    bool ok = fread(head, 1, 10, f) == 10 && memcmp(head, "\x93NUMPY\x01", 7) == 0;
    const size_t n = ok ? (size_t)head[8] | (size_t)head[9] << 8 : 0;
    ok = ok && n < sizeof text && fread(text, 1, n, f) == n &&
         strstr(text, "'fortran_order': False");
    out->is_float = ok && strstr(text, "'<f4'");
    ok = ok && (out->is_float || strstr(text, "'<i4'"));
    const char *shape = ok ? strstr(text, "'shape': (") : NULL;
    out->cols = 1;
    long long r = 0, c = 1;
    ok = shape && sscanf(shape, "'shape': (%lld, %lld", &r, &c) >= 1;
    out->rows = r;
    out->cols = c;
    const size_t bytes = (size_t)(r * c) * 4;
    out->data = ok ? malloc(bytes) : NULL;
    ok = out->data && fread(out->data, 1, bytes, f) == bytes;
    fclose(f);
    if (!ok) npy_free(out);
    return ok;
}

void npy_free(npy_array *a)
{
    free(a->data);
    a->data = NULL;
}

const char *tiny_file(const char *spec, const char *type, const char *fault)
{
    char name[128], err[256];
    snprintf(name, sizeof name, "%s-%s-%s.gguf", spec, type, fault ? fault : "ok");
    const char *path = scratch_path(name);
    const tiny_options opt = {.spec = spec, .type = type, .fault = fault};
    if (access(path, R_OK) != 0 && tiny_write(path, &opt, err, sizeof err) != 0)
        fail_msg("%s", err);
    return path;
}

typedef struct {
    float *out;
    int64_t n_vocab, n;
} collector;

static bool collect(void *user, int64_t pos, const float *logits)
{
    collector *c = user;
    memcpy(c->out + pos * c->n_vocab, logits, (size_t)c->n_vocab * sizeof *logits);
    c->n++;
    return true;
}

fm_status eval_logits_try(float **out, const char *model, const int32_t *ids, size_t n,
                          const eval_setup *s, fm_stats *stats, fm_plan *plan, fm_error *err)
{
    *out = NULL;
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = model;
    o.memory_budget = s->memory;
    o.n_batch = s->batch;
    o.n_threads = s->threads ? s->threads : 2;
    o.n_ctx = s->ctx ? s->ctx : 512;
    o.n_expert_used = s->experts;
    o.kv_type = s->kv;
    o.io_engine = s->io;
    o.kernels = s->kernels;
    fm_engine *e;
    fm_status st = fm_engine_open(&e, &o, err);
    if (st != FM_OK) return st;
    fm_model_info info;
    fm_engine_model_info(e, &info);
    fm_session *session = NULL;
    float *logits = malloc(n * (size_t)info.n_vocab * sizeof *logits);
    collector c = {logits, info.n_vocab, 0};
    const fm_eval_options eo = {
        .struct_size = sizeof eo, .every_logits = collect, .logits_user = &c};
    st = fm_session_create(&session, e, err);
    if (st == FM_OK) st = fm_session_eval(session, ids, n, &eo, err);
    if (stats) fm_engine_stats(e, stats);
    if (plan) fm_engine_plan(e, plan);
    fm_session_destroy(session);
    fm_engine_close(e);
    if (st == FM_OK && c.n != (int64_t)n) st = FM_E_ARG;
    if (st == FM_OK) {
        *out = logits;
    } else {
        free(logits);
    }
    return st;
}

float *eval_logits(const char *model, const int32_t *ids, size_t n, const eval_setup *s,
                   fm_stats *stats, fm_plan *plan)
{
    fm_error err = {0};
    float *out;
    if (eval_logits_try(&out, model, ids, n, s, stats, plan, &err) != FM_OK)
        fail_msg("%s", err.msg);
    return out;
}

char *file_replace(const char *path, const char *from, const char *to, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct stat sb;
    assert_int_equal(fstat(fileno(f), &sb), 0);
    *n = (size_t)sb.st_size;
    char *before = malloc(*n), *after = malloc(*n);
    assert_int_equal(fread(before, 1, *n, f), *n);
    fclose(f);
    memcpy(after, before, *n);
    const size_t len = strlen(from);
    assert_int_equal(len, strlen(to));
    size_t at = 0;
    while (at + len <= *n && memcmp(after + at, from, len) != 0) at++;
    if (at + len > *n) fail_msg("%s: no \"%s\"", path, from);
    memcpy(after + at, to, len);
    f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(after, 1, *n, f);
    fclose(f);
    free(after);
    return before;
}

void file_restore(const char *path, char *before, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(before, 1, n, f);
    fclose(f);
    free(before);
}

static void remember(void *user, fm_log_level level, const char *line)
{
    (void)level;
    const size_t n = strlen(user);
    snprintf((char *)user + n, 4096 - n, "%s\n", line);
}

fm_status fixture_quantize(const char *from, const char *to, char *said, fm_error *err)
{
    const fm_quantize_options o = {.struct_size = sizeof o,
                                   .source = from,
                                   .destination = to,
                                   .type = "Q8_0",
                                   .n_threads = 2,
                                   .log = remember,
                                   .log_user = said};
    unlink(to);
    *said = 0;
    return fm_quantize(&o, NULL, err);
}
