/* cache-replay: answers recorded routing from expert caches of given sizes and says how often each
 * policy would have had the expert in memory.
 *
 *     cache-replay [--budget SHARE[,SHARE...]] [--policies NAME[,NAME...]] [--json] TRACE...
 *
 * SHARE is percent of the bytes of all experts (6%), or bytes (2G). Traces are made by
 * tools/trace_synth.py; docs/formats.md has their format. Prompt
 * and generation are counted apart, from an empty cache on, in experts and (--json) in bytes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay/replay.h"

static const rp_policy *const POLICIES[] = {
    &rp_own,    &rp_lru, &rp_lru2, &rp_lfu,     &rp_lfu_all, &rp_lfu_aged,
    &rp_s3fifo, &rp_2q,  &rp_arc,  &rp_tinylfu, &rp_belady,
};
enum { N_POLICY = sizeof POLICIES / sizeof POLICIES[0], MAX_BUDGETS = 32 };

typedef struct {
    const char *budget[MAX_BUDGETS];
    int n_budget;
    const char *policies; /* NULL: all */
    bool is_json;
} settings;

static bool is_wanted(const settings *s, const char *name)
{
    const size_t n = strlen(name);
    for (const char *at = s->policies; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        const size_t length = strcspn(at, ",");
        if (length == n && strncmp(at, name, n) == 0) return true;
    }
    return s->policies == NULL;
}

static bool parse_budget(uint64_t *bytes, const char *text, const rp_trace *t)
{
    char *end;
    const double value = strtod(text, &end);
    if (end == text || !(value > 0)) return false;
    double scale = 1;
    switch (*end) {
    case '%':
        scale = (double)t->total_bytes / 100, end++;
        break;
    case 'K':
        scale = 1 << 10, end++;
        break;
    case 'M':
        scale = 1 << 20, end++;
        break;
    case 'G':
        scale = 1 << 30, end++;
        break;
    default:
        break;
    }
    if (*end || value * scale > 1e18) return false;
    *bytes = (uint64_t)(value * scale);
    return true;
}

