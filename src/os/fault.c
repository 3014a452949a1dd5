/* Fault injection: see fault.h. Compiled to nothing in release builds. The rules are the one piece
 * of state in the library that is shared by all engines of a process; a lock guards it. */
#include "os/fault.h"

#ifdef FM_FAULTS

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "os/retry.h"

enum { MAX_RULES = 8 };

/* Those of reads first. */
typedef enum {
    RULE_ERRNO,
    RULE_SHORT,
    RULE_EOF,
    RULE_SLOW,
    RULE_ALLOC,
    RULE_CALL,
    RULE_RETRY,
} rule_kind;

typedef struct {
    rule_kind kind;
    fm_fault_kind call; /* of RULE_CALL */
    int os_errno;
    bool always;
    uint64_t nth, every, times, us;
    bool sticky;
    /* the place that the nth read named, once it came */
    const void *file;
    uint64_t offset;
    bool placed;
    uint64_t n_fired;
} rule;

static pthread_mutex_t fault_mu = PTHREAD_MUTEX_INITIALIZER;
static rule fault_rules[MAX_RULES]; /* guarded by fault_mu, as are the counters */
static int fault_n_rule;
static uint64_t fault_n_read, fault_n_alloc, fault_n_call[FM_FAULT_KINDS];
static bool fault_env_seen;

/* The error that a kind of rule names, 0: none. */
static int errno_named(const char *kind)
{
    static const struct {
        const char *name;
        int os_errno;
    } names[] = {{"eio", EIO},         {"eio-forever", EIO}, {"einval", EINVAL},
                 {"eintr", EINTR},     {"eagain", EAGAIN},   {"enospc", ENOSPC},
                 {"enodata", ENODATA}, {"enomem", ENOMEM},   {"etimedout", ETIMEDOUT},
                 {"enolink", ENOLINK}, {"ebusy", EBUSY},     {"enodev", ENODEV}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(kind, names[i].name) == 0) return names[i].os_errno;
    }
    return 0;
}

/* -1: none of that name. */
static int call_named(const char *what)
{
    static const char *const names[FM_FAULT_KINDS] = {"write", "sync", "file", "ring"};
    for (int i = 0; i < FM_FAULT_KINDS; i++)
        if (strcmp(what, names[i]) == 0) return i;
    return -1;
}

static bool parse_rule(const char *text, rule *out)
{
    char low[128];
    if (strlen(text) >= sizeof low) return false;
    for (size_t i = 0; i <= strlen(text); i++) low[i] = (char)tolower((unsigned char)text[i]);
    *out = (rule){.times = 1};
    char *save = NULL;
    const char *what = strtok_r(low, ":", &save);
    if (!what) return false;
    if (strcmp(what, "read") == 0) {
        const char *kind = strtok_r(NULL, ":", &save);
        if (!kind) return false;
        out->kind = strcmp(kind, "short") == 0  ? RULE_SHORT
                    : strcmp(kind, "eof") == 0  ? RULE_EOF
                    : strcmp(kind, "slow") == 0 ? RULE_SLOW
                                                : RULE_ERRNO;
        out->os_errno = errno_named(kind);
        out->always = strcmp(kind, "eio-forever") == 0 || out->kind == RULE_SLOW;
        if (out->kind == RULE_ERRNO && out->os_errno == 0) return false;
    } else if (strcmp(what, "alloc") == 0) {
        out->kind = RULE_ALLOC;
    } else if (strcmp(what, "retry") == 0) {
        out->kind = RULE_RETRY;
        out->always = true;
    } else if (call_named(what) >= 0) {
        const char *kind = strtok_r(NULL, ":", &save);
        out->kind = RULE_CALL;
        out->call = (fm_fault_kind)call_named(what);
        /* A full disk stays full unless times= says otherwise; fsync reports an error once. */
        if (out->call != FM_FAULT_SYNC) out->times = UINT64_MAX;
        out->os_errno = kind ? errno_named(kind) : 0;
        if (out->os_errno == 0) return false;
    } else {
        return false;
    }
    for (const char *p; (p = strtok_r(NULL, ":", &save)) != NULL;) {
        unsigned long long v = 0;
        if (sscanf(p, "nth=%llu", &v) == 1) out->nth = v;
        else if (sscanf(p, "every=%llu", &v) == 1) out->every = v;
        else if (sscanf(p, "times=%llu", &v) == 1) out->times = v;
        else if (sscanf(p, "us=%llu", &v) == 1) out->us = v;
        else if (strcmp(p, "sticky") == 0) out->sticky = true;
        else return false;
    }
    return out->always || out->nth > 0 || out->every > 0;
}

