/* Drafts: the draft layer against transformers (tests/vectors/model/README.md), and that no draft, right or wrong, under any
 * placement changes a bit of what a session answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/engine_internal.h"
#include "support/fixture.h"
#include "support/logits.h"

enum { N_TOKENS = 200, N_PROMPT = 70 };

#define MEMORY (UINT64_C(256) << 20)

static fm_engine *open_model(const char *path, fm_draft_mode draft, uint64_t memory,
                             const char *kernels)
{
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = path;
    o.memory_budget = memory;
    o.n_threads = 2;
    o.n_ctx = N_TOKENS;
    o.n_batch = 64;
    o.kv_type = FM_KV_F32;
    o.kernels = kernels;
    o.draft = draft;
    fm_engine *e;
    fm_error err = {0};
    if (fm_engine_open(&e, &o, &err) != FM_OK) fail_msg("%s: %s", path, err.msg);
    return e;
}

static fm_session *open_session(fm_engine *e)
{
    fm_session *s;
    fm_error err = {0};
    if (fm_session_create(&s, e, &err) != FM_OK) fail_msg("%s", err.msg);
    return s;
}

static void eval(fm_session *s, const int32_t *ids, size_t n, const int32_t *expected_next)
{
    const fm_eval_options o = {.struct_size = sizeof o, .expected_next = expected_next};
    fm_error err = {0};
    if (fm_session_eval(s, ids, n, &o, &err) != FM_OK) fail_msg("%s", err.msg);
}

static uint64_t n_drafts(const fm_engine *e, uint64_t *right)
{
    fm_stats st;
    fm_engine_stats(e, &st);
    if (right) *right = st.drafts_right;
    return st.drafts;
}

/* ---- the layer -------------------------------------------------------------------------- */

static void check_layer(const char *spec, const char *type, const char *kernels, double tolerance)
{
    char name[160];
    npy_array ref;
    int32_t ids[N_TOKENS];
    snprintf(name, sizeof name, "tests/vectors/model/%s-draft.npy", spec);
    if (!npy_load(&ref, source_path(name))) fail_msg("cannot read %s", source_path(name));
    assert_int_equal(ref.rows, N_TOKENS - 1);
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find(spec));
    fm_engine *e = open_model(tiny_file(spec, type, NULL), FM_DRAFT_ON, MEMORY, kernels);
    /* Keys of the first positions come from a prompt, of two passes, of the others from single tokens. */
    for (int32_t n_prompt = 1; n_prompt <= N_PROMPT; n_prompt += N_PROMPT - 1) {
        fm_session *s = open_session(e);
        eval(s, ids, (size_t)n_prompt, NULL);
        double worst = 0;
        int n_row = 0;
        for (int32_t t = n_prompt; t < N_TOKENS - 1; t++) {
            const uint64_t before = n_drafts(e, NULL);
            eval(s, &ids[t], 1, NULL);
            if (n_drafts(e, NULL) == before) continue; /* it had been drafted */
            const float *const row = (const float *)ref.data + (int64_t)(t - 1) * ref.cols;
            const logits_comparison c = logits_compare(fm_draft_logits(e->run), row, 1, ref.cols);
            if (c.worst > worst) worst = c.worst;
            n_row++;
        }
        print_message("%-12s %-5s %-9s prompt %-3d  %d rows, row error %.1e\n", spec, type,
                      kernels ? kernels : "best", n_prompt, n_row, worst);
        assert_true(n_row > (N_TOKENS - n_prompt) / 2);
        if (!(worst <= tolerance)) fail_msg("%s: row error %g", spec, worst);
        fm_session_destroy(s);
    }
    fm_engine_close(e);
    npy_free(&ref);
}

static void draft_logits_agree(void **state)
{
    (void)state;
    static const char *const specs[] = {"qwen35moe-e", "qwen3next-e", "glm4moe-b"};
    for (int i = 0; i < 3; i++) {
        check_layer(specs[i], "F32", NULL, 1e-3);
        check_layer(specs[i], "F32", "reference", 1e-3);
    }
    check_layer("qwen35moe-r", "Q4_K", "reference", 1e-3);
    check_layer("qwen35moe-r", "Q4_K", NULL, 5e-2); /* rounded activations */
}

/* ---- answers ---------------------------------------------------------------------------- */

/* Logits after the prompt and after each of the following ids, [n][n_vocab]; malloc'd. Of the drafts about two of three
 * are right, one of three is another id. */
