/* GGUF files that are wrong: each kind of damage gives an error that names the file and the object,
 * and never a crash or a wrong tensor. */
#include "test_gguf_files.h"

#define HUGE_64 UINT64_C(0xFFFFFFFFFFFFFFF0)
#define TWO_47 (UINT64_C(1) << 47)

static int n_damage;

/* ---- the first 24 bytes ------------------------------------------------------------------ */

static void damaged_preambles_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *magic;
        uint32_t version;
        uint64_t n_tensor, n_entry;
        fm_status st;
        const char *expect;
    } cases[] = {
        {"GGML", 3, 0, 0, FM_E_FORMAT, "not a GGUF file"},
        {"vers", 3, 0, 0, FM_E_FORMAT, "a Git LFS pointer"},
        {"FUGG", 3, 0, 0, FM_E_FORMAT, "not a GGUF file (starts with 46 55 47 47"},
        {"GGUF", 0, 0, 0, FM_E_FORMAT, "version 0"},
        {"GGUF", 1, 0, 0, FM_E_UNSUPPORTED, "version 1"},
        {"GGUF", 2, 0, 0, FM_E_UNSUPPORTED, "version 2"},
        {"GGUF", 4, 0, 0, FM_E_UNSUPPORTED, "version 4"},
        {"GGUF", 0x03000000, 0, 0, FM_E_UNSUPPORTED, "big-endian"},
        {"GGUF", 3, 1, 0, FM_E_FORMAT, "1 tensors do not fit"},
        {"GGUF", 3, 0, 1, FM_E_FORMAT, "1 metadata entries do not fit"},
        {"GGUF", 3, HUGE_64, 0, FM_E_FORMAT, "tensors do not fit"},
        {"GGUF", 3, 0, HUGE_64, FM_E_FORMAT, "metadata entries do not fit"},
        {"GGUF", 3, HUGE_64, HUGE_64, FM_E_FORMAT, "metadata entries do not fit"},
        {"GGUF", 3, UINT64_C(1) << 32, 0, FM_E_FORMAT, "tensors do not fit"},
        {"GGUF", 3, UINT64_C(1) << 63, 0, FM_E_FORMAT, "tensors do not fit"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++, n_damage++) {
        bytes b = {.n = 0};
        put(&b, cases[i].magic, 4);
        put_le(&b, cases[i].version, 4);
        put_le(&b, cases[i].n_tensor, 8);
        put_le(&b, cases[i].n_entry, 8);
        must_fail(cases[i].expect, &b, cases[i].st, cases[i].expect);
    }
}

/* ---- metadata ---------------------------------------------------------------------------- */

#define ENTRY(what, n_entry, expect, ...)                                                          \
    {                                                                                              \
        what, n_entry, expect, (const uint8_t[]){__VA_ARGS__},                                     \
            sizeof((const uint8_t[]){__VA_ARGS__})                                                 \
    }
#define LE8(n) n, 0, 0, 0, 0, 0, 0, 0
#define LE4(n) n, 0, 0, 0
#define KEY_AB LE8(2), 'a', 'b'
#define ALIGNMENT                                                                                  \
    LE8(17), 'g', 'e', 'n', 'e', 'r', 'a', 'l', '.', 'a', 'l', 'i', 'g', 'n', 'm', 'e', 'n', 't'
#define FF8 255, 255, 255, 255, 255, 255, 255, 255

