/* GGUF files: any bytes either open, and then everything that was promised holds, or give an error
 * with a message. */
#include "fuzz/fuzz.h"

#include <string.h>
#include <unistd.h>

#include "engine/tokenizer_glue.h"
#include "format/checkpoint_internal.h"

static char path[] = "/tmp/fm_fuzz_gguf_XXXXXX";
static int fd = -1;

static void remove_file(void)
{
    unlink(path);
}

static void use_metadata(const fm_checkpoint *c)
{
    for (uint32_t i = 0; i < c->meta.n_entry; i++) {
        const char *key = c->meta.entries[i].key;
        fm_error err;
        fm_str s = {0};
        uint32_t u;
        float f;
        bool b;
        int64_t v;
        fm_meta_kind kind;
        uint64_t count = 0;
        FUZZ_CHECK(fm_meta_has(c, key));
        (void)fm_meta_u32(c, key, &u, &err);
        (void)fm_meta_f32(c, key, &f, &err);
        (void)fm_meta_bool_or(c, key, &b, false, &err);
        if (fm_meta_str(c, key, &s, &err) == FM_OK) FUZZ_CHECK(s.data[s.len] == 0);
        if (fm_meta_array(c, key, &kind, &count, &err) != FM_OK) continue;
        for (uint64_t k = 0; k < count && k < 100; k++) {
            if (fm_meta_array_str(c, key, k, &s, &err) == FM_OK) FUZZ_CHECK(s.data[s.len] == 0);
            (void)fm_meta_array_int(c, key, k, &v, &err);
        }
        FUZZ_CHECK(fm_meta_array_str(c, key, count, &s, &err) != FM_OK);
        FUZZ_CHECK(fm_meta_array_int(c, key, count, &v, &err) != FM_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (fd < 0) {
        fd = mkstemp(path);
        FUZZ_CHECK(fd >= 0);
        atexit(remove_file);
    }
    FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);

    fm_error err = {0};
    fm_checkpoint *c;
    if (fm_checkpoint_open(&c, path, &err) != FM_OK) {
        FUZZ_CHECK(c == NULL && err.code != FM_OK && strstr(err.msg, "fm_fuzz_gguf"));
        return 0;
    }
    /* Directory and metadata stay in proportion to the file. */
    FUZZ_CHECK(fm_checkpoint_memory(c) < 128 * 1024 + 16 * (uint64_t)n);
    for (int64_t i = 0; i < fm_checkpoint_n_tensor(c); i++) {
        const fm_tensor_info *t = fm_checkpoint_tensor(c, i);
        FUZZ_CHECK(fm_checkpoint_find(c, t->name) == t);
        FUZZ_CHECK(t->bytes > 0 && t->offset <= n && t->bytes <= n - t->offset);
    }
    use_metadata(c);
    fm_tokenizer *tok;
    if (fm_tokenizer_from_checkpoint(&tok, c, NULL, &err) == FM_OK) {
        int32_t *ids;
        size_t n_ids;
        if (fm_tokenize(tok, &ids, &n_ids, "a <b> \xff", 7, 1, &err) == FM_OK) free(ids);
        fm_tokenizer_close(tok);
    } else {
        FUZZ_CHECK(tok == NULL && err.msg[0] != 0);
    }
    fm_checkpoint_drop_tokenizer(c);
    fm_checkpoint_close(c);
    return 0;
}
