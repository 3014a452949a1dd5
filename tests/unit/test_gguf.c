/* GGUF files that are right: everything in them can be asked for, also across shards. */
#include "test_gguf_files.h"

static fm_checkpoint *must_open(const char *path)
{
    fm_checkpoint *c;
    fm_error err = {0};
    if (fm_checkpoint_open(&c, path, &err) != FM_OK) fail_msg("%s", err.msg);
    return c;
}

/* Metadata of every kind and three tensors, two of which share their bytes. */
static void put_full(bytes *b)
{
    static const tensor_row tensors[] = {
        {"token_embd.weight", 2, {64, 3}, 8, 0},               /* Q8_0: 3 rows of 68 bytes */
        {"output.weight", 2, {64, 3}, 8, 0},                   /* tied: the same bytes     */
        {"blk.0.ffn_up_exps.weight", 3, {256, 2, 4}, 16, 256}, /* a type nobody computes with */
    };
    put_header(b, 3, 17);
    put_entry(b, "u8", FM_GGUF_U8, 200, 1);
    put_entry(b, "i8", FM_GGUF_I8, 0xFF, 1);
    put_entry(b, "u16", FM_GGUF_U16, 65535, 2);
    put_entry(b, "i16", FM_GGUF_I16, 7, 2);
    put_entry(b, "u32", FM_GGUF_U32, 4000000000u, 4);
    put_entry(b, "i32", FM_GGUF_I32, 0xFFFFFFFEu, 4);
    put_entry(b, "f32", FM_GGUF_F32, 0x3F400000, 4); /* 0.75 */
    put_entry(b, "inf", FM_GGUF_F32, 0x7F800000, 4);
    put_entry(b, "bool", FM_GGUF_BOOL, 1, 1);
    put_entry_string(b, "string", "text");
    put_entry(b, "u64", FM_GGUF_U64, UINT64_MAX, 8);
    put_entry(b, "i64", FM_GGUF_I64, 12, 8);
    put_entry(b, "f64", FM_GGUF_F64, UINT64_C(0x4004000000000000), 8); /* 2.5 */
    put_array_head(b, "tokenizer.ggml.tokens", FM_GGUF_STRING, 3);
    put_string(b, "a");
    put_string(b, "");
    put_string(b, "ccc");
    put_array_head(b, "ints", FM_GGUF_I16, 2);
    put_le(b, 0xFFFF, 2);
    put_le(b, 300, 2);
    put_array_head(b, "empty", FM_GGUF_U64, 0);
    put_array_head(b, "big", FM_GGUF_U64, 1);
    put_le(b, UINT64_MAX, 8);
    for (size_t i = 0; i < 3; i++) put_tensor(b, &tensors[i]);
    put_data(b, 32, 256 + 8 * 66);
}