static const struct {
    const char *what;
    uint64_t n_entry;
    const char *expect;
    const uint8_t *data;
    size_t n;
} entries[] = {
    // clang-format off
    ENTRY("empty key", 1, "the key is empty", LE8(0), LE4(0), 1, 0, 0),
    ENTRY("key longer than the file", 1, "metadata entry 1 of 1", LE8(200), 'a', 'b', LE4(0), 1),
    ENTRY("key of 2^64 - 1", 1, "metadata entry 1 of 1", FF8, 'a', 'b', LE4(0), 1),
    ENTRY("zero byte in the key", 1, "zero byte", LE8(2), 'a', 0, LE4(0), 1),
    ENTRY("value type 13", 1, "(ab): unknown value type 13", KEY_AB, LE4(13), 1),
    ENTRY("value type 2^32 - 1", 1, "(ab): unknown value type", KEY_AB, 255, 255, 255, 255, 1),
    ENTRY("bool of 2", 1, "(ab): a value of type bool is 2", KEY_AB, LE4(7), 2),
    ENTRY("no room for a u64", 1, "(ab)", KEY_AB, LE4(10), 1, 2, 3),
    ENTRY("no room for a u32", 1, "(ab)", KEY_AB, LE4(4), 1, 2, 3),
    ENTRY("string longer than the file", 1, "(ab): the string says 99", KEY_AB, LE4(8), LE8(99), 'x'),
    ENTRY("string of 2^64 - 1", 1, "(ab): the string", KEY_AB, LE4(8), FF8, 'x'),
    ENTRY("same key twice", 2, "(ab): the key appears twice", KEY_AB, LE4(0), 1, KEY_AB, LE4(0), 2),
    ENTRY("nested array", 1, "(ab): an array of arrays", KEY_AB, LE4(9), LE4(9), LE8(1), LE4(0), LE8(0)),
    ENTRY("element type 13", 1, "(ab): unknown element type 13", KEY_AB, LE4(9), LE4(13), LE8(1), 0),
    ENTRY("array longer than the file", 1, "(ab): the array says 99 elements", KEY_AB, LE4(9), LE4(4),
          LE8(99), 0, 0, 0, 0),
    ENTRY("array of 2^64 - 1 bytes", 1, "(ab): the array says", KEY_AB, LE4(9), LE4(0), FF8, 0),
    ENTRY("array whose bytes overflow", 1, "(ab): the array says", KEY_AB, LE4(9), LE4(10),
          0, 0, 0, 0, 0, 0, 0, 0x20, 0),
    ENTRY("bool array with a 3", 1, "(ab): element 1", KEY_AB, LE4(9), LE4(7), LE8(2), 1, 3),
    ENTRY("more strings than bytes", 1, "(ab): the array says 90 strings", KEY_AB, LE4(9), LE4(8),
          LE8(90), LE8(0)),
    ENTRY("2^64 - 1 strings", 1, "(ab): the array says", KEY_AB, LE4(9), LE4(8), FF8, LE8(0)),
    ENTRY("second string too long", 1, "(ab): a string of the array says 70", KEY_AB, LE4(9), LE4(8),
          LE8(2), LE8(1), 'x', LE8(70), 'y'),
    ENTRY("string of 2^63 in an array", 1, "(ab): a string of the array says", KEY_AB, LE4(9), LE4(8),
          LE8(1), 0, 0, 0, 0, 0, 0, 0, 0x80),
    ENTRY("alignment 0", 1, "general.alignment is 0", ALIGNMENT, LE4(4), LE4(0)),
    ENTRY("alignment 24", 1, "general.alignment is 24", ALIGNMENT, LE4(4), LE4(24)),
    ENTRY("alignment 4", 1, "general.alignment is 4", ALIGNMENT, LE4(4), LE4(4)),
    ENTRY("alignment 2^21", 1, "general.alignment is 2097152", ALIGNMENT, LE4(4), 0, 0, 0x20, 0),
    ENTRY("alignment as a string", 1, "general.alignment is of type string", ALIGNMENT, LE4(8), LE8(2),
          '3', '2'),
    ENTRY("negative alignment", 1, "general.alignment is -32", ALIGNMENT, LE4(5), 224, 255, 255, 255),
    // clang-format on
};

static void damaged_metadata_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++, n_damage++) {
        bytes b = {.n = 0};
        put_header(&b, 0, entries[i].n_entry);
        put(&b, entries[i].data, entries[i].n);
        must_fail(entries[i].what, &b, FM_E_FORMAT, entries[i].expect);
    }
}

/* ---- tensors ----------------------------------------------------------------------------- */

enum { F32 = 0, Q4_K = 12, Q8_0 = 8 };

