/* The options of all commands, each written down once: spelling, argument, default, help. Parsing
 * and --help both come from this table, so they cannot disagree. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stddef.h>
#include <string.h>

typedef enum {
    OPT_FLAG,   /* bool                       */
    OPT_TEXT,   /* const char *               */
    OPT_FILE,   /* const char *, not empty    */
    OPT_OUT,    /* the same, a file to write  */
    OPT_LIST,   /* fm_cli_list, repeatable    */
    OPT_CHOICE, /* const char *, one of `arg` */
    OPT_SIZE,   /* uint64_t                   */
    OPT_INT,    /* int32_t                    */
    OPT_REAL,   /* float                      */
    OPT_SEED,   /* uint64_t, sets has_seed    */
} option_kind;

typedef struct {
    const char *group; /* heading in the help */
    const char *short_name, *name;
    const char *arg; /* what stands for the value in the help; choices separated by '|' */
    option_kind kind;
    size_t offset; /* in fm_cli_options */
    unsigned commands;
    int32_t min, max;     /* OPT_INT */
    const char *fallback; /* the default, parsed like a given value; NULL: off or automatic */
    const char *help;     /* may hold newlines */
} option;

#define FIELD(f) offsetof(fm_cli_options, f)
#define ENGINE_COMMANDS (FM_CMD_RUN | FM_CMD_PLAN | FM_CMD_LOGITS | FM_CMD_BENCH | FM_CMD_EVAL)
#define ALL_COMMANDS \
    (ENGINE_COMMANDS | FM_CMD_INFO | FM_CMD_TOKENIZE | FM_CMD_TEMPLATE | FM_CMD_QUANTIZE)

