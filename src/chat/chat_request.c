/* Requests: JSON from a client, or made of plain messages. */
#include "chat/chat_form.h"

#include <stdlib.h>
#include <string.h>

#include "base/json_parse.h"

fm_status fm_chat_request_parse(json_t **out, const char *text, size_t n,
                                const fm_chat_options *opt, fm_error *err)
{
    const char *const origin = opt && opt->origin ? opt->origin : "request";
    json_error_t why;
    *out = json_loadb(text, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);
    if (!*out)
        return fm_fail(err, FM_E_ARG, "%s: line %d, column %d: %s", origin, why.line, why.column,
                       why.text);
    if (json_is_object(*out)) {
        static const char key[] = "add_generation_prompt";
        if (!opt || !opt->add_generation_prompt || json_object_get(*out, key)) return FM_OK;
        if (json_object_set_new(*out, key, json_true()) == 0) return FM_OK;
        json_decref(*out);
        *out = NULL;
        return fm_fail(err, FM_E_NOMEM, "%s: no memory for it", origin);
    }
    const fm_status st = fm_fail(err, FM_E_ARG, "%s: is %s, expected a JSON object with messages",
                                 origin, fm_json_kind(*out));
    json_decref(*out);
    *out = NULL;
    return st;
}

static json_t *make_text(const char *s)
{
    const size_t n = strlen(s);
    json_t *text = json_stringn(s, n);
    if (text) return text;
    char *valid = n < SIZE_MAX / 3 - 3 ? malloc(3 * (n + 3)) : NULL;
    if (!valid) return NULL;
    fm_utf8_stream stream = {0};
    size_t w = fm_utf8_push(&stream, valid, s, n, false);
    w += fm_utf8_push(&stream, valid + w, "", 0, true);
    text = json_stringn(valid, w);
    free(valid);
    return text;
}

fm_status fm_chat_request_make(json_t **out, const fm_message *messages, size_t n_messages,
                               bool add_generation_prompt, fm_error *err)
{
    json_t *list = json_array();
    *out = json_object();
    bool ok = *out && list;
    for (size_t i = 0; i < n_messages; i++) {
        const fm_message *m = &messages[i];
        if (!m->role || !m->content) {
            json_decref(list);
            json_decref(*out);
            *out = NULL;
            return fm_fail(err, FM_E_ARG, "chat: message %zu has no %s", i + 1,
                           m->role ? "text" : "role");
        }
        json_t *object = json_object();
        ok = ok && json_object_set_new(object, "role", make_text(m->role)) == 0 &&
             json_object_set_new(object, "content", make_text(m->content)) == 0;
        ok = json_array_append_new(list, object) == 0 && ok;
    }
    ok = json_object_set_new(*out, "messages", list) == 0 && ok;
    ok = ok && json_object_set_new(*out, "add_generation_prompt",
                                   json_boolean(add_generation_prompt)) == 0;
    if (ok) return FM_OK;
    json_decref(*out);
    *out = NULL;
    return fm_fail(err, FM_E_NOMEM, "chat: no memory for %zu messages", n_messages);
}
