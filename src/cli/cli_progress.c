/* Information and progress on standard error.
 *
 * On a terminal progress is one line that is rewritten in place and taken away again; anything
 * else that is printed clears it first. In a file or with NO_COLOR set it is a line of its own at
 * the start of long work, every few seconds, and at the end. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    REWRITE_US = 150 * 1000, /* on a terminal      */
    INSTANT_US = 500 * 1000,
    REPEAT_US = 5 * 1000 * 1000, /* lines of their own */
};

/* There is one standard error, and so one line on it that must be cleared. */
static bool is_line_shown;

void fm_cli_progress_clear(void)
{
    if (!is_line_shown) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    is_line_shown = false;
}

void fm_cli_note(const fm_cli_options *o, const char *fmt, ...)
{
    if (o->is_quiet) return;
    fm_cli_progress_clear();
    va_list args;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

void fm_cli_warn(const char *fmt, ...)
{
    fm_cli_progress_clear();
    va_list args;
    va_start(args, fmt);
    fputs("flashmoe: warning: ", stderr);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

void fm_cli_progress_start(fm_cli_progress *p, const fm_cli_options *o, const char *what,
                           bool is_bytes)
{
    const char *no_color = getenv("NO_COLOR");
    *p = (fm_cli_progress){
        .o = o,
        .what = what,
        .is_bytes = is_bytes,
        .started_us = fm_now_us(),
        .is_terminal = isatty(STDERR_FILENO) && !(no_color && *no_color),
    };
}

static void print_progress(const fm_cli_progress *p, uint64_t done, uint64_t total, double seconds)
{
    char a[FM_CLI_FIGURE], b[FM_CLI_FIGURE], left[FM_CLI_FIGURE];
    const double percent = total > 0 ? 100.0 * (double)done / (double)total : 100.0;
    const uint64_t own = done > p->skipped ? done - p->skipped : 0;
    const double rate = seconds > 0 ? (double)own / seconds : 0;
    if (p->is_bytes) {
        fprintf(stderr, "%s %s of %s, %.0f %%, ", p->what, fm_figure_bytes(a, done),
                fm_figure_bytes(b, total), percent);
        fprintf(stderr, rate < 1e8 ? "%.1f MB/s" : "%.2f GB/s",
                rate < 1e8 ? rate / 1e6 : rate / 1e9);
    } else {
        fprintf(stderr, "%s %s of %s tokens, %.1f %%, %.1f tok/s", p->what, fm_cli_count(a, done),
                fm_cli_count(b, total), percent, rate);
    }
    if (rate > 0 && done < total) {
        fprintf(stderr, ", %s left", fm_cli_seconds(left, (double)(total - done) / rate));
    }
}

void fm_cli_progress_show(fm_cli_progress *p, uint64_t done, uint64_t total)
{
    if (done > total) done = total;
    p->done = done;
    if (p->o->is_quiet || p->is_done) return;
    const uint64_t now = fm_now_us();
    const uint64_t since = now - (p->shown_us ? p->shown_us : p->started_us);
    const bool is_end = done == total;
    const bool is_instant = now - p->started_us < INSTANT_US && !p->shown_us;
    if (p->is_bytes && is_end && is_instant) return; /* a load that nobody waited for */
    if (!is_end && since < (uint64_t)(p->is_terminal ? REWRITE_US : REPEAT_US)) return;
    p->shown_us = now;
    p->is_done = is_end;
    if (p->is_terminal) {
        fputs("\r\033[K", stderr);
        is_line_shown = true;
    }
    print_progress(p, done, total, (double)(now - p->started_us) / 1e6);
    if (!p->is_terminal) fputc('\n', stderr);
    fflush(stderr);
}

/* user: one fm_cli_progress per phase. */
bool fm_cli_on_quantize(void *user, fm_quantize_phase phase, uint64_t done, uint64_t total,
                        uint64_t resumed)
{
    fm_cli_progress *p = (fm_cli_progress *)user + phase;
    if (fm_cli_is_interrupted()) return false;
    if (p->started_us == 0) fm_cli_progress_start(p, p->o, p->what, true);
    p->skipped = resumed;
    fm_cli_progress_show(p, done, total);
    return true;
}

bool fm_cli_on_eval(void *user, int64_t done, int64_t total)
{
    if (fm_cli_is_interrupted()) return false;
    fm_cli_progress_show(user, (uint64_t)done, (uint64_t)total);
    return true;
}

bool fm_cli_on_token(void *user, int64_t done, int64_t total)
{
    (void)user, (void)done, (void)total;
    return !fm_cli_is_interrupted();
}

bool fm_cli_on_load(void *user, uint64_t done, uint64_t total)
{
    if (fm_cli_is_interrupted()) return false;
    fm_cli_progress_show(user, done, total);
    return true;
}
