/* What every command does the same way: Ctrl-C, opening an engine, reporting a failure, ending. */
#include "cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

static volatile sig_atomic_t is_interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    is_interrupted = 1;
}

void fm_cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    /* No SA_RESTART: a read of standard input must come back. RESETHAND: the second one kills. */
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);

    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL); /* a file at its size limit: the write says EFBIG instead */
}

bool fm_cli_is_interrupted(void)
{
    return is_interrupted != 0;
}

int fm_cli_fail(const fm_error *err)
{
    fm_cli_progress_clear();
    if (err->code == FM_E_CANCELLED && is_interrupted) {
        fputs("flashmoe: interrupted\n", stderr);
        return FM_EXIT_INTERRUPTED;
    }
    fprintf(stderr, "flashmoe: %s\n", err->msg[0] ? err->msg : "failed without a message");
    return FM_EXIT_FAILURE;
}

/* Standard output did not take a write because Ctrl-C came while it waited for its reader. What is left in the buffer
 * would wait for it again at exit. */
static int finish_interrupted(void)
{
    close(STDOUT_FILENO);
    return FM_EXIT_INTERRUPTED;
}

static bool takes_writes(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    return poll(&p, 1, 0) > 0;
}

int fm_cli_finish(int status)
{
    if (is_interrupted && ferror(stdout) && !takes_writes(STDOUT_FILENO))
        return finish_interrupted();
    errno = 0;
    const bool is_flushed = fflush(stdout) == 0;
    if (is_flushed && !ferror(stdout)) return status;
    if (is_interrupted && errno == EINTR) return finish_interrupted();
    fm_cli_progress_clear();
    /* When an earlier write failed, its errno is gone, but the same write fails again. */
    if (is_flushed) {
        clearerr(stdout);
        fputc('\n', stdout);
        fflush(stdout);
    }
    if (is_interrupted && !ferror(stdout)) return FM_EXIT_INTERRUPTED; /* nothing else is wrong */
    fprintf(stderr, "flashmoe: writing to standard output: %s\n",
            errno ? strerror(errno) : "failed");
    return FM_EXIT_FAILURE;
}

void fm_cli_on_log(void *user, fm_log_level level, const char *line)
{
    const fm_cli_options *o = user;
    if (level == FM_LOG_WARN) {
        fm_cli_warn("%s", line);
    } else if (level == FM_LOG_ERROR) {
        fm_cli_progress_clear();
        fprintf(stderr, "%s\n", line);
    } else if (level == FM_LOG_INFO) {
        fm_cli_note(o, "%s", line);
    }
}

const char *fm_cli_activations(int32_t activations)
{
    return activations == FM_ACTIVATIONS_INT8 ? "int8" : "full";
}

void fm_cli_engine_options(fm_engine_options *out, const fm_cli_options *o)
{
    fm_engine_options_init(out);
    out->model_path = o->model;
    out->memory_budget = o->memory_bytes;
    out->n_threads = o->n_threads;
    out->n_ctx = o->n_ctx;
    out->n_expert_used = o->n_expert_used;
    out->n_batch = o->n_batch;
    out->kv_type = o->kv && strcmp(o->kv, "f32") == 0 ? FM_KV_F32 : FM_KV_F16;
    out->io_engine = o->io;
    out->io_depth = o->io_depth;
    out->io_split = o->io_split;
    if (o->prefetch && strcmp(o->prefetch, "on") == 0) out->prefetch = FM_PREFETCH_ON;
    if (o->prefetch && strcmp(o->prefetch, "off") == 0) out->prefetch = FM_PREFETCH_OFF;
    /* Only a generation asks for single tokens, and that of bench is fed. */
    const bool may_draft = strcmp(o->command, "run") == 0 || strcmp(o->command, "plan") == 0 ||
                           strcmp(o->command, "info") == 0;
    const char *const draft = o->draft ? o->draft : may_draft ? "auto" : "off";
    out->draft = strcmp(draft, "on") == 0    ? FM_DRAFT_ON
                 : strcmp(draft, "off") == 0 ? FM_DRAFT_OFF
                                             : FM_DRAFT_AUTO;
    out->kernels = o->kernels;
    if (o->activations && strcmp(o->activations, "int8") == 0)
        out->activations = FM_ACTIVATIONS_INT8;
    out->trace_path = o->trace_path;
    out->warm_start =
        o->warm_start ? strcmp(o->warm_start, "on") == 0 : strcmp(o->command, "run") == 0;
    out->log = fm_cli_on_log;
    out->log_user = (void *)(uintptr_t)o; /* only read through */
}

fm_status fm_cli_open(fm_engine **out, const fm_engine_options *opt, const fm_cli_options *o,
                      fm_error *err)
{
    fm_engine_options with_progress = *opt;
    fm_cli_progress progress;
    fm_cli_progress_start(&progress, o, "loading", true);
    if (!opt->plan_only) {
        with_progress.load_progress = fm_cli_on_load;
        with_progress.progress_user = &progress;
    }
    const fm_status st = fm_engine_open(out, &with_progress, err);
    fm_cli_progress_clear();
    if (st != FM_OK) return st;

    fm_model_info info;
    fm_engine_model_info(*out, &info);
    if (o->n_expert_used > 0 && o->n_expert_used != info.n_expert_used_trained) {
        fm_cli_warn("--experts %d changes the output: the model was trained with %d experts per "
                    "token",
                    (int)o->n_expert_used, (int)info.n_expert_used_trained);
    }
    if (info.activations == FM_ACTIVATIONS_INT8) {
        fm_cli_warn("--activations int8 changes the output: activations that meet quantized "
                    "weights are rounded to 8 bits");
    }
    return FM_OK;
}