static void metadata_of_every_kind_can_be_read(void **state)
{
    (void)state;
    bytes b = {.n = 0};
    put_full(&b);
    fm_checkpoint *c = must_open(write_file("t.gguf", &b));
    fm_error err = {0};
    uint32_t u;
    float f;
    bool flag;
    fm_str s;
    fm_meta_kind kind;
    uint64_t count;
    int64_t i;
    assert_int_equal(fm_meta_u32(c, "u8", &u, &err), FM_OK);
    assert_int_equal(u, 200);
    assert_int_equal(fm_meta_u32(c, "u16", &u, &err), FM_OK);
    assert_int_equal(u, 65535);
    assert_int_equal(fm_meta_u32(c, "i16", &u, &err), FM_OK);
    assert_int_equal(u, 7);
    assert_int_equal(fm_meta_u32(c, "u32", &u, &err), FM_OK);
    assert_int_equal(u, 4000000000u);
    assert_int_equal(fm_meta_u32(c, "i64", &u, &err), FM_OK);
    assert_int_equal(u, 12);
    assert_int_equal(fm_meta_f32(c, "f32", &f, &err), FM_OK);
    assert_true(f == 0.75f);
    assert_int_equal(fm_meta_f32(c, "f64", &f, &err), FM_OK);
    assert_true(f == 2.5f);
    assert_int_equal(fm_meta_bool_or(c, "bool", &flag, false, &err), FM_OK);
    assert_true(flag);
    assert_int_equal(fm_meta_str(c, "string", &s, &err), FM_OK);
    assert_int_equal(s.len, 4);
    assert_string_equal(s.data, "text");
    assert_int_equal(fm_meta_array(c, "tokenizer.ggml.tokens", &kind, &count, &err), FM_OK);
    assert_int_equal(kind, FM_META_STRING);
    assert_int_equal(count, 3);
    static const char *const tokens[] = {"a", "", "ccc"};
    for (uint64_t k = 0; k < 3; k++) {
        assert_int_equal(fm_meta_array_str(c, "tokenizer.ggml.tokens", k, &s, &err), FM_OK);
        assert_string_equal(s.data, tokens[k]);
        assert_int_equal(s.len, strlen(tokens[k]));
    }
    assert_int_equal(fm_meta_array(c, "ints", &kind, &count, &err), FM_OK);
    assert_int_equal(kind, FM_META_INT);
    assert_int_equal(fm_meta_array_int(c, "ints", 0, &i, &err), FM_OK);
    assert_int_equal(i, -1);
    assert_int_equal(fm_meta_array_int(c, "ints", 1, &i, &err), FM_OK);
    assert_int_equal(i, 300);
    assert_int_equal(fm_meta_array(c, "empty", &kind, &count, &err), FM_OK);
    assert_int_equal(count, 0);
    /* absent keys take the fallback */
    assert_int_equal(fm_meta_u32_or(c, "none", &u, 5, &err), FM_OK);
    assert_int_equal(u, 5);
    assert_int_equal(fm_meta_str_or(c, "none", &s, "x", &err), FM_OK);
    assert_string_equal(s.data, "x");
    assert_true(fm_meta_has(c, "bool") && !fm_meta_has(c, "none"));
    fm_checkpoint_close(c);
    remove_file("t.gguf");
}

