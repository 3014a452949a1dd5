/* flashmoe template: a request, rendered with a model's chat template or one from a file. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static fm_status render_file(fm_chat_text *out, const fm_cli_options *o, const char *request,
                             size_t n, const fm_chat_options *opt, fm_error *err)
{
    char *source;
    size_t n_source;
    FM_TRY(fm_cli_read_file(&source, &n_source, o->template_file, err));
    const fm_status st =
        fm_template_render(out, source, n_source, o->template_file, request, n, opt, err);
    free(source);
    return st;
}

static fm_status render_model(fm_chat_text *out, const fm_cli_options *o, const char *request,
                              size_t n, const fm_chat_options *opt, fm_error *err)
{
    fm_engine_options eo;
    fm_engine *engine;
    fm_engine_options_init(&eo);
    eo.model_path = o->model;
    eo.vocab_only = true;
    FM_TRY(fm_engine_open(&engine, &eo, err));
    const fm_status st = fm_chat_render(engine, out, request, n, opt, err);
    fm_engine_close(engine);
    return st;
}

int fm_cmd_template(const fm_cli_options *o)
{
    fm_chat_options opt = {.struct_size = sizeof opt, .now = -1};
    opt.origin = fm_cli_file_name(o->request);
    if (o->model && o->template_file)
        return fm_cli_usage_error(o, "give a model or --file, not both");
    if (!o->request) return fm_cli_usage_error(o, "give the variables with --request FILE");
    if (o->now && !fm_cli_parse_int(o->now, 0, INT64_MAX / 2, &opt.now))
        return fm_cli_usage_error(o, "--now %s: expected seconds since 1970", o->now);

    fm_error err = {0};
    char *request = NULL;
    size_t n = 0;
    fm_chat_text text = {0};
    fm_status st = fm_cli_read_file(&request, &n, o->request, &err);
    if (st == FM_OK)
        st = o->template_file ? render_file(&text, o, request, n, &opt, &err)
                              : render_model(&text, o, request, n, &opt, &err);
    if (st == FM_OK) fwrite(text.text, 1, text.n, stdout);
    fm_chat_text_free(&text);
    free(request);
    return st == FM_OK ? FM_EXIT_OK : fm_cli_fail(&err);
}
