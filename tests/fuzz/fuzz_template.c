/* Templates: whatever the text, it compiles or is refused with a message that names a line; what
 * compiles renders or raises within its limits, the output is UTF-8 and has an origin per byte. */
#include "fuzz/fuzz.h"

#include <string.h>

#include "chat/jinja.h"
#include "text/utf8.h"

static const char variables[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi <|x|> \\u00e9\", \"n\": 1.5},"
    " {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"name\": \"f\","
    " \"arguments\": {\"a\": [1, {\"b\": true}]}}]}], \"tools\": [], \"s\": \"a b,c\", \"n\": -3}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static json_t *request;
    if (!request) request = json_loads(variables, 0, NULL);
    FUZZ_CHECK(request);
    fm_error err = {0};
    fm_jinja *t;
    if (fm_jinja_compile(&t, (const char *)data, n, "T", &err) != FM_OK) {
        FUZZ_CHECK(!t && strncmp(err.msg, "T, line ", 8) == 0);
        return 0;
    }
    const fm_jinja_input in = {.request = request,
                               .has_chat_defaults = true,
                               .now = 1700000000,
                               .max_steps = 100000,
                               .max_memory = 16 << 20,
                               .max_output = 1 << 20};
    fm_chat_text out;
    if (fm_jinja_render(t, &in, &out, &err) == FM_OK) {
        FUZZ_CHECK(out.n <= in.max_output && out.text[out.n] == 0);
        FUZZ_CHECK(fm_utf8_valid_prefix(out.text, out.n) == out.n);
        for (size_t i = 0; i < out.n; i++) FUZZ_CHECK(out.trusted[i] <= 1);
    } else {
        FUZZ_CHECK(!out.text && strncmp(err.msg, "T, line ", 8) == 0);
    }
    fm_chat_text_free(&out);
    fm_jinja_free(t);
    return 0;
}
