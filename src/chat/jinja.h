/* A Jinja interpreter for chat templates: the language of jinja2 3.1 as transformers sets it up
 * (immutable sandbox, trim_blocks, lstrip_blocks, loop controls, generation blocks, its tojson,
 * raise_exception and strftime_now), without what needs other files (extends, include, import).
 *
 * A template is compiled once and may be rendered by many threads. A rendering computes in an arena
 * of its own and is bounded in steps, depth, memory and length of the output.
 *
 * Every byte of the output carries where it came from: from the template's own literals (trusted)
 * or from the request. Control tokens may only be made of trusted bytes.
 */
#pragma once

#include <jansson.h>

#include "base/error.h"

typedef struct fm_jinja fm_jinja;

/* Compiles source[n]; `origin` names it in messages and is copied. *out is owned by the caller.
 * FM_E_FORMAT with the line on a syntax error, FM_E_UNSUPPORTED for statements that need other
 * templates, FM_E_LIMIT when it nests too deep. */
fm_status fm_jinja_compile(fm_jinja **out, const char *source, size_t n, const char *origin,
                           fm_error *err);
void fm_jinja_free(fm_jinja *t); /* NULL is fine */
/* Whether a variable of this name is looked up in the request, on whatever way through the template. */
bool fm_jinja_knows(const fm_jinja *t, const char *name);

typedef struct {
    const char *name, *text;
} fm_jinja_literal;

typedef struct {
    /* Variables of the template: an object. Borrowed. */
    const json_t *request;
    /* Trusted variables of type string, below those of the request. */
    const fm_jinja_literal *literals;
    size_t n_literal;
    /* As transformers' apply_chat_template: tools and documents are None and add_generation_prompt
     * is False where the request does not say otherwise. */
    bool has_chat_defaults;
    /* Seconds since 1970 for strftime_now; negative: the clock. Local time. */
    int64_t now;
    /* 0: the defaults below. */
    uint64_t max_steps, max_memory, max_output;
} fm_jinja_input;

#define FM_JINJA_MAX_STEPS 30000000u
#define FM_JINJA_MAX_MEMORY (512u << 20)
#define FM_JINJA_MAX_OUTPUT (64u << 20)

/* *out is owned by the caller, fm_chat_text_free() frees what it holds. What the template raises
 * is FM_E_ARG with its message; limits are FM_E_LIMIT. */
fm_status fm_jinja_render(const fm_jinja *t, const fm_jinja_input *in, fm_chat_text *out,
                          fm_error *err);
