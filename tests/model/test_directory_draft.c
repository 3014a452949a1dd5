/* The draft layer of a Hugging Face directory: under the names, in the shapes and with the values that the GGUF file of the
 * same model has; and left out as a whole where it is not whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format/checkpoint.h"
#include "support/directory.h"
#include "support/fixture.h"

enum { F32 = 0, BF16 = 30 };

static fm_checkpoint *open_checkpoint(const char *path)
{
    fm_checkpoint *c;
    fm_error err = {0};
    if (fm_checkpoint_open(&c, path, &err) != FM_OK) fail_msg("%s", err.msg);
    return c;
}

static uint32_t meta(const fm_checkpoint *c, const tiny_spec *s, const char *key)
{
    char name[96];
    uint32_t v;
    fm_error err = {0};
    snprintf(name, sizeof name, "%s.%s", tiny_family_name(s->family), key);
    if (fm_meta_u32(c, name, &v, &err) != FM_OK) fail_msg("%s", err.msg);
    return v;
}

static const fm_tensor_info *find(const fm_checkpoint *c, const tiny_spec *s, const char *tail)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%d.%s", s->n_layer, tail);
    return fm_checkpoint_find(c, name);
}

static void read_at(const fm_checkpoint *c, int32_t file, uint64_t offset, void *to, size_t n)
{
    FILE *f = fopen(fm_checkpoint_file(c, file), "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)offset, SEEK_SET), 0);
    assert_int_equal(fread(to, 1, n, f), n);
    fclose(f);
}

/* The values of an F32 or BF16 tensor as they are loaded: malloc'd [dim[2]][dim[1]][dim[0]]. */
static float *values(const fm_checkpoint *c, const fm_tensor_info *t)
{
    const size_t width = t->type == F32 ? 4 : 2, n_mat = (size_t)t->dim[2];
    const size_t each = (size_t)(t->dim[0] * t->dim[1]);
    assert_true(t->type == F32 || t->type == BF16);
    uint8_t *raw = malloc(n_mat * each * width);
    float *out = malloc(n_mat * each * sizeof *out);
    assert_true(raw && out);
    if (!t->each) read_at(c, t->file, t->offset, raw, n_mat * each * width);
    for (size_t m = 0; t->each && m < n_mat; m++)
        read_at(c, t->each[m].file, t->each[m].offset, raw + m * each * width, each * width);
    for (size_t i = 0; i < n_mat * each; i++) {
        uint32_t bits = 0;
        memcpy((uint8_t *)&bits + 4 - width, raw + i * width, width);
        memcpy(&out[i], &bits, sizeof bits);
        if (t->fix == FM_FIX_ADD_ONE) out[i] += 1.0f;
    }
    free(raw);
    return out;
}

/* Bit for bit; a BF16 is the value cut off, a norm's before its 1 is added. */
static void same_values(const char *name, const float *ours, const float *gguf, size_t n,
                        bool is_bf16, float one)
{
    for (size_t i = 0; i < n; i++) {
        const float w = gguf[i] - one, d = ours[i] - gguf[i];
        const float allowed = is_bf16 ? (w < 0 ? -w : w) / 128 + 1e-6f : 0;
        if (!(d <= allowed && -d <= allowed))
            fail_msg("%s: value %zu is %.9g, the file has %.9g", name, i, (double)ours[i],
                     (double)gguf[i]);
    }
}

/* The rows [row0, row0 + dim[1]) of each matrix of `ours` are those of `gguf`. */
static void compare_rows(const fm_checkpoint *c, const fm_tensor_info *ours, const fm_checkpoint *g,
                         const fm_tensor_info *gguf, int64_t row0)
{
    assert_int_equal(gguf->type, F32);
    assert_int_equal(ours->dim[0], gguf->dim[0]);
    assert_int_equal(ours->dim[2], gguf->dim[2]);
    assert_true(row0 + gguf->dim[1] <= ours->dim[1]);
    if (ours->type != F32 && ours->type != BF16) { /* codes: coded_bytes() */
        assert_true(ours->aux[0].bytes > 0);
        return;
    }
    float *const a = values(c, ours), *const b = values(g, gguf);
    const size_t n = (size_t)(gguf->dim[0] * gguf->dim[1]);
    for (int64_t m = 0; m < gguf->dim[2]; m++)
        same_values(gguf->name, a + (m * ours->dim[1] + row0) * ours->dim[0], b + (size_t)m * n, n,
                    ours->type == BF16, ours->fix == FM_FIX_ADD_ONE ? 1.0f : 0.0f);
    free(a);
    free(b);
}

