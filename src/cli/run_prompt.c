/* See run_prompt.h. */
#include "cli/run_prompt.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Tokens that an answer gets room for in any case, unless it is to be shorter. */
enum { ANSWER_ROOM = 1024 };

/* The name of NAME=VALUE; returns the value. */
static const char *name_of(char name[FM_CLI_NAME], const char *variable)
{
    const size_t n = strcspn(variable, "=");
    snprintf(name, FM_CLI_NAME, "%.*s", (int)n, variable);
    return variable + n + 1;
}

int fm_run_prompt_check(const fm_cli_options *o)
{
    const bool has_variables = o->system_text || o->think || o->variables.n > 0;
    if (!o->prompt && !o->prompt_file && !o->request)
        return fm_cli_usage_error(o, "no prompt: give -p TEXT, -f FILE or --request FILE");
    if (o->request && (o->prompt || o->prompt_file || o->is_raw || has_variables))
        return fm_cli_usage_error(o, "--request holds the whole conversation: give it without "
                                     "-p, -f, --raw, --system, --think and --set");
    if (o->is_raw && has_variables)
        return fm_cli_usage_error(o, "--raw evaluates the text as it is: --system, --think and "
                                     "--set are for chats");
    for (int i = 0; i < o->variables.n; i++) {
        const char *const text = o->variables.items[i];
        const size_t n = strcspn(text, "=");
        if (n == 0 || n >= FM_CLI_NAME || !text[n])
            return fm_cli_usage_error(o, "--set %s: expected NAME=VALUE", text);
        if (n == strlen("messages") && strncmp(text, "messages", n) == 0)
            return fm_cli_usage_error(o, "--set messages: the conversation is given with -p and "
                                         "--system, or whole with --request");
    }
    return FM_EXIT_OK;
}

/* Text of -f and -p together. */
static fm_status read_text(fm_run_prompt *p, fm_error *err)
{
    const fm_cli_options *o = p->o;
    char *file = NULL;
    size_t n_file = 0;
    if (o->prompt_file) FM_TRY(fm_cli_read_file(&file, &n_file, o->prompt_file, err));
    const size_t n_given = o->prompt ? strlen(o->prompt) : 0;
    const bool needs_newline = n_file > 0 && n_given > 0 && file[n_file - 1] != '\n';
    char *all = malloc(n_file + n_given + 2);
    if (!all) {
        free(file);
        return fm_fail(err, FM_E_NOMEM, "no memory for the prompt");
    }
    size_t at = 0;
    if (n_file > 0) memcpy(all, file, n_file);
    at += n_file;
    if (needs_newline) all[at++] = '\n';
    if (n_given > 0) memcpy(all + at, o->prompt, n_given);
    at += n_given;
    all[at] = '\0';
    free(file);
    p->text = all;
    p->n_text = at;
    if (at == 0)
        return fm_fail(err, FM_E_ARG, "%s%sthe prompt is empty",
                       o->prompt_file ? o->prompt_file : "", o->prompt_file ? ": " : "");
    if (!o->is_raw && memchr(all, '\0', at))
        return fm_fail(err, FM_E_ARG, "the prompt holds a NUL byte; give it with --raw");
    return FM_OK;
}

fm_status fm_run_prompt_read(fm_run_prompt *p, const fm_cli_options *o, fm_error *err)
{
    *p = (fm_run_prompt){.o = o};
    fm_status st =
        o->request ? fm_cli_read_file(&p->text, &p->n_text, o->request, err) : read_text(p, err);
    const char *const path = o->request ? o->request : o->prompt_file;
    if (st == FM_OK) st = fm_cli_check_text(o, path ? path : "the prompt", p->n_text, err);
    if (st != FM_OK) fm_run_prompt_free(p);
    return st;
}

/* One variable of the template: whole numbers, true, false and null are themselves, all else is text. */
static void put_variable(fm_json_out *j, const char *name, const char *value)
{
    int64_t whole;
    char digits[24];
    if (fm_cli_parse_int(value, INT64_MIN, INT64_MAX, &whole)) {
        snprintf(digits, sizeof digits, "%" PRId64, whole);
        fm_json_literal(j, name, digits);
    } else if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0 ||
               strcmp(value, "null") == 0) {
        fm_json_literal(j, name, value);
    } else {
        fm_json_string(j, name, value);
    }
}

static void put_message(fm_json_out *j, const char *role, const char *text, size_t n)
{
    fm_json_open(j, NULL, '{');
    fm_json_string(j, "role", role);
    fm_json_text(j, "content", text, n);
    fm_json_close(j, '}');
}

