/* Requests: whatever the text, a template that looks at all of it renders or raises. */
#include "fuzz/fuzz.h"

#include <string.h>

#include "chat/chat_form.h"
#include "text/utf8.h"

static const char source[] =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.content is string %}"
    "{{ m.content | trim | upper }}{{ m.content.split('a') }}{% endif %}"
    "{% for k, v in m | items %}{{ k ~ v }}{% endfor %}{% endfor %}"
    "{{ tools | tojson(indent=1) }}{{ [messages, tools] }}{{ messages == tools }}{{ x.y }}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static fm_chat_form *form, *chatml;
    fm_error err = {0};
    if (!form) {
        form = fm_chat_form_new();
        chatml = fm_chat_form_new();
        FUZZ_CHECK(form && chatml);
        FUZZ_CHECK(fm_chat_form_add(form, NULL, source, sizeof source - 1, "T", &err) == FM_OK);
    }
    json_t *request;
    if (fm_chat_request_parse(&request, (const char *)data, n, NULL, &err) != FM_OK) {
        FUZZ_CHECK(!request && strncmp(err.msg, "request: ", 9) == 0);
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        fm_chat_text out;
        if (fm_chat_form_render(i ? chatml : form, request, 0, &out, &err) == FM_OK) {
            FUZZ_CHECK(fm_utf8_valid_prefix(out.text, out.n) == out.n);
        } else {
            FUZZ_CHECK(!out.text && err.msg[0]);
        }
        fm_chat_text_free(&out);
    }
    json_decref(request);
    return 0;
}