/* 96 bytes of data follow the directory. */
static const struct {
    const char *what, *expect;
    tensor_row t[3];
} tensors[] = {
    // clang-format off
    {"no dimensions", "(w): 0 dimensions", {{"w", 0, {0}, F32, 0}}},
    {"five dimensions", "(w): 5 dimensions", {{"w", 5, {1, 1, 1, 1}, F32, 0}}},
    {"2^32 - 1 dimensions", "(w): 4294967295 dimensions", {{"w", 0xFFFFFFFFu, {1}, F32, 0}}},
    {"zero columns", "(w): dimension 0 is 0", {{"w", 2, {0, 4}, F32, 0}}},
    {"zero rows", "(w): dimension 1 is 0", {{"w", 2, {4, 0}, F32, 0}}},
    {"dimension of 2^48", "(w): dimension 0 is", {{"w", 1, {TWO_47 * 2}, F32, 0}}},
    {"dimension of 2^64 - 16", "(w): dimension 2 is", {{"w", 3, {4, 4, HUGE_64}, F32, 0}}},
    {"product of 2^94", "(w): the product", {{"w", 2, {TWO_47, TWO_47}, F32, 0}}},
    {"product of 2^188", "(w): the product", {{"w", 4, {TWO_47, TWO_47, TWO_47, TWO_47}, F32, 0}}},
    {"bytes just overflow", "(w): the product", {{"w", 2, {TWO_47, 1 << 15}, F32, 0}}},
    {"bytes of 2^63", "(w): the product", {{"w", 2, {TWO_47, 1 << 14}, F32, 0}}},
    {"withdrawn type 4", "(w): unknown tensor type 4", {{"w", 1, {32}, 4, 0}}},
    {"withdrawn type 31", "(w): unknown tensor type 31", {{"w", 1, {32}, 31, 0}}},
    {"type 42", "(w): unknown tensor type 42", {{"w", 1, {32}, 42, 0}}},
    {"type 2^32 - 1", "(w): unknown tensor type", {{"w", 1, {32}, 0xFFFFFFFFu, 0}}},
    {"half a block of Q8_0", "(w): rows of 16 elements", {{"w", 1, {16}, Q8_0, 0}}},
    {"row of 33 in Q8_0", "(w): rows of 33 elements", {{"w", 2, {33, 32}, Q8_0, 0}}},
    {"row of 128 in Q4_K", "(w): rows of 128 elements", {{"w", 1, {128}, Q4_K, 0}}},
    {"offset not aligned", "(w): offset 4 is not", {{"w", 1, {4}, F32, 4}}},
    {"offset behind the file", "tensor w needs bytes", {{"w", 1, {4}, F32, 4096}}},
    {"last byte missing", "tensor w needs bytes", {{"w", 1, {25}, F32, 0}}},
    {"offset wraps", "tensor w", {{"w", 1, {4}, F32, UINT64_C(0xFFFFFFFFFFFFFFE0)}}},
    {"offset of 2^63", "tensor w", {{"w", 1, {4}, F32, UINT64_C(1) << 63}}},
    {"download stopped", "file ends at byte", {{"v", 1, {8}, F32, 0}, {"w", 1, {32}, F32, 32}}},
    {"same name twice", "(w): the name appears twice", {{"w", 1, {8}, F32, 0}, {"w", 1, {8}, F32, 32}}},
    {"overlap by one block", "overlaps", {{"v", 1, {9}, F32, 0}, {"w", 1, {8}, F32, 32}}},
    {"one inside another", "tensor v", {{"v", 1, {24}, F32, 0}, {"w", 1, {4}, F32, 32}}},
    {"same start, other size", "overlaps", {{"v", 1, {8}, F32, 0}, {"w", 1, {9}, F32, 0}}},
    {"empty name", "tensor 1 of 1: the name is empty", {{"", 1, {4}, F32, 0}}},
    // clang-format on
};

static void damaged_tensors_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++, n_damage++) {
        const uint64_t n = tensors[i].t[1].name ? 2 : 1;
        bytes b = {.n = 0};
        put_header(&b, n, 0);
        for (uint64_t k = 0; k < n; k++) put_tensor(&b, &tensors[i].t[k]);
        put_data(&b, 32, 96);
        must_fail(tensors[i].what, &b, FM_E_FORMAT, tensors[i].expect);
    }
}