/* Every tensor of the file's draft layer is in the directory and no other is; gate and up may be one there. */
static void compare(const fm_checkpoint *c, const fm_checkpoint *g, const tiny_spec *s)
{
    char prefix[32];
    const int n = snprintf(prefix, sizeof prefix, "blk.%d.", s->n_layer);
    const fm_tensor_info *fused = find(c, s, "ffn_gate_up_exps.weight");
    int wanted = 0, found = 0;
    for (int64_t i = 0; i < fm_checkpoint_n_tensor(g); i++) {
        const fm_tensor_info *t = fm_checkpoint_tensor(g, i);
        if (strncmp(t->name, prefix, (size_t)n) != 0) continue;
        wanted++;
        const bool is_up = strcmp(t->name + n, "ffn_up_exps.weight") == 0;
        const fm_tensor_info *ours = fm_checkpoint_find(c, t->name);
        if (!ours && fused && (is_up || strcmp(t->name + n, "ffn_gate_exps.weight") == 0)) {
            assert_int_equal(fused->dim[1], 2 * t->dim[1]);
            compare_rows(c, fused, g, t, is_up ? t->dim[1] : 0);
            continue;
        }
        if (!ours) fail_msg("%s is missing", t->name);
        assert_int_equal(ours->dim[1], t->dim[1]);
        compare_rows(c, ours, g, t, 0);
    }
    for (int64_t i = 0; i < fm_checkpoint_n_tensor(c); i++)
        found += strncmp(fm_checkpoint_tensor(c, i)->name, prefix, (size_t)n) == 0;
    assert_true(wanted > 15);
    assert_int_equal(found, wanted - (fused != NULL));
}

/* FP8 codes lie where the writer put those of the stored name. */
static void coded_bytes(const fm_checkpoint *c, const tiny_spec *s, const char *tail, int expert,
                        const char *stored)
{
    const fm_tensor_info *t = find(c, s, tail);
    assert_non_null(t);
    uint8_t got[8];
    uint64_t word = tiny_word(tiny_key(stored, s->seed), 0);
    if (t->each) /* two planes each */
        read_at(c, t->each[2 * expert].file, t->each[2 * expert].offset, got, 8);
    else
        read_at(c, t->file, t->offset, got, 8);
    for (int i = 0; i < 8; i++, word >>= 8) {
        uint8_t byte = (uint8_t)word;
        if ((byte & 0x7f) == 0x7f) byte--; /* no NaN */
        assert_int_equal(got[i], byte);
    }
}

