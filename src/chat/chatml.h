/* ChatML, the turn form of the Qwen families, rendered without a template interpreter.
 *
 * A conversation comes out as segments rather than one string, because the two kinds of text in it
 * must be tokenized differently: markers that the form itself puts down are control tokens, and
 * what a message says is text even when it spells "<|im_end|>". Text that touches is one segment,
 * so that the tokenizer may merge across the seam between form and content as it did in training.
 * Markup such as <tool_call> is part of the text.
 */
#pragma once

#include "base/error.h"

typedef struct {
    char *text; /* n bytes and a terminating NUL, owned by the array */
    size_t n;
    bool is_control; /* a control token; else text, in which control tokens do not count */
} fm_chat_segment;

/* Markers that a tokenizer must have for this form to make sense. */
#define FM_CHATML_START "<|im_start|>"
#define FM_CHATML_END "<|im_end|>"

/* Renders n_messages messages into *segments [*n_segments], both owned by the caller and freed
 * with fm_chat_segments_free(). Roles are "system", "user", "assistant" and "tool"; results of
 * tools that follow each other share one user turn, as the models were trained. With
 * add_generation_prompt the assistant's turn is opened at the end. No system text is invented.
 *
 * Fails with FM_E_ARG on an unknown role or a NULL text, with FM_E_NOMEM; then *segments is NULL.
 * Any thread.
 *
 * Source: the chat template published with Qwen3 (Apache 2.0), without its removal of earlier
 * reasoning; checked by tests/unit/test_chatml.c. */
fm_status fm_chatml_render(fm_chat_segment **segments, size_t *n_segments,
                           const fm_message *messages, size_t n_messages,
                           bool add_generation_prompt, fm_error *err);

void fm_chat_segments_free(fm_chat_segment *segments, size_t n_segments); /* NULL is fine */

/* All segments as one NUL-terminated string, owned by the caller; NULL when out of memory. */
char *fm_chat_segments_join(const fm_chat_segment *segments, size_t n_segments);
