#include "format/checkpoint_internal.h"

fm_status fm_hf_open(fm_checkpoint *c, const char *path, fm_error *err)
{
    (void)c;
    return fm_fail(
        err, FM_E_UNSUPPORTED,
        "%s: is a directory; Hugging Face directories are not supported yet, give a GGUF file",
        path);
}
