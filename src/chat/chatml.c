/* See chatml.h. Called by the engine, which owns the tokenizer that the segments go to. */
#include "chat/chatml.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    fm_chat_segment *segments;
    size_t n, cap;
    bool is_out_of_memory;
} builder;

static void add(builder *b, const char *text, size_t n, bool is_control)
{
    if (n == 0 || b->is_out_of_memory) return;
    fm_chat_segment *last = b->n > 0 ? &b->segments[b->n - 1] : NULL;
    if (last && !last->is_control && !is_control) {
        char *grown = n < SIZE_MAX - last->n ? realloc(last->text, last->n + n + 1) : NULL;
        if (!grown) goto out_of_memory;
        memcpy(grown + last->n, text, n);
        last->text = grown;
        last->n += n;
        last->text[last->n] = '\0';
        return;
    }
    if (b->n == b->cap) {
        const size_t cap = b->cap ? 2 * b->cap : 16;
        fm_chat_segment *grown = realloc(b->segments, cap * sizeof *grown);
        if (!grown) goto out_of_memory;
        b->segments = grown;
        b->cap = cap;
    }
    char *copy = n < SIZE_MAX ? malloc(n + 1) : NULL;
    if (!copy) goto out_of_memory;
    memcpy(copy, text, n);
    copy[n] = '\0';
    b->segments[b->n++] = (fm_chat_segment){.text = copy, .n = n, .is_control = is_control};
    return;

out_of_memory:
    b->is_out_of_memory = true;
}

static void add_control(builder *b, const char *text)
{
    add(b, text, strlen(text), true);
}

static void add_plain(builder *b, const char *text)
{
    add(b, text, strlen(text), false);
}

static void add_turn_start(builder *b, const char *role)
{
    add_control(b, FM_CHATML_START);
    add_plain(b, role);
    add_plain(b, "\n");
}

static void add_turn_end(builder *b)
{
    add_control(b, FM_CHATML_END);
    add_plain(b, "\n");
}

static void add_tool_result(builder *b, const char *content, bool is_first, bool is_last)
{
    if (is_first) {
        add_turn_start(b, "user");
    } else {
        add_plain(b, "\n");
    }
    add_plain(b, "<tool_response>\n");
    add_plain(b, content);
    add_plain(b, "\n</tool_response>");
    if (is_last) add_turn_end(b);
}

static bool is_tool(const fm_message *m)
{
    return strcmp(m->role, "tool") == 0;
}

fm_status fm_chatml_render(fm_chat_segment **segments, size_t *n_segments,
                           const fm_message *messages, size_t n_messages,
                           bool add_generation_prompt, fm_error *err)
{
    *segments = NULL;
    *n_segments = 0;
    for (size_t i = 0; i < n_messages; i++) {
        const char *role = messages[i].role;
        if (!role || !messages[i].content) {
            return fm_fail(err, FM_E_ARG, "chat: message %zu has no %s", i + 1,
                           role ? "text" : "role");
        }
        if (strcmp(role, "system") != 0 && strcmp(role, "user") != 0 &&
            strcmp(role, "assistant") != 0 && strcmp(role, "tool") != 0) {
            return fm_fail(err, FM_E_ARG,
                           "chat: message %zu has the role \"%s\"; expected system, user, "
                           "assistant or tool",
                           i + 1, role);
        }
    }

    builder b = {0};
    for (size_t i = 0; i < n_messages; i++) {
        const fm_message *m = &messages[i];
        if (is_tool(m)) {
            add_tool_result(&b, m->content, i == 0 || !is_tool(m - 1),
                            i + 1 == n_messages || !is_tool(m + 1));
            continue;
        }
        add_turn_start(&b, m->role);
        add_plain(&b, m->content);
        add_turn_end(&b);
    }
    if (add_generation_prompt) add_turn_start(&b, "assistant");
    if (b.is_out_of_memory) {
        fm_chat_segments_free(b.segments, b.n);
        return fm_fail(err, FM_E_NOMEM, "chat: no memory for %zu messages", n_messages);
    }
    *segments = b.segments;
    *n_segments = b.n;
    return FM_OK;
}

void fm_chat_segments_free(fm_chat_segment *segments, size_t n_segments)
{
    if (!segments) return;
    for (size_t i = 0; i < n_segments; i++) free(segments[i].text);
    free(segments);
}

char *fm_chat_segments_join(const fm_chat_segment *segments, size_t n_segments)
{
    size_t n = 0;
    for (size_t i = 0; i < n_segments; i++) n += segments[i].n;
    char *text = malloc(n + 1);
    if (!text) return NULL;
    char *p = text;
    for (size_t i = 0; i < n_segments; i++) {
        memcpy(p, segments[i].text, segments[i].n);
        p += segments[i].n;
    }
    *p = '\0';
    return text;
}
