#include "text/tokenizer.h"
fm_status fm_tokenizer_from_json(fm_tokenizer **out, const char *json, size_t n, const char *origin,
                                 fm_error *err)
{
    (void)json;
    (void)n;
    (void)origin;
    *out = NULL;
    return fm_fail(err, FM_E_UNSUPPORTED, "todo");
}