// clang-format off
static const option OPTIONS[] = {
    {"input", "-m", "--model", "MODEL", OPT_FILE, FIELD(model), ALL_COMMANDS,
     0, 0, NULL, "the model, instead of as the first argument"},
    {"input", "-p", "--prompt", "TEXT", OPT_TEXT, FIELD(prompt), FM_CMD_RUN | FM_CMD_TOKENIZE,
     0, 0, NULL, "the text"},
    {"input", "-f", "--file", "FILE", OPT_FILE, FIELD(prompt_file), FM_CMD_RUN,
     0, 0, NULL, "the text from a file, - for standard input; with -p as well,\n"
                 "the file comes first and TEXT starts on a new line"},
    {"input", "-f", "--file", "FILE", OPT_FILE, FIELD(prompt_file), FM_CMD_TOKENIZE,
     0, 0, NULL, "the text from a file, - for standard input"},
    {"input", NULL, "--raw", NULL, OPT_FLAG, FIELD(is_raw), FM_CMD_RUN,
     0, 0, NULL, "evaluate the text as it is, special tokens included, instead of\n"
                 "as one user turn of a chat"},
    {"input", NULL, "--system", "TEXT", OPT_TEXT, FIELD(system_text), FM_CMD_RUN,
     0, 0, NULL, "a system message before the user's turn"},
    {"input", NULL, "--think", "on|off", OPT_CHOICE, FIELD(think), FM_CMD_RUN,
     0, 0, NULL, "whether the model reasons before it answers, where its chat template\n"
                 "can be told (enable_thinking, thinking; default: as the template has it)"},
    {"input", NULL, "--set", "NAME=VALUE", OPT_LIST, FIELD(variables), FM_CMD_RUN,
     0, 0, NULL, "a variable of the chat template, reasoning_effort=low for instance; may\n"
                 "be given several times"},
    {"input", NULL, "--request", "REQUEST.json", OPT_FILE, FIELD(request), FM_CMD_RUN,
     0, 0, NULL, "a whole conversation instead of one turn: messages, tools and other\n"
                 "variables of the chat template; - for standard input"},
    {"input", NULL, "--no-special", NULL, OPT_FLAG, FIELD(no_special), FM_CMD_TOKENIZE,
     0, 0, NULL, "read special tokens in the text as plain text"},
    {"input", NULL, "--decode", "IDS", OPT_TEXT, FIELD(decode_ids), FM_CMD_TOKENIZE,
     0, 0, NULL, "print the text of these ids (separated by commas)"},
    {"input", NULL, "--ids", "IDS", OPT_TEXT, FIELD(ids), FM_CMD_LOGITS,
     0, 0, NULL, "token ids, separated by commas"},
    {"input", NULL, "--ids-file", "FILE", OPT_FILE, FIELD(ids_file), FM_CMD_LOGITS,
     0, 0, NULL, "token ids from a file, separated by commas or white space;\n"
                 "- for standard input"},

    {"input", NULL, "--file", "T.jinja", OPT_FILE, FIELD(template_file), FM_CMD_TEMPLATE,
     0, 0, NULL, "render this template instead of the model's own"},
    {"input", NULL, "--request", "REQUEST.json", OPT_FILE, FIELD(request), FM_CMD_TEMPLATE,
     0, 0, NULL, "the variables: messages, tools, add_generation_prompt, others;\n"
                 "- for standard input"},
    {"input", NULL, "--now", "UNIXTIME", OPT_TEXT, FIELD(now), FM_CMD_TEMPLATE,
     0, 0, NULL, "the time that strftime_now() sees (default: the clock)"},

    {"output", NULL, "--to", "TYPE", OPT_TEXT, FIELD(to), FM_CMD_QUANTIZE,
     0, 0, NULL, "type of the matrices: Q8_0, Q6_K, Q5_K, Q4_K, Q3_K, Q2_K, Q4_0, MXFP4,\n"
                 "BF16, F16 or F32"},
    {"output", NULL, "--experts", "TYPE", OPT_TEXT, FIELD(expert_type), FM_CMD_QUANTIZE,
     0, 0, NULL, "type of the routed experts (default: that of --to)"},
    {"output", NULL, "--trunk", "TYPE", OPT_TEXT, FIELD(trunk_type), FM_CMD_QUANTIZE,
     0, 0, NULL, "type of the other matrices, embedding and head (default: that of\n"
                 "--to)"},
    {"output", NULL, "--importance", "FILE", OPT_FILE, FIELD(importance), FM_CMD_QUANTIZE,
     0, 0, NULL, "weigh errors by what the columns met: a GGUF file of general.type\n"
                 "imatrix"},
    {"input", NULL, "--text", "FILE", OPT_FILE, FIELD(text_path), FM_CMD_EVAL,
     0, 0, NULL, "the text; - for standard input"},
    {"input", NULL, "--special", NULL, OPT_FLAG, FIELD(is_special), FM_CMD_EVAL,
     0, 0, NULL, "control tokens that the text spells become their ids; otherwise only\n"
                 "markup such as <think> does"},
    {"input", NULL, "--max-tokens", "N", OPT_INT, FIELD(max_tokens), FM_CMD_EVAL,
     1, INT32_MAX, NULL, "only the first N tokens of the text (default: all)"},
    {"input", "-c", "--ctx", "N", OPT_INT, FIELD(n_ctx), FM_CMD_EVAL,
     4, INT32_MAX, NULL, "tokens of a window (default 512)"},
    {"input", NULL, "--stride", "N", OPT_INT, FIELD(stride), FM_CMD_EVAL,
     1, INT32_MAX, NULL, "start a window every N tokens and score its last N, so that each has\n"
                         "at least CTX - N tokens before it (default: see above)"},

    {"workload", NULL, "--prompt", "N", OPT_INT, FIELD(bench_prompt), FM_CMD_BENCH,
     0, 1 << 24, "512", "tokens of the prompt"},
    {"workload", NULL, "--gen", "N", OPT_INT, FIELD(bench_gen), FM_CMD_BENCH,
     0, 1 << 24, "64", "tokens of the generation after it"},
    {"workload", NULL, "--draft-right", "P", OPT_INT, FIELD(draft_right), FM_CMD_BENCH,
     0, 100, NULL, "drafts as if P percent of them were right: ids that are fixed have none\n"
                   "of their own (with --draft on)"},
    {"workload", NULL, "--repeat", "R", OPT_INT, FIELD(n_repeat), FM_CMD_BENCH,
     1, 1000, "3", "times that prompt and generation are measured, each time with\n"
                   "other ids"},
    {"workload", NULL, "--warm", NULL, OPT_FLAG, FIELD(is_warm), FM_CMD_BENCH,
     0, 0, NULL, "keep the engine with its expert cache for all repeats, after one\n"
                 "that is not measured, more with pauses if the cache still grows\n"
                 "(the default)"},
    {"workload", NULL, "--cold", NULL, OPT_FLAG, FIELD(is_cold), FM_CMD_BENCH,
     0, 0, NULL, "start every repeat with a new engine, an empty expert cache and\n"
                 "the model's files dropped from the page cache"},
    {"workload", NULL, "--probes", "on|off", OPT_CHOICE, FIELD(probes), FM_CMD_BENCH,
     0, 0, "on", "off leaves out the probes of disk and memory, with them all bounds, and\n"
                 "the memory that they would have used before the engine does"},

    {"output", NULL, "--out", "FILE", OPT_OUT, FIELD(out_path), FM_CMD_LOGITS,
     0, 0, NULL, "the .npy file to write, float32 [tokens][vocabulary]; it appears\n"
                 "under this name when it is complete"},
    {"output", NULL, "--save-logits", "FILE", OPT_OUT, FIELD(save_logits), FM_CMD_EVAL,
     0, 0, NULL, "keep the logits of all scored tokens as a reference: 4 bytes for each of\n"
                 "them and each token of the vocabulary; the size is said before"},
    {"output", NULL, "--against", "FILE", OPT_FILE, FIELD(against), FM_CMD_EVAL,
     0, 0, NULL, "compare with such a reference, made from the same text and windows:\n"
                 "divergence, and how often both have the same likeliest token"},
    {"output", NULL, "--collect-importance", "FILE", OPT_OUT, FIELD(importance_path), FM_CMD_EVAL,
     0, 0, NULL, "write what the matrices were multiplied with, squared and summed up,\n"
                 "for `quantize --importance` (a GGUF file as llama.cpp's imatrix)"},
    {"output", "-n", "--tokens", "N", OPT_INT, FIELD(n_predict), FM_CMD_RUN,
     -1, INT32_MAX, NULL, "generate at most N tokens (default, or -1: until the end token or until\n"
                          "the context is full)"},
    {"output", NULL, "--stop", "TEXT", OPT_LIST, FIELD(stops), FM_CMD_RUN,
     0, 0, NULL, "end the answer before TEXT; may be given several times"},
    {"output", NULL, "--json", NULL, OPT_FLAG, FIELD(is_json), ALL_COMMANDS & ~(FM_CMD_LOGITS | FM_CMD_TEMPLATE),
     0, 0, NULL, "print one JSON object and nothing else on standard output"},
    {"output", NULL, "--csv", NULL, OPT_FLAG, FIELD(is_csv), FM_CMD_BENCH,
     0, 0, NULL, "print a header and one row per phase, separated by commas"},
    {"output", "-q", "--quiet", NULL, OPT_FLAG, FIELD(is_quiet),
     ALL_COMMANDS,
     0, 0, NULL, "only errors and warnings on standard error"},

    {"output", NULL, "--record-trace", "FILE", OPT_OUT, FIELD(trace_path),
     FM_CMD_RUN | FM_CMD_EVAL,
     0, 0, NULL, "record which experts every token chose (a routing trace,\n"
                 "docs/formats.md)"},
    {"output", NULL, "--record-trace", "FILE", OPT_OUT, FIELD(trace_path), FM_CMD_BENCH,
     0, 0, NULL, "record which experts every token chose (a routing trace,\n"
                 "docs/formats.md); not with --cold"},

    {"sampling", NULL, "--temp", "T", OPT_REAL, FIELD(temperature), FM_CMD_RUN,
     0, 0, "0.7", "temperature; 0 always takes the likeliest token"},
    {"sampling", NULL, "--top-k", "K", OPT_INT, FIELD(top_k), FM_CMD_RUN,
     0, INT32_MAX, "0", "choose among the K likeliest tokens; 0 is off"},
    {"sampling", NULL, "--top-p", "P", OPT_REAL, FIELD(top_p), FM_CMD_RUN,
     0, 0, "0.95", "choose among the likeliest tokens that together reach\n"
                   "probability P; 1 is off"},
    {"sampling", NULL, "--min-p", "P", OPT_REAL, FIELD(min_p), FM_CMD_RUN,
     0, 0, "0", "drop tokens below P times the likeliest one's probability"},
    {"sampling", NULL, "--repeat-penalty", "R", OPT_REAL, FIELD(repeat_penalty), FM_CMD_RUN,
     0, 0, "1", "make the last 64 tokens less likely; 1 is off"},
    {"sampling", NULL, "--seed", "S", OPT_SEED, FIELD(seed), FM_CMD_RUN,
     0, 0, NULL, "the same seed gives the same text (default: differs every time)"},

    {"memory and machine", "-M", "--memory", "SIZE", OPT_SIZE, FIELD(memory_bytes), ENGINE_COMMANDS,
     0, 0, NULL, "all the memory this program may use: 512M, 4G, 1.5G; K, M, G are\n"
                 "KiB, MiB, GiB (default: what the machine can spare)"},
    {"memory and machine", "-c", "--ctx", "N", OPT_INT, FIELD(n_ctx), FM_CMD_RUN,
     1, INT32_MAX, NULL, "tokens of context, prompt and answer together (default: 8192, or what\n"
                         "prompt and answer need if that is more; less where memory is short,\n"
                         "down to the prompt and 1024 more)"},
    {"memory and machine", "-c", "--ctx", "N", OPT_INT, FIELD(n_ctx), FM_CMD_PLAN,
     1, INT32_MAX, NULL, "tokens of context, prompt and answer together (default: 8192, less\n"
                         "where memory is short, but never less than 1024)"},
    {"memory and machine", "-c", "--ctx", "N", OPT_INT, FIELD(n_ctx), FM_CMD_LOGITS,
     1, INT32_MAX, NULL, "tokens of context (default: the number of ids)"},
    {"memory and machine", "-c", "--ctx", "N", OPT_INT, FIELD(n_ctx), FM_CMD_BENCH,
     1, INT32_MAX, NULL, "tokens of context (default: as many as prompt and generation need)"},
    {"memory and machine", NULL, "--batch", "N", OPT_INT, FIELD(n_batch), ENGINE_COMMANDS & ~FM_CMD_LOGITS,
     1, 1 << 16, NULL, "tokens of a prompt that are evaluated together (default: as the memory\n"
                       "allows, below 512 only where it is short); other than multiples of 64\n"
                       "may change the output in the last bits"},
    {"memory and machine", NULL, "--batch", "N", OPT_INT, FIELD(n_batch), FM_CMD_LOGITS,
     1, 1 << 16, NULL, "ids that are evaluated together (default 512); other than multiples of\n"
                       "64 may change the output in the last bits"},
    {"memory and machine", NULL, "--kv", "f16|f32", OPT_CHOICE, FIELD(kv), ENGINE_COMMANDS,
     0, 0, "f16", "type of the attention cache; f32 takes twice the memory and changes the\n"
                    "output a little"},
    {"memory and machine", "-t", "--threads", "N", OPT_INT, FIELD(n_threads),
     ENGINE_COMMANDS | FM_CMD_QUANTIZE,
     1, 1024, NULL, "threads (default: the cores this program may use)"},
    {"memory and machine", NULL, "--experts", "K", OPT_INT, FIELD(n_expert_used), ENGINE_COMMANDS,
     1, INT32_MAX, NULL, "experts per token; changes the output (default: as trained)"},
    {"memory and machine", NULL, "--activations", "full|int8", OPT_CHOICE, FIELD(activations),
     ENGINE_COMMANDS,
     0, 0, "full", "int8 rounds what meets quantized weights to 8 bits, not 13 or 15:\n"
                   "faster prompts on x86 processors; changes the output, eval says how\n"
                   "much"},
    {"memory and machine", NULL, "--io", "uring|pread|mmap", OPT_CHOICE, FIELD(io), ENGINE_COMMANDS,
     0, 0, NULL, "how the disk is read; never changes the output (default: the\n"
                 "best that works here)"},
    {"memory and machine", NULL, "--depth", "D", OPT_INT, FIELD(io_depth), ENGINE_COMMANDS,
     1, 1024, NULL, "reads that the disk has at a time; never changes the output\n"
                    "(default: measured once per disk when the model does not fit)"},
    {"memory and machine", NULL, "--split", "SIZE", OPT_SIZE, FIELD(io_split), ENGINE_COMMANDS,
     0, 0, NULL, "larger reads are cut into pieces of this size, a multiple of 4K;\n"
                 "never changes the output (default: measured with --depth)"},
    {"memory and machine", NULL, "--prefetch", "auto|on|off", OPT_CHOICE, FIELD(prefetch),
     ENGINE_COMMANDS,
     0, 0, "auto", "read experts that the next layer will probably want while the disk\n"
                   "has nothing else to do; auto measures whether it pays and how early\n"
                   "to begin, on only the latter. The output is the same"},
    {"memory and machine", NULL, "--warm-start", "on|off", OPT_CHOICE, FIELD(warm_start),
     FM_CMD_RUN | FM_CMD_PLAN,
     0, 0, NULL, "keep how often each expert is used in a small file of the user's cache\n"
                 "folder, and begin with what earlier sessions used most; the output is\n"
                 "the same (default on)"},
    {"memory and machine", NULL, "--warm-start", "on|off", OPT_CHOICE, FIELD(warm_start),
     FM_CMD_BENCH | FM_CMD_EVAL,
     0, 0, NULL, "keep how often each expert is used in a small file of the user's cache\n"
                 "folder, and begin with what earlier sessions used most; the output is\n"
                 "the same (default off)"},
    {"memory and machine", NULL, "--draft", "auto|on|off", OPT_CHOICE, FIELD(draft),
     FM_CMD_RUN | FM_CMD_PLAN,
     0, 0, NULL, "guess a token ahead with the model's own draft layer, where it has one,\n"
                 "and evaluate both together; auto where most experts fit in memory, and\n"
                 "measures whether it pays. The output is the same (default auto)"},
    {"memory and machine", NULL, "--draft", "auto|on|off", OPT_CHOICE, FIELD(draft), FM_CMD_BENCH,
     0, 0, NULL, "the model's own draft layer, see --draft-right (default off)"},
    {"memory and machine", NULL, "--kernels", "reference|generic|avx2|avxvnni|avx512|amx|neon|i8mm",
     OPT_CHOICE, FIELD(kernels), ENGINE_COMMANDS,
     0, 0, NULL, "instruction set (default: the best this processor has); with unquantized\n"
                    "weights another one may change the output in the last bits"},

    {"help", "-h", "--help", NULL, OPT_FLAG, FIELD(wants_help), ALL_COMMANDS,
     0, 0, NULL, "this text"},
};
// clang-format on
#define N_OPTION (sizeof OPTIONS / sizeof OPTIONS[0])

