/* Error objects and log lines: formatting only. Who decides what to do with an error is the caller's caller. */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/quote.h"

fm_status fm_fail(fm_error *err, fm_status code, const char *fmt, ...)
{
    if (!err) return code;
    err->code = code;
    err->os_errno = 0;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    fm_quote_in_place(err->msg);
    return code;
}

fm_status fm_fail_errno(fm_error *err, int os_errno, const char *fmt, ...)
{
    const fm_status code = os_errno == ENOMEM ? FM_E_NOMEM : FM_E_IO;
    if (!err) return code;
    err->code = code;
    err->os_errno = os_errno;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    fm_quote_in_place(err->msg);
    const size_t n = strlen(err->msg);
    char text[128];
    /* strerror_r has two incompatible forms; the POSIX one is asked for by the build flags. */
    if (strerror_r(os_errno, text, sizeof text) != 0)
        snprintf(text, sizeof text, "errno %d", os_errno);
    snprintf(err->msg + n, sizeof err->msg - n, ": %s", text);
    return code;
}

fm_status fm_fail_context(fm_error *err, const char *fmt, ...)
{
    if (!err) return FM_E_ARG;
    char old[sizeof err->msg];
    memcpy(old, err->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    fm_quote_in_place(err->msg);
    const size_t n = strlen(err->msg);
    snprintf(err->msg + n, sizeof err->msg - n, ": %s", old);
    return err->code;
}

void fm_log_va(fm_log_fn log, void *user, fm_log_level level, const char *fmt, va_list ap)
{
    if (!log) return;
    char line[1536]; /* a path and an error's message */
    vsnprintf(line, sizeof line, fmt, ap);
    fm_quote_in_place(line);
    log(user, level, line);
}

void fm_log(fm_log_fn log, void *user, fm_log_level level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fm_log_va(log, user, level, fmt, ap);
    va_end(ap);
}
