/* quantize of the families with latent attention: kv_b_proj of a directory becomes attn_k_b and attn_v_b, the same bytes as in files
 * that were written with these two tensors (tests/tiny), in every type; logits stay those of the directory; a run
 * that is stopped in between ends in the same file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/checkpoint.h"
#include "quant/quant.h"
#include "support/directory.h"
#include "support/fixture.h"
#include "support/logits.h"

enum { N_TOKENS = 64 };

static void remember(void *user, fm_log_level level, const char *line)
{
    (void)level;
    const size_t n = strlen(user);
    snprintf((char *)user + n, 4000 - n, "%s\n", line);
}

static void quantize(const char *from, const char *to, const char *type, char *said)
{
    fm_error err = {0};
    const fm_quantize_options o = {.struct_size = sizeof o,
                                   .source = from,
                                   .destination = to,
                                   .type = type,
                                   .n_threads = 2,
                                   .log = said ? remember : NULL,
                                   .log_user = said};
    unlink(to);
    if (fm_quantize(&o, NULL, &err) != FM_OK) fail_msg("%s to %s: %s", from, type, err.msg);
}

static fm_checkpoint *open_file(const char *path)
{
    fm_checkpoint *c;
    fm_error err = {0};
    if (fm_checkpoint_open(&c, path, &err) != FM_OK) fail_msg("%s", err.msg);
    return c;
}

static const fm_tensor_info *find(const fm_checkpoint *c, int layer, const char *name)
{
    char full[80];
    snprintf(full, sizeof full, "blk.%d.%s.weight", layer, name);
    return fm_checkpoint_find(c, full);
}

static unsigned char *bytes_of(const fm_checkpoint *c, const fm_tensor_info *t)
{
    FILE *f = fopen(fm_checkpoint_file(c, t->file), "rb");
    unsigned char *v = malloc(t->bytes);
    assert_true(f && v && fseek(f, (long)t->offset, SEEK_SET) == 0);
    assert_int_equal(fread(v, 1, t->bytes, f), t->bytes);
    fclose(f);
    return v;
}

static void same_tensor(const fm_checkpoint *got, const fm_checkpoint *want,
                        const fm_tensor_info *w)
{
    const fm_tensor_info *g = fm_checkpoint_find(got, w->name);
    if (!g) fail_msg("%s is missing", w->name);
    if (g->type != w->type || g->n_dim != w->n_dim || memcmp(g->dim, w->dim, sizeof g->dim) != 0)
        fail_msg("%s: type %s, [%lld, %lld, %lld]", w->name, fm_type_name(g->type),
                 (long long)g->dim[0], (long long)g->dim[1], (long long)g->dim[2]);
    unsigned char *a = bytes_of(got, g), *b = bytes_of(want, w);
    for (uint64_t i = 0; i < w->bytes; i++)
        if (a[i] != b[i]) fail_msg("%s: differs at byte %llu", w->name, (unsigned long long)i);
    free(a);
    free(b);
}

static void key_is(const fm_checkpoint *c, const char *tail, uint32_t want)
{
    char key[160];
    fm_str arch;
    uint32_t v;
    fm_error err = {0};
    assert_int_equal(fm_meta_str(c, "general.architecture", &arch, &err), FM_OK);
    snprintf(key, sizeof key, "%s.%s", arch.data, tail);
    if (fm_meta_u32(c, key, &v, &err) != FM_OK) fail_msg("%s", err.msg);
    if (v != want) fail_msg("%s is %u, expected %u", key, v, want);
}

/* Shapes and keys as llama.cpp's converter writes them (docs/models.md). */
static void check_form(const fm_checkpoint *c, const tiny_spec *s)
{
    for (int i = 0; i < s->n_layer; i++) {
        const fm_tensor_info *k = find(c, i, "attn_k_b"), *v = find(c, i, "attn_v_b");
        assert_null(find(c, i, "attn_kv_b"));
        assert_true(k && v && k->n_dim == 3 && v->n_dim == 3);
        assert_int_equal(k->dim[0], s->head_dim);
        assert_int_equal(k->dim[1], s->kv_latent);
        assert_int_equal(k->dim[2], s->n_head);
        assert_int_equal(v->dim[0], s->kv_latent);
        assert_int_equal(v->dim[1], s->value_dim);
        assert_int_equal(v->dim[2], s->n_head);
    }
    key_is(c, "attention.head_count", (uint32_t)s->n_head);
    key_is(c, "attention.head_count_kv", 1);
    key_is(c, "attention.key_length", (uint32_t)(s->kv_latent + s->rope_dim));
    key_is(c, "attention.value_length", (uint32_t)s->kv_latent);
    key_is(c, "attention.key_length_mla", (uint32_t)(s->head_dim + s->rope_dim));
    key_is(c, "attention.value_length_mla", (uint32_t)s->value_dim);
    key_is(c, "attention.kv_lora_rank", (uint32_t)s->kv_latent);
    key_is(c, "expert_gating_func", 2);
}

