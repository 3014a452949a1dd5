/* Conversations to ids: joins the model's chat form with the engine's tokenizer. */
#include "engine/engine_internal.h"

#include <stdlib.h>
#include <string.h>

#include "chat/chat_form.h"
#include "chat/chatml.h"
#include "text/tokenizer.h"

#define KEY "tokenizer.chat_template"

/* ---- reading ------------------------------------------------------------------------------------- */

static fm_status add_template(fm_chat_form *form, const fm_checkpoint *c, const char *key,
                              const char *variant, fm_error *err)
{
    fm_str s;
    char origin[512];
    if (!fm_meta_has(c, key)) return FM_OK;
    FM_TRY(fm_meta_str(c, key, &s, err));
    snprintf(origin, sizeof origin, "%s: %s", fm_checkpoint_file(c, 0), key);
    return fm_chat_form_add(form, variant, s.data, s.len, origin, err);
}

static fm_status add_tokens(fm_chat_form *form, const fm_engine *e, fm_error *err)
{
    static const char *const tokens[][2] = {
        {"bos_token", "tokenizer.ggml.bos_token_id"},
        {"eos_token", "tokenizer.ggml.eos_token_id"},
        {"unk_token", "tokenizer.ggml.unknown_token_id"},
        {"sep_token", "tokenizer.ggml.seperator_token_id"}, /* spelled so in the format */
        {"pad_token", "tokenizer.ggml.padding_token_id"},
        {"mask_token", "tokenizer.ggml.mask_token_id"},
    };
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        uint32_t id;
        size_t n = 0;
        if (!fm_meta_has(e->checkpoint, tokens[i][1])) continue;
        FM_TRY(fm_meta_u32(e->checkpoint, tokens[i][1], &id, err));
        const char *text = id <= INT32_MAX ? fm_token_bytes(e->tokenizer, (int32_t)id, &n) : NULL;
        if (text) FM_TRY(fm_chat_form_set_token(form, tokens[i][0], text, n, err));
    }
    return FM_OK;
}

static fm_status read_form(const fm_engine *e, fm_error *err)
{
    const char *dir = fm_checkpoint_directory(e->checkpoint);
    if (dir) return fm_chat_form_read_dir(e->chat, dir, err);
    FM_TRY(add_template(e->chat, e->checkpoint, KEY, NULL, err));
    FM_TRY(add_template(e->chat, e->checkpoint, KEY ".default", NULL, err));
    FM_TRY(add_template(e->chat, e->checkpoint, KEY ".tool_use", "tool_use", err));
    return e->tokenizer ? add_tokens(e->chat, e, err) : FM_OK;
}

/* ---- rendering and tokenizing -------------------------------------------------------------------- */

static fm_status check_form(const fm_engine *engine, fm_error *err)
{
    if (engine->chat_error.code != FM_OK && err) *err = engine->chat_error;
    return engine->chat_error.code;
}

static fm_status check_tokenizer(const fm_engine *engine, fm_error *err)
{
    const fm_tokenizer *tok = fm_engine_tokenizer(engine);
    if (!tok) {
        if (err) *err = engine->tokenizer_error;
        return engine->tokenizer_error.code;
    }
    FM_TRY(check_form(engine, err));
    if (fm_chat_form_has_template(engine->chat)) return FM_OK;
    static const char *const needed[] = {FM_CHATML_START, FM_CHATML_END};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (fm_token_find(tok, needed[i]) < 0) {
            return fm_fail(err, FM_E_UNSUPPORTED,
                           "chat: the model has no chat template and its tokenizer no token %s, so "
                           "the built-in chat form does not fit it (give the prompt as it is: "
                           "--raw)",
                           needed[i]);
        }
    }
    return FM_OK;
}

fm_status fm_engine_make_chat(fm_engine *e, bool needed, fm_error *err)
{
    fm_error *const why = &e->chat_error;
    e->chat = fm_chat_form_new();
    fm_status st =
        e->chat ? read_form(e, why) : fm_fail(why, FM_E_NOMEM, "chat: no memory for the chat form");
    if (st == FM_E_NOMEM) {
        if (err) *err = *why;
        return st;
    }
    if (st == FM_OK) *why = (fm_error){0};
    if (needed) {
        FM_TRY(check_tokenizer(e, err));
        return fm_chat_form_check(e->chat, err);
    }
    fm_error warning = *why;
    if (st == FM_OK) st = fm_chat_form_check(e->chat, &warning);
    if (st != FM_OK && e->tokenizer) /* else there was a warning that no text is taken at all */
        fm_engine_log(e, FM_LOG_WARN, "no chat form, so the model takes text only as it is: %s",
                      warning.msg);
    return FM_OK; /* what needs a conversation fails with the reason */
}

static fm_status check_options(const fm_chat_options *opt, fm_error *err)
{
    if (!opt || opt->struct_size == sizeof *opt) return FM_OK;
    return fm_fail(err, FM_E_ARG, "fm_chat_options: size %zu, this library has %zu",
                   opt->struct_size, sizeof *opt);
}

static fm_status tokenize(const fm_engine *engine, int32_t **ids, size_t *n_ids,
                          const json_t *request, int64_t now, fm_error *err)
{
    fm_chat_text text;
    FM_TRY(check_tokenizer(engine, err));
    FM_TRY(fm_chat_form_render(engine->chat, request, now, &text, err));
    const fm_status st = fm_tokenize_trusted(fm_engine_tokenizer(engine), ids, n_ids, text.text,
                                             text.trusted, text.n, err);
    fm_chat_text_free(&text);
    return st;
}

fm_status fm_chat_tokenize(const fm_engine *engine, int32_t **ids, size_t *n_ids,
                           const fm_message *messages, size_t n_messages,
                           bool add_generation_prompt, fm_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    json_t *request;
    FM_TRY(fm_chat_request_make(&request, messages, n_messages, add_generation_prompt, err));
    const fm_status st = tokenize(engine, ids, n_ids, request, -1, err);
    json_decref(request);
    return st;
}

fm_status fm_chat_tokenize_request(const fm_engine *engine, int32_t **ids, size_t *n_ids,
                                   const char *request, size_t n, const fm_chat_options *opt,
                                   fm_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    json_t *variables;
    FM_TRY(check_options(opt, err));
    FM_TRY(fm_chat_request_parse(&variables, request, n, opt, err));
    const fm_status st = tokenize(engine, ids, n_ids, variables, opt ? opt->now : -1, err);
    json_decref(variables);
    return st;
}

bool fm_chat_knows(const fm_engine *engine, const char *variable)
{
    return engine->chat && fm_chat_form_knows(engine->chat, variable);
}

fm_status fm_chat_render(const fm_engine *engine, fm_chat_text *out, const char *request, size_t n,
                         const fm_chat_options *opt, fm_error *err)
{
    *out = (fm_chat_text){0};
    json_t *variables;
    FM_TRY(check_options(opt, err));
    FM_TRY(check_form(engine, err));
    FM_TRY(fm_chat_request_parse(&variables, request, n, opt, err));
    const fm_status st =
        fm_chat_form_render(engine->chat, variables, opt ? opt->now : -1, out, err);
    json_decref(variables);
    return st;
}