static void draft_layers_are_those_of_gguf_files(void **state)
{
    (void)state;
    static const struct {
        directory_options opt;
        int n_unused;
    } all[] = {
        {{.spec = "qwen35moe-e", .format = "plain"}, 0},
        {{.spec = "qwen35moe-e", .format = "plain", .draft_unlike = true}, 0},
        {{.spec = "qwen35moe-e",
          .format = "plain",
          .one_by_one = true,
          .draft_unlike = true,
          .n_shards = 3,
          .multimodal = true},
         1},
        {{.spec = "qwen3next-e", .format = "plain", .one_by_one = true}, 0},
        {{.spec = "qwen3next-e", .format = "fp8", .n_shards = 2}, 0},
        {{.spec = "qwen35moe-r", .format = "fp8", .draft_unlike = true, .multimodal = true}, 1},
        {{.spec = "glm4moe-b", .format = "plain", .multimodal = true}, 2},
        {{.spec = "glm4moe-b", .format = "plain", .one_by_one = true, .n_shards = 2}, 2},
        {{.spec = "glm4moe-b", .format = "fp8"}, 2}, /* whose odd rows are BF16 */
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char name[64];
        const tiny_spec *s = tiny_spec_find(all[i].opt.spec);
        snprintf(name, sizeof name, "draft-%zu", i);
        directory_write(scratch_path(name), &all[i].opt);
        fm_checkpoint *c = open_checkpoint(scratch_path(name));
        fm_checkpoint *g = open_checkpoint(tiny_file(s->name, "F32", NULL));
        compare(c, g, s);
        fm_unused_tensors unused;
        fm_checkpoint_unused(c, &unused);
        assert_int_equal(unused.n_draft, all[i].n_unused);
        assert_int_equal(unused.draft_bytes > 0, all[i].n_unused > 0);
        assert_int_equal(meta(c, s, "block_count"), meta(g, s, "block_count"));
        assert_int_equal(meta(c, s, "nextn_predict_layers"), 1);
        if (strcmp(all[i].opt.format, "fp8") == 0 && tiny_is_hybrid(s)) {
            coded_bytes(c, s, "attn_q.weight", 0, "mtp.layers.0.self_attn.q_proj.weight");
            if (!all[i].opt.draft_unlike)
                coded_bytes(c, s, "ffn_down_exps.weight", 3,
                            "mtp.layers.0.mlp.experts.3.down_proj.weight");
        }
        fm_checkpoint_close(c);
        fm_checkpoint_close(g);
    }
}

/* Nothing of the draft layer is in the directory's checkpoint, and n tensors are counted. */
static void left_out(const char *directory, const tiny_spec *s, int64_t n)
{
    fm_checkpoint *c = open_checkpoint(directory);
    fm_unused_tensors unused;
    char prefix[32];
    const int len = snprintf(prefix, sizeof prefix, "blk.%d.", s->n_layer);
    for (int64_t i = 0; i < fm_checkpoint_n_tensor(c); i++)
        assert_true(strncmp(fm_checkpoint_tensor(c, i)->name, prefix, (size_t)len) != 0);
    assert_int_equal(meta(c, s, "block_count"), s->n_layer);
    assert_int_equal(meta(c, s, "nextn_predict_layers"), 0);
    fm_checkpoint_unused(c, &unused);
    assert_int_equal(unused.n_draft, n);
    fm_checkpoint_close(c);
}

static void directories_without_a_draft_layer_say_so(void **state)
{
    (void)state;
    static const directory_options all[] = {
        {.spec = "qwen35moe-a", .format = "plain"},
        {.spec = "qwen35moe-r",
         .format = "mlx4"}, /* config.json says 1, the converter dropped it */
        {.spec = "glm4moe-a", .format = "plain"},
        {.spec = "qwen35moe-c", .format = "plain", .multimodal = true}, /* mtp.fc.weight alone */
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "none-%zu", i);
        directory_write(scratch_path(name), &all[i]);
        left_out(scratch_path(name), tiny_spec_find(all[i].spec), all[i].multimodal);
    }
}

/* What is renamed as a vision tensor is missing; another name is one too many. A layer has 13 tensors beside its experts
 * (GLM: 14), its three of each expert, and 4 ends; GLM two copies. */