/* ---- help ----------------------------------------------------------------------------------- */

static void print_option(FILE *out, const option *opt)
{
    enum { COLUMN = 26 };
    char left[80];
    const int n = snprintf(left, sizeof left, "  %s%s%s%s%s",
                           opt->short_name ? opt->short_name : "", opt->short_name ? ", " : "",
                           opt->name, opt->arg ? " " : "", opt->arg ? opt->arg : "");
    fputs(left, out);
    if (n + 2 > COLUMN) fputc('\n', out);
    int at = n + 2 > COLUMN ? 0 : n;
    for (const char *line = opt->help; line;) {
        const char *end = strchr(line, '\n');
        const int length = end ? (int)(end - line) : (int)strlen(line);
        fprintf(out, "%*s%.*s", COLUMN - at, "", length, line);
        if (!end && opt->fallback) fprintf(out, " (default %s)", opt->fallback);
        fputc('\n', out);
        at = 0;
        line = end ? end + 1 : NULL;
    }
}

void fm_cli_print_help(FILE *out, const fm_cli_command *command)
{
    fprintf(out, "usage: flashmoe %s %s\n\n%s\n%s", command->name, command->synopsis,
            command->summary, command->details);
    const char *group = NULL;
    for (size_t i = 0; i < N_OPTION; i++) {
        if (!(OPTIONS[i].commands & command->bit)) continue;
        if (!group || strcmp(group, OPTIONS[i].group) != 0) {
            group = OPTIONS[i].group;
            fprintf(out, "\n%s\n", group);
        }
        print_option(out, &OPTIONS[i]);
    }
}

