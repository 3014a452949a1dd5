/* What the commands share: options, exit statuses, and the way to standard output and error.
 *
 * The command line is the first user of the public header and knows nothing else of the engine.
 * Standard output carries the answer (text, table or JSON), standard error everything else.
 */
#pragma once

#include "flashmoe.h"

#include <stdio.h>

#include "base/attr.h"
#include "base/figure.h"

enum {
    FM_EXIT_OK = 0,
    FM_EXIT_FAILURE = 1,
    FM_EXIT_USAGE = 2,
    FM_EXIT_INTERRUPTED = 130,
};

/* ---- options (cli_options.c) --------------------------------------------------------------- */

#define FM_CLI_LIST_MAX 16

typedef struct {
    const char *items[FM_CLI_LIST_MAX];
    int n;
} fm_cli_list;

/* Every option of every command; a command reads those that its help lists. Strings are borrowed
 * from argv or the option table. */
typedef struct {
    const char *command; /* "run" */
    const char *model;   /* the positional argument */

    const char *prompt, *prompt_file;
    bool is_raw;
    const char *system_text, *think; /* NULL: none, as the template has it */
    fm_cli_list variables;           /* NAME=VALUE */
    int32_t n_predict;               /* -1: until the end token */
    fm_cli_list stops;

    float temperature, top_p, min_p, repeat_penalty;
    int32_t top_k;
    bool has_seed;
    uint64_t seed;

    uint64_t memory_bytes;                            /* 0: what is free */
    int32_t n_threads, n_ctx, n_batch, n_expert_used; /* 0: automatic */
    const char *kv, *io, *kernels, *activations;      /* io, kernels NULL: automatic */

    const char *ids, *ids_file, *out_path;
    const char *decode_ids;
    bool no_special;

    int32_t bench_prompt, bench_gen, n_repeat;
    bool is_cold, is_warm, is_csv;
    int32_t io_depth;  /* 0: automatic */
    uint64_t io_split; /* 0: automatic */
    const char *prefetch, *draft, *probes;
    int32_t draft_right; /* -1: was not given */

    const char *template_file, *request, *now;

    const char *destination; /* the second positional argument of quantize */
    const char *to, *expert_type, *trunk_type, *importance;
    const char *text_path, *save_logits, *against, *importance_path;
    int32_t stride, max_tokens; /* 0: none was given */
    bool is_special;
    const char *trace_path, *warm_start;

    bool is_json, is_quiet, wants_help;
} fm_cli_options;

typedef enum {
    FM_CMD_RUN = 1 << 0,
    FM_CMD_INFO = 1 << 1,
    FM_CMD_PLAN = 1 << 2,
    FM_CMD_LOGITS = 1 << 3,
    FM_CMD_TOKENIZE = 1 << 4,
    FM_CMD_BENCH = 1 << 5,
    FM_CMD_TEMPLATE = 1 << 6,
    FM_CMD_QUANTIZE = 1 << 8,
    FM_CMD_EVAL = 1 << 7,
} fm_cli_command_bit;

typedef struct {
    const char *name;
    unsigned bit;
    const char *synopsis;                /* after the name, for the usage line */
    const char *summary;                 /* one line, for `flashmoe help`      */
    const char *details;                 /* for its own help, may be ""        */
    int (*run)(const fm_cli_options *o); /* returns the exit status */
} fm_cli_command;

/* Parses argv[0..argc), the words after the command's name. Returns FM_EXIT_OK, or FM_EXIT_USAGE
 * after a message on standard error. With --help nothing else is required of the line. */
int fm_cli_parse(fm_cli_options *o, const fm_cli_command *command, int argc, char **argv);

void fm_cli_print_help(FILE *out, const fm_cli_command *command);

/* A usage error of `o->command`: prints it and returns FM_EXIT_USAGE. */
int fm_cli_usage_error(const fm_cli_options *o, const char *fmt, ...) FM_PRINTF(2, 3);

/* ---- numbers in text (cli_parse.c); false: not one, *out untouched --------------------------- */

/* "4096", "512M", "1.5G", "4GiB", "4GB": K, M, G, T are powers of 1024 in every spelling. */
bool fm_cli_parse_size(const char *text, uint64_t *out);
bool fm_cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *out);
bool fm_cli_parse_u64(const char *text, uint64_t *out);
bool fm_cli_parse_real(const char *text, double *out); /* finite */

/* Ids from 0 separated by commas or white space. *ids is malloc'd, freed by the caller; `source`
 * names the list in messages. */
fm_status fm_cli_parse_ids(int32_t **ids, size_t *n_ids, const char *text, const char *source,
                           fm_error *err);
/* Fails on the first id that is not below n_vocab. */
fm_status fm_cli_check_ids(const int32_t *ids, size_t n_ids, int32_t n_vocab, const char *source,
                           fm_error *err);

/* A whole file, "-" for standard input, as n bytes and a NUL; malloc'd, freed by the caller.
 * FM_E_CANCELLED when Ctrl-C came while it was read. */
fm_status fm_cli_read_file(char **text, size_t *n, const char *path, fm_error *err);

/* Whether a text of n bytes can become tokens within --memory: text and ids together take twice its bytes meanwhile. */
fm_status fm_cli_check_text(const fm_cli_options *o, const char *path, size_t n, fm_error *err);

/* What a file of the command line is called in messages: "-" is standard input; NULL is NULL. */
const char *fm_cli_file_name(const char *path);

/* Whether PATH.PID.tmp can be written and renamed to path: a file that is written at the end should not
 * fail for its name after hours. Leaves nothing behind. */
fm_status fm_cli_check_writable(const char *path, fm_error *err);

/* ---- Ctrl-C and the end of a command (cli_common.c) ------------------------------------------ */

