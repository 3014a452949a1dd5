/* How a model writes conversations: its chat templates, ready to render, and the special tokens that
 * they may name. Without a template the form is ChatML. */
#pragma once

#include <jansson.h>

#include "base/error.h"

typedef struct fm_chat_form fm_chat_form;

/* An empty form, owned by the caller; NULL when out of memory. */
fm_chat_form *fm_chat_form_new(void);
void fm_chat_form_free(fm_chat_form *form); /* NULL is fine */

/* Takes source[n] as the template for all requests (variant NULL or "default") or for those with
 * tools ("tool_use"); other variants are ignored. A template that does not compile is kept as its
 * error, which every rendering with it reports. FM_E_NOMEM. */
fm_status fm_chat_form_add(fm_chat_form *form, const char *variant, const char *source, size_t n,
                           const char *origin, fm_error *err);
/* A variable such as bos_token, copied. */
fm_status fm_chat_form_set_token(fm_chat_form *form, const char *name, const char *text, size_t n,
                                 fm_error *err);
/* Whether the template for requests without tools looks the name up. */
bool fm_chat_form_knows(const fm_chat_form *form, const char *name);
bool fm_chat_form_has_template(const fm_chat_form *form);
/* The error of the template for requests without tools, if it does not compile. */
fm_status fm_chat_form_check(const fm_chat_form *form, fm_error *err);

/* Templates and special tokens of a Hugging Face directory: chat_template.jinja, else
 * chat_template.json, else `chat_template` of tokenizer_config.json (a text, or a list of named
 * ones), and additional_chat_templates/NAME.jinja. A directory with none of them leaves the form as
 * it is. Errors name the file. */
fm_status fm_chat_form_read_dir(fm_chat_form *form, const char *dir, fm_error *err);

/* Renders a request, which is borrowed. now: negative for the clock. */
fm_status fm_chat_form_render(const fm_chat_form *form, const json_t *request, int64_t now,
                              fm_chat_text *out, fm_error *err);

/* A request from its text; *out is owned by the caller (json_decref). FM_E_ARG with the place when it
 * is not a JSON object. */
fm_status fm_chat_request_parse(json_t **out, const char *text, size_t n,
                                const fm_chat_options *opt, fm_error *err);
/* A request of plain messages. Bytes that are not UTF-8 become U+FFFD. */
fm_status fm_chat_request_make(json_t **out, const fm_message *messages, size_t n_messages,
                               bool add_generation_prompt, fm_error *err);
