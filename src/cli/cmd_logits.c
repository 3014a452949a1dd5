/* flashmoe logits: raw logits of given ids as a .npy file, for comparison with a reference. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "cli/npy.h"

/* The default of --batch here, as the help says: a chunk of fixed length. */
enum { LOGITS_BATCH = 512 };

typedef struct {
    fm_npy npy;
    fm_status status; /* of the first failed write */
    fm_error *err;
} logits_out;

static bool on_logits(void *user, int64_t pos, const float *logits)
{
    (void)pos; /* rows come in order */
    logits_out *out = user;
    out->status = fm_npy_write_row(&out->npy, logits, out->err);
    return out->status == FM_OK;
}

static fm_status read_ids(int32_t **ids, size_t *n_ids, const fm_cli_options *o, fm_error *err)
{
    if (o->ids) return fm_cli_parse_ids(ids, n_ids, o->ids, "--ids", err);
    char *text;
    size_t n;
    FM_TRY(fm_cli_read_file(&text, &n, o->ids_file, err));
    fm_status st;
    if (strlen(text) != n) {
        st = fm_fail(err, FM_E_FORMAT, "%s: holds a NUL byte, expected ids as text", o->ids_file);
    } else {
        st = fm_cli_parse_ids(ids, n_ids, text, o->ids_file, err);
    }
    free(text);
    if (st == FM_OK && *n_ids > INT32_MAX) {
        st = fm_fail(err, FM_E_LIMIT, "%s: %zu ids are too many", o->ids_file, *n_ids);
    }
    return st;
}

/* Pipes and devices are opened when there is something to write, and not before. */
static fm_status check_out(const char *path, fm_error *err)
{
    struct stat info;
    const bool is_there = stat(path, &info) == 0;
    if (is_there && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) return FM_OK;
    return fm_cli_check_writable(path, err);
}

static fm_status write_logits(fm_session *session, const fm_cli_options *o, const int32_t *ids,
                              size_t n_ids, int32_t n_vocab, fm_error *err)
{
    logits_out out = {.err = err};
    FM_TRY(fm_npy_create(&out.npy, o->out_path, n_ids, (uint64_t)n_vocab, err));
    fm_cli_progress progress;
    fm_cli_progress_start(&progress, o, "logits", false);
    const fm_eval_options eval = {
        .struct_size = sizeof eval,
        .progress = fm_cli_on_eval,
        .progress_user = &progress,
        .every_logits = on_logits,
        .logits_user = &out,
    };
    fm_error eval_err = {0}; /* a failed write also cancels; its own message is the one to show */
    fm_status st = fm_session_eval(session, ids, n_ids, &eval, &eval_err);
    if (out.status != FM_OK) {
        st = out.status;
    } else if (st != FM_OK) {
        *err = eval_err;
    } else {
        st = fm_npy_commit(&out.npy, err);
    }
    if (st == FM_OK) fm_cli_progress_show(&progress, n_ids, n_ids);
    fm_npy_destroy(&out.npy);
    return st;
}

int fm_cmd_logits(const fm_cli_options *o)
{
    fm_error err = {0};
    fm_engine *engine = NULL;
    fm_session *session = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;

    if (!o->ids == !o->ids_file) {
        return fm_cli_usage_error(o, "give either --ids or --ids-file");
    }
    if (!o->out_path) return fm_cli_usage_error(o, "--out FILE.npy is missing");

    /* Their number decides the context, so they come before the engine and its plan. */
    fm_status st = read_ids(&ids, &n_ids, o, &err);
    if (st == FM_OK) st = check_out(o->out_path, &err);
    if (st == FM_OK) {
        fm_engine_options opt;
        fm_cli_engine_options(&opt, o);
        if (opt.n_batch == 0) opt.n_batch = LOGITS_BATCH;
        if (opt.n_ctx == 0) opt.n_ctx = (int32_t)n_ids;
        st = fm_cli_open(&engine, &opt, o, &err);
    }
    fm_model_info info = {0};
    if (st == FM_OK) {
        fm_engine_model_info(engine, &info);
        st = fm_cli_check_ids(ids, n_ids, info.n_vocab, o->ids ? "--ids" : o->ids_file, &err);
    }
    if (st == FM_OK) st = fm_session_create(&session, engine, &err);
    if (st == FM_OK) {
        st = write_logits(session, o, ids, n_ids, info.n_vocab, &err);
    }
    const int status = st == FM_OK ? FM_EXIT_OK : fm_cli_fail(&err);
    fm_cli_progress_clear();
    fm_session_destroy(session);
    fm_engine_close(engine);
    free(ids);
    return status;
}
