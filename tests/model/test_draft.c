/* Drafts: the draft layer against transformers (tests/vectors/model/README.md), and that no draft, right or wrong, under any
 * placement changes a bit of what a session answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/engine_internal.h"
#include "model/run.h"
#include "support/fixture.h"
#include "support/logits.h"

enum { N_TOKENS = 200, N_PROMPT = 70 };

#define MEMORY (UINT64_C(256) << 20)

/* How a model is opened; 0: 64 tokens a pass, caches in f32, the best kernels, MEMORY. */
typedef struct {
    fm_draft_mode draft;
    uint64_t memory;
    const char *kernels;
    int32_t n_batch;
    bool is_f16;
} how;

static fm_engine *open_model(const char *path, const how *h)
{
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = path;
    o.memory_budget = h->memory ? h->memory : MEMORY;
    o.n_threads = 2;
    o.n_ctx = N_TOKENS;
    o.n_batch = h->n_batch ? h->n_batch : 64;
    o.kv_type = h->is_f16 ? FM_KV_F16 : FM_KV_F32;
    o.kernels = h->kernels;
    o.draft = h->draft;
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

/* n_low: ids that are drafted at least; the others are looked at once the text has enough of them. */
static void check_layer(const char *spec, const char *type, const char *kernels, int32_t n_low,
                        double tolerance)
{
    char name[160];
    npy_array ref;
    int32_t ids[N_TOKENS];
    snprintf(name, sizeof name, "tests/vectors/model/%s-draft.npy", spec);
    if (!npy_load(&ref, source_path(name))) fail_msg("cannot read %s", source_path(name));
    assert_int_equal(ref.rows, N_TOKENS - 1);
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find(spec));
    const how h = {.draft = FM_DRAFT_ON, .kernels = kernels, .n_batch = 128};
    fm_engine *e = open_model(tiny_file(spec, type, NULL), &h);
    if (n_low) e->run->draft.n_low = n_low;
    /* Keys of the first positions come from a prompt, of two passes of which one is longer than the layer takes at a time, of
     * the others from single tokens. */
    for (int32_t n_prompt = 1; n_prompt <= 130; n_prompt += 129) {
        fm_session *s = open_session(e);
        int n_cut = 0;
        eval(s, ids, (size_t)n_prompt, NULL);
        double worst = 0;
        int n_row = 0;
        for (int32_t t = n_prompt; t < N_TOKENS - 1; t++) {
            const uint64_t before = n_drafts(e, NULL);
            eval(s, &ids[t], 1, NULL);
            if (n_drafts(e, NULL) == before) continue; /* it had been drafted */
            const float *const row = (const float *)ref.data + (int64_t)(t - 1) * ref.cols;
            const bool is_cut = n_low && !(e->run->draft.rare > 0.08f);
            const int64_t cols = is_cut ? n_low : ref.cols;
            const logits_comparison c = logits_compare(fm_draft_logits(e->run), row, 1, cols);
            n_cut += is_cut;
            if (c.worst > worst) worst = c.worst;
            n_row++;
        }
        print_message("%-12s %-5s %-9s prompt %-3d  %d rows, row error %.1e\n", spec, type,
                      kernels ? kernels : "best", n_prompt, n_row, worst);
        assert_true(n_row > (N_TOKENS - n_prompt) / 2);
        if (n_low) assert_true(n_cut > 0 && n_cut < n_row);
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
        check_layer(specs[i], "F32", NULL, 0, 1e-3);
        check_layer(specs[i], "F32", "reference", 0, 1e-3);
    }
    check_layer("qwen35moe-r", "Q4_K", "reference", 0, 1e-3);
    check_layer("qwen35moe-r", "Q4_K", NULL, 0, 5e-2); /* rounded activations */
}

/* Of a large vocabulary only the lower ids, until the text has others. */
static void draft_logits_of_lower_ids_agree(void **state)
{
    (void)state;
    const int32_t n_vocab = tiny_spec_find("qwen35moe-e")->n_vocab;
    check_layer("qwen35moe-e", "F32", NULL, n_vocab - n_vocab / 10, 1e-3);
    check_layer("glm4moe-b", "F32", NULL, tiny_spec_find("glm4moe-b")->n_vocab * 9 / 10, 1e-3);
}

/* ---- answers ---------------------------------------------------------------------------- */

typedef struct {
    float *row; /* where the next one goes */
    size_t n_vocab;
} sink;

static bool put_row(void *user, int64_t pos, const float *logits)
{
    (void)pos;
    sink *k = user;
    memcpy(k->row, logits, k->n_vocab * sizeof *logits);
    k->row += k->n_vocab;
    return true;
}

