/* tokenizer.json: any bytes are a tokenizer that can be used, or an error with a message. */
#include "fuzz/fuzz.h"

#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = "Hello <|im_end|> 123  \xe4\xb8\xad e\xcc\x81 \xff don't\n\n";
    fm_error err = {0};
    fm_tokenizer *t;
    if (fm_tokenizer_from_json(&t, (const char *)data, n, "input", &err) != FM_OK) {
        FUZZ_CHECK(t == NULL && err.code != FM_OK && strstr(err.msg, "input"));
        return 0;
    }
    int32_t *ids;
    size_t n_ids;
    if (fm_tokenize(t, &ids, &n_ids, text, sizeof text - 1, FM_TOKENIZE_SPECIAL, &err) == FM_OK) {
        for (size_t i = 0; i < n_ids; i++) FUZZ_CHECK(fm_token_bytes(t, ids[i], NULL));
        free(ids);
    } else {
        FUZZ_CHECK(err.msg[0] != 0);
    }
    fm_tokenizer_close(t);
    return 0;
}
