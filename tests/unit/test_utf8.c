/* UTF-8: what a reader of streamed output sees, and what counts as valid text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "flashmoe.h"
#include "text/nfc.h"
#include "text/utf8.h"

#define BAD "\xEF\xBF\xBD"

/* Expected by Python: bytes.decode("utf-8", errors="replace").encode(). */
static const struct {
    const char *in, *out;
} replaced[] = {
    {"plain", "plain"},
    {"\xc3\xa9\xe4\xb8\xad\xf0\x9f\xa6\x99", "\xc3\xa9\xe4\xb8\xad\xf0\x9f\xa6\x99"},
    {"\x80", BAD},
    {"a\xff\xfe z", "a" BAD BAD " z"},
    {"\xc0\xaf", BAD BAD},
    {"\xc3(", BAD "("},
    {"\xe4\xb8", BAD},
    {"\xe4\xb8 x", BAD " x"},
    {"\xe4\xe4\xb8\xad", BAD "\xe4\xb8\xad"},
    {"\xe0\x80\x80", BAD BAD BAD},
    {"\xed\xa0\x80", BAD BAD BAD},
    {"\xf0\x9f\xa6", BAD},
    {"\xf0\x9f\xa6\xf0\x9f\xa6\x99", BAD "\xf0\x9f\xa6\x99"},
    {"\xf0\x8f\xbf\xbf", BAD BAD BAD BAD},
    {"\xf4\x90\x80\x80", BAD BAD BAD BAD},
    {"\xf5\x80", BAD BAD},
    {"\xf0\x9f"
     "A\xc3",
     BAD "A" BAD},
};

/* However the bytes arrive, the same characters come out, and never a part of one. */
static void stream_in_any_pieces_gives_pythons_replacement(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof replaced / sizeof replaced[0]; k++) {
        const char *in = replaced[k].in;
        const size_t n = strlen(in);
        for (unsigned cuts = 0; cuts < 1u << (n > 8 ? 8 : n); cuts++) {
            fm_utf8_stream s = {0};
            char out[200];
            size_t w = 0, from = 0;
            for (size_t i = 1; i <= n; i++) {
                if (i < n && i <= 8 && !(cuts >> (i - 1) & 1)) continue;
                const size_t got = fm_utf8_push(&s, out + w, in + from, i - from, false);
                assert_true(got <= 3 * (i - from + 3));
                assert_int_equal(fm_utf8_valid_prefix(out + w, got), got);
                w += got;
                from = i;
            }
            w += fm_utf8_push(&s, out + w, "", 0, true);
            assert_int_equal(w, strlen(replaced[k].out));
            assert_memory_equal(out, replaced[k].out, w);
            assert_int_equal(s.n_pending, 0);
        }
    }
}

static void every_code_point_survives_encoding(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        char b[4];
        const size_t n = fm_utf8_encode(b, c);
        uint32_t back = 0xFFFFFFFF;
        assert_int_equal(fm_utf8_decode(&back, b, n), n);
        assert_int_equal(back, c);
        assert_int_equal(fm_utf8_decode(&back, b, n - 1), 0);
    }
}

static void valid_prefix_stops_at_the_broken_character(void **state)
{
    (void)state;
    assert_int_equal(fm_utf8_valid_prefix("ab\xc3\xa9\xff", 5), 4);
    assert_int_equal(fm_utf8_valid_prefix("ab\xc3", 3), 2);
    assert_int_equal(fm_utf8_valid_prefix("", 0), 0);
    assert_int_equal(fm_utf8_valid_prefix("a\0b", 3), 3);
}

/* Expected by Python: unicodedata.normalize("NFC", s). */
static const struct {
    const char *in, *out;
} composed[] = {
    {"e\u0301", "\u00e9"},
    {"q\u0301", "q\u0301"},
    {"\u212b", "\u00c5"},
    {"a\u0327\u0301", "\u00e1\u0327"}, /* the cedilla does not block the acute */
    {"a\u0301\u0327", "\u00e1\u0327"}, /* order first, then compose            */
    {"\u0958", "\u0915\u093c"},        /* excluded from composition            */
    {"\u1100\u1161\u11a8", "\uac01"},  /* Hangul                               */
    {"\uac00\u11a7", "\uac00\u11a7"},  /* U+11A7 is no trailing consonant      */
    {"\u0344", "\u0308\u0301"},
    {"\u0301e", "\u0301e"},
    {"a\u0300\u0300", "\u00e0\u0300"},
    {"\u1e9b\u0323", "\u1e9b\u0323"},
    {"\U0001d15e", "\U0001d157\U0001d165"},
    {"\u09c7\u09be", "\u09cb"},
};

static void nfc_is_unicodes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof composed / sizeof composed[0]; i++) {
        char *out;
        size_t n;
        fm_error err = {0};
        assert_int_equal(fm_nfc(&out, &n, composed[i].in, strlen(composed[i].in), &err), FM_OK);
        assert_int_equal(n, strlen(composed[i].out));
        assert_memory_equal(out, composed[i].out, n);
        free(out);
    }
}

/* Two million marks in the worst order: linear, so seconds if it were not would be hours. */
static void nfc_of_a_long_run_of_marks_ends(void **state)
{
    (void)state;
    const size_t n_mark = 2000000;
    char *text = malloc(2 * n_mark + 1), *out;
    assert_non_null(text);
    text[0] = 'q';
    for (size_t i = 0; i < n_mark; i++) /* U+0345 has class 240, U+0334 class 1 */
        memcpy(text + 1 + 2 * i, i < n_mark / 2 ? "\u0345" : "\u0334", 2);
    size_t n;
    fm_error err = {0};
    assert_int_equal(fm_nfc(&out, &n, text, 2 * n_mark + 1, &err), FM_OK);
    assert_int_equal(n, 2 * n_mark + 1);
    assert_memory_equal(out, "q\u0334", 3);
    assert_memory_equal(out + n - 2, "\u0345", 2);
    free(out);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_in_any_pieces_gives_pythons_replacement),
        cmocka_unit_test(every_code_point_survives_encoding),
        cmocka_unit_test(valid_prefix_stops_at_the_broken_character),
        cmocka_unit_test(nfc_is_unicodes),
        cmocka_unit_test(nfc_of_a_long_run_of_marks_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
