/* The model that ships: its logits against transformers on the same (dequantized) weights, its
 * tokenizer, and the exact-answer accuracy that its README states, all through the engine and in less
 * memory than the model is large. Origin of the data: tests/vectors/bundled/README.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include <cmocka.h>

#include "support/fixture.h"
#include "support/logits.h"

#define MODEL "model/flashmoe-tale.gguf"
#define VECTORS "tests/vectors/bundled/"

/* As in test_reference.c: of a row's largest magnitude; nats. */
#define FLOAT_TOLERANCE 1e-3
#define KL_TOLERANCE 2e-3
#define SMALL_BUDGET (UINT64_C(24) << 20)

static void compare_logits(const char *kernels, double *row_error, double *mean_kl)
{
    npy_array ids, positions, want;
    assert_true(npy_load(&ids, source_path(VECTORS "ids.npy")));
    assert_true(npy_load(&positions, source_path(VECTORS "positions.npy")));
    assert_true(npy_load(&want, source_path(VECTORS "logits.npy")));
    assert_int_equal(want.rows, positions.rows);
    const eval_setup s = {.memory = SMALL_BUDGET, .kv = FM_KV_F32, .kernels = kernels, .batch = 64};
    float *got = eval_logits(source_path(MODEL), ids.data, (size_t)ids.rows, &s, NULL, NULL);
    *row_error = *mean_kl = 0;
    for (int64_t r = 0; r < want.rows; r++) {
        const logits_comparison c =
            logits_compare(got + ((const int32_t *)positions.data)[r] * want.cols,
                           (const float *)want.data + r * want.cols, 1, want.cols);
        if (!(c.worst <= *row_error)) *row_error = c.worst;
        *mean_kl += c.mean_kl / (double)want.rows;
    }
    print_message("kernels %s: row error %.1e, mean KL %.1e\n", kernels ? kernels : "best",
                  *row_error, *mean_kl);
    free(got);
    npy_free(&ids);
    npy_free(&positions);
    npy_free(&want);
}

static void logits_agree_with_transformers(void **st)
{
    (void)st;
    double error, kl;
    compare_logits("reference", &error, &kl);
    assert_true(error <= FLOAT_TOLERANCE);
    compare_logits(NULL, &error, &kl);
    assert_true(kl < KL_TOLERANCE);
}

