/* Unicode normalisation form C of valid UTF-8. */
#pragma once

#include "base/error.h"

/* True when the text is its own NFC for a reason that is cheap to see: no character at or above
 * U+0300. False says nothing. */
bool fm_nfc_is_plain(const char *text, size_t n);

/* *out: the normalised text, malloc'd, owned by the caller; n_out bytes. Linear in n, whatever the
 * text. FM_E_NOMEM is the only failure. */
fm_status fm_nfc(char **out, size_t *n_out, const char *text, size_t n, fm_error *err);