/* ---- parsing -------------------------------------------------------------------------------- */

int fm_cli_usage_error(const fm_cli_options *o, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "flashmoe %s: ", o->command);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\nsee: flashmoe %s --help\n", o->command);
    va_end(args);
    return FM_EXIT_USAGE;
}

static const option *find_option(const char *word, size_t length, unsigned command)
{
    for (size_t i = 0; i < N_OPTION; i++) {
        const option *opt = &OPTIONS[i];
        if (!(opt->commands & command)) continue;
        if (strlen(opt->name) == length && strncmp(opt->name, word, length) == 0) return opt;
        if (opt->short_name && strlen(opt->short_name) == length &&
            strncmp(opt->short_name, word, length) == 0) {
            return opt;
        }
    }
    return NULL;
}

static bool is_choice(const char *choices, const char *value)
{
    const size_t n = strlen(value);
    for (const char *p = choices; p && n > 0;) {
        const char *end = strchr(p, '|');
        const size_t length = end ? (size_t)(end - p) : strlen(p);
        if (length == n && strncmp(p, value, n) == 0) return true;
        p = end ? end + 1 : NULL;
    }
    return false;
}

static int set_option(fm_cli_options *o, const option *opt, const char *value)
{
    void *field = (char *)o + opt->offset;
    int64_t whole;
    double real;
    switch (opt->kind) {
    case OPT_FLAG:
        *(bool *)field = true;
        return FM_EXIT_OK;
    case OPT_OUT:
        if (strcmp(value, "-") == 0)
            return fm_cli_usage_error(
                o, "%s -: expected the name of a file, it cannot go to standard output", opt->name);
        /* fall through */
    case OPT_FILE:
        if (!*value) return fm_cli_usage_error(o, "%s: the name is empty", opt->name);
        if (opt->offset == FIELD(model) && o->model)
            return fm_cli_usage_error(o, "two models: %s and %s", o->model, value);
        *(const char **)field = value;
        return FM_EXIT_OK;
    case OPT_TEXT:
        *(const char **)field = value;
        return FM_EXIT_OK;
    case OPT_LIST: {
        fm_cli_list *list = field;
        if (!*value) return fm_cli_usage_error(o, "%s: the text is empty", opt->name);
        if (list->n == FM_CLI_LIST_MAX) {
            return fm_cli_usage_error(o, "%s: given more than %d times", opt->name,
                                      FM_CLI_LIST_MAX);
        }
        list->items[list->n++] = value;
        return FM_EXIT_OK;
    }
    case OPT_CHOICE:
        if (!is_choice(opt->arg, value)) {
            return fm_cli_usage_error(o, "%s %s: expected %s", opt->name, value, opt->arg);
        }
        *(const char **)field = value;
        return FM_EXIT_OK;
    case OPT_SIZE:
        if (!fm_cli_parse_size(value, field) || *(uint64_t *)field == 0) {
            return fm_cli_usage_error(o, "%s %s: expected a size such as 512M, 4G or 1.5G",
                                      opt->name, value);
        }
        return FM_EXIT_OK;
    case OPT_INT:
        if (!fm_cli_parse_int(value, opt->min, opt->max, &whole)) {
            return fm_cli_usage_error(o, "%s %s: expected a whole number from %d to %d", opt->name,
                                      value, (int)opt->min, (int)opt->max);
        }
        *(int32_t *)field = (int32_t)whole;
        return FM_EXIT_OK;
    case OPT_REAL:
        if (!fm_cli_parse_real(value, &real)) {
            return fm_cli_usage_error(o, "%s %s: expected a number", opt->name, value);
        }
        *(float *)field = (float)real;
        return FM_EXIT_OK;
    case OPT_SEED:
        if (!fm_cli_parse_u64(value, field)) {
            return fm_cli_usage_error(o, "%s %s: expected a whole number from 0", opt->name, value);
        }
        o->has_seed = true;
        return FM_EXIT_OK;
    }
    return FM_EXIT_USAGE;
}