static float *logits_of(const char *model, const char *spec)
{
    int32_t ids[N_TOKENS];
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find(spec));
    const eval_setup s = {.batch = 64, .kv = FM_KV_F32, .kernels = "reference"};
    return eval_logits(model, ids, N_TOKENS, &s, NULL, NULL);
}

/* A plain directory holds the values of the file that tests/tiny writes with k_b and v_b. */
static void heads_are_those_of_files_that_have_them_apart(void **state)
{
    (void)state;
    static const struct {
        const char *spec, *type;
    } cases[] = {
        {"deepseek2-a", "F32"},  {"deepseek2-a", "BF16"}, {"deepseek2-q", "Q8_0"},
        {"deepseek2-q", "Q4_K"}, {"deepseek32-q", "F16"}, {"deepseek32-a", "BF16"},
        {"glm-dsa-a", "BF16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const spec = cases[i].spec;
        const tiny_spec *s = tiny_spec_find(spec);
        char name[80], from[600], to[620], file[620];
        if (s->has_kv_b) fail_msg("%s is written with attn_kv_b", spec);
        const directory_options opt = {.spec = spec, .format = "plain", .n_shards = (int)i % 3};
        snprintf(name, sizeof name, "%s-%s", spec, cases[i].type);
        snprintf(from, sizeof from, "%s", scratch_path(name));
        snprintf(to, sizeof to, "%s.gguf", from);
        snprintf(file, sizeof file, "%s-file.gguf", from);
        directory_write(from, &opt);
        quantize(from, to, cases[i].type, NULL);
        quantize(tiny_file(spec, "F32", NULL), file, cases[i].type, NULL);
        fm_checkpoint *got = open_file(to), *want = open_file(file);
        check_form(got, s);
        assert_int_equal(fm_checkpoint_n_tensor(got), fm_checkpoint_n_tensor(want));
        for (int64_t k = 0; k < fm_checkpoint_n_tensor(want); k++)
            same_tensor(got, want, fm_checkpoint_tensor(want, k));
        fm_checkpoint_close(got);
        fm_checkpoint_close(want);
        if (strcmp(cases[i].type, "BF16") != 0) continue; /* one of each family */
        float *a = logits_of(to, spec), *b = logits_of(file, spec);
        assert_memory_equal(a, b, (size_t)N_TOKENS * (size_t)s->n_vocab * sizeof *a);
        free(a);
        free(b);
    }
}

/* The directory multiplies with rows of kv_b, the file with k_b: sums in another order, nothing else. */
static void logits_are_those_of_the_directory(void **state)
{
    (void)state;
    static const directory_options all[] = {
        {.spec = "deepseek2-a", .format = "plain"},
        {.spec = "deepseek2-s", .format = "int4", .multimodal = true},
        {.spec = "deepseek32-q", .format = "fp8"},
        {.spec = "glm-dsa-q", .format = "fp8", .n_shards = 2},
        {.spec = "deepseek2-q", .format = "mlx4"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char name[80], from[600], to[620];
        const tiny_spec *s = tiny_spec_find(all[i].spec);
        snprintf(name, sizeof name, "%s-%s-logits", s->name, all[i].format);
        snprintf(from, sizeof from, "%s", scratch_path(name));
        snprintf(to, sizeof to, "%s.gguf", from);
        directory_write(from, &all[i]);
        quantize(from, to, "F32", NULL);
        fm_checkpoint *c = open_file(to);
        check_form(c, s);
        fm_checkpoint_close(c);
        float *a = logits_of(to, s->name), *b = logits_of(from, s->name);
        const double worst = logits_compare(a, b, N_TOKENS, s->n_vocab).worst;
        print_message("%-28s row error %.1e\n", name, worst);
        if (!(worst <= 3e-5)) fail_msg("%s: row error %g", name, worst);
        free(a);
        free(b);
    }
}

/* Rows of k_b are as long as the part of a head without rope. */
static void rows_that_do_not_fit_a_type_are_said(void **state)
{
    (void)state;
    char from[600], to[620], said[4096] = "";
    const directory_options opt = {.spec = "glm-dsa-q", .format = "fp8"};
    snprintf(from, sizeof from, "%s", scratch_path("rows"));
    snprintf(to, sizeof to, "%s.gguf", from);
    directory_write(from, &opt);
    quantize(from, to, "Q4_K", said);
    fm_checkpoint *c = open_file(to);
    assert_int_equal(find(c, 0, "attn_k_b")->type, FM_TYPE_F16); /* 48 values */
    assert_int_equal(find(c, 0, "attn_q_a")->type, FM_TYPE_Q4_K);
    assert_int_equal(find(c, 0, "indexer.attn_q_b")->type, FM_TYPE_Q4_K);
    assert_int_equal(find(c, 0, "indexer.proj")->type, FM_TYPE_F32);
    fm_checkpoint_close(c);
    assert_non_null(strstr(said, "attn_k_b.weight has rows of 48, no multiple of the block: F16"));
}

static void heads_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *expect;
    } cases[] = {
        {"\"v_head_dim\": 96", "\"v_head_dim\": 95",
         "attn_kv_b.weight is 576 x 256, expected 572 x 256"},
        {"\"kv_lora_rank\": 256", "\"kv_lora_rank\": 255", "expected 576 x 255"},
        {"\"v_head_dim\": 96", "\"v_head_dim\": 0 ",
         "value_length_mla is 0, expected 1 to 1048576"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[20], from[600], to[620], config[620];
        const directory_options opt = {.spec = "glm-dsa-q", .format = "fp8"};
        snprintf(name, sizeof name, "damaged-%zu", i);
        snprintf(from, sizeof from, "%s", scratch_path(name));
        snprintf(to, sizeof to, "%s.gguf", from);
        snprintf(config, sizeof config, "%s/config.json", from);
        directory_write(from, &opt);
        size_t n;
        free(file_replace(config, cases[i].from, cases[i].to, &n));
        fm_error err = {0};
        const fm_quantize_options o = {.struct_size = sizeof o,
                                       .source = from,
                                       .destination = to,
                                       .type = "Q8_0",
                                       .n_threads = 1};
        if (fm_quantize(&o, NULL, &err) == FM_OK) fail_msg("%s is accepted", cases[i].to);
        if (!strstr(err.msg, cases[i].expect))
            fail_msg("%s: \"%s\", expected \"%s\"", cases[i].to, err.msg, cases[i].expect);
        assert_int_not_equal(access(to, F_OK), 0);
    }
}

/* Sums of squares that met k_b and v_b of a directory which has them in kv_b. */
static void collect(const char *model, const char *spec, const char *file)
{
    int32_t ids[N_TOKENS];
    tiny_token_ids(ids, N_TOKENS, tiny_spec_find(spec));
    fm_engine_options o;
    fm_engine_options_init(&o);
    o.model_path = model;
    o.memory_budget = UINT64_C(256) << 20;
    o.n_threads = 2;
    o.n_ctx = 256;
    o.collect_importance = true;
    fm_engine *e;
    fm_session *s;
    fm_error err = {0};
    if (fm_engine_open(&e, &o, &err) != FM_OK || fm_session_create(&s, e, &err) != FM_OK)
        fail_msg("%s", err.msg);
    const fm_eval_options eo = {.struct_size = sizeof eo};
    if (fm_session_eval(s, ids, N_TOKENS, &eo, &err) != FM_OK ||
        fm_engine_write_importance(e, file, "ids", 1, N_TOKENS, &err) != FM_OK)
        fail_msg("%s", err.msg);
    fm_session_destroy(s);
    fm_engine_close(e);
}

/* Squared error of a tensor, each column of each head weighted with its sum. */
static double weighted_error(const fm_checkpoint *got, const fm_checkpoint *exact,
                             const fm_checkpoint *sums, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "%s.in_sum2", name);
    const fm_tensor_info *g = fm_checkpoint_find(got, name), *x = fm_checkpoint_find(exact, name),
                         *w = fm_checkpoint_find(sums, full);
    assert_true(g && x && w && x->type == FM_TYPE_F32);
    assert_int_equal(g->type, FM_TYPE_Q4_0);
    assert_int_equal(w->dim[0], g->dim[0]);
    assert_int_equal(w->dim[1], g->dim[2]);
    const int64_t n = g->dim[0] * g->dim[1] * g->dim[2];
    unsigned char *coded = bytes_of(got, g), *plain = bytes_of(exact, x),
                  *weight = bytes_of(sums, w);
    float *decoded = malloc((size_t)n * sizeof *decoded);
    assert_non_null(decoded);
    fm_type_get(g->type)->decode(decoded, coded, n);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float want, of_column;
        memcpy(&want, plain + 4 * i, 4);
        memcpy(&of_column, weight + 4 * (i / (g->dim[0] * g->dim[1]) * g->dim[0] + i % g->dim[0]),
               4);
        sum += (double)of_column * (decoded[i] - want) * (decoded[i] - want);
    }
    free(coded);
    free(plain);
    free(weight);
    free(decoded);
    return sum;
}

