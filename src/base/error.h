/* Errors: one status code for programs, one message for people. The lowest function that knows
 * the object (file, tensor, key) writes the message; callers pass it on. */
#pragma once

#include <stdarg.h>

#include "flashmoe.h"

#include "base/attr.h"

/* Fills *err (may be NULL) and returns code. Control characters besides newline and tab become '?'. */
fm_status fm_fail(fm_error *err, fm_status code, const char *fmt, ...) FM_PRINTF(3, 4);

/* As fm_fail with FM_E_IO, for ENOMEM with FM_E_NOMEM; appends ": " and the text of os_errno, and keeps
 * the number. */
fm_status fm_fail_errno(fm_error *err, int os_errno, const char *fmt, ...) FM_PRINTF(3, 4);

/* Puts "text: " in front of the message that err already holds. Returns err's code. */
fm_status fm_fail_context(fm_error *err, const char *fmt, ...) FM_PRINTF(2, 3);

/* One line for a log, which may be NULL. The second form takes the arguments of another function like it. */
void fm_log(fm_log_fn log, void *user, fm_log_level level, const char *fmt, ...) FM_PRINTF(4, 5);
void fm_log_va(fm_log_fn log, void *user, fm_log_level level, const char *fmt, va_list ap)
    FM_PRINTF(4, 0);

#define FM_TRY(call)                                                                               \
    do {                                                                                           \
        const fm_status fm_try_st_ = (call);                                                       \
        if (fm_try_st_ != FM_OK) return fm_try_st_;                                                \
    } while (0)
