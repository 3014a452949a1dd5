/* tiny-gguf: writes the tiny test models from the command line. */
#include "tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void usage(FILE *out)
{
    fputs("usage: tiny-gguf --spec NAME --out FILE [options]\n"
          "       tiny-gguf --list\n"
          "\n"
          "  --spec NAME      model to write, see --list\n"
          "  --type TYPE      F32 (default), Q8_0, Q4_1, Q5_0, Q5_1, Q4_K, Q6_K, an IQ type,\n"
          "                   IQ (all of them) or MXFP4 (experts; the rest Q8_0)\n"
          "  --fault NAME     with one deliberate error, see --list\n"
          "  --shards N       N files FILE-00001-of-0000N.gguf (default 1: one file)\n"
          "  --share-layers   routed experts of all layers are the same bytes\n"
          "  --list           specs and faults\n",
          out);
}

static void list(void)
{
    puts("spec          layers  embd  vocab  heads/kv x dim  rope  experts/used x ff  delta heads"
         " k/v x dim");
    for (size_t i = 0; tiny_spec_at(i); i++) {
        const tiny_spec *s = tiny_spec_at(i);
        printf("%-12s %7d %5d %6d %6d/%d x %-5d %4d %7d/%d x %-5d", s->name, s->n_layer, s->n_embd,
               s->n_vocab, s->n_head, s->n_head_kv, s->head_dim, s->rope_dim, s->n_expert,
               s->n_expert_used, s->expert_ff);
        if (s->full_interval) {
            printf(" %7d/%d x %d, full every %d", s->n_key_head, s->n_value_head, s->state_dim,
                   s->full_interval);
        }
        puts(s->is_tied ? " tied" : "");
    }
    puts("\nfault");
    for (size_t i = 0; tiny_fault_name(i); i++) {
        printf("%-16s %s\n", tiny_fault_name(i), tiny_fault_text(i));
    }
}

int main(int argc, char **argv)
{
    tiny_options opt = {0};
    const char *out = NULL;
    const char *shards = "1";
    const struct {
        const char *name;
        const char **value;
    } options[] = {
        {"--spec", &opt.spec}, {"--type", &opt.type}, {"--fault", &opt.fault},
        {"--shards", &shards}, {"--out", &out},
    };
    for (int i = 1; i < argc; i++) {
        const char **value = NULL;
        for (size_t k = 0; k < sizeof options / sizeof options[0]; k++) {
            if (strcmp(argv[i], options[k].name) == 0) value = options[k].value;
        }
        if (value && i + 1 < argc) {
            *value = argv[++i];
        } else if (strcmp(argv[i], "--share-layers") == 0) {
            opt.share_layers = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            list();
            return 0;
        } else {
            fprintf(stderr, "tiny-gguf: %s: %s\n", argv[i], value ? "value missing" : "unknown");
            usage(stderr);
            return 2;
        }
    }
    char *end;
    const long n_shards = strtol(shards, &end, 10);
    if (!opt.spec || !out || *end || n_shards < 1 || n_shards > 999) {
        usage(stderr);
        return 2;
    }
    opt.n_shards = (int)n_shards;
    char err[256] = "";
    if (tiny_write(out, &opt, err, sizeof err) != 0) {
        fprintf(stderr, "tiny-gguf: %s\n", err);
        return 1;
    }
    return 0;
}