static void importance_of_heads_makes_their_rounding_better(void **state)
{
    (void)state;
    static const char spec[] = "deepseek2-q", type[] = "Q4_0";
    char from[600], path[4][620];
    const directory_options opt = {.spec = spec, .format = "plain"};
    snprintf(from, sizeof from, "%s", scratch_path("importance"));
    for (int i = 0; i < 4; i++) snprintf(path[i], sizeof path[i], "%s-%d.gguf", from, i);
    directory_write(from, &opt);
    collect(from, spec, path[0]);
    quantize(from, path[1], "F32", NULL);
    quantize(from, path[2], type, NULL);
    const fm_quantize_options o = {.struct_size = sizeof o,
                                   .source = from,
                                   .destination = path[3],
                                   .type = type,
                                   .importance = path[0],
                                   .n_threads = 2};
    fm_error err = {0};
    if (fm_quantize(&o, NULL, &err) != FM_OK) fail_msg("%s", err.msg);
    fm_checkpoint *sums = open_file(path[0]), *exact = open_file(path[1]),
                  *alike = open_file(path[2]), *weighted = open_file(path[3]);
    for (int i = 0; i < tiny_spec_find(spec)->n_layer; i++) {
        for (int part = 0; part < 2; part++) {
            char name[80];
            snprintf(name, sizeof name, "blk.%d.attn_%c_b.weight", i, part ? 'v' : 'k');
            const double a = weighted_error(alike, exact, sums, name),
                         b = weighted_error(weighted, exact, sums, name);
            print_message("%s: error %.3f of that without\n", name, b / a);
            if (!(b < 0.998 * a)) fail_msg("%s: %g, without importance %g", name, b, a);
        }
    }
    fm_checkpoint_close(sums);
    fm_checkpoint_close(exact);
    fm_checkpoint_close(alike);
    fm_checkpoint_close(weighted);
}

