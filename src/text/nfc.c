/* NFC: decompose every character, put combining marks into canonical order, compose.
 *
 * The tables are utf8proc's, and so are the decomposition of one character and the composition of
 * two. Ordering and the walk over the text are done here: the library's ordering moves one mark at
 * a time, which is quadratic on a long run of marks, and its composition swallows U+11A7 after a
 * Hangul syllable. */
#include "text/nfc.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/utf8.h"

bool fm_nfc_is_plain(const char *text, size_t n)
{
    /* U+0300 is CC 80; in valid UTF-8 only first bytes of characters are as high as CC. */
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] >= 0xCC) return false;
    return true;
}

typedef struct {
    utf8proc_int32_t *codes;
    size_t n, cap;
} code_vec;

static bool reserve(code_vec *v, size_t more)
{
    if (v->cap - v->n >= more) return true;
    const size_t cap = v->cap + v->cap / 2 + more + 64;
    if (cap > SIZE_MAX / sizeof *v->codes) return false;
    utf8proc_int32_t *p = realloc(v->codes, cap * sizeof *p);
    if (!p) return false;
    v->codes = p;
    v->cap = cap;
    return true;
}

/* Canonical decompositions are at most four characters long; room for more costs nothing. */
enum { DECOMPOSED_MAX = 18 };

static bool decompose(code_vec *v, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t code = 0;
        const size_t len = fm_utf8_decode(&code, text + i, n - i);
        if (len == 0) return false;
        i += len;
        if (!reserve(v, DECOMPOSED_MAX)) return false;
        if (code < 0xC0) {
            v->codes[v->n++] = (utf8proc_int32_t)code;
            continue;
        }
        int bound = UTF8PROC_BOUNDCLASS_START;
        const utf8proc_ssize_t got =
            utf8proc_decompose_char((utf8proc_int32_t)code, v->codes + v->n, DECOMPOSED_MAX,
                                    UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &bound);
        if (got < 1 || got > DECOMPOSED_MAX) {
            v->codes[v->n++] = (utf8proc_int32_t)code;
        } else {
            v->n += (size_t)got;
        }
    }
    return true;
}

static unsigned combining_class(utf8proc_int32_t code)
{
    if (code < 0x300) return 0;
    return (unsigned)utf8proc_get_property(code)->combining_class & 0xFF;
}

/* Stable sort of marks[n] by combining class, by counting. */
static bool sort_marks(utf8proc_int32_t *marks, size_t n)
{
    size_t place[257] = {0};
    for (size_t i = 0; i < n; i++) place[combining_class(marks[i]) + 1]++;
    for (size_t c = 1; c < 257; c++) place[c] += place[c - 1];
    utf8proc_int32_t *sorted = malloc(n * sizeof *sorted);
    if (!sorted) return false;
    for (size_t i = 0; i < n; i++) sorted[place[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, sorted, n * sizeof *sorted);
    free(sorted);
    return true;
}

/* Every maximal run of marks with a class other than 0 is sorted by class. */
static bool order_marks(code_vec *v)
{
    for (size_t i = 0; i < v->n;) {
        if (combining_class(v->codes[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        bool sorted = true;
        unsigned last = combining_class(v->codes[i]);
        for (; end < v->n; end++) {
            const unsigned c = combining_class(v->codes[end]);
            if (c == 0) break;
            if (c < last) sorted = false;
            last = c;
        }
        if (!sorted && !sort_marks(v->codes + i, end - i)) return false;
        i = end;
    }
    return true;
}

/* The character that a followed by b composes to, or -1. Hangul by arithmetic (the Unicode standard,
 * 3.12): leading consonant + vowel, then + trailing consonant. */
static utf8proc_int32_t compose_pair(utf8proc_int32_t a, utf8proc_int32_t b)
{
    enum { S = 0xAC00, L = 0x1100, V = 0x1161, T = 0x11A7, N_L = 19, N_V = 21, N_T = 28 };
    if (b < 0x300) return -1;
    if (a >= L && a < L + N_L && b >= V && b < V + N_V) return S + ((a - L) * N_V + b - V) * N_T;
    if (a >= S && a < S + N_L * N_V * N_T)
        return (a - S) % N_T == 0 && b > T && b < T + N_T ? a + b - T : -1;
    utf8proc_int32_t pair[2] = {a, b};
    return utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) == 1 ? pair[0]
                                                                                      : -1;
}

/* Every character is joined to the last starter when the two compose and nothing between them has
 * the same or a higher class. */
static void compose(code_vec *v)
{
    size_t w = 0, starter = SIZE_MAX;
    int last = -1; /* class of the last character kept behind the starter; -1: none */
    for (size_t i = 0; i < v->n; i++) {
        const utf8proc_int32_t code = v->codes[i];
        const int class = (int)combining_class(code);
        if (starter != SIZE_MAX && last < class) {
            const utf8proc_int32_t joined = compose_pair(v->codes[starter], code);
            if (joined >= 0) {
                v->codes[starter] = joined;
                continue;
            }
        }
        last = class;
        if (class == 0) {
            starter = w;
            last = -1;
        }
        v->codes[w++] = code;
    }
    v->n = w;
}

fm_status fm_nfc(char **out, size_t *n_out, const char *text, size_t n, fm_error *err)
{
    *out = NULL;
    *n_out = 0;
    code_vec v = {0};
    char *bytes = NULL;
    if (!reserve(&v, n + 1) || !decompose(&v, text, n) || !order_marks(&v)) goto no_memory;
    compose(&v);
    if (v.n > (SIZE_MAX - 1) / 4) goto no_memory;
    bytes = malloc(v.n * 4 + 1);
    if (!bytes) goto no_memory;
    size_t w = 0;
    for (size_t i = 0; i < v.n; i++) w += fm_utf8_encode(bytes + w, (uint32_t)v.codes[i]);
    free(v.codes);
    *out = bytes;
    *n_out = w;
    return FM_OK;

no_memory:
    free(v.codes);
    return fm_fail(err, FM_E_NOMEM, "no memory to normalise %zu bytes of text", n);
}
