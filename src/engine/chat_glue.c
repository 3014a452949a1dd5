/* Conversations to ids: joins the chat form with the engine's tokenizer. */
#include "engine/engine_internal.h"

#include <stdlib.h>
#include <string.h>

#include "chat/chatml.h"

static fm_status check_tokenizer(const fm_engine *engine, fm_error *err)
{
    const fm_tokenizer *tok = fm_engine_tokenizer(engine);
    if (!tok) {
        if (err) *err = engine->tokenizer_error;
        return engine->tokenizer_error.code;
    }
    static const char *const needed[] = {FM_CHATML_START, FM_CHATML_END};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (fm_token_find(tok, needed[i]) < 0) {
            return fm_fail(err, FM_E_UNSUPPORTED,
                           "chat: the model's tokenizer has no token %s, so the built-in chat "
                           "form does not fit it (give the prompt as it is: --raw)",
                           needed[i]);
        }
    }
    return FM_OK;
}

fm_status fm_chat_tokenize(const fm_engine *engine, int32_t **ids, size_t *n_ids,
                           const fm_message *messages, size_t n_messages,
                           bool add_generation_prompt, fm_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    const fm_tokenizer *tok = fm_engine_tokenizer(engine);
    fm_chat_segment *segments = NULL;
    size_t n_segments = 0;
    int32_t *all = NULL;
    size_t n = 0;

    fm_status st = check_tokenizer(engine, err);
    if (st != FM_OK) return st;
    st = fm_chatml_render(&segments, &n_segments, messages, n_messages, add_generation_prompt, err);
    for (size_t i = 0; i < n_segments && st == FM_OK; i++) {
        int32_t *part = NULL;
        size_t n_part = 0;
        st = fm_tokenize(tok, &part, &n_part, segments[i].text, segments[i].n,
                         segments[i].is_control ? FM_TOKENIZE_SPECIAL : FM_TOKENIZE_MARKUP, err);
        if (st == FM_OK && n_part > 0) {
            int32_t *grown = realloc(all, (n + n_part) * sizeof *grown);
            if (grown) {
                all = grown;
                memcpy(all + n, part, n_part * sizeof *part);
                n += n_part;
            } else {
                st = fm_fail(err, FM_E_NOMEM, "chat: no memory for %zu tokens", n + n_part);
            }
        }
        free(part);
    }
    fm_chat_segments_free(segments, n_segments);
    if (st != FM_OK) {
        free(all);
        return st;
    }
    *ids = all;
    *n_ids = n;
    return FM_OK;
}