static float *answers(const char *path, const int32_t *ids, int32_t n_prompt, fm_draft_mode draft,
                      uint64_t memory, const char *kernels, uint64_t *right)
{
    fm_engine *e = open_model(path, draft, memory, kernels);
    fm_session *s = open_session(e);
    const size_t n_vocab = (size_t)e->model->hp.n_vocab;
    float *const all = malloc(2 * N_TOKENS * n_vocab * sizeof *all);
    assert_non_null(all);
    float *row = all;
    for (int twice = 0; twice < 2; twice++) {
        eval(s, ids, (size_t)n_prompt, NULL);
        memcpy(row, fm_session_logits(s), n_vocab * sizeof *row);
        row += n_vocab;
        for (int32_t t = n_prompt; t < N_TOKENS; t++) { /* up to the end of the context */
            const int32_t next = t + 1 == N_TOKENS ? 0 : ids[t + 1],
                          other = (next + 1) % (int32_t)n_vocab;
            eval(s, &ids[t], 1, t % 3 ? &next : &other);
            assert_int_equal(fm_session_n_past(s), t + 1);
            memcpy(row, fm_session_logits(s), n_vocab * sizeof *row);
            row += n_vocab;
        }
        if (right) assert_true(n_drafts(e, right) > *right && *right > 0);
        fm_session_reset(s);
    }
    fm_session_destroy(s);
    fm_engine_close(e);
    return all;
}

static void check_answers(const char *spec, const char *type, uint64_t memory, const char *kernels)
{
    int32_t ids[N_TOKENS];
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find(spec));
    const char *const path = tiny_file(spec, type, NULL);
    uint64_t right = 0;
    float *const plain = answers(path, ids, N_PROMPT, FM_DRAFT_OFF, MEMORY, kernels, NULL);
    float *const drafted = answers(path, ids, N_PROMPT, FM_DRAFT_ON, memory, kernels, &right);
    const size_t n = 2 * (N_TOKENS - N_PROMPT + 1) * (size_t)tiny_spec_find(spec)->n_vocab;
    assert_memory_equal(plain, drafted, n * sizeof *plain);
    print_message("%-12s %-5s %-9s %d drafts right\n", spec, type, kernels ? kernels : "best",
                  (int)right);
    free(plain);
    free(drafted);
}

static void answers_do_not_change(void **state)
{
    (void)state;
    static const char *const specs[] = {"qwen35moe-e", "qwen3next-e", "glm4moe-b"};
    for (int i = 0; i < 3; i++) check_answers(specs[i], "F32", MEMORY, NULL);
    const char *const *kernels = fm_kernels_available();
    for (int i = 0; kernels[i]; i++) check_answers("qwen35moe-r", "Q4_K", MEMORY, kernels[i]);
}

/* Wherever the experts are: the trunk in memory, with few slots. */
static void answers_do_not_change_when_experts_are_streamed(void **state)
{
    (void)state;
    static const char *const specs[] = {"qwen35moe-e", "glm4moe-b"};
    for (int i = 0; i < 2; i++) {
        const char *const path = tiny_file(specs[i], "F32", NULL);
        fm_engine *e = open_model(path, FM_DRAFT_ON, MEMORY, NULL);
        fm_plan plan;
        fm_engine_plan(e, &plan);
        fm_engine_close(e);
        assert_int_equal(plan.expert_slots, plan.experts_total);
        uint64_t slots = 0;
        for (int k = 0; k < plan.n_line; k++)
            if (strcmp(plan.lines[k].name, FM_LINE_SLOTS) == 0) slots = plan.lines[k].bytes;
        const uint64_t few = plan.total_bytes - slots / 10 * 9;
        e = open_model(path, FM_DRAFT_ON, few, NULL);
        fm_engine_plan(e, &plan);
        assert_true(plan.expert_slots < plan.experts_total / 2);
        fm_engine_close(e);
        check_answers(specs[i], "F32", few, NULL);
        /* by itself the engine would not draft here */
        e = open_model(path, FM_DRAFT_AUTO, few, NULL);
        fm_model_info info;
        fm_engine_model_info(e, &info);
        assert_false(info.uses_draft);
        assert_int_equal(info.n_draft_layer, 1);
        fm_engine_close(e);
        e = open_model(path, FM_DRAFT_AUTO, MEMORY, NULL);
        fm_engine_model_info(e, &info);
        assert_true(info.uses_draft);
        fm_engine_close(e);
    }
}

/* ---- what cannot draft ------------------------------------------------------------------ */