static bool stop_after(void *user, fm_quantize_phase phase, uint64_t done, uint64_t total,
                       uint64_t resumed)
{
    (void)done, (void)total, (void)resumed;
    return phase != FM_QUANTIZE_WRITE || --*(int *)user > 0;
}

static void stopped_between_heads_it_ends_in_the_same_file(void **state)
{
    (void)state;
    char from[600], whole[620], to[620];
    const directory_options opt = {.spec = "deepseek2-q", .format = "fp8"};
    snprintf(from, sizeof from, "%s", scratch_path("stopped"));
    snprintf(whole, sizeof whole, "%s-whole.gguf", from);
    snprintf(to, sizeof to, "%s.gguf", from);
    directory_write(from, &opt);
    quantize(from, whole, "Q8_0", NULL);
    int n_run = 0;
    for (fm_status st = FM_E_CANCELLED; st != FM_OK; n_run++) {
        int left = 5;
        fm_error err = {0};
        const fm_quantize_options o = {.struct_size = sizeof o,
                                       .source = from,
                                       .destination = to,
                                       .type = "Q8_0",
                                       .n_threads = 2,
                                       .progress = stop_after,
                                       .progress_user = &left};
        st = fm_quantize(&o, NULL, &err);
        if (st != FM_OK && st != FM_E_CANCELLED) fail_msg("%s", err.msg);
        assert_true(n_run < 1000);
    }
    print_message("stopped %d times\n", n_run - 1);
    assert_true(n_run > 10);
    fm_checkpoint *got = open_file(to), *want = open_file(whole);
    assert_int_equal(fm_checkpoint_n_tensor(got), fm_checkpoint_n_tensor(want));
    for (int64_t k = 0; k < fm_checkpoint_n_tensor(want); k++)
        same_tensor(got, want, fm_checkpoint_tensor(want, k));
    fm_checkpoint_close(got);
    fm_checkpoint_close(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_those_of_files_that_have_them_apart),
        cmocka_unit_test(logits_are_those_of_the_directory),
        cmocka_unit_test(heads_that_do_not_fit_are_refused),
        cmocka_unit_test(rows_that_do_not_fit_a_type_are_said),
        cmocka_unit_test(importance_of_heads_makes_their_rounding_better),
        cmocka_unit_test(stopped_between_heads_it_ends_in_the_same_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