static void wrong_questions_name_the_key(void **state)
{
    (void)state;
    bytes b = {.n = 0};
    put_full(&b);
    fm_checkpoint *c = must_open(write_file("t.gguf", &b));
    uint32_t u;
    float f;
    bool flag;
    fm_str s;
    fm_meta_kind kind;
    uint64_t count;
    int64_t i;
    fm_error err = {0};
#define REFUSED(call, key)                                                                         \
    do {                                                                                           \
        memset(&err, 0, sizeof err);                                                               \
        assert_int_equal(call, FM_E_FORMAT);                                                       \
        if (!strstr(err.msg, key) || !strstr(err.msg, "t.gguf")) fail_msg(#call ": %s", err.msg);  \
    } while (0)
    REFUSED(fm_meta_u32(c, "none", &u, &err), "none");
    REFUSED(fm_meta_u32(c, "i32", &u, &err), "i32");
    REFUSED(fm_meta_u32(c, "u64", &u, &err), "u64");
    REFUSED(fm_meta_u32(c, "bool", &u, &err), "bool");
    REFUSED(fm_meta_u32(c, "string", &u, &err), "string");
    REFUSED(fm_meta_u32_or(c, "f32", &u, 0, &err), "f32");
    REFUSED(fm_meta_f32(c, "u32", &f, &err), "u32");
    REFUSED(fm_meta_f32(c, "inf", &f, &err), "inf");
    REFUSED(fm_meta_f32(c, "none", &f, &err), "none");
    REFUSED(fm_meta_f32(c, "ints", &f, &err), "array of i16");
    REFUSED(fm_meta_bool_or(c, "u8", &flag, false, &err), "u8");
    REFUSED(fm_meta_str(c, "u8", &s, &err), "u8");
    REFUSED(fm_meta_str(c, "none", &s, &err), "none");
    REFUSED(fm_meta_str_or(c, "u8", &s, "", &err), "u8");
    REFUSED(fm_meta_array(c, "u8", &kind, &count, &err), "u8");
    REFUSED(fm_meta_array(c, "none", &kind, &count, &err), "none");
    REFUSED(fm_meta_array_str(c, "ints", 0, &s, &err), "ints");
    REFUSED(fm_meta_array_str(c, "tokenizer.ggml.tokens", 3, &s, &err), "tokens");
    REFUSED(fm_meta_array_int(c, "tokenizer.ggml.tokens", 0, &i, &err), "tokens");
    REFUSED(fm_meta_array_int(c, "ints", 2, &i, &err), "ints");
    REFUSED(fm_meta_array_int(c, "empty", 0, &i, &err), "empty");
    REFUSED(fm_meta_array_int(c, "big", 0, &i, &err), "big");
    fm_checkpoint_close(c);
    remove_file("t.gguf");
}

static void tensors_have_absolute_extents(void **state)
{
    (void)state;
    bytes b = {.n = 0};
    put_full(&b);
    fm_checkpoint *c = must_open(write_file("t.gguf", &b));
    assert_int_equal(fm_checkpoint_n_tensor(c), 3);
    assert_int_equal(fm_checkpoint_n_file(c), 1);
    assert_int_equal(fm_checkpoint_file_bytes(c, 0), b.n);
    const fm_tensor_info *t = fm_checkpoint_find(c, "blk.0.ffn_up_exps.weight");
    assert_non_null(t);
    assert_ptr_equal(t, fm_checkpoint_tensor(c, 2));
    assert_int_equal(t->n_dim, 3);
    assert_int_equal(t->dim[0], 256);
    assert_int_equal(t->dim[1], 2);
    assert_int_equal(t->dim[2], 4);
    assert_int_equal(t->dim[3], 1);
    assert_int_equal(t->bytes, 8 * 66);
    assert_int_equal(t->offset + t->bytes, b.n);
    assert_int_equal(fm_checkpoint_find(c, "output.weight")->offset, t->offset - 256);
    assert_int_equal(fm_checkpoint_find(c, "token_embd.weight")->offset, t->offset - 256);
    assert_null(fm_checkpoint_find(c, "output"));
    assert_null(fm_checkpoint_tensor(c, 3));
    assert_null(fm_checkpoint_tensor(c, -1));
    assert_null(fm_checkpoint_file(c, 1));
    fm_checkpoint_close(c);
    fm_checkpoint_close(NULL);
    remove_file("t.gguf");
}

static void dropped_tokenizer_gives_memory_back(void **state)
{
    (void)state;
    bytes b = {.n = 0};
    put_full(&b);
    fm_checkpoint *c = must_open(write_file("t.gguf", &b));
    const uint64_t before = fm_checkpoint_memory(c);
    fm_checkpoint_drop_tokenizer(c);
    assert_true(fm_checkpoint_memory(c) < before);
    fm_error err = {0};
    fm_str s;
    int64_t i;
    assert_int_not_equal(fm_meta_array_str(c, "tokenizer.ggml.tokens", 0, &s, &err), FM_OK);
    assert_non_null(strstr(err.msg, "tokenizer.ggml.tokens"));
    assert_int_equal(fm_meta_array_int(c, "ints", 0, &i, &err), FM_OK);
    fm_checkpoint_drop_tokenizer(c);
    fm_checkpoint_close(c);
    remove_file("t.gguf");
}

/* ---- shards ------------------------------------------------------------------------------ */

typedef struct {
    uint64_t no, count, total; /* UINT64_MAX: the key is left out */
    const char *tensor;
} shard_row;

static void write_shard(int file, int n_file, const shard_row *s)
{
    bytes b = {.n = 0};
    const uint64_t n_entry =
        1 + (s->no != UINT64_MAX) + (s->count != UINT64_MAX) + (s->total != UINT64_MAX);
    put_header(&b, 1, n_entry);
    put_entry(&b, "which", FM_GGUF_U32, (uint64_t)file, 4);
    if (s->no != UINT64_MAX) put_entry(&b, "split.no", FM_GGUF_U16, s->no, 2);
    if (s->count != UINT64_MAX) put_entry(&b, "split.count", FM_GGUF_U16, s->count, 2);
    if (s->total != UINT64_MAX) put_entry(&b, "split.tensors.count", FM_GGUF_I32, s->total, 4);
    const tensor_row t = {s->tensor, 1, {8}, 0, 0};
    put_tensor(&b, &t);
    put_data(&b, 32, 32);
    char name[60];
    snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", file, n_file);
    write_file(name, &b);
}

static void remove_shards(void)
{
    for (int i = 1; i <= 3; i++) {
        char name[60];
        snprintf(name, sizeof name, "m-%05d-of-00003.gguf", i);
        remove_file(name);
    }
}

static const shard_row good[3] = {{0, 3, 3, "a"}, {1, 3, 3, "b"}, {2, 3, 3, "c"}};

static void any_shard_opens_the_set(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) write_shard(i + 1, 3, &good[i]);
    for (int i = 1; i <= 3; i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/m-%05d-of-00003.gguf", folder, i);
        fm_checkpoint *c = must_open(path);
        assert_int_equal(fm_checkpoint_n_file(c), 3);
        assert_int_equal(fm_checkpoint_n_tensor(c), 3);
        assert_int_equal(fm_checkpoint_find(c, "c")->file, 2);
        assert_non_null(strstr(fm_checkpoint_file(c, 2), "m-00003-of-00003.gguf"));
        uint32_t which;
        fm_error err = {0};
        assert_int_equal(fm_meta_u32(c, "which", &which, &err), FM_OK);
        assert_int_equal(which, 1); /* metadata is the first shard's */
        fm_checkpoint_close(c);
    }
    remove_shards();
}