static void check_refused(const char *path, uint64_t memory, int32_t n_batch, const char *why)
{
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = path;
    o.memory_budget = memory;
    o.n_ctx = N_TOKENS;
    o.n_batch = n_batch;
    o.plan_only = true;
    o.draft = FM_DRAFT_ON;
    fm_engine *e;
    fm_error err = {0};
    assert_int_not_equal(fm_engine_open(&e, &o, &err), FM_OK);
    assert_null(e);
    if (!strstr(err.msg, why)) fail_msg("\"%s\" lacks \"%s\"", err.msg, why);
    o.draft = FM_DRAFT_AUTO; /* does without */
    if (fm_engine_open(&e, &o, &err) != FM_OK) fail_msg("%s", err.msg);
    fm_model_info info;
    fm_engine_model_info(e, &info);
    assert_false(info.uses_draft);
    fm_engine_close(e);
}

static void what_cannot_draft_says_why(void **state)
{
    (void)state;
    check_refused(tiny_file("qwen35moe-a", "F32", NULL), MEMORY, 64, "holds no draft layer");
    check_refused(tiny_file("deepseek2-b", "F32", NULL), MEMORY, 64, "deepseek2 are not evaluated");
    const char *const path = tiny_file("qwen35moe-e", "F32", NULL);
    check_refused(path, MEMORY, 1, "passes of two tokens");
    fm_engine *e = open_model(path, FM_DRAFT_OFF, MEMORY, NULL);
    fm_plan plan;
    fm_engine_plan(e, &plan);
    fm_engine_close(e);
    check_refused(path, plan.min_memory_bytes, 64, "memory");
}

static void an_expected_token_must_exist(void **state)
{
    (void)state;
    fm_engine *e = open_model(tiny_file("qwen35moe-e", "F32", NULL), FM_DRAFT_ON, MEMORY, NULL);
    fm_session *s = open_session(e);
    const int32_t id = 1, beyond = e->model->hp.n_vocab, below = -1;
    fm_eval_options o = {.struct_size = sizeof o, .expected_next = &beyond};
    fm_error err = {0};
    assert_int_equal(fm_session_eval(s, &id, 1, &o, &err), FM_E_ARG);
    assert_non_null(strstr(err.msg, "expected_next"));
    o.expected_next = &below;
    assert_int_equal(fm_session_eval(s, &id, 1, &o, &err), FM_E_ARG);
    fm_session_destroy(s);
    fm_engine_close(e);
}

static bool stop_later(void *user, int64_t done, int64_t total)
{
    (void)done, (void)total;
    return --*(int *)user > 0;
}

/* Stopped at any moment the session is empty, and what is then evaluated is as in a new one. */
static void a_stop_leaves_nothing_behind(void **state)
{
    (void)state;
    int32_t ids[N_TOKENS];
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find("qwen35moe-e"));
    fm_engine *e = open_model(tiny_file("qwen35moe-e", "F32", NULL), FM_DRAFT_ON, MEMORY, NULL);
    fm_session *s = open_session(e);
    const size_t n = (size_t)e->model->hp.n_vocab;
    float *const expected = malloc(n * sizeof *expected);
    assert_non_null(expected);
    eval(s, ids, 20, NULL);
    for (int t = 20; t < 24; t++) eval(s, &ids[t], 1, NULL);
    memcpy(expected, fm_session_logits(s), n * sizeof *expected);
    for (int after = 1, stopped = 1; stopped; after++) {
        fm_session_reset(s);
        eval(s, ids, 20, NULL);
        int left = after;
        const fm_eval_options o = {
            .struct_size = sizeof o, .progress = stop_later, .progress_user = &left};
        fm_error err = {0};
        fm_status st = FM_OK;
        for (int t = 20; t < 24 && st == FM_OK; t++) st = fm_session_eval(s, &ids[t], 1, &o, &err);
        stopped = st != FM_OK;
        if (!stopped) break;
        assert_int_equal(st, FM_E_CANCELLED);
        assert_int_equal(fm_session_n_past(s), 0);
        eval(s, ids, 20, NULL);
        for (int t = 20; t < 24; t++) eval(s, &ids[t], 1, NULL);
        assert_memory_equal(expected, fm_session_logits(s), n * sizeof *expected);
        assert_true(after < 1000);
    }
    free(expected);
    fm_session_destroy(s);
    fm_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draft_logits_agree),
        cmocka_unit_test(answers_do_not_change),
        cmocka_unit_test(answers_do_not_change_when_experts_are_streamed),
        cmocka_unit_test(what_cannot_draft_says_why),
        cmocka_unit_test(an_expected_token_must_exist),
        cmocka_unit_test(a_stop_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
