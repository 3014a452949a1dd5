/* Small files as a whole: configurations, tokenizers, templates. Any thread. */
#pragma once

#include <stddef.h>

#include "base/error.h"

/* DIRECTORY/NAME, malloc'd; NULL when out of memory. */
char *fm_path_join(const char *directory, const char *name);

/* All bytes of a regular file of at most `max` and a zero behind them; *data is malloc'd. Where there is no such file, *data is
 * NULL, which is a failure only for fm_read_file(). Nothing else than a regular file is waited for. */
fm_status fm_read_file(char **data, size_t *n, const char *path, uint64_t max, fm_error *err);
fm_status fm_read_file_if_any(char **data, size_t *n, const char *path, uint64_t max,
                              fm_error *err);