/* One shard of a good set replaced (`bad`), or left out when its tensor is NULL. */
static void bad_shards_are_named(void **state)
{
    (void)state;
    const uint64_t none = UINT64_MAX;
    const struct {
        int file;
        shard_row bad;
        const char *expect;
    } cases[] = {
        {2, {0}, "m-00002-of-00003.gguf: shard 2 of 3 is missing"},
        {3, {0}, "shard 3 of 3 is missing"},
        {2, {2, 3, 3, "b"}, "m-00002-of-00003.gguf: split.no is 2, expected 1"},
        {1, {1, 3, 3, "a"}, "m-00001-of-00003.gguf: split.no is 1, expected 0"},
        {2, {1, 4, 3, "b"}, "m-00002-of-00003.gguf: split.count is 4"},
        {1, {0, 2, 3, "a"}, "m-00001-of-00003.gguf: split.count is 2"},
        {3, {2, 3, 4, "c"}, "m-00003-of-00003.gguf: split.tensors.count is 4"},
        {1, {0, 3, 4, "a"}, "split.tensors.count is"},
        {2,
         {1, none, 3, "b"},
         "m-00002-of-00003.gguf: named as shard 2 of 3, but has no split.count"},
        {2, {none, 3, 3, "b"}, "has no split.no"},
        {3, {2, 3, 3, "a"}, "the name appears twice"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        for (int i = 0; i < 3; i++) {
            const int replaced = cases[k].file == i + 1;
            if (!replaced) write_shard(i + 1, 3, &good[i]);
            if (replaced && cases[k].bad.tensor) write_shard(i + 1, 3, &cases[k].bad);
        }
        char path[200];
        snprintf(path, sizeof path, "%s/m-00001-of-00003.gguf", folder);
        fm_checkpoint *c;
        fm_error err = {0};
        assert_int_not_equal(fm_checkpoint_open(&c, path, &err), FM_OK);
        assert_null(c);
        if (!strstr(err.msg, cases[k].expect))
            fail_msg("\"%s\" does not say \"%s\"", err.msg, cases[k].expect);
        remove_shards();
    }
}

static void shard_under_another_name_is_refused(void **state)
{
    (void)state;
    bytes b = {.n = 0};
    put_header(&b, 0, 1);
    put_entry(&b, "split.count", FM_GGUF_U16, 4, 2);
    must_fail("split.count without a shard's name", &b, FM_E_FORMAT, "split.count is 4");
}

static void paths_that_are_no_file_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        fm_status st;
        const char *expect;
    } cases[] = {
        {"/dev", FM_E_IO, "config.json"}, /* a directory that is no model */
        {"/dev/null", FM_E_FORMAT, "not a regular file"},
        {"/nonexistent/x.gguf", FM_E_IO, "/nonexistent/x.gguf"},
        {"", FM_E_IO, "No such file"},
        {"/tmp/fm-00002-of-00001.gguf", FM_E_IO, "fm-00002-of-00001"},
        {NULL, FM_E_ARG, "path"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fm_checkpoint *c;
        fm_error err = {0};
        assert_int_equal(fm_checkpoint_open(&c, cases[i].path, &err), cases[i].st);
        assert_null(c);
        assert_non_null(strstr(err.msg, cases[i].expect));
        assert_int_not_equal(fm_checkpoint_open(&c, cases[i].path, NULL), FM_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_of_every_kind_can_be_read),
        cmocka_unit_test(wrong_questions_name_the_key),
        cmocka_unit_test(tensors_have_absolute_extents),
        cmocka_unit_test(dropped_tokenizer_gives_memory_back),
        cmocka_unit_test(any_shard_opens_the_set),
        cmocka_unit_test(bad_shards_are_named),
        cmocka_unit_test(shard_under_another_name_is_refused),
        cmocka_unit_test(paths_that_are_no_file_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