static void draft_layers_that_are_not_whole_are_left_out(void **state)
{
    (void)state;
    static const directory_options qwen = {.spec = "qwen35moe-e",
                                           .format = "plain",
                                           .one_by_one = true},
                                   glm = {.spec = "glm4moe-b", .format = "plain"};
    enum { QWEN = 13 + 36 * 3 + 4, GLM = 14 + 2 + 4 + 2 };
    static const struct {
        const directory_options *in;
        const char *from, *to;
        int n_left;
    } cases[] = {
        {&qwen, "\"mtp.norm.weight\"", "\"visual.n.weight\"", QWEN - 1},
        {&qwen, "\"mtp.fc.weight\"", "\"mtp.fd.weight\"", QWEN},
        {&qwen, "\"mtp.layers.0.mlp.gate.weight\"", "\"visual.ers.0.mlp.gate.weight\"", QWEN - 1},
        {&qwen, "\"mtp.layers.0.mlp.experts.35.up_proj", "\"visual.ers.0.mlp.experts.35.up_proj",
         QWEN - 1},
        /* an expert that the model does not have, one stored whole, one weight under two names */
        {&qwen, "\"mtp.layers.0.mlp.experts.35.up_proj", "\"mtp.layers.0.mlp.experts.36.up_proj",
         QWEN},
        {&qwen, "\"mtp.layers.0.mlp.experts.35.up_proj.weight\"",
         "\"mtp.layers.0.mlp.experts.up_proj\"          ", QWEN},
        {&qwen, "\"mtp.layers.0.mlp.experts.10.up_proj", "\"mtp.layers.0.mlp.experts.09.up_proj",
         QWEN},
        {&qwen, "\"mtp.layers.0.self_attn.k_norm", "\"mtp.layers.0.self_attn.j_norm", QWEN},
        {&qwen, "\"mtp.layers.0.self_attn.k_norm", "\"mtp.layers.1.self_attn.k_norm", QWEN},
        {&qwen, "\"mtp.layers.0.mlp.shared_expert_gate.w",
         "\"mtp.layers.x.mlp.shared_expert_gate.w", QWEN},
        {&glm, "\"model.layers.5.enorm.weight\"", "\"model.visual.5.enorm.weight\"", GLM - 1},
        {&glm, "\"model.layers.5.hnorm.weight\"", "\"model.layers.6.hnorm.weight\"", GLM},
        {&glm, "\"model.layers.5.self_attn.k_proj.bias\"",
         "\"model.visual.5.self_attn.k_proj.bias\"", GLM - 1},
        {&glm, "\"model.layers.5.mlp.experts.down_proj\"",
         "\"model.visual.5.mlp.experts.down_proj\"", GLM - 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[1000], path[1200];
        size_t n;
        snprintf(dir, sizeof dir, "%s", scratch_path(cases[i].in == &glm ? "cut-glm" : "cut-qwen"));
        snprintf(path, sizeof path, "%s/model.safetensors", dir);
        FILE *f = fopen(path, "rb");
        if (!f) directory_write(dir, cases[i].in);
        if (f) fclose(f);
        char *before = file_replace(path, cases[i].from, cases[i].to, &n);
        left_out(dir, tiny_spec_find(cases[i].in->spec), cases[i].n_left);
        file_restore(path, before, n);
    }
}

/* What is there is read as in any other layer. */
static void damage_in_a_draft_layer_is_refused(void **state)
{
    (void)state;
    static const directory_options opt = {.spec = "qwen3next-e", .format = "fp8"};
    static const struct {
        const char *from, *to, *expect;
    } cases[] = {
        {"\"mtp.layers.0.self_attn.q_proj.weight_scale_inv\"",
         "\"visual.ers.0.self_attn.q_proj.weight_scale_inv\"",
         "tensor mtp.layers.0.self_attn.q_proj.weight is of type F8_E4M3 and has no scales"},
        {"\"mtp.layers.0.mlp.experts.9.up_proj.weight\": {\"dtype\": \"F8_E4M3\"",
         "\"mtp.layers.0.mlp.experts.9.up_proj.weight\": {\"dtype\": \"I8\"     ", "mtp.layers.0"},
    };
    char path[1200];
    const char *const dir = strdup(scratch_path("damage"));
    directory_write(dir, &opt);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n;
        fm_checkpoint *c = NULL;
        fm_error err = {0};
        char *before = file_replace(path, cases[i].from, cases[i].to, &n);
        const fm_status st = fm_checkpoint_open(&c, dir, &err);
        if (st == FM_OK || !strstr(err.msg, cases[i].expect))
            fail_msg("status %d: \"%s\", expected \"%s\"", st, err.msg, cases[i].expect);
        file_restore(path, before, n);
    }
    free((void *)(uintptr_t)dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draft_layers_are_those_of_gguf_files),
        cmocka_unit_test(directories_without_a_draft_layer_say_so),
        cmocka_unit_test(draft_layers_that_are_not_whole_are_left_out),
        cmocka_unit_test(damage_in_a_draft_layer_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