/* Logits after the prompt and after what follows, most of it token by token: every ninth step is three tokens at once, every
 * eleventh wants the logits of all its tokens. Of the drafts about two of three are right, the others another id. Twice,
 * with a reset between. Returns [*n_row][n_vocab], malloc'd. */
static float *answers(const char *path, const int32_t *ids, const how *h, size_t *n_row,
                      uint64_t *right)
{
    fm_engine *e = open_model(path, h);
    fm_session *s = open_session(e);
    const size_t n_vocab = (size_t)e->model->hp.n_vocab;
    float *const all = malloc(2 * N_TOKENS * n_vocab * sizeof *all);
    assert_non_null(all);
    sink k = {all, n_vocab};
    for (int twice = 0; twice < 2; twice++) {
        eval(s, ids, N_PROMPT, NULL);
        put_row(&k, 0, fm_session_logits(s));
        int step = 1;
        for (int32_t t = N_PROMPT, n; t < N_TOKENS;
             t += n, step++) { /* up to the end of the context */
            n = step % 9 == 0 && t + 3 <= N_TOKENS ? 3 : 1;
            const int32_t next = t + n >= N_TOKENS ? 0 : ids[t + n],
                          other = (next + 1) % (int32_t)n_vocab;
            if (step % 11 == 0) {
                const fm_eval_options o = {
                    .struct_size = sizeof o, .every_logits = put_row, .logits_user = &k};
                fm_error err = {0};
                if (fm_session_eval(s, &ids[t], (size_t)n, &o, &err) != FM_OK)
                    fail_msg("%s", err.msg);
            } else {
                eval(s, &ids[t], (size_t)n, t % 3 ? &next : &other);
                put_row(&k, 0, fm_session_logits(s));
            }
            assert_int_equal(fm_session_n_past(s), t + n);
        }
        if (right) assert_true(n_drafts(e, right) > *right && *right > 0);
        fm_session_reset(s);
    }
    fm_session_destroy(s);
    fm_engine_close(e);
    *n_row = (size_t)(k.row - all) / n_vocab;
    return all;
}

static void check_answers(const char *spec, const char *type, how h)
{
    int32_t ids[N_TOKENS];
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find(spec));
    const char *const path = tiny_file(spec, type, NULL);
    uint64_t right = 0;
    size_t n_plain, n_drafted;
    how plain_way = h;
    plain_way.draft = FM_DRAFT_OFF;
    plain_way.memory = 0;
    float *const plain = answers(path, ids, &plain_way, &n_plain, NULL);
    h.draft = FM_DRAFT_ON;
    float *const drafted = answers(path, ids, &h, &n_drafted, &right);
    assert_int_equal(n_plain, n_drafted);
    assert_memory_equal(plain, drafted,
                        n_plain * (size_t)tiny_spec_find(spec)->n_vocab * sizeof *plain);
    print_message("%-12s %-5s %-9s %d drafts right\n", spec, type, h.kernels ? h.kernels : "best",
                  (int)right);
    free(plain);
    free(drafted);
}

static void answers_do_not_change(void **state)
{
    (void)state;
    static const char *const specs[] = {"qwen35moe-e", "qwen3next-e", "glm4moe-b"};
    for (int i = 0; i < 3; i++) {
        check_answers(specs[i], "F32", (how){0});
        check_answers(specs[i], "F32", (how){.n_batch = 2, .is_f16 = true});
        check_answers(specs[i], "F32", (how){.n_batch = 3});
    }
    const char *const *kernels = fm_kernels_available();
    for (int i = 0; kernels[i]; i++)
        check_answers("qwen35moe-r", "Q4_K", (how){.kernels = kernels[i], .is_f16 = i % 2 == 0});
}

