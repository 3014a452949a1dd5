#include "base/json_parse.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { FEW_DIGITS = 18 /* always fit 64 bits */ };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Whether digits at i > 0 are a fraction or an exponent. */
static bool ends_real(const char *text, size_t i)
{
    const char c = text[i - 1];
    if (c == '.' || c == 'e' || c == 'E') return true;
    return i > 1 && (c == '+' || c == '-') && (text[i - 2] == 'e' || text[i - 2] == 'E');
}

/* Copies text with an exponent of 0 behind every integer of many digits outside strings; `to` has room for two bytes more
 * for each FEW_DIGITS. Returns the length. */
static size_t mark_large(char *to, const char *text, size_t n)
{
    size_t w = 0;
    bool in_string = false;
    for (size_t i = 0; i < n;) {
        const char c = text[i];
        if (in_string || !is_digit(c)) {
            if (c == '"') in_string = !in_string;
            to[w++] = text[i++];
            if (in_string && c == '\\' && i < n) to[w++] = text[i++];
            continue;
        }
        const bool is_part = i > 0 && ends_real(text, i);
        const size_t from = i;
        while (i < n && is_digit(text[i])) to[w++] = text[i++];
        if (i - from <= FEW_DIGITS || is_part) continue;
        if (i < n && (text[i] == '.' || text[i] == 'e' || text[i] == 'E')) continue;
        to[w++] = 'e';
        to[w++] = '0';
    }
    return w;
}

json_t *fm_json_parse(const char *text, size_t n, size_t flags, json_error_t *why)
{
    json_t *root = json_loadb(text, n, flags, why);
    if (root || json_error_code(why) != json_error_numeric_overflow) return root;
    char *copy = malloc(n + n / FEW_DIGITS * 2 + 2);
    if (!copy) return NULL; /* *why tells of the integer */
    root = json_loadb(copy, mark_large(copy, text, n), flags, why);
    free(copy);
    return root;
}

const char *fm_json_kind(const json_t *value)
{
    return json_is_object(value)    ? "an object"
           : json_is_array(value)   ? "an array"
           : json_is_string(value)  ? "a string"
           : json_is_number(value)  ? "a number"
           : json_is_boolean(value) ? "true or false"
                                    : "null";
}
