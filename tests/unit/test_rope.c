/* Rotary frequencies against transformers 5.23 (ROPE_INIT_FUNCTIONS["yarn"] for a DeepseekV3Config with
 * head_dim 64, original_max_position_embeddings 4096, and mscale = mscale_all_dim = 1 but for
 * gpt-oss, which gives neither): its f32 values, printed with nine digits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "format/gguf_write.h"
#include "model/family.h"
#include "model/rope.h"
#include "support/fixture.h"

enum { N_ROT = 64 };

static const struct {
    const char *name;
    float base, factor, beta_fast, beta_slow;
    bool truncate;
    float attention_factor;
    double freq[N_ROT / 2];
} yarn[] = {
    {"DeepSeek-V3",
     10000,
     40,
     32,
     1,
     true,
     1,
     {1,
      0.749894202,
      0.562341332,
      0.421696514,
      0.316227764,
      0.237137362,
      0.177827939,
      0.133352146,
      0.100000001,
      0.0749894157,
      0.0562341288,
      0.0390069261,
      0.0268793609,
      0.0183781441,
      0.012447956,
      0.0083345091,
      0.00550000044,
      0.00356199732,
      0.00224936521,
      0.00137051346,
      0.000790569407,
      0.000414990413,
      0.00017782794,
      3.3338034e-05,
      2.49999994e-05,
      1.87473543e-05,
      1.40585325e-05,
      1.05424124e-05,
      7.90569447e-06,
      5.92843435e-06,
      4.44569832e-06,
      3.33380353e-06}},
    {"Kimi-K2",
     50000,
     64,
     1,
     1,
     true,
     1,
     {1,
      0.713111103,
      0.508527458,
      0.362636536,
      0.258600146,
      0.184410617,
      0.131505266,
      0.0937778577,
      0.0668740347,
      0.0476886146,
      0.0340072773,
      0.0242509674,
      0.0172936339,
      0.0123322811,
      0.00879428629,
      0.00627130363,
      0.00447213603,
      0.00318912975,
      0.00227420381,
      0.00162175996,
      1.80702336e-05,
      1.28860838e-05,
      9.18920978e-06,
      6.55292706e-06,
      4.67296513e-06,
      3.33234311e-06,
      2.37633071e-06,
      1.69458781e-06,
      1.20842935e-06,
      8.61744411e-07,
      6.14519479e-07,
      4.38220638e-07}},
    {"Kimi-K2.5",
     50000,
     64,
     32,
     1,
     true,
     1,
     {1,
      0.713111103,
      0.508527458,
      0.362636536,
      0.258600146,
      0.184410617,
      0.131505266,
      0.0937778577,
      0.0668740347,
      0.0437766574,
      0.0284279585,
      0.0182829555,
      0.01161916,
      0.00727411965,
      0.00446584867,
      0.0026702038,
      0.00153729669,
      0.000834655075,
      0.000408646069,
      0.000158374969,
      1.80702336e-05,
      1.28860838e-05,
      9.18920978e-06,
      6.55292706e-06,
      4.67296513e-06,
      3.33234311e-06,
      2.37633071e-06,
      1.69458781e-06,
      1.20842935e-06,
      8.61744411e-07,
      6.14519479e-07,
      4.38220638e-07}},
    {"gpt-oss",
     150000,
     32,
     32,
     1,
     false,
     1.34657359,
     {1,
      0.689044297,
      0.47478205,
      0.327145875,
      0.225418001,
      0.155322984,
      0.107024424,
      0.0737445652,
      0.0508132726,
      0.0317056961,
      0.0193349998,
      0.0115920492,
      0.00679495931,
      0.00386035908,
      0.00209379266,
      0.00105260219,
      0.000456483918,
      0.000129318694,
      3.83088118e-05,
      2.63964685e-05,
      1.8188337e-05,
      1.25325696e-05,
      8.63549576e-06,
      5.95023948e-06,
      4.09997847e-06,
      2.82506676e-06,
      1.94659629e-06,
      1.34129095e-06,
      9.24208962e-07,
      6.36820914e-07,
      4.38797855e-07,
      3.0235114e-07}},
};

static void yarn_frequencies_are_those_of_transformers(void **st)
{
    (void)st;
    for (size_t m = 0; m < sizeof yarn / sizeof yarn[0]; m++) {
        const fm_rope r = {.base = yarn[m].base,
                           .n_rot = N_ROT,
                           .scaling = FM_ROPE_YARN,
                           .factor = yarn[m].factor,
                           .n_ctx_original = 4096,
                           .beta_fast = yarn[m].beta_fast,
                           .beta_slow = yarn[m].beta_slow,
                           .truncate = yarn[m].truncate};
        double freq[N_ROT / 2];
        fm_rope_frequencies(&r, freq);
        for (int i = 0; i < N_ROT / 2; i++)
            if (!(fabs(freq[i] - yarn[m].freq[i]) <= 2e-6 * yarn[m].freq[i]))
                fail_msg("%s, pair %d: %.9g, expected %.9g", yarn[m].name, i, freq[i],
                         yarn[m].freq[i]);
    }
    assert_float_equal(fm_rope_mscale(32, 1), yarn[3].attention_factor, 1e-6);
}

static void plain_and_linear_frequencies(void **st)
{
    (void)st;
    const fm_rope plain = {.base = 1e7f, .n_rot = 4};
    const fm_rope linear = {.base = 1e7f, .n_rot = 4, .scaling = FM_ROPE_LINEAR, .factor = 4};
    double a[2], b[2];
    fm_rope_frequencies(&plain, a);
    fm_rope_frequencies(&linear, b);
    assert_true(a[0] == 1.0 && fabs(a[1] - 1.0 / sqrt(1e7)) < 1e-12);
    assert_true(b[0] == a[0] / 4 && b[1] == a[1] / 4);
}

static void tables_are_cosines_times_the_attention_factor(void **st)
{
    (void)st;
    const fm_rope r = {.base = 1e4f, .n_rot = 4, .attention_factor = 1.25f};
    double freq[2];
    float c[6], s[6];
    fm_rope_frequencies(&r, freq);
    fm_rope_tables(&r, freq, 100000, 3, c, s);
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < 2; i++) {
            const double angle = (100000 + t) * (i ? 0.01 : 1.0);
            assert_float_equal(c[t * 2 + i], 1.25 * cos(angle), 1e-6);
            assert_float_equal(s[t * 2 + i], 1.25 * sin(angle), 1e-6);
        }
}

/* ---- files that do not say it -------------------------------------------------------------- */

