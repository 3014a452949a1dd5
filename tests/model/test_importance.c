/* Importance sums: against torch on tiny models, and the same file for every placement, number of
 * threads and length of passes. Origin of the expected sums: tests/vectors/eval/README.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/checkpoint.h"
#include "support/fixture.h"

enum { N_TOKENS = 192, WINDOWS = 1 };

/* Of a tensor's largest sum. Logits may be off by 1e-3 of their largest (test_reference.c), squares by
 * twice that. */
#define TOLERANCE 2e-3

static bool no_logits(void *user, int64_t pos, const float *logits)
{
    (void)user, (void)pos, (void)logits;
    return true;
}

static fm_engine *open_tiny(const char *spec, uint64_t memory, int32_t threads, int32_t batch,
                            bool collect)
{
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = tiny_file(spec, "F32", NULL);
    o.memory_budget = memory;
    o.n_threads = threads;
    o.n_batch = batch;
    o.n_ctx = 256;
    o.collect_importance = collect;
    fm_engine *e;
    fm_error err = {0};
    if (fm_engine_open(&e, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    return e;
}

static bool stop_late(void *user, int64_t done, int64_t total)
{
    (void)user, (void)total;
    return done < 64;
}

static void evaluate(fm_engine *e, const char *spec, bool broken_off)
{
    char name[128];
    snprintf(name, sizeof name, "tests/vectors/model/%s.ids.npy", spec);
    npy_array ids;
    assert_true(npy_load(&ids, source_path(name)));
    fm_session *s;
    fm_error err = {0};
    if (fm_session_create(&s, e, &err) != FM_OK) fail_msg("%s", err.msg);
    const fm_eval_options eo = {.struct_size = sizeof eo,
                                .every_logits = no_logits,
                                .progress = broken_off ? stop_late : NULL};
    const fm_status st = fm_session_eval(s, ids.data, N_TOKENS, &eo, &err);
    assert_int_equal(st, broken_off ? FM_E_CANCELLED : FM_OK);
    fm_session_destroy(s);
    npy_free(&ids);
}

static const char *sums_of(const char *spec, uint64_t memory, int32_t threads, int32_t batch,
                           const char *name)
{
    fm_engine *e = open_tiny(spec, memory, threads, batch, true);
    evaluate(e, spec, false);
    const char *path = scratch_path(name);
    fm_error err = {0};
    if (fm_engine_write_importance(e, path, "ids", WINDOWS, N_TOKENS, &err) != FM_OK)
        fail_msg("%s", err.msg);
    fm_engine_close(e);
    return path;
}

static fm_checkpoint *open_file(const char *path)
{
    fm_checkpoint *c;
    fm_error err = {0};
    if (fm_checkpoint_open(&c, path, &err) != FM_OK) fail_msg("%s", err.msg);
    return c;
}

static float *values_of(const fm_checkpoint *c, const fm_tensor_info *t)
{
    FILE *f = fopen(fm_checkpoint_file(c, 0), "rb");
    float *v = malloc(t->bytes);
    assert_true(f && v && fseek(f, (long)t->offset, SEEK_SET) == 0);
    assert_int_equal(fread(v, 1, t->bytes, f), t->bytes);
    fclose(f);
    return v;
}

static void compare_tensor(const fm_checkpoint *got, const fm_checkpoint *want,
                           const fm_tensor_info *w, double *worst)
{
    const fm_tensor_info *g = fm_checkpoint_find(got, w->name);
    if (!g) fail_msg("%s is missing", w->name);
    assert_int_equal(g->type, w->type);
    assert_int_equal(g->dim[0], w->dim[0]);
    assert_int_equal(g->dim[1], w->dim[1]);
    const int64_t n = w->dim[0] * w->dim[1];
    const bool is_count = strstr(w->name, ".counts") != NULL;
    float *a = values_of(got, g), *b = values_of(want, w);
    double most = 0, difference = 0;
    for (int64_t i = 0; i < n; i++) {
        const double size = fabs((double)b[i]), apart = fabs((double)a[i] - b[i]);
        if (size > most) most = size;
        if (apart > difference) difference = apart;
    }
    if (!(difference <= (is_count ? 0 : TOLERANCE * most)))
        fail_msg("%s: differs by %g of %g", w->name, difference, most);
    if (difference / most > *worst) *worst = difference / most;
    free(a);
    free(b);
}

static void sums_agree_with_torch(const char *spec)
{
    char name[128];
    snprintf(name, sizeof name, "tests/vectors/eval/importance-%s.gguf", spec);
    fm_checkpoint *want = open_file(source_path(name));
    fm_checkpoint *got = open_file(sums_of(spec, UINT64_C(256) << 20, 2, 192, "sums.gguf"));
    assert_int_equal(fm_checkpoint_n_tensor(got), fm_checkpoint_n_tensor(want));
    double worst = 0;
    for (int64_t i = 0; i < fm_checkpoint_n_tensor(want); i++)
        compare_tensor(got, want, fm_checkpoint_tensor(want, i), &worst);
    print_message("%s: %d tensors, largest difference %.1e\n", spec,
                  (int)fm_checkpoint_n_tensor(want), worst);
    fm_str type;
    uint32_t chunks, size;
    assert_int_equal(fm_meta_str(got, "general.type", &type, NULL), FM_OK);
    assert_string_equal(type.data, "imatrix");
    assert_int_equal(fm_meta_u32(got, "imatrix.chunk_count", &chunks, NULL), FM_OK);
    assert_int_equal(fm_meta_u32(got, "imatrix.chunk_size", &size, NULL), FM_OK);
    assert_int_equal(chunks, WINDOWS);
    assert_int_equal(size, N_TOKENS);
    fm_checkpoint_close(got);
    fm_checkpoint_close(want);
}

static void hybrid_model_agrees_with_torch(void **st)
{
    (void)st;
    sums_agree_with_torch("qwen35moe-a");
}

static void dense_layer_and_shared_expert_agree_with_torch(void **st)
{
    (void)st;
    sums_agree_with_torch("glm4moe-a");
}

static void heads_of_latent_attention_agree_with_torch(void **st)
{
    (void)st;
    sums_agree_with_torch("deepseek2-a");
}

static void heads_inside_kv_b_agree_with_torch(void **st)
{
    (void)st;
    sums_agree_with_torch("deepseek2-c");
}

static void assert_same_file(const char *a, const char *b)
{
    FILE *f = fopen(a, "rb"), *g = fopen(b, "rb");
    assert_true(f && g);
    int x, y;
    do {
        x = fgetc(f);
        y = fgetc(g);
        if (x != y) fail_msg("%s and %s differ at byte %ld", a, b, ftell(f) - 1);
    } while (x != EOF);
    fclose(f);
    fclose(g);
}

static void any_placement_gives_the_same_file_of(const char *spec)
{
    char first[512];
    snprintf(first, sizeof first, "%s",
             sums_of(spec, UINT64_C(256) << 20, 2, 192, "resident.gguf"));
    fm_engine *e = open_tiny(spec, UINT64_C(256) << 20, 2, 64, true);
    fm_plan plan;
    fm_engine_plan(e, &plan);
    fm_engine_close(e);
    assert_same_file(first, sums_of(spec, plan.min_memory_bytes, 2, 64, "smallest.gguf"));
    assert_same_file(first, sums_of(spec, plan.min_memory_bytes + (1 << 20), 1, 128, "one.gguf"));
    assert_same_file(first, sums_of(spec, UINT64_C(256) << 20, 5, 192, "five.gguf"));
}

static void any_placement_gives_the_same_file(void **st)
{
    (void)st;
    any_placement_gives_the_same_file_of("qwen35moe-b");
    any_placement_gives_the_same_file_of("deepseek2-c");
}

static void plan_has_room_for_the_sums(void **st)
{
    (void)st;
    fm_plan with, without;
    fm_engine *e = open_tiny("qwen35moe-a", UINT64_C(256) << 20, 2, 64, true);
    fm_engine_plan(e, &with);
    fm_engine_close(e);
    e = open_tiny("qwen35moe-a", UINT64_C(256) << 20, 2, 64, false);
    fm_engine_plan(e, &without);
    assert_int_equal(with.n_line, without.n_line + 1);
    assert_true(with.min_memory_bytes > without.min_memory_bytes);
    fm_error err = {0};
    assert_int_equal(fm_engine_write_importance(e, scratch_path("no"), "ids", 1, 1, &err),
                     FM_E_ARG);
    assert_non_null(strstr(err.msg, "collect_importance"));
    fm_engine_close(e);
}

static void evaluation_that_broke_off_writes_nothing(void **st)
{
    (void)st;
    fm_engine *e = open_tiny("qwen35moe-a", UINT64_C(256) << 20, 2, 64, true);
    evaluate(e, "qwen35moe-a", true);
    fm_error err = {0};
    const char *path = scratch_path("broken.gguf");
    assert_int_equal(fm_engine_write_importance(e, path, "ids", 1, 1, &err), FM_E_ARG);
    assert_non_null(strstr(err.msg, "broke off"));
    assert_int_not_equal(access(path, F_OK), 0);
    fm_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hybrid_model_agrees_with_torch),
        cmocka_unit_test(dense_layer_and_shared_expert_agree_with_torch),
        cmocka_unit_test(heads_of_latent_attention_agree_with_torch),
        cmocka_unit_test(heads_inside_kv_b_agree_with_torch),
        cmocka_unit_test(any_placement_gives_the_same_file),
        cmocka_unit_test(plan_has_room_for_the_sums),
        cmocka_unit_test(evaluation_that_broke_off_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
