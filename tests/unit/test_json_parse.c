/* Integers that need more than 64 bits, as Python writes and reads them, beside what must stay as it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json_parse.h"

static json_t *parse(const char *text)
{
    /* A copy of just its bytes, so that a sanitizer sees a step too far. */
    const size_t n = strlen(text);
    char *s = malloc(n + 1);
    assert_non_null(s);
    memcpy(s, text, n);
    s = realloc(s, n ? n : 1);
    json_error_t why;
    json_t *root = fm_json_parse(s, n, 0, &why);
    free(s);
    return root;
}

static void large_integers_are_real_numbers(void **state)
{
    (void)state;
    json_t *root = parse(
        "{\"model_max_length\": 1000000000000000019884624838656, \"a\":-123456789012345678901234,\n"
        " \"b\": [9223372036854775807, -9223372036854775808, 9223372036854775808],\n"
        " \"text\": \"12345678901234567890123 \\\" 98765432109876543210987 \\\\\", \"c\": 331,\n"
        " \"d\": 0.12345678901234567890123, \"e\": 12345678901234567890123.5, \"f\": "
        "1e00000000000000000000001, \"g\": 1e+00000000000000000000002, \"h\": "
        "100000000000000000000e-00000000000000000000020,"
        " \"i\": true, \"9999999999999999999999\": 99999999999999999999999}");
    assert_non_null(root);
#define REAL(key) json_real_value(json_object_get(root, key))
    assert_true(REAL("model_max_length") == 1e30);
    assert_true(REAL("a") == -123456789012345678901234.0);
    const json_t *b = json_object_get(root, "b");
    assert_true(json_is_real(json_array_get(b, 2)));
    assert_true(json_real_value(json_array_get(b, 2)) == 9223372036854775808.0);
    assert_string_equal(json_string_value(json_object_get(root, "text")),
                        "12345678901234567890123 \" 98765432109876543210987 \\");
    assert_true(json_is_integer(json_object_get(root, "c")));
    assert_int_equal(json_integer_value(json_object_get(root, "c")), 331);
    assert_true(REAL("d") == 0.12345678901234567890123);
    assert_true(REAL("e") == 12345678901234567890123.5);
    assert_true(REAL("f") == 10);
    assert_true(REAL("g") == 100);
    assert_true(REAL("h") == 1);
    assert_true(json_is_true(json_object_get(root, "i")));
    assert_true(REAL("9999999999999999999999") == 99999999999999999999999.0);
    json_decref(root);
}

static void numbers_of_64_bits_stay_integers(void **state)
{
    (void)state;
    json_t *root = parse("[9223372036854775807, -9223372036854775808]");
    assert_non_null(root);
    assert_true(json_integer_value(json_array_get(root, 0)) == INT64_MAX);
    assert_true(json_integer_value(json_array_get(root, 1)) == INT64_MIN);
    json_decref(root);
}

static void damaged_text_is_refused_with_its_line(void **state)
{
    (void)state;
    static const char *const bad[] = {"{\"a\": 12345678901234567890123",
                                      "{\"a\": 12345678901234567890123, \"b\"",
                                      "{\n\"a\": 12345678901234567890123,\n\"b\": \"x\\",
                                      "{\"a\": 12345678901234567890123x}",
                                      "[12345678901234567890123}",
                                      "",
                                      "12345678901234567890123"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_error_t why;
        assert_null(fm_json_parse(bad[i], strlen(bad[i]), 0, &why));
        assert_true(why.text[0] != 0);
        if (i == 2) assert_int_equal(why.line, 3);
    }
    char digits[1002];
    memset(digits, '7', sizeof digits);
    digits[0] = '[';
    digits[1001] = ']';
    json_error_t why;
    assert_null(fm_json_parse(digits, sizeof digits, 0, &why)); /* beyond a double too */
    assert_int_equal(json_error_code(&why), json_error_numeric_overflow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_integers_are_real_numbers),
        cmocka_unit_test(numbers_of_64_bits_stay_integers),
        cmocka_unit_test(damaged_text_is_refused_with_its_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