/* One argument that starts with '-'. Moves *i past the value that it took. */
static int parse_option(fm_cli_options *o, const fm_cli_command *command, int *i, int argc,
                        char **argv)
{
    const char *word = argv[*i];
    const char *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    const size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const option *opt = find_option(word, length, command->bit);
    if (!opt) return fm_cli_usage_error(o, "unknown option %.*s", (int)length, word);
    if (opt->kind == OPT_FLAG) {
        if (equals) return fm_cli_usage_error(o, "%s takes no value", opt->name);
        return set_option(o, opt, NULL);
    }
    const char *value = equals ? equals + 1 : NULL;
    if (!value) {
        if (*i + 1 >= argc) return fm_cli_usage_error(o, "%s needs a value: %s", word, opt->arg);
        value = argv[++*i];
    }
    return set_option(o, opt, value);
}

enum { SPLIT_UNIT = 4096 };

int fm_cli_parse(fm_cli_options *o, const fm_cli_command *command, int argc, char **argv)
{
    *o = (fm_cli_options){.command = command->name, .n_predict = -1, .draft_right = -1};
    for (size_t k = 0; k < N_OPTION; k++) {
        const option *opt = &OPTIONS[k];
        if (!opt->fallback) continue;
        const int status = set_option(o, opt, opt->fallback);
        if (status != FM_EXIT_OK) return status;
    }
    bool is_options_end = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (!is_options_end && strcmp(word, "--") == 0) {
            is_options_end = true;
        } else if (!is_options_end && word[0] == '-' && word[1]) {
            const int status = parse_option(o, command, &i, argc, argv);
            if (status != FM_EXIT_OK) return status;
            if (o->wants_help) return FM_EXIT_OK;
        } else if (!o->model) {
            o->model = word;
        } else if (!o->destination && command->bit == FM_CMD_QUANTIZE) {
            o->destination = word;
        } else {
            return fm_cli_usage_error(o, "unexpected argument \"%s\"%s", word,
                                      command->bit & (FM_CMD_RUN | FM_CMD_TOKENIZE)
                                          ? " (the text is given with -p)"
                                          : "");
        }
    }
    if (o->io_split % SPLIT_UNIT)
        return fm_cli_usage_error(o, "--split %llu: expected a multiple of 4K",
                                  (unsigned long long)o->io_split);
    if ((!o->model || !*o->model) && !o->template_file)
        return fm_cli_usage_error(o, "which model? give its file or directory");
    return FM_EXIT_OK;
}

