/* tiktoken files: input is tokenizer_config.json, a zero byte, then the file. */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = memchr(data, 0, size);
    const size_t n_config = zero ? (size_t)(zero - data) : size;
    const uint8_t *text = zero ? zero + 1 : data + size;
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_from_tiktoken(&t, (const char *)text, size - (size_t)(text - data),
                                   (const char *)data, n_config, "kimi-k2", "fuzz", &err) == FM_OK)
        fm_tokenizer_close(t);
    else if (!err.msg[0])
        abort();
    return 0;
}
