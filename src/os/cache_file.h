/* Small files in the user's cache directory: what was measured or learned once and may be lost at any
 * time. Every file is safe to delete; one that is damaged, of another version or of another kind is
 * refused with a reason, and the caller goes on without it. Layout: docs/formats.md. Any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { FM_CACHE_MAGIC_BYTES = 8, FM_CACHE_PATH_MAX = 1024 };

/* Path of `name` in this program's folder: $XDG_CACHE_HOME/flashmoe, else $HOME/.cache/flashmoe. A
 * value that is no absolute path counts as not set. FM_E_UNSUPPORTED when neither is set, FM_E_LIMIT
 * when the path is too long. Creates nothing. */
fm_status fm_cache_path(char path[FM_CACHE_PATH_MAX], const char *name, fm_error *err);

/* The payload of a file that fm_cache_write() wrote: malloc'd, the caller frees it with free(). No such
 * file: FM_OK and *payload NULL. FM_E_FORMAT with what was found and expected when the file is not
 * whole, another one, another version, or larger than max_bytes. */
fm_status fm_cache_read(unsigned char **payload, size_t *bytes, const char *path,
                        const char magic[FM_CACHE_MAGIC_BYTES], uint32_t version, size_t max_bytes,
                        fm_error *err);

/* Makes the folder, writes the file under another name and, when it is on the device, renames it, so that a reader sees
 * the old file or the new one, also after a power cut. */
fm_status fm_cache_write(const char *path, const char magic[FM_CACHE_MAGIC_BYTES], uint32_t version,
                         const void *payload, size_t bytes, fm_error *err);