/* ---- commands ------------------------------------------------------------------------------- */

const fm_cli_command fm_cli_commands[] = {
    {"run", FM_CMD_RUN, "MODEL (-p TEXT | -f FILE | --request FILE) [options]",
     "Answers one prompt; the text streams out.",
     "\nThe memory plan, progress and a line of figures go to standard error. Ctrl-C stops the\n"
     "answer (exit status 130); a second one ends the program at once.\n",
     fm_cmd_run},
    {"info", FM_CMD_INFO, "MODEL [--json]", "Says what a model is: family, sizes, types, experts.",
     "", fm_cmd_info},
    {"plan", FM_CMD_PLAN, "MODEL [options]",
     "Shows what would lie in memory, without loading anything.", "", fm_cmd_plan},
    {"logits", FM_CMD_LOGITS, "MODEL (--ids IDS | --ids-file FILE) --out FILE.npy [options]",
     "Writes the raw logits of given token ids.",
     "\nWith --batch 1 the ids are evaluated one by one, otherwise in chunks of that size.\n",
     fm_cmd_logits},
    {"tokenize", FM_CMD_TOKENIZE,
     "MODEL|tokenizer.json (-p TEXT | -f FILE | --decode IDS) [options]",
     "Turns text into token ids, or ids into text.", "", fm_cmd_tokenize},
    {"bench", FM_CMD_BENCH, "MODEL [options]",
     "Measures prompt and generation against the limits of disk and memory.",
     "\nThe ids that are evaluated are fixed numbers, not the model's own choice; equal token\n"
     "hashes mean equal output. Disk and memory are probed before and after the runs. What the\n"
     "figures mean: docs/benchmarks.md.\n",
     fm_cmd_bench},
    {"template", FM_CMD_TEMPLATE, "(MODEL | --file T.jinja) --request REQUEST.json",
     "Renders a request with a chat template.",
     "\nPrints the prompt as the template makes it, without a newline of its own. A template that\n"
     "raises gives its message as the error. `run` uses the model's own template, and the ChatML\n"
     "form for a model that carries none.\n",
     fm_cmd_template},
    {"quantize", FM_CMD_QUANTIZE, "SOURCE DESTINATION.gguf --to TYPE [options]",
     "Writes a model as one GGUF file in another type.",
     "\nSOURCE is anything that the other commands open, and only read. Norms, routers, convolutions,\n"
     "biases and vectors become F32. The file is built as DESTINATION.gguf.part; stopped at any moment,\n"
     "the same command goes on from there. It gets its name when all of it was read back.\n",
     fm_cmd_quantize},
    {"eval", FM_CMD_EVAL, "MODEL --text FILE [options]",
     "Perplexity of a text, and divergence from reference logits.",
     "\nThe text is cut into windows of CTX tokens, what is left over at its end is not used. Each\n"
     "window is evaluated by itself, and the second half is scored: the tokens from number\n"
     "CTX/2 + 1 on (the first is number 0), each given all before it in its window. Perplexity\n"
     "is exp of the mean of -ln p over all scored tokens, its error that of the mean times the\n"
     "perplexity. llama.cpp's perplexity does the same, so figures for one file can be compared.\n"
     "A model whose file wants a token in front of every text gets it as the first token of the\n"
     "text and in place of the first token of every window.\n"
     "\n"
     "Divergence is the Kullback-Leibler divergence of this run from the reference, in nats, over\n"
     "the whole vocabulary of every scored token. To see what an option costs:\n"
     "  flashmoe eval MODEL --text FILE --save-logits REF\n"
     "  flashmoe eval MODEL --text FILE --against REF --experts 4\n",
     fm_cmd_eval},
    {NULL, 0, NULL, NULL, NULL, NULL},
};
