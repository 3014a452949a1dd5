/* The prompt of `flashmoe run`: a user's turn with or without a system text, a whole request, or text as it is. */
#pragma once

#include "cli/cli.h"

typedef struct {
    const fm_cli_options *o;
    char *text; /* of -f and -p together, or of --request; owned */
    size_t n_text;
    int32_t *ids; /* owned */
    size_t n_ids;
} fm_run_prompt;

/* What is wrong with the options, whatever the text is: a usage error was printed, FM_EXIT_USAGE. */
int fm_run_prompt_check(const fm_cli_options *o);

/* Reads the text and checks what needs no model. *p is empty after a failure. */
fm_status fm_run_prompt_read(fm_run_prompt *p, const fm_cli_options *o, fm_error *err);

/* Its ids, and room for them and the answer in the plan: fm_engine_options.before_plan, user is the fm_run_prompt. */
fm_status fm_run_prompt_wish(void *user, const fm_engine *engine, fm_plan_wish *wish,
                             fm_error *err);

void fm_run_prompt_free(fm_run_prompt *p);
