/* The chat templates of a Hugging Face directory. */
#pragma once

#include <stddef.h>

#include "base/error.h"

/* All owned by the list. */
typedef struct {
    char *name; /* "default", "tool_use", or one that only its author knows */
    char *source;
    size_t n;
    char *origin; /* the file that it is from */
} fm_chat_template;

typedef struct {
    fm_chat_template *list; /* each name once */
    size_t n;
} fm_chat_templates;

/* chat_template.jinja, else chat_template.json, else `chat_template` of tokenizer_config.json (a text, or a list of named ones, of
 * which the last of a name counts), and additional_chat_templates/tool_use.jinja. None of them: an empty list. Errors name the
 * file. Free the list after errors too. */
fm_status fm_chat_templates_read(fm_chat_templates *out, const char *dir, fm_error *err);
void fm_chat_templates_free(fm_chat_templates *t);