static fm_engine *open_model(uint64_t memory)
{
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = source_path(MODEL);
    o.memory_budget = memory;
    o.n_ctx = 1024;
    o.n_threads = 2;
    fm_engine *e;
    fm_error err = {0};
    if (fm_engine_open(&e, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    return e;
}

static void activations_are_what_was_asked_for_or_refused(void **st)
{
    (void)st;
    static const struct {
        fm_activations activations;
        const char *kernels;
        fm_status status;
    } cases[] = {{FM_ACTIVATIONS_FULL, "reference", FM_OK},
                 {FM_ACTIVATIONS_INT8, "generic", FM_OK},
                 {FM_ACTIVATIONS_INT8, NULL, FM_OK},
                 {FM_ACTIVATIONS_INT8, "reference", FM_E_ARG},
                 {(fm_activations)2, NULL, FM_E_ARG}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fm_engine_options o;
        fm_engine_options_init(&o);
        o.model_path = source_path(MODEL);
        o.plan_only = true;
        o.activations = cases[i].activations;
        o.kernels = cases[i].kernels;
        fm_engine *e;
        fm_error err = {0};
        assert_int_equal(fm_engine_open(&e, &o, &err), cases[i].status);
        if (cases[i].status != FM_OK) {
            assert_non_null(strstr(err.msg, "activations"));
            continue;
        }
        fm_model_info info;
        fm_engine_model_info(e, &info);
        assert_int_equal(info.activations, cases[i].activations);
        fm_engine_close(e);
    }
}

static void rendered_prompt_gives_the_listed_ids(void **st)
{
    (void)st;
    npy_array want;
    assert_true(npy_load(&want, source_path(VECTORS "ids.npy")));
    FILE *f = fopen(source_path(VECTORS "prompt.txt"), "rb");
    assert_non_null(f);
    char text[4096];
    const size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    fm_engine *e = open_model(0);
    int32_t *ids;
    size_t n_ids;
    fm_error err = {0};
    assert_int_equal(
        fm_tokenize(fm_engine_tokenizer(e), &ids, &n_ids, text, n, FM_TOKENIZE_SPECIAL, &err),
        FM_OK);
    assert_int_equal(n_ids, want.rows);
    assert_memory_equal(ids, want.data, n_ids * sizeof *ids);
    free(ids);
    npy_free(&want);
    fm_engine_close(e);
}

/* The greedy answer to a question, as text without the end token. */
static void answer(fm_engine *e, fm_session *s, fm_sampler *greedy, const char *user,
                   const char *system, char *out, size_t cap)
{
    const fm_message messages[2] = {{"system", system ? system : ""}, {"user", user}};
    int32_t *ids;
    size_t n;
    fm_error err = {0};
    if (fm_chat_tokenize(e, &ids, &n, system ? messages : messages + 1, system ? 2 : 1, true,
                         &err) != FM_OK)
        fail_msg("%s", err.msg);
    fm_session_reset(s);
    if (fm_session_eval(s, ids, n, NULL, &err) != FM_OK) fail_msg("%s", err.msg);
    free(ids);
    size_t used = 0;
    for (int i = 0; i < 120; i++) {
        const int32_t id = fm_sampler_pick(greedy, fm_session_logits(s));
        size_t len;
        const char *bytes = fm_token_bytes(fm_engine_tokenizer(e), id, &len);
        if (fm_token_is_end(fm_engine_tokenizer(e), id) || used + len >= cap) break;
        memcpy(out + used, bytes, len);
        used += len;
        if (fm_session_eval(s, &id, 1, NULL, &err) != FM_OK) fail_msg("%s", err.msg);
    }
    out[used] = 0;
}

static void check_task(const char *task, double at_least)
{
    char name[128];
    snprintf(name, sizeof name, VECTORS "questions_%s.jsonl", task);
    FILE *f = fopen(source_path(name), "r");
    assert_non_null(f);
    fm_engine *e = open_model(UINT64_C(64) << 20);
    fm_session *s;
    fm_sampler *greedy;
    fm_sampler_options so;
    fm_sampler_options_init(&so);
    so.temperature = 0;
    fm_error err = {0};
    assert_int_equal(fm_session_create(&s, e, &err), FM_OK);
    assert_int_equal(
        fm_sampler_create(&greedy, fm_tokenizer_n_vocab(fm_engine_tokenizer(e)), &so, &err), FM_OK);
    static char line[1 << 16], got[4096];
    int n = 0, right = 0;
    while (fgets(line, sizeof line, f)) {
        json_t *q = json_loads(line, 0, NULL);
        assert_non_null(q);
        const char *want = json_string_value(json_object_get(q, "expected"));
        answer(e, s, greedy, json_string_value(json_object_get(q, "prompt")),
               json_string_value(json_object_get(q, "system")), got, sizeof got);
        n++;
        if (strcmp(got, want) == 0) {
            right++;
        } else {
            print_message("%s: %s\n  expected %s\n  got      %s\n", task,
                          json_string_value(json_object_get(q, "prompt")), want, got);
        }
        json_decref(q);
    }
    fclose(f);
    print_message("%s: %d of %d\n", task, right, n);
    assert_true(n >= 100);
    fm_sampler_destroy(greedy);
    fm_session_destroy(s);
    fm_engine_close(e);
    if (right < at_least * n) fail_msg("%s: %d of %d right", task, right, n);
}

/* The README's scores of the float32 model less two points. */
static void arithmetic_is_answered_exactly(void **st)
{
    (void)st;
    check_task("arithmetic", 0.98);
}
static void facts_are_answered_exactly(void **st)
{
    (void)st;
    check_task("facts", 0.98);
}
static void tools_are_called_exactly(void **st)
{
    (void)st;
    check_task("tools_compact", 0.97);
}
static void tools_of_the_system_turn_are_called_exactly(void **st)
{
    (void)st;
    check_task("tools_system", 0.94);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_agree_with_transformers),
        cmocka_unit_test(activations_are_what_was_asked_for_or_refused),
        cmocka_unit_test(rendered_prompt_gives_the_listed_ids),
        cmocka_unit_test(arithmetic_is_answered_exactly),
        cmocka_unit_test(facts_are_answered_exactly),
        cmocka_unit_test(tools_are_called_exactly),
        cmocka_unit_test(tools_of_the_system_turn_are_called_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
