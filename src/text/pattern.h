/* Translates the regular expressions of tokenizer files (Oniguruma, Ruby syntax, Unicode) to PCRE2
 * syntax for use with UTF, UCP and MULTILINE. */
#pragma once

#include "base/error.h"

/* *out: NUL-terminated, malloc'd, owned by the caller. What the two libraries read differently is
 * rewritten; a construct that cannot be is FM_E_UNSUPPORTED and named. */
fm_status fm_pattern_translate(char **out, const char *pattern, size_t n, fm_error *err);