/* The request that the options describe; malloc'd. */
static fm_status make_request(char **request, size_t *n, const fm_run_prompt *p, fm_error *err)
{
    const fm_cli_options *o = p->o;
    *request = NULL;
    FILE *out = open_memstream(request, n);
    if (!out) return fm_fail(err, FM_E_NOMEM, "no memory for the prompt");
    fm_json_out j = {.out = out};
    fm_json_open(&j, NULL, '{');
    fm_json_open(&j, "messages", '[');
    if (o->system_text) put_message(&j, "system", o->system_text, strlen(o->system_text));
    put_message(&j, "user", p->text, p->n_text);
    fm_json_close(&j, ']');
    if (o->think) {
        /* Qwen and GLM know the first name, DeepSeek and Kimi the second; a template ignores what it does not know. */
        const char *const value = strcmp(o->think, "on") == 0 ? "true" : "false";
        fm_json_literal(&j, "enable_thinking", value);
        fm_json_literal(&j, "thinking", value);
    }
    for (int i = 0; i < o->variables.n; i++) {
        char name[FM_CLI_NAME];
        const char *const value = name_of(name, o->variables.items[i]);
        put_variable(&j, name, value);
    }
    fm_json_close(&j, '}');
    const bool failed = ferror(out) != 0;
    if (fclose(out) == 0 && !failed) return FM_OK;
    free(*request);
    *request = NULL;
    return fm_fail(err, FM_E_NOMEM, "no memory for the prompt");
}

static fm_status tokenize(fm_run_prompt *p, const fm_engine *engine, fm_error *err)
{
    const fm_cli_options *o = p->o;
    if (o->is_raw)
        return fm_tokenize(fm_engine_tokenizer(engine), &p->ids, &p->n_ids, p->text, p->n_text,
                           FM_TOKENIZE_SPECIAL, err);
    const fm_chat_options opt = {.struct_size = sizeof opt,
                                 .now = -1,
                                 .add_generation_prompt = true,
                                 .origin = fm_cli_file_name(o->request)};
    if (o->request)
        return fm_chat_tokenize_request(engine, &p->ids, &p->n_ids, p->text, p->n_text, &opt, err);
    char *request;
    size_t n;
    FM_TRY(make_request(&request, &n, p, err));
    const fm_status st =
        fm_chat_tokenize_request(engine, &p->ids, &p->n_ids, request, n, &opt, err);
    free(request);
    return st;
}

/* What was set and the template does not look at. */
static void warn_of_unknown(const fm_run_prompt *p, const fm_engine *engine)
{
    const fm_cli_options *o = p->o;
    char name[FM_CLI_NAME];
    for (int i = 0; i < o->variables.n; i++) {
        name_of(name, o->variables.items[i]);
        if (!fm_chat_knows(engine, name))
            fm_cli_warn("--set %s has no effect: the model's chat template does not look at it",
                        name);
    }
    if (o->think && !fm_chat_knows(engine, "enable_thinking") && !fm_chat_knows(engine, "thinking"))
        fm_cli_warn("--think %s has no effect: the model's chat template looks neither at "
                    "enable_thinking nor at thinking",
                    o->think);
}

fm_status fm_run_prompt_wish(void *user, const fm_engine *engine, fm_plan_wish *wish, fm_error *err)
{
    fm_run_prompt *p = user;
    const fm_cli_options *o = p->o;
    FM_TRY(tokenize(p, engine, err));
    free(p->text);
    p->text = NULL;
    if (p->n_ids == 0) return fm_fail(err, FM_E_ARG, "the prompt is empty");
    fm_model_info info;
    fm_engine_model_info(engine, &info);
    const int64_t n_ctx = o->n_ctx ? o->n_ctx : info.n_ctx_train;
    if (p->n_ids > (size_t)n_ctx)
        return fm_fail(err, FM_E_LIMIT, "the prompt has %zu tokens, %s %lld%s", p->n_ids,
                       o->n_ctx ? "the context holds" : "the model was trained for",
                       (long long)n_ctx, o->n_ctx ? " (--ctx gives it more)" : "");
    const int64_t n_answer = o->n_predict >= 0 ? o->n_predict : ANSWER_ROOM;
    wish->n_ctx = (int64_t)p->n_ids + n_answer;
    wish->n_ctx_least = (int64_t)p->n_ids + (n_answer < ANSWER_ROOM ? n_answer : ANSWER_ROOM);
    warn_of_unknown(p, engine);
    return FM_OK; /* the ids are small beside the attention cache of their context */
}

void fm_run_prompt_free(fm_run_prompt *p)
{
    free(p->text);
    free(p->ids);
    *p = (fm_run_prompt){0};
}