/* False: the policy cannot work in this capacity. */
static bool replay(const rp_trace *t, const rp_policy *policy, uint64_t capacity,
                   rp_count count[RP_PHASES])
{
    memset(count, 0, RP_PHASES * sizeof *count);
    void *p = policy->create(t, capacity);
    if (!p) return false;
    bool *hit = rp_alloc((size_t)t->layer_first[t->n_layer], sizeof *hit);
    for (int32_t i = 0; i < t->n_demand; i++) {
        const rp_demand *d = &t->demand[i];
        rp_count *c = &count[d->phase];
        policy->demand(p, d, hit);
        for (int32_t k = 0; k < d->n; k++) {
            c->uses++;
            c->use_bytes += t->bytes[d->layer];
            if (!hit[k]) continue;
            c->hits++;
            c->hit_bytes += t->bytes[d->layer];
        }
    }
    free(hit);
    policy->destroy(p);
    return true;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_count(const char *phase, const rp_count *c, const char *after)
{
    printf("\"%s\": {\"uses\": %" PRIu64 ", \"hits\": %" PRIu64 ", \"use_bytes\": %" PRIu64
           ", \"hit_bytes\": %" PRIu64 "}%s",
           phase, c->uses, c->hits, c->use_bytes, c->hit_bytes, after);
}

static void replay_json(const settings *s, const rp_trace *t, uint64_t capacity, bool is_first)
{
    printf("%s\n      {\"budget_bytes\": %" PRIu64 ", \"policies\": [", is_first ? "" : ",",
           capacity);
    bool needs_comma = false;
    for (int i = 0; i < N_POLICY; i++) {
        rp_count c[RP_PHASES];
        if (!is_wanted(s, POLICIES[i]->name) || !replay(t, POLICIES[i], capacity, c)) continue;
        printf("%s\n        {\"policy\": \"%s\", \"online\": %s, ", needs_comma ? "," : "",
               POLICIES[i]->name, POLICIES[i]->is_online ? "true" : "false");
        print_count("prompt", &c[RP_PROMPT], ", ");
        print_count("generation", &c[RP_GENERATION], "}");
        needs_comma = true;
    }
    rp_count bound;
    rp_bound(t, capacity, &bound);
    printf("],\n       ");
    print_count("bound", &bound, "}");
}

static void replay_table(const settings *s, const rp_trace *t, uint64_t capacity)
{
    printf("\n%.2f GB of experts cached (%.1f %%)%s\n", (double)capacity / 1e9,
           percent(capacity, t->total_bytes),
           t->equal_sizes ? "" : "; several sizes: hits are shares of the bytes");
    printf("  %-10s %10s %10s   %s\n", "policy", "prompt", "generation", "keeps, or evicts first");
    for (int i = 0; i < N_POLICY; i++) {
        rp_count c[RP_PHASES];
        if (!is_wanted(s, POLICIES[i]->name)) continue;
        if (!replay(t, POLICIES[i], capacity, c)) {
            printf("  %-10s %23s\n", POLICIES[i]->name, "too small for it");
            continue;
        }
        printf("  %-10s %8.2f %% %8.2f %%   %s\n", POLICIES[i]->name,
               percent(c[0].hit_bytes, c[0].use_bytes), percent(c[1].hit_bytes, c[1].use_bytes),
               POLICIES[i]->says);
    }
    rp_count bound;
    rp_bound(t, capacity, &bound);
    printf("  no policy has more than %.2f %% of both together\n",
           percent(bound.hit_bytes, bound.use_bytes));
}

static bool replay_trace(const settings *s, const char *path, bool is_first)
{
    rp_trace t;
    bool ok = rp_trace_read(&t, path);
    if (ok && s->is_json) {
        printf("%s\n    {\"trace\": \"%s\", \"experts_bytes\": %" PRIu64
               ", \"equal_sizes\": %s, \"budgets\": [",
               is_first ? "" : ",", path, t.total_bytes, t.equal_sizes ? "true" : "false");
    } else if (ok) {
        printf("%s%s: %s, %d layers, %d experts per token, %" PRId64 " experts of %.2f GB\n",
               is_first ? "" : "\n", path, t.name, t.n_layer, t.n_used, t.layer_first[t.n_layer],
               (double)t.total_bytes / 1e9);
    }
    for (int i = 0; ok && i < s->n_budget; i++) {
        uint64_t capacity;
        if (!parse_budget(&capacity, s->budget[i], &t)) {
            fprintf(stderr, "cache-replay: --budget %s: expected 12%%, 512M or 4G\n", s->budget[i]);
            ok = false;
        } else if (s->is_json) {
            replay_json(s, &t, capacity, i == 0);
        } else {
            replay_table(s, &t, capacity);
        }
    }
    if (ok && s->is_json) printf("]}");
    rp_trace_free(&t);
    return ok;
}

static int usage(void)
{
    fputs("usage: cache-replay [--budget SHARE,...] [--policies NAME,...] [--json] TRACE...\n"
          "policies:",
          stderr);
    for (int i = 0; i < N_POLICY; i++) fprintf(stderr, " %s", POLICIES[i]->name);
    fputc('\n', stderr);
    return 2;
}

int main(int argc, char **argv)
{
    static char default_budgets[] = "6%,12%,25%,50%";
    settings s = {0};
    char *budgets = default_budgets;
    int at = 1;
    for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
        if (strcmp(argv[at], "--json") == 0) {
            s.is_json = true;
        } else if (strcmp(argv[at], "--budget") == 0 && at + 1 < argc) {
            budgets = argv[++at];
        } else if (strcmp(argv[at], "--policies") == 0 && at + 1 < argc) {
            s.policies = argv[++at];
        } else {
            return usage();
        }
    }
    if (at == argc) return usage();
    for (char *b = strtok(budgets, ","); b && s.n_budget < MAX_BUDGETS; b = strtok(NULL, ",")) {
        s.budget[s.n_budget++] = b;
    }
    bool ok = true;
    if (s.is_json) printf("{\"traces\": [");
    for (int i = at; ok && i < argc; i++) ok = replay_trace(&s, argv[i], i == at);
    if (s.is_json) printf("]}\n");
    return ok ? 0 : 1;
}