/* A file of a model of Kimi K2's shape. beta_fast 0: it does not say. */
typedef struct {
    const char *name;
    float factor, eps, beta_fast;
    uint32_t n_expert;
    float expected;
    bool notes;
} kimi_file;

static void read_file(const kimi_file *f, fm_hparams *hp)
{
    static const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {
        {"block_count", 61},
        {"embedding_length", 7168},
        {"feed_forward_length", 18432},
        {"leading_dense_block_count", 1},
        {"attention.head_count", 64},
        {"attention.kv_lora_rank", 512},
        {"attention.q_lora_rank", 1536},
        {"attention.key_length", 192},
        {"attention.value_length", 128},
        {"rope.dimension_count", 64},
        {"rope.scaling.original_context_length", 4096},
        {"expert_used_count", 8},
        {"expert_feed_forward_length", 2048},
        {"expert_gating_func", 2},
    };
    const char *path = scratch_path("kimi.gguf");
    char key[100];
    fm_gguf_writer *w;
    fm_error err = {0};
    assert_int_equal(fm_gguf_writer_open(&w, path, &err), FM_OK);
    fm_gguf_put_str(w, "general.architecture", "deepseek2");
    fm_gguf_put_str(w, "general.name", f->name);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        snprintf(key, sizeof key, "deepseek2.%s", numbers[i].key);
        fm_gguf_put_u32(w, key, numbers[i].v);
    }
    fm_gguf_put_u32(w, "deepseek2.expert_count", f->n_expert);
    fm_gguf_put_f32(w, "deepseek2.rope.freq_base", 50000);
    fm_gguf_put_f32(w, "deepseek2.attention.layer_norm_rms_epsilon", f->eps);
    fm_gguf_put_str(w, "deepseek2.rope.scaling.type", "yarn");
    fm_gguf_put_f32(w, "deepseek2.rope.scaling.factor", f->factor);
    if (f->beta_fast > 0) fm_gguf_put_f32(w, "deepseek2.rope.scaling.yarn_beta_fast", f->beta_fast);
    fm_gguf_add_tensor(w, "t", 0, 1, (int64_t[]){1}, 4, -1);
    assert_int_equal(fm_gguf_begin_data(w, &err), FM_OK);
    assert_int_equal(fm_gguf_write(w, "1234", 4, &err), FM_OK);
    assert_int_equal(fm_gguf_writer_close(w, &err), FM_OK);
    fm_checkpoint *c;
    if (fm_checkpoint_open(&c, path, &err) != FM_OK) fail_msg("%s", err.msg);
    *hp = (fm_hparams){0};
    if (fm_family_deepseek2.read(c, hp, &err) != FM_OK) fail_msg("%s", err.msg);
    fm_checkpoint_close(c);
}

/* By the published configurations K2-Instruct, 0905 and K2-Thinking have betas 1 and 1, K2.5 has 32 and 1. */
static void kimi_files_without_betas_get_those_of_their_model(void **state)
{
    (void)state;
    static const kimi_file files[] = {
        {"Kimi K2 Instruct", 32, 1e-6f, 0, 384, 1, false},
        {"Kimi K2 Instruct 0905", 64, 1e-6f, 0, 384, 1, false},
        {"Kimi K2 Thinking", 64, 1e-5f, 0, 384, 1, true},
        {"Kimi K2.5", 64, 1e-5f, 0, 384, 32, true},
        {"Kimi K2 Instruct", 32, 1e-6f, 32, 384, 32, false},
        {"Kimi K2.5", 64, 1e-5f, 32, 384, 32, false},
        {"DeepSeek V3", 40, 1e-6f, 0, 256, 32, false},
        {"another", 32, 1e-6f, 0, 256, 32, false},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        fm_hparams hp;
        read_file(&files[i], &hp);
        if (hp.rope.beta_fast != files[i].expected || hp.rope.beta_slow != 1.0f ||
            (hp.note != NULL) != files[i].notes)
            fail_msg("%s, factor %g: beta_fast %g, \"%s\"", files[i].name, (double)files[i].factor,
                     (double)hp.rope.beta_fast, hp.note ? hp.note : "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yarn_frequencies_are_those_of_transformers),
        cmocka_unit_test(plain_and_linear_frequencies),
        cmocka_unit_test(tables_are_cosines_times_the_attention_factor),
        cmocka_unit_test(kimi_files_without_betas_get_those_of_their_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