/* Wherever the experts are: the trunk in memory, with few slots. */
static void answers_do_not_change_when_experts_are_streamed(void **state)
{
    (void)state;
    static const char *const specs[] = {"qwen35moe-e", "glm4moe-b"};
    for (int i = 0; i < 2; i++) {
        const char *const path = tiny_file(specs[i], "F32", NULL);
        fm_engine *e = open_model(path, &(how){.draft = FM_DRAFT_ON});
        fm_plan plan;
        fm_engine_plan(e, &plan);
        fm_engine_close(e);
        assert_int_equal(plan.expert_slots, plan.experts_total);
        uint64_t slots = 0;
        for (int k = 0; k < plan.n_line; k++)
            if (strcmp(plan.lines[k].name, FM_LINE_SLOTS) == 0) slots = plan.lines[k].bytes;
        const uint64_t few = plan.total_bytes - slots / 10 * 9;
        e = open_model(path, &(how){.draft = FM_DRAFT_ON, .memory = few});
        fm_engine_plan(e, &plan);
        assert_true(plan.expert_slots < plan.experts_total / 2);
        fm_engine_close(e);
        check_answers(specs[i], "F32", (how){.memory = few});
        /* by itself the engine would not draft here */
        e = open_model(path, &(how){.draft = FM_DRAFT_AUTO, .memory = few});
        fm_model_info info;
        fm_engine_model_info(e, &info);
        assert_false(info.uses_draft);
        assert_int_equal(info.n_draft_layer, 1);
        fm_engine_close(e);
        e = open_model(path, &(how){.draft = FM_DRAFT_AUTO});
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
    fm_engine *e = open_model(path, &(how){.draft = FM_DRAFT_OFF});
    fm_plan plan;
    fm_engine_plan(e, &plan);
    fm_engine_close(e);
    check_refused(path, plan.min_memory_bytes, 64, "smallest plan");
    uint64_t trunk = 0;
    for (int i = 0; i < plan.n_line; i++)
        if (strcmp(plan.lines[i].name, FM_LINE_TRUNK) == 0) trunk = plan.lines[i].bytes;
    check_refused(path, plan.min_memory_bytes + trunk / 2, 64, "pieces fit");

    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = path;
    o.memory_budget = MEMORY;
    o.draft = FM_DRAFT_ON;
    o.trace_path = scratch_path("none.trace");
    fm_error err = {0};
    assert_int_equal(fm_engine_open(&e, &o, &err), FM_E_ARG);
    assert_non_null(strstr(err.msg, "routing trace"));
}

/* The draft layer takes memory, but neither context nor the smallest budget from anybody who did not ask for it. */
static void plans_are_those_without_drafts(void **state)
{
    (void)state;
    static const char *const specs[] = {"qwen35moe-e", "glm4moe-b"};
    int n_drafting = 0, n_shorter = 0;
    for (int i = 0; i < 2; i++) {
        const char *const path = tiny_file(specs[i], "F32", NULL);
        for (uint64_t memory = UINT64_C(11) << 20; memory < UINT64_C(160) << 20;
             memory += memory / 29) {
            fm_plan plan[2];
            fm_status st[2];
            fm_model_info info;
            for (int k = 0; k < 2; k++) {
                fm_engine_options o;
                fm_engine_options_init(&o);
                o.model_path = path;
                o.memory_budget = memory;
                o.n_threads = 2;
                o.plan_only = true;
                o.draft = k == 0 ? FM_DRAFT_OFF : FM_DRAFT_AUTO;
                fm_engine *e;
                st[k] = fm_engine_open(&e, &o, NULL);
                if (st[k] != FM_OK) continue;
                fm_engine_plan(e, &plan[k]);
                fm_engine_model_info(e, &info);
                fm_engine_close(e);
            }
            assert_int_equal(st[0], st[1]);
            if (st[0] != FM_OK) continue;
            assert_int_equal(plan[0].n_ctx, plan[1].n_ctx);
            assert_int_equal(plan[0].min_memory_bytes, plan[1].min_memory_bytes);
            assert_true(plan[1].total_bytes <= memory);
            assert_true(plan[1].budget_given);
            n_drafting += info.uses_draft;
            n_shorter += plan[0].n_ctx < 8192;
        }
    }
    assert_true(n_drafting > 3 && n_shorter > 3);
}

/* A session begins without what the last one left. */
static void sessions_begin_without_drafts(void **state)
{
    (void)state;
    int32_t ids[N_TOKENS];
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find("glm4moe-b"));
    fm_engine *e = open_model(tiny_file("glm4moe-b", "F32", NULL), &(how){.draft = FM_DRAFT_ON});
    fm_session *s = open_session(e);
    eval(s, ids, 20, NULL);
    eval(s, &ids[20], 1, NULL);
    const uint64_t before = n_drafts(e, NULL);
    assert_true(before > 0);
    fm_session_destroy(s);
    s = open_session(e);
    eval(s, ids, 1, NULL); /* there is no hidden state to draft from */
    assert_int_equal(n_drafts(e, NULL), before);
    eval(s, &ids[1], 1, NULL);
    assert_int_equal(n_drafts(e, NULL), before + 1);
    fm_session_destroy(s);
    fm_engine_close(e);
}

static int n_warned;

static void on_log(void *user, fm_log_level level, const char *line)
{
    (void)user;
    n_warned += level == FM_LOG_WARN && strstr(line, "no more drafts: row of the embedding");
}

static struct {
    fm_status (*read)(void *user, void *dst, size_t n, int plane, uint64_t offset, fm_error *err);
    bool fails; /* the next time */
} embedding;

static fm_status read_row(void *user, void *dst, size_t n, int plane, uint64_t offset,
                          fm_error *err)
{
    if (!embedding.fails) return embedding.read(user, dst, n, plane, offset, err);
    embedding.fails = false;
    return fm_fail(err, FM_E_IO, "row of the embedding");
}