static bool set_rules(const char *spec)
{
    fault_n_rule = 0;
    fault_n_read = fault_n_alloc = 0;
    memset(fault_n_call, 0, sizeof fault_n_call);
    if (!spec || !*spec) return true;
    char text[512];
    if (strlen(spec) >= sizeof text) return false;
    memcpy(text, spec, strlen(spec) + 1);
    char *save = NULL;
    int n = 0;
    for (char *p = strtok_r(text, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        if (n == MAX_RULES || !parse_rule(p, &fault_rules[n])) return false;
        n++;
    }
    fault_n_rule = n;
    return true;
}

bool fm_fault_set(const char *spec)
{
    pthread_mutex_lock(&fault_mu);
    fault_env_seen = true; /* a test that sets rules does not want the environment's */
    const bool ok = set_rules(spec);
    pthread_mutex_unlock(&fault_mu);
    return ok;
}

void fm_fault_from_env(void)
{
    pthread_mutex_lock(&fault_mu);
    if (!fault_env_seen) {
        fault_env_seen = true;
        const char *spec = getenv("FM_FAULT");
        if (!set_rules(spec)) fprintf(stderr, "FM_FAULT: cannot read '%s'\n", spec);
    }
    pthread_mutex_unlock(&fault_mu);
}

/* Does this rule hit the read of `offset`, which is read number `number`? */
static bool rule_hits(rule *r, uint64_t number, const void *file, uint64_t offset)
{
    if (r->kind >= RULE_ALLOC) return false;
    if (r->always) return true;
    if (r->every > 0) return number % r->every == 0;
    if (!r->placed && number >= r->nth) {
        r->placed = true;
        r->file = file;
        r->offset = offset;
    }
    if (!r->placed || r->file != file || r->offset != offset) return false;
    return r->sticky || r->n_fired < r->times;
}

int64_t fm_fault_read(const void *file, uint64_t offset, void *buf, int64_t result)
{
    uint64_t sleep_us = 0;
    pthread_mutex_lock(&fault_mu);
    const uint64_t number = ++fault_n_read;
    int64_t new_result = result;
    for (int i = 0; i < fault_n_rule; i++) {
        rule *r = &fault_rules[i];
        if (!rule_hits(r, number, file, offset)) continue;
        r->n_fired++;
        if (r->kind == RULE_ERRNO) new_result = -r->os_errno;
        if (r->kind == RULE_EOF) new_result = 0;
        if (r->kind == RULE_SHORT && result > 1) new_result = result / 2;
        if (r->kind == RULE_SLOW) sleep_us += r->us;
    }
    pthread_mutex_unlock(&fault_mu);
    if (sleep_us > 0) fm_sleep_us(sleep_us);
    if (new_result < result) {
        const int64_t kept = new_result > 0 ? new_result : 0;
        memset((char *)buf + kept, 0xa5, (size_t)(result - kept));
    }
    return new_result;
}

bool fm_fault_alloc(void)
{
    bool fails = false;
    pthread_mutex_lock(&fault_mu);
    fault_n_alloc++;
    for (int i = 0; i < fault_n_rule; i++) {
        fails |= fault_rules[i].kind == RULE_ALLOC && fault_rules[i].nth == fault_n_alloc;
    }
    pthread_mutex_unlock(&fault_mu);
    return fails;
}

int fm_fault_call(fm_fault_kind call)
{
    int fails = 0;
    fm_fault_from_env(); /* may come before any I/O engine */
    pthread_mutex_lock(&fault_mu);
    const uint64_t number = ++fault_n_call[call];
    for (int i = 0; i < fault_n_rule; i++) {
        const rule *r = &fault_rules[i];
        if (r->kind == RULE_CALL && r->call == call && number >= r->nth &&
            number - r->nth < r->times)
            fails = r->os_errno;
    }
    pthread_mutex_unlock(&fault_mu);
    return fails;
}

uint64_t fm_fault_retry_us(uint64_t us)
{
    pthread_mutex_lock(&fault_mu);
    for (int i = 0; i < fault_n_rule; i++)
        if (fault_rules[i].kind == RULE_RETRY) us = fault_rules[i].us;
    pthread_mutex_unlock(&fault_mu);
    return us;
}

uint64_t fm_fault_reads(void)
{
    pthread_mutex_lock(&fault_mu);
    const uint64_t n = fault_n_read;
    pthread_mutex_unlock(&fault_mu);
    return n;
}

#else
typedef int fm_fault_nothing; /* a translation unit must not be empty */
#endif