/* From now on the first Ctrl-C only sets the flag, and a second one ends the program. A reader that
 * goes away is an error of the write, not a signal. */
void fm_cli_catch_signals(void);
bool fm_cli_is_interrupted(void);

/* Prints "flashmoe: MESSAGE" and returns the exit status for err. */
int fm_cli_fail(const fm_error *err);

/* Flushes standard output; an error of any write since the start gives a message and status 1, one that
 * Ctrl-C ended FM_EXIT_INTERRUPTED, otherwise `status` is returned. */
int fm_cli_finish(int status);

/* Engine options from the command line, with log and load progress on standard error. */
void fm_cli_engine_options(fm_engine_options *out, const fm_cli_options *o);

/* The word of --activations for a value of fm_activations. */
const char *fm_cli_activations(int32_t activations);

/* Opens the engine and warns of options that change the output. */
fm_status fm_cli_open(fm_engine **out, const fm_engine_options *opt, const fm_cli_options *o,
                      fm_error *err);

/* ---- standard error (cli_progress.c) ---------------------------------------------------------- */

/* One line of information, unless --quiet; takes a progress line off the screen first. */
void fm_cli_note(const fm_cli_options *o, const char *fmt, ...) FM_PRINTF(2, 3);

/* "flashmoe: warning: ...", also with --quiet. */
void fm_cli_warn(const char *fmt, ...) FM_PRINTF(1, 2);

/* The library's log; user is the fm_cli_options. */
void fm_cli_on_log(void *user, fm_log_level level, const char *line);

typedef struct {
    const fm_cli_options *o;
    const char *what; /* "prompt" */
    bool is_bytes;    /* else tokens */
    uint64_t started_us, shown_us;
    uint64_t done;    /* as last reported, shown or not */
    uint64_t skipped; /* of `done`, what was done before the clock started */
    bool is_terminal, is_done;
} fm_cli_progress;

void fm_cli_progress_start(fm_cli_progress *p, const fm_cli_options *o, const char *what,
                           bool is_bytes);
/* On a terminal one line, rewritten a few times a second; elsewhere a line now and then and one
 * at the end. */
void fm_cli_progress_show(fm_cli_progress *p, uint64_t done, uint64_t total);
void fm_cli_progress_clear(void);

/* Callbacks of the library; user is a fm_cli_progress. They stop the work after Ctrl-C. */
bool fm_cli_on_quantize(void *user, fm_quantize_phase phase, uint64_t done, uint64_t total,
                        uint64_t resumed);
bool fm_cli_on_eval(void *user, int64_t done, int64_t total);
bool fm_cli_on_token(void *user, int64_t done, int64_t total); /* shows nothing, user is not used */
bool fm_cli_on_load(void *user, uint64_t done, uint64_t total);

/* ---- tables and figures (cli_report.c) --------------------------------------------------------- */

#define FM_CLI_FIGURE 32
const char *fm_cli_count(char out[FM_CLI_FIGURE], uint64_t n);       /* "25,013"   */
const char *fm_cli_seconds(char out[FM_CLI_FIGURE], double seconds); /* "1 min 05 s" */

/* A name from a file, fit for a terminal: bytes that are not UTF-8 become U+FFFD, control characters '?',
 * and a very long one is cut. */
#define FM_CLI_NAME 400
const char *fm_cli_name(char out[FM_CLI_NAME], const char *name);

/* What one token takes by the plan's sizes alone, where all experts are used alike. */
typedef struct {
    double touched_bytes, read_bytes;
    double disk_gb_s; /* measured or remembered; 0: unknown */
} fm_cli_speed;
fm_cli_speed fm_cli_speed_of(const fm_plan *plan, const fm_model_info *info);

/* info may be NULL: without the lines about speed and reads */
void fm_cli_print_plan(FILE *out, const fm_plan *plan, const fm_model_info *info);

/* ---- JSON (cli_json.c) -------------------------------------------------------------------------- */

/* A writer with one value per call and no tree. Strings may hold anything: bytes that are not
 * UTF-8 come out as U+FFFD. Errors of the stream are found by fm_cli_finish(). */
typedef struct {
    FILE *out;
    int depth;
    bool needs_comma;
} fm_json_out;

void fm_json_open(fm_json_out *j, const char *key,
                  char bracket);                  /* '{' or '['; key NULL in arrays */
void fm_json_close(fm_json_out *j, char bracket); /* '}' or ']'; newline at the end */
void fm_json_text(fm_json_out *j, const char *key, const char *text, size_t n);
void fm_json_string(fm_json_out *j, const char *key, const char *text); /* up to its NUL */
void fm_json_u64(fm_json_out *j, const char *key, uint64_t value);
void fm_json_count(fm_json_out *j, const char *key, int64_t n);   /* below 0: 0 */
void fm_json_real(fm_json_out *j, const char *key, double value); /* not finite: null */
void fm_json_bool(fm_json_out *j, const char *key, bool value);
void fm_json_literal(fm_json_out *j, const char *key, const char *literal); /* true, null, digits */

/* ---- commands ------------------------------------------------------------------------------------ */

int fm_cmd_run(const fm_cli_options *o);
int fm_cmd_info(const fm_cli_options *o);
int fm_cmd_plan(const fm_cli_options *o);
int fm_cmd_logits(const fm_cli_options *o);
int fm_cmd_tokenize(const fm_cli_options *o);
int fm_cmd_bench(const fm_cli_options *o);
int fm_cmd_template(const fm_cli_options *o);
int fm_cmd_quantize(const fm_cli_options *o);
int fm_cmd_eval(const fm_cli_options *o);

/* NULL-terminated by name. */
extern const fm_cli_command fm_cli_commands[];
