/* Splitting with PCRE2. Each piece is matched as a subject of its own, so that look-ahead sees the
 * end of the piece and not the text behind it; the files are written for that. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenize.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "text/pattern.h"

/* Long runs of letters need one backtracking frame per letter in patterns with class intersections.
 * The stack is reserved only when the small built-in one was not enough. */
#define JIT_STACK_MAX ((size_t)64 << 20)
/* Without JIT: steps per match, and heap in KiB. */
enum { MATCH_LIMIT = 100 * 1000 * 1000, HEAP_LIMIT_KIB = 256 * 1024 };

struct fm_splitter {
    size_t n;
    pcre2_code **codes; /* [n] */
    uint64_t code_bytes;
};

static fm_status compile(pcre2_code **out, uint64_t *bytes, const char *pattern, fm_error *err)
{
    char *translated;
    FM_TRY(fm_pattern_translate(&translated, pattern, strlen(pattern), err));
    pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
    int code = 0;
    PCRE2_SIZE at = 0;
    if (cc) {
        pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
        *out = pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &code, &at, cc);
        pcre2_compile_context_free(cc);
    }
    fm_status st = FM_OK;
    if (!cc) {
        st = fm_fail(err, FM_E_NOMEM, "no memory to compile a pattern");
    } else if (!*out) {
        PCRE2_UCHAR why[160];
        pcre2_get_error_message(code, why, sizeof why);
        st = fm_fail(err, FM_E_UNSUPPORTED, "pattern does not compile: %s, at \"%.40s\"",
                     (const char *)why, at <= strlen(translated) ? translated + at : "");
    } else {
        size_t size = 0;
        pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* a speed-up where there is one */
        if (pcre2_pattern_info(*out, PCRE2_INFO_SIZE, &size) == 0) *bytes += size;
        if (pcre2_pattern_info(*out, PCRE2_INFO_JITSIZE, &size) == 0) *bytes += size;
    }
    free(translated);
    return st;
}

fm_status fm_splitter_create(fm_splitter **out, const char *const *patterns, size_t n_pattern,
                             fm_error *err)
{
    *out = NULL;
    fm_splitter *s = calloc(1, sizeof *s);
    if (s) s->codes = calloc(n_pattern + 1, sizeof(pcre2_code *));
    if (!s || !s->codes) {
        fm_splitter_destroy(s);
        return fm_fail(err, FM_E_NOMEM, "no memory for the text splitter");
    }
    fm_status st = FM_OK;
    for (size_t i = 0; i < n_pattern && st == FM_OK; i++) {
        st = compile(&s->codes[i], &s->code_bytes, patterns[i], err);
        if (st == FM_OK) s->n++;
    }
    if (st != FM_OK) {
        fm_splitter_destroy(s);
        return st;
    }
    *out = s;
    return FM_OK;
}

void fm_splitter_destroy(fm_splitter *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) pcre2_code_free(s->codes[i]);
    free(s->codes);
    free(s);
}

uint64_t fm_splitter_memory(const fm_splitter *s)
{
    return sizeof *s + s->code_bytes + (s->n + 1) * sizeof(pcre2_code *);
}

static bool push_end(fm_pieces *p, size_t end)
{
    if (p->n == p->cap) {
        const size_t cap = p->cap * 2 + 64;
        if (cap > SIZE_MAX / sizeof *p->end) return false;
        size_t *q = realloc(p->end, cap * sizeof *q);
        if (!q) return false;
        p->end = q;
        p->cap = cap;
    }
    p->end[p->n++] = end;
    return true;
}

/* What one run needs besides the patterns. */
typedef struct {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} matcher;

static void matcher_deinit(matcher *m)
{
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
}

static bool matcher_init(matcher *m)
{
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    m->stack = NULL;
    if (!m->data || !m->context) return false;
    pcre2_set_match_limit(m->context, MATCH_LIMIT);
    pcre2_set_heap_limit(m->context, HEAP_LIMIT_KIB);
    return true;
}

/* 1: a match, at *begin..*end; 0: none; negative: PCRE2's error. */
static int find(matcher *m, const pcre2_code *code, const char *text, size_t n, size_t from,
                size_t *begin, size_t *end)
{
    int rc = pcre2_match(code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !m->stack) {
        m->stack = pcre2_jit_stack_create(256 * 1024, JIT_STACK_MAX, NULL);
        if (!m->stack) return PCRE2_ERROR_NOMEMORY;
        pcre2_jit_stack_assign(m->context, NULL, m->stack);
        rc = pcre2_match(code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, m->data, m->context);
    }
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    if (rc < 0) return rc;
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(m->data);
    *begin = span[0];
    *end = span[1];
    return 1;
}

/* Cuts text[begin..end) with one pattern; appends the ends of its pieces. 1, or PCRE2's error. */
static int cut(matcher *m, const pcre2_code *code, fm_pieces *out, const char *text, size_t begin,
               size_t end)
{
    const char *piece = text + begin;
    const size_t n = end - begin;
    size_t done = 0, from = 0;
    while (from <= n) {
        size_t a, b;
        const int rc = find(m, code, piece, n, from, &a, &b);
        if (rc < 0) return rc;
        if (rc == 0) break;
        if (a > done && !push_end(out, begin + a)) return PCRE2_ERROR_NOMEMORY;
        if (b > a && !push_end(out, begin + b)) return PCRE2_ERROR_NOMEMORY;
        if (b > done) done = b;
        from = b;
        if (b == a) { /* an empty match: go on behind the next character */
            from++;
            while (from < n && ((unsigned char)piece[from] & 0xC0) == 0x80) from++;
        }
    }
    if (done < n && !push_end(out, end)) return PCRE2_ERROR_NOMEMORY;
    return 1;
}

static fm_status explain(int rc, size_t n, fm_error *err)
{
    PCRE2_UCHAR why[160];
    pcre2_get_error_message(rc, why, sizeof why);
    return fm_fail(err, rc == PCRE2_ERROR_NOMEMORY ? FM_E_NOMEM : FM_E_LIMIT,
                   "splitting %zu bytes of text: %s", n, (const char *)why);
}

fm_status fm_splitter_run(const fm_splitter *s, fm_pieces *out, const char *text, size_t n,
                          fm_error *err)
{
    out->n = 0;
    if (n == 0) return FM_OK;
    if (!push_end(out, n)) return explain(PCRE2_ERROR_NOMEMORY, n, err);
    matcher m = {0};
    fm_pieces next = {0};
    int rc = matcher_init(&m) ? 1 : PCRE2_ERROR_NOMEMORY;
    for (size_t k = 0; k < s->n && rc > 0; k++) {
        next.n = 0;
        size_t begin = 0;
        for (size_t i = 0; i < out->n && rc > 0; i++) {
            rc = cut(&m, s->codes[k], &next, text, begin, out->end[i]);
            begin = out->end[i];
        }
        const fm_pieces t = *out;
        *out = next;
        next = t;
    }
    free(next.end);
    matcher_deinit(&m);
    return rc > 0 ? FM_OK : explain(rc, n, err);
}