static void tensor_names_that_end_early_are_refused(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {HUGE_64, 4000, 65536, UINT64_C(1) << 40};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++, n_damage++) {
        bytes b = {.n = 0};
        put_header(&b, 1, 0);
        put_le(&b, lengths[i], 8);
        put_data(&b, 32, i == 2 ? 60000 : 200);
        must_fail("name length", &b, FM_E_FORMAT, "tensor 1 of 1: the name says");
    }
    bytes b = {.n = 0};
    put_header(&b, 1, 0);
    put_le(&b, 2, 8);
    put(&b, "a\0", 2);
    put_data(&b, 32, 200);
    must_fail("zero byte in a name", &b, FM_E_FORMAT,
              "tensor 1 of 1: the name contains a zero byte");
    n_damage++;
}

/* ---- any damage -------------------------------------------------------------------------- */

static void put_sound(bytes *b)
{
    static const tensor_row rows[] = {
        {"token_embd.weight", 2, {32, 2}, Q8_0, 0},
        {"blk.0.ffn_norm.weight", 1, {8}, F32, 96},
    };
    put_header(b, 2, 5);
    put_entry_string(b, "general.architecture", "qwen35moe");
    put_entry(b, "general.alignment", FM_GGUF_U32, 32, 4);
    put_entry(b, "x.eps", FM_GGUF_F32, 0x358637BD, 4);
    put_array_head(b, "tokenizer.ggml.tokens", FM_GGUF_STRING, 2);
    put_string(b, "ab");
    put_string(b, "");
    put_array_head(b, "x.list", FM_GGUF_U16, 3);
    put_le(b, 1, 6);
    for (size_t i = 0; i < 2; i++) put_tensor(b, &rows[i]);
    put_data(b, 32, 128);
}

static void file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    bytes sound = {.n = 0};
    put_sound(&sound);
    bytes cut = sound;
    for (cut.n = 0; cut.n < sound.n; cut.n++, n_damage++)
        must_fail("cut", &cut, FM_E_FORMAT, "t.gguf");
}

/* Every byte replaced by some others: either it still opens, and then the directory is sound, or it
 * fails with a message. */
static void any_changed_byte_is_survived(void **state)
{
    (void)state;
    static const unsigned char values[] = {0, 1, 7, 8, 9, 13, 0x7F, 0x80, 0xFF};
    bytes sound = {.n = 0};
    put_sound(&sound);
    int n_open = 0, n_refused = 0;
    for (size_t i = 0; i < sound.n; i++) {
        for (size_t v = 0; v < sizeof values; v++) {
            bytes b = sound;
            b.data[i] = values[v];
            const char *path = write_file("t.gguf", &b);
            fm_checkpoint *c;
            fm_error err = {0};
            if (fm_checkpoint_open(&c, path, &err) == FM_OK) {
                for (int64_t k = 0; k < fm_checkpoint_n_tensor(c); k++) {
                    const fm_tensor_info *t = fm_checkpoint_tensor(c, k);
                    assert_true(t->offset <= b.n && t->bytes <= b.n - t->offset);
                }
                fm_checkpoint_close(c);
                n_open++;
            } else {
                assert_null(c);
                assert_true(err.msg[0] != 0);
                n_refused++;
            }
        }
    }
    remove_file("t.gguf");
    print_message("%d changed files opened, %d were refused\n", n_open, n_refused);
    assert_true(n_refused > n_open / 10);
}

static int finish(void **state)
{
    print_message("%d damaged files\n", n_damage);
    return remove_folder(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_preambles_are_refused),
        cmocka_unit_test(damaged_metadata_is_named),
        cmocka_unit_test(damaged_tensors_are_named),
        cmocka_unit_test(tensor_names_that_end_early_are_refused),
        cmocka_unit_test(file_cut_anywhere_is_refused),
        cmocka_unit_test(any_changed_byte_is_survived),
    };
    return cmocka_run_group_tests(tests, make_folder, finish);
}
