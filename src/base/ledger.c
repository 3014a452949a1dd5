/* Ledger and arena: see ledger.h. The only caller of mmap for anonymous memory outside os/ is
 * here, because POSIX gives it and every folder charges the ledger. */
#include "base/ledger.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"

enum { HUGE_PAGE = 2 << 20 };

static int find(const fm_ledger *l, const char *name)
{
    for (int i = 0; i < l->n_line; i++)
        if (strcmp(l->lines[i].name, name) == 0) return i;
    return -1;
}

int fm_ledger_line_of(fm_ledger *l, const char *name, uint64_t need_bytes)
{
    const int at = find(l, name);
    return at >= 0 ? at : fm_ledger_open(l, name, need_bytes);
}

int fm_ledger_open(fm_ledger *l, const char *name, uint64_t limit_bytes)
{
    const int at = find(l, name);
    if (at >= 0) {
        l->lines[at].limit_bytes = limit_bytes;
        return at;
    }
    if (l->n_line == FM_LEDGER_LINES) return -1;
    fm_ledger_line *line = &l->lines[l->n_line];
    snprintf(line->name, sizeof line->name, "%s", name);
    line->limit_bytes = limit_bytes;
    line->used_bytes = 0;
    return l->n_line++;
}

fm_status fm_ledger_charge(fm_ledger *l, int line, int64_t bytes, fm_error *err)
{
    assert(line >= 0 && line < l->n_line);
    fm_ledger_line *ln = &l->lines[line];
    if (bytes < 0) {
        assert(ln->used_bytes >= (uint64_t)-bytes);
        ln->used_bytes -= (uint64_t)-bytes;
        return FM_OK;
    }
    const uint64_t left = ln->limit_bytes > ln->used_bytes ? ln->limit_bytes - ln->used_bytes : 0;
    if ((uint64_t)bytes > left) {
        return fm_fail(err, FM_E_NOMEM,
                       "memory plan: '%s' has %" PRIu64 " bytes left of %" PRIu64
                       ", needs %" PRId64,
                       ln->name, left, ln->limit_bytes, bytes);
    }
    ln->used_bytes += (uint64_t)bytes;
    return FM_OK;
}

void *fm_ledger_alloc(fm_ledger *l, int line, size_t bytes, int huge, fm_error *err)
{
    const size_t size = fm_round_up(bytes ? bytes : 1, FM_LEDGER_PAGE);
    if (fm_ledger_charge(l, line, (int64_t)size, err) != FM_OK) return NULL;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        fm_fail_errno(err, errno, "allocating %zu bytes for '%s'", size, l->lines[line].name);
        fm_ledger_charge(l, line, -(int64_t)size, NULL);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    if (huge && size >= HUGE_PAGE) (void)madvise(p, size, MADV_HUGEPAGE);
#else
    (void)huge;
#endif
#ifdef MADV_DONTFORK
    /* Before Linux 6.3 the first write to a page that fork() shares may give the parent a new one while the device
     * still fills the old one; and page tables of tens of gigabytes are not copied for a child that execs. */
    (void)madvise(p, size, MADV_DONTFORK);
#endif
    return p;
}

void fm_ledger_free(fm_ledger *l, int line, void *p, size_t bytes)
{
    if (!p) return;
    const size_t size = fm_round_up(bytes ? bytes : 1, FM_LEDGER_PAGE);
    munmap(p, size);
    fm_ledger_charge(l, line, -(int64_t)size, NULL);
}

void *fm_arena_take(fm_arena *a, size_t bytes)
{
    const size_t at = a->used;
    a->used += fm_round_up(bytes, 64);
    if (!a->base) return NULL;
    if (a->used > a->size) {
        a->used = at;
        return NULL;
    }
    return a->base + at;
}