/* What fails in the draft layer ends the drafts, not the answer. */
static void a_draft_layer_that_fails_ends_the_drafts(void **state)
{
    (void)state;
    int32_t ids[N_TOKENS];
    size_t n_plain;
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find("qwen35moe-e"));
    const char *const path = tiny_file("qwen35moe-e", "F32", NULL);
    float *const plain = answers(path, ids, &(how){.draft = FM_DRAFT_OFF}, &n_plain, NULL);
    for (int32_t at = N_PROMPT; at < N_PROMPT + 6; at++) {
        fm_engine *e = open_model(path, &(how){.draft = FM_DRAFT_ON});
        e->log = on_log;
        embedding.read = e->run->opt.read_embd;
        embedding.fails = false;
        e->run->opt.read_embd = read_row;
        fm_session *s = open_session(e);
        const size_t n_vocab = (size_t)e->model->hp.n_vocab;
        n_warned = 0;
        eval(s, ids, N_PROMPT, NULL);
        uint64_t before = 0;
        for (int32_t t = N_PROMPT; t < N_PROMPT + 8; t++) { /* answers() steps by one here */
            embedding.fails = t == at; /* the draft layer is the first to read */
            before = n_drafts(e, NULL);
            eval(s, &ids[t], 1, NULL);
            assert_memory_equal(plain + (size_t)(t - N_PROMPT + 1) * n_vocab, fm_session_logits(s),
                                n_vocab * sizeof *plain);
        }
        assert_int_equal(n_warned, 1);
        assert_int_equal(n_drafts(e, NULL), before);
        fm_session_destroy(s);
        fm_engine_close(e);
    }
    free(plain);
}

static void an_expected_token_must_exist(void **state)
{
    (void)state;
    fm_engine *e = open_model(tiny_file("qwen35moe-e", "F32", NULL), &(how){.draft = FM_DRAFT_ON});
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

/* Stopped at any moment the session is empty, or as it was before the call where the model can go back; and what is
 * then evaluated is as in a new one. */
static void stop_everywhere(const char *spec, bool goes_back)
{
    int32_t ids[N_TOKENS];
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find(spec));
    fm_engine *e = open_model(tiny_file(spec, "F32", NULL), &(how){.draft = FM_DRAFT_ON});
    fm_session *s = open_session(e);
    const size_t n = (size_t)e->model->hp.n_vocab;
    float *const expected = malloc(n * sizeof *expected);
    assert_non_null(expected);
    eval(s, ids, 20, NULL);
    for (int t = 20; t < 24; t++) eval(s, &ids[t], 1, NULL);
    memcpy(expected, fm_session_logits(s), n * sizeof *expected);
    for (int after = 1, stopped = 1; stopped; after++) {
        fm_session_reset(s);
        int left = after;
        const fm_eval_options o = {
            .struct_size = sizeof o, .progress = stop_later, .progress_user = &left};
        fm_error err = {0};
        int done = 0;
        fm_status st = fm_session_eval(s, ids, 20, &o, &err);
        if (st == FM_OK) done = 20;
        for (; done >= 20 && done < 24 && st == FM_OK; done += st == FM_OK)
            st = fm_session_eval(s, &ids[done], 1, &o, &err);
        stopped = st != FM_OK;
        if (!stopped) break;
        assert_int_equal(st, FM_E_CANCELLED);
        if (!goes_back) done = 0;
        assert_int_equal(fm_session_n_past(s), done);
        assert_null(fm_session_logits(s));
        if (done == 0) {
            eval(s, ids, 20, NULL);
            done = 20;
        }
        for (; done < 24; done++) eval(s, &ids[done], 1, NULL);
        assert_memory_equal(expected, fm_session_logits(s), n * sizeof *expected);
        assert_true(after < 3000);
    }
    free(expected);
    fm_session_destroy(s);
    fm_engine_close(e);
}

static void a_stop_leaves_nothing_behind(void **state)
{
    (void)state;
    stop_everywhere("qwen35moe-e", false);
    stop_everywhere("glm4moe-b", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draft_logits_agree),
        cmocka_unit_test(draft_logits_of_lower_ids_agree),
        cmocka_unit_test(answers_do_not_change),
        cmocka_unit_test(answers_do_not_change_when_experts_are_streamed),
        cmocka_unit_test(what_cannot_draft_says_why),
        cmocka_unit_test(plans_are_those_without_drafts),
        cmocka_unit_test(sessions_begin_without_drafts),
        cmocka_unit_test(a_draft_layer_that_fails_ends_the_drafts),
        cmocka_unit_test(an_expected_token_must_exist),
        cmocka_unit_test(a_stop_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
